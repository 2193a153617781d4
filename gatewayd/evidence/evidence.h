/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Attestation: challenge → evidence → appraisal → receipt → the way upstream. RFC 9334 roles: the
 * device is the attester, gatewayd a local verifier and the relaying party. */

#include <openssl/evp.h>

#include "gatewayd/exchange.h"
#include "store/evidence.h"

/* The claims gatewayd reads out of an EAT (RFC 9711) or a PSA token (RFC 9783). Slices borrow. */
#define CLAIMS_MEASUREMENTS_MAX 16
struct claims {
        struct bytes nonces[4];
        size_t nonce_count;
        struct bytes ueid;
        struct bytes profile;
        struct bytes swname, swversion;
        struct { struct bytes type, version, digest, signer; } measurements[CLAIMS_MEASUREMENTS_MAX];
        size_t measurement_count;
        int64_t lifecycle; /* PSA security lifecycle; -1 absent */
        int64_t dbgstat;   /* EAT debug status; -1 absent */
};
int eat_parse(struct bytes payload, struct claims *ret, struct problem *problem);

/* AR4SI trustworthiness vector (draft-ietf-rats-ar4si): values -128 to 127, 0 is "no claim". */
struct appraisal {
        enum tier tier;
        int8_t instance_identity, configuration, executables, hardware;
        bool is_appraised;  /* false: stored and relayed as not appraised here */
        char reason[128];
};

/* Pure: compares claims with the profile's reference values. */
void appraise_eat(const struct claims *claims, const struct profile *profile, struct appraisal *ret);

/* The receipt key and gateway id, held by core as long as it lives. */
struct custodian {
        EVP_PKEY *key;          /* P-256 */
        uint8_t kid[8];         /* first bytes of SHA-256 of its SubjectPublicKeyInfo */
        const char *gateway_id;
};
/* Loads the receipt key from the store, or makes it (first start). */
int custodian_open(struct turn *turn, const char *gateway_id, struct custodian *ret);
void custodian_close(struct custodian *custodian);
/* handle_evidence() needs it: set once at start. */
void evidence_use_custodian(struct custodian *custodian);

/* Takes evidence into custody: receipt signed, chained, stored with the evidence in this turn.
 * -ENOSPC with problem 5.03 when the configured backlog is full. */
int custody_record(struct turn *turn, const struct custodian *custodian, const char *device,
                   int32_t content_format, const struct challenge *challenge, struct bytes evidence,
                   const struct appraisal *appraisal, uint64_t *ret_sequence, struct problem *problem);

/* Applies an appraisal (local or from upstream) to the device's row: tier, affirmed, conflict solved,
 * quarantine lifted or imposed as lifecycle says; events and notifications. */
int appraisal_apply(struct turn *turn, struct device *device, const struct appraisal *appraisal);

/* What north reports. */
int relay_delivered(struct turn *turn, uint64_t sequence);
int relay_parked(struct turn *turn, uint64_t sequence, uint16_t http_status, struct bytes reason);
int relay_result(struct turn *turn, uint64_t sequence, uint8_t tier, struct bytes ear_jwt);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Attestation: challenge → evidence → appraisal → receipt → the way upstream. RFC 9334 roles: the
 * device is the attester, gatewayd a local verifier and the relaying party. */

#include <openssl/evp.h>

#include "gatewayd/exchange.h"
#include "store/evidence.h"
#include "store/own_keys.h"

/* The claims gatewayd reads out of an EAT (RFC 9711) or a PSA token (RFC 9783 and its two forerunners).
 * Slices borrow from the payload. A measurement is a PSA software component, a measured component
 * (content-format 295) or a bare digest (content-format 42); unset members are empty. */
#define CLAIMS_MEASUREMENTS_MAX 32
struct claims {
        struct bytes nonces[4];
        size_t nonce_count;
        struct bytes ueid;
        struct bytes profile;
        struct bytes swname, swversion;
        struct {
                struct bytes type, version, digest, signer;
        } measurements[CLAIMS_MEASUREMENTS_MAX];
        size_t measurement_count;
        int64_t lifecycle; /* PSA security lifecycle; -1 absent */
        int64_t dbgstat;   /* EAT debug status; -1 absent */
        bool is_psa;       /* by its profile */
};
/* Claims that are not read here are passed over; those that are must have their type, else -EBADMSG with
 * problem 4.00. */
int eat_parse(struct bytes payload, struct claims *ret, struct problem *problem);

/* AR4SI trustworthiness vector (draft-ietf-rats-ar4si): values -128 to 127, 0 is "no claim". */
struct appraisal {
        enum tier tier;
        int8_t instance_identity, configuration, executables, hardware;
        bool is_appraised; /* false: stored and relayed as not appraised here */
        char reason[128];
};

/* Pure: compares claims with the profile's reference values. */
void appraise_eat(const struct claims *claims, const struct profile *profile, struct appraisal *ret);

/* ---- challenge.c ---- */

/* The challenge that the claims answer. 0: it is open; 1: it was spent by this very evidence (SHA-256
 * `digest`), whose answer stands. Else with problem: -ENOENT 4.22 unknown or expired, -EACCES 4.03
 * another device's, -EEXIST 4.09 spent by other evidence. Changes nothing. */
int challenge_find(struct turn *turn, const char *device, const struct claims *claims, const uint8_t digest[32],
                   struct challenge *ret, struct problem *problem);

/* ---- custody.c ---- */

/* A receipt's claims: a CBOR map with these keys, in this order, as payload of a COSE_Sign1 (tag 18,
 * ES256, kid of the receipt key in the unprotected header). */
enum receipt_claim {
        RECEIPT_GATEWAY = 0,     /* text: gateway id */
        RECEIPT_INCARNATION = 1, /* 8 bytes: of the store */
        RECEIPT_SEQUENCE = 2,    /* from 1, without gaps within an incarnation */
        RECEIPT_DEVICE = 3,      /* text: device id; empty in a key succession record */
        RECEIPT_RECEIVED = 4,    /* seconds since 1970, as good as the quality says */
        RECEIPT_QUALITY = 5,     /* 0 unknown, 1 held, 2 synchronized */
        RECEIPT_NONCE = 6,       /* 32 bytes: the challenge; empty where the evidence answers none */
        RECEIPT_FORMAT = 7,      /* CoAP content-format of the evidence */
        RECEIPT_DIGEST = 8,      /* SHA-256 of the evidence */
        RECEIPT_APPRAISAL = 9,   /* {0: tier, 1: {AR4SI claim: value} or null: not appraised here, 2: reason} */
        RECEIPT_PREVIOUS = 10,   /* SHA-256 of the receipt before, whole COSE_Sign1; zeros in the first */
        RECEIPT_POWERED = 11,    /* powered-on seconds of the gateway when received: cannot be set back */
};

/* The receipt key as it is in the store, open, and the gateway id. The store says at each record which key signs
 * (store/own_keys.h): a turn that made a new one and was dropped leaves nothing here to take back. */
struct custodian {
        EVP_PKEY *key;  /* P-256 */
        uint8_t kid[8]; /* first bytes of SHA-256 of its SubjectPublicKeyInfo */
        const char *gateway_id;
};
#define RECEIPT_KID_BYTES 8
/* Loads the receipt key from the store, or makes it (first start). */
int custodian_open(struct turn *turn, const char *gateway_id, struct custodian *ret);
void custodian_close(struct custodian *custodian);
/* The kid as hex, as own_key.id has it. */
void custodian_kid_text(const struct custodian *custodian, char to[2 * RECEIPT_KID_BYTES + 1]);

/* A new receipt key takes over. The chain itself says so: a key succession record, signed by the old key, of no device,
 * whose evidence is the new public COSE_Key (content-format 101); every receipt after it is signed by the new key. The
 * private key of before is overwritten in the same turn. A full backlog does not hold it up. `*row` is brought up to
 * date and stored; *ret_sequence is the record's. */
int custody_succeed(struct turn *turn, struct own_key *row, uint64_t *ret_sequence);

/* Is there room for `size` more bytes of evidence of this device? -ENOSPC with problem 5.03 when the
 * configured backlog is full. Once it is half full, -EBUSY with problem 4.29 for a device that sends much
 * more often than its profile asks: one talkative device must not take the others' room. */
int custody_admit(struct turn *turn, const struct device *device, const struct profile *profile, size_t size,
                  struct problem *problem);

/* Takes evidence into custody: receipt signed, chained, stored with the evidence in this turn.
 * `challenge` is NULL where the evidence answers none. -ENOSPC with problem 5.03 when the configured
 * backlog is full. */
int custody_record(struct turn *turn, struct custodian *custodian, const char *device, int32_t content_format,
                   const struct challenge *challenge, struct bytes evidence, const struct appraisal *appraisal,
                   uint64_t *ret_sequence, struct problem *problem);

/* ---- appraisal.c ---- */

/* Applies an appraisal made now to the device's row and writes it: tier, affirmed, conflict and compromise
 * answered, quarantine imposed (contraindicated) or lifted (affirming); events and notifications. An
 * appraisal that did not take place changes nothing but the schedule. */
int appraisal_apply(struct turn *turn, struct device *device, const struct appraisal *appraisal);
/* The same for evidence received earlier. `is_proof`: it was verified under the registered attestation
 * key, so that it can answer a conflict or a compromise noticed before it came. */
int appraisal_settle(struct turn *turn, struct device *device, const struct appraisal *appraisal,
                     const struct moment *received, bool is_proof);
const char *tier_name(enum tier tier);

/* ---- outbox.c: what north reports ---- */

/* Each may be told twice: the second changes nothing. */
int relay_delivered(struct turn *turn, uint64_t sequence);
int relay_parked(struct turn *turn, uint64_t sequence, uint16_t http_status, struct bytes reason);
int relay_result(struct turn *turn, uint64_t sequence, uint8_t tier, struct bytes ear_jwt);

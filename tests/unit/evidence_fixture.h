/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A device with an attestation key before a gateway: the fixture of devices/ with a custodian, and
 * evidence made to order. */

#include "gatewayd/evidence/evidence.h"
#include "tests/unit/devices_fixture.h"
#include "tests/unit/evidence_support.h"

struct evidence_fixture {
        struct fixture *f;
        struct turn *turn;
        EVP_PKEY *key; /* the attestation key of "sensor-1" */
        struct custodian custodian;
        struct reference_value reference; /* of the profile: { "fw", "1.2", digest of ones } */
        struct identity identity;         /* a session of "sensor-1" on its operational key */
};

/* cmocka's setup and teardown: "sensor-1" of the profile "attest" is provisioned and connected. */
int evidence_setup(void **state);
int evidence_teardown(void **state);
/* Another device of the same profile, with the same attestation key, connected. */
struct identity evidence_another(struct evidence_fixture *e, const char *id);

/* What a piece of evidence says; the defaults match the reference value. */
struct evidence_options {
        struct bytes nonce;
        const char *swversion; /* NULL: "1.2" */
        int64_t dbgstat;       /* 0: no claim; else dbgstat + 1 */
        EVP_PKEY *key;         /* NULL: the attestation key */
};
void evidence_make(struct evidence_fixture *e, const struct evidence_options *options, struct buffer *to);

/* A request on a session, as core makes it: authorised, in its savepoint. Returns the code; free the payload. */
uint8_t evidence_request(struct evidence_fixture *e, struct identity *from, uint8_t method, const char *path,
                         int32_t content_format, int32_t accept, struct bytes payload, struct reply *reply);
/* POST /rats/nonce; 32 bytes. */
void evidence_nonce(struct evidence_fixture *e, struct identity *from, uint8_t nonce[NONCE_BYTES]);
/* POST /rats/evidence with content-format 263; the answer's sequence and tier where not NULL. */
uint8_t evidence_post(struct evidence_fixture *e, struct identity *from, struct bytes evidence, int64_t *sequence,
                      int64_t *tier);
/* Asks for a challenge and answers it; fails unless the answer is 2.01. Returns the sequence. */
uint64_t evidence_give(struct evidence_fixture *e, struct identity *from, const char *swversion);

/* SPDX-License-Identifier: Apache-2.0 */

/* COSE_Sign1: whatever comes is taken apart within its bytes or refused, nothing verifies under a key that
 * did not sign it, and whatever is signed verifies. */

#include <assert.h>
#include <stdlib.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "gatewayd/cbor.h"
#include "gatewayd/keys/cose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *keys[5];

static void make_keys(void) {
        keys[0] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
        keys[1] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
        keys[2] = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-521");
        keys[3] = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        keys[4] = EVP_PKEY_Q_keygen(NULL, NULL, "ED448");
}

static void assert_within(struct bytes slice, struct bytes message) {
        assert(slice.size == 0 ||
               (slice.data >= message.data && slice.data + slice.size <= message.data + message.size));
}

static void take(struct bytes message) {
        struct cose_sign1 sign1;
        struct problem problem = { 0 };

        if (cose_sign1_parse(message, &sign1, &problem) < 0) {
                assert(problem.code == CODE_BAD_REQUEST && problem.detail[0] != 0);
                return;
        }
        assert_within(sign1.protected_header, message);
        assert_within(sign1.payload, message);
        assert_within(sign1.signature, message);
        assert_within(sign1.kid, message);
        for (size_t i = 0; i < ELEMENTS(keys); i++)
                assert(cose_sign1_verify(&sign1, keys[i], NULL) < 0);
}

static void sign(struct bytes payload) {
        EVP_PKEY *key = keys[payload.size > 0 ? payload.data[0] % ELEMENTS(keys) : 0];
        _cleanup_(buffer_free) struct buffer message = {};
        struct cose_sign1 sign1;

        assert(cose_sign1_make(key, payload.size % 2 ? payload : (struct bytes){}, payload, &message) == 0);
        assert(cose_sign1_parse(buffer_bytes(&message), &sign1, NULL) == 0);
        assert(bytes_equal(sign1.payload, payload));
        assert(cose_sign1_verify(&sign1, key, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (!keys[0])
                make_keys();
        take(BYTES(data, size));
        if (size % 8 == 0) /* signing is slow beside parsing */
                sign(BYTES(data, size));
        return 0;
}

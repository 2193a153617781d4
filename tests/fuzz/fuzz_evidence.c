/* SPDX-License-Identifier: Apache-2.0 */

/* The whole way of evidence, on a store in memory: the input is taken as it is, and as claims that the
 * device's own key signs, with and without a challenge. Every answer is CBOR of the promised shape, and a
 * refusal changes nothing. */

#include <assert.h>
#include <stdlib.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/keys/cose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct store *store;
static struct reference_value reference = { .swname = "fw" };
static struct profile profile = {
        .name = "p",
        .attestation = ATTESTATION_EAT,
        .attest_every_sec = 86400,
        .challenge_sec = 300,
        .rotate_every_sec = 86400,
        .max_age_sec = 864000,
        .references = &reference,
        .reference_count = 1,
};
static struct config config = {
        .gateway_id = "g", .backlog_records = 100, .backlog_bytes = 1 << 20, .profiles = &profile, .profile_count = 1
};
static struct turn turn;
static struct custodian custodian;
static struct identity identity;
static EVP_PKEY *key;

static void set_up(void) {
        static const uint8_t sealing_key[32] = { 1 };
        const struct store_options options = { .in_memory = true, .key_encryption_key = BYTES(sealing_key, 32) };
        struct challenge challenge = { .device = "d", .lives_sec = 300 };
        struct device *device = &identity.device;
        uint8_t *at = device->attestation_key;

        assert(store_open(&options, &store, NULL) == 0);
        turn = (struct turn){
                .store = store, .config = &config, .now = { 1790000000, 1000, CLOCK_HELD, true }, .actor = "device"
        };
        assert(custodian_open(&turn, config.gateway_id, &custodian) == 0);
        turn.custodian = &custodian;
        key = EVP_EC_gen("P-256");
        snprintf(device->id, sizeof device->id, "d");
        snprintf(device->profile, sizeof device->profile, "p");
        device->standing = STANDING_OPERATIONAL;
        device->attestation_key_size = (size_t)i2d_PUBKEY(key, &at);
        assert(device_insert(store, device) == 0);
        identity.profile = &profile;
        identity.credential = (struct credential){
                .identity = "k", .device = "d", .kind = CREDENTIAL_PSK, .state = KEY_ACTIVE, .generation = 1
        };
        assert(credential_insert(store, &identity.credential, &(struct secret){ .size = 32 }) == 0);
        challenge.issued = turn.now;
        memset(challenge.nonce, 'n', sizeof challenge.nonce);
        assert(challenge_insert(store, &challenge) == 0);
        assert(store_commit(store, NULL) == 0);
        turn_clear(&turn);
}

static void submit(int32_t format, struct bytes payload) {
        const struct request request = { .from = &identity,
                                         .method = CODE_POST,
                                         .content_format = format,
                                         .accept = FORMAT_NONE,
                                         .observe = -1,
                                         .payload = payload };
        struct reply reply = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        struct problem problem = { 0 };
        int r;

        assert(store_savepoint(store) == 0);
        r = handle_evidence(&turn, &request, &reply, &problem);
        assert(r == 0);
        assert(cbor_check(buffer_bytes(&reply.payload), NULL) == 0);
        if (reply.code == CODE_CREATED)
                assert(reply.content_format == FORMAT_CBOR);
        else
                assert(reply.code >= CODE_BAD_REQUEST && reply.content_format == FORMAT_PROBLEM &&
                       !store_is_changed(store));
        assert(store_savepoint_rollback(store) == 0);
        store_rollback(store);
        turn_clear(&turn);
        buffer_free(&reply.payload);
}

/* The challenge and the input, as one map of claims, where the input is a map. */
static void submit_challenged(struct bytes claims) {
        _cleanup_(buffer_free) struct buffer payload = {}, message = {};
        uint8_t nonce[NONCE_BYTES];

        if (cbor_check(claims, NULL) < 0 || claims.data[0] < 0xa0 || claims.data[0] > 0xb6)
                return;
        memset(nonce, 'n', sizeof nonce);
        cbor_put_map(&payload, (size_t)(claims.data[0] - 0xa0) + 1);
        cbor_put_int(&payload, 10);
        cbor_put_bytes(&payload, BYTES(nonce, sizeof nonce));
        buffer_append(&payload, BYTES(claims.data + 1, claims.size - 1));
        assert(cose_sign1_make(key, (struct bytes){}, buffer_bytes(&payload), &message) == 0);
        submit(FORMAT_EAT_CWT, buffer_bytes(&message));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const int32_t formats[] = { FORMAT_EAT_CWT, FORMAT_PSA_2023, FORMAT_CWT, FORMAT_CMW_CBOR, FORMAT_NONE };

        if (!store)
                set_up();
        submit(formats[size % ELEMENTS(formats)], BYTES(data, size));
        submit_challenged(BYTES(data, size));
        return 0;
}

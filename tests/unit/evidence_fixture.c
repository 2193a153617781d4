/* SPDX-License-Identifier: Apache-2.0 */

/* Evidence made to order: see evidence_fixture.h. */

#include "tests/unit/evidence_fixture.h"

static void register_key(struct evidence_fixture *e, const char *id) {
        struct device device = fixture_device(e->f, id);

        device.attestation_key_size = key_public_der(e->key, device.attestation_key, sizeof device.attestation_key);
        assert_int_equal(device_update(e->f->store, &device), 0);
}

struct identity evidence_another(struct evidence_fixture *e, const char *id) {
        struct identity identity;
        char kid[DEVICE_ID_MAX + 1];

        fixture_add(e->f, id, FIXTURE_ATTEST);
        register_key(e, id);
        fixture_provision(e->f, id, kid);
        assert_int_equal(fixture_connect(e->f, kid, &identity), 0);
        fixture_commit(e->f);
        return identity;
}

int evidence_setup(void **state) {
        struct evidence_fixture *e = xcalloc(1, sizeof *e);

        e->f = fixture_new();
        e->turn = &e->f->turn;
        snprintf(e->f->config.gateway_id, sizeof e->f->config.gateway_id, "gateway-1");
        e->f->config.backlog_records = 1000;
        e->f->config.backlog_bytes = 1 << 20;
        snprintf(e->reference.swname, sizeof e->reference.swname, "fw");
        snprintf(e->reference.swversion, sizeof e->reference.swversion, "1.2");
        memset(e->reference.digest, 1, 32);
        e->reference.digest_size = 32;
        e->f->profiles[FIXTURE_ATTEST].references = &e->reference;
        e->f->profiles[FIXTURE_ATTEST].reference_count = 1;
        e->key = EVP_EC_gen("P-256");
        assert_int_equal(custodian_open(e->turn, e->f->config.gateway_id, &e->custodian), 0);
        e->turn->custodian = &e->custodian;
        e->identity = evidence_another(e, "sensor-1");
        *state = e;
        return 0;
}

int evidence_teardown(void **state) {
        struct evidence_fixture *e = *state;

        e->turn->custodian = NULL;
        custodian_close(&e->custodian);
        EVP_PKEY_free(e->key);
        fixture_free(e->f);
        free(e);
        return 0;
}

void evidence_make(struct evidence_fixture *e, const struct evidence_options *options, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer claims = {};
        uint8_t digest[32];

        memset(digest, 1, sizeof digest);
        cbor_put_map(&claims, options->dbgstat ? 5 : 4);
        cbor_put_int(&claims, 10);
        cbor_put_bytes(&claims, options->nonce);
        if (options->dbgstat) {
                cbor_put_int(&claims, 263);
                cbor_put_int(&claims, options->dbgstat - 1);
        }
        cbor_put_int(&claims, 270);
        cbor_put_text(&claims, TEXT("fw"));
        cbor_put_int(&claims, 271);
        cbor_put_array(&claims, 1);
        cbor_put_text(&claims, bytes_of(options->swversion ? options->swversion : "1.2"));
        cbor_put_int(&claims, 273);
        cbor_put_array(&claims, 1);
        cbor_put_array(&claims, 2);
        cbor_put_int(&claims, FORMAT_OCTETS);
        cbor_put_bytes(&claims, BYTES(digest, sizeof digest));
        assert_int_equal(
                cose_sign1_make(options->key ? options->key : e->key, TEXT("sensor-1"), buffer_bytes(&claims), to), 0);
}

uint8_t evidence_request(struct evidence_fixture *e, struct identity *from, uint8_t method, const char *path,
                         int32_t content_format, int32_t accept, struct bytes payload, struct reply *reply) {
        const struct moment connected = e->turn->now;
        const struct exchange_entry *entry;
        struct request request = {
                .from = from,
                .method = method,
                .path = bytes_of(path),
                .content_format = content_format,
                .accept = accept,
                .observe = -1,
                .payload = payload,
        };
        struct problem problem = { 0 };

        *reply = (struct reply){ .content_format = FORMAT_NONE, .max_age_sec = -1 };
        assert_int_equal(identity_refresh(e->turn, from, &connected), 0);
        if (exchange_authorise(e->turn, &request, &entry, &problem) < 0)
                reply_problem(reply, &problem);
        else
                exchange_handle(e->turn, entry, &request, reply);
        return reply->code;
}

void evidence_nonce(struct evidence_fixture *e, struct identity *from, uint8_t nonce[NONCE_BYTES]) {
        struct reply reply;

        assert_int_equal(evidence_request(e, from, CODE_POST, "rats/nonce", FORMAT_NONE, FORMAT_OCTETS,
                                          (struct bytes){}, &reply),
                         CODE_CREATED);
        assert_int_equal(reply.payload.size, NONCE_BYTES);
        memcpy(nonce, reply.payload.data, NONCE_BYTES);
        buffer_free(&reply.payload);
}

uint8_t evidence_post(struct evidence_fixture *e, struct identity *from, struct bytes evidence, int64_t *sequence,
                      int64_t *tier) {
        struct reply reply;
        uint8_t code =
                evidence_request(e, from, CODE_POST, "rats/evidence", FORMAT_EAT_CWT, FORMAT_NONE, evidence, &reply);
        struct bytes payload = buffer_bytes(&reply.payload);

        assert_int_equal(cbor_check(payload, NULL), 0);
        if (code == CODE_CREATED) {
                int64_t value;

                assert_true(cbor_view_int(cbor_view_member(payload, 0), sequence ? sequence : &value));
                assert_true(cbor_view_int(cbor_view_member(payload, 1), tier ? tier : &value));
        }
        buffer_free(&reply.payload);
        return code;
}

uint64_t evidence_give(struct evidence_fixture *e, struct identity *from, const char *swversion) {
        _cleanup_(buffer_free) struct buffer evidence = {};
        uint8_t nonce[NONCE_BYTES];
        int64_t sequence = 0;

        evidence_nonce(e, from, nonce);
        evidence_make(e, &(struct evidence_options){ .nonce = BYTES(nonce, sizeof nonce), .swversion = swversion },
                      &evidence);
        assert_int_equal(evidence_post(e, from, buffer_bytes(&evidence), &sequence, NULL), CODE_CREATED);
        return (uint64_t)sequence;
}

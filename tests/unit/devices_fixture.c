/* SPDX-License-Identifier: Apache-2.0 */

/* See devices_fixture.h. */

#include "tests/unit/support.h"

#include "tests/unit/devices_fixture.h"
#include "tests/unit/pki_fixture.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/evidence/evidence.h"

void fixture_profiles(struct profile profiles[FIXTURE_PROFILES]) {
        static const char *const names[FIXTURE_PROFILES] = {
                "plain",          "attest",   "strict", "keep", "certified", "certified-attest", "certified-strict",
                "certified-keep", "automatic"
        };

        for (int i = 0; i < FIXTURE_PROFILES; i++) {
                bool attests = i == FIXTURE_ATTEST || i == FIXTURE_STRICT || i == FIXTURE_CERTIFIED_ATTEST ||
                               i == FIXTURE_CERTIFIED_STRICT;

                profiles[i] = (struct profile){
                        .rotate_every_sec = 30 * FIXTURE_DAY,
                        .grace_sec = 7 * FIXTURE_DAY,
                        .max_age_sec = 90 * FIXTURE_DAY,
                        .attest_every_sec = attests ? 7 * FIXTURE_DAY : 0,
                        .attestation = attests ? ATTESTATION_EAT : ATTESTATION_NONE,
                        .on_overdue = OVERDUE_RESTRICT,
                        .on_factory_key = attests ? FACTORY_ATTEST : FACTORY_WINDOW,
                        .on_conflict = attests ? CONFLICT_ATTEST : CONFLICT_ALLOW,
                        .psk_bytes = 32,
                        .psk_format = PSK_TEXT,
                        .max_session_sec = FIXTURE_DAY,
                        .block_size = 512,
                        .challenge_sec = 300,
                };
                snprintf(profiles[i].name, sizeof profiles[i].name, "%s", names[i]);
        }
        for (int i = 0; i <= FIXTURE_CERTIFIED; i += FIXTURE_CERTIFIED) {
                profiles[i + FIXTURE_STRICT].on_conflict = CONFLICT_QUARANTINE;
                profiles[i + FIXTURE_STRICT].on_factory_key = FACTORY_REFUSE;
                profiles[i + FIXTURE_STRICT].on_overdue = OVERDUE_QUARANTINE;
                profiles[i + FIXTURE_KEEP].on_overdue = OVERDUE_KEEP;
        }
        profiles[FIXTURE_KEEP].text_grant = true;
        for (int i = FIXTURE_CERTIFIED; i < FIXTURE_PROFILES; i++) {
                profiles[i].credential = PROFILE_CERTIFICATE;
                profiles[i].validity_sec = 45 * FIXTURE_DAY;
                profiles[i].renew_at = 2.0 / 3;
                profiles[i].key_types = 1u << DEVICE_KEY_P256;
                profiles[i].anchors = pki_anchor(i == FIXTURE_AUTOMATIC);
                profiles[i].anchor_count = 1;
        }
        profiles[FIXTURE_AUTOMATIC].idevid_identity = IDEVID_SAN;
        profiles[FIXTURE_AUTOMATIC].idevid_enrolment = ENROLMENT_AUTOMATIC;
}

struct fixture *fixture_new(void) {
        static const uint8_t sealing_key[32] = "a key-encryption key for tests!";
        struct store_options options = { .key_encryption_key = BYTES(sealing_key, 32), .in_memory = true };
        struct fixture *f = xcalloc(1, sizeof *f);

        fixture_profiles(f->profiles);
        f->config.profiles = f->profiles;
        f->config.profile_count = FIXTURE_PROFILES;
        assert_int_equal(store_open(&options, &f->store, &f->problem), 0);
        f->turn = (struct turn){
                .store = f->store,
                .config = &f->config,
                .now = { FIXTURE_START, 1000, CLOCK_SYNCHRONIZED, true },
                .actor = "device",
        };
        f->next_session = UINT64_C(1) << 32;
        return f;
}

void fixture_free(struct fixture *f) {
        turn_free(&f->turn);
        store_closep(&f->store);
        free(f);
}

int fixture_setup(void **state) {
        *state = fixture_new();
        return 0;
}

int fixture_teardown(void **state) {
        fixture_free(*state);
        return 0;
}

void fixture_commit(struct fixture *f) {
        assert_int_equal(store_commit(f->store, NULL), 0);
        turn_clear(&f->turn);
}

void fixture_pass(struct fixture *f, int64_t seconds) {
        f->turn.now.wall += seconds;
        f->turn.now.powered_sec += seconds;
}

void fixture_tick(struct fixture *f) {
        const char *actor = f->turn.actor;
        int r;

        f->turn.actor = "schedule";
        do {
                r = schedule_tick(&f->turn, 16);
                assert_true(r >= 0);
        } while (r == 16);
        f->turn.actor = actor;
        fixture_commit(f);
}

void fixture_pass_ticking(struct fixture *f, int64_t seconds) {
        while (seconds > 0) {
                int64_t step = seconds < FIXTURE_DAY ? seconds : FIXTURE_DAY;

                fixture_pass(f, step);
                fixture_tick(f);
                seconds -= step;
        }
}

struct bytes fixture_attestation_key(void) {
        static uint8_t der[ATTESTATION_KEY_MAX];
        static size_t size;

        if (size == 0) {
                EVP_PKEY *key = EVP_EC_gen("P-256");
                unsigned char *p = der;
                int n = key ? i2d_PUBKEY(key, &p) : -1;

                assert_true(n > 0);
                size = (size_t)n;
                EVP_PKEY_free(key);
        }
        return BYTES(der, size);
}

void fixture_add(struct fixture *f, const char *id, enum fixture_profile profile) {
        struct registration registration = { 0 };
        struct bytes key = fixture_attestation_key();
        char psk[SECRET_MAX + 1];

        snprintf(psk, sizeof psk, "factory key of %s", id);
        snprintf(registration.id, sizeof registration.id, "%s", id);
        snprintf(registration.profile, sizeof registration.profile, "%s", f->profiles[profile].name);
        assert_int_equal(secret_set(&registration.factory_psk, bytes_of(psk)), 0);
        if (f->profiles[profile].attestation != ATTESTATION_NONE) {
                memcpy(registration.attestation_key, key.data, key.size);
                registration.attestation_key_size = key.size;
        }
        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), 0);
}

static int connect_as(struct fixture *f, const char *identity, bool begun_before, struct identity *ret) {
        _cleanup_(secret_wipe) struct secret key = { 0 };
        struct credential credential;
        char reason[160] = "";
        int r;

        r = identity_key(&f->turn, bytes_of(identity), true, &credential, &key, reason);
        if (r < 0) {
                assert_true(reason[0] != '\0');
                return r;
        }
        *ret = (struct identity){ .session = f->next_session++ };
        return identity_connected(&f->turn, bytes_of(identity), true, begun_before, ret);
}

int fixture_connect(struct fixture *f, const char *identity, struct identity *ret) {
        return connect_as(f, identity, false, ret);
}

int fixture_connect_early(struct fixture *f, const char *identity, struct identity *ret) {
        return connect_as(f, identity, true, ret);
}

static uint8_t ask(struct fixture *f, struct identity *from, const struct request *request, struct reply *reply) {
        const struct moment connected = f->turn.now;
        const struct exchange_entry *entry;
        struct problem problem = { 0 };

        *reply = (struct reply){ .content_format = FORMAT_NONE, .max_age_sec = -1 };
        assert_int_equal(identity_refresh(&f->turn, from, &connected), 0);
        if (exchange_authorise(&f->turn, request, &entry, &problem) < 0)
                reply_problem(reply, &problem);
        else
                exchange_handle(&f->turn, entry, request, reply);
        return reply->code;
}

uint8_t fixture_request(struct fixture *f, struct identity *from, uint8_t method, const char *path, int32_t accept,
                        struct bytes payload, struct reply *reply) {
        const struct request request = {
                .from = from,
                .method = method,
                .path = bytes_of(path),
                .content_format = FORMAT_NONE,
                .accept = accept,
                .observe = -1,
                .payload = payload,
        };

        return ask(f, from, &request, reply);
}

uint8_t fixture_post(struct fixture *f, struct identity *from, const char *path, int32_t content_format, int32_t accept,
                     struct bytes payload, struct reply *reply) {
        const struct request request = {
                .from = from,
                .method = CODE_POST,
                .path = bytes_of(path),
                .content_format = content_format,
                .accept = accept,
                .observe = -1,
                .payload = payload,
        };

        return ask(f, from, &request, reply);
}

void fixture_grant(struct bytes payload, char kid[DEVICE_ID_MAX + 1], struct secret *key) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        cbor_item_t *claims, *cose_key;
        struct bytes found;

        assert_int_equal(cbor_read(payload, &item, NULL), 0);
        assert_true(cbor_isa_tag(item) && cbor_tag_value(item) == 601);
        claims = cbor_move(cbor_tag_item(item));
        cose_key = cbor_map_int(cbor_map_int(claims, 8), 1);
        assert_non_null(cose_key);
        assert_true(cbor_value_bytes(cbor_map_int(cose_key, 2), &found));
        assert_int_equal(bytes_to_text(found, kid, DEVICE_ID_MAX + 1), 0);
        assert_true(cbor_value_bytes(cbor_map_int(cose_key, -1), &found));
        if (key)
                assert_int_equal(secret_set(key, found), 0);
}

uint8_t fixture_cred(struct fixture *f, struct identity *from, char kid[DEVICE_ID_MAX + 1], struct secret *key) {
        struct reply reply;
        uint8_t code = fixture_request(f, from, CODE_POST, "cred", FORMAT_NONE, BYTES(NULL, 0), &reply);

        if (code == CODE_CHANGED)
                fixture_grant(buffer_bytes(&reply.payload), kid, key);
        buffer_free(&reply.payload);
        return code;
}

int fixture_due(struct fixture *f, struct identity *from) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct reply reply;
        int64_t due = -1;

        if (fixture_request(f, from, CODE_GET, "me", FORMAT_NONE, BYTES(NULL, 0), &reply) == CODE_CONTENT) {
                assert_int_equal(cbor_read(buffer_bytes(&reply.payload), &item, NULL), 0);
                assert_true(cbor_value_int(cbor_map_int(item, 6), &due));
        }
        buffer_free(&reply.payload);
        return (int)due;
}

void fixture_attest(struct fixture *f, struct identity *from) {
        const struct appraisal affirming = { .tier = TIER_AFFIRMING, .is_appraised = true };
        struct device device = fixture_device(f, from->device.id);

        device.evidence_last = f->turn.now;
        assert_true(appraisal_apply(&f->turn, &device, &affirming) >= 0);
        assert_int_equal(identity_attested(&f->turn, from), 0);
}

void fixture_provision(struct fixture *f, const char *id, char kid[DEVICE_ID_MAX + 1]) {
        snprintf(kid, DEVICE_ID_MAX + 1, "%s", id);
        fixture_rotate(f, kid);
}

void fixture_rotate(struct fixture *f, char kid[DEVICE_ID_MAX + 1]) {
        struct identity identity;

        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        assert_int_equal(fixture_cred(f, &identity, kid, NULL), CODE_CHANGED);
        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        fixture_commit(f);
}

struct device fixture_device(struct fixture *f, const char *id) {
        struct device device;

        assert_int_equal(device_get(f->store, bytes_of(id), &device), 0);
        return device;
}

enum key_state fixture_state(struct fixture *f, const char *identity) {
        struct credential credential;
        int r = credential_get(f->store, bytes_of(identity), &credential);

        assert_true(r == 0 || r == -ENOENT);
        return r == 0 ? credential.state : KEY_DESTROYED;
}

struct counting {
        enum event_kind kind;
        size_t count;
};

static int count_row(void *userdata, const struct audit_row *row) {
        struct counting *counting = userdata;

        counting->count += row->kind == counting->kind;
        return 0;
}

size_t fixture_audited(struct fixture *f, const char *device, enum event_kind kind) {
        struct counting counting = { .kind = kind };

        assert_true(audit_each(f->store, device, 0, 1000000, count_row, &counting) >= 0);
        return counting.count;
}

size_t fixture_effects(struct fixture *f, enum effect_kind kind, const char *device) {
        size_t count = 0;

        for (size_t i = 0; i < f->turn.effect_count; i++)
                count += f->turn.effects[i].kind == kind &&
                         (!device || strcmp(f->turn.effects[i].event.device, device) == 0);
        return count;
}

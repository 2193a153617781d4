/* SPDX-License-Identifier: Apache-2.0 */

/* The issuing CA with a real store and real certificates: what it makes is checked by OpenSSL's own verification,
 * as a device would. */

#include "tests/unit/support.h"

#include <errno.h>

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority_parts.h"

#define DAY   INT64_C(86400)
#define START INT64_C(1790000000)

struct site {
        struct store *store;
        struct profile profile;
        struct config config;
        struct turn turn;
        struct problem problem;
};

static int set_up(void **state) {
        static const uint8_t sealing_key[32] = "a key-encryption key for tests!";
        struct store_options options = { .key_encryption_key = BYTES(sealing_key, 32), .in_memory = true };
        struct site *s = xcalloc(1, sizeof *s);

        s->profile = (struct profile){
                .name = "sensors",
                .credential = PROFILE_CERTIFICATE,
                .validity_sec = 90 * DAY,
                .max_age_sec = 100 * DAY,
                .key_types = 1u << DEVICE_KEY_P256,
        };
        s->config = (struct config){
                .gateway_id = "plant-7",
                .profiles = &s->profile,
                .profile_count = 1,
                .ca = {
                        .subject = "CN=Plant 7 CA,O=Example",
                        .validity_sec = 3650 * DAY,
                        .successor_at = 0.5,
                        .announce_sec = 30 * DAY,
                        .backdate_sec = 3600,
                        .server_name = "gatewayd",
                        .server_validity_sec = 30 * DAY,
                        .crl_validity_sec = 30 * DAY,
                },
        };
        assert_int_equal(store_open(&options, &s->store, &s->problem), 0);
        s->turn = (struct turn){
                .store = s->store,
                .config = &s->config,
                .issuer = issuer_new(),
                .now = { START, 1000, CLOCK_SYNCHRONIZED, true },
                .actor = "uid 0",
        };
        *state = s;
        return 0;
}

static int tear_down(void **state) {
        struct site *s = *state;

        issuer_free(s->turn.issuer);
        turn_free(&s->turn);
        store_close(s->store);
        free(s);
        return 0;
}

/* ---- what happens ---- */

static void commit(struct site *s) {
        uint64_t turn;

        assert_int_equal(authority_crls_write(&s->turn), 0);
        assert_int_equal(store_commit(s->store, &turn), 0);
        turn_clear(&s->turn);
}

static void tick(struct site *s) {
        for (int i = 0; i < 4; i++) {
                assert_int_equal(authority_tick(&s->turn), 0);
                assert_int_equal(authority_crls_write(&s->turn), 0);
        }
}

static void pass(struct site *s, int64_t seconds) {
        s->turn.now.wall += seconds;
        s->turn.now.powered_sec += seconds;
}

/* In steps of ten days. */
static void pass_ticking(struct site *s, int64_t seconds) {
        for (; seconds > 0; seconds -= 10 * DAY) {
                pass(s, seconds < 10 * DAY ? seconds : 10 * DAY);
                tick(s);
                commit(s);
        }
}

static size_t events(const struct site *s, enum event_kind kind) {
        size_t count = 0;

        for (size_t i = 0; i < s->turn.effect_count; i++)
                count += s->turn.effects[i].kind == EFFECT_EVENT && s->turn.effects[i].event.kind == kind;
        return count;
}

static size_t effects(const struct site *s, enum effect_kind kind) {
        size_t count = 0;

        for (size_t i = 0; i < s->turn.effect_count; i++)
                count += s->turn.effects[i].kind == kind;
        return count;
}

static enum authority_state state_of(struct site *s, uint32_t generation) {
        struct authority authority;

        assert_int_equal(authority_get(s->store, generation, &authority), 0);
        return authority.state;
}

static void init(struct site *s) {
        assert_int_equal(authority_init(&s->turn, NULL, &s->problem), 0);
        commit(s);
}

static X509 *part(struct site *s, uint32_t generation, enum authority_part which) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        X509 *certificate;

        assert_int_equal(authority_read(s->store, generation, which, &der), 0);
        certificate = x509_read(buffer_bytes(&der));
        assert_non_null(certificate);
        return certificate;
}

/* ---- a device ---- */

struct enrolled {
        EVP_PKEY *key;
        X509 *certificate;
        struct certificate row;
};

static void enrolled_free(struct enrolled *e) {
        EVP_PKEY_free(e->key);
        X509_free(e->certificate);
        *e = (struct enrolled){ 0 };
}

static void make_csr(EVP_PKEY *key, const char *name, struct buffer *to) {
        X509_REQ *request = X509_REQ_new();
        uint8_t *der = NULL;
        int size;

        assert_int_equal(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request), "serialNumber", MBSTRING_ASC,
                                                    (const uint8_t *)name, -1, -1, 0),
                         1);
        assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
        assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
        size = i2d_X509_REQ(request, &der);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_REQ_free(request);
}

/* 0 and the certificate, or the error. */
static int enrol(struct site *s, const char *device, struct enrolled *ret) {
        _cleanup_(buffer_free) struct buffer der = { 0 }, leaf = { 0 };
        struct csr csr = { 0 };
        int r;

        *ret = (struct enrolled){ .key = x509_key_new(X509_KEY_P256) };
        make_csr(ret->key, device, &der);
        s->problem = (struct problem){ 0 };
        assert_int_equal(csr_read(buffer_bytes(&der), &s->profile, false, &csr, &s->problem), 0);
        r = authority_issue(&s->turn, &csr, csr.key, device, &s->profile, NULL, &ret->row, &leaf, &s->problem);
        csr_free(&csr);
        if (r < 0) {
                assert_int_equal(leaf.size, 0);
                enrolled_free(ret);
                return r;
        }
        ret->certificate = x509_read(buffer_bytes(&leaf));
        assert_non_null(ret->certificate);
        return r;
}

/* OpenSSL's own word, at the site's time. `anchors`, `helpers`: concatenated DER. */
static int verify_at(struct bytes leaf_chain, struct bytes anchors, unix_sec now, int purpose) {
        STACK_OF(X509) *chain = x509_read_chain(leaf_chain), *roots = x509_read_chain(anchors);
        X509_STORE_CTX *context = X509_STORE_CTX_new();
        X509_STORE *trusted = X509_STORE_new();
        int r;

        assert_non_null(chain);
        assert_non_null(roots);
        for (int i = 0; i < sk_X509_num(roots); i++)
                X509_STORE_add_cert(trusted, sk_X509_value(roots, i));
        assert_int_equal(X509_STORE_CTX_init(context, trusted, sk_X509_value(chain, 0), chain), 1);
        X509_STORE_CTX_set_purpose(context, purpose);
        X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(context), (time_t)now);
        X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context), X509_V_FLAG_X509_STRICT);
        r = X509_verify_cert(context) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(context);
        X509_STORE_CTX_free(context);
        X509_STORE_free(trusted);
        sk_X509_pop_free(chain, X509_free);
        sk_X509_pop_free(roots, X509_free);
        return r;
}

static int verify_leaf(struct site *s, X509 *leaf, uint32_t root) {
        _cleanup_(buffer_free) struct buffer der = { 0 }, anchors = { 0 };

        assert_int_equal(x509_write(leaf, &der), 0);
        assert_int_equal(authority_read(s->store, root, AUTHORITY_CERTIFICATE, &anchors), 0);
        return verify_at(buffer_bytes(&der), buffer_bytes(&anchors), s->turn.now.wall, X509_PURPOSE_SSL_CLIENT);
}

/* What a device that trusts `root` alone thinks of the server. */
static int verify_server(struct site *s, uint32_t root) {
        struct server_credentials credentials;
        _cleanup_(buffer_free) struct buffer anchors = { 0 };
        int r;

        assert_int_equal(authority_server_credentials(&s->turn, &credentials), 0);
        assert_int_equal(authority_read(s->store, root, AUTHORITY_CERTIFICATE, &anchors), 0);
        r = verify_at(buffer_bytes(&credentials.chain), buffer_bytes(&anchors), s->turn.now.wall,
                      X509_PURPOSE_SSL_SERVER);
        server_credentials_free(&credentials);
        return r;
}

/* ---- the owner's PKI ---- */

struct owner {
        EVP_PKEY *key;
        X509 *root;
};

static void set_times(X509 *certificate, unix_sec from, unix_sec until) {
        assert_non_null(ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)from));
        assert_non_null(ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)until));
}

static void put_extension(X509 *certificate, X509 *issuer, const char *name, const char *value) {
        X509V3_CTX context;
        X509_EXTENSION *extension;

        X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
        extension = X509V3_EXT_conf(NULL, &context, name, value);
        assert_non_null(extension);
        assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
        X509_EXTENSION_free(extension);
}

static struct owner owner_new(void) {
        struct owner owner = { x509_key_new(X509_KEY_P256), X509_new() };

        X509_set_version(owner.root, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(owner.root), 1);
        X509_NAME_add_entry_by_txt(X509_get_subject_name(owner.root), "CN", MBSTRING_ASC,
                                   (const uint8_t *)"Owner's root", -1, -1, 0);
        X509_set_issuer_name(owner.root, X509_get_subject_name(owner.root));
        set_times(owner.root, START - DAY, START + 7300 * DAY);
        X509_set_pubkey(owner.root, owner.key);
        put_extension(owner.root, owner.root, "basicConstraints", "critical,CA:TRUE");
        put_extension(owner.root, owner.root, "keyUsage", "critical,keyCertSign,cRLSign");
        put_extension(owner.root, owner.root, "subjectKeyIdentifier", "hash");
        put_extension(owner.root, owner.root, "authorityKeyIdentifier", "keyid:always");
        assert_true(X509_sign(owner.root, owner.key, EVP_sha256()) > 0);
        return owner;
}

static void owner_free(struct owner *owner) {
        EVP_PKEY_free(owner->key);
        X509_free(owner->root);
}

struct answer_plan {
        const char *constraints, *usage, *names; /* NULL: as it should be; names NULL: none */
        int64_t life;
        EVP_PKEY *key; /* instead of the request's */
};

/* The sub-CA's certificate and the root, PEM. */
static void owner_answer(const struct owner *owner, struct bytes csr, const struct answer_plan *plan,
                         struct buffer *to) {
        const unsigned char *at = csr.data;
        X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)csr.size);
        X509 *certificate = X509_new();
        BIO *bio = BIO_new(BIO_s_mem());
        char *text;
        long size;

        assert_non_null(request);
        assert_int_equal(X509_REQ_verify(request, X509_REQ_get0_pubkey(request)), 1);
        X509_set_version(certificate, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 4711);
        X509_set_subject_name(certificate, X509_REQ_get_subject_name(request));
        X509_set_issuer_name(certificate, X509_get_subject_name(owner->root));
        set_times(certificate, START - 3600, START + (plan->life ? plan->life : 365 * DAY));
        X509_set_pubkey(certificate, plan->key ? plan->key : X509_REQ_get0_pubkey(request));
        put_extension(certificate, owner->root, "basicConstraints",
                      plan->constraints ? plan->constraints : "critical,CA:TRUE,pathlen:0");
        put_extension(certificate, owner->root, "keyUsage", plan->usage ? plan->usage : "critical,keyCertSign,cRLSign");
        put_extension(certificate, owner->root, "subjectKeyIdentifier", "hash");
        put_extension(certificate, owner->root, "authorityKeyIdentifier", "keyid:always");
        if (plan->names)
                put_extension(certificate, owner->root, "nameConstraints", plan->names);
        assert_true(X509_sign(certificate, owner->key, EVP_sha256()) > 0);
        /* The root first: the order in a file is not to matter. */
        PEM_write_bio_X509(bio, owner->root);
        PEM_write_bio_X509(bio, certificate);
        size = BIO_get_mem_data(bio, &text);
        buffer_append(to, BYTES(text, (size_t)size));
        BIO_free(bio);
        X509_free(certificate);
        X509_REQ_free(request);
}

static int answer_request(struct site *s, const struct owner *owner, const struct answer_plan *plan, char *warning) {
        _cleanup_(buffer_free) struct buffer csr = { 0 }, answer = { 0 };

        assert_int_equal(authority_request(&s->turn, NULL, &csr, &s->problem), 0);
        owner_answer(owner, buffer_bytes(&csr), plan, &answer);
        s->problem = (struct problem){ 0 };
        return authority_import(&s->turn, buffer_bytes(&answer), warning, &s->problem);
}

/* ---- roots ---- */

static void a_new_root_signs_at_once_and_the_gateway_has_its_certificate(void **state) {
        struct enrolled device;
        struct site *s = *state;

        assert_int_equal(enrol(s, "sensor-1", &device), -EAGAIN);
        assert_int_equal(s->problem.code, CODE_UNAVAILABLE);
        assert_true(s->problem.max_age_sec > 0);
        assert_int_equal(authority_newest(&s->turn), 0);
        assert_int_equal(authority_init(&s->turn, NULL, &s->problem), 0);
        assert_int_equal(events(s, EVENT_CA_READY), 1);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
        assert_int_equal(effects(s, EFFECT_RESCHEDULE), 1);
        assert_int_equal(authority_newest(&s->turn), 1);
        commit(s);
        assert_int_equal(verify_server(s, 1), X509_V_OK);
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_int_equal(verify_leaf(s, device.certificate, 1), X509_V_OK);
        enrolled_free(&device);
        assert_int_equal(authority_init(&s->turn, NULL, &s->problem), -EEXIST);
}

static void a_leaf_is_what_its_row_says_and_lives_no_longer_than_its_ca(void **state) {
        struct site *s = *state;
        struct certificate row;
        struct enrolled device;
        struct authority root;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_int_equal(device.row.issuer, 1);
        assert_int_equal(device.row.serial_size, 16);
        assert_true(device.row.not_before == START - 3600);
        assert_true(device.row.not_after == START + 90 * DAY);
        assert_int_equal(certificate_get(s->store, device.row.fingerprint, &row), 0);
        assert_string_equal(row.device, "sensor-1");
        enrolled_free(&device);
        assert_int_equal(authority_get(s->store, 1, &root), 0);
        s->turn.now.wall = root.not_after - 20 * DAY;
        assert_int_equal(enrol(s, "sensor-2", &device), 0);
        assert_true(device.row.not_after == root.not_after);
        enrolled_free(&device);
        s->turn.now.wall = root.not_after - DAY;
        assert_int_equal(enrol(s, "sensor-3", &device), -EAGAIN);
        assert_int_equal(s->problem.code, CODE_UNAVAILABLE);
}

static void at_unknown_time_a_leaf_is_valid_from_as_early_as_its_ca(void **state) {
        struct site *s = *state;
        struct enrolled device;

        init(s);
        pass(s, 100 * DAY);
        s->turn.now.quality = CLOCK_UNKNOWN;
        s->turn.now.wall_trusted = false;
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_true(device.row.not_before == START - 3600);
        enrolled_free(&device);
}

static void a_device_that_slept_through_the_announcement_finds_a_path(void **state) {
        struct enrolled old, new;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &old), 0);
        commit(s);
        assert_int_equal(authority_roll(&s->turn, NULL, -1, &s->problem), 0);
        assert_int_equal(events(s, EVENT_CA_SUCCESSOR), 1);
        assert_int_equal(state_of(s, 2), AUTHORITY_ANNOUNCED);
        assert_int_equal(authority_newest(&s->turn), 2);
        commit(s);
        pass_ticking(s, 20 * DAY);
        assert_int_equal(state_of(s, 1), AUTHORITY_ACTIVE);
        pass(s, 10 * DAY);
        tick(s);
        assert_int_equal(events(s, EVENT_CA_SWITCHED), 1);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
        commit(s);
        assert_int_equal(state_of(s, 1), AUTHORITY_RETIRING);
        assert_int_equal(state_of(s, 2), AUTHORITY_ACTIVE);
        assert_int_equal(verify_server(s, 2), X509_V_OK);
        assert_int_equal(verify_server(s, 1), X509_V_OK); /* by the cross certificate */
        assert_int_equal(enrol(s, "sensor-2", &new), 0);
        assert_int_equal(new.row.issuer, 2);
        assert_int_equal(verify_leaf(s, new.certificate, 2), X509_V_OK);
        assert_int_equal(verify_leaf(s, old.certificate, 1), X509_V_OK);
        assert_true(authority_is_in_force(&s->turn, 1));
        enrolled_free(&old);
        enrolled_free(&new);
}

static void a_generation_ends_with_its_last_leaf_and_its_key_is_wiped(void **state) {
        _cleanup_(buffer_free) struct buffer key = { 0 }, crl = { 0 };
        struct enrolled device;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        enrolled_free(&device);
        assert_int_equal(authority_roll(&s->turn, NULL, 0, &s->problem), 0);
        tick(s);
        commit(s);
        assert_int_equal(state_of(s, 1), AUTHORITY_RETIRING);
        pass_ticking(s, 90 * DAY);
        assert_int_equal(state_of(s, 1), AUTHORITY_RETIRING); /* max_age lets an expired one renew for ten days */
        pass(s, 11 * DAY);
        tick(s);
        assert_int_equal(events(s, EVENT_CA_ENDED), 1);
        assert_true(effects(s, EFFECT_CRL) >= 1);
        assert_int_equal(state_of(s, 1), AUTHORITY_ENDED);
        assert_false(authority_is_in_force(&s->turn, 1));
        assert_int_equal(store_own_secret_get(s->store, "ca-key-1", &key), 0);
        assert_int_equal(key.size, 0);
        assert_int_equal(authority_crl(&s->turn, 1, &crl), -ENOENT);
        assert_int_equal(verify_server(s, 2), X509_V_OK);
        assert_int_equal(verify_server(s, 1), X509_V_OK); /* for devices that never had a leaf */
        pass_ticking(s, 3550 * DAY);
        assert_int_not_equal(verify_server(s, 1), X509_V_OK);
}

static void roots_succeed_each_other_by_themselves(void **state) {
        struct site *s = *state;

        init(s);
        pass_ticking(s, 1820 * DAY);
        assert_int_equal(authority_latest(s->store), 1);
        pass_ticking(s, 70 * DAY);
        assert_int_equal(state_of(s, 2), AUTHORITY_ACTIVE);
        assert_int_equal(state_of(s, 1), AUTHORITY_ENDED); /* it had no leaf */
        assert_int_equal(verify_server(s, 2), X509_V_OK);
}

static void an_operator_can_bring_an_announced_successor_forward(void **state) {
        struct site *s = *state;

        init(s);
        assert_int_equal(authority_roll(&s->turn, NULL, -1, &s->problem), 0);
        assert_int_equal(authority_roll(&s->turn, NULL, -1, &s->problem), -EEXIST);
        assert_int_equal(authority_roll(&s->turn, NULL, 5 * DAY, &s->problem), 0);
        commit(s);
        pass(s, 4 * DAY);
        tick(s);
        assert_int_equal(state_of(s, 2), AUTHORITY_ANNOUNCED);
        pass(s, DAY);
        tick(s);
        assert_int_equal(state_of(s, 2), AUTHORITY_ACTIVE);
}

static void without_a_ca_there_is_nothing_to_roll(void **state) {
        struct site *s = *state;

        assert_int_equal(authority_roll(&s->turn, NULL, -1, &s->problem), -ENOENT);
        assert_non_null(strstr(s->problem.detail, "ca init"));
        tick(s);
        assert_false(store_is_changed(s->store));
}

static void devices_are_told_to_trust_all_generations_in_force(void **state) {
        _cleanup_(buffer_free) struct buffer anchors = { 0 };
        STACK_OF(X509) * list;
        struct site *s = *state;
        uint32_t newest;

        init(s);
        assert_int_equal(authority_roll(&s->turn, NULL, -1, &s->problem), 0);
        assert_int_equal(authority_anchors(&s->turn, &anchors, &newest), 0);
        assert_int_equal(newest, 2);
        list = x509_read_chain(buffer_bytes(&anchors));
        assert_non_null(list);
        assert_int_equal(sk_X509_num(list), 3); /* both roots, and the new one by the old one */
        sk_X509_pop_free(list, X509_free);
}

/* ---- the server's leaf ---- */

static void the_servers_leaf_is_renewed_after_two_thirds_with_another_key(void **state) {
        struct server_credentials before, after;
        struct site *s = *state;

        init(s);
        assert_int_equal(authority_server_credentials(&s->turn, &before), 0);
        pass(s, 19 * DAY);
        tick(s);
        assert_int_equal(effects(s, EFFECT_SERVER), 0);
        pass(s, 2 * DAY);
        tick(s);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
        assert_int_equal(events(s, EVENT_SERVER_CERTIFICATE), 1);
        assert_int_equal(authority_server_credentials(&s->turn, &after), 0);
        assert_false(bytes_equal(buffer_bytes(&before.key), buffer_bytes(&after.key)));
        assert_true(after.not_after > before.not_after);
        assert_int_equal(verify_server(s, 1), X509_V_OK);
        server_credentials_free(&before);
        server_credentials_free(&after);
}

static void another_server_name_takes_another_leaf_and_the_cas_end_takes_none_in_a_row(void **state) {
        struct authority root;
        struct site *s = *state;

        init(s);
        snprintf(s->config.ca.server_name, sizeof s->config.ca.server_name, "gateway.plant-7");
        pass(s, 3600);
        tick(s);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
        commit(s);
        assert_int_equal(authority_get(s->store, 1, &root), 0);
        root.state = AUTHORITY_ACTIVE;
        s->config.ca.successor_at = 1;
        s->turn.now.wall = root.not_after - 2 * DAY;
        pass(s, 3600);
        assert_int_equal(authority_tick(&s->turn), 0);
        turn_clear(&s->turn);
        for (int i = 0; i < 5; i++) {
                pass(s, 3600);
                assert_int_equal(authority_tick(&s->turn), 0);
        }
        assert_int_equal(effects(s, EFFECT_SERVER), 0);
}

/* ---- CRLs ---- */

static X509_CRL *read_crl(struct site *s, uint32_t generation) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        const unsigned char *at;
        X509_CRL *crl;

        assert_int_equal(authority_crl(&s->turn, generation, &der), 0);
        at = der.data;
        crl = d2i_X509_CRL(NULL, &at, (long)der.size);
        assert_non_null(crl);
        return crl;
}

static bool is_listed(struct site *s, uint32_t generation, X509 *certificate) {
        _cleanup_(x509_freep) X509 *ca = part(s, generation, AUTHORITY_CERTIFICATE);
        X509_CRL *crl = read_crl(s, generation);
        X509_REVOKED *entry = NULL;
        int r;

        assert_int_equal(X509_CRL_verify(crl, X509_get0_pubkey(ca)), 1);
        r = X509_CRL_get0_by_cert(crl, &entry, certificate);
        X509_CRL_free(crl);
        return r == 1;
}

static void a_revoked_certificate_is_on_the_crl_of_the_same_turn(void **state) {
        struct enrolled a, b;
        struct authority root;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &a), 0);
        assert_int_equal(enrol(s, "sensor-2", &b), 0);
        commit(s);
        assert_int_equal(authority_revoke(&s->turn, a.row.fingerprint, REVOKED_KEY_COMPROMISE), 1);
        assert_int_equal(authority_revoke(&s->turn, a.row.fingerprint, REVOKED_SUPERSEDED), 0);
        assert_int_equal(authority_crls_write(&s->turn), 0);
        assert_int_equal(effects(s, EFFECT_CRL), 1);
        assert_true(is_listed(s, 1, a.certificate));
        assert_false(is_listed(s, 1, b.certificate));
        commit(s);
        assert_int_equal(authority_revoke_device(&s->turn, "sensor-2", REVOKED_PRIVILEGE_WITHDRAWN), 1);
        commit(s);
        assert_true(is_listed(s, 1, b.certificate));
        assert_int_equal(authority_get(s->store, 1, &root), 0);
        assert_int_equal(root.crl_number, 3);
        assert_false(root.crl_is_stale);
        assert_int_equal(authority_revoke(&s->turn, "00", REVOKED_SUPERSEDED), -ENOENT);
        enrolled_free(&a);
        enrolled_free(&b);
}

static void a_retiring_generations_certificates_go_to_its_own_crl(void **state) {
        struct enrolled old;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &old), 0);
        assert_int_equal(authority_roll(&s->turn, NULL, 0, &s->problem), 0);
        tick(s);
        commit(s);
        assert_int_equal(authority_revoke(&s->turn, old.row.fingerprint, REVOKED_SUPERSEDED), 1);
        pass(s, 10);
        tick(s);
        commit(s);
        assert_true(is_listed(s, 1, old.certificate));
        tick(s);
        assert_int_equal(state_of(s, 1), AUTHORITY_RETIRING); /* its CRL must name it until it has run out */
        enrolled_free(&old);
}

static void certificates_that_were_replaced_share_one_crl(void **state) {
        struct enrolled a, b, c;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &a), 0);
        assert_int_equal(enrol(s, "sensor-2", &b), 0);
        assert_int_equal(enrol(s, "sensor-3", &c), 0);
        tick(s);
        commit(s);
        assert_int_equal(authority_revoke(&s->turn, a.row.fingerprint, REVOKED_SUPERSEDED), 1);
        tick(s);
        pass(s, 9);
        assert_int_equal(authority_revoke(&s->turn, b.row.fingerprint, REVOKED_SUPERSEDED), 1);
        tick(s);
        assert_int_equal(effects(s, EFFECT_CRL), 0);
        pass(s, 1);
        tick(s);
        assert_int_equal(effects(s, EFFECT_CRL), 1);
        assert_true(is_listed(s, 1, a.certificate) && is_listed(s, 1, b.certificate));
        /* Whoever must be kept out takes the others along at once. */
        assert_int_equal(authority_revoke_device(&s->turn, "sensor-3", REVOKED_PRIVILEGE_WITHDRAWN), 1);
        commit(s);
        assert_true(is_listed(s, 1, c.certificate));
        enrolled_free(&a);
        enrolled_free(&b);
        enrolled_free(&c);
}

static void what_was_done_in_a_turn_that_is_dropped_is_done_again(void **state) {
        struct site *s = *state;

        assert_int_equal(authority_init(&s->turn, NULL, &s->problem), 0);
        tick(s);
        commit(s);
        s->config.ca.successor_at = 1;
        pass(s, 3640 * DAY);
        tick(s);
        assert_int_equal(events(s, EVENT_CA_LATE), 1);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
        store_rollback(s->store);
        turn_clear(&s->turn);
        authority_turn_dropped(s->turn.issuer);
        tick(s);
        assert_int_equal(events(s, EVENT_CA_LATE), 1);
        assert_int_equal(effects(s, EFFECT_SERVER), 1);
}

static void a_crl_is_made_anew_at_half_of_its_time(void **state) {
        struct authority root;
        struct site *s = *state;

        init(s);
        pass(s, 14 * DAY);
        tick(s);
        assert_int_equal(effects(s, EFFECT_CRL), 0);
        pass(s, 2 * DAY);
        tick(s);
        assert_int_equal(effects(s, EFFECT_CRL), 1);
        assert_int_equal(authority_get(s->store, 1, &root), 0);
        assert_int_equal(root.crl_number, 2);
        assert_true(root.crl_next_update == s->turn.now.wall + 30 * DAY);
}

/* ---- the key ---- */

static void a_key_that_is_away_stops_only_signing_and_comes_back_by_itself(void **state) {
        _cleanup_(buffer_free) struct buffer key = { 0 };
        struct enrolled device;
        struct site *s = *state;

        init(s);
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_int_equal(store_own_secret_get(s->store, "ca-key-1", &key), 0);
        assert_int_equal(store_own_secret_put(s->store, "ca-key-1", TEXT("garbled")), 0);
        issuer_free(s->turn.issuer);
        s->turn.issuer = issuer_new();
        assert_int_equal(issuer_open(s->turn.issuer, &s->turn), 0);
        assert_int_equal(events(s, EVENT_CA_KEY_UNAVAILABLE), 1);
        for (size_t i = 0; i < s->turn.effect_count; i++)
                assert_null(strstr(s->turn.effects[i].event.reason, "garbled"));
        struct enrolled refused;
        assert_int_equal(enrol(s, "sensor-2", &refused), -EAGAIN);
        assert_int_equal(s->problem.code, CODE_UNAVAILABLE);
        assert_true(s->problem.max_age_sec > 0);
        /* Revoking needs no key; the CRL waits for it. */
        assert_int_equal(authority_revoke(&s->turn, device.row.fingerprint, REVOKED_SUPERSEDED), 1);
        commit(s);
        assert_false(is_listed(s, 1, device.certificate));
        tick(s);
        assert_int_equal(events(s, EVENT_CA_KEY_UNAVAILABLE), 0); /* told once */
        assert_int_equal(store_own_secret_put(s->store, "ca-key-1", buffer_bytes(&key)), 0);
        pass(s, 60);
        tick(s);
        assert_int_equal(events(s, EVENT_CA_READY), 1);
        commit(s);
        assert_true(is_listed(s, 1, device.certificate));
        enrolled_free(&device);
        assert_int_equal(enrol(s, "sensor-2", &device), 0);
        enrolled_free(&device);
}

static void a_key_file_is_taken_and_sealed(void **state) {
        char path[] = "/tmp/authority-key-XXXXXX", uri[64];
        _cleanup_(pkey_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P384);
        _cleanup_(x509_freep) X509 *root = NULL;
        struct authority authority;
        struct site *s = *state;
        FILE *file = fdopen(mkstemp(path), "w");

        assert_int_equal(PEM_write_PKCS8PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
        fclose(file);
        snprintf(uri, sizeof uri, "file:%s", path);
        assert_int_equal(authority_init(&s->turn, uri, &s->problem), 0);
        remove(path);
        commit(s);
        assert_int_equal(authority_get(s->store, 1, &authority), 0);
        assert_string_equal(authority.key_uri, "store:");
        root = part(s, 1, AUTHORITY_CERTIFICATE);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(root), key), 1);
        issuer_free(s->turn.issuer);
        s->turn.issuer = issuer_new();
        assert_int_equal(issuer_open(s->turn.issuer, &s->turn), 0);
        assert_int_equal(events(s, EVENT_CA_KEY_UNAVAILABLE), 0);
        assert_int_equal(verify_server(s, 1), X509_V_OK);
}

static void a_key_that_cannot_be_had_makes_no_ca(void **state) {
        struct site *s = *state;

        assert_true(authority_init(&s->turn, "file:/nonexistent/key.pem", &s->problem) < 0);
        assert_true(s->problem.detail[0] != 0);
        store_rollback(s->store);
        assert_int_equal(authority_latest(s->store), 0);
}

static void a_dropped_turn_leaves_nothing_in_memory(void **state) {
        struct enrolled device;
        struct site *s = *state;

        assert_int_equal(authority_init(&s->turn, NULL, &s->problem), 0);
        store_rollback(s->store);
        turn_clear(&s->turn);
        assert_int_equal(enrol(s, "sensor-1", &device), -EAGAIN);
        init(s); /* the same number, another key */
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_int_equal(verify_leaf(s, device.certificate, 1), X509_V_OK);
        enrolled_free(&device);
}

static void every_type_of_key_signs(void **state) {
        static const enum ca_key_type types[] = { CA_KEY_P256, CA_KEY_P384, CA_KEY_ED25519 };

        for (size_t i = 0; i < ELEMENTS(types); i++) {
                struct enrolled device;
                struct site *s = *state;

                s->config.ca.key_type = types[i];
                init(s);
                assert_int_equal(enrol(s, "sensor-1", &device), 0);
                assert_int_equal(verify_leaf(s, device.certificate, 1), X509_V_OK);
                assert_int_equal(verify_server(s, 1), X509_V_OK);
                enrolled_free(&device);
                tear_down(state);
                set_up(state);
        }
}

/* ---- under the owner's PKI ---- */

static void a_sub_ca_signs_once_its_owner_has_answered(void **state) {
        _cleanup_(buffer_free) struct buffer first = { 0 }, again = { 0 }, anchors = { 0 }, leaf = { 0 };
        _cleanup_(owner_free) struct owner owner = owner_new();
        char warning[AUTHORITY_WARNING_MAX];
        struct server_credentials server;
        struct enrolled device;
        struct site *s = *state;
        STACK_OF(X509) * chain;

        assert_int_equal(authority_request(&s->turn, NULL, &first, &s->problem), 0);
        assert_int_equal(authority_request(&s->turn, NULL, &again, &s->problem), 0);
        assert_true(bytes_equal(buffer_bytes(&first), buffer_bytes(&again)));
        assert_int_equal(enrol(s, "sensor-1", &device), -EAGAIN);
        assert_int_equal(answer_request(s, &owner, &(struct answer_plan){ 0 }, warning), 0);
        assert_string_equal(warning, "");
        commit(s);
        assert_int_equal(state_of(s, 1), AUTHORITY_ACTIVE);
        assert_int_equal(enrol(s, "sensor-1", &device), 0);
        assert_int_equal(x509_write(device.certificate, &leaf), 0);
        assert_int_equal(authority_read(s->store, 1, AUTHORITY_CERTIFICATE, &leaf), 0);
        assert_int_equal(x509_write(owner.root, &anchors), 0);
        assert_int_equal(
                verify_at(buffer_bytes(&leaf), buffer_bytes(&anchors), s->turn.now.wall, X509_PURPOSE_SSL_CLIENT),
                X509_V_OK);
        assert_int_equal(authority_server_credentials(&s->turn, &server), 0);
        assert_int_equal(verify_at(buffer_bytes(&server.chain), buffer_bytes(&anchors), s->turn.now.wall,
                                   X509_PURPOSE_SSL_SERVER),
                         X509_V_OK);
        chain = x509_read_chain(buffer_bytes(&server.chain));
        assert_int_equal(sk_X509_num(chain), 2); /* leaf and sub-CA, never a root */
        sk_X509_pop_free(chain, X509_free);
        server_credentials_free(&server);
        enrolled_free(&device);
}

static void what_does_not_answer_the_request_is_refused_and_changes_nothing(void **state) {
        _cleanup_(pkey_freep) EVP_PKEY *other = x509_key_new(X509_KEY_P256);
        _cleanup_(owner_free) struct owner owner = owner_new();
        const struct {
                struct answer_plan plan;
                const char *reason;
        } cases[] = {
                { { .constraints = "critical,CA:FALSE" }, "no CA" },
                { { .constraints = "critical,CA:TRUE,pathlen:1" }, "pathlen" },
                { { .usage = "critical,cRLSign" }, "keyCertSign" },
                { { .usage = "critical,keyCertSign" }, "cRLSign" },
                { { .life = -DAY }, "runs out" },
                { { .key = other }, "waiting request" },
        };
        struct site *s = *state;

        assert_int_equal(authority_import(&s->turn, TEXT("x"), NULL, &s->problem), -ENOENT);
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                assert_int_equal(answer_request(s, &owner, &cases[i].plan, NULL), -EINVAL);
                if (!strstr(s->problem.detail, cases[i].reason))
                        fail_msg("%s: %s", cases[i].reason, s->problem.detail);
                assert_int_equal(state_of(s, 1), AUTHORITY_REQUESTED);
        }
        assert_int_equal(authority_import(&s->turn, TEXT("no certificate"), NULL, &s->problem), -EINVAL);
        assert_int_equal(authority_import(&s->turn, TEXT("\x30\x03\x02\x01"), NULL, &s->problem), -EINVAL);
        assert_int_equal(authority_import(&s->turn, BYTES(NULL, 0), NULL, &s->problem), -EINVAL);
        assert_int_equal(answer_request(s, &owner, &(struct answer_plan){ 0 }, NULL), 0);
}

static void the_owners_name_constraints_are_warned_of_and_kept(void **state) {
        _cleanup_(owner_free) struct owner owner = owner_new();
        char warning[AUTHORITY_WARNING_MAX];
        struct enrolled device;
        struct site *s = *state;

        /* A directory name that leaves out what devices are called; no dNSName of ours. */
        assert_int_equal(answer_request(s, &owner,
                                        &(struct answer_plan){ .names = "critical,permitted;DNS:plant-7.example,"
                                                                        "permitted;email:plant-7.example" },
                                        warning),
                         0);
        assert_non_null(strstr(warning, "Mbed TLS"));
        assert_non_null(strstr(warning, "gatewayd"));
        commit(s);
        assert_int_equal(enrol(s, "sensor-1", &device), 0); /* a serialNumber is no DNS name */
        enrolled_free(&device);
}

static void a_device_whose_name_the_owner_excludes_gets_nothing(void **state) {
        _cleanup_(buffer_free) struct buffer der = { 0 }, leaf = { 0 };
        _cleanup_(owner_free) struct owner owner = owner_new();
        _cleanup_(pkey_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P256);
        STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
        X509_REQ *request = X509_REQ_new();
        struct certificate row;
        struct csr csr = { 0 };
        struct site *s = *state;
        uint8_t *at;
        int size;

        assert_int_equal(answer_request(s, &owner,
                                        &(struct answer_plan){ .names = "critical,permitted;DNS:plant-7.example" },
                                        NULL),
                         0);
        sk_X509_EXTENSION_push(extensions, X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:sensor-1"));
        X509_REQ_add_extensions(request, extensions);
        X509_REQ_set_pubkey(request, key);
        X509_REQ_sign(request, key, EVP_sha256());
        size = i2d_X509_REQ(request, NULL);
        at = buffer_reserve(&der, (size_t)size);
        der.size = (size_t)i2d_X509_REQ(request, &at);
        assert_int_equal(csr_read(buffer_bytes(&der), &s->profile, false, &csr, &s->problem), 0);
        assert_int_equal(
                authority_issue(&s->turn, &csr, csr.key, "sensor-1", &s->profile, NULL, &row, &leaf, &s->problem),
                -EACCES);
        assert_int_equal(s->problem.code, CODE_FORBIDDEN);
        assert_int_equal(leaf.size, 0);
        assert_int_equal(certificate_count(s->store, 1, START, NULL), 0);
        csr_free(&csr);
        X509_REQ_free(request);
        sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
}

static void a_sub_cas_successor_waits_for_the_owner_and_lateness_is_told(void **state) {
        _cleanup_(owner_free) struct owner owner = owner_new();
        struct site *s = *state;
        size_t late = 0, requests = 0;

        assert_int_equal(answer_request(s, &owner, &(struct answer_plan){ 0 }, NULL), 0);
        commit(s);
        for (int i = 0; i < 36; i++) {
                pass(s, 10 * DAY);
                tick(s);
                requests += events(s, EVENT_CA_REQUEST);
                late += events(s, EVENT_CA_LATE);
                commit(s);
        }
        assert_int_equal(requests, 1);
        assert_int_equal(late, 1);
        assert_int_equal(state_of(s, 1), AUTHORITY_ACTIVE);
        assert_int_equal(state_of(s, 2), AUTHORITY_REQUESTED);
        /* Better late than never: it signs at once, the old one would otherwise run out. */
        assert_int_equal(answer_request(s, &owner, &(struct answer_plan){ .life = 800 * DAY }, NULL), 0);
        assert_int_equal(state_of(s, 2), AUTHORITY_ANNOUNCED);
        pass(s, 4 * DAY + DAY / 2);
        tick(s);
        assert_int_equal(state_of(s, 2), AUTHORITY_ACTIVE);
        commit(s);
}

static void a_request_can_be_given_up(void **state) {
        _cleanup_(buffer_free) struct buffer first = { 0 }, second = { 0 }, key = { 0 };
        struct site *s = *state;

        assert_int_equal(authority_abandon(&s->turn, &s->problem), -ENOENT);
        assert_int_equal(authority_request(&s->turn, NULL, &first, &s->problem), 0);
        assert_int_equal(authority_abandon(&s->turn, &s->problem), 0);
        assert_int_equal(store_own_secret_get(s->store, "ca-key-1", &key), 0);
        assert_int_equal(key.size, 0);
        assert_int_equal(authority_request(&s->turn, NULL, &second, &s->problem), 0);
        assert_false(bytes_equal(buffer_bytes(&first), buffer_bytes(&second)));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(a_new_root_signs_at_once_and_the_gateway_has_its_certificate),
                TEST(a_leaf_is_what_its_row_says_and_lives_no_longer_than_its_ca),
                TEST(at_unknown_time_a_leaf_is_valid_from_as_early_as_its_ca),
                TEST(a_device_that_slept_through_the_announcement_finds_a_path),
                TEST(a_generation_ends_with_its_last_leaf_and_its_key_is_wiped),
                TEST(roots_succeed_each_other_by_themselves),
                TEST(an_operator_can_bring_an_announced_successor_forward),
                TEST(without_a_ca_there_is_nothing_to_roll),
                TEST(devices_are_told_to_trust_all_generations_in_force),
                TEST(the_servers_leaf_is_renewed_after_two_thirds_with_another_key),
                TEST(another_server_name_takes_another_leaf_and_the_cas_end_takes_none_in_a_row),
                TEST(a_revoked_certificate_is_on_the_crl_of_the_same_turn),
                TEST(a_retiring_generations_certificates_go_to_its_own_crl),
                TEST(certificates_that_were_replaced_share_one_crl),
                TEST(what_was_done_in_a_turn_that_is_dropped_is_done_again),
                TEST(a_crl_is_made_anew_at_half_of_its_time),
                TEST(a_key_that_is_away_stops_only_signing_and_comes_back_by_itself),
                TEST(a_key_file_is_taken_and_sealed),
                TEST(a_key_that_cannot_be_had_makes_no_ca),
                TEST(a_dropped_turn_leaves_nothing_in_memory),
                TEST(every_type_of_key_signs),
                TEST(a_sub_ca_signs_once_its_owner_has_answered),
                TEST(what_does_not_answer_the_request_is_refused_and_changes_nothing),
                TEST(the_owners_name_constraints_are_warned_of_and_kept),
                TEST(a_device_whose_name_the_owner_excludes_gets_nothing),
                TEST(a_sub_cas_successor_waits_for_the_owner_and_lateness_is_told),
                TEST(a_request_can_be_given_up),
        };
#undef TEST

        return cmocka_run_group_tests(tests, NULL, NULL);
}

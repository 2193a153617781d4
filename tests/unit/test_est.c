/* SPDX-License-Identifier: Apache-2.0 */

/* EST-coaps on a real store, CA and registry: which request gets which certificate, in which bytes, and what is
 * refused, told of and left undone. */

#include "tests/unit/support.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "gatewayd/cbor.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/multipart.h"
#include "gatewayd/keys/registrar.h"
#include "tests/unit/devices_fixture.h"

#define SITE FIXTURE_PLAIN /* the profile that these tests turn into one with certificates */
#define YEAR (365 * FIXTURE_DAY)

struct bed {
        struct fixture *f;
        struct profile *profile;
        struct x509_signer maker;
        struct anchor anchor;
        struct buffer anchor_der;
};

/* A device with its keys, as it would hold them itself. */
struct unit {
        const char *id;
        EVP_PKEY *key; /* of the certificate it uses now */
        struct buffer chain;
        struct identity identity; /* its session's */
};

static struct x509_validity maker_validity(void) {
        return (struct x509_validity){ FIXTURE_START - YEAR, NOT_AFTER_NEVER };
}

static EVP_PKEY *new_key(void) {
        EVP_PKEY *key = x509_key_new(X509_KEY_P256);

        assert_non_null(key);
        return key;
}

static int bed_setup(void **state) {
        const struct x509_validity validity = maker_validity();
        struct bed *bed = calloc(1, sizeof *bed);
        struct fixture *f = fixture_new();

        assert_non_null(bed);
        bed->f = f;
        bed->maker.key = new_key();
        bed->maker.certificate = x509_root_make(bed->maker.key, "CN=Maker", &validity, &bed->anchor_der, NULL);
        assert_non_null(bed->maker.certificate);
        bed->anchor = (struct anchor){ .der = bed->anchor_der.data, .size = bed->anchor_der.size };
        assert_int_equal(
                EVP_Q_digest(NULL, "SHA256", NULL, bed->anchor.der, bed->anchor.size, bed->anchor.digest, NULL), 1);
        bed->profile = &f->profiles[SITE];
        bed->profile->credential = PROFILE_CERTIFICATE;
        bed->profile->anchors = &bed->anchor;
        bed->profile->anchor_count = 1;
        bed->profile->validity_sec = 90 * FIXTURE_DAY;
        bed->profile->renew_at = 0.5;
        bed->profile->rotate_every_sec = 45 * FIXTURE_DAY;
        bed->profile->key_types = 1u << DEVICE_KEY_P256 | 1u << DEVICE_KEY_P384 | 1u << DEVICE_KEY_ED25519;
        bed->profile->rsa_bits = 2048;
        bed->profile->server_keygen = true;
        f->config.ca = (struct ca_config){ .subject = "CN=Site CA",
                                           .key_type = CA_KEY_P256,
                                           .validity_sec = 10 * YEAR,
                                           .successor_at = 0.5,
                                           .announce_sec = 30 * FIXTURE_DAY,
                                           .backdate_sec = 3600,
                                           .server_name = "gatewayd",
                                           .server_validity_sec = 30 * FIXTURE_DAY,
                                           .crl_validity_sec = 30 * FIXTURE_DAY };
        f->turn.issuer = issuer_new();
        *state = bed;
        return 0;
}

static int site_setup(void **state) {
        struct bed *bed;

        (void)bed_setup(state);
        bed = *state;
        assert_int_equal(authority_init(&bed->f->turn, NULL, &bed->f->problem), 0);
        fixture_commit(bed->f);
        return 0;
}

static int bed_teardown(void **state) {
        struct bed *bed = *state;

        issuer_free(bed->f->turn.issuer);
        EVP_PKEY_free(bed->maker.key);
        X509_free(bed->maker.certificate);
        buffer_free(&bed->anchor_der);
        fixture_free(bed->f);
        free(bed);
        return 0;
}

/* ---- devices ---- */

static void unit_use(struct unit *unit, EVP_PKEY *key, struct bytes der) {
        if (key) {
                EVP_PKEY_free(unit->key);
                assert_int_equal(EVP_PKEY_up_ref(key), 1);
                unit->key = key;
        }
        buffer_free(&unit->chain);
        buffer_append(&unit->chain, der);
}

static int unit_connect(struct bed *bed, struct unit *unit) {
        char reason[160] = "";

        if (identity_certificate(&bed->f->turn, buffer_bytes(&unit->chain), reason) != CERTIFICATE_ACCEPTED)
                return -EACCES;
        unit->identity = (struct identity){ .session = bed->f->next_session++ };
        return identity_certificate_connected(&bed->f->turn, buffer_bytes(&unit->chain), false, &unit->identity);
}

/* Registers it and connects with its IDevID. */
static struct unit unit_new(struct bed *bed, const char *id) {
        const struct x509_validity validity = maker_validity();
        struct registration registration = { 0 };
        struct unit unit = { .id = id };
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };
        X509 *idevid;

        snprintf(registration.id, sizeof registration.id, "%s", id);
        snprintf(registration.profile, sizeof registration.profile, "%s", bed->profile->name);
        assert_int_equal(registry_add(&bed->f->turn, &registration, NULL, &bed->f->problem), 0);
        idevid = x509_device_make(&bed->maker, NULL, key, id, NULL, &validity, &der, NULL);
        assert_non_null(idevid);
        X509_free(idevid);
        unit_use(&unit, key, buffer_bytes(&der));
        buffer_free(&der);
        EVP_PKEY_free(key);
        assert_int_equal(unit_connect(bed, &unit), 0);
        return unit;
}

static void unit_free(struct unit *unit) {
        EVP_PKEY_free(unit->key);
        buffer_free(&unit->chain);
}

/* ---- requests ---- */

struct csr_wish {
        const char *serial; /* subject's serialNumber; NULL: no subject */
        const char *challenge;
        const char *names; /* subjectAltName as OpenSSL's configuration has it */
        bool wants_protected_key;
};

static void csr_make(EVP_PKEY *key, const struct csr_wish *wish, struct buffer *to) {
        bool is_edwards = EVP_PKEY_is_a(key, "ED25519");
        X509_REQ *request = X509_REQ_new();
        unsigned char *der = NULL;
        int size;

        assert_int_equal(X509_REQ_set_version(request, X509_REQ_VERSION_1), 1);
        if (wish->serial)
                assert_int_equal(X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(request), NID_serialNumber,
                                                            MBSTRING_ASC, (const unsigned char *)wish->serial, -1, -1,
                                                            0),
                                 1);
        assert_int_equal(X509_REQ_set_pubkey(request, key), 1);
        if (wish->challenge)
                assert_int_equal(X509_REQ_add1_attr_by_NID(request, NID_pkcs9_challengePassword, V_ASN1_UTF8STRING,
                                                           (const unsigned char *)wish->challenge,
                                                           (int)strlen(wish->challenge)),
                                 1);
        if (wish->wants_protected_key) {
                /* SMIMECapabilities (RFC 8551 §2.5.2) and DecryptKeyIdentifier (RFC 7030 §4.4.1.1). */
                ASN1_OBJECT *decrypt = OBJ_txt2obj("1.2.840.113549.1.9.16.2.37", 1);

                assert_int_equal(X509_REQ_add1_attr_by_NID(request, NID_SMIMECapabilities, V_ASN1_SEQUENCE,
                                                           (const unsigned char *)"\x30\x00", 2),
                                 1);
                assert_int_equal(X509_REQ_add1_attr_by_OBJ(request, decrypt, V_ASN1_OCTET_STRING,
                                                           (const unsigned char *)"key-1", 5),
                                 1);
                ASN1_OBJECT_free(decrypt);
        }
        if (wish->names) {
                STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();

                sk_X509_EXTENSION_push(extensions, X509V3_EXT_nconf_nid(NULL, NULL, NID_subject_alt_name, wish->names));
                assert_int_equal(X509_REQ_add_extensions(request, extensions), 1);
                sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
        }
        assert_true(X509_REQ_sign(request, key, is_edwards ? NULL : EVP_sha256()) > 0);
        size = i2d_X509_REQ(request, &der);
        assert_true(size > 0);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_REQ_free(request);
}

static uint8_t send_as(struct bed *bed, struct unit *unit, struct request request, struct reply *reply) {
        const struct moment connected = bed->f->turn.now;
        const struct exchange_entry *entry;
        struct problem problem = { 0 };
        struct bytes tls_unique = unit->identity.tls_unique;

        *reply = (struct reply){ .content_format = FORMAT_NONE, .max_age_sec = -1 };
        assert_int_equal(identity_refresh(&bed->f->turn, &unit->identity, &connected), 0);
        unit->identity.tls_unique = tls_unique;
        request.from = &unit->identity;
        request.observe = -1;
        if (exchange_authorise(&bed->f->turn, &request, &entry, &problem) < 0)
                reply_problem(reply, &problem);
        else
                exchange_handle(&bed->f->turn, entry, &request, reply);
        return reply->code;
}

static uint8_t get(struct bed *bed, struct unit *unit, const char *path, const char *query, int32_t accept,
                   struct reply *reply) {
        return send_as(bed, unit,
                       (struct request){ .method = CODE_GET,
                                         .path = bytes_of(path),
                                         .query = bytes_of(query),
                                         .content_format = FORMAT_NONE,
                                         .accept = accept },
                       reply);
}

static uint8_t post(struct bed *bed, struct unit *unit, const char *path, int32_t accept, struct bytes csr,
                    struct reply *reply) {
        return send_as(bed, unit,
                       (struct request){ .method = CODE_POST,
                                         .path = bytes_of(path),
                                         .content_format = FORMAT_PKCS10,
                                         .accept = accept,
                                         .payload = csr },
                       reply);
}

/* Asks for a certificate for `key` in format 287; its DER in `der`, where there is one. Returns the code. */
static uint8_t enrol_as(struct bed *bed, struct unit *unit, const char *path, EVP_PKEY *key,
                        const struct csr_wish *wish, struct buffer *der) {
        struct buffer csr = { 0 };
        struct reply reply;
        uint8_t code;

        csr_make(key, wish, &csr);
        code = post(bed, unit, path, FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply);
        if (code == CODE_CHANGED && der)
                buffer_append(der, buffer_bytes(&reply.payload));
        buffer_free(&csr);
        buffer_free(&reply.payload);
        return code;
}

static uint8_t enrol(struct bed *bed, struct unit *unit, const char *path, EVP_PKEY *key, struct buffer *der) {
        return enrol_as(bed, unit, path, key, &(struct csr_wish){ .serial = unit->id }, der);
}

/* A device with a proven LDevID, on a session with it. */
static struct unit unit_operational(struct bed *bed, const char *id) {
        struct unit unit = unit_new(bed, id);
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        unit_use(&unit, key, buffer_bytes(&der));
        EVP_PKEY_free(key);
        buffer_free(&der);
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit_connect(bed, &unit), 0);
        fixture_commit(bed->f);
        return unit;
}

/* What a problem says, in `text` (256). */
static void detail_of(const struct reply *reply, char *text) {
        struct bytes detail;

        assert_int_equal(reply->content_format, FORMAT_PROBLEM);
        assert_true(cbor_view_text(cbor_view_member(buffer_bytes(&reply->payload), -2), &detail));
        assert_int_equal(bytes_to_text(detail, text, 256), 0);
}

/* ---- what is in the store ---- */

static int64_t issued(struct bed *bed) {
        return certificate_count(bed->f->store, 1, bed->f->turn.now.wall, NULL);
}

struct refusals {
        unsigned count;
        struct audit_row last;
};

static int count_refusal(void *userdata, const struct audit_row *row) {
        struct refusals *refusals = userdata;

        if (row->kind == EVENT_ENROLMENT_REFUSED) {
                refusals->count++;
                refusals->last = *row;
        }
        return 0;
}

static struct refusals refusals_of(struct bed *bed, const char *device) {
        struct refusals refusals = { 0 };

        assert_int_equal(audit_each(bed->f->store, device, 0, 1000, count_refusal, &refusals), 0);
        return refusals;
}

/* Events that the open turn would write to the journal. */
static unsigned told(struct bed *bed, enum event_kind kind, const char *device) {
        unsigned count = 0;

        for (size_t i = 0; i < bed->f->turn.effect_count; i++) {
                const struct effect *effect = &bed->f->turn.effects[i];

                count += effect->kind == EFFECT_EVENT && effect->event.kind == kind &&
                         strcmp(effect->event.device, device) == 0;
        }
        return count;
}

static X509 *ca_certificate(struct bed *bed) {
        struct buffer der = { 0 };
        X509 *certificate;

        assert_int_equal(authority_read(bed->f->store, 1, AUTHORITY_CERTIFICATE, &der), 0);
        certificate = x509_read(buffer_bytes(&der));
        assert_non_null(certificate);
        buffer_free(&der);
        return certificate;
}

static void assert_issued_for(struct bed *bed, struct bytes der, const char *device, EVP_PKEY *key) {
        X509 *ca = ca_certificate(bed), *certificate = x509_read(der);
        char serial[80];

        assert_non_null(certificate);
        assert_int_equal(X509_verify(certificate, X509_get0_pubkey(ca)), 1);
        assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_serialNumber, serial,
                                              sizeof serial) > 0);
        assert_string_equal(serial, device);
        if (key)
                assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(certificate), key), 1);
        X509_free(certificate);
        X509_free(ca);
}

/* ---- crts ---- */

static void crts_hands_out_the_ca_and_the_device_owes_that_no_more(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        STACK_OF(X509) * certificates;
        X509 *ca = ca_certificate(bed);
        struct reply reply;

        assert_true(fixture_due(bed->f, &unit.identity) & DUE_ANCHORS);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_PKCS7_CERTS);
        certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
        assert_int_equal(sk_X509_num(certificates), 1);
        assert_int_equal(X509_cmp(sk_X509_value(certificates, 0), ca), 0);
        sk_X509_pop_free(certificates, X509_free);
        X509_free(ca);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 1);
        assert_false(fixture_due(bed->f, &unit.identity) & DUE_ANCHORS);
        fixture_commit(bed->f);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_false(store_is_changed(bed->f->store)); /* fetched again: no news, no row */
        unit_free(&unit);
}

static void one_ca_certificate_is_given_as_287_and_several_are_not(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        X509 *ca = ca_certificate(bed), *given;
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKIX_CERT, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_PKIX_CERT);
        given = x509_read(buffer_bytes(&reply.payload));
        assert_int_equal(X509_cmp(given, ca), 0);
        X509_free(given);
        X509_free(ca);
        buffer_free(&reply.payload);

        assert_int_equal(authority_roll(&bed->f->turn, NULL, -1, &bed->f->problem), 0);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKIX_CERT, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 1);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKCS7_CERTS, &reply), CODE_CONTENT);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 2);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

static void without_a_ca_there_is_nothing_to_fetch_and_nobody_to_sign(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", NULL, FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_UNAVAILABLE);
        assert_true(reply.max_age_sec > 0);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        assert_int_equal(refusals_of(bed, "meter-1").count, 0); /* it is no fault of the device */
        unit_free(&unit);
}

/* ---- att ---- */

static bool asks_for(const struct reply *reply, int nid) {
        const ASN1_OBJECT *object = OBJ_nid2obj(nid);
        struct buffer wanted = { 0 };
        unsigned char *at = buffer_reserve(&wanted, 64);
        bool is_found;

        wanted.size = (size_t)i2d_ASN1_OBJECT(object, &at);
        is_found = memmem(reply->payload.data, reply->payload.size, wanted.data, wanted.size) != NULL;
        buffer_free(&wanted);
        return is_found;
}

static void att_names_what_the_profile_takes(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        ASN1_SEQUENCE_ANY *sequence;
        const unsigned char *at;
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_CSRATTRS);
        at = reply.payload.data;
        sequence = d2i_ASN1_SEQUENCE_ANY(NULL, &at, (long)reply.payload.size);
        assert_int_equal(sk_ASN1_TYPE_num(sequence), 4); /* the curves, two hashes, Ed25519 */
        assert_ptr_equal(at, reply.payload.data + reply.payload.size);
        sk_ASN1_TYPE_pop_free(sequence, ASN1_TYPE_free);
        assert_true(asks_for(&reply, NID_X9_62_prime256v1));
        assert_true(asks_for(&reply, NID_ecdsa_with_SHA384));
        assert_false(asks_for(&reply, NID_pkcs9_challengePassword));
        assert_false(asks_for(&reply, NID_rsaEncryption));
        buffer_free(&reply.payload);

        bed->profile->tls_unique = TLS_UNIQUE_REQUIRED;
        bed->profile->key_types = 1u << DEVICE_KEY_RSA;
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_CSRATTRS, &reply), CODE_CONTENT);
        assert_true(asks_for(&reply, NID_pkcs9_challengePassword));
        assert_true(asks_for(&reply, NID_rsaEncryption));
        assert_false(asks_for(&reply, NID_X9_62_prime256v1));
        buffer_free(&reply.payload);
        unit_free(&unit);
}

/* ---- crl ---- */

static void the_crl_is_asked_for_by_generation(void **state) {
        static const char *const bad[] = { "g", "g=", "g=0", "g=x", "g=1x", "g=-1", "g=4294967296", "x=1", "g=1&g=1" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        const unsigned char *at;
        struct reply reply;
        X509_CRL *crl;

        assert_int_equal(authority_revoke_device(&bed->f->turn, "meter-2", REVOKED_UNSPECIFIED), 0);
        assert_int_equal(authority_tick(&bed->f->turn), 0);
        assert_int_equal(authority_crls_write(&bed->f->turn), 0);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(get(bed, &unit, "crl", bad[i], FORMAT_NONE, &reply), CODE_BAD_REQUEST);
                buffer_free(&reply.payload);
        }
        assert_int_equal(get(bed, &unit, "crl", "g=7", FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", "g=1", FORMAT_OCTETS, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_OCTETS);
        at = reply.payload.data;
        crl = d2i_X509_CRL(NULL, &at, (long)reply.payload.size);
        assert_non_null(crl);
        X509_CRL_free(crl);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

/* ---- sen ---- */

static void a_csr_gets_a_certificate_that_its_first_handshake_activates(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, der = { 0 };
        STACK_OF(X509) * certificates;
        EVP_PKEY *key = new_key();
        struct certificate row;
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_CHANGED);
        assert_int_equal(reply.content_format, FORMAT_PKCS7_CERTS);
        assert_int_equal(reply.max_age_sec, -1); /* 2.04 is never cached (RFC 7252 §5.9.1.4) */
        certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
        assert_int_equal(sk_X509_num(certificates), 1); /* the chain is in crts */
        assert_int_equal(x509_write(sk_X509_value(certificates, 0), &der), 0);
        sk_X509_pop_free(certificates, X509_free);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&reply.payload);

        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(certificate_by_csr(bed->f->store, "meter-1", (uint8_t[32]){ 0 }, &row), -ENOENT);
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.kind, CREDENTIAL_LDEVID);
        assert_int_equal(fixture_state(bed->f, unit.identity.credential.identity), KEY_ACTIVE);
        assert_int_equal(fixture_device(bed->f, "meter-1").standing, STANDING_OPERATIONAL);
        buffer_free(&csr);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void the_formats_are_looked_at_before_the_body(void **state) {
        static const int32_t bodies[] = { FORMAT_NONE, FORMAT_TEXT, FORMAT_PKCS7_CERTS, FORMAT_PKIX_CERT };
        static const char *const paths[] = { "est/sen", "est/skg", "est/skc" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct reply reply;

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                for (size_t j = 0; j < ELEMENTS(bodies); j++) {
                        assert_int_equal(send_as(bed, &unit,
                                                 (struct request){ .method = CODE_POST,
                                                                   .path = bytes_of(paths[i]),
                                                                   .content_format = bodies[j],
                                                                   .accept = 9999 },
                                                 &reply),
                                         CODE_UNSUPPORTED_FORMAT);
                        buffer_free(&reply.payload);
                }
                assert_int_equal(post(bed, &unit, paths[i], 9999, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
                buffer_free(&reply.payload);
        }
        assert_int_equal(post(bed, &unit, "est/skg", FORMAT_PKCS7_CERTS, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_MULTIPART, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

static void both_roots_and_the_profile_as_label_lead_to_the_same_resource(void **state) {
        static const char *const paths[] = { "est/sen", ".well-known/est/sen", "est/plain/sen",
                                             ".well-known/est/plain/sen" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();

        assert_int_equal(enrol(bed, &unit, "est/attest/sen", key, NULL), CODE_NOT_FOUND);
        for (size_t i = 0; i < ELEMENTS(paths); i++)
                assert_int_equal(enrol(bed, &unit, paths[i], key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void an_empty_subject_is_filled_in(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &(struct csr_wish){ 0 }, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void all_kinds_of_keys_that_the_profile_takes_are_signed(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (int type = X509_KEY_P256; type <= X509_KEY_ED25519; type++) {
                EVP_PKEY *key = x509_key_new((enum x509_key_type)type);
                struct buffer der = { 0 };

                assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
                assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
                buffer_free(&der);
                EVP_PKEY_free(key);
        }
        unit_free(&unit);
}

static void the_identical_csr_gets_the_identical_certificate_in_any_session(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, first = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply), CODE_CHANGED);
        buffer_append(&first, buffer_bytes(&reply.payload));
        buffer_free(&reply.payload);
        fixture_commit(bed->f);
        for (int again = 0; again < 20; again++) { /* more often than the rate allows */
                assert_int_equal(unit_connect(bed, &unit), 0);
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_true(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&first)));
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 1);
        buffer_free(&csr);
        buffer_free(&first);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* A renewal that was answered and proven: `unit` is the session before it, `ret` the one with the new certificate. */
static void renew(struct bed *bed, struct unit *unit, struct bytes csr, EVP_PKEY *key, struct unit *ret) {
        struct reply reply;

        assert_int_equal(post(bed, unit, "est/sren", FORMAT_PKIX_CERT, csr, &reply), CODE_CHANGED);
        *ret = (struct unit){ .id = unit->id };
        unit_use(ret, key, buffer_bytes(&reply.payload));
        buffer_free(&reply.payload);
        assert_int_equal(unit_connect(bed, ret), 0);
}

static void a_proven_certificate_answers_its_csr_until_it_is_due(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1"), second;
        struct buffer csr = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        renew(bed, &unit, buffer_bytes(&csr), key, &second);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(post(bed, &unit, "est/sren", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&second.chain)), i == 0);
                buffer_free(&reply.payload);
                assert_int_equal(issued(bed), 2 + i);
                if (i == 0)
                        assert_int_equal(registry_rotate(&bed->f->turn, "meter-1", false, 0, &bed->f->problem), 0);
        }
        buffer_free(&csr);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&second);
}

static void a_certificate_is_renewed_by_the_csr_that_brought_it(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1"), second;
        struct buffer csr = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        renew(bed, &unit, buffer_bytes(&csr), key, &second);
        assert_int_equal(post(bed, &second, "est/sren", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply), CODE_CHANGED);
        assert_false(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&second.chain)));
        assert_int_equal(issued(bed), 3);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&second);
}

/* ---- what is refused ---- */

static void the_name_of_another_device_gets_nothing_and_the_audit_says_who_tried(void **state) {
        static const struct csr_wish wishes[] = { { .serial = "meter-2" },
                                                  { .serial = "meter-1", .names = "DNS:meter-2" },
                                                  { .names = "URI:urn:dev:meter-2" } };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), other = unit_new(bed, "meter-2");
        EVP_PKEY *key = new_key();

        for (size_t i = 0; i < 2 * ELEMENTS(wishes); i++) /* the second time makes no second row */
                assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &wishes[i % ELEMENTS(wishes)], NULL),
                                 CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        assert_int_equal(refusals_of(bed, "meter-1").count, 3);
        assert_non_null(strstr(refusals_of(bed, "meter-1").last.reason, "meter-2"));
        assert_int_equal(refusals_of(bed, "meter-2").count, 0);
        assert_int_equal(told(bed, EVENT_ENROLMENT_REFUSED, "meter-1"), 6);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&other);
}

static void the_key_of_another_device_gets_nothing_and_only_the_audit_says_whose_it_is(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), other = unit_operational(bed, "secret-7");
        struct buffer csr = { 0 };
        struct reply reply;
        char detail[256];

        csr_make(other.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_FORBIDDEN);
        detail_of(&reply, detail);
        assert_null(strstr(detail, "secret-7"));
        assert_non_null(strstr(refusals_of(bed, "meter-1").last.reason, "secret-7"));
        assert_int_equal(issued(bed), 1); /* the other's own */
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
        unit_free(&other);
}

static void a_csr_cut_off_anywhere_is_refused_and_rows_of_refusals_are_few(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, &csr);
        for (size_t size = 0; size < csr.size; size++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, BYTES(csr.data, size), &reply),
                                 CODE_BAD_REQUEST);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_in_range(refusals_of(bed, "meter-1").count, 1, 4);
        fixture_pass(bed->f, 3601);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, TEXT(""), &reply), CODE_BAD_REQUEST);
        assert_in_range(refusals_of(bed, "meter-1").count, 2, 5);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
}

static void ever_new_reasons_make_four_rows_an_hour_and_one_line_after_that(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        unsigned same = 0;

        fixture_commit(bed->f);
        for (int i = 0; i < 12; i++) {
                char name[20];

                snprintf(name, sizeof name, "other-%d", i);
                assert_int_equal(enrol_as(bed, &unit, "est/sen", unit.key, &(struct csr_wish){ .serial = name }, NULL),
                                 CODE_FORBIDDEN);
        }
        assert_int_equal(refusals_of(bed, "meter-1").count, 4);
        for (size_t i = 0; i < bed->f->turn.effect_count; i++)
                same += strstr(bed->f->turn.effects[i].event.reason, "again and again") != NULL;
        assert_int_equal(same, 8);
        unit_free(&unit);
}

static void more_than_a_few_unused_certificates_within_a_minute_are_too_often(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        EVP_PKEY *key = NULL;
        struct reply reply;

        for (int i = 0; i < 5; i++) {
                EVP_PKEY_free(key);
                key = new_key();
                assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL),
                                 i < 4 ? CODE_CHANGED : CODE_TOO_MANY_REQUESTS);
                fixture_pass(bed->f, 5);
        }
        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_TOO_MANY_REQUESTS);
        assert_int_equal(reply.max_age_sec, 60 - 25);
        buffer_free(&reply.payload);
        fixture_pass(bed->f, 35);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        buffer_free(&csr);
        unit_free(&unit);
}

static void a_profile_may_demand_a_new_key_each_time(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();

        bed->profile->rekey = REKEY_REQUIRED;
        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sen", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_CHANGED);
        bed->profile->rekey = REKEY_OPTIONAL;
        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* ---- tls-unique ---- */

static void a_csr_made_for_another_session_is_refused_where_that_is_looked_at(void **state) {
        static const uint8_t ours[12] = "twelve bytes";
        static const char right[] = "dHdlbHZlIGJ5dGVz", wrong[] = "dHdlbHZlIGJ5dGV6";
        static const struct {
                enum tls_unique_demand demand;
                const char *challenge;
                bool has_tls_unique;
                uint8_t code;
        } cases[] = {
                { TLS_UNIQUE_VERIFY, NULL, true, CODE_CHANGED },
                { TLS_UNIQUE_VERIFY, right, true, CODE_CHANGED },
                { TLS_UNIQUE_VERIFY, wrong, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, "a password", true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, "", true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, right, false, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, NULL, false, CODE_CHANGED },
                { TLS_UNIQUE_OFF, wrong, true, CODE_CHANGED },
                { TLS_UNIQUE_OFF, "a password", false, CODE_CHANGED },
                { TLS_UNIQUE_REQUIRED, NULL, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_REQUIRED, wrong, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_REQUIRED, right, true, CODE_CHANGED },
        };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                EVP_PKEY *key = new_key();

                bed->profile->tls_unique = cases[i].demand;
                unit.identity.tls_unique = BYTES(ours, cases[i].has_tls_unique ? sizeof ours : 0);
                assert_int_equal(enrol_as(bed, &unit, "est/sen", key,
                                          &(struct csr_wish){ .serial = "meter-1", .challenge = cases[i].challenge },
                                          NULL),
                                 cases[i].code);
                EVP_PKEY_free(key);
                fixture_pass(bed->f, 61); /* not too often */
        }
        unit_free(&unit);
}

/* ---- sren ---- */

static void renewal_takes_the_certificate_that_is_renewed_and_keeps_its_names(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        assert_int_equal(enrol_as(bed, &unit, "est/sren", key,
                                  &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, NULL),
                         CODE_FORBIDDEN); /* it has no such name yet */
        assert_int_equal(enrol_as(bed, &unit, "est/sren", key, &(struct csr_wish){ .serial = "meter-2" }, NULL),
                         CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.generation, 2);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_factory_certificate_cannot_be_renewed(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        unit_free(&unit);
}

static void an_expired_certificate_may_fetch_crts_and_renew_and_nothing_else(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct reply reply;

        bed->profile->max_age_sec = 2 * YEAR;
        fixture_pass(bed->f, 91 * FIXTURE_DAY);
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_true(unit.identity.is_expired);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_NONE, &reply), CODE_FORBIDDEN);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* ---- skg and skc ---- */

static EVP_PKEY *read_key(struct bytes der) {
        const unsigned char *at = der.data;
        PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.size);
        EVP_PKEY *key;

        assert_non_null(info);
        assert_ptr_equal(at, der.data + der.size);
        key = EVP_PKCS82PKEY(info);
        assert_non_null(key);
        PKCS8_PRIV_KEY_INFO_free(info);
        return key;
}

static void a_key_made_here_comes_once_with_its_certificate(void **state) {
        static const struct {
                const char *path;
                uint16_t format;
        } functions[] = { { "est/skg", FORMAT_PKCS7_CERTS }, { "est/skc", FORMAT_PKIX_CERT } };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key(), *before = NULL;
        struct buffer csr = { 0 };

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        csr.data[csr.size - 1] ^= 1; /* key and signature mean nothing (RFC 9148 §4.8) */
        for (size_t i = 0; i < ELEMENTS(functions); i++) {
                struct multipart_part parts[2];
                STACK_OF(X509) * certificates;
                struct buffer der = { 0 };
                struct reply reply;
                EVP_PKEY *made;

                assert_int_equal(post(bed, &unit, functions[i].path, FORMAT_NONE, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(reply.content_format, FORMAT_MULTIPART);
                assert_int_equal(multipart_read(buffer_bytes(&reply.payload), parts, 2, NULL), 2);
                assert_int_equal(parts[0].content_format, FORMAT_PKCS8);
                assert_int_equal(parts[1].content_format, functions[i].format);
                made = read_key(parts[0].body);
                assert_int_not_equal(EVP_PKEY_eq(made, key), 1);
                if (before)
                        assert_int_not_equal(EVP_PKEY_eq(made, before), 1); /* each time another */
                if (functions[i].format == FORMAT_PKIX_CERT)
                        buffer_append(&der, parts[1].body);
                else {
                        certificates = x509_pkcs7_read(parts[1].body);
                        assert_int_equal(sk_X509_num(certificates), 1);
                        assert_int_equal(x509_write(sk_X509_value(certificates, 0), &der), 0);
                        sk_X509_pop_free(certificates, X509_free);
                }
                assert_issued_for(bed, buffer_bytes(&der), "meter-1", made);
                buffer_free(&der);
                buffer_free(&reply.payload);
                EVP_PKEY_free(before);
                before = made;
        }
        buffer_free(&csr);
        EVP_PKEY_free(before);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_key_made_here_is_of_the_kind_of_the_csrs_where_the_profile_takes_that(void **state) {
        static const struct {
                unsigned key_types;
                enum x509_key_type shown;
                const char *made;
        } cases[] = {
                { 7, X509_KEY_P256, "prime256v1" },
                { 7, X509_KEY_P384, "secp384r1" },
                { 7, X509_KEY_ED25519, "ED25519" },
                { 1u << DEVICE_KEY_P256, X509_KEY_P384, "prime256v1" },
                { 1u << DEVICE_KEY_P384, X509_KEY_P256, "secp384r1" },
        };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                EVP_PKEY *shown = x509_key_new(cases[i].shown), *made;
                struct multipart_part parts[2];
                struct buffer csr = { 0 };
                struct reply reply;
                char group[32];

                bed->profile->key_types = cases[i].key_types;
                csr_make(shown, &(struct csr_wish){ .serial = "meter-1" }, &csr);
                assert_int_equal(post(bed, &unit, "est/skc", FORMAT_MULTIPART, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(multipart_read(buffer_bytes(&reply.payload), parts, 2, NULL), 2);
                made = read_key(parts[0].body);
                if (EVP_PKEY_get_group_name(made, group, sizeof group, NULL) == 1)
                        assert_string_equal(group, cases[i].made);
                else
                        assert_true(EVP_PKEY_is_a(made, cases[i].made));
                EVP_PKEY_free(made);
                EVP_PKEY_free(shown);
                buffer_free(&csr);
                buffer_free(&reply.payload);
                fixture_pass(bed->f, 61);
        }
        unit_free(&unit);
}

static void a_protected_key_is_refused_and_never_given_unprotected(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        const struct csr_wish wish = { .serial = "meter-1", .wants_protected_key = true };

        assert_int_equal(enrol_as(bed, &unit, "est/skg", unit.key, &wish, NULL), CODE_NOT_ACCEPTABLE);
        for (size_t i = 0; i < 2; i++) {
                struct buffer csr = { 0 };
                struct reply reply;

                csr_make(unit.key, &wish, &csr);
                assert_int_equal(
                        post(bed, &unit, i == 0 ? "est/skg" : "est/skc", FORMAT_NONE, buffer_bytes(&csr), &reply),
                        CODE_BAD_REQUEST);
                buffer_free(&csr);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_true(refusals_of(bed, "meter-1").count > 0);
        unit_free(&unit);
}

static void keys_are_made_only_where_the_profile_and_the_ca_allow_it(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        for (int i = 0; i < 3; i++) {
                bed->profile->server_keygen = i != 0;
                bed->profile->ca = i == 1 ? CA_UPSTREAM : CA_LOCAL;
                bed->profile->key_types = i == 2 ? 1u << DEVICE_KEY_RSA : 7;
                assert_int_equal(post(bed, &unit, "est/skg", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_FORBIDDEN);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_int_equal(refusals_of(bed, "meter-1").count, 3);
        buffer_free(&csr);
        unit_free(&unit);
}

/* ---- upstream ---- */

/* The owner's CA signs what waits, here with the maker's key. */
static void upstream_signs(struct bed *bed, const char *device, EVP_PKEY *key) {
        const struct x509_validity validity = { FIXTURE_START - FIXTURE_DAY, bed->f->turn.now.wall + YEAR };
        STACK_OF(X509) *certificates = sk_X509_new_null();
        struct message_enrolled answer = { .outcome = ENROL_ISSUED, .http_status = 200 };
        struct buffer pkcs7 = { 0 };
        struct enrolment waiting;
        X509 *certificate;

        assert_int_equal(enrolment_due(bed->f->store, bed->f->turn.now.powered_sec, &waiting, 1), 1);
        certificate = x509_device_make(&bed->maker, NULL, key, device, NULL, &validity, NULL, NULL);
        assert_non_null(certificate);
        sk_X509_push(certificates, certificate);
        assert_int_equal(x509_pkcs7_write(certificates, &pkcs7), 0);
        sk_X509_pop_free(certificates, X509_free);
        answer.number = waiting.number;
        answer.certificates = buffer_bytes(&pkcs7);
        assert_int_equal(registrar_answer(&bed->f->turn, &answer), 0);
        buffer_free(&pkcs7);
}

static void a_csr_for_upstream_waits_and_asked_again_gets_upstreams_certificate_once(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, der = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;
        X509 *certificate;

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_UNAVAILABLE);
                assert_true(reply.max_age_sec > 0);
                buffer_free(&reply.payload);
        }
        assert_int_equal(enrolment_count(bed->f->store, ENROLMENT_WAITING), 1);
        assert_int_equal(issued(bed), 0);
        upstream_signs(bed, "meter-1", key);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                if (i == 0)
                        buffer_append(&der, buffer_bytes(&reply.payload));
                assert_true(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&der)));
                buffer_free(&reply.payload);
        }
        certificate = x509_read(buffer_bytes(&der));
        assert_int_equal(X509_verify(certificate, bed->maker.key), 1);
        X509_free(certificate);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.kind, CREDENTIAL_LDEVID);
        assert_int_equal(unit.identity.credential.generation, 1);
        buffer_free(&csr);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void with_the_uplink_down_the_profile_may_let_the_gateway_sign(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        bed->f->turn.is_upstream_away = true;
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_UNAVAILABLE);
        bed->profile->upstream_offline = OFFLINE_LOCAL;
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void crts_of_an_upstream_profile_has_both_cas_each_once(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        STACK_OF(X509) *certificates = sk_X509_new_null();
        struct buffer pkcs7 = { 0 };
        X509 *ca = ca_certificate(bed);
        struct reply reply;

        sk_X509_push(certificates, bed->maker.certificate);
        sk_X509_push(certificates, ca);
        assert_int_equal(x509_pkcs7_write(certificates, &pkcs7), 0);
        sk_X509_free(certificates);
        X509_free(ca);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, buffer_bytes(&pkcs7)), 0);
        buffer_free(&pkcs7);
        for (int i = 0; i < 2; i++) {
                bed->profile->ca = i == 0 ? CA_LOCAL : CA_UPSTREAM;
                assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
                certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
                assert_int_equal(sk_X509_num(certificates), 1 + i);
                sk_X509_pop_free(certificates, X509_free);
                buffer_free(&reply.payload);
        }
        unit_free(&unit);
}

/* ---- PSK sessions ---- */

static void a_psk_session_enrols_only_where_the_profile_says_so_and_never_renews(void **state) {
        struct bed *bed = *state;
        struct unit unit = { .id = "meter-1" };
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        fixture_add(bed->f, "meter-1", SITE);
        assert_int_equal(fixture_connect(bed->f, "meter-1", &unit.identity), 0);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        bed->profile->est_over_psk = true;
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &(struct csr_wish){ .serial = "meter-2" }, NULL),
                         CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_profile_with_psks_gives_no_certificates(void **state) {
        struct bed *bed = *state;
        struct unit unit = { .id = "meter-1" };
        EVP_PKEY *key = new_key();

        bed->profile->credential = PROFILE_PSK;
        bed->profile->est_over_psk = true;
        fixture_add(bed->f, "meter-1", SITE);
        assert_int_equal(fixture_connect(bed->f, "meter-1", &unit.identity), 0);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* ---- the standard's appendix ---- */

static void vector_read(const char *name, struct buffer *to) {
        char path[100];
        FILE *f;

        snprintf(path, sizeof path, "tests/vectors/%s", name);
        f = fopen(path, "rb");
        assert_non_null(f);
        to->size = fread(buffer_reserve(to, 4096), 1, 4096, f);
        assert_in_range(to->size, 1, 4095);
        (void)fclose(f);
}

static X509 *only_certificate(struct bytes pkcs7) {
        STACK_OF(X509) *certificates = x509_pkcs7_read(pkcs7);
        X509 *certificate;

        assert_int_equal(sk_X509_num(certificates), 1);
        certificate = sk_X509_shift(certificates);
        sk_X509_pop_free(certificates, X509_free);
        return certificate;
}

/* An IDevID with the names of the appendix's device. */
static void idevid_like(struct bed *bed, X509 *like, EVP_PKEY *key, struct buffer *to) {
        X509 *idevid = X509_new();
        int at = X509_get_ext_by_NID(like, NID_subject_alt_name, -1);
        unsigned char *der = NULL;
        int size;

        assert_true(at >= 0);
        assert_int_equal(X509_set_version(idevid, X509_VERSION_3), 1);
        assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(idevid), 17), 1);
        assert_int_equal(X509_set_issuer_name(idevid, X509_get_subject_name(bed->maker.certificate)), 1);
        assert_int_equal(X509_set_subject_name(idevid, X509_get_subject_name(like)), 1);
        assert_non_null(X509_time_adj_ex(X509_getm_notBefore(idevid), -365, 0, (time_t[]){ FIXTURE_START }));
        assert_int_equal(ASN1_TIME_set_string(X509_getm_notAfter(idevid), "99991231235959Z"), 1);
        assert_int_equal(X509_set_pubkey(idevid, key), 1);
        assert_int_equal(X509_add_ext(idevid, X509_get_ext(like, at), -1), 1);
        assert_true(X509_sign(idevid, bed->maker.key, EVP_sha256()) > 0);
        size = i2d_X509(idevid, &der);
        assert_true(size > 0);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_free(idevid);
}

static void assert_same_extension(X509 *one, X509 *other, int nid) {
        const ASN1_STRING *a = X509_EXTENSION_get_data(X509_get_ext(one, X509_get_ext_by_NID(one, nid, -1)));
        const ASN1_STRING *b = X509_EXTENSION_get_data(X509_get_ext(other, X509_get_ext_by_NID(other, nid, -1)));

        assert_int_equal(ASN1_STRING_cmp(a, b), 0);
}

static void the_appendix_csr_gets_the_names_of_the_appendix_certificate(void **state) {
        struct bed *bed = *state;
        struct buffer csr = { 0 }, answer = { 0 }, idevid = { 0 };
        struct registration registration = { .id = "Wt1234" };
        struct unit unit = { .id = "Wt1234" };
        EVP_PKEY *key = new_key();
        struct reply reply;
        X509 *published, *ours;

        vector_read("rfc9148-a2-sen-req.csr.der", &csr);
        vector_read("rfc9148-a2-sen-resp.p7.der", &answer);
        published = only_certificate(buffer_bytes(&answer));
        snprintf(registration.profile, sizeof registration.profile, "%s", bed->profile->name);
        assert_int_equal(registry_add(&bed->f->turn, &registration, NULL, &bed->f->problem), 0);
        idevid_like(bed, published, key, &idevid);
        unit_use(&unit, key, buffer_bytes(&idevid));
        assert_int_equal(unit_connect(bed, &unit), 0);

        /* Its challengePassword is of another session, and not even base64. */
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_BAD_REQUEST);
        buffer_free(&reply.payload);
        bed->profile->tls_unique = TLS_UNIQUE_OFF;
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_CHANGED);
        ours = only_certificate(buffer_bytes(&reply.payload));
        assert_int_equal(X509_NAME_cmp(X509_get_subject_name(ours), X509_get_subject_name(published)), 0);
        assert_same_extension(ours, published, NID_subject_alt_name);
        assert_same_extension(ours, published, NID_subject_key_identifier);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(ours), X509_get0_pubkey(published)), 1);
        buffer_free(&reply.payload);
        X509_free(ours);
        X509_free(published);
        buffer_free(&csr);
        buffer_free(&answer);
        buffer_free(&idevid);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void the_appendix_answer_to_skg_is_read_and_written_to_the_byte(void **state) {
        struct buffer body = { 0 }, again = { 0 };
        struct multipart_part parts[2];
        X509 *certificate;
        EVP_PKEY *key;

        (void)state;
        vector_read("rfc9148-a3-skg-resp.multipart.cbor", &body);
        assert_int_equal(multipart_read(buffer_bytes(&body), parts, 2, NULL), 2);
        assert_int_equal(parts[0].content_format, FORMAT_PKCS8);
        assert_int_equal(parts[1].content_format, FORMAT_PKCS7_CERTS);
        key = read_key(parts[0].body);
        certificate = only_certificate(parts[1].body);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(certificate), key), 1);
        multipart_write(parts, 2, &again);
        assert_true(bytes_equal(buffer_bytes(&again), buffer_bytes(&body)));
        X509_free(certificate);
        EVP_PKEY_free(key);
        buffer_free(&body);
        buffer_free(&again);
}

static void the_appendix_csr_for_skg_is_taken(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        vector_read("rfc9148-a3-skg-req.csr.der", &csr);
        assert_int_equal(post(bed, &unit, "est/skg", FORMAT_MULTIPART, buffer_bytes(&csr), &reply), CODE_CHANGED);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
}

#define ON_SITE(test)    cmocka_unit_test_setup_teardown(test, site_setup, bed_teardown)
#define WITHOUT_CA(test) cmocka_unit_test_setup_teardown(test, bed_setup, bed_teardown)

int main(void) {
        static const struct CMUnitTest tests[] = {
                ON_SITE(crts_hands_out_the_ca_and_the_device_owes_that_no_more),
                ON_SITE(one_ca_certificate_is_given_as_287_and_several_are_not),
                WITHOUT_CA(without_a_ca_there_is_nothing_to_fetch_and_nobody_to_sign),
                ON_SITE(att_names_what_the_profile_takes),
                ON_SITE(the_crl_is_asked_for_by_generation),
                ON_SITE(a_csr_gets_a_certificate_that_its_first_handshake_activates),
                ON_SITE(the_formats_are_looked_at_before_the_body),
                ON_SITE(both_roots_and_the_profile_as_label_lead_to_the_same_resource),
                ON_SITE(an_empty_subject_is_filled_in),
                ON_SITE(all_kinds_of_keys_that_the_profile_takes_are_signed),
                ON_SITE(the_identical_csr_gets_the_identical_certificate_in_any_session),
                ON_SITE(a_proven_certificate_answers_its_csr_until_it_is_due),
                ON_SITE(a_certificate_is_renewed_by_the_csr_that_brought_it),
                ON_SITE(the_name_of_another_device_gets_nothing_and_the_audit_says_who_tried),
                ON_SITE(the_key_of_another_device_gets_nothing_and_only_the_audit_says_whose_it_is),
                ON_SITE(a_csr_cut_off_anywhere_is_refused_and_rows_of_refusals_are_few),
                ON_SITE(ever_new_reasons_make_four_rows_an_hour_and_one_line_after_that),
                ON_SITE(more_than_a_few_unused_certificates_within_a_minute_are_too_often),
                ON_SITE(a_profile_may_demand_a_new_key_each_time),
                ON_SITE(a_csr_made_for_another_session_is_refused_where_that_is_looked_at),
                ON_SITE(renewal_takes_the_certificate_that_is_renewed_and_keeps_its_names),
                ON_SITE(a_factory_certificate_cannot_be_renewed),
                ON_SITE(an_expired_certificate_may_fetch_crts_and_renew_and_nothing_else),
                ON_SITE(a_key_made_here_comes_once_with_its_certificate),
                ON_SITE(a_key_made_here_is_of_the_kind_of_the_csrs_where_the_profile_takes_that),
                ON_SITE(a_protected_key_is_refused_and_never_given_unprotected),
                ON_SITE(keys_are_made_only_where_the_profile_and_the_ca_allow_it),
                ON_SITE(a_csr_for_upstream_waits_and_asked_again_gets_upstreams_certificate_once),
                ON_SITE(with_the_uplink_down_the_profile_may_let_the_gateway_sign),
                ON_SITE(crts_of_an_upstream_profile_has_both_cas_each_once),
                ON_SITE(a_psk_session_enrols_only_where_the_profile_says_so_and_never_renews),
                ON_SITE(a_profile_with_psks_gives_no_certificates),
                ON_SITE(the_appendix_csr_gets_the_names_of_the_appendix_certificate),
                cmocka_unit_test(the_appendix_answer_to_skg_is_read_and_written_to_the_byte),
                ON_SITE(the_appendix_csr_for_skg_is_taken),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

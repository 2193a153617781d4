/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A site for tests of EST: a store, a CA, a manufacturer, and devices with their keys that send requests and read
 * what comes back. */

#include "tests/unit/support.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "gatewayd/cbor.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/multipart.h"
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

static inline struct x509_validity maker_validity(void) {
        return (struct x509_validity){ FIXTURE_START - YEAR, NOT_AFTER_NEVER };
}

static inline EVP_PKEY *new_key(void) {
        EVP_PKEY *key = x509_key_new(X509_KEY_P256);

        assert_non_null(key);
        return key;
}

static inline int bed_setup(void **state) {
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

static inline int site_setup(void **state) {
        struct bed *bed;

        (void)bed_setup(state);
        bed = *state;
        assert_int_equal(authority_init(&bed->f->turn, NULL, &bed->f->problem), 0);
        fixture_commit(bed->f);
        return 0;
}

static inline int bed_teardown(void **state) {
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

static inline void unit_use(struct unit *unit, EVP_PKEY *key, struct bytes der) {
        if (key) {
                EVP_PKEY_free(unit->key);
                assert_int_equal(EVP_PKEY_up_ref(key), 1);
                unit->key = key;
        }
        buffer_free(&unit->chain);
        buffer_append(&unit->chain, der);
}

static inline int unit_connect(struct bed *bed, struct unit *unit) {
        char reason[160] = "";

        if (identity_certificate(&bed->f->turn, buffer_bytes(&unit->chain), reason) != CERTIFICATE_ACCEPTED)
                return -EACCES;
        unit->identity = (struct identity){ .session = bed->f->next_session++ };
        return identity_certificate_connected(&bed->f->turn, buffer_bytes(&unit->chain), false, &unit->identity);
}

/* Registers it and connects with its IDevID. */
static inline struct unit unit_new(struct bed *bed, const char *id) {
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

static inline void unit_free(struct unit *unit) {
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

static inline void csr_make(EVP_PKEY *key, const struct csr_wish *wish, struct buffer *to) {
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

static inline uint8_t send_as(struct bed *bed, struct unit *unit, struct request request, struct reply *reply) {
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

static inline uint8_t get(struct bed *bed, struct unit *unit, const char *path, const char *query, int32_t accept,
                          struct reply *reply) {
        return send_as(bed, unit,
                       (struct request){ .method = CODE_GET,
                                         .path = bytes_of(path),
                                         .query = bytes_of(query),
                                         .content_format = FORMAT_NONE,
                                         .accept = accept },
                       reply);
}

static inline uint8_t post(struct bed *bed, struct unit *unit, const char *path, int32_t accept, struct bytes csr,
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
static inline uint8_t enrol_as(struct bed *bed, struct unit *unit, const char *path, EVP_PKEY *key,
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

static inline uint8_t enrol(struct bed *bed, struct unit *unit, const char *path, EVP_PKEY *key, struct buffer *der) {
        return enrol_as(bed, unit, path, key, &(struct csr_wish){ .serial = unit->id }, der);
}

/* A device with a proven LDevID, on a session with it. */
static inline struct unit unit_operational(struct bed *bed, const char *id) {
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
static inline void detail_of(const struct reply *reply, char *text) {
        struct bytes detail;

        assert_int_equal(reply->content_format, FORMAT_PROBLEM);
        assert_true(cbor_view_text(cbor_view_member(buffer_bytes(&reply->payload), -2), &detail));
        assert_int_equal(bytes_to_text(detail, text, 256), 0);
}

/* ---- what is in the store ---- */

static inline int64_t issued(struct bed *bed) {
        return certificate_count(bed->f->store, 1, bed->f->turn.now.wall, NULL);
}

struct refusals {
        unsigned count;
        struct audit_row last;
};

static inline int count_refusal(void *userdata, const struct audit_row *row) {
        struct refusals *refusals = userdata;

        if (row->kind == EVENT_ENROLMENT_REFUSED) {
                refusals->count++;
                refusals->last = *row;
        }
        return 0;
}

static inline struct refusals refusals_of(struct bed *bed, const char *device) {
        struct refusals refusals = { 0 };

        assert_int_equal(audit_each(bed->f->store, device, 0, 1000, count_refusal, &refusals), 0);
        return refusals;
}

/* Events that the open turn would write to the journal. */
static inline unsigned told(struct bed *bed, enum event_kind kind, const char *device) {
        unsigned count = 0;

        for (size_t i = 0; i < bed->f->turn.effect_count; i++) {
                const struct effect *effect = &bed->f->turn.effects[i];

                count += effect->kind == EFFECT_EVENT && effect->event.kind == kind &&
                         strcmp(effect->event.device, device) == 0;
        }
        return count;
}

static inline X509 *ca_certificate(struct bed *bed) {
        struct buffer der = { 0 };
        X509 *certificate;

        assert_int_equal(authority_read(bed->f->store, 1, AUTHORITY_CERTIFICATE, &der), 0);
        certificate = x509_read(buffer_bytes(&der));
        assert_non_null(certificate);
        buffer_free(&der);
        return certificate;
}

static inline void assert_issued_for(struct bed *bed, struct bytes der, const char *device, EVP_PKEY *key) {
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

#define ON_SITE(test)    cmocka_unit_test_setup_teardown(test, site_setup, bed_teardown)
#define WITHOUT_CA(test) cmocka_unit_test_setup_teardown(test, bed_setup, bed_teardown)

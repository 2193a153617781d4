/* SPDX-License-Identifier: Apache-2.0 */

/* See pki_fixture.h. */

#include "tests/unit/support.h"

#include "tests/unit/pki_fixture.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/x509.h"
#include "store/authorities.h"

static void set_time(ASN1_TIME *to, unix_sec when) {
        if (when == PKI_NEVER)
                assert_int_equal(ASN1_TIME_set_string(to, "99991231235959Z"), 1);
        else
                assert_non_null(ASN1_TIME_set(to, (time_t)when));
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value) {
        X509V3_CTX context;
        X509_EXTENSION *extension;

        X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
        extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
        assert_non_null(extension);
        assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
        X509_EXTENSION_free(extension);
}

static void set_names(X509 *certificate, const struct pki_names *names) {
        X509_NAME *subject = X509_get_subject_name(certificate);
        char san[128];

        if (names->serial_number)
                assert_int_equal(X509_NAME_add_entry_by_NID(subject, NID_serialNumber, MBSTRING_ASC,
                                                            (const unsigned char *)names->serial_number, -1, -1, 0),
                                 1);
        if (names->is_ca)
                assert_int_equal(X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_ASC,
                                                            (const unsigned char *)"CA", -1, -1, 0),
                                 1);
        if (names->dns_name) {
                snprintf(san, sizeof san, "DNS:%s", names->dns_name);
                add_extension(certificate, certificate, NID_subject_alt_name, san);
        }
}

X509 *pki_make(const struct pki_ca *issuer, EVP_PKEY *key, const struct pki_names *names) {
        X509 *certificate = X509_new(), *by = issuer ? issuer->certificate : certificate;
        uint8_t serial[16];
        BIGNUM *number;

        assert_non_null(certificate);
        assert_int_equal(RAND_bytes(serial, sizeof serial), 1);
        serial[0] &= 0x7f;
        number = BN_bin2bn(serial, sizeof serial, NULL);
        assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)));
        BN_free(number);
        assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
        set_time(X509_getm_notBefore(certificate), names->not_before);
        set_time(X509_getm_notAfter(certificate), names->not_after);
        set_names(certificate, names);
        assert_int_equal(X509_set_issuer_name(certificate, X509_get_subject_name(by)), 1);
        assert_int_equal(X509_set_pubkey(certificate, key), 1);
        add_extension(certificate, by, NID_subject_key_identifier, "hash");
        add_extension(certificate, by, NID_basic_constraints, names->is_ca ? "critical,CA:TRUE" : "CA:FALSE");
        add_extension(certificate, by, NID_key_usage,
                      names->is_ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
        assert_true(X509_sign(certificate, issuer ? issuer->key : key, EVP_sha256()) > 0);
        return certificate;
}

void pki_put(struct buffer *to, X509 *certificate) {
        unsigned char *der = NULL;
        int size = i2d_X509(certificate, &der);

        assert_true(size > 0);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
}

static struct pki_ca make_ca(const struct pki_ca *issuer, const char *name) {
        const struct pki_names names = { .serial_number = name,
                                         .is_ca = true,
                                         .not_before = FIXTURE_START - 2000 * FIXTURE_DAY,
                                         .not_after = PKI_NEVER };
        struct pki_ca ca = { .key = EVP_EC_gen("P-256") };

        assert_non_null(ca.key);
        ca.certificate = pki_make(issuer, ca.key, &names);
        return ca;
}

const struct pki_manufacturer *pki_manufacturer(unsigned number) {
        static struct pki_manufacturer manufacturers[PKI_MANUFACTURERS];
        struct pki_manufacturer *m = &manufacturers[number];
        char name[32];

        if (!m->root.key) {
                snprintf(name, sizeof name, "root %u", number);
                m->root = make_ca(NULL, name);
                snprintf(name, sizeof name, "issuing %u", number);
                m->issuing = make_ca(&m->root, name);
        }
        return m;
}

struct anchor *pki_anchor(unsigned number) {
        static struct anchor anchors[PKI_MANUFACTURERS];
        struct anchor *anchor = &anchors[number];
        struct buffer der = { 0 };

        if (!anchor->der) {
                pki_put(&der, pki_manufacturer(number)->root.certificate);
                anchor->der = der.data;
                anchor->size = der.size;
                assert_int_equal(EVP_Digest(anchor->der, anchor->size, anchor->digest, NULL, EVP_sha256(), NULL), 1);
        }
        return anchor;
}

void pki_leaf(unsigned manufacturer, const struct pki_names *names, struct buffer *ret_chain) {
        const struct pki_manufacturer *m = pki_manufacturer(manufacturer);
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *leaf = pki_make(&m->issuing, key, names);

        ret_chain->size = 0;
        pki_put(ret_chain, leaf);
        pki_put(ret_chain, m->issuing.certificate);
        X509_free(leaf);
        EVP_PKEY_free(key);
}

void pki_idevid(unsigned manufacturer, const char *serial_number, struct buffer *ret_chain) {
        const struct pki_names names = { .serial_number = serial_number,
                                         .not_before = FIXTURE_START - 1000 * FIXTURE_DAY,
                                         .not_after = PKI_NEVER };

        pki_leaf(manufacturer, &names, ret_chain);
}

void pki_authority(struct fixture *f, uint32_t number) {
        const struct authority authority = {
                .generation = number,
                .state = AUTHORITY_ACTIVE,
                .key_uri = "store:",
                .is_root = true,
                .not_before = FIXTURE_START,
                .not_after = FIXTURE_START + 3650 * FIXTURE_DAY,
                .created = f->turn.now,
                .activated = f->turn.now,
        };

        assert_int_equal(authority_insert(f->store, &authority), 0);
}

void pki_ldevid(struct fixture *f, const struct identity *from, uint32_t generation, int64_t life_sec,
                struct buffer *ret_chain) {
        const struct pki_names names = { .serial_number = from->device.id,
                                         .not_before = f->turn.now.wall,
                                         .not_after = f->turn.now.wall + life_sec };
        struct certificate row = { .issuer = generation, .revoked = REVOKED_NOT };
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *leaf = pki_make(&pki_manufacturer(0)->issuing, key, &names); /* whoever signed: the row counts */
        struct device device = from->device;

        ret_chain->size = 0;
        pki_put(ret_chain, leaf);
        assert_int_equal(x509_describe(leaf, &row), 0);
        snprintf(row.device, sizeof row.device, "%s", from->device.id);
        assert_int_equal(certificate_insert(f->store, &row, buffer_bytes(ret_chain)), 0);
        assert_int_equal(grant_make_room(&f->turn, from, &device), 0);
        assert_int_equal(grant_certificate(&f->turn, from, &row), 0);
        X509_free(leaf);
        EVP_PKEY_free(key);
}

void pki_add(struct fixture *f, const char *id, enum fixture_profile profile) {
        struct registration registration = { 0 };
        struct bytes key = fixture_attestation_key();

        snprintf(registration.id, sizeof registration.id, "%s", id);
        snprintf(registration.profile, sizeof registration.profile, "%s", f->profiles[profile].name);
        if (f->profiles[profile].attestation != ATTESTATION_NONE) {
                memcpy(registration.attestation_key, key.data, key.size);
                registration.attestation_key_size = key.size;
        }
        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), 0);
}

int pki_connect(struct fixture *f, const struct buffer *chain, struct identity *ret) {
        struct moment superseded = identity_certificate_superseded(&f->turn, buffer_bytes(chain));
        bool is_before = !moment_is_set(&superseded) || f->turn.now.powered_sec <= superseded.powered_sec;

        f->problem.detail[0] = '\0';
        f->verdict = identity_certificate(&f->turn, buffer_bytes(chain), f->problem.detail);
        if (f->verdict != CERTIFICATE_ACCEPTED) {
                assert_true(f->problem.detail[0] != '\0');
                return -EACCES;
        }
        *ret = (struct identity){ .session = f->next_session++ };
        return identity_certificate_connected(&f->turn, buffer_bytes(chain), is_before, ret);
}

void pki_csr(struct buffer *ret) {
        X509_REQ *request = X509_REQ_new();
        EVP_PKEY *key = EVP_EC_gen("P-256");
        unsigned char *der = NULL;
        int size;

        assert_true(request && key && X509_REQ_set_pubkey(request, key) == 1);
        assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
        size = i2d_X509_REQ(request, &der);
        assert_true(size > 0);
        ret->size = 0;
        buffer_append(ret, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_REQ_free(request);
        EVP_PKEY_free(key);
}

void pki_fingerprint(const struct buffer *chain, char to[2 * CERTIFICATE_DIGEST_BYTES + 1]) {
        const unsigned char *at = chain->data;
        X509 *leaf = d2i_X509(NULL, &at, (long)chain->size);
        struct certificate row;

        assert_non_null(leaf);
        assert_int_equal(x509_describe(leaf, &row), 0);
        memcpy(to, row.fingerprint, sizeof row.fingerprint);
        X509_free(leaf);
}

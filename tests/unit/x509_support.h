/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What tests of certificates and CSRs share: DER written by hand, CSRs of any shape, a CA. */

#include "tests/unit/evidence_support.h"

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/csr.h"
#include "gatewayd/keys/x509.h"

#define NOW 1790000000

static inline void certificate_freep(X509 **certificate) {
        X509_free(*certificate);
}

static inline void certificates_freep(STACK_OF(X509) * *certificates) {
        sk_X509_pop_free(*certificates, X509_free);
}

/* Appends one item. */
static inline void der_put(struct buffer *to, uint8_t tag, struct bytes content) {
        const uint8_t small[] = { tag, (uint8_t)content.size };
        const uint8_t large[] = { tag, 0x83, (uint8_t)(content.size >> 16), (uint8_t)(content.size >> 8),
                                  (uint8_t)content.size };
        const uint8_t middle[] = { tag, 0x82, large[3], large[4] }, byte[] = { tag, 0x81, large[4] };

        buffer_append(to, content.size < 0x80      ? BYTES(small, sizeof small)
                          : content.size < 0x100   ? BYTES(byte, sizeof byte)
                          : content.size < 0x10000 ? BYTES(middle, sizeof middle)
                                                   : BYTES(large, sizeof large));
        buffer_append(to, content);
}

/* Wraps what `to` holds. */
static inline void der_wrap(struct buffer *to, uint8_t tag) {
        struct buffer inner = *to;

        *to = (struct buffer){};
        der_put(to, tag, buffer_bytes(&inner));
        buffer_free(&inner);
}

#define ECDSA_SHA256   "300a06082a8648ce3d040302"
#define ECDSA_SHA384   "300a06082a8648ce3d040303"
#define ECDSA_SHA1     "300906072a8648ce3d0401"
#define RSA_SHA256     "300d06092a864886f70d01010b0500"
#define RSA_SHA1       "300d06092a864886f70d0101050500"
#define RSA_MD5        "300d06092a864886f70d0101040500"
#define ED25519        "300506032b6570"
#define OID_CHALLENGE  "06092a864886f70d010907"
#define OID_EXTENSIONS "06092a864886f70d01090e"

/* A CSR to be made, right or wrong. */
struct csr_plan {
        EVP_PKEY *key;
        const char *algorithm; /* hex of the AlgorithmIdentifier */
        const char *digest;    /* OpenSSL's name; NULL: the key's own */
        uint8_t version;
        const char *subject;     /* as the configuration writes names; NULL: empty */
        struct bytes spki;       /* instead of the key's */
        struct bytes attributes; /* what stands in [0] */
};

static inline void csr_put_subject(const char *text, struct buffer *to) {
        X509_NAME *name = text ? x509_name_parse(text) : X509_NAME_new();
        uint8_t *der = NULL;
        int size;

        assert_non_null(name);
        size = i2d_X509_NAME(name, &der);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_NAME_free(name);
}

static inline void csr_make(const struct csr_plan *plan, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer info = {}, bits = {};
        uint8_t spki[1200], signature[1200];
        size_t size = sizeof signature;
        EVP_MD_CTX *context = EVP_MD_CTX_new();

        der_put(&info, 0x02, BYTES(&plan->version, 1));
        csr_put_subject(plan->subject, &info);
        buffer_append(&info,
                      plan->spki.size > 0 ? plan->spki : BYTES(spki, key_public_der(plan->key, spki, sizeof spki)));
        der_put(&info, 0xa0, plan->attributes);
        der_wrap(&info, 0x30);
        assert_int_equal(EVP_DigestSignInit_ex(context, NULL, plan->digest, NULL, NULL, plan->key, NULL), 1);
        assert_int_equal(EVP_DigestSign(context, signature, &size, info.data, info.size), 1);
        EVP_MD_CTX_free(context);
        buffer_append(&bits, BYTES("", 1));
        buffer_append(&bits, BYTES(signature, size));

        buffer_free(to);
        buffer_append(to, buffer_bytes(&info));
        buffer_append(to, hex(plan->algorithm));
        der_put(to, 0x03, buffer_bytes(&bits));
        der_wrap(to, 0x30);
}

/* Attribute { type, SET { value } } */
static inline void csr_put_attribute(const char *oid, struct bytes values, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer attribute = {};

        buffer_append(&attribute, hex(oid));
        der_put(&attribute, 0x31, values);
        der_put(to, 0x30, buffer_bytes(&attribute));
}

/* Extension { id, value } */
static inline void csr_put_extension(const char *oid, struct bytes value, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer extension = {};

        buffer_append(&extension, hex(oid));
        der_put(&extension, 0x04, value);
        der_put(to, 0x30, buffer_bytes(&extension));
}

/* The attribute that asks for a subjectAltName of these GeneralNames. */
static inline void csr_put_names(struct bytes names, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer value = {}, extensions = {};

        der_put(&value, 0x30, names);
        csr_put_extension("0603551d11", buffer_bytes(&value), &extensions);
        der_wrap(&extensions, 0x30);
        csr_put_attribute(OID_EXTENSIONS, buffer_bytes(&extensions), to);
}

static inline X509 *root_make(EVP_PKEY *key, const char *subject) {
        const struct x509_validity validity = { NOW, NOW + 3650 * 86400 };
        struct problem problem = { 0 };
        X509 *root = x509_root_make(key, subject, &validity, NULL, &problem);

        if (!root)
                fail_msg("%s", problem.detail);
        return root;
}

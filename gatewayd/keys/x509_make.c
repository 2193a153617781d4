/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates as the gateway makes them: the CA's own, its CSR, and the gateway's leaf (RFC 5280 §4,
 * IEEE 802.1AR §8). Devices' are x509_device.c. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#define SERIAL_BYTES 16

enum { USAGE_SIGN = 0, USAGE_CERTIFY = 5, USAGE_CRL = 6 }; /* bits of KeyUsage, RFC 5280 §4.2.1.3 */

static void basic_constraintsp(BASIC_CONSTRAINTS **constraints) {
        BASIC_CONSTRAINTS_free(*constraints);
}

static void bit_stringp(ASN1_BIT_STRING **bits) {
        ASN1_BIT_STRING_free(*bits);
}

static void octet_stringp(ASN1_OCTET_STRING **octets) {
        ASN1_OCTET_STRING_free(*octets);
}

static void extended_usagep(EXTENDED_KEY_USAGE **usage) {
        EXTENDED_KEY_USAGE_free(*usage);
}

static void akip(AUTHORITY_KEYID **aki) {
        AUTHORITY_KEYID_free(*aki);
}

static void timep(ASN1_TIME **time) {
        ASN1_TIME_free(*time);
}

static void requestp(X509_REQ **request) {
        X509_REQ_free(*request);
}

EVP_PKEY *x509_key_new(enum x509_key_type type) {
        switch (type) {
        case X509_KEY_P256:
                return EVP_EC_gen("P-256");
        case X509_KEY_P384:
                return EVP_EC_gen("P-384");
        case X509_KEY_ED25519:
                return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
        }
        return NULL;
}

int x509_ski(EVP_PKEY *key, uint8_t ret[CERTIFICATE_SKI_BYTES]) {
        X509_PUBKEY *wrapped = NULL;
        const uint8_t *bits;
        int size, r = -EIO;

        if (X509_PUBKEY_set(&wrapped, key) == 1 && X509_PUBKEY_get0_param(NULL, &bits, &size, NULL, wrapped) == 1) {
                SHA1(bits, (size_t)size, ret);
                r = 0;
        }
        X509_PUBKEY_free(wrapped);
        return r;
}

ASN1_TIME *x509_time(unix_sec at) {
        ASN1_TIME *time;

        if (at == NOT_AFTER_NEVER) {
                time = ASN1_TIME_new();
                if (time && ASN1_TIME_set_string(time, "99991231235959Z") == 1)
                        return time;
                ASN1_TIME_free(time);
                return NULL;
        }
        if (at < 0 || at / 86400 > INT32_MAX)
                return NULL;
        /* Through days: time_t has 32 bits on some gateways. */
        return ASN1_TIME_adj(NULL, 0, (int)(at / 86400), (long)(at % 86400));
}

/* ---- extensions ---- */

static bool add_basic_constraints(STACK_OF(X509_EXTENSION) * *to, int path_length) {
        _cleanup_(basic_constraintsp) BASIC_CONSTRAINTS *constraints = BASIC_CONSTRAINTS_new();

        if (!constraints)
                oom();
        constraints->ca = 0xff;
        constraints->pathlen = ASN1_INTEGER_new();
        return constraints->pathlen && ASN1_INTEGER_set(constraints->pathlen, path_length) == 1 &&
               X509V3_add1_i2d(to, NID_basic_constraints, constraints, 1, X509V3_ADD_DEFAULT) == 1;
}

static bool add_key_usage(STACK_OF(X509_EXTENSION) * *to, bool is_ca) {
        _cleanup_(bit_stringp) ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();

        if (!bits)
                oom();
        if (is_ca &&
            (ASN1_BIT_STRING_set_bit(bits, USAGE_CERTIFY, 1) != 1 || ASN1_BIT_STRING_set_bit(bits, USAGE_CRL, 1) != 1))
                return false;
        if (!is_ca && ASN1_BIT_STRING_set_bit(bits, USAGE_SIGN, 1) != 1)
                return false;
        return X509V3_add1_i2d(to, NID_key_usage, bits, 1, X509V3_ADD_DEFAULT) == 1;
}

static bool add_extended_usages(STACK_OF(X509_EXTENSION) * *to, const int usages[2]) {
        _cleanup_(extended_usagep) EXTENDED_KEY_USAGE *usage = sk_ASN1_OBJECT_new_null();

        if (!usage)
                oom();
        for (int i = 0; i < 2; i++)
                if (usages[i] != 0 && sk_ASN1_OBJECT_push(usage, OBJ_nid2obj(usages[i])) == 0)
                        oom();
        return sk_ASN1_OBJECT_num(usage) == 0 ||
               X509V3_add1_i2d(to, NID_ext_key_usage, usage, 0, X509V3_ADD_DEFAULT) == 1;
}

static bool add_ski(STACK_OF(X509_EXTENSION) * *to, const uint8_t ski[CERTIFICATE_SKI_BYTES]) {
        _cleanup_(octet_stringp) ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();

        if (!octets)
                oom();
        return ASN1_OCTET_STRING_set(octets, ski, CERTIFICATE_SKI_BYTES) == 1 &&
               X509V3_add1_i2d(to, NID_subject_key_identifier, octets, 0, X509V3_ADD_DEFAULT) == 1;
}

AUTHORITY_KEYID *x509_aki(const struct x509_signer *signer) {
        AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
        const ASN1_OCTET_STRING *known = signer->certificate ? X509_get0_subject_key_id(signer->certificate) : NULL;
        uint8_t ski[CERTIFICATE_SKI_BYTES];

        if (!aki)
                oom();
        if (known)
                aki->keyid = ASN1_OCTET_STRING_dup(known);
        else if (x509_ski(signer->key, ski) == 0 && (aki->keyid = ASN1_OCTET_STRING_new()))
                (void)ASN1_OCTET_STRING_set(aki->keyid, ski, sizeof ski); /* fails without memory alone: seen below */
        if (aki->keyid && ASN1_STRING_length(aki->keyid) > 0)
                return aki;
        AUTHORITY_KEYID_free(aki);
        return NULL;
}

static bool add_aki(STACK_OF(X509_EXTENSION) * *to, const struct x509_signer *signer) {
        _cleanup_(akip) AUTHORITY_KEYID *aki = x509_aki(signer);

        return aki && X509V3_add1_i2d(to, NID_authority_key_identifier, aki, 0, X509V3_ADD_DEFAULT) == 1;
}

static bool add_extensions(X509 *certificate, const struct x509_draft *draft) {
        _cleanup_(x509_extensionsp) STACK_OF(X509_EXTENSION) *list = NULL;
        bool is_ca = draft->path_length >= 0;
        uint8_t ski[CERTIFICATE_SKI_BYTES];

        /* As x509_ski(), of what is written already: OpenSSL takes its time to write a key. */
        if (X509_pubkey_digest(certificate, EVP_sha1(), ski, NULL) != 1)
                return false;
        if ((is_ca && !add_basic_constraints(&list, draft->path_length)) || !add_key_usage(&list, is_ca) ||
            !add_extended_usages(&list, draft->usages) || !add_ski(&list, ski) || !add_aki(&list, draft->signer))
                return false;
        if (draft->names && X509V3_add1_i2d(&list, NID_subject_alt_name, draft->names, 0, X509V3_ADD_DEFAULT) != 1)
                return false;
        for (int i = 0; i < sk_X509_EXTENSION_num(list); i++)
                if (X509_add_ext(certificate, sk_X509_EXTENSION_value(list, i), -1) != 1)
                        return false;
        return true;
}

/* ---- signing ---- */

/* Positive, and always the same length: the top bit is clear, the first octet not zero. */
static bool set_serial(X509 *certificate) {
        uint8_t serial[SERIAL_BYTES];

        if (RAND_bytes(serial, sizeof serial) != 1)
                return false;
        serial[0] &= 0x7f;
        if (serial[0] == 0)
                serial[0] = 1;
        return ASN1_STRING_set(X509_get_serialNumber(certificate), serial, sizeof serial) == 1;
}

static bool set_validity(X509 *certificate, const struct x509_validity *validity) {
        _cleanup_(timep) ASN1_TIME *not_before = x509_time(validity->not_before);
        _cleanup_(timep) ASN1_TIME *not_after = x509_time(validity->not_after);

        return not_before && not_after && validity->not_before <= validity->not_after &&
               X509_set1_notBefore(certificate, not_before) == 1 && X509_set1_notAfter(certificate, not_after) == 1;
}

static int cannot(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_INTERNAL, EIO, "cannot sign", "%s: %s", what, x509_error());
}

X509 *x509_draft_sign(const struct x509_draft *draft, struct buffer *to, struct problem *problem) {
        const struct x509_signer *signer = draft->signer;
        X509 *certificate = X509_new();
        X509_NAME *issuer = signer->certificate ? X509_get_subject_name(signer->certificate) : draft->subject;

        if (!certificate)
                oom();
        if (X509_set_version(certificate, X509_VERSION_3) != 1 || !set_serial(certificate) ||
            X509_set_issuer_name(certificate, issuer) != 1 || X509_set_subject_name(certificate, draft->subject) != 1 ||
            X509_set_pubkey(certificate, draft->key) != 1)
                cannot(problem, "a certificate cannot be put together");
        else if (!set_validity(certificate, draft->validity))
                cannot(problem, "the validity cannot be written");
        else if (!add_extensions(certificate, draft))
                cannot(problem, "the extensions cannot be written");
        else if (!x509_sign_certificate(certificate, signer->key))
                cannot(problem, "the CA's key does not sign");
        else if (to && x509_write(certificate, to) < 0)
                cannot(problem, "the certificate cannot be encoded");
        else
                return certificate;
        X509_free(certificate);
        return NULL;
}

X509 *x509_root_make(EVP_PKEY *key, const char *subject, const struct x509_validity *validity, struct buffer *to,
                     struct problem *problem) {
        _cleanup_(x509_namep) X509_NAME *name = x509_name_parse(subject);
        const struct x509_signer self = { .key = key };
        const struct x509_draft draft = {
                .signer = &self,
                .key = key,
                .subject = name,
                .validity = validity,
                .path_length = 1,
        };

        if (name)
                return x509_draft_sign(&draft, to, problem);
        problem_set(problem, CODE_INTERNAL, EINVAL, "cannot sign", "the CA's subject \"%s\" is not understood",
                    subject);
        return NULL;
}

X509 *x509_cross_make(const struct x509_signer *signer, X509 *subject, const struct x509_validity *validity,
                      struct buffer *to, struct problem *problem) {
        const struct x509_draft draft = {
                .signer = signer,
                .key = X509_get0_pubkey(subject),
                .subject = X509_get_subject_name(subject),
                .validity = validity,
                .path_length = 0,
        };

        if (draft.key)
                return x509_draft_sign(&draft, to, problem);
        cannot(problem, "the successor's key is not understood");
        return NULL;
}

static bool add_request_extensions(X509_REQ *request, EVP_PKEY *key) {
        _cleanup_(x509_extensionsp) STACK_OF(X509_EXTENSION) *list = NULL;
        uint8_t ski[CERTIFICATE_SKI_BYTES];

        return x509_ski(key, ski) == 0 && add_basic_constraints(&list, 0) && add_key_usage(&list, true) &&
               add_ski(&list, ski) && X509_REQ_add_extensions(request, list) == 1;
}

static int write_request(X509_REQ *request, struct buffer *to) {
        uint8_t *der = NULL;
        int size = i2d_X509_REQ(request, &der);

        if (size <= 0)
                return -EIO;
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        return 0;
}

int x509_request_make(EVP_PKEY *key, const char *subject, struct buffer *to, struct problem *problem) {
        _cleanup_(x509_namep) X509_NAME *name = x509_name_parse(subject);
        _cleanup_(requestp) X509_REQ *request = X509_REQ_new();

        if (!request)
                oom();
        if (!name)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "cannot sign",
                                   "the CA's subject \"%s\" is not understood", subject);
        if (X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 || X509_REQ_set_subject_name(request, name) != 1 ||
            X509_REQ_set_pubkey(request, key) != 1 || !add_request_extensions(request, key))
                return cannot(problem, "a CSR cannot be put together");
        if (!x509_sign_request(request, key))
                return cannot(problem, "the CA's key does not sign");
        if (write_request(request, to) < 0)
                return cannot(problem, "the CSR cannot be encoded");
        return 0;
}

static bool copy_names(X509_REQ *request, X509 *certificate) {
        int at = X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1);
        STACK_OF(X509_EXTENSION) *extensions = NULL;
        bool is_done;

        if (at < 0)
                return true;
        is_done = X509v3_add_ext(&extensions, X509_get_ext(certificate, at), -1) &&
                  X509_REQ_add_extensions(request, extensions) == 1;
        sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
        return is_done;
}

int x509_renewal_request_make(EVP_PKEY *key, X509 *certificate, struct buffer *to, struct problem *problem) {
        _cleanup_(requestp) X509_REQ *request = X509_REQ_new();

        if (!request)
                oom();
        if (X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 ||
            X509_REQ_set_subject_name(request, X509_get_subject_name(certificate)) != 1 ||
            X509_REQ_set_pubkey(request, key) != 1 || !copy_names(request, certificate))
                return cannot(problem, "a CSR cannot be put together");
        if (!x509_sign_request(request, key))
                return cannot(problem, "the new key does not sign");
        return write_request(request, to) < 0 ? cannot(problem, "the CSR cannot be encoded") : 0;
}

static GENERAL_NAMES *dns_names(const char *name) {
        GENERAL_NAMES *names = GENERAL_NAMES_new();
        GENERAL_NAME *entry = GENERAL_NAME_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();

        if (!names || !entry || !text || ASN1_STRING_set(text, name, -1) != 1)
                oom();
        GENERAL_NAME_set0_value(entry, GEN_DNS, text);
        if (sk_GENERAL_NAME_push(names, entry) == 0)
                oom();
        return names;
}

X509 *x509_server_make(const struct x509_signer *signer, EVP_PKEY *key, const char *name,
                       const struct x509_validity *validity, struct buffer *to, struct problem *problem) {
        _cleanup_(x509_namep) X509_NAME *subject = X509_NAME_new();
        _cleanup_(x509_general_namesp) GENERAL_NAMES *names = dns_names(name);
        const struct x509_draft draft = {
                .signer = signer,
                .key = key,
                .subject = subject,
                .validity = validity,
                .path_length = -1,
                .usages = { NID_server_auth, NID_cmcRA },
                .names = names,
        };

        if (!subject)
                oom();
        if (x509_name_add(subject, NID_commonName, name))
                return x509_draft_sign(&draft, to, problem);
        cannot(problem, "the server's name cannot be written");
        return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files behind x509.h and csr.h: strict DER, extensions, names, times. Not for others. */

#include <openssl/x509v3.h>

#include "gatewayd/keys/x509.h"

/* For _cleanup_. */
void x509_freep(X509 **certificate);
void x509_stackp(STACK_OF(X509) * *stack);
void x509_namep(X509_NAME **name);
void x509_extensionsp(STACK_OF(X509_EXTENSION) * *extensions);
void x509_general_namesp(GENERAL_NAMES **names);
void evp_pkey_freep(EVP_PKEY **key);

/* ---- x509_der.c: what OpenSSL's reader would let pass or would allocate for ---- */

struct der_item {
        unsigned tag; /* the identifier octet: class, constructed bit and a number below 31 */
        struct bytes content;
        struct bytes whole; /* with the header */
};

/* Takes one item off the front of `*from`. False: there is none, its length is not definite and minimal, or
 * it runs past the end; `*from` is left alone then. */
bool der_take(struct bytes *from, struct der_item *ret);
/* Whether `der` is exactly one item, and all constructed ones in it hold whole items. */
bool der_is_whole(struct bytes der);

enum {
        DER_BOOLEAN = 0x01,
        DER_INTEGER = 0x02,
        DER_BIT_STRING = 0x03,
        DER_OCTET_STRING = 0x04,
        DER_OID = 0x06,
        DER_UTF8_STRING = 0x0c,
        DER_PRINTABLE_STRING = 0x13,
        DER_T61_STRING = 0x14,
        DER_SEQUENCE = 0x30,
        DER_SET = 0x31,
        DER_CONTEXT_0 = 0xa0,
};

/* ---- csr_key.c ---- */

/* Before OpenSSL sees it: the SubjectPublicKeyInfo is well-formed and names its curve, and, with a profile, is
 * of a kind, curve and form that the profile takes. -EBADMSG or -EKEYREJECTED with problem 4.00. */
int csr_key_look(struct bytes spki, const struct profile *profile, struct problem *problem);
/* After: a valid point, or an RSA key of sound size and exponent. -EKEYREJECTED with problem 4.00. */
int csr_key_check(EVP_PKEY *key, const struct profile *profile, struct problem *problem);

/* ---- csr_names.c ---- */

/* The requested subjectAltName. 0 and NULL: there is none. -EBADMSG. The caller frees. */
int csr_names(const struct csr *csr, GENERAL_NAMES **ret);
/* Whether one of a CSR's names is the device's own, or stands in `before`'s (NULL allowed). */
bool csr_name_is_allowed(const GENERAL_NAME *name, const char *device, const GENERAL_NAMES *before);

/* ---- x509_read.c ---- */

/* The last thing OpenSSL complained of, in its words; its queue is empty afterwards. */
const char *x509_error(void);
/* Text of an ASN.1 string equals `text`, byte by byte in UTF-8. */
bool x509_string_is(const ASN1_STRING *string, const char *text);

/* ---- x509_sign.c ---- */

/* The digest that a key signs with: NULL for Ed25519, which brings its own. */
const EVP_MD *x509_digest_for(EVP_PKEY *key);
/* A context that signs with `key`, for the _sign_ctx() functions. NULL: OpenSSL's queue says why. */
EVP_MD_CTX *x509_sign_begin(EVP_PKEY *key);
/* Sign, with the digest that goes with the key. False: OpenSSL's queue says why. */
bool x509_sign_certificate(X509 *certificate, EVP_PKEY *key);
bool x509_sign_crl(X509_CRL *crl, EVP_PKEY *key);
bool x509_sign_request(X509_REQ *request, EVP_PKEY *key);

/* ---- x509_make.c ---- */

/* RFC 5280 §4.2.1.2 (1): SHA-1 of the key's bits. */
int x509_ski(EVP_PKEY *key, uint8_t ret[CERTIFICATE_SKI_BYTES]);
/* UTCTime through 2049, GeneralizedTime after; NOT_AFTER_NEVER is 99991231235959Z. NULL: not to be said. */
ASN1_TIME *x509_time(unix_sec at);
/* The key identifier of `signer` as authorityKeyIdentifier. */
AUTHORITY_KEYID *x509_aki(const struct x509_signer *signer);

/* What a certificate is made of, beside the serial. */
struct x509_draft {
        const struct x509_signer *signer; /* certificate NULL: self-signed */
        EVP_PKEY *key;
        X509_NAME *subject;
        const struct x509_validity *validity;
        int path_length;      /* < 0: no CA, and no basicConstraints */
        int usages[2];        /* NIDs for extendedKeyUsage; 0: none */
        GENERAL_NAMES *names; /* NULL: none */
};
X509 *x509_draft_sign(const struct x509_draft *draft, struct buffer *to, struct problem *problem);
/* One entry, PrintableString where the type demands it and the text allows it. */
bool x509_name_add(X509_NAME *name, int nid, const char *text);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Certificates, CRLs and certs-only messages as bytes: made and read on OpenSSL (RFC 5280, IEEE 802.1AR,
 * RFC 5652). No store, no clock, no policy of who may have what. */

#include <openssl/x509.h>

#include "gatewayd/bytes.h"
#include "gatewayd/keys/csr.h"
#include "gatewayd/problem.h"
#include "store/certificates.h"

#define NOT_AFTER_NEVER INT64_MAX /* 99991231235959Z: no well-defined expiry (RFC 5280 §4.1.2.5) */

struct x509_validity {
        unix_sec not_before, not_after;
};

/* One CA as a signer: its key and its certificate. */
struct x509_signer {
        EVP_PKEY *key;
        X509 *certificate;
};

enum x509_key_type { X509_KEY_P256, X509_KEY_P384, X509_KEY_ED25519 };

/* A fresh key. NULL when OpenSSL has no randomness. */
EVP_PKEY *x509_key_new(enum x509_key_type type);

/* All makers append DER to `to` (NULL allowed where `ret` is given) and return the object (the caller's to
 * free) or NULL with problem 5.00. Serials are 16 random bytes, positive. */

/* The root of a closed site: self-signed, CA:TRUE with pathlen 1 (it certifies its successor), keyCertSign and
 * cRLSign critical, SKI; `subject` as "CN=…,O=…" in the configuration's syntax (x509_name_parse()). */
X509 *x509_root_make(EVP_PKEY *key, const char *subject, const struct x509_validity *validity, struct buffer *to,
                     struct problem *problem);
/* `subject`'s key and name certified by `signer` (newWithOld, RFC 4210 §4.4): CA:TRUE, pathlen 0. */
X509 *x509_cross_make(const struct x509_signer *signer, X509 *subject, const struct x509_validity *validity,
                      struct buffer *to, struct problem *problem);
/* The CSR of a sub-CA: CA:TRUE with pathlen 0, keyCertSign and cRLSign; no nameConstraints (Mbed TLS cannot
 * parse them when critical). */
int x509_request_make(EVP_PKEY *key, const char *subject, struct buffer *to, struct problem *problem);
/* A request for `certificate` to be renewed with a new key: subject and subjectAltName as they are (RFC 7030
 * §4.2.2). */
int x509_renewal_request_make(EVP_PKEY *key, X509 *certificate, struct buffer *to, struct problem *problem);
/* The gateway's own leaf: CN and dNSName `name`, serverAuth and id-kp-cmcRA (1.3.6.1.5.5.7.3.28),
 * digitalSignature critical, SKI, AKI. */
X509 *x509_server_make(const struct x509_signer *signer, EVP_PKEY *key, const char *name,
                       const struct x509_validity *validity, struct buffer *to, struct problem *problem);
/* An LDevID (802.1AR): subject serialNumber = `device` (and whatever names `csr` carries that
 * csr_check_names() has allowed; nothing else of the CSR is copied), subjectAltName of the CSR or of `before`,
 * digitalSignature critical, clientAuth, SKI, AKI, no basicConstraints. `key`: the CSR's, or one made here. */
X509 *x509_device_make(const struct x509_signer *signer, const struct csr *csr, EVP_PKEY *key, const char *device,
                       X509 *before, const struct x509_validity *validity, struct buffer *to, struct problem *problem);

/* Reads one DER certificate that is the whole of `der`. NULL: it is not one. */
X509 *x509_read(struct bytes der);
/* Reads concatenated DER certificates, leaf first, at most CHAIN_MAX. -EBADMSG. */
#define CHAIN_MAX 8
STACK_OF(X509) * x509_read_chain(struct bytes der);
int x509_write(X509 *certificate, struct buffer *to);
/* What a store row says of it (fingerprint, serial, validity, key, SKI); device, issuer and csr are left alone. */
int x509_describe(X509 *certificate, struct certificate *ret);
/* notBefore and notAfter as seconds; 99991231235959Z is NOT_AFTER_NEVER. -EBADMSG. */
int x509_validity_of(X509 *certificate, struct x509_validity *ret);
/* SHA-256 of the key's SubjectPublicKeyInfo. */
int x509_key_digest(EVP_PKEY *key, uint8_t ret[CERTIFICATE_DIGEST_BYTES]);
/* The subject's serialNumber, or else the first dNSName or URI of subjectAltName, as `identity` says, into
 * `to` (DEVICE_ID_MAX + 1). -ENOENT: there is none; -EINVAL: it is no device id. */
int x509_device_id(X509 *certificate, enum idevid_identity identity, char *to);
/* The subject on one line, for people: "CN=Plant 7 CA,O=Example". */
void x509_subject_text(X509 *certificate, char *to, size_t to_size);
/* "CN=Plant 7 CA, O=Example" into a name. NULL: not understood. */
X509_NAME *x509_name_parse(const char *text);

/* Does `chain` (leaf first; what else it holds helps) lead to one of `anchors`? Checks signatures, basic and path
 * constraints, key usage of the CAs, and that the leaf may sign and be a client (keyUsage digitalSignature and
 * extendedKeyUsage clientAuth or any, where it has these extensions; 802.1AR §8). Never looks at the clock:
 * validity is the caller's (x509_validity_of() of each in *ret_path, leaf first, caller frees).
 * 0 and the index of the anchor, or -EKEYREJECTED with a reason. An anchor may be an intermediate. */
int x509_chain_verify(STACK_OF(X509) * chain, STACK_OF(X509) * anchors, STACK_OF(X509) * *ret_path, size_t *ret_anchor,
                      struct problem *problem);

/* certs-only CMS SignedData (RFC 5652 §5; RFC 7030 §4.1.3), DER. */
int x509_pkcs7_write(STACK_OF(X509) * certificates, struct buffer *to);
STACK_OF(X509) * x509_pkcs7_read(struct bytes der);

/* A v2 CRL (RFC 5280 §5): AKI and cRLNumber. `entries` by x509_crl_add(). */
struct x509_crl;
struct x509_crl *x509_crl_new(const struct x509_signer *signer, uint64_t number, unix_sec this_update,
                              unix_sec next_update);
int x509_crl_add(struct x509_crl *crl, const struct certificate *certificate);
/* Signs, appends the DER, frees. */
int x509_crl_finish(struct x509_crl *crl, struct buffer *to, struct problem *problem);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a device asks for in a PKCS#10 request (RFC 2986): taken apart and checked by itself. Whether the
 * device may have it is decided elsewhere (est_enrol.c). No store, no clock. */

#include <openssl/x509.h>

#include "config/config.h"
#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"
#include "store/certificates.h"

struct csr {
        X509_REQ *request;
        EVP_PKEY *key; /* borrowed from `request`; NULL where the key is to be made here and the CSR's is not usable */
        uint8_t digest[CERTIFICATE_DIGEST_BYTES];     /* SHA-256 of the DER */
        uint8_t public_key[CERTIFICATE_DIGEST_BYTES]; /* SHA-256 of the SubjectPublicKeyInfo */
        struct bytes tls_unique;  /* base64-decoded challengePassword (RFC 7030 §3.5); empty: the CSR carries none */
        bool has_challenge;       /* there is a challengePassword, in whatever form */
        bool wants_protected_key; /* SMIMECapabilities with a DecryptKeyIdentifier: 280 is asked for (RFC 9148 §4.8) */
        uint8_t tls_unique_bytes[64];
};

/* Takes a CSR apart: the whole body is one DER structure and nothing else, at most CSR_MAX bytes and
 * CSR_EXTENSIONS_MAX requested extensions; the key is of a type and curve the profile takes (key_types); the
 * signature verifies (proof of possession) unless `is_keygen`: with server-side key generation neither key nor
 * signature mean anything (RFC 9148 §4.8). *ret points into itself: do not copy it. -EINVAL, -EBADMSG or
 * -EKEYREJECTED with problem 4.00 and the reason; nothing in *ret then. */
#define CSR_MAX            8192
#define CSR_EXTENSIONS_MAX 32
int csr_read(struct bytes der, const struct profile *profile, bool is_keygen, struct csr *ret, struct problem *problem);
void csr_free(struct csr *csr);

/* The names in it. The subject carries no serialNumber (2.5.4.5) and no commonName, or its serialNumber, or
 * failing that its commonName, is `device`, and each name in subjectAltName is: dNSName or
 * uniformResourceIdentifier or rfc822Name equal to the device id (URI also urn:dev:…:id). With `before` (the
 * certificate to be renewed, for sren) subject and subjectAltName must equal its own (RFC 7030 §4.2.2;
 * X509_NAME_cmp) or be empty. 0, or -EACCES with problem 4.03 that names the name. */
int csr_check_names(const struct csr *csr, const char *device, X509 *before, struct problem *problem);
/* The same for the first certificate (sen): as csr_check_names() without `before`, but the subject may also be
 * the IDevID's, and a name in subjectAltName (hardwareModuleName, RFC 4108 §5, and others) may stand in the
 * IDevID's. `idevid` NULL: the device came without one. */
int csr_check_first_names(const struct csr *csr, const char *device, X509 *idevid, struct problem *problem);

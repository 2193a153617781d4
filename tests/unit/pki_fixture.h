/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Certificates for tests, made on OpenSSL alone: manufacturers with their IDevIDs, and LDevIDs as rows without the
 * gateway's own CA. */

#include <openssl/x509.h>

#include "tests/unit/devices_fixture.h"

#define PKI_MANUFACTURERS 2

struct pki_ca {
        EVP_PKEY *key;
        X509 *certificate;
};

/* What a certificate says; times as unix seconds, PKI_NEVER: 99991231235959Z. */
#define PKI_NEVER INT64_MAX
struct pki_names {
        const char *serial_number; /* of the subject; NULL: none */
        const char *dns_name;      /* in subjectAltName; NULL: none */
        bool is_ca;
        unix_sec not_before, not_after;
};
/* `issuer` NULL: self-signed. The caller's to free. */
X509 *pki_make(const struct pki_ca *issuer, EVP_PKEY *key, const struct pki_names *names);
/* Appends DER. */
void pki_put(struct buffer *to, X509 *certificate);

/* A root and the CA under it that signs IDevIDs; the same for the whole run. */
struct pki_manufacturer {
        struct pki_ca root, issuing;
};
const struct pki_manufacturer *pki_manufacturer(unsigned number);
/* The root as the configuration has it; the same for the whole run. */
struct anchor *pki_anchor(unsigned number);

/* An IDevID without an end, and the CA that signed it, as a client sends them. Each call makes another one. */
void pki_idevid(unsigned manufacturer, const char *serial_number, struct buffer *ret_chain);
/* Any leaf of that manufacturer, with its CA. */
void pki_leaf(unsigned manufacturer, const struct pki_names *names, struct buffer *ret_chain);

/* Generation `number` of the gateway's CA is there, active, without a key. */
void pki_authority(struct fixture *f, uint32_t number);
/* A certificate for whoever asks, of that generation, valid from now for so long: its row and its credential. */
void pki_ldevid(struct fixture *f, const struct identity *from, uint32_t generation, int64_t life_sec,
                struct buffer *ret_chain);

/* Registers a device that comes with an IDevID, with an attestation key where the profile attests. */
void pki_add(struct fixture *f, const char *id, enum fixture_profile profile);
/* A handshake with that chain, question and completion. 0, or -EACCES from whichever refused; the question's
 * verdict in f->verdict, its reason in f->problem.detail. */
int pki_connect(struct fixture *f, const struct buffer *chain, struct identity *ret);
/* A CSR (PKCS#10, DER) with a fresh key, and no name: the gateway fills it in. */
void pki_csr(struct buffer *ret);
/* The fingerprint of the chain's leaf. */
void pki_fingerprint(const struct buffer *chain, char to[2 * CERTIFICATE_DIGEST_BYTES + 1]);

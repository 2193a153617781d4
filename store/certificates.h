/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Certificates that belong to devices: a row for each LDevID, and one for the IDevID a device first
 * came with. The credential of the same identity (credentials.h) says what it may do now; this row says
 * what it is, and stays until the certificate has run out, so that a CRL can name it. */

#include "store/credentials.h"

#define CERTIFICATE_DIGEST_BYTES 32 /* SHA-256 */
#define CERTIFICATE_SERIAL_MAX   20 /* RFC 5280 §4.1.2.2 */
#define CERTIFICATE_SKI_BYTES    20

/* RFC 5280 §5.3.1. */
enum revocation_reason {
        REVOKED_NOT = -1,
        REVOKED_UNSPECIFIED = 0,
        REVOKED_KEY_COMPROMISE = 1,
        REVOKED_SUPERSEDED = 4,
        REVOKED_CESSATION = 5,
        REVOKED_PRIVILEGE_WITHDRAWN = 9,
};

/* GENERATION_UPSTREAM: issued by the owner's CA through the registrar. GENERATION_FOREIGN: an IDevID. */
#define GENERATION_UPSTREAM 0
#define GENERATION_FOREIGN  UINT32_MAX

struct certificate {
        /* Lower-case hex of SHA-256 over the DER: also the identity of an LDevID's credential. */
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        char device[DEVICE_ID_MAX + 1];
        uint32_t issuer; /* generation of the issuing CA, or one of the two above */
        uint8_t serial[CERTIFICATE_SERIAL_MAX];
        size_t serial_size;
        unix_sec not_before, not_after;               /* INT64_MAX: 99991231235959Z (RFC 5280 §4.1.2.5) */
        uint8_t public_key[CERTIFICATE_DIGEST_BYTES]; /* SHA-256 of the SubjectPublicKeyInfo */
        uint8_t ski[CERTIFICATE_SKI_BYTES];
        uint8_t csr[CERTIFICATE_DIGEST_BYTES]; /* SHA-256 of the CSR it answered; zeros: none */
        enum revocation_reason revoked;        /* REVOKED_NOT until it is */
        struct moment revoked_at;
};

/* -EEXIST when the fingerprint is there already. */
int certificate_insert(struct store *store, const struct certificate *certificate, struct bytes der);
int certificate_get(struct store *store, const char *fingerprint, struct certificate *ret);
/* Appends the DER. -ENOENT. */
int certificate_der(struct store *store, const char *fingerprint, struct buffer *ret);
/* 1: revoked now; 0: it was before (the first reason and moment stay); -ENOENT. */
int certificate_revoke(struct store *store, const char *fingerprint, enum revocation_reason reason,
                       const struct moment *at);
/* Revokes all certificates of the device that are not revoked yet; IDevIDs too. Returns how many. Whatever
 * revokes a certificate marks the CRL of its CA generation stale (authorities.h). */
int certificate_revoke_device(struct store *store, const char *device, enum revocation_reason reason,
                              const struct moment *at);

/* The device whose certificate, IDevID, attestation key or waiting enrolment uses this public key (SHA-256 of
 * the SubjectPublicKeyInfo), other than `device`, into `ret_device` (DEVICE_ID_MAX + 1; empty: the gateway's
 * own sub-CA asks upstream with it). -ENOENT: nobody.
 * Certificates that were revoked count too: a key is never shared. */
int certificate_key_owner(struct store *store, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES], const char *device,
                          char *ret_device);
/* Was a certificate of this public key revoked because the key is in other hands, whoever's it was? 1, 0. */
int certificate_key_is_compromised(struct store *store, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES]);
/* The newest certificate of the device that answered this CSR. -ENOENT. */
int certificate_by_csr(struct store *store, const char *device, const uint8_t csr[CERTIFICATE_DIGEST_BYTES],
                       struct certificate *ret);
/* The device's foreign certificate (IDevID), as first proven. -ENOENT. */
int certificate_idevid(struct store *store, const char *device, struct certificate *ret);
/* Forgets the device's IDevID (a technician's window lets another one in). 1; 0: it had none. */
int certificate_forget_idevid(struct store *store, const char *device);

typedef int (*certificate_visitor)(void *userdata, const struct certificate *certificate);
/* The revoked certificates of one CA generation that have not run out at `now`, by serial. A visitor's
 * non-zero result ends the walk and is returned. */
int certificate_each_revoked(struct store *store, uint32_t issuer, unix_sec now, certificate_visitor visit,
                             void *userdata);
/* How many certificates of a CA generation are neither revoked nor have run out at `now`. Cost: the days on
 * which they run out, not their number; `ret_last` (NULL allowed): the latest notAfter among them, left alone
 * where there is none. */
int64_t certificate_count(struct store *store, uint32_t issuer, unix_sec now, unix_sec *ret_last);
/* Removes rows that ran out before `before` and whose credential is gone; at most `limit`. Returns how many.
 * An IDevID stays as long as its device, a certificate whose key is compromised for good: nobody is to get
 * another for that key. */
int certificate_trim(struct store *store, unix_sec before, size_t limit);

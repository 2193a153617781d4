/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Enrolments that wait for the upstream CA: a row each, so that neither a power cut nor a year without
 * uplink loses one, and the identical request later gets the certificate. */

#include "store/certificates.h"

enum enrolment_state {
        ENROLMENT_WAITING, /* to be sent, or sent and not answered */
        ENROLMENT_ISSUED,  /* the certificate is there */
        ENROLMENT_REFUSED, /* upstream said no: http_status and reason */
};

struct enrolment {
        uint64_t number;                /* from 1; 0 before the insert */
        char device[DEVICE_ID_MAX + 1]; /* empty: the gateway's own sub-CA */
        bool is_renewal;                /* simplereenroll */
        uint8_t csr[CERTIFICATE_DIGEST_BYTES];
        uint8_t public_key[CERTIFICATE_DIGEST_BYTES]; /* SHA-256 of the CSR's SubjectPublicKeyInfo */
        char predecessor[DEVICE_ID_MAX + 1];          /* identity of the credential it was asked over */
        enum enrolment_state state;
        struct moment asked, answered;
        int64_t retry_powered_sec; /* not to be sent before (powered-on seconds) */
        uint16_t http_status;
        char reason[160];
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1]; /* once issued */
};

int enrolment_insert(struct store *store, struct enrolment *enrolment, struct bytes csr_der); /* sets number */
int enrolment_update(struct store *store, const struct enrolment *enrolment);
int enrolment_get(struct store *store, uint64_t number, struct enrolment *ret);
int enrolment_csr(struct store *store, uint64_t number, struct buffer *ret);
/* The latest of the device that has this public key (PoP linking changes the CSR, not the key). -ENOENT. */
int enrolment_find(struct store *store, const char *device, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES],
                   struct enrolment *ret);
/* Waiting ones that may be sent at `now_powered`, at most `max`: those that might have been sent for longest
 * first, of equals the oldest. Returns how many. */
ssize_t enrolment_due(struct store *store, int64_t now_powered, struct enrolment *ret, size_t max);
int64_t enrolment_count(struct store *store, enum enrolment_state state);
/* Answered ones older than `keep_sec` of powered-on time go. Returns how many, as the next one. */
int enrolment_trim(struct store *store, const struct moment *now, int64_t keep_sec);
int enrolment_remove_device(struct store *store, const char *device);

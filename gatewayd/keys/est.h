/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within keys/: one enrolment on its way through EST-coaps (RFC 9148), shared by the functions that sign a
 * device's own key (est_enrol.c) and those that make the key here (est_keygen.c). */

#include "gatewayd/exchange.h"
#include "gatewayd/keys/csr.h"
#include "gatewayd/keys/x509.h"

struct est_enrolment {
        const struct request *request;
        bool is_renewal; /* sren */
        bool is_keygen;  /* skg, skc */
        struct csr csr;
        bool has_csr;
        X509 *before;  /* the session's certificate, whose names the CSR may repeat; NULL: none */
        EVP_PKEY *key; /* made here; NULL: the CSR's is signed */
        struct certificate certificate;
        struct buffer der; /* the certificate, once there is one */
        char owner[DEVICE_ID_MAX +
                   1]; /* the other device whose key the CSR brought: for the audit, not for the asker */
};

/* For _cleanup_. */
void est_enrolment_free(struct est_enrolment *enrolment);

/* The body is 286; Accept, where there is one, is one of `formats` (the first is the default, FORMAT_NONE fills
 * up): *ret is the one to answer in. -EPROTONOSUPPORT with 4.15 or 4.06. */
int est_formats(const struct request *request, const int32_t formats[2], int32_t *ret, struct problem *problem);

/* Everything that can be said against it before anything is changed, in this order: may this session enrol at
 * all (4.03), is the CSR sound (4.00), are the names its own (4.03), is the key nobody else's (4.03), is it a
 * new one where it must be (4.03), and not too often (4.29). 0; 1: the identical CSR was answered before, and
 * certificate and DER are filled; or a negative errno with the problem. */
int est_examine(struct turn *turn, struct est_enrolment *enrolment, struct problem *problem);
/* Tells of an enrolment that est_examine() refused and makes the answer. A refusal comes before any change, so
 * the request does not fail by it: its savepoint would take the event along. */
int est_refuse(struct turn *turn, const struct est_enrolment *enrolment, int error, const struct problem *refused,
               struct reply *reply);
/* Gets the certificate, from the CA of this gateway or upstream's, and inserts the credential. 1: it is there;
 * 0: it waits, and `reply` says 5.03 and when to ask again; or a negative errno with the problem. */
int est_issue(struct turn *turn, struct est_enrolment *enrolment, struct reply *reply, struct problem *problem);
/* Appends the certificate in one of the formats 281 (alone in a certs-only message; the chain is in crts) and 287. */
int est_put_certificate(const struct est_enrolment *enrolment, int32_t format, struct buffer *to);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Requests of devices and their answers: the whole product in one table (exchange.c). */

#include "gatewayd/format.h"
#include "gatewayd/messages.h"
#include "gatewayd/problem.h"
#include "gatewayd/turn.h"
#include "store/certificates.h"

/* Who is asking: looked up anew for every request, so a revocation works at once. */
struct identity {
        session_handle session;
        struct device device;         /* as in the store now */
        struct credential credential; /* the one the session was made with, as in the store now */
        const struct profile *profile;
        bool has_forward_secrecy; /* of the session */
        /* A certificate session: what was shown. For an IDevID `issuer` is GENERATION_FOREIGN. */
        struct certificate certificate; /* fingerprint "" in a PSK session */
        uint8_t anchor[32];             /* an IDevID's: SHA-256 of the anchor it led to; zeros otherwise */
        bool is_expired;                /* certainly: the clock is never ahead of true time where it counts */
        struct bytes tls_unique;        /* RFC 5929 §3; empty: not known or worth nothing. Borrowed from the session */
};

struct request {
        const struct identity *from;
        uint8_t method;
        struct bytes path, query;
        int32_t content_format, accept;
        int32_t observe;
        struct bytes payload;
};

struct reply {
        uint8_t code;
        int32_t content_format; /* FORMAT_NONE */
        int64_t max_age_sec;    /* -1 */
        uint32_t size1;         /* 0 */
        bool is_observed;
        struct buffer payload;
};

/* A handler answers by filling `reply` and returning 0, or returns a negative errno with `problem`
 * set; its changes to the store are then rolled back. */
typedef int (*exchange_handler)(struct turn *turn, const struct request *request, struct reply *reply,
                                struct problem *problem);

/* What a resource is, for authorisation (lifecycle.h). */
enum resource {
        RESOURCE_CORE, /* /.well-known/core */
        RESOURCE_ME,
        RESOURCE_TIME,
        RESOURCE_CRED,
        RESOURCE_RATS,      /* /rats/… */
        RESOURCE_EST_CRTS,  /* /est/crts */
        RESOURCE_EST_ATT,   /* /est/att */
        RESOURCE_EST_ENROL, /* /est/sen, skg, skc */
        RESOURCE_EST_RENEW, /* /est/sren */
        RESOURCE_CRL,       /* /crl */
};

struct exchange_entry;

/* Finds the resource and asks lifecycle whether this identity may use it. 0 and the entry, or a negative
 * errno with `problem`: 4.04, 4.05, 4.03. Changes nothing. */
int exchange_authorise(struct turn *turn, const struct request *request, const struct exchange_entry **ret,
                       struct problem *problem);

/* Runs the handler in a savepoint of its own: an error leaves neither rows nor effects behind and becomes
 * problem details (RFC 9290). Never fails. */
void exchange_handle(struct turn *turn, const struct exchange_entry *entry, const struct request *request,
                     struct reply *reply);

/* 5.03 with Max-Age: nothing can be stored now, because of `error`. */
void problem_not_stored(struct problem *problem, int error);
/* The answer that stands for a problem. */
void reply_problem(struct reply *reply, const struct problem *problem);

/* The handlers. */
int handle_core_links(struct turn *, const struct request *, struct reply *, struct problem *); /* exchange.c */
int handle_time(struct turn *, const struct request *, struct reply *, struct problem *);       /* exchange.c */
int handle_cred(struct turn *, const struct request *, struct reply *, struct problem *);     /* devices/provision.c */
int handle_me(struct turn *, const struct request *, struct reply *, struct problem *);       /* devices/me.c */
int handle_nonce(struct turn *, const struct request *, struct reply *, struct problem *);    /* evidence/challenge.c */
int handle_evidence(struct turn *, const struct request *, struct reply *, struct problem *); /* evidence/attest.c */
int handle_result(struct turn *, const struct request *, struct reply *, struct problem *);   /* evidence/attest.c */
int handle_est_crts(struct turn *, const struct request *, struct reply *, struct problem *); /* keys/est.c */
int handle_est_att(struct turn *, const struct request *, struct reply *, struct problem *);  /* keys/est.c */
int handle_est_sen(struct turn *, const struct request *, struct reply *, struct problem *);  /* keys/est_enrol.c */
int handle_est_sren(struct turn *, const struct request *, struct reply *, struct problem *); /* keys/est_enrol.c */
int handle_est_skg(struct turn *, const struct request *, struct reply *, struct problem *);  /* keys/est_keygen.c */
int handle_est_skc(struct turn *, const struct request *, struct reply *, struct problem *);  /* keys/est_keygen.c */
int handle_crl(struct turn *, const struct request *, struct reply *, struct problem *);      /* keys/est.c */

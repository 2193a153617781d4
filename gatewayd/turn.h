/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One turn of the core: what domain code works with, and what it has decided that must not leave
 * before the barrier.
 *
 * Domain functions take a `struct turn *`: the store (inside a transaction), the configuration, and
 * the moment. What should happen outside the store they only write down here, as effects; core
 * carries them out after the barrier, or forgets them with the savepoint they belong to. */

#include "config/config.h"
#include "gatewayd/event.h"
#include "store/store.h"

enum effect_kind {
        EFFECT_EVENT,         /* write `event` to the journal */
        EFFECT_EVICT_KEY,     /* drop the sessions made with credential `kid` */
        EFFECT_EVICT_DEVICE,  /* drop all sessions of `device` */
        EFFECT_NOTIFY_ME,     /* /me of `device` may have changed: notify its observers */
        EFFECT_NOTIFY_RESULT, /* the same for /rats/result */
        EFFECT_RELAY,         /* there is a new record for north */
        EFFECT_ENROL,         /* there is a new enrolment for north */
        EFFECT_SERVER,        /* the server's certificate changed: to south */
        EFFECT_CRL,           /* write the CRLs for other services on the gateway */
        EFFECT_CLIENT,        /* the certificate shown upstream was renewed: to north */
        EFFECT_RESCHEDULE,    /* what every device's schedule follows from has changed: look at all of them */
};

struct effect {
        enum effect_kind kind;
        struct event event; /* device and kid are used by every kind */
};

struct custodian; /* evidence/evidence.h */
struct issuer;    /* keys/authority.h */

struct turn {
        struct store *store;
        const struct config *config;
        struct custodian *custodian; /* the open receipt key; NULL where no evidence is taken */
        struct issuer *issuer;       /* the CA's open keys; NULL where nothing is issued */
        bool is_upstream_away;       /* the owner's EST server is known to be out of reach now */
        struct moment now;
        unsigned *offers;  /* how many devices may still be called to work this second; NULL: as many as there are */
        const char *actor; /* who acts: "device", "schedule", "upstream", "uid 0"; for the audit table */
        struct effect *effects;
        size_t effect_count, effect_capacity;
};

/* Writes an event down: as an audit row in this transaction (for all kinds but the connection and
 * refusal chatter, see turn.c) and as an EFFECT_EVENT. Unset texts may be NULL. */
int turn_event(struct turn *turn, enum event_kind kind, const char *device, const char *kid, const char *reason_format,
               ...) _printf_(5, 6);
/* Any other effect; `device` or `kid` as the kind says. */
void turn_effect(struct turn *turn, enum effect_kind kind, const char *device, const char *kid);

/* A mark before a request, and the way back when its savepoint is rolled back. */
size_t turn_mark(const struct turn *turn);
void turn_rewind(struct turn *turn, size_t mark);
void turn_clear(struct turn *turn);
void turn_free(struct turn *turn);

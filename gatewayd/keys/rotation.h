/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Rotation: when an operational credential is due for its successor, and what may end when. Pure:
 * state and moment in, action out; no I/O, no clock, no globals. DESIGN.md's six rules. */

#include "config/config.h"
#include "gatewayd/clock.h"
#include "store/credentials.h"

enum rotation_action {
        ROTATION_NONE,
        ROTATION_ANNOUNCE,   /* due now: set the due bit, notify */
        ROTATION_DEACTIVATE, /* the predecessor named in the step: grace over, successor confirmed */
        ROTATION_WARN,       /* on_overdue comes nearer: `warning` of the step is to be told */
        ROTATION_OVERDUE,    /* the newest key is past max_age: on_overdue applies */
        ROTATION_DESTROY,    /* remove the row of an ended key after its retention */
};

struct rotation_view {
        const struct credential *credentials; /* of one device, newest generation first, without destroyed ones */
        size_t count;
        bool is_announced; /* the due bit is set already */
        bool is_overdue;   /* the standing already shows it */
        unsigned warned;   /* the last warning told (step.warning); 0: none */
        /* What operators have ordered for this device (store/orders.h: of its profile and of all, the sooner one).
         * A paused device is neither called nor punished: on_overdue waits as well. */
        struct moment asked;
        int64_t asked_within_sec;
        bool is_paused;
        struct due_time pause_end;
        bool is_held; /* no room to call another device now (pacing): what is due stays due, in its place in the queue */
        /* The newest active one's certificate: how long it is good for. Both 0: it is a PSK. */
        unix_sec tip_not_before, tip_not_after;
};

struct rotation_step {
        enum rotation_action action;
        size_t index;         /* of the credential meant, for DEACTIVATE, DROP, DESTROY */
        unsigned warning;     /* of WARN: counts up as the end comes nearer (14 d, 3 d, 1 d before, where max_age
                                 leaves so much after the key is due) */
        struct due_time next; /* with ROTATION_NONE: when to ask again */
};

/* Chooses the next step at `now`. A certificate is due at profile->renew_at of its life, or after rotate_every if
 * that is sooner: its CA may end before the profile's validity. Call again after carrying it out, until ROTATION_NONE.
 * `spread` 0..1: the device's share of profile->jitter. A credential is never deactivated while its
 * successor is unproven or unconfirmed. NIST SP 800-57 part 1 §7. */
struct rotation_step rotation_next(const struct rotation_view *view, const struct profile *profile, double spread,
                                   const struct moment *now);

/* Seconds until the newest active key is due / too late (negative: since). INT64_MAX where it does not apply. */
int64_t rotation_due_in(const struct rotation_view *view, const struct profile *profile, double spread,
                        const struct moment *now);
int64_t rotation_late_in(const struct rotation_view *view, const struct profile *profile, const struct moment *now);

/* An interval of the profile as this device sees it: shorter by its share of the jitter, at least a second. */
int64_t rotation_interval(int64_t interval_sec, const struct profile *profile, double spread);

/* The device's share of jitter: a hash of its id, 0 ≤ x < 1, the same on every gateway. */
double rotation_spread(const char *device_id);

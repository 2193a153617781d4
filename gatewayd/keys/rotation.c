/* SPDX-License-Identifier: Apache-2.0 */

/* Rotation of operational keys, PSKs and certificates: what is due, what may end. Pure: a device's credentials and a moment
 * in, one step out. schedule.c carries the steps out.
 *
 * Two ages count (DESIGN.md, Time). What merely asks a device to come (announce) takes whichever clock
 * says so first. What ends something takes calendar age only where the clock may be trusted, else
 * powered-on time alone, so that no clock jump can expire a fleet. */

#include "gatewayd/keys/rotation.h"

/* A grant that nobody took up is dropped after this. A device that comes back later is refused with it
 * and goes back to the key it asked with. */
#define UNPROVEN_KEEP_SEC (30 * INT64_C(86400))
/* The row of an ended key stays this long, in powered-on time, for whoever asks what became of it. */
#define ENDED_KEEP_SEC (90 * INT64_C(86400))
/* When calendar age has passed a limit but may not end anything now: look again this much later. */
#define DISTRUST_RETRY_SEC 3600

static int64_t add_capped(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t least(int64_t a, int64_t b) {
        return a < b ? a : b;
}

/* Something falls due `after_sec` after `then` by either clock. */
static void await_either(struct due_time *next, const struct moment *then, int64_t after_sec) {
        next->wall = least(next->wall, add_capped(then->wall, after_sec));
        next->powered_sec = least(next->powered_sec, add_capped(then->powered_sec, after_sec));
}

/* Something ends `after_sec` after `then`; by the calendar only where that counts. */
static void await_end(struct due_time *next, const struct moment *then, int64_t after_sec, const struct moment *now) {
        next->powered_sec = least(next->powered_sec, add_capped(then->powered_sec, after_sec));
        if (then->quality != CLOCK_UNKNOWN) {
                int64_t wall = add_capped(then->wall, after_sec);

                if (wall <= now->wall) /* reached, but not to be trusted now */
                        wall = add_capped(now->wall, DISTRUST_RETRY_SEC);
                next->wall = least(next->wall, wall);
        }
}

static const struct credential *find_tip(const struct rotation_view *view) {
        for (size_t i = 0; i < view->count; i++)
                if (credential_is_operational(view->credentials[i].kind) && view->credentials[i].state == KEY_ACTIVE)
                        return &view->credentials[i];
        return NULL;
}

/* Somebody was given a key over this one and has not shown it yet: should that key come to nothing,
 * this one is the way back. */
static bool is_awaited(const struct rotation_view *view, const struct credential *credential) {
        for (size_t i = 0; i < view->count; i++)
                if (view->credentials[i].state == KEY_PRE_ACTIVE &&
                    strcmp(view->credentials[i].predecessor, credential->identity) == 0)
                        return true;
        return false;
}

int64_t rotation_interval(int64_t interval_sec, const struct profile *profile, double spread) {
        double early = (double)interval_sec * profile->jitter * spread;
        int64_t interval = early < (double)interval_sec ? interval_sec - (int64_t)early : 0;

        return interval < 1 ? 1 : interval;
}

/* After how long the newest key is due, this device's share of the jitter aside. */
static int64_t tip_interval(const struct rotation_view *view, const struct credential *tip,
                            const struct profile *profile) {
        /* A certificate's backdating is no part of its life; where the clock that issued the row was behind the
         * CA's, the certificate's own beginning is the better one. */
        unix_sec begin = tip->issued.wall > view->tip_not_before ? tip->issued.wall : view->tip_not_before;
        double life;

        if (tip->kind != CREDENTIAL_LDEVID || view->tip_not_after == INT64_MAX || view->tip_not_after == 0)
                return profile->rotate_every_sec;
        if (view->tip_not_after <= begin)
                return 0;
        life = (double)(view->tip_not_after - begin) * profile->renew_at;
        return life < (double)profile->rotate_every_sec ? (int64_t)life : profile->rotate_every_sec;
}

/* A predecessor, or a compromised key whose device has recovered: may it end now? */
static bool may_end(const struct rotation_view *view, const struct credential *credential, const struct credential *tip,
                    const struct profile *profile, const struct moment *now, struct due_time *next) {
        bool is_past = credential->state == KEY_RETIRING || credential->state == KEY_COMPROMISED;

        if (!is_past || !moment_is_set(&credential->superseded))
                return false;
        if (!tip || !moment_is_set(&tip->confirmed) || is_awaited(view, credential))
                return false; /* another event, not time, opens this */
        if (moment_age(now, &credential->superseded) >= profile->grace_sec)
                return true;
        await_end(next, &credential->superseded, profile->grace_sec, now);
        return false;
}

static int64_t unproven_keep(const struct profile *profile) {
        return least(UNPROVEN_KEEP_SEC, profile->max_age_sec);
}

static enum rotation_action credential_action(const struct rotation_view *view, const struct credential *credential,
                                              const struct credential *tip, const struct profile *profile,
                                              const struct moment *now, struct due_time *next) {
        switch (credential->state) {
        case KEY_PRE_ACTIVE:
                if (moment_age(now, &credential->issued) >= unproven_keep(profile))
                        return ROTATION_DROP;
                await_end(next, &credential->issued, unproven_keep(profile), now);
                return ROTATION_NONE;
        case KEY_RETIRING:
        case KEY_COMPROMISED:
                return may_end(view, credential, tip, profile, now, next) ? ROTATION_DEACTIVATE : ROTATION_NONE;
        case KEY_DEACTIVATED:
                if (credential_is_bootstrap(credential->kind))
                        return ROTATION_NONE;
                if (moment_powered_age(now, &credential->ended) >= ENDED_KEEP_SEC)
                        return ROTATION_DESTROY;
                next->powered_sec = least(next->powered_sec, add_capped(credential->ended.powered_sec, ENDED_KEEP_SEC));
                return ROTATION_NONE;
        case KEY_ACTIVE:
        case KEY_DESTROYED:
                return ROTATION_NONE;
        }
        return ROTATION_NONE;
}

struct rotation_step rotation_next(const struct rotation_view *view, const struct profile *profile, double spread,
                                   const struct moment *now) {
        struct rotation_step step = { .next = { INT64_MAX, INT64_MAX } };
        const struct credential *tip = find_tip(view);

        for (size_t i = 0; i < view->count; i++) {
                step.action = credential_action(view, &view->credentials[i], tip, profile, now, &step.next);
                if (step.action != ROTATION_NONE) {
                        step.index = i;
                        return step;
                }
        }
        if (!tip)
                return step;
        if (!view->is_overdue) {
                if (moment_age(now, &tip->issued) >= profile->max_age_sec) {
                        step.action = ROTATION_OVERDUE;
                        return step;
                }
                await_end(&step.next, &tip->issued, profile->max_age_sec, now);
        }
        if (!view->is_announced) {
                if (rotation_due_in(view, profile, spread, now) <= 0) {
                        step.action = ROTATION_ANNOUNCE;
                        return step;
                }
                await_either(&step.next, &tip->issued,
                             rotation_interval(tip_interval(view, tip, profile), profile, spread));
        }
        return step;
}

int64_t rotation_due_in(const struct rotation_view *view, const struct profile *profile, double spread,
                        const struct moment *now) {
        const struct credential *tip = find_tip(view);
        struct due_time due = { INT64_MAX, INT64_MAX };

        if (!tip)
                return INT64_MAX;
        await_either(&due, &tip->issued, rotation_interval(tip_interval(view, tip, profile), profile, spread));
        return least(due.wall - now->wall, due.powered_sec - now->powered_sec);
}

int64_t rotation_late_in(const struct rotation_view *view, const struct profile *profile, const struct moment *now) {
        const struct credential *tip = find_tip(view);

        if (!tip || profile->on_overdue == OVERDUE_KEEP)
                return INT64_MAX;
        return add_capped(profile->max_age_sec, -moment_age(now, &tip->issued));
}

/* FNV-1a, then a finalizer: ids that differ in one digit must not come one after the other. */
double rotation_spread(const char *device_id) {
        uint64_t hash = UINT64_C(0xcbf29ce484222325);

        for (const char *p = device_id; *p != '\0'; p++)
                hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
        hash = (hash ^ (hash >> 33)) * UINT64_C(0xff51afd7ed558ccd);
        hash = (hash ^ (hash >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
        hash ^= hash >> 33;
        return (double)(hash >> 11) / (double)(UINT64_C(1) << 53);
}

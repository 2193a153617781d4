/* SPDX-License-Identifier: Apache-2.0 */

/* Rotation of operational keys, PSKs and certificates: what is due, what may end. Pure: a device's credentials and a moment
 * in, one step out. schedule.c carries the steps out.
 *
 * Two ages count (DESIGN.md, Time). What merely asks a device to come (announce) takes whichever clock
 * says so first. What ends something takes calendar age only where the clock may be trusted, else
 * powered-on time alone, so that no clock jump can expire a fleet. */

#include "gatewayd/keys/rotation_due.h"

/* The row of an ended key stays this long, in powered-on time, for whoever asks what became of it. */
#define ENDED_KEEP_SEC (90 * INT64_C(86400))
/* When calendar age has passed a limit but may not end anything now: look again this much later. */
#define DISTRUST_RETRY_SEC 3600

/* Something ends `after_sec` after `then`; by the calendar only where that counts. */
static void await_end(struct due_time *next, const struct moment *then, int64_t after_sec, const struct moment *now) {
        next->powered_sec = rotation_least(next->powered_sec, rotation_add(then->powered_sec, after_sec));
        if (then->quality != CLOCK_UNKNOWN) {
                int64_t wall = rotation_add(then->wall, after_sec);

                if (wall <= now->wall) /* reached, but not to be trusted now */
                        wall = rotation_add(now->wall, DISTRUST_RETRY_SEC);
                next->wall = rotation_least(next->wall, wall);
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

static enum rotation_action credential_action(const struct rotation_view *view, const struct credential *credential,
                                              const struct credential *tip, const struct profile *profile,
                                              const struct moment *now, struct due_time *next) {
        switch (credential->state) {
        case KEY_RETIRING:
        case KEY_COMPROMISED:
                return may_end(view, credential, tip, profile, now, next) ? ROTATION_DEACTIVATE : ROTATION_NONE;
        case KEY_DEACTIVATED:
                if (credential_is_bootstrap(credential->kind))
                        return ROTATION_NONE;
                if (moment_powered_age(now, &credential->ended) >= ENDED_KEEP_SEC)
                        return ROTATION_DESTROY;
                next->powered_sec =
                        rotation_least(next->powered_sec, rotation_add(credential->ended.powered_sec, ENDED_KEEP_SEC));
                return ROTATION_NONE;
        case KEY_PRE_ACTIVE:
                /* Ends by the proof of a sibling, never by its age: its device may hold it for proven, where core died
                 * before it could note the handshake, or the gateway was restored from a backup of that time. */
        case KEY_ACTIVE:
        case KEY_DESTROYED:
                return ROTATION_NONE;
        }
        return ROTATION_NONE;
}

/* on_overdue is told beforehand, so long before. Warning 1 is the first. */
static const int64_t warnings_sec[] = { 14 * INT64_C(86400), 3 * INT64_C(86400), INT64_C(86400) };

/* Warnings that would come before the key is even due tell nothing. */
static bool is_warning_of(const struct rotation_view *view, const struct credential *tip, const struct profile *profile,
                          double spread, unsigned warning) {
        struct due_time due = rotation_tip_due(view, tip, profile, spread);
        int64_t interval = rotation_least(due.wall - tip->issued.wall, due.powered_sec - tip->issued.powered_sec);

        return rotation_add(interval, warnings_sec[warning - 1]) < profile->max_age_sec;
}

/* The last warning that is due and was not told, 0: none; when the next one is goes to `next`. */
static unsigned warning_due(const struct rotation_view *view, const struct credential *tip,
                            const struct profile *profile, double spread, const struct moment *now,
                            struct due_time *next) {
        int64_t left = profile->max_age_sec - moment_age(now, &tip->issued);
        unsigned found = 0;

        if (profile->on_overdue == OVERDUE_KEEP)
                return 0;
        for (unsigned warning = view->warned + 1; warning <= ELEMENTS(warnings_sec); warning++) {
                if (!is_warning_of(view, tip, profile, spread, warning))
                        continue;
                if (left > warnings_sec[warning - 1]) {
                        await_end(next, &tip->issued, profile->max_age_sec - warnings_sec[warning - 1], now);
                        break;
                }
                found = warning;
        }
        return found;
}

/* What max_age demands of the newest key; NONE while that is far. */
static enum rotation_action age_action(const struct rotation_view *view, const struct credential *tip,
                                       const struct profile *profile, double spread, const struct moment *now,
                                       struct rotation_step *step) {
        if (view->is_overdue || view->is_paused)
                return ROTATION_NONE;
        if (moment_age(now, &tip->issued) >= profile->max_age_sec)
                return ROTATION_OVERDUE;
        await_end(&step->next, &tip->issued, profile->max_age_sec, now);
        step->warning = warning_due(view, tip, profile, spread, now, &step->next);
        return step->warning > 0 ? ROTATION_WARN : ROTATION_NONE;
}

/* A window is waited for, unless max_age would pass meanwhile, or an operator wants it regardless. */
static bool must_wait_for_window(const struct rotation_view *view, const struct credential *tip,
                                 const struct profile *profile, const struct moment *now, unix_sec *ret_opens) {
        int64_t left;

        if (rotation_is_ordered(view, tip) || rotation_window_is_open(profile, now, ret_opens))
                return false;
        left = rotation_late_in(view, profile, now);
        return left == INT64_MAX || rotation_add(now->wall, left) > rotation_add(*ret_opens, profile->maintenance_sec);
}

/* Whether to call the device now; else `next` says when to ask again. */
static bool may_call(const struct rotation_view *view, const struct credential *tip, const struct profile *profile,
                     double spread, const struct moment *now, struct due_time *next) {
        struct due_time due = rotation_tip_due(view, tip, profile, spread);
        unix_sec opens;

        if (view->is_announced)
                return false;
        if (now->wall < due.wall && now->powered_sec < due.powered_sec) {
                next->wall = rotation_least(next->wall, due.wall);
                next->powered_sec = rotation_least(next->powered_sec, due.powered_sec);
                return false;
        }
        if (view->is_paused) {
                next->wall = rotation_least(next->wall, view->pause_end.wall);
                next->powered_sec = rotation_least(next->powered_sec, view->pause_end.powered_sec);
                return false;
        }
        if (must_wait_for_window(view, tip, profile, now, &opens)) {
                next->wall = rotation_least(next->wall, opens);
                return false;
        }
        if (!view->is_held)
                return true;
        next->wall = rotation_least(next->wall, due.wall); /* its place in the queue */
        next->powered_sec = rotation_least(next->powered_sec, due.powered_sec);
        return false;
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
        step.action = age_action(view, tip, profile, spread, now, &step);
        if (step.action == ROTATION_NONE && may_call(view, tip, profile, spread, now, &step.next))
                step.action = ROTATION_ANNOUNCE;
        return step;
}

int64_t rotation_due_in(const struct rotation_view *view, const struct profile *profile, double spread,
                        const struct moment *now) {
        const struct credential *tip = find_tip(view);
        struct due_time due;
        unix_sec opens;
        int64_t left;

        if (!tip)
                return INT64_MAX;
        due = rotation_tip_due(view, tip, profile, spread);
        left = rotation_least(due.wall - now->wall, due.powered_sec - now->powered_sec);
        if (view->is_announced || left > 0)
                return left;
        if (view->is_paused)
                return rotation_least(view->pause_end.wall - now->wall, view->pause_end.powered_sec - now->powered_sec);
        return must_wait_for_window(view, tip, profile, now, &opens) ? opens - now->wall : left;
}

int64_t rotation_late_in(const struct rotation_view *view, const struct profile *profile, const struct moment *now) {
        const struct credential *tip = find_tip(view);

        if (!tip || profile->on_overdue == OVERDUE_KEEP)
                return INT64_MAX;
        return rotation_add(profile->max_age_sec, -moment_age(now, &tip->issued));
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

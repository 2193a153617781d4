/* SPDX-License-Identifier: Apache-2.0 */

/* When a key is due. Due is a point in calendar time and one in powered-on time, and whichever has passed counts:
 * both are worked out from the key's issue and never from `now`, so that no step of a clock can jump over one. */

#include "gatewayd/keys/rotation_due.h"

/* What merely asks a device to come takes the earlier of both clocks. */
static void await_either(struct due_time *next, const struct moment *then, int64_t after_sec) {
        next->wall = rotation_least(next->wall, rotation_add(then->wall, after_sec));
        next->powered_sec = rotation_least(next->powered_sec, rotation_add(then->powered_sec, after_sec));
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

bool rotation_is_ordered(const struct rotation_view *view, const struct credential *tip) {
        /* Of the same second: it may be the very answer to the order. */
        return moment_is_set(&view->asked) && tip->issued.powered_sec < view->asked.powered_sec;
}

struct due_time rotation_tip_due(const struct rotation_view *view, const struct credential *tip,
                                 const struct profile *profile, double spread) {
        struct due_time due = { INT64_MAX, INT64_MAX };

        await_either(&due, &tip->issued, rotation_interval(tip_interval(view, tip, profile), profile, spread));
        /* A date that follows from an unknown one means nothing; the interval stands in. No jitter here: people
         * chose the moment, and the pace spreads those who share it. */
        if (profile->rotate_at && tip->issued.quality != CLOCK_UNKNOWN)
                due.wall = rotation_least(due.wall, calendar_next(profile->rotate_at, tip->issued.wall));
        if (rotation_is_ordered(view, tip))
                await_either(&due, &view->asked, (int64_t)((double)view->asked_within_sec * spread));
        return due;
}

bool rotation_window_is_open(const struct profile *profile, const struct moment *now, unix_sec *ret_opens) {
        unix_sec began;

        /* Nobody knows what time of day it is: a window that might never be met must not hold anything back. */
        if (!profile->maintenance || now->quality == CLOCK_UNKNOWN)
                return true;
        began = calendar_next(profile->maintenance, now->wall - profile->maintenance_sec);
        if (began <= now->wall)
                return true;
        *ret_opens = began;
        return began == INT64_MAX; /* it never comes again */
}

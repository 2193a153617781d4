/* SPDX-License-Identifier: Apache-2.0 */

/* The tick: takes the devices that are due from the index, carries out what rotation.c and the
 * attestation interval say, and writes when each needs the next look. Cost O(due). */

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/devices/orders.h"
#include "gatewayd/devices/steps.h"
#include "gatewayd/keys/authority.h"

/* A quarantined device is asked for evidence this often: that is its way out. */
#define QUARANTINE_ATTEST_SEC 3600
/* A device that could not be looked at (its profile is missing, its rows cannot be read) is tried again. */
#define RETRY_SEC 3600

static const struct due_time never = { INT64_MAX, INT64_MAX };

static int64_t add_capped(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t least(int64_t a, int64_t b) {
        return a < b ? a : b;
}

static struct due_time due_after(const struct moment *then, int64_t after_sec) {
        return (struct due_time){ add_capped(then->wall, after_sec), add_capped(then->powered_sec, after_sec) };
}

static void due_least(struct due_time *due, const struct due_time *other) {
        due->wall = least(due->wall, other->wall);
        due->powered_sec = least(due->powered_sec, other->powered_sec);
}

/* ---- pace ----
 *
 * A device is called, to rotate or to attest, at the cost of one of the turn's offers. Where there is none left it
 * stays due, in its place in the queue. */

static bool is_held(const struct turn *turn) {
        return turn->offers && *turn->offers == 0;
}

static void take_offer(struct turn *turn) {
        if (turn->offers && *turn->offers > 0)
                --*turn->offers;
}

/* ---- attestation ----
 *
 * What counts is evidence that was judged, here or upstream: what nobody can judge would otherwise keep a
 * device from ever having to show what runs on it. */

static int64_t attest_interval(const struct device *device, const struct profile *profile) {
        int64_t interval = rotation_interval(profile->attest_every_sec, profile, rotation_spread(device->id));

        return device->standing == STANDING_QUARANTINED ? least(interval, QUARANTINE_ATTEST_SEC) : interval;
}

/* Something happened that only evidence given since answers. */
static bool is_owed_evidence(const struct device *device, const struct profile *profile) {
        int64_t last = device->appraised.powered_sec;

        if (!moment_is_set(&device->appraised))
                return true;
        if (device->is_conflicted && profile->on_conflict == CONFLICT_ATTEST && device->conflicted.powered_sec >= last)
                return true;
        return device->is_compromised && device->compromised.powered_sec >= last;
}

/* Seconds until evidence is due, by whichever clock says so first; INT64_MAX: never. */
static int64_t attest_in(const struct device *device, const struct profile *profile, const struct moment *now,
                         struct due_time *ret_due) {
        *ret_due = never;
        if (!lifecycle_can_attest(device, profile) || profile->attest_every_sec <= 0)
                return INT64_MAX;
        if (is_owed_evidence(device, profile))
                return 0;
        *ret_due = due_after(&device->appraised, attest_interval(device, profile));
        return least(ret_due->wall - now->wall, ret_due->powered_sec - now->powered_sec);
}

/* One whole interval was missed. Only ever told: what a device may do depends on its keys. */
static int look_late(struct turn *turn, struct device *device, const struct profile *profile,
                     const struct credential *tip, struct due_time *next) {
        const struct moment *since = moment_is_set(&device->appraised) ? &device->appraised : &tip->proven;
        int64_t limit = add_capped(profile->attest_every_sec, profile->attest_every_sec);
        struct due_time due = { INT64_MAX, add_capped(since->powered_sec, limit) };

        if (moment_age(&turn->now, since) < limit) {
                device->due &= ~DUE_ATTEST_LATE_TOLD;
                if (turn->now.wall_trusted && since->quality != CLOCK_UNKNOWN)
                        due.wall = add_capped(since->wall, limit);
                due_least(next, &due);
                return 0;
        }
        if (device->due & DUE_ATTEST_LATE_TOLD)
                return 0;
        device->due |= DUE_ATTEST_LATE_TOLD;
        return turn_event(turn, EVENT_ATTESTATION_OVERDUE, device->id, NULL, "no evidence for %lld days",
                          (long long)(moment_age(&turn->now, since) / 86400));
}

static int look_attestation(struct turn *turn, struct device *device, const struct profile *profile,
                            struct keyring *keyring, struct due_time *next) {
        const struct credential *tip = keyring_tip(keyring);
        struct due_time due;

        if (attest_in(device, profile, &turn->now, &due) > 0) {
                device->due &= ~(uint32_t)DUE_ATTEST;
                due_least(next, &due);
        } else if (!(device->due & DUE_ATTEST) && is_held(turn))
                due_least(next, due.powered_sec < INT64_MAX ? &due : &(struct due_time){ turn->now.wall, INT64_MAX });
        else {
                if (!(device->due & (DUE_ATTEST | DUE_ROTATE)))
                        take_offer(turn);
                device->due |= DUE_ATTEST;
        }
        if (!tip || !lifecycle_can_attest(device, profile) || profile->attest_every_sec <= 0)
                return 0;
        return look_late(turn, device, profile, tip, next);
}

/* ---- rotation ---- */

static int become_overdue(struct turn *turn, struct device *device, const struct profile *profile) {
        enum standing standing = device->standing;
        int r;

        device->due |= DUE_OVERDUE_TOLD;
        r = turn_event(turn, EVENT_ROTATION_OVERDUE, device->id, NULL, "its newest key is older than max_age; %s",
                       on_overdue_name(profile->on_overdue));
        if (r < 0)
                return r;
        if (profile->on_overdue == OVERDUE_RESTRICT && standing == STANDING_OPERATIONAL)
                standing = STANDING_RESTRICTED;
        else if (profile->on_overdue == OVERDUE_QUARANTINE &&
                 (standing == STANDING_OPERATIONAL || standing == STANDING_RESTRICTED))
                standing = STANDING_QUARANTINED;
        r = step_standing(turn, device, standing, "rotation overdue");
        return r < 0 ? r : 0;
}

/* Evidence has lifted the quarantine, but the key is still overdue: renewal only. */
static int stay_restricted(struct turn *turn, struct device *device, const struct profile *profile,
                           const struct rotation_view *view) {
        int r;

        if (!view->is_overdue || device->standing != STANDING_OPERATIONAL || device->due & DUE_OVERDUE_RELEASED ||
            rotation_late_in(view, profile, &turn->now) > 0)
                return 0;
        r = step_standing(turn, device, STANDING_RESTRICTED, "its newest key is still older than max_age");
        return r < 0 ? r : 0;
}

/* "will be restricted in 14 d": said while there is time to look after it. */
static int warn(struct turn *turn, struct device *device, const struct profile *profile, const struct credential *tip,
                unsigned warning) {
        int64_t left = profile->max_age_sec - moment_age(&turn->now, &tip->issued);

        device->due = (device->due & ~DUE_WARNED) | warning << DUE_WARNED_SHIFT;
        return turn_event(turn, EVENT_ROTATION_WARNING, device->id, tip->identity,
                          "it will be %s in %lld d unless it rotates",
                          profile->on_overdue == OVERDUE_QUARANTINE ? "quarantined" : "restricted",
                          (long long)((left + 86399) / 86400));
}

/* Carries out one step; a credential whose row is gone leaves the keyring. */
static int carry_out(struct turn *turn, struct device *device, const struct profile *profile, struct keyring *keyring,
                     const struct rotation_step *step) {
        struct credential *credential = &keyring->list[step->index];
        int r;

        switch (step->action) {
        case ROTATION_NONE:
                return 0;
        case ROTATION_WARN:
                return warn(turn, device, profile, keyring_tip(keyring), step->warning);
        case ROTATION_ANNOUNCE:
                if (!(device->due & DUE_ATTEST))
                        take_offer(turn);
                device->due |= DUE_ROTATE;
                return turn_event(turn, EVENT_ROTATION_DUE, device->id, NULL, "the interval of profile %s is over",
                                  profile->name);
        case ROTATION_OVERDUE:
                return become_overdue(turn, device, profile);
        case ROTATION_DEACTIVATE:
                return step_deactivate(turn, credential, "its successor is confirmed and the grace is over");
        case ROTATION_DESTROY:
                r = step_destroy(turn, credential, "ended long ago");
                break;
        default:
                return -EINVAL;
        }
        if (r < 0)
                return r;
        keyring->count--;
        memmove(credential, credential + 1, (keyring->count - step->index) * sizeof *credential);
        return 0;
}

static int look_rotation(struct turn *turn, struct device *device, const struct profile *profile,
                         struct keyring *keyring, struct due_time *next) {
        /* Every step ends its own condition, so this ends; the bound only guards against a mistake. */
        for (int i = 0; i < 4 * CREDENTIALS_MAX; i++) {
                struct rotation_step step;
                struct rotation_view view;
                int r;

                r = keyring_view(turn, keyring, &view);
                if (r < 0)
                        return r;
                view.is_announced = device->due & DUE_ROTATE;
                view.is_overdue = device->due & DUE_OVERDUE_TOLD;
                view.warned = (device->due & DUE_WARNED) >> DUE_WARNED_SHIFT;
                view.is_held = is_held(turn);
                r = orders_view(turn, profile->name, rotation_spread(device->id), &view);
                if (r < 0)
                        return r;
                step = rotation_next(&view, profile, rotation_spread(device->id), &turn->now);
                if (step.action == ROTATION_NONE) {
                        due_least(next, &step.next);
                        return stay_restricted(turn, device, profile, &view);
                }
                r = carry_out(turn, device, profile, keyring, &step);
                if (r < 0)
                        return r;
        }
        return -ELOOP;
}

/* ---- trust anchors ---- */

/* There is a generation of the CA that the device has not fetched yet. 1, 0, or an error. */
static int owes_anchors(struct turn *turn, const struct device *device, const struct profile *profile) {
        int64_t newest;

        if (profile->credential != PROFILE_CERTIFICATE)
                return 0;
        newest = authority_newest(turn);
        return newest < 0 ? (int)newest : device->anchors < newest;
}

static int look_anchors(struct turn *turn, struct device *device, const struct profile *profile) {
        int owes = owes_anchors(turn, device, profile);

        if (owes < 0)
                return owes;
        device->due &= ~(uint32_t)DUE_ANCHORS;
        if (owes)
                device->due |= DUE_ANCHORS;
        return 0;
}

/* ---- one device ---- */

int schedule_device(struct turn *turn, struct device *device) {
        const struct profile *profile = config_profile(turn->config, device->profile);
        const struct device before = *device;
        struct due_time next = never;
        struct keyring keyring;
        int r;

        if (device->standing == STANDING_REVOKED)
                return schedule_set(turn->store, device->id, &next);
        if (!profile) {
                next = due_after(&turn->now, RETRY_SEC);
                return schedule_set(turn->store, device->id, &next);
        }
        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        r = look_rotation(turn, device, profile, &keyring, &next);
        if (r < 0)
                return r;
        r = look_attestation(turn, device, profile, &keyring, &next);
        if (r < 0)
                return r;
        r = look_anchors(turn, device, profile);
        if (r < 0)
                return r;
        if ((device->due ^ before.due) & DUE_PUBLIC)
                turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
        if (device->due != before.due || device->standing != before.standing) {
                r = device_update(turn->store, device);
                if (r < 0)
                        return r;
        }
        return schedule_set(turn->store, device->id, &next);
}

/* A device that asks while it waits for its call takes a place of this second; where there is none it comes again
 * within a minute, not all at the same moment. */
static void pace_outlook(struct turn *turn, const struct device *device, bool has_key, struct outlook *outlook) {
        bool waits_to_rotate = has_key && outlook->rotate_in_sec <= 0 && !(device->due & DUE_ROTATE);
        bool waits_to_attest = outlook->attest_in_sec <= 0 && !(device->due & DUE_ATTEST);
        int64_t later = 10 + (int64_t)(50 * rotation_spread(device->id));

        if (!waits_to_rotate && !waits_to_attest)
                return;
        if (!is_held(turn)) {
                take_offer(turn);
                return;
        }
        if (waits_to_rotate)
                outlook->rotate_in_sec = later;
        if (waits_to_attest)
                outlook->attest_in_sec = later;
}

int schedule_outlook(struct turn *turn, const struct device *device, struct outlook *ret) {
        const struct profile *profile = config_profile(turn->config, device->profile);
        struct due_time due;
        struct keyring keyring;
        struct rotation_view view;
        int owes, r;

        *ret = (struct outlook){ INT64_MAX, INT64_MAX, INT64_MAX, 0 };
        if (!profile)
                return 0;
        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        r = keyring_view(turn, &keyring, &view);
        if (r < 0)
                return r;
        view.is_announced = device->due & DUE_ROTATE;
        r = orders_view(turn, profile->name, rotation_spread(device->id), &view);
        if (r < 0)
                return r;
        owes = owes_anchors(turn, device, profile);
        if (owes < 0)
                return owes;
        ret->attest_in_sec = attest_in(device, profile, &turn->now, &due);
        ret->late_in_sec = rotation_late_in(&view, profile, &turn->now);
        if (keyring_tip(&keyring))
                ret->rotate_in_sec = rotation_due_in(&view, profile, rotation_spread(device->id), &turn->now);
        else if (device->standing != STANDING_NEEDS_VISIT)
                ret->rotate_in_sec = 0; /* it has the factory key alone, or its keys are compromised */
        if (device->due & DUE_ROTATE && ret->rotate_in_sec > 0)
                ret->rotate_in_sec = 0;

        pace_outlook(turn, device, keyring_tip(&keyring) != NULL, ret);
        if (ret->attest_in_sec <= 0)
                ret->due |= DUE_ATTEST;
        /* Where /cred is closed to the whole device, the way out is evidence, or an operator. */
        if (ret->rotate_in_sec <= 0 && device->standing != STANDING_QUARANTINED &&
            device->standing != STANDING_NEEDS_VISIT)
                ret->due |= DUE_ROTATE;
        if (owes)
                ret->due |= DUE_ANCHORS;
        return 0;
}

/* ---- what other answers tell ---- */

/* As in /me, so that a device needs to know one key alone. */
#define CALLED_KEY 6

uint32_t schedule_called(const struct device *device) {
        uint32_t called = device->due & DUE_PUBLIC;

        if (device->standing == STANDING_QUARANTINED || device->standing == STANDING_NEEDS_VISIT)
                called &= ~(uint32_t)DUE_ROTATE; /* /cred is closed to it */
        return called;
}

size_t schedule_called_members(uint32_t called) {
        return called != 0;
}

void schedule_called_put(uint32_t called, struct buffer *to) {
        if (called == 0)
                return;
        cbor_put_uint(to, CALLED_KEY);
        cbor_put_uint(to, called);
}

/* ---- the tick ---- */

/* One device's trouble must not hold up the others: its changes are taken back and it is tried later. Only
 * what is wrong with the store itself ends the tick. */
static int tick_device(struct turn *turn, const char *id) {
        const struct due_time later = due_after(&turn->now, RETRY_SEC);
        size_t mark = turn_mark(turn);
        struct device device;
        int r;

        r = store_savepoint(turn->store);
        if (r < 0)
                return r;
        r = device_get(turn->store, bytes_of(id), &device);
        if (r >= 0)
                r = schedule_device(turn, &device);
        if (r >= 0)
                return store_savepoint_release(turn->store);
        turn_rewind(turn, mark);
        if (store_savepoint_rollback(turn->store) < 0 || store_error_passes(r) || r == -EIO)
                return r;
        return schedule_set(turn->store, id, r == -ENOENT ? &never : &later);
}

int schedule_tick(struct turn *turn, size_t limit) {
        _cleanup_(freep) char(*ids)[DEVICE_ID_MAX + 1] = xcalloc(limit, DEVICE_ID_MAX + 1);
        ssize_t n;
        int r;

        r = orders_tick(turn);
        if (r < 0)
                return r;
        n = schedule_due(turn->store, &turn->now, limit, ids);
        if (n < 0)
                return (int)n;
        for (ssize_t i = 0; i < n; i++) {
                r = tick_device(turn, ids[i]);
                if (r < 0)
                        return r;
        }
        return (int)n;
}

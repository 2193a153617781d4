/* SPDX-License-Identifier: Apache-2.0 */

/* The tick: what core does because time passes. A second after something has changed, and then ever less often
 * until the next thing is due: an idle gateway sleeps. How many devices the schedule may call in a second is
 * counted here too, so that an outage that made a whole fleet due does not make it come at once. */

#include <errno.h>
#include <time.h>

#include "gatewayd/core.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/own_keys.h"
#include "store/audit.h"
#include "store/certificates.h"
#include "store/evidence.h"

#define SEC_USEC UINT64_C(1000000)
#ifdef GATEWAYD_TESTCLOCK
#define TICK_USEC (SEC_USEC / 50) /* a test moves the clock by a day at a time and does not wait */
#define IDLE_USEC TICK_USEC
#else
#define TICK_USEC SEC_USEC
/* A step of the clock is seen after so long at the latest; what it made due is due still. */
#define IDLE_USEC (10 * SEC_USEC)
#endif
/* How many devices one tick looks at, whatever the pace. */
#define TICK_DEVICES       256
#define RESCHEDULE_DEVICES 256
#define CLOCK_RECORD_SEC   600
#define HOUSEKEEPING_SEC   3600
#define OWN_KEYS_RETRY_SEC 60
#define HOUSE_CERTIFICATES 1000 /* that have run out and are removed at a time */

/* ---- pace ---- */

/* By whichever clock says that more time has passed since the first look: a test moves one of them. Since the first,
 * not since the last: one counts whole seconds, and the greater of many small differences would be more than either. */
void core_tick_offer(struct core *core) {
        struct core_pace *pace = &core->pace;
        double most = core->config->offers_per_second, elapsed, powered;
        uint64_t now = core_monotonic_usec();

        if (pace->began_usec == 0) {
                pace->began_usec = now;
                pace->began_powered = core->turn.now.powered_sec;
                pace->offers = most;
        }
        elapsed = (double)(now - pace->began_usec) / (double)SEC_USEC;
        powered = (double)(core->turn.now.powered_sec - pace->began_powered);
        if (powered > elapsed)
                elapsed = powered;
        pace->offers += most * (elapsed - pace->elapsed_sec);
        pace->elapsed_sec = elapsed;
        if (pace->offers > most)
                pace->offers = most;
        pace->left = (unsigned)pace->offers;
        core->turn.offers = &pace->left;
}

void core_tick_taken(struct core *core) {
        struct core_pace *pace = &core->pace;
        unsigned had = (unsigned)pace->offers;

        if (pace->left < had)
                pace->offers -= had - pace->left;
        pace->left = (unsigned)pace->offers;
}

/* ---- all devices anew ---- */

static int reschedule_one(void *userdata, const struct device *device) {
        struct core *core = userdata;
        struct device copy = *device;

        snprintf(core->reschedule_after, sizeof core->reschedule_after, "%s", device->id);
        return schedule_device(&core->turn, &copy);
}

static void reschedule_some(struct core *core) {
        char from[DEVICE_ID_MAX + 1];
        int r;

        memcpy(from, core->reschedule_after, sizeof from);
        r = device_each(core->store, from, RESCHEDULE_DEVICES, reschedule_one, core);
        if (r < 0)
                journal_line(3, "core: devices could not be scheduled anew: %s", strerror(-r));
        if (r < 0 || strcmp(from, core->reschedule_after) == 0)
                core->is_rescheduling = false;
}

void core_tick_all(struct core *core) {
        core->is_rescheduling = true;
        core->reschedule_after[0] = 0;
        core_tick_soon(core);
}

/* ---- housekeeping ---- */

static void keep_house(struct core *core) {
        const struct moment *now = &core->turn.now;
        int r;

        core->housekept = now->powered_sec;
        r = challenge_expire(core->store, now, 86400);
        if (r >= 0 && core->config->audit_keep_sec > 0)
                r = audit_trim(core->store, now, core->config->audit_keep_sec);
        if (r >= 0 && now->wall_trusted)
                r = certificate_trim(core->store, now->wall, HOUSE_CERTIFICATES);
        if (r < 0)
                journal_line(3, "core: old rows could not be cleared: %s", strerror(-r));
}

/* ---- the gateway's own keys ---- */

/* Looked at whenever there is a tick, since what was done last time may have been dropped with its turn. */
static void look_at_own_keys(struct core *core) {
        int64_t now = core->turn.now.powered_sec;
        int r;

        if (now < core->own_keys_retry)
                return;
        r = own_keys_tick(&core->turn, &core->own_keys_next);
        if (r >= 0)
                return;
        journal_line(3, "core: what is due of the gateway's own keys could not be done: %s", strerror(-r));
        core->own_keys_retry = core->own_keys_next.powered_sec = now + OWN_KEYS_RETRY_SEC;
}

/* One share of the sessions for each second that has passed; all of them in about a minute. */
static void check_sessions(struct core *core, uint64_t now) {
        unsigned shares = (unsigned)((now - core->pace.shares_usec) / SEC_USEC);

        if (TICK_USEC < SEC_USEC)
                shares = 1;
        else if (shares > 0)
                core->pace.shares_usec = now;
        for (unsigned i = 0; i < shares && i < SESSION_SHARES; i++)
                core_sessions_check_share(core, core->ticks++ % SESSION_SHARES);
}

/* ---- the tick ---- */

static void set_tick(struct core *core, uint64_t usec) {
        core->pace.due_usec = usec;
        (void)sd_event_source_set_time(core->tick, usec);
        (void)sd_event_source_set_time_accuracy(
                core->tick, usec - core_monotonic_usec() > 2 * TICK_USEC ? SEC_USEC : TICK_USEC / 10);
        (void)sd_event_source_set_enabled(core->tick, SD_EVENT_ONESHOT);
}

void core_tick_soon(struct core *core) {
        uint64_t soon = core_monotonic_usec() + TICK_USEC;

        if (core->tick && core->pace.due_usec > soon)
                set_tick(core, soon);
}

/* Seconds until `due` by the clock that comes first. */
static int64_t seconds_until(const struct due_time *due, const struct moment *now) {
        int64_t wall = due->wall - now->wall, powered = due->powered_sec - now->powered_sec;

        return wall < powered ? wall : powered;
}

static uint64_t idle_usec(struct core *core, const struct moment *now, bool has_more) {
        struct due_time device = { INT64_MAX, INT64_MAX }, authority;
        int64_t seconds;

        if (has_more || core->is_rescheduling || core->is_degraded)
                return TICK_USEC;
        if (schedule_earliest(core->store, &device) < 0)
                device = (struct due_time){ INT64_MAX, INT64_MAX }; /* none, or the next turn says why not */
        seconds = seconds_until(&device, now);
        authority = authority_next_look(core->turn.issuer);
        if (seconds_until(&authority, now) < seconds)
                seconds = seconds_until(&authority, now);
        if (seconds_until(&core->own_keys_next, now) < seconds)
                seconds = seconds_until(&core->own_keys_next, now);
        if (seconds <= 1)
                return TICK_USEC;
        return seconds >= (int64_t)(IDLE_USEC / SEC_USEC) ? IDLE_USEC : (uint64_t)seconds * SEC_USEC;
}

/* Everything that is due, in one turn. Returns whether devices had to wait for their turn. */
static bool work(struct core *core, struct turn *turn) {
        size_t limit;
        int r;

        if (core->is_degraded && !core_try_again(core))
                return false;
        limit = core->pace.left < TICK_DEVICES ? core->pace.left : TICK_DEVICES;
        r = limit > 0 ? schedule_tick(turn, limit) : 0;
        if (r < 0)
                journal_line(3, "core: the schedule could not be carried out: %s", strerror(-r));
        if (r < 0 && !store_error_passes(r)) {
                core_drop(core);
                return true;
        }
        core_authority_tick(core);
        look_at_own_keys(core);
        core_client_tick(core);
        core_backup_tick(core);
        if (core->is_rescheduling)
                reschedule_some(core);
        if (turn->now.powered_sec - core->housekept >= HOUSEKEEPING_SEC)
                keep_house(core);
        if (turn->now.powered_sec - core->clock_recorded >= CLOCK_RECORD_SEC) {
                core->clock_recorded = turn->now.powered_sec;
                (void)store_meta_set_clock(core->store, &core->clock); /* a failure shows at the commit */
        }
        check_sessions(core, core_monotonic_usec());
        (void)core_end(core);               /* dealt with there */
        return r > 0 && (size_t)r == limit; /* what could not even be looked for shows as due */
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata) {
        struct core *core = userdata;
        struct turn *turn = core_begin(core, "schedule");
        uint64_t turn_before = core->last_turn, wait;
        struct moment now = turn->now;
        bool has_more;

        (void)source;
        (void)usec;
        has_more = work(core, turn);
        journal_throttle_flush(core->throttle, core_monotonic_usec());
        wait = core->last_turn != turn_before ? TICK_USEC : idle_usec(core, &now, has_more);
        set_tick(core, core_monotonic_usec() + wait);
        return 0;
}

int core_tick_start(struct core *core) {
        int r;

        core->pace.shares_usec = core_monotonic_usec();
        core->pace.due_usec = core_monotonic_usec() + TICK_USEC;
        r = sd_event_add_time(core->process.event, &core->tick, CLOCK_MONOTONIC, core->pace.due_usec, TICK_USEC / 10,
                              on_tick, core);
        return r < 0 ? r : 0;
}

void core_tick_stop(struct core *core) {
        core->tick = sd_event_source_disable_unref(core->tick);
}

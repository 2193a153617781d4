/* SPDX-License-Identifier: Apache-2.0 */

/* rotation.c: pure, so these tests need neither store nor clock. */

#include "tests/unit/support.h"

#include "gatewayd/keys/rotation.h"

#define DAY   INT64_C(86400)
#define START INT64_C(1790000000)

static const struct profile profile = {
        .rotate_every_sec = 30 * DAY,
        .jitter = 0.2,
        .grace_sec = 7 * DAY,
        .max_age_sec = 90 * DAY,
        .on_overdue = OVERDUE_RESTRICT,
};

/* `wall` and `powered` days after the start, by a clock that is in order. */
static struct moment at(int64_t wall_days, int64_t powered_days) {
        return (struct moment){ START + wall_days * DAY, 1000 + powered_days * DAY, CLOCK_SYNCHRONIZED, true };
}

static struct moment distrusted(struct moment moment) {
        moment.wall_trusted = false;
        return moment;
}

static struct credential key(const char *identity, enum key_state state, uint32_t generation, struct moment issued) {
        struct credential c = { .kind = CREDENTIAL_PSK, .state = state, .generation = generation, .issued = issued };

        snprintf(c.identity, sizeof c.identity, "%s", identity);
        if (state != KEY_PRE_ACTIVE)
                c.proven = issued;
        return c;
}

#define ALL_WARNED 3 /* warnings have their own tests */

static struct rotation_step next(const struct credential *credentials, size_t count, struct moment now) {
        const struct rotation_view view = { .credentials = credentials, .count = count, .warned = ALL_WARNED };

        return rotation_next(&view, &profile, 0, &now);
}

/* ---- due ---- */

static void a_key_is_announced_when_its_interval_is_over_by_either_clock(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));

        (void)state;
        assert_int_equal(next(&tip, 1, at(29, 29)).action, ROTATION_NONE);
        assert_int_equal(next(&tip, 1, at(30, 30)).action, ROTATION_ANNOUNCE);
        assert_int_equal(next(&tip, 1, at(30, 2)).action, ROTATION_ANNOUNCE);
        assert_int_equal(next(&tip, 1, at(2, 30)).action, ROTATION_ANNOUNCE);
}

static void the_next_look_is_at_the_first_thing_to_come_by_each_clock(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view announced = {
                .credentials = &tip, .count = 1, .warned = ALL_WARNED, .is_announced = true
        };
        const struct moment now = at(10, 10);
        struct rotation_step step = next(&tip, 1, now);

        (void)state;
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(step.next.wall, START + 30 * DAY);
        assert_int_equal(step.next.powered_sec, 1000 + 30 * DAY);
        step = rotation_next(&announced, &profile, 0, &now);
        assert_int_equal(step.next.wall, START + 90 * DAY);
        assert_int_equal(step.next.powered_sec, 1000 + 90 * DAY);
}

static void spread_and_jitter_bring_a_device_early_and_never_late(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        const struct moment now = at(0, 0);

        (void)state;
        assert_int_equal(rotation_due_in(&view, &profile, 0, &now), 30 * DAY);
        assert_int_equal(rotation_due_in(&view, &profile, 0.5, &now), 27 * DAY);
        assert_true(rotation_due_in(&view, &profile, 0.999999, &now) >= 24 * DAY);
}

static void ids_that_differ_in_one_digit_spread_over_the_whole_interval(void **state) {
        unsigned buckets[10] = { 0 };

        (void)state;
        for (int i = 0; i < 10000; i++) {
                char id[32];
                double spread;

                snprintf(id, sizeof id, "sensor-%05d", i);
                spread = rotation_spread(id);
                assert_true(spread >= 0 && spread < 1);
                assert_true(rotation_spread(id) == spread);
                buckets[(int)(spread * 10)]++;
        }
        for (size_t i = 0; i < ELEMENTS(buckets); i++)
                assert_in_range(buckets[i], 850, 1150);
}

static void without_an_active_key_nothing_is_due(void **state) {
        const struct credential factory = { .kind = CREDENTIAL_FACTORY, .state = KEY_ACTIVE, .issued = at(0, 0) };
        const struct rotation_view view = { .credentials = &factory, .count = 1, .warned = ALL_WARNED };
        const struct moment now = at(4000, 4000);
        struct rotation_step step = next(&factory, 1, now);

        (void)state;
        assert_int_equal(step.action, ROTATION_NONE);
        assert_true(step.next.wall == INT64_MAX && step.next.powered_sec == INT64_MAX);
        assert_true(rotation_due_in(&view, &profile, 0, &now) == INT64_MAX);
        assert_true(rotation_late_in(&view, &profile, &now) == INT64_MAX);
}

/* ---- certificates ---- */

/* When a certificate issued at the start is due, if it is good from `begin` to `end` (days). */
static int64_t due_of(enum credential_kind kind, int64_t begin, unix_sec end, double renew_at) {
        struct profile p = profile;
        struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct rotation_view view = {
                .credentials = &tip, .count = 1, .warned = ALL_WARNED, .tip_not_before = START + begin * DAY
        };
        const struct moment now = at(0, 0);

        tip.kind = kind;
        p.renew_at = renew_at;
        view.tip_not_after = end == INT64_MAX ? INT64_MAX : START + end * DAY;
        return rotation_due_in(&view, &p, 0, &now);
}

static void a_certificate_is_due_at_a_share_of_its_life_or_by_the_interval_if_that_is_sooner(void **state) {
        (void)state;
        assert_int_equal(due_of(CREDENTIAL_LDEVID, 0, 90, 0.5), 30 * DAY);
        assert_int_equal(due_of(CREDENTIAL_LDEVID, 0, 20, 0.5), 10 * DAY);    /* its CA ends soon */
        assert_int_equal(due_of(CREDENTIAL_LDEVID, -400, 20, 0.5), 10 * DAY); /* backdating is no life */
        assert_int_equal(due_of(CREDENTIAL_LDEVID, 100, 120, 0.5), 10 * DAY); /* by an upstream with another clock */
        assert_int_equal(due_of(CREDENTIAL_LDEVID, 0, INT64_MAX, 0.5), 30 * DAY);
        assert_int_equal(due_of(CREDENTIAL_LDEVID, -10, 0, 0.5), 1); /* was over when it came */
        assert_int_equal(due_of(CREDENTIAL_PSK, 0, 0, 0.5), 30 * DAY);
}

static void a_certificate_is_announced_and_overdue_by_the_same_rules_as_a_psk(void **state) {
        struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct profile p = profile;
        struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED, .tip_not_before = START };
        struct moment now = at(9, 9);
        struct rotation_step step;

        (void)state;
        tip.kind = CREDENTIAL_LDEVID;
        p.renew_at = 0.5;
        view.tip_not_after = START + 20 * DAY;
        step = rotation_next(&view, &p, 0, &now);
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(step.next.wall, START + 10 * DAY);
        assert_int_equal(step.next.powered_sec, 1000 + 10 * DAY);
        now = at(2, 10);
        assert_int_equal(rotation_next(&view, &p, 0, &now).action, ROTATION_ANNOUNCE);
        view.is_announced = true;
        now = at(80, 80); /* ran out long ago, and may renew */
        assert_int_equal(rotation_next(&view, &p, 0, &now).action, ROTATION_NONE);
        assert_int_equal(rotation_late_in(&view, &p, &now), 10 * DAY);
        now = at(90, 90);
        assert_int_equal(rotation_next(&view, &p, 0, &now).action, ROTATION_OVERDUE);
}

static void a_spent_idevid_is_never_destroyed(void **state) {
        const struct credential idevid = { .kind = CREDENTIAL_IDEVID, .state = KEY_DEACTIVATED, .ended = at(0, 0) };

        (void)state;
        assert_int_equal(next(&idevid, 1, at(4000, 4000)).action, ROTATION_NONE);
}

/* ---- overdue ---- */

static void a_key_past_max_age_is_overdue_once(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED, .is_announced = true };
        const struct moment now = at(90, 90);

        (void)state;
        assert_int_equal(rotation_next(&view, &profile, 0, &now).action, ROTATION_OVERDUE);
        assert_int_equal(rotation_late_in(&view, &profile, &now), 0);
        view.is_overdue = true;
        assert_int_equal(rotation_next(&view, &profile, 0, &now).action, ROTATION_NONE);
}

static void a_calendar_that_is_not_trusted_makes_nobody_overdue(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = {
                .credentials = &tip, .count = 1, .warned = ALL_WARNED, .is_announced = true
        };
        const struct moment jumped = distrusted(at(4000, 20)), waited = distrusted(at(4000, 90));
        struct rotation_step step = rotation_next(&view, &profile, 0, &jumped);

        (void)state;
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(rotation_late_in(&view, &profile, &jumped), 70 * DAY);
        /* Looked at again within the hour, for trust may return, and not at every tick meanwhile. */
        assert_int_equal(step.next.wall, jumped.wall + 3600);
        assert_int_equal(rotation_next(&view, &profile, 0, &waited).action, ROTATION_OVERDUE);
}

static void under_keep_it_is_never_too_late(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        const struct moment now = at(1000, 1000);
        struct profile keep = profile;

        (void)state;
        keep.on_overdue = OVERDUE_KEEP;
        assert_true(rotation_late_in(&view, &keep, &now) == INT64_MAX);
}

/* ---- the predecessor ---- */

/* A tip proven on day 0 and its predecessor. */
static void two_keys(struct credential pair[2], bool is_confirmed) {
        pair[0] = key("tip", KEY_ACTIVE, 2, at(0, 0));
        pair[1] = key("old", KEY_RETIRING, 1, at(-30, 0));
        pair[1].superseded = at(0, 0);
        if (is_confirmed)
                pair[0].confirmed = at(0, 0);
}

static void a_predecessor_ends_when_its_grace_is_over(void **state) {
        struct credential pair[2];
        struct rotation_step step;

        (void)state;
        two_keys(pair, true);
        step = next(pair, 2, at(6, 6));
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(step.next.powered_sec, 1000 + 7 * DAY);
        step = next(pair, 2, at(7, 7));
        assert_int_equal(step.action, ROTATION_DEACTIVATE);
        assert_int_equal(step.index, 1);
}

static void a_predecessor_never_ends_before_its_successor_is_confirmed(void **state) {
        struct credential pair[2];

        (void)state;
        two_keys(pair, false);
        assert_int_equal(next(pair, 2, at(25, 25)).action, ROTATION_NONE);
        pair[0].confirmed = at(25, 25);
        assert_int_equal(next(pair, 2, at(25, 25)).action, ROTATION_DEACTIVATE);
}

static void a_predecessor_stays_while_a_key_granted_over_it_is_unproven(void **state) {
        struct credential three[3];

        (void)state;
        two_keys(three + 1, true);
        three[0] = key("new", KEY_PRE_ACTIVE, 3, at(6, 6));
        snprintf(three[0].predecessor, sizeof three[0].predecessor, "old");
        assert_int_equal(next(three, 3, at(20, 20)).action, ROTATION_NONE);
        snprintf(three[0].predecessor, sizeof three[0].predecessor, "tip");
        assert_int_equal(next(three, 3, at(20, 20)).action, ROTATION_DEACTIVATE);
}

static void a_jump_of_the_calendar_ends_no_predecessor(void **state) {
        struct credential pair[2];
        struct moment unknown = distrusted(at(400, 1));

        (void)state;
        two_keys(pair, true);
        unknown.quality = CLOCK_UNKNOWN;
        assert_int_equal(next(pair, 2, distrusted(at(400, 1))).action, ROTATION_ANNOUNCE);
        pair[0].issued = at(399, 1);
        assert_int_equal(next(pair, 2, distrusted(at(400, 1))).action, ROTATION_NONE);
        assert_int_equal(next(pair, 2, unknown).action, ROTATION_NONE);
        assert_int_equal(next(pair, 2, at(400, 1)).action, ROTATION_DEACTIVATE);
        assert_int_equal(next(pair, 2, distrusted(at(1, 7))).action, ROTATION_DEACTIVATE);
}

static void the_factory_key_follows_the_same_rule_and_is_never_destroyed(void **state) {
        struct credential pair[2];

        (void)state;
        two_keys(pair, true);
        pair[1].kind = CREDENTIAL_FACTORY;
        pair[1].generation = 0;
        assert_int_equal(next(pair, 2, at(7, 7)).action, ROTATION_DEACTIVATE);
        pair[1].state = KEY_DEACTIVATED;
        pair[1].ended = at(7, 7);
        pair[0].issued = pair[0].proven = at(1000, 1000);
        assert_int_equal(next(pair, 2, at(1010, 1010)).action, ROTATION_NONE);
}

static void a_compromised_key_ends_only_after_the_device_has_recovered(void **state) {
        struct credential pair[2];

        (void)state;
        two_keys(pair, true);
        pair[1].state = KEY_COMPROMISED;
        assert_int_equal(next(pair, 2, at(7, 7)).action, ROTATION_DEACTIVATE);
        pair[1].superseded = MOMENT_NONE;
        assert_int_equal(next(pair, 2, at(20, 20)).action, ROTATION_NONE);
        assert_int_equal(next(pair + 1, 1, at(4000, 4000)).action, ROTATION_NONE);
}

/* ---- unproven and ended ---- */

static void a_grant_that_nobody_takes_up_never_ends_by_its_age(void **state) {
        struct credential pair[2] = { key("new", KEY_PRE_ACTIVE, 2, at(0, 0)), key("tip", KEY_ACTIVE, 1, at(0, 0)) };

        (void)state;
        assert_int_equal(next(pair, 1, at(4000, 4000)).action, ROTATION_NONE);
        assert_int_equal(next(pair, 1, at(0, 0)).next.powered_sec, INT64_MAX);
        assert_int_equal(next(pair, 2, at(29, 29)).action, ROTATION_NONE);
        assert_int_equal(next(pair, 2, at(30, 30)).action, ROTATION_ANNOUNCE);
}

static void an_ended_key_leaves_after_ninety_days_of_powered_on_time(void **state) {
        struct credential pair[2] = { key("tip", KEY_ACTIVE, 2, at(380, 80)),
                                      key("old", KEY_DEACTIVATED, 1, at(0, 0)) };

        (void)state;
        pair[1].ended = at(0, 0);
        assert_int_equal(next(pair, 2, at(400, 89)).action, ROTATION_NONE);
        assert_int_equal(next(pair, 2, at(400, 90)).action, ROTATION_DESTROY);
}

static void intervals_beyond_all_time_overflow_nothing(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        const struct moment now = at(10, 10);
        struct profile endless = profile;

        (void)state;
        endless.rotate_every_sec = endless.max_age_sec = endless.grace_sec = INT64_MAX;
        endless.jitter = 0;
        assert_int_equal(rotation_next(&view, &endless, 0, &now).action, ROTATION_NONE);
        assert_true(rotation_due_in(&view, &endless, 0, &now) > INT64_MAX / 2);
}

/* ---- calendars, windows, orders, warnings ---- */

static struct calendar *calendar(const char *text) {
        struct calendar *parsed = NULL;
        char why[128];

        if (calendar_parse(text, &parsed, why) < 0)
                fail_msg("%s: %s", text, why);
        return parsed;
}

static void by_the_calendar_a_key_is_due_at_the_first_elapse_after_its_issue(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        struct profile weekly = profile;
        struct moment now = at(0, 0);
        unix_sec elapse;

        (void)state;
        weekly.rotate_at = calendar("Sun *-*-* 03:00 UTC");
        elapse = calendar_next(weekly.rotate_at, START);
        now.wall = elapse - 1;
        assert_int_equal(rotation_next(&view, &weekly, 0.5, &now).action, ROTATION_NONE);
        assert_int_equal(rotation_next(&view, &weekly, 0.5, &now).next.wall, elapse);
        assert_int_equal(rotation_due_in(&view, &weekly, 0.5, &now), 1);
        now.wall = elapse;
        assert_int_equal(rotation_next(&view, &weekly, 0.5, &now).action, ROTATION_ANNOUNCE);
        now.wall = elapse + 3 * DAY; /* the clock stepped over it: it is due all the same */
        assert_int_equal(rotation_next(&view, &weekly, 0.5, &now).action, ROTATION_ANNOUNCE);
        calendar_free(weekly.rotate_at);
}

static void devices_are_called_within_windows_only(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        struct profile night = profile;
        struct moment now = at(31, 31);
        unix_sec opens;

        (void)state;
        night.maintenance = calendar("Sat *-*-* 01:00 UTC");
        night.maintenance_sec = 4 * 3600;
        opens = calendar_next(night.maintenance, now.wall);
        assert_int_equal(rotation_next(&view, &night, 0, &now).action, ROTATION_NONE);
        assert_int_equal(rotation_next(&view, &night, 0, &now).next.wall, opens);
        assert_int_equal(rotation_due_in(&view, &night, 0, &now), opens - now.wall);
        now.wall = opens;
        assert_int_equal(rotation_next(&view, &night, 0, &now).action, ROTATION_ANNOUNCE);
        now.wall = opens + 4 * 3600;
        assert_int_equal(rotation_next(&view, &night, 0, &now).action, ROTATION_NONE);
        now.quality = CLOCK_UNKNOWN; /* nobody knows what day it is */
        now.wall_trusted = false;
        assert_int_equal(rotation_next(&view, &night, 0, &now).action, ROTATION_ANNOUNCE);
        now = at(31, 31);
        view.asked = at(30, 30); /* an operator wants it */
        assert_int_equal(rotation_next(&view, &night, 0, &now).action, ROTATION_ANNOUNCE);
        calendar_free(night.maintenance);
}

static void a_window_never_locks_a_device_out(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        struct profile rare = profile;
        struct moment now = at(31, 31);

        (void)state;
        rare.maintenance = calendar("*-01-01 00:00 UTC");
        rare.maintenance_sec = 3600;
        assert_true(calendar_next(rare.maintenance, now.wall) > START + 90 * DAY);
        assert_int_equal(rotation_next(&view, &rare, 0, &now).action, ROTATION_ANNOUNCE);
        calendar_free(rare.maintenance);
}

static void an_order_makes_older_keys_due_and_younger_ones_not(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(2, 2));
        struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED };
        struct moment now = at(5, 5);

        (void)state;
        view.asked = at(5, 5);
        view.asked_within_sec = 2 * DAY;
        assert_int_equal(rotation_next(&view, &profile, 0.5, &now).action, ROTATION_NONE);
        assert_int_equal(rotation_next(&view, &profile, 0.5, &now).next.wall, START + 6 * DAY);
        now = at(6, 6);
        assert_int_equal(rotation_next(&view, &profile, 0.5, &now).action, ROTATION_ANNOUNCE);
        view.asked = at(1, 1);
        assert_int_equal(rotation_next(&view, &profile, 0.5, &now).action, ROTATION_NONE);
}

static void a_pause_neither_calls_nor_punishes(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct rotation_view view = { .credentials = &tip, .count = 1, .is_paused = true };
        struct moment now = at(100, 100);
        struct rotation_step step;

        (void)state;
        view.pause_end = (struct due_time){ START + 101 * DAY, 1000 + 101 * DAY };
        step = rotation_next(&view, &profile, 0, &now);
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(step.next.wall, START + 101 * DAY);
        assert_int_equal(rotation_due_in(&view, &profile, 0, &now), DAY);
        view.is_paused = false;
        assert_int_equal(rotation_next(&view, &profile, 0, &now).action, ROTATION_OVERDUE);
}

static void who_must_wait_for_a_call_keeps_the_place(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        const struct rotation_view view = { .credentials = &tip, .count = 1, .warned = ALL_WARNED, .is_held = true };
        const struct moment now = at(40, 40);
        struct rotation_step step = rotation_next(&view, &profile, 0, &now);

        (void)state;
        assert_int_equal(step.action, ROTATION_NONE);
        assert_int_equal(step.next.wall, START + 30 * DAY);
}

static void what_comes_at_max_age_is_said_beforehand_step_by_step(void **state) {
        const struct credential tip = key("tip", KEY_ACTIVE, 1, at(0, 0));
        struct rotation_view view = { .credentials = &tip, .count = 1, .is_announced = true };
        const int64_t days[] = { 76, 87, 89 };
        struct profile keep = profile;

        (void)state;
        for (unsigned i = 0; i < ELEMENTS(days); i++) {
                struct moment before = at(days[i], days[i]), now = before;
                struct rotation_step step;

                before.wall--;
                before.powered_sec--;
                step = rotation_next(&view, &profile, 0, &before);
                assert_int_equal(step.action, ROTATION_NONE);
                assert_int_equal(step.next.wall, now.wall);
                step = rotation_next(&view, &profile, 0, &now);
                assert_int_equal(step.action, ROTATION_WARN);
                assert_int_equal(step.warning, i + 1);
                view.warned = step.warning;
        }
        assert_int_equal(rotation_next(&view, &profile, 0,
                                       &(struct moment){ START + 90 * DAY, 1000 + 90 * DAY, CLOCK_HELD, true })
                                 .action,
                         ROTATION_OVERDUE);
        view.warned = 0; /* slept through all of them: the last one says it all */
        assert_int_equal(rotation_next(&view, &profile, 0,
                                       &(struct moment){ START + 89 * DAY, 1000 + 89 * DAY, CLOCK_HELD, true })
                                 .warning,
                         3);
        keep.on_overdue = OVERDUE_KEEP;
        assert_int_equal(
                rotation_next(&view, &keep, 0, &(struct moment){ START + 89 * DAY, 1000 + 89 * DAY, CLOCK_HELD, true })
                        .action,
                ROTATION_NONE);
}

/* ---- decades ---- */

/* A device that rotates when it is told to, on a gateway whose calendar jumps, over forty years. */
struct life {
        struct credential keys[CREDENTIALS_MAX]; /* newest first */
        size_t count;
        bool is_announced, is_overdue;
        unsigned warned;
        struct moment now;
        uint64_t random;
        unsigned rotations, deactivated, destroyed;
};

static uint64_t draw(struct life *life, uint64_t below) {
        uint64_t z = (life->random += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (z ^ (z >> 31)) % below;
}

static void take_out(struct life *life, size_t index) {
        life->count--;
        memmove(&life->keys[index], &life->keys[index + 1], (life->count - index) * sizeof life->keys[0]);
}

static const struct credential *tip_of(const struct life *life) {
        for (size_t i = 0; i < life->count; i++)
                if (life->keys[i].state == KEY_ACTIVE)
                        return &life->keys[i];
        return NULL;
}

static void carry_out(struct life *life, const struct rotation_step *step) {
        struct credential *c = &life->keys[step->index];

        switch (step->action) {
        case ROTATION_NONE:
                return;
        case ROTATION_ANNOUNCE:
                assert_false(life->is_announced);
                life->is_announced = true;
                return;
        case ROTATION_WARN:
                assert_true(step->warning > life->warned && step->warning <= 3);
                assert_true(moment_age(&life->now, &tip_of(life)->issued) < profile.max_age_sec);
                life->warned = step->warning;
                return;
        case ROTATION_OVERDUE:
                assert_true(moment_age(&life->now, &tip_of(life)->issued) >= profile.max_age_sec);
                life->is_overdue = true;
                return;
        case ROTATION_DEACTIVATE:
                assert_int_equal(c->state, KEY_RETIRING);
                assert_true(moment_is_set(&tip_of(life)->confirmed));
                assert_true(moment_age(&life->now, &c->superseded) >= profile.grace_sec);
                c->state = KEY_DEACTIVATED;
                c->ended = life->now;
                life->deactivated++;
                return;
        case ROTATION_DESTROY:
                assert_int_equal(c->state, KEY_DEACTIVATED);
                life->destroyed++;
                take_out(life, step->index);
                return;
        }
}

static void look(struct life *life) {
        for (int i = 0;; i++) {
                const struct rotation_view view = {
                        .credentials = life->keys,
                        .count = life->count,
                        .is_announced = life->is_announced,
                        .is_overdue = life->is_overdue,
                        .warned = life->warned,
                };
                struct rotation_step step = rotation_next(&view, &profile, 0.3, &life->now);

                assert_true(i < 4 * CREDENTIALS_MAX);
                if (step.action == ROTATION_NONE) {
                        assert_true(step.next.wall > life->now.wall && step.next.powered_sec > life->now.powered_sec);
                        return;
                }
                carry_out(life, &step);
        }
}

static void issue(struct life *life) {
        struct credential c = key("", KEY_PRE_ACTIVE, life->keys[0].generation + 1, life->now);

        if (life->count == CREDENTIALS_MAX || life->keys[0].state == KEY_PRE_ACTIVE)
                return;
        snprintf(c.identity, sizeof c.identity, "key %u", c.generation);
        memcpy(c.predecessor, tip_of(life)->identity, sizeof c.predecessor);
        memmove(&life->keys[1], &life->keys[0], life->count * sizeof life->keys[0]);
        life->keys[0] = c;
        life->count++;
}

static void shake_hands(struct life *life) {
        if (life->keys[0].state == KEY_ACTIVE && !moment_is_set(&life->keys[0].confirmed))
                life->keys[0].confirmed = life->now;
        if (life->keys[0].state != KEY_PRE_ACTIVE)
                return;
        for (size_t i = 1; i < life->count; i++)
                if (life->keys[i].state == KEY_ACTIVE) {
                        life->keys[i].state = KEY_RETIRING;
                        life->keys[i].superseded = life->now;
                }
        life->keys[0].state = KEY_ACTIVE;
        life->keys[0].proven = life->now;
        life->is_announced = life->is_overdue = false;
        life->warned = 0;
        life->rotations++;
}

static void forty_years_of_jumping_clocks_never_end_a_key_before_its_successor_is_confirmed(void **state) {
        struct life life = {
                .keys = { key("key 1", KEY_ACTIVE, 1, at(0, 0)) }, .count = 1, .now = at(0, 0), .random = 7
        };
        int64_t held_until = 0;

        (void)state;
        while (life.now.powered_sec < 1000 + 40 * 365 * DAY) {
                int64_t passed = 1 + (int64_t)draw(&life, (uint64_t)(3 * DAY));

                life.now.powered_sec += passed;
                life.now.wall += passed;
                if (draw(&life, 100) == 0) {
                        life.now.wall += (int64_t)draw(&life, (uint64_t)(500 * DAY));
                        held_until = life.now.powered_sec + CLOCK_HOLD_SEC;
                }
                if (draw(&life, 50) == 0)
                        life.now.quality = (enum clock_quality)draw(&life, 3);
                life.now.wall_trusted = life.now.quality != CLOCK_UNKNOWN && life.now.powered_sec >= held_until;
                look(&life);
                assert_non_null(tip_of(&life));
                assert_true(life.count <= CREDENTIALS_MAX);
                if (life.is_announced && draw(&life, 5) == 0)
                        issue(&life);
                if (draw(&life, 4) == 0)
                        shake_hands(&life);
        }
        assert_true(life.rotations > 40 * 11);
        assert_true(life.deactivated >= life.rotations - 2);
        assert_true(life.destroyed >= life.deactivated - 6);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_is_announced_when_its_interval_is_over_by_either_clock),
                cmocka_unit_test(the_next_look_is_at_the_first_thing_to_come_by_each_clock),
                cmocka_unit_test(spread_and_jitter_bring_a_device_early_and_never_late),
                cmocka_unit_test(ids_that_differ_in_one_digit_spread_over_the_whole_interval),
                cmocka_unit_test(without_an_active_key_nothing_is_due),
                cmocka_unit_test(a_certificate_is_due_at_a_share_of_its_life_or_by_the_interval_if_that_is_sooner),
                cmocka_unit_test(a_certificate_is_announced_and_overdue_by_the_same_rules_as_a_psk),
                cmocka_unit_test(a_spent_idevid_is_never_destroyed),
                cmocka_unit_test(a_key_past_max_age_is_overdue_once),
                cmocka_unit_test(a_calendar_that_is_not_trusted_makes_nobody_overdue),
                cmocka_unit_test(under_keep_it_is_never_too_late),
                cmocka_unit_test(a_predecessor_ends_when_its_grace_is_over),
                cmocka_unit_test(a_predecessor_never_ends_before_its_successor_is_confirmed),
                cmocka_unit_test(a_predecessor_stays_while_a_key_granted_over_it_is_unproven),
                cmocka_unit_test(a_jump_of_the_calendar_ends_no_predecessor),
                cmocka_unit_test(the_factory_key_follows_the_same_rule_and_is_never_destroyed),
                cmocka_unit_test(a_compromised_key_ends_only_after_the_device_has_recovered),
                cmocka_unit_test(a_grant_that_nobody_takes_up_never_ends_by_its_age),
                cmocka_unit_test(an_ended_key_leaves_after_ninety_days_of_powered_on_time),
                cmocka_unit_test(intervals_beyond_all_time_overflow_nothing),
                cmocka_unit_test(by_the_calendar_a_key_is_due_at_the_first_elapse_after_its_issue),
                cmocka_unit_test(devices_are_called_within_windows_only),
                cmocka_unit_test(a_window_never_locks_a_device_out),
                cmocka_unit_test(an_order_makes_older_keys_due_and_younger_ones_not),
                cmocka_unit_test(a_pause_neither_calls_nor_punishes),
                cmocka_unit_test(who_must_wait_for_a_call_keeps_the_place),
                cmocka_unit_test(what_comes_at_max_age_is_said_beforehand_step_by_step),
                cmocka_unit_test(forty_years_of_jumping_clocks_never_end_a_key_before_its_successor_is_confirmed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

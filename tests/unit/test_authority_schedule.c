/* SPDX-License-Identifier: Apache-2.0 */

/* Rollover of the issuing CA over simulated decades: random lives, clocks of every quality, jumps, power cuts of
 * months, owners who answer late or never. What must hold is looked at after every step. */

#include "tests/unit/support.h"

#include "gatewayd/keys/authority_parts.h"

#define DAY   INT64_C(86400)
#define YEAR  (365 * DAY)
#define START INT64_C(1790000000)
#define SEEDS 400

/* ---- the world ---- */

struct sleeper {
        uint32_t known[2]; /* the generations it would trust, as last fetched */
        int switches;      /* seen by others while it was away */
};

struct world {
        uint64_t random;
        struct ca_config config;
        struct clock clock;
        struct clock_reading machine;
        struct moment now;
        struct authority list[64]; /* oldest first, ended ones too */
        uint32_t cross_by[64];     /* the generation that certified it; 0: none */
        unix_sec last_leaf[64];    /* the latest notAfter of its leaves */
        size_t count;
        int64_t leaf_sec, answer_powered; /* the owner answers then; INT64_MAX: never */
        bool is_root, is_late_told, is_answering;
        unsigned late, switches, early;
        int64_t announced_true[64]; /* true powered + off seconds when it was announced */
        int64_t true_sec;
        struct sleeper devices[8];
};

static uint64_t draw(struct world *w, uint64_t below) {
        w->random ^= w->random << 13;
        w->random ^= w->random >> 7;
        w->random ^= w->random << 17;
        return below ? w->random % below : 0;
}

static int64_t between(struct world *w, int64_t least, int64_t most) {
        return least + (int64_t)draw(w, (uint64_t)(most - least + 1));
}

static struct authority *in_state(struct world *w, enum authority_state state) {
        for (size_t i = 0; i < w->count; i++)
                if (w->list[i].state == state)
                        return &w->list[i];
        return NULL;
}

static size_t count_in(const struct world *w, enum authority_state state) {
        size_t count = 0;

        for (size_t i = 0; i < w->count; i++)
                count += w->list[i].state == state;
        return count;
}

static struct authority *add(struct world *w, enum authority_state state, int64_t life) {
        struct authority *authority = &w->list[w->count];

        assert_true(w->count < 64);
        *authority = (struct authority){
                .generation = (uint32_t)++w->count,
                .state = state,
                .is_root = w->is_root,
                .not_before = w->now.wall - 3600,
                .not_after = w->now.wall + life,
                .created = w->now,
                .announced = w->now,
                .activated = w->now,
        };
        w->announced_true[w->count - 1] = w->true_sec;
        return authority;
}

static void world_new(struct world *w, uint64_t seed, bool is_root) {
        *w = (struct world){ .random = seed * 0x9e3779b97f4a7c15u + 1, .is_root = is_root };
        w->config = (struct ca_config){
                .validity_sec = between(w, 1, 12) * YEAR,
                .successor_at = 0.3 + (double)draw(w, 50) / 100,
                .announce_sec = between(w, 0, 60) * DAY,
        };
        w->leaf_sec = between(w, 1, 120) * DAY;
        w->machine = (struct clock_reading){ .wall = START, .boot_id = "boot" };
        w->machine.is_synchronized = draw(w, 4) != 0;
        w->now = clock_advance(&w->clock, &w->machine);
        add(w, AUTHORITY_ACTIVE, w->config.validity_sec);
        for (size_t i = 0; i < ELEMENTS(w->devices); i++)
                w->devices[i].known[0] = 1;
}

/* ---- time goes on: powered, switched off, with a clock that jumps or loses its source ---- */

static void pass(struct world *w) {
        int64_t seconds = draw(w, 8) == 0 ? between(w, 1, 90) * DAY : between(w, 60, 5 * DAY);
        bool is_off = draw(w, 20) == 0;

        w->true_sec += seconds;
        w->machine.wall += seconds;
        if (is_off) {
                snprintf(w->machine.boot_id, sizeof w->machine.boot_id, "boot %u", (unsigned)draw(w, 1u << 30));
                w->machine.boottime_sec = 60;
                w->machine.is_synchronized = draw(w, 3) != 0;
        } else
                w->machine.boottime_sec += seconds;
        if (draw(w, 60) == 0)
                w->machine.is_synchronized = !w->machine.is_synchronized;
        if (draw(w, 400) == 0)
                w->machine.wall += between(w, 1, 700) * DAY; /* a wrong source of time */
        w->now = clock_advance(&w->clock, &w->machine);
}

static int64_t spare(const struct authority *active) {
        return authority_spare_sec(active);
}

/* Leaves come and go; none outlives its CA. */
static void issue(struct world *w) {
        struct authority *active = in_state(w, AUTHORITY_ACTIVE);
        unix_sec not_after = w->now.wall + w->leaf_sec;

        if (!active || authority_is_spent(active, &w->now))
                return;
        assert_true(active->not_after - w->now.wall > spare(active));
        if (not_after > active->not_after)
                not_after = active->not_after;
        assert_true(not_after > w->now.wall);
        if (not_after > w->last_leaf[active->generation - 1])
                w->last_leaf[active->generation - 1] = not_after;
}

/* A device that is awake fetches what is announced; a sleeper may miss everything. */
static void devices_live(struct world *w) {
        const struct authority *active = in_state(w, AUTHORITY_ACTIVE), *announced = in_state(w, AUTHORITY_ANNOUNCED);

        for (size_t i = 0; i < ELEMENTS(w->devices); i++) {
                struct sleeper *device = &w->devices[i];
                bool is_awake = draw(w, 10 + 40 * i) == 0;

                if (!is_awake || !active)
                        continue;
                if (w->is_root && device->switches <= 1) {
                        bool has_path = false, has_living = false;

                        for (size_t k = 0; k < ELEMENTS(device->known); k++) {
                                uint32_t known = device->known[k];
                                const struct authority *root = known > 0 ? &w->list[known - 1] : NULL;

                                if (!root || root->state == AUTHORITY_ENDED || root->not_after <= w->now.wall)
                                        continue;
                                has_living = true;
                                has_path |= known == active->generation || known == w->cross_by[active->generation - 1];
                        }
                        assert_true(has_path || !has_living);
                }
                *device = (struct sleeper){ { active->generation, announced ? announced->generation : 0 }, 0 };
        }
}

/* ---- carrying out ---- */

static void owner_answers(struct world *w) {
        struct authority *requested = in_state(w, AUTHORITY_REQUESTED);

        if (!requested || w->now.powered_sec < w->answer_powered)
                return;
        requested->state = AUTHORITY_ANNOUNCED;
        requested->not_before = w->now.wall - 3600;
        requested->not_after = w->now.wall + w->config.validity_sec;
        requested->announced = w->now;
        w->announced_true[requested->generation - 1] = w->true_sec;
}

static void make_successor(struct world *w) {
        assert_null(in_state(w, AUTHORITY_ANNOUNCED));
        assert_null(in_state(w, AUTHORITY_REQUESTED));
        if (w->is_root) {
                struct authority *next = add(w, AUTHORITY_ANNOUNCED, w->config.validity_sec);

                w->cross_by[next->generation - 1] = in_state(w, AUTHORITY_ACTIVE)->generation;
                return;
        }
        add(w, AUTHORITY_REQUESTED, 0);
        w->answer_powered = w->is_answering ? w->now.powered_sec + between(w, 0, 400) * DAY : INT64_MAX;
}

static void activate(struct world *w, struct authority *next) {
        struct authority *active = in_state(w, AUTHORITY_ACTIVE);
        int64_t known_for = w->true_sec - w->announced_true[next->generation - 1];

        assert_int_equal(next->state, AUTHORITY_ANNOUNCED);
        if (active) {
                bool is_spent = active->not_after - w->now.wall <= spare(active);

                assert_true(known_for >= w->config.announce_sec || is_spent);
                w->early += known_for < w->config.announce_sec;
                active->state = AUTHORITY_RETIRING;
                active->superseded = w->now;
        }
        next->state = AUTHORITY_ACTIVE;
        next->activated = w->now;
        w->is_late_told = false;
        w->switches++;
        for (size_t i = 0; i < ELEMENTS(w->devices); i++)
                w->devices[i].switches++;
}

static void end(struct world *w, struct authority *authority) {
        assert_int_equal(authority->state, AUTHORITY_RETIRING);
        /* By the calendar where it counts; where it never does, once all its leaves' time was powered-on time. */
        assert_true(w->last_leaf[authority->generation - 1] <= w->now.wall);
        assert_true(w->now.wall_trusted || w->now.powered_sec - authority->superseded.powered_sec >=
                                                   authority->not_after - authority->superseded.wall);
        authority->state = AUTHORITY_ENDED;
}

static struct authority_step ask(struct world *w) {
        struct authority list[AUTHORITIES_MAX];
        struct authority_view view = { .list = list, .is_late_told = w->is_late_told };

        for (size_t i = w->count; i > 0; i--) {
                const struct authority *authority = &w->list[i - 1];

                if (authority->state == AUTHORITY_ENDED)
                        continue;
                assert_true(view.count < AUTHORITIES_MAX);
                view.leaves[view.count] = w->last_leaf[i - 1] > w->now.wall;
                view.announce_sec[view.count] = -1;
                list[view.count++] = *authority;
        }

        struct authority_step step = authority_next(&view, &w->config, &w->now);
        if (step.action != AUTHORITY_WAIT)
                step.index = list[step.index].generation - 1;
        return step;
}

/* Takes all steps that are due. Returns how many, but for ends: leaves are counted again once a day. */
static unsigned look(struct world *w, struct due_time *next) {
        unsigned ends = 0;

        for (unsigned steps = 0;; steps++) {
                struct authority_step step = ask(w);

                assert_true(steps < 16);
                switch (step.action) {
                case AUTHORITY_WAIT:
                        *next = step.next;
                        assert_true(count_in(w, AUTHORITY_ACTIVE) == 1);
                        assert_true(count_in(w, AUTHORITY_ANNOUNCED) + count_in(w, AUTHORITY_REQUESTED) <= 1);
                        return steps - ends;
                case AUTHORITY_MAKE_SUCCESSOR:
                        make_successor(w);
                        break;
                case AUTHORITY_ACTIVATE:
                        activate(w, &w->list[step.index]);
                        break;
                case AUTHORITY_END:
                        end(w, &w->list[step.index]);
                        ends++;
                        break;
                case AUTHORITY_TELL_LATE:
                        assert_false(w->is_late_told);
                        assert_null(in_state(w, AUTHORITY_ANNOUNCED));
                        w->is_late_told = true;
                        w->late++;
                        break;
                }
        }
}

static void live(struct world *w, int64_t years) {
        struct due_time next = { 0, 0 };

        while (w->true_sec < years * YEAR && w->count < 60) {
                bool was_due, was_trusted = w->now.wall_trusted;
                size_t before = w->count;

                pass(w);
                was_due = w->now.wall >= next.wall || w->now.powered_sec >= next.powered_sec;
                owner_answers(w);
                issue(w);
                /* Who looks only at the time that was said misses nothing but what others did. */
                if (look(w, &next) > 0 && before == w->count && w->is_root && was_trusted == w->now.wall_trusted)
                        assert_true(was_due);
                devices_live(w);
        }
}

/* ---- tests ---- */

static void a_root_rolls_over_for_decades_and_everything_holds(void **state) {
        unsigned switches = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct world w;

                world_new(&w, seed, true);
                live(&w, 40);
                switches += w.switches;
        }
        assert_true(switches > 5 * SEEDS);
}

static void a_sub_ca_rolls_over_when_its_owner_answers(void **state) {
        unsigned switches = 0, late = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct world w;

                world_new(&w, seed, false);
                w.is_answering = true;
                live(&w, 40);
                switches += w.switches;
                late += w.late;
        }
        assert_true(switches > 2 * SEEDS);
        assert_true(late > 0);
}

static void without_an_answer_a_sub_ca_goes_on_to_its_end_and_tells(void **state) {
        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct world w;

                world_new(&w, seed, false);
                live(&w, 20);
                assert_int_equal(w.switches, 0);
                assert_int_equal(w.late, 1);
                assert_int_equal(w.list[0].state, AUTHORITY_ACTIVE);
                assert_int_equal(w.list[1].state, AUTHORITY_REQUESTED);
        }
}

static struct authority_view one_active(struct authority *active, struct moment *now) {
        *now = (struct moment){ START, 1000, CLOCK_SYNCHRONIZED, true };
        *active = (struct authority){
                .generation = 1,
                .state = AUTHORITY_ACTIVE,
                .is_root = true,
                .not_before = START,
                .not_after = START + 10 * YEAR,
                .activated = *now,
        };
        return (struct authority_view){ .list = active, .count = 1, .announce_sec = { -1, -1 } };
}

static const struct ca_config usual = { .successor_at = 0.5, .announce_sec = 30 * DAY };

static void a_jump_that_is_held_makes_no_successor(void **state) {
        struct authority active;
        struct moment now;
        struct authority_view view = one_active(&active, &now);

        (void)state;
        now.wall = START + 6 * YEAR;
        now.wall_trusted = false;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_WAIT);
        now.wall_trusted = true;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_MAKE_SUCCESSOR);
}

static void powered_on_time_alone_brings_the_successor(void **state) {
        struct authority active;
        struct moment now;
        struct authority_view view = one_active(&active, &now);

        (void)state;
        now.quality = CLOCK_UNKNOWN;
        now.wall_trusted = false;
        now.powered_sec += 5 * YEAR;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_MAKE_SUCCESSOR);
}

static void an_announcement_lasts_as_long_as_devices_could_hear_it(void **state) {
        struct authority list[2];
        struct moment now;
        struct authority_view view = one_active(&list[1], &now);

        (void)state;
        list[0] = list[1];
        list[0].generation = 2;
        list[0].state = AUTHORITY_ANNOUNCED;
        list[0].announced = now;
        view.list = list;
        view.count = 2;
        now.wall += 40 * DAY; /* switched off, say */
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_WAIT);
        now.powered_sec += 30 * DAY;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_ACTIVATE);
        assert_int_equal(authority_next(&view, &usual, &now).index, 0);
}

static void an_operators_word_on_the_announcement_counts_before_the_configured_one(void **state) {
        struct authority list[2];
        struct moment now;
        struct authority_view view = one_active(&list[1], &now);

        (void)state;
        list[0] = list[1];
        list[0].state = AUTHORITY_ANNOUNCED;
        list[0].announced = now;
        view.list = list;
        view.count = 2;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_WAIT);
        view.announce_sec[0] = 0;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_ACTIVATE);
}

static void a_generation_with_leaves_does_not_end(void **state) {
        struct authority list[2];
        struct moment now;
        struct authority_view view = one_active(&list[0], &now);

        (void)state;
        list[1] = list[0];
        list[1].state = AUTHORITY_RETIRING;
        list[1].superseded = now;
        view.list = list;
        view.count = 2;
        view.leaves[1] = 1;
        now.wall += DAY;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_WAIT);
        view.leaves[1] = 0;
        now.wall_trusted = false;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_WAIT);
        now.wall_trusted = true;
        assert_int_equal(authority_next(&view, &usual, &now).action, AUTHORITY_END);
}

static void without_any_generation_there_is_nothing_to_do(void **state) {
        const struct authority_view view = { 0 };
        const struct moment now = { START, 1000, CLOCK_SYNCHRONIZED, true };
        struct authority_step step = authority_next(&view, &usual, &now);

        (void)state;
        assert_int_equal(step.action, AUTHORITY_WAIT);
        assert_true(step.next.wall == INT64_MAX && step.next.powered_sec == INT64_MAX);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_root_rolls_over_for_decades_and_everything_holds),
                cmocka_unit_test(a_sub_ca_rolls_over_when_its_owner_answers),
                cmocka_unit_test(without_an_answer_a_sub_ca_goes_on_to_its_end_and_tells),
                cmocka_unit_test(a_jump_that_is_held_makes_no_successor),
                cmocka_unit_test(powered_on_time_alone_brings_the_successor),
                cmocka_unit_test(an_announcement_lasts_as_long_as_devices_could_hear_it),
                cmocka_unit_test(an_operators_word_on_the_announcement_counts_before_the_configured_one),
                cmocka_unit_test(a_generation_with_leaves_does_not_end),
                cmocka_unit_test(without_any_generation_there_is_nothing_to_do),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

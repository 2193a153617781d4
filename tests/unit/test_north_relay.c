/* SPDX-License-Identifier: Apache-2.0 */

/* The relay's decisions: order, bisection, parking, back-off; and all of it against a collector that
 * does whatever chance tells it. */

#include "tests/unit/support.h"

#include <errno.h>
#include <stdio.h>

#include "gatewayd/north/relay.h"

#define SEC     UINT64_C(1000000)
#define RECORDS 400

/* What the relay said, and the collector that answers it. */
struct desk {
        struct relay *relay;
        uint64_t now;
        uint64_t delivered[RECORDS * 4];
        size_t delivered_count;
        struct {
                uint64_t sequence;
                uint16_t status;
                char reason[160];
        } parked[RECORDS * 2];
        size_t parked_count;
        unsigned uplink_calls;
        bool is_up;
        char reason[160];
        uint64_t retry_usec;
};

static void note_delivered(void *userdata, uint64_t sequence) {
        struct desk *desk = userdata;

        assert_true(desk->delivered_count < ELEMENTS(desk->delivered));
        desk->delivered[desk->delivered_count++] = sequence;
}

static void note_parked(void *userdata, uint64_t sequence, uint16_t status, const char *reason) {
        struct desk *desk = userdata;

        assert_true(desk->parked_count < ELEMENTS(desk->parked));
        desk->parked[desk->parked_count].sequence = sequence;
        desk->parked[desk->parked_count].status = status;
        snprintf(desk->parked[desk->parked_count++].reason, 160, "%s", reason);
}

static void note_uplink(void *userdata, bool is_up, const char *reason, uint64_t retry_usec) {
        struct desk *desk = userdata;

        desk->uplink_calls++;
        desk->is_up = is_up;
        snprintf(desk->reason, sizeof desk->reason, "%s", reason);
        desk->retry_usec = retry_usec;
}

static const struct relay_settings usual = {
        .batch_records = 8,
        .batch_bytes = 1000,
        .retry_min_usec = SEC,
        .retry_max_usec = 300 * SEC,
};

static void open_desk(struct desk *desk, const struct relay_settings *settings) {
        const struct relay_sink sink = { desk, note_delivered, note_parked, note_uplink };

        *desk = (struct desk){ .now = 1000 * SEC };
        desk->relay = relay_new(settings, &sink);
}

static void close_desk(struct desk *desk) {
        desk->relay = relay_free(desk->relay);
        assert_null(desk->relay);
}

static int add_sized(struct desk *desk, uint64_t sequence, size_t evidence_bytes) {
        static const uint8_t evidence[70000];
        const struct message_record record = {
                .sequence = sequence,
                .receipt = TEXT("receipt"),
                .evidence = BYTES(evidence, evidence_bytes),
        };

        return relay_add(desk->relay, &record);
}

static void add(struct desk *desk, uint64_t first, uint64_t last) {
        for (uint64_t s = first; s <= last; s++)
                assert_int_equal(add_sized(desk, s, 20), 0);
}

/* The next step must be a POST of `count` records from `first` on. */
static struct relay_post expect_post(struct desk *desk, size_t count, uint64_t first) {
        struct relay_post post = { 0 };
        uint64_t until;

        assert_int_equal(relay_next(desk->relay, desk->now, &post, &until), RELAY_POST);
        assert_int_equal(post.count, count);
        if (count > 0)
                assert_int_equal(post.first->sequence, first);
        assert_int_equal(relay_next(desk->relay, desk->now, &post, &until), RELAY_BUSY);
        return post;
}

static void answer_with(struct desk *desk, uint16_t status, const char *reason, int64_t retry_after, uint32_t chance) {
        const struct relay_answer answer = { .status = status, .reason = reason, .retry_after_sec = retry_after };

        relay_answered(desk->relay, &answer, desk->now, chance);
}

static void answer(struct desk *desk, uint16_t status) {
        answer_with(desk, status, status >= 200 && status < 300 ? "" : "why", 0, UINT32_MAX);
}

static enum relay_step step(struct desk *desk, uint64_t *until) {
        struct relay_post post;

        return relay_next(desk->relay, desk->now, &post, until);
}

/* Past the probe with which each run begins. */
static void begin(struct desk *desk) {
        expect_post(desk, 0, 0);
        answer(desk, 200);
        assert_true(desk->is_up);
}

/* Lets the wait pass that must be there. */
static void wait_out(struct desk *desk) {
        uint64_t until = 0;

        assert_int_equal(step(desk, &until), RELAY_WAIT);
        assert_true(until > desk->now);
        desk->now = until;
}

static void a_run_begins_with_the_empty_batch_and_then_rests(void **state) {
        struct desk desk;
        uint64_t until;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        assert_int_equal(desk.uplink_calls, 1);
        assert_int_equal(step(&desk, &until), RELAY_IDLE);
        close_desk(&desk);
}

static void records_go_in_order_in_batches_of_the_size_allowed(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 19);
        expect_post(&desk, 8, 1);
        answer(&desk, 200);
        expect_post(&desk, 8, 9);
        answer(&desk, 204);
        expect_post(&desk, 3, 17);
        answer(&desk, 201);
        assert_int_equal(desk.delivered_count, 19);
        for (uint64_t i = 0; i < 19; i++)
                assert_int_equal(desk.delivered[i], i + 1);
        assert_int_equal(relay_count(desk.relay), 0);
        close_desk(&desk);
}

static void a_batch_keeps_to_its_bytes_but_one_large_record_still_goes(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        assert_int_equal(add_sized(&desk, 1, 5000), 0);
        assert_int_equal(add_sized(&desk, 2, 400), 0);
        assert_int_equal(add_sized(&desk, 3, 400), 0);
        assert_int_equal(add_sized(&desk, 4, 400), 0);
        expect_post(&desk, 1, 1);
        answer(&desk, 200);
        expect_post(&desk, 2, 2);
        answer(&desk, 200);
        expect_post(&desk, 1, 4);
        close_desk(&desk);
}

static void records_that_come_out_of_order_are_put_in_order(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 5, 6);
        add(&desk, 2, 3);
        expect_post(&desk, 4, 2);
        answer(&desk, 200);
        assert_int_equal(desk.delivered[0], 2);
        assert_int_equal(desk.delivered[3], 6);
        close_desk(&desk);
}

static void a_record_held_already_is_left_alone(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        add(&desk, 1, 1);
        assert_int_equal(add_sized(&desk, 1, 3), -EEXIST);
        assert_int_equal(relay_count(desk.relay), 1);
        close_desk(&desk);
}

static void more_than_the_window_is_refused(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        add(&desk, 1, RELAY_RECORDS_MAX);
        assert_int_equal(add_sized(&desk, RELAY_RECORDS_MAX + 1, 1), -ENOBUFS);
        close_desk(&desk);
}

static void more_bytes_than_allowed_are_refused(void **state) {
        struct desk desk;
        uint64_t s = 1;

        (void)state;
        open_desk(&desk, &usual);
        while (add_sized(&desk, s, 70000) == 0)
                s++;
        assert_true(s < RELAY_RECORDS_MAX + 1 || RELAY_RECORDS_MAX * 70007u <= RELAY_BYTES_MAX);
        assert_true((s - 1) * 70007 <= RELAY_BYTES_MAX);
        close_desk(&desk);
}

static void a_lost_reply_brings_the_same_batch_again(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 3, 5);
        expect_post(&desk, 3, 3);
        add(&desk, 1, 2); /* must not change what is under way */
        add(&desk, 6, 9);
        answer(&desk, 0);
        assert_false(desk.is_up);
        assert_string_equal(desk.reason, "why");
        wait_out(&desk);
        expect_post(&desk, 3, 3);
        answer(&desk, 200);
        assert_true(desk.is_up);
        expect_post(&desk, 6, 1);
        close_desk(&desk);
}

static void what_fails_again_and_again_is_tried_in_smaller_batches(void **state) {
        static const size_t sizes[] = { 8, 8, 4, 2, 1, 1, 1 };
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 20);
        for (size_t i = 0; i < ELEMENTS(sizes); i++) {
                expect_post(&desk, sizes[i], 1);
                answer(&desk, 500);
                wait_out(&desk);
        }
        /* And they grow again, slowly: the large one has just failed. */
        for (uint64_t first = 1, size = 1; first + size <= 15; first += size, size++) {
                expect_post(&desk, size, first);
                answer(&desk, 200);
        }
        assert_int_equal(desk.parked_count, 0);
        close_desk(&desk);
}

static void the_wait_doubles_up_to_its_limit_and_never_ends_before_the_least(void **state) {
        struct desk desk;
        uint64_t until = 0, most = 2 * SEC;

        (void)state;
        open_desk(&desk, &usual);
        for (int i = 0; i < 20; i++) {
                uint32_t chance = i % 3 == 0 ? 0 : i % 3 == 1 ? UINT32_MAX : 0x80000000;

                expect_post(&desk, 0, 0);
                answer_with(&desk, 503, "busy", 0, chance);
                assert_int_equal(step(&desk, &until), RELAY_WAIT);
                assert_true(until - desk.now >= SEC && until - desk.now <= 300 * SEC);
                assert_true(until - desk.now <= most && until - desk.now >= most / 2);
                if (chance == 0)
                        assert_int_equal(until - desk.now, most);
                assert_int_equal(desk.retry_usec, until - desk.now);
                most = most * 2 > 300 * SEC ? 300 * SEC : most * 2;
                desk.now = until;
        }
        /* One success, and the next failure begins at the least again. */
        expect_post(&desk, 0, 0);
        answer(&desk, 200);
        add(&desk, 1, 1);
        expect_post(&desk, 1, 1);
        answer_with(&desk, 0, "gone", 0, UINT32_MAX);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_int_equal(until - desk.now, SEC);
        close_desk(&desk);
}

static void a_wait_of_zero_by_configuration_is_no_busy_loop(void **state) {
        const struct relay_settings none = { .batch_records = 0, .batch_bytes = 0 };
        struct desk desk;
        uint64_t until = 0;

        (void)state;
        open_desk(&desk, &none);
        expect_post(&desk, 0, 0);
        answer(&desk, 0);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_true(until - desk.now >= SEC / 20);
        desk.now = until;
        begin(&desk);
        add(&desk, 1, 2);
        expect_post(&desk, 1, 1);
        close_desk(&desk);
}

static void retry_after_is_honoured_but_not_beyond_an_hour(void **state) {
        struct desk desk;
        uint64_t until = 0;

        (void)state;
        open_desk(&desk, &usual);
        expect_post(&desk, 0, 0);
        answer_with(&desk, 429, "slowly", 120, 7);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_int_equal(until - desk.now, 120 * SEC);
        desk.now = until;
        expect_post(&desk, 0, 0);
        answer_with(&desk, 503, "tomorrow", INT64_MAX, 7);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_int_equal(until - desk.now, RELAY_RETRY_AFTER_MAX_SEC * SEC);
        close_desk(&desk);
}

static void a_change_of_the_network_ends_a_wait_but_not_one_that_was_asked_for(void **state) {
        struct desk desk;
        uint64_t until = 0;

        (void)state;
        open_desk(&desk, &usual);
        for (int i = 0; i < 12; i++) {
                expect_post(&desk, 0, 0);
                answer(&desk, 0);
                if (i < 11)
                        wait_out(&desk);
        }
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_true(until - desk.now > 100 * SEC);
        relay_network_changed(desk.relay);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_int_equal(until - desk.now, SEC); /* a storm of changes is no storm of tries */
        desk.now += 5 * SEC;
        expect_post(&desk, 0, 0);
        answer_with(&desk, 503, "later", 60, 0);
        relay_network_changed(desk.relay);
        assert_int_equal(step(&desk, &until), RELAY_WAIT);
        assert_int_equal(until - desk.now, 60 * SEC);
        relay_try_now(desk.relay); /* an operator may override that too */
        expect_post(&desk, 0, 0);
        close_desk(&desk);
}

static void patience_is_no_refusal(void **state) {
        static const uint16_t statuses[] = { 0, 100, 301, 307, 408, 425, 429, 500, 503, 599, 700 };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(statuses); i++) {
                struct desk desk;

                open_desk(&desk, &usual);
                begin(&desk);
                add(&desk, 1, 1);
                expect_post(&desk, 1, 1);
                answer(&desk, statuses[i]);
                assert_false(desk.is_up);
                wait_out(&desk);
                expect_post(&desk, 1, 1);
                answer(&desk, 200);
                assert_int_equal(desk.parked_count, 0);
                assert_int_equal(desk.delivered_count, 1);
                close_desk(&desk);
        }
}

static void one_bad_record_is_found_by_halves_parked_and_its_receipt_delivered(void **state) {
        struct desk desk;
        struct relay_post post;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 8);
        expect_post(&desk, 8, 1); /* 2 is bad */
        answer(&desk, 400);
        expect_post(&desk, 4, 1);
        answer(&desk, 400);
        expect_post(&desk, 2, 1);
        answer(&desk, 400);
        expect_post(&desk, 1, 1);
        answer(&desk, 200);
        expect_post(&desk, 2, 2);
        answer(&desk, 400);
        expect_post(&desk, 1, 2);
        answer_with(&desk, 422, "unprocessable", 0, 0);
        expect_post(&desk, 0, 0); /* is it the record? */
        answer(&desk, 200);
        assert_int_equal(desk.parked_count, 0);
        expect_post(&desk, 1, 2);
        answer_with(&desk, 422, "unprocessable", 0, 0);
        assert_int_equal(desk.parked_count, 1);
        assert_int_equal(desk.parked[0].sequence, 2);
        assert_int_equal(desk.parked[0].status, 422);
        assert_string_equal(desk.parked[0].reason, "unprocessable");
        post = expect_post(&desk, 1, 2);
        assert_int_equal(post.first->evidence.size, 0);
        assert_true(bytes_equal(post.first->receipt, TEXT("receipt")));
        answer(&desk, 200);
        assert_int_equal(desk.delivered[1], 2);
        expect_post(&desk, 2, 3);
        answer(&desk, 200);
        expect_post(&desk, 4, 5);
        answer(&desk, 200);
        assert_int_equal(desk.delivered_count, 8);
        assert_int_equal(desk.parked_count, 1);
        assert_true(desk.is_up); /* a refusal of one record is no trouble of the way */
        assert_int_equal(desk.uplink_calls, 1);
        close_desk(&desk);
}

static void a_receipt_refused_even_alone_is_said_to_be_parked_again_and_given_up(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 1);
        add(&desk, 2, 2);
        expect_post(&desk, 2, 1);
        answer(&desk, 409);
        for (size_t i = 0; i < 2; i++) { /* with its evidence, then without */
                expect_post(&desk, 1, 1);
                answer(&desk, 409);
                expect_post(&desk, 0, 0);
                answer(&desk, 200);
                assert_int_equal(desk.parked_count, i);
                expect_post(&desk, 1, 1);
                answer(&desk, 409);
                assert_int_equal(desk.parked_count, i + 1);
        }
        expect_post(&desk, 1, 2);
        answer(&desk, 200);
        assert_int_equal(desk.delivered_count, 1);
        assert_int_equal(desk.delivered[0], 2);
        close_desk(&desk);
}

static void who_refuses_the_empty_batch_too_refuses_us_and_nothing_is_parked(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 1);
        expect_post(&desk, 1, 1);
        answer(&desk, 403);
        for (int i = 0; i < 5; i++) {
                expect_post(&desk, 0, 0);
                answer(&desk, 403);
                assert_false(desk.is_up);
                wait_out(&desk);
        }
        /* Known again: what it said of the record before counts for nothing. */
        expect_post(&desk, 0, 0);
        answer(&desk, 200);
        assert_true(desk.is_up);
        assert_int_equal(desk.parked_count, 0);
        expect_post(&desk, 1, 1);
        answer(&desk, 200);
        assert_int_equal(desk.delivered_count, 1);
        close_desk(&desk);
}

static void a_refusal_that_was_everybodys_a_moment_ago_parks_nobody(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 1);
        expect_post(&desk, 1, 1);
        answer(&desk, 403); /* to all; and just now lifted */
        expect_post(&desk, 0, 0);
        answer(&desk, 200);
        expect_post(&desk, 1, 1);
        answer(&desk, 200);
        assert_int_equal(desk.parked_count, 0);
        assert_int_equal(desk.delivered_count, 1);
        close_desk(&desk);
}

static void a_failure_between_refusals_opens_the_case_anew(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 1, 1);
        expect_post(&desk, 1, 1);
        answer(&desk, 400);
        expect_post(&desk, 0, 0);
        answer(&desk, 200);
        expect_post(&desk, 1, 1);
        answer(&desk, 503);
        wait_out(&desk);
        expect_post(&desk, 1, 1);
        answer(&desk, 400);
        assert_int_equal(desk.parked_count, 0);
        expect_post(&desk, 0, 0);
        close_desk(&desk);
}

static void what_is_too_large_is_made_smaller_for_good(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        for (uint64_t s = 1; s <= 16; s++)
                assert_int_equal(add_sized(&desk, s, 93), 0); /* 100 bytes each */
        expect_post(&desk, 8, 1);
        answer(&desk, 413);
        for (uint64_t first = 1; first <= 16; first += 4) {
                expect_post(&desk, 4, first);
                answer(&desk, 200);
        }
        assert_int_equal(desk.parked_count, 0);
        close_desk(&desk);
}

static void a_record_added_while_the_first_is_questioned_does_not_take_its_place(void **state) {
        struct desk desk;

        (void)state;
        open_desk(&desk, &usual);
        begin(&desk);
        add(&desk, 5, 5);
        expect_post(&desk, 1, 5);
        answer(&desk, 400);
        expect_post(&desk, 0, 0);
        add(&desk, 1, 1);
        answer(&desk, 200);
        expect_post(&desk, 1, 5);
        answer(&desk, 400);
        assert_int_equal(desk.parked[0].sequence, 5);
        close_desk(&desk);
}

/* ---- a collector moved by chance ---- */

enum { SOUND, EVIDENCE_BAD, ALL_BAD };

struct world {
        struct desk desk;
        unsigned seed;
        uint8_t kind[RECORDS + 1];
        bool is_stored[RECORDS + 1], has_evidence[RECORDS + 1];
        uint64_t highest;
        bool denies; /* everything, for a few POSTs at least */
        unsigned since_change;
};

static unsigned roll(struct world *world, unsigned sides) {
        return (unsigned)rand_r(&world->seed) % sides;
}

/* What this collector makes of a POST; what it stores, it has. */
static uint16_t collect(struct world *world, const struct relay_post *post) {
        const struct relay_record *r = post->first;

        if (roll(world, 50) == 0 && world->since_change > 3) {
                world->denies = !world->denies;
                world->since_change = 0;
        }
        world->since_change++;
        if (roll(world, 6) == 0)
                return roll(world, 2) ? 0 : 503;
        if (world->denies)
                return 403;
        for (size_t i = 0; i < post->count; i++, r = r->next)
                if (world->kind[r->sequence] == ALL_BAD ||
                    (world->kind[r->sequence] == EVIDENCE_BAD && r->evidence.size > 0))
                        return 400;
        r = post->first;
        for (size_t i = 0; i < post->count; i++, r = r->next) {
                if (!world->is_stored[r->sequence])
                        assert_true(r->sequence > world->highest); /* first stored in order */
                world->is_stored[r->sequence] = true;
                world->has_evidence[r->sequence] |= r->evidence.size > 0;
                if (r->sequence > world->highest)
                        world->highest = r->sequence;
        }
        return roll(world, 8) == 0 ? 0 : 200; /* the reply may be lost */
}

static void run_world(unsigned seed) {
        struct world world = { .seed = seed };
        struct desk *desk = &world.desk;
        uint64_t next = 1, until = 0, last = 0;
        struct relay_post post;

        open_desk(desk, &usual);
        for (uint64_t s = 1; s <= RECORDS; s++)
                world.kind[s] = roll(&world, 20) == 0 ? EVIDENCE_BAD : roll(&world, 60) == 0 ? ALL_BAD : SOUND;
        for (unsigned steps = 0; next <= RECORDS || relay_count(desk->relay) > 0; steps++) {
                assert_true(steps < 100000);
                while (next <= RECORDS && relay_count(desk->relay) < 256 && roll(&world, 4))
                        assert_int_equal(add_sized(desk, next++, 20), 0);
                switch (relay_next(desk->relay, desk->now, &post, &until)) {
                case RELAY_POST:
                        assert_true(post.count <= usual.batch_records);
                        answer(desk, collect(&world, &post));
                        break;
                case RELAY_WAIT:
                        if (roll(&world, 10) == 0)
                                relay_network_changed(desk->relay);
                        else
                                desk->now = until;
                        break;
                case RELAY_IDLE:
                        break;
                default:
                        fail();
                }
        }
        for (size_t i = 0; i < desk->delivered_count; i++) {
                assert_true(desk->delivered[i] > last); /* once, in order */
                last = desk->delivered[i];
                assert_true(world.is_stored[last]);
        }
        for (uint64_t s = 1, d = 0; s <= RECORDS; s++) {
                bool is_delivered = d < desk->delivered_count && desk->delivered[d] == s;
                size_t parked = 0;

                d += is_delivered;
                for (size_t i = 0; i < desk->parked_count; i++)
                        parked += desk->parked[i].sequence == s;
                assert_int_equal(parked, world.kind[s]); /* never, once, twice */
                assert_int_equal(is_delivered, world.kind[s] != ALL_BAD);
                assert_int_equal(world.has_evidence[s], world.kind[s] == SOUND);
        }
        close_desk(desk);
}

static void whatever_the_collector_does_each_record_ends_where_it_should(void **state) {
        (void)state;
        for (unsigned seed = 1; seed <= 200; seed++)
                run_world(seed);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_run_begins_with_the_empty_batch_and_then_rests),
                cmocka_unit_test(records_go_in_order_in_batches_of_the_size_allowed),
                cmocka_unit_test(a_batch_keeps_to_its_bytes_but_one_large_record_still_goes),
                cmocka_unit_test(records_that_come_out_of_order_are_put_in_order),
                cmocka_unit_test(a_record_held_already_is_left_alone),
                cmocka_unit_test(more_than_the_window_is_refused),
                cmocka_unit_test(more_bytes_than_allowed_are_refused),
                cmocka_unit_test(a_lost_reply_brings_the_same_batch_again),
                cmocka_unit_test(what_fails_again_and_again_is_tried_in_smaller_batches),
                cmocka_unit_test(the_wait_doubles_up_to_its_limit_and_never_ends_before_the_least),
                cmocka_unit_test(a_wait_of_zero_by_configuration_is_no_busy_loop),
                cmocka_unit_test(retry_after_is_honoured_but_not_beyond_an_hour),
                cmocka_unit_test(a_change_of_the_network_ends_a_wait_but_not_one_that_was_asked_for),
                cmocka_unit_test(patience_is_no_refusal),
                cmocka_unit_test(one_bad_record_is_found_by_halves_parked_and_its_receipt_delivered),
                cmocka_unit_test(a_receipt_refused_even_alone_is_said_to_be_parked_again_and_given_up),
                cmocka_unit_test(who_refuses_the_empty_batch_too_refuses_us_and_nothing_is_parked),
                cmocka_unit_test(a_refusal_that_was_everybodys_a_moment_ago_parks_nobody),
                cmocka_unit_test(a_failure_between_refusals_opens_the_case_anew),
                cmocka_unit_test(what_is_too_large_is_made_smaller_for_good),
                cmocka_unit_test(a_record_added_while_the_first_is_questioned_does_not_take_its_place),
                cmocka_unit_test(whatever_the_collector_does_each_record_ends_where_it_should),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

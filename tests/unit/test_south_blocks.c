/* SPDX-License-Identifier: Apache-2.0 */

/* Bodies and answers in blocks, with a clock of our own. */

#include "tests/unit/support.h"

#include "coap/blocks.h"
#include "coap/kept.h"
#include "gatewayd/format.h"

#define SEC UINT64_C(1000000)

struct world {
        struct blocks *blocks;
        struct kept_answers *kept;
        struct session sessions[8];
        uint64_t now;
        struct bytes whole;
        struct problem problem;
        struct answer answer;
        uint8_t data[20000];
};

static int set_up(void **state) {
        struct world *world = xcalloc(1, sizeof *world);

        world->blocks = blocks_new(3, 4096);
        world->kept = kept_new(4);
        world->now = 1000 * SEC;
        world->answer = ANSWER_NONE;
        for (size_t i = 0; i < sizeof world->data; i++)
                world->data[i] = (uint8_t)(i * 7 + i / 256);
        *state = world;
        return 0;
}

static int tear_down(void **state) {
        struct world *world = *state;

        blocks_free(world->blocks);
        kept_free(world->kept);
        answer_clear(&world->answer);
        free(world);
        return 0;
}

/* A block of `world->data`, 64 bytes each. */
static struct request a_block(struct world *world, uint32_t number, bool has_more, uint16_t message_id) {
        return (struct request){
                .message_id = message_id,
                .token = TEXT("t"),
                .method = CODE_POST,
                .path = TEXT("rats/evidence"),
                .content_format = FORMAT_CBOR,
                .block1 = { .is_present = true, .has_more = has_more, .number = number, .size_exponent = 2 },
                .payload = BYTES(world->data + number * 64, 64),
        };
}

static enum block_verdict take(struct world *world, unsigned session, const struct request *request) {
        world->problem = (struct problem){ 0 };
        return blocks_take(world->blocks, &world->sessions[session], request, world->now, &world->whole,
                           &world->problem);
}

static enum block_verdict put(struct world *world, unsigned session, uint32_t number, bool has_more,
                              uint16_t message_id) {
        struct request request = a_block(world, number, has_more, message_id);

        return take(world, session, &request);
}

static void blocks_in_order_become_a_body(void **state) {
        struct world *world = *state;

        assert_int_equal(put(world, 0, 0, true, 1), BLOCK_CONTINUE);
        assert_int_equal(put(world, 0, 1, true, 2), BLOCK_CONTINUE);
        assert_int_equal(blocks_open(world->blocks), 1);
        assert_int_equal(put(world, 0, 2, false, 3), BLOCK_COMPLETE);
        assert_int_equal(blocks_open(world->blocks), 0);
        assert_true(bytes_equal(world->whole, BYTES(world->data, 192)));
}

static void a_single_block_keeps_nothing(void **state) {
        struct world *world = *state;

        assert_int_equal(put(world, 0, 0, false, 1), BLOCK_COMPLETE);
        assert_true(bytes_equal(world->whole, BYTES(world->data, 64)));
        assert_int_equal(world->sessions[0].body_count, 0);
}

static void a_later_block_without_state_is_incomplete(void **state) {
        struct world *world = *state;

        assert_int_equal(put(world, 0, 1, true, 1), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_REQUEST_INCOMPLETE);
        assert_int_equal(put(world, 0, 1, false, 2), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_REQUEST_INCOMPLETE);
}

static void the_last_block_again_gives_the_body_again_and_nobody_else_gets_it(void **state) {
        struct world *world = *state;

        put(world, 0, 0, true, 1);
        put(world, 0, 1, false, 2);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(put(world, 0, 1, false, 2), BLOCK_COMPLETE);
                assert_int_equal(world->whole.size, 128);
        }
        /* Another message id is another request. */
        assert_int_equal(put(world, 0, 1, false, 3), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_REQUEST_INCOMPLETE);
        assert_int_equal(put(world, 1, 1, false, 2), BLOCK_REFUSED);
}

static void a_block_sent_again_with_other_bytes_is_not_mixed_in(void **state) {
        struct world *world = *state;
        struct request other;

        put(world, 0, 0, true, 1);
        put(world, 0, 1, true, 2);
        other = a_block(world, 1, true, 3);
        other.payload.data = world->data + 5;
        assert_int_equal(take(world, 0, &other), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_REQUEST_INCOMPLETE);
        assert_int_equal(world->sessions[0].body_count, 0);
}

static void a_first_block_with_other_bytes_begins_anew(void **state) {
        struct world *world = *state;
        struct request other = a_block(world, 0, true, 3);

        put(world, 0, 0, true, 1);
        put(world, 0, 1, true, 2);
        other.payload.data = world->data + 5;
        assert_int_equal(take(world, 0, &other), BLOCK_CONTINUE);
        assert_int_equal(put(world, 0, 1, false, 4), BLOCK_COMPLETE);
        assert_true(bytes_equal(BYTES(world->whole.data, 64), other.payload));
}

static void a_body_over_the_limit_is_too_large_whatever_it_claims(void **state) {
        struct world *world = *state;
        struct request request = a_block(world, 0, true, 1);

        request.size1 = UINT32_MAX;
        assert_int_equal(take(world, 0, &request), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_TOO_LARGE);
        assert_int_equal(world->problem.size1, 4096);
        for (uint32_t i = 0; i < 64; i++)
                assert_int_equal(put(world, 0, i, true, (uint16_t)(i + 2)), BLOCK_CONTINUE);
        assert_int_equal(put(world, 0, 64, true, 99), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_TOO_LARGE);
        assert_int_equal(world->sessions[0].body_count, 0);
        request = a_block(world, 0, false, 1);
        request.block1.number = 0xfffff;
        request.block1.size_exponent = 6;
        assert_int_equal(take(world, 0, &request), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_TOO_LARGE);
}

static void a_third_body_costs_the_session_its_oldest(void **state) {
        struct world *world = *state;

        for (unsigned i = 0; i < 3; i++) {
                struct request request = a_block(world, 0, true, 1);
                char tag = (char)('a' + i);

                request.request_tag = BYTES(&tag, 1);
                world->now += SEC;
                assert_int_equal(take(world, 0, &request), BLOCK_CONTINUE);
        }
        assert_int_equal(world->sessions[0].body_count, BODIES_PER_SESSION);
        for (unsigned i = 0; i < 3; i++) {
                struct request request = a_block(world, 1, false, 2);
                char tag = (char)('a' + i);

                request.request_tag = BYTES(&tag, 1);
                assert_int_equal(take(world, 0, &request), i == 0 ? BLOCK_REFUSED : BLOCK_COMPLETE);
        }
}

static void with_all_places_taken_only_a_silent_body_makes_room(void **state) {
        struct world *world = *state;

        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(put(world, i, 0, true, 1), BLOCK_CONTINUE);
        assert_int_equal(put(world, 3, 0, true, 1), BLOCK_REFUSED);
        assert_int_equal(world->problem.code, CODE_UNAVAILABLE);
        assert_true(world->problem.max_age_sec > 0);
        world->now += BODY_PATIENCE_USEC;
        assert_int_equal(put(world, 1, 1, true, 2), BLOCK_CONTINUE);
        assert_int_equal(put(world, 3, 0, true, 1), BLOCK_CONTINUE);
        assert_int_equal(put(world, 0, 1, true, 2), BLOCK_REFUSED);
        assert_int_equal(put(world, 1, 2, true, 3), BLOCK_CONTINUE);
}

static void a_body_is_forgotten_in_time_and_with_its_session(void **state) {
        struct world *world = *state;

        assert_int_equal(blocks_tick(world->blocks, world->now), UINT64_MAX);
        put(world, 0, 0, true, 1);
        put(world, 1, 0, true, 1);
        assert_int_equal(blocks_tick(world->blocks, world->now), world->now + BODY_LIFETIME_USEC);
        blocks_forget(world->blocks, &world->sessions[0]);
        assert_int_equal(blocks_open(world->blocks), 1);
        world->now += BODY_LIFETIME_USEC;
        assert_int_equal(blocks_tick(world->blocks, world->now), UINT64_MAX);
        assert_int_equal(blocks_open(world->blocks), 0);
        assert_int_equal(put(world, 1, 1, false, 2), BLOCK_REFUSED);
}

/* ---- answers ---- */

static const struct kept_key me = { CODE_GET, { (const uint8_t *)"me", 2 }, { NULL, 0 } };

static void cut(struct world *world, size_t size, struct block wanted, uint8_t largest, uint8_t preferred) {
        answer_clear(&world->answer);
        world->answer.code = CODE_CONTENT;
        world->answer.max_age_sec = 60;
        world->answer.payload = BYTES(world->data, size);
        kept_cut(world->kept, &world->sessions[0], &me, &wanted, largest, preferred, world->now, &world->answer);
}

static struct block wanted(uint32_t number, uint8_t exponent) {
        return (struct block){ .is_present = true, .number = number, .size_exponent = exponent };
}

static void an_answer_that_fits_is_left_alone(void **state) {
        struct world *world = *state;

        cut(world, 512, (struct block){ 0 }, 6, 5);
        assert_int_equal(world->answer.payload.size, 512);
        assert_false(world->answer.block2.is_present);
        assert_int_equal(world->sessions[0].kept_count, 0);
}

static void every_block_of_an_answer_can_be_fetched_at_every_size(void **state) {
        struct world *world = *state;

        for (uint8_t exponent = 0; exponent <= 6; exponent++) {
                size_t size = block_bytes(exponent), got = 0;
                uint8_t etag[ETAG_BYTES];

                cut(world, 3000, wanted(0, exponent), 6, 5);
                assert_int_equal(world->answer.size2, 3000);
                memcpy(etag, world->answer.etag, sizeof etag);
                for (uint32_t i = 0; got < 3000; i++) {
                        if (i > 0)
                                assert_true(kept_serve(world->kept, &world->sessions[0], &me,
                                                       &(struct block){ true, false, false, i, exponent }, 6,
                                                       world->now, &world->answer));
                        assert_memory_equal(world->answer.payload.data, world->data + got, world->answer.payload.size);
                        assert_memory_equal(world->answer.etag, etag, sizeof etag);
                        got += world->answer.payload.size;
                        assert_int_equal(world->answer.block2.has_more, got < 3000);
                        assert_int_equal(world->answer.block2.number, i);
                        assert_true(got == 3000 || world->answer.payload.size == size);
                }
        }
        assert_int_equal(world->sessions[0].kept_count, 1);
}

static void no_block_is_larger_than_what_fits(void **state) {
        struct world *world = *state;

        cut(world, 3000, wanted(0, 6), 4, 5);
        assert_int_equal(world->answer.payload.size, 256);
        /* The client goes on by what it got, or by what it had asked for: the offset counts. */
        assert_true(kept_serve(world->kept, &world->sessions[0], &me, &(struct block){ true, false, false, 1, 6 }, 4,
                               world->now, &world->answer));
        assert_int_equal(world->answer.block2.number, 4);
        assert_memory_equal(world->answer.payload.data, world->data + 1024, 256);
}

static void max_age_counts_down_while_an_answer_is_kept(void **state) {
        struct world *world = *state;
        struct block second = wanted(1, 5);

        cut(world, 3000, wanted(0, 5), 6, 5);
        world->now += 45 * SEC;
        assert_true(kept_serve(world->kept, &world->sessions[0], &me, &second, 6, world->now, &world->answer));
        assert_int_equal(world->answer.max_age_sec, 15);
        world->now += 45 * SEC;
        assert_true(kept_serve(world->kept, &world->sessions[0], &me, &second, 6, world->now, &world->answer));
        assert_int_equal(world->answer.max_age_sec, 0);
}

static void a_block_beyond_the_end_is_a_bad_request(void **state) {
        struct world *world = *state;
        struct block beyond = wanted(6, 5), far = wanted(0xfffff, 6);

        cut(world, 3000, wanted(0, 5), 6, 5);
        assert_true(kept_serve(world->kept, &world->sessions[0], &me, &beyond, 6, world->now, &world->answer));
        assert_int_equal(world->answer.code, CODE_BAD_REQUEST);
        assert_int_equal(world->answer.content_format, FORMAT_PROBLEM);
        assert_true(kept_serve(world->kept, &world->sessions[0], &me, &far, 6, world->now, &world->answer));
        assert_int_equal(world->answer.code, CODE_BAD_REQUEST);
        cut(world, 10, wanted(3, 0), 6, 5);
        assert_int_equal(world->answer.code, CODE_BAD_REQUEST);
}

static void answers_are_kept_within_bounds_and_for_a_time(void **state) {
        struct world *world = *state;
        struct block second = wanted(1, 5);

        for (unsigned i = 0; i < 8; i++) {
                struct answer answer = { .code = CODE_CONTENT,
                                         .content_format = -1,
                                         .max_age_sec = -1,
                                         .observe = -1,
                                         .payload = BYTES(world->data, 3000) };

                kept_cut(world->kept, &world->sessions[i], &me, &(struct block){ 0 }, 6, 5, world->now, &answer);
        }
        for (unsigned i = 0; i < 8; i++)
                assert_int_equal(
                        kept_serve(world->kept, &world->sessions[i], &me, &second, 6, world->now, &world->answer),
                        i >= 4);
        world->now += KEPT_LIFETIME_USEC;
        assert_int_equal(kept_tick(world->kept, world->now), UINT64_MAX);
        assert_false(kept_serve(world->kept, &world->sessions[7], &me, &second, 6, world->now, &world->answer));
}

static void a_session_keeps_two_answers_and_forgets_them_all_when_it_goes(void **state) {
        struct world *world = *state;

        for (unsigned i = 0; i < 3; i++) {
                char path = (char)('a' + i);
                struct kept_key key = { CODE_GET, BYTES(&path, 1), { NULL, 0 } };
                struct answer answer = { .payload = BYTES(world->data, 3000) };

                world->now += SEC;
                kept_cut(world->kept, &world->sessions[0], &key, &(struct block){ 0 }, 6, 5, world->now, &answer);
        }
        assert_int_equal(world->sessions[0].kept_count, KEPT_PER_SESSION);
        kept_forget(world->kept, &world->sessions[0]);
        assert_int_equal(world->sessions[0].kept_count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(blocks_in_order_become_a_body),
                TEST(a_single_block_keeps_nothing),
                TEST(a_later_block_without_state_is_incomplete),
                TEST(the_last_block_again_gives_the_body_again_and_nobody_else_gets_it),
                TEST(a_block_sent_again_with_other_bytes_is_not_mixed_in),
                TEST(a_first_block_with_other_bytes_begins_anew),
                TEST(a_body_over_the_limit_is_too_large_whatever_it_claims),
                TEST(a_third_body_costs_the_session_its_oldest),
                TEST(with_all_places_taken_only_a_silent_body_makes_room),
                TEST(a_body_is_forgotten_in_time_and_with_its_session),
                TEST(an_answer_that_fits_is_left_alone),
                TEST(every_block_of_an_answer_can_be_fetched_at_every_size),
                TEST(no_block_is_larger_than_what_fits),
                TEST(max_age_counts_down_while_an_answer_is_kept),
                TEST(a_block_beyond_the_end_is_a_bad_request),
                TEST(answers_are_kept_within_bounds_and_for_a_time),
                TEST(a_session_keeps_two_answers_and_forgets_them_all_when_it_goes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

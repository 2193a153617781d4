/* SPDX-License-Identifier: Apache-2.0 */

/* What stands in a POST and in its reply. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/north/batch.h"

static const uint8_t incarnation_bytes[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
#define INCARNATION BYTES(incarnation_bytes, 8)

static struct relay_record second = { .sequence = 8, .receipt = { (const uint8_t *)"rr", 2 } };
static struct relay_record first = {
        .next = &second,
        .sequence = 7,
        .receipt = { (const uint8_t *)"r", 1 },
        .evidence = { (const uint8_t *)"ev", 2 },
};

static void assert_encodes(const struct relay_post *post, struct bytes expected) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        batch_encode(post, &body);
        assert_true(bytes_equal(buffer_bytes(&body), expected));
}

static void a_batch_is_an_array_of_receipts_with_their_evidence(void **state) {
        (void)state;
        assert_encodes(&(struct relay_post){ 0 }, TEXT("\x80"));
        assert_encodes(&(struct relay_post){ .first = &first, .count = 1 }, TEXT("\x81\xa2\x01\x41r\x02\x42"
                                                                                 "ev"));
        assert_encodes(&(struct relay_post){ .first = &first, .count = 2 }, TEXT("\x82\xa2\x01\x41r\x02\x42"
                                                                                 "ev"
                                                                                 "\xa1\x01\x42rr"));
}

static void key_of(const char *gateway, struct bytes incarnation, size_t count, struct bytes body, char *to) {
        batch_key(bytes_of(gateway), incarnation, &(struct relay_post){ .first = &first, .count = count }, body, to);
}

static void a_key_is_the_same_for_the_same_batch_and_for_no_other(void **state) {
        static const uint8_t other_bytes[8] = { 1, 2, 3, 4, 5, 6, 7, 9 };
        char keys[6][BATCH_KEY_SIZE];

        (void)state;
        key_of("gw", INCARNATION, 2, TEXT("body"), keys[0]);
        key_of("gw", INCARNATION, 2, TEXT("body"), keys[1]);
        assert_string_equal(keys[0], keys[1]);
        assert_int_equal(strlen(keys[0]), BATCH_KEY_SIZE - 1);
        assert_int_equal(keys[0][0], '"');
        assert_int_equal(keys[0][BATCH_KEY_SIZE - 2], '"');
        assert_int_equal(strspn(keys[0] + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);

        key_of("gw2", INCARNATION, 2, TEXT("body"), keys[1]);
        key_of("gw", BYTES(other_bytes, 8), 2, TEXT("body"), keys[2]);
        key_of("gw", INCARNATION, 1, TEXT("body"), keys[3]);
        key_of("gw", INCARNATION, 2, TEXT("bodY"), keys[4]);
        key_of("gw\x48\x01", INCARNATION, 2, TEXT("body"), keys[5]);
        for (size_t i = 0; i < 6; i++)
                for (size_t j = 0; j < i; j++)
                        assert_string_not_equal(keys[i], keys[j]);
}

static void results_are_read(void **state) {
        struct batch_result results[BATCH_RESULTS_MAX];
        struct problem problem = { 0 };

        (void)state;
        assert_int_equal(batch_read_results(BYTES(NULL, 0), results, &problem), 0);
        assert_int_equal(batch_read_results(TEXT("\x80"), results, &problem), 0);
        assert_int_equal(batch_read_results(TEXT("\x82\xa2\x01\x07\x02\x02\xa3\x01\x19\x01\x00\x02\x18\x60\x03\x61x"),
                                            results, &problem),
                         2);
        assert_int_equal(results[0].sequence, 7);
        assert_int_equal(results[0].tier, 2);
        assert_int_equal(results[1].sequence, 256);
        assert_int_equal(results[1].tier, 96);
        assert_int_equal(batch_read_results(TEXT("\x9f\xbf\x01\x05\x02\x18\x20\xff\xff"), results, &problem), 1);
        assert_int_equal(results[0].tier, 32);
}

static void a_reply_that_is_wrong_anywhere_counts_nowhere(void **state) {
        static const struct bytes wrong[] = {
                { (const uint8_t *)"\xa0", 1 }, /* no array */
                { (const uint8_t *)"\x01", 1 },
                { (const uint8_t *)"\x81\x80", 2 },                             /* no map */
                { (const uint8_t *)"\x81\xa0", 2 },                             /* nothing in it */
                { (const uint8_t *)"\x81\xa1\x01\x07", 4 },                     /* no tier */
                { (const uint8_t *)"\x81\xa1\x02\x02", 4 },                     /* no sequence */
                { (const uint8_t *)"\x81\xa2\x01\x00\x02\x02", 6 },             /* sequence 0 */
                { (const uint8_t *)"\x81\xa2\x01\x20\x02\x02", 6 },             /* sequence -1 */
                { (const uint8_t *)"\x81\xa2\x01\x07\x02\x03", 6 },             /* no such tier */
                { (const uint8_t *)"\x81\xa2\x01\x07\x02\x19\x01\x02", 8 },     /* 258 is not 2 */
                { (const uint8_t *)"\x81\xa2\x01\x07\x02\x61\x32", 7 },         /* "2" */
                { (const uint8_t *)"\x82\xa2\x01\x07\x02\x02\xa0", 7 },         /* the second */
                { (const uint8_t *)"\x81\xa2\x01\x07\x02\x02\x00", 7 },         /* bytes behind */
                { (const uint8_t *)"\x81\xa2\x01\x07\x01\x08\x02\x02", 8 },     /* a claim too few */
                { (const uint8_t *)"\x81\xa3\x01\x07\x01\x08\x02\x02", 8 },     /* a key twice */
                { (const uint8_t *)"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", 9 }, /* a claimed length */
        };
        struct batch_result results[BATCH_RESULTS_MAX];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(wrong); i++) {
                struct problem problem = { 0 };

                assert_int_equal(batch_read_results(wrong[i], results, &problem), -EBADMSG);
                assert_true(problem.detail[0] != 0);
        }
}

static void more_results_than_there_is_room_for_are_refused(void **state) {
        struct batch_result results[BATCH_RESULTS_MAX];
        uint8_t body[3 + 6 * (BATCH_RESULTS_MAX + 1)] = { 0x99, (BATCH_RESULTS_MAX + 1) >> 8,
                                                          (BATCH_RESULTS_MAX + 1) & 255 };
        struct problem problem = { 0 };

        (void)state;
        for (size_t i = 0; i <= BATCH_RESULTS_MAX; i++)
                memcpy(body + 3 + 6 * i, "\xa2\x01\x07\x02\x02", 5);
        /* 5 bytes each: packed anew without the sixth. */
        for (size_t i = 0; i <= BATCH_RESULTS_MAX; i++)
                memmove(body + 3 + 5 * i, body + 3 + 6 * i, 5);
        assert_int_equal(batch_read_results(BYTES(body, 3 + 5 * (BATCH_RESULTS_MAX + 1)), results, &problem), -EBADMSG);
        body[1] = BATCH_RESULTS_MAX >> 8;
        body[2] = BATCH_RESULTS_MAX & 255;
        assert_int_equal(batch_read_results(BYTES(body, 3 + 5 * BATCH_RESULTS_MAX), results, &problem),
                         BATCH_RESULTS_MAX);
}

static void nothing_in_a_gateway_id_can_end_a_header_field(void **state) {
        char to[3 * 16 + 1];

        (void)state;
        batch_percent_encode(TEXT("plant-7.a_b~"), to);
        assert_string_equal(to, "plant-7.a_b~");
        batch_percent_encode(TEXT("a\r\nX: \0%\xc3\xa4"), to);
        assert_string_equal(to, "a%0D%0AX%3A%20%00%25%C3%A4");
        batch_percent_encode(BYTES(NULL, 0), to);
        assert_string_equal(to, "");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_batch_is_an_array_of_receipts_with_their_evidence),
                cmocka_unit_test(a_key_is_the_same_for_the_same_batch_and_for_no_other),
                cmocka_unit_test(results_are_read),
                cmocka_unit_test(a_reply_that_is_wrong_anywhere_counts_nowhere),
                cmocka_unit_test(more_results_than_there_is_room_for_are_refused),
                cmocka_unit_test(nothing_in_a_gateway_id_can_end_a_header_field),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

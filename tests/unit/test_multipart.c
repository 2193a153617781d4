/* SPDX-License-Identifier: Apache-2.0 */

/* multipart-core (RFC 8710): the bytes of the standards, what is read, and what is refused whole. */

#include "tests/unit/support.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/keys/multipart.h"

static ssize_t read_hex(const char *hex, uint8_t raw[256], struct multipart_part *parts, size_t max,
                        struct problem *problem) {
        ssize_t size = hex_decode(BYTES(hex, strlen(hex)), raw, 256);

        assert_true(size >= 0);
        *problem = (struct problem){ 0 };
        return multipart_read(BYTES(raw, (size_t)size), parts, max, problem);
}

static void two_parts_are_the_bytes_of_the_standards_example(void **state) {
        /* RFC 9148 §4.3, Figure 2: [284, h'0123456789abcdef', 281, h'fedcba9876543210']. */
        static const uint8_t example[] = { 0x84, 0x19, 0x01, 0x1c, 0x48, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                           0x19, 0x01, 0x19, 0x48, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10 };
        const struct multipart_part parts[] = {
                { 284, true, BYTES(example + 5, 8) },
                { 281, true, BYTES(example + 17, 8) },
        };
        struct buffer written = { 0 };

        (void)state;
        multipart_write(parts, 2, &written);
        assert_int_equal(written.size, sizeof example);
        assert_memory_equal(written.data, example, sizeof example);
        buffer_free(&written);
}

static void what_was_written_is_read_back_and_null_is_a_part_that_is_not_given(void **state) {
        const struct multipart_part parts[] = {
                { 0, true, TEXT("text") },
                { UINT16_MAX, false, { NULL, 0 } },
                { 23, true, { NULL, 0 } },
        };
        struct multipart_part read[3];
        struct buffer written = { 0 };

        (void)state;
        multipart_write(parts, 3, &written);
        assert_int_equal(multipart_read(buffer_bytes(&written), read, 3, NULL), 3);
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(read[i].content_format, parts[i].content_format);
                assert_int_equal(read[i].is_present, parts[i].is_present);
                assert_true(bytes_equal(read[i].body, parts[i].body));
        }
        buffer_free(&written);
}

static void an_empty_collection_is_one_too(void **state) {
        struct multipart_part part;
        struct problem problem;
        uint8_t raw[256];

        (void)state;
        assert_int_equal(read_hex("80", raw, &part, 1, &problem), 0);
        assert_int_equal(read_hex("9fff", raw, &part, 1, &problem), 0);
}

static void lengths_need_not_be_the_shortest_and_the_array_may_be_of_indefinite_length(void **state) {
        static const char *const bodies[] = { "82182a4401020304", "8219002a4401020304", "9f182a4401020304ff",
                                              "98021a0000002a580401020304" };
        struct multipart_part part;
        struct problem problem;
        uint8_t raw[256];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(bodies); i++) {
                assert_int_equal(read_hex(bodies[i], raw, &part, 1, &problem), 1);
                assert_int_equal(part.content_format, 42);
                assert_true(bytes_equal(part.body, TEXT("\1\2\3\4")));
        }
}

static void anything_else_is_refused_whole(void **state) {
        static const char *const bodies[] = {
                "",                           /* nothing */
                "a0",                         /* a map */
                "f6",                         /* null */
                "43010203",                   /* bytes */
                "81182a",                     /* a format without a part */
                "83182a4101182a",             /* the last part has none */
                "82204101",                   /* a negative format */
                "821a000100004101",           /* a format of 17 bits */
                "82414241ff",                 /* a format that is bytes */
                "82f64101",                   /* a format that is null */
                "82182a6161",                 /* text for a body */
                "82182af7",                   /* undefined for a body */
                "82182a80",                   /* an array for a body */
                "82182a5f4101ff",             /* a body in chunks */
                "82182a410100",               /* residual data */
                "82182a42ff",                 /* a body longer than there is */
                "82182a5bffffffffffffffff01", /* and one that is longer than anything */
                "9b7fffffffffffffff182a4101", /* an array likewise */
                "9f182a4101",                 /* no end */
                "9f182aff",                   /* an end in mid-pair */
        };
        struct multipart_part parts[4];
        struct problem problem;
        uint8_t raw[256];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(bodies); i++) {
                assert_int_equal(read_hex(bodies[i], raw, parts, 4, &problem), -EBADMSG);
                assert_int_equal(problem.code, CODE_BAD_REQUEST);
                assert_true(problem.detail[0] != 0);
        }
}

static void more_parts_than_there_is_room_for_are_refused(void **state) {
        struct multipart_part parts[2];
        struct problem problem;
        uint8_t raw[256];

        (void)state;
        assert_int_equal(read_hex("860041010041020041ff", raw, parts, 2, &problem), -E2BIG);
        assert_int_equal(problem.code, CODE_BAD_REQUEST);
        assert_int_equal(read_hex("8400410100f6", raw, parts, 2, &problem), 2);
}

static void a_body_cut_off_anywhere_is_refused(void **state) {
        static const uint8_t whole[] = { 0x84, 0x19, 0x01, 0x1c, 0x43, 1, 2, 3, 0x19, 0x01, 0x19, 0x42, 4, 5 };
        struct multipart_part parts[2];

        (void)state;
        assert_int_equal(multipart_read(BYTES(whole, sizeof whole), parts, 2, NULL), 2);
        for (size_t size = 0; size < sizeof whole; size++)
                assert_int_equal(multipart_read(BYTES(whole, size), parts, 2, NULL), -EBADMSG);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(two_parts_are_the_bytes_of_the_standards_example),
                cmocka_unit_test(what_was_written_is_read_back_and_null_is_a_part_that_is_not_given),
                cmocka_unit_test(an_empty_collection_is_one_too),
                cmocka_unit_test(lengths_need_not_be_the_shortest_and_the_array_may_be_of_indefinite_length),
                cmocka_unit_test(anything_else_is_refused_whole),
                cmocka_unit_test(more_parts_than_there_is_room_for_are_refused),
                cmocka_unit_test(a_body_cut_off_anywhere_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* CBOR: what is refused, what is read, what is written; and problem details. */

#include "tests/unit/evidence_support.h"

#include <errno.h>
#include <sys/resource.h>

static void assert_refused(const char *text, const char *why) {
        cbor_item_t *item = NULL;
        struct problem problem = { 0 };

        assert_int_equal(cbor_read(hex(text), &item, &problem), -EBADMSG);
        assert_null(item);
        assert_int_equal(problem.code, CODE_BAD_REQUEST);
        if (!strstr(problem.detail, why))
                fail_msg("%s: \"%s\" does not say \"%s\"", text, problem.detail, why);
        assert_int_equal(cbor_check(hex(text), NULL), -EBADMSG);
}

static void assert_read(const char *text) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct problem problem = { 0 };

        if (cbor_read(hex(text), &item, &problem) < 0)
                fail_msg("%s: %s", text, problem.detail);
        assert_non_null(item);
}

static void well_formed_items_of_every_kind_are_read(void **state) {
        static const char *const items[] = {
                "00",
                "17",
                "1818",
                "1903e8",
                "1a000f4240",
                "1bffffffffffffffff",
                "20",
                "3903e7",
                "3bffffffffffffffff",
                "40",
                "4401020304",
                "60",
                "6161",
                "62c3bc",
                "63e6b0b4",
                "64f0908591",
                "80",
                "83010203",
                "8301820203820405",
                "a0",
                "a201020304",
                "a26161016162820203",
                "c11a514b67b0",
                "d82076687474703a2f2f7777772e6578616d706c652e636f6d",
                "f4",
                "f5",
                "f6",
                "f7",
                "f90000",
                "fa47c35000",
                "fb3ff199999999999a",
                "5f42010243030405ff",
                "7f657374726561646d696e67ff",
                "9fff",
                "9f018202039f0405ffff",
                "bf61610161629f0203ffff",
                "bfff",
                "1800",
                "190001", /* longer than need be, but well-formed */
        };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(items); i++)
                assert_read(items[i]);
}

static void an_input_that_ends_early_is_refused(void **state) {
        static const char *const items[] = {
                "",       "18",   "1903", "1a0000", "1b00000000000000", "41",
                "6261",   "8201", "a101", "c1",     "5f4101",           "9f01",
                "bf0102", "d8",   "f9",   "fb00",   "a2010203",
        };
        cbor_item_t *item = NULL;

        (void)state;
        for (size_t i = 0; i < ELEMENTS(items); i++)
                assert_int_equal(cbor_read(hex(items[i]), &item, NULL), -EBADMSG);
}

static void a_reserved_or_misplaced_byte_is_refused(void **state) {
        (void)state;
        assert_refused("1c", "reserved");
        assert_refused("5d", "reserved");
        assert_refused("fe", "reserved");
        assert_refused("1f", "indefinite");
        assert_refused("3f", "indefinite");
        assert_refused("df00", "indefinite");
        assert_refused("e0", "simple");
        assert_refused("f800", "simple");
        assert_refused("f8ff", "simple");
        assert_refused("ff", "break");
        assert_refused("81ff", "break");
        assert_refused("bf01ff", "break");
        assert_refused("c1ff", "break");
        assert_refused("5f6161ff", "chunk");
        assert_refused("5f5f4101ffff", "chunk");
        assert_refused("7f4101ff", "chunk");
        assert_refused("5f00ff", "chunk");
}

static void bytes_after_the_item_are_refused(void **state) {
        (void)state;
        assert_refused("0000", "1 bytes follow");
        assert_refused("a10102f6", "follow");
}

static void depth_8_is_read_and_depth_9_refused(void **state) {
        (void)state;
        assert_read("818181818181818100");
        assert_refused("81818181818181818100", "8 levels");
        assert_read("a100a100a100a100a100a100a100a10000");
        assert_refused("c1c1c1c1c1c1c1c1c100", "8 levels");
        assert_refused("9f9f9f9f9f9f9f9f9f", "8 levels");
        assert_refused("a100a100a100a100a100a100a100a1005f4100ff", "8 levels");
}

static void the_same_key_twice_is_refused_however_it_is_encoded(void **state) {
        (void)state;
        assert_refused("a201000100", "same key");
        assert_refused("a20100180100", "same key");
        assert_refused("a21b00000000000000010019000100", "same key");
        assert_refused("a22000380000", "same key");
        assert_refused("a2616100616100", "same key");
        assert_refused("a241610058016100", "same key");
        assert_refused("bf010002000100ff", "same key");
        assert_refused("81a201000100", "same key");
        assert_refused("a101a201000100", "same key");
        assert_read("a3010020006100f6");
        assert_read("a2416100616100");     /* bytes and text differ */
        assert_read("a201a1010002a10100"); /* the same key in two maps */
}

static void keys_of_other_kinds_are_refused(void **state) {
        (void)state;
        assert_refused("a1f600", "map key");
        assert_refused("a18000", "map key");
        assert_refused("a1a000", "map key");
        assert_refused("a1c10000", "map key");
        assert_refused("a1f9000000", "map key");
        assert_refused("a15f4100ff00", "map key");
}

static void text_that_is_not_utf8_is_refused(void **state) {
        (void)state;
        assert_refused("6180", "UTF-8");
        assert_refused("61ff", "UTF-8");
        assert_refused("62c080", "UTF-8");     /* overlong */
        assert_refused("63eda080", "UTF-8");   /* surrogate */
        assert_refused("64f4908080", "UTF-8"); /* past U+10FFFF */
        assert_refused("62c3", "more than");
        assert_refused("7f61c361bcff", "UTF-8"); /* a character across chunks */
        assert_refused("a161ff00", "UTF-8");
}

static long resident_kib(void) {
        struct rusage usage;

        getrusage(RUSAGE_SELF, &usage);
        return usage.ru_maxrss;
}

static void a_claimed_length_takes_no_memory(void **state) {
        static const char *const items[] = {
                "9affffffff",         "9b7fffffffffffffff", "9bffffffffffffffff", "baffffffff",
                "bb7fffffffffffffff", "bbffffffffffffffff", "5affffffff",         "5bffffffffffffffff",
                "7bffffffffffffffff", "9b8000000000000000", "bb8000000000000000", "8199ffff00",
        };
        long before = resident_kib();

        (void)state;
        for (size_t i = 0; i < ELEMENTS(items); i++)
                assert_refused(items[i], "claims more");
        assert_true(resident_kib() - before < 16 * 1024);
}

static void a_map_of_many_keys_is_read_in_good_time(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;

        (void)state;
        cbor_put_map(&to, 16000);
        for (uint64_t i = 0; i < 16000; i++) {
                cbor_put_uint(&to, i * 7919 % 16000);
                cbor_put_uint(&to, 0);
        }
        assert_int_equal(cbor_read(buffer_bytes(&to), &item, NULL), 0);
        assert_int_equal(cbor_map_size(item), 16000);
}

static void a_sequence_is_read_item_by_item(void **state) {
        struct bytes rest = hex("018202036161");
        size_t sizes[] = { 1, 3, 2 };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(sizes); i++) {
                _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
                size_t size;

                assert_int_equal(cbor_read_prefix(rest, &item, &size, NULL), 0);
                assert_int_equal(size, sizes[i]);
                rest = BYTES(rest.data + size, rest.size - size);
        }
        assert_int_equal(rest.size, 0);
}

/* libcbor 0.8 by itself takes some of them for malformed. */
static void tags_of_every_form_are_read(void **state) {
        static const uint64_t tags[] = { 0, 5, 6, 17, 18, 20, 21, 23, 24, 61, 255, 256, 601, 65536, UINT64_MAX };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(tags); i++) {
                _cleanup_(buffer_free) struct buffer to = {};
                _cleanup_(cbor_itemp) cbor_item_t *item = NULL;

                cbor_put_tag(&to, tags[i]);
                cbor_put_array(&to, 1);
                cbor_put_tag(&to, 18);
                cbor_put_bytes(&to, hex("d2"));
                assert_int_equal(cbor_read(buffer_bytes(&to), &item, NULL), 0);
                assert_true(cbor_isa_tag(item));
                assert_true(cbor_tag_value(item) == tags[i]);
        }
}

static void members_are_found_by_key_and_type(void **state) {
        _cleanup_(cbor_itemp) cbor_item_t *map = NULL;
        struct bytes bytes;
        int64_t number;

        (void)state;
        assert_int_equal(cbor_read(hex("a6010a2042beef6161627879180218ff3b7fffffffffffffff1b7fffffffffffffff42aabb20"),
                                   &map, NULL),
                         0);
        assert_true(cbor_value_int(cbor_map_int(map, 1), &number) && number == 10);
        assert_true(cbor_value_bytes(cbor_map_int(map, -1), &bytes) && bytes_equal(bytes, hex("beef")));
        assert_true(cbor_value_text(cbor_map_text(map, "a"), &bytes) && bytes_equal(bytes, TEXT("xy")));
        assert_true(cbor_value_int(cbor_map_int(map, 2), &number) && number == 255);
        assert_true(cbor_value_int(cbor_map_int(map, INT64_MIN), &number) && number == INT64_MAX);
        assert_null(cbor_map_int(map, 3));
        assert_null(cbor_map_text(map, "b"));
        assert_false(cbor_value_int(cbor_map_int(map, -1), &number));
        assert_false(cbor_value_bytes(cbor_map_int(map, 1), &bytes));
        assert_false(cbor_value_text(NULL, &bytes));
        assert_null(cbor_map_int(cbor_map_int(map, 1), 0));
}

static void an_integer_past_64_signed_bits_is_no_int(void **state) {
        static const char *const items[] = { "1b8000000000000000", "3b8000000000000000", "1bffffffffffffffff" };
        int64_t number;

        (void)state;
        for (size_t i = 0; i < ELEMENTS(items); i++) {
                _cleanup_(cbor_itemp) cbor_item_t *item = NULL;

                assert_int_equal(cbor_read(hex(items[i]), &item, NULL), 0);
                assert_false(cbor_value_int(item, &number));
                assert_false(cbor_view_int(hex(items[i]), &number));
        }
}

static void indefinite_strings_are_read_but_are_no_values(void **state) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct bytes bytes;

        (void)state;
        assert_int_equal(cbor_read(hex("5f41014102ff"), &item, NULL), 0);
        assert_false(cbor_value_bytes(item, &bytes));
        assert_false(cbor_view_bytes(hex("5f41014102ff"), &bytes));
}

static void views_borrow_from_the_input(void **state) {
        struct bytes input = hex("d83da2187842cafe209f6161f618ffff"), content, member, bytes, item;
        struct cbor_cursor cursor;
        int64_t number;
        uint64_t tag;

        (void)state;
        assert_int_equal(cbor_check(input, NULL), 0);
        assert_true(cbor_view_tag(input, &tag, &content));
        assert_int_equal(tag, 61);
        assert_true(cbor_view_is_map(content));
        assert_true(cbor_view_bytes(cbor_view_member(content, 120), &bytes));
        assert_ptr_equal(bytes.data, input.data + 6);
        assert_int_equal(cbor_view_member(content, 5).size, 0);

        member = cbor_view_member(content, -1);
        assert_true(cbor_view_is_array(member));
        assert_true(cbor_view_enter(member, &cursor));
        assert_true(cbor_view_next(&cursor, &item) && cbor_view_text(item, &bytes) && bytes_equal(bytes, TEXT("a")));
        assert_true(cbor_view_next(&cursor, &item) && cbor_view_is_null(item));
        assert_true(cbor_view_next(&cursor, &item) && cbor_view_int(item, &number) && number == 255);
        assert_false(cbor_view_next(&cursor, &item));
        assert_false(cbor_view_next(&cursor, &item));
}

static void a_view_of_nothing_is_of_no_type(void **state) {
        struct bytes nothing = {}, bytes;
        struct cbor_cursor cursor;
        int64_t number;
        uint64_t tag;

        (void)state;
        assert_false(cbor_view_int(nothing, &number));
        assert_false(cbor_view_bytes(nothing, &bytes));
        assert_false(cbor_view_text(nothing, &bytes));
        assert_false(cbor_view_tag(nothing, &tag, &bytes));
        assert_false(cbor_view_enter(nothing, &cursor));
        assert_false(cbor_view_is_null(nothing) || cbor_view_is_array(nothing) || cbor_view_is_map(nothing));
        assert_int_equal(cbor_view_member(nothing, 1).size, 0);
        assert_false(cbor_view_bytes(hex("5903"), &bytes));
        assert_false(cbor_view_bytes(hex("43"), &bytes));
        assert_false(cbor_view_enter(hex("9bffffffffffffffff"), &cursor));
        assert_false(cbor_view_enter(hex("bb8000000000000000"), &cursor));
}

static void assert_written(const struct buffer *to, const char *expected) {
        if (!bytes_equal(buffer_bytes(to), hex(expected))) {
                char text[512];

                bytes_to_hex(buffer_bytes(to), text);
                fail_msg("wrote %s, expected %s", text, expected);
        }
}

/* Values and encodings: RFC 8949 Appendix A. */
static void numbers_are_written_in_their_shortest_form(void **state) {
        static const struct {
                int64_t value;
                const char *encoded;
        } numbers[] = {
                { 0, "00" },
                { 23, "17" },
                { 24, "1818" },
                { 255, "18ff" },
                { 256, "190100" },
                { 65535, "19ffff" },
                { 65536, "1a00010000" },
                { 4294967295, "1affffffff" },
                { 4294967296, "1b0000000100000000" },
                { INT64_MAX, "1b7fffffffffffffff" },
                { -1, "20" },
                { -24, "37" },
                { -25, "3818" },
                { -256, "38ff" },
                { -257, "390100" },
                { -1000, "3903e7" },
                { INT64_MIN, "3b7fffffffffffffff" },
        };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(numbers); i++) {
                _cleanup_(buffer_free) struct buffer to = {};

                cbor_put_int(&to, numbers[i].value);
                assert_written(&to, numbers[i].encoded);
        }
}

static void every_kind_of_item_is_written(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};

        (void)state;
        cbor_put_tag(&to, 601);
        cbor_put_map(&to, 2);
        cbor_put_uint(&to, UINT64_MAX);
        cbor_put_bytes(&to, hex("0102"));
        cbor_put_text(&to, TEXT("k"));
        cbor_put_array(&to, 4);
        cbor_put_bool(&to, true);
        cbor_put_bool(&to, false);
        cbor_put_null(&to);
        cbor_put_text(&to, (struct bytes){});
        assert_written(&to, "d90259a21bffffffffffffffff420102616b84f5f4f660");
}

static void a_problem_becomes_problem_details(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};
        struct problem problem;

        (void)state;
        assert_int_equal(problem_set(&problem, CODE_FORBIDDEN, EACCES, "no", "because %d", 7), -EACCES);
        problem_to_cbor(&problem, &to);
        assert_written(&to, "a320626e6f2169626563617573652037231883");
}

static void problem_set_takes_no_problem_and_either_sign(void **state) {
        (void)state;
        assert_int_equal(problem_set(NULL, CODE_FORBIDDEN, EACCES, "no", "x"), -EACCES);
        assert_int_equal(problem_set(NULL, CODE_FORBIDDEN, -EACCES, "no", "x"), -EACCES);
}

static void a_problem_is_valid_cbor_whatever_it_quotes(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct problem problem;
        char cut[300];
        struct bytes detail;

        (void)state;
        memset(cut, 0xc3, sizeof cut - 1);
        cut[sizeof cut - 1] = 0;
        problem_set(&problem, CODE_BAD_REQUEST, EINVAL, "\x1b[31m\n", "%s", cut);
        problem_to_cbor(&problem, &to);
        assert_int_equal(cbor_read(buffer_bytes(&to), &item, NULL), 0);
        assert_true(cbor_value_text(cbor_map_int(item, -1), &detail) && bytes_equal(detail, TEXT("?[31m?")));
        assert_true(cbor_value_text(cbor_map_int(item, -2), &detail) && detail.size == 255 && detail.data[0] == '?');
}

static void a_problem_without_a_code_says_5_00(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};
        struct problem problem = { 0 };

        (void)state;
        problem_to_cbor(&problem, &to);
        assert_written(&to, "a12318a0");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(well_formed_items_of_every_kind_are_read),
                cmocka_unit_test(an_input_that_ends_early_is_refused),
                cmocka_unit_test(a_reserved_or_misplaced_byte_is_refused),
                cmocka_unit_test(bytes_after_the_item_are_refused),
                cmocka_unit_test(depth_8_is_read_and_depth_9_refused),
                cmocka_unit_test(the_same_key_twice_is_refused_however_it_is_encoded),
                cmocka_unit_test(keys_of_other_kinds_are_refused),
                cmocka_unit_test(text_that_is_not_utf8_is_refused),
                cmocka_unit_test(a_claimed_length_takes_no_memory),
                cmocka_unit_test(a_map_of_many_keys_is_read_in_good_time),
                cmocka_unit_test(a_sequence_is_read_item_by_item),
                cmocka_unit_test(tags_of_every_form_are_read),
                cmocka_unit_test(members_are_found_by_key_and_type),
                cmocka_unit_test(an_integer_past_64_signed_bits_is_no_int),
                cmocka_unit_test(indefinite_strings_are_read_but_are_no_values),
                cmocka_unit_test(views_borrow_from_the_input),
                cmocka_unit_test(a_view_of_nothing_is_of_no_type),
                cmocka_unit_test(numbers_are_written_in_their_shortest_form),
                cmocka_unit_test(every_kind_of_item_is_written),
                cmocka_unit_test(a_problem_becomes_problem_details),
                cmocka_unit_test(problem_set_takes_no_problem_and_either_sign),
                cmocka_unit_test(a_problem_is_valid_cbor_whatever_it_quotes),
                cmocka_unit_test(a_problem_without_a_code_says_5_00),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

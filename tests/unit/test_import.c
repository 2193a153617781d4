/* SPDX-License-Identifier: Apache-2.0 */

/* Import files: all or nothing, every mistake named at its place. */

#include "tests/unit/support.h"

#include <errno.h>
#include <openssl/pem.h>

#include "tests/unit/devices_fixture.h"

static int parse(const char *text, bool is_json, struct import *ret, struct config_problems *problems) {
        *problems = (struct config_problems){ 0 };
        return import_parse(bytes_of(text), is_json, ret, problems);
}

/* Expects these rows' ids and PSKs, in order. */
static void assert_rows(const char *text, bool is_json, size_t count, const char *const *ids, const char *const *psks) {
        struct config_problems problems;
        struct import import;

        assert_int_equal(parse(text, is_json, &import, &problems), 0);
        assert_int_equal(problems.count, 0);
        assert_int_equal(import.count, count);
        for (size_t i = 0; i < count; i++) {
                assert_string_equal(import.rows[i].id, ids[i]);
                assert_string_equal(import.rows[i].profile, "plain");
                assert_true(bytes_equal(secret_bytes(&import.rows[i].factory_psk), bytes_of(psks[i])));
        }
        import_free(&import);
        assert_null(import.rows);
}

/* Expects these problems and no row; each is the start of a line. */
static void assert_problems(const char *text, bool is_json, size_t count, const char *const *starts) {
        struct config_problems problems;
        struct import import;

        assert_int_equal(parse(text, is_json, &import, &problems), -EINVAL);
        assert_null(import.rows);
        assert_int_equal(import.count, 0);
        assert_int_equal(problems.count, count);
        for (size_t i = 0; i < count; i++)
                if (strncmp(problems.lines[i], starts[i], strlen(starts[i])) != 0)
                        assert_string_equal(problems.lines[i], starts[i]);
        config_problems_free(&problems);
}

#define PROBLEMS(text, is_json, ...)                                                                                   \
        assert_problems(text, is_json, ELEMENTS(((const char *const[]){ __VA_ARGS__ })),                               \
                        (const char *const[]){ __VA_ARGS__ })

/* ---- CSV ---- */

static void csv_takes_keys_in_three_notations(void **state) {
        static const char *const ids[] = { "a", "b", "c" };
        static const char *const psks[] = { "0123456789abcdef", "0123456789abcdef", "0123456789abcdef" };

        (void)state;
        assert_rows("id,profile,psk\n"
                    "a,plain,text:0123456789abcdef\n"
                    "b,plain,hex:30313233343536373839616263646566\n"
                    "c,plain,base64:MDEyMzQ1Njc4OWFiY2RlZg==\n",
                    false, 3, ids, psks);
}

static void csv_columns_come_in_any_order_with_any_line_end_and_a_byte_order_mark(void **state) {
        static const char *const ids[] = { "a", "b" };
        static const char *const psks[] = { "0123456789,\"cdef", "0123456789abcdef" };

        (void)state;
        assert_rows("\xef\xbb\xbfpsk,attestation_key,id,profile\r\n"
                    "\"text:0123456789,\"\"cdef\",,a,plain\r\n"
                    "\r\n"
                    "text:0123456789abcdef,\"\",\"b\",plain",
                    false, 2, ids, psks);
}

static void every_mistake_is_named_at_its_line_and_nothing_is_added(void **state) {
        (void)state;
        PROBLEMS("id,profile,psk\n"
                 "good,plain,text:0123456789abcdef\n"
                 "bad id,plain,text:0123456789abcdef\n"
                 "b,,text:0123456789abcdef\n"
                 "c,plain,0123456789abcdef\n"
                 "d,plain,text:short\n"
                 "e,plain,hex:0g\n"
                 "f,plain\n"
                 "good,plain,text:0123456789abcdef\n",
                 false, "line 3: id is 1 to 64 of", "line 4: profile is",
                 "line 5: psk begins with hex:, base64: or text:", "line 6: psk has a wrong length; 16 to 64",
                 "line 7: psk is not valid", "line 8: 2 fields; the first line has 3",
                 "line 9: id good is also in line 2");
}

static void lines_are_counted_through_quoted_fields(void **state) {
        (void)state;
        PROBLEMS("id,profile,psk\n"
                 "a,\"pl\nain\",text:0123456789abcdef\n"
                 "b,plain,text:short\n",
                 false, "line 4: psk has a wrong length");
}

static void a_csv_file_that_cannot_be_read_on_stops_there(void **state) {
        (void)state;
        PROBLEMS("", false, "line 1: the file is empty");
        PROBLEMS("id,profile\n", false, "line 1: a column is missing");
        PROBLEMS("id,profile,psk,colour\n", false, "line 1: column 4 is unknown");
        PROBLEMS("id,profile,psk,id\n", false, "line 1: column 4 is there twice");
        PROBLEMS("id,profile,psk\na,plain,\"text:0123456789abcdef\n", false, "line 2: a quoted field does not end");
        PROBLEMS("id,profile,psk\na,\"plain\"x,text:0123456789abcdef\n", false, "line 2: text after a closing quote");
        PROBLEMS("a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q\n", false, "line 1: more than 16 columns");
}

static void no_key_is_quoted_in_a_problem(void **state) {
        struct config_problems problems;
        struct import import;

        (void)state;
        assert_int_equal(parse("id,profile,psk\na b,plain,secretsecretsecret\nb,plain,hex:secretsecretsecret\n", false,
                               &import, &problems),
                         -EINVAL);
        for (size_t i = 0; i < problems.count; i++)
                assert_null(strstr(problems.lines[i], "secret"));
        config_problems_free(&problems);
}

static void a_hundred_problems_are_enough(void **state) {
        struct config_problems problems = { 0 };
        struct buffer text = { 0 };
        struct import import;

        (void)state;
        buffer_printf(&text, "id,profile,psk\n");
        for (int i = 0; i < 500; i++)
                buffer_printf(&text, "d%d,plain,none\n", i);
        assert_int_equal(import_parse(buffer_bytes(&text), false, &import, &problems), -EINVAL);
        assert_int_equal(problems.count, 101);
        assert_string_equal(problems.lines[100], "there is more; mend these first");
        config_problems_free(&problems);
        buffer_free(&text);
}

/* ---- JSON ---- */

static void json_is_an_array_of_objects_with_the_same_names(void **state) {
        static const char *const ids[] = { "a", "b" };
        static const char *const psks[] = { "0123456789ab\"def", "0123456789\xc3\xa9\xf0\x9f\x98\x80" };

        (void)state;
        assert_rows(" [ {\"id\":\"a\", \"profile\" : \"plain\",\"psk\":\"text:0123456789ab\\\"def\"},\n"
                    "{\"psk\":\"text:0123456789\\u00e9\\ud83d\\ude00\",\"attestation_key\":null,\"profile\":\"plain\","
                    "\"id\":\"b\"}]\n",
                    true, 2, ids, psks);
        assert_rows("[]", true, 0, NULL, NULL);
}

static void json_mistakes_are_named_by_element(void **state) {
        (void)state;
        PROBLEMS("[{\"id\":\"a\",\"profile\":\"plain\",\"psk\":\"text:0123456789abcdef\"},"
                 "{\"id\":\"b\",\"profile\":\"plain\",\"psk\":\"text:short\",\"colour\":\"red\"},"
                 "{},"
                 "{\"id\":\"a\",\"profile\":\"plain\",\"psk\":\"text:0123456789abcdef\"}]",
                 true, "element 2: a member is unknown", "element 2: psk has a wrong length",
                 "element 3: id is 1 to 64", "element 3: profile is", "element 4: id a is also in element 1");
}

static void json_that_cannot_be_read_on_names_its_line(void **state) {
        (void)state;
        PROBLEMS("", true, "element 1: the file is one JSON array of objects (line 1)");
        PROBLEMS("{}", true, "element 1: the file is one JSON array");
        PROBLEMS("[1]", true, "element 1: each element is an object");
        PROBLEMS("[\n{\"id\":5}]", true, "element 1: a member's value is a string (line 2)");
        PROBLEMS("[{\"id\" \"a\"}]", true, "element 1: a colon is expected");
        PROBLEMS("[{\"id\":\"a\" \"b\"}]", true, "element 1: a comma or } is expected");
        PROBLEMS("[{\"id\":\"a}]", true, "element 1: a string does not end");
        PROBLEMS("[{\"id\":\"\\x\"}]", true, "element 1: unknown escape");
        PROBLEMS("[{\"id\":\"\\u12\"}]", true, "element 1: \\u needs four hex digits");
        PROBLEMS("[{\"id\":\"\\ud800\"}]", true, "element 1: half of a surrogate pair");
        PROBLEMS("[{\"id\":\"\\udc00\"}]", true, "element 1: half of a surrogate pair");
        PROBLEMS("[{\"id\":\"\\ud800\\u0041\"}]", true, "element 1: half of a surrogate pair");
        PROBLEMS("[{\"id\":\"\n\"}]", true, "element 1: a control character in a string");
        PROBLEMS("[] x", true, "element 1: text after the end of the array");
}

/* ---- attestation keys ---- */

static void attestation_keys_are_pem_or_base64_of_the_der(void **state) {
        struct bytes der = fixture_attestation_key();
        struct config_problems problems = { 0 };
        struct buffer csv = { 0 }, json = { 0 };
        BIO *bio = BIO_new(BIO_s_mem());
        struct import import;
        char base64[512];
        char *pem;
        long size;

        (void)state;
        assert_true(base64_encode(der, false, base64, sizeof base64) > 0);
        assert_true(PEM_write_bio(bio, PEM_STRING_PUBLIC, "", der.data, (long)der.size) > 0);
        size = BIO_get_mem_data(bio, &pem);
        buffer_printf(&csv,
                      "id,profile,psk,attestation_key\na,attest,text:0123456789abcdef,\"%.*s\"\n"
                      "b,attest,text:0123456789abcdef,der:%s\n",
                      (int)size, pem, base64);
        assert_int_equal(import_parse(buffer_bytes(&csv), false, &import, &problems), 0);
        assert_int_equal(import.count, 2);
        for (size_t i = 0; i < 2; i++)
                assert_true(
                        bytes_equal(BYTES(import.rows[i].attestation_key, import.rows[i].attestation_key_size), der));
        import_free(&import);

        buffer_printf(&json,
                      "[{\"id\":\"a\",\"profile\":\"attest\",\"psk\":\"text:0123456789abcdef\",\"attestation_key\":\"");
        for (long i = 0; i < size; i++)
                buffer_printf(&json, pem[i] == '\n' ? "\\n" : "%c", pem[i]);
        buffer_printf(&json, "\"}]");
        assert_int_equal(import_parse(buffer_bytes(&json), true, &import, &problems), 0);
        assert_true(bytes_equal(BYTES(import.rows[0].attestation_key, import.rows[0].attestation_key_size), der));
        import_free(&import);
        BIO_free(bio);
        buffer_free(&csv);
        buffer_free(&json);
}

static void what_is_no_usable_attestation_key_is_refused(void **state) {
        (void)state;
        PROBLEMS("id,profile,psk,attestation_key\n"
                 "a,attest,text:0123456789abcdef,nonsense\n"
                 "b,attest,text:0123456789abcdef,der:AAAA\n"
                 "c,attest,text:0123456789abcdef,der:A\n"
                 "d,attest,text:0123456789abcdef,\"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\"\n"
                 /* an X25519 key: it cannot sign */
                 "e,attest,text:0123456789abcdef,der:MCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n",
                 false, "line 2: attestation_key is neither", "line 3: attestation_key: not a SubjectPublicKeyInfo",
                 "line 4: attestation_key is neither", "line 5: attestation_key is neither",
                 "line 8: attestation_key: the key must be P-256");
}

/* ---- IDevIDs ---- */

#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static void a_row_without_a_psk_is_a_device_with_an_idevid(void **state) {
        static const char *const texts[] = {
                "id,profile,psk,idevid\na,certified,,\nb,certified,,sha256:" DIGEST
                "\nc,plain,text:0123456789abcdef,\n",
                "[{\"id\":\"a\",\"profile\":\"certified\"},"
                "{\"id\":\"b\",\"profile\":\"certified\",\"idevid\":\"sha256:" DIGEST "\"},"
                "{\"id\":\"c\",\"profile\":\"plain\",\"psk\":\"text:0123456789abcdef\",\"idevid\":null}]",
        };

        (void)state;
        for (int is_json = 0; is_json < 2; is_json++) {
                struct config_problems problems;
                struct import import;

                assert_int_equal(parse(texts[is_json], is_json, &import, &problems), 0);
                assert_int_equal(import.count, 3);
                assert_int_equal(import.rows[0].factory_psk.size, 0);
                assert_false(import.rows[0].has_idevid_fingerprint);
                assert_true(import.rows[1].has_idevid_fingerprint);
                assert_int_equal(import.rows[1].idevid_fingerprint[1], 0x11);
                assert_int_equal(import.rows[1].idevid_fingerprint[31], 0xff);
                assert_int_equal(import.rows[2].factory_psk.size, 16);
                assert_false(import.rows[2].has_idevid_fingerprint);
                import_free(&import);
        }
}

static void a_file_of_idevids_needs_no_column_for_psks(void **state) {
        struct config_problems problems;
        struct import import;

        (void)state;
        assert_int_equal(parse("idevid,id,profile\nsha256:" DIGEST ",a,certified\n", false, &import, &problems), 0);
        assert_true(import.count == 1 && import.rows[0].has_idevid_fingerprint);
        import_free(&import);
}

static void a_fingerprint_that_is_none_and_a_psk_beside_one_are_refused(void **state) {
        (void)state;
        PROBLEMS("id,profile,psk,idevid\n"
                 "a,certified,,nonsense\n"
                 "b,certified,," DIGEST "\n"
                 "c,certified,,sha256:0011\n"
                 "d,certified,,sha256:" DIGEST "00\n"
                 "e,certified,,sha256:zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
                 "f,certified,text:0123456789abcdef,sha256:" DIGEST "\n",
                 false, "line 2: idevid is sha256: and the 64 hex digits", "line 3: idevid is", "line 4: idevid is",
                 "line 5: idevid is", "line 6: idevid is", "line 7: a device has a psk or an idevid, not both");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(csv_takes_keys_in_three_notations),
                cmocka_unit_test(csv_columns_come_in_any_order_with_any_line_end_and_a_byte_order_mark),
                cmocka_unit_test(every_mistake_is_named_at_its_line_and_nothing_is_added),
                cmocka_unit_test(lines_are_counted_through_quoted_fields),
                cmocka_unit_test(a_csv_file_that_cannot_be_read_on_stops_there),
                cmocka_unit_test(no_key_is_quoted_in_a_problem),
                cmocka_unit_test(a_hundred_problems_are_enough),
                cmocka_unit_test(json_is_an_array_of_objects_with_the_same_names),
                cmocka_unit_test(json_mistakes_are_named_by_element),
                cmocka_unit_test(json_that_cannot_be_read_on_names_its_line),
                cmocka_unit_test(attestation_keys_are_pem_or_base64_of_the_der),
                cmocka_unit_test(what_is_no_usable_attestation_key_is_refused),
                cmocka_unit_test(a_row_without_a_psk_is_a_device_with_an_idevid),
                cmocka_unit_test(a_file_of_idevids_needs_no_column_for_psks),
                cmocka_unit_test(a_fingerprint_that_is_none_and_a_psk_beside_one_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

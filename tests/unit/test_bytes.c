/* SPDX-License-Identifier: Apache-2.0 */

/* Slices, hex, base64, buffers, secrets. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/bytes.h"
#include "gatewayd/secret.h"

static void base64_matches_rfc_4648(void **state) {
        static const char *const vectors[][2] = {
                { "", "" },
                { "f", "Zg==" },
                { "fo", "Zm8=" },
                { "foo", "Zm9v" },
                { "foob", "Zm9vYg==" },
                { "fooba", "Zm9vYmE=" },
                { "foobar", "Zm9vYmFy" },
        };
        uint8_t back[16];
        char text[16];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(vectors); i++) {
                assert_int_equal(base64_encode(bytes_of(vectors[i][0]), false, text, sizeof text),
                                 strlen(vectors[i][1]));
                assert_string_equal(text, vectors[i][1]);
                assert_int_equal(base64_decode(bytes_of(vectors[i][1]), false, back, sizeof back),
                                 strlen(vectors[i][0]));
                assert_memory_equal(back, vectors[i][0], strlen(vectors[i][0]));
        }
}

static void base64_refuses_what_no_encoder_writes(void **state) {
        static const char *const bad[] = { "Zg=", "Zh==", "Z", "Zg==Zg==", "Z g=", "Zm9v=", "Zm-v" };
        uint8_t back[16];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(base64_decode(bytes_of(bad[i]), false, back, sizeof back), -EINVAL);
        assert_int_equal(base64_decode(TEXT("_-8"), true, back, sizeof back), 2);
        assert_int_equal(base64_decode(TEXT("_+8"), true, back, sizeof back), -EINVAL);
        assert_int_equal(base64_decode(TEXT("Zm9v"), false, back, 2), -ENOBUFS);
}

static void hex_is_strict(void **state) {
        uint8_t back[4];
        char text[9];

        (void)state;
        assert_int_equal(hex_decode(TEXT("00fFa5"), back, sizeof back), 3);
        bytes_to_hex(BYTES(back, 3), text);
        assert_string_equal(text, "00ffa5");
        assert_int_equal(hex_decode(TEXT("0"), back, sizeof back), -EINVAL);
        assert_int_equal(hex_decode(TEXT("0g"), back, sizeof back), -EINVAL);
        assert_int_equal(hex_decode(TEXT("0011223344"), back, sizeof back), -ENOBUFS);
}

static void text_from_bytes_never_hides_a_nul(void **state) {
        char text[4];

        (void)state;
        assert_int_equal(bytes_to_text(TEXT("abc"), text, sizeof text), 0);
        assert_string_equal(text, "abc");
        assert_int_equal(bytes_to_text(TEXT("abcd"), text, sizeof text), -ENAMETOOLONG);
        assert_int_equal(bytes_to_text(BYTES("a\0b", 3), text, sizeof text), -EINVAL);
}

static void a_buffer_grows_and_is_wiped(void **state) {
        struct buffer b = { 0 };

        (void)state;
        for (int i = 0; i < 1000; i++)
                buffer_printf(&b, "%04d", i);
        assert_int_equal(b.size, 4000);
        assert_memory_equal(b.data + 3996, "0999", 4);
        buffer_free(&b);
        assert_null(b.data);
}

static void a_folder_is_what_stands_before_the_last_slash(void **state) {
        char folder[32];

        (void)state;
        path_folder("/var/lib/x", folder, sizeof folder);
        assert_string_equal(folder, "/var/lib");
        path_folder("/x", folder, sizeof folder);
        assert_string_equal(folder, "/");
        path_folder("x", folder, sizeof folder);
        assert_string_equal(folder, ".");
}

static void secrets_compare_and_wipe(void **state) {
        static uint8_t too_long[SECRET_MAX + 1];
        static const struct secret zero;
        struct secret a = { 0 }, b = { 0 };

        (void)state;
        assert_int_equal(secret_set(&a, TEXT("0123456789abcdef")), 0);
        assert_int_equal(secret_set(&b, TEXT("0123456789abcdef")), 0);
        assert_true(secret_equal(&a, &b));
        b.data[15] ^= 1;
        assert_false(secret_equal(&a, &b));
        assert_int_equal(secret_set(&a, BYTES(too_long, sizeof too_long)), -EMSGSIZE);
        secret_wipe(&a);
        assert_memory_equal(&a, &zero, sizeof a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(base64_matches_rfc_4648),
                cmocka_unit_test(base64_refuses_what_no_encoder_writes),
                cmocka_unit_test(hex_is_strict),
                cmocka_unit_test(text_from_bytes_never_hides_a_nul),
                cmocka_unit_test(a_buffer_grows_and_is_wiped),
                cmocka_unit_test(a_folder_is_what_stands_before_the_last_slash),
                cmocka_unit_test(secrets_compare_and_wipe),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

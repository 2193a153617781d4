/* SPDX-License-Identifier: Apache-2.0 */

/* The age format: a file that the age command wrote is read, what is written here comes back, and what was cut off,
 * changed or added to is refused without a byte of it being believed. The other way, tests/system/test_backup.py. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/backup/age.h"

/* Made by age 1.1.1. */
#define IDENTITY  "AGE-SECRET-KEY-1NYYXSKL0E0QAXZHVFQS6XUL8AJ3MXPQSKF66QHGKN3MF77MGMKHQ706ZGT"
#define RECIPIENT "age18as2ufwps7awcv7u2fmlayerey60227ttnvlwsztra07g4paqslspfvj9j"
#define PLAIN     "a store of thirty-one characters"
#define SEALED                                                                                                         \
        "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+"                                                                             \
        "IFgyNTUxOSBHZE5TdlRKVVpOcjdxOXlGY1BVVXBZUXZWbWFCZXZvSkxoSTNRR0p1ZGh3CjQ3bWJid"                                \
        "kN5aEJVOGI2VkNnM2xheWJ3cFh1ZjJDR3gyT2JFekxsNEJHejQKLS0tIC91ZTBsdXdNWnprSzRwMk80dTdSZThKTGQ1MnpwYTY5dy9BcDdGa" \
        "0"                                                                                                            \
        "JsUkkK2NlErrY8LOKRwIML+UkDm/qkG2GgC5mYr3KcQO+NLjqIZ1cV33MxBT5ts81MNQ3adKIm7gXkZpQq7aFNg7MzVg=="

static const uint8_t another_identity[AGE_KEY_BYTES] = { 1, 2, 3 };

static void own_identity(uint8_t ret[AGE_KEY_BYTES]) {
        assert_int_equal(age_identity_parse(TEXT(IDENTITY), ret), 0);
}

/* In portions of `portion` bytes. */
static int decrypt(const uint8_t identity[AGE_KEY_BYTES], struct bytes sealed, size_t portion, struct buffer *to,
                   struct problem *problem) {
        struct age_decryptor *decryptor = age_decryptor_new(identity);
        int r = 0;

        for (size_t at = 0; at < sealed.size && r == 0; at += portion) {
                size_t size = sealed.size - at < portion ? sealed.size - at : portion;

                r = age_decryptor_update(decryptor, BYTES(sealed.data + at, size), to, problem);
        }
        if (r == 0)
                r = age_decryptor_final(decryptor, to, problem);
        age_decryptor_free(decryptor);
        return r;
}

static void encrypt(struct bytes plain, size_t portion, struct buffer *to) {
        struct age_encryptor *encryptor;
        uint8_t recipient[AGE_KEY_BYTES];

        assert_int_equal(age_recipient_parse(RECIPIENT, recipient), 0);
        assert_int_equal(age_encryptor_new(recipient, to, &encryptor), 0);
        for (size_t at = 0; at < plain.size; at += portion) {
                size_t size = plain.size - at < portion ? plain.size - at : portion;

                assert_int_equal(age_encryptor_update(encryptor, BYTES(plain.data + at, size), to), 0);
        }
        assert_int_equal(age_encryptor_final(encryptor, to), 0);
        age_encryptor_free(encryptor);
}

static void fill(struct buffer *to, size_t size) {
        uint8_t *at = buffer_reserve(to, size);

        for (size_t i = 0; i < size; i++)
                at[i] = (uint8_t)(i * 31 + i / 251);
        to->size += size;
}

/* ---- keys ---- */

static void keys_are_read_and_written_as_age_does(void **state) {
        uint8_t identity[AGE_KEY_BYTES], recipient[AGE_KEY_BYTES], derived[AGE_KEY_BYTES];
        char identity_text[AGE_IDENTITY_TEXT], recipient_text[AGE_RECIPIENT_TEXT];

        (void)state;
        own_identity(identity);
        assert_int_equal(age_recipient_parse(RECIPIENT, recipient), 0);
        assert_int_equal(age_identity_recipient(identity, derived), 0);
        assert_memory_equal(derived, recipient, sizeof recipient);
        age_identity_text(identity, identity_text);
        age_recipient_text(recipient, recipient_text);
        assert_string_equal(identity_text, IDENTITY);
        assert_string_equal(recipient_text, RECIPIENT);
}

static void a_key_file_may_be_that_of_age_keygen_or_a_recovery_key(void **state) {
        uint8_t expected[AGE_KEY_BYTES], found[AGE_KEY_BYTES];
        char hex[2 * AGE_KEY_BYTES + 2];

        (void)state;
        own_identity(expected);
        assert_int_equal(
                age_identity_parse(TEXT("# created: today\n# public key: " RECIPIENT "\n" IDENTITY "\n"), found), 0);
        assert_memory_equal(found, expected, sizeof found);
        assert_int_equal(age_identity_parse(TEXT(IDENTITY "\r\n\r\n"), found), 0);
        bytes_to_hex(BYTES(expected, sizeof expected), hex);
        assert_int_equal(age_identity_parse(bytes_of(hex), found), 0);
        strcat(hex, "\n");
        assert_int_equal(age_identity_parse(bytes_of(hex), found), 0);
        assert_memory_equal(found, expected, sizeof found);
        assert_int_equal(age_identity_parse(BYTES(expected, sizeof expected), found), 0);
        assert_memory_equal(found, expected, sizeof found);
}

static void a_key_with_any_one_character_changed_is_none(void **state) {
        char text[] = RECIPIENT, identity[] = IDENTITY;
        uint8_t key[AGE_KEY_BYTES];

        (void)state;
        for (size_t i = 0; i < sizeof text - 1; i++) {
                char kept = text[i];

                text[i] = kept == 'q' ? 'p' : 'q';
                assert_int_equal(age_recipient_parse(text, key), -EINVAL);
                text[i] = kept;
        }
        for (size_t i = 0; i < sizeof identity - 1; i++) {
                char kept = identity[i];

                identity[i] = kept == 'Q' ? 'P' : 'Q';
                assert_int_equal(age_identity_parse(bytes_of(identity), key), -EINVAL);
                identity[i] = kept;
        }
        assert_int_equal(age_recipient_parse("", key), -EINVAL);
        assert_int_equal(age_recipient_parse(IDENTITY, key), -EINVAL);
        assert_int_equal(age_recipient_parse(RECIPIENT "q", key), -EINVAL);
        assert_int_equal(age_identity_parse(TEXT(""), key), -EINVAL);
        assert_int_equal(age_identity_parse(TEXT(RECIPIENT), key), -EINVAL);
        assert_int_equal(age_identity_parse(TEXT(IDENTITY "\n" IDENTITY "\n"), key), -EINVAL);
}

static void a_recipient_that_nobody_can_be_is_refused(void **state) {
        static const uint8_t zeros[AGE_KEY_BYTES];
        struct age_encryptor *encryptor = NULL;
        struct buffer to = { 0 };

        (void)state;
        assert_int_equal(age_encryptor_new(zeros, &to, &encryptor), -EINVAL);
        assert_int_equal(to.size, 0);
        buffer_free(&to);
}

/* ---- files ---- */

static void a_file_of_the_age_command_opens(void **state) {
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        uint8_t sealed[512], identity[AGE_KEY_BYTES];
        ssize_t size = base64_decode(TEXT(SEALED), false, sealed, sizeof sealed);
        struct problem problem = { 0 };

        (void)state;
        assert_true(size > 0);
        own_identity(identity);
        assert_int_equal(decrypt(identity, BYTES(sealed, (size_t)size), 1, &plain, &problem), 0);
        assert_int_equal(plain.size, sizeof PLAIN - 1);
        assert_memory_equal(plain.data, PLAIN, plain.size);
}

static void what_is_encrypted_comes_back_whatever_its_size_and_portions(void **state) {
        static const size_t sizes[] = { 0,
                                        1,
                                        AGE_CHUNK_BYTES - 1,
                                        AGE_CHUNK_BYTES,
                                        AGE_CHUNK_BYTES + 1,
                                        2 * AGE_CHUNK_BYTES,
                                        3 * AGE_CHUNK_BYTES + 777 };
        static const size_t portions[] = { 1000, AGE_CHUNK_BYTES, AGE_CHUNK_BYTES + 16, 1000000 };
        uint8_t identity[AGE_KEY_BYTES];

        (void)state;
        own_identity(identity);
        for (size_t i = 0; i < ELEMENTS(sizes) * ELEMENTS(portions); i++) {
                _cleanup_(buffer_free) struct buffer plain = { 0 }, sealed = { 0 }, found = { 0 };
                size_t portion = portions[i % ELEMENTS(portions)];

                fill(&plain, sizes[i / ELEMENTS(portions)]);
                encrypt(buffer_bytes(&plain), portion, &sealed);
                assert_int_equal(decrypt(identity, buffer_bytes(&sealed), portion, &found, NULL), 0);
                assert_true(bytes_equal(buffer_bytes(&plain), buffer_bytes(&found)));
        }
}

static void another_key_is_told_from_damage(void **state) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 }, found = { 0 };
        struct problem problem = { 0 };

        (void)state;
        encrypt(TEXT(PLAIN), 100, &sealed);
        assert_int_equal(decrypt(another_identity, buffer_bytes(&sealed), 100, &found, &problem), -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "another key"));
        assert_int_equal(found.size, 0);
}

/* Cut anywhere: only whole chunks may have come out, and it is an error. */
static void a_file_that_is_cut_off_anywhere_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer plain = { 0 }, sealed = { 0 };
        uint8_t identity[AGE_KEY_BYTES];

        (void)state;
        own_identity(identity);
        fill(&plain, 2 * AGE_CHUNK_BYTES);
        encrypt(buffer_bytes(&plain), plain.size, &sealed);
        for (size_t cut = 0; cut < sealed.size; cut += cut < 300 ? 1 : 1021) {
                _cleanup_(buffer_free) struct buffer found = { 0 };
                struct problem problem = { 0 };

                assert_int_equal(decrypt(identity, BYTES(sealed.data, cut), sealed.size, &found, &problem), -EBADMSG);
                assert_non_null(strstr(problem.detail, "the file"));
                assert_int_equal(found.size % AGE_CHUNK_BYTES, 0);
        }
        /* At the seam between its chunks: a file like that could have been meant, but it was not. */
        {
                _cleanup_(buffer_free) struct buffer found = { 0 };
                size_t cut = sealed.size - (AGE_CHUNK_BYTES + 16);

                assert_int_equal(decrypt(identity, BYTES(sealed.data, cut), sealed.size, &found, NULL), -EBADMSG);
        }
}

static void a_file_with_any_one_bit_changed_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 };
        uint8_t identity[AGE_KEY_BYTES];

        (void)state;
        own_identity(identity);
        encrypt(TEXT(PLAIN), 100, &sealed);
        for (size_t bit = 0; bit < 8 * sealed.size; bit++) {
                _cleanup_(buffer_free) struct buffer found = { 0 };
                int r;

                sealed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                r = decrypt(identity, buffer_bytes(&sealed), sealed.size, &found, NULL);
                assert_true(r == -EBADMSG || r == -EKEYREJECTED);
                assert_int_equal(found.size, 0);
                sealed.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
}

static void what_stands_behind_the_end_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer plain = { 0 }, sealed = { 0 }, found = { 0 };
        uint8_t identity[AGE_KEY_BYTES];

        (void)state;
        own_identity(identity);
        fill(&plain, AGE_CHUNK_BYTES);
        encrypt(buffer_bytes(&plain), plain.size, &sealed);
        buffer_append(&sealed, TEXT("x"));
        assert_int_equal(decrypt(identity, buffer_bytes(&sealed), 4096, &found, NULL), -EBADMSG);
        assert_int_equal(found.size, 0);
}

static void what_is_no_age_file_is_called_so(void **state) {
        static const char *const files[] = { "SQLite format 3",
                                             "age-encryption.org/v2\n-> X25519 a\n",
                                             "",
                                             "age-encryption.org/v1\n--- AAAA\n",
                                             "age-encryption.org/v1\n-> X25519 short\nshort\n--- AAAA\n",
                                             "age-encryption.org/v1\n->  X25519\n\n--- AAAA\n",
                                             "age-encryption.org/v1\n-> X25519\n\n--- AAAA\n" };
        uint8_t identity[AGE_KEY_BYTES];

        (void)state;
        own_identity(identity);
        for (size_t i = 0; i < ELEMENTS(files); i++) {
                _cleanup_(buffer_free) struct buffer found = { 0 };
                struct problem problem = { 0 };

                assert_int_equal(decrypt(identity, bytes_of(files[i]), 7, &found, &problem), -EBADMSG);
                assert_true(problem.detail[0] != 0);
        }
}

static void a_header_without_an_end_is_given_up(void **state) {
        struct age_decryptor *decryptor = age_decryptor_new(another_identity);
        _cleanup_(buffer_free) struct buffer found = { 0 };
        uint8_t line[64];
        int r;

        (void)state;
        memset(line, 'A', sizeof line);
        r = age_decryptor_update(decryptor, TEXT("age-encryption.org/v1\n-> X25519 "), &found, NULL);
        for (int i = 0; i < 2000 && r == 0; i++)
                r = age_decryptor_update(decryptor, BYTES(line, sizeof line), &found, NULL);
        assert_int_equal(r, -EBADMSG);
        assert_int_equal(age_decryptor_update(decryptor, TEXT("\n"), &found, NULL), -EBADMSG);
        assert_int_equal(age_decryptor_final(decryptor, &found, NULL), -EBADMSG);
        age_decryptor_free(decryptor);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_are_read_and_written_as_age_does),
                cmocka_unit_test(a_key_file_may_be_that_of_age_keygen_or_a_recovery_key),
                cmocka_unit_test(a_key_with_any_one_character_changed_is_none),
                cmocka_unit_test(a_recipient_that_nobody_can_be_is_refused),
                cmocka_unit_test(a_file_of_the_age_command_opens),
                cmocka_unit_test(what_is_encrypted_comes_back_whatever_its_size_and_portions),
                cmocka_unit_test(another_key_is_told_from_damage),
                cmocka_unit_test(a_file_that_is_cut_off_anywhere_is_refused),
                cmocka_unit_test(a_file_with_any_one_bit_changed_is_refused),
                cmocka_unit_test(what_stands_behind_the_end_is_refused),
                cmocka_unit_test(what_is_no_age_file_is_called_so),
                cmocka_unit_test(a_header_without_an_end_is_given_up),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

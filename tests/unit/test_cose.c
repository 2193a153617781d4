/* SPDX-License-Identifier: Apache-2.0 */

/* COSE_Sign1 and COSE_Key: shapes taken and refused, signatures of every algorithm, a published vector.
 * That another implementation agrees is tests/system/test_formats.py's to show. */

#include "tests/unit/evidence_support.h"

#include <errno.h>

static const struct kind {
        const char *type, *group;
        enum cose_algorithm algorithm;
        size_t signature_bytes;
} kinds[] = {
        { "EC", "P-256", COSE_ES256, 64 },   { "EC", "P-384", COSE_ES384, 96 },  { "EC", "P-521", COSE_ES512, 132 },
        { "ED25519", NULL, COSE_EDDSA, 64 }, { "ED448", NULL, COSE_EDDSA, 114 },
};

static EVP_PKEY *key_make(const struct kind *kind) {
        EVP_PKEY *key = kind->group ? EVP_PKEY_Q_keygen(NULL, NULL, kind->type, kind->group)
                                    : EVP_PKEY_Q_keygen(NULL, NULL, kind->type);

        assert_non_null(key);
        return key;
}

static void parse(struct bytes message, struct cose_sign1 *ret) {
        struct problem problem = { 0 };

        if (cose_sign1_parse(message, ret, &problem) < 0)
                fail_msg("%s", problem.detail);
}

static void assert_refused(struct bytes message, const char *why) {
        struct cose_sign1 sign1;
        struct problem problem = { 0 };

        assert_int_equal(cose_sign1_parse(message, &sign1, &problem), -EBADMSG);
        assert_int_equal(problem.code, CODE_BAD_REQUEST);
        if (!strstr(problem.detail, why))
                fail_msg("\"%s\" does not say \"%s\"", problem.detail, why);
}

static void what_is_signed_with_any_algorithm_verifies(void **state) {
        (void)state;
        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                _cleanup_(key_freep) EVP_PKEY *key = key_make(&kinds[i]);
                _cleanup_(buffer_free) struct buffer message = {};
                struct cose_sign1 sign1;

                assert_int_equal(cose_sign1_make(key, TEXT("a kid"), TEXT("payload"), &message), 0);
                parse(buffer_bytes(&message), &sign1);
                assert_int_equal(sign1.algorithm, kinds[i].algorithm);
                assert_int_equal(sign1.signature.size, kinds[i].signature_bytes);
                assert_true(bytes_equal(sign1.kid, TEXT("a kid")));
                assert_true(bytes_equal(sign1.payload, TEXT("payload")));
                assert_int_equal(cose_sign1_verify(&sign1, key, NULL), 0);
        }
}

static void any_changed_bit_is_refused(void **state) {
        (void)state;
        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                _cleanup_(key_freep) EVP_PKEY *key = key_make(&kinds[i]);
                _cleanup_(buffer_free) struct buffer message = {};
                struct cose_sign1 sign1;

                assert_int_equal(cose_sign1_make(key, (struct bytes){}, TEXT("payload"), &message), 0);
                for (size_t bit = 0; bit < message.size * 8; bit++) {
                        message.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                        if (cose_sign1_parse(buffer_bytes(&message), &sign1, NULL) == 0)
                                assert_true(cose_sign1_verify(&sign1, key, NULL) < 0);
                        message.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                }
                parse(buffer_bytes(&message), &sign1);
                assert_int_equal(cose_sign1_verify(&sign1, key, NULL), 0);
        }
}

static void an_algorithm_goes_with_its_own_key_alone(void **state) {
        (void)state;
        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                for (size_t j = 0; j < ELEMENTS(kinds); j++) {
                        _cleanup_(key_freep) EVP_PKEY *signer = key_make(&kinds[i]), *other = key_make(&kinds[j]);
                        _cleanup_(buffer_free) struct buffer message = {};
                        struct problem problem = { 0 };
                        struct cose_sign1 sign1;
                        int r;

                        assert_int_equal(cose_sign1_make(signer, (struct bytes){}, TEXT("p"), &message), 0);
                        parse(buffer_bytes(&message), &sign1);
                        r = cose_sign1_verify(&sign1, other, &problem);
                        assert_int_equal(r,
                                         kinds[i].algorithm == kinds[j].algorithm ? -EKEYREJECTED : -EPROTONOSUPPORT);
                        assert_int_equal(problem.code, CODE_FORBIDDEN);
                }
}

static void a_key_without_an_algorithm_of_ours_neither_signs_nor_verifies(void **state) {
        _cleanup_(key_freep) EVP_PKEY *rsa = EVP_RSA_gen(2048), *key = key_make(&kinds[0]);
        _cleanup_(key_freep) EVP_PKEY *koblitz = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "secp256k1");
        _cleanup_(buffer_free) struct buffer message = {};
        struct cose_sign1 sign1;

        (void)state;
        assert_int_equal(cose_sign1_make(rsa, (struct bytes){}, TEXT("p"), &message), -EPROTONOSUPPORT);
        assert_int_equal(cose_sign1_make(koblitz, (struct bytes){}, TEXT("p"), &message), -EPROTONOSUPPORT);
        assert_int_equal(message.size, 0);
        assert_int_equal(cose_sign1_make(key, (struct bytes){}, TEXT("p"), &message), 0);
        parse(buffer_bytes(&message), &sign1);
        assert_int_equal(cose_sign1_verify(&sign1, rsa, NULL), -EPROTONOSUPPORT);
        assert_int_equal(cose_sign1_verify(&sign1, koblitz, NULL), -EPROTONOSUPPORT);
}

static void the_published_psa_vector_verifies(void **state) {
        _cleanup_(key_freep) EVP_PKEY *key = key_from_file("tests/vectors/psa-tfm-es-iak.pem");
        _cleanup_(buffer_free) struct buffer message = {};
        struct cose_sign1 sign1;

        (void)state;
        file_read("tests/vectors/psa-sign1.cbor", &message);
        parse(buffer_bytes(&message), &sign1);
        assert_int_equal(sign1.algorithm, COSE_ES256);
        assert_int_equal(sign1.payload.size, 256);
        assert_true(sign1.payload.data > message.data && sign1.payload.data < message.data + message.size);
        assert_int_equal(cose_sign1_verify(&sign1, key, NULL), 0);
        message.data[message.size - 70] ^= 1;
        assert_int_equal(cose_sign1_verify(&sign1, key, NULL), -EKEYREJECTED);
}

/* The bytes of a message whose parts can be chosen. */
static struct bytes message_of(const char *head, const char *protected_bstr, const char *rest) {
        char text[1024];

        snprintf(text, sizeof text, "%s%s%s", head, protected_bstr, rest);
        return hex(text);
}

static void it_is_taken_untagged_and_under_18_and_under_61_around_18(void **state) {
        static const char *const heads[] = { "84", "d284", "d83dd284", "9f" };
        struct cose_sign1 sign1;

        (void)state;
        for (size_t i = 0; i < ELEMENTS(heads); i++) {
                parse(message_of(heads[i], "43a10126",
                                 i == 3 ? "a04161"
                                          "4162"
                                          "ff"
                                        : "a041614162"),
                      &sign1);
                assert_int_equal(sign1.algorithm, COSE_ES256);
                assert_true(bytes_equal(sign1.payload, TEXT("a")));
                assert_true(bytes_equal(sign1.signature, TEXT("b")));
                assert_int_equal(sign1.kid.size, 0);
        }
}

static void other_tags_are_refused(void **state) {
        (void)state;
        assert_refused(message_of("d184", "43a10126", "a041614162"), "tag 17");
        assert_refused(message_of("d86284", "43a10126", "a041614162"), "tag 98");
        assert_refused(message_of("d83d84", "43a10126", "a041614162"), "61");
        assert_refused(message_of("d83dd83dd284", "43a10126", "a041614162"), "tag 61");
        assert_refused(message_of("d2d284", "43a10126", "a041614162"), "array");
}

static void other_shapes_are_refused(void **state) {
        (void)state;
        assert_refused(hex("00"), "array");
        assert_refused(hex("a0"), "array");
        assert_refused(message_of("83", "43a10126", "a04161"), "four");
        assert_refused(message_of("85", "43a10126", "a04161416200"), "four");
        assert_refused(message_of("84", "43a10126", "a0f64162"), "detached");
        assert_refused(message_of("84", "43a10126", "a061614162"), "byte strings");
        assert_refused(message_of("84", "43a10126", "a0416100"), "byte strings");
        assert_refused(message_of("84", "a10126", "a041614162"), "byte strings");
        assert_refused(message_of("84", "43a10126", "a05f4161ff4162"), "byte strings");
        assert_refused(message_of("84", "43a10126", "8041614162"), "unprotected");
        assert_refused(message_of("84", "43a10126", "a04161416200"), "follow");
        assert_refused(message_of("84", "44a1012600", "a041614162"), "follow");
        assert_refused(message_of("84", "4100", "a041614162"), "protected");
        assert_refused(message_of("84", "41ff", "a041614162"), "break");
}

static void the_algorithm_must_stand_in_the_protected_header(void **state) {
        (void)state;
        assert_refused(message_of("84", "40", "a1012641614162"), "algorithm");
        assert_refused(message_of("84", "41a0", "a1012641614162"), "algorithm");
        assert_refused(message_of("84", "43a10426", "a041614162"), "algorithm");
        assert_refused(message_of("84", "44a1016161", "a041614162"), "algorithm");
}

static void critical_headers_are_refused(void **state) {
        (void)state;
        assert_refused(message_of("84", "46a2012602810a", "a041614162"), "crit");
        assert_refused(message_of("84", "43a10126", "a102810a41614162"), "crit");
}

static void a_label_said_twice_is_refused(void **state) {
        (void)state;
        assert_refused(message_of("84", "45a201260126", "a041614162"), "same key");
        assert_refused(message_of("84", "43a10126", "a1012641614162"), "both headers");
        assert_refused(message_of("84", "46a20126044161", "a104416141614162"), "both headers");
        assert_refused(message_of("84", "46a20126616100", "a161610041614162"), "both headers");
        assert_refused(message_of("84", "43a10126", "a204416104416141614162"), "same key");
}

static void the_kid_is_found_in_either_header_and_must_be_bytes(void **state) {
        struct cose_sign1 sign1;

        (void)state;
        parse(message_of("84", "46a20126044178", "a041614162"), &sign1);
        assert_true(bytes_equal(sign1.kid, TEXT("x")));
        parse(message_of("84", "43a10126", "a104417941614162"), &sign1);
        assert_true(bytes_equal(sign1.kid, TEXT("y")));
        assert_refused(message_of("84", "43a10126", "a104617941614162"), "kid");
        assert_refused(message_of("84", "45a201260400", "a041614162"), "kid");
}

static void too_many_labels_are_refused(void **state) {
        _cleanup_(buffer_free) struct buffer message = {};

        (void)state;
        cbor_put_array(&message, 4);
        cbor_put_bytes(&message, hex("a10126"));
        cbor_put_map(&message, 33);
        for (uint64_t i = 0; i < 33; i++) {
                cbor_put_uint(&message, 100 + i);
                cbor_put_uint(&message, 0);
        }
        cbor_put_bytes(&message, TEXT("a"));
        cbor_put_bytes(&message, TEXT("b"));
        assert_refused(buffer_bytes(&message), "32 labels");
}

static void a_signature_of_zeros_or_of_the_wrong_length_is_refused(void **state) {
        _cleanup_(key_freep) EVP_PKEY *key = key_make(&kinds[0]);
        static const uint8_t zeros[132];
        struct cose_sign1 sign1;

        (void)state;
        parse(message_of("84", "43a10126", "a041614162"), &sign1);
        for (size_t size = 0; size <= sizeof zeros; size++) {
                sign1.signature = BYTES(zeros, size);
                assert_int_equal(cose_sign1_verify(&sign1, key, NULL), -EKEYREJECTED);
        }
}

static void what_is_made_is_deterministic_cbor_with_tag_18(void **state) {
        _cleanup_(key_freep) EVP_PKEY *key = key_make(&kinds[3]);
        _cleanup_(buffer_free) struct buffer one = {}, other = {};

        (void)state;
        assert_int_equal(cose_sign1_make(key, TEXT("k"), TEXT("p"), &one), 0);
        assert_int_equal(cose_sign1_make(key, TEXT("k"), TEXT("p"), &other), 0);
        assert_true(bytes_equal(buffer_bytes(&one), buffer_bytes(&other)));
        assert_memory_equal(one.data, "\xd2\x84\x43\xa1\x01\x27\xa1\x04\x41k\x41p\x58\x40", 14);
}

static void a_symmetric_cose_key_is_written_as_rfc_9053_says(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};

        (void)state;
        cose_key_symmetric(TEXT("kid"), hex("00ff"), &to);
        assert_true(bytes_equal(buffer_bytes(&to), hex("a3010402436b6964204200ff")));
}

static void a_public_cose_key_holds_the_point(void **state) {
        _cleanup_(key_freep) EVP_PKEY *key = key_from_file("tests/vectors/psa-tfm-es-iak.pem");
        _cleanup_(key_freep) EVP_PKEY *other = key_make(&kinds[1]);
        _cleanup_(buffer_free) struct buffer to = {};
        uint8_t der[256];
        size_t size = key_public_der(key, der, sizeof der);
        struct bytes x, y;
        int64_t value;

        (void)state;
        assert_int_equal(cose_key_public(key, TEXT("k"), &to), 0);
        assert_int_equal(cbor_check(buffer_bytes(&to), NULL), 0);
        assert_true(cbor_view_int(cbor_view_member(buffer_bytes(&to), 1), &value) && value == 2);
        assert_true(cbor_view_int(cbor_view_member(buffer_bytes(&to), -1), &value) && value == 1);
        assert_true(cbor_view_bytes(cbor_view_member(buffer_bytes(&to), -2), &x) && x.size == 32);
        assert_true(cbor_view_bytes(cbor_view_member(buffer_bytes(&to), -3), &y) && y.size == 32);
        assert_memory_equal(x.data, der + size - 64, 32);
        assert_memory_equal(y.data, der + size - 32, 32);
        assert_int_equal(cose_key_public(other, TEXT("k"), &to), -EPROTONOSUPPORT);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_signed_with_any_algorithm_verifies),
                cmocka_unit_test(any_changed_bit_is_refused),
                cmocka_unit_test(an_algorithm_goes_with_its_own_key_alone),
                cmocka_unit_test(a_key_without_an_algorithm_of_ours_neither_signs_nor_verifies),
                cmocka_unit_test(the_published_psa_vector_verifies),
                cmocka_unit_test(it_is_taken_untagged_and_under_18_and_under_61_around_18),
                cmocka_unit_test(other_tags_are_refused),
                cmocka_unit_test(other_shapes_are_refused),
                cmocka_unit_test(the_algorithm_must_stand_in_the_protected_header),
                cmocka_unit_test(critical_headers_are_refused),
                cmocka_unit_test(a_label_said_twice_is_refused),
                cmocka_unit_test(the_kid_is_found_in_either_header_and_must_be_bytes),
                cmocka_unit_test(too_many_labels_are_refused),
                cmocka_unit_test(a_signature_of_zeros_or_of_the_wrong_length_is_refused),
                cmocka_unit_test(what_is_made_is_deterministic_cbor_with_tag_18),
                cmocka_unit_test(a_symmetric_cose_key_is_written_as_rfc_9053_says),
                cmocka_unit_test(a_public_cose_key_holds_the_point),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

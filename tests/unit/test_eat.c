/* SPDX-License-Identifier: Apache-2.0 */

/* Claims: what is read out of EAT and PSA tokens, and what is refused. */

#include "tests/unit/evidence_support.h"

#include <errno.h>

#include "gatewayd/evidence/evidence.h"

#define NONCE_HEX "0101010101010101010101010101010101010101010101010101010101010101"

static void parse(struct bytes payload, struct claims *ret) {
        struct problem problem = { 0 };

        if (eat_parse(payload, ret, &problem) < 0)
                fail_msg("%s", problem.detail);
}

static void assert_refused(const char *payload, const char *why) {
        struct claims claims;
        struct problem problem = { 0 };

        if (eat_parse(hex(payload), &claims, &problem) != -EBADMSG)
                fail_msg("%s was taken", payload);
        assert_int_equal(problem.code, CODE_BAD_REQUEST);
        if (!strstr(problem.detail, why))
                fail_msg("%s: \"%s\" does not say \"%s\"", payload, problem.detail, why);
}

static void the_published_psa_token_is_read(void **state) {
        _cleanup_(buffer_free) struct buffer message = {};
        struct cose_sign1 sign1;
        struct claims claims;

        (void)state;
        file_read("tests/vectors/psa-sign1.cbor", &message);
        assert_int_equal(cose_sign1_parse(buffer_bytes(&message), &sign1, NULL), 0);
        parse(sign1.payload, &claims);
        assert_true(claims.is_psa);
        assert_int_equal(claims.nonce_count, 1);
        assert_true(bytes_equal(claims.nonces[0], hex(NONCE_HEX)));
        assert_true(bytes_equal(claims.profile, TEXT("tag:psacertified.org,2023:psa#tfm")));
        assert_int_equal(claims.ueid.size, 33);
        assert_int_equal(claims.lifecycle, 0x3000);
        assert_int_equal(claims.dbgstat, -1);
        assert_int_equal(claims.measurement_count, 1);
        assert_true(bytes_equal(claims.measurements[0].type, TEXT("PRoT")));
        assert_int_equal(claims.measurements[0].digest.size, 32);
        assert_int_equal(claims.measurements[0].digest.data[0], 3);
        assert_int_equal(claims.measurements[0].signer.data[31], 4);
        assert_int_equal(claims.measurements[0].version.size, 0);
}

/* {10: nonce, 256: ueid, 263: 3, 265: URI, 270: "fw", 271: ["1.2", 16384], 273: [[42, digest]]} */
static void a_plain_eat_is_read(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a7" "0a5820" NONCE_HEX "190100" "47" "01020304050607" "190107" "03" "190109" "63757269"
                  "19010e" "626677" "19010f" "82" "63312e32" "194000" "190111" "81" "82" "182a" "5820" NONCE_HEX),
              &claims);
        assert_int_equal(claims.nonce_count, 1);
        assert_int_equal(claims.ueid.size, 7);
        assert_int_equal(claims.dbgstat, 3);
        assert_true(bytes_equal(claims.profile, TEXT("uri")));
        assert_true(bytes_equal(claims.swname, TEXT("fw")));
        assert_true(bytes_equal(claims.swversion, TEXT("1.2")));
        assert_int_equal(claims.measurement_count, 1);
        assert_true(bytes_equal(claims.measurements[0].digest, hex(NONCE_HEX)));
        assert_int_equal(claims.lifecycle, -1);
        assert_false(claims.is_psa);
}

/* {-75000: "PSA_IOT_PROFILE_1", -75002: 0x3001, -75006: [{1,2,4,5}], -75008: nonce, -75009: instance} */
static void a_legacy_psa_token_is_read_by_its_own_keys(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a5" "3a000124f7" "715053415f494f545f50524f46494c455f31" "3a000124f9" "193001" "3a000124fd" "81"
                  "a4" "01" "62424c" "02" "5820" NONCE_HEX "04" "63312e30" "05" "42abcd"
                  "3a000124ff" "5820" NONCE_HEX "3a00012500" "47" "01020304050607"),
              &claims);
        assert_true(claims.is_psa);
        assert_int_equal(claims.lifecycle, 0x3001);
        assert_int_equal(claims.nonce_count, 1);
        assert_int_equal(claims.ueid.size, 7);
        assert_int_equal(claims.measurement_count, 1);
        assert_true(bytes_equal(claims.measurements[0].type, TEXT("BL")));
        assert_true(bytes_equal(claims.measurements[0].version, TEXT("1.0")));
        assert_true(bytes_equal(claims.measurements[0].signer, hex("abcd")));
}

static void the_older_psa_profile_uses_the_new_keys(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a2" "190109" "7818" "687474703a2f2f61726d2e636f6d2f7073612f322e302e30" "19095b" "193000"), &claims);
        assert_true(claims.is_psa);
        assert_int_equal(claims.lifecycle, 0x3000);
}

/* 273: [[295, << {1: ["app", ["2.0", 16384]], 2: ["sha-256", digest]} >>], [295, << {1: ["cfg"], 5: h'00'} >>], [258, h'00']] */
static void measured_components_are_read_and_other_formats_passed_over(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a1" "190111" "83" "82" "190127" "583b"
                  "a2" "01" "82" "63617070" "82" "63322e30" "194000" "02" "82" "677368612d323536" "5820" NONCE_HEX
                  "82" "190127" "4a" "a2" "01" "81" "63636667" "05" "4100" "82" "190102" "4100"),
              &claims);
        assert_int_equal(claims.measurement_count, 1);
        assert_true(bytes_equal(claims.measurements[0].type, TEXT("app")));
        assert_true(bytes_equal(claims.measurements[0].version, TEXT("2.0")));
        assert_int_equal(claims.measurements[0].digest.size, 32);
}

static void several_nonces_are_read(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a1" "0a" "82" "48" "0000000000000000" "48" "1111111111111111"), &claims);
        assert_int_equal(claims.nonce_count, 2);
        assert_int_equal(claims.nonces[1].data[0], 0x11);
}

static void unknown_claims_are_passed_over(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a4" "01" "6169" "1907cf" "a0" "6161" "f6" "19010b" "05"), &claims);
        assert_int_equal(claims.nonce_count, 0);
        parse(hex("a0"), &claims);
        parse(hex("bfff"), &claims);
}

static void a_claim_of_the_wrong_type_or_size_is_refused(void **state) {
        (void)state;
        assert_refused("00", "map");
        assert_refused("80", "map");
        assert_refused("", "ends");
        assert_refused("a00a", "follow");
        assert_refused("a10a00", "eat_nonce");
        assert_refused("a10a4700000000000000", "eat_nonce");
        assert_refused("a10a5841" NONCE_HEX NONCE_HEX "00", "eat_nonce");
        assert_refused("a10a81" "00", "eat_nonce");
        assert_refused("a10a85" "480000000000000000" "480000000000000000" "480000000000000000" "480000000000000000"
                       "480000000000000000", "4 nonces");
        assert_refused("a1190100" "4101", "ueid");
        assert_refused("a1190100" "6161", "ueid");
        assert_refused("a1190107" "05", "dbgstat");
        assert_refused("a1190107" "20", "dbgstat");
        assert_refused("a1190109" "00", "eat_profile");
        assert_refused("a119010e" "00", "swname");
        assert_refused("a119010f" "00", "swversion");
        assert_refused("a119010f" "80", "swversion");
        assert_refused("a119010f" "8100", "swversion");
        assert_refused("a119095b" "20", "lifecycle");
        assert_refused("a119095b" "1a00010000", "lifecycle");
        assert_refused("a119095f" "00", "components");
        assert_refused("a119095f" "8100", "component");
        assert_refused("a119095f" "81a0", "component");
        assert_refused("a119095f" "81a1" "026161", "component");
        assert_refused("a119095f" "81a2" "0100" "024100", "component");
        assert_refused("a1190111" "00", "measurements");
        assert_refused("a1190111" "8100", "measurement");
        assert_refused("a1190111" "81" "81" "182a", "measurement");
        assert_refused("a1190111" "81" "82" "182a" "00", "measurement");
        assert_refused("a1190111" "81" "82" "190127" "4100", "key 1");
        assert_refused("a1190111" "81" "82" "190127" "41ff", "break");
        assert_refused("a1190111" "81" "82" "190127" "44a1018100", "key 1");
        assert_refused("a1190111" "81" "82" "190127" "47" "a101" "82" "6161" "8100", "version");
        assert_refused("a1190111" "81" "82" "190127" "47" "a2" "01" "81" "6161" "0200", "digest");
}

static void more_measurements_than_there_is_room_for_are_refused(void **state) {
        _cleanup_(buffer_free) struct buffer to = {};
        struct problem problem = { 0 };
        struct claims claims;

        (void)state;
        for (size_t count = CLAIMS_MEASUREMENTS_MAX; count <= CLAIMS_MEASUREMENTS_MAX + 1; count++) {
                to.size = 0;
                cbor_put_map(&to, 1);
                cbor_put_int(&to, 273);
                cbor_put_array(&to, count);
                for (size_t i = 0; i < count; i++) {
                        cbor_put_array(&to, 2);
                        cbor_put_int(&to, 42);
                        cbor_put_bytes(&to, TEXT("x"));
                }
                assert_int_equal(eat_parse(buffer_bytes(&to), &claims, &problem),
                                 count > CLAIMS_MEASUREMENTS_MAX ? -EBADMSG : 0);
        }
        assert_non_null(strstr(problem.detail, "32"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_published_psa_token_is_read),
                cmocka_unit_test(a_plain_eat_is_read),
                cmocka_unit_test(a_legacy_psa_token_is_read_by_its_own_keys),
                cmocka_unit_test(the_older_psa_profile_uses_the_new_keys),
                cmocka_unit_test(measured_components_are_read_and_other_formats_passed_over),
                cmocka_unit_test(several_nonces_are_read),
                cmocka_unit_test(unknown_claims_are_passed_over),
                cmocka_unit_test(a_claim_of_the_wrong_type_or_size_is_refused),
                cmocka_unit_test(more_measurements_than_there_is_room_for_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

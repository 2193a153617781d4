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
        parse(hex("a70a5820" NONCE_HEX "19010047010203040506071901070319010963757269"
                  "19010e62667719010f8263312e321940001901118182182a5820" NONCE_HEX),
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
        parse(hex("a53a000124f7715053415f494f545f50524f46494c455f313a000124f91930013a000124fd81"
                  "a40162424c025820" NONCE_HEX "0463312e300542abcd"
                  "3a000124ff5820" NONCE_HEX "3a000125004701020304050607"),
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
        parse(hex("a21901097818687474703a2f2f61726d2e636f6d2f7073612f322e302e3019095b193000"), &claims);
        assert_true(claims.is_psa);
        assert_int_equal(claims.lifecycle, 0x3000);
}

/* 273: [[295, << {1: ["app", ["2.0", 16384]], 2: ["sha-256", digest]} >>], [295, << {1: ["cfg"], 5: h'00'} >>], [258, h'00']] */
static void measured_components_are_read_and_other_formats_passed_over(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a11901118382190127583b"
                  "a20182636170708263322e301940000282677368612d3235365820" NONCE_HEX
                  "821901274aa2018163636667054100821901024100"),
              &claims);
        assert_int_equal(claims.measurement_count, 1);
        assert_true(bytes_equal(claims.measurements[0].type, TEXT("app")));
        assert_true(bytes_equal(claims.measurements[0].version, TEXT("2.0")));
        assert_int_equal(claims.measurements[0].digest.size, 32);
}

static void several_nonces_are_read(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a10a82480000000000000000481111111111111111"), &claims);
        assert_int_equal(claims.nonce_count, 2);
        assert_int_equal(claims.nonces[1].data[0], 0x11);
}

static void unknown_claims_are_passed_over(void **state) {
        struct claims claims;

        (void)state;
        parse(hex("a40161691907cfa06161f619010b05"), &claims);
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
        assert_refused("a10a8100", "eat_nonce");
        assert_refused("a10a85480000000000000000480000000000000000480000000000000000480000000000000000"
                       "480000000000000000",
                       "4 nonces");
        assert_refused("a11901004101", "ueid");
        assert_refused("a11901006161", "ueid");
        assert_refused("a119010705", "dbgstat");
        assert_refused("a119010720", "dbgstat");
        assert_refused("a119010900", "eat_profile");
        assert_refused("a119010e00", "swname");
        assert_refused("a119010f00", "swversion");
        assert_refused("a119010f80", "swversion");
        assert_refused("a119010f8100", "swversion");
        assert_refused("a119095b20", "lifecycle");
        assert_refused("a119095b1a00010000", "lifecycle");
        assert_refused("a119095f00", "components");
        assert_refused("a119095f8100", "component");
        assert_refused("a119095f81a0", "component");
        assert_refused("a119095f81a1026161", "component");
        assert_refused("a119095f81a20100024100", "component");
        assert_refused("a119011100", "measurements");
        assert_refused("a11901118100", "measurement");
        assert_refused("a11901118181182a", "measurement");
        assert_refused("a11901118182182a00", "measurement");
        assert_refused("a119011181821901274100", "key 1");
        assert_refused("a1190111818219012741ff", "break");
        assert_refused("a1190111818219012744a1018100", "key 1");
        assert_refused("a1190111818219012747a1018261618100", "version");
        assert_refused("a1190111818219012747a2018161610200", "digest");
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

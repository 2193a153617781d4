/* SPDX-License-Identifier: Apache-2.0 */

/* The appraisal policy: claims against reference values, as a table of cases. */

#include "tests/unit/evidence_support.h"

#include "gatewayd/evidence/evidence.h"

static const uint8_t good[32] = { 1 }, bad[32] = { 2 };

static struct claims claims_plain(void) {
        struct claims claims = { .lifecycle = -1, .dbgstat = -1, .swname = TEXT("fw"), .swversion = TEXT("1.2") };

        claims.measurements[0].digest = BYTES(good, sizeof good);
        claims.measurement_count = 1;
        return claims;
}

/* A PSA token with a boot loader and an application. */
static struct claims claims_psa(void) {
        struct claims claims = { .lifecycle = 0x3000, .dbgstat = -1, .is_psa = true };

        claims.measurements[0].type = TEXT("BL");
        claims.measurements[0].version = TEXT("1.0");
        claims.measurements[0].digest = BYTES(good, sizeof good);
        claims.measurements[1].type = TEXT("APP");
        claims.measurements[1].version = TEXT("2.0");
        claims.measurements[1].digest = BYTES(good, sizeof good);
        claims.measurement_count = 2;
        return claims;
}

static struct reference_value reference(const char *name, const char *version, const uint8_t *digest) {
        struct reference_value value = { 0 };

        snprintf(value.swname, sizeof value.swname, "%s", name);
        snprintf(value.swversion, sizeof value.swversion, "%s", version);
        if (digest) {
                memcpy(value.digest, digest, 32);
                value.digest_size = 32;
        }
        return value;
}

static struct appraisal appraise(const struct claims *claims, enum attestation_kind kind,
                                 struct reference_value *references, size_t count) {
        struct profile profile = { .attestation = kind, .references = references, .reference_count = count };
        struct appraisal appraisal;

        appraise_eat(claims, &profile, &appraisal);
        assert_true(appraisal.is_appraised);
        assert_true(appraisal.reason[0] != 0);
        return appraisal;
}

static void assert_tier(const struct claims *claims, struct reference_value one, enum tier tier) {
        assert_int_equal(appraise(claims, ATTESTATION_EAT, &one, 1).tier, tier);
}

static void all_members_of_a_reference_that_are_set_must_match(void **state) {
        struct claims claims = claims_plain();

        (void)state;
        assert_tier(&claims, reference("fw", "1.2", good), TIER_AFFIRMING);
        assert_tier(&claims, reference("fw", "", NULL), TIER_AFFIRMING);
        assert_tier(&claims, reference("", "1.2", NULL), TIER_AFFIRMING);
        assert_tier(&claims, reference("", "", good), TIER_AFFIRMING);
        assert_tier(&claims, reference("fw", "1.2", bad), TIER_CONTRAINDICATED);
        assert_tier(&claims, reference("fw", "1.3", good), TIER_CONTRAINDICATED);
        assert_tier(&claims, reference("other", "1.2", good), TIER_CONTRAINDICATED);
        assert_tier(&claims, reference("fw2", "", NULL), TIER_CONTRAINDICATED);
        assert_tier(&claims, reference("f", "", NULL), TIER_CONTRAINDICATED);
}

static void one_matching_reference_of_several_is_enough(void **state) {
        struct claims claims = claims_plain();
        struct reference_value references[] = { reference("fw", "1.1", bad), reference("fw", "1.2", good) };
        struct appraisal appraisal = appraise(&claims, ATTESTATION_EAT, references, 2);

        (void)state;
        assert_int_equal(appraisal.tier, TIER_AFFIRMING);
        assert_int_equal(appraisal.executables, 2);
        assert_int_equal(appraisal.instance_identity, 2);
        assert_int_equal(appraisal.hardware, 0);
        assert_string_equal(appraisal.reason, "a reference value matches");
}

static void without_reference_values_evidence_is_a_warning(void **state) {
        struct claims claims = claims_plain();
        struct appraisal appraisal = appraise(&claims, ATTESTATION_EAT, NULL, 0);

        (void)state;
        assert_int_equal(appraisal.tier, TIER_WARNING);
        assert_int_equal(appraisal.executables, 33);
        assert_non_null(strstr(appraisal.reason, "no reference values"));
}

static void evidence_that_claims_nothing_matches_nothing(void **state) {
        struct claims claims = { .lifecycle = -1, .dbgstat = -1 };

        (void)state;
        assert_tier(&claims, reference("fw", "", NULL), TIER_CONTRAINDICATED);
        assert_tier(&claims, reference("", "", good), TIER_CONTRAINDICATED);
}

static void a_digest_must_match_in_full_length(void **state) {
        struct claims claims = claims_plain();

        (void)state;
        claims.measurements[0].digest = BYTES(good, 31);
        assert_tier(&claims, reference("", "", good), TIER_CONTRAINDICATED);
}

static void enabled_debugging_is_at_most_a_warning(void **state) {
        struct claims claims = claims_plain();
        struct reference_value matching = reference("fw", "1.2", good);
        struct appraisal appraisal;

        (void)state;
        claims.dbgstat = 0;
        appraisal = appraise(&claims, ATTESTATION_EAT, &matching, 1);
        assert_int_equal(appraisal.tier, TIER_WARNING);
        assert_int_equal(appraisal.configuration, 32);
        assert_string_equal(appraisal.reason, "debugging is enabled");
        assert_tier(&claims, reference("fw", "9", NULL), TIER_CONTRAINDICATED);
        for (claims.dbgstat = 1; claims.dbgstat <= 4; claims.dbgstat++)
                assert_tier(&claims, matching, TIER_AFFIRMING);
}

static void a_psa_lifecycle_other_than_secured_is_at_most_a_warning(void **state) {
        static const struct {
                int64_t lifecycle;
                enum tier tier;
        } cases[] = {
                { -1, TIER_AFFIRMING },   { 0x3000, TIER_AFFIRMING },       { 0x30ff, TIER_AFFIRMING },
                { 0x0000, TIER_WARNING }, { 0x1000, TIER_WARNING },         { 0x2000, TIER_WARNING },
                { 0x4000, TIER_WARNING }, { 0x5000, TIER_WARNING },         { 0x3100, TIER_WARNING },
                { 0xffff, TIER_WARNING }, { 0x6000, TIER_CONTRAINDICATED },
        };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct claims claims = claims_psa();

                claims.lifecycle = cases[i].lifecycle;
                assert_tier(&claims, reference("BL", "1.0", good), cases[i].tier);
        }
}

static void a_component_must_match_by_name_version_and_digest_together(void **state) {
        struct claims claims = claims_psa();

        (void)state;
        assert_tier(&claims, reference("APP", "2.0", good), TIER_AFFIRMING);
        assert_tier(&claims, reference("APP", "1.0", NULL), TIER_CONTRAINDICATED); /* the boot loader's version */
        claims.measurements[1].digest = BYTES(bad, sizeof bad);
        assert_tier(&claims, reference("APP", "2.0", good), TIER_CONTRAINDICATED); /* the boot loader's digest */
}

static void a_good_boot_loader_does_not_excuse_a_bad_application(void **state) {
        struct claims claims = claims_psa();
        struct reference_value references[] = { reference("BL", "1.0", good), reference("APP", "2.0", good),
                                                reference("APP", "2.1", good) };
        struct appraisal appraisal;

        (void)state;
        assert_int_equal(appraise(&claims, ATTESTATION_PSA, references, 3).tier, TIER_AFFIRMING);
        claims.measurements[1].version = TEXT("2.1");
        assert_int_equal(appraise(&claims, ATTESTATION_PSA, references, 3).tier, TIER_AFFIRMING);
        claims.measurements[1].digest = BYTES(bad, sizeof bad);
        appraisal = appraise(&claims, ATTESTATION_PSA, references, 3);
        assert_int_equal(appraisal.tier, TIER_CONTRAINDICATED);
        assert_string_equal(appraisal.reason, "component APP is in no state that the references allow");
        /* A component that no reference names is nobody's business. */
        assert_int_equal(appraise(&claims, ATTESTATION_PSA, references, 1).tier, TIER_AFFIRMING);
}

static void a_profile_that_wants_a_psa_token_warns_of_another(void **state) {
        struct claims claims = claims_plain();
        struct reference_value matching = reference("fw", "1.2", good);
        struct appraisal appraisal = appraise(&claims, ATTESTATION_PSA, &matching, 1);

        (void)state;
        assert_int_equal(appraisal.tier, TIER_WARNING);
        assert_string_equal(appraisal.reason, "the profile wants a PSA token");
        claims.dbgstat = 1;
        assert_int_equal(appraise(&claims, ATTESTATION_PSA, &matching, 1).configuration, 32);
}

static void a_name_that_plays_tricks_is_shown_harmless(void **state) {
        struct claims claims = claims_psa();
        struct reference_value named = reference("", "9", NULL);
        struct appraisal appraisal;
        static const char tricky[] = "\x1b[2J\xff";

        (void)state;
        claims.measurements[1].type = BYTES(tricky, sizeof tricky - 1);
        memcpy(named.swname, tricky, sizeof tricky);
        appraisal = appraise(&claims, ATTESTATION_EAT, &named, 1);
        assert_string_equal(appraisal.reason, "component ?[2J? is in no state that the references allow");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(all_members_of_a_reference_that_are_set_must_match),
                cmocka_unit_test(one_matching_reference_of_several_is_enough),
                cmocka_unit_test(without_reference_values_evidence_is_a_warning),
                cmocka_unit_test(evidence_that_claims_nothing_matches_nothing),
                cmocka_unit_test(a_digest_must_match_in_full_length),
                cmocka_unit_test(enabled_debugging_is_at_most_a_warning),
                cmocka_unit_test(a_psa_lifecycle_other_than_secured_is_at_most_a_warning),
                cmocka_unit_test(a_component_must_match_by_name_version_and_digest_together),
                cmocka_unit_test(a_good_boot_loader_does_not_excuse_a_bad_application),
                cmocka_unit_test(a_profile_that_wants_a_psa_token_warns_of_another),
                cmocka_unit_test(a_name_that_plays_tricks_is_shown_harmless),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

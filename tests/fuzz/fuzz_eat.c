/* SPDX-License-Identifier: Apache-2.0 */

/* EAT claims and their appraisal: slices stay within the payload, and every verdict is one of the tiers
 * with a reason that can be shown and encoded. */

#include <assert.h>

#include "gatewayd/evidence/evidence.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void assert_within(struct bytes slice, struct bytes payload) {
        assert(slice.size == 0 ||
               (slice.data >= payload.data && slice.data + slice.size <= payload.data + payload.size));
}

static void check_claims(const struct claims *claims, struct bytes payload) {
        assert(claims->nonce_count <= ELEMENTS(claims->nonces));
        assert(claims->measurement_count <= CLAIMS_MEASUREMENTS_MAX);
        for (size_t i = 0; i < claims->nonce_count; i++)
                assert_within(claims->nonces[i], payload);
        assert_within(claims->ueid, payload);
        assert_within(claims->profile, payload);
        assert_within(claims->swname, payload);
        assert_within(claims->swversion, payload);
        for (size_t i = 0; i < claims->measurement_count; i++) {
                assert_within(claims->measurements[i].type, payload);
                assert_within(claims->measurements[i].version, payload);
                assert_within(claims->measurements[i].digest, payload);
                assert_within(claims->measurements[i].signer, payload);
        }
        assert(claims->dbgstat >= -1 && claims->dbgstat <= 4);
        assert(claims->lifecycle >= -1 && claims->lifecycle <= UINT16_MAX);
}

static void check_appraisal(const struct claims *claims, const struct profile *profile) {
        struct appraisal appraisal;

        appraise_eat(claims, profile, &appraisal);
        assert(appraisal.tier == TIER_AFFIRMING || appraisal.tier == TIER_WARNING ||
               appraisal.tier == TIER_CONTRAINDICATED);
        assert(profile->reference_count > 0 || appraisal.tier != TIER_AFFIRMING);
        assert(appraisal.reason[0] != 0);
        for (const char *p = appraisal.reason; *p; p++)
                assert(*p >= ' ' && *p <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct reference_value references[] = {
                { .swname = "fw", .swversion = "1.2", .digest = { 1 }, .digest_size = 32 },
                { .swname = "BL" },
                { .swname = "\x1b" },
        };
        const struct profile with = { .attestation = ATTESTATION_PSA, .references = references, .reference_count = 3 };
        const struct profile without = { .attestation = ATTESTATION_EAT };
        struct problem problem = { 0 };
        struct claims claims;

        if (eat_parse(BYTES(data, size), &claims, &problem) < 0) {
                assert(problem.code == CODE_BAD_REQUEST && problem.detail[0] != 0);
                return 0;
        }
        check_claims(&claims, BYTES(data, size));
        check_appraisal(&claims, &with);
        check_appraisal(&claims, &without);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Appraisal policy for EAT and PSA tokens. Pure: claims and the profile's reference values in, a
 * trustworthiness vector and its tier out. The signature has been verified before.
 *
 * Executables: affirming when a reference value matches and no component that the references name has
 * a state that none of them allows; contraindicated when nothing matches; a warning where the profile
 * has no reference values, because then nothing is known about the software, good or bad.
 * Configuration: debug access, or a PSA lifecycle other than "secured", is never better than a warning;
 * a decommissioned device is contraindicated. */

#include "gatewayd/evidence/evidence.h"

/* Values of the vector: draft-ietf-rats-ar4si §2.3. */
enum {
        AR4SI_NONE = 0,
        AR4SI_TRUSTWORTHY_INSTANCE = 2,
        AR4SI_APPROVED_CONFIGURATION = 2,
        AR4SI_UNSAFE_CONFIGURATION = 32,
        AR4SI_UNSUPPORTABLE_CONFIGURATION = 96,
        AR4SI_APPROVED_EXECUTABLES = 2,
        AR4SI_UNRECOGNIZED_EXECUTABLES = 33,
        AR4SI_CONTRAINDICATED_EXECUTABLES = 96,
};

/* The upper byte of a PSA security lifecycle: RFC 9783 §4.3.1. */
enum { LIFECYCLE_SECURED = 0x30, LIFECYCLE_DECOMMISSIONED = 0x60 };

enum { DBGSTAT_ENABLED = 0 };

static enum tier tier_of(int8_t value) {
        int magnitude = value < 0 ? -value : value;

        if (magnitude < 2)
                return TIER_NONE;
        return magnitude < 32 ? TIER_AFFIRMING : magnitude < 96 ? TIER_WARNING : TIER_CONTRAINDICATED;
}

/* Sets one value of the vector, or makes it worse; the worst of all gives the tier and the reason. */
static void judge(struct appraisal *appraisal, int8_t *member, int8_t value, const char *reason) {
        enum tier tier = tier_of(value);

        if (tier >= tier_of(*member))
                *member = value;
        if (tier > appraisal->tier || appraisal->reason[0] == 0)
                snprintf(appraisal->reason, sizeof appraisal->reason, "%s", reason);
        if (tier > appraisal->tier)
                appraisal->tier = tier;
}

static bool name_matches(const char *reference, struct bytes claimed) {
        return reference[0] == 0 || bytes_equal(bytes_of(reference), claimed);
}

static bool digest_matches(const struct reference_value *reference, struct bytes digest) {
        return reference->digest_size == 0 || bytes_equal(BYTES(reference->digest, reference->digest_size), digest);
}

/* The device as a whole: swname and swversion claims, and any of the measurements. */
static bool device_matches(const struct claims *claims, const struct reference_value *reference) {
        if (!name_matches(reference->swname, claims->swname) || !name_matches(reference->swversion, claims->swversion))
                return false;
        if (reference->digest_size == 0)
                return true;
        for (size_t i = 0; i < claims->measurement_count; i++)
                if (digest_matches(reference, claims->measurements[i].digest))
                        return true;
        return false;
}

/* One component: name, version and digest must be those of the same component. */
static bool component_matches(const struct claims *claims, size_t i, const struct reference_value *reference) {
        return name_matches(reference->swname, claims->measurements[i].type) &&
               name_matches(reference->swversion, claims->measurements[i].version) &&
               digest_matches(reference, claims->measurements[i].digest);
}

static bool reference_matches(const struct claims *claims, const struct reference_value *reference) {
        if (device_matches(claims, reference))
                return true;
        for (size_t i = 0; i < claims->measurement_count; i++)
                if (component_matches(claims, i, reference))
                        return true;
        return false;
}

/* The references speak of this component by name, and none of them allows its state. */
static bool component_is_refused(const struct claims *claims, size_t i, const struct profile *profile) {
        bool is_named = false;

        for (size_t j = 0; j < profile->reference_count; j++) {
                const struct reference_value *reference = &profile->references[j];

                if (reference->swname[0] == 0 ||
                    !bytes_equal(bytes_of(reference->swname), claims->measurements[i].type))
                        continue;
                if (component_matches(claims, i, reference))
                        return false;
                is_named = true;
        }
        return is_named;
}

/* What a device calls its components is shown to people. */
static void refuse_component(struct bytes name, struct appraisal *ret) {
        char shown[49] = "", reason[sizeof ret->reason];

        for (size_t i = 0; i < name.size && i < sizeof shown - 1; i++)
                shown[i] = name.data[i] >= ' ' && name.data[i] <= '~' ? (char)name.data[i] : '?';
        snprintf(reason, sizeof reason, "component %s is in no state that the references allow", shown);
        judge(ret, &ret->executables, AR4SI_CONTRAINDICATED_EXECUTABLES, reason);
}

static void judge_executables(const struct claims *claims, const struct profile *profile, struct appraisal *ret) {
        bool is_matched = false;

        if (profile->reference_count == 0) {
                judge(ret, &ret->executables, AR4SI_UNRECOGNIZED_EXECUTABLES, "the profile has no reference values");
                return;
        }
        for (size_t i = 0; i < claims->measurement_count; i++)
                if (component_is_refused(claims, i, profile)) {
                        refuse_component(claims->measurements[i].type, ret);
                        return;
                }
        for (size_t i = 0; i < profile->reference_count && !is_matched; i++)
                is_matched = reference_matches(claims, &profile->references[i]);
        if (is_matched)
                judge(ret, &ret->executables, AR4SI_APPROVED_EXECUTABLES, "a reference value matches");
        else
                judge(ret, &ret->executables, AR4SI_CONTRAINDICATED_EXECUTABLES, "no reference value matches");
}

static void judge_configuration(const struct claims *claims, const struct profile *profile, struct appraisal *ret) {
        int64_t phase = claims->lifecycle < 0 ? -1 : claims->lifecycle >> 8;

        if (claims->dbgstat > DBGSTAT_ENABLED || phase == LIFECYCLE_SECURED)
                judge(ret, &ret->configuration, AR4SI_APPROVED_CONFIGURATION, "the configuration is approved");
        if (profile->attestation == ATTESTATION_PSA && !claims->is_psa)
                judge(ret, &ret->configuration, AR4SI_UNSAFE_CONFIGURATION, "the profile wants a PSA token");
        if (claims->dbgstat == DBGSTAT_ENABLED)
                judge(ret, &ret->configuration, AR4SI_UNSAFE_CONFIGURATION, "debugging is enabled");
        if (phase == LIFECYCLE_DECOMMISSIONED)
                judge(ret, &ret->configuration, AR4SI_UNSUPPORTABLE_CONFIGURATION, "the device is decommissioned");
        else if (phase >= 0 && phase != LIFECYCLE_SECURED)
                judge(ret, &ret->configuration, AR4SI_UNSAFE_CONFIGURATION, "the PSA lifecycle is not secured");
}

void appraise_eat(const struct claims *claims, const struct profile *profile, struct appraisal *ret) {
        *ret = (struct appraisal){ .is_appraised = true };
        judge_executables(claims, profile, ret);
        judge_configuration(claims, profile, ret);
        judge(ret, &ret->instance_identity, AR4SI_TRUSTWORTHY_INSTANCE, "the registered attestation key signed it");
        ret->hardware = AR4SI_NONE; /* nothing is claimed about hardware without endorsements */
}

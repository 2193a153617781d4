/* SPDX-License-Identifier: Apache-2.0 */

/* What an appraisal does to a device: its tier, and where it stands. */

#include "gatewayd/devices/devices.h"
#include "gatewayd/devices/steps.h"
#include "gatewayd/evidence/evidence.h"

const char *tier_name(enum tier tier) {
        switch (tier) {
        case TIER_NONE:
                return "none";
        case TIER_AFFIRMING:
                return "affirming";
        case TIER_WARNING:
                return "warning";
        case TIER_CONTRAINDICATED:
                return "contraindicated";
        }
        return "unknown";
}

/* Evidence given before a conflict or a compromise was noticed says nothing about it. Powered-on time
 * orders the two: nobody can set it back. */
static bool came_after(const struct moment *received, const struct moment *noticed) {
        return received->powered_sec >= noticed->powered_sec;
}

static int answer_doubts(struct turn *turn, struct device *device, const struct moment *received) {
        int r = 0;

        if (device->is_conflicted && came_after(received, &device->conflicted)) {
                device->is_conflicted = false;
                turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
                r = turn_event(turn, EVENT_DEVICE_STANDING, device->id, NULL,
                               "the credential conflict is answered by affirming evidence");
        }
        if (r >= 0 && device->is_compromised && came_after(received, &device->compromised)) {
                device->is_compromised = false;
                turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
                r = turn_event(turn, EVENT_DEVICE_STANDING, device->id, NULL,
                               "the compromise is answered by affirming evidence under the attestation key");
        }
        return r;
}

/* Where a device stands once its way out has been found. */
static int standing_regained(struct turn *turn, const struct device *device, enum standing *ret) {
        struct keyring keyring;
        int r;

        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        *ret = keyring_was_operational(&keyring) ? STANDING_OPERATIONAL : STANDING_REGISTERED;
        return 0;
}

static int settle_standing(struct turn *turn, struct device *device, enum tier tier, bool is_proof) {
        enum standing standing = device->standing;
        int r = 0;

        if (tier == TIER_CONTRAINDICATED && standing != STANDING_REVOKED)
                return step_standing(turn, device, STANDING_QUARANTINED, "the evidence is contraindicated");
        if (tier == TIER_AFFIRMING && (standing == STANDING_QUARANTINED ||
                                       (standing == STANDING_NEEDS_VISIT && is_proof && !device->is_compromised))) {
                r = standing_regained(turn, device, &standing);
                if (r >= 0)
                        r = step_standing(turn, device, standing, "the evidence is affirming");
        }
        return r;
}

int appraisal_settle(struct turn *turn, struct device *device, const struct appraisal *appraisal,
                     const struct moment *received, bool is_proof) {
        enum tier before = device->tier;
        int r = 0;

        if (appraisal->is_appraised) {
                /* A verdict is as old as the evidence it is about, whenever it came. */
                device->tier = appraisal->tier;
                device->appraised = *received;
                if (appraisal->tier == TIER_AFFIRMING) {
                        device->affirmed = *received;
                        if (is_proof)
                                r = answer_doubts(turn, device, received);
                }
                if (r >= 0)
                        r = settle_standing(turn, device, appraisal->tier, is_proof);
                if (r >= 0 && before != appraisal->tier)
                        r = turn_event(turn, EVENT_APPRAISAL_CHANGED, device->id, NULL, "%s, was %s: %s",
                                       tier_name(appraisal->tier), tier_name(before), appraisal->reason);
                turn_effect(turn, EFFECT_NOTIFY_RESULT, device->id, NULL);
        }
        if (r >= 0)
                r = device_update(turn->store, device);
        return r < 0 ? r : schedule_device(turn, device);
}

int appraisal_apply(struct turn *turn, struct device *device, const struct appraisal *appraisal) {
        return appraisal_settle(turn, device, appraisal, &turn->now, true);
}

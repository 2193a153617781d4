/* SPDX-License-Identifier: Apache-2.0 */

/* What a completed handshake proves. The first one with a pre-active key activates it: its siblings
 * are destroyed and its predecessors retire, all in one transaction, so that cutting the power between
 * any two steps leaves both sides in agreement. The second one confirms that the device has stored it. A
 * handshake with a predecessor that began after the proof is a conflict: the device lost its new key, or
 * somebody else has one of the two. */

#include "gatewayd/devices/proof.h"

#include "gatewayd/devices/lifecycle.h"

/* Events that anybody with an old key can cause at will are told at most this often for one device. */
#define REPEAT_SEC 3600

/* Asked for in a session in which affirming evidence was given: whoever asked holds the attestation key.
 * Both marks are forgotten when core starts anew; then the key only counts as any other. */
static bool was_granted_on_evidence(struct keyring *keyring, const struct credential *credential) {
        const struct credential *over = keyring_find(keyring, credential->predecessor);

        return over && credential->session != 0 && over->session == credential->session;
}

/* What becomes of another key of the device when `proven` has been proven. */
static int other_yields(struct turn *turn, struct keyring *keyring, struct credential *other,
                        const struct credential *proven, bool is_on_evidence) {
        bool is_live = other->state == KEY_ACTIVE || other->state == KEY_RETIRING || other->state == KEY_COMPROMISED;

        if (other->state == KEY_PRE_ACTIVE)
                return step_destroy(turn, other, "another key granted beside it was proven first");
        /* Evidence decided a conflict: keys that the proven one does not descend from are not this
         * device's and end at once. */
        if (is_live && is_on_evidence && credential_is_operational(other->kind) &&
            !keyring_is_ancestor(keyring, other, proven))
                return step_deactivate(turn, other, "the device proved itself by evidence over another key");
        if (other->state == KEY_ACTIVE) {
                other->state = KEY_RETIRING;
                other->superseded = turn->now;
        } else if (other->state == KEY_COMPROMISED && !moment_is_set(&other->superseded))
                other->superseded = turn->now;
        else if (credential_is_bootstrap(other->kind) && strcmp(proven->predecessor, other->identity) == 0) {
                /* Used again (a reset): once more the predecessor, by the same rule as at first. */
                other->state = KEY_RETIRING;
                other->superseded = turn->now;
                other->ended = MOMENT_NONE;
        } else if (other->session == 0)
                return 0;
        other->session = 0; /* the evidence has served */
        return credential_update(turn->store, other);
}

/* What proving a key means for the device's row. */
static int device_proven(struct turn *turn, struct device *device) {
        int r = 0;

        device->due &= ~(DUE_ROTATE | DUE_OVERDUE_TOLD | DUE_OVERDUE_RELEASED | DUE_WARNED);
        device->is_compromised = false;
        device->window_until_powered = 0;
        device->window_until_wall = 0;
        if (device->standing == STANDING_REGISTERED || device->standing == STANDING_RESTRICTED ||
            device->standing == STANDING_NEEDS_VISIT)
                r = step_standing(turn, device, STANDING_OPERATIONAL, "a new key was proven");
        return r < 0 ? r : 0;
}

static int prove(struct turn *turn, struct device *device, struct credential *credential) {
        struct keyring keyring;
        bool is_on_evidence;
        int r;

        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        is_on_evidence = was_granted_on_evidence(&keyring, credential);
        for (size_t i = 0; i < keyring.count; i++) {
                if (strcmp(keyring.list[i].identity, credential->identity) == 0)
                        continue;
                r = other_yields(turn, &keyring, &keyring.list[i], credential, is_on_evidence);
                if (r < 0)
                        return r;
        }
        credential->state = KEY_ACTIVE;
        credential->session = 0;
        credential->proven = turn->now;
        r = device_proven(turn, device);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
        r = turn_event(turn, EVENT_CREDENTIAL_ACTIVATED, device->id, credential->identity,
                       "generation %u, granted over %s", credential->generation, credential->predecessor);
        return r < 0 ? r : 1;
}

static int confirm(struct turn *turn, struct credential *credential) {
        int r;

        if (credential_is_bootstrap(credential->kind) || moment_is_set(&credential->confirmed))
                return 0;
        credential->confirmed = turn->now;
        r = turn_event(turn, EVENT_CREDENTIAL_CONFIRMED, credential->device, credential->identity, "second handshake");
        return r < 0 ? r : 1;
}

/* Whether an event that may repeat is worth telling again. `since` is when the condition began. */
bool proof_is_worth_telling(const struct credential *credential, const struct moment *since, const struct moment *now) {
        if (!moment_is_set(&credential->last_used) || credential->last_used.powered_sec <= since->powered_sec)
                return true;
        return credential->last_used.powered_sec / REPEAT_SEC != now->powered_sec / REPEAT_SEC;
}

static int conflict(struct turn *turn, struct device *device, const struct credential *credential,
                    const struct profile *profile) {
        bool is_new = !device->is_conflicted;
        int r = 0;

        if (is_new || proof_is_worth_telling(credential, &device->conflicted, &turn->now))
                r = turn_event(turn, EVENT_CREDENTIAL_CONFLICT, device->id, credential->identity,
                               "used after its successor was proven; %s", on_conflict_name(profile->on_conflict));
        if (r < 0)
                return r;
        if (is_new) {
                device->is_conflicted = true;
                device->conflicted = turn->now;
                turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
        }
        if (profile->on_conflict == CONFLICT_QUARANTINE)
                r = step_standing(turn, device, STANDING_QUARANTINED, "credential conflict");
        return r < 0 ? r : is_new || r > 0;
}

/* A key known to be stolen, of a device that has a new one since: nothing changes, but it shows. */
static int compromised_used(struct turn *turn, const struct device *device, const struct credential *credential) {
        if (!moment_is_set(&credential->superseded) ||
            !proof_is_worth_telling(credential, &credential->superseded, &turn->now))
                return 0;
        return turn_event(turn, EVENT_CREDENTIAL_CONFLICT, device->id, credential->identity,
                          "a compromised key was used");
}

static int spent_factory_used(struct turn *turn, const struct device *device, const struct credential *credential,
                              const struct profile *profile) {
        if (!proof_is_worth_telling(credential, &credential->ended, &turn->now))
                return 0;
        return turn_event(turn, EVENT_FACTORY_KEY_USED, device->id, credential->identity, "%s; %s",
                          lifecycle_window_is_open(device, &turn->now) ? "inside the reset window"
                                                                       : "after operational keys replaced it",
                          on_factory_key_name(profile->on_factory_key));
}

int proof_take(struct turn *turn, struct device *device, struct credential *credential, const struct profile *profile,
               bool begun_before_proof) {
        switch (credential->state) {
        case KEY_PRE_ACTIVE:
                return prove(turn, device, credential);
        case KEY_ACTIVE:
                return confirm(turn, credential);
        case KEY_RETIRING:
                return begun_before_proof ? 0 : conflict(turn, device, credential, profile);
        case KEY_COMPROMISED:
                return compromised_used(turn, device, credential);
        case KEY_DEACTIVATED:
        case KEY_DESTROYED:
                break;
        }
        return spent_factory_used(turn, device, credential, profile);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Single steps of a lifecycle: see steps.h. */

#include "gatewayd/devices/steps.h"

#include "gatewayd/devices/lifecycle.h"

int keyring_load(struct turn *turn, const char *device, struct keyring *ret) {
        ssize_t n = credential_list(turn->store, device, ret->list, ELEMENTS(ret->list));

        ret->count = n > 0 ? (size_t)n : 0;
        return n < 0 ? (int)n : 0;
}

struct credential *keyring_tip(struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (keyring->list[i].kind == CREDENTIAL_PSK && keyring->list[i].state == KEY_ACTIVE)
                        return &keyring->list[i];
        return NULL;
}

bool keyring_was_operational(const struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (keyring->list[i].kind == CREDENTIAL_PSK && moment_is_set(&keyring->list[i].proven))
                        return true;
        return false;
}

struct credential *keyring_factory(struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (keyring->list[i].kind == CREDENTIAL_FACTORY)
                        return &keyring->list[i];
        return NULL;
}

struct credential *keyring_find(struct keyring *keyring, const char *identity) {
        for (size_t i = 0; i < keyring->count; i++)
                if (strcmp(keyring->list[i].identity, identity) == 0)
                        return &keyring->list[i];
        return NULL;
}

bool keyring_is_ancestor(struct keyring *keyring, const struct credential *credential,
                         const struct credential *descendant) {
        /* Generations fall along the chain, so it ends. */
        for (const struct credential *at = descendant; at;) {
                const struct credential *before;

                if (strcmp(at->identity, credential->identity) == 0)
                        return true;
                before = keyring_find(keyring, at->predecessor);
                at = before && before->generation < at->generation ? before : NULL;
        }
        return false;
}

int step_deactivate(struct turn *turn, struct credential *credential, const char *reason) {
        int r;

        credential->state = KEY_DEACTIVATED;
        credential->session = 0;
        credential->ended = turn->now;
        if (credential->kind != CREDENTIAL_FACTORY) {
                r = credential_wipe(turn->store, credential->identity);
                if (r < 0)
                        return r;
        }
        r = credential_update(turn->store, credential);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_EVICT_KEY, credential->device, credential->identity);
        return turn_event(turn, EVENT_CREDENTIAL_DEACTIVATED, credential->device, credential->identity, "%s", reason);
}

int step_destroy(struct turn *turn, const struct credential *credential, const char *reason) {
        int r;

        r = credential_remove(turn->store, credential->identity);
        if (r < 0)
                return r;
        /* A handshake may be under way with it. */
        turn_effect(turn, EFFECT_EVICT_KEY, credential->device, credential->identity);
        return turn_event(turn, EVENT_CREDENTIAL_DESTROYED, credential->device, credential->identity, "%s", reason);
}

int step_standing(struct turn *turn, struct device *device, enum standing standing, const char *reason) {
        enum standing before = device->standing;
        int r;

        if (before == standing)
                return 0;
        device->standing = standing;
        r = turn_event(turn, EVENT_DEVICE_STANDING, device->id, NULL, "%s, was %s: %s", standing_name(standing),
                       standing_name(before), reason);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_NOTIFY_ME, device->id, NULL);
        return 1;
}

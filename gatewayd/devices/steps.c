/* SPDX-License-Identifier: Apache-2.0 */

/* Single steps of a lifecycle: see steps.h. */

#include "gatewayd/devices/steps.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/keys/authority.h"

int keyring_load(struct turn *turn, const char *device, struct keyring *ret) {
        ssize_t n = credential_list(turn->store, device, ret->list, ELEMENTS(ret->list));

        ret->count = n > 0 ? (size_t)n : 0;
        return n < 0 ? (int)n : 0;
}

struct credential *keyring_tip(struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (credential_is_operational(keyring->list[i].kind) && keyring->list[i].state == KEY_ACTIVE)
                        return &keyring->list[i];
        return NULL;
}

bool keyring_was_operational(const struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (credential_is_operational(keyring->list[i].kind) && moment_is_set(&keyring->list[i].proven))
                        return true;
        return false;
}

int keyring_view(struct turn *turn, struct keyring *keyring, struct rotation_view *ret) {
        const struct credential *tip = keyring_tip(keyring);
        struct certificate certificate;
        int r;

        *ret = (struct rotation_view){ .credentials = keyring->list, .count = keyring->count };
        if (!tip || tip->kind != CREDENTIAL_LDEVID)
                return 0;
        r = certificate_get(turn->store, tip->identity, &certificate);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        ret->tip_not_before = certificate.not_before;
        ret->tip_not_after = certificate.not_after;
        return 0;
}

struct credential *keyring_bootstrap(struct keyring *keyring) {
        for (size_t i = 0; i < keyring->count; i++)
                if (credential_is_bootstrap(keyring->list[i].kind))
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

/* An LDevID that ends is on the CRL, for whoever else on the site takes it. An IDevID is not ours to revoke. */
static int revoke_certificate(struct turn *turn, const struct credential *credential, enum revocation_reason reason) {
        int r;

        if (credential->kind != CREDENTIAL_LDEVID)
                return 0;
        r = authority_revoke(turn, credential->identity, reason);
        return r == -ENOENT ? 0 : r; /* ran out and was trimmed */
}

int step_deactivate(struct turn *turn, struct credential *credential, const char *reason) {
        int r;

        credential->state = KEY_DEACTIVATED;
        credential->session = 0;
        credential->ended = turn->now;
        if (credential->kind == CREDENTIAL_PSK) {
                r = credential_wipe(turn->store, credential->identity);
                if (r < 0)
                        return r;
        }
        r = revoke_certificate(turn, credential, REVOKED_SUPERSEDED);
        if (r < 0)
                return r;
        r = credential_update(turn->store, credential);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_EVICT_KEY, credential->device, credential->identity);
        return turn_event(turn, EVENT_CREDENTIAL_DEACTIVATED, credential->device, credential->identity, "%s", reason);
}

int step_destroy(struct turn *turn, const struct credential *credential, const char *reason) {
        int r;

        r = revoke_certificate(turn, credential, REVOKED_CESSATION);
        if (r < 0)
                return r;
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

/* SPDX-License-Identifier: Apache-2.0 */

/* The terms of every new operational credential, be it a PSK (provision.c) or a certificate (keys/est_enrol.c):
 * who may have one now, and room for one more row. */

#include "gatewayd/devices/grant_terms.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"

/* Unproven keys of one device at a time; the oldest goes. */
#define PRE_ACTIVE_MAX 4

/* exchange.c has asked lifecycle_allows(); what it could not see is in which session the evidence came. */
int grant_terms_check(struct turn *turn, const struct identity *from, struct problem *problem) {
        const struct lifecycle_view view = lifecycle_view_of(from);
        char reason[160];

        switch (lifecycle_cred_terms(&view, &turn->now, reason)) {
        case CRED_OPEN:
                return 0;
        case CRED_ATTESTED:
                if (from->session != 0 && from->credential.session == from->session)
                        return 0;
                break;
        case CRED_CLOSED:
                break;
        }
        return problem_set(problem, CODE_FORBIDDEN, EACCES, "not allowed", "%s", reason);
}

void keyring_drop(struct keyring *keyring, size_t index) {
        keyring->count--;
        memmove(&keyring->list[index], &keyring->list[index + 1], (keyring->count - index) * sizeof keyring->list[0]);
}

/* The list has the newest first: the last of a state is its oldest. */
static ssize_t find_oldest(const struct keyring *keyring, enum key_state state, const char *except) {
        for (size_t i = keyring->count; i-- > 0;) {
                const struct credential *c = &keyring->list[i];

                if (credential_is_operational(c->kind) && c->state == state && strcmp(c->identity, except) != 0)
                        return (ssize_t)i;
        }
        return -1;
}

static int make_room_unproven(struct turn *turn, struct device *device, struct keyring *keyring) {
        size_t unproven = 0;
        ssize_t oldest;
        int r;

        for (size_t i = 0; i < keyring->count; i++)
                unproven += keyring->list[i].state == KEY_PRE_ACTIVE;
        for (; unproven >= PRE_ACTIVE_MAX; unproven--) {
                oldest = find_oldest(keyring, KEY_PRE_ACTIVE, "");
                r = step_destroy(turn, &keyring->list[oldest], "too many unproven keys at a time");
                if (r < 0)
                        return r;
                keyring_drop(keyring, (size_t)oldest);
                device->dropped_grants++;
        }
        return 0;
}

/* A device never has more than CREDENTIALS_MAX rows: those of ended keys go early, and should a tug-of-war
 * over a device leave many predecessors, the oldest of them. Never the one that asks. */
static int make_room_rows(struct turn *turn, const struct identity *from, struct keyring *keyring) {
        static const enum key_state order[] = { KEY_DEACTIVATED, KEY_COMPROMISED, KEY_RETIRING };

        while (keyring->count >= CREDENTIALS_MAX) {
                ssize_t oldest = -1;
                int r;

                for (size_t i = 0; i < ELEMENTS(order) && oldest < 0; i++)
                        oldest = find_oldest(keyring, order[i], from->credential.identity);
                if (oldest < 0)
                        return -ENOSPC; /* cannot be: four unproven, one active, the factory key, the asker */
                r = step_destroy(turn, &keyring->list[oldest], "too many keys of one device");
                if (r < 0)
                        return r;
                keyring_drop(keyring, (size_t)oldest);
        }
        return 0;
}

int keyring_make_room(struct turn *turn, const struct identity *from, struct device *device, struct keyring *keyring) {
        int r;

        r = make_room_unproven(turn, device, keyring);
        return r < 0 ? r : make_room_rows(turn, from, keyring);
}

int grant_make_room(struct turn *turn, const struct identity *from, struct device *device) {
        struct keyring keyring;
        uint64_t dropped;
        int r;

        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        r = device_get(turn->store, bytes_of(device->id), device); /* the caller's may be older */
        if (r < 0)
                return r;
        dropped = device->dropped_grants;
        r = keyring_make_room(turn, from, device, &keyring);
        if (r < 0 || device->dropped_grants == dropped)
                return r;
        return device_update(turn->store, device);
}

void grant_begin(struct turn *turn, const struct identity *from, const struct device *device, enum credential_kind kind,
                 struct credential *ret) {
        *ret = (struct credential){
                .kind = kind,
                .state = KEY_PRE_ACTIVE,
                .generation = device->generation + 1,
                .session = from->session,
                .issued = turn->now,
        };
        memcpy(ret->device, device->id, sizeof ret->device);
        memcpy(ret->predecessor, from->credential.identity, sizeof ret->predecessor);
}

int grant_finish(struct turn *turn, const struct identity *from, struct device *device,
                 const struct credential *credential, const struct secret *secret) {
        int r;

        r = credential_insert(turn->store, credential, secret);
        if (r < 0)
                return r;
        device->generation++;
        r = device_update(turn->store, device);
        if (r < 0)
                return r;
        r = turn_event(turn, EVENT_CREDENTIAL_ISSUED, device->id, credential->identity,
                       "generation %u, asked over %s (%s)", credential->generation, credential->predecessor,
                       key_state_name(from->credential.state));
        return r < 0 ? r : schedule_device(turn, device);
}

int grant_certificate(struct turn *turn, const struct identity *from, const struct certificate *certificate) {
        struct credential credential;
        struct device device;
        int r;

        r = device_get(turn->store, bytes_of(from->device.id), &device);
        if (r < 0)
                return r;
        grant_begin(turn, from, &device, CREDENTIAL_LDEVID, &credential);
        memcpy(credential.identity, certificate->fingerprint, sizeof credential.identity);
        return grant_finish(turn, from, &device, &credential, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* With which key a device connects, and when: the two slots, the way back to the old key, the second slot
 * after 24 hours, the pauses while the gateway is away. See device.h and PROTOCOL.md. */

#include "device_parts.h"

#include <string.h>

static uint8_t pending_slot(const struct device_memory *memory) {
        return memory->has_newest ? (uint8_t)(1 - memory->newest) : 0;
}

static bool has_second(const struct device_memory *memory) {
        return memory->has_newest && !memory->has_pending && memory->slot[1 - memory->newest].identity_size > 0;
}

const struct device_key *device_key_of(const struct device *device, uint8_t choice) {
        const struct device_memory *memory = &device->memory;

        switch (choice) {
        case DEVICE_KEY_NEWEST:
                return &memory->slot[memory->newest];
        case DEVICE_KEY_PENDING:
                return &memory->slot[pending_slot(memory)];
        case DEVICE_KEY_SECOND:
                return &memory->slot[1 - memory->newest];
        default:
                return &device->factory;
        }
}

bool device_store(struct device *device) {
        if (device->port.store(device->port.user, &device->memory) == 0)
                return true;
        device_report(device, DEVICE_EVENT_NOT_STORED, NULL);
        return false;
}

uint8_t device_choose_key(const struct device *device) {
        if (device->memory.has_pending && !device->prefers_old)
                return DEVICE_KEY_PENDING;
        if (!device->memory.has_newest)
                return device->tries_second ? DEVICE_KEY_PENDING : DEVICE_KEY_FACTORY;
        return device->tries_second && has_second(&device->memory) ? DEVICE_KEY_SECOND : DEVICE_KEY_NEWEST;
}

static uint64_t failing_sec(const struct device *device, uint64_t now) {
        return device->memory.failing_sec + (device->is_failing ? (now - device->failing_from) / 1000 : 0);
}

/* Counts from the first failure on, not from the last success: a device that sleeps for a day between
 * two visits has not failed for a day. */
static void note_newest_failed(struct device *device, uint64_t now) {
        uint64_t total = failing_sec(device, now);

        if (!device->is_failing) {
                device->is_failing = true;
                device->failing_from = now;
                device->failing_stored_at = now;
        } else if (now - device->failing_stored_at >= DEVICE_FAILING_STORE_SEC * 1000) {
                device->memory.failing_sec = total > UINT32_MAX ? UINT32_MAX : (uint32_t)total;
                device->failing_from = now;
                device->failing_stored_at = now;
                (void)device_store(device); /* reported; counting goes on in RAM */
        }
        device->tries_second = has_second(&device->memory) && total >= DEVICE_FALL_BACK_SEC;
}

static bool forget_failures(struct device *device) {
        bool was_stored = device->memory.failing_sec != 0;

        device->is_failing = false;
        device->tries_second = false;
        device->memory.failing_sec = 0;
        return was_stored;
}

/* Somebody has to look at a device none of whose keys opens a session any more. */
static void note_refused(struct device *device) {
        bool newest, other;

        device->refused_keys |= (uint8_t)(1U << device->choice);
        if (device->memory.has_newest) {
                newest = device->refused_keys & 1U << DEVICE_KEY_NEWEST;
                other = has_second(&device->memory)  ? (device->refused_keys & 1U << DEVICE_KEY_SECOND) != 0
                        : device->memory.has_pending ? (device->refused_keys & 1U << DEVICE_KEY_PENDING) != 0
                                                     : true;
        } else {
                newest = device->refused_keys & 1U << DEVICE_KEY_FACTORY;
                other = !device->memory.has_pending || (device->refused_keys & 1U << DEVICE_KEY_PENDING);
        }
        if (newest && other && !device->is_locked_out) {
                device->is_locked_out = true;
                device_report(device, DEVICE_EVENT_LOCKED_OUT, NULL);
        }
}

/* ---- connecting ---- */

void device_back_off(struct device *device, uint64_t now) {
        uint32_t least = device->config.backoff_min_ms ? device->config.backoff_min_ms : DEVICE_BACKOFF_MIN_MS;
        uint32_t most = device->config.backoff_max_ms ? device->config.backoff_max_ms : DEVICE_BACKOFF_MAX_MS;

        if (device->backoff_ms < least)
                device->backoff_ms = least;
        device->connect_at = now + device_roll(device, device->backoff_ms / 2, device->backoff_ms);
        device->backoff_ms = device->backoff_ms > most / 2 ? most : device->backoff_ms * 2;
}

void device_session_over(struct device *device) {
        device_coap_reset(&device->coap);
        device->phase = PHASE_OFFLINE;
        device->task = TASK_NONE;
        device->tries_second = false; /* each time the newest key first */
}

void device_leave(struct device *device) {
        device->port.disconnect(device->port.user);
        device_session_over(device);
}

void device_connect(struct device *device, uint64_t now) {
        device->choice = device_choose_key(device);
        device->phase = PHASE_CONNECTING;
        device->connect_until = now + DEVICE_HANDSHAKE_MAX_MS;
        device->port.connect(device->port.user, device_key_of(device, device->choice), device_anchors(device));
}

/* Where to turn after a handshake that did not succeed. A refused new key makes way for the old one at
 * once, one that met silence only after some tries (the gateway may just be away). Neither is
 * forgotten before the old one has succeeded. */
void device_handshake_failed(struct device *device, bool is_refused, uint64_t now) {
        device->phase = PHASE_OFFLINE;
        device_report(device, is_refused ? DEVICE_EVENT_REFUSED : DEVICE_EVENT_NO_ANSWER, NULL);
        if (is_refused)
                note_refused(device);
        else
                device_anchors_failed(device, now);

        if (device->choice == DEVICE_KEY_PENDING && device->memory.has_pending) {
                if (!is_refused && ++device->pending_silences < DEVICE_PENDING_TRIES) {
                        device_back_off(device, now);
                        return;
                }
                device->pending_silences = 0;
                device->prefers_old = true;
                device->connect_at = now;
                return;
        }

        device->prefers_old = false;
        if (device->choice == DEVICE_KEY_NEWEST)
                note_newest_failed(device, now);
        else
                device->tries_second = false;
        if (device->choice == DEVICE_KEY_NEWEST && device->tries_second)
                device->connect_at = now;
        else
                device_back_off(device, now);
}

bool device_try_dropped_grant(struct device *device, uint64_t now) {
        const struct device_memory *memory = &device->memory;

        if (memory->has_newest || memory->has_pending || memory->slot[0].identity_size == 0 || device->tried_dropped)
                return false;
        device->tried_dropped = true;
        device_leave(device);
        device->tries_second = true;
        device->connect_at = now;
        return true;
}

/* The first session with a new key proves it: it is the newest from now on. */
static void key_proven(struct device *device, uint64_t now) {
        device->memory.newest = pending_slot(&device->memory);
        device->memory.has_newest = 1;
        device->memory.has_pending = 0;
        (void)forget_failures(device);
        /* Not stored, it is pending again after a power cut, and will be proven again. */
        (void)device_store(device);
        device->choice = DEVICE_KEY_NEWEST;
        device->grant_at = DEVICE_NEVER;
        device->grant_needs_evidence = false;
        device->me_at = now;
        device_report(device, DEVICE_EVENT_PROVEN, NULL);
}

static void old_key_succeeded(struct device *device, uint64_t now) {
        bool is_changed = false;

        if (device->memory.has_pending) {
                device->memory.has_pending = 0;
                is_changed = true;
                device->me_at = now;
        }
        if (device->choice == DEVICE_KEY_NEWEST && forget_failures(device))
                is_changed = true;
        if (is_changed)
                (void)device_store(device);
        /* The factory key and the second slot are good for one thing: a new key. */
        if (device->choice != DEVICE_KEY_NEWEST && device->grant_at == DEVICE_NEVER && !device->grant_needs_evidence)
                device->grant_at = now + device->grant_pause_sec * UINT64_C(1000);
}

void device_key_works(struct device *device, uint64_t now) {
        device->refused_keys = 0;
        device->is_locked_out = false;
        device->prefers_old = false;
        device->pending_silences = 0;
        device_anchors_held(device);
        if (device->choice == DEVICE_KEY_PENDING)
                key_proven(device, now);
        else
                old_key_succeeded(device, now);
}

bool device_keep_grant(struct device *device, const struct device_key *key) {
        struct device_memory *memory = &device->memory;
        const uint8_t newest = memory->newest, has_pending = memory->has_pending;
        const uint32_t failed_sec = memory->failing_sec;
        const uint16_t csr_size = memory->csr_size;
        struct device_key displaced, *slot;

        if (device->choice == DEVICE_KEY_SECOND) { /* the key that works is the newest from now on */
                memory->newest = (uint8_t)(1 - memory->newest);
                memory->failing_sec = 0;
        }
        slot = &memory->slot[pending_slot(memory)];
        displaced = *slot;
        *slot = *key;
        memory->has_pending = 1;
        memory->csr_size = 0;
        if (!device_store(device)) {
                *slot = displaced;
                memory->newest = newest;
                memory->has_pending = has_pending;
                memory->failing_sec = failed_sec;
                memory->csr_size = csr_size;
                return false;
        }
        device->is_failing = false;
        device->tries_second = false;
        device->tried_dropped = false;
        device->prefers_old = false;
        device->pending_silences = 0;
        return true;
}

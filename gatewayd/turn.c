/* SPDX-License-Identifier: Apache-2.0 */

/* A turn's list of effects: what domain code has decided and what must wait for the barrier. Every
 * lifecycle event is also a row of the audit table, in the same transaction as the step itself. */

#include "gatewayd/turn.h"

#include <stdarg.h>
#include <stdlib.h>

#include "store/audit.h"
#include "store/devices.h"

static void copy_text(char *to, size_t to_size, const char *from) {
        snprintf(to, to_size, "%s", from ? from : "");
}

static struct effect *effect_add(struct turn *turn, enum effect_kind kind, const char *device, const char *kid) {
        struct effect *effect;

        if (turn->effect_count == turn->effect_capacity) {
                size_t capacity = turn->effect_capacity ? 2 * turn->effect_capacity : 16;
                struct effect *grown = realloc(turn->effects, capacity * sizeof *grown);

                if (!grown)
                        oom();
                turn->effects = grown;
                turn->effect_capacity = capacity;
        }
        effect = &turn->effects[turn->effect_count++];
        *effect = (struct effect){ .kind = kind };
        copy_text(effect->event.device, sizeof effect->event.device, device);
        copy_text(effect->event.kid, sizeof effect->event.kid, kid);
        return effect;
}

/* What anybody on the network can cause as often as they like, and what is no step of a lifecycle: the
 * journal counts it; rows in the audit table would let an attacker fill the disk. */
static bool is_chatter(enum event_kind kind) {
        switch (kind) {
        case EVENT_DEVICE_CONNECTED:
        case EVENT_HANDSHAKE_REFUSED:
        case EVENT_REQUEST_REFUSED:
        case EVENT_EVIDENCE_REFUSED:
        case EVENT_BACKLOG_FULL:
        case EVENT_EVIDENCE_RELAYED:
        case EVENT_UPLINK_UP:
        case EVENT_UPLINK_DOWN:
        case EVENT_EVENTS_COUNTED:
                return true;
        default:
                return false;
        }
}

int turn_event(struct turn *turn, enum event_kind kind, const char *device, const char *kid, const char *reason_format,
               ...) {
        struct event event = { .kind = kind, .count = 1 };

        copy_text(event.device, sizeof event.device, device);
        copy_text(event.kid, sizeof event.kid, kid);
        if (reason_format) {
                va_list arguments;

                va_start(arguments, reason_format);
                vsnprintf(event.reason, sizeof event.reason, reason_format, arguments);
                va_end(arguments);
        }
        if (!is_chatter(kind)) {
                struct device row;
                int r;

                if (device && device_get(turn->store, bytes_of(device), &row) >= 0)
                        copy_text(event.profile, sizeof event.profile, row.profile);
                r = audit_append(turn->store, &turn->now, &event, turn->actor);
                if (r < 0)
                        return r;
        }
        effect_add(turn, EFFECT_EVENT, NULL, NULL)->event = event;
        return 0;
}

void turn_effect(struct turn *turn, enum effect_kind kind, const char *device, const char *kid) {
        (void)effect_add(turn, kind, device, kid);
}

size_t turn_mark(const struct turn *turn) {
        return turn->effect_count;
}

void turn_rewind(struct turn *turn, size_t mark) {
        if (mark < turn->effect_count)
                turn->effect_count = mark;
}

void turn_clear(struct turn *turn) {
        turn->effect_count = 0;
}

void turn_free(struct turn *turn) {
        free(turn->effects);
        turn->effects = NULL;
        turn->effect_count = turn->effect_capacity = 0;
}

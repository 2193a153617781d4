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

/* What a registered device can cause as often as it likes, while an auditor must see who tried what: rows up to
 * a number in an hour, and none for a reason that has one; after that the journal counts. */
#define REFUSALS_PERIOD_SEC 3600
#define REFUSALS_MAX        4
#define REFUSALS_LOOK_BACK  32

struct refusals {
        const struct event *event;
        int64_t since; /* powered-on seconds */
        unsigned count;
        bool is_same_there;
};

static int count_refusal(void *userdata, const struct audit_row *row) {
        struct refusals *refusals = userdata;

        if (row->kind != refusals->event->kind || row->at.powered_sec <= refusals->since)
                return 0;
        refusals->count++;
        refusals->is_same_there |= strcmp(row->reason, refusals->event->reason) == 0;
        return 0;
}

/* 1: this refusal needs no row. */
static int is_refused_often(struct turn *turn, struct event *event) {
        struct refusals refusals = { .event = event, .since = turn->now.powered_sec - REFUSALS_PERIOD_SEC };
        int r;

        if (event->kind != EVENT_ENROLMENT_REFUSED || !event->device[0])
                return 0;
        r = audit_last(turn->store, event->device, REFUSALS_LOOK_BACK, count_refusal, &refusals);
        if (r < 0)
                return r;
        if (refusals.is_same_there)
                return 1;
        if (refusals.count < REFUSALS_MAX)
                return 0;
        /* Ever new reasons would make ever new lines. */
        copy_text(event->reason, sizeof event->reason, "again and again, for ever other reasons");
        return 1;
}

static int append(struct turn *turn, struct event *event) {
        struct device row;
        int r;

        if (event->device[0] && device_get(turn->store, bytes_of(event->device), &row) >= 0)
                copy_text(event->profile, sizeof event->profile, row.profile);
        r = is_refused_often(turn, event);
        return r == 0 ? audit_append(turn->store, &turn->now, event, turn->actor) : r;
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
                int r = append(turn, &event);

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

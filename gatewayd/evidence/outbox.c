/* SPDX-License-Identifier: Apache-2.0 */

/* What became of evidence upstream, as north reports it. North may report twice (it starts anew, an
 * acknowledgement crosses a crash): the second time changes nothing. */

#include <errno.h>

#include "gatewayd/evidence/evidence.h"

/* What is wanted of a record after its row has been left. */
struct record {
        char device[DEVICE_ID_MAX + 1];
        struct moment received;
        enum tier tier;
        enum delivery delivery;
        bool is_over; /* its receipt has been delivered too */
};

static int copy_record(void *userdata, const struct custody *custody) {
        struct record *record = userdata;

        memcpy(record->device, custody->device, sizeof record->device);
        record->received = custody->received;
        record->tier = (enum tier)custody->tier;
        record->delivery = custody->delivery;
        record->is_over = custody->receipt.size == 0;
        return 0;
}

/* A backlog of months drains in minutes: one event a turn says how many. */
static int tell_delivered(struct turn *turn, const char *device, uint64_t sequence) {
        for (size_t i = turn->effect_count; i > 0; i--) {
                struct effect *effect = &turn->effects[i - 1];

                if (effect->kind != EFFECT_EVENT || effect->event.kind != EVENT_EVIDENCE_RELAYED)
                        continue;
                effect->event.count++;
                if (strcmp(effect->event.device, device) != 0)
                        effect->event.device[0] = 0;
                snprintf(effect->event.reason, sizeof effect->event.reason, "up to receipt %llu",
                         (unsigned long long)sequence);
                return 0;
        }
        return turn_event(turn, EVENT_EVIDENCE_RELAYED, device, NULL, "up to receipt %llu",
                          (unsigned long long)sequence);
}

int relay_delivered(struct turn *turn, uint64_t sequence) {
        struct record record;
        int r;

        r = custody_get(turn->store, sequence, copy_record, &record);
        if (r == -ENOENT)
                return 0;
        if (r < 0 || record.is_over)
                return r;
        r = custody_delivered(turn->store, sequence);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        return tell_delivered(turn, record.device, sequence);
}

int relay_parked(struct turn *turn, uint64_t sequence, uint16_t http_status, struct bytes reason) {
        struct record record;
        char text[128];
        int r;

        r = custody_get(turn->store, sequence, copy_record, &record);
        if (r == -ENOENT)
                return 0;
        if (r < 0 || record.delivery != DELIVERY_WAITING)
                return r;
        snprintf(text, sizeof text, "%.*s", reason.size < sizeof text ? (int)reason.size : (int)sizeof text - 1,
                 reason.size > 0 ? (const char *)reason.data : "");
        r = custody_parked(turn->store, sequence, http_status, text);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        return turn_event(turn, EVENT_EVIDENCE_PARKED, record.device, NULL, "receipt %llu, HTTP status %u: %s",
                          (unsigned long long)sequence, http_status, text);
}

static bool is_tier(uint8_t tier) {
        return tier == TIER_NONE || tier == TIER_AFFIRMING || tier == TIER_WARNING || tier == TIER_CONTRAINDICATED;
}

/* A backlog brings verdicts on evidence of long ago: one that is older than the latest verdict says nothing
 * about the device as it is now. Evidence that nobody has judged yet does not count: sending more of it must
 * not keep a bad verdict away. */
int relay_result(struct turn *turn, uint64_t sequence, uint8_t tier, struct bytes ear_jwt) {
        struct appraisal appraisal = { .tier = (enum tier)tier,
                                       .is_appraised = tier != TIER_NONE,
                                       .reason = "the verdict upstream" };
        struct record record;
        struct device device;
        int r;

        (void)ear_jwt; /* a collector sends none; whoever does has it verified before core is told */
        if (!is_tier(tier))
                return -EBADMSG;
        r = custody_get(turn->store, sequence, copy_record, &record);
        if (r >= 0)
                r = device_get(turn->store, bytes_of(record.device), &device);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        if (record.received.powered_sec < device.appraised.powered_sec)
                return 0;
        return appraisal_settle(turn, &device, &appraisal, &record.received, record.tier != TIER_NONE);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The relay's queue and its answers to answers: relay.h says by which rules. No I/O, no clock, no
 * randomness of its own. */

#include "gatewayd/north/relay.h"

#include <errno.h>
#include <stdlib.h>

#define USEC_PER_SEC UINT64_C(1000000)
/* No configuration may turn the back-off into a busy loop. */
#define RETRY_FLOOR_USEC UINT64_C(50000)
/* How soon after a failure a change of the network may lead to the next try. */
#define SETTLE_USEC UINT64_C(1000000)

enum relay_mode {
        MODE_PROBE, /* the empty batch: is it the way or the record? */
        MODE_BATCH,
};

struct relay {
        struct relay_settings settings;
        struct relay_sink sink;

        struct relay_record *first; /* ascending sequence, no two the same */
        size_t count, bytes;

        enum relay_mode mode;
        bool is_busy;
        size_t posted;           /* records of the batch under way, or to be repeated; 0: none */
        size_t limit_records;    /* of the next batch: halved by refusals and repeated failures */
        size_t steady_records;   /* success doubles the limit up to here, then adds one a time */
        size_t limit_bytes;      /* lowered for good by 413 */
        uint16_t refused_status; /* of the first record, while its case is open; 0: none is */
        bool is_way_proven;      /* in that case: the empty batch has been taken since */
        char refused_reason[160];

        uint64_t wait_until_usec; /* 0: no wait */
        uint64_t earliest_usec;   /* how far a change of the network may shorten the wait */
        unsigned failures;        /* in a row */

        bool is_state_known, is_up;
        char reason[160];
};

struct relay *relay_new(const struct relay_settings *settings, const struct relay_sink *sink) {
        struct relay *relay = xcalloc(1, sizeof *relay);

        relay->settings = *settings;
        if (relay->settings.batch_records == 0)
                relay->settings.batch_records = 1;
        if (relay->settings.retry_min_usec < RETRY_FLOOR_USEC)
                relay->settings.retry_min_usec = RETRY_FLOOR_USEC;
        if (relay->settings.retry_max_usec < relay->settings.retry_min_usec)
                relay->settings.retry_max_usec = relay->settings.retry_min_usec;
        relay->sink = *sink;
        relay->limit_records = relay->settings.batch_records;
        relay->steady_records = relay->settings.batch_records;
        relay->limit_bytes = relay->settings.batch_bytes;
        return relay;
}

struct relay *relay_free(struct relay *relay) {
        if (!relay)
                return NULL;
        while (relay->first) {
                struct relay_record *record = relay->first;

                relay->first = record->next;
                free(record);
        }
        free(relay);
        return NULL;
}

void relay_freep(struct relay **relay) {
        *relay = relay_free(*relay);
}

size_t relay_count(const struct relay *relay) {
        return relay->count;
}

static size_t record_bytes(const struct relay_record *record) {
        return record->receipt.size + record->evidence.size;
}

static struct relay_record *record_copy(const struct message_record *from) {
        struct relay_record *record = xcalloc(1, sizeof *record + from->receipt.size + from->evidence.size);
        uint8_t *data = (uint8_t *)(record + 1);

        record->sequence = from->sequence;
        if (from->receipt.size > 0)
                memcpy(data, from->receipt.data, from->receipt.size);
        record->receipt = BYTES(data, from->receipt.size);
        data += from->receipt.size;
        if (from->evidence.size > 0)
                memcpy(data, from->evidence.data, from->evidence.size);
        record->evidence = BYTES(data, from->evidence.size);
        return record;
}

/* How many records at the head may not be parted: what is posted, or being asked about. */
static size_t frozen_records(const struct relay *relay) {
        if (relay->posted > 0)
                return relay->posted;
        return relay->refused_status != 0 ? 1 : 0;
}

int relay_add(struct relay *relay, const struct message_record *from) {
        struct relay_record **place = &relay->first;
        struct relay_record *record;
        size_t frozen = frozen_records(relay);

        for (const struct relay_record *r = relay->first; r; r = r->next)
                if (r->sequence == from->sequence)
                        return -EEXIST;
        if (relay->count >= RELAY_RECORDS_MAX ||
            relay->bytes + from->receipt.size + from->evidence.size > RELAY_BYTES_MAX)
                return -ENOBUFS;

        for (size_t i = 0; *place && (i < frozen || (*place)->sequence < from->sequence); i++)
                place = &(*place)->next;
        record = record_copy(from);
        record->next = *place;
        *place = record;
        relay->count++;
        relay->bytes += record_bytes(record);
        return 0;
}

/* The first record leaves the queue. */
static void drop_first(struct relay *relay) {
        struct relay_record *record = relay->first;

        relay->first = record->next;
        relay->count--;
        relay->bytes -= record_bytes(record);
        free(record);
}

/* How many records the next batch takes: at least one. */
static size_t batch_size(const struct relay *relay) {
        const struct relay_record *record = relay->first;
        size_t count = 0, bytes = 0;

        while (record && count < relay->limit_records) {
                bytes += record_bytes(record);
                if (count > 0 && bytes > relay->limit_bytes)
                        break;
                count++;
                record = record->next;
        }
        return count;
}

enum relay_step relay_next(struct relay *relay, uint64_t now_usec, struct relay_post *ret_post,
                           uint64_t *ret_until_usec) {
        if (relay->is_busy)
                return RELAY_BUSY;
        if (relay->count == 0 && relay->mode != MODE_PROBE)
                return RELAY_IDLE;
        if (now_usec < relay->wait_until_usec) {
                *ret_until_usec = relay->wait_until_usec;
                return RELAY_WAIT;
        }

        *ret_post = (struct relay_post){ 0 };
        if (relay->mode == MODE_BATCH) {
                if (relay->posted == 0)
                        relay->posted = batch_size(relay);
                *ret_post = (struct relay_post){ .first = relay->first, .count = relay->posted };
        }
        relay->is_busy = true;
        return RELAY_POST;
}

static void say_uplink(struct relay *relay, bool is_up, const char *reason, uint64_t retry_usec) {
        char text[sizeof relay->reason];

        snprintf(text, sizeof text, "%s", reason);
        if (is_up && relay->is_state_known && relay->is_up)
                return;
        relay->is_state_known = true;
        relay->is_up = is_up;
        memcpy(relay->reason, text, sizeof text);
        relay->sink.uplink(relay->sink.userdata, is_up, relay->reason, retry_usec);
}

/* Twice the delay before, at most max, less up to half of it by chance, at least min. */
static uint64_t backoff_usec(const struct relay *relay, uint32_t chance) {
        uint64_t min = relay->settings.retry_min_usec, max = relay->settings.retry_max_usec;
        uint64_t delay = min;

        for (unsigned i = 0; i < relay->failures && delay < max; i++)
                delay = delay > max / 2 ? max : delay * 2;
        delay -= delay / 2 * (chance >> 16) / UINT16_MAX;
        return delay < min ? min : delay;
}

/* A lost reply costs the same batch once more, under the same Idempotency-Key. What fails again is
 * made smaller: on a slow line a large batch never ends in time, and one record on which a collector
 * stumbles should hold up as few others as possible. */
static void shrink_batch(struct relay *relay) {
        if (relay->failures < 2 || relay->posted < 2)
                return;
        relay->limit_records = relay->steady_records = relay->posted / 2;
        relay->posted = 0;
}

static void close_case(struct relay *relay) {
        relay->refused_status = 0;
        relay->is_way_proven = false;
}

/* The way failed: wait, then the same again. */
static void way_failed(struct relay *relay, const struct relay_answer *answer, uint64_t now_usec, uint32_t chance) {
        uint64_t asked_usec = 0, delay;

        if (answer->retry_after_sec > 0)
                asked_usec =
                        (uint64_t)(answer->retry_after_sec < RELAY_RETRY_AFTER_MAX_SEC ? answer->retry_after_sec
                                                                                       : RELAY_RETRY_AFTER_MAX_SEC) *
                        USEC_PER_SEC;
        if (relay->failures < UINT32_MAX)
                relay->failures++;
        close_case(relay); /* what was said of a record while the way failed proves nothing */
        shrink_batch(relay);
        delay = backoff_usec(relay, chance);
        if (delay < asked_usec)
                delay = asked_usec;
        relay->wait_until_usec = now_usec + delay;
        relay->earliest_usec = now_usec + (asked_usec > 0 ? delay : delay < SETTLE_USEC ? delay : SETTLE_USEC);
        say_uplink(relay, false, answer->reason ? answer->reason : "no answer", delay);
}

void relay_network_changed(struct relay *relay) {
        relay->failures = 0;
        if (relay->wait_until_usec > relay->earliest_usec)
                relay->wait_until_usec = relay->earliest_usec;
}

void relay_try_now(struct relay *relay) {
        relay->failures = 0;
        relay->wait_until_usec = 0;
}

static bool is_refusal(uint16_t status) {
        return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

static bool is_success(uint16_t status) {
        return status >= 200 && status < 300;
}

static void delivered_first(struct relay *relay) {
        uint64_t sequence = relay->first->sequence;

        drop_first(relay);
        relay->sink.delivered(relay->sink.userdata, sequence);
}

static void batch_taken(struct relay *relay) {
        close_case(relay);
        for (; relay->posted > 0; relay->posted--)
                delivered_first(relay);
        relay->limit_records += relay->limit_records < relay->steady_records ? relay->limit_records : 1;
        if (relay->limit_records > relay->settings.batch_records)
                relay->limit_records = relay->settings.batch_records;
}

/* Half of what was refused comes next; never more again than half of what was too large. */
static void halve_batch(struct relay *relay, uint16_t status) {
        const struct relay_record *record = relay->first;
        size_t bytes = 0;

        for (size_t i = 0; i < relay->posted; i++, record = record->next)
                bytes += record_bytes(record);
        if (status == 413)
                relay->limit_bytes = bytes / 2;
        relay->limit_records = relay->posted / 2;
}

/* Refused, while the empty batch is taken, and refused again. First the evidence is left out; where
 * even the receipt was refused, the record is given up for this run. */
static void park_first(struct relay *relay) {
        struct relay_record *record = relay->first;

        relay->sink.parked(relay->sink.userdata, record->sequence, relay->refused_status, relay->refused_reason);
        close_case(relay);
        if (record->evidence.size == 0) {
                drop_first(relay);
                return;
        }
        relay->bytes -= record->evidence.size;
        record->evidence.size = 0;
}

static void batch_refused(struct relay *relay, const struct relay_answer *answer) {
        bool is_single = relay->posted == 1;

        if (!is_single)
                halve_batch(relay, answer->status);
        relay->posted = 0;
        if (!is_single)
                return;

        relay->refused_status = answer->status;
        snprintf(relay->refused_reason, sizeof relay->refused_reason, "%s", answer->reason ? answer->reason : "");
        if (relay->is_way_proven)
                park_first(relay);
        else
                relay->mode = MODE_PROBE;
}

/* The collector takes the empty batch. The record in question is tried once more: the collector may
 * have refused everybody a moment ago. */
static void probe_taken(struct relay *relay) {
        relay->mode = MODE_BATCH;
        relay->is_way_proven = relay->refused_status != 0;
        if (relay->is_way_proven)
                relay->limit_records = 1;
}

void relay_answered(struct relay *relay, const struct relay_answer *answer, uint64_t now_usec, uint32_t chance) {
        bool is_taken = is_success(answer->status);

        relay->is_busy = false;
        if (!is_taken && (!is_refusal(answer->status) || relay->mode == MODE_PROBE)) {
                way_failed(relay, answer, now_usec, chance);
                return;
        }

        relay->wait_until_usec = 0;
        if (is_taken) {
                relay->failures = 0;
                say_uplink(relay, true, "", 0);
        }
        if (relay->mode == MODE_PROBE)
                probe_taken(relay);
        else if (is_taken)
                batch_taken(relay);
        else
                batch_refused(relay, answer);
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What to post next, and what an answer means: the decisions of north. Pure: records, answers, time
 * and chance come in as arguments; what follows goes out through a sink.
 *
 * The rules:
 * - Order: records go in order of sequence, one POST at a time; a batch that was posted is posted
 *   again as it was until it is answered, so its Idempotency-Key stays the same.
 * - 2xx: the batch is stored upstream.
 * - 4xx (but 408, 425, 429) to more than one record: half of them are tried, down to a single one.
 * - 4xx to a single record: an empty batch is posted. Where that is taken and the record is refused
 *   again, the record is at fault: it is parked, and its receipt goes alone. Where the empty batch is
 *   refused too, the collector refuses us (a client certificate that it no longer knows, a wrong URL, a
 *   proxy between): nothing is parked, and the empty batch is tried until it is taken. A receipt that is
 *   refused even alone, in the same way, is said to be parked once more, and given up for this run.
 * - Anything else is a failure of the way: back-off, exponential with jitter; Retry-After counts.
 *   From the second failure on, batches get smaller.
 * - The empty batch also opens each run and is repeated while the way is down, so the state of the
 *   uplink is known where nothing waits. */

#include "gatewayd/messages.h"

/* The most that is held: NORTH_WINDOW records, receipts of parked ones, and room for a core that counts
 * a little differently. */
#define RELAY_RECORDS_MAX 512
#define RELAY_BYTES_MAX   (32u << 20)
/* A Retry-After beyond this is a mistake, or a date read with a wrong clock. */
#define RELAY_RETRY_AFTER_MAX_SEC 3600

struct relay_settings {
        size_t batch_records;    /* per POST, at least 1 */
        size_t batch_bytes;      /* receipts and evidence per POST; a single record may exceed it */
        uint64_t retry_min_usec; /* the first delay */
        uint64_t retry_max_usec; /* the longest */
};

struct relay_record {
        struct relay_record *next;
        uint64_t sequence;
        struct bytes receipt;  /* both point behind the struct, in the same allocation */
        struct bytes evidence; /* empty once it is parked: the receipt goes alone */
};

/* What to post: `count` records from `first` on, linked; none: the empty batch. */
struct relay_post {
        const struct relay_record *first;
        size_t count;
};

/* How an exchange ended. */
struct relay_answer {
        uint16_t status;         /* of HTTP; 0: there was none, or it cannot be trusted */
        int64_t retry_after_sec; /* 0: not said */
        const char *reason;      /* for a person; why it failed or was refused */
};

/* What follows from an answer. */
struct relay_sink {
        void *userdata;
        void (*delivered)(void *userdata, uint64_t sequence);
        void (*parked)(void *userdata, uint64_t sequence, uint16_t status, const char *reason);
        /* After every failure, and when the uplink is up for the first time or again. */
        void (*uplink)(void *userdata, bool is_up, const char *reason, uint64_t retry_usec);
};

enum relay_step {
        RELAY_IDLE, /* nothing waits and the uplink is up */
        RELAY_BUSY, /* a POST is under way */
        RELAY_WAIT, /* back-off: ask again at the time given */
        RELAY_POST, /* post this now; until relay_answered() the relay is busy */
};

struct relay;

struct relay *relay_new(const struct relay_settings *settings, const struct relay_sink *sink);
struct relay *relay_free(struct relay *relay);
void relay_freep(struct relay **relay);

/* Takes a copy. Returns 0, -EEXIST when that sequence is held already (it is left alone),
 * -ENOBUFS when more is held than the window allows. */
int relay_add(struct relay *relay, const struct message_record *from);

/* How many records are held. */
size_t relay_count(const struct relay *relay);

/* Decides. `now_usec` is monotonic; *ret_until_usec is set with RELAY_WAIT, *ret_post with
 * RELAY_POST and stays valid until relay_answered(). */
enum relay_step relay_next(struct relay *relay, uint64_t now_usec, struct relay_post *ret_post,
                           uint64_t *ret_until_usec);

/* The POST that relay_next() asked for has ended. `chance`: any 32 random bits, for the jitter. */
void relay_answered(struct relay *relay, const struct relay_answer *answer, uint64_t now_usec, uint32_t chance);

/* The network has changed: what failed before says nothing any more. The wait ends, but a second must
 * have passed since the last try; a wait that the collector asked for stays. */
void relay_network_changed(struct relay *relay);

/* A person wants it tried now: no wait holds. */
void relay_try_now(struct relay *relay);

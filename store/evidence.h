/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Challenges, evidence with its receipts on the way upstream, and appraisals. */

#include "store/devices.h"

#define NONCE_BYTES 32

struct challenge {
        uint8_t nonce[NONCE_BYTES];
        char device[DEVICE_ID_MAX + 1];
        struct moment issued;
        int64_t lives_sec;
        bool is_spent;
        uint8_t spent_digest[32]; /* SHA-256 of the evidence that spent it */
        uint64_t sequence;        /* of the receipt it got */
        uint8_t tier;             /* of the local appraisal then */
};

int challenge_insert(struct store *store, const struct challenge *challenge);
int challenge_get(struct store *store, struct bytes nonce, struct challenge *ret);
int challenge_update(struct store *store, const struct challenge *challenge);
/* How many unspent challenges the device has; the oldest are removed beyond `keep`. */
int challenge_trim(struct store *store, const char *device, size_t keep);
/* Removes those issued more than `age_sec` before `now`, by powered-on time; returns how many. */
int challenge_expire(struct store *store, const struct moment *now, int64_t age_sec);

enum delivery { DELIVERY_WAITING, DELIVERY_DELIVERED, DELIVERY_PARKED };

struct custody {
        uint64_t sequence; /* from 1, without gaps */
        char device[DEVICE_ID_MAX + 1];
        struct moment received;
        int32_t content_format;
        uint8_t nonce[NONCE_BYTES];
        uint8_t tier;
        enum delivery delivery;
        struct bytes receipt; /* COSE_Sign1; borrowed: valid until the visitor returns */
        struct bytes evidence;
};

/* Inserts and advances meta's next_sequence and last_receipt_hash in the same turn. -EEXIST. */
int custody_insert(struct store *store, const struct custody *custody, const uint8_t receipt_hash[32]);
typedef int (*custody_visitor)(void *userdata, const struct custody *custody);
/* Waiting records in order of sequence, greater than `after`, at most `limit`; returns how many were
 * visited, or the visitor's non-zero result. Parked ones come too, with empty evidence, until their
 * receipt is delivered. */
int custody_waiting(struct store *store, uint64_t after, size_t limit, custody_visitor visit, void *userdata);
int custody_get(struct store *store, uint64_t sequence, custody_visitor visit, void *userdata);
/* Delivered: evidence and receipt may go. -ENOENT when unknown. */
int custody_delivered(struct store *store, uint64_t sequence);
int custody_parked(struct store *store, uint64_t sequence, uint16_t http_status, const char *reason);
struct backlog {
        uint64_t records, bytes;    /* waiting */
        uint64_t delivered, parked; /* ever */
        unix_sec oldest_wall;       /* of the oldest waiting; 0 none */
};
int custody_backlog(struct store *store, struct backlog *ret);

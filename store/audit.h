/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The audit table: every step of every lifecycle, in the transaction that took it. Append only;
 * each row carries the SHA-256 over its predecessor's hash and its own fields, so a row cannot be
 * changed or taken out unnoticed. */

#include "gatewayd/event.h"
#include "store/store.h"

struct audit_row {
        uint64_t number;
        struct moment at;
        enum event_kind kind;
        char device[65], kid[65], reason[160], actor[64]; /* actor: "device", "schedule", "uid 0" … */
};

int audit_append(struct store *store, const struct moment *at, const struct event *event, const char *actor);
typedef int (*audit_visitor)(void *userdata, const struct audit_row *row);
/* Rows with number greater than `after`, of `device` where not NULL, at most `limit`. */
int audit_each(struct store *store, const char *device, uint64_t after, size_t limit, audit_visitor visit,
               void *userdata);
/* The last `limit` rows, oldest first. */
int audit_last(struct store *store, const char *device, size_t limit, audit_visitor visit, void *userdata);
/* Walks the chain. Returns 0, or -EBADMSG with the first bad row's number. */
int audit_verify(struct store *store, uint64_t *ret_bad);
/* Removes rows older than `keep_sec` powered-on seconds; the chain starts from a remembered hash. */
int audit_trim(struct store *store, const struct moment *now, int64_t keep_sec);

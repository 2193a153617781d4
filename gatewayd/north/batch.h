/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What stands in a POST to the collector, and in its reply: bytes and their meaning, no I/O.
 *
 *   batch  = [* record]
 *   record = { 1 => bstr,      ; the receipt, a COSE_Sign1
 *              ? 2 => bstr }   ; the evidence as the device sent it; absent where it was parked
 *   reply  = [* result]        ; optional: the reply may as well have no body, or one of another type
 *   result = { 1 => uint,      ; sequence of the record
 *              2 => tier }     ; 0 none / 2 affirming / 32 warning / 96 contraindicated
 *
 * Both are application/cbor. Who the records belong to stands in header fields, so that a collector
 * knows it before it reads: Gatewayd-Id (percent-encoded) and Gatewayd-Incarnation (hex). */

#include "gatewayd/north/relay.h"
#include "gatewayd/problem.h"

#define BATCH_RESULTS_MAX 1024
/* A quoted string of base64url characters, with its NUL. */
#define BATCH_KEY_SIZE 46

void batch_encode(const struct relay_post *post, struct buffer *to);

/* The Idempotency-Key: the same for the same records of the same gateway, and for nothing else. */
void batch_key(struct bytes gateway_id, struct bytes incarnation, const struct relay_post *post, struct bytes body,
               char to[BATCH_KEY_SIZE]);

struct batch_result {
        uint64_t sequence;
        uint8_t tier;
};

/* Reads a reply. All of it is right, or none of it counts: -EBADMSG with `problem`.
 * Returns the number of results, at most BATCH_RESULTS_MAX. Unknown members are passed over. */
int batch_read_results(struct bytes body, struct batch_result ret[BATCH_RESULTS_MAX], struct problem *problem);

/* Writes `value` so that it can stand in a header field: all but unreserved characters of RFC 3986
 * become %XX. `to` has room for 3 × size + 1. */
void batch_percent_encode(struct bytes value, char *to);

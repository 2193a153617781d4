/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* CBOR (RFC 8949) on libcbor: strict reading of what comes from outside, deterministic writing. */

#include <cbor.h>

#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"

#define CBOR_DEPTH_MAX 8

/* Writer into a growing buffer, preferred encoding, definite lengths. Map keys are the caller's to
 * put in bytewise order (RFC 8949 §4.2.1). */
void cbor_put_int(struct buffer *to, int64_t value);
void cbor_put_uint(struct buffer *to, uint64_t value);
void cbor_put_bytes(struct buffer *to, struct bytes value);
void cbor_put_text(struct buffer *to, struct bytes value);
void cbor_put_array(struct buffer *to, size_t count);
void cbor_put_map(struct buffer *to, size_t pairs);
void cbor_put_tag(struct buffer *to, uint64_t tag);
void cbor_put_bool(struct buffer *to, bool value);
void cbor_put_null(struct buffer *to);

/* Reads exactly one item that fills `input`: well-formed, definite or indefinite lengths, depth at
 * most CBOR_DEPTH_MAX, no map with the same key twice, no memory taken by claimed lengths.
 * Returns 0 and an item to be freed with cbor_itemp, or -EBADMSG with `problem` (4.00). */
int cbor_read(struct bytes input, cbor_item_t **ret, struct problem *problem);
void cbor_itemp(cbor_item_t **item);

/* Reads one item at the start of `input` and says how long it is (for sequences and nested tokens). */
int cbor_read_prefix(struct bytes input, cbor_item_t **ret, size_t *ret_size, struct problem *problem);

/* Members of maps and values; NULL or false when absent or of another type. Borrowed. */
cbor_item_t *cbor_map_int(const cbor_item_t *map, int64_t key);
cbor_item_t *cbor_map_text(const cbor_item_t *map, const char *key);
bool cbor_value_int(const cbor_item_t *item, int64_t *ret);
bool cbor_value_bytes(const cbor_item_t *item, struct bytes *ret); /* definite byte strings only */
bool cbor_value_text(const cbor_item_t *item, struct bytes *ret);

/* ---- views: reading without a copy ----
 *
 * A view is the slice of one item within bytes that cbor_measure() or cbor_read() has accepted. What
 * comes out of it borrows from the input, so a token can be taken apart, and its signature checked,
 * over the very bytes received. */

/* Walks one item at the start of `input` as strictly as cbor_read() and says how long it is; takes
 * no memory but a list of map keys. -EBADMSG with `problem` (4.00). */
int cbor_measure(struct bytes input, size_t *ret_size, struct problem *problem);
/* The same, and the item must fill `input`. */
int cbor_check(struct bytes input, struct problem *problem);

/* False when the item is of another type (or empty: an absent member). */
bool cbor_view_int(struct bytes item, int64_t *ret);
bool cbor_view_bytes(struct bytes item, struct bytes *ret); /* definite strings only */
bool cbor_view_text(struct bytes item, struct bytes *ret);
bool cbor_view_tag(struct bytes item, uint64_t *ret_tag, struct bytes *ret_content);
bool cbor_view_is_null(struct bytes item);
bool cbor_view_is_array(struct bytes item);
bool cbor_view_is_map(struct bytes item);

/* Goes over the members of an array, or over keys and values of a map in turn. */
struct cbor_cursor {
        struct bytes rest;
        uint64_t left; /* items to come */
        bool is_indefinite;
};
bool cbor_view_enter(struct bytes array_or_map, struct cbor_cursor *ret);
bool cbor_view_next(struct cbor_cursor *cursor, struct bytes *ret_item);
/* The value of an integer key; empty when absent or `map` is no map. */
struct bytes cbor_view_member(struct bytes map, int64_t key);

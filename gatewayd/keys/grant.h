/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The PSK grant as bytes (PROTOCOL.md, "The PSK grant"), what a device may ask of it, and the kid
 * inside RFC 9202's form of a PSK identity. No store, no clock. */

#include "gatewayd/format.h"
#include "gatewayd/problem.h"
#include "gatewayd/secret.h"

struct grant {
        struct bytes subject; /* device id */
        struct bytes kid, key;
        bool has_dates; /* iat is known */
        bool has_expiry;
        unix_sec issued, expires;
};

/* Writes the grant as `format`: FORMAT_UCCS, FORMAT_COSE_KEY or FORMAT_TEXT ("kid SP key LF"; the key
 * must be text). */
void grant_write(const struct grant *grant, enum content_format format, struct buffer *to);

/* Reads the body of POST /cred: empty, or CBOR {? 1: key-size}. *ret_key_size 0: not said.
 * -EBADMSG or -EINVAL with problem 4.00. */
int grant_request_read(struct bytes body, size_t *ret_key_size, struct problem *problem);

/* Whether a key of this size can be written as base64url characters and keep 128 bits (RFC 9257 §4.1). */
static inline bool grant_key_fits_text(size_t size) {
        return size >= 24 && size % 4 == 0;
}

/* A fresh key. `is_text`: base64url characters used as they stand (never a 0x00); the size must fit.
 * -EIO when there is no randomness. */
int grant_key_make(size_t size, bool is_text, struct secret *ret);

/* A fresh kid: KID_BYTES characters of a-z0-9, unbiased, and a NUL. */
int grant_kid_make(char *to);

/* The kid in {8: {1: {1: 4, 2: kid}}} (RFC 9202 §3.2.1), with its NUL, into `to` (to_size). -EBADMSG: not that. */
int grant_identity_kid(struct bytes identity, char *to, size_t to_size);

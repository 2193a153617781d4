/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* application/multipart-core (RFC 8710): several representations in one body, each with its Content-Format,
 * as a CBOR array [format, bytes or null, format, bytes or null, …]. */

#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"

struct multipart_part {
        uint16_t content_format;
        bool is_present; /* false: null, an optional part that is not given */
        struct bytes body;
};

/* Appends the parts in the order given, in deterministic encoding (RFC 8949 §4.2.1). */
void multipart_write(const struct multipart_part *parts, size_t count, struct buffer *to);

/* Takes a body apart into at most `max` parts, whose bodies borrow from `body`. Strict, as RFC 8710 §2 wants it:
 * one well-formed item and nothing behind it, an even number of elements, formats from 0 to 65535, bodies that
 * are byte strings of definite length or null. Lengths need not be the shortest.
 * Returns how many there are; -EBADMSG, or -E2BIG for more than `max`, with problem 4.00. */
ssize_t multipart_read(struct bytes body, struct multipart_part *ret, size_t max, struct problem *problem);

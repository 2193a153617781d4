/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The reason a person needs, carried beside a negative errno to whoever answers: a device gets it
 * as problem details (RFC 9290), an operator as a line of text. */

#include "gatewayd/bytes.h"

/* CoAP codes as on the wire: class × 32 + detail (RFC 7252 §3, §12.1.2; RFC 7959; RFC 8132; RFC 8516). */
enum code {
        CODE_EMPTY = 0,
        CODE_GET = 1,
        CODE_POST = 2,
        CODE_PUT = 3,
        CODE_DELETE = 4,
        CODE_FETCH = 5,
        CODE_CREATED = 65,
        CODE_DELETED = 66,
        CODE_VALID = 67,
        CODE_CHANGED = 68,
        CODE_CONTENT = 69,
        CODE_CONTINUE = 95,
        CODE_BAD_REQUEST = 128,
        CODE_UNAUTHORIZED = 129,
        CODE_BAD_OPTION = 130,
        CODE_FORBIDDEN = 131,
        CODE_NOT_FOUND = 132,
        CODE_METHOD_NOT_ALLOWED = 133,
        CODE_NOT_ACCEPTABLE = 134,
        CODE_REQUEST_INCOMPLETE = 136,
        CODE_CONFLICT = 137,
        CODE_TOO_LARGE = 141,
        CODE_UNSUPPORTED_FORMAT = 143,
        CODE_UNPROCESSABLE = 150,
        CODE_TOO_MANY_REQUESTS = 157,
        CODE_INTERNAL = 160,
        CODE_BAD_GATEWAY = 162,
        CODE_UNAVAILABLE = 163,
        CODE_GATEWAY_TIMEOUT = 164,
};

struct problem {
        uint8_t code;        /* enum code; 0: none set */
        char title[64];      /* short, the same for every problem of its kind */
        char detail[256];    /* what is wrong here and what is allowed */
        int64_t max_age_sec; /* when to try again (Max-Age); 0: not said */
        uint32_t size1;      /* the largest body taken, with 4.13; 0: not said */
};

/* Sets the problem (a NULL `p` is allowed) and returns -error, so that callers write
 * `return problem_set(p, CODE_FORBIDDEN, EACCES, "not enrolled", "...")`. */
int problem_set(struct problem *p, uint8_t code, int error, const char *title, const char *format, ...) _printf_(5, 6);

/* Writes the RFC 9290 map {-1 title, -2 detail, -4 code} as deterministic CBOR. */
void problem_to_cbor(const struct problem *p, struct buffer *to);

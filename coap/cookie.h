/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The stateless cookie of a HelloVerifyRequest (RFC 6347 §4.2.1): an HMAC over the peer's address
 * and port. Its key lives for a minute and stays good for one more, so a cookie that somebody
 * collected is worth nothing two minutes later. */

#include "coap/peer.h"

#define COOKIE_BYTES    32
#define COOKIE_KEY_USEC (60 * UINT64_C(1000000))

struct cookie_keys {
        uint8_t current[COOKIE_BYTES], previous[COOKIE_BYTES];
        uint64_t since_usec; /* CLOCK_MONOTONIC when `current` was made */
};

/* Returns 0 or -EIO. */
int cookie_keys_make(struct cookie_keys *keys, uint64_t now_usec);
/* Changes the key when it is old enough; cheap otherwise. Returns 0 or -EIO. */
int cookie_keys_rotate(struct cookie_keys *keys, uint64_t now_usec);
void cookie_make(const struct cookie_keys *keys, const struct peer *peer, uint8_t to[COOKIE_BYTES]);
bool cookie_is_right(const struct cookie_keys *keys, const struct peer *peer, struct bytes cookie);

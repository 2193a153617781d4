/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Addresses whose last handshake ended because a certificate suite was chosen and the client had no
 * use for one. Common DTLS stacks offer such suites whether or not they own a certificate; marked, their
 * next try is offered PSK alone. A mark counts for the whole address, whatever the port: the next try
 * comes from another one. Behind a NAT it so meets neighbours too. */

#include "coap/peer.h"

#define MARKS_MAX  1024
#define MARKS_USEC (300 * UINT64_C(1000000))

struct marks;

/* Returns 0, or -EIO where there is no randomness. */
int marks_new(struct marks **ret);
struct marks *marks_free(struct marks *marks);
/* From now on for MARKS_USEC; `now_usec` never decreases. In a full table the oldest mark goes. */
void marks_add(struct marks *marks, const struct peer *peer, uint64_t now_usec);
bool marks_has(const struct marks *marks, const struct peer *peer, uint64_t now_usec);

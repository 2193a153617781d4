/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Handshakes that failed, told to core at once the first time and then counted: a device with a
 * stale key, or an attacker, fails many times a minute and is one event. */

#include "coap/peer.h"
#include "gatewayd/messages.h"

/* One frame for each peer address and kind in this time. */
#define FAILURES_USEC (10 * UINT64_C(1000000))

struct failures;

typedef void (*failure_handler)(void *userdata, const struct message_handshake_failed *message);

struct failures *failures_new(failure_handler tell, void *userdata);
struct failures *failures_free(struct failures *failures);
void failures_add(struct failures *failures, enum handshake_failure failure, struct bytes identity,
                  const struct peer *peer, uint64_t now_usec);
/* Tells what was counted; returns when to call again (UINT64_MAX: nothing waits). */
uint64_t failures_tick(struct failures *failures, uint64_t now_usec);

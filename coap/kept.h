/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Answers that go out in blocks (Block2, RFC 7959): kept until the client has fetched the rest, found
 * again by session, method, path and query. libcoap's own keeping looks at the resource alone, and
 * here all paths share one. */

#include "coap/pdu.h"
#include "coap/sessions.h"

#define KEPT_PER_SESSION   2
#define KEPT_LIFETIME_USEC (120 * UINT64_C(1000000))

struct kept_answers;

struct kept_answers *kept_new(unsigned max_answers);
struct kept_answers *kept_free(struct kept_answers *answers);

/* What a request asks for. */
struct kept_key {
        uint8_t method;
        struct bytes path, query;
};

/* Fills `answer` with the block that `wanted` names. `answer` holds the whole on entry (code, format,
 * payload and the rest); afterwards its payload is that block.
 *
 * `wanted`     the client's Block2; absent: it named none
 * `largest`    the largest block that we would send (exponent)
 * `preferred`  the block size where the client names none (exponent)
 * An answer that takes more than one block is kept. */
void kept_cut(struct kept_answers *answers, struct session *session, const struct kept_key *key,
              const struct block *wanted, uint8_t largest, uint8_t preferred, uint64_t now_usec, struct answer *answer);

/* Serves a further block (number > 0) of what is kept. False when nothing is. */
bool kept_serve(struct kept_answers *answers, struct session *session, const struct kept_key *key,
                const struct block *wanted, uint8_t largest, uint64_t now_usec, struct answer *answer);

void kept_forget(struct kept_answers *answers, struct session *session);
uint64_t kept_tick(struct kept_answers *answers, uint64_t now_usec);

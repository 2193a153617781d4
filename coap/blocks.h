/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Request bodies that come in blocks (Block1, RFC 7959), put together under caps of our own: what a
 * client claims in Size1 never allocates anything. */

#include "coap/pdu.h"
#include "coap/sessions.h"

/* Bodies that one session may have open; its oldest goes for a new one. */
#define BODIES_PER_SESSION 2
/* A body is forgotten this long after its last block: longer than a confirmable message may be
 * retransmitted (RFC 7252 §4.8.2, MAX_TRANSMIT_WAIT 93 s). */
#define BODY_LIFETIME_USEC (120 * UINT64_C(1000000))
/* With all places taken, an unfinished body that has been silent for so long makes room. */
#define BODY_PATIENCE_USEC (30 * UINT64_C(1000000))

struct blocks;

struct blocks *blocks_new(unsigned max_bodies, size_t max_body_bytes);
struct blocks *blocks_free(struct blocks *blocks);

enum block_verdict {
        BLOCK_CONTINUE, /* 2.31: the next one, please */
        BLOCK_COMPLETE, /* the whole body is there */
        BLOCK_REFUSED,  /* with the problem */
};

/* Takes a request that has a Block1 option. `whole` borrows until the next call. A finished body stays
 * a while: a last block sent again (same message id and token) gives the same body again. */
enum block_verdict blocks_take(struct blocks *blocks, struct session *session, const struct request *request,
                               uint64_t now_usec, struct bytes *whole, struct problem *problem);

void blocks_forget(struct blocks *blocks, struct session *session);
/* Drops what is too old; returns when to call again (UINT64_MAX: never). */
uint64_t blocks_tick(struct blocks *blocks, uint64_t now_usec);
/* Unfinished bodies now. */
unsigned blocks_open(const struct blocks *blocks);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The UDP socket: many datagrams in with one recvmmsg, many out with one sendmmsg. */

#include "coap/peer.h"
#include "gatewayd/messages.h"

/* Longer ones are dropped: no record of ours or theirs needs more (RFC 7252 §4.6). */
#define DATAGRAM_MAX 2048

struct datagrams;

/* `counters` (enum south_counter) is borrowed. Takes over `fd`. Returns 0 or -errno. */
int datagrams_new(int fd, uint64_t *counters, struct datagrams **ret);
struct datagrams *datagrams_free(struct datagrams *datagrams);
int datagrams_fd(const struct datagrams *datagrams);

typedef void (*datagram_handler)(void *userdata, const struct peer *from, struct bytes data);

/* Takes what is there, up to one batch, and hands each to `handler`. Returns how many. */
size_t datagrams_receive(struct datagrams *datagrams, datagram_handler handler, void *userdata);
/* Queues one; the queue goes out when it is full and with datagrams_flush(). What the socket does
 * not take is lost, as datagrams are, and counted. */
void datagrams_send(struct datagrams *datagrams, const struct peer *to, struct bytes data);
void datagrams_flush(struct datagrams *datagrams);

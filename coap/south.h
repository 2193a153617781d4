/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The role that faces the devices: DTLS sessions on OpenSSL, CoAP by libcoap's engines, requests
 * as frames to core and core's replies as datagrams back. It decides nothing and stores nothing. */

#include <systemd/sd-event.h>

#include "gatewayd/bytes.h"
#include "gatewayd/messages.h"
#include "gatewayd/problem.h"

struct south_settings {
        unsigned engines;              /* libcoap contexts, 1 to 256 */
        unsigned max_sessions;         /* established; the longest idle goes first */
        unsigned max_half_open;        /* handshaking, in all */
        unsigned max_half_open_prefix; /* handshaking per /24 (IPv4) or /56 (IPv6) */
        unsigned mtu;                  /* largest datagram of ours, bytes of UDP payload */
        uint64_t idle_sec;             /* established sessions end after this silence */
        uint64_t half_open_sec;        /* handshakes end after this long */
        size_t max_body_bytes;         /* largest request body (RFC 7959 reassembly) */
        uint16_t block_size;           /* default for our own Block2 where neither client nor reply says */
        unsigned max_bodies;           /* bodies being reassembled at once, in all */
};
extern const struct south_settings south_settings_default;

struct south;

/* Makes engines, TLS contexts and cookie keys, and attaches to `event`. Takes over the three
 * descriptors. Fails where libcoap does not behave as engine_io.c needs it (self-test).
 * After this it needs no file, so the caller locks the process in.
 * Returns 0 or -errno with a reason in `problem`. */
int south_new(sd_event *event, int udp, int lookup, int exchange, uint32_t generation,
              const struct south_settings *settings, struct south **ret, struct problem *problem);

/* Calls `ready` once core has said what this gateway shows to clients (FRAME_SERVER_CREDENTIALS), be it
 * nothing. Until then no datagram is taken from the socket: they wait in the kernel. */
void south_on_ready(struct south *south, void (*ready)(void *userdata), void *userdata);

/* Sends close_notify to every session and forgets them. */
void south_stop(struct south *south);
struct south *south_free(struct south *south);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The address of a peer: one IPv4 or IPv6 address and a port, as the kernel gave it. */

#include <netinet/in.h>
#include <sys/socket.h>

#include "gatewayd/bytes.h"

struct peer {
        union {
                struct sockaddr any;
                struct sockaddr_in v4;
                struct sockaddr_in6 v6;
        } address;
        socklen_t size;
};

/* "[", 45 characters of address, "%", 10 of scope, "]:", 5 of port, NUL. */
#define PEER_TEXT_MAX 66

/* False for anything but AF_INET and AF_INET6 of their proper size. */
bool peer_is_valid(const struct peer *peer);

/* Family, address, port and scope; never the flow label. */
bool peer_equal(const struct peer *a, const struct peer *b);

/* Address and port as 18 bytes and the scope, for the cookie and the hash. */
#define PEER_KEY_BYTES 24
void peer_key(const struct peer *peer, uint8_t to[PEER_KEY_BYTES]);

/* A universal hash: whoever chooses addresses and ports cannot choose collisions without the
 * secret `keys`. */
#define PEER_HASH_KEYS 4
uint64_t peer_hash(const struct peer *peer, const uint64_t keys[PEER_HASH_KEYS]);

/* The /24 (IPv4, also mapped into IPv6) or /56 (IPv6) as one number. */
uint64_t peer_prefix(const struct peer *peer);

/* "192.0.2.1:40000" or "[2001:db8::1]:40000"; a mapped IPv4 address as IPv4, a link-local one with
 * its scope. */
void peer_text(const struct peer *peer, char to[PEER_TEXT_MAX]);

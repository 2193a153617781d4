/* SPDX-License-Identifier: Apache-2.0 */

/* Addresses of peers: comparing, hashing and showing them. */

#include "coap/peer.h"

#include <arpa/inet.h>

static bool is_mapped(const struct peer *peer) {
        return peer->address.any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer->address.v6.sin6_addr);
}

bool peer_is_valid(const struct peer *peer) {
        if (peer->size < (socklen_t)sizeof(sa_family_t))
                return false;
        switch (peer->address.any.sa_family) {
        case AF_INET:
                return peer->size >= (socklen_t)sizeof(struct sockaddr_in);
        case AF_INET6:
                return peer->size >= (socklen_t)sizeof(struct sockaddr_in6);
        default:
                return false;
        }
}

bool peer_equal(const struct peer *a, const struct peer *b) {
        if (a->address.any.sa_family != b->address.any.sa_family)
                return false;
        if (a->address.any.sa_family == AF_INET)
                return a->address.v4.sin_addr.s_addr == b->address.v4.sin_addr.s_addr &&
                       a->address.v4.sin_port == b->address.v4.sin_port;
        return a->address.v6.sin6_port == b->address.v6.sin6_port &&
               a->address.v6.sin6_scope_id == b->address.v6.sin6_scope_id &&
               memcmp(&a->address.v6.sin6_addr, &b->address.v6.sin6_addr, sizeof a->address.v6.sin6_addr) == 0;
}

void peer_key(const struct peer *peer, uint8_t to[PEER_KEY_BYTES]) {
        memset(to, 0, PEER_KEY_BYTES);
        if (peer->address.any.sa_family == AF_INET) {
                memcpy(to, &peer->address.v4.sin_addr, 4);
                memcpy(to + 16, &peer->address.v4.sin_port, 2);
                to[18] = 4;
                return;
        }
        memcpy(to, &peer->address.v6.sin6_addr, 16);
        memcpy(to + 16, &peer->address.v6.sin6_port, 2);
        to[18] = 6;
        memcpy(to + 20, &peer->address.v6.sin6_scope_id, 4);
}

uint64_t peer_hash(const struct peer *peer, const uint64_t keys[PEER_HASH_KEYS]) {
        uint8_t key[PEER_KEY_BYTES];
        unsigned __int128 sum = keys[PEER_HASH_KEYS - 1];

        /* Multiply-add with 128-bit products: universal for secret random factors. */
        peer_key(peer, key);
        for (size_t i = 0; i < PEER_KEY_BYTES / sizeof(uint64_t); i++) {
                uint64_t word;

                memcpy(&word, key + i * sizeof word, sizeof word);
                sum += (unsigned __int128)word * keys[i];
        }
        return (uint64_t)(sum >> 64) ^ (uint64_t)sum;
}

uint64_t peer_prefix(const struct peer *peer) {
        uint8_t prefix[sizeof(uint64_t)] = { 0 };
        uint64_t number;

        if (peer->address.any.sa_family == AF_INET) {
                prefix[0] = 4;
                memcpy(prefix + 1, &peer->address.v4.sin_addr, 3);
        } else if (is_mapped(peer)) {
                prefix[0] = 4;
                memcpy(prefix + 1, peer->address.v6.sin6_addr.s6_addr + 12, 3);
        } else {
                prefix[0] = 6;
                memcpy(prefix + 1, &peer->address.v6.sin6_addr, 7);
        }
        memcpy(&number, prefix, sizeof number);
        return number;
}

void peer_text(const struct peer *peer, char to[PEER_TEXT_MAX]) {
        char address[INET6_ADDRSTRLEN];

        if (peer->address.any.sa_family == AF_INET) {
                inet_ntop(AF_INET, &peer->address.v4.sin_addr, address, sizeof address);
                snprintf(to, PEER_TEXT_MAX, "%s:%u", address, (unsigned)ntohs(peer->address.v4.sin_port));
                return;
        }
        if (is_mapped(peer)) {
                inet_ntop(AF_INET, peer->address.v6.sin6_addr.s6_addr + 12, address, sizeof address);
                snprintf(to, PEER_TEXT_MAX, "%s:%u", address, (unsigned)ntohs(peer->address.v6.sin6_port));
                return;
        }
        inet_ntop(AF_INET6, &peer->address.v6.sin6_addr, address, sizeof address);
        if (IN6_IS_ADDR_LINKLOCAL(&peer->address.v6.sin6_addr))
                snprintf(to, PEER_TEXT_MAX, "[%s%%%u]:%u", address, (unsigned)peer->address.v6.sin6_scope_id,
                         (unsigned)ntohs(peer->address.v6.sin6_port));
        else
                snprintf(to, PEER_TEXT_MAX, "[%s]:%u", address, (unsigned)ntohs(peer->address.v6.sin6_port));
}

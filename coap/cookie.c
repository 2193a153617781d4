/* SPDX-License-Identifier: Apache-2.0 */

/* Cookies: made and checked without keeping anything of the peer. */

#include "coap/cookie.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

int cookie_keys_make(struct cookie_keys *keys, uint64_t now_usec) {
        if (RAND_bytes(keys->current, sizeof keys->current) != 1 ||
            RAND_bytes(keys->previous, sizeof keys->previous) != 1)
                return -EIO;
        keys->since_usec = now_usec;
        return 0;
}

int cookie_keys_rotate(struct cookie_keys *keys, uint64_t now_usec) {
        if (now_usec - keys->since_usec < COOKIE_KEY_USEC)
                return 0;
        /* After a long silence the current key is too old to be a predecessor. */
        if (now_usec - keys->since_usec >= 2 * COOKIE_KEY_USEC)
                return cookie_keys_make(keys, now_usec);
        memcpy(keys->previous, keys->current, sizeof keys->previous);
        if (RAND_bytes(keys->current, sizeof keys->current) != 1)
                return -EIO;
        keys->since_usec = now_usec;
        return 0;
}

static void make_with(const uint8_t key[COOKIE_BYTES], const struct peer *peer, uint8_t to[COOKIE_BYTES]) {
        uint8_t about[PEER_KEY_BYTES];
        unsigned size = COOKIE_BYTES;

        peer_key(peer, about);
        if (!HMAC(EVP_sha256(), key, COOKIE_BYTES, about, sizeof about, to, &size))
                oom();
}

void cookie_make(const struct cookie_keys *keys, const struct peer *peer, uint8_t to[COOKIE_BYTES]) {
        make_with(keys->current, peer, to);
}

bool cookie_is_right(const struct cookie_keys *keys, const struct peer *peer, struct bytes cookie) {
        uint8_t expected[COOKIE_BYTES];

        if (cookie.size != COOKIE_BYTES)
                return false;
        make_with(keys->current, peer, expected);
        if (CRYPTO_memcmp(expected, cookie.data, COOKIE_BYTES) == 0)
                return true;
        make_with(keys->previous, peer, expected);
        return CRYPTO_memcmp(expected, cookie.data, COOKIE_BYTES) == 0;
}

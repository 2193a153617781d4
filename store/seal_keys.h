/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The keys in the clear, which seal.c and seal_rewrap.c share; nobody else includes this. All of them live in one
 * page that is locked, not dumped, not inherited. */

#include "store/internal.h"

struct data_key {
        uint32_t id;
        uint64_t sealed; /* how often */
        uint8_t key[KEY_BYTES];
};

/* The key-encryption key, and the one that is to replace it. */
struct wrapping_keys {
        uint8_t now[KEY_BYTES];
        uint8_t next[KEY_BYTES];
        bool has_next; /* false also where one is prepared but only its public key is known */
};

struct seal_keys {
        struct wrapping_keys wrapping;
        /* As they were before the open turn changed them: a rollback needs it. */
        struct wrapping_keys before;
        bool has_before;
        uint8_t next_private[KEY_BYTES]; /* while data keys are read with the key to come */
        size_t count;
        struct data_key data[DATA_KEYS_MAX]; /* ascending; the last one seals */
};

/* ---- seal.c ---- */

int data_key_wrap(const uint8_t wrapping[KEY_BYTES], const struct data_key *key, uint8_t ret[WRAPPED_KEY_BYTES]);
int data_key_unwrap(const uint8_t wrapping[KEY_BYTES], struct bytes wrapped, struct data_key *key);

/* ---- seal_rewrap.c ---- */

/* Which of the keys in memory are in force by what the store says: its check value and the public key of the
 * next one (of no size: none). -EKEYREJECTED: the check value is another's. */
int wrapping_choose(struct seal_keys *keys, struct bytes check, struct bytes next_public);
/* 1: the key in memory is the one that was prepared, which the store says by its public key; the private half of that
 * opens the data keys. 0: no. */
int wrapping_is_successor(const struct seal_keys *keys, struct bytes next_public, uint8_t ret_private[KEY_BYTES]);
/* Wraps a data key to the key-encryption key to come as well, where one is prepared. */
int wrapping_cover(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]);

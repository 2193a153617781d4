/* SPDX-License-Identifier: Apache-2.0 */

/* Replacing the key-encryption key: at once, or in two steps, since the key itself lies in a place of its own
 * (systemd's credential store) that no transaction of ours reaches.
 *
 * Between the steps either key must open the store, whoever makes data keys meanwhile: this process, the next one
 * started with the key of before, or an older gatewayd that knows of no steps. So the store holds no secret of the
 * next key but its public one: X25519, from the key by HKDF-SHA256. Data keys are wrapped to that besides, as to the
 * recovery key (recovery.c), and whoever is given the next key knows it by the public key. */

#include "store/seal_keys.h"

#include <errno.h>

#include <openssl/crypto.h>

#define CHECK_LABEL "gatewayd key check"
#define NEXT_LABEL  "gatewayd sealing key"

/* ---- which key is which ---- */

/* The check value is a sealed constant: it tells a wrong key-encryption key from a damaged row. */
static int check_value(const uint8_t wrapping[KEY_BYTES], uint8_t ret[WRAPPED_KEY_BYTES]) {
        static const uint8_t constant[KEY_BYTES];

        return gcm_seal(wrapping, BYTES(CHECK_LABEL, sizeof CHECK_LABEL), BYTES(constant, KEY_BYTES), ret);
}

static bool check_opens(const uint8_t wrapping[KEY_BYTES], struct bytes check) {
        uint8_t constant[KEY_BYTES];

        return check.size == WRAPPED_KEY_BYTES &&
               gcm_open(wrapping, BYTES(CHECK_LABEL, sizeof CHECK_LABEL), check, constant) == 0;
}

int seal_check_value(struct seal *seal, uint8_t ret[WRAPPED_KEY_BYTES]) {
        return check_value(seal->keys->wrapping.now, ret);
}

static bool is_public_key_of(const uint8_t key[KEY_BYTES], struct bytes public_key, uint8_t ret_private[KEY_BYTES]) {
        uint8_t derived[RECOVERY_KEY_BYTES];

        if (public_key.size != sizeof derived || recovery_pair_of(key, NEXT_LABEL, ret_private, derived) < 0)
                return false;
        if (memcmp(derived, public_key.data, sizeof derived) == 0)
                return true;
        OPENSSL_cleanse(ret_private, KEY_BYTES);
        return false;
}

int wrapping_is_successor(const struct seal_keys *keys, struct bytes next_public, uint8_t ret_private[KEY_BYTES]) {
        return is_public_key_of(keys->wrapping.now, next_public, ret_private);
}

/* After a rollback the store may be under the key of before again, and another one prepared or none. */
int wrapping_choose(struct seal_keys *keys, struct bytes check, struct bytes next_public) {
        struct wrapping_keys was = keys->wrapping;
        const uint8_t *const known[] = { was.now, keys->has_before ? keys->before.now : NULL,
                                         was.has_next ? was.next : NULL,
                                         keys->has_before && keys->before.has_next ? keys->before.next : NULL };
        uint8_t private_key[KEY_BYTES];
        int r = -EKEYREJECTED;

        for (size_t i = 0; r < 0 && i < ELEMENTS(known); i++)
                if (known[i] && check_opens(known[i], check)) {
                        memcpy(keys->wrapping.now, known[i], KEY_BYTES);
                        r = 0;
                }
        keys->wrapping.has_next = false;
        for (size_t i = 0; r == 0 && !keys->wrapping.has_next && i < ELEMENTS(known); i++)
                if (known[i] && is_public_key_of(known[i], next_public, private_key)) {
                        memcpy(keys->wrapping.next, known[i], KEY_BYTES);
                        keys->wrapping.has_next = true;
                }
        OPENSSL_cleanse(private_key, sizeof private_key);
        OPENSSL_cleanse(&was, sizeof was);
        return r;
}

static void remember(struct seal *seal) {
        struct seal_keys *keys = seal->keys;

        /* A second change in one turn: what a rollback needs is still the first. */
        if (!keys->has_before)
                keys->before = keys->wrapping;
        keys->has_before = true;
        seal->is_dirty = true;
}

static void forget_next(struct seal_keys *keys) {
        keys->wrapping.has_next = false;
        OPENSSL_cleanse(keys->wrapping.next, KEY_BYTES);
}

/* ---- at once ---- */

static int write_wrapped(struct store *store, const struct data_key *key) {
        uint8_t wrapped[WRAPPED_KEY_BYTES];
        int r = data_key_wrap(store->seal.keys->wrapping.now, key, wrapped);

        if (r < 0)
                return r;
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE data_key SET wrapped = ?, wrapped_next = NULL WHERE id = ?");
        query_put_blob(&q, BYTES(wrapped, sizeof wrapped));
        query_put_int(&q, key->id);
        return query_run(&q);
}

int store_rewrap(struct store *store, struct bytes new_key_encryption_key) {
        struct seal_keys *keys = store->seal.keys;
        uint8_t check[WRAPPED_KEY_BYTES];
        int r;

        if (new_key_encryption_key.size != KEY_BYTES)
                return -EINVAL;
        remember(&store->seal);
        if (keys->wrapping.now != new_key_encryption_key.data)
                memcpy(keys->wrapping.now, new_key_encryption_key.data, KEY_BYTES);
        forget_next(keys);

        r = check_value(keys->wrapping.now, check);
        for (size_t i = 0; r >= 0 && i < keys->count; i++)
                r = write_wrapped(store, &keys->data[i]);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE meta SET key_check = ?, key_check_next = NULL WHERE id = 1");
        query_put_blob(&q, BYTES(check, sizeof check));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

/* ---- in two steps ---- */

/* 1: one is prepared. */
static int get_next_public(struct store *store, uint8_t ret[RECOVERY_KEY_BYTES]) {
        if (store->schema < 3)
                return 0;

        _cleanup_(query_end) struct query q = query_new(store, "SELECT key_check_next FROM meta WHERE id = 1");
        struct bytes found;
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        found = query_get_blob(&q);
        if (found.size == 0)
                return 0;
        if (found.size != RECOVERY_KEY_BYTES)
                return -EUCLEAN;
        memcpy(ret, found.data, RECOVERY_KEY_BYTES);
        return 1;
}

int wrapping_cover(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]) {
        uint8_t public_key[RECOVERY_KEY_BYTES], wrapped[RECOVERY_WRAPPED_BYTES];
        int r = get_next_public(store, public_key);

        if (r <= 0)
                return r;
        r = recovery_wrap(public_key, id, key, wrapped);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q = query_new(store, "UPDATE data_key SET wrapped_next = ? WHERE id = ?");
        query_put_blob(&q, BYTES(wrapped, sizeof wrapped));
        query_put_int(&q, id);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

static int cover_uncovered(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]) {
        {
                _cleanup_(query_end) struct query q =
                        query_new(store, "SELECT 1 FROM data_key WHERE id = ? AND wrapped_next IS NULL");
                int r;

                query_put_int(&q, id);
                r = query_step(&q);
                if (r <= 0)
                        return r;
        }
        return wrapping_cover(store, id, key);
}

int seal_cover_all(struct store *store) {
        int r = store_rewrap_is_open(store);

        if (r > 0)
                r = seal_each_key(store, cover_uncovered);
        return r;
}

static int set_next_public(struct store *store, const uint8_t *public_key) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE meta SET key_check_next = nullif(?, x'') WHERE id = 1");
        int r;

        query_put_blob(&q, BYTES(public_key, public_key ? (size_t)RECOVERY_KEY_BYTES : 0));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_rewrap_prepare(struct store *store, struct bytes new_key_encryption_key) {
        struct seal_keys *keys = store->seal.keys;
        uint8_t private_key[KEY_BYTES], public_key[RECOVERY_KEY_BYTES];
        int r;

        if (new_key_encryption_key.size != KEY_BYTES ||
            CRYPTO_memcmp(new_key_encryption_key.data, keys->wrapping.now, KEY_BYTES) == 0)
                return -EINVAL;
        r = recovery_pair_of(new_key_encryption_key.data, NEXT_LABEL, private_key, public_key);
        OPENSSL_cleanse(private_key, sizeof private_key);
        if (r < 0)
                return r;
        remember(&store->seal);
        memcpy(keys->wrapping.next, new_key_encryption_key.data, KEY_BYTES);
        keys->wrapping.has_next = true;
        r = set_next_public(store, public_key);
        return r < 0 ? r : seal_each_key(store, wrapping_cover);
}

int store_rewrap_is_open(struct store *store) {
        uint8_t public_key[RECOVERY_KEY_BYTES];

        return get_next_public(store, public_key);
}

int store_rewrap_knows(struct store *store, struct bytes key_encryption_key) {
        uint8_t public_key[RECOVERY_KEY_BYTES], private_key[KEY_BYTES];
        int r;

        if (key_encryption_key.size != KEY_BYTES)
                return -EINVAL;
        if (CRYPTO_memcmp(key_encryption_key.data, store->seal.keys->wrapping.now, KEY_BYTES) == 0)
                return SEALING_KEY_IN_FORCE;
        r = get_next_public(store, public_key);
        if (r <= 0)
                return r < 0 ? r : SEALING_KEY_UNKNOWN;
        if (!is_public_key_of(key_encryption_key.data, BYTES(public_key, sizeof public_key), private_key))
                return SEALING_KEY_UNKNOWN;
        OPENSSL_cleanse(private_key, sizeof private_key);
        return SEALING_KEY_PREPARED;
}

int store_rewrap_finish(struct store *store) {
        uint8_t next[KEY_BYTES];
        int r = store_rewrap_is_open(store);

        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        if (!store->seal.keys->wrapping.has_next)
                return -ENOKEY;
        memcpy(next, store->seal.keys->wrapping.next, KEY_BYTES);
        r = store_rewrap(store, BYTES(next, sizeof next));
        OPENSSL_cleanse(next, sizeof next);
        return r;
}

int store_rewrap_cancel(struct store *store) {
        int r = store_rewrap_is_open(store);

        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        remember(&store->seal);
        forget_next(store->seal.keys);
        r = set_next_public(store, NULL);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE data_key SET wrapped_next = NULL WHERE wrapped_next IS NOT NULL");
        r = query_run(&q);
        return r < 0 ? r : 0;
}

/* The key given is in memory though the store is not under it: the second of two steps, or a recovery. */
int seal_take_over(struct store *store) {
        return store_rewrap(store, BYTES(store->seal.keys->wrapping.now, KEY_BYTES));
}

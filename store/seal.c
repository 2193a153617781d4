/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets at rest, in two layers: the key-encryption key wraps data keys, data keys seal secrets.
 * AES-256-GCM throughout, with random 96-bit nonces, and each blob bound to what it belongs to, so
 * that a blob moved to another row does not open.
 *
 * The key-encryption key itself is replaced in seal_rewrap.c. */

#include "store/seal_keys.h"

#include <errno.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#define SEAL_FORMAT    1
#define WRAP_LABEL     "gatewayd data key"
#define SEAL_LABEL     "gatewayd secret"
#define NAME_MAX_BYTES 255
#define ASSOCIATED_MAX (sizeof SEAL_LABEL + 4 + 2 * (2 + NAME_MAX_BYTES) + 1 + 4)

int seal_init(struct seal *seal, struct bytes key_encryption_key) {
        if (key_encryption_key.size != KEY_BYTES)
                return -EINVAL;
        seal->keys = secret_page_new(sizeof *seal->keys);
        if (!seal->keys)
                return -errno;
        memcpy(seal->keys->wrapping.now, key_encryption_key.data, KEY_BYTES);
        return 0;
}

void seal_done(struct seal *seal) {
        secret_page_free(seal->keys, sizeof *seal->keys);
        seal->keys = NULL;
}

/* ---- AES-256-GCM ---- */

static void evp_free(EVP_CIPHER_CTX **context) {
        EVP_CIPHER_CTX_free(*context);
}

int gcm_seal(const uint8_t key[KEY_BYTES], struct bytes associated, struct bytes plain, uint8_t *to) {
        _cleanup_(evp_free) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        uint8_t *nonce = to, *text = to + SEAL_NONCE_BYTES;
        int n;

        if (!context)
                oom();
        if (RAND_bytes(nonce, SEAL_NONCE_BYTES) != 1)
                return -EIO;
        if (EVP_EncryptInit_ex2(context, EVP_aes_256_gcm(), key, nonce, NULL) != 1 ||
            EVP_EncryptUpdate(context, NULL, &n, associated.data, (int)associated.size) != 1 ||
            EVP_EncryptUpdate(context, text, &n, plain.data, (int)plain.size) != 1 ||
            EVP_EncryptFinal_ex(context, text + plain.size, &n) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, text + plain.size) != 1)
                return -EIO;
        return 0;
}

int gcm_open(const uint8_t key[KEY_BYTES], struct bytes associated, struct bytes sealed, uint8_t *to) {
        _cleanup_(evp_free) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        uint8_t tag[SEAL_TAG_BYTES];
        size_t size;
        int n;

        if (!context)
                oom();
        if (sealed.size < SEAL_NONCE_BYTES + SEAL_TAG_BYTES)
                return -EBADMSG;
        size = sealed.size - SEAL_NONCE_BYTES - SEAL_TAG_BYTES;
        memcpy(tag, sealed.data + SEAL_NONCE_BYTES + size, sizeof tag);
        if (EVP_DecryptInit_ex2(context, EVP_aes_256_gcm(), key, sealed.data, NULL) != 1 ||
            EVP_DecryptUpdate(context, NULL, &n, associated.data, (int)associated.size) != 1 ||
            EVP_DecryptUpdate(context, to, &n, sealed.data + SEAL_NONCE_BYTES, (int)size) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1)
                return -EIO;
        if (EVP_DecryptFinal_ex(context, to + size, &n) != 1) {
                OPENSSL_cleanse(to, size);
                return -EBADMSG;
        }
        return 0;
}

static uint8_t *put_u32(uint8_t *to, uint32_t value) {
        for (int shift = 24; shift >= 0; shift -= 8)
                *to++ = (uint8_t)(value >> shift);
        return to;
}

static uint8_t *put_bytes(uint8_t *to, struct bytes value) {
        *to++ = (uint8_t)(value.size >> 8);
        *to++ = (uint8_t)value.size;
        if (value.size > 0)
                memcpy(to, value.data, value.size);
        return to + value.size;
}

/* ---- data keys, wrapped ---- */

static struct bytes wrap_associated(uint32_t id, uint8_t to[sizeof WRAP_LABEL + 4]) {
        uint8_t *end = to;

        memcpy(end, WRAP_LABEL, sizeof WRAP_LABEL);
        end = put_u32(end + sizeof WRAP_LABEL, id);
        return BYTES(to, (size_t)(end - to));
}

int data_key_wrap(const uint8_t wrapping[KEY_BYTES], const struct data_key *key, uint8_t ret[WRAPPED_KEY_BYTES]) {
        uint8_t associated[sizeof WRAP_LABEL + 4];

        return gcm_seal(wrapping, wrap_associated(key->id, associated), BYTES(key->key, KEY_BYTES), ret);
}

int data_key_unwrap(const uint8_t wrapping[KEY_BYTES], struct bytes wrapped, struct data_key *key) {
        uint8_t associated[sizeof WRAP_LABEL + 4];

        if (wrapped.size != WRAPPED_KEY_BYTES)
                return -EBADMSG;
        return gcm_open(wrapping, wrap_associated(key->id, associated), wrapped, key->key);
}

/* A store of an older schema has no next key: it is looked at before it is migrated. */
static int read_check(struct store *store) {
        struct seal *seal = &store->seal;
        _cleanup_(query_end) struct query q =
                query_new(store, store->schema < 3 ? "SELECT key_check, NULL FROM meta WHERE id = 1"
                                                   : "SELECT key_check, key_check_next FROM meta WHERE id = 1");
        struct bytes check, next_public;
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        check = query_get_blob(&q);
        next_public = query_get_blob(&q);
        if (next_public.size != 0 && next_public.size != RECOVERY_KEY_BYTES)
                return -EUCLEAN;
        seal->opens_with = OPENS_WITH_SEALING_KEY;
        r = wrapping_choose(seal->keys, check, next_public);
        if (r == 0)
                return 0;
        if (wrapping_is_successor(seal->keys, next_public, seal->keys->next_private))
                seal->opens_with = OPENS_WITH_NEXT_KEY;
        else if (seal->recovery_key.size > 0)
                seal->opens_with = OPENS_WITH_RECOVERY_KEY;
        else
                return r;
        return 0;
}

static int open_data_key(struct seal *seal, struct query *q, struct data_key *key) {
        struct bytes wrapped, recovery, next, private_key = BYTES(seal->keys->next_private, KEY_BYTES);

        key->id = (uint32_t)query_get_int(q);
        key->sealed = (uint64_t)query_get_int(q);
        wrapped = query_get_blob(q);
        recovery = query_get_blob(q);
        next = query_get_blob(q);
        if (q->error < 0)
                return q->error;
        switch (seal->opens_with) {
        case OPENS_WITH_SEALING_KEY:
                return data_key_unwrap(seal->keys->wrapping.now, wrapped, key) < 0 ? -EUCLEAN : 0;
        case OPENS_WITH_NEXT_KEY:
                /* Not covered: an older gatewayd has made it since, with the key of before. */
                if (next.size == 0)
                        return -ENOKEY;
                return recovery_unwrap(private_key, key->id, next, key->key) < 0 ? -EUCLEAN : 0;
        default:
                return recovery_unwrap(seal->recovery_key, key->id, recovery, key->key) < 0 ? -EKEYREJECTED : 0;
        }
}

static int read_data_keys(struct store *store) {
        struct seal_keys *keys = store->seal.keys;
        _cleanup_(query_end) struct query q = query_new(
                store,
                store->schema < 3
                        ? "SELECT id, sealed, wrapped, recovery, NULL FROM data_key ORDER BY id LIMIT 33"
                        : "SELECT id, sealed, wrapped, recovery, wrapped_next FROM data_key ORDER BY id LIMIT 33");
        int r;

        keys->count = 0;
        while ((r = query_step(&q)) > 0) {
                if (keys->count == DATA_KEYS_MAX)
                        return -EUCLEAN;
                r = open_data_key(&store->seal, &q, &keys->data[keys->count]);
                if (r < 0)
                        return r;
                keys->count++;
        }
        return r == 0 && keys->count == 0 ? -EUCLEAN : r;
}

int seal_load(struct store *store) {
        struct seal *seal = &store->seal;
        int r = read_check(store);

        if (r == 0)
                r = read_data_keys(store);
        if (r == -ENOKEY && seal->opens_with == OPENS_WITH_NEXT_KEY && seal->recovery_key.size > 0) {
                seal->opens_with = OPENS_WITH_RECOVERY_KEY;
                r = read_data_keys(store);
        }
        OPENSSL_cleanse(seal->keys->next_private, KEY_BYTES);
        return r;
}

int seal_reload(struct store *store) {
        return store->seal.is_dirty ? seal_load(store) : 0;
}

void seal_settled(struct seal *seal) {
        seal->is_dirty = false;
        seal->keys->has_before = false;
        OPENSSL_cleanse(&seal->keys->before, sizeof seal->keys->before);
}

int store_data_key_rotate(struct store *store, const struct moment *now) {
        struct seal_keys *keys = store->seal.keys;
        struct data_key *key = &keys->data[keys->count];
        uint8_t wrapped[WRAPPED_KEY_BYTES];
        int r;

        if (keys->count == DATA_KEYS_MAX)
                return -E2BIG; /* store_reseal_some() drops the old ones */
        key->id = keys->count > 0 ? keys->data[keys->count - 1].id + 1 : 1;
        key->sealed = 0;
        if (RAND_priv_bytes(key->key, KEY_BYTES) != 1)
                return -EIO;
        r = data_key_wrap(keys->wrapping.now, key, wrapped);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO data_key (id, wrapped, made_wall, made_powered, made_quality, sealed)"
                                 " VALUES (?, ?, ?, ?, ?, 0)");
        query_put_int(&q, key->id);
        query_put_blob(&q, BYTES(wrapped, sizeof wrapped));
        query_put_moment(&q, now);
        r = query_run(&q);
        if (r < 0)
                return r;
        store->seal.is_dirty = true;
        store->damaged.own = store->damaged.credentials = 0;
        keys->count++;
        r = wrapping_cover(store, key->id, key->key);
        return r < 0 ? r : recovery_cover(store, key->id, key->key);
}

int seal_each_key(struct store *store, data_key_visitor visit) {
        struct seal_keys *keys = store->seal.keys;
        int r = 0;

        for (size_t i = 0; r == 0 && i < keys->count; i++)
                r = visit(store, keys->data[i].id, keys->data[i].key);
        return r;
}

/* ---- secrets, sealed ---- */

static int secret_associated(const struct seal_context *context, uint32_t key, uint8_t to[ASSOCIATED_MAX],
                             struct bytes *ret) {
        uint8_t *end = to;

        if (context->device.size > NAME_MAX_BYTES || context->name.size > NAME_MAX_BYTES)
                return -EINVAL;
        memcpy(end, SEAL_LABEL, sizeof SEAL_LABEL);
        end = put_u32(end + sizeof SEAL_LABEL, key);
        end = put_bytes(end, context->device);
        end = put_bytes(end, context->name);
        *end++ = context->kind;
        end = put_u32(end, context->generation);
        *ret = BYTES(to, (size_t)(end - to));
        return 0;
}

/* The count is written with each use: an accountable key is retired in time even if it took years. */
static int count_sealing(struct store *store, struct data_key *key) {
        _cleanup_(query_end) struct query q = query_new(store, "UPDATE data_key SET sealed = ? WHERE id = ?");

        query_put_int(&q, (int64_t)++key->sealed);
        query_put_int(&q, key->id);
        return query_run(&q);
}

int seal_put(struct store *store, const struct seal_context *context, struct bytes secret, struct buffer *ret,
             uint32_t *ret_key) {
        struct seal_keys *keys = store->seal.keys;
        uint8_t storage[ASSOCIATED_MAX], *to;
        struct bytes associated;
        struct data_key *key;
        int r;

        if (keys->count == 0)
                return -EIO; /* reading them again after a rollback has failed */
        if (keys->data[keys->count - 1].sealed >= SEALS_PER_KEY) {
                r = store_data_key_rotate(store, &MOMENT_NONE);
                if (r < 0)
                        return r;
        }
        key = &keys->data[keys->count - 1];
        r = secret_associated(context, key->id, storage, &associated);
        if (r < 0)
                return r;
        r = count_sealing(store, key);
        if (r < 0)
                return r;

        to = buffer_reserve(ret, secret.size + SEAL_OVERHEAD);
        *to = SEAL_FORMAT;
        r = gcm_seal(key->key, associated, secret, put_u32(to + 1, key->id));
        if (r < 0)
                return r;
        ret->size += secret.size + SEAL_OVERHEAD;
        *ret_key = key->id;
        return 0;
}

static const struct data_key *data_key_find(const struct seal_keys *keys, uint32_t id) {
        for (size_t i = 0; i < keys->count; i++)
                if (keys->data[i].id == id)
                        return &keys->data[i];
        return NULL;
}

int seal_open(struct store *store, const struct seal_context *context, struct bytes sealed, struct buffer *ret) {
        const size_t header = 1 + 4;
        uint8_t storage[ASSOCIATED_MAX];
        const struct data_key *key;
        struct bytes associated;
        uint8_t *to;
        uint32_t id;
        int r;

        if (sealed.size < SEAL_OVERHEAD || sealed.data[0] != SEAL_FORMAT)
                return -EBADMSG;
        id = (uint32_t)sealed.data[1] << 24 | (uint32_t)sealed.data[2] << 16 | (uint32_t)sealed.data[3] << 8 |
             sealed.data[4];
        key = data_key_find(store->seal.keys, id);
        if (!key)
                return -EBADMSG;
        r = secret_associated(context, id, storage, &associated);
        if (r < 0)
                return r;

        to = buffer_reserve(ret, sealed.size);
        r = gcm_open(key->key, associated, BYTES(sealed.data + header, sealed.size - header), to);
        if (r < 0)
                return r;
        ret->size += sealed.size - SEAL_OVERHEAD;
        return 0;
}

#define SQL_DROP_UNUSED                                                                                                \
        "DELETE FROM data_key WHERE id = ?1"                                                                           \
        " AND NOT EXISTS (SELECT 1 FROM credential WHERE data_key = ?1 AND data_key <> 0)"                             \
        " AND NOT EXISTS (SELECT 1 FROM own_secret WHERE data_key = ?1)"

int seal_drop_unused(struct store *store) {
        struct seal_keys *keys = store->seal.keys;

        for (size_t i = 0; i + 1 < keys->count;) {
                _cleanup_(query_end) struct query q = query_new(store, SQL_DROP_UNUSED);
                int r;

                store->seal.is_dirty = true;
                query_put_int(&q, keys->data[i].id);
                r = query_run(&q);
                if (r < 0)
                        return r;
                if (r == 0) { /* a damaged secret is under it */
                        i++;
                        continue;
                }
                keys->count--;
                memmove(&keys->data[i], &keys->data[i + 1], (keys->count - i) * sizeof keys->data[0]);
                OPENSSL_cleanse(&keys->data[keys->count], sizeof keys->data[0]);
        }
        return 0;
}

uint32_t seal_current_key(const struct seal *seal) {
        return seal->keys->count > 0 ? seal->keys->data[seal->keys->count - 1].id : 0;
}

int store_data_key_facts(struct store *store, struct data_key_facts *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT made_wall, made_powered, made_quality, sealed FROM data_key WHERE id = ?");
        int r;

        *ret = (struct data_key_facts){ .id = seal_current_key(&store->seal),
                                        .count = (unsigned)store->seal.keys->count };
        query_put_int(&q, ret->id);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        query_get_moment(&q, &ret->made);
        ret->sealed = (uint64_t)query_get_int(&q);
        return q.error;
}

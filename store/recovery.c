/* SPDX-License-Identifier: Apache-2.0 */

/* The offline recovery key: what opens the store when the key-encryption key is lost, because a TPM's
 * policy was broken or a host's credential secret went with its disk.
 *
 * An X25519 pair made at set-up. The private half leaves the gateway at once; the public one stays and
 * wraps each data key besides: a fresh ephemeral key each time, HKDF-SHA256 over the shared secret with
 * both public keys as salt, AES-256-GCM bound to the data key's id. */

#include "store/internal.h"

#include <errno.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/core_names.h>

#define RECOVERY_LABEL "gatewayd recovery"

static void pkey_free(EVP_PKEY **key) {
        EVP_PKEY_free(*key);
}

static void pkey_context_free(EVP_PKEY_CTX **context) {
        EVP_PKEY_CTX_free(*context);
}

static void kdf_free(EVP_KDF **kdf) {
        EVP_KDF_free(*kdf);
}

static void kdf_context_free(EVP_KDF_CTX **context) {
        EVP_KDF_CTX_free(*context);
}

/* X25519 refuses public keys that would give a shared secret of zeros. */
static int agree(EVP_PKEY *own, const uint8_t peer[RECOVERY_KEY_BYTES], uint8_t ret[RECOVERY_KEY_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *other =
                EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer, RECOVERY_KEY_BYTES);
        _cleanup_(pkey_context_free) EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(own, NULL);
        size_t size = RECOVERY_KEY_BYTES;

        if (!other || !context)
                return -EIO;
        if (EVP_PKEY_derive_init(context) != 1 || EVP_PKEY_derive_set_peer(context, other) != 1 ||
            EVP_PKEY_derive(context, ret, &size) != 1 || size != RECOVERY_KEY_BYTES)
                return -EBADMSG;
        return 0;
}

static int derive(struct bytes secret, struct bytes salt, const char *label, uint8_t ret[KEY_BYTES]) {
        _cleanup_(kdf_free) EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        _cleanup_(kdf_context_free) EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
        char digest[] = "SHA256";
        const OSSL_PARAM parameters[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret.data, secret.size),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt.data, salt.size),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)label, strlen(label) + 1),
                OSSL_PARAM_construct_end(),
        };

        return context && EVP_KDF_derive(context, ret, KEY_BYTES, parameters) == 1 ? 0 : -EIO;
}

static int stretch(const uint8_t shared[RECOVERY_KEY_BYTES], const uint8_t ephemeral[RECOVERY_KEY_BYTES],
                   const uint8_t recovery[RECOVERY_KEY_BYTES], uint8_t ret[KEY_BYTES]) {
        uint8_t salt[2 * RECOVERY_KEY_BYTES];

        memcpy(salt, ephemeral, RECOVERY_KEY_BYTES);
        memcpy(salt + RECOVERY_KEY_BYTES, recovery, RECOVERY_KEY_BYTES);
        return derive(BYTES(shared, RECOVERY_KEY_BYTES), BYTES(salt, sizeof salt), RECOVERY_LABEL, ret);
}

int recovery_pair_of(const uint8_t secret[KEY_BYTES], const char *label, uint8_t ret_private[RECOVERY_KEY_BYTES],
                     uint8_t ret_public[RECOVERY_KEY_BYTES]) {
        static const uint8_t no_salt[32]; /* RFC 5869 §2.2 */
        _cleanup_(pkey_free) EVP_PKEY *pair = NULL;
        size_t size = RECOVERY_KEY_BYTES;
        int r = derive(BYTES(secret, KEY_BYTES), BYTES(no_salt, sizeof no_salt), label, ret_private);

        if (r < 0)
                return r;
        pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, ret_private, RECOVERY_KEY_BYTES);
        return pair && EVP_PKEY_get_raw_public_key(pair, ret_public, &size) == 1 ? 0 : -EIO;
}

static struct bytes recovery_associated(uint32_t id, uint8_t to[sizeof RECOVERY_LABEL + 4]) {
        memcpy(to, RECOVERY_LABEL, sizeof RECOVERY_LABEL);
        for (size_t i = 0; i < 4; i++)
                to[sizeof RECOVERY_LABEL + i] = (uint8_t)(id >> (24 - 8 * i));
        return BYTES(to, sizeof RECOVERY_LABEL + 4);
}

int recovery_wrap(const uint8_t recovery[RECOVERY_KEY_BYTES], uint32_t id, const uint8_t key[KEY_BYTES],
                  uint8_t ret[RECOVERY_WRAPPED_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *ephemeral = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
        uint8_t associated[sizeof RECOVERY_LABEL + 4], shared[RECOVERY_KEY_BYTES], wrapping[KEY_BYTES];
        size_t size = RECOVERY_KEY_BYTES;
        int r;

        if (!ephemeral || EVP_PKEY_get_raw_public_key(ephemeral, ret, &size) != 1)
                return -EIO;
        r = agree(ephemeral, recovery, shared);
        if (r == 0)
                r = stretch(shared, ret, recovery, wrapping);
        if (r == 0)
                r = gcm_seal(wrapping, recovery_associated(id, associated), BYTES(key, KEY_BYTES),
                             ret + RECOVERY_KEY_BYTES);
        OPENSSL_cleanse(shared, sizeof shared);
        OPENSSL_cleanse(wrapping, sizeof wrapping);
        return r;
}

int recovery_unwrap(struct bytes private_key, uint32_t id, struct bytes wrapped, uint8_t ret[KEY_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *own = NULL;
        uint8_t associated[sizeof RECOVERY_LABEL + 4], shared[RECOVERY_KEY_BYTES], wrapping[KEY_BYTES];
        uint8_t public_key[RECOVERY_KEY_BYTES];
        size_t size = sizeof public_key;
        int r;

        if (private_key.size != RECOVERY_KEY_BYTES || wrapped.size != RECOVERY_WRAPPED_BYTES)
                return -EBADMSG;
        own = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private_key.data, private_key.size);
        if (!own || EVP_PKEY_get_raw_public_key(own, public_key, &size) != 1)
                return -EIO;
        r = agree(own, wrapped.data, shared);
        if (r == 0)
                r = stretch(shared, wrapped.data, public_key, wrapping);
        if (r == 0)
                r = gcm_open(wrapping, recovery_associated(id, associated),
                             BYTES(wrapped.data + RECOVERY_KEY_BYTES, wrapped.size - RECOVERY_KEY_BYTES), ret);
        OPENSSL_cleanse(shared, sizeof shared);
        OPENSSL_cleanse(wrapping, sizeof wrapping);
        return r;
}

/* 1: there is one. */
static int get_public_key(struct store *store, uint8_t ret[RECOVERY_KEY_BYTES]) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT recovery_public FROM meta WHERE id = 1");
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

int recovery_cover(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]) {
        uint8_t public_key[RECOVERY_KEY_BYTES], wrapped[RECOVERY_WRAPPED_BYTES];
        int r;

        r = get_public_key(store, public_key);
        if (r <= 0)
                return r;
        r = recovery_wrap(public_key, id, key, wrapped);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q = query_new(store, "UPDATE data_key SET recovery = ? WHERE id = ?");
        query_put_blob(&q, BYTES(wrapped, sizeof wrapped));
        query_put_int(&q, id);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_recovery_new(struct store *store, uint8_t ret_private[RECOVERY_KEY_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
        uint8_t public_key[RECOVERY_KEY_BYTES];
        size_t size = RECOVERY_KEY_BYTES;
        int r;

        if (!pair || EVP_PKEY_get_raw_public_key(pair, public_key, &size) != 1)
                return -EIO;
        {
                _cleanup_(query_end) struct query q =
                        query_new(store, "UPDATE meta SET recovery_public = ? WHERE id = 1");
                query_put_blob(&q, BYTES(public_key, sizeof public_key));
                r = query_run(&q);
                if (r < 0)
                        return r;
        }
        r = seal_each_key(store, recovery_cover);
        if (r < 0)
                return r;
        size = RECOVERY_KEY_BYTES;
        return EVP_PKEY_get_raw_private_key(pair, ret_private, &size) == 1 ? 0 : -EIO;
}

int store_has_recovery(struct store *store) {
        uint8_t public_key[RECOVERY_KEY_BYTES];

        return get_public_key(store, public_key);
}

int store_recovery_public(struct store *store, uint8_t ret[RECOVERY_KEY_BYTES]) {
        int r = get_public_key(store, ret);

        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

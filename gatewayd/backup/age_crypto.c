/* SPDX-License-Identifier: Apache-2.0 */

/* The primitives of age on OpenSSL, in the combinations that the format uses and no others. */

#include "gatewayd/backup/age_parts.h"

#include <errno.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>

#define LABEL_X25519 "age-encryption.org/v1/X25519"

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

static void cipher_context_free(EVP_CIPHER_CTX **context) {
        EVP_CIPHER_CTX_free(*context);
}

int age_identity_recipient(const uint8_t identity[AGE_KEY_BYTES], uint8_t ret[AGE_KEY_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *pair =
                EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, identity, AGE_KEY_BYTES);
        size_t size = AGE_KEY_BYTES;

        return pair && EVP_PKEY_get_raw_public_key(pair, ret, &size) == 1 ? 0 : -EIO;
}

int age_agree(const uint8_t private_key[AGE_KEY_BYTES], const uint8_t public_key[AGE_KEY_BYTES],
              uint8_t ret[AGE_KEY_BYTES]) {
        _cleanup_(pkey_free) EVP_PKEY *own =
                EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private_key, AGE_KEY_BYTES);
        _cleanup_(pkey_free) EVP_PKEY *other =
                EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, public_key, AGE_KEY_BYTES);
        _cleanup_(pkey_context_free) EVP_PKEY_CTX *context = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
        size_t size = AGE_KEY_BYTES;

        if (!other || !context || EVP_PKEY_derive_init(context) != 1)
                return -EIO;
        if (EVP_PKEY_derive_set_peer(context, other) != 1 || EVP_PKEY_derive(context, ret, &size) != 1 ||
            size != AGE_KEY_BYTES) {
                ERR_clear_error();
                return -EBADMSG;
        }
        return 0;
}

int age_hkdf(struct bytes secret, struct bytes salt, const char *info, uint8_t ret[32]) {
        static const uint8_t no_salt[32]; /* RFC 5869 §2.2: what an empty one means */
        _cleanup_(kdf_free) EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        _cleanup_(kdf_context_free) EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
        struct bytes used = salt.size > 0 ? salt : BYTES(no_salt, sizeof no_salt);
        char digest[] = "SHA256";
        const OSSL_PARAM parameters[] = {
                OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret.data, secret.size),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)used.data, used.size),
                OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, strlen(info)),
                OSSL_PARAM_construct_end(),
        };

        return context && EVP_KDF_derive(context, ret, 32, parameters) == 1 ? 0 : -EIO;
}

int age_wrapping_key(const uint8_t shared[AGE_KEY_BYTES], const uint8_t share[AGE_KEY_BYTES],
                     const uint8_t recipient[AGE_KEY_BYTES], uint8_t ret[32]) {
        uint8_t salt[2 * AGE_KEY_BYTES];

        memcpy(salt, share, AGE_KEY_BYTES);
        memcpy(salt + AGE_KEY_BYTES, recipient, AGE_KEY_BYTES);
        return age_hkdf(BYTES(shared, AGE_KEY_BYTES), BYTES(salt, sizeof salt), LABEL_X25519, ret);
}

int age_seal(const uint8_t key[32], const uint8_t nonce[12], struct bytes plain, uint8_t *to) {
        _cleanup_(cipher_context_free) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        int size = 0, more = 0;

        if (!context || EVP_EncryptInit_ex(context, EVP_chacha20_poly1305(), NULL, key, nonce) != 1 ||
            (plain.size > 0 && EVP_EncryptUpdate(context, to, &size, plain.data, (int)plain.size) != 1) ||
            EVP_EncryptFinal_ex(context, to + size, &more) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, AGE_TAG_BYTES, to + plain.size) != 1)
                return -EIO;
        return 0;
}

int age_open(const uint8_t key[32], const uint8_t nonce[12], struct bytes sealed, uint8_t *to) {
        _cleanup_(cipher_context_free) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
        size_t plain = sealed.size - AGE_TAG_BYTES;
        uint8_t tag[AGE_TAG_BYTES];
        int size = 0, more = 0;

        if (sealed.size < AGE_TAG_BYTES)
                return -EBADMSG;
        memcpy(tag, sealed.data + plain, sizeof tag);
        if (!context || EVP_DecryptInit_ex(context, EVP_chacha20_poly1305(), NULL, key, nonce) != 1 ||
            EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1 ||
            (plain > 0 && EVP_DecryptUpdate(context, to, &size, sealed.data, (int)plain) != 1))
                return -EIO;
        if (EVP_DecryptFinal_ex(context, to + size, &more) == 1)
                return 0;
        OPENSSL_cleanse(to, plain);
        ERR_clear_error();
        return -EBADMSG;
}

int age_header_mac(const uint8_t file_key[AGE_FILE_KEY_BYTES], struct bytes header, uint8_t ret[AGE_MAC_BYTES]) {
        uint8_t key[32];
        unsigned size = AGE_MAC_BYTES;
        int r = age_hkdf(BYTES(file_key, AGE_FILE_KEY_BYTES), BYTES(NULL, 0), "header", key);

        if (r == 0 && !HMAC(EVP_sha256(), key, sizeof key, header.data, header.size, ret, &size))
                r = -EIO;
        OPENSSL_cleanse(key, sizeof key);
        return r;
}

int age_stream_begin(struct age_stream *stream, const uint8_t file_key[AGE_FILE_KEY_BYTES],
                     const uint8_t nonce[AGE_NONCE_BYTES]) {
        stream->counter = 0;
        return age_hkdf(BYTES(file_key, AGE_FILE_KEY_BYTES), BYTES(nonce, AGE_NONCE_BYTES), "payload", stream->key);
}

void age_stream_nonce(struct age_stream *stream, bool is_last, uint8_t ret[12]) {
        memset(ret, 0, 12);
        for (size_t i = 0; i < 8; i++)
                ret[3 + i] = (uint8_t)(stream->counter >> (56 - 8 * i));
        ret[11] = is_last;
        stream->counter++;
}

void age_text32(const uint8_t from[32], char *to) {
        char padded[AGE_TEXT32 + 2];

        (void)base64_encode(BYTES(from, 32), false, padded, sizeof padded); /* always 44 characters, the last a '=' */
        memcpy(to, padded, AGE_TEXT32);
        to[AGE_TEXT32] = 0;
}

int age_bytes32(struct bytes text, uint8_t to[32]) {
        char padded[AGE_TEXT32 + 1];

        if (text.size != AGE_TEXT32)
                return -EBADMSG;
        memcpy(padded, text.data, AGE_TEXT32);
        padded[AGE_TEXT32] = '=';
        return base64_decode(BYTES(padded, sizeof padded), false, to, 32) == 32 ? 0 : -EBADMSG;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* age, the way in: a header with one X25519 stanza, a nonce, and chunks of 64 KiB that each carry their tag. */

#include "gatewayd/backup/age_parts.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

struct age_encryptor {
        struct age_stream stream;
        size_t size; /* of what waits in `chunk`: it is sealed only when it is known whether it is the last */
        uint8_t chunk[AGE_CHUNK_BYTES];
};

/* "-> X25519 SHARE\nWRAPPED\n" */
static int put_stanza(const uint8_t recipient[AGE_KEY_BYTES], const uint8_t file_key[AGE_FILE_KEY_BYTES],
                      struct buffer *to) {
        static const uint8_t nonce[12]; /* zeros: the wrapping key is of this file alone */
        uint8_t ephemeral[AGE_KEY_BYTES], share[AGE_KEY_BYTES], shared[AGE_KEY_BYTES], key[32];
        uint8_t wrapped[AGE_WRAPPED_BYTES];
        char share_text[AGE_TEXT32 + 1], wrapped_text[AGE_TEXT32 + 1];
        int r;

        if (RAND_priv_bytes(ephemeral, sizeof ephemeral) != 1)
                return -EIO;
        r = age_identity_recipient(ephemeral, share);
        if (r == 0)
                r = age_agree(ephemeral, recipient, shared);
        if (r == 0)
                r = age_wrapping_key(shared, share, recipient, key);
        if (r == 0)
                r = age_seal(key, nonce, BYTES(file_key, AGE_FILE_KEY_BYTES), wrapped);
        OPENSSL_cleanse(ephemeral, sizeof ephemeral);
        OPENSSL_cleanse(shared, sizeof shared);
        OPENSSL_cleanse(key, sizeof key);
        if (r < 0)
                return r == -EBADMSG ? -EINVAL : r;
        age_text32(share, share_text);
        age_text32(wrapped, wrapped_text);
        buffer_printf(to, "-> X25519 %s\n%s\n", share_text, wrapped_text);
        return 0;
}

static int put_header(struct age_encryptor *encryptor, const uint8_t recipient[AGE_KEY_BYTES], struct buffer *to) {
        uint8_t file_key[AGE_FILE_KEY_BYTES], mac[AGE_MAC_BYTES], nonce[AGE_NONCE_BYTES];
        char mac_text[AGE_TEXT32 + 1];
        size_t from = to->size;
        int r = 0;

        if (RAND_priv_bytes(file_key, sizeof file_key) != 1 || RAND_bytes(nonce, sizeof nonce) != 1)
                return -EIO;
        buffer_append(to, TEXT(AGE_MAGIC));
        r = put_stanza(recipient, file_key, to);
        if (r == 0) {
                buffer_append(to, TEXT("---"));
                r = age_header_mac(file_key, BYTES(to->data + from, to->size - from), mac);
        }
        if (r == 0)
                r = age_stream_begin(&encryptor->stream, file_key, nonce);
        OPENSSL_cleanse(file_key, sizeof file_key);
        if (r < 0) {
                to->size = from;
                return r;
        }
        age_text32(mac, mac_text);
        buffer_printf(to, " %s\n", mac_text);
        buffer_append(to, BYTES(nonce, sizeof nonce));
        return 0;
}

int age_encryptor_new(const uint8_t recipient[AGE_KEY_BYTES], struct buffer *to, struct age_encryptor **ret) {
        struct age_encryptor *encryptor = xcalloc(1, sizeof *encryptor);
        int r = put_header(encryptor, recipient, to);

        if (r < 0) {
                age_encryptor_free(encryptor);
                return r;
        }
        *ret = encryptor;
        return 0;
}

static int put_chunk(struct age_encryptor *encryptor, bool is_last, struct buffer *to) {
        uint8_t nonce[12];
        int r;

        age_stream_nonce(&encryptor->stream, is_last, nonce);
        r = age_seal(encryptor->stream.key, nonce, BYTES(encryptor->chunk, encryptor->size),
                     buffer_reserve(to, encryptor->size + AGE_TAG_BYTES));
        if (r == 0)
                to->size += encryptor->size + AGE_TAG_BYTES;
        encryptor->size = 0;
        return r;
}

int age_encryptor_update(struct age_encryptor *encryptor, struct bytes plain, struct buffer *to) {
        while (plain.size > 0) {
                size_t room = AGE_CHUNK_BYTES - encryptor->size, taken = plain.size < room ? plain.size : room;
                int r;

                if (room == 0) { /* there is more, so it is not the last */
                        r = put_chunk(encryptor, false, to);
                        if (r < 0)
                                return r;
                        continue;
                }
                memcpy(encryptor->chunk + encryptor->size, plain.data, taken);
                encryptor->size += taken;
                plain = BYTES(plain.data + taken, plain.size - taken);
        }
        return 0;
}

int age_encryptor_final(struct age_encryptor *encryptor, struct buffer *to) {
        return put_chunk(encryptor, true, to);
}

struct age_encryptor *age_encryptor_free(struct age_encryptor *encryptor) {
        if (encryptor)
                OPENSSL_cleanse(encryptor, sizeof *encryptor);
        free(encryptor);
        return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within backup/: what the two directions of age have in common (age_crypto.c). */

#include "gatewayd/backup/age.h"

#define AGE_MAGIC          "age-encryption.org/v1\n"
#define AGE_FILE_KEY_BYTES 16
#define AGE_WRAPPED_BYTES  (AGE_FILE_KEY_BYTES + 16)
#define AGE_MAC_BYTES      32
#define AGE_NONCE_BYTES    16
#define AGE_TAG_BYTES      16
#define AGE_SEALED_BYTES   (AGE_CHUNK_BYTES + AGE_TAG_BYTES)
#define AGE_TEXT32         43 /* characters of 32 bytes in base64 without padding */

/* The payload's key and where its next chunk stands (STREAM: an 11-byte counter and whether it is the last). */
struct age_stream {
        uint8_t key[32];
        uint64_t counter;
};

/* X25519; -EBADMSG where the result is zeros (the spec demands it). */
int age_agree(const uint8_t private_key[AGE_KEY_BYTES], const uint8_t public_key[AGE_KEY_BYTES],
              uint8_t ret[AGE_KEY_BYTES]);
int age_hkdf(struct bytes secret, struct bytes salt, const char *info, uint8_t ret[32]);
/* The key that wraps the file key in an X25519 stanza. */
int age_wrapping_key(const uint8_t shared[AGE_KEY_BYTES], const uint8_t share[AGE_KEY_BYTES],
                     const uint8_t recipient[AGE_KEY_BYTES], uint8_t ret[32]);
/* ChaCha20-Poly1305 (RFC 8439): `to` has room for the tag besides. */
int age_seal(const uint8_t key[32], const uint8_t nonce[12], struct bytes plain, uint8_t *to);
/* -EBADMSG: its tag is another's. */
int age_open(const uint8_t key[32], const uint8_t nonce[12], struct bytes sealed, uint8_t *to);
/* HMAC over the header up to and with "---". */
int age_header_mac(const uint8_t file_key[AGE_FILE_KEY_BYTES], struct bytes header, uint8_t ret[AGE_MAC_BYTES]);
int age_stream_begin(struct age_stream *stream, const uint8_t file_key[AGE_FILE_KEY_BYTES],
                     const uint8_t nonce[AGE_NONCE_BYTES]);
void age_stream_nonce(struct age_stream *stream, bool is_last, uint8_t ret[12]);
/* RFC 4648 §4 without padding, strict. `to`: AGE_TEXT32 + 1. */
void age_text32(const uint8_t from[32], char *to);
int age_bytes32(struct bytes text, uint8_t to[32]);

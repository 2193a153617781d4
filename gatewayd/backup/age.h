/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The file format of backups: age v1 (age-encryption.org/v1, C2SP age.md), with X25519 recipients alone. What is
 * written here `age -d` opens, and the other way round. No files: bytes in, bytes out, a portion at a time. */

#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"

#define AGE_KEY_BYTES      32
#define AGE_RECIPIENT_TEXT 63 /* "age1…" with its NUL */
#define AGE_IDENTITY_TEXT  75 /* "AGE-SECRET-KEY-1…" with its NUL */
#define AGE_CHUNK_BYTES    65536

/* "age1…" (Bech32, BIP 173) into a public key. -EINVAL. */
int age_recipient_parse(const char *text, uint8_t ret[AGE_KEY_BYTES]);
void age_recipient_text(const uint8_t key[AGE_KEY_BYTES], char to[AGE_RECIPIENT_TEXT]);
/* What a key file holds: "AGE-SECRET-KEY-1…" as age-keygen writes it (lines that begin with # and empty ones do not
 * count), or the recovery key's 64 hex digits or 32 raw bytes. One key. -EINVAL. */
int age_identity_parse(struct bytes text, uint8_t ret[AGE_KEY_BYTES]);
void age_identity_text(const uint8_t key[AGE_KEY_BYTES], char to[AGE_IDENTITY_TEXT]);
/* The public half of an identity. -EIO. */
int age_identity_recipient(const uint8_t identity[AGE_KEY_BYTES], uint8_t ret[AGE_KEY_BYTES]);

/* Encrypts to one recipient: appends the header to `to`, then each chunk as it is full. -EINVAL: the recipient's key
 * is one that nobody can have the other half of (RFC 7748 §6.1). -EIO. */
struct age_encryptor;
int age_encryptor_new(const uint8_t recipient[AGE_KEY_BYTES], struct buffer *to, struct age_encryptor **ret);
int age_encryptor_update(struct age_encryptor *encryptor, struct bytes plain, struct buffer *to);
/* The last chunk. */
int age_encryptor_final(struct age_encryptor *encryptor, struct buffer *to);
struct age_encryptor *age_encryptor_free(struct age_encryptor *encryptor);

/* Decrypts with one identity. Appends to `to` only what its chunk's tag has vouched for; that it is all says only
 * age_decryptor_final(). Both return 0, -EBADMSG (no age file, damaged, cut off, something behind its end) or
 * -EKEYREJECTED (encrypted to other recipients), with problem. After an error nothing more is taken. */
struct age_decryptor;
struct age_decryptor *age_decryptor_new(const uint8_t identity[AGE_KEY_BYTES]);
int age_decryptor_update(struct age_decryptor *decryptor, struct bytes sealed, struct buffer *to,
                         struct problem *problem);
int age_decryptor_final(struct age_decryptor *decryptor, struct buffer *to, struct problem *problem);
struct age_decryptor *age_decryptor_free(struct age_decryptor *decryptor);

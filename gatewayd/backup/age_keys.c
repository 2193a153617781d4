/* SPDX-License-Identifier: Apache-2.0 */

/* How age writes its keys: Bech32 (BIP 173) of 32 bytes, "age1…" for the public half and "AGE-SECRET-KEY-1…" for
 * the private one. Bech32 finds every mistake of up to four characters. */

#include "gatewayd/backup/age.h"

#include <ctype.h>
#include <errno.h>

#include <openssl/crypto.h>

static const char alphabet[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

#define DATA_WORDS     52 /* 32 bytes in groups of five bits */
#define CHECKSUM_WORDS 6
#define WORDS          (DATA_WORDS + CHECKSUM_WORDS)

static uint32_t polymod_step(uint32_t state) {
        static const uint32_t generator[] = { 0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3 };
        uint32_t next = (state & 0x1ffffff) << 5;

        for (size_t i = 0; i < ELEMENTS(generator); i++)
                if (state >> (25 + i) & 1)
                        next ^= generator[i];
        return next;
}

/* Over the prefix (lower case) and the words; 1 where the last six words are their checksum. */
static uint32_t polymod(const char *prefix, const uint8_t *words, size_t count) {
        uint32_t state = 1;

        for (const char *p = prefix; *p; p++)
                state = polymod_step(state) ^ ((uint32_t)*p >> 5);
        state = polymod_step(state);
        for (const char *p = prefix; *p; p++)
                state = polymod_step(state) ^ ((uint32_t)*p & 31);
        for (size_t i = 0; i < count; i++)
                state = polymod_step(state) ^ words[i];
        return state;
}

static void bech32_write(const char *prefix, const uint8_t key[AGE_KEY_BYTES], char *to) {
        uint8_t words[WORDS] = { 0 };
        uint32_t checksum;

        for (size_t bit = 0; bit < 8 * AGE_KEY_BYTES; bit++)
                if (key[bit / 8] >> (7 - bit % 8) & 1)
                        words[bit / 5] = (uint8_t)(words[bit / 5] | 1 << (4 - bit % 5));
        checksum = polymod(prefix, words, WORDS) ^ 1;
        for (size_t i = 0; i < CHECKSUM_WORDS; i++)
                words[DATA_WORDS + i] = checksum >> 5 * (5 - i) & 31;
        to += sprintf(to, "%s1", prefix);
        for (size_t i = 0; i < WORDS; i++)
                *to++ = alphabet[words[i]];
        *to = 0;
        OPENSSL_cleanse(words, sizeof words);
}

/* `text` is in lower case. */
static int bech32_read(const char *prefix, struct bytes text, uint8_t ret[AGE_KEY_BYTES]) {
        size_t prefix_size = strlen(prefix);
        uint8_t words[WORDS];
        int r = -EINVAL;

        if (text.size != prefix_size + 1 + WORDS || memcmp(text.data, prefix, prefix_size) != 0 ||
            text.data[prefix_size] != '1')
                return -EINVAL;
        for (size_t i = 0; i < WORDS; i++) {
                const char *found = memchr(alphabet, text.data[prefix_size + 1 + i], sizeof alphabet - 1);

                if (!found)
                        goto finish;
                words[i] = (uint8_t)(found - alphabet);
        }
        if (polymod(prefix, words, WORDS) != 1 || (words[DATA_WORDS - 1] & 15) != 0) /* 260 bits: four are none */
                goto finish;
        memset(ret, 0, AGE_KEY_BYTES);
        for (size_t bit = 0; bit < 8 * AGE_KEY_BYTES; bit++)
                if (words[bit / 5] >> (4 - bit % 5) & 1)
                        ret[bit / 8] = (uint8_t)(ret[bit / 8] | 1 << (7 - bit % 8));
        r = 0;
finish:
        OPENSSL_cleanse(words, sizeof words);
        return r;
}

int age_recipient_parse(const char *text, uint8_t ret[AGE_KEY_BYTES]) {
        return bech32_read("age", bytes_of(text), ret);
}

void age_recipient_text(const uint8_t key[AGE_KEY_BYTES], char to[AGE_RECIPIENT_TEXT]) {
        bech32_write("age", key, to);
}

static int read_identity(struct bytes line, uint8_t ret[AGE_KEY_BYTES]) {
        char lower[AGE_IDENTITY_TEXT];
        int r;

        if (line.size == 2 * AGE_KEY_BYTES)
                return hex_decode(line, ret, AGE_KEY_BYTES) == AGE_KEY_BYTES ? 0 : -EINVAL;
        if (line.size != sizeof lower - 1)
                return -EINVAL;
        for (size_t i = 0; i < line.size; i++) {
                if (islower(line.data[i])) /* always written in capitals */
                        return -EINVAL;
                lower[i] = (char)tolower(line.data[i]);
        }
        r = bech32_read("age-secret-key-", BYTES(lower, line.size), ret);
        OPENSSL_cleanse(lower, sizeof lower);
        return r;
}

int age_identity_parse(struct bytes text, uint8_t ret[AGE_KEY_BYTES]) {
        bool is_found = false;

        if (text.size == AGE_KEY_BYTES) { /* shorter than any text of a key */
                memcpy(ret, text.data, AGE_KEY_BYTES);
                return 0;
        }
        while (text.size > 0) {
                const uint8_t *end = memchr(text.data, '\n', text.size);
                size_t taken = end ? (size_t)(end - text.data) + 1 : text.size;
                struct bytes line = BYTES(text.data, end ? taken - 1 : taken);

                text = BYTES(text.data + taken, text.size - taken);
                if (line.size > 0 && line.data[line.size - 1] == '\r')
                        line.size--;
                if (line.size == 0 || line.data[0] == '#')
                        continue;
                if (is_found || read_identity(line, ret) < 0)
                        return -EINVAL;
                is_found = true;
        }
        return is_found ? 0 : -EINVAL;
}

void age_identity_text(const uint8_t key[AGE_KEY_BYTES], char to[AGE_IDENTITY_TEXT]) {
        bech32_write("age-secret-key-", key, to);
        for (char *p = to; *p; p++)
                *p = (char)toupper((unsigned char)*p);
}

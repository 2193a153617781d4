/* SPDX-License-Identifier: Apache-2.0 */

/* age, the way out. The header is read as the format has it: any number of stanzas of any type, of which those of
 * type X25519 are tried; then its MAC must be right; then chunk after chunk. */

#include "gatewayd/backup/age_parts.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/crypto.h>

/* Room for some hundred recipients; what is longer is no header. */
#define HEADER_MAX  65536
#define STANZA_LINE 64 /* characters of a body's line; a shorter one ends the body */

struct age_decryptor {
        uint8_t identity[AGE_KEY_BYTES], recipient[AGE_KEY_BYTES];
        uint8_t file_key[AGE_FILE_KEY_BYTES];
        enum { AT_HEADER, AT_NONCE, AT_CHUNKS, AT_END, FAILED } at;
        bool has_file_key;
        struct age_stream stream;
        struct buffer pending; /* what is not complete yet */
        size_t looked;         /* of the header: no end before this offset */
};

static int damaged(struct age_decryptor *decryptor, struct problem *problem, const char *how) {
        decryptor->at = FAILED;
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "age file", "the file %s", how);
}

static int failed(struct age_decryptor *decryptor, struct problem *problem, int error) {
        decryptor->at = FAILED;
        return problem_set(problem, CODE_INTERNAL, -error, "age file", "it cannot be decrypted: %s", strerror(-error));
}

/* ---- the header ---- */

/* The next line without its line feed; false: there is none. */
static bool next_line(struct bytes *rest, struct bytes *ret) {
        const uint8_t *end = rest->size > 0 ? memchr(rest->data, '\n', rest->size) : NULL;

        if (!end)
                return false;
        *ret = BYTES(rest->data, (size_t)(end - rest->data));
        *rest = BYTES(end + 1, rest->size - ret->size - 1);
        return true;
}

static bool begins(struct bytes line, struct bytes with) {
        return line.size >= with.size && memcmp(line.data, with.data, with.size) == 0;
}

static bool is_base64(uint8_t c) {
        return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

/* Lines of 64 characters and one that is shorter. Only a body of one line can be of a stanza that is tried. */
static int read_body(struct bytes *rest, struct bytes *ret_first) {
        struct bytes line;

        *ret_first = BYTES(NULL, 0);
        for (size_t count = 0;; count++) {
                if (!next_line(rest, &line) || line.size > STANZA_LINE)
                        return -EBADMSG;
                for (size_t i = 0; i < line.size; i++)
                        if (!is_base64(line.data[i]))
                                return -EBADMSG;
                if (count == 0)
                        *ret_first = line;
                if (line.size < STANZA_LINE)
                        return count == 0 ? 1 : 0;
        }
}

/* Arguments are separated by one space, of visible characters, none empty. */
static int check_arguments(struct bytes line) {
        size_t since = 0;

        for (size_t i = 0; i <= line.size; i++) {
                if (i == line.size || line.data[i] == ' ') {
                        if (since == i)
                                return -EBADMSG;
                        since = i + 1;
                } else if (line.data[i] < 33 || line.data[i] > 126)
                        return -EBADMSG;
        }
        return 0;
}

/* Somebody else's stanza of the same type does not open: that is no mistake. */
static int try_stanza(struct age_decryptor *decryptor, struct bytes share_text, struct bytes body) {
        static const uint8_t nonce[12];
        uint8_t share[AGE_KEY_BYTES], shared[AGE_KEY_BYTES], key[32], wrapped[AGE_WRAPPED_BYTES];
        int r;

        if (age_bytes32(share_text, share) < 0 || age_bytes32(body, wrapped) < 0)
                return -EBADMSG;
        r = age_agree(decryptor->identity, share, shared);
        if (r == 0)
                r = age_wrapping_key(shared, share, decryptor->recipient, key);
        if (r < 0)
                return r;
        r = age_open(key, nonce, BYTES(wrapped, sizeof wrapped), decryptor->file_key);
        decryptor->has_file_key = r == 0;
        OPENSSL_cleanse(shared, sizeof shared);
        OPENSSL_cleanse(key, sizeof key);
        return r == -EBADMSG ? 0 : r;
}

static int read_stanza(struct age_decryptor *decryptor, struct bytes line, struct bytes *rest) {
        static const struct bytes type = { (const uint8_t *)"X25519 ", 7 };
        struct bytes arguments = BYTES(line.data + 3, line.size - 3), body;
        int r, lines;

        r = check_arguments(arguments);
        if (r < 0)
                return r;
        r = lines = read_body(rest, &body);
        if (r < 0)
                return r;
        if (arguments.size == type.size - 1 && begins(arguments, BYTES(type.data, type.size - 1)))
                return -EBADMSG;
        if (!begins(arguments, type) || decryptor->has_file_key)
                return 0;
        if (lines != 1)
                return -EBADMSG;
        return try_stanza(decryptor, BYTES(arguments.data + type.size, arguments.size - type.size), body);
}

static int check_mac(struct age_decryptor *decryptor, struct bytes header, struct bytes text) {
        uint8_t expected[AGE_MAC_BYTES], found[AGE_MAC_BYTES];
        int r = age_bytes32(text, found);

        if (r == 0)
                r = age_header_mac(decryptor->file_key, header, expected);
        if (r == 0 && CRYPTO_memcmp(expected, found, sizeof expected) != 0)
                r = -EBADMSG;
        return r;
}

/* `header` ends with the line feed after the MAC. */
static int read_header(struct age_decryptor *decryptor, struct bytes header, struct problem *problem) {
        struct bytes rest = BYTES(header.data + sizeof AGE_MAGIC - 1, header.size - (sizeof AGE_MAGIC - 1)), line;
        int r;

        for (size_t count = 0;; count++) {
                if (!next_line(&rest, &line))
                        return damaged(decryptor, problem, "has a damaged header");
                if (begins(line, TEXT("--- ")) && count > 0)
                        break;
                r = begins(line, TEXT("-> ")) ? read_stanza(decryptor, line, &rest) : -EBADMSG;
                if (r == -EBADMSG)
                        return damaged(decryptor, problem, "has a damaged header");
                if (r < 0)
                        return failed(decryptor, problem, r);
        }
        if (!decryptor->has_file_key) {
                decryptor->at = FAILED;
                return problem_set(problem, CODE_FORBIDDEN, EKEYREJECTED, "another key",
                                   "the file is encrypted to another key than the one given");
        }
        r = check_mac(decryptor, BYTES(header.data, (size_t)(line.data - header.data) + 3),
                      BYTES(line.data + 4, line.size - 4));
        if (r == -EBADMSG)
                return damaged(decryptor, problem, "has a header that was changed");
        return r < 0 ? failed(decryptor, problem, r) : 0;
}

/* Where the header ends: after the line that begins with "---". 0: it is not there yet. */
static size_t header_end(struct age_decryptor *decryptor) {
        const struct buffer *pending = &decryptor->pending;

        while (decryptor->looked < pending->size) {
                struct bytes rest = BYTES(pending->data + decryptor->looked, pending->size - decryptor->looked), line;

                if (!next_line(&rest, &line))
                        return 0;
                decryptor->looked += line.size + 1;
                if (begins(line, TEXT("---")))
                        return decryptor->looked;
        }
        return 0;
}

static void drop_pending(struct buffer *pending, size_t size) {
        memmove(pending->data, pending->data + size, pending->size - size);
        pending->size -= size;
}

/* 1: it is read; 0: more of it must come. */
static int take_header(struct age_decryptor *decryptor, struct problem *problem) {
        struct buffer *pending = &decryptor->pending;
        size_t magic = sizeof AGE_MAGIC - 1, end;
        int r;

        if (memcmp(pending->data, AGE_MAGIC, pending->size < magic ? pending->size : magic) != 0)
                return damaged(decryptor, problem, "is no backup: it is not in the age format");
        if (pending->size < magic)
                return 0;
        end = header_end(decryptor);
        if (end > HEADER_MAX || (end == 0 && pending->size > HEADER_MAX))
                return damaged(decryptor, problem, "has a header without an end");
        if (end == 0)
                return 0;
        r = read_header(decryptor, BYTES(pending->data, end), problem);
        if (r < 0)
                return r;
        drop_pending(pending, end);
        decryptor->at = AT_NONCE;
        return 1;
}

static int take_nonce(struct age_decryptor *decryptor, struct problem *problem) {
        int r;

        if (decryptor->pending.size < AGE_NONCE_BYTES)
                return 0;
        r = age_stream_begin(&decryptor->stream, decryptor->file_key, decryptor->pending.data);
        if (r < 0)
                return failed(decryptor, problem, r);
        OPENSSL_cleanse(decryptor->file_key, sizeof decryptor->file_key);
        drop_pending(&decryptor->pending, AGE_NONCE_BYTES);
        decryptor->at = AT_CHUNKS;
        return 1;
}

/* ---- chunks ---- */

static int take_chunk(struct age_decryptor *decryptor, struct bytes sealed, bool is_last, struct buffer *to,
                      struct problem *problem) {
        bool is_first = decryptor->stream.counter == 0;
        uint8_t nonce[12];
        int r;

        if (sealed.size < AGE_TAG_BYTES)
                return damaged(decryptor, problem, "is cut off");
        if (sealed.size == AGE_TAG_BYTES && !is_first)
                return damaged(decryptor, problem, "has an empty part at its end");
        age_stream_nonce(&decryptor->stream, is_last, nonce);
        r = age_open(decryptor->stream.key, nonce, sealed, buffer_reserve(to, sealed.size));
        if (r == -EBADMSG)
                return damaged(decryptor, problem, is_last ? "is cut off, or damaged at its end" : "is damaged");
        if (r < 0)
                return failed(decryptor, problem, r);
        to->size += sealed.size - AGE_TAG_BYTES;
        return 0;
}

int age_decryptor_update(struct age_decryptor *decryptor, struct bytes sealed, struct buffer *to,
                         struct problem *problem) {
        struct buffer *pending = &decryptor->pending;
        size_t taken = 0;
        int r = 1;

        if (decryptor->at == FAILED || decryptor->at == AT_END)
                return damaged(decryptor, problem, "was given up");
        buffer_append(pending, sealed);
        if (decryptor->at == AT_HEADER)
                r = pending->size > 0 ? take_header(decryptor, problem) : 0;
        if (r > 0 && decryptor->at == AT_NONCE)
                r = take_nonce(decryptor, problem);
        if (r <= 0)
                return r;
        /* A chunk that is followed by something is not the last. */
        while (r >= 0 && pending->size - taken > AGE_SEALED_BYTES) {
                r = take_chunk(decryptor, BYTES(pending->data + taken, AGE_SEALED_BYTES), false, to, problem);
                taken += AGE_SEALED_BYTES;
        }
        if (r >= 0)
                drop_pending(pending, taken);
        return r < 0 ? r : 0;
}

int age_decryptor_final(struct age_decryptor *decryptor, struct buffer *to, struct problem *problem) {
        int r;

        if (decryptor->at == FAILED || decryptor->at == AT_END)
                return damaged(decryptor, problem, "was given up");
        if (decryptor->at != AT_CHUNKS)
                return damaged(decryptor, problem, decryptor->pending.size > 0 ? "is cut off" : "is empty");
        r = take_chunk(decryptor, buffer_bytes(&decryptor->pending), true, to, problem);
        if (r == 0)
                decryptor->at = AT_END;
        return r;
}

struct age_decryptor *age_decryptor_new(const uint8_t identity[AGE_KEY_BYTES]) {
        struct age_decryptor *decryptor = xcalloc(1, sizeof *decryptor);

        memcpy(decryptor->identity, identity, AGE_KEY_BYTES);
        /* A key of which no public half can be made opens no stanza. */
        (void)age_identity_recipient(identity, decryptor->recipient);
        return decryptor;
}

struct age_decryptor *age_decryptor_free(struct age_decryptor *decryptor) {
        if (!decryptor)
                return NULL;
        buffer_free(&decryptor->pending);
        OPENSSL_cleanse(decryptor, sizeof *decryptor);
        free(decryptor);
        return NULL;
}

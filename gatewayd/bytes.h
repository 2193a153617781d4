/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Slices and growing buffers: how bytes cross every boundary. A slice borrows and never ends in a
 * NUL by promise; what comes from outside stays a slice until it has been validated. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define _cleanup_(f)    __attribute__((cleanup(f)))
#define _printf_(a, b)  __attribute__((format(printf, a, b)))
#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* Calendar time in seconds since 1970, UTC, without leap seconds. */
typedef int64_t unix_sec;

struct bytes {
        const uint8_t *data;
        size_t size;
};

#define BYTES(pointer, count) ((struct bytes){ (const uint8_t *)(pointer), (count) })
/* A string literal without its NUL. */
#define TEXT(literal) BYTES("" literal, sizeof(literal) - 1)

/* A NUL-terminated string of our own (never received data). */
static inline struct bytes bytes_of(const char *text) {
        return BYTES(text, text ? strlen(text) : 0);
}

static inline bool bytes_equal(struct bytes a, struct bytes b) {
        return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* Copies a slice into a fixed string with its NUL.
 * Returns 0, -ENAMETOOLONG when it does not fit, -EINVAL when it holds a NUL. */
int bytes_to_text(struct bytes from, char *to, size_t to_size);

/* Writes lower-case hex and a NUL; `to` has room for 2 × size + 1. */
void bytes_to_hex(struct bytes from, char *to);

/* Base64 without line breaks. `url`: RFC 4648 §5 alphabet, no padding; else §4 with padding.
 * Encoding returns the number of characters (and writes a NUL) or -ENOBUFS.
 * Decoding is strict (alphabet, length, zero trailing bits) and returns the number of bytes,
 * -EINVAL, or -ENOBUFS. */
ssize_t base64_encode(struct bytes from, bool url, char *to, size_t to_size);
ssize_t base64_decode(struct bytes from, bool url, uint8_t *to, size_t to_size);

/* Decodes pairs of hex digits; returns the number of bytes, -EINVAL, or -ENOBUFS. */
ssize_t hex_decode(struct bytes from, uint8_t *to, size_t to_size);

/* A growing buffer; zero-initialise it. Running out of memory ends the process (oom()). */
struct buffer {
        uint8_t *data;
        size_t size;
        size_t capacity;
};

static inline struct bytes buffer_bytes(const struct buffer *b) {
        return BYTES(b->data, b->size);
}

/* Makes room for `more` further bytes and returns where they go; `size` is not changed. */
uint8_t *buffer_reserve(struct buffer *b, size_t more);
void buffer_append(struct buffer *b, struct bytes more);
void buffer_printf(struct buffer *b, const char *format, ...) _printf_(2, 3);
/* Wipes (the content may be a secret) and frees. */
void buffer_free(struct buffer *b);

/* Out of memory in a process that holds state: says so and aborts; the supervisor starts anew. */
_Noreturn void oom(void);
void *xcalloc(size_t count, size_t size);
char *xstrdup(const char *text);

/* The folder that a path's last component is in: "/a/b" → "/a", "/a" → "/", "a" → ".". */
void path_folder(const char *path, char *to, size_t to_size);
void freep(void *pointer_to_pointer);

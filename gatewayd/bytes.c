/* SPDX-License-Identifier: Apache-2.0 */

/* Slices, text encodings and growing buffers. Nothing here knows what the bytes mean. */

#include "gatewayd/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/crypto.h>

static const char base64_alphabet[2][65] = {
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
};

int bytes_to_text(struct bytes from, char *to, size_t to_size) {
        if (from.size >= to_size)
                return -ENAMETOOLONG;
        if (from.size > 0 && memchr(from.data, 0, from.size))
                return -EINVAL;
        if (from.size > 0)
                memcpy(to, from.data, from.size);
        to[from.size] = 0;
        return 0;
}

void bytes_to_hex(struct bytes from, char *to) {
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < from.size; i++) {
                *to++ = digits[from.data[i] >> 4];
                *to++ = digits[from.data[i] & 15];
        }
        *to = 0;
}

ssize_t base64_encode(struct bytes from, bool url, char *to, size_t to_size) {
        const char *alphabet = base64_alphabet[url];
        size_t left = from.size % 3, whole = from.size / 3;
        size_t size = whole * 4 + (left == 0 ? 0 : url ? left + 1 : 4);
        const uint8_t *p = from.data;
        char *start = to;

        if (size >= to_size)
                return -ENOBUFS;
        for (size_t i = 0; i < whole; i++, p += 3) {
                uint32_t group = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];

                for (int shift = 18; shift >= 0; shift -= 6)
                        *to++ = alphabet[(group >> shift) & 63];
        }
        if (left > 0) {
                uint32_t group = (uint32_t)p[0] << 16 | (left == 2 ? (uint32_t)p[1] << 8 : 0);

                *to++ = alphabet[group >> 18];
                *to++ = alphabet[(group >> 12) & 63];
                if (left == 2)
                        *to++ = alphabet[(group >> 6) & 63];
                for (size_t i = 2 + (left == 2); !url && i < 4; i++)
                        *to++ = '=';
        }
        *to = 0;
        return to - start;
}

ssize_t base64_decode(struct bytes from, bool url, uint8_t *to, size_t to_size) {
        size_t size = from.size, written = 0;
        uint32_t group = 0;
        unsigned bits = 0;

        if (!url) {
                if (size % 4 != 0)
                        return -EINVAL;
                for (int i = 0; i < 2 && size > 0 && from.data[size - 1] == '='; i++)
                        size--;
        }
        if (size % 4 == 1)
                return -EINVAL;
        for (size_t i = 0; i < size; i++) {
                const char *at = from.data[i] ? strchr(base64_alphabet[url], from.data[i]) : NULL;

                if (!at)
                        return -EINVAL;
                group = group << 6 | (uint32_t)(at - base64_alphabet[url]);
                bits += 6;
                if (bits < 8)
                        continue;
                bits -= 8;
                if (written == to_size)
                        return -ENOBUFS;
                to[written++] = (uint8_t)(group >> bits);
                group &= (1u << bits) - 1;
        }
        return group != 0 ? -EINVAL : (ssize_t)written;
}

static int hex_digit(uint8_t c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -EINVAL;
}

ssize_t hex_decode(struct bytes from, uint8_t *to, size_t to_size) {
        if (from.size % 2 != 0)
                return -EINVAL;
        if (from.size / 2 > to_size)
                return -ENOBUFS;
        for (size_t i = 0; i < from.size; i += 2) {
                int high = hex_digit(from.data[i]), low = hex_digit(from.data[i + 1]);

                if (high < 0 || low < 0)
                        return -EINVAL;
                to[i / 2] = (uint8_t)(high << 4 | low);
        }
        return (ssize_t)(from.size / 2);
}

void oom(void) {
        static const char text[] = "gatewayd: out of memory\n";

        (void)!write(STDERR_FILENO, text, sizeof text - 1); /* nothing else can be done about it */
        abort();
}

void *xcalloc(size_t count, size_t size) {
        void *p = calloc(count, size);

        if (!p)
                oom();
        return p;
}

char *xstrdup(const char *text) {
        char *copy = strdup(text);

        if (!copy)
                oom();
        return copy;
}

void path_folder(const char *path, char *to, size_t to_size) {
        const char *slash = strrchr(path, '/');

        if (!slash)
                snprintf(to, to_size, ".");
        else
                snprintf(to, to_size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

void freep(void *pointer_to_pointer) {
        void **p = pointer_to_pointer;

        free(*p);
        *p = NULL;
}

uint8_t *buffer_reserve(struct buffer *b, size_t more) {
        size_t capacity = b->capacity ? b->capacity : 64;
        uint8_t *data;

        if (more > SIZE_MAX / 2 - b->size)
                oom();
        while (capacity < b->size + more)
                capacity *= 2;
        if (capacity != b->capacity) {
                /* Not realloc(): what moves may be a secret, and the old place must be wiped. */
                data = xcalloc(1, capacity);
                if (b->size > 0)
                        memcpy(data, b->data, b->size);
                if (b->data)
                        OPENSSL_cleanse(b->data, b->size);
                free(b->data);
                b->data = data;
                b->capacity = capacity;
        }
        return b->data + b->size;
}

void buffer_append(struct buffer *b, struct bytes more) {
        if (more.size == 0)
                return;
        memcpy(buffer_reserve(b, more.size), more.data, more.size);
        b->size += more.size;
}

void buffer_printf(struct buffer *b, const char *format, ...) {
        va_list arguments, again;
        int size;

        va_start(arguments, format);
        va_copy(again, arguments);
        size = vsnprintf(NULL, 0, format, arguments);
        va_end(arguments);
        if (size > 0) {
                vsnprintf((char *)buffer_reserve(b, (size_t)size + 1), (size_t)size + 1, format, again);
                b->size += (size_t)size;
        }
        va_end(again);
}

void buffer_free(struct buffer *b) {
        if (b->data)
                OPENSSL_cleanse(b->data, b->capacity);
        free(b->data);
        *b = (struct buffer){ 0 };
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_CBOR_H
#define DEVICE_CBOR_H

/* As much CBOR (RFC 8949) as a device needs: a reader that walks one item at a time over bytes
 * it does not own, and a writer into a buffer of fixed size. Definite lengths only, which is what
 * deterministic encoding (RFC 8949 §4.2) sends. No recursion, no allocation. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum device_cbor_major {
        DEVICE_CBOR_UINT = 0,
        DEVICE_CBOR_NEGATIVE = 1,
        DEVICE_CBOR_BYTES = 2,
        DEVICE_CBOR_TEXT = 3,
        DEVICE_CBOR_ARRAY = 4,
        DEVICE_CBOR_MAP = 5,
        DEVICE_CBOR_TAG = 6,
        DEVICE_CBOR_SIMPLE = 7
};

struct device_cbor_reader {
        const uint8_t *at;
        const uint8_t *end;
};

struct device_cbor_item {
        uint8_t major;       /* enum device_cbor_major */
        uint64_t value;      /* number, string size, count of elements or pairs, tag number */
        const uint8_t *data; /* strings: their bytes, inside the reader's buffer */
};

struct device_cbor_writer {
        uint8_t *data;
        size_t size;
        size_t capacity;
        bool overflow; /* something did not fit: what was written is useless */
};

/* Take one item's head; of a string also its bytes. The elements of an array or map and the
 * content of a tag follow as items of their own. False: malformed, truncated or indefinite. */
bool device_cbor_read(struct device_cbor_reader *reader, struct device_cbor_item *item);

/* Take one item of the given kind. */
bool device_cbor_expect(struct device_cbor_reader *reader, enum device_cbor_major major, struct device_cbor_item *item);

/* Take a number that fits an int64_t. */
bool device_cbor_read_integer(struct device_cbor_reader *reader, int64_t *value);

/* Pass over one item with everything in it. */
bool device_cbor_skip(struct device_cbor_reader *reader);

void device_cbor_write_head(struct device_cbor_writer *writer, enum device_cbor_major major, uint64_t value);
void device_cbor_write_integer(struct device_cbor_writer *writer, int64_t value);
void device_cbor_write_string(struct device_cbor_writer *writer, enum device_cbor_major major, const void *data,
                              size_t size);

#endif

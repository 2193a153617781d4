/* SPDX-License-Identifier: Apache-2.0 */

/* The CBOR of a device: see device_cbor.h. Lengths are compared with what is left in the buffer
 * before they are used, so that no input can make the reader leave it or loop for long. */

#include "device_cbor.h"

#include <string.h>

static size_t reader_left(const struct device_cbor_reader *reader) {
        return (size_t)(reader->end - reader->at);
}

bool device_cbor_read(struct device_cbor_reader *reader, struct device_cbor_item *item) {
        size_t count, i;
        uint8_t first, info;

        if (reader_left(reader) < 1)
                return false;
        first = *reader->at++;
        info = first & 0x1f;
        item->major = (uint8_t)(first >> 5);
        item->data = NULL;
        item->value = info;

        if (info >= 24) {
                if (info > 27) /* reserved, or an indefinite length */
                        return false;
                count = (size_t)1 << (info - 24);
                if (reader_left(reader) < count)
                        return false;
                item->value = 0;
                for (i = 0; i < count; i++)
                        item->value = item->value << 8 | *reader->at++;
        }

        if (item->major == DEVICE_CBOR_BYTES || item->major == DEVICE_CBOR_TEXT) {
                if (item->value > reader_left(reader))
                        return false;
                item->data = reader->at;
                reader->at += (size_t)item->value;
        }
        return true;
}

bool device_cbor_expect(struct device_cbor_reader *reader, enum device_cbor_major major,
                        struct device_cbor_item *item) {
        return device_cbor_read(reader, item) && item->major == (uint8_t)major;
}

bool device_cbor_read_integer(struct device_cbor_reader *reader, int64_t *value) {
        struct device_cbor_item item;

        if (!device_cbor_read(reader, &item) || item.value > INT64_MAX)
                return false;
        if (item.major == DEVICE_CBOR_UINT)
                *value = (int64_t)item.value;
        else if (item.major == DEVICE_CBOR_NEGATIVE)
                *value = -1 - (int64_t)item.value;
        else
                return false;
        return true;
}

bool device_cbor_skip(struct device_cbor_reader *reader) {
        struct device_cbor_item item;
        size_t open = 1; /* items still to come; never more than bytes left in the buffer */

        while (open > 0) {
                if (!device_cbor_read(reader, &item))
                        return false;
                open--;
                if (item.major == DEVICE_CBOR_TAG) {
                        open++;
                } else if (item.major == DEVICE_CBOR_ARRAY || item.major == DEVICE_CBOR_MAP) {
                        /* Every item takes a byte at least: a larger count is a lie. */
                        if (item.value > reader_left(reader))
                                return false;
                        open += (size_t)item.value;
                        if (item.major == DEVICE_CBOR_MAP)
                                open += (size_t)item.value;
                }
                if (open > reader_left(reader))
                        return false;
        }
        return true;
}

static void put(struct device_cbor_writer *writer, const void *data, size_t size) {
        if (writer->overflow || size > writer->capacity - writer->size) {
                writer->overflow = true;
                return;
        }
        if (size > 0)
                memcpy(writer->data + writer->size, data, size);
        writer->size += size;
}

void device_cbor_write_head(struct device_cbor_writer *writer, enum device_cbor_major major, uint64_t value) {
        uint8_t head[9];
        size_t count, i;

        if (value < 24)
                count = 0;
        else if (value <= UINT8_MAX)
                count = 1;
        else if (value <= UINT16_MAX)
                count = 2;
        else if (value <= UINT32_MAX)
                count = 4;
        else
                count = 8;

        head[0] = (uint8_t)((unsigned)major << 5);
        if (count == 0)
                head[0] = (uint8_t)(head[0] | value);
        else
                head[0] = (uint8_t)(head[0] | (count == 1 ? 24 : count == 2 ? 25 : count == 4 ? 26 : 27));
        for (i = 0; i < count; i++)
                head[1 + i] = (uint8_t)(value >> (8 * (count - 1 - i)));
        put(writer, head, 1 + count);
}

void device_cbor_write_integer(struct device_cbor_writer *writer, int64_t value) {
        if (value >= 0)
                device_cbor_write_head(writer, DEVICE_CBOR_UINT, (uint64_t)value);
        else
                device_cbor_write_head(writer, DEVICE_CBOR_NEGATIVE, (uint64_t)(-1 - value));
}

void device_cbor_write_string(struct device_cbor_writer *writer, enum device_cbor_major major, const void *data,
                              size_t size) {
        device_cbor_write_head(writer, major, size);
        put(writer, data, size);
}

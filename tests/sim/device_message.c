/* SPDX-License-Identifier: Apache-2.0 */

/* The parser of CoAP messages (RFC 7252 §3), strict about form and generous about elective options
 * it does not know. Every length is checked against what is left of the datagram. */

#include "device_coap.h"

#include <string.h>

enum {
        OPTION_ETAG = 4,
        OPTION_OBSERVE = 6,
        OPTION_CONTENT_FORMAT = 12,
        OPTION_MAX_AGE = 14,
        OPTION_BLOCK2 = 23,
        OPTION_BLOCK1 = 27
};

struct cursor {
        const uint8_t *at;
        const uint8_t *end;
};

static size_t left(const struct cursor *cursor) {
        return (size_t)(cursor->end - cursor->at);
}

/* The extended forms of an option's delta and length: RFC 7252 §3.1. */
static bool extend(struct cursor *cursor, uint32_t nibble, uint32_t *value) {
        if (nibble < 13) {
                *value = nibble;
                return true;
        }
        if (nibble == 13 && left(cursor) >= 1) {
                *value = 13U + *cursor->at++;
                return true;
        }
        if (nibble == 14 && left(cursor) >= 2) {
                *value = 269U + (uint32_t)(cursor->at[0] << 8 | cursor->at[1]);
                cursor->at += 2;
                return true;
        }
        return false;
}

static bool option_uint(struct device_bytes value, size_t max_size, uint32_t *number) {
        size_t i;

        if (value.size > max_size)
                return false;
        *number = 0;
        for (i = 0; i < value.size; i++)
                *number = *number << 8 | value.data[i];
        return true;
}

static bool option_block(struct device_bytes value, struct device_block *block) {
        uint32_t number;

        if (!option_uint(value, 3, &number) || (number & 7) == 7)
                return false;
        block->is_present = true;
        block->exponent = (uint8_t)(number & 7);
        block->has_more = (number & 8) != 0;
        block->number = number >> 4;
        return true;
}

/* A known option whose value is malformed counts as one that is not known (RFC 7252 §5.4.3):
 * fatal for the critical ones, nothing for the others. */
static void take_option(struct device_message *message, uint32_t number, struct device_bytes value) {
        uint32_t n;

        switch (number) {
        case OPTION_ETAG:
                if (value.size >= 1 && value.size <= 8)
                        message->etag = value;
                break;
        case OPTION_OBSERVE:
                if (option_uint(value, 3, &n)) {
                        message->has_observe = true;
                        message->observe = n;
                }
                break;
        case OPTION_CONTENT_FORMAT:
                if (option_uint(value, 2, &n))
                        message->content_format = (int32_t)n;
                break;
        case OPTION_MAX_AGE:
                if (option_uint(value, 4, &n)) {
                        message->has_max_age = true;
                        message->max_age_sec = n;
                }
                break;
        case OPTION_BLOCK2:
                if (message->block2.is_present || !option_block(value, &message->block2))
                        message->has_unknown_critical = true;
                break;
        case OPTION_BLOCK1:
                if (message->block1.is_present || !option_block(value, &message->block1))
                        message->has_unknown_critical = true;
                break;
        default:
                if (number & 1)
                        message->has_unknown_critical = true;
        }
}

static bool take_options(struct device_message *message, struct cursor *cursor) {
        uint32_t number = 0, delta, length;
        struct device_bytes value;
        uint8_t head;

        while (left(cursor) > 0) {
                head = *cursor->at++;
                if (head == 0xff) {
                        if (left(cursor) == 0) /* a marker without payload: RFC 7252 §3 */
                                return false;
                        message->payload.data = cursor->at;
                        message->payload.size = left(cursor);
                        return true;
                }
                if (!extend(cursor, head >> 4, &delta) || !extend(cursor, head & 15, &length))
                        return false;
                if (length > left(cursor) || number + delta > UINT16_MAX)
                        return false;
                number += delta;
                value.data = cursor->at;
                value.size = length;
                take_option(message, number, value);
                cursor->at += length;
        }
        return true;
}

bool device_message_parse(const uint8_t *data, size_t size, struct device_message *message) {
        struct cursor cursor;

        memset(message, 0, sizeof(*message));
        message->content_format = DEVICE_FORMAT_NONE;
        if (size < 4 || data[0] >> 6 != 1)
                return false;

        message->type = data[0] >> 4 & 3;
        message->token_size = data[0] & 15;
        message->code = data[1];
        message->id = (uint16_t)(data[2] << 8 | data[3]);
        if (message->code == 0)
                return size == 4; /* an empty message is its header: RFC 7252 §4.1 */

        if (message->token_size > 8 || size < 4U + message->token_size)
                return false;
        memcpy(message->token, data + 4, message->token_size);
        cursor.at = data + 4 + message->token_size;
        cursor.end = data + size;
        return take_options(message, &cursor);
}

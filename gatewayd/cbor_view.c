/* SPDX-License-Identifier: Apache-2.0 */

/* Views: taking apart CBOR that has been walked already, without copying it. The bytes are known to
 * be well-formed; still no read here trusts them further than the slice reaches, so that a slice
 * that nobody walked gives "of another type" and nothing worse. */

#include "gatewayd/cbor.h"

struct head {
        uint8_t major;
        bool is_indefinite;
        uint64_t argument;
        struct bytes rest; /* behind the head */
};

static bool take_head(struct bytes item, struct head *ret) {
        uint8_t info;
        size_t count;

        if (item.size == 0)
                return false;
        info = item.data[0] & 31;
        *ret = (struct head){ .major = item.data[0] >> 5, .argument = info };
        count = info < 24 ? 0 : info < 28 ? (size_t)1 << (info - 24) : 0;
        if (info > 27 && info < 31)
                return false;
        if (item.size < 1 + count)
                return false;
        ret->is_indefinite = info == 31;
        if (count > 0)
                ret->argument = 0;
        for (size_t i = 0; i < count; i++)
                ret->argument = ret->argument << 8 | item.data[1 + i];
        ret->rest = BYTES(item.data + 1 + count, item.size - 1 - count);
        return true;
}

bool cbor_view_int(struct bytes item, int64_t *ret) {
        struct head head;

        if (!take_head(item, &head) || head.major > 1 || head.is_indefinite || head.argument > INT64_MAX)
                return false;
        *ret = head.major == 0 ? (int64_t)head.argument : -1 - (int64_t)head.argument;
        return true;
}

static bool view_string(struct bytes item, uint8_t major, struct bytes *ret) {
        struct head head;

        if (!take_head(item, &head) || head.major != major || head.is_indefinite || head.argument > head.rest.size)
                return false;
        *ret = BYTES(head.rest.data, (size_t)head.argument);
        return true;
}

bool cbor_view_bytes(struct bytes item, struct bytes *ret) {
        return view_string(item, 2, ret);
}

bool cbor_view_text(struct bytes item, struct bytes *ret) {
        return view_string(item, 3, ret);
}

bool cbor_view_tag(struct bytes item, uint64_t *ret_tag, struct bytes *ret_content) {
        struct head head;

        if (!take_head(item, &head) || head.major != 6 || head.is_indefinite)
                return false;
        *ret_tag = head.argument;
        *ret_content = head.rest;
        return true;
}

bool cbor_view_is_null(struct bytes item) {
        return item.size == 1 && item.data[0] == 0xf6;
}

bool cbor_view_is_array(struct bytes item) {
        return item.size > 0 && item.data[0] >> 5 == 4;
}

bool cbor_view_is_map(struct bytes item) {
        return item.size > 0 && item.data[0] >> 5 == 5;
}

bool cbor_view_enter(struct bytes array_or_map, struct cbor_cursor *ret) {
        struct head head;

        if (!take_head(array_or_map, &head) || (head.major != 4 && head.major != 5))
                return false;
        if (!head.is_indefinite && head.argument > head.rest.size)
                return false;
        *ret = (struct cbor_cursor){
                .rest = head.rest,
                .left = head.is_indefinite ? UINT64_MAX
                        : head.major == 5  ? 2 * head.argument
                                           : head.argument,
                .is_indefinite = head.is_indefinite,
        };
        return true;
}

bool cbor_view_next(struct cbor_cursor *cursor, struct bytes *ret_item) {
        size_t size;

        if (cursor->left == 0 || cursor->rest.size == 0)
                return false;
        if (cursor->is_indefinite && cursor->rest.data[0] == 0xff) {
                cursor->left = 0;
                return false;
        }
        if (cbor_measure(cursor->rest, &size, NULL) < 0)
                return false;
        *ret_item = BYTES(cursor->rest.data, size);
        cursor->rest = BYTES(cursor->rest.data + size, cursor->rest.size - size);
        if (!cursor->is_indefinite)
                cursor->left--;
        return true;
}

struct bytes cbor_view_member(struct bytes map, int64_t key) {
        struct cbor_cursor cursor;
        struct bytes name, value;
        int64_t number;

        if (!cbor_view_is_map(map) || !cbor_view_enter(map, &cursor))
                return (struct bytes){};
        while (cbor_view_next(&cursor, &name) && cbor_view_next(&cursor, &value))
                if (cbor_view_int(name, &number) && number == key)
                        return value;
        return (struct bytes){};
}

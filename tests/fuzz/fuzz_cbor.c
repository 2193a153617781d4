/* SPDX-License-Identifier: Apache-2.0 */

/* CBOR: what the walk accepts, libcbor reads; views agree with items; and what was read can be written so
 * that it reads the same. */

#include <assert.h>
#include <stdlib.h>

#include "gatewayd/cbor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Views and items of the same bytes say the same. */
static void compare(struct bytes view, const cbor_item_t *item) {
        struct bytes from_view, from_item;
        int64_t a, b;
        bool is_int = cbor_view_int(view, &a);

        assert(is_int == cbor_value_int(item, &b) && (!is_int || a == b));
        if (cbor_view_bytes(view, &from_view))
                assert(cbor_value_bytes(item, &from_item) && bytes_equal(from_view, from_item));
        else
                assert(!cbor_value_bytes(item, &from_item));
        if (cbor_view_text(view, &from_view))
                assert(cbor_value_text(item, &from_item) && bytes_equal(from_view, from_item));
        else
                assert(!cbor_value_text(item, &from_item));
        assert(cbor_view_is_array(view) == cbor_isa_array(item));
        assert(cbor_view_is_map(view) == cbor_isa_map(item));
}

static void descend(struct bytes view, const cbor_item_t *item) {
        struct cbor_cursor cursor;
        struct bytes inner;
        uint64_t tag;
        size_t i = 0;

        compare(view, item);
        if (cbor_view_tag(view, &tag, &inner)) {
                cbor_item_t *content = cbor_tag_item(item);

                assert(cbor_isa_tag(item) && tag == cbor_tag_value(item));
                descend(inner, content);
                cbor_decref(&content);
                return;
        }
        if (!cbor_view_enter(view, &cursor))
                return;
        for (; cbor_view_next(&cursor, &inner); i++) {
                assert(inner.data >= view.data && inner.data + inner.size <= view.data + view.size);
                if (cbor_isa_array(item)) {
                        assert(i < cbor_array_size(item));
                        descend(inner, cbor_array_handle(item)[i]);
                } else {
                        const struct cbor_pair *pair = &cbor_map_handle(item)[i / 2];

                        assert(i / 2 < cbor_map_size(item));
                        descend(inner, i % 2 ? pair->value : pair->key);
                }
        }
        assert(i == (cbor_isa_array(item) ? cbor_array_size(item) : 2 * cbor_map_size(item)));
}

/* Keys found by value are there. */
static void look_up(struct bytes view, const cbor_item_t *item) {
        for (int64_t key = -4; key < 300; key += key < 24 ? 1 : 60)
                assert((cbor_view_member(view, key).size > 0) == (cbor_map_int(item, key) != NULL));
        (void)cbor_map_text(item, "a");
}

static void write_int(const cbor_item_t *item, struct buffer *to) {
        int64_t value;

        if (cbor_value_int(item, &value))
                cbor_put_int(to, value);
        else if (cbor_isa_uint(item))
                cbor_put_uint(to, cbor_get_int(item));
        else
                cbor_put_null(to); /* below -2^63: gatewayd never writes it */
}

static void write_item(const cbor_item_t *item, struct buffer *to) {
        struct bytes string;

        if (cbor_is_int(item))
                write_int(item, to);
        else if (cbor_value_bytes(item, &string))
                cbor_put_bytes(to, string);
        else if (cbor_value_text(item, &string))
                cbor_put_text(to, string);
        else if (cbor_isa_array(item)) {
                cbor_put_array(to, cbor_array_size(item));
                for (size_t i = 0; i < cbor_array_size(item); i++)
                        write_item(cbor_array_handle(item)[i], to);
        } else if (cbor_isa_tag(item)) {
                cbor_item_t *content = cbor_tag_item(item);

                cbor_put_tag(to, cbor_tag_value(item));
                write_item(content, to);
                cbor_decref(&content);
        } else if (cbor_isa_float_ctrl(item) && cbor_float_ctrl_is_ctrl(item) && cbor_is_bool(item))
                cbor_put_bool(to, cbor_get_bool(item));
        else
                cbor_put_null(to); /* floats, maps and indefinite strings: not needed here */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct bytes input = BYTES(data, size);
        _cleanup_(buffer_free) struct buffer again = {};
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL, *prefix = NULL;
        struct problem problem = { 0 };
        size_t prefix_size = 0, measured = 0;
        int r = cbor_read(input, &item, &problem);

        assert(r == cbor_check(input, NULL));
        assert((r == 0) == (problem.code == CODE_EMPTY));
        assert(cbor_read_prefix(input, &prefix, &prefix_size, NULL) == cbor_measure(input, &measured, NULL));
        assert(prefix_size == measured && measured <= size);
        if (r < 0)
                return 0;
        assert(measured == size);
        descend(input, item);
        look_up(input, item);
        write_item(item, &again);
        assert(cbor_check(buffer_bytes(&again), NULL) == 0);
        return 0;
}

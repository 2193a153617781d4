/* SPDX-License-Identifier: Apache-2.0 */

/* DER as it was received, seen without OpenSSL: definite and minimal lengths, nothing behind the end,
 * bounded depth (X.690 §10). OpenSSL's reader takes BER, and allocates before it judges. */

#include "gatewayd/keys/x509_parts.h"

#define DEPTH_MAX 24

bool der_take(struct bytes *from, struct der_item *ret) {
        size_t header = 2, size;
        unsigned octets;

        if (from->size < 2 || (from->data[0] & 0x1f) == 0x1f)
                return false;
        size = from->data[1];
        if (size >= 0x80) {
                octets = (unsigned)size & 0x7f;
                if (octets < 1 || octets > 3 || from->size - 2 < octets || from->data[2] == 0)
                        return false;
                size = 0;
                for (unsigned i = 0; i < octets; i++)
                        size = size << 8 | from->data[2 + i];
                if (size < 0x80)
                        return false;
                header += octets;
        }
        if (from->size - header < size)
                return false;
        *ret = (struct der_item){
                .tag = from->data[0],
                .content = BYTES(from->data + header, size),
                .whole = BYTES(from->data, header + size),
        };
        *from = BYTES(from->data + header + size, from->size - header - size);
        return true;
}

static bool is_whole(struct bytes der, unsigned depth) {
        struct der_item item;

        if (depth > DEPTH_MAX)
                return false;
        while (der.size > 0) {
                if (!der_take(&der, &item))
                        return false;
                if ((item.tag & 0x20) && !is_whole(item.content, depth + 1))
                        return false;
        }
        return true;
}

bool der_is_whole(struct bytes der) {
        struct der_item item;
        struct bytes rest = der;

        return der_take(&rest, &item) && rest.size == 0 && is_whole(der, 0);
}

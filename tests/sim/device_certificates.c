/* SPDX-License-Identifier: Apache-2.0 */

/* The DER of EST's answers: see device_certificates.h. Strict: definite lengths in their shortest form
 * (X.690 §10.1), nothing behind the end, so that no two readings of one message are possible. */

#include "device_certificates.h"

#include <string.h>

enum {
        TAG_INTEGER = 0x02,
        TAG_OID = 0x06,
        TAG_SEQUENCE = 0x30,
        TAG_SET = 0x31,
        TAG_EXPLICIT_0 = 0xa0, /* also IMPLICIT, of a SET: the certificates */
        TAG_IMPLICIT_1 = 0xa1  /* CRLs */
};

/* 1.2.840.113549.1.7.2, id-signedData. */
static const uint8_t signed_data[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02 };

/* Takes one element with this tag off `rest`; `content` is what is in it, `size` what it takes up. */
static bool take(struct device_bytes *rest, uint8_t tag, struct device_bytes *content) {
        size_t head = 2, size;

        if (rest->size < 2 || rest->data[0] != tag)
                return false;
        size = rest->data[1];
        if (size == 0x81 && rest->size >= 3) {
                size = rest->data[2];
                head = 3;
                if (size < 0x80)
                        return false;
        } else if (size == 0x82 && rest->size >= 4) {
                size = (size_t)rest->data[2] << 8 | rest->data[3];
                head = 4;
                if (size < 0x100)
                        return false;
        } else if (size >= 0x80) { /* indefinite, or more than any message here */
                return false;
        }
        if (size > rest->size - head)
                return false;
        content->data = rest->data + head;
        content->size = size;
        rest->data += head + size;
        rest->size -= head + size;
        return true;
}

bool device_next_certificate(struct device_bytes *rest, struct device_bytes *certificate) {
        const uint8_t *begin = rest->data;
        struct device_bytes content;

        if (!take(rest, TAG_SEQUENCE, &content))
                return false;
        certificate->data = begin;
        certificate->size = (size_t)(rest->data - begin);
        return true;
}

static bool are_certificates(struct device_bytes list) {
        struct device_bytes one;

        if (list.size == 0)
                return false;
        while (list.size > 0)
                if (!device_next_certificate(&list, &one))
                        return false;
        return true;
}

bool device_read_certs_only(struct device_bytes body, struct device_bytes *certificates) {
        struct device_bytes outer, type, wrapped, message, ignored, list;

        if (!take(&body, TAG_SEQUENCE, &outer) || body.size != 0 || !take(&outer, TAG_OID, &type) ||
            type.size != sizeof(signed_data) || memcmp(type.data, signed_data, sizeof(signed_data)) != 0 ||
            !take(&outer, TAG_EXPLICIT_0, &wrapped) || outer.size != 0 || !take(&wrapped, TAG_SEQUENCE, &message) ||
            wrapped.size != 0)
                return false;
        /* version, digestAlgorithms, encapContentInfo: nothing is signed, so nothing hangs on them. */
        if (!take(&message, TAG_INTEGER, &ignored) || !take(&message, TAG_SET, &ignored) ||
            !take(&message, TAG_SEQUENCE, &ignored) || !take(&message, TAG_EXPLICIT_0, &list))
                return false;
        if (message.size > 0 && message.data[0] == TAG_IMPLICIT_1 && !take(&message, TAG_IMPLICIT_1, &ignored))
                return false;
        if (!take(&message, TAG_SET, &ignored) || ignored.size != 0 || message.size != 0 || !are_certificates(list))
                return false;
        *certificates = list;
        return true;
}

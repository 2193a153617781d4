/* SPDX-License-Identifier: Apache-2.0 */

/* What devices should trust: the generations in force, cross certificates, the owner's chains (RFC 7030 §4.1.3). */

#include <errno.h>

#include <openssl/asn1.h>

#include "gatewayd/keys/authority_parts.h"

/* The first DER element of `der`. -EUCLEAN: what the store has is none. */
static int first_element(struct bytes der, struct bytes *ret) {
        const unsigned char *at = der.data;
        int tag, class;
        long size = 0;

        if ((ASN1_get_object(&at, &size, &tag, &class, (long)der.size) & 0x81) != 0)
                return -EUCLEAN;
        *ret = BYTES(der.data, (size_t)(at - der.data) + (size_t)size);
        return 0;
}

static bool holds(struct bytes certificates, struct bytes certificate) {
        struct bytes element;

        while (certificates.size > 0 && first_element(certificates, &element) == 0) {
                if (bytes_equal(element, certificate))
                        return true;
                certificates = BYTES(certificates.data + element.size, certificates.size - element.size);
        }
        return false;
}

/* Two generations of a sub-CA have their owner's root in common. */
static int append_new(struct buffer *to, size_t from, struct bytes certificates) {
        struct bytes element;

        while (certificates.size > 0) {
                int r = first_element(certificates, &element);

                if (r < 0)
                        return r;
                if (!holds(BYTES(to->data + from, to->size - from), element))
                        buffer_append(to, element);
                certificates = BYTES(certificates.data + element.size, certificates.size - element.size);
        }
        return 0;
}

static int append_part(struct turn *turn, uint32_t generation, enum authority_part part, struct buffer *to,
                       size_t from) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        int r = authority_read(turn->store, generation, part, &der);

        if (r == -ENOENT)
                return part == AUTHORITY_CERTIFICATE ? -EUCLEAN : 0;
        return r < 0 ? r : append_new(to, from, buffer_bytes(&der));
}

int authority_anchors(struct turn *turn, struct buffer *ret, uint32_t *ret_newest) {
        static const enum authority_part parts[] = { AUTHORITY_CERTIFICATE, AUTHORITY_CROSS, AUTHORITY_CHAIN };
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);
        size_t from = ret->size;

        *ret_newest = 0;
        /* All generations before any cross certificate: a device with little room takes what comes first. */
        for (size_t part = 0; part < ELEMENTS(parts); part++)
                for (ssize_t i = 0; i < n; i++) {
                        int r;

                        if (list[i].state == AUTHORITY_REQUESTED)
                                continue;
                        if (list[i].generation > *ret_newest)
                                *ret_newest = list[i].generation;
                        r = append_part(turn, list[i].generation, parts[part], ret, from);
                        if (r < 0)
                                return r;
                }
        return n < 0 ? (int)n : 0;
}

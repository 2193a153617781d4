/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Key material in memory: fixed size, wiped when it goes, never printed. */

#include "gatewayd/bytes.h"

/* The longest pre-shared key taken (coap-client's limit; factory PSKs are 16 to 64 bytes). */
#define SECRET_MAX 64

struct secret {
        uint8_t data[SECRET_MAX];
        size_t size;
};

static inline struct bytes secret_bytes(const struct secret *s) {
        return BYTES(s->data, s->size);
}

/* For _cleanup_(secret_wipe). */
void secret_wipe(struct secret *s);

/* Returns 0 or -EMSGSIZE. */
int secret_set(struct secret *s, struct bytes value);

/* Constant in time for equal sizes. */
bool secret_equal(const struct secret *a, const struct secret *b);

/* A zeroed page of its own that is locked, left out of core dumps and not inherited by fork:
 * for keys that live as long as the process. NULL (errno set) on failure. */
void *secret_page_new(size_t size);
void secret_page_free(void *page, size_t size);

/* SPDX-License-Identifier: Apache-2.0 */

/* Key material in memory. */

#include "gatewayd/secret.h"

#include <errno.h>
#include <sys/mman.h>

#include <openssl/crypto.h>

void secret_wipe(struct secret *s) {
        OPENSSL_cleanse(s, sizeof *s);
}

int secret_set(struct secret *s, struct bytes value) {
        if (value.size > SECRET_MAX)
                return -EMSGSIZE;
        secret_wipe(s);
        if (value.size > 0)
                memcpy(s->data, value.data, value.size);
        s->size = value.size;
        return 0;
}

bool secret_equal(const struct secret *a, const struct secret *b) {
        return a->size == b->size && CRYPTO_memcmp(a->data, b->data, a->size) == 0;
}

void *secret_page_new(size_t size) {
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (page == MAP_FAILED)
                return NULL;
        /* Advice that an older kernel does not know, or a lock over RLIMIT_MEMLOCK, weakens the page
         * but must not stop the gateway: core dumps are also off for the whole process. */
        (void)madvise(page, size, MADV_DONTDUMP);
        (void)madvise(page, size, MADV_WIPEONFORK);
        (void)mlock(page, size);
        return page;
}

void secret_page_free(void *page, size_t size) {
        if (!page)
                return;
        OPENSSL_cleanse(page, size);
        (void)munmap(page, size);
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What tests of keys and evidence share: files, keys, and hex. */

#include "tests/unit/support.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/keys/cose.h"

/* A slice of hex, valid until the eighth call after this one. */
static inline struct bytes hex(const char *text) {
        static uint8_t room[8][4096];
        static unsigned turn;
        uint8_t *to = room[turn++ % 8];
        ssize_t n = hex_decode(bytes_of(text), to, 4096);

        assert_true(n >= 0);
        return BYTES(to, (size_t)n);
}

static inline void file_read(const char *path, struct buffer *to) {
        FILE *file = fopen(path, "re");
        size_t n;

        if (!file)
                fail_msg("%s cannot be opened; tests run in the project's root", path);
        do {
                n = fread(buffer_reserve(to, 4096), 1, 4096, file);
                to->size += n;
        } while (n > 0);
        fclose(file);
}

static inline EVP_PKEY *key_from_file(const char *path) {
        FILE *file = fopen(path, "re");
        EVP_PKEY *key;

        assert_non_null(file);
        key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
        fclose(file);
        assert_non_null(key);
        return key;
}

static inline void key_freep(EVP_PKEY **key) {
        EVP_PKEY_free(*key);
}

static inline size_t key_public_der(EVP_PKEY *key, uint8_t *to, size_t to_size) {
        int size = i2d_PUBKEY(key, NULL);

        assert_true(size > 0 && (size_t)size <= to_size);
        assert_int_equal(i2d_PUBKEY(key, &to), size);
        return (size_t)size;
}

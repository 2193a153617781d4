/* SPDX-License-Identifier: Apache-2.0 */

/* A backup file of any content, and key files: nothing is released that its tag did not vouch for. The first byte
 * chooses how the rest is cut into portions; what comes out must not depend on it. */

#include <assert.h>
#include <errno.h>

#include "gatewayd/backup/age.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* That of the seeds. */
static const char identity_text[] = "AGE-SECRET-KEY-1NYYXSKL0E0QAXZHVFQS6XUL8AJ3MXPQSKF66QHGKN3MF77MGMKHQ706ZGT";

static int decrypt(const uint8_t *identity, struct bytes sealed, size_t portion, struct buffer *to) {
        struct age_decryptor *decryptor = age_decryptor_new(identity);
        struct problem problem = { 0 };
        int r = 0;

        for (size_t at = 0; at < sealed.size && r == 0; at += portion)
                r = age_decryptor_update(
                        decryptor, BYTES(sealed.data + at, sealed.size - at < portion ? sealed.size - at : portion), to,
                        &problem);
        if (r == 0)
                r = age_decryptor_final(decryptor, to, &problem);
        assert(r == 0 || r == -EBADMSG || r == -EKEYREJECTED);
        assert((r < 0) == (problem.detail[0] != 0));
        age_decryptor_free(decryptor);
        return r;
}

static void take_key(struct bytes text) {
        uint8_t key[AGE_KEY_BYTES], again[AGE_KEY_BYTES];
        char written[AGE_IDENTITY_TEXT];

        if (age_identity_parse(text, key) < 0)
                return;
        age_identity_text(key, written);
        assert(age_identity_parse(bytes_of(written), again) == 0);
        assert(memcmp(key, again, sizeof key) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct buffer whole = { 0 }, portions = { 0 };
        uint8_t identity[AGE_KEY_BYTES];

        if (size == 0)
                return 0;
        assert(age_identity_parse(bytes_of(identity_text), identity) == 0);
        assert(decrypt(identity, BYTES(data + 1, size - 1), size, &whole) ==
               decrypt(identity, BYTES(data + 1, size - 1), (size_t)data[0] + 1, &portions));
        assert(bytes_equal(buffer_bytes(&whole), buffer_bytes(&portions)));
        buffer_free(&whole);
        buffer_free(&portions);
        take_key(BYTES(data + 1, size - 1));
        return 0;
}

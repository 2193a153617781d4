/* SPDX-License-Identifier: Apache-2.0 */

/* multipart-core from outside: parts lie within the body, and what is read and written again is read the same. */

#include <assert.h>
#include <errno.h>

#include "gatewayd/keys/multipart.h"

#define PARTS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct multipart_part *parts, size_t count) {
        struct multipart_part again[PARTS];
        struct buffer written = { 0 };

        multipart_write(parts, count, &written);
        assert(multipart_read(buffer_bytes(&written), again, PARTS, NULL) == (ssize_t)count);
        for (size_t i = 0; i < count; i++) {
                assert(again[i].content_format == parts[i].content_format);
                assert(again[i].is_present == parts[i].is_present);
                assert(bytes_equal(again[i].body, parts[i].body));
        }
        buffer_free(&written);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct multipart_part parts[PARTS];
        struct problem problem = { 0 };
        ssize_t count = multipart_read(BYTES(data, size), parts, PARTS, &problem);

        assert(count == -EBADMSG || count == -E2BIG || (count >= 0 && count <= PARTS));
        assert((count < 0) == (problem.code == CODE_BAD_REQUEST));
        if (count < 0)
                return 0;
        for (ssize_t i = 0; i < count; i++)
                assert(parts[i].body.size == 0 ||
                       (parts[i].body.data >= data && parts[i].body.data + parts[i].body.size <= data + size));
        check_again(parts, (size_t)count);
        return 0;
}

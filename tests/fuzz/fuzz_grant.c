/* SPDX-License-Identifier: Apache-2.0 */

/* What a device may put before the grant: the body of POST /cred, and a PSK identity in RFC 9202's form. A
 * body that is taken names a size that keys have; an identity that is taken names a kid without a NUL. */

#include <assert.h>
#include <errno.h>

#include "gatewayd/keys/grant.h"
#include "store/devices.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct bytes input = BYTES(data, size);
        struct problem problem = { 0 };
        char kid[DEVICE_ID_MAX + 1];
        size_t key_size;
        int r;

        r = grant_request_read(input, &key_size, &problem);
        assert(r == 0 || r == -EBADMSG || r == -EINVAL);
        assert((r < 0) == (problem.code == CODE_BAD_REQUEST));
        assert(r < 0 || key_size == 0 || (key_size >= 16 && key_size <= SECRET_MAX));

        memset(kid, 'x', sizeof kid);
        r = grant_identity_kid(input, kid, sizeof kid);
        assert(r == 0 || r == -EBADMSG);
        assert(r < 0 || strnlen(kid, sizeof kid) < sizeof kid);
        return 0;
}

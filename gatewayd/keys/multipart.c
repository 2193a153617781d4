/* SPDX-License-Identifier: Apache-2.0 */

/* multipart-core, both ways. What a part means is not looked at here. */

#include "gatewayd/keys/multipart.h"

#include <errno.h>

#include "gatewayd/cbor.h"

void multipart_write(const struct multipart_part *parts, size_t count, struct buffer *to) {
        cbor_put_array(to, 2 * count);
        for (size_t i = 0; i < count; i++) {
                cbor_put_uint(to, parts[i].content_format);
                if (parts[i].is_present)
                        cbor_put_bytes(to, parts[i].body);
                else
                        cbor_put_null(to);
        }
}

static int bad(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad multipart body",
                           "%s; multipart-core is an array of pairs: a Content-Format, then bytes or null", what);
}

static int read_part(struct bytes format, struct bytes content, struct multipart_part *ret, struct problem *problem) {
        int64_t number;

        if (!cbor_view_int(format, &number) || number < 0 || number > UINT16_MAX)
                return bad(problem, "a part begins with something else than a Content-Format");
        *ret = (struct multipart_part){ .content_format = (uint16_t)number };
        if (cbor_view_is_null(content))
                return 0;
        if (!cbor_view_bytes(content, &ret->body))
                return bad(problem, "a part is no byte string of definite length");
        ret->is_present = true;
        return 0;
}

ssize_t multipart_read(struct bytes body, struct multipart_part *ret, size_t max, struct problem *problem) {
        struct bytes format, content;
        struct cbor_cursor cursor;
        size_t count = 0;
        int r;

        r = cbor_check(body, problem);
        if (r < 0)
                return r;
        if (!cbor_view_is_array(body) || !cbor_view_enter(body, &cursor))
                return bad(problem, "the body is no array");
        while (cbor_view_next(&cursor, &format)) {
                struct multipart_part part;

                if (!cbor_view_next(&cursor, &content))
                        return bad(problem, "the last part has no content");
                r = read_part(format, content, &part, problem);
                if (r < 0)
                        return r;
                if (count == max)
                        return problem_set(problem, CODE_BAD_REQUEST, E2BIG, "bad multipart body",
                                           "there are more than %zu parts", max);
                ret[count++] = part;
        }
        return (ssize_t)count;
}

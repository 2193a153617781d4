/* SPDX-License-Identifier: Apache-2.0 */

/* Problems: how a reason is set, and how a device gets it (RFC 9290). */

#include "gatewayd/problem.h"

#include <stdarg.h>

#include "gatewayd/cbor.h"

/* Reasons often quote what somebody sent: nothing in them may play tricks on a terminal. */
static void make_printable(char *text) {
        for (; *text; text++)
                if ((unsigned char)*text < ' ' || *text == 0x7f)
                        *text = '?';
}

int problem_set(struct problem *p, uint8_t code, int error, const char *title, const char *format, ...) {
        va_list arguments;

        if (error > 0)
                error = -error;
        if (!p)
                return error;

        *p = (struct problem){ .code = code };
        snprintf(p->title, sizeof p->title, "%s", title);
        va_start(arguments, format);
        vsnprintf(p->detail, sizeof p->detail, format, arguments);
        va_end(arguments);
        make_printable(p->title);
        make_printable(p->detail);
        return error;
}

/* A CBOR text must be valid UTF-8, and ours may have been cut inside a character or quote anything. */
static void put_ascii(struct buffer *to, const char *text) {
        size_t size = strlen(text);

        cbor_put_text(to, BYTES(text, size));
        for (uint8_t *at = to->data + to->size - size; size > 0; at++, size--)
                if (*at > 0x7e)
                        *at = '?';
}

/* RFC 9290 §2: -1 title, -2 detail, -4 response-code. */
void problem_to_cbor(const struct problem *p, struct buffer *to) {
        bool has_title = p->title[0] != 0, has_detail = p->detail[0] != 0;

        cbor_put_map(to, (size_t)has_title + has_detail + 1);
        if (has_title) {
                cbor_put_int(to, -1);
                put_ascii(to, p->title);
        }
        if (has_detail) {
                cbor_put_int(to, -2);
                put_ascii(to, p->detail);
        }
        cbor_put_int(to, -4);
        cbor_put_uint(to, p->code != CODE_EMPTY ? p->code : CODE_INTERNAL);
}

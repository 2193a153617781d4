/* SPDX-License-Identifier: Apache-2.0 */

/* Writing D-Bus dictionaries. */

#include "gatewayd/operator/answer.h"

static void keep(struct answer *answer, int r) {
        if (r < 0 && answer->error == 0)
                answer->error = r;
}

void answer_open(struct answer *answer, char type, const char *contents) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_open_container(answer->message, type, contents));
}

void answer_close(struct answer *answer) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_close_container(answer->message));
}

void answer_dict_open(struct answer *answer) {
        answer_open(answer, SD_BUS_TYPE_ARRAY, "{sv}");
}

void answer_dict_close(struct answer *answer) {
        answer_close(answer);
}

void answer_section_open(struct answer *answer, const char *name) {
        answer_open(answer, SD_BUS_TYPE_DICT_ENTRY, "sa{sv}");
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "s", name));
        answer_dict_open(answer);
}

void answer_section_close(struct answer *answer) {
        answer_dict_close(answer);
        answer_close(answer);
}

/* The length of the well-formed UTF-8 sequence at `p` (RFC 3629), or 0. */
static size_t utf8_sequence(const uint8_t *p) {
        size_t size = p[0] < 0x80                   ? 1
                      : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                      : (p[0] & 0xf0) == 0xe0       ? 3
                      : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                                    : 0;

        for (size_t i = 1; i < size; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
            (p[0] == 0xf4 && p[1] > 0x8f))
                return 0;
        return size;
}

void answer_text(struct answer *answer, const char *key, const char *value) {
        _cleanup_(freep) char *clean = xstrdup(value);

        for (uint8_t *p = (uint8_t *)clean; *p;) {
                size_t size = utf8_sequence(p);

                if (size == 0)
                        *p = '?';
                p += size > 0 ? size : 1;
        }
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "{sv}", key, "s", clean));
}

void answer_number(struct answer *answer, const char *key, uint64_t value) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "{sv}", key, "t", value));
}

void answer_signed(struct answer *answer, const char *key, int64_t value) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "{sv}", key, "x", value));
}

void answer_real(struct answer *answer, const char *key, double value) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "{sv}", key, "d", value));
}

void answer_bool(struct answer *answer, const char *key, bool value) {
        if (answer->error == 0)
                keep(answer, sd_bus_message_append(answer->message, "{sv}", key, "b", (int)value));
}

void answer_moment(struct answer *answer, const char *key, const struct moment *moment) {
        answer_signed(answer, key, moment_is_set(moment) ? moment->wall : 0);
}

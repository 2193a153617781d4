/* SPDX-License-Identifier: Apache-2.0 */

/* JSON (RFC 8259), as much of it as an import file is: one array of objects whose members are strings (or
 * null for an absent one). Anything else is named, not skipped. */

#include <errno.h>

#include "gatewayd/devices/import.h"

struct json {
        struct bytes text;
        size_t at;
        struct buffer strings; /* of the element being read, never moved while it is */
        const char *wrong;     /* what stopped the reader, for a person */
};

static int stop(struct json *json, const char *wrong) {
        json->wrong = wrong;
        return -EBADMSG;
}

static bool is_blank(uint8_t c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_blanks(struct json *json) {
        while (json->at < json->text.size && is_blank(json->text.data[json->at]))
                json->at++;
}

/* The next character that is no blank, or -1; not moved past. */
static int peek(struct json *json) {
        skip_blanks(json);
        return json->at < json->text.size ? json->text.data[json->at] : -1;
}

static int expect(struct json *json, int c, const char *wrong) {
        if (peek(json) != c)
                return stop(json, wrong);
        json->at++;
        return 0;
}

static int read_hex4(struct json *json, uint32_t *ret) {
        uint8_t two[2];

        if (json->text.size - json->at < 4 || hex_decode(BYTES(json->text.data + json->at, 4), two, 2) != 2)
                return stop(json, "\\u needs four hex digits");
        json->at += 4;
        *ret = (uint32_t)two[0] << 8 | two[1];
        return 0;
}

static void append_utf8(struct buffer *to, uint32_t c) {
        uint8_t out[4];
        size_t size;

        if (c < 0x80) {
                out[0] = (uint8_t)c;
                size = 1;
        } else if (c < 0x800) {
                out[0] = (uint8_t)(0xc0 | c >> 6);
                out[1] = (uint8_t)(0x80 | (c & 0x3f));
                size = 2;
        } else if (c < 0x10000) {
                out[0] = (uint8_t)(0xe0 | c >> 12);
                out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
                out[2] = (uint8_t)(0x80 | (c & 0x3f));
                size = 3;
        } else {
                out[0] = (uint8_t)(0xf0 | c >> 18);
                out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
                out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
                out[3] = (uint8_t)(0x80 | (c & 0x3f));
                size = 4;
        }
        buffer_append(to, BYTES(out, size));
}

static int read_unicode(struct json *json) {
        uint32_t c, low;

        if (read_hex4(json, &c) < 0)
                return -EBADMSG;
        if (c >= 0xd800 && c < 0xdc00) {
                if (json->text.size - json->at < 2 || memcmp(json->text.data + json->at, "\\u", 2) != 0)
                        return stop(json, "half of a surrogate pair");
                json->at += 2;
                if (read_hex4(json, &low) < 0)
                        return -EBADMSG;
                if (low < 0xdc00 || low > 0xdfff)
                        return stop(json, "half of a surrogate pair");
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        } else if (c >= 0xdc00 && c <= 0xdfff)
                return stop(json, "half of a surrogate pair");
        append_utf8(&json->strings, c);
        return 0;
}

static int read_escape(struct json *json) {
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        const char *found;
        uint8_t c;

        if (json->at >= json->text.size)
                return stop(json, "a string does not end");
        c = json->text.data[json->at++];
        if (c == 'u')
                return read_unicode(json);
        found = c ? strchr(from, c) : NULL;
        if (!found)
                return stop(json, "unknown escape in a string");
        buffer_append(&json->strings, BYTES(&to[found - from], 1));
        return 0;
}

static int read_string(struct json *json, struct bytes *ret) {
        size_t start = json->strings.size;

        if (expect(json, '"', "a string is expected") < 0)
                return -EBADMSG;
        while (json->at < json->text.size) {
                uint8_t c = json->text.data[json->at++];

                if (c == '"') {
                        *ret = BYTES(json->strings.data + start, json->strings.size - start);
                        return 0;
                }
                if (c < 0x20)
                        return stop(json, "a control character in a string");
                if (c == '\\') {
                        if (read_escape(json) < 0)
                                return -EBADMSG;
                } else
                        buffer_append(&json->strings, BYTES(&c, 1));
        }
        return stop(json, "a string does not end");
}

/* A member's value: a string, or null as if the member were not there. */
static int read_value(struct json *json, struct bytes *ret) {
        if (peek(json) == 'n' && json->text.size - json->at >= 4 &&
            memcmp(json->text.data + json->at, "null", 4) == 0) {
                json->at += 4;
                *ret = (struct bytes){ 0 };
                return 0;
        }
        if (peek(json) != '"')
                return stop(json, "a member's value is a string");
        return read_string(json, ret);
}

static int read_object(struct json *json, struct import_reader *reader, struct bytes fields[IMPORT_FIELDS]) {
        bool is_seen[IMPORT_FIELDS] = { false };

        if (expect(json, '{', "each element is an object {\"id\": …, \"profile\": …, \"psk\": …}") < 0)
                return -EBADMSG;
        if (peek(json) == '}') {
                json->at++;
                return 0;
        }
        for (;;) {
                struct bytes name, value;
                int field;

                if (read_string(json, &name) < 0 || expect(json, ':', "a colon is expected after a name") < 0 ||
                    read_value(json, &value) < 0)
                        return -EBADMSG;
                field = import_field_find(name);
                if (field < 0 || is_seen[field])
                        import_problem(reader, "a member is %s; there are id, profile, psk, attestation_key and idevid",
                                       field < 0 ? "unknown" : "there twice");
                else {
                        is_seen[field] = true;
                        fields[field] = value;
                }
                if (peek(json) == '}') {
                        json->at++;
                        return 0;
                }
                if (expect(json, ',', "a comma or } is expected after a member") < 0)
                        return -EBADMSG;
        }
}

static int read_array(struct json *json, struct import_reader *reader) {
        reader->place = 1;
        if (expect(json, '[', "the file is one JSON array of objects") < 0)
                return -EBADMSG;
        if (peek(json) == ']') {
                json->at++;
                return 0;
        }
        for (;; reader->place++) {
                struct bytes fields[IMPORT_FIELDS] = { 0 };

                json->strings.size = 0;
                (void)buffer_reserve(&json->strings, json->text.size - json->at + 1);
                if (read_object(json, reader, fields) < 0)
                        return -EBADMSG;
                import_row(reader, fields);
                if (peek(json) == ']') {
                        json->at++;
                        return 0;
                }
                if (expect(json, ',', "a comma or ] is expected after an element") < 0)
                        return -EBADMSG;
        }
}

void import_read_json(struct import_reader *reader, struct bytes text) {
        struct json json = { .text = text };

        if (read_array(&json, reader) >= 0 && peek(&json) >= 0)
                (void)stop(&json, "text after the end of the array");
        if (json.wrong) {
                size_t line = 1;

                for (size_t i = 0; i < json.at && i < text.size; i++)
                        line += text.data[i] == '\n';
                import_problem(reader, "%s (line %zu)", json.wrong, line);
        }
        buffer_free(&json.strings);
}

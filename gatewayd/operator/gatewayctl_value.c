/* SPDX-License-Identifier: Apache-2.0 */

/* Values: from D-Bus into memory, and out as JSON. */

#include "gatewayd/operator/gatewayctl_value.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* ---- reading ---- */

static struct value *add_item(struct value *to, const char *key) {
        struct value *items = reallocarray(to->items, to->count + 1, sizeof *items);

        if (!items)
                oom();
        to->items = items;
        if (key) {
                char **keys = reallocarray(to->keys, to->count + 1, sizeof *keys);

                if (!keys)
                        oom();
                to->keys = keys;
                keys[to->count] = xstrdup(key);
        }
        items[to->count] = (struct value){ 0 };
        return &items[to->count++];
}

static int read_list(sd_bus_message *message, const char *contents, struct value *ret) {
        int r;

        ret->kind = VALUE_LIST;
        r = sd_bus_message_enter_container(message, SD_BUS_TYPE_ARRAY, contents);
        while (r >= 0) {
                struct value item = { 0 };

                r = value_read(message, &item);
                if (r <= 0)
                        break;
                *add_item(ret, NULL) = item;
        }
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static int read_map(sd_bus_message *message, const char *contents, struct value *ret) {
        char entry[64];
        int r;

        ret->kind = VALUE_MAP;
        /* "{sv}": without its braces, for the entry. */
        if (strlen(contents) < 3 || strlen(contents) >= sizeof entry)
                return -EBADMSG;
        memcpy(entry, contents + 1, strlen(contents) - 2);
        entry[strlen(contents) - 2] = 0;
        r = sd_bus_message_enter_container(message, SD_BUS_TYPE_ARRAY, contents);
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(message, SD_BUS_TYPE_DICT_ENTRY, entry)) > 0) {
                struct value item = { 0 };
                const char *key;

                r = sd_bus_message_read(message, "s", &key);
                if (r < 0)
                        return r;
                r = value_read(message, &item);
                if (r < 0)
                        return r;
                *add_item(ret, key) = item;
                r = sd_bus_message_exit_container(message);
                if (r < 0)
                        return r;
        }
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static int read_basic(sd_bus_message *message, char type, struct value *ret) {
        union {
                int boolean;
                uint8_t y;
                uint16_t q;
                uint32_t u;
                int32_t i;
                uint64_t t;
                int64_t x;
                double d;
                const char *s;
        } basic;
        int r = sd_bus_message_read_basic(message, type, &basic);

        if (r < 0)
                return r;
        switch (type) {
        case 'b':
                *ret = (struct value){ .kind = VALUE_BOOL, .boolean = basic.boolean };
                return 1;
        case 'y':
        case 'q':
        case 'u':
        case 't':
                *ret = (struct value){ .kind = VALUE_NUMBER,
                                       .number = type == 'y'   ? basic.y
                                                 : type == 'q' ? basic.q
                                                 : type == 'u' ? basic.u
                                                               : basic.t };
                return 1;
        case 'i':
        case 'x':
                *ret = (struct value){ .kind = VALUE_SIGNED, .integer = type == 'i' ? basic.i : basic.x };
                return 1;
        case 'd':
                *ret = (struct value){ .kind = VALUE_REAL, .real = basic.d };
                return 1;
        case 's':
        case 'o':
        case 'g':
                *ret = (struct value){ .kind = VALUE_TEXT, .text = xstrdup(basic.s) };
                return 1;
        }
        return -EBADMSG;
}

static int read_bytes(sd_bus_message *message, struct value *ret) {
        const void *data;
        size_t size;
        int r = sd_bus_message_read_array(message, 'y', &data, &size);

        if (r < 0)
                return r;
        *ret = (struct value){ .kind = VALUE_BYTES, .text = xcalloc(1, size + 1), .size = size };
        if (size > 0)
                memcpy(ret->text, data, size);
        return 0;
}

int value_read(sd_bus_message *message, struct value *ret) {
        const char *contents;
        char type;
        int r;

        *ret = (struct value){ 0 };
        r = sd_bus_message_peek_type(message, &type, &contents);
        if (r <= 0)
                return r;
        if (type == SD_BUS_TYPE_VARIANT) {
                r = sd_bus_message_enter_container(message, SD_BUS_TYPE_VARIANT, contents);
                if (r >= 0)
                        r = value_read(message, ret);
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        } else if (type == SD_BUS_TYPE_ARRAY && strcmp(contents, "y") == 0)
                r = read_bytes(message, ret);
        else if (type == SD_BUS_TYPE_ARRAY)
                r = contents[0] == '{' ? read_map(message, contents, ret) : read_list(message, contents, ret);
        else
                r = read_basic(message, type, ret);
        if (r < 0)
                value_free(ret);
        return r < 0 ? r : 1;
}

void value_free(struct value *value) {
        for (size_t i = 0; i < value->count; i++) {
                value_free(&value->items[i]);
                if (value->keys)
                        free(value->keys[i]);
        }
        free(value->items);
        free(value->keys);
        free(value->text);
        *value = (struct value){ 0 };
}

/* ---- looking up ---- */

const struct value *value_member(const struct value *map, const char *key) {
        if (!map || map->kind != VALUE_MAP)
                return NULL;
        for (size_t i = 0; i < map->count; i++)
                if (strcmp(map->keys[i], key) == 0)
                        return &map->items[i];
        return NULL;
}

const char *value_text(const struct value *map, const char *key) {
        const struct value *member = value_member(map, key);

        return member && member->kind == VALUE_TEXT ? member->text : "";
}

uint64_t value_number(const struct value *map, const char *key) {
        const struct value *member = value_member(map, key);

        if (member && member->kind == VALUE_NUMBER)
                return member->number;
        return member && member->kind == VALUE_SIGNED && member->integer > 0 ? (uint64_t)member->integer : 0;
}

int64_t value_signed(const struct value *map, const char *key, int64_t absent) {
        const struct value *member = value_member(map, key);

        if (member && member->kind == VALUE_SIGNED)
                return member->integer;
        return member && member->kind == VALUE_NUMBER && member->number <= INT64_MAX ? (int64_t)member->number : absent;
}

bool value_bool(const struct value *map, const char *key) {
        const struct value *member = value_member(map, key);

        return member && member->kind == VALUE_BOOL && member->boolean;
}

/* ---- JSON ---- */

static void print_json_text(const char *text, FILE *to) {
        fputc('"', to);
        for (const char *p = text; *p; p++) {
                if (*p == '"' || *p == '\\')
                        fprintf(to, "\\%c", *p);
                else if (*p == '\n')
                        fputs("\\n", to);
                else if ((uint8_t)*p < 0x20 || *p == 0x7f)
                        fprintf(to, "\\u%04x", (unsigned)(uint8_t)*p);
                else
                        fputc(*p, to);
        }
        fputc('"', to);
}

static void print_json_bytes(const struct value *value, FILE *to) {
        size_t room = value->size / 3 * 4 + 8;
        _cleanup_(freep) char *text = xcalloc(1, room);

        (void)base64_encode(BYTES(value->text, value->size), false, text, room); /* there is room */
        fprintf(to, "\"%s\"", text);
}

static void print_json(const struct value *value, unsigned depth, FILE *to);

static void print_json_items(const struct value *value, char open, char close, unsigned depth, FILE *to) {
        fputc(open, to);
        for (size_t i = 0; i < value->count; i++) {
                fprintf(to, "%s\n%*s", i > 0 ? "," : "", (int)(2 * (depth + 1)), "");
                if (value->kind == VALUE_MAP) {
                        print_json_text(value->keys[i], to);
                        fputs(": ", to);
                }
                print_json(&value->items[i], depth + 1, to);
        }
        if (value->count > 0)
                fprintf(to, "\n%*s", (int)(2 * depth), "");
        fputc(close, to);
}

static void print_json(const struct value *value, unsigned depth, FILE *to) {
        switch (value->kind) {
        case VALUE_BOOL:
                fputs(value->boolean ? "true" : "false", to);
                break;
        case VALUE_NUMBER:
                fprintf(to, "%" PRIu64, value->number);
                break;
        case VALUE_SIGNED:
                fprintf(to, "%" PRId64, value->integer);
                break;
        case VALUE_REAL:
                /* JSON knows no infinity. */
                if (isfinite(value->real))
                        fprintf(to, "%.12g", value->real);
                else
                        fputs("null", to);
                break;
        case VALUE_TEXT:
                print_json_text(value->text, to);
                break;
        case VALUE_BYTES:
                print_json_bytes(value, to);
                break;
        case VALUE_LIST:
                print_json_items(value, '[', ']', depth, to);
                break;
        case VALUE_MAP:
                print_json_items(value, '{', '}', depth, to);
                break;
        }
}

void value_print_json(const struct value *value, FILE *to) {
        print_json(value, 0, to);
        fputc('\n', to);
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a method returned, as a tree: read from D-Bus once, then shown as a table or as JSON. */

#include <systemd/sd-bus.h>

#include "gatewayd/bytes.h"

enum value_kind { VALUE_BOOL, VALUE_NUMBER, VALUE_SIGNED, VALUE_REAL, VALUE_TEXT, VALUE_LIST, VALUE_MAP, VALUE_BYTES };

struct value {
        enum value_kind kind;
        union {
                bool boolean;
                uint64_t number;
                int64_t integer;
                double real;
        };
        char *text;
        size_t size;         /* of VALUE_BYTES, which `text` holds */
        struct value *items; /* of a list or a map */
        char **keys;         /* of a map, beside its items */
        size_t count;
};

/* Reads one complete value: b y q u t i x d s o g, arrays, dictionaries with text keys, variants; an
 * array of bytes is one value. Returns
 * 1, 0 at the end of the message, or -errno. */
int value_read(sd_bus_message *message, struct value *ret);
void value_free(struct value *value);

/* A member of a map; NULL where it is absent (or `map` is NULL or no map). */
const struct value *value_member(const struct value *map, const char *key);
/* Members with a plain answer where they are absent. Borrowed. */
const char *value_text(const struct value *map, const char *key); /* "" */
uint64_t value_number(const struct value *map, const char *key);  /* 0; also from VALUE_SIGNED above 0 */
int64_t value_signed(const struct value *map, const char *key, int64_t absent);
bool value_bool(const struct value *map, const char *key); /* false */

/* One value as JSON (RFC 8259), indented; lists and maps over several lines. */
void value_print_json(const struct value *value, FILE *to);

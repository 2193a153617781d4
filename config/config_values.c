/* SPDX-License-Identifier: Apache-2.0 */

/* Plain values: a text, a number, a time span, a choice, each judged by its key's table entry. */

#include "config/tree.h"

#include <errno.h>
#include <math.h>

struct place place_of(const struct reading *reading, const config_setting_t *setting) {
        return (struct place){ .file = reading->file, .line = (unsigned)config_setting_source_line(setting) };
}

static void wrong_value(const struct reading *reading, const config_setting_t *setting, const struct key *key) {
        char allowed[256], given[SHOWN_MAX + 16] = "", text_shown[SHOWN_MAX];

        key_allowed_text(key, allowed, sizeof allowed);
        switch (config_setting_type(setting)) {
        case CONFIG_TYPE_STRING:
                snprintf(given, sizeof given, "%s", shown(config_setting_get_string(setting), text_shown));
                break;
        case CONFIG_TYPE_INT:
        case CONFIG_TYPE_INT64:
                snprintf(given, sizeof given, "%lld", config_setting_get_int64(setting));
                break;
        case CONFIG_TYPE_FLOAT:
                snprintf(given, sizeof given, "%g", config_setting_get_float(setting));
                break;
        case CONFIG_TYPE_BOOL:
                snprintf(given, sizeof given, "%s", config_setting_get_bool(setting) ? "true" : "false");
                break;
        default:
                snprintf(given, sizeof given, "a group or list");
        }
        loader_problem(reading->loader, place_of(reading, setting), "%s is %s; allowed is %s", key->name, given,
                       allowed);
}

static bool is_number(const config_setting_t *setting) {
        int type = config_setting_type(setting);

        return type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
}

static bool is_printable(const char *text) {
        for (; *text != '\0'; text++)
                if ((unsigned char)*text < 0x20 || *text == 0x7f)
                        return false;
        return true;
}

/* "16K", "1GiB", "512". Returns 0, -EINVAL, -ERANGE. */
static int size_parse(const char *text, int64_t *ret) {
        static const char letters[] = "KMGT";
        const char *p = text, *letter;
        int64_t value = 0;

        if (*p < '0' || *p > '9')
                return -EINVAL;
        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *p - '0', &value))
                        return -ERANGE;
        if (*p != '\0' && (letter = strchr(letters, *p)) != NULL) {
                for (const char *l = letters; l <= letter; l++)
                        if (__builtin_mul_overflow(value, 1024, &value))
                                return -ERANGE;
                p++;
                if (strcmp(p, "iB") == 0)
                        p += 2;
        }
        if (strcmp(p, "B") == 0)
                p++;
        if (*p != '\0')
                return -EINVAL;
        *ret = value;
        return 0;
}

static void store_integer(void *to, size_t size, int64_t value) {
        if (size == sizeof(int64_t))
                memcpy(to, &value, sizeof value);
        else if (size == sizeof(uint32_t))
                *(uint32_t *)to = (uint32_t)value;
        else
                *(uint16_t *)to = (uint16_t)value;
}

bool read_integer(const config_setting_t *setting, const struct key *key, void *to) {
        bool is_text = config_setting_type(setting) == CONFIG_TYPE_STRING;
        int64_t value;
        int r;

        if (is_number(setting)) {
                value = config_setting_get_int64(setting);
        } else if (is_text && key->kind != KEY_COUNT) {
                const char *text = config_setting_get_string(setting);

                r = key->kind == KEY_SPAN ? timespan_parse(text, &value) : size_parse(text, &value);
                if (r < 0)
                        return false;
        } else {
                return false;
        }
        if (!key_allows(key, value))
                return false;
        store_integer(to, key->size, value);
        return true;
}

static bool read_share(const config_setting_t *setting, const struct key *key, double *to) {
        double value;

        if (config_setting_type(setting) == CONFIG_TYPE_FLOAT)
                value = config_setting_get_float(setting);
        else if (is_number(setting))
                value = (double)config_setting_get_int64(setting);
        else
                return false;
        if (!isfinite(value) || value < (double)key->least / 100 || value > (double)key->most / 100)
                return false;
        *to = value;
        return true;
}

bool read_text(const config_setting_t *setting, size_t size, char *to) {
        const char *text = config_setting_get_string(setting);

        if (!text || strlen(text) >= size || !is_printable(text))
                return false;
        memset(to, 0, size);
        memcpy(to, text, strlen(text));
        return true;
}

static bool read_choice(const struct reading *reading, const config_setting_t *setting, const struct key *key,
                        void *to) {
        const char *text = config_setting_get_string(setting);

        if (!text)
                return false;
        for (unsigned i = 0; key->choices[i]; i++)
                if (strcmp(key->choices[i], text) == 0) {
                        store_integer(to, key->size, i);
                        return true;
                }
        loader_unknown(reading->loader, place_of(reading, setting), key->name, text, key->choices);
        return true; /* reported, with a better guess than wrong_value() has */
}

void read_value(const struct reading *reading, const config_setting_t *setting, const struct key *key, void *base) {
        void *to = (uint8_t *)base + key->offset;
        bool ok = false;

        switch (key->kind) {
        case KEY_TEXT:
                ok = read_text(setting, key->size, to);
                break;
        case KEY_SPAN:
        case KEY_SIZE:
        case KEY_COUNT:
                ok = read_integer(setting, key, to);
                break;
        case KEY_SHARE:
                ok = read_share(setting, key, to);
                break;
        case KEY_CHOICE:
                ok = read_choice(reading, setting, key, to);
                break;
        case KEY_FLAG:
                ok = config_setting_type(setting) == CONFIG_TYPE_BOOL;
                if (ok)
                        *(bool *)to = config_setting_get_bool(setting);
                break;
        case KEY_GROUP:
                return;
        }
        if (!ok)
                wrong_value(reading, setting, key);
}

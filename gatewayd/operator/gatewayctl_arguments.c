/* SPDX-License-Identifier: Apache-2.0 */

/* Arguments of gatewayctl's commands: options among operands, spans and times. */

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "config/config.h"
#include "gatewayd/operator/gatewayctl_client.h"

static const struct command_option *find_option(const char *argument, const struct command_option *options,
                                                size_t count, const char **ret_value) {
        for (size_t i = 0; i < count; i++) {
                size_t size = strlen(options[i].name);

                if (strncmp(argument, options[i].name, size) != 0)
                        continue;
                if (argument[size] == 0 || argument[size] == '=') {
                        *ret_value = argument[size] ? argument + size + 1 : NULL;
                        return &options[i];
                }
        }
        return NULL;
}

int take_arguments(int count, char **arguments, const struct command_option *options, size_t option_count,
                   const char **operands, size_t least, size_t most, const char *operand_names) {
        bool is_end = false;
        size_t taken = 0;

        for (int i = 0; i < count; i++) {
                const struct command_option *option = NULL;
                const char *value = NULL;

                if (!is_end && strcmp(arguments[i], "--") == 0) {
                        is_end = true;
                        continue;
                }
                if (!is_end && arguments[i][0] == '-' && arguments[i][1]) {
                        option = find_option(arguments[i], options, option_count, &value);
                        if (!option)
                                return usage_error("%s is no option of this command", arguments[i]);
                }
                if (!option) {
                        if (taken == most)
                                return usage_error("%s is one argument too many", arguments[i]);
                        operands[taken++] = arguments[i];
                } else if (option->flag) {
                        if (value)
                                return usage_error("%s takes no value", option->name);
                        *option->flag = true;
                } else {
                        if (!value && i + 1 == count)
                                return usage_error("%s needs a value", option->name);
                        *option->value = value ? value : arguments[++i];
                }
        }
        if (taken < least)
                return usage_error("%s is missing", operand_names);
        return 0;
}

int read_span(const char *text, int64_t *ret_sec) {
        if (timespan_parse(text, ret_sec) < 0 || *ret_sec <= 0)
                return usage_error("%s is no time span; 90, 1h, 2d 3h are", text);
        return 0;
}

/* "3d ago" and "3d". */
static bool read_ago(const char *text, unix_sec now, unix_sec *ret) {
        size_t size = strlen(text);
        char span[64];
        int64_t seconds;

        if (size < 5 || size - 4 >= sizeof span || strcmp(text + size - 4, " ago") != 0)
                return false;
        memcpy(span, text, size - 4);
        span[size - 4] = 0;
        if (timespan_parse(span, &seconds) < 0)
                return false;
        *ret = now - seconds;
        return true;
}

int read_time(const char *text, unix_sec now, unix_sec *ret) {
        static const char *const shapes[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M",
                                              "%Y-%m-%d %H:%M", "%Y-%m-%d" };
        char *end;

        if (text[0] == '@') {
                errno = 0;
                *ret = strtoll(text + 1, &end, 10);
                if (errno == 0 && end != text + 1 && *end == 0 && *ret > 0)
                        return 0;
        }
        if (read_ago(text, now, ret) && *ret > 0)
                return 0;
        for (size_t i = 0; i < ELEMENTS(shapes); i++) {
                struct tm parts = { .tm_isdst = -1 };
                const char *rest = strptime(text, shapes[i], &parts);

                if (!rest || (rest[0] && strcmp(rest, "Z") != 0))
                        continue;
                *ret = rest[0] ? timegm(&parts) : mktime(&parts);
                if (*ret > 0)
                        return 0;
        }
        return usage_error("%s is no time; 2026-01-31 12:00, 2026-01-31T12:00:00Z, \"3d ago\", @1767225600 are", text);
}

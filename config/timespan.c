/* SPDX-License-Identifier: Apache-2.0 */

/* Time spans as systemd writes them: "30d", "12h 30min", "90". Whole seconds only, because every
 * schedule of gatewayd counts seconds; a span that is not a whole number of them is refused rather
 * than rounded. */

#include "config/config.h"

#include <errno.h>
#include <inttypes.h>

#define USEC_PER_SEC INT64_C(1000000)
#define MONTH_SEC    INT64_C(2629800)  /* 30.4375 days, as systemd.time(7) counts */
#define YEAR_SEC     INT64_C(31557600) /* 365.25 days, likewise */

struct unit {
        const char *name;
        int64_t usec;
};

/* Letter case matters only between "m" and "M", as for systemd. */
static const struct unit units[] = {
        { "seconds", USEC_PER_SEC },
        { "second", USEC_PER_SEC },
        { "sec", USEC_PER_SEC },
        { "s", USEC_PER_SEC },
        { "minutes", 60 * USEC_PER_SEC },
        { "minute", 60 * USEC_PER_SEC },
        { "min", 60 * USEC_PER_SEC },
        { "m", 60 * USEC_PER_SEC },
        { "hours", 3600 * USEC_PER_SEC },
        { "hour", 3600 * USEC_PER_SEC },
        { "hr", 3600 * USEC_PER_SEC },
        { "h", 3600 * USEC_PER_SEC },
        { "days", 86400 * USEC_PER_SEC },
        { "day", 86400 * USEC_PER_SEC },
        { "d", 86400 * USEC_PER_SEC },
        { "weeks", 7 * 86400 * USEC_PER_SEC },
        { "week", 7 * 86400 * USEC_PER_SEC },
        { "w", 7 * 86400 * USEC_PER_SEC },
        { "months", MONTH_SEC *USEC_PER_SEC },
        { "month", MONTH_SEC *USEC_PER_SEC },
        { "M", MONTH_SEC *USEC_PER_SEC },
        { "years", YEAR_SEC *USEC_PER_SEC },
        { "year", YEAR_SEC *USEC_PER_SEC },
        { "y", YEAR_SEC *USEC_PER_SEC },
        { "msec", 1000 },
        { "ms", 1000 },
        { "usec", 1 },
        { "us", 1 },
};

static bool is_blank(char c) {
        return c == ' ' || c == '\t';
}

static bool is_digit(char c) {
        return c >= '0' && c <= '9';
}

static const char *skip_blanks(const char *text) {
        while (is_blank(*text))
                text++;
        return text;
}

/* Reads the unit at *text and moves past it; none means seconds. 0 when there is no such unit. */
static int64_t unit_take(const char **text) {
        const char *start = skip_blanks(*text), *end = start;

        while ((*end >= 'a' && *end <= 'z') || (*end >= 'A' && *end <= 'Z'))
                end++;
        if (end == start)
                return USEC_PER_SEC;
        for (size_t i = 0; i < ELEMENTS(units); i++)
                if (strlen(units[i].name) == (size_t)(end - start) &&
                    memcmp(units[i].name, start, (size_t)(end - start)) == 0) {
                        *text = end;
                        return units[i].usec;
                }
        return 0;
}

/* Reads "12" or "1.5" at *text: the digits before the point, and those after it as a fraction
 * `part` / `whole`. Returns 0, -EINVAL, -ERANGE. */
static int number_take(const char **text, int64_t *before, int64_t *part, int64_t *whole) {
        const char *p = *text;

        *before = *part = 0;
        *whole = 1;
        if (!is_digit(*p))
                return -EINVAL;
        for (; is_digit(*p); p++)
                if (__builtin_mul_overflow(*before, 10, before) || __builtin_add_overflow(*before, *p - '0', before))
                        return -ERANGE;
        if (*p == '.') {
                if (!is_digit(*++p))
                        return -EINVAL;
                for (; is_digit(*p); p++) {
                        if (*whole >= 1000000) /* finer than any unit here needs */
                                return -EINVAL;
                        *part = *part * 10 + (*p - '0');
                        *whole *= 10;
                }
        }
        *text = p;
        return 0;
}

int timespan_parse(const char *text, int64_t *ret_sec) {
        __int128 total_usec = 0;
        const __int128 most_usec = (__int128)INT64_MAX * USEC_PER_SEC;
        const char *p = skip_blanks(text);

        if (*p == '\0')
                return -EINVAL;
        while (*p != '\0') {
                int64_t before, part, whole, unit_usec;
                __int128 fraction_usec;
                int r;

                r = number_take(&p, &before, &part, &whole);
                if (r < 0)
                        return r;
                unit_usec = unit_take(&p);
                if (unit_usec == 0)
                        return -EINVAL;
                fraction_usec = (__int128)part * unit_usec;
                if (fraction_usec % whole != 0)
                        return -EINVAL;
                total_usec += (__int128)before * unit_usec + fraction_usec / whole;
                if (total_usec > most_usec)
                        return -ERANGE;
                p = skip_blanks(p);
        }
        if (total_usec % USEC_PER_SEC != 0)
                return -EINVAL;
        *ret_sec = (int64_t)(total_usec / USEC_PER_SEC);
        return 0;
}

void timespan_format(int64_t seconds, char *to) {
        static const struct {
                const char *name;
                uint64_t seconds;
        } parts[] = { { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } };
        uint64_t left = seconds < 0 ? 0 - (uint64_t)seconds : (uint64_t)seconds;
        const char *sign = seconds < 0 ? "-" : "";
        size_t used = 0;

        /* Years and months only where they are exact: "1y 18h" would tell nobody that it is 366
         * days. */
        if (left > 0 && left % YEAR_SEC == 0) {
                snprintf(to, 64, "%s%" PRIu64 "y", sign, left / YEAR_SEC);
                return;
        }
        if (left > 0 && left % MONTH_SEC == 0) {
                snprintf(to, 64, "%s%" PRIu64 "month", sign, left / MONTH_SEC);
                return;
        }
        snprintf(to, 64, "%s0s", sign);
        for (size_t i = 0; i < ELEMENTS(parts); i++) {
                uint64_t count = left / parts[i].seconds;

                if (count == 0)
                        continue;
                left %= parts[i].seconds;
                used += (size_t)snprintf(to + used, 64 - used, "%s%" PRIu64 "%s", used == 0 ? sign : " ", count,
                                         parts[i].name);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Calendar expressions: read into lists of ranges, one for each field, and searched field by field from the year
 * down, in the civil time of the expression. */

#include "config/calendar.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

#define WHY_MAX        128
#define COMPONENTS_MAX 24
#define YEAR_FIRST     1970
#define YEAR_LAST      2199

/* A value, a range, or every `repeat` from `start` to `stop`. */
struct component {
        int start, stop, repeat; /* stop == start: that alone, unless it repeats: then to the end */
};

enum field { YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, FIELDS };
static const struct {
        const char *name;
        int least, most;
} limits[FIELDS] = {
        { "year", YEAR_FIRST, YEAR_LAST },
        { "month", 1, 12 },
        { "day", 1, 31 },
        { "hour", 0, 23 },
        { "minute", 0, 59 },
        { "second", 0, 59 },
};

struct calendar {
        unsigned weekdays; /* 1 << 0: Monday; 0: any */
        bool counts_days_from_end, is_utc;
        struct list {
                struct component items[COMPONENTS_MAX]; /* none: every value */
                size_t count;
        } fields[FIELDS];
};

static const char *const day_names[] = { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday" };

/* ---- reading ---- */

static int refuse(char *why, const char *format, ...) _printf_(2, 3);
static int refuse(char *why, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(why, WHY_MAX, format, arguments);
        va_end(arguments);
        return -EINVAL;
}

static int read_number(const char **at, int *ret) {
        int value = 0, digits = 0;

        for (; **at >= '0' && **at <= '9' && digits < 5; (*at)++, digits++)
                value = 10 * value + (**at - '0');
        *ret = value;
        return digits > 0 && !(**at >= '0' && **at <= '9') ? 0 : -EINVAL;
}

/* "3", "3..9", "3/2", "3..9/2", "*", "*" "/2". */
static int read_component(const char **at, enum field field, struct list *list, char *why) {
        struct component c = { .start = limits[field].least };

        if (**at == '*') {
                (*at)++;
                if (**at != '/')
                        return 0; /* every value; the list must be this alone */
                c.stop = c.start;
        } else {
                if (read_number(at, &c.start) < 0)
                        return refuse(why, "the %s is no number", limits[field].name);
                c.stop = c.start;
                if (strncmp(*at, "..", 2) == 0) {
                        *at += 2;
                        if (read_number(at, &c.stop) < 0)
                                return refuse(why, "the %s range has no end", limits[field].name);
                }
        }
        if (**at == '/') {
                (*at)++;
                if (read_number(at, &c.repeat) < 0 || c.repeat == 0)
                        return refuse(why, "the %s does not say every how many", limits[field].name);
        }
        if (c.start < limits[field].least || c.stop > limits[field].most || c.stop < c.start)
                return refuse(why, "the %s is not within %d to %d", limits[field].name, limits[field].least,
                              limits[field].most);
        if (list->count == COMPONENTS_MAX)
                return refuse(why, "more than %d %ss in a list", COMPONENTS_MAX, limits[field].name);
        list->items[list->count++] = c;
        return 1;
}

static int compare_components(const void *a, const void *b) {
        const struct component *x = a, *y = b;

        return x->start != y->start ? x->start - y->start : x->stop - y->stop;
}

static int read_field(const char **at, enum field field, struct calendar *calendar, char *why) {
        struct list *list = &calendar->fields[field];
        bool is_any = false;
        size_t n = 0;
        int r;

        do {
                if (n > 0)
                        (*at)++;
                r = read_component(at, field, list, why);
                if (r < 0)
                        return r;
                is_any |= r == 0;
                n++;
        } while (**at == ',');
        if (is_any && n > 1)
                return refuse(why, "* stands for every %s and needs no list", limits[field].name);
        qsort(list->items, list->count, sizeof list->items[0], compare_components);
        return 0;
}

static int read_weekday(const char **at) {
        size_t length = strcspn(*at, ",.- ");

        for (int i = 0; i < 7; i++)
                if ((length == 3 || length == strlen(day_names[i])) && strncasecmp(*at, day_names[i], length) == 0) {
                        *at += length;
                        return i;
                }
        return -EINVAL;
}

/* Up to the blank after them, or the end. */
static int read_weekdays(const char **at, struct calendar *calendar, char *why) {
        for (;;) {
                int first = read_weekday(at), last = first;

                if (first >= 0 && strncmp(*at, "..", 2) == 0) {
                        *at += 2;
                        last = read_weekday(at);
                }
                if (first < 0 || last < 0)
                        return refuse(why, "no weekday: Mon, Tue, Wed, Thu, Fri, Sat or Sun");
                if (last < first)
                        return refuse(why, "a range of weekdays begins before it ends, from Monday to Sunday");
                for (int i = first; i <= last; i++)
                        calendar->weekdays |= 1u << i;
                if (**at != ',')
                        break;
                (*at)++;
                if (**at == ' ' || **at == 0) /* "Mon, *-*-01" is taken by systemd, too */
                        break;
        }
        return **at == 0 || **at == ' ' ? 0 : refuse(why, "after the weekdays comes a blank");
}

static int read_date(const char **at, struct calendar *calendar, char *why) {
        size_t dashes = 0, length = strcspn(*at, " ");
        int r;

        for (size_t i = 0; i < length; i++)
                dashes += (*at)[i] == '-' || (*at)[i] == '~';
        if (dashes < 1 || dashes > 2)
                return refuse(why, "a date is YEAR-MONTH-DAY or MONTH-DAY");
        if (dashes == 2) {
                r = read_field(at, YEAR, calendar, why);
                if (r < 0)
                        return r;
                if (*(*at)++ != '-')
                        return refuse(why, "after the year comes \"-\"");
        }
        r = read_field(at, MONTH, calendar, why);
        if (r < 0)
                return r;
        calendar->counts_days_from_end = **at == '~';
        if (**at != '-' && **at != '~')
                return refuse(why, "after the month comes \"-\" or \"~\"");
        (*at)++;
        r = read_field(at, DAY, calendar, why);
        calendar->counts_days_from_end &= calendar->fields[DAY].count > 0;
        return r;
}

static int read_time(const char **at, struct calendar *calendar, char *why) {
        int r = read_field(at, HOUR, calendar, why);

        if (r >= 0 && *(*at)++ != ':')
                return refuse(why, "a time is HOUR:MINUTE or HOUR:MINUTE:SECOND");
        if (r >= 0)
                r = read_field(at, MINUTE, calendar, why);
        if (r < 0)
                return r;
        if (**at != ':') {
                calendar->fields[SECOND] = (struct list){ .count = 1 };
                return 0;
        }
        (*at)++;
        r = read_field(at, SECOND, calendar, why);
        if (r >= 0 && **at == '.')
                return refuse(why, "fractions of a second are not taken");
        return r;
}

static const char *skip_blanks(const char *at) {
        return at + strspn(at, " ");
}

static int read_expression(const char *at, struct calendar *calendar, char *why) {
        bool has_date = false, has_time = false;
        int r = 0;

        at = skip_blanks(at);
        if ((*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z')) {
                r = read_weekdays(&at, calendar, why);
                at = skip_blanks(at);
        }
        if (r >= 0 && *at && strcspn(at, "-~") < strcspn(at, " ")) {
                r = read_date(&at, calendar, why);
                if (r >= 0 && *at != 0 && *at != ' ')
                        return refuse(why, "\"%.20s\" after the date", at);
                has_date = true;
                at = skip_blanks(at);
        }
        if (r >= 0 && *at && strcspn(at, ":") < strcspn(at, " ")) {
                r = read_time(&at, calendar, why);
                if (r >= 0 && *at != 0 && *at != ' ')
                        return refuse(why, "\"%.20s\" after the time", at);
                has_time = true;
        }
        if (r < 0)
                return r;
        if (!has_time)
                for (enum field f = HOUR; f <= SECOND; f++)
                        calendar->fields[f] = (struct list){ .count = 1 };
        if (*at)
                return refuse(why, "\"%.20s\" is neither date nor time", at);
        return has_date || has_time || calendar->weekdays ? 0 : refuse(why, "it is empty");
}

static const char *expand(const char *text) {
        static const char *const words[][2] = {
                { "minutely", "*-*-* *:*:00" },
                { "hourly", "*-*-* *:00:00" },
                { "daily", "*-*-* 00:00:00" },
                { "weekly", "Mon *-*-* 00:00:00" },
                { "monthly", "*-*-01 00:00:00" },
                { "quarterly", "*-01,04,07,10-01 00:00:00" },
                { "semiannually", "*-01,07-01 00:00:00" },
                { "semi-annually", "*-01,07-01 00:00:00" },
                { "biannually", "*-01,07-01 00:00:00" },
                { "bi-annually", "*-01,07-01 00:00:00" },
                { "yearly", "*-01-01 00:00:00" },
                { "annually", "*-01-01 00:00:00" },
                { "anually", "*-01-01 00:00:00" },
        };

        for (size_t i = 0; i < ELEMENTS(words); i++)
                if (strcasecmp(text, words[i][0]) == 0)
                        return words[i][1];
        return text;
}

/* The zone at the end, taken off. 1: it was UTC; 0: none; other zones need files that core cannot reach. */
static int take_zone(char *text, char *why) {
        char *last = strrchr(text, ' ');

        if (!last)
                return 0;
        if (strcasecmp(last + 1, "UTC") == 0) {
                *last = 0;
                return 1;
        }
        if (strchr(last + 1, '/') && ((last[1] >= 'A' && last[1] <= 'Z') || (last[1] >= 'a' && last[1] <= 'z')))
                return refuse(why, "the zone may be UTC, or left out for the machine's local time");
        return 0;
}

int calendar_parse(const char *text, struct calendar **ret, char *why) {
        struct calendar *calendar = xcalloc(1, sizeof *calendar);
        char copy[256];
        int r = 0, zone;

        if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy)
                r = refuse(why, "it is too long");
        zone = r < 0 ? r : take_zone(copy, why);
        if (zone >= 0) {
                calendar->is_utc = zone == 1;
                tzset(); /* behind the wall the zone's file is out of reach */
                r = read_expression(expand(copy), calendar, why);
        } else
                r = zone;
        if (r >= 0 && calendar_next(calendar, 0) == INT64_MAX)
                r = refuse(why, "it never elapses");
        if (r < 0) {
                free(calendar);
                return r;
        }
        *ret = calendar;
        return 0;
}

struct calendar *calendar_free(struct calendar *calendar) {
        free(calendar);
        return NULL;
}

/* ---- searching ---- */

struct civil {
        int at[FIELDS];
};

static bool is_leap(int year) {
        return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int last_day(int year, int month) {
        static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

        return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* The least allowed value of the field that is not below `from`; -1: none up to `most`. */
static int least_from(const struct calendar *calendar, enum field field, int from, int most) {
        const struct list *list = &calendar->fields[field];
        int found = -1;

        if (list->count == 0)
                return from <= most ? from : -1;
        for (size_t i = 0; i < list->count; i++) {
                struct component c = list->items[i];
                bool is_open = c.repeat > 0 && c.stop == c.start;
                int value;

                if (field == DAY && calendar->counts_days_from_end) {
                        int first = most - c.stop + 1, end = is_open ? most : most - c.start + 1;

                        c.start = first;
                        c.stop = end;
                } else if (is_open)
                        c.stop = most;
                if (c.stop > most)
                        c.stop = most;
                value = c.start;
                if (value < from) {
                        int step = c.repeat > 0 ? c.repeat : 1;

                        value += (from - value + step - 1) / step * step;
                }
                if (value <= c.stop && value >= 1 - (field > DAY) && (found < 0 || value < found))
                        found = value;
        }
        return found;
}

/* 0: Monday. */
static int weekday_of(const struct civil *civil) {
        static const int offsets[] = { 0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4 };
        int year = civil->at[YEAR] - (civil->at[MONTH] < 3);

        return (year + year / 4 - year / 100 + year / 400 + offsets[civil->at[MONTH] - 1] + civil->at[DAY] + 6) % 7;
}

static void reset_below(struct civil *civil, enum field field) {
        for (int f = (int)field + 1; f < FIELDS; f++)
                civil->at[f] = limits[f].least;
}

/* Moves to the first match that is not before it. false: there is none. */
static bool match(const struct calendar *calendar, struct civil *civil) {
        int f = YEAR;

        while (f < FIELDS) {
                int most = f == DAY ? last_day(civil->at[YEAR], civil->at[MONTH]) : limits[f].most;
                int value = least_from(calendar, (enum field)f, civil->at[f], most);

                if (value < 0) {
                        if (f == YEAR)
                                return false;
                        f--;
                        civil->at[f]++;
                        reset_below(civil, (enum field)f);
                        continue;
                }
                if (value > civil->at[f]) {
                        civil->at[f] = value;
                        reset_below(civil, (enum field)f);
                }
                if (f == DAY && calendar->weekdays != 0 && !(calendar->weekdays & 1u << weekday_of(civil))) {
                        civil->at[f]++;
                        reset_below(civil, (enum field)f);
                        continue;
                }
                f++;
        }
        return true;
}

static void civil_of(const struct calendar *calendar, unix_sec when, struct civil *ret) {
        time_t t = (time_t)when;
        struct tm tm = { 0 };

        (void)(calendar->is_utc ? gmtime_r(&t, &tm) : localtime_r(&t, &tm));
        *ret = (struct civil){ { tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec } };
        if (ret->at[SECOND] > 59)
                ret->at[SECOND] = 59;
}

/* A civil time that is left out becomes the moment after the gap; of two the first. */
static unix_sec moment_of(const struct calendar *calendar, const struct civil *civil) {
        struct tm tm = { .tm_year = civil->at[YEAR] - 1900,
                         .tm_mon = civil->at[MONTH] - 1,
                         .tm_mday = civil->at[DAY],
                         .tm_hour = civil->at[HOUR],
                         .tm_min = civil->at[MINUTE],
                         .tm_sec = civil->at[SECOND] };
        struct tm before, after;
        time_t as_utc = timegm(&tm), early, late;
        long offset_early, offset_late;

        if (calendar->is_utc)
                return as_utc;
        /* The offsets in force a day before and a day after bound what may be in force at the time itself. */
        early = as_utc - 86400;
        late = as_utc + 86400;
        localtime_r(&early, &before);
        localtime_r(&late, &after);
        offset_early = before.tm_gmtoff;
        offset_late = after.tm_gmtoff;
        early = as_utc - offset_early;
        late = as_utc - offset_late;
        localtime_r(&early, &before);
        localtime_r(&late, &after);
        if (before.tm_gmtoff == offset_early && after.tm_gmtoff == offset_late)
                return early < late ? early : late;
        if (before.tm_gmtoff == offset_early)
                return early;
        if (after.tm_gmtoff == offset_late)
                return late;
        /* In the gap: it lies between the two; as many seconds after it began as the clock would have shown. */
        return early > late ? early : late;
}

/* Where the clock has just been put forward, a civil time that was left out may stand for a moment to come: the search
 * begins before the gap. */
#define LONGEST_GAP_SEC (3 * 3600)
static unix_sec search_from(const struct calendar *calendar, unix_sec when) {
        time_t early = (time_t)when - LONGEST_GAP_SEC, late = (time_t)when;
        struct tm before = { 0 }, after = { 0 };

        if (calendar->is_utc || early < 0)
                return when;
        localtime_r(&early, &before);
        localtime_r(&late, &after);
        return before.tm_gmtoff == after.tm_gmtoff ? when : early;
}

unix_sec calendar_next(const struct calendar *calendar, unix_sec after) {
        struct civil civil;

        if (after < 0)
                after = 0;
        if (after == INT64_MAX)
                return INT64_MAX;
        civil_of(calendar, search_from(calendar, after + 1), &civil);
        for (;;) {
                unix_sec found;

                if (civil.at[YEAR] > YEAR_LAST || !match(calendar, &civil))
                        return INT64_MAX;
                found = moment_of(calendar, &civil);
                if (found > after)
                        return found;
                civil.at[SECOND]++; /* match() carries it over */
        }
}

/* ---- writing ---- */

static void put_weekdays(const struct calendar *calendar, struct buffer *to) {
        const char *separator = "";

        for (int i = 0; i < 7; i++) {
                int last = i;

                if (!(calendar->weekdays & 1u << i))
                        continue;
                while (last < 6 && calendar->weekdays & 1u << (last + 1))
                        last++;
                buffer_printf(to, "%s%.3s", separator, day_names[i]);
                if (last > i)
                        buffer_printf(to, "%s%.3s", last > i + 1 ? ".." : ",", day_names[last]);
                separator = ",";
                i = last;
        }
        if (calendar->weekdays)
                buffer_printf(to, " ");
}

static void put_field(const struct calendar *calendar, enum field field, struct buffer *to) {
        const struct list *list = &calendar->fields[field];

        if (list->count == 0)
                buffer_printf(to, "*");
        for (size_t i = 0; i < list->count; i++) {
                const struct component *c = &list->items[i];

                buffer_printf(to, "%s%02d", i > 0 ? "," : "", c->start);
                if (c->stop > c->start)
                        buffer_printf(to, "..%02d", c->stop);
                if (c->repeat > 0 && !(c->stop > c->start && c->repeat == 1))
                        buffer_printf(to, "/%d", c->repeat);
        }
}

void calendar_format(const struct calendar *calendar, char *to) {
        _cleanup_(buffer_free) struct buffer text = { 0 };
        static const char separators[FIELDS] = { '-', '-', ' ', ':', ':', 0 };

        put_weekdays(calendar, &text);
        for (enum field f = YEAR; f < FIELDS; f++) {
                put_field(calendar, f, &text);
                if (f == MONTH && calendar->counts_days_from_end)
                        buffer_printf(&text, "~");
                else if (separators[f])
                        buffer_printf(&text, "%c", separators[f]);
        }
        if (calendar->is_utc)
                buffer_printf(&text, " UTC");
        snprintf(to, 256, "%.*s", (int)text.size, (const char *)text.data);
}

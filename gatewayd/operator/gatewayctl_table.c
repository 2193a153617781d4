/* SPDX-License-Identifier: Apache-2.0 */

/* Tables, colours, and figures in words. */

#include "gatewayd/operator/gatewayctl_table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP       2
#define NARROWEST 8

struct screen screen_of(FILE *to) {
        struct screen screen = { .to = to };
        const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM"), *columns = getenv("COLUMNS");
        struct winsize size;

        if (!isatty(fileno(to)))
                return screen;
        screen.has_colour = (!no_colour || !no_colour[0]) && terminal && strcmp(terminal, "dumb") != 0;
        if (columns && atoi(columns) > 0)
                screen.width = (unsigned)atoi(columns);
        else if (ioctl(fileno(to), TIOCGWINSZ, &size) == 0)
                screen.width = size.ws_col;
        return screen;
}

static const char *colour_code(enum colour colour) {
        switch (colour) {
        case COLOUR_BOLD:
                return "\033[1m";
        case COLOUR_GOOD:
                return "\033[32m";
        case COLOUR_WARN:
                return "\033[33m";
        case COLOUR_BAD:
                return "\033[1;31m";
        case COLOUR_DIM:
                return "\033[2m";
        case COLOUR_NONE:
                break;
        }
        return "";
}

void screen_put(const struct screen *screen, enum colour colour, const char *format, ...) {
        bool is_coloured = screen->has_colour && colour != COLOUR_NONE;
        va_list arguments;

        if (is_coloured)
                fputs(colour_code(colour), screen->to);
        va_start(arguments, format);
        vfprintf(screen->to, format, arguments);
        va_end(arguments);
        if (is_coloured)
                fputs("\033[0m", screen->to);
}

/* Characters as a terminal counts them: UTF-8 sequences as one. */
static size_t shown_width(const char *text) {
        size_t width = 0;

        for (; *text; text++)
                width += ((uint8_t)*text & 0xc0) != 0x80;
        return width;
}

void table_add(struct table *table, enum colour colour, const char *format, ...) {
        struct cell *cells = reallocarray(table->cells, table->cell_count + 1, sizeof *cells);
        va_list arguments;

        if (!cells)
                oom();
        table->cells = cells;
        va_start(arguments, format);
        if (vasprintf(&cells[table->cell_count].text, format, arguments) < 0)
                oom();
        va_end(arguments);
        /* What comes from devices and upstream must not move the cursor. */
        for (char *p = cells[table->cell_count].text; *p; p++)
                if ((uint8_t)*p < 0x20 || *p == 0x7f)
                        *p = '?';
        cells[table->cell_count++].colour = colour;
}

static void measure(const struct table *table, const struct screen *screen, size_t widths[TABLE_COLUMNS_MAX]) {
        size_t total = GAP * (table->column_count - 1), flexible = table->column_count;

        for (size_t c = 0; c < table->column_count; c++) {
                widths[c] = shown_width(table->columns[c].title);
                for (size_t i = c; i < table->cell_count; i += table->column_count) {
                        size_t width = shown_width(table->cells[i].text);

                        widths[c] = width > widths[c] ? width : widths[c];
                }
                total += widths[c];
                if (table->columns[c].is_flexible)
                        flexible = c;
        }
        if (screen->width == 0 || total <= screen->width || flexible == table->column_count)
                return;
        total -= widths[flexible];
        widths[flexible] = total + NARROWEST < screen->width ? screen->width - total : NARROWEST;
}

static void print_cell(const struct screen *screen, const struct column *column, size_t width, bool is_last,
                       const char *text, enum colour colour) {
        size_t shown = shown_width(text), fill = shown < width ? width - shown : 0;

        if (column->is_number)
                fprintf(screen->to, "%*s", (int)fill, "");
        if (shown > width) {
                const char *end = text;

                for (size_t left = width - 1; left > 0; left--)
                        do
                                end++;
                        while (((uint8_t)*end & 0xc0) == 0x80);
                screen_put(screen, colour, "%.*s…", (int)(end - text), text);
        } else
                screen_put(screen, colour, "%s", text);
        if (!is_last)
                fprintf(screen->to, "%*s", (int)((column->is_number ? 0 : fill) + GAP), "");
        else
                fputc('\n', screen->to);
}

void table_print(const struct table *table, const struct screen *screen) {
        size_t widths[TABLE_COLUMNS_MAX], columns = table->column_count;

        if (columns == 0)
                return;
        measure(table, screen, widths);
        for (size_t c = 0; c < columns; c++)
                print_cell(screen, &table->columns[c], widths[c], c + 1 == columns, table->columns[c].title,
                           COLOUR_BOLD);
        for (size_t i = 0; i < table->cell_count; i++)
                print_cell(screen, &table->columns[i % columns], widths[i % columns], i % columns + 1 == columns,
                           table->cells[i].text, table->cells[i].colour);
}

void table_free(struct table *table) {
        for (size_t i = 0; i < table->cell_count; i++)
                free(table->cells[i].text);
        free(table->cells);
        table->cells = NULL;
        table->cell_count = 0;
}

/* ---- figures in words ---- */

const char *span_say(int64_t seconds, char *to) {
        static const struct {
                const char *name;
                int64_t seconds;
        } units[] = { { "y", 31557600 }, { "d", 86400 }, { "h", 3600 }, { "min", 60 }, { "s", 1 } };
        size_t i = 0;
        int64_t first, second;

        if (seconds < 0)
                seconds = seconds == INT64_MIN ? INT64_MAX : -seconds;
        while (i + 1 < ELEMENTS(units) && seconds < units[i].seconds)
                i++;
        first = seconds / units[i].seconds;
        second = i + 1 < ELEMENTS(units) ? seconds % units[i].seconds / units[i + 1].seconds : 0;
        /* Two units where the first is small: "1d 4h", but "12d". */
        if (second > 0 && first < 10)
                snprintf(to, SAY_MAX, "%" PRId64 "%s %" PRId64 "%s", first, units[i].name, second, units[i + 1].name);
        else
                snprintf(to, SAY_MAX, "%" PRId64 "%s", first, units[i].name);
        return to;
}

const char *time_say(unix_sec time, unix_sec now, char *to) {
        char span[SAY_MAX];

        if (time == 0)
                snprintf(to, SAY_MAX, "never");
        else if (time >= now - 1 && time <= now + 5) /* seconds pass between two questions */
                snprintf(to, SAY_MAX, "just now");
        else if (time > now)
                snprintf(to, SAY_MAX, "in %s", span_say(time - now, span));
        else
                snprintf(to, SAY_MAX, "%s ago", span_say(now - time, span));
        return to;
}

const char *count_say(uint64_t count, char *to) {
        char digits[24];
        int size = snprintf(digits, sizeof digits, "%" PRIu64, count);
        char *p = to;

        for (int i = 0; i < size; i++) {
                if (i > 0 && (size - i) % 3 == 0)
                        *p++ = ',';
                *p++ = digits[i];
        }
        *p = 0;
        return to;
}

const char *bytes_say(uint64_t bytes, char *to) {
        static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
        double value = (double)bytes;
        size_t i = 0;

        while (value >= 1024 && i + 1 < ELEMENTS(units)) {
                value /= 1024;
                i++;
        }
        snprintf(to, SAY_MAX, i == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[i]);
        return to;
}

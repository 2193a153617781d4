/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tables for people: columns as wide as what stands in them, no wider than the terminal. */

#include "gatewayd/bytes.h"

enum colour { COLOUR_NONE, COLOUR_BOLD, COLOUR_GOOD, COLOUR_WARN, COLOUR_BAD, COLOUR_DIM };

/* Where output goes and what that place can show. */
struct screen {
        FILE *to;
        bool has_colour; /* a terminal, and NO_COLOR is not set */
        unsigned width;  /* columns; 0: no limit */
};
struct screen screen_of(FILE *to);
/* Text in a colour, where there are colours. */
void screen_put(const struct screen *screen, enum colour colour, const char *format, ...) _printf_(3, 4);

struct column {
        const char *title;
        bool is_number;   /* right-aligned */
        bool is_flexible; /* may be cut to fit the terminal, with an ellipsis */
};

#define TABLE_COLUMNS_MAX 12
struct table {
        const struct column *columns;
        size_t column_count;
        struct cell {
                char *text;
                enum colour colour;
        } * cells;
        size_t cell_count;
};

/* Cells come row by row, in the order of the columns. */
void table_add(struct table *table, enum colour colour, const char *format, ...) _printf_(3, 4);
void table_print(const struct table *table, const struct screen *screen);
void table_free(struct table *table);

/* Durations and times as people say them: "1d 4h", "3min"; `to` has room for SAY_MAX characters. */
#define SAY_MAX 48
const char *span_say(int64_t seconds, char *to);
/* "3min ago", "in 12d 4h", "never" for 0. */
const char *time_say(unix_sec time, unix_sec now, char *to);
/* 1,234,567; 1.2 GiB. */
const char *count_say(uint64_t count, char *to);
const char *bytes_say(uint64_t bytes, char *to);

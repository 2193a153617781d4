/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: what the two readers of import files share. A reader finds fields; import.c knows what
 * they mean. */

#include "gatewayd/devices/devices.h"

#define IMPORT_ROWS_MAX     1000000
#define IMPORT_PROBLEMS_MAX 100

enum import_field { IMPORT_ID, IMPORT_PROFILE, IMPORT_PSK, IMPORT_ATTESTATION_KEY, IMPORT_IDEVID, IMPORT_FIELDS };
/* The field of that name, or -1. */
int import_field_find(struct bytes name);

struct import_reader {
        struct import *rows;
        size_t row_capacity;
        struct config_problems *problems;
        const char *unit; /* "line" or "element" */
        size_t place;     /* where the reader is, from 1 */
        size_t *places;   /* of each row taken */
};

/* Notes what is wrong at the current place; after IMPORT_PROBLEMS_MAX of them, no more. */
void import_problem(struct import_reader *reader, const char *format, ...) _printf_(2, 3);
/* Takes one row: fields by enum import_field, `data` NULL where absent. */
void import_row(struct import_reader *reader, const struct bytes fields[IMPORT_FIELDS]);

/* They stop at what they cannot read past; whatever is wrong is in the problems. */
void import_read_csv(struct import_reader *reader, struct bytes text);
void import_read_json(struct import_reader *reader, struct bytes text);

/* SPDX-License-Identifier: Apache-2.0 */

/* CSV (RFC 4180): a header line with the names of the columns in any order, then a line for each device.
 * Quoted fields may hold commas, doubled quotes and line ends (PEM); empty lines are skipped. */

#include <errno.h>

#include "gatewayd/devices/import.h"

#define COLUMNS_MAX 16
#define FIRST_LINE  "the first line is id,profile,psk[,attestation_key][,idevid]"

struct csv {
        struct bytes text;
        size_t at;
        size_t line;            /* of `at`, from 1 */
        struct buffer unquoted; /* of the record: room for its quoted fields, never moved while it is read */
};

struct record {
        struct bytes fields[COLUMNS_MAX];
        size_t count;
};

static bool at_end_of_line(const struct csv *csv) {
        const uint8_t *p = csv->text.data + csv->at;
        size_t left = csv->text.size - csv->at;

        return left == 0 || p[0] == '\n' || (p[0] == '\r' && (left == 1 || p[1] == '\n'));
}

static void skip_end_of_line(struct csv *csv) {
        while (csv->at < csv->text.size && csv->text.data[csv->at] == '\r')
                csv->at++;
        if (csv->at < csv->text.size && csv->text.data[csv->at] == '\n')
                csv->at++;
        csv->line++;
}

/* The field after an opening quote. -EBADMSG: its end is missing. */
static int read_quoted(struct csv *csv, struct bytes *ret) {
        size_t start = csv->unquoted.size;

        for (csv->at++; csv->at < csv->text.size; csv->at++) {
                uint8_t c = csv->text.data[csv->at];

                if (c == '"') {
                        bool is_doubled = csv->at + 1 < csv->text.size && csv->text.data[csv->at + 1] == '"';

                        csv->at++;
                        if (!is_doubled) {
                                *ret = BYTES(csv->unquoted.data + start, csv->unquoted.size - start);
                                return 0;
                        }
                }
                csv->line += c == '\n';
                buffer_append(&csv->unquoted, BYTES(&c, 1));
        }
        return -EBADMSG;
}

static void read_plain(struct csv *csv, struct bytes *ret) {
        size_t start = csv->at;

        while (!at_end_of_line(csv) && csv->text.data[csv->at] != ',')
                csv->at++;
        *ret = BYTES(csv->text.data + start, csv->at - start);
}

/* Reads the record at csv->at and moves past its line. -EBADMSG: nothing after it can be read either. */
static int read_record(struct csv *csv, struct import_reader *reader, struct record *ret) {
        reader->place = csv->line;
        ret->count = 0;
        csv->unquoted.size = 0;
        /* So that no append moves what earlier fields of this record point to. */
        (void)buffer_reserve(&csv->unquoted, csv->text.size - csv->at + 1);
        for (;;) {
                struct bytes field;

                if (csv->at < csv->text.size && csv->text.data[csv->at] == '"') {
                        if (read_quoted(csv, &field) < 0) {
                                import_problem(reader, "a quoted field does not end");
                                return -EBADMSG;
                        }
                } else
                        read_plain(csv, &field);
                if (ret->count == COLUMNS_MAX) {
                        import_problem(reader, "more than %d columns", COLUMNS_MAX);
                        return -EBADMSG;
                }
                ret->fields[ret->count++] = field;
                if (at_end_of_line(csv)) {
                        skip_end_of_line(csv);
                        return 0;
                }
                if (csv->text.data[csv->at] != ',') {
                        import_problem(reader, "text after a closing quote; a comma or the line's end is allowed");
                        return -EBADMSG;
                }
                csv->at++;
        }
}

/* The header: columns[i] is the meaning of column i. */
static int read_header(struct csv *csv, struct import_reader *reader, int columns[COLUMNS_MAX], size_t *ret_count) {
        bool is_seen[IMPORT_FIELDS] = { false };
        struct record header;

        if (csv->text.size == 0) {
                reader->place = 1;
                import_problem(reader, "the file is empty; " FIRST_LINE);
                return -EBADMSG;
        }
        if (read_record(csv, reader, &header) < 0)
                return -EBADMSG;
        for (size_t i = 0; i < header.count; i++) {
                columns[i] = import_field_find(header.fields[i]);
                if (columns[i] < 0 || is_seen[columns[i]]) {
                        import_problem(reader, "column %zu is %s; " FIRST_LINE, i + 1,
                                       columns[i] < 0 ? "unknown" : "there twice");
                        return -EBADMSG;
                }
                is_seen[columns[i]] = true;
        }
        /* Without factory PSKs there must be IDevIDs: a column that was merely forgotten should be noticed. */
        if (!is_seen[IMPORT_ID] || !is_seen[IMPORT_PROFILE] || !(is_seen[IMPORT_PSK] || is_seen[IMPORT_IDEVID])) {
                import_problem(reader, "a column is missing; " FIRST_LINE " (psk or idevid, or both)");
                return -EBADMSG;
        }
        *ret_count = header.count;
        return 0;
}

void import_read_csv(struct import_reader *reader, struct bytes text) {
        struct csv csv = { .text = text, .line = 1 };
        int columns[COLUMNS_MAX];
        size_t column_count;

        if (text.size >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0) /* a spreadsheet's byte order mark */
                csv.at = 3;
        if (read_header(&csv, reader, columns, &column_count) >= 0)
                while (csv.at < text.size) {
                        struct bytes fields[IMPORT_FIELDS] = { 0 };
                        struct record record;

                        if (at_end_of_line(&csv)) {
                                skip_end_of_line(&csv);
                                continue;
                        }
                        if (read_record(&csv, reader, &record) < 0)
                                break;
                        if (record.count != column_count) {
                                import_problem(reader, "%zu fields; the first line has %zu", record.count,
                                               column_count);
                                continue;
                        }
                        for (size_t i = 0; i < record.count; i++)
                                fields[columns[i]] = record.fields[i];
                        import_row(reader, fields);
                }
        buffer_free(&csv.unquoted);
}

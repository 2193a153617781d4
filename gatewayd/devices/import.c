/* SPDX-License-Identifier: Apache-2.0 */

/* Import files: what the fields of a row mean, and all or nothing. The readers of CSV and JSON are beside
 * this file. Problems name the place, never a key. */

#include "gatewayd/devices/import.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdlib.h>

#include "gatewayd/devices/registry.h"

int import_field_find(struct bytes name) {
        static const char *const names[IMPORT_FIELDS] = { "id", "profile", "psk", "attestation_key", "idevid" };

        for (int i = 0; i < IMPORT_FIELDS; i++)
                if (bytes_equal(name, bytes_of(names[i])))
                        return i;
        return -1;
}

static void problem_line(struct config_problems *problems, const char *text) {
        char **grown = realloc(problems->lines, (problems->count + 1) * sizeof *grown);

        if (!grown)
                oom();
        problems->lines = grown;
        problems->lines[problems->count++] = xstrdup(text);
}

void import_problem(struct import_reader *reader, const char *format, ...) {
        char detail[256], line[320];
        va_list arguments;

        if (reader->problems->count > IMPORT_PROBLEMS_MAX)
                return;
        if (reader->problems->count == IMPORT_PROBLEMS_MAX) {
                problem_line(reader->problems, "there is more; mend these first");
                return;
        }
        va_start(arguments, format);
        vsnprintf(detail, sizeof detail, format, arguments);
        va_end(arguments);
        snprintf(line, sizeof line, "%s %zu: %s", reader->unit, reader->place, detail);
        problem_line(reader->problems, line);
}

/* ---- fields ---- */

static bool take_prefix(struct bytes *text, const char *prefix) {
        size_t size = strlen(prefix);

        if (text->size < size || memcmp(text->data, prefix, size) != 0)
                return false;
        *text = BYTES(text->data + size, text->size - size);
        return true;
}

static void take_psk(struct import_reader *reader, struct bytes text, struct secret *ret) {
        ssize_t size;

        if (text.size == 0)
                return; /* it comes with an IDevID */
        if (take_prefix(&text, "hex:"))
                size = hex_decode(text, ret->data, sizeof ret->data);
        else if (take_prefix(&text, "base64:"))
                size = base64_decode(text, false, ret->data, sizeof ret->data);
        else if (take_prefix(&text, "text:"))
                size = secret_set(ret, text) < 0 ? -ENOBUFS : (ssize_t)text.size;
        else {
                import_problem(reader, "psk begins with hex:, base64: or text:");
                return;
        }
        if (size == -ENOBUFS || (size >= 0 && (size < REGISTRY_PSK_MIN || size > SECRET_MAX)))
                import_problem(reader, "psk has a wrong length; %d to %d bytes are allowed", REGISTRY_PSK_MIN,
                               SECRET_MAX);
        else if (size < 0)
                import_problem(reader, "psk is not valid after its prefix");
        else
                ret->size = (size_t)size;
}

/* A PEM block that is a public key, as DER. -EBADMSG: it is not; -ENOBUFS: too large. */
static int pem_to_der(struct bytes text, uint8_t *to, size_t to_size) {
        BIO *bio = text.size <= 16384 ? BIO_new_mem_buf(text.data, (int)text.size) : NULL;
        char *name = NULL, *header = NULL;
        unsigned char *data = NULL;
        int r = -EBADMSG;
        long size = 0;

        if (bio && PEM_read_bio(bio, &name, &header, &data, &size) == 1 && strcmp(name, PEM_STRING_PUBLIC) == 0 &&
            size > 0) {
                r = (size_t)size <= to_size ? (int)size : -ENOBUFS;
                if (r > 0)
                        memcpy(to, data, (size_t)size);
        }
        if (data)
                OPENSSL_cleanse(data, (size_t)size); /* somebody may have given us the private key */
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_free(data);
        BIO_free(bio);
        return r;
}

static void take_attestation_key(struct import_reader *reader, struct bytes text, struct registration *row) {
        struct problem problem = { 0 };
        ssize_t size;

        if (text.size == 0)
                return;
        if (take_prefix(&text, "der:"))
                size = base64_decode(text, false, row->attestation_key, sizeof row->attestation_key);
        else
                size = pem_to_der(text, row->attestation_key, sizeof row->attestation_key);
        if (size <= 0) {
                import_problem(reader,
                               size == -ENOBUFS ? "attestation_key is too large; at most %d bytes of DER"
                                                : "attestation_key is neither a PEM public key nor der: and "
                                                  "base64 (at most %d bytes)",
                               ATTESTATION_KEY_MAX);
                return;
        }
        row->attestation_key_size = (size_t)size;
        if (registry_check_attestation_key(BYTES(row->attestation_key, row->attestation_key_size), &problem) < 0)
                import_problem(reader, "attestation_key: %s", problem.detail);
}

static void take_idevid(struct import_reader *reader, struct bytes text, struct registration *row) {
        if (text.size == 0)
                return;
        if (!take_prefix(&text, "sha256:") ||
            hex_decode(text, row->idevid_fingerprint, sizeof row->idevid_fingerprint) !=
                    (ssize_t)sizeof row->idevid_fingerprint) {
                import_problem(reader, "idevid is sha256: and the %d hex digits of the certificate's SHA-256",
                               2 * CERTIFICATE_DIGEST_BYTES);
                return;
        }
        row->has_idevid_fingerprint = true;
        if (row->factory_psk.size > 0)
                import_problem(reader, "a device has a psk or an idevid, not both");
}

void import_row(struct import_reader *reader, const struct bytes fields[IMPORT_FIELDS]) {
        struct import *import = reader->rows;
        struct problem problem = { 0 };
        struct registration *row;

        if (import->count == IMPORT_ROWS_MAX) {
                import_problem(reader, "more than %d devices in one file", IMPORT_ROWS_MAX);
                return;
        }
        if (import->count == reader->row_capacity) {
                size_t capacity = reader->row_capacity ? 2 * reader->row_capacity : 64;
                struct registration *rows = xcalloc(capacity, sizeof *rows);

                /* Not realloc: it would leave keys behind in what it frees. */
                if (import->count > 0)
                        memcpy(rows, import->rows, import->count * sizeof *rows);
                OPENSSL_cleanse(import->rows, import->count * sizeof *rows);
                free(import->rows);
                import->rows = rows;
                reader->places = reallocarray(reader->places, capacity, sizeof *reader->places);
                if (!reader->places)
                        oom();
                reader->row_capacity = capacity;
        }
        reader->places[import->count] = reader->place;
        row = &import->rows[import->count++];
        if (bytes_to_text(fields[IMPORT_ID], row->id, sizeof row->id) < 0 || registry_check_id(row->id, &problem) < 0) {
                row->id[0] = '\0';
                import_problem(reader, "id is 1 to %d of A-Z a-z 0-9 . _ : -", DEVICE_ID_MAX);
        }
        if (bytes_to_text(fields[IMPORT_PROFILE], row->profile, sizeof row->profile) < 0 || row->profile[0] == '\0') {
                row->profile[0] = '\0';
                import_problem(reader, "profile is the name of a profile, at most %d characters", PROFILE_NAME_MAX);
        }
        take_psk(reader, fields[IMPORT_PSK], &row->factory_psk);
        take_attestation_key(reader, fields[IMPORT_ATTESTATION_KEY], row);
        take_idevid(reader, fields[IMPORT_IDEVID], row);
}

/* ---- the whole file ---- */

struct named {
        const char *id;
        size_t place;
};

static int compare_named(const void *a, const void *b) {
        const struct named *left = a, *right = b;
        int r = strcmp(left->id, right->id);

        return r != 0 ? r : left->place < right->place ? -1 : left->place > right->place;
}

static void find_duplicates(struct import_reader *reader) {
        _cleanup_(freep) struct named *named = xcalloc(reader->rows->count + 1, sizeof *named);
        size_t count = 0;

        for (size_t i = 0; i < reader->rows->count; i++)
                if (reader->rows->rows[i].id[0] != '\0')
                        named[count++] = (struct named){ reader->rows->rows[i].id, reader->places[i] };
        qsort(named, count, sizeof *named, compare_named);
        for (size_t i = 1; i < count; i++)
                if (strcmp(named[i].id, named[i - 1].id) == 0) {
                        reader->place = named[i].place;
                        import_problem(reader, "id %s is also in %s %zu", named[i].id, reader->unit,
                                       named[i - 1].place);
                }
}

int import_parse(struct bytes text, bool is_json, struct import *ret, struct config_problems *problems) {
        struct import_reader reader = { .rows = ret, .problems = problems, .unit = is_json ? "element" : "line" };

        *ret = (struct import){ 0 };
        if (is_json)
                import_read_json(&reader, text);
        else
                import_read_csv(&reader, text);
        find_duplicates(&reader);
        free(reader.places);
        if (problems->count == 0)
                return 0;
        import_free(ret);
        return -EINVAL;
}

void import_free(struct import *import) {
        if (import->rows)
                OPENSSL_cleanse(import->rows, import->count * sizeof *import->rows);
        free(import->rows);
        *import = (struct import){ 0 };
}

/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl ca …: the site's issuing CA. Certificates, requests and CRLs go out as PEM, ready for openssl; with
 * --json as base64 of the DER. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "gatewayd/operator/gatewayctl_client.h"

#define CERTIFICATES_MAX (256 * 1024)
#define PEM_LINE         64

static int end_change(struct client *client, struct value *answer, const char *done, const char *unchanged) {
        bool is_changed = answer->count > 0 && answer->items[0].kind == VALUE_BOOL && answer->items[0].boolean;

        value_free(answer);
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"changed\": %s\n}\n", is_changed ? "true" : "false");
        else
                fprintf(client->screen.to, "%s\n", is_changed ? done : unchanged);
        return is_changed ? EXIT_DONE : EXIT_UNCHANGED;
}

/* ---- PEM (RFC 7468) ---- */

static void put_pem(FILE *to, const char *label, struct bytes der) {
        size_t room = der.size / 3 * 4 + 8;
        _cleanup_(freep) char *text = xcalloc(1, room);
        ssize_t size = base64_encode(der, false, text, room);

        fprintf(to, "-----BEGIN %s-----\n", label);
        for (ssize_t at = 0; at < size; at += PEM_LINE)
                fprintf(to, "%.*s\n", PEM_LINE, text + at);
        fprintf(to, "-----END %s-----\n", label);
}

/* The size of the DER element that `der` begins with; 0: there is none. */
static size_t element_size(struct bytes der) {
        size_t header = 2, size;

        if (der.size < 2 || der.data[0] != 0x30)
                return 0;
        size = der.data[1];
        if (size & 0x80) {
                size_t count = size & 0x7f;

                if (count == 0 || count > 3 || der.size < 2 + count)
                        return 0;
                size = 0;
                for (size_t i = 0; i < count; i++)
                        size = size << 8 | der.data[2 + i];
                header += count;
        }
        return header + size <= der.size ? header + size : 0;
}

/* One answer of bytes: as PEM, or under `name` in JSON. */
static int end_bytes(struct client *client, struct value *answer, const char *name, const char *label) {
        struct value *value = &answer->items[0];
        struct bytes der = BYTES(value->text, value->size);
        int r = EXIT_DONE;

        if (value->kind != VALUE_BYTES) {
                complain("the answer cannot be read: %s", strerror(EBADMSG));
                r = EXIT_FAILED;
        } else if (client->is_json) {
                char *keys[] = { (char *)name };
                struct value map = { .kind = VALUE_MAP, .items = value, .keys = keys, .count = 1 };

                value_print_json(&map, client->screen.to);
        } else {
                for (size_t size; (size = element_size(der)) > 0; der = BYTES(der.data + size, der.size - size))
                        put_pem(client->screen.to, label, BYTES(der.data, size));
        }
        value_free(answer);
        return r;
}

/* ---- init, csr, import, roll, crl ---- */

int command_ca_init(struct client *client, int count, char **arguments) {
        const char *key = "";
        const struct command_option options[] = { { "--key", &key, NULL } };
        struct value answer;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_call(client, "CaInit", 1, &answer, "s", key) < 0)
                return EXIT_FAILED;
        return end_change(client, &answer, "the CA is made; gatewayctl ca show --pem gives its certificate",
                          "nothing was changed");
}

int command_ca_csr(struct client *client, int count, char **arguments) {
        const char *key = "";
        bool is_again = false;
        const struct command_option options[] = { { "--key", &key, NULL }, { "--again", NULL, &is_again } };
        struct value answer;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_call(client, "CaCsr", 1, &answer, "sb", key, (int)is_again) < 0)
                return EXIT_FAILED;
        return end_bytes(client, &answer, "csr", "CERTIFICATE REQUEST");
}

static int read_file(const char *path, struct buffer *to) {
        int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = fd < 0 ? -1 : 1;

        while (size > 0 && to->size <= CERTIFICATES_MAX) {
                size = read(fd, buffer_reserve(to, 4096), 4096);
                if (size > 0)
                        to->size += (size_t)size;
        }
        if (size < 0)
                complain("%s: %s", path, strerror(errno));
        else if (to->size > CERTIFICATES_MAX)
                complain("%s: larger than %d KiB", path, CERTIFICATES_MAX / 1024);
        if (fd >= 0)
                close(fd);
        return size < 0 || to->size > CERTIFICATES_MAX ? -EINVAL : 0;
}

static int send_import(struct client *client, const struct buffer *file, struct value *ret) {
        sd_bus_message *message = NULL;
        int r = client_message(client, "CaImport", &message);

        if (r < 0)
                return r;
        r = sd_bus_message_append_array(message, 'y', file->size > 0 ? file->data : (const void *)"", file->size);
        if (r < 0) {
                complain("the file cannot be sent: %s", strerror(-r));
                sd_bus_message_unref(message);
                return r;
        }
        return client_send(client, message, 2, ret);
}

int command_ca_import(struct client *client, int count, char **arguments) {
        _cleanup_(buffer_free) struct buffer file = { 0 };
        struct value answer;
        const char *path;
        int r = take_arguments(count, arguments, NULL, 0, &path, 1, 1, "the file");

        if (r != 0)
                return r;
        if (read_file(path, &file) < 0 || send_import(client, &file, &answer) < 0)
                return EXIT_FAILED;
        if (client->is_json) {
                char *keys[] = { (char *)"changed", (char *)"warning" };
                struct value map = { .kind = VALUE_MAP, .items = answer.items, .keys = keys, .count = 2 };

                value_print_json(&map, client->screen.to);
                value_free(&answer);
                return EXIT_DONE;
        }
        if (answer.items[1].kind == VALUE_TEXT && answer.items[1].text[0])
                complain("warning: %s", answer.items[1].text);
        return end_change(client, &answer, "the CA certificate is taken; gatewayctl ca show tells from when it signs",
                          "nothing was changed");
}

int command_ca_roll(struct client *client, int count, char **arguments) {
        const char *within = NULL, *key = "";
        const struct command_option options[] = { { "--within", &within, NULL }, { "--key", &key, NULL } };
        struct value answer;
        int64_t seconds = -1;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r == 0 && within && strcmp(within, "0") == 0)
                seconds = 0;
        else if (r == 0 && within)
                r = read_span(within, &seconds);
        if (r != 0)
                return r;
        if (client_call(client, "CaRoll", 1, &answer, "xs", seconds, key) < 0)
                return EXIT_FAILED;
        return end_change(client, &answer, "the successor is on its way; gatewayctl ca show tells how far",
                          "nothing was changed");
}

int command_ca_crl(struct client *client, int count, char **arguments) {
        const char *number = "0";
        const struct command_option options[] = { { "--generation", &number, NULL } };
        struct value answer;
        unsigned long generation;
        char *end;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        errno = 0;
        generation = strtoul(number, &end, 10);
        if (*end || end == number || errno != 0 || generation > UINT32_MAX || number[0] == '-')
                return usage_error("--generation is a number, as gatewayctl ca show has them");
        if (client_call(client, "CaCrl", 1, &answer, "u", (uint32_t)generation) < 0)
                return EXIT_FAILED;
        return end_bytes(client, &answer, "crl", "X509 CRL");
}

/* ---- show ---- */

static enum colour state_colour(const char *state) {
        if (strcmp(state, "active") == 0)
                return COLOUR_GOOD;
        return strcmp(state, "requested") == 0 ? COLOUR_WARN : COLOUR_NONE;
}

static void add_generation(struct table *table, const struct value *generation, unix_sec now) {
        const char *state = value_text(generation, "state"), *subject = value_text(generation, "subject");
        bool has_key = value_bool(generation, "is_key_available"), is_stale = value_bool(generation, "is_crl_stale");
        bool is_root = value_bool(generation, "is_root");
        char text[SAY_MAX];

        table_add(table, COLOUR_NONE, "%" PRIu64, value_number(generation, "generation"));
        table_add(table, state_colour(state), "%s", state);
        table_add(table, COLOUR_NONE, "%s", is_root ? "root" : "sub-CA");
        table_add(table, COLOUR_NONE, "%s", subject[0] ? subject : "-");
        table_add(table, COLOUR_NONE, "%s", time_say(value_signed(generation, "not_after", 0), now, text));
        table_add(table, COLOUR_NONE, "%" PRIu64, value_number(generation, "leaves"));
        table_add(table, has_key ? COLOUR_NONE : COLOUR_BAD, "%.*s%s", (int)strcspn(value_text(generation, "key"), ":"),
                  value_text(generation, "key"), has_key ? "" : " (away)");
        table_add(table, is_stale ? COLOUR_WARN : COLOUR_NONE, "%" PRIu64 "%s", value_number(generation, "crl_number"),
                  is_stale ? " (stale)" : "");
}

static void put_server(const struct screen *screen, const struct value *server, unix_sec now) {
        char text[SAY_MAX];

        if (value_signed(server, "not_after", 0) == 0)
                return;
        fprintf(screen->to, "\nthe gateway's own certificate: %s, ends %s\n", value_text(server, "name"),
                time_say(value_signed(server, "not_after", 0), now, text));
}

static int show_pem(struct client *client) {
        struct value answer;

        if (client_call(client, "CaAnchors", 1, &answer, "") < 0)
                return EXIT_FAILED;
        return end_bytes(client, &answer, "certificates", "CERTIFICATE");
}

int command_ca_show(struct client *client, int count, char **arguments) {
        static const struct column columns[] = {
                { "GENERATION", true, false }, { "STATE", false, false }, { "KIND", false, false },
                { "SUBJECT", false, true },    { "ENDS", false, false },  { "LEAVES", true, false },
                { "KEY", false, false },       { "CRL", false, false },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };
        bool is_pem = false;
        const struct command_option options[] = { { "--pem", NULL, &is_pem } };
        struct value answer;
        unix_sec now;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (is_pem)
                return show_pem(client);
        if (client_now(client, &now) < 0 || client_call(client, "CaShow", 2, &answer, "") < 0)
                return EXIT_FAILED;
        if (client->is_json) {
                char *keys[] = { (char *)"generations", (char *)"server" };
                struct value map = { .kind = VALUE_MAP, .items = answer.items, .keys = keys, .count = 2 };

                value_print_json(&map, client->screen.to);
        } else if (answer.items[0].count == 0)
                fputs("there is no CA; gatewayctl ca init or ca csr makes one\n", client->screen.to);
        else {
                for (size_t i = 0; i < answer.items[0].count; i++)
                        add_generation(&table, &answer.items[0].items[i], now);
                table_print(&table, &client->screen);
                table_free(&table);
                put_server(&client->screen, &answer.items[1], now);
        }
        value_free(&answer);
        return EXIT_DONE;
}

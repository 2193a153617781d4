/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl device …, relay now: what operators do to devices. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "gatewayd/operator/gatewayctl_client.h"

/* The largest message that D-Bus carries, less its envelope. */
#define FILE_MAX (120 * 1024 * 1024)

/* ---- what the changing commands have in common ---- */

/* Says what came of it and turns it into an exit status. */
static int end_change(struct client *client, int r, struct value *answer, const char *done, const char *unchanged,
                      const char *subject) {
        bool is_changed;

        if (r < 0)
                return EXIT_FAILED;
        is_changed = answer->count > 0 && answer->items[0].kind == VALUE_BOOL && answer->items[0].boolean;
        value_free(answer);
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"changed\": %s\n}\n", is_changed ? "true" : "false");
        else
                fprintf(client->screen.to, "%s: %s\n", subject, is_changed ? done : unchanged);
        return is_changed ? EXIT_DONE : EXIT_UNCHANGED;
}

/* ---- registering ---- */

static int read_file(const char *path, struct buffer *to) {
        int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = -1;

        while (fd >= 0 && to->size <= FILE_MAX) {
                size = read(fd, buffer_reserve(to, 65536), 65536);
                if (size <= 0)
                        break;
                to->size += (size_t)size;
        }
        if (size < 0)
                complain("%s: %s", path, strerror(errno));
        else if (to->size > FILE_MAX)
                complain("%s: larger than %d MiB", path, FILE_MAX / 1024 / 1024);
        else if (memchr(buffer_bytes(to).size ? to->data : (const uint8_t *)"x", 0, to->size ? to->size : 1))
                complain("%s: not a text file", path);
        else {
                *buffer_reserve(to, 1) = 0;
                close(fd);
                return 0;
        }
        if (fd >= 0)
                close(fd);
        return -EINVAL;
}

static int end_registering(struct client *client, int r, struct value *answer, bool is_dry_run) {
        uint64_t added;

        if (r < 0)
                return EXIT_FAILED;
        added = answer->items[0].number;
        if (client->is_json) {
                char *keys[] = { (char *)"added", (char *)"warnings" };
                struct value map = { .kind = VALUE_MAP, .items = answer->items, .keys = keys, .count = 2 };

                value_print_json(&map, client->screen.to);
        } else {
                for (size_t i = 0; i < answer->items[1].count; i++)
                        complain("warning: %s", answer->items[1].items[i].text);
                fprintf(client->screen.to, "%" PRIu64 " %s %s\n", added, added == 1 ? "device" : "devices",
                        is_dry_run ? "would be added" : "added");
        }
        value_free(answer);
        return added > 0 && !is_dry_run ? EXIT_DONE : EXIT_UNCHANGED;
}

int command_device_import(struct client *client, int count, char **arguments) {
        bool is_csv = false, is_dry_run = false, is_json;
        const char *path, *format = NULL;
        const struct command_option options[] = {
                { "--format", &format, NULL },
                { "--dry-run", NULL, &is_dry_run },
        };
        struct buffer text = { 0 };
        struct value answer;
        size_t size;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &path, 1, 1, "the file");

        if (r != 0)
                return r;
        size = strlen(path);
        is_json = format ? strcmp(format, "json") == 0 : size > 5 && strcmp(path + size - 5, ".json") == 0;
        is_csv = format ? strcmp(format, "csv") == 0 : size > 4 && strcmp(path + size - 4, ".csv") == 0;
        if (!is_json && !is_csv)
                return usage_error("%s: is it CSV or JSON? Name it .csv or .json, or say --format csv|json",
                                   format ? format : path);
        if (read_file(path, &text) < 0) {
                buffer_free(&text);
                return EXIT_FAILED;
        }
        r = client_call(client, "ImportDevices", 2, &answer, "sbb", (const char *)text.data, (int)is_json,
                        (int)is_dry_run);
        buffer_free(&text);
        return end_registering(client, r, &answer, is_dry_run);
}

/* A key given as it is, or as @FILE or - (standard input): what stands on a command line is seen by all
 * users of the machine. */
static int read_key(const char *argument, struct buffer *to) {
        if (argument[0] == '@' || strcmp(argument, "-") == 0) {
                if (read_file(argument[0] == '@' ? argument + 1 : argument, to) < 0)
                        return -EINVAL;
                while (to->size > 0 && strchr("\r\n", to->data[to->size - 1]))
                        to->data[--to->size] = 0;
        } else {
                buffer_append(to, bytes_of(argument));
                *buffer_reserve(to, 1) = 0;
        }
        return 0;
}

int command_device_add(struct client *client, int count, char **arguments) {
        const char *id, *profile = NULL, *psk = NULL, *idevid = NULL, *key_file = NULL;
        const struct command_option options[] = {
                { "--profile", &profile, NULL },
                { "--psk", &psk, NULL },
                { "--idevid", &idevid, NULL },
                { "--attestation-key", &key_file, NULL },
        };
        struct buffer secret = { 0 }, key = { 0 };
        struct value answer;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        if (!profile || !psk == !idevid)
                return usage_error("device add needs --profile, and --psk or --idevid");
        if (psk)
                r = read_key(psk, &secret);
        if (r >= 0 && key_file)
                r = read_file(key_file, &key);
        if (r >= 0)
                r = client_call(client, "AddDevice", 2, &answer, "sssss", id, profile,
                                secret.data ? (const char *)secret.data : "", key.data ? (const char *)key.data : "",
                                idevid && strcmp(idevid, "any") != 0 ? idevid : "");
        buffer_free(&secret);
        buffer_free(&key);
        return end_registering(client, r, &answer, false);
}

/* ---- one device ---- */

int command_device_remove(struct client *client, int count, char **arguments) {
        struct value answer;
        const char *id;
        int r = take_arguments(count, arguments, NULL, 0, &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        r = client_call(client, "RemoveDevice", 1, &answer, "s", id);
        return end_change(client, r, &answer, "removed", "was not there", id);
}

int command_device_revoke(struct client *client, int count, char **arguments) {
        const char *id, *reason = "";
        const struct command_option options[] = { { "--reason", &reason, NULL } };
        struct value answer;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        r = client_call(client, "RevokeDevice", 1, &answer, "ss", id, reason);
        return end_change(client, r, &answer, "revoked; its sessions have ended", "was revoked already", id);
}

int command_device_reset(struct client *client, int count, char **arguments) {
        const char *id, *span = NULL;
        const struct command_option options[] = { { "--for", &span, NULL } };
        char done[128];
        struct value answer;
        int64_t seconds;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        if (!span)
                return usage_error("device reset needs --for SPAN, as in --for 1h");
        r = read_span(span, &seconds);
        if (r != 0)
                return r;
        snprintf(done, sizeof done, "may use its factory key for %s", span);
        r = client_call(client, "ResetDevice", 1, &answer, "sx", id, seconds);
        return end_change(client, r, &answer, done, "unchanged", id);
}

int command_device_release(struct client *client, int count, char **arguments) {
        struct value answer;
        const char *id;
        int r = take_arguments(count, arguments, NULL, 0, &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        r = client_call(client, "ReleaseDevice", 1, &answer, "s", id);
        return end_change(client, r, &answer, "released", "nothing held it", id);
}

int command_relay_now(struct client *client, int count, char **arguments) {
        struct value answer;
        int r = take_arguments(count, arguments, NULL, 0, NULL, 0, 0, "");

        if (r != 0)
                return r;
        r = client_call(client, "RelayNow", 1, &answer, "");
        return end_change(client, r, &answer, "is being tried", "nothing to try", "uplink");
}

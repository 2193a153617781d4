/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl backup, restore, recover, missing. gatewayd pours a backup into a pipe; the file is written and synced
 * here, so that a slow stick holds up nobody. restore and recover work beside a gatewayd that does not run. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "config/config.h"
#include "gatewayd/backup/place.h"
#include "gatewayd/operator/gatewayctl_client.h"

#define CONFIG_PATH "/etc/gatewayd/gatewayd.conf"
#define PIPE_BYTES  (1024 * 1024)

/* ---- backup ---- */

struct kept_file {
        const char *path;
        char part[PATH_MAX];
        int fd, pipe[2];
        int error;
};

static void file_failed(struct kept_file *file, int error) {
        if (file->error == 0)
                file->error = error;
}

/* Reads until gatewayd has closed the pipe, and writes it down; what fails is remembered. */
static void drain(void *arg) {
        struct kept_file *file = arg;
        uint8_t data[65536];
        ssize_t n, written;

        close(file->pipe[1]);
        file->pipe[1] = -1;
        while ((n = read(file->pipe[0], data, sizeof data)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        file_failed(file, errno);
                        break;
                }
                for (ssize_t at = 0; at < n; at += written) {
                        written = write(file->fd, data + at, (size_t)(n - at));
                        if (written < 0) {
                                file_failed(file, errno);
                                break;
                        }
                }
                if (file->error != 0)
                        break;
        }
        close(file->pipe[0]); /* where it was given up, gatewayd learns of it by this */
        file->pipe[0] = -1;
}

static int open_part(struct kept_file *file) {
        if (snprintf(file->part, sizeof file->part, "%s.part", file->path) >= (int)sizeof file->part)
                return -ENAMETOOLONG;
        file->fd = open(file->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (file->fd < 0)
                return -errno;
        if (fchmod(file->fd, 0600) < 0 || pipe2(file->pipe, O_CLOEXEC) < 0)
                return -errno;
        (void)fcntl(file->pipe[1], F_SETPIPE_SZ, PIPE_BYTES); /* a smaller one will do */
        return 0;
}

static void close_part(struct kept_file *file) {
        for (size_t i = 0; i < 2; i++)
                if (file->pipe[i] >= 0)
                        close(file->pipe[i]);
        if (file->fd >= 0)
                close(file->fd);
        if (file->fd >= 0 && file->part[0])
                (void)unlink(file->part); /* after a rename it is not there */
}

static int keep(struct kept_file *file) {
        char folder[PATH_MAX];
        int fd, r = 0;

        if (file->error != 0)
                return -file->error;
        if (fsync(file->fd) < 0 || rename(file->part, file->path) < 0)
                return -errno;
        path_folder(file->path, folder, sizeof folder);
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fsync(fd) < 0)
                r = -errno;
        close(fd);
        return r;
}

static int ask_for_backup(struct client *client, struct kept_file *file, const char *recipient, struct value *ret) {
        sd_bus_message *message = NULL;
        int r = client_message(client, "Backup", &message);

        if (r < 0)
                return r;
        r = sd_bus_message_append(message, "hs", file->pipe[1], recipient);
        if (r < 0) {
                complain("the pipe cannot be sent: %s", strerror(-r));
                sd_bus_message_unref(message);
                return r;
        }
        return client_send_then(client, message, drain, file, 4, ret);
}

static int end_backup(struct client *client, struct kept_file *file, struct value *made) {
        uint64_t bytes = made->items[2].number;
        const char *recipient = made->items[1].kind == VALUE_TEXT ? made->items[1].text : "";
        struct value answer;
        char size[SAY_MAX];
        int r = keep(file);

        if (r < 0) {
                complain("%s: %s; no backup was made", file->path, strerror(-r));
                return EXIT_FAILED;
        }
        if (client_call(client, "BackupKept", 1, &answer, "x", made->items[0].integer) < 0) {
                complain("%s is a whole backup, but gatewayd could not note that it was made", file->path);
                return EXIT_FAILED;
        }
        value_free(&answer);
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"bytes\": %llu,\n  \"recipient\": \"%s\"\n}\n",
                        (unsigned long long)bytes, recipient);
        else
                fprintf(client->screen.to, "%s: %s, opened by the key of %s\n", file->path, bytes_say(bytes, size),
                        recipient);
        return EXIT_DONE;
}

int command_backup(struct client *client, int count, char **arguments) {
        const char *recipient = "", *operands[1];
        const struct command_option options[] = { { "--recipient", &recipient, NULL } };
        struct kept_file file = { .fd = -1, .pipe = { -1, -1 } };
        struct value made;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), operands, 1, 1, "FILE");

        if (r != 0)
                return r;
        file.path = operands[0];
        r = open_part(&file);
        if (r < 0) {
                complain("%s: %s", file.part[0] ? file.part : file.path, strerror(-r));
                close_part(&file);
                return EXIT_FAILED;
        }
        if (ask_for_backup(client, &file, recipient, &made) < 0) {
                if (file.error != 0)
                        complain("%s: %s", file.part, strerror(file.error));
                r = EXIT_FAILED;
        } else {
                r = end_backup(client, &file, &made);
                value_free(&made);
        }
        close_part(&file);
        return r;
}

/* ---- restore, recover ---- */

/* Where gatewayd keeps its store: as configured on this machine. */
static void find_store(const char *asked, char to[PATH_MAX]) {
        struct config_problems problems = { 0 };
        struct config *config = NULL;

        if (!asked && config_load(CONFIG_PATH, &config, &problems) >= 0)
                snprintf(to, PATH_MAX, "%s", config->store_path);
        else
                snprintf(to, PATH_MAX, "%s", asked ? asked : "/var/lib/gatewayd/store.db");
        config_free(config);
        config_problems_free(&problems);
}

static int read_key(const char *path, uint8_t ret[AGE_KEY_BYTES]) {
        uint8_t text[4096];
        int fd = open(path, O_RDONLY | O_CLOEXEC), r;
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);

        if (n < 0)
                complain("%s: %s", path, strerror(errno));
        if (fd >= 0)
                close(fd);
        if (n < 0)
                return -EIO;
        r = age_identity_parse(BYTES(text, (size_t)n), ret);
        OPENSSL_cleanse(text, sizeof text);
        if (r < 0)
                complain("%s holds no key: AGE-SECRET-KEY-1…, or the 64 hex digits of a recovery key", path);
        return r;
}

static void say_copy(struct client *client, const char *name, const char *store, const struct store_copy *copy) {
        char made[SAY_MAX] = "", incarnation[2 * INCARNATION_BYTES + 1];
        time_t wall = (time_t)copy->made.wall;
        struct tm parts;

        if (copy->is_backup && gmtime_r(&wall, &parts))
                strftime(made, sizeof made, "%Y-%m-%dT%H:%M:%SZ", &parts);
        bytes_to_hex(BYTES(copy->incarnation, sizeof copy->incarnation), incarnation);
        if (client->is_json) {
                char *keys[] = { (char *)"command", (char *)"store", (char *)"made", (char *)"devices",
                                 (char *)"incarnation" };
                struct value items[] = {
                        { .kind = VALUE_TEXT, .text = (char *)name }, { .kind = VALUE_TEXT, .text = (char *)store },
                        { .kind = VALUE_TEXT, .text = made },         { .kind = VALUE_NUMBER, .number = copy->devices },
                        { .kind = VALUE_TEXT, .text = incarnation },
                };
                struct value map = { .kind = VALUE_MAP, .items = items, .keys = keys, .count = ELEMENTS(items) };

                value_print_json(&map, client->screen.to);
        } else if (made[0])
                fprintf(client->screen.to, "%s: %llu devices, from a backup made %s\n", store,
                        (unsigned long long)copy->devices, made);
        else
                fprintf(client->screen.to, "%s: %llu devices\n", store, (unsigned long long)copy->devices);
}

static int failed(const struct problem *problem, int error) {
        complain("%s; nothing was changed", problem->detail[0] ? problem->detail : strerror(-error));
        return EXIT_FAILED;
}

int command_restore(struct client *client, int count, char **arguments) {
        const char *key_path = NULL, *asked = NULL, *operands[1];
        bool is_forced = false;
        const struct command_option options[] = { { "--key", &key_path, NULL },
                                                  { "--store", &asked, NULL },
                                                  { "--force", NULL, &is_forced } };
        struct problem problem = { 0 };
        uint8_t key[AGE_KEY_BYTES];
        struct restored restored;
        char store[PATH_MAX];
        int r = take_arguments(count, arguments, options, ELEMENTS(options), operands, 1, 1, "FILE");

        if (r == 0 && !key_path)
                r = usage_error("--key KEYFILE is missing: the key to which the backup was encrypted");
        if (r != 0)
                return r;
        if (read_key(key_path, key) < 0)
                return EXIT_FAILED;
        find_store(asked, store);
        r = place_restore(operands[0], store, key, is_forced, &restored, &problem);
        OPENSSL_cleanse(key, sizeof key);
        if (r < 0)
                return failed(&problem, r);
        say_copy(client, "restore", store, &restored.copy);
        if (restored.kept[0])
                fprintf(stderr, "The store that was there is kept as %s.\n", restored.kept);
        fputs("Start gatewayd (systemctl start gatewayd); gatewayctl missing then tells which devices have not come\n"
              "yet and what brings each back. What was revoked since the backup must be revoked again. The gateway\n"
              "from which the backup came must never run again.\n",
              stderr);
        return EXIT_DONE;
}

int command_recover(struct client *client, int count, char **arguments) {
        const char *key_path = NULL, *asked = NULL;
        const struct command_option options[] = { { "--key", &key_path, NULL }, { "--store", &asked, NULL } };
        struct problem problem = { 0 };
        uint8_t key[AGE_KEY_BYTES];
        struct store_copy copy;
        char store[PATH_MAX];
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r == 0 && !key_path)
                r = usage_error("--key KEYFILE is missing: the store's recovery key");
        if (r != 0)
                return r;
        if (read_key(key_path, key) < 0)
                return EXIT_FAILED;
        find_store(asked, store);
        r = place_recover(store, key, &copy, &problem);
        OPENSSL_cleanse(key, sizeof key);
        if (r < 0)
                return failed(&problem, r);
        say_copy(client, "recover", store, &copy);
        fputs("The key opens the store. Make a new sealing credential (gatewayd(8), CREDENTIALS), or a key file is\n"
              "made, and start gatewayd: it takes the store over and forgets this key.\n",
              stderr);
        return EXIT_DONE;
}

/* ---- missing ---- */

static int ask_missing(struct client *client, struct value *ret, unix_sec *ret_restored) {
        _cleanup_(freep) char *after = xstrdup("");

        *ret = (struct value){ .kind = VALUE_LIST };
        for (;;) {
                struct value page;

                if (client_call(client, "ListMissing", 3, &page, "su", after, 1000) < 0) {
                        value_free(ret);
                        return -EIO;
                }
                freep(&after);
                after = xstrdup(page.items[1].kind == VALUE_TEXT ? page.items[1].text : "");
                *ret_restored = page.items[2].kind == VALUE_SIGNED ? page.items[2].integer : 0;
                client_move_items(ret, &page.items[0]);
                value_free(&page);
                if (!after[0])
                        return 0;
        }
}

static void print_missing(struct client *client, const struct value *list, unix_sec now) {
        static const struct column columns[] = {
                { "DEVICE", false, false },       { "PROFILE", false, false },  { "LAST SEEN", false, false },
                { "COMES BACK BY", false, true }, { "OTHERWISE", false, true },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };
        char when[SAY_MAX];

        for (size_t i = 0; i < list->count; i++) {
                const struct value *device = &list->items[i];
                const char *otherwise = value_text(device, "otherwise");

                table_add(&table, COLOUR_BOLD, "%s", value_text(device, "id"));
                table_add(&table, COLOUR_NONE, "%s", value_text(device, "profile"));
                table_add(&table, COLOUR_NONE, "%s", time_say(value_signed(device, "last_seen", 0), now, when));
                table_add(&table, COLOUR_NONE, "%s", value_text(device, "comes_back_by"));
                table_add(&table, COLOUR_DIM, "%s", otherwise[0] ? otherwise : "-");
        }
        table_print(&table, &client->screen);
        table_free(&table);
}

int command_missing(struct client *client, int count, char **arguments) {
        unix_sec now, restored;
        struct value list;
        int r = take_arguments(count, arguments, NULL, 0, NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (ask_missing(client, &list, &restored) < 0)
                return EXIT_FAILED;
        if (client->is_json)
                value_print_json(&list, client->screen.to);
        else if (restored == 0)
                fputs("This store was never restored from a backup: nobody is missing.\n", client->screen.to);
        else if (list.count == 0)
                fputs("All devices have come back.\n", client->screen.to);
        else if (client_now(client, &now) >= 0)
                print_missing(client, &list, now);
        value_free(&list);
        return EXIT_DONE;
}

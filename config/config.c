/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration as a whole: gatewayd.conf, the drop-ins beside it, defaults. What a file says is
 * config_read.c's subject, whether it makes sense config_check.c's. */

#include "config/load_text.h"
#include "config/loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1024 * 1024)
#define DAY INT64_C(86400)
/* Derives the gateway's id from the machine's, so that the latter stays unknown to others. */
#define GATEWAY_ID_APPLICATION SD_ID128_MAKE(6b, 1e, 5f, 0c, 83, 4d, 4b, 9a, 92, 6e, 0d, 5a, 71, c4, e8, 33)

static const int64_t class_limit_days[3][3] = {
        /* criticality: low, medium, high */
        { 730, 365, 180 }, /* sensitivity low */
        { 365, 180, 90 },  /* medium */
        { 180, 90, 30 },   /* high */
};

static struct config *config_new(void) {
        struct config *config = xcalloc(1, sizeof *config);
        sd_id128_t id;

        /* No machine id: left empty, and loader_check() says so unless a file names one. */
        if (sd_id128_get_machine_app_specific(GATEWAY_ID_APPLICATION, &id) >= 0)
                sd_id128_to_string(id, config->gateway_id);
        strcpy(config->listen[0], "[::]:5684");
        config->listen_count = 1;
        strcpy(config->store_path, "/var/lib/gatewayd/store.db");
        strcpy(config->control_path, "/run/gatewayd/control");
        config->max_sessions = 20000;
        config->max_body_bytes = 16 * 1024;
        config->backlog_records = 1000000;
        config->backlog_bytes = INT64_C(1) << 30;
        config->audit_keep_sec = 5 * INT64_C(31557600);
        config->north.retry_min_sec = 1;
        config->north.retry_max_sec = 300;
        config->north.batch_records = 64;
        config->north.timeout_sec = 30;
        for (size_t s = 0; s < 3; s++)
                for (size_t c = 0; c < 3; c++)
                        config->class_limit_sec[s][c] = class_limit_days[s][c] * DAY;
        return config;
}

struct config *config_free(struct config *config) {
        if (!config)
                return NULL;
        for (size_t i = 0; i < config->profile_count; i++)
                free(config->profiles[i].references);
        free(config->profiles);
        free(config);
        return NULL;
}

void config_freep(struct config **config) {
        config_free(*config);
}

const struct profile *config_profile(const struct config *config, const char *name) {
        for (size_t i = 0; i < config->profile_count; i++)
                if (strcmp(config->profiles[i].name, name) == 0)
                        return &config->profiles[i];
        return NULL;
}

/* Judges what was read, hands over the problems, and the configuration when there was no error. */
static int loader_finish(struct loader *loader, int error, struct config **ret, struct config_problems *problems) {
        if (error == 0 && !loader->is_torn) {
                loader_derive(loader);
                loader_check(loader);
        }
        if (error == 0 && loader->error_count > 0)
                error = -EINVAL;
        loader_report(loader, problems);
        free(loader->profiles);
        if (error < 0)
                config_free(loader->config);
        else
                *ret = loader->config;
        return error;
}

int config_load_text(const char *name, struct bytes text, struct config **ret, struct config_problems *problems) {
        struct loader loader = { .config = config_new() };

        loader_read(&loader, name, text);
        return loader_finish(&loader, 0, ret, problems);
}

/* Reads a whole file. Returns 0, -EFBIG, or why it cannot be read. */
static int file_read(int folder, const char *path, struct buffer *to) {
        int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        ssize_t n;

        if (fd < 0)
                return -errno;
        do {
                n = read(fd, buffer_reserve(to, 65536), 65536);
                if (n > 0)
                        to->size += (size_t)n;
        } while ((n > 0 && to->size <= FILE_BYTES_MAX) || (n < 0 && errno == EINTR));
        if (n < 0)
                n = -errno;
        close(fd);
        return n < 0 ? (int)n : to->size > FILE_BYTES_MAX ? -EFBIG : 0;
}

/* Notes a file that could not be read, under its name. */
static void file_problem(struct loader *loader, const char *path, int error) {
        struct place place = { .file = (unsigned)loader->file_count };

        if (loader->file_count == ELEMENTS(loader->files))
                return;
        loader->files[loader->file_count++] = path;
        loader_problem(loader, place, "cannot be read: %s", strerror(-error));
}

static int drop_in_filter(const struct dirent *entry) {
        size_t length = strlen(entry->d_name);

        return entry->d_name[0] != '.' && length > 5 && strcmp(entry->d_name + length - 5, ".conf") == 0;
}

static int drop_in_compare(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name); /* not the locale's order */
}

/* Reads conf.d beside the main file. `names` keeps the paths alive until the report. */
static int drop_ins_read(struct loader *loader, const char *folder, char **names) {
        struct dirent **entries = NULL;
        int count = scandir(folder, &entries, drop_in_filter, drop_in_compare), r;
        size_t used = 0;

        if (count < 0 && errno == ENOENT)
                return 0;
        if (count < 0) {
                r = -errno;
                file_problem(loader, folder, r);
                return r;
        }
        for (int i = 0; i < count; i++) {
                _cleanup_(buffer_free) struct buffer text = { 0 }, path = { 0 };

                if (loader->file_count < ELEMENTS(loader->files)) {
                        buffer_printf(&path, "%s/%s", folder, entries[i]->d_name);
                        buffer_append(&path, BYTES("", 1));
                        names[used] = xstrdup((const char *)path.data);
                        r = file_read(AT_FDCWD, names[used], &text);
                        if (r < 0)
                                file_problem(loader, names[used], r);
                        else
                                loader_read(loader, names[used], buffer_bytes(&text));
                        used++;
                } else if (i + 1 == count) {
                        loader_problem(loader, (struct place){ .file = 0 }, "more than %zu drop-ins",
                                       ELEMENTS(loader->files) - 1);
                }
                free(entries[i]);
        }
        free(entries);
        return 0;
}

int config_load(const char *path, struct config **ret, struct config_problems *problems) {
        struct loader loader = { .config = config_new() };
        _cleanup_(buffer_free) struct buffer text = { 0 }, folder = { 0 };
        char *names[ELEMENTS(loader.files)] = { NULL };
        const char *slash = strrchr(path, '/');
        int r;

        r = file_read(AT_FDCWD, path, &text);
        if (r < 0) {
                file_problem(&loader, path, r);
                return loader_finish(&loader, r, ret, problems);
        }
        loader_read(&loader, path, buffer_bytes(&text));
        buffer_printf(&folder, "%.*sconf.d", slash ? (int)(slash - path) + 1 : 0, path);
        buffer_append(&folder, BYTES("", 1));
        r = drop_ins_read(&loader, (const char *)folder.data, names);
        r = loader_finish(&loader, r, ret, problems);
        for (size_t i = 0; i < ELEMENTS(names); i++)
                free(names[i]);
        return r;
}

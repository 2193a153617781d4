/* SPDX-License-Identifier: Apache-2.0 */

/* Which texts a configuration comes from: gatewayd.conf and the drop-ins beside it, or a snapshot of them
 * in memory. All are gathered first, then read in their order. Files that they name (certificates) are read
 * when they are needed, once, and belong to the snapshot too. */

#include "config/loader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1024 * 1024)
#define SOURCES_MAX    ELEMENTS(((struct loader *)NULL)->files)

/* A snapshot begins with these bytes and their NUL. Then, for each text and each file that they name: the
 * sizes of its name (with its NUL) and of its content, which of both it is, the name, the content. Both ends
 * are the same executable on the same machine. */
#define SNAPSHOT_MAGIC "gatewayd configuration"
struct snapshot_entry {
        uint32_t name_size, content_size;
        uint32_t is_attachment;
};

struct source {
        char *name;
        struct buffer text;
        int error; /* why it could not be read */
};

struct sources {
        struct source items[SOURCES_MAX];
        size_t count;
        bool is_full; /* there were more */
        struct attachments attachments;
};

static void sources_free(struct sources *sources) {
        for (size_t i = 0; i < sources->count; i++) {
                free(sources->items[i].name);
                buffer_free(&sources->items[i].text);
        }
        attachments_free(&sources->attachments);
}

void attachments_free(struct attachments *attachments) {
        for (size_t i = 0; i < attachments->count; i++) {
                free(attachments->items[i].path);
                buffer_free(&attachments->items[i].content);
        }
}

static struct source *source_add(struct sources *sources, const char *name) {
        struct source *source = &sources->items[sources->count];

        if (sources->count == SOURCES_MAX) {
                sources->is_full = true;
                return NULL;
        }
        sources->count++;
        source->name = xstrdup(name);
        return source;
}

/* Reads a whole file. Returns 0, -EFBIG, or why it cannot be read. */
static int file_read(const char *path, int flags, struct buffer *to) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | flags);
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

static void source_read(struct sources *sources, const char *path) {
        struct source *source = source_add(sources, path);

        if (source)
                source->error = file_read(path, 0, &source->text);
}

/* Nothing that may block, nor a device: regular files only. */
static int attachment_read(const char *path, struct buffer *to) {
        struct stat st;

        if (stat(path, &st) < 0)
                return -errno;
        return S_ISREG(st.st_mode) ? file_read(path, O_NONBLOCK, to) : -EINVAL;
}

/* A place for one more, or NULL. */
static struct buffer *attachment_add(struct attachments *attachments, const char *path) {
        if (attachments->count == ATTACHMENTS_MAX)
                return NULL;
        attachments->items[attachments->count].path = xstrdup(path);
        return &attachments->items[attachments->count++].content;
}

int attachment_get(struct attachments *attachments, const char *path, struct bytes *ret) {
        struct buffer content = { 0 }, *kept;
        int r;

        for (size_t i = 0; i < attachments->count; i++)
                if (strcmp(attachments->items[i].path, path) == 0) {
                        *ret = buffer_bytes(&attachments->items[i].content);
                        return 0;
                }
        if (attachments->is_complete)
                return -ENOENT;
        r = attachment_read(path, &content);
        kept = r < 0 ? NULL : attachment_add(attachments, path);
        if (!kept) {
                buffer_free(&content);
                return r < 0 ? r : -ENFILE;
        }
        *kept = content;
        *ret = buffer_bytes(kept);
        return 0;
}

static int drop_in_filter(const struct dirent *entry) {
        size_t length = strlen(entry->d_name);

        return entry->d_name[0] != '.' && length > 5 && strcmp(entry->d_name + length - 5, ".conf") == 0;
}

static int drop_in_compare(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name); /* not the locale's order */
}

static void drop_ins_read(struct sources *sources, const char *folder) {
        struct dirent **entries = NULL;
        int count = scandir(folder, &entries, drop_in_filter, drop_in_compare);
        struct source *source;

        if (count < 0 && errno != ENOENT) {
                source = source_add(sources, folder);
                if (source)
                        source->error = -errno;
        }
        for (int i = 0; i < count; i++) {
                _cleanup_(buffer_free) struct buffer path = { 0 };

                buffer_printf(&path, "%s/%s", folder, entries[i]->d_name);
                buffer_append(&path, BYTES("", 1));
                source_read(sources, (const char *)path.data);
                free(entries[i]);
        }
        free(entries);
}

static void sources_read(struct sources *sources, const char *path) {
        _cleanup_(buffer_free) struct buffer folder = { 0 };
        const char *slash = strrchr(path, '/');

        source_read(sources, path);
        if (sources->items[0].error < 0)
                return;
        buffer_printf(&folder, "%.*sconf.d", slash ? (int)(slash - path) + 1 : 0, path);
        buffer_append(&folder, BYTES("", 1));
        drop_ins_read(sources, (const char *)folder.data);
}

/* Reads the texts in their order and judges the whole. Returns as config_load(). */
static int sources_load(struct sources *sources, struct config **ret, struct config_problems *problems) {
        struct loader loader = { .config = config_new(), .attachments = &sources->attachments };
        int error = 0;

        for (size_t i = 0; i < sources->count; i++) {
                const struct source *source = &sources->items[i];

                if (source->error == 0) {
                        loader_read(&loader, source->name, buffer_bytes(&source->text));
                        continue;
                }
                loader.files[loader.file_count] = source->name;
                loader_problem(&loader, (struct place){ .file = (unsigned)loader.file_count++ }, "cannot be read: %s",
                               strerror(-source->error));
                if (error == 0)
                        error = i == 0 ? source->error : -EINVAL;
        }
        if (sources->is_full)
                loader_problem(&loader, (struct place){ .file = 0 }, "more than %zu drop-ins", SOURCES_MAX - 1);
        return loader_finish(&loader, error, ret, problems);
}

int config_load(const char *path, struct config **ret, struct config_problems *problems) {
        _cleanup_(sources_free) struct sources sources = { .count = 0 };

        sources_read(&sources, path);
        return sources_load(&sources, ret, problems);
}

/* ---- snapshots ----------------------------------------------------------------------------------- */

static int write_all(int fd, struct bytes bytes) {
        while (bytes.size > 0) {
                ssize_t n = write(fd, bytes.data, bytes.size);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0)
                        bytes = BYTES(bytes.data + n, bytes.size - (size_t)n);
        }
        return 0;
}

static void snapshot_append(struct buffer *all, const char *name, struct bytes content, bool is_attachment) {
        struct snapshot_entry entry = { (uint32_t)strlen(name) + 1, (uint32_t)content.size, is_attachment };

        buffer_append(all, BYTES(&entry, sizeof entry));
        buffer_append(all, BYTES(name, entry.name_size));
        buffer_append(all, content);
}

/* Puts the texts into a memory file that nobody can change any more. Returns it, or -errno. */
static int snapshot_make(const struct sources *sources) {
        _cleanup_(buffer_free) struct buffer all = { 0 };
        int fd, r;

        buffer_append(&all, BYTES(SNAPSHOT_MAGIC, sizeof SNAPSHOT_MAGIC));
        for (size_t i = 0; i < sources->count; i++)
                snapshot_append(&all, sources->items[i].name, buffer_bytes(&sources->items[i].text), false);
        for (size_t i = 0; i < sources->attachments.count; i++)
                snapshot_append(&all, sources->attachments.items[i].path,
                                buffer_bytes(&sources->attachments.items[i].content), true);
        fd = memfd_create("gatewayd.conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return -errno;
        r = write_all(fd, buffer_bytes(&all));
        if (r >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
                r = -errno;
        if (r >= 0)
                return fd;
        close(fd);
        return r;
}

int config_load_snapshot(const char *path, int *ret_fd, struct config **ret, struct config_problems *problems) {
        _cleanup_(sources_free) struct sources sources = { .count = 0 };
        int r, fd;

        sources_read(&sources, path);
        r = sources_load(&sources, ret, problems);
        if (r < 0)
                return r;
        fd = snapshot_make(&sources);
        if (fd >= 0) {
                *ret_fd = fd;
                return 0;
        }
        *ret = config_free(*ret);
        config_problems_free(problems);
        problems->lines = xcalloc(1, sizeof(char *));
        problems->lines[0] = xstrdup("no memory file for the configuration can be made");
        problems->count = 1;
        return fd;
}

/* Takes `count` bytes off the front, or false. */
static bool take(struct bytes *from, size_t count, struct bytes *ret) {
        if (from->size < count)
                return false;
        *ret = BYTES(from->data, count);
        *from = BYTES(from->data + count, from->size - count);
        return true;
}

static bool snapshot_take(struct sources *to, const char *name, struct bytes content, bool is_attachment) {
        struct source *source = is_attachment ? NULL : source_add(to, name);
        struct buffer *buffer = is_attachment ? attachment_add(&to->attachments, name) : source ? &source->text : NULL;

        if (buffer)
                buffer_append(buffer, content);
        return buffer != NULL;
}

/* Returns 0 or -EBADMSG. */
static int snapshot_parse(struct bytes all, struct sources *ret) {
        struct bytes magic, head, name, content;
        struct snapshot_entry entry;

        ret->attachments.is_complete = true;
        if (!take(&all, sizeof SNAPSHOT_MAGIC, &magic) || !bytes_equal(magic, BYTES(SNAPSHOT_MAGIC, magic.size)))
                return -EBADMSG;
        while (all.size > 0) {
                if (!take(&all, sizeof entry, &head))
                        return -EBADMSG;
                memcpy(&entry, head.data, sizeof entry);
                if (entry.name_size == 0 || !take(&all, entry.name_size, &name) ||
                    memchr(name.data, 0, name.size) != name.data + name.size - 1 ||
                    !take(&all, entry.content_size, &content) ||
                    !snapshot_take(ret, (const char *)name.data, content, entry.is_attachment != 0))
                        return -EBADMSG;
        }
        return ret->count > 0 ? 0 : -EBADMSG;
}

static int descriptor_read(int fd, struct buffer *to) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size > (off_t)((SOURCES_MAX + ATTACHMENTS_MAX) * (FILE_BYTES_MAX + 4096)))
                return -EBADMSG;
        while (to->size < (size_t)st.st_size) {
                ssize_t n = pread(fd, buffer_reserve(to, 65536), 65536, (off_t)to->size);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n == 0)
                        return -EBADMSG;
                if (n > 0)
                        to->size += (size_t)n;
        }
        return 0;
}

int config_load_descriptor(int fd, struct config **ret, struct config_problems *problems) {
        _cleanup_(sources_free) struct sources sources = { .count = 0 };
        _cleanup_(buffer_free) struct buffer all = { 0 };
        int r;

        r = descriptor_read(fd, &all);
        if (r >= 0)
                r = snapshot_parse(buffer_bytes(&all), &sources);
        if (r >= 0)
                return sources_load(&sources, ret, problems);
        problems->lines = xcalloc(1, sizeof(char *));
        problems->lines[0] = xstrdup("the descriptor holds no configuration");
        problems->count = 1;
        return r;
}

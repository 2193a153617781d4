/* SPDX-License-Identifier: Apache-2.0 */

/* The files of diskfs: what processes see of each, what is durable, and what lies between the two. */

#include "tests/system/diskfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct disk disk = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *must(void *memory) {
        if (!memory) {
                perror("diskfs");
                _exit(3);
        }
        return memory;
}

static uint32_t random_below(uint32_t below) {
        disk.seed = disk.seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t)(disk.seed >> 33) % below;
}

/* ---- content ---- */

static void content_resize(struct content *content, size_t size) {
        if (size > content->capacity) {
                content->capacity = size * 2;
                content->data = must(realloc(content->data, content->capacity));
        }
        if (size > content->size)
                memset(content->data + content->size, 0, size - content->size);
        content->size = size;
}

static void content_put(struct content *content, size_t offset, const void *data, size_t size) {
        if (offset + size > content->size)
                content_resize(content, offset + size);
        if (size > 0)
                memcpy(content->data + offset, data, size);
}

static void content_copy(struct content *to, const struct content *from) {
        content_resize(to, from->size);
        if (from->size > 0)
                memcpy(to->data, from->data, from->size);
}

static void content_apply(struct content *content, const struct change *change) {
        if (change->data)
                content_put(content, change->offset, change->data, change->size);
        else
                content_resize(content, change->offset);
}

/* ---- files ---- */

void file_change(struct file *file, size_t offset, const void *data, size_t size) {
        struct change change = { .offset = offset, .size = size };

        if (data)
                change.data = memcpy(must(malloc(size + 1)), data, size);
        content_apply(&file->now, &change);
        if (file->is_scratch) {
                free(change.data);
                return;
        }
        if (file->pending_count == file->pending_capacity) {
                file->pending_capacity = file->pending_capacity * 2 + 16;
                file->pending = must(realloc(file->pending, file->pending_capacity * sizeof *file->pending));
        }
        file->pending[file->pending_count++] = change;
}

void file_settle(struct file *file, size_t count, bool is_kept) {
        for (size_t i = 0; i < count; i++) {
                if (is_kept)
                        content_apply(&file->durable, &file->pending[i]);
                free(file->pending[i].data);
        }
        file->pending_count -= count;
        memmove(file->pending, file->pending + count, file->pending_count * sizeof *file->pending);
}

void file_lose(struct file *file) {
        file_settle(file, file->pending_count, false);
        content_copy(&file->now, &file->durable);
}

void file_drop(struct file *file) {
        if (--file->references > 0)
                return;
        file_settle(file, file->pending_count, false);
        free(file->pending);
        free(file->now.data);
        free(file->durable.data);
        free(file);
}

/* ---- names ---- */

struct file *name_find(const struct names *names, const char *name) {
        for (size_t i = 0; i < names->count; i++)
                if (strcmp(names->name[i], name) == 0)
                        return names->file[i];
        return NULL;
}

void name_remove(struct names *names, const char *name) {
        for (size_t i = 0; i < names->count; i++)
                if (strcmp(names->name[i], name) == 0) {
                        file_drop(names->file[i]);
                        names->count--;
                        memmove(names->name[i], names->name[names->count], NAME_MAX_BYTES);
                        names->file[i] = names->file[names->count];
                        return;
                }
}

int name_add(struct names *names, const char *name, struct file *file) {
        file->references++;
        name_remove(names, name);
        if (names->count == NAMES_MAX || strlen(name) >= NAME_MAX_BYTES) {
                file_drop(file);
                return -ENAMETOOLONG;
        }
        strcpy(names->name[names->count], name);
        names->file[names->count++] = file;
        return 0;
}

static struct names names_copy(const struct names *names) {
        struct names copy = *names;

        for (size_t i = 0; i < copy.count; i++)
                copy.file[i]->references++;
        return copy;
}

static void names_drop(struct names *names) {
        for (size_t i = 0; i < names->count; i++)
                file_drop(names->file[i]);
        names->count = 0;
}

void names_changed(void) {
        disk.after = must(realloc(disk.after, (disk.after_count + 1) * sizeof *disk.after));
        disk.after[disk.after_count++] = names_copy(&disk.now);
}

void names_sync(void) {
        names_drop(&disk.durable);
        disk.durable = names_copy(&disk.now);
        for (size_t i = 0; i < disk.after_count; i++)
                names_drop(&disk.after[i]);
        disk.after_count = 0;
}

struct file *file_new(const char *name, mode_t mode) {
        struct file *file = must(calloc(1, sizeof *file));

        file->mode = mode;
        file->is_scratch = strstr(name, "-shm") || strstr(name, ".lock");
        return file;
}

size_t bytes_used(void) {
        size_t bytes = 0;

        for (size_t i = 0; i < disk.now.count; i++)
                bytes += disk.now.file[i]->now.size;
        return bytes;
}

/* ---- the power goes ---- */

static struct content after_cut(const struct file *file, uint32_t odds) {
        struct content cut = { 0 };

        content_copy(&cut, &file->durable);
        for (size_t i = 0; i < file->pending_count; i++) {
                const struct change *change = &file->pending[i];

                if (!change->data || random_below(3) == 0) { /* whole or not at all */
                        if (random_below(8) < odds)
                                content_apply(&cut, change);
                        continue;
                }
                for (size_t done = 0, sector; done < change->size; done += sector) {
                        sector = SECTOR - (change->offset + done) % SECTOR;
                        if (sector > change->size - done)
                                sector = change->size - done;
                        if (random_below(8) < odds)
                                content_put(&cut, change->offset + done, change->data + done, sector);
                }
        }
        return cut;
}

static bool write_file(const char *folder, const char *name, const struct content *content, mode_t mode) {
        char path[4096];
        bool is_good;
        int fd;

        snprintf(path, sizeof path, "%s/%s", folder, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode & 0777);
        if (fd < 0)
                return false;
        is_good =
                write(fd, content->data ? content->data : (const uint8_t *)"", content->size) == (ssize_t)content->size;
        return close(fd) == 0 && is_good;
}

static bool cut(const char *folder) {
        static const uint32_t chances[] = { 0, 1, 4, 7, 8 };
        uint32_t odds = chances[random_below(5)];
        size_t changes = random_below((uint32_t)disk.after_count + 1);
        const struct names *names = changes > 0 ? &disk.after[changes - 1] : &disk.durable;
        bool is_good = true;

        disk.is_cut = true;
        for (size_t i = 0; i < names->count; i++) {
                struct content content;

                if (names->file[i]->is_scratch)
                        continue;
                content = after_cut(names->file[i], odds);
                is_good = write_file(folder, names->name[i], &content, names->file[i]->mode) && is_good;
                free(content.data);
        }
        return is_good;
}

bool disk_operation(void) {
        if (disk.is_cut || disk.until_cut == 0 || --disk.until_cut > 0)
                return true;
        return cut(disk.cut_folder);
}

/* ---- the beginning ---- */

static int load_one(const char *folder, const char *name) {
        char path[4096];
        uint8_t block[65536];
        struct file *file = file_new(name, 0600);
        ssize_t size;
        int fd;

        snprintf(path, sizeof path, "%s/%s", folder, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        while ((size = read(fd, block, sizeof block)) > 0)
                content_put(&file->now, file->now.size, block, (size_t)size);
        close(fd);
        content_copy(&file->durable, &file->now);
        return size < 0 ? -errno : name_add(&disk.now, name, file);
}

int disk_load(const char *folder) {
        DIR *listing = opendir(folder);
        int r = 0;

        if (!listing)
                return -errno;
        for (struct dirent *entry; r == 0 && (entry = readdir(listing));)
                if (entry->d_type == DT_REG)
                        r = load_one(folder, entry->d_name);
        closedir(listing);
        names_sync();
        return r;
}

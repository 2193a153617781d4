/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The inside of diskfs: its files, what of them is durable, and what commands have set. */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SECTOR         512
#define NAMES_MAX      32
#define NAME_MAX_BYTES 64

struct change {
        uint8_t *data; /* NULL: the file's size becomes `offset` */
        size_t offset, size;
};

struct content {
        uint8_t *data;
        size_t size, capacity;
};

struct file {
        struct content now, durable;
        struct change *pending;
        size_t pending_count, pending_capacity;
        mode_t mode;
        bool is_scratch; /* means nothing after a cut: SQLite's -shm, locks */
        unsigned references;
};

struct names {
        char name[NAMES_MAX][NAME_MAX_BYTES];
        struct file *file[NAMES_MAX];
        size_t count;
};

struct fault {
        int error;
        uint64_t count;
        bool is_on;
};

struct disk {
        pthread_mutex_t lock;
        struct names now, durable;
        struct names *after; /* after each change of names that is not durable yet */
        size_t after_count;
        struct fault write, sync;
        unsigned delay_ms;
        size_t most_bytes; /* 0: no end */
        bool is_readonly, is_lying, is_cut;
        uint64_t until_cut; /* how many changes and syncs; 0: no cut is coming */
        char cut_folder[3000];
        uint64_t syncs, syncing, writes;
        uint64_t seed;
};
extern struct disk disk;

/* diskfs_files.c. All under disk.lock. */

/* `references` is 0: whoever keeps it counts itself. */
struct file *file_new(const char *name, mode_t mode);
void file_drop(struct file *file);
/* A write; without data, another size, which is `offset`. */
void file_change(struct file *file, size_t offset, const void *data, size_t size);
/* The first `count` changes have become durable, or are forgotten. */
void file_settle(struct file *file, size_t count, bool is_kept);
/* What Linux makes of a sync that failed: the pages look clean, the disk has not got them. */
void file_lose(struct file *file);

struct file *name_find(const struct names *names, const char *name);
void name_remove(struct names *names, const char *name);
/* In place of what had the name. 0 or -ENAMETOOLONG. */
int name_add(struct names *names, const char *name, struct file *file);
void names_changed(void);
void names_sync(void);

size_t bytes_used(void);
/* Begins with the files of a folder, durable. 0 or a negative errno. */
int disk_load(const char *folder);
/* A moment at which the power may go: before and after each change and each sync. When it does, what the disk may
 * hold is written into disk.cut_folder. false: that could not be written. */
bool disk_operation(void);

/* diskfs_commands.c: one line. Whether it was understood and done. */
bool command_obey(char *line);

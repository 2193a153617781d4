/* SPDX-License-Identifier: Apache-2.0 */

/* Cuts the power, again and again, against the whole store: real files, the real barrier thread, creation,
 * commits, checkpoints, closing and opening, and after each cut the same again from what was left.
 *
 * A disk is simulated under the C library: this program's own open, pwrite, ftruncate, fsync, fdatasync,
 * rename and unlink take precedence over libc's, for SQLite too, and pass everything on. Beside that they
 * keep what the disk would hold: only what was synced, for a name only what its folder's sync covered. At
 * a cut any subset of the unsynced writes has made it, in sectors of 512 bytes, and the first few of the
 * unsynced changes to the folder.
 *
 * Whatever was published before the cut must be there after it, and no turn may be there in part. With a
 * flush that lies the same cuts must lose something, or the test is blunt.
 *
 * In a second variant the sealing key is replaced in its two steps, data keys rotate with all that is sealed under
 * them, backups are made and put in the store's place, while the same cuts come: the store always opens with the key
 * of before or the next one, with every secret in it, and a backup that was told to be there is there and whole.
 *
 * TORTURE=1 in the environment makes it thousands of cuts. POWERCUT_SEED=n repeats one run. */

#include "store_support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "store/backup.h"
#include "store/internal.h"

#define SECTOR       512
#define NAMES_MAX    16
#define CUTS_PER_RUN 6

/* ---- the simulated disk ---- */

struct change {
        off_t offset;
        size_t size;
        uint8_t *data; /* NULL: the file ends at `offset` */
};

struct file {
        uint8_t *durable;
        size_t size, capacity;
        struct change *pending;
        size_t pending_count, pending_capacity;
};

/* Which name stands for which file; a change of it is one such table more. */
struct names_table {
        char name[NAMES_MAX][64];
        struct file *file[NAMES_MAX];
        size_t count;
};

static struct {
        bool is_on;
        char folder[64];
        pthread_mutex_t lock;
        struct names_table now;    /* as the running process sees it */
        struct names_table *after; /* after each change that is not durable yet */
        struct names_table durable;
        size_t after_count;
        struct file *file_of_fd[1024];
        bool is_folder_fd[1024];
        uint32_t seed;
        int until_cut; /* operations */
        int cuts;
        char image_folder[64];
        _Atomic uint64_t acknowledged; /* turns that were told to somebody */
        _Atomic uint64_t keys;         /* sealing keys that were ever given to the store: 1 to that */
        _Atomic uint64_t backed_up;    /* turns in the backup that was told to somebody; 0: none was */
} disk = { .lock = PTHREAD_MUTEX_INITIALIZER };

static uint32_t random_below(uint32_t below) {
        disk.seed = disk.seed * 1664525 + 1013904223;
        return (disk.seed >> 8) % below;
}

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);

static void __attribute__((constructor)) find_real(void) {
        real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
        real_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
        real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
        real_ftruncate = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");
        real_rename = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
        real_unlink = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
}

static void file_resize(struct file *file, size_t size) {
        if (size > file->capacity) {
                file->capacity = size * 2;
                file->durable = realloc(file->durable, file->capacity);
        }
        if (size > file->size)
                memset(file->durable + file->size, 0, size - file->size);
        file->size = size;
}

static void file_put(struct file *file, off_t offset, const uint8_t *data, size_t size) {
        if ((size_t)offset + size > file->size)
                file_resize(file, (size_t)offset + size);
        memcpy(file->durable + offset, data, size);
}

static void file_add(struct file *file, off_t offset, const void *data, size_t size) {
        struct change change = { .offset = offset, .size = size };

        if (data) {
                change.data = malloc(size);
                memcpy(change.data, data, size);
        }
        if (file->pending_count == file->pending_capacity) {
                file->pending_capacity = file->pending_capacity * 2 + 16;
                file->pending = realloc(file->pending, file->pending_capacity * sizeof *file->pending);
        }
        file->pending[file->pending_count++] = change;
}

static void file_sync(struct file *file) {
        for (size_t i = 0; i < file->pending_count; i++) {
                struct change *change = &file->pending[i];

                if (change->data)
                        file_put(file, change->offset, change->data, change->size);
                else
                        file_resize(file, (size_t)change->offset);
                free(change->data);
        }
        file->pending_count = 0;
}

/* What the disk may hold of a file when the power goes: `odds` of 8 for each change or sector. */
static struct file file_after_cut(const struct file *file, uint32_t odds) {
        struct file cut = { 0 };

        file_resize(&cut, file->size);
        if (file->size > 0)
                memcpy(cut.durable, file->durable, file->size);
        for (size_t i = 0; i < file->pending_count; i++) {
                const struct change *change = &file->pending[i];
                uint32_t how = random_below(3);

                if (!change->data) {
                        if (random_below(8) < odds)
                                file_resize(&cut, (size_t)change->offset);
                        continue;
                }
                if (how == 0) { /* whole or not at all */
                        if (random_below(8) < odds)
                                file_put(&cut, change->offset, change->data, change->size);
                        continue;
                }
                for (size_t done = 0; done < change->size;) {
                        size_t sector = SECTOR - ((size_t)change->offset + done) % SECTOR;

                        if (sector > change->size - done)
                                sector = change->size - done;
                        if (random_below(8) < odds)
                                file_put(&cut, change->offset + (off_t)done, change->data + done, sector);
                        done += sector;
                }
        }
        return cut;
}

static const char *name_here(const char *path) {
        size_t size = strlen(disk.folder);

        if (!disk.is_on || strncmp(path, disk.folder, size) != 0 || path[size] != '/')
                return NULL;
        return strstr(path, "-shm") || strstr(path, ".lock") ? NULL : path + size + 1; /* no matter after a cut */
}

static struct file **name_find(struct names_table *table, const char *name) {
        for (size_t i = 0; i < table->count; i++)
                if (strcmp(table->name[i], name) == 0)
                        return &table->file[i];
        return NULL;
}

static void name_remove(struct names_table *table, const char *name) {
        for (size_t i = 0; i < table->count; i++)
                if (strcmp(table->name[i], name) == 0) {
                        table->count--;
                        memcpy(table->name[i], table->name[table->count], sizeof table->name[i]);
                        table->file[i] = table->file[table->count];
                        return;
                }
}

static void name_add(struct names_table *table, const char *name, struct file *file) {
        name_remove(table, name);
        snprintf(table->name[table->count], sizeof table->name[0], "%s", name);
        table->file[table->count++] = file;
}

static void folder_changed(void) {
        disk.after = realloc(disk.after, (disk.after_count + 1) * sizeof *disk.after);
        disk.after[disk.after_count++] = disk.now;
}

/* ---- the cut ---- */

static void write_file(const char *folder, const char *name, const void *data, size_t size) {
        char path[160];
        int fd;

        snprintf(path, sizeof path, "%s/%s", folder, name);
        fd = real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || real_pwrite(fd, data, size, 0) != (ssize_t)size)
                _exit(3);
        real_close(fd);
}

static void cut_now(void) {
        static const uint32_t chances[] = { 0, 1, 4, 7, 8 };
        const struct names_table *survived = &disk.durable;
        uint32_t odds = chances[random_below(ELEMENTS(chances))];
        size_t changes = random_below((uint32_t)disk.after_count + 1);
        char folder[80], number[80];

        if (changes > 0)
                survived = &disk.after[changes - 1];
        snprintf(folder, sizeof folder, "%s/%d", disk.image_folder, disk.cuts++);
        if (mkdir(folder, 0700) < 0)
                _exit(3);
        for (size_t i = 0; i < survived->count; i++) {
                struct file cut = file_after_cut(survived->file[i], odds);

                write_file(folder, survived->name[i], cut.durable, cut.size);
                free(cut.durable);
        }
        snprintf(number, sizeof number, "%llu %llu %llu", (unsigned long long)disk.acknowledged,
                 (unsigned long long)disk.keys, (unsigned long long)disk.backed_up);
        write_file(folder, "acknowledged", number, strlen(number));
}

/* Each operation that the disk sees is a moment at which the power may go. */
static void operation(void) {
        if (disk.cuts < CUTS_PER_RUN && --disk.until_cut <= 0) {
                cut_now();
                disk.until_cut = 1 + (int)random_below(random_below(3) == 0 ? 12 : 250);
        }
}

/* ---- in libc's place ---- */

int open(const char *path, int flags, ...);
int open64(const char *path, int flags, ...);

static int open_tracked(const char *path, int flags, mode_t mode) {
        const char *name = name_here(path);
        bool is_folder = disk.is_on && strcmp(path, disk.folder) == 0;
        struct file **found;
        int fd;

        if (!name && !is_folder)
                return real_open(path, flags, mode);
        pthread_mutex_lock(&disk.lock);
        fd = real_open(path, flags, mode);
        if (fd >= (int)ELEMENTS(disk.file_of_fd))
                _exit(4);
        if (fd >= 0 && is_folder)
                disk.is_folder_fd[fd] = true;
        else if (fd >= 0) {
                found = name_find(&disk.now, name);
                if (found)
                        disk.file_of_fd[fd] = *found;
                else {
                        disk.file_of_fd[fd] = calloc(1, sizeof(struct file));
                        name_add(&disk.now, name, disk.file_of_fd[fd]);
                        folder_changed();
                }
                operation();
        }
        pthread_mutex_unlock(&disk.lock);
        return fd;
}

#define OPEN(function)                                                                                                 \
        int function(const char *path, int flags, ...) {                                                               \
                va_list arguments;                                                                                     \
                mode_t mode = 0;                                                                                       \
                if (flags & O_CREAT) {                                                                                 \
                        va_start(arguments, flags);                                                                    \
                        mode = (mode_t)va_arg(arguments, unsigned);                                                    \
                        va_end(arguments);                                                                             \
                }                                                                                                      \
                return open_tracked(path, flags, mode);                                                                \
        }
OPEN(open)
OPEN(open64)

int close(int fd) {
        if (!disk.is_on || fd < 0 || fd >= (int)ELEMENTS(disk.file_of_fd))
                return real_close(fd);
        pthread_mutex_lock(&disk.lock);
        disk.file_of_fd[fd] = NULL;
        disk.is_folder_fd[fd] = false;
        pthread_mutex_unlock(&disk.lock);
        return real_close(fd);
}

static struct file *tracked(int fd) {
        return disk.is_on && fd >= 0 && fd < (int)ELEMENTS(disk.file_of_fd) ? disk.file_of_fd[fd] : NULL;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
        ssize_t n;

        if (!tracked(fd))
                return real_pwrite(fd, data, size, offset);
        pthread_mutex_lock(&disk.lock);
        operation();
        n = real_pwrite(fd, data, size, offset);
        if (n > 0)
                file_add(tracked(fd), offset, data, (size_t)n);
        operation();
        pthread_mutex_unlock(&disk.lock);
        return n;
}

static int truncate_tracked(int fd, off_t size) {
        int r;

        if (!tracked(fd))
                return real_ftruncate(fd, size);
        pthread_mutex_lock(&disk.lock);
        r = real_ftruncate(fd, size);
        if (r == 0)
                file_add(tracked(fd), size, NULL, 0);
        operation();
        pthread_mutex_unlock(&disk.lock);
        return r;
}

int ftruncate(int fd, off_t size) {
        return truncate_tracked(fd, size);
}

int ftruncate64(int fd, off64_t size) {
        return truncate_tracked(fd, size);
}

/* Nothing here needs the real disk: what counts is the simulated one. */
static int sync_tracked(int fd) {
        if (!disk.is_on || fd < 0 || fd >= (int)ELEMENTS(disk.file_of_fd))
                return 0;
        pthread_mutex_lock(&disk.lock);
        operation();
        if (disk.file_of_fd[fd])
                file_sync(disk.file_of_fd[fd]);
        else if (disk.is_folder_fd[fd]) {
                disk.durable = disk.now;
                disk.after_count = 0;
        }
        operation();
        pthread_mutex_unlock(&disk.lock);
        return 0;
}

int fsync(int fd) {
        return sync_tracked(fd);
}

int fdatasync(int fd) {
        return sync_tracked(fd);
}

int rename(const char *from, const char *to) {
        const char *from_name = name_here(from), *to_name = name_here(to);
        int r;

        if (!from_name || !to_name)
                return real_rename(from, to);
        pthread_mutex_lock(&disk.lock);
        r = real_rename(from, to);
        if (r == 0) {
                struct file *file = *name_find(&disk.now, from_name);

                name_remove(&disk.now, from_name);
                name_add(&disk.now, to_name, file);
                folder_changed();
        }
        operation();
        pthread_mutex_unlock(&disk.lock);
        return r;
}

int unlink(const char *path) {
        const char *name = name_here(path);
        int r;

        if (!name)
                return real_unlink(path);
        pthread_mutex_lock(&disk.lock);
        r = real_unlink(path);
        if (r == 0) {
                name_remove(&disk.now, name);
                folder_changed();
        }
        operation();
        pthread_mutex_unlock(&disk.lock);
        return r;
}

/* ---- what runs on the disk ----
 *
 * Turn n makes 1 to 4 devices with a credential each, one audit row and one piece of evidence. How many
 * turns and devices there should be stands in the recorded clock: in the same transaction. */

static void fill_secret(struct secret *secret, const char *id) {
        char text[40];

        snprintf(text, sizeof text, "secret of %-21.21s", id);
        assert_int_equal(secret_set(secret, bytes_of(text)), 0);
}

static size_t evidence_size(uint64_t sequence) {
        return 200 + (size_t)(sequence * 977 % 6000);
}

static int one_request(struct store *store, uint64_t turn, uint32_t number) {
        struct credential credential;
        struct device device;
        struct secret secret;
        char id[32];

        snprintf(id, sizeof id, "t%llu-%u", (unsigned long long)turn, number);
        device = device_of(id);
        credential = credential_of(id, id, 0);
        fill_secret(&secret, id);
        if (device_insert(store, &device) < 0 || credential_insert(store, &credential, &secret) < 0)
                return -1;
        return 0;
}

static int one_evidence(struct store *store, uint64_t sequence) {
        struct custody custody = { .sequence = sequence, .device = "d", .received = at(1), .receipt = TEXT("receipt") };
        static uint8_t evidence[8192];
        uint8_t hash[32];

        memset(evidence, (int)sequence, sizeof evidence);
        memset(hash, (int)sequence, sizeof hash);
        custody.evidence = BYTES(evidence, evidence_size(sequence));
        return custody_insert(store, &custody, hash);
}

/* ---- keys that change meanwhile ---- */

struct keys {
        bool is_turning;
        uint64_t current, prepared; /* numbers of sealing keys; 0: none */
        struct store_backup *backup;
};

static void sealing_key_of(uint64_t number, uint8_t to[32]) {
        char text[48];

        snprintf(text, sizeof text, "sealing key with number %08llu", (unsigned long long)number);
        memcpy(to, text, 32);
}

static void recipient_pair(uint8_t private_key[RECOVERY_KEY_BYTES], uint8_t public_key[RECOVERY_KEY_BYTES]) {
        static const uint8_t secret[32] = "the recipient of these backups..";

        assert_int_equal(recovery_pair_of(secret, "recipient", private_key, public_key), 0);
}

static int replace_sealing_key(struct store *store, struct keys *keys) {
        uint8_t next[32];
        int r;

        if (keys->prepared == 0) {
                sealing_key_of(++disk.keys, next);
                r = store_rewrap_prepare(store, BYTES(next, sizeof next));
                keys->prepared = disk.keys;
        } else if (random_below(4) > 0) {
                r = store_rewrap_finish(store);
                if (r == -ENOKEY)
                        return store_rewrap_is_open(store) == 1 ? 0 : -1; /* an earlier start has prepared it */
                keys->current = keys->prepared;
                keys->prepared = 0;
        } else {
                r = store_rewrap_cancel(store);
                keys->prepared = 0;
        }
        return r;
}

/* One step with the keys, in the turn. */
static int turn_keys(struct store *store, struct keys *keys) {
        struct data_key_facts facts;
        int r;

        switch (random_below(6)) {
        case 0:
                return replace_sealing_key(store, keys);
        case 1:
                r = store_data_key_facts(store, &facts);
                return r < 0 || facts.count > 6 ? r : store_data_key_rotate(store, &MOMENT_NONE);
        default:
                r = store_reseal_some(store, 3, NULL);
                return r < 0 ? r : 0;
        }
}

static void place_of(const char *name, char to[128]) {
        snprintf(to, 128, "%s/%s", disk.folder, name);
}

/* What the caller of a backup does with it: gives it its name, syncs the folder, tells. */
static int publish_backup(uint64_t turns) {
        char from[128], to[128];
        int fd, r;

        place_of("copy.db", from);
        place_of("backup.db", to);
        if (rename(from, to) < 0)
                return -1;
        fd = open(disk.folder, O_RDONLY | O_DIRECTORY);
        r = fd < 0 ? -1 : fsync(fd);
        close(fd);
        disk.backed_up = turns;
        return r;
}

/* Between turns. */
static int turn_backup(struct store *store, struct keys *keys, uint64_t turns) {
        uint8_t private_key[RECOVERY_KEY_BYTES], recipient[RECOVERY_KEY_BYTES];
        struct moment now = at((int64_t)turns);
        char path[128];
        int r;

        place_of("copy.db", path);
        if (!keys->backup) {
                if (random_below(8) > 0)
                        return 0;
                (void)unlink(path); /* what an earlier cut has left */
                return store_backup_begin(store, path, &keys->backup);
        }
        r = store_backup_step(keys->backup, 1 + (int)random_below(40), NULL, NULL);
        if (r != 0)
                return r < 0 ? r : 0;
        recipient_pair(private_key, recipient);
        r = store_backup_finish(keys->backup, recipient, &now);
        keys->backup = store_backup_free(keys->backup);
        return r < 0 ? r : publish_backup(turns);
}

static int one_turn(struct store *store, struct keys *keys, uint64_t turn, int64_t devices) {
        struct clock clock = { .floor = (unix_sec)turn };
        uint32_t many = 1 + random_below(4);
        struct event event = { .kind = EVENT_STARTED };
        struct moment now = at((int64_t)turn);
        int r = 0;

        for (uint32_t i = 0; r == 0 && i < many; i++) {
                store_savepoint(store);
                r = one_request(store, turn, i);
                store_savepoint_release(store);
        }
        if (r == 0 && random_below(4) == 0) { /* a request that fails leaves nothing */
                store_savepoint(store);
                r = one_request(store, turn, 99);
                store_savepoint_rollback(store);
        }
        clock.powered_sec = devices + many;
        if (r == 0 && keys->is_turning)
                r = turn_keys(store, keys);
        clock.boottime_sec = (int64_t)keys->current;
        clock.hold_until_powered = (int64_t)keys->prepared;
        if (r == 0)
                r = audit_append(store, &now, &event, "turn");
        if (r == 0)
                r = one_evidence(store, turn);
        if (r == 0 && turn > 20 && random_below(3) == 0)
                r = custody_delivered(store, turn - 20);
        if (r == 0)
                r = store_meta_set_clock(store, &clock);
        if (r == 0)
                r = store_commit(store, NULL);
        return r;
}

static int lying_flush(void *userdata, int fd) {
        (void)userdata;
        (void)fd;
        return 0;
}

static const struct store_hooks lies = { .flush = lying_flush };

/* `before` is how many turns the store had when it was opened, `opening` the number of the last that opening made. */
static void tell(struct store *store, uint64_t before, uint64_t opening) {
        uint64_t passed = store_barrier_passed(store);

        if (passed > opening)
                disk.acknowledged = before + passed - opening;
}

/* With the key in force, or the one prepared, as a start would be given. */
static int open_with_keys(struct store_options *options, struct keys *keys, struct store **ret,
                          struct problem *problem) {
        uint8_t private_key[RECOVERY_KEY_BYTES], public_key[RECOVERY_KEY_BYTES], key[32];

        if (keys->prepared > 0 && random_below(2) == 0) {
                keys->current = keys->prepared;
                keys->prepared = 0;
        }
        sealing_key_of(keys->current, key);
        recipient_pair(private_key, public_key);
        options->key_encryption_key = BYTES(key, sizeof key);
        options->recovery_key = BYTES(private_key, sizeof private_key); /* opens a backup, nothing else */
        return store_open(options, ret, problem);
}

static int run_once(struct store_options *options, struct keys *keys) {
        struct problem problem = { 0 };
        struct store *store = NULL;
        struct store_meta meta;
        int turns = 5 + (int)random_below(40);
        uint64_t before, opening;

        if ((keys->is_turning ? open_with_keys(options, keys, &store, &problem)
                              : store_open(options, &store, &problem)) < 0) {
                fprintf(stderr, "open: %s: %s\n", problem.title, problem.detail);
                return 5;
        }
        if (store_meta_get(store, &meta) < 0 || store_commit(store, &opening) < 0)
                return 6;
        before = (uint64_t)meta.clock.floor;
        for (int i = 0; i < turns; i++) {
                if (store_meta_get(store, &meta) < 0 ||
                    one_turn(store, keys, (uint64_t)meta.clock.floor + 1, meta.clock.powered_sec) < 0)
                        return 7;
                if (keys->is_turning && turn_backup(store, keys, (uint64_t)meta.clock.floor + 1) < 0)
                        return 9;
                if (random_below(4) == 0 && store_barrier_wait(store, opening + (uint64_t)i + 1) < 0)
                        return 8;
                tell(store, before, opening);
        }
        keys->backup = store_backup_free(keys->backup);
        store_close(store);
        return 0;
}

static const char *const disk_names[] = { "store.db",         "store.db-wal",         "store.db.new",
                                          "store.db.new-wal", "store.db.new-journal", "copy.db",
                                          "backup.db" };

/* The files that are there are on the disk. */
static void disk_on(const char *folder, const char *image_folder, uint32_t seed) {
        snprintf(disk.folder, sizeof disk.folder, "%s", folder);
        snprintf(disk.image_folder, sizeof disk.image_folder, "%s", image_folder);
        for (size_t i = 0; i < ELEMENTS(disk_names); i++) {
                char path[128];
                struct stat st;
                FILE *from;

                snprintf(path, sizeof path, "%s/%s", folder, disk_names[i]);
                from = fopen(path, "rb");
                if (!from)
                        continue;
                if (fstat(fileno(from), &st) < 0)
                        _exit(3);
                struct file *file = calloc(1, sizeof *file);
                file_resize(file, (size_t)st.st_size);
                if (fread(file->durable, 1, file->size, from) != file->size)
                        _exit(3);
                fclose(from);
                name_add(&disk.now, disk_names[i], file);
        }
        disk.durable = disk.now;
        disk.seed = seed;
        disk.until_cut = 1 + (int)random_below(random_below(2) == 0 ? 60 : 600);
        disk.is_on = true;
}

/* What a run begins with, and what a cut has left of it. */
struct told {
        uint64_t acknowledged;  /* turns */
        uint64_t keys;          /* sealing keys that were ever made; 0: there is one, which stays */
        uint64_t backed_up;     /* turns in the backup */
        uint64_t key, prepared; /* which sealing key opens the store, and which one as well */
};

/* In a process of its own: runs until there are enough cuts. */
static void run_until_cut(const char *folder, const char *image_folder, uint32_t seed, bool is_lying,
                          const struct told *told) {
        struct keys keys = { .is_turning = told->keys > 0, .current = told->key, .prepared = told->prepared };
        char path[96];
        struct store_options options = {
                .path = path,
                .key_encryption_key = BYTES(sealing_key, sizeof sealing_key),
                .hooks = is_lying ? &lies : NULL,
        };

        snprintf(path, sizeof path, "%s/store.db", folder);
        disk_on(folder, image_folder, seed);
        disk.acknowledged = told->acknowledged;
        disk.keys = told->keys;
        disk.backed_up = told->backed_up;
        while (disk.cuts < CUTS_PER_RUN) {
                int r;

                options.checkpoint_bytes = (size_t)(48 << 10) << random_below(5);
                r = run_once(&options, &keys);
                if (r != 0)
                        _exit(r);
        }
        _exit(0);
}

/* ---- after the cut ---- */

struct check {
        struct store *store;
        uint64_t turns;
        const char *wrong;
};

static int check_evidence(void *userdata, const struct custody *custody) {
        struct check *check = userdata;

        if (custody->evidence.size != evidence_size(custody->sequence) ||
            custody->evidence.data[0] != (uint8_t)custody->sequence || custody->receipt.size != 7)
                check->wrong = "evidence is not what was stored";
        return 0;
}

static int check_device(void *userdata, const struct device *device) {
        struct check *check = userdata;
        struct secret expected, found;

        fill_secret(&expected, device->id);
        if (credential_secret(check->store, device->id, &found) < 0 || !secret_equal(&found, &expected))
                check->wrong = "a device has lost its key";
        if (strtoull(device->id + 1, NULL, 10) > check->turns)
                check->wrong = "a device of a turn that was not committed";
        return 0;
}

/* What is wrong with what the cut has left, NULL when nothing is; *ret_turns is what it holds. */
static const char *look(struct store *store, uint64_t acknowledged, uint64_t *ret_turns) {
        struct check check = { .store = store };
        struct device_counts counts;
        struct store_meta meta;
        uint64_t bad;

        if (store_meta_get(store, &meta) < 0)
                return "no meta";
        check.turns = *ret_turns = (uint64_t)meta.clock.floor;
        if (check.turns < acknowledged)
                return "an acknowledged turn is lost";
        if (device_count(store, &counts) < 0 || counts.total != (uint64_t)meta.clock.powered_sec)
                return "a turn is there in part: devices";
        if (meta.next_sequence != check.turns + 1)
                return "a turn is there in part: evidence";
        if (audit_verify(store, &bad) < 0)
                return "the audit chain is broken";
        if (device_each(store, NULL, SIZE_MAX, check_device, &check) < 0 ||
            custody_waiting(store, 0, SIZE_MAX, check_evidence, &check) < 0)
                return "rows cannot be read";
        return check.wrong;
}

static int open_image(const char *folder, const char *name, uint64_t key, struct store **ret, struct problem *problem) {
        uint8_t private_key[RECOVERY_KEY_BYTES], public_key[RECOVERY_KEY_BYTES], number[32];
        char path[128];
        struct store_options options = {
                .path = path,
                .key_encryption_key = BYTES(sealing_key, sizeof sealing_key),
        };

        snprintf(path, sizeof path, "%s/%s", folder, name);
        if (key > 0) {
                sealing_key_of(key, number);
                recipient_pair(private_key, public_key);
                options.key_encryption_key = BYTES(number, sizeof number);
                options.recovery_key = BYTES(private_key, sizeof private_key);
        }
        return store_open(&options, ret, problem);
}

/* Whichever of all keys there ever were; the store says itself which it may be. */
static const char *open_with_some_key(const char *folder, struct told *told, struct store **ret) {
        static struct problem problem;
        struct store_meta meta;

        for (told->key = told->keys; told->key > 0; told->key--)
                if (open_image(folder, "store.db", told->key, ret, &problem) == 0)
                        break;
                else if (told->key == 1)
                        return problem.detail;
        if (store_meta_get(*ret, &meta) < 0)
                return "no meta";
        told->prepared = store_rewrap_is_open(*ret) == 1 ? (uint64_t)meta.clock.hold_until_powered : 0;
        if (meta.is_restored_now || meta.clock.floor == 0)
                return NULL; /* whichever it was given first */
        if ((int64_t)told->key != meta.clock.boottime_sec && (int64_t)told->key != meta.clock.hold_until_powered)
                return "a sealing key opens it that is not the one in force, nor prepared";
        return NULL;
}

/* The backup that was told to be there. */
static const char *look_at_backup(const char *folder, const struct told *told) {
        static struct problem problem;
        struct store *store = NULL;
        const char *wrong;
        uint64_t turns;

        if (open_image(folder, "backup.db", told->key, &store, &problem) < 0)
                return problem.detail;
        wrong = look(store, told->backed_up, &turns);
        store_close(store);
        return wrong;
}

static const char *look_at_image(const char *folder, struct told *told, uint64_t *ret_turns) {
        static struct problem problem;
        char path[128];
        struct store *store = NULL;
        const char *wrong = NULL;
        FILE *file;

        snprintf(path, sizeof path, "%s/acknowledged", folder);
        file = fopen(path, "r");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%lu %lu %lu", &told->acknowledged, &told->keys, &told->backed_up), 3);
        fclose(file);
        if (told->keys > 0)
                wrong = open_with_some_key(folder, told, &store);
        else if (open_image(folder, "store.db", 0, &store, &problem) < 0)
                wrong = problem.detail;
        if (!wrong)
                wrong = look(store, told->acknowledged, ret_turns);
        store_close(store);
        if (!wrong && told->backed_up > 0)
                wrong = look_at_backup(folder, told);
        return wrong;
}

static void run_in_a_process(const char *folder, const char *images, uint32_t seed, bool is_lying,
                             const struct told *told) {
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0)
                run_until_cut(folder, images, seed, is_lying, told);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (status != 0)
                fail_msg("the run of seed %u has ended with %x", seed, (unsigned)status);
}

/* What the power cut has left, before anybody looks at it: looking opens it, and so recovers it. */
static void keep_image(const char *image, const char *folder) {
        assert_int_equal(mkdir(folder, 0700), 0);
        for (size_t i = 0; i < ELEMENTS(disk_names); i++) {
                char from[128], to[128];

                snprintf(from, sizeof from, "%s/%s", image, disk_names[i]);
                snprintf(to, sizeof to, "%s/%s", folder, disk_names[i]);
                if (access(from, F_OK) == 0)
                        copy_file(from, to);
        }
}

/* A backup is put in the store's place, as another gateway would have it; what came after it is lost. */
static void put_backup_in_place(const char *folder, struct told *told) {
        static const char *const gone[] = { "store.db-wal", "copy.db" };
        char from[128], to[128];

        for (size_t i = 0; i < ELEMENTS(gone); i++) {
                snprintf(to, sizeof to, "%s/%s", folder, gone[i]);
                (void)unlink(to); /* mostly there is none */
        }
        snprintf(from, sizeof from, "%s/backup.db", folder);
        snprintf(to, sizeof to, "%s/store.db", folder);
        copy_file(from, to);
        told->acknowledged = told->backed_up;
        told->key = ++told->keys; /* it has a sealing key of its own */
        told->prepared = 0;
}

/* One chain: from nothing, cut, look, go on from one of the images, and so on. Returns how many images lost
 * something. */
static int chain(uint32_t seed, int runs, bool is_lying, bool is_turning_keys, int *ret_cuts) {
        char root[64], folder[64], images[64], image[64];
        struct told told = { .keys = is_turning_keys, .key = is_turning_keys };
        int lost = 0;

        folder_make(root);
        assert_true(snprintf(folder, sizeof folder, "%.48s/0", root) > 0);
        assert_int_equal(mkdir(folder, 0700), 0);
        for (int run = 0; run < runs; run++) {
                struct told left[CUTS_PER_RUN] = { 0 };
                uint64_t found[CUTS_PER_RUN] = { 0 };
                int next = (int)(seed + (uint32_t)run) % CUTS_PER_RUN;

                assert_true(snprintf(images, sizeof images, "%.40s/images%d", root, run) > 0);
                assert_int_equal(mkdir(images, 0700), 0);
                run_in_a_process(folder, images, seed * 1000 + (uint32_t)run, is_lying, &told);
                assert_true(snprintf(image, sizeof image, "%.56s/%d", images, next) > 0);
                assert_true(snprintf(folder, sizeof folder, "%.48s/%d", root, run + 1) > 0);
                keep_image(image, folder);
                for (int i = 0; i < CUTS_PER_RUN; i++) {
                        const char *wrong;

                        assert_true(snprintf(image, sizeof image, "%.56s/%d", images, i) > 0);
                        wrong = look_at_image(image, &left[i], &found[i]);
                        (*ret_cuts)++;
                        if (!wrong)
                                continue;
                        lost++;
                        if (!is_lying)
                                print_message("POWERCUT_SEED=%u run %d cut %d: %s\n", seed, run, i, wrong);
                }
                if (lost > 0)
                        break;
                told = left[next];
                told.acknowledged = found[next];
                if (told.backed_up > 0 && seed % 2 == 0)
                        put_backup_in_place(folder, &told);
        }
        folder_remove(root);
        return lost;
}

static int chains_wanted(int usual, int torture) {
        return getenv("TORTURE") ? torture : usual;
}

static void no_acknowledged_turn_is_lost_and_none_is_there_in_part_when_the_power_is_cut(void **state) {
        const char *one = getenv("POWERCUT_SEED");
        int chains = one ? 1 : chains_wanted(20, 600), lost = 0, cuts = 0;

        (void)state;
        for (int i = 0; i < chains; i++)
                lost += chain(one ? (uint32_t)atoi(one) : 1 + (uint32_t)i, 4, false, false, &cuts);
        print_message("%d cuts, %d lost something\n", cuts, lost);
        assert_int_equal(lost, 0);
}

static void without_the_barrier_the_same_cuts_do_lose_turns(void **state) {
        int chains = chains_wanted(10, 100), lost = 0, cuts = 0;

        (void)state;
        for (int i = 0; i < chains; i++)
                lost += chain(5000 + (uint32_t)i, 2, true, false, &cuts);
        print_message("%d cuts, %d lost something\n", cuts, lost);
        assert_true(lost > 0);
}

static void some_sealing_key_always_opens_all_secrets_and_backups_stay_when_the_power_is_cut(void **state) {
        const char *one = getenv("POWERCUT_SEED");
        int chains = one ? 1 : chains_wanted(16, 600), lost = 0, cuts = 0;

        (void)state;
        for (int i = 0; i < chains; i++)
                lost += chain(one ? (uint32_t)atoi(one) : 9001 + (uint32_t)i, 5, false, true, &cuts);
        print_message("%d cuts while keys change, %d lost something\n", cuts, lost);
        assert_int_equal(lost, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(no_acknowledged_turn_is_lost_and_none_is_there_in_part_when_the_power_is_cut),
                cmocka_unit_test(some_sealing_key_always_opens_all_secrets_and_backups_stay_when_the_power_is_cut),
                cmocka_unit_test(without_the_barrier_the_same_cuts_do_lose_turns),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

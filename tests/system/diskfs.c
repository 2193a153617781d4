/* SPDX-License-Identifier: Apache-2.0 */

/* A disk for tests, as a FUSE file system with one folder: what processes see, and beside it what would be there
 * after a power cut. A write is durable once an fsync() or fdatasync() of its file has covered it, a name once one of
 * the folder has. The kernel's cache of pages lies above it as above every disk; its write-back cache is not used, so
 * that writes come here in order.
 *
 *   diskfs MOUNTPOINT [FOLDER]   FOLDER: files to begin with, durable
 *
 * Commands come on standard input, a line each, and are answered by a line that begins with "ok" or "error":
 *   cut SEED FOLDER [N] the power goes, at the Nth moment from now: what the disk may hold is written into FOLDER,
 *                       everything after fails
 *   delay MS            each sync takes that long at least
 *   error write|sync ERRNO [COUNT]   they fail so often (0: for good); a sync that fails has lost what it was for
 *   full [BYTES]        no more than that fits in (without: than is there now); 0: as much as comes
 *   readonly on|off     after all has been written
 *   lie on|off          syncs succeed and do nothing
 *   status              counts: syncs, syncs under way, writes, bytes, whether the power has gone
 * The end of standard input unmounts it. */

#define FUSE_USE_VERSION 35

#include "tests/system/diskfs.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FOREVER 86400.0

static struct fuse *fuse;
static const char *mountpoint;

/* ---- what processes do ---- */

static int take_fault(struct fault *fault) {
        if (!fault->is_on)
                return 0;
        if (fault->count > 0 && --fault->count == 0)
                fault->is_on = false;
        return fault->error;
}

static void moment(void) {
        if (!disk_operation())
                fputs("diskfs: what the cut left could not be written\n", stderr);
}

/* Whether a file may become so long. */
static int may_change(const struct file *file, size_t size) {
        size_t grows = file && size > file->now.size ? size - file->now.size : 0;

        if (!file || !file->is_scratch)
                moment();
        if (disk.is_cut)
                return -EIO;
        if (disk.is_readonly && !(file && file->is_scratch && grows == 0))
                return -EROFS;
        return grows > 0 && disk.most_bytes > 0 && bytes_used() + grows > disk.most_bytes ? -ENOSPC : 0;
}

static struct file *opened(const struct fuse_file_info *info) {
        return (struct file *)(uintptr_t)info->fh;
}

static struct file *file_of(const char *path, const struct fuse_file_info *info) {
        return info && info->fh ? opened(info) : path ? name_find(&disk.now, path + 1) : NULL;
}

#define LOCKED(...)                                                                                                    \
        do {                                                                                                           \
                pthread_mutex_lock(&disk.lock);                                                                        \
                __VA_ARGS__;                                                                                           \
                pthread_mutex_unlock(&disk.lock);                                                                      \
        } while (0)

static int on_getattr(const char *path, struct stat *to, struct fuse_file_info *info) {
        bool is_folder = path && strcmp(path, "/") == 0;
        struct file *file;
        int r = 0;

        *to = (struct stat){ .st_uid = getuid(), .st_gid = getgid(), .st_nlink = is_folder ? 2 : 1 };
        LOCKED({
                file = file_of(path, info);
                if (is_folder)
                        to->st_mode = S_IFDIR | 0700;
                else if (!file)
                        r = -ENOENT;
                else {
                        to->st_mode = S_IFREG | (file->mode & 07777);
                        to->st_size = (off_t)file->now.size;
                        to->st_blocks = (blkcnt_t)((file->now.size + SECTOR - 1) / SECTOR);
                }
        });
        return r;
}

static int on_readdir(const char *path, void *to, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
                      enum fuse_readdir_flags flags) {
        (void)path, (void)offset, (void)info, (void)flags;
        LOCKED({
                for (size_t i = 0; i < disk.now.count; i++)
                        fill(to, disk.now.name[i], NULL, 0, 0);
        });
        return 0;
}

static void hand_out(struct file *file, struct fuse_file_info *info) {
        file->references++;
        info->fh = (uintptr_t)file;
        info->keep_cache = 1; /* the pages stay, as over a disk */
}

static int on_open(const char *path, struct fuse_file_info *info) {
        struct file *file;
        int r = 0;

        LOCKED({
                file = name_find(&disk.now, path + 1);
                if (!file)
                        r = -ENOENT;
                else if (disk.is_readonly && (info->flags & O_ACCMODE) != O_RDONLY)
                        r = -EROFS;
                else
                        hand_out(file, info);
        });
        return r;
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *info) {
        struct file *file;
        int r;

        LOCKED({
                r = may_change(NULL, 0);
                if (r == 0 && disk.most_bytes > 0 && bytes_used() >= disk.most_bytes)
                        r = -ENOSPC;
                if (r == 0) {
                        file = file_new(path, mode);
                        r = name_add(&disk.now, path + 1, file);
                        if (r == 0) {
                                names_changed();
                                hand_out(file, info);
                        }
                }
        });
        return r;
}

static int on_release(const char *path, struct fuse_file_info *info) {
        (void)path;
        LOCKED(file_drop(opened(info)));
        return 0;
}

static int on_read(const char *path, char *to, size_t size, off_t offset, struct fuse_file_info *info) {
        struct file *file = opened(info);

        (void)path;
        LOCKED({
                if ((size_t)offset >= file->now.size)
                        size = 0;
                else if (size > file->now.size - (size_t)offset)
                        size = file->now.size - (size_t)offset;
                if (size > 0)
                        memcpy(to, file->now.data + offset, size);
        });
        return (int)size;
}

static int on_write(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *info) {
        struct file *file = opened(info);
        int r;

        (void)path;
        LOCKED({
                r = may_change(file, (size_t)offset + size);
                if (r == 0 && !file->is_scratch)
                        r = -take_fault(&disk.write);
                if (r == 0) {
                        file_change(file, (size_t)offset, data, size);
                        disk.writes += !file->is_scratch;
                }
        });
        return r < 0 ? r : (int)size;
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *info) {
        struct file *file;
        int r;

        LOCKED({
                file = file_of(path, info);
                r = file ? may_change(file, (size_t)size) : -ENOENT;
                if (r == 0)
                        file_change(file, (size_t)size, NULL, 0);
        });
        return r;
}

/* Takes its time without the lock: other files and other readers go on meanwhile. Durable is what was written before
 * it began. */
static int sync_some(struct file *file) {
        size_t count = file ? file->pending_count : 0;
        int r;

        moment();
        disk.syncing++;
        if (disk.delay_ms > 0) {
                const struct timespec wait = { disk.delay_ms / 1000, (long)(disk.delay_ms % 1000) * 1000000 };

                pthread_mutex_unlock(&disk.lock);
                nanosleep(&wait, NULL);
                pthread_mutex_lock(&disk.lock);
        }
        disk.syncing--;
        disk.syncs++;
        r = disk.is_cut ? -EIO : -take_fault(&disk.sync);
        if (r < 0 || disk.is_lying) {
                if (r < 0 && file && !disk.is_cut)
                        file_lose(file);
                return r;
        }
        if (file)
                file_settle(file, count < file->pending_count ? count : file->pending_count, true);
        else
                names_sync();
        moment(); /* what it has made durable is there; whoever asked for it never hears so */
        return disk.is_cut ? -EIO : 0;
}

static int on_fsync(const char *path, int is_data, struct fuse_file_info *info) {
        int r;

        (void)path, (void)is_data;
        LOCKED(r = sync_some(opened(info)));
        return r;
}

static int on_fsyncdir(const char *path, int is_data, struct fuse_file_info *info) {
        int r;

        (void)path, (void)is_data, (void)info;
        LOCKED(r = sync_some(NULL));
        return r;
}

static int on_unlink(const char *path) {
        int r;

        LOCKED({
                r = may_change(NULL, 0);
                if (r == 0 && !name_find(&disk.now, path + 1))
                        r = -ENOENT;
                if (r == 0) {
                        name_remove(&disk.now, path + 1);
                        names_changed();
                }
        });
        return r;
}

static int on_rename(const char *from, const char *to, unsigned flags) {
        struct file *file;
        int r;

        if (flags & ~(unsigned)RENAME_NOREPLACE)
                return -EINVAL;
        LOCKED({
                r = may_change(NULL, 0);
                file = name_find(&disk.now, from + 1);
                if (r == 0 && !file)
                        r = -ENOENT;
                if (r == 0 && flags && name_find(&disk.now, to + 1))
                        r = -EEXIST;
                if (r == 0)
                        r = name_add(&disk.now, to + 1, file);
                if (r == 0) {
                        name_remove(&disk.now, from + 1);
                        names_changed();
                }
        });
        return r;
}

static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
        struct file *file;
        int r;

        LOCKED({
                r = may_change(NULL, 0);
                file = file_of(path, info);
                if (r == 0 && !file)
                        r = -ENOENT;
                if (r == 0)
                        file->mode = mode;
        });
        return r;
}

static int on_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *info) {
        (void)path, (void)uid, (void)gid, (void)info;
        return 0;
}

static int on_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
        (void)path, (void)times, (void)info;
        return 0;
}

static int on_statfs(const char *path, struct statvfs *to) {
        size_t used, most;

        (void)path;
        LOCKED({
                used = bytes_used();
                most = disk.most_bytes > 0 ? disk.most_bytes : (size_t)1 << 30;
        });
        *to = (struct statvfs){ .f_bsize = SECTOR, .f_frsize = SECTOR, .f_namemax = NAME_MAX_BYTES - 1 };
        to->f_blocks = most / SECTOR;
        to->f_bfree = to->f_bavail = used < most ? (most - used) / SECTOR : 0;
        return 0;
}

static void *on_init(struct fuse_conn_info *connection, struct fuse_config *config) {
        connection->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE);
        config->hard_remove = 1;
        config->nullpath_ok = 1;
        /* Nobody but the kernel changes anything here: what it has seen stays true. */
        config->entry_timeout = config->attr_timeout = FOREVER;
        config->negative_timeout = 0;
        return NULL;
}

static const struct fuse_operations operations = {
        .init = on_init,
        .getattr = on_getattr,
        .readdir = on_readdir,
        .open = on_open,
        .create = on_create,
        .release = on_release,
        .read = on_read,
        .write = on_write,
        .truncate = on_truncate,
        .fsync = on_fsync,
        .fsyncdir = on_fsyncdir,
        .unlink = on_unlink,
        .rename = on_rename,
        .chmod = on_chmod,
        .chown = on_chown,
        .utimens = on_utimens,
        .statfs = on_statfs,
};

/* ---- commands, start ---- */

static void *command_loop(void *unused) {
        char line[4096];

        (void)unused;
        while (fgets(line, sizeof line, stdin)) {
                bool is_good;

                line[strcspn(line, "\n")] = 0;
                LOCKED({
                        is_good = command_obey(line);
                        printf("%s %llu %llu %llu %zu %d\n", is_good ? "ok" : "error", (unsigned long long)disk.syncs,
                               (unsigned long long)disk.syncing, (unsigned long long)disk.writes, bytes_used(),
                               disk.is_cut);
                });
                fflush(stdout);
        }
        fuse_exit(fuse);
        /* The loop looks when a request comes; one does. */
        struct statvfs ignored;
        (void)!statvfs(mountpoint, &ignored);
        return NULL;
}

int main(int argc, char *argv[]) {
        char *words[] = { argv[0], (char *)(uintptr_t) "-ofsname=diskfs", NULL };
        struct fuse_args arguments = FUSE_ARGS_INIT(2, words);
        struct fuse_loop_config loop = { .clone_fd = 0, .max_idle_threads = 8 };
        pthread_t thread;
        int r;

        if (argc < 2 || argc > 3) {
                fputs("usage: diskfs MOUNTPOINT [FOLDER]\n", stderr);
                return 2;
        }
        mountpoint = argv[1];
        r = argc == 3 ? disk_load(argv[2]) : 0;
        if (r < 0) {
                fprintf(stderr, "diskfs: %s: %s\n", argv[2], strerror(-r));
                return 1;
        }
        fuse = fuse_new(&arguments, &operations, sizeof operations, NULL);
        if (!fuse || fuse_mount(fuse, mountpoint) != 0)
                return 1;
        puts("ready");
        fflush(stdout);
        if (pthread_create(&thread, NULL, command_loop, NULL) != 0)
                return 1;
        r = fuse_loop_mt(fuse, &loop);
        fuse_unmount(fuse);
        fuse_destroy(fuse);
        return r < 0;
}

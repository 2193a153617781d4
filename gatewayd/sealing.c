/* SPDX-License-Identifier: Apache-2.0 */

/* The key-encryption key: from the service manager, or from a file that is made once. And the recovery
 * key, which comes the same ways but is never made here. */

#include "gatewayd/sealing.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "systemd/service.h"

/* 32 raw bytes, or 64 hex digits with an optional line feed: what `openssl rand -hex 32` writes. */
static int take_key(struct bytes text, struct secret *ret, const char *title, const char *where,
                    struct problem *problem) {
        if (text.size == SEALING_KEY_BYTES)
                return secret_set(ret, text);
        if (text.size == 2 * SEALING_KEY_BYTES + 1 && text.data[text.size - 1] == '\n')
                text.size--;
        if (text.size == 2 * SEALING_KEY_BYTES && hex_decode(text, ret->data, SEALING_KEY_BYTES) > 0) {
                ret->size = SEALING_KEY_BYTES;
                return 0;
        }
        return problem_set(problem, CODE_INTERNAL, EINVAL, title,
                           "%s must hold 32 raw bytes or 64 hex digits, and holds %zu bytes of something else", where,
                           text.size);
}

static int read_file(int fd, const char *path, struct secret *ret, const char *title, struct problem *problem) {
        uint8_t text[128];
        struct stat st;
        ssize_t n;
        int r;

        if (fstat(fd, &st) < 0)
                return problem_set(problem, CODE_INTERNAL, errno, title, "%s: %s", path, strerror(errno));
        if ((st.st_mode & 077) != 0)
                return problem_set(problem, CODE_INTERNAL, EPERM, title,
                                   "%s may be read by others (mode %03o); it must be 0600", path,
                                   (unsigned)st.st_mode & 0777);
        n = read(fd, text, sizeof text);
        if (n < 0)
                return problem_set(problem, CODE_INTERNAL, errno, title, "%s: %s", path, strerror(errno));
        r = take_key(BYTES(text, (size_t)n), ret, title, path, problem);
        OPENSSL_cleanse(text, sizeof text);
        return r;
}

/* Where a key can come from. */
struct place {
        const char *title, *credential, *file; /* credential NULL: none */
};

static const struct place sealing_place = { "sealing key", SEALING_CREDENTIAL, "sealing.key" };
/* What gatewayctl restore and recover leave for the next start; it goes before what was set up for good. */
static const struct place restore_place = { "recovery key", NULL, "restore.key" };
static const struct place recovery_place = { "recovery key", RECOVERY_CREDENTIAL, "recovery.key" };

/* The file of that name beside the store. */
static int find_path(const struct place *place, const char *store_path, char path[PATH_MAX], struct problem *problem) {
        const char *slash = strrchr(store_path, '/');

        if (snprintf(path, PATH_MAX, "%.*s%s", slash ? (int)(slash - store_path + 1) : 0, store_path, place->file) >=
            PATH_MAX)
                return problem_set(problem, CODE_INTERNAL, ENAMETOOLONG, place->title, "the store's path is too long");
        return 0;
}

int sealing_key_path(const char *store_path, char to[PATH_MAX]) {
        struct problem ignored = { 0 };

        return find_path(&sealing_place, store_path, to, &ignored);
}

int sealing_key_read(struct bytes text, struct secret *ret, const char *where, struct problem *problem) {
        return take_key(text, ret, sealing_place.title, where, problem);
}

/* -ENOENT when it is not there. */
static int look_for_file(const struct place *place, const char *path, struct secret *ret, struct problem *problem) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;

        if (fd < 0 && errno == ENOENT)
                return -ENOENT;
        if (fd < 0)
                return problem_set(problem, CODE_INTERNAL, errno, place->title, "%s: %s", path, strerror(errno));
        r = read_file(fd, path, ret, place->title, problem);
        close(fd);
        return r;
}

/* The credential, or else the file at `path`; -ENOENT when neither is there. */
static int look_for_key(const struct place *place, const char *path, struct secret *ret, bool *ret_is_file,
                        struct problem *problem) {
        uint8_t credential[128];
        char where[64];
        ssize_t n;
        int r;

        *ret_is_file = true;
        if (!place->credential)
                return look_for_file(place, path, ret, problem);
        *ret_is_file = false;
        snprintf(where, sizeof where, "the credential %s", place->credential);
        n = service_credential(place->credential, credential, sizeof credential);
        if (n >= 0) {
                r = take_key(BYTES(credential, (size_t)n), ret, place->title, where, problem);
                OPENSSL_cleanse(credential, sizeof credential);
                return r;
        }
        if (n != -ENOENT)
                return problem_set(problem, CODE_INTERNAL, (int)-n, place->title, "%s cannot be read: %s", where,
                                   strerror((int)-n));
        *ret_is_file = true;
        return look_for_file(place, path, ret, problem);
}

/* Written under another name and renamed, folder synced: a key that sealed something must never be lost. */
static int make_file(const char *path, struct secret *ret) {
        char folder[PATH_MAX], fresh[PATH_MAX];
        int fd, folder_fd, r = 0;
        ssize_t size;
        char *slash;

        if (RAND_bytes(ret->data, SEALING_KEY_BYTES) != 1)
                return -EIO;
        ret->size = SEALING_KEY_BYTES;
        if (snprintf(fresh, sizeof fresh, "%s.%d.new", path, (int)getpid()) >= (int)sizeof fresh ||
            snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder)
                return -ENAMETOOLONG;
        fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        size = write(fd, ret->data, ret->size);
        if (size < 0 || fsync(fd) < 0)
                r = -errno;
        else if (size != (ssize_t)ret->size)
                r = -ENOSPC; /* what a disk that is filling up does */
        close(fd);
        /* A key that another core made meanwhile must not be written over. Not every file system can promise. */
        if (r == 0 && renameat2(AT_FDCWD, fresh, AT_FDCWD, path, RENAME_NOREPLACE) < 0 &&
            (errno != EINVAL || rename(fresh, path) < 0))
                r = -errno;
        if (r < 0)
                (void)unlink(fresh);
        slash = strrchr(folder, '/');
        if (slash)
                slash[slash == folder] = 0;
        folder_fd = r == 0 ? open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (r == 0 && folder_fd < 0)
                r = -errno;
        if (folder_fd >= 0) {
                if (fsync(folder_fd) < 0)
                        r = -errno;
                close(folder_fd);
        }
        return r;
}

int sealing_key_load(const char *store_path, bool may_replace, struct secret *ret, bool *ret_is_file,
                     struct problem *problem) {
        char path[PATH_MAX];
        bool has_store;
        int r;

        r = find_path(&sealing_place, store_path, path, problem);
        if (r < 0)
                return r;
        r = look_for_key(&sealing_place, path, ret, ret_is_file, problem);
        if (r != -ENOENT)
                return r;
        has_store = access(store_path, F_OK) == 0;
        if (has_store && !may_replace)
                return problem_set(problem, CODE_INTERNAL, ENOKEY, "sealing key",
                                   "there is a store but neither the credential " SEALING_CREDENTIAL
                                   " nor the file %s that sealed it; bring the key back, or the recovery key: a new "
                                   "one opens nothing",
                                   path);
        r = make_file(path, ret);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "sealing key", "%s cannot be made: %s", path,
                                   strerror(-r));
        return has_store;
}

void sealing_key_discard(const char *store_path) {
        struct problem ignored = { 0 };
        char path[PATH_MAX];

        /* Where it stays it opens nothing, and the recovery key still does. */
        if (find_path(&sealing_place, store_path, path, &ignored) == 0)
                (void)unlink(path);
}

int recovery_key_load(const char *store_path, struct secret *ret, struct problem *problem) {
        char path[PATH_MAX];
        bool is_file;
        int r;

        r = find_path(&restore_place, store_path, path, problem);
        if (r == 0)
                r = look_for_key(&restore_place, path, ret, &is_file, problem);
        if (r != -ENOENT)
                return r < 0 ? r : 1;
        r = find_path(&recovery_place, store_path, path, problem);
        return r < 0 ? r : look_for_key(&recovery_place, path, ret, &is_file, problem);
}

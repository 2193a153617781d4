/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl restore and recover, without gatewayctl: from a backup to a checked file beside the store, and the key
 * that will open it. */

#include "gatewayd/backup/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

/* ---- files of the store's owner ---- */

/* A folder of another user is that of the user gatewayd runs as: what is made there by root must be readable to it. */
static int own_as_folder(int fd, const char *store_path) {
        char folder[PATH_MAX];
        struct stat status;

        path_folder(store_path, folder, sizeof folder);
        if (stat(folder, &status) < 0)
                return -errno;
        if (status.st_uid == geteuid() && status.st_gid == getegid())
                return 0;
        return fchown(fd, status.st_uid, status.st_gid) < 0 ? -errno : 0;
}

/* -errno with the problem set. */
static int make_file(const char *path, const char *store_path, struct problem *problem) {
        int fd, r;

        if (unlink(path) < 0 && errno != ENOENT)
                return place_problem(problem, path, -errno);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return place_problem(problem, path, -errno);
        r = own_as_folder(fd, store_path);
        if (r < 0) {
                close(fd);
                (void)unlink(path);
                return place_problem(problem, path, r);
        }
        return fd;
}

static int write_all(int fd, struct bytes data) {
        while (data.size > 0) {
                ssize_t n = write(fd, data.data, data.size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                data = BYTES(data.data + n, data.size - (size_t)n);
        }
        return 0;
}

/* Takes over `fd`. */
static int sync_and_close(int fd) {
        int r = fsync(fd) < 0 ? -errno : 0;

        if (close(fd) < 0 && r == 0)
                r = -errno;
        return r;
}

static int write_key(const char *path, const char *store_path, const uint8_t key[AGE_KEY_BYTES],
                     struct problem *problem) {
        char text[2 * AGE_KEY_BYTES + 2];
        int fd = make_file(path, store_path, problem), r, closed;

        if (fd < 0)
                return fd;
        bytes_to_hex(BYTES(key, AGE_KEY_BYTES), text);
        text[2 * AGE_KEY_BYTES] = '\n';
        r = write_all(fd, BYTES(text, 2 * AGE_KEY_BYTES + 1));
        OPENSSL_cleanse(text, sizeof text);
        closed = sync_and_close(fd);
        if (r == 0)
                r = closed;
        return r < 0 ? place_problem(problem, path, r) : 0;
}

/* ---- decrypting ---- */

static int pass_on(struct buffer *plain, int to, const char *to_path, uint64_t *ret_bytes, struct problem *problem) {
        int r = write_all(to, buffer_bytes(plain));

        *ret_bytes += plain->size;
        plain->size = 0;
        return r < 0 ? place_problem(problem, to_path, r) : 0;
}

static int decrypt(struct age_decryptor *decryptor, int from, const char *from_path, int to, const char *to_path,
                   uint64_t *ret_bytes, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 }, plain = { 0 };
        ssize_t n;
        int r;

        *ret_bytes = 0;
        while ((n = read(from, buffer_reserve(&sealed, 4 * AGE_CHUNK_BYTES), 4 * AGE_CHUNK_BYTES)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return place_problem(problem, from_path, -errno);
                r = age_decryptor_update(decryptor, BYTES(sealed.data, (size_t)n), &plain, problem);
                if (r == 0)
                        r = pass_on(&plain, to, to_path, ret_bytes, problem);
                if (r < 0)
                        return r;
        }
        r = age_decryptor_final(decryptor, &plain, problem);
        return r < 0 ? r : pass_on(&plain, to, to_path, ret_bytes, problem);
}

static int decrypt_file(const char *file, const char *path, const char *store_path, const uint8_t key[AGE_KEY_BYTES],
                        uint64_t *ret_bytes, struct problem *problem) {
        int from = open(file, O_RDONLY | O_CLOEXEC), to, r, closed;
        struct age_decryptor *decryptor;

        if (from < 0)
                return place_problem(problem, file, -errno);
        to = make_file(path, store_path, problem);
        if (to < 0) {
                close(from);
                return to;
        }
        decryptor = age_decryptor_new(key);
        r = decrypt(decryptor, from, file, to, path, ret_bytes, problem);
        age_decryptor_free(decryptor);
        close(from);
        closed = sync_and_close(to);
        if (r == 0 && closed < 0)
                r = place_problem(problem, path, closed);
        return r;
}

/* ---- restore ---- */

static int take_place_lock(const char *store_path, struct problem *problem) {
        int lock = store_lock(store_path);

        if (lock == -EBUSY)
                return problem_set(problem, CODE_INTERNAL, EBUSY, "store in use",
                                   "gatewayd is running with this store; stop it first (systemctl stop gatewayd)");
        if (lock < 0)
                return place_problem(problem, store_path, lock);
        /* Made by root it must not stand in the way of the one who will take it. */
        if (own_as_folder(lock, store_path) < 0) {
                int r = -errno;

                close(lock);
                return place_problem(problem, store_path, r);
        }
        return lock;
}

static int look(const char *path, const uint8_t key[AGE_KEY_BYTES], struct store_copy *ret, struct problem *problem) {
        int r = store_copy_look(path, BYTES(key, AGE_KEY_BYTES), ret, problem);

        if (r == 0 && !ret->is_backup)
                return problem_set(problem, CODE_BAD_REQUEST, EUCLEAN, "no backup",
                                   "the file holds a store, but none that gatewayctl backup made");
        return r;
}

/* Everything that may fail, before the rename that decides. */
static int fill(const char *file, const char *store_path, const uint8_t key[AGE_KEY_BYTES], struct restored *ret,
                struct problem *problem) {
        char path[PATH_MAX], key_path[PATH_MAX];
        int r;

        r = place_suffixed(store_path, ".restoring", path);
        if (r == 0)
                r = place_beside(store_path, RESTORE_KEY ".new", key_path);
        if (r < 0)
                return place_problem(problem, store_path, r);
        r = decrypt_file(file, path, store_path, key, &ret->bytes, problem);
        if (r == 0)
                r = look(path, key, &ret->copy, problem);
        if (r == 0)
                r = write_key(key_path, store_path, key, problem);
        if (r == 0) {
                r = place_folder_sync(store_path);
                if (r < 0)
                        r = place_problem(problem, store_path, r);
        }
        return r;
}

static int decide(const char *store_path, struct problem *problem) {
        char from[PATH_MAX], to[PATH_MAX];
        int r = place_suffixed(store_path, ".restoring", from);

        if (r == 0)
                r = place_suffixed(store_path, ".restored", to);
        if (r == 0 && rename(from, to) < 0)
                r = -errno;
        if (r == 0)
                r = place_folder_sync(store_path);
        return r < 0 ? place_problem(problem, store_path, r) : 0;
}

static int restore_locked(const char *file, const char *store_path, const uint8_t key[AGE_KEY_BYTES], bool may_replace,
                          struct restored *ret, struct problem *problem) {
        int r;

        r = place_carry_on(store_path, ret->kept, problem); /* of a restore before this that was cut off */
        if (r < 0)
                return r;
        if (!may_replace && access(store_path, F_OK) == 0)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "store exists",
                                   "there is a store already: %s; --force puts it aside and keeps it", store_path);
        r = fill(file, store_path, key, ret, problem);
        if (r < 0) {
                (void)place_clean(store_path); /* the error that matters is known; a start cleans as well */
                return r;
        }
        r = decide(store_path, problem);
        return r < 0 ? r : place_carry_on(store_path, ret->kept, problem);
}

int place_restore(const char *file, const char *store_path, const uint8_t key[AGE_KEY_BYTES], bool may_replace,
                  struct restored *ret, struct problem *problem) {
        int lock = take_place_lock(store_path, problem), r;

        *ret = (struct restored){ 0 };
        if (lock < 0)
                return lock;
        r = restore_locked(file, store_path, key, may_replace, ret, problem);
        close(lock);
        return r < 0 ? r : 0;
}

/* ---- recover ---- */

static int recover_locked(const char *store_path, const uint8_t key[AGE_KEY_BYTES], struct store_copy *ret,
                          struct problem *problem) {
        char fresh[PATH_MAX], path[PATH_MAX], kept[PATH_MAX];
        int r;

        r = place_carry_on(store_path, kept, problem);
        if (r >= 0)
                r = store_copy_look(store_path, BYTES(key, AGE_KEY_BYTES), ret, problem);
        if (r < 0)
                return r;
        r = place_beside(store_path, RESTORE_KEY ".new", fresh);
        if (r == 0)
                r = place_beside(store_path, RESTORE_KEY, path);
        if (r < 0)
                return place_problem(problem, store_path, r);
        r = write_key(fresh, store_path, key, problem);
        if (r < 0) {
                (void)unlink(fresh);
                return r;
        }
        r = rename(fresh, path) < 0 ? -errno : place_folder_sync(store_path);
        return r < 0 ? place_problem(problem, path, r) : 0;
}

int place_recover(const char *store_path, const uint8_t key[AGE_KEY_BYTES], struct store_copy *ret,
                  struct problem *problem) {
        int lock, r;

        if (access(store_path, F_OK) < 0)
                return place_problem(problem, store_path, -errno);
        lock = take_place_lock(store_path, problem);
        if (lock < 0)
                return lock;
        r = recover_locked(store_path, key, ret, problem);
        close(lock);
        return r;
}

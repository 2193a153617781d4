/* SPDX-License-Identifier: Apache-2.0 */

/* How a restored store takes the store's place. One rename decides: what comes before it is invisible to a start,
 * what comes after it every start carries on (place_settle()) before it opens anything. So the old -wal never meets
 * the new file, and no start finds half of each. */

#include "gatewayd/backup/place.h"
#include "gatewayd/backup/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_MAX 1000

int place_beside(const char *store_path, const char *name, char to[PATH_MAX]) {
        const char *slash = strrchr(store_path, '/');
        int size = snprintf(to, PATH_MAX, "%.*s%s", slash ? (int)(slash - store_path + 1) : 0, store_path, name);

        return size < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int place_suffixed(const char *store_path, const char *suffix, char to[PATH_MAX]) {
        return snprintf(to, PATH_MAX, "%s%s", store_path, suffix) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int place_copy_path(const char *store_path, char to[PATH_MAX]) {
        return place_beside(store_path, "backup.tmp", to);
}

static int remove_file(const char *path) {
        return unlink(path) == 0 ? 1 : errno == ENOENT ? 0 : -errno;
}

int place_copy_remove(const char *store_path) {
        char path[PATH_MAX];
        int r = place_copy_path(store_path, path);

        return r < 0 ? r : remove_file(path);
}

int place_folder_sync(const char *store_path) {
        char folder[PATH_MAX];
        int fd, r = 0;

        path_folder(store_path, folder, sizeof folder);
        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fsync(fd) < 0)
                r = -errno;
        close(fd);
        return r;
}

int place_problem(struct problem *problem, const char *path, int error) {
        return problem_set(problem, CODE_INTERNAL, -error, "store's place", "%s: %s", path, strerror(-error));
}

static bool is_there(const char *path) {
        struct stat status;

        return lstat(path, &status) == 0;
}

/* 1 moved; 0: it was not there. */
static int move_file(const char *from, const char *to) {
        return rename(from, to) == 0 ? 1 : errno == ENOENT ? 0 : -errno;
}

/* ---- the old store ---- */

/* The same name each time until the store itself has moved: a cut between the two moves changes nothing. */
static int kept_path(const char *store_path, char to[PATH_MAX]) {
        char suffix[32];

        for (int i = 1; i < KEPT_MAX; i++) {
                int r;

                snprintf(suffix, sizeof suffix, ".before-restore-%d", i);
                r = place_suffixed(store_path, suffix, to);
                if (r < 0 || !is_there(to))
                        return r;
        }
        return -EEXIST;
}

/* Its -wal first: a store without it would be an older one, but nobody opens it before all is done. */
static int set_aside(const char *store_path, char kept[PATH_MAX]) {
        char from[PATH_MAX], to[PATH_MAX];
        int r;

        kept[0] = 0;
        if (!is_there(store_path))
                return 0;
        r = kept_path(store_path, kept);
        if (r == 0)
                r = place_suffixed(store_path, "-wal", from);
        if (r == 0)
                r = place_suffixed(kept, "-wal", to);
        if (r == 0)
                r = move_file(from, to);
        if (r >= 0)
                r = place_suffixed(store_path, "-shm", from);
        if (r >= 0)
                r = remove_file(from);
        if (r >= 0)
                r = move_file(store_path, kept);
        return r < 0 ? r : 0;
}

/* ---- carrying on ---- */

/* The restore has happened; `restored` waits to be the store. */
static int carry_on(const char *store_path, const char *restored, char kept[PATH_MAX]) {
        char key_new[PATH_MAX], key[PATH_MAX], wal[PATH_MAX];
        int r;

        r = place_beside(store_path, RESTORE_KEY ".new", key_new);
        if (r == 0)
                r = place_beside(store_path, RESTORE_KEY, key);
        if (r == 0)
                r = place_suffixed(store_path, "-wal", wal);
        if (r == 0)
                r = move_file(key_new, key);
        if (r >= 0)
                r = set_aside(store_path, kept);
        if (r >= 0)
                r = remove_file(wal); /* one without a store */
        if (r >= 0)
                r = place_folder_sync(store_path);
        if (r >= 0)
                r = move_file(restored, store_path);
        if (r >= 0)
                r = place_folder_sync(store_path);
        return r < 0 ? r : 0;
}

int place_carry_on(const char *store_path, char kept[PATH_MAX], struct problem *problem) {
        char restored[PATH_MAX];
        int r = place_suffixed(store_path, ".restored", restored);

        kept[0] = 0;
        if (r == 0 && !is_there(restored))
                return 0;
        if (r == 0)
                r = carry_on(store_path, restored, kept);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "restore",
                                   "the restored store cannot be put into its place: %s", strerror(-r));
        return 1;
}

/* What a restore that has not happened left. */
int place_clean(const char *store_path) {
        char path[PATH_MAX];
        int r = place_suffixed(store_path, ".restoring", path);

        if (r == 0)
                r = remove_file(path);
        if (r >= 0)
                r = place_beside(store_path, RESTORE_KEY ".new", path);
        if (r == 0)
                r = remove_file(path);
        return r < 0 ? r : 0;
}

static bool has_something(const char *store_path) {
        static const char *const suffixes[] = { ".restored", ".restoring" };
        char path[PATH_MAX];

        for (size_t i = 0; i < ELEMENTS(suffixes); i++)
                if (place_suffixed(store_path, suffixes[i], path) == 0 && is_there(path))
                        return true;
        return place_beside(store_path, RESTORE_KEY ".new", path) == 0 && is_there(path);
}

int place_settle(const char *store_path, struct problem *problem) {
        char kept[PATH_MAX];
        int lock, r;

        if (!has_something(store_path))
                return 0;
        lock = store_lock(store_path);
        if (lock == -EBUSY)
                return problem_set(problem, CODE_INTERNAL, EBUSY, "store in use", "%s is open in another process",
                                   store_path);
        if (lock < 0)
                return place_problem(problem, store_path, lock);
        r = place_carry_on(store_path, kept, problem);
        if (r == 0) {
                r = place_clean(store_path);
                if (r < 0)
                        r = place_problem(problem, store_path, r);
        }
        close(lock);
        return r;
}

int place_key_remove(const char *store_path) {
        char path[PATH_MAX];
        int r = place_beside(store_path, RESTORE_KEY, path);

        if (r == 0)
                r = remove_file(path);
        if (r == 1) {
                r = place_folder_sync(store_path);
                return r < 0 ? r : 1;
        }
        return r;
}

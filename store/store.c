/* SPDX-License-Identifier: Apache-2.0 */

/* Opening, creating and closing the store; connections; what SQLite's results mean to the caller.
 *
 * A new store is made beside its place and renamed into it when it is whole, so that a power cut
 * leaves either none or a good one, and a file that is there but empty is damage. */

#include "store/backup.h"
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES     4096
#define SMALLEST_BYTES 512 /* the smallest page that SQLite knows */

/* Why the latest write to the -wal failed. What fails in a COMMIT does not reach sqlite3_system_errno(). */
static int wal_errno(sqlite3 *db) {
        sqlite3_file *wal = NULL;
        int error = 0;

        if (!db || sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) != SQLITE_OK || !wal ||
            !wal->pMethods || !wal->pMethods->xFileControl /* a journal in memory has none */ ||
            wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &error) != SQLITE_OK)
                return 0;
        return error;
}

/* A write that was refused whole has lost nothing; any other that failed may have. */
static int write_error(sqlite3 *db) {
        int error = wal_errno(db);

        switch (error == 0 && db ? sqlite3_system_errno(db) : error) {
        case ENOSPC:
        case EDQUOT:
                return -ENOSPC;
        case EROFS:
                return -EROFS;
        default:
                return -EIO;
        }
}

int store_error(sqlite3 *db, int rc) {
        int system = db ? sqlite3_system_errno(db) : 0;

        switch (rc) {
        case SQLITE_OK:
        case SQLITE_ROW:
        case SQLITE_DONE:
                return 0;
        case SQLITE_CONSTRAINT_PRIMARYKEY:
        case SQLITE_CONSTRAINT_UNIQUE:
        case SQLITE_CONSTRAINT_ROWID:
                return -EEXIST;
        case SQLITE_IOERR_FSYNC: /* whatever the reason: what was to be synced may be lost */
        case SQLITE_IOERR_DIR_FSYNC:
                return -EIO;
        case SQLITE_IOERR_SHMSIZE: /* the index of the -wal could not grow */
                return -ENOSPC;
        case SQLITE_IOERR_WRITE:
                return write_error(db);
        case SQLITE_IOERR_NOMEM:
                oom();
        }
        switch (rc & 0xff) {
        case SQLITE_NOMEM:
                oom();
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EUCLEAN;
        case SQLITE_CONSTRAINT:
        case SQLITE_MISMATCH:
                return -EINVAL;
        case SQLITE_TOOBIG:
                return -EMSGSIZE;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_READONLY:
                return -EROFS;
        case SQLITE_IOERR:
                return system == ENOSPC || system == EDQUOT ? -ENOSPC : -EIO;
        case SQLITE_CANTOPEN:
                return system > 0 ? -system : -EIO;
        default:
                return -EIO;
        }
}

int connection_run(sqlite3 *db, const char *sql) {
        return store_error(db, sqlite3_exec(db, sql, NULL, NULL, NULL));
}

int connection_number(sqlite3 *db, const char *sql, int64_t *ret) {
        sqlite3_stmt *statement;
        int rc;

        rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
        if (rc != SQLITE_OK)
                return store_error(db, rc);
        rc = sqlite3_step(statement);
        if (rc == SQLITE_ROW)
                *ret = sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        if (rc == SQLITE_DONE)
                return -ENOENT;
        return store_error(db, rc);
}

int connection_open(const char *path, const char *vfs, int flags, sqlite3 **ret) {
        int rc = sqlite3_open_v2(path, ret, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, vfs);

        if (rc != SQLITE_OK)
                return store_error(*ret, rc);
        sqlite3_busy_timeout(*ret, 5000);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
        sqlite3_db_config(*ret, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_wal_autocheckpoint(*ret, 0);
        return 0;
}

/* Nothing is spilled into the -wal before a commit: only then may its end move, and only a commit may
 * start it over. Nothing is written outside the store's own files. */
int connection_open_to_write(const char *path, int flags, sqlite3 **ret) {
        int r = connection_open(path, NULL, SQLITE_OPEN_READWRITE | flags, ret);

        if (r < 0)
                return r;
        return connection_run(*ret, "PRAGMA cache_spill = OFF; PRAGMA temp_store = MEMORY;"
                                    "PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;"
                                    "PRAGMA cell_size_check = ON");
}

static int suffixed(char to[PATH_BYTES], const char *path, const char *suffix) {
        return snprintf(to, PATH_BYTES, "%s%s", path, suffix) < PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static int file_problem(const struct store *store, struct problem *problem, int error, const char *what) {
        return problem_set(problem, CODE_INTERNAL, -error, "store does not open", "%s: %s: %s", store->path, what,
                           strerror(-error));
}

/* The database file itself cannot carry our lock: closing a descriptor of it would drop SQLite's. */
int store_lock(const char *path) {
        struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        char name[PATH_BYTES];
        int fd, r;

        r = suffixed(name, path, ".lock");
        if (r < 0)
                return r;
        fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
                return fd;
        r = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
        close(fd);
        return r;
}

static int take_lock(struct store *store, struct problem *problem) {
        store->lock_fd = store_lock(store->path);
        if (store->lock_fd >= 0)
                return 0;
        if (store->lock_fd == -EBUSY)
                return problem_set(problem, CODE_INTERNAL, EBUSY, "store in use", "%s is open in another process",
                                   store->path);
        return file_problem(store, problem, store->lock_fd, "lock file");
}

/* ---- a new store ---- */

static int fill_new(struct store *store) {
        char sql[64];
        int r;

        r = schema_apply(store->db, schema_migrations, ELEMENTS(schema_migrations));
        if (r < 0)
                return r;
        store->schema = STORE_SCHEMA_VERSION;
        snprintf(sql, sizeof sql, "PRAGMA application_id = %d", STORE_APPLICATION_ID);
        r = connection_run(store->db, sql);
        if (r < 0)
                return r;
        r = meta_create(store);
        if (r < 0)
                return r;
        r = store_data_key_rotate(store, &MOMENT_NONE);
        if (r < 0)
                return r;
        return store_commit(store, NULL);
}

void store_files_remove(const char *path) {
        static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
        char name[PATH_BYTES];

        for (size_t i = 0; i < ELEMENTS(suffixes); i++)
                if (suffixed(name, path, suffixes[i]) == 0)
                        (void)unlink(name); /* mostly there is none */
}

int store_file_sync(const char *path) {
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), r;

        if (fd < 0)
                return -errno;
        r = fsync(fd) < 0 ? -errno : 0;
        close(fd);
        return r;
}

static int make_at(struct store *store, const char *path) {
        int fd, r;

        /* SQLite takes over the mode, for the -wal and -shm as well. */
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        close(fd);
        r = connection_open_to_write(path, 0, &store->db);
        if (r == 0)
                r = connection_run(store->db, "PRAGMA synchronous = FULL");
        if (r == 0)
                r = fill_new(store);
        if (r == 0)
                r = connection_run(store->db, "PRAGMA journal_mode = WAL");
        /* Now the -wal, which has taken this last change alone, may go. */
        sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
        query_cache_clear(store);
        sqlite3_close(store->db);
        store->db = NULL;
        store->turn = 0;
        return r < 0 ? r : store_file_sync(path);
}

static int create(struct store *store, struct problem *problem) {
        char unfinished[PATH_BYTES];
        int r;

        r = suffixed(unfinished, store->path, ".new");
        if (r < 0)
                return file_problem(store, problem, r, "creating it");
        store_files_remove(unfinished);
        r = make_at(store, unfinished);
        if (r == 0 && rename(unfinished, store->path) < 0)
                r = -errno;
        if (r < 0) {
                store_files_remove(unfinished);
                return file_problem(store, problem, r, "creating it");
        }
        return 0; /* the directory is flushed with the barrier's set-up, before anything leaves */
}

static int open_in_memory(struct store *store, struct problem *problem) {
        int r;

        store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = store->event_fd < 0 ? -errno : 0;
        if (r == 0)
                r = connection_open_to_write(":memory:", SQLITE_OPEN_MEMORY, &store->db);
        if (r == 0)
                r = fill_new(store);
        store->turn = 0;
        return r < 0 ? file_problem(store, problem, r, "in memory") : 0;
}

/* ---- an existing store ---- */

static int look_at_files(const struct store *store, bool *ret_exists, struct problem *problem) {
        char wal[PATH_BYTES];
        struct stat st;
        int r;

        r = suffixed(wal, store->path, "-wal");
        if (r < 0)
                return file_problem(store, problem, r, "-wal file");
        *ret_exists = lstat(store->path, &st) == 0;
        if (*ret_exists) {
                if (!S_ISREG(st.st_mode))
                        return file_problem(store, problem, S_ISLNK(st.st_mode) ? -ELOOP : -EINVAL,
                                            "must be a regular file");
                /* SQLite would take one of no page for a new one, and remove its -wal. */
                if (st.st_size < SMALLEST_BYTES)
                        return problem_set(problem, CODE_INTERNAL, EUCLEAN, "store corrupt",
                                           "%s is cut off or empty. It was left untouched: restore a backup, "
                                           "or remove it to begin anew",
                                           store->path);
                return 0;
        }
        if (errno != ENOENT)
                return file_problem(store, problem, -errno, "looking at it");
        /* A new file would meet the records of the old one. */
        if (lstat(wal, &st) == 0 && st.st_size > 0)
                return problem_set(problem, CODE_INTERNAL, EUCLEAN, "store corrupt",
                                   "%s is missing but its -wal file is there. That was left untouched: "
                                   "restore a backup, or remove it to begin anew",
                                   store->path);
        return 0;
}

/* A core that ended over a failed flush leaves pages in memory that are not on the disk but look clean.
 * What is read from here on must be what the disk holds. */
static int forget_cached_wal(const struct store *store) {
        char wal[PATH_BYTES];
        int fd, r;

        r = suffixed(wal, store->path, "-wal");
        if (r < 0)
                return r;
        fd = open(wal, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        r = fdatasync(fd) < 0 ? -errno : 0;
        if (r == 0)
                r = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        close(fd);
        return r;
}

static int open_for_work(struct store *store, const struct store_options *options, struct problem *problem) {
        int64_t pages;
        int r;

        r = connection_open_to_write(store->path, 0, &store->db);
        if (r == 0)
                r = connection_run(store->db, "PRAGMA journal_mode = WAL");
        if (r == 0)
                r = connection_number(store->db, "PRAGMA page_count", &pages); /* opens the -wal */
        if (r == 0)
                r = schema_apply(store->db, schema_migrations, ELEMENTS(schema_migrations));
        if (r == 0 && store->schema < STORE_SCHEMA_VERSION)
                store->schema = STORE_SCHEMA_VERSION;
        if (r == 0)
                r = schema_catch_up(store->db);
        if (r == 0)
                r = device_digest_all(store);
        if (r == 0)
                r = barrier_new(store->path, options->checkpoint_bytes, options->hooks, &store->barrier);
        return r < 0 ? file_problem(store, problem, r, "opening it") : 0;
}

/* From now on the key-encryption key given opens the data keys, and no other, whatever has opened them now. */
static int settle_keys(struct store *store) {
        uint64_t turn;
        int r = 0;

        if (store->seal.opens_with == OPENS_WITH_SEALING_KEY)
                r = seal_cover_all(store);
        else
                r = seal_take_over(store);
        if (r >= 0 && store->is_backup)
                r = restore_take_over(store);
        if (r >= 0)
                r = store_commit(store, &turn);
        if (r >= 0)
                r = store_barrier_wait(store, turn);
        if (r >= 0) {
                store->seal.opens_with = OPENS_WITH_SEALING_KEY;
                store->is_backup = false;
        }
        return r < 0 ? r : 0;
}

static int open_file(struct store *store, const struct store_options *options, struct problem *problem) {
        bool exists = false;
        int r;

        r = take_lock(store, problem);
        if (r < 0)
                return r;
        r = look_at_files(store, &exists, problem);
        if (r < 0)
                return r;
        if (!exists) {
                r = create(store, problem);
                if (r < 0)
                        return r;
        }
        r = forget_cached_wal(store);
        if (r < 0)
                return file_problem(store, problem, r, "-wal file");
        r = probe(store, problem);
        if (r < 0)
                return r;
        r = open_for_work(store, options, problem);
        if (r < 0)
                return r;
        r = settle_keys(store);
        return r < 0 ? file_problem(store, problem, r, "wrapping its data keys anew") : 0;
}

int store_open(const struct store_options *options, struct store **ret, struct problem *problem) {
        _cleanup_(store_closep) struct store *store = xcalloc(1, sizeof *store);
        int r;

        store->lock_fd = -1;
        store->event_fd = -1;
        store->hooks = options->hooks;
        store->path = xstrdup(options->in_memory ? ":memory:" : options->path);
        r = seal_init(&store->seal, options->key_encryption_key);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "no sealing key",
                                   "the sealing key must be %d bytes, not %zu", KEY_BYTES,
                                   options->key_encryption_key.size);

        store->seal.recovery_key = options->recovery_key;
        r = options->in_memory ? open_in_memory(store, problem) : open_file(store, options, problem);
        store->seal.recovery_key = (struct bytes){ 0 };
        if (r < 0)
                return r;
        *ret = store;
        store = NULL;
        return 0;
}

struct store *store_close(struct store *store) {
        if (!store)
                return NULL;
        if (store->db) {
                backup_abandon(store->backup);
                store_rollback(store);
                query_cache_clear(store);
                sqlite3_close(store->db);
        }
        barrier_free(store->barrier);
        seal_done(&store->seal);
        if (store->event_fd >= 0)
                close(store->event_fd);
        if (store->lock_fd >= 0)
                close(store->lock_fd);
        free(store->path);
        free(store);
        return NULL;
}

void store_closep(struct store **store) {
        *store = store_close(*store);
}

/* ---- the barrier, as the others see it ---- */

int store_barrier_fd(const struct store *store) {
        return store->barrier ? barrier_event_fd(store->barrier) : store->event_fd;
}

uint64_t store_barrier_passed(struct store *store) {
        uint64_t count;

        /* Emptied first: what is published after the look makes it readable again. */
        (void)!read(store_barrier_fd(store), &count, sizeof count);
        return store->barrier ? barrier_passed(store->barrier) : store->turn;
}

int store_barrier_error(const struct store *store) {
        return store->barrier ? barrier_error(store->barrier) : 0;
}

int store_barrier_wait(struct store *store, uint64_t turn) {
        if (!store->barrier)
                return turn > store->turn ? -EINVAL : 0;
        return barrier_wait(store->barrier, turn);
}

void store_statistics(struct store *store, struct store_statistics *ret) {
        if (store->barrier)
                barrier_statistics(store->barrier, ret);
        else
                *ret = (struct store_statistics){ .commits = store->turn };
}

/* SPDX-License-Identifier: Apache-2.0 */

/* A look at an existing file that changes nothing, so that a store this gatewayd must not work with
 * stays as it was found: the reasons are corruption, a schema too new, another key-encryption key.
 *
 * Where a -wal is left over from a kill, what counts is the file and the -wal together. SQLite reads
 * both without touching either when it may not write, does not lock, and keeps its index of the -wal in
 * memory (exclusive mode). Nobody else is there: the lock file is ours. */

#include "store/backup.h"
#include "store/devices.h"
#include "store/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A whole check reads the whole file. Beyond this size only what every device's access hangs on is checked at the
 * start, at a cost that does not grow with their number; damage elsewhere shows when it is read. */
#define WHOLE_CHECK_BYTES ((int64_t)64 << 20)

static int corrupt(const struct store *store, struct problem *problem, const char *what) {
        return problem_set(problem, CODE_INTERNAL, EUCLEAN, "store corrupt",
                           "%s: %s. It was left untouched: move it away or restore a backup", store->path, what);
}

static int64_t file_bytes(const char *path, const char *suffix) {
        char name[4096];
        struct stat st;

        if (snprintf(name, sizeof name, "%s%s", path, suffix) >= (int)sizeof name || stat(name, &st) < 0)
                return 0;
        return st.st_size;
}

static void uri_of(const char *path, struct buffer *to) {
        buffer_printf(to, "file:");
        for (; *path; path++)
                if (strchr("%?#", *path))
                        buffer_printf(to, "%%%02x", (unsigned char)*path);
                else
                        buffer_append(to, BYTES(path, 1));
        buffer_printf(to, "?immutable=1");
        buffer_append(to, BYTES("", 1));
}

static int open_for_looking(struct store *store) {
        _cleanup_(buffer_free) struct buffer uri = { 0 };
        int r;

        if (file_bytes(store->path, "-wal") == 0) {
                uri_of(store->path, &uri);
                return connection_open((const char *)uri.data, NULL, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
                                       &store->db);
        }
        r = connection_open(store->path, "unix-none", SQLITE_OPEN_READONLY, &store->db);
        /* Before anything else, or SQLite asks for the shared index. */
        return r < 0 ? r : connection_run(store->db, "PRAGMA locking_mode = EXCLUSIVE");
}

static int check_table(struct store *store, const char *table, struct problem *problem) {
        char sql[80], found[120] = "";
        sqlite3_stmt *statement = NULL;
        int rc;

        snprintf(sql, sizeof sql, table ? "PRAGMA quick_check('%s')" : "PRAGMA quick_check(1)", table);
        rc = sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(statement);
        if (rc == SQLITE_ROW)
                snprintf(found, sizeof found, "%s", (const char *)sqlite3_column_text(statement, 0));
        else
                snprintf(found, sizeof found, "%s", sqlite3_errmsg(store->db));
        sqlite3_finalize(statement);
        return strcmp(found, "ok") == 0 ? 0 : corrupt(store, problem, found);
}

/* The way into a table that has a row for each device: from the root to both ends. */
static int check_ends(struct store *store, const char *column, const char *table, struct problem *problem) {
        static const char *const ends[] = { "min", "max" };
        char sql[80];
        int64_t found;

        for (size_t i = 0; i < ELEMENTS(ends); i++) {
                snprintf(sql, sizeof sql, "SELECT %s(%s) FROM %s", ends[i], column, table);
                if (connection_number(store->db, sql, &found) < 0)
                        return corrupt(store, problem, sqlite3_errmsg(store->db));
        }
        return 0;
}

static int check_contents(struct store *store, struct problem *problem) {
        static const struct {
                const char *table;
                const char *column; /* NULL: a small table, looked at as a whole */
                int since;          /* schema */
        } vital[] = {
                { "meta", NULL, 1 },
                { "data_key", NULL, 1 },
                { "own_secret", NULL, 1 },
                { "tally", NULL, 1 },
                { "device", "number", 1 },
                { "device", "id", 1 },
                { "credential", "number", 1 },
                { "credential", "identity", 1 },
                { "schedule", "device", 1 },
                { "schedule", "wall", 1 },
                { "schedule", "powered", 1 },
                { "authority", NULL, 2 },
                { "certificate", "number", 2 },
                { "certificate", "fingerprint", 2 },
                { "enrolment", "number", 2 },
                { "rotation_order", NULL, 3 },
                { "own_key", NULL, 3 },
        };
        int r = 0;

        if (file_bytes(store->path, "") + file_bytes(store->path, "-wal") <= WHOLE_CHECK_BYTES)
                return check_table(store, NULL, problem);
        for (size_t i = 0; r == 0 && i < ELEMENTS(vital); i++) {
                if (store->schema < vital[i].since)
                        continue;
                if (vital[i].column)
                        r = check_ends(store, vital[i].column, vital[i].table, problem);
                else
                        r = check_table(store, vital[i].table, problem);
        }
        return r;
}

static int check_version(struct store *store, struct problem *problem) {
        int64_t application, version, oldest_writer;

        if (connection_number(store->db, "PRAGMA application_id", &application) < 0)
                return corrupt(store, problem, sqlite3_errmsg(store->db));
        if (application != STORE_APPLICATION_ID)
                return corrupt(store, problem, "not a store of gatewayd");
        if (connection_number(store->db, "PRAGMA user_version", &version) < 0 ||
            connection_number(store->db, "SELECT oldest_writer FROM meta WHERE id = 1", &oldest_writer) < 0)
                return corrupt(store, problem, sqlite3_errmsg(store->db));
        store->schema = version;
        if (version < 1)
                return corrupt(store, problem, "it says no schema version");
        if (version > STORE_SCHEMA_VERSION && oldest_writer > STORE_SCHEMA_VERSION)
                return problem_set(problem, CODE_INTERNAL, ENOTUNIQ, "store too new",
                                   "%s has schema %lld, which a gatewayd of schema %lld or newer may write; "
                                   "this one is of schema %d. It was left untouched",
                                   store->path, (long long)version, (long long)oldest_writer, STORE_SCHEMA_VERSION);
        return 0;
}

/* A backup is one until it is opened in the store's place. */
static int look_at_marker(struct store *store, struct problem *problem) {
        int64_t is_backup = 0, is_sound = 0;

        if (store->schema >= 3 &&
            connection_number(store->db, "SELECT backup_writer IS NOT NULL FROM meta WHERE id = 1", &is_backup) < 0)
                return corrupt(store, problem, sqlite3_errmsg(store->db));
        store->is_backup = is_backup != 0;
        if (!store->is_backup)
                return 0;
        if (connection_number(store->db,
                              "SELECT backup_writer BETWEEN 1 AND oldest_writer AND"
                              " coalesce(length(backup_recovery), 32) = 32 FROM meta WHERE id = 1",
                              &is_sound) < 0 ||
            !is_sound)
                return corrupt(store, problem, "what it says of the store it was made of is damaged");
        return 0;
}

static int check_keys(struct store *store, struct problem *problem) {
        int r = seal_load(store);

        if (r == -EKEYREJECTED && store->is_backup)
                return problem_set(problem, CODE_INTERNAL, EKEYREJECTED, "store is a backup",
                                   "%s is a backup%s. It was left untouched: `gatewayctl restore` puts a backup in "
                                   "place, with the private key of its recipient",
                                   store->path,
                                   store->seal.recovery_key.size > 0 ? ", which the recovery key given does not open"
                                                                     : "");
        if (r == -ENOKEY)
                return problem_set(problem, CODE_INTERNAL, EKEYREJECTED, "store sealed with another key",
                                   "%s was being moved to the sealing key given when an older gatewayd made a data key "
                                   "that only the one of before opens. It was left untouched: start once with that",
                                   store->path);
        if (r == -EKEYREJECTED)
                return problem_set(problem, CODE_INTERNAL, EKEYREJECTED, "store sealed with another key",
                                   "%s was sealed with another sealing key than the one given%s. It was left "
                                   "untouched: give the key it was made with",
                                   store->path,
                                   store->seal.recovery_key.size > 0 ? ", nor does the recovery key open it" : "");
        return r < 0 ? corrupt(store, problem, "its data keys are missing or do not open") : 0;
}

static void close_look(struct store *store) {
        query_cache_clear(store);
        sqlite3_close(store->db);
        store->db = NULL;
}

int probe(struct store *store, struct problem *problem) {
        int r = open_for_looking(store);

        if (r < 0)
                r = problem_set(problem, CODE_INTERNAL, -r, "store does not open", "%s: %s", store->path, strerror(-r));
        if (r == 0)
                r = check_version(store, problem);
        if (r == 0)
                r = check_contents(store, problem);
        if (r == 0)
                r = look_at_marker(store, problem);
        if (r == 0)
                r = check_keys(store, problem);
        close_look(store);
        return r;
}

/* ---- a file that is to be put in the store's place ---- */

static int read_copy(struct store *store, struct store_copy *ret) {
        _cleanup_(query_end) struct query q = query_new(
                store, store->schema < 3 ? "SELECT incarnation, 0, 0, 0 FROM meta WHERE id = 1"
                                         : "SELECT incarnation, backup_of_wall, backup_of_powered, backup_of_quality"
                                           " FROM meta WHERE id = 1");
        struct device_counts counts;
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        *ret = (struct store_copy){ .is_backup = store->is_backup };
        query_get_fixed(&q, ret->incarnation, sizeof ret->incarnation);
        query_get_moment(&q, &ret->made);
        if (!ret->is_backup)
                ret->made = MOMENT_NONE; /* of the backup that it was once restored from */
        r = q.error < 0 ? q.error : device_count(store, &counts);
        ret->devices = counts.total;
        return r;
}

static int look_at_copy(struct store *store, struct store_copy *ret, struct problem *problem) {
        int r = open_for_looking(store);

        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "copy does not open", "%s: %s", store->path,
                                   strerror(-r));
        r = check_version(store, problem);
        if (r == 0)
                r = check_table(store, NULL, problem);
        if (r == 0)
                r = look_at_marker(store, problem);
        if (r == 0 && store->seal.recovery_key.size > 0)
                r = check_keys(store, problem);
        if (r < 0)
                return r;
        r = read_copy(store, ret);
        return r < 0 ? corrupt(store, problem, strerror(-r)) : 0;
}

int store_copy_look(const char *path, struct bytes private_key, struct store_copy *ret, struct problem *problem) {
        static const uint8_t nothing[KEY_BYTES];
        struct store *store = xcalloc(1, sizeof *store);
        int r;

        store->lock_fd = store->event_fd = -1;
        store->path = xstrdup(path);
        r = seal_init(&store->seal, BYTES(nothing, sizeof nothing)); /* the recovery key is to open it */
        store->seal.recovery_key = private_key;
        if (r == 0)
                r = look_at_copy(store, ret, problem);
        else
                r = problem_set(problem, CODE_INTERNAL, -r, "no memory for keys", "%s", strerror(-r));
        close_look(store);
        seal_done(&store->seal);
        free(store->path);
        free(store);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* What the size of a fleet costs when nothing happens to most of it: a tick in which 1,000 devices are due, and the
 * opening of the store, with 10,000 and with 1,000,000 devices. The goal: the tick of the large fleet costs less
 * than 3 times that of the small one.
 *
 *   bench_schedule                     both, and the ratio
 *   bench_schedule fill STORE N KEY [DUE]   N more devices in a store, DUE of them due (none), sealed with the 32 bytes in the
 *                                           file KEY */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "gatewayd/devices/devices.h"
#include "store/credentials.h"

#define DAY   INT64_C(86400)
#define NOW   (20000 * DAY) /* by both clocks: 2024, and powered on since then */
#define DUE   1000
#define TICKS 5
#define GOAL  3.0

/* ?1: how many devices; ?2: now; ?3: every which one is due (0: none). */
static const char *const fill[] = {
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
        " INSERT INTO device (id, profile, standing, registered_wall, registered_powered, registered_quality,"
        " last_seen_wall, last_seen_powered, last_seen_quality, generation, attestation_key, tier, appraised_wall,"
        " appraised_powered, appraised_quality, affirmed_wall, affirmed_powered, affirmed_quality,"
        " evidence_last_wall, evidence_last_powered, evidence_last_quality, window_until_powered, window_until_wall,"
        " due, is_conflicted, conflicted_wall, conflicted_powered, conflicted_quality, is_compromised,"
        " compromised_wall, compromised_powered, compromised_quality, dropped_grants, handshakes,"
        " handshakes_without_fs)"
        " SELECT printf('device-%07d', i), 'bench', 1, ?2, ?2, 6, ?2, ?2, 6, 1, x'', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, "
        "0,"
        " 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0 FROM n WHERE ?3 >= 0",

        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
        " INSERT INTO credential (identity, device, kind, state, generation, predecessor, session, issued_wall,"
        " issued_powered, issued_quality, proven_wall, proven_powered, proven_quality, confirmed_wall,"
        " confirmed_powered, confirmed_quality, superseded_wall, superseded_powered, superseded_quality, ended_wall,"
        " ended_powered, ended_quality, last_used_wall, last_used_powered, last_used_quality, handshakes, data_key,"
        " sealed)"
        " SELECT printf('kid%013d', i), printf('device-%07d', i), 1, 1, 1, printf('device-%07d', i), 0, at, at, 6, at,"
        " at, 6, at, at, 6, 0, 0, 0, 0, 0, 0, at, at, 6, 2, 1, randomblob(65)"
        " FROM (SELECT i, ?2 - CASE WHEN ?3 > 0 AND i % max(?3, 1) = 0 THEN 40 ELSE 1 END * 86400 AS at FROM n)",

        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
        " INSERT INTO schedule (device, wall, powered) SELECT printf('device-%07d', i), at, at"
        " FROM (SELECT i, ?2 + CASE WHEN ?3 > 0 AND i % max(?3, 1) = 0 THEN -10 ELSE 29 END * 86400 AS at FROM n)",

        "UPDATE meta SET clock_floor = ?2, clock_powered = ?2 WHERE ?1 >= 0 AND ?3 >= 0",
};

static _Noreturn void die(const char *what, int error) {
        fprintf(stderr, "bench_schedule: %s: %s\n", what, strerror(error < 0 ? -error : error));
        exit(1);
}

static double seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct store *open_store(const char *path, struct bytes key) {
        const struct store_options options = { .path = path, .key_encryption_key = key };
        struct problem problem = { 0 };
        struct store *store;

        if (store_open(&options, &store, &problem) < 0) {
                fprintf(stderr, "bench_schedule: %s: %s\n", path, problem.detail);
                exit(1);
        }
        return store;
}

static void make(const char *path, struct bytes key, int64_t devices, int64_t due, int64_t now) {
        sqlite3 *db;

        store_close(open_store(path, key));
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
            sqlite3_exec(db, "PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN", NULL, NULL, NULL) !=
                    SQLITE_OK)
                die(path, EIO);
        for (size_t i = 0; i < ELEMENTS(fill); i++) {
                sqlite3_stmt *statement;

                if (sqlite3_prepare_v2(db, fill[i], -1, &statement, NULL) != SQLITE_OK)
                        die(sqlite3_errmsg(db), EINVAL);
                sqlite3_bind_int64(statement, 1, devices);
                sqlite3_bind_int64(statement, 2, now);
                sqlite3_bind_int64(statement, 3, due > 0 ? devices / due : 0);
                if (sqlite3_step(statement) != SQLITE_DONE)
                        die(sqlite3_errmsg(db), EIO);
                sqlite3_finalize(statement);
        }
        if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK || sqlite3_close(db) != SQLITE_OK)
                die(path, EIO);
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

/* The median of ticks that each call the same devices, rolled back but for the last. */
static double measure_tick(struct store *store) {
        struct profile profile = {
                .name = "bench",
                .rotate_every_sec = 30 * DAY,
                .grace_sec = 7 * DAY,
                .max_age_sec = 90 * DAY,
                .on_overdue = OVERDUE_RESTRICT,
        };
        struct config config = { .profiles = &profile, .profile_count = 1 };
        struct turn turn = { .store = store, .config = &config, .actor = "schedule" };
        double took[TICKS];

        turn.now =
                (struct moment){ .wall = NOW, .powered_sec = NOW, .quality = CLOCK_SYNCHRONIZED, .wall_trusted = true };
        for (int i = 0; i < TICKS; i++) {
                double begin = seconds();
                int n = schedule_tick(&turn, DUE + 24);

                if (n != DUE)
                        die("a tick found another number of devices than are due", n < 0 ? n : EINVAL);
                if (i == TICKS - 1 && store_commit(store, NULL) < 0)
                        die("commit", EIO);
                took[i] = seconds() - begin;
                store_rollback(store);
                turn_clear(&turn);
        }
        turn_free(&turn);
        qsort(took, TICKS, sizeof *took, compare);
        return took[TICKS / 2];
}

static double measure(const char *path, struct bytes key, int64_t devices) {
        double begin = seconds(), opened, tick;
        struct store *store;
        uint64_t turn;

        make(path, key, devices, DUE, NOW);
        opened = seconds();
        fprintf(stderr, "  (%lld devices made in %.1f s)\n", (long long)devices, opened - begin);
        opened = seconds();
        store = open_store(path, key);
        opened = seconds() - opened;
        tick = measure_tick(store);
        if (store_commit(store, &turn) >= 0)
                (void)store_barrier_wait(store, turn);
        store_close(store);
        printf("%9lld devices, %d due: tick %6.1f ms, opening the store %5.1f ms\n", (long long)devices, DUE,
               tick * 1e3, opened * 1e3);
        return tick;
}

int main(int argc, char **argv) {
        static const uint8_t fixed[32] = { 1 };
        char folder[] = "/var/tmp/gatewayd-bench-XXXXXX", path[64], command[96];
        double small, large;

        if ((argc == 5 || argc == 6) && strcmp(argv[1], "fill") == 0) {
                uint8_t key[32];
                int fd = open(argv[4], O_RDONLY | O_CLOEXEC);

                if (fd < 0 || read(fd, key, sizeof key) != (ssize_t)sizeof key)
                        die(argv[4], errno ? errno : EINVAL);
                close(fd);
                make(argv[2], BYTES(key, sizeof key), atoll(argv[3]), argc == 6 ? atoll(argv[5]) : 0, time(NULL));
                return 0;
        }
        if (!mkdtemp(folder))
                die(folder, errno);
        printf("the schedule, in a fleet of which most is not due:\n");
        fflush(stdout);
        snprintf(path, sizeof path, "%s/small.db", folder);
        small = measure(path, BYTES(fixed, sizeof fixed), 10000);
        snprintf(path, sizeof path, "%s/large.db", folder);
        large = measure(path, BYTES(fixed, sizeof fixed), 1000000);
        printf("%9s tick of the large fleet x%.2f that of the small one (goal: under x%.0f)\n", "", large / small,
               GOAL);
        snprintf(command, sizeof command, "rm -rf %s", folder);
        return system(command) != 0 || large / small >= GOAL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The schema, as numbered migrations that only add: A/B images roll back, so a gatewayd one version
 * older works with what this one made. A change that an older one cannot live with raises
 * `oldest_writer`, one release after the code that can read it. */

#include "store/internal.h"

#include <errno.h>

/* A moment is three columns: wall, powered-on seconds, quality (with 4 for wall_trusted). */
#define MOMENT(name)                                                                                                   \
        name "_wall INTEGER NOT NULL, " name "_powered INTEGER NOT NULL, " name "_quality INTEGER NOT NULL, "

/* Adds to a tally's row; makes the row where it is not there yet. */
#define COUNT(what, value, amount)                                                                                     \
        "INSERT INTO tally VALUES ('" what "', " value ", " amount ") "                                                \
        "ON CONFLICT (what, value) DO UPDATE SET n = n + excluded.n; "

/* Laid out by hand: a formatter would break the statements up. */
/* clang-format off */
static const char first[] =
        /* Facts of the store itself. The audit columns are the chain's two ends. */
        "CREATE TABLE meta ("
        "  id INTEGER PRIMARY KEY CHECK (id = 1),"
        "  oldest_writer INTEGER NOT NULL,"
        "  incarnation BLOB NOT NULL,"
        "  key_check BLOB NOT NULL,"
        "  recovery_public BLOB," /* of the offline recovery key, where there is one */
        "  clock_floor INTEGER NOT NULL, clock_powered INTEGER NOT NULL, clock_boottime INTEGER NOT NULL,"
        "  clock_boot_id TEXT NOT NULL, clock_was_synchronized INTEGER NOT NULL,"
        "  clock_hold_until INTEGER NOT NULL,"
        "  next_sequence INTEGER NOT NULL, last_receipt_hash BLOB NOT NULL,"
        "  audit_first INTEGER NOT NULL, audit_base BLOB NOT NULL,"
        "  audit_next INTEGER NOT NULL, audit_head BLOB NOT NULL"
        ") STRICT;"

        "CREATE TABLE data_key ("
        "  id INTEGER PRIMARY KEY,"
        "  wrapped BLOB NOT NULL," /* by the key-encryption key */
        "  recovery BLOB," /* wrapped to the offline recovery key */
        MOMENT("made")
        "  sealed INTEGER NOT NULL" /* how often it was used to seal */
        ") STRICT;"
        "CREATE TABLE own_secret ("
        "  name TEXT PRIMARY KEY, data_key INTEGER NOT NULL, sealed BLOB NOT NULL"
        ") STRICT, WITHOUT ROWID;"
        "CREATE INDEX own_secret_by_key ON own_secret (data_key);"

        "CREATE TABLE device ("
        "  number INTEGER PRIMARY KEY,"
        "  id TEXT NOT NULL UNIQUE, profile TEXT NOT NULL, standing INTEGER NOT NULL,"
        MOMENT("registered") MOMENT("last_seen")
        "  generation INTEGER NOT NULL, attestation_key BLOB NOT NULL, tier INTEGER NOT NULL,"
        MOMENT("appraised") MOMENT("affirmed") MOMENT("evidence_last")
        "  window_until_powered INTEGER NOT NULL, window_until_wall INTEGER NOT NULL,"
        "  due INTEGER NOT NULL,"
        "  is_conflicted INTEGER NOT NULL," MOMENT("conflicted")
        "  is_compromised INTEGER NOT NULL," MOMENT("compromised")
        "  dropped_grants INTEGER NOT NULL,"
        "  handshakes INTEGER NOT NULL, handshakes_without_fs INTEGER NOT NULL"
        ") STRICT;"

        "CREATE TABLE schedule ("
        "  device TEXT PRIMARY KEY, wall INTEGER NOT NULL, powered INTEGER NOT NULL"
        ") STRICT, WITHOUT ROWID;"
        "CREATE INDEX schedule_by_wall ON schedule (wall);"
        "CREATE INDEX schedule_by_powered ON schedule (powered);"

        "CREATE TABLE credential ("
        "  number INTEGER PRIMARY KEY,"
        "  identity TEXT NOT NULL UNIQUE, device TEXT NOT NULL,"
        "  kind INTEGER NOT NULL, state INTEGER NOT NULL, generation INTEGER NOT NULL,"
        "  predecessor TEXT NOT NULL, session INTEGER NOT NULL,"
        MOMENT("issued") MOMENT("proven") MOMENT("confirmed") MOMENT("superseded") MOMENT("ended")
        MOMENT("last_used")
        "  handshakes INTEGER NOT NULL,"
        "  data_key INTEGER NOT NULL," /* 0: wiped */
        "  sealed BLOB NOT NULL"
        ") STRICT;"
        "CREATE INDEX credential_by_device ON credential (device, generation);"
        "CREATE INDEX credential_by_session ON credential (session) WHERE session <> 0;"
        "CREATE INDEX credential_by_key ON credential (data_key) WHERE data_key <> 0;"

        "CREATE TABLE challenge ("
        "  number INTEGER PRIMARY KEY,"
        "  nonce BLOB NOT NULL UNIQUE, device TEXT NOT NULL," MOMENT("issued")
        "  lives_sec INTEGER NOT NULL, is_spent INTEGER NOT NULL, spent_digest BLOB NOT NULL,"
        "  sequence INTEGER NOT NULL, tier INTEGER NOT NULL"
        ") STRICT;"
        "CREATE INDEX challenge_by_device ON challenge (device, is_spent);"
        "CREATE INDEX challenge_by_age ON challenge (issued_powered);"

        "CREATE TABLE custody ("
        "  sequence INTEGER PRIMARY KEY,"
        "  device TEXT NOT NULL," MOMENT("received")
        "  content_format INTEGER NOT NULL, nonce BLOB NOT NULL, tier INTEGER NOT NULL,"
        "  delivery INTEGER NOT NULL,"
        "  is_waiting INTEGER NOT NULL," /* its receipt has not been delivered yet */
        "  http_status INTEGER NOT NULL, reason TEXT NOT NULL," /* of the parking */
        "  receipt BLOB NOT NULL, evidence BLOB NOT NULL"
        ") STRICT;"
        "CREATE INDEX custody_waiting ON custody (sequence) WHERE is_waiting = 1;"
        "CREATE INDEX custody_over ON custody (delivery, sequence) WHERE is_waiting = 0;"

        "CREATE TABLE audit ("
        "  number INTEGER PRIMARY KEY," MOMENT("at")
        "  kind TEXT NOT NULL, device TEXT NOT NULL, kid TEXT NOT NULL, reason TEXT NOT NULL,"
        "  actor TEXT NOT NULL, hash BLOB NOT NULL"
        ") STRICT;"
        "CREATE INDEX audit_by_device ON audit (device, number) WHERE device <> '';"

        /* How many there are of what, kept by triggers: counting never walks a table. */
        "CREATE TABLE tally ("
        "  what TEXT NOT NULL, value INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (what, value)"
        ") STRICT, WITHOUT ROWID;"

        "CREATE TRIGGER device_counted AFTER INSERT ON device BEGIN "
        COUNT("standing", "new.standing", "1")
        COUNT("tier", "new.tier", "1")
        COUNT("due", "1", "(new.due & 1) <> 0")
        COUNT("due", "2", "(new.due & 2) <> 0")
        "END;"
        "CREATE TRIGGER device_uncounted AFTER DELETE ON device BEGIN "
        COUNT("standing", "old.standing", "-1")
        COUNT("tier", "old.tier", "-1")
        COUNT("due", "1", "-((old.due & 1) <> 0)")
        COUNT("due", "2", "-((old.due & 2) <> 0)")
        "END;"
        "CREATE TRIGGER device_standing_counted AFTER UPDATE OF standing ON device "
        "WHEN new.standing <> old.standing BEGIN "
        COUNT("standing", "old.standing", "-1")
        COUNT("standing", "new.standing", "1")
        "END;"
        "CREATE TRIGGER device_tier_counted AFTER UPDATE OF tier ON device WHEN new.tier <> old.tier BEGIN "
        COUNT("tier", "old.tier", "-1")
        COUNT("tier", "new.tier", "1")
        "END;"
        "CREATE TRIGGER device_due_counted AFTER UPDATE OF due ON device WHEN new.due <> old.due BEGIN "
        COUNT("due", "1", "((new.due & 1) <> 0) - ((old.due & 1) <> 0)")
        COUNT("due", "2", "((new.due & 2) <> 0) - ((old.due & 2) <> 0)")
        "END;"

        /* Of the backlog: records and bytes still to be delivered; and what was, ever. */
        "CREATE TRIGGER custody_counted AFTER INSERT ON custody BEGIN "
        COUNT("custody-waiting", "0", "1")
        COUNT("custody-bytes", "0", "length(new.receipt) + length(new.evidence)")
        "END;"
        "CREATE TRIGGER custody_delivery_counted AFTER UPDATE OF delivery ON custody "
        "WHEN new.delivery <> old.delivery BEGIN "
        COUNT("custody-ever", "new.delivery", "1")
        "END;"
        "CREATE TRIGGER custody_parked_counted AFTER UPDATE OF delivery ON custody "
        "WHEN new.delivery = 2 AND old.delivery <> 2 BEGIN "
        COUNT("custody-bytes", "0", "-length(old.evidence)")
        COUNT("custody-parked-bytes", "0", "length(new.evidence)")
        "END;"
        "CREATE TRIGGER custody_settled_counted AFTER UPDATE OF is_waiting ON custody "
        "WHEN new.is_waiting = 0 AND old.is_waiting = 1 BEGIN "
        COUNT("custody-waiting", "0", "-1")
        COUNT("custody-bytes", "0",
              "-length(old.receipt) - CASE old.delivery WHEN 2 THEN 0 ELSE length(old.evidence) END")
        "END;"
        "CREATE TRIGGER custody_removed_counted AFTER DELETE ON custody WHEN old.delivery = 2 BEGIN "
        COUNT("custody-parked-bytes", "0", "-length(old.evidence)")
        "END;";
/* clang-format on */

const struct migration schema_migrations[STORE_SCHEMA_VERSION] = {
        { .sql = first, .oldest_writer = 1 },
};

static int apply_one(sqlite3 *db, const struct migration *migration, int version) {
        char sql[160];
        int r;

        r = connection_run(db, migration->sql);
        if (r < 0)
                return r;
        snprintf(sql, sizeof sql,
                 "PRAGMA user_version = %d;"
                 "UPDATE meta SET oldest_writer = %d WHERE oldest_writer < %d",
                 version, migration->oldest_writer, migration->oldest_writer);
        return connection_run(db, sql);
}

int schema_apply(sqlite3 *db, const struct migration *migrations, size_t count) {
        int64_t version;
        int r;

        r = connection_number(db, "PRAGMA user_version", &version);
        if (r < 0)
                return r;

        for (; version < (int64_t)count; version++) {
                r = connection_run(db, "BEGIN IMMEDIATE");
                if (r < 0)
                        return r;
                r = apply_one(db, &migrations[version], (int)version + 1);
                if (r == 0)
                        r = connection_run(db, "COMMIT");
                if (r < 0) {
                        if (!sqlite3_get_autocommit(db))
                                (void)connection_run(db, "ROLLBACK"); /* the first error is the one to tell */
                        return r;
                }
        }
        return 0;
}

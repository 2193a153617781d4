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

/* How many certificates of an issuer have not been revoked, by the day on which they run out: one row of
 * the tally for a day, so that what is in force after a moment is a sum over the days to come. */
#define LEAF_DAY(row) "(" row ".issuer << 24) | max(0, min(" row ".not_after / 86400, 16777215))"

/* Certificates: of devices (LDevIDs, and the IDevIDs they came with: issuer 4294967295), of the issuing CA,
 * and requests to the upstream one.
 *
 * A gatewayd of version 1 may write this store. It meets credentials of kinds 2 (IDevID) and 3 (LDevID):
 * their sealed secret is empty, as of one that was wiped, so they open no handshake of its; they are not
 * PSKs, so none of them is ever its device's newest key, and without that nothing but a grant nobody took up
 * and a row that ended long ago is removed. A device that has certificates only waits until this version is
 * back; one with a PSK as well works. What version 1 does know to do, ends certificates too: it removes
 * a device, and the triggers below see to its certificates and enrolments; it revokes one, and the
 * store's opening here catches up (schema_catch_up()). New columns have defaults or may be null. */
static const char second[] =
        "ALTER TABLE device ADD COLUMN anchors INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE device ADD COLUMN attestation_digest BLOB;" /* SHA-256 of the attestation key; null: not made yet */
        "CREATE INDEX device_by_attestation ON device (attestation_digest) WHERE attestation_digest IS NOT NULL;"
        "CREATE INDEX device_undigested ON device (number) "
        "WHERE attestation_digest IS NULL AND attestation_key <> x'';"
        "CREATE INDEX device_revoked ON device (id) WHERE standing = 4;"

        "CREATE TABLE certificate ("
        "  number INTEGER PRIMARY KEY,"
        "  fingerprint TEXT NOT NULL UNIQUE, device TEXT NOT NULL, issuer INTEGER NOT NULL,"
        "  serial BLOB NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL,"
        "  public_key BLOB NOT NULL, ski BLOB NOT NULL, csr BLOB NOT NULL,"
        "  revoked INTEGER NOT NULL," /* -1: not */
        MOMENT("revoked_at")
        "  has_credential INTEGER NOT NULL,"
        "  der BLOB NOT NULL"
        ") STRICT;"
        "CREATE INDEX certificate_by_csr ON certificate (device, csr);"
        "CREATE INDEX certificate_idevid ON certificate (device) WHERE issuer = 4294967295;"
        "CREATE INDEX certificate_by_key ON certificate (public_key);"
        "CREATE INDEX certificate_in_force ON certificate (issuer, not_after) WHERE revoked = -1;"
        "CREATE INDEX certificate_revoked ON certificate (issuer, serial) WHERE revoked <> -1;"
        "CREATE INDEX certificate_over ON certificate (not_after) "
        "WHERE has_credential = 0 AND issuer <> 4294967295;"

        "CREATE TABLE authority ("
        "  generation INTEGER PRIMARY KEY,"
        "  state INTEGER NOT NULL, key_uri TEXT NOT NULL, is_root INTEGER NOT NULL,"
        "  not_before INTEGER NOT NULL, not_after INTEGER NOT NULL,"
        MOMENT("created") MOMENT("announced") MOMENT("activated") MOMENT("superseded") MOMENT("ended")
        "  crl_number INTEGER NOT NULL, crl_next_update INTEGER NOT NULL, crl_is_stale INTEGER NOT NULL"
        ") STRICT;"
        "CREATE INDEX authority_open ON authority (generation) WHERE state <> 4;"
        "CREATE TABLE authority_part ("
        "  generation INTEGER NOT NULL, part INTEGER NOT NULL, value BLOB NOT NULL,"
        "  PRIMARY KEY (generation, part)"
        ") STRICT, WITHOUT ROWID;"

        /* Numbers are never given twice: an answer may come after its enrolment was removed. */
        "CREATE TABLE enrolment ("
        "  number INTEGER PRIMARY KEY AUTOINCREMENT,"
        "  device TEXT NOT NULL, is_renewal INTEGER NOT NULL, csr BLOB NOT NULL, public_key BLOB NOT NULL,"
        "  predecessor TEXT NOT NULL, state INTEGER NOT NULL,"
        MOMENT("asked") MOMENT("answered")
        "  retry_powered INTEGER NOT NULL, http_status INTEGER NOT NULL, reason TEXT NOT NULL,"
        "  fingerprint TEXT NOT NULL, csr_der BLOB NOT NULL"
        ") STRICT;"
        "CREATE INDEX enrolment_by_key ON enrolment (device, public_key);"
        "CREATE INDEX enrolment_key ON enrolment (public_key) WHERE state = 0;"
        "CREATE INDEX enrolment_due ON enrolment (retry_powered) WHERE state = 0;"
        "CREATE INDEX enrolment_answered ON enrolment (answered_powered) WHERE state <> 0;"

        "CREATE TRIGGER certificate_counted AFTER INSERT ON certificate WHEN new.revoked = -1 BEGIN "
        COUNT("leaves", LEAF_DAY("new"), "1")
        "END;"
        "CREATE TRIGGER certificate_uncounted AFTER DELETE ON certificate WHEN old.revoked = -1 BEGIN "
        COUNT("leaves", LEAF_DAY("old"), "-1")
        "END;"
        "CREATE TRIGGER certificate_revoked_counted AFTER UPDATE OF revoked ON certificate "
        "WHEN old.revoked = -1 AND new.revoked <> -1 BEGIN "
        COUNT("leaves", LEAF_DAY("old"), "-1")
        "UPDATE authority SET crl_is_stale = 1 WHERE generation = new.issuer; "
        "END;"

        "CREATE TRIGGER certificate_taken AFTER INSERT ON credential WHEN new.kind = 3 BEGIN "
        "UPDATE certificate SET has_credential = 1 WHERE fingerprint = new.identity; "
        "END;"
        "CREATE TRIGGER certificate_left AFTER DELETE ON credential WHEN old.kind = 3 BEGIN "
        "UPDATE certificate SET has_credential = 0 WHERE fingerprint = old.identity; "
        "END;"

        /* What goes with a device. A CRL names what was issued to it, not what its maker issued. */
        "CREATE TRIGGER device_ceased AFTER DELETE ON device BEGIN "
        "DELETE FROM certificate WHERE device = old.id AND issuer = 4294967295; "
        "UPDATE certificate SET revoked = 5, (revoked_at_wall, revoked_at_powered, revoked_at_quality) = "
        "(SELECT clock_floor, clock_powered, 0 FROM meta WHERE id = 1) WHERE device = old.id AND revoked = -1; "
        "DELETE FROM enrolment WHERE device = old.id; "
        "END;"

        "CREATE TRIGGER authority_counted AFTER INSERT ON authority BEGIN "
        "INSERT INTO tally VALUES ('ca-generation', 0, new.generation) "
        "ON CONFLICT (what, value) DO UPDATE SET n = max(n, excluded.n); "
        "END;"
        "CREATE TRIGGER enrolment_counted AFTER INSERT ON enrolment BEGIN "
        COUNT("enrolment", "new.state", "1")
        "END;"
        "CREATE TRIGGER enrolment_uncounted AFTER DELETE ON enrolment BEGIN "
        COUNT("enrolment", "old.state", "-1")
        "END;"
        "CREATE TRIGGER enrolment_state_counted AFTER UPDATE OF state ON enrolment WHEN new.state <> old.state BEGIN "
        COUNT("enrolment", "old.state", "-1")
        COUNT("enrolment", "new.state", "1")
        "END;";

/* A moment that was added later: unset in the rows that were there. */
#define ADD_MOMENT(table, name)                                                                                        \
        "ALTER TABLE " table " ADD COLUMN " name "_wall INTEGER NOT NULL DEFAULT 0;"                                   \
        "ALTER TABLE " table " ADD COLUMN " name "_powered INTEGER NOT NULL DEFAULT 0;"                                \
        "ALTER TABLE " table " ADD COLUMN " name "_quality INTEGER NOT NULL DEFAULT 0;"

/* Orders about rotation, the gateway's own keys, the second key-encryption key while one replaces the other, and
 * backups.
 *
 * A gatewayd of version 2 may write this store. It offers no rotation that was ordered and reminds of no key: both
 * wait. It opens a store whose sealing key is being replaced with the one of before only; a data key that it makes
 * meanwhile is covered by the next start of this version (seal_rewrap.c). A backup says itself that no version
 * before this one may write it: that would not know that it must become another store (restore.c). */
static const char third[] =
        "ALTER TABLE meta ADD COLUMN key_check_next BLOB;" /* X25519 public key of the key-encryption key to come */
        ADD_MOMENT("meta", "backed_up")
        ADD_MOMENT("meta", "backup_of")
        ADD_MOMENT("meta", "restored")
        "ALTER TABLE meta ADD COLUMN is_restored INTEGER NOT NULL DEFAULT 0;" /* and core has not said when */
        /* Of a backup, what the store has that it was made of; null: this is none. */
        "ALTER TABLE meta ADD COLUMN backup_writer INTEGER;" /* its oldest_writer */
        "ALTER TABLE meta ADD COLUMN backup_recovery BLOB;" /* its recovery_public */
        "ALTER TABLE data_key ADD COLUMN wrapped_next BLOB;" /* to that public key */

        "CREATE TABLE rotation_order ("
        "  profile TEXT PRIMARY KEY," MOMENT("asked")
        "  within_sec INTEGER NOT NULL," MOMENT("paused")
        "  pause_sec INTEGER NOT NULL"
        ") STRICT, WITHOUT ROWID;"
        "CREATE TABLE own_key ("
        "  kind INTEGER PRIMARY KEY,"
        "  generation INTEGER NOT NULL," MOMENT("made")
        "  id TEXT NOT NULL, not_after INTEGER NOT NULL, told INTEGER NOT NULL"
        ") STRICT;"

        /* Devices that were revoked since the store was opened, by whichever gatewayd: what the next opening has to
         * look at, instead of all that ever were. */
        "CREATE TABLE revoked_lately (device TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;"
        "INSERT INTO revoked_lately SELECT id FROM device WHERE standing = 4;"
        "CREATE TRIGGER device_revoked_lately AFTER UPDATE OF standing ON device "
        "WHEN new.standing = 4 AND old.standing <> 4 BEGIN "
        "INSERT INTO revoked_lately VALUES (new.id) ON CONFLICT DO NOTHING; "
        "END;";

/* Certificates of devices that a gatewayd of version 1 revoked: reason 9, privilege withdrawn. Where there is none,
 * nothing is written (DELETE without WHERE writes the page of an empty table): a start must do on a full disk. */
static const char catch_up[] =
        "UPDATE certificate SET revoked = 9, (revoked_at_wall, revoked_at_powered, revoked_at_quality) = "
        "(SELECT clock_floor, clock_powered, 0 FROM meta WHERE id = 1) "
        "WHERE revoked = -1 AND device IN "
        "(SELECT l.device FROM revoked_lately l CROSS JOIN device d ON d.id = l.device WHERE d.standing = 4);"
        "DELETE FROM revoked_lately WHERE device IS NOT NULL";
/* clang-format on */

const struct migration schema_migrations[STORE_SCHEMA_VERSION] = {
        { .sql = first, .oldest_writer = 1 },
        { .sql = second, .oldest_writer = 1 },
        { .sql = third, .oldest_writer = STORE_OLDEST_WRITER },
};

int schema_catch_up(sqlite3 *db) {
        return connection_run(db, catch_up);
}

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
                crash_point("migration");
                r = connection_run(db, "BEGIN IMMEDIATE");
                if (r < 0)
                        return r;
                r = apply_one(db, &migrations[version], (int)version + 1);
                crash_point("migration's commit");
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

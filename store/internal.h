/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of this folder share: the store itself, queries, the turn, the seal, the barrier.
 * Nobody outside store/ includes this (its tests do). */

#include <sqlite3.h>

#include "gatewayd/crash_point.h"
#include "store/hooks.h"
#include "store/store.h"

/* ---- seal.c: data keys, and what they seal ---- */

#define KEY_BYTES              32
#define SEAL_NONCE_BYTES       12
#define SEAL_TAG_BYTES         16
#define SEAL_HEADER_BYTES      (1 + 4 + SEAL_NONCE_BYTES) /* format, data key's id, nonce */
#define SEAL_OVERHEAD          (SEAL_HEADER_BYTES + SEAL_TAG_BYTES)
#define WRAPPED_KEY_BYTES      (SEAL_NONCE_BYTES + KEY_BYTES + SEAL_TAG_BYTES)
#define RECOVERY_WRAPPED_BYTES (RECOVERY_KEY_BYTES + WRAPPED_KEY_BYTES)
#define DATA_KEYS_MAX          32

/* With random 96-bit nonces one key may seal 2^32 times (NIST SP 800-38D §8.3); a new data key is
 * made long before. */
#define SEALS_PER_KEY (1U << 30)

struct seal_keys; /* lives in a page of its own */

/* What opened the data keys. */
enum seal_opening {
        OPENS_WITH_SEALING_KEY,
        OPENS_WITH_NEXT_KEY, /* the key-encryption key given is the one that was prepared */
        OPENS_WITH_RECOVERY_KEY,
};

struct seal {
        struct seal_keys *keys;
        struct bytes recovery_key; /* borrowed, while the store is being opened */
        enum seal_opening opens_with;
        bool is_dirty; /* keys were changed in the open turn: a rollback reloads them */
};

/* What a sealed secret is bound to. */
struct seal_context {
        struct bytes device, name; /* name: the identity or the own secret's name */
        uint8_t kind;
        uint32_t generation;
};

#define SEAL_KIND_OWN 0xff /* a secret of the gateway itself; credentials use enum credential_kind */

/* AES-256-GCM. Sealing writes nonce, ciphertext and tag; opening reads them, -EBADMSG when it does not. */
int gcm_seal(const uint8_t key[KEY_BYTES], struct bytes associated, struct bytes plain, uint8_t *to);
int gcm_open(const uint8_t key[KEY_BYTES], struct bytes associated, struct bytes sealed, uint8_t *to);

int seal_init(struct seal *seal, struct bytes key_encryption_key);
void seal_done(struct seal *seal);
/* The check value of a key-encryption key that is not in the store yet. */
int seal_check_value(struct seal *seal, uint8_t ret[WRAPPED_KEY_BYTES]);
/* Reads and opens the data keys. -EKEYREJECTED: the check value says another key-encryption key; -ENOKEY: the
 * one given is prepared, but a data key was made without it; -EUCLEAN: rows are missing or damaged. */
int seal_load(struct store *store);
/* After a rollback: reads the keys again where the turn had changed them. */
int seal_reload(struct store *store);
/* The turn that may have changed keys is over. */
void seal_settled(struct seal *seal);
int seal_put(struct store *store, const struct seal_context *context, struct bytes secret, struct buffer *ret,
             uint32_t *ret_key);
int seal_open(struct store *store, const struct seal_context *context, struct bytes sealed, struct buffer *ret);

/* Which data key seals now. */
uint32_t seal_current_key(const struct seal *seal);
/* Forgets the data keys but that one under which nothing is sealed any more. */
int seal_drop_unused(struct store *store);

typedef int (*data_key_visitor)(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]);
int seal_each_key(struct store *store, data_key_visitor visit);

/* ---- seal_rewrap.c ---- */

/* Covers data keys that an older gatewayd has made since the next key-encryption key was prepared. */
int seal_cover_all(struct store *store);
/* The store was opened in another way: from now on the key-encryption key given is the only one. */
int seal_take_over(struct store *store);

/* ---- recovery.c ---- */

/* Wraps a data key to the recovery key besides, where there is one. */
int recovery_cover(struct store *store, uint32_t id, const uint8_t key[KEY_BYTES]);
/* Writes the ephemeral public key and what gcm_seal() gives. */
int recovery_wrap(const uint8_t public_key[RECOVERY_KEY_BYTES], uint32_t id, const uint8_t key[KEY_BYTES],
                  uint8_t ret[RECOVERY_WRAPPED_BYTES]);
int recovery_unwrap(struct bytes private_key, uint32_t id, struct bytes wrapped, uint8_t ret[KEY_BYTES]);

/* An X25519 pair that follows from a secret. */
int recovery_pair_of(const uint8_t secret[KEY_BYTES], const char *label, uint8_t ret_private[RECOVERY_KEY_BYTES],
                     uint8_t ret_public[RECOVERY_KEY_BYTES]);

/* ---- barrier.c ---- */

struct barrier;

int barrier_new(const char *path, size_t checkpoint_bytes, const struct store_hooks *hooks, struct barrier **ret);
/* Waits for the last commit's flush, ends the thread, checkpoints (where nothing has failed) and
 * frees. Core's connection must be closed. */
void barrier_free(struct barrier *barrier);
/* Core is about to open a write transaction: waits while a checkpoint's second pass holds it. */
void barrier_turn_begins(struct barrier *barrier);
void barrier_turn_ends(struct barrier *barrier);
void barrier_commit_begins(struct barrier *barrier);
/* The commit is in the WAL, which now has `frames` frames. */
void barrier_committed(struct barrier *barrier, uint64_t turn, int frames);
/* The commit met a disk that fails: as a failed flush. */
void barrier_failed(struct barrier *barrier, int error);
/* The disk is full: a checkpoint lets the WAL's own space be used again. */
void barrier_disk_full(struct barrier *barrier);
int barrier_event_fd(const struct barrier *barrier);
uint64_t barrier_passed(struct barrier *barrier);
int barrier_error(const struct barrier *barrier);
int barrier_wait(struct barrier *barrier, uint64_t turn);
void barrier_statistics(struct barrier *barrier, struct store_statistics *ret);

/* ---- the store ---- */

#define STATEMENTS_MAX 128 /* slots of the statement cache, a power of two */

struct cached_statement {
        const char *sql; /* a literal: compared by address */
        sqlite3_stmt *statement;
        bool is_used;
};

struct store {
        sqlite3 *db;
        char *path;
        const struct store_hooks *hooks; /* NULL: none */
        int lock_fd;
        int64_t schema;              /* of the file, as it is now */
        bool is_backup;              /* it is one that has not become a store of its own yet */
        struct store_backup *backup; /* being made of it */
        struct seal seal;
        struct {
                int64_t own, credentials; /* damaged rows passed over, since the newest data key was made */
        } damaged;
        struct barrier *barrier; /* NULL in memory */
        int event_fd;            /* in memory only; else the barrier's */
        struct cached_statement statements[STATEMENTS_MAX];

        uint64_t turn; /* number of the last one committed */
        bool is_open;  /* BEGIN was executed */
        bool is_changed;
        bool has_savepoint;     /* asked for */
        bool is_savepoint_open; /* executed */
        bool is_changed_before_savepoint;
        int turn_error; /* SQLite ended the transaction on its own */
        int frames;     /* in the WAL, after the last commit */
};

/* Something is about to be changed: where a test ends the process. */
static inline void store_operation(const struct store_hooks *hooks, const char *what) {
        if (hooks && hooks->operation)
                hooks->operation(hooks->userdata, what);
        crash_point(what);
}

/* ---- store.c, probe.c, schema.c ---- */

#define STORE_APPLICATION_ID 0x67776179 /* "gway" */

int store_error(sqlite3 *db, int rc);
/* What every connection needs, without a look at the file. */
int connection_open(const char *path, const char *vfs, int flags, sqlite3 **ret);
int connection_open_to_write(const char *path, int flags, sqlite3 **ret);
int connection_run(sqlite3 *db, const char *sql);
/* The first column of the first row as a number. */
int connection_number(sqlite3 *db, const char *sql, int64_t *ret);
int store_file_sync(const char *path);
/* A file with all that SQLite may have put beside it. */
void store_files_remove(const char *path);
/* Looks at an existing file without changing a byte of it or of its -wal and -shm: may this
 * gatewayd, with this key-encryption key, work with it? Loads the data keys. */
int probe(struct store *store, struct problem *problem);

/* Takes a schema from `version` to the end of the list, in one transaction each. */
struct migration {
        const char *sql;
        int oldest_writer; /* who may still write the store afterwards */
};
int schema_apply(sqlite3 *db, const struct migration *migrations, size_t count);
extern const struct migration schema_migrations[STORE_SCHEMA_VERSION];
/* What an older gatewayd that had the store did not know to do. Costs what there is to do. */
int schema_catch_up(sqlite3 *db);

/* ---- backup.c, restore.c ---- */

/* The store is being closed while one is made. NULL-safe. */
void backup_abandon(struct store_backup *backup);
/* A backup becomes a store of its own, in the current turn. */
int restore_take_over(struct store *store);

/* ---- devices.c ---- */

/* Makes the digests of attestation keys that an older gatewayd wrote. */
int device_digest_all(struct store *store);

/* The one row of meta, for a new store. */
int meta_create(struct store *store);

/* ---- turn.c: transactions ---- */

/* Opens the transaction and the savepoint where they are not open yet. */
int turn_write(struct store *store);
/* Ends a turn that SQLite has rolled back by itself. Returns `error`. */
int turn_failed(struct store *store, int error);

/* ---- query.c: one use of one cached statement ---- */

struct query {
        struct store *store;
        sqlite3_stmt *statement;
        struct cached_statement *cached; /* NULL: prepared for this use alone */
        int parameter, column;           /* next ones */
        int error;                       /* the first; 0 none */
};

struct query query_new(struct store *store, const char *sql);
void query_end(struct query *q);
void query_put_int(struct query *q, int64_t value);
void query_put_text(struct query *q, const char *text);
void query_put_text_bytes(struct query *q, struct bytes text);
void query_put_blob(struct query *q, struct bytes blob);
void query_put_moment(struct query *q, const struct moment *moment);
/* 1: a row; 0: no more; or -errno. */
int query_step(struct query *q);
/* A change: opens the transaction. Returns how many rows changed, or -errno. */
int query_run(struct query *q);
/* Columns in order; a value of another shape than asked for sets q->error to -EUCLEAN. */
int64_t query_get_int(struct query *q);
void query_get_text(struct query *q, char *to, size_t to_size);
struct bytes query_get_blob(struct query *q);
void query_get_fixed(struct query *q, uint8_t *to, size_t size);
void query_get_moment(struct query *q, struct moment *to);
void query_cache_clear(struct store *store);

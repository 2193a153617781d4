/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The store: one SQLite file in WAL mode, owned by core alone.
 *
 * A turn is one transaction. store_commit() makes its effects part of the WAL without a flush and
 * returns the turn's number; the barrier thread flushes the WAL and publishes the number of the
 * last turn that survives power loss. Nothing that a turn decided may leave before
 * store_barrier_passed() has reached its number. Checkpoints are the barrier thread's business
 * (rules in barrier.c).
 *
 * All functions return 0 or a positive result, or a negative errno: -ENOENT (no such row), -EEXIST,
 * -ENOSPC (disk full: the turn must be rolled back), -EIO, -EBADMSG (a sealed secret does not open). */

#include "gatewayd/bytes.h"
#include "gatewayd/clock.h"
#include "gatewayd/problem.h"
#include "gatewayd/secret.h"

#define STORE_SCHEMA_VERSION 2
/* A gatewayd older than this schema must not write the store (A/B images roll back). */
#define STORE_OLDEST_WRITER 1

struct store;
struct store_hooks; /* store/hooks.h */

struct store_options {
        const char *path;
        struct bytes key_encryption_key; /* 32 bytes; wraps the data keys */
        size_t checkpoint_bytes;         /* WAL size that starts a checkpoint; 0: 4 MiB */
        bool in_memory;                  /* unit tests of domain logic: no file, no thread, barrier passes at commit */
        struct bytes recovery_key;       /* 32 bytes, or none: opens a store whose key-encryption key was lost */
        const struct store_hooks *hooks; /* tests only; borrowed until the store is closed */
};

/* Opens or creates. On failure the file is left untouched and `problem` says which of these it is:
 * -ENOTUNIQ (schema too new), -EUCLEAN (corrupt), -EKEYREJECTED (sealed with another key),
 * -EBUSY (another process has it open), or the errno of the file system. */
int store_open(const struct store_options *options, struct store **ret, struct problem *problem);
/* Waits for the barrier, checkpoints, closes. */
struct store *store_close(struct store *store);
void store_closep(struct store **store);

/* Turns. store_begin() is lazy and may be called again; store_commit() without a change is free and
 * returns the number of the last turn that changed something. */
int store_begin(struct store *store);
int store_commit(struct store *store, uint64_t *ret_turn);
/* Drops everything since the last commit. */
void store_rollback(struct store *store);
/* One request: its effects are all in or all out. Savepoints do not nest. */
int store_savepoint(struct store *store);
int store_savepoint_release(struct store *store);
int store_savepoint_rollback(struct store *store);
/* Rows changed since the last commit. */
bool store_is_changed(const struct store *store);

/* The barrier. The eventfd becomes readable when the published number grows, and when the barrier has
 * failed; store_barrier_passed() empties it. */
int store_barrier_fd(const struct store *store);
uint64_t store_barrier_passed(struct store *store);
/* Negative errno once an fdatasync has failed: nothing may leave any more, core must end. */
int store_barrier_error(const struct store *store);
/* Blocks until `turn` has passed (shutdown, tests). */
int store_barrier_wait(struct store *store, uint64_t turn);

struct store_statistics {
        uint64_t commits, flushes, checkpoints, restarts; /* restarts: WAL started over */
        uint64_t wal_bytes, wal_bytes_most;
        uint64_t hold_usec_most; /* longest a commit was held for a checkpoint's second pass */
};
void store_statistics(struct store *store, struct store_statistics *ret);

/* Replaces the key-encryption key: wraps the data keys anew, in the current turn. */
int store_rewrap(struct store *store, struct bytes new_key_encryption_key);
/* Makes a new data key for what is sealed from now on; store_reseal_some() moves up to `limit` old
 * secrets to it and returns how many are left. */
int store_data_key_rotate(struct store *store, const struct moment *now);
int store_reseal_some(struct store *store, size_t limit);

/* The offline recovery key (X25519). Makes a pair, covers all data keys with it, those to come as well, in
 * the current turn; the private half is for the operator to carry away and is kept nowhere. Given as
 * `recovery_key` at store_open(), it opens the data keys, which are then wrapped by `key_encryption_key`. */
#define RECOVERY_KEY_BYTES 32
int store_recovery_new(struct store *store, uint8_t ret_private[RECOVERY_KEY_BYTES]);
/* 1 where there is one, 0 where not. */
int store_has_recovery(struct store *store);

/* The store's own facts. */
#define INCARNATION_BYTES 8
struct store_meta {
        uint8_t incarnation[INCARNATION_BYTES];
        struct clock clock;            /* as last recorded */
        uint64_t next_sequence;        /* of receipts; the first is 1 */
        uint8_t last_receipt_hash[32]; /* zeros before the first */
};
int store_meta_get(struct store *store, struct store_meta *ret);
int store_meta_set_clock(struct store *store, const struct clock *clock);
/* Named secrets of the gateway itself (receipt key). Sealed. -ENOENT when absent. */
int store_own_secret_get(struct store *store, const char *name, struct buffer *ret);
int store_own_secret_put(struct store *store, const char *name, struct bytes value);

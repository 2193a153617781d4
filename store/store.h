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
 * -ENOSPC (disk full: the turn must be rolled back), -EROFS (it may not be written: the same), -EIO, -EBADMSG (a
 * sealed secret does not open). */

#include <errno.h>

#include "gatewayd/bytes.h"
#include "gatewayd/clock.h"
#include "gatewayd/problem.h"
#include "gatewayd/secret.h"

#define STORE_SCHEMA_VERSION 3
/* A gatewayd older than this schema must not write the store (A/B images roll back). */
#define STORE_OLDEST_WRITER 1

struct store;
struct store_hooks; /* store/hooks.h */

/* The disk takes nothing now, and has lost nothing: the turn is dropped, and a later one may succeed. */
static inline bool store_error_passes(int error) {
        return error == -ENOSPC || error == -EDQUOT || error == -EROFS;
}

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
/* The same in two steps, for a key that must first be put where the next start finds it: from the first on either
 * key opens the store (and every data key made since is wrapped by both); the second makes the new one the only
 * one. A start with the new key is the second step; a start with the old one leaves things as they are. In the
 * current turn. prepare again: another new key; finish, cancel: -ENOENT where nothing is prepared. finish: -ENOKEY
 * where an earlier start has prepared it: the new key is not known here. prepare: -EINVAL for the key in force. */
int store_rewrap_prepare(struct store *store, struct bytes new_key_encryption_key);
int store_rewrap_finish(struct store *store);
int store_rewrap_cancel(struct store *store);
/* What a key is to the store: the one in force, the one prepared, or neither. -EINVAL: no key by its size. */
enum sealing_key_state { SEALING_KEY_UNKNOWN, SEALING_KEY_IN_FORCE, SEALING_KEY_PREPARED };
int store_rewrap_knows(struct store *store, struct bytes key_encryption_key);
/* 1: prepared and not finished; 0. */
int store_rewrap_is_open(struct store *store);
/* Makes a new data key for what is sealed from now on; store_reseal_some() moves up to `limit` old
 * secrets to it. 1: there may be more; 0: all are moved, and the old keys are gone. Cost: what it moves. A secret that
 * its seal does not fit is passed over, once for each new data key and each start; it keeps the key it is under. */
struct reseal_damage {
        size_t count;  /* passed over by this call */
        char name[65]; /* of the last of them: a credential's identity, or what the store keeps of its own */
};
int store_data_key_rotate(struct store *store, const struct moment *now);
int store_reseal_some(struct store *store, size_t limit, struct reseal_damage *ret_damage); /* may be NULL */
/* How many secrets are not under the newest data key; cost: one indexed count. */
int64_t store_reseal_left(struct store *store);
/* How many of these were passed over. */
int64_t store_reseal_damaged(const struct store *store);
/* When the data key that seals now was made (unset: with the store, by an older gatewayd), its id, and how often it
 * has sealed. */
struct data_key_facts {
        uint32_t id;
        struct moment made;
        uint64_t sealed;
        unsigned count; /* of data keys that something is still sealed under */
};
int store_data_key_facts(struct store *store, struct data_key_facts *ret);

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
        struct moment backed_up;       /* when the last backup was finished; unset: never */
        struct moment backup_of;       /* this store was restored from a backup made then; unset: it was not */
        struct moment restored;        /* when that was; unset: it was not, or core has not said yet when */
        bool is_restored_now;          /* restored, and store_meta_set_restored() has not been called since */
};
int store_meta_get(struct store *store, struct store_meta *ret);
int store_meta_set_clock(struct store *store, const struct clock *clock);
int store_meta_set_backed_up(struct store *store, const struct moment *at);
/* A backup that is opened in the store's place becomes a store of its own in that: a new incarnation, CRL numbers
 * far ahead of what the lost one can have reached, the recovery key of before, no asking sessions. Its clock goes on
 * from the backup's. Core then says when that was, in its first turn. */
int store_meta_set_restored(struct store *store, const struct moment *at);
/* The public half of the recovery key into `ret`. -ENOENT: there is none. */
int store_recovery_public(struct store *store, uint8_t ret[RECOVERY_KEY_BYTES]);
/* Named secrets of the gateway itself (receipt key). Sealed. -ENOENT when absent. */
int store_own_secret_get(struct store *store, const char *name, struct buffer *ret);
int store_own_secret_put(struct store *store, const char *name, struct bytes value);
/* 1; 0: there was none. */
int store_own_secret_remove(struct store *store, const char *name);

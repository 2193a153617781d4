/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The files that backup and restore put beside the store, and how a restored one takes the store's place so that a
 * power cut leaves either the old store or the new one. Needs no running core; core itself needs only the last step.
 *
 *   backup.tmp                 core's copy while a backup is made
 *   store.db.restoring         being decrypted; nobody looks at it
 *   store.db.restored          whole, synced, and to be the store: from its rename on the restore has happened
 *   restore.key.new            the key that opens it, before that moment; afterwards, and for `recover`:
 *   restore.key                what the next start opens the store with; it is removed once the sealing key does
 *   store.db.before-restore-N  what was there, with its -wal
 */

#include <limits.h>

#include "gatewayd/backup/age.h"
#include "store/backup.h"

/* The path of `name` in the store's folder; -ENAMETOOLONG. */
int place_beside(const char *store_path, const char *name, char to[PATH_MAX]);
/* Core's copy: its path, and removing one that a core before this left. */
int place_copy_path(const char *store_path, char to[PATH_MAX]);
int place_copy_remove(const char *store_path);

struct restored {
        struct store_copy copy;
        uint64_t bytes;      /* of the store, decrypted */
        char kept[PATH_MAX]; /* where the store of before is now; empty: there was none */
};

/* Puts the backup in `file` into the store's place; the next start of core opens it. Everything is checked first:
 * where an error is returned, store and key are as they were. `may_replace`: a store that is there is moved aside,
 * else -EEXIST. -EBUSY: gatewayd runs; -EBADMSG, -EKEYREJECTED, -EUCLEAN, -ENOTUNIQ: the file (age.h, store/backup.h). */
int place_restore(const char *file, const char *store_path, const uint8_t key[AGE_KEY_BYTES], bool may_replace,
                  struct restored *ret, struct problem *problem);

/* Brings the recovery key to a store whose sealing key is lost: writes restore.key where the key opens it. The same
 * errors; -ENOENT: there is no store. */
int place_recover(const char *store_path, const uint8_t key[AGE_KEY_BYTES], struct store_copy *ret,
                  struct problem *problem);

/* What every start does first: carries out a restore that has happened and was cut off, and removes what one that
 * has not happened left. 1: a restored store is in its place now; 0; -EBUSY and others. */
int place_settle(const char *store_path, struct problem *problem);

/* The store is open and sealed under its own key: the brought key goes. 1; 0: there was none. */
int place_key_remove(const char *store_path);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A consistent copy of the store while it is in use, and what becomes of a copy that is put in the store's place.
 *
 * Core's own connection makes it, some pages at a time, in a file beside the store; turns go on in between and
 * are part of it. Inside, the data keys are wrapped to the recipient of the backup (X25519, as to the recovery
 * key: recovery.c), so that a gateway that has lost its sealing key opens it with that one key. */

#include "store/store.h"

struct store_backup;

/* Begins a copy at `path`, which must not exist; mode 0600. One at a time: -EBUSY. */
int store_backup_begin(struct store *store, const char *path, struct store_backup **ret);
/* Copies at most `pages` pages (4 KiB each). 1: there is more; 0: all is copied. Not inside a turn that has
 * changed something. `ret_done`, `ret_total`: pages; NULL allowed. */
int store_backup_step(struct store_backup *backup, int pages, uint32_t *ret_done, uint32_t *ret_total);
/* Makes the copy a backup: its data keys are wrapped to `recipient` alone, it is marked as made at `now`, and
 * synced. From here on it is a file like any other; the caller removes it. */
int store_backup_finish(struct store_backup *backup, const uint8_t recipient[RECOVERY_KEY_BYTES],
                        const struct moment *now);
/* Ends it; removes the copy unless it is finished. NULL-safe. */
struct store_backup *store_backup_free(struct store_backup *backup);

/* Looks at a file that is to be put in the store's place, changing nothing: is it a whole backup (every page is
 * looked at), and does `private_key` (RECOVERY_KEY_BYTES; none: not asked) open its data keys? -EUCLEAN, -ENOTUNIQ,
 * -EKEYREJECTED, -ENOENT with `problem`. Also for a store whose key-encryption key is lost: `is_backup` false asks
 * whether the recovery key opens it. */
struct store_copy {
        bool is_backup;
        struct moment made; /* of the backup */
        uint8_t incarnation[INCARNATION_BYTES];
        uint64_t devices;
};
int store_copy_look(const char *path, struct bytes private_key, struct store_copy *ret, struct problem *problem);

/* Takes the lock that a running gatewayd holds on the store at `path`, so that none begins meanwhile: a descriptor,
 * or -EBUSY. Closing it lets go. */
int store_lock(const char *path);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where the key-encryption key of the store comes from, and the recovery key for the day it is lost. */

#include <limits.h>

#include "gatewayd/problem.h"
#include "gatewayd/secret.h"

#define SEALING_CREDENTIAL  "gatewayd.sealing-key"
#define RECOVERY_CREDENTIAL "gatewayd.recovery-key"
#define SEALING_KEY_BYTES   32

/* Takes the systemd credential gatewayd.sealing-key (32 raw bytes or 64 hex digits); where there is none,
 * the file `sealing.key` beside the store, made with mode 0600 at the first start (when there is no store
 * yet, or `may_replace`: a recovery key is at hand). `*ret_is_file` says that it was the file: weaker, and
 * worth a warning at every start.
 * Returns 0, 1 (a file was made although there is a store), -EINVAL (neither shape), -EPERM (the file is
 * readable by others), -ENOKEY (there is a store and its key is gone), or another errno. */
int sealing_key_load(const char *store_path, bool may_replace, struct secret *ret, bool *ret_is_file,
                     struct problem *problem);
/* Where that file is; -ENAMETOOLONG. */
int sealing_key_path(const char *store_path, char to[PATH_MAX]);
/* A sealing key in either shape; `where` it was found, for the problem. -EINVAL. */
int sealing_key_read(struct bytes text, struct secret *ret, const char *where, struct problem *problem);
/* Takes away the file that was made for a store which then did not open: it has sealed nothing. */
void sealing_key_discard(const char *store_path);

/* The private half of the offline recovery key, where the operator has brought it: the systemd credential
 * gatewayd.recovery-key or the file `recovery.key` (0600) beside the store, in the shapes of the sealing key; before
 * both, the file `restore.key` that gatewayctl restore or recover has left there for this start.
 * Returns 0, 1 where it is that file, -ENOENT (none is there), or the errors of sealing_key_load(). */
int recovery_key_load(const char *store_path, struct secret *ret, struct problem *problem);

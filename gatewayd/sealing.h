/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where the key-encryption key of the store comes from. */

#include "gatewayd/problem.h"
#include "gatewayd/secret.h"

#define SEALING_CREDENTIAL "gatewayd.sealing-key"
#define SEALING_KEY_BYTES 32

/* Takes the systemd credential gatewayd.sealing-key (32 raw bytes or 64 hex digits); where there is none,
 * the file `sealing.key` beside the store, made with mode 0600 at the first start (when there is no store
 * yet). `*ret_is_file` says that it was the file: weaker, and worth a warning at every start.
 * Returns 0, -EINVAL (neither shape), -EPERM (the file is readable by others), or another errno. */
int sealing_key_load(const char *store_path, struct secret *ret, bool *ret_is_file, struct problem *problem);

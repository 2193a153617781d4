/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Starting a role: fork and exec of this very executable. */

#include <sys/types.h>

#include "gatewayd/messages.h"

/* Remembers the executable as it is now, so that a role started later runs the same program although
 * the file may have been replaced meanwhile. Call once, first. Returns 0 or -errno. */
int spawn_prepare(void);

/* Starts `role`; `*ret_link` is the supervisor's end of its link. Returns the pid or -errno. */
pid_t spawn_role(enum role role, int *ret_link);

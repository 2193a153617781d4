/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The walls of sandbox.c; nobody else calls them. */

#include "gatewayd/sandbox.h"

/* The Landlock ABI of this kernel, or 0 where it has none (or it is switched off). */
int landlock_abi(void);
/* Restricts the calling thread to what `role` needs. 0, or a negative errno with `problem`. */
int landlock_enter(enum role role, const struct sandbox_paths *paths, int abi, struct problem *problem);

/* Installs the SIGSYS handler (not in the supervisor) and loads the role's filter for all threads.
 * 0, or a negative errno with `problem`. */
int seccomp_enter(enum role role, struct problem *problem);

/* A filter in the making; `error` is the first one. */
struct filter {
        void *context; /* scmp_filter_ctx */
        int error;
};
/* Puts the role's rules in (sandbox_calls.c). */
void filter_fill(struct filter *filter, enum role role);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How a role locks itself in once it is set up: no new privileges, no core dumps, Landlock, and a
 * list of the system calls it needs (DESIGN.md, "Processes"). What is not on the list fails with
 * ENOSYS and is counted, so that a newer library degrades instead of dying. */

#include "config/config.h"
#include "gatewayd/messages.h"
#include "gatewayd/problem.h"

/* What of the machine a role may still reach. Members that do not concern the role are ignored;
 * NULL: there is none. */
struct sandbox_paths {
        const char *store;         /* folder of the store: core alone may read and write below it */
        const char *configuration; /* folder of the configuration: core reads it again on reload */
        const char *runtime;       /* folder of the control socket: a new core makes it anew */
        const char *crl;           /* folder below it: core writes CRLs there */
        /* Files and folders of tokens, TPMs and key files (ca.paths): core reads and writes them. */
        const char (*keys)[CONFIG_TEXT_MAX];
        size_t key_count;
        /* The TCP ports north may connect to beside DNS: the collector's and the EST server's; 0: there is none,
         * both 0: any. */
        uint16_t upstream_port, est_port;
};

/* Locks the calling process in for `role`, for good.
 *
 * Call it after set-up and before any thread is started: Landlock binds the calling thread and what
 * comes out of it (-EBUSY otherwise). The supervisor's lock is inherited by the roles it starts, so it
 * is as wide as the widest of them during set-up; each role's own comes on top.
 * SIGSYS must stay unblocked and untouched from here on.
 *
 * Returns 0; 1 where the kernel has no Landlock and `demand` is SANDBOX_WEAK (the caller says so with
 * EVENT_SANDBOX_WEAK); -EPERM where it has none and `demand` is SANDBOX_REQUIRED; or another negative
 * errno, with the reason in `problem`. After an error the process must end: it may be half locked in. */
int sandbox_enter(enum role role, const struct sandbox_paths *paths, enum sandbox_demand demand,
                  struct problem *problem);

/* How many system calls have been refused in this process since sandbox_enter(). */
uint64_t sandbox_violations(void);

/* Takes the name of a system call that was refused and not yet taken (each number once in the life of
 * the process), for EVENT_SANDBOX_VIOLATION. Returns 1 with the name, 0 when there is none. */
int sandbox_violation_take(char *name, size_t name_size);

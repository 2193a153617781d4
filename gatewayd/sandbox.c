/* SPDX-License-Identifier: Apache-2.0 */

/* The order in which a role locks itself in. The walls themselves: sandbox_landlock.c (files, TCP
 * ports, signals) and sandbox_seccomp.c (system calls). */

#include "gatewayd/sandbox_parts.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <systemd/sd-id128.h>

/* Threads of this process, or a negative errno. A sanitizer may run one of its own. */
static int count_threads(void) {
        DIR *folder = opendir("/proc/self/task");
        int count = 0;

        if (!folder)
                return -errno;
        for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
                count += entry->d_name[0] != '.';
        closedir(folder);
        return count;
}

/* Libraries read some files at their first use; later they could not. */
static void read_ahead(void) {
        sd_id128_t id;

        /* sd-event spreads its timers by the boot id and keeps it. Without it (a container that hides
         * /proc) it goes on unspread. */
        (void)sd_id128_get_boot(&id);
}

static int forbid_dumps(struct problem *problem) {
        static const struct rlimit none = { 0, 0 };

        if (setrlimit(RLIMIT_CORE, &none) < 0)
                return problem_set(problem, 0, errno, "sandbox", "core dumps cannot be switched off: %s",
                                   strerror(errno));
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return problem_set(problem, 0, errno, "sandbox", "PR_SET_DUMPABLE: %s", strerror(errno));
        return 0;
}

int sandbox_enter(enum role role, const struct sandbox_paths *paths, enum sandbox_demand demand,
                  struct problem *problem) {
        int abi = landlock_abi(), threads, r;

        if (abi == 0 && demand == SANDBOX_REQUIRED)
                return problem_set(problem, 0, EPERM, "sandbox",
                                   "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock,…); "
                                   "sandbox = \"weak\" in the configuration starts without it");
        threads = count_threads();
#ifndef GATEWAYD_WIDE_SANDBOX
        if (threads > 1)
                return problem_set(problem, 0, EBUSY, "sandbox",
                                   "%d threads run already; Landlock would bind only one of them", threads);
#endif
        if (threads < 0)
                return problem_set(problem, 0, -threads, "sandbox", "/proc/self/task: %s", strerror(-threads));
        read_ahead();

        r = forbid_dumps(problem);
        if (r < 0)
                return r;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return problem_set(problem, 0, errno, "sandbox", "PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
        if (abi > 0) {
                r = landlock_enter(role, paths, abi, problem);
                if (r < 0)
                        return r;
        }
        r = seccomp_enter(role, problem);
        if (r < 0)
                return r;
        return abi > 0 ? 0 : 1;
}

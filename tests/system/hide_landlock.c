/* SPDX-License-Identifier: Apache-2.0 */

/* Runs a program as on a kernel without Landlock: the system call that makes a ruleset fails. */

#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        if (argc < 2 || !filter ||
            seccomp_rule_add(filter, SCMP_ACT_ERRNO(EOPNOTSUPP), SCMP_SYS(landlock_create_ruleset), 0) < 0 ||
            seccomp_load(filter) < 0) {
                fprintf(stderr, "hide_landlock: cannot\n");
                return 125;
        }
        seccomp_release(filter);
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        return 125;
}

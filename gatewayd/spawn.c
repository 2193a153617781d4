/* SPDX-License-Identifier: Apache-2.0 */

/* fork and exec of the own executable, with one descriptor: the link. */

#include "gatewayd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/role.h"

static int executable = -1;

int spawn_prepare(void) {
        executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
        return executable < 0 ? -errno : 0;
}

extern char **environ;

static _Noreturn void become(enum role role, int link, pid_t parent) {
        char *const arguments[] = { (char *)"gatewayd", (char *)"--role", (char *)role_name(role), NULL };
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        /* Where the supervisor dies before the role asks for the signal itself. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(EXIT_FAILURE);
        if (dup2(link, ROLE_LINK_DESCRIPTOR) < 0 || close_range(ROLE_LINK_DESCRIPTOR + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
                _exit(EXIT_FAILURE);
        if (link == ROLE_LINK_DESCRIPTOR && fcntl(link, F_SETFD, 0) < 0)
                _exit(EXIT_FAILURE);
        execveat(executable, "", arguments, environ, AT_EMPTY_PATH);
        _exit(EXIT_FAILURE);
}

pid_t spawn_role(enum role role, int *ret_link) {
        pid_t parent = getpid(), pid;
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        pid = fork();
        if (pid == 0)
                become(role, pair[1], parent);
        close(pair[1]);
        if (pid < 0) {
                int error = -errno;

                close(pair[0]);
                return error;
        }
        *ret_link = pair[0];
        return pid;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The supervisor's wall is inherited by the roles it starts: they get theirs inside it. */

#include "tests/unit/sandbox_cage.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- supervisor ---- */

/* Starts this program again, which then locks itself in as the role named in its environment. */
static void start_a_role(const struct place *place) {
        int status;
        pid_t child = fork();

        (void)place;
        EXPECT(child >= 0);
        if (child == 0) {
                char *const arguments[] = { "test_sandbox", NULL };
                extern char **environ;

                execve("/proc/self/exe", arguments, environ);
                _exit(99);
        }
        EXPECT(waitpid(child, &status, 0) == child);
        EXPECT(WIFEXITED(status));
        EXPECT(WEXITSTATUS(status) == 0);
}

static void the_supervisor_starts_roles_that_lock_themselves_in_too(void **state) {
        struct place *place = *state;
        static const char *const roles[] = { "1", "2", "3" };

        setenv("TEST_SANDBOX_STORE", place->store, 1);
        for (size_t i = 0; i < ELEMENTS(roles); i++) {
                setenv("TEST_SANDBOX_ROLE", roles[i], 1);
                assert_int_equal(inside(ROLE_SUPERVISOR, place, start_a_role), 0);
        }
        unsetenv("TEST_SANDBOX_ROLE");
}

static int be_a_role(enum role role) {
        struct place place = { 0 };
        struct problem problem = { 0 };

        snprintf(place.store, sizeof place.store, "%s", getenv("TEST_SANDBOX_STORE"));
        snprintf(place.secret, sizeof place.secret, "%s/store.db", place.store);
        place.paths.store = place.store;
        /* Set-up: what every role may do before its own lock, inside the supervisor's. */
        EXPECT(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
        EXPECT(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0) >= 0 || errno == EAFNOSUPPORT);
        if (sandbox_enter(role, &place.paths, SANDBOX_REQUIRED, &problem) != 0) {
                dprintf(STDERR_FILENO, "role %d: %s\n", (int)role, problem.detail);
                return 2;
        }
        if (role == ROLE_CORE)
                EXPECT(open(place.secret, O_RDWR | O_CLOEXEC) >= 0);
        if (role == ROLE_CORE)
                try_ip_sockets(&place);
        if (role == ROLE_NORTH)
                try_resolving(&place);
        try_programs(&place);
        return 0;
}

static void step_out(const struct place *place) {
        char *const arguments[] = { "false", NULL };
        char *const none[] = { NULL };
        char path[112];

        execve("/bin/false", arguments, none);
        EXPECT(errno == EACCES);
        execve("/usr/bin/false", arguments, none);
        EXPECT(errno == EACCES);
        snprintf(path, sizeof path, "%s/other", place->folder);
        EXPECT(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EACCES);
        EXPECT(syscall(SYS_ptrace, 0, 0, 0, 0) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_unshare, 0) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_bpf, 0, NULL, 0) < 0 && errno == ENOSYS);
        EXPECT(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
}

static void the_supervisor_starts_nothing_but_gatewayd(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_SUPERVISOR, *state, step_out), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_supervisor_starts_roles_that_lock_themselves_in_too),
                cmocka_unit_test(the_supervisor_starts_nothing_but_gatewayd),
        };
        const char *role = getenv("TEST_SANDBOX_ROLE");

        if (role)
                return be_a_role((enum role)atoi(role));
        return cmocka_run_group_tests_name("sandbox_supervisor", tests, place_set_up, place_tear_down);
}

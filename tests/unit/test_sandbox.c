/* SPDX-License-Identifier: Apache-2.0 */

/* What holds for every role, and south's wall, tried from inside. */

#include "tests/unit/sandbox_cage.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <arpa/inet.h>

#include <seccomp.h>
#include <systemd/sd-event.h>

/* ---- every role ---- */

static long status_field(const char *field) {
        char text[8192];
        ssize_t size;
        const char *at;
        int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return -1;
        size = read(fd, text, sizeof text - 1);
        close(fd);
        text[size > 0 ? size : 0] = 0;
        at = strstr(text, field);
        return at ? strtol(at + strlen(field), NULL, 10) : -1;
}

static void expect_marks(const struct place *place) {
        struct rlimit limit;

        (void)place;
        EXPECT(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
        EXPECT(prlimit(0, RLIMIT_CORE, NULL, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
}

static void expect_marks_in_status(const struct place *place) {
        (void)place;
        EXPECT(status_field("\nNoNewPrivs:") == 1);
        EXPECT(status_field("\nSeccomp:") == 2);
}

static void every_role_has_no_new_privileges_and_no_core_dump(void **state) {
        for (enum role role = 0; role < ROLE_COUNT; role++)
                assert_int_equal(inside(role, *state, expect_marks), 0);
        /* The one role that may read /proc says the rest; test_sandbox.py reads it for all. */
        assert_int_equal(inside(ROLE_SUPERVISOR, *state, expect_marks_in_status), 0);
}

static void wait_at(int fd) {
        char byte;

        (void)!read(fd, &byte, 1);
}

static void no_new_privileges_shows_from_outside_for_every_role(void **state) {
        struct place *place = *state;

        for (enum role role = 0; role < ROLE_COUNT; role++) {
                int go[2], ready[2];
                char path[64], text[8192], byte;
                ssize_t size;
                pid_t child;
                int fd;

                assert_int_equal(pipe(go), 0);
                assert_int_equal(pipe(ready), 0);
                child = fork();
                if (child == 0) {
                        if (sandbox_enter(role, &place->paths, SANDBOX_REQUIRED, NULL) == 0)
                                (void)!write(ready[1], "r", 1);
                        close(ready[1]);
                        close(go[1]);
                        wait_at(go[0]);
                        _exit(0);
                }
                close(ready[1]);
                assert_int_equal(read(ready[0], &byte, 1), 1);
                snprintf(path, sizeof path, "/proc/%d/status", (int)child);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                assert_true(fd >= 0);
                size = read(fd, text, sizeof text - 1);
                assert_true(size > 0);
                text[size] = 0;
                assert_non_null(strstr(text, "NoNewPrivs:\t1\n"));
                assert_non_null(strstr(text, "Seccomp:\t2\n"));
                close(fd);
                close(go[0]);
                close(go[1]);
                close(ready[0]);
                assert_int_equal(waitpid(child, NULL, 0), child);
        }
}

static void make_unknown_calls(const struct place *place) {
        char name[32];

        (void)place;
        EXPECT(sandbox_violations() == 0);
        EXPECT(sandbox_violation_take(name, sizeof name) == 0);
        EXPECT(syscall(1023) == -1 && errno == ENOSYS);
        EXPECT(syscall(1023) == -1 && errno == ENOSYS);
        EXPECT(syscall(SYS_ptrace, 0, 0, 0, 0) == -1 && errno == ENOSYS);
        EXPECT(sandbox_violations() == 3);
        EXPECT(sandbox_violation_take(name, sizeof name) == 1 && strcmp(name, "ptrace") == 0);
        EXPECT(sandbox_violation_take(name, sizeof name) == 1 && strcmp(name, "number 1023") == 0);
        EXPECT(sandbox_violation_take(name, sizeof name) == 0);
        EXPECT(syscall(SYS_ptrace, 0, 0, 0, 0) == -1 && errno == ENOSYS);
        EXPECT(sandbox_violations() == 4);
        EXPECT(sandbox_violation_take(name, sizeof name) == 0);
}

static void an_unknown_system_call_gets_enosys_and_is_counted(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_CORE, *state, make_unknown_calls), 0);
        assert_int_equal(inside(ROLE_SOUTH, *state, make_unknown_calls), 0);
        assert_int_equal(inside(ROLE_NORTH, *state, make_unknown_calls), 0);
}

static void refuse_one_thrice(const struct place *place) {
        int ends[2];
        char text[256] = "";
        char *line;

        (void)place;
        EXPECT(pipe(ends) == 0);
        close(STDERR_FILENO);
        EXPECT(dup(ends[1]) == STDERR_FILENO);
        for (int i = 0; i < 3; i++)
                syscall(SYS_ptrace, 0, 0, 0, 0);
        close(STDERR_FILENO);
        close(ends[1]);
        EXPECT(read(ends[0], text, sizeof text - 1) > 0);
        line = strchr(text, '\n');
        EXPECT(line && line[1] == 0);
        *line = 0;
        EXPECT(strncmp(text, "gatewayd south: sandbox refused system call ", 44) == 0);
        EXPECT(atoi(text + 44) == SYS_ptrace);
}

static void a_refused_system_call_is_logged_once(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_SOUTH, *state, refuse_one_thrice), 0);
}

/* ---- south ---- */

static void touch_files(const struct place *place) {
        struct {
                uint64_t flags, mode, resolve;
        } how = { O_RDONLY, 0, 0 };

        EXPECT(open(place->settings, O_RDONLY | O_CLOEXEC) < 0 && errno == ENOSYS);
        EXPECT(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof how) < 0 && errno == ENOSYS);
#ifdef SYS_open
        EXPECT(syscall(SYS_open, "/dev/null", O_RDONLY) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_creat, place->secret, 0600) < 0 && errno == ENOSYS);
#endif
        EXPECT(mkdir(place->folder, 0700) < 0 && errno == ENOSYS);
        EXPECT(unlink(place->secret) < 0 && errno == ENOSYS);
        EXPECT(rename(place->secret, place->settings) < 0 && errno == ENOSYS);
        EXPECT(memfd_create("x", 0) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_io_uring_setup, 8, NULL) < 0 && errno == ENOSYS);
        EXPECT(syscall(SYS_open_by_handle_at, 0, NULL, 0) < 0 && errno == ENOSYS);
}

static void south_cannot_open_a_file(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_SOUTH, *state, touch_files), 0);
}

static void no_role_but_the_supervisor_starts_a_program(void **state) {
        assert_int_equal(inside(ROLE_SOUTH, *state, try_programs), 0);
        assert_int_equal(inside(ROLE_CORE, *state, try_programs), 0);
        assert_int_equal(inside(ROLE_NORTH, *state, try_programs), 0);
}

static void make_any_socket(const struct place *place) {
        (void)place;
        for (int family = AF_UNIX; family <= AF_NETLINK; family++)
                EXPECT(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        EXPECT(connect(0, NULL, 0) < 0 && errno == ENOSYS);
        EXPECT(bind(0, NULL, 0) < 0 && errno == ENOSYS);
        EXPECT(listen(0, 1) < 0 && errno == ENOSYS);
}

static void south_cannot_make_a_socket(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_SOUTH, *state, make_any_socket), 0);
}

static void make_code(const struct place *place) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        (void)place;
        EXPECT(page != MAP_FAILED);
        EXPECT(mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0 && errno == ENOSYS);
        EXPECT(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
        EXPECT(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

static void written_memory_is_never_executed(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_SOUTH, *state, make_code), 0);
        assert_int_equal(inside(ROLE_CORE, *state, make_code), 0);
        assert_int_equal(inside(ROLE_NORTH, *state, make_code), 0);
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata) {
        (void)usec;
        (void)userdata;
        return sd_event_exit(sd_event_source_get_event(source), 7);
}

static void run_a_loop(const struct place *place) {
        int udp = *(int *)place->paths.runtime; /* smuggled: see the caller */
        struct sockaddr_in here;
        socklen_t size = sizeof here;
        sd_event *event = NULL;
        char text[] = "hello";
        struct iovec vector = { text, sizeof text };
        struct mmsghdr message = { 0 };

        EXPECT(sd_event_new(&event) >= 0);
        EXPECT(sd_event_add_time_relative(event, NULL, CLOCK_MONOTONIC, 1000, 0, on_time, NULL) >= 0);
        EXPECT(sd_event_loop(event) == 7);
        sd_event_unref(event);

        EXPECT(getsockname(udp, (struct sockaddr *)&here, &size) == 0);
        message.msg_hdr = (struct msghdr){ &here, size, &vector, 1, NULL, 0, 0 };
        EXPECT(sendmmsg(udp, &message, 1, 0) == 1);
        message.msg_hdr = (struct msghdr){ NULL, 0, &vector, 1, NULL, 0, 0 };
        EXPECT(recvmmsg(udp, &message, 1, 0, NULL) == 1);
        EXPECT(malloc(8 << 20) != NULL);
        printf("south may still write to what is open\n");
        fflush(stdout);
        EXPECT(sandbox_violations() == 0);
}

static void south_serves_its_socket_and_loop_without_a_refusal(void **state) {
        struct place place = *(struct place *)*state;
        struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(udp, (struct sockaddr *)&any, sizeof any), 0);
        place.paths.runtime = (const char *)&udp; /* south looks at no path */
        assert_int_equal(inside(ROLE_SOUTH, &place, run_a_loop), 0);
        close(udp);
}

/* ---- where the kernel has no Landlock ---- */

static void hide_landlock(void) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

        EXPECT(filter);
        EXPECT(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EOPNOTSUPP), SCMP_SYS(landlock_create_ruleset), 0) == 0);
        EXPECT(seccomp_load(filter) == 0);
        seccomp_release(filter);
}

static void without_landlock_only_a_weak_sandbox_starts(void **state) {
        struct place *place = *state;
        int status;
        pid_t child = fork();

        if (child == 0) {
                struct problem problem = { 0 };

                hide_landlock();
                EXPECT(sandbox_enter(ROLE_SOUTH, &place->paths, SANDBOX_REQUIRED, &problem) == -EPERM);
                EXPECT(strstr(problem.detail, "sandbox = \"weak\""));
                EXPECT(sandbox_enter(ROLE_SOUTH, &place->paths, SANDBOX_WEAK, &problem) == 1);
                try_programs(place);
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

static void a_missing_store_folder_is_a_clear_error(void **state) {
        struct sandbox_paths paths = { .store = "/nonexistent/store" };
        int status;
        pid_t child = fork();

        (void)state;
        if (child == 0) {
                struct problem problem = { 0 };

                EXPECT(sandbox_enter(ROLE_CORE, &paths, SANDBOX_REQUIRED, &problem) == -ENOENT);
                EXPECT(strstr(problem.detail, "/nonexistent/store"));
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_role_has_no_new_privileges_and_no_core_dump),
                cmocka_unit_test(no_new_privileges_shows_from_outside_for_every_role),
                cmocka_unit_test(an_unknown_system_call_gets_enosys_and_is_counted),
                cmocka_unit_test(a_refused_system_call_is_logged_once),
                cmocka_unit_test(south_cannot_open_a_file),
                cmocka_unit_test(no_role_but_the_supervisor_starts_a_program),
                cmocka_unit_test(south_cannot_make_a_socket),
                cmocka_unit_test(written_memory_is_never_executed),
                cmocka_unit_test(south_serves_its_socket_and_loop_without_a_refusal),
                cmocka_unit_test(without_landlock_only_a_weak_sandbox_starts),
                cmocka_unit_test(a_missing_store_folder_is_a_clear_error),
        };

        return cmocka_run_group_tests_name("sandbox", tests, place_set_up, place_tear_down);
}

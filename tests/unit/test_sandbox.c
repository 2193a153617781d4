/* SPDX-License-Identifier: Apache-2.0 */

/* The wall around each role, tried from inside. Every attempt runs in a child of its own that has
 * locked itself in; the child says with its exit status whether all went as promised. */

#include "gatewayd/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/netlink.h>
#include <seccomp.h>
#include <systemd/sd-event.h>

#ifdef GATEWAYD_WIDE_SANDBOX
#define IS_WIDE 1
#else
#define IS_WIDE 0
#endif

/* Where a child complains; what the sandbox itself says on standard error is noise here. */
static int complaints = STDERR_FILENO;

#define EXPECT(condition)                                                                      \
        do {                                                                                   \
                if (!(condition)) {                                                            \
                        dprintf(complaints, "%s:%d: not so: %s (errno %d)\n", __func__, __LINE__, \
                                #condition, errno);                                            \
                        _exit(1);                                                              \
                }                                                                              \
        } while (0)

struct place {
        char folder[64], store[80], configuration[80], runtime[80], secret[96], settings[112];
        struct sandbox_paths paths;
};

static void write_file(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
}

static int set_up(void **state) {
        struct place *place = xcalloc(1, sizeof *place);

        strcpy(place->folder, "/tmp/test-sandbox-XXXXXX");
        assert_non_null(mkdtemp(place->folder));
        snprintf(place->store, sizeof place->store, "%s/store", place->folder);
        snprintf(place->configuration, sizeof place->configuration, "%s/etc", place->folder);
        snprintf(place->runtime, sizeof place->runtime, "%s/run", place->folder);
        assert_int_equal(mkdir(place->store, 0700), 0);
        assert_int_equal(mkdir(place->configuration, 0700), 0);
        assert_int_equal(mkdir(place->runtime, 0700), 0);
        snprintf(place->secret, sizeof place->secret, "%s/store.db", place->store);
        snprintf(place->settings, sizeof place->settings, "%s/gatewayd.conf", place->configuration);
        write_file(place->secret, "a secret");
        write_file(place->settings, "a setting");
        place->paths = (struct sandbox_paths){
                .store = place->store,
                .configuration = place->configuration,
                .runtime = place->runtime,
        };
        *state = place;
        return 0;
}

static int tear_down(void **state) {
        struct place *place = *state;
        char command[128];

        snprintf(command, sizeof command, "rm -rf %s", place->folder);
        assert_int_equal(system(command), 0);
        free(place);
        return 0;
}

typedef void (*attempt)(const struct place *place);

/* Runs `try` in a child locked in as `role`; returns its exit status, or 256 + the signal it died of. */
static int inside(enum role role, const struct place *place, attempt try) {
        pid_t child = fork();
        int status;

        assert_true(child >= 0);
        if (child == 0) {
                struct problem problem = { 0 };
                int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC), r;

                complaints = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
                dup2(quiet, STDERR_FILENO);
                r = sandbox_enter(role, &place->paths, SANDBOX_REQUIRED, &problem);

                if (r != 0)
                        dprintf(complaints, "sandbox_enter: %d: %s\n", r, problem.detail);
                EXPECT(r == 0);
                try(place);
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

/* The wall as such is that of the plain build; sanitizers and coverage need holes in it. */
#define PLAIN_BUILD_ONLY()                                                              \
        do {                                                                            \
                if (IS_WIDE) {                                                          \
                        print_message("skipped: this build has the wide sandbox\n"); \
                        skip();                                                         \
                }                                                                       \
        } while (0)

static bool has_landlock(void) {
        return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0;
}

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

        EXPECT(open(place->settings, O_RDONLY | O_CLOEXEC) < 0);
        EXPECT(open("/dev/null", O_RDONLY | O_CLOEXEC) < 0);
        EXPECT(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY) < 0);
        EXPECT(syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof how) < 0);
#ifdef SYS_open
        EXPECT(syscall(SYS_open, "/dev/null", O_RDONLY) < 0);
        EXPECT(syscall(SYS_creat, place->secret, 0600) < 0);
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

/* Landlock alone, as where a kernel bug or a wider filter let a call through: the wide build's filter
 * lets files through, and its Landlock domain too, so this too is for the plain build. */
static void start_programs(const struct place *place) {
        char *const arguments[] = { "true", NULL };
        char *const none[] = { NULL };
        int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

        (void)place;
        execve("/bin/true", arguments, none);
        EXPECT(errno == ENOSYS);
        syscall(SYS_execveat, fd < 0 ? AT_FDCWD : fd, "/bin/true", arguments, none, 0);
        EXPECT(errno == ENOSYS);
        if (!IS_WIDE) {
                EXPECT(fork() < 0);
                EXPECT(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_kill, getppid(), 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_tgkill, getppid(), getppid(), 0) < 0 && errno == ENOSYS);
        }
}

static void no_role_but_the_supervisor_starts_a_program(void **state) {
        assert_int_equal(inside(ROLE_SOUTH, *state, start_programs), 0);
        assert_int_equal(inside(ROLE_CORE, *state, start_programs), 0);
        assert_int_equal(inside(ROLE_NORTH, *state, start_programs), 0);
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

/* ---- core ---- */

static void *in_a_thread(void *argument) {
        const struct place *place = argument;
        char path[112];
        int fd;

        snprintf(path, sizeof path, "%s/store.db-wal", place->store);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        EXPECT(fd >= 0);
        EXPECT(pwrite(fd, "x", 1, 0) == 1 && fdatasync(fd) == 0 && ftruncate(fd, 0) == 0);
        close(fd);
        EXPECT(unlink(path) == 0);
        EXPECT(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0);
        return NULL;
}

static void use_the_store(const struct place *place) {
        char path[112];
        pthread_t thread;
        struct stat status;
        int fd = open(place->secret, O_RDWR | O_CLOEXEC);

        EXPECT(fd >= 0);
        EXPECT(pwrite(fd, "A", 1, 0) == 1);
        close(fd);
        EXPECT(stat(place->secret, &status) == 0);
        EXPECT(open(place->settings, O_RDONLY | O_CLOEXEC) >= 0);
        EXPECT(open(place->settings, O_WRONLY | O_CLOEXEC) < 0 && errno == EACCES);
        EXPECT(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
        snprintf(path, sizeof path, "%s/other", place->folder);
        EXPECT(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 && errno == EACCES);
        EXPECT(pthread_create(&thread, NULL, in_a_thread, (void *)place) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(sandbox_violations() == 0);
}

static void core_reaches_its_store_with_a_thread_too_and_no_other_file(void **state) {
        PLAIN_BUILD_ONLY();
        assert_int_equal(inside(ROLE_CORE, *state, use_the_store), 0);
}

static void make_ip_sockets(const struct place *place) {
        (void)place;
        EXPECT(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        EXPECT(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        EXPECT(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        if (!IS_WIDE) {
                EXPECT(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
                EXPECT(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
                EXPECT(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        }
        EXPECT(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0);
}

static void core_makes_no_ip_socket(void **state) {
        assert_int_equal(inside(ROLE_CORE, *state, make_ip_sockets), 0);
}


static void *wait_for_ever(void *argument) {
        (void)argument;
        pause();
        return NULL;
}

static void a_thread_started_before_the_lock_is_an_error(void **state) {
        struct place *place = *state;
        int status;
        pid_t child;

        PLAIN_BUILD_ONLY();
        child = fork();
        if (child == 0) {
                struct problem problem = { 0 };
                pthread_t thread;

                EXPECT(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0);
                EXPECT(sandbox_enter(ROLE_CORE, &place->paths, SANDBOX_REQUIRED, &problem) == -EBUSY);
                EXPECT(strstr(problem.detail, "2 threads"));
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

/* ---- north ---- */

static void reach_for_the_store(const struct place *place) {
        EXPECT(open(place->secret, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
        EXPECT(open(place->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC) < 0 && errno == EACCES);
        EXPECT(open(place->settings, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
        EXPECT(open("/proc/self/environ", O_RDONLY | O_CLOEXEC) < 0);
        EXPECT(open("/etc/gatewayd.written", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0);
        EXPECT(truncate(place->secret, 0) < 0);
        EXPECT(unlink(place->secret) < 0);
}

static void north_cannot_reach_the_store(void **state) {
        PLAIN_BUILD_ONLY();
        if (!has_landlock())
                skip();
        assert_int_equal(inside(ROLE_NORTH, *state, reach_for_the_store), 0);
}

static void *resolve(void *argument) {
        struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        struct addrinfo *found = NULL;

        EXPECT(getaddrinfo("localhost", "443", &hints, &found) == 0);
        freeaddrinfo(found);
        return argument;
}

static void resolve_names(const struct place *place) {
        pthread_t thread;

        (void)place;
        resolve(NULL);
        EXPECT(pthread_create(&thread, NULL, resolve, NULL) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC) >= 0 || errno == ENOENT);
        EXPECT(open("/etc/hosts", O_RDONLY | O_CLOEXEC) >= 0 || errno == ENOENT);
        EXPECT(open("/etc/nsswitch.conf", O_RDONLY | O_CLOEXEC) >= 0 || errno == ENOENT);
        EXPECT(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0);
        EXPECT(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) >= 0);
        EXPECT(sandbox_violations() == 0);
        if (!IS_WIDE) {
                EXPECT(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_AUDIT) < 0 && errno == ENOSYS);
                EXPECT(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 && errno == ENOSYS);
        }
}

static void north_resolves_names_in_a_thread_too(void **state) {
        assert_int_equal(inside(ROLE_NORTH, *state, resolve_names), 0);
}

static int connect_tcp(uint16_t port) {
        struct sockaddr_in to = {
                .sin_family = AF_INET,
                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                .sin_port = htons(port),
        };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int r = connect(fd, (struct sockaddr *)&to, sizeof to) < 0 ? -errno : 0;

        close(fd);
        return r;
}

static void connect_to_ports(const struct place *place) {
        struct sockaddr_in any = { .sin_family = AF_INET };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(connect_tcp(place->paths.upstream_port) == -ECONNREFUSED);
        EXPECT(connect_tcp(53) == -ECONNREFUSED || connect_tcp(53) == 0);
        EXPECT(connect_tcp(2) == -EACCES);
        EXPECT(bind(fd, (struct sockaddr *)&any, sizeof any) < 0 && errno == EACCES);
}

static void north_connects_to_its_upstream_and_to_nothing_else(void **state) {
        struct place place = *(struct place *)*state;

        PLAIN_BUILD_ONLY();
        if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 4) {
                print_message("skipped: Landlock of this kernel knows no ports (ABI below 4)\n");
                skip();
        }
        place.paths.upstream_port = 1;
        assert_int_equal(inside(ROLE_NORTH, &place, connect_to_ports), 0);
}

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
                make_ip_sockets(&place);
        if (role == ROLE_NORTH)
                resolve_names(&place);
        start_programs(&place);
        return 0;
}

static void step_out(const struct place *place) {
        char *const arguments[] = { "true", NULL };
        char *const none[] = { NULL };
        char path[112];

        execve("/bin/true", arguments, none);
        EXPECT(errno == EACCES);
        execve("/bin/sh", arguments, none);
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
                start_programs(place);
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
                cmocka_unit_test(core_reaches_its_store_with_a_thread_too_and_no_other_file),
                cmocka_unit_test(core_makes_no_ip_socket),
                cmocka_unit_test(a_thread_started_before_the_lock_is_an_error),
                cmocka_unit_test(north_cannot_reach_the_store),
                cmocka_unit_test(north_resolves_names_in_a_thread_too),
                cmocka_unit_test(north_connects_to_its_upstream_and_to_nothing_else),
                cmocka_unit_test(the_supervisor_starts_roles_that_lock_themselves_in_too),
                cmocka_unit_test(the_supervisor_starts_nothing_but_gatewayd),
                cmocka_unit_test(without_landlock_only_a_weak_sandbox_starts),
                cmocka_unit_test(a_missing_store_folder_is_a_clear_error),
        };
        const char *role = getenv("TEST_SANDBOX_ROLE");

        if (role)
                return be_a_role((enum role)atoi(role));
        return cmocka_run_group_tests_name("sandbox", tests, set_up, tear_down);
}

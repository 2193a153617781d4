/* SPDX-License-Identifier: Apache-2.0 */

/* See sandbox_cage.h. */

#include "tests/unit/sandbox_cage.h"

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/netlink.h>

int complaints = STDERR_FILENO;

static void write_file(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
}

int place_set_up(void **state) {
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

int place_tear_down(void **state) {
        struct place *place = *state;
        char command[128];

        snprintf(command, sizeof command, "rm -rf %s", place->folder);
        assert_int_equal(system(command), 0);
        free(place);
        return 0;
}

int inside(enum role role, const struct place *place, attempt try) {
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

int kernel_landlock(void) {
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);

        return abi > 0 ? (int)abi : 0;
}

/* ---- attempts ---- */

/* A program that did start would end with status 1. */
void try_programs(const struct place *place) {
        char *const arguments[] = { "false", NULL };
        char *const none[] = { NULL };
        int fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);

        (void)place;
        execve("/bin/false", arguments, none);
        EXPECT(errno == ENOSYS);
        syscall(SYS_execveat, fd < 0 ? AT_FDCWD : fd, "/bin/false", arguments, none, 0);
        EXPECT(errno == ENOSYS);
        if (!IS_WIDE) {
                EXPECT(fork() < 0);
                EXPECT(syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_kill, getppid(), 0) < 0 && errno == ENOSYS);
                EXPECT(syscall(SYS_tgkill, getppid(), getppid(), 0) < 0 && errno == ENOSYS);
        }
}

void try_ip_sockets(const struct place *place) {
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

static void *resolve(void *argument) {
        struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        struct addrinfo *found = NULL;

        EXPECT(getaddrinfo("localhost", "443", &hints, &found) == 0);
        freeaddrinfo(found);
        return argument;
}

void try_resolving(const struct place *place) {
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

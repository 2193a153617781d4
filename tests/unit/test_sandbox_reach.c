/* SPDX-License-Identifier: Apache-2.0 */

/* What core and north still reach, and what not, tried from inside. */

#include "tests/unit/sandbox_cage.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <arpa/inet.h>

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

static void core_makes_no_ip_socket(void **state) {
        assert_int_equal(inside(ROLE_CORE, *state, try_ip_sockets), 0);
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
        if (kernel_landlock() == 0)
                skip();
        assert_int_equal(inside(ROLE_NORTH, *state, reach_for_the_store), 0);
}

static void north_resolves_names_in_a_thread_too(void **state) {
        assert_int_equal(inside(ROLE_NORTH, *state, try_resolving), 0);
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
        EXPECT(connect_tcp(place->paths.est_port) == -ECONNREFUSED);
        EXPECT(connect_tcp(53) == -ECONNREFUSED || connect_tcp(53) == 0);
        EXPECT(connect_tcp(2) == -EACCES);
        EXPECT(bind(fd, (struct sockaddr *)&any, sizeof any) < 0 && errno == EACCES);
}

static void north_connects_to_its_upstream_and_to_nothing_else(void **state) {
        struct place place = *(struct place *)*state;

        PLAIN_BUILD_ONLY();
        if (kernel_landlock() < 4) {
                print_message("skipped: Landlock of this kernel knows no ports (ABI below 4)\n");
                skip();
        }
        place.paths.upstream_port = 1;
        place.paths.est_port = 3;
        assert_int_equal(inside(ROLE_NORTH, &place, connect_to_ports), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(core_reaches_its_store_with_a_thread_too_and_no_other_file),
                cmocka_unit_test(core_makes_no_ip_socket),
                cmocka_unit_test(a_thread_started_before_the_lock_is_an_error),
                cmocka_unit_test(north_cannot_reach_the_store),
                cmocka_unit_test(north_resolves_names_in_a_thread_too),
                cmocka_unit_test(north_connects_to_its_upstream_and_to_nothing_else),
        };

        return cmocka_run_group_tests_name("sandbox_reach", tests, place_set_up, place_tear_down);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Events: their names, ids, sentences and catalog; how they reach journald or standard error; how
 * repetitions are counted. And what service.c says to the service manager. This program stands in for
 * libsystemd's sd_journal_sendv() and for getpeername(). */

#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/event.h"
#include "systemd/journal.h"
#include "systemd/service.h"

/* ---- what stands in ------------------------------------------------------------------------------ */

static struct buffer sent; /* fields, one a line; entries end with an empty line */
static size_t sent_count;
static bool is_journal_there;

int sd_journal_sendv(const struct iovec *vectors, int count);
int sd_journal_sendv(const struct iovec *vectors, int count) {
        for (int i = 0; i < count; i++)
                buffer_printf(&sent, "%.*s\n", (int)vectors[i].iov_len, (const char *)vectors[i].iov_base);
        buffer_append(&sent, TEXT("\n"));
        sent_count++;
        return 0;
}

int getpeername(int fd, __SOCKADDR_ARG address, socklen_t *size) {
        static const struct sockaddr_un journald = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/stdout" };

        if (fd != STDERR_FILENO || !is_journal_there) {
                errno = ENOTSOCK;
                return -1;
        }
        memcpy((void *)address.__sockaddr__, &journald, sizeof journald);
        *size = sizeof journald;
        return 0;
}

static const char *sent_text(void) {
        buffer_append(&sent, BYTES("", 1));
        sent.size--;
        return (const char *)sent.data;
}

static void sent_forget(void) {
        buffer_free(&sent);
        sent_count = 0;
}

static int journal_there(void **state) {
        (void)state;
        is_journal_there = true;
        journal_open("core");
        sent_forget();
        return 0;
}

static int journal_gone(void **state) {
        (void)state;
        sent_forget();
        is_journal_there = false;
        journal_open("core");
        return 0;
}

/* Runs `say` with standard error going to a file, and gives what came. */
static char *stderr_of(void (*say)(void)) {
        static char text[4096];
        int file = memfd_create("stderr", MFD_CLOEXEC), kept = dup(STDERR_FILENO);
        ssize_t n;

        dup2(file, STDERR_FILENO);
        say();
        dup2(kept, STDERR_FILENO);
        close(kept);
        n = pread(file, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        close(file);
        return text;
}

/* ---- names, sentences, catalog ------------------------------------------------------------------- */

static void every_event_has_a_name_an_id_and_a_sentence_of_its_own(void **state) {
        (void)state;
        for (int k = 0; k < EVENT_KINDS; k++) {
                struct event event = { .kind = (enum event_kind)k, .device = "d", .kid = "k", .reason = "because" };
                char sentence[256];

                assert_int_equal(strspn(event_message_id(event.kind), "0123456789abcdef"), 32);
                assert_int_equal(strlen(event_message_id(event.kind)), 32);
                assert_true(strlen(event_name(event.kind)) > 3);
                assert_in_range(event_priority(event.kind), 2, 7);
                event_message(&event, sentence, sizeof sentence);
                assert_int_equal(sentence[strlen(sentence) - 1], '.');
                assert_null(strpbrk(sentence, "{}[]"));
                assert_non_null(strstr(sentence, "because"));
                for (int other = 0; other < k; other++) {
                        assert_string_not_equal(event_name(event.kind), event_name((enum event_kind)other));
                        assert_string_not_equal(event_message_id(event.kind), event_message_id((enum event_kind)other));
                }
        }
        assert_string_equal(event_name(EVENT_KINDS), "unknown");
}

static void sentences_leave_out_what_is_not_known(void **state) {
        struct event event = { .kind = EVENT_DEVICE_CONNECTED, .device = "sensor-1" };
        char text[128], small[8];

        (void)state;
        event_message(&event, text, sizeof text);
        assert_string_equal(text, "Device sensor-1 connected.");
        strcpy(event.peer, "192.0.2.1:40000");
        event_message(&event, text, sizeof text);
        assert_string_equal(text, "Device sensor-1 connected from 192.0.2.1:40000.");
        event.device[0] = '\0';
        event.count = 3;
        event_message(&event, text, sizeof text);
        assert_string_equal(text, "Device (unknown) connected from 192.0.2.1:40000. (3 times)");
        event_message(&event, small, sizeof small);
        assert_string_equal(small, "Device ");
}

/* The entry of one id: from its "-- id" line to the next. */
static const char *catalog_entry(const char *catalog, const char *id, size_t *size) {
        char head[64];
        const char *start, *end;

        snprintf(head, sizeof head, "\n-- %s\n", id);
        start = strstr(catalog, head);
        if (!start)
                return NULL;
        start += strlen(head);
        end = strstr(start, "\n-- ");
        *size = end ? (size_t)(end - start) : strlen(start);
        return start;
}

static void every_event_is_in_the_catalog_and_nothing_else(void **state) {
        static char catalog[65536];
        FILE *file = fopen("systemd/gatewayd.catalog", "re");
        size_t entries = 0;

        (void)state;
        assert_non_null(file);
        catalog[fread(catalog, 1, sizeof catalog - 1, file)] = '\0';
        fclose(file);
        for (int k = 0; k < EVENT_KINDS; k++) {
                size_t size = 0;
                const char *entry = catalog_entry(catalog, event_message_id((enum event_kind)k), &size);

                if (!entry)
                        fail_msg("%s is not in the catalog", event_name((enum event_kind)k));
                assert_int_equal(strncmp(entry, "Subject: ", 9), 0);
                /* What happened and what to do: two paragraphs after the head at least. */
                if (size < 120 || !memmem(entry, size, "\n\n", 2))
                        fail_msg("the entry of %s says too little", event_name((enum event_kind)k));
        }
        for (const char *p = catalog; (p = strstr(p, "\n-- ")) != NULL; p++)
                entries++;
        assert_int_equal(entries, EVENT_KINDS);
}

/* ---- to journald, to standard error -------------------------------------------------------------- */

static void an_event_reaches_journald_with_its_fields(void **state) {
        struct event event = { .kind = EVENT_CREDENTIAL_CONFLICT,
                               .device = "sensor-1",
                               .profile = "sensor",
                               .kid = "k7m2",
                               .peer = "[::1]:5",
                               .reason = "old key" };

        (void)state;
        journal_event(&event);
        assert_string_equal(
                sent_text(),
                "MESSAGE=Device sensor-1 came with key k7m2, whose successor was proven, from [::1]:5: old key.\n"
                "MESSAGE_ID=5d0c7b2a9b6f4a51a0d7f3a2c1e4001e\n"
                "PRIORITY=2\n"
                "SYSLOG_IDENTIFIER=gatewayd\n"
                "GATEWAYD_EVENT=credential-conflict\n"
                "GATEWAYD_ROLE=core\n"
                "GATEWAYD_DEVICE=sensor-1\n"
                "GATEWAYD_PROFILE=sensor\n"
                "GATEWAYD_KID=k7m2\n"
                "GATEWAYD_PEER=[::1]:5\n"
                "GATEWAYD_REASON=old key\n"
                "GATEWAYD_COUNT=1\n\n");
}

static void what_a_peer_sent_cannot_forge_a_line(void **state) {
        struct event event = { .kind = EVENT_HANDSHAKE_REFUSED, .reason = "who\nMESSAGE_ID=x\x1b[2J\xff" };

        (void)state;
        journal_event(&event);
        assert_non_null(strstr(sent_text(), "GATEWAYD_REASON=who?MESSAGE_ID=x?[2J?\n"));
        assert_null(strstr(sent_text(), "\nMESSAGE_ID=x"));
        sent_forget();
        journal_line(4, "a\nb");
        assert_string_equal(sent_text(), "MESSAGE=a?b\nPRIORITY=4\nSYSLOG_IDENTIFIER=gatewayd\nGATEWAYD_ROLE=core\n\n");
}

static void opening_makes_the_way_out_before_the_sandbox_closes(void **state) {
        (void)state;
        journal_open("south");
        assert_int_equal(sent_count, 1); /* libsystemd opens its socket with the first message */
        assert_non_null(strstr(sent_text(), "PRIORITY=7\n"));
}

static void say_event(void) {
        struct event event = { .kind = EVENT_CREDENTIAL_ISSUED,
                               .device = "sensor-1",
                               .kid = "k7",
                               .count = 2,
                               .reason = "say \"hi\"\nnow" };

        journal_event(&event);
}

static void say_line(void) {
        journal_line(3, "cannot open %s", "x\ny");
}

static void without_a_journal_an_event_is_one_line(void **state) {
        (void)state;
        assert_string_equal(stderr_of(say_event),
                            "credential-issued role=core device=sensor-1 kid=k7 reason=\"say 'hi'?now\" count=2\n");
        assert_string_equal(stderr_of(say_line), "core: cannot open x?y\n");
        assert_int_equal(sent_count, 0);
}

/* ---- counting ------------------------------------------------------------------------------------- */

#define WINDOW 1000u

static struct event refused(const char *peer) {
        struct event event = { .kind = EVENT_HANDSHAKE_REFUSED, .reason = "unknown identity" };

        snprintf(event.peer, sizeof event.peer, "%s", peer);
        return event;
}

static void repeated_events_are_counted_not_repeated(void **state) {
        struct journal_throttle *throttle = journal_throttle_new(WINDOW);
        struct event event = refused("a");

        (void)state;
        for (uint64_t now = 0; now < WINDOW; now++)
                journal_throttle_event(throttle, &event, now);
        assert_int_equal(sent_count, 1);
        assert_non_null(strstr(sent_text(), "GATEWAYD_COUNT=1\n"));
        sent_forget();
        /* The next one carries the count, and opens a new window. */
        journal_throttle_event(throttle, &event, WINDOW);
        assert_int_equal(sent_count, 1);
        assert_non_null(strstr(sent_text(), "GATEWAYD_COUNT=1000\n"));
        journal_throttle_event(throttle, &event, 2 * WINDOW - 1);
        assert_int_equal(sent_count, 1);
        journal_throttle_free(throttle);
}

static void the_count_goes_out_when_the_window_ends(void **state) {
        struct journal_throttle *throttle = journal_throttle_new(WINDOW);
        struct event event = refused("a");

        (void)state;
        for (int i = 0; i < 5; i++)
                journal_throttle_event(throttle, &event, 10);
        sent_forget();
        journal_throttle_flush(throttle, 10 + WINDOW - 1);
        assert_int_equal(sent_count, 0);
        journal_throttle_flush(throttle, 10 + WINDOW);
        assert_int_equal(sent_count, 1);
        assert_non_null(
                strstr(sent_text(), "MESSAGE=Happened 4 more times, from a: handshake-refused, unknown identity.\n"));
        assert_non_null(strstr(sent_text(), "GATEWAYD_COUNT=4\n"));
        sent_forget();
        journal_throttle_flush(throttle, 10 + 5 * WINDOW);
        assert_int_equal(sent_count, 0);
        /* An event without repetition leaves nothing to say. */
        journal_throttle_event(throttle, &event, 10 + 5 * WINDOW);
        sent_forget();
        journal_throttle_flush(throttle, 10 + 7 * WINDOW);
        assert_int_equal(sent_count, 0);
        journal_throttle_free(throttle);
}

static void different_events_are_told_apart(void **state) {
        struct journal_throttle *throttle = journal_throttle_new(WINDOW);
        struct event event = refused("a"), other = refused("b");

        (void)state;
        journal_throttle_event(throttle, &event, 0);
        journal_throttle_event(throttle, &other, 0);
        strcpy(other.reason, "wrong key");
        journal_throttle_event(throttle, &other, 0);
        strcpy(other.device, "sensor-1");
        journal_throttle_event(throttle, &other, 0);
        other.kind = EVENT_REQUEST_REFUSED;
        journal_throttle_event(throttle, &other, 0);
        assert_int_equal(sent_count, 5);
        /* Neither the kid nor the peer's port is part of what makes two events the same. */
        strcpy(other.kid, "k");
        journal_throttle_event(throttle, &other, 0);
        assert_int_equal(sent_count, 5);
        strcpy(other.peer, "[::1]:4000");
        journal_throttle_event(throttle, &other, 0);
        assert_int_equal(sent_count, 6);
        strcpy(other.peer, "[::1]:4001");
        journal_throttle_event(throttle, &other, 0);
        assert_int_equal(sent_count, 6);
        strcpy(other.peer, "[::2]:4001");
        journal_throttle_event(throttle, &other, 0);
        assert_int_equal(sent_count, 7);
        journal_throttle_free(throttle);
}

static void a_flood_of_different_events_takes_bounded_memory_and_loses_no_count(void **state) {
        struct journal_throttle *throttle = journal_throttle_new(WINDOW);
        uint64_t told = 0;
        char peer[32];

        (void)state;
        for (unsigned i = 0; i < 5000; i++) {
                snprintf(peer, sizeof peer, "peer-%u", i);
                struct event event = refused(peer);
                journal_throttle_event(throttle, &event, i / 100);
                journal_throttle_event(throttle, &event, i / 100);
                journal_throttle_event(throttle, &event, i / 100);
        }
        /* The oldest 3,976 were flushed already, the other 1,024 are at the end. */
        assert_int_equal(sent_count, 5000 + 3976);
        journal_throttle_free(throttle);
        for (const char *p = sent_text(); (p = strstr(p, "GATEWAYD_COUNT=")) != NULL; p++)
                told += strtoull(p + strlen("GATEWAYD_COUNT="), NULL, 10);
        assert_int_equal(told, 15000);
}

static void counts_given_are_added(void **state) {
        struct journal_throttle *throttle = journal_throttle_new(WINDOW);
        struct event event = refused("a");

        (void)state;
        journal_throttle_event(throttle, &event, 0);
        event.count = 7;
        journal_throttle_event(throttle, &event, 1);
        event.count = 0;
        journal_throttle_event(throttle, &event, 2);
        sent_forget();
        journal_throttle_flush(throttle, WINDOW);
        assert_non_null(strstr(sent_text(), "GATEWAYD_COUNT=8\n"));
        journal_throttle_free(throttle);
}

/* ---- the service manager --------------------------------------------------------------------------- */

static int manager; /* the socket that stands in for it */

static int manager_start(void **state) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char name[100];

        (void)state;
        snprintf(name, sizeof name, "@gatewayd-test-%d", (int)getpid());
        setenv("NOTIFY_SOCKET", name, 1);
        memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
        manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return bind(manager, (struct sockaddr *)&address,
                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name)));
}

static int manager_stop(void **state) {
        (void)state;
        unsetenv("NOTIFY_SOCKET");
        return close(manager);
}

/* The next message, and the descriptor that came with it (-1: none). */
static const char *manager_heard(int *fd) {
        static char text[512];
        union {
                struct cmsghdr header;
                uint8_t space[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
        } control;
        struct iovec vector = { text, sizeof text - 1 };
        struct msghdr message = {
                .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
        };
        ssize_t n = recvmsg(manager, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (fd)
                *fd = -1;
        text[n > 0 ? n : 0] = '\0';
        for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL; c; c = CMSG_NXTHDR(&message, c))
                if (c->cmsg_type == SCM_RIGHTS && fd)
                        memcpy(fd, CMSG_DATA(c), sizeof *fd);
        return text;
}

static void the_manager_is_told_what_the_service_does(void **state) {
        (void)state;
        assert_true(service_ready("3 devices") > 0);
        assert_string_equal(manager_heard(NULL), "READY=1\nSTATUS=3 devices");
        assert_true(service_reloading() > 0);
        assert_int_equal(strncmp(manager_heard(NULL), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
        assert_true(service_status("busy") > 0);
        assert_string_equal(manager_heard(NULL), "STATUS=busy");
        assert_true(service_watchdog() > 0);
        assert_string_equal(manager_heard(NULL), "WATCHDOG=1");
        assert_true(service_stopping() > 0);
        assert_string_equal(manager_heard(NULL), "STOPPING=1");
}

static void a_descriptor_goes_into_the_store_under_its_name(void **state) {
        struct stat ours, theirs;
        int file = memfd_create("socket", MFD_CLOEXEC), got;

        (void)state;
        assert_true(service_descriptor_store("udp", file) > 0);
        assert_string_equal(manager_heard(&got), "FDSTORE=1\nFDNAME=udp\nFDPOLL=0");
        assert_true(got >= 0);
        assert_int_equal(fstat(file, &ours), 0);
        assert_int_equal(fstat(got, &theirs), 0);
        assert_int_equal(ours.st_ino, theirs.st_ino);
        close(got);
        close(file);
}

static void without_a_manager_everything_is_a_no_op(void **state) {
        uint8_t key[32];

        (void)state;
        unsetenv("WATCHDOG_USEC");
        unsetenv("LISTEN_FDS");
        unsetenv("CREDENTIALS_DIRECTORY");
        assert_int_equal(service_ready("x"), 0);
        assert_int_equal(service_reloading(), 0);
        assert_int_equal(service_stopping(), 0);
        assert_int_equal(service_watchdog(), 0);
        assert_int_equal(service_watchdog_usec(), 0);
        assert_int_equal(service_descriptor_take("udp"), -ENOENT);
        assert_int_equal(service_credential("k", key, sizeof key), -ENOENT);
}

static void the_watchdog_is_due_at_half_its_time(void **state) {
        char pid[16];

        (void)state;
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("WATCHDOG_USEC", "30000000", 1);
        setenv("WATCHDOG_PID", pid, 1);
        assert_int_equal(service_watchdog_usec(), 15000000);
        setenv("WATCHDOG_PID", "1", 1);
        assert_int_equal(service_watchdog_usec(), 0);
        unsetenv("WATCHDOG_USEC");
        unsetenv("WATCHDOG_PID");
}

static void the_kept_descriptor_is_taken_once_and_others_are_closed(void **state) {
        int kept[8], wanted = memfd_create("wanted", 0), other = memfd_create("other", 0);
        struct stat st, found;
        char pid[16];
        int fd;

        (void)state;
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        for (int i = 0; i < 3; i++) /* what this program has open at 3 to 5 is put aside */
                kept[i] = fcntl(3 + i, F_DUPFD_CLOEXEC, 100);
        wanted = fcntl(wanted, F_DUPFD_CLOEXEC, 200);
        other = fcntl(other, F_DUPFD_CLOEXEC, 200);
        dup2(other, 3);
        dup2(wanted, 4);
        dup2(wanted, 5);
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "3", 1);
        setenv("LISTEN_FDNAMES", "stale:udp:udp", 1);
        fd = service_descriptor_take("udp");
        assert_int_equal(fd, 4);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        fstat(wanted, &st);
        fstat(fd, &found);
        assert_int_equal(st.st_ino, found.st_ino);
        assert_int_equal(fcntl(3, F_GETFD), -1);
        assert_int_equal(fcntl(5, F_GETFD), -1);
        assert_null(getenv("LISTEN_FDS"));
        assert_int_equal(service_descriptor_take("udp"), -ENOENT);
        close(fd);
        close(wanted);
        close(other);
        for (int i = 0; i < 3; i++)
                if (kept[i] >= 0) {
                        dup2(kept[i], 3 + i);
                        close(kept[i]);
                }
}

static void a_credential_is_read_whole_or_not_at_all(void **state) {
        char folder[] = "/tmp/gatewayd-credential-XXXXXX", path[64];
        uint8_t key[32] = { 0 };
        int fd;

        (void)state;
        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/k", folder);
        setenv("CREDENTIALS_DIRECTORY", folder, 1);
        assert_int_equal(service_credential("k", key, sizeof key), -ENOENT);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, "0123456789abcdef0123456789abcdef", 32), 32);
        assert_int_equal(service_credential("k", key, sizeof key), 32);
        assert_memory_equal(key, "0123456789abcdef0123456789abcdef", 32);
        assert_int_equal(write(fd, "x", 1), 1);
        assert_int_equal(service_credential("k", key, sizeof key), -EMSGSIZE);
        assert_int_equal(key[0], 0); /* wiped */
        assert_int_equal(service_credential("../k", key, sizeof key), -EINVAL);
        assert_int_equal(service_credential("..", key, sizeof key), -EINVAL);
        close(fd);
        unlink(path);
        rmdir(folder);
        unsetenv("CREDENTIALS_DIRECTORY");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_event_has_a_name_an_id_and_a_sentence_of_its_own),
                cmocka_unit_test(sentences_leave_out_what_is_not_known),
                cmocka_unit_test(every_event_is_in_the_catalog_and_nothing_else),
                cmocka_unit_test_setup_teardown(an_event_reaches_journald_with_its_fields, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(what_a_peer_sent_cannot_forge_a_line, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(opening_makes_the_way_out_before_the_sandbox_closes, journal_there,
                                                journal_gone),
                cmocka_unit_test_setup_teardown(without_a_journal_an_event_is_one_line, journal_gone, journal_gone),
                cmocka_unit_test_setup_teardown(repeated_events_are_counted_not_repeated, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(the_count_goes_out_when_the_window_ends, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(different_events_are_told_apart, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(a_flood_of_different_events_takes_bounded_memory_and_loses_no_count,
                                                journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(counts_given_are_added, journal_there, journal_gone),
                cmocka_unit_test_setup_teardown(the_manager_is_told_what_the_service_does, manager_start, manager_stop),
                cmocka_unit_test_setup_teardown(a_descriptor_goes_into_the_store_under_its_name, manager_start,
                                                manager_stop),
                cmocka_unit_test(without_a_manager_everything_is_a_no_op),
                cmocka_unit_test(the_watchdog_is_due_at_half_its_time),
                cmocka_unit_test(the_kept_descriptor_is_taken_once_and_others_are_closed),
                cmocka_unit_test(a_credential_is_read_whole_or_not_at_all),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

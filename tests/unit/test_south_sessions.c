/* SPDX-License-Identifier: Apache-2.0 */

/* The tables of sessions, addresses, cookies, and the counting of failures. */

#include "tests/unit/support.h"

#include <arpa/inet.h>
#include <errno.h>

#include "coap/cookie.h"
#include "coap/failures.h"
#include "coap/sessions.h"

#define SEC UINT64_C(1000000)

static struct peer peer_at(const char *address, uint16_t port) {
        struct peer peer = { 0 };

        if (strchr(address, ':')) {
                peer.address.v6.sin6_family = AF_INET6;
                peer.address.v6.sin6_port = htons(port);
                assert_int_equal(inet_pton(AF_INET6, address, &peer.address.v6.sin6_addr), 1);
                peer.size = sizeof peer.address.v6;
        } else {
                peer.address.v4.sin_family = AF_INET;
                peer.address.v4.sin_port = htons(port);
                assert_int_equal(inet_pton(AF_INET, address, &peer.address.v4.sin_addr), 1);
                peer.size = sizeof peer.address.v4;
        }
        return peer;
}

struct world {
        struct sessions *sessions;
        struct session each[20];
};

static int set_up(void **state) {
        struct world *world = xcalloc(1, sizeof *world);
        const struct session_limits limits = { .max_established = 3, .max_half_open = 6, .max_half_open_prefix = 2 };

        if (sessions_new(&limits, &world->sessions) < 0)
                return -1;
        *state = world;
        return 0;
}

static int tear_down(void **state) {
        struct world *world = *state;
        struct session *session;

        while ((session = sessions_oldest_half_open(world->sessions)))
                sessions_bury(world->sessions, session);
        sessions_free(world->sessions);
        free(world);
        return 0;
}

static struct session *add(struct world *world, unsigned which, const char *address, uint16_t port) {
        struct session *session = &world->each[which];

        session->peer = peer_at(address, port);
        assert_int_equal(sessions_add(world->sessions, session), 0);
        return session;
}

static void addresses_show_as_people_write_them(void **state) {
        static const char *const cases[][2] = {
                { "192.0.2.1", "192.0.2.1:5684" },
                { "2001:db8::1", "[2001:db8::1]:5684" },
                { "::ffff:192.0.2.1", "192.0.2.1:5684" },
                { "::1", "[::1]:5684" },
        };
        struct peer local = peer_at("fe80::1", 1);
        char text[PEER_TEXT_MAX];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct peer peer = peer_at(cases[i][0], 5684);

                peer_text(&peer, text);
                assert_string_equal(text, cases[i][1]);
        }
        local.address.v6.sin6_scope_id = 3;
        peer_text(&local, text);
        assert_string_equal(text, "[fe80::1%3]:1");
}

static void prefixes_are_24_bits_of_ipv4_and_56_of_ipv6(void **state) {
        struct peer a = peer_at("192.0.2.1", 1), b = peer_at("192.0.2.200", 2), c = peer_at("192.0.3.1", 1);
        struct peer mapped = peer_at("::ffff:192.0.2.9", 1);
        struct peer d = peer_at("2001:db8:0:100::1", 1), e = peer_at("2001:db8:0:1ff::2", 1),
                    f = peer_at("2001:db8:0:200::1", 1);

        (void)state;
        assert_int_equal(peer_prefix(&a), peer_prefix(&b));
        assert_int_equal(peer_prefix(&a), peer_prefix(&mapped));
        assert_int_not_equal(peer_prefix(&a), peer_prefix(&c));
        assert_int_equal(peer_prefix(&d), peer_prefix(&e));
        assert_int_not_equal(peer_prefix(&d), peer_prefix(&f));
}

static void only_whole_internet_addresses_are_peers(void **state) {
        struct peer peer = peer_at("192.0.2.1", 1);

        (void)state;
        assert_true(peer_is_valid(&peer));
        peer.size = 8;
        assert_false(peer_is_valid(&peer));
        peer.size = 0;
        assert_false(peer_is_valid(&peer));
        peer = (struct peer){ .address.any.sa_family = AF_UNIX, .size = sizeof peer.address };
        assert_false(peer_is_valid(&peer));
}

static void a_cookie_is_good_for_its_address_and_for_two_lives_of_a_key(void **state) {
        struct peer peer = peer_at("192.0.2.1", 40000), other = peer_at("192.0.2.1", 40001);
        struct cookie_keys keys;
        uint8_t cookie[COOKIE_BYTES];
        uint64_t now = 7 * SEC;

        (void)state;
        assert_int_equal(cookie_keys_make(&keys, now), 0);
        cookie_make(&keys, &peer, cookie);
        assert_true(cookie_is_right(&keys, &peer, BYTES(cookie, sizeof cookie)));
        assert_false(cookie_is_right(&keys, &other, BYTES(cookie, sizeof cookie)));
        assert_false(cookie_is_right(&keys, &peer, BYTES(cookie, sizeof cookie - 1)));
        assert_false(cookie_is_right(&keys, &peer, BYTES(NULL, 0)));

        now += COOKIE_KEY_USEC;
        assert_int_equal(cookie_keys_rotate(&keys, now), 0);
        assert_true(cookie_is_right(&keys, &peer, BYTES(cookie, sizeof cookie)));
        now += COOKIE_KEY_USEC;
        assert_int_equal(cookie_keys_rotate(&keys, now), 0);
        assert_false(cookie_is_right(&keys, &peer, BYTES(cookie, sizeof cookie)));
}

static void after_a_long_silence_no_old_cookie_is_good(void **state) {
        struct peer peer = peer_at("2001:db8::7", 40000);
        struct cookie_keys keys;
        uint8_t cookie[COOKIE_BYTES];

        (void)state;
        assert_int_equal(cookie_keys_make(&keys, SEC), 0);
        cookie_make(&keys, &peer, cookie);
        assert_int_equal(cookie_keys_rotate(&keys, 3600 * SEC), 0);
        assert_false(cookie_is_right(&keys, &peer, BYTES(cookie, sizeof cookie)));
}

static void a_session_is_found_by_address_and_by_number_in_its_state(void **state) {
        struct world *world = *state;
        struct session *a = add(world, 0, "192.0.2.1", 1), *b = add(world, 1, "192.0.2.1", 2);
        struct peer nobody = peer_at("192.0.2.1", 3);

        assert_ptr_equal(sessions_find(world->sessions, &a->peer, SESSION_HALF_OPEN), a);
        assert_null(sessions_find(world->sessions, &a->peer, SESSION_ESTABLISHED));
        assert_null(sessions_find(world->sessions, &nobody, SESSION_HALF_OPEN));
        assert_ptr_equal(sessions_by_number(world->sessions, b->number), b);
        sessions_establish(world->sessions, b);
        assert_ptr_equal(sessions_find(world->sessions, &b->peer, SESSION_ESTABLISHED), b);
        assert_null(sessions_find(world->sessions, &b->peer, SESSION_HALF_OPEN));
        sessions_bury(world->sessions, b);
        assert_null(sessions_find(world->sessions, &b->peer, SESSION_ESTABLISHED));
        assert_null(sessions_by_number(world->sessions, b->number));
        assert_ptr_equal(sessions_next_dead(world->sessions), b);
        assert_null(sessions_next_dead(world->sessions));
}

static void numbers_are_never_used_twice(void **state) {
        struct world *world = *state;
        uint32_t last = 0;

        for (unsigned i = 0; i < 5; i++) {
                struct session *session = add(world, 0, "192.0.2.1", 1);

                assert_true(session->number > last);
                last = session->number;
                sessions_bury(world->sessions, session);
                sessions_next_dead(world->sessions);
        }
}

static void a_crowded_prefix_loses_its_own_oldest_and_a_crowded_table_the_oldest_of_all(void **state) {
        struct world *world = *state;
        struct session *first = add(world, 0, "198.51.100.1", 1);
        struct peer same = peer_at("192.0.2.9", 9), other = peer_at("203.0.113.1", 1);

        add(world, 1, "192.0.2.1", 1);
        assert_null(sessions_crowded_by(world->sessions, &same));
        add(world, 2, "192.0.2.2", 1);
        assert_ptr_equal(sessions_crowded_by(world->sessions, &same), &world->each[1]);
        assert_null(sessions_crowded_by(world->sessions, &other));
        add(world, 3, "2001:db8:1::1", 1);
        add(world, 4, "2001:db8:2::1", 1);
        add(world, 5, "2001:db8:3::1", 1);
        assert_ptr_equal(sessions_crowded_by(world->sessions, &other), first);
        sessions_bury(world->sessions, first);
        assert_null(sessions_crowded_by(world->sessions, &other));
        assert_int_equal(sessions_half_open(world->sessions), 5);
}

static void the_longest_idle_makes_room(void **state) {
        struct world *world = *state;

        for (unsigned i = 0; i < 3; i++)
                sessions_establish(world->sessions, add(world, i, "192.0.2.1", (uint16_t)(i + 1)));
        assert_ptr_equal(sessions_overflow(world->sessions), &world->each[0]);
        sessions_touch(world->sessions, &world->each[0], 5);
        assert_ptr_equal(sessions_overflow(world->sessions), &world->each[1]);
        assert_ptr_equal(sessions_longest_idle(world->sessions), &world->each[1]);
        assert_ptr_equal(sessions_next_idle(&world->each[1]), &world->each[2]);
        for (unsigned i = 0; i < 3; i++)
                sessions_bury(world->sessions, &world->each[i]);
        assert_null(sessions_overflow(world->sessions));
        assert_int_equal(sessions_established(world->sessions), 0);
}

/* ---- failures ---- */

struct told {
        unsigned frames, count;
        char identity[129], peer[PEER_TEXT_MAX];
        enum handshake_failure failure;
};

static void tell(void *userdata, const struct message_handshake_failed *message) {
        struct told *told = userdata;

        told->frames++;
        told->count += message->count;
        told->failure = message->failure;
        assert_int_equal(bytes_to_text(message->identity, told->identity, sizeof told->identity), 0);
        assert_int_equal(bytes_to_text(message->peer, told->peer, sizeof told->peer), 0);
}

static void the_first_failure_is_told_at_once_and_the_others_counted(void **state) {
        struct told told = { 0 };
        struct failures *failures = failures_new(tell, &told);
        uint64_t now = 100 * SEC;

        (void)state;
        assert_int_equal(failures_tick(failures, now), UINT64_MAX);
        for (unsigned i = 0; i < 100; i++) {
                struct peer peer = peer_at("192.0.2.1", (uint16_t)(1000 + i));

                failures_add(failures, FAILED_UNKNOWN_IDENTITY, TEXT("who"), &peer, now);
        }
        assert_int_equal(told.frames, 1);
        assert_string_equal(told.identity, "who");
        assert_string_equal(told.peer, "192.0.2.1:1000");
        assert_int_equal(failures_tick(failures, now), now + FAILURES_USEC);
        now += FAILURES_USEC;
        assert_int_equal(failures_tick(failures, now), UINT64_MAX);
        assert_int_equal(told.frames, 2);
        assert_int_equal(told.count, 100);
        assert_string_equal(told.peer, "192.0.2.1:1099");
        failures_free(failures);
}

static void kinds_and_addresses_are_counted_apart_and_none_is_lost(void **state) {
        struct told told = { 0 };
        struct failures *failures = failures_new(tell, &told);
        uint64_t now = 100 * SEC;

        (void)state;
        for (unsigned round = 0; round < 3; round++)
                for (unsigned i = 0; i < 1000; i++) {
                        struct peer peer = peer_at("10.0.0.1", 1);

                        peer.address.v4.sin_addr.s_addr = htonl(0x0a000000 + i);
                        failures_add(failures, i % 2 ? FAILED_WRONG_KEY : FAILED_TIMEOUT, BYTES(NULL, 0), &peer, now);
                }
        assert_true(told.frames >= 1000);
        assert_int_equal(failures_tick(failures, now + FAILURES_USEC), UINT64_MAX);
        assert_int_equal(told.count, 3000);
        failures_free(failures);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(addresses_show_as_people_write_them),
                cmocka_unit_test(prefixes_are_24_bits_of_ipv4_and_56_of_ipv6),
                cmocka_unit_test(only_whole_internet_addresses_are_peers),
                cmocka_unit_test(a_cookie_is_good_for_its_address_and_for_two_lives_of_a_key),
                cmocka_unit_test(after_a_long_silence_no_old_cookie_is_good),
                TEST(a_session_is_found_by_address_and_by_number_in_its_state),
                TEST(numbers_are_never_used_twice),
                TEST(a_crowded_prefix_loses_its_own_oldest_and_a_crowded_table_the_oldest_of_all),
                TEST(the_longest_idle_makes_room),
                cmocka_unit_test(the_first_failure_is_told_at_once_and_the_others_counted),
                cmocka_unit_test(kinds_and_addresses_are_counted_apart_and_none_is_lost),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

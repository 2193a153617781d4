/* SPDX-License-Identifier: Apache-2.0 */

/* The table of addresses whose clients offer certificate suites without having a certificate. */

#include "tests/unit/support.h"

#include <arpa/inet.h>

#include "coap/marks.h"

static struct peer peer_at(uint32_t address, uint16_t port) {
        struct peer peer = { 0 };

        peer.address.v4.sin_family = AF_INET;
        peer.address.v4.sin_addr.s_addr = htonl(address);
        peer.address.v4.sin_port = htons(port);
        peer.size = sizeof peer.address.v4;
        return peer;
}

static struct peer peer_v6(const char *address, uint16_t port) {
        struct peer peer = { 0 };

        peer.address.v6.sin6_family = AF_INET6;
        peer.address.v6.sin6_port = htons(port);
        assert_int_equal(inet_pton(AF_INET6, address, &peer.address.v6.sin6_addr), 1);
        peer.size = sizeof peer.address.v6;
        return peer;
}

static int set_up(void **state) {
        struct marks *marks = NULL;

        if (marks_new(&marks) < 0)
                return -1;
        *state = marks;
        return 0;
}

static int tear_down(void **state) {
        marks_free(*state);
        return 0;
}

static void a_mark_counts_for_every_port_of_one_address(void **state) {
        struct peer marked = peer_at(0x0a000001, 40000), later = peer_at(0x0a000001, 40001);
        struct peer neighbour = peer_at(0x0a000002, 40000);

        marks_add(*state, &marked, 1);
        assert_true(marks_has(*state, &marked, 1));
        assert_true(marks_has(*state, &later, 1));
        assert_false(marks_has(*state, &neighbour, 1));
}

static void an_address_of_version_6_is_marked_by_all_of_its_128_bits(void **state) {
        struct peer marked = peer_v6("2001:db8::1", 1), same = peer_v6("2001:db8::1", 2);
        struct peer neighbour = peer_v6("2001:db8::2", 1);

        marks_add(*state, &marked, 1);
        assert_true(marks_has(*state, &same, 1));
        assert_false(marks_has(*state, &neighbour, 1));
}

static void a_mark_ends_after_five_minutes(void **state) {
        struct peer peer = peer_at(0x0a000001, 1);

        marks_add(*state, &peer, 1000);
        assert_true(marks_has(*state, &peer, 1000 + MARKS_USEC - 1));
        assert_false(marks_has(*state, &peer, 1000 + MARKS_USEC));
}

static void marked_again_an_address_is_marked_from_then_on_and_takes_one_place(void **state) {
        struct peer again = peer_at(1, 1), other;

        for (uint64_t i = 0; i < 3 * MARKS_MAX; i++)
                marks_add(*state, &again, i);
        assert_true(marks_has(*state, &again, 3 * MARKS_MAX - 1 + MARKS_USEC - 1));
        for (uint32_t i = 0; i < MARKS_MAX - 1; i++) {
                other = peer_at(100 + i, 1);
                marks_add(*state, &other, 4 * MARKS_MAX + i);
        }
        assert_true(marks_has(*state, &again, 5 * MARKS_MAX));
}

static void in_a_full_table_the_oldest_mark_goes(void **state) {
        struct peer peer;

        for (uint32_t i = 0; i < 3 * MARKS_MAX; i++) {
                peer = peer_at(1 + i, 1);
                marks_add(*state, &peer, i);
        }
        for (uint32_t i = 0; i < 3 * MARKS_MAX; i++) {
                peer = peer_at(1 + i, 1);
                assert_int_equal(marks_has(*state, &peer, 3 * MARKS_MAX), i >= 2 * MARKS_MAX);
        }
}

static void nobody_is_marked_in_an_empty_table(void **state) {
        struct peer none = peer_at(0, 0);

        assert_false(marks_has(*state, &none, 0));
}

int main(void) {
        const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
                TEST(a_mark_counts_for_every_port_of_one_address),
                TEST(an_address_of_version_6_is_marked_by_all_of_its_128_bits),
                TEST(a_mark_ends_after_five_minutes),
                TEST(marked_again_an_address_is_marked_from_then_on_and_takes_one_place),
                TEST(in_a_full_table_the_oldest_mark_goes),
                TEST(nobody_is_marked_in_an_empty_table),
#undef TEST
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

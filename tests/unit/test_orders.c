/* SPDX-License-Identifier: Apache-2.0 */

/* The rows of rotation orders and of the gateway's own keys. */

#include "store_support.h"

#include "store/internal.h"
#include "store/orders.h"
#include "store/own_keys.h"

static int memory_new(void **state) {
        *state = store_in_memory();
        return 0;
}

static int memory_free(void **state) {
        store_close(*state);
        return 0;
}

static struct rotation_order order_for(const char *profile, int64_t asked, int64_t paused) {
        struct rotation_order order = { 0 };

        snprintf(order.profile, sizeof order.profile, "%s", profile);
        if (asked > 0) {
                order.asked = at(asked);
                order.within_sec = 7200;
        }
        if (paused > 0) {
                order.paused = at(paused);
                order.pause_sec = 86400;
        }
        return order;
}

static void assert_same_moment(const struct moment *a, const struct moment *b) {
        assert_int_equal(a->wall, b->wall);
        assert_int_equal(a->powered_sec, b->powered_sec);
        assert_int_equal(a->quality, b->quality);
        assert_int_equal(a->wall_trusted, b->wall_trusted);
}

static void an_order_comes_back_as_it_was_put(void **state) {
        struct rotation_order order = order_for("sensor", 5, 9), found;

        order.paused.wall_trusted = false;
        order.paused.quality = CLOCK_HELD;
        assert_int_equal(order_put(*state, &order), 0);
        commit(*state);
        assert_int_equal(order_get(*state, "sensor", &found), 0);
        assert_string_equal(found.profile, "sensor");
        assert_same_moment(&found.asked, &order.asked);
        assert_same_moment(&found.paused, &order.paused);
        assert_int_equal(found.within_sec, 7200);
        assert_int_equal(found.pause_sec, 86400);
        assert_int_equal(order_get(*state, "", &found), -ENOENT);
        assert_int_equal(order_get(*state, "sens", &found), -ENOENT);
}

static void an_order_replaces_the_one_before(void **state) {
        struct rotation_order order = order_for("sensor", 5, 0), found;

        assert_int_equal(order_put(*state, &order), 0);
        order = order_for("sensor", 0, 7);
        assert_int_equal(order_put(*state, &order), 0);
        assert_int_equal(order_get(*state, "sensor", &found), 0);
        assert_false(moment_is_set(&found.asked));
        assert_int_equal(found.paused.powered_sec, 7);
}

static void an_order_that_orders_nothing_is_removed(void **state) {
        struct rotation_order order = order_for("sensor", 5, 0), found;

        assert_int_equal(order_put(*state, &order), 0);
        order = order_for("sensor", 0, 0);
        assert_int_equal(order_put(*state, &order), 0);
        assert_int_equal(order_get(*state, "sensor", &found), -ENOENT);
        assert_int_equal(order_put(*state, &order), 0); /* nothing to remove */
}

static void an_order_of_less_than_no_time_is_refused(void **state) {
        struct rotation_order order = order_for("sensor", 5, 5), found;

        order.within_sec = -1;
        assert_int_equal(order_put(*state, &order), -EINVAL);
        order.within_sec = 0;
        order.pause_sec = -1;
        assert_int_equal(order_put(*state, &order), -EINVAL);
        assert_int_equal(order_get(*state, "sensor", &found), -ENOENT);
}

static int append_profile(void *userdata, const struct rotation_order *order) {
        char *to = userdata;

        strcat(to, "[");
        strcat(to, order->profile);
        strcat(to, "]");
        return strcmp(order->profile, "m") == 0 ? 7 : 0;
}

static void orders_are_walked_by_profile_the_one_for_all_first(void **state) {
        static const char *const profiles[] = { "z", "", "b" };
        struct rotation_order order;
        char found[64] = "";

        assert_int_equal(order_each(*state, append_profile, found), 0);
        for (size_t i = 0; i < ELEMENTS(profiles); i++) {
                order = order_for(profiles[i], 5, 0);
                assert_int_equal(order_put(*state, &order), 0);
        }
        assert_int_equal(order_each(*state, append_profile, found), 0);
        assert_string_equal(found, "[][b][z]");
        order = order_for("m", 5, 0);
        assert_int_equal(order_put(*state, &order), 0);
        found[0] = '\0';
        assert_int_equal(order_each(*state, append_profile, found), 7);
        assert_string_equal(found, "[][b][m]");
}

static void a_rolled_back_order_was_never_given(void **state) {
        struct rotation_order order = order_for("", 5, 0), found;

        assert_int_equal(order_put(*state, &order), 0);
        store_rollback(*state);
        assert_int_equal(order_get(*state, "", &found), -ENOENT);
}

/* ---- the gateway's own keys ---- */

static void an_own_key_comes_back_as_it_was_put(void **state) {
        struct own_key key = { .kind = OWN_KEY_UPSTREAM,
                               .generation = UINT32_MAX,
                               .made = at(3),
                               .not_after = 1234567,
                               .told = UINT32_MAX };
        struct own_key found;

        memset(key.id, 'f', 64);
        assert_int_equal(own_key_get(*state, OWN_KEY_UPSTREAM, &found), -ENOENT);
        assert_int_equal(own_key_put(*state, &key), 0);
        commit(*state);
        assert_int_equal(own_key_get(*state, OWN_KEY_UPSTREAM, &found), 0);
        assert_int_equal(found.kind, OWN_KEY_UPSTREAM);
        assert_int_equal(found.generation, UINT32_MAX);
        assert_same_moment(&found.made, &key.made);
        assert_string_equal(found.id, key.id);
        assert_int_equal(found.not_after, 1234567);
        assert_int_equal(found.told, UINT32_MAX);
        assert_int_equal(own_key_get(*state, OWN_KEY_RECEIPT, &found), -ENOENT);
}

static void each_kind_has_one_row_which_the_next_generation_replaces(void **state) {
        struct own_key key = { .made = at(1) }, found;

        for (key.generation = 1; key.generation <= 2; key.generation++)
                for (key.kind = 0; key.kind < OWN_KEY_KINDS; key.kind++) {
                        snprintf(key.id, sizeof key.id, "%d-%u", (int)key.kind, key.generation);
                        assert_int_equal(own_key_put(*state, &key), 0);
                }
        for (enum own_key_kind kind = 0; kind < OWN_KEY_KINDS; kind++) {
                snprintf(key.id, sizeof key.id, "%d-2", (int)kind);
                assert_int_equal(own_key_get(*state, kind, &found), 0);
                assert_int_equal(found.generation, 2);
                assert_string_equal(found.id, key.id);
        }
}

static void an_own_key_without_a_kind_or_generation_is_refused(void **state) {
        struct own_key key = { .kind = OWN_KEY_KINDS, .generation = 1, .made = at(1) };

        assert_int_equal(own_key_put(*state, &key), -EINVAL);
        key.kind = OWN_KEY_DATA;
        key.generation = 0;
        assert_int_equal(own_key_put(*state, &key), -EINVAL);
        assert_int_equal(own_key_get(*state, OWN_KEY_DATA, &key), -ENOENT);
}

static void a_damaged_own_key_is_told(void **state) {
        struct own_key key = { .kind = OWN_KEY_DATA, .generation = 1, .made = at(1) };
        struct store *store = *state;

        assert_int_equal(own_key_put(store, &key), 0);
        commit(store);
        assert_int_equal(connection_run(store->db, "UPDATE own_key SET generation = 0"), 0);
        assert_int_equal(own_key_get(store, OWN_KEY_DATA, &key), -EUCLEAN);
        assert_int_equal(connection_run(store->db, "UPDATE own_key SET generation = 1, told = -1"), 0);
        assert_int_equal(own_key_get(store, OWN_KEY_DATA, &key), -EUCLEAN);
        assert_int_equal(connection_run(store->db, "UPDATE own_key SET told = 0, made_quality = 9"), 0);
        assert_int_equal(own_key_get(store, OWN_KEY_DATA, &key), -EUCLEAN);
}

static void an_own_secret_is_removed_once(void **state) {
        _cleanup_(buffer_free) struct buffer found = { 0 };

        assert_int_equal(store_own_secret_put(*state, "receipt-key-next", TEXT("secret")), 0);
        assert_int_equal(store_own_secret_put(*state, "receipt-key", TEXT("another")), 0);
        assert_int_equal(store_own_secret_remove(*state, "receipt-key-next"), 1);
        assert_int_equal(store_own_secret_remove(*state, "receipt-key-next"), 0);
        assert_int_equal(store_own_secret_get(*state, "receipt-key-next", &found), -ENOENT);
        assert_int_equal(store_own_secret_get(*state, "receipt-key", &found), 0);
}

static void what_is_known_about_the_data_key_follows_its_use(void **state) {
        struct moment later = at(500);
        struct data_key_facts facts;

        assert_int_equal(store_data_key_facts(*state, &facts), 0);
        assert_int_equal(facts.id, 1);
        assert_int_equal(facts.count, 1);
        assert_false(moment_is_set(&facts.made));
        assert_int_equal(facts.sealed, 0);
        assert_int_equal(store_own_secret_put(*state, "a", TEXT("secret")), 0);
        assert_int_equal(store_data_key_facts(*state, &facts), 0);
        assert_int_equal(facts.sealed, 1);

        assert_int_equal(store_data_key_rotate(*state, &later), 0);
        assert_int_equal(store_data_key_facts(*state, &facts), 0);
        assert_int_equal(facts.id, 2);
        assert_int_equal(facts.count, 2);
        assert_same_moment(&facts.made, &later);
        assert_int_equal(store_reseal_left(*state), 1);
        assert_int_equal(store_reseal_some(*state, 5, NULL), 0);
        assert_int_equal(store_reseal_left(*state), 0);
        assert_int_equal(store_data_key_facts(*state, &facts), 0);
        assert_int_equal(facts.count, 1);
        assert_int_equal(facts.sealed, 1);
}

static void the_date_of_the_last_backup_is_kept(void **state) {
        struct moment when = at(77);
        struct store_meta meta;

        assert_int_equal(store_meta_get(*state, &meta), 0);
        assert_false(moment_is_set(&meta.backed_up));
        assert_false(moment_is_set(&meta.backup_of));
        assert_false(moment_is_set(&meta.restored));
        assert_false(meta.is_restored_now);
        assert_int_equal(store_meta_set_backed_up(*state, &when), 0);
        assert_int_equal(store_meta_get(*state, &meta), 0);
        assert_same_moment(&meta.backed_up, &when);
        assert_false(moment_is_set(&meta.backup_of));
}

#define IN_MEMORY(test) cmocka_unit_test_setup_teardown(test, memory_new, memory_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_MEMORY(an_order_comes_back_as_it_was_put),
                IN_MEMORY(an_order_replaces_the_one_before),
                IN_MEMORY(an_order_that_orders_nothing_is_removed),
                IN_MEMORY(an_order_of_less_than_no_time_is_refused),
                IN_MEMORY(orders_are_walked_by_profile_the_one_for_all_first),
                IN_MEMORY(a_rolled_back_order_was_never_given),
                IN_MEMORY(an_own_key_comes_back_as_it_was_put),
                IN_MEMORY(each_kind_has_one_row_which_the_next_generation_replaces),
                IN_MEMORY(an_own_key_without_a_kind_or_generation_is_refused),
                IN_MEMORY(a_damaged_own_key_is_told),
                IN_MEMORY(an_own_secret_is_removed_once),
                IN_MEMORY(what_is_known_about_the_data_key_follows_its_use),
                IN_MEMORY(the_date_of_the_last_backup_is_kept),
        };

        return cmocka_run_group_tests_name("rotation orders and own keys", tests, NULL, NULL);
}

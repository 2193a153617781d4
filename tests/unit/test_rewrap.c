/* SPDX-License-Identifier: Apache-2.0 */

/* Replacing the sealing key in two steps: whichever of the two keys the next start is given, the store opens. */

#include "store_support.h"

#include "store/internal.h"

static const uint8_t third_key[32] = "a third sealing key, unrelated..";

#define KEY(key) BYTES(key, 32)

/* Leaves the store closed where it does not open. */
static int open_with(struct place *place, const uint8_t key[32], struct bytes recovery_key, struct problem *problem) {
        struct store_options options = options_for(place);

        place->store = store_close(place->store);
        options.key_encryption_key = BYTES(key, 32);
        options.recovery_key = recovery_key;
        return store_open(&options, &place->store, problem);
}

static void assert_opens_with(struct place *place, const uint8_t key[32]) {
        struct problem problem = { 0 };
        int r = open_with(place, key, (struct bytes){ 0 }, &problem);

        if (r < 0)
                fail_msg("%s: %s", problem.title, problem.detail);
}

static void assert_does_not_open_with(struct place *place, const uint8_t key[32]) {
        struct problem problem = { 0 };
        struct picture before;

        place->store = store_close(place->store);
        before = picture_of(place);
        assert_int_equal(open_with(place, key, (struct bytes){ 0 }, &problem), -EKEYREJECTED);
        assert_untouched(place, &before);
}

static void assert_secret(struct place *place, const char *identity, const char *value) {
        struct secret expected = secret_of(value), found;

        assert_int_equal(credential_secret(place->store, identity, &found), 0);
        assert_true(secret_equal(&found, &expected));
        secret_wipe(&expected);
        secret_wipe(&found);
}

static void assert_all_secrets(struct place *place) {
        assert_secret(place, "one", "secret one");
        assert_secret(place, "two", "secret two");
}

/* Two secrets, each under a data key of its own. */
static void make(struct place *place) {
        store_here(place, NULL, 0);
        add_credential(place->store, "d", "one", 1, "secret one");
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        add_credential(place->store, "d", "two", 2, "secret two");
        commit(place->store);
}

static void prepare(struct place *place, const uint8_t key[32]) {
        assert_int_equal(store_rewrap_prepare(place->store, KEY(key)), 0);
        commit(place->store);
}

static void once_prepared_either_key_opens(void **state) {
        struct place *place = *state;

        make(place);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        prepare(place, other_key);
        assert_int_equal(store_rewrap_is_open(place->store), 1);
        assert_does_not_open_with(place, third_key);
        assert_opens_with(place, sealing_key);
        assert_all_secrets(place);
        assert_int_equal(store_rewrap_is_open(place->store), 1); /* the old one leaves things as they are */
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
}

static void a_start_with_the_new_key_is_the_second_step(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        assert_opens_with(place, other_key);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        assert_int_equal(store_rewrap_finish(place->store), -ENOENT);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
}

static void open_with_the_new_one(struct place *place) {
        assert_opens_with(place, other_key);
        /* Not closed: what counts is what was flushed. */
}

static void the_second_step_of_a_start_is_durable_when_the_store_is_open(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        place->store = store_close(place->store);
        in_a_killed_process(open_with_the_new_one, place);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, other_key);
}

static void finished_the_new_key_is_the_only_one(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        assert_int_equal(store_rewrap_finish(place->store), 0);
        commit(place->store);
        assert_all_secrets(place);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
}

static void cancelled_the_old_key_is_the_only_one(void **state) {
        struct place *place = *state;

        make(place);
        assert_int_equal(store_rewrap_cancel(place->store), -ENOENT);
        assert_int_equal(store_rewrap_finish(place->store), -ENOENT);
        prepare(place, other_key);
        assert_int_equal(store_rewrap_cancel(place->store), 0);
        commit(place->store);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        assert_does_not_open_with(place, other_key);
        assert_opens_with(place, sealing_key);
        assert_all_secrets(place);
        place->store = store_close(place->store);
        tamper(place, "SELECT CASE count(wrapped_next) WHEN 0 THEN 1 ELSE abs(-9223372036854775808) END"
                      " FROM data_key");
}

static void data_keys_made_while_prepared_open_with_either(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        add_credential(place->store, "d", "three", 3, "secret three");
        commit(place->store);
        /* This start does not know the new key, yet covers what it makes. */
        assert_opens_with(place, sealing_key);
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        add_credential(place->store, "d", "four", 4, "secret four");
        while (store_reseal_some(place->store, 1, NULL) > 0)
                commit(place->store);
        commit(place->store);
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
        assert_secret(place, "three", "secret three");
        assert_secret(place, "four", "secret four");
}

static void a_damaged_secret_is_passed_over_and_told_and_all_others_move(void **state) {
        struct place *place = *state;
        struct reseal_damage damage;
        struct secret found;

        make(place);
        place->store = store_close(place->store);
        tamper(place, "UPDATE credential SET sealed = zeroblob(length(sealed)) WHERE identity = 'one'");
        store_here(place, NULL, 0);
        add_credential(place->store, "d", "three", 3, "secret three");
        for (int round = 0; round < 3; round++) { /* each new data key looks at it once more */
                assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
                assert_int_equal(store_reseal_damaged(place->store), 0);
                assert_int_equal(store_reseal_some(place->store, 1, &damage), 1);
                assert_int_equal(damage.count, 1);
                assert_string_equal(damage.name, "one");
                assert_int_equal(store_reseal_some(place->store, 10, &damage), 0);
                assert_int_equal(damage.count, 0);
                assert_int_equal(store_reseal_left(place->store), 1);
                assert_int_equal(store_reseal_damaged(place->store), 1);
                commit(place->store);
        }
        assert_opens_with(place, sealing_key);
        assert_secret(place, "two", "secret two");
        assert_secret(place, "three", "secret three");
        assert_int_equal(credential_secret(place->store, "one", &found), -EBADMSG);
        place->store = store_close(place->store);
        /* The key that it is under and the newest: those between have gone. */
        tamper(place, "SELECT CASE count(*) WHEN 2 THEN 1 ELSE abs(-9223372036854775808) END FROM data_key");
}

static void prepared_again_the_first_new_key_opens_nothing(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        prepare(place, third_key);
        assert_does_not_open_with(place, other_key);
        assert_opens_with(place, third_key);
        assert_all_secrets(place);
        assert_does_not_open_with(place, sealing_key);
}

static void what_an_earlier_start_has_prepared_is_not_finished_without_its_key(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        assert_opens_with(place, sealing_key);
        assert_int_equal(store_rewrap_finish(place->store), -ENOKEY);
        prepare(place, other_key);
        assert_int_equal(store_rewrap_finish(place->store), 0);
        commit(place->store);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, other_key);
}

static void a_key_of_another_size_or_the_one_in_force_is_not_prepared(void **state) {
        struct place *place = *state;

        make(place);
        assert_int_equal(store_rewrap_prepare(place->store, BYTES(other_key, 31)), -EINVAL);
        assert_int_equal(store_rewrap_prepare(place->store, KEY(sealing_key)), -EINVAL);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
}

static int known(struct place *place, const uint8_t key[32]) {
        return store_rewrap_knows(place->store, KEY(key));
}

static void the_store_knows_the_key_in_force_and_the_one_prepared_also_after_a_start(void **state) {
        struct place *place = *state;

        make(place);
        assert_int_equal(known(place, sealing_key), SEALING_KEY_IN_FORCE);
        assert_int_equal(known(place, other_key), SEALING_KEY_UNKNOWN);
        prepare(place, other_key);
        assert_opens_with(place, sealing_key);
        assert_int_equal(known(place, sealing_key), SEALING_KEY_IN_FORCE);
        assert_int_equal(known(place, other_key), SEALING_KEY_PREPARED);
        assert_int_equal(known(place, third_key), SEALING_KEY_UNKNOWN);
        assert_opens_with(place, other_key);
        assert_int_equal(known(place, other_key), SEALING_KEY_IN_FORCE);
        assert_int_equal(known(place, sealing_key), SEALING_KEY_UNKNOWN);
        assert_int_equal(store_rewrap_knows(place->store, BYTES(other_key, 31)), -EINVAL);
}

static void a_replacement_at_once_ends_one_that_was_prepared(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        assert_int_equal(store_rewrap(place->store, KEY(third_key)), 0);
        commit(place->store);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        assert_does_not_open_with(place, other_key);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, third_key);
}

/* ---- rolled back ---- */

static int step_prepare(struct store *store) {
        return store_rewrap_prepare(store, KEY(third_key));
}

static int step_at_once(struct store *store) {
        return store_rewrap(store, KEY(third_key));
}

/* Prepared is `other_key`, committed; then one step that does not come to anything, and the same again. */
static void each_step_rolled_back_is_undone(void **state) {
        static int (*const steps[])(struct store *) = { step_prepare, store_rewrap_finish, store_rewrap_cancel,
                                                        step_at_once };
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        for (size_t i = 0; i < ELEMENTS(steps); i++) {
                assert_int_equal(steps[i](place->store), 0);
                store_rollback(place->store);
                assert_int_equal(store_savepoint(place->store), 0);
                assert_int_equal(steps[i](place->store), 0);
                assert_int_equal(store_savepoint_rollback(place->store), 0);
                assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
                commit(place->store);
                assert_all_secrets(place);
                assert_int_equal(store_rewrap_is_open(place->store), 1);
        }
        /* Still known in memory, and what was made meanwhile is covered. */
        assert_int_equal(store_rewrap_finish(place->store), 0);
        store_rollback(place->store);
        assert_opens_with(place, sealing_key);
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
}

static void a_turn_may_go_on_after_a_step_of_it_was_dropped(void **state) {
        struct place *place = *state;

        make(place);
        assert_int_equal(store_savepoint(place->store), 0);
        assert_int_equal(store_rewrap(place->store, KEY(other_key)), 0);
        assert_int_equal(store_savepoint_rollback(place->store), 0);
        assert_int_equal(store_rewrap(place->store, KEY(third_key)), 0);
        store_rollback(place->store); /* to the first of all, not to the one that was dropped */
        assert_int_equal(store_data_key_rotate(place->store, &MOMENT_NONE), 0);
        commit(place->store);
        assert_opens_with(place, sealing_key);
        assert_all_secrets(place);
}

/* ---- an older gatewayd meanwhile ---- */

/* As if it had made the newest one: its statement does not know the columns of this schema. */
static void make_data_key_as_schema_2(struct place *place) {
        place->store = store_close(place->store);
        tamper(place, "UPDATE data_key SET wrapped_next = NULL WHERE id = (SELECT max(id) FROM data_key)");
}

static void a_data_key_that_an_older_gatewayd_made_is_covered_by_the_next_start(void **state) {
        struct place *place = *state;
        struct problem problem = { 0 };

        make(place);
        prepare(place, other_key);
        make_data_key_as_schema_2(place);
        assert_int_equal(open_with(place, other_key, (struct bytes){ 0 }, &problem), -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "older gatewayd"));
        assert_opens_with(place, sealing_key);
        assert_opens_with(place, other_key);
        assert_all_secrets(place);
}

static void the_recovery_key_opens_what_the_new_key_does_not(void **state) {
        struct place *place = *state;
        uint8_t recovery[RECOVERY_KEY_BYTES];
        struct problem problem = { 0 };

        make(place);
        assert_int_equal(store_recovery_new(place->store, recovery), 0);
        prepare(place, other_key);
        make_data_key_as_schema_2(place);
        assert_int_equal(open_with(place, other_key, BYTES(recovery, sizeof recovery), &problem), 0);
        assert_all_secrets(place);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
        assert_does_not_open_with(place, sealing_key);
        assert_opens_with(place, other_key);
}

static void the_files_hold_no_sealing_key(void **state) {
        struct place *place = *state;

        make(place);
        prepare(place, other_key);
        place->store = store_close(place->store);
        assert_false(file_contains(place->path, sealing_key, 32));
        assert_false(file_contains(place->path, other_key, 32));
}

/* Computed once by another implementation (Python's cryptography: HKDF with SHA-256, no salt, info "gatewayd sealing
 * key" with its NUL; X25519): a store prepared by one gatewayd is finished by the next. */
static void the_public_key_of_a_sealing_key_is_what_another_implementation_computes(void **state) {
        static const uint8_t expected[RECOVERY_KEY_BYTES] = { 0xc0, 0xeb, 0x97, 0x62, 0x8a, 0xce, 0xe0, 0x79,
                                                              0x15, 0x57, 0xf8, 0xda, 0x68, 0xc0, 0x19, 0xac,
                                                              0x80, 0xcf, 0xb6, 0x77, 0x24, 0x34, 0x0d, 0xcc,
                                                              0xe0, 0x95, 0x7f, 0x94, 0xf2, 0x73, 0x88, 0x7c };
        uint8_t private_key[RECOVERY_KEY_BYTES], public_key[RECOVERY_KEY_BYTES];

        (void)state;
        assert_int_equal(recovery_pair_of(other_key, "gatewayd sealing key", private_key, public_key), 0);
        assert_memory_equal(public_key, expected, sizeof expected);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_A_FOLDER(once_prepared_either_key_opens),
                IN_A_FOLDER(a_start_with_the_new_key_is_the_second_step),
                IN_A_FOLDER(the_second_step_of_a_start_is_durable_when_the_store_is_open),
                IN_A_FOLDER(finished_the_new_key_is_the_only_one),
                IN_A_FOLDER(cancelled_the_old_key_is_the_only_one),
                IN_A_FOLDER(data_keys_made_while_prepared_open_with_either),
                IN_A_FOLDER(a_damaged_secret_is_passed_over_and_told_and_all_others_move),
                IN_A_FOLDER(prepared_again_the_first_new_key_opens_nothing),
                IN_A_FOLDER(what_an_earlier_start_has_prepared_is_not_finished_without_its_key),
                IN_A_FOLDER(a_key_of_another_size_or_the_one_in_force_is_not_prepared),
                IN_A_FOLDER(the_store_knows_the_key_in_force_and_the_one_prepared_also_after_a_start),
                IN_A_FOLDER(a_replacement_at_once_ends_one_that_was_prepared),
                IN_A_FOLDER(each_step_rolled_back_is_undone),
                IN_A_FOLDER(a_turn_may_go_on_after_a_step_of_it_was_dropped),
                IN_A_FOLDER(a_data_key_that_an_older_gatewayd_made_is_covered_by_the_next_start),
                IN_A_FOLDER(the_recovery_key_opens_what_the_new_key_does_not),
                IN_A_FOLDER(the_files_hold_no_sealing_key),
                cmocka_unit_test(the_public_key_of_a_sealing_key_is_what_another_implementation_computes),
        };

        return cmocka_run_group_tests_name("the sealing key replaced in two steps", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Core's table of sessions. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/core_sessions.h"

static void sessions_are_found_by_handle_and_by_device(void **state) {
        struct session_table *table = session_table_new();
        struct session *s;

        (void)state;
        for (unsigned i = 1; i <= 20000; i++) {
                char device[16];

                snprintf(device, sizeof device, "d%u", i / 2);
                assert_int_equal(session_add(table, (UINT64_C(3) << 32) | i, "kid", device, &s), 0);
        }
        assert_int_equal(session_table_count(table), 20000);
        s = session_find(table, (UINT64_C(3) << 32) | 777);
        assert_string_equal(s->device, "d388");
        assert_null(session_find(table, 777));
        assert_int_equal(session_add(table, (UINT64_C(3) << 32) | 777, "kid", "other", &s), -EEXIST);
        assert_int_equal(session_add(table, 0, "kid", "other", &s), -EEXIST);
        session_table_free(table);
}

static void remove_given(void *userdata, struct session *session) {
        session_remove(userdata, session->handle);
}

static void a_visitor_may_remove_what_it_is_given(void **state) {
        struct session_table *table = session_table_new();
        struct session *s;

        (void)state;
        for (unsigned i = 1; i <= 10; i++)
                assert_int_equal(session_add(table, i, "kid", i % 2 ? "odd" : "even", &s), 0);
        session_each(table, "odd", remove_given, table);
        assert_int_equal(session_table_count(table), 5);
        assert_null(session_find(table, 1));
        assert_non_null(session_find(table, 2));
        session_clear(table);
        assert_int_equal(session_table_count(table), 0);
        session_table_free(table);
}

static void shares_visit_each_session_once(void **state) {
        struct session_table *table = session_table_new();
        struct session *s;

        (void)state;
        for (unsigned i = 1; i <= 5000; i++)
                assert_int_equal(session_add(table, i, "kid", "d", &s), 0);
        for (unsigned share = 0; share < SESSION_SHARES; share++)
                session_each_share(table, share, remove_given, table);
        assert_int_equal(session_table_count(table), 0);
        session_table_free(table);
}

static void a_retransmitted_request_gets_its_answer_for_exchange_lifetime(void **state) {
        struct session_table *table = session_table_new();
        struct reply reply = { .code = CODE_CHANGED, .content_format = FORMAT_CBOR, .max_age_sec = 0 };
        struct remembered *r;
        struct session *s;

        (void)state;
        buffer_append(&reply.payload, TEXT("grant"));
        assert_int_equal(session_add(table, 1, "kid", "d", &s), 0);
        session_remember(s, 100, TEXT("tok"), 1000, 1, &reply);
        r = session_recall(s, 100, TEXT("tok"), 1000 + EXCHANGE_LIFETIME_USEC - 1);
        assert_non_null(r);
        assert_true(bytes_equal(buffer_bytes(&r->reply.payload), TEXT("grant")));
        assert_null(session_recall(s, 100, TEXT("tok"), 1000 + EXCHANGE_LIFETIME_USEC));
        assert_null(session_recall(s, 100, TEXT("kot"), 1000));
        assert_null(session_recall(s, 101, TEXT("tok"), 1000));
        buffer_free(&reply.payload);
        session_table_free(table);
}

static void what_a_failed_turn_answered_is_forgotten(void **state) {
        struct session_table *table = session_table_new();
        struct reply reply = { .code = CODE_CHANGED };
        struct session *s;

        (void)state;
        assert_int_equal(session_add(table, 1, "kid", "d", &s), 0);
        session_remember(s, 1, TEXT(""), 1000, 5, &reply);
        session_remember(s, 2, TEXT(""), 1000, 6, &reply);
        session_forget_attempt(table, 6);
        assert_non_null(session_recall(s, 1, TEXT(""), 1000));
        assert_null(session_recall(s, 2, TEXT(""), 1000));
        session_table_free(table);
}

static void a_session_whose_proof_was_dropped_is_forgotten(void **state) {
        struct session_table *table = session_table_new();
        struct session *s;

        (void)state;
        for (uint64_t turn = 1; turn <= 3; turn++) {
                assert_int_equal(session_add(table, turn, "kid", "sensor-1", &s), 0);
                s->attempt = turn;
        }
        session_forget_attempt(table, 2);
        assert_non_null(session_find(table, 1));
        assert_null(session_find(table, 2));
        assert_non_null(session_find(table, 3));
        assert_int_equal(session_table_count(table), 2);
        session_table_free(table);
}

static void remembered_answers_are_bounded(void **state) {
        struct session_table *table = session_table_new();
        struct reply reply = { .code = CODE_CHANGED };
        unsigned found = 0;
        struct session *s;

        (void)state;
        assert_int_equal(session_add(table, 1, "kid", "d", &s), 0);
        for (uint16_t i = 0; i < 1000; i++)
                session_remember(s, i, TEXT(""), 1000, 1, &reply);
        for (uint16_t i = 0; i < 1000; i++)
                found += session_recall(s, i, TEXT(""), 1000) != NULL;
        assert_int_equal(found, REMEMBERED_MAX);
        session_table_free(table);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sessions_are_found_by_handle_and_by_device),
                cmocka_unit_test(a_visitor_may_remove_what_it_is_given),
                cmocka_unit_test(shares_visit_each_session_once),
                cmocka_unit_test(a_retransmitted_request_gets_its_answer_for_exchange_lifetime),
                cmocka_unit_test(what_a_failed_turn_answered_is_forgotten),
                cmocka_unit_test(a_session_whose_proof_was_dropped_is_forgotten),
                cmocka_unit_test(remembered_answers_are_bounded),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

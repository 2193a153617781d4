/* SPDX-License-Identifier: Apache-2.0 */

/* The gateway's own keys over years, and receipts that verify across the successions of the key that signs them. */

#include "tests/unit/evidence_fixture.h"

#include <errno.h>
#include <openssl/sha.h>

#include "gatewayd/format.h"
#include "gatewayd/keys/own_keys.h"

#define DAY  FIXTURE_DAY
#define YEAR (365 * DAY)

static int setup(void **state) {
        struct evidence_fixture *e;

        if (evidence_setup(state) < 0)
                return -1;
        e = *state;
        e->f->config.keys = (struct keys_config){
                .receipt_every_sec = YEAR,
                .data_every_sec = 90 * DAY,
                .sealing_every_sec = 2 * YEAR,
                .recovery_every_sec = 2 * YEAR,
        };
        assert_int_equal(own_keys_open(e->turn), 0);
        fixture_commit(e->f);
        return 0;
}

static struct due_time tick(struct evidence_fixture *e) {
        struct due_time next;

        assert_int_equal(own_keys_tick(e->turn, &next), 0);
        return next;
}

/* Until nothing is due at that moment any more. */
static struct due_time settle(struct evidence_fixture *e) {
        struct due_time next;

        do {
                next = tick(e);
                fixture_commit(e->f);
                fixture_pass(e->f, 1);
        } while (next.powered_sec <= e->turn->now.powered_sec);
        return next;
}

static struct own_key row_of(struct evidence_fixture *e, enum own_key_kind kind) {
        struct own_key row;

        assert_int_equal(own_key_get(e->f->store, kind, &row), 0);
        return row;
}

/* ---- when ---- */

static void a_key_is_due_by_whichever_clock_says_so_first(void **state) {
        const struct own_key key = { .generation = 1, .made = { 1000, 500, CLOCK_SYNCHRONIZED, true } };
        struct moment now = { 1099, 599, CLOCK_SYNCHRONIZED, true };
        struct own_key_step step = own_key_next(&key, 100, true, &now);

        (void)state;
        assert_int_equal(step.action, OWN_KEY_WAIT);
        assert_int_equal(step.next.wall, 1100);
        assert_int_equal(step.next.powered_sec, 600);
        now.wall = 1100;
        assert_int_equal(own_key_next(&key, 100, true, &now).action, OWN_KEY_ROTATE);
        now.wall = 1000;
        now.powered_sec = 600;
        now.quality = CLOCK_UNKNOWN;
        assert_int_equal(own_key_next(&key, 100, true, &now).action, OWN_KEY_ROTATE);
        now.wall = INT64_MAX; /* no step of the clock jumps over it */
        assert_int_equal(own_key_next(&key, 100, true, &now).action, OWN_KEY_ROTATE);
}

static void a_key_without_a_schedule_is_never_due(void **state) {
        const struct own_key key = { .generation = 1, .made = { 1000, 500, CLOCK_SYNCHRONIZED, true } };
        const struct moment now = { INT64_MAX, INT64_MAX, CLOCK_SYNCHRONIZED, true };
        struct own_key_step step = own_key_next(&key, 0, true, &now);

        (void)state;
        assert_int_equal(step.action, OWN_KEY_WAIT);
        assert_int_equal(step.next.wall, INT64_MAX);
        assert_int_equal(step.next.powered_sec, INT64_MAX);
        assert_int_equal(own_key_next(&key, INT64_MAX, true, &(struct moment){ 5000, 5000, 2, true }).action,
                         OWN_KEY_WAIT);
}

static void a_reminder_is_told_once_for_each_key(void **state) {
        struct own_key key = { .generation = 1, .made = { 1000, 500, CLOCK_SYNCHRONIZED, true } };
        const struct moment now = { 9000, 9000, CLOCK_SYNCHRONIZED, true };

        (void)state;
        assert_int_equal(own_key_next(&key, 100, false, &now).action, OWN_KEY_REMIND);
        key.told = OWN_KEY_TOLD_DUE;
        assert_int_equal(own_key_next(&key, 100, false, &now).action, OWN_KEY_WAIT);
        assert_int_equal(own_key_next(&key, 100, true, &now).action, OWN_KEY_ROTATE);
}

/* ---- rows ---- */

static void keys_of_an_older_gatewayd_count_from_when_they_are_first_seen(void **state) {
        struct evidence_fixture *e = *state;
        struct own_key row = row_of(e, OWN_KEY_RECEIPT), none;
        char kid[2 * RECEIPT_KID_BYTES + 1];

        custodian_kid_text(&e->custodian, kid);
        assert_int_equal(row.generation, 1);
        assert_string_equal(row.id, kid);
        assert_int_equal(row.made.powered_sec, e->turn->now.powered_sec);
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 1);
        assert_int_equal(row_of(e, OWN_KEY_SEALING).generation, 1);
        assert_int_equal(own_key_get(e->f->store, OWN_KEY_RECOVERY, &none), -ENOENT);
        fixture_pass(e->f, DAY);
        assert_int_equal(own_keys_open(e->turn), 0);
        assert_false(store_is_changed(e->f->store));
        assert_int_equal(row_of(e, OWN_KEY_RECEIPT).made.powered_sec, row.made.powered_sec);
}

static void a_recovery_key_made_without_its_row_gets_one_at_the_next_start(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t private_key[RECOVERY_KEY_BYTES];
        struct own_key row;

        assert_int_equal(store_recovery_new(e->f->store, private_key), 0);
        assert_int_equal(own_keys_open(e->turn), 0);
        row = row_of(e, OWN_KEY_RECOVERY);
        assert_int_equal(row.generation, 1);
        assert_int_equal(strlen(row.id), 64);
        assert_int_equal(store_recovery_new(e->f->store, private_key), 0);
        assert_int_equal(own_keys_recovery_made(e->turn), 0);
        assert_int_equal(row_of(e, OWN_KEY_RECOVERY).generation, 2);
        assert_string_not_equal(row_of(e, OWN_KEY_RECOVERY).id, row.id);
}

static void a_start_with_the_prepared_sealing_key_tells_of_it(void **state) {
        struct evidence_fixture *e = *state;
        static const uint8_t next[32] = "the next key-encryption key....";

        assert_int_equal(store_rewrap_prepare(e->f->store, BYTES(next, 32)), 0);
        assert_int_equal(own_keys_sealing_prepared(e->turn), 0);
        assert_int_equal(own_keys_open(e->turn), 0);
        assert_int_equal(row_of(e, OWN_KEY_SEALING).generation, 1);
        assert_int_equal(store_rewrap_finish(e->f->store), 0);
        assert_int_equal(own_keys_open(e->turn), 0);
        assert_int_equal(row_of(e, OWN_KEY_SEALING).generation, 2);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_ROTATED), 1);
        assert_int_equal(own_keys_open(e->turn), 0);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_ROTATED), 1);
}

/* ---- receipts ---- */

struct link {
        struct cose_sign1 sign1;
        uint8_t receipt[1024], evidence[256];
        size_t size, evidence_size;
        char device[DEVICE_ID_MAX + 1];
        int32_t format;
};

static int copy(void *userdata, const struct custody *custody) {
        struct link *link = userdata;

        assert_true(custody->receipt.size <= sizeof link->receipt);
        memcpy(link->receipt, custody->receipt.data, custody->receipt.size);
        link->size = custody->receipt.size;
        link->evidence_size =
                custody->evidence.size < sizeof link->evidence ? custody->evidence.size : sizeof link->evidence;
        memcpy(link->evidence, custody->evidence.data, link->evidence_size);
        memcpy(link->device, custody->device, sizeof link->device);
        link->format = custody->content_format;
        return 0;
}

/* The P-256 key of a COSE_Key (RFC 9053 §7.1.1). */
static EVP_PKEY *key_of(const struct link *link) {
        struct bytes key = BYTES(link->evidence, link->evidence_size), x, y;
        uint8_t spki[91] = { 0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                             0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04 };
        const uint8_t *at = spki;
        EVP_PKEY *found;

        assert_int_equal(cbor_check(key, NULL), 0);
        assert_true(cbor_view_bytes(cbor_view_member(key, -2), &x) && x.size == 32);
        assert_true(cbor_view_bytes(cbor_view_member(key, -3), &y) && y.size == 32);
        memcpy(spki + 27, x.data, 32);
        memcpy(spki + 59, y.data, 32);
        found = d2i_PUBKEY(NULL, &at, sizeof spki);
        assert_non_null(found);
        return found;
}

/* Follows the chain from `pinned` as a verifier does, who knows no other key. Returns the successions met. */
static unsigned verify_chain(struct evidence_fixture *e, EVP_PKEY *pinned) {
        EVP_PKEY *key = pinned;
        uint8_t hash[32] = { 0 };
        struct store_meta meta;
        unsigned successions = 0;

        EVP_PKEY_up_ref(key);
        assert_int_equal(store_meta_get(e->f->store, &meta), 0);
        for (uint64_t i = 1; i < meta.next_sequence; i++) {
                struct link link = { 0 };
                struct bytes previous;

                assert_int_equal(custody_get(e->f->store, i, copy, &link), 0);
                assert_int_equal(cose_sign1_parse(BYTES(link.receipt, link.size), &link.sign1, NULL), 0);
                assert_int_equal(cose_sign1_verify(&link.sign1, key, NULL), 0);
                assert_true(cbor_view_bytes(cbor_view_member(link.sign1.payload, RECEIPT_PREVIOUS), &previous));
                assert_memory_equal(previous.data, hash, 32);
                SHA256(link.receipt, link.size, hash);
                if (link.device[0])
                        continue;
                assert_int_equal(link.format, FORMAT_COSE_KEY);
                EVP_PKEY_free(key);
                key = key_of(&link);
                successions++;
        }
        EVP_PKEY_free(key);
        return successions;
}

static void receipts_verify_across_years_of_receipt_keys_for_who_pinned_the_first(void **state) {
        struct evidence_fixture *e = *state;
        EVP_PKEY *pinned = e->custodian.key;

        EVP_PKEY_up_ref(pinned);
        for (int month = 0; month < 10 * 12; month++) {
                assert_int_equal(evidence_give(e, &e->identity, NULL) > 0, 1);
                fixture_pass(e->f, YEAR / 12);
                settle(e);
        }
        assert_int_equal(row_of(e, OWN_KEY_RECEIPT).generation, 11);
        assert_int_equal(verify_chain(e, pinned), 10);
        assert_int_equal(EVP_PKEY_eq(pinned, e->custodian.key), 0);
        EVP_PKEY_free(pinned);
}

static void the_old_receipt_key_is_overwritten_in_the_turn_of_the_succession(void **state) {
        struct evidence_fixture *e = *state;
        _cleanup_(buffer_free) struct buffer before = { 0 }, after = { 0 };
        char kid[2 * RECEIPT_KID_BYTES + 1];
        struct custodian started;

        assert_int_equal(store_own_secret_get(e->f->store, "receipt-key", &before), 0);
        fixture_pass(e->f, YEAR);
        settle(e);
        assert_int_equal(store_own_secret_get(e->f->store, "receipt-key", &after), 0);
        assert_false(bytes_equal(buffer_bytes(&before), buffer_bytes(&after)));
        assert_int_equal(custodian_open(e->turn, "gateway-1", &started), 0);
        custodian_kid_text(&started, kid);
        assert_string_equal(kid, row_of(e, OWN_KEY_RECEIPT).id);
        custodian_close(&started);
}

static void a_dropped_turn_keeps_the_old_receipt_key(void **state) {
        struct evidence_fixture *e = *state;
        EVP_PKEY *first = e->custodian.key;

        EVP_PKEY_up_ref(first);
        fixture_pass(e->f, YEAR);
        for (int i = 0; i < 3; i++) {
                tick(e);
                assert_int_equal(row_of(e, OWN_KEY_RECEIPT).generation, 2);
                /* A receipt of the same turn is signed by the key that this turn made. */
                assert_int_equal(evidence_give(e, &e->identity, NULL), 2);
                assert_int_equal(EVP_PKEY_eq(e->custodian.key, first), 0);
                store_rollback(e->f->store);
                turn_clear(e->turn);
        }
        assert_int_equal(row_of(e, OWN_KEY_RECEIPT).generation, 1);
        assert_int_equal(evidence_give(e, &e->identity, NULL), 1);
        assert_int_equal(EVP_PKEY_eq(e->custodian.key, first), 1);
        fixture_commit(e->f);
        settle(e);
        evidence_give(e, &e->identity, NULL);
        assert_int_equal(verify_chain(e, first), 1);
        EVP_PKEY_free(first);
}

static void a_full_backlog_does_not_hold_up_the_succession(void **state) {
        struct evidence_fixture *e = *state;
        EVP_PKEY *first = e->custodian.key;

        EVP_PKEY_up_ref(first);
        evidence_give(e, &e->identity, NULL);
        e->f->config.backlog_records = 1;
        e->f->config.backlog_bytes = 1;
        fixture_pass(e->f, YEAR);
        settle(e);
        assert_int_equal(row_of(e, OWN_KEY_RECEIPT).generation, 2);
        assert_int_equal(verify_chain(e, first), 1);
        EVP_PKEY_free(first);
}

static void what_upstream_says_of_a_succession_concerns_no_device(void **state) {
        struct evidence_fixture *e = *state;
        struct backlog backlog;

        fixture_pass(e->f, YEAR);
        settle(e);
        assert_int_equal(relay_result(e->turn, 1, TIER_CONTRAINDICATED, (struct bytes){ 0 }), 0);
        assert_int_equal(relay_delivered(e->turn, 1), 0);
        assert_int_equal(custody_backlog(e->f->store, &backlog), 0);
        assert_int_equal(backlog.records, 0);
        assert_int_equal(fixture_device(e->f, "sensor-1").standing, STANDING_OPERATIONAL);
}

/* ---- data keys ---- */

static struct data_key_facts facts_of(struct evidence_fixture *e) {
        struct data_key_facts facts;

        assert_int_equal(store_data_key_facts(e->f->store, &facts), 0);
        return facts;
}

static void all_secrets_move_to_each_new_data_key_a_portion_a_tick(void **state) {
        struct evidence_fixture *e = *state;
        struct secret before, after;
        unsigned ticks = 0;
        char id[32];

        for (int i = 0; i < 200; i++) {
                snprintf(id, sizeof id, "meter-%d", i);
                fixture_add(e->f, id, FIXTURE_PLAIN);
        }
        fixture_commit(e->f);
        assert_int_equal(credential_secret(e->f->store, "meter-7", &before), 0);
        fixture_pass(e->f, 90 * DAY);
        assert_int_equal(tick(e).powered_sec, e->turn->now.powered_sec + 1);
        fixture_commit(e->f);
        assert_int_equal(facts_of(e).count, 2);
        for (; facts_of(e).count > 1; ticks++) {
                tick(e);
                fixture_commit(e->f);
        }
        assert_in_range(ticks, 200 / 64, 200 / 64 + 3);
        assert_int_equal(store_reseal_left(e->f->store), 0);
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 2);
        assert_int_equal(credential_secret(e->f->store, "meter-7", &after), 0);
        assert_true(secret_equal(&before, &after));
        secret_wipe(&before);
        secret_wipe(&after);
}

static void the_next_data_key_waits_until_everything_is_under_the_last(void **state) {
        struct evidence_fixture *e = *state;
        char id[32];

        for (int i = 0; i < 150; i++) {
                snprintf(id, sizeof id, "meter-%d", i);
                fixture_add(e->f, id, FIXTURE_PLAIN);
        }
        fixture_commit(e->f);
        fixture_pass(e->f, 90 * DAY);
        for (int i = 0; i < 3; i++) {
                tick(e);
                fixture_commit(e->f);
                fixture_pass(e->f, 90 * DAY); /* the gateway was asleep */
        }
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 2);
        settle(e);
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 3);
}

static void ten_years_of_data_keys_leave_one(void **state) {
        struct evidence_fixture *e = *state;

        for (int quarter = 0; quarter < 40; quarter++) {
                fixture_pass(e->f, 90 * DAY);
                settle(e);
                assert_int_equal(facts_of(e).count, 1);
        }
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 41);
        assert_int_equal(evidence_give(e, &e->identity, NULL) > 0, 1);
}

/* ---- reminders, trouble ---- */

static void operators_are_reminded_once_of_keys_that_only_they_can_change(void **state) {
        struct evidence_fixture *e = *state;
        uint8_t private_key[RECOVERY_KEY_BYTES];

        assert_int_equal(store_recovery_new(e->f->store, private_key), 0);
        assert_int_equal(own_keys_recovery_made(e->turn), 0);
        fixture_pass(e->f, YEAR);
        assert_int_equal(own_keys_sealing_changed(e->turn), 0);
        fixture_pass(e->f, YEAR);
        settle(e);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_DUE), 1); /* the recovery key */
        fixture_pass(e->f, YEAR);
        settle(e);
        settle(e);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_DUE), 2);
        fixture_pass(e->f, 5 * YEAR);
        settle(e);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_DUE), 2);
        assert_int_equal(store_recovery_new(e->f->store, private_key), 0);
        assert_int_equal(own_keys_recovery_made(e->turn), 0);
        fixture_pass(e->f, 2 * YEAR);
        settle(e);
        assert_int_equal(fixture_audited(e->f, NULL, EVENT_GATEWAY_KEY_DUE), 3);
}

static void trouble_with_one_key_is_taken_back_and_the_others_go_on(void **state) {
        struct evidence_fixture *e = *state;
        struct due_time next;
        struct store_meta before, after;

        assert_int_equal(store_own_secret_put(e->f->store, "receipt-key", TEXT("no key")), 0);
        /* What signs is read anew when the row names another key. */
        struct own_key row = row_of(e, OWN_KEY_RECEIPT);

        snprintf(row.id, sizeof row.id, "another");
        assert_int_equal(own_key_put(e->f->store, &row), 0);
        fixture_commit(e->f);
        fixture_pass(e->f, YEAR);
        assert_int_equal(store_meta_get(e->f->store, &before), 0);
        assert_int_equal(own_keys_tick(e->turn, &next), -EBADMSG);
        fixture_commit(e->f);
        assert_int_equal(store_meta_get(e->f->store, &after), 0);
        assert_int_equal(after.next_sequence, before.next_sequence);
        assert_int_equal(row_of(e, OWN_KEY_RECEIPT).generation, 1);
        assert_int_equal(row_of(e, OWN_KEY_DATA).generation, 2);
}

static void without_schedules_nothing_is_ever_due(void **state) {
        struct evidence_fixture *e = *state;
        struct due_time next;

        e->f->config.keys = (struct keys_config){ 0 };
        fixture_pass(e->f, 30 * YEAR);
        next = tick(e);
        assert_int_equal(next.wall, INT64_MAX);
        assert_int_equal(next.powered_sec, INT64_MAX);
        assert_false(store_is_changed(e->f->store));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, evidence_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_is_due_by_whichever_clock_says_so_first),
                cmocka_unit_test(a_key_without_a_schedule_is_never_due),
                cmocka_unit_test(a_reminder_is_told_once_for_each_key),
                TEST(keys_of_an_older_gatewayd_count_from_when_they_are_first_seen),
                TEST(a_recovery_key_made_without_its_row_gets_one_at_the_next_start),
                TEST(a_start_with_the_prepared_sealing_key_tells_of_it),
                TEST(receipts_verify_across_years_of_receipt_keys_for_who_pinned_the_first),
                TEST(the_old_receipt_key_is_overwritten_in_the_turn_of_the_succession),
                TEST(a_dropped_turn_keeps_the_old_receipt_key),
                TEST(a_full_backlog_does_not_hold_up_the_succession),
                TEST(what_upstream_says_of_a_succession_concerns_no_device),
                TEST(all_secrets_move_to_each_new_data_key_a_portion_a_tick),
                TEST(the_next_data_key_waits_until_everything_is_under_the_last),
                TEST(ten_years_of_data_keys_leave_one),
                TEST(operators_are_reminded_once_of_keys_that_only_they_can_change),
                TEST(trouble_with_one_key_is_taken_back_and_the_others_go_on),
                TEST(without_schedules_nothing_is_ever_due),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

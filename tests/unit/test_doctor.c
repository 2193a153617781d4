/* SPDX-License-Identifier: Apache-2.0 */

/* What deserves attention, case by case. */

#include "support.h"

#include "gatewayd/operator/gatewayctl_doctor.h"

/* ---- a gateway and devices made of words ---- */

static void set(struct value *map, const char *key, struct value value) {
        for (size_t i = 0; i < map->count; i++)
                if (strcmp(map->keys[i], key) == 0) {
                        value_free(&map->items[i]);
                        map->items[i] = value;
                        return;
                }
        map->kind = VALUE_MAP;
        map->keys = reallocarray(map->keys, map->count + 1, sizeof *map->keys);
        map->items = reallocarray(map->items, map->count + 1, sizeof *map->items);
        assert_non_null(map->keys);
        assert_non_null(map->items);
        map->keys[map->count] = xstrdup(key);
        map->items[map->count++] = value;
}

static void set_text(struct value *map, const char *key, const char *text) {
        set(map, key, (struct value){ .kind = VALUE_TEXT, .text = xstrdup(text) });
}

static void set_number(struct value *map, const char *key, uint64_t number) {
        set(map, key, (struct value){ .kind = VALUE_NUMBER, .number = number });
}

static void set_signed(struct value *map, const char *key, int64_t number) {
        set(map, key, (struct value){ .kind = VALUE_SIGNED, .integer = number });
}

static void set_bool(struct value *map, const char *key, bool boolean) {
        set(map, key, (struct value){ .kind = VALUE_BOOL, .boolean = boolean });
}

struct gateway {
        struct value status, devices;
        struct findings findings;
};

static struct value *section(struct gateway *g, const char *name) {
        return (struct value *)value_member(&g->status, name);
}

static struct value *device(struct gateway *g, const char *id, const char *state) {
        struct value *devices = &g->devices, *added;

        devices->items = reallocarray(devices->items, devices->count + 1, sizeof *devices->items);
        assert_non_null(devices->items);
        added = &devices->items[devices->count++];
        *added = (struct value){ .kind = VALUE_MAP };
        set_text(added, "id", id);
        set_text(added, "state", state);
        set_text(added, "tier", "none");
        set_signed(added, "last_seen", 1000);
        return added;
}

/* Nothing to complain of. */
static int set_up(void **state) {
        static const char *const sections[] = { "gateway", "clock", "south", "north",  "backlog",
                                                "horizon", "store", "ca",    "backup", "keys" };
        struct gateway *g = xcalloc(1, sizeof *g);

        g->devices.kind = VALUE_LIST;
        for (size_t i = 0; i < ELEMENTS(sections); i++)
                set(&g->status, sections[i], (struct value){ .kind = VALUE_MAP });
        set_text(section(g, "gateway"), "sandbox", "full");
        set_text(section(g, "gateway"), "sealing_key", "credential");
        set_bool(section(g, "gateway"), "has_recovery_key", true);
        set_text(section(g, "clock"), "quality", "synchronized");
        set_bool(section(g, "clock"), "is_trusted", true);
        set_bool(section(g, "south"), "is_attached", true);
        set_signed(section(g, "ca"), "generation", 1);
        set_bool(section(g, "ca"), "is_key_available", true);
        set_text(section(g, "north"), "verifier", "collector");
        set_text(section(g, "north"), "uplink", "up");
        device(g, "good", "operational");
        *state = g;
        return 0;
}

static int tear_down(void **state) {
        struct gateway *g = *state;

        value_free(&g->status);
        value_free(&g->devices);
        free(g);
        return 0;
}

static void expect_one(struct gateway *g, enum severity severity, const char *part) {
        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 1);
        assert_int_equal(g->findings.list[0].severity, severity);
        assert_non_null(strstr(g->findings.list[0].what, part));
        assert_true(strlen(g->findings.list[0].remedy) > 10);
}

/* ---- cases ---- */

static void a_healthy_gateway_has_no_findings(void **state) {
        struct gateway *g = *state;

        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 0);
}

static void a_store_that_cannot_be_written_is_critical(void **state) {
        set_bool(section(*state, "store"), "is_degraded", true);
        expect_one(*state, CRITICAL, "nothing can be stored");
}

static void a_ca_that_ends_without_a_successor_is_critical(void **state) {
        set_bool(section(*state, "ca"), "is_late", true);
        set_signed(section(*state, "ca"), "ends_in", 86400);
        expect_one(*state, CRITICAL, "has no successor");
        set_text(section(*state, "ca"), "successor", "announced");
        a_healthy_gateway_has_no_findings(state);
}

static void a_ca_key_that_is_away_is_critical(void **state) {
        set_bool(section(*state, "ca"), "is_key_available", false);
        expect_one(*state, CRITICAL, "nothing is issued");
}

static void a_stale_crl_and_a_request_that_waits_are_warned_of(void **state) {
        set_bool(section(*state, "ca"), "is_crl_stale", true);
        expect_one(*state, WARNING, "revoked since");
        set_bool(section(*state, "ca"), "is_crl_stale", false);
        set_text(section(*state, "ca"), "successor", "requested");
        expect_one(*state, WARNING, "owner's PKI");
}

static void a_gateway_without_a_ca_lacks_nothing(void **state) {
        set_signed(section(*state, "ca"), "generation", 0);
        set_bool(section(*state, "ca"), "is_key_available", false);
        a_healthy_gateway_has_no_findings(state);
}

static void an_old_backup_is_a_warning_and_devices_that_a_restore_misses_a_notice(void **state) {
        set_bool(section(*state, "backup"), "is_old", true);
        set_text(section(*state, "backup"), "text", "the last one is 31 days old; a profile rotates every 30 days");
        expect_one(*state, WARNING, "31 days old");
        set_bool(section(*state, "backup"), "is_old", false);
        set_number(section(*state, "backup"), "missing", 3);
        expect_one(*state, NOTICE, "3 devices have not come");
}

static void a_missing_south_is_critical(void **state) {
        set_bool(section(*state, "south"), "is_attached", false);
        expect_one(*state, CRITICAL, "not there");
}

static void a_weak_sandbox_and_refused_calls_are_warnings(void **state) {
        set_text(section(*state, "gateway"), "sandbox", "weak");
        expect_one(*state, WARNING, "without Landlock");
        set_text(section(*state, "gateway"), "sandbox", "full");
        set_number(section(*state, "gateway"), "sandbox_violations", 3);
        expect_one(*state, WARNING, "3 system calls");
}

static void a_sealing_key_in_a_file_is_a_warning(void **state) {
        set_text(section(*state, "gateway"), "sealing_key", "file");
        expect_one(*state, WARNING, "whoever copies both");
}

static void a_missing_recovery_key_is_a_notice(void **state) {
        set_bool(section(*state, "gateway"), "has_recovery_key", false);
        expect_one(*state, NOTICE, "recovery key");
}

static void an_unknown_clock_is_a_warning_and_a_held_jump_a_notice(void **state) {
        set_bool(section(*state, "clock"), "is_trusted", false);
        expect_one(*state, NOTICE, "jumped ahead");
        set_text(section(*state, "clock"), "quality", "unknown");
        expect_one(*state, WARNING, "time is not known");
}

static void an_uplink_that_is_down_is_a_warning_until_the_horizon_is_near(void **state) {
        struct gateway *g = *state;

        set_text(section(g, "north"), "uplink", "down");
        set_text(section(g, "north"), "reason", "no route to host");
        set_number(section(g, "backlog"), "records", 1234);
        set_signed(section(g, "horizon"), "seconds", 40 * 86400);
        expect_one(g, WARNING, "no route to host; 1,234 records wait");
        set_signed(section(g, "horizon"), "seconds", 3 * 86400);
        set_text(section(g, "horizon"), "first", "disk");
        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 2);
        assert_int_equal(g->findings.list[0].severity, CRITICAL);
        assert_int_equal(g->findings.list[1].severity, CRITICAL);
        assert_non_null(strstr(g->findings.list[1].what, "in 3d without an uplink this gives out: disk"));
}

static void a_short_horizon_is_no_matter_while_the_uplink_is_up(void **state) {
        struct gateway *g = *state;

        set_signed(section(g, "horizon"), "seconds", 3600);
        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 0);
}

static void evidence_that_nobody_fetches_is_a_notice(void **state) {
        set_text(section(*state, "north"), "verifier", "none");
        set_number(section(*state, "backlog"), "records", 5);
        expect_one(*state, NOTICE, "nobody fetches them");
}

static void keys_that_only_people_can_change_are_named_when_they_are_due(void **state) {
        struct gateway *g = *state;

        set_bool(section(g, "keys"), "is_sealing_due", true);
        expect_one(g, NOTICE, "the sealing key is older");
        set_bool(section(g, "keys"), "is_sealing_due", false);
        set_bool(section(g, "keys"), "is_recovery_due", true);
        expect_one(g, NOTICE, "the recovery key is older");
}

static void a_sealing_key_that_is_only_prepared_is_a_warning_with_what_puts_it_into_force(void **state) {
        struct gateway *g = *state;

        set_bool(section(g, "keys"), "is_sealing_prepared", true);
        expect_one(g, WARNING, "the one before opens the store as well");
        assert_non_null(strstr(g->findings.list[0].remedy, "systemctl restart"));
}

static void secrets_that_do_not_move_to_the_newest_data_key_are_a_warning(void **state) {
        struct gateway *g = *state;

        set_number(section(g, "keys"), "reseal_left", 7);
        set_signed(section(g, "keys"), "reseal_for", 3600);
        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 0);
        set_signed(section(g, "keys"), "reseal_for", 3 * 86400);
        expect_one(g, WARNING, "7 secrets have waited 3d");
}

static void damaged_secrets_are_critical_and_wait_for_nothing(void **state) {
        struct gateway *g = *state;

        set_number(section(g, "keys"), "reseal_left", 2);
        set_number(section(g, "keys"), "reseal_damaged", 2);
        set_signed(section(g, "keys"), "reseal_for", 3 * 86400);
        expect_one(g, CRITICAL, "2 secrets in the store do not fit their seal");
        assert_non_null(strstr(g->findings.list[0].remedy, "secret-damaged"));
}

static void paused_rotations_are_a_notice(void **state) {
        set_number(section(*state, "keys"), "pauses", 1);
        set_text(section(*state, "keys"), "paused", "profile pumps");
        expect_one(*state, NOTICE, "rotations are paused: profile pumps");
}

static void parked_records_are_a_warning(void **state) {
        set_number(section(*state, "north"), "parked", 2);
        expect_one(*state, WARNING, "2 records were refused upstream");
}

static void each_state_that_stops_a_device_is_named(void **state) {
        static const struct {
                const char *state, *said;
                enum severity severity;
        } cases[] = {
                { "needs-visit", "1 device with compromised keys and no other way", CRITICAL },
                { "quarantined", "1 device in quarantine", CRITICAL },
                { "restricted", "1 device restricted", WARNING },
        };
        struct gateway *g = *state;
        struct value *bad = device(g, "bad", "operational");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                set_text(bad, "state", cases[i].state);
                expect_one(g, cases[i].severity, cases[i].said);
                assert_non_null(strstr(g->findings.list[0].what, ": bad"));
        }
        set_text(bad, "state", "revoked");
        doctor_examine(&g->status, &g->devices, &g->findings);
        assert_int_equal(g->findings.count, 0);
}

static void what_is_wrong_with_a_device_that_works_is_named(void **state) {
        struct gateway *g = *state;
        struct value *bad = device(g, "bad", "operational");

        set_bool(bad, "is_conflicted", true);
        expect_one(g, CRITICAL, "two holders?");
        set_bool(bad, "is_conflicted", false);
        set_bool(bad, "is_compromised", true);
        expect_one(g, WARNING, "until they attest anew");
        set_bool(bad, "is_compromised", false);
        set_text(bad, "tier", "contraindicated");
        expect_one(g, CRITICAL, "software is not what it should be");
        set_text(bad, "tier", "affirming");
        set_signed(bad, "late_in", -1);
        expect_one(g, WARNING, "past the latest time");
        set_signed(bad, "late_in", 5);
        set_signed(bad, "attest_in", -1);
        set_bool(bad, "has_attestation_key", true);
        expect_one(g, WARNING, "without the evidence that was due");
        set_signed(bad, "attest_in", 5);
        set_bool(bad, "has_attestation_key", false);
        expect_one(g, WARNING, "without an attestation key");
        set_bool(bad, "has_attestation_key", true);
        set_number(bad, "handshakes_without_forward_secrecy", 1);
        expect_one(g, NOTICE, "without forward secrecy");
        set_number(bad, "handshakes_without_forward_secrecy", 0);
        set_number(bad, "dropped_grants", 1);
        expect_one(g, NOTICE, "again and again");
        set_number(bad, "dropped_grants", 0);
        set_number(bad, "reset_window", 60);
        expect_one(g, NOTICE, "open reset window");
}

static void a_device_that_never_came_is_told_from_one_that_keeps_its_factory_key(void **state) {
        struct gateway *g = *state;
        struct value *young = device(g, "young", "registered");

        expect_one(g, WARNING, "still with their factory key: young");
        set_signed(young, "last_seen", 0);
        expect_one(g, NOTICE, "never connected: young");
}

static void many_devices_are_counted_and_some_named(void **state) {
        struct gateway *g = *state;

        for (int i = 0; i < 1500; i++) {
                char id[16];

                snprintf(id, sizeof id, "q%d", i);
                device(g, id, "quarantined");
        }
        expect_one(g, CRITICAL, "1,500 devices in quarantine: q0, q1, q2, q3, q4, …");
}

static void ids_of_the_greatest_length_fit(void **state) {
        struct gateway *g = *state;
        char id[65];

        memset(id, 'x', 64);
        id[64] = 0;
        for (int i = 0; i < 6; i++)
                device(g, id, "quarantined");
        expect_one(g, CRITICAL, id);
        assert_non_null(strstr(g->findings.list[0].what, "…"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_healthy_gateway_has_no_findings),
                TEST(a_store_that_cannot_be_written_is_critical),
                TEST(an_old_backup_is_a_warning_and_devices_that_a_restore_misses_a_notice),
                TEST(a_missing_south_is_critical),
                TEST(a_ca_that_ends_without_a_successor_is_critical),
                TEST(a_ca_key_that_is_away_is_critical),
                TEST(a_stale_crl_and_a_request_that_waits_are_warned_of),
                TEST(a_gateway_without_a_ca_lacks_nothing),
                TEST(a_weak_sandbox_and_refused_calls_are_warnings),
                TEST(a_sealing_key_in_a_file_is_a_warning),
                TEST(a_missing_recovery_key_is_a_notice),
                TEST(an_unknown_clock_is_a_warning_and_a_held_jump_a_notice),
                TEST(an_uplink_that_is_down_is_a_warning_until_the_horizon_is_near),
                TEST(a_short_horizon_is_no_matter_while_the_uplink_is_up),
                TEST(evidence_that_nobody_fetches_is_a_notice),
                TEST(keys_that_only_people_can_change_are_named_when_they_are_due),
                TEST(a_sealing_key_that_is_only_prepared_is_a_warning_with_what_puts_it_into_force),
                TEST(secrets_that_do_not_move_to_the_newest_data_key_are_a_warning),
                TEST(damaged_secrets_are_critical_and_wait_for_nothing),
                TEST(paused_rotations_are_a_notice),
                TEST(parked_records_are_a_warning),
                TEST(each_state_that_stops_a_device_is_named),
                TEST(what_is_wrong_with_a_device_that_works_is_named),
                TEST(a_device_that_never_came_is_told_from_one_that_keeps_its_factory_key),
                TEST(many_devices_are_counted_and_some_named),
                TEST(ids_of_the_greatest_length_fit),
        };

        return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The control socket with a scripted core behind it: real domain code on a real store, but the test
 * says when a turn has passed its barrier. Client and server share one event loop. */

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-bus.h>

#include "gatewayd/operator/control.h"
#include "gatewayd/operator/gatewayctl_value.h"
#include "tests/unit/devices_fixture.h"

#define PSK "hex:000102030405060708090a0b0c0d0e0f"

struct answer_got {
        bool has_come;
        char error[64], text[512];
        struct value values[3];
        size_t count;
};

struct bench {
        struct fixture *f;
        sd_event *event;
        struct control *control;
        sd_bus *client;
        char folder[64], path[96];
        /* What core would hold until the barrier. */
        bool is_held;
        int commit_error;
        struct {
                void (*done)(void *arg, int error);
                void *arg;
        } waiting[16];
        size_t waiting_count, turns, rollbacks;
        char actor[32];
        size_t lines, events;
        size_t effects; /* what the last turn wanted to say */
        char line[256];
        int relay_result;
        unsigned relayed;
};

/* ---- the scripted core ---- */

static struct turn *bench_turn(void *userdata, const char *actor) {
        struct bench *bench = userdata;

        bench->turns++;
        if (strcmp(actor, "monitor") != 0)
                snprintf(bench->actor, sizeof bench->actor, "%s", actor);
        bench->f->turn.actor = actor;
        return &bench->f->turn;
}

/* The actor's name was lent for the turn. */
static void end_turn(struct bench *bench, bool is_kept) {
        bench->effects = bench->f->turn.effect_count;
        if (is_kept)
                fixture_commit(bench->f);
        else {
                store_rollback(bench->f->store);
                turn_clear(&bench->f->turn);
        }
        bench->f->turn.actor = "test";
}

static void bench_rollback(void *userdata) {
        struct bench *bench = userdata;

        end_turn(bench, false);
        bench->rollbacks++;
}

static void bench_commit_then(void *userdata, void (*done)(void *arg, int error), void *arg) {
        struct bench *bench = userdata;

        if (bench->commit_error != 0) {
                end_turn(bench, false);
                done(arg, bench->commit_error);
                return;
        }
        end_turn(bench, true);
        if (!bench->is_held) {
                done(arg, 0);
                return;
        }
        assert_true(bench->waiting_count < ELEMENTS(bench->waiting));
        bench->waiting[bench->waiting_count].done = done;
        bench->waiting[bench->waiting_count++].arg = arg;
}

static void pass_barrier(struct bench *bench) {
        for (size_t i = 0; i < bench->waiting_count; i++)
                bench->waiting[i].done(bench->waiting[i].arg, 0);
        bench->waiting_count = 0;
}

static void bench_status(void *userdata, struct control_status *ret) {
        (void)userdata;
        *ret = (struct control_status){
                .uptime_sec = 5,
                .is_uplink_known = true,
                .uplink_reason = "no route \xff there",
                .south = { [SOUTH_HANDSHAKES] = 7 },
        };
}

static int bench_relay_now(void *userdata) {
        struct bench *bench = userdata;

        bench->relayed++;
        return bench->relay_result;
}

static void bench_status_line(void *userdata, const char *line) {
        struct bench *bench = userdata;

        bench->lines++;
        snprintf(bench->line, sizeof bench->line, "%s", line);
}

static void bench_event(void *userdata, const struct event *event) {
        struct bench *bench = userdata;

        (void)event;
        bench->events++;
}

static struct control_backend backend_of(struct bench *bench) {
        return (struct control_backend){
                .userdata = bench,
                .turn = bench_turn,
                .commit_then = bench_commit_then,
                .rollback = bench_rollback,
                .status = bench_status,
                .relay_now = bench_relay_now,
                .status_line = bench_status_line,
                .event = bench_event,
        };
}

/* ---- set-up ---- */

static sd_bus *connect_client(struct bench *bench) {
        char address[128];
        sd_bus *bus = NULL;

        snprintf(address, sizeof address, "unix:path=%s", bench->path);
        assert_true(sd_bus_new(&bus) >= 0);
        assert_true(sd_bus_set_address(bus, address) >= 0);
        assert_true(sd_bus_start(bus) >= 0);
        assert_true(sd_bus_attach_event(bus, bench->event, SD_EVENT_PRIORITY_NORMAL) >= 0);
        return bus;
}

static int set_up(void **state) {
        struct bench *bench = xcalloc(1, sizeof *bench);
        struct control_backend backend = backend_of(bench);
        struct problem problem = { 0 };

        setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
        bench->f = fixture_new();
        strcpy(bench->folder, "/tmp/test-control-XXXXXX");
        assert_non_null(mkdtemp(bench->folder));
        snprintf(bench->path, sizeof bench->path, "%s/control", bench->folder);
        assert_true(sd_event_new(&bench->event) >= 0);
        assert_int_equal(control_new(bench->event, bench->path, &backend, &bench->control, &problem), 0);
        bench->client = connect_client(bench);
        *state = bench;
        return 0;
}

static int tear_down(void **state) {
        struct bench *bench = *state;

        sd_bus_close_unref(bench->client);
        control_free(bench->control);
        sd_event_unref(bench->event);
        unlink(bench->path);
        rmdir(bench->folder);
        fixture_free(bench->f);
        free(bench);
        return 0;
}

/* ---- asking ---- */

static int on_answer(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        struct answer_got *got = userdata;
        const sd_bus_error *said = sd_bus_message_get_error(message);

        (void)error;
        got->has_come = true;
        if (said) {
                snprintf(got->error, sizeof got->error, "%s", said->name);
                snprintf(got->text, sizeof got->text, "%s", said->message ? said->message : "");
                return 1;
        }
        while (got->count < ELEMENTS(got->values) && value_read(message, &got->values[got->count]) > 0)
                got->count++;
        return 1;
}

static void got_free(struct answer_got *got) {
        for (size_t i = 0; i < got->count; i++)
                value_free(&got->values[i]);
        *got = (struct answer_got){ 0 };
}

#define ASK(bench, got, method, ...)                                                                                   \
        assert_true(sd_bus_call_method_async((bench)->client, NULL, NULL, "/org/gatewayd", "org.gatewayd.Manager1",    \
                                             method, on_answer, got, __VA_ARGS__) >= 0)

/* Runs the loop as long as it has something to do. */
static void run_idle(struct bench *bench) {
        while (sd_event_run(bench->event, 20000) > 0)
                ;
}

static void wait_answer(struct bench *bench, struct answer_got *got) {
        for (int i = 0; i < 2000 && !got->has_come; i++)
                assert_true(sd_event_run(bench->event, 10000) >= 0);
        assert_true(got->has_come);
}

static bool is_registered(struct bench *bench, const char *id) {
        struct device device;

        return device_get(bench->f->store, bytes_of(id), &device) >= 0;
}

/* ---- tests ---- */

static void an_operators_answer_waits_for_the_barrier(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        bench->is_held = true;
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        for (int i = 0; i < 2000 && bench->waiting_count == 0; i++)
                assert_true(sd_event_run(bench->event, 10000) >= 0);
        assert_int_equal(bench->waiting_count, 1);
        run_idle(bench);
        assert_false(got.has_come);
        pass_barrier(bench);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_int_equal(got.values[0].number, 1);
        assert_true(is_registered(bench, "d1"));
        got_free(&got);
}

static void also_what_is_only_read_waits_for_the_barrier(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        bench->is_held = true;
        ASK(bench, &got, "ShowDevice", "s", "d1");
        for (int i = 0; i < 2000 && bench->waiting_count == 0; i++)
                assert_true(sd_event_run(bench->event, 10000) >= 0);
        run_idle(bench);
        assert_false(got.has_come);
        pass_barrier(bench);
        wait_answer(bench, &got);
        assert_string_equal(value_text(&got.values[0], "id"), "d1");
        got_free(&got);
}

static void a_turn_that_is_dropped_is_an_error_to_the_operator(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        bench->commit_error = -ENOSPC;
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Full");
        assert_non_null(strstr(got.text, "nothing was changed"));
        assert_false(is_registered(bench, "d1"));
        got_free(&got);
}

static void what_is_refused_changes_nothing_and_says_why(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };
        size_t before;

        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        before = bench->rollbacks;
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Exists");
        assert_non_null(strstr(got.text, "d1 is registered already"));
        assert_true(bench->rollbacks > before);
        got_free(&got);
        ASK(bench, &got, "AddDevice", "sssss", "d2", "no-such-profile", PSK, "", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        assert_non_null(strstr(got.text, "no-such-profile"));
        got_free(&got);
        ASK(bench, &got, "RemoveDevice", "s", "d3");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.NotFound");
        got_free(&got);
        ASK(bench, &got, "ResetDevice", "sx", "d1", (int64_t)-5);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        got_free(&got);
        ASK(bench, &got, "RotateDevice", "sbx", "d1", 0, INT64_C(5));
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        got_free(&got);
        ASK(bench, &got, "RevokeDevice", "ss", "", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        got_free(&got);
        assert_false(is_registered(bench, "d2"));
}

static void an_import_is_all_or_nothing_and_names_every_mistake(void **state) {
        static const char half_good[] = "id,profile,psk\nd1,plain," PSK "\nd2,nowhere," PSK "\nd3,elsewhere," PSK "\n";
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        ASK(bench, &got, "ImportDevices", "sbb", half_good, 0, 0);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        assert_non_null(strstr(got.text, "nowhere"));
        assert_non_null(strstr(got.text, "elsewhere"));
        assert_false(is_registered(bench, "d1"));
        got_free(&got);
        ASK(bench, &got, "ImportDevices", "sbb", "id,profile,psk\nd1,plain,hex:00\n,plain," PSK "\n", 0, 0);
        wait_answer(bench, &got);
        assert_non_null(strstr(got.text, "line 2"));
        assert_non_null(strstr(got.text, "line 3"));
        got_free(&got);
        ASK(bench, &got, "ImportDevices", "sbb", "[{\"id\":\"d1\",\"profile\":\"plain\",\"psk\":\"" PSK "\"}]", 1, 0);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_true(is_registered(bench, "d1"));
        got_free(&got);
}

static void a_dry_run_finds_mistakes_and_changes_nothing(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        ASK(bench, &got, "ImportDevices", "sbb", "id,profile,psk\nd1,plain," PSK "\n", 0, 1);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_int_equal(got.values[0].number, 1);
        assert_false(is_registered(bench, "d1"));
        assert_int_equal(fixture_audited(bench->f, "d1", EVENT_DEVICE_REGISTERED), 0);
        assert_int_equal(bench->effects, 0);
        got_free(&got);
        ASK(bench, &got, "ImportDevices", "sbb", "id,profile,psk\nd1,nowhere," PSK "\n", 0, 1);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        got_free(&got);
}

static void an_import_warns_of_keys_that_the_devices_stack_cannot_hold(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        bench->f->profiles[FIXTURE_PLAIN].stack = STACK_TINYDTLS;
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", "text:a key of more than sixteen bytes", "", "");
        wait_answer(bench, &got);
        assert_int_equal(got.values[0].number, 1);
        assert_int_equal(got.values[1].count, 1);
        assert_non_null(strstr(got.values[1].items[0].text, "tinydtls"));
        got_free(&got);
}

static void every_change_is_audited_with_the_callers_uid(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };
        char expected[32];

        snprintf(expected, sizeof expected, "uid %u", (unsigned)geteuid());
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        wait_answer(bench, &got);
        got_free(&got);
        assert_string_equal(bench->actor, expected);
        ASK(bench, &got, "Audit", "stub", "d1", UINT64_C(0), (uint32_t)10, 1);
        wait_answer(bench, &got);
        assert_int_equal(got.values[0].count, 1);
        assert_string_equal(value_text(&got.values[0].items[0], "actor"), expected);
        assert_string_equal(value_text(&got.values[0].items[0], "event"), "device-registered");
        got_free(&got);
        ASK(bench, &got, "VerifyAudit", "");
        wait_answer(bench, &got);
        assert_true(got.values[0].boolean);
        got_free(&got);
}

static bool ask_changed(struct bench *bench, const char *method, const char *types, const char *id, const char *text) {
        struct answer_got got = { 0 };
        bool is_changed;

        if (text)
                ASK(bench, &got, method, types, id, text);
        else
                ASK(bench, &got, method, types, id);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_int_equal(got.values[0].kind, VALUE_BOOL);
        is_changed = got.values[0].boolean;
        got_free(&got);
        return is_changed;
}

static void an_answer_tells_changed_from_unchanged(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        fixture_commit(bench->f);
        assert_false(ask_changed(bench, "ReleaseDevice", "s", "d1", NULL));
        assert_true(ask_changed(bench, "RevokeDevice", "ss", "d1", "stolen"));
        assert_false(ask_changed(bench, "RevokeDevice", "ss", "d1", "stolen"));
        assert_true(ask_changed(bench, "RemoveDevice", "s", "d1", NULL));
        fixture_add(bench->f, "d2", FIXTURE_PLAIN);
        ASK(bench, &got, "ResetDevice", "sx", "d2", INT64_C(3600));
        wait_answer(bench, &got);
        assert_true(got.values[0].boolean);
        got_free(&got);
        ASK(bench, &got, "ShowDevice", "s", "d2");
        wait_answer(bench, &got);
        assert_int_equal(value_number(&got.values[0], "reset_window"), 3600);
        got_free(&got);
}

static void a_compromise_reaches_the_registry(void **state) {
        char kid[DEVICE_ID_MAX + 1];
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        fixture_provision(bench->f, "d1", kid);
        ASK(bench, &got, "RotateDevice", "sbx", "d1", 1, INT64_C(0));
        wait_answer(bench, &got);
        assert_true(got.values[0].boolean);
        got_free(&got);
        ASK(bench, &got, "ShowDevice", "s", "d1");
        wait_answer(bench, &got);
        assert_true(value_bool(&got.values[0], "is_compromised"));
        assert_string_equal(value_text(&got.values[1].items[0], "state"), "compromised");
        got_free(&got);
}

/* Nothing that a method shows holds any part of a key. */
static void search_secret(const struct value *value, const char *secret) {
        if (value->kind == VALUE_TEXT)
                assert_null(strstr(value->text, secret));
        for (size_t i = 0; i < value->count; i++)
                search_secret(&value->items[i], secret);
}

static void secrets_are_never_shown(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        ASK(bench, &got, "ShowDevice", "s", "d1");
        wait_answer(bench, &got);
        assert_int_equal(got.count, 2);
        for (size_t i = 0; i < got.count; i++) {
                search_secret(&got.values[i], "factory key of");
                search_secret(&got.values[i], "666163746f7279"); /* the same in hex */
        }
        got_free(&got);
}

static void the_registry_comes_in_pages(void **state) {
        struct bench *bench = *state;
        char after[DEVICE_ID_MAX + 1] = "";
        size_t seen = 0;

        for (int i = 0; i < 25; i++) {
                char id[16];

                snprintf(id, sizeof id, "d%02d", i);
                fixture_add(bench->f, id, i % 5 == 0 ? FIXTURE_ATTEST : FIXTURE_PLAIN);
        }
        for (int page = 0; page < 3; page++) {
                struct answer_got got = { 0 };

                ASK(bench, &got, "ListDevices", "sua{ss}", after, (uint32_t)10, 0);
                wait_answer(bench, &got);
                assert_string_equal(got.error, "");
                seen += got.values[0].count;
                assert_string_equal(got.values[1].text, page == 0 ? "d09" : page == 1 ? "d19" : "");
                snprintf(after, sizeof after, "%s", got.values[1].text);
                got_free(&got);
        }
        assert_int_equal(seen, 25);
}

static void the_registry_is_filtered(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        fixture_add(bench->f, "a", FIXTURE_PLAIN);
        fixture_add(bench->f, "b", FIXTURE_ATTEST);
        ASK(bench, &got, "ListDevices", "sua{ss}", "", (uint32_t)0, 1, "profile", "attest");
        wait_answer(bench, &got);
        assert_int_equal(got.values[0].count, 1);
        assert_string_equal(value_text(&got.values[0].items[0], "id"), "b");
        got_free(&got);
        ASK(bench, &got, "ListDevices", "sua{ss}", "", (uint32_t)0, 2, "state", "registered", "tier", "affirming");
        wait_answer(bench, &got);
        assert_int_equal(got.values[0].count, 0);
        got_free(&got);
        ASK(bench, &got, "ListDevices", "sua{ss}", "", (uint32_t)0, 1, "state", "asleep");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        assert_non_null(strstr(got.text, "operational"));
        got_free(&got);
        ASK(bench, &got, "ListDevices", "sua{ss}", "", (uint32_t)0, 1, "colour", "red");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Invalid");
        got_free(&got);
}

static void status_shows_what_core_and_the_store_know(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };
        const struct value *status;

        bench->f->config.north.verifier = VERIFIER_COLLECTOR;
        fixture_add(bench->f, "d1", FIXTURE_PLAIN);
        ASK(bench, &got, "Status", "");
        wait_answer(bench, &got);
        status = &got.values[0];
        assert_int_equal(value_number(value_member(status, "devices"), "total"), 1);
        assert_int_equal(value_number(value_member(status, "south"), "handshakes"), 7);
        assert_string_equal(value_text(value_member(status, "north"), "uplink"), "down");
        /* What came from outside is made text. */
        assert_string_equal(value_text(value_member(status, "north"), "reason"), "no route ? there");
        assert_string_equal(value_text(value_member(status, "clock"), "quality"), "synchronized");
        assert_int_equal(value_signed(value_member(status, "clock"), "time", 0), FIXTURE_START);
        got_free(&got);
        bench->f->config.north.verifier = VERIFIER_NONE;
}

static void relay_now_needs_an_uplink(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        ASK(bench, &got, "RelayNow", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Refused");
        assert_int_equal(bench->relayed, 0);
        got_free(&got);
        bench->f->config.north.verifier = VERIFIER_COLLECTOR;
        bench->relay_result = -ENOTCONN;
        ASK(bench, &got, "RelayNow", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Refused");
        got_free(&got);
        bench->relay_result = 0;
        ASK(bench, &got, "RelayNow", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_int_equal(bench->relayed, 2);
        got_free(&got);
        bench->f->config.north.verifier = VERIFIER_NONE;
}

static bool shows_recovery(struct bench *bench) {
        struct answer_got got = { 0 };
        const struct value *gateway;
        bool has_one;

        ASK(bench, &got, "Status", "");
        wait_answer(bench, &got);
        gateway = value_member(&got.values[0], "gateway");
        assert_non_null(value_member(gateway, "has_recovery_key"));
        has_one = value_bool(gateway, "has_recovery_key");
        got_free(&got);
        return has_one;
}

static void the_recovery_key_leaves_after_the_barrier_and_its_making_is_audited(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 }, audit = { 0 };

        assert_false(shows_recovery(bench));
        bench->is_held = true;
        ASK(bench, &got, "MakeRecoveryKey", "");
        run_idle(bench);
        assert_false(got.has_come);
        bench->is_held = false;
        pass_barrier(bench);
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        assert_int_equal(strlen(got.values[0].text), 2 * RECOVERY_KEY_BYTES);
        assert_int_equal(strspn(got.values[0].text, "0123456789abcdef"), 2 * RECOVERY_KEY_BYTES);
        assert_true(shows_recovery(bench));
        ASK(bench, &audit, "Audit", "stub", "", UINT64_C(0), (uint32_t)10, 1);
        wait_answer(bench, &audit);
        assert_int_equal(audit.values[0].count, 1);
        assert_string_equal(value_text(&audit.values[0].items[0], "event"), "recovery-key-made");
        assert_null(strstr(value_text(&audit.values[0].items[0], "reason"), got.values[0].text));
        got_free(&audit);
        got_free(&got);
}

static void a_recovery_key_whose_turn_is_dropped_is_not_told(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        bench->commit_error = -ENOSPC;
        ASK(bench, &got, "MakeRecoveryKey", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "org.gatewayd.Error.Full");
        assert_int_equal(got.count, 0);
        bench->commit_error = 0;
        assert_false(shows_recovery(bench));
        got_free(&got);
}

static void arguments_of_the_wrong_type_are_refused(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        ASK(bench, &got, "ShowDevice", "u", (uint32_t)5);
        wait_answer(bench, &got);
        assert_string_not_equal(got.error, "");
        got_free(&got);
        ASK(bench, &got, "NoSuchMethod", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, SD_BUS_ERROR_UNKNOWN_METHOD);
        got_free(&got);
}

static void a_client_that_leaves_before_its_answer_disturbs_nobody(void **state) {
        struct bench *bench = *state;
        struct answer_got lost = { 0 }, got = { 0 };

        bench->is_held = true;
        ASK(bench, &lost, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        for (int i = 0; i < 2000 && bench->waiting_count == 0; i++)
                assert_true(sd_event_run(bench->event, 10000) >= 0);
        bench->client = sd_bus_close_unref(bench->client);
        run_idle(bench);
        pass_barrier(bench);
        bench->is_held = false;
        bench->client = connect_client(bench);
        ASK(bench, &got, "ShowDevice", "s", "d1");
        wait_answer(bench, &got);
        assert_string_equal(value_text(&got.values[0], "id"), "d1");
        assert_false(lost.has_come);
        got_free(&got);
}

static void the_end_of_control_forgets_answers_that_wait(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };

        bench->is_held = true;
        ASK(bench, &got, "AddDevice", "sssss", "d1", "plain", PSK, "", "");
        for (int i = 0; i < 2000 && bench->waiting_count == 0; i++)
                assert_true(sd_event_run(bench->event, 10000) >= 0);
        bench->control = control_free(bench->control);
        run_idle(bench);
        /* The call was answered by the end of its connection, not by a success that nobody could vouch for. */
        assert_true(got.has_come);
        assert_string_not_equal(got.error, "");
        got_free(&got);
}

static void more_connections_than_allowed_are_turned_away(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };
        int raw[64];

        for (size_t i = 0; i < ELEMENTS(raw); i++) {
                struct sockaddr_un address = { .sun_family = AF_UNIX };

                snprintf(address.sun_path, sizeof address.sun_path, "%s", bench->path);
                raw[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                (void)connect(raw[i], (struct sockaddr *)&address, sizeof address); /* the last ones may not fit */
                run_idle(bench);
        }
        for (size_t i = 0; i < ELEMENTS(raw); i++)
                close(raw[i]);
        run_idle(bench);
        sd_bus_close_unref(bench->client);
        bench->client = connect_client(bench);
        ASK(bench, &got, "Now", "");
        wait_answer(bench, &got);
        assert_int_equal(got.values[0].integer, FIXTURE_START);
        got_free(&got);
}

static void rubbish_on_the_socket_ends_that_connection_alone(void **state) {
        struct bench *bench = *state;
        struct answer_got got = { 0 };
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char rubbish[4096];
        int raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof address.sun_path, "%s", bench->path);
        assert_int_equal(connect(raw, (struct sockaddr *)&address, sizeof address), 0);
        memset(rubbish, 0xa5, sizeof rubbish);
        assert_true(write(raw, rubbish, sizeof rubbish) > 0);
        run_idle(bench);
        close(raw);
        ASK(bench, &got, "Now", "");
        wait_answer(bench, &got);
        assert_string_equal(got.error, "");
        got_free(&got);
}

static void the_status_line_is_said_now_and_then(void **state) {
        struct bench *bench = *state;

        run_idle(bench);
        assert_true(bench->lines >= 1);
        assert_non_null(strstr(bench->line, "0 devices"));
}

/* ---- the socket ---- */

static void the_socket_is_for_owner_and_group_and_replaces_a_stale_one(void **state) {
        struct bench *bench = *state;
        struct control_backend backend = backend_of(bench);
        struct control *second = NULL;
        struct problem problem = { 0 };
        struct stat status;

        assert_int_equal(stat(bench->path, &status), 0);
        assert_int_equal(status.st_mode & 07777, 0660);
        assert_int_equal(control_new(bench->event, bench->path, &backend, &second, &problem), 0);
        control_free(second);
}

static void a_file_in_the_sockets_place_is_an_error_and_stays(void **state) {
        struct bench *bench = *state;
        struct control_backend backend = backend_of(bench);
        struct control *control = NULL;
        struct problem problem = { 0 };
        char path[128], long_path[200];
        int fd;

        snprintf(path, sizeof path, "%s/file", bench->folder);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
        assert_int_equal(control_new(bench->event, path, &backend, &control, &problem), -EEXIST);
        assert_non_null(strstr(problem.detail, path));
        assert_int_equal(access(path, F_OK), 0);
        unlink(path);
        memset(long_path, 'x', sizeof long_path - 1);
        long_path[0] = '/';
        long_path[sizeof long_path - 1] = 0;
        assert_int_equal(control_new(bench->event, long_path, &backend, &control, &problem), -ENAMETOOLONG);
        assert_int_equal(control_new(bench->event, "/nonexistent/control", &backend, &control, &problem), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(an_operators_answer_waits_for_the_barrier),
                TEST(also_what_is_only_read_waits_for_the_barrier),
                TEST(a_turn_that_is_dropped_is_an_error_to_the_operator),
                TEST(what_is_refused_changes_nothing_and_says_why),
                TEST(an_import_is_all_or_nothing_and_names_every_mistake),
                TEST(a_dry_run_finds_mistakes_and_changes_nothing),
                TEST(an_import_warns_of_keys_that_the_devices_stack_cannot_hold),
                TEST(every_change_is_audited_with_the_callers_uid),
                TEST(an_answer_tells_changed_from_unchanged),
                TEST(a_compromise_reaches_the_registry),
                TEST(secrets_are_never_shown),
                TEST(the_registry_comes_in_pages),
                TEST(the_registry_is_filtered),
                TEST(status_shows_what_core_and_the_store_know),
                TEST(relay_now_needs_an_uplink),
                TEST(the_recovery_key_leaves_after_the_barrier_and_its_making_is_audited),
                TEST(a_recovery_key_whose_turn_is_dropped_is_not_told),
                TEST(arguments_of_the_wrong_type_are_refused),
                TEST(a_client_that_leaves_before_its_answer_disturbs_nobody),
                TEST(the_end_of_control_forgets_answers_that_wait),
                TEST(more_connections_than_allowed_are_turned_away),
                TEST(rubbish_on_the_socket_ends_that_connection_alone),
                TEST(the_status_line_is_said_now_and_then),
                TEST(the_socket_is_for_owner_and_group_and_replaces_a_stale_one),
                TEST(a_file_in_the_sockets_place_is_an_error_and_stays),
        };

        return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}

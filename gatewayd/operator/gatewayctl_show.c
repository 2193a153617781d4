/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl device list, device show, audit, status: what people look at. */

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "gatewayd/operator/gatewayctl_client.h"

/* ---- devices ---- */

static enum colour state_colour(const char *state) {
        if (strcmp(state, "operational") == 0)
                return COLOUR_GOOD;
        if (strcmp(state, "registered") == 0)
                return COLOUR_NONE;
        return strcmp(state, "restricted") == 0 ? COLOUR_WARN : COLOUR_BAD;
}

static enum colour tier_colour(const char *tier) {
        if (strcmp(tier, "affirming") == 0)
                return COLOUR_GOOD;
        if (strcmp(tier, "none") == 0)
                return COLOUR_DIM;
        return strcmp(tier, "warning") == 0 ? COLOUR_WARN : COLOUR_BAD;
}

/* "in 3d", "now", "late by 2h"; "-" where there is no schedule. */
static const char *due_say(const struct value *device, const char *key, bool is_due, char *to) {
        int64_t seconds = value_signed(device, key, INT64_MAX);
        char span[SAY_MAX];

        if (seconds == INT64_MAX)
                snprintf(to, SAY_MAX, "-");
        else if (seconds < 0)
                snprintf(to, SAY_MAX, "late by %s", span_say(seconds, span));
        else if (is_due || seconds == 0)
                snprintf(to, SAY_MAX, "now");
        else
                snprintf(to, SAY_MAX, "in %s", span_say(seconds, span));
        return to;
}

static void add_device(struct table *table, const struct value *device, unix_sec now) {
        const char *state = value_text(device, "state"), *tier = value_text(device, "tier");
        bool is_rotation_due = value_bool(device, "rotation_due");
        bool is_attestation_due = value_bool(device, "attestation_due");
        char text[SAY_MAX];

        table_add(table, COLOUR_NONE, "%s", value_text(device, "id"));
        table_add(table, COLOUR_NONE, "%s", value_text(device, "profile"));
        table_add(table, state_colour(state), "%s%s", state,
                  value_bool(device, "is_compromised")  ? " (compromised)"
                  : value_bool(device, "is_conflicted") ? " (conflict)"
                                                        : "");
        table_add(table, tier_colour(tier), "%s", tier);
        table_add(table, COLOUR_NONE, "%" PRIu64, value_number(device, "generation"));
        table_add(table, is_rotation_due ? COLOUR_WARN : COLOUR_NONE, "%s",
                  due_say(device, "rotate_in", is_rotation_due, text));
        table_add(table, is_attestation_due ? COLOUR_WARN : COLOUR_NONE, "%s",
                  due_say(device, "attest_in", is_attestation_due, text));
        table_add(table, COLOUR_NONE, "%s", time_say(value_signed(device, "last_seen", 0), now, text));
}

int command_device_list(struct client *client, int count, char **arguments) {
        static const struct column columns[] = {
                { "DEVICE", false, true },       { "PROFILE", false, false },   { "STATE", false, false },
                { "TIER", false, false },        { "GENERATION", true, false }, { "ROTATION", false, false },
                { "ATTESTATION", false, false }, { "LAST SEEN", false, false },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };
        struct device_filter filter = { 0 };
        const struct command_option options[] = {
                { "--state", &filter.state, NULL },
                { "--profile", &filter.profile, NULL },
                { "--tier", &filter.tier, NULL },
        };
        struct value devices;
        unix_sec now;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_now(client, &now) < 0 || client_devices(client, &filter, &devices) < 0)
                return EXIT_FAILED;
        if (client->is_json)
                value_print_json(&devices, client->screen.to);
        else if (devices.count == 0)
                fputs("no devices\n", client->screen.to);
        else {
                for (size_t i = 0; i < devices.count; i++)
                        add_device(&table, &devices.items[i], now);
                table_print(&table, &client->screen);
                table_free(&table);
        }
        value_free(&devices);
        return EXIT_DONE;
}

static void put_fact(const struct screen *screen, const char *name, enum colour colour, const char *text) {
        char clean[320];

        snprintf(clean, sizeof clean, "%s", text);
        for (char *p = clean; *p; p++)
                if ((uint8_t)*p < 0x20 || *p == 0x7f)
                        *p = '?';
        screen_put(screen, COLOUR_BOLD, "%14s", name);
        fputs("  ", screen->to);
        screen_put(screen, colour, "%s", clean);
        fputc('\n', screen->to);
}

static void put_time(const struct screen *screen, const char *name, const struct value *map, const char *key,
                     unix_sec now) {
        unix_sec at = value_signed(map, key, 0);
        char relative[SAY_MAX], text[2 * SAY_MAX], date[32] = "";
        struct tm parts;

        time_say(at, now, relative);
        if (at != 0 && gmtime_r(&at, &parts))
                strftime(date, sizeof date, " (%Y-%m-%d %H:%M:%SZ)", &parts);
        snprintf(text, sizeof text, "%s%s", relative, date);
        put_fact(screen, name, COLOUR_NONE, text);
}

/* A fingerprint is cut to what tells it from others; --json has it whole. */
static void add_identity(struct table *table, const char *identity) {
        bool is_fingerprint = strlen(identity) == 64 && strspn(identity, "0123456789abcdef") == 64;

        table_add(table, COLOUR_NONE, is_fingerprint ? "%.16s…" : "%s", identity);
}

static void add_expiry(struct table *table, const struct value *credential, unix_sec now) {
        unix_sec not_after = value_signed(credential, "not_after", 0);
        char text[SAY_MAX];

        if (value_bool(credential, "is_revoked"))
                table_add(table, COLOUR_WARN, "revoked");
        else if (not_after == 0 || not_after == INT64_MAX)
                table_add(table, COLOUR_NONE, "-");
        else
                table_add(table, not_after < now ? COLOUR_WARN : COLOUR_NONE, "%s", time_say(not_after, now, text));
}

static void put_credentials(const struct screen *screen, const struct value *credentials, unix_sec now) {
        static const struct column columns[] = {
                { "IDENTITY", false, true },   { "KIND", false, false },      { "STATE", false, false },
                { "GENERATION", true, false }, { "ISSUED", false, false },    { "PROVEN", false, false },
                { "LAST USED", false, false }, { "HANDSHAKES", true, false }, { "EXPIRES", false, false },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };

        for (size_t i = 0; i < credentials->count; i++) {
                const struct value *credential = &credentials->items[i];
                const char *state = value_text(credential, "state");
                bool is_good = strcmp(state, "active") == 0, is_bad = strcmp(state, "compromised") == 0;
                char text[SAY_MAX];

                add_identity(&table, value_text(credential, "identity"));
                table_add(&table, COLOUR_NONE, "%s", value_text(credential, "kind"));
                table_add(&table, is_good ? COLOUR_GOOD : is_bad ? COLOUR_BAD : COLOUR_NONE, "%s", state);
                table_add(&table, COLOUR_NONE, "%" PRIu64, value_number(credential, "generation"));
                table_add(&table, COLOUR_NONE, "%s", time_say(value_signed(credential, "issued", 0), now, text));
                table_add(&table, COLOUR_NONE, "%s", time_say(value_signed(credential, "proven", 0), now, text));
                table_add(&table, COLOUR_NONE, "%s", time_say(value_signed(credential, "last_used", 0), now, text));
                table_add(&table, COLOUR_NONE, "%" PRIu64, value_number(credential, "handshakes"));
                add_expiry(&table, credential, now);
        }
        fputc('\n', screen->to);
        table_print(&table, screen);
        table_free(&table);
}

static void put_device(const struct screen *screen, const struct value *device, unix_sec now) {
        const char *state = value_text(device, "state"), *tier = value_text(device, "tier");
        char text[160], span[SAY_MAX];

        put_fact(screen, "device", COLOUR_NONE, value_text(device, "id"));
        put_fact(screen, "profile", COLOUR_NONE, value_text(device, "profile"));
        snprintf(text, sizeof text, "%s%s%s", state, value_bool(device, "is_compromised") ? ", keys compromised" : "",
                 value_bool(device, "is_conflicted") ? ", credential conflict" : "");
        put_fact(screen, "state", state_colour(state), text);
        put_fact(screen, "tier", tier_colour(tier), tier);
        put_time(screen, "registered", device, "registered", now);
        put_time(screen, "last seen", device, "last_seen", now);
        put_fact(screen, "rotation", COLOUR_NONE,
                 due_say(device, "rotate_in", value_bool(device, "rotation_due"), text));
        put_fact(screen, "too late", COLOUR_NONE, due_say(device, "late_in", false, text));
        put_fact(screen, "attestation", COLOUR_NONE,
                 due_say(device, "attest_in", value_bool(device, "attestation_due"), text));
        put_time(screen, "affirmed", device, "affirmed", now);
        if (value_number(device, "reset_window") > 0)
                put_fact(screen, "reset window", COLOUR_WARN,
                         span_say((int64_t)value_number(device, "reset_window"), span));
        snprintf(text, sizeof text, "%" PRIu64 ", %" PRIu64 " without forward secrecy",
                 value_number(device, "handshakes"), value_number(device, "handshakes_without_forward_secrecy"));
        put_fact(screen, "handshakes", COLOUR_NONE, text);
}

int command_device_show(struct client *client, int count, char **arguments) {
        struct value answer;
        const char *id;
        unix_sec now;
        int r = take_arguments(count, arguments, NULL, 0, &id, 1, 1, "the device id");

        if (r != 0)
                return r;
        if (client_now(client, &now) < 0 || client_call(client, "ShowDevice", 2, &answer, "s", id) < 0)
                return EXIT_FAILED;
        if (client->is_json) {
                char *keys[] = { (char *)"device", (char *)"credentials" };
                struct value map = { .kind = VALUE_MAP, .items = answer.items, .keys = keys, .count = 2 };

                value_print_json(&map, client->screen.to);
        } else {
                put_device(&client->screen, &answer.items[0], now);
                put_credentials(&client->screen, &answer.items[1], now);
        }
        value_free(&answer);
        return EXIT_DONE;
}

/* ---- audit ---- */

static void put_audit(const struct screen *screen, const struct value *rows) {
        static const struct column columns[] = {
                { "NUMBER", true, false },  { "TIME", false, false }, { "EVENT", false, false },
                { "DEVICE", false, false }, { "KID", false, false },  { "BY", false, false },
                { "REASON", false, true },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };

        for (size_t i = 0; i < rows->count; i++) {
                const struct value *row = &rows->items[i];
                unix_sec at = value_signed(row, "time", 0);
                char date[32] = "";
                struct tm parts;

                if (gmtime_r(&at, &parts))
                        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%SZ", &parts);
                table_add(&table, COLOUR_NONE, "%" PRIu64, value_number(row, "number"));
                /* A time of unknown quality is a lower bound. */
                table_add(&table, COLOUR_NONE, "%s%s", date,
                          strcmp(value_text(row, "clock"), "unknown") == 0 ? "?" : "");
                table_add(&table, COLOUR_NONE, "%s", value_text(row, "event"));
                table_add(&table, COLOUR_NONE, "%s", value_text(row, "device"));
                table_add(&table, COLOUR_NONE, "%s", value_text(row, "kid"));
                table_add(&table, COLOUR_NONE, "%s", value_text(row, "actor"));
                table_add(&table, COLOUR_NONE, "%s", value_text(row, "reason"));
        }
        table_print(&table, screen);
        table_free(&table);
}

static int verify_audit(struct client *client) {
        struct value answer;
        uint64_t first_bad;
        bool is_good;

        if (client_call(client, "VerifyAudit", 2, &answer, "") < 0)
                return EXIT_FAILED;
        is_good = answer.items[0].boolean;
        first_bad = answer.items[1].number;
        value_free(&answer);
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"good\": %s,\n  \"first_bad\": %" PRIu64 "\n}\n",
                        is_good ? "true" : "false", first_bad);
        else if (is_good)
                fputs("the chain is whole\n", client->screen.to);
        else
                fprintf(client->screen.to,
                        "the chain is broken at row %" PRIu64
                        ": that row, or one before it, was changed or taken out\n",
                        first_bad);
        return is_good ? EXIT_DONE : EXIT_FAILED;
}

int command_audit(struct client *client, int count, char **arguments) {
        const char *device = "", *number = "50";
        bool is_verify = false;
        const struct command_option options[] = {
                { "--device", &device, NULL },
                { "-n", &number, NULL },
                { "--verify", NULL, &is_verify },
        };
        struct value answer;
        long limit;
        char *end;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (is_verify)
                return verify_audit(client);
        limit = strtol(number, &end, 10);
        if (*end || end == number || limit < 1 || limit > 1000)
                return usage_error("-n is 1 to 1000");
        if (client_call(client, "Audit", 1, &answer, "stub", device, UINT64_C(0), (uint32_t)limit, 1) < 0)
                return EXIT_FAILED;
        if (client->is_json)
                value_print_json(&answer.items[0], client->screen.to);
        else if (answer.items[0].count == 0)
                fputs("no rows\n", client->screen.to);
        else
                put_audit(&client->screen, &answer.items[0]);
        value_free(&answer);
        return EXIT_DONE;
}

/* ---- status ---- */

static void put_gateway(const struct screen *screen, const struct value *status) {
        const struct value *gateway = value_member(status, "gateway"), *clock = value_member(status, "clock");
        char text[320], span[SAY_MAX], date[32] = "";
        unix_sec now = value_signed(clock, "time", 0);
        bool is_known = strcmp(value_text(clock, "quality"), "unknown") != 0;
        struct tm parts;

        snprintf(text, sizeof text, "%s (%s), version %s", value_text(gateway, "id"),
                 value_text(gateway, "incarnation"), value_text(gateway, "version"));
        put_fact(screen, "gateway", COLOUR_NONE, text);
        put_fact(screen, "up for", COLOUR_NONE, span_say((int64_t)value_number(gateway, "uptime"), span));
        if (gmtime_r(&now, &parts))
                strftime(date, sizeof date, "%Y-%m-%d %H:%M:%SZ", &parts);
        snprintf(text, sizeof text, "%s, %s%s", date, value_text(clock, "quality"),
                 value_bool(clock, "is_trusted") || !is_known ? "" : ", a jump is being held");
        put_fact(screen, "clock", is_known ? COLOUR_NONE : COLOUR_WARN, text);
        snprintf(text, sizeof text, "%s", value_text(gateway, "sandbox"));
        put_fact(screen, "sandbox", strcmp(text, "full") == 0 ? COLOUR_NONE : COLOUR_WARN, text);
}

static void put_devices(const struct screen *screen, const struct value *devices) {
        static const char *const states[] = { "operational", "registered",  "restricted",
                                              "quarantined", "needs-visit", "revoked" };
        char text[320], figure[SAY_MAX];
        size_t size;

        size = (size_t)snprintf(text, sizeof text, "%s", count_say(value_number(devices, "total"), figure));
        for (size_t i = 0; i < ELEMENTS(states) && size < sizeof text; i++) {
                uint64_t count = value_number(devices, states[i]);

                if (count > 0)
                        size += (size_t)snprintf(text + size, sizeof text - size, ", %s %s", count_say(count, figure),
                                                 states[i]);
        }
        put_fact(screen, "devices", COLOUR_NONE, text);
        snprintf(text, sizeof text, "%s rotate, ", count_say(value_number(devices, "rotation_due"), figure));
        size = strlen(text);
        snprintf(text + size, sizeof text - size, "%s attest",
                 count_say(value_number(devices, "attestation_due"), figure));
        put_fact(screen, "due", COLOUR_NONE, text);
}

static void put_registrar(const struct screen *screen, const struct value *north) {
        const char *est = value_text(north, "est"), *reason = value_text(north, "est_reason");
        uint64_t waiting = value_number(north, "enrolments_waiting");
        bool is_down = strcmp(est, "down") == 0;
        char text[400], count[SAY_MAX];

        if (strcmp(est, "none") == 0 && waiting == 0)
                return;
        snprintf(text, sizeof text, "EST server %s%s%s, %s %s waiting", est, is_down && reason[0] ? ": " : "",
                 is_down ? reason : "", count_say(waiting, count), waiting == 1 ? "enrolment" : "enrolments");
        put_fact(screen, "registrar", is_down ? COLOUR_WARN : COLOUR_NONE, text);
}

/* Until when the uplink may be gone, what gives out then, and what else has an end. */
static void put_horizon(const struct screen *screen, const struct value *status) {
        const struct value *horizon = value_member(status, "horizon");
        int64_t seconds = value_signed(horizon, "seconds", INT64_MAX);
        const char *first = value_text(horizon, "first");
        char text[400], a[SAY_MAX];

        if (seconds == INT64_MAX) {
                put_fact(screen, "horizon", COLOUR_NONE, "the uplink may be gone for good: nothing gives out");
                return;
        }
        time_say(value_signed(horizon, "until", 0), value_signed(value_member(status, "clock"), "time", 0), a);
        snprintf(text, sizeof text, "uplink may be gone until %s (limit: %s)", a, first);
        put_fact(screen, "horizon", seconds < 7 * 86400 ? COLOUR_WARN : COLOUR_NONE, text);
        snprintf(text, sizeof text, "then %s", value_text(horizon, "effect"));
        put_fact(screen, "", COLOUR_NONE, text);
}

static void put_uplink(const struct screen *screen, const struct value *status) {
        const struct value *north = value_member(status, "north"), *backlog = value_member(status, "backlog");
        const char *uplink = value_text(north, "uplink");
        bool is_down = strcmp(uplink, "down") == 0;
        char text[400], a[SAY_MAX], b[SAY_MAX];

        if (is_down)
                snprintf(text, sizeof text, "down: %s; next try in %s", value_text(north, "reason"),
                         span_say((int64_t)value_number(north, "retry_in"), a));
        else
                snprintf(text, sizeof text, "%s", uplink);
        put_fact(screen, "uplink", is_down ? COLOUR_WARN : COLOUR_NONE, text);
        snprintf(text, sizeof text, "%s records, %s", count_say(value_number(backlog, "records"), a),
                 bytes_say(value_number(backlog, "bytes"), b));
        put_fact(screen, "backlog", COLOUR_NONE, text);
        put_registrar(screen, north);
        put_horizon(screen, status);
}

static void put_south(const struct screen *screen, const struct value *south) {
        char text[320], a[SAY_MAX], b[SAY_MAX], c[SAY_MAX];

        if (!value_bool(south, "is_attached")) {
                put_fact(screen, "south", COLOUR_BAD, "is not there; devices cannot connect");
                return;
        }
        snprintf(text, sizeof text, "%s sessions, %s handshakes, %s requests",
                 count_say(value_number(south, "sessions"), a), count_say(value_number(south, "handshakes"), b),
                 count_say(value_number(south, "requests"), c));
        put_fact(screen, "south", COLOUR_NONE, text);
}

static void put_ca(const struct screen *screen, const struct value *ca) {
        const char *successor = value_text(ca, "successor");
        bool is_late = value_bool(ca, "is_late"), has_key = value_bool(ca, "is_key_available");
        char text[320], span[SAY_MAX];

        if (value_number(ca, "generation") == 0)
                snprintf(text, sizeof text, "%s", successor[0] ? "its certificate is awaited" : "none");
        else
                snprintf(text, sizeof text, "generation %" PRIu64 ", ends in %s%s%s%s", value_number(ca, "generation"),
                         span_say(value_signed(ca, "ends_in", 0), span), successor[0] ? ", successor " : "", successor,
                         has_key ? "" : ", KEY AWAY: nothing is issued");
        put_fact(screen, "ca",
                 value_number(ca, "generation") == 0 ? COLOUR_NONE
                 : !has_key                          ? COLOUR_BAD
                 : is_late                           ? COLOUR_WARN
                                                     : COLOUR_NONE,
                 text);
}

static void put_store(const struct screen *screen, const struct value *store) {
        char text[400], a[SAY_MAX], b[SAY_MAX];
        bool is_degraded = value_bool(store, "is_degraded");

        snprintf(text, sizeof text, "%s, %s, %s turns%s", value_text(store, "path"),
                 bytes_say(value_number(store, "bytes"), a), count_say(value_number(store, "commits"), b),
                 is_degraded ? ", DEGRADED: nothing can be stored" : "");
        put_fact(screen, "store", is_degraded ? COLOUR_BAD : COLOUR_NONE, text);
}

static void put_backup(const struct screen *screen, const struct value *status) {
        const struct value *backup = value_member(status, "backup");
        uint64_t missing = value_number(backup, "missing");
        unix_sec now = value_signed(value_member(status, "clock"), "time", 0);
        char text[160], when[SAY_MAX];

        if (value_bool(backup, "is_old"))
                snprintf(text, sizeof text, "%s", value_text(backup, "text"));
        else
                snprintf(text, sizeof text, "%s", time_say(value_signed(backup, "last", 0), now, when));
        put_fact(screen, "backup", value_bool(backup, "is_old") ? COLOUR_WARN : COLOUR_NONE, text);
        if (!value_member(backup, "restored"))
                return;
        snprintf(text, sizeof text, "%s", time_say(value_signed(backup, "restored", 0), now, when));
        if (missing > 0)
                snprintf(text + strlen(text), sizeof text - strlen(text), ", %llu devices have not come since",
                         (unsigned long long)missing);
        put_fact(screen, "restored", missing > 0 ? COLOUR_WARN : COLOUR_NONE, text);
}

int command_status(struct client *client, int count, char **arguments) {
        const struct value *status;
        struct value answer;
        int r = take_arguments(count, arguments, NULL, 0, NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_call(client, "Status", 1, &answer, "") < 0)
                return EXIT_FAILED;
        status = &answer.items[0];
        if (client->is_json)
                value_print_json(status, client->screen.to);
        else {
                put_gateway(&client->screen, status);
                put_devices(&client->screen, value_member(status, "devices"));
                put_south(&client->screen, value_member(status, "south"));
                put_uplink(&client->screen, status);
                put_ca(&client->screen, value_member(status, "ca"));
                put_store(&client->screen, value_member(status, "store"));
                put_backup(&client->screen, status);
        }
        value_free(&answer);
        return EXIT_DONE;
}

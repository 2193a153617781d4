/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl doctor: what deserves a person's attention, and what to do about it. It only looks. */

#include "gatewayd/operator/gatewayctl_doctor.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "gatewayd/operator/gatewayctl_client.h"

#define NAMED_MAX 5
#define SOON_SEC  (7 * 86400)
/* Ten million secrets move in less. */
#define RESEAL_LONG_SEC (2 * 86400)

static void find(struct findings *findings, enum severity severity, const char *remedy, const char *format, ...)
        _printf_(4, 5);
static void find(struct findings *findings, enum severity severity, const char *remedy, const char *format, ...) {
        struct finding *finding = &findings->list[findings->count];
        va_list arguments;

        if (findings->count == ELEMENTS(findings->list))
                return;
        findings->count++;
        finding->severity = severity;
        finding->remedy = remedy;
        va_start(arguments, format);
        vsnprintf(finding->what, sizeof finding->what, format, arguments);
        va_end(arguments);
}

/* ---- the gateway ---- */

static void look_at_gateway(const struct value *status, struct findings *findings) {
        const struct value *gateway = value_member(status, "gateway"), *clock = value_member(status, "clock");
        uint64_t violations = value_number(gateway, "sandbox_violations");

        if (value_bool(value_member(status, "store"), "is_degraded"))
                find(findings, CRITICAL, "make room on the file system of the store; gatewayd goes on by itself",
                     "nothing can be stored: devices get no keys and leave no evidence");
        if (!value_bool(value_member(status, "south"), "is_attached"))
                find(findings, CRITICAL, "journalctl -u gatewayd says why; it is being restarted",
                     "the role that faces the devices is not there");
        if (strcmp(value_text(gateway, "sandbox"), "weak") == 0)
                find(findings, WARNING,
                     "boot a kernel with Landlock (lsm=landlock,…), then take sandbox = \"weak\" out",
                     "the roles run without Landlock");
        if (violations > 0)
                find(findings, WARNING, "journalctl -u gatewayd says which; report it, or suspect a break-in",
                     "core was refused %" PRIu64 " system calls that it should never make", violations);
        if (strcmp(value_text(gateway, "sealing_key"), "file") == 0)
                find(findings, WARNING, "move it into a credential: gatewayd(8), CREDENTIALS",
                     "the key that seals the store is a file beside it: whoever copies both has every device's key");
        if (value_member(gateway, "has_recovery_key") && !value_bool(gateway, "has_recovery_key"))
                find(findings, NOTICE, "gatewayctl sealing recovery; keep what it shows away from the gateway",
                     "there is no recovery key: should the sealing key be lost (a TPM after a firmware update), no "
                     "device's key can be opened again");
        if (strcmp(value_text(clock, "quality"), "unknown") == 0)
                find(findings, WARNING, "connect a time source (NTP, GPS, a battery-backed clock)",
                     "the time is not known since the last boot: ages count by powered-on time alone");
        else if (!value_bool(clock, "is_trusted"))
                find(findings, NOTICE, "nothing, if the date is right now; else set it right",
                     "the clock jumped ahead; for a week calendar ages end nothing");
}

static const char *horizon_advice(const char *first) {
        if (strcmp(first, "ca") == 0 || strcmp(first, "ca-chain") == 0)
                return "gatewayctl ca csr, and gatewayctl ca import with the owner's answer: that needs no uplink";
        if (strcmp(first, "upstream-certificate") == 0)
                return "put a new certificate into the file that north.client_certificate names, and reload";
        return "mend the uplink, or raise backlog_records and backlog_size, or add disk";
}

static void look_at_uplink(const struct value *status, struct findings *findings) {
        const struct value *north = value_member(status, "north"), *backlog = value_member(status, "backlog");
        int64_t horizon = value_signed(value_member(status, "horizon"), "seconds", INT64_MAX);
        bool is_down = strcmp(value_text(north, "uplink"), "down") == 0;
        const char *first = value_text(value_member(status, "horizon"), "first");
        uint64_t records = value_number(backlog, "records"), parked = value_number(north, "parked");
        char figure[SAY_MAX], span[SAY_MAX];

        if (is_down)
                find(findings, horizon < SOON_SEC ? CRITICAL : WARNING,
                     "mend the uplink; everything is kept and goes up by itself, in order",
                     "the uplink is down: %.120s; %s records wait", value_text(north, "reason"),
                     count_say(records, figure));
        if (horizon < SOON_SEC && (is_down || strcmp(value_text(north, "verifier"), "none") == 0))
                find(findings, CRITICAL, horizon_advice(first),
                     "in %s without an uplink this gives out: %.40s; then %.120s", span_say(horizon, span), first,
                     value_text(value_member(status, "horizon"), "effect"));
        if (strcmp(value_text(north, "verifier"), "none") == 0 && records > 0)
                find(findings, NOTICE, "configure north = { verifier = \"collector\"; … }",
                     "%s records of evidence are kept and nobody fetches them", count_say(records, figure));
        if (parked > 0)
                find(findings, WARNING, "gatewayctl audit and the upstream's log say why; the receipts were delivered",
                     "%s records were refused upstream and are parked", count_say(parked, figure));
}

static void look_at_ca(const struct value *status, struct findings *findings) {
        const struct value *ca = value_member(status, "ca");
        const char *successor = value_text(ca, "successor");
        char span[SAY_MAX];

        if (strcmp(successor, "requested") == 0)
                find(findings, WARNING, "gatewayctl ca csr shows it; gatewayctl ca import takes the answer",
                     "a CA certificate is awaited from the owner's PKI");
        if (value_number(ca, "generation") == 0)
                return;
        if (!value_bool(ca, "is_key_available"))
                find(findings, CRITICAL, "bring the token or TPM back; gatewayd goes on by itself",
                     "the CA's key cannot be used, nothing is issued: %.160s", value_text(ca, "key_reason"));
        if (value_bool(ca, "is_late") && strcmp(successor, "announced") != 0)
                find(findings, CRITICAL, "gatewayctl ca roll; under an owner's PKI gatewayctl ca csr, then ca import",
                     "the CA ends in %s and has no successor", span_say(value_signed(ca, "ends_in", 0), span));
        if (value_bool(ca, "is_crl_stale"))
                find(findings, WARNING,
                     "see that the CA's key can be used; this gateway refuses revoked devices anyway",
                     "a CRL does not name what was revoked since");
}

static void look_at_backup(const struct value *status, struct findings *findings) {
        const struct value *backup = value_member(status, "backup");
        uint64_t missing = value_number(backup, "missing");

        if (value_bool(backup, "is_old"))
                find(findings, WARNING, "gatewayctl backup FILE, to a medium that is kept elsewhere",
                     "were the gateway lost, devices that have rotated since its last backup could need a visit: "
                     "%.110s",
                     value_text(backup, "text"));
        if (missing > 0)
                find(findings, NOTICE, "gatewayctl missing says what brings each back",
                     "%" PRIu64 " devices have not come since the store was restored", missing);
}

static void look_at_keys(const struct value *status, struct findings *findings) {
        const struct value *keys = value_member(status, "keys");
        uint64_t left = value_number(keys, "reseal_left"), damaged = value_number(keys, "reseal_damaged");
        char span[SAY_MAX], figure[SAY_MAX];

        if (value_bool(keys, "is_sealing_prepared"))
                find(findings, WARNING,
                     strcmp(value_text(value_member(status, "gateway"), "sealing_key"), "file") == 0
                             ? "gatewayctl sealing rotate goes on with it"
                             : "systemctl restart gatewayd puts it into force",
                     "a new sealing key is prepared; the one before opens the store as well until it is in force");
        if (value_bool(keys, "is_sealing_due"))
                find(findings, NOTICE, "gatewayctl sealing rotate", "the sealing key is older than it should get");
        if (value_bool(keys, "is_recovery_due"))
                find(findings, NOTICE, "gatewayctl sealing recovery; keep what it shows away from the gateway",
                     "the recovery key is older than it should get");
        if (damaged > 0)
                find(findings, CRITICAL, "journalctl -u gatewayd names them (secret-damaged); look at the disk",
                     "%s secrets in the store do not fit their seal", count_say(damaged, figure));
        if (left > damaged && value_signed(keys, "reseal_for", 0) > RESEAL_LONG_SEC)
                find(findings, WARNING, "journalctl -u gatewayd says what holds it up",
                     "%s secrets have waited %s to move to the newest data key", count_say(left, figure),
                     span_say(value_signed(keys, "reseal_for", 0), span));
        if (value_number(keys, "pauses") > 0)
                find(findings, NOTICE, "gatewayctl resume, once what they were paused for is over",
                     "rotations are paused: %.120s", value_text(keys, "paused"));
}

/* ---- the devices ---- */

struct symptom {
        enum severity severity;
        const char *what, *remedy;
        bool (*is_seen)(const struct value *device);
};

/* How many devices show a symptom, and the first of them. */
struct tally {
        uint64_t count;
        char names[NAMED_MAX][72];
};

static bool is_state(const struct value *device, const char *state) {
        return strcmp(value_text(device, "state"), state) == 0;
}

static bool needs_visit(const struct value *device) {
        return is_state(device, "needs-visit");
}

static bool is_quarantined(const struct value *device) {
        return is_state(device, "quarantined");
}

static bool is_restricted(const struct value *device) {
        return is_state(device, "restricted");
}

static bool is_conflicted(const struct value *device) {
        return value_bool(device, "is_conflicted") && !is_state(device, "revoked");
}

static bool is_compromised(const struct value *device) {
        return value_bool(device, "is_compromised") && !is_state(device, "revoked") && !needs_visit(device);
}

static bool is_contraindicated(const struct value *device) {
        return strcmp(value_text(device, "tier"), "contraindicated") == 0 && !is_state(device, "revoked");
}

static bool is_rotation_late(const struct value *device) {
        return value_signed(device, "late_in", 0) < 0 && !is_state(device, "revoked") && !is_restricted(device);
}

static bool is_attestation_late(const struct value *device) {
        return value_signed(device, "attest_in", 0) < 0 && !is_state(device, "revoked");
}

static bool lacks_attestation_key(const struct value *device) {
        return value_member(device, "attest_in") && !value_bool(device, "has_attestation_key") &&
               !is_state(device, "revoked");
}

static bool uses_factory_key(const struct value *device) {
        return is_state(device, "registered") && value_signed(device, "last_seen", 0) != 0;
}

static bool never_came(const struct value *device) {
        return is_state(device, "registered") && value_signed(device, "last_seen", 0) == 0;
}

static bool lacks_forward_secrecy(const struct value *device) {
        return value_number(device, "handshakes_without_forward_secrecy") > 0 && !is_state(device, "revoked");
}

static bool drops_grants(const struct value *device) {
        return value_number(device, "dropped_grants") > 0;
}

static bool has_window(const struct value *device) {
        return value_number(device, "reset_window") > 0;
}

static const struct symptom symptoms[] = {
        { CRITICAL, "with compromised keys and no other way to prove themselves",
          "somebody must go there: gatewayctl device reset ID --for 1h, then a factory reset of the device",
          needs_visit },
        { CRITICAL, "in quarantine", "find out why (gatewayctl audit --device ID); gatewayctl device release ID",
          is_quarantined },
        { CRITICAL, "whose old key was used after the new one was proven (two holders?)",
          "look at the device; then gatewayctl device release ID, or rotate ID --compromised", is_conflicted },
        { WARNING, "with compromised keys, until they attest anew", "wait for their evidence, or reset them",
          is_compromised },
        { CRITICAL, "whose software is not what it should be", "gatewayctl device show ID; update or replace it",
          is_contraindicated },
        { WARNING, "restricted: their key is past its age", "see that they connect; they renew by themselves",
          is_restricted },
        { WARNING, "past the latest time for their rotation", "see that they connect; they renew by themselves",
          is_rotation_late },
        { WARNING, "without the evidence that was due", "see that they connect and attest", is_attestation_late },
        { WARNING, "of a profile that attests without an attestation key",
          "remove and import them anew with attestation_key", lacks_attestation_key },
        { WARNING, "still with their factory key", "see why they do not ask for an operational key (POST /cred)",
          uses_factory_key },
        { NOTICE, "that never connected", "nothing, before they are installed", never_came },
        { NOTICE, "connect without forward secrecy",
          "their stack lacks ECDHE-PSK suites; where it has them, forward_secrecy = \"require\" insists",
          lacks_forward_secrecy },
        { NOTICE, "asked for keys again and again without using one",
          "their storage may be failing, or somebody asks in their name", drops_grants },
        { NOTICE, "with an open reset window", "nothing; it closes by itself", has_window },
};

static void look_at_device(struct tally tallies[], const struct value *device) {
        for (size_t i = 0; i < ELEMENTS(symptoms); i++) {
                struct tally *tally = &tallies[i];

                if (!symptoms[i].is_seen(device))
                        continue;
                if (tally->count < NAMED_MAX)
                        snprintf(tally->names[tally->count], sizeof tally->names[0], "%s", value_text(device, "id"));
                tally->count++;
        }
}

static void report_symptom(const struct symptom *symptom, const struct tally *tally, struct findings *findings) {
        char names[NAMED_MAX * 80] = "", figure[SAY_MAX];
        size_t size = 0;

        if (tally->count == 0)
                return;
        for (size_t i = 0; i < tally->count && i < NAMED_MAX; i++)
                size += (size_t)snprintf(names + size, sizeof names - size, "%s%s", i > 0 ? ", " : "", tally->names[i]);
        find(findings, symptom->severity, symptom->remedy, "%s %s %s: %s%s", count_say(tally->count, figure),
             tally->count == 1 ? "device" : "devices", symptom->what, names, tally->count > NAMED_MAX ? ", …" : "");
}

static void look_at_devices(const struct value *devices, struct findings *findings) {
        struct tally tallies[ELEMENTS(symptoms)] = { 0 };

        for (size_t i = 0; i < devices->count; i++)
                look_at_device(tallies, &devices->items[i]);
        for (size_t i = 0; i < ELEMENTS(symptoms); i++)
                report_symptom(&symptoms[i], &tallies[i], findings);
}

void doctor_examine(const struct value *status, const struct value *devices, struct findings *ret) {
        ret->count = 0;
        look_at_gateway(status, ret);
        look_at_uplink(status, ret);
        look_at_ca(status, ret);
        look_at_keys(status, ret);
        look_at_backup(status, ret);
        look_at_devices(devices, ret);
}

/* ---- telling ---- */

static const char *severity_name(enum severity severity) {
        static const char *const names[] = { "notice", "warning", "critical" };

        return names[severity];
}

static void tell(const struct screen *screen, const struct findings *findings) {
        static const enum colour colours[] = { COLOUR_DIM, COLOUR_WARN, COLOUR_BAD };

        for (int severity = CRITICAL; severity >= NOTICE; severity--)
                for (size_t i = 0; i < findings->count; i++) {
                        const struct finding *finding = &findings->list[i];

                        if ((int)finding->severity != severity)
                                continue;
                        screen_put(screen, colours[severity], "%8s", severity_name(finding->severity));
                        fprintf(screen->to, "  %s\n", finding->what);
                        screen_put(screen, COLOUR_DIM, "%8s  → %s\n", "", finding->remedy);
                }
        if (findings->count == 0)
                screen_put(screen, COLOUR_GOOD, "nothing deserves attention\n");
}

static void tell_json(FILE *to, const struct findings *findings) {
        struct value list = { .kind = VALUE_LIST };
        struct value maps[ELEMENTS(findings->list)], texts[ELEMENTS(findings->list)][3];
        char *keys[] = { (char *)"severity", (char *)"what", (char *)"remedy" };

        for (size_t i = 0; i < findings->count; i++) {
                const struct finding *finding = &findings->list[i];

                texts[i][0] = (struct value){ .kind = VALUE_TEXT, .text = (char *)severity_name(finding->severity) };
                texts[i][1] = (struct value){ .kind = VALUE_TEXT, .text = (char *)finding->what };
                texts[i][2] = (struct value){ .kind = VALUE_TEXT, .text = (char *)finding->remedy };
                maps[i] = (struct value){ .kind = VALUE_MAP, .items = texts[i], .keys = keys, .count = 3 };
        }
        list.items = maps;
        list.count = findings->count;
        value_print_json(&list, to);
}

int command_doctor(struct client *client, int count, char **arguments) {
        static const struct device_filter all = { NULL, NULL, NULL };
        struct findings findings;
        struct value answer, devices;
        bool is_bad = false;
        int r = take_arguments(count, arguments, NULL, 0, NULL, 0, 0, "");

        if (r != 0)
                return r;
        if (client_call(client, "Status", 1, &answer, "") < 0)
                return EXIT_FAILED;
        if (client_devices(client, &all, &devices) < 0) {
                value_free(&answer);
                return EXIT_FAILED;
        }
        doctor_examine(&answer.items[0], &devices, &findings);
        value_free(&answer);
        value_free(&devices);
        if (client->is_json)
                tell_json(client->screen.to, &findings);
        else
                tell(&client->screen, &findings);
        for (size_t i = 0; i < findings.count; i++)
                is_bad |= findings.list[i].severity != NOTICE;
        return is_bad ? EXIT_FAILED : EXIT_DONE;
}

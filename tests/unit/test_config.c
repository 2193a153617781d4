/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration: what is taken, what is refused and in which words, drop-ins, the example file. */

#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/load_text.h"
#include "config/loader.h"

#define DAY 86400

struct load {
        struct config *config;
        struct config_problems problems;
        int result;
};

static void load_end(struct load *load) {
        config_free(load->config);
        config_problems_free(&load->problems);
}

static struct load load_text(const char *text) {
        struct load load = { 0 };

        load.result = config_load_text("f", bytes_of(text), &load.config, &load.problems);
        return load;
}

static struct load load_path(const char *path) {
        struct load load = { 0 };

        load.result = config_load(path, &load.config, &load.problems);
        return load;
}

static bool says(const struct load *load, const char *part) {
        for (size_t i = 0; i < load->problems.count; i++)
                if (strstr(load->problems.lines[i], part))
                        return true;
        return false;
}

static void show(const struct load *load) {
        for (size_t i = 0; i < load->problems.count; i++)
                print_message("  %s\n", load->problems.lines[i]);
}

/* One profile with these settings. */
static struct load load_profile(const char *settings) {
        char text[2048];

        snprintf(text, sizeof text, "profiles = ( { name = \"p\";\n%s } );", settings);
        return load_text(text);
}

static void assert_profile_refused(const char *settings, const char *words) {
        _cleanup_(load_end) struct load load = load_profile(settings);

        if (load.result != -EINVAL || load.config || !says(&load, words)) {
                show(&load);
                fail_msg("{ %s } is not refused with \"%s\"", settings, words);
        }
}

static void assert_profile_warned(const char *settings, const char *words) {
        _cleanup_(load_end) struct load load = load_profile(settings);

        if (load.result != 0 || !says(&load, "f:2: warning: ") || !says(&load, words)) {
                show(&load);
                fail_msg("{ %s } is not taken with the warning \"%s\"", settings, words);
        }
}

static void assert_refused(const char *text, const char *words) {
        _cleanup_(load_end) struct load load = load_text(text);

        if (load.result != -EINVAL || load.config || !says(&load, words)) {
                show(&load);
                fail_msg("%s is not refused with \"%s\"", text, words);
        }
}

static void the_example_is_taken_without_a_warning(void **state) {
        _cleanup_(load_end) struct load load = load_path("config/gatewayd.conf");
        const struct profile *sensor, *actuator;

        (void)state;
        show(&load);
        assert_int_equal(load.result, 0);
        assert_int_equal(load.problems.count, 0);
        sensor = config_profile(load.config, "sensor");
        actuator = config_profile(load.config, "actuator");
        assert_non_null(sensor);
        assert_non_null(actuator);
        assert_int_equal(sensor->rotate_every_sec, 90 * DAY);
        assert_int_equal(actuator->attestation, ATTESTATION_EAT);
        assert_int_equal(actuator->reference_count, 1);
        assert_string_equal(actuator->references[0].swname, "actuator-firmware");
        assert_null(config_profile(load.config, "valve"));
}

/* Takes the comments off every line of the example that shows a default. */
static char *example_uncommented(void) {
        static char text[65536], line[512];
        FILE *file = fopen("config/gatewayd.conf", "re");
        size_t used = 0;

        assert_non_null(file);
        while (fgets(line, sizeof line, file)) {
                char *p = line, *equals = strstr(line, " = ");

                if (line[0] == '#' && line[1] >= 'a' && line[1] <= 'z' && equals)
                        p++;
                used += (size_t)snprintf(text + used, sizeof text - used, "%s", p);
        }
        fclose(file);
        return text;
}

static void the_defaults_that_the_example_shows_are_the_defaults(void **state) {
        _cleanup_(load_end) struct load shown = load_text(example_uncommented());
        _cleanup_(load_end) struct load plain = load_path("config/gatewayd.conf");

        (void)state;
        show(&shown);
        assert_int_equal(shown.result, 0);
        assert_string_equal(shown.config->gateway_id, "plant-7"); /* the only one that is an example */
        memcpy(shown.config->gateway_id, plain.config->gateway_id, sizeof plain.config->gateway_id);
        assert_string_equal(shown.config->ca.subject, "CN=gatewayd CA plant-7");
        memcpy(shown.config->ca.subject, plain.config->ca.subject, sizeof plain.config->ca.subject);
        assert_memory_equal(shown.config, plain.config, offsetof(struct config, profiles));
}

static void text_of_file(const char *path, char *to, size_t to_size) {
        FILE *file = fopen(path, "re");

        assert_non_null(file);
        to[fread(to, 1, to_size - 1, file)] = '\0';
        fclose(file);
}

/* Whether a key's name begins an explanation: in the example after "#" or at the start of a setting, in
 * the manual as a tag. */
static bool is_explained(const char *text, const char *key) {
        size_t length = strlen(key);

        for (const char *p = text; (p = strstr(p, key)) != NULL; p += length) {
                bool begins = p > text && strchr(" #\n\tP", p[-1]) != NULL;

                if (begins && !strchr("abcdefghijklmnopqrstuvwxyz_-", p[length]))
                        return true;
        }
        return false;
}

static void every_key_is_explained_in_the_example_and_in_the_manual(void **state) {
        static const struct key_table *const tables[] = { &top_keys, &north_keys, &ca_keys, &profile_keys,
                                                          &reference_keys };
        static char example[65536], manual[65536];

        (void)state;
        text_of_file("config/gatewayd.conf", example, sizeof example);
        text_of_file("docs/man/gatewayd.conf.5", manual, sizeof manual);
        for (size_t t = 0; t < ELEMENTS(tables); t++)
                for (size_t k = 0; k < tables[t]->count; k++) {
                        if (!is_explained(example, tables[t]->keys[k].name))
                                fail_msg("%s is not in gatewayd.conf", tables[t]->keys[k].name);
                        if (!is_explained(manual, tables[t]->keys[k].name))
                                fail_msg("%s is not in gatewayd.conf(5)", tables[t]->keys[k].name);
                }
}

static void a_profile_with_nothing_but_a_name_has_sound_defaults(void **state) {
        _cleanup_(load_end) struct load load = load_profile("");
        const struct profile *p;

        (void)state;
        assert_int_equal(load.result, 0);
        assert_int_equal(load.problems.count, 0);
        p = config_profile(load.config, "p");
        assert_int_equal(p->rotate_every_sec, 30 * DAY);
        assert_int_equal(p->grace_sec, 7 * DAY);
        assert_int_equal(p->max_age_sec, 97 * DAY);
        assert_int_equal(p->attestation, ATTESTATION_NONE);
        assert_int_equal(p->attest_every_sec, 0);
        assert_int_equal(p->on_overdue, OVERDUE_RESTRICT);
        assert_int_equal(p->on_factory_key, FACTORY_WINDOW);
        assert_int_equal(p->on_conflict, CONFLICT_ALLOW);
        assert_int_equal(p->psk_bytes, 32);
        assert_int_equal(p->psk_format, PSK_TEXT);
        assert_false(p->text_grant);
        assert_int_equal(p->forward_secrecy, FORWARD_SECRECY_PREFER);
        assert_int_equal(p->max_session_sec, DAY);
        assert_int_equal(p->block_size, 512);
        assert_int_equal(p->challenge_sec, 300);
        assert_true(p->jitter > 0.09 && p->jitter < 0.11);
        assert_int_equal(load.config->listen_count, 1);
        assert_string_equal(load.config->listen[0], "[::]:5684");
        assert_string_equal(load.config->store_path, "/var/lib/gatewayd/store.db");
        assert_int_equal(load.config->max_sessions, 20000);
        assert_int_equal(load.config->max_body_bytes, 16384);
        assert_int_equal(load.config->backlog_bytes, 1 << 30);
}

static void a_profile_that_attests_defaults_to_evidence_after_surprises(void **state) {
        _cleanup_(load_end) struct load load = load_profile("attestation = \"psa\"; attest_every = \"7d\";");
        const struct profile *p;

        (void)state;
        assert_int_equal(load.result, 0);
        p = config_profile(load.config, "p");
        assert_int_equal(p->on_factory_key, FACTORY_ATTEST);
        assert_int_equal(p->on_conflict, CONFLICT_ATTEST);
}

static void short_keys_default_to_raw_bytes(void **state) {
        _cleanup_(load_end) struct load load = load_profile("stack = \"tinydtls\";");
        const struct profile *p;

        (void)state;
        assert_int_equal(load.result, 0);
        p = config_profile(load.config, "p");
        assert_int_equal(p->psk_bytes, 16);
        assert_int_equal(p->psk_format, PSK_RAW);
}

static void the_gateway_id_defaults_to_one_derived_from_the_machine(void **state) {
        _cleanup_(load_end) struct load first = load_profile(""), second = load_profile("");

        (void)state;
        assert_int_equal(first.result, 0);
        assert_int_equal(strlen(first.config->gateway_id), 32);
        assert_string_equal(first.config->gateway_id, second.config->gateway_id);
}

static void one_run_names_every_mistake_at_its_line(void **state) {
        _cleanup_(load_end) struct load load = load_text("listen = \"5684\";\n"
                                                         "stoer = \"/x\";\n"
                                                         "sandbox = \"weka\";\n"
                                                         "max_sessions = \"many\";\n"
                                                         "max_body = \"1T\";\n"
                                                         "north = { verifier = \"collector\";\n"
                                                         "  url = \"http://x\";\n"
                                                         "  timeout = \"2fortnights\"; };\n"
                                                         "profiles = ( { name = \"a b\"; },\n"
                                                         "  { name = \"x\";\n"
                                                         "    rotate_evry = \"3d\";\n"
                                                         "    block_size = 100;\n"
                                                         "    jitter = 0.6;\n"
                                                         "    text_grant = 1;\n"
                                                         "    references = ( { digest = \"sha-256:00\"; },\n"
                                                         "                   { } );\n"
                                                         "    psk_bytes = 15; } );\n");
        static const char *const expected[] = {
                "f:1: listen is \"5684\"; allowed is an address with a port",
                "f:2: key of the configuration \"stoer\" is unknown; did you mean \"store\"?",
                "f:3: sandbox \"weka\" is unknown; did you mean \"weak\"?",
                "f:4: max_sessions is \"many\"; allowed is a whole number, 1 to 1000000",
                "f:5: max_body is \"1T\"; allowed is bytes",
                "f:6: warning: no client_certificate",
                "f:7: url must begin with https://",
                "f:8: timeout is \"2fortnights\"; allowed is a time span such as \"30d\" or \"12h 30min\", 1s to 1h",
                "f:9: a profile needs a name",
                "f:11: key of a profile \"rotate_evry\" is unknown; did you mean \"rotate_every\"?",
                "f:12: block_size is 100; allowed is 16, 32, 64, 128, 256, 512 or 1024",
                "f:13: jitter is 0.6; allowed is a number, 0.0 to 0.5",
                "f:14: text_grant is 1; allowed is true or false",
                "f:15: digest must be",
                "f:15: warning: profile \"x\": references are not used without attestation",
                "f:16: a reference value that names nothing",
                "f:17: psk_bytes is 15; allowed is a whole number, 16 to 64",
        };

        (void)state;
        assert_int_equal(load.result, -EINVAL);
        assert_null(load.config);
        if (load.problems.count != ELEMENTS(expected))
                show(&load);
        assert_int_equal(load.problems.count, ELEMENTS(expected));
        for (size_t i = 0; i < ELEMENTS(expected); i++)
                if (strncmp(load.problems.lines[i], expected[i], strlen(expected[i])) != 0)
                        fail_msg("%s\nis not\n%s", load.problems.lines[i], expected[i]);
}

static void a_syntax_error_is_named_with_the_mistakes_before_it(void **state) {
        _cleanup_(load_end) struct load load = load_text("sandbox = \"off\";\ngrace = 1h;\nprofiles = ();\n");

        (void)state;
        assert_int_equal(load.result, -EINVAL);
        assert_true(says(&load, "f:1: sandbox \"off\" is unknown"));
        assert_true(says(&load, "f:2: syntax error; texts and time spans stand in double quotes"));
        assert_refused("store = \"/a\";\nstore = \"/b\";", "f:2: the same key stands twice");
        assert_refused("profiles = ( { name = \"a\"", "f:1: syntax error");
}

static void a_schedule_beyond_its_class_is_refused(void **state) {
        (void)state;
        assert_profile_refused(
                "rotate_every = \"31d\"; sensitivity = \"high\"; criticality = \"high\";",
                "f:2: profile \"p\": rotate_every is 31d; its class (sensitivity high, criticality high) "
                "allows at most 30d");
        assert_profile_refused("rotate_every = \"181d\";", "allows at most 180d");
        /* The default interval is held against the class too. */
        assert_refused("classes = { high = [ \"9d\", \"8d\", \"7d\" ]; };\n"
                       "profiles = ( { name = \"p\"; sensitivity = \"high\"; } );",
                       "f:2: profile \"p\": rotate_every is 30d; its class (sensitivity high, criticality medium) "
                       "allows at most 8d");
}

static void the_table_of_classes_is_the_operators(void **state) {
        _cleanup_(load_end) struct load load = load_text("classes = { low = [ \"3y\", \"2y\", \"1y\" ]; };\n"
                                                         "profiles = ( { name = \"p\"; sensitivity = \"low\"; "
                                                         "criticality = \"low\"; rotate_every = \"1000d\"; } );");

        (void)state;
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->class_limit_sec[LEVEL_LOW][LEVEL_HIGH], 31557600);
        assert_int_equal(load.config->class_limit_sec[LEVEL_HIGH][LEVEL_HIGH], 30 * DAY);
        assert_refused("classes = { low = [ \"1d\" ]; };", "f:1: a row of classes has three time spans");
        assert_refused("classes = { low = [ \"1d\", \"x\", \"1d\" ]; };", "value 2 of the row");
        assert_refused("classes = { hgih = [ \"1d\", \"1d\", \"1d\" ]; };", "did you mean \"high\"?");
        assert_refused("classes = 7;", "classes must be a group");
}

static void a_class_above_may_not_silently_allow_more(void **state) {
        _cleanup_(load_end) struct load load = load_text("classes = { high = [ \"1y\", \"1y\", \"2y\" ]; };\n"
                                                         "profiles = ( { name = \"p\"; } );");

        (void)state;
        assert_int_equal(load.result, 0);
        assert_true(says(&load, "f:1: warning: classes: sensitivity high, criticality high"));
}

static void max_age_must_leave_room_for_rotation_and_grace(void **state) {
        (void)state;
        assert_profile_refused("rotate_every = \"10d\"; grace = \"2d\"; max_age = \"12d\";",
                               "max_age is 12d; it must be more than rotate_every + grace (10d + 2d)");
        assert_profile_refused("max_age = \"30d\";", "it must be more than");
}

static void short_spans_are_taken_with_a_warning(void **state) {
        (void)state;
        assert_profile_warned("rotate_every = \"10s\"; grace = \"2s\"; max_age = \"1min\";", "a schedule for tests");
        assert_profile_warned("rotate_every = \"10d\"; grace = \"5min\";", "grace is 5min");
        assert_profile_warned("rotate_every = \"10d\"; grace = \"20d\";", "longer than rotate_every");
}

static void attestation_and_its_schedule_go_together(void **state) {
        (void)state;
        assert_profile_refused("attestation = \"eat\";", "attest_every is missing");
        assert_profile_refused("attest_every = \"7d\";", "attest_every without attestation");
        assert_profile_refused("on_factory_key = \"attest\";", "allowed here are \"window\" and \"refuse\"");
        assert_profile_refused("on_conflict = \"attest\";", "allowed here are \"allow\" and \"quarantine\"");
        assert_profile_warned("attestation = \"eat\"; attest_every = \"7d\";", "no references");
        assert_profile_warned("attestation = \"eat\"; attest_every = \"60s\"; challenge_lifetime = \"2min\";",
                              "a challenge lives longer than attest_every");
        assert_profile_warned("references = ( { swname = \"a\"; } );", "references are not used");
}

static void keys_that_the_stack_cannot_hold_are_refused(void **state) {
        (void)state;
        assert_profile_refused("stack = \"tinydtls\"; psk_bytes = 32;", "stack \"tinydtls\" holds at most 16");
        assert_profile_refused("stack = \"mbedtls\"; psk_bytes = 33;", "stack \"mbedtls\" holds at most 32");
        assert_profile_refused("stack = \"tinydtls\"; forward_secrecy = \"require\";", "no device could connect");
        assert_profile_refused("psk_bytes = 30; psk_format = \"text\";", "multiple of 4");
        assert_profile_refused("psk_format = \"raw\"; text_grant = true;", "text_grant needs psk_format \"text\"");
        assert_profile_warned("psk_bytes = 64;", "Mbed TLS holds 32");
        assert_profile_warned("psk_bytes = 16; psk_format = \"text\";", "holds 96 bits");
}

static void reference_values_are_read(void **state) {
        _cleanup_(load_end) struct load load = load_profile(
                "attestation = \"eat\"; attest_every = \"1d\"; references = ("
                "{ swname = \"fw\"; swversion = \"1.2\"; },"
                "{ digest = \"sha-256:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\"; },"
                "{ digest = \"sha-384:"
                "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\"; "
                "});");
        const struct profile *p;

        (void)state;
        assert_int_equal(load.result, 0);
        p = config_profile(load.config, "p");
        assert_int_equal(p->reference_count, 3);
        assert_string_equal(p->references[0].swversion, "1.2");
        assert_int_equal(p->references[0].digest_size, 0);
        assert_int_equal(p->references[1].digest_size, 32);
        assert_int_equal(p->references[1].digest[15], 0xff);
        assert_int_equal(p->references[2].digest_size, 48);
        assert_profile_refused("references = ( { swname = \"a\"; digest = \"sha-256:zz\"; } );", "digest must be");
        assert_profile_refused("references = ( { digest = \"md5:00\"; } );", "digest must be");
        assert_profile_refused("references = { swname = \"a\"; };", "must be a list of groups");
        assert_profile_refused("references = ( 7 );", "a reference value must be a group");
}

static void names_of_profiles_are_checked(void **state) {
        (void)state;
        assert_refused("profiles = ( { name = \"\"; } );", "f:1: a profile needs a name");
        assert_refused("profiles = ( { rotate_every = \"1d\"; } );", "f:1: a profile needs a name");
        assert_refused("profiles = ( { name = 7; } );", "f:1: a profile needs a name");
        assert_refused("profiles = ( { name = \"a/b\"; } );", "f:1: a profile needs a name");
        assert_refused("profiles = ( { name = \"a\"; },\n{ name = \"a\"; } );",
                       "f:2: profile \"a\" stands twice in this file, first at line 1");
        assert_refused("profiles = { name = \"a\"; };", "profiles must be a list of groups");
        assert_refused("profiles = ( 7 );", "a profile must be a group");
        assert_refused("", "f: no profile");
        assert_refused("profiles = ( );", "f: no profile");
        {
                _cleanup_(load_end) struct load load = load_text("profiles = ( { name = \"A-z_0.9\"; } );");

                assert_int_equal(load.result, 0);
        }
}

static void addresses_to_listen_on_are_checked(void **state) {
        static const char *const good[] = { "[::]:5684", "0.0.0.0:1", "192.0.2.1:65535", "[2001:db8::1]:5684" };
        static const char *const bad[] = {
                "",          "5684",        ":5684",           "::5684",           "localhost:5684",
                "192.0.2.1", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x",      "192.0.2.1:-1",
                "[::]",      "[::1:5684",   "[]:5684",         "[192.0.2.1]:5684", "192.0.2.1: 5"
        };
        char text[256];

        (void)state;
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                snprintf(text, sizeof text, "listen = \"%s\"; profiles = ( { name = \"p\"; } );", good[i]);
                _cleanup_(load_end) struct load load = load_text(text);
                assert_int_equal(load.result, 0);
                assert_string_equal(load.config->listen[0], good[i]);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                snprintf(text, sizeof text, "listen = \"%s\";", bad[i]);
                assert_refused(text, "f:1: listen is");
        }
        assert_refused("listen = [ \"[::]:1\", \"[::]:2\" ];", "listen names 2 addresses; one is taken");
        assert_refused("listen = [ ];", "listen names no address");
        assert_refused("listen = 5684;", "listen names no address");
        assert_refused("listen = { };", "listen names no address");
}

static void north_needs_what_its_verifier_needs(void **state) {
        (void)state;
        assert_refused("north = { verifier = \"collector\"; };", "needs a url");
        assert_refused("north = { url = \"http://a\"; };", "url must begin with https://");
        assert_refused("north = { url = \"https://\"; };", "url must begin with https://");
        assert_refused("north = { url = \"https:///path\"; };", "url must begin with https://");
        assert_refused("north = { url = \"https://a b\"; };", "url must begin with https://");
        assert_refused("north = { client_key = \"/k\"; };", "client_certificate is missing");
        assert_refused("north = { client_certificate = \"/k\"; };", "client_key is missing");
        assert_refused("north = { ca_file = \"ca.pem\"; };", "ca_file must be an absolute path");
        assert_refused("north = { retry_min = \"10min\"; };", "retry_min is longer than retry_max");
        assert_refused("north = 3;", "north must be a group");
        assert_refused("north = { batch = 0; };", "batch is 0; allowed is a whole number, 1 to 4096");
}

static void files_that_are_not_there_are_warned_about(void **state) {
        _cleanup_(load_end) struct load load = load_text(
                "north = { verifier = \"none\"; url = \"https://a/b\"; client_certificate = \"/nonexistent/c\";\n"
                "client_key = \"/etc/passwd\"; }; profiles = ( { name = \"p\"; } );");

        (void)state;
        assert_int_equal(load.result, 0);
        assert_true(says(&load, "f:1: warning: client_certificate: /nonexistent/c: No such file"));
        assert_true(says(&load, "f:2: warning: client_key: /etc/passwd may be used by others than its owner"));
        assert_true(says(&load, "f:1: warning: url is not used while verifier is \"none\""));
}

static void paths_are_absolute_and_fit(void **state) {
        char text[512];

        (void)state;
        assert_refused("store = \"store.db\";", "store must be an absolute path");
        assert_refused("control = \"control\";", "control must be an absolute path");
        snprintf(text, sizeof text, "control = \"/%0108d\";", 0);
        assert_refused(text, "control must be an absolute path of at most 107 bytes");
        snprintf(text, sizeof text, "store = \"/%0256d\";", 0);
        assert_refused(text, "allowed is a text of up to 255 printable characters");
        assert_refused("store = \"/a\\nb\";", "allowed is a text");
        assert_refused("gateway_id = \"a b\";", "gateway_id must be 1 to 64");
        assert_refused("gateway_id = \"\";", "gateway_id must be 1 to 64");
}

static void sizes_take_units(void **state) {
        _cleanup_(load_end) struct load load =
                load_text("max_body = \"64KiB\"; backlog_size = \"2G\"; audit_keep = 0;\n"
                          "profiles = ( { name = \"p\"; } );");

        (void)state;
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->max_body_bytes, 65536);
        assert_int_equal(load.config->backlog_bytes, INT64_C(2) << 30);
        assert_int_equal(load.config->audit_keep_sec, 0);
        assert_refused("max_body = \"65K\";", "max_body is \"65K\"");
        assert_refused("max_body = \"16 K\";", "max_body is");
        assert_refused("backlog_size = \"99999999999999999999\";", "backlog_size is");
        assert_refused("backlog_size = \"9999999999T\";", "backlog_size is");
        assert_refused("backlog_records = 1.5;", "backlog_records is 1.5");
        assert_refused("max_sessions = -1;", "max_sessions is -1");
        assert_refused("max_sessions = 9223372036854775807L;", "max_sessions is");
        assert_refused("sandbox = true;", "sandbox is true; allowed is \"required\" or \"weak\"");
        assert_refused("sandbox = { };", "sandbox is a group or list");
}

static void other_files_are_not_drawn_in_and_zero_bytes_not_cut_at(void **state) {
        static const char zero[] = "store = \"/a\0b\";";
        _cleanup_(load_end) struct load load = { 0 };

        (void)state;
        assert_refused("\n  @include \"/etc/passwd\"\n", "f:2: @include is not taken");
        assert_refused("\nstore = \"/a\\x00b\";", "f:2: a zero byte");
        load.result = config_load_text("f", BYTES(zero, sizeof zero - 1), &load.config, &load.problems);
        assert_int_equal(load.result, -EINVAL);
        assert_true(says(&load, "f:1: a zero byte"));
}

static void rubbish_does_not_flood(void **state) {
        static char text[200 * 1024];
        size_t used = 0;

        (void)state;
        for (int i = 0; i < 5000; i++)
                used += (size_t)snprintf(text + used, sizeof text - used, "entry%d = %d;\n", i, i);
        _cleanup_(load_end) struct load load = load_text(text);
        assert_int_equal(load.result, -EINVAL);
        assert_true(load.problems.count <= 501);
        assert_true(says(&load, "f:1: key of the configuration \"entry0\" is unknown; allowed are gateway_id, listen"));
}

/* ---- files --------------------------------------------------------------------------------------- */

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        (void)st, (void)type, (void)ftw;
        return remove(path);
}

static int folder_make(void **state) {
        static char folder[64];

        snprintf(folder, sizeof folder, "/tmp/gatewayd-config-XXXXXX");
        *state = mkdtemp(folder);
        return *state ? 0 : -1;
}

static int folder_remove(void **state) {
        return nftw(*state, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in(const char *folder, const char *name) {
        static char path[256];

        snprintf(path, sizeof path, "%s/%s", folder, name);
        return path;
}

static void file_write(const char *path, const char *text) {
        FILE *file = fopen(path, "we");

        assert_non_null(file);
        assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
        assert_int_equal(fclose(file), 0);
}

static void drop_ins_replace_single_keys_in_order_of_name(void **state) {
        const char *folder = *state;

        file_write(in(folder, "gatewayd.conf"), "max_sessions = 10; max_body = \"2K\";\n"
                                                "north = { batch = 7; timeout = \"9s\"; };\n"
                                                "profiles = ( { name = \"p\"; rotate_every = \"20d\"; grace = \"2d\";\n"
                                                "  references = ( { swname = \"a\"; }, { swname = \"b\"; } );\n"
                                                "  attestation = \"eat\"; attest_every = \"1d\"; } );");
        assert_int_equal(mkdir(in(folder, "conf.d"), 0755), 0);
        file_write(in(folder, "conf.d/20-later.conf"), "max_sessions = 30; north = { batch = 8; };\n"
                                                       "profiles = ( { name = \"p\"; grace = \"3d\"; } );");
        file_write(in(folder, "conf.d/10-earlier.conf"),
                   "max_sessions = 20; profiles = (\n"
                   "{ name = \"p\"; grace = \"4d\"; references = ( { swname = \"c\"; } ); },\n"
                   "{ name = \"q\"; } );");
        file_write(in(folder, "conf.d/30-not-taken.conf.bak"), "rubbish");
        file_write(in(folder, "conf.d/.hidden.conf"), "rubbish");

        _cleanup_(load_end) struct load load = load_path(in(folder, "gatewayd.conf"));
        show(&load);
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->max_sessions, 30);
        assert_int_equal(load.config->max_body_bytes, 2048);
        assert_int_equal(load.config->north.batch_records, 8);
        assert_int_equal(load.config->north.timeout_sec, 9);
        assert_int_equal(load.config->profile_count, 2);
        assert_int_equal(config_profile(load.config, "p")->rotate_every_sec, 20 * DAY);
        assert_int_equal(config_profile(load.config, "p")->grace_sec, 3 * DAY);
        assert_int_equal(config_profile(load.config, "p")->reference_count, 1);
        assert_string_equal(config_profile(load.config, "p")->references[0].swname, "c");
        assert_non_null(config_profile(load.config, "q"));
}

static void a_mistake_in_a_drop_in_names_that_file(void **state) {
        const char *folder = *state;
        char expected[256];

        file_write(in(folder, "gatewayd.conf"), "profiles = ( { name = \"p\"; rotate_every = \"20d\"; } );");
        assert_int_equal(mkdir(in(folder, "conf.d"), 0755), 0);
        file_write(in(folder, "conf.d/a.conf"), "\nprofiles = ( { name = \"p\";\n\n max_age = \"1d\"; } );");

        _cleanup_(load_end) struct load load = load_path(in(folder, "gatewayd.conf"));
        assert_int_equal(load.result, -EINVAL);
        assert_int_equal(load.problems.count, 1);
        snprintf(expected, sizeof expected, "%s/conf.d/a.conf:4: profile \"p\": max_age is 1d", folder);
        assert_non_null(strstr(load.problems.lines[0], expected));
}

static void files_that_cannot_be_read_are_named(void **state) {
        const char *folder = *state;
        char *large = calloc(1, (1 << 20) + 10);

        {
                _cleanup_(load_end) struct load load = load_path(in(folder, "none.conf"));
                assert_int_equal(load.result, -ENOENT);
                assert_true(says(&load, "none.conf: cannot be read: No such file or directory"));
        }
        {
                _cleanup_(load_end) struct load load = load_path(folder);
                assert_int_equal(load.result, -EISDIR);
        }
        memset(large, '\n', (1 << 20) + 9);
        file_write(in(folder, "gatewayd.conf"), large);
        free(large);
        {
                _cleanup_(load_end) struct load load = load_path(in(folder, "gatewayd.conf"));
                assert_int_equal(load.result, -EFBIG);
        }
        file_write(in(folder, "gatewayd.conf"), "profiles = ( { name = \"p\"; } );");
        assert_int_equal(mkdir(in(folder, "conf.d"), 0755), 0);
        assert_int_equal(symlink("/nonexistent", in(folder, "conf.d/a.conf")), 0);
        {
                _cleanup_(load_end) struct load load = load_path(in(folder, "gatewayd.conf"));
                assert_int_equal(load.result, -EINVAL);
                assert_true(says(&load, "conf.d/a.conf: cannot be read: No such file or directory"));
        }
}

static void a_snapshot_outlives_its_files(void **state) {
        _cleanup_(load_end) struct load load = { 0 }, again = { 0 };
        const char *folder = *state;
        char expected[256];
        int fd = -1;

        file_write(in(folder, "gatewayd.conf"), "max_sessions = 7;\nprofiles = ( { name = \"p\"; grace = \"1s\"; } );");
        assert_int_equal(mkdir(in(folder, "conf.d"), 0755), 0);
        file_write(in(folder, "conf.d/a.conf"), "profiles = ( { name = \"q\"; } );");
        load.result = config_load_snapshot(in(folder, "gatewayd.conf"), &fd, &load.config, &load.problems);
        assert_int_equal(load.result, 0);
        file_write(in(folder, "gatewayd.conf"), "rubbish");
        assert_int_equal(unlink(in(folder, "conf.d/a.conf")), 0);
        for (int i = 0; i < 2; i++) { /* twice: its offset does not matter */
                load_end(&again);
                again = (struct load){ 0 };
                again.result = config_load_descriptor(fd, &again.config, &again.problems);
                assert_int_equal(again.result, 0);
                assert_int_equal(again.config->max_sessions, 7);
                assert_non_null(config_profile(again.config, "q"));
                snprintf(expected, sizeof expected, "%s/gatewayd.conf:2: warning: profile \"p\": grace is 1s", folder);
                assert_true(says(&again, expected));
        }
        /* Nobody who got the descriptor can change what the others read. */
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
}

static void no_snapshot_is_made_of_a_bad_file(void **state) {
        _cleanup_(load_end) struct load load = { 0 };
        const char *folder = *state;
        int fd = -1;

        file_write(in(folder, "gatewayd.conf"), "max_sessions = 0;");
        load.result = config_load_snapshot(in(folder, "gatewayd.conf"), &fd, &load.config, &load.problems);
        assert_int_equal(load.result, -EINVAL);
        assert_int_equal(fd, -1);
        assert_true(says(&load, "gatewayd.conf:1: max_sessions is 0"));
}

static void what_is_no_snapshot_is_refused(void **state) {
        static const char magic[] = "gatewayd configuration";
        static const struct {
                uint32_t name_size, text_size;
                const char *rest;
                size_t rest_size;
        } bad[] = {
                { 2, 1, "a\0", 2 },  { 0, 0, "", 0 },          { 3, 0, "a\0b", 3 },
                { 2, 0, "ab", 2 },   { 0xffffffff, 0, "", 0 }, { 2, 0xffffffff, "a\0", 2 },
                { 2, 0, "a\0+", 3 },
        };
        const char *folder = *state;

        for (size_t i = 0; i < ELEMENTS(bad) + 3; i++) {
                _cleanup_(load_end) struct load load = { 0 };
                int fd = memfd_create("bad", MFD_CLOEXEC);

                if (i < ELEMENTS(bad)) {
                        assert_true(write(fd, magic, sizeof magic) > 0);
                        assert_true(write(fd, &bad[i], 8) == 8);
                        assert_true(write(fd, bad[i].rest, bad[i].rest_size) == (ssize_t)bad[i].rest_size);
                } else if (i == ELEMENTS(bad)) {
                        assert_true(write(fd, magic, sizeof magic) > 0);
                } else if (i == ELEMENTS(bad) + 1) {
                        assert_true(write(fd, "gatewayd konfiguration", sizeof magic) > 0);
                } else {
                        close(fd);
                        fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                }
                load.result = config_load_descriptor(fd, &load.config, &load.problems);
                assert_int_equal(load.result, -EBADMSG);
                assert_null(load.config);
                assert_true(says(&load, "the descriptor holds no configuration"));
                close(fd);
        }
        {
                _cleanup_(load_end) struct load load = { 0 };
                load.result = config_load_descriptor(-1, &load.config, &load.problems);
                assert_int_equal(load.result, -EBADF);
        }
}

static void names_of_choices_are_those_of_the_file(void **state) {
        (void)state;
        assert_string_equal(attestation_kind_name(ATTESTATION_PSA), "psa");
        assert_string_equal(on_overdue_name(OVERDUE_QUARANTINE), "quarantine");
        assert_string_equal(on_factory_key_name(FACTORY_WINDOW), "window");
        assert_string_equal(on_conflict_name(CONFLICT_ALLOW), "allow");
        assert_string_equal(level_name(LEVEL_HIGH), "high");
        assert_string_equal(device_stack_name(STACK_WOLFSSL), "wolfssl");
        assert_string_equal(level_name((enum level)7), "unknown");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_example_is_taken_without_a_warning),
                cmocka_unit_test(the_defaults_that_the_example_shows_are_the_defaults),
                cmocka_unit_test(every_key_is_explained_in_the_example_and_in_the_manual),
                cmocka_unit_test(a_profile_with_nothing_but_a_name_has_sound_defaults),
                cmocka_unit_test(a_profile_that_attests_defaults_to_evidence_after_surprises),
                cmocka_unit_test(short_keys_default_to_raw_bytes),
                cmocka_unit_test(the_gateway_id_defaults_to_one_derived_from_the_machine),
                cmocka_unit_test(one_run_names_every_mistake_at_its_line),
                cmocka_unit_test(a_syntax_error_is_named_with_the_mistakes_before_it),
                cmocka_unit_test(a_schedule_beyond_its_class_is_refused),
                cmocka_unit_test(the_table_of_classes_is_the_operators),
                cmocka_unit_test(a_class_above_may_not_silently_allow_more),
                cmocka_unit_test(max_age_must_leave_room_for_rotation_and_grace),
                cmocka_unit_test(short_spans_are_taken_with_a_warning),
                cmocka_unit_test(attestation_and_its_schedule_go_together),
                cmocka_unit_test(keys_that_the_stack_cannot_hold_are_refused),
                cmocka_unit_test(reference_values_are_read),
                cmocka_unit_test(names_of_profiles_are_checked),
                cmocka_unit_test(addresses_to_listen_on_are_checked),
                cmocka_unit_test(north_needs_what_its_verifier_needs),
                cmocka_unit_test(files_that_are_not_there_are_warned_about),
                cmocka_unit_test(paths_are_absolute_and_fit),
                cmocka_unit_test(sizes_take_units),
                cmocka_unit_test(other_files_are_not_drawn_in_and_zero_bytes_not_cut_at),
                cmocka_unit_test(rubbish_does_not_flood),
                cmocka_unit_test_setup_teardown(drop_ins_replace_single_keys_in_order_of_name, folder_make,
                                                folder_remove),
                cmocka_unit_test_setup_teardown(a_mistake_in_a_drop_in_names_that_file, folder_make, folder_remove),
                cmocka_unit_test_setup_teardown(files_that_cannot_be_read_are_named, folder_make, folder_remove),
                cmocka_unit_test_setup_teardown(a_snapshot_outlives_its_files, folder_make, folder_remove),
                cmocka_unit_test_setup_teardown(no_snapshot_is_made_of_a_bad_file, folder_make, folder_remove),
                cmocka_unit_test_setup_teardown(what_is_no_snapshot_is_refused, folder_make, folder_remove),
                cmocka_unit_test(names_of_choices_are_those_of_the_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

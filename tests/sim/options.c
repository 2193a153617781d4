/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of gateway-sim. */

#include "sim.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
        "gateway-sim: a fleet of simulated devices for gatewayd\n"
        "\n"
        "  gateway-sim --gateway ADDRESS:PORT --devices N [OPTION…]\n"
        "\n"
        "Fleet\n"
        "  --gateway ADDRESS:PORT   where gatewayd listens (127.0.0.1:5684)\n"
        "  --devices N              how many (1)\n"
        "  --prefix TEXT            device ids are TEXT0001 and so on (sim-)\n"
        "  --state FILE             keeps keys, so that the next run goes on with the same fleet\n"
        "  --import-out FILE        writes what `gatewayctl device import` reads: .json, or else CSV\n"
        "  --write-only             ends after writing it\n"
        "  --profile NAME           profile in that file (sensor)\n"
        "  --certificates PERCENT   of the devices hold certificates instead of PSKs (0); wants --manufacturer\n"
        "  --manufacturer FILE      the CA of their IDevIDs, for the profile's idevid_anchors (PEM, its key in\n"
        "                           FILE.key); made if it is not there\n"
        "  --certificate-profile NAME   their profile in the import file (sensor-x509)\n"
        "  --psk-form hex|text|base64   how it spells the factory keys (hex)\n"
        "  --no-attest              devices without attestation key\n"
        "  --software NAME:VERSION  what evidence claims (sensor-firmware:1.0.0)\n"
        "  --measurement TEXT       evidence claims its SHA-256 (gateway-sim)\n"
        "\n"
        "Behaviour\n"
        "  --poll                   do not observe /me, read it by its Max-Age\n"
        "  --sleep                  as --poll, and end the session whenever there is nothing to do\n"
        "  --time                   read /time too\n"
        "  --key-bytes N            ask for keys of N bytes, 16 to 32\n"
        "  --block-bytes N          name this block size in requests: 16, 32, … 512\n"
        "  --cipher LIST            OpenSSL cipher list\n"
        "  --ack-timeout MS         first CoAP retransmission (2000); half of it for DTLS\n"
        "  --backoff MIN:MAX        pauses while the gateway is away, milliseconds (2000:600000)\n"
        "  --handshake-timeout MS   a handshake is given up after that (30000)\n"
        "  --spread-addresses       devices come from 127.1.0.1 and on (IPv4 loopback only)\n"
        "\n"
        "Faults\n"
        "  --loss PERCENT           of the datagrams, in both directions\n"
        "  --lost-reply PERCENT     of the grants do not arrive; half of these devices lose power as well\n"
        "  --reboot-every SECONDS   on average, each device\n"
        "  --seed S                 repeats keys and chance; keys made with a seed are no secret\n"
        "\n"
        "Run\n"
        "  --ramp SECONDS           the devices get their power one by one over this time (0)\n"
        "  --until-settled          ends once every device is ready and idle\n"
        "  --run-for SECONDS        ends then; without either: at SIGINT\n"
        "  --json FILE              writes the books as JSON (- for standard output)\n"
        "  --control                commands on standard input, answers in JSON; `help` lists them\n"
        "  --test-clock FILE        time comes from this file too (tests)\n"
        "  --verbose                tells every step on standard error; twice: with payloads\n";

static void fail(const char *option, const char *value, const char *allowed) {
        fprintf(stderr, "gateway-sim: --%s: \"%s\" is not %s\n", option, value, allowed);
        exit(2);
}

static unsigned number(const char *option, const char *value, unsigned long low, unsigned long high) {
        char allowed[64], *end;
        unsigned long n;

        errno = 0;
        n = strtoul(value, &end, 10);
        if (!*value || *end || errno || *value == '-' || n < low || n > high) {
                snprintf(allowed, sizeof(allowed), "a number from %lu to %lu", low, high);
                fail(option, value, allowed);
        }
        return (unsigned)n;
}

static double percent(const char *option, const char *value) {
        char *end;
        double n = strtod(value, &end);

        if (!*value || *end || !(n >= 0 && n <= 100))
                fail(option, value, "a percentage from 0 to 100");
        return n;
}

/* Names go into CSV, JSON and PSK identities without escapes. */
static const char *name(const char *option, const char *value, size_t max) {
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";

        if (!*value || strlen(value) > max || strspn(value, allowed) != strlen(value))
                fail(option, value, "a name of A-Z a-z 0-9 . _ : -");
        return value;
}

static enum psk_form psk_form(const char *value) {
        if (strcmp(value, "hex") == 0)
                return PSK_HEX;
        if (strcmp(value, "text") == 0)
                return PSK_TEXT;
        if (strcmp(value, "base64") != 0)
                fail("psk-form", value, "hex, text or base64");
        return PSK_BASE64;
}

static uint16_t block_bytes(const char *value) {
        unsigned n = number("block-bytes", value, 16, DEVICE_BLOCK_MAX);

        if (n & (n - 1))
                fail("block-bytes", value, "a power of two");
        return (uint16_t)n;
}

static void take_pair(const char *option, char *value, char **first, char **second) {
        char *colon = strchr(value, ':');

        if (!colon)
                fail(option, value, "a pair with a colon");
        *colon = 0;
        *first = value;
        *second = colon + 1;
}

enum {
        OPTION_GATEWAY = 256,
        OPTION_DEVICES,
        OPTION_PREFIX,
        OPTION_STATE,
        OPTION_IMPORT_OUT,
        OPTION_WRITE_ONLY,
        OPTION_PROFILE,
        OPTION_CERTIFICATES,
        OPTION_MANUFACTURER,
        OPTION_CERTIFICATE_PROFILE,
        OPTION_PSK_FORM,
        OPTION_NO_ATTEST,
        OPTION_SOFTWARE,
        OPTION_MEASUREMENT,
        OPTION_POLL,
        OPTION_SLEEP,
        OPTION_TIME,
        OPTION_KEY_BYTES,
        OPTION_BLOCK_BYTES,
        OPTION_CIPHER,
        OPTION_ACK_TIMEOUT,
        OPTION_BACKOFF,
        OPTION_HANDSHAKE_TIMEOUT,
        OPTION_SPREAD,
        OPTION_LOSS,
        OPTION_LOST_REPLY,
        OPTION_REBOOT_EVERY,
        OPTION_SEED,
        OPTION_RAMP,
        OPTION_UNTIL_SETTLED,
        OPTION_RUN_FOR,
        OPTION_JSON,
        OPTION_CONTROL,
        OPTION_TEST_CLOCK,
        OPTION_VERBOSE,
        OPTION_HELP
};

static const struct option long_options[] = {
        { "gateway", required_argument, NULL, OPTION_GATEWAY },
        { "devices", required_argument, NULL, OPTION_DEVICES },
        { "prefix", required_argument, NULL, OPTION_PREFIX },
        { "state", required_argument, NULL, OPTION_STATE },
        { "import-out", required_argument, NULL, OPTION_IMPORT_OUT },
        { "write-only", no_argument, NULL, OPTION_WRITE_ONLY },
        { "profile", required_argument, NULL, OPTION_PROFILE },
        { "certificates", required_argument, NULL, OPTION_CERTIFICATES },
        { "manufacturer", required_argument, NULL, OPTION_MANUFACTURER },
        { "certificate-profile", required_argument, NULL, OPTION_CERTIFICATE_PROFILE },
        { "psk-form", required_argument, NULL, OPTION_PSK_FORM },
        { "no-attest", no_argument, NULL, OPTION_NO_ATTEST },
        { "software", required_argument, NULL, OPTION_SOFTWARE },
        { "measurement", required_argument, NULL, OPTION_MEASUREMENT },
        { "poll", no_argument, NULL, OPTION_POLL },
        { "sleep", no_argument, NULL, OPTION_SLEEP },
        { "time", no_argument, NULL, OPTION_TIME },
        { "key-bytes", required_argument, NULL, OPTION_KEY_BYTES },
        { "block-bytes", required_argument, NULL, OPTION_BLOCK_BYTES },
        { "cipher", required_argument, NULL, OPTION_CIPHER },
        { "ack-timeout", required_argument, NULL, OPTION_ACK_TIMEOUT },
        { "backoff", required_argument, NULL, OPTION_BACKOFF },
        { "handshake-timeout", required_argument, NULL, OPTION_HANDSHAKE_TIMEOUT },
        { "spread-addresses", no_argument, NULL, OPTION_SPREAD },
        { "loss", required_argument, NULL, OPTION_LOSS },
        { "lost-reply", required_argument, NULL, OPTION_LOST_REPLY },
        { "reboot-every", required_argument, NULL, OPTION_REBOOT_EVERY },
        { "seed", required_argument, NULL, OPTION_SEED },
        { "ramp", required_argument, NULL, OPTION_RAMP },
        { "until-settled", no_argument, NULL, OPTION_UNTIL_SETTLED },
        { "run-for", required_argument, NULL, OPTION_RUN_FOR },
        { "json", required_argument, NULL, OPTION_JSON },
        { "control", no_argument, NULL, OPTION_CONTROL },
        { "test-clock", required_argument, NULL, OPTION_TEST_CLOCK },
        { "verbose", no_argument, NULL, OPTION_VERBOSE },
        { "help", no_argument, NULL, OPTION_HELP },
        { NULL, 0, NULL, 0 },
};

static void take_fleet(struct sim_options *o, int option, char *value) {
        char *first, *second;

        switch (option) {
        case OPTION_GATEWAY:
                o->gateway = value;
                return;
        case OPTION_DEVICES:
                o->devices = number("devices", value, 1, 100000);
                return;
        case OPTION_PREFIX:
                o->prefix = name("prefix", value, 56);
                return;
        case OPTION_STATE:
                o->state = value;
                return;
        case OPTION_IMPORT_OUT:
                o->import_out = value;
                return;
        case OPTION_WRITE_ONLY:
                o->write_only = true;
                return;
        case OPTION_PROFILE:
                o->profile = name("profile", value, 64);
                return;
        case OPTION_CERTIFICATES:
                o->certificate_percent = number("certificates", value, 0, 100);
                return;
        case OPTION_MANUFACTURER:
                o->manufacturer = value;
                return;
        case OPTION_CERTIFICATE_PROFILE:
                o->certificate_profile = name("certificate-profile", value, 64);
                return;
        case OPTION_PSK_FORM:
                o->psk_form = psk_form(value);
                return;
        case OPTION_NO_ATTEST:
                o->attests = false;
                return;
        case OPTION_SOFTWARE:
                take_pair("software", value, &first, &second);
                o->software_name = name("software", first, 64);
                o->software_version = name("software", second, 64);
                return;
        default:
                o->measurement = value;
        }
}

static void take_behaviour(struct sim_options *o, int option, char *value) {
        char *first, *second;

        switch (option) {
        case OPTION_POLL:
                o->observes = false;
                return;
        case OPTION_SLEEP:
                o->observes = false;
                o->sleeps = true;
                return;
        case OPTION_TIME:
                o->wants_time = true;
                return;
        case OPTION_KEY_BYTES:
                o->key_bytes = number("key-bytes", value, 16, 32);
                return;
        case OPTION_BLOCK_BYTES:
                o->block_bytes = block_bytes(value);
                return;
        case OPTION_CIPHER:
                o->ciphers = value;
                return;
        case OPTION_ACK_TIMEOUT:
                o->ack_timeout_ms = number("ack-timeout", value, 10, 60000);
                return;
        case OPTION_BACKOFF:
                take_pair("backoff", value, &first, &second);
                o->backoff_min_ms = number("backoff", first, 10, 3600000);
                o->backoff_max_ms = number("backoff", second, o->backoff_min_ms, 3600000);
                return;
        case OPTION_HANDSHAKE_TIMEOUT:
                o->handshake_timeout_ms = number("handshake-timeout", value, 100, 110000);
                return;
        default:
                o->spreads_addresses = true;
        }
}

static void take_run(struct sim_options *o, int option, char *value) {
        char *end;

        switch (option) {
        case OPTION_LOSS:
                o->loss = percent("loss", value);
                return;
        case OPTION_LOST_REPLY:
                o->lost_reply = percent("lost-reply", value);
                return;
        case OPTION_REBOOT_EVERY:
                o->reboot_every_sec = number("reboot-every", value, 1, 1000000000);
                return;
        case OPTION_SEED:
                errno = 0;
                o->seed = strtoull(value, &end, 10);
                if (!*value || *end || errno)
                        fail("seed", value, "a number");
                o->has_seed = true;
                return;
        case OPTION_RAMP:
                o->ramp_sec = number("ramp", value, 0, 86400);
                return;
        case OPTION_UNTIL_SETTLED:
                o->until_settled = true;
                return;
        case OPTION_RUN_FOR:
                o->run_for_sec = number("run-for", value, 1, 1000000000);
                return;
        case OPTION_JSON:
                o->json_out = value;
                return;
        case OPTION_CONTROL:
                o->control = true;
                return;
        case OPTION_TEST_CLOCK:
                o->test_clock = value;
                return;
        case OPTION_VERBOSE:
                o->verbose++;
                return;
        case OPTION_HELP:
                fputs(help, stdout);
                exit(0);
        default:
                fputs("gateway-sim: --help lists the options\n", stderr);
                exit(2);
        }
}

void options_parse(struct sim_options *options, int argc, char **argv) {
        int option;

        *options = (struct sim_options){
                .gateway = "127.0.0.1:5684",
                .devices = 1,
                .prefix = "sim-",
                .profile = "sensor",
                .certificate_profile = "sensor-x509",
                .ciphers = "ECDHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256:PSK-AES128-CCM:PSK-AES128-CCM8",
                .software_name = "sensor-firmware",
                .software_version = "1.0.0",
                .measurement = "gateway-sim",
                .handshake_timeout_ms = 30000,
                .observes = true,
                .attests = true,
        };
        while ((option = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
                if (option >= OPTION_GATEWAY && option <= OPTION_MEASUREMENT)
                        take_fleet(options, option, optarg);
                else if (option >= OPTION_POLL && option <= OPTION_SPREAD)
                        take_behaviour(options, option, optarg);
                else
                        take_run(options, option, optarg);
        }
        if (optind < argc) {
                fprintf(stderr, "gateway-sim: \"%s\" is no option; --help lists them\n", argv[optind]);
                exit(2);
        }
        if (options->certificate_percent > 0 && !options->manufacturer) {
                fputs("gateway-sim: --certificates wants --manufacturer FILE\n", stderr);
                exit(2);
        }
        if (options->write_only && !options->import_out) {
                fputs("gateway-sim: --write-only wants --import-out FILE\n", stderr);
                exit(2);
        }
}

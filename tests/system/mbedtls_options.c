/* SPDX-License-Identifier: Apache-2.0 */

/* The command line of mbedtls_device. */

#include "tests/system/mbedtls_options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void die(const char *what, const char *why) {
        fprintf(stderr, "mbedtls_device: %s: %s\n", what, why);
        exit(2);
}

static const char help[] =
        "mbedtls_device --gateway ADDRESS:PORT --id ID --psk hex:…|text:… --state FILE [OPTION…] COMMAND\n"
        "a device with certificates: --idevid PEM --idevid-key PEM [--anchors PEM] for --psk\n"
        "commands: provision, me, rotate (waits until it is due), attest (likewise), recover\n"
        "options: --attest-key PEM  --software NAME --version TEXT --measurement TEXT  --observe  --block-bytes N\n"
        "         --test-clock FILE  --timeout SECONDS (60)  --verbose\n";

void options_parse(struct options *options, int argc, char **argv) {
        static const struct option known[] = {
                { "gateway", 1, NULL, 'g' },    { "id", 1, NULL, 'i' },
                { "psk", 1, NULL, 'p' },        { "state", 1, NULL, 's' },
                { "attest-key", 1, NULL, 'a' }, { "software", 1, NULL, 'n' },
                { "version", 1, NULL, 'v' },    { "measurement", 1, NULL, 'm' },
                { "observe", 0, NULL, 'o' },    { "block-bytes", 1, NULL, 'b' },
                { "test-clock", 1, NULL, 'c' }, { "timeout", 1, NULL, 't' },
                { "idevid", 1, NULL, 'd' },     { "idevid-key", 1, NULL, 'k' },
                { "anchors", 1, NULL, 'r' },    { "verbose", 0, NULL, 'V' },
                { NULL, 0, NULL, 0 },
        };
        int option;

        *options = (struct options){ .software_name = "sensor-firmware",
                                     .software_version = "1.0.0",
                                     .measurement = "gateway-sim",
                                     .timeout_sec = 60 };
        while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0)
                switch (option) {
                case 'g':
                        options->gateway = optarg;
                        break;
                case 'i':
                        options->id = optarg;
                        break;
                case 'p':
                        options->psk = optarg;
                        break;
                case 'd':
                        options->idevid = optarg;
                        break;
                case 'k':
                        options->idevid_key = optarg;
                        break;
                case 'r':
                        options->anchors = optarg;
                        break;
                case 's':
                        options->state = optarg;
                        break;
                case 'a':
                        options->attest_key = optarg;
                        break;
                case 'n':
                        options->software_name = optarg;
                        break;
                case 'v':
                        options->software_version = optarg;
                        break;
                case 'm':
                        options->measurement = optarg;
                        break;
                case 'o':
                        options->observes = true;
                        break;
                case 'b':
                        options->block_bytes = (unsigned)atoi(optarg);
                        break;
                case 'c':
                        options->test_clock = optarg;
                        break;
                case 't':
                        options->timeout_sec = (unsigned)atoi(optarg);
                        break;
                case 'V':
                        options->is_verbose = true;
                        break;
                default:
                        fputs(help, stderr);
                        exit(2);
                }
        options->command = optind < argc ? argv[optind] : "";
        if (!options->gateway || !options->id || !options->state || optind + 1 != argc ||
            !options->psk == !options->idevid || !options->idevid != !options->idevid_key ||
            (strcmp(options->command, "provision") && strcmp(options->command, "me") &&
             strcmp(options->command, "rotate") && strcmp(options->command, "attest") &&
             strcmp(options->command, "recover"))) {
                fputs(help, stderr);
                exit(2);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The command line of mbedtls_device. */

#include <stdbool.h>

struct options {
        const char *gateway, *id, *psk, *idevid, *idevid_key, *anchors, *state, *attest_key, *test_clock, *command;
        const char *software_name, *software_version, *measurement;
        unsigned timeout_sec, block_bytes;
        bool observes, is_verbose;
};

/* Ends the process with a message where it is wrong. */
void options_parse(struct options *options, int argc, char **argv);
_Noreturn void die(const char *what, const char *why);

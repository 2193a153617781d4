/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl: what operators ask of gatewayd and do to its devices, over the control socket. This file
 * is the table of commands; each is in the file of its subject. */

#include <stdlib.h>

#include "gatewayd/operator/gatewayctl_client.h"

struct command {
        const char *words[2]; /* the second may be NULL */
        command_run run;
        const char *arguments, *help;
};

static const struct command commands[] = {
        { { "status", NULL }, command_status, "", "how the gateway is, and until when the uplink may stay away" },
        { { "doctor", NULL }, command_doctor, "", "what deserves attention, and what to do about it" },
        { { "keys", NULL },
          command_keys,
          "[--devices [PROFILE]]",
          "every key: state, age, what is due of it when, under which rule" },
        { { "device", "list" }, command_device_list, "[--state S] [--profile P] [--tier T]", "the registry" },
        { { "device", "show" }, command_device_show, "ID", "one device with its credentials (never their secrets)" },
        { { "device", "import" },
          command_device_import,
          "FILE.csv|FILE.json [--dry-run]",
          "registers devices: all of the file, or none" },
        { { "device", "add" },
          command_device_add,
          "ID --profile P --psk KEY|--idevid any|sha256:HEX [--attestation-key FILE.pem]",
          "registers one; KEY is hex:…, base64:…, text:…, @FILE or -" },
        { { "device", "remove" }, command_device_remove, "ID", "forgets it; its evidence and audit rows stay" },
        { { "device", "revoke" }, command_device_revoke, "ID [--reason TEXT]", "nothing opens for it any more" },
        { { "device", "reset" }, command_device_reset, "ID --for SPAN", "lets it use its factory key for a while" },
        { { "device", "release" }, command_device_release, "ID", "lifts quarantine, restriction, conflict" },
        { { "rotate", NULL },
          command_rotate,
          "DEVICE|PROFILE|all [--now|--within SPAN] [--compromised [--since TIME]]",
          "rotation now, or spread over SPAN; compromised keys prove nothing any more" },
        { { "pause", NULL }, command_pause, "[PROFILE|all] --for SPAN", "no device is called to rotate meanwhile" },
        { { "resume", NULL }, command_resume, "[PROFILE|all]", "ends a pause" },
        { { "audit", NULL },
          command_audit,
          "[--device ID] [-n N] [--verify]",
          "the last steps, or whether the chain is whole" },
        { { "relay", "now" }, command_relay_now, "", "tries the uplink at once" },
        { { "sealing", "recovery" },
          command_sealing_recovery,
          "",
          "makes the store's offline recovery key and shows it, once" },
        { { "sealing", "rotate" },
          command_sealing_rotate,
          "[--key FILE] [--credential PATH [--with-key=K]|--file PATH]",
          "a new sealing key; at every moment some key at hand opens the store" },
        { { "backup", NULL },
          command_backup,
          "FILE [--recipient age1…]",
          "the whole store, encrypted (age); to the recovery key, or as configured" },
        { { "restore", NULL },
          command_restore,
          "FILE --key KEYFILE [--store PATH] [--force]",
          "puts a backup into the store's place; gatewayd must not run" },
        { { "recover", NULL },
          command_recover,
          "--key KEYFILE [--store PATH]",
          "opens the store with its recovery key: its sealing key is lost" },
        { { "missing", NULL }, command_missing, "", "who has not come since the restore, and what brings each back" },
        { { "ca", "show" }, command_ca_show, "[--pem]", "the generations of the issuing CA, or their certificates" },
        { { "ca", "init" }, command_ca_init, "[--key URI]", "makes a self-signed CA for a closed site" },
        { { "ca", "csr" },
          command_ca_csr,
          "[--key URI] [--again]",
          "the request for a CA certificate under the owner's PKI (PEM)" },
        { { "ca", "import" }, command_ca_import, "FILE", "the owner's answer: the CA certificate and its chain" },
        { { "ca", "roll" },
          command_ca_roll,
          "[--within SPAN] [--key URI]",
          "makes the successor now; it signs after SPAN, or 0 at once" },
        { { "ca", "crl" }, command_ca_crl, "[--generation N]", "the latest CRL (PEM)" },
};

static void print_help(void) {
        fputs("gatewayctl: look at a gateway and act on its devices\n"
              "\n"
              "  gatewayctl [--control PATH] [--json] COMMAND …\n"
              "\n",
              stdout);
        for (size_t i = 0; i < ELEMENTS(commands); i++) {
                const struct command *command = &commands[i];

                printf("  %s%s%s %s\n        %s\n", command->words[0], command->words[1] ? " " : "",
                       command->words[1] ? command->words[1] : "", command->arguments, command->help);
        }
        fputs("\n"
              "  --control PATH   the control socket (" CONTROL_PATH ")\n"
              "  --json           JSON instead of text for people\n"
              "  --help, --version\n"
              "\n"
              "SPAN: 90 (seconds), 1h, 2d 3h.  TIME: 2026-01-31 12:00, \"3d ago\", @1767225600.\n"
              "Exit status: 0 done, 1 failed (doctor: something to mend), 2 usage, 3 nothing was changed.\n"
              "See gatewayctl(1).\n",
              stdout);
}

/* Whether `words` begin with the command's; says how many they are. */
static bool is_named(const struct command *command, int count, char **words, int *ret_taken) {
        *ret_taken = command->words[1] ? 2 : 1;
        return count >= *ret_taken && strcmp(words[0], command->words[0]) == 0 &&
               (!command->words[1] || strcmp(words[1], command->words[1]) == 0);
}

static int run_command(struct client *client, int count, char **words) {
        const char *group = NULL;
        int taken;

        for (size_t i = 0; i < ELEMENTS(commands); i++) {
                if (is_named(&commands[i], count, words, &taken))
                        return commands[i].run(client, count - taken, words + taken);
                if (commands[i].words[1] && strcmp(words[0], commands[i].words[0]) == 0)
                        group = commands[i].words[0];
        }
        if (group && count == 1)
                return usage_error("%s what?", group);
        if (group)
                return usage_error("there is no command %s %s", group, words[1]);
        return usage_error("there is no command %s", words[0]);
}

int main(int argc, char **argv) {
        struct client client = { .path = CONTROL_PATH };
        char **words = calloc((size_t)argc, sizeof *words);
        int count = 0, r;

        if (!words)
                oom();
        /* These go before or after the command's words. */
        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--json") == 0)
                        client.is_json = true;
                else if (strcmp(argv[i], "--control") == 0 && i + 1 < argc)
                        client.path = argv[++i];
                else if (strncmp(argv[i], "--control=", 10) == 0)
                        client.path = argv[i] + 10;
                else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
                        print_help();
                        free(words);
                        return EXIT_DONE;
                } else if (strcmp(argv[i], "--version") == 0) {
                        puts("gatewayctl " GATEWAYD_VERSION);
                        free(words);
                        return EXIT_DONE;
                } else
                        words[count++] = argv[i];
        }
        client.screen = screen_of(stdout);
        r = count > 0 ? run_command(&client, count, words) : usage_error("what shall I do?");
        client_close(&client);
        free(words);
        if (fflush(stdout) != 0 || ferror(stdout)) {
                complain("the output could not be written");
                r = EXIT_FAILED;
        }
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayd: the local trust authority of a device fleet. Reads the command line and becomes the
 * supervisor, or one of the roles the supervisor starts. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"
#include "gatewayd/role.h"
#include "gatewayd/supervise.h"

#define DEFAULT_CONFIG "/etc/gatewayd/gatewayd.conf"

static const char help[] = "gatewayd: the local trust authority of a device fleet (CoAP over DTLS)\n"
                           "\n"
                           "  gatewayd [--config FILE]   run; FILE is " DEFAULT_CONFIG " unless said otherwise\n"
                           "  gatewayd --check FILE      read FILE and name every mistake as file:line\n"
                           "  gatewayd --version\n"
                           "  gatewayd --help\n"
                           "\n"
                           "SIGHUP reads the configuration again; a bad file changes nothing and is logged.\n"
                           "SIGTERM ends everything in order. See gatewayd(8), gatewayd.conf(5), gatewayctl(1).\n";

static int check(const char *path) {
        _cleanup_(config_freep) struct config *config = NULL;
        struct config_problems problems = { 0 };
        int r = config_load(path, &config, &problems);

        for (size_t i = 0; i < problems.count; i++)
                fprintf(stderr, "%s\n", problems.lines[i]);
        config_problems_free(&problems);
        if (r >= 0)
                printf("%s: good, %zu %s\n", path, config->profile_count,
                       config->profile_count == 1 ? "profile" : "profiles");
        return r < 0 ? ROLE_EXIT_REFUSED : EXIT_SUCCESS;
}

static int run(const char *path) {
        struct config_problems problems = { 0 };
        struct config *config = NULL;
        int fd = -1, r = config_load_snapshot(path, &fd, &config, &problems);

        for (size_t i = 0; i < problems.count; i++)
                fprintf(stderr, "%s\n", problems.lines[i]);
        config_problems_free(&problems);
        return r < 0 ? ROLE_EXIT_REFUSED : supervise(path, config, fd);
}

static int run_role(const char *name) {
        if (strcmp(name, role_name(ROLE_CORE)) == 0)
                return core_main();
        if (strcmp(name, role_name(ROLE_SOUTH)) == 0)
                return south_main();
        if (strcmp(name, role_name(ROLE_NORTH)) == 0)
                return north_main();
        fprintf(stderr, "gatewayd: no role is called %s\n", name);
        return EXIT_FAILURE;
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "config", required_argument, NULL, 'c' }, { "check", required_argument, NULL, 'k' },
                { "role", required_argument, NULL, 'r' },   { "version", no_argument, NULL, 'v' },
                { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
        };
        const char *config = DEFAULT_CONFIG, *role = NULL;
        int c;

        while ((c = getopt_long(argc, argv, "c:h", options, NULL)) >= 0)
                switch (c) {
                case 'c':
                        config = optarg;
                        break;
                case 'k':
                        return check(optarg);
                case 'r':
                        role = optarg;
                        break;
                case 'v':
                        puts("gatewayd " GATEWAYD_VERSION);
                        return EXIT_SUCCESS;
                case 'h':
                        fputs(help, stdout);
                        return EXIT_SUCCESS;
                default:
                        fputs("Try `gatewayd --help`.\n", stderr);
                        return 2;
                }
        if (optind < argc) {
                fprintf(stderr, "gatewayd: %s: no argument is expected here. Try `gatewayd --help`.\n", argv[optind]);
                return 2;
        }
        return role ? run_role(role) : run(config);
}

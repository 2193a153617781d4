/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Trying a role's wall from inside: each attempt runs in a child that has locked itself in and says with
 * its exit status whether all went as promised. */

#include "support.h"

#include <errno.h>
#include <unistd.h>

#include "gatewayd/sandbox.h"

/* The wall as such is that of the plain build; sanitizers and coverage need holes in it. */
#ifdef GATEWAYD_WIDE_SANDBOX
#define IS_WIDE 1
#else
#define IS_WIDE 0
#endif
#define PLAIN_BUILD_ONLY()                                                                                             \
        do {                                                                                                           \
                if (IS_WIDE) {                                                                                         \
                        print_message("skipped: this build has the wide sandbox\n");                                   \
                        skip();                                                                                        \
                }                                                                                                      \
        } while (0)

/* Where a child complains; what the sandbox itself says on standard error is noise there. */
extern int complaints;
#define EXPECT(condition)                                                                                              \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        dprintf(complaints, "%s:%d: not so: %s (errno %d)\n", __func__, __LINE__, #condition, errno);  \
                        _exit(1);                                                                                      \
                }                                                                                                      \
        } while (0)

/* A gateway's folders, with a secret in the store and a setting in the configuration. */
struct place {
        char folder[64], store[80], configuration[80], runtime[80], secret[96], settings[112];
        struct sandbox_paths paths;
};
int place_set_up(void **state);
int place_tear_down(void **state);

typedef void (*attempt)(const struct place *place);
/* Runs `try` in a child locked in as `role`; returns its exit status, or 256 + the signal it died of. */
int inside(enum role role, const struct place *place, attempt try);
/* The ABI of this kernel's Landlock; 0 where it has none. */
int kernel_landlock(void);

/* Attempts of several roles. */
void try_programs(const struct place *place);   /* none can be started */
void try_ip_sockets(const struct place *place); /* none can be made, unix ones can */
void try_resolving(const struct place *place);  /* names are found, in a thread too */

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The two questions that a handshake cannot go on without: which key belongs to this identity, and is
 * this certificate good? They are asked synchronously on a link of its own, where core answers before
 * anything else. */

#include "gatewayd/link.h"
#include "gatewayd/messages.h"

#define LOOKUP_DEADLINE_USEC UINT64_C(1000000)

struct lookup;

/* Takes over `fd`. Returns 0 or -errno. */
int lookup_new(int fd, struct lookup **ret);
struct lookup *lookup_free(struct lookup *lookup);

/* `question` without its number. 0 with the key, -ENOENT (unknown or refused), -ETIMEDOUT (no answer
 * within a second; after that, for a second, nobody is made to wait again unless core has answered),
 * -EPIPE (core is gone). */
int lookup_psk(struct lookup *lookup, const struct message_psk *question, struct secret *ret);

/* `question` without its number. 0 with the verdict; -ETIMEDOUT and -EPIPE as above. */
int lookup_certificate(struct lookup *lookup, const struct message_certificate *question,
                       enum certificate_verdict *ret);

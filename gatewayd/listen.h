/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The one UDP socket that devices reach. */

#include "gatewayd/problem.h"

/* The socket kept by systemd under this address, or a new one bound to it (and handed to systemd to keep
 * across restarts). `address` is "ADDRESS:PORT" or "[ADDRESS]:PORT"; "[::]" takes IPv4 too. Where a kept
 * socket is bound elsewhere, or IPv6 is off for "[::]", a new one is made ("0.0.0.0" in the latter case).
 * Returns the descriptor or -errno with `problem`. */
int listen_take(const char *address, struct problem *problem);

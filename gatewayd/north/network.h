/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tells when the network of this machine gains something: a link, an address, a route. */

#include <systemd/sd-event.h>

struct network;

/* Opens its netlink socket now, so that none need be opened once the role is locked in.
 * Returns 0 or -errno: then the back-off alone decides when to try again. */
int network_new(sd_event *event, void (*changed)(void *userdata), void *userdata, struct network **ret);
struct network *network_free(struct network *network);

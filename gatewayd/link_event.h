/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A link in a role's sd-event loop. */

#include <systemd/sd-event.h>

#include "gatewayd/link.h"

struct link_watch;

struct link_watch_options {
        int64_t priority; /* sd-event priority; 0 normal */
        size_t burst;     /* frames taken in one dispatch: the most that one turn takes together */
        link_handler handle;
        void (*after)(void *userdata);           /* after a burst, before the link is flushed; may be NULL */
        void (*gone)(void *userdata, int error); /* end of file, malformed frame, refused NEVER_DROP; the link
                                                  * is still the owner's to free. Called once. */
        void *userdata;
};

/* Attaches `link` (borrowed) to `event`. Returns 0 or -errno. */
int link_watch_new(sd_event *event, struct link *link, const struct link_watch_options *options,
                   struct link_watch **ret);
struct link_watch *link_watch_free(struct link_watch *watch);

/* Sends what is queued and waits for the socket where it would not take all. */
void link_watch_flush(struct link_watch *watch);

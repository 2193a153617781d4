/* SPDX-License-Identifier: Apache-2.0 */

/* Joins links and sd-event: reading in bursts, EPOLLOUT only while something waits. */

#include "gatewayd/link_event.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

struct link_watch {
        struct link *link;
        sd_event_source *io;
        sd_event_source *broken; /* tells of a break found while sending, from the loop, not from the caller */
        struct link_watch_options options;
        bool is_gone;
};

static void gone(struct link_watch *watch, int error) {
        if (watch->is_gone)
                return;
        watch->is_gone = true;
        (void)sd_event_source_set_enabled(watch->io, SD_EVENT_OFF);
        watch->options.gone(watch->options.userdata, error);
}

static int on_broken(sd_event_source *source, void *userdata) {
        (void)source;
        gone(userdata, -EPIPE);
        return 0;
}

void link_watch_flush(struct link_watch *watch) {
        if (watch->is_gone)
                return;
        if (link_flush(watch->link) < 0) {
                (void)sd_event_source_set_enabled(watch->broken, SD_EVENT_ONESHOT);
                return;
        }
        (void)sd_event_source_set_io_events(watch->io, link_events(watch->link));
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct link_watch *watch = userdata;
        const struct link_watch_options *options = &watch->options;
        int r = 0;

        (void)source;
        (void)fd;
        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                r = link_receive(watch->link, options->burst, options->handle, options->userdata);
                if (options->after)
                        options->after(options->userdata);
        }
        if (r < 0) {
                gone(watch, r);
                return 0;
        }
        link_watch_flush(watch);
        return 0;
}

int link_watch_new(sd_event *event, struct link *link, const struct link_watch_options *options,
                   struct link_watch **ret) {
        struct link_watch *watch = xcalloc(1, sizeof *watch);
        int r;

        watch->link = link;
        watch->options = *options;
        r = sd_event_add_io(event, &watch->io, link_fd(link), EPOLLIN, on_io, watch);
        if (r >= 0)
                r = sd_event_source_set_priority(watch->io, options->priority);
        if (r >= 0)
                r = sd_event_add_defer(event, &watch->broken, on_broken, watch);
        if (r >= 0)
                r = sd_event_source_set_enabled(watch->broken, SD_EVENT_OFF);
        if (r < 0) {
                link_watch_free(watch);
                return r;
        }
        *ret = watch;
        return 0;
}

struct link_watch *link_watch_free(struct link_watch *watch) {
        if (!watch)
                return NULL;
        sd_event_source_disable_unref(watch->io);
        sd_event_source_disable_unref(watch->broken);
        free(watch);
        return NULL;
}

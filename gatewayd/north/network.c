/* SPDX-License-Identifier: Apache-2.0 */

/* Listens to the kernel's rtnetlink news (rtnetlink(7)). What exactly has come does not matter: any
 * gain is a reason to try the uplink. */

#include "gatewayd/north/network.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "gatewayd/bytes.h"

struct network {
        sd_event_source *source;
        void (*changed)(void *userdata);
        void *userdata;
};

static bool is_gain(const struct nlmsghdr *message) {
        switch (message->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_NEWADDR:
        case RTM_NEWROUTE:
                return true;
        default:
                return false;
        }
}

/* Takes one datagram. Returns 1 with *gain raised as it says, 0 when there is none left. */
static int take_news(int fd, bool *gain) {
        union {
                struct nlmsghdr message;
                char room[16384];
        } news;
        struct sockaddr_nl from = { 0 };
        socklen_t from_size = sizeof from;
        ssize_t n = recvfrom(fd, &news, sizeof news, MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);

        if (n < 0) {
                /* What the kernel had to drop may have been a gain. */
                if (errno == ENOBUFS)
                        *gain = true;
                return errno == ENOBUFS || errno == EINTR;
        }
        if (from.nl_pid != 0)
                return 1; /* not the kernel */
        for (const struct nlmsghdr *m = &news.message; NLMSG_OK(m, (size_t)n); m = NLMSG_NEXT(m, n))
                if (is_gain(m))
                        *gain = true;
        return 1;
}

static int on_news(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct network *network = userdata;
        bool gain = false;

        (void)source;
        (void)revents;
        while (take_news(fd, &gain) > 0)
                continue;
        if (gain)
                network->changed(network->userdata);
        return 0;
}

int network_new(sd_event *event, void (*changed)(void *userdata), void *userdata, struct network **ret) {
        const struct sockaddr_nl address = {
                .nl_family = AF_NETLINK,
                .nl_groups =
                        RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
        };
        struct network *network;
        int r, fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

        if (fd < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        network = xcalloc(1, sizeof *network);
        network->changed = changed;
        network->userdata = userdata;
        r = sd_event_add_io(event, &network->source, fd, EPOLLIN, on_news, network);
        if (r < 0) {
                close(fd);
                free(network);
                return r;
        }
        (void)sd_event_source_set_io_fd_own(network->source, true); /* cannot fail for an I/O source */
        *ret = network;
        return 0;
}

struct network *network_free(struct network *network) {
        if (!network)
                return NULL;
        sd_event_source_disable_unref(network->source);
        free(network);
        return NULL;
}

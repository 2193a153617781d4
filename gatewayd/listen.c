/* SPDX-License-Identifier: Apache-2.0 */

/* Opens the UDP socket, or takes it back from systemd. */

#include "gatewayd/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "systemd/service.h"

#define STORED_NAME "coaps"
/* Room for what arrives while south is being restarted. */
#define RECEIVE_BUFFER_BYTES (4 << 20)

union address {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
};

static int parse(const char *text, union address *ret) {
        char host[64];
        const char *colon = strrchr(text, ':');
        size_t size = colon ? (size_t)(colon - text) : 0;
        unsigned long port;
        char *end;

        *ret = (union address){ 0 };
        if (!colon || size >= sizeof host)
                return -EINVAL;
        port = strtoul(colon + 1, &end, 10);
        if (*end || end == colon + 1 || port == 0 || port > 65535)
                return -EINVAL;
        if (text[0] == '[' && size > 2 && text[size - 1] == ']') {
                snprintf(host, sizeof host, "%.*s", (int)size - 2, text + 1);
                ret->in6.sin6_family = AF_INET6;
                ret->in6.sin6_port = htons((uint16_t)port);
                return inet_pton(AF_INET6, host, &ret->in6.sin6_addr) == 1 ? 0 : -EINVAL;
        }
        snprintf(host, sizeof host, "%.*s", (int)size, text);
        ret->in.sin_family = AF_INET;
        ret->in.sin_port = htons((uint16_t)port);
        return inet_pton(AF_INET, host, &ret->in.sin_addr) == 1 ? 0 : -EINVAL;
}

static socklen_t size_of(const union address *a) {
        return a->any.sa_family == AF_INET6 ? sizeof a->in6 : sizeof a->in;
}

static bool is_bound_to(int fd, const union address *wanted) {
        union address is = { 0 };
        socklen_t size = sizeof is;

        if (getsockname(fd, &is.any, &size) < 0 || is.any.sa_family != wanted->any.sa_family)
                return false;
        if (is.any.sa_family == AF_INET)
                return is.in.sin_port == wanted->in.sin_port && is.in.sin_addr.s_addr == wanted->in.sin_addr.s_addr;
        return is.in6.sin6_port == wanted->in6.sin6_port &&
               memcmp(&is.in6.sin6_addr, &wanted->in6.sin6_addr, sizeof is.in6.sin6_addr) == 0;
}

static int open_bound(const union address *address) {
        int fd = socket(address->any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int off = 0, size = RECEIVE_BUFFER_BYTES;

        if (fd < 0)
                return -errno;
        if (address->any.sa_family == AF_INET6)
                (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        /* As large as the system allows: the forced form wants a privilege that the service does not have. */
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        if (bind(fd, &address->any, size_of(address)) < 0) {
                int error = -errno;

                close(fd);
                return error;
        }
        return fd;
}

static bool is_fallback_needed(int fd, const union address *address) {
        return fd == -EAFNOSUPPORT && address->any.sa_family == AF_INET6 &&
               IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
}

int listen_take(const char *text, struct problem *problem) {
        union address address, v4;
        int fd;

        if (parse(text, &address) < 0)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "listen", "%s is no address and port", text);
        fd = service_descriptor_take(STORED_NAME);
        if (fd >= 0 && is_bound_to(fd, &address))
                return fd;
        if (fd >= 0) {
                close(fd);
                /* The service manager's copy holds the old address, which may be in the way of the new one. */
                (void)service_descriptor_forget(STORED_NAME);
        }
        fd = open_bound(&address);
        if (is_fallback_needed(fd, &address)) {
                v4 = (union address){ .in = { .sin_family = AF_INET, .sin_port = address.in6.sin6_port } };
                fd = open_bound(&v4);
        }
        if (fd < 0)
                return problem_set(problem, CODE_INTERNAL, -fd, "listen", "%s cannot be bound: %s", text,
                                   strerror(-fd));
        (void)service_descriptor_store(STORED_NAME, fd); /* without a service manager there is nobody to keep it */
        return fd;
}

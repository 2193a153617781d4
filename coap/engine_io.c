/* SPDX-License-Identifier: Apache-2.0 */

/* The system calls that libcoap is to meet. They are found before libc's because the executable is
 * searched first: they must be exported ("default" visibility, also in a build with
 * -fvisibility=hidden), and engine.c tests at every start that they are reached. */

#include "coap/engine_io.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
/* libFuzzer's alarm reads the calendar in the midst of anything. */
#ifdef GATEWAYD_FUZZ
#define CLOCK_INSIDE CLOCK_REALTIME
#else
#define CLOCK_INSIDE CLOCK_MONOTONIC
#endif
/* Placeholders are made at the start, so their numbers are small. */
#define DESCRIPTORS_MAX 4096

struct slot {
        void *engine;
        struct epoll_event event;
};

static struct slot slots[DESCRIPTORS_MAX];
static struct engine_io_hooks hooks_of_all;
static void *attaching;
static int attached_fd = -1;
static unsigned inside;
static uint64_t clock_reads;

static struct slot *slot_of(int fd) {
        if (fd < 0 || fd >= DESCRIPTORS_MAX || !slots[fd].engine)
                return NULL;
        return &slots[fd];
}

void engine_io_attach_begin(void *engine, const struct engine_io_hooks *hooks) {
        hooks_of_all = *hooks;
        attaching = engine;
        attached_fd = -1;
}

int engine_io_attach_end(void) {
        attaching = NULL;
        return attached_fd >= 0 ? attached_fd : -ENOTCONN;
}

int engine_io_event(int fd, struct epoll_event *ret) {
        const struct slot *slot = slot_of(fd);

        if (!slot || !slot->event.events)
                return -ENOENT;
        *ret = slot->event;
        return 0;
}

void engine_io_enter(void) {
        inside++;
}

void engine_io_leave(void) {
        inside--;
}

uint64_t engine_io_clock_reads(void) {
        return clock_reads;
}

/* The headers' own names of parameters are reserved ones. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
EXPORTED int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t size) {
        if (attaching && attached_fd < 0 && fd >= 0 && fd < DESCRIPTORS_MAX) {
                attached_fd = fd;
                slots[fd] = (struct slot){ .engine = attaching };
                return 0;
        }
        return (int)syscall(SYS_bind, fd, address.__sockaddr__, size);
}

EXPORTED int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
        struct slot *slot = slot_of(fd);

        if (!slot)
                return (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
        if (operation == EPOLL_CTL_DEL)
                *slot = (struct slot){ 0 };
        else
                slot->event = *event;
        return 0;
}

/* libcoap asks which local address a datagram came to; without this it would ask getsockname() for
 * each one. */
static void put_packet_info(struct msghdr *message) {
        struct in_pktinfo info = { .ipi_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct cmsghdr *control;

        if (message->msg_controllen < CMSG_SPACE(sizeof info)) {
                message->msg_controllen = 0;
                return;
        }
        message->msg_controllen = CMSG_SPACE(sizeof info);
        control = CMSG_FIRSTHDR(message);
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_PKTINFO;
        control->cmsg_len = CMSG_LEN(sizeof info);
        memcpy(CMSG_DATA(control), &info, sizeof info);
}

EXPORTED ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
        struct slot *slot = slot_of(fd);
        struct sockaddr_in from;
        ssize_t size;

        if (!slot)
                return syscall(SYS_recvmsg, fd, message, flags);
        if (message->msg_iovlen < 1 || message->msg_namelen < sizeof from) {
                errno = EINVAL;
                return -1;
        }
        size = hooks_of_all.receive(slot->engine, &from, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
        if (size < 0) {
                errno = ECONNREFUSED; /* the one error that libcoap takes without a word */
                return -1;
        }
        memcpy(message->msg_name, &from, sizeof from);
        message->msg_namelen = sizeof from;
        message->msg_flags = 0;
        put_packet_info(message);
        return size;
}

EXPORTED ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
        struct slot *slot = slot_of(fd);
        struct sockaddr_in to;

        if (!slot)
                return syscall(SYS_sendmsg, fd, message, flags);
        if (message->msg_iovlen != 1 || message->msg_namelen < sizeof to) {
                errno = EINVAL;
                return -1;
        }
        memcpy(&to, message->msg_name, sizeof to);
        hooks_of_all.send(slot->engine, &to, BYTES(message->msg_iov[0].iov_base, message->msg_iov[0].iov_len));
        /* Also for a peer that has gone: an error would make libcoap tear its session down. */
        return (ssize_t)message->msg_iov[0].iov_len;
}

static int next_clock_gettime(clockid_t clock, struct timespec *ret) {
        static int (*next)(clockid_t, struct timespec *);

        if (!next) {
#if __TIMESIZE == 32 && defined(__USE_TIME_BITS64)
                void *found = dlsym(RTLD_NEXT, "__clock_gettime64");
#else
                void *found = dlsym(RTLD_NEXT, "clock_gettime");
#endif
                if (!found)
                        return (int)syscall(SYS_clock_gettime, clock, ret);
                memcpy(&next, &found, sizeof next);
        }
        return next(clock, ret);
}

EXPORTED int clock_gettime(clockid_t clock, struct timespec *ret) {
        if (inside && clock == CLOCK_REALTIME) {
                clock_reads++;
                clock = CLOCK_INSIDE;
        }
        return next_clock_gettime(clock, ret);
}

EXPORTED int gettimeofday(struct timeval *restrict ret, void *restrict zone) {
        struct timespec now;

        (void)zone;
        if (next_clock_gettime(inside ? CLOCK_INSIDE : CLOCK_REALTIME, &now) < 0)
                return -1;
        ret->tv_sec = now.tv_sec;
        ret->tv_usec = now.tv_nsec / 1000;
        return 0;
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

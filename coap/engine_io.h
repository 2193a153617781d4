/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where libcoap meets the kernel, and does not get there.
 *
 * The executable's own bind(), epoll_ctl(), recvmsg(), sendmsg(), clock_gettime() and gettimeofday()
 * take precedence over libc's. For a descriptor that is an engine's placeholder they hand datagrams in
 * and take datagrams out; for every other descriptor they pass through to the kernel. So libcoap works
 * on decrypted datagrams without a socket, and its clock, like that of OpenSSL's DTLS timers, cannot
 * be set. Function interposition has no context argument: this file alone keeps static state. */

#include <netinet/in.h>

#include "gatewayd/bytes.h"

struct epoll_event;

struct engine_io_hooks {
        /* Gives the next datagram for `engine`: returns its size after copying at most `size` bytes, or
         * -1 when there is none. */
        ssize_t (*receive)(void *engine, struct sockaddr_in *from, void *to, size_t size);
        /* Takes one of libcoap's. */
        void (*send)(void *engine, const struct sockaddr_in *to, struct bytes data);
};

/* Until engine_io_attach_end() the next descriptor that libcoap binds belongs to `engine`. */
void engine_io_attach_begin(void *engine, const struct engine_io_hooks *hooks);
/* Returns that descriptor, or -ENOTCONN: libcoap did not come through here, so this executable does
 * not export its functions or this libcoap works in another way. */
int engine_io_attach_end(void);

/* The event that libcoap wants to hear of when its descriptor is readable. 0 or -ENOENT. */
int engine_io_event(int fd, struct epoll_event *ret);

/* Between these two the calendar clock is CLOCK_MONOTONIC. They nest. */
void engine_io_enter(void);
void engine_io_leave(void);

/* How often libcoap asked for the time between enter and leave: the self-test wants to see it. */
uint64_t engine_io_clock_reads(void);

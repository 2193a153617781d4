/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The real core in a process of its own, between a supervisor, a south and a north that the crash harness plays.
 * Core may end at any moment: then is_gone says so and everything returns GONE until it is started again. */

#include <sys/types.h>

#include "gatewayd/messages.h"
#include "gatewayd/problem.h"

#define GONE -32 /* -EPIPE */

struct gateway {
        char folder[256];  /* the store's, with everything else of this gateway */
        const char *build; /* where gatewayd and gatewayctl of the test-clock build are */
        pid_t pid;
        struct link *supervisor, *lookup, *exchange, *north;
        bool is_gone, is_ready, has_answer, has_pong;
        int status; /* of waitpid(), once it is gone */
        uint32_t generation;
        uint64_t number; /* of sessions and exchanges */
        int64_t *points; /* passed, fatal: gatewayd/crash_point.h */
        int64_t *clock;  /* gatewayd/clock.h */

        session_handle asking; /* whose answer is waited for */
        uint64_t exchange_number;
        bool is_evicted;
        uint8_t code;
        struct buffer payload;
        struct secret psk;
        bool is_found;
        enum certificate_verdict verdict;
        /* What north gets; it answers by gateway_north(). */
        void (*record)(void *userdata, const struct message_record *record);
        void *userdata;
        struct buffer output; /* of the last gatewayctl */
};

/* Ends the whole with what went wrong and the end of core's log. */
_Noreturn void gateway_fail(const struct gateway *g, const char *format, ...) _printf_(2, 3);

/* The folder is there; makes the maps of points and clock in it, and the configuration: these settings (NULL: none) and
 * profiles. */
void gateway_prepare(struct gateway *g, const char *settings, const char *profiles);
/* Starts core and connects south and north. 0 or GONE. */
int gateway_start(struct gateway *g);
/* A new north takes the place of the one before. 0 or GONE. */
int gateway_reconnect(struct gateway *g);
/* Tells it to end, and waits. 0 or GONE, where it died instead. */
int gateway_stop(struct gateway *g);

/* South's questions: 1 found or accepted, 0 not, or GONE. */
int gateway_psk(struct gateway *g, const char *identity, struct secret *ret);
int gateway_certificate(struct gateway *g, struct bytes chain);
/* A completed handshake: with an identity or a chain. Nobody answers that. The handle, or 0: gone. */
session_handle gateway_connected(struct gateway *g, const char *identity, struct bytes chain);
/* A request; its answer is in code and payload. 0, -EACCES (the session was evicted), or GONE. */
int gateway_request(struct gateway *g, session_handle session, uint8_t method, const char *path, int32_t content_format,
                    int32_t accept, struct bytes payload);
/* North says something. 0 or GONE. */
int gateway_north(struct gateway *g, uint8_t type, const struct buffer *body);
/* Takes frames until a PONG: what core had to say before is here then. 0 or GONE. */
int gateway_settle(struct gateway *g);
/* gatewayctl with these words; its exit status, output in g->output, or GONE. */
int gateway_ctl(struct gateway *g, const char *const words[]);
#define CTL(g, ...) gateway_ctl((g), (const char *const[]){ __VA_ARGS__, NULL })
/* Between two looks at what is waited for; what ends the wait is the condition. */
void gateway_pause(struct gateway *g);
int64_t gateway_now(const struct gateway *g);

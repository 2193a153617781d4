/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by south.c (the loop, core's frames, libcoap's side) and south_dtls.c (what DTLS asks and tells).
 * Nobody else includes it. */

#include <systemd/sd-event.h>

#include "coap/datagrams.h"
#include "coap/dtls.h"
#include "coap/engine.h"
#include "coap/failures.h"
#include "coap/lookup.h"
#include "coap/requests.h"
#include "coap/south.h"
#include "gatewayd/link_event.h"

struct south {
        sd_event *event;
        struct south_settings settings;
        uint32_t generation;
        uint64_t counters[SOUTH_COUNTERS], counters_told[SOUTH_COUNTERS];
        uint64_t statistics_usec; /* when they were told last */
        struct datagrams *datagrams;
        struct dtls *dtls;
        struct engines *engines;
        struct requests *requests;
        struct failures *failures;
        struct lookup *lookup;
        struct link *exchange;
        struct link_watch *watch;
        sd_event_source *udp, *timer;
        uint64_t wake_usec;  /* when `timer` fires; UINT64_MAX: not armed */
        uint64_t now_usec;   /* at the beginning of the turn */
        struct buffer frame; /* bodies of frames are written here */
        void (*ready)(void *userdata);
        void *ready_userdata;
        bool is_ready; /* core has told its credentials */
        bool is_ending;
};

/* Ends the loop with this result. */
void south_end(struct south *south, int error);
/* Sends south->frame, which may not be dropped. Where the link does not take it, core would believe in
 * sessions that are not there: south ends, and both begin anew. */
void south_send_surely(struct south *south, uint8_t type);

/* south->dtls, with handlers that ask and tell core. 0 or -errno with a reason. */
int south_dtls_new(struct south *south, struct problem *problem);
/* Takes a FRAME_SERVER_CREDENTIALS. 0, or -EBADMSG. */
int south_take_credentials(struct south *south, struct bytes body);

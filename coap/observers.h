/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who observes what (RFC 7641): session, token, path. Our own list, because libcoap's notify call wakes
 * every observer of a resource, and /me is a different thing for each device. One confirmable
 * notification is under way per observer; what comes meanwhile replaces what waits. */

#include "coap/pdu.h"
#include "coap/sessions.h"

#define OBSERVERS_PER_SESSION 4

struct observer {
        struct session *session;
        uint8_t token[TOKEN_MAX];
        size_t token_size;
        uint8_t method;
        struct buffer path, query;
        struct block block2; /* what the client asked for when it registered */
        uint32_t sequence;   /* of the last Observe option, 24 bits */
        bool is_under_way;
        uint16_t message_id; /* of the notification under way */
        bool has_waiting;
        struct answer waiting; /* the newest state, to be sent after the acknowledgement */
        struct buffer waiting_payload;
        uint16_t waiting_block_size;
        LIST_ENTRY(observer) of_session;
};

/* Enters an observer, or renews the one with this token. NULL when the session has too many. `counter`
 * (SOUTH_OBSERVERS) is kept up to date. */
struct observer *observers_add(struct session *session, const struct observer *like, uint64_t *counter);
struct observer *observers_find(const struct session *session, struct bytes token);
void observers_remove(struct observer *observer, uint64_t *counter);
void observers_forget(struct session *session, uint64_t *counter);

struct observer *observers_under_way(const struct session *session, uint16_t message_id);
/* The next sequence number for this observer. */
int32_t observers_next_sequence(struct observer *observer);
/* Lets `answer` wait for the acknowledgement of the one under way, in the place of what waits. */
void observers_wait(struct observer *observer, const struct answer *answer, uint16_t block_size);

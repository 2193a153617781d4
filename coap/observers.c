/* SPDX-License-Identifier: Apache-2.0 */

/* The list of observers of each session. */

#include "coap/observers.h"

#include <stdlib.h>

struct observer *observers_find(const struct session *session, struct bytes token) {
        struct observer *observer;

        LIST_FOREACH(observer, &session->observers, of_session)
                if (bytes_equal(BYTES(observer->token, observer->token_size), token))
                        return observer;
        return NULL;
}

static void set(struct buffer *to, const struct buffer *from) {
        to->size = 0;
        buffer_append(to, buffer_bytes(from));
}

struct observer *observers_add(struct session *session, const struct observer *like, uint64_t *counter) {
        struct observer *observer = observers_find(session, BYTES(like->token, like->token_size));

        if (!observer) {
                if (session->observer_count >= OBSERVERS_PER_SESSION)
                        return NULL;
                observer = xcalloc(1, sizeof *observer);
                observer->session = session;
                memcpy(observer->token, like->token, like->token_size);
                observer->token_size = like->token_size;
                LIST_INSERT_HEAD(&session->observers, observer, of_session);
                session->observer_count++;
                (*counter)++;
        }
        observer->method = like->method;
        observer->block2 = like->block2;
        set(&observer->path, &like->path);
        set(&observer->query, &like->query);
        return observer;
}

void observers_remove(struct observer *observer, uint64_t *counter) {
        LIST_REMOVE(observer, of_session);
        observer->session->observer_count--;
        (*counter)--;
        buffer_free(&observer->path);
        buffer_free(&observer->query);
        buffer_free(&observer->waiting_payload);
        free(observer);
}

void observers_forget(struct session *session, uint64_t *counter) {
        struct observer *observer, *next;

        for (observer = LIST_FIRST(&session->observers); observer; observer = next) {
                next = LIST_NEXT(observer, of_session);
                observers_remove(observer, counter);
        }
}

struct observer *observers_under_way(const struct session *session, uint16_t message_id) {
        struct observer *observer;

        LIST_FOREACH(observer, &session->observers, of_session)
                if (observer->is_under_way && observer->message_id == message_id)
                        return observer;
        return NULL;
}

int32_t observers_next_sequence(struct observer *observer) {
        observer->sequence = (observer->sequence + 1) & 0xffffff;
        return (int32_t)observer->sequence;
}

void observers_wait(struct observer *observer, const struct answer *answer, uint16_t block_size) {
        observer->waiting = *answer;
        observer->waiting.problem = (struct buffer){ 0 };
        observer->waiting_payload.size = 0;
        buffer_append(&observer->waiting_payload, answer->payload);
        observer->waiting_block_size = block_size;
        observer->has_waiting = true;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Notifications: one confirmable message per observer under way, the newest state after it, and no more
 * once the device has answered with a Reset or not at all. */

#include "coap/requests_parts.h"

/* Sends the state to one observer. */
static void notify(struct requests *requests, struct observer *observer, struct answer *answer, uint16_t block_size,
                   uint64_t now_usec) {
        struct session *session = observer->session;
        struct kept_key key = { observer->method, buffer_bytes(&observer->path), buffer_bytes(&observer->query) };
        uint64_t *counters = requests->options.counters;
        struct block wanted = observer->block2;
        int r;

        wanted.number = 0;
        requests_cut(requests, session, &key, &wanted, block_size, now_usec, answer);
        if (answer->code < CODE_BAD_REQUEST)
                answer->observe = observers_next_sequence(observer);
        observer->message_id = session->next_message_id++;
        r = engines_send(requests->engines, session, MESSAGE_CONFIRMABLE, observer->message_id,
                         BYTES(observer->token, observer->token_size), answer);
        if (r < 0)
                return;
        counters[SOUTH_NOTIFICATIONS]++;
        observer->is_under_way = true;
        /* An error ends the observation (RFC 7641 §4.2). */
        if (answer->code >= CODE_BAD_REQUEST)
                observers_remove(observer, &counters[SOUTH_OBSERVERS]);
}

void requests_notify(struct requests *requests, const struct message_reply *reply, uint64_t now_usec) {
        struct session *session = requests_session(requests, reply->session);
        struct observer *observer, *next;

        if (!session)
                return;
        for (observer = LIST_FIRST(&session->observers); observer; observer = next) {
                struct answer answer = answer_of_reply(reply);

                next = LIST_NEXT(observer, of_session);
                if (!bytes_equal(buffer_bytes(&observer->path), reply->path))
                        continue;
                if (observer->is_under_way)
                        observers_wait(observer, &answer, reply->block_size);
                else
                        notify(requests, observer, &answer, reply->block_size, now_usec);
                answer_clear(&answer);
        }
}

void requests_acknowledged(struct requests *requests, struct session *session, uint16_t message_id, uint64_t now_usec) {
        struct observer *observer = observers_under_way(session, message_id);
        struct answer answer;

        if (!observer)
                return;
        observer->is_under_way = false;
        if (!observer->has_waiting)
                return;
        observer->has_waiting = false;
        answer = observer->waiting;
        answer.payload = buffer_bytes(&observer->waiting_payload);
        notify(requests, observer, &answer, observer->waiting_block_size, now_usec);
        answer_clear(&answer);
}

void requests_undelivered(struct requests *requests, struct session *session, uint16_t message_id) {
        struct observer *observer = observers_under_way(session, message_id);

        if (observer)
                observers_remove(observer, &requests->options.counters[SOUTH_OBSERVERS]);
}

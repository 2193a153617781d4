/* SPDX-License-Identifier: Apache-2.0 */

/* Asking core for a key and waiting for the answer, never for long. */

#include "coap/lookup.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "coap/monotonic.h"

#define QUEUE_BYTES (64 * 1024)

struct lookup {
        struct link *link;
        uint32_t last_question;
        uint64_t rest_until_usec; /* core has left a question unanswered: ask no more before */
        bool is_answered;         /* the last question */
        struct message_psk_answer answer;
};

int lookup_new(int fd, struct lookup **ret) {
        struct lookup *lookup = xcalloc(1, sizeof *lookup);
        int r = link_new(fd, QUEUE_BYTES, &lookup->link);

        if (r < 0) {
                free(lookup);
                return r;
        }
        *ret = lookup;
        return 0;
}

struct lookup *lookup_free(struct lookup *lookup) {
        if (!lookup)
                return NULL;
        link_free(lookup->link);
        secret_wipe(&lookup->answer.key);
        free(lookup);
        return NULL;
}

static int take_answer(void *userdata, struct frame *frame) {
        struct lookup *lookup = userdata;
        struct message_psk_answer answer;
        int r;

        if (frame->type != FRAME_PSK_ANSWER)
                return -EBADMSG;
        r = message_read_psk_answer(frame->body, &answer);
        if (r >= 0) {
                lookup->rest_until_usec = 0; /* late or not, core is there */
                if (answer.question == lookup->last_question) {
                        lookup->answer = answer;
                        lookup->is_answered = true;
                }
        }
        secret_wipe(&answer.key);
        return r;
}

static int wait_for_answer(struct lookup *lookup, uint64_t deadline_usec) {
        while (!lookup->is_answered) {
                struct pollfd poll_one = { .fd = link_fd(lookup->link), .events = (short)link_events(lookup->link) };
                uint64_t now_usec = monotonic_usec();
                int r;

                if (now_usec >= deadline_usec)
                        return -ETIMEDOUT;
                r = poll(&poll_one, 1, (int)((deadline_usec - now_usec + 999) / 1000));
                if (r < 0 && errno != EINTR)
                        return -errno;
                if (r <= 0)
                        continue;
                r = link_flush(lookup->link);
                if (r >= 0)
                        r = link_receive(lookup->link, 16, take_answer, lookup);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int ask(struct lookup *lookup, const struct message_psk *question) {
        struct message_psk numbered = *question;
        struct buffer body = { 0 };
        int r;

        numbered.question = ++lookup->last_question;
        lookup->is_answered = false;
        message_write_psk(&numbered, &body);
        r = link_send(lookup->link, FRAME_PSK, buffer_bytes(&body), LINK_MAY_REFUSE);
        buffer_free(&body);
        if (r < 0)
                return r == -EPIPE ? -EPIPE : -ETIMEDOUT;
        return link_flush(lookup->link);
}

int lookup_psk(struct lookup *lookup, const struct message_psk *question, struct secret *ret) {
        uint64_t now_usec = monotonic_usec();
        int r = link_receive(lookup->link, 16, take_answer, lookup);

        if (r < 0)
                return -EPIPE;
        if (now_usec < lookup->rest_until_usec)
                return -ETIMEDOUT;
        r = ask(lookup, question);
        if (r >= 0)
                r = wait_for_answer(lookup, now_usec + LOOKUP_DEADLINE_USEC);
        if (r == -ETIMEDOUT)
                lookup->rest_until_usec = monotonic_usec() + LOOKUP_DEADLINE_USEC;
        if (r < 0)
                return r == -ETIMEDOUT ? -ETIMEDOUT : -EPIPE;
        if (!lookup->answer.is_found || lookup->answer.key.size == 0)
                return -ENOENT;
        *ret = lookup->answer.key;
        secret_wipe(&lookup->answer.key);
        return 0;
}

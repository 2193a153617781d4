/* SPDX-License-Identifier: Apache-2.0 */

/* Asking core for a key or a verdict and waiting for the answer, never for long. */

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
        uint8_t answered;         /* what answered the last question; 0: nothing yet */
        struct message_psk_answer answer;
        enum certificate_verdict verdict;
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

/* Whether it answers the last question: one that comes too late answers nothing. */
static bool is_expected(struct lookup *lookup, uint32_t question) {
        lookup->rest_until_usec = 0; /* late or not, core is there */
        return question == lookup->last_question;
}

static int take_key(struct lookup *lookup, struct bytes body) {
        struct message_psk_answer answer;
        int r = message_read_psk_answer(body, &answer);

        if (r >= 0 && is_expected(lookup, answer.question)) {
                lookup->answer = answer;
                lookup->answered = FRAME_PSK_ANSWER;
        }
        secret_wipe(&answer.key);
        return r;
}

static int take_verdict(struct lookup *lookup, struct bytes body) {
        struct message_certificate_answer answer;
        int r = message_read_certificate_answer(body, &answer);

        if (r >= 0 && is_expected(lookup, answer.question)) {
                lookup->verdict = answer.verdict;
                lookup->answered = FRAME_CERTIFICATE_ANSWER;
        }
        return r;
}

static int take_answer(void *userdata, struct frame *frame) {
        if (frame->type == FRAME_PSK_ANSWER)
                return take_key(userdata, frame->body);
        if (frame->type == FRAME_CERTIFICATE_ANSWER)
                return take_verdict(userdata, frame->body);
        return -EBADMSG;
}

static int wait_for_answer(struct lookup *lookup, uint64_t deadline_usec) {
        while (!lookup->answered) {
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

static int ask(struct lookup *lookup, uint8_t type, struct bytes body) {
        int r;

        lookup->answered = 0;
        r = link_send(lookup->link, type, body, LINK_MAY_REFUSE);
        if (r < 0)
                return r == -EPIPE ? -EPIPE : -ETIMEDOUT;
        return link_flush(lookup->link);
}

/* Asks what `body` says and waits for an answer of the type given. 0, -ETIMEDOUT or -EPIPE. */
static int ask_and_wait(struct lookup *lookup, uint8_t type, struct bytes body, uint8_t wanted) {
        uint64_t now_usec = monotonic_usec();
        int r = link_receive(lookup->link, 16, take_answer, lookup);

        if (r < 0)
                return -EPIPE;
        if (now_usec < lookup->rest_until_usec)
                return -ETIMEDOUT;
        r = ask(lookup, type, body);
        if (r >= 0)
                r = wait_for_answer(lookup, now_usec + LOOKUP_DEADLINE_USEC);
        if (r == -ETIMEDOUT)
                lookup->rest_until_usec = monotonic_usec() + LOOKUP_DEADLINE_USEC;
        if (r < 0)
                return r == -ETIMEDOUT ? -ETIMEDOUT : -EPIPE;
        return lookup->answered == wanted ? 0 : -EPIPE; /* a core that answers so is none */
}

int lookup_psk(struct lookup *lookup, const struct message_psk *question, struct secret *ret) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_psk numbered = *question;
        int r;

        numbered.question = ++lookup->last_question;
        message_write_psk(&numbered, &body);
        r = ask_and_wait(lookup, FRAME_PSK, buffer_bytes(&body), FRAME_PSK_ANSWER);
        if (r < 0)
                return r;
        if (!lookup->answer.is_found || lookup->answer.key.size == 0)
                return -ENOENT;
        *ret = lookup->answer.key;
        secret_wipe(&lookup->answer.key);
        return 0;
}

int lookup_certificate(struct lookup *lookup, const struct message_certificate *question,
                       enum certificate_verdict *ret) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_certificate numbered = *question;
        int r;

        numbered.question = ++lookup->last_question;
        message_write_certificate(&numbered, &body);
        r = ask_and_wait(lookup, FRAME_CERTIFICATE, buffer_bytes(&body), FRAME_CERTIFICATE_ANSWER);
        if (r < 0)
                return r;
        *ret = lookup->verdict;
        return 0;
}

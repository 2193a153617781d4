/* SPDX-License-Identifier: Apache-2.0 */

/* Exchanges: from the request to its answer. */

#include "coap/requests_parts.h"

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/format.h"

struct requests *requests_new(const struct requests_options *options) {
        struct requests *requests = xcalloc(1, sizeof *requests);

        requests->options = *options;
        requests->blocks = blocks_new(options->settings->max_bodies, options->settings->max_body_bytes);
        requests->kept = kept_new(options->settings->max_bodies);
        TAILQ_INIT(&requests->early);
        TAILQ_INIT(&requests->late);
        return requests;
}

struct requests *requests_free(struct requests *requests) {
        if (!requests)
                return NULL;
        blocks_free(requests->blocks);
        kept_free(requests->kept);
        free(requests);
        return NULL;
}

void requests_use_engines(struct requests *requests, struct engines *engines) {
        requests->engines = engines;
}

static struct bytes token_of(const struct exchange *exchange) {
        return BYTES(exchange->token, exchange->token_size);
}

static struct exchange *exchange_new(struct requests *requests, struct session *session, const struct request *request,
                                     uint64_t now_usec) {
        struct exchange *exchange = xcalloc(1, sizeof *exchange);

        exchange->session = session;
        exchange->number = ++requests->last_exchange;
        exchange->message_id = request->message_id;
        memcpy(exchange->token, request->token.data, request->token.size);
        exchange->token_size = request->token.size;
        exchange->is_confirmable = request->is_confirmable;
        exchange->method = request->method;
        exchange->no_response = request->no_response;
        exchange->observe = request->observe;
        exchange->block1 = request->block1;
        exchange->block2 = request->block2;
        buffer_append(&exchange->path, request->path);
        buffer_append(&exchange->query, request->query);
        exchange->begun_usec = now_usec;
        LIST_INSERT_HEAD(&session->exchanges, exchange, of_session);
        TAILQ_INSERT_TAIL(&requests->early, exchange, by_age);
        session->exchange_count++;
        session->holds++;
        requests->exchange_count++;
        return exchange;
}

static void exchange_drop(struct requests *requests, struct exchange *exchange) {
        LIST_REMOVE(exchange, of_session);
        TAILQ_REMOVE(exchange->is_late ? &requests->late : &requests->early, exchange, by_age);
        exchange->session->exchange_count--;
        exchange->session->holds--;
        requests->exchange_count--;
        buffer_free(&exchange->path);
        buffer_free(&exchange->query);
        free(exchange);
}

void requests_forget(struct requests *requests, struct session *session) {
        struct exchange *exchange;

        while ((exchange = LIST_FIRST(&session->exchanges)))
                exchange_drop(requests, exchange);
        blocks_forget(requests->blocks, session);
        kept_forget(requests->kept, session);
        observers_forget(session, &requests->options.counters[SOUTH_OBSERVERS]);
        requests->options.counters[SOUTH_BLOCK_BODIES] = blocks_open(requests->blocks);
}

static enum request_verdict refuse(struct answer *answer, const struct problem *problem) {
        answer_with_problem(answer, problem);
        return REQUEST_ANSWERED;
}

/* The largest block whose message fits into one datagram of ours to this session. */
static uint8_t largest_block(const struct requests *requests, const struct session *session) {
        size_t room = requests->options.room(session);
        uint8_t exponent = EXPONENT_MAX;

        while (exponent > 0 && block_bytes(exponent) + ANSWER_OVERHEAD_BYTES > room)
                exponent--;
        return exponent;
}

static uint8_t exponent_of(const struct requests *requests, uint16_t block_size) {
        uint8_t exponent = 0;

        if (block_size == 0)
                block_size = requests->options.settings->block_size;
        while (exponent < EXPONENT_MAX && block_bytes((uint8_t)(exponent + 1)) <= block_size)
                exponent++;
        return exponent;
}

void requests_cut(struct requests *requests, struct session *session, const struct kept_key *key,
                  const struct block *wanted, uint16_t block_size, uint64_t now_usec, struct answer *answer) {
        kept_cut(requests->kept, session, key, wanted, largest_block(requests, session),
                 exponent_of(requests, block_size), now_usec, answer);
}

static struct exchange *waiting_for(const struct session *session, const struct request *request) {
        struct exchange *exchange;

        LIST_FOREACH(exchange, &session->exchanges, of_session)
                if (exchange->message_id == request->message_id && bytes_equal(token_of(exchange), request->token))
                        return exchange;
        return NULL;
}

/* Asks for a further block of an answer. Only a reading method may be asked of core anew where
 * nothing is kept: a POST must not act twice. */
static bool serve_kept(struct requests *requests, struct session *session, const struct request *request,
                       uint64_t now_usec, struct answer *answer) {
        struct kept_key key = { request->method, request->path, request->query };
        struct problem problem = { 0 };

        if (!request->block2.is_present || request->block2.number == 0)
                return false;
        if (kept_serve(requests->kept, session, &key, &request->block2, largest_block(requests, session), now_usec,
                       answer))
                return true;
        if (request->method == CODE_GET || request->method == CODE_FETCH)
                return false;
        (void)problem_set(&problem, CODE_REQUEST_INCOMPLETE, ENOENT, "answer not kept",
                          "the answer to this request is no longer here: send the request again");
        answer_with_problem(answer, &problem);
        return true;
}

static bool refuse_options(const struct request *request, struct answer *answer) {
        struct problem problem = { 0 };

        if (request->refused_option)
                (void)problem_set(&problem, CODE_BAD_OPTION, EPROTO, "critical option not understood",
                                  "option %u is not supported", (unsigned)request->refused_option);
        else if (request->block2.is_present && request->block2.is_bad)
                (void)problem_set(&problem, CODE_BAD_REQUEST, EPROTO, "bad Block2 option",
                                  "the block size 7 is reserved");
        else
                return false;
        answer_with_problem(answer, &problem);
        return true;
}

/* Takes the body, in blocks or whole. True when the request may go on with `body`. */
static bool take_body(struct requests *requests, struct session *session, const struct request *request,
                      uint64_t now_usec, struct bytes *body, struct answer *answer) {
        struct problem problem = { 0 };
        enum block_verdict verdict;

        if (!request->block1.is_present) {
                *body = request->payload;
                return true;
        }
        verdict = blocks_take(requests->blocks, session, request, now_usec, body, &problem);
        requests->options.counters[SOUTH_BLOCK_BODIES] = blocks_open(requests->blocks);
        switch (verdict) {
        case BLOCK_COMPLETE:
                return true;
        case BLOCK_CONTINUE:
                answer->code = CODE_CONTINUE;
                answer->block1 = request->block1;
                return false;
        case BLOCK_REFUSED:
        default:
                answer_with_problem(answer, &problem);
                return false;
        }
}

static bool too_many(const struct requests *requests, const struct session *session, struct problem *problem) {
        if (session->exchange_count >= EXCHANGES_PER_SESSION)
                (void)problem_set(problem, CODE_TOO_MANY_REQUESTS, EBUSY, "too many requests",
                                  "at most %d may wait for an answer at once", EXCHANGES_PER_SESSION);
        else if (requests->exchange_count >= EXCHANGES_MAX)
                (void)problem_set(problem, CODE_UNAVAILABLE, EBUSY, "gateway busy",
                                  "too many requests wait for an answer");
        else
                return false;
        problem->max_age_sec = 5;
        return true;
}

static int tell_core(struct requests *requests, const struct exchange *exchange, const struct request *request,
                     struct bytes body) {
        struct message_request message = {
                .session = (uint64_t)requests->options.generation << 32 | exchange->session->number,
                .exchange = exchange->number,
                .message_id = request->message_id,
                .token = request->token,
                .method = request->method,
                .path = request->path,
                .query = request->query,
                .content_format = request->content_format,
                .accept = request->accept,
                .observe = request->observe == 0 || request->observe == 1 ? request->observe : -1,
                .payload = body,
        };

        return requests->options.tell_core(requests->options.userdata, &message);
}

static enum request_verdict pass_on(struct requests *requests, struct session *session, const struct request *request,
                                    struct bytes body, uint64_t now_usec, struct answer *answer) {
        uint64_t *counters = requests->options.counters;
        struct problem problem = { 0 };
        struct observer *observer;
        struct exchange *exchange;

        if (too_many(requests, session, &problem)) {
                counters[SOUTH_REQUESTS_REFUSED]++;
                return refuse(answer, &problem);
        }
        exchange = exchange_new(requests, session, request, now_usec);
        if (tell_core(requests, exchange, request, body) < 0) {
                exchange_drop(requests, exchange);
                counters[SOUTH_REQUESTS_REFUSED]++;
                (void)problem_set(&problem, CODE_UNAVAILABLE, EBUSY, "gateway busy",
                                  "the gateway has more requests than it can take now");
                problem.max_age_sec = 5;
                return refuse(answer, &problem);
        }
        counters[SOUTH_REQUESTS]++;
        observer = request->observe == 1 ? observers_find(session, request->token) : NULL;
        if (observer)
                observers_remove(observer, &counters[SOUTH_OBSERVERS]);
        return REQUEST_PENDING;
}

enum request_verdict requests_take(struct requests *requests, struct session *session, const struct request *request,
                                   uint64_t now_usec, struct answer *answer) {
        const struct exchange *waiting = waiting_for(session, request);
        struct bytes body;

        if (waiting)
                return waiting->is_late && request->is_confirmable ? REQUEST_ACKNOWLEDGED : REQUEST_PENDING;
        if (refuse_options(request, answer) || serve_kept(requests, session, request, now_usec, answer) ||
            !take_body(requests, session, request, now_usec, &body, answer))
                return REQUEST_ANSWERED;
        return pass_on(requests, session, request, body, now_usec, answer);
}

/* RFC 7967: the client may not want to hear of some classes. */
static bool is_wanted(const struct exchange *exchange, uint8_t code) {
        unsigned class = code >> 5;

        return class < 1 || !(exchange->no_response & 1U << (class - 1));
}

static void send_answer(struct requests *requests, const struct exchange *exchange, const struct answer *answer) {
        struct session *session = exchange->session;
        enum message_type type = MESSAGE_NON_CONFIRMABLE;
        uint16_t message_id = exchange->message_id;
        static const struct answer nothing = { .content_format = -1, .max_age_sec = -1, .observe = -1 };

        if (!is_wanted(exchange, answer->code)) {
                if (exchange->is_confirmable && !exchange->is_late)
                        (void)engines_send(requests->engines, session, MESSAGE_ACKNOWLEDGEMENT, message_id,
                                           BYTES(NULL, 0), &nothing);
                return;
        }
        if (exchange->is_confirmable && !exchange->is_late)
                type = MESSAGE_ACKNOWLEDGEMENT;
        else {
                if (exchange->is_confirmable)
                        type = MESSAGE_CONFIRMABLE;
                message_id = session->next_message_id++;
        }
        /* Where it fails the device asks again, as if the datagram had been lost. */
        (void)engines_send(requests->engines, session, type, message_id, token_of(exchange), answer);
}

struct answer answer_of_reply(const struct message_reply *reply) {
        struct answer answer = ANSWER_NONE;

        answer.code = reply->code;
        answer.content_format = reply->content_format;
        answer.max_age_sec = reply->max_age_sec;
        answer.size1 = reply->size1;
        answer.payload = reply->payload;
        return answer;
}

struct session *requests_session(const struct requests *requests, session_handle handle) {
        if (handle >> 32 != requests->options.generation)
                return NULL;
        return sessions_by_number(requests->options.sessions, (uint32_t)handle);
}

static struct exchange *exchange_of(const struct session *session, uint64_t number) {
        struct exchange *exchange;

        LIST_FOREACH(exchange, &session->exchanges, of_session)
                if (exchange->number == number)
                        return exchange;
        return NULL;
}

static void register_observer(struct requests *requests, struct exchange *exchange, struct answer *answer) {
        struct observer like = {
                .token_size = exchange->token_size,
                .method = exchange->method,
                .path = exchange->path,
                .query = exchange->query,
                .block2 = exchange->block2,
        };
        struct observer *observer;

        memcpy(like.token, exchange->token, exchange->token_size);
        observer = observers_add(exchange->session, &like, &requests->options.counters[SOUTH_OBSERVERS]);
        /* Without the option the client knows that it does not observe (RFC 7641 §4.1). */
        if (observer)
                answer->observe = observers_next_sequence(observer);
}

void requests_reply(struct requests *requests, const struct message_reply *reply, uint64_t now_usec) {
        struct session *session = requests_session(requests, reply->session);
        struct exchange *exchange = session ? exchange_of(session, reply->exchange) : NULL;
        struct answer answer = answer_of_reply(reply);
        struct kept_key key;

        if (!exchange)
                return;
        key = (struct kept_key){ exchange->method, buffer_bytes(&exchange->path), buffer_bytes(&exchange->query) };
        if (exchange->block1.is_present)
                answer.block1 = exchange->block1;
        requests_cut(requests, session, &key, &exchange->block2, reply->block_size, now_usec, &answer);
        if (reply->is_observed && exchange->observe == 0 && answer.code < CODE_BAD_REQUEST)
                register_observer(requests, exchange, &answer);
        if (exchange->is_late)
                requests->options.counters[SOUTH_REPLIES_LATE]++;
        send_answer(requests, exchange, &answer);
        exchange_drop(requests, exchange);
        answer_clear(&answer);
        engines_release(requests->engines, session);
}

/* The answer takes its time: acknowledge, so that the device need not send again. */
static void make_late(struct requests *requests, struct exchange *exchange) {
        static const struct answer nothing = { .content_format = -1, .max_age_sec = -1, .observe = -1 };

        TAILQ_REMOVE(&requests->early, exchange, by_age);
        TAILQ_INSERT_TAIL(&requests->late, exchange, by_age);
        exchange->is_late = true;
        if (exchange->is_confirmable)
                (void)engines_send(requests->engines, exchange->session, MESSAGE_ACKNOWLEDGEMENT, exchange->message_id,
                                   BYTES(NULL, 0), &nothing);
}

static void give_up(struct requests *requests, struct exchange *exchange) {
        struct session *session = exchange->session;
        struct problem problem = { 0 };
        struct answer answer = ANSWER_NONE;

        (void)problem_set(&problem, CODE_UNAVAILABLE, ETIMEDOUT, "no answer",
                          "the gateway did not come to an answer in time: ask again");
        problem.max_age_sec = 5;
        answer_with_problem(&answer, &problem);
        send_answer(requests, exchange, &answer);
        answer_clear(&answer);
        exchange_drop(requests, exchange);
        engines_release(requests->engines, session);
}

static uint64_t earlier(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

bool requests_are_waiting(const struct requests *requests) {
        return requests->exchange_count > 0;
}

uint64_t requests_tick(struct requests *requests, uint64_t now_usec) {
        uint64_t next = earlier(blocks_tick(requests->blocks, now_usec), kept_tick(requests->kept, now_usec));
        struct exchange *exchange;

        requests->options.counters[SOUTH_BLOCK_BODIES] = blocks_open(requests->blocks);
        while ((exchange = TAILQ_FIRST(&requests->early)) && now_usec - exchange->begun_usec >= EXCHANGE_LATE_USEC)
                make_late(requests, exchange);
        if (exchange)
                next = earlier(next, exchange->begun_usec + EXCHANGE_LATE_USEC);
        while ((exchange = TAILQ_FIRST(&requests->late)) && now_usec - exchange->begun_usec >= EXCHANGE_LOST_USEC)
                give_up(requests, exchange);
        if (exchange)
                next = earlier(next, exchange->begun_usec + EXCHANGE_LOST_USEC);
        return next;
}

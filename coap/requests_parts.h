/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by requests.c (exchanges) and notifications.c (observers). Nobody else includes it. */

#include "coap/requests.h"

/* Header, token, ETag, Observe, Content-Format, Max-Age, Block2, Block1, Size2, payload marker. */
#define ANSWER_OVERHEAD_BYTES (4 + 8 + 9 + 4 + 3 + 5 + 4 + 4 + 5 + 1)
#define EXPONENT_MAX          6

struct exchange {
        struct session *session;
        uint64_t number;
        uint16_t message_id;
        uint8_t token[TOKEN_MAX];
        size_t token_size;
        bool is_confirmable, is_late;
        uint8_t method, no_response;
        int32_t observe;
        struct block block1, block2;
        struct buffer path, query;
        uint64_t begun_usec;
        LIST_ENTRY(exchange) of_session;
        TAILQ_ENTRY(exchange) by_age; /* in `early` or `late`: both in the order of their beginning */
};
TAILQ_HEAD(exchange_queue, exchange);

struct requests {
        struct requests_options options;
        struct engines *engines;
        struct blocks *blocks;
        struct kept_answers *kept;
        struct exchange_queue early, late;
        unsigned exchange_count;
        uint64_t last_exchange;
};

/* The session that a frame of core's names, NULL when it has gone. */
struct session *requests_session(const struct requests *requests, session_handle handle);
/* The options and the payload of core's reply. */
struct answer answer_of_reply(const struct message_reply *reply);
/* Cuts an answer to what fits into one datagram to this session, and keeps the rest. `block_size` is
 * core's wish, 0: none. */
void requests_cut(struct requests *requests, struct session *session, const struct kept_key *key,
                  const struct block *wanted, uint16_t block_size, uint64_t now_usec, struct answer *answer);

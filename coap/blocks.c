/* SPDX-License-Identifier: Apache-2.0 */

/* Block1: bodies grow only by what has really come, each of bounded size, so many in all. */

#include "coap/blocks.h"

#include <errno.h>
#include <stdlib.h>

struct body {
        struct session *session;
        uint8_t method;
        struct buffer path, query, request_tag;
        bool has_request_tag;
        int32_t content_format;
        struct buffer data;
        bool is_complete;
        uint16_t last_message_id;
        uint8_t last_token[TOKEN_MAX];
        size_t last_token_size;
        uint64_t used_usec;
        LIST_ENTRY(body) of_session;
        TAILQ_ENTRY(body) by_use;
};
TAILQ_HEAD(body_queue, body);

struct blocks {
        unsigned max_bodies;
        size_t max_body_bytes;
        unsigned count, complete;
        struct body_queue by_use; /* longest unused first */
};

struct blocks *blocks_new(unsigned max_bodies, size_t max_body_bytes) {
        struct blocks *blocks = xcalloc(1, sizeof *blocks);

        blocks->max_bodies = max_bodies;
        blocks->max_body_bytes = max_body_bytes;
        TAILQ_INIT(&blocks->by_use);
        return blocks;
}

static void body_drop(struct blocks *blocks, struct body *body) {
        LIST_REMOVE(body, of_session);
        TAILQ_REMOVE(&blocks->by_use, body, by_use);
        body->session->body_count--;
        blocks->count--;
        blocks->complete -= body->is_complete;
        buffer_free(&body->path);
        buffer_free(&body->query);
        buffer_free(&body->request_tag);
        buffer_free(&body->data);
        free(body);
}

struct blocks *blocks_free(struct blocks *blocks) {
        struct body *body;

        if (!blocks)
                return NULL;
        while ((body = TAILQ_FIRST(&blocks->by_use)))
                body_drop(blocks, body);
        free(blocks);
        return NULL;
}

void blocks_forget(struct blocks *blocks, struct session *session) {
        struct body *body;

        while ((body = LIST_FIRST(&session->bodies)))
                body_drop(blocks, body);
}

unsigned blocks_open(const struct blocks *blocks) {
        return blocks->count - blocks->complete;
}

uint64_t blocks_tick(struct blocks *blocks, uint64_t now_usec) {
        struct body *body;

        while ((body = TAILQ_FIRST(&blocks->by_use))) {
                if (now_usec - body->used_usec < BODY_LIFETIME_USEC)
                        return body->used_usec + BODY_LIFETIME_USEC;
                body_drop(blocks, body);
        }
        return UINT64_MAX;
}

/* RFC 7959 §2.5, RFC 9175 §3.3: the blocks of one body share the path, the method and the tag. */
static struct body *body_find(const struct session *session, const struct request *request) {
        struct body *body;

        LIST_FOREACH(body, &session->bodies, of_session)
                if (body->method == request->method && body->has_request_tag == (request->request_tag.data != NULL) &&
                    bytes_equal(buffer_bytes(&body->request_tag), request->request_tag) &&
                    bytes_equal(buffer_bytes(&body->path), request->path) &&
                    bytes_equal(buffer_bytes(&body->query), request->query))
                        return body;
        return NULL;
}

static void body_used(struct blocks *blocks, struct body *body, const struct request *request, uint64_t now_usec) {
        body->used_usec = now_usec;
        TAILQ_REMOVE(&blocks->by_use, body, by_use);
        TAILQ_INSERT_TAIL(&blocks->by_use, body, by_use);
        body->last_message_id = request->message_id;
        body->last_token_size = request->token.size;
        memcpy(body->last_token, request->token.data, request->token.size);
}

static bool is_repeated(const struct body *body, const struct request *request) {
        return body->last_message_id == request->message_id &&
               bytes_equal(BYTES(body->last_token, body->last_token_size), request->token);
}

/* A finished body, which waits only for a retransmission, or one that has long been silent. */
static struct body *dispensable(const struct blocks *blocks, uint64_t now_usec) {
        struct body *body;

        TAILQ_FOREACH(body, &blocks->by_use, by_use)
                if (body->is_complete || now_usec - body->used_usec >= BODY_PATIENCE_USEC)
                        return body;
        return NULL;
}

static struct body *oldest_of(const struct session *session) {
        struct body *body, *oldest = LIST_FIRST(&session->bodies);

        LIST_FOREACH(body, &session->bodies, of_session)
                if (body->used_usec < oldest->used_usec)
                        oldest = body;
        return oldest;
}

static struct body *body_begin(struct blocks *blocks, struct session *session, const struct request *request,
                               uint64_t now_usec) {
        struct body *body;

        if (session->body_count >= BODIES_PER_SESSION)
                body_drop(blocks, oldest_of(session));
        if (blocks->count >= blocks->max_bodies) {
                body = dispensable(blocks, now_usec);
                if (!body)
                        return NULL;
                body_drop(blocks, body);
        }
        body = xcalloc(1, sizeof *body);
        body->session = session;
        body->method = request->method;
        body->content_format = request->content_format;
        body->has_request_tag = request->request_tag.data != NULL;
        buffer_append(&body->path, request->path);
        buffer_append(&body->query, request->query);
        buffer_append(&body->request_tag, request->request_tag);
        LIST_INSERT_HEAD(&session->bodies, body, of_session);
        TAILQ_INSERT_TAIL(&blocks->by_use, body, by_use);
        session->body_count++;
        blocks->count++;
        return body;
}

static enum block_verdict incomplete(struct problem *problem, const char *detail) {
        (void)problem_set(problem, CODE_REQUEST_INCOMPLETE, EPROTO, "body incomplete", "%s", detail);
        return BLOCK_REFUSED;
}

static enum block_verdict malformed(struct problem *problem, const char *detail) {
        (void)problem_set(problem, CODE_BAD_REQUEST, EPROTO, "bad Block1 option", "%s", detail);
        return BLOCK_REFUSED;
}

static enum block_verdict too_large(const struct blocks *blocks, struct problem *problem) {
        (void)problem_set(problem, CODE_TOO_LARGE, EMSGSIZE, "body too large", "at most %zu bytes are taken",
                          blocks->max_body_bytes);
        problem->size1 = (uint32_t)blocks->max_body_bytes;
        return BLOCK_REFUSED;
}

/* The same bytes stand there already: sent again, because our answer got lost or a router made two of
 * one. */
static bool is_known(const struct body *body, const struct request *request, size_t offset) {
        return !body->is_complete && body->content_format == request->content_format &&
               offset + request->payload.size <= body->data.size &&
               memcmp(body->data.data + offset, request->payload.data, request->payload.size) == 0;
}

static enum block_verdict first_block(struct blocks *blocks, struct session *session, const struct request *request,
                                      struct body *body, uint64_t now_usec, struct bytes *whole,
                                      struct problem *problem) {
        if (body && request->block1.has_more && is_known(body, request, 0))
                return BLOCK_CONTINUE;
        if (body)
                body_drop(blocks, body); /* begun anew */
        if (!request->block1.has_more) {
                *whole = request->payload; /* all in one block: nothing to keep */
                return BLOCK_COMPLETE;
        }
        body = body_begin(blocks, session, request, now_usec);
        if (!body) {
                (void)problem_set(problem, CODE_UNAVAILABLE, EBUSY, "too many bodies",
                                  "%u bodies are on their way at once", blocks->max_bodies);
                problem->max_age_sec = 5;
                return BLOCK_REFUSED;
        }
        buffer_append(&body->data, request->payload);
        body_used(blocks, body, request, now_usec);
        return BLOCK_CONTINUE;
}

static enum block_verdict later_block(struct blocks *blocks, const struct request *request, struct body *body,
                                      size_t offset, uint64_t now_usec, struct bytes *whole, struct problem *problem) {
        if (!body)
                return incomplete(problem, "the blocks before this one are not here: begin anew");
        if (body->content_format != request->content_format) {
                body_drop(blocks, body);
                return incomplete(problem, "the content-format changed between blocks");
        }
        if (request->block1.has_more && is_known(body, request, offset))
                return BLOCK_CONTINUE;
        if (body->is_complete && is_repeated(body, request) && !request->block1.has_more) {
                *whole = buffer_bytes(&body->data);
                return BLOCK_COMPLETE;
        }
        if (offset != body->data.size || body->is_complete) {
                body_drop(blocks, body);
                return incomplete(problem, "a block is missing: begin anew");
        }
        buffer_append(&body->data, request->payload);
        body_used(blocks, body, request, now_usec);
        if (request->block1.has_more)
                return BLOCK_CONTINUE;
        body->is_complete = true;
        blocks->complete++;
        *whole = buffer_bytes(&body->data);
        return BLOCK_COMPLETE;
}

enum block_verdict blocks_take(struct blocks *blocks, struct session *session, const struct request *request,
                               uint64_t now_usec, struct bytes *whole, struct problem *problem) {
        const struct block *block = &request->block1;
        size_t size = block_bytes(block->size_exponent), offset = (size_t)block->number * size;
        struct body *body = body_find(session, request);

        if (block->is_bad)
                return malformed(problem, "the block size 7 is reserved");
        if (request->payload.size > size || (block->has_more && request->payload.size != size))
                return malformed(problem, "the payload is not as long as the block size says");
        if (request->size1 > blocks->max_body_bytes || offset + request->payload.size > blocks->max_body_bytes) {
                if (body)
                        body_drop(blocks, body);
                return too_large(blocks, problem);
        }
        if (block->number == 0)
                return first_block(blocks, session, request, body, now_usec, whole, problem);
        return later_block(blocks, request, body, offset, now_usec, whole, problem);
}

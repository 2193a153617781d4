/* SPDX-License-Identifier: Apache-2.0 */

/* Reliability, matching, blocks and observation of a CoAP client: see device_coap.h.
 *
 * A request is one confirmable message after another (RFC 7959 sends each block as a request of its
 * own), all with the same token, each with its own message id; `datagram` holds the one under way for
 * retransmission. */

#include "device_coap.h"

#include <string.h>

enum { TYPE_CON = 0, TYPE_NON = 1, TYPE_ACK = 2, TYPE_RST = 3 };

enum {
        OPTION_OBSERVE = 6,
        OPTION_URI_PATH = 11,
        OPTION_CONTENT_FORMAT = 12,
        OPTION_BLOCK2 = 23,
        OPTION_BLOCK1 = 27,
        OPTION_SIZE1 = 60
};

enum { TOKEN_SIZE = 4 };

static size_t block_bytes(uint8_t exponent) {
        return (size_t)16 << exponent;
}

static uint8_t block_exponent(const struct device_coap *coap) {
        size_t most = coap->block_bytes ? coap->block_bytes : DEVICE_BLOCK_MAX;
        uint8_t exponent = 6;

        if (most > DEVICE_BLOCK_MAX)
                most = DEVICE_BLOCK_MAX;
        while (exponent > 0 && block_bytes(exponent) > most)
                exponent--;
        return exponent;
}

/* ---- writing ---- */

struct option_writer {
        uint8_t *at;
        uint16_t last;
};

/* Options up to number 268 + last, values up to 268 bytes: all that a request of ours has. */
static void put_option(struct option_writer *writer, uint16_t number, const void *value, size_t size) {
        unsigned delta = (unsigned)(number - writer->last);
        uint8_t *head = writer->at++;

        *head = (uint8_t)((delta < 13 ? delta : 13) << 4 | (size < 13 ? size : 13));
        if (delta >= 13)
                *writer->at++ = (uint8_t)(delta - 13);
        if (size >= 13)
                *writer->at++ = (uint8_t)(size - 13);
        if (size > 0)
                memcpy(writer->at, value, size);
        writer->at += size;
        writer->last = number;
}

static void put_uint_option(struct option_writer *writer, uint16_t number, uint32_t value) {
        uint8_t bytes[4] = { 0 };
        size_t size = 0;
        int shift;

        for (shift = 24; shift >= 0; shift -= 8)
                if (size > 0 || value >> shift != 0)
                        bytes[size++] = (uint8_t)(value >> shift);
        put_option(writer, number, bytes, size);
}

static void put_path(struct option_writer *writer, const char *path) {
        const char *end;

        for (;;) {
                for (end = path; *end && *end != '/'; end++)
                        ;
                put_option(writer, OPTION_URI_PATH, path, (size_t)(end - path));
                if (!*end)
                        return;
                path = end + 1;
        }
}

static uint32_t block_value(size_t offset, bool has_more, uint8_t exponent) {
        return (uint32_t)(offset >> (exponent + 4)) << 4 | (has_more ? 8U : 0U) | exponent;
}

/* Writes the next message of the request under way into `datagram`. */
static void compose(struct device_coap *coap) {
        const struct device_request *request = &coap->request;
        bool in_blocks = request->body.size > block_bytes(coap->exponent);
        struct device_bytes part = { NULL, 0 };
        struct option_writer writer;

        if (!coap->takes_blocks && request->body.size > 0) {
                part.data = request->body.data + coap->sent;
                part.size = request->body.size - coap->sent;
                if (part.size > block_bytes(coap->exponent))
                        part.size = block_bytes(coap->exponent);
        }

        coap->request_id = coap->message_id++;
        coap->datagram[0] = 1 << 6 | TYPE_CON << 4 | TOKEN_SIZE;
        coap->datagram[1] = request->method;
        coap->datagram[2] = (uint8_t)(coap->request_id >> 8);
        coap->datagram[3] = (uint8_t)coap->request_id;
        memcpy(coap->datagram + 4, coap->request_token, TOKEN_SIZE);
        writer.at = coap->datagram + 4 + TOKEN_SIZE;
        writer.last = 0;

        if (request->observes && !coap->takes_blocks)
                put_uint_option(&writer, OPTION_OBSERVE, 0);
        put_path(&writer, request->path);
        if (part.size > 0 && request->content_format >= 0)
                put_uint_option(&writer, OPTION_CONTENT_FORMAT, (uint32_t)request->content_format);
        if (coap->takes_blocks)
                put_uint_option(&writer, OPTION_BLOCK2, block_value(coap->received, false, coap->exponent));
        else if (coap->block_bytes != 0 && !in_blocks)
                put_uint_option(&writer, OPTION_BLOCK2, block_value(0, false, coap->exponent));
        if (part.size > 0 && in_blocks) {
                put_uint_option(&writer, OPTION_BLOCK1,
                                block_value(coap->sent, coap->sent + part.size < request->body.size, coap->exponent));
                if (coap->sent == 0)
                        put_uint_option(&writer, OPTION_SIZE1, (uint32_t)request->body.size);
        }
        if (part.size > 0) {
                *writer.at++ = 0xff;
                memcpy(writer.at, part.data, part.size);
                writer.at += part.size;
        }
        coap->datagram_size = (size_t)(writer.at - coap->datagram);
}

/* Sends the next message of the request; a failed send is a lost datagram, which retransmission
 * repairs. */
static void transmit(struct device_coap *coap, uint64_t now) {
        uint32_t timeout = coap->ack_timeout_ms ? coap->ack_timeout_ms : DEVICE_ACK_TIMEOUT_MS;
        uint8_t dice;

        compose(coap);
        coap->random(coap->user, &dice, sizeof(dice));
        coap->timeout_ms = timeout + timeout / 2 * dice / 255; /* ACK_RANDOM_FACTOR 1.5 */
        coap->is_acknowledged = false;
        coap->retransmits = 0;
        coap->deadline = now + coap->timeout_ms;
        (void)coap->send(coap->user, coap->datagram, coap->datagram_size);
}

static void send_empty(struct device_coap *coap, uint8_t type, uint16_t id) {
        uint8_t message[4];

        message[0] = (uint8_t)(1 << 6 | type << 4);
        message[1] = 0;
        message[2] = (uint8_t)(id >> 8);
        message[3] = (uint8_t)id;
        (void)coap->send(coap->user, message, sizeof(message));
}

/* ---- the gateway's confirmable messages ---- */

static bool was_seen(const struct device_coap *coap, uint16_t id) {
        uint8_t i;

        for (i = 0; i < coap->seen_count; i++)
                if (coap->seen[i] == id)
                        return true;
        return false;
}

static void acknowledge(struct device_coap *coap, const struct device_message *message) {
        if (message->type != TYPE_CON)
                return;
        coap->seen[coap->seen_next] = message->id;
        coap->seen_next = (uint8_t)((coap->seen_next + 1) % DEVICE_SEEN_MAX);
        if (coap->seen_count < DEVICE_SEEN_MAX)
                coap->seen_count++;
        send_empty(coap, TYPE_ACK, message->id);
}

/* ---- replies ---- */

static enum device_coap_result finish(struct device_coap *coap, enum device_coap_result result) {
        coap->is_busy = false;
        if (result != DEVICE_COAP_REPLY && coap->request.observes)
                coap->is_observing = false;
        return result;
}

static enum device_coap_result start_over(struct device_coap *coap, uint64_t now) {
        if (coap->has_restarted)
                return finish(coap, DEVICE_COAP_FAILED);
        coap->has_restarted = true;
        coap->takes_blocks = false;
        coap->sent = 0;
        coap->received = 0;
        transmit(coap, now);
        return DEVICE_COAP_NOTHING;
}

/* 2.31: the block was taken; the gateway may ask for smaller ones from here on (RFC 7959 §2.3). */
static enum device_coap_result continue_body(struct device_coap *coap, const struct device_message *message,
                                             uint64_t now) {
        const struct device_block *block = &message->block1;

        if (!block->is_present || coap->takes_blocks ||
            (block->exponent == coap->exponent && block->number != coap->sent >> (coap->exponent + 4)) ||
            coap->sent + block_bytes(coap->exponent) >= coap->request.body.size)
                return finish(coap, DEVICE_COAP_FAILED);
        coap->sent += block_bytes(coap->exponent);
        if (block->exponent < coap->exponent)
                coap->exponent = block->exponent;
        transmit(coap, now);
        return DEVICE_COAP_NOTHING;
}

/* Adds one block to the body. False: not the one that belongs here, or too much. */
static bool collect(struct device_coap *coap, const struct device_message *message) {
        const struct device_block *block = &message->block2;
        size_t offset = 0;

        if (block->is_present) {
                offset = (size_t)block->number << (block->exponent + 4);
                if (message->payload.size > block_bytes(block->exponent) ||
                    (block->has_more && message->payload.size != block_bytes(block->exponent)))
                        return false;
        }
        if (offset != coap->received || message->payload.size > sizeof(coap->body) - coap->received)
                return false;
        if (message->payload.size > 0)
                memcpy(coap->body + coap->received, message->payload.data, message->payload.size);
        coap->received += message->payload.size;
        return true;
}

static bool is_other_version(const struct device_coap *coap, const struct device_message *message) {
        return message->etag.size != coap->etag_size ||
               (coap->etag_size > 0 && memcmp(message->etag.data, coap->etag, coap->etag_size) != 0);
}

static void describe(struct device_coap *coap, const struct device_message *message) {
        coap->reply.code = message->code;
        coap->reply.content_format = message->content_format;
        coap->reply.max_age_sec = message->has_max_age ? message->max_age_sec : DEVICE_MAX_AGE_DEFAULT_SEC;
        coap->reply.body.data = coap->body;
        coap->reply.body.size = coap->received;
}

static void begin_observing(struct device_coap *coap, const struct device_message *message, uint64_t now) {
        coap->is_observing = message->has_observe && message->code >> 5 == 2;
        memcpy(coap->observe_token, coap->request_token, TOKEN_SIZE);
        coap->observe_sequence = message->observe;
        coap->observed_at = now;
}

static enum device_coap_result take_reply(struct device_coap *coap, const struct device_message *message,
                                          uint64_t now) {
        bool is_first = !coap->takes_blocks;

        if (message->has_unknown_critical)
                return finish(coap, DEVICE_COAP_FAILED);
        if (message->code == DEVICE_CODE(2, 31))
                return continue_body(coap, message, now);
        if (message->code == DEVICE_CODE(4, 8) && coap->request.body.size > block_bytes(coap->exponent))
                return start_over(coap, now);
        if (message->code == DEVICE_CODE(4, 13) && message->block1.is_present &&
            message->block1.exponent < coap->exponent) {
                coap->exponent = message->block1.exponent;
                return start_over(coap, now);
        }
        if (message->code >> 5 != 2) { /* an error in place of the next block ends the body too */
                coap->received = 0;
                is_first = true;
        } else if (!is_first && is_other_version(coap, message)) {
                return start_over(coap, now);
        }

        if (is_first) {
                coap->etag_size = (uint8_t)message->etag.size;
                if (message->etag.size > 0)
                        memcpy(coap->etag, message->etag.data, message->etag.size);
                if (coap->request.observes)
                        begin_observing(coap, message, now);
        }
        if (!collect(coap, message))
                return finish(coap, DEVICE_COAP_FAILED);

        if (message->block2.is_present && message->block2.has_more) {
                coap->takes_blocks = true;
                coap->exponent = message->block2.exponent < coap->exponent ? message->block2.exponent : coap->exponent;
                transmit(coap, now);
                return DEVICE_COAP_NOTHING;
        }
        describe(coap, message);
        return finish(coap, DEVICE_COAP_REPLY);
}

/* RFC 7641 §3.4: is this notification newer than the last? */
static bool is_newer(const struct device_coap *coap, const struct device_message *message, uint64_t now) {
        uint32_t was = coap->observe_sequence, is = message->observe;

        return (was < is && is - was < 1U << 23) || (was > is && was - is > 1U << 23) ||
               now > coap->observed_at + 128000;
}

static enum device_coap_result take_notification(struct device_coap *coap, const struct device_message *message,
                                                 uint64_t now) {
        if (message->code >> 5 != 2 || !message->has_observe || message->has_unknown_critical) {
                /* The last one: the gateway no longer keeps this observation. */
                coap->is_observing = false;
        } else {
                if (!is_newer(coap, message, now))
                        return DEVICE_COAP_NOTHING;
                coap->observe_sequence = message->observe;
                coap->observed_at = now;
        }

        if (coap->is_busy) { /* `body` is taken: let the owner read the resource afterwards */
                coap->reply.body.size = 0;
                return DEVICE_COAP_NOTIFIED;
        }
        coap->received = 0;
        if (message->block2.has_more || !coap->is_observing || !collect(coap, message))
                coap->received = 0;
        describe(coap, message);
        return DEVICE_COAP_NOTIFIED;
}

static enum device_coap_result take_empty(struct device_coap *coap, const struct device_message *message,
                                          uint64_t now) {
        if (message->type == TYPE_CON) { /* "CoAP ping" */
                send_empty(coap, TYPE_RST, message->id);
                return DEVICE_COAP_NOTHING;
        }
        if (!coap->is_busy || message->id != coap->request_id)
                return DEVICE_COAP_NOTHING;
        if (message->type == TYPE_RST)
                return finish(coap, DEVICE_COAP_FAILED);
        if (message->type == TYPE_ACK && !coap->is_acknowledged) {
                coap->is_acknowledged = true;
                coap->deadline = now + DEVICE_SEPARATE_WAIT_MS;
        }
        return DEVICE_COAP_NOTHING;
}

static bool has_token(const struct device_message *message, const uint8_t *token) {
        return message->token_size == TOKEN_SIZE && memcmp(message->token, token, TOKEN_SIZE) == 0;
}

static void reject(struct device_coap *coap, uint8_t type, uint16_t id) {
        if (type == TYPE_CON || type == TYPE_NON)
                send_empty(coap, TYPE_RST, id);
}

enum device_coap_result device_coap_input(struct device_coap *coap, const uint8_t *datagram, size_t size,
                                          uint64_t now) {
        struct device_message message;
        bool is_response;

        if (!device_message_parse(datagram, size, &message)) {
                if (size >= 4 && datagram[0] >> 6 == 1 && message.type == TYPE_CON)
                        send_empty(coap, TYPE_RST, message.id); /* RFC 7252 §4.2 */
                return DEVICE_COAP_NOTHING;
        }
        if (message.code == 0)
                return take_empty(coap, &message, now);

        is_response = message.code >> 5 == 2 || message.code >> 5 == 4 || message.code >> 5 == 5;
        if (message.type == TYPE_RST || (message.type == TYPE_ACK && !is_response))
                return DEVICE_COAP_NOTHING;
        if (message.type == TYPE_ACK) {
                if (!coap->is_busy || message.id != coap->request_id || !has_token(&message, coap->request_token))
                        return DEVICE_COAP_NOTHING;
                return take_reply(coap, &message, now);
        }
        if (message.type == TYPE_CON && was_seen(coap, message.id)) {
                send_empty(coap, TYPE_ACK, message.id);
                return DEVICE_COAP_NOTHING;
        }
        if (is_response && coap->is_busy && has_token(&message, coap->request_token)) {
                acknowledge(coap, &message);
                if (coap->is_observing && coap->request.observes && message.has_observe &&
                    !is_newer(coap, &message, now))
                        return DEVICE_COAP_NOTHING; /* an old notification, not the answer */
                return take_reply(coap, &message, now);
        }
        if (is_response && coap->is_observing && has_token(&message, coap->observe_token)) {
                acknowledge(coap, &message);
                return take_notification(coap, &message, now);
        }
        /* A request (a device here serves nothing), or a response to nothing it asked. */
        reject(coap, message.type, message.id);
        return DEVICE_COAP_NOTHING;
}

/* ---- the owner's side ---- */

void device_coap_reset(struct device_coap *coap) {
        coap->is_busy = false;
        coap->is_observing = false;
        coap->seen_count = 0;
        coap->seen_next = 0;
}

void device_coap_init(struct device_coap *coap) {
        coap->random(coap->user, &coap->message_id, sizeof(coap->message_id));
        coap->random(coap->user, &coap->token, sizeof(coap->token));
        device_coap_reset(coap);
}

void device_coap_start(struct device_coap *coap, const struct device_request *request, uint64_t now) {
        coap->request = *request;
        coap->is_busy = true;
        coap->takes_blocks = false;
        coap->has_restarted = false;
        coap->exponent = block_exponent(coap);
        coap->sent = 0;
        coap->received = 0;
        if (request->observes && coap->is_observing) { /* register again: RFC 7641 §3.3.1 */
                memcpy(coap->request_token, coap->observe_token, TOKEN_SIZE);
        } else {
                coap->token++;
                memcpy(coap->request_token, &coap->token, TOKEN_SIZE);
        }
        transmit(coap, now);
}

uint64_t device_coap_deadline(const struct device_coap *coap) {
        return coap->is_busy ? coap->deadline : DEVICE_NEVER;
}

enum device_coap_result device_coap_tick(struct device_coap *coap, uint64_t now) {
        if (!coap->is_busy || now < coap->deadline)
                return DEVICE_COAP_NOTHING;
        if (coap->is_acknowledged || coap->retransmits >= DEVICE_MAX_RETRANSMIT)
                return finish(coap, DEVICE_COAP_SILENCE);
        coap->retransmits++;
        coap->timeout_ms *= 2;
        coap->deadline = now + coap->timeout_ms;
        (void)coap->send(coap->user, coap->datagram, coap->datagram_size);
        return DEVICE_COAP_NOTHING;
}

void device_coap_forget_observation(struct device_coap *coap) {
        coap->is_observing = false;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The bodies of frames: writing and reading, nothing else. A reader refuses values that no writer
 * writes, so that what a broken-in role sends cannot reach further than its meaning. */

#include "gatewayd/messages.h"

#include <errno.h>

#define READER(body)                                                                                                   \
        { .left = (body) }

const char *role_name(enum role role) {
        static const char *const names[ROLE_COUNT] = {
                [ROLE_SUPERVISOR] = "supervisor",
                [ROLE_CORE] = "core",
                [ROLE_SOUTH] = "south",
                [ROLE_NORTH] = "north",
        };

        return (size_t)role < ELEMENTS(names) ? names[role] : "unknown";
}

const char *handshake_failure_name(enum handshake_failure failure) {
        static const char *const names[] = {
                [FAILED_UNKNOWN_IDENTITY] = "unknown or refused identity",
                [FAILED_WRONG_KEY] = "wrong key",
                [FAILED_TIMEOUT] = "gave up half-way",
                [FAILED_NO_SUITE] = "no cipher suite in common",
                [FAILED_NO_ANSWER] = "core did not answer in time",
                [FAILED_PROTOCOL] = "protocol error",
                [FAILED_NO_CERTIFICATE] = "a certificate suite was offered, but no certificate given",
                [FAILED_CERTIFICATE] = "certificate refused",
        };

        return (size_t)failure < ELEMENTS(names) ? names[failure] : "unknown";
}

/* A boolean is 0 or 1 on a link, nothing else. */
static bool get_bool(struct field_reader *r) {
        uint8_t v = field_get_u8(r);

        if (v > 1)
                r->is_bad = true;
        return v == 1;
}

static uint8_t get_enum(struct field_reader *r, uint8_t last) {
        uint8_t v = field_get_u8(r);

        if (v > last)
                r->is_bad = true;
        return v;
}

static struct bytes get_bounded(struct field_reader *r, size_t most) {
        struct bytes v = field_get_bytes(r);

        if (v.size > most)
                r->is_bad = true;
        return v;
}

void message_write_setup(const struct message_setup *m, struct buffer *to) {
        field_put_u8(to, (uint8_t)m->role);
        field_put_u32(to, m->generation);
}

int message_read_setup(struct bytes body, struct message_setup *ret) {
        struct field_reader r = READER(body);

        ret->role = get_enum(&r, ROLE_NORTH);
        ret->generation = field_get_u32(&r);
        return field_reader_end(&r);
}

void message_write_psk(const struct message_psk *m, struct buffer *to) {
        field_put_u32(to, m->question);
        field_put_bytes(to, m->identity);
        field_put_bytes(to, m->peer);
        field_put_u8(to, m->has_forward_secrecy);
}

int message_read_psk(struct bytes body, struct message_psk *ret) {
        struct field_reader r = READER(body);

        ret->question = field_get_u32(&r);
        ret->identity = get_bounded(&r, 256);
        ret->peer = get_bounded(&r, 63);
        ret->has_forward_secrecy = get_bool(&r);
        return field_reader_end(&r);
}

void message_write_psk_answer(const struct message_psk_answer *m, struct buffer *to) {
        field_put_u32(to, m->question);
        field_put_u8(to, m->is_found);
        field_put_bytes(to, secret_bytes(&m->key));
}

int message_read_psk_answer(struct bytes body, struct message_psk_answer *ret) {
        struct field_reader r = READER(body);

        ret->question = field_get_u32(&r);
        ret->is_found = get_bool(&r);
        if (secret_set(&ret->key, get_bounded(&r, SECRET_MAX)) < 0)
                return -EBADMSG;
        return field_reader_end(&r);
}

void message_write_connected(const struct message_connected *m, struct buffer *to) {
        field_put_u64(to, m->session);
        field_put_bytes(to, m->identity);
        field_put_bytes(to, m->chain);
        field_put_bytes(to, m->tls_unique);
        field_put_bytes(to, m->peer);
        field_put_bytes(to, m->suite);
        field_put_u8(to, m->has_forward_secrecy);
        field_put_u64(to, m->begun_usec);
        field_put_u64(to, m->finished_usec);
}

int message_read_connected(struct bytes body, struct message_connected *ret) {
        struct field_reader r = READER(body);

        ret->session = field_get_u64(&r);
        ret->identity = get_bounded(&r, 256);
        ret->chain = get_bounded(&r, CERTIFICATES_MAX);
        ret->tls_unique = get_bounded(&r, TLS_UNIQUE_MAX);
        ret->peer = get_bounded(&r, 63);
        ret->suite = get_bounded(&r, 63);
        ret->has_forward_secrecy = get_bool(&r);
        ret->begun_usec = field_get_u64(&r);
        ret->finished_usec = field_get_u64(&r);
        return field_reader_end(&r);
}

void message_write_closed(const struct message_closed *m, struct buffer *to) {
        field_put_u64(to, m->session);
        field_put_u8(to, (uint8_t)m->reason);
}

int message_read_closed(struct bytes body, struct message_closed *ret) {
        struct field_reader r = READER(body);

        ret->session = field_get_u64(&r);
        ret->reason = get_enum(&r, CLOSE_ERROR);
        return field_reader_end(&r);
}

void message_write_request(const struct message_request *m, struct buffer *to) {
        field_put_u64(to, m->session);
        field_put_u64(to, m->exchange);
        field_put_u16(to, m->message_id);
        field_put_bytes(to, m->token);
        field_put_u8(to, m->method);
        field_put_bytes(to, m->path);
        field_put_bytes(to, m->query);
        field_put_u32(to, (uint32_t)m->content_format);
        field_put_u32(to, (uint32_t)m->accept);
        field_put_u32(to, (uint32_t)m->observe);
        field_put_bytes(to, m->payload);
}

int message_read_request(struct bytes body, struct message_request *ret) {
        struct field_reader r = READER(body);

        ret->session = field_get_u64(&r);
        ret->exchange = field_get_u64(&r);
        ret->message_id = field_get_u16(&r);
        ret->token = get_bounded(&r, 8);
        ret->method = get_enum(&r, 31);
        ret->path = field_get_bytes(&r);
        ret->query = field_get_bytes(&r);
        ret->content_format = (int32_t)field_get_u32(&r);
        ret->accept = (int32_t)field_get_u32(&r);
        ret->observe = (int32_t)field_get_u32(&r);
        ret->payload = field_get_bytes(&r);
        return field_reader_end(&r);
}

void message_write_reply(const struct message_reply *m, struct buffer *to) {
        field_put_u64(to, m->session);
        field_put_u64(to, m->exchange);
        field_put_u8(to, m->code);
        field_put_u32(to, (uint32_t)m->content_format);
        field_put_u64(to, (uint64_t)m->max_age_sec);
        field_put_u32(to, m->size1);
        field_put_u16(to, m->block_size);
        field_put_u8(to, m->is_observed);
        field_put_bytes(to, m->path);
        field_put_bytes(to, m->payload);
}

int message_read_reply(struct bytes body, struct message_reply *ret) {
        struct field_reader r = READER(body);

        ret->session = field_get_u64(&r);
        ret->exchange = field_get_u64(&r);
        ret->code = field_get_u8(&r);
        ret->content_format = (int32_t)field_get_u32(&r);
        ret->max_age_sec = (int64_t)field_get_u64(&r);
        ret->size1 = field_get_u32(&r);
        ret->block_size = field_get_u16(&r);
        ret->is_observed = get_bool(&r);
        ret->path = field_get_bytes(&r);
        ret->payload = field_get_bytes(&r);
        return field_reader_end(&r);
}

void message_write_evict(const struct message_evict *m, struct buffer *to) {
        field_put_u64(to, m->session);
}

int message_read_evict(struct bytes body, struct message_evict *ret) {
        struct field_reader r = READER(body);

        ret->session = field_get_u64(&r);
        return field_reader_end(&r);
}

void message_write_handshake_failed(const struct message_handshake_failed *m, struct buffer *to) {
        field_put_u8(to, (uint8_t)m->failure);
        field_put_bytes(to, m->identity);
        field_put_bytes(to, m->peer);
        field_put_u32(to, m->count);
}

int message_read_handshake_failed(struct bytes body, struct message_handshake_failed *ret) {
        struct field_reader r = READER(body);

        ret->failure = get_enum(&r, FAILED_CERTIFICATE);
        ret->identity = get_bounded(&r, 256);
        ret->peer = get_bounded(&r, 63);
        ret->count = field_get_u32(&r);
        return field_reader_end(&r);
}

void message_write_record(const struct message_record *m, struct buffer *to) {
        field_put_u64(to, m->sequence);
        field_put_bytes(to, m->device);
        field_put_u32(to, (uint32_t)m->content_format);
        field_put_bytes(to, m->nonce);
        field_put_bytes(to, m->receipt);
        field_put_bytes(to, m->evidence);
}

int message_read_record(struct bytes body, struct message_record *ret) {
        struct field_reader r = READER(body);

        ret->sequence = field_get_u64(&r);
        ret->device = get_bounded(&r, 64);
        ret->content_format = (int32_t)field_get_u32(&r);
        ret->nonce = get_bounded(&r, 64);
        ret->receipt = field_get_bytes(&r);
        ret->evidence = field_get_bytes(&r);
        return field_reader_end(&r);
}

void message_write_delivered(const struct message_delivered *m, struct buffer *to) {
        field_put_u64(to, m->sequence);
}

int message_read_delivered(struct bytes body, struct message_delivered *ret) {
        struct field_reader r = READER(body);

        ret->sequence = field_get_u64(&r);
        return field_reader_end(&r);
}

void message_write_parked(const struct message_parked *m, struct buffer *to) {
        field_put_u64(to, m->sequence);
        field_put_u16(to, m->http_status);
        field_put_bytes(to, m->reason);
}

int message_read_parked(struct bytes body, struct message_parked *ret) {
        struct field_reader r = READER(body);

        ret->sequence = field_get_u64(&r);
        ret->http_status = field_get_u16(&r);
        ret->reason = get_bounded(&r, 1024);
        return field_reader_end(&r);
}

void message_write_result(const struct message_result *m, struct buffer *to) {
        field_put_u64(to, m->sequence);
        field_put_u8(to, m->tier);
        field_put_bytes(to, m->ear_jwt);
}

int message_read_result(struct bytes body, struct message_result *ret) {
        struct field_reader r = READER(body);

        ret->sequence = field_get_u64(&r);
        ret->tier = get_enum(&r, 96);
        ret->ear_jwt = field_get_bytes(&r);
        return field_reader_end(&r);
}

void message_write_uplink(const struct message_uplink *m, struct buffer *to) {
        field_put_u8(to, m->is_up);
        field_put_bytes(to, m->reason);
        field_put_u64(to, m->retry_sec);
}

int message_read_uplink(struct bytes body, struct message_uplink *ret) {
        struct field_reader r = READER(body);

        ret->is_up = get_bool(&r);
        ret->reason = get_bounded(&r, 1024);
        ret->retry_sec = field_get_u64(&r);
        return field_reader_end(&r);
}

void message_write_north_hello(const struct message_north_hello *m, struct buffer *to) {
        field_put_bytes(to, m->gateway_id);
        field_put_bytes(to, m->incarnation);
}

int message_read_north_hello(struct bytes body, struct message_north_hello *ret) {
        struct field_reader r = READER(body);

        ret->gateway_id = get_bounded(&r, 64);
        ret->incarnation = get_bounded(&r, 16);
        return field_reader_end(&r);
}

void message_write_certificate(const struct message_certificate *m, struct buffer *to) {
        field_put_u32(to, m->question);
        field_put_bytes(to, m->chain);
        field_put_bytes(to, m->peer);
}

int message_read_certificate(struct bytes body, struct message_certificate *ret) {
        struct field_reader r = READER(body);

        ret->question = field_get_u32(&r);
        ret->chain = get_bounded(&r, CERTIFICATES_MAX);
        ret->peer = get_bounded(&r, 63);
        return field_reader_end(&r);
}

void message_write_certificate_answer(const struct message_certificate_answer *m, struct buffer *to) {
        field_put_u32(to, m->question);
        field_put_u8(to, (uint8_t)m->verdict);
}

int message_read_certificate_answer(struct bytes body, struct message_certificate_answer *ret) {
        struct field_reader r = READER(body);

        ret->question = field_get_u32(&r);
        ret->verdict = get_enum(&r, CERTIFICATE_BAD);
        return field_reader_end(&r);
}

void message_write_server_credentials(const struct message_server_credentials *m, struct buffer *to) {
        field_put_bytes(to, m->key);
        field_put_bytes(to, m->chain);
}

int message_read_server_credentials(struct bytes body, struct message_server_credentials *ret) {
        struct field_reader r = READER(body);

        ret->key = field_get_bytes(&r);
        ret->chain = get_bounded(&r, CERTIFICATES_MAX);
        return field_reader_end(&r);
}

void message_write_enrol(const struct message_enrol *m, struct buffer *to) {
        field_put_u64(to, m->number);
        field_put_u8(to, m->is_renewal);
        field_put_bytes(to, m->csr);
}

int message_read_enrol(struct bytes body, struct message_enrol *ret) {
        struct field_reader r = READER(body);

        ret->number = field_get_u64(&r);
        ret->is_renewal = get_bool(&r);
        ret->csr = field_get_bytes(&r);
        return field_reader_end(&r);
}

void message_write_enrolled(const struct message_enrolled *m, struct buffer *to) {
        field_put_u64(to, m->number);
        field_put_u8(to, (uint8_t)m->outcome);
        field_put_u16(to, m->http_status);
        field_put_u64(to, m->retry_sec);
        field_put_bytes(to, m->certificates);
        field_put_bytes(to, m->reason);
}

int message_read_enrolled(struct bytes body, struct message_enrolled *ret) {
        struct field_reader r = READER(body);

        ret->number = field_get_u64(&r);
        ret->outcome = get_enum(&r, ENROL_FAILED);
        ret->http_status = field_get_u16(&r);
        ret->retry_sec = field_get_u64(&r);
        ret->certificates = field_get_bytes(&r);
        ret->reason = get_bounded(&r, 1024);
        return field_reader_end(&r);
}

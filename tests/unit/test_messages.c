/* SPDX-License-Identifier: Apache-2.0 */

/* The bodies of frames: what a writer writes its reader gives back, whole or not at all. */

#include "tests/unit/support.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/messages.h"

typedef int (*read_function)(struct bytes body);

/* Every shorter body and one that is longer by a byte is refused. Each truncation is read from an allocation
 * of its own size, so that a sanitizer sees a reader that looks past the end. */
static void refuses_other_lengths(read_function read, const struct buffer *whole) {
        uint8_t *longer = malloc(whole->size + 1);

        for (size_t size = 0; size < whole->size; size++) {
                uint8_t *part = malloc(size > 0 ? size : 1);

                assert_non_null(part);
                memcpy(part, whole->data, size);
                assert_int_equal(read(BYTES(part, size)), -EBADMSG);
                free(part);
        }
        assert_non_null(longer);
        memcpy(longer, whole->data, whole->size);
        longer[whole->size] = 0;
        assert_int_equal(read(BYTES(longer, whole->size + 1)), -EBADMSG);
        free(longer);
        assert_int_equal(read(buffer_bytes(whole)), 0);
}

#define READ_FUNCTION(name)                                                                                            \
        static int read_##name(struct bytes body) {                                                                    \
                struct message_##name m;                                                                               \
                                                                                                                       \
                memset(&m, 0, sizeof m);                                                                               \
                return message_read_##name(body, &m);                                                                  \
        }
READ_FUNCTION(setup)
READ_FUNCTION(psk)
READ_FUNCTION(psk_answer)
READ_FUNCTION(connected)
READ_FUNCTION(closed)
READ_FUNCTION(request)
READ_FUNCTION(reply)
READ_FUNCTION(evict)
READ_FUNCTION(handshake_failed)
READ_FUNCTION(record)
READ_FUNCTION(delivered)
READ_FUNCTION(parked)
READ_FUNCTION(result)
READ_FUNCTION(uplink)
READ_FUNCTION(north_hello)
READ_FUNCTION(certificate)
READ_FUNCTION(certificate_answer)
READ_FUNCTION(server_credentials)
READ_FUNCTION(enrol)
READ_FUNCTION(enrolled)

#define same(a, b) assert_true(bytes_equal((a), (b)))

/* Writes `in`, has every other length refused, and reads it back into `out`. */
#define ROUND_TRIP(name, in, out)                                                                                      \
        do {                                                                                                           \
                _cleanup_(buffer_free) struct buffer written = { 0 };                                                  \
                                                                                                                       \
                message_write_##name(&(in), &written);                                                                 \
                refuses_other_lengths(read_##name, &written);                                                          \
                kept_size = written.size;                                                                              \
                memcpy(kept, written.data, written.size);                                                              \
                memset(&(out), 0, sizeof(out));                                                                        \
                assert_int_equal(message_read_##name(BYTES(kept, kept_size), &(out)), 0);                              \
        } while (0)

static uint8_t kept[4096]; /* slices of what was read borrow from here */
static size_t kept_size;

static void a_setup_comes_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_setup in = { .role = ROLE_NORTH, .generation = 0xfffffffe };
        struct message_setup out;

        (void)state;
        ROUND_TRIP(setup, in, out);
        assert_int_equal(out.role, in.role);
        assert_int_equal(out.generation, in.generation);
}

static void a_lookup_comes_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_psk in = { 7, TEXT("sensor-1"), TEXT("[2001:db8::1]:40000"), true };
        struct message_psk_answer found = { .question = 7, .is_found = true }, answer;
        struct message_psk out;

        (void)state;
        ROUND_TRIP(psk, in, out);
        assert_int_equal(out.question, 7);
        same(out.identity, in.identity);
        same(out.peer, in.peer);
        assert_true(out.has_forward_secrecy);

        assert_int_equal(secret_set(&found.key, TEXT("a pre-shared key of 32 bytes ....")), 0);
        ROUND_TRIP(psk_answer, found, answer);
        assert_int_equal(answer.question, 7);
        assert_true(answer.is_found);
        same(secret_bytes(&answer.key), secret_bytes(&found.key));
}

static void a_session_s_messages_come_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_connected connected = {
                .session = UINT64_C(3) << 32 | 9,
                .identity = TEXT("kid"),
                .chain = TEXT("leaf and issuer"),
                .tls_unique = TEXT("twelve bytes"),
                .peer = TEXT("192.0.2.1:40000"),
                .suite = TEXT("ECDHE-PSK-CHACHA20-POLY1305"),
                .has_forward_secrecy = true,
                .begun_usec = UINT64_MAX - 1,
                .finished_usec = UINT64_MAX,
        };
        const struct message_closed closed = { UINT64_MAX, CLOSE_ERROR };
        const struct message_evict evict = { 1 };
        const struct message_handshake_failed failed = { FAILED_PROTOCOL, TEXT("who"), TEXT("192.0.2.1:1"), 12 };
        struct message_connected connected_out;
        struct message_closed closed_out;
        struct message_evict evict_out;
        struct message_handshake_failed failed_out;

        (void)state;
        ROUND_TRIP(connected, connected, connected_out);
        assert_int_equal(connected_out.session, connected.session);
        same(connected_out.identity, connected.identity);
        same(connected_out.chain, connected.chain);
        same(connected_out.tls_unique, connected.tls_unique);
        same(connected_out.peer, connected.peer);
        same(connected_out.suite, connected.suite);
        assert_true(connected_out.has_forward_secrecy);
        assert_int_equal(connected_out.begun_usec, connected.begun_usec);
        assert_int_equal(connected_out.finished_usec, connected.finished_usec);
        ROUND_TRIP(closed, closed, closed_out);
        assert_int_equal(closed_out.session, UINT64_MAX);
        assert_int_equal(closed_out.reason, CLOSE_ERROR);
        ROUND_TRIP(evict, evict, evict_out);
        assert_int_equal(evict_out.session, 1);
        ROUND_TRIP(handshake_failed, failed, failed_out);
        assert_int_equal(failed_out.failure, FAILED_PROTOCOL);
        same(failed_out.identity, failed.identity);
        same(failed_out.peer, failed.peer);
        assert_int_equal(failed_out.count, 12);
}

static void a_request_and_its_reply_come_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_request request = {
                .session = 5,
                .exchange = 6,
                .message_id = 0xffff,
                .token = TEXT("12345678"),
                .method = 2,
                .path = TEXT("rats/evidence"),
                .query = TEXT("a=b&c"),
                .content_format = 263,
                .accept = -1,
                .observe = -1,
                .payload = TEXT("payload"),
        };
        const struct message_reply reply = {
                .session = 5,
                .exchange = 6,
                .code = 69,
                .content_format = -1,
                .max_age_sec = -1,
                .size1 = UINT32_MAX,
                .block_size = 1024,
                .is_observed = true,
                .path = TEXT("me"),
                .payload = TEXT("answer"),
        };
        struct message_request request_out;
        struct message_reply reply_out;

        (void)state;
        ROUND_TRIP(request, request, request_out);
        assert_int_equal(request_out.session, 5);
        assert_int_equal(request_out.exchange, 6);
        assert_int_equal(request_out.message_id, 0xffff);
        same(request_out.token, request.token);
        assert_int_equal(request_out.method, 2);
        same(request_out.path, request.path);
        same(request_out.query, request.query);
        assert_int_equal(request_out.content_format, 263);
        assert_int_equal(request_out.accept, -1);
        assert_int_equal(request_out.observe, -1);
        same(request_out.payload, request.payload);
        ROUND_TRIP(reply, reply, reply_out);
        assert_int_equal(reply_out.session, 5);
        assert_int_equal(reply_out.exchange, 6);
        assert_int_equal(reply_out.code, 69);
        assert_int_equal(reply_out.content_format, -1);
        assert_true(reply_out.max_age_sec == -1);
        assert_int_equal(reply_out.size1, UINT32_MAX);
        assert_int_equal(reply_out.block_size, 1024);
        assert_true(reply_out.is_observed);
        same(reply_out.path, reply.path);
        same(reply_out.payload, reply.payload);
}

static void what_goes_north_comes_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_record record = { 1, TEXT("sensor-1"), 263, TEXT("nonce"), TEXT("receipt"), TEXT("eat") };
        const struct message_north_hello hello = { TEXT("gateway-1"), TEXT("12345678") };
        struct message_north_hello hello_out;
        struct message_record record_out;

        (void)state;
        ROUND_TRIP(record, record, record_out);
        assert_int_equal(record_out.sequence, 1);
        same(record_out.device, record.device);
        assert_int_equal(record_out.content_format, 263);
        same(record_out.nonce, record.nonce);
        same(record_out.receipt, record.receipt);
        same(record_out.evidence, record.evidence);
        ROUND_TRIP(north_hello, hello, hello_out);
        same(hello_out.gateway_id, hello.gateway_id);
        same(hello_out.incarnation, hello.incarnation);
}

static void what_comes_from_north_comes_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_delivered delivered = { UINT64_MAX };
        const struct message_parked parked = { 2, 422, TEXT("not this one") };
        const struct message_result result = { 3, 96, TEXT("e.y.J") };
        const struct message_uplink uplink = { false, TEXT("no route"), 60 };
        struct message_delivered delivered_out;
        struct message_parked parked_out;
        struct message_result result_out;
        struct message_uplink uplink_out;

        (void)state;
        ROUND_TRIP(delivered, delivered, delivered_out);
        assert_true(delivered_out.sequence == UINT64_MAX);
        ROUND_TRIP(parked, parked, parked_out);
        assert_int_equal(parked_out.sequence, 2);
        assert_int_equal(parked_out.http_status, 422);
        same(parked_out.reason, parked.reason);
        ROUND_TRIP(result, result, result_out);
        assert_int_equal(result_out.sequence, 3);
        assert_int_equal(result_out.tier, 96);
        same(result_out.ear_jwt, result.ear_jwt);
        ROUND_TRIP(uplink, uplink, uplink_out);
        assert_false(uplink_out.is_up);
        same(uplink_out.reason, uplink.reason);
        assert_int_equal(uplink_out.retry_sec, 60);
}

static void certificates_come_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_certificate question = { 9, TEXT("leaf and issuer"), TEXT("192.0.2.1:40000") };
        const struct message_certificate_answer answer = { 9, CERTIFICATE_BAD };
        const struct message_server_credentials credentials = { TEXT("private key"), TEXT("leaf and sub-CA") };
        struct message_certificate question_out;
        struct message_certificate_answer answer_out;
        struct message_server_credentials credentials_out;

        (void)state;
        ROUND_TRIP(certificate, question, question_out);
        assert_int_equal(question_out.question, 9);
        same(question_out.chain, question.chain);
        same(question_out.peer, question.peer);
        ROUND_TRIP(certificate_answer, answer, answer_out);
        assert_int_equal(answer_out.question, 9);
        assert_int_equal(answer_out.verdict, CERTIFICATE_BAD);
        ROUND_TRIP(server_credentials, credentials, credentials_out);
        same(credentials_out.key, credentials.key);
        same(credentials_out.chain, credentials.chain);
}

static void enrolments_come_back_whole_and_no_other_length_is_taken(void **state) {
        const struct message_enrol question = { UINT64_MAX, true, TEXT("a request") };
        const struct message_enrolled answer = { 7, ENROL_LATER, 202, 3600, TEXT("cms"), TEXT("approval pending") };
        struct message_enrol question_out;
        struct message_enrolled answer_out;

        (void)state;
        ROUND_TRIP(enrol, question, question_out);
        assert_true(question_out.number == UINT64_MAX);
        assert_true(question_out.is_renewal);
        same(question_out.csr, question.csr);
        ROUND_TRIP(enrolled, answer, answer_out);
        assert_int_equal(answer_out.number, 7);
        assert_int_equal(answer_out.outcome, ENROL_LATER);
        assert_int_equal(answer_out.http_status, 202);
        assert_int_equal(answer_out.retry_sec, 3600);
        same(answer_out.certificates, answer.certificates);
        same(answer_out.reason, answer.reason);
}

static void empty_slices_are_no_missing_slices(void **state) {
        const struct message_request in = {
                .session = 1, .method = 1, .content_format = -1, .accept = -1, .observe = -1
        };
        struct message_request out;

        (void)state;
        ROUND_TRIP(request, in, out);
        assert_int_equal(out.token.size, 0);
        assert_int_equal(out.payload.size, 0);
}

static void no_reader_takes_a_value_that_no_writer_writes(void **state) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        (void)state;
        message_write_setup(&(struct message_setup){ .role = ROLE_SOUTH }, &body);
        body.data[0] = ROLE_COUNT;
        assert_int_equal(read_setup(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_closed(&(struct message_closed){ .reason = CLOSE_IDLE }, &body);
        body.data[8] = CLOSE_ERROR + 1;
        assert_int_equal(read_closed(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_handshake_failed(&(struct message_handshake_failed){ 0 }, &body);
        body.data[0] = FAILED_CERTIFICATE + 1;
        assert_int_equal(read_handshake_failed(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_certificate_answer(&(struct message_certificate_answer){ 0 }, &body);
        body.data[4] = CERTIFICATE_BAD + 1;
        assert_int_equal(read_certificate_answer(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_enrolled(&(struct message_enrolled){ 0 }, &body);
        body.data[8] = ENROL_FAILED + 1;
        assert_int_equal(read_enrolled(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_uplink(&(struct message_uplink){ 0 }, &body);
        body.data[0] = 2; /* a boolean */
        assert_int_equal(read_uplink(buffer_bytes(&body)), -EBADMSG);
}

static void no_reader_takes_a_slice_longer_than_its_field_allows(void **state) {
        static const uint8_t long_text[CERTIFICATES_MAX + 1];
        _cleanup_(buffer_free) struct buffer body = { 0 };

        (void)state;
        message_write_psk(&(struct message_psk){ .identity = BYTES(long_text, 257) }, &body);
        assert_int_equal(read_psk(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_psk(&(struct message_psk){ .peer = BYTES(long_text, 64) }, &body);
        assert_int_equal(read_psk(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_connected(&(struct message_connected){ .peer = BYTES(long_text, 64) }, &body);
        assert_int_equal(read_connected(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_connected(&(struct message_connected){ .tls_unique = BYTES(long_text, TLS_UNIQUE_MAX + 1) },
                                &body);
        assert_int_equal(read_connected(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_connected(&(struct message_connected){ .chain = BYTES(long_text, CERTIFICATES_MAX + 1) }, &body);
        assert_int_equal(read_connected(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_certificate(&(struct message_certificate){ .chain = BYTES(long_text, CERTIFICATES_MAX + 1) },
                                  &body);
        assert_int_equal(read_certificate(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_request(&(struct message_request){ .method = 1, .token = BYTES(long_text, 9) }, &body);
        assert_int_equal(read_request(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_parked(&(struct message_parked){ .reason = BYTES(long_text, 1025) }, &body);
        assert_int_equal(read_parked(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        message_write_uplink(&(struct message_uplink){ .reason = BYTES(long_text, 1025) }, &body);
        assert_int_equal(read_uplink(buffer_bytes(&body)), -EBADMSG);
        buffer_free(&body);
        field_put_u32(&body, 1);
        field_put_u8(&body, 1);
        field_put_bytes(&body, BYTES(long_text, SECRET_MAX + 1));
        assert_int_equal(read_psk_answer(buffer_bytes(&body)), -EBADMSG);
}

static void a_length_that_reaches_past_the_body_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer body = { 0 };

        (void)state;
        field_put_u32(&body, UINT32_MAX); /* of the gateway's id */
        field_put_u32(&body, 0);
        assert_int_equal(read_north_hello(buffer_bytes(&body)), -EBADMSG);
}

static void names_exist_for_every_value_and_for_none(void **state) {
        (void)state;
        for (enum role role = ROLE_SUPERVISOR; role < ROLE_COUNT; role++)
                assert_string_not_equal(role_name(role), "unknown");
        assert_string_equal(role_name((enum role)ROLE_COUNT), "unknown");
        for (enum handshake_failure f = FAILED_UNKNOWN_IDENTITY; f <= FAILED_CERTIFICATE; f++)
                assert_string_not_equal(handshake_failure_name(f), "unknown");
        assert_string_equal(handshake_failure_name((enum handshake_failure)(FAILED_CERTIFICATE + 1)), "unknown");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_setup_comes_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(a_lookup_comes_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(a_session_s_messages_come_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(certificates_come_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(enrolments_come_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(a_request_and_its_reply_come_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(what_goes_north_comes_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(what_comes_from_north_comes_back_whole_and_no_other_length_is_taken),
                cmocka_unit_test(empty_slices_are_no_missing_slices),
                cmocka_unit_test(no_reader_takes_a_value_that_no_writer_writes),
                cmocka_unit_test(no_reader_takes_a_slice_longer_than_its_field_allows),
                cmocka_unit_test(a_length_that_reaches_past_the_body_is_refused),
                cmocka_unit_test(names_exist_for_every_value_and_for_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

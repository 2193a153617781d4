/* SPDX-License-Identifier: Apache-2.0 */

/* The CoAP and CBOR underneath the example device: reliability, matching, observation, blocks, and the
 * parsers' refusals. */

#include "tests/unit/device_world.h"

static int set_up(void **state) {
        *state = world_new();
        return 0;
}

static int tear_down(void **state) {
        free(*state);
        return 0;
}

/* A device that has just asked for its first key. */
static struct device_message asking(struct world *world) {
        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        return world_expect(world, DEVICE_POST, "cred");
}

/* ---- reliability ---- */

static void an_unanswered_request_is_sent_five_times_with_doubling_pauses(void **state) {
        struct world *world = *state;
        struct device_message first = asking(world), again;
        uint64_t sent_at = world->now, pause, last = 0;
        unsigned i;

        for (i = 0; i < DEVICE_MAX_RETRANSMIT; i++) {
                world_wait(world, world->wake - world->now);
                again = world_expect(world, DEVICE_POST, "cred");
                pause = world->now - sent_at;
                sent_at = world->now;
                assert_int_equal(again.id, first.id); /* the same message */
                assert_memory_equal(again.token, first.token, 4);
                if (i == 0)
                        assert_true(pause >= 2000 && pause <= 3000);
                else
                        assert_int_equal(pause, 2 * last);
                last = pause;
        }
        world_wait(world, 2 * last);
        assert_int_equal(world->events[DEVICE_EVENT_UNANSWERED], 1);
        assert_int_equal(world->disconnects, 1);
}

static void an_empty_ack_ends_retransmission_and_the_answer_comes_separately(void **state) {
        struct world *world = *state;
        struct device_message request = asking(world);
        uint8_t body[200];
        size_t size = world_grant_body(body, sizeof body, "sensor-1", "kid-1");

        world_send_empty(world, WORLD_ACK, request.id);
        world_wait(world, 60000);
        assert_true(world_is_silent(world));
        world_answer(
                world, &request,
                WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 4), .format = 601, .body = body, .size = size));
        world_expect_empty(world, WORLD_ACK, world->message_id);
        assert_true(world_shows(world, "kid-1"));
}

static void a_separate_answer_that_never_comes_ends_the_session(void **state) {
        struct world *world = *state;
        struct device_message request = asking(world);

        world_send_empty(world, WORLD_ACK, request.id);
        world_wait(world, DEVICE_SEPARATE_WAIT_MS);
        assert_int_equal(world->events[DEVICE_EVENT_UNANSWERED], 1);
}

static void a_repeated_answer_is_acknowledged_again_and_acts_once(void **state) {
        struct world *world = *state;
        struct device_message request;

        world->config.wants_time = true;
        world_provision(world, "kid-1");
        request = world_expect(world, DEVICE_GET, "time");
        world_answer(world, &request,
                     WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .format = 60,
                                 .body = "\xa2\x01\x1a\x6a\x00\x00\x00\x02\x02", .size = 9));
        world_expect_empty(world, WORLD_ACK, world->message_id);
        world->message_id--;
        world_answer(world, &request,
                     WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .format = 60,
                                 .body = "\xa2\x01\x1a\x6a\x00\x00\x00\x02\x02", .size = 9));
        world_expect_empty(world, WORLD_ACK, world->message_id);
        assert_int_equal(world->events[DEVICE_EVENT_TIME], 1);
        assert_true(world_is_silent(world));
}

static void an_answer_without_its_token_or_message_id_is_none(void **state) {
        struct world *world = *state;
        struct device_message request = asking(world), other;

        other = request;
        other.id++;
        world_grant(world, &other, "kid-1");
        other = request;
        other.token[0] ^= 1;
        world_grant(world, &other, "kid-1");
        assert_int_equal(world->connects, 1);
        assert_true(world_is_silent(world)); /* acknowledgements are never answered */
        world_grant(world, &request, "kid-1");
        assert_int_equal(world->connects, 2);
}

static void a_ping_a_request_and_a_malformed_message_are_answered_with_rst(void **state) {
        struct world *world = *state;
        static const uint8_t request[] = { 0x40, 0x01, 0x12, 0x34, 0xb2, 'm', 'e' };
        static const uint8_t marker_alone[] = { 0x40, 0x45, 0x12, 0x35, 0xff };
        static const uint8_t acknowledgement[] = { 0x60, 0x45, 0x12, 0x36, 0xff };

        world_provision(world, "kid-1");
        world_send_empty(world, WORLD_CON, 77);
        world_expect_empty(world, WORLD_RST, 77);
        world_input(world, request, sizeof request);
        world_expect_empty(world, WORLD_RST, 0x1234);
        world_input(world, marker_alone, sizeof marker_alone);
        world_expect_empty(world, WORLD_RST, 0x1235);
        world_input(world, acknowledgement, sizeof acknowledgement);
        world_input(world, request, 3);
        assert_true(world_is_silent(world));
}

static void a_request_answered_with_rst_is_made_again_later(void **state) {
        struct world *world = *state;
        struct device_message request = asking(world);

        world_send_empty(world, WORLD_RST, request.id);
        assert_true(world_is_silent(world));
        world_wait(world, 70000);
        world_expect(world, DEVICE_POST, "cred");
}

static void an_answer_with_an_unknown_critical_option_is_not_used(void **state) {
        struct world *world = *state;
        struct device_message request = asking(world);
        uint8_t data[256] = { 0x64, DEVICE_CODE(2, 4), 0, 0, 0, 0, 0, 0, 0x90, 0x32, 0x02, 0x59, 0xff }; /* 9, 12 */

        data[2] = (uint8_t)(request.id >> 8);
        data[3] = (uint8_t)request.id;
        memcpy(data + 4, request.token, 4);
        world_input(world, data, 13 + world_grant_body(data + 13, sizeof data - 13, "sensor-1", "kid-1"));
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_int_equal(world->connects, 1);
}

/* ---- observation ---- */

static void tell(struct world *world, const struct device_message *observation, int sequence, unsigned due) {
        uint8_t body[64];
        size_t size = world_me_body(body, sizeof body, due);

        world_answer(world, observation,
                     WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .format = 60, .max_age = 86400,
                                 .observe = sequence, .body = body, .size = size));
        world_expect_empty(world, WORLD_ACK, world->message_id);
}

static void a_notification_is_acknowledged_and_acted_on(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1");

        assert_true(observation.has_observe);
        tell(world, &observation, 2, DEVICE_DUE_ROTATE);
        assert_int_equal(world->events[DEVICE_EVENT_NOTIFIED], 1);
        world_expect(world, DEVICE_POST, "cred");
}

static void an_older_notification_that_comes_late_is_ignored(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1");

        tell(world, &observation, 9, 0);
        tell(world, &observation, 8, DEVICE_DUE_ROTATE);
        assert_int_equal(world->events[DEVICE_EVENT_NOTIFIED], 1);
        assert_true(world_is_silent(world));
        world_wait(world, 129000); /* after that long any sequence number is newer: RFC 7641 §3.4 */
        tell(world, &observation, 8, DEVICE_DUE_ROTATE);
        world_expect(world, DEVICE_POST, "cred");
}

static void a_notification_that_nobody_asked_for_is_answered_with_rst(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), stranger = observation;

        stranger.token[0] ^= 1;
        world_answer(world, &stranger, WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .observe = 5));
        world_expect_empty(world, WORLD_RST, world->message_id);

        world->config.stays_connected = true;
        world->device.config.stays_connected = true;
        world->wake = device_observe(&world->device, false);
        world_answer(world, &observation, WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .observe = 6));
        world_expect_empty(world, WORLD_RST, world->message_id);
}

static void an_observation_that_the_gateway_ends_is_registered_anew(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        world_answer(world, &observation, WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(4, 4)));
        world_expect_empty(world, WORLD_ACK, world->message_id);
        request = world_expect(world, DEVICE_GET, "me");
        assert_true(request.has_observe);
        assert_memory_not_equal(request.token, observation.token, 4);
}

static void an_observation_is_confirmed_by_reading_again_after_max_age(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        world_wait(world, WORLD_DAY);
        request = world_expect(world, DEVICE_GET, "me");
        assert_true(request.has_observe);
        assert_memory_equal(request.token, observation.token, 4); /* the same observation: RFC 7641 §3.3.1 */
}

/* ---- blocks ---- */

/* A /me of more than 200 bytes: claims to come that this device passes over. */
static size_t long_me(uint8_t *body, size_t capacity) {
        struct device_cbor_writer writer = { body, 0, capacity, false };
        uint8_t padding[200] = { 0 };

        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 3);
        device_cbor_write_integer(&writer, 3);
        device_cbor_write_integer(&writer, 1000);
        device_cbor_write_integer(&writer, 6);
        device_cbor_write_integer(&writer, DEVICE_DUE_ROTATE);
        device_cbor_write_integer(&writer, 40);
        device_cbor_write_string(&writer, DEVICE_CBOR_BYTES, padding, sizeof padding);
        assert_false(writer.overflow);
        return writer.size;
}

/* Answers with the block that was asked for, of 64 bytes. */
static void answer_block(struct world *world, const struct device_message *request, const uint8_t *body, size_t size,
                         const char *etag) {
        size_t offset = (size_t)request->block2.number * 64, n = size - offset < 64 ? size - offset : 64;
        int value = (int)(request->block2.number << 4 | (offset + n < size ? 8U : 0U) | 2);

        world_answer(world, request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 60, .max_age = 86400, .observe = 9,
                                 .block2 = value, .etag = etag, .body = body + offset, .size = n));
}

static void a_reply_in_blocks_is_put_together(void **state) {
        struct world *world = *state;
        struct device_message request;
        uint8_t body[256];
        size_t size = long_me(body, sizeof body);
        unsigned number;

        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY);
        for (number = 0; number < 4; number++) {
                request = world_expect(world, DEVICE_GET, "me");
                assert_int_equal(request.block2.number, number);
                assert_true(request.has_observe == (number == 0)); /* RFC 7959 §2.6 */
                answer_block(world, &request, body, size, "v1");
        }
        world_expect(world, DEVICE_POST, "cred");
}

static void a_reply_that_changes_between_blocks_is_fetched_from_the_start(void **state) {
        struct world *world = *state;
        struct device_message request;
        uint8_t body[256];
        size_t size = long_me(body, sizeof body);

        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY);
        request = world_expect(world, DEVICE_GET, "me");
        answer_block(world, &request, body, size, "v1");
        request = world_expect(world, DEVICE_GET, "me");
        answer_block(world, &request, body, size, "v2");
        request = world_expect(world, DEVICE_GET, "me");
        assert_int_equal(request.block2.number, 0);
        answer_block(world, &request, body, size, "v2");
        request = world_expect(world, DEVICE_GET, "me");
        answer_block(world, &request, body, size, "v3"); /* twice is enough */
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
}

static void a_block_that_is_not_the_next_ends_the_request(void **state) {
        struct world *world = *state;
        struct device_message request;
        uint8_t body[256];
        size_t size = long_me(body, sizeof body);

        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY);
        request = world_expect(world, DEVICE_GET, "me");
        answer_block(world, &request, body, size, NULL);
        request = world_expect(world, DEVICE_GET, "me");
        request.block2.number = 2;
        answer_block(world, &request, body, size, NULL);
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_int_equal(world->events[DEVICE_EVENT_ME], 1);
}

static void a_reply_larger_than_its_buffer_is_refused(void **state) {
        struct world *world = *state;
        struct device_message request;
        static const uint8_t body[DEVICE_BODY_MAX + 64];
        unsigned number;

        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY);
        for (number = 0; number < DEVICE_BODY_MAX / 64; number++) {
                request = world_expect(world, DEVICE_GET, "me");
                answer_block(world, &request, body, sizeof body, NULL);
        }
        request = world_expect(world, DEVICE_GET, "me");
        answer_block(world, &request, body, sizeof body, NULL);
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_true(world_is_silent(world));
}

/* A device that sends blocks of 64 bytes and has to attest; returns its first block. */
static struct device_message sending_evidence(struct world *world) {
        static const uint8_t nonce[] = { 0xa1, 0x0a, 0x48, 1, 2, 3, 4, 5, 6, 7, 8 };
        struct device_message observation, request;

        world->attests = true;
        world->config.block_bytes = 64;
        observation = world_provision(world, "kid-1");
        tell(world, &observation, 2, DEVICE_DUE_ATTEST);
        request = world_expect(world, DEVICE_POST, "rats/nonce");
        assert_true(request.block2.is_present && request.block2.exponent == 2); /* names what it can take */
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 1), .format = 60, .body = nonce, .size = sizeof nonce));
        return world_expect(world, DEVICE_POST, "rats/evidence");
}

static void answer_taken(struct world *world, const struct device_message *request, uint8_t exponent) {
        int value = (int)(request->block1.number << 4 | 8U | exponent);

        world_answer(world, request, WORLD_REPLY(.code = DEVICE_CODE(2, 31), .block1 = value));
}

static void a_body_larger_than_a_block_is_sent_in_blocks(void **state) {
        struct world *world = *state;
        struct device_message request = sending_evidence(world);
        uint8_t whole[DEVICE_BODY_MAX];
        size_t size = 0;

        for (;;) {
                assert_true(request.block1.is_present);
                assert_int_equal(request.block1.number * 64, size);
                memcpy(whole + size, request.payload.data, request.payload.size);
                size += request.payload.size;
                if (!request.block1.has_more)
                        break;
                answer_taken(world, &request, 2);
                request = world_expect(world, DEVICE_POST, "rats/evidence");
        }
        assert_int_equal(size, world->device.evidence_size);
        assert_memory_equal(whole, world->device.evidence, size);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(2, 1), .format = 60, .body = "\xa0", .size = 1));
        assert_int_equal(world->events[DEVICE_EVENT_EVIDENCE_ACCEPTED], 1);
}

static void the_gateway_may_ask_for_smaller_blocks_on_the_way(void **state) {
        struct world *world = *state;
        struct device_message request = sending_evidence(world);

        answer_taken(world, &request, 0);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        assert_int_equal(request.block1.exponent, 0);
        assert_int_equal(request.block1.number, 4); /* 64 bytes are there: RFC 7959 §2.5 */
        assert_int_equal(request.payload.size, 16);
}

static void a_body_too_large_for_the_gateways_blocks_is_sent_anew_in_smaller_ones(void **state) {
        struct world *world = *state;
        struct device_message request = sending_evidence(world);

        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 13), .block1 = 1));
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        assert_int_equal(request.block1.exponent, 1);
        assert_int_equal(request.block1.number, 0);
}

static void a_gateway_that_lost_the_first_blocks_gets_the_body_again(void **state) {
        struct world *world = *state;
        struct device_message request = sending_evidence(world);

        answer_taken(world, &request, 2);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 8)));
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        assert_int_equal(request.block1.number, 0);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 8))); /* twice is enough */
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
}

/* ---- parsers ---- */

static void messages_against_the_form_are_none(void **state) {
        static const struct {
                uint8_t data[8];
                size_t size;
        } malformed[] = {
                { { 0x80, 0x45, 0, 1 }, 4 },                   /* version 2 */
                { { 0x49, 0x45, 0, 1, 1, 2, 3, 4 }, 8 },       /* a token of 9 bytes */
                { { 0x44, 0x45, 0, 1, 1, 2 }, 6 },             /* a token cut short */
                { { 0x40, 0x00, 0, 1, 0xff, 1 }, 6 },          /* an empty message that is not */
                { { 0x40, 0x45, 0, 1, 0xff }, 5 },             /* a marker without payload */
                { { 0x40, 0x45, 0, 1, 0xf1, 1 }, 6 },          /* delta 15 */
                { { 0x40, 0x45, 0, 1, 0x1f, 1 }, 6 },          /* length 15 */
                { { 0x40, 0x45, 0, 1, 0x12, 1 }, 6 },          /* an option cut short */
                { { 0x40, 0x45, 0, 1, 0xd1 }, 5 },             /* an extended delta cut short */
                { { 0x40, 0x45, 0, 1, 0xe0, 0xff, 0xff }, 7 }, /* option 65,804 */
        };
        struct device_message message;
        size_t i;

        (void)state;
        for (i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
                assert_false(device_message_parse(malformed[i].data, malformed[i].size, &message));
}

static void a_grant_cut_short_anywhere_is_refused(void **state) {
        uint8_t body[200];
        size_t size = world_grant_body(body, sizeof body, "sensor-1", "kid-1"), n;
        struct device_key key = { .identity_size = 7 };

        (void)state;
        assert_true(device_parse_grant(body, size, "sensor-1", &key));
        assert_int_equal(key.identity_size, 5);
        assert_int_equal(key.key_size, 32);
        key.identity_size = 7;
        for (n = 0; n < size; n++)
                assert_false(device_parse_grant(body, n, "sensor-1", &key));
        body[size] = 0;
        assert_false(device_parse_grant(body, size + 1, "sensor-1", &key));
        assert_int_equal(key.identity_size, 7); /* untouched */
}

static void what_is_said_twice_or_without_end_is_refused(void **state) {
        static const uint8_t twice[] = { 0xa2, 0x06, 0x00, 0x06, 0x01 };
        static const uint8_t bottomless[] = { 0xa1, 0x18, 0x28, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
        static const uint8_t wrapping[] = { 0xa1, 0x18, 0x28, 0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0 }; /* 2^63 pairs */
        static const uint8_t indefinite[] = { 0xbf, 0x06, 0x00, 0xff };
        static const uint8_t negative_due[] = { 0xa1, 0x06, 0x20 };
        struct device_me me;

        (void)state;
        assert_false(device_parse_me(twice, sizeof twice, &me));
        assert_false(device_parse_me(bottomless, sizeof bottomless, &me));
        assert_false(device_parse_me(wrapping, sizeof wrapping, &me));
        assert_false(device_parse_me(indefinite, sizeof indefinite, &me));
        assert_false(device_parse_me(negative_due, sizeof negative_due, &me));
}

static void absent_and_null_durations_are_unknown(void **state) {
        static const uint8_t body[] = { 0xa4, 0x00, 0x61, 'x', 0x03, 0xf6, 0x04, 0x39, 0x01, 0x00, 0x06, 0x02 };
        struct device_me me;

        (void)state;
        assert_true(device_parse_me(body, sizeof body, &me));
        assert_true(me.rotate_in_sec == DEVICE_UNKNOWN);
        assert_int_equal(me.late_in_sec, -257);
        assert_true(me.attest_in_sec == DEVICE_UNKNOWN);
        assert_int_equal(me.due, DEVICE_DUE_ATTEST);
}

static void a_nonce_comes_as_a_map_or_raw(void **state) {
        uint8_t raw[70] = { 1 };
        struct device_nonce nonce;

        (void)state;
        assert_true(device_parse_nonce(raw, 32, true, &nonce));
        assert_int_equal(nonce.size, 32);
        assert_false(device_parse_nonce(raw, 7, true, &nonce)); /* RFC 9711 §4.1 */
        assert_false(device_parse_nonce(raw, 65, true, &nonce));
        assert_false(device_parse_nonce((const uint8_t *)"\xa0", 1, false, &nonce));
}

static void evidence_that_does_not_fit_is_not_made(void **state) {
        struct world *world = *state;
        struct device_nonce nonce = { .size = 32 };
        uint8_t buffer[512];
        size_t size, n;

        size = device_build_evidence(&world->config.claims, "sensor-1", &nonce, world_port_sign, world, buffer,
                                     sizeof buffer);
        assert_in_range(size, 150, 300);
        for (n = 0; n < size; n++)
                assert_int_equal(0, device_build_evidence(&world->config.claims, "sensor-1", &nonce, world_port_sign,
                                                          world, buffer, n));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(an_unanswered_request_is_sent_five_times_with_doubling_pauses),
                TEST(an_empty_ack_ends_retransmission_and_the_answer_comes_separately),
                TEST(a_separate_answer_that_never_comes_ends_the_session),
                TEST(a_repeated_answer_is_acknowledged_again_and_acts_once),
                TEST(an_answer_without_its_token_or_message_id_is_none),
                TEST(a_ping_a_request_and_a_malformed_message_are_answered_with_rst),
                TEST(a_request_answered_with_rst_is_made_again_later),
                TEST(an_answer_with_an_unknown_critical_option_is_not_used),
                TEST(a_notification_is_acknowledged_and_acted_on),
                TEST(an_older_notification_that_comes_late_is_ignored),
                TEST(a_notification_that_nobody_asked_for_is_answered_with_rst),
                TEST(an_observation_that_the_gateway_ends_is_registered_anew),
                TEST(an_observation_is_confirmed_by_reading_again_after_max_age),
                TEST(a_reply_in_blocks_is_put_together),
                TEST(a_reply_that_changes_between_blocks_is_fetched_from_the_start),
                TEST(a_block_that_is_not_the_next_ends_the_request),
                TEST(a_reply_larger_than_its_buffer_is_refused),
                TEST(a_body_larger_than_a_block_is_sent_in_blocks),
                TEST(the_gateway_may_ask_for_smaller_blocks_on_the_way),
                TEST(a_body_too_large_for_the_gateways_blocks_is_sent_anew_in_smaller_ones),
                TEST(a_gateway_that_lost_the_first_blocks_gets_the_body_again),
                TEST(messages_against_the_form_are_none),
                TEST(a_grant_cut_short_anywhere_is_refused),
                TEST(what_is_said_twice_or_without_end_is_refused),
                TEST(absent_and_null_durations_are_unknown),
                TEST(a_nonce_comes_as_a_map_or_raw),
                TEST(evidence_that_does_not_fit_is_not_made),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Frames over a real socketpair, and the bodies of messages. */

#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gatewayd/link.h"
#include "gatewayd/messages.h"

struct pair {
        struct link *a, *b;
};

static int set_up(void **state) {
        struct pair *pair = xcalloc(1, sizeof *pair);
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0 || link_new(fds[0], 1 << 20, &pair->a) < 0 ||
            link_new(fds[1], 1 << 20, &pair->b) < 0)
                return -1;
        *state = pair;
        return 0;
}

static int tear_down(void **state) {
        struct pair *pair = *state;

        link_freep(&pair->a);
        link_freep(&pair->b);
        free(pair);
        return 0;
}

struct seen {
        unsigned count;
        uint8_t last_type;
        struct buffer bodies;
        int descriptor;
};

static int take(void *userdata, struct frame *frame) {
        struct seen *seen = userdata;

        seen->count++;
        seen->last_type = frame->type;
        buffer_append(&seen->bodies, frame->body);
        if (frame->descriptor_count > 0)
                seen->descriptor = frame->descriptors[0];
        return 0;
}

static void frames_of_one_turn_arrive_whole_and_in_order(void **state) {
        struct pair *pair = *state;
        struct seen seen = { 0 };

        for (unsigned i = 0; i < 200; i++) {
                char body[8];

                snprintf(body, sizeof body, "%03u", i);
                assert_int_equal(link_send(pair->a, 7, BYTES(body, 3), LINK_MAY_REFUSE), 0);
        }
        while (seen.count < 200) {
                assert_int_equal(link_flush(pair->a), 0);
                assert_true(link_receive(pair->b, 128, take, &seen) >= 0);
        }
        assert_int_equal(seen.bodies.size, 600);
        for (unsigned i = 0; i < 200; i++) {
                char body[8];

                snprintf(body, sizeof body, "%03u", i);
                assert_memory_equal(seen.bodies.data + i * 3, body, 3);
        }
        buffer_free(&seen.bodies);
}

static void sending_never_blocks_and_a_full_queue_refuses(void **state) {
        static uint8_t body[60000];
        struct pair *pair = *state;
        struct link_statistics statistics;
        int r = 0;

        for (unsigned i = 0; i < 1000 && r == 0; i++) {
                r = link_send(pair->a, 1, BYTES(body, sizeof body), LINK_MAY_REFUSE);
                assert_int_equal(link_flush(pair->a), 0);
        }
        assert_int_equal(r, -ENOBUFS);
        assert_true(link_events(pair->a) & EPOLLOUT);
        link_statistics(pair->a, &statistics);
        assert_true(statistics.queued_bytes <= 1 << 20);
        assert_int_equal(statistics.refused, 1);
}

static void a_frame_that_may_not_drop_breaks_a_full_link(void **state) {
        static uint8_t body[60000];
        struct pair *pair = *state;
        int r = 0;

        for (unsigned i = 0; i < 1000 && r == 0; i++)
                r = link_send(pair->a, 1, BYTES(body, sizeof body), LINK_NEVER_DROP);
        assert_int_equal(r, -EPIPE);
        assert_int_equal(link_flush(pair->a), -EPIPE);
}

static void descriptors_travel_with_their_frame(void **state) {
        struct pair *pair = *state;
        struct seen seen = { .descriptor = -1 };
        int pipes[2];
        char c = 0;

        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        assert_int_equal(link_send(pair->a, 1, TEXT("x"), LINK_MAY_REFUSE), 0);
        assert_int_equal(link_send_descriptors(pair->a, 2, TEXT("y"), &pipes[1], 1), 0);
        assert_int_equal(link_send(pair->a, 3, TEXT("z"), LINK_MAY_REFUSE), 0);
        close(pipes[1]);
        assert_int_equal(link_flush(pair->a), 0);
        assert_int_equal(link_receive(pair->b, 10, take, &seen), 3);
        assert_true(seen.descriptor >= 0);
        assert_int_equal(write(seen.descriptor, "!", 1), 1);
        assert_int_equal(read(pipes[0], &c, 1), 1);
        assert_int_equal(c, '!');
        close(seen.descriptor);
        close(pipes[0]);
        buffer_free(&seen.bodies);
}

static void the_end_of_the_other_side_is_told(void **state) {
        struct pair *pair = *state;
        struct seen seen = { 0 };

        assert_int_equal(link_send(pair->a, 1, TEXT("last"), LINK_MAY_REFUSE), 0);
        assert_int_equal(link_flush(pair->a), 0);
        link_freep(&pair->a);
        assert_int_equal(link_receive(pair->b, 10, take, &seen), 1);
        assert_int_equal(link_receive(pair->b, 10, take, &seen), -EPIPE);
        buffer_free(&seen.bodies);
}

static void malformed_packets_are_refused(void **state) {
        static const uint8_t wrong_version[] = { 9, 1, 0, 0, 0, 0, 0, 0 };
        static const uint8_t wrong_length[] = { LINK_VERSION, 1, 0, 0, 5, 0, 0, 0, 'x' };
        static const uint8_t not_zero[] = { LINK_VERSION, 1, 1, 0, 0, 0, 0, 0 };
        struct frame frame;

        (void)state;
        assert_int_equal(frame_parse(BYTES(wrong_version, sizeof wrong_version), &frame), -EBADMSG);
        assert_int_equal(frame_parse(BYTES(wrong_length, sizeof wrong_length), &frame), -EBADMSG);
        assert_int_equal(frame_parse(BYTES(not_zero, sizeof not_zero), &frame), -EBADMSG);
        assert_int_equal(frame_parse(BYTES(wrong_version, 3), &frame), -EBADMSG);
}

static void a_request_survives_its_frame(void **state) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        const struct message_request sent = {
                .session = UINT64_C(0x100000002),
                .exchange = 77,
                .message_id = 0xabcd,
                .token = TEXT("tok"),
                .method = 2,
                .path = TEXT("rats/evidence"),
                .query = TEXT("a=b"),
                .content_format = 263,
                .accept = -1,
                .observe = -1,
                .payload = TEXT("payload"),
        };
        struct message_request got;

        (void)state;
        message_write_request(&sent, &body);
        assert_int_equal(message_read_request(buffer_bytes(&body), &got), 0);
        assert_true(got.session == sent.session && got.exchange == 77 && got.message_id == 0xabcd && got.method == 2);
        assert_true(bytes_equal(got.token, sent.token) && bytes_equal(got.path, sent.path));
        assert_true(bytes_equal(got.query, sent.query) && bytes_equal(got.payload, sent.payload));
        assert_true(got.content_format == 263 && got.accept == -1 && got.observe == -1);
        for (size_t cut = 0; cut < body.size; cut++)
                assert_int_equal(message_read_request(BYTES(body.data, cut), &got), -EBADMSG);
        buffer_append(&body, TEXT("!"));
        assert_int_equal(message_read_request(buffer_bytes(&body), &got), -EBADMSG);
}

static void values_that_no_writer_writes_are_refused(void **state) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct message_closed closed;
        struct message_psk_answer answer;

        (void)state;
        message_write_closed(&(struct message_closed){ .session = 1, .reason = CLOSE_ERROR }, &body);
        assert_int_equal(message_read_closed(buffer_bytes(&body), &closed), 0);
        body.data[body.size - 1] = 200;
        assert_int_equal(message_read_closed(buffer_bytes(&body), &closed), -EBADMSG);
        buffer_free(&body);
        message_write_psk_answer(&(struct message_psk_answer){ .question = 1 }, &body);
        body.data[4] = 2;
        assert_int_equal(message_read_psk_answer(buffer_bytes(&body), &answer), -EBADMSG);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(frames_of_one_turn_arrive_whole_and_in_order, set_up, tear_down),
                cmocka_unit_test_setup_teardown(sending_never_blocks_and_a_full_queue_refuses, set_up, tear_down),
                cmocka_unit_test_setup_teardown(a_frame_that_may_not_drop_breaks_a_full_link, set_up, tear_down),
                cmocka_unit_test_setup_teardown(descriptors_travel_with_their_frame, set_up, tear_down),
                cmocka_unit_test_setup_teardown(the_end_of_the_other_side_is_told, set_up, tear_down),
                cmocka_unit_test(malformed_packets_are_refused),
                cmocka_unit_test(a_request_survives_its_frame),
                cmocka_unit_test(values_that_no_writer_writes_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

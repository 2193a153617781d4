/* SPDX-License-Identifier: Apache-2.0 */

/* The example device with certificates (tests/sim/device_enrol.c): how it comes to know the gateway, to its
 * certificates, and through power cuts, against a scripted gateway, clock and flash. */

#include "tests/unit/device_world.h"

#include "tests/sim/device_certificates.h"

static int set_up(void **state) {
        static const uint8_t idevid[] = { 0x30, 0x03, 'i', 'd', '!' };
        struct world *world = world_new();

        world->config.idevid = (struct device_bytes){ idevid, sizeof idevid };
        *state = world;
        return 0;
}

static int tear_down(void **state) {
        free(*state);
        return 0;
}

/* ---- what the gateway says ---- */

/* A stand-in for a certificate: 42 bytes of DER whose first byte inside names the key. */
static size_t put_certificate(uint8_t *to, uint8_t number) {
        memset(to, 0x55, 42);
        to[0] = 0x30;
        to[1] = 40;
        to[2] = number;
        return 42;
}

/* A certs-only message; returns its size. */
static size_t certs_only(uint8_t *to, const uint8_t *numbers, size_t count) {
        static const uint8_t head[] = { 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02 };
        static const uint8_t inner[] = { 0x02, 0x01, 0x01, 0x31, 0x00, 0x30, 0x0b, 0x06, 0x09,
                                         0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01 };
        size_t list = 42 * count, message, wrapped, outer, n = 0;

        message = sizeof inner + 4 + list + 2;
        wrapped = message + 4;
        outer = sizeof head + 4 + wrapped;
#define LONG(tag, size) (to[n++] = (tag), to[n++] = 0x82, to[n++] = (uint8_t)((size) >> 8), to[n++] = (uint8_t)(size))
        LONG(0x30, outer);
        memcpy(to + n, head, sizeof head);
        n += sizeof head;
        LONG(0xa0, wrapped);
        LONG(0x30, message);
        memcpy(to + n, inner, sizeof inner);
        n += sizeof inner;
        LONG(0xa0, list);
        while (count-- > 0)
                n += put_certificate(to + n, *numbers++);
        to[n++] = 0x31;
        to[n++] = 0;
        return n;
}

/* Seven of them: with fewer, lengths of this form would not be the shortest. */
static size_t seven(uint8_t *to, uint8_t first) {
        const uint8_t numbers[] = { first, 201, 202, 203, 204, 205, 206 };

        return certs_only(to, numbers, 7);
}

static void give_anchors(struct world *world, uint8_t first) {
        struct device_message request = world_expect(world, DEVICE_GET, ".well-known/est/crts");
        uint8_t body[600];
        size_t size = seven(body, first);

        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 281, .body = body, .size = size));
}

/* Answers an enrolment with a certificate for key `number`; returns the request. */
static struct device_message give_certificate(struct world *world, const char *path, uint8_t number) {
        struct device_message request = world_expect(world, DEVICE_POST, path);
        uint8_t body[42];

        assert_int_equal(request.content_format, 286);
        assert_int_equal(request.payload.size, 300);
        put_certificate(body, number);
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 4), .format = 287, .body = body, .size = sizeof body));
        return request;
}

static const char sen[] = ".well-known/est/sen", sren[] = ".well-known/est/sren";

/* Lets time pass until it asks something. */
static void await_request(struct world *world) {
        unsigned sec;

        for (sec = 0; world_is_silent(world) && sec < 10000; sec++)
                world_wait(world, 1000);
}

/* Up to its first session that holds by the anchors. */
static void contact(struct world *world) {
        world_power_up(world);
        world_await_connect(world, 10000);
        assert_int_equal(world->anchors_size, 0);
        world_accept(world);
        give_anchors(world, 200);
        assert_int_equal(world->anchors_size, 7 * 42);
        world_accept(world);
}

/* From the factory to an idle device with certificate 1; returns its request for /me. */
static struct device_message enrol(struct world *world) {
        struct device_message request;

        contact(world);
        give_certificate(world, sen, 1);
        assert_true(world_shows(world, "cert-1"));
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        assert_true(device_is_settled(&world->device));
        return request;
}

static void notify(struct world *world, const struct device_message *observation, unsigned due) {
        static int sequence = 10;
        uint8_t body[64];
        size_t size = world_me_body(body, sizeof body, due);

        world_answer(world, observation,
                     WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .format = 60, .max_age = 86400,
                                 .observe = ++sequence, .body = body, .size = size));
        world_expect_empty(world, WORLD_ACK, world->message_id);
}

/* ---- first contact ---- */

static void a_new_device_learns_the_anchors_enrols_and_proves_its_certificate(void **state) {
        struct world *world = *state;

        enrol(world);

        assert_int_equal(world->connects, 3);
        assert_int_equal(world->events[DEVICE_EVENT_ANCHORS], 1);
        assert_int_equal(world->events[DEVICE_EVENT_PROVEN], 1);
        assert_true(world->flash.has_newest && world->flash.anchors_proven);
        assert_int_equal(world->flash.csr_size, 0);
        assert_int_equal(world->flash.slot[world->flash.newest].certificate_size, 42);
        assert_int_equal(world->flash.slot[world->flash.newest].key[0], 1);
        assert_int_equal(world->requests, 1);
}

static void over_a_session_with_an_unknown_gateway_nothing_but_the_anchors_is_asked(void **state) {
        struct world *world = *state;
        struct device_message request;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_GET, ".well-known/est/crts");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(5, 3), .max_age = 600));

        assert_true(world_is_silent(world));
        assert_int_equal(world->requests, 0);
        world_wait(world, 800000);
        if (world->is_connecting)
                world_accept(world);
        world_expect(world, DEVICE_GET, ".well-known/est/crts");
}

static void anchors_that_no_gateway_lives_up_to_are_forgotten(void **state) {
        struct world *world = *state;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        give_anchors(world, 99);
        world_lose(world); /* the gateway's certificate does not lead to them */

        assert_int_equal(world->flash.anchors_size, 0);
        world_await_connect(world, 10000);
        assert_int_equal(world->anchors_size, 0);
        world_accept(world);
        give_anchors(world, 200);
        world_accept(world);
        give_certificate(world, sen, 1);
}

static void anchors_that_have_held_once_stay_while_the_gateway_is_away(void **state) {
        struct world *world = *state;
        unsigned i;

        contact(world);
        world_overhear(world);
        world_lose(world);
        for (i = 0; i < 20; i++) {
                world_await_connect(world, 700000);
                assert_int_equal(world->anchors_size, 7 * 42);
                world_lose(world);
        }
}

static void a_device_that_was_given_its_anchors_trusts_nobody_else(void **state) {
        struct world *world = *state;
        static const uint8_t given[] = { 0x30, 0x01, 7 };
        unsigned i;

        world->config.anchors = (struct device_bytes){ given, sizeof given };
        world_power_up(world);
        for (i = 0; i < 5; i++) {
                world_await_connect(world, 700000);
                assert_int_equal(world->anchors_size, sizeof given);
                world_lose(world);
        }
        world_await_connect(world, 700000);
        world_accept(world);
        give_anchors(world, 200); /* the whole set, over the same session */
        give_certificate(world, sen, 1);
        assert_int_equal(world->anchors_size, 7 * 42);
}

/* ---- enrolment ---- */

static void a_lost_answer_is_asked_for_again_with_the_identical_request(void **state) {
        struct world *world = *state;
        struct device_message request;

        contact(world);
        request = world_expect(world, DEVICE_POST, sen);
        assert_int_equal(request.payload.data[0], 1);
        world_wait(world, 95000); /* all retransmissions */
        world_overhear(world);
        world_power_up(world);
        world_await_connect(world, 700000);
        world_overhear(world);
        world_accept(world);
        request = give_certificate(world, sen, 1);

        assert_int_equal(request.payload.data[0], 1);
        assert_int_equal(world->requests, 1);
        assert_true(world_shows(world, "cert-1"));
}

static void a_delayed_answer_is_waited_for_as_long_as_it_says(void **state) {
        struct world *world = *state;
        struct device_message request;

        contact(world);
        request = world_expect(world, DEVICE_POST, sen);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(5, 3), .max_age = 3600));
        world_wait(world, 3590000);
        assert_true(world_is_silent(world));
        await_request(world);
        give_certificate(world, sen, 1);
        assert_int_equal(world->requests, 1);
        assert_true(world_shows(world, "cert-1"));
}

static void a_request_that_is_refused_is_replaced_by_another(void **state) {
        struct world *world = *state;
        struct device_message request;

        contact(world);
        request = world_expect(world, DEVICE_POST, sen);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 0), .format = 257, .body = "\xa0", .size = 1));
        assert_true(world_is_silent(world));
        world_wait(world, 70000);
        if (world->is_connecting)
                world_accept(world);
        request = world_expect(world, DEVICE_POST, sen);
        assert_int_equal(request.payload.data[0], 2);
}

static void a_certificate_for_another_key_is_not_used(void **state) {
        struct world *world = *state;

        contact(world);
        give_certificate(world, sen, 9);

        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_int_equal(world->events[DEVICE_EVENT_GRANTED], 0);
        assert_false(world->flash.has_pending);
}

static void its_own_certificate_is_found_among_those_of_the_ca(void **state) {
        struct world *world = *state;
        struct device_message request;
        const uint8_t numbers[] = { 201, 202, 203, 1, 204, 205, 206 };
        uint8_t body[600];
        size_t size = certs_only(body, numbers, 7);

        contact(world);
        request = world_expect(world, DEVICE_POST, sen);
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 4), .format = 281, .body = body, .size = size));
        assert_true(world_shows(world, "cert-1"));
}

static void without_flash_no_request_leaves_and_no_certificate_is_used(void **state) {
        struct world *world = *state;
        struct device_message request;

        contact(world);
        request = world_expect(world, DEVICE_POST, sen);
        world->flash_is_broken = true;
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 0)));
        world_wait(world, 70000);
        if (world->is_connecting)
                world_accept(world);
        assert_true(world_is_silent(world)); /* its key would be lost with the power */
        world->flash_is_broken = false;
        world_wait(world, 200000);
        if (world->is_connecting)
                world_accept(world);
        request = world_expect(world, DEVICE_POST, sen);
        world->flash_is_broken = true;
        {
                uint8_t body[42];

                put_certificate(body, request.payload.data[0]);
                world_answer(world, &request,
                             WORLD_REPLY(.code = DEVICE_CODE(2, 4), .format = 287, .body = body, .size = sizeof body));
        }
        assert_int_equal(world->events[DEVICE_EVENT_GRANTED], 0);
        assert_true(world->device.memory.csr_size > 0); /* the same answer can be had again */
}

/* ---- renewal ---- */

static void a_renewal_is_asked_for_with_the_certificate_that_it_replaces(void **state) {
        struct world *world = *state;
        struct device_message observation = enrol(world);

        notify(world, &observation, DEVICE_DUE_ROTATE);
        give_certificate(world, sren, 2);
        assert_true(world_shows(world, "cert-2"));
        world_accept(world);

        assert_int_equal(world->events[DEVICE_EVENT_PROVEN], 2);
        assert_int_equal(world->flash.slot[world->flash.newest].key[0], 2);
        assert_int_equal(world->flash.slot[1 - world->flash.newest].key[0], 1);
        assert_int_equal(world->requests, 2);
}

static void a_refused_new_certificate_sends_it_back_to_the_old_one_at_once(void **state) {
        struct world *world = *state;
        struct device_message observation = enrol(world);

        notify(world, &observation, DEVICE_DUE_ROTATE);
        give_certificate(world, sren, 2);
        world_refuse(world);
        assert_true(world_shows(world, "cert-1"));
        world_accept(world);
        assert_int_equal(world->flash.slot[world->flash.newest].key[0], 1);
}

static void a_power_cut_between_answer_and_proof_loses_neither_certificate(void **state) {
        struct world *world = *state;
        struct device_message observation = enrol(world);

        notify(world, &observation, DEVICE_DUE_ROTATE);
        give_certificate(world, sren, 2);
        world_power_up(world);
        world_await_connect(world, 10000);
        assert_true(world_shows(world, "cert-2"));
        world_refuse(world);
        assert_true(world_shows(world, "cert-1"));
}

static void announced_anchors_are_fetched_before_the_renewal_that_needs_them(void **state) {
        struct world *world = *state;
        struct device_message observation = enrol(world), request;

        notify(world, &observation, DEVICE_DUE_ROTATE | DEVICE_DUE_ANCHORS);
        give_anchors(world, 77);
        assert_int_equal(world->flash.anchors[2], 77);
        assert_int_equal(world->events[DEVICE_EVENT_ANCHORS], 2);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, DEVICE_DUE_ROTATE, 86400);
        give_certificate(world, sren, 2);
        assert_int_equal(world->anchors[2], 77);
}

static void anchors_that_cannot_be_read_leave_the_old_ones_in_force(void **state) {
        struct world *world = *state;
        struct device_message observation = enrol(world), request;

        notify(world, &observation, DEVICE_DUE_ANCHORS);
        request = world_expect(world, DEVICE_GET, ".well-known/est/crts");
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 281, .body = "\x30\x03\x02\x01\x01", .size = 5));
        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_int_equal(world->flash.anchors[2], 200);
        world_wait(world, 70000);
        give_anchors(world, 77);
        assert_int_equal(world->flash.anchors[2], 77);
}

static void the_idevid_is_used_again_only_after_a_local_act(void **state) {
        struct world *world = *state;
        unsigned i;

        enrol(world);
        world_lose(world);
        for (i = 0; i < 20; i++) {
                world_await_connect(world, 700000);
                assert_true(world_shows(world, "cert-1"));
                world_refuse(world);
        }
        assert_true(device_is_locked_out(&world->device));

        world->wake = device_factory_reset(&world->device);
        world_await_connect(world, 10000);
        assert_true(world_shows(world, "sensor-1"));
        assert_int_equal(world->key.certificate_size, 5);
        assert_int_equal(world->anchors_size, 0);
}

/* ---- certs-only messages ---- */

static void a_certs_only_message_cut_or_lengthened_anywhere_is_none(void **state) {
        struct device_bytes list = { NULL, 0 };
        uint8_t body[601];
        size_t size = seven(body, 1), i;

        (void)state;
        for (i = 0; i < size; i++)
                assert_false(device_read_certs_only((struct device_bytes){ body, i }, &list));
        assert_true(device_read_certs_only((struct device_bytes){ body, size }, &list));
        assert_int_equal(list.size, 7 * 42);
        body[size] = 0;
        assert_false(device_read_certs_only((struct device_bytes){ body, size + 1 }, &list));
}

static void the_certs_only_messages_of_rfc_9148_are_read(void **state) {
        static const char *const names[] = { "rfc9148-a1-crts.p7.der", "rfc9148-a2-sen-resp.p7.der" };
        struct device_bytes list, one;
        uint8_t body[2048];
        char path[256];
        size_t i, size;
        FILE *file;

        (void)state;
        for (i = 0; i < 2; i++) {
                snprintf(path, sizeof path, "tests/vectors/%s", names[i]);
                file = fopen(path, "rb");
                if (!file)
                        skip();
                size = fread(body, 1, sizeof body, file);
                fclose(file);
                assert_true(device_read_certs_only((struct device_bytes){ body, size }, &list));
                assert_true(device_next_certificate(&list, &one));
                assert_true(one.size > 400);
                assert_int_equal(list.size, 0);
        }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(a_new_device_learns_the_anchors_enrols_and_proves_its_certificate),
                TEST(over_a_session_with_an_unknown_gateway_nothing_but_the_anchors_is_asked),
                TEST(anchors_that_no_gateway_lives_up_to_are_forgotten),
                TEST(anchors_that_have_held_once_stay_while_the_gateway_is_away),
                TEST(a_device_that_was_given_its_anchors_trusts_nobody_else),
                TEST(a_lost_answer_is_asked_for_again_with_the_identical_request),
                TEST(a_delayed_answer_is_waited_for_as_long_as_it_says),
                TEST(a_request_that_is_refused_is_replaced_by_another),
                TEST(a_certificate_for_another_key_is_not_used),
                TEST(its_own_certificate_is_found_among_those_of_the_ca),
                TEST(without_flash_no_request_leaves_and_no_certificate_is_used),
                TEST(a_renewal_is_asked_for_with_the_certificate_that_it_replaces),
                TEST(a_refused_new_certificate_sends_it_back_to_the_old_one_at_once),
                TEST(a_power_cut_between_answer_and_proof_loses_neither_certificate),
                TEST(announced_anchors_are_fetched_before_the_renewal_that_needs_them),
                TEST(anchors_that_cannot_be_read_leave_the_old_ones_in_force),
                TEST(the_idevid_is_used_again_only_after_a_local_act),
                cmocka_unit_test(a_certs_only_message_cut_or_lengthened_anywhere_is_none),
                cmocka_unit_test(the_certs_only_messages_of_rfc_9148_are_read),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

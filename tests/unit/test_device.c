/* SPDX-License-Identifier: Apache-2.0 */

/* The example device (tests/sim/device.c): which key it connects with, what it asks, what it does with
 * the answers, against a scripted gateway, clock and flash. */

#include "tests/unit/device_world.h"

static int set_up(void **state) {
        *state = world_new();
        return 0;
}

static int tear_down(void **state) {
        free(*state);
        return 0;
}

/* Lets an idle device's notification say that something is due. */
static void notify(struct world *world, const struct device_message *observation, unsigned due) {
        static int sequence = 10;
        uint8_t body[64];
        size_t size = world_me_body(body, sizeof body, due);

        world_answer(world, observation,
                     WORLD_REPLY(.is_separate = true, .code = DEVICE_CODE(2, 5), .format = 60, .max_age = 86400,
                                 .observe = ++sequence, .body = body, .size = size));
        world_expect_empty(world, WORLD_ACK, world->message_id);
}

/* Has an idle device asked for its next key and granted it; it is connecting with it then. */
static void rotate(struct world *world, const struct device_message *observation, const char *kid) {
        struct device_message request;

        notify(world, observation, DEVICE_DUE_ROTATE);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, kid);
        assert_true(world_shows(world, kid));
}

/* ---- provisioning ---- */

static void a_device_fresh_from_the_factory_asks_for_a_key_and_proves_it(void **state) {
        struct world *world = *state;

        world_provision(world, "kid-of-the-first");

        assert_int_equal(world->connects, 2);
        assert_int_equal(world->events[DEVICE_EVENT_PROVEN], 1);
        assert_true(device_is_operational(&world->device));
        assert_true(world->flash.has_newest);
        assert_false(world->flash.has_pending);
        assert_memory_equal(world->flash.slot[world->flash.newest].key, "abcdefghijklmnopqrstuvwxyz012345", 32);
}

static void a_lost_grant_reply_costs_a_retry_on_a_new_session(void **state) {
        struct world *world = *state;
        struct device_message first, again;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        first = world_expect(world, DEVICE_POST, "cred");
        world_wait(world, 100000); /* all retransmissions, unanswered */

        assert_int_equal(world->events[DEVICE_EVENT_UNANSWERED], 1);
        assert_int_equal(world->connects, 2);
        assert_true(world_shows(world, "sensor-1"));
        world_overhear(world);
        world_accept(world);
        again = world_expect(world, DEVICE_POST, "cred");
        assert_memory_not_equal(first.token, again.token, 4);
        world_grant(world, &again, "kid-of-the-first");
        assert_true(world_shows(world, "kid-of-the-first"));
}

static void the_grant_is_in_flash_before_it_is_used(void **state) {
        struct world *world = *state;
        struct device_message request;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world->flash_is_broken = true;
        world_grant(world, &request, "kid-of-the-first");

        assert_int_equal(world->connects, 1); /* not used */
        assert_int_equal(world->events[DEVICE_EVENT_NOT_STORED], 1);
        world->flash_is_broken = false;
        world_wait(world, 70000);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-of-the-second");
        assert_true(world_shows(world, "kid-of-the-second"));
        assert_true(world->flash.has_pending);
        assert_memory_equal(world->flash.slot[0].identity, "kid-of-the-second", 17);
}

static void a_grant_for_somebody_else_is_not_used(void **state) {
        struct world *world = *state;
        struct device_message request;
        uint8_t body[200];
        size_t size = world_grant_body(body, sizeof body, "sensor-2", "kid-of-another");

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 4), .format = 601, .body = body, .size = size));

        assert_int_equal(world->events[DEVICE_EVENT_UNUSABLE], 1);
        assert_int_equal(world->stores, 0);
        assert_int_equal(world->connects, 1);
}

/* ---- rotation ---- */

static void a_rotation_keeps_the_predecessor_in_the_second_slot(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1");

        rotate(world, &observation, "kid-2");
        world_accept(world);

        assert_int_equal(world->events[DEVICE_EVENT_PROVEN], 2);
        assert_memory_equal(world->flash.slot[world->flash.newest].identity, "kid-2", 5);
        assert_memory_equal(world->flash.slot[1 - world->flash.newest].identity, "kid-1", 5);
}

static void a_refused_new_key_sends_it_back_to_the_old_one_at_once(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        rotate(world, &observation, "kid-2");
        world_refuse(world);
        assert_true(world_shows(world, "kid-1")); /* no time has passed */
        world_accept(world);

        assert_false(world->flash.has_pending);
        assert_memory_equal(world->flash.slot[world->flash.newest].identity, "kid-1", 5);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, DEVICE_DUE_ROTATE, 86400);
        assert_true(world_is_silent(world)); /* it does not ask again in the same instant */
        world_wait(world, 61000);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-3");
        assert_true(world_shows(world, "kid-3"));
}

static void a_refused_first_key_sends_it_back_to_the_factory_key(void **state) {
        struct world *world = *state;
        struct device_message request;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-1");
        world_refuse(world);

        assert_true(world_shows(world, "sensor-1"));
}

static void a_power_cut_between_grant_and_proof_loses_neither_key(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1");

        rotate(world, &observation, "kid-2");
        world_power_up(world);
        world_await_connect(world, 10000);
        assert_true(world_shows(world, "kid-2"));
        world_refuse(world);
        assert_true(world_shows(world, "kid-1"));
        world_refuse(world); /* neither was forgotten: the new one has its turn again */
        world_await_connect(world, 700000);
        assert_true(world_shows(world, "kid-2"));
        world_accept(world);

        assert_memory_equal(world->flash.slot[world->flash.newest].identity, "kid-2", 5);
}

static void silence_does_not_make_it_give_up_the_new_key_at_once(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1");
        unsigned i;

        rotate(world, &observation, "kid-2");
        for (i = 1; i < DEVICE_PENDING_TRIES; i++) {
                world_lose(world);
                world_await_connect(world, 700000);
                assert_true(world_shows(world, "kid-2"));
        }
        world_lose(world);
        assert_true(world_shows(world, "kid-1"));
        world_lose(world);
        world_await_connect(world, 700000);
        assert_true(world_shows(world, "kid-2"));
}

/* ---- the second slot ---- */

/* Refuses every attempt for so long; fails if it ever shows anything but `identity`. */
static void refuse_for(struct world *world, uint64_t ms, const char *identity) {
        uint64_t until = world->now + ms;

        while (world->now + 1300000 < until) {
                world_await_connect(world, 1300000);
                assert_true(world_shows(world, identity));
                world_refuse(world);
        }
}

static void only_after_24_hours_of_failure_it_tries_the_second_slot(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        rotate(world, &observation, "kid-2");
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        world_lose(world);

        refuse_for(world, WORLD_DAY, "kid-2");
        do {
                world_await_connect(world, 1300000);
                assert_true(world_shows(world, "kid-2"));
                assert_int_equal(world->events[DEVICE_EVENT_LOCKED_OUT], 0);
                world_refuse(world);
        } while (!world_shows(world, "kid-1"));
        assert_true(world->now >= WORLD_DAY);

        /* What it works with now it wants replaced, and the dead key's slot takes the new one. */
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-3");
        assert_true(world_shows(world, "kid-3"));
        world_refuse(world);
        assert_true(world_shows(world, "kid-1"));
        world_accept(world);
        assert_memory_equal(world->flash.slot[world->flash.newest].identity, "kid-1", 5);
}

static void a_device_that_sleeps_for_days_has_not_failed_for_days(void **state) {
        struct world *world = *state;
        struct device_message request;

        world->config.observes = false;
        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY);
        assert_int_equal(world->connects, 3);
        assert_true(world_shows(world, "kid-1"));
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, DEVICE_DUE_ROTATE, 86400);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-2");
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        world_await_connect(world, WORLD_DAY);

        assert_true(world_shows(world, "kid-2"));
        world_refuse(world);
        world_await_connect(world, 700000);
        assert_true(world_shows(world, "kid-2"));
}

static void reboots_do_not_start_the_24_hours_anew(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;
        unsigned i;

        rotate(world, &observation, "kid-2");
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        for (i = 0; i < 40; i++) { /* times two hours, of which the last part is forgotten */
                world_power_up(world);
                refuse_for(world, 7200000, "kid-2");
                if (world->flash.failing_sec >= DEVICE_FALL_BACK_SEC - 3600)
                        break;
        }
        assert_true(i < 39);
        while (!world_shows(world, "kid-1")) {
                world_await_connect(world, 1300000);
                world_refuse(world);
        }
}

static void the_factory_key_is_used_again_only_after_a_local_act(void **state) {
        struct world *world = *state;

        world_provision(world, "kid-1");
        world_lose(world);
        refuse_for(world, 10 * WORLD_DAY, "kid-1");
        assert_int_equal(world->events[DEVICE_EVENT_LOCKED_OUT], 1);
        assert_true(device_is_locked_out(&world->device));

        world->wake = device_factory_reset(&world->device);
        world_await_connect(world, 10000);
        assert_true(world_shows(world, "sensor-1"));
        assert_false(world->flash.has_newest);
}

/* ---- /me ---- */

static void a_polling_device_comes_back_when_max_age_is_over(void **state) {
        struct world *world = *state;

        world->config.observes = false;
        world->config.stays_connected = true;
        world_provision(world, "kid-1");
        world_wait(world, WORLD_DAY - 1);
        assert_true(world_is_silent(world));
        world_wait(world, 1);
        assert_false(world_expect(world, DEVICE_GET, "me").has_observe);
        assert_int_equal(world->disconnects, 1); /* that was for the new key */
}

static void a_sleeping_device_ends_its_session_and_makes_a_new_one_in_time(void **state) {
        struct world *world = *state;

        world->config.observes = false;
        world_provision(world, "kid-1");
        assert_int_equal(world->disconnects, 2);
        assert_false(device_is_online(&world->device));
        assert_true(device_is_settled(&world->device));
        assert_int_equal(world->wake, world->now + WORLD_DAY);
}

/* With its factory key, as soon as it is due; the gateway says no. */
static void asks_in_vain(struct world *world) {
        struct device_message request;

        world_overhear(world);
        while (world_is_silent(world)) {
                if (!world->is_connecting)
                        world_await_connect(world, WORLD_DAY);
                assert_true(world_shows(world, "sensor-1"));
                world_accept(world);
        }
        request = world_expect(world, DEVICE_POST, "cred");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 3), .format = 257, .body = "\xa0", .size = 1));
        if (!world->is_connecting)
                world_await_connect(world, WORLD_DAY);
}

/* The gateway took the new key for proven while the device heard nothing, and has ended the factory key since. */
static void a_first_grant_that_met_silence_is_tried_once_more_when_the_factory_key_brings_no_other(void **state) {
        struct world *world = *state;
        struct device_message request;

        world->config.observes = false;
        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-1");
        for (unsigned i = 1; i < DEVICE_PENDING_TRIES; i++) {
                world_lose(world);
                world_await_connect(world, WORLD_DAY);
                assert_true(world_shows(world, "kid-1"));
        }
        world_lose(world);
        asks_in_vain(world);
        assert_true(world_shows(world, "kid-1"));
        world_refuse(world);
        asks_in_vain(world);
        assert_true(world_shows(world, "sensor-1")); /* once is enough ... */
        world_power_up(world);
        asks_in_vain(world);
        assert_true(world_shows(world, "kid-1")); /* ... until it is switched on anew */
        world_accept(world);
        assert_true(device_is_operational(&world->device));
}

static void one_wrong_max_age_does_not_silence_it_for_years(void **state) {
        struct world *world = *state;
        struct device_message request = world_provision(world, "kid-1");
        uint8_t body[64];
        size_t size = world_me_body(body, sizeof body, 0);

        world_wait(world, WORLD_DAY);
        request = world_expect(world, DEVICE_GET, "me");
        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 60, .max_age = 0xffffff, .observe = 50,
                                 .body = body, .size = size));
        assert_true(world->wake <= world->now + WORLD_DAY);
}

static void too_often_and_not_now_are_honoured(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        notify(world, &observation, DEVICE_DUE_ROTATE);
        request = world_expect(world, DEVICE_POST, "cred");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 29), .max_age = 300));
        world_wait(world, 299000);
        assert_true(world_is_silent(world));
        world_wait(world, 40000);
        request = world_expect(world, DEVICE_POST, "cred");
        world_overhear(world);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(5, 3), .max_age = 7200));
        world_wait(world, 7190000);
        assert_true(world_is_silent(world));
        world_wait(world, 1000000);
        world_expect(world, DEVICE_POST, "cred");
}

static void a_rotation_that_stays_due_is_not_repeated_without_a_pause(void **state) {
        struct world *world = *state;
        struct device_message observation = world_provision(world, "kid-1"), request;

        rotate(world, &observation, "kid-2");
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, DEVICE_DUE_ROTATE, 86400);
        assert_true(world_is_silent(world));
        world_wait(world, 61000);
        world_expect(world, DEVICE_POST, "cred");
}

/* The next request is for the time; the answer says what is due. */
static void tell_time(struct world *world, uint8_t due) {
        struct device_message request = world_expect(world, DEVICE_GET, "time");
        const uint8_t body[] = { 0xa3, 0x01, 0x1a, 0x6a, 0x00, 0x00, 0x00, 0x02, 0x02, 0x06, due };

        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 60, .body = body, .size = sizeof body));
}

static void tell_me(struct world *world, unsigned due) {
        struct device_message request = world_expect(world, DEVICE_GET, "me");

        world_me(world, &request, due, 86400);
}

static void any_answer_that_tells_of_work_makes_a_device_ask_what(void **state) {
        struct world *world = *state;

        world->config.wants_time = true;
        world_provision(world, "kid-1");
        tell_time(world, DEVICE_DUE_ROTATE);
        tell_me(world, DEVICE_DUE_ROTATE);
        world_expect(world, DEVICE_POST, "cred");
}

/* Or a device that cannot do what it is asked would read /me after each answer. */
static void what_me_has_told_already_is_no_news_in_another_answer(void **state) {
        struct world *world = *state;

        world->config.wants_time = true;
        world_provision(world, "kid-1");
        tell_time(world, DEVICE_DUE_ATTEST);
        tell_me(world, DEVICE_DUE_ATTEST);
        assert_true(world_is_silent(world));
        world_wait(world, 86401000);
        tell_me(world, DEVICE_DUE_ATTEST);
        tell_time(world, DEVICE_DUE_ATTEST);
        assert_true(world_is_silent(world));
}

/* ---- evidence ---- */

static void give_nonce(struct world *world) {
        struct device_message request = world_expect(world, DEVICE_POST, "rats/nonce");
        static const uint8_t body[] = { 0xa2, 0x01, 0x19, 0x01, 0x2c, 0x0a, 0x48, 1, 2, 3, 4, 5, 6, 7, 8 };

        world_answer(world, &request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 1), .format = 60, .body = body, .size = sizeof body));
}

static void evidence_is_asked_for_made_and_delivered(void **state) {
        struct world *world = *state;
        struct device_message observation, request;

        world->attests = true;
        observation = world_provision(world, "kid-1");
        notify(world, &observation, DEVICE_DUE_ATTEST);
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        assert_int_equal(request.content_format, 263);
        assert_int_equal(request.payload.data[0], 0xd2); /* tag 18 */
        assert_memory_equal(request.payload.data + 1, ((uint8_t[]){ 0x84, 0x43, 0xa1, 0x01, 0x26 }), 5);
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(2, 1), .format = 60, .body = "\xa0", .size = 1));

        assert_int_equal(world->events[DEVICE_EVENT_EVIDENCE_ACCEPTED], 1);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        assert_true(device_is_settled(&world->device));
}

static void evidence_whose_reply_was_lost_is_sent_again_unchanged(void **state) {
        struct world *world = *state;
        struct device_message observation, request;
        uint8_t evidence[512];
        size_t size;

        world->attests = true;
        observation = world_provision(world, "kid-1");
        notify(world, &observation, DEVICE_DUE_ATTEST);
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        size = request.payload.size;
        memcpy(evidence, request.payload.data, size);
        world_lose(world);
        world_await_connect(world, 10000);
        world_overhear(world);
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        request = world_expect(world, DEVICE_POST, "rats/evidence");

        assert_int_equal(request.payload.size, size);
        assert_memory_equal(request.payload.data, evidence, size);
        assert_int_equal(world->events[DEVICE_EVENT_EVIDENCE_SENT], 1);
}

static void an_expired_challenge_is_replaced_at_once_but_not_for_ever(void **state) {
        struct world *world = *state;
        struct device_message observation, request;

        world->attests = true;
        observation = world_provision(world, "kid-1");
        notify(world, &observation, DEVICE_DUE_ATTEST);
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 22)));
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 22)));
        assert_true(world_is_silent(world));
}

static void evidence_that_cannot_be_taken_now_is_kept(void **state) {
        struct world *world = *state;
        struct device_message observation, request;

        world->attests = true;
        observation = world_provision(world, "kid-1");
        notify(world, &observation, DEVICE_DUE_ATTEST);
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(5, 3), .max_age = 60));
        world_wait(world, 70000);
        world_expect(world, DEVICE_POST, "rats/evidence");
        assert_int_equal(world->events[DEVICE_EVENT_EVIDENCE_SENT], 1);
}

static void a_refused_grant_is_asked_for_again_after_fresh_evidence(void **state) {
        struct world *world = *state;
        struct device_message request;

        world->attests = true;
        world_power_up(world);
        world_await_connect(world, 10000);
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(4, 3), .format = 257, .body = "\xa0", .size = 1));
        give_nonce(world);
        request = world_expect(world, DEVICE_POST, "rats/evidence");
        world_answer(world, &request, WORLD_REPLY(.code = DEVICE_CODE(2, 1), .format = 60, .body = "\xa0", .size = 1));
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, "kid-1");
        assert_true(world_shows(world, "kid-1"));
}

/* ---- sessions ---- */

static void while_the_gateway_is_away_it_tries_ever_more_rarely(void **state) {
        struct world *world = *state;
        uint64_t last, pause = 0;
        unsigned i;

        world_provision(world, "kid-1");
        world_lose(world);
        for (i = 0; i < 20; i++) {
                last = world->now;
                world_await_connect(world, DEVICE_BACKOFF_MAX_MS + 1);
                assert_true(world->now - last <= DEVICE_BACKOFF_MAX_MS);
                pause = world->now - last;
                world_lose(world);
        }
        assert_true(pause >= DEVICE_BACKOFF_MAX_MS / 2);
        world_await_connect(world, DEVICE_BACKOFF_MAX_MS);
        world_accept(world);
        assert_true(device_is_online(&world->device));
}

static void a_handshake_that_its_dtls_never_ends_is_given_up(void **state) {
        struct world *world = *state;

        world_power_up(world);
        world_await_connect(world, 10000);
        world_wait(world, DEVICE_HANDSHAKE_MAX_MS);
        assert_int_equal(world->disconnects, 1);
        assert_int_equal(world->events[DEVICE_EVENT_NO_ANSWER], 1);
}

static void a_device_fits_a_small_machine(void **state) {
        (void)state;
        assert_true(sizeof(struct device) < 13000); /* with certificates; device.h says what is left without */
        assert_true(sizeof(struct device_memory) < 6000);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                TEST(a_device_fresh_from_the_factory_asks_for_a_key_and_proves_it),
                TEST(a_lost_grant_reply_costs_a_retry_on_a_new_session),
                TEST(the_grant_is_in_flash_before_it_is_used),
                TEST(a_grant_for_somebody_else_is_not_used),
                TEST(a_rotation_keeps_the_predecessor_in_the_second_slot),
                TEST(a_refused_new_key_sends_it_back_to_the_old_one_at_once),
                TEST(a_refused_first_key_sends_it_back_to_the_factory_key),
                TEST(a_power_cut_between_grant_and_proof_loses_neither_key),
                TEST(silence_does_not_make_it_give_up_the_new_key_at_once),
                TEST(only_after_24_hours_of_failure_it_tries_the_second_slot),
                TEST(a_device_that_sleeps_for_days_has_not_failed_for_days),
                TEST(reboots_do_not_start_the_24_hours_anew),
                TEST(the_factory_key_is_used_again_only_after_a_local_act),
                TEST(a_polling_device_comes_back_when_max_age_is_over),
                TEST(a_sleeping_device_ends_its_session_and_makes_a_new_one_in_time),
                TEST(a_first_grant_that_met_silence_is_tried_once_more_when_the_factory_key_brings_no_other),
                TEST(one_wrong_max_age_does_not_silence_it_for_years),
                TEST(too_often_and_not_now_are_honoured),
                TEST(a_rotation_that_stays_due_is_not_repeated_without_a_pause),
                TEST(any_answer_that_tells_of_work_makes_a_device_ask_what),
                TEST(what_me_has_told_already_is_no_news_in_another_answer),
                TEST(evidence_is_asked_for_made_and_delivered),
                TEST(evidence_whose_reply_was_lost_is_sent_again_unchanged),
                TEST(an_expired_challenge_is_replaced_at_once_but_not_for_ever),
                TEST(evidence_that_cannot_be_taken_now_is_kept),
                TEST(a_refused_grant_is_asked_for_again_after_fresh_evidence),
                TEST(while_the_gateway_is_away_it_tries_ever_more_rarely),
                TEST(a_handshake_that_its_dtls_never_ends_is_given_up),
                TEST(a_device_fits_a_small_machine),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

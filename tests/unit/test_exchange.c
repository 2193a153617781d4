/* SPDX-License-Identifier: Apache-2.0 */

/* The table of resources: what is found, who may, what an error leaves behind, and which links a filter
 * shows. On a real store in memory. */

#include "tests/unit/support.h"

#include <errno.h>
#include <string.h>

#include "gatewayd/cbor.h"
#include "tests/unit/devices_fixture.h"

static const struct exchange_entry *entry_of(struct fixture *f, const struct identity *from, uint8_t method,
                                             const char *path) {
        const struct exchange_entry *entry = NULL;
        struct problem problem = { 0 };
        const struct request request = { .from = from,
                                         .method = method,
                                         .path = bytes_of(path),
                                         .content_format = FORMAT_NONE,
                                         .accept = FORMAT_NONE,
                                         .observe = -1 };
        int r = exchange_authorise(&f->turn, &request, &entry, &problem);

        if (r < 0) {
                f->problem = problem;
                return NULL;
        }
        return entry;
}

static struct identity provisioned(struct fixture *f) {
        char kid[DEVICE_ID_MAX + 1];
        struct identity identity;

        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        fixture_provision(f, "sensor-1", kid);
        assert_int_equal(fixture_connect(f, kid, &identity), 0);
        return identity;
}

/* ---- finding and authorising ---- */

static void every_resource_of_the_table_is_found_with_its_own_method_only(void **state) {
        static const struct {
                const char *path;
                uint8_t method;
        } resources[] = {
                { ".well-known/core", CODE_GET },
                { "cred", CODE_POST },
                { "me", CODE_GET },
                { "rats/nonce", CODE_POST },
                { "rats/evidence", CODE_POST },
                { "rats/result", CODE_GET },
                { "time", CODE_GET },
        };
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        for (size_t i = 0; i < ELEMENTS(resources); i++)
                for (uint8_t method = CODE_GET; method <= 7; method++) {
                        if (method == resources[i].method) {
                                assert_non_null(entry_of(f, &from, method, resources[i].path));
                                continue;
                        }
                        assert_null(entry_of(f, &from, method, resources[i].path));
                        assert_int_equal(f->problem.code, CODE_METHOD_NOT_ALLOWED);
                }
}

static void a_path_that_is_almost_a_resource_is_not_found(void **state) {
        static const char *const paths[] = { "",
                                             "m",
                                             "mee",
                                             "me/",
                                             "/me",
                                             "ME",
                                             "rats",
                                             "rats/",
                                             "rats//nonce",
                                             "cred/x",
                                             ".well-known",
                                             "est",
                                             "est/",
                                             "est/x",
                                             "est/crts/",
                                             "crts",
                                             "est/a/b/crts",
                                             ".well-known/est/",
                                             ".well-known/cred",
                                             "est/crtss",
                                             "est/cred",
                                             "Est/crts",
                                             "est//" };
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                assert_null(entry_of(f, &from, CODE_GET, paths[i]));
                assert_int_equal(f->problem.code, CODE_NOT_FOUND);
        }
}

/* This device has PSKs, so what is found is refused (4.03), and what is not, is not there (4.04). */
static void est_has_two_roots_and_a_label_that_is_the_device_s_profile(void **state) {
        static const struct {
                const char *path;
                uint8_t code;
        } places[] = {
                { "est/crts", CODE_FORBIDDEN },
                { ".well-known/est/crts", CODE_FORBIDDEN },
                { "est/plain/crts", CODE_FORBIDDEN },
                { ".well-known/est/plain/crts", CODE_FORBIDDEN },
                { "est/attest/crts", CODE_NOT_FOUND },
                { "est/nothing/crts", CODE_NOT_FOUND },
                { "est/plai/crts", CODE_NOT_FOUND },
                { "est//crts", CODE_NOT_FOUND },
                { ".well-known/est/attest/crts", CODE_NOT_FOUND },
                { ".well-known/est/plain/plain/crts", CODE_NOT_FOUND },
                { "est/plain/cred", CODE_NOT_FOUND },
                { "est/plain/sen", CODE_METHOD_NOT_ALLOWED },
        };
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        for (size_t i = 0; i < ELEMENTS(places); i++) {
                assert_null(entry_of(f, &from, CODE_GET, places[i].path));
                assert_int_equal(f->problem.code, places[i].code);
        }
        assert_null(entry_of(f, &from, CODE_POST, "est/attest/sen"));
        assert_non_null(strstr(f->problem.detail, "plain"));
}

static void a_path_with_a_nul_in_it_is_not_the_one_before_the_nul(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);
        const struct exchange_entry *entry;
        struct problem problem = { 0 };
        const struct request request = { .from = &from,
                                         .method = CODE_GET,
                                         .path = BYTES("me\0x", 4),
                                         .content_format = FORMAT_NONE,
                                         .accept = FORMAT_NONE,
                                         .observe = -1 };

        assert_int_equal(exchange_authorise(&f->turn, &request, &entry, &problem), -ENOENT);
        assert_int_equal(problem.code, CODE_NOT_FOUND);
}

static void a_factory_key_that_was_replaced_opens_no_renewal(void **state) {
        struct fixture *f = *state;
        struct identity factory;

        (void)provisioned(f);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY); /* the grace is over */
        assert_int_equal(fixture_connect(f, "sensor-1", &factory), 0);
        assert_null(entry_of(f, &factory, CODE_POST, "cred"));
        assert_int_equal(f->problem.code, CODE_FORBIDDEN);
        assert_true(f->problem.detail[0] != 0);
        assert_non_null(entry_of(f, &factory, CODE_GET, ".well-known/core"));
}

static void an_identity_without_a_profile_may_nothing(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        from.profile = NULL;
        assert_null(entry_of(f, &from, CODE_GET, "me"));
        assert_int_equal(f->problem.code, CODE_FORBIDDEN);
}

static void authorising_changes_nothing(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        fixture_commit(f);
        assert_non_null(entry_of(f, &from, CODE_POST, "cred"));
        assert_null(entry_of(f, &from, CODE_POST, "me"));
        assert_false(store_is_changed(f->store));
        assert_int_equal(f->turn.effect_count, 0);
}

/* ---- handling ---- */

static void a_refused_request_leaves_neither_rows_nor_effects(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);
        struct reply reply = { 0 };

        fixture_commit(f);
        assert_int_equal(fixture_request(f, &from, CODE_POST, "cred", 9999, BYTES(NULL, 0), &reply),
                         CODE_NOT_ACCEPTABLE);
        assert_int_equal(reply.content_format, FORMAT_PROBLEM);
        buffer_free(&reply.payload);
        assert_false(store_is_changed(f->store));
        assert_int_equal(f->turn.effect_count, 0);
}

static void a_refused_request_takes_nothing_from_the_one_before_it_in_the_turn(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);
        char kid[DEVICE_ID_MAX + 1];
        struct reply reply = { 0 };
        size_t effects;

        fixture_commit(f);
        assert_int_equal(fixture_cred(f, &from, kid, NULL), CODE_CHANGED);
        effects = f->turn.effect_count;
        assert_true(effects > 0);
        assert_int_equal(fixture_request(f, &from, CODE_POST, "cred", 9999, BYTES(NULL, 0), &reply),
                         CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_true(store_is_changed(f->store));
        assert_int_equal(f->turn.effect_count, effects);
        fixture_commit(f);
        assert_int_equal(fixture_state(f, kid), KEY_PRE_ACTIVE);
}

static void a_request_inside_another_s_savepoint_is_an_internal_error_and_changes_nothing(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);
        const struct exchange_entry *entry = entry_of(f, &from, CODE_POST, "cred");
        struct reply reply = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        const struct request request = { .from = &from,
                                         .method = CODE_POST,
                                         .path = TEXT("cred"),
                                         .content_format = FORMAT_NONE,
                                         .accept = FORMAT_NONE,
                                         .observe = -1 };

        fixture_commit(f);
        assert_int_equal(store_savepoint(f->store), 0);
        exchange_handle(&f->turn, entry, &request, &reply);
        assert_int_equal(reply.code, CODE_INTERNAL);
        buffer_free(&reply.payload);
        assert_int_equal(store_savepoint_rollback(f->store), 0);
        assert_false(store_is_changed(f->store));
        assert_int_equal(f->turn.effect_count, 0);
}

static void the_time_comes_with_its_quality(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);
        struct reply reply = { 0 };
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        int64_t wall, quality;

        f->turn.now.quality = CLOCK_HELD;
        assert_int_equal(fixture_request(f, &from, CODE_GET, "time", FORMAT_NONE, BYTES(NULL, 0), &reply),
                         CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_CBOR);
        assert_int_equal(reply.max_age_sec, 0);
        assert_int_equal(cbor_read(buffer_bytes(&reply.payload), &item, NULL), 0);
        assert_true(cbor_value_int(cbor_map_int(item, 1), &wall));
        assert_true(cbor_value_int(cbor_map_int(item, 2), &quality));
        assert_int_equal(wall, f->turn.now.wall);
        assert_int_equal(quality, CLOCK_HELD);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_request(f, &from, CODE_GET, "time", FORMAT_LINK, BYTES(NULL, 0), &reply),
                         CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
}

/* What key 6 of the answer says; 0 where it is not there. */
static uint32_t told(struct fixture *f, struct identity *from, uint8_t method, const char *path) {
        struct reply reply = { 0 };
        struct bytes member;
        int64_t due = 0;

        from->device = fixture_device(f, from->device.id);
        assert_int_equal(fixture_request(f, from, method, path, FORMAT_NONE, BYTES(NULL, 0), &reply) >> 5, 2);
        assert_int_equal(cbor_check(buffer_bytes(&reply.payload), NULL), 0);
        member = cbor_view_member(buffer_bytes(&reply.payload), 6);
        if (member.data)
                assert_true(cbor_view_int(member, &due) && due != 0);
        buffer_free(&reply.payload);
        return (uint32_t)due;
}

static void other_answers_than_that_of_me_tell_what_the_device_was_called_for(void **state) {
        struct fixture *f = *state;
        struct identity from = provisioned(f);

        assert_int_equal(told(f, &from, CODE_GET, "time") & DUE_ROTATE, 0);
        fixture_pass_ticking(f, 40 * FIXTURE_DAY);
        assert_true(fixture_device(f, from.device.id).due & DUE_ROTATE);
        assert_true(told(f, &from, CODE_GET, "time") & DUE_ROTATE);
        assert_int_equal(told(f, &from, CODE_POST, "rats/nonce"), DUE_ROTATE);
}

/* ---- problem replies ---- */

static void a_problem_takes_the_place_of_all_that_was_answered(void **state) {
        struct reply reply = {
                .code = CODE_CONTENT, .content_format = FORMAT_CBOR, .max_age_sec = 60, .size1 = 9, .is_observed = true
        };
        const struct problem problem = {
                .code = CODE_TOO_LARGE, .title = "too large", .detail = "64 at most", .size1 = 64
        };
        _cleanup_(buffer_free) struct buffer expected = { 0 };

        (void)state;
        buffer_append(&reply.payload, TEXT("half an answer"));
        reply_problem(&reply, &problem);
        assert_int_equal(reply.code, CODE_TOO_LARGE);
        assert_int_equal(reply.content_format, FORMAT_PROBLEM);
        assert_int_equal(reply.max_age_sec, -1);
        assert_int_equal(reply.size1, 64);
        assert_false(reply.is_observed);
        problem_to_cbor(&problem, &expected);
        assert_true(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&expected)));
        buffer_free(&reply.payload);
}

static void a_problem_says_when_to_try_again_and_without_a_code_is_internal(void **state) {
        struct reply reply = { 0 };

        (void)state;
        reply_problem(&reply, &(struct problem){ .code = CODE_UNAVAILABLE, .max_age_sec = 60 });
        assert_int_equal(reply.max_age_sec, 60);
        reply_problem(&reply, &(struct problem){ 0 });
        assert_int_equal(reply.code, CODE_INTERNAL);
        assert_int_equal(reply.max_age_sec, -1);
        buffer_free(&reply.payload);
}

/* ---- links ---- */

static size_t links(struct bytes query, const char *expected) {
        const struct request request = {
                .method = CODE_GET, .query = query, .content_format = FORMAT_NONE, .accept = FORMAT_NONE, .observe = -1
        };
        struct reply reply = { 0 };
        struct problem problem = { 0 };
        size_t count = 0;

        assert_int_equal(handle_core_links(NULL, &request, &reply, &problem), 0);
        assert_int_equal(reply.code, CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_LINK);
        for (size_t i = 0; i < reply.payload.size; i++)
                count += reply.payload.data[i] == '<';
        if (expected) {
                buffer_append(&reply.payload, BYTES("", 1));
                assert_non_null(strstr((const char *)reply.payload.data, expected));
        }
        buffer_free(&reply.payload);
        return count;
}

static void without_a_filter_every_resource_is_listed(void **state) {
        (void)state;
        assert_int_equal(links(BYTES(NULL, 0), "</rats/evidence>;rt=\"gatewayd.rats.evidence\";ct=60"), 14);
        assert_int_equal(links(TEXT("nofilter"), NULL), 14);
}

static void a_filter_shows_what_it_names(void **state) {
        (void)state;
        assert_int_equal(links(TEXT("rt=gatewayd.me"), "</me>"), 1);
        assert_int_equal(links(TEXT("rt=gatewayd.rats*"), NULL), 3);
        assert_int_equal(links(TEXT("rt=*"), NULL), 13);
        assert_int_equal(links(TEXT("href=/time"), "</time>"), 1);
        assert_int_equal(links(TEXT("href=/rats/*"), NULL), 3);
        assert_int_equal(links(TEXT("href=/rats/nonce*"), "</rats/nonce>"), 1);
        assert_int_equal(links(TEXT("ct=40"), "</.well-known/core>"), 1);
        assert_int_equal(links(TEXT("ct=101"), "</cred>"), 1); /* a word of a list */
        assert_int_equal(links(TEXT("ct=0"), "</cred>"), 1);
        assert_int_equal(links(TEXT("ct=60"), NULL), 5);
}

static void est_is_discovered_to_the_letter_of_the_standard(void **state) {
        /* RFC 9148 §4.1; its line breaks are for the reader. */
        static const char listed[] = "</est/crts>;rt=\"ace.est.crts\";ct=\"281 287\","
                                     "</est/sen>;rt=\"ace.est.sen\";ct=\"281 287\","
                                     "</est/sren>;rt=\"ace.est.sren\";ct=\"281 287\","
                                     "</est/att>;rt=\"ace.est.att\";ct=285,"
                                     "</est/skg>;rt=\"ace.est.skg\";ct=62,"
                                     "</est/skc>;rt=\"ace.est.skc\";ct=62";
        const struct request request = { .method = CODE_GET,
                                         .query = TEXT("rt=ace.est*"),
                                         .content_format = FORMAT_NONE,
                                         .accept = FORMAT_NONE,
                                         .observe = -1 };
        struct reply reply = { 0 };

        (void)state;
        assert_int_equal(handle_core_links(NULL, &request, &reply, NULL), 0);
        assert_true(bytes_equal(buffer_bytes(&reply.payload), bytes_of(listed)));
        buffer_free(&reply.payload);
        assert_int_equal(links(TEXT("rt=ace.est.sen"), "</est/sen>"), 1);
        assert_int_equal(links(TEXT("href=/est/*"), NULL), 6);
        assert_int_equal(links(TEXT("ct=281"), NULL), 3);
}

static void a_filter_that_names_nothing_shows_nothing(void **state) {
        (void)state;
        assert_int_equal(links(TEXT("rt=gatewayd"), NULL), 0);
        assert_int_equal(links(TEXT("rt="), NULL), 0);
        assert_int_equal(links(TEXT("=gatewayd.me"), NULL), 0);
        assert_int_equal(links(TEXT("="), NULL), 0);
        assert_int_equal(links(TEXT("href=time"), NULL), 0);
        assert_int_equal(links(TEXT("r=gatewayd.me"), NULL), 0);
        assert_int_equal(links(TEXT("rtt=gatewayd.me"), NULL), 0);
        assert_int_equal(links(TEXT("ct=601 101"), NULL), 0);
        assert_int_equal(links(TEXT("obs=obs"), NULL), 0);
}

/* "obs" stands at the end of an attribute list: a name that goes on after a NUL must not be compared with
 * what lies behind the list. */
static void a_filter_s_name_with_a_nul_in_it_matches_nothing(void **state) {
        uint8_t query[600];

        (void)state;
        assert_int_equal(links(BYTES("obs\0xx=1", 8), NULL), 0);
        assert_int_equal(links(BYTES("ct\0=60", 6), NULL), 0);
        for (size_t size = 4; size < sizeof query; size++) {
                memset(query, 'x', sizeof query);
                memcpy(query, "obs\0", 4);
                query[size - 1] = '=';
                assert_int_equal(links(BYTES(query, size), NULL), 0);
        }
}

static void links_come_in_link_format_only(void **state) {
        struct request request = {
                .method = CODE_GET, .content_format = FORMAT_NONE, .accept = FORMAT_CBOR, .observe = -1
        };
        struct reply reply = { 0 };
        struct problem problem = { 0 };

        (void)state;
        assert_true(handle_core_links(NULL, &request, &reply, &problem) < 0);
        assert_int_equal(problem.code, CODE_NOT_ACCEPTABLE);
        assert_int_equal(reply.payload.size, 0);
        request.accept = FORMAT_LINK;
        assert_int_equal(handle_core_links(NULL, &request, &reply, &problem), 0);
        buffer_free(&reply.payload);
}

#define ON_STORE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                ON_STORE(every_resource_of_the_table_is_found_with_its_own_method_only),
                ON_STORE(a_path_that_is_almost_a_resource_is_not_found),
                ON_STORE(est_has_two_roots_and_a_label_that_is_the_device_s_profile),
                ON_STORE(a_path_with_a_nul_in_it_is_not_the_one_before_the_nul),
                ON_STORE(a_factory_key_that_was_replaced_opens_no_renewal),
                ON_STORE(an_identity_without_a_profile_may_nothing),
                ON_STORE(authorising_changes_nothing),
                ON_STORE(a_refused_request_leaves_neither_rows_nor_effects),
                ON_STORE(a_refused_request_takes_nothing_from_the_one_before_it_in_the_turn),
                ON_STORE(a_request_inside_another_s_savepoint_is_an_internal_error_and_changes_nothing),
                ON_STORE(the_time_comes_with_its_quality),
                ON_STORE(other_answers_than_that_of_me_tell_what_the_device_was_called_for),
                cmocka_unit_test(a_problem_takes_the_place_of_all_that_was_answered),
                cmocka_unit_test(a_problem_says_when_to_try_again_and_without_a_code_is_internal),
                cmocka_unit_test(without_a_filter_every_resource_is_listed),
                cmocka_unit_test(a_filter_shows_what_it_names),
                cmocka_unit_test(est_is_discovered_to_the_letter_of_the_standard),
                cmocka_unit_test(a_filter_that_names_nothing_shows_nothing),
                cmocka_unit_test(a_filter_s_name_with_a_nul_in_it_matches_nothing),
                cmocka_unit_test(links_come_in_link_format_only),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

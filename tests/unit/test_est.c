/* SPDX-License-Identifier: Apache-2.0 */

/* EST-coaps on a real store, CA and registry: which request gets which certificate, in which bytes, and what is
 * refused, told of and left undone. */

#include "tests/unit/est_bed.h"

/* ---- crts ---- */

static void crts_hands_out_the_ca_and_the_device_owes_that_no_more(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        STACK_OF(X509) * certificates;
        X509 *ca = ca_certificate(bed);
        struct reply reply;

        assert_true(fixture_due(bed->f, &unit.identity) & DUE_ANCHORS);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_PKCS7_CERTS);
        certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
        assert_int_equal(sk_X509_num(certificates), 1);
        assert_int_equal(X509_cmp(sk_X509_value(certificates, 0), ca), 0);
        sk_X509_pop_free(certificates, X509_free);
        X509_free(ca);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 1);
        assert_false(fixture_due(bed->f, &unit.identity) & DUE_ANCHORS);
        fixture_commit(bed->f);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_false(store_is_changed(bed->f->store)); /* fetched again: no news, no row */
        unit_free(&unit);
}

static void one_ca_certificate_is_given_as_287_and_several_are_not(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        X509 *ca = ca_certificate(bed), *given;
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKIX_CERT, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_PKIX_CERT);
        given = x509_read(buffer_bytes(&reply.payload));
        assert_int_equal(X509_cmp(given, ca), 0);
        X509_free(given);
        X509_free(ca);
        buffer_free(&reply.payload);

        assert_int_equal(authority_roll(&bed->f->turn, NULL, -1, &bed->f->problem), 0);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKIX_CERT, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 1);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_PKCS7_CERTS, &reply), CODE_CONTENT);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 2);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

static void whoever_comes_with_a_replaced_key_does_not_fetch_crts_for_the_device(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), thief = { .id = "meter-1" };
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };
        struct reply reply;

        bed->profile->on_conflict = CONFLICT_ALLOW;
        unit_use(&thief, unit.key, buffer_bytes(&unit.chain));
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit_connect(bed, &thief), 0);
        assert_int_equal(get(bed, &thief, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 0);
        assert_true(fixture_due(bed->f, &unit.identity) & DUE_ANCHORS);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_int_equal(fixture_device(bed->f, "meter-1").anchors, 1);
        EVP_PKEY_free(key);
        buffer_free(&der);
        unit_free(&unit);
        unit_free(&thief);
}

static void without_a_ca_there_is_nothing_to_fetch_and_nobody_to_sign(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", NULL, FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_UNAVAILABLE);
        assert_true(reply.max_age_sec > 0);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        assert_int_equal(refusals_of(bed, "meter-1").count, 0); /* it is no fault of the device */
        unit_free(&unit);
}

/* ---- att ---- */

static bool asks_for(const struct reply *reply, int nid) {
        const ASN1_OBJECT *object = OBJ_nid2obj(nid);
        struct buffer wanted = { 0 };
        unsigned char *at = buffer_reserve(&wanted, 64);
        bool is_found;

        wanted.size = (size_t)i2d_ASN1_OBJECT(object, &at);
        is_found = memmem(reply->payload.data, reply->payload.size, wanted.data, wanted.size) != NULL;
        buffer_free(&wanted);
        return is_found;
}

static void att_names_what_the_profile_takes(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        ASN1_SEQUENCE_ANY *sequence;
        const unsigned char *at;
        struct reply reply;

        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_CSRATTRS);
        at = reply.payload.data;
        sequence = d2i_ASN1_SEQUENCE_ANY(NULL, &at, (long)reply.payload.size);
        assert_int_equal(sk_ASN1_TYPE_num(sequence), 4); /* the curves, two hashes, Ed25519 */
        assert_ptr_equal(at, reply.payload.data + reply.payload.size);
        sk_ASN1_TYPE_pop_free(sequence, ASN1_TYPE_free);
        assert_true(asks_for(&reply, NID_X9_62_prime256v1));
        assert_true(asks_for(&reply, NID_ecdsa_with_SHA384));
        assert_false(asks_for(&reply, NID_pkcs9_challengePassword));
        assert_false(asks_for(&reply, NID_rsaEncryption));
        buffer_free(&reply.payload);

        bed->profile->tls_unique = TLS_UNIQUE_REQUIRED;
        bed->profile->key_types = 1u << DEVICE_KEY_RSA;
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_CSRATTRS, &reply), CODE_CONTENT);
        assert_true(asks_for(&reply, NID_pkcs9_challengePassword));
        assert_true(asks_for(&reply, NID_rsaEncryption));
        assert_false(asks_for(&reply, NID_X9_62_prime256v1));
        buffer_free(&reply.payload);
        unit_free(&unit);
}

/* ---- crl ---- */

static void the_crl_is_asked_for_by_generation(void **state) {
        static const char *const bad[] = { "g", "g=", "g=0", "g=x", "g=1x", "g=-1", "g=4294967296", "x=1", "g=1&g=1" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        const unsigned char *at;
        struct reply reply;
        X509_CRL *crl;

        assert_int_equal(authority_revoke_device(&bed->f->turn, "meter-2", REVOKED_UNSPECIFIED), 0);
        assert_int_equal(authority_tick(&bed->f->turn), 0);
        assert_int_equal(authority_crls_write(&bed->f->turn), 0);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_int_equal(get(bed, &unit, "crl", bad[i], FORMAT_NONE, &reply), CODE_BAD_REQUEST);
                buffer_free(&reply.payload);
        }
        assert_int_equal(get(bed, &unit, "crl", "g=7", FORMAT_NONE, &reply), CODE_NOT_FOUND);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", NULL, FORMAT_CBOR, &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "crl", "g=1", FORMAT_OCTETS, &reply), CODE_CONTENT);
        assert_int_equal(reply.content_format, FORMAT_OCTETS);
        at = reply.payload.data;
        crl = d2i_X509_CRL(NULL, &at, (long)reply.payload.size);
        assert_non_null(crl);
        X509_CRL_free(crl);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

/* ---- sen ---- */

static void a_csr_gets_a_certificate_that_its_first_handshake_activates(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, der = { 0 };
        STACK_OF(X509) * certificates;
        EVP_PKEY *key = new_key();
        struct certificate row;
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_CHANGED);
        assert_int_equal(reply.content_format, FORMAT_PKCS7_CERTS);
        assert_int_equal(reply.max_age_sec, -1); /* 2.04 is never cached (RFC 7252 §5.9.1.4) */
        certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
        assert_int_equal(sk_X509_num(certificates), 1); /* the chain is in crts */
        assert_int_equal(x509_write(sk_X509_value(certificates, 0), &der), 0);
        sk_X509_pop_free(certificates, X509_free);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&reply.payload);

        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(certificate_by_csr(bed->f->store, "meter-1", (uint8_t[32]){ 0 }, &row), -ENOENT);
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.kind, CREDENTIAL_LDEVID);
        assert_int_equal(fixture_state(bed->f, unit.identity.credential.identity), KEY_ACTIVE);
        assert_int_equal(fixture_device(bed->f, "meter-1").standing, STANDING_OPERATIONAL);
        buffer_free(&csr);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void the_formats_are_looked_at_before_the_body(void **state) {
        static const int32_t bodies[] = { FORMAT_NONE, FORMAT_TEXT, FORMAT_PKCS7_CERTS, FORMAT_PKIX_CERT };
        static const char *const paths[] = { "est/sen", "est/skg", "est/skc" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct reply reply;

        for (size_t i = 0; i < ELEMENTS(paths); i++) {
                for (size_t j = 0; j < ELEMENTS(bodies); j++) {
                        assert_int_equal(send_as(bed, &unit,
                                                 (struct request){ .method = CODE_POST,
                                                                   .path = bytes_of(paths[i]),
                                                                   .content_format = bodies[j],
                                                                   .accept = 9999 },
                                                 &reply),
                                         CODE_UNSUPPORTED_FORMAT);
                        buffer_free(&reply.payload);
                }
                assert_int_equal(post(bed, &unit, paths[i], 9999, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
                buffer_free(&reply.payload);
        }
        assert_int_equal(post(bed, &unit, "est/skg", FORMAT_PKCS7_CERTS, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_MULTIPART, TEXT("x"), &reply), CODE_NOT_ACCEPTABLE);
        buffer_free(&reply.payload);
        unit_free(&unit);
}

static void both_roots_and_the_profile_as_label_lead_to_the_same_resource(void **state) {
        static const char *const paths[] = { "est/sen", ".well-known/est/sen", "est/plain/sen",
                                             ".well-known/est/plain/sen" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();

        assert_int_equal(enrol(bed, &unit, "est/attest/sen", key, NULL), CODE_NOT_FOUND);
        for (size_t i = 0; i < ELEMENTS(paths); i++)
                assert_int_equal(enrol(bed, &unit, paths[i], key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void an_empty_subject_is_filled_in(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &(struct csr_wish){ 0 }, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void all_kinds_of_keys_that_the_profile_takes_are_signed(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (int type = X509_KEY_P256; type <= X509_KEY_ED25519; type++) {
                EVP_PKEY *key = x509_key_new((enum x509_key_type)type);
                struct buffer der = { 0 };

                assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
                assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
                buffer_free(&der);
                EVP_PKEY_free(key);
        }
        unit_free(&unit);
}

static void the_identical_csr_gets_the_identical_certificate_in_any_session(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, first = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply), CODE_CHANGED);
        buffer_append(&first, buffer_bytes(&reply.payload));
        buffer_free(&reply.payload);
        fixture_commit(bed->f);
        for (int again = 0; again < 20; again++) { /* more often than the rate allows */
                struct credential newest;

                assert_int_equal(unit_connect(bed, &unit), 0);
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_true(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&first)));
                buffer_free(&reply.payload);
                /* Whose evidence counts for it. */
                assert_int_equal(credential_list(bed->f->store, "meter-1", &newest, 1), 1);
                assert_int_equal(newest.kind, CREDENTIAL_LDEVID);
                assert_int_equal(newest.session, unit.identity.session);
        }
        assert_int_equal(issued(bed), 1);
        buffer_free(&csr);
        buffer_free(&first);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* A renewal that was answered and proven: `unit` is the session before it, `ret` the one with the new certificate. */
static void renew(struct bed *bed, struct unit *unit, struct bytes csr, EVP_PKEY *key, struct unit *ret) {
        struct reply reply;

        assert_int_equal(post(bed, unit, "est/sren", FORMAT_PKIX_CERT, csr, &reply), CODE_CHANGED);
        *ret = (struct unit){ .id = unit->id };
        unit_use(ret, key, buffer_bytes(&reply.payload));
        buffer_free(&reply.payload);
        assert_int_equal(unit_connect(bed, ret), 0);
}

static void a_proven_certificate_answers_its_csr_until_it_is_due(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1"), second;
        struct buffer csr = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        renew(bed, &unit, buffer_bytes(&csr), key, &second);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(post(bed, &unit, "est/sren", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&second.chain)), i == 0);
                buffer_free(&reply.payload);
                assert_int_equal(issued(bed), 2 + i);
                if (i == 0)
                        assert_int_equal(registry_rotate(&bed->f->turn, "meter-1", false, 0, &bed->f->problem), 0);
        }
        buffer_free(&csr);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&second);
}

static void a_certificate_is_renewed_by_the_csr_that_brought_it(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1"), second;
        struct buffer csr = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        renew(bed, &unit, buffer_bytes(&csr), key, &second);
        assert_int_equal(post(bed, &second, "est/sren", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply), CODE_CHANGED);
        assert_false(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&second.chain)));
        assert_int_equal(issued(bed), 3);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&second);
}

/* ---- what is refused ---- */

static void the_name_of_another_device_gets_nothing_and_the_audit_says_who_tried(void **state) {
        static const struct csr_wish wishes[] = { { .serial = "meter-2" },
                                                  { .serial = "meter-1", .names = "DNS:meter-2" },
                                                  { .names = "URI:urn:dev:meter-2" } };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), other = unit_new(bed, "meter-2");
        EVP_PKEY *key = new_key();

        for (size_t i = 0; i < 2 * ELEMENTS(wishes); i++) /* the second time makes no second row */
                assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &wishes[i % ELEMENTS(wishes)], NULL),
                                 CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        assert_int_equal(refusals_of(bed, "meter-1").count, 3);
        assert_non_null(strstr(refusals_of(bed, "meter-1").last.reason, "meter-2"));
        assert_int_equal(refusals_of(bed, "meter-2").count, 0);
        assert_int_equal(told(bed, EVENT_ENROLMENT_REFUSED, "meter-1"), 6);
        EVP_PKEY_free(key);
        unit_free(&unit);
        unit_free(&other);
}

static void the_key_of_another_device_gets_nothing_and_only_the_audit_says_whose_it_is(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), other = unit_operational(bed, "secret-7");
        struct buffer csr = { 0 };
        struct reply reply;
        char detail[256];

        csr_make(other.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_FORBIDDEN);
        detail_of(&reply, detail);
        assert_null(strstr(detail, "secret-7"));
        assert_non_null(strstr(refusals_of(bed, "meter-1").last.reason, "secret-7"));
        assert_int_equal(issued(bed), 1); /* the other's own */
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
        unit_free(&other);
}

static void a_csr_cut_off_anywhere_is_refused_and_rows_of_refusals_are_few(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, &csr);
        for (size_t size = 0; size < csr.size; size++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, BYTES(csr.data, size), &reply),
                                 CODE_BAD_REQUEST);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_in_range(refusals_of(bed, "meter-1").count, 1, 4);
        fixture_pass(bed->f, 3601);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, TEXT(""), &reply), CODE_BAD_REQUEST);
        assert_in_range(refusals_of(bed, "meter-1").count, 2, 5);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
}

static void ever_new_reasons_make_four_rows_an_hour_and_one_line_after_that(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        unsigned same = 0;

        fixture_commit(bed->f);
        for (int i = 0; i < 12; i++) {
                char name[20];

                snprintf(name, sizeof name, "other-%d", i);
                assert_int_equal(enrol_as(bed, &unit, "est/sen", unit.key, &(struct csr_wish){ .serial = name }, NULL),
                                 CODE_FORBIDDEN);
        }
        assert_int_equal(refusals_of(bed, "meter-1").count, 4);
        for (size_t i = 0; i < bed->f->turn.effect_count; i++)
                same += strstr(bed->f->turn.effects[i].event.reason, "again and again") != NULL;
        assert_int_equal(same, 8);
        unit_free(&unit);
}

static void more_than_a_few_unused_certificates_within_a_minute_are_too_often(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        EVP_PKEY *key = NULL;
        struct reply reply;

        for (int i = 0; i < 5; i++) {
                EVP_PKEY_free(key);
                key = new_key();
                assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL),
                                 i < 4 ? CODE_CHANGED : CODE_TOO_MANY_REQUESTS);
                fixture_pass(bed->f, 5);
        }
        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_TOO_MANY_REQUESTS);
        assert_int_equal(reply.max_age_sec, 60 - 25);
        buffer_free(&reply.payload);
        fixture_pass(bed->f, 35);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        buffer_free(&csr);
        unit_free(&unit);
}

static void a_profile_may_demand_a_new_key_each_time(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();

        bed->profile->rekey = REKEY_REQUIRED;
        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sen", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_CHANGED);
        bed->profile->rekey = REKEY_OPTIONAL;
        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_compromised_key_is_certified_for_nobody_again(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), before = { .id = "meter-1" };
        EVP_PKEY *key = new_key(), *other = new_key();
        struct buffer der = { 0 };

        unit_use(&before, unit.key, buffer_bytes(&unit.chain));
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(registry_rotate(&bed->f->turn, "meter-1", true, 0, &bed->f->problem), 0);
        /* The technician's window opens the way back, but not for the key that somebody else has. */
        bed->profile->on_factory_key = FACTORY_WINDOW;
        assert_int_equal(registry_reset(&bed->f->turn, "meter-1", 3600, &bed->f->problem), 0);
        assert_int_equal(unit_connect(bed, &before), 0);
        assert_int_equal(enrol(bed, &before, "est/sen", key, NULL), CODE_FORBIDDEN);
        assert_non_null(strstr(refusals_of(bed, "meter-1").last.reason, "compromised"));
        assert_int_equal(enrol(bed, &before, "est/sen", other, NULL), CODE_CHANGED);
        /* Nor after the device was registered anew. */
        assert_int_equal(registry_remove(&bed->f->turn, "meter-1", &bed->f->problem), 0);
        unit_free(&unit);
        unit = unit_new(bed, "meter-1");
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        EVP_PKEY_free(key);
        EVP_PKEY_free(other);
        buffer_free(&der);
        unit_free(&unit);
        unit_free(&before);
}

static void under_a_ca_of_a_later_time_than_the_clocks_certificates_still_have_a_life(void **state) {
        struct bed *bed = *state;
        struct server_credentials credentials = { 0 };
        struct x509_validity leaf, server;
        struct buffer der = { 0 };
        STACK_OF(X509) * chain;
        X509 *certificate;
        struct unit unit;
        EVP_PKEY *key = new_key();

        /* The owner's PKI answers a gateway that does not know the time yet. */
        bed->f->turn.now.wall = FIXTURE_START - YEAR;
        bed->f->turn.now.quality = CLOCK_UNKNOWN;
        bed->f->turn.now.wall_trusted = false;
        unit = unit_new(bed, "meter-1");
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        certificate = x509_read(buffer_bytes(&der));
        assert_int_equal(x509_validity_of(certificate, &leaf), 0);
        assert_true(leaf.not_after - leaf.not_before >= bed->profile->validity_sec);
        X509_free(certificate);
        assert_int_equal(authority_tick(&bed->f->turn), 0);
        assert_int_equal(authority_server_credentials(&bed->f->turn, &credentials), 0);
        chain = x509_read_chain(buffer_bytes(&credentials.chain));
        assert_int_equal(x509_validity_of(sk_X509_value(chain, 0), &server), 0);
        assert_true(server.not_after - server.not_before >= bed->f->config.ca.server_validity_sec);
        sk_X509_pop_free(chain, X509_free);
        server_credentials_free(&credentials);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* ---- tls-unique ---- */

static void a_csr_made_for_another_session_is_refused_where_that_is_looked_at(void **state) {
        static const uint8_t ours[12] = "twelve bytes";
        static const char right[] = "dHdlbHZlIGJ5dGVz", wrong[] = "dHdlbHZlIGJ5dGV6";
        static const struct {
                enum tls_unique_demand demand;
                const char *challenge;
                bool has_tls_unique;
                uint8_t code;
        } cases[] = {
                { TLS_UNIQUE_VERIFY, NULL, true, CODE_CHANGED },
                { TLS_UNIQUE_VERIFY, right, true, CODE_CHANGED },
                { TLS_UNIQUE_VERIFY, wrong, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, "a password", true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, "", true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, right, false, CODE_BAD_REQUEST },
                { TLS_UNIQUE_VERIFY, NULL, false, CODE_CHANGED },
                { TLS_UNIQUE_OFF, wrong, true, CODE_CHANGED },
                { TLS_UNIQUE_OFF, "a password", false, CODE_CHANGED },
                { TLS_UNIQUE_REQUIRED, NULL, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_REQUIRED, wrong, true, CODE_BAD_REQUEST },
                { TLS_UNIQUE_REQUIRED, right, true, CODE_CHANGED },
        };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                EVP_PKEY *key = new_key();

                bed->profile->tls_unique = cases[i].demand;
                unit.identity.tls_unique = BYTES(ours, cases[i].has_tls_unique ? sizeof ours : 0);
                assert_int_equal(enrol_as(bed, &unit, "est/sen", key,
                                          &(struct csr_wish){ .serial = "meter-1", .challenge = cases[i].challenge },
                                          NULL),
                                 cases[i].code);
                EVP_PKEY_free(key);
                fixture_pass(bed->f, 61); /* not too often */
        }
        unit_free(&unit);
}

/* ---- sren ---- */

static void renewal_takes_the_certificate_that_is_renewed_and_keeps_its_names(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        assert_int_equal(enrol_as(bed, &unit, "est/sren", key,
                                  &(struct csr_wish){ .serial = "meter-1", .names = "DNS:meter-1" }, NULL),
                         CODE_FORBIDDEN); /* it has no such name yet */
        assert_int_equal(enrol_as(bed, &unit, "est/sren", key, &(struct csr_wish){ .serial = "meter-2" }, NULL),
                         CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.generation, 2);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_factory_certificate_cannot_be_renewed(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        assert_int_equal(enrol(bed, &unit, "est/sren", unit.key, NULL), CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        unit_free(&unit);
}

static void an_expired_certificate_may_fetch_crts_and_renew_and_nothing_else(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_operational(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct reply reply;

        bed->profile->max_age_sec = 2 * YEAR;
        fixture_pass(bed->f, 91 * FIXTURE_DAY);
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_true(unit.identity.is_expired);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(get(bed, &unit, "est/att", NULL, FORMAT_NONE, &reply), CODE_FORBIDDEN);
        buffer_free(&reply.payload);
        assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
        buffer_free(&reply.payload);
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_CHANGED);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

/* ---- PSK sessions ---- */

static void a_psk_session_enrols_only_where_the_profile_says_so_and_never_renews(void **state) {
        struct bed *bed = *state;
        struct unit unit = { .id = "meter-1" };
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        fixture_add(bed->f, "meter-1", SITE);
        assert_int_equal(fixture_connect(bed->f, "meter-1", &unit.identity), 0);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        bed->profile->est_over_psk = true;
        assert_int_equal(enrol(bed, &unit, "est/sren", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(enrol_as(bed, &unit, "est/sen", key, &(struct csr_wish){ .serial = "meter-2" }, NULL),
                         CODE_FORBIDDEN);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_profile_with_psks_gives_no_certificates(void **state) {
        struct bed *bed = *state;
        struct unit unit = { .id = "meter-1" };
        EVP_PKEY *key = new_key();

        bed->profile->credential = PROFILE_PSK;
        bed->profile->est_over_psk = true;
        fixture_add(bed->f, "meter-1", SITE);
        assert_int_equal(fixture_connect(bed->f, "meter-1", &unit.identity), 0);
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_FORBIDDEN);
        assert_int_equal(issued(bed), 0);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                ON_SITE(crts_hands_out_the_ca_and_the_device_owes_that_no_more),
                ON_SITE(one_ca_certificate_is_given_as_287_and_several_are_not),
                ON_SITE(whoever_comes_with_a_replaced_key_does_not_fetch_crts_for_the_device),
                WITHOUT_CA(without_a_ca_there_is_nothing_to_fetch_and_nobody_to_sign),
                ON_SITE(att_names_what_the_profile_takes),
                ON_SITE(the_crl_is_asked_for_by_generation),
                ON_SITE(a_csr_gets_a_certificate_that_its_first_handshake_activates),
                ON_SITE(the_formats_are_looked_at_before_the_body),
                ON_SITE(both_roots_and_the_profile_as_label_lead_to_the_same_resource),
                ON_SITE(an_empty_subject_is_filled_in),
                ON_SITE(all_kinds_of_keys_that_the_profile_takes_are_signed),
                ON_SITE(the_identical_csr_gets_the_identical_certificate_in_any_session),
                ON_SITE(a_proven_certificate_answers_its_csr_until_it_is_due),
                ON_SITE(a_certificate_is_renewed_by_the_csr_that_brought_it),
                ON_SITE(the_name_of_another_device_gets_nothing_and_the_audit_says_who_tried),
                ON_SITE(the_key_of_another_device_gets_nothing_and_only_the_audit_says_whose_it_is),
                ON_SITE(a_csr_cut_off_anywhere_is_refused_and_rows_of_refusals_are_few),
                ON_SITE(ever_new_reasons_make_four_rows_an_hour_and_one_line_after_that),
                ON_SITE(more_than_a_few_unused_certificates_within_a_minute_are_too_often),
                ON_SITE(a_profile_may_demand_a_new_key_each_time),
                ON_SITE(a_compromised_key_is_certified_for_nobody_again),
                ON_SITE(under_a_ca_of_a_later_time_than_the_clocks_certificates_still_have_a_life),
                ON_SITE(a_csr_made_for_another_session_is_refused_where_that_is_looked_at),
                ON_SITE(renewal_takes_the_certificate_that_is_renewed_and_keeps_its_names),
                ON_SITE(a_factory_certificate_cannot_be_renewed),
                ON_SITE(an_expired_certificate_may_fetch_crts_and_renew_and_nothing_else),
                ON_SITE(a_psk_session_enrols_only_where_the_profile_says_so_and_never_renews),
                ON_SITE(a_profile_with_psks_gives_no_certificates),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

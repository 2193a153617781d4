/* SPDX-License-Identifier: Apache-2.0 */

/* EST-coaps' other ways to a certificate: with a key made here, from the owner's CA upstream; and the requests and
 * answers of RFC 9148, appendix A. */

#include "tests/unit/est_bed.h"

#include "gatewayd/keys/registrar.h"

/* ---- skg and skc ---- */

static EVP_PKEY *read_key(struct bytes der) {
        const unsigned char *at = der.data;
        PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.size);
        EVP_PKEY *key;

        assert_non_null(info);
        assert_ptr_equal(at, der.data + der.size);
        key = EVP_PKCS82PKEY(info);
        assert_non_null(key);
        PKCS8_PRIV_KEY_INFO_free(info);
        return key;
}

static void a_key_made_here_comes_once_with_its_certificate(void **state) {
        static const struct {
                const char *path;
                uint16_t format;
        } functions[] = { { "est/skg", FORMAT_PKCS7_CERTS }, { "est/skc", FORMAT_PKIX_CERT } };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key(), *before = NULL;
        struct buffer csr = { 0 };

        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        csr.data[csr.size - 1] ^= 1; /* key and signature mean nothing (RFC 9148 §4.8) */
        for (size_t i = 0; i < ELEMENTS(functions); i++) {
                struct multipart_part parts[2];
                STACK_OF(X509) * certificates;
                struct buffer der = { 0 };
                struct reply reply;
                EVP_PKEY *made;

                assert_int_equal(post(bed, &unit, functions[i].path, FORMAT_NONE, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(reply.content_format, FORMAT_MULTIPART);
                assert_int_equal(multipart_read(buffer_bytes(&reply.payload), parts, 2, NULL), 2);
                assert_int_equal(parts[0].content_format, FORMAT_PKCS8);
                assert_int_equal(parts[1].content_format, functions[i].format);
                made = read_key(parts[0].body);
                assert_int_not_equal(EVP_PKEY_eq(made, key), 1);
                if (before)
                        assert_int_not_equal(EVP_PKEY_eq(made, before), 1); /* each time another */
                if (functions[i].format == FORMAT_PKIX_CERT)
                        buffer_append(&der, parts[1].body);
                else {
                        certificates = x509_pkcs7_read(parts[1].body);
                        assert_int_equal(sk_X509_num(certificates), 1);
                        assert_int_equal(x509_write(sk_X509_value(certificates, 0), &der), 0);
                        sk_X509_pop_free(certificates, X509_free);
                }
                assert_issued_for(bed, buffer_bytes(&der), "meter-1", made);
                buffer_free(&der);
                buffer_free(&reply.payload);
                EVP_PKEY_free(before);
                before = made;
        }
        buffer_free(&csr);
        EVP_PKEY_free(before);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void a_key_made_here_is_of_the_kind_of_the_csrs_where_the_profile_takes_that(void **state) {
        static const struct {
                unsigned key_types;
                enum x509_key_type shown;
                const char *made;
        } cases[] = {
                { 7, X509_KEY_P256, "prime256v1" },
                { 7, X509_KEY_P384, "secp384r1" },
                { 7, X509_KEY_ED25519, "ED25519" },
                { 1u << DEVICE_KEY_P256, X509_KEY_P384, "prime256v1" },
                { 1u << DEVICE_KEY_P384, X509_KEY_P256, "secp384r1" },
        };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                EVP_PKEY *shown = x509_key_new(cases[i].shown), *made;
                struct multipart_part parts[2];
                struct buffer csr = { 0 };
                struct reply reply;
                char group[32];

                bed->profile->key_types = cases[i].key_types;
                csr_make(shown, &(struct csr_wish){ .serial = "meter-1" }, &csr);
                assert_int_equal(post(bed, &unit, "est/skc", FORMAT_MULTIPART, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                assert_int_equal(multipart_read(buffer_bytes(&reply.payload), parts, 2, NULL), 2);
                made = read_key(parts[0].body);
                if (EVP_PKEY_get_group_name(made, group, sizeof group, NULL) == 1)
                        assert_string_equal(group, cases[i].made);
                else
                        assert_true(EVP_PKEY_is_a(made, cases[i].made));
                EVP_PKEY_free(made);
                EVP_PKEY_free(shown);
                buffer_free(&csr);
                buffer_free(&reply.payload);
                fixture_pass(bed->f, 61);
        }
        unit_free(&unit);
}

static void a_protected_key_is_refused_and_never_given_unprotected(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        const struct csr_wish wish = { .serial = "meter-1", .wants_protected_key = true };

        assert_int_equal(enrol_as(bed, &unit, "est/skg", unit.key, &wish, NULL), CODE_NOT_ACCEPTABLE);
        for (size_t i = 0; i < 2; i++) {
                struct buffer csr = { 0 };
                struct reply reply;

                csr_make(unit.key, &wish, &csr);
                assert_int_equal(
                        post(bed, &unit, i == 0 ? "est/skg" : "est/skc", FORMAT_NONE, buffer_bytes(&csr), &reply),
                        CODE_BAD_REQUEST);
                buffer_free(&csr);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_true(refusals_of(bed, "meter-1").count > 0);
        unit_free(&unit);
}

static void keys_are_made_only_where_the_profile_and_the_ca_allow_it(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        csr_make(unit.key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        for (int i = 0; i < 3; i++) {
                bed->profile->server_keygen = i != 0;
                bed->profile->ca = i == 1 ? CA_UPSTREAM : CA_LOCAL;
                bed->profile->key_types = i == 2 ? 1u << DEVICE_KEY_RSA : 7;
                assert_int_equal(post(bed, &unit, "est/skg", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_FORBIDDEN);
                buffer_free(&reply.payload);
        }
        assert_int_equal(issued(bed), 0);
        assert_int_equal(refusals_of(bed, "meter-1").count, 3);
        buffer_free(&csr);
        unit_free(&unit);
}

/* ---- upstream ---- */

/* The owner's CA signs what waits, here with the maker's key. */
static void upstream_signs(struct bed *bed, const char *device, EVP_PKEY *key) {
        const struct x509_validity validity = { FIXTURE_START - FIXTURE_DAY, bed->f->turn.now.wall + YEAR };
        STACK_OF(X509) *certificates = sk_X509_new_null();
        struct message_enrolled answer = { .outcome = ENROL_ISSUED, .http_status = 200 };
        struct buffer pkcs7 = { 0 };
        struct enrolment waiting;
        X509 *certificate;

        assert_int_equal(enrolment_due(bed->f->store, bed->f->turn.now.powered_sec, &waiting, 1), 1);
        certificate = x509_device_make(&bed->maker, NULL, key, device, NULL, &validity, NULL, NULL);
        assert_non_null(certificate);
        sk_X509_push(certificates, certificate);
        assert_int_equal(x509_pkcs7_write(certificates, &pkcs7), 0);
        sk_X509_pop_free(certificates, X509_free);
        answer.number = waiting.number;
        answer.certificates = buffer_bytes(&pkcs7);
        assert_int_equal(registrar_answer(&bed->f->turn, &answer), 0);
        buffer_free(&pkcs7);
}

static void a_csr_for_upstream_waits_and_asked_again_gets_upstreams_certificate_once(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 }, der = { 0 };
        EVP_PKEY *key = new_key();
        struct reply reply;
        X509 *certificate;

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_UNAVAILABLE);
                assert_true(reply.max_age_sec > 0);
                buffer_free(&reply.payload);
        }
        assert_int_equal(enrolment_count(bed->f->store, ENROLMENT_WAITING), 1);
        assert_int_equal(issued(bed), 0);
        upstream_signs(bed, "meter-1", key);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_PKIX_CERT, buffer_bytes(&csr), &reply),
                                 CODE_CHANGED);
                if (i == 0)
                        buffer_append(&der, buffer_bytes(&reply.payload));
                assert_true(bytes_equal(buffer_bytes(&reply.payload), buffer_bytes(&der)));
                buffer_free(&reply.payload);
        }
        certificate = x509_read(buffer_bytes(&der));
        assert_int_equal(X509_verify(certificate, bed->maker.key), 1);
        X509_free(certificate);
        unit_use(&unit, key, buffer_bytes(&der));
        assert_int_equal(unit_connect(bed, &unit), 0);
        assert_int_equal(unit.identity.credential.kind, CREDENTIAL_LDEVID);
        assert_int_equal(unit.identity.credential.generation, 1);
        buffer_free(&csr);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void ever_new_keys_are_not_asked_for_upstream_without_end(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        for (int i = 0; i < 6; i++) {
                struct buffer csr = { 0 };
                EVP_PKEY *key = new_key();
                struct reply reply;

                csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply),
                                 i < 4 || i == 5 ? CODE_UNAVAILABLE : CODE_TOO_MANY_REQUESTS);
                assert_true(reply.max_age_sec > 0 && (i != 4 || reply.max_age_sec == 60 - 20));
                fixture_pass(bed->f, i == 4 ? 40 : 5);
                buffer_free(&reply.payload);
                buffer_free(&csr);
                EVP_PKEY_free(key);
        }
        unit_free(&unit);
}

static void add_common_name(EVP_PKEY *key, const char *name, struct buffer *csr) {
        const uint8_t *at = csr->data;
        X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)csr->size);
        unsigned char *der = NULL;
        int size;

        assert_int_equal(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request), "CN", MBSTRING_UTF8,
                                                    (const unsigned char *)name, -1, -1, 0),
                         1);
        assert_true(X509_REQ_sign(request, key, EVP_sha256()) > 0);
        size = i2d_X509_REQ(request, &der);
        assert_true(size > 0);
        buffer_free(csr);
        buffer_append(csr, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_REQ_free(request);
}

static void a_common_name_may_be_a_models_but_no_other_devices(void **state) {
        static const char *const names[] = { "Meter 3000", "meter-1", "meter-2" };
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1"), other = unit_new(bed, "meter-2");

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        for (size_t i = 0; i < ELEMENTS(names); i++) {
                struct buffer csr = { 0 };
                EVP_PKEY *key = new_key();
                struct reply reply;

                csr_make(key, &(struct csr_wish){ .serial = "meter-1" }, &csr);
                add_common_name(key, names[i], &csr);
                assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply),
                                 i < 2 ? CODE_UNAVAILABLE : CODE_FORBIDDEN);
                buffer_free(&reply.payload);
                buffer_free(&csr);
                EVP_PKEY_free(key);
        }
        assert_int_equal(refusals_of(bed, "meter-1").count, 1);
        unit_free(&unit);
        unit_free(&other);
}

static void with_the_uplink_down_the_profile_may_let_the_gateway_sign(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        EVP_PKEY *key = new_key();
        struct buffer der = { 0 };

        bed->profile->ca = CA_UPSTREAM;
        snprintf(bed->f->config.north.est_url, sizeof bed->f->config.north.est_url,
                 "https://est.example/.well-known/est");
        bed->f->turn.is_upstream_away = true;
        assert_int_equal(enrol(bed, &unit, "est/sen", key, NULL), CODE_UNAVAILABLE);
        bed->profile->upstream_offline = OFFLINE_LOCAL;
        assert_int_equal(enrol(bed, &unit, "est/sen", key, &der), CODE_CHANGED);
        assert_issued_for(bed, buffer_bytes(&der), "meter-1", key);
        buffer_free(&der);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void crts_of_an_upstream_profile_has_both_cas_each_once(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        STACK_OF(X509) *certificates = sk_X509_new_null();
        struct buffer pkcs7 = { 0 };
        X509 *ca = ca_certificate(bed);
        struct reply reply;

        sk_X509_push(certificates, bed->maker.certificate);
        sk_X509_push(certificates, ca);
        assert_int_equal(x509_pkcs7_write(certificates, &pkcs7), 0);
        sk_X509_free(certificates);
        X509_free(ca);
        assert_int_equal(registrar_anchors_put(&bed->f->turn, buffer_bytes(&pkcs7)), 0);
        buffer_free(&pkcs7);
        for (int i = 0; i < 2; i++) {
                bed->profile->ca = i == 0 ? CA_LOCAL : CA_UPSTREAM;
                assert_int_equal(get(bed, &unit, "est/crts", NULL, FORMAT_NONE, &reply), CODE_CONTENT);
                certificates = x509_pkcs7_read(buffer_bytes(&reply.payload));
                assert_int_equal(sk_X509_num(certificates), 1 + i);
                sk_X509_pop_free(certificates, X509_free);
                buffer_free(&reply.payload);
        }
        unit_free(&unit);
}

/* ---- the standard's appendix ---- */

static void vector_read(const char *name, struct buffer *to) {
        char path[100];
        FILE *f;

        snprintf(path, sizeof path, "tests/vectors/%s", name);
        f = fopen(path, "rb");
        assert_non_null(f);
        to->size = fread(buffer_reserve(to, 4096), 1, 4096, f);
        assert_in_range(to->size, 1, 4095);
        (void)fclose(f);
}

static X509 *only_certificate(struct bytes pkcs7) {
        STACK_OF(X509) *certificates = x509_pkcs7_read(pkcs7);
        X509 *certificate;

        assert_int_equal(sk_X509_num(certificates), 1);
        certificate = sk_X509_shift(certificates);
        sk_X509_pop_free(certificates, X509_free);
        return certificate;
}

/* An IDevID with the names of the appendix's device. */
static void idevid_like(struct bed *bed, X509 *like, EVP_PKEY *key, struct buffer *to) {
        X509 *idevid = X509_new();
        int at = X509_get_ext_by_NID(like, NID_subject_alt_name, -1);
        unsigned char *der = NULL;
        int size;

        assert_true(at >= 0);
        assert_int_equal(X509_set_version(idevid, X509_VERSION_3), 1);
        assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(idevid), 17), 1);
        assert_int_equal(X509_set_issuer_name(idevid, X509_get_subject_name(bed->maker.certificate)), 1);
        assert_int_equal(X509_set_subject_name(idevid, X509_get_subject_name(like)), 1);
        assert_non_null(X509_time_adj_ex(X509_getm_notBefore(idevid), -365, 0, (time_t[]){ FIXTURE_START }));
        assert_int_equal(ASN1_TIME_set_string(X509_getm_notAfter(idevid), "99991231235959Z"), 1);
        assert_int_equal(X509_set_pubkey(idevid, key), 1);
        assert_int_equal(X509_add_ext(idevid, X509_get_ext(like, at), -1), 1);
        assert_true(X509_sign(idevid, bed->maker.key, EVP_sha256()) > 0);
        size = i2d_X509(idevid, &der);
        assert_true(size > 0);
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_free(idevid);
}

static void assert_same_extension(X509 *one, X509 *other, int nid) {
        const ASN1_STRING *a = X509_EXTENSION_get_data(X509_get_ext(one, X509_get_ext_by_NID(one, nid, -1)));
        const ASN1_STRING *b = X509_EXTENSION_get_data(X509_get_ext(other, X509_get_ext_by_NID(other, nid, -1)));

        assert_int_equal(ASN1_STRING_cmp(a, b), 0);
}

static void the_appendix_csr_gets_the_names_of_the_appendix_certificate(void **state) {
        struct bed *bed = *state;
        struct buffer csr = { 0 }, answer = { 0 }, idevid = { 0 };
        struct registration registration = { .id = "Wt1234" };
        struct unit unit = { .id = "Wt1234" };
        EVP_PKEY *key = new_key();
        struct reply reply;
        X509 *published, *ours;

        vector_read("rfc9148-a2-sen-req.csr.der", &csr);
        vector_read("rfc9148-a2-sen-resp.p7.der", &answer);
        published = only_certificate(buffer_bytes(&answer));
        snprintf(registration.profile, sizeof registration.profile, "%s", bed->profile->name);
        assert_int_equal(registry_add(&bed->f->turn, &registration, NULL, &bed->f->problem), 0);
        idevid_like(bed, published, key, &idevid);
        unit_use(&unit, key, buffer_bytes(&idevid));
        assert_int_equal(unit_connect(bed, &unit), 0);

        /* Its challengePassword is of another session, and not even base64. */
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_BAD_REQUEST);
        buffer_free(&reply.payload);
        bed->profile->tls_unique = TLS_UNIQUE_OFF;
        assert_int_equal(post(bed, &unit, "est/sen", FORMAT_NONE, buffer_bytes(&csr), &reply), CODE_CHANGED);
        ours = only_certificate(buffer_bytes(&reply.payload));
        assert_int_equal(X509_NAME_cmp(X509_get_subject_name(ours), X509_get_subject_name(published)), 0);
        assert_same_extension(ours, published, NID_subject_alt_name);
        assert_same_extension(ours, published, NID_subject_key_identifier);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(ours), X509_get0_pubkey(published)), 1);
        buffer_free(&reply.payload);
        X509_free(ours);
        X509_free(published);
        buffer_free(&csr);
        buffer_free(&answer);
        buffer_free(&idevid);
        EVP_PKEY_free(key);
        unit_free(&unit);
}

static void the_appendix_answer_to_skg_is_read_and_written_to_the_byte(void **state) {
        struct buffer body = { 0 }, again = { 0 };
        struct multipart_part parts[2];
        X509 *certificate;
        EVP_PKEY *key;

        (void)state;
        vector_read("rfc9148-a3-skg-resp.multipart.cbor", &body);
        assert_int_equal(multipart_read(buffer_bytes(&body), parts, 2, NULL), 2);
        assert_int_equal(parts[0].content_format, FORMAT_PKCS8);
        assert_int_equal(parts[1].content_format, FORMAT_PKCS7_CERTS);
        key = read_key(parts[0].body);
        certificate = only_certificate(parts[1].body);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(certificate), key), 1);
        multipart_write(parts, 2, &again);
        assert_true(bytes_equal(buffer_bytes(&again), buffer_bytes(&body)));
        X509_free(certificate);
        EVP_PKEY_free(key);
        buffer_free(&body);
        buffer_free(&again);
}

static void the_appendix_csr_for_skg_is_taken(void **state) {
        struct bed *bed = *state;
        struct unit unit = unit_new(bed, "meter-1");
        struct buffer csr = { 0 };
        struct reply reply;

        vector_read("rfc9148-a3-skg-req.csr.der", &csr);
        assert_int_equal(post(bed, &unit, "est/skg", FORMAT_MULTIPART, buffer_bytes(&csr), &reply), CODE_CHANGED);
        buffer_free(&reply.payload);
        buffer_free(&csr);
        unit_free(&unit);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
                ON_SITE(a_key_made_here_comes_once_with_its_certificate),
                ON_SITE(a_key_made_here_is_of_the_kind_of_the_csrs_where_the_profile_takes_that),
                ON_SITE(a_protected_key_is_refused_and_never_given_unprotected),
                ON_SITE(keys_are_made_only_where_the_profile_and_the_ca_allow_it),
                ON_SITE(a_csr_for_upstream_waits_and_asked_again_gets_upstreams_certificate_once),
                ON_SITE(ever_new_keys_are_not_asked_for_upstream_without_end),
                ON_SITE(a_common_name_may_be_a_models_but_no_other_devices),
                ON_SITE(with_the_uplink_down_the_profile_may_let_the_gateway_sign),
                ON_SITE(crts_of_an_upstream_profile_has_both_cas_each_once),
                ON_SITE(the_appendix_csr_gets_the_names_of_the_appendix_certificate),
                cmocka_unit_test(the_appendix_answer_to_skg_is_read_and_written_to_the_byte),
                ON_SITE(the_appendix_csr_for_skg_is_taken),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

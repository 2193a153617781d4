/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates, CRLs, messages and chains: what is made says what it should, what is read is read whole, and a
 * path is a path. Other implementations' reading: tests/system/test_x509_formats.py. */

#include "tests/unit/x509_support.h"

struct site {
        EVP_PKEY *key, *leaf_key;
        struct x509_signer signer;
        struct problem problem;
};

static const struct x509_validity usual = { NOW - 3600, NOW + 90 * 86400 };

static int make_site(void **state) {
        struct site *site = xcalloc(1, sizeof *site);

        site->key = x509_key_new(X509_KEY_P256);
        site->leaf_key = x509_key_new(X509_KEY_P256);
        site->signer = (struct x509_signer){ site->key, root_make(site->key, "CN=Plant 7 CA, O=Example") };
        *state = site;
        return 0;
}

static int free_site(void **state) {
        struct site *site = *state;

        X509_free(site->signer.certificate);
        EVP_PKEY_free(site->key);
        EVP_PKEY_free(site->leaf_key);
        free(site);
        return 0;
}

static X509 *device_make(struct site *site, const char *device) {
        X509 *ret = x509_device_make(&site->signer, NULL, site->leaf_key, device, NULL, &usual, NULL, &site->problem);

        assert_non_null(ret);
        return ret;
}

/* ---- makers ---- */

static void a_root_may_certify_its_successor_and_no_more(void **state) {
        struct site *site = *state;
        X509 *root = site->signer.certificate;

        assert_int_equal(X509_get_version(root), X509_VERSION_3);
        assert_int_equal(X509_verify(root, site->key), 1);
        assert_int_equal(X509_check_ca(root), 1);
        assert_int_equal(X509_get_pathlen(root), 1);
        assert_int_equal(X509_get_key_usage(root), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
        assert_int_equal(
                X509_EXTENSION_get_critical(X509_get_ext(root, X509_get_ext_by_NID(root, NID_basic_constraints, -1))),
                1);
        assert_int_equal(X509_EXTENSION_get_critical(X509_get_ext(root, X509_get_ext_by_NID(root, NID_key_usage, -1))),
                         1);
        assert_non_null(X509_get0_subject_key_id(root));
}

static void a_cross_certificate_has_the_successor_s_name_and_key(void **state) {
        struct site *site = *state;
        _cleanup_(key_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P384);
        _cleanup_(certificate_freep) X509 *next = root_make(key, "CN=Plant 7 CA 2");
        _cleanup_(certificate_freep) X509 *cross = x509_cross_make(&site->signer, next, &usual, NULL, &site->problem);

        assert_non_null(cross);
        assert_int_equal(X509_verify(cross, site->key), 1);
        assert_int_equal(X509_NAME_cmp(X509_get_subject_name(cross), X509_get_subject_name(next)), 0);
        assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(cross), key), 1);
        assert_int_equal(X509_get_pathlen(cross), 0);
        assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_subject_key_id(cross), X509_get0_subject_key_id(next)), 0);
        assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(cross),
                                               X509_get0_subject_key_id(site->signer.certificate)),
                         0);
}

static void an_ldevid_is_a_client_and_no_ca(void **state) {
        struct site *site = *state;
        _cleanup_(certificate_freep) X509 *leaf = device_make(site, "sensor_17");
        char id[DEVICE_ID_MAX + 1];

        assert_int_equal(X509_verify(leaf, site->key), 1);
        assert_int_equal(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
        assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_CLIENT);
        assert_int_equal(X509_get_ext_by_NID(leaf, NID_basic_constraints, -1), -1);
        assert_int_equal(X509_get_ext_count(leaf), 4); /* key usage, extended one, SKI, AKI */
        assert_int_equal(x509_device_id(leaf, IDEVID_SERIAL_NUMBER, id), 0);
        assert_string_equal(id, "sensor_17");
        assert_int_equal(x509_device_id(leaf, IDEVID_SAN, id), -ENOENT);
}

static void nothing_of_a_csr_is_copied_but_the_device_s_names(void **state) {
        static const struct profile profile = { .key_types = 1u << DEVICE_KEY_P256 };
        struct site *site = *state;
        struct csr_plan plan = { .key = site->leaf_key,
                                 .algorithm = ECDSA_SHA256,
                                 .digest = "SHA256",
                                 .subject = "O=Evil,CN=sensor-1,CN=admin" };
        _cleanup_(buffer_free) struct buffer der = {}, names = {}, extensions = {}, attributes = {};
        _cleanup_(certificate_freep) X509 *leaf = NULL;
        char text[256], id[DEVICE_ID_MAX + 1];
        struct csr csr;

        der_put(&names, 0x30,
                TEXT("\x82\x08sensor-1\x82\x05"
                     "admin"));
        csr_put_extension("0603551d11", buffer_bytes(&names), &extensions);
        csr_put_extension("0603551d13", hex("30030101ff"), &extensions); /* CA:TRUE */
        der_wrap(&extensions, 0x30);
        csr_put_attribute(OID_EXTENSIONS, buffer_bytes(&extensions), &attributes);
        plan.attributes = buffer_bytes(&attributes);
        csr_make(&plan, &der);
        assert_int_equal(csr_read(buffer_bytes(&der), &profile, false, &csr, &site->problem), 0);
        leaf = x509_device_make(&site->signer, &csr, csr.key, "sensor-1", NULL, &usual, NULL, &site->problem);
        assert_non_null(leaf);
        x509_subject_text(leaf, text, sizeof text);
        assert_string_equal(text, "CN=sensor-1,serialNumber=sensor-1");
        assert_int_equal(X509_check_ca(leaf), 0);
        assert_int_equal(x509_device_id(leaf, IDEVID_SAN, id), 0);
        assert_string_equal(id, "sensor-1");
        assert_int_equal(X509_check_host(leaf, "admin", 5, 0, NULL), 0);
        csr_free(&csr);
}

static void a_renewed_certificate_keeps_its_names(void **state) {
        struct site *site = *state;
        _cleanup_(certificate_freep) X509 *first = device_make(site, "sensor-1"), *second = NULL;

        second = x509_device_make(&site->signer, NULL, site->leaf_key, "sensor-1", first, &usual, NULL, &site->problem);
        assert_int_equal(X509_NAME_cmp(X509_get_subject_name(first), X509_get_subject_name(second)), 0);
        assert_true(ASN1_INTEGER_cmp(X509_get0_serialNumber(first), X509_get0_serialNumber(second)) != 0);
}

static void the_server_s_leaf_is_a_server_and_a_registrar(void **state) {
        struct site *site = *state;
        _cleanup_(certificate_freep) X509 *leaf =
                x509_server_make(&site->signer, site->leaf_key, "gw.example", &usual, NULL, &site->problem);
        EXTENDED_KEY_USAGE *usage = X509_get_ext_d2i(leaf, NID_ext_key_usage, NULL, NULL);

        assert_int_equal(sk_ASN1_OBJECT_num(usage), 2);
        assert_int_equal(OBJ_obj2nid(sk_ASN1_OBJECT_value(usage, 0)), NID_server_auth);
        assert_int_equal(OBJ_obj2nid(sk_ASN1_OBJECT_value(usage, 1)), NID_cmcRA);
        assert_int_equal(X509_check_host(leaf, "gw.example", 0, 0, NULL), 1);
        EXTENDED_KEY_USAGE_free(usage);
}

static void serials_are_sixteen_positive_random_bytes(void **state) {
        struct site *site = *state;
        uint8_t last[16] = { 0 };

        for (int i = 0; i < 64; i++) {
                _cleanup_(certificate_freep) X509 *leaf = device_make(site, "sensor-1");
                struct certificate row;

                assert_int_equal(x509_describe(leaf, &row), 0);
                assert_int_equal(row.serial_size, 16);
                assert_true(row.serial[0] > 0 && row.serial[0] < 0x80);
                assert_memory_not_equal(row.serial, last, 16);
                memcpy(last, row.serial, 16);
        }
}

static void times_are_utctime_through_2049_and_generalized_after(void **state) {
        static const struct {
                unix_sec at;
                int type;
                const char *text;
        } cases[] = {
                { 0, V_ASN1_UTCTIME, "700101000000Z" },
                { 2524607999, V_ASN1_UTCTIME, "491231235959Z" },
                { 2524608000, V_ASN1_GENERALIZEDTIME, "20500101000000Z" },
                { 32503680000, V_ASN1_GENERALIZEDTIME, "30000101000000Z" },
                { NOT_AFTER_NEVER, V_ASN1_GENERALIZEDTIME, "99991231235959Z" },
        };
        struct site *site = *state;

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                const struct x509_validity validity = { 0, cases[i].at };
                _cleanup_(certificate_freep) X509 *leaf = x509_device_make(&site->signer, NULL, site->leaf_key, "d",
                                                                           NULL, &validity, NULL, &site->problem);
                struct x509_validity back;

                assert_int_equal(ASN1_STRING_type(X509_get0_notAfter(leaf)), cases[i].type);
                assert_string_equal((const char *)ASN1_STRING_get0_data(X509_get0_notAfter(leaf)), cases[i].text);
                assert_int_equal(x509_validity_of(leaf, &back), 0);
                assert_true(back.not_before == 0 && back.not_after == cases[i].at);
        }
        const struct x509_validity upside_down = { 5, 4 };
        assert_null(
                x509_device_make(&site->signer, NULL, site->leaf_key, "d", NULL, &upside_down, NULL, &site->problem));
        assert_int_equal(site->problem.code, CODE_INTERNAL);
}

/* ---- names ---- */

static void names_are_parsed_as_people_write_them(void **state) {
        static const char *const good[][2] = {
                { "CN=Plant 7 CA, O=Example", "CN=Plant 7 CA,O=Example" },
                { " cn = a ,ou=b", "CN=a,OU=b" },
                { "CN=a\\, b,C=DE", "CN=a\\, b,C=DE" },
                { "serialNumber=x_1", "serialNumber=x_1" },
        };
        static const char *const bad[] = { "", "CN", "CN=", "X=y", "CN=a,", "C=Germany", "C=de", "CN=a\n", "CN=a\\" };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                _cleanup_(certificate_freep) X509 *holder = X509_new();
                X509_NAME *name = x509_name_parse(good[i][0]);
                char text[128];

                assert_non_null(name);
                assert_int_equal(X509_set_subject_name(holder, name), 1);
                x509_subject_text(holder, text, sizeof text);
                assert_string_equal(text, good[i][1]);
                X509_NAME_free(name);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                if (x509_name_parse(bad[i]))
                        fail_msg("\"%s\" was understood", bad[i]);
}

/* ---- reading ---- */

static void a_certificate_cut_anywhere_or_followed_by_anything_is_none(void **state) {
        struct site *site = *state;
        _cleanup_(buffer_free) struct buffer der = {};
        _cleanup_(certificate_freep) X509 *whole = NULL;

        assert_int_equal(x509_write(site->signer.certificate, &der), 0);
        for (size_t size = 0; size < der.size; size++)
                assert_null(x509_read(BYTES(der.data, size)));
        whole = x509_read(buffer_bytes(&der));
        assert_int_equal(X509_cmp(whole, site->signer.certificate), 0);
        buffer_append(&der, BYTES("", 1));
        assert_null(x509_read(buffer_bytes(&der)));
        assert_int_equal(ERR_peek_error(), 0);
}

static void a_chain_has_one_to_eight_certificates(void **state) {
        struct site *site = *state;
        _cleanup_(buffer_free) struct buffer der = {};

        assert_null(x509_read_chain((struct bytes){}));
        for (int i = 1; i <= 9; i++) {
                _cleanup_(certificates_freep) STACK_OF(X509) *chain = NULL;

                assert_int_equal(x509_write(site->signer.certificate, &der), 0);
                chain = x509_read_chain(buffer_bytes(&der));
                assert_int_equal(chain ? sk_X509_num(chain) : -1, i <= 8 ? i : -1);
        }
}

/* ---- chains ---- */

static STACK_OF(X509) * stack(X509 *a, X509 *b, X509 *c) {
        STACK_OF(X509) *ret = sk_X509_new_null();
        X509 *all[] = { a, b, c };

        for (size_t i = 0; i < ELEMENTS(all); i++)
                if (all[i] && X509_up_ref(all[i]) == 1)
                        sk_X509_push(ret, all[i]);
        return ret;
}

static int verify(STACK_OF(X509) * chain, STACK_OF(X509) * anchors, int *length, size_t *anchor,
                  struct problem *problem) {
        _cleanup_(certificates_freep) STACK_OF(X509) *path = NULL;
        int r = x509_chain_verify(chain, anchors, &path, anchor, problem);

        if (length)
                *length = path ? sk_X509_num(path) : -1;
        sk_X509_pop_free(chain, X509_free);
        sk_X509_pop_free(anchors, X509_free);
        assert_int_equal(ERR_peek_error(), 0);
        return r;
}

static void a_leaf_leads_to_the_anchor_that_issued_it(void **state) {
        struct site *site = *state;
        _cleanup_(key_freep) EVP_PKEY *other_key = x509_key_new(X509_KEY_ED25519);
        _cleanup_(certificate_freep) X509 *leaf = device_make(site, "sensor-1"),
                                          *other = root_make(other_key, "CN=Other");
        X509 *root = site->signer.certificate;
        struct problem problem = { 0 };
        size_t anchor;
        int length;

        assert_int_equal(verify(stack(leaf, NULL, NULL), stack(other, root, NULL), &length, &anchor, &problem), 0);
        assert_int_equal(length, 2);
        assert_int_equal(anchor, 1);
        /* with what does not belong to it */
        assert_int_equal(verify(stack(leaf, other, root), stack(root, NULL, NULL), &length, &anchor, &problem), 0);
        assert_int_equal(verify(stack(leaf, root, NULL), stack(other, NULL, NULL), NULL, NULL, &problem),
                         -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "no trust anchor"));
        assert_int_equal(verify(stack(leaf, NULL, NULL), stack(NULL, NULL, NULL), NULL, NULL, &problem), -EKEYREJECTED);
        assert_int_equal(verify(stack(NULL, NULL, NULL), stack(root, NULL, NULL), NULL, NULL, &problem), -EKEYREJECTED);
}

static void a_path_may_go_over_an_intermediate_or_end_in_it(void **state) {
        struct site *site = *state;
        _cleanup_(key_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P256);
        _cleanup_(certificate_freep) X509 *next = root_make(key, "CN=Next"), *cross = NULL, *leaf = NULL;
        struct x509_signer signer = { .key = key };
        struct problem problem = { 0 };
        size_t anchor;
        int length;

        cross = x509_cross_make(&site->signer, next, &usual, NULL, &problem);
        signer.certificate = cross;
        leaf = x509_device_make(&signer, NULL, site->leaf_key, "sensor-1", NULL, &usual, NULL, &problem);
        assert_int_equal(verify(stack(leaf, cross, NULL), stack(site->signer.certificate, NULL, NULL), &length, &anchor,
                                &problem),
                         0);
        assert_int_equal(length, 3);
        assert_int_equal(verify(stack(leaf, NULL, NULL), stack(site->signer.certificate, cross, NULL), &length, &anchor,
                                &problem),
                         0);
        assert_true(length == 2 && anchor == 1); /* the nearer one */
        assert_int_equal(
                verify(stack(leaf, NULL, NULL), stack(site->signer.certificate, NULL, NULL), NULL, NULL, &problem),
                -EKEYREJECTED);
}

static void path_length_is_honoured(void **state) {
        struct site *site = *state;
        _cleanup_(key_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P256), *deep_key = x509_key_new(X509_KEY_P256);
        _cleanup_(certificate_freep) X509 *a = root_make(key, "CN=A"), *b = root_make(deep_key, "CN=B");
        _cleanup_(certificate_freep) X509 *cross = NULL, *deep = NULL, *leaf = NULL;
        struct x509_signer signer = { .key = key }, deep_signer = { .key = deep_key };
        struct problem problem = { 0 };

        cross = x509_cross_make(&site->signer, a, &usual, NULL, &problem);
        signer.certificate = cross;
        deep = x509_cross_make(&signer, b, &usual, NULL, &problem);
        deep_signer.certificate = deep;
        leaf = x509_device_make(&deep_signer, NULL, site->leaf_key, "sensor-1", NULL, &usual, NULL, &problem);
        assert_int_equal(
                verify(stack(leaf, deep, cross), stack(site->signer.certificate, NULL, NULL), NULL, NULL, &problem),
                -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "path length"));
}

static void a_forged_signature_is_refused(void **state) {
        struct site *site = *state;
        _cleanup_(key_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P256);
        _cleanup_(certificate_freep) X509 *twin = root_make(key, "CN=Plant 7 CA, O=Example"), *leaf = NULL;
        struct x509_signer forger = { key, site->signer.certificate };
        struct problem problem = { 0 };

        leaf = x509_device_make(&forger, NULL, site->leaf_key, "sensor-1", NULL, &usual, NULL, &problem);
        assert_int_equal(
                verify(stack(leaf, twin, NULL), stack(site->signer.certificate, NULL, NULL), NULL, NULL, &problem),
                -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "signature"));
}

static void only_a_client_s_leaf_is_taken(void **state) {
        struct site *site = *state;
        X509 *root = site->signer.certificate;
        _cleanup_(certificate_freep) X509 *server =
                x509_server_make(&site->signer, site->leaf_key, "gw", &usual, NULL, &site->problem);
        struct problem problem = { 0 };

        assert_int_equal(verify(stack(server, NULL, NULL), stack(root, NULL, NULL), NULL, NULL, &problem),
                         -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "clientAuth"));
        assert_int_equal(verify(stack(root, NULL, NULL), stack(root, NULL, NULL), NULL, NULL, &problem), -EKEYREJECTED);
        assert_non_null(strstr(problem.detail, "a CA's"));
}

static void the_clock_is_never_looked_at(void **state) {
        const struct x509_validity past = { 1000, 2000 }, future = { 32503680000, NOT_AFTER_NEVER };
        struct site *site = *state;
        _cleanup_(certificate_freep) X509 *old =
                x509_device_make(&site->signer, NULL, site->leaf_key, "d", NULL, &past, NULL, NULL);
        _cleanup_(certificate_freep) X509 *coming =
                x509_device_make(&site->signer, NULL, site->leaf_key, "d", NULL, &future, NULL, NULL);
        struct problem problem = { 0 };

        assert_int_equal(
                verify(stack(old, NULL, NULL), stack(site->signer.certificate, NULL, NULL), NULL, NULL, &problem), 0);
        assert_int_equal(
                verify(stack(coming, NULL, NULL), stack(site->signer.certificate, NULL, NULL), NULL, NULL, &problem),
                0);
}

static void an_idevid_without_extended_key_usage_is_taken(void **state) {
        _cleanup_(buffer_free) struct buffer der = {};
        _cleanup_(certificates_freep) STACK_OF(X509) *certificates = NULL;
        struct certificate row;
        char id[DEVICE_ID_MAX + 1];

        (void)state;
        file_read("tests/vectors/rfc9148-a2-sen-resp.p7.der", &der);
        certificates = x509_pkcs7_read(buffer_bytes(&der));
        assert_int_equal(sk_X509_num(certificates), 1);
        assert_int_equal(x509_describe(sk_X509_value(certificates, 0), &row), 0);
        assert_true(row.not_after == NOT_AFTER_NEVER);
        assert_int_equal(row.revoked, REVOKED_NOT);
        assert_int_equal(x509_device_id(sk_X509_value(certificates, 0), IDEVID_SERIAL_NUMBER, id), 0);
        assert_string_equal(id, "Wt1234");
}

/* ---- messages, CRLs, requests ---- */

static void certs_only_messages_of_rfc_9148_are_read_and_written(void **state) {
        static const char *const files[] = { "tests/vectors/rfc9148-a1-crts.p7.der",
                                             "tests/vectors/rfc9148-a2-sen-resp.p7.der" };

        (void)state;
        for (size_t i = 0; i < ELEMENTS(files); i++) {
                _cleanup_(buffer_free) struct buffer der = {}, again = {};
                _cleanup_(certificates_freep) STACK_OF(X509) *certificates = NULL;

                file_read(files[i], &der);
                certificates = x509_pkcs7_read(buffer_bytes(&der));
                assert_non_null(certificates);
                assert_int_equal(x509_pkcs7_write(certificates, &again), 0);
                /* The published ones end with an empty set of CRLs, which is optional and not written here; so
                 * five lengths and the set differ, and nothing else. */
                assert_int_equal(again.size + 2, der.size);
                assert_memory_equal(again.data + 49, der.data + 49, again.size - 49 - 2);
                for (size_t size = 0; size < der.size; size++)
                        assert_null(x509_pkcs7_read(BYTES(der.data, size)));
                buffer_append(&der, BYTES("", 1));
                assert_null(x509_pkcs7_read(buffer_bytes(&der)));
        }
}

static void a_crl_names_what_was_revoked_and_why(void **state) {
        struct site *site = *state;
        struct x509_crl *crl = x509_crl_new(&site->signer, 7, NOW, NOW + 86400);
        _cleanup_(certificate_freep) X509 *leaf = device_make(site, "sensor-1"), *other = device_make(site, "sensor-2");
        _cleanup_(buffer_free) struct buffer der = {};
        struct certificate row = { 0 };
        X509_REVOKED *entry = NULL;
        X509_CRL *read;
        const uint8_t *at;
        ASN1_INTEGER *number;

        assert_int_equal(x509_describe(leaf, &row), 0);
        row.revoked = REVOKED_KEY_COMPROMISE;
        row.revoked_at.wall = NOW + 1;
        assert_int_equal(x509_crl_add(crl, &row), 0);
        assert_int_equal(x509_crl_finish(crl, &der, NULL), 0);
        at = der.data;
        read = d2i_X509_CRL(NULL, &at, (long)der.size);
        assert_int_equal(X509_CRL_verify(read, site->key), 1);
        assert_int_equal(X509_CRL_get_version(read), X509_CRL_VERSION_2);
        number = X509_CRL_get_ext_d2i(read, NID_crl_number, NULL, NULL);
        assert_int_equal(ASN1_INTEGER_get(number), 7);
        assert_int_equal(X509_CRL_get0_by_cert(read, &entry, leaf), 1);
        assert_int_equal(X509_CRL_get0_by_cert(read, &entry, other), 0);
        ASN1_INTEGER_free(number);
        X509_CRL_free(read);
}

static void a_row_without_a_serial_spoils_the_crl(void **state) {
        struct site *site = *state;
        struct x509_crl *crl = x509_crl_new(&site->signer, 1, NOW, NOW + 1);
        _cleanup_(buffer_free) struct buffer der = {};
        struct certificate row = { 0 };
        struct problem problem = { 0 };

        assert_int_equal(x509_crl_add(crl, &row), -EIO);
        assert_int_equal(x509_crl_finish(crl, &der, &problem), -EIO);
        assert_int_equal(der.size, 0);
        assert_int_equal(problem.code, CODE_INTERNAL);
}

static void a_sub_ca_s_request_asks_for_a_ca_of_path_length_0(void **state) {
        struct site *site = *state;
        _cleanup_(buffer_free) struct buffer der = {};
        const uint8_t *at;
        X509_REQ *request;
        STACK_OF(X509_EXTENSION) * list;
        BASIC_CONSTRAINTS *constraints;

        assert_int_equal(x509_request_make(site->key, "CN=Edge", &der, NULL), 0);
        at = der.data;
        request = d2i_X509_REQ(NULL, &at, (long)der.size);
        assert_int_equal(X509_REQ_verify(request, site->key), 1);
        list = X509_REQ_get_extensions(request);
        constraints = X509V3_get_d2i(list, NID_basic_constraints, NULL, NULL);
        assert_true(constraints->ca && ASN1_INTEGER_get(constraints->pathlen) == 0);
        assert_int_equal(X509v3_get_ext_by_NID(list, NID_name_constraints, -1), -1);
        BASIC_CONSTRAINTS_free(constraints);
        sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
        X509_REQ_free(request);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_root_may_certify_its_successor_and_no_more),
                cmocka_unit_test(a_cross_certificate_has_the_successor_s_name_and_key),
                cmocka_unit_test(an_ldevid_is_a_client_and_no_ca),
                cmocka_unit_test(nothing_of_a_csr_is_copied_but_the_device_s_names),
                cmocka_unit_test(a_renewed_certificate_keeps_its_names),
                cmocka_unit_test(the_server_s_leaf_is_a_server_and_a_registrar),
                cmocka_unit_test(serials_are_sixteen_positive_random_bytes),
                cmocka_unit_test(times_are_utctime_through_2049_and_generalized_after),
                cmocka_unit_test(names_are_parsed_as_people_write_them),
                cmocka_unit_test(a_certificate_cut_anywhere_or_followed_by_anything_is_none),
                cmocka_unit_test(a_chain_has_one_to_eight_certificates),
                cmocka_unit_test(a_leaf_leads_to_the_anchor_that_issued_it),
                cmocka_unit_test(a_path_may_go_over_an_intermediate_or_end_in_it),
                cmocka_unit_test(path_length_is_honoured),
                cmocka_unit_test(a_forged_signature_is_refused),
                cmocka_unit_test(only_a_client_s_leaf_is_taken),
                cmocka_unit_test(the_clock_is_never_looked_at),
                cmocka_unit_test(an_idevid_without_extended_key_usage_is_taken),
                cmocka_unit_test(certs_only_messages_of_rfc_9148_are_read_and_written),
                cmocka_unit_test(a_crl_names_what_was_revoked_and_why),
                cmocka_unit_test(a_row_without_a_serial_spoils_the_crl),
                cmocka_unit_test(a_sub_ca_s_request_asks_for_a_ca_of_path_length_0),
        };

        return cmocka_run_group_tests(tests, make_site, free_site);
}

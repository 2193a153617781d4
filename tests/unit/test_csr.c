/* SPDX-License-Identifier: Apache-2.0 */

/* CSR intake: what is taken, what is refused and with which words, and whose names a CSR may carry. That other
 * implementations' CSRs are read is tests/system/test_x509_formats.py's to show. */

#include "tests/unit/x509_support.h"

static const struct profile usual = {
        .key_types = 1u << DEVICE_KEY_P256 | 1u << DEVICE_KEY_P384 | 1u << DEVICE_KEY_ED25519,
        .rsa_bits = 2048,
};
static const struct profile with_rsa = {
        .key_types = 1u << DEVICE_KEY_P256 | 1u << DEVICE_KEY_RSA,
        .rsa_bits = 2048,
};

/* Keys made once: RSA's are slow. */
struct keys {
        EVP_PKEY *p256, *p384, *p521, *k256, *ed25519, *rsa, *rsa_short, *rsa_weak;
};

static EVP_PKEY *rsa_of(unsigned bits, unsigned exponent) {
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
        BIGNUM *e = BN_new();
        EVP_PKEY *key = NULL;

        assert_int_equal(BN_set_word(e, exponent), 1);
        assert_int_equal(EVP_PKEY_keygen_init(context), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, (int)bits), 1);
        assert_int_equal(EVP_PKEY_CTX_set1_rsa_keygen_pubexp(context, e), 1);
        assert_int_equal(EVP_PKEY_generate(context, &key), 1);
        EVP_PKEY_CTX_free(context);
        BN_free(e);
        return key;
}

static int make_keys(void **state) {
        struct keys *keys = xcalloc(1, sizeof *keys);

        keys->p256 = EVP_EC_gen("P-256");
        keys->p384 = EVP_EC_gen("P-384");
        keys->p521 = EVP_EC_gen("P-521");
        keys->k256 = EVP_EC_gen("secp256k1");
        keys->ed25519 = x509_key_new(X509_KEY_ED25519);
        keys->rsa = rsa_of(2048, 65537);
        keys->rsa_short = rsa_of(1024, 65537);
        keys->rsa_weak = rsa_of(2048, 3);
        *state = keys;
        return 0;
}

static int free_keys(void **state) {
        EVP_PKEY **key = *state;

        for (size_t i = 0; i < sizeof(struct keys) / sizeof *key; i++)
                EVP_PKEY_free(key[i]);
        free(*state);
        return 0;
}

static struct csr_plan plan_of(struct keys *keys) {
        return (struct csr_plan){
                .key = keys->p256, .algorithm = ECDSA_SHA256, .digest = "SHA256", .subject = "CN=sensor-1"
        };
}

static void assert_taken(struct bytes der, const struct profile *profile, bool is_keygen, struct csr *csr) {
        struct problem problem = { 0 };

        if (csr_read(der, profile, is_keygen, csr, &problem) < 0)
                fail_msg("refused: %s", problem.detail);
}

static void assert_refused(struct bytes der, const struct profile *profile, bool is_keygen, const char *why) {
        struct problem problem = { 0 };
        struct csr csr;
        int r = csr_read(der, profile, is_keygen, &csr, &problem);

        assert_true(r == -EINVAL || r == -EBADMSG || r == -EKEYREJECTED);
        assert_int_equal(problem.code, CODE_BAD_REQUEST);
        assert_null(csr.request);
        assert_null(csr.key);
        if (!strstr(problem.detail, why))
                fail_msg("\"%s\" does not say \"%s\"", problem.detail, why);
        assert_int_equal(ERR_peek_error(), 0);
}

static void assert_plan_taken(const struct csr_plan *plan, const struct profile *profile) {
        _cleanup_(buffer_free) struct buffer der = {};
        struct csr csr;

        csr_make(plan, &der);
        assert_taken(buffer_bytes(&der), profile, false, &csr);
        csr_free(&csr);
}

static void assert_plan_refused(const struct csr_plan *plan, const struct profile *profile, const char *why) {
        _cleanup_(buffer_free) struct buffer der = {};

        csr_make(plan, &der);
        assert_refused(buffer_bytes(&der), profile, false, why);
}

/* ---- keys ---- */

static void keys_of_every_kind_that_a_profile_names_are_taken(void **state) {
        struct keys *keys = *state;
        struct csr_plan plan = plan_of(keys);

        assert_plan_taken(&plan, &usual);
        plan.key = keys->p384;
        assert_plan_taken(&plan, &usual);
        plan.algorithm = ECDSA_SHA384;
        plan.digest = "SHA384";
        assert_plan_taken(&plan, &usual);
        plan = (struct csr_plan){ .key = keys->ed25519, .algorithm = ED25519 };
        assert_plan_taken(&plan, &usual);
        plan = (struct csr_plan){ .key = keys->rsa, .algorithm = RSA_SHA256, .digest = "SHA256" };
        assert_plan_taken(&plan, &with_rsa);
}

static void keys_of_other_kinds_are_refused_by_name(void **state) {
        struct keys *keys = *state;
        struct csr_plan plan = plan_of(keys);

        plan.key = keys->p521;
        assert_plan_refused(&plan, &usual, "the key is secp521r1; this profile takes P-256, P-384, Ed25519");
        plan.key = keys->k256;
        assert_plan_refused(&plan, &usual, "the key is secp256k1");
        plan.key = keys->p384;
        assert_plan_refused(&plan, &with_rsa, "the key is P-384; this profile takes P-256, RSA");
        plan = (struct csr_plan){ .key = keys->rsa, .algorithm = RSA_SHA256, .digest = "SHA256" };
        assert_plan_refused(&plan, &usual, "the key is RSA; this profile takes P-256, P-384, Ed25519");
}

static void weak_rsa_keys_are_refused(void **state) {
        struct keys *keys = *state;
        struct csr_plan plan = { .key = keys->rsa_short, .algorithm = RSA_SHA256, .digest = "SHA256" };

        assert_plan_refused(&plan, &with_rsa, "the RSA key has 1024 bits; this profile takes 2048 to");
        plan.key = keys->rsa_weak;
        assert_plan_refused(&plan, &with_rsa, "exponent");
}

/* SubjectPublicKeyInfo of id-ecPublicKey with these parameters and this point. */
static void put_ec_key(struct bytes parameters, struct bytes point, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer bits = {};

        buffer_free(to);
        buffer_append(to, hex("06072a8648ce3d0201"));
        buffer_append(to, parameters);
        der_wrap(to, 0x30);
        buffer_append(&bits, BYTES("", 1));
        buffer_append(&bits, point);
        der_put(to, 0x03, buffer_bytes(&bits));
        der_wrap(to, 0x30);
}

#define PRIME256V1 "06082a8648ce3d030107"

static void explicit_curve_parameters_are_refused(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(key_freep) EVP_PKEY *key = EVP_EC_gen("P-256");
        _cleanup_(buffer_free) struct buffer spki = {};
        uint8_t der[600];

        assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "encoding", "explicit"), 1);
        plan.key = key;
        plan.spki = BYTES(der, key_public_der(key, der, sizeof der));
        assert_true(plan.spki.size > 200); /* they are in it */
        assert_plan_refused(&plan, &usual, "explicit elliptic curve parameters");
        /* Not for a key that is not used either: RFC 5480 knows no such key. */
        _cleanup_(buffer_free) struct buffer request = {};
        csr_make(&plan, &request);
        assert_refused(buffer_bytes(&request), &usual, true, "explicit");
        put_ec_key(hex("0500"), hex("04"), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "the elliptic curve is not named");
}

static void points_that_are_compressed_or_none_are_refused(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(buffer_free) struct buffer spki = {};
        uint8_t der[200], point[65];
        size_t size = key_public_der(plan.key, der, sizeof der);

        memcpy(point, der + size - 65, 65);
        put_ec_key(hex(PRIME256V1), BYTES(point, 65), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_taken(&plan, &usual);

        point[64] ^= 1; /* beside the curve */
        put_ec_key(hex(PRIME256V1), BYTES(point, 65), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "not a point on its curve");
        point[64] ^= 1;
        put_ec_key(hex(PRIME256V1), BYTES(point, 64), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "wrong length");
        put_ec_key(hex(PRIME256V1), BYTES("", 1), &spki); /* the point at infinity */
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "wrong length");
        point[0] = 6; /* hybrid */
        put_ec_key(hex(PRIME256V1), BYTES(point, 65), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "not uncompressed");
        point[0] = point[64] & 1 ? 3 : 2;
        put_ec_key(hex(PRIME256V1), BYTES(point, 33), &spki);
        plan.spki = buffer_bytes(&spki);
        assert_plan_refused(&plan, &usual, "compressed");
}

/* ---- signatures ---- */

static void signatures_with_md5_or_sha_1_are_refused(void **state) {
        struct keys *keys = *state;
        struct csr_plan plan = plan_of(keys);

        plan.algorithm = ECDSA_SHA1;
        plan.digest = "SHA1";
        assert_plan_refused(&plan, &usual, "ecdsa-with-SHA1 is not taken");
        plan = (struct csr_plan){ .key = keys->rsa, .algorithm = RSA_SHA1, .digest = "SHA1" };
        assert_plan_refused(&plan, &with_rsa, "RSA-SHA1 is not taken");
        plan.algorithm = RSA_MD5;
        plan.digest = "MD5";
        assert_plan_refused(&plan, &with_rsa, "RSA-MD5 is not taken");
}

static void a_csr_that_another_key_signed_proves_nothing(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(key_freep) EVP_PKEY *other = EVP_EC_gen("P-256");
        _cleanup_(buffer_free) struct buffer der = {};
        uint8_t spki[200];
        struct csr csr;

        plan.spki = BYTES(spki, key_public_der(other, spki, sizeof spki));
        csr_make(&plan, &der);
        assert_refused(buffer_bytes(&der), &usual, false, "the signature does not verify");
        /* Where the key is made here, nobody asks (RFC 9148 §4.8). */
        assert_taken(buffer_bytes(&der), &usual, true, &csr);
        assert_non_null(csr.key);
        csr_free(&csr);
}

static void with_keygen_a_key_that_cannot_be_used_is_no_reason_to_refuse(void **state) {
        struct keys *keys = *state;
        struct csr_plan plan = plan_of(keys);
        _cleanup_(buffer_free) struct buffer der = {}, spki = {};
        struct csr csr;

        plan.key = keys->p521;
        csr_make(&plan, &der);
        assert_taken(buffer_bytes(&der), &usual, true, &csr);
        assert_null(csr.key);
        csr_free(&csr);

        plan = plan_of(keys);
        put_ec_key(hex(PRIME256V1), (struct bytes){}, &spki);
        plan.spki = buffer_bytes(&spki);
        csr_make(&plan, &der);
        assert_taken(buffer_bytes(&der), &usual, true, &csr);
        assert_null(csr.key);
        csr_free(&csr);
}

static void any_changed_bit_is_refused(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(buffer_free) struct buffer der = {};
        struct csr csr;

        csr_make(&plan, &der);
        for (size_t bit = 0; bit < der.size * 8; bit++) {
                struct problem problem = { 0 };

                der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                assert_true(csr_read(buffer_bytes(&der), &usual, false, &csr, &problem) < 0);
                assert_int_equal(problem.code, CODE_BAD_REQUEST);
                der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_taken(buffer_bytes(&der), &usual, false, &csr);
        csr_free(&csr);
}

/* ---- shape ---- */

static void a_csr_cut_at_any_offset_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer der = {};
        struct csr_plan plan = plan_of(*state);

        csr_make(&plan, &der);
        assert_refused((struct bytes){}, &usual, false, "the body is empty");
        for (size_t size = 1; size < der.size; size++) {
                uint8_t *copy = xcalloc(1, size); /* so that a sanitizer sees a read past it */

                memcpy(copy, der.data, size);
                assert_refused(BYTES(copy, size), &usual, false, "not one whole DER structure");
                assert_refused(BYTES(copy, size), &usual, true, "not one whole DER structure");
                free(copy);
        }
        buffer_append(&der, BYTES("", 1));
        assert_refused(buffer_bytes(&der), &usual, false, "not one whole DER structure");
}

static void other_versions_and_other_structures_are_refused(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(buffer_free) struct buffer der = {};
        X509 *root = root_make(plan.key, "CN=x");

        plan.version = 1;
        assert_plan_refused(&plan, &usual, "version");
        assert_int_equal(x509_write(root, &der), 0);
        assert_refused(buffer_bytes(&der), &usual, false, "PKCS#10");
        assert_refused(TEXT("-----BEGIN CERTIFICATE REQUEST-----"), &usual, false, "DER");
        assert_refused(hex("3000"), &usual, false, "PKCS#10");
        assert_refused(hex("30800000"), &usual, false, "DER"); /* indefinite: BER */
        assert_refused(hex("30810500"), &usual, false, "DER"); /* not the shortest length */
        X509_free(root);
}

static void nesting_without_end_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer der = {};

        (void)state;
        for (int i = 0; i < 1000; i++)
                der_wrap(&der, 0x30);
        assert_refused(buffer_bytes(&der), &usual, false, "DER");
}

static void put_extensions(unsigned count, struct buffer *attributes) {
        _cleanup_(buffer_free) struct buffer extensions = {};

        for (unsigned i = 0; i < count; i++) {
                char oid[32];

                snprintf(oid, sizeof oid, "06042a03%02x%02x", i / 128 | 0x80, i % 128);
                csr_put_extension(oid, TEXT("x"), &extensions);
        }
        der_wrap(&extensions, 0x30);
        csr_put_attribute(OID_EXTENSIONS, buffer_bytes(&extensions), attributes);
}

static void too_many_extensions_are_refused_before_they_are_read(void **state) {
        static const struct {
                unsigned count;
                const char *why;
        } cases[] = {
                { 33, "33 extensions are requested; at most 32 are taken" },
                { 500, "500 extensions are requested; at most 32 are taken" },
                { 10000, "bytes; at most 8192 are taken" },
        };
        struct csr_plan plan = plan_of(*state);

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                _cleanup_(buffer_free) struct buffer attributes = {};

                put_extensions(cases[i].count, &attributes);
                plan.attributes = buffer_bytes(&attributes);
                assert_plan_refused(&plan, &usual, cases[i].why);
        }
        _cleanup_(buffer_free) struct buffer attributes = {};
        put_extensions(32, &attributes);
        plan.attributes = buffer_bytes(&attributes);
        assert_plan_taken(&plan, &usual);
}

static void what_stands_twice_is_refused(void **state) {
        struct csr_plan plan = plan_of(*state);
        _cleanup_(buffer_free) struct buffer attributes = {}, extensions = {};

        csr_put_attribute(OID_CHALLENGE, hex("0c0161"), &attributes);
        csr_put_attribute(OID_CHALLENGE, hex("0c0162"), &attributes);
        plan.attributes = buffer_bytes(&attributes);
        assert_plan_refused(&plan, &usual, "an attribute stands twice");

        buffer_free(&attributes);
        csr_put_attribute(OID_CHALLENGE, hex("0c01610c0162"), &attributes);
        plan.attributes = buffer_bytes(&attributes);
        assert_plan_refused(&plan, &usual, "must have one value");

        buffer_free(&attributes);
        csr_put_extension("0603551d0f", hex("03020780"), &extensions);
        csr_put_extension("0603551d0f", hex("03020780"), &extensions);
        der_wrap(&extensions, 0x30);
        csr_put_attribute(OID_EXTENSIONS, buffer_bytes(&extensions), &attributes);
        plan.attributes = buffer_bytes(&attributes);
        assert_plan_refused(&plan, &usual, "an extension is requested twice");
}

static void a_subject_alt_name_that_is_none_is_refused(void **state) {
        static const char *const values[] = { "0500", "3003820161ff", "30028201", "3000ff" };
        struct csr_plan plan = plan_of(*state);

        for (size_t i = 0; i < ELEMENTS(values); i++) {
                _cleanup_(buffer_free) struct buffer attributes = {}, extensions = {};

                csr_put_extension("0603551d11", hex(values[i]), &extensions);
                der_wrap(&extensions, 0x30);
                csr_put_attribute(OID_EXTENSIONS, buffer_bytes(&extensions), &attributes);
                plan.attributes = buffer_bytes(&attributes);
                assert_plan_refused(&plan, &usual, "subjectAltName");
        }
}

/* ---- attributes ---- */

static void read_with_challenge(struct keys *keys, const char *value, struct csr *csr, struct buffer *der) {
        struct csr_plan plan = plan_of(keys);
        _cleanup_(buffer_free) struct buffer attributes = {};

        csr_put_attribute(OID_CHALLENGE, hex(value), &attributes);
        plan.attributes = buffer_bytes(&attributes);
        csr_make(&plan, der);
        assert_taken(buffer_bytes(der), &usual, false, csr);
}

static void tls_unique_is_read_from_every_kind_of_string(void **state) {
        /* "AAECAwQFBgcICQoL": twelve bytes, 0 to 11 */
        static const char *const kinds[] = { "0c10", "1310", "1410" };
        _cleanup_(buffer_free) struct buffer der = {};
        char value[64];
        struct csr csr;

        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                snprintf(value, sizeof value, "%s%s", kinds[i],
                         "4141454341775146426763494351"
                         "6f4c");
                read_with_challenge(*state, value, &csr, &der);
                assert_true(csr.has_challenge);
                assert_true(bytes_equal(csr.tls_unique, hex("000102030405060708090a0b")));
                csr_free(&csr);
        }
}

static void a_challenge_that_is_no_base64_is_a_challenge_without_tls_unique(void **state) {
        static const char *const values[] = { "0c03616263", "0c053d3d3d3d3d", "160441414141", "0c00" };
        _cleanup_(buffer_free) struct buffer der = {};
        struct csr csr;

        for (size_t i = 0; i < ELEMENTS(values); i++) {
                read_with_challenge(*state, values[i], &csr, &der);
                assert_true(csr.has_challenge);
                assert_int_equal(csr.tls_unique.size, 0);
                csr_free(&csr);
        }
}

static void a_decrypt_key_identifier_asks_for_a_protected_key(void **state) {
        static const char *const oids[] = { "060b2a864886f70d0109100225", "060b2a864886f70d0109100236" };
        struct csr_plan plan = plan_of(*state);
        _cleanup_(buffer_free) struct buffer der = {};
        struct csr csr;

        for (size_t i = 0; i < ELEMENTS(oids); i++) {
                _cleanup_(buffer_free) struct buffer attributes = {};

                csr_put_attribute("06092a864886f70d01090f", hex("3000"), &attributes); /* SMIMECapabilities */
                csr_put_attribute(oids[i], hex("0401aa"), &attributes);
                plan.attributes = buffer_bytes(&attributes);
                csr_make(&plan, &der);
                assert_taken(buffer_bytes(&der), &usual, true, &csr);
                assert_true(csr.wants_protected_key);
                csr_free(&csr);
        }
        plan.attributes = (struct bytes){};
        csr_make(&plan, &der);
        assert_taken(buffer_bytes(&der), &usual, true, &csr);
        assert_false(csr.wants_protected_key);
        csr_free(&csr);
}

/* ---- names ---- */

static void assert_names(struct keys *keys, const char *subject, struct bytes names, X509 *before, bool is_first,
                         const char *why) {
        struct csr_plan plan = plan_of(keys);
        _cleanup_(buffer_free) struct buffer der = {}, attributes = {};
        struct problem problem = { 0 };
        struct csr csr;
        int r;

        plan.subject = subject;
        if (names.size > 0)
                csr_put_names(names, &attributes);
        plan.attributes = buffer_bytes(&attributes);
        csr_make(&plan, &der);
        assert_taken(buffer_bytes(&der), &usual, false, &csr);
        r = is_first ? csr_check_first_names(&csr, "sensor-1", before, &problem)
                     : csr_check_names(&csr, "sensor-1", before, &problem);
        csr_free(&csr);
        if (!why) {
                if (r != 0)
                        fail_msg("refused: %s", problem.detail);
                return;
        }
        assert_int_equal(r, -EACCES);
        assert_int_equal(problem.code, CODE_FORBIDDEN);
        if (!strstr(problem.detail, why))
                fail_msg("\"%s\" does not say \"%s\"", problem.detail, why);
}

static void the_device_s_own_names_are_allowed(void **state) {
        static const char *const subjects[] = {
                NULL,        "CN=sensor-1", "serialNumber=sensor-1", "O=Example,serialNumber=sensor-1,CN=Temperature",
                "O=Example",
        };

        for (size_t i = 0; i < ELEMENTS(subjects); i++) {
                assert_names(*state, subjects[i], (struct bytes){}, NULL, false, NULL);
                assert_names(*state, subjects[i], TEXT("\x82\x08sensor-1"), NULL, false, NULL);
        }
        assert_names(*state, NULL, TEXT("\x81\x08sensor-1\x86\x08sensor-1"), NULL, false, NULL);
        assert_names(*state, NULL, TEXT("\x86\x14urn:dev:ops:sensor-1"), NULL, false, NULL);
}

static void names_of_others_are_refused_and_named(void **state) {
        assert_names(*state, "CN=sensor-2", (struct bytes){}, NULL, false,
                     "the subject's commonName is \"sensor-2\", this device is \"sensor-1\"");
        assert_names(*state, "CN=sensor-1,serialNumber=sensor-2", (struct bytes){}, NULL, false,
                     "the subject's serialNumber is \"sensor-2\"");
        assert_names(*state, "serialNumber=sensor-1,serialNumber=sensor-2", (struct bytes){}, NULL, false,
                     "serialNumber");
        assert_names(*state, "CN=Sensor-1", (struct bytes){}, NULL, false, "commonName");
        assert_names(*state, NULL, TEXT("\x82\x08sensor-2"), NULL, false, "DNS:sensor-2");
        assert_names(*state, NULL, TEXT("\x82\x08sensor-1\x82\x0bplant-admin"), NULL, false, "DNS:plant-admin");
        assert_names(*state, NULL, TEXT("\x82\x0asensor-1\0x"), NULL, false, "subjectAltName");
        assert_names(*state, NULL, TEXT("\x86\x16urn:dev:ops:x-sensor-1"), NULL, false, "URI");
        assert_names(*state, NULL, TEXT("\x86\x0curn:sensor-1"), NULL, false, "URI");
        assert_names(*state, NULL, TEXT("\x87\x04\x0a\0\0\1"), NULL, false, "IP");
        /* hardwareModuleName without an IDevID that has it */
        assert_names(*state, NULL,
                     hex("a01006082b06010505070804a0043002"
                         "0500"),
                     NULL, false, "othername");
}

/* A factory's certificate with an organisation and a hardwareModuleName. */
static X509 *idevid_make(EVP_PKEY *key) {
        X509 *idevid = root_make(key, "O=Factory,serialNumber=F-0815");
        GENERAL_NAMES *names = GENERAL_NAMES_new();
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_TYPE *value = ASN1_TYPE_new();
        ASN1_STRING *serial = ASN1_STRING_type_new(V_ASN1_SEQUENCE);
        const struct bytes module = hex("301106092b06010401b43b0a010404f0e1d2c3");

        assert_int_equal(ASN1_STRING_set(serial, module.data, (int)module.size), 1);
        ASN1_TYPE_set(value, V_ASN1_SEQUENCE, serial);
        assert_int_equal(GENERAL_NAME_set0_othername(name, OBJ_txt2obj("1.3.6.1.5.5.7.8.4", 1), value), 1);
        sk_GENERAL_NAME_push(names, name);
        assert_int_equal(X509_add1_ext_i2d(idevid, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT), 1);
        assert_true(X509_sign(idevid, key, EVP_sha256()) > 0);
        GENERAL_NAMES_free(names);
        return idevid;
}

#define HARDWARE_MODULE "a01f06082b06010505070804a013301106092b06010401b43b0a010404f0e1d2c3"

static void a_first_csr_may_repeat_what_the_factory_wrote(void **state) {
        struct keys *keys = *state;
        _cleanup_(certificate_freep) X509 *idevid = idevid_make(keys->p384);

        assert_names(keys, "O=Factory,serialNumber=F-0815", hex(HARDWARE_MODULE), idevid, true, NULL);
        assert_names(keys, "CN=sensor-1", hex(HARDWARE_MODULE), idevid, true, NULL);
        assert_names(keys, "serialNumber=F-0816", (struct bytes){}, idevid, true, "F-0816");
        assert_names(keys, NULL, hex("a01f06082b06010505070804a013301106092b06010401b43b0a010404f0e1d2c4"), idevid,
                     true, "subjectAltName");
        assert_names(keys, NULL, hex(HARDWARE_MODULE), NULL, true, "subjectAltName");
        assert_names(keys, "CN=sensor-2", (struct bytes){}, NULL, true, "sensor-2");
}

static void a_renewal_keeps_subject_and_names_or_leaves_them_out(void **state) {
        struct keys *keys = *state;
        _cleanup_(certificate_freep) X509 *before = idevid_make(keys->p384);

        assert_names(keys, "O=Factory,serialNumber=F-0815", hex(HARDWARE_MODULE), before, false, NULL);
        assert_names(keys, "O=FACTORY,serialNumber=f-0815", (struct bytes){}, before, false, NULL); /* X509_NAME_cmp */
        assert_names(keys, NULL, (struct bytes){}, before, false, NULL);
        assert_names(keys, "serialNumber=F-0815", (struct bytes){}, before, false, "the subject is not that");
        assert_names(keys, "CN=sensor-1", (struct bytes){}, before, false, "the subject is not that");
        assert_names(keys, NULL, TEXT("\x82\x08sensor-1"), before, false, "the subjectAltName is not that");
}

/* ---- published vectors ---- */

static void the_csrs_of_rfc_9148_are_read(void **state) {
        _cleanup_(buffer_free) struct buffer sen = {}, skg = {};
        struct problem problem = { 0 };
        struct csr csr;

        (void)state;
        file_read("tests/vectors/rfc9148-a2-sen-req.csr.der", &sen);
        file_read("tests/vectors/rfc9148-a3-skg-req.csr.der", &skg);
        assert_taken(buffer_bytes(&sen), &usual, false, &csr);
        assert_true(csr.has_challenge); /* but no base64: the appendix has text of its own there */
        assert_int_equal(csr.tls_unique.size, 0);
        assert_int_equal(csr_check_names(&csr, "Wt1234", NULL, &problem), -EACCES);
        assert_non_null(strstr(problem.detail, "subjectAltName"));
        csr_free(&csr);

        assert_taken(buffer_bytes(&skg), &usual, true, &csr);
        assert_false(csr.wants_protected_key);
        assert_int_equal(csr_check_names(&csr, "sensor-1", NULL, &problem), 0);
        csr_free(&csr);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_of_every_kind_that_a_profile_names_are_taken),
                cmocka_unit_test(keys_of_other_kinds_are_refused_by_name),
                cmocka_unit_test(weak_rsa_keys_are_refused),
                cmocka_unit_test(explicit_curve_parameters_are_refused),
                cmocka_unit_test(points_that_are_compressed_or_none_are_refused),
                cmocka_unit_test(signatures_with_md5_or_sha_1_are_refused),
                cmocka_unit_test(a_csr_that_another_key_signed_proves_nothing),
                cmocka_unit_test(with_keygen_a_key_that_cannot_be_used_is_no_reason_to_refuse),
                cmocka_unit_test(any_changed_bit_is_refused),
                cmocka_unit_test(a_csr_cut_at_any_offset_is_refused),
                cmocka_unit_test(other_versions_and_other_structures_are_refused),
                cmocka_unit_test(nesting_without_end_is_refused),
                cmocka_unit_test(too_many_extensions_are_refused_before_they_are_read),
                cmocka_unit_test(what_stands_twice_is_refused),
                cmocka_unit_test(a_subject_alt_name_that_is_none_is_refused),
                cmocka_unit_test(tls_unique_is_read_from_every_kind_of_string),
                cmocka_unit_test(a_challenge_that_is_no_base64_is_a_challenge_without_tls_unique),
                cmocka_unit_test(a_decrypt_key_identifier_asks_for_a_protected_key),
                cmocka_unit_test(the_device_s_own_names_are_allowed),
                cmocka_unit_test(names_of_others_are_refused_and_named),
                cmocka_unit_test(a_first_csr_may_repeat_what_the_factory_wrote),
                cmocka_unit_test(a_renewal_keeps_subject_and_names_or_leaves_them_out),
                cmocka_unit_test(the_csrs_of_rfc_9148_are_read),
        };

        return cmocka_run_group_tests(tests, make_keys, free_keys);
}

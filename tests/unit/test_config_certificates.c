/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration of certificates: profiles that enrol, manufacturers' anchors out of files and out of a
 * snapshot, the issuing CA, the registrar. The general rules are test_config.c's. */

#include "tests/unit/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include "config/config.h"
#include "config/load_text.h"

#define DAY  INT64_C(86400)
#define YEAR INT64_C(31557600)

struct load {
        struct config *config;
        struct config_problems problems;
        int result;
};

static void load_end(struct load *load) {
        config_free(load->config);
        config_problems_free(&load->problems);
}

static struct load load_text(const char *text) {
        struct load load = { 0 };

        load.result = config_load_text("f", bytes_of(text), &load.config, &load.problems);
        return load;
}

static bool says(const struct load *load, const char *part) {
        for (size_t i = 0; i < load->problems.count; i++)
                if (strstr(load->problems.lines[i], part))
                        return true;
        return false;
}

static void show(const struct load *load) {
        for (size_t i = 0; i < load->problems.count; i++)
                print_message("  %s\n", load->problems.lines[i]);
}

static void assert_refused(const char *text, const char *words) {
        _cleanup_(load_end) struct load load = load_text(text);

        if (load.result != -EINVAL || load.config || !says(&load, words)) {
                show(&load);
                fail_msg("%s is not refused with \"%s\"", text, words);
        }
}

static void assert_warned(const char *text, const char *words) {
        _cleanup_(load_end) struct load load = load_text(text);

        if (load.result != 0 || !says(&load, words) || !says(&load, "warning: ")) {
                show(&load);
                fail_msg("%s is not taken with the warning \"%s\"", text, words);
        }
}

static void assert_taken(const char *text) {
        _cleanup_(load_end) struct load load = load_text(text);

        if (load.result != 0 || load.problems.count > 0) {
                show(&load);
                fail_msg("%s is not taken without a word", text);
        }
}

#define NORTH                                                                                                          \
        "north = { est_url = \"https://e/.well-known/est\"; client_certificate = \"/dev/null\"; "                      \
        "client_key = \"/dev/null\"; };\n"
#define PSK(s)   "profiles = ( { name = \"p\"; " s " } );"
#define CERTS(s) PSK("credential = \"certificate\"; est_over_psk = true; " s)
#define CA(s)    "ca = { " s " };\n" PSK("")

/* ---- a profile ---- */

static void a_profile_of_certificates_has_sound_defaults(void **state) {
        _cleanup_(load_end) struct load load = load_text(CERTS(""));
        const struct profile *p;

        (void)state;
        show(&load);
        assert_int_equal(load.result, 0);
        assert_int_equal(load.problems.count, 0);
        p = &load.config->profiles[0];
        assert_int_equal(p->credential, PROFILE_CERTIFICATE);
        assert_int_equal(p->validity_sec, 90 * DAY);
        assert_int_equal(p->rotate_every_sec, 5132160); /* 0.66 of it */
        assert_int_equal(p->grace_sec, 7 * DAY);
        assert_int_equal(p->max_age_sec, 3 * p->rotate_every_sec + p->grace_sec);
        assert_int_equal(p->key_types, 1U << DEVICE_KEY_P256 | 1U << DEVICE_KEY_P384 | 1U << DEVICE_KEY_ED25519);
        assert_int_equal(p->rsa_bits, 2048);
        assert_int_equal(p->idevid_identity, IDEVID_SERIAL_NUMBER);
        assert_int_equal(p->idevid_enrolment, ENROLMENT_LISTED);
        assert_int_equal(p->rekey, REKEY_OPTIONAL);
        assert_int_equal(p->tls_unique, TLS_UNIQUE_VERIFY);
        assert_int_equal(p->ca, CA_LOCAL);
        assert_int_equal(p->upstream_offline, OFFLINE_WAIT);
        assert_false(p->server_keygen);
        assert_int_equal(p->anchor_count, 0);
}

static void a_psk_profile_is_what_it_was(void **state) {
        _cleanup_(load_end) struct load load = load_text(PSK(""));

        (void)state;
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->profiles[0].credential, PROFILE_PSK);
        assert_int_equal(load.config->profiles[0].rotate_every_sec, 30 * DAY);
        assert_int_equal(load.config->profiles[0].max_age_sec, 97 * DAY);
}

static void every_key_of_certificates_is_taken(void **state) {
        _cleanup_(load_end) struct load load =
                load_text(NORTH PSK("credential = \"certificate\"; idevid_identity = \"san\"; enrolment = \"listed\";"
                                    "validity = \"10d\"; renew_at = 0.5; max_age = \"60d\"; rekey = \"required\";"
                                    "key_types = [ \"RSA\", \"P-384\" ]; rsa_bits = 3072; server_keygen = true;"
                                    "est_over_psk = true; tls_unique = \"required\"; ca = \"upstream\";"
                                    "upstream_offline = \"local\";"));
        const struct profile *p;

        (void)state;
        show(&load);
        assert_int_equal(load.result, 0);
        p = &load.config->profiles[0];
        assert_int_equal(p->idevid_identity, IDEVID_SAN);
        assert_int_equal(p->validity_sec, 10 * DAY);
        assert_int_equal(p->rotate_every_sec, 5 * DAY);
        assert_int_equal(p->max_age_sec, 60 * DAY);
        assert_int_equal(p->rekey, REKEY_REQUIRED);
        assert_int_equal(p->key_types, 1U << DEVICE_KEY_RSA | 1U << DEVICE_KEY_P384);
        assert_int_equal(p->rsa_bits, 3072);
        assert_true(p->server_keygen);
        assert_true(p->est_over_psk);
        assert_int_equal(p->tls_unique, TLS_UNIQUE_REQUIRED);
        assert_int_equal(p->ca, CA_UPSTREAM);
        assert_int_equal(p->upstream_offline, OFFLINE_LOCAL);
        assert_string_equal(load.config->north.est_url, "https://e/.well-known/est");
}

static void the_schedule_of_certificates_follows_from_their_life(void **state) {
        (void)state;
        assert_refused(CERTS("rotate_every = \"30d\";"), "rotate_every follows from validity x renew_at");
        assert_refused(CERTS("validity = \"90d\"; max_age = \"80d\";"), "must not be less than validity (90d)");
        assert_refused(CERTS("validity = \"400d\";"), "allows at most 180d (table classes)");
        assert_taken(CERTS("validity = \"90d\"; renew_at = 0.1;")); /* max_age follows */
        assert_refused(CERTS("renew_at = 0.05;"), "renew_at is 0.05; allowed is a number, 0.1 to 0.9");
        assert_refused(CERTS("renew_at = 1;"), "0.1 to 0.9");
        assert_refused(CERTS("jitter = 0.6;"), "0.0 to 0.5");
        assert_warned(CERTS("validity = \"1h\";"), "validity x renew_at is");
}

static void what_a_profiles_credential_leaves_unused_is_said(void **state) {
        (void)state;
        assert_warned(PSK("validity = \"3d\";"), "validity is not used while credential is \"psk\"");
        assert_warned(PSK("server_keygen = true;"), "server_keygen is not used while credential is \"psk\"");
        assert_warned(CERTS("psk_bytes = 16;"), "psk_bytes is not used while credential is \"certificate\"");
        assert_warned(CERTS("rsa_bits = 4096;"), "rsa_bits is not used");
        assert_warned(CERTS("idevid_identity = \"san\";"), "idevid_identity is not used without idevid_anchors");
        assert_warned(CERTS("upstream_offline = \"local\";"), "upstream_offline is not used while ca is \"local\"");
}

static void a_profile_that_nobody_could_use_is_refused_or_warned_about(void **state) {
        (void)state;
        assert_warned(PSK("credential = \"certificate\";"), "no device can enrol for its first certificate");
        assert_refused(CERTS("enrolment = \"automatic\";"), "there are no idevid_anchors");
        assert_refused(CERTS("stack = \"tinydtls\";"), "tinydtls knows no X.509 certificates");
        assert_refused(CERTS("ca = \"upstream\";"), "north names no est_url");
        assert_warned(NORTH CERTS("ca = \"upstream\"; server_keygen = true;"), "server_keygen is not used");
        assert_warned(CERTS("stack = \"mbedtls\"; key_types = ( \"Ed25519\" );"), "Mbed TLS has no Ed25519");
        assert_warned(CERTS("stack = \"mbedtls\"; key_types = ( \"RSA\" );"), "RSA certificates");
        assert_taken(CERTS("stack = \"mbedtls\";"));
}

static void mistakes_in_key_types_are_named(void **state) {
        (void)state;
        assert_refused(CERTS("key_types = ( \"Ed2519\" );"), "did you mean \"Ed25519\"?");
        assert_refused(CERTS("key_types = ( );"), "key_types takes a list");
        assert_refused(CERTS("key_types = 5;"), "key_types takes a list");
        assert_refused(CERTS("key_types = ( 5 );"), "key_types takes a list");
        assert_refused(CERTS("rsa_bits = 1024;"), "2048 to 4096");
        assert_refused(PSK("credential = \"x509\";"), "credential \"x509\" is unknown");
}

/* ---- the CA and the registrar ---- */

static void the_ca_has_defaults_and_takes_every_key(void **state) {
        _cleanup_(load_end) struct load plain = load_text("gateway_id = \"g\";" PSK(""));
        _cleanup_(load_end) struct load set = load_text(
                CA("subject = \"CN=Plant 7 CA, O=Example\\\\, Inc\"; key_type = \"P-384\"; providers = ( \"tpm2\" );"
                   "pkcs11_module = \"/dev/null\"; paths = [ \"/dev/null\", \"/tmp\" ]; validity = \"20y\";"
                   "successor_at = 0.75; announce = \"60d\"; backdate = \"2h\"; server_name = \"gw.example\";"
                   "server_validity = \"7d\"; crl_validity = \"1d\";"));
        const struct ca_config *ca;

        (void)state;
        ca = &plain.config->ca;
        assert_string_equal(ca->subject, "CN=gatewayd CA g");
        assert_int_equal(ca->key_type, CA_KEY_P256);
        assert_int_equal(ca->validity_sec, 10 * YEAR);
        assert_true(ca->successor_at > 0.49 && ca->successor_at < 0.51);
        assert_int_equal(ca->announce_sec, 30 * DAY);
        assert_int_equal(ca->backdate_sec, 3600);
        assert_string_equal(ca->server_name, "gatewayd");
        assert_int_equal(ca->server_validity_sec, 30 * DAY);
        assert_int_equal(ca->crl_validity_sec, 30 * DAY);

        show(&set);
        assert_int_equal(set.result, 0);
        assert_int_equal(set.problems.count, 0);
        ca = &set.config->ca;
        assert_string_equal(ca->subject, "CN=Plant 7 CA, O=Example\\, Inc");
        assert_int_equal(ca->key_type, CA_KEY_P384);
        assert_int_equal(ca->provider_count, 1);
        assert_string_equal(ca->providers[0], "tpm2");
        assert_string_equal(ca->pkcs11_module, "/dev/null");
        assert_int_equal(ca->path_count, 2);
        assert_string_equal(ca->paths[1], "/tmp");
        assert_int_equal(ca->validity_sec, 20 * YEAR);
        assert_int_equal(ca->announce_sec, 60 * DAY);
        assert_string_equal(ca->server_name, "gw.example");
}

static void the_default_name_of_the_ca_fits_x509_whatever_the_gateways_id(void **state) {
        _cleanup_(load_end) struct load load =
                load_text("gateway_id = \"0123456789012345678901234567890123456789012345678901234567890123\";" PSK(""));

        (void)state;
        assert_int_equal(load.result, 0);
        assert_string_equal(load.config->ca.subject,
                            "CN=gatewayd CA 0123456789012345678901234567890123456789012345678901");
}

static void mistakes_in_the_ca_are_named(void **state) {
        (void)state;
        assert_refused(CA("subject = \"Plant 7\";"), "f:1: subject is not understood: each part is TYPE=value");
        assert_refused(CA("subject = \"CN=a, Foo=b\";"), "\"Foo=b\" is no part that X.509 takes");
        assert_refused(CA("subject = \"CN=\";"), "is no part");
        assert_refused(CA("subject = \"CN=a,\";CN"), "syntax error");
        assert_refused(CA("key_type = \"RSA\";"), "key_type");
        assert_refused(CA("providers = ( \"../../evil.so\" );"), "is no name of an OpenSSL provider");
        assert_refused(CA("providers = ( \"a\", \"b\", \"c\", \"d\", \"e\" );"), "providers takes up to 4 texts");
        assert_refused(CA("pkcs11_module = \"libsofthsm2.so\";"), "pkcs11_module must be an absolute path");
        assert_warned(CA("pkcs11_module = \"/none.so\";"), "/none.so: No such file");
        assert_refused(CA("paths = ( 7 );"), "paths takes up to 8 texts");
        assert_refused(CA("paths = ( \"dev\" );"), "paths must be an absolute path");
        assert_refused(CA("successor_at = 0.95;"), "0.1 to 0.9");
        assert_refused(CA("server_name = \"\";"), "server_name is empty");
        assert_warned(CA("server_name = \"gate_way\";"), "is no DNS name");
        assert_warned(CA("server_name = \"gw..example\";"), "is no DNS name");
        assert_refused("ca = 7; " PSK(""), "ca must be a group");
        assert_refused(CA("validty = \"1y\";"), "did you mean \"validity\"?");
}

static void lives_that_do_not_fit_into_each_other_are_warned_about(void **state) {
        (void)state;
        assert_warned(CA("validity = \"1y\"; successor_at = 0.9; announce = \"60d\"; server_validity = \"1d\";"),
                      "the CA would end before its successor signs");
        assert_warned(CA("validity = \"30d\"; announce = \"1d\"; server_validity = \"20d\";"),
                      "server_validity is longer");
        assert_warned(CA("backdate = \"1d\"; server_validity = \"1d\";"), "half used up");
        assert_warned("ca = { validity = \"200d\"; };" CERTS("validity = \"90d\";"), "the CA has 70d left");
        assert_warned("ca = { key_type = \"Ed25519\"; };" CERTS(""), "cannot verify it");
        assert_taken("ca = { key_type = \"Ed25519\"; };" CERTS("stack = \"wolfssl\";"));
}

static void the_est_servers_url_is_judged(void **state) {
        _cleanup_(load_end) struct load load =
                load_text("north = { est_url = \"https://e/.well-known/est/x//\"; };" PSK(""));

        (void)state;
        assert_int_equal(load.result, 0);
        assert_string_equal(load.config->north.est_url, "https://e/.well-known/est/x");
        assert_true(says(&load, "no client_certificate: the EST server cannot tell"));
        assert_refused("north = { est_url = \"http://e/.well-known/est\"; };" PSK(""), "must begin with https://");
        assert_refused("north = { est_url = \"https://e/.well-known/est?x\"; };" PSK(""), "must begin with https://");
        assert_warned("north = { est_url = \"https://e/ca\"; };" PSK(""), "no /.well-known/est");
        assert_refused("north = { est_renews_ca = true; };" PSK(""), "est_renews_ca needs est_url");
}

/* ---- anchors ---- */

struct folder {
        char path[64];
        char file[160];
};

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
        (void)st, (void)kind, (void)at;
        return remove(path);
}

static const char *in(struct folder *folder, const char *name) {
        snprintf(folder->file, sizeof folder->file, "%s/%s", folder->path, name);
        return folder->file;
}

static int folder_make(void **state) {
        struct folder *folder = xcalloc(1, sizeof *folder);

        snprintf(folder->path, sizeof folder->path, "/tmp/gatewayd-anchors-XXXXXX");
        assert_non_null(mkdtemp(folder->path));
        assert_int_equal(mkdir(in(folder, "conf.d"), 0700), 0);
        *state = folder;
        return 0;
}

static int folder_remove(void **state) {
        struct folder *folder = *state;

        nftw(folder->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        free(folder);
        return 0;
}

static void write_bytes(struct folder *folder, const char *name, struct bytes content) {
        FILE *file = fopen(in(folder, name), "we");

        assert_non_null(file);
        assert_int_equal(fwrite(content.data, 1, content.size, file), content.size);
        fclose(file);
}

static void write_text(struct folder *folder, const char *name, const char *text) {
        write_bytes(folder, name, bytes_of(text));
}

/* A certificate by its own key: a CA, or not. DER and PEM are appended. */
static void make_certificate(const char *name, bool is_ca, struct buffer *der, struct buffer *pem) {
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = X509_new();
        unsigned char *encoded = NULL;
        BIO *bio = BIO_new(BIO_s_mem());
        char *text;
        int size;

        X509_set_version(certificate, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
        X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
        X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
        X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8, (const unsigned char *)name,
                                   -1, -1, 0);
        X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
        X509_set_pubkey(certificate, key);
        if (is_ca) {
                X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");

                X509_add_ext(certificate, extension, -1);
                X509_EXTENSION_free(extension);
        }
        assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
        size = i2d_X509(certificate, &encoded);
        assert_true(size > 0);
        buffer_append(der, BYTES(encoded, (size_t)size));
        PEM_write_bio_X509(bio, certificate);
        size = (int)BIO_get_mem_data(bio, &text);
        buffer_append(pem, BYTES(text, (size_t)size));
        OPENSSL_free(encoded);
        BIO_free(bio);
        X509_free(certificate);
        EVP_PKEY_free(key);
}

static struct load load_folder(struct folder *folder) {
        struct load load = { 0 };

        load.result = config_load(in(folder, "gatewayd.conf"), &load.config, &load.problems);
        return load;
}

#define ANCHORS(files) "profiles = ( { name = \"p\"; credential = \"certificate\"; idevid_anchors = " files "; } );"

static void write_two_anchors(struct folder *folder, struct buffer *ret_der) {
        _cleanup_(buffer_free) struct buffer one = { 0 }, two = { 0 }, pem = { 0 };

        make_certificate("one", true, &one, &pem);
        make_certificate("two", true, &two, &pem);
        buffer_append(ret_der, buffer_bytes(&one));
        buffer_append(ret_der, buffer_bytes(&two));
        write_bytes(folder, "both.pem", buffer_bytes(&pem));
        write_bytes(folder, "both.der", buffer_bytes(ret_der));
        write_bytes(folder, "one.der", buffer_bytes(&one));
}

static void assert_two_anchors(const struct load *load, const struct buffer *der) {
        const struct profile *p;
        uint8_t digest[32];

        show(load);
        assert_int_equal(load->result, 0);
        assert_int_equal(load->problems.count, 0);
        p = &load->config->profiles[0];
        assert_int_equal(p->anchor_count, 2);
        assert_int_equal(p->anchors[0].size + p->anchors[1].size, der->size);
        assert_memory_equal(p->anchors[0].der, der->data, p->anchors[0].size);
        assert_memory_equal(p->anchors[1].der, der->data + p->anchors[0].size, p->anchors[1].size);
        SHA256(p->anchors[1].der, p->anchors[1].size, digest);
        assert_memory_equal(p->anchors[1].digest, digest, sizeof digest);
}

static void anchors_are_read_out_of_pem_and_der_relative_to_the_folder_each_once(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 };
        static const char *const lists[] = {
                ANCHORS("\"both.pem\""),
                ANCHORS("\"both.der\""),
                ANCHORS("( \"one.der\", \"both.pem\", \"both.der\" )"),
                ANCHORS("[ \"./one.der\", \"both.pem\" ]"),
        };

        write_two_anchors(folder, &der);
        for (size_t i = 0; i < ELEMENTS(lists); i++) {
                write_text(folder, "gatewayd.conf", lists[i]);
                _cleanup_(load_end) struct load load = load_folder(folder);
                assert_two_anchors(&load, &der);
        }
}

static void text_around_the_blocks_of_a_pem_file_is_passed_over(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 }, pem = { 0 };

        buffer_append(&pem, TEXT("# the maker's root, from its web page\r\n\r\nsubject=CN = one\r\n"));
        make_certificate("one", true, &der, &pem);
        buffer_append(&pem, TEXT("\nthe end\n"));
        write_bytes(folder, "noted.pem", buffer_bytes(&pem));
        write_text(folder, "gatewayd.conf", ANCHORS("\"noted.pem\""));
        _cleanup_(load_end) struct load load = load_folder(folder);
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->profiles[0].anchor_count, 1);
}

static void a_drop_in_replaces_the_list_of_anchors_and_its_names_are_relative_to_the_main_folder(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 };

        write_two_anchors(folder, &der);
        write_text(folder, "gatewayd.conf", ANCHORS("\"none.pem\"")); /* never looked for */
        write_text(folder, "conf.d/10.conf", "profiles = ( { name = \"p\"; idevid_anchors = \"one.der\"; } );");
        _cleanup_(load_end) struct load load = load_folder(folder);
        show(&load);
        assert_int_equal(load.result, 0);
        assert_int_equal(load.config->profiles[0].anchor_count, 1);

        write_text(folder, "conf.d/20.conf", "profiles = ( { name = \"p\"; idevid_anchors = ( ); } );");
        _cleanup_(load_end) struct load none = load_folder(folder);
        assert_int_equal(none.result, 0);
        assert_int_equal(none.config->profiles[0].anchor_count, 0);
}

static void a_file_of_anchors_that_cannot_be_used_is_named_with_its_mistake(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 }, pem = { 0 }, text = { 0 };
        static const struct {
                const char *list, *words;
        } cases[] = {
                { "\"none.pem\"", "gatewayd.conf:1: profile \"p\": idevid_anchors: none.pem: No such file" },
                { "\"conf.d\"", "idevid_anchors: conf.d: is no regular file" },
                { "\"/dev/zero\"", "idevid_anchors: /dev/zero: is no regular file" },
                { "\"fifo\"", "idevid_anchors: fifo: is no regular file" },
                { "\"empty.pem\"", "idevid_anchors: empty.pem: holds no certificate" },
                { "\"cut.der\"", "idevid_anchors: cut.der, certificate 1: is no certificate in DER" },
                { "\"tail.der\"", "idevid_anchors: tail.der, certificate 2: is no certificate in DER" },
                { "\"broken.pem\"", "idevid_anchors: broken.pem, certificate 2: its PEM is damaged" },
                { "\"key.pem\"", "idevid_anchors: key.pem: holds a \"PRIVATE KEY\"; only certificates belong there" },
                { "7", "idevid_anchors takes the name of a file" },
                { "( \"one.der\", 7 )", "idevid_anchors takes the name of a file" },
                { "\"\"", "idevid_anchors takes the name of a file" },
        };

        make_certificate("one", true, &der, &pem);
        write_bytes(folder, "one.der", buffer_bytes(&der));
        write_bytes(folder, "cut.der", BYTES(der.data, der.size - 1));
        write_text(folder, "empty.pem", "");
        assert_int_equal(mkfifo(in(folder, "fifo"), 0600), 0);
        buffer_append(&der, TEXT("tail"));
        write_bytes(folder, "tail.der", buffer_bytes(&der));
        buffer_append(&text, buffer_bytes(&pem));
        buffer_append(&text, BYTES(pem.data, pem.size / 2));
        write_bytes(folder, "broken.pem", buffer_bytes(&text));
        buffer_append(&pem, TEXT("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"));
        write_bytes(folder, "key.pem", buffer_bytes(&pem));

        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                char conf[256];

                snprintf(conf, sizeof conf, ANCHORS("%s"), cases[i].list);
                write_text(folder, "gatewayd.conf", conf);
                _cleanup_(load_end) struct load load = load_folder(folder);
                if (load.result != -EINVAL || load.config || !says(&load, cases[i].words)) {
                        show(&load);
                        fail_msg("%s is not refused with \"%s\"", cases[i].list, cases[i].words);
                }
        }
}

static void der_cut_anywhere_is_refused(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 }, pem = { 0 };

        make_certificate("one", true, &der, &pem);
        write_text(folder, "gatewayd.conf", ANCHORS("\"cut.der\""));
        for (size_t size = 0; size < der.size; size++) {
                write_bytes(folder, "cut.der", BYTES(der.data, size));
                _cleanup_(load_end) struct load load = load_folder(folder);
                assert_int_equal(load.result, -EINVAL);
        }
}

static void an_anchor_that_is_no_ca_is_warned_about(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 }, pem = { 0 };

        make_certificate("leaf", false, &der, &pem);
        write_bytes(folder, "leaf.pem", buffer_bytes(&pem));
        write_text(folder, "gatewayd.conf", ANCHORS("\"leaf.pem\""));
        _cleanup_(load_end) struct load load = load_folder(folder);
        assert_int_equal(load.result, 0);
        assert_true(says(&load, "warning: profile \"p\": idevid_anchors: leaf.pem, certificate 1: "));
        assert_int_equal(load.config->profiles[0].anchor_count, 1);
}

static void anchors_travel_in_the_snapshot(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct load load = { 0 };
        int fd = -1;

        write_two_anchors(folder, &der);
        write_text(folder, "gatewayd.conf", ANCHORS("( \"one.der\", \"both.pem\" )"));
        load.result = config_load_snapshot(in(folder, "gatewayd.conf"), &fd, &load.config, &load.problems);
        assert_two_anchors(&load, &der);
        load_end(&load);

        assert_int_equal(unlink(in(folder, "one.der")), 0);
        write_text(folder, "both.pem", "something else");
        write_text(folder, "gatewayd.conf", "something else");
        for (int i = 0; i < 2; i++) {
                load = (struct load){ 0 };
                load.result = config_load_descriptor(fd, &load.config, &load.problems);
                assert_two_anchors(&load, &der);
                load_end(&load);
        }
        close(fd);
}

static void removed_anchors_are_gone_at_the_next_reading(void **state) {
        struct folder *folder = *state;
        _cleanup_(buffer_free) struct buffer der = { 0 };

        write_two_anchors(folder, &der);
        write_text(folder, "gatewayd.conf", ANCHORS("\"both.der\""));
        _cleanup_(load_end) struct load before = load_folder(folder);
        assert_two_anchors(&before, &der);
        write_bytes(folder, "both.der",
                    BYTES(before.config->profiles[0].anchors[1].der, before.config->profiles[0].anchors[1].size));
        _cleanup_(load_end) struct load after = load_folder(folder);
        assert_int_equal(after.config->profiles[0].anchor_count, 1);
        assert_memory_equal(after.config->profiles[0].anchors[0].digest, before.config->profiles[0].anchors[1].digest,
                            32);
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_remove)

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_profile_of_certificates_has_sound_defaults),
                cmocka_unit_test(a_psk_profile_is_what_it_was),
                cmocka_unit_test(every_key_of_certificates_is_taken),
                cmocka_unit_test(the_schedule_of_certificates_follows_from_their_life),
                cmocka_unit_test(what_a_profiles_credential_leaves_unused_is_said),
                cmocka_unit_test(a_profile_that_nobody_could_use_is_refused_or_warned_about),
                cmocka_unit_test(mistakes_in_key_types_are_named),
                cmocka_unit_test(the_ca_has_defaults_and_takes_every_key),
                cmocka_unit_test(the_default_name_of_the_ca_fits_x509_whatever_the_gateways_id),
                cmocka_unit_test(mistakes_in_the_ca_are_named),
                cmocka_unit_test(lives_that_do_not_fit_into_each_other_are_warned_about),
                cmocka_unit_test(the_est_servers_url_is_judged),
                IN_A_FOLDER(anchors_are_read_out_of_pem_and_der_relative_to_the_folder_each_once),
                IN_A_FOLDER(text_around_the_blocks_of_a_pem_file_is_passed_over),
                IN_A_FOLDER(a_drop_in_replaces_the_list_of_anchors_and_its_names_are_relative_to_the_main_folder),
                IN_A_FOLDER(a_file_of_anchors_that_cannot_be_used_is_named_with_its_mistake),
                IN_A_FOLDER(der_cut_anywhere_is_refused),
                IN_A_FOLDER(an_anchor_that_is_no_ca_is_warned_about),
                IN_A_FOLDER(anchors_travel_in_the_snapshot),
                IN_A_FOLDER(removed_anchors_are_gone_at_the_next_reading),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* For test_x509_formats.py and test_key_uri.py: what gatewayd/keys makes and reads, as files and lines.
 *
 *   make FOLDER p256|p384|ed25519   writes a CA's and a device's certificates, CSRs, CRL and messages there
 *   csr FILE                        "good <names>" or "refused <why>"
 *   chain FILE ANCHORS              "good <path length> <anchor>" or "refused <why>"; concatenated DER
 *   key URI [wall]                  opens it; "good <SPKI hex> <data hex> <signature hex>" or "refused <errno>
 *                                   <why>". MODULE and PROVIDERS in the environment are the configuration's.
 *                                   wall: signs behind core's sandbox, and tells of refused system calls
 *   twice URI                       opens it twice: two lines
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/x509v3.h>

#include "gatewayd/keys/csr.h"
#include "gatewayd/keys/key_uri.h"
#include "gatewayd/keys/x509.h"
#include "gatewayd/sandbox.h"

#define NOW 1790000000

static void die(const char *what, const struct problem *problem) {
        fprintf(stderr, "%s: %s\n", what, problem ? problem->detail : strerror(errno));
        exit(2);
}

static void print_hex(struct bytes bytes) {
        for (size_t i = 0; i < bytes.size; i++)
                printf("%02x", bytes.data[i]);
}

static void write_file(const char *folder, const char *name, struct bytes content) {
        char path[512];
        FILE *file;

        snprintf(path, sizeof path, "%s/%s", folder, name);
        file = fopen(path, "we");
        if (!file || fwrite(content.data, 1, content.size, file) != content.size || fclose(file) != 0)
                die(path, NULL);
}

static void read_file(const char *path, struct buffer *to) {
        FILE *file = fopen(path, "re");
        size_t n;

        if (!file)
                die(path, NULL);
        while ((n = fread(buffer_reserve(to, 4096), 1, 4096, file)) > 0)
                to->size += n;
        fclose(file);
}

static void write_certificate(const char *folder, const char *name, X509 *certificate) {
        _cleanup_(buffer_free) struct buffer der = {};

        if (!certificate || x509_write(certificate, &der) < 0)
                die(name, NULL);
        write_file(folder, name, buffer_bytes(&der));
}

static const struct profile any_key = { .key_types = 15, .rsa_bits = 2048 };

/* ---- make ---- */

struct site {
        const char *folder;
        struct problem problem;
        EVP_PKEY *key, *next_key, *leaf_key;
        struct x509_signer signer;
        X509 *next;
};

static void make_crl(struct site *site, X509 *device) {
        struct x509_crl *crl = x509_crl_new(&site->signer, 7, NOW, NOW + 30 * 86400);
        _cleanup_(buffer_free) struct buffer der = {};
        struct certificate revoked = { 0 };

        if (x509_describe(device, &revoked) < 0)
                die("describe", NULL);
        revoked.revoked = REVOKED_KEY_COMPROMISE;
        revoked.revoked_at.wall = NOW + 5;
        if (x509_crl_add(crl, &revoked) < 0)
                die("crl", NULL);
        for (uint8_t i = 1; i < 4; i++) {
                struct certificate other = { .serial = { i, 2, 3 }, .serial_size = 3, .revoked = REVOKED_UNSPECIFIED };

                other.revoked_at.wall = (int64_t)4000000000 + i;
                if (x509_crl_add(crl, &other) < 0)
                        die("crl", NULL);
        }
        if (x509_crl_finish(crl, &der, &site->problem) < 0)
                die("crl", &site->problem);
        write_file(site->folder, "crl.der", buffer_bytes(&der));
}

static void make_messages(struct site *site, X509 *device) {
        _cleanup_(buffer_free) struct buffer one = {}, two = {};
        STACK_OF(X509) *list = sk_X509_new_null();

        sk_X509_push(list, device);
        if (x509_pkcs7_write(list, &one) < 0)
                die("pkcs7", NULL);
        sk_X509_push(list, site->signer.certificate);
        if (x509_pkcs7_write(list, &two) < 0)
                die("pkcs7", NULL);
        write_file(site->folder, "one.p7", buffer_bytes(&one));
        write_file(site->folder, "two.p7", buffer_bytes(&two));
        sk_X509_free(list);
}

static void make_leaves(struct site *site) {
        const struct x509_validity short_life = { NOW - 3600, NOW + 90 * 86400 }, never = { NOW, NOT_AFTER_NEVER };
        X509 *server, *device, *lasting;

        server = x509_server_make(&site->signer, site->leaf_key, "gateway.example", &short_life, NULL, &site->problem);
        device = x509_device_make(&site->signer, NULL, site->leaf_key, "sensor_17", NULL, &short_life, NULL,
                                  &site->problem);
        lasting =
                x509_device_make(&site->signer, NULL, site->leaf_key, "sensor-17", NULL, &never, NULL, &site->problem);
        write_certificate(site->folder, "server.der", server);
        write_certificate(site->folder, "device.der", device);
        write_certificate(site->folder, "lasting.der", lasting);
        make_crl(site, device);
        make_messages(site, device);
        X509_free(server);
        X509_free(device);
        X509_free(lasting);
}

static void do_make(char **words) {
        /* From before 2050 to after it: both forms of time. */
        const struct x509_validity long_life = { NOW, INT64_C(2600000000) }, cross_life = { NOW, NOW + 86400 };
        const enum x509_key_type type = strcmp(words[3], "p256") == 0   ? X509_KEY_P256
                                        : strcmp(words[3], "p384") == 0 ? X509_KEY_P384
                                                                        : X509_KEY_ED25519;
        struct site site = { .folder = words[2] };
        _cleanup_(buffer_free) struct buffer request = {};
        X509 *cross;

        site.key = x509_key_new(type);
        site.next_key = x509_key_new(type);
        site.leaf_key = x509_key_new(X509_KEY_P256);
        site.signer.key = site.key;
        site.signer.certificate =
                x509_root_make(site.key, "CN=Plant 7 CA, O=Example\\, Inc.", &long_life, NULL, &site.problem);
        site.next = x509_root_make(site.next_key, "CN=Plant 7 CA 2, O=Example", &long_life, NULL, &site.problem);
        if (!site.signer.certificate || !site.next ||
            x509_request_make(site.key, "CN=Edge CA,O=Example,C=DE", &request, &site.problem) < 0)
                die("make", &site.problem);
        cross = x509_cross_make(&site.signer, site.next, &cross_life, NULL, &site.problem);
        write_certificate(site.folder, "root.der", site.signer.certificate);
        write_certificate(site.folder, "next.der", site.next);
        write_certificate(site.folder, "cross.der", cross);
        write_file(site.folder, "request.der", buffer_bytes(&request));
        make_leaves(&site);
        X509_free(cross);
        X509_free(site.signer.certificate);
        X509_free(site.next);
        EVP_PKEY_free(site.key);
        EVP_PKEY_free(site.next_key);
        EVP_PKEY_free(site.leaf_key);
}

/* ---- read ---- */

static void do_csr(char **words) {
        _cleanup_(buffer_free) struct buffer der = {};
        struct problem problem = { 0 };
        struct csr csr;

        read_file(words[2], &der);
        if (csr_read(buffer_bytes(&der), &any_key, false, &csr, &problem) < 0) {
                printf("refused %s\n", problem.detail);
                return;
        }
        printf("good %d ", csr.has_challenge);
        print_hex(csr.tls_unique);
        printf(" %d ", csr.wants_protected_key);
        print_hex(BYTES(csr.public_key, sizeof csr.public_key));
        printf(" %s\n", csr_check_names(&csr, "sensor-1", NULL, &problem) < 0 ? problem.detail : "own");
        csr_free(&csr);
}

static STACK_OF(X509) * read_certificates(const char *path) {
        _cleanup_(buffer_free) struct buffer der = {};
        STACK_OF(X509) * ret;

        read_file(path, &der);
        ret = x509_read_chain(buffer_bytes(&der));
        if (!ret)
                die(path, NULL);
        return ret;
}

static void do_chain(char **words) {
        STACK_OF(X509) *chain = read_certificates(words[2]), *anchors = read_certificates(words[3]), *path = NULL;
        struct problem problem = { 0 };
        size_t anchor;

        if (x509_chain_verify(chain, anchors, &path, &anchor, &problem) < 0)
                printf("refused %s\n", problem.detail);
        else
                printf("good %d %zu\n", sk_X509_num(path), anchor);
        sk_X509_pop_free(path, X509_free);
        sk_X509_pop_free(chain, X509_free);
        sk_X509_pop_free(anchors, X509_free);
}

/* ---- keys ---- */

static void load(void) {
        const char *module = getenv("MODULE"), *providers = getenv("PROVIDERS");
        struct ca_config config = { 0 };
        struct problem problem = { 0 };
        int r;

        if (module)
                snprintf(config.pkcs11_module, sizeof config.pkcs11_module, "%s", module);
        if (providers)
                snprintf(config.providers[config.provider_count++], sizeof config.providers[0], "%s", providers);
        r = key_providers_load(&config, &problem);
        if (r < 0) {
                printf("refused %d %s\n", -r, problem.detail);
                exit(0);
        }
}

static void raise_wall(void) {
        const char *folder = getenv("STORE");
        const struct sandbox_paths paths = { .store = folder };
        struct problem problem = { 0 };

        if (sandbox_enter(ROLE_CORE, &paths, SANDBOX_WEAK, &problem) < 0)
                die("sandbox", &problem);
}

static void tell_refused_calls(void) {
        char name[64];

        while (sandbox_violation_take(name, sizeof name) > 0)
                printf("violation %s\n", name);
}

/* X.509 is what the key is for: so it signs a certificate of its own. */
static void sign_something(EVP_PKEY *key) {
        const struct x509_validity validity = { NOW, NOW + 86400 };
        struct problem problem = { 0 };
        _cleanup_(buffer_free) struct buffer der = {};
        X509 *root = x509_root_make(key, "CN=In a token", &validity, &der, &problem);

        if (!root) {
                printf("refused %d %s\n", EIO, problem.detail);
                return;
        }
        printf("good ");
        print_hex(buffer_bytes(&der));
        putchar('\n');
        X509_free(root);
}

static int open_and_sign(const char *uri) {
        struct problem problem = { 0 };
        EVP_PKEY *key;
        int r = key_uri_open(uri, &key, &problem);

        if (r >= 0)
                r = key_probe(key, NULL, &problem);
        if (r < 0)
                printf("refused %d %s\n", -r, problem.detail);
        else
                sign_something(key);
        EVP_PKEY_free(key);
        return r;
}

static void do_key(char **words) {
        struct problem problem = { 0 };
        EVP_PKEY *key;

        load();
        if (!words[3]) {
                open_and_sign(words[2]);
                return;
        }
        if (key_uri_open(words[2], &key, &problem) < 0)
                die("open", &problem);
        raise_wall();
        sign_something(key);
        if (strcmp(words[3], "again") == 0)
                open_and_sign(words[2]);
        tell_refused_calls();
        EVP_PKEY_free(key);
}

static void do_twice(char **words) {
        load();
        open_and_sign(words[2]);
        open_and_sign(words[2]);
}

int main(int argc, char **argv) {
        static const struct {
                const char *name;
                int words;
                void (*run)(char **words);
        } commands[] = {
                { "make", 4, do_make }, { "csr", 3, do_csr },     { "chain", 4, do_chain },
                { "key", 3, do_key },   { "twice", 3, do_twice },
        };

        for (size_t i = 0; i < ELEMENTS(commands); i++)
                if (argc >= commands[i].words && strcmp(argv[1], commands[i].name) == 0) {
                        commands[i].run(argv);
                        return 0;
                }
        return 2;
}

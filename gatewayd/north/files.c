/* SPDX-License-Identifier: Apache-2.0 */

/* Reads and checks the client certificate, its key and the trust anchors. Nothing here talks to
 * anybody: libcurl gets the bytes. */

#include "gatewayd/north/files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "gatewayd/secret.h"

#define SYSTEM_ANCHORS  "/etc/ssl/certs/ca-certificates.crt"
#define ANCHORS_MAX     (4u << 20)
#define CERTIFICATE_MAX (256u << 10)
/* One page holds every private key in use; RSA with 8192 bits takes 6.5 KiB. */
#define KEY_PAGE_SIZE 16384

static int refuse(struct problem *problem, int error, const char *path, const char *what) {
        ERR_clear_error();
        return problem_set(problem, CODE_INTERNAL, error, "upstream credentials", "%s: %s", path, what);
}

/* Fills `to` with the whole file, at most `limit` bytes; returns how many. */
static ssize_t read_whole(const char *path, uint8_t *to, size_t limit, struct problem *problem) {
        size_t size = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        int error = 0;

        if (fd < 0)
                return refuse(problem, errno, path, strerror(errno));
        while (size < limit) {
                ssize_t n = read(fd, to + size, limit - size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        error = n < 0 ? errno : 0;
                        break;
                }
                size += (size_t)n;
        }
        close(fd);
        if (error != 0)
                return refuse(problem, error, path, strerror(error));
        if (size == limit)
                return refuse(problem, EFBIG, path, "longer than such a file can be");
        return (ssize_t)size;
}

static int read_public(const char *path, size_t limit, struct buffer *to, struct problem *problem) {
        ssize_t n = read_whole(path, buffer_reserve(to, limit), limit, problem);

        if (n < 0)
                return (int)n;
        to->size = (size_t)n;
        return 0;
}

/* The first certificate in it. */
static X509 *first_certificate(const struct buffer *pem) {
        BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->size);
        X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;

        BIO_free(bio);
        return certificate;
}

/* A service has nobody to ask. */
static int no_passphrase(char *to, int size, int is_writing, void *userdata) {
        (void)to;
        (void)size;
        (void)is_writing;
        (void)userdata;
        return -1;
}

static int check_key(const struct north_config *config, const struct tls_files *files, X509 *certificate,
                     struct problem *problem) {
        BIO *bio = BIO_new_mem_buf(files->key, (int)files->key_size);
        EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
        int r = 0;

        if (!key)
                r = refuse(problem, EINVAL, config->client_key, "holds no private key in PEM, or an encrypted one");
        else if (X509_check_private_key(certificate, key) != 1)
                r = problem_set(problem, CODE_INTERNAL, EINVAL, "upstream credentials", "%s: is not the key of %s",
                                config->client_key, config->client_certificate);
        EVP_PKEY_free(key);
        BIO_free(bio);
        ERR_clear_error();
        return r;
}

static int read_anchors(const struct north_config *config, struct tls_files *files, struct problem *problem) {
        const char *path = config->ca_file[0] ? config->ca_file : SYSTEM_ANCHORS;
        X509 *certificate;
        int r = read_public(path, ANCHORS_MAX, &files->anchors, problem);

        if (r < 0)
                return r;
        certificate = first_certificate(&files->anchors);
        if (!certificate)
                return refuse(problem, EINVAL, path, "holds no certificate in PEM");
        X509_free(certificate);
        return 0;
}

static int read_client(const struct north_config *config, struct tls_files *files, struct problem *problem) {
        X509 *certificate;
        ssize_t n;
        int r = read_public(config->client_certificate, CERTIFICATE_MAX, &files->certificate, problem);

        if (r < 0)
                return r;
        files->key = secret_page_new(KEY_PAGE_SIZE);
        if (!files->key)
                return problem_set(problem, CODE_INTERNAL, errno, "upstream credentials",
                                   "no locked memory for the key: %s", strerror(errno));
        n = read_whole(config->client_key, (uint8_t *)files->key, KEY_PAGE_SIZE, problem);
        if (n < 0)
                return (int)n;
        files->key_size = (size_t)n;

        certificate = first_certificate(&files->certificate);
        if (!certificate)
                return refuse(problem, EINVAL, config->client_certificate, "holds no certificate in PEM");
        r = check_key(config, files, certificate, problem);
        X509_free(certificate);
        return r;
}

int tls_files_read(const struct north_config *config, struct tls_files *ret, struct problem *problem) {
        int r;

        *ret = (struct tls_files){ 0 };
        if (!config->client_certificate[0] || !config->client_key[0])
                return problem_set(problem, CODE_INTERNAL, EINVAL, "upstream credentials",
                                   "the collector asks for a client certificate: "
                                   "north.client_certificate and north.client_key must name one");
        r = read_anchors(config, ret, problem);
        if (r >= 0)
                r = read_client(config, ret, problem);
        if (r < 0)
                tls_files_free(ret);
        return r;
}

void tls_files_free(struct tls_files *files) {
        buffer_free(&files->anchors);
        buffer_free(&files->certificate);
        if (files->key)
                secret_page_free(files->key, KEY_PAGE_SIZE);
        *files = (struct tls_files){ 0 };
}

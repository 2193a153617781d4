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

#include "gatewayd/keys/x509.h"
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

int tls_files_leaf(const struct tls_files *files, struct buffer *ret, unix_sec *ret_not_after) {
        X509 *certificate = first_certificate(&files->certificate);
        struct x509_validity validity;
        int r = certificate ? x509_validity_of(certificate, &validity) : -EBADMSG;

        if (r >= 0) {
                *ret_not_after = validity.not_after;
                r = x509_write(certificate, ret);
        }
        X509_free(certificate);
        ERR_clear_error();
        return r;
}

/* What a memory BIO holds, ended by nothing. */
static int take_text(BIO *bio, uint8_t *to, size_t limit, size_t *ret_size) {
        char *text;
        long size = BIO_get_mem_data(bio, &text);

        if (size <= 0 || (size_t)size > limit)
                return -EBADMSG;
        memcpy(to, text, (size_t)size);
        *ret_size = (size_t)size;
        return 0;
}

static int write_chain_pem(STACK_OF(X509) * chain, struct buffer *to) {
        BIO *bio = BIO_new(BIO_s_mem());
        size_t size = 0;
        int r = bio ? 0 : -ENOMEM;

        for (int i = 0; r >= 0 && i < sk_X509_num(chain); i++)
                if (PEM_write_bio_X509(bio, sk_X509_value(chain, i)) != 1)
                        r = -EBADMSG;
        if (r >= 0)
                r = take_text(bio, buffer_reserve(to, CERTIFICATE_MAX), CERTIFICATE_MAX, &size);
        to->size += size;
        BIO_free(bio);
        return r;
}

static int write_key_pem(EVP_PKEY *key, struct tls_files *to) {
        BIO *bio = BIO_new(BIO_s_secmem()); /* wiped when it goes */
        int r = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1 ? 0 : -EBADMSG;

        to->key = secret_page_new(KEY_PAGE_SIZE);
        if (r >= 0)
                r = to->key ? take_text(bio, (uint8_t *)to->key, KEY_PAGE_SIZE, &to->key_size) : -ENOMEM;
        BIO_free(bio);
        return r;
}

int tls_files_renewed(const struct tls_files *files, struct bytes key_der, struct bytes chain_der,
                      struct tls_files *ret) {
        const unsigned char *at = key_der.data;
        EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &at, (long)key_der.size);
        STACK_OF(X509) *chain = x509_read_chain(chain_der);
        struct tls_files fresh = { 0 };
        int r = -EBADMSG;

        if (key && chain && X509_check_private_key(sk_X509_value(chain, 0), key) == 1) {
                buffer_append(&fresh.anchors, buffer_bytes(&files->anchors));
                r = write_chain_pem(chain, &fresh.certificate);
                if (r >= 0)
                        r = write_key_pem(key, &fresh);
        }
        sk_X509_pop_free(chain, X509_free);
        EVP_PKEY_free(key);
        ERR_clear_error();
        if (r < 0)
                tls_files_free(&fresh);
        else
                *ret = fresh;
        return r;
}

void tls_files_free(struct tls_files *files) {
        buffer_free(&files->anchors);
        buffer_free(&files->certificate);
        if (files->key)
                secret_page_free(files->key, KEY_PAGE_SIZE);
        *files = (struct tls_files){ 0 };
}

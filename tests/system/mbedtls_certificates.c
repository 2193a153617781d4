/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates on Mbed TLS 2.28: see mbedtls_certificates.h. A private key is kept as its 32 bytes. */

#include "tests/system/mbedtls_certificates.h"

#include <string.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/ecp.h>
#include <mbedtls/sha256.h>
#include <mbedtls/x509_csr.h>

#include "tests/sim/device_certificates.h"

enum { SCALAR_SIZE = 32 };

void certificates_init(struct mbedtls_certificates *certificates, mbedtls_ctr_drbg_context *drbg) {
        certificates->drbg = drbg;
        mbedtls_x509_crt_init(&certificates->own);
        mbedtls_x509_crt_init(&certificates->anchors);
        mbedtls_pk_init(&certificates->key);
}

void certificates_free(struct mbedtls_certificates *certificates) {
        mbedtls_x509_crt_free(&certificates->own);
        mbedtls_x509_crt_free(&certificates->anchors);
        mbedtls_pk_free(&certificates->key);
}

/* The key pair from its private half; without `random` blinding has to do without. */
static int load_key(mbedtls_pk_context *pk, const struct device_key *key,
                    int (*random)(void *, unsigned char *, size_t), void *user) {
        mbedtls_ecp_keypair *pair;
        int r;

        if (key->key_size != SCALAR_SIZE)
                return MBEDTLS_ERR_PK_BAD_INPUT_DATA;
        r = mbedtls_pk_setup(pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
        if (r != 0)
                return r;
        pair = mbedtls_pk_ec(*pk);
        r = mbedtls_ecp_group_load(&pair->grp, MBEDTLS_ECP_DP_SECP256R1);
        if (r == 0)
                r = mbedtls_mpi_read_binary(&pair->d, key->key, key->key_size);
        if (r == 0)
                r = mbedtls_ecp_mul(&pair->grp, &pair->Q, &pair->d, &pair->grp.G, random, user);
        return r;
}

/* The subject as it stands, entry by entry. (By way of a text, characters that need escapes would be lost.) */
static bool keep_subject(mbedtls_x509write_csr *request, struct device_bytes certificate) {
        const mbedtls_x509_name *entry;
        mbedtls_asn1_named_data *kept;
        mbedtls_x509_crt parsed;
        bool is_good;

        mbedtls_x509_crt_init(&parsed);
        is_good = mbedtls_x509_crt_parse_der(&parsed, certificate.data, certificate.size) == 0;
        for (entry = &parsed.subject; is_good && entry && entry->oid.p; entry = entry->next) {
                kept = mbedtls_asn1_store_named_data(&request->subject, (const char *)entry->oid.p, entry->oid.len,
                                                     entry->val.p, entry->val.len);
                is_good = kept != NULL;
                if (kept)
                        kept->val.tag = entry->val.tag;
        }
        mbedtls_x509_crt_free(&parsed);
        return is_good;
}

size_t certificates_request(struct mbedtls_certificates *certificates, struct device_bytes certificate,
                            struct device_key *key, uint8_t *csr, size_t capacity) {
        struct device_bytes rest = certificate, first;
        mbedtls_x509write_csr request;
        mbedtls_pk_context pk;
        int size = -1;

        mbedtls_pk_init(&pk);
        mbedtls_x509write_csr_init(&request);
        mbedtls_x509write_csr_set_md_alg(&request, MBEDTLS_MD_SHA256);
        mbedtls_x509write_csr_set_key(&request, &pk);
        if (device_next_certificate(&rest, &first) && keep_subject(&request, first) &&
            mbedtls_pk_setup(&pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0 &&
            mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(pk), mbedtls_ctr_drbg_random,
                                certificates->drbg) == 0 &&
            mbedtls_mpi_write_binary(&mbedtls_pk_ec(pk)->d, key->key, SCALAR_SIZE) == 0)
                size = mbedtls_x509write_csr_der(&request, csr, capacity, mbedtls_ctr_drbg_random, certificates->drbg);
        if (size > 0) { /* it writes to the end of the buffer */
                memmove(csr, csr + capacity - (size_t)size, (size_t)size);
                key->key_size = SCALAR_SIZE;
        }
        mbedtls_x509write_csr_free(&request);
        mbedtls_pk_free(&pk);
        return size > 0 ? (size_t)size : 0;
}

/* Its name is its fingerprint, as in the gateway's log. */
static void name(struct device_key *key, struct device_bytes certificate) {
        static const char digits[] = "0123456789abcdef";
        uint8_t digest[32];
        size_t i;

        if (mbedtls_sha256_ret(certificate.data, certificate.size, digest, 0) != 0)
                memset(digest, 0, sizeof digest);
        for (i = 0; i < sizeof digest; i++) {
                key->identity[2 * i] = (uint8_t)digits[digest[i] >> 4];
                key->identity[2 * i + 1] = (uint8_t)digits[digest[i] & 15];
        }
        key->identity_size = 2 * sizeof digest;
}

int certificates_match(struct device_key *key, struct device_bytes certificate) {
        mbedtls_x509_crt parsed;
        mbedtls_pk_context pk;
        int r;

        mbedtls_pk_init(&pk);
        mbedtls_x509_crt_init(&parsed);
        r = mbedtls_x509_crt_parse_der(&parsed, certificate.data, certificate.size);
        if (r == 0)
                r = load_key(&pk, key, NULL, NULL);
        if (r == 0)
                r = mbedtls_pk_check_pair(&parsed.pk, &pk);
        if (r == 0)
                name(key, certificate);
        mbedtls_x509_crt_free(&parsed);
        mbedtls_pk_free(&pk);
        return r;
}

/* ---- a session ---- */

/* How many of them Mbed TLS could read. */
static int parse(mbedtls_x509_crt *chain, struct device_bytes list) {
        struct device_bytes one;
        int count = 0;

        while (device_next_certificate(&list, &one))
                if (mbedtls_x509_crt_parse_der(chain, one.data, one.size) == 0)
                        count++;
        return count;
}

/* This device has no clock: dates are the gateway's business. */
static int ignore_dates(void *user, mbedtls_x509_crt *certificate, int depth, uint32_t *flags) {
        (void)user;
        (void)certificate;
        (void)depth;
        *flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE);
        return 0;
}

int certificates_configure(struct mbedtls_certificates *certificates, mbedtls_ssl_config *config,
                           const struct device_key *key, struct device_bytes anchors) {
        mbedtls_ctr_drbg_context *drbg = certificates->drbg;
        int r;

        certificates_free(certificates);
        certificates_init(certificates, drbg);
        r = load_key(&certificates->key, key, mbedtls_ctr_drbg_random, drbg);
        if (r != 0)
                return r;
        if (parse(&certificates->own, (struct device_bytes){ key->certificate, key->certificate_size }) == 0)
                return MBEDTLS_ERR_X509_INVALID_FORMAT;
        r = mbedtls_ssl_conf_own_cert(config, &certificates->own, &certificates->key);
        if (r != 0)
                return r;
        if (anchors.size == 0) {
                mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_NONE);
                return 0;
        }
        if (parse(&certificates->anchors, anchors) == 0)
                return MBEDTLS_ERR_X509_INVALID_FORMAT;
        mbedtls_ssl_conf_ca_chain(config, &certificates->anchors, NULL);
        mbedtls_ssl_conf_verify(config, ignore_dates, NULL);
        mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
        return 0;
}

/* ---- files ---- */

size_t certificates_read(const char *path, uint8_t *to, size_t capacity) {
        const mbedtls_x509_crt *at;
        mbedtls_x509_crt chain;
        size_t size = 0;

        mbedtls_x509_crt_init(&chain);
        if (mbedtls_x509_crt_parse_file(&chain, path) == 0)
                for (at = &chain; at && at->raw.len > 0 && at->raw.len <= capacity - size; at = at->next) {
                        memcpy(to + size, at->raw.p, at->raw.len);
                        size += at->raw.len;
                }
        mbedtls_x509_crt_free(&chain);
        return size;
}

size_t certificates_read_key(const char *path, uint8_t *to, size_t capacity) {
        mbedtls_pk_context pk;
        size_t size = 0;

        mbedtls_pk_init(&pk);
        if (capacity >= SCALAR_SIZE && mbedtls_pk_parse_keyfile(&pk, path, NULL) == 0 &&
            mbedtls_pk_can_do(&pk, MBEDTLS_PK_ECDSA) && mbedtls_pk_ec(pk)->grp.id == MBEDTLS_ECP_DP_SECP256R1 &&
            mbedtls_mpi_write_binary(&mbedtls_pk_ec(pk)->d, to, SCALAR_SIZE) == 0)
                size = SCALAR_SIZE;
        mbedtls_pk_free(&pk);
        return size;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* What the devices do with certificates, on OpenSSL: requests, answers, and a session's share. A private key
 * is kept as its 32 bytes (P-256). */

#include "sim.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include "device_certificates.h"

bool private_key_bytes(EVP_PKEY *key, uint8_t scalar[32]) {
        BIGNUM *number = NULL;
        bool is_done =
                EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &number) && BN_bn2binpad(number, scalar, 32) == 32;

        BN_clear_free(number);
        return is_done;
}

size_t certificate_request(struct device_bytes certificate, struct device_key *key, uint8_t *csr, size_t capacity) {
        const uint8_t *at = certificate.data;
        X509 *current = d2i_X509(NULL, &at, (long)certificate.size);
        X509_REQ *request = X509_REQ_new();
        EVP_PKEY *pair = EVP_EC_gen("P-256");
        int size = 0;

        if (current && request && pair && X509_REQ_set_version(request, X509_REQ_VERSION_1) &&
            X509_REQ_set_subject_name(request, X509_get_subject_name(current)) && X509_REQ_set_pubkey(request, pair) &&
            X509_REQ_sign(request, pair, EVP_sha256()) > 0 && private_key_bytes(pair, key->key))
                size = i2d_X509_REQ(request, NULL);
        if (size > 0 && (size_t)size <= capacity) {
                (void)i2d_X509_REQ(request, &csr);
                key->key_size = 32;
        } else {
                size = 0;
        }
        X509_REQ_free(request);
        X509_free(current);
        EVP_PKEY_free(pair);
        return (size_t)size;
}

/* Its name is its fingerprint, as in the gateway's log. */
static void name_key(struct device_key *key, struct device_bytes certificate) {
        static const char digits[] = "0123456789abcdef";
        uint8_t digest[SHA256_DIGEST_LENGTH];
        size_t i;

        SHA256(certificate.data, certificate.size, digest);
        for (i = 0; i < sizeof(digest); i++) {
                key->identity[2 * i] = (uint8_t)digits[digest[i] >> 4];
                key->identity[2 * i + 1] = (uint8_t)digits[digest[i] & 15];
        }
        key->identity_size = 2 * sizeof(digest);
}

int certificate_matches(struct device_key *key, struct device_bytes certificate) {
        const uint8_t *at = certificate.data;
        X509 *parsed = d2i_X509(NULL, &at, (long)certificate.size);
        EVP_PKEY *pair = key->key_size == 32 ? private_key(key->key) : NULL;
        bool is_ours = parsed && pair && EVP_PKEY_eq(X509_get0_pubkey(parsed), pair) == 1;

        if (is_ours)
                name_key(key, certificate);
        X509_free(parsed);
        EVP_PKEY_free(pair);
        return is_ours ? 0 : -1;
}

/* ---- a session ---- */

static bool show(SSL *ssl, const struct device_key *key) {
        struct device_bytes list = { key->certificate, key->certificate_size }, one;
        EVP_PKEY *pair = key->key_size == 32 ? private_key(key->key) : NULL;
        bool is_first = true, is_good = pair != NULL;
        X509 *parsed;

        while (is_good && device_next_certificate(&list, &one)) {
                const uint8_t *at = one.data;

                parsed = d2i_X509(NULL, &at, (long)one.size);
                is_good =
                        parsed && (is_first ? SSL_use_certificate(ssl, parsed) : SSL_add1_chain_cert(ssl, parsed)) == 1;
                is_first = false;
                X509_free(parsed);
        }
        is_good = is_good && SSL_use_PrivateKey(ssl, pair) == 1;
        EVP_PKEY_free(pair);
        return is_good;
}

/* Each anchor is trusted by itself, whoever has signed it; dates are the gateway's business. */
static bool trust(SSL *ssl, struct device_bytes anchors) {
        X509_STORE *store = X509_STORE_new();
        struct device_bytes one;
        bool is_good = store != NULL;
        X509 *parsed;

        while (is_good && device_next_certificate(&anchors, &one)) {
                const uint8_t *at = one.data;

                parsed = d2i_X509(NULL, &at, (long)one.size);
                is_good = !parsed || X509_STORE_add_cert(store, parsed) == 1;
                X509_free(parsed);
        }
        is_good = is_good && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME) == 1 &&
                  SSL_set1_verify_cert_store(ssl, store) == 1 && SSL_set1_host(ssl, DEVICE_GATEWAY_NAME) == 1;
        X509_STORE_free(store);
        SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
        return is_good;
}

bool certificate_use(SSL *ssl, const struct device_key *key, struct device_bytes anchors) {
        return SSL_set_cipher_list(ssl, SIM_CERTIFICATE_CIPHERS) == 1 && show(ssl, key) &&
               (anchors.size == 0 || trust(ssl, anchors));
}

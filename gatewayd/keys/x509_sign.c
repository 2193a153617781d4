/* SPDX-License-Identifier: Apache-2.0 */

/* Signing with a CA's key, wherever it is: in memory, behind an engine, or in a provider's device. */

#include "gatewayd/keys/x509_parts.h"

#include <openssl/err.h>
#include <openssl/provider.h>

#define SIGNATURE_MAX 2048

/* By strength, not by name: a key in a token tells its size, whatever else it can tell. */
const EVP_MD *x509_digest_for(EVP_PKEY *key) {
        int bits = EVP_PKEY_get_bits(key);

        if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
                return NULL;
        if (!EVP_PKEY_is_a(key, "EC"))
                return EVP_sha256();
        return bits > 384 ? EVP_sha512() : bits > 256 ? EVP_sha384() : EVP_sha256();
}

/* Left to itself OpenSSL takes the first provider that signs with this kind of key, hands it the public half of
 * a key in a TPM, and finds then that it does not sign. So the key's own is asked for. */
EVP_MD_CTX *x509_sign_begin(EVP_PKEY *key) {
        const OSSL_PROVIDER *provider = EVP_PKEY_get0_provider(key); /* NULL: an engine's */
        const EVP_MD *digest = x509_digest_for(key);
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        char wanted[128] = "";

        if (!context)
                oom();
        if (provider)
                snprintf(wanted, sizeof wanted, "?provider=%s", OSSL_PROVIDER_get0_name(provider));
        if ((provider ? EVP_DigestSignInit_ex(context, NULL, digest ? EVP_MD_get0_name(digest) : NULL, NULL, wanted,
                                              key, NULL)
                      : EVP_DigestSignInit(context, NULL, digest, NULL, key)) == 1)
                return context;
        EVP_MD_CTX_free(context);
        return NULL;
}

/* A provider tells the AlgorithmIdentifier itself, and tpm2 says NULL parameters with ECDSA, where there must be
 * none (RFC 5758 §3.2): strict readers refuse that. So for ECDSA of other providers than OpenSSL's own a
 * throw-away key signs first, which writes the algorithm, and then the signature is exchanged. */
static EVP_PKEY *stand_in_for(EVP_PKEY *key) {
        const OSSL_PROVIDER *provider = EVP_PKEY_get0_provider(key);
        int bits = EVP_PKEY_get_bits(key);

        if (!provider || strcmp(OSSL_PROVIDER_get0_name(provider), "default") == 0 || !EVP_PKEY_is_a(key, "EC"))
                return NULL;
        return EVP_EC_gen(bits > 384 ? "P-521" : bits > 256 ? "P-384" : "P-256");
}

/* Signs `der` and puts that in the place of `signature`, which OpenSSL shows as const; whoever makes a structure
 * may write it all the same. Frees `der`. */
static bool exchange_signature(EVP_MD_CTX *context, uint8_t *der, int der_size, const ASN1_BIT_STRING *signature) {
        ASN1_BIT_STRING *to = (ASN1_BIT_STRING *)(uintptr_t)signature;
        uint8_t made[SIGNATURE_MAX];
        size_t size = sizeof made;
        bool is_done = der_size > 0 && EVP_DigestSign(context, made, &size, der, (size_t)der_size) == 1 &&
                       ASN1_STRING_set(to, made, (int)size) == 1;

        OPENSSL_free(der);
        return is_done;
}

bool x509_sign_certificate(X509 *certificate, EVP_PKEY *key) {
        EVP_PKEY *stand_in = stand_in_for(key);
        EVP_MD_CTX *context = x509_sign_begin(key);
        bool is_signed = context != NULL;

        if (is_signed && !stand_in)
                is_signed = X509_sign_ctx(certificate, context) > 0;
        else if (is_signed && (is_signed = X509_sign(certificate, stand_in, x509_digest_for(key)) > 0)) {
                const ASN1_BIT_STRING *signature;
                uint8_t *der = NULL;
                int size = i2d_re_X509_tbs(certificate, &der);

                X509_get0_signature(&signature, NULL, certificate);
                is_signed = exchange_signature(context, der, size, signature);
        }
        EVP_MD_CTX_free(context);
        EVP_PKEY_free(stand_in);
        return is_signed;
}

bool x509_sign_crl(X509_CRL *crl, EVP_PKEY *key) {
        EVP_PKEY *stand_in = stand_in_for(key);
        EVP_MD_CTX *context = x509_sign_begin(key);
        bool is_signed = context != NULL;

        if (is_signed && !stand_in)
                is_signed = X509_CRL_sign_ctx(crl, context) > 0;
        else if (is_signed && (is_signed = X509_CRL_sign(crl, stand_in, x509_digest_for(key)) > 0)) {
                const ASN1_BIT_STRING *signature;
                uint8_t *der = NULL;
                int size = i2d_re_X509_CRL_tbs(crl, &der);

                X509_CRL_get0_signature(crl, &signature, NULL);
                is_signed = exchange_signature(context, der, size, signature);
        }
        EVP_MD_CTX_free(context);
        EVP_PKEY_free(stand_in);
        return is_signed;
}

bool x509_sign_request(X509_REQ *request, EVP_PKEY *key) {
        EVP_PKEY *stand_in = stand_in_for(key);
        EVP_MD_CTX *context = x509_sign_begin(key);
        bool is_signed = context != NULL;

        if (is_signed && !stand_in)
                is_signed = X509_REQ_sign_ctx(request, context) > 0;
        else if (is_signed && (is_signed = X509_REQ_sign(request, stand_in, x509_digest_for(key)) > 0)) {
                const ASN1_BIT_STRING *signature;
                uint8_t *der = NULL;
                int size = i2d_re_X509_REQ_tbs(request, &der);

                X509_REQ_get0_signature(request, &signature, NULL);
                is_signed = exchange_signature(context, der, size, signature);
        }
        EVP_MD_CTX_free(context);
        EVP_PKEY_free(stand_in);
        return is_signed;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates in the handshake: which one of ours a client sees, asking core about the client's, and
 * the clients that offer certificate suites without owning a certificate. What a certificate is worth
 * is core's to say: OpenSSL checks here that the client holds its key, nothing else. */

#include "coap/dtls_parts.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509.h>

/* What a client may sign its handshake with, and what ours may be signed with, in this order. Which key a
 * device may have is its profile's business; SHA-1 and MD5 are nobody's. */
#define SIGNATURES                                                                                                     \
        "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:"                                                              \
        "RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA256:RSA+SHA384:RSA+SHA512"
/* The first OpenSSL reason that stands for an alert of the peer's. */
#define REASON_OF_ALERTS SSL_AD_REASON_OFFSET

/* ---- ours ---- */

static void credentials_clear(struct server_pair *pair) {
        EVP_PKEY_free(pair->key); /* OpenSSL wipes it with its last reference */
        X509_free(pair->leaf);
        sk_X509_pop_free(pair->intermediates, X509_free);
        *pair = (struct server_pair){ 0 };
}

static int read_chain(struct bytes der, struct server_pair *pair) {
        const uint8_t *at = der.data, *end = der.data + der.size;

        pair->intermediates = sk_X509_new_null();
        if (!pair->intermediates)
                oom();
        while (at < end) {
                X509 *certificate = d2i_X509(NULL, &at, end - at);

                if (!certificate)
                        return -EINVAL;
                if (!pair->leaf)
                        pair->leaf = certificate;
                else if (sk_X509_push(pair->intermediates, certificate) <= 0)
                        oom();
        }
        return pair->leaf ? 0 : -EINVAL;
}

static int read_key(struct bytes der, EVP_PKEY **ret) {
        const uint8_t *at = der.data;
        PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)der.size);

        if (info && at == der.data + der.size)
                *ret = EVP_PKCS82PKEY(info);
        PKCS8_PRIV_KEY_INFO_free(info);
        return *ret ? 0 : -EINVAL;
}

/* As a handshake will do it, so that what does not work is known before the first one. OpenSSL 3.0 takes an
 * Ed25519 key but chooses no suite for it in DTLS; who signed the certificate does not matter to it. */
static bool is_usable(const struct dtls *dtls, const struct server_pair *pair) {
        SSL *ssl;
        bool r;

        if (!EVP_PKEY_is_a(pair->key, "EC"))
                return false;
        ssl = SSL_new(dtls->context);
        if (!ssl)
                oom();
        r = SSL_use_cert_and_key(ssl, pair->leaf, pair->key, pair->intermediates, 1) == 1;
        SSL_free(ssl);
        return r;
}

int dtls_use_credentials(struct dtls *dtls, struct bytes key, struct bytes chain) {
        struct server_pair pair = { 0 };

        ERR_clear_error();
        if (key.size > 0 || chain.size > 0) {
                if (read_key(key, &pair.key) < 0 || read_chain(chain, &pair) < 0 || !is_usable(dtls, &pair)) {
                        credentials_clear(&pair);
                        ERR_clear_error();
                        return -EINVAL;
                }
        }
        credentials_clear(&dtls->pair);
        dtls->pair = pair;
        return 0;
}

/* ---- which suites a client is offered ---- */

static bool offers_psk(SSL *ssl) {
        STACK_OF(SSL_CIPHER) *offered = SSL_get_client_ciphers(ssl), *ours = SSL_get_ciphers(ssl);

        for (int i = 0; i < sk_SSL_CIPHER_num(offered); i++) {
                const SSL_CIPHER *suite = sk_SSL_CIPHER_value(offered, i);

                if (SSL_CIPHER_get_auth_nid(suite) == NID_auth_psk &&
                    sk_SSL_CIPHER_find(ours, (SSL_CIPHER *)suite) >= 0)
                        return true;
        }
        return false;
}

/* A ClientHello whose cookie is right is about to be answered. Each handshake takes the credentials in
 * force now and keeps them to its end; without any OpenSSL chooses no certificate suite. */
static int certificate_wanted(SSL *ssl, void *userdata) {
        struct session *session = SSL_get_app_data(ssl);
        struct dtls *dtls = session->dtls;
        const struct server_pair *pair = &dtls->pair;

        (void)userdata;
        session->offers_psk = offers_psk(ssl);
        if (!pair->leaf || (session->offers_psk && marks_has(dtls->marks, &session->peer, dtls->now_usec)))
                return 1;
        return SSL_use_cert_and_key(ssl, pair->leaf, pair->key, pair->intermediates, 1);
}

void dtls_certificate_failed(struct session *session, unsigned long reason) {
        const SSL_CIPHER *suite = SSL_get_pending_cipher(session->ssl);
        bool has_none = reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;

        if (has_none) {
                session->has_failure = true;
                session->failure = FAILED_NO_CERTIFICATE;
        }
        /* A client that has no anchors for our certificate says so by an alert instead. Whoever offers no
         * PSK is not helped by a mark, and his neighbours are not to feel it. */
        if (session->offers_psk &&
            (has_none || (reason >= REASON_OF_ALERTS && suite && SSL_CIPHER_get_auth_nid(suite) == NID_auth_ecdsa)))
                marks_add(session->dtls->marks, &session->peer, session->dtls->now_usec);
}

/* ---- the client's ---- */

static void keep_chain(struct session *session, X509_STORE_CTX *sent) {
        STACK_OF(X509) *certificates = X509_STORE_CTX_get0_untrusted(sent);

        session->chain.size = 0;
        for (int i = 0; i < sk_X509_num(certificates); i++) {
                X509 *certificate = sk_X509_value(certificates, i);
                int size = i2d_X509(certificate, NULL);
                uint8_t *to;

                if (size <= 0)
                        continue;
                to = buffer_reserve(&session->chain, (size_t)size);
                session->chain.size += (size_t)i2d_X509(certificate, &to);
        }
}

/* OpenSSL makes an alert of it (RFC 5246 §7.2.2). It has none that becomes access_denied: that one is
 * written over the other on its way out. */
static int error_of(struct session *session, enum certificate_verdict verdict) {
        switch (verdict) {
        case CERTIFICATE_ACCEPTED:
                return X509_V_OK;
        case CERTIFICATE_UNKNOWN_CA:
                return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;
        case CERTIFICATE_EXPIRED:
                return X509_V_ERR_CERT_HAS_EXPIRED;
        case CERTIFICATE_REVOKED:
                return X509_V_ERR_CERT_REVOKED;
        case CERTIFICATE_BAD:
                return X509_V_ERR_CERT_REJECTED;
        case CERTIFICATE_REFUSED:
        default:
                session->alert = SSL_AD_ACCESS_DENIED;
                return X509_V_ERR_CERT_REJECTED;
        }
}

static int certificate_came(X509_STORE_CTX *sent, void *userdata) {
        SSL *ssl = X509_STORE_CTX_get_ex_data(sent, SSL_get_ex_data_X509_STORE_CTX_idx());
        struct session *session = SSL_get_app_data(ssl);
        const struct dtls_handlers *handlers = &session->dtls->handlers;
        enum certificate_verdict verdict = CERTIFICATE_REFUSED;
        int r, error;

        (void)userdata;
        keep_chain(session, sent);
        r = session->chain.size > CERTIFICATES_MAX
                    ? 0
                    : handlers->certificate(handlers->userdata, session, buffer_bytes(&session->chain), &verdict);
        if (r >= 0 && verdict == CERTIFICATE_ACCEPTED) {
                X509_STORE_CTX_set_error(sent, X509_V_OK);
                return 1;
        }
        session->has_failure = true;
        session->failure = r < 0 ? FAILED_NO_ANSWER : FAILED_CERTIFICATE;
        /* No answer is our trouble: internal_error tells a device nothing about its certificate. */
        error = r < 0 ? X509_V_ERR_UNSPECIFIED : error_of(session, verdict);
        X509_STORE_CTX_set_error(sent, error);
        return 0;
}

/* RFC 5929 §3.1: of a full handshake, which all are here, it is the client's Finished. */
static void keep_tls_unique(struct session *session) {
        session->tls_unique_size = 0;
        if (SSL_get_extms_support(session->ssl) == 1)
                session->tls_unique_size =
                        SSL_get_peer_finished(session->ssl, session->tls_unique, sizeof session->tls_unique);
        if (session->tls_unique_size > sizeof session->tls_unique)
                session->tls_unique_size = 0;
}

void dtls_certificates_done(struct session *session) {
        int exchange = SSL_CIPHER_get_kx_nid(SSL_get_current_cipher(session->ssl));

        session->has_forward_secrecy = exchange == NID_kx_ecdhe || exchange == NID_kx_ecdhe_psk;
        keep_tls_unique(session);
        /* Credentials that were replaced go with the last handshake that began with them. */
        SSL_certs_clear(session->ssl);
}

/* ---- the context ---- */

int dtls_certificates_configure(struct dtls *dtls) {
        static const unsigned char name[] = "gatewayd";
        SSL_CTX *context = dtls->context;

        if (!SSL_CTX_set1_sigalgs_list(context, SIGNATURES) || !SSL_CTX_set1_client_sigalgs_list(context, SIGNATURES) ||
            !SSL_CTX_set_session_id_context(context, name, sizeof name - 1))
                return 0;
        /* What core sends is the chain; nothing is to be found and added to it, least of all a root. */
        SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_cert_verify_callback(context, certificate_came, NULL);
        SSL_CTX_set_cert_cb(context, certificate_wanted, NULL);
        return 1;
}

void dtls_certificates_free(struct dtls *dtls) {
        credentials_clear(&dtls->pair);
}

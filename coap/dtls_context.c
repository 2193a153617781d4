/* SPDX-License-Identifier: Apache-2.0 */

/* What OpenSSL is told and asked: suites and curves, the cookie and PSK callbacks, and the BIO through
 * which it reads the datagram at hand and queues its own. */

#include "coap/dtls_parts.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

/* In this order (docs/PROTOCOL.md): certificates first, then forward secrecy, then what RFC 7925 makes
 * everybody have. OpenSSL chooses no ECDSA suite while there is no certificate. */
#define SUITES                                                                                                         \
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                                                 \
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8:"                                \
        "ECDHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256:PSK-AES128-CCM:PSK-AES128-CCM8"
#define CURVES "P-256:X25519:P-384"

#define HANDSHAKE_HEADER_BYTES 12  /* RFC 6347 §4.2.2 */
#define IDENTITY_MAX           128 /* RFC 4279 §5.3 */
#define ALERT_BYTES            (DTLS1_RT_HEADER_LENGTH + 2)

/* A fatal alert that is not encrypted, alone in its datagram: header, epoch 0, level, description. */
static bool is_plain_alert(const char *data, int size) {
        return size == ALERT_BYTES && data[0] == SSL3_RT_ALERT && data[3] == 0 && data[4] == 0 &&
               data[ALERT_BYTES - 2] == SSL3_AL_FATAL;
}

static int bio_write(BIO *bio, const char *data, int size) {
        struct session *session = BIO_get_data(bio);

        uint8_t alert[ALERT_BYTES];

        BIO_clear_retry_flags(bio);
        if (session->alert && is_plain_alert(data, size)) {
                memcpy(alert, data, sizeof alert);
                alert[sizeof alert - 1] = session->alert;
                data = (const char *)alert;
        }
        datagrams_send(session->dtls->datagrams, &session->peer, BYTES(data, (size_t)size));
        return size;
}

static int bio_read(BIO *bio, char *to, int size) {
        struct session *session = BIO_get_data(bio);
        struct dtls *dtls = session->dtls;
        size_t count = dtls->current.size;

        BIO_clear_retry_flags(bio);
        if (dtls->reader != session || !dtls->current.data) {
                BIO_set_retry_read(bio);
                return -1;
        }
        if (count > (size_t)size)
                count = (size_t)size;
        memcpy(to, dtls->current.data, count);
        dtls->current = BYTES(NULL, 0);
        return (int)count;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
        const struct session *session = BIO_get_data(bio);

        (void)number;
        switch (command) {
        case BIO_CTRL_FLUSH:
        case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
                return 1;
        case BIO_CTRL_DGRAM_QUERY_MTU:
                return session->dtls->settings.mtu;
        case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD:
                return 28; /* of IP and UDP; our MTU is without them */
        case BIO_CTRL_DGRAM_GET_PEER:
                /* DTLSv1_listen() copies it for its caller, who knows it better. */
                BIO_ADDR_clear(pointer);
                return 1;
        default:
                return 0;
        }
}

static int cookie_generate(SSL *ssl, unsigned char *cookie, unsigned *size) {
        const struct session *session = SSL_get_app_data(ssl);

        cookie_make(&session->dtls->cookies, &session->peer, cookie);
        *size = COOKIE_BYTES;
        return 1;
}

static int cookie_verify(SSL *ssl, const unsigned char *cookie, unsigned size) {
        const struct session *session = SSL_get_app_data(ssl);

        return cookie_is_right(&session->dtls->cookies, &session->peer, BYTES(cookie, size));
}

/* Sees each handshake message whole, before OpenSSL looks into it. From the ClientKeyExchange it
 * takes the length of the PSK identity, which the PSK callback gets as a C string: an identity with a
 * NUL inside would arrive cut short, as somebody else's. */
static void message_seen(int is_write, int version, int content_type, const void *data, size_t size, SSL *ssl,
                         void *userdata) {
        struct session *session = SSL_get_app_data(ssl);
        const SSL_CIPHER *suite;
        const uint8_t *message = data;

        (void)version;
        (void)userdata;
        if (is_write || content_type != SSL3_RT_HANDSHAKE || size < HANDSHAKE_HEADER_BYTES + 2 ||
            message[0] != SSL3_MT_CLIENT_KEY_EXCHANGE)
                return;
        suite = SSL_get_pending_cipher(ssl);
        if (!suite || SSL_CIPHER_get_auth_nid(suite) != NID_auth_psk)
                return; /* a point, and no identity */
        session->identity_size = (size_t)message[HANDSHAKE_HEADER_BYTES] << 8 | message[HANDSHAKE_HEADER_BYTES + 1];
}

static unsigned refuse(struct session *session, enum handshake_failure failure) {
        session->has_failure = true;
        session->failure = failure;
        return 0; /* unknown_psk_identity */
}

static unsigned psk_wanted(SSL *ssl, const char *identity, unsigned char *key, unsigned key_max) {
        struct session *session = SSL_get_app_data(ssl);
        const struct dtls_handlers *handlers = &session->dtls->handlers;
        const SSL_CIPHER *suite = SSL_get_pending_cipher(ssl);
        _cleanup_(secret_wipe) struct secret secret = { 0 };
        size_t size = strlen(identity);
        int r;

        session->identity.size = 0;
        buffer_append(&session->identity, BYTES(identity, size > IDENTITY_MAX ? IDENTITY_MAX : size));
        session->has_forward_secrecy = suite && (SSL_CIPHER_get_kx_nid(suite) == NID_kx_ecdhe_psk ||
                                                 SSL_CIPHER_get_kx_nid(suite) == NID_kx_dhe_psk);
        if (size != session->identity_size || size == 0 || size > IDENTITY_MAX)
                return refuse(session, FAILED_UNKNOWN_IDENTITY);

        r = handlers->key(handlers->userdata, session, buffer_bytes(&session->identity), &secret);
        if (r == -ENOENT)
                return refuse(session, FAILED_UNKNOWN_IDENTITY);
        if (r < 0 || secret.size > key_max) {
                /* Our trouble, not the device's: more than a key can have makes OpenSSL say
                 * internal_error, which tells a device nothing about its key. */
                (void)refuse(session, FAILED_NO_ANSWER);
                return PSK_MAX_PSK_LEN + 1;
        }
        memcpy(key, secret.data, secret.size);
        session->is_identity_known = true;
        return (unsigned)secret.size;
}

/* Flights go out again after 1, 2, 4 and then every 5 s: a hello that is sent again is not answered by
 * itself, so a device on a bad link must not wait long for ours. OpenSSL gives up after the twelfth. */
static unsigned flight_timer(SSL *ssl, unsigned last_usec) {
        (void)ssl;
        if (last_usec == 0)
                return 1000000;
        return last_usec >= 2500000 ? 5000000 : 2 * last_usec;
}

static int context_configure(SSL_CTX *context) {
        return SSL_CTX_set_min_proto_version(context, DTLS1_2_VERSION) &&
               SSL_CTX_set_max_proto_version(context, DTLS1_2_VERSION) && SSL_CTX_set_cipher_list(context, SUITES) &&
               SSL_CTX_set1_groups_list(context, CURVES);
}

static int bio_method_new(struct dtls *dtls) {
        int index = BIO_get_new_index();

        if (index < 0)
                return 0;
        dtls->bio_method = BIO_meth_new(index | BIO_TYPE_SOURCE_SINK, "gatewayd datagrams");
        return dtls->bio_method && BIO_meth_set_write(dtls->bio_method, bio_write) &&
               BIO_meth_set_read(dtls->bio_method, bio_read) && BIO_meth_set_ctrl(dtls->bio_method, bio_ctrl);
}

int dtls_context_new(struct dtls *dtls, struct problem *problem) {
        SSL_CTX *context;

        /* No configuration file of the system may open or close what is offered here. */
        if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
                                      OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                              NULL))
                return problem_set(problem, CODE_INTERNAL, EIO, "DTLS", "OpenSSL does not initialise");
        context = dtls->context = SSL_CTX_new(DTLS_server_method());
        dtls->listener_peer = BIO_ADDR_new();
        if (!context || !dtls->listener_peer || !bio_method_new(dtls))
                oom();
        /* The lists above say exactly what is allowed; a level would only take CCM8 away. */
        SSL_CTX_set_security_level(context, 0);
        if (!context_configure(context) || !dtls_certificates_configure(dtls)) {
                char reason[160];

                ERR_error_string_n(ERR_peek_last_error(), reason, sizeof reason);
                return problem_set(problem, CODE_INTERNAL, EIO, "DTLS", "OpenSSL refuses the cipher suites: %s",
                                   reason);
        }
        /* A resumed session would skip the PSK callback, so a revoked key would live on. */
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                             SSL_OP_NO_QUERY_MTU | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                             SSL_OP_COOKIE_EXCHANGE);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        /* Half-open sessions hold what the peer claims to send. */
        SSL_CTX_set_max_cert_list(context, CERTIFICATES_MAX);
        SSL_CTX_set_read_ahead(context, 1);
        SSL_CTX_set_cookie_generate_cb(context, cookie_generate);
        SSL_CTX_set_cookie_verify_cb(context, cookie_verify);
        SSL_CTX_set_psk_server_callback(context, psk_wanted);
        SSL_CTX_set_msg_callback(context, message_seen);
        return 0;
}

void dtls_context_free(struct dtls *dtls) {
        BIO_ADDR_free(dtls->listener_peer);
        dtls_certificates_free(dtls);
        SSL_CTX_free(dtls->context);
        BIO_meth_free(dtls->bio_method);
}

struct session *dtls_session_new(struct dtls *dtls) {
        struct session *session = xcalloc(1, sizeof *session);
        BIO *bio = BIO_new(dtls->bio_method);

        session->dtls = dtls;
        session->ssl = SSL_new(dtls->context);
        if (!session->ssl || !bio)
                oom();
        session->identity_size = SIZE_MAX;
        BIO_set_data(bio, session);
        BIO_set_init(bio, 1);
        SSL_set_bio(session->ssl, bio, bio);
        SSL_set_app_data(session->ssl, session);
        SSL_set_accept_state(session->ssl);
        SSL_set_mtu(session->ssl, dtls->settings.mtu);
        DTLS_set_timer_cb(session->ssl, flight_timer);
        return session;
}

void dtls_session_free(struct session *session) {
        if (!session)
                return;
        SSL_free(session->ssl);
        buffer_free(&session->identity);
        buffer_free(&session->chain);
        free(session);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* A DTLS 1.2 client session on OpenSSL: the transport under one device. The BIO is ours, so
 * that datagrams can be lost on the way, in both directions and below DTLS. */

#include "sim.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

#define NO_ALERT     255
#define DATAGRAM_MAX 2048

/* ---- the BIO ---- */

static int bio_write(BIO *bio, const char *data, int size) {
        struct session *session = BIO_get_data(bio);

        BIO_clear_retry_flags(bio);
        if (dice_happens(&session->dice, session->settings->loss)) {
                session->settings->datagrams_lost++;
                return size;
        }
        /* Whatever keeps a datagram from leaving is a loss like any other. */
        (void)!send(session->socket, data, (size_t)size, MSG_DONTWAIT);
        return size;
}

static int bio_read(BIO *bio, char *data, int size) {
        struct session *session = BIO_get_data(bio);
        size_t n = session->incoming_size < (size_t)size ? session->incoming_size : (size_t)size;

        BIO_clear_retry_flags(bio);
        if (!session->incoming) {
                BIO_set_retry_read(bio);
                return -1;
        }
        memcpy(data, session->incoming, n);
        session->incoming = NULL;
        return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
        (void)bio;
        (void)number;
        (void)pointer;
        switch (command) {
        case BIO_CTRL_FLUSH:
        case BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT:
                return 1;
        case BIO_CTRL_DGRAM_QUERY_MTU:
        case BIO_CTRL_DGRAM_GET_FALLBACK_MTU:
                return 1280;
        case BIO_CTRL_DGRAM_GET_MTU_OVERHEAD:
                return 28;
        default:
                return 0;
        }
}

static BIO *bio_new(struct session *session) {
        static BIO_METHOD *method; /* constant once made */
        BIO *bio;

        if (!method) {
                method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "lossy datagrams");
                if (!method)
                        return NULL;
                BIO_meth_set_write(method, bio_write);
                BIO_meth_set_read(method, bio_read);
                BIO_meth_set_ctrl(method, bio_ctrl);
        }
        bio = BIO_new(method);
        if (bio) {
                BIO_set_data(bio, session);
                BIO_set_init(bio, 1);
        }
        return bio;
}

/* ---- settings ---- */

static unsigned show_key(SSL *ssl, const char *hint, char *identity, unsigned identity_max, unsigned char *key,
                         unsigned key_max) {
        const struct session *session = SSL_get_app_data(ssl);

        (void)hint;
        if (session->key.identity_size >= identity_max || session->key.key_size > key_max)
                return 0;
        memcpy(identity, session->key.identity, session->key.identity_size);
        identity[session->key.identity_size] = 0;
        memcpy(key, session->key.key, session->key.key_size);
        return session->key.key_size;
}

static void note_alert(const SSL *ssl, int where, int value) {
        struct session *session = SSL_get_app_data(ssl);

        if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL)
                session->alert = (uint8_t)value;
}

static int resolve(struct session_settings *settings, const char *gateway) {
        struct addrinfo hints = { .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV }, *found;
        const char *colon = strrchr(gateway, ':');
        char host[256];
        size_t size = colon ? (size_t)(colon - gateway) : 0;
        int r;

        if (!colon || size == 0 || size >= sizeof(host)) {
                fprintf(stderr, "gateway-sim: \"%s\" is not ADDRESS:PORT\n", gateway);
                return -EINVAL;
        }
        if (gateway[0] == '[' && colon[-1] == ']') { /* IPv6 in brackets */
                gateway++;
                size -= 2;
        }
        memcpy(host, gateway, size);
        host[size] = 0;
        r = getaddrinfo(host, colon + 1, &hints, &found);
        if (r != 0) {
                fprintf(stderr, "gateway-sim: %s: %s\n", host, gai_strerror(r));
                return -EINVAL;
        }
        memcpy(&settings->gateway, found->ai_addr, found->ai_addrlen);
        settings->gateway_size = found->ai_addrlen;
        freeaddrinfo(found);
        return 0;
}

int session_settings_init(struct session_settings *settings, const struct sim_options *options) {
        SSL_CTX *context;

        settings->loss = options->loss;
        settings->handshake_timeout_ms = options->handshake_timeout_ms;
        settings->first_timeout_ms = options->ack_timeout_ms / 2;
        settings->spreads_addresses = options->spreads_addresses;
        if (resolve(settings, options->gateway) < 0)
                return -EINVAL;

        context = settings->context = SSL_CTX_new(DTLS_client_method());
        if (!context)
                return -ENOMEM;
        SSL_CTX_set_min_proto_version(context, DTLS1_2_VERSION);
        if (SSL_CTX_set_cipher_list(context, options->ciphers) != 1) {
                fprintf(stderr, "gateway-sim: no cipher suite of OpenSSL in \"%s\"\n", options->ciphers);
                return -EINVAL;
        }
        SSL_CTX_set_psk_client_callback(context, show_key);
        SSL_CTX_set_info_callback(context, note_alert);
        SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_QUERY_MTU);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_read_ahead(context, 1);
        return 0;
}

void session_settings_free(struct session_settings *settings) {
        SSL_CTX_free(settings->context);
        settings->context = NULL;
}

/* ---- a session ---- */

int session_open(struct session *session, struct session_settings *settings, const struct session_owner *owner,
                 unsigned number) {
        struct sockaddr_in from = { .sin_family = AF_INET };
        uint32_t host = 0x7f010001U + (number / 250 << 8) + number % 250; /* 127.1.0.1 and on */

        *session = (struct session){ .settings = settings, .owner = *owner, .alert = NO_ALERT };
        dice_seed(&session->dice, settings->seed, UINT64_C(0x2000000) + number);
        session->socket = socket(settings->gateway.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (session->socket < 0)
                return -errno;
        from.sin_addr.s_addr = htonl(host);
        if (settings->spreads_addresses && settings->gateway.ss_family == AF_INET &&
            bind(session->socket, (struct sockaddr *)&from, sizeof(from)) < 0)
                return -errno;
        if (connect(session->socket, (struct sockaddr *)&settings->gateway, settings->gateway_size) < 0)
                return -errno;
        return 0;
}

static void drop(struct session *session) {
        SSL_free(session->ssl);
        session->ssl = NULL;
        session->is_open = false;
        session->is_broken = false;
        session->generation++;
}

void session_close(struct session *session) {
        drop(session);
        if (session->socket > 0)
                close(session->socket);
        session->socket = -1;
}

/* Alerts that speak of the key. close_notify, internal_error, handshake_failure (no suite in common) and
 * the rest say that the gateway cannot serve now, which is no refusal. */
static bool alert_refuses(uint8_t alert, bool is_certificate) {
        switch (alert) {
        case SSL_AD_UNKNOWN_PSK_IDENTITY:
        case SSL_AD_ACCESS_DENIED:
        case SSL_AD_DECRYPT_ERROR:
        case SSL_AD_BAD_RECORD_MAC:
                return true;
        case SSL_AD_BAD_CERTIFICATE:
        case SSL_AD_CERTIFICATE_REVOKED:
        case SSL_AD_CERTIFICATE_EXPIRED:
        case SSL_AD_CERTIFICATE_UNKNOWN:
        case SSL_AD_UNKNOWN_CA:
                return is_certificate;
        default:
                return false;
        }
}

static void ended(struct session *session) {
        bool is_refused = !session->is_open && alert_refuses(session->alert, session->key.certificate_size > 0);

        drop(session);
        if (is_refused)
                session->owner.refused(session->owner.user);
        else
                session->owner.lost(session->owner.user);
}

/* Whether OpenSSL merely waits for the next datagram. */
static bool merely_waits(struct session *session, int result) {
        int error = SSL_get_error(session->ssl, result);

        ERR_clear_error();
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

static unsigned next_timeout(SSL *ssl, unsigned timeout_us) {
        const struct session *session = SSL_get_app_data(ssl);

        if (timeout_us == 0)
                return session->settings->first_timeout_ms * 1000;
        return timeout_us > 30000000 ? 60000000 : timeout_us * 2;
}

static uint64_t time_limit(const struct session *session) {
        return real_ms() + session->settings->handshake_timeout_ms;
}

void session_connect(struct session *session, const struct device_key *key, struct device_bytes anchors) {
        BIO *bio;
        int r;

        session_disconnect(session, true);
        session->generation++;
        session->key = *key;
        session->alert = NO_ALERT;
        session->give_up_at = time_limit(session);
        session->ssl = SSL_new(session->settings->context);
        bio = session->ssl ? bio_new(session) : NULL;
        if (!bio) {
                session->is_broken = true;
                return;
        }
        SSL_set_app_data(session->ssl, session);
        SSL_set_bio(session->ssl, bio, bio);
        if (key->certificate_size > 0 && !certificate_use(session->ssl, key, anchors)) {
                session->is_broken = true;
                return;
        }
        SSL_set_mtu(session->ssl, 1252);
        SSL_set_connect_state(session->ssl);
        if (session->settings->first_timeout_ms > 0)
                DTLS_set_timer_cb(session->ssl, next_timeout);
        ERR_clear_error();
        r = SSL_do_handshake(session->ssl);
        if (r != 1 && !merely_waits(session, r))
                session->is_broken = true; /* told from the loop: callbacks do not nest */
}

void session_disconnect(struct session *session, bool silently) {
        if (session->ssl && session->is_open && !silently) {
                ERR_clear_error();
                (void)SSL_shutdown(session->ssl);
        }
        drop(session);
}

int session_send(struct session *session, const uint8_t *data, size_t size) {
        if (!session->ssl || !session->is_open)
                return -1;
        ERR_clear_error();
        return SSL_write(session->ssl, data, (int)size) > 0 ? 0 : -1;
}

/* Lets OpenSSL work on the datagram at hand and passes on what comes of it. A callback may have ended
 * this SSL, and begun another: then there is nothing more to do here. */
static void proceed(struct session *session) {
        uint64_t generation = session->generation;
        uint8_t data[DATAGRAM_MAX];
        int r;

        ERR_clear_error();
        if (!session->is_open) {
                r = SSL_do_handshake(session->ssl);
                if (r != 1) {
                        if (!merely_waits(session, r))
                                ended(session);
                        return;
                }
                session->is_open = true;
                session->owner.connected(session->owner.user);
                if (session->generation != generation)
                        return;
        }
        while ((r = SSL_read(session->ssl, data, sizeof(data))) > 0) {
                session->owner.datagram(session->owner.user, data, (size_t)r);
                if (session->generation != generation)
                        return;
        }
        if (!merely_waits(session, r))
                ended(session);
}

void session_readable(struct session *session) {
        uint8_t data[DATAGRAM_MAX];
        ssize_t size;
        int i;

        for (i = 0; i < 16; i++) { /* others want their turn too */
                size = recv(session->socket, data, sizeof(data), MSG_DONTWAIT);
                if (size < 0 && errno == ECONNREFUSED)
                        continue; /* anybody can send an ICMP message: only DTLS is believed */
                if (size < 0)
                        return;
                if (dice_happens(&session->dice, session->settings->loss)) {
                        session->settings->datagrams_lost++;
                        continue;
                }
                if (!session->ssl)
                        continue;
                session->incoming = data;
                session->incoming_size = (size_t)size;
                proceed(session);
                session->incoming = NULL;
        }
}

void session_timer(struct session *session) {
        if (session->is_broken || (session->ssl && !session->is_open && real_ms() >= session->give_up_at)) {
                ended(session);
                return;
        }
        if (!session->ssl)
                return;
        ERR_clear_error();
        if (DTLSv1_handle_timeout(session->ssl) < 0 && !session->is_open)
                ended(session);
}

uint64_t session_deadline(const struct session *session) {
        struct timeval left;
        uint64_t at = DEVICE_NEVER, now = real_ms();

        if (session->is_broken)
                return now;
        if (!session->ssl)
                return DEVICE_NEVER;
        if (!session->is_open)
                at = session->give_up_at;
        if (DTLSv1_get_timeout(session->ssl, &left)) {
                uint64_t timer = now + (uint64_t)left.tv_sec * 1000 + (uint64_t)(left.tv_usec + 999) / 1000;

                at = timer < at ? timer : at;
        }
        return at;
}

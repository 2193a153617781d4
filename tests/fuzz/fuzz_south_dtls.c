/* SPDX-License-Identifier: Apache-2.0 */

/* What arrives on the UDP port: two devices, one with a key and one with a certificate, shake hands and talk
 * while the input loses, repeats, holds back, changes and invents datagrams. South must survive, and an
 * established session may end only by a word of its own device.
 *
 * The input is a row of steps of one byte and what that needs. */

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <unistd.h>

#include "coap/dtls.h"

#define CLIENTS  2
#define HELD_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct client {
        SSL *ssl;
        BIO *in, *out;
        int fd;
        struct peer peer;
        bool has_closed; /* said so itself, or began anew */
};

struct world {
        struct south_settings settings;
        uint64_t counters[SOUTH_COUNTERS];
        struct datagrams *datagrams;
        struct dtls *dtls;
        SSL_CTX *contexts[CLIENTS]; /* of the one with a key, of the one with a certificate */
        struct client clients[CLIENTS];
        struct sockaddr_in server;
        uint64_t now;
        struct bytes left;
        struct {
                uint8_t data[DATAGRAM_MAX];
                size_t size;
                unsigned client;
        } held[HELD_MAX];
        unsigned held_count;
        bool may_close;
};

static uint8_t next(struct world *world) {
        uint8_t byte;

        if (world->left.size == 0)
                return 0;
        byte = world->left.data[0];
        world->left = BYTES(world->left.data + 1, world->left.size - 1);
        return byte;
}

static int give_key(void *userdata, struct session *session, struct bytes identity, struct secret *ret) {
        (void)userdata;
        (void)session;
        if (!bytes_equal(identity, TEXT("dev")))
                return -ENOENT;
        return secret_set(ret, TEXT("0123456789abcdef"));
}

static int give_verdict(void *userdata, struct session *session, struct bytes chain, enum certificate_verdict *ret) {
        (void)userdata;
        (void)session;
        assert(chain.size > 0 && chain.size <= CERTIFICATES_MAX);
        *ret = chain.data[chain.size - 1] % 7 == 6 ? CERTIFICATE_REFUSED : CERTIFICATE_ACCEPTED;
        return 0;
}

static void connected(void *userdata, struct session *session, const char *suite) {
        (void)userdata;
        assert(suite && session->is_identity_known == (session->chain.size == 0));
        if (session->is_identity_known)
                assert(bytes_equal(buffer_bytes(&session->identity), TEXT("dev")));
}

static void failed(void *userdata, struct session *session) {
        (void)userdata;
        assert(session->has_failure && !session->was_established);
}

static void plaintext(void *userdata, struct session *session, struct bytes data) {
        (void)userdata;
        assert(session->state == SESSION_ESTABLISHED);
        assert(bytes_equal(data, TEXT("ping")));
        (void)dtls_write(session, TEXT("pong"));
}

static void closed(void *userdata, struct session *session) {
        struct world *world = userdata;

        /* Whatever was forged, garbled or repeated: it was the device's own close_notify, its own new
         * session, or the end of the test. */
        assert(world->may_close || session->reason == CLOSE_REPLACED || session->reason == CLOSE_BY_PEER);
        for (unsigned i = 0; i < CLIENTS; i++)
                if (peer_equal(&world->clients[i].peer, &session->peer))
                        assert(world->may_close || world->clients[i].has_closed);
}

static void exhausted(void *userdata) {
        (void)userdata;
}

static unsigned client_key(SSL *ssl, const char *hint, char *identity, unsigned identity_size, unsigned char *key,
                           unsigned key_size) {
        (void)ssl;
        (void)hint;
        assert(identity_size > 3 && key_size >= 16);
        memcpy(identity, "dev", 4);
        memcpy(key, "0123456789abcdef", 16);
        return 16;
}

static int loopback_socket(struct peer *bound) {
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
                abort();
        bound->size = sizeof bound->address.v4;
        if (getsockname(fd, &bound->address.any, &bound->size) < 0)
                abort();
        return fd;
}

static X509 *certificate_of(EVP_PKEY *key) {
        X509 *certificate = X509_new();

        X509_set_version(certificate, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
        X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
        X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
        X509_set_pubkey(certificate, key);
        if (!X509_sign(certificate, key, EVP_sha256()))
                abort();
        return certificate;
}

static void use_certificates(struct world *world, SSL_CTX *client) {
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *certificate = certificate_of(key);
        PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
        uint8_t *key_der = NULL, *der = NULL;
        int key_size = i2d_PKCS8_PRIV_KEY_INFO(info, &key_der), size = i2d_X509(certificate, &der);

        if (dtls_use_credentials(world->dtls, BYTES(key_der, (size_t)key_size), BYTES(der, (size_t)size)) < 0 ||
            SSL_CTX_use_cert_and_key(client, certificate, key, NULL, 1) != 1)
                abort();
        OPENSSL_free(key_der);
        OPENSSL_free(der);
        PKCS8_PRIV_KEY_INFO_free(info);
        X509_free(certificate);
        EVP_PKEY_free(key);
}

static SSL_CTX *client_context(const char *suites) {
        SSL_CTX *context = SSL_CTX_new(DTLS_client_method());

        SSL_CTX_set_cipher_list(context, suites);
        SSL_CTX_set_psk_client_callback(context, client_key);
        SSL_CTX_set_options(context, SSL_OP_NO_QUERY_MTU);
        return context;
}

static struct world *world_new(void) {
        struct world *world = xcalloc(1, sizeof *world);
        const struct dtls_handlers handlers = {
                give_key, give_verdict, connected, failed, plaintext, closed, exhausted, world,
        };
        struct problem problem = { 0 };
        struct peer server = { 0 };
        int fd = loopback_socket(&server);

        world->settings = south_settings_default;
        world->settings.max_sessions = world->settings.max_half_open = 8;
        world->server = server.address.v4;
        world->now = 1;
        if (datagrams_new(fd, world->counters, &world->datagrams) < 0 ||
            dtls_new(&world->settings, &handlers, world->datagrams, world->counters, world->now, &world->dtls,
                     &problem) < 0)
                abort();
        world->contexts[0] = client_context("PSK-AES128-CCM8:PSK-AES128-GCM-SHA256:@SECLEVEL=0");
        world->contexts[1] = client_context("PSK-AES128-CCM8:ECDHE-ECDSA-AES128-CCM8:@SECLEVEL=0");
        use_certificates(world, world->contexts[1]);
        for (unsigned i = 0; i < CLIENTS; i++)
                world->clients[i].fd = loopback_socket(&world->clients[i].peer);
        return world;
}

static void client_begin(struct world *world, struct client *client) {
        SSL_free(client->ssl);
        client->ssl = SSL_new(world->contexts[client - world->clients]);
        client->in = BIO_new(BIO_s_mem());
        client->out = BIO_new(BIO_s_mem());
        BIO_set_mem_eof_return(client->in, -1);
        SSL_set_bio(client->ssl, client->in, client->out);
        SSL_set_connect_state(client->ssl);
        SSL_set_mtu(client->ssl, 1200);
}

static void deliver(struct world *world, unsigned which, struct bytes data) {
        world->now += 1000;
        dtls_datagram(world->dtls, &world->clients[which].peer, data, world->now);
}

/* One datagram of a client: the input says what becomes of it. */
static void transmit(struct world *world, unsigned which, uint8_t *data, size_t size) {
        uint8_t what = next(world);

        switch (what & 7) {
        case 1: /* lost */
                return;
        case 2: /* twice */
                deliver(world, which, BYTES(data, size));
                break;
        case 3: /* held back */
                if (world->held_count < HELD_MAX) {
                        world->held[world->held_count].client = which;
                        world->held[world->held_count].size = size;
                        memcpy(world->held[world->held_count++].data, data, size);
                }
                return;
        case 4: /* changed */
                data[((size_t)next(world) << 8 | next(world)) % size] ^= (uint8_t)(next(world) | 1);
                break;
        case 5: /* cut short */
                size = ((size_t)next(world) << 8 | next(world)) % (size + 1);
                break;
        case 6: /* from the other's address */
                deliver(world, 1 - which, BYTES(data, size));
                break;
        default:
                break;
        }
        if (size > 0)
                deliver(world, which, BYTES(data, size));
}

static void client_flush(struct world *world, unsigned which) {
        uint8_t data[16384];
        int size = BIO_read(world->clients[which].out, data, sizeof data), at = 0;

        while (at + 13 <= size) {
                int record = 13 + (data[at + 11] << 8 | data[at + 12]);

                if (at + record > size || record > DATAGRAM_MAX)
                        break;
                transmit(world, which, data + at, (size_t)record);
                at += record;
        }
}

static void client_go_on(struct world *world, unsigned which) {
        struct client *client = &world->clients[which];
        uint8_t data[DATAGRAM_MAX];
        ssize_t size;

        datagrams_flush(world->datagrams);
        while ((size = recv(client->fd, data, sizeof data, 0)) > 0)
                BIO_write(client->in, data, (int)size);
        ERR_clear_error();
        if (!SSL_is_init_finished(client->ssl))
                (void)SSL_do_handshake(client->ssl);
        else
                while (SSL_read(client->ssl, data, sizeof data) > 0)
                        ;
        client_flush(world, which);
}

static void invent(struct world *world, unsigned which) {
        uint8_t data[64];
        size_t size = next(world) % sizeof data;

        for (size_t i = 0; i < size; i++)
                data[i] = next(world);
        deliver(world, which, BYTES(data, size));
}

static void step(struct world *world) {
        uint8_t what = next(world);
        unsigned which = what & 1;
        struct client *client = &world->clients[which];

        switch (what >> 1 & 7) {
        case 0:
        case 1:
        case 2:
                client_go_on(world, which);
                break;
        case 3:
                if (SSL_is_init_finished(client->ssl)) {
                        (void)SSL_write(client->ssl, "ping", 4);
                        client_flush(world, which);
                }
                break;
        case 4:
                invent(world, which);
                break;
        case 5: /* what was held back comes after all */
                while (world->held_count > 0) {
                        world->held_count--;
                        deliver(world, world->held[world->held_count].client,
                                BYTES(world->held[world->held_count].data, world->held[world->held_count].size));
                }
                break;
        case 6:
                world->now += (uint64_t)next(world) * 50000;
                (void)dtls_tick(world->dtls, world->now);
                break;
        default:
                client->has_closed = true;
                if (what & 0x10 && SSL_is_init_finished(client->ssl)) {
                        (void)SSL_shutdown(client->ssl);
                        client_flush(world, which);
                }
                client_begin(world, client);
                break;
        }
        dtls_reap(world->dtls);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static struct world *world;

        if (!world)
                world = world_new();
        world->left = BYTES(data, size);
        world->held_count = 0;
        world->may_close = false;
        for (unsigned i = 0; i < CLIENTS; i++) {
                client_begin(world, &world->clients[i]);
                world->clients[i].has_closed = false;
                client_go_on(world, i);
        }
        while (world->left.size > 0)
                step(world);
        world->may_close = true;
        dtls_end_all(world->dtls, CLOSE_SHUTDOWN);
        datagrams_flush(world->datagrams);
        for (unsigned i = 0; i < CLIENTS; i++) {
                uint8_t rest[DATAGRAM_MAX];

                while (recv(world->clients[i].fd, rest, sizeof rest, 0) > 0)
                        ;
        }
        assert(world->counters[SOUTH_SESSIONS] == 0 && world->counters[SOUTH_HALF_OPEN] == 0);
        return 0;
}

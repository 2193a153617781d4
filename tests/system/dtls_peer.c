/* SPDX-License-Identifier: Apache-2.0 */

/* A DTLS 1.2 client, with a PSK or a certificate, for tests that want to choose every datagram themselves: it makes the handshake
 * and then passes plain datagrams between standard input and output as lines of hex.
 *
 *   dtls_peer PORT IDENTITY KEY [local=PORT] [cipher=LIST] [session=FILE] [seconds=N]
 *             [certificate=FILE private_key=FILE]
 *
 * Says "connected SUITE new|resumed" or "failed REASON". Then takes "s HEX" (send), "c" (close_notify and
 * end), "x" (end without a word, as a device that loses power), and says "r HEX" for what came and
 * "closed" when the other side ended the session; "u" is answered with "u HEX", the session's tls-unique (RFC 5929
 * §3). With certificate= (PEM, leaf first) identity and key are not used. The server is not verified. With session=FILE a session is kept in the file and
 * offered again the next time. */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "gatewayd/bytes.h"

struct peer {
        const char *identity, *cipher, *session_path, *certificate, *private_key;
        struct bytes key;
        int local_port, seconds;
        int fd;
        SSL_CTX *context;
        SSL *ssl;
};

static const char *option(char **arguments, const char *name) {
        size_t size = strlen(name);

        for (; *arguments; arguments++)
                if (strncmp(*arguments, name, size) == 0 && (*arguments)[size] == '=')
                        return *arguments + size + 1;
        return NULL;
}

static unsigned give_key(SSL *ssl, const char *hint, char *identity, unsigned identity_size, unsigned char *key,
                         unsigned key_size) {
        struct peer *peer = SSL_get_app_data(ssl);

        (void)hint;
        if (strlen(peer->identity) >= identity_size || peer->key.size > key_size)
                return 0;
        snprintf(identity, identity_size, "%s", peer->identity);
        memcpy(key, peer->key.data, peer->key.size);
        return (unsigned)peer->key.size;
}

static int open_socket(const struct peer *peer, int port) {
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
        struct sockaddr_in from = { .sin_family = AF_INET, .sin_port = htons((uint16_t)peer->local_port) };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

        to.sin_addr.s_addr = from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
            bind(fd, (struct sockaddr *)&from, sizeof from) < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
                perror("dtls_peer");
                exit(2);
        }
        return fd;
}

static void keep_session(struct peer *peer) {
        FILE *file = peer->session_path ? fopen(peer->session_path, "w") : NULL;

        if (file) {
                PEM_write_SSL_SESSION(file, SSL_get_session(peer->ssl));
                fclose(file);
        }
}

static void offer_session(struct peer *peer) {
        FILE *file = peer->session_path ? fopen(peer->session_path, "r") : NULL;
        SSL_SESSION *session = file ? PEM_read_SSL_SESSION(file, NULL, NULL, NULL) : NULL;

        if (session && SSL_set_session(peer->ssl, session) != 1)
                exit(2);
        SSL_SESSION_free(session);
        if (file)
                fclose(file);
}

static void set_up(struct peer *peer, int port) {
        BIO_ADDR *address = BIO_ADDR_new();
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
        BIO *bio;

        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        peer->fd = open_socket(peer, port);
        peer->context = SSL_CTX_new(DTLS_client_method());
        SSL_CTX_set_security_level(peer->context, 0);
        if (SSL_CTX_set_cipher_list(peer->context, peer->cipher) != 1)
                exit(2);
        if (!peer->certificate)
                SSL_CTX_set_psk_client_callback(peer->context, give_key);
        else if (SSL_CTX_use_certificate_chain_file(peer->context, peer->certificate) != 1 ||
                 SSL_CTX_use_PrivateKey_file(peer->context, peer->private_key, SSL_FILETYPE_PEM) != 1)
                exit(2);
        peer->ssl = SSL_new(peer->context);
        SSL_set_app_data(peer->ssl, peer);
        bio = BIO_new_dgram(peer->fd, BIO_NOCLOSE);
        BIO_ADDR_rawmake(address, AF_INET, &to.sin_addr, sizeof to.sin_addr, to.sin_port);
        BIO_ctrl_set_connected(bio, address);
        BIO_ADDR_free(address);
        SSL_set_bio(peer->ssl, bio, bio);
        offer_session(peer);
}

static int64_t now_msec(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Drives the handshake with OpenSSL's own timer. Returns NULL or why it failed. */
static const char *handshake(struct peer *peer) {
        int64_t end = now_msec() + (int64_t)peer->seconds * 1000;

        while (now_msec() < end) {
                struct pollfd poller = { .fd = peer->fd, .events = POLLIN };
                struct timeval left;
                int r = SSL_connect(peer->ssl);

                if (r == 1)
                        return NULL;
                if (SSL_get_error(peer->ssl, r) != SSL_ERROR_WANT_READ) {
                        unsigned long error = ERR_peek_last_error();

                        return error ? ERR_reason_error_string(error) : "refused";
                }
                if (DTLSv1_get_timeout(peer->ssl, &left) != 1)
                        left = (struct timeval){ .tv_sec = 1 };
                if (poll(&poller, 1, (int)(left.tv_sec * 1000 + left.tv_usec / 1000) + 1) == 0)
                        DTLSv1_handle_timeout(peer->ssl);
                ERR_clear_error();
        }
        return "timeout";
}

static void say_received(struct peer *peer) {
        uint8_t data[4096];
        char hex[2 * sizeof data + 1];
        int n;

        while ((n = SSL_read(peer->ssl, data, sizeof data)) > 0) {
                bytes_to_hex(BYTES(data, (size_t)n), hex);
                printf("r %s\n", hex);
        }
        if (SSL_get_shutdown(peer->ssl) & SSL_RECEIVED_SHUTDOWN) {
                puts("closed");
                exit(0);
        }
        ERR_clear_error();
}

static void say_tls_unique(struct peer *peer) {
        uint8_t finished[64];
        char hex[2 * sizeof finished + 1];

        bytes_to_hex(BYTES(finished, SSL_get_finished(peer->ssl, finished, sizeof finished)), hex);
        printf("u %s\n", hex);
}

static void take_line(struct peer *peer) {
        static char line[8300];
        uint8_t data[4096];
        ssize_t n;

        if (!fgets(line, sizeof line, stdin) || line[0] == 'x')
                exit(0);
        if (line[0] == 'c') {
                SSL_shutdown(peer->ssl);
                exit(0);
        }
        if (line[0] == 'u') {
                say_tls_unique(peer);
                return;
        }
        n = hex_decode(BYTES(line + 2, strcspn(line + 2, "\n")), data, sizeof data);
        if (line[0] != 's' || n < 0 || SSL_write(peer->ssl, data, (int)n) != n)
                puts("failed to send");
}

int main(int argc, char **argv) {
        struct peer peer = { 0 };
        const char *failure;

        if (argc < 4)
                return 2;
        setvbuf(stdout, NULL, _IOLBF, 0);
        setvbuf(stdin, NULL, _IONBF, 0);
        peer.identity = argv[2];
        peer.key = bytes_of(argv[3]);
        peer.certificate = option(argv + 4, "certificate");
        peer.private_key = option(argv + 4, "private_key");
        peer.cipher = option(argv + 4, "cipher") ? option(argv + 4, "cipher")
                      : peer.certificate         ? "ECDHE-ECDSA-AES128-CCM8"
                                                 : "PSK-AES128-CCM8";
        peer.session_path = option(argv + 4, "session");
        peer.local_port = option(argv + 4, "local") ? atoi(option(argv + 4, "local")) : 0;
        peer.seconds = option(argv + 4, "seconds") ? atoi(option(argv + 4, "seconds")) : 10;
        set_up(&peer, atoi(argv[1]));
        failure = handshake(&peer);
        if (failure) {
                printf("failed %s\n", failure);
                return 1;
        }
        keep_session(&peer);
        printf("connected %s %s\n", SSL_get_cipher(peer.ssl), SSL_session_reused(peer.ssl) ? "resumed" : "new");
        for (;;) {
                struct pollfd pollers[] = { { .fd = peer.fd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };

                if (poll(pollers, 2, -1) < 0 && errno != EINTR)
                        return 2;
                if (pollers[0].revents)
                        say_received(&peer);
                if (pollers[1].revents)
                        take_line(&peer);
        }
}

/* SPDX-License-Identifier: Apache-2.0 */

/* One device on Mbed TLS: tests/sim/device.c behind the DTLS client that many real devices have, with its
 * default cipher suites and limits. Does one thing and says in one line of JSON how it went; its keys
 * are in a file, so the next call goes on where this one ended. */

#include "tests/system/mbedtls_certificates.h"
#include "tests/system/mbedtls_options.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecdsa.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/sha256.h>
#include <mbedtls/ssl.h>
#include <mbedtls/timing.h>

#define ALERT_NONE 255

struct client {
        struct options options;
        struct device device;
        struct device_memory memory;
        uint8_t factory_key[DEVICE_KEY_MAX];
        size_t factory_key_size;
        uint8_t idevid[DEVICE_CERTIFICATE_MAX], anchors[DEVICE_ANCHORS_MAX];
        size_t idevid_size, anchors_size;
        struct mbedtls_certificates certificates;
        uint8_t ueid[33], measurement[32];

        int socket, clock;
        enum { SESSION_NONE, SESSION_HANDSHAKE, SESSION_OPEN } session;
        uint64_t generation; /* of the session: callbacks may replace it */
        bool uses_certificate;
        uint8_t alert; /* of the latest handshake that failed */
        const char *suite;
        mbedtls_ssl_context ssl;
        mbedtls_ssl_config ssl_config;
        mbedtls_timing_delay_context timer;
        mbedtls_entropy_context entropy;
        mbedtls_ctr_drbg_context drbg;
        mbedtls_pk_context attest_key;
        unsigned events[DEVICE_EVENT_LOCKED_OUT + 1];
        unsigned rotations;
        bool was_operational;
};

/* ---- what device.c asks for ---- */

static uint64_t port_now(void *user) {
        const struct client *client = user;
        struct timespec now;
        int64_t offset = 0;

        clock_gettime(CLOCK_BOOTTIME, &now);
        if (client->clock >= 0 && pread(client->clock, &offset, sizeof offset, 0) != sizeof offset)
                offset = 0;
        return (uint64_t)(now.tv_sec + offset) * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void port_random(void *user, void *data, size_t size) {
        struct client *client = user;

        if (mbedtls_ctr_drbg_random(&client->drbg, data, size) != 0)
                die("random", "the generator failed");
}

static void end_session(struct client *client) {
        if (client->session == SESSION_OPEN)
                (void)mbedtls_ssl_close_notify(&client->ssl); /* it may be lost like any datagram */
        client->session = SESSION_NONE;
        client->generation++;
}

static int bio_send(void *user, const unsigned char *data, size_t size) {
        const struct client *client = user;

        (void)!send(client->socket, data, size, MSG_DONTWAIT); /* what does not leave is lost: UDP */
        return (int)size;
}

static int bio_receive(void *user, unsigned char *data, size_t size) {
        const struct client *client = user;
        ssize_t n = recv(client->socket, data, size, MSG_DONTWAIT);

        return n < 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)n;
}

/* A PSK device has no trust anchors: with a PSK suite the key itself authenticates both sides. */
static int configure_psk(mbedtls_ssl_config *config, const struct device_key *key) {
        mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_NONE);
        return mbedtls_ssl_conf_psk(config, key->key, key->key_size, key->identity, key->identity_size);
}

/* Mbed TLS's own defaults but for the key. */
static void port_connect(void *user, const struct device_key *key, struct device_bytes anchors) {
        struct client *client = user;
        mbedtls_ssl_config *config = &client->ssl_config;
        mbedtls_ssl_context *ssl = &client->ssl;

        end_session(client);
        mbedtls_ssl_free(ssl);
        mbedtls_ssl_config_free(config);
        mbedtls_ssl_init(ssl);
        mbedtls_ssl_config_init(config);
        if (mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                        MBEDTLS_SSL_PRESET_DEFAULT) != 0 ||
            (key->certificate_size > 0 ? certificates_configure(&client->certificates, config, key, anchors)
                                       : configure_psk(config, key)) != 0)
                die("Mbed TLS", "does not take this key");
        mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, &client->drbg);
        mbedtls_ssl_conf_handshake_timeout(config, 1000, 16000);
        if (mbedtls_ssl_setup(ssl, config) != 0 ||
            (key->certificate_size > 0 && mbedtls_ssl_set_hostname(ssl, DEVICE_GATEWAY_NAME) != 0))
                die("Mbed TLS", "cannot be set up");
        mbedtls_ssl_set_bio(ssl, client, bio_send, bio_receive, NULL);
        mbedtls_ssl_set_timer_cb(ssl, &client->timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
        client->uses_certificate = key->certificate_size > 0;
        client->alert = ALERT_NONE;
        client->session = SESSION_HANDSHAKE;
}

static void port_disconnect(void *user) {
        end_session(user);
}

static int port_send(void *user, const uint8_t *datagram, size_t size) {
        struct client *client = user;

        return mbedtls_ssl_write(&client->ssl, datagram, size) < 0 ? -1 : 0;
}

/* The old file or the new one, whenever the power goes. */
static int port_store(void *user, const struct device_memory *memory) {
        struct client *client = user;
        char path[4096];
        bool is_written;
        int fd;

        snprintf(path, sizeof path, "%s.new", client->options.state);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return -1;
        is_written = write(fd, memory, sizeof *memory) == sizeof *memory && fsync(fd) == 0;
        close(fd);
        return is_written && rename(path, client->options.state) == 0 ? 0 : -1;
}

static int port_sign(void *user, const uint8_t *message, size_t size, uint8_t signature[64]) {
        struct client *client = user;
        mbedtls_ecp_keypair *key = mbedtls_pk_ec(client->attest_key);
        mbedtls_mpi r, s;
        uint8_t digest[32];
        int failed;

        mbedtls_mpi_init(&r);
        mbedtls_mpi_init(&s);
        failed = mbedtls_sha256_ret(message, size, digest, 0) != 0 ||
                 mbedtls_ecdsa_sign(&key->grp, &r, &s, &key->d, digest, sizeof digest, mbedtls_ctr_drbg_random,
                                    &client->drbg) != 0 ||
                 mbedtls_mpi_write_binary(&r, signature, 32) != 0 ||
                 mbedtls_mpi_write_binary(&s, signature + 32, 32) != 0;
        mbedtls_mpi_free(&r);
        mbedtls_mpi_free(&s);
        return failed;
}

static size_t port_request(void *user, struct device_bytes certificate, struct device_key *key, uint8_t *csr,
                           size_t capacity) {
        struct client *client = user;

        return certificates_request(&client->certificates, certificate, key, csr, capacity);
}

static int port_matches(void *user, struct device_key *key, struct device_bytes certificate) {
        (void)user;
        return certificates_match(key, certificate);
}

static void port_event(void *user, const struct device_event *event) {
        struct client *client = user;

        client->events[event->kind]++;
        if (event->kind == DEVICE_EVENT_PROVEN) {
                client->rotations += client->was_operational;
                client->was_operational = true;
        }
        if (client->options.is_verbose)
                fprintf(stderr, "event %d key %d /%s %u.%02u\n", (int)event->kind, (int)event->choice, event->path,
                        event->code >> 5, event->code & 31U);
}

/* ---- Mbed TLS ---- */

static void set_up_tls(struct client *client) {
        mbedtls_entropy_init(&client->entropy);
        mbedtls_ctr_drbg_init(&client->drbg);
        mbedtls_ssl_init(&client->ssl);
        mbedtls_ssl_config_init(&client->ssl_config);
        certificates_init(&client->certificates, &client->drbg);
        if (mbedtls_ctr_drbg_seed(&client->drbg, mbedtls_entropy_func, &client->entropy, NULL, 0) != 0)
                die("Mbed TLS", "cannot be set up");
}

/* Of a device with a PSK a certificate suite authenticates nobody, so it must not carry its traffic. */
static bool suite_fits(const struct client *client) {
        bool has_psk = strstr(mbedtls_ssl_get_ciphersuite(&client->ssl), "PSK") != NULL;

        return has_psk != client->uses_certificate;
}

/* The gateway's no to this very key: device.h. */
static bool alert_refuses(const struct client *client) {
        switch (client->alert) {
        case MBEDTLS_SSL_ALERT_MSG_UNKNOWN_PSK_IDENTITY:
        case MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED:
        case MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR:
        case MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC:
                return true;
        case MBEDTLS_SSL_ALERT_MSG_BAD_CERT:
        case MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED:
        case MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED:
        case MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN:
        case MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA:
                return client->uses_certificate;
        default:
                return false;
        }
}

static void handshake(struct client *client) {
        int r = mbedtls_ssl_handshake(&client->ssl);

        if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE)
                return;
        if (r == 0 && suite_fits(client)) {
                client->session = SESSION_OPEN;
                client->suite = mbedtls_ssl_get_ciphersuite(&client->ssl);
                (void)device_connected(&client->device);
                return;
        }
        if (r == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
                client->alert = client->ssl.in_msg[1];
        end_session(client);
        if (alert_refuses(client))
                (void)device_refused(&client->device);
        else
                (void)device_lost(&client->device);
}

static void receive(struct client *client) {
        uint64_t generation = client->generation;
        uint8_t data[2048];
        int r;

        while ((r = mbedtls_ssl_read(&client->ssl, data, sizeof data)) > 0) {
                (void)device_input(&client->device, data, (size_t)r);
                if (client->generation != generation)
                        return;
        }
        if (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE || r == MBEDTLS_ERR_SSL_TIMEOUT)
                return;
        end_session(client);
        (void)device_lost(&client->device);
}

/* ---- one command ---- */

static bool is_done(const struct client *client) {
        const char *command = client->options.command;

        if (strcmp(command, "provision") == 0 || strcmp(command, "recover") == 0)
                return device_is_operational(&client->device) && client->events[DEVICE_EVENT_ME] > 0 &&
                       !client->device.coap.is_busy;
        if (strcmp(command, "rotate") == 0)
                return client->rotations > 0 && client->events[DEVICE_EVENT_ME] > 1;
        if (strcmp(command, "attest") == 0)
                return client->events[DEVICE_EVENT_EVIDENCE_ACCEPTED] > 0;
        return client->events[DEVICE_EVENT_ME] > 0;
}

static void run(struct client *client) {
        uint64_t next, now, until;
        struct pollfd ready = { .fd = client->socket, .events = POLLIN };
        struct timespec start, at;
        int wait;

        clock_gettime(CLOCK_MONOTONIC, &start);
        until = (uint64_t)start.tv_sec + client->options.timeout_sec;
        do {
                next = device_tick(&client->device);
                now = port_now(client);
                wait = next <= now ? 0 : next - now > 50 ? 50 : (int)(next - now); /* Mbed TLS's own timer, the clock */
                (void)poll(&ready, 1, wait);
                if (client->session == SESSION_HANDSHAKE)
                        handshake(client);
                if (client->session == SESSION_OPEN)
                        receive(client);
                clock_gettime(CLOCK_MONOTONIC, &at);
        } while (!is_done(client) && (uint64_t)at.tv_sec < until);
}

static void answer(const struct client *client) {
        const struct device_key *key = device_current_key(&client->device);
        const unsigned *n = client->events;

        printf("{\"ok\":%s,\"command\":\"%s\",\"id\":\"%s\",\"identity\":\"%.*s\",\"operational\":%s,",
               is_done(client) ? "true" : "false", client->options.command, client->options.id, (int)key->identity_size,
               (const char *)key->identity, device_is_operational(&client->device) ? "true" : "false");
        printf("\"suite\":\"%s\",\"handshakes\":%u,\"refused\":%u,\"unanswered\":%u,\"grants\":%u,\"proven\":%u,",
               client->suite ? client->suite : "", n[DEVICE_EVENT_CONNECTED], n[DEVICE_EVENT_REFUSED],
               n[DEVICE_EVENT_NO_ANSWER], n[DEVICE_EVENT_GRANTED], n[DEVICE_EVENT_PROVEN]);
        printf("\"rotations\":%u,\"evidence_accepted\":%u,\"errors\":%u,\"unusable\":%u,\"locked_out\":%s,\"due\":%u,",
               client->rotations, n[DEVICE_EVENT_EVIDENCE_ACCEPTED], n[DEVICE_EVENT_ERROR], n[DEVICE_EVENT_UNUSABLE],
               device_is_locked_out(&client->device) ? "true" : "false", client->device.me.due);
        printf("\"anchors\":%u,\"anchors_bytes\":%u,\"alert\":%u}\n", n[DEVICE_EVENT_ANCHORS],
               client->device.memory.anchors_size, client->alert);
}

/* ---- setting up ---- */

static void read_idevid(struct client *client) {
        const struct options *options = &client->options;

        client->idevid_size = certificates_read(options->idevid, client->idevid, sizeof client->idevid);
        client->factory_key_size =
                certificates_read_key(options->idevid_key, client->factory_key, sizeof client->factory_key);
        if (client->idevid_size == 0)
                die("--idevid", "no certificate that fits");
        if (client->factory_key_size == 0)
                die("--idevid-key", "no private key on P-256");
        if (options->anchors)
                client->anchors_size = certificates_read(options->anchors, client->anchors, sizeof client->anchors);
        if (options->anchors && client->anchors_size == 0)
                die("--anchors", "no certificate that fits");
}

static void read_factory_key(struct client *client) {
        const char *psk = client->options.psk;
        unsigned byte;
        size_t size;

        if (!psk) {
                read_idevid(client);
                return;
        }
        if (strncmp(psk, "text:", 5) == 0) {
                client->factory_key_size = strlen(psk + 5);
                if (client->factory_key_size > sizeof client->factory_key)
                        die("--psk", "too long");
                memcpy(client->factory_key, psk + 5, client->factory_key_size);
                return;
        }
        size = strncmp(psk, "hex:", 4) == 0 ? strlen(psk + 4) : 1;
        if (size % 2 || size / 2 > sizeof client->factory_key)
                die("--psk", "neither hex: nor text:, or too long");
        for (psk += 4; *psk; psk += 2) {
                if (sscanf(psk, "%2x", &byte) != 1)
                        die("--psk", "no hex digits");
                client->factory_key[client->factory_key_size++] = (uint8_t)byte;
        }
}

static void open_socket(struct client *client) {
        struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *found;
        char host[256];
        const char *colon = strrchr(client->options.gateway, ':');

        if (!colon || (size_t)(colon - client->options.gateway) >= sizeof host)
                die("--gateway", "not ADDRESS:PORT");
        memcpy(host, client->options.gateway, (size_t)(colon - client->options.gateway));
        host[colon - client->options.gateway] = 0;
        if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
                die("--gateway", "unknown address");
        client->socket = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (client->socket < 0 || connect(client->socket, found->ai_addr, found->ai_addrlen) < 0)
                die("socket", strerror(errno));
        freeaddrinfo(found);
}

static void read_attest_key(struct client *client) {
        uint8_t point[65];
        mbedtls_ecp_keypair *key;
        size_t size;

        mbedtls_pk_init(&client->attest_key);
        if (!client->options.attest_key)
                return;
        if (mbedtls_pk_parse_keyfile(&client->attest_key, client->options.attest_key, NULL) != 0 ||
            !mbedtls_pk_can_do(&client->attest_key, MBEDTLS_PK_ECDSA))
                die("--attest-key", "no EC private key");
        key = mbedtls_pk_ec(client->attest_key);
        if (mbedtls_ecp_point_write_binary(&key->grp, &key->Q, MBEDTLS_ECP_PF_UNCOMPRESSED, &size, point,
                                           sizeof point) != 0 ||
            mbedtls_sha256_ret(point, size, client->ueid + 1, 0) != 0)
                die("--attest-key", "not on P-256");
        client->ueid[0] = 0x01;
}

static void read_state(struct client *client) {
        int fd = open(client->options.state, O_RDONLY | O_CLOEXEC);

        if (fd < 0 && errno == ENOENT)
                return; /* fresh from the factory */
        if (fd < 0 || read(fd, &client->memory, sizeof client->memory) != sizeof client->memory)
                die(client->options.state, "not a state file of this program");
        close(fd);
        client->was_operational = client->memory.has_newest;
}

static void power_up(struct client *client) {
        const struct options *options = &client->options;
        const struct device_config config = {
                .id = options->id,
                .factory_key = client->factory_key,
                .factory_key_size = client->factory_key_size,
                .idevid = { client->idevid, client->idevid_size },
                .anchors = { client->anchors, client->anchors_size },
                .claims = { client->ueid, sizeof client->ueid, options->software_name, options->software_version,
                            client->measurement },
                .block_bytes = (uint16_t)options->block_bytes,
                .observes = options->observes,
                .stays_connected = true,
        };
        const struct device_port port = {
                .user = client,
                .now = port_now,
                .random = port_random,
                .connect = port_connect,
                .disconnect = port_disconnect,
                .send = port_send,
                .store = port_store,
                .sign = options->attest_key ? port_sign : NULL,
                .request = port_request,
                .matches = port_matches,
                .event = port_event,
        };

        (void)mbedtls_sha256_ret((const uint8_t *)options->measurement, strlen(options->measurement),
                                 client->measurement, 0);
        device_init(&client->device, &config, &port, &client->memory);
}

int main(int argc, char **argv) {
        static struct client client;

        options_parse(&client.options, argc, argv);
        client.alert = ALERT_NONE;
        client.clock = client.options.test_clock ? open(client.options.test_clock, O_RDONLY | O_CLOEXEC) : -1;
        read_factory_key(&client);
        open_socket(&client);
        set_up_tls(&client);
        read_attest_key(&client);
        read_state(&client);
        power_up(&client);
        run(&client);
        answer(&client);
        end_session(&client);
        mbedtls_ssl_free(&client.ssl);
        mbedtls_ssl_config_free(&client.ssl_config);
        certificates_free(&client.certificates);
        mbedtls_pk_free(&client.attest_key);
        mbedtls_ctr_drbg_free(&client.drbg);
        mbedtls_entropy_free(&client.entropy);
        close(client.socket);
        return is_done(&client) ? 0 : 1;
}

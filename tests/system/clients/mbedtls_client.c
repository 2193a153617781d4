/* SPDX-License-Identifier: Apache-2.0 */

/* A DTLS client on Mbed TLS with the suites and limits that it has by default.
 *
 *   mbedtls_client PORT psk IDENTITY KEY
 *   mbedtls_client PORT certificate CERTIFICATE KEY ANCHORS
 *
 * Says "connected SUITE" or "failed NUMBER". */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/timing.h>

static mbedtls_ssl_context ssl;
static mbedtls_ssl_config config;
static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context drbg;
static mbedtls_net_context udp;
static mbedtls_timing_delay_context timer;
static mbedtls_x509_crt own, anchors;
static mbedtls_pk_context key;

static int use_certificate(char **paths) {
        int r = mbedtls_x509_crt_parse_file(&own, paths[0]);

        if (r == 0)
                r = mbedtls_pk_parse_keyfile(&key, paths[1], NULL);
        if (r == 0)
                r = mbedtls_x509_crt_parse_file(&anchors, paths[2]);
        if (r == 0)
                r = mbedtls_ssl_conf_own_cert(&config, &own, &key);
        mbedtls_ssl_conf_ca_chain(&config, &anchors, NULL);
        return r == 0 ? mbedtls_ssl_set_hostname(&ssl, "gatewayd") : r;
}

static int set_up(int argc, char **argv) {
        int r;

        mbedtls_ssl_init(&ssl);
        mbedtls_ssl_config_init(&config);
        mbedtls_entropy_init(&entropy);
        mbedtls_ctr_drbg_init(&drbg);
        mbedtls_net_init(&udp);
        mbedtls_x509_crt_init(&own);
        mbedtls_x509_crt_init(&anchors);
        mbedtls_pk_init(&key);
        r = mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0);
        if (r == 0)
                r = mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                                MBEDTLS_SSL_PRESET_DEFAULT);
        mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &drbg);
        if (r == 0 && strcmp(argv[2], "psk") == 0 && argc == 5)
                r = mbedtls_ssl_conf_psk(&config, (unsigned char *)argv[4], strlen(argv[4]), (unsigned char *)argv[3],
                                         strlen(argv[3]));
        if (r == 0 && strcmp(argv[2], "certificate") == 0 && argc == 6)
                r = use_certificate(argv + 3);
        return r == 0 ? mbedtls_ssl_setup(&ssl, &config) : r;
}

int main(int argc, char **argv) {
        int r;

        if (argc < 5)
                return 2;
        r = set_up(argc, argv);
        if (r == 0)
                r = mbedtls_net_connect(&udp, "127.0.0.1", argv[1], MBEDTLS_NET_PROTO_UDP);
        mbedtls_ssl_set_bio(&ssl, &udp, mbedtls_net_send, mbedtls_net_recv, mbedtls_net_recv_timeout);
        mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
        if (r == 0)
                do
                        r = mbedtls_ssl_handshake(&ssl);
                while (r == MBEDTLS_ERR_SSL_WANT_READ || r == MBEDTLS_ERR_SSL_WANT_WRITE);
        if (r != 0) {
                printf("failed -0x%x\n", (unsigned)-r);
                return 1;
        }
        printf("connected %s\n", mbedtls_ssl_get_ciphersuite(&ssl));
        mbedtls_ssl_close_notify(&ssl);
        return 0;
}

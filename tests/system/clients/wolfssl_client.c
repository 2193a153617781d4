/* SPDX-License-Identifier: Apache-2.0 */

/* A DTLS client on wolfSSL with the suites that it has by default.
 *
 *   wolfssl_client PORT psk IDENTITY KEY
 *   wolfssl_client PORT certificate CERTIFICATE KEY ANCHORS
 *
 * Says "connected SUITE" or "failed NUMBER". */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

static const char *identity, *psk;

static unsigned give_key(WOLFSSL *ssl, const char *hint, char *to, unsigned to_size, unsigned char *key,
                         unsigned key_size) {
        (void)ssl;
        (void)hint;
        if (strlen(identity) >= to_size || strlen(psk) > key_size)
                return 0;
        strcpy(to, identity);
        memcpy(key, psk, strlen(psk));
        return (unsigned)strlen(psk);
}

int main(int argc, char **argv) {
        struct sockaddr_in to = { .sin_family = AF_INET };
        int fd = socket(AF_INET, SOCK_DGRAM, 0), r;
        WOLFSSL_CTX *context;
        WOLFSSL *ssl;

        if (argc < 5 || fd < 0)
                return 2;
        to.sin_port = htons((unsigned short)atoi(argv[1]));
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        wolfSSL_Init();
        context = wolfSSL_CTX_new(wolfDTLSv1_2_client_method());
        if (strcmp(argv[2], "psk") == 0) {
                identity = argv[3];
                psk = argv[4];
                wolfSSL_CTX_set_psk_client_callback(context, give_key);
        } else if (argc < 6 || wolfSSL_CTX_use_certificate_chain_file(context, argv[3]) != WOLFSSL_SUCCESS ||
                   wolfSSL_CTX_use_PrivateKey_file(context, argv[4], WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS ||
                   wolfSSL_CTX_load_verify_locations(context, argv[5], NULL) != WOLFSSL_SUCCESS) {
                return 2;
        }
        ssl = wolfSSL_new(context);
        wolfSSL_dtls_set_peer(ssl, &to, sizeof to);
        wolfSSL_set_fd(ssl, fd);
        r = wolfSSL_connect(ssl);
        if (r != WOLFSSL_SUCCESS) {
                printf("failed %d\n", wolfSSL_get_error(ssl, r));
                return 1;
        }
        printf("connected %s\n", wolfSSL_get_cipher_name(ssl));
        wolfSSL_shutdown(ssl);
        wolfSSL_free(ssl);
        wolfSSL_CTX_free(context);
        return 0;
}

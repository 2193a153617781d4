/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a device on Mbed TLS must do for certificates: the callbacks that tests/sim/device.h wants for them, and
 * the set-up of a session. Mbed TLS 2.28 as it comes. */

#include "tests/sim/device.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

struct mbedtls_certificates {
        mbedtls_ctr_drbg_context *drbg;
        mbedtls_x509_crt own, anchors; /* of the session */
        mbedtls_pk_context key;
};

void certificates_init(struct mbedtls_certificates *certificates, mbedtls_ctr_drbg_context *drbg);
void certificates_free(struct mbedtls_certificates *certificates);

/* port.request and port.matches. */
size_t certificates_request(struct mbedtls_certificates *certificates, struct device_bytes certificate,
                            struct device_key *key, uint8_t *csr, size_t capacity);
int certificates_match(struct device_key *key, struct device_bytes certificate);

/* For port.connect: `config` and `ssl` are new, and `config` not yet in use. 0, or a code of Mbed TLS. */
int certificates_configure(struct mbedtls_certificates *certificates, mbedtls_ssl_config *config,
                           const struct device_key *key, struct device_bytes anchors);

/* Reads a PEM file of certificates as concatenated DER, and a PEM file of a P-256 private key as device.h wants
 * it. Returns the size, or 0. */
size_t certificates_read(const char *path, uint8_t *to, size_t capacity);
size_t certificates_read_key(const char *path, uint8_t *to, size_t capacity);

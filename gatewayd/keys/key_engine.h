/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* OpenSSL's pkcs11 engine (libp11), for PKCS#11 tokens where no provider serves them: Debian 12 has none. */

#include <openssl/evp.h>

#include "gatewayd/problem.h"

/* Loads the engine and gives it the token's module. Again: nothing happens. -ENOPKG. */
int key_engine_load(const char *module, struct problem *problem);
bool key_engine_is_loaded(void);
/* The private key that a URI without a PIN names; `pin` NULL: none is known. NULL: OpenSSL's queue says why. */
EVP_PKEY *key_engine_open(const char *uri, const char *pin);

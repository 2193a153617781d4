/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Private keys by URI: in a file, in a PKCS#11 token (RFC 7512), in a TPM. Through OSSL_STORE and the
 * providers that the configuration names; an HSM without a provider through OpenSSL's pkcs11 engine. */

#include <openssl/evp.h>

#include "config/config.h"
#include "gatewayd/problem.h"

/* Loads what ca.providers and ca.pkcs11_module name. Once, before the wall goes up: modules are files. */
int key_providers_load(const struct ca_config *config, struct problem *problem);

/* Opens "file:/path" (PEM or DER, PKCS#8 or SEC 1), "pkcs11:…" or "handle:0x81…". The PIN of a token comes from
 * the URI's pin-source or from the credential gatewayd.ca-pin, never from the configuration's text.
 * -ENOENT, -EACCES, -ENOPKG (no provider for this scheme), -EINVAL (not a private key a CA may use). */
int key_uri_open(const char *uri, EVP_PKEY **ret, struct problem *problem);

/* The key stays where it is ("pkcs11:", "handle:"), or is a file whose content must be sealed. */
bool key_uri_is_file(const char *uri);
/* Signs and verifies a probe: the key works and belongs to `certificate`'s public key (NULL: to its own). */
int key_probe(EVP_PKEY *key, EVP_PKEY *public_key, struct problem *problem);

/* SPDX-License-Identifier: Apache-2.0 */

/* Private keys by URI. Whatever can be loaded is loaded before the wall goes up: behind it nothing is mapped
 * as code, and the credentials' folder is out of reach. What signing needs then: docs/OPERATIONS.md. */

#include "gatewayd/keys/key_uri.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/store.h>
#include <openssl/ui.h>

#include "gatewayd/keys/key_engine.h"
#include "gatewayd/keys/x509_parts.h"
#include "gatewayd/secret.h"
#include "store/authorities.h"
#include "systemd/service.h"

#define PIN_CREDENTIAL "gatewayd.ca-pin"
#define PIN_MAX        63

/* Providers, like the engine, belong to the process; so does the PIN that was read for them, since the folder
 * it came from cannot be reached any more when a token comes back. */
static OSSL_PROVIDER *loaded[1 + ELEMENTS(((struct ca_config *)0)->providers)];
static struct secret known_pin;
static bool has_known_pin;
/* SHA-256 over URI and PIN that a token has refused: asking again and again would lock the token. */
static uint8_t refused[32];

/* ---- before the wall ---- */

/* Without the line's end that an editor leaves. */
static void trim_pin(struct secret *pin) {
        while (pin->size > 0 && (pin->data[pin->size - 1] == '\n' || pin->data[pin->size - 1] == '\r'))
                pin->data[--pin->size] = 0;
}

static int read_known_pin(struct problem *problem) {
        struct secret pin = { 0 };
        ssize_t size = service_credential(PIN_CREDENTIAL, pin.data, PIN_MAX);

        if (size == -ENOENT)
                return 0;
        if (size < 0)
                return problem_set(problem, 0, (int)-size, "CA key", "the credential %s cannot be read: %s",
                                   PIN_CREDENTIAL, strerror((int)-size));
        pin.size = (size_t)size;
        trim_pin(&pin);
        known_pin = pin;
        has_known_pin = true;
        secret_wipe(&pin);
        return 0;
}

static int load_provider(const char *name, OSSL_PROVIDER **ret, struct problem *problem) {
        if (!*ret)
                *ret = OSSL_PROVIDER_load(NULL, name);
        if (*ret)
                return 0;
        return problem_set(problem, 0, ENOPKG, "CA key", "OpenSSL's provider \"%s\" cannot be loaded: %s", name,
                           x509_error());
}

static int load_providers(const struct ca_config *config, struct problem *problem) {
        int r;

        if (config->provider_count == 0)
                return 0;
        /* Loading one by name ends the default one's automatic loading. What each can do the default one does:
         * a TPM would compute our digests, slowly, and give us its random numbers. */
        r = load_provider("default", &loaded[0], problem);
        for (size_t i = 0; i < config->provider_count && r >= 0; i++)
                r = load_provider(config->providers[i], &loaded[i + 1], problem);
        if (r >= 0 && EVP_set_default_properties(NULL, "?provider=default") != 1)
                oom();
        return r;
}

/* A provider or an engine that serves a scheme. */
static bool has_store(const char *scheme) {
        OSSL_STORE_LOADER *loader = OSSL_STORE_LOADER_fetch(NULL, scheme, NULL);
        bool is_there = loader != NULL;

        OSSL_STORE_LOADER_free(loader);
        ERR_clear_error();
        return is_there;
}

/* The module is mapped here and stays so: whoever loads it later finds it. */
static int load_module(const char *path, struct problem *problem) {
        if (dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE))
                return 0;
        return problem_set(problem, 0, ENOPKG, "CA key", "the PKCS#11 module %s cannot be loaded: %s", path, dlerror());
}

int key_providers_load(const struct ca_config *config, struct problem *problem) {
        int r = read_known_pin(problem);

        /* For a provider of pkcs11:, which has no other way to be told; what the unit says goes first. */
        if (r >= 0 && config->pkcs11_module[0] && setenv("PKCS11_PROVIDER_MODULE", config->pkcs11_module, 0) < 0)
                oom();
        if (r >= 0)
                r = load_providers(config, problem);
        if (r >= 0 && config->pkcs11_module[0]) {
                r = load_module(config->pkcs11_module, problem);
                if (r >= 0 && !has_store("pkcs11"))
                        r = key_engine_load(config->pkcs11_module, problem);
        }
        return r;
}

/* ---- PKCS#11 URIs (RFC 7512) ---- */

struct token_uri {
        char uri[KEY_URI_MAX]; /* without attributes that tell a PIN */
        struct secret pin;
        bool has_pin;
};

static int percent_decode(struct bytes from, char *to, size_t to_size) {
        size_t used = 0;

        for (size_t i = 0; i < from.size; i++) {
                uint8_t c = from.data[i];

                if (c == '%') {
                        if (from.size - i < 3 || hex_decode(BYTES(from.data + i + 1, 2), &c, 1) != 1 || c == 0)
                                return -EINVAL;
                        i += 2;
                }
                if (used + 1 >= to_size)
                        return -ENAMETOOLONG;
                to[used++] = (char)c;
        }
        to[used] = 0;
        return 0;
}

static int read_pin_file(const char *path, struct secret *pin, struct problem *problem) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), error;
        ssize_t size;

        if (fd < 0) {
                error = errno;
                return problem_set(problem, 0, EACCES, "CA key", "the PIN's file %s cannot be opened: %s", path,
                                   strerror(error));
        }
        size = read(fd, pin->data, PIN_MAX);
        close(fd);
        if (size <= 0)
                return problem_set(problem, 0, EACCES, "CA key", "the PIN's file %s is empty or cannot be read", path);
        pin->size = (size_t)size;
        trim_pin(pin);
        return 0;
}

/* pin-source: a path or a file: URI. "|command" is what RFC 7512 §2.4 also knows, and core starts nobody. */
static int read_pin_source(struct bytes value, struct token_uri *ret, struct problem *problem) {
        char source[KEY_URI_MAX];
        const char *path = source;

        if (percent_decode(value, source, sizeof source) < 0 || source[0] == '|')
                return problem_set(problem, 0, EINVAL, "CA key",
                                   "pin-source must be a file's path; programs are not run");
        if (strncmp(path, "file:", 5) == 0)
                path += 5;
        if (strncmp(path, "///", 3) == 0)
                path += 2;
        ret->has_pin = true;
        return read_pin_file(path, &ret->pin, problem);
}

/* Attributes stand between ";" (the path) or "&" (the query, after "?"). */
static int take_attribute(struct bytes attribute, char separator, struct token_uri *ret, struct problem *problem) {
        static const struct bytes source = TEXT("pin-source="), value = TEXT("pin-value=");
        size_t used = strlen(ret->uri);

        if (attribute.size >= value.size && memcmp(attribute.data, value.data, value.size) == 0)
                return problem_set(problem, 0, EINVAL, "CA key",
                                   "a PIN does not belong into a URI: use the credential %s or pin-source",
                                   PIN_CREDENTIAL);
        if (attribute.size >= source.size && memcmp(attribute.data, source.data, source.size) == 0)
                return read_pin_source(BYTES(attribute.data + source.size, attribute.size - source.size), ret, problem);
        if (separator == '&' && !strchr(ret->uri, '?'))
                separator = '?';
        snprintf(ret->uri + used, sizeof ret->uri - used, "%.*s%.*s", separator ? 1 : 0, &separator,
                 (int)attribute.size, (const char *)attribute.data);
        return 0;
}

static int token_uri_parse(const char *uri, struct token_uri *ret, struct problem *problem) {
        const char *at = uri + strlen("pkcs11:");
        char separator = 0;
        int r = 0;

        *ret = (struct token_uri){ .uri = "pkcs11:" };
        if (strlen(uri) >= sizeof ret->uri)
                return problem_set(problem, 0, EINVAL, "CA key", "the key's URI is too long");
        while (r >= 0) {
                size_t size = strcspn(at, separator == '?' || separator == '&' ? "&" : ";?");

                if (size > 0)
                        r = take_attribute(BYTES(at, size), separator == '?' ? '&' : separator, ret, problem);
                if (at[size] == 0)
                        break;
                separator = at[size];
                at += size + 1;
        }
        if (r >= 0 && !ret->has_pin && has_known_pin) {
                ret->pin = known_pin;
                ret->has_pin = true;
        }
        return r;
}

static void token_uri_wipe(struct token_uri *uri) {
        secret_wipe(&uri->pin);
}

/* ---- opening ---- */

/* Answers a provider's question for a PIN or passphrase. */
static int tell_pin(char *to, int to_size, int is_writing, void *userdata) {
        const struct secret *pin = userdata;

        (void)is_writing;
        if (!pin || to_size < 0 || pin->size > (size_t)to_size)
                return -1;
        memcpy(to, pin->data, pin->size);
        return (int)pin->size;
}

/* The first private key that OpenSSL's store finds there. */
static EVP_PKEY *store_key(const char *uri, struct secret *pin) {
        UI_METHOD *method = UI_UTIL_wrap_read_pem_callback(tell_pin, 0);
        OSSL_STORE_CTX *store;
        EVP_PKEY *key = NULL;

        if (!method)
                oom();
        store = OSSL_STORE_open(uri, method, pin, NULL, NULL);
        if (store && OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY) != 1)
                oom();
        while (store && !key && !OSSL_STORE_eof(store)) {
                OSSL_STORE_INFO *info = OSSL_STORE_load(store);

                if (!info)
                        break;
                key = OSSL_STORE_INFO_get1_PKEY(info);
                OSSL_STORE_INFO_free(info);
        }
        OSSL_STORE_close(store);
        UI_destroy_method(method);
        return key;
}

static int cannot_open(struct problem *problem, int error, const char *uri, const char *why) {
        return problem_set(problem, 0, error, "CA key", "%.160s: %s", uri, why);
}

static int open_file(const char *uri, EVP_PKEY **ret, struct problem *problem) {
        const char *path = uri + strlen("file:");

        if (strncmp(path, "///", 3) == 0)
                path += 2;
        if (path[0] != '/')
                return cannot_open(problem, EINVAL, uri, "the path must be absolute");
        if (access(path, R_OK) < 0)
                return cannot_open(problem, errno == EACCES ? EACCES : ENOENT, uri, strerror(errno));
        *ret = store_key(uri, has_known_pin ? &known_pin : NULL);
        if (*ret)
                return 0;
        ERR_clear_error();
        return cannot_open(problem, EINVAL, uri,
                           "no private key in PEM or DER there, or an encrypted one without its passphrase");
}

/* What of OpenSSL's queue a person can use; whether it speaks of a PIN. */
static bool take_reasons(char *to, size_t to_size) {
        bool is_pin = false;

        snprintf(to, to_size, "no such key");
        for (unsigned long error; (error = ERR_get_error()) != 0;) {
                const char *reason = ERR_reason_error_string(error);

                if (!reason || is_pin)
                        continue;
                is_pin = strstr(reason, "PIN") != NULL;
                snprintf(to, to_size, "%s", reason);
        }
        return is_pin;
}

static void digest_attempt(const struct token_uri *token, uint8_t ret[32]) {
        uint8_t text[KEY_URI_MAX + SECRET_MAX] = { 0 };

        memcpy(text, token->uri, strlen(token->uri));
        memcpy(text + KEY_URI_MAX, token->pin.data, token->pin.size);
        SHA256(text, sizeof text, ret);
        explicit_bzero(text, sizeof text);
}

static int open_token(const char *uri, EVP_PKEY **ret, struct problem *problem) {
        _cleanup_(token_uri_wipe) struct token_uri token;
        uint8_t attempt[32];
        char why[128];
        int r = token_uri_parse(uri, &token, problem);

        if (r < 0)
                return r;
        digest_attempt(&token, attempt);
        if (token.has_pin && memcmp(attempt, refused, sizeof refused) == 0)
                return cannot_open(problem, EACCES, token.uri, "the token has refused this PIN; it is not asked again");
        token.pin.data[token.pin.size] = 0;
        *ret = has_store("pkcs11") ? store_key(token.uri, token.has_pin ? &token.pin : NULL)
                                   : key_engine_open(token.uri, token.has_pin ? (const char *)token.pin.data : NULL);
        if (*ret)
                return 0;
        if (!take_reasons(why, sizeof why))
                return cannot_open(problem, ENOENT, token.uri,
                                   token.has_pin
                                           ? "no such token, or no such private key in it"
                                           : "no such private key, or it takes a PIN and the credential " PIN_CREDENTIAL
                                             " is not there");
        if (token.has_pin)
                memcpy(refused, attempt, sizeof refused);
        return cannot_open(problem, EACCES, token.uri, why);
}

static int open_other(const char *uri, EVP_PKEY **ret, struct problem *problem) {
        char why[128];

        *ret = store_key(uri, has_known_pin ? &known_pin : NULL);
        if (*ret)
                return 0;
        take_reasons(why, sizeof why);
        return cannot_open(problem, ENOENT, uri, why);
}

/* What a CA may sign with (RFC 9148 §3 names P-256; NIST SP 800-57 part 1 §5.6.1). */
static int check_kind(EVP_PKEY *key, const char *uri, struct problem *problem) {
        if (EVP_PKEY_is_a(key, "ED25519") || (EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) >= 256) ||
            (EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= 2048))
                return 0;
        return cannot_open(problem, EINVAL, uri, "a CA's key is EC from 256 bits, Ed25519, or RSA from 2048 bits");
}

int key_uri_open(const char *uri, EVP_PKEY **ret, struct problem *problem) {
        size_t scheme_size = strcspn(uri, ":");
        EVP_PKEY *key = NULL;
        char scheme[32];
        int r;

        *ret = NULL;
        if (scheme_size == 0 || scheme_size >= sizeof scheme || uri[scheme_size] != ':')
                return cannot_open(problem, EINVAL, uri, "a key's URI is file:/…, pkcs11:… or handle:0x…");
        memcpy(scheme, uri, scheme_size);
        scheme[scheme_size] = 0;
        ERR_clear_error();
        if (strcmp(scheme, "file") == 0)
                r = open_file(uri, &key, problem);
        else if (strcmp(scheme, "pkcs11") == 0 && (has_store(scheme) || key_engine_is_loaded()))
                r = open_token(uri, &key, problem);
        else if (strcmp(scheme, "pkcs11") != 0 && has_store(scheme))
                r = open_other(uri, &key, problem);
        else
                r = cannot_open(problem, ENOPKG, uri,
                                "nothing that was loaded serves this kind of URI (ca.providers, ca.pkcs11_module)");
        if (r >= 0)
                r = check_kind(key, uri, problem);
        ERR_clear_error();
        if (r < 0)
                EVP_PKEY_free(key);
        else
                *ret = key;
        return r;
}

bool key_uri_is_file(const char *uri) {
        return strncmp(uri, "file:", 5) == 0;
}

/* ---- the probe ---- */

static EVP_PKEY *public_half(EVP_PKEY *key) {
        uint8_t *der = NULL;
        int size = i2d_PUBKEY(key, &der);
        const uint8_t *at = der;
        EVP_PKEY *ret = size > 0 ? d2i_PUBKEY(NULL, &at, size) : NULL;

        OPENSSL_free(der);
        return ret;
}

static bool sign_probe(EVP_PKEY *key, const uint8_t probe[32], uint8_t *signature, size_t *size) {
        EVP_MD_CTX *context = x509_sign_begin(key);
        bool is_signed = context && EVP_DigestSign(context, signature, size, probe, 32) == 1;

        EVP_MD_CTX_free(context);
        return is_signed;
}

static bool verify_probe(EVP_PKEY *key, const EVP_MD *digest, const uint8_t probe[32], const uint8_t *signature,
                         size_t size) {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        bool is_good;

        if (!context)
                oom();
        is_good = EVP_DigestVerifyInit(context, NULL, digest, NULL, key) == 1 &&
                  EVP_DigestVerify(context, signature, size, probe, 32) == 1;
        EVP_MD_CTX_free(context);
        return is_good;
}

int key_probe(EVP_PKEY *key, EVP_PKEY *public_key, struct problem *problem) {
        /* Always a key of software: one in a token may not verify at all. */
        _cleanup_(evp_pkey_freep) EVP_PKEY *verifier = public_half(public_key ? public_key : key);
        uint8_t probe[32], signature[2048];
        size_t size = sizeof signature;

        if (!verifier || RAND_bytes(probe, sizeof probe) != 1)
                return problem_set(problem, 0, EIO, "CA key", "its public half cannot be read: %s", x509_error());
        if (!sign_probe(key, probe, signature, &size))
                return problem_set(problem, 0, EIO, "CA key", "it does not sign: %s", x509_error());
        if (!verify_probe(verifier, x509_digest_for(verifier), probe, signature, size)) {
                ERR_clear_error();
                return problem_set(problem, 0, EKEYREJECTED, "CA key",
                                   public_key ? "it does not belong to the certificate"
                                              : "what it signs does not verify");
        }
        return 0;
}

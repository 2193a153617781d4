/* SPDX-License-Identifier: Apache-2.0 */

/* The pkcs11 engine. Engines are deprecated in OpenSSL 3; this file alone uses them, and goes when every
 * supported distribution has a PKCS#11 provider. */

#define OPENSSL_SUPPRESS_DEPRECATED

#include "gatewayd/keys/key_engine.h"

#include <errno.h>

#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/ui.h>

/* The engine is OpenSSL's, one for the process, like its providers. It stays until the process ends: a
 * token's module need not survive being unloaded. */
static ENGINE *engine;

int key_engine_load(const char *module, struct problem *problem) {
        ENGINE *found;

        if (engine)
                return 0;
        found = ENGINE_by_id("pkcs11");
        if (found && ENGINE_ctrl_cmd_string(found, "MODULE_PATH", module, 0) == 1 && ENGINE_init(found) == 1) {
                engine = found;
                return 0;
        }
        ENGINE_free(found);
        ERR_clear_error();
        return problem_set(problem, 0, ENOPKG, "no PKCS#11",
                           "OpenSSL has neither a provider nor an engine for pkcs11: (libengine-pkcs11-openssl)");
}

bool key_engine_is_loaded(void) {
        return engine != NULL;
}

EVP_PKEY *key_engine_open(const char *uri, const char *pin) {
        if (!engine)
                return NULL;
        if (pin && ENGINE_ctrl_cmd_string(engine, "PIN", pin, 0) != 1)
                return NULL;
        /* Nobody is asked at a terminal. The declaration lacks the const; nothing is written. */
        return ENGINE_load_private_key(engine, uri, (UI_METHOD *)(uintptr_t)UI_null(), NULL);
}

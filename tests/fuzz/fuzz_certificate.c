/* SPDX-License-Identifier: Apache-2.0 */

/* What a client shows in a handshake and what an owner's PKI sends: certificates of any content are read or
 * refused, described, asked for a device, and verified against anchors; none leads to one that did not sign it. */

#include <assert.h>

#include <openssl/err.h>

#include "gatewayd/keys/x509.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static STACK_OF(X509) * anchors;

static void make_anchors(void) {
        const struct x509_validity validity = { 0, 1000000 };

        anchors = sk_X509_new_null();
        for (int i = 0; i < 2; i++) {
                EVP_PKEY *key = x509_key_new(i == 0 ? X509_KEY_P256 : X509_KEY_ED25519);

                /* The name that the seeds have: so that signatures are looked at too. */
                sk_X509_push(anchors, x509_root_make(key, "CN=Plant 7 CA,O=Example", &validity, NULL, NULL));
                EVP_PKEY_free(key);
        }
}

static void ask(X509 *certificate) {
        char id[DEVICE_ID_MAX + 1], text[64];
        struct certificate row = { 0 };

        if (x509_describe(certificate, &row) == 0)
                assert(strlen(row.fingerprint) == 64 && row.serial_size > 0);
        if (x509_device_id(certificate, IDEVID_SERIAL_NUMBER, id) == 0)
                assert(id[0] != 0);
        if (x509_device_id(certificate, IDEVID_SAN, id) == 0)
                assert(id[0] != 0);
        x509_subject_text(certificate, text, sizeof text);
        assert(strlen(text) < sizeof text);
}

static void take(STACK_OF(X509) * chain) {
        struct problem problem = { 0 };
        STACK_OF(X509) *path = NULL;
        size_t anchor;

        for (int i = 0; i < sk_X509_num(chain); i++)
                ask(sk_X509_value(chain, i));
        assert(x509_chain_verify(chain, anchors, &path, &anchor, &problem) < 0);
        assert(!path && problem.detail[0] != 0 && ERR_peek_error() == 0);
        /* Its own certificates as anchors: whatever path there is, the caller can free it. */
        if (x509_chain_verify(chain, chain, &path, &anchor, &problem) == 0) {
                assert(sk_X509_num(path) >= 1 && anchor < (size_t)sk_X509_num(chain));
                sk_X509_pop_free(path, X509_free);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        STACK_OF(X509) * chain;

        if (!anchors)
                make_anchors();
        chain = x509_read_chain(BYTES(data, size));
        if (chain)
                take(chain);
        sk_X509_pop_free(chain, X509_free);
        chain = x509_pkcs7_read(BYTES(data, size));
        sk_X509_pop_free(chain, X509_free);
        return 0;
}

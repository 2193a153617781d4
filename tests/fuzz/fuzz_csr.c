/* SPDX-License-Identifier: Apache-2.0 */

/* CSR intake: whatever comes is taken apart or refused with a reason, and what is taken can be asked for its
 * names and be made into a certificate. */

#include <assert.h>
#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/csr.h"
#include "gatewayd/keys/x509.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct x509_signer signer;

static void issue(const struct csr *csr) {
        static const struct x509_validity validity = { 1000, 2000 };
        _cleanup_(buffer_free) struct buffer der = {};
        X509 *certificate = x509_device_make(&signer, csr, csr->key ? csr->key : signer.key, "sensor-1", NULL,
                                             &validity, &der, NULL);

        assert(certificate && X509_check_ca(certificate) == 0);
        X509_free(certificate);
}

static void take(struct bytes der, bool is_keygen) {
        static const struct profile profile = { .key_types = 15, .rsa_bits = 2048 };
        struct problem problem = { 0 };
        struct csr csr;
        int r = csr_read(der, &profile, is_keygen, &csr, &problem);

        assert(ERR_peek_error() == 0);
        if (r < 0) {
                assert(problem.code == CODE_BAD_REQUEST && problem.detail[0] != 0 && !csr.request);
                return;
        }
        assert(is_keygen || csr.key);
        r = csr_check_names(&csr, "sensor-1", NULL, &problem);
        assert(r == 0 || (r == -EACCES && problem.code == CODE_FORBIDDEN));
        (void)csr_check_names(&csr, "sensor-1", signer.certificate, NULL); /* must not misread */
        (void)csr_check_first_names(&csr, "sensor-1", signer.certificate, NULL);
        issue(&csr);
        csr_free(&csr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (!signer.key) {
                const struct x509_validity validity = { 0, 1000000 };

                signer.key = x509_key_new(X509_KEY_P256);
                signer.certificate = x509_root_make(signer.key, "CN=x", &validity, NULL, NULL);
        }
        take(BYTES(data, size), false);
        take(BYTES(data, size), true);
        return 0;
}

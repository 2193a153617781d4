/* SPDX-License-Identifier: Apache-2.0 */

/* The body of an EST server's answer: base64 in any layout around a certs-only message, which is read as north and core
 * read it. What is taken is DER that reads the same again. */

#include <stdlib.h>

#include "gatewayd/keys/x509.h"
#include "gatewayd/north/est.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_message(struct bytes der, bool must_be_one) {
        _cleanup_(buffer_free) struct buffer again = { 0 };
        STACK_OF(X509) *certificates = x509_pkcs7_read(der), *second;

        if (must_be_one && sk_X509_num(certificates) <= 0)
                abort();
        if (!certificates)
                return;
        if (sk_X509_num(certificates) > 0) {
                if (x509_pkcs7_write(certificates, &again) < 0)
                        abort();
                second = x509_pkcs7_read(buffer_bytes(&again));
                if (!second || sk_X509_num(second) != sk_X509_num(certificates))
                        abort();
                sk_X509_pop_free(second, X509_free);
        }
        for (int i = 0; i < sk_X509_num(certificates); i++) {
                struct certificate row;

                (void)x509_describe(sk_X509_value(certificates, i), &row);
        }
        sk_X509_pop_free(certificates, X509_free);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(buffer_free) struct buffer der = { 0 };

        if (est_decode(BYTES(data, size), &der) >= 0)
                read_message(buffer_bytes(&der), true);
        else if (der.size > 0)
                abort();
        read_message(BYTES(data, size), false);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Certs-only messages: SignedData that signs nothing (RFC 5652 §5; RFC 7030 §4.1.3). */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/cms.h>
#include <openssl/err.h>

/* What an owner's PKI may send: its CAs in all their generations. */
#define CERTIFICATES_MAX 32

static void cmsp(CMS_ContentInfo **message) {
        CMS_ContentInfo_free(*message);
}

int x509_pkcs7_write(STACK_OF(X509) * certificates, struct buffer *to) {
        /* Detached and partial: neither content nor anything that a signer would add. */
        _cleanup_(cmsp) CMS_ContentInfo *message =
                CMS_sign(NULL, NULL, certificates, NULL, CMS_DETACHED | CMS_PARTIAL | CMS_BINARY);
        uint8_t *der = NULL;
        int size = message ? i2d_CMS_ContentInfo(message, &der) : -1;

        if (size <= 0) {
                ERR_clear_error();
                return -EIO;
        }
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        return 0;
}

STACK_OF(X509) * x509_pkcs7_read(struct bytes der) {
        const uint8_t *at = der.data;
        _cleanup_(cmsp) CMS_ContentInfo *message = NULL;
        STACK_OF(X509) *certificates = NULL;

        if (der.size > 0 && der.size <= INT32_MAX)
                message = d2i_CMS_ContentInfo(NULL, &at, (long)der.size);
        if (message && at == der.data + der.size && OBJ_obj2nid(CMS_get0_type(message)) == NID_pkcs7_signed)
                certificates = CMS_get1_certs(message);
        ERR_clear_error();
        if (sk_X509_num(certificates) >= 1 && sk_X509_num(certificates) <= CERTIFICATES_MAX)
                return certificates;
        x509_stackp(&certificates);
        return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* CRLs, version 2 (RFC 5280 §5). */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/err.h>

struct x509_crl {
        X509_CRL *crl;
        struct x509_signer signer; /* borrowed */
        bool is_sound;
};

static bool set_time(int (*set)(X509_CRL *crl, const ASN1_TIME *time), X509_CRL *crl, unix_sec at) {
        ASN1_TIME *time = x509_time(at);
        bool is_set = time && set(crl, time) == 1;

        ASN1_TIME_free(time);
        return is_set;
}

static bool add_aki(X509_CRL *crl, const struct x509_signer *signer) {
        AUTHORITY_KEYID *aki = x509_aki(signer);
        bool is_added =
                aki && X509_CRL_add1_ext_i2d(crl, NID_authority_key_identifier, aki, 0, X509V3_ADD_DEFAULT) == 1;

        AUTHORITY_KEYID_free(aki);
        return is_added;
}

static bool add_number(X509_CRL *crl, uint64_t number) {
        ASN1_INTEGER *value = ASN1_INTEGER_new();
        bool is_added = value && ASN1_INTEGER_set_uint64(value, number) == 1 &&
                        X509_CRL_add1_ext_i2d(crl, NID_crl_number, value, 0, X509V3_ADD_DEFAULT) == 1;

        ASN1_INTEGER_free(value);
        return is_added;
}

struct x509_crl *x509_crl_new(const struct x509_signer *signer, uint64_t number, unix_sec this_update,
                              unix_sec next_update) {
        struct x509_crl *crl = xcalloc(1, sizeof *crl);

        crl->crl = X509_CRL_new();
        if (!crl->crl)
                oom();
        crl->signer = *signer;
        crl->is_sound = X509_CRL_set_version(crl->crl, X509_CRL_VERSION_2) == 1 &&
                        X509_CRL_set_issuer_name(crl->crl, X509_get_subject_name(signer->certificate)) == 1 &&
                        set_time(X509_CRL_set1_lastUpdate, crl->crl, this_update) &&
                        set_time(X509_CRL_set1_nextUpdate, crl->crl, next_update) && add_aki(crl->crl, signer) &&
                        add_number(crl->crl, number);
        return crl;
}

/* "Unspecified" is said by saying nothing (RFC 5280 §5.3.1). */
static bool add_reason(X509_REVOKED *entry, enum revocation_reason reason) {
        ASN1_ENUMERATED *value;
        bool is_added;

        if (reason <= REVOKED_UNSPECIFIED)
                return true;
        value = ASN1_ENUMERATED_new();
        is_added = value && ASN1_ENUMERATED_set(value, reason) == 1 &&
                   X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, value, 0, X509V3_ADD_DEFAULT) == 1;
        ASN1_ENUMERATED_free(value);
        return is_added;
}

static bool set_serial(X509_REVOKED *entry, const struct certificate *certificate) {
        ASN1_INTEGER *serial = ASN1_INTEGER_new();
        bool is_set = serial && certificate->serial_size > 0 && certificate->serial_size <= CERTIFICATE_SERIAL_MAX &&
                      ASN1_STRING_set(serial, certificate->serial, (int)certificate->serial_size) == 1 &&
                      X509_REVOKED_set_serialNumber(entry, serial) == 1;

        ASN1_INTEGER_free(serial);
        return is_set;
}

int x509_crl_add(struct x509_crl *crl, const struct certificate *certificate) {
        X509_REVOKED *entry = X509_REVOKED_new();
        ASN1_TIME *at = x509_time(certificate->revoked_at.wall);

        if (!entry)
                oom();
        if (at && set_serial(entry, certificate) && X509_REVOKED_set_revocationDate(entry, at) == 1 &&
            add_reason(entry, certificate->revoked) && X509_CRL_add0_revoked(crl->crl, entry) == 1)
                entry = NULL;
        else
                crl->is_sound = false;
        ASN1_TIME_free(at);
        X509_REVOKED_free(entry);
        return crl->is_sound ? 0 : -EIO;
}

int x509_crl_finish(struct x509_crl *crl, struct buffer *to, struct problem *problem) {
        uint8_t *der = NULL;
        int size = 0, r = 0;

        if (!crl->is_sound)
                r = -EIO;
        else if (X509_CRL_sort(crl->crl) != 1 || !x509_sign_crl(crl->crl, crl->signer.key))
                r = -EIO;
        else if ((size = i2d_X509_CRL(crl->crl, &der)) <= 0)
                r = -EIO;
        if (r == 0)
                buffer_append(to, BYTES(der, (size_t)size));
        else
                problem_set(problem, CODE_INTERNAL, EIO, "cannot sign", "the CRL cannot be made: %s", x509_error());
        OPENSSL_free(der);
        X509_CRL_free(crl->crl);
        free(crl);
        return r;
}

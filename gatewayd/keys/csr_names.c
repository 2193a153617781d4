/* SPDX-License-Identifier: Apache-2.0 */

/* Whose names a CSR carries. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>

#define TITLE      "name not allowed"
#define UNREADABLE "the subjectAltName cannot be read"

int csr_names(const struct csr *csr, GENERAL_NAMES **ret) {
        _cleanup_(x509_extensionsp) STACK_OF(X509_EXTENSION) *list = X509_REQ_get_extensions(csr->request);
        int critical = -1;

        *ret = X509V3_get_d2i(list, NID_subject_alt_name, &critical, NULL);
        ERR_clear_error();
        return *ret || critical == -1 ? 0 : -EBADMSG;
}

static bool ends_with_id(const ASN1_STRING *uri, const char *device) {
        size_t size = (size_t)ASN1_STRING_length(uri), id_size = strlen(device);
        const char *text = (const char *)ASN1_STRING_get0_data(uri);

        return size > 8 + id_size && strncasecmp(text, "urn:dev:", 8) == 0 && text[size - id_size - 1] == ':' &&
               memcmp(text + size - id_size, device, id_size) == 0;
}

static bool is_own(const GENERAL_NAME *name, const char *device) {
        switch (name->type) {
        case GEN_DNS:
        case GEN_EMAIL:
                return x509_string_is(name->d.ia5, device);
        case GEN_URI:
                return x509_string_is(name->d.ia5, device) || ends_with_id(name->d.ia5, device);
        default:
                return false;
        }
}

static bool stands_in(const GENERAL_NAME *name, const GENERAL_NAMES *names) {
        for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
                /* OpenSSL's declaration lacks the const; it does not write. */
                if (GENERAL_NAME_cmp((GENERAL_NAME *)name, sk_GENERAL_NAME_value(names, i)) == 0)
                        return true;
        return false;
}

bool csr_name_is_allowed(const GENERAL_NAME *name, const char *device, const GENERAL_NAMES *before) {
        return is_own(name, device) || stands_in(name, before);
}

static void name_text(const GENERAL_NAME *name, char *to, size_t to_size) {
        BIO *memory = BIO_new(BIO_s_mem());
        int size;

        if (!memory)
                oom();
        size = GENERAL_NAME_print(memory, (GENERAL_NAME *)name) == 1 ? BIO_read(memory, to, (int)to_size - 1) : 0;
        to[size > 0 ? size : 0] = 0;
        BIO_free(memory);
}

/* All serialNumbers are the device, or where there are none all commonNames. A subject with neither names
 * nobody. */
static int check_subject(const X509_NAME *subject, const char *device, struct problem *problem) {
        int nid = X509_NAME_get_index_by_NID(subject, NID_serialNumber, -1) >= 0 ? NID_serialNumber : NID_commonName;

        for (int at = -1; (at = X509_NAME_get_index_by_NID(subject, nid, at)) >= 0;) {
                char text[65] = "";

                if (x509_string_is(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), device))
                        continue;
                (void)X509_NAME_get_text_by_NID(subject, nid, text, sizeof text); /* for the message alone */
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE,
                                   "the subject's %s is \"%s\", this device is \"%s\"",
                                   nid == NID_serialNumber ? "serialNumber" : "commonName", text, device);
        }
        return 0;
}

static int check_names(const GENERAL_NAMES *names, const char *device, const GENERAL_NAMES *known,
                       struct problem *problem) {
        for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
                const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
                char text[65];

                if (csr_name_is_allowed(name, device, known))
                        continue;
                name_text(name, text, sizeof text);
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE,
                                   "the subjectAltName has \"%s\", this device is \"%s\"", text, device);
        }
        return 0;
}

/* The same names, in whatever order. */
static bool are_equal(const GENERAL_NAMES *one, const GENERAL_NAMES *other) {
        if (sk_GENERAL_NAME_num(one) != sk_GENERAL_NAME_num(other))
                return false;
        for (int i = 0; i < sk_GENERAL_NAME_num(one); i++)
                if (!stands_in(sk_GENERAL_NAME_value(one, i), other) ||
                    !stands_in(sk_GENERAL_NAME_value(other, i), one))
                        return false;
        return true;
}

static int check_renewal(const X509_NAME *subject, const GENERAL_NAMES *names, X509 *before, const GENERAL_NAMES *known,
                         struct problem *problem) {
        if (X509_NAME_entry_count(subject) > 0 && X509_NAME_cmp(subject, X509_get_subject_name(before)) != 0)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE,
                                   "the subject is not that of the certificate to be renewed");
        if (sk_GENERAL_NAME_num(names) > 0 && !are_equal(names, known))
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE,
                                   "the subjectAltName is not that of the certificate to be renewed");
        return 0;
}

int csr_check_names(const struct csr *csr, const char *device, X509 *before, struct problem *problem) {
        _cleanup_(x509_general_namesp) GENERAL_NAMES *names = NULL, *known = NULL;
        const X509_NAME *subject = X509_REQ_get_subject_name(csr->request);
        int r = csr_names(csr, &names);

        if (r < 0)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE, UNREADABLE);
        if (!before) {
                r = check_subject(subject, device, problem);
                return r < 0 ? r : check_names(names, device, NULL, problem);
        }
        known = X509_get_ext_d2i(before, NID_subject_alt_name, NULL, NULL);
        ERR_clear_error();
        return check_renewal(subject, names, before, known, problem);
}

int csr_check_first_names(const struct csr *csr, const char *device, X509 *idevid, struct problem *problem) {
        _cleanup_(x509_general_namesp) GENERAL_NAMES *names = NULL, *known = NULL;
        X509_NAME *subject = X509_REQ_get_subject_name(csr->request);
        int r = csr_names(csr, &names);

        if (r < 0)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, TITLE, UNREADABLE);
        if (!idevid)
                return csr_check_names(csr, device, NULL, problem);
        if (X509_NAME_cmp(subject, X509_get_subject_name(idevid)) != 0) {
                r = check_subject(subject, device, problem);
                if (r < 0)
                        return r;
        }
        known = X509_get_ext_d2i(idevid, NID_subject_alt_name, NULL, NULL);
        ERR_clear_error();
        return check_names(names, device, known, problem);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* LDevIDs (IEEE 802.1AR §8): what a device's certificate says, and that nothing gets into it that the
 * device has no right to. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>

static bool has_entry(const X509_NAME *name, int nid, const char *text) {
        int at = X509_NAME_get_index_by_NID(name, nid, -1);

        return at >= 0 && x509_string_is(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)), text);
}

/* An LDevID keeps its subject when it is renewed (RFC 7030 §4.2.2). An IDevID's is kept where it names the
 * device as we do: its CA has vouched for the rest of it. Of a CSR only what is the device's id is taken. */
static X509_NAME *choose_subject(const struct csr *csr, const char *device, X509 *before) {
        X509_NAME *name;
        bool is_sound;

        if (before && has_entry(X509_get_subject_name(before), NID_serialNumber, device))
                return X509_NAME_dup(X509_get_subject_name(before));
        name = X509_NAME_new();
        if (!name)
                oom();
        is_sound = !csr || !has_entry(X509_REQ_get_subject_name(csr->request), NID_commonName, device) ||
                   x509_name_add(name, NID_commonName, device);
        if (is_sound && x509_name_add(name, NID_serialNumber, device))
                return name;
        X509_NAME_free(name);
        return NULL;
}

/* The CSR's names that are allowed; where it has none, those of the certificate before. */
static int choose_names(const struct csr *csr, const char *device, X509 *before, GENERAL_NAMES **ret) {
        _cleanup_(x509_general_namesp) GENERAL_NAMES *wanted = NULL, *known = NULL, *chosen = GENERAL_NAMES_new();
        int r = csr ? csr_names(csr, &wanted) : 0;

        if (r < 0)
                return r;
        if (!chosen)
                oom();
        if (before)
                known = X509_get_ext_d2i(before, NID_subject_alt_name, NULL, NULL);
        ERR_clear_error();
        for (int i = 0; i < sk_GENERAL_NAME_num(wanted ? wanted : known); i++) {
                const GENERAL_NAME *name = sk_GENERAL_NAME_value(wanted ? wanted : known, i);
                GENERAL_NAME *copy;

                if (!csr_name_is_allowed(name, device, known))
                        continue;
                copy = GENERAL_NAME_dup(name);
                if (!copy || sk_GENERAL_NAME_push(chosen, copy) == 0)
                        oom();
        }
        if (sk_GENERAL_NAME_num(chosen) > 0) {
                *ret = chosen;
                chosen = NULL;
        }
        return 0;
}

X509 *x509_device_make(const struct x509_signer *signer, const struct csr *csr, EVP_PKEY *key, const char *device,
                       X509 *before, const struct x509_validity *validity, struct buffer *to, struct problem *problem) {
        _cleanup_(x509_namep) X509_NAME *subject = choose_subject(csr, device, before);
        _cleanup_(x509_general_namesp) GENERAL_NAMES *names = NULL;
        struct x509_draft draft = {
                .signer = signer,
                .key = key,
                .subject = subject,
                .validity = validity,
                .path_length = -1,
                .usages = { NID_client_auth },
        };

        if (!key || !subject || choose_names(csr, device, before, &names) < 0) {
                problem_set(problem, CODE_INTERNAL, EIO, "cannot sign", "the names of %s cannot be written: %s", device,
                            x509_error());
                return NULL;
        }
        draft.names = names;
        return x509_draft_sign(&draft, to, problem);
}

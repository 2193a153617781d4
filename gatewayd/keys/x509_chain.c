/* SPDX-License-Identifier: Apache-2.0 */

/* Whether a certificate leads to an anchor: OpenSSL builds and checks the path (signatures, basic and path
 * constraints, key usage, name constraints, unknown critical extensions, strength), never with a look at the
 * clock. What the leaf may do is decided here: IDevIDs often have no extendedKeyUsage, and OpenSSL's own
 * purposes ask for more and for less. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>

/* 112 bits: RSA from 2048, no SHA-1 (NIST SP 800-131A). */
#define AUTH_LEVEL 2

static void contextp(X509_STORE_CTX **context) {
        X509_STORE_CTX_free(*context);
}

static void trustedp(STACK_OF(X509) * *stack) {
        sk_X509_free(*stack); /* its certificates are borrowed */
}

static int refuse(struct problem *problem, const char *what) {
        ERR_clear_error();
        return problem_set(problem, CODE_FORBIDDEN, EKEYREJECTED, "certificate refused", "%s", what);
}

static bool may_serve_clients(X509 *certificate) {
        uint32_t usage = X509_get_extended_key_usage(certificate);

        return usage == UINT32_MAX || (usage & (XKU_SSL_CLIENT | XKU_ANYEKU)) != 0;
}

static int check_leaf(X509 *leaf, struct problem *problem) {
        uint32_t flags = X509_get_extension_flags(leaf);

        if (flags & EXFLAG_INVALID)
                return refuse(problem, "an extension of the device's certificate cannot be read");
        if (flags & EXFLAG_CA)
                return refuse(problem, "the certificate is a CA's, not a device's");
        if (!(X509_get_key_usage(leaf) & KU_DIGITAL_SIGNATURE))
                return refuse(problem, "the key usage does not allow digitalSignature");
        if (!may_serve_clients(leaf))
                return refuse(problem, "the extended key usage does not allow clientAuth");
        return 0;
}

/* Where a CA limits what may be under it, TLS clients must be among it. */
static int check_path(STACK_OF(X509) * path, struct problem *problem) {
        for (int i = 1; i < sk_X509_num(path); i++)
                if (!may_serve_clients(sk_X509_value(path, i)))
                        return refuse(problem, "the extended key usage of a CA does not allow clientAuth");
        return 0;
}

/* Tries one anchor. Returns 0 and the path, or OpenSSL's reason (X509_V_ERR_…). */
static int try_anchor(STACK_OF(X509) * chain, X509 *anchor, STACK_OF(X509) * *ret_path) {
        _cleanup_(contextp) X509_STORE_CTX *context = X509_STORE_CTX_new();
        _cleanup_(trustedp) STACK_OF(X509) *trusted = sk_X509_new_null();
        X509_VERIFY_PARAM *parameters;

        if (!context || !trusted || sk_X509_push(trusted, anchor) == 0 ||
            X509_STORE_CTX_init(context, NULL, sk_X509_value(chain, 0), chain) != 1)
                oom();
        X509_STORE_CTX_set0_trusted_stack(context, trusted);
        parameters = X509_STORE_CTX_get0_param(context);
        X509_VERIFY_PARAM_set_flags(parameters, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
        X509_VERIFY_PARAM_set_depth(parameters, CHAIN_MAX);
        X509_VERIFY_PARAM_set_auth_level(parameters, AUTH_LEVEL);
        if (X509_verify_cert(context) == 1) {
                *ret_path = X509_STORE_CTX_get1_chain(context);
                if (!*ret_path)
                        oom();
                return X509_V_OK;
        }
        ERR_clear_error();
        return X509_STORE_CTX_get_error(context) == X509_V_OK ? X509_V_ERR_UNSPECIFIED
                                                              : X509_STORE_CTX_get_error(context);
}

/* No path at all, as opposed to a path that fails. */
static bool is_elsewhere(int error) {
        return error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT ||
               error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE || error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
               error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT;
}

struct search {
        STACK_OF(X509) * chain, *anchors;
        STACK_OF(X509) * path; /* the shortest so far */
        size_t anchor;
        int error;
};

/* Anchors that issued the leaf itself, or all others. An anchor may stand above another one: the shorter
 * path is the one that counts. */
static void search_anchors(struct search *search, bool is_direct) {
        X509 *leaf = sk_X509_value(search->chain, 0);

        for (int i = 0; i < sk_X509_num(search->anchors); i++) {
                X509 *anchor = sk_X509_value(search->anchors, i);
                STACK_OF(X509) *path = NULL;
                int error;

                if ((X509_check_issued(anchor, leaf) == X509_V_OK) != is_direct)
                        continue;
                error = try_anchor(search->chain, anchor, &path);
                if (error != X509_V_OK) {
                        if (search->error == X509_V_OK || is_elsewhere(search->error))
                                search->error = error;
                        continue;
                }
                if (search->path && sk_X509_num(search->path) <= sk_X509_num(path)) {
                        x509_stackp(&path);
                        continue;
                }
                x509_stackp(&search->path);
                search->path = path;
                search->anchor = (size_t)i;
                if (is_direct)
                        return;
        }
}

int x509_chain_verify(STACK_OF(X509) * chain, STACK_OF(X509) * anchors, STACK_OF(X509) * *ret_path, size_t *ret_anchor,
                      struct problem *problem) {
        struct search search = { .chain = chain, .anchors = anchors };
        int r;

        if (sk_X509_num(chain) < 1 || sk_X509_num(chain) > CHAIN_MAX)
                return refuse(problem, "there is no certificate, or there are more than 8");
        r = check_leaf(sk_X509_value(chain, 0), problem);
        if (r < 0)
                return r;
        search_anchors(&search, true);
        if (!search.path)
                search_anchors(&search, false);
        if (!search.path)
                return refuse(problem, search.error == X509_V_OK || is_elsewhere(search.error)
                                               ? "no trust anchor issued this certificate"
                                               : X509_verify_cert_error_string(search.error));
        r = check_path(search.path, problem);
        if (r < 0) {
                x509_stackp(&search.path);
                return r;
        }
        ERR_clear_error(); /* reading extensions leaves complaints, even where nothing is refused for them */
        if (ret_anchor)
                *ret_anchor = search.anchor;
        if (ret_path)
                *ret_path = search.path;
        else
                x509_stackp(&search.path);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* What the owner's PKI answered to a sub-CA's request: taken only if it is whole, answers that request, and may
 * sign devices' certificates. */

#include <errno.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/keys/key_uri.h"

static int refuse(struct problem *problem, const char *why) {
        return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "CA certificate", "%s", why);
}

/* ---- reading ---- */

static STACK_OF(X509) * read_pem(struct bytes text) {
        BIO *bio = BIO_new_mem_buf(text.data, (int)text.size);
        STACK_OF(X509) *list = sk_X509_new_null();
        X509 *certificate;

        if (!bio || !list)
                oom();
        while (sk_X509_num(list) < CHAIN_MAX && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
                if (sk_X509_push(list, certificate) == 0)
                        oom();
        BIO_free(bio);
        ERR_clear_error();
        if (sk_X509_num(list) > 0)
                return list;
        sk_X509_free(list);
        return NULL;
}

static STACK_OF(X509) * read_certificates(struct bytes input) {
        STACK_OF(X509) *list = NULL;

        if (input.size == 0 || input.size > INT32_MAX)
                return NULL;
        if (input.data[0] == 0x30) /* a SEQUENCE: DER */
                list = x509_read_chain(input);
        if (!list && input.data[0] == 0x30)
                list = x509_pkcs7_read(input);
        if (!list && input.data[0] != 0x30)
                list = read_pem(input);
        ERR_clear_error();
        return list;
}

/* ---- order: sub-CA first, then each one's issuer ---- */

static int find_index(STACK_OF(X509) * list, int from, EVP_PKEY *key, X509 *subject) {
        for (int i = from; i < sk_X509_num(list); i++) {
                X509 *certificate = sk_X509_value(list, i);

                if (key ? EVP_PKEY_eq(X509_get0_pubkey(certificate), key) == 1
                        : X509_check_issued(certificate, subject) == X509_V_OK)
                        return i;
        }
        return -1;
}

static void swap(STACK_OF(X509) * list, int a, int b) {
        X509 *first = sk_X509_value(list, a);

        (void)sk_X509_set(list, a, sk_X509_value(list, b));
        (void)sk_X509_set(list, b, first);
}

static int put_in_order(STACK_OF(X509) * list, EVP_PKEY *key, struct problem *problem) {
        int at = find_index(list, 0, key, NULL);

        if (at < 0)
                return refuse(problem, "none of the certificates is for the key of the waiting request");
        swap(list, 0, at);
        for (int i = 1; i < sk_X509_num(list); i++) {
                at = find_index(list, i, NULL, sk_X509_value(list, i - 1));
                if (at < 0)
                        return refuse(problem, "the certificates are no chain: one of them issued none of the others");
                swap(list, i, at);
        }
        return 0;
}

/* ---- is it good? ---- */

static int check_ca(X509 *ca, struct problem *problem) {
        uint32_t usage = X509_get_key_usage(ca);

        if ((usage & KU_KEY_CERT_SIGN) == 0)
                return refuse(problem, "the certificate may not sign certificates (keyUsage keyCertSign)");
        if ((usage & KU_CRL_SIGN) == 0)
                return refuse(problem, "the certificate may not sign CRLs (keyUsage cRLSign)");
        if (X509_get_version(ca) != X509_VERSION_3 || X509_check_ca(ca) != 1)
                return refuse(problem, "the certificate is no CA's (basicConstraints CA:TRUE)");
        if (X509_self_signed(ca, 0) == 1)
                return refuse(problem, "the certificate is self-signed; it must come from the owner's CA");
        return 0;
}

static int check_pathlen(X509 *ca, struct problem *problem) {
        return X509_get_pathlen(ca) <= 0
                       ? 0
                       : refuse(problem,
                                "the certificate must have pathlen 0 or none: this CA issues to devices alone");
}

/* Signatures, CA flags and path lengths up to the last certificate; what time it is is looked at elsewhere. */
static int verify(STACK_OF(X509) * list, struct problem *problem) {
        X509 *top = sk_X509_value(list, sk_X509_num(list) - 1);
        X509_STORE_CTX *context = X509_STORE_CTX_new();
        X509_STORE *store = X509_STORE_new();
        int r = 0;

        if (!context || !store || X509_STORE_add_cert(store, top) != 1 ||
            X509_STORE_CTX_init(context, store, sk_X509_value(list, 0), list) != 1)
                oom();
        X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context),
                                    X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME);
        X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(context), 1);
        if (X509_verify_cert(context) != 1)
                r = problem_set(problem, CODE_BAD_REQUEST, EINVAL, "CA certificate", "the chain does not verify: %s",
                                X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
        X509_STORE_CTX_free(context);
        X509_STORE_free(store);
        ERR_clear_error();
        return r;
}

static int check_times(struct turn *turn, X509 *ca, struct authority *authority, struct problem *problem) {
        struct x509_validity validity;
        char day[32];

        if (x509_validity_of(ca, &validity) < 0)
                return refuse(problem, "the certificate's times cannot be read");
        authority->not_before = validity.not_before;
        authority->not_after = validity.not_after;
        authority_day(validity.not_after, day);
        if (authority_is_spent(authority, &turn->now))
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "CA certificate",
                                   "it runs out on %s, too soon to sign anything", day);
        authority_day(validity.not_before, day);
        if (turn->now.wall_trusted && validity.not_before > turn->now.wall)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "CA certificate", "it is valid from %s on", day);
        return 0;
}

/* ---- warnings ---- */

static void warn(char *warning, const char *text) {
        size_t used = strlen(warning);

        if (used < AUTHORITY_WARNING_MAX)
                snprintf(warning + used, AUTHORITY_WARNING_MAX - used, "%s%s", used > 0 ? "; " : "", text);
}

static bool has_critical_constraints(X509 *certificate) {
        int at = X509_get_ext_by_NID(certificate, NID_name_constraints, -1);

        return at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, at)) == 1;
}

static bool permits_host(STACK_OF(X509) * list, const char *host) {
        GENERAL_NAMES *names = GENERAL_NAMES_new();
        GENERAL_NAME *name = GENERAL_NAME_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        X509 *probe = X509_new();
        bool is_permitted = true;

        if (!names || !name || !text || !probe || ASN1_STRING_set(text, host, -1) != 1)
                oom();
        GENERAL_NAME_set0_value(name, GEN_DNS, text);
        if (sk_GENERAL_NAME_push(names, name) == 0 ||
            X509_add1_ext_i2d(probe, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) != 1)
                oom();
        (void)X509_check_purpose(probe, -1, 0); /* has its extensions read */
        for (int i = 0; i < sk_X509_num(list); i++) {
                NAME_CONSTRAINTS *constraints =
                        X509_get_ext_d2i(sk_X509_value(list, i), NID_name_constraints, NULL, NULL);

                is_permitted &= !constraints || NAME_CONSTRAINTS_check(probe, constraints) == X509_V_OK;
                NAME_CONSTRAINTS_free(constraints);
        }
        GENERAL_NAMES_free(names);
        X509_free(probe);
        ERR_clear_error();
        return is_permitted;
}

static void look_for_warnings(const struct turn *turn, STACK_OF(X509) * list, char *warning) {
        const char *host = turn->config->ca.server_name;
        X509 *top = sk_X509_value(list, sk_X509_num(list) - 1);
        bool is_critical = false;
        char text[160];

        for (int i = 0; i < sk_X509_num(list); i++)
                is_critical |= has_critical_constraints(sk_X509_value(list, i));
        if (is_critical)
                warn(warning, "critical nameConstraints: devices with Mbed TLS cannot read this chain");
        if (!permits_host(list, host)) {
                snprintf(text, sizeof text, "its nameConstraints do not permit %.80s, the gateway's own name", host);
                warn(warning, text);
        }
        if (X509_self_signed(top, 0) != 1)
                warn(warning, "the owner's root is not among them: devices must have it already");
}

/* ---- import ---- */

static int put_bytes(struct turn *turn, const struct authority *authority, STACK_OF(X509) * list) {
        _cleanup_(buffer_free) struct buffer ca = { 0 }, chain = { 0 };
        int r = x509_write(sk_X509_value(list, 0), &ca);

        for (int i = 1; i < sk_X509_num(list) && r >= 0; i++)
                r = x509_write(sk_X509_value(list, i), &chain);
        if (r >= 0)
                r = authority_put(turn->store, authority->generation, AUTHORITY_CERTIFICATE, buffer_bytes(&ca));
        if (r >= 0)
                r = authority_put(turn->store, authority->generation, AUTHORITY_CHAIN, buffer_bytes(&chain));
        return r;
}

static int check_key(struct turn *turn, const struct authority *authority, STACK_OF(X509) * list,
                     struct problem *problem) {
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        int r = authority_key_open(turn, authority, &key, problem);

        if (r >= 0)
                r = put_in_order(list, key, problem);
        return r < 0 ? r : key_probe(key, X509_get0_pubkey(sk_X509_value(list, 0)), problem);
}

int authority_import(struct turn *turn, struct bytes certificates, char *warning, struct problem *problem) {
        _cleanup_(x509_stack_freep) STACK_OF(X509) *list = NULL;
        struct authority authority;
        char ignored[AUTHORITY_WARNING_MAX];
        X509 *ca;
        int r;

        warning = warning ? warning : ignored;
        warning[0] = 0;
        r = authority_find(turn, AUTHORITY_REQUESTED, &authority);
        if (r == -ENOENT)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "CA",
                                   "no request waits for a certificate; gatewayctl ca csr makes one");
        if (r < 0)
                return r;
        list = read_certificates(certificates);
        if (!list)
                return refuse(problem, "these are no X.509 certificates, neither PEM nor DER nor PKCS#7");
        r = check_key(turn, &authority, list, problem);
        if (r < 0)
                return r;
        ca = sk_X509_value(list, 0);
        r = check_ca(ca, problem);
        if (r >= 0)
                r = check_pathlen(ca, problem);
        if (r >= 0)
                r = verify(list, problem);
        if (r >= 0)
                r = check_times(turn, ca, &authority, problem);
        if (r >= 0)
                r = put_bytes(turn, &authority, list);
        if (r < 0)
                return r;
        look_for_warnings(turn, list, warning);
        return authority_admit(turn, &authority);
}

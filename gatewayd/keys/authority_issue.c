/* SPDX-License-Identifier: Apache-2.0 */

/* Signing for a device: with which generation, from when until when, and within the names that the owner's PKI
 * allows. Who may have a certificate at all is decided in est_enrol.c. */

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority_parts.h"

/* When a device is told to come again: a CA is made by a person. */
#define NO_CA_MAX_AGE_SEC 3600

static int check_against(X509 *ca, X509 *leaf, struct problem *problem) {
        NAME_CONSTRAINTS *constraints = X509_get_ext_d2i(ca, NID_name_constraints, NULL, NULL);
        int verdict = X509_V_OK;

        if (constraints) {
                (void)X509_check_purpose(leaf, -1, 0); /* has the extensions read: the check looks at nothing else */
                verdict = NAME_CONSTRAINTS_check(leaf, constraints);
        }
        NAME_CONSTRAINTS_free(constraints);
        ERR_clear_error();
        if (verdict == X509_V_OK)
                return 0;
        return problem_set(problem, CODE_FORBIDDEN, EACCES, "name not permitted",
                           "the owner's PKI allows this CA no such name (nameConstraints): %s",
                           X509_verify_cert_error_string(verdict));
}

int authority_check_constraints(struct turn *turn, uint32_t generation, X509 *leaf, struct problem *problem) {
        _cleanup_(x509_stack_freep) STACK_OF(X509) *chain = NULL;
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(x509_freep) X509 *ca = authority_certificate(turn, generation);
        int r;

        if (!ca)
                return -EUCLEAN;
        r = check_against(ca, leaf, problem);
        if (r < 0)
                return r;
        r = authority_read(turn->store, generation, AUTHORITY_CHAIN, &der);
        if (r < 0 || der.size == 0)
                return r == -ENOENT ? 0 : r;
        chain = x509_read_chain(buffer_bytes(&der));
        if (!chain)
                return -EUCLEAN;
        for (int i = 0; i < sk_X509_num(chain) && r >= 0; i++)
                r = check_against(sk_X509_value(chain, i), leaf, problem);
        return r;
}

static int come_again(struct problem *problem, const char *why) {
        problem_set(problem, CODE_UNAVAILABLE, EAGAIN, "no CA", "%s", why);
        if (problem)
                problem->max_age_sec = NO_CA_MAX_AGE_SEC;
        return -EAGAIN;
}

/* Never beyond the CA's own time; where the clock may be behind the true time, from as early as the CA. */
static struct x509_validity validity_for(const struct turn *turn, const struct authority *active,
                                         const struct profile *profile) {
        /* A clock that does not know the time may be behind the CA's beginning. */
        unix_sec begin = turn->now.wall > active->not_before ? turn->now.wall : active->not_before;
        struct x509_validity validity = {
                .not_before = turn->now.wall - turn->config->ca.backdate_sec,
                .not_after = begin + profile->validity_sec,
        };

        if (validity.not_before < active->not_before || turn->now.quality == CLOCK_UNKNOWN)
                validity.not_before = active->not_before;
        if (validity.not_after > active->not_after)
                validity.not_after = active->not_after;
        return validity;
}

int authority_issue(struct turn *turn, const struct csr *csr, EVP_PKEY *key, const char *device,
                    const struct profile *profile, X509 *before, struct certificate *ret, struct buffer *ret_der,
                    struct problem *problem) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(x509_freep) X509 *leaf = NULL;
        struct certificate certificate = { .revoked = REVOKED_NOT };
        struct x509_validity validity;
        struct x509_signer signer;
        struct authority active;
        int r;

        r = authority_find(turn, AUTHORITY_ACTIVE, &active);
        if (r == -ENOENT)
                return come_again(problem, "this gateway has no CA yet");
        if (r < 0)
                return r;
        if (authority_is_spent(&active, &turn->now))
                return come_again(problem, "the CA has run out and has no successor");
        r = authority_signer(turn, &active, &signer, problem);
        if (r < 0)
                return r;
        validity = validity_for(turn, &active, profile);
        leaf = x509_device_make(&signer, csr, key, device, before, &validity, &der, problem);
        if (!leaf)
                return authority_signer_failed(turn, &active, problem);
        r = authority_check_constraints(turn, active.generation, leaf, problem);
        if (r >= 0)
                r = x509_describe(leaf, &certificate);
        if (r < 0)
                return r;
        snprintf(certificate.device, sizeof certificate.device, "%s", device);
        certificate.issuer = active.generation;
        memcpy(certificate.csr, csr->digest, sizeof certificate.csr);
        r = certificate_insert(turn->store, &certificate, buffer_bytes(&der));
        if (r < 0)
                return r;
        buffer_append(ret_der, buffer_bytes(&der));
        *ret = certificate;
        return 0;
}

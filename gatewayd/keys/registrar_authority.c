/* SPDX-License-Identifier: Apache-2.0 */

/* The gateway's own sub-CA at the owner's EST server: its waiting CSR among the enrolments of devices, and the
 * answer, with its chain, on its way to authority_import(). */

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/registrar_parts.h"

/* The generation that waits for its certificate. -ENOENT. */
static int requested_generation(struct turn *turn, bool *ret_has_active, uint32_t *ret) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, ELEMENTS(list));
        int r = -ENOENT;

        *ret_has_active = false;
        for (ssize_t i = 0; i < n; i++) {
                if (list[i].state == AUTHORITY_ACTIVE && !list[i].is_root)
                        *ret_has_active = true;
                if (list[i].state != AUTHORITY_REQUESTED)
                        continue;
                *ret = list[i].generation;
                r = 0;
        }
        return n < 0 ? (int)n : r;
}

/* The certificate among `pool` that issued `subject`; NULL: none, or it issued itself. */
static X509 *issuer_in(STACK_OF(X509) * pool, X509 *subject) {
        if (X509_check_issued(subject, subject) == X509_V_OK)
                return NULL;
        for (int i = 0; i < sk_X509_num(pool); i++) {
                X509 *issuer = sk_X509_value(pool, i);

                if (X509_check_issued(issuer, subject) == X509_V_OK &&
                    X509_verify(subject, X509_get0_pubkey(issuer)) == 1)
                        return issuer;
        }
        return NULL;
}

int registrar_write_chain(struct turn *turn, X509 *leaf, STACK_OF(X509) * answer, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer known = { 0 };
        STACK_OF(X509) *anchors = NULL;
        int r;

        if (registrar_anchors(turn, &known) >= 0)
                anchors = x509_read_chain(buffer_bytes(&known));
        r = x509_write(leaf, to);
        for (size_t depth = 0; r >= 0 && depth < CHAIN_MAX; depth++) {
                X509 *issuer = issuer_in(answer, leaf);

                if (!issuer && anchors)
                        issuer = issuer_in(anchors, leaf);
                if (!issuer)
                        break;
                r = x509_write(issuer, to);
                leaf = issuer;
        }
        sk_X509_pop_free(anchors, X509_free);
        ERR_clear_error();
        return r;
}

/* authority_import() is all or nothing: what it refuses leaves no trace but the row's reason. */
static int import(struct turn *turn, struct bytes chain, char *warning, struct problem *problem) {
        size_t mark = turn_mark(turn);
        int r = store_savepoint(turn->store);

        if (r < 0)
                return r;
        r = authority_import(turn, chain, warning, problem);
        if (r >= 0)
                return store_savepoint_release(turn->store);
        turn_rewind(turn, mark);
        return store_savepoint_rollback(turn->store) < 0 ? -EIO : -EBADMSG;
}

int registrar_take_for_authority(struct turn *turn, struct enrolment *enrolment, STACK_OF(X509) * certificates,
                                 uint16_t http_status) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        X509 *certificate = registrar_find_for_key(certificates, enrolment);
        char warning[256] = "";
        struct problem problem = { 0 };
        uint32_t generation;
        bool has_active;
        int r;

        r = requested_generation(turn, &has_active, &generation);
        if (r == -ENOENT) /* an operator was quicker */
                return registrar_settle(turn, enrolment, ENROLMENT_ISSUED, http_status, "");
        if (r < 0)
                return r;
        if (!certificate)
                return registrar_settle(turn, enrolment, ENROLMENT_REFUSED, http_status,
                                        "no certificate in the answer is for the key asked for");
        r = registrar_write_chain(turn, certificate, certificates, &chain);
        if (r >= 0)
                r = import(turn, buffer_bytes(&chain), warning, &problem);
        if (r == -EBADMSG)
                return registrar_settle(turn, enrolment, ENROLMENT_REFUSED, http_status, problem.detail);
        return r < 0 ? r : registrar_settle(turn, enrolment, ENROLMENT_ISSUED, http_status, "");
}

int registrar_ask_authority(struct turn *turn) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct enrolment enrolment = { .state = ENROLMENT_WAITING, .asked = turn->now }, before;
        X509_REQ *request;
        const uint8_t *at;
        uint32_t generation;
        int r;

        if (!turn->config->north.est_url[0])
                return 0;
        r = requested_generation(turn, &enrolment.is_renewal, &generation);
        if (r >= 0)
                r = authority_read(turn->store, generation, AUTHORITY_CSR, &der);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        at = der.data;
        request = d2i_X509_REQ(NULL, &at, (long)der.size);
        if (!request || x509_key_digest(X509_REQ_get0_pubkey(request), enrolment.public_key) < 0 ||
            EVP_Digest(der.data, der.size, enrolment.csr, NULL, EVP_sha256(), NULL) != 1)
                r = -EBADMSG;
        X509_REQ_free(request);
        ERR_clear_error();
        if (r < 0)
                return r;

        r = enrolment_find(turn->store, "", enrolment.public_key, &before);
        if (r >= 0 && (before.state != ENROLMENT_REFUSED ||
                       moment_powered_age(&turn->now, &before.answered) < RETRY_AFTER_MAX_SEC))
                return 0;
        if (r >= 0 || r == -ENOENT)
                r = enrolment_remove_device(turn->store, "");
        if (r >= 0)
                r = enrolment_insert(turn->store, &enrolment, buffer_bytes(&der));
        if (r >= 0)
                r = turn_event(turn, EVENT_ENROLMENT_WAITING, NULL, NULL,
                               "enrolment %llu: this gateway's own CA, generation %u, waits for the owner's CA",
                               (unsigned long long)enrolment.number, generation);
        if (r >= 0)
                turn_effect(turn, EFFECT_ENROL, NULL, NULL);
        return r;
}

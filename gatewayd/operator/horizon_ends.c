/* SPDX-License-Identifier: Apache-2.0 */

/* Which dates of the issuing CA only an upstream can move. */

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/operator/monitor.h"

static unix_sec earlier(unix_sec a, unix_sec b) {
        return a == 0 || (b != 0 && b < a) ? b : a;
}

/* A root whose key is in the store gets its successor here; one whose key is in a token needs a hand to bring the
 * next key, and a sub-CA its owner. */
static bool renews_itself(const struct authority *authority) {
        return authority->is_root && key_is_sealed(authority->key_uri);
}

/* The owner's intermediates and root as they came with the certificate. */
static unix_sec chain_end(struct turn *turn, uint32_t generation) {
        _cleanup_(x509_stack_freep) STACK_OF(X509) *chain = NULL;
        _cleanup_(buffer_free) struct buffer der = { 0 };
        unix_sec end = 0;

        if (authority_read(turn->store, generation, AUTHORITY_CHAIN, &der) < 0 || der.size == 0)
                return 0;
        chain = x509_read_chain(buffer_bytes(&der));
        for (int i = 0; chain && i < sk_X509_num(chain); i++) {
                struct x509_validity validity;

                if (x509_validity_of(sk_X509_value(chain, i), &validity) >= 0)
                        end = earlier(end, validity.not_after);
        }
        return end;
}

int monitor_ends(struct turn *turn, struct horizon_view *view) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        for (ssize_t i = 0; i < n; i++) {
                const struct authority *authority = &list[i];
                struct problem ignored = { 0 };
                struct x509_signer signer;

                if (authority->state != AUTHORITY_ACTIVE && authority->state != AUTHORITY_ANNOUNCED)
                        continue;
                /* A successor that is announced already takes over without anybody's help. */
                if (!renews_itself(authority) && authority->not_after > view->ca_end)
                        view->ca_end = authority->not_after - authority_spare_sec(authority);
                if (authority->state != AUTHORITY_ACTIVE)
                        continue;
                view->chain_end = chain_end(turn, authority->generation);
                if (authority->crl_number > 0 && (authority_is_spent(authority, &turn->now) ||
                                                  authority_signer(turn, authority, &signer, &ignored) < 0))
                        view->crl_end = authority->crl_next_update;
        }
        return n < 0 ? (int)n : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The certificate that south shows devices: short-lived, with a key of its own each time, issued by the active
 * generation. Key and leaf are own secrets of the store; the chain is put together when it is asked for, since
 * it changes with the generations. */

#include <errno.h>

#include <openssl/x509v3.h>

#include "gatewayd/keys/authority_parts.h"

#define SERVER_KEY  "server-key"
#define SERVER_LEAF "server-leaf"

static X509 *read_leaf(struct turn *turn) {
        _cleanup_(buffer_free) struct buffer der = { 0 };

        if (store_own_secret_get(turn->store, SERVER_LEAF, &der) < 0)
                return NULL;
        return x509_read(buffer_bytes(&der));
}

static bool is_issued_by(X509 *ca, X509 *certificate) {
        return ca && X509_check_issued(ca, certificate) == X509_V_OK;
}

/* Renewed after two thirds of its life, unless its CA lives no longer either; INT64_MIN: it does not do. */
static unix_sec renewal_of(struct turn *turn, X509 *leaf, const struct authority *active) {
        _cleanup_(x509_freep) X509 *ca = authority_certificate(turn, active->generation);
        const struct ca_config *config = &turn->config->ca;
        struct x509_validity validity;

        if (!leaf || !is_issued_by(ca, leaf) || x509_validity_of(leaf, &validity) < 0 ||
            X509_check_host(leaf, config->server_name, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) != 1)
                return INT64_MIN;
        return validity.not_after < active->not_after ? validity.not_after - config->server_validity_sec / 3
                                                      : INT64_MAX;
}

static int make(struct turn *turn, const struct authority *active, const struct x509_signer *signer) {
        const struct ca_config *config = &turn->config->ca;
        unix_sec begin = turn->now.wall > active->not_before ? turn->now.wall : active->not_before;
        struct x509_validity validity = {
                .not_before = turn->now.wall - config->backdate_sec,
                .not_after = begin + config->server_validity_sec,
        };
        _cleanup_(buffer_free) struct buffer key_der = { 0 }, leaf_der = { 0 };
        _cleanup_(pkey_freep) EVP_PKEY *key = x509_key_new(X509_KEY_P256);
        _cleanup_(x509_freep) X509 *leaf = NULL;
        struct problem problem = { 0 };
        char day[32];
        int r;

        /* The true time may be any later one, and a device's clock slower than ours. */
        if (validity.not_before < active->not_before || turn->now.quality == CLOCK_UNKNOWN)
                validity.not_before = active->not_before;
        if (validity.not_after > active->not_after)
                validity.not_after = active->not_after;
        if (!key || key_write(key, &key_der) < 0)
                return -ENOMEM;
        leaf = x509_server_make(signer, key, config->server_name, &validity, &leaf_der, &problem);
        if (!leaf)
                return authority_signer_failed(turn, active, &problem);
        r = store_own_secret_put(turn->store, SERVER_KEY, buffer_bytes(&key_der));
        if (r >= 0)
                r = store_own_secret_put(turn->store, SERVER_LEAF, buffer_bytes(&leaf_der));
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_SERVER, NULL, NULL);
        authority_day(validity.not_after, day);
        return turn_event(turn, EVENT_SERVER_CERTIFICATE, NULL, NULL, "%s, by generation %u, until %s",
                          config->server_name, active->generation, day);
}

int authority_server_renew(struct turn *turn, unix_sec *ret_next) {
        _cleanup_(x509_freep) X509 *leaf = read_leaf(turn);
        struct problem ignored = { 0 }; /* the key's absence is told by authority_keys_tell() */
        struct x509_signer signer;
        struct authority active;
        int r;

        *ret_next = INT64_MAX;
        r = authority_find(turn, AUTHORITY_ACTIVE, &active);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        *ret_next = renewal_of(turn, leaf, &active);
        if (turn->now.wall < *ret_next || turn->now.wall >= active.not_after)
                return 0;
        r = authority_signer(turn, &active, &signer, &ignored);
        if (r < 0)
                return r;
        authority_touch(turn);
        return make(turn, &active, &signer);
}

/* ---- the chain ---- */

/* A root's successor is certified by its predecessor. Shown as long as that one lives, also when its last leaf is
 * gone: there may be devices that never had one and know the old root alone. */
static int append_cross(struct turn *turn, uint32_t generation, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(x509_freep) X509 *cross = NULL;
        struct x509_validity validity;
        int r = authority_read(turn->store, generation, AUTHORITY_CROSS, &der);

        if (r < 0)
                return r == -ENOENT ? 0 : r;
        cross = x509_read(buffer_bytes(&der));
        if (!cross || x509_validity_of(cross, &validity) < 0)
                return -EUCLEAN;
        if (turn->now.wall <= validity.not_after)
                buffer_append(to, buffer_bytes(&der));
        return 0;
}

/* The owner's intermediates; his root the devices must have anyway. */
static int append_intermediates(struct turn *turn, uint32_t generation, struct buffer *to) {
        _cleanup_(x509_stack_freep) STACK_OF(X509) *chain = NULL;
        _cleanup_(buffer_free) struct buffer der = { 0 };
        int r = authority_read(turn->store, generation, AUTHORITY_CHAIN, &der);

        if (r < 0 || der.size == 0)
                return r == -ENOENT ? 0 : r;
        chain = x509_read_chain(buffer_bytes(&der));
        if (!chain)
                return -EUCLEAN;
        for (int i = 0; i < sk_X509_num(chain) && r >= 0; i++)
                if (X509_self_signed(sk_X509_value(chain, i), 0) != 1)
                        r = x509_write(sk_X509_value(chain, i), to);
        return r;
}

static int append_chain(struct turn *turn, X509 *leaf, struct buffer *to) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        for (ssize_t i = 0; i < n; i++) {
                _cleanup_(x509_freep) X509 *ca = NULL;
                int r;

                if (list[i].state != AUTHORITY_ACTIVE && list[i].state != AUTHORITY_RETIRING)
                        continue;
                ca = authority_certificate(turn, list[i].generation);
                if (!is_issued_by(ca, leaf))
                        continue;
                if (list[i].is_root)
                        return append_cross(turn, list[i].generation, to);
                r = x509_write(ca, to);
                return r < 0 ? r : append_intermediates(turn, list[i].generation, to);
        }
        return n < 0 ? (int)n : 0;
}

int authority_server_credentials(struct turn *turn, struct server_credentials *ret) {
        struct server_credentials credentials = { 0 };
        _cleanup_(x509_freep) X509 *leaf = NULL;
        struct x509_validity validity;
        int r;

        r = store_own_secret_get(turn->store, SERVER_KEY, &credentials.key);
        if (r >= 0)
                r = store_own_secret_get(turn->store, SERVER_LEAF, &credentials.chain);
        if (r >= 0) {
                leaf = x509_read(buffer_bytes(&credentials.chain));
                r = leaf ? x509_validity_of(leaf, &validity) : -EUCLEAN;
        }
        if (r >= 0)
                r = append_chain(turn, leaf, &credentials.chain);
        if (r < 0) {
                server_credentials_free(&credentials);
                return r;
        }
        credentials.not_after = validity.not_after;
        *ret = credentials;
        return 0;
}

void server_credentials_free(struct server_credentials *credentials) {
        buffer_free(&credentials->key);
        buffer_free(&credentials->chain);
        *credentials = (struct server_credentials){ 0 };
}

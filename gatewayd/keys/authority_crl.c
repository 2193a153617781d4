/* SPDX-License-Identifier: Apache-2.0 */

/* Revocation: the row of the certificate, and the CRL of its generation, made anew in the same turn. The rows
 * decide at this gateway, at once; the CRLs are for everybody else. */

#include <errno.h>

#include "gatewayd/keys/authority_parts.h"

/* A CRL costs as much as it has entries, and each renewal ends a certificate: those share one CRL. */
#define GATHER_SEC 10

static void gather(struct turn *turn) {
        struct issuer *issuer = turn->issuer;

        if (issuer->gather_until == 0)
                issuer->gather_until = turn->now.powered_sec + GATHER_SEC;
        if (issuer->gather_until < issuer->next.powered_sec)
                issuer->next.powered_sec = issuer->gather_until;
}

/* Nobody has to be kept out by a CRL for a certificate that its own device has replaced: that may wait a little. */
static int mark_stale(struct turn *turn, uint32_t generation, enum revocation_reason reason) {
        struct authority authority;
        int r;

        if (generation == GENERATION_UPSTREAM || generation == GENERATION_FOREIGN)
                return 0; /* their CRLs are their issuers' */
        r = authority_get(turn->store, generation, &authority);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        if (turn->issuer && reason == REVOKED_SUPERSEDED)
                gather(turn);
        else if (turn->issuer)
                turn->issuer->has_stale_crl = true;
        if (authority.crl_is_stale || authority.state == AUTHORITY_ENDED)
                return 0;
        authority.crl_is_stale = true;
        return authority_update(turn->store, &authority);
}

int authority_revoke(struct turn *turn, const char *fingerprint, enum revocation_reason reason) {
        struct certificate certificate;
        int r = certificate_get(turn->store, fingerprint, &certificate);

        if (r < 0)
                return r;
        r = certificate_revoke(turn->store, fingerprint, reason, &turn->now);
        if (r <= 0)
                return r;
        r = mark_stale(turn, certificate.issuer, reason);
        return r < 0 ? r : 1;
}

/* Which generations issued them is not worth a walk: a device's certificates are of one or two. */
int authority_revoke_device(struct turn *turn, const char *device, enum revocation_reason reason) {
        struct authority list[AUTHORITIES_MAX];
        int revoked = certificate_revoke_device(turn->store, device, reason, &turn->now);
        ssize_t n;

        if (revoked <= 0)
                return revoked;
        n = authority_list(turn->store, list, AUTHORITIES_MAX);
        for (ssize_t i = 0; i < n; i++) {
                int r = 0;

                if (list[i].state == AUTHORITY_ACTIVE || list[i].state == AUTHORITY_RETIRING)
                        r = mark_stale(turn, list[i].generation, reason);
                if (r < 0)
                        return r;
        }
        return n < 0 ? (int)n : revoked;
}

static int add_revoked(void *userdata, const struct certificate *certificate) {
        int r = x509_crl_add(userdata, certificate);

        return r < 0 ? r : 0;
}

static int write_crl(struct turn *turn, struct authority *authority) {
        unix_sec next_update = turn->now.wall + turn->config->ca.crl_validity_sec;
        _cleanup_(buffer_free) struct buffer der = { 0 }, dropped = { 0 };
        struct problem problem = { 0 };
        struct x509_signer signer;
        struct x509_crl *crl;
        int r;

        r = authority_signer(turn, authority, &signer, &problem);
        if (r < 0)
                return r;
        crl = x509_crl_new(&signer, authority->crl_number + 1, turn->now.wall, next_update);
        if (!crl)
                return authority_signer_failed(turn, authority, &problem);
        r = certificate_each_revoked(turn->store, authority->generation, turn->now.wall, add_revoked, crl);
        if (r < 0) {
                (void)x509_crl_finish(crl, &dropped, NULL); /* the only way to free it */
                return r;
        }
        if (x509_crl_finish(crl, &der, &problem) < 0)
                return authority_signer_failed(turn, authority, &problem);
        r = authority_put(turn->store, authority->generation, AUTHORITY_CRL, buffer_bytes(&der));
        if (r < 0)
                return r;
        authority->crl_number++;
        authority->crl_next_update = next_update;
        authority->crl_is_stale = false;
        r = authority_update(turn->store, authority);
        if (r < 0)
                return r;
        authority_touch(turn); /* when the next one is due has changed */
        turn_effect(turn, EFFECT_CRL, NULL, NULL);
        return 0;
}

int authority_crls_write(struct turn *turn) {
        struct authority list[AUTHORITIES_MAX];
        bool is_left = false;
        ssize_t n;

        if (!turn->issuer || !turn->issuer->has_stale_crl)
                return 0;
        n = authority_list(turn->store, list, AUTHORITIES_MAX);
        for (ssize_t i = 0; i < n; i++) {
                int r;

                if (!list[i].crl_is_stale || (list[i].state != AUTHORITY_ACTIVE && list[i].state != AUTHORITY_RETIRING))
                        continue;
                r = write_crl(turn, &list[i]);
                if (r < 0 && r != -EAGAIN)
                        return r;
                is_left |= r < 0;
        }
        if (n < 0)
                return (int)n;
        turn->issuer->has_stale_crl = is_left; /* a key that is away: once it is back */
        turn->issuer->gather_until = 0;
        return 0;
}

int authority_crl(struct turn *turn, uint32_t generation, struct buffer *ret) {
        struct authority active;

        if (generation == 0) {
                int r = authority_find(turn, AUTHORITY_ACTIVE, &active);

                if (r < 0)
                        return r;
                generation = active.generation;
        }
        return authority_is_in_force(turn, generation) ? authority_read(turn->store, generation, AUTHORITY_CRL, ret)
                                                       : -ENOENT;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The issuing CA of the site, generation after generation: what it signs, what devices are told of it, when
 * its successor takes over. Keys stay in core.
 *
 * A generation's successor is made at a share of its life, announced (through /crts and /me's due bit 2) for
 * a configured time before it signs, and both verify until the older one's last leaf has gone. A root's
 * successor is certified by it (newWithOld), so that a device that slept through the announcement still gets
 * in; a sub-CA's successor needs the owner's PKI: its CSR waits (gatewayctl ca csr, ca import, or the EST
 * upstream), and until then the older one goes on. */

#include "gatewayd/exchange.h"
#include "gatewayd/keys/x509.h"
#include "store/authorities.h"

/* ---- authority_schedule.c: pure ---- */

enum authority_action {
        AUTHORITY_WAIT,
        AUTHORITY_MAKE_SUCCESSOR, /* create and announce a root; for a sub-CA: make key and CSR */
        AUTHORITY_ACTIVATE,       /* the announced one signs from now on; the active one retires */
        AUTHORITY_END,            /* the retiring one named in the step: its last leaf is gone */
        AUTHORITY_TELL_LATE,      /* the active one nears its end and there is no successor to announce */
};
struct authority_view {
        const struct authority *list; /* newest first, without ended ones */
        size_t count;
        int64_t leaves[AUTHORITIES_MAX];       /* certificates of each that may still be shown or must be on its CRL */
        int64_t announce_sec[AUTHORITIES_MAX]; /* of the announced one, where an operator said so; < 0: as configured */
        bool is_late_told;
        bool is_successor_asked; /* an operator was told to bring the successor's key */
};
struct authority_step {
        enum authority_action action;
        size_t index;
        struct due_time next; /* with WAIT */
};
struct authority_step authority_next(const struct authority_view *view, const struct ca_config *config,
                                     const struct moment *now);

/* ---- authority.c: with the store, in the current turn ---- */

/* The open keys of the generations, in core's memory; NULL-safe. */
struct issuer;
struct issuer *issuer_new(void);
struct issuer *issuer_free(struct issuer *issuer);
/* Opens the keys of all generations that may still sign (active, announced, retiring for CRLs). A key that cannot
 * be opened now (token away) is told of and tried again; it does not stop the start. */
int issuer_open(struct issuer *issuer, struct turn *turn);

/* Makes generation 1 (or the next): self-signed, active at once when it is the first. `key_uri` NULL or "store:":
 * a key is made and sealed in the store; "file:": taken from there and sealed; else used where it is.
 * -EEXIST: there is an active one (use roll). */
int authority_init(struct turn *turn, const char *key_uri, struct problem *problem);
/* The CSR for the owner's PKI, made with its key where none waits; DER. */
int authority_request(struct turn *turn, const char *key_uri, struct buffer *ret, struct problem *problem);
/* The owner's answer: DER or PEM, sub-CA first, then its chain. Checks that it answers the waiting request, is
 * a CA (pathlen 0 or none), verifies up to its last certificate, outlives now; warns of critical
 * nameConstraints. Active at once when it is the first, else announced. */
#define AUTHORITY_WARNING_MAX 256 /* room in `warning` (NULL allowed), which is emptied where there is none */
int authority_import(struct turn *turn, struct bytes certificates, char *warning, struct problem *problem);
/* Gives up the request that waits, and its key where that is in the store. -ENOENT. */
int authority_abandon(struct turn *turn, struct problem *problem);
/* Makes the successor now, whatever the schedule says; `announce_sec` < 0: the configured time. */
int authority_roll(struct turn *turn, const char *key_uri, int64_t announce_sec, struct problem *problem);
/* What is due: carries out authority_next(), renews the server's leaf, makes CRLs anew. Called each tick; returns
 * at once when nothing is due (*next tells when). */
int authority_tick(struct turn *turn);
/* When authority_tick() next has something to do; NULL-safe. */
struct due_time authority_next_look(const struct issuer *issuer);
/* A turn that had its tick could not be committed: what was made or told in it counts as not done. NULL-safe. */
void authority_turn_dropped(struct issuer *issuer);

/* Signs for a device with the active generation and inserts the certificate's row (not the credential's): notBefore
 * now − ca.backdate (at unknown clock quality: the CA's own notBefore), notAfter now + profile.validity, never
 * beyond the CA's. `key`, `before`: x509_device_make(). -EAGAIN with 5.03 and Max-Age where no CA can sign now
 * (none made, key away, its rest of life shorter than a leaf needs). */
int authority_issue(struct turn *turn, const struct csr *csr, EVP_PKEY *key, const char *device,
                    const struct profile *profile, X509 *before, struct certificate *ret, struct buffer *ret_der,
                    struct problem *problem);
/* Revokes a certificate row and marks its CRL stale; the CRL is made in the same turn, once, by
 * authority_crls_write() before the commit. REVOKED_SUPERSEDED, which each renewal brings, may wait for
 * authority_tick(), ten seconds at most. */
int authority_revoke(struct turn *turn, const char *fingerprint, enum revocation_reason reason);
int authority_revoke_device(struct turn *turn, const char *device, enum revocation_reason reason);
/* Makes the CRLs that are stale; EFFECT_CRL for each. Core calls it at the end of each turn. */
int authority_crls_write(struct turn *turn);

/* Concatenated DER of what devices should trust and need (RFC 7030 §4.1.3): the announced and active
 * generations, those that retire, cross certificates, owner's chains. *ret_newest: the newest generation in it. */
int authority_anchors(struct turn *turn, struct buffer *ret, uint32_t *ret_newest);
/* The newest generation that devices should know (announced or active); 0: none. One indexed read. */
int64_t authority_newest(struct turn *turn);
/* Whether certificates of that generation are taken (not ended). */
bool authority_is_in_force(struct turn *turn, uint32_t generation);
/* The latest CRL, DER; generation 0: of the active one. -ENOENT. */
int authority_crl(struct turn *turn, uint32_t generation, struct buffer *ret);

/* What south shows devices: PKCS#8 key, leaf, and chain without a root. -ENOENT: there is no CA yet. */
struct server_credentials {
        struct buffer key, chain; /* DER; the chain leaf first, concatenated */
        unix_sec not_after;
};
int authority_server_credentials(struct turn *turn, struct server_credentials *ret);
void server_credentials_free(struct server_credentials *credentials);

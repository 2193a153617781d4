/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the issuing CA share, and nobody else: the open keys, and the steps of a generation. */

#include "gatewayd/keys/authority.h"

/* One generation's key and certificate, as long as the certificate in the store is the same: a turn that is
 * dropped leaves nothing behind that would have to be taken back here. */
struct issuer_slot {
        uint32_t generation; /* 0: empty */
        struct x509_signer signer;
        struct buffer der; /* of signer.certificate */
        bool is_away;      /* the key could not be opened or did not sign */
        bool is_told;
        char reason[128];
        int64_t retry_powered_sec;
};

struct issuer {
        struct issuer_slot slots[AUTHORITIES_MAX];
        const struct config *config; /* under which `next` was worked out */
        struct due_time next;        /* when authority_tick() must look again */
        bool is_dirty;               /* at once */
        bool has_stale_crl;          /* perhaps, and it is to be made in this turn */
        int64_t gather_until;        /* until then replaced certificates wait for one CRL (powered-on); 0: none does */
        bool is_late_told, is_successor_asked;
};

/* ---- authority_schedule.c ---- */

/* With so much of its life left, or less, a generation signs nothing any more. */
int64_t authority_spare_sec(const struct authority *authority);
bool authority_is_spent(const struct authority *authority, const struct moment *now);
/* With so much left and no successor, operators are told. */
int64_t authority_late_sec(const struct authority *active, const struct ca_config *config);

/* ---- authority_keys.c ---- */

#define KEY_IN_STORE "store:"
/* Whether this URI (NULL: none was given) means a key that is sealed in the store. */
bool key_is_sealed(const char *key_uri);
/* Makes or takes the key that `key_uri` names for a generation to come and writes where it stays to `ret_uri`
 * (KEY_URI_MAX). */
int authority_key_new(struct turn *turn, uint32_t generation, const char *key_uri, char *ret_uri, EVP_PKEY **ret,
                      struct problem *problem);
/* Opens a generation's key. Every error that is not the store's is -EAGAIN. */
int authority_key_open(struct turn *turn, const struct authority *authority, EVP_PKEY **ret, struct problem *problem);
/* Overwrites a sealed key with nothing. */
int authority_key_wipe(struct turn *turn, const struct authority *authority);
/* The generation's open key and its certificate, borrowed until the next call that changes the CA. -EAGAIN with 5.03
 * where the key is away. */
int authority_signer(struct turn *turn, const struct authority *authority, struct x509_signer *ret,
                     struct problem *problem);
/* Signing with it has failed. Where the key still works, -EIO and `problem` as it is; else it counts as away and is
 * opened anew later: -EAGAIN with 5.03. */
int authority_signer_failed(struct turn *turn, const struct authority *authority, struct problem *problem);
/* Writes an event for each key that has gone away or come back since; outside of requests, whose events may be
 * taken back. */
int authority_keys_tell(struct turn *turn);
/* Something about the CA was changed: authority_tick() must look. */
void authority_touch(struct turn *turn);

/* ---- authority.c ---- */

/* The one in this state, -ENOENT where there is none. */
int authority_find(struct turn *turn, enum authority_state state, struct authority *ret);
/* The certificate of a generation. NULL where it cannot be read. */
X509 *authority_certificate(struct turn *turn, uint32_t generation);

/* ---- authority_make.c ---- */

/* Makes a root's successor, or a sub-CA's request. */
int authority_make_successor(struct turn *turn, const struct authority *active, const char *key_uri,
                             int64_t announce_sec, struct problem *problem);
/* Puts a generation that has its certificate into force: active where there is none, else announced. */
int authority_admit(struct turn *turn, struct authority *authority);
/* How long an operator wants it announced; < 0: as configured. */
int64_t authority_announce_sec(struct turn *turn, uint32_t generation);
int authority_announce_put(struct turn *turn, uint32_t generation, int64_t announce_sec);

/* ---- authority_server.c ---- */

/* Renews the gateway's own leaf where that is due; *ret_next: when it will be. */
int authority_server_renew(struct turn *turn, unix_sec *ret_next);

/* ---- authority_issue.c ---- */

/* Whether the CA's certificate and its chain's allow the names in `leaf` (RFC 5280 §4.2.1.10). 0, or -EACCES with
 * problem 4.03. */
int authority_check_constraints(struct turn *turn, uint32_t generation, X509 *leaf, struct problem *problem);

/* A private key as PKCS#8 DER, and back. */
int key_write(EVP_PKEY *key, struct buffer *to);
EVP_PKEY *key_read(struct bytes der);

static inline void pkey_freep(EVP_PKEY **key) {
        EVP_PKEY_free(*key);
}
static inline void x509_freep(X509 **certificate) {
        X509_free(*certificate);
}
static inline void x509_stack_freep(STACK_OF(X509) * *certificates) {
        sk_X509_pop_free(*certificates, X509_free);
}

/* Forgets a generation's open key. */
void authority_signer_forget(struct turn *turn, uint32_t generation);
/* A day as people write it: "2031-05-17". */
void authority_day(unix_sec when, char to[32]);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The generations of the issuing CA: one row each. What they mean is gatewayd/keys/authority.h's. */

#include "store/store.h"

/* A generation's life: requested (its CSR waits for a certificate) → announced (devices are told) → active
 * (it signs) → retiring (verifies only) → ended. At most one is active, one requested or announced. */
enum authority_state {
        AUTHORITY_REQUESTED,
        AUTHORITY_ANNOUNCED,
        AUTHORITY_ACTIVE,
        AUTHORITY_RETIRING,
        AUTHORITY_ENDED,
};

#define KEY_URI_MAX 512

struct authority {
        uint32_t generation; /* from 1 */
        enum authority_state state;
        char key_uri[KEY_URI_MAX]; /* "store:" (sealed in the store as own secret "ca-key-N"), "pkcs11:…", "handle:…" */
        bool is_root;              /* self-signed; otherwise under the owner's PKI */
        unix_sec not_before, not_after;
        struct moment created, announced, activated, superseded, ended;
        uint64_t crl_number; /* of the latest CRL; 0: none yet */
        unix_sec crl_next_update;
        bool crl_is_stale; /* something was revoked since */
};

/* What a generation holds as bytes. */
enum authority_part {
        AUTHORITY_CERTIFICATE, /* DER */
        AUTHORITY_CHAIN,       /* further certificates up to the owner's root, concatenated DER, issuer after subject */
        AUTHORITY_CROSS,       /* this key certified by the generation before (RFC 4210 §4.4 newWithOld), DER */
        AUTHORITY_CSR,         /* PKCS#10 DER, while requested */
        AUTHORITY_CRL,         /* DER, the latest */
};

int authority_insert(struct store *store, const struct authority *authority); /* -EEXIST */
int authority_update(struct store *store, const struct authority *authority);
int authority_get(struct store *store, uint32_t generation, struct authority *ret);
int authority_remove(struct store *store, uint32_t generation); /* a request that was given up */
/* All generations that have not ended, newest first, at most `max`. Returns how many. */
#define AUTHORITIES_MAX 8
ssize_t authority_list(struct store *store, struct authority *ret, size_t max);
/* The highest generation ever, those that were removed included; 0: none. */
int64_t authority_latest(struct store *store);
/* Replaces; nothing (size 0) removes. -ENOENT: no such generation. */
int authority_put(struct store *store, uint32_t generation, enum authority_part part, struct bytes value);
/* Appends. -ENOENT when there is nothing. */
int authority_read(struct store *store, uint32_t generation, enum authority_part part, struct buffer *ret);

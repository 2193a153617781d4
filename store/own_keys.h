/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* When the gateway's own keys were made: one row for each kind that has no table of its own. The keys themselves
 * are own secrets (store.h), data keys, or with the operator. */

#include "store/store.h"

enum own_key_kind {
        OWN_KEY_RECEIPT,  /* signs receipts; own secret "receipt-key" */
        OWN_KEY_DATA,     /* the data key that seals now */
        OWN_KEY_SEALING,  /* the key-encryption key */
        OWN_KEY_RECOVERY, /* the offline recovery key; its public half is here */
        OWN_KEY_UPSTREAM, /* the client certificate shown upstream, where gatewayd renews it */
        OWN_KEY_KINDS
};

struct own_key {
        enum own_key_kind kind;
        uint32_t generation; /* from 1 */
        struct moment made;  /* or, of a key that an older gatewayd made, first seen */
        char id[65];         /* what names it in public: kid, fingerprint; empty where nothing does */
        unix_sec not_after;  /* of a certificate; 0: it has none */
        unsigned told;       /* what has been told about it: bits, gatewayd/keys/own_keys.h */
};

int own_key_get(struct store *store, enum own_key_kind kind, struct own_key *ret); /* -ENOENT */
int own_key_put(struct store *store, const struct own_key *key);                   /* replaces */

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Credentials: rows with a sealed secret each, none for certificates. A kid is found by one indexed read. */

#include "store/devices.h"

#define KID_BYTES 16

enum credential_kind {
        CREDENTIAL_FACTORY, /* bootstrap PSK; identity = device id */
        CREDENTIAL_PSK,     /* operational PSK; identity = kid */
        CREDENTIAL_IDEVID,  /* bootstrap certificate (802.1AR); identity = device id; no secret */
        CREDENTIAL_LDEVID,  /* operational certificate; identity = its fingerprint (certificates.h); no secret */
};

/* What a device leaves the factory with, of either sort; and what gatewayd issued. */
static inline bool credential_is_bootstrap(enum credential_kind kind) {
        return kind == CREDENTIAL_FACTORY || kind == CREDENTIAL_IDEVID;
}
static inline bool credential_is_operational(enum credential_kind kind) {
        return kind == CREDENTIAL_PSK || kind == CREDENTIAL_LDEVID;
}
static inline bool credential_is_certificate(enum credential_kind kind) {
        return kind == CREDENTIAL_IDEVID || kind == CREDENTIAL_LDEVID;
}

/* NIST SP 800-57 part 1 §7; retiring: active, but a newer one is active too. */
enum key_state {
        KEY_PRE_ACTIVE,
        KEY_ACTIVE,
        KEY_RETIRING,
        KEY_DEACTIVATED,
        KEY_COMPROMISED,
        KEY_DESTROYED,
};

struct credential {
        char identity[DEVICE_ID_MAX + 1]; /* kid, fingerprint, or for a bootstrap credential the device id */
        char device[DEVICE_ID_MAX + 1];
        enum credential_kind kind;
        enum key_state state;
        uint32_t generation;                 /* factory 0; counts up per device */
        char predecessor[DEVICE_ID_MAX + 1]; /* the identity it was asked over */
        uint64_t session; /* session_handle of the asking session; 0 once that is over or core restarted */
        struct moment issued;
        struct moment proven;     /* first completed handshake */
        struct moment confirmed;  /* second completed handshake */
        struct moment superseded; /* when a successor was proven */
        struct moment ended;      /* deactivated or compromised */
        struct moment last_used;
        uint64_t handshakes;
};

/* Inserts with its secret, sealed under (device, kind, generation, identity); NULL for a certificate: its
 * private key is the device's own. -EEXIST; -EINVAL: a secret where none belongs, or none where one does. */
int credential_insert(struct store *store, const struct credential *credential, const struct secret *secret);
int credential_update(struct store *store, const struct credential *credential);
int credential_get(struct store *store, struct bytes identity, struct credential *ret);
/* Opens the seal. -ENOENT when there is no such row or its secret was wiped. */
int credential_secret(struct store *store, const char *identity, struct secret *ret);
/* Overwrites the sealed secret with nothing; the row stays. */
int credential_wipe(struct store *store, const char *identity);
/* Removes the row of a destroyed credential. */
int credential_remove(struct store *store, const char *identity);

/* All of a device's credentials that are not destroyed, newest generation first, up to `max` (a
 * device never has more than CREDENTIALS_MAX). Returns how many. */
#define CREDENTIALS_MAX 16
ssize_t credential_list(struct store *store, const char *device, struct credential *ret, size_t max);
/* After core has started anew no session of before exists: forgets all asking sessions. */
int credential_forget_sessions(struct store *store);

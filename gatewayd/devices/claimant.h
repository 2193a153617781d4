/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: who comes with a certificate, shared by identity_certificate.c (what may shake hands) and
 * identity_idevid.c (whose an IDevID is). */

#include "gatewayd/devices/identity.h"
#include "gatewayd/keys/x509.h"

/* Who comes with a certificate, as far as it is known. */
struct claimant {
        STACK_OF(X509) * chain;         /* as sent, leaf first; NULL: an LDevID, known by its row */
        struct certificate certificate; /* the leaf: its row, or what it says of itself */
        bool has_row;
        const struct profile *profile;
        char id[DEVICE_ID_MAX + 1];
        struct device device;
        struct credential credential;
        bool is_registered; /* false: automatic enrolment lets it in; device and credential are empty */
        bool is_adopted;    /* one of ours that this store does not know; `credential` is the key it follows */
        bool is_another;    /* an IDevID other than the one this device has shown, and no reset window is open */
        uint8_t anchor[32];
};

/* Certainly past its end: only where the clock is never ahead of true time. */
static inline bool claimant_has_run_out(unix_sec not_after, const struct moment *now) {
        return now->wall_trusted && not_after != NOT_AFTER_NEVER && now->wall > not_after;
}

/* A clock of unknown quality may be far behind: it rejects nobody for coming too early. */
static inline bool claimant_is_early(unix_sec not_before, const struct moment *now) {
        return now->quality != CLOCK_UNKNOWN && now->wall < not_before;
}

/* Is it one of our own LDevIDs from the time between the backup that this store was restored from and the restore?
 * false: it is none of ours. true: it is, and *ret says whether it is taken (identity_adopt.c). */
bool claimant_adopt(struct turn *turn, struct claimant *claimant, char *reason, enum certificate_verdict *ret);
/* Its handshake was completed: its rows are made, unproven as yet; `credential` is its own afterwards. */
int claimant_take_over(struct turn *turn, struct claimant *claimant);

/* The verdict where the store fails. */
enum certificate_verdict claimant_store_failed(int error, char *reason);

/* Which profile an IDevID's chain leads to: that of a registered device is the one it is registered with; of
 * another, the first in the configuration that enrols by the anchor alone. Fills profile, id, is_registered, anchor. */
enum certificate_verdict claimant_find_profile(struct turn *turn, struct claimant *claimant, char *reason);

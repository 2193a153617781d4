/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: on what terms a credential opens /cred, shared by who authorises (lifecycle.c), who
 * grants (provision.c) and who tells the device what to do next (me.c). */

#include "gatewayd/devices/devices.h"

enum cred_terms {
        CRED_OPEN,     /* ask */
        CRED_ATTESTED, /* only in a session in which affirming evidence was given (identity_attested()) */
        CRED_CLOSED,   /* no; an operator must act */
};

/* Pure. `reason` (160 characters, NULL allowed) says why, unless open. */
enum cred_terms lifecycle_cred_terms(const struct lifecycle_view *view, const struct moment *now, char *reason);

/* A technician's reset window is open. */
bool lifecycle_window_is_open(const struct device *device, const struct moment *now);

/* The device has a way to prove itself other than by the keys it holds. */
bool lifecycle_can_attest(const struct device *device, const struct profile *profile);

const char *standing_name(enum standing standing);
const char *key_state_name(enum key_state state);

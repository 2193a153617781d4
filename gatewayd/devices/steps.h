/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: the single steps of a credential's and a device's life, each with its row, its
 * secret, its event and its effects, so that no caller forgets one of them. All in the current turn. */

#include "gatewayd/devices/devices.h"

/* Bits of device.due that only schedule.c knows: what was told once need not be told again. */
#define DUE_PUBLIC           (DUE_ROTATE | DUE_ATTEST | DUE_ANCHORS)
#define DUE_OVERDUE_TOLD     (UINT32_C(1) << 31)
#define DUE_ATTEST_LATE_TOLD (UINT32_C(1) << 30)
/* An operator has released the device although its key is overdue: until its next key that stands. */
#define DUE_OVERDUE_RELEASED (UINT32_C(1) << 29)
/* The last warning told before on_overdue: two bits. */
#define DUE_WARNED_SHIFT 27
#define DUE_WARNED       (UINT32_C(3) << DUE_WARNED_SHIFT)

/* A device's credentials, newest generation first. */
struct keyring {
        struct credential list[CREDENTIALS_MAX];
        size_t count;
};
int keyring_load(struct turn *turn, const char *device, struct keyring *ret);
/* The newest proven operational key, or NULL. */
struct credential *keyring_tip(struct keyring *keyring);
/* What rotation.c looks at: the keyring, and the tip's certificate where it is one. */
int keyring_view(struct turn *turn, struct keyring *keyring, struct rotation_view *ret);
/* It has, or had and lost to a compromise, a proven operational key. */
bool keyring_was_operational(const struct keyring *keyring);
/* Its bootstrap credential: factory PSK or IDevID. NULL: it is gone. */
struct credential *keyring_bootstrap(struct keyring *keyring);
struct credential *keyring_find(struct keyring *keyring, const char *identity);
/* `credential` is `descendant` or one that it was granted over, at any remove. */
bool keyring_is_ancestor(struct keyring *keyring, const struct credential *credential,
                         const struct credential *descendant);

/* Ends a key: its secret is wiped, its certificate revoked, its sessions go. A bootstrap credential is only
 * marked; lifecycle.c then gates what it opens. */
int step_deactivate(struct turn *turn, struct credential *credential, const char *reason);
/* Removes the row; a certificate that was never revoked is. */
int step_destroy(struct turn *turn, const struct credential *credential, const char *reason);
/* Changes where the device stands and says so; the row is the caller's to write. 1 changed, 0 as before. */
int step_standing(struct turn *turn, struct device *device, enum standing standing, const char *reason);

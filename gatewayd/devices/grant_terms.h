/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: the parts of a grant that PSKs and certificates share. */

#include "gatewayd/devices/steps.h"

/* Takes one row out of the list. */
void keyring_drop(struct keyring *keyring, size_t index);
/* As grant_make_room(), on a keyring that is loaded; the device's row is the caller's to write. */
int keyring_make_room(struct turn *turn, const struct identity *from, struct device *device, struct keyring *keyring);

/* A new credential of the device, asked for in this session; its identity is the caller's to set. */
void grant_begin(struct turn *turn, const struct identity *from, const struct device *device, enum credential_kind kind,
                 struct credential *ret);
/* Inserts it, counts the generation, tells of it, schedules the device. `secret` NULL: a certificate. */
int grant_finish(struct turn *turn, const struct identity *from, struct device *device,
                 const struct credential *credential, const struct secret *secret);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: what a handshake by PSK (identity.c) and one by certificate (identity_certificate.c) have in
 * common. */

#include "gatewayd/devices/devices.h"

/* Writes why a handshake is refused; `reason` (160 characters) may be NULL. */
void identity_explain(char *reason, const char *format, ...) _printf_(2, 3);
/* The credential may complete a handshake at all. What it then opens is lifecycle.c's. 0 or -EACCES. */
int identity_check_key(const struct credential *credential, char *reason);
/* The device's profile, or NULL: it may do nothing at all. */
const struct profile *identity_check_device(struct turn *turn, const struct device *device, char *reason);
/* What a completed handshake means for the rows: proof, conflict, last use, the schedule. Device, credential,
 * profile and has_forward_secrecy of `ret` are filled. Inside the caller's savepoint. */
int identity_take(struct turn *turn, bool begun_before_proof, struct identity *ret);
/* The certificate's part of identity_refresh(); device, credential and profile are read already. */
int identity_certificate_refresh(struct turn *turn, struct identity *identity);

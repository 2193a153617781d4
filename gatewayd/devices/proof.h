/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: what a completed handshake means for the keys of the device (proof.c). */

#include "gatewayd/devices/steps.h"

/* Proves, confirms, or finds a conflict. `device` and `credential` are the rows as they will be written
 * by the caller; other credentials of the device are written here. 1: something changed that the
 * schedule depends on; 0: nothing did. */
int proof_take(struct turn *turn, struct device *device, struct credential *credential, const struct profile *profile,
               bool begun_before_proof);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: what a completed handshake means for the keys of the device (proof.c). */

#include "gatewayd/devices/steps.h"

/* Proves, confirms, or finds a conflict. `device` and `credential` are the rows as they will be written
 * by the caller; other credentials of the device are written here. 1: something changed that the
 * schedule depends on; 0: nothing did. */
int proof_take(struct turn *turn, struct device *device, struct credential *credential, const struct profile *profile,
               bool begun_before_proof);

/* Whether an event that anybody with an old key can cause at will is to be told now: at first, then once an hour
 * for one credential. `since` is when the condition began; the caller writes credential->last_used. */
bool proof_is_worth_telling(const struct credential *credential, const struct moment *since, const struct moment *now);

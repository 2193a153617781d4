/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_PARTS_H
#define DEVICE_PARTS_H

/* What device.c and device_keys.c know of each other; nothing here is for users of device.h. */

#include "device.h"

enum { PHASE_OFFLINE, PHASE_CONNECTING, PHASE_ONLINE };
enum { TASK_NONE, TASK_ME, TASK_GRANT, TASK_NONCE, TASK_EVIDENCE, TASK_TIME };

/* device.c: tells `event`; `reply` may be NULL. */
void device_report(struct device *device, enum device_event_kind kind, const struct device_reply *reply);
/* A number from low to high, both included. */
uint64_t device_roll(struct device *device, uint64_t low, uint64_t high);

/* device_keys.c: which key is next, and the key itself. */
uint8_t device_choose_key(const struct device *device);
const struct device_key *device_key_of(const struct device *device, uint8_t choice);

void device_connect(struct device *device, uint64_t now);
/* Sets the time of the next attempt, ever later while the gateway is away. */
void device_back_off(struct device *device, uint64_t now);
void device_handshake_failed(struct device *device, bool is_refused, uint64_t now);
/* A handshake with the key chosen succeeded: keeps what follows from it. */
void device_key_works(struct device *device, uint64_t now);
/* Puts a granted key into the slot that is not in use, and into flash. False: the flash failed, and
 * nothing has changed. */
bool device_keep_grant(struct device *device, const struct device_key *key);
bool device_store(struct device *device);

/* The session has ended, or (leave) is to end. */
void device_session_over(struct device *device);
void device_leave(struct device *device);

#endif

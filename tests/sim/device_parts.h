/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_PARTS_H
#define DEVICE_PARTS_H

/* What device.c and the files beside it know of each other; nothing here is for users of device.h. */

#include "device.h"

enum { PHASE_OFFLINE, PHASE_CONNECTING, PHASE_ONLINE };
/* TASK_GRANT asks for the next key: by /cred, or with certificates by /est/sen or /est/sren. */
enum { TASK_NONE, TASK_ME, TASK_GRANT, TASK_NONCE, TASK_EVIDENCE, TASK_TIME, TASK_ANCHORS };

/* device.c: tells `event`; `reply` may be NULL. */
void device_report(struct device *device, enum device_event_kind kind, const struct device_reply *reply);
/* A number from low to high, both included. */
uint64_t device_roll(struct device *device, uint64_t low, uint64_t high);

/* A pause of 0 becomes the shortest, any other twice as long. */
void device_lengthen(uint32_t *pause_sec);
/* Does the task later: when `reply` says, or after its pause (NULL). */
void device_postpone(struct device *device, uint8_t task, const struct device_reply *reply, uint64_t now);

/* device_attest.c. False: the answer is of no use, or evidence could not be made. */
bool device_take_nonce(struct device *device, const struct device_reply *reply);
void device_evidence_taken(struct device *device, const struct device_reply *reply, uint64_t now);
void device_evidence_denied(struct device *device, const struct device_reply *reply, uint64_t now);

/* device_keys.c: which key is next, and the key itself. */
uint8_t device_choose_key(const struct device *device);
const struct device_key *device_key_of(const struct device *device, uint8_t choice);

void device_connect(struct device *device, uint64_t now);
/* Sets the time of the next attempt, ever later while the gateway is away. */
void device_back_off(struct device *device, uint64_t now);
/* The factory key opens a session and no grant. A first grant that met only silence may have been completed on the
 * gateway's side, which then holds it for the newest: tries it once more. False: there is none, or it was tried. */
bool device_try_dropped_grant(struct device *device, uint64_t now);
void device_handshake_failed(struct device *device, bool is_refused, uint64_t now);
/* A handshake with the key chosen succeeded: keeps what follows from it. */
void device_key_works(struct device *device, uint64_t now);
/* Puts a granted key into the slot that is not in use, and into flash. False: the flash failed, and
 * nothing has changed. */
bool device_keep_grant(struct device *device, const struct device_key *key);
bool device_store(struct device *device);

/* device_enrol.c: certificates. */
bool device_holds_certificates(const struct device *device);
/* No anchors yet: the session is good for fetching them alone. */
bool device_is_provisional(const struct device *device);
/* Which of EST's resources gives the next certificate over this session. */
const char *device_enrol_path(const struct device *device);
/* The request to send: the one under way, or a new one, which is in flash before it is sent. False: it could
 * not be made or stored. */
bool device_ask_certificate(struct device *device, struct device_bytes *csr);
void device_forget_request(struct device *device);
/* The certificate in the answer that is for the request's key. False: there is none. */
bool device_read_certificate(struct device *device, const struct device_reply *reply, struct device_key *key);
/* False: the answer holds no anchors that fit. */
bool device_keep_anchors(struct device *device, const struct device_reply *reply, bool *is_stored);
/* What a handshake tells of the anchors. */
void device_anchors_held(struct device *device);
void device_anchors_failed(struct device *device, uint64_t now);

/* The session has ended, or (leave) is to end. */
void device_session_over(struct device *device);
void device_leave(struct device *device);

#endif

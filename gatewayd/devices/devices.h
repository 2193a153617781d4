/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Devices: who they are, what they may do, how they get and prove credentials. */

#include "gatewayd/exchange.h"
#include "gatewayd/keys/rotation.h"

/* ---- identity.c: from the bytes of a PSK identity to a credential ---- */

/* Finds the credential of a handshake: exact bytes as kid, then as device id, then RFC 9202's CBOR
 * form {8: {1: {1: 4, 2: kid}}}. Refuses revoked devices, ended keys, suites without (EC)DHE where the
 * profile demands it. Answers from an indexed read. -ENOENT unknown, -EACCES refused; `reason` (160
 * characters) says why. */
int identity_key(struct turn *turn, struct bytes identity, bool has_forward_secrecy, struct credential *ret,
                 struct secret *ret_key, char *reason);

/* The credential that an identity names, in any of its forms, whatever its state. -ENOENT. */
int identity_find(struct turn *turn, struct bytes identity, struct credential *ret);

/* A completed handshake: proves and activates a pre-active key (its siblings destroyed, predecessors
 * retiring, one transaction), confirms an active one at its second, and detects conflicts.
 * `begun_before_proof`: the handshake began before the successor of this key was proven.
 * Makes a savepoint of its own, so the caller must have none open. Returns 0, or -EACCES when the
 * credential no longer opens anything: the session must be evicted. Any error leaves no trace in the turn. */
int identity_connected(struct turn *turn, struct bytes identity, bool has_forward_secrecy, bool begun_before_proof,
                       struct identity *ret);

/* The identity behind a request on an open session: reads device and credential anew.
 * -EACCES: revoked, ended, removed, or older than max_session: the session must be evicted. */
int identity_refresh(struct turn *turn, struct identity *identity, const struct moment *connected);

/* Affirming evidence under the device's attestation key came in this session: where the session's key is
 * in doubt (retiring, compromised, a factory key that was replaced) and the policy says `attest`, /cred
 * opens again, in this session only, so that whoever else holds the key gains nothing by it. For
 * evidence/attest.c, after appraisal_apply(). Does nothing for a key in good standing. */
int identity_attested(struct turn *turn, const struct identity *from);

/* ---- identity_certificate.c: from a certificate chain to a credential ---- */

/* May a client with this chain (DER, leaf first) shake hands? An LDevID is known by its fingerprint: its row
 * must be there, unrevoked, its credential not ended; expired ones, and those of a CA generation that has ended,
 * pass (they may renew, lifecycle.c). A compromised one of a device that can attest passes too (to /rats). An IDevID must lead to an anchor of a profile: of the device's own where it is
 * registered, else of one with automatic enrolment; every certificate of the path valid by the ratchet clock
 * (notBefore counts only at known quality). Changes nothing. `reason` (160 characters) says why not. */
enum certificate_verdict identity_certificate(struct turn *turn, struct bytes chain, char *reason);

/* A completed handshake with it: as identity_connected(). Registers a device that automatic enrolment lets in,
 * and remembers which IDevID a device has shown: another one is refused unless a reset window is open. */
int identity_certificate_connected(struct turn *turn, struct bytes chain, bool begun_before_proof,
                                   struct identity *ret);
/* When the handshake's key was superseded, for `begun_before_proof`; MOMENT_NONE: it was not. */
struct moment identity_certificate_superseded(struct turn *turn, struct bytes chain);

/* ---- grant_terms.c: shared by /cred and EST ---- */

/* May this session be given a new operational credential? The terms of lifecycle_cred_terms(), with what only
 * the session knows (evidence given in it). 0, or -EACCES with problem 4.03. */
int grant_terms_check(struct turn *turn, const struct identity *from, struct problem *problem);
/* Makes room for one more unproven credential of the device (4 at a time, the oldest dropped and counted in
 * device->dropped_grants) and for one more row. */
int grant_make_room(struct turn *turn, const struct identity *from, struct device *device);
/* Inserts the credential of a certificate just issued: pre-active, generation + 1, predecessor and session of
 * `from`; EVENT_CREDENTIAL_ISSUED; schedules the device. */
int grant_certificate(struct turn *turn, const struct identity *from, const struct certificate *certificate);

/* ---- lifecycle.c: pure ---- */

/* May this identity use this resource with this method now? 0, or -EACCES with the reason (4.03).
 * The table in PROTOCOL.md "Who is talking". `factory_spent`: the first operational key was confirmed
 * and its grace is over. */
struct lifecycle_view {
        const struct device *device;
        const struct credential *credential;
        const struct profile *profile;
        bool factory_spent;
        bool is_expired; /* the certificate has run out: it may only renew */
};
/* The view of who is asking. It borrows from `from`. */
struct lifecycle_view lifecycle_view_of(const struct identity *from);
int lifecycle_allows(const struct lifecycle_view *view, enum resource resource, uint8_t method,
                     const struct moment *now, struct problem *problem);

/* ---- provision.c: grants ---- */
/* handle_cred(): exchange.h */

/* ---- registry.c: what operators do to devices; all in the current turn ---- */
struct registration {
        char id[DEVICE_ID_MAX + 1];
        char profile[65];
        struct secret factory_psk;   /* empty: it comes with an IDevID */
        bool has_idevid_fingerprint; /* of that IDevID, where it is known beforehand; else the first one proven counts */
        uint8_t idevid_fingerprint[CERTIFICATE_DIGEST_BYTES];
        uint8_t attestation_key[ATTESTATION_KEY_MAX];
        size_t attestation_key_size;
};
/* -EEXIST, -EINVAL with the reason in `problem`. Warnings (a key the profile's stack cannot hold) go to
 * `warning` (256 characters, empty if none). */
int registry_add(struct turn *turn, const struct registration *registration, char *warning, struct problem *problem);
int registry_remove(struct turn *turn, const char *id, struct problem *problem);
/* For good: all secrets are wiped, id and keys stay refused. 1 changed, 0 it was revoked already. */
int registry_revoke(struct turn *turn, const char *id, const char *reason, struct problem *problem);
/* Opens the technician's reset window for so many seconds (1 to 7 days' worth). -EPERM where the profile
 * says `refuse` or the device is revoked. */
int registry_reset(struct turn *turn, const char *id, int64_t window_sec, struct problem *problem);
/* Rotation now, whatever the schedule says; `is_compromised`: the old keys prove nothing any more (since
 * `since`, wall seconds; 0: all). */
int registry_rotate(struct turn *turn, const char *id, bool is_compromised, unix_sec since, struct problem *problem);
/* Lifts quarantine, restriction, conflict. 1 changed, 0 there was nothing to lift; -EPERM for what it does
 * not lift (revoked, compromised). */
int registry_release(struct turn *turn, const char *id, struct problem *problem);

/* ---- import.c: CSV and JSON into registrations ---- */
/* CSV: header line `id,profile,psk[,attestation_key][,idevid]` in any order; a row without psk is a device with an
 * IDevID (its profile has anchors), `idevid` empty or `sha256:HEX` of the certificate; JSON: array of objects with the same names.
 * PSKs carry a prefix hex:, base64: or text:; attestation keys are PEM (in CSV as a quoted field, or
 * base64 of the DER after `der:`). All or nothing: every mistake is named as line (CSV) or element
 * (JSON) in `problems`, and nothing is added. */
struct import {
        struct registration *rows;
        size_t count;
};
int import_parse(struct bytes text, bool is_json, struct import *ret, struct config_problems *problems);
void import_free(struct import *import);

/* ---- schedule.c: the tick ---- */
/* Carries out what is due for up to `limit` devices; returns how many were looked at (== limit: more
 * are waiting). */
int schedule_tick(struct turn *turn, size_t limit);
/* Looks at one device now and writes its next due time (after any change to it). */
int schedule_device(struct turn *turn, struct device *device);
/* Fills the durations of /me; INT64_MAX: never. */
struct outlook {
        int64_t rotate_in_sec, late_in_sec, attest_in_sec;
        uint32_t due;
};
int schedule_outlook(struct turn *turn, const struct device *device, struct outlook *ret);
/* What the device was called for and has not done yet (DUE_ bits), for answers other than that of /me: a device that
 * sees any should read /me. 0: nothing. */
uint32_t schedule_called(const struct device *device);
/* One more member for such an answer, where there is something: the map has schedule_called_members() more. */
size_t schedule_called_members(uint32_t called);
void schedule_called_put(uint32_t called, struct buffer *to);

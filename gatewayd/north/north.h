/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The role that faces the cloud: takes records from core, carries them to the collector over HTTPS,
 * and says to core what became of each; the same with CSRs and the owner's EST server. It holds HTTPS
 * connections and the upstream client key; it has no store, no CA key and no socket of a device.
 *
 * What core may rely on:
 * - Records are posted in order of sequence, one POST at a time. They stay in memory only: what was
 *   not acknowledged when north ends, core sends again to the next north.
 * - Core sends FRAME_NORTH_HELLO once, first, then FRAME_RECORD in order of sequence with at most
 *   NORTH_WINDOW of them unacknowledged, and a few more that are parked already (without evidence).
 *   The first FRAME_DELIVERED or FRAME_PARKED acknowledges. A record that north still holds may be sent
 *   again: it is ignored.
 * - FRAME_PARKED: the collector refused this record, and it alone. North goes on with its receipt and
 *   says FRAME_DELIVERED when that is stored upstream. FRAME_PARKED for a record that is parked
 *   already: its receipt was refused as well, north has given it up; core sends it again, without
 *   evidence, to the next north.
 * - FRAME_RESULT comes before the FRAME_DELIVERED of the same batch, and may come for older records.
 * - FRAME_UPLINK comes when the uplink is up for the first time or again, and after each failure.
 * - FRAME_ENROL: at most NORTH_ENROL_WINDOW unanswered; each is answered by one FRAME_ENROLLED (est.h says
 *   how answers are read). A number that north still holds may be sent again: it is ignored.
 * - FRAME_ANCHORS: the EST server is there, and these are its anchors. FRAME_ENROLLED with number 0: they
 *   could not be had; ENROL_FAILED: there is no way to the server, ENROL_REFUSED: it is there. One of them
 *   comes soon after the start, whenever that changes, and now and then. */

#include <systemd/sd-event.h>

#include "config/config.h"
#include "gatewayd/problem.h"

/* The most records that core may have sent without an acknowledgement. */
#define NORTH_WINDOW 256
/* The same of enrolments: an EST server may sit on a small CA. */
#define NORTH_ENROL_WINDOW 4

struct north;

/* Reads the client certificate, its key and the trust anchors into memory, so that no file but those
 * of the resolver is needed afterwards, and starts on `event`. Takes over `core_fd` (also on
 * failure). With VERIFIER_NONE records are kept where they are, in the store; without an EST server so are
 * enrolments. Where the files cannot serve it idles and tells core why (FRAME_UPLINK, FRAME_ENROLLED): that
 * must not keep devices from being served. A new north reads them again.
 * When core is gone, or breaks the protocol, the event loop is asked to exit.
 * Returns 0 or -errno with `problem`. */
int north_new(sd_event *event, int core_fd, const struct north_config *config, struct north **ret,
              struct problem *problem);

/* Starts nothing new and gives up a POST under way: its records stay waiting in the store and go
 * again. What was acknowledged is sent to core. Never blocks. */
void north_stop(struct north *north);

struct north *north_free(struct north *north);

/* The TCP ports of the collector's and the EST server's URL, for the sandbox; 0 without one. */
uint16_t north_port(const struct north_config *config);
uint16_t north_est_port(const struct north_config *config);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The gateway as registrar (RFC 9148 §5): CSRs of devices whose profile says ca = "upstream" wait in the store
 * for the owner's EST server; north carries them, the identical request later gets the certificate. */

#include "gatewayd/exchange.h"
#include "gatewayd/keys/csr.h"
#include "gatewayd/messages.h"
#include "store/enrolments.h"

/* What has become of this CSR upstream. 1: issued, *ret_der is the certificate and *ret describes it (its row is in
 * the store). 0: it waits; `reply` says 5.03 with Max-Age (the waiting row is kept, so it is no error). Negative:
 * refused, with the problem (RFC 8075 mapping; a refusal is remembered for ten minutes), or it waits with trouble
 * upstream: 5.02 or 5.04 and Max-Age (upstream's 401 is ours, not the device's; the row stays). A change of the CSR
 * with the same key (tls-unique linking) is the same enrolment. REGISTRAR_LOCAL: the profile says `local`, the uplink
 * is down and the enrolment has waited: the caller issues from this gateway's CA. */
#define REGISTRAR_LOCAL 2
int registrar_ask(struct turn *turn, const struct identity *from, const struct csr *csr, struct bytes csr_der,
                  bool is_renewal, struct certificate *ret, struct buffer *ret_der, struct reply *reply,
                  struct problem *problem);

/* Upstream's answer, in a turn: checks that the certificate answers the CSR's key and names the device, inserts its
 * row, or says when to try again. For core_enrol.c. */
int registrar_answer(struct turn *turn, const struct message_enrolled *answer);
/* The gateway's own sub-CA: puts its waiting CSR among the enrolments (once). */
int registrar_ask_authority(struct turn *turn);

/* The certificate that the gateway shows upstream (`leaf`, DER, whichever is in use): two thirds through its life its
 * renewal is put among the enrolments (north.est_renews_client), with a key of its own, and asked for until there is
 * an answer; that it has run out ends nothing. *ret_next: when to look again (calendar seconds). */
int registrar_ask_client(struct turn *turn, struct bytes leaf, unix_sec *ret_next);
/* What was renewed last: PKCS#8 key, certificate and chain, DER. -ENOENT: nothing was. */
int registrar_client_credentials(struct store *store, struct buffer *ret_key, struct buffer *ret_chain);

/* The upstream's trust anchors as last fetched (concatenated DER), for /crts. -ENOENT. */
int registrar_anchors(struct turn *turn, struct buffer *ret);
int registrar_anchors_put(struct turn *turn, struct bytes pkcs7);

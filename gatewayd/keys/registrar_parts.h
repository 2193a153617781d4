/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within the registrar: what registrar.c (devices) and registrar_authority.c (the gateway's own sub-CA) share.
 * Nobody else includes it. */

#include <openssl/x509.h>

#include "gatewayd/keys/registrar.h"

/* The most that upstream's Retry-After may ask for; a refused CSR of ours is asked again after it, too. */
#define RETRY_AFTER_MAX_SEC 86400

/* The certificate among them that is for the key asked for; NULL: none. Borrowed. */
X509 *registrar_find_for_key(STACK_OF(X509) * certificates, const struct enrolment *enrolment);
/* Ends an enrolment's waiting; a refusal is an event. */
int registrar_settle(struct turn *turn, struct enrolment *enrolment, enum enrolment_state state, uint16_t http_status,
                     const char *reason);
/* registrar_authority.c: what upstream has issued for our own sub-CA. */
int registrar_take_for_authority(struct turn *turn, struct enrolment *enrolment, STACK_OF(X509) * certificates,
                                 uint16_t http_status);
/* registrar_client.c: the same for the certificate that the gateway shows upstream. Its enrolment stands under a name
 * that no device can have. */
#define CLIENT_ENROLMENT "@upstream"
bool registrar_is_for_client(const struct enrolment *enrolment);
int registrar_take_for_client(struct turn *turn, struct enrolment *enrolment, STACK_OF(X509) * certificates,
                              uint16_t http_status);
/* The certificate and what of the answer and the upstream's anchors leads from it towards a root, as DER. */
int registrar_write_chain(struct turn *turn, X509 *leaf, STACK_OF(X509) * answer, struct buffer *to);

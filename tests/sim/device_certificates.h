/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_CERTIFICATES_H
#define DEVICE_CERTIFICATES_H

/* Certificates as they come from EST (RFC 9148), without a library for X.509: where each one begins and
 * ends. What is in them is for the TLS stack to judge. */

#include "device_coap.h"

/* A certs-only message (content-format 281; RFC 7030 §4.1.3, RFC 5652 §5) without signers, in DER: `certificates`
 * becomes the slice of `body` that holds them, one behind the other, at least one. False: it is not such a
 * message; nothing has changed. */
bool device_read_certs_only(struct device_bytes body, struct device_bytes *certificates);

/* Takes the first of concatenated DER certificates off `rest`. False: there is none, or it is not whole. */
bool device_next_certificate(struct device_bytes *rest, struct device_bytes *certificate);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* COSE_Sign1 and COSE_Key (RFC 9052, RFC 9053) on libcbor and EVP. Signatures are verified over the
 * bytes received, never over a re-encoding. */

#include <openssl/evp.h>

#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"

enum cose_algorithm { COSE_ES256 = -7, COSE_EDDSA = -8, COSE_ES384 = -35, COSE_ES512 = -36 };

struct cose_sign1 {
        struct bytes protected_header; /* as received; may be empty */
        struct bytes payload;
        struct bytes signature;
        int64_t algorithm; /* from the protected header alone */
        struct bytes kid;  /* protected or else unprotected; empty when absent */
};

/* Takes COSE_Sign1 apart: untagged, or under tags 18 and 61 (CWT). All slices borrow from `message`.
 * -EBADMSG with problem 4.00: not that shape, detached payload, crit present, duplicate keys,
 * bytes left over, an algorithm missing from the protected header. */
int cose_sign1_parse(struct bytes message, struct cose_sign1 *ret, struct problem *problem);

/* 0; -EKEYREJECTED when the signature does not verify; -EPROTONOSUPPORT when algorithm and key do not fit. */
int cose_sign1_verify(const struct cose_sign1 *sign1, EVP_PKEY *key, struct problem *problem);

/* Signs: tag 18, protected {1: alg}, unprotected {4: kid} unless empty. The algorithm follows from the key. */
int cose_sign1_make(EVP_PKEY *key, struct bytes kid, struct bytes payload, struct buffer *to);

/* COSE_Key, kty Symmetric: {1: 4, 2: kid, -1: k} (RFC 9053 §6.3). */
void cose_key_symmetric(struct bytes kid, struct bytes key, struct buffer *to);
/* COSE_Key, kty EC2, P-256: for publishing the receipt key. -EPROTONOSUPPORT for other keys. */
int cose_key_public(EVP_PKEY *key, struct bytes kid, struct buffer *to);

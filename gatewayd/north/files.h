/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The three PEM files that north needs, read and checked once, before it locks itself in. */

#include "config/config.h"
#include "gatewayd/problem.h"

struct tls_files {
        struct buffer anchors;     /* trust anchors for the collector */
        struct buffer certificate; /* of this gateway as a client, with its chain */
        char *key;                 /* its private key: a page of its own (secret.h) */
        size_t key_size;           /* of the text in it */
};

/* Reads the files that `config` names. Refuses what would otherwise fail at each handshake: a file
 * without a certificate, a key that is encrypted or belongs to another certificate.
 * Returns 0 or -errno with `problem`, which names the file. */
int tls_files_read(const struct north_config *config, struct tls_files *ret, struct problem *problem);
/* The same with another client certificate: private key and chain (leaf first) as DER. -EBADMSG: they do not belong
 * together, or cannot be read. */
int tls_files_renewed(const struct tls_files *files, struct bytes key, struct bytes chain, struct tls_files *ret);
/* The client certificate that is in them, DER, and until when it is valid. */
int tls_files_leaf(const struct tls_files *files, struct buffer *ret, unix_sec *ret_not_after);
void tls_files_free(struct tls_files *files);

/* SPDX-License-Identifier: Apache-2.0 */

/* The PSK grant: an Unprotected CWT Claims Set (RFC 9781) with the key in `cnf`, as RFC 9200 has it. */

#include "gatewayd/keys/grant.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "gatewayd/cbor.h"
#include "gatewayd/keys/cose.h"
#include "store/credentials.h"

#define TAG_UCCS           601
#define CLAIM_SUB          2
#define CLAIM_EXP          4
#define CLAIM_IAT          6
#define CLAIM_CNF          8
#define CNF_COSE_KEY       1
#define COSE_KTY           1
#define COSE_KTY_SYMMETRIC 4
#define COSE_KID           2
#define REQUEST_KEY_SIZE   1

static void write_uccs(const struct grant *grant, struct buffer *to) {
        cbor_put_tag(to, TAG_UCCS);
        cbor_put_map(to, 2 + (size_t)grant->has_expiry + (size_t)grant->has_dates);
        cbor_put_uint(to, CLAIM_SUB);
        cbor_put_text(to, grant->subject);
        if (grant->has_expiry) {
                cbor_put_uint(to, CLAIM_EXP);
                cbor_put_int(to, grant->expires);
        }
        if (grant->has_dates) {
                cbor_put_uint(to, CLAIM_IAT);
                cbor_put_int(to, grant->issued);
        }
        cbor_put_uint(to, CLAIM_CNF);
        cbor_put_map(to, 1);
        cbor_put_uint(to, CNF_COSE_KEY);
        cose_key_symmetric(grant->kid, grant->key, to);
}

void grant_write(const struct grant *grant, enum content_format format, struct buffer *to) {
        switch (format) {
        case FORMAT_COSE_KEY:
                cose_key_symmetric(grant->kid, grant->key, to);
                return;
        case FORMAT_TEXT:
                buffer_append(to, grant->kid);
                buffer_append(to, TEXT(" "));
                buffer_append(to, grant->key);
                buffer_append(to, TEXT("\n"));
                return;
        default:
                write_uccs(grant, to);
        }
}

int grant_request_read(struct bytes body, size_t *ret_key_size, struct problem *problem) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        cbor_item_t *size_item;
        int64_t size;
        int r;

        *ret_key_size = 0;
        if (body.size == 0)
                return 0;
        r = cbor_read(body, &item, problem);
        if (r < 0)
                return r;
        if (!cbor_isa_map(item))
                return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad request",
                                   "the body is empty or a CBOR map {? 1: key-size}");
        size_item = cbor_map_int(item, REQUEST_KEY_SIZE);
        if (cbor_map_size(item) != (size_item ? 1u : 0u))
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad request",
                                   "only 1 (key-size in bytes) may be asked for");
        if (!size_item)
                return 0;
        if (!cbor_value_int(size_item, &size) || size < 16 || size > SECRET_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad request",
                                   "key-size is a number of bytes from 16 to %d", SECRET_MAX);
        *ret_key_size = (size_t)size;
        return 0;
}

int grant_key_make(size_t size, bool is_text, struct secret *ret) {
        uint8_t random[SECRET_MAX];
        char text[SECRET_MAX + 1];
        int r = 0;

        if (size > SECRET_MAX || (is_text && !grant_key_fits_text(size)))
                return -EINVAL;
        if (RAND_priv_bytes(random, sizeof random) != 1)
                return -EIO;
        if (is_text) {
                if (base64_encode(BYTES(random, size / 4 * 3), true, text, sizeof text) < 0)
                        r = -EINVAL;
                else
                        r = secret_set(ret, BYTES(text, size));
        } else
                r = secret_set(ret, BYTES(random, size));
        OPENSSL_cleanse(random, sizeof random);
        OPENSSL_cleanse(text, sizeof text);
        return r;
}

int grant_kid_make(char *to) {
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
        size_t made = 0;

        while (made < KID_BYTES) {
                uint8_t random[32];

                if (RAND_bytes(random, sizeof random) != 1)
                        return -EIO;
                for (size_t i = 0; i < sizeof random && made < KID_BYTES; i++)
                        if (random[i] < 252) /* 7 × 36: no letter comes more often than another */
                                to[made++] = letters[random[i] % 36];
        }
        to[KID_BYTES] = '\0';
        return 0;
}

int grant_identity_kid(struct bytes identity, char *to, size_t to_size) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        cbor_item_t *key;
        struct bytes kid;
        int64_t type;

        /* Most identities are text, whose first byte no CBOR map has. */
        if (identity.size == 0 || (identity.data[0] >> 5) != 5)
                return -EBADMSG;
        if (cbor_read(identity, &item, NULL) < 0)
                return -EBADMSG;
        key = cbor_map_int(item, CLAIM_CNF);
        key = key ? cbor_map_int(key, CNF_COSE_KEY) : NULL;
        if (!key || !cbor_map_int(key, COSE_KTY) || !cbor_map_int(key, COSE_KID))
                return -EBADMSG;
        if (!cbor_value_int(cbor_map_int(key, COSE_KTY), &type) || type != COSE_KTY_SYMMETRIC ||
            !cbor_value_bytes(cbor_map_int(key, COSE_KID), &kid))
                return -EBADMSG;
        return bytes_to_text(kid, to, to_size) < 0 ? -EBADMSG : 0;
}

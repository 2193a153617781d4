/* SPDX-License-Identifier: Apache-2.0 */

/* Batches, their Idempotency-Key, and the results in a reply. The shapes stand in batch.h. */

#include "gatewayd/north/batch.h"

#include <errno.h>

#include <openssl/sha.h>

#include "gatewayd/cbor.h"

void batch_encode(const struct relay_post *post, struct buffer *to) {
        const struct relay_record *record = post->first;

        cbor_put_array(to, post->count);
        for (size_t i = 0; i < post->count; i++, record = record->next) {
                bool has_evidence = record->evidence.size > 0;

                cbor_put_map(to, has_evidence ? 2 : 1);
                cbor_put_uint(to, 1);
                cbor_put_bytes(to, record->receipt);
                if (has_evidence) {
                        cbor_put_uint(to, 2);
                        cbor_put_bytes(to, record->evidence);
                }
        }
}

void batch_key(struct bytes gateway_id, struct bytes incarnation, const struct relay_post *post, struct bytes body,
               char to[BATCH_KEY_SIZE]) {
        _cleanup_(buffer_free) struct buffer named = { 0 };
        const struct relay_record *record = post->first;
        uint8_t digest[SHA256_DIGEST_LENGTH];
        uint64_t last = 0;

        for (size_t i = 0; i < post->count; i++, record = record->next)
                last = record->sequence;
        /* A CBOR array keeps the parts apart, whatever they hold. */
        cbor_put_array(&named, 5);
        cbor_put_bytes(&named, gateway_id);
        cbor_put_bytes(&named, incarnation);
        cbor_put_uint(&named, post->first ? post->first->sequence : 0);
        cbor_put_uint(&named, last);
        cbor_put_bytes(&named, body);
        SHA256(named.data, named.size, digest);

        to[0] = '"';
        (void)base64_encode(BYTES(digest, sizeof digest), true, to + 1, BATCH_KEY_SIZE - 1); /* 43 always fit */
        to[BATCH_KEY_SIZE - 2] = '"';
        to[BATCH_KEY_SIZE - 1] = 0;
}

static int read_result(const cbor_item_t *item, struct batch_result *ret, struct problem *problem) {
        int64_t sequence, tier;

        if (!cbor_isa_map(item))
                return problem_set(problem, 0, EBADMSG, "malformed reply", "a result is a map {1: sequence, 2: tier}");
        if (!cbor_value_int(cbor_map_int(item, 1), &sequence) || sequence < 1)
                return problem_set(problem, 0, EBADMSG, "malformed reply",
                                   "a result's sequence (1) is a positive integer");
        if (!cbor_value_int(cbor_map_int(item, 2), &tier) || (tier != 0 && tier != 2 && tier != 32 && tier != 96))
                return problem_set(problem, 0, EBADMSG, "malformed reply", "a result's tier (2) is 0, 2, 32 or 96");
        *ret = (struct batch_result){ .sequence = (uint64_t)sequence, .tier = (uint8_t)tier };
        return 0;
}

int batch_read_results(struct bytes body, struct batch_result ret[BATCH_RESULTS_MAX], struct problem *problem) {
        _cleanup_(cbor_itemp) cbor_item_t *reply = NULL;
        cbor_item_t **items;
        size_t count;
        int r;

        if (body.size == 0)
                return 0;
        r = cbor_read(body, &reply, problem);
        if (r < 0)
                return r;
        if (!cbor_isa_array(reply))
                return problem_set(problem, 0, EBADMSG, "malformed reply", "the reply is an array of results");
        count = cbor_array_size(reply);
        if (count > BATCH_RESULTS_MAX)
                return problem_set(problem, 0, EBADMSG, "malformed reply", "%zu results, %d are taken", count,
                                   BATCH_RESULTS_MAX);
        items = cbor_array_handle(reply);
        for (size_t i = 0; i < count; i++) {
                r = read_result(items[i], &ret[i], problem);
                if (r < 0)
                        return r;
        }
        return (int)count;
}

void batch_percent_encode(struct bytes value, char *to) {
        static const char digits[] = "0123456789ABCDEF";
        static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

        for (size_t i = 0; i < value.size; i++) {
                uint8_t c = value.data[i];

                if (c != 0 && strchr(unreserved, c)) {
                        *to++ = (char)c;
                        continue;
                }
                *to++ = '%';
                *to++ = digits[c >> 4];
                *to++ = digits[c & 15];
        }
        *to = 0;
}

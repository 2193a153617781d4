/* SPDX-License-Identifier: Apache-2.0 */

/* Challenges: found by their nonce; a device keeps few, and they go with age. */

#include "store/internal.h"
#include "store/evidence.h"

#include <errno.h>

int challenge_insert(struct store *store, const struct challenge *c) {
        _cleanup_(query_end) struct query q = query_new(
                store, "INSERT INTO challenge (nonce, device, issued_wall, issued_powered, issued_quality, lives_sec,"
                       " is_spent, spent_digest, sequence, tier) VALUES (?,?, ?,?,?, ?,?,?,?,?)");
        int r;

        query_put_blob(&q, BYTES(c->nonce, sizeof c->nonce));
        query_put_text(&q, c->device);
        query_put_moment(&q, &c->issued);
        query_put_int(&q, c->lives_sec);
        query_put_int(&q, c->is_spent);
        query_put_blob(&q, BYTES(c->spent_digest, sizeof c->spent_digest));
        query_put_int(&q, (int64_t)c->sequence);
        query_put_int(&q, c->tier);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int challenge_get(struct store *store, struct bytes nonce, struct challenge *ret) {
        _cleanup_(query_end) struct query q = query_new(
                store, "SELECT nonce, device, issued_wall, issued_powered, issued_quality, lives_sec, is_spent,"
                       " spent_digest, sequence, tier FROM challenge WHERE nonce = ?");
        int r;

        query_put_blob(&q, nonce);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        *ret = (struct challenge){ 0 };
        query_get_fixed(&q, ret->nonce, sizeof ret->nonce);
        query_get_text(&q, ret->device, sizeof ret->device);
        query_get_moment(&q, &ret->issued);
        ret->lives_sec = query_get_int(&q);
        ret->is_spent = query_get_int(&q) != 0;
        query_get_fixed(&q, ret->spent_digest, sizeof ret->spent_digest);
        ret->sequence = (uint64_t)query_get_int(&q);
        ret->tier = (uint8_t)query_get_int(&q);
        return q.error;
}

int challenge_update(struct store *store, const struct challenge *c) {
        _cleanup_(query_end) struct query q = query_new(
                store, "UPDATE challenge SET lives_sec = ?, is_spent = ?, spent_digest = ?, sequence = ?, tier = ?"
                       " WHERE nonce = ?");
        int r;

        query_put_int(&q, c->lives_sec);
        query_put_int(&q, c->is_spent);
        query_put_blob(&q, BYTES(c->spent_digest, sizeof c->spent_digest));
        query_put_int(&q, (int64_t)c->sequence);
        query_put_int(&q, c->tier);
        query_put_blob(&q, BYTES(c->nonce, sizeof c->nonce));
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int challenge_trim(struct store *store, const char *device, size_t keep) {
        int64_t count;
        int r;

        {
                _cleanup_(query_end) struct query q =
                        query_new(store, "SELECT count(*) FROM challenge WHERE device = ? AND is_spent = 0");
                query_put_text(&q, device);
                r = query_step(&q);
                if (r < 0)
                        return r;
                count = query_get_int(&q);
        }
        if (count <= (int64_t)keep)
                return (int)count;

        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM challenge WHERE number IN (SELECT number FROM challenge"
                                 " WHERE device = ? AND is_spent = 0 ORDER BY number LIMIT ?)");
        query_put_text(&q, device);
        query_put_int(&q, count - (int64_t)keep);
        r = query_run(&q);
        return r < 0 ? r : (int)keep;
}

int challenge_expire(struct store *store, const struct moment *now, int64_t age_sec) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM challenge WHERE issued_powered < ?");

        query_put_int(&q, now->powered_sec - age_sec);
        return query_run(&q);
}

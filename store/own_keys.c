/* SPDX-License-Identifier: Apache-2.0 */

/* When the gateway's own keys were made: a row for each kind. */

#include "store/internal.h"
#include "store/own_keys.h"

#include <errno.h>

#define COLUMNS "generation, made_wall, made_powered, made_quality, id, not_after, told"

static bool is_kind(enum own_key_kind kind) {
        return (int)kind >= 0 && kind < OWN_KEY_KINDS;
}

int own_key_get(struct store *store, enum own_key_kind kind, struct own_key *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT " COLUMNS " FROM own_key WHERE kind = ?");
        int64_t generation, told;
        int r;

        query_put_int(&q, kind);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        *ret = (struct own_key){ .kind = kind };
        generation = query_get_int(&q);
        query_get_moment(&q, &ret->made);
        query_get_text(&q, ret->id, sizeof ret->id);
        ret->not_after = query_get_int(&q);
        told = query_get_int(&q);
        if (generation < 1 || generation > UINT32_MAX || told < 0 || told > UINT32_MAX)
                return -EUCLEAN;
        ret->generation = (uint32_t)generation;
        ret->told = (unsigned)told;
        return q.error;
}

int own_key_put(struct store *store, const struct own_key *key) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT OR REPLACE INTO own_key (" COLUMNS ", kind) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
        int r;

        if (!is_kind(key->kind) || key->generation == 0)
                return -EINVAL;
        query_put_int(&q, key->generation);
        query_put_moment(&q, &key->made);
        query_put_text(&q, key->id);
        query_put_int(&q, key->not_after);
        query_put_int(&q, key->told);
        query_put_int(&q, key->kind);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The generations of the issuing CA: a row each, and what belongs to it as bytes beside it. */

#include "store/internal.h"
#include "store/authorities.h"

#include <errno.h>

#define MOMENT(name) name "_wall, " name "_powered, " name "_quality, "
#define COLUMNS                                                                                                        \
        "state, key_uri, is_root, not_before, not_after, " MOMENT("created") MOMENT("announced") MOMENT("activated")   \
                MOMENT("superseded") MOMENT("ended") "crl_number, crl_next_update, crl_is_stale, generation"
#define VALUES "?,?,?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?"

_Static_assert(AUTHORITY_ENDED == 4, "as the schema's index and the list say");

static bool is_storable(const struct authority *a) {
        return a->generation > 0 && a->generation < UINT32_MAX && a->key_uri[0] != '\0';
}

static void put_authority(struct query *q, const struct authority *a) {
        query_put_int(q, a->state);
        query_put_text(q, a->key_uri);
        query_put_int(q, a->is_root);
        query_put_int(q, a->not_before);
        query_put_int(q, a->not_after);
        query_put_moment(q, &a->created);
        query_put_moment(q, &a->announced);
        query_put_moment(q, &a->activated);
        query_put_moment(q, &a->superseded);
        query_put_moment(q, &a->ended);
        query_put_int(q, (int64_t)a->crl_number);
        query_put_int(q, a->crl_next_update);
        query_put_int(q, a->crl_is_stale);
        query_put_int(q, a->generation);
}

static int get_authority(struct query *q, struct authority *a) {
        *a = (struct authority){ 0 };
        a->state = (enum authority_state)query_get_int(q);
        query_get_text(q, a->key_uri, sizeof a->key_uri);
        a->is_root = query_get_int(q) != 0;
        a->not_before = query_get_int(q);
        a->not_after = query_get_int(q);
        query_get_moment(q, &a->created);
        query_get_moment(q, &a->announced);
        query_get_moment(q, &a->activated);
        query_get_moment(q, &a->superseded);
        query_get_moment(q, &a->ended);
        a->crl_number = (uint64_t)query_get_int(q);
        a->crl_next_update = query_get_int(q);
        a->crl_is_stale = query_get_int(q) != 0;
        a->generation = (uint32_t)query_get_int(q);
        return q->error;
}

int authority_insert(struct store *store, const struct authority *authority) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO authority (" COLUMNS ") VALUES (" VALUES ")");
        int r;

        if (!is_storable(authority))
                return -EINVAL;
        put_authority(&q, authority);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int authority_update(struct store *store, const struct authority *authority) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE authority SET (" COLUMNS ") = (" VALUES ") WHERE generation = ?");
        int r;

        if (!is_storable(authority))
                return -EINVAL;
        put_authority(&q, authority);
        query_put_int(&q, authority->generation);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int authority_get(struct store *store, uint32_t generation, struct authority *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM authority WHERE generation = ?");
        int r;

        query_put_int(&q, generation);
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_authority(&q, ret);
}

static int remove_generation(struct store *store, const char *sql, uint32_t generation) {
        _cleanup_(query_end) struct query q = query_new(store, sql);

        query_put_int(&q, generation);
        return query_run(&q);
}

int authority_remove(struct store *store, uint32_t generation) {
        int r = remove_generation(store, "DELETE FROM authority WHERE generation = ?", generation);

        if (r == 0)
                return -ENOENT;
        if (r > 0)
                r = remove_generation(store, "DELETE FROM authority_part WHERE generation = ?", generation);
        return r < 0 ? r : 0;
}

ssize_t authority_list(struct store *store, struct authority *ret, size_t max) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM authority WHERE state <> 4 ORDER BY generation DESC LIMIT ?");
        ssize_t count = 0;
        int r;

        query_put_int(&q, max > INT64_MAX ? INT64_MAX : (int64_t)max);
        while ((r = query_step(&q)) > 0) {
                r = get_authority(&q, &ret[count]);
                if (r < 0)
                        return r;
                count++;
        }
        return r < 0 ? r : count;
}

int64_t authority_latest(struct store *store) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT n FROM tally WHERE what = 'ca-generation' AND value = 0");
        int r = query_step(&q);

        if (r <= 0)
                return r;
        return q.error < 0 ? q.error : query_get_int(&q);
}

/* ---- what belongs to a generation ---- */

static int remove_part(struct store *store, uint32_t generation, enum authority_part part) {
        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM authority_part WHERE generation = ? AND part = ?");
        int r;

        query_put_int(&q, generation);
        query_put_int(&q, part);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int authority_put(struct store *store, uint32_t generation, enum authority_part part, struct bytes value) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO authority_part (generation, part, value)"
                                 " SELECT generation, ?, ? FROM authority WHERE generation = ?"
                                 " ON CONFLICT (generation, part) DO UPDATE SET value = excluded.value");
        int r;

        if (value.size == 0)
                return remove_part(store, generation, part);
        query_put_int(&q, part);
        query_put_blob(&q, value);
        query_put_int(&q, generation);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int authority_read(struct store *store, uint32_t generation, enum authority_part part, struct buffer *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT value FROM authority_part WHERE generation = ? AND part = ?");
        int r;

        query_put_int(&q, generation);
        query_put_int(&q, part);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        buffer_append(ret, query_get_blob(&q));
        return 0;
}

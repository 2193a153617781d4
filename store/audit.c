/* SPDX-License-Identifier: Apache-2.0 */

/* The audit table: a chain of hashes whose two ends are kept in meta, so that a row that was changed,
 * taken out, swapped or cut off at the end shows. */

#include "store/audit.h"
#include "store/internal.h"

#include <errno.h>
#include <limits.h>

#include <openssl/evp.h>

#define HASH_BYTES   32
#define TRIM_AT_ONCE 1000

struct chain {
        uint64_t first, next; /* numbers of the first row kept, and of the next to come */
        uint8_t base[HASH_BYTES], head[HASH_BYTES];
};

static int chain_get(struct store *store, struct chain *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT audit_first, audit_base, audit_next, audit_head FROM meta WHERE id = 1");
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        ret->first = (uint64_t)query_get_int(&q);
        query_get_fixed(&q, ret->base, HASH_BYTES);
        ret->next = (uint64_t)query_get_int(&q);
        query_get_fixed(&q, ret->head, HASH_BYTES);
        return q.error;
}

/* ---- one row's hash ---- */

static void evp_free(EVP_MD_CTX **context) {
        EVP_MD_CTX_free(*context);
}

static bool hash_number(EVP_MD_CTX *context, uint64_t value) {
        uint8_t encoded[8];

        for (size_t i = 0; i < sizeof encoded; i++)
                encoded[i] = (uint8_t)(value >> (56 - 8 * i));
        return EVP_DigestUpdate(context, encoded, sizeof encoded) == 1;
}

/* With its length, so that no two rows of different fields hash the same bytes. */
static bool hash_text(EVP_MD_CTX *context, const char *text) {
        size_t size = strlen(text);

        return hash_number(context, size) && EVP_DigestUpdate(context, text, size) == 1;
}

static int row_hash(const uint8_t before[HASH_BYTES], const struct audit_row *row, const char *kind,
                    uint8_t ret[HASH_BYTES]) {
        _cleanup_(evp_free) EVP_MD_CTX *context = EVP_MD_CTX_new();

        if (!context)
                oom();
        if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1 || EVP_DigestUpdate(context, before, HASH_BYTES) != 1 ||
            !hash_number(context, row->number) || !hash_number(context, (uint64_t)row->at.wall) ||
            !hash_number(context, (uint64_t)row->at.powered_sec) || !hash_number(context, (uint64_t)row->at.quality) ||
            !hash_number(context, row->at.wall_trusted) || !hash_text(context, kind) ||
            !hash_text(context, row->device) || !hash_text(context, row->kid) || !hash_text(context, row->reason) ||
            !hash_text(context, row->actor) || EVP_DigestFinal_ex(context, ret, NULL) != 1)
                return -EIO;
        return 0;
}

/* ---- writing ---- */

static int insert_row(struct store *store, const struct audit_row *row, const char *kind,
                      const uint8_t hash[HASH_BYTES]) {
        _cleanup_(query_end) struct query q = query_new(
                store, "INSERT INTO audit (number, at_wall, at_powered, at_quality, kind, device, kid, reason, actor,"
                       " hash) VALUES (?, ?,?,?, ?,?,?,?,?, ?)");

        query_put_int(&q, (int64_t)row->number);
        query_put_moment(&q, &row->at);
        query_put_text(&q, kind);
        query_put_text(&q, row->device);
        query_put_text(&q, row->kid);
        query_put_text(&q, row->reason);
        query_put_text(&q, row->actor);
        query_put_blob(&q, BYTES(hash, HASH_BYTES));
        return query_run(&q);
}

static int advance_head(struct store *store, uint64_t next, const uint8_t head[HASH_BYTES]) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE meta SET audit_next = ?, audit_head = ? WHERE id = 1");

        query_put_int(&q, (int64_t)next);
        query_put_blob(&q, BYTES(head, HASH_BYTES));
        return query_run(&q);
}

int audit_append(struct store *store, const struct moment *at, const struct event *event, const char *actor) {
        struct audit_row row = { .at = *at, .kind = event->kind };
        const char *kind = event_name(event->kind);
        uint8_t hash[HASH_BYTES];
        struct chain chain;
        int r;

        r = chain_get(store, &chain);
        if (r < 0)
                return r;
        row.number = chain.next;
        snprintf(row.device, sizeof row.device, "%s", event->device);
        snprintf(row.kid, sizeof row.kid, "%s", event->kid);
        snprintf(row.reason, sizeof row.reason, "%s", event->reason);
        snprintf(row.actor, sizeof row.actor, "%s", actor ? actor : "");

        r = row_hash(chain.head, &row, kind, hash);
        if (r == 0)
                r = insert_row(store, &row, kind, hash);
        if (r >= 0)
                r = advance_head(store, row.number + 1, hash);
        return r < 0 ? r : 0;
}

/* ---- reading ---- */

#define ROW_COLUMNS "number, at_wall, at_powered, at_quality, device, kid, reason, actor, kind"

/* A kind that a newer gatewayd wrote is not known here: shown as EVENT_KINDS. */
static enum event_kind kind_of(const char *name) {
        for (int kind = 0; kind < EVENT_KINDS; kind++)
                if (strcmp(event_name((enum event_kind)kind), name) == 0)
                        return (enum event_kind)kind;
        return EVENT_KINDS;
}

static int get_row(struct query *q, struct audit_row *row, char kind[64]) {
        *row = (struct audit_row){ 0 };
        row->number = (uint64_t)query_get_int(q);
        query_get_moment(q, &row->at);
        query_get_text(q, row->device, sizeof row->device);
        query_get_text(q, row->kid, sizeof row->kid);
        query_get_text(q, row->reason, sizeof row->reason);
        query_get_text(q, row->actor, sizeof row->actor);
        query_get_text(q, kind, 64);
        row->kind = kind_of(kind);
        return q->error;
}

static int visit_all(struct query *q, audit_visitor visit, void *userdata) {
        struct audit_row row;
        char kind[64];
        int r;

        while ((r = query_step(q)) > 0) {
                r = get_row(q, &row, kind);
                if (r == 0)
                        r = visit(userdata, &row);
                if (r != 0)
                        return r;
        }
        return r;
}

static int64_t limit_of(size_t limit) {
        return limit > INT_MAX ? INT_MAX : (int64_t)limit;
}

int audit_each(struct store *store, const char *device, uint64_t after, size_t limit, audit_visitor visit,
               void *userdata) {
        _cleanup_(query_end) struct query q = query_new(
                store, device ? "SELECT " ROW_COLUMNS " FROM audit WHERE number > ? AND device = ? AND device <> ''"
                                " ORDER BY number LIMIT ?"
                              : "SELECT " ROW_COLUMNS " FROM audit WHERE number > ? ORDER BY number LIMIT ?");

        query_put_int(&q, after > INT64_MAX ? INT64_MAX : (int64_t)after);
        if (device)
                query_put_text(&q, device);
        query_put_int(&q, limit_of(limit));
        return visit_all(&q, visit, userdata);
}

int audit_last(struct store *store, const char *device, size_t limit, audit_visitor visit, void *userdata) {
        _cleanup_(query_end) struct query q = query_new(
                store, device ? "SELECT * FROM (SELECT " ROW_COLUMNS " FROM audit WHERE device = ? AND device <> ''"
                                " ORDER BY number DESC LIMIT ?) ORDER BY number"
                              : "SELECT * FROM (SELECT " ROW_COLUMNS " FROM audit"
                                " ORDER BY number DESC LIMIT ?) ORDER BY number");

        if (device)
                query_put_text(&q, device);
        query_put_int(&q, limit_of(limit));
        return visit_all(&q, visit, userdata);
}

int audit_verify(struct store *store, uint64_t *ret_bad) {
        struct audit_row row;
        struct chain chain;
        uint8_t hash[HASH_BYTES], stored[HASH_BYTES];
        uint64_t expected;
        char kind[64];
        int r;

        r = chain_get(store, &chain);
        if (r < 0)
                return r;
        memcpy(hash, chain.base, HASH_BYTES);
        expected = chain.first;

        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " ROW_COLUMNS ", hash FROM audit ORDER BY number");
        while ((r = query_step(&q)) > 0) {
                (void)get_row(&q, &row, kind); /* what does not fit shows as a wrong hash */
                query_get_fixed(&q, stored, HASH_BYTES);
                *ret_bad = expected;
                r = row_hash(hash, &row, kind, hash);
                if (r < 0)
                        return r;
                if (q.error < 0 || row.number != expected || memcmp(hash, stored, HASH_BYTES) != 0)
                        return -EBADMSG;
                expected++;
        }
        if (r == 0 && (expected != chain.next || memcmp(hash, chain.head, HASH_BYTES) != 0)) {
                *ret_bad = expected;
                return -EBADMSG;
        }
        return r;
}

/* ---- trimming ---- */

/* The oldest row, where it is older than `before`. 1: there is one. */
static int oldest_before(struct store *store, int64_t before, uint64_t *ret_number, uint8_t ret_hash[HASH_BYTES]) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT number, at_powered, hash FROM audit ORDER BY number LIMIT 1");
        int r = query_step(&q);

        if (r <= 0)
                return r;
        *ret_number = (uint64_t)query_get_int(&q);
        r = query_get_int(&q) < before;
        query_get_fixed(&q, ret_hash, HASH_BYTES);
        return q.error < 0 ? q.error : r;
}

static int remove_row(struct store *store, uint64_t number) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM audit WHERE number = ?");

        query_put_int(&q, (int64_t)number);
        return query_run(&q);
}

static int move_base(struct store *store, uint64_t first, const uint8_t base[HASH_BYTES]) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE meta SET audit_first = ?, audit_base = ? WHERE id = 1");

        query_put_int(&q, (int64_t)first);
        query_put_blob(&q, BYTES(base, HASH_BYTES));
        return query_run(&q);
}

/* Powered-on time never decreases along the chain, so what is too old is its beginning. */
int audit_trim(struct store *store, const struct moment *now, int64_t keep_sec) {
        uint8_t hash[HASH_BYTES];
        uint64_t number;
        int removed = 0, r = 0;

        while (removed < TRIM_AT_ONCE) {
                r = oldest_before(store, now->powered_sec - keep_sec, &number, hash);
                if (r <= 0)
                        break;
                r = remove_row(store, number);
                if (r >= 0)
                        r = move_base(store, number + 1, hash);
                if (r < 0)
                        return r;
                removed++;
        }
        return r < 0 ? r : removed;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* One use of one statement: taken from the cache, bound in order, stepped, read in order, put back.
 * Errors stick, so that callers check once. */

#include "store/internal.h"

#include <errno.h>

#define QUALITY_TRUSTED 4 /* beside enum clock_quality in a moment's third column */

static struct cached_statement *cache_slot(struct store *store, const char *sql) {
        size_t at = ((uintptr_t)sql >> 3) * 2654435761U;

        for (size_t i = 0; i < STATEMENTS_MAX; i++) {
                struct cached_statement *slot = &store->statements[(at + i) & (STATEMENTS_MAX - 1)];

                if (!slot->sql || slot->sql == sql)
                        return slot;
        }
        return NULL;
}

struct query query_new(struct store *store, const char *sql) {
        struct query q = { .store = store, .parameter = 1 };
        struct cached_statement *slot = cache_slot(store, sql);
        int rc;

        if (slot && slot->statement && !slot->is_used) {
                slot->is_used = true;
                q.cached = slot;
                q.statement = slot->statement;
                return q;
        }

        rc = sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q.statement, NULL);
        if (rc != SQLITE_OK) {
                q.error = store_error(store->db, rc);
                return q;
        }
        if (slot && !slot->sql) {
                *slot = (struct cached_statement){ .sql = sql, .statement = q.statement, .is_used = true };
                q.cached = slot;
        }
        return q;
}

void query_end(struct query *q) {
        if (!q->statement)
                return;
        if (q->cached) {
                sqlite3_reset(q->statement);
                sqlite3_clear_bindings(q->statement);
                q->cached->is_used = false;
        } else
                sqlite3_finalize(q->statement);
        q->statement = NULL;
}

void query_cache_clear(struct store *store) {
        for (size_t i = 0; i < STATEMENTS_MAX; i++) {
                sqlite3_finalize(store->statements[i].statement);
                store->statements[i] = (struct cached_statement){ 0 };
        }
}

static void bound(struct query *q, int rc) {
        if (rc != SQLITE_OK && q->error == 0)
                q->error = store_error(q->store->db, rc);
}

/* The caller's memory outlives the query in every use, so nothing is copied. */

void query_put_int(struct query *q, int64_t value) {
        if (q->error == 0)
                bound(q, sqlite3_bind_int64(q->statement, q->parameter++, value));
}

void query_put_text_bytes(struct query *q, struct bytes text) {
        if (q->error == 0)
                bound(q, sqlite3_bind_text64(q->statement, q->parameter++, text.size > 0 ? (const char *)text.data : "",
                                             text.size, SQLITE_STATIC, SQLITE_UTF8));
}

void query_put_text(struct query *q, const char *text) {
        query_put_text_bytes(q, bytes_of(text));
}

void query_put_blob(struct query *q, struct bytes blob) {
        if (q->error == 0)
                bound(q, sqlite3_bind_blob64(q->statement, q->parameter++, blob.size > 0 ? (const void *)blob.data : "",
                                             blob.size, SQLITE_STATIC));
}

void query_put_moment(struct query *q, const struct moment *moment) {
        query_put_int(q, moment->wall);
        query_put_int(q, moment->powered_sec);
        query_put_int(q, (int64_t)moment->quality | (moment->wall_trusted ? QUALITY_TRUSTED : 0));
}

int query_step(struct query *q) {
        int rc;

        if (q->error < 0)
                return q->error;
        q->column = 0;
        rc = sqlite3_step(q->statement);
        if (rc == SQLITE_ROW)
                return 1;
        if (rc == SQLITE_DONE)
                return 0;
        q->error = store_error(q->store->db, rc);
        return turn_failed(q->store, q->error);
}

int query_run(struct query *q) {
        int r;

        if (q->error < 0)
                return q->error;
        r = turn_write(q->store);
        if (r < 0)
                return r;
        store_operation(q->store->hooks, sqlite3_sql(q->statement));
        r = query_step(q);
        if (r < 0)
                return r;
        r = sqlite3_changes(q->store->db);
        if (r > 0)
                q->store->is_changed = true;
        return r;
}

static void damaged(struct query *q) {
        if (q->error == 0)
                q->error = -EUCLEAN;
}

int64_t query_get_int(struct query *q) {
        int column = q->column++;

        if (sqlite3_column_type(q->statement, column) != SQLITE_INTEGER)
                damaged(q);
        return sqlite3_column_int64(q->statement, column);
}

void query_get_text(struct query *q, char *to, size_t to_size) {
        int column = q->column++;
        const unsigned char *text = sqlite3_column_text(q->statement, column);
        int size = sqlite3_column_bytes(q->statement, column);

        if (bytes_to_text(BYTES(text, text ? (size_t)size : 0), to, to_size) < 0) {
                to[0] = '\0';
                damaged(q);
        }
}

struct bytes query_get_blob(struct query *q) {
        int column = q->column++;
        const void *data = sqlite3_column_blob(q->statement, column);
        int size = sqlite3_column_bytes(q->statement, column);

        return BYTES(data, data ? (size_t)size : 0);
}

void query_get_fixed(struct query *q, uint8_t *to, size_t size) {
        struct bytes blob = query_get_blob(q);

        if (blob.size != size) {
                memset(to, 0, size);
                damaged(q);
                return;
        }
        memcpy(to, blob.data, size);
}

void query_get_moment(struct query *q, struct moment *to) {
        int64_t quality;

        to->wall = query_get_int(q);
        to->powered_sec = query_get_int(q);
        quality = query_get_int(q);
        to->wall_trusted = (quality & QUALITY_TRUSTED) != 0;
        to->quality = (enum clock_quality)(quality & 3);
        if (quality < 0 || quality > (QUALITY_TRUSTED | CLOCK_SYNCHRONIZED) || (quality & 3) > CLOCK_SYNCHRONIZED)
                damaged(q);
}

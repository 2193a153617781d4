/* SPDX-License-Identifier: Apache-2.0 */

/* When each device next needs a look, by either clock. A look costs what is due, never what is not. */

#include "store/internal.h"
#include "store/devices.h"

#include <errno.h>
#include <stdlib.h>

int schedule_set(struct store *store, const char *device, const struct due_time *due) {
        _cleanup_(query_end) struct query q = query_new(
                store, "INSERT INTO schedule (device, wall, powered) VALUES (?, ?, ?)"
                       " ON CONFLICT (device) DO UPDATE SET wall = excluded.wall, powered = excluded.powered");
        int r;

        query_put_text(&q, device);
        query_put_int(&q, due->wall);
        query_put_int(&q, due->powered_sec);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int schedule_get(struct store *store, const char *device, struct due_time *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT wall, powered FROM schedule WHERE device = ?");
        int r;

        query_put_text(&q, device);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        ret->wall = query_get_int(&q);
        ret->powered_sec = query_get_int(&q);
        return q.error;
}

struct overdue {
        char device[DEVICE_ID_MAX + 1];
        int64_t by_sec; /* the larger of both clocks' */
};

static int64_t overdue_by(int64_t now, int64_t due) {
        int64_t by;

        return __builtin_sub_overflow(now, due, &by) ? (due < 0 ? INT64_MAX : INT64_MIN) : by;
}

/* The first `limit` by one clock. */
static int add_due(struct store *store, const char *sql, int64_t at, const struct moment *now, size_t limit,
                   struct overdue *to, size_t *count) {
        _cleanup_(query_end) struct query q = query_new(store, sql);
        int r;

        query_put_int(&q, at);
        query_put_int(&q, (int64_t)limit);
        while ((r = query_step(&q)) > 0) {
                struct overdue *o = &to[*count];
                int64_t wall, powered;

                query_get_text(&q, o->device, sizeof o->device);
                wall = overdue_by(now->wall, query_get_int(&q));
                powered = overdue_by(now->powered_sec, query_get_int(&q));
                if (q.error < 0)
                        return q.error;
                o->by_sec = wall > powered ? wall : powered;
                (*count)++;
        }
        return r;
}

static int longest_first(const void *a, const void *b) {
        const struct overdue *x = a, *y = b;

        if (x->by_sec != y->by_sec)
                return x->by_sec > y->by_sec ? -1 : 1;
        return strcmp(x->device, y->device);
}

/* Whoever is among the `limit` longest due is among the first `limit` by that clock which makes it so:
 * both lists together hold the answer. A device in both lists compares equal and stands beside itself. */
ssize_t schedule_due(struct store *store, const struct moment *now, size_t limit, char (*ret_ids)[DEVICE_ID_MAX + 1]) {
        _cleanup_(freep) struct overdue *found = NULL;
        size_t count = 0, taken = 0;
        int r;

        if (limit == 0)
                return 0;
        found = xcalloc(limit, 2 * sizeof *found);
        r = add_due(store, "SELECT device, wall, powered FROM schedule WHERE wall <= ? ORDER BY wall LIMIT ?",
                    now->wall, now, limit, found, &count);
        if (r == 0)
                r = add_due(store,
                            "SELECT device, wall, powered FROM schedule WHERE powered <= ?"
                            " ORDER BY powered LIMIT ?",
                            now->powered_sec, now, limit, found, &count);
        if (r < 0)
                return r;

        qsort(found, count, sizeof *found, longest_first);
        for (size_t i = 0; i < count && taken < limit; i++)
                if (i == 0 || strcmp(found[i].device, found[i - 1].device) != 0)
                        memcpy(ret_ids[taken++], found[i].device, sizeof found[i].device);
        return (ssize_t)taken;
}

int schedule_earliest(struct store *store, struct due_time *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT wall, (SELECT powered FROM schedule ORDER BY powered LIMIT 1)"
                                 " FROM schedule ORDER BY wall LIMIT 1");
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        ret->wall = query_get_int(&q);
        ret->powered_sec = query_get_int(&q);
        return q.error;
}

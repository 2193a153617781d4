/* SPDX-License-Identifier: Apache-2.0 */

/* Orders about rotation: a row for each profile that has one, and one for all. */

#include "store/internal.h"
#include "store/orders.h"

#include <errno.h>

#define COLUMNS                                                                                                        \
        "profile, asked_wall, asked_powered, asked_quality, within_sec, paused_wall, paused_powered, paused_quality, " \
        "pause_sec"

static int get_order(struct query *q, struct rotation_order *to) {
        *to = (struct rotation_order){ 0 };
        query_get_text(q, to->profile, sizeof to->profile);
        query_get_moment(q, &to->asked);
        to->within_sec = query_get_int(q);
        query_get_moment(q, &to->paused);
        to->pause_sec = query_get_int(q);
        return q->error;
}

int order_get(struct store *store, const char *profile, struct rotation_order *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM rotation_order WHERE profile = ?");
        int r;

        query_put_text(&q, profile);
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_order(&q, ret);
}

static int order_remove(struct store *store, const char *profile) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM rotation_order WHERE profile = ?");
        int r;

        query_put_text(&q, profile);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int order_put(struct store *store, const struct rotation_order *order) {
        _cleanup_(query_end) struct query q = query_new(store, "INSERT OR REPLACE INTO rotation_order (" COLUMNS
                                                               ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
        int r;

        if (order->within_sec < 0 || order->pause_sec < 0)
                return -EINVAL;
        if (!moment_is_set(&order->asked) && !moment_is_set(&order->paused))
                return order_remove(store, order->profile);
        query_put_text(&q, order->profile);
        query_put_moment(&q, &order->asked);
        query_put_int(&q, order->within_sec);
        query_put_moment(&q, &order->paused);
        query_put_int(&q, order->pause_sec);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int order_each(struct store *store, order_visitor visit, void *userdata) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM rotation_order ORDER BY profile");
        struct rotation_order order;
        int r;

        while ((r = query_step(&q)) > 0) {
                r = get_order(&q, &order);
                if (r == 0)
                        r = visit(userdata, &order);
                if (r != 0)
                        return r;
        }
        return r;
}

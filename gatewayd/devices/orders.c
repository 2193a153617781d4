/* SPDX-License-Identifier: Apache-2.0 */

/* Operators' orders about rotation. One row for a profile, not one for each device: an order costs the same for ten
 * devices and for a million; core then looks at all of them, a portion a tick. */

#include "gatewayd/devices/orders.h"

#include <errno.h>

#include "store/orders.h"

static struct due_time end_of(const struct moment *begin, int64_t seconds) {
        struct due_time end;

        if (__builtin_add_overflow(begin->wall, seconds, &end.wall))
                end.wall = INT64_MAX;
        if (__builtin_add_overflow(begin->powered_sec, seconds, &end.powered_sec))
                end.powered_sec = INT64_MAX;
        return end;
}

static bool is_paused(const struct rotation_order *order, const struct moment *now, struct due_time *ret_end) {
        *ret_end = end_of(&order->paused, order->pause_sec);
        return moment_is_set(&order->paused) && now->wall < ret_end->wall && now->powered_sec < ret_end->powered_sec;
}

/* The newest proven key, as rotation.c finds it. */
static const struct credential *tip_of(const struct rotation_view *view) {
        for (size_t i = 0; i < view->count; i++)
                if (credential_is_operational(view->credentials[i].kind) && view->credentials[i].state == KEY_ACTIVE)
                        return &view->credentials[i];
        return NULL;
}

/* An ask counts for keys issued before it; of two, the one that is due sooner. */
static void take_ask(const struct rotation_order *order, double spread, struct rotation_view *view) {
        const struct credential *tip = tip_of(view);
        double mine, other;

        if (!tip || !moment_is_set(&order->asked) || tip->issued.powered_sec >= order->asked.powered_sec)
                return;
        mine = (double)order->asked.powered_sec + (double)order->within_sec * spread;
        other = (double)view->asked.powered_sec + (double)view->asked_within_sec * spread;
        if (moment_is_set(&view->asked) && other <= mine)
                return;
        view->asked = order->asked;
        view->asked_within_sec = order->within_sec;
}

static int take_order(struct turn *turn, const char *profile, double spread, struct rotation_view *view) {
        struct rotation_order order;
        struct due_time end;
        int r = order_get(turn->store, profile, &order);

        if (r < 0)
                return r == -ENOENT ? 0 : r;
        take_ask(&order, spread, view);
        if (!is_paused(&order, &turn->now, &end))
                return 0;
        if (!view->is_paused)
                view->pause_end = end;
        /* Both must be over. */
        if (end.wall > view->pause_end.wall)
                view->pause_end.wall = end.wall;
        if (end.powered_sec > view->pause_end.powered_sec)
                view->pause_end.powered_sec = end.powered_sec;
        view->is_paused = true;
        return 0;
}

int orders_view(struct turn *turn, const char *profile, double spread, struct rotation_view *view) {
        int r = take_order(turn, "", spread, view);

        return r < 0 ? r : take_order(turn, profile, spread, view);
}

/* ---- what operators do ---- */

static int read_order(struct turn *turn, const char *profile, struct rotation_order *ret, struct problem *problem) {
        int r;

        if (profile[0] && !config_profile(turn->config, profile))
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "no such profile",
                                   "there is no profile %.64s in the configuration", profile);
        r = order_get(turn->store, profile, ret);
        if (r != -ENOENT)
                return r;
        *ret = (struct rotation_order){ 0 };
        snprintf(ret->profile, sizeof ret->profile, "%s", profile);
        return 0;
}

/* Writes it, tells of it, and has every device looked at. */
static int write_order(struct turn *turn, const struct rotation_order *order, enum event_kind kind, const char *what,
                       int64_t seconds) {
        char span[64];
        int r = order_put(turn->store, order);

        if (r < 0)
                return r;
        timespan_format(seconds, span);
        turn_effect(turn, EFFECT_RESCHEDULE, NULL, NULL);
        return turn_event(turn, kind, NULL, NULL, "%s%s: %s%s", order->profile[0] ? "profile " : "all devices",
                          order->profile, what, seconds > 0 ? span : "");
}

int orders_rotate(struct turn *turn, const char *profile, int64_t within_sec, struct problem *problem) {
        struct rotation_order order;
        int r;

        if (within_sec < 0 || within_sec > PAUSE_MAX_SEC)
                return problem_set(problem, CODE_BAD_REQUEST, ERANGE, "bad time span", "within 0 to 90 days");
        r = read_order(turn, profile, &order, problem);
        if (r < 0)
                return r;
        order.asked = turn->now;
        order.within_sec = within_sec;
        r = write_order(turn, &order, EVENT_ROTATION_ORDERED, within_sec > 0 ? "within " : "now", within_sec);
        return r < 0 ? r : 1;
}

int orders_pause(struct turn *turn, const char *profile, int64_t pause_sec, struct problem *problem) {
        struct rotation_order order;
        int r;

        if (pause_sec < 1 || pause_sec > PAUSE_MAX_SEC)
                return problem_set(problem, CODE_BAD_REQUEST, ERANGE, "bad time span",
                                   "a pause lasts a second to 90 days: one without an end would be forgotten");
        r = read_order(turn, profile, &order, problem);
        if (r < 0)
                return r;
        order.paused = turn->now;
        order.pause_sec = pause_sec;
        r = write_order(turn, &order, EVENT_ROTATION_PAUSED, "for ", pause_sec);
        return r < 0 ? r : 1;
}

static int end_pause(struct turn *turn, struct rotation_order *order, const char *why) {
        order->paused = MOMENT_NONE;
        order->pause_sec = 0;
        return write_order(turn, order, EVENT_ROTATION_RESUMED, why, 0);
}

int orders_resume(struct turn *turn, const char *profile, struct problem *problem) {
        struct rotation_order order;
        int r = read_order(turn, profile, &order, problem);

        if (r < 0 || !moment_is_set(&order.paused))
                return r;
        r = end_pause(turn, &order, "resumed by an operator");
        return r < 0 ? r : 1;
}

static int find_any(void *userdata, const struct rotation_order *order) {
        (void)userdata;
        (void)order;
        return 1;
}

int orders_standing(struct turn *turn) {
        return order_each(turn->store, find_any, NULL);
}

/* ---- the tick ---- */

struct over {
        struct turn *turn;
        struct rotation_order order;
        bool is_found;
};

static int find_over(void *userdata, const struct rotation_order *order) {
        struct over *over = userdata;
        struct due_time end;

        if (!moment_is_set(&order->paused) || is_paused(order, &over->turn->now, &end))
                return 0;
        over->order = *order;
        over->is_found = true;
        return 1;
}

int orders_tick(struct turn *turn) {
        struct over over = { .turn = turn };
        int r = order_each(turn->store, find_over, &over);

        /* One a tick: the next finds the next. */
        return r < 0 || !over.is_found ? r : end_pause(turn, &over.order, "the pause is over");
}

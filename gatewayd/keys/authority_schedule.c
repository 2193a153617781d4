/* SPDX-License-Identifier: Apache-2.0 */

/* When a CA generation gets its successor, when that one takes over, when the old one is over. Pure: the
 * generations and a moment in, one step out; authority.c carries the steps out.
 *
 * What only begins something (a successor) takes whichever clock says so first. What takes something away
 * (the old generation) counts calendar time only where the clock may be trusted, else powered-on time alone,
 * and an announcement lasts as long as devices could hear it: powered-on time. One fact is the calendar's whatever its quality: a CA that has run out cannot sign. */

#include "gatewayd/keys/authority_parts.h"

/* With less left than this the active generation signs nothing useful. */
#define SPENT_MOST_SEC 86400
/* Leaves run out by the calendar; how many are left is counted again this often. */
#define COUNT_AGAIN_SEC 86400

static int64_t add_capped(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t least(int64_t a, int64_t b) {
        return a < b ? a : b;
}

static void await(struct due_time *next, unix_sec wall, int64_t powered_sec) {
        next->wall = least(next->wall, wall);
        next->powered_sec = least(next->powered_sec, powered_sec);
}

static int64_t life_of(const struct authority *authority) {
        int64_t life = authority->not_after - authority->not_before;

        return life > 0 ? life : 1;
}

int64_t authority_spare_sec(const struct authority *authority) {
        return least(SPENT_MOST_SEC, life_of(authority) / 20);
}

bool authority_is_spent(const struct authority *authority, const struct moment *now) {
        return authority->not_after - now->wall <= authority_spare_sec(authority);
}

static ssize_t find(const struct authority_view *view, enum authority_state state) {
        for (size_t i = 0; i < view->count; i++)
                if (view->list[i].state == state)
                        return (ssize_t)i;
        return -1;
}

/* No leaf is left. Calendar time says so, and may be wrong: then the generation stays until as much powered-on
 * time has passed as its leaves could live at most. */
static bool may_end(const struct authority_view *view, size_t index, const struct moment *now, struct due_time *next) {
        const struct authority *authority = &view->list[index];
        int64_t longest = authority->not_after - authority->superseded.wall;

        if (view->leaves[index] == 0 &&
            (now->wall_trusted || moment_powered_age(now, &authority->superseded) >= longest))
                return true;
        await(next, add_capped(now->wall, COUNT_AGAIN_SEC), add_capped(now->powered_sec, COUNT_AGAIN_SEC));
        return false;
}

static bool may_activate(const struct authority_view *view, const struct authority *active, size_t index,
                         const struct ca_config *config, const struct moment *now, struct due_time *next) {
        const struct authority *announced = &view->list[index];
        int64_t announce_sec = view->announce_sec[index] >= 0 ? view->announce_sec[index] : config->announce_sec;

        /* While the gateway is switched off nobody hears of it: powered-on time alone counts. */
        if (!active || authority_is_spent(active, now) ||
            moment_powered_age(now, &announced->announced) >= announce_sec)
                return true;
        await(next, INT64_MAX, add_capped(announced->announced.powered_sec, announce_sec));
        await(next, active->not_after - authority_spare_sec(active), INT64_MAX);
        return false;
}

/* By the share of its life that is over, by either clock. While a jump of the clock is held nothing is lost by
 * waiting; at unknown quality the true time is later still. */
static bool is_successor_due(const struct authority *active, const struct ca_config *config, const struct moment *now,
                             struct due_time *next) {
        int64_t after = (int64_t)((double)life_of(active) * config->successor_at);
        unix_sec wall = add_capped(active->not_before, after);
        int64_t powered = add_capped(active->activated.powered_sec, after);
        bool is_held = !now->wall_trusted && now->quality != CLOCK_UNKNOWN;

        if (authority_is_spent(active, now) || now->powered_sec >= powered || (now->wall >= wall && !is_held))
                return true;
        await(next, wall, powered);
        return false;
}

int64_t authority_late_sec(const struct authority *active, const struct ca_config *config) {
        int64_t tenth = life_of(active) / 10;

        return config->announce_sec > tenth ? config->announce_sec : tenth;
}

static bool is_late(const struct authority_view *view, const struct authority *active, const struct ca_config *config,
                    const struct moment *now, struct due_time *next) {
        unix_sec from = active->not_after - authority_late_sec(active, config);

        if (view->is_late_told)
                return false;
        if (now->wall >= from)
                return true;
        await(next, from, INT64_MAX);
        return false;
}

struct authority_step authority_next(const struct authority_view *view, const struct ca_config *config,
                                     const struct moment *now) {
        struct authority_step step = { .action = AUTHORITY_WAIT, .next = { INT64_MAX, INT64_MAX } };
        ssize_t active_at = find(view, AUTHORITY_ACTIVE), announced_at = find(view, AUTHORITY_ANNOUNCED);
        const struct authority *active = active_at >= 0 ? &view->list[active_at] : NULL;

        for (size_t i = 0; i < view->count; i++)
                if (view->list[i].state == AUTHORITY_RETIRING && may_end(view, i, now, &step.next)) {
                        step.action = AUTHORITY_END;
                        step.index = i;
                        return step;
                }
        if (announced_at >= 0) {
                if (may_activate(view, active, (size_t)announced_at, config, now, &step.next)) {
                        step.action = AUTHORITY_ACTIVATE;
                        step.index = (size_t)announced_at;
                }
                return step;
        }
        if (!active)
                return step; /* none was ever made, or the first one's certificate is awaited */
        step.index = (size_t)active_at;
        if (find(view, AUTHORITY_REQUESTED) < 0 && !view->is_successor_asked &&
            is_successor_due(active, config, now, &step.next))
                step.action = AUTHORITY_MAKE_SUCCESSOR;
        else if (is_late(view, active, config, now, &step.next))
                step.action = AUTHORITY_TELL_LATE;
        return step;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The operators of the simulated fleet: now and then they rotate a profile or all, pause, resume; some profiles have
 * calendars. What the invariants may still demand of a device meanwhile is worked out here, from what was ordered. */

#include "tests/unit/support.h"

#include "tests/unit/fleet_world.h"

#include "gatewayd/devices/orders.h"

/* A tick comes every six hours: one of them at least in each window. */
#define WINDOW     "*-*-* 02:00 UTC"
#define WINDOW_SEC (8 * INT64_C(3600))
#define WEEKLY     "Sun *-*-* 03:00 UTC"

static struct calendar *calendar_of(const char *text) {
        struct calendar *calendar;
        char why[128];

        assert_int_equal(calendar_parse(text, &calendar, why), 0);
        return calendar;
}

void world_hire(struct world *w) {
        w->window = calendar_of(WINDOW);
        w->weekly = calendar_of(WEEKLY);
        w->f->profiles[FIXTURE_KEEP].rotate_at = w->weekly;
        for (int i = 0; i < FIXTURE_AUTOMATIC; i += FIXTURE_CERTIFIED) {
                w->f->profiles[i].maintenance = w->window;
                w->f->profiles[i].maintenance_sec = WINDOW_SEC;
        }
}

void world_dismiss(struct world *w) {
        calendar_free(w->window);
        calendar_free(w->weekly);
}

/* A profile, or all. */
static const char *scope(struct world *w) {
        size_t i = (size_t)world_random(w, FIXTURE_AUTOMATIC + 1);

        return i == FIXTURE_AUTOMATIC ? "" : w->f->profiles[i].name;
}

void world_operate(struct world *w) {
        struct problem problem = { 0 };
        int64_t days;
        int r = 0;

        if (!world_strikes(w, 40))
                return;
        w->f->turn.actor = "operator";
        days = 1 + (int64_t)world_random(w, 20);
        switch (world_random(w, 4)) {
        case 0:
                r = orders_rotate(&w->f->turn, scope(w), 0, &problem);
                break;
        case 1:
                r = orders_rotate(&w->f->turn, scope(w), days * FIXTURE_DAY, &problem);
                break;
        case 2:
                r = orders_pause(&w->f->turn, scope(w), days * FIXTURE_DAY, &problem);
                if (w->paused_until < w->f->turn.now.powered_sec + days * FIXTURE_DAY)
                        w->paused_until = w->f->turn.now.powered_sec + days * FIXTURE_DAY;
                break;
        case 3:
                r = orders_resume(&w->f->turn, scope(w), &problem);
                break;
        }
        if (r < 0)
                world_fail(w, NULL, "an order fails: %s", problem.detail);
        w->orders++;
        w->f->turn.actor = "device";
}

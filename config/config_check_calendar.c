/* SPDX-License-Identifier: Apache-2.0 */

/* What calendar expressions of a profile mean together with its intervals: a rotation by the calendar needs an interval
 * to fall back on, and a maintenance window must come often enough. */

#include "config/loader.h"

/* Gaps are looked for over five years from 2026 on, in at most so many elapses: what comes that often has no long
 * ones. */
#define LOOK_FROM INT64_C(1767225600)
#define LOOK_SEC  (5 * INT64_C(31557600))
#define LOOK_MOST 4000

static int64_t longest_gap(const struct calendar *calendar) {
        unix_sec before = calendar_next(calendar, LOOK_FROM);
        int64_t longest = before == INT64_MAX ? INT64_MAX : 0;

        for (int i = 0; i < LOOK_MOST && before < LOOK_FROM + LOOK_SEC; i++) {
                unix_sec next = calendar_next(calendar, before);

                if (next == INT64_MAX)
                        return INT64_MAX;
                if (next - before > longest)
                        longest = next - before;
                before = next;
        }
        return longest;
}

/* The interval that counts where the date is not known is a quarter longer than any gap, so that the calendar comes
 * first where it is. */
void derive_calendar(struct loader *loader, size_t i) {
        struct profile *p = &loader->config->profiles[i];
        int64_t gap;

        if (!p->rotate_at || p->credential != PROFILE_PSK || profile_has(loader, i, "rotate_every"))
                return;
        gap = longest_gap(p->rotate_at);
        if (gap < INT64_MAX / 5)
                p->rotate_every_sec = gap / 4 * 5;
}

void check_calendar(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];
        char span[64];
        int64_t gap;

        if (!SOUND("rotate_at", "maintenance", "maintenance_for"))
                return;
        if (p->maintenance && p->maintenance_sec == 0)
                loader_problem(loader, profile_place(loader, i, "maintenance"),
                               "maintenance says when a window begins; maintenance_for says how long it lasts, such as "
                               "\"4h\"");
        if (!p->maintenance && p->maintenance_sec > 0)
                loader_problem(
                        loader, profile_place(loader, i, "maintenance_for"),
                        "maintenance_for needs maintenance: when the window begins, such as \"Sat *-*-* 01:00\"");
        if (!p->maintenance || !SOUND("rotate_every", "max_age"))
                return;
        gap = longest_gap(p->maintenance);
        if (gap < INT64_MAX && p->rotate_every_sec + gap < p->max_age_sec)
                return;
        if (gap == INT64_MAX)
                snprintf(span, sizeof span, "for ever");
        else
                timespan_format(gap, span);
        if (p->on_overdue == OVERDUE_KEEP)
                loader_warning(loader, profile_place(loader, i, "maintenance"),
                               "no window for %s at a time: keys grow older than max_age", span);
        else
                loader_problem(loader, profile_place(loader, i, "maintenance"),
                               "no window for %s at a time: a key that is due after rotate_every would be past max_age "
                               "before one comes; let them come more often, or raise max_age",
                               span);
}

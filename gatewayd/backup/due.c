/* SPDX-License-Identifier: Apache-2.0 */

/* Whether it is time for a backup: the last one against the shortest rotation interval. */

#include "gatewayd/backup/due.h"

#define DAY_SEC 86400

static int64_t shortest_interval(const struct config *config) {
        int64_t shortest = 0;

        for (size_t i = 0; i < config->profile_count; i++) {
                int64_t every = config->profiles[i].rotate_every_sec;

                if (every > 0 && (shortest == 0 || every < shortest))
                        shortest = every;
        }
        return shortest;
}

static void span_text(int64_t seconds, char *to, size_t to_size) {
        if (seconds >= 2 * DAY_SEC)
                snprintf(to, to_size, "%lld days", (long long)(seconds / DAY_SEC));
        else if (seconds >= 7200)
                snprintf(to, to_size, "%lld hours", (long long)(seconds / 3600));
        else
                snprintf(to, to_size, "%lld minutes", (long long)(seconds / 60));
}

struct backup_age backup_age(const struct store_meta *meta, const struct config *config, const struct moment *now) {
        struct backup_age age = { .seconds = -1, .limit_sec = shortest_interval(config) };
        char is[32], limit[32];

        age.has_one = moment_is_set(&meta->backed_up);
        if (age.has_one)
                age.seconds = moment_age(now, &meta->backed_up);
        /* Without a backup the store's own age counts: powered-on time began with it. */
        age.is_old = age.limit_sec > 0 && (age.has_one ? age.seconds : now->powered_sec) > age.limit_sec;
        span_text(age.seconds, is, sizeof is);
        span_text(age.limit_sec, limit, sizeof limit);
        if (age.has_one)
                snprintf(age.text, sizeof age.text, "the last one is %s old; a profile rotates every %s", is, limit);
        else
                snprintf(age.text, sizeof age.text, "there is none; a profile rotates every %s", limit);
        return age;
}

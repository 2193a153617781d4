/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whether it is time for a backup. Pure. */

#include "config/config.h"
#include "store/store.h"

struct backup_age {
        bool has_one;      /* there is a backup, be it the one this store was restored from */
        bool is_old;       /* the last one (or where there is none, the store) is older than `limit_sec` */
        int64_t seconds;   /* how old; -1: there is none */
        int64_t limit_sec; /* the shortest rotate_every of all profiles; 0: there is no profile */
        char text[128];    /* for people */
};
/* A device that rotates twice after the last backup comes back to a restored gateway only with somebody's help: so a
 * backup is old once a device may have rotated once since. Ages by calendar where the clock allows it, and by
 * powered-on time, whichever is more. */
struct backup_age backup_age(const struct store_meta *meta, const struct config *config, const struct moment *now);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within rotation: when the newest key is due, and when its device may be called. Nobody else includes it. */

#include "gatewayd/keys/rotation.h"

/* When `tip` is due by either clock: at the end of its interval, when profile->rotate_at first elapses after its
 * issue, or when an operator wants it. */
struct due_time rotation_tip_due(const struct rotation_view *view, const struct credential *tip,
                                 const struct profile *profile, double spread);
/* Whether an operator has ordered a key issued after this one. */
bool rotation_is_ordered(const struct rotation_view *view, const struct credential *tip);
/* Whether a device may be called at `now` as far as its maintenance windows go; if not, *ret_opens is when the next
 * one begins. */
bool rotation_window_is_open(const struct profile *profile, const struct moment *now, unix_sec *ret_opens);

static inline int64_t rotation_add(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static inline int64_t rotation_least(int64_t a, int64_t b) {
        return a < b ? a : b;
}

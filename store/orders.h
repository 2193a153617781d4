/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What operators have ordered about rotation, for the devices of one profile or for all: one row each. What it
 * means for a device is gatewayd/keys/rotation.h's. */

#include "store/store.h"

struct rotation_order {
        char profile[65];     /* empty: all devices */
        struct moment asked;  /* devices whose newest key was issued before are due ...; unset: none was asked for */
        int64_t within_sec;   /* ... within that, spread over it; 0: at once */
        struct moment paused; /* no rotation is offered since ...; unset: they are */
        int64_t pause_sec;    /* ... for that long, by whichever clock says so first */
};

/* -ENOENT: nothing is ordered for it. */
int order_get(struct store *store, const char *profile, struct rotation_order *ret);
/* Replaces; one that orders nothing is removed. */
int order_put(struct store *store, const struct rotation_order *order);
typedef int (*order_visitor)(void *userdata, const struct rotation_order *order);
/* In order of profile. A visitor's non-zero result ends the walk and is returned. */
int order_each(struct store *store, order_visitor visit, void *userdata);

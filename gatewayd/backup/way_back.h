/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* After a restore: how a device that has not been seen since comes back. Pure. What it did between the backup and the
 * end of the lost gateway nobody knows; how often its key can have fallen due meanwhile, the profile says. */

#include "config/config.h"
#include "store/credentials.h"

enum way {
        WAY_KEY,         /* with the key the store knows, at its next session */
        WAY_SECOND_SLOT, /* so, or with it in its second slot, 24 h after its newest key first failed (PROTOCOL.md) */
        WAY_CERTIFICATE, /* with its certificate, also with one that was issued since (adopted) */
        WAY_BOOTSTRAP,   /* it was not provisioned yet: with its bootstrap credential */
        WAY_EVIDENCE,    /* with its bootstrap credential and affirming evidence */
        WAY_WINDOW,      /* with its bootstrap credential in a technician's window (gatewayctl device reset) */
        WAY_VISIT,       /* an operator must register it anew: the profile refuses its bootstrap credential */
        WAY_NONE,        /* revoked: it shall not */
};

struct way_back_view {
        const struct device *device;
        const struct credential *credentials; /* newest generation first, without destroyed ones */
        size_t count;
        const struct profile *profile; /* NULL: it is gone from the configuration */
        bool is_tip_ours;              /* its newest certificate is of a CA generation of this gateway's own */
        struct moment backup_of, restored;
};

struct way_back {
        enum way first;     /* what brings it back where it rotated as often as can be told */
        enum way otherwise; /* where it rotated twice or more; the same as `first`: nothing else is needed */
        unsigned rotations; /* how often its key can have been replaced since the backup, by schedule; 2: or more */
};
struct way_back way_back(const struct way_back_view *view);
/* One word: "key", "second-slot", … and a sentence's part, for people. */
const char *way_name(enum way way);
const char *way_text(enum way way, bool is_certificate);

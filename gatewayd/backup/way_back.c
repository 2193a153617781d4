/* SPDX-License-Identifier: Apache-2.0 */

/* How a device comes back to a restored gateway. Its two slots hold its newest key and the one before: so one rotation
 * since the backup costs it a day, two cost it the keys that this store knows. */

#include "gatewayd/backup/way_back.h"

#include "gatewayd/devices/lifecycle.h"

/* Whoever counts further finds no other way. */
#define ROTATIONS_MOST 2

static const struct credential *find_tip(const struct way_back_view *view) {
        for (size_t i = 0; i < view->count; i++)
                if (credential_is_operational(view->credentials[i].kind) && view->credentials[i].state == KEY_ACTIVE)
                        return &view->credentials[i];
        return NULL;
}

/* A key that was on its way: whoever took it up since is known all the same. */
static bool has_unproven(const struct way_back_view *view) {
        for (size_t i = 0; i < view->count; i++)
                if (view->credentials[i].state == KEY_PRE_ACTIVE)
                        return true;
        return false;
}

static const struct credential *find_bootstrap(const struct way_back_view *view) {
        for (size_t i = 0; i < view->count; i++)
                if (credential_is_bootstrap(view->credentials[i].kind))
                        return &view->credentials[i];
        return NULL;
}

/* When a key made at `issued` is due at the earliest. */
static unix_sec earliest_due(const struct profile *profile, unix_sec issued) {
        unix_sec due = issued + (unix_sec)((double)profile->rotate_every_sec * (1 - profile->jitter)), calendar;

        if (profile->rotate_at) {
                calendar = calendar_next(profile->rotate_at, issued);
                if (calendar < due)
                        due = calendar;
        }
        return due > issued ? due : issued + 1;
}

static unsigned count_rotations(const struct way_back_view *view, const struct credential *tip) {
        unix_sec from = view->backup_of.wall, due;
        unsigned count = 0;

        /* Between two clocks that did not know the time anything may have happened. */
        if (!view->restored.wall_trusted || view->backup_of.quality == CLOCK_UNKNOWN)
                return ROTATIONS_MOST;
        due = earliest_due(view->profile, tip->issued.wall);
        while (count < ROTATIONS_MOST && (due < from ? from : due) <= view->restored.wall &&
               from < view->restored.wall) {
                count++;
                due = earliest_due(view->profile, due < from ? from : due);
        }
        return count;
}

static enum way by_bootstrap(const struct way_back_view *view) {
        if (!find_bootstrap(view) || view->profile->on_factory_key == FACTORY_REFUSE)
                return WAY_VISIT;
        if (view->profile->on_factory_key == FACTORY_ATTEST && lifecycle_can_attest(view->device, view->profile))
                return WAY_EVIDENCE;
        return WAY_WINDOW;
}

static struct way_back same(enum way way) {
        return (struct way_back){ .first = way, .otherwise = way };
}

static struct way_back by_keys(const struct way_back_view *view, const struct credential *tip) {
        struct way_back way = { .rotations = count_rotations(view, tip), .otherwise = by_bootstrap(view) };
        unsigned known = has_unproven(view) ? 1 : 0;

        way.first = way.rotations <= known ? WAY_KEY : WAY_SECOND_SLOT;
        if (way.rotations < ROTATIONS_MOST)
                way.otherwise = way.first;
        return way;
}

struct way_back way_back(const struct way_back_view *view) {
        const struct credential *tip = find_tip(view), *bootstrap = find_bootstrap(view);

        if (view->device->standing == STANDING_REVOKED)
                return same(WAY_NONE);
        if (!view->profile)
                return same(WAY_VISIT);
        if (view->device->standing == STANDING_NEEDS_VISIT)
                return same(bootstrap && view->profile->on_factory_key != FACTORY_REFUSE ? WAY_WINDOW : WAY_VISIT);
        if (!tip && bootstrap && (bootstrap->state == KEY_ACTIVE || bootstrap->state == KEY_RETIRING))
                return same(WAY_BOOTSTRAP);
        if (!tip)
                return same(by_bootstrap(view));
        if (tip->kind == CREDENTIAL_LDEVID && view->is_tip_ours)
                return same(WAY_CERTIFICATE);
        return by_keys(view, tip);
}

const char *way_name(enum way way) {
        switch (way) {
        case WAY_KEY:
                return "key";
        case WAY_SECOND_SLOT:
                return "second-slot";
        case WAY_CERTIFICATE:
                return "certificate";
        case WAY_BOOTSTRAP:
                return "bootstrap";
        case WAY_EVIDENCE:
                return "evidence";
        case WAY_WINDOW:
                return "window";
        case WAY_VISIT:
                return "visit";
        case WAY_NONE:
                return "none";
        }
        return "unknown";
}

const char *way_text(enum way way, bool is_certificate) {
        switch (way) {
        case WAY_KEY:
                return "its key, at its next session";
        case WAY_SECOND_SLOT:
                return "its key; where it rotated once since the backup, its second slot, 24 h after its newest fails";
        case WAY_CERTIFICATE:
                return "its certificate, also one issued after the backup";
        case WAY_BOOTSTRAP:
                return is_certificate ? "enrols anew with its IDevID"
                                      : "its factory key; after a local act where it has used another since";
        case WAY_EVIDENCE:
                return is_certificate ? "enrols anew with its IDevID, after evidence"
                                      : "its factory key after a local act, with evidence";
        case WAY_WINDOW:
                return is_certificate ? "enrols anew with its IDevID in a technician's window (gatewayctl device reset)"
                                      : "its factory key in a technician's window (gatewayctl device reset)";
        case WAY_VISIT:
                return "needs a visit: to be registered anew";
        case WAY_NONE:
                return "revoked: it does not come back";
        }
        return "unknown";
}

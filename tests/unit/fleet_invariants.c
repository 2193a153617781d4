/* SPDX-License-Identifier: Apache-2.0 */

/* What must hold for every device after every step of the gateway, checked against the rows themselves and
 * not against what the code under test says about them. */

#include "tests/unit/support.h"

#include "tests/unit/fleet_world.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"

/* A tick comes every six hours; on top of a deadline that much may pass, and an hour of retry. */
#define SLACK_SEC (12 * INT64_C(3600))
#define ENDED_SEC (90 * FIXTURE_DAY)

static const struct credential *find(const struct credential *list, size_t count, const char *identity) {
        for (size_t i = 0; i < count; i++)
                if (strcmp(list[i].identity, identity) == 0)
                        return &list[i];
        return NULL;
}

/* ---- steps, from one look to the next ---- */

static void count_step(struct world *w, const struct credential *before, const struct credential *after) {
        enum key_state from = before ? before->state : KEY_PRE_ACTIVE;

        if (!before && credential_is_operational(after->kind))
                w->expected[EVENT_CREDENTIAL_ISSUED]++;
        if (credential_is_operational(after->kind) && from == KEY_PRE_ACTIVE && after->state == KEY_ACTIVE)
                w->expected[EVENT_CREDENTIAL_ACTIVATED]++;
        if (moment_is_set(&after->confirmed) && !(before && moment_is_set(&before->confirmed)))
                w->expected[EVENT_CREDENTIAL_CONFIRMED]++;
        if (from != KEY_DEACTIVATED && after->state == KEY_DEACTIVATED)
                w->expected[EVENT_CREDENTIAL_DEACTIVATED]++;
}

/* ---- one key ---- */

static void check_ended_certificate(struct world *w, struct world_device *d, const struct credential *c) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct certificate certificate;
        char reason[160];

        if (certificate_get(w->f->store, c->identity, &certificate) < 0 ||
            certificate_der(w->f->store, c->identity, &chain) < 0)
                world_fail(w, d->model.id, "the row of ended certificate %s is gone", c->identity);
        if (certificate.revoked == REVOKED_NOT)
                world_fail(w, d->model.id, "ended certificate %s is not revoked", c->identity);
        if (identity_certificate(&w->f->turn, buffer_bytes(&chain), reason) == CERTIFICATE_ACCEPTED)
                world_fail(w, d->model.id, "ended certificate %s still shakes hands", c->identity);
}

/* A certificate with which its device may have to come is not revoked. */
static void check_certificate(struct world *w, struct world_device *d, const struct credential *c) {
        struct certificate certificate;

        if (c->kind != CREDENTIAL_LDEVID || c->state > KEY_RETIRING)
                return;
        if (certificate_get(w->f->store, c->identity, &certificate) < 0)
                world_fail(w, d->model.id, "%s certificate %s has no row", key_state_name(c->state), c->identity);
        if (certificate.revoked != REVOKED_NOT)
                world_fail(w, d->model.id, "%s certificate %s is revoked", key_state_name(c->state), c->identity);
}

/* Once, when it has just ended. */
static void check_ended(struct world *w, struct world_device *d, const struct credential *c) {
        struct secret secret = { 0 };
        struct credential found;
        char reason[160];

        if (credential_is_bootstrap(c->kind))
                return;
        if (c->kind == CREDENTIAL_LDEVID) {
                check_ended_certificate(w, d, c);
                return;
        }
        if (credential_secret(w->f->store, c->identity, &secret) != -ENOENT)
                world_fail(w, d->model.id, "the secret of ended key %s is still there", c->identity);
        if (identity_key(&w->f->turn, bytes_of(c->identity), true, &found, &secret, reason) != -EACCES)
                world_fail(w, d->model.id, "ended key %s still shakes hands", c->identity);
}

/* When a key ends: never before its time by the clock that counts, and never before its successor was
 * confirmed, unless evidence has just decided whose key is the device's. */
static void check_ending(struct world *w, struct world_device *d, const struct credential *before,
                         const struct credential *after, const struct credential *tip) {
        const struct profile *profile = &w->f->profiles[d->profile];
        bool is_old = moment_is_set(&before->superseded) &&
                      moment_age(&after->ended, &before->superseded) >= profile->grace_sec;
        bool is_decided = profile->attestation != ATTESTATION_NONE && credential_is_operational(before->kind) && tip &&
                          tip->proven.powered_sec == after->ended.powered_sec;

        if (!is_decided && (!is_old || !tip || !moment_is_set(&tip->confirmed)))
                world_fail(w, d->model.id, "key %s ended before its time", after->identity);
}

static void check_key(struct world *w, struct world_device *d, const struct credential *c, const struct credential *tip,
                      bool is_awaited) {
        const struct profile *profile = &w->f->profiles[d->profile];
        const struct moment *now = &w->f->turn.now;

        switch (c->state) {
        case KEY_PRE_ACTIVE:
                if (tip && tip->proven.powered_sec > c->issued.powered_sec)
                        world_fail(w, d->model.id, "key %s survived the proof of another", c->identity);
                break;
        case KEY_RETIRING:
                if (tip && moment_is_set(&tip->confirmed) && !is_awaited &&
                    moment_powered_age(now, &c->superseded) > profile->grace_sec + SLACK_SEC &&
                    moment_powered_age(now, &tip->confirmed) > SLACK_SEC)
                        world_fail(w, d->model.id, "retiring key %s lives past its grace", c->identity);
                break;
        case KEY_DEACTIVATED:
                if (credential_is_operational(c->kind) && moment_powered_age(now, &c->ended) > ENDED_SEC + SLACK_SEC)
                        world_fail(w, d->model.id, "the row of key %s outlived its retention", c->identity);
                break;
        case KEY_ACTIVE:
        case KEY_COMPROMISED:
        case KEY_DESTROYED:
                break;
        }
}

/* ---- one device ---- */

/* How long after its time a device may go uncalled: to the next window, where there are any. */
static int64_t call_slack(const struct profile *profile) {
        return profile->maintenance ? SLACK_SEC + 2 * FIXTURE_DAY : SLACK_SEC;
}

static void check_newest(struct world *w, struct world_device *d, const struct device *row,
                         const struct credential *tip) {
        const struct profile *profile = &w->f->profiles[d->profile];
        int64_t powered = moment_powered_age(&w->f->turn.now, &tip->issued);
        bool is_overdue = row->standing == STANDING_RESTRICTED || row->standing == STANDING_QUARANTINED;
        bool is_paused = w->f->turn.now.powered_sec < w->paused_until + call_slack(profile);

        if (powered > profile->rotate_every_sec + call_slack(profile) && !is_paused && !(row->due & DUE_ROTATE))
                world_fail(w, row->id, "rotation is due and was never announced");
        if (powered > profile->max_age_sec + SLACK_SEC && profile->on_overdue != OVERDUE_KEEP && !is_overdue &&
            !is_paused)
                world_fail(w, row->id, "key %s is used past max_age", tip->identity);
        /* No jump of the calendar restricts anybody while it is held. */
        if (row->standing == STANDING_RESTRICTED && !d->was_restricted && !w->f->turn.now.wall_trusted &&
            powered < profile->max_age_sec)
                world_fail(w, row->id, "a clock that is not trusted restricted the device");
        d->was_restricted = row->standing == STANDING_RESTRICTED;
}

/* Returns the newest active key. */
static const struct credential *check_device(struct world *w, struct world_device *d, const struct credential *list,
                                             size_t count) {
        const struct credential *tip = NULL;
        size_t active = 0, unproven = 0;
        struct device row;

        if (device_get(w->f->store, bytes_of(d->model.id), &row) < 0)
                world_fail(w, d->model.id, "the device's row is gone");
        for (size_t i = 0; i < count; i++) {
                unproven += list[i].state == KEY_PRE_ACTIVE;
                if (credential_is_operational(list[i].kind) && list[i].state == KEY_ACTIVE) {
                        active++;
                        tip = &list[i];
                }
        }
        if (active > 1 || unproven > 4 || count > CREDENTIALS_MAX)
                world_fail(w, d->model.id, "%zu active, %zu unproven, %zu rows", active, unproven, count);
        if (row.generation > 0 && row.standing == STANDING_OPERATIONAL && !tip)
                world_fail(w, d->model.id, "operational without an active key");
        for (size_t i = 0; i < count; i++) {
                bool is_awaited = false;

                for (size_t j = 0; j < count; j++)
                        is_awaited |=
                                list[j].state == KEY_PRE_ACTIVE && strcmp(list[j].predecessor, list[i].identity) == 0;
                check_key(w, d, &list[i], tip, is_awaited);
                check_certificate(w, d, &list[i]);
        }
        if (tip)
                check_newest(w, d, &row, tip);
        return tip;
}

void world_look(struct world *w, struct world_device *d) {
        struct credential list[CREDENTIALS_MAX + 1];
        ssize_t n = credential_list(w->f->store, d->model.id, list, ELEMENTS(list));
        const struct credential *tip;

        if (n < 0)
                world_fail(w, d->model.id, "its keys cannot be read: %s", strerror((int)-n));
        tip = check_device(w, d, list, (size_t)n);
        for (ssize_t i = 0; i < n; i++) {
                const struct credential *before = find(d->shadow, d->shadow_count, list[i].identity);

                count_step(w, before, &list[i]);
                if (before && before->state != KEY_DEACTIVATED && list[i].state == KEY_DEACTIVATED) {
                        check_ending(w, d, before, &list[i], tip);
                        check_ended(w, d, &list[i]);
                }
        }
        for (size_t i = 0; i < d->shadow_count; i++)
                w->expected[EVENT_CREDENTIAL_DESTROYED] += !find(list, (size_t)n, d->shadow[i].identity);
        memcpy(d->shadow, list, (size_t)n * sizeof list[0]);
        d->shadow_count = (size_t)n;
}

/* ---- the audit table ---- */

static int count_row(void *userdata, const struct audit_row *row) {
        uint64_t *counts = userdata;

        counts[row->kind]++;
        return 0;
}

void world_check_audit(struct world *w) {
        static const enum event_kind kinds[] = {
                EVENT_CREDENTIAL_ISSUED,      EVENT_CREDENTIAL_ACTIVATED, EVENT_CREDENTIAL_CONFIRMED,
                EVENT_CREDENTIAL_DEACTIVATED, EVENT_CREDENTIAL_DESTROYED,
        };
        uint64_t counts[EVENT_KINDS] = { 0 }, bad = 0;

        if (audit_each(w->f->store, NULL, 0, SIZE_MAX, count_row, counts) < 0)
                world_fail(w, NULL, "the audit table cannot be read");
        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                if (counts[kinds[i]] != w->expected[kinds[i]])
                        world_fail(w, NULL, "%s: %llu rows in the audit table, %llu steps in the keys",
                                   event_name(kinds[i]), (unsigned long long)counts[kinds[i]],
                                   (unsigned long long)w->expected[kinds[i]]);
        if (audit_verify(w->f->store, &bad) < 0)
                world_fail(w, NULL, "the audit chain is broken at row %llu", (unsigned long long)bad);
        w->conflicts = counts[EVENT_CREDENTIAL_CONFLICT];
}

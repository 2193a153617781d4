/* SPDX-License-Identifier: Apache-2.0 */

/* The generations of the issuing CA in the store: which is in which state, and what is due. How one is made:
 * authority_make.c; what it signs: authority_issue.c, authority_crl.c, authority_server.c. */

#include <errno.h>
#include <time.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/keys/registrar.h"

/* Between two looks at the latest, in powered-on seconds, and after a step that failed. */
#define LOOK_AGAIN_SEC 3600
#define RETRY_SEC      30
/* More steps than this cannot be due at one moment. */
#define STEPS_MAX 16

void authority_day(unix_sec when, char to[32]) {
        time_t t = (time_t)when;
        struct tm parts;

        if (!gmtime_r(&t, &parts) || strftime(to, 32, "%Y-%m-%d", &parts) == 0)
                snprintf(to, 32, "@%lld", (long long)when);
}

int authority_find(struct turn *turn, enum authority_state state, struct authority *ret) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        for (ssize_t i = 0; i < n; i++)
                if (list[i].state == state) {
                        *ret = list[i];
                        return 0;
                }
        return n < 0 ? (int)n : -ENOENT;
}

X509 *authority_certificate(struct turn *turn, uint32_t generation) {
        _cleanup_(buffer_free) struct buffer der = { 0 };

        if (authority_read(turn->store, generation, AUTHORITY_CERTIFICATE, &der) < 0)
                return NULL;
        return x509_read(buffer_bytes(&der));
}

int64_t authority_newest(struct turn *turn) {
        struct authority list[2];
        ssize_t n = authority_list(turn->store, list, ELEMENTS(list));

        /* Newest first; before the announced or active one there can only be a request. */
        for (ssize_t i = 0; i < n; i++)
                if (list[i].state == AUTHORITY_ANNOUNCED || list[i].state == AUTHORITY_ACTIVE)
                        return list[i].generation;
        return n < 0 ? n : 0;
}

bool authority_is_in_force(struct turn *turn, uint32_t generation) {
        struct authority authority;

        return authority_get(turn->store, generation, &authority) >= 0 && authority.state != AUTHORITY_REQUESTED &&
               authority.state != AUTHORITY_ENDED;
}

/* ---- what is due of the generations ---- */

/* An expired certificate may still renew until its profile's max_age: its CA must be there to check it. */
static int64_t longest_renewal(const struct config *config) {
        int64_t longest = 0;

        for (size_t i = 0; i < config->profile_count; i++) {
                const struct profile *profile = &config->profiles[i];
                int64_t after = profile->max_age_sec - profile->validity_sec;

                if (profile->credential == PROFILE_CERTIFICATE && after > longest)
                        longest = after;
        }
        return longest;
}

static int found_one(void *userdata, const struct certificate *certificate) {
        (void)userdata;
        (void)certificate;
        return 1;
}

/* Those that may still be shown, and, as one, those that its CRL must name. */
static int64_t count_leaves(struct turn *turn, const struct authority *authority) {
        unix_sec since = turn->now.wall - longest_renewal(turn->config);
        int64_t count = certificate_count(turn->store, authority->generation, since, NULL);
        int r;

        if (count != 0)
                return count;
        r = certificate_each_revoked(turn->store, authority->generation, turn->now.wall, found_one, NULL);
        return r;
}

static int read_view(struct turn *turn, struct authority list[AUTHORITIES_MAX], struct authority_view *ret) {
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        *ret = (struct authority_view){
                .list = list,
                .is_late_told = turn->issuer->is_late_told,
                .is_successor_asked = turn->issuer->is_successor_asked,
        };
        for (ssize_t i = 0; i < n; i++) {
                ret->leaves[i] = list[i].state == AUTHORITY_RETIRING ? count_leaves(turn, &list[i]) : 0;
                ret->announce_sec[i] =
                        list[i].state == AUTHORITY_ANNOUNCED ? authority_announce_sec(turn, list[i].generation) : -1;
                if (ret->leaves[i] < 0)
                        return (int)ret->leaves[i];
        }
        ret->count = n < 0 ? 0 : (size_t)n;
        return n < 0 ? (int)n : 0;
}

static int make_successor(struct turn *turn, const struct authority *active) {
        if (key_is_sealed(active->key_uri))
                return authority_make_successor(turn, active, NULL, -1, NULL);
        /* Where keys are kept in a token none may come to lie in the store unasked. */
        turn->issuer->is_successor_asked = true;
        return turn_event(turn, EVENT_CA_REQUEST, NULL, NULL,
                          "generation %u needs a successor with a key of its own: gatewayctl ca %s --key URI",
                          active->generation, active->is_root ? "roll" : "csr");
}

static int activate(struct turn *turn, struct authority *successor) {
        struct problem ignored = { 0 }; /* the key's absence is told by authority_keys_tell() */
        struct x509_signer signer;
        struct authority active;
        int r, has_active;

        has_active = authority_find(turn, AUTHORITY_ACTIVE, &active);
        if (has_active < 0 && has_active != -ENOENT)
                return has_active;
        r = authority_signer(turn, successor, &signer, &ignored);
        /* A CA that cannot sign takes over from none that still can. */
        if (r < 0 && (r != -EAGAIN || (has_active == 0 && !authority_is_spent(&active, &turn->now))))
                return r;
        if (has_active == 0) {
                active.state = AUTHORITY_RETIRING;
                active.superseded = turn->now;
                r = authority_update(turn->store, &active);
                if (r < 0)
                        return r;
        }
        successor->state = AUTHORITY_ACTIVE;
        successor->activated = turn->now;
        successor->crl_is_stale = true;
        turn->issuer->has_stale_crl = true;
        turn->issuer->is_late_told = turn->issuer->is_successor_asked = false;
        r = authority_update(turn->store, successor);
        if (r < 0)
                return r;
        return turn_event(turn, EVENT_CA_SWITCHED, NULL, NULL, "generation %u", successor->generation);
}

static int end(struct turn *turn, struct authority *authority) {
        int r = authority_key_wipe(turn, authority);

        authority_signer_forget(turn, authority->generation);
        authority->state = AUTHORITY_ENDED;
        authority->ended = turn->now;
        if (r >= 0)
                r = authority_update(turn->store, authority);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_CRL, NULL, NULL);
        return turn_event(turn, EVENT_CA_ENDED, NULL, NULL, "generation %u: its last leaf is gone",
                          authority->generation);
}

static int tell_late(struct turn *turn, const struct authority *active) {
        char day[32];

        turn->issuer->is_late_told = true;
        authority_day(active->not_after, day);
        return turn_event(turn, EVENT_CA_LATE, NULL, NULL, "generation %u ends on %s; %s", active->generation, day,
                          active->is_root ? "gatewayctl ca roll" : "gatewayctl ca csr, then ca import");
}

static int carry_out(struct turn *turn, struct authority *list, const struct authority_step *step) {
        switch (step->action) {
        case AUTHORITY_WAIT:
                return 0;
        case AUTHORITY_MAKE_SUCCESSOR:
                return make_successor(turn, &list[step->index]);
        case AUTHORITY_ACTIVATE:
                return activate(turn, &list[step->index]);
        case AUTHORITY_END:
                return end(turn, &list[step->index]);
        case AUTHORITY_TELL_LATE:
                return tell_late(turn, &list[step->index]);
        }
        return -EINVAL;
}

static int look_generations(struct turn *turn, struct due_time *next) {
        struct authority list[AUTHORITIES_MAX];

        for (int i = 0; i < STEPS_MAX; i++) {
                struct authority_view view;
                struct authority_step step;
                int r = read_view(turn, list, &view);

                if (r < 0)
                        return r;
                step = authority_next(&view, &turn->config->ca, &turn->now);
                if (step.action == AUTHORITY_WAIT) {
                        *next = step.next;
                        return 0;
                }
                r = carry_out(turn, list, &step);
                if (r == -EAGAIN) { /* a key is away; the step has changed nothing */
                        next->powered_sec = turn->now.powered_sec + RETRY_SEC;
                        return 0;
                }
                turn->issuer->is_dirty = true;
                if (r < 0)
                        return r;
        }
        return -ELOOP;
}

/* The owner's PKI is asked over the uplink where the configuration says so. */
static int look_request(struct turn *turn, struct due_time *next) {
        struct authority waiting;
        int r;

        (void)next;
        if (!turn->config->north.est_renews_ca)
                return 0;
        r = authority_find(turn, AUTHORITY_REQUESTED, &waiting);
        if (r >= 0)
                r = registrar_ask_authority(turn);
        return r == -ENOENT ? 0 : r;
}

static int look_server(struct turn *turn, struct due_time *next) {
        unix_sec wall = INT64_MAX;
        int r = authority_server_renew(turn, &wall);

        /* What is due and could not be done is tried again later, not at each tick. */
        if (wall > turn->now.wall)
                next->wall = wall;
        return r;
}

/* A CRL is made anew at half of its time. */
static int look_crls(struct turn *turn, struct due_time *next) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        for (ssize_t i = 0; i < n; i++) {
                unix_sec due = list[i].crl_next_update - turn->config->ca.crl_validity_sec / 2;

                if (list[i].state != AUTHORITY_ACTIVE && list[i].state != AUTHORITY_RETIRING)
                        continue;
                if (list[i].crl_is_stale && turn->now.powered_sec < turn->issuer->gather_until)
                        next->powered_sec = turn->issuer->gather_until;
                else if (list[i].crl_is_stale)
                        turn->issuer->has_stale_crl = true;
                else if (turn->now.wall >= due) {
                        int r;

                        list[i].crl_is_stale = turn->issuer->has_stale_crl = true;
                        r = authority_update(turn->store, &list[i]);
                        if (r < 0)
                                return r;
                } else if (due < next->wall)
                        next->wall = due;
        }
        return n < 0 ? (int)n : authority_crls_write(turn);
}

/* ---- the tick ---- */

static bool is_due(const struct issuer *issuer, const struct turn *turn) {
        return issuer->is_dirty || issuer->config != turn->config || turn->now.wall >= issuer->next.wall ||
               turn->now.powered_sec >= issuer->next.powered_sec;
}

/* One subject's trouble must not hold up the others: what it did is taken back and it is tried later. */
static int look_at(struct turn *turn, int (*look)(struct turn *turn, struct due_time *next), struct due_time *next) {
        size_t mark = turn_mark(turn);
        int r = store_savepoint(turn->store);

        if (r < 0)
                return r;
        r = look(turn, next);
        if (r >= 0)
                return store_savepoint_release(turn->store);
        turn_rewind(turn, mark);
        if (store_savepoint_rollback(turn->store) < 0 || store_error_passes(r) || r == -EIO)
                return r;
        next->powered_sec = turn->now.powered_sec + RETRY_SEC;
        return r == -EAGAIN ? 0 : r;
}

/* A key that is away comes back by itself, also while nobody wants a signature. */
static void try_again(struct turn *turn, struct issuer_slot *slot, struct due_time *next) {
        struct problem ignored = { 0 }; /* that it is still away was told */
        struct authority authority;
        struct x509_signer signer;

        if (slot->is_away && authority_get(turn->store, slot->generation, &authority) >= 0)
                (void)authority_signer(turn, &authority, &signer, &ignored);
        if (slot->is_away && slot->retry_powered_sec < next->powered_sec)
                next->powered_sec = slot->retry_powered_sec;
}

void authority_turn_dropped(struct issuer *issuer) {
        if (!issuer)
                return;
        issuer->is_dirty = issuer->has_stale_crl = true;
        issuer->gather_until = 0;
        issuer->is_late_told = issuer->is_successor_asked = false;
        for (size_t i = 0; i < ELEMENTS(issuer->slots); i++)
                if (issuer->slots[i].is_away)
                        issuer->slots[i].is_told = false;
}

struct due_time authority_next_look(const struct issuer *issuer) {
        if (!issuer)
                return (struct due_time){ INT64_MAX, INT64_MAX };
        return issuer->is_dirty ? (struct due_time){ 0, 0 } : issuer->next;
}

int authority_tick(struct turn *turn) {
        static int (*const looks[])(struct turn *, struct due_time *) = { look_generations, look_request, look_server,
                                                                          look_crls };
        struct due_time next = { INT64_MAX, INT64_MAX };
        struct issuer *issuer = turn->issuer;
        int first = 0, r;

        if (!issuer || !is_due(issuer, turn))
                return 0;
        issuer->is_dirty = false;
        issuer->config = turn->config;
        for (size_t i = 0; i < ELEMENTS(looks); i++) {
                struct due_time due = { INT64_MAX, INT64_MAX };

                r = look_at(turn, looks[i], &due);
                if (r < 0 && first == 0)
                        first = r;
                if (due.wall < next.wall)
                        next.wall = due.wall;
                if (due.powered_sec < next.powered_sec)
                        next.powered_sec = due.powered_sec;
        }
        for (size_t i = 0; i < ELEMENTS(issuer->slots); i++)
                try_again(turn, &issuer->slots[i], &next);
        r = authority_keys_tell(turn);
        if (turn->now.powered_sec + LOOK_AGAIN_SEC < next.powered_sec)
                next.powered_sec = turn->now.powered_sec + LOOK_AGAIN_SEC;
        issuer->next = next;
        return first < 0 ? first : r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The world of the fleet's property test: see fleet_world.h. Every step of the gateway is one transaction;
 * a crash before its commit loses it, a crash after it loses the answer. */

#include "tests/unit/support.h"

#include "tests/unit/fleet_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/orders.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/keys/authority.h"

#define TICK_SEC         (6 * INT64_C(3600))
#define RETRY_SEC        3600
#define TICK_LIMIT       32
#define CLOCK_RECORD_SEC 3600
#define TRIM_EVERY_SEC   (7 * FIXTURE_DAY)
#define TRIM_AFTER_SEC   (200 * FIXTURE_DAY)

/* ---- chance ---- */

uint64_t world_random(struct world *w, uint64_t below) {
        uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (z ^ (z >> 31)) % below;
}

bool world_strikes(struct world *w, uint64_t once_in) {
        return !w->is_calm && world_random(w, once_in) == 0;
}

_Noreturn void world_fail(const struct world *w, const char *device, const char *format, ...) {
        char text[256];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        print_error("FLEET_SEED=%llu, day %.3f, device %s: %s\n", (unsigned long long)w->seed,
                    (double)(w->now - FIXTURE_START) / (double)FIXTURE_DAY, device ? device : "-", text);
        fail();
        abort();
}

/* ---- the gateway's clocks and its life ---- */

static void read_clocks(struct world *w) {
        struct clock_reading reading = {
                .wall = w->now + w->wall_offset,
                .boottime_sec = w->now - w->boot_at,
                .is_synchronized = w->is_synchronized,
        };

        snprintf(reading.boot_id, sizeof reading.boot_id, "boot %u", w->boots);
        w->f->turn.now = clock_advance(&w->clock, &reading);
}

static void open_store(struct world *w) {
        static const uint8_t sealing_key[32] = "a key-encryption key for tests!";
        struct store_options options = {
                .path = w->path,
                .key_encryption_key = BYTES(sealing_key, 32),
                .in_memory = !w->path,
        };

        if (store_open(&options, &w->f->store, &w->f->problem) < 0)
                world_fail(w, NULL, "the store does not open: %s", w->f->problem.detail);
        w->f->turn.store = w->f->store;
}

static void start_issuer(struct world *w) {
        (void)issuer_free(w->f->turn.issuer);
        w->f->turn.issuer = issuer_new();
        if (issuer_open(w->f->turn.issuer, &w->f->turn) < 0)
                world_fail(w, NULL, "the CA does not open");
        w->is_rescheduling = true;
}

/* What is in memory is gone, and what was not committed. */
static void start_core(struct world *w) {
        struct store_meta meta;

        store_rollback(w->f->store);
        turn_clear(&w->f->turn);
        if (w->path) {
                store_closep(&w->f->store);
                open_store(w);
        }
        for (size_t i = 0; i < w->device_count; i++)
                w->devices[i].has_session = false;
        if (store_meta_get(w->f->store, &meta) < 0 || credential_forget_sessions(w->f->store) < 0 ||
            store_commit(w->f->store, NULL) < 0)
                world_fail(w, NULL, "core does not start");
        w->clock = meta.clock;
        read_clocks(w);
        start_issuer(w);
        w->is_rescheduling = orders_standing(&w->f->turn) > 0; /* as core does */
}

static void crash(struct world *w) {
        w->crashes++;
        start_core(w);
}

static struct world_device *find_device(struct world *w, const char *id) {
        /* "device-17" is devices[17]. */
        size_t number = (size_t)strtoul(id + strlen("device-"), NULL, 10);

        return &w->devices[number];
}

static bool is_on(struct world *w) {
        return w->now >= w->off_until;
}

enum fate { ANSWERED, LOST };

/* Commits what the gateway did, or crashes on one side of the commit; looks at every device concerned. */
static enum fate settle(struct world *w) {
        struct turn *turn = &w->f->turn;
        char ids[2 * TICK_LIMIT][DEVICE_ID_MAX + 1];
        size_t count = 0;

        if (w->now - w->clock_recorded >= CLOCK_RECORD_SEC) {
                if (store_meta_set_clock(w->f->store, &w->clock) < 0)
                        world_fail(w, NULL, "the clock cannot be recorded");
                w->clock_recorded = w->now;
        }
        if (authority_crls_write(turn) < 0)
                world_fail(w, NULL, "the CRLs cannot be made");
        if (world_strikes(w, 150)) {
                crash(w);
                return LOST;
        }
        if (store_commit(w->f->store, NULL) < 0)
                world_fail(w, NULL, "a turn does not commit");
        for (size_t i = 0; i < turn->effect_count; i++) {
                const char *id = turn->effects[i].event.device;

                w->is_rescheduling |= turn->effects[i].kind == EFFECT_RESCHEDULE;
                if (id[0] == '\0' || (count > 0 && strcmp(ids[count - 1], id) == 0) || count == ELEMENTS(ids))
                        continue;
                memcpy(ids[count++], id, sizeof ids[0]);
        }
        turn_clear(turn);
        for (size_t i = 0; i < count; i++)
                world_look(w, find_device(w, ids[i]));
        if (world_strikes(w, 150)) {
                crash(w);
                return LOST;
        }
        return ANSWERED;
}

/* What core does after EFFECT_RESCHEDULE, all at once. */
static void reschedule(struct world *w) {
        if (!w->is_rescheduling)
                return;
        w->is_rescheduling = false;
        for (size_t i = 0; i < w->device_count; i++) {
                struct device row = fixture_device(w->f, w->devices[i].model.id);

                if (schedule_device(&w->f->turn, &row) < 0)
                        world_fail(w, row.id, "cannot be scheduled");
                if (i % TICK_LIMIT == TICK_LIMIT - 1 && settle(w) == LOST)
                        return; /* begins anew */
        }
        (void)settle(w);
}

static void tick_authority(struct world *w) {
        if (authority_tick(&w->f->turn) < 0)
                world_fail(w, NULL, "the CA's tick fails");
        if (w->f->turn.now.wall > w->trimmed + TRIM_EVERY_SEC) {
                if (certificate_trim(w->f->store, w->f->turn.now.wall - TRIM_AFTER_SEC, 64) < 0)
                        world_fail(w, NULL, "certificates cannot be trimmed");
                w->trimmed = w->f->turn.now.wall;
        }
        (void)settle(w);
        reschedule(w);
}

static void tick(struct world *w) {
        int n;

        if (!is_on(w))
                return;
        read_clocks(w);
        world_operate(w);
        (void)settle(w);
        reschedule(w);
        w->f->turn.actor = "schedule";
        if (w->ticks++ % 4 == 0) /* a look at the CA costs more than one at a device, and nothing of it hurries */
                tick_authority(w);
        do {
                n = schedule_tick(&w->f->turn, TICK_LIMIT);
                if (n < 0)
                        world_fail(w, NULL, "the tick fails: %s", strerror(-n));
                (void)settle(w);
        } while (n == TICK_LIMIT);
        w->f->turn.actor = "device";
}

/* ---- the air ---- */

/* What the client of a certificate sends; 0 or -ENOENT, when its row was trimmed. */
static int load_chain(struct world *w, const struct world_device *d, const struct model_key *key, struct buffer *ret) {
        if (strcmp(key->identity, d->model.id) != 0)
                return certificate_der(w->f->store, key->identity, ret);
        buffer_append(ret, buffer_bytes(&d->idevid));
        return 0;
}

/* South's question. */
static enum model_outcome question_certificate(struct world *w, const struct buffer *chain, struct moment *ret) {
        char reason[160] = "";

        *ret = identity_certificate_superseded(&w->f->turn, buffer_bytes(chain));
        return identity_certificate(&w->f->turn, buffer_bytes(chain), reason) == CERTIFICATE_ACCEPTED ? MODEL_CONNECTED
                                                                                                      : MODEL_REFUSED;
}

static enum model_outcome question_psk(struct world *w, const struct model_key *key, struct moment *ret) {
        _cleanup_(secret_wipe) struct secret secret = { 0 };
        struct credential credential;
        char reason[160] = "";
        int r = identity_key(&w->f->turn, bytes_of(key->identity), true, &credential, &secret, reason);

        if (r == -ENOENT || r == -EACCES)
                return MODEL_REFUSED;
        if (r < 0)
                world_fail(w, NULL, "identity_key: %s", reason);
        *ret = credential.superseded;
        return secret_equal(&secret, &key->key) ? MODEL_CONNECTED : MODEL_SILENT; /* its Finished does not verify */
}

/* One handshake with somebody's key; `loses` false for a thief, whose packets all arrive. */
static enum model_outcome handshake(struct world *w, const struct world_device *d, const struct model_key *key,
                                    bool loses, struct identity *ret) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        enum model_outcome outcome;
        struct moment superseded;
        bool is_before;
        int r;

        if (!is_on(w) || (loses && world_strikes(w, 12)))
                return MODEL_SILENT;
        read_clocks(w);
        if (world_is_certified(d) && load_chain(w, d, key, &chain) < 0)
                return MODEL_REFUSED;
        outcome = world_is_certified(d) ? question_certificate(w, &chain, &superseded)
                                        : question_psk(w, key, &superseded);
        if (outcome != MODEL_CONNECTED)
                return outcome;
        if (loses && world_strikes(w, 20))
                return MODEL_SILENT; /* its Finished is lost */
        *ret = (struct identity){ .session = w->next_session++ };
        is_before = w->f->turn.now.powered_sec <= superseded.powered_sec;
        r = world_is_certified(d) ? identity_certificate_connected(&w->f->turn, buffer_bytes(&chain), is_before, ret)
                                  : identity_connected(&w->f->turn, bytes_of(key->identity), true, is_before, ret);
        if (r < 0)
                world_fail(w, d->model.id, "a handshake just begun cannot end: %s", strerror(-r));
        w->handshakes++;
        /* South's Finished leaves without waiting for core: the device may see success although core lost it. */
        if (settle(w) == LOST && world_random(w, 2) == 0)
                return MODEL_SILENT;
        return loses && world_strikes(w, 20) ? MODEL_SILENT : MODEL_CONNECTED;
}

/* A request on an open session. -1: no answer. `csr` empty: no body. */
static int request(struct world *w, struct identity *from, uint8_t method, const char *path, struct bytes csr,
                   struct reply *reply, bool loses) {
        const struct moment connected = w->f->turn.now;

        if (!is_on(w) || (loses && world_strikes(w, 15)))
                return -1;
        read_clocks(w);
        if (identity_refresh(&w->f->turn, from, &connected) < 0)
                return -1;
        if (csr.size > 0)
                (void)fixture_post(w->f, from, path, FORMAT_PKCS10, FORMAT_PKIX_CERT, csr, reply);
        else
                (void)fixture_request(w->f, from, method, path, FORMAT_NONE, csr, reply);
        if (settle(w) == LOST || (loses && world_strikes(w, 15)))
                return -1;
        return reply->code;
}

/* Asks for the next credential: a PSK, or a certificate for `csr`. Returns the code, or -1. */
static int ask(struct world *w, const struct world_device *d, struct identity *from, struct bytes csr, bool loses,
               struct model_key *ret) {
        bool is_renewal = from->credential.kind == CREDENTIAL_LDEVID && from->credential.state != KEY_COMPROMISED;
        struct reply reply = { 0 };
        int code;

        *ret = (struct model_key){ 0 };
        if (!world_is_certified(d)) {
                code = request(w, from, CODE_POST, "cred", BYTES(NULL, 0), &reply, loses);
                if (code == CODE_CHANGED)
                        fixture_grant(buffer_bytes(&reply.payload), ret->identity, &ret->key);
        } else {
                code = request(w, from, CODE_POST, is_renewal ? "est/sren" : "est/sen", csr, &reply, loses);
                if (code == CODE_CHANGED) {
                        pki_fingerprint(&reply.payload, ret->identity);
                        w->expired_renewals += from->is_expired;
                }
        }
        buffer_free(&reply.payload);
        return code;
}

static enum model_outcome air_connect(void *userdata, struct model_device *model, const struct model_key *key) {
        struct world *w = userdata;
        struct world_device *d = find_device(w, model->id);
        unsigned crashes = w->crashes;
        enum model_outcome outcome = handshake(w, d, key, true, &d->session);

        d->has_session = outcome == MODEL_CONNECTED && crashes == w->crashes;
        return outcome;
}

static int air_request(struct world *w, struct model_device *model, uint8_t method, const char *path,
                       struct reply *reply) {
        struct world_device *d = find_device(w, model->id);

        *reply = (struct reply){ 0 };
        return d->has_session ? request(w, &d->session, method, path, BYTES(NULL, 0), reply, true) : -1;
}

static int air_me(void *userdata, struct model_device *model, uint32_t *ret_due) {
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct reply reply;
        int64_t due = 0;
        int code = air_request(userdata, model, CODE_GET, "me", &reply);

        if (code == CODE_CONTENT &&
            (cbor_read(buffer_bytes(&reply.payload), &item, NULL) < 0 || !cbor_value_int(cbor_map_int(item, 6), &due)))
                world_fail(userdata, model->id, "/me cannot be read");
        buffer_free(&reply.payload);
        *ret_due = (uint32_t)due;
        return code;
}

static int air_anchors(void *userdata, struct model_device *model) {
        struct reply reply;
        int code = air_request(userdata, model, CODE_GET, "est/crts", &reply);

        buffer_free(&reply.payload);
        return code;
}

static int air_cred(void *userdata, struct model_device *model, struct model_key *ret) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        struct world *w = userdata;
        struct world_device *d = find_device(w, model->id);
        struct model_key again;
        int code;

        *ret = (struct model_key){ 0 };
        if (!d->has_session)
                return -1;
        if (world_is_certified(d))
                pki_csr(&csr);
        code = ask(w, d, &d->session, buffer_bytes(&csr), true, ret);
        if (code != CODE_CHANGED || world_random(w, 4) != 0)
                return code;
        if (d->has_session && ask(w, d, &d->session, buffer_bytes(&csr), true, &again) == CODE_CHANGED &&
            (strcmp(again.identity, ret->identity) != 0 || !secret_equal(&again.key, &ret->key)))
                world_fail(w, model->id, "asked again in one session, another key came");
        return code; /* the first answer had come */
}

static int air_attest(void *userdata, struct model_device *model) {
        static const struct appraisal affirming = { .tier = TIER_AFFIRMING, .is_appraised = true };
        struct world *w = userdata;
        struct world_device *d = find_device(w, model->id);
        struct device row;

        if (!d->has_session || !is_on(w) || world_strikes(w, 15))
                return -1;
        read_clocks(w);
        if (device_get(w->f->store, bytes_of(model->id), &row) < 0)
                world_fail(w, model->id, "no row");
        row.evidence_last = w->f->turn.now;
        if (appraisal_apply(&w->f->turn, &row, &affirming) < 0 || identity_attested(&w->f->turn, &d->session) < 0)
                world_fail(w, model->id, "the appraisal cannot be applied");
        return settle(w) == LOST || world_strikes(w, 15) ? -1 : 0;
}

static bool air_reboots(void *userdata) {
        return world_strikes(userdata, 40);
}

/* ---- what befalls the gateway ---- */

static void befall(struct world *w) {
        if (w->is_calm)
                return;
        if (world_random(w, 4 * 45) == 0) { /* the power goes, for up to five days */
                w->off_until = w->now + (int64_t)world_random(w, (uint64_t)(5 * FIXTURE_DAY));
                w->boots++;
                w->boot_at = w->off_until;
                if (world_random(w, 2) == 0)
                        w->is_synchronized = false;
                /* Back in power it starts from what the store has; until then nobody asks it. */
                int64_t now = w->now;

                w->now = w->off_until;
                start_core(w);
                w->now = now;
        }
        if (world_random(w, 4 * 60) == 0) { /* the calendar jumps, up to three years ahead or back */
                w->wall_offset += ((int64_t)world_random(w, 7) - 3) * (int64_t)world_random(w, 365 * FIXTURE_DAY);
                w->jumps++;
        }
        if (world_random(w, 4 * 30) == 0)
                w->is_synchronized = !w->is_synchronized;
        if (world_random(w, 4 * 90) == 0)
                w->wall_offset = 0;
}

/* ---- thieves ---- */

/* A thief takes a device's keys, asks for keys of its own over them, and comes back with all of them. What
 * they do is bounded by what PROTOCOL.md promises for the profile. Where it attests, they even prove a key
 * before the device does, but only once: a key that was confirmed ends its predecessor after the grace.
 * Elsewhere whoever proves first over a key that both hold looks like the device, so there they ask quietly. */
static struct model_key *thief_takes(struct world_device *d, const struct model_key *key) {
        struct model_key *taken = &d->stolen[d->stolen_count];

        if (d->stolen_count == STOLEN_MAX || key->identity[0] == '\0')
                return NULL;
        d->stolen_count++;
        *taken = *key;
        taken->has_worked = false;
        return taken;
}

static void thief_asks(struct world *w, struct world_device *d, struct identity *from, enum key_state over) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        struct model_key grant, *taken;
        struct identity ignored;

        if (world_is_certified(d))
                pki_csr(&csr);
        if (ask(w, d, from, buffer_bytes(&csr), false, &grant) != CODE_CHANGED)
                return;
        if (over != KEY_ACTIVE)
                world_fail(w, d->model.id, "a thief got key %s over an old key", grant.identity);
        if (strcmp(grant.identity, d->model.newest.identity) == 0)
                world_fail(w, d->model.id, "a thief got the device's own key");
        taken = thief_takes(d, &grant);
        if (taken && w->f->profiles[d->profile].attestation != ATTESTATION_NONE &&
            w->f->profiles[d->profile].on_conflict == CONFLICT_ATTEST)
                taken->has_worked = handshake(w, d, taken, false, &ignored) == MODEL_CONNECTED;
}

static void thief_knocks(struct world *w, struct world_device *d, struct model_key *key) {
        enum key_state state = fixture_state(w->f, key->identity);
        bool attests = w->f->profiles[d->profile].attestation != ATTESTATION_NONE;
        unsigned crashes = w->crashes;
        struct identity identity;

        if (state == KEY_PRE_ACTIVE || (state == KEY_ACTIVE && key->has_worked))
                return; /* keeps it for later */
        if (handshake(w, d, key, false, &identity) != MODEL_CONNECTED)
                w->refused_thieves++;
        else if (crashes == w->crashes && (state == KEY_ACTIVE || attests))
                thief_asks(w, d, &identity, state);
}

static void thieve(struct world *w) {
        struct world_device *d = &w->devices[world_random(w, w->device_count)];

        if (w->is_calm || world_random(w, 3) != 0)
                return;
        if (d->stolen_count == 0)
                thief_takes(d, world_random(w, 2) == 0 ? &d->model.newest : &d->model.second);
        else if (d->stolen_count < STOLEN_MAX)
                thief_knocks(w, d, &d->stolen[world_random(w, d->stolen_count)]);
}

/* ---- the course of time ---- */

static void wake(struct world *w, struct world_device *d) {
        const struct model_air air = { air_connect, air_me, air_attest, air_anchors, air_cred, air_reboots, w };

        w->wakes++;
        if (model_wake(&d->model, &air, w->now)) {
                /* Now and then one is put away for longer than its key may live. */
                int64_t away = world_strikes(w, 100) ? 120 * FIXTURE_DAY : 0;

                d->content_at = w->on_sec + away;
                d->next_wake = w->now + d->wake_every + away;
        } else
                d->next_wake = w->now + RETRY_SEC + (int64_t)world_random(w, RETRY_SEC);
        d->has_session = false;
        if (w->on_sec - d->content_at > d->wake_every + 4 * FIXTURE_DAY)
                world_fail(w, d->model.id, "locked out: not content for %.1f days of the gateway's time",
                           (double)(w->on_sec - d->content_at) / (double)FIXTURE_DAY);
}

static void pass(struct world *w, int64_t to) {
        int64_t from = w->now > w->off_until ? w->now : w->off_until;

        if (to > from)
                w->on_sec += to - from;
        w->now = to;
}

void world_run(struct world *w, int64_t until) {
        int64_t next_tick = w->now + TICK_SEC;

        while (w->now < until) {
                struct world_device *next = &w->devices[0];

                for (size_t i = 1; i < w->device_count; i++)
                        if (w->devices[i].next_wake < next->next_wake)
                                next = &w->devices[i];
                if (next->next_wake < next_tick) {
                        pass(w, next->next_wake > w->now ? next->next_wake : w->now);
                        wake(w, next);
                        continue;
                }
                pass(w, next_tick);
                next_tick += TICK_SEC;
                tick(w);
                thieve(w);
                befall(w);
        }
}

/* A stolen key shakes no hands any more; a bootstrap credential does, and gets nothing for it. */
static void check_stolen(struct world *w, struct world_device *d, const struct model_key *key) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        bool is_bootstrap = strcmp(key->identity, d->model.id) == 0;
        struct identity identity;
        struct model_key grant;

        w->refused_thieves++;
        if (handshake(w, d, key, false, &identity) == MODEL_REFUSED)
                return;
        if (world_is_certified(d))
                pki_csr(&csr);
        if (!is_bootstrap || ask(w, d, &identity, buffer_bytes(&csr), false, &grant) != CODE_FORBIDDEN)
                world_fail(w, d->model.id, "stolen key %s still works", key->identity);
}

/* Nothing of a revoked device gets in, and it shows on the CRL. */
static void check_revoked(struct world *w, struct world_device *d) {
        struct certificate certificate;
        struct identity identity;

        if (registry_revoke(&w->f->turn, d->model.id, NULL, NULL) != 1)
                world_fail(w, d->model.id, "cannot be revoked");
        if (authority_crls_write(&w->f->turn) < 0 || store_commit(w->f->store, NULL) < 0)
                world_fail(w, d->model.id, "its revocation cannot be committed");
        turn_clear(&w->f->turn); /* not the course of a key's life that the invariants are about */
        if (handshake(w, d, &d->model.newest, false, &identity) != MODEL_REFUSED ||
            handshake(w, d, &d->model.factory, false, &identity) != MODEL_REFUSED)
                world_fail(w, d->model.id, "is revoked and gets in");
        if (world_is_certified(d) && (certificate_get(w->f->store, d->model.newest.identity, &certificate) < 0 ||
                                      certificate.revoked != REVOKED_PRIVILEGE_WITHDRAWN))
                world_fail(w, d->model.id, "is revoked and its certificate is not");
}

void world_settle(struct world *w) {
        w->is_calm = true;
        w->wall_offset = w->wall_offset < 0 ? 0 : w->wall_offset;
        for (size_t i = 0; i < w->device_count; i++)
                if (w->devices[i].next_wake > w->now + w->devices[i].wake_every)
                        w->devices[i].next_wake = w->now + w->devices[i].wake_every;
        world_run(w, w->now + 60 * FIXTURE_DAY);
        for (size_t i = 0; i < w->device_count; i++) {
                struct world_device *d = &w->devices[i];
                struct device row = fixture_device(w->f, d->model.id);

                /* Without evidence only an operator can say that a conflict is over. */
                if (row.standing != STANDING_OPERATIONAL ||
                    (row.is_conflicted && w->f->profiles[d->profile].attestation != ATTESTATION_NONE))
                        world_fail(w, row.id, "in calm it stands at %d, conflicted %d", row.standing,
                                   row.is_conflicted);
                if (fixture_state(w->f, d->model.newest.identity) != KEY_ACTIVE)
                        world_fail(w, row.id, "its newest key %s is not the active one", d->model.newest.identity);
                for (unsigned j = 0; j < d->stolen_count; j++)
                        check_stolen(w, d, &d->stolen[j]);
        }
        world_check_audit(w);
        for (size_t i = 0; i < w->device_count; i += 3)
                check_revoked(w, &w->devices[i]);
}

/* ---- beginning and end ---- */

static void populate(struct world *w) {
        static const int64_t days[] = { 2, 4, 7, 7, 7, 15, 15, 15, 15, 15 };

        for (size_t i = 0; i < w->device_count; i++) {
                struct world_device *d = &w->devices[i];
                char psk[2 * SECRET_MAX];

                d->profile = (enum fixture_profile)(i % FIXTURE_AUTOMATIC); /* half of them with certificates */
                d->wake_every = days[world_random(w, ELEMENTS(days))] * FIXTURE_DAY;
                d->next_wake = w->now + (int64_t)world_random(w, (uint64_t)FIXTURE_DAY);
                d->model.failing_since = -1;
                snprintf(d->model.id, sizeof d->model.id, "device-%zu", i);
                memcpy(d->model.factory.identity, d->model.id, sizeof d->model.id);
                if (world_is_certified(d)) {
                        pki_idevid(0, d->model.id, &d->idevid);
                        pki_add(w->f, d->model.id, d->profile);
                        continue;
                }
                snprintf(psk, sizeof psk, "factory key of %s", d->model.id);
                assert_int_equal(secret_set(&d->model.factory.key, bytes_of(psk)), 0);
                fixture_add(w->f, d->model.id, d->profile);
        }
        assert_int_equal(store_meta_set_clock(w->f->store, &w->clock), 0);
        fixture_commit(w->f);
        for (size_t i = 0; i < w->device_count; i++)
                world_look(w, &w->devices[i]);
}

struct world *world_new(uint64_t seed, size_t devices, const char *path) {
        struct world *w = xcalloc(1, sizeof *w);

        w->seed = w->random = seed;
        w->now = w->boot_at = FIXTURE_START;
        w->is_synchronized = true;
        w->next_session = UINT64_C(1) << 32;
        w->f = fixture_new();
        if (path) {
                store_closep(&w->f->store);
                w->path = xstrdup(path);
                open_store(w);
        }
        w->device_count = devices;
        w->devices = xcalloc(devices, sizeof *w->devices);
        read_clocks(w);
        w->f->config.ca = (struct ca_config){
                .subject = "CN=fleet CA",
                .validity_sec = 1400 * FIXTURE_DAY,
                .successor_at = 0.5,
                .announce_sec = 30 * FIXTURE_DAY,
                .backdate_sec = 3600,
                .server_name = "gatewayd",
                .server_validity_sec = 30 * FIXTURE_DAY,
                .crl_validity_sec = 30 * FIXTURE_DAY,
        };
        start_issuer(w);
        if (authority_init(&w->f->turn, NULL, &w->f->problem) < 0)
                world_fail(w, NULL, "no CA: %s", w->f->problem.detail);
        world_hire(w);
        populate(w);
        return w;
}

void world_free(struct world *w) {
        (void)issuer_free(w->f->turn.issuer);
        for (size_t i = 0; i < w->device_count; i++)
                buffer_free(&w->devices[i].idevid);
        fixture_free(w->f);
        world_dismiss(w);
        free(w->path);
        free(w->devices);
        free(w);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The gateway: handshakes, requests, ticks and orders through the real code of gatewayd/devices, over the rows of one
 * device. The appraisal of evidence alone is taken for granted: whoever is the device attests, the thief cannot. */

#include "tests/explore/life.h"

#include <errno.h>

#include "gatewayd/evidence/evidence.h"
#include "store/store.h"

#define WINDOW_SEC 3600

/* ---- rows ---- */

const struct credential *rows_find(const struct rows *rows, const char *identity, size_t *ret_index) {
        for (size_t i = 0; i < rows->count; i++) {
                if (strcmp(rows->list[i].identity, identity) != 0)
                        continue;
                if (ret_index)
                        *ret_index = i;
                return &rows->list[i];
        }
        return NULL;
}

static void put_credential(struct store *store, const struct rows *rows, size_t index) {
        static const uint8_t wiped[32] = { 1 };
        struct secret secret = { 0 };
        bool is_wiped = rows->secret_size[index] == 0;

        assert_int_equal(secret_set(&secret, is_wiped ? BYTES(wiped, sizeof wiped)
                                                      : BYTES(rows->secret[index], rows->secret_size[index])),
                         0);
        assert_int_equal(credential_insert(store, &rows->list[index], &secret), 0);
        if (is_wiped)
                assert_true(credential_wipe(store, rows->list[index].identity) >= 0);
        assert_true(credential_update(store, &rows->list[index]) >= 0);
}

static void put_rows(struct explorer *x) {
        struct store *store = x->gateway->store;
        const struct rows *rows = &x->life.rows;

        assert_true(device_remove(store, LIFE_DEVICE) >= 0);
        assert_int_equal(device_insert(store, &rows->device), 0);
        for (size_t i = 0; i < rows->count; i++)
                put_credential(store, rows, i);
        assert_true(schedule_set(store, LIFE_DEVICE, &rows->due) >= 0);
}

void gateway_load(struct explorer *x) {
        put_rows(x);
        fixture_commit(x->gateway);
}

void gateway_undo(struct explorer *x) {
        turn_clear(&x->gateway->turn);
        store_rollback(x->gateway->store);
}

void gateway_replace(struct explorer *x, const struct rows *rows) {
        x->life.rows = *rows;
        put_rows(x);
}

/* A secret never changes: only those of new rows are opened. */
static void take_secret(struct explorer *x, const struct rows *before, struct rows *rows, size_t index) {
        struct secret secret = { 0 };
        size_t at;
        int r;

        if (rows_find(before, rows->list[index].identity, &at) && rows->list[index].state != KEY_DEACTIVATED) {
                memcpy(rows->secret[index], before->secret[at], SECRET_MAX);
                rows->secret_size[index] = before->secret_size[at];
                return;
        }
        r = credential_secret(x->gateway->store, rows->list[index].identity, &secret);
        assert_true(r == 0 || r == -ENOENT);
        rows->secret_size[index] = r == 0 ? secret.size : 0;
        if (r == 0)
                memcpy(rows->secret[index], secret_bytes(&secret).data, secret.size);
        secret_wipe(&secret);
}

void gateway_save(struct explorer *x) {
        static struct rows before;
        struct rows *rows = &x->life.rows;
        ssize_t n;

        before = *rows;
        memset(rows, 0, sizeof *rows);
        assert_int_equal(device_get(x->gateway->store, bytes_of(LIFE_DEVICE), &rows->device), 0);
        n = credential_list(x->gateway->store, LIFE_DEVICE, rows->list, CREDENTIALS_MAX);
        assert_true(n > 0);
        rows->count = (size_t)n;
        for (size_t i = 0; i < rows->count; i++)
                take_secret(x, &before, rows, i);
        assert_int_equal(schedule_get(x->gateway->store, LIFE_DEVICE, &rows->due), 0);
}

/* ---- time ---- */

void gateway_read_clock(struct explorer *x) {
        struct life *life = &x->life;
        const int64_t now_sec = (int64_t)(life->world.now / 1000);
        struct clock_reading reading = {
                .wall = FIXTURE_START + now_sec + life->clock_offset_sec,
                .boottime_sec = now_sec - life->booted_sec,
                .is_synchronized = life->is_synchronized,
        };

        snprintf(reading.boot_id, sizeof reading.boot_id, "boot %u", life->boots);
        life->now = clock_advance(&life->clock, &reading);
        x->gateway->turn.now = life->now;
}

void gateway_begin(struct explorer *x) {
        x->life.is_synchronized = true;
        x->life.next_handle = UINT64_C(1) << 32;
        x->life.world.now = 1000;
        gateway_read_clock(x);
        fixture_add(x->gateway, LIFE_DEVICE, x->profile);
        gateway_save(x);
        fixture_commit(x->gateway);
}

static void note_evictions(struct explorer *x, struct line *line) {
        const struct turn *turn = &x->gateway->turn;

        for (size_t i = 0; i < turn->effect_count; i++)
                if (turn->effects[i].kind == EFFECT_EVICT_DEVICE ||
                    (turn->effects[i].kind == EFFECT_EVICT_KEY &&
                     strcmp(turn->effects[i].event.kid, line->identity) == 0))
                        line->is_open = false;
}

/* What core does with the effects of a turn, as far as it matters here. */
static void end_turn(struct explorer *x) {
        note_evictions(x, &x->life.line);
        note_evictions(x, &x->life.line_before);
        turn_clear(&x->gateway->turn);
}

static void tick(struct explorer *x) {
        int r;

        gateway_read_clock(x);
        x->gateway->turn.actor = "schedule";
        do {
                r = schedule_tick(&x->gateway->turn, 4);
                assert_true(r >= 0);
        } while (r == 4);
        x->gateway->turn.actor = "device";
        end_turn(x);
}

/* Seconds until something is due. */
static int64_t due_in(struct explorer *x, int64_t at_least_sec) {
        struct due_time due;
        int64_t wall, powered, least;
        int r = schedule_earliest(x->gateway->store, &due);

        assert_true(r == 0 || r == -ENOENT);
        if (r < 0)
                return INT64_MAX;
        wall = due.wall == INT64_MAX ? INT64_MAX : due.wall - x->life.now.wall;
        powered = due.powered_sec == INT64_MAX ? INT64_MAX : due.powered_sec - x->life.now.powered_sec;
        least = wall < powered ? wall : powered;
        return least < at_least_sec ? at_least_sec : least;
}

void gateway_live(struct explorer *x, uint64_t until_ms, int64_t pace_sec) {
        struct world *world = &x->life.world;

        while (world->now < until_ms) {
                int64_t in_sec = due_in(x, pace_sec);
                uint64_t left_ms = until_ms - world->now;

                world->now += in_sec < (int64_t)(left_ms / 1000) ? (uint64_t)in_sec * 1000 : left_ms;
                tick(x);
        }
        gateway_read_clock(x);
}

/* ---- sessions ---- */

static void begin_turn(struct explorer *x) {
        gateway_read_clock(x);
}

bool gateway_knows(struct explorer *x, const void *identity, size_t size, const void *key, size_t key_size) {
        struct secret secret = { 0 };
        struct credential credential;
        char reason[160] = "";
        bool knows;

        begin_turn(x);
        knows = identity_key(&x->gateway->turn, BYTES(identity, size), true, &credential, &secret, reason) == 0 &&
                secret.size == key_size && memcmp(secret_bytes(&secret).data, key, key_size) == 0;
        secret_wipe(&secret);
        end_turn(x);
        return knows;
}

bool gateway_connect(struct explorer *x, const void *identity, size_t size, struct line *ret) {
        struct identity from = { .session = x->life.next_handle++ };

        begin_turn(x);
        memset(ret, 0, sizeof *ret);
        if (identity_connected(&x->gateway->turn, BYTES(identity, size), true, false, &from) < 0) {
                end_turn(x);
                return false;
        }
        ret->handle = from.session;
        memcpy(ret->identity, from.credential.identity, sizeof ret->identity);
        ret->connected = x->life.now;
        ret->is_open = true;
        note_evictions(x, ret);
        end_turn(x);
        return ret->is_open;
}

/* A challenge, or the reply to evidence that was found good. */
static void attest(struct explorer *x, const struct identity *from, const char *path, struct reply *reply) {
        static const uint8_t nonce[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
        const struct appraisal affirming = { .tier = TIER_AFFIRMING, .is_appraised = true };
        struct device device = from->device;

        if (strcmp(path, "rats/nonce") == 0) {
                reply->code = CODE_CHANGED;
                reply->content_format = 42;
                buffer_append(&reply->payload, BYTES(nonce, sizeof nonce));
                return;
        }
        device.evidence_last = x->gateway->turn.now;
        assert_true(appraisal_apply(&x->gateway->turn, &device, &affirming) >= 0);
        assert_int_equal(identity_attested(&x->gateway->turn, from), 0);
        reply->code = CODE_CHANGED;
}

bool gateway_handle(struct explorer *x, struct line *line, uint8_t method, const char *path, struct answer *ret) {
        struct identity from = { .session = line->handle, .has_forward_secrecy = true };
        const struct request request = {
                .from = &from,
                .method = method,
                .path = bytes_of(path),
                .content_format = FORMAT_NONE,
                .accept = FORMAT_NONE,
                .observe = -1,
        };
        struct reply reply = { .content_format = FORMAT_NONE, .max_age_sec = -1 };
        const struct exchange_entry *entry;
        struct problem problem = { 0 };

        if (!line->is_open)
                return false;
        begin_turn(x);
        memcpy(from.credential.identity, line->identity, sizeof from.credential.identity);
        if (identity_refresh(&x->gateway->turn, &from, &line->connected) < 0) {
                line->is_open = false;
                end_turn(x);
                return false;
        }
        if (exchange_authorise(&x->gateway->turn, &request, &entry, &problem) < 0)
                reply_problem(&reply, &problem);
        else if (strncmp(path, "rats/", 5) == 0)
                attest(x, &from, path, &reply);
        else
                exchange_handle(&x->gateway->turn, entry, &request, &reply);
        line->has_asked |= strcmp(path, "cred") == 0 && reply.code == CODE_CHANGED;

        assert_true(reply.payload.size <= sizeof ret->body);
        *ret = (struct answer){ reply.code, reply.content_format, reply.max_age_sec, { 0 }, reply.payload.size };
        if (reply.payload.size > 0)
                memcpy(ret->body, buffer_bytes(&reply.payload).data, reply.payload.size);
        buffer_free(&reply.payload);
        end_turn(x);
        return true;
}

void gateway_core_restarts(struct explorer *x) {
        begin_turn(x);
        assert_true(credential_forget_sessions(x->gateway->store) >= 0);
        x->life.line.is_open = false;
        x->life.line_before.is_open = false;
}

/* ---- operators ---- */

void gateway_rotate(struct explorer *x, bool is_compromised) {
        begin_turn(x);
        x->gateway->turn.actor = "uid 0";
        assert_true(registry_rotate(&x->gateway->turn, LIFE_DEVICE, is_compromised, 0, &x->gateway->problem) >= 0);
        x->gateway->turn.actor = "device";
        end_turn(x);
}

void gateway_open_window(struct explorer *x) {
        begin_turn(x);
        x->gateway->turn.actor = "uid 0";
        assert_true(registry_reset(&x->gateway->turn, LIFE_DEVICE, WINDOW_SEC, &x->gateway->problem) >= 0);
        x->gateway->turn.actor = "device";
        end_turn(x);
}

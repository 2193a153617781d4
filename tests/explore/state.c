/* SPDX-License-Identifier: Apache-2.0 */

/* A life as a value: packed for keeping, and its canonical form for knowing it again. What is equal there counts as
 * one state, and this is where the explorer abstracts: ages are taken to the hour and up to 100 days, jitter and the
 * numbers of messages are left out, keys and sessions are named by their place. */

#include "tests/explore/life.h"

#include "gatewayd/devices/lifecycle.h"

#include <openssl/sha.h>

/* ---- packing: runs of zero words are counted, not kept ---- */

#define LIFE_WORDS (sizeof(struct life) / sizeof(uint64_t))
_Static_assert(sizeof(struct life) % sizeof(uint64_t) == 0, "a life is made of whole words");

static size_t run_of(const uint64_t *words, size_t at, bool is_zero) {
        size_t n = 0;

        while (at + n < LIFE_WORDS && (words[at + n] == 0) == is_zero)
                n++;
        return n;
}

struct packed *life_pack(const struct life *life) {
        static uint64_t to[2 * LIFE_WORDS];
        const uint64_t *words = (const uint64_t *)(const void *)life;
        struct packed *packed;
        size_t size = 0;

        for (size_t at = 0; at < LIFE_WORDS;) {
                size_t zeros = run_of(words, at, true), others = run_of(words, at + zeros, false);

                to[size++] = (uint64_t)zeros << 32 | others;
                memcpy(&to[size], &words[at + zeros], others * sizeof *to);
                size += others;
                at += zeros + others;
        }
        packed = xcalloc(1, sizeof *packed + size * sizeof *to);
        packed->size = size;
        memcpy(packed->words, to, size * sizeof *to);
        return packed;
}

void life_unpack(const struct packed *packed, struct life *life) {
        uint64_t *words = (uint64_t *)(void *)life;
        size_t at = 0;

        for (size_t i = 0; i < packed->size;) {
                size_t zeros = packed->words[i] >> 32, others = packed->words[i] & UINT32_MAX;

                memset(words + at, 0, zeros * sizeof *words);
                memcpy(words + at + zeros, &packed->words[i + 1], others * sizeof *words);
                at += zeros + others;
                i += 1 + others;
        }
}

/* ---- the canonical form ---- */

struct form {
        uint8_t bytes[4096];
        size_t size;
};

static void put(struct form *form, int64_t value) {
        assert_true(form->size + 3 <= sizeof form->bytes);
        form->bytes[form->size++] = (uint8_t)value;
        form->bytes[form->size++] = (uint8_t)(value >> 8);
        form->bytes[form->size++] = (uint8_t)(value >> 16);
}

#define HOURS_MAX 2400
#define UNSET     0x7fff

static int64_t hours(int64_t sec) {
        int64_t n = (sec + (sec < 0 ? -1800 : 1800)) / 3600;

        return n > HOURS_MAX ? HOURS_MAX : n < -HOURS_MAX ? -HOURS_MAX : n;
}

static void put_moment(struct form *form, const struct life *life, const struct moment *moment) {
        int64_t powered = life->now.powered_sec - moment->powered_sec;

        if (!moment_is_set(moment)) {
                put(form, UNSET);
                return;
        }
        put(form, hours(powered));
        put(form, hours(life->now.wall - moment->wall - powered));
        put(form, moment->quality);
}

static void put_wait_ms(struct form *form, const struct life *life, uint64_t at_ms) {
        if (at_ms == DEVICE_NEVER)
                put(form, UNSET);
        else
                put(form, at_ms <= life->world.now ? 0 : 1 + hours((int64_t)((at_ms - life->world.now) / 1000)));
}

/* Rows by their place; what is in none by the place where else it is known. */
static int64_t name_of(const struct life *life, const void *identity, size_t size) {
        char text[DEVICE_IDENTITY_MAX + 1] = "";
        size_t at;

        if (size == 0)
                return 0;
        memcpy(text, identity, size);
        if (rows_find(&life->rows, text, &at))
                return 1 + (int64_t)at;
        if (life->has_backup && rows_find(&life->backup, text, &at))
                return 100 + (int64_t)at;
        for (at = 0; at < life->thief_count; at++)
                if (strcmp(life->thief[at].identity, text) == 0)
                        return 200 + (int64_t)at;
        for (at = 0; at < 2; at++)
                if (life->world.flash.slot[at].identity_size == size &&
                    memcmp(life->world.flash.slot[at].identity, identity, size) == 0)
                        return 300 + (int64_t)(at == life->world.flash.newest);
        return 400; /* nobody knows it any more */
}

static int64_t session_name(const struct life *life, session_handle handle) {
        return handle == 0 ? 0 : handle == life->line.handle ? 1 : handle == life->line_before.handle ? 2 : 3;
}

static void put_credential(struct form *form, const struct life *life, const struct credential *c) {
        put(form, c->kind << 8 | c->state << 4 | session_name(life, c->session));
        put(form, name_of(life, c->predecessor, strlen(c->predecessor)));
        put_moment(form, life, &c->issued);
        put_moment(form, life, &c->proven);
        put_moment(form, life, &c->confirmed);
        put_moment(form, life, &c->superseded);
        put_moment(form, life, &c->ended);
}

static void put_rows(struct form *form, const struct life *life, const struct rows *rows) {
        const struct device *device = &rows->device;

        put(form, device->standing);
        put(form, device->due);
        put(form, device->is_conflicted << 1 | device->is_compromised);
        put_moment(form, life, &device->conflicted);
        put_moment(form, life, &device->compromised);
        put_moment(form, life, &device->appraised);
        put(form, device->window_until_powered > life->now.powered_sec);
        put(form, device->tier);
        put(form, (int64_t)rows->count);
        for (size_t i = 0; i < rows->count; i++)
                put_credential(form, life, &rows->list[i]);
}

static void put_slot(struct form *form, const struct life *life, const struct device_key *key) {
        put(form, name_of(life, key->identity, key->identity_size));
}

static void put_device(struct form *form, const struct life *life) {
        const struct sim_device *device = &life->world.sim_device;
        const struct device_memory *flash = &life->world.flash;
        uint64_t failing_ms = device->is_failing ? life->world.now - device->failing_from : 0;

        put(form, flash->has_newest << 2 | flash->has_pending << 1 | flash->newest);
        put_slot(form, life, &flash->slot[0]);
        put_slot(form, life, &flash->slot[1]);
        put(form, device->is_failing);
        put(form, hours((int64_t)(flash->failing_sec + failing_ms / 1000)));
        put(form, life->world.is_connecting << 1 | device_is_online(device));
        put(form, device->choice << 16 | device->task << 8 | (life->request_size > 0));
        put(form,
            device->tried_dropped << 3 | device->prefers_old << 2 | device->tries_second << 1 | device->is_locked_out);
        put(form, device->refused_keys << 8 | device->pending_silences);
        put(form, device->has_me ? (int64_t)device->me.due : UNSET);
        put(form, (device->evidence_size > 0) << 1 | device->grant_needs_evidence);
        put(form, device->grant_pause_sec);
        put(form, device->attest_pause_sec);
        put_wait_ms(form, life, device->me_at);
        put_wait_ms(form, life, device->grant_at);
        put_wait_ms(form, life, device->attest_at);
        put_wait_ms(form, life, device->connect_at);
}

static void put_line(struct form *form, const struct life *life, const struct line *line) {
        put(form, line->is_open << 1 | line->has_asked);
        put(form, line->is_open ? name_of(life, line->identity, strlen(line->identity)) : 0);
}

static void put_clock(struct form *form, const struct life *life) {
        int64_t hold = life->clock.hold_until_powered;

        put(form, life->is_synchronized << 1 | life->clock.was_synchronized);
        put(form, hold == 0 ? UNSET : hours(hold - life->now.powered_sec));
        put(form, life->clock_offset_sec / 86400);
        put(form, hours(life->clock.floor - FIXTURE_START - (int64_t)(life->world.now / 1000)));
}

void life_hash(const struct life *life, uint8_t ret[STATE_HASH_BYTES]) {
        static struct form form;
        const uint8_t *budget = (const uint8_t *)&life->budget;
        uint8_t digest[SHA256_DIGEST_LENGTH];

        form.size = 0;
        put_rows(&form, life, &life->rows);
        put_device(&form, life);
        put_line(&form, life, &life->line);
        put_line(&form, life, &life->line_before);
        put_clock(&form, life);
        put(&form, (int64_t)life->thief_count);
        for (size_t i = 0; i < life->thief_count; i++)
                put(&form, name_of(life, life->thief[i].identity, strlen(life->thief[i].identity)) << 1 |
                                   life->thief[i].was_granted);
        put(&form, life->is_betrayed << 3 | life->is_declared << 2 | life->has_backup << 1 | life->is_restored);
        put(&form, life->grants_since_backup);
        if (life->has_backup)
                put_rows(&form, life, &life->backup);
        for (size_t i = 0; i < sizeof life->budget; i++)
                put(&form, budget[i]);
        put(&form, life->attempts);
        SHA256(form.bytes, form.size, digest);
        memcpy(ret, digest, STATE_HASH_BYTES);
}

/* ---- what can be said of it ---- */

static bool is_tip(const struct life *life, const struct device_key *key) {
        const struct credential *c = key ? rows_find(&life->rows, (const char *)key->identity, NULL) : NULL;

        return c && c->state == KEY_ACTIVE;
}

bool life_is_settled(const struct life *life) {
        return device_is_settled(&life->world.sim_device) && !life->world.is_connecting &&
               is_tip(life, device_newest(life));
}

static bool is_taken(const struct life *life, const struct device_key *key, bool can_attest) {
        const struct credential *c;
        size_t at;

        if (!key)
                return false;
        c = rows_find(&life->rows, (const char *)key->identity, &at);
        if (!c || life->rows.secret_size[at] != key->key_size ||
            memcmp(life->rows.secret[at], key->key, key->key_size) != 0)
                return false;
        return c->state == KEY_PRE_ACTIVE || c->state == KEY_ACTIVE || c->state == KEY_RETIRING ||
               (c->state == KEY_COMPROMISED && can_attest);
}

bool life_shares_key(const struct explorer *x, const struct life *life) {
        const struct profile *profile = &x->gateway->profiles[x->profile];
        const bool can_attest = profile->attestation != ATTESTATION_NONE;

        if (!device_newest(life) && !device_other(life))
                return true; /* as from the factory, or after a visit: it has the factory key */
        return is_taken(life, device_newest(life), can_attest) || is_taken(life, device_other(life), can_attest) ||
               (!device_newest(life) && rows_find(&life->rows, LIFE_DEVICE, NULL)->state == KEY_ACTIVE);
}

static void print_key(const struct life *life, const char *what, const struct device_key *key) {
        const struct credential *c = key ? rows_find(&life->rows, (const char *)key->identity, NULL) : NULL;

        if (!key)
                return;
        if (c)
                print_message(" %s=%u", what, c->generation);
        else
                print_message(" %s=unknown", what);
}

void life_print(const struct life *life) {
        print_message("        day %.1f; device:%s", (double)life->world.now / 86400000.0,
                      device_newest(life) || device_other(life) ? "" : " factory key");
        print_key(life, "newest", device_newest(life));
        print_key(life, life->world.flash.has_pending ? "pending" : "second", device_other(life));
        print_message("; gateway:");
        for (size_t i = life->rows.count; i-- > 0;)
                print_message(" %u %s%s", life->rows.list[i].generation, key_state_name(life->rows.list[i].state),
                              i > 0 ? "," : "");
        print_message("; %s%s", standing_name(life->rows.device.standing), life->thief_count > 0 ? "; thief:" : "\n");
        for (size_t i = 0; i < life->thief_count; i++) {
                const struct credential *c = rows_find(&life->rows, life->thief[i].identity, NULL);

                print_message(" %d%s", c ? (int)c->generation : -1, i + 1 == life->thief_count ? "\n" : ",");
        }
}

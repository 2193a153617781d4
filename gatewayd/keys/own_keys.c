/* SPDX-License-Identifier: Apache-2.0 */

/* The gateway's own keys that are not certificates: receipt key and data keys are changed when they are due, of the
 * sealing key and the recovery key people are reminded, who alone can change them. Everything is read from the store
 * at each tick, so that a dropped turn leaves nothing to take back. */

#include "gatewayd/keys/own_keys.h"

#include <errno.h>

#include "gatewayd/evidence/evidence.h"

/* Secrets that move to the newest data key in one tick: a few milliseconds of a turn. */
#define RESEAL_AT_ONCE 64

/* ---- when ---- */

static int64_t add_capped(int64_t a, int64_t b) {
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static void await(struct due_time *next, const struct due_time *due) {
        if (due->wall < next->wall)
                next->wall = due->wall;
        if (due->powered_sec < next->powered_sec)
                next->powered_sec = due->powered_sec;
}

struct own_key_step own_key_next(const struct own_key *key, int64_t every_sec, bool is_ours_to_rotate,
                                 const struct moment *now) {
        struct own_key_step step = { .action = OWN_KEY_WAIT, .next = { INT64_MAX, INT64_MAX } };
        struct due_time due;

        if (every_sec <= 0 || (!is_ours_to_rotate && key->told & OWN_KEY_TOLD_DUE))
                return step;
        due = (struct due_time){ add_capped(key->made.wall, every_sec), add_capped(key->made.powered_sec, every_sec) };
        if (now->wall < due.wall && now->powered_sec < due.powered_sec)
                step.next = due;
        else
                step.action = is_ours_to_rotate ? OWN_KEY_ROTATE : OWN_KEY_REMIND;
        return step;
}

int64_t own_key_every(const struct config *config, enum own_key_kind kind) {
        switch (kind) {
        case OWN_KEY_RECEIPT:
                return config->keys.receipt_every_sec;
        case OWN_KEY_DATA:
                return config->keys.data_every_sec;
        case OWN_KEY_SEALING:
                return config->keys.sealing_every_sec;
        case OWN_KEY_RECOVERY:
                return config->keys.recovery_every_sec;
        case OWN_KEY_UPSTREAM:
        case OWN_KEY_KINDS:
                break;
        }
        return 0; /* its end is in the certificate */
}

const char *own_key_name(enum own_key_kind kind) {
        static const char *const names[] = { "receipt key", "data key", "sealing key", "recovery key",
                                             "upstream client certificate" };

        return (size_t)kind < ELEMENTS(names) ? names[kind] : "unknown";
}

/* ---- rows ---- */

/* A successor in its row, of that id. */
static int put_successor(struct turn *turn, enum own_key_kind kind, const char *id, struct own_key *ret) {
        int r = own_key_get(turn->store, kind, ret);

        if (r == -ENOENT)
                *ret = (struct own_key){ .kind = kind };
        else if (r < 0)
                return r;
        ret->generation++;
        ret->made = turn->now;
        ret->told = 0;
        snprintf(ret->id, sizeof ret->id, "%s", id);
        return own_key_put(turn->store, ret);
}

static int open_receipt(struct turn *turn) {
        char kid[2 * RECEIPT_KID_BYTES + 1];
        struct own_key row;
        int r = own_key_get(turn->store, OWN_KEY_RECEIPT, &row);

        custodian_kid_text(turn->custodian, kid);
        if (r < 0)
                return r == -ENOENT ? put_successor(turn, OWN_KEY_RECEIPT, kid, &row) : r;
        if (strcmp(row.id, kid) == 0)
                return 0;
        memcpy(row.id, kid, sizeof kid);
        return own_key_put(turn->store, &row);
}

/* The generation is the data key's id: the store counts them. */
static int put_data(struct turn *turn, const struct data_key_facts *facts, struct own_key *ret) {
        *ret = (struct own_key){ .kind = OWN_KEY_DATA,
                                 .generation = facts->id,
                                 .made = moment_is_set(&facts->made) ? facts->made : turn->now };
        return own_key_put(turn->store, ret);
}

static int open_data(struct turn *turn) {
        struct data_key_facts facts;
        struct own_key row;
        int r = store_data_key_facts(turn->store, &facts);

        if (r >= 0)
                r = own_key_get(turn->store, OWN_KEY_DATA, &row);
        if (r == -ENOENT || (r >= 0 && row.generation != facts.id))
                r = put_data(turn, &facts, &row);
        return r;
}

/* A start with the prepared key has made it the only one. */
static int open_sealing(struct turn *turn) {
        struct own_key row;
        int r = own_key_get(turn->store, OWN_KEY_SEALING, &row);

        if (r < 0)
                return r == -ENOENT ? put_successor(turn, OWN_KEY_SEALING, "", &row) : r;
        if (!(row.told & OWN_KEY_TOLD_PREPARED))
                return 0;
        r = store_rewrap_is_open(turn->store);
        return r == 0 ? own_keys_sealing_changed(turn) : r;
}

static int recovery_id(struct turn *turn, char to[2 * RECOVERY_KEY_BYTES + 1]) {
        uint8_t public_key[RECOVERY_KEY_BYTES];
        int r = store_recovery_public(turn->store, public_key);

        if (r >= 0)
                bytes_to_hex(BYTES(public_key, sizeof public_key), to);
        return r;
}

int own_keys_recovery_made(struct turn *turn) {
        char id[2 * RECOVERY_KEY_BYTES + 1];
        struct own_key row;
        int r = recovery_id(turn, id);

        return r < 0 ? r : put_successor(turn, OWN_KEY_RECOVERY, id, &row);
}

static int open_recovery(struct turn *turn) {
        char id[2 * RECOVERY_KEY_BYTES + 1];
        struct own_key row;
        int r = recovery_id(turn, id);

        if (r < 0)
                return r == -ENOENT ? 0 : r; /* there is none */
        r = own_key_get(turn->store, OWN_KEY_RECOVERY, &row);
        if (r == -ENOENT || (r >= 0 && strcmp(row.id, id) != 0))
                r = put_successor(turn, OWN_KEY_RECOVERY, id, &row);
        return r;
}

int own_keys_open(struct turn *turn) {
        int r = open_receipt(turn);

        if (r >= 0)
                r = open_data(turn);
        if (r >= 0)
                r = open_sealing(turn);
        if (r >= 0)
                r = open_recovery(turn);
        return r;
}

int own_keys_sealing_prepared(struct turn *turn) {
        struct own_key row;
        int r = own_key_get(turn->store, OWN_KEY_SEALING, &row);

        if (r < 0)
                return r;
        row.told |= OWN_KEY_TOLD_PREPARED;
        return own_key_put(turn->store, &row);
}

int own_keys_sealing_changed(struct turn *turn) {
        struct own_key row;
        int r = put_successor(turn, OWN_KEY_SEALING, "", &row);

        return r < 0 ? r
                     : turn_event(turn, EVENT_GATEWAY_KEY_ROTATED, NULL, NULL, "sealing key: generation %u",
                                  row.generation);
}

/* ---- what is due ---- */

static int look_at_receipt(struct turn *turn, struct due_time *next) {
        struct own_key_step step;
        struct own_key row;
        uint64_t sequence;
        int r = own_key_get(turn->store, OWN_KEY_RECEIPT, &row);

        if (r < 0)
                return r;
        step = own_key_next(&row, own_key_every(turn->config, OWN_KEY_RECEIPT), true, &turn->now);
        await(next, &step.next);
        if (step.action != OWN_KEY_ROTATE)
                return 0;
        r = custody_succeed(turn, &row, &sequence);
        return r < 0 ? r
                     : turn_event(turn, EVENT_GATEWAY_KEY_ROTATED, NULL, row.id,
                                  "receipt key: generation %u, announced by receipt %llu", row.generation,
                                  (unsigned long long)sequence);
}

static int reseal(struct turn *turn) {
        struct reseal_damage damage;
        int r = store_reseal_some(turn->store, RESEAL_AT_ONCE, &damage);

        if (r < 0 || damage.count == 0)
                return r < 0 ? r : 0;
        return turn_event(turn, EVENT_SECRET_DAMAGED, NULL, damage.name,
                          "%zu of the last %d do not fit their seal; they stay under the data key of before",
                          damage.count, RESEAL_AT_ONCE);
}

/* A key at a time: while secrets are still on their way to the last one, the next one waits. */
static int look_at_data(struct turn *turn, struct due_time *next) {
        const struct due_time soon = { INT64_MAX, turn->now.powered_sec + 1 };
        struct data_key_facts facts;
        struct own_key_step step;
        struct own_key row;
        int64_t left, damaged;
        int r = store_data_key_facts(turn->store, &facts);

        if (r < 0)
                return r;
        left = store_reseal_left(turn->store);
        if (left < 0)
                return (int)left;
        damaged = store_reseal_damaged(turn->store);
        if (left > damaged || (facts.count > 1 && damaged == 0)) {
                await(next, &soon);
                return reseal(turn);
        }
        r = own_key_get(turn->store, OWN_KEY_DATA, &row);
        if (r < 0)
                return r;
        step = own_key_next(&row, own_key_every(turn->config, OWN_KEY_DATA), true, &turn->now);
        await(next, &step.next);
        if (step.action != OWN_KEY_ROTATE)
                return 0;
        await(next, &soon);
        r = store_data_key_rotate(turn->store, &turn->now);
        if (r >= 0)
                r = store_data_key_facts(turn->store, &facts);
        if (r >= 0)
                r = put_data(turn, &facts, &row);
        return r < 0 ? r
                     : turn_event(turn, EVENT_GATEWAY_KEY_ROTATED, NULL, NULL,
                                  "data key: generation %u; all secrets move to it", row.generation);
}

static int remind(struct turn *turn, enum own_key_kind kind, const char *command, struct due_time *next) {
        struct own_key_step step;
        struct own_key row;
        int r = own_key_get(turn->store, kind, &row);

        if (r < 0)
                return r == -ENOENT ? 0 : r; /* there is no such key */
        step = own_key_next(&row, own_key_every(turn->config, kind), false, &turn->now);
        await(next, &step.next);
        if (step.action != OWN_KEY_REMIND)
                return 0;
        row.told |= OWN_KEY_TOLD_DUE;
        r = own_key_put(turn->store, &row);
        return r < 0 ? r
                     : turn_event(turn, EVENT_GATEWAY_KEY_DUE, NULL, NULL, "%s: older than %lld days; %s makes another",
                                  own_key_name(kind), (long long)(own_key_every(turn->config, kind) / 86400), command);
}

static int look_at_sealing(struct turn *turn, struct due_time *next) {
        return remind(turn, OWN_KEY_SEALING, "gatewayctl sealing rotate", next);
}

static int look_at_recovery(struct turn *turn, struct due_time *next) {
        return remind(turn, OWN_KEY_RECOVERY, "gatewayctl sealing recovery", next);
}

/* One key's trouble does not hold up the others, and what it did is taken back. */
static int look(struct turn *turn, int (*at)(struct turn *turn, struct due_time *next), struct due_time *next) {
        size_t mark = turn_mark(turn);
        int r = store_savepoint(turn->store);

        if (r < 0)
                return r;
        r = at(turn, next);
        if (r >= 0)
                return store_savepoint_release(turn->store);
        turn_rewind(turn, mark);
        (void)store_savepoint_rollback(turn->store); /* its failure shows at the commit */
        return r;
}

int own_keys_tick(struct turn *turn, struct due_time *ret_next) {
        static int (*const keys[])(struct turn * turn, struct due_time * next) = { look_at_receipt, look_at_data,
                                                                                   look_at_sealing, look_at_recovery };
        int first = 0;

        *ret_next = (struct due_time){ INT64_MAX, INT64_MAX };
        for (size_t i = 0; i < ELEMENTS(keys); i++) {
                int r = look(turn, keys[i], ret_next);

                if (r < 0 && first == 0)
                        first = r;
        }
        return first;
}

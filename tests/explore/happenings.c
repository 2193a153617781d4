/* SPDX-License-Identifier: Apache-2.0 */

/* What can happen to a device and its gateway, and what then does: see life.h. A course without disturbance has one
 * way on from every state until the device has settled; everything else takes from the budget. */

#include "tests/explore/life.h"

#include "gatewayd/devices/lifecycle.h"

/* After so many attempts to connect the device is left alone for a day, in one step. */
#define ATTEMPTS_MAX 8
#define DAY_MS       UINT64_C(86400000)
#define ALONE_MS     (30 * DAY_MS / 24)
/* While nobody is there to see it, what is due may wait for so long. */
#define AWAY_PACE_SEC (12 * 3600)

enum kind {
        /* undisturbed */
        WAKES,
        SHAKES_HANDS,
        IS_ANSWERED,
        IS_LEFT_ALONE,
        /* faults of a handshake */
        MEETS_SILENCE,
        LAST_FLIGHT_LOST,
        PROOF_LOST,
        CORE_DIES_PROVEN,
        /* faults of a request */
        REPLY_LOST,
        COMES_TWICE,
        SESSION_LOST,
        SESSION_LOST_AFTER,
        CORE_DIES_BEFORE,
        CORE_DIES_AFTER,
        LATE_COPY,
        /* and of either side */
        DEVICE_POWER_CUT,
        DEVICE_AWAY,
        /* operators and thieves */
        ROTATE,
        COMPROMISED,
        VISIT,
        STEAL,
        THIEF_CONNECTS,
        THIEF_ASKS,
        /* the gateway's own misfortunes */
        BACKUP,
        RESTORE,
        CLOCK_FORWARD,
        CLOCK_BACK,
        BOOT_WITHOUT_CLOCK,
        CLOCK_SET,
};

static const uint8_t away_days[] = { 8, 31, 95 };

void happening_print(struct happening h) {
        static const char *const text[] = {
                [WAKES] = "the device wakes",
                [SHAKES_HANDS] = "the handshake is completed or refused",
                [IS_ANSWERED] = "its request is answered",
                [IS_LEFT_ALONE] = "it goes on for a day without disturbance",
                [MEETS_SILENCE] = "its handshake meets silence",
                [LAST_FLIGHT_LOST] = "the gateway completes the handshake, the device never hears of it",
                [PROOF_LOST] = "the device completes the handshake, core dies before it has noted that",
                [CORE_DIES_PROVEN] = "the handshake is completed and noted, then core dies",
                [REPLY_LOST] = "its request is handled, the reply is lost",
                [COMES_TWICE] = "its request and the reply come twice",
                [SESSION_LOST] = "its session is lost before the request",
                [SESSION_LOST_AFTER] = "its request is handled, then the session is lost",
                [CORE_DIES_BEFORE] = "core dies before the request is committed",
                [CORE_DIES_AFTER] = "core dies after the request was committed",
                [LATE_COPY] = "a copy of POST /cred in the session before arrives late",
                [DEVICE_POWER_CUT] = "the device's power is cut",
                [DEVICE_AWAY] = "the device is switched off, for days:",
                [ROTATE] = "gatewayctl rotate",
                [COMPROMISED] = "gatewayctl rotate --compromised",
                [VISIT] = "a reset window is opened, and the device reset to its factory key",
                [STEAL] = "the device's flash is copied",
                [THIEF_CONNECTS] = "the thief opens a session with key",
                [THIEF_ASKS] = "the thief asks for a new key with key",
                [BACKUP] = "a backup of the gateway is made",
                [RESTORE] = "the gateway is restored from the backup",
                [CLOCK_FORWARD] = "the gateway's clock jumps ten years ahead",
                [CLOCK_BACK] = "the gateway's clock jumps ten years back",
                [BOOT_WITHOUT_CLOCK] = "the gateway boots in 1970",
                [CLOCK_SET] = "the gateway's clock is set right",
        };

        print_message("%s", text[h.kind]);
        if (h.kind == DEVICE_AWAY)
                print_message(" %u", away_days[h.argument]);
        else if (h.kind == THIEF_CONNECTS || h.kind == THIEF_ASKS)
                print_message(" %u of his", h.argument);
        print_message("\n");
}

/* ---- which ---- */

struct choice {
        struct happening *list;
        size_t count;
};

static void may(struct choice *choice, bool is_possible, enum kind kind, unsigned argument) {
        if (!is_possible)
                return;
        assert_true(choice->count < HAPPENINGS_MAX);
        choice->list[choice->count++] = (struct happening){ (uint8_t)kind, (uint8_t)argument };
}

static bool is_shakeable(struct explorer *x) {
        const struct device_key *key = &x->life.world.key;

        return gateway_knows(x, key->identity, key->identity_size, key->key, key->key_size);
}

static void faults(struct explorer *x, struct choice *choice) {
        const struct life *life = &x->life;
        bool is_connecting = device_is_connecting(life), waits = device_waits(life);
        bool is_shaking = is_connecting && is_shakeable(x);

        may(choice, is_connecting, MEETS_SILENCE, 0);
        may(choice, is_shaking, LAST_FLIGHT_LOST, 0);
        may(choice, is_shaking, PROOF_LOST, 0);
        may(choice, is_shaking, CORE_DIES_PROVEN, 0);
        may(choice, waits, REPLY_LOST, 0);
        may(choice, waits, COMES_TWICE, 0);
        may(choice, waits, SESSION_LOST, 0);
        may(choice, waits, SESSION_LOST_AFTER, 0);
        may(choice, waits, CORE_DIES_BEFORE, 0);
        may(choice, waits, CORE_DIES_AFTER, 0);
        may(choice, life->line_before.is_open && life->line_before.has_asked, LATE_COPY, 0);
        may(choice, true, DEVICE_POWER_CUT, 0);
}

static void thief(struct explorer *x, struct choice *choice) {
        const struct life *life = &x->life;

        may(choice, life->budget.thefts > 0 && (device_newest(life) || device_other(life)), STEAL, 0);
        for (size_t i = 0; i < life->thief_count && life->budget.thief_acts > 0; i++) {
                const struct stolen_key *key = &life->thief[i];
                bool knows = gateway_knows(x, key->identity, strlen(key->identity), key->key, key->key_size);

                may(choice, knows, THIEF_CONNECTS, (unsigned)i);
                may(choice, knows && life->thief_count < THIEF_KEYS, THIEF_ASKS, (unsigned)i);
        }
}

static void operators(const struct life *life, struct choice *choice) {
        may(choice, life->budget.orders > 0 && device_newest(life), ROTATE, 0);
        may(choice, life->budget.compromises > 0 && device_newest(life), COMPROMISED, 0);
}

static void misfortunes(const struct life *life, struct choice *choice) {
        bool steps = life->budget.clock_steps > 0;

        may(choice, life->budget.restores > 0 && !life->has_backup, BACKUP, 0);
        may(choice, life->budget.restores > 0 && life->has_backup, RESTORE, 0);
        may(choice, steps, CLOCK_FORWARD, 0);
        may(choice, steps, CLOCK_BACK, 0);
        may(choice, steps, BOOT_WITHOUT_CLOCK, 0);
        may(choice, steps && (life->clock_offset_sec != 0 || !life->is_synchronized), CLOCK_SET, 0);
}

size_t happenings(struct explorer *x, struct happening ret[HAPPENINGS_MAX], bool *ret_is_course) {
        const struct life *life = &x->life;
        struct choice choice = { ret, 0 };
        bool is_idle = !device_is_connecting(life) && !device_waits(life);

        may(&choice, device_is_connecting(life), SHAKES_HANDS, 0);
        may(&choice, device_waits(life), IS_ANSWERED, 0);
        if (is_idle && life->rows.device.standing == STANDING_NEEDS_VISIT &&
            !lifecycle_window_is_open(&life->rows.device, &life->now))
                may(&choice, true, VISIT, 0);
        else if (is_idle && !life_is_settled(life))
                may(&choice, true, life->attempts >= ATTEMPTS_MAX ? IS_LEFT_ALONE : WAKES, 0);
        *ret_is_course = choice.count > 0;

        if (life->budget.faults > 0)
                faults(x, &choice);
        for (unsigned i = 0; i < ELEMENTS(away_days) && life->budget.absences > 0 && !device_waits(life); i++)
                may(&choice, true, DEVICE_AWAY, i);
        thief(x, &choice);
        operators(life, &choice);
        misfortunes(life, &choice);
        return choice.count;
}

/* ---- what follows ---- */

static void wake(struct explorer *x) {
        struct life *life = &x->life;

        gateway_live(x, life->world.wake > life->world.now ? life->world.wake : life->world.now + 1, 1);
        device_wake(x);
}

/* The gateway's part of a handshake. */
static bool take_handshake(struct explorer *x) {
        struct life *life = &x->life;
        const struct device_key *key = &life->world.key;

        if (!is_shakeable(x))
                return false;
        life->line_before = life->line;
        return gateway_connect(x, key->identity, key->identity_size, &life->line);
}

static void shake_hands(struct explorer *x) {
        if (take_handshake(x))
                device_hear_connected(x);
        else
                device_hear_refused(x);
}

static bool handle(struct explorer *x, struct answer *ret) {
        uint8_t method;
        char path[64];

        device_asks(x, &method, path);
        return gateway_handle(x, &x->life.line, method, path, ret);
}

/* How many grants its flash has taken, one after another, since the backup: two leave no key of then. */
static void count_grant(struct life *life, const struct device_memory *before) {
        if (life->has_backup && !life->is_restored &&
            memcmp(before->slot, life->world.flash.slot, sizeof before->slot) != 0)
                life->grants_since_backup++;
}

static void answer(struct explorer *x, bool is_doubled) {
        static struct device_memory before;
        struct answer reply;

        if (is_doubled)
                (void)handle(x, &reply);
        if (!handle(x, &reply)) {
                device_hear_nothing(x);
                return;
        }
        before = x->life.world.flash;
        device_hear(x, &reply);
        count_grant(&x->life, &before);
}

/* A day or so without any disturbance, the device's time-outs and pauses included. */
static void leave_alone(struct explorer *x) {
        struct life *life = &x->life;
        uint64_t until = life->world.now + ALONE_MS;

        while (life->world.now < until && !life_is_settled(life)) {
                if (device_is_connecting(life))
                        shake_hands(x);
                else if (device_waits(life))
                        answer(x, false);
                else
                        wake(x);
        }
        life->attempts = 0;
}

static void fail_handshake(struct explorer *x, enum kind kind) {
        if (kind == LAST_FLIGHT_LOST || kind == CORE_DIES_PROVEN)
                (void)take_handshake(x);
        if (kind == CORE_DIES_PROVEN || kind == PROOF_LOST)
                gateway_core_restarts(x);
        if (kind == MEETS_SILENCE || kind == LAST_FLIGHT_LOST)
                device_hear_nothing(x);
        else
                device_hear_connected(x); /* to find the session dead with its first request */
}

static void fail_request(struct explorer *x, enum kind kind) {
        struct answer reply;

        if (kind == COMES_TWICE) {
                answer(x, true);
                return;
        }
        if (kind == REPLY_LOST || kind == SESSION_LOST_AFTER || kind == CORE_DIES_AFTER)
                (void)handle(x, &reply);
        if (kind == REPLY_LOST)
                return; /* it asks again */
        if (kind == CORE_DIES_BEFORE || kind == CORE_DIES_AFTER)
                gateway_core_restarts(x);
        device_hear_nothing(x);
}

static void be_away(struct explorer *x, unsigned days) {
        gateway_live(x, x->life.world.now + days * DAY_MS, AWAY_PACE_SEC);
        device_power_up(x);
}

static void steal(struct life *life) {
        const struct device_key *keys[] = { device_newest(life), device_other(life) };

        for (size_t i = 0; i < ELEMENTS(keys); i++) {
                struct stolen_key *to = &life->thief[life->thief_count];

                if (!keys[i])
                        continue;
                memcpy(to->identity, keys[i]->identity, keys[i]->identity_size);
                memcpy(to->key, keys[i]->key, keys[i]->key_size);
                to->key_size = keys[i]->key_size;
                life->thief_count++;
        }
}

static void thief_acts(struct explorer *x, unsigned which, bool asks) {
        struct life *life = &x->life;
        const struct stolen_key *key = &life->thief[which];
        struct stolen_key *gained = &life->thief[life->thief_count];
        struct secret secret = { 0 };
        struct line line;
        struct answer reply;

        life->is_betrayed |= rows_find(&life->rows, key->identity, NULL)->state == KEY_PRE_ACTIVE;
        if (!gateway_connect(x, key->identity, strlen(key->identity), &line))
                return;
        if (!asks || !gateway_handle(x, &line, CODE_POST, "cred", &reply) || reply.code != CODE_CHANGED)
                return;
        fixture_grant(BYTES(reply.body, reply.size), gained->identity, &secret);
        memcpy(gained->key, secret.data, secret.size);
        gained->key_size = secret.size;
        gained->was_granted = true;
        life->thief_count++;
}

static void restore(struct explorer *x) {
        struct life *life = &x->life;

        gateway_replace(x, &life->backup);
        gateway_core_restarts(x);
        life->boots++; /* another machine */
        life->booted_sec = (int64_t)(life->world.now / 1000);
        life->is_restored = true;
        gateway_read_clock(x);
        gateway_live(x, life->world.now + 1, 1);
}

static void step_clock(struct explorer *x, enum kind kind) {
        struct life *life = &x->life;
        const int64_t decade = 3653 * FIXTURE_DAY, now_sec = (int64_t)(life->world.now / 1000);

        if (kind == CLOCK_FORWARD)
                life->clock_offset_sec += decade;
        else if (kind == CLOCK_BACK)
                life->clock_offset_sec -= decade;
        else if (kind == CLOCK_SET) {
                life->clock_offset_sec = 0;
                life->is_synchronized = true;
        } else {
                gateway_core_restarts(x);
                life->clock_offset_sec = -(FIXTURE_START + now_sec);
                life->is_synchronized = false;
                life->booted_sec = now_sec;
                life->boots++;
        }
        gateway_live(x, life->world.now + 1000, 1);
}

static void take_budget(struct budget *budget, enum kind kind) {
        if (kind >= MEETS_SILENCE && kind <= DEVICE_POWER_CUT)
                budget->faults--;
        else if (kind == DEVICE_AWAY)
                budget->absences--;
        else if (kind == ROTATE)
                budget->orders--;
        else if (kind == COMPROMISED)
                budget->compromises--;
        else if (kind == STEAL)
                budget->thefts--;
        else if (kind == THIEF_CONNECTS || kind == THIEF_ASKS)
                budget->thief_acts--;
        else if (kind == RESTORE)
                budget->restores--;
        else if (kind >= CLOCK_FORWARD)
                budget->clock_steps--;
}

static void act(struct explorer *x, struct happening h) {
        struct life *life = &x->life;
        struct answer reply;

        switch ((enum kind)h.kind) {
        case WAKES:
                wake(x);
                return;
        case SHAKES_HANDS:
                shake_hands(x);
                return;
        case IS_ANSWERED:
                answer(x, false);
                return;
        case IS_LEFT_ALONE:
                leave_alone(x);
                return;
        case MEETS_SILENCE:
        case LAST_FLIGHT_LOST:
        case PROOF_LOST:
        case CORE_DIES_PROVEN:
                fail_handshake(x, (enum kind)h.kind);
                return;
        case REPLY_LOST:
        case COMES_TWICE:
        case SESSION_LOST:
        case SESSION_LOST_AFTER:
        case CORE_DIES_BEFORE:
        case CORE_DIES_AFTER:
                fail_request(x, (enum kind)h.kind);
                return;
        case LATE_COPY:
                (void)gateway_handle(x, &life->line_before, CODE_POST, "cred", &reply);
                return;
        case DEVICE_POWER_CUT:
                device_power_up(x);
                return;
        case DEVICE_AWAY:
                be_away(x, away_days[h.argument]);
                return;
        case ROTATE:
                gateway_rotate(x, false);
                return;
        case COMPROMISED:
                gateway_rotate(x, true);
                life->is_declared = life->thief_count > 0;
                return;
        case VISIT:
                gateway_open_window(x);
                device_visited(x);
                return;
        case STEAL:
                steal(life);
                return;
        case THIEF_CONNECTS:
        case THIEF_ASKS:
                thief_acts(x, h.argument, h.kind == THIEF_ASKS);
                return;
        case BACKUP:
                life->backup = life->rows;
                life->has_backup = true;
                life->grants_since_backup = 0;
                return;
        case RESTORE:
                restore(x);
                return;
        case CLOCK_FORWARD:
        case CLOCK_BACK:
        case BOOT_WITHOUT_CLOCK:
        case CLOCK_SET:
                step_clock(x, (enum kind)h.kind);
                return;
        }
}

void happen(struct explorer *x, struct happening h) {
        take_budget(&x->life.budget, (enum kind)h.kind);
        act(x, h);
        gateway_save(x);
        gateway_read_clock(x);
}

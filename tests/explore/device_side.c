/* SPDX-License-Identifier: Apache-2.0 */

/* The device: the simulator's code, behind a port that only takes notes. See life.h. */

#include "tests/explore/life.h"

/* So seldom does it try where it is refused: 24 hours are a few attempts, each a step of the explorer. */
#define BACKOFF_MAX_MS (3 * 3600 * 1000)

static const uint8_t measurement[32] = { 1, 2, 3 }, ueid[33] = { 1, 9 };

/* The same dice each time: jitter makes no difference here, and states must be comparable. */
static struct world *begin(struct explorer *x) {
        x->life.world.dice = 1;
        x->life.world.sent_count = x->life.world.sent_read = 0;
        x->life.request_size = 0;
        return &x->life.world;
}

/* Keeps the request that it sent, if any. */
static void end(struct explorer *x, unsigned connects) {
        struct world *world = &x->life.world;

        assert_true(world->sent_count <= 1);
        if (world->sent_count > 0) {
                assert_true(world->sent_size[0] <= sizeof x->life.request);
                x->life.request_size = world->sent_size[0];
                memcpy(x->life.request, world->sent[0], world->sent_size[0]);
                memset(world->sent[0], 0, world->sent_size[0]);
                world->sent_count = 0;
        }
        if (world->connects != connects && x->life.attempts < UINT8_MAX)
                x->life.attempts++;
        world->connects = 0;
}

void device_begin(struct explorer *x) {
        struct world *world = &x->life.world;

        world->now = 1000;
        world->attests = x->gateway->profiles[x->profile].attestation != ATTESTATION_NONE;
        world->config = (struct device_config){
                .id = LIFE_DEVICE,
                .factory_key = (const uint8_t *)LIFE_FACTORY,
                .factory_key_size = strlen(LIFE_FACTORY),
                .claims = { ueid, sizeof ueid, "firmware", "1.0", measurement },
                .backoff_max_ms = BACKOFF_MAX_MS,
        };
        device_power_up(x);
}

void device_power_up(struct explorer *x) {
        struct world *world = begin(x);

        x->life.attempts = 0;
        world_power_up(world);
        end(x, 0);
}

void device_wake(struct explorer *x) {
        struct world *world = begin(x);

        world->wake = device_tick(&world->sim_device);
        end(x, 0);
}

void device_hear_connected(struct explorer *x) {
        world_accept(begin(x));
        end(x, 0);
}

void device_hear_refused(struct explorer *x) {
        world_refuse(begin(x));
        end(x, 0);
}

void device_hear_nothing(struct explorer *x) {
        world_lose(begin(x));
        end(x, 0);
}

/* Puts the request back where device_world.h reads it. */
static struct device_message take(struct world *world, const struct life *life, char path[64]) {
        struct device_message message;

        memcpy(world->sent[0], life->request, life->request_size);
        world->sent_size[0] = life->request_size;
        world->sent_count = 1;
        world->sent_read = 0;
        message = world_take(world);
        if (path)
                world_path(world, path, 64);
        return message;
}

void device_asks(const struct explorer *x, uint8_t *ret_method, char path[64]) {
        static struct world scratch;

        *ret_method = take(&scratch, &x->life, path).code;
}

void device_hear(struct explorer *x, const struct answer *answer) {
        static struct world scratch;
        const struct device_message request = take(&scratch, &x->life, NULL);
        const struct world_reply reply = {
                .code = answer->code,
                .format = answer->format == 0  ? WORLD_ZERO
                          : answer->format < 0 ? 0
                                               : answer->format,
                .max_age = answer->max_age_sec == 0  ? WORLD_ZERO
                           : answer->max_age_sec < 0 ? 0
                                                     : (int)answer->max_age_sec,
                .body = answer->body,
                .size = answer->size,
        };

        world_answer(begin(x), &request, reply);
        end(x, 0);
}

bool device_waits(const struct life *life) {
        return life->request_size > 0 && device_is_online(&life->world.sim_device);
}

bool device_is_connecting(const struct life *life) {
        return life->world.is_connecting;
}

/* Somebody pressed the button. */
void device_visited(struct explorer *x) {
        struct world *world = begin(x);

        world->wake = device_factory_reset(&world->sim_device);
        end(x, 0);
}

const struct device_key *device_newest(const struct life *life) {
        const struct device_memory *flash = &life->world.flash;

        return flash->has_newest ? &flash->slot[flash->newest] : NULL;
}

const struct device_key *device_other(const struct life *life) {
        const struct device_memory *flash = &life->world.flash;
        const struct device_key *key = &flash->slot[flash->has_newest ? 1 - flash->newest : 0];

        return key->identity_size > 0 && (flash->has_newest || flash->has_pending) ? key : NULL;
}

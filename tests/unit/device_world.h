/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A device between a clock, a flash and a gateway that all do what a test says. Inline, because every
 * other file in this folder is linked into every unit test. */

#include "tests/unit/support.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/device.h"
#include "tests/sim/device_cbor.h"

#define WORLD_DAY      UINT64_C(86400000)
#define WORLD_SENT_MAX 16

/* The types of CoAP messages. */
enum { WORLD_CON = 0, WORLD_NON = 1, WORLD_ACK = 2, WORLD_RST = 3 };

struct world {
        struct device device;
        struct device_config config;
        bool attests;
        uint64_t now;
        uint64_t wake; /* what the device returned last */
        uint32_t dice;

        /* What the device did. */
        struct device_key key; /* of the latest connect() */
        size_t anchors_size;   /* likewise */
        uint8_t anchors[DEVICE_ANCHORS_MAX];
        unsigned requests; /* for certificates, made */
        bool matches_none;
        unsigned connects, disconnects, stores;
        bool is_connecting;
        struct device_memory flash;
        bool flash_is_broken;
        uint8_t sent[WORLD_SENT_MAX][DEVICE_DATAGRAM_MAX];
        size_t sent_size[WORLD_SENT_MAX];
        unsigned sent_count, sent_read;
        unsigned events[32]; /* by kind */

        uint16_t message_id; /* of the gateway's own messages */
};

/* ---- the device's side ---- */

static inline uint64_t world_port_now(void *user) {
        return ((struct world *)user)->now;
}

static inline void world_port_random(void *user, void *data, size_t size) {
        struct world *world = user;
        uint8_t *at = data;

        while (size-- > 0) {
                world->dice = world->dice * 1664525 + 1013904223;
                *at++ = (uint8_t)(world->dice >> 24);
        }
}

static inline void world_port_connect(void *user, const struct device_key *key, struct device_bytes anchors) {
        struct world *world = user;

        world->key = *key;
        assert_true(anchors.size <= sizeof world->anchors);
        world->anchors_size = anchors.size;
        if (anchors.size > 0)
                memcpy(world->anchors, anchors.data, anchors.size);
        world->connects++;
        world->is_connecting = true;
}

static inline void world_port_disconnect(void *user) {
        struct world *world = user;

        world->disconnects++;
        world->is_connecting = false;
}

static inline int world_port_send(void *user, const uint8_t *datagram, size_t size) {
        struct world *world = user;

        assert_true(size <= DEVICE_DATAGRAM_MAX);
        if (world->sent_count == WORLD_SENT_MAX) /* what is not read is lost */
                world->sent_count = world->sent_read = 0;
        memcpy(world->sent[world->sent_count], datagram, size);
        world->sent_size[world->sent_count++] = size;
        return 0;
}

static inline int world_port_store(void *user, const struct device_memory *memory) {
        struct world *world = user;

        if (world->flash_is_broken)
                return -1;
        world->flash = *memory;
        world->stores++;
        return 0;
}

/* Not a signature: enough to see that it was asked for. */
static inline int world_port_sign(void *user, const uint8_t *message, size_t size, uint8_t signature[64]) {
        (void)user;
        memset(signature, (int)(message[size - 1]), 64);
        return 0;
}

/* Neither keys nor requests, but each one another; a certificate is for the key whose first byte it names. */
static inline size_t world_port_request(void *user, struct device_bytes certificate, struct device_key *key,
                                        uint8_t *csr, size_t capacity) {
        struct world *world = user;
        uint8_t number = (uint8_t)++world->requests;

        assert_true(capacity >= 300);
        assert_int_equal(certificate.size, world->key.certificate_size);
        assert_memory_equal(certificate.data, world->key.certificate, certificate.size);
        memset(key->key, number, 32);
        key->key_size = 32;
        memset(csr, number, 300);
        return 300;
}

static inline int world_port_matches(void *user, struct device_key *key, struct device_bytes certificate) {
        const struct world *world = user;

        if (world->matches_none || certificate.size != 42 || certificate.data[2] != key->key[0])
                return -1;
        key->identity_size = (uint8_t)snprintf((char *)key->identity, sizeof key->identity, "cert-%u", key->key[0]);
        return 0;
}

static inline void world_port_event(void *user, const struct device_event *event) {
        ((struct world *)user)->events[event->kind]++;
}

/* Its power comes (back): everything but the flash is as new. Changes to `config` take effect here. */
static inline void world_power_up(struct world *world) {
        const struct device_port port = {
                .user = world,
                .now = world_port_now,
                .random = world_port_random,
                .connect = world_port_connect,
                .disconnect = world_port_disconnect,
                .send = world_port_send,
                .store = world_port_store,
                .sign = world->attests ? world_port_sign : NULL,
                .request = world_port_request,
                .matches = world_port_matches,
                .event = world_port_event,
        };

        world->sent_count = world->sent_read = 0;
        world->is_connecting = false;
        device_init(&world->device, &world->config, &port, &world->flash);
        world->wake = device_tick(&world->device);
}

static inline struct world *world_new(void) {
        static const uint8_t measurement[32] = { 1, 2, 3 }, ueid[33] = { 1, 9 };
        struct world *world = calloc(1, sizeof *world);

        assert_non_null(world);
        world->now = 1000;
        world->config = (struct device_config){
                .id = "sensor-1",
                .factory_key = (const uint8_t *)"0123456789abcdef",
                .factory_key_size = 16,
                .claims = { ueid, sizeof ueid, "firmware", "1.0", measurement },
                .observes = true,
        };
        return world;
}

/* Lets time pass; the device is called when it asked to be. */
static inline void world_wait(struct world *world, uint64_t ms) {
        uint64_t until = world->now + ms;

        while (world->wake <= until) {
                world->now = world->wake > world->now ? world->wake : world->now;
                world->wake = device_tick(&world->device);
                assert_true(world->wake > world->now); /* or it would never sleep */
        }
        world->now = until;
}

/* Waits until the device begins a handshake, at most `ms`. */
static inline void world_await_connect(struct world *world, uint64_t ms) {
        uint64_t until = world->now + ms;
        unsigned before = world->connects;

        assert_false(world->is_connecting); /* it did so already */
        while (world->connects == before && world->wake <= until) {
                world->now = world->wake > world->now ? world->wake : world->now;
                world->wake = device_tick(&world->device);
        }
        assert_int_equal(world->connects, before + 1);
}

static inline void world_accept(struct world *world) {
        world->is_connecting = false;
        world->wake = device_connected(&world->device);
}

static inline void world_refuse(struct world *world) {
        world->is_connecting = false;
        world->wake = device_refused(&world->device);
}

/* A handshake that meets silence, or an open session that ends. */
static inline void world_lose(struct world *world) {
        world->is_connecting = false;
        world->wake = device_lost(&world->device);
}

static inline bool world_shows(const struct world *world, const char *identity) {
        return world->key.identity_size == strlen(identity) &&
               memcmp(world->key.identity, identity, world->key.identity_size) == 0;
}

/* ---- the gateway's side ---- */

static inline bool world_is_silent(const struct world *world) {
        return world->sent_read == world->sent_count;
}

/* Passes over what it sent so far: retransmissions, say. */
static inline void world_overhear(struct world *world) {
        world->sent_read = world->sent_count;
}

/* The next message that the device sent. */
static inline struct device_message world_take(struct world *world) {
        struct device_message message;

        assert_false(world_is_silent(world));
        assert_true(device_message_parse(world->sent[world->sent_read], world->sent_size[world->sent_read], &message));
        world->sent_read++;
        return message;
}

/* Uri-Path of the message taken last, joined. */
static inline void world_path(const struct world *world, char *path, size_t size) {
        const uint8_t *at = world->sent[world->sent_read - 1], *end = at + world->sent_size[world->sent_read - 1];
        unsigned number = 0, delta, length;
        size_t used = 0;

        for (at += 4 + (at[0] & 15); at < end && *at != 0xff; at += length) {
                delta = *at >> 4;
                length = *at++ & 15;
                if (delta == 13)
                        delta = 13U + *at++;
                if (length == 13)
                        length = 13U + *at++;
                number += delta;
                if (number == 11) {
                        assert_true(used + length + 2 < size);
                        if (used > 0)
                                path[used++] = '/';
                        memcpy(path + used, at, length);
                        used += length;
                }
        }
        path[used] = 0;
}

static inline struct device_message world_expect(struct world *world, uint8_t method, const char *path) {
        struct device_message message = world_take(world);
        char found[64];

        world_path(world, found, sizeof found);
        assert_int_equal(message.code, method);
        assert_string_equal(found, path);
        assert_int_equal(message.type, WORLD_CON);
        return message;
}

static inline void world_expect_empty(struct world *world, uint8_t type, uint16_t id) {
        struct device_message message = world_take(world);

        assert_int_equal(message.code, 0);
        assert_int_equal(message.type, type);
        assert_int_equal(message.id, id);
}

struct world_reply {
        bool is_separate; /* a message of its own of this type; else piggy-backed */
        uint8_t type;
        uint8_t code;
        int format; /* and all below: 0 is none, WORLD_ZERO is the number 0 */
        int max_age, observe, block2, block1;
        const char *etag;
        const void *body;
        size_t size;
};
#define WORLD_ZERO       (-1)
#define WORLD_REPLY(...) ((struct world_reply){ __VA_ARGS__ })

static inline size_t world_option(uint8_t *at, unsigned *last, unsigned number, const void *value, size_t size) {
        size_t n = 0;
        unsigned delta = number - *last;

        at[n++] = (uint8_t)((delta < 13 ? delta : 13) << 4 | size);
        if (delta >= 13)
                at[n++] = (uint8_t)(delta - 13);
        memcpy(at + n, value, size);
        *last = number;
        return n + size;
}

static inline size_t world_number(uint8_t *at, unsigned *last, unsigned number, int value) {
        const uint8_t bytes[3] = { (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value };
        size_t skip = value < 0 ? 3 : value < 256 ? 2 : value < 65536 ? 1 : 0;

        return value == 0 ? 0 : world_option(at, last, number, bytes + skip, 3 - skip);
}

static inline void world_input(struct world *world, const void *data, size_t size) {
        world->wake = device_input(&world->device, data, size);
}

/* Sends a response with this request's token. */
static inline void world_answer(struct world *world, const struct device_message *request, struct world_reply reply) {
        uint8_t data[2048];
        uint8_t type = reply.is_separate ? reply.type : WORLD_ACK;
        uint16_t id = reply.is_separate ? ++world->message_id : request->id;
        unsigned last = 0;
        size_t n = 4;

        data[0] = (uint8_t)(1 << 6 | type << 4 | request->token_size);
        data[1] = reply.code;
        data[2] = (uint8_t)(id >> 8);
        data[3] = (uint8_t)id;
        memcpy(data + n, request->token, request->token_size);
        n += request->token_size;
        if (reply.etag)
                n += world_option(data + n, &last, 4, reply.etag, strlen(reply.etag));
        n += world_number(data + n, &last, 6, reply.observe);
        n += world_number(data + n, &last, 12, reply.format);
        n += world_number(data + n, &last, 14, reply.max_age);
        n += world_number(data + n, &last, 23, reply.block2);
        n += world_number(data + n, &last, 27, reply.block1);
        if (reply.size > 0) {
                data[n++] = 0xff;
                memcpy(data + n, reply.body, reply.size);
                n += reply.size;
        }
        world_input(world, data, n);
}

static inline void world_send_empty(struct world *world, uint8_t type, uint16_t id) {
        const uint8_t data[4] = { (uint8_t)(1 << 6 | type << 4), 0, (uint8_t)(id >> 8), (uint8_t)id };

        world_input(world, data, sizeof data);
}

static inline size_t world_grant_body(uint8_t *body, size_t capacity, const char *device, const char *kid) {
        struct device_cbor_writer writer = { body, 0, capacity, false };

        device_cbor_write_head(&writer, DEVICE_CBOR_TAG, 601);
        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 2);
        device_cbor_write_integer(&writer, 2);
        device_cbor_write_string(&writer, DEVICE_CBOR_TEXT, device, strlen(device));
        device_cbor_write_integer(&writer, 8);
        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 1);
        device_cbor_write_integer(&writer, 1);
        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 3);
        device_cbor_write_integer(&writer, 1);
        device_cbor_write_integer(&writer, 4);
        device_cbor_write_integer(&writer, 2);
        device_cbor_write_string(&writer, DEVICE_CBOR_BYTES, kid, strlen(kid));
        device_cbor_write_integer(&writer, -1);
        device_cbor_write_string(&writer, DEVICE_CBOR_BYTES, "abcdefghijklmnopqrstuvwxyz012345", 32);
        assert_false(writer.overflow);
        return writer.size;
}

static inline void world_grant(struct world *world, const struct device_message *request, const char *kid) {
        uint8_t body[200];
        size_t size = world_grant_body(body, sizeof body, "sensor-1", kid);

        world_answer(world, request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 4), .format = 601, .max_age = WORLD_ZERO, .body = body,
                                 .size = size));
}

static inline size_t world_me_body(uint8_t *body, size_t capacity, unsigned due) {
        struct device_cbor_writer writer = { body, 0, capacity, false };

        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 4);
        device_cbor_write_integer(&writer, 0);
        device_cbor_write_string(&writer, DEVICE_CBOR_TEXT, "sensor-1", 8);
        device_cbor_write_integer(&writer, 1);
        device_cbor_write_integer(&writer, 1);
        device_cbor_write_integer(&writer, 3);
        device_cbor_write_integer(&writer, 2592000);
        device_cbor_write_integer(&writer, 6);
        device_cbor_write_integer(&writer, due);
        assert_false(writer.overflow);
        return writer.size;
}

/* Answers GET /me, observed if it asked for that. */
static inline void world_me(struct world *world, const struct device_message *request, unsigned due, int max_age) {
        uint8_t body[64];
        size_t size = world_me_body(body, sizeof body, due);

        world_answer(world, request,
                     WORLD_REPLY(.code = DEVICE_CODE(2, 5), .format = 60, .max_age = max_age,
                                 .observe = request->has_observe ? 1 : 0, .body = body, .size = size));
}

/* From the factory to an idle device with the key `kid`; returns its request for /me. */
static inline struct device_message world_provision(struct world *world, const char *kid) {
        struct device_message request;

        world_power_up(world);
        world_await_connect(world, 10000);
        assert_true(world_shows(world, "sensor-1"));
        world_accept(world);
        request = world_expect(world, DEVICE_POST, "cred");
        world_grant(world, &request, kid);
        assert_true(world_shows(world, kid));
        world_accept(world);
        request = world_expect(world, DEVICE_GET, "me");
        world_me(world, &request, 0, 86400);
        assert_true(device_is_settled(&world->device) || !world->config.observes || world->config.wants_time);
        return request;
}

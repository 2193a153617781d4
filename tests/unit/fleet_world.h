/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The world of the fleet's property test: true time, a gateway that loses power and time, a lossy air,
 * thieves, and the invariants that are looked at after every step of the gateway. */

#include "tests/unit/devices_fixture.h"
#include "tests/unit/fleet_model.h"
#include "tests/unit/pki_fixture.h"

#define WORLD_DEVICES_MAX 1000
#define STOLEN_MAX        4

struct world_device {
        struct model_device model;
        enum fixture_profile profile;
        struct buffer idevid; /* the chain; empty where the profile has PSKs */
        int64_t wake_every, next_wake;
        int64_t content_at;                  /* the last time awake that ended with nothing left to do */
        struct model_key stolen[STOLEN_MAX]; /* in a thief's hands: taken from the device, or got with such a key */
        unsigned stolen_count;
        struct identity session; /* of the device, while it is awake */
        bool has_session;
        struct credential shadow[CREDENTIALS_MAX]; /* the device's keys as of the last look */
        size_t shadow_count;
        bool was_restricted;
};

struct world {
        uint64_t seed, random;
        int64_t now;       /* true time */
        struct fixture *f; /* store, configuration, turn */
        char *path;        /* of the store; NULL: in memory */
        struct clock clock;
        int64_t boot_at;     /* when the gateway was switched on */
        int64_t off_until;   /* it is off until then */
        int64_t wall_offset; /* what its calendar clock is wrong by */
        bool is_synchronized;
        unsigned boots, crashes, jumps, ticks;
        int64_t clock_recorded;
        int64_t on_sec; /* how long the gateway has been on */
        bool is_calm;   /* no faults any more */
        uint64_t next_session;
        struct world_device *devices;
        size_t device_count;
        uint64_t expected[EVENT_KINDS]; /* steps seen in the rows themselves */
        uint64_t wakes, handshakes, conflicts, refused_thieves;
        uint64_t expired_renewals; /* certificates that had run out and led to the next one */
        bool is_rescheduling;      /* the CA's generations changed: every device is to be looked at */
        struct calendar *window, *weekly;
        int64_t paused_until; /* no pause lasts longer, in powered-on time */
        unsigned orders;
        int64_t trimmed; /* when rows of certificates that ran out long ago were last removed */
};

/* Whether the device's credentials are certificates. */
static inline bool world_is_certified(const struct world_device *d) {
        return d->profile >= FIXTURE_CERTIFIED;
}

struct world *world_new(uint64_t seed, size_t devices, const char *path);
void world_free(struct world *world);
/* Lives until `until`; asserts the invariants on the way. */
void world_run(struct world *world, int64_t until);
/* Ends all faults, gives everybody time, and asserts that all is well. */
void world_settle(struct world *world);

/* Says which seed, when and which device, then fails the test. */
_Noreturn void world_fail(const struct world *world, const char *device, const char *format, ...) _printf_(3, 4);

/* fleet_operator.c: calendars for some profiles; orders, now and then. */
void world_hire(struct world *world);
void world_dismiss(struct world *world);
void world_operate(struct world *world);

/* fleet_invariants.c */
/* The device's keys have just been changed by the gateway, or may have: counts the steps that the rows show
 * and checks what must hold at any time. */
void world_look(struct world *world, struct world_device *device);
/* Every step seen is a row of the audit table, and its chain holds. */
void world_check_audit(struct world *world);

uint64_t world_random(struct world *world, uint64_t below);
/* True once in so many times, never in calm. */
bool world_strikes(struct world *world, uint64_t once_in);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One device and its gateway at one moment, as plain memory: what the explorer copies, compares and goes on from.
 * The device is the simulator's (tests/sim/device.c), the gateway is the real domain code over a real store whose
 * rows of this device are put in and taken out (gateway_side.c). */

#include "tests/unit/devices_fixture.h"

/* Both sides call theirs `struct device`; here the simulator's has another name. */
#define device sim_device
#include "tests/unit/device_world.h"
#undef device

#define LIFE_DEVICE  "sensor-1"
#define LIFE_FACTORY "factory key of " LIFE_DEVICE
#define THIEF_KEYS   6
#define REQUEST_MAX  512

/* The rows of the device in the store. */
struct rows {
        struct device device;
        size_t count;
        struct credential list[CREDENTIALS_MAX]; /* newest generation first */
        uint8_t secret[CREDENTIALS_MAX][SECRET_MAX];
        size_t secret_size[CREDENTIALS_MAX]; /* 0: wiped */
        struct due_time due;
};

/* A DTLS session as the gateway has it. */
struct line {
        session_handle handle; /* 0: none yet */
        char identity[DEVICE_ID_MAX + 1];
        struct moment connected;
        bool is_open;
        bool has_asked; /* POST /cred came over it: a copy of that may still be under way */
};

struct stolen_key {
        char identity[DEVICE_ID_MAX + 1];
        uint8_t key[SECRET_MAX];
        size_t key_size;
        bool was_granted; /* to the thief; else copied from the device's flash */
};

/* What may still happen; every event but those of an undisturbed course takes from one of these. */
struct budget {
        uint8_t faults;      /* messages lost or doubled, power cut on either side */
        uint8_t absences;    /* times the device is switched off for days */
        uint8_t orders;      /* `rotate` by an operator */
        uint8_t thefts;      /* copies of the device's flash */
        uint8_t thief_acts;  /* handshakes of the thief */
        uint8_t compromises; /* `rotate --compromised`; a visit may follow each */
        uint8_t restores;    /* of the gateway, from a backup that was made on the way */
        uint8_t clock_steps; /* of the gateway's calendar clock */
};

struct life {
        struct rows rows;
        struct world world; /* `now` is true time, in milliseconds since the beginning, for both sides */

        /* The request that the device waits for an answer to. */
        uint8_t request[REQUEST_MAX];
        size_t request_size;

        struct line line, line_before;
        session_handle next_handle;

        /* The gateway's clocks; its calendar clock is `clock_offset_sec` off. */
        struct clock clock;
        struct moment now;
        int64_t clock_offset_sec, booted_sec;
        unsigned boots;
        bool is_synchronized;

        struct stolen_key thief[THIEF_KEYS];
        size_t thief_count;
        bool is_betrayed; /* the thief was the first to show a key */
        bool is_declared; /* a compromise was declared after the theft */

        bool has_backup;
        struct rows backup;
        unsigned grants_since_backup; /* that reached the device's flash, until the restore */
        bool is_restored;

        struct budget budget;
        uint8_t attempts; /* of the device to connect, since it was last switched on or left alone for a day */
};

/* What an explorer works with: the life at hand, and the gateway's code that it runs through. */
struct explorer {
        struct fixture *gateway;
        enum fixture_profile profile;
        struct life life;
};

/* ---- gateway_side.c ---- */

void gateway_begin(struct explorer *x);
/* The store is to have the rows of x->life, to begin from; and then x->life those of the store. */
void gateway_load(struct explorer *x);
void gateway_save(struct explorer *x);
/* The store as it was when loaded. */
void gateway_undo(struct explorer *x);
/* Other rows take the place of those that are there. */
void gateway_replace(struct explorer *x, const struct rows *rows);
/* True time goes on to `until_ms`; the gateway ticks whenever something is due, but not sooner than `pace_sec` after
 * the last tick. */
void gateway_live(struct explorer *x, uint64_t until_ms, int64_t pace_sec);
void gateway_read_clock(struct explorer *x);

/* May a client with this key open a session now? */
bool gateway_knows(struct explorer *x, const void *identity, size_t size, const void *key, size_t key_size);
/* The gateway takes the completed handshake for done. False: it ends the session at once. */
bool gateway_connect(struct explorer *x, const void *identity, size_t size, struct line *ret);
struct answer {
        uint8_t code;
        int format; /* -1: none */
        int64_t max_age_sec;
        uint8_t body[512];
        size_t size;
};
/* Handles a request of that session. False: the session has ended, there is no answer. */
bool gateway_handle(struct explorer *x, struct line *line, uint8_t method, const char *path, struct answer *ret);
/* Core ended and began anew: the rows are as committed, no session of before exists. */
void gateway_core_restarts(struct explorer *x);
void gateway_rotate(struct explorer *x, bool is_compromised);
void gateway_open_window(struct explorer *x);
/* How the row of this identity stands; KEY_DESTROYED: there is none. */
const struct credential *rows_find(const struct rows *rows, const char *identity, size_t *ret_index);

/* ---- device_side.c ---- */

void device_begin(struct explorer *x);
/* Switched on, with what is in its flash. */
void device_power_up(struct explorer *x);
void device_wake(struct explorer *x);
void device_hear_connected(struct explorer *x);
void device_hear_refused(struct explorer *x);
void device_hear_nothing(struct explorer *x);
/* What the device asks. */
void device_asks(const struct explorer *x, uint8_t *ret_method, char path[64]);
void device_hear(struct explorer *x, const struct answer *answer);
bool device_waits(const struct life *life); /* for an answer */
bool device_is_connecting(const struct life *life);
void device_visited(struct explorer *x); /* factory reset */
/* Its keys by slot: newest, pending or second; NULL where there is none. */
const struct device_key *device_newest(const struct life *life);
const struct device_key *device_other(const struct life *life);

/* ---- state.c ---- */

#define STATE_HASH_BYTES 16
struct packed {
        size_t size;
        uint64_t words[];
};
struct packed *life_pack(const struct life *life);
void life_unpack(const struct packed *packed, struct life *life);
/* Of everything that decides what may happen next: keys are named by their order, moments by their age. */
void life_hash(const struct life *life, uint8_t ret[STATE_HASH_BYTES]);
/* One line for people. */
void life_print(const struct life *life);
/* Has the key in use, and nothing is left to do. */
bool life_is_settled(const struct life *life);
/* Some key in the device's flash is one that the gateway takes. */
bool life_shares_key(const struct explorer *x, const struct life *life);

/* ---- happenings.c: what can happen ---- */

struct happening {
        uint8_t kind;
        uint8_t argument;
};
#define HAPPENINGS_MAX 64
/* What may happen now; the first, where `ret_is_course`, is what does if nothing disturbs. */
size_t happenings(struct explorer *x, struct happening ret[HAPPENINGS_MAX], bool *ret_is_course);
void happen(struct explorer *x, struct happening happening);
void happening_print(struct happening happening);

/* ---- search.c ---- */

struct search {
        const char *name;
        enum fixture_profile profile;
        bool is_provisioned; /* begins with a device that has its first key */
        struct budget budget;
};
/* Visits every state that can be reached, and holds each against the properties that search.c names. Fails the test
 * with the shortest course of events that leads to a state that breaks one. */
void search_all(const struct search *search);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A gateway's domain code without its processes: a real store, a configuration made here, a clock that
 * the test moves. For the tests of devices/ and of what works with them. */

#include "config/config.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/exchange.h"
#include "gatewayd/turn.h"
#include "store/audit.h"
#include "store/credentials.h"

#define FIXTURE_DAY   INT64_C(86400)
#define FIXTURE_START INT64_C(1790000000)

/* Profiles by index; all rotate every 30 days, jitter 0, grace 7 days, max_age 90 days. */
enum fixture_profile {
        FIXTURE_PLAIN,  /* "plain": no attestation, on_conflict allow, factory window, restrict */
        FIXTURE_ATTEST, /* "attest": attests every 7 days, on_conflict attest, factory attest, restrict */
        FIXTURE_STRICT, /* "strict": as attest, but on_conflict quarantine, factory refuse, overdue quarantine */
        FIXTURE_KEEP,   /* "keep": as plain, but overdue keep; text grants */
        /* The same four with certificates: anchor of manufacturer 0, valid for 45 days, due at two thirds. */
        FIXTURE_CERTIFIED,
        FIXTURE_CERTIFIED_ATTEST,
        FIXTURE_CERTIFIED_STRICT,
        FIXTURE_CERTIFIED_KEEP,
        FIXTURE_AUTOMATIC, /* "automatic": as certified plain, but manufacturer 1 enrols by its anchor, id in the SAN */
        FIXTURE_PROFILES,
};

struct fixture {
        struct store *store;
        struct profile profiles[FIXTURE_PROFILES];
        struct config config;
        struct turn turn;
        uint64_t next_session;
        struct problem problem;           /* of the last function that failed */
        enum certificate_verdict verdict; /* of the last handshake with a certificate */
};

void fixture_profiles(struct profile profiles[FIXTURE_PROFILES]);
struct fixture *fixture_new(void);
void fixture_free(struct fixture *f);
/* cmocka's setup and teardown. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Both clocks move on. */
void fixture_pass(struct fixture *f, int64_t seconds);
/* Runs the tick until nothing is due any more, and commits. */
void fixture_tick(struct fixture *f);
/* Both, in steps of at most a day. */
void fixture_pass_ticking(struct fixture *f, int64_t seconds);
void fixture_commit(struct fixture *f);

/* A P-256 public key, SubjectPublicKeyInfo in DER; the same for the whole run. */
struct bytes fixture_attestation_key(void);
/* Registers a device whose factory PSK is "factory key of <id>"; with an attestation key where the profile attests. */
void fixture_add(struct fixture *f, const char *id, enum fixture_profile profile);

/* A handshake with the key of `identity`, as core would see it: question, then completion. 0 and the
 * identity, or the error of whichever refused. */
int fixture_connect(struct fixture *f, const char *identity, struct identity *ret);
/* The same, begun before the successor of the key was proven. */
int fixture_connect_early(struct fixture *f, const char *identity, struct identity *ret);
/* A request on that session, authorised and in its savepoint as core does it; the identity is read anew.
 * Returns the code. Free the payload. */
uint8_t fixture_request(struct fixture *f, struct identity *from, uint8_t method, const char *path, int32_t accept,
                        struct bytes payload, struct reply *reply);
/* The same with a body of that content format. */
uint8_t fixture_post(struct fixture *f, struct identity *from, const char *path, int32_t content_format, int32_t accept,
                     struct bytes payload, struct reply *reply);
/* POST /cred; the kid of the grant in `kid` when it is 2.04. */
uint8_t fixture_cred(struct fixture *f, struct identity *from, char kid[DEVICE_ID_MAX + 1], struct secret *key);
/* Takes an answer of /cred in format 601 apart. */
void fixture_grant(struct bytes payload, char kid[DEVICE_ID_MAX + 1], struct secret *key);
/* GET /me: the bits of `due`; -1 when refused. */
int fixture_due(struct fixture *f, struct identity *from);
/* What affirming evidence in this session does. */
void fixture_attest(struct fixture *f, struct identity *from);
/* From the factory key to a confirmed operational key; its kid in `kid`. */
void fixture_provision(struct fixture *f, const char *id, char kid[DEVICE_ID_MAX + 1]);
/* One rotation over `kid`, confirmed; the new kid in its place. */
void fixture_rotate(struct fixture *f, char kid[DEVICE_ID_MAX + 1]);

struct device fixture_device(struct fixture *f, const char *id);
/* KEY_DESTROYED where there is no row. */
enum key_state fixture_state(struct fixture *f, const char *identity);
/* How many audit rows of this kind the device has. */
size_t fixture_audited(struct fixture *f, const char *device, enum event_kind kind);
/* How many effects of this kind are in the turn since the last commit. */
size_t fixture_effects(struct fixture *f, enum effect_kind kind, const char *device);

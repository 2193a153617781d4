/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the crash harness knows apart from core: its devices, what core has granted and answered. */

#include <openssl/evp.h>

#include "tests/system/crash_gateway.h"
#include "tests/unit/fleet_model.h"

#define GRANTS_MAX   64
#define RECEIPTS_MAX 64
#define DAY          INT64_C(86400)

/* A credential whose reply left core. */
struct granted {
        struct model_key key;
        struct buffer chain; /* of a certificate */
        bool may_be_over;    /* a sibling or a successor of it was used since, or the device was revoked */
};

struct crash_device {
        struct model_device model;
        bool is_certified;
        EVP_PKEY *attestation;        /* NULL: it does not attest */
        const struct model_key *over; /* the key of the session */
        session_handle session;
        struct granted grants[GRANTS_MAX];
        size_t grant_count;
        EVP_PKEY *key; /* of the certificate it is asking for */
        struct buffer csr;
        struct buffer evidence; /* that it has sent and has no answer to */
        bool forgets;           /* loses the next grant after it came, once */
        bool has_forgotten;
};

struct receipt {
        uint64_t sequence;
        uint8_t evidence[32]; /* SHA-256 */
};

struct world {
        struct gateway g;
        struct crash_device device;
        bool is_ended; /* an operator ended the device: nothing opens for it any more */
        /* Receipts answered 2.01, and records that north was sent. */
        struct receipt answered[RECEIPTS_MAX], sent[RECEIPTS_MAX];
        size_t answered_count, sent_count, answered_before;
        bool is_uplink_up; /* north acknowledges */
        unsigned crashes;
        int64_t pairs;                  /* where core ends again while it recovers; 0: nowhere */
        char before[DEVICE_ID_MAX + 1]; /* the device's key when the scenario began */
};

/* crash_device.c */
struct world *world_free(struct world *w);
/* One time awake; whether the device is content. */
bool device_wake(struct world *w);
/* Sends its evidence, or what it has no answer to, in the session of now. The code, or -1. */
int device_attest(struct world *w);
/* Awake until it is content. 0 or GONE; gives up, and says so, after many times. */
int device_content(struct world *w);
/* Takes notes of what north is sent. */
void world_record(void *userdata, const struct message_record *record);
/* After each start of core: whatever was granted opens a handshake. */
int world_check_grants(struct world *w);

/* crash_check.c */
/* Opens the store of a core that has ended in order, and looks at all that must hold then. */
void world_check_store(struct world *w);
/* The same of a copy of what a killed core has left, before the next one touches it: what must hold at any time. */
void world_check_remains(struct world *w);

/* crash_folder.c: files at the top of a folder. */
void folder_copy(const char *from, const char *to);
void folder_remove(const char *path);

/* crash_scenarios.c. A step is done again after a crash until it is done: 0, or GONE. Each says so itself when
 * something is not as it must be. */
typedef int (*crash_step)(struct world *w);
struct scenario {
        const char *name;
        const char *settings; /* of the configuration, beside the profiles; NULL: none */
        bool is_certified, attests, forgets;
        crash_step before[12]; /* without crashes, to where it begins; ends with NULL */
        crash_step steps[12];
};
extern const struct scenario scenarios[];
extern const size_t scenario_count;

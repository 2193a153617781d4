/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The registry's rows: one per device. */

#include "store/store.h"

#define DEVICE_ID_MAX       64
#define ATTESTATION_KEY_MAX 256 /* SubjectPublicKeyInfo, DER */

/* Where a device stands; what it may do follows from this and from its credential
 * (gatewayd/devices/lifecycle.h). */
enum standing {
        STANDING_REGISTERED, /* has its bootstrap credential only */
        STANDING_OPERATIONAL,
        STANDING_RESTRICTED,  /* overdue: renewal only */
        STANDING_QUARANTINED, /* /me and /rats only, until an operator or an affirming result says otherwise */
        STANDING_REVOKED,     /* nothing; kept so that its id and keys stay refused */
        STANDING_NEEDS_VISIT, /* compromised and without another way to prove itself */
};

enum tier { TIER_NONE = 0, TIER_AFFIRMING = 2, TIER_WARNING = 32, TIER_CONTRAINDICATED = 96 };

/* Bits of /me's `due` (PROTOCOL.md). */
enum { DUE_ROTATE = 1, DUE_ATTEST = 2, DUE_ANCHORS = 4 };

struct device {
        char id[DEVICE_ID_MAX + 1];
        char profile[65];
        enum standing standing;
        struct moment registered;
        struct moment last_seen;
        uint32_t generation;                          /* of the newest operational key issued; 0 none */
        uint8_t attestation_key[ATTESTATION_KEY_MAX]; /* DER SubjectPublicKeyInfo; size 0: none */
        size_t attestation_key_size;
        enum tier tier;               /* of the latest appraisal */
        struct moment appraised;      /* when; unset: never */
        struct moment affirmed;       /* latest affirming appraisal; unset: never */
        struct moment evidence_last;  /* latest evidence accepted, whatever its tier */
        int64_t window_until_powered; /* a technician's reset window is open until then (powered-on seconds); 0 closed */
        unix_sec window_until_wall;
        uint32_t due;       /* bits last announced */
        bool is_conflicted; /* credential conflict not yet resolved by evidence or an operator */
        struct moment conflicted;
        bool is_compromised; /* old keys prove nothing until attested anew */
        struct moment compromised;
        uint64_t dropped_grants; /* pre-active keys dropped because four were open */
        uint64_t handshakes, handshakes_without_fs;
        uint32_t anchors; /* the newest CA generation it has fetched through /crts; 0 none */
};

int device_insert(struct store *store, const struct device *device); /* -EEXIST */
int device_update(struct store *store, const struct device *device);
int device_get(struct store *store, struct bytes id, struct device *ret);
/* Removes the device with its credentials, challenges, enrolments, IDevID and schedule. Its evidence and audit
 * rows stay; so do its certificates, revoked (cessation of operation) at the store's recorded time. */
int device_remove(struct store *store, const char *id);

typedef int (*device_visitor)(void *userdata, const struct device *device);
/* In order of id, from the first id greater than `after` (NULL: from the start), at most `limit`. A
 * visitor's non-zero result ends the walk and is returned. */
int device_each(struct store *store, const char *after, size_t limit, device_visitor visit, void *userdata);
struct device_counts {
        uint64_t by_standing[6];
        uint64_t by_tier[4]; /* none, affirming, warning, contraindicated */
        uint64_t rotation_due, attestation_due, total;
};
int device_count(struct store *store, struct device_counts *ret);

/* When a device next needs a look, by either clock; one row per device, indexed on both. */
struct due_time {
        unix_sec wall;       /* INT64_MAX: never */
        int64_t powered_sec; /* INT64_MAX: never */
};
int schedule_set(struct store *store, const char *device, const struct due_time *due);
int schedule_get(struct store *store, const char *device, struct due_time *ret);
/* Ids of up to `limit` devices due at `now` by either clock, the longest due first; cost O(result).
 * Returns how many. */
ssize_t schedule_due(struct store *store, const struct moment *now, size_t limit, char (*ret_ids)[DEVICE_ID_MAX + 1]);
/* The earliest due time of all. -ENOENT when nothing is scheduled. */
int schedule_earliest(struct store *store, struct due_time *ret);

/* SPDX-License-Identifier: Apache-2.0 */

/* The registry's rows, and when each device next needs a look. */

#include "store/internal.h"
#include "store/devices.h"

#include <errno.h>

#include <openssl/sha.h>

#define MOMENT(name) name "_wall, " name "_powered, " name "_quality, "
#define DEVICE_COLUMNS                                                                                                 \
        "profile, standing, " MOMENT("registered") MOMENT("last_seen") "generation, attestation_key, tier, " MOMENT(   \
                "appraised") MOMENT("affirmed")                                                                        \
                MOMENT("evidence_last") "window_until_powered, window_until_wall, due, is_conflicted, " MOMENT(        \
                        "conflicted") "is_compromised, " MOMENT("compromised") "dropped_grants, handshakes, "          \
                                                                               "handshakes_without_fs, anchors"
#define DEVICE_VALUES "?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?,?, ?,?,?, ?, ?,?,?, ?,?,?, ?"

/* By what the attestation key is found as another's public key; null without one. */
struct key_digest {
        uint8_t bytes[SHA256_DIGEST_LENGTH];
        size_t size;
};

static struct key_digest digest_of(struct bytes key) {
        struct key_digest digest = { 0 };

        if (key.size > 0) {
                SHA256(key.data, key.size, digest.bytes);
                digest.size = sizeof digest.bytes;
        }
        return digest;
}

static void put_device(struct query *q, const struct device *d, const struct key_digest *digest) {
        query_put_text(q, d->profile);
        query_put_int(q, d->standing);
        query_put_moment(q, &d->registered);
        query_put_moment(q, &d->last_seen);
        query_put_int(q, d->generation);
        query_put_blob(q, BYTES(d->attestation_key, d->attestation_key_size));
        query_put_int(q, d->tier);
        query_put_moment(q, &d->appraised);
        query_put_moment(q, &d->affirmed);
        query_put_moment(q, &d->evidence_last);
        query_put_int(q, d->window_until_powered);
        query_put_int(q, d->window_until_wall);
        query_put_int(q, d->due);
        query_put_int(q, d->is_conflicted);
        query_put_moment(q, &d->conflicted);
        query_put_int(q, d->is_compromised);
        query_put_moment(q, &d->compromised);
        query_put_int(q, (int64_t)d->dropped_grants);
        query_put_int(q, (int64_t)d->handshakes);
        query_put_int(q, (int64_t)d->handshakes_without_fs);
        query_put_int(q, d->anchors);
        query_put_blob(q, BYTES(digest->bytes, digest->size));
        query_put_text(q, d->id);
}

static int get_device(struct query *q, struct device *d) {
        struct bytes key;

        *d = (struct device){ 0 };
        query_get_text(q, d->profile, sizeof d->profile);
        d->standing = (enum standing)query_get_int(q);
        query_get_moment(q, &d->registered);
        query_get_moment(q, &d->last_seen);
        d->generation = (uint32_t)query_get_int(q);
        key = query_get_blob(q);
        if (key.size > sizeof d->attestation_key)
                return -EUCLEAN;
        if (key.size > 0)
                memcpy(d->attestation_key, key.data, key.size);
        d->attestation_key_size = key.size;
        d->tier = (enum tier)query_get_int(q);
        query_get_moment(q, &d->appraised);
        query_get_moment(q, &d->affirmed);
        query_get_moment(q, &d->evidence_last);
        d->window_until_powered = query_get_int(q);
        d->window_until_wall = query_get_int(q);
        d->due = (uint32_t)query_get_int(q);
        d->is_conflicted = query_get_int(q) != 0;
        query_get_moment(q, &d->conflicted);
        d->is_compromised = query_get_int(q) != 0;
        query_get_moment(q, &d->compromised);
        d->dropped_grants = (uint64_t)query_get_int(q);
        d->handshakes = (uint64_t)query_get_int(q);
        d->handshakes_without_fs = (uint64_t)query_get_int(q);
        d->anchors = (uint32_t)query_get_int(q);
        query_get_text(q, d->id, sizeof d->id);
        return q->error;
}

static bool is_storable(const struct device *device) {
        return device->id[0] != '\0' && device->attestation_key_size <= sizeof device->attestation_key;
}

int device_insert(struct store *store, const struct device *device) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO device (" DEVICE_COLUMNS ", attestation_digest, id)"
                                 " VALUES (" DEVICE_VALUES ", nullif(?, x''), ?)");
        struct key_digest digest;
        int r;

        if (!is_storable(device))
                return -EINVAL;
        digest = digest_of(BYTES(device->attestation_key, device->attestation_key_size));
        put_device(&q, device, &digest);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int device_update(struct store *store, const struct device *device) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE device SET (" DEVICE_COLUMNS ", attestation_digest)"
                                 " = (" DEVICE_VALUES ", nullif(?, x'')) WHERE id = ?");
        struct key_digest digest;
        int r;

        if (!is_storable(device))
                return -EINVAL;
        digest = digest_of(BYTES(device->attestation_key, device->attestation_key_size));
        put_device(&q, device, &digest);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int device_get(struct store *store, struct bytes id, struct device *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " DEVICE_COLUMNS ", id FROM device WHERE id = ?");
        int r;

        query_put_text_bytes(&q, id);
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_device(&q, ret);
}

static int remove_where_device(struct store *store, const char *sql, const char *id) {
        _cleanup_(query_end) struct query q = query_new(store, sql);

        query_put_text(&q, id);
        return query_run(&q);
}

/* The device's certificates are revoked, its IDevID and enrolments go by the schema's trigger: when an older
 * gatewayd removes it, too. */
int device_remove(struct store *store, const char *id) {
        int r = remove_where_device(store, "DELETE FROM device WHERE id = ?", id);

        if (r == 0)
                return -ENOENT;
        if (r > 0)
                r = remove_where_device(store, "DELETE FROM credential WHERE device = ?", id);
        if (r >= 0)
                r = remove_where_device(store, "DELETE FROM challenge WHERE device = ?", id);
        if (r >= 0)
                r = remove_where_device(store, "DELETE FROM schedule WHERE device = ?", id);
        return r < 0 ? r : 0;
}

/* One device whose attestation key an older gatewayd wrote. 1: done; 0: there is none. */
static int digest_one(struct store *store) {
        struct key_digest digest;
        int64_t number;
        int r;

        {
                _cleanup_(query_end) struct query q =
                        query_new(store, "SELECT number, attestation_key FROM device"
                                         " WHERE attestation_digest IS NULL AND attestation_key <> x'' LIMIT 1");
                r = query_step(&q);
                if (r <= 0)
                        return r;
                number = query_get_int(&q);
                digest = digest_of(query_get_blob(&q));
        }

        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE device SET attestation_digest = ? WHERE number = ?");
        query_put_blob(&q, BYTES(digest.bytes, digest.size));
        query_put_int(&q, number);
        return query_run(&q);
}

int device_digest_all(struct store *store) {
        int r;

        do
                r = digest_one(store);
        while (r > 0);
        if (r == 0)
                r = store_commit(store, NULL);
        store->turn = 0; /* turns are counted from the opening on */
        return r;
}

int device_each(struct store *store, const char *after, size_t limit, device_visitor visit, void *userdata) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " DEVICE_COLUMNS ", id FROM device WHERE id > ? ORDER BY id LIMIT ?");
        struct device device;
        int r;

        query_put_text(&q, after);
        query_put_int(&q, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
        while ((r = query_step(&q)) > 0) {
                r = get_device(&q, &device);
                if (r == 0)
                        r = visit(userdata, &device);
                if (r != 0)
                        return r;
        }
        return r;
}

static int tier_slot(int64_t tier) {
        switch (tier) {
        case TIER_NONE:
                return 0;
        case TIER_AFFIRMING:
                return 1;
        case TIER_WARNING:
                return 2;
        default:
                return 3;
        }
}

int device_count(struct store *store, struct device_counts *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT what, value, n FROM tally WHERE what IN ('standing', 'tier', 'due')");
        char what[16];
        int r;

        *ret = (struct device_counts){ 0 };
        while ((r = query_step(&q)) > 0) {
                int64_t value;
                uint64_t n;

                query_get_text(&q, what, sizeof what);
                value = query_get_int(&q);
                n = (uint64_t)query_get_int(&q);
                if (strcmp(what, "standing") == 0) {
                        ret->total += n;
                        if (value >= 0 && value < (int64_t)ELEMENTS(ret->by_standing))
                                ret->by_standing[value] += n;
                } else if (strcmp(what, "tier") == 0)
                        ret->by_tier[tier_slot(value)] += n;
                else if (value == DUE_ROTATE)
                        ret->rotation_due = n;
                else if (value == DUE_ATTEST)
                        ret->attestation_due = n;
        }
        return r < 0 ? r : q.error;
}

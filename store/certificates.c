/* SPDX-License-Identifier: Apache-2.0 */

/* Certificates of devices: a row each, with the DER. What is in force is counted by the schema's tally of
 * the days on which certificates run out, so that no count walks them. */

#include "store/internal.h"
#include "store/certificates.h"

#include <errno.h>

#define DAY_SEC INT64_C(86400)
#define DAY_MAX INT64_C(0xffffff) /* as the schema's LEAF_DAY: whatever is later stands there */

#define COLUMNS                                                                                                        \
        "fingerprint, device, issuer, serial, not_before, not_after, public_key, ski, csr, revoked, "                  \
        "revoked_at_wall, revoked_at_powered, revoked_at_quality"
#define VALUES "?1,?2,?3,?4,?5,?6,?7,?8,?9,?10, ?11,?12,?13"

_Static_assert(GENERATION_FOREIGN == 4294967295U && REVOKED_NOT == -1 && REVOKED_KEY_COMPROMISE == 1 &&
                       REVOKED_CESSATION == 5 && REVOKED_PRIVILEGE_WITHDRAWN == 9 && CREDENTIAL_LDEVID == 3 &&
                       STANDING_REVOKED == 4,
               "as the schema's statements say");

static bool is_storable(const struct certificate *c, struct bytes der) {
        return strlen(c->fingerprint) == sizeof c->fingerprint - 1 && c->device[0] != '\0' && c->serial_size > 0 &&
               c->serial_size <= sizeof c->serial && der.size > 0;
}

int certificate_insert(struct store *store, const struct certificate *c, struct bytes der) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO certificate (" COLUMNS ", der, has_credential) VALUES (" VALUES ", ?14,"
                                 " EXISTS (SELECT 1 FROM credential WHERE identity = ?1 AND kind = 3))");
        int r;

        if (!is_storable(c, der))
                return -EINVAL;
        query_put_text(&q, c->fingerprint);
        query_put_text(&q, c->device);
        query_put_int(&q, c->issuer);
        query_put_blob(&q, BYTES(c->serial, c->serial_size));
        query_put_int(&q, c->not_before);
        query_put_int(&q, c->not_after);
        query_put_blob(&q, BYTES(c->public_key, sizeof c->public_key));
        query_put_blob(&q, BYTES(c->ski, sizeof c->ski));
        query_put_blob(&q, BYTES(c->csr, sizeof c->csr));
        query_put_int(&q, c->revoked);
        query_put_moment(&q, &c->revoked_at);
        query_put_blob(&q, der);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

static int get_certificate(struct query *q, struct certificate *c) {
        struct bytes serial;

        *c = (struct certificate){ 0 };
        query_get_text(q, c->fingerprint, sizeof c->fingerprint);
        query_get_text(q, c->device, sizeof c->device);
        c->issuer = (uint32_t)query_get_int(q);
        serial = query_get_blob(q);
        if (serial.size > sizeof c->serial)
                return -EUCLEAN;
        if (serial.size > 0)
                memcpy(c->serial, serial.data, serial.size);
        c->serial_size = serial.size;
        c->not_before = query_get_int(q);
        c->not_after = query_get_int(q);
        query_get_fixed(q, c->public_key, sizeof c->public_key);
        query_get_fixed(q, c->ski, sizeof c->ski);
        query_get_fixed(q, c->csr, sizeof c->csr);
        c->revoked = (enum revocation_reason)query_get_int(q);
        query_get_moment(q, &c->revoked_at);
        return q->error;
}

/* The row that a bound query finds. */
static int get_one(struct query *q, struct certificate *ret) {
        int r = query_step(q);

        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_certificate(q, ret);
}

int certificate_get(struct store *store, const char *fingerprint, struct certificate *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM certificate WHERE fingerprint = ?");

        query_put_text(&q, fingerprint);
        return get_one(&q, ret);
}

int certificate_der(struct store *store, const char *fingerprint, struct buffer *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT der FROM certificate WHERE fingerprint = ?");
        int r;

        query_put_text(&q, fingerprint);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        buffer_append(ret, query_get_blob(&q));
        return 0;
}

int certificate_by_csr(struct store *store, const char *device, const uint8_t csr[CERTIFICATE_DIGEST_BYTES],
                       struct certificate *ret) {
        static const uint8_t none[CERTIFICATE_DIGEST_BYTES];
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM certificate WHERE device = ? AND csr = ?"
                                 " ORDER BY number DESC LIMIT 1");

        if (memcmp(csr, none, sizeof none) == 0)
                return -ENOENT;
        query_put_text(&q, device);
        query_put_blob(&q, BYTES(csr, CERTIFICATE_DIGEST_BYTES));
        return get_one(&q, ret);
}

int certificate_idevid(struct store *store, const char *device, struct certificate *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM certificate WHERE device = ? AND issuer = 4294967295"
                                 " ORDER BY number LIMIT 1");

        query_put_text(&q, device);
        return get_one(&q, ret);
}

int certificate_forget_idevid(struct store *store, const char *device) {
        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM certificate WHERE device = ? AND issuer = 4294967295");

        query_put_text(&q, device);
        return query_run(&q);
}

/* ---- whose key is it ---- */

static int find_owner(struct store *store, const char *sql, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES],
                      const char *device, char *ret_device) {
        _cleanup_(query_end) struct query q = query_new(store, sql);
        int r;

        query_put_blob(&q, BYTES(public_key, CERTIFICATE_DIGEST_BYTES));
        query_put_text(&q, device);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        query_get_text(&q, ret_device, DEVICE_ID_MAX + 1);
        return q.error;
}

int certificate_key_owner(struct store *store, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES], const char *device,
                          char *ret_device) {
        int r = find_owner(store, "SELECT device FROM certificate WHERE public_key = ? AND device <> ? LIMIT 1",
                           public_key, device, ret_device);

        if (r == -ENOENT)
                r = find_owner(store, "SELECT id FROM device WHERE attestation_digest = ? AND id <> ? LIMIT 1",
                               public_key, device, ret_device);
        /* One that waits for its certificate. */
        if (r == -ENOENT)
                r = find_owner(store,
                               "SELECT device FROM enrolment WHERE public_key = ? AND state = 0 AND device <> ?"
                               " LIMIT 1",
                               public_key, device, ret_device);
        return r;
}

int certificate_key_is_compromised(struct store *store, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES]) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT 1 FROM certificate WHERE public_key = ? AND revoked = 1 LIMIT 1");

        query_put_blob(&q, BYTES(public_key, CERTIFICATE_DIGEST_BYTES));
        return query_step(&q);
}

/* ---- revocation ---- */

static int revoke(struct store *store, const char *sql, const char *what, enum revocation_reason reason,
                  const struct moment *at) {
        _cleanup_(query_end) struct query q = query_new(store, sql);

        if (reason == REVOKED_NOT)
                return -EINVAL;
        query_put_int(&q, reason);
        query_put_moment(&q, at);
        query_put_text(&q, what);
        return query_run(&q);
}

#define SQL_REVOKE                                                                                                     \
        "UPDATE certificate SET (revoked, revoked_at_wall, revoked_at_powered, revoked_at_quality) = (?,?,?,?)"        \
        " WHERE revoked = -1 AND "

int certificate_revoke(struct store *store, const char *fingerprint, enum revocation_reason reason,
                       const struct moment *at) {
        struct certificate found;
        int r = revoke(store, SQL_REVOKE "fingerprint = ?", fingerprint, reason, at);

        if (r != 0)
                return r;
        return certificate_get(store, fingerprint, &found);
}

int certificate_revoke_device(struct store *store, const char *device, enum revocation_reason reason,
                              const struct moment *at) {
        return revoke(store, SQL_REVOKE "device = ?", device, reason, at);
}

int certificate_each_revoked(struct store *store, uint32_t issuer, unix_sec now, certificate_visitor visit,
                             void *userdata) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS " FROM certificate WHERE issuer = ? AND revoked <> -1"
                                 " AND not_after >= ? ORDER BY serial");
        struct certificate certificate;
        int r;

        query_put_int(&q, issuer);
        query_put_int(&q, now);
        while ((r = query_step(&q)) > 0) {
                r = get_certificate(&q, &certificate);
                if (r == 0)
                        r = visit(userdata, &certificate);
                if (r != 0)
                        return r;
        }
        return r;
}

/* ---- how many are in force ---- */

static int64_t day_of(unix_sec at) {
        int64_t day = at > 0 ? at / DAY_SEC : 0;

        return day < DAY_MAX ? day : DAY_MAX;
}

/* Those of the days after `day`, by the tally. */
static int64_t count_later(struct store *store, uint32_t issuer, int64_t day) {
        _cleanup_(query_end) struct query q = query_new(
                store, "SELECT coalesce(sum(n), 0) FROM tally WHERE what = 'leaves' AND value BETWEEN ? AND ?");
        int r;

        query_put_int(&q, ((int64_t)issuer << 24) + day + 1);
        query_put_int(&q, ((int64_t)issuer << 24) + DAY_MAX);
        r = query_step(&q);
        return r < 0 ? r : query_get_int(&q);
}

/* Those that run out on the day of `now`, but not before it. */
static int64_t count_today(struct store *store, uint32_t issuer, unix_sec now, int64_t day) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT count(*) FROM certificate WHERE issuer = ? AND revoked = -1"
                                 " AND not_after BETWEEN ? AND ?");
        int r;

        query_put_int(&q, issuer);
        query_put_int(&q, now);
        query_put_int(&q, day == DAY_MAX ? INT64_MAX : (day + 1) * DAY_SEC - 1);
        r = query_step(&q);
        return r < 0 ? r : query_get_int(&q);
}

static int latest_end(struct store *store, uint32_t issuer, unix_sec *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT not_after FROM certificate WHERE issuer = ? AND revoked = -1"
                                 " ORDER BY not_after DESC LIMIT 1");
        int r;

        query_put_int(&q, issuer);
        r = query_step(&q);
        if (r > 0)
                *ret = query_get_int(&q);
        return r < 0 ? r : q.error;
}

int64_t certificate_count(struct store *store, uint32_t issuer, unix_sec now, unix_sec *ret_last) {
        int64_t day = day_of(now), later, today;

        later = count_later(store, issuer, day);
        if (later < 0)
                return later;
        today = count_today(store, issuer, now, day);
        if (today < 0)
                return today;
        if (ret_last && later + today > 0) {
                int r = latest_end(store, issuer, ret_last);

                if (r < 0)
                        return r;
        }
        return later + today;
}

int certificate_trim(struct store *store, unix_sec before, size_t limit) {
        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM certificate WHERE number IN (SELECT number FROM certificate"
                                 " WHERE has_credential = 0 AND issuer <> 4294967295 AND revoked <> 1 AND not_after < ?"
                                 " ORDER BY not_after"
                                 " LIMIT ?)");

        query_put_int(&q, before);
        query_put_int(&q, limit > INT64_MAX ? INT64_MAX : (int64_t)limit);
        return query_run(&q);
}

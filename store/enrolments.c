/* SPDX-License-Identifier: Apache-2.0 */

/* Enrolments at the upstream CA: a row each with its CSR, from the asking until a while after the answer. */

#include "store/internal.h"
#include "store/enrolments.h"

#include <errno.h>

#define COLUMNS                                                                                                        \
        "device, is_renewal, csr, public_key, predecessor, state, asked_wall, asked_powered, asked_quality, "          \
        "answered_wall, answered_powered, answered_quality, retry_powered, http_status, reason, fingerprint"
#define VALUES "?,?,?,?,?,?, ?,?,?, ?,?,?, ?,?,?,?"

_Static_assert(ENROLMENT_WAITING == 0, "as the schema's indexes say");

static void put_enrolment(struct query *q, const struct enrolment *e) {
        query_put_text(q, e->device);
        query_put_int(q, e->is_renewal);
        query_put_blob(q, BYTES(e->csr, sizeof e->csr));
        query_put_blob(q, BYTES(e->public_key, sizeof e->public_key));
        query_put_text(q, e->predecessor);
        query_put_int(q, e->state);
        query_put_moment(q, &e->asked);
        query_put_moment(q, &e->answered);
        query_put_int(q, e->retry_powered_sec);
        query_put_int(q, e->http_status);
        query_put_text(q, e->reason);
        query_put_text(q, e->fingerprint);
}

static int get_enrolment(struct query *q, struct enrolment *e) {
        *e = (struct enrolment){ 0 };
        query_get_text(q, e->device, sizeof e->device);
        e->is_renewal = query_get_int(q) != 0;
        query_get_fixed(q, e->csr, sizeof e->csr);
        query_get_fixed(q, e->public_key, sizeof e->public_key);
        query_get_text(q, e->predecessor, sizeof e->predecessor);
        e->state = (enum enrolment_state)query_get_int(q);
        query_get_moment(q, &e->asked);
        query_get_moment(q, &e->answered);
        e->retry_powered_sec = query_get_int(q);
        e->http_status = (uint16_t)query_get_int(q);
        query_get_text(q, e->reason, sizeof e->reason);
        query_get_text(q, e->fingerprint, sizeof e->fingerprint);
        e->number = (uint64_t)query_get_int(q);
        return q->error;
}

int enrolment_insert(struct store *store, struct enrolment *enrolment, struct bytes csr_der) {
        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO enrolment (" COLUMNS ", csr_der) VALUES (" VALUES ", ?)");
        int r;

        if (csr_der.size == 0)
                return -EINVAL;
        put_enrolment(&q, enrolment);
        query_put_blob(&q, csr_der);
        r = query_run(&q);
        if (r < 0)
                return r;
        enrolment->number = (uint64_t)sqlite3_last_insert_rowid(store->db);
        return 0;
}

int enrolment_update(struct store *store, const struct enrolment *enrolment) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE enrolment SET (" COLUMNS ") = (" VALUES ") WHERE number = ?");
        int r;

        put_enrolment(&q, enrolment);
        query_put_int(&q, (int64_t)enrolment->number);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int enrolment_get(struct store *store, uint64_t number, struct enrolment *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS ", number FROM enrolment WHERE number = ?");
        int r;

        query_put_int(&q, (int64_t)number);
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_enrolment(&q, ret);
}

int enrolment_csr(struct store *store, uint64_t number, struct buffer *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT csr_der FROM enrolment WHERE number = ?");
        int r;

        query_put_int(&q, (int64_t)number);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        buffer_append(ret, query_get_blob(&q));
        return 0;
}

int enrolment_find(struct store *store, const char *device, const uint8_t public_key[CERTIFICATE_DIGEST_BYTES],
                   struct enrolment *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS ", number FROM enrolment WHERE device = ? AND public_key = ?"
                                 " ORDER BY number DESC LIMIT 1");
        int r;

        query_put_text(&q, device);
        query_put_blob(&q, BYTES(public_key, CERTIFICATE_DIGEST_BYTES));
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_enrolment(&q, ret);
}

ssize_t enrolment_due(struct store *store, int64_t now_powered, struct enrolment *ret, size_t max) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " COLUMNS ", number FROM enrolment WHERE state = 0 AND retry_powered <= ?"
                                 " ORDER BY retry_powered, number LIMIT ?");
        ssize_t count = 0;
        int r;

        query_put_int(&q, now_powered);
        query_put_int(&q, max > INT64_MAX ? INT64_MAX : (int64_t)max);
        while ((r = query_step(&q)) > 0) {
                r = get_enrolment(&q, &ret[count]);
                if (r < 0)
                        return r;
                count++;
        }
        return r < 0 ? r : count;
}

int64_t enrolment_count(struct store *store, enum enrolment_state state) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT n FROM tally WHERE what = 'enrolment' AND value = ?");
        int r;

        query_put_int(&q, state);
        r = query_step(&q);
        return r <= 0 ? r : query_get_int(&q);
}

int enrolment_trim(struct store *store, const struct moment *now, int64_t keep_sec) {
        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM enrolment WHERE state <> 0 AND answered_powered < ?");

        query_put_int(&q, now->powered_sec - keep_sec);
        return query_run(&q);
}

int enrolment_remove_device(struct store *store, const char *device) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM enrolment WHERE device = ?");

        query_put_text(&q, device);
        return query_run(&q);
}

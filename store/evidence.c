/* SPDX-License-Identifier: Apache-2.0 */

/* Evidence in custody, with its receipts, on the way upstream. A delivered record leaves its row behind,
 * without evidence and receipt, so that results that come later still find their device; parked
 * evidence stays for the operator. Both are bounded. */

#include "store/internal.h"
#include "store/evidence.h"

#include <errno.h>
#include <limits.h>

/* Rows of records that are over are removed once they are so many sequences old. */
#define OVER_KEEP 10000
/* A few at each delivery: more than one, so that an older, larger keep drains. */
#define OVER_REMOVED_AT_ONCE 8
#define PARKED_BYTES_MOST    ((int64_t)16 << 20)

#define CUSTODY_COLUMNS                                                                                                \
        "sequence, device, received_wall, received_powered, received_quality, content_format, nonce, tier, "           \
        "delivery, receipt, evidence"

static int advance_receipts(struct store *store, uint64_t sequence, const uint8_t receipt_hash[32]) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE meta SET next_sequence = ?1 + 1, last_receipt_hash = ?2"
                                 " WHERE id = 1 AND next_sequence = ?1");
        int r;

        query_put_int(&q, (int64_t)sequence);
        query_put_blob(&q, BYTES(receipt_hash, 32));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

static int next_sequence(struct store *store, uint64_t *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT next_sequence FROM meta WHERE id = 1");
        int r = query_step(&q);

        if (r <= 0)
                return r < 0 ? r : -EUCLEAN;
        *ret = (uint64_t)query_get_int(&q);
        return q.error;
}

int custody_insert(struct store *store, const struct custody *c, const uint8_t receipt_hash[32]) {
        uint64_t next;
        int r;

        r = next_sequence(store, &next);
        if (r < 0)
                return r;
        if (c->sequence != next)
                return c->sequence < next && c->sequence > 0 ? -EEXIST : -EINVAL; /* no gaps */

        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO custody (" CUSTODY_COLUMNS ", is_waiting, http_status, reason)"
                                 " VALUES (?,?, ?,?,?, ?,?,?, 0, ?,?, 1, 0, '')");
        query_put_int(&q, (int64_t)c->sequence);
        query_put_text(&q, c->device);
        query_put_moment(&q, &c->received);
        query_put_int(&q, c->content_format);
        query_put_blob(&q, BYTES(c->nonce, sizeof c->nonce));
        query_put_int(&q, c->tier);
        query_put_blob(&q, c->receipt);
        query_put_blob(&q, c->evidence);
        r = query_run(&q);
        return r < 0 ? r : advance_receipts(store, c->sequence, receipt_hash);
}

static int get_custody(struct query *q, struct custody *c) {
        *c = (struct custody){ 0 };
        c->sequence = (uint64_t)query_get_int(q);
        query_get_text(q, c->device, sizeof c->device);
        query_get_moment(q, &c->received);
        c->content_format = (int32_t)query_get_int(q);
        query_get_fixed(q, c->nonce, sizeof c->nonce);
        c->tier = (uint8_t)query_get_int(q);
        c->delivery = (enum delivery)query_get_int(q);
        c->receipt = query_get_blob(q);
        c->evidence = query_get_blob(q);
        return q->error;
}

int custody_waiting(struct store *store, uint64_t after, size_t limit, custody_visitor visit, void *userdata) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " CUSTODY_COLUMNS " FROM custody WHERE is_waiting = 1 AND sequence > ?"
                                 " ORDER BY sequence LIMIT ?");
        struct custody custody;
        int r, count = 0;

        query_put_int(&q, after > INT64_MAX ? INT64_MAX : (int64_t)after);
        query_put_int(&q, limit > INT_MAX ? INT_MAX : (int64_t)limit);
        while ((r = query_step(&q)) > 0) {
                r = get_custody(&q, &custody);
                if (r < 0)
                        return r;
                if (custody.delivery == DELIVERY_PARKED)
                        custody.evidence = (struct bytes){ 0 };
                r = visit(userdata, &custody);
                if (r != 0)
                        return r;
                count++;
        }
        return r < 0 ? r : count;
}

int custody_get(struct store *store, uint64_t sequence, custody_visitor visit, void *userdata) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " CUSTODY_COLUMNS " FROM custody WHERE sequence = ?");
        struct custody custody;
        int r;

        query_put_int(&q, (int64_t)sequence);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        r = get_custody(&q, &custody);
        return r < 0 ? r : visit(userdata, &custody);
}

static int tally_get(struct store *store, const char *what, int64_t value, int64_t *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT n FROM tally WHERE what = ? AND value = ?");
        int r;

        query_put_text(&q, what);
        query_put_int(&q, value);
        r = query_step(&q);
        if (r < 0)
                return r;
        *ret = r > 0 ? query_get_int(&q) : 0;
        return q.error;
}

static int remove_over(struct store *store, enum delivery delivery, uint64_t below, int at_most) {
        _cleanup_(query_end) struct query q =
                query_new(store, "DELETE FROM custody WHERE sequence IN (SELECT sequence FROM custody"
                                 " WHERE is_waiting = 0 AND delivery = ? AND sequence < ? ORDER BY sequence LIMIT ?)");

        query_put_int(&q, delivery);
        query_put_int(&q, (int64_t)below);
        query_put_int(&q, at_most);
        return query_run(&q);
}

static int trim_over(struct store *store) {
        int64_t parked_bytes;
        uint64_t next;
        int r;

        r = next_sequence(store, &next);
        if (r == 0 && next > OVER_KEEP)
                r = remove_over(store, DELIVERY_DELIVERED, next - OVER_KEEP, OVER_REMOVED_AT_ONCE);
        if (r >= 0 && next > OVER_KEEP)
                r = remove_over(store, DELIVERY_PARKED, next - OVER_KEEP, OVER_REMOVED_AT_ONCE);
        while (r >= 0) {
                r = tally_get(store, "custody-parked-bytes", 0, &parked_bytes);
                if (r < 0 || parked_bytes <= PARKED_BYTES_MOST)
                        break;
                r = remove_over(store, DELIVERY_PARKED, next, 1);
                if (r == 0)
                        break; /* their receipts are still on the way */
        }
        return r < 0 ? r : 0;
}

/* Upstream may be told twice: a record that was delivered before is no error. */
static int delivered_before(struct store *store, uint64_t sequence) {
        uint64_t next;
        int r = next_sequence(store, &next);

        if (r < 0)
                return r;
        return sequence > 0 && sequence < next ? 0 : -ENOENT;
}

int custody_delivered(struct store *store, uint64_t sequence) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE custody SET is_waiting = 0, receipt = x'',"
                                 " evidence = CASE delivery WHEN 2 THEN evidence ELSE x'' END,"
                                 " delivery = CASE delivery WHEN 2 THEN 2 ELSE 1 END"
                                 " WHERE sequence = ? AND is_waiting = 1");
        int r;

        query_put_int(&q, (int64_t)sequence);
        r = query_run(&q);
        if (r == 0)
                return delivered_before(store, sequence);
        return r < 0 ? r : trim_over(store);
}

int custody_parked(struct store *store, uint64_t sequence, uint16_t http_status, const char *reason) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE custody SET delivery = 2, http_status = ?, reason = ?"
                                 " WHERE sequence = ? AND is_waiting = 1");
        int r;

        query_put_int(&q, http_status);
        query_put_text(&q, reason);
        query_put_int(&q, (int64_t)sequence);
        r = query_run(&q);
        if (r == 0)
                return delivered_before(store, sequence);
        return r < 0 ? r : 0;
}

int custody_backlog(struct store *store, struct backlog *ret) {
        int64_t records = 0, bytes = 0, delivered = 0, parked = 0;
        int r;

        *ret = (struct backlog){ 0 };
        r = tally_get(store, "custody-waiting", 0, &records);
        if (r == 0)
                r = tally_get(store, "custody-bytes", 0, &bytes);
        if (r == 0)
                r = tally_get(store, "custody-ever", DELIVERY_DELIVERED, &delivered);
        if (r == 0)
                r = tally_get(store, "custody-ever", DELIVERY_PARKED, &parked);
        if (r < 0)
                return r;
        ret->records = (uint64_t)records;
        ret->bytes = (uint64_t)bytes;
        ret->delivered = (uint64_t)delivered;
        ret->parked = (uint64_t)parked;

        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT received_wall FROM custody WHERE is_waiting = 1 ORDER BY sequence LIMIT 1");
        r = query_step(&q);
        if (r > 0)
                ret->oldest_wall = query_get_int(&q);
        return r < 0 ? r : q.error;
}

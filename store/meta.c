/* SPDX-License-Identifier: Apache-2.0 */

/* The store's own facts, and the gateway's own secrets. */

#include "store/internal.h"

#include <errno.h>

#include <openssl/rand.h>

int meta_create(struct store *store) {
        static const uint8_t zeros[32];
        uint8_t incarnation[INCARNATION_BYTES], check[WRAPPED_KEY_BYTES];
        int r;

        if (RAND_bytes(incarnation, sizeof incarnation) != 1)
                return -EIO;
        r = seal_check_value(&store->seal, check);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q = query_new(
                store, "INSERT INTO meta (id, oldest_writer, incarnation, key_check, clock_floor, clock_powered,"
                       " clock_boottime, clock_boot_id, clock_was_synchronized, clock_hold_until, next_sequence,"
                       " last_receipt_hash, audit_first, audit_base, audit_next, audit_head)"
                       " VALUES (1, ?1, ?2, ?3, 0, 0, 0, '', 0, 0, 1, ?4, 1, ?4, 1, ?4)");
        query_put_int(&q, STORE_OLDEST_WRITER);
        query_put_blob(&q, BYTES(incarnation, sizeof incarnation));
        query_put_blob(&q, BYTES(check, sizeof check));
        query_put_blob(&q, BYTES(zeros, sizeof zeros));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_meta_get(struct store *store, struct store_meta *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT incarnation, next_sequence, last_receipt_hash, clock_floor, clock_powered,"
                                 " clock_boottime, clock_boot_id, clock_was_synchronized, clock_hold_until,"
                                 " backed_up_wall, backed_up_powered, backed_up_quality, backup_of_wall,"
                                 " backup_of_powered, backup_of_quality, restored_wall, restored_powered,"
                                 " restored_quality, is_restored FROM meta WHERE id = 1");
        int r = query_step(&q);

        if (r < 0)
                return r;
        if (r == 0)
                return -EUCLEAN;
        *ret = (struct store_meta){ 0 };
        query_get_fixed(&q, ret->incarnation, sizeof ret->incarnation);
        ret->next_sequence = (uint64_t)query_get_int(&q);
        query_get_fixed(&q, ret->last_receipt_hash, sizeof ret->last_receipt_hash);
        ret->clock.floor = query_get_int(&q);
        ret->clock.powered_sec = query_get_int(&q);
        ret->clock.boottime_sec = query_get_int(&q);
        query_get_text(&q, ret->clock.boot_id, sizeof ret->clock.boot_id);
        ret->clock.was_synchronized = query_get_int(&q) != 0;
        ret->clock.hold_until_powered = query_get_int(&q);
        query_get_moment(&q, &ret->backed_up);
        query_get_moment(&q, &ret->backup_of);
        query_get_moment(&q, &ret->restored);
        ret->is_restored_now = query_get_int(&q) != 0;
        return q.error;
}

static int set_moment(struct store *store, const char *sql, const struct moment *at) {
        _cleanup_(query_end) struct query q = query_new(store, sql);
        int r;

        query_put_moment(&q, at);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_meta_set_backed_up(struct store *store, const struct moment *at) {
        return set_moment(store,
                          "UPDATE meta SET backed_up_wall = ?, backed_up_powered = ?, backed_up_quality = ?"
                          " WHERE id = 1",
                          at);
}

int store_meta_set_restored(struct store *store, const struct moment *at) {
        return set_moment(store,
                          "UPDATE meta SET restored_wall = ?, restored_powered = ?, restored_quality = ?,"
                          " is_restored = 0 WHERE id = 1",
                          at);
}

int store_meta_set_clock(struct store *store, const struct clock *clock) {
        _cleanup_(query_end) struct query q = query_new(
                store, "UPDATE meta SET clock_floor = ?, clock_powered = ?, clock_boottime = ?, clock_boot_id = ?,"
                       " clock_was_synchronized = ?, clock_hold_until = ? WHERE id = 1");
        int r;

        query_put_int(&q, clock->floor);
        query_put_int(&q, clock->powered_sec);
        query_put_int(&q, clock->boottime_sec);
        query_put_text(&q, clock->boot_id);
        query_put_int(&q, clock->was_synchronized);
        query_put_int(&q, clock->hold_until_powered);
        r = query_run(&q);
        return r < 0 ? r : 0;
}

static struct seal_context own_context(struct bytes name) {
        return (struct seal_context){ .name = name, .kind = SEAL_KIND_OWN };
}

int store_own_secret_get(struct store *store, const char *name, struct buffer *ret) {
        _cleanup_(query_end) struct query q = query_new(store, "SELECT sealed FROM own_secret WHERE name = ?");
        struct seal_context context = own_context(bytes_of(name));
        int r;

        query_put_text(&q, name);
        r = query_step(&q);
        if (r < 0)
                return r;
        if (r == 0)
                return -ENOENT;
        return seal_open(store, &context, query_get_blob(&q), ret);
}

int store_own_secret_put(struct store *store, const char *name, struct bytes value) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 };
        struct seal_context context = own_context(bytes_of(name));
        uint32_t key;
        int r;

        r = seal_put(store, &context, value, &sealed, &key);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q = query_new(
                store, "INSERT INTO own_secret (name, data_key, sealed) VALUES (?, ?, ?)"
                       " ON CONFLICT (name) DO UPDATE SET data_key = excluded.data_key, sealed = excluded.sealed");
        query_put_text(&q, name);
        query_put_int(&q, key);
        query_put_blob(&q, buffer_bytes(&sealed));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int store_own_secret_remove(struct store *store, const char *name) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM own_secret WHERE name = ?");

        query_put_text(&q, name);
        return query_run(&q);
}

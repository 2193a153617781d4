/* SPDX-License-Identifier: Apache-2.0 */

/* Credentials: a row each, and in it the sealed secret; a certificate's has none. */

#include "store/internal.h"
#include "store/credentials.h"

#include <errno.h>

#define MOMENT(name) name "_wall, " name "_powered, " name "_quality, "
#define MUTABLE_COLUMNS                                                                                                \
        "state, predecessor, session, " MOMENT("issued") MOMENT("proven") MOMENT("confirmed") MOMENT("superseded")     \
                MOMENT("ended") MOMENT("last_used") "handshakes"
#define MUTABLE_VALUES "?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?,?,?, ?"
/* What the seal is bound to; never changes. */
#define FIXED_COLUMNS "identity, device, kind, generation"

static void put_mutable(struct query *q, const struct credential *c) {
        query_put_int(q, c->state);
        query_put_text(q, c->predecessor);
        query_put_int(q, (int64_t)c->session);
        query_put_moment(q, &c->issued);
        query_put_moment(q, &c->proven);
        query_put_moment(q, &c->confirmed);
        query_put_moment(q, &c->superseded);
        query_put_moment(q, &c->ended);
        query_put_moment(q, &c->last_used);
        query_put_int(q, (int64_t)c->handshakes);
}

static void put_fixed(struct query *q, const struct credential *c) {
        query_put_text(q, c->identity);
        query_put_text(q, c->device);
        query_put_int(q, c->kind);
        query_put_int(q, c->generation);
}

static int get_credential(struct query *q, struct credential *c) {
        *c = (struct credential){ 0 };
        c->state = (enum key_state)query_get_int(q);
        query_get_text(q, c->predecessor, sizeof c->predecessor);
        c->session = (uint64_t)query_get_int(q);
        query_get_moment(q, &c->issued);
        query_get_moment(q, &c->proven);
        query_get_moment(q, &c->confirmed);
        query_get_moment(q, &c->superseded);
        query_get_moment(q, &c->ended);
        query_get_moment(q, &c->last_used);
        c->handshakes = (uint64_t)query_get_int(q);
        query_get_text(q, c->identity, sizeof c->identity);
        query_get_text(q, c->device, sizeof c->device);
        c->kind = (enum credential_kind)query_get_int(q);
        c->generation = (uint32_t)query_get_int(q);
        return q->error;
}

static struct seal_context context_of(const struct credential *c) {
        return (struct seal_context){
                .device = bytes_of(c->device),
                .name = bytes_of(c->identity),
                .kind = (uint8_t)c->kind,
                .generation = c->generation,
        };
}

int credential_insert(struct store *store, const struct credential *credential, const struct secret *secret) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 };
        struct seal_context context = context_of(credential);
        uint32_t key = 0; /* as of a secret that was wiped */
        int r;

        if (credential->identity[0] == '\0' || (secret && secret->size > SECRET_MAX) ||
            credential_is_certificate(credential->kind) != !secret)
                return -EINVAL;
        if (secret) {
                r = seal_put(store, &context, secret_bytes(secret), &sealed, &key);
                if (r < 0)
                        return r;
        }

        _cleanup_(query_end) struct query q =
                query_new(store, "INSERT INTO credential (" MUTABLE_COLUMNS ", " FIXED_COLUMNS ", data_key, sealed)"
                                 " VALUES (" MUTABLE_VALUES ", ?,?,?,?, ?,?)");
        put_mutable(&q, credential);
        put_fixed(&q, credential);
        query_put_int(&q, key);
        query_put_blob(&q, buffer_bytes(&sealed));
        r = query_run(&q);
        return r < 0 ? r : 0;
}

int credential_update(struct store *store, const struct credential *credential) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE credential SET (" MUTABLE_COLUMNS ") = (" MUTABLE_VALUES ")"
                                 " WHERE identity = ? AND device = ? AND kind = ? AND generation = ?");
        struct credential found;
        int r;

        put_mutable(&q, credential);
        put_fixed(&q, credential);
        r = query_run(&q);
        if (r != 0)
                return r < 0 ? r : 0;
        /* No such row, or one whose device, kind or generation are to change: the seal forbids it. */
        r = credential_get(store, bytes_of(credential->identity), &found);
        return r < 0 ? r : -EINVAL;
}

int credential_get(struct store *store, struct bytes identity, struct credential *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " MUTABLE_COLUMNS ", " FIXED_COLUMNS " FROM credential WHERE identity = ?");
        int r;

        query_put_text_bytes(&q, identity);
        r = query_step(&q);
        if (r < 0)
                return r;
        return r == 0 ? -ENOENT : get_credential(&q, ret);
}

/* The secret of the row that `q` stands on: identity, device, kind, generation, sealed. */
static int open_row(struct store *store, struct query *q, struct credential *c, struct buffer *plain) {
        struct seal_context context;
        struct bytes sealed;

        *c = (struct credential){ 0 };
        query_get_text(q, c->identity, sizeof c->identity);
        query_get_text(q, c->device, sizeof c->device);
        c->kind = (enum credential_kind)query_get_int(q);
        c->generation = (uint32_t)query_get_int(q);
        sealed = query_get_blob(q);
        if (q->error < 0)
                return q->error;
        if (sealed.size == 0)
                return -ENOENT;
        context = context_of(c);
        return seal_open(store, &context, sealed, plain);
}

int credential_secret(struct store *store, const char *identity, struct secret *ret) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " FIXED_COLUMNS ", sealed FROM credential WHERE identity = ?");
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        struct credential credential;
        int r;

        query_put_text(&q, identity);
        r = query_step(&q);
        if (r <= 0)
                return r < 0 ? r : -ENOENT;
        r = open_row(store, &q, &credential, &plain);
        return r < 0 ? r : secret_set(ret, buffer_bytes(&plain));
}

int credential_wipe(struct store *store, const char *identity) {
        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE credential SET data_key = 0, sealed = x'' WHERE identity = ?");
        int r;

        query_put_text(&q, identity);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

int credential_remove(struct store *store, const char *identity) {
        _cleanup_(query_end) struct query q = query_new(store, "DELETE FROM credential WHERE identity = ?");
        int r;

        query_put_text(&q, identity);
        r = query_run(&q);
        return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

ssize_t credential_list(struct store *store, const char *device, struct credential *ret, size_t max) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT " MUTABLE_COLUMNS ", " FIXED_COLUMNS " FROM credential"
                                 " WHERE device = ? AND state <> ? ORDER BY generation DESC, number DESC LIMIT ?");
        ssize_t count = 0;
        int r;

        query_put_text(&q, device);
        query_put_int(&q, KEY_DESTROYED);
        query_put_int(&q, max > INT64_MAX ? INT64_MAX : (int64_t)max);
        while ((r = query_step(&q)) > 0) {
                r = get_credential(&q, &ret[count]);
                if (r < 0)
                        return r;
                count++;
        }
        return r < 0 ? r : count;
}

int credential_forget_sessions(struct store *store) {
        _cleanup_(query_end) struct query q = query_new(store, "UPDATE credential SET session = 0 WHERE session <> 0");
        int r = query_run(&q);

        return r < 0 ? r : 0;
}

/* ---- moving secrets to a new data key ---- */

static int store_resealed(struct store *store, const struct credential *c, struct bytes plain) {
        _cleanup_(buffer_free) struct buffer sealed = { 0 };
        struct seal_context context = context_of(c);
        uint32_t key;
        int r;

        r = seal_put(store, &context, plain, &sealed, &key);
        if (r < 0)
                return r;

        _cleanup_(query_end) struct query q =
                query_new(store, "UPDATE credential SET data_key = ?, sealed = ? WHERE identity = ?");
        query_put_int(&q, key);
        query_put_blob(&q, buffer_bytes(&sealed));
        query_put_text(&q, c->identity);
        return query_run(&q);
}

/* Damaged rows stay where they are, first of what is left: the next look begins behind them. */
static int pass_over(int64_t *passed, const char *name, struct reseal_damage *damage) {
        ++*passed;
        if (damage) {
                damage->count++;
                snprintf(damage->name, sizeof damage->name, "%.64s", name);
        }
        return 1;
}

/* One secret that is sealed under another key than the current one. 1: done; 0: there is none. */
static int reseal_one_credential(struct store *store, struct reseal_damage *damage) {
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        struct credential credential;
        int r;

        {
                _cleanup_(query_end) struct query q =
                        query_new(store, "SELECT " FIXED_COLUMNS ", sealed FROM credential"
                                         " WHERE data_key <> 0 AND data_key < ?"
                                         " ORDER BY data_key, number LIMIT 1 OFFSET ?");
                query_put_int(&q, seal_current_key(&store->seal));
                query_put_int(&q, store->damaged.credentials);
                r = query_step(&q);
                if (r > 0)
                        r = open_row(store, &q, &credential, &plain);
                else if (r == 0)
                        return 0;
        }
        if (r == -EBADMSG)
                return pass_over(&store->damaged.credentials, credential.identity, damage);
        if (r == 0)
                r = store_resealed(store, &credential, buffer_bytes(&plain));
        return r < 0 ? r : 1;
}

static int reseal_one_own_secret(struct store *store, struct reseal_damage *damage) {
        _cleanup_(buffer_free) struct buffer plain = { 0 };
        char name[256];
        int r;

        {
                _cleanup_(query_end) struct query q = query_new(store, "SELECT name FROM own_secret WHERE data_key < ?"
                                                                       " ORDER BY data_key, name LIMIT 1 OFFSET ?");
                query_put_int(&q, seal_current_key(&store->seal));
                query_put_int(&q, store->damaged.own);
                r = query_step(&q);
                if (r <= 0)
                        return r;
                query_get_text(&q, name, sizeof name);
                if (q.error < 0)
                        return q.error;
        }
        r = store_own_secret_get(store, name, &plain);
        if (r == -EBADMSG)
                return pass_over(&store->damaged.own, name, damage);
        if (r == 0)
                r = store_own_secret_put(store, name, buffer_bytes(&plain));
        return r < 0 ? r : 1;
}

int64_t store_reseal_left(struct store *store) {
        _cleanup_(query_end) struct query q =
                query_new(store, "SELECT (SELECT count(*) FROM credential WHERE data_key <> 0 AND data_key < ?1)"
                                 " + (SELECT count(*) FROM own_secret WHERE data_key < ?1)");
        int r;

        query_put_int(&q, seal_current_key(&store->seal));
        r = query_step(&q);
        return r < 0 ? r : query_get_int(&q);
}

int64_t store_reseal_damaged(const struct store *store) {
        return store->damaged.own + store->damaged.credentials;
}

int store_reseal_some(struct store *store, size_t limit, struct reseal_damage *ret_damage) {
        int r = 1;

        if (ret_damage)
                *ret_damage = (struct reseal_damage){ 0 };
        for (; r > 0 && limit > 0; limit--) {
                r = reseal_one_own_secret(store, ret_damage);
                if (r == 0)
                        r = reseal_one_credential(store, ret_damage);
        }
        return r == 0 ? seal_drop_unused(store) : r;
}

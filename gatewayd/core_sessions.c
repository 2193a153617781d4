/* SPDX-License-Identifier: Apache-2.0 */

/* Core's table of sessions: two hashes, by handle and by device, so that neither a request nor an
 * eviction walks the fleet. */

#include "gatewayd/core_sessions.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS 16384 /* a power of two, a multiple of SESSION_SHARES */

struct session_table {
        struct session *by_handle[BUCKETS];
        struct session *by_device[BUCKETS];
        size_t count;
};

static size_t handle_bucket(session_handle handle) {
        return (size_t)((handle * UINT64_C(0x9E3779B97F4A7C15)) >> 50);
}

/* FNV-1a; ids come from the registry, not from whoever knocks, so no keyed hash is needed. */
static size_t device_bucket(const char *device) {
        uint64_t hash = UINT64_C(14695981039346656037);

        for (const char *p = device; *p; p++)
                hash = (hash ^ (uint8_t)*p) * UINT64_C(1099511628211);
        return (size_t)(hash >> 50);
}

struct session_table *session_table_new(void) {
        return xcalloc(1, sizeof(struct session_table));
}

struct session_table *session_table_free(struct session_table *table) {
        if (!table)
                return NULL;
        session_clear(table);
        free(table);
        return NULL;
}

size_t session_table_count(const struct session_table *table) {
        return table->count;
}

struct session *session_find(const struct session_table *table, session_handle handle) {
        struct session *s = table->by_handle[handle_bucket(handle)];

        while (s && s->handle != handle)
                s = s->next_by_handle;
        return s;
}

int session_add(struct session_table *table, session_handle handle, const char *identity, const char *device,
                struct session **ret) {
        struct session *s;
        size_t bucket;

        if (handle == 0 || session_find(table, handle))
                return -EEXIST;
        s = xcalloc(1, sizeof *s);
        s->handle = handle;
        snprintf(s->identity, sizeof s->identity, "%s", identity);
        snprintf(s->device, sizeof s->device, "%s", device);
        bucket = handle_bucket(handle);
        s->next_by_handle = table->by_handle[bucket];
        table->by_handle[bucket] = s;
        bucket = device_bucket(device);
        s->next_by_device = table->by_device[bucket];
        table->by_device[bucket] = s;
        table->count++;
        *ret = s;
        return 0;
}

void session_remove(struct session_table *table, session_handle handle) {
        struct session **at = &table->by_handle[handle_bucket(handle)], *s;

        while (*at && (*at)->handle != handle)
                at = &(*at)->next_by_handle;
        s = *at;
        if (!s)
                return;
        *at = s->next_by_handle;
        at = &table->by_device[device_bucket(s->device)];
        while (*at != s)
                at = &(*at)->next_by_device;
        *at = s->next_by_device;
        for (size_t i = 0; s->remembered && i < REMEMBERED_MAX; i++)
                buffer_free(&s->remembered[i].reply.payload);
        free(s->remembered);
        free(s);
        table->count--;
}

void session_each_share(struct session_table *table, unsigned share, session_visitor visit, void *userdata) {
        for (size_t i = share; i < BUCKETS; i += SESSION_SHARES)
                for (struct session *s = table->by_handle[i], *next; s; s = next) {
                        next = s->next_by_handle;
                        visit(userdata, s);
                }
}

void session_each(struct session_table *table, const char *device, session_visitor visit, void *userdata) {
        if (!device) {
                for (unsigned share = 0; share < SESSION_SHARES; share++)
                        session_each_share(table, share, visit, userdata);
                return;
        }
        for (struct session *s = table->by_device[device_bucket(device)], *next; s; s = next) {
                next = s->next_by_device;
                if (strcmp(s->device, device) == 0)
                        visit(userdata, s);
        }
}

static void remove_one(void *userdata, struct session *session) {
        session_remove(userdata, session->handle);
}

void session_clear(struct session_table *table) {
        session_each(table, NULL, remove_one, table);
}

struct remembered *session_recall(struct session *session, uint16_t message_id, struct bytes token, uint64_t now_usec) {
        for (size_t i = 0; session->remembered && i < REMEMBERED_MAX; i++) {
                struct remembered *r = &session->remembered[i];

                if (r->at_usec != 0 && r->message_id == message_id &&
                    bytes_equal(BYTES(r->token, r->token_size), token) &&
                    now_usec - r->at_usec < EXCHANGE_LIFETIME_USEC)
                        return r;
        }
        return NULL;
}

void session_remember(struct session *session, uint16_t message_id, struct bytes token, uint64_t now_usec,
                      uint64_t attempt, const struct reply *reply) {
        struct remembered *r;

        if (!session->remembered)
                session->remembered = xcalloc(REMEMBERED_MAX, sizeof *session->remembered);
        r = &session->remembered[session->remembered_next++ % REMEMBERED_MAX];
        buffer_free(&r->reply.payload);
        *r = (struct remembered){
                .message_id = message_id,
                .token_size = (uint8_t)token.size,
                .at_usec = now_usec,
                .attempt = attempt,
                .reply = *reply,
        };
        memcpy(r->token, token.data, token.size);
        r->reply.payload = (struct buffer){ 0 };
        buffer_append(&r->reply.payload, buffer_bytes(&reply->payload));
}

struct forgetting {
        struct session_table *table;
        uint64_t attempt;
};

static void forget_one(void *userdata, struct session *session) {
        const struct forgetting *what = userdata;

        if (session->attempt == what->attempt) {
                session_remove(what->table, session->handle);
                return;
        }
        for (size_t i = 0; session->remembered && i < REMEMBERED_MAX; i++)
                if (session->remembered[i].attempt == what->attempt)
                        session->remembered[i].at_usec = 0;
}

void session_forget_attempt(struct session_table *table, uint64_t attempt) {
        struct forgetting what = { .table = table, .attempt = attempt };

        session_each(table, NULL, forget_one, &what);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The tables of sessions. Sizes are fixed at the start from the limits, so nothing ever grows,
 * and every operation that a datagram needs is one look into a bucket. */

#include "coap/sessions.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>

LIST_HEAD(bucket, session);

/* An address prefix with half-open sessions. */
struct prefix {
        uint64_t number;
        struct bucket sessions; /* newest first */
        unsigned count;
        LIST_ENTRY(prefix) same_bucket;
};

LIST_HEAD(prefix_bucket, prefix);

struct sessions {
        struct session_limits limits;
        uint64_t keys[PEER_HASH_KEYS];
        size_t mask;
        struct bucket *by_peer, *by_number;
        struct prefix_bucket *prefixes;
        struct session_queue half_open, idle, dead;
        unsigned half_open_count, established_count;
        uint32_t last_number;
};

static size_t power_of_two_from(size_t count) {
        size_t size = 64;

        while (size < count)
                size *= 2;
        return size;
}

int sessions_new(const struct session_limits *limits, struct sessions **ret) {
        struct sessions *sessions = xcalloc(1, sizeof *sessions);
        size_t size = power_of_two_from((size_t)limits->max_established + limits->max_half_open);

        if (RAND_bytes((unsigned char *)sessions->keys, sizeof sessions->keys) != 1) {
                free(sessions);
                return -EIO;
        }
        sessions->limits = *limits;
        sessions->mask = size - 1;
        sessions->by_peer = xcalloc(size, sizeof *sessions->by_peer);
        sessions->by_number = xcalloc(size, sizeof *sessions->by_number);
        sessions->prefixes = xcalloc(size, sizeof *sessions->prefixes);
        TAILQ_INIT(&sessions->half_open);
        TAILQ_INIT(&sessions->idle);
        TAILQ_INIT(&sessions->dead);
        *ret = sessions;
        return 0;
}

struct sessions *sessions_free(struct sessions *sessions) {
        if (!sessions)
                return NULL;
        free(sessions->by_peer);
        free(sessions->by_number);
        free(sessions->prefixes);
        free(sessions);
        return NULL;
}

static struct bucket *peer_bucket(const struct sessions *sessions, const struct peer *peer) {
        return &sessions->by_peer[peer_hash(peer, sessions->keys) & sessions->mask];
}

static struct bucket *number_bucket(const struct sessions *sessions, uint32_t number) {
        return &sessions->by_number[number & sessions->mask];
}

static struct prefix_bucket *prefix_bucket(const struct sessions *sessions, uint64_t number) {
        uint64_t mixed = number * (sessions->keys[0] | 1);

        return &sessions->prefixes[(mixed >> 32) & sessions->mask];
}

static struct prefix *prefix_find(const struct sessions *sessions, uint64_t number) {
        struct prefix *prefix;

        LIST_FOREACH(prefix, prefix_bucket(sessions, number), same_bucket)
                if (prefix->number == number)
                        return prefix;
        return NULL;
}

struct session *sessions_find(const struct sessions *sessions, const struct peer *peer, enum session_state state) {
        struct session *session;

        LIST_FOREACH(session, peer_bucket(sessions, peer), same_peer)
                if (session->state == state && peer_equal(&session->peer, peer))
                        return session;
        return NULL;
}

struct session *sessions_by_number(const struct sessions *sessions, uint32_t number) {
        struct session *session;

        LIST_FOREACH(session, number_bucket(sessions, number), same_number)
                if (session->number == number)
                        return session;
        return NULL;
}

static struct session *oldest_of(const struct prefix *prefix) {
        struct session *session, *oldest = NULL;

        /* At most max_half_open_prefix of them. */
        LIST_FOREACH(session, &prefix->sessions, same_prefix)
                oldest = session;
        return oldest;
}

struct session *sessions_crowded_by(const struct sessions *sessions, const struct peer *peer) {
        const struct prefix *prefix = prefix_find(sessions, peer_prefix(peer));

        if (prefix && prefix->count >= sessions->limits.max_half_open_prefix)
                return oldest_of(prefix);
        if (sessions->half_open_count >= sessions->limits.max_half_open)
                return TAILQ_FIRST(&sessions->half_open);
        return NULL;
}

struct session *sessions_overflow(const struct sessions *sessions) {
        if (sessions->established_count < sessions->limits.max_established)
                return NULL;
        return TAILQ_FIRST(&sessions->idle);
}

static void prefix_enter(struct sessions *sessions, struct session *session) {
        uint64_t number = peer_prefix(&session->peer);
        struct prefix *prefix = prefix_find(sessions, number);

        if (!prefix) {
                prefix = xcalloc(1, sizeof *prefix);
                prefix->number = number;
                LIST_INSERT_HEAD(prefix_bucket(sessions, number), prefix, same_bucket);
        }
        LIST_INSERT_HEAD(&prefix->sessions, session, same_prefix);
        prefix->count++;
        session->prefix = prefix;
}

static void prefix_leave(struct session *session) {
        struct prefix *prefix = session->prefix;

        LIST_REMOVE(session, same_prefix);
        session->prefix = NULL;
        if (--prefix->count > 0)
                return;
        LIST_REMOVE(prefix, same_bucket);
        free(prefix);
}

int sessions_add(struct sessions *sessions, struct session *session) {
        if (sessions->last_number == UINT32_MAX)
                return -EOVERFLOW;
        session->number = ++sessions->last_number;
        session->state = SESSION_HALF_OPEN;
        LIST_INSERT_HEAD(peer_bucket(sessions, &session->peer), session, same_peer);
        LIST_INSERT_HEAD(number_bucket(sessions, session->number), session, same_number);
        TAILQ_INSERT_TAIL(&sessions->half_open, session, in_order);
        prefix_enter(sessions, session);
        sessions->half_open_count++;
        return 0;
}

static void half_open_leave(struct sessions *sessions, struct session *session) {
        TAILQ_REMOVE(&sessions->half_open, session, in_order);
        prefix_leave(session);
        sessions->half_open_count--;
}

void sessions_establish(struct sessions *sessions, struct session *session) {
        half_open_leave(sessions, session);
        session->state = SESSION_ESTABLISHED;
        TAILQ_INSERT_TAIL(&sessions->idle, session, in_order);
        sessions->established_count++;
}

void sessions_bury(struct sessions *sessions, struct session *session) {
        if (session->state == SESSION_HALF_OPEN) {
                half_open_leave(sessions, session);
        } else {
                TAILQ_REMOVE(&sessions->idle, session, in_order);
                sessions->established_count--;
        }
        LIST_REMOVE(session, same_peer);
        LIST_REMOVE(session, same_number);
        session->state = SESSION_DEAD;
        TAILQ_INSERT_TAIL(&sessions->dead, session, in_order);
}

struct session *sessions_next_dead(struct sessions *sessions) {
        struct session *session = TAILQ_FIRST(&sessions->dead);

        if (session)
                TAILQ_REMOVE(&sessions->dead, session, in_order);
        return session;
}

void sessions_touch(struct sessions *sessions, struct session *session, uint64_t now_usec) {
        session->last_usec = now_usec;
        TAILQ_REMOVE(&sessions->idle, session, in_order);
        TAILQ_INSERT_TAIL(&sessions->idle, session, in_order);
}

struct session *sessions_oldest_half_open(const struct sessions *sessions) {
        return TAILQ_FIRST(&sessions->half_open);
}

struct session *sessions_next_half_open(const struct session *session) {
        return TAILQ_NEXT(session, in_order);
}

struct session *sessions_longest_idle(const struct sessions *sessions) {
        return TAILQ_FIRST(&sessions->idle);
}

struct session *sessions_next_idle(const struct session *session) {
        return TAILQ_NEXT(session, in_order);
}

unsigned sessions_half_open(const struct sessions *sessions) {
        return sessions->half_open_count;
}

unsigned sessions_established(const struct sessions *sessions) {
        return sessions->established_count;
}

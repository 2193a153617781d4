/* SPDX-License-Identifier: Apache-2.0 */

/* Counting what repeats: the first event of a kind, device, peer and reason is written, further ones
 * within the window are counted, and the count goes out when the window ends or with the next one.
 * Whoever floods the gateway fills neither the journal nor our memory: so many different events are
 * remembered, and the oldest gives way. */

#include "systemd/journal.h"

#include <inttypes.h>
#include <stdlib.h>

#define REMEMBERED_MAX 1024
#define BUCKETS        1024
#define NOTHING        UINT16_MAX

struct remembered {
        struct event event; /* as last written */
        uint64_t written_usec;
        uint64_t repeated; /* counted since */
        uint16_t next_in_bucket;
        uint16_t older, newer; /* by written_usec */
};

struct journal_throttle {
        uint64_t window_usec;
        struct remembered entries[REMEMBERED_MAX];
        uint16_t buckets[BUCKETS];
        uint16_t unused; /* chained by next_in_bucket */
        uint16_t oldest, newest;
};

struct journal_throttle *journal_throttle_new(uint64_t window_usec) {
        struct journal_throttle *t = xcalloc(1, sizeof *t);

        t->window_usec = window_usec;
        for (size_t i = 0; i < BUCKETS; i++)
                t->buckets[i] = NOTHING;
        for (size_t i = 0; i < REMEMBERED_MAX; i++)
                t->entries[i].next_in_bucket = i + 1 < REMEMBERED_MAX ? (uint16_t)(i + 1) : NOTHING;
        t->oldest = t->newest = NOTHING;
        return t;
}

static uint32_t hash_text(uint32_t hash, const char *text, size_t length) {
        for (size_t i = 0; i < length; i++)
                hash = (hash ^ (uint8_t)text[i]) * 16777619u; /* FNV-1a */
        return hash * 16777619u;
}

/* A peer's address without its port: a port costs an attacker nothing. */
static size_t address_length(const char *peer) {
        const char *colon = strrchr(peer, ':');

        return colon ? (size_t)(colon - peer) : strlen(peer);
}

static uint16_t *bucket_of(struct journal_throttle *t, const struct event *event) {
        uint32_t hash = 2166136261u + (uint32_t)event->kind;

        hash = hash_text(hash, event->device, strlen(event->device));
        hash = hash_text(hash, event->peer, address_length(event->peer));
        hash = hash_text(hash, event->reason, strlen(event->reason));
        return &t->buckets[(hash ^ hash >> 16) % BUCKETS];
}

static bool is_same(const struct event *a, const struct event *b) {
        size_t length = address_length(a->peer);

        return a->kind == b->kind && strcmp(a->device, b->device) == 0 && strcmp(a->reason, b->reason) == 0 &&
               length == address_length(b->peer) && memcmp(a->peer, b->peer, length) == 0;
}

static void age_unlink(struct journal_throttle *t, uint16_t i) {
        struct remembered *entry = &t->entries[i];

        *(entry->older == NOTHING ? &t->oldest : &t->entries[entry->older].newer) = entry->newer;
        *(entry->newer == NOTHING ? &t->newest : &t->entries[entry->newer].older) = entry->older;
}

static void age_append(struct journal_throttle *t, uint16_t i) {
        t->entries[i].older = t->newest;
        t->entries[i].newer = NOTHING;
        *(t->newest == NOTHING ? &t->oldest : &t->entries[t->newest].newer) = i;
        t->newest = i;
}

/* Says what was counted. */
static void count_out(const struct remembered *entry) {
        struct event event = entry->event;

        if (entry->repeated == 0)
                return;
        event.kind = EVENT_EVENTS_COUNTED;
        event.count = entry->repeated;
        snprintf(event.reason, sizeof event.reason, "%s%s%.*s", event_name(entry->event.kind),
                 entry->event.reason[0] ? ", " : "", (int)sizeof event.reason - 40, entry->event.reason);
        journal_event(&event);
}

static void forget_oldest(struct journal_throttle *t) {
        uint16_t i = t->oldest, *link = bucket_of(t, &t->entries[i].event);

        count_out(&t->entries[i]);
        age_unlink(t, i);
        while (*link != i)
                link = &t->entries[*link].next_in_bucket;
        *link = t->entries[i].next_in_bucket;
        t->entries[i].next_in_bucket = t->unused;
        t->unused = i;
}

/* Remembers an event just written. */
static void remember(struct journal_throttle *t, const struct event *event, uint64_t now_usec) {
        uint16_t i, *bucket;

        if (t->unused == NOTHING)
                forget_oldest(t);
        i = t->unused;
        t->unused = t->entries[i].next_in_bucket;
        bucket = bucket_of(t, event);
        t->entries[i] = (struct remembered){ .event = *event, .written_usec = now_usec, .next_in_bucket = *bucket };
        *bucket = i;
        age_append(t, i);
}

void journal_throttle_event(struct journal_throttle *t, const struct event *event, uint64_t now_usec) {
        uint64_t count = event->count == 0 ? 1 : event->count;

        for (uint16_t i = *bucket_of(t, event); i != NOTHING; i = t->entries[i].next_in_bucket) {
                struct remembered *entry = &t->entries[i];
                struct event again = *event;

                if (!is_same(&entry->event, event))
                        continue;
                if (now_usec - entry->written_usec < t->window_usec) {
                        entry->repeated += count;
                        return;
                }
                again.count = count + entry->repeated;
                journal_event(&again);
                entry->event = *event;
                entry->written_usec = now_usec;
                entry->repeated = 0;
                age_unlink(t, i);
                age_append(t, i);
                return;
        }
        journal_event(event);
        remember(t, event, now_usec);
}

void journal_throttle_flush(struct journal_throttle *t, uint64_t now_usec) {
        while (t->oldest != NOTHING && now_usec - t->entries[t->oldest].written_usec >= t->window_usec)
                forget_oldest(t);
}

struct journal_throttle *journal_throttle_free(struct journal_throttle *t) {
        if (!t)
                return NULL;
        while (t->oldest != NOTHING)
                forget_oldest(t); /* what was counted is not lost at the end */
        free(t);
        return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Counting failures in a table of fixed size: whoever comes from many addresses at once displaces
 * others, whose counts are told then. */

#include "coap/failures.h"

#include <stdlib.h>

#define ENTRIES      256
#define IDENTITY_MAX 128

struct entry {
        bool is_used;
        enum handshake_failure failure;
        struct peer peer; /* the last one; its port does not count */
        uint8_t identity[IDENTITY_MAX];
        size_t identity_size;
        uint32_t untold;
        uint64_t told_usec;
};

struct failures {
        failure_handler tell;
        void *userdata;
        unsigned waiting; /* entries with something untold */
        struct entry entries[ENTRIES];
};

struct failures *failures_new(failure_handler tell, void *userdata) {
        struct failures *failures = xcalloc(1, sizeof *failures);

        failures->tell = tell;
        failures->userdata = userdata;
        return failures;
}

struct failures *failures_free(struct failures *failures) {
        free(failures);
        return NULL;
}

static void without_port(struct peer *peer) {
        if (peer->address.any.sa_family == AF_INET)
                peer->address.v4.sin_port = 0;
        else
                peer->address.v6.sin6_port = 0;
}

static bool is_same(const struct entry *entry, enum handshake_failure failure, const struct peer *peer) {
        struct peer a = entry->peer, b = *peer;

        without_port(&a);
        without_port(&b);
        return entry->is_used && entry->failure == failure && peer_equal(&a, &b);
}

static void tell(struct failures *failures, struct entry *entry, uint64_t now_usec) {
        char text[PEER_TEXT_MAX];
        struct message_handshake_failed message = {
                .failure = entry->failure,
                .identity = BYTES(entry->identity, entry->identity_size),
                .count = entry->untold,
        };

        if (entry->untold == 0)
                return;
        peer_text(&entry->peer, text);
        message.peer = bytes_of(text);
        failures->tell(failures->userdata, &message);
        failures->waiting--;
        entry->untold = 0;
        entry->told_usec = now_usec;
}

static struct entry *entry_for(struct failures *failures, enum handshake_failure failure, const struct peer *peer) {
        static const uint64_t keys[PEER_HASH_KEYS] = { UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f),
                                                       UINT64_C(0x165667b19e3779f9), 1 };
        struct peer address = *peer;

        without_port(&address);
        return &failures->entries[(peer_hash(&address, keys) + (unsigned)failure) % ENTRIES];
}

void failures_add(struct failures *failures, enum handshake_failure failure, struct bytes identity,
                  const struct peer *peer, uint64_t now_usec) {
        struct entry *entry = entry_for(failures, failure, peer);
        bool is_known = is_same(entry, failure, peer);

        if (!is_known) {
                tell(failures, entry, now_usec);
                *entry = (struct entry){ .is_used = true, .failure = failure };
        }
        entry->peer = *peer;
        entry->identity_size = identity.size < IDENTITY_MAX ? identity.size : IDENTITY_MAX;
        if (identity.size > 0)
                memcpy(entry->identity, identity.data, entry->identity_size);
        if (entry->untold++ == 0)
                failures->waiting++;
        if (!is_known || now_usec - entry->told_usec >= FAILURES_USEC)
                tell(failures, entry, now_usec);
}

uint64_t failures_tick(struct failures *failures, uint64_t now_usec) {
        uint64_t next = UINT64_MAX;

        if (failures->waiting == 0)
                return next;
        for (size_t i = 0; i < ENTRIES; i++) {
                struct entry *entry = &failures->entries[i];

                if (entry->untold == 0)
                        continue;
                if (now_usec - entry->told_usec >= FAILURES_USEC)
                        tell(failures, entry, now_usec);
                else if (entry->told_usec + FAILURES_USEC < next)
                        next = entry->told_usec + FAILURES_USEC;
        }
        return next;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Marks in a table of fixed size, found by address, ordered by age. The hash has secret keys, so nobody
 * can choose addresses that meet in one list. */

#include "coap/marks.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <sys/queue.h>

#define LISTS 512

struct mark {
        struct peer peer; /* its port is 0 */
        uint64_t since_usec;
        LIST_ENTRY(mark) same_list;
        TAILQ_ENTRY(mark) in_order;
};

LIST_HEAD(mark_list, mark);
TAILQ_HEAD(mark_queue, mark);

struct marks {
        uint64_t keys[PEER_HASH_KEYS];
        struct mark_queue order; /* the oldest first */
        unsigned count;
        struct mark_list lists[LISTS];
        struct mark all[MARKS_MAX];
};

int marks_new(struct marks **ret) {
        struct marks *marks = xcalloc(1, sizeof *marks);

        if (RAND_bytes((unsigned char *)marks->keys, sizeof marks->keys) != 1) {
                free(marks);
                return -EIO;
        }
        TAILQ_INIT(&marks->order);
        *ret = marks;
        return 0;
}

struct marks *marks_free(struct marks *marks) {
        free(marks);
        return NULL;
}

static struct peer without_port(const struct peer *peer) {
        struct peer address = *peer;

        if (address.address.any.sa_family == AF_INET)
                address.address.v4.sin_port = 0;
        else
                address.address.v6.sin6_port = 0;
        return address;
}

static size_t list_of(const struct marks *marks, const struct peer *address) {
        return peer_hash(address, marks->keys) % LISTS;
}

static struct mark *find(const struct marks *marks, const struct peer *address) {
        struct mark *mark;

        LIST_FOREACH(mark, &marks->lists[list_of(marks, address)], same_list)
                if (peer_equal(&mark->peer, address))
                        return mark;
        return NULL;
}

void marks_add(struct marks *marks, const struct peer *peer, uint64_t now_usec) {
        struct peer address = without_port(peer);
        struct mark *mark = find(marks, &address);

        if (!mark && marks->count < MARKS_MAX) {
                mark = &marks->all[marks->count++];
        } else {
                if (!mark)
                        mark = TAILQ_FIRST(&marks->order);
                LIST_REMOVE(mark, same_list);
                TAILQ_REMOVE(&marks->order, mark, in_order);
        }
        mark->peer = address;
        mark->since_usec = now_usec;
        LIST_INSERT_HEAD(&marks->lists[list_of(marks, &address)], mark, same_list);
        TAILQ_INSERT_TAIL(&marks->order, mark, in_order);
}

bool marks_has(const struct marks *marks, const struct peer *peer, uint64_t now_usec) {
        struct peer address = without_port(peer);
        const struct mark *mark = find(marks, &address);

        return mark && now_usec - mark->since_usec < MARKS_USEC;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* When to look at which device: a binary heap by due time, so that one event among thousands of devices
 * costs the logarithm of their number. */

#include "sim.h"

#include <stdlib.h>

static bool is_before(const struct timers *timers, unsigned a, unsigned b) {
        return timers->heap[a]->due_real < timers->heap[b]->due_real;
}

static void swap(struct timers *timers, unsigned a, unsigned b) {
        struct sim_device *device = timers->heap[a];

        timers->heap[a] = timers->heap[b];
        timers->heap[b] = device;
        timers->heap[a]->heap_index = a;
        timers->heap[b]->heap_index = b;
}

static void sift(struct timers *timers, unsigned i) {
        unsigned child;

        for (; i > 0 && is_before(timers, i, (i - 1) / 2); i = (i - 1) / 2)
                swap(timers, i, (i - 1) / 2);
        for (; (child = 2 * i + 1) < timers->count; i = child) {
                if (child + 1 < timers->count && is_before(timers, child + 1, child))
                        child++;
                if (!is_before(timers, child, i))
                        return;
                swap(timers, i, child);
        }
}

int timers_open(struct timers *timers, struct sim_device *devices, unsigned count) {
        unsigned i;

        timers->heap = calloc(count, sizeof(*timers->heap));
        if (!timers->heap)
                return -1;
        timers->count = count;
        for (i = 0; i < count; i++) {
                devices[i].due_real = DEVICE_NEVER;
                devices[i].heap_index = i;
                timers->heap[i] = &devices[i];
        }
        return 0;
}

void timers_close(struct timers *timers) {
        free(timers->heap);
        timers->heap = NULL;
}

void timers_set(struct timers *timers, struct sim_device *device, uint64_t due_real) {
        device->due_real = due_real;
        sift(timers, device->heap_index);
}

struct sim_device *timers_first(const struct timers *timers) {
        return timers->heap[0];
}

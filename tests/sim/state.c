/* SPDX-License-Identifier: Apache-2.0 */

/* The devices' flash as one file of records of fixed size, so that a fleet goes on where it was when
 * the program starts again. For the same build on the same machine: numbers are native. */

#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct header {
        char magic[8];
        uint32_t record_size;
        uint32_t reserved;
};

struct record {
        struct identity identity;
        struct device_memory memory;
};

static const char magic[8] = "gwsim 2";

static off_t place_of(unsigned number) {
        return (off_t)(sizeof(struct header) + (size_t)number * sizeof(struct record));
}

int state_store(const struct sim *sim, const struct sim_device *device) {
        struct record record;

        if (sim->state < 0)
                return 0;
        memset(&record, 0, sizeof(record)); /* padding too: it goes to a file */
        record.identity = device->identity;
        record.memory = device->memory;
        return pwrite(sim->state, &record, sizeof(record), place_of(device->number)) == sizeof(record) ? 0 : -EIO;
}

static int check_header(struct sim *sim, bool *is_new) {
        struct header header = { .record_size = sizeof(struct record) }, found;
        ssize_t size;

        memcpy(header.magic, magic, sizeof(magic));
        size = pread(sim->state, &found, sizeof(found), 0);
        *is_new = size == 0;
        if (size < 0)
                return -errno;
        if (*is_new)
                return pwrite(sim->state, &header, sizeof(header), 0) == sizeof(header) ? 0 : -EIO;
        if (size != sizeof(found) || memcmp(&found, &header, sizeof(found)) != 0) {
                fprintf(stderr, "gateway-sim: %s is not a state file of this program\n", sim->options.state);
                return -EINVAL;
        }
        return 0;
}

/* Spread evenly over the fleet: of half of it, every second one. */
static bool holds_certificate(const struct sim_options *options, unsigned number) {
        return (uint64_t)(number + 1) * options->certificate_percent / 100 !=
               (uint64_t)number * options->certificate_percent / 100;
}

int state_open(struct sim *sim) {
        struct record record;
        bool is_new = true;
        unsigned i;
        int r;

        sim->state = -1;
        if (sim->options.state) {
                sim->state = open(sim->options.state, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
                if (sim->state < 0)
                        return -errno;
                r = check_header(sim, &is_new);
                if (r < 0)
                        return r;
        }
        for (i = 0; i < sim->count; i++) {
                struct sim_device *device = &sim->devices[i];

                if (!is_new && pread(sim->state, &record, sizeof(record), place_of(i)) == sizeof(record)) {
                        device->identity = record.identity;
                        device->memory = record.memory;
                        continue;
                }
                r = identity_make(&device->identity, &sim->options, i);
                if (r == 0 && holds_certificate(&sim->options, i))
                        r = manufacturer_equip(&sim->manufacturer, &device->identity);
                if (r == 0)
                        r = state_store(sim, device);
                if (r < 0)
                        return r;
        }
        return 0;
}

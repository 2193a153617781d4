/* SPDX-License-Identifier: Apache-2.0 */

/* The devices: each one's callbacks, its power, and the faults that befall it. */

#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>

#include <openssl/sha.h>

/* How often the test clock is looked at, which another process may move. */
#define CLOCK_LOOK_MS 20

static uint64_t device_ms(const struct sim_device *device) {
        return test_clock_device_ms(&device->sim->clock);
}

/* ---- what device.c asks for ---- */

/* Milliseconds since its power-up, as on a real one. */
static uint64_t port_now(void *user) {
        const struct sim_device *device = user;

        return device_ms(device) - device->powered_at;
}

static void port_random(void *user, void *data, size_t size) {
        struct sim_device *device = user;

        dice_fill(&device->dice, data, size);
}

static void port_connect(void *user, const struct device_key *key, struct device_bytes anchors) {
        struct sim_device *device = user;

        session_connect(&device->session, key, anchors);
}

static void port_disconnect(void *user) {
        struct sim_device *device = user;

        session_disconnect(&device->session, device->is_dead);
}

static int port_send(void *user, const uint8_t *datagram, size_t size) {
        struct sim_device *device = user;

        return session_send(&device->session, datagram, size);
}

static int port_store(void *user, const struct device_memory *memory) {
        struct sim_device *device = user;

        if (device->is_dead) /* the power went before this was written */
                return -1;
        device->memory = *memory;
        return state_store(device->sim, device);
}

static int port_sign(void *user, const uint8_t *message, size_t size, uint8_t signature[64]) {
        struct sim_device *device = user;

        return attester_sign(&device->attester, message, size, signature);
}

static size_t port_request(void *user, struct device_bytes certificate, struct device_key *key, uint8_t *csr,
                           size_t capacity) {
        (void)user;
        return certificate_request(certificate, key, csr, capacity);
}

static int port_matches(void *user, struct device_key *key, struct device_bytes certificate) {
        (void)user;
        return certificate_matches(key, certificate);
}

static void port_event(void *user, const struct device_event *event) {
        books_take(user, event);
}

/* ---- faults ---- */

static void plan_reboot(struct sim_device *device) {
        uint64_t every = device->sim->options.reboot_every_sec * UINT64_C(1000);

        device->reboot_at = DEVICE_NEVER;
        if (every > 0)
                device->reboot_at = device_ms(device) + every / 2 + dice_roll(&device->dice) % every;
}

/* A reply to /cred, sen or sren that carries a grant: the most delicate datagram of all. CoAP code 2.04. */
static bool is_grant(const struct sim_device *device, const uint8_t *data, size_t size) {
        return size > 4 && data[1] == DEVICE_CODE(2, 4) && device->device.coap.is_busy &&
               device->device.coap.request.method == DEVICE_POST &&
               strncmp(device->device.coap.request.path, "rats", 4) != 0;
}

/* Half of the lost replies take the device with them (its power goes as the reply arrives), the other
 * half are lost datagrams, which a retransmission brings again. */
static bool loses_reply(struct sim_device *device, const uint8_t *data, size_t size) {
        if (!is_grant(device, data, size) || !dice_happens(&device->dice, device->sim->options.lost_reply))
                return false;
        device->books.lost_replies++;
        if (dice_roll(&device->dice) & 1) {
                device->is_dead = true;
                timers_set(&device->sim->timers, device, 0);
        }
        return true;
}

/* ---- what a session tells ---- */

/* When this device wants to be looked at, in real_ms(). */
static uint64_t deadline_of(const struct sim_device *device) {
        uint64_t at = session_deadline(&device->session), now = device_ms(device);
        uint64_t wake = device->wake_at < device->reboot_at ? device->wake_at : device->reboot_at;

        if (device->is_dead || wake <= now)
                return 0;
        wake = wake == DEVICE_NEVER ? DEVICE_NEVER : real_ms() + (wake - now);
        return wake < at ? wake : at;
}

/* Every event of one device comes by here. */
static void note_wake(struct sim_device *device, uint64_t wake_at) {
        device->wake_at = wake_at == DEVICE_NEVER ? DEVICE_NEVER : device->powered_at + wake_at;
        timers_set(&device->sim->timers, device, deadline_of(device));
}

static void session_connected(void *user) {
        struct sim_device *device = user;

        note_wake(device, device_connected(&device->device));
}

static void session_refused(void *user) {
        struct sim_device *device = user;

        note_wake(device, device_refused(&device->device));
}

static void session_lost(void *user) {
        struct sim_device *device = user;

        note_wake(device, device_lost(&device->device));
}

static void session_datagram(void *user, const uint8_t *data, size_t size) {
        struct sim_device *device = user;

        if (device->is_dead || loses_reply(device, data, size))
                return;
        note_wake(device, device_input(&device->device, data, size));
}

/* ---- power ---- */

static void power_up(struct sim_device *device) {
        const struct sim_options *options = &device->sim->options;
        const struct identity *identity = &device->identity;
        bool has_idevid = identity->idevid_size > 0;
        const struct device_config config = {
                .id = identity->id,
                .factory_key = has_idevid ? identity->idevid_key : identity->factory_key,
                .factory_key_size = has_idevid ? sizeof(identity->idevid_key) : sizeof(identity->factory_key),
                .idevid = { identity->idevid, identity->idevid_size },
                .claims = { .ueid = device->attester.ueid,
                            .ueid_size = sizeof(device->attester.ueid),
                            .software_name = options->software_name,
                            .software_version = options->software_version,
                            .measurement = device->sim->measurement },
                .grant_key_bytes = (uint8_t)options->key_bytes,
                .block_bytes = options->block_bytes,
                .observes = options->observes,
                .stays_connected = !options->sleeps,
                .wants_time = options->wants_time,
                .ack_timeout_ms = options->ack_timeout_ms,
                .backoff_min_ms = options->backoff_min_ms,
                .backoff_max_ms = options->backoff_max_ms,
        };
        const struct device_port port = {
                .user = device,
                .now = port_now,
                .random = port_random,
                .connect = port_connect,
                .disconnect = port_disconnect,
                .send = port_send,
                .store = port_store,
                .sign = options->attests ? port_sign : NULL,
                .request = port_request,
                .matches = port_matches,
                .event = port_event,
        };

        device->is_off = false;
        device->is_dead = false;
        device->powered_at = device_ms(device);
        device->has_been_provisioned = device->memory.has_newest;
        device_init(&device->device, &config, &port, &device->memory);
        plan_reboot(device);
        note_wake(device, 0);
}

void fleet_reboot(struct sim_device *device) {
        session_disconnect(&device->session, true);
        device->books.reboots++;
        power_up(device);
}

void fleet_power(struct sim_device *device, bool is_on) {
        if (is_on == !device->is_off)
                return;
        if (is_on) {
                power_up(device);
                return;
        }
        session_disconnect(&device->session, true);
        device->is_off = true;
        device->wake_at = DEVICE_NEVER;
        device->reboot_at = DEVICE_NEVER;
        timers_set(&device->sim->timers, device, DEVICE_NEVER);
}

void fleet_factory_reset(struct sim_device *device) {
        device->books.factory_resets++;
        device->has_been_provisioned = false;
        note_wake(device, device_factory_reset(&device->device));
}

void fleet_observe(struct sim *sim, bool observes) {
        unsigned i;

        sim->options.observes = observes;
        for (i = 0; i < sim->count; i++)
                if (!sim->devices[i].is_off)
                        note_wake(&sim->devices[i], device_observe(&sim->devices[i].device, observes));
}

struct sim_device *fleet_find(struct sim *sim, const char *id) {
        unsigned i;

        for (i = 0; i < sim->count; i++)
                if (strcmp(sim->devices[i].identity.id, id) == 0)
                        return &sim->devices[i];
        return NULL;
}

/* ---- timers ---- */

void fleet_look(struct sim *sim) {
        sim->looks_at_all = true;
}

static void count_settled(struct sim_device *device) {
        bool is_settled = device->is_off ? device->reboot_at == DEVICE_NEVER : device_is_settled(&device->device);

        if (is_settled != device->is_settled)
                device->sim->settled += is_settled ? 1U : (unsigned)-1;
        device->is_settled = is_settled;
        if (is_settled && !device->is_off && device->books.ready_ms == 0)
                device->books.ready_ms = real_ms() - device->sim->started_real + 1;
}

/* Runs what is due at one device. */
static void run_device(struct sim_device *device) {
        uint64_t now = device_ms(device);

        if (device->is_off && now >= device->reboot_at)
                power_up(device);
        if (device->is_off) {
                count_settled(device);
                timers_set(&device->sim->timers, device, deadline_of(device));
                return;
        }
        if (device->is_dead || now >= device->reboot_at)
                fleet_reboot(device);
        if (session_deadline(&device->session) <= real_ms())
                session_timer(&device->session);
        if (now >= device->wake_at)
                note_wake(device, device_tick(&device->device));
        count_settled(device);
        timers_set(&device->sim->timers, device, deadline_of(device));
}

int fleet_run_timers(struct sim *sim) {
        uint64_t due, now = real_ms(), patience = sim->options.test_clock ? CLOCK_LOOK_MS : 1000;
        int64_t offset = test_clock_offset(&sim->clock);
        unsigned i;

        if (offset != sim->seen_offset) /* somebody else moved the clock */
                sim->looks_at_all = true;
        sim->seen_offset = offset;
        if (sim->looks_at_all) {
                sim->looks_at_all = false;
                for (i = 0; i < sim->count; i++)
                        run_device(&sim->devices[i]);
        }
        /* Once round at most: sockets want their turn too. */
        for (i = 0; i < sim->count && timers_first(&sim->timers)->due_real <= now; i++)
                run_device(timers_first(&sim->timers));
        due = timers_first(&sim->timers)->due_real;
        now = real_ms();
        if (sim->looks_at_all || due <= now)
                return 0;
        return (int)(due - now > patience ? patience : due - now);
}

void fleet_readable(struct sim_device *device) {
        session_readable(&device->session);
        if (!device->is_off)
                count_settled(device);
}

/* ---- the whole ---- */

static int open_device(struct sim *sim, unsigned number) {
        struct sim_device *device = &sim->devices[number];
        const struct session_owner owner = { device, session_connected, session_refused, session_lost,
                                             session_datagram };
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = device };
        int r;

        device->is_off = true;
        device->wake_at = device->reboot_at = DEVICE_NEVER;
        dice_seed(&device->dice, sim->options.seed, number + 1);
        r = attester_open(&device->attester, &device->identity);
        if (r < 0)
                return r;
        r = session_open(&device->session, &sim->session_settings, &owner, number);
        if (r < 0)
                return r;
        return epoll_ctl(sim->epoll, EPOLL_CTL_ADD, device->session.socket, &event) < 0 ? -errno : 0;
}

static void allow_many_sockets(unsigned count) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= count + 64)
                return;
        limit.rlim_cur = count + 64;
        if (limit.rlim_max < limit.rlim_cur)
                limit.rlim_max = limit.rlim_cur;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* socket() tells if it was not enough */
}

int fleet_open(struct sim *sim) {
        unsigned i;
        int r;

        if (!sim->options.has_seed && getrandom(&sim->options.seed, sizeof(sim->options.seed), 0) < 0)
                return -errno;
        dice_seed(&sim->dice, sim->options.seed, 0);
        sim->session_settings.seed = sim->options.seed;
        SHA256((const uint8_t *)sim->options.measurement, strlen(sim->options.measurement), sim->measurement);
        sim->count = sim->options.devices;
        sim->devices = calloc(sim->count, sizeof(*sim->devices));
        if (!sim->devices)
                return -ENOMEM;
        for (i = 0; i < sim->count; i++) {
                sim->devices[i].sim = sim;
                sim->devices[i].number = i;
        }
        if (timers_open(&sim->timers, sim->devices, sim->count) < 0)
                return -ENOMEM;
        if (sim->options.certificate_percent > 0) {
                r = manufacturer_open(&sim->manufacturer, sim->options.manufacturer);
                if (r < 0)
                        return r;
        }
        r = state_open(sim);
        if (r < 0)
                return r;
        allow_many_sockets(sim->count);
        for (i = 0; i < sim->count; i++) {
                r = open_device(sim, i);
                if (r < 0)
                        return r;
        }
        return 0;
}

void fleet_start(struct sim *sim) {
        unsigned i;

        sim->started_real = real_ms();
        for (i = 0; i < sim->count; i++)
                sim->devices[i].reboot_at =
                        device_ms(&sim->devices[i]) + sim->options.ramp_sec * UINT64_C(1000) * i / sim->count;
        fleet_look(sim);
}

void fleet_close(struct sim *sim) {
        unsigned i;

        for (i = 0; sim->devices && i < sim->count; i++) {
                session_disconnect(&sim->devices[i].session, false);
                session_close(&sim->devices[i].session);
                attester_close(&sim->devices[i].attester);
                books_free(&sim->devices[i].books);
        }
        manufacturer_close(&sim->manufacturer);
        timers_close(&sim->timers);
        free(sim->devices);
        sim->devices = NULL;
}

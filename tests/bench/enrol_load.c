/* SPDX-License-Identifier: Apache-2.0 */

/* Devices with IDevIDs, many at once, for bench_enrolment.py: each shakes hands, and perhaps enrols, as fast as
 * the other side lets it. Keys, certificates and requests are made beforehand, so that what is measured is not
 * this program. It lives off the simulator's parts.
 *
 *   enrol_load prepare FOLDER COUNT               manufacturer.pem, registry.csv, devices
 *   enrol_load run FOLDER PORT handshake|enrol CONCURRENT [FIRST COUNT]
 */

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/sim/sim.h"

#define PATIENCE_MS 60000

struct recruit {
        struct device_key idevid;
        uint8_t csr[DEVICE_CSR_MAX];
        uint32_t csr_size;
};

struct load;

/* One device under way. */
struct runner {
        struct load *load;
        struct session session;
        struct device_coap coap;
        const struct recruit *recruit;
        enum { RUNNER_IDLE, RUNNER_BUSY, RUNNER_DONE, RUNNER_FAILED } state;
};

struct load {
        struct session_settings settings;
        struct dice dice;
        struct recruit *recruits;
        unsigned count, next, done, failed;
        bool enrols;
        int epoll;
        uint8_t last_code;
};

_Noreturn static void die(const char *what) {
        fprintf(stderr, "enrol_load: %s: %s\n", what, strerror(errno));
        exit(1);
}

static FILE *open_in(const char *folder, const char *name, const char *mode) {
        char path[4096];
        FILE *file;

        snprintf(path, sizeof path, "%s/%s", folder, name);
        file = fopen(path, mode);
        if (!file)
                die(path);
        return file;
}

/* ---- prepare ---- */

static void make(const struct manufacturer *manufacturer, unsigned number, struct recruit *recruit) {
        struct identity identity = { 0 };
        struct device_key key = { 0 };

        snprintf(identity.id, sizeof identity.id, "bench-%05u", number);
        if (manufacturer_equip(manufacturer, &identity) < 0)
                die("an IDevID");
        memset(recruit, 0, sizeof *recruit);
        recruit->idevid.identity_size = (uint8_t)strlen(identity.id);
        memcpy(recruit->idevid.identity, identity.id, recruit->idevid.identity_size);
        memcpy(recruit->idevid.key, identity.idevid_key, sizeof identity.idevid_key);
        recruit->idevid.key_size = sizeof identity.idevid_key;
        recruit->idevid.certificate_size = identity.idevid_size;
        memcpy(recruit->idevid.certificate, identity.idevid, identity.idevid_size);
        recruit->csr_size =
                (uint32_t)certificate_request((struct device_bytes){ identity.idevid, identity.idevid_size }, &key,
                                              recruit->csr, sizeof recruit->csr);
        if (recruit->csr_size == 0)
                die("a request");
}

static void prepare(const char *folder, unsigned count) {
        FILE *registry = open_in(folder, "registry.csv", "w"), *devices = open_in(folder, "devices", "w");
        struct manufacturer manufacturer = { 0 };
        struct recruit recruit;
        char path[4096];

        snprintf(path, sizeof path, "%s/manufacturer.pem", folder);
        if (manufacturer_open(&manufacturer, path) < 0)
                die(path);
        fputs("id,profile,psk\n", registry);
        for (unsigned i = 0; i < count; i++) {
                make(&manufacturer, i, &recruit);
                fprintf(registry, "bench-%05u,bench,\n", i);
                if (fwrite(&recruit, sizeof recruit, 1, devices) != 1)
                        die("devices");
        }
        manufacturer_close(&manufacturer);
        if (fclose(registry) != 0 || fclose(devices) != 0)
                die(folder);
}

/* ---- run ---- */

static int runner_send(void *user, const uint8_t *datagram, size_t size) {
        struct runner *runner = user;

        return session_send(&runner->session, datagram, size);
}

static void runner_random(void *user, void *data, size_t size) {
        struct runner *runner = user;

        dice_fill(&runner->load->dice, data, size);
}

static void took(struct runner *runner, enum device_coap_result result) {
        if (result == DEVICE_COAP_NOTHING || result == DEVICE_COAP_NOTIFIED)
                return;
        runner->load->last_code = result == DEVICE_COAP_REPLY ? runner->coap.reply.code : 0;
        runner->state = runner->load->last_code == DEVICE_CODE(2, 4) ? RUNNER_DONE : RUNNER_FAILED;
}

static void runner_connected(void *user) {
        struct runner *runner = user;
        const struct device_request request = {
                .method = DEVICE_POST,
                .path = "est/sen",
                .body = { runner->recruit->csr, runner->recruit->csr_size },
                .content_format = DEVICE_FORMAT_PKCS10,
        };

        if (runner->load->enrols)
                device_coap_start(&runner->coap, &request, real_ms());
        else
                runner->state = RUNNER_DONE;
}

static void runner_ended(void *user) {
        struct runner *runner = user;

        runner->state = RUNNER_FAILED;
}

static void runner_datagram(void *user, const uint8_t *data, size_t size) {
        struct runner *runner = user;

        took(runner, device_coap_input(&runner->coap, data, size, real_ms()));
}

static void begin(struct runner *runner) {
        struct load *load = runner->load;
        const struct session_owner owner = { runner, runner_connected, runner_ended, runner_ended, runner_datagram };
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = runner };

        runner->recruit = &load->recruits[load->next];
        runner->state = RUNNER_BUSY;
        runner->coap = (struct device_coap){ .send = runner_send, .random = runner_random, .user = runner };
        device_coap_init(&runner->coap);
        if (session_open(&runner->session, &load->settings, &owner, load->next++) < 0 ||
            epoll_ctl(load->epoll, EPOLL_CTL_ADD, runner->session.socket, &event) < 0)
                die("a socket");
        session_connect(&runner->session, &runner->recruit->idevid, (struct device_bytes){ NULL, 0 });
}

/* Ends what has ended, and begins with the next device. */
static void turn_over(struct runner *runner) {
        struct load *load = runner->load;

        if (runner->state == RUNNER_BUSY)
                return;
        if (runner->state != RUNNER_IDLE) {
                load->done += runner->state == RUNNER_DONE;
                load->failed += runner->state == RUNNER_FAILED;
                session_disconnect(&runner->session, false);
                session_close(&runner->session);
                runner->state = RUNNER_IDLE;
        }
        if (load->next < load->count)
                begin(runner);
}

static void tend(struct runner *runner) {
        uint64_t now = real_ms();

        if (runner->state == RUNNER_BUSY && session_deadline(&runner->session) <= now)
                session_timer(&runner->session);
        if (runner->state == RUNNER_BUSY)
                took(runner, device_coap_tick(&runner->coap, now));
        turn_over(runner);
}

static void run_all(struct load *load, struct runner *runners, unsigned concurrent) {
        uint64_t until = real_ms() + PATIENCE_MS, looked = 0;
        struct epoll_event events[64];

        for (unsigned i = 0; i < concurrent; i++) {
                runners[i].load = load;
                turn_over(&runners[i]);
        }
        while (load->done + load->failed < load->count && real_ms() < until) {
                int n = epoll_wait(load->epoll, events, 64, 10);

                for (int i = 0; i < n; i++) {
                        struct runner *runner = events[i].data.ptr;

                        session_readable(&runner->session);
                        turn_over(runner);
                }
                if (real_ms() - looked < 20)
                        continue;
                looked = real_ms();
                for (unsigned i = 0; i < concurrent; i++)
                        tend(&runners[i]);
        }
}

static void read_recruits(struct load *load, const char *folder, long first, unsigned count) {
        FILE *file = open_in(folder, "devices", "r");
        long size;

        if (fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) < 0)
                die("devices");
        load->count = (unsigned)(size / (long)sizeof(struct recruit) - first);
        if (count > 0 && count < load->count)
                load->count = count;
        load->recruits = calloc(load->count, sizeof *load->recruits);
        if (!load->recruits || fseek(file, first * (long)sizeof(struct recruit), SEEK_SET) < 0 ||
            fread(load->recruits, sizeof *load->recruits, load->count, file) != load->count)
                die("devices");
        fclose(file);
}

static void run(const char *folder, const char *port, const char *what, unsigned concurrent, long first,
                unsigned count) {
        struct load load = { .enrols = strcmp(what, "enrol") == 0 };
        struct runner *runners = calloc(concurrent, sizeof *runners);
        struct sim_options options = { .ciphers = "PSK-AES128-CCM8", .handshake_timeout_ms = 30000 };
        char gateway[64];
        uint64_t begun;
        double sec;

        snprintf(gateway, sizeof gateway, "127.0.0.1:%s", port);
        options.gateway = gateway;
        load.epoll = epoll_create1(0);
        if (!runners || load.epoll < 0 || session_settings_init(&load.settings, &options) < 0)
                die("setting up");
        dice_seed(&load.dice, (uint64_t)getpid(), 0);
        read_recruits(&load, folder, first, count);
        begun = real_ms();
        run_all(&load, runners, concurrent);
        sec = (double)(real_ms() - begun) / 1000;
        printf("{\"done\":%u,\"failed\":%u,\"seconds\":%.3f,\"per_second\":%.1f,\"last_code\":\"%u.%02u\"}\n",
               load.done, load.failed, sec, load.done / (sec > 0 ? sec : 1), load.last_code >> 5, load.last_code & 31U);
        for (unsigned i = 0; i < concurrent; i++)
                if (runners[i].state != RUNNER_IDLE)
                        session_close(&runners[i].session);
        session_settings_free(&load.settings);
        free(runners);
        free(load.recruits);
}

int main(int argc, char **argv) {
        if (argc == 4 && strcmp(argv[1], "prepare") == 0) {
                prepare(argv[2], (unsigned)atoi(argv[3]));
        } else if ((argc == 6 || argc == 8) && strcmp(argv[1], "run") == 0) {
                run(argv[2], argv[3], argv[4], (unsigned)atoi(argv[5]), argc == 8 ? atol(argv[6]) : 0,
                    argc == 8 ? (unsigned)atoi(argv[7]) : 0);
        } else {
                fputs("enrol_load prepare FOLDER COUNT | run FOLDER PORT handshake|enrol CONCURRENT [FIRST COUNT]\n",
                      stderr);
                return 2;
        }
        return 0;
}

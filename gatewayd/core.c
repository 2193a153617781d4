/* SPDX-License-Identifier: Apache-2.0 */

/* core: holds the store, the sealing keys, the schedule and the control socket; may not have an IP
 * socket. One loop of turns: take what is ready, decide, commit, and after the barrier, answer. */

#include "gatewayd/core.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "gatewayd/backup/place.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/devices/orders.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/key_uri.h"
#include "gatewayd/keys/own_keys.h"
#include "gatewayd/sandbox.h"
#include "gatewayd/sealing.h"
#include "store/audit.h"
#include "store/certificates.h"

#define THROTTLE_USEC (60 * UINT64_C(1000000))

uint64_t core_monotonic_usec(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- events ---- */

static bool is_noisy(enum event_kind kind) {
        switch (kind) {
        case EVENT_DEVICE_CONNECTED:
        case EVENT_HANDSHAKE_REFUSED:
        case EVENT_REQUEST_REFUSED:
        case EVENT_FACTORY_KEY_USED:
        case EVENT_EVIDENCE_REFUSED:
        case EVENT_ENROLMENT_REFUSED:
        case EVENT_BACKLOG_FULL:
                return true;
        default:
                return false;
        }
}

void core_event(struct core *core, const struct event *event) {
        if (is_noisy(event->kind))
                journal_throttle_event(core->throttle, event, core_monotonic_usec());
        else
                journal_event(event);
}

static void tell(struct core *core, enum event_kind kind, const char *format, ...) _printf_(3, 4);
static void tell(struct core *core, enum event_kind kind, const char *format, ...) {
        struct event event = { .kind = kind };
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(event.reason, sizeof event.reason, format, arguments);
        va_end(arguments);
        core_event(core, &event);
}

void core_fatal(struct core *core, enum event_kind kind, const char *reason) {
        tell(core, kind, "%s", reason);
        _exit(EXIT_FAILURE);
}

/* ---- turns ---- */

static void tell_clock(struct core *core, const struct moment *now, int64_t held_before, unix_sec wall_read) {
        static const char *const names[] = { "unknown", "held", "synchronized" };
        const bool is_behind = wall_read + CLOCK_JUMP_SEC < now->wall;

        if (now->quality != core->quality_told) {
                core->quality_told = now->quality;
                tell(core, EVENT_CLOCK_QUALITY, "%s", names[now->quality]);
        }
        if (is_behind && !core->is_behind_told)
                tell(core, EVENT_CLOCK_BEHIND,
                     "the machine's clock is %lld days behind what the store has seen; the store's time goes on",
                     (long long)((now->wall - wall_read) / 86400));
        core->is_behind_told = is_behind;
        if (core->clock.hold_until_powered != 0 && held_before == 0)
                tell(core, EVENT_CLOCK_JUMPED,
                     "calendar time ran ahead of powered-on time; calendar ages end nothing for %d days",
                     CLOCK_HOLD_SEC / 86400);
}

struct turn *core_begin(struct core *core, const char *actor) {
        int64_t held_before = core->clock.hold_until_powered;
        struct clock_reading reading;

        clock_read(&reading);
        core->turn.now = clock_advance(&core->clock, &reading);
        core->turn.config = core->config;
        core->turn.actor = actor;
        core->is_turn_open = true;
        core->attempt++;
        core_tick_offer(core);
        tell_clock(core, &core->turn.now, held_before, reading.wall);
        return &core->turn;
}

void core_drop(struct core *core) {
        store_rollback(core->store);
        turn_clear(&core->turn);
        output_drop_open(&core->outputs, -ECANCELED);
        session_forget_attempt(core->sessions, core->attempt);
        core->is_turn_open = false;
}

/* What was pushed while the turn was open leaves once the last committed one has passed. */
static void bind_outputs(struct core *core) {
        for (size_t i = core->outputs.count; i > 0; i--) {
                struct output *output = output_at(&core->outputs, i - 1);

                if (output->turn != TURN_OPEN)
                        break;
                output->turn = core->last_turn;
        }
}

/* Commits the open turn and binds what it wants to say to the turn's number. */
static int close_turn(struct core *core) {
        uint64_t turn = core->last_turn;
        int r = 0;

        core->is_turn_open = false;
        core_tick_taken(core);
        if (store_is_changed(core->store)) {
                r = core_authority_before_commit(core);
                if (r >= 0 && core->is_forgetting_due)
                        r = credential_forget_sessions(core->store);
                if (r >= 0)
                        r = store_meta_set_clock(core->store, &core->clock);
                if (r >= 0)
                        r = store_commit(core->store, &turn);
                if (r < 0) {
                        /* Before a word to anybody: what of the turn is on the disk nobody knows. */
                        if (!store_error_passes(r) || store_barrier_error(core->store) < 0)
                                core_fatal(core, EVENT_STORE_FAILED, strerror(-r));
                        core_degrade(core, r);
                        bind_outputs(core);
                        return r;
                }
                core->last_turn = turn;
                core->is_forgetting_due = false;
                core_tick_soon(core);
                core->clock_recorded = core->clock.powered_sec;
                if (core->is_degraded)
                        core_recover(core);
        } else
                (void)store_commit(core->store, &turn); /* ends a transaction that only read */
        for (size_t i = 0; i < core->turn.effect_count; i++) {
                struct output *output = output_push(&core->outputs);

                output->kind = OUTPUT_EFFECT;
                output->effect = core->turn.effects[i];
        }
        turn_clear(&core->turn);
        bind_outputs(core);
        return 0;
}

int core_end(struct core *core) {
        int r = close_turn(core);

        core_flush(core);
        return r;
}

static void send_frame(struct core *core, struct output *output) {
        if (!core->exchange.link)
                return; /* south has gone and its sessions with it */
        if (link_send(core->exchange.link, output->frame_type, buffer_bytes(&output->body), output->refusal) == -EPIPE)
                link_watch_flush(core->exchange.watch); /* notices the break; the supervisor restarts south */
}

/* Carries out everything up to `passed`. An effect may open a turn, which the caller closes. */
static void flush_passed(struct core *core, uint64_t passed) {
        while (core->outputs.count > 0) {
                struct output *output = output_at(&core->outputs, 0);
                struct effect effect;

                if (output->turn == TURN_OPEN || output->turn > passed)
                        return;
                switch (output->kind) {
                case OUTPUT_FRAME:
                        send_frame(core, output);
                        output_pop(&core->outputs);
                        break;
                case OUTPUT_DONE: {
                        struct output done = *output;

                        output_pop(&core->outputs);
                        done.done(done.arg, 0);
                        break;
                }
                case OUTPUT_EFFECT:
                        effect = output->effect;
                        output_pop(&core->outputs);
                        /* Evictions and notifications look at the store: in a turn of their own. */
                        if (effect.kind != EFFECT_EVENT && !core->is_turn_open)
                                core_begin(core, "core");
                        core_effect(core, &effect);
                        break;
                }
        }
}

void core_flush(struct core *core) {
        int error = store_barrier_error(core->store);

        /* Linux marks the pages of a failed fdatasync clean: what was not flushed may be lost and a second
         * try would say otherwise. So nothing leaves, and the next core starts from what the disk has. */
        if (error < 0)
                core_fatal(core, EVENT_STORE_FAILED, "the write-ahead log could not be flushed");
        do {
                flush_passed(core, store_barrier_passed(core->store));
                if (!core->is_turn_open)
                        break;
        } while (close_turn(core) >= 0);
        if (core->exchange.watch)
                link_watch_flush(core->exchange.watch);
        core_north_feed(core);
}

static int on_barrier(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        uint64_t ignored;

        (void)source;
        (void)revents;
        (void)!read(fd, &ignored, sizeof ignored); /* only clears it; the number is read in core_flush() */
        core_flush(userdata);
        return 0;
}

/* ---- reload ---- */

static int profile_is_kept(void *userdata, const struct device *device) {
        return config_profile(userdata, device->profile) ? 0 : -ENOKEY;
}

/* Whether every device's profile is still there. A walk over the registry: reloads are rare, and a device
 * without a profile would be locked out. */
static bool profiles_are_kept(struct core *core, struct config *config) {
        return device_each(core->store, NULL, SIZE_MAX, profile_is_kept, config) >= 0;
}

static void reload(struct core *core, int fd) {
        struct config_problems problems = { 0 };
        struct config *config = NULL;
        uint8_t taken;

        /* The supervisor has found it good; what it cannot know is which profiles are in use. */
        if (config_load_descriptor(fd, &config, &problems) >= 0 && !profiles_are_kept(core, config)) {
                tell(core, EVENT_CONFIG_REFUSED,
                     "devices in the registry use a profile that the new file does not have");
                config = config_free(config);
        }
        close(fd);
        config_problems_free(&problems);
        taken = config != NULL;
        if (taken) {
                /* Receipts name the gateway: another name waits for the next start, as the supervisor says. */
                memcpy(config->gateway_id, core->config->gateway_id, sizeof config->gateway_id);
                config_free(core->config);
                core->config = config;
                core->turn.config = config;
                core->custodian.gateway_id = config->gateway_id;
                core_tick_all(core);
                tell(core, EVENT_CONFIG_RELOADED, "%zu profiles", config->profile_count);
        }
        role_tell(&core->process, FRAME_RELOADED, BYTES(&taken, 1));
}

/* ---- start and stop ---- */

static int on_frame(void *userdata, struct frame *frame) {
        struct core *core = userdata;
        struct message_setup peer;
        int r = -EBADMSG;

        if (frame->type == FRAME_RELOAD && frame->descriptor_count == 1) {
                reload(core, frame->descriptors[0]);
                return 0;
        }
        if (frame->type == FRAME_PEER && message_read_setup(frame->body, &peer) == 0) {
                if (peer.role == ROLE_SOUTH && frame->descriptor_count == 2)
                        return core_south_attach(core, frame->descriptors[0], frame->descriptors[1]);
                if (peer.role == ROLE_NORTH && frame->descriptor_count == 1)
                        return core_north_attach(core, frame->descriptors[0]);
        }
        for (size_t i = 0; i < frame->descriptor_count; i++)
                close(frame->descriptors[i]);
        return r;
}

static void on_stop(void *userdata) {
        struct core *core = userdata;

        /* What was decided is flushed and told before the end: nothing is lost, nobody waits in vain. */
        if (core->is_turn_open)
                (void)core_end(core);
        if (store_barrier_wait(core->store, core->last_turn) >= 0)
                core_flush(core);
        (void)sd_event_exit(core->process.event, EXIT_SUCCESS);
}

static int refuse(struct core *core, enum event_kind kind, const struct problem *problem) {
        journal_line(2, "core: %s: %s", problem->title, problem->detail);
        tell(core, kind, "%s", problem->detail);
        return ROLE_EXIT_REFUSED;
}

static int lock_in(struct core *core, struct problem *problem) {
        char store[PATH_MAX], runtime[PATH_MAX], crl[PATH_MAX];
        const struct sandbox_paths paths = {
                .store = store,
                .runtime = runtime,
                .crl = crl,
                .keys = core->config->ca.paths,
                .key_count = core->config->ca.path_count,
        };
        int r;

        path_folder(core->config->store_path, store, sizeof store);
        path_folder(core->config->control_path, runtime, sizeof runtime);
        r = core_authority_folder(core, crl, problem);
        if (r < 0)
                return r;
        r = sandbox_enter(ROLE_CORE, &paths, core->config->sandbox, problem);
        core->is_sandbox_weak = r == 1;
        return r;
}

/* The recovery key stays empty where nobody brought one. Returns 1 where the sealing key is a new one, which
 * only the recovery key can put into force. */
static int load_keys(struct core *core, struct secret *key, struct secret *recovery, struct problem *problem) {
        const char *path = core->config->store_path;
        int r = recovery_key_load(path, recovery, problem);

        if (r < 0 && r != -ENOENT)
                return r;
        core->is_recovery_key_brought = r == 0;
        return sealing_key_load(path, r >= 0, key, &core->is_sealing_key_file, problem);
}

/* On a disk that takes nothing now core starts all the same, degraded: known keys open sessions and read. */
static int forget_sessions(struct core *core) {
        int r;

        core_begin(core, "core");
        r = credential_forget_sessions(core->store);
        if (r < 0)
                return r;
        r = core_end(core);
        core->is_forgetting_due = r < 0;
        return store_error_passes(r) ? 0 : r;
}

static int open_store(struct core *core, struct secret *key, struct secret *recovery, struct problem *problem) {
        const struct store_options options = {
                .path = core->config->store_path,
                .key_encryption_key = secret_bytes(key),
                .recovery_key = secret_bytes(recovery),
        };
        struct store_meta meta;
        int r;

        r = store_open(&options, &core->store, problem);
        secret_wipe(key);
        secret_wipe(recovery);
        if (r < 0)
                return r;
        r = store_meta_get(core->store, &meta);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "store", "the store's own facts cannot be read: %s",
                                   strerror(-r));
        core->clock = meta.clock;
        core->turn.store = core->store;
        core_begin(core, "core");
        r = custodian_open(&core->turn, core->config->gateway_id, &core->custodian);
        core->turn.custodian = &core->custodian;
        if (r >= 0)
                r = own_keys_open(&core->turn);
        if (r >= 0)
                r = core_authority_open(core);
        if (r >= 0)
                r = core_backup_open(core);
        if (r >= 0)
                r = core_end(core);
        if (r >= 0)
                r = forget_sessions(core);
        if (r >= 0)
                r = store_barrier_wait(core->store, core->last_turn);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "store", "the store cannot be written: %s",
                                   strerror(-r));
        (void)core_backup_settled(core); /* told there; the key opens nothing more than before */
        return 0;
}

/* What needs no person: the core before this one is still on its way out, a disk is full or was slow to come
 * back. Giving up over it would take the devices down for good. */
static bool may_pass(int error) {
        switch (-error) {
        case EBUSY:
        case ENOSPC:
        case EDQUOT:
        case EROFS:
        case EIO:
        case EAGAIN:
        case EINTR:
        case ENOMEM:
        case EMFILE:
        case ENFILE:
                return true;
        default:
                return false;
        }
}

static void tell_passing(struct core *core, int error, const struct problem *problem) {
        journal_line(3, "core: %s: %s", problem->title, problem->detail);
        if (store_error_passes(error))
                tell(core, EVENT_STORE_DEGRADED, "%s; core starts once it can be", problem->detail);
}

/* Everything up to READY. 0, or the exit status. */
static int set_up(struct core *core) {
        _cleanup_(secret_wipe) struct secret key = { 0 }, recovery = { 0 };
        bool is_replaced;
        struct problem problem = { 0 };
        int r;

        core->config = core->process.config;
        core->process.config = NULL;
        clock_read(&(struct clock_reading){ 0 }); /* reads the boot's id: there is no /proc behind the wall */
        r = place_settle(core->config->store_path, &problem);
        if (r >= 0)
                r = load_keys(core, &key, &recovery, &problem);
        if (r < 0 && may_pass(r)) {
                tell_passing(core, r, &problem);
                return EXIT_FAILURE; /* as below */
        }
        if (r < 0)
                return refuse(core, EVENT_STORE_REFUSED, &problem);
        is_replaced = r == 1;
        if (core_control_attach(core, &problem) < 0)
                return refuse(core, EVENT_CONFIG_REFUSED, &problem);
        if (key_providers_load(&core->config->ca, &problem) < 0)
                return refuse(core, EVENT_CONFIG_REFUSED, &problem);
        if (lock_in(core, &problem) < 0)
                return refuse(core, EVENT_SANDBOX_WEAK, &problem);
        r = open_store(core, &key, &recovery, &problem);
        if (r == -EKEYREJECTED && is_replaced)
                sealing_key_discard(core->config->store_path);
        if (r < 0 && may_pass(r)) {
                tell_passing(core, r, &problem);
                return EXIT_FAILURE; /* the supervisor tries again */
        }
        if (r < 0)
                return refuse(core, EVENT_STORE_REFUSED, &problem);
        if (core->is_recovery_key_brought)
                journal_line(4,
                             "core: the store is open and the sealing key opens it from now on; take the recovery key "
                             "off this gateway (the file recovery.key or the credential " RECOVERY_CREDENTIAL ")");
        if (core->is_sealing_key_file)
                tell(core, EVENT_SEALING_KEY_FILE, "the store is sealed with a key in a file beside it");
        if (core->is_sandbox_weak)
                tell(core, EVENT_SANDBOX_WEAK, "this kernel has no Landlock; core runs without it");
        r = sd_event_add_io(core->process.event, &core->barrier, store_barrier_fd(core->store), EPOLLIN, on_barrier,
                            core);
        if (r >= 0)
                r = sd_event_source_set_priority(core->barrier, -5); /* answers before new questions */
        if (r >= 0)
                r = core_tick_start(core);
        /* The core that took an order may have died before it had looked at every device. */
        if (r >= 0 && orders_standing(&core->turn) > 0)
                core_tick_all(core);
        return r < 0 ? EXIT_FAILURE : 0;
}

static void tear_down(struct core *core) {
        core_backup_close(core);
        core->control = control_free(core->control);
        core_south_detach(core);
        core_north_detach(core);
        core_tick_stop(core);
        sd_event_source_disable_unref(core->barrier);
        while (core->outputs.count > 0)
                output_pop(&core->outputs);
        free(core->outputs.items);
        custodian_close(&core->custodian);
        buffer_free(&core->client.leaf);
        core_authority_close(core);
        turn_free(&core->turn);
        core->store = store_close(core->store);
        core->sessions = session_table_free(core->sessions);
        core->throttle = journal_throttle_free(core->throttle);
        core->config = config_free(core->config);
        role_end(&core->process);
}

int core_main(void) {
        struct core *core = xcalloc(1, sizeof *core);
        int r;

        journal_open("core");
        core->quality_told = CLOCK_UNKNOWN;
        core->started_usec = core_monotonic_usec();
        core->sessions = session_table_new();
        core->throttle = journal_throttle_new(THROTTLE_USEC);
        core->process.userdata = core;
        core->process.stop = on_stop;
        core->process.frame = on_frame;
        r = role_start(&core->process, ROLE_CORE);
        if (r < 0) {
                journal_line(3, "core: no set-up from the supervisor: %s", strerror(-r));
                r = EXIT_FAILURE;
        } else
                r = set_up(core);
        if (r == 0)
                r = role_run(&core->process);
        tear_down(core);
        free(core);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Backups: the store is copied some pages at a time between turns, then encrypted into a pipe as fast as its reader
 * takes it. Core never waits: what the backup is kept on may be slow, so gatewayctl writes the file, syncs it, and
 * says that it is kept. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/backup/age.h"
#include "gatewayd/backup/place.h"
#include "gatewayd/backup/due.h"
#include "gatewayd/core.h"
#include "store/backup.h"

#define STEP_PAGES 256
/* Chunks encrypted in one go, at most. */
#define STEP_CHUNKS 16
#define LOOK_SEC    60

struct backup_job {
        struct core *core;
        uint8_t recipient[AGE_KEY_BYTES];
        char path[PATH_MAX]; /* of the copy */
        int pipe, copy;
        struct store_backup *backup; /* while it is being copied */
        struct age_encryptor *encryptor;
        sd_event_source *step, *room; /* runs when nothing else does; the pipe has room again */
        struct buffer sealed;         /* what the pipe has not taken yet ... */
        size_t sent;                  /* ... from here */
        bool is_all;                  /* the last chunk is in `sealed` */
        struct backup_made made;
        backup_done done;
        void *arg;
};

/* ---- its end ---- */

static void job_free(struct core *core) {
        struct backup_job *job = core->backup.job;

        core->backup.job = NULL;
        sd_event_source_disable_unref(job->step);
        sd_event_source_disable_unref(job->room);
        store_backup_free(job->backup);
        (void)place_copy_remove(core->config->store_path); /* where it stays, the next backup or start removes it */
        age_encryptor_free(job->encryptor);
        buffer_free(&job->sealed);
        if (job->copy >= 0)
                close(job->copy);
        close(job->pipe);
        free(job);
}

static void explain(int error, char *to, size_t to_size) {
        switch (error) {
        case -EPIPE:
                snprintf(to, to_size, "whoever asked for it has gone");
                break;
        case -ENOSPC:
        case -EDQUOT:
                snprintf(to, to_size, "there is no room for the copy beside the store");
                break;
        default:
                snprintf(to, to_size, "the copy beside the store cannot be made: %s", strerror(-error));
        }
}

static void job_failed(struct core *core, int error) {
        struct backup_job *job = core->backup.job;
        backup_done done = job->done;
        void *arg = job->arg;
        char reason[128];

        explain(error, reason, sizeof reason);
        job_free(core);
        if (turn_event(core_begin(core, "core"), EVENT_BACKUP_FAILED, NULL, NULL, "%s", reason) < 0)
                core_drop(core);
        else
                (void)core_end(core); /* dealt with there */
        done(arg, error, reason, NULL);
}

static void job_finished(struct core *core) {
        struct backup_job *job = core->backup.job;
        struct backup_made made = job->made;
        backup_done done = job->done;
        void *arg = job->arg;

        core->backup.made = made;
        job_free(core);
        done(arg, 0, NULL, &made);
}

/* ---- into the pipe ---- */

/* Up to `limit` chunks more of the copy. */
static int seal_some(struct backup_job *job, unsigned limit) {
        uint8_t plain[AGE_CHUNK_BYTES];
        int r = 0;

        for (unsigned i = 0; i < limit && r == 0 && !job->is_all; i++) {
                ssize_t n = read(job->copy, plain, sizeof plain);

                if (n < 0)
                        return -errno;
                job->made.plain_bytes += (uint64_t)n;
                r = n > 0 ? age_encryptor_update(job->encryptor, BYTES(plain, (size_t)n), &job->sealed)
                          : age_encryptor_final(job->encryptor, &job->sealed);
                job->is_all = n == 0;
        }
        return r;
}

/* 1: the pipe is full; 0: all is in it. */
static int push(struct backup_job *job) {
        while (job->sent < job->sealed.size) {
                ssize_t n = write(job->pipe, job->sealed.data + job->sent, job->sealed.size - job->sent);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return 1;
                if (n < 0)
                        return -errno;
                job->sent += (size_t)n;
                job->made.bytes += (uint64_t)n;
        }
        job->sealed.size = job->sent = 0;
        return 0;
}

static void stream(struct core *core) {
        struct backup_job *job = core->backup.job;
        int r = push(job);

        if (r == 0 && job->is_all) {
                job_finished(core);
                return;
        }
        if (r == 0)
                r = seal_some(job, STEP_CHUNKS);
        if (r == 1) {
                (void)sd_event_source_set_enabled(job->step, SD_EVENT_OFF);
                r = sd_event_source_set_enabled(job->room, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                job_failed(core, r);
}

static int on_room(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct backup_job *job = userdata;

        (void)source;
        (void)fd;
        (void)revents; /* an error shows at the next write */
        (void)sd_event_source_set_enabled(job->step, SD_EVENT_ON);
        return 0;
}

/* ---- the copy ---- */

/* All pages are copied, and no turn comes between: a backup is made of it. */
static int begin_stream(struct backup_job *job) {
        struct core *core = job->core;
        int r;

        job->made.made = core_begin(core, "core")->now;
        r = core_end(core);
        if (r == 0)
                r = store_backup_finish(job->backup, job->recipient, &job->made.made);
        if (r < 0)
                return r;
        job->backup = store_backup_free(job->backup);
        job->copy = open(job->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (job->copy < 0)
                return -errno;
        return age_encryptor_new(job->recipient, &job->sealed, &job->encryptor);
}

/* Nobody reads any more: the copy would be made in vain. */
static bool is_reader_gone(const struct backup_job *job) {
        struct pollfd look = { .fd = job->pipe };

        return poll(&look, 1, 0) > 0 && (look.revents & POLLERR);
}

static int on_step(sd_event_source *source, void *userdata) {
        struct backup_job *job = userdata;
        int r;

        (void)source;
        if (!job->backup) {
                stream(job->core);
                return 0;
        }
        r = is_reader_gone(job) ? -EPIPE : store_backup_step(job->backup, STEP_PAGES, NULL, NULL);
        if (r == 0) {
                role_tell(&job->core->process, FRAME_PONG, BYTES(NULL, 0)); /* the copy is synced: that may take */
                r = begin_stream(job);
                role_tell(&job->core->process, FRAME_PONG, BYTES(NULL, 0));
        }
        if (r < 0)
                job_failed(job->core, r);
        return 0;
}

/* ---- its beginning ---- */

static int find_recipient(struct core *core, const char *text, uint8_t ret[AGE_KEY_BYTES], struct problem *problem) {
        const char *asked = text[0] ? text : core->config->keys.backup_recipient;
        int r;

        if (asked[0]) {
                r = age_recipient_parse(asked, ret);
                return r == 0 ? 0
                              : problem_set(problem, CODE_BAD_REQUEST, EINVAL, "recipient",
                                            "%s is no age recipient (age1…, 62 characters)", asked);
        }
        r = store_recovery_public(core->store, ret);
        if (r == -ENOENT)
                return problem_set(
                        problem, CODE_BAD_REQUEST, EINVAL, "recipient",
                        "there is nobody to encrypt it to: make a recovery key (gatewayctl sealing recovery), "
                        "or name a recipient (--recipient age1…, or keys.backup_recipient)");
        return r;
}

static int check_pipe(int fd, struct problem *problem) {
        struct stat status;
        int flags;

        if (fstat(fd, &status) < 0)
                return -errno;
        flags = fcntl(fd, F_GETFL);
        if (!S_ISFIFO(status.st_mode) || flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "descriptor",
                                   "a backup goes into a pipe: what was given is something else");
        return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int add_sources(struct backup_job *job) {
        sd_event *event = job->core->process.event;
        int r;

        r = sd_event_add_defer(event, &job->step, on_step, job);
        if (r >= 0)
                r = sd_event_source_set_priority(job->step, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_source_set_enabled(job->step, SD_EVENT_ON);
        if (r >= 0)
                r = sd_event_add_io(event, &job->room, job->pipe, EPOLLOUT, on_room, job);
        if (r >= 0)
                r = sd_event_source_set_priority(job->room, SD_EVENT_PRIORITY_IDLE);
        return r < 0 ? r : sd_event_source_set_enabled(job->room, SD_EVENT_OFF);
}

/* Takes over `fd`. */
static int job_new(struct core *core, int fd, const uint8_t recipient[AGE_KEY_BYTES]) {
        struct backup_job *job = xcalloc(1, sizeof *job);
        int r;

        core->backup.job = job;
        job->core = core;
        job->pipe = fd;
        job->copy = -1;
        memcpy(job->recipient, recipient, sizeof job->recipient);
        age_recipient_text(recipient, job->made.recipient);
        r = place_copy_path(core->config->store_path, job->path);
        if (r >= 0)
                r = place_copy_remove(core->config->store_path);
        if (r >= 0)
                r = store_backup_begin(core->store, job->path, &job->backup);
        return r < 0 ? r : add_sources(job);
}

int core_backup_start(struct core *core, int fd, const char *recipient, backup_done done, void *arg,
                      struct problem *problem) {
        uint8_t key[AGE_KEY_BYTES];
        char reason[128];
        int r = 0;

        if (core->backup.job)
                r = problem_set(problem, CODE_CONFLICT, EBUSY, "busy", "a backup is being made already");
        if (r == 0)
                r = check_pipe(fd, problem);
        if (r == 0)
                r = find_recipient(core, recipient, key, problem);
        if (r < 0) {
                close(fd);
                return r;
        }
        r = job_new(core, fd, key);
        if (r < 0) {
                job_free(core);
                explain(r, reason, sizeof reason);
                return problem_set(problem, CODE_INTERNAL, -r, "backup", "%s", reason);
        }
        core->backup.job->done = done;
        core->backup.job->arg = arg;
        return 0;
}

int core_backup_kept(struct core *core, unix_sec made, struct problem *problem) {
        const struct backup_made *last = &core->backup.made;
        int r;

        if (!moment_is_set(&last->made) || last->made.wall != made)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "no such backup",
                                   "gatewayd has made no such backup since it started");
        r = store_meta_set_backed_up(core->store, &last->made);
        if (r < 0)
                return r;
        core->backup.is_told = false;
        return turn_event(&core->turn, EVENT_BACKUP_MADE, NULL, NULL, "to %s, %llu bytes", last->recipient,
                          (unsigned long long)last->bytes);
}

/* ---- start, tick, stop ---- */

/* The time of day as people write it; the store may be from before any clock was right. */
static void moment_text(const struct moment *moment, char *to, size_t to_size) {
        time_t wall = (time_t)moment->wall;
        struct tm parts;

        if (!gmtime_r(&wall, &parts) || strftime(to, to_size, "%Y-%m-%d %H:%M UTC", &parts) == 0)
                snprintf(to, to_size, "an unknown time");
}

int core_backup_open(struct core *core) {
        struct store_meta meta;
        char made[64];
        int r;

        r = place_copy_remove(core->config->store_path);
        if (r >= 0)
                r = store_meta_get(core->store, &meta);
        if (r < 0 || !meta.is_restored_now)
                return r < 0 ? r : 0;
        r = store_meta_set_restored(core->store, &core->turn.now);
        if (r < 0)
                return r;
        moment_text(&meta.backup_of, made, sizeof made);
        return turn_event(&core->turn, EVENT_STORE_RESTORED, NULL, NULL, "from a backup made %s", made);
}

int core_backup_settled(struct core *core) {
        int r = place_key_remove(core->config->store_path);

        if (r == 1)
                journal_line(5, "core: the sealing key opens the store from now on; restore.key is removed");
        else if (r < 0)
                journal_line(3, "core: restore.key could not be removed: %s", strerror(-r));
        return r < 0 ? r : 0;
}

void core_backup_tick(struct core *core) {
        struct core_backup *backup = &core->backup;
        const struct moment *now = &core->turn.now;
        struct store_meta meta;
        struct backup_age age;

        if (backup->looked_powered != 0 && now->powered_sec - backup->looked_powered < LOOK_SEC)
                return;
        backup->looked_powered = now->powered_sec;
        if (store_meta_get(core->store, &meta) < 0)
                return; /* what else is read from the store says why */
        age = backup_age(&meta, core->config, now);
        if (age.is_old && !backup->is_told && turn_event(&core->turn, EVENT_BACKUP_OLD, NULL, NULL, "%s", age.text) < 0)
                return; /* the turn will not commit either */
        backup->is_told = age.is_old;
}

void core_backup_close(struct core *core) {
        if (core->backup.job)
                job_free(core);
}

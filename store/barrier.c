/* SPDX-License-Identifier: Apache-2.0 */

/* The barrier thread: flushes what core has committed, publishes how far that reaches, and
 * checkpoints. It is the only thread beside core's, and the two share nothing but struct barrier.
 *
 * Flushing goes through a descriptor of the -wal file of its own, opened once and kept, so that an
 * error of any write since then is reported to it. It never opens the database file by itself: closing
 * such a descriptor would drop the POSIX locks that SQLite holds in this process.
 *
 * Checkpoints follow three rules.
 *  1. One checkpointer, and only when a commit that began after its last checkpoint ended has
 *     completed. Then something is left to backfill, so no writer can start the WAL over under a
 *     checkpoint that has read one of its two words about it (SQLite's WAL-reset bug).
 *  2. A passive pass while commits go on; then a short one while core is between turns and its next
 *     turn is held, so that all is backfilled and the next writer starts the WAL over.
 *     Where core commits faster than the disk takes it, core waits once the WAL is OVERFULL times as
 *     long as it should be: what it decides could not leave anyway.
 *  3. A failed flush is the end: the kernel marks the pages clean, the next call would succeed over
 *     lost data. Nothing is published any more and nothing checkpointed. */

#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define CHECKPOINT_BYTES_DEFAULT ((size_t)4 << 20)
#define OVERFULL                 4
#define WAL_HEADER_BYTES         32
#define FRAME_HEADER_BYTES       24

struct barrier {
        const struct store_hooks *hooks;
        sqlite3 *db; /* the checkpoint's connection; the thread's alone */
        size_t checkpoint_bytes;
        size_t frame_bytes;
        int wal_fd, event_fd;
        pthread_t thread;
        bool is_started;

        _Atomic uint64_t published;
        _Atomic int error;

        pthread_mutex_t lock;         /* everything below */
        pthread_cond_t work;          /* for the thread */
        pthread_cond_t news;          /* for core */
        uint64_t committed;           /* the latest turn in the WAL */
        uint64_t begun, completed;    /* commits: how many began; which of them completed last */
        uint64_t begun_at_checkpoint; /* how many had begun when the last checkpoint ended */
        bool is_in_turn;              /* core has a write transaction open */
        bool is_held;                 /* core may not open one */
        bool is_second_due;           /* a passive pass was made and the WAL has not been started over */
        bool is_disk_full;
        bool is_stopping;
        int frames; /* in the WAL */
        struct store_statistics statistics;
};

static uint64_t now_usec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void wake_core(struct barrier *b) {
        static const uint64_t one = 1;

        pthread_cond_broadcast(&b->news);
        (void)!write(b->event_fd, &one, sizeof one); /* fails only when it is readable already */
}

static int flush(struct barrier *b) {
        int r;

        store_operation(b->hooks, "flush");
        if (b->hooks && b->hooks->flush)
                r = b->hooks->flush(b->hooks->userdata, b->wal_fd);
        else
                do
                        r = fdatasync(b->wal_fd);
                while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : 0;
}

static void fail(struct barrier *b, int error) {
        atomic_store(&b->error, error);
        wake_core(b);
}

/* Takes the latest turn, flushes without the lock, publishes. */
static void flush_and_publish(struct barrier *b) {
        uint64_t turn = b->committed;
        int r;

        pthread_mutex_unlock(&b->lock);
        r = flush(b);
        pthread_mutex_lock(&b->lock);

        b->statistics.flushes++;
        if (r < 0) {
                fail(b, r);
                return;
        }
        if (atomic_load(&b->error) < 0)
                return; /* core's commit has met the same disk meanwhile */
        atomic_store(&b->published, turn);
        wake_core(b);
}

static bool may_checkpoint(const struct barrier *b) {
        return b->completed > b->begun_at_checkpoint;
}

/* A checkpoint that cannot go on (a full disk, above all) leaves everything in the WAL, and the next
 * one tries again; a failed fsync inside it is a failed flush. */
static void checkpoint_pass(struct barrier *b, enum checkpoint_pass pass) {
        int rc;

        pthread_mutex_unlock(&b->lock);
        if (b->hooks && b->hooks->pass_begins)
                b->hooks->pass_begins(b->hooks->userdata, pass);
        store_operation(b->hooks, "checkpoint");
        rc = sqlite3_wal_checkpoint_v2(b->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        if (b->hooks && b->hooks->pass_ends)
                b->hooks->pass_ends(b->hooks->userdata, pass);
        pthread_mutex_lock(&b->lock);

        b->begun_at_checkpoint = b->begun;
        b->statistics.checkpoints++;
        if (rc == SQLITE_IOERR_FSYNC || rc == SQLITE_IOERR_DIR_FSYNC)
                fail(b, -EIO);
}

static bool wants_checkpoint(const struct barrier *b) {
        return may_checkpoint(b) && (b->is_disk_full || b->statistics.wal_bytes >= b->checkpoint_bytes);
}

/* Ends with a pass, done or failed: core always gets on. */
static bool is_overfull(const struct barrier *b) {
        return may_checkpoint(b) && b->statistics.wal_bytes >= OVERFULL * b->checkpoint_bytes;
}

/* The passes take turns while the WAL is too long: the passive one does the work, the held one, after a
 * further commit, the little that has come since, and then the next writer starts the WAL over. */
static void checkpoint(struct barrier *b) {
        if (!b->is_second_due && !b->is_disk_full && !is_overfull(b)) {
                checkpoint_pass(b, CHECKPOINT_PASSIVE);
                b->is_second_due = true;
                return;
        }
        /* All that was committed is published here, so core cannot be waiting for us inside its turn. */
        b->is_held = true;
        while (b->is_in_turn)
                pthread_cond_wait(&b->work, &b->lock);
        checkpoint_pass(b, CHECKPOINT_HELD);
        b->is_held = false;
        b->is_second_due = false;
        b->is_disk_full = false;
        pthread_cond_broadcast(&b->news);
}

static void *barrier_main(void *userdata) {
        struct barrier *b = userdata;

        pthread_mutex_lock(&b->lock);
        while (atomic_load(&b->error) == 0) {
                if (b->committed > atomic_load(&b->published))
                        flush_and_publish(b);
                else if (b->is_stopping)
                        break;
                else if (wants_checkpoint(b))
                        checkpoint(b);
                else
                        pthread_cond_wait(&b->work, &b->lock);
        }
        pthread_mutex_unlock(&b->lock);
        return NULL;
}

/* ---- setting up ---- */

static int sync_directory_of(const char *path) {
        const char *slash = strrchr(path, '/');
        char directory[4096] = ".";
        int fd, r = 0;

        if (slash && slash != path) {
                if ((size_t)(slash - path) >= sizeof directory)
                        return -ENAMETOOLONG;
                memcpy(directory, path, (size_t)(slash - path));
                directory[slash - path] = '\0';
        } else if (slash)
                strcpy(directory, "/");

        fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (fsync(fd) < 0)
                r = -errno;
        close(fd);
        return r;
}

/* A checkpoint on a connection that has never read does nothing. */
static int open_checkpointer(struct barrier *b, const char *path) {
        int64_t page_bytes, tables;
        int r;

        r = connection_open_to_write(path, 0, &b->db);
        if (r < 0)
                return r;
        r = connection_number(b->db, "SELECT count(*) FROM sqlite_schema", &tables);
        if (r < 0)
                return r;
        r = connection_number(b->db, "PRAGMA page_size", &page_bytes);
        if (r < 0)
                return r;
        b->frame_bytes = (size_t)page_bytes + FRAME_HEADER_BYTES;
        return 0;
}

/* What the file system said about the -wal before this process is not known here: what is committed
 * and readable must be on the disk before anything is answered from it. */
static int open_wal(struct barrier *b, const char *path) {
        char wal[4096];
        int r;

        if (snprintf(wal, sizeof wal, "%s-wal", path) >= (int)sizeof wal)
                return -ENAMETOOLONG;
        b->wal_fd = open(wal, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (b->wal_fd < 0)
                return -errno;
        r = flush(b);
        return r < 0 ? r : sync_directory_of(path);
}

static int start_thread(struct barrier *b) {
        sigset_t all, before;
        int r;

        /* Signals are core's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&b->thread, NULL, barrier_main, b);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        b->is_started = r == 0;
        return -r;
}

int barrier_new(const char *path, size_t checkpoint_bytes, const struct store_hooks *hooks, struct barrier **ret) {
        struct barrier *b = xcalloc(1, sizeof *b);
        int r;

        b->hooks = hooks;
        b->checkpoint_bytes = checkpoint_bytes > 0 ? checkpoint_bytes : CHECKPOINT_BYTES_DEFAULT;
        b->wal_fd = -1;
        pthread_mutex_init(&b->lock, NULL);
        pthread_cond_init(&b->work, NULL);
        pthread_cond_init(&b->news, NULL);
        b->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = b->event_fd < 0 ? -errno : 0;
        if (r == 0)
                r = open_checkpointer(b, path);
        if (r == 0)
                r = open_wal(b, path);
        if (r == 0)
                r = start_thread(b);
        if (r < 0) {
                atomic_store(&b->error, r); /* so that nothing is checkpointed */
                barrier_free(b);
                return r;
        }
        *ret = b;
        return 0;
}

void barrier_free(struct barrier *b) {
        if (!b)
                return;
        if (b->is_started) {
                pthread_mutex_lock(&b->lock);
                b->is_stopping = true;
                pthread_cond_signal(&b->work);
                pthread_mutex_unlock(&b->lock);
                pthread_join(b->thread, NULL);
        }
        /* The last connection is alone with the file: an emptied WAL makes the next start quick. Where
         * it cannot be emptied everything is still in it. */
        if (b->db && atomic_load(&b->error) == 0) {
                store_operation(b->hooks, "checkpoint");
                (void)sqlite3_wal_checkpoint_v2(b->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        }
        sqlite3_close(b->db);
        if (b->wal_fd >= 0)
                close(b->wal_fd);
        if (b->event_fd >= 0)
                close(b->event_fd);
        pthread_cond_destroy(&b->news);
        pthread_cond_destroy(&b->work);
        pthread_mutex_destroy(&b->lock);
        free(b);
}

/* ---- core's side ---- */

static bool must_wait(const struct barrier *b) {
        return b->is_held || (is_overfull(b) && atomic_load(&b->error) == 0);
}

void barrier_turn_begins(struct barrier *b) {
        pthread_mutex_lock(&b->lock);
        if (must_wait(b)) {
                uint64_t since = now_usec(), held;

                while (must_wait(b))
                        pthread_cond_wait(&b->news, &b->lock);
                held = now_usec() - since;
                if (held > b->statistics.hold_usec_most)
                        b->statistics.hold_usec_most = held;
        }
        b->is_in_turn = true;
        pthread_mutex_unlock(&b->lock);
}

void barrier_turn_ends(struct barrier *b) {
        pthread_mutex_lock(&b->lock);
        b->is_in_turn = false;
        pthread_cond_signal(&b->work);
        pthread_mutex_unlock(&b->lock);
}

void barrier_commit_begins(struct barrier *b) {
        pthread_mutex_lock(&b->lock);
        b->begun++;
        pthread_mutex_unlock(&b->lock);
}

void barrier_committed(struct barrier *b, uint64_t turn, int frames) {
        struct store_statistics *s = &b->statistics;

        pthread_mutex_lock(&b->lock);
        b->committed = turn;
        b->completed = b->begun;
        if (frames < b->frames) {
                s->restarts++;
                b->is_second_due = false;
        }
        b->frames = frames;
        s->commits++;
        s->wal_bytes = WAL_HEADER_BYTES + (uint64_t)frames * b->frame_bytes;
        if (s->wal_bytes > s->wal_bytes_most)
                s->wal_bytes_most = s->wal_bytes;
        pthread_cond_signal(&b->work);
        pthread_mutex_unlock(&b->lock);
}

void barrier_failed(struct barrier *b, int error) {
        pthread_mutex_lock(&b->lock);
        fail(b, error);
        pthread_cond_signal(&b->work);
        pthread_mutex_unlock(&b->lock);
}

void barrier_disk_full(struct barrier *b) {
        pthread_mutex_lock(&b->lock);
        b->is_disk_full = true;
        pthread_cond_signal(&b->work);
        pthread_mutex_unlock(&b->lock);
}

int barrier_event_fd(const struct barrier *b) {
        return b->event_fd;
}

uint64_t barrier_passed(struct barrier *b) {
        return atomic_load(&b->published);
}

int barrier_error(const struct barrier *b) {
        return atomic_load(&b->error);
}

int barrier_wait(struct barrier *b, uint64_t turn) {
        int r = 0;

        pthread_mutex_lock(&b->lock);
        if (turn > b->committed)
                r = -EINVAL; /* it would never come */
        while (r == 0 && atomic_load(&b->published) < turn) {
                r = atomic_load(&b->error);
                if (r == 0)
                        pthread_cond_wait(&b->news, &b->lock);
        }
        pthread_mutex_unlock(&b->lock);
        return r;
}

void barrier_statistics(struct barrier *b, struct store_statistics *ret) {
        pthread_mutex_lock(&b->lock);
        *ret = b->statistics;
        pthread_mutex_unlock(&b->lock);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* A damaged store: the input changes bytes of a good one's file and -wal, and where they end. It is opened
 * and read whole, or refused and left as it was; it never brings the process down, and what it cannot read
 * it says.
 *
 * Input: changes of 5 bytes each: file (0 database, 1 -wal; 2 and 3: it ends there), offset (24 bits), new
 * value. With 4 in the first byte of the input it is a backup instead, opened with its recipient's key. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/backup.h"
#include "store/credentials.h"
#include "store/evidence.h"
#include "store/hooks.h"
#include "store/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[32] = "the sealing key of this fuzzing.";
static char folder[64], paths[2][96];
static struct buffer good[2], good_backup;

static int no_flush(void *userdata, int fd) {
        (void)userdata;
        (void)fd;
        return 0;
}

static const struct store_hooks hooks = { .flush = no_flush };

static void recipient_pair(uint8_t private_key[RECOVERY_KEY_BYTES], uint8_t public_key[RECOVERY_KEY_BYTES]) {
        if (recovery_pair_of(key, "recipient", private_key, public_key) < 0)
                abort();
}

static int open_store(struct store **ret) {
        uint8_t private_key[RECOVERY_KEY_BYTES], public_key[RECOVERY_KEY_BYTES];
        const struct store_options options = { .path = paths[0],
                                               .key_encryption_key = BYTES(key, sizeof key),
                                               .recovery_key = BYTES(private_key, sizeof private_key),
                                               .hooks = &hooks };
        struct problem problem = { 0 };
        int r;

        recipient_pair(private_key, public_key);
        r = store_open(&options, ret, &problem);

        assert(r == 0 || (problem.title[0] != '\0' && problem.detail[0] != '\0'));
        return r;
}

/* ---- a good store, with a part in the -wal as a kill leaves it ---- */

static void add_rows(struct store *store, int from, int to) {
        struct moment now = { 1700000000, 100, CLOCK_HELD, true };

        for (int i = from; i < to; i++) {
                struct device device = { .profile = "sensor", .registered = now };
                struct credential credential = { .kind = CREDENTIAL_PSK, .generation = 1, .issued = now };
                struct challenge challenge = { .issued = now, .nonce = { (uint8_t)i } };
                struct custody custody = { .sequence = (uint64_t)i,
                                           .evidence = TEXT("evidence"),
                                           .receipt = TEXT("r") };
                struct event event = { .kind = EVENT_DEVICE_REGISTERED };
                struct secret secret = { .size = 32 };
                struct due_time due = { i, i };
                uint8_t hash[32] = { 0 };

                snprintf(device.id, sizeof device.id, "device-%d", i);
                memcpy(credential.device, device.id, sizeof device.id);
                memcpy(credential.identity, device.id, sizeof device.id);
                if (device_insert(store, &device) < 0 || credential_insert(store, &credential, &secret) < 0 ||
                    challenge_insert(store, &challenge) < 0 || custody_insert(store, &custody, hash) < 0 ||
                    schedule_set(store, device.id, &due) < 0 || audit_append(store, &now, &event, "uid 0") < 0)
                        abort();
        }
        if (store_commit(store, NULL) < 0)
                abort();
}

static void read_file(const char *path, struct buffer *to) {
        int fd = open(path, O_RDONLY);
        ssize_t n;

        to->size = 0;
        while (fd >= 0 && (n = read(fd, buffer_reserve(to, 65536), 65536)) > 0)
                to->size += (size_t)n;
        if (fd >= 0)
                close(fd);
}

static void write_file(const char *path, const struct buffer *from) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        if (fd < 0 || write(fd, from->data, from->size) != (ssize_t)from->size)
                abort();
        close(fd);
}

static void remove_all(void) {
        static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };

        for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
                char path[128];

                snprintf(path, sizeof path, "%s%s", paths[0], suffixes[i]);
                (void)unlink(path);
        }
        (void)rmdir(folder);
}

static void make_backup(struct store *store) {
        uint8_t private_key[RECOVERY_KEY_BYTES], public_key[RECOVERY_KEY_BYTES];
        const struct moment now = { 1700000000, 100, CLOCK_HELD, true };
        struct store_backup *backup;
        char path[128];

        recipient_pair(private_key, public_key);
        snprintf(path, sizeof path, "%s/copy", folder);
        if (store_backup_begin(store, path, &backup) < 0 || store_backup_step(backup, 10000, NULL, NULL) != 0 ||
            store_backup_finish(backup, public_key, &now) < 0)
                abort();
        store_backup_free(backup);
        read_file(path, &good_backup);
        (void)unlink(path);
}

static void make_good(void) {
        struct store *store;
        int status;
        pid_t pid;

        snprintf(folder, sizeof folder, "%s/gatewayd-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(folder))
                abort();
        snprintf(paths[0], sizeof paths[0], "%s/store.db", folder);
        snprintf(paths[1], sizeof paths[1], "%s/store.db-wal", folder);
        if (open_store(&store) < 0)
                abort();
        add_rows(store, 1, 40);
        make_backup(store);
        store_close(store);

        pid = fork();
        if (pid == 0) {
                if (open_store(&store) < 0)
                        abort();
                add_rows(store, 40, 50);
                _exit(0);
        }
        if (waitpid(pid, &status, 0) != pid || status != 0)
                abort();
        read_file(paths[0], &good[0]);
        read_file(paths[1], &good[1]);
        atexit(remove_all);
}

/* ---- reading it whole ---- */

static int visit_device(void *userdata, const struct device *device) {
        struct credential list[CREDENTIALS_MAX];
        struct store *store = userdata;
        struct secret secret = { 0 };
        struct due_time due;
        ssize_t n = credential_list(store, device->id, list, CREDENTIALS_MAX);

        for (ssize_t i = 0; i < n; i++)
                (void)credential_secret(store, list[i].identity, &secret);
        (void)schedule_get(store, device->id, &due);
        return 0;
}

static int visit_custody(void *userdata, const struct custody *custody) {
        int sum = 0;

        (void)userdata;
        for (size_t i = 0; i < custody->evidence.size; i++)
                sum |= custody->evidence.data[i];
        return sum == -1; /* so that it is read */
}

static int visit_audit(void *userdata, const struct audit_row *row) {
        (void)userdata;
        return strlen(row->reason) < sizeof row->reason ? 0 : -1;
}

/* Results are not looked at: damage that SQLite cannot see shows in any of them. */
static void use(struct store *store) {
        struct moment now = { INT64_MAX, INT64_MAX, CLOCK_HELD, true };
        char ids[64][DEVICE_ID_MAX + 1];
        struct device_counts counts;
        struct store_meta meta;
        struct backlog backlog;
        struct device device;
        uint64_t bad;

        (void)store_meta_get(store, &meta);
        (void)device_each(store, NULL, SIZE_MAX, visit_device, store);
        (void)device_count(store, &counts);
        (void)schedule_due(store, &now, ELEMENTS(ids), ids);
        (void)custody_waiting(store, 0, SIZE_MAX, visit_custody, NULL);
        (void)custody_backlog(store, &backlog);
        (void)audit_last(store, NULL, 100, visit_audit, NULL);
        (void)audit_verify(store, &bad);
        if (device_get(store, TEXT("device-7"), &device) == 0) {
                device.handshakes++;
                (void)device_update(store, &device);
                (void)device_remove(store, "device-8");
                (void)store_commit(store, NULL);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        struct buffer damaged[2] = { { 0 }, { 0 } }, after = { 0 };
        struct store *store = NULL;
        int r;

        if (good[0].size == 0)
                make_good();
        if (size > 0 && data[0] & 4)
                buffer_append(&damaged[0], buffer_bytes(&good_backup));
        else
                for (size_t i = 0; i < 2; i++)
                        buffer_append(&damaged[i], buffer_bytes(&good[i]));
        for (; size >= 5; data += 5, size -= 5) {
                struct buffer *which = &damaged[data[0] & 1];
                size_t offset = (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3];

                if (offset >= which->size)
                        continue;
                if (data[0] & 2)
                        which->size = offset;
                else
                        which->data[offset] = data[4];
        }
        remove_all();
        if (mkdir(folder, 0700) < 0)
                abort();
        write_file(paths[0], &damaged[0]);
        write_file(paths[1], &damaged[1]);

        r = open_store(&store);
        if (r == 0) {
                use(store);
                store_close(store);
        } else
                for (size_t i = 0; i < 2; i++) {
                        read_file(paths[i], &after);
                        assert(bytes_equal(buffer_bytes(&after), buffer_bytes(&damaged[i])));
                }
        buffer_free(&damaged[0]);
        buffer_free(&damaged[1]);
        buffer_free(&after);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of store/ share: a folder, stores in it, rows to put there, a picture of the files. */

#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <sqlite3.h>

#include "store/audit.h"
#include "store/credentials.h"
#include "store/evidence.h"
#include "store/hooks.h"

#define MAYBE_UNUSED __attribute__((unused))

static const uint8_t sealing_key[32] = "the sealing key of these tests..";
static const uint8_t other_key[32] = "another sealing key, just so....";

/* ---- folders ---- */

static MAYBE_UNUSED int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
        (void)st;
        (void)kind;
        (void)at;
        return remove(path);
}

static MAYBE_UNUSED void folder_remove(const char *folder) {
        nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* TMPDIR where it is set, for a run on a real disk. */
static MAYBE_UNUSED void folder_make(char to[64]) {
        const char *parent = getenv("TMPDIR");

        snprintf(to, 64, "%s/gatewayd-store-XXXXXX", parent && strlen(parent) < 32 ? parent : "/tmp");
        assert_non_null(mkdtemp(to));
}

struct place {
        char folder[64];
        char path[96];
        struct store *store;
};

static MAYBE_UNUSED int place_new(void **state) {
        struct place *place = xcalloc(1, sizeof *place);

        folder_make(place->folder);
        snprintf(place->path, sizeof place->path, "%s/store.db", place->folder);
        *state = place;
        return 0;
}

static MAYBE_UNUSED int place_free(void **state) {
        struct place *place = *state;

        store_close(place->store);
        folder_remove(place->folder);
        free(place);
        return 0;
}

static MAYBE_UNUSED struct store_options options_for(const struct place *place) {
        return (struct store_options){
                .path = place->path,
                .key_encryption_key = BYTES(sealing_key, sizeof sealing_key),
        };
}

static MAYBE_UNUSED struct store *store_here(struct place *place, const struct store_hooks *hooks,
                                             size_t checkpoint_bytes) {
        struct store_options options = options_for(place);
        struct problem problem = { 0 };
        int r;

        options.hooks = hooks;
        options.checkpoint_bytes = checkpoint_bytes;
        r = store_open(&options, &place->store, &problem);
        if (r < 0)
                fail_msg("store_open: %s: %s", problem.title, problem.detail);
        return place->store;
}

static MAYBE_UNUSED struct store *store_in_memory(void) {
        struct store_options options = {
                .in_memory = true,
                .key_encryption_key = BYTES(sealing_key, sizeof sealing_key),
        };
        struct store *store = NULL;

        assert_int_equal(store_open(&options, &store, NULL), 0);
        return store;
}

static MAYBE_UNUSED uint64_t commit(struct store *store) {
        uint64_t turn;

        assert_int_equal(store_commit(store, &turn), 0);
        return turn;
}

/* ---- rows ---- */

static MAYBE_UNUSED struct moment at(int64_t sec) {
        return (struct moment){ 1700000000 + sec, sec, CLOCK_SYNCHRONIZED, true };
}

static MAYBE_UNUSED struct device device_of(const char *id) {
        struct device device = { .profile = "sensor", .registered = at(1) };

        snprintf(device.id, sizeof device.id, "%s", id);
        return device;
}

static MAYBE_UNUSED void add_device(struct store *store, const char *id) {
        struct device device = device_of(id);

        assert_int_equal(device_insert(store, &device), 0);
}

static MAYBE_UNUSED struct credential credential_of(const char *device, const char *identity, uint32_t generation) {
        struct credential credential = {
                .kind = CREDENTIAL_PSK, .generation = generation, .issued = at(2), .state = KEY_ACTIVE
        };

        snprintf(credential.device, sizeof credential.device, "%s", device);
        snprintf(credential.identity, sizeof credential.identity, "%s", identity);
        return credential;
}

static MAYBE_UNUSED struct secret secret_of(const char *text) {
        struct secret secret = { 0 };

        assert_int_equal(secret_set(&secret, bytes_of(text)), 0);
        return secret;
}

static MAYBE_UNUSED void add_credential(struct store *store, const char *device, const char *identity,
                                        uint32_t generation, const char *value) {
        struct credential credential = credential_of(device, identity, generation);
        struct secret secret = secret_of(value);

        assert_int_equal(credential_insert(store, &credential, &secret), 0);
}

static MAYBE_UNUSED void add_audit(struct store *store, const char *device, int64_t sec, const char *reason) {
        struct event event = { .kind = EVENT_DEVICE_REGISTERED };
        struct moment now = at(sec);

        snprintf(event.device, sizeof event.device, "%s", device);
        snprintf(event.reason, sizeof event.reason, "%s", reason);
        assert_int_equal(audit_append(store, &now, &event, "uid 0"), 0);
}

/* ---- files, as they lie there ---- */

/* Runs `make` in a process that dies at once afterwards, as kill -9 would leave things. */
static MAYBE_UNUSED void in_a_killed_process(void (*make)(struct place *), struct place *place) {
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0) {
                make(place);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

struct picture {
        bool is_there[4];
        uint8_t digest[4][32];
};

static MAYBE_UNUSED struct picture picture_of(const struct place *place) {
        static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
        struct picture picture = { 0 };

        for (size_t i = 0; i < ELEMENTS(suffixes); i++) {
                EVP_MD_CTX *context = EVP_MD_CTX_new();
                uint8_t block[65536];
                char name[128];
                size_t n;
                FILE *file;

                snprintf(name, sizeof name, "%s%s", place->path, suffixes[i]);
                file = fopen(name, "rb");
                EVP_DigestInit_ex(context, EVP_sha256(), NULL);
                if (file) {
                        picture.is_there[i] = true;
                        while ((n = fread(block, 1, sizeof block, file)) > 0)
                                EVP_DigestUpdate(context, block, n);
                        fclose(file);
                        EVP_DigestFinal_ex(context, picture.digest[i], NULL);
                }
                EVP_MD_CTX_free(context);
        }
        return picture;
}

static MAYBE_UNUSED void assert_untouched(const struct place *place, const struct picture *before) {
        struct picture now = picture_of(place);

        assert_memory_equal(now.is_there, before->is_there, sizeof now.is_there);
        assert_memory_equal(now.digest, before->digest, sizeof now.digest);
}

/* Copies a whole file; nothing of an older target stays. */
static MAYBE_UNUSED void copy_file(const char *from, const char *to) {
        int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        char block[65536];
        ssize_t n;

        assert_true(in >= 0 && out >= 0);
        while ((n = read(in, block, sizeof block)) > 0)
                assert_int_equal(write(out, block, (size_t)n), n);
        close(in);
        close(out);
}

/* Statements run past the store, on its file. The store must be closed. */
static MAYBE_UNUSED void tamper(const struct place *place, const char *sql) {
        sqlite3 *db;
        char *error = NULL;

        assert_int_equal(sqlite3_open_v2(place->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
                fail_msg("%s: %s", sql, error);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static MAYBE_UNUSED bool file_contains(const char *path, const void *needle, size_t size) {
        FILE *file = fopen(path, "rb");
        uint8_t *content;
        bool found;
        long length;

        if (!file)
                return false;
        fseek(file, 0, SEEK_END);
        length = ftell(file);
        rewind(file);
        content = xcalloc(1, (size_t)length + 1);
        assert_int_equal(fread(content, 1, (size_t)length, file), (size_t)length);
        fclose(file);
        found = memmem(content, (size_t)length, needle, size) != NULL;
        free(content);
        return found;
}

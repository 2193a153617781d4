/* SPDX-License-Identifier: Apache-2.0 */

/* What must hold in the store once core has ended, whenever it was killed before. */

#include "tests/system/crash_world.h"

#include <errno.h>
#include <unistd.h>

#include "gatewayd/sealing.h"
#include "store/audit.h"
#include "store/credentials.h"
#include "store/evidence.h"

/* Exactly one active operational credential, the device's own newest one, whose secret opens. */
static void check_keys(struct world *w, struct store *store) {
        const struct model_key *newest = &w->device.model.newest;
        struct credential list[CREDENTIALS_MAX];
        ssize_t count = credential_list(store, w->device.model.id, list, CREDENTIALS_MAX);
        unsigned active = 0;

        if (count < 0)
                gateway_fail(&w->g, "the device's credentials cannot be read: %s", strerror((int)-count));
        for (ssize_t i = 0; i < count; i++) {
                struct secret secret = { 0 };

                if (list[i].state != KEY_DESTROYED && list[i].state != KEY_COMPROMISED &&
                    list[i].state != KEY_DEACTIVATED && !credential_is_certificate(list[i].kind) &&
                    credential_secret(store, list[i].identity, &secret) < 0)
                        gateway_fail(&w->g, "the secret of %s does not open", list[i].identity);
                secret_wipe(&secret);
                if (!credential_is_operational(list[i].kind) || list[i].state != KEY_ACTIVE)
                        continue;
                active++;
                if (!w->is_ended && strcmp(list[i].identity, newest->identity) != 0)
                        gateway_fail(&w->g, "%s is active and the device uses %s", list[i].identity, newest->identity);
        }
        if (active != (w->is_ended || !newest->identity[0] ? 0 : 1))
                gateway_fail(&w->g, "the device has %u active keys", active);
}

/* What was answered 2.01 is the evidence that north was sent under that number, or still waits to be. */
static int is_evidence(void *userdata, const struct custody *custody) {
        struct receipt *receipt = userdata;

        return custody->sequence == receipt->sequence ? 1 : 0;
}

static void check_receipts(struct world *w, struct store *store) {
        struct store_meta meta;

        if (store_meta_get(store, &meta) < 0)
                gateway_fail(&w->g, "the store's own facts cannot be read");
        for (size_t i = 0; i < w->answered_count; i++) {
                struct receipt *receipt = &w->answered[i];
                const struct receipt *sent = NULL;

                if (receipt->sequence == 0 || receipt->sequence >= meta.next_sequence)
                        gateway_fail(&w->g, "receipt %lu was answered and its number is free",
                                     (unsigned long)receipt->sequence);
                for (size_t j = 0; j < w->sent_count; j++)
                        if (w->sent[j].sequence == receipt->sequence)
                                sent = &w->sent[j];
                if (sent && memcmp(sent->evidence, receipt->evidence, sizeof receipt->evidence) != 0)
                        gateway_fail(&w->g, "record %lu is other evidence than was answered",
                                     (unsigned long)receipt->sequence);
                if (!sent && custody_get(store, receipt->sequence, is_evidence, receipt) != 1)
                        gateway_fail(&w->g, "evidence was answered with receipt %lu, and is not there",
                                     (unsigned long)receipt->sequence);
        }
}

static struct store *open_store(struct world *w, const char *folder) {
        _cleanup_(secret_wipe) struct secret key = { 0 };
        struct problem problem = { 0 };
        struct store *store = NULL;
        char path[400];
        bool is_file;

        snprintf(path, sizeof path, "%s/store.db", folder);
        if (sealing_key_load(path, false, &key, &is_file, &problem) < 0)
                gateway_fail(&w->g, "%s", problem.detail);
        if (store_open(&(struct store_options){ .path = path, .key_encryption_key = secret_bytes(&key) }, &store,
                       &problem) < 0)
                gateway_fail(&w->g, "the store does not open: %s", problem.detail);
        return store;
}

static void check_audit(struct world *w, struct store *store) {
        uint64_t bad;

        if (audit_verify(store, &bad) < 0)
                gateway_fail(&w->g, "the audit chain is broken at row %lu", (unsigned long)bad);
}

/* Where data keys were changing, the rest can be moved, and everything opens after that as before. */
static void finish_resealing(struct world *w, struct store *store) {
        int r;

        do {
                r = store_reseal_some(store, 100, NULL);
                if (r >= 0 && store_commit(store, NULL) < 0)
                        r = -EIO;
        } while (r > 0);
        if (r < 0 || store_reseal_left(store) != 0)
                gateway_fail(&w->g, "secrets cannot be moved to the newest data key: %s", strerror(-r));
}

void world_check_store(struct world *w) {
        _cleanup_(store_closep) struct store *store = open_store(w, w->g.folder);

        check_audit(w, store);
        check_keys(w, store);
        finish_resealing(w, store);
        check_keys(w, store);
        check_receipts(w, store);
}

/* A key gives way in the transaction that puts another in its place, or not at all. */
static void check_half_done(struct world *w, struct store *store) {
        struct credential list[CREDENTIALS_MAX];
        ssize_t count = credential_list(store, w->device.model.id, list, CREDENTIALS_MAX);
        unsigned active = 0, superseded = 0, compromised = 0;

        for (ssize_t i = 0; i < count; i++) {
                active += credential_is_operational(list[i].kind) && list[i].state == KEY_ACTIVE;
                compromised += list[i].state == KEY_COMPROMISED;
                superseded += list[i].state == KEY_RETIRING || moment_is_set(&list[i].superseded);
        }
        if (count < 0 || active > 1 || (superseded > 0 && active + compromised == 0 && !w->is_ended))
                gateway_fail(&w->g, "%u keys were superseded, and %u are active", superseded, active);
}

static void check_granted(struct world *w, struct store *store) {
        for (size_t i = 0; !w->is_ended && i < w->device.grant_count; i++) {
                const struct granted *grant = &w->device.grants[i];
                struct credential credential;

                if (!grant->may_be_over && credential_get(store, bytes_of(grant->key.identity), &credential) < 0)
                        gateway_fail(&w->g, "%s was granted and is not in the store", grant->key.identity);
        }
}

void world_check_remains(struct world *w) {
        char path[400], folder[320];
        struct store *store;

        snprintf(path, sizeof path, "%s/store.db", w->g.folder);
        if (access(path, F_OK) < 0)
                return; /* killed before there was one */
        snprintf(folder, sizeof folder, "%s/remains", w->g.folder);
        folder_copy(w->g.folder, folder);
        store = open_store(w, folder);
        check_audit(w, store);
        check_half_done(w, store);
        check_granted(w, store);
        check_receipts(w, store);
        (void)store_close(store);
        folder_remove(folder);
}

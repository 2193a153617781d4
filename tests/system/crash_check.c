/* SPDX-License-Identifier: Apache-2.0 */

/* What must hold in the store once core has ended, whenever it was killed before. */

#include "tests/system/crash_world.h"

#include <errno.h>
#include <fcntl.h>
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

void world_check_store(struct world *w) {
        _cleanup_(secret_wipe) struct secret key = { 0 };
        _cleanup_(store_closep) struct store *store = NULL;
        struct problem problem = { 0 };
        char path[320];
        uint64_t bad;
        bool is_file;
        int r;

        snprintf(path, sizeof path, "%s/store.db", w->g.folder);
        if (sealing_key_load(path, false, &key, &is_file, &problem) < 0)
                gateway_fail(&w->g, "%s", problem.detail);
        r = store_open(&(struct store_options){ .path = path, .key_encryption_key = secret_bytes(&key) }, &store,
                       &problem);
        if (r < 0)
                gateway_fail(&w->g, "the store does not open: %s", problem.detail);
        if (audit_verify(store, &bad) < 0)
                gateway_fail(&w->g, "the audit chain is broken at row %lu", (unsigned long)bad);
        check_keys(w, store);
        check_receipts(w, store);
}

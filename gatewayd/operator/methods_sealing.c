/* SPDX-License-Identifier: Apache-2.0 */

/* Methods that carry a secret. MakeRecoveryKey: its answer leaves once, after the barrier, to the caller who asked;
 * gatewayd keeps the public half alone. PrepareSealingKey and FinishSealingKey: root brings a new sealing key, and
 * puts it where the next start finds it between the two. */

#include <errno.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "gatewayd/keys/own_keys.h"
#include "gatewayd/operator/methods.h"
#include "gatewayd/sealing.h"

int method_make_recovery_key(struct method_call *call) {
        struct store *store = call->turn->store;
        char text[2 * RECOVERY_KEY_BYTES + 1];
        uint8_t key[RECOVERY_KEY_BYTES];
        int had_one, r;

        had_one = store_has_recovery(store);
        if (had_one < 0)
                return had_one;
        r = store_recovery_new(store, key);
        if (r >= 0)
                r = own_keys_recovery_made(call->turn);
        if (r >= 0)
                r = turn_event(call->turn, EVENT_RECOVERY_KEY_MADE, NULL, NULL, "%s",
                               had_one ? "the one before is void" : "the first of this store");
        if (r >= 0)
                r = sd_bus_message_sensitive(call->answer.message); /* its memory is wiped when it goes */
        if (r >= 0) {
                bytes_to_hex(BYTES(key, sizeof key), text);
                r = sd_bus_message_append(call->answer.message, "s", text);
                OPENSSL_cleanse(text, sizeof text);
        }
        OPENSSL_cleanse(key, sizeof key);
        return r;
}

/* ---- the sealing key ---- */

/* Operators may run the fleet; the key of the store is root's, and the service's own. */
static int check_root(struct method_call *call) {
        char own[32];

        snprintf(own, sizeof own, "uid %u", (unsigned)geteuid());
        if (strcmp(call->turn->actor, "uid 0") == 0 || strcmp(call->turn->actor, own) == 0)
                return 0;
        return problem_set(call->problem, CODE_FORBIDDEN, EPERM, "sealing key", "only root changes the sealing key");
}

/* Borrowed from the message, which is wiped when it goes. */
static int read_key(struct method_call *call, struct bytes *ret) {
        const void *data;
        size_t size;
        int r = check_root(call);

        if (r >= 0)
                r = sd_bus_message_sensitive(call->request);
        if (r >= 0)
                r = sd_bus_message_read_array(call->request, 'y', &data, &size);
        if (r < 0)
                return r;
        if (size != SEALING_KEY_BYTES)
                return problem_set(call->problem, CODE_BAD_REQUEST, EINVAL, "sealing key", "a sealing key has %d bytes",
                                   SEALING_KEY_BYTES);
        *ret = BYTES(data, size);
        return 0;
}

int method_sealing_place(struct method_call *call) {
        struct control_status status = { 0 };
        char path[PATH_MAX];
        int r = check_root(call);

        if (r >= 0)
                r = sealing_key_path(call->turn->config->store_path, path);
        if (r < 0)
                return r;
        if (call->backend->status)
                call->backend->status(call->backend->userdata, &status);
        return sd_bus_message_append(call->answer.message, "bs", (int)status.is_sealing_key_file, path);
}

/* What the key is to the store now; prepared, unless the caller only looks or it is in force. */
int method_prepare_sealing_key(struct method_call *call) {
        static const char *const names[] = { "unknown", "in force", "prepared" };
        struct store *store = call->turn->store;
        int only_look, state, r;
        struct bytes key;

        r = read_key(call, &key);
        if (r >= 0)
                r = sd_bus_message_read(call->request, "b", &only_look);
        if (r < 0)
                return r;
        state = store_rewrap_knows(store, key);
        if (state < 0)
                return state;
        if (state == SEALING_KEY_UNKNOWN && !only_look) {
                r = store_rewrap_prepare(store, key);
                if (r >= 0)
                        r = own_keys_sealing_prepared(call->turn);
                if (r < 0)
                        return r;
                state = SEALING_KEY_PREPARED;
        }
        return sd_bus_message_append(call->answer.message, "s", names[state]);
}

/* The key is where the next start finds it: it becomes the only one. */
int method_finish_sealing_key(struct method_call *call) {
        struct store *store = call->turn->store;
        struct bytes key;
        int state, r = read_key(call, &key);

        if (r < 0)
                return r;
        state = store_rewrap_knows(store, key);
        if (state == SEALING_KEY_UNKNOWN)
                return problem_set(call->problem, CODE_CONFLICT, EINVAL, "sealing key",
                                   "this key was not prepared; it opens nothing");
        if (state == SEALING_KEY_PREPARED) {
                r = store_rewrap_prepare(store, key); /* this core may not be the one that was told it */
                if (r >= 0)
                        r = store_rewrap_finish(store);
                if (r >= 0)
                        r = own_keys_sealing_changed(call->turn);
        }
        if (state < 0 || r < 0)
                return state < 0 ? state : r;
        return sd_bus_message_append(call->answer.message, "b", (int)store_is_changed(store));
}

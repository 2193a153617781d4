/* SPDX-License-Identifier: Apache-2.0 */

/* MakeRecoveryKey: the one method whose answer is a secret. It leaves once, after the barrier, to the
 * caller who asked; gatewayd keeps the public half alone. */

#include <errno.h>

#include <openssl/crypto.h>

#include "gatewayd/keys/own_keys.h"
#include "gatewayd/operator/methods.h"

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

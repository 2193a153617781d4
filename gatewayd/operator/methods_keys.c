/* SPDX-License-Identifier: Apache-2.0 */

/* ListKeys, CountDeviceKeys, ListDeviceKeys: every key with its state, its age, and what is due of it when. The
 * gateway's own in one answer; devices' keys a page at a time, so that no turn lasts with the size of the fleet. */

#include <errno.h>

#include <openssl/sha.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/keys/own_keys.h"
#include "gatewayd/operator/methods.h"
#include "store/orders.h"

/* ---- one row ---- */

static void put_begin(struct answer *answer, const char *kind, const char *state) {
        answer_dict_open(answer);
        answer_text(answer, "kind", kind);
        answer_text(answer, "state", state);
}

static void put_age(struct answer *answer, const struct turn *turn, const struct moment *made) {
        if (!moment_is_set(made))
                return;
        answer_moment(answer, "made", made);
        answer_signed(answer, "age", moment_age(&turn->now, made));
}

/* The rule: its name in the configuration, and its interval where it has one. */
static void put_rule(struct answer *answer, const char *policy, int64_t every_sec, const char *next) {
        answer_text(answer, "policy", policy);
        if (every_sec > 0)
                answer_signed(answer, "every", every_sec);
        answer_text(answer, "next", next);
}

/* A key that is kept in no store and lives too short for a schedule. */
static void put_without_schedule(struct answer *answer, const char *kind, const char *why) {
        put_begin(answer, kind, "needs no schedule");
        put_rule(answer, why, 0, "");
        answer_dict_close(answer);
}

/* ---- keys that have a row ---- */

static const char *const policies[OWN_KEY_KINDS] = {
        [OWN_KEY_RECEIPT] = "keys.receipt_every",       [OWN_KEY_DATA] = "keys.data_every",
        [OWN_KEY_SEALING] = "keys.sealing_every",       [OWN_KEY_RECOVERY] = "keys.recovery_every",
        [OWN_KEY_UPSTREAM] = "north.est_renews_client",
};
static const char *const names[OWN_KEY_KINDS] = {
        [OWN_KEY_RECEIPT] = "receipt",          [OWN_KEY_DATA] = "data",
        [OWN_KEY_SEALING] = "sealing",          [OWN_KEY_RECOVERY] = "recovery",
        [OWN_KEY_UPSTREAM] = "upstream-client",
};

static void put_due(struct answer *answer, const struct turn *turn, const struct own_key *key, int64_t every_sec) {
        int64_t wall = turn->now.wall - key->made.wall, powered = turn->now.powered_sec - key->made.powered_sec;

        if (every_sec > 0)
                answer_signed(answer, "due_in", every_sec - (wall > powered ? wall : powered));
}

static void put_row(struct answer *answer, const struct turn *turn, const struct own_key *key, const char *state,
                    const char *next) {
        int64_t every_sec = own_key_every(turn->config, key->kind);

        put_begin(answer, names[key->kind], state);
        answer_number(answer, "generation", key->generation);
        if (key->id[0])
                answer_text(answer, "id", key->id);
        put_age(answer, turn, &key->made);
        put_due(answer, turn, key, every_sec);
        if (key->not_after != 0)
                answer_signed(answer, "ends", key->not_after);
        put_rule(answer, policies[key->kind], every_sec, next);
        answer_dict_close(answer);
}

static int put_data(struct answer *answer, struct turn *turn) {
        int64_t left = store_reseal_left(turn->store), damaged = store_reseal_damaged(turn->store);
        struct own_key key;
        char next[80];
        int r = own_key_get(turn->store, OWN_KEY_DATA, &key);

        if (r < 0 || left < 0)
                return r < 0 ? r : (int)left;
        if (left > damaged)
                snprintf(next, sizeof next, "%lld secrets still move to it", (long long)(left - damaged));
        else
                snprintf(next, sizeof next, "gatewayd makes another");
        put_row(answer, turn, &key, left > damaged ? "resealing" : "active", next);
        return 0;
}

static int put_sealing(struct answer *answer, struct turn *turn, bool is_file) {
        int is_open = store_rewrap_is_open(turn->store);
        struct own_key key;
        int r = own_key_get(turn->store, OWN_KEY_SEALING, &key);

        if (r < 0 || is_open < 0)
                return r < 0 ? r : is_open;
        put_row(answer, turn, &key, is_open ? "successor prepared" : "active",
                !is_open  ? "gatewayctl sealing rotate"
                : is_file ? "gatewayctl sealing rotate again: it was cut off"
                          : "systemctl restart gatewayd puts it into force");
        return 0;
}

static int put_recovery(struct answer *answer, struct turn *turn) {
        struct own_key key;
        int r = own_key_get(turn->store, OWN_KEY_RECOVERY, &key);

        if (r < 0 && r != -ENOENT)
                return r;
        if (r >= 0) {
                put_row(answer, turn, &key, "active", "gatewayctl sealing recovery");
                return 0;
        }
        put_begin(answer, names[OWN_KEY_RECOVERY], "none");
        put_rule(answer, policies[OWN_KEY_RECOVERY], own_key_every(turn->config, OWN_KEY_RECOVERY),
                 "gatewayctl sealing recovery");
        answer_dict_close(answer);
        return 0;
}

static int put_receipt(struct answer *answer, struct turn *turn) {
        struct own_key key;
        int r = own_key_get(turn->store, OWN_KEY_RECEIPT, &key);

        if (r >= 0)
                put_row(answer, turn, &key, "active", "gatewayd makes another; the receipt chain announces it");
        return r;
}

/* Its row is made with the first renewal; until then the file is shown, whose end north has told. */
static int put_upstream(struct method_call *call, const struct control_status *status) {
        const struct north_config *north = &call->turn->config->north;
        struct answer *answer = &call->answer;
        const char *next = north->est_renews_client && north->est_url[0]
                                   ? "asked for at the EST server after two thirds of its life"
                                   : "its file is the operator's to renew";
        struct own_key key = { .kind = OWN_KEY_UPSTREAM };
        int r = own_key_get(call->turn->store, OWN_KEY_UPSTREAM, &key);

        if (r < 0 && r != -ENOENT)
                return r;
        if (!north->url[0] && !north->est_url[0])
                return 0;
        if (status->client_end != 0)
                key.not_after = status->client_end;
        if (key.generation > 0 && key.id[0]) {
                put_row(answer, call->turn, &key, key.not_after <= call->turn->now.wall ? "expired" : "active", next);
                return 0;
        }
        put_begin(answer, names[OWN_KEY_UPSTREAM],
                  key.not_after == 0                      ? "not known yet"
                  : key.not_after <= call->turn->now.wall ? "expired"
                                                          : "active");
        if (key.not_after != 0)
                answer_signed(answer, "ends", key.not_after);
        put_rule(answer, policies[OWN_KEY_UPSTREAM], 0, next);
        answer_dict_close(answer);
        return 0;
}

/* ---- certificates ---- */

static int put_server(struct answer *answer, struct turn *turn) {
        struct server_credentials credentials = { 0 };
        uint8_t digest[SHA256_DIGEST_LENGTH];
        struct x509_validity validity;
        char id[2 * SHA256_DIGEST_LENGTH + 1];
        X509 *leaf;
        int r = authority_server_credentials(turn, &credentials);

        if (r < 0)
                return r == -ENOENT ? 0 : r; /* there is no CA: devices use PSKs */
        leaf = x509_read(buffer_bytes(&credentials.chain));
        r = leaf ? x509_validity_of(leaf, &validity) : -EUCLEAN;
        if (r >= 0 && X509_digest(leaf, EVP_sha256(), digest, NULL) != 1)
                r = -EIO;
        if (r >= 0) {
                bytes_to_hex(BYTES(digest, sizeof digest), id);
                put_begin(answer, "server", validity.not_after <= turn->now.wall ? "expired" : "active");
                answer_text(answer, "id", id);
                answer_signed(answer, "made", validity.not_before);
                answer_signed(answer, "age", turn->now.wall - validity.not_before);
                answer_signed(answer, "due_in",
                              validity.not_after - turn->config->ca.server_validity_sec / 3 - turn->now.wall);
                answer_signed(answer, "ends", validity.not_after);
                put_rule(answer, "ca.server_validity", turn->config->ca.server_validity_sec,
                         "gatewayd issues another, with a new key");
                answer_dict_close(answer);
        }
        x509_freep(&leaf);
        server_credentials_free(&credentials);
        return r;
}

static const char *ca_next(const struct authority *authority) {
        switch (authority->state) {
        case AUTHORITY_REQUESTED:
                return "gatewayctl ca import takes the owner's answer";
        case AUTHORITY_ANNOUNCED:
                return "signs when devices have had time to hear of it";
        case AUTHORITY_ACTIVE:
                return authority->is_root ? "gatewayd makes its successor"
                                          : "its successor is asked of the owner's PKI";
        case AUTHORITY_RETIRING:
                return "ends with its last leaf";
        case AUTHORITY_ENDED:
                break;
        }
        return "";
}

static void put_authority(struct answer *answer, struct turn *turn, const struct authority *authority) {
        static const char *const states[] = { "requested", "announced", "active", "retiring", "ended" };
        int64_t life = authority->not_after - authority->not_before;

        put_begin(answer, "ca", states[authority->state]);
        answer_number(answer, "generation", authority->generation);
        put_age(answer, turn, &authority->created);
        if (authority->state == AUTHORITY_ACTIVE)
                answer_signed(answer, "due_in",
                              authority->not_before + (int64_t)((double)life * turn->config->ca.successor_at) -
                                      turn->now.wall);
        if (authority->state != AUTHORITY_REQUESTED)
                answer_signed(answer, "ends", authority->not_after);
        put_rule(answer, "ca.successor_at", 0, ca_next(authority));
        answer_dict_close(answer);
}

int method_list_keys(struct method_call *call) {
        struct authority list[AUTHORITIES_MAX];
        struct answer *answer = &call->answer;
        struct turn *turn = call->turn;
        struct control_status status = { 0 };
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);
        int r;

        if (call->backend->status)
                call->backend->status(call->backend->userdata, &status);
        answer_open(answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        r = n < 0 ? (int)n : put_receipt(answer, turn);
        if (r >= 0)
                r = put_data(answer, turn);
        if (r >= 0)
                r = put_sealing(answer, turn, status.is_sealing_key_file);
        if (r >= 0)
                r = put_recovery(answer, turn);
        if (r >= 0)
                r = put_server(answer, turn);
        for (ssize_t i = 0; i < n && r >= 0; i++)
                put_authority(answer, turn, &list[i]);
        if (r >= 0)
                r = put_upstream(call, &status);
        put_without_schedule(answer, "cookie", "made anew by south, in its memory alone");
        put_without_schedule(answer, "challenge", "each is 32 random bytes, used once");
        answer_close(answer);
        return r < 0 ? r : 0;
}

/* ---- Status ---- */

static bool is_due(struct turn *turn, enum own_key_kind kind) {
        struct own_key key;

        if (own_key_get(turn->store, kind, &key) < 0)
                return false;
        key.told = 0; /* whether it was told of does not matter here */
        return own_key_next(&key, own_key_every(turn->config, kind), false, &turn->now).action == OWN_KEY_REMIND;
}

struct pauses {
        const struct moment *now;
        uint64_t count;
        char text[200];
};

static int add_pause(void *userdata, const struct rotation_order *order) {
        struct pauses *pauses = userdata;
        size_t size = strlen(pauses->text);

        /* As rotation_next() has it: by whichever clock says so first. */
        if (!moment_is_set(&order->paused) ||
            pauses->now->powered_sec - order->paused.powered_sec >= order->pause_sec ||
            pauses->now->wall - order->paused.wall >= order->pause_sec)
                return 0;
        snprintf(pauses->text + size, sizeof pauses->text - size, "%s%s%s", pauses->count > 0 ? ", " : "",
                 order->profile[0] ? "profile " : "all", order->profile);
        pauses->count++;
        return 0;
}

int show_keys(struct method_call *call) {
        struct pauses pauses = { .now = &call->turn->now };
        struct answer *answer = &call->answer;
        struct turn *turn = call->turn;
        struct own_key data;
        int64_t left = store_reseal_left(turn->store);
        int is_open = store_rewrap_is_open(turn->store), r = order_each(turn->store, add_pause, &pauses);

        if (left < 0 || is_open < 0 || r < 0)
                return left < 0 ? (int)left : is_open < 0 ? is_open : r;
        answer_section_open(answer, "keys");
        answer_bool(answer, "is_sealing_due", is_due(turn, OWN_KEY_SEALING));
        answer_bool(answer, "is_recovery_due", is_due(turn, OWN_KEY_RECOVERY));
        answer_bool(answer, "is_sealing_prepared", is_open);
        answer_number(answer, "reseal_left", (uint64_t)left);
        answer_number(answer, "reseal_damaged", (uint64_t)store_reseal_damaged(turn->store));
        if (left > 0 && own_key_get(turn->store, OWN_KEY_DATA, &data) >= 0)
                answer_signed(answer, "reseal_for", moment_powered_age(&turn->now, &data.made));
        answer_number(answer, "pauses", pauses.count);
        answer_text(answer, "paused", pauses.text);
        answer_section_close(answer);
        return 0;
}

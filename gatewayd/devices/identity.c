/* SPDX-License-Identifier: Apache-2.0 */

/* From the bytes of a PSK identity to a credential: at the handshake's question, at its completion, and
 * at every request, each time as the store has it now. */

#include "gatewayd/devices/identity.h"

#include <errno.h>
#include <stdarg.h>

#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/devices/proof.h"
#include "gatewayd/keys/grant.h"

#define REASON_MAX 160

void identity_explain(char *reason, const char *format, ...) {
        va_list arguments;

        if (!reason)
                return;
        va_start(arguments, format);
        vsnprintf(reason, REASON_MAX, format, arguments);
        va_end(arguments);
}

/* One indexed read finds kids and device ids alike: a factory key's identity is its device's id, and no
 * kid ever equals one. The CBOR form holds a kid only. What belongs to a certificate is nobody's PSK identity. */
int identity_find(struct turn *turn, struct bytes identity, struct credential *ret) {
        char kid[DEVICE_ID_MAX + 1];
        int r;

        r = credential_get(turn->store, identity, ret);
        if (r >= 0 && credential_is_certificate(ret->kind))
                return -ENOENT;
        if (r != -ENOENT)
                return r;
        if (grant_identity_kid(identity, kid, sizeof kid) < 0)
                return -ENOENT;
        r = credential_get(turn->store, bytes_of(kid), ret);
        return r >= 0 && ret->kind != CREDENTIAL_PSK ? -ENOENT : r;
}

int identity_check_key(const struct credential *credential, char *reason) {
        if (credential_is_bootstrap(credential->kind))
                return 0;
        switch (credential->state) {
        case KEY_PRE_ACTIVE:
        case KEY_ACTIVE:
        case KEY_RETIRING:
        case KEY_COMPROMISED:
                return 0;
        case KEY_DEACTIVATED:
        case KEY_DESTROYED:
                break;
        }
        identity_explain(reason, "key %s of device %s has ended (%s)", credential->identity, credential->device,
                         key_state_name(credential->state));
        return -EACCES;
}

const struct profile *identity_check_device(struct turn *turn, const struct device *device, char *reason) {
        const struct profile *profile = config_profile(turn->config, device->profile);

        if (device->standing == STANDING_REVOKED) {
                identity_explain(reason, "device %s is revoked", device->id);
                return NULL;
        }
        if (!profile)
                identity_explain(reason, "profile %s of device %s is not in the configuration", device->profile,
                                 device->id);
        return profile;
}

/* Reads credential, device and profile, and refuses what may not shake hands. */
static int identify(struct turn *turn, struct bytes identity, bool has_forward_secrecy, struct device *ret_device,
                    struct credential *ret_credential, const struct profile **ret_profile, char *reason) {
        const struct profile *profile;
        int r;

        r = identity_find(turn, identity, ret_credential);
        if (r < 0) {
                identity_explain(reason, r == -ENOENT ? "unknown identity" : "the store could not be read: %s",
                                 strerror(-r));
                return r;
        }
        r = device_get(turn->store, bytes_of(ret_credential->device), ret_device);
        if (r < 0) {
                identity_explain(reason, "device %s could not be read: %s", ret_credential->device, strerror(-r));
                return r;
        }
        profile = identity_check_device(turn, ret_device, reason);
        if (!profile)
                return -EACCES;
        r = identity_check_key(ret_credential, reason);
        if (r < 0)
                return r;
        if (!has_forward_secrecy && profile->forward_secrecy == FORWARD_SECRECY_REQUIRE) {
                identity_explain(reason, "profile %s demands a cipher suite with (EC)DHE", profile->name);
                return -EACCES;
        }
        *ret_profile = profile;
        return 0;
}

int identity_key(struct turn *turn, struct bytes identity, bool has_forward_secrecy, struct credential *ret,
                 struct secret *ret_key, char *reason) {
        const struct profile *profile;
        struct device device;
        int r;

        r = identify(turn, identity, has_forward_secrecy, &device, ret, &profile, reason);
        if (r < 0)
                return r;
        r = credential_secret(turn->store, ret->identity, ret_key);
        if (r < 0)
                identity_explain(reason, "key %s of device %s could not be opened: %s", ret->identity, device.id,
                                 strerror(-r));
        return r == -ENOENT ? -EACCES : r; /* wiped */
}

int identity_take(struct turn *turn, bool begun_before_proof, struct identity *ret) {
        struct device *device = &ret->device;
        struct credential *credential = &ret->credential;
        int is_changed, r;

        is_changed = proof_take(turn, device, credential, ret->profile, begun_before_proof);
        if (is_changed < 0)
                return is_changed;
        device->last_seen = turn->now;
        device->handshakes++;
        if (!ret->has_forward_secrecy)
                device->handshakes_without_fs++;
        credential->last_used = turn->now;
        credential->handshakes++;
        r = credential_update(turn->store, credential);
        if (r < 0)
                return r;
        r = device_update(turn->store, device);
        if (r < 0)
                return r;
        return is_changed ? schedule_device(turn, device) : 0;
}

static int connected(struct turn *turn, struct bytes identity, bool has_forward_secrecy, bool begun_before_proof,
                     struct identity *ret) {
        int r;

        r = identify(turn, identity, has_forward_secrecy, &ret->device, &ret->credential, &ret->profile, NULL);
        if (r == -ENOENT)
                return -EACCES; /* removed since the handshake's question */
        if (r < 0)
                return r;
        ret->has_forward_secrecy = has_forward_secrecy;
        return identity_take(turn, begun_before_proof, ret);
}

int identity_connected(struct turn *turn, struct bytes identity, bool has_forward_secrecy, bool begun_before_proof,
                       struct identity *ret) {
        size_t mark = turn_mark(turn);
        int r;

        /* A proof is whole or has not happened: one half of it in the turn's commit would leave a device
         * with siblings destroyed and no active key. */
        r = store_savepoint(turn->store);
        if (r < 0)
                return r;
        r = connected(turn, identity, has_forward_secrecy, begun_before_proof, ret);
        if (r >= 0)
                return store_savepoint_release(turn->store);
        turn_rewind(turn, mark);
        (void)store_savepoint_rollback(turn->store); /* its failure shows at the commit */
        return r;
}

int identity_refresh(struct turn *turn, struct identity *identity, const struct moment *connected) {
        int r;

        r = credential_get(turn->store, bytes_of(identity->credential.identity), &identity->credential);
        if (r < 0)
                return r == -ENOENT ? -EACCES : r;
        r = device_get(turn->store, bytes_of(identity->credential.device), &identity->device);
        if (r < 0)
                return r == -ENOENT ? -EACCES : r;
        identity->profile = identity_check_device(turn, &identity->device, NULL);
        if (!identity->profile)
                return -EACCES;
        r = identity_check_key(&identity->credential, NULL);
        if (r < 0)
                return r;
        r = identity_certificate_refresh(turn, identity);
        if (r < 0)
                return r;
        return moment_powered_age(&turn->now, connected) >= identity->profile->max_session_sec ? -EACCES : 0;
}

int identity_attested(struct turn *turn, const struct identity *from) {
        struct credential credential;
        int r;

        r = credential_get(turn->store, bytes_of(from->credential.identity), &credential);
        if (r < 0)
                return r;
        /* A key in good standing needs no such help; its session mark has another meaning before proof. */
        if (credential.state == KEY_ACTIVE || credential.state == KEY_PRE_ACTIVE)
                return 0;
        credential.session = from->session;
        turn_effect(turn, EFFECT_NOTIFY_ME, credential.device, NULL);
        return credential_update(turn->store, &credential);
}

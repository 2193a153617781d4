/* SPDX-License-Identifier: Apache-2.0 */

/* The registry: what operators do to devices. Each function is one change, all of it in the current
 * turn; what is refused changes nothing. */

#include "gatewayd/devices/registry.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/devices/steps.h"
#include "gatewayd/keys/authority.h"
#include "store/enrolments.h"

#define WINDOW_MAX_SEC (7 * INT64_C(86400))
#define WARNING_MAX    256

/* ---- checks ---- */

int registry_check_id(const char *id, struct problem *problem) {
        size_t size = strlen(id);

        for (const char *p = id; *p != '\0'; p++) {
                bool is_letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');

                if (!is_letter && !strchr("._:-", *p))
                        size = 0;
        }
        if (size == 0 || size > DEVICE_ID_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad device id",
                                   "a device id is 1 to %d of A-Z a-z 0-9 . _ : -", DEVICE_ID_MAX);
        return 0;
}

int registry_check_attestation_key(struct bytes der, struct problem *problem) {
        static const char *const curves[] = { "prime256v1", "secp384r1", "secp521r1" };
        const unsigned char *p = der.data;
        EVP_PKEY *key = d2i_PUBKEY(NULL, &p, (long)der.size);
        bool is_whole = key && p == der.data + der.size;
        bool is_known = false;
        char group[64] = "";

        if (key && EVP_PKEY_is_a(key, "ED25519"))
                is_known = true;
        else if (key && EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1)
                for (size_t i = 0; i < ELEMENTS(curves); i++)
                        is_known |= strcmp(group, curves[i]) == 0;
        EVP_PKEY_free(key);
        if (!is_whole)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad attestation key",
                                   "not a SubjectPublicKeyInfo in DER");
        if (!is_known)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad attestation key",
                                   "the key must be P-256, P-384, P-521 or Ed25519");
        return 0;
}

static int find_device(struct turn *turn, const char *id, struct device *ret, struct problem *problem) {
        int r = device_get(turn->store, bytes_of(id), ret);

        if (r == -ENOENT)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "no such device", "there is no device %s", id);
        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, -r, "store", "device %s could not be read: %s", id,
                                   strerror(-r));
        return 0;
}

/* What the profile's DTLS stack is known to hold (PROTOCOL.md, "The PSK grant"). */
static void stack_limits(enum device_stack stack, size_t *key, size_t *identity) {
        *key = SECRET_MAX;
        *identity = 128;
        if (stack == STACK_TINYDTLS) {
                *key = 16;
                *identity = 32;
        } else if (stack == STACK_MBEDTLS)
                *key = 32;
}

static void warn(char *warning, const struct registration *registration, const struct profile *profile) {
        size_t key, identity;

        warning[0] = '\0';
        stack_limits(profile->stack, &key, &identity);
        if (registration->factory_psk.size > key)
                snprintf(warning, WARNING_MAX, "%s: the factory PSK has %zu bytes; %s holds at most %zu",
                         registration->id, registration->factory_psk.size, device_stack_name(profile->stack), key);
        else if (registration->factory_psk.size > 0 && profile->credential == PROFILE_CERTIFICATE &&
                 !profile->est_over_psk)
                snprintf(warning, WARNING_MAX,
                         "%s: profile %s issues certificates and takes no EST over a PSK (est_over_psk): the device "
                         "cannot enrol with a factory PSK",
                         registration->id, profile->name);
        else if (registration->factory_psk.size > 0 && strlen(registration->id) > identity)
                snprintf(warning, WARNING_MAX, "%s: the id has %zu characters; %s holds identities of at most %zu",
                         registration->id, strlen(registration->id), device_stack_name(profile->stack), identity);
        else if (profile->attestation != ATTESTATION_NONE && registration->attestation_key_size == 0)
                snprintf(warning, WARNING_MAX, "%s: profile %s attests, but the device has no attestation key",
                         registration->id, profile->name);
}

/* ---- adding and removing ---- */

/* What the device comes with: a factory PSK, or an IDevID that leads to one of the profile's anchors. */
static int check_bootstrap(struct turn *turn, const struct registration *registration, const struct profile *profile,
                           struct problem *problem) {
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate taken;
        int r;

        if (registration->factory_psk.size > 0 && registration->has_idevid_fingerprint)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "two bootstrap credentials",
                                   "%s: a device has a factory PSK or an IDevID, not both", registration->id);
        if (registration->factory_psk.size > 0) {
                if (registration->factory_psk.size >= REGISTRY_PSK_MIN && registration->factory_psk.size <= SECRET_MAX)
                        return 0;
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad factory PSK",
                                   "%s: the factory PSK has %zu bytes; %d to %d are allowed", registration->id,
                                   registration->factory_psk.size, REGISTRY_PSK_MIN, SECRET_MAX);
        }
        if (profile->anchor_count == 0)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "no bootstrap credential",
                                   "%s: without a factory PSK a device needs an IDevID, and profile %s has no "
                                   "idevid_anchors",
                                   registration->id, profile->name);
        if (!registration->has_idevid_fingerprint)
                return 0;
        bytes_to_hex(BYTES(registration->idevid_fingerprint, CERTIFICATE_DIGEST_BYTES), fingerprint);
        r = certificate_get(turn->store, fingerprint, &taken);
        if (r >= 0)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "IDevID is taken",
                                   "%s: this certificate is the one of device %s", registration->id, taken.device);
        return r == -ENOENT ? 0 : r;
}

static int check_registration(struct turn *turn, const struct registration *registration,
                              const struct profile **ret_profile, struct problem *problem) {
        struct credential taken;
        struct device device;
        int r;

        r = registry_check_id(registration->id, problem);
        if (r < 0)
                return r;
        *ret_profile = config_profile(turn->config, registration->profile);
        if (!*ret_profile)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "no such profile",
                                   "%s: profile %s is not in the configuration", registration->id,
                                   registration->profile);
        r = check_bootstrap(turn, registration, *ret_profile, problem);
        if (r < 0)
                return r;
        if (registration->attestation_key_size > 0) {
                r = registry_check_attestation_key(
                        BYTES(registration->attestation_key, registration->attestation_key_size), problem);
                if (r < 0)
                        return r;
        }
        r = device_get(turn->store, bytes_of(registration->id), &device);
        if (r >= 0)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "device exists", "device %s is registered already",
                                   registration->id);
        if (r == -ENOENT)
                r = credential_get(turn->store, bytes_of(registration->id), &taken);
        if (r >= 0)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "device id is taken",
                                   "%s is the kid of a key of device %s", registration->id, taken.device);
        return r == -ENOENT ? 0 : r;
}

/* An IDevID that is known beforehand by its fingerprint alone: a row without a key, and ASN.1's NULL for the DER,
 * until it is shown (identity_certificate.c). */
static int expect_idevid(struct turn *turn, const struct registration *registration) {
        static const uint8_t null[] = { 0x05, 0x00 };
        struct certificate certificate = {
                .issuer = GENERATION_FOREIGN,
                .serial_size = 1,
                .not_after = INT64_MAX,
                .revoked = REVOKED_NOT,
        };

        bytes_to_hex(BYTES(registration->idevid_fingerprint, CERTIFICATE_DIGEST_BYTES), certificate.fingerprint);
        memcpy(certificate.device, registration->id, sizeof certificate.device);
        return certificate_insert(turn->store, &certificate, BYTES(null, sizeof null));
}

int registry_add(struct turn *turn, const struct registration *registration, char *warning, struct problem *problem) {
        struct credential credential = {
                .kind = CREDENTIAL_FACTORY,
                .state = KEY_ACTIVE,
                .issued = turn->now,
        };
        struct device device = { .standing = STANDING_REGISTERED, .registered = turn->now };
        const struct profile *profile;
        int r;

        r = check_registration(turn, registration, &profile, problem);
        if (r < 0)
                return r;
        memcpy(device.id, registration->id, sizeof device.id);
        memcpy(device.profile, registration->profile, sizeof device.profile);
        memcpy(device.attestation_key, registration->attestation_key, sizeof device.attestation_key);
        device.attestation_key_size = registration->attestation_key_size;
        r = device_insert(turn->store, &device);
        if (r < 0)
                return r;
        memcpy(credential.identity, registration->id, sizeof credential.identity);
        memcpy(credential.device, registration->id, sizeof credential.device);
        if (registration->factory_psk.size == 0)
                credential.kind = CREDENTIAL_IDEVID;
        r = credential_insert(turn->store, &credential,
                              credential.kind == CREDENTIAL_FACTORY ? &registration->factory_psk : NULL);
        if (r < 0)
                return r;
        r = registration->has_idevid_fingerprint ? expect_idevid(turn, registration) : 0;
        if (r < 0)
                return r;
        r = turn_event(turn, EVENT_DEVICE_REGISTERED, device.id, NULL, "profile %s", device.profile);
        if (r < 0)
                return r;
        if (warning)
                warn(warning, registration, profile);
        return schedule_device(turn, &device);
}

int registry_remove(struct turn *turn, const char *id, struct problem *problem) {
        struct device device;
        int r;

        r = find_device(turn, id, &device, problem);
        if (r < 0)
                return r;
        r = turn_event(turn, EVENT_DEVICE_REMOVED, device.id, NULL, "was %s", standing_name(device.standing));
        if (r < 0)
                return r;
        /* Its certificates stay as rows until they have run out: the CRL names them. */
        r = authority_revoke_device(turn, device.id, REVOKED_CESSATION);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_EVICT_DEVICE, device.id, NULL);
        return device_remove(turn->store, device.id);
}

/* ---- revoking ---- */

static int revoke_credential(struct turn *turn, struct credential *credential, const char *reason) {
        int r;

        if (credential->state == KEY_DEACTIVATED && credential_is_operational(credential->kind))
                return 0; /* has ended and was wiped */
        if (!credential_is_certificate(credential->kind)) {
                r = credential_wipe(turn->store, credential->identity);
                if (r < 0)
                        return r;
        }
        credential->state = KEY_DEACTIVATED;
        credential->session = 0;
        credential->ended = turn->now;
        r = credential_update(turn->store, credential);
        if (r < 0)
                return r;
        return turn_event(turn, EVENT_CREDENTIAL_REVOKED, credential->device, credential->identity, "%s", reason);
}

int registry_revoke(struct turn *turn, const char *id, const char *reason, struct problem *problem) {
        struct keyring keyring;
        struct device device;
        int r;

        if (!reason || reason[0] == '\0')
                reason = "revoked by an operator";
        r = find_device(turn, id, &device, problem);
        if (r < 0)
                return r;
        r = step_standing(turn, &device, STANDING_REVOKED, reason);
        if (r <= 0)
                return r;
        r = keyring_load(turn, device.id, &keyring);
        if (r < 0)
                return r;
        for (size_t i = 0; i < keyring.count; i++) {
                r = revoke_credential(turn, &keyring.list[i], reason);
                if (r < 0)
                        return r;
        }
        r = authority_revoke_device(turn, device.id, REVOKED_PRIVILEGE_WITHDRAWN);
        if (r < 0)
                return r;
        r = enrolment_remove_device(turn->store, device.id); /* what waits for the upstream CA */
        if (r < 0)
                return r;
        device.window_until_powered = 0;
        device.window_until_wall = 0;
        r = device_update(turn->store, &device);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_EVICT_DEVICE, device.id, NULL);
        r = schedule_device(turn, &device);
        return r < 0 ? r : 1;
}

static int refuse_revoked(const struct device *device, struct problem *problem) {
        if (device->standing != STANDING_REVOKED)
                return 0;
        return problem_set(problem, CODE_CONFLICT, EPERM, "device is revoked",
                           "device %s is revoked; remove it and register it anew", device->id);
}

/* ---- the technician's window ---- */

int registry_reset(struct turn *turn, const char *id, int64_t window_sec, struct problem *problem) {
        const struct profile *profile;
        struct device device;
        int r;

        if (window_sec < 1 || window_sec > WINDOW_MAX_SEC)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad reset window",
                                   "a reset window is open for 1 second to 7 days");
        r = find_device(turn, id, &device, problem);
        if (r < 0)
                return r;
        r = refuse_revoked(&device, problem);
        if (r < 0)
                return r;
        profile = config_profile(turn->config, device.profile);
        if (profile && profile->on_factory_key == FACTORY_REFUSE)
                return problem_set(
                        problem, CODE_CONFLICT, EPERM, "factory key refused",
                        "profile %s says on_factory_key = \"refuse\"; remove the device and register it anew",
                        profile->name);
        device.window_until_powered = turn->now.powered_sec + window_sec;
        device.window_until_wall = turn->now.wall_trusted ? turn->now.wall + window_sec : 0;
        r = device_update(turn->store, &device);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_NOTIFY_ME, device.id, NULL);
        return turn_event(turn, EVENT_DEVICE_RESET_WINDOW, device.id, NULL, "open for %lld s", (long long)window_sec);
}

/* ---- rotation on demand ---- */

static bool is_named_by(const struct keyring *keyring, const bool *is_compromised, const char *identity) {
        for (size_t i = 0; i < keyring->count; i++)
                if (is_compromised[i] && strcmp(keyring->list[i].identity, identity) == 0)
                        return true;
        return false;
}

/* Which keys a compromise since `since` takes: those that were in use then, and all that were granted over
 * one of these at any remove. What cannot be traced back to the factory key is taken too. */
static void mark_compromised(const struct keyring *keyring, unix_sec since, bool *ret) {
        bool is_changed = true;

        for (size_t i = 0; i < keyring->count; i++) {
                const struct credential *c = &keyring->list[i];
                bool is_bootstrap = credential_is_bootstrap(c->kind);
                bool is_traced = false;

                for (size_t j = 0; j < keyring->count; j++)
                        is_traced |= strcmp(keyring->list[j].identity, c->predecessor) == 0;
                ret[i] = !is_bootstrap && (since == 0 || c->issued.wall <= since || !is_traced);
        }
        while (is_changed) {
                is_changed = false;
                for (size_t i = 0; i < keyring->count; i++)
                        if (!ret[i] && is_named_by(keyring, ret, keyring->list[i].predecessor))
                                ret[i] = is_changed = true;
        }
}

/* A proven key stays as a way to reach /rats, whatever the CRL then says of it; an unproven one is of no use to
 * the device. */
static int compromise_credential(struct turn *turn, struct credential *credential) {
        int r;

        if (credential->kind == CREDENTIAL_LDEVID) {
                r = authority_revoke(turn, credential->identity, REVOKED_KEY_COMPROMISE);
                if (r < 0)
                        return r;
        }
        r = turn_event(turn, EVENT_CREDENTIAL_COMPROMISED, credential->device, credential->identity,
                       "was %s, generation %u", key_state_name(credential->state), credential->generation);
        if (r < 0)
                return r;
        if (credential->state == KEY_PRE_ACTIVE)
                return step_destroy(turn, credential, "unproven and compromised");
        credential->state = KEY_COMPROMISED;
        credential->session = 0;
        credential->ended = turn->now;
        credential->superseded = MOMENT_NONE;
        return credential_update(turn->store, credential);
}

/* The bootstrap credential proves nothing beyond what the profile lets a replaced one prove. */
static int spend_bootstrap(struct turn *turn, struct keyring *keyring) {
        struct credential *bootstrap = keyring_bootstrap(keyring);

        if (!bootstrap || bootstrap->state == KEY_DEACTIVATED)
                return 0;
        return step_deactivate(turn, bootstrap, "the device's keys are compromised");
}

static int compromise(struct turn *turn, struct device *device, const struct profile *profile, unix_sec since) {
        bool is_compromised[CREDENTIALS_MAX] = { false };
        struct keyring keyring;
        int r;

        r = keyring_load(turn, device->id, &keyring);
        if (r < 0)
                return r;
        mark_compromised(&keyring, since, is_compromised);
        for (size_t i = 0; i < keyring.count; i++) {
                bool is_live = keyring.list[i].state == KEY_PRE_ACTIVE || keyring.list[i].state == KEY_ACTIVE ||
                               keyring.list[i].state == KEY_RETIRING;

                r = is_compromised[i] && is_live ? compromise_credential(turn, &keyring.list[i]) : 0;
                if (r < 0)
                        return r;
        }
        r = spend_bootstrap(turn, &keyring);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_EVICT_DEVICE, device->id, NULL);
        for (size_t i = 0; i < keyring.count; i++)
                if (!is_compromised[i] && keyring.list[i].state == KEY_ACTIVE &&
                    credential_is_operational(keyring.list[i].kind))
                        return 0; /* it has a newer key that was not granted over a compromised one */
        device->is_compromised = true;
        device->compromised = turn->now;
        if (device->standing == STANDING_QUARANTINED || lifecycle_can_attest(device, profile))
                return 0;
        return step_standing(turn, device, STANDING_NEEDS_VISIT, "compromised, and it cannot attest");
}

int registry_rotate(struct turn *turn, const char *id, bool is_compromised, unix_sec since, struct problem *problem) {
        const struct profile *profile;
        struct device device;
        int r;

        r = find_device(turn, id, &device, problem);
        if (r < 0)
                return r;
        r = refuse_revoked(&device, problem);
        if (r < 0)
                return r;
        profile = config_profile(turn->config, device.profile);
        if (!profile)
                return problem_set(problem, CODE_CONFLICT, EINVAL, "no such profile",
                                   "profile %s of device %s is not in the configuration", device.profile, id);
        if (is_compromised) {
                r = compromise(turn, &device, profile, since);
                if (r < 0)
                        return r;
        } else if (!(device.due & DUE_ROTATE)) {
                r = turn_event(turn, EVENT_ROTATION_DUE, device.id, NULL, "asked for by an operator");
                if (r < 0)
                        return r;
        }
        device.due |= DUE_ROTATE;
        turn_effect(turn, EFFECT_NOTIFY_ME, device.id, NULL);
        r = device_update(turn->store, &device);
        if (r < 0)
                return r;
        return schedule_device(turn, &device);
}

/* ---- release ---- */

int registry_release(struct turn *turn, const char *id, struct problem *problem) {
        struct keyring keyring;
        struct device device;
        bool was_conflicted;
        int r;

        r = find_device(turn, id, &device, problem);
        if (r < 0)
                return r;
        r = refuse_revoked(&device, problem);
        if (r < 0)
                return r;
        if (device.standing == STANDING_NEEDS_VISIT)
                return problem_set(problem, CODE_CONFLICT, EPERM, "device is compromised",
                                   "the keys of device %s are compromised; open a reset window for its factory key",
                                   id);
        was_conflicted = device.is_conflicted;
        device.is_conflicted = false;
        r = keyring_load(turn, device.id, &keyring);
        if (r < 0)
                return r;
        if (device.standing != STANDING_REGISTERED) {
                r = step_standing(turn, &device,
                                  keyring_was_operational(&keyring) ? STANDING_OPERATIONAL : STANDING_REGISTERED,
                                  "released by an operator");
                if (r < 0)
                        return r;
        }
        if (r == 0 && !was_conflicted)
                return 0;
        if (device.due & DUE_OVERDUE_TOLD)
                device.due |= DUE_OVERDUE_RELEASED;
        r = device_update(turn->store, &device);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_NOTIFY_ME, device.id, NULL);
        r = schedule_device(turn, &device);
        return r < 0 ? r : 1;
}

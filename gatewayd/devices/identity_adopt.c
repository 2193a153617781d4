/* SPDX-License-Identifier: Apache-2.0 */

/* LDevIDs that this gateway does not remember: after a restore, those that the lost one issued since the backup. The
 * CA's signature says that they are ours, their notBefore that they are of that time. Such a certificate is taken as
 * what it was, a key granted over the device's newest one, and its completed handshake proves it by the usual rules.
 * What was revoked since the backup cannot be told from what was not (docs/THREATS.md). */

#include "gatewayd/devices/claimant.h"

#include <errno.h>

#include "gatewayd/devices/grant_terms.h"
#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/devices/steps.h"
#include "gatewayd/keys/authority.h"

/* The CA generations that certificates are taken of, as anchors; `generations` says which is which. */
static STACK_OF(X509) * own_anchors(struct turn *turn, uint32_t generations[AUTHORITIES_MAX]) {
        STACK_OF(X509) *anchors = sk_X509_new_null();
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        if (!anchors)
                oom();
        for (ssize_t i = 0; i < n; i++) {
                _cleanup_(buffer_free) struct buffer der = { 0 };
                X509 *certificate;

                if (list[i].state == AUTHORITY_REQUESTED ||
                    authority_read(turn->store, list[i].generation, AUTHORITY_CERTIFICATE, &der) < 0)
                        continue;
                certificate = x509_read(buffer_bytes(&der));
                if (!certificate)
                        continue;
                generations[sk_X509_num(anchors)] = list[i].generation;
                if (sk_X509_push(anchors, certificate) == 0)
                        oom();
        }
        return anchors;
}

/* Which of our generations has signed the leaf itself; 0: none. */
static uint32_t find_issuer(struct turn *turn, STACK_OF(X509) * chain) {
        uint32_t generations[AUTHORITIES_MAX], issuer = 0;
        STACK_OF(X509) *anchors = own_anchors(turn, generations), *path = NULL;
        size_t anchor;

        if (sk_X509_num(anchors) > 0 && x509_chain_verify(chain, anchors, &path, &anchor, NULL) == 0 &&
            sk_X509_num(path) == 2)
                issuer = generations[anchor];
        sk_X509_pop_free(path, X509_free);
        sk_X509_pop_free(anchors, X509_free);
        return issuer;
}

static enum certificate_verdict refuse(const struct claimant *claimant, char *reason, const char *why) {
        identity_explain(reason, "certificate of device %s is not known here, and is not adopted: %s", claimant->id,
                         why);
        return CERTIFICATE_REVOKED;
}

/* Of the time that this store knows nothing of. */
static enum certificate_verdict check_time(struct turn *turn, const struct claimant *claimant,
                                           const struct store_meta *meta, char *reason) {
        unix_sec begin = claimant->certificate.not_before;

        if (begin < meta->backup_of.wall - turn->config->ca.backdate_sec)
                return refuse(claimant, reason, "it is from before the backup");
        /* Issued by whoever still runs the gateway that was replaced, or has its key. */
        if (meta->restored.quality != CLOCK_UNKNOWN && begin > meta->restored.wall)
                return refuse(claimant, reason, "it was issued after the restore, and not by this gateway");
        if (claimant_is_early(begin, &turn->now)) {
                identity_explain(reason, "certificate of device %s is not valid yet", claimant->id);
                return CERTIFICATE_EXPIRED;
        }
        return CERTIFICATE_ACCEPTED;
}

static enum certificate_verdict check_key_use(struct turn *turn, const struct claimant *claimant, char *reason) {
        char owner[DEVICE_ID_MAX + 1];
        int r = certificate_key_is_compromised(turn->store, claimant->certificate.public_key);

        if (r > 0)
                return refuse(claimant, reason, "its key is compromised");
        if (r == 0)
                r = certificate_key_owner(turn->store, claimant->certificate.public_key, claimant->id, owner);
        if (r >= 0)
                return refuse(claimant, reason, "another device uses its key");
        return r == -ENOENT ? CERTIFICATE_ACCEPTED : claimant_store_failed(r, reason);
}

/* The key that it was granted over, as far as can be told: the device's newest one. An older certificate than that is
 * one that the device has replaced. */
static enum certificate_verdict find_predecessor(struct turn *turn, struct claimant *claimant, char *reason) {
        struct credential *over;
        struct certificate tip;
        struct keyring keyring;
        int r = keyring_load(turn, claimant->id, &keyring);

        if (r < 0)
                return claimant_store_failed(r, reason);
        over = keyring_tip(&keyring);
        if (over && over->kind == CREDENTIAL_LDEVID) {
                r = certificate_get(turn->store, over->identity, &tip);
                if (r < 0)
                        return claimant_store_failed(r, reason);
                if (claimant->certificate.not_before <= tip.not_before)
                        return refuse(claimant, reason, "the device has a newer one");
        }
        if (!over)
                over = keyring_bootstrap(&keyring);
        if (!over)
                return refuse(claimant, reason, "the device has no key over which it can have been issued");
        claimant->credential = *over;
        return CERTIFICATE_ACCEPTED;
}

static enum certificate_verdict check_device(struct turn *turn, struct claimant *claimant, char *reason) {
        int r = device_get(turn->store, bytes_of(claimant->id), &claimant->device);

        if (r == -ENOENT)
                return refuse(claimant, reason, "the device is not registered");
        if (r < 0)
                return claimant_store_failed(r, reason);
        claimant->is_registered = true;
        claimant->profile = identity_check_device(turn, &claimant->device, reason);
        if (!claimant->profile)
                return claimant->device.standing == STANDING_REVOKED ? CERTIFICATE_REVOKED : CERTIFICATE_REFUSED;
        /* It may be the very one that was compromised: evidence decides, over a key that is known. */
        if (claimant->device.is_compromised)
                return refuse(claimant, reason, "the device's keys are compromised");
        if (claimant->profile->credential != PROFILE_CERTIFICATE)
                return refuse(claimant, reason, "the profile of the device grants PSKs");
        return CERTIFICATE_ACCEPTED;
}

bool claimant_adopt(struct turn *turn, struct claimant *claimant, char *reason, enum certificate_verdict *ret) {
        struct certificate *certificate = &claimant->certificate;
        struct store_meta meta;
        uint32_t issuer;
        int r = store_meta_get(turn->store, &meta);

        if (r < 0) {
                *ret = claimant_store_failed(r, reason);
                return true;
        }
        if (!moment_is_set(&meta.backup_of))
                return false;
        issuer = find_issuer(turn, claimant->chain);
        if (issuer == 0 || x509_device_id(sk_X509_value(claimant->chain, 0), IDEVID_SERIAL_NUMBER, claimant->id) < 0)
                return false;
        certificate->issuer = issuer;
        memcpy(certificate->device, claimant->id, sizeof certificate->device);
        *ret = check_device(turn, claimant, reason);
        if (*ret == CERTIFICATE_ACCEPTED)
                *ret = check_time(turn, claimant, &meta, reason);
        if (*ret == CERTIFICATE_ACCEPTED)
                *ret = check_key_use(turn, claimant, reason);
        if (*ret == CERTIFICATE_ACCEPTED)
                *ret = find_predecessor(turn, claimant, reason);
        claimant->is_adopted = *ret == CERTIFICATE_ACCEPTED;
        return true;
}

int claimant_take_over(struct turn *turn, struct claimant *claimant) {
        struct identity over = { .device = claimant->device,
                                 .credential = claimant->credential,
                                 .profile = claimant->profile };
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct credential adopted;
        int r;

        r = x509_write(sk_X509_value(claimant->chain, 0), &der);
        if (r >= 0)
                r = grant_make_room(turn, &over, &claimant->device);
        if (r < 0)
                return r;
        grant_begin(turn, &over, &claimant->device, CREDENTIAL_LDEVID, &adopted);
        memcpy(adopted.identity, claimant->certificate.fingerprint, sizeof claimant->certificate.fingerprint);
        r = certificate_insert(turn->store, &claimant->certificate, buffer_bytes(&der));
        if (r >= 0)
                r = credential_insert(turn->store, &adopted, NULL);
        if (r < 0)
                return r;
        claimant->device.generation++;
        claimant->credential = adopted;
        r = device_update(turn->store, &claimant->device);
        return r < 0 ? r
                     : turn_event(turn, EVENT_CERTIFICATE_ADOPTED, claimant->id, adopted.identity,
                                  "generation %u, after %s", adopted.generation, adopted.predecessor);
}

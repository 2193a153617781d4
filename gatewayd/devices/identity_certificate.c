/* SPDX-License-Identifier: Apache-2.0 */

/* From a certificate chain to a credential. An LDevID is known by its fingerprint: its row says that it was
 * issued here, and south has seen the client sign with its key; one that a restored store has forgotten may be adopted
 * (identity_adopt.c). An IDevID must lead to an anchor of the device's
 * profile, each time anew, so that an anchor that leaves the configuration is gone at once. */

#include "gatewayd/devices/claimant.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/devices/proof.h"
#include "gatewayd/keys/authority.h"

static void claimant_free(struct claimant *claimant) {
        sk_X509_pop_free(claimant->chain, X509_free);
}

/* The device behind a certificate that names it, its profile and its credential. */
static enum certificate_verdict read_device(struct turn *turn, struct claimant *claimant, const char *identity,
                                            char *reason) {
        int r;

        r = device_get(turn->store, bytes_of(claimant->id), &claimant->device);
        if (r >= 0)
                r = credential_get(turn->store, bytes_of(identity), &claimant->credential);
        if (r == -ENOENT || (r >= 0 && strcmp(claimant->credential.device, claimant->id) != 0)) {
                identity_explain(reason, "certificate of device %s: it has ended", claimant->id);
                return CERTIFICATE_REVOKED;
        }
        if (r < 0)
                return claimant_store_failed(r, reason);
        claimant->is_registered = true;
        claimant->profile = identity_check_device(turn, &claimant->device, reason);
        if (!claimant->profile)
                return claimant->device.standing == STANDING_REVOKED ? CERTIFICATE_REVOKED : CERTIFICATE_REFUSED;
        return identity_check_key(&claimant->credential, reason) < 0 ? CERTIFICATE_REVOKED : CERTIFICATE_ACCEPTED;
}

/* ---- LDevIDs ---- */

/* Taken although it is revoked: a compromised one of a device that can prove itself by evidence, as its PSK
 * would be. It opens /me and /rats. */
static bool is_way_to_evidence(const struct device *device, const struct credential *credential,
                               const struct profile *profile) {
        return credential->state == KEY_COMPROMISED && lifecycle_can_attest(device, profile);
}

/* It may only renew. A CA generation ends when its last leaf has run out; where a clock that jumped said so, the
 * leaf of a device that slept meanwhile is still its only way back, and its row still says that it is ours. */
static bool is_expired(struct turn *turn, const struct certificate *certificate) {
        if (claimant_has_run_out(certificate->not_after, &turn->now))
                return true;
        return certificate->issuer != GENERATION_UPSTREAM && certificate->issuer != GENERATION_FOREIGN &&
               !authority_is_in_force(turn, certificate->issuer);
}

static enum certificate_verdict judge_ldevid(struct turn *turn, struct claimant *claimant, char *reason) {
        const struct certificate *certificate = &claimant->certificate;
        enum certificate_verdict verdict;

        memcpy(claimant->id, certificate->device, sizeof claimant->id);
        verdict = read_device(turn, claimant, certificate->fingerprint, reason);
        if (verdict != CERTIFICATE_ACCEPTED)
                return verdict;
        if (certificate->revoked != REVOKED_NOT &&
            !is_way_to_evidence(&claimant->device, &claimant->credential, claimant->profile)) {
                identity_explain(reason, "certificate of device %s is revoked", claimant->id);
                return CERTIFICATE_REVOKED;
        }
        if (claimant_is_early(certificate->not_before, &turn->now)) {
                identity_explain(reason, "certificate of device %s is not valid yet", claimant->id);
                return CERTIFICATE_EXPIRED;
        }
        return CERTIFICATE_ACCEPTED; /* an expired one may renew: lifecycle.c */
}

/* ---- IDevIDs ---- */

/* Is it the IDevID by which the device is known? */
static enum certificate_verdict check_known(struct turn *turn, struct claimant *claimant, char *reason) {
        struct certificate known;
        int r;

        if (claimant->has_row && strcmp(claimant->certificate.device, claimant->id) != 0) {
                identity_explain(reason, "this IDevID is the one of device %s", claimant->certificate.device);
                return CERTIFICATE_REFUSED;
        }
        r = certificate_idevid(turn->store, claimant->id, &known);
        if (r == -ENOENT)
                return CERTIFICATE_ACCEPTED;
        if (r < 0)
                return claimant_store_failed(r, reason);
        claimant->is_another = strcmp(known.fingerprint, claimant->certificate.fingerprint) != 0 &&
                               !lifecycle_window_is_open(&claimant->device, &turn->now);
        if (claimant->has_row && claimant->certificate.revoked != REVOKED_NOT) {
                identity_explain(reason, "the IDevID of device %s is revoked", claimant->id);
                return CERTIFICATE_REVOKED;
        }
        return CERTIFICATE_ACCEPTED;
}

static enum certificate_verdict judge_idevid(struct turn *turn, struct claimant *claimant, char *reason) {
        enum certificate_verdict verdict;
        const struct profile *profile;

        verdict = claimant_find_profile(turn, claimant, reason);
        if (verdict != CERTIFICATE_ACCEPTED || !claimant->is_registered)
                return verdict;
        profile = claimant->profile;
        verdict = read_device(turn, claimant, claimant->id, reason);
        if (verdict != CERTIFICATE_ACCEPTED)
                return verdict;
        claimant->profile = profile;
        if (claimant->credential.kind != CREDENTIAL_IDEVID) {
                identity_explain(reason, "device %s is registered with a factory PSK", claimant->id);
                return CERTIFICATE_REFUSED;
        }
        return check_known(turn, claimant, reason);
}

/* ---- both ---- */

/* A row that a registration left for an IDevID known by its fingerprint alone has no key yet. */
static bool is_shown(const struct certificate *row) {
        static const uint8_t none[CERTIFICATE_DIGEST_BYTES];

        return memcmp(row->public_key, none, sizeof none) != 0;
}

/* The first of the concatenated certificates, by the header of its outer SEQUENCE (X.690 §8.1.3). size 0: it is
 * none. */
static struct bytes first_of(struct bytes chain) {
        size_t header = 2, size;

        if (chain.size < 4 || chain.data[0] != 0x30)
                return BYTES(NULL, 0);
        size = chain.data[1];
        if (size == 0x81)
                size = chain.data[header++];
        else if (size == 0x82) {
                size = (size_t)chain.data[2] << 8 | chain.data[3];
                header = 4;
        } else if (size >= 0x80)
                return BYTES(NULL, 0); /* longer than any chain that is taken */
        return header + size <= chain.size ? BYTES(chain.data, header + size) : BYTES(NULL, 0);
}

/* Whose it is follows from the leaf's digest alone where there is a row: taking a certificate apart costs more than
 * all the rest, and of an LDevID there is nothing in it that its row does not say. -EBADMSG, -ENOENT, … */
static int find_row(struct turn *turn, struct bytes chain, struct certificate *ret) {
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        uint8_t digest[CERTIFICATE_DIGEST_BYTES];
        struct bytes leaf = first_of(chain);

        if (leaf.size == 0)
                return -EBADMSG;
        if (EVP_Digest(leaf.data, leaf.size, digest, NULL, EVP_sha256(), NULL) != 1)
                return -EIO;
        bytes_to_hex(BYTES(digest, sizeof digest), fingerprint);
        return certificate_get(turn->store, fingerprint, ret);
}

/* The leaf's row where there is one, else what the leaf says of itself; the chain only where it is to be verified. */
static int read_leaf(struct turn *turn, struct bytes chain, struct claimant *ret) {
        struct certificate row;
        int r;

        r = find_row(turn, chain, &row);
        if (r < 0 && r != -ENOENT)
                return r;
        ret->has_row = r >= 0;
        if (ret->has_row && row.issuer != GENERATION_FOREIGN) {
                ret->certificate = row;
                return 0;
        }
        ret->chain = x509_read_chain(chain);
        if (!ret->chain || sk_X509_num(ret->chain) == 0)
                return -EBADMSG;
        if (ret->has_row && is_shown(&row)) {
                ret->certificate = row;
                return 0;
        }
        ret->certificate.revoked = REVOKED_NOT;
        if (x509_describe(sk_X509_value(ret->chain, 0), &ret->certificate) < 0)
                return -EBADMSG;
        ret->certificate.issuer = GENERATION_FOREIGN;
        if (ret->has_row)
                memcpy(ret->certificate.device, row.device, sizeof row.device);
        return 0;
}

static enum certificate_verdict judge(struct turn *turn, struct bytes chain, struct claimant *ret, char *reason) {
        enum certificate_verdict verdict;
        int r;

        *ret = (struct claimant){ 0 };
        r = read_leaf(turn, chain, ret);
        if (r == -EBADMSG) {
                identity_explain(reason, "the client's certificates cannot be read");
                return CERTIFICATE_BAD;
        }
        if (r < 0)
                return claimant_store_failed(r, reason);
        if (ret->certificate.issuer != GENERATION_FOREIGN)
                return judge_ldevid(turn, ret, reason);
        if (!ret->has_row && claimant_adopt(turn, ret, reason, &verdict))
                return verdict;
        return judge_idevid(turn, ret, reason);
}

enum certificate_verdict identity_certificate(struct turn *turn, struct bytes chain, char *reason) {
        struct claimant claimant;
        enum certificate_verdict verdict = judge(turn, chain, &claimant, reason);

        /* Another IDevID than before is let through: only the completed handshake shows that somebody really
         * holds it, and that is worth an alarm. It then opens nothing. */
        claimant_free(&claimant);
        return verdict;
}

static int register_automatically(struct turn *turn, struct claimant *claimant) {
        struct registration registration = { 0 };
        struct problem problem;
        int r;

        memcpy(registration.id, claimant->id, sizeof registration.id);
        snprintf(registration.profile, sizeof registration.profile, "%s", claimant->profile->name);
        r = registry_add(turn, &registration, NULL, &problem);
        if (r < 0)
                return r;
        r = device_get(turn->store, bytes_of(claimant->id), &claimant->device);
        return r < 0 ? r : credential_get(turn->store, bytes_of(claimant->id), &claimant->credential);
}

/* The first IDevID that a device has proven, or the next one inside a technician's window, is its IDevID. */
static int remember(struct turn *turn, struct claimant *claimant) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct certificate known;
        int r;

        r = certificate_idevid(turn->store, claimant->id, &known);
        if (r >= 0) {
                if (is_shown(&known) && strcmp(known.fingerprint, claimant->certificate.fingerprint) == 0)
                        return 0;
                r = certificate_forget_idevid(turn->store, claimant->id);
                if (r >= 0 && strcmp(known.fingerprint, claimant->certificate.fingerprint) != 0)
                        r = turn_event(turn, EVENT_IDEVID_CHANGED, claimant->id, NULL,
                                       "sha256:%s is taken in its place: the reset window is open",
                                       claimant->certificate.fingerprint);
        }
        if (r < 0 && r != -ENOENT)
                return r;
        memcpy(claimant->certificate.device, claimant->id, sizeof claimant->certificate.device);
        r = x509_write(sk_X509_value(claimant->chain, 0), &der);
        return r < 0 ? r : certificate_insert(turn->store, &claimant->certificate, buffer_bytes(&der));
}

static int take(struct turn *turn, struct claimant *claimant, bool begun_before_proof, struct identity *ret) {
        int r = 0;

        if (claimant->is_adopted)
                r = claimant_take_over(turn, claimant);
        else if (!claimant->is_registered)
                r = register_automatically(turn, claimant);
        if (r >= 0 && claimant->credential.kind == CREDENTIAL_IDEVID)
                r = remember(turn, claimant);
        if (r < 0)
                return r;
        ret->device = claimant->device;
        ret->credential = claimant->credential;
        ret->profile = claimant->profile;
        ret->certificate = claimant->certificate;
        memcpy(ret->anchor, claimant->anchor, sizeof ret->anchor);
        ret->is_expired = is_expired(turn, &claimant->certificate);
        ret->has_forward_secrecy = true; /* every certificate suite that south offers has ECDHE */
        return identity_take(turn, begun_before_proof, ret);
}

/* Somebody holds the key of a genuine IDevID that names this device and is not its own: a swapped board, or a
 * manufacturer that issued a name twice. Told as conflicts are; it opens nothing. */
static int tell_another(struct turn *turn, struct claimant *claimant) {
        struct credential *credential = &claimant->credential;
        int r;

        if (!proof_is_worth_telling(credential, &claimant->device.registered, &turn->now))
                return 0;
        r = turn_event(turn, EVENT_IDEVID_CHANGED, claimant->id, NULL, "the new one is sha256:%s",
                       claimant->certificate.fingerprint);
        if (r < 0)
                return r;
        credential->last_used = turn->now;
        return credential_update(turn->store, credential);
}

int identity_certificate_connected(struct turn *turn, struct bytes chain, bool begun_before_proof,
                                   struct identity *ret) {
        size_t mark = turn_mark(turn);
        struct claimant claimant;
        int r;

        if (judge(turn, chain, &claimant, NULL) != CERTIFICATE_ACCEPTED) {
                claimant_free(&claimant);
                return -EACCES;
        }
        r = store_savepoint(turn->store);
        if (r >= 0) {
                if (claimant.is_another)
                        r = tell_another(turn, &claimant);
                else
                        r = take(turn, &claimant, begun_before_proof, ret);
                if (r >= 0)
                        r = store_savepoint_release(turn->store);
                else {
                        turn_rewind(turn, mark);
                        (void)store_savepoint_rollback(turn->store); /* its failure shows at the commit */
                }
        }
        claimant_free(&claimant);
        return r >= 0 && claimant.is_another ? -EACCES : r;
}

struct moment identity_certificate_superseded(struct turn *turn, struct bytes chain) {
        struct credential credential;
        struct certificate row;
        const char *identity;

        if (find_row(turn, chain, &row) < 0)
                return MOMENT_NONE;
        identity = row.issuer == GENERATION_FOREIGN ? row.device : row.fingerprint;
        if (credential_get(turn->store, bytes_of(identity), &credential) < 0)
                return MOMENT_NONE;
        return credential.superseded;
}

/* ---- every request ---- */

static bool has_anchor(const struct profile *profile, const uint8_t digest[32]) {
        for (size_t i = 0; i < profile->anchor_count; i++)
                if (memcmp(profile->anchors[i].digest, digest, sizeof profile->anchors[i].digest) == 0)
                        return true;
        return false;
}

int identity_certificate_refresh(struct turn *turn, struct identity *identity) {
        struct certificate *certificate = &identity->certificate;
        bool is_certificate = credential_is_certificate(identity->credential.kind);
        char fingerprint[sizeof certificate->fingerprint];
        int r;

        if (is_certificate != (certificate->fingerprint[0] != '\0'))
                return -EACCES; /* the device was registered anew, with a credential of the other sort */
        if (!is_certificate)
                return 0;
        memcpy(fingerprint, certificate->fingerprint, sizeof fingerprint);
        r = certificate_get(turn->store, fingerprint, certificate);
        if (r < 0)
                return r == -ENOENT ? -EACCES : r;
        if (strcmp(certificate->device, identity->device.id) != 0)
                return -EACCES;
        identity->is_expired = is_expired(turn, certificate);
        if (identity->credential.kind == CREDENTIAL_IDEVID) {
                bool is_taken = certificate->revoked == REVOKED_NOT && !identity->is_expired &&
                                has_anchor(identity->profile, identity->anchor);

                return is_taken ? 0 : -EACCES;
        }
        return certificate->revoked == REVOKED_NOT ||
                               is_way_to_evidence(&identity->device, &identity->credential, identity->profile)
                       ? 0
                       : -EACCES;
}

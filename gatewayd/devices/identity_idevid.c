/* SPDX-License-Identifier: Apache-2.0 */

/* Whose an IDevID is: the profile whose anchors its chain leads to, and the device id that stands in it (IEEE
 * 802.1AR). Each time anew, so that an anchor that leaves the configuration is gone at once. */

#include "gatewayd/devices/claimant.h"

#include <errno.h>

enum certificate_verdict claimant_store_failed(int error, char *reason) {
        identity_explain(reason, "the store could not be read: %s", strerror(-error));
        return CERTIFICATE_REFUSED;
}

/* Every certificate on the way to the anchor. */
static enum certificate_verdict check_validity(STACK_OF(X509) * path, const struct moment *now, char *reason) {
        for (int i = 0; i < sk_X509_num(path); i++) {
                struct x509_validity validity;
                char subject[64];

                x509_subject_text(sk_X509_value(path, i), subject, sizeof subject);
                if (x509_validity_of(sk_X509_value(path, i), &validity) < 0) {
                        identity_explain(reason, "the validity of %s cannot be read", subject);
                        return CERTIFICATE_BAD;
                }
                if (claimant_has_run_out(validity.not_after, now) || claimant_is_early(validity.not_before, now)) {
                        identity_explain(reason, "%s %s", subject,
                                         claimant_has_run_out(validity.not_after, now) ? "has expired"
                                                                                       : "is not valid yet");
                        return CERTIFICATE_EXPIRED;
                }
        }
        return CERTIFICATE_ACCEPTED;
}

static STACK_OF(X509) * read_anchors(const struct profile *profile) {
        STACK_OF(X509) *anchors = sk_X509_new_null();

        if (!anchors)
                oom();
        for (size_t i = 0; i < profile->anchor_count; i++) {
                X509 *anchor = x509_read(BYTES(profile->anchors[i].der, profile->anchors[i].size));

                /* config.c has read them all once, so none is missing; the indices must agree. */
                if (!anchor || sk_X509_push(anchors, anchor) == 0)
                        oom();
        }
        return anchors;
}

/* Does the chain lead to an anchor of this profile? */
static enum certificate_verdict verify(struct claimant *claimant, const struct profile *profile,
                                       const struct moment *now, char *reason) {
        STACK_OF(X509) *anchors = read_anchors(profile), *path = NULL;
        enum certificate_verdict verdict = CERTIFICATE_UNKNOWN_CA;
        struct problem problem = { 0 };
        size_t anchor = 0;

        if (x509_chain_verify(claimant->chain, anchors, &path, &anchor, &problem) < 0)
                identity_explain(reason, "IDevID %s, profile %s: %.80s", claimant->id, profile->name, problem.detail);
        else {
                memcpy(claimant->anchor, profile->anchors[anchor].digest, sizeof claimant->anchor);
                verdict = check_validity(path, now, reason);
        }
        sk_X509_pop_free(path, X509_free);
        sk_X509_pop_free(anchors, X509_free);
        return verdict;
}

/* How much a refusal tells: of those of several profiles the most telling one is given. */
enum telling {
        TELLS_NOTHING,
        TELLS_NO_ID,
        TELLS_NO_ANCHOR,
        TELLS_NOT_REGISTERED,
        TELLS_OTHER_PROFILE,
        TELLS_OWN_PROFILE,
};

/* One profile's view of an IDevID: is it this profile's? */
static enum certificate_verdict try_profile(struct turn *turn, const struct profile *profile, struct claimant *claimant,
                                            enum telling *ret_telling, char *reason) {
        enum certificate_verdict verdict;
        int r;

        *ret_telling = TELLS_NO_ID;
        claimant->is_registered = false;
        r = x509_device_id(sk_X509_value(claimant->chain, 0), profile->idevid_identity, claimant->id);
        if (r < 0) {
                identity_explain(reason, "profile %s finds no device id in the IDevID's %s", profile->name,
                                 profile->idevid_identity == IDEVID_SAN ? "subjectAltName" : "serialNumber");
                return CERTIFICATE_BAD;
        }
        r = device_get(turn->store, bytes_of(claimant->id), &claimant->device);
        if (r < 0 && r != -ENOENT)
                return claimant_store_failed(r, reason);
        claimant->is_registered = r >= 0;
        *ret_telling = claimant->is_registered ? TELLS_OTHER_PROFILE : TELLS_NO_ANCHOR;
        if (claimant->is_registered && strcmp(claimant->device.profile, profile->name) != 0) {
                identity_explain(reason, "device %s is of profile %s, and this IDevID does not lead to its anchors",
                                 claimant->id, claimant->device.profile);
                return CERTIFICATE_UNKNOWN_CA;
        }
        if (claimant->is_registered)
                *ret_telling = TELLS_OWN_PROFILE;
        claimant->profile = profile;
        verdict = verify(claimant, profile, &turn->now, reason);
        if (verdict != CERTIFICATE_ACCEPTED || claimant->is_registered ||
            profile->idevid_enrolment == ENROLMENT_AUTOMATIC)
                return verdict;
        *ret_telling = TELLS_NOT_REGISTERED;
        identity_explain(reason, "device %s is not registered, and profile %s takes only those that are", claimant->id,
                         profile->name);
        return CERTIFICATE_REFUSED;
}

enum certificate_verdict claimant_find_profile(struct turn *turn, struct claimant *claimant, char *reason) {
        enum certificate_verdict verdict = CERTIFICATE_UNKNOWN_CA;
        enum telling told = TELLS_NOTHING, telling;
        struct claimant automatic = { 0 };

        identity_explain(reason, "no profile has anchors for IDevIDs");
        for (size_t i = 0; i < turn->config->profile_count; i++) {
                const struct profile *profile = &turn->config->profiles[i];
                enum certificate_verdict found;
                char why_not[160] = "";

                if (profile->anchor_count == 0)
                        continue;
                found = try_profile(turn, profile, claimant, &telling, why_not);
                if (found == CERTIFICATE_ACCEPTED && claimant->is_registered)
                        return found;
                if (found == CERTIFICATE_ACCEPTED && !automatic.profile)
                        automatic = *claimant;
                if (found != CERTIFICATE_ACCEPTED && telling > told) {
                        verdict = found;
                        told = telling;
                        identity_explain(reason, "%s", why_not);
                }
        }
        if (!automatic.profile)
                return verdict;
        *claimant = automatic;
        return CERTIFICATE_ACCEPTED;
}

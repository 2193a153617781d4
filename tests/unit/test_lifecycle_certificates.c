/* SPDX-License-Identifier: Apache-2.0 */

/* lifecycle.c for devices with certificates: what an IDevID, an LDevID and a PSK open of EST and beside it. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/devices/lifecycle.h"

static const struct moment now = { 1790000000, 5000, CLOCK_SYNCHRONIZED, true };

struct scene {
        struct device device;
        struct credential credential;
        struct profile profile;
        bool is_spent, is_expired;
        char reason[256]; /* of the last refusal */
};

static struct scene scene_of(enum credential_kind kind, enum key_state state) {
        return (struct scene){
                .device = { .id = "pump-1", .standing = STANDING_OPERATIONAL, .attestation_key_size = 91 },
                .credential = { .identity = "pump-1", .kind = kind, .state = state },
                .profile = { .name = "p",
                             .credential = PROFILE_CERTIFICATE,
                             .attestation = ATTESTATION_EAT,
                             .on_conflict = CONFLICT_ATTEST,
                             .on_factory_key = FACTORY_ATTEST },
                .is_spent = credential_is_bootstrap(kind) && state == KEY_DEACTIVATED,
        };
}

/* As letters: c /.well-known/core, m /me, t /time, l /crl, r /rats, p /cred, a /est/crts, q /est/att, e /est/sen,
 * n /est/sren. */
static const char *may(struct scene *scene) {
        static const enum resource resources[] = { RESOURCE_CORE,     RESOURCE_ME,      RESOURCE_TIME,
                                                   RESOURCE_CRL,      RESOURCE_RATS,    RESOURCE_CRED,
                                                   RESOURCE_EST_CRTS, RESOURCE_EST_ATT, RESOURCE_EST_ENROL,
                                                   RESOURCE_EST_RENEW };
        static char letters[ELEMENTS(resources) + 1];
        const struct lifecycle_view view = {
                .device = &scene->device,
                .credential = &scene->credential,
                .profile = &scene->profile,
                .factory_spent = scene->is_spent,
                .is_expired = scene->is_expired,
        };
        size_t count = 0;

        for (size_t i = 0; i < ELEMENTS(resources); i++) {
                struct problem problem = { 0 };

                if (lifecycle_allows(&view, resources[i], CODE_GET, &now, &problem) == 0) {
                        letters[count++] = "cmtlrpaqen"[i];
                        continue;
                }
                assert_int_equal(problem.code, CODE_FORBIDDEN);
                assert_true(problem.detail[0] != '\0');
                snprintf(scene->reason, sizeof scene->reason, "%s", problem.detail);
        }
        letters[count] = '\0';
        return letters;
}

static const char *why_not(struct scene *scene, enum resource resource) {
        static struct problem problem;
        const struct lifecycle_view view = { &scene->device, &scene->credential, &scene->profile, scene->is_spent,
                                             scene->is_expired };

        assert_int_equal(lifecycle_allows(&view, resource, CODE_POST, &now, &problem), -EACCES);
        return problem.detail;
}

static void an_ldevid_opens_everything_but_the_grant_of_a_psk(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE);

        (void)state;
        assert_string_equal(may(&scene), "cmtlraqen");
        assert_non_null(strstr(why_not(&scene, RESOURCE_CRED), "issues certificates"));
        scene.credential.state = KEY_PRE_ACTIVE;
        assert_string_equal(may(&scene), "cmtlraqen");
}

static void an_idevid_enrols_and_has_nothing_to_renew(void **state) {
        struct scene scene = scene_of(CREDENTIAL_IDEVID, KEY_ACTIVE);

        (void)state;
        scene.device.standing = STANDING_REGISTERED;
        assert_string_equal(may(&scene), "cmtlraqe");
        assert_non_null(strstr(why_not(&scene, RESOURCE_EST_RENEW), "certificate that is to be renewed"));
}

static void a_profile_with_psks_closes_est_to_every_credential(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE);

        (void)state;
        scene.profile.credential = PROFILE_PSK;
        assert_string_equal(may(&scene), "cmtlrp");
        assert_non_null(strstr(why_not(&scene, RESOURCE_EST_ENROL), "POST /cred"));
        scene.credential.kind = CREDENTIAL_PSK;
        assert_string_equal(may(&scene), "cmtlrp");
        scene.credential.kind = CREDENTIAL_IDEVID;
        assert_string_equal(may(&scene), "cmtlrp");
}

static void a_psk_session_reaches_est_only_where_the_profile_says_so(void **state) {
        struct scene scene = scene_of(CREDENTIAL_FACTORY, KEY_ACTIVE);

        (void)state;
        scene.device.standing = STANDING_REGISTERED;
        assert_string_equal(may(&scene), "cmtlr");
        assert_non_null(strstr(why_not(&scene, RESOURCE_EST_ENROL), "certificate sessions only"));
        scene.profile.est_over_psk = true;
        assert_string_equal(may(&scene), "cmtlraqe");
        scene.credential.kind = CREDENTIAL_PSK;
        assert_string_equal(may(&scene), "cmtlraqe");
}

static void an_expired_certificate_may_only_renew(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE);

        (void)state;
        scene.is_expired = true;
        assert_string_equal(may(&scene), "cmtan");
        assert_non_null(strstr(scene.reason, "expired"));
        scene.device.standing = STANDING_RESTRICTED;
        assert_string_equal(may(&scene), "cmtan");
        scene.device.standing = STANDING_REVOKED;
        assert_string_equal(may(&scene), "");
        scene.device.standing = STANDING_OPERATIONAL;
        scene.credential.state = KEY_DEACTIVATED;
        assert_string_equal(may(&scene), "");
}

static void where_renewal_takes_evidence_an_expired_certificate_may_give_it(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_RETIRING);

        (void)state;
        scene.is_expired = true;
        assert_string_equal(may(&scene), "cmtra");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmtran");
        scene.credential.state = KEY_ACTIVE;
        scene.device.standing = STANDING_QUARANTINED;
        assert_string_equal(may(&scene), "cmr");
}

static void an_expired_certificate_of_a_profile_that_went_over_to_psks_leads_to_one(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE);

        (void)state;
        scene.is_expired = true;
        scene.profile.credential = PROFILE_PSK;
        assert_string_equal(may(&scene), "cmtp");
}

static void a_restricted_device_renews_and_one_that_has_lost_its_certificate_enrols(void **state) {
        struct scene ldevid = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE), idevid = scene_of(CREDENTIAL_IDEVID, KEY_ACTIVE);

        (void)state;
        ldevid.device.standing = idevid.device.standing = STANDING_RESTRICTED;
        assert_string_equal(may(&ldevid), "cmtlraqn");
        assert_non_null(strstr(why_not(&ldevid, RESOURCE_EST_ENROL), "renewal only"));
        assert_string_equal(may(&idevid), "cmtlraqe");
}

static void a_quarantined_device_has_me_and_rats(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_ACTIVE);

        (void)state;
        scene.device.standing = STANDING_QUARANTINED;
        assert_string_equal(may(&scene), "cmr");
}

static void a_retiring_certificate_renews_as_on_conflict_says(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_RETIRING);

        (void)state;
        assert_string_equal(may(&scene), "cmtlra");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmtlraqen");
        scene.credential.session = 0;
        scene.profile.on_conflict = CONFLICT_ALLOW;
        assert_string_equal(may(&scene), "cmtlraqen");
}

static void a_spent_idevid_follows_on_factory_key(void **state) {
        struct scene scene = scene_of(CREDENTIAL_IDEVID, KEY_DEACTIVATED);

        (void)state;
        assert_string_equal(may(&scene), "cmra");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmraqe");
        scene.credential.session = 0;
        scene.profile.on_factory_key = FACTORY_WINDOW;
        assert_string_equal(may(&scene), "c");
        scene.device.window_until_powered = now.powered_sec + 60;
        assert_string_equal(may(&scene), "cmtlraqe");
        scene.profile.on_factory_key = FACTORY_REFUSE;
        assert_string_equal(may(&scene), "c");
}

static void a_compromised_certificate_is_never_renewed(void **state) {
        struct scene scene = scene_of(CREDENTIAL_LDEVID, KEY_COMPROMISED);

        (void)state;
        assert_string_equal(may(&scene), "cmra");
        scene.credential.session = 42;
        assert_string_equal(may(&scene), "cmraqe");
        assert_non_null(strstr(why_not(&scene, RESOURCE_EST_RENEW), "enrol anew"));
        scene.is_expired = true;
        assert_string_equal(may(&scene), "cmrae");
}

/* Whatever the combination, an expired certificate opens nothing that a valid one would not, nothing is renewed but
 * by an LDevID in good faith, and the two ways to a credential are never open together. */
static void no_combination_opens_more_by_expiring_or_both_ways_at_once(void **state) {
        (void)state;
        for (unsigned i = 0; i < 4 * 6 * 6 * 3 * 2 * 2; i++) {
                struct scene scene = scene_of((enum credential_kind)(i % 4), (enum key_state)(i / 4 % 6));
                char valid[16];
                const char *expired;

                scene.device.standing = (enum standing)(i / 24 % 6);
                scene.profile.on_conflict = (enum on_conflict)(i / 144 % 3);
                scene.credential.session = i / 432 % 2;
                scene.profile.credential = i / 864 % 2 ? PROFILE_PSK : PROFILE_CERTIFICATE;
                snprintf(valid, sizeof valid, "%s", may(&scene));
                assert_false(strchr(valid, 'p') && strchr(valid, 'e'));
                if (scene.credential.kind != CREDENTIAL_LDEVID || scene.credential.state >= KEY_DEACTIVATED)
                        assert_null(strchr(valid, 'n'));
                if (scene.device.standing == STANDING_REVOKED)
                        assert_string_equal(valid, "");
                if (scene.credential.kind != CREDENTIAL_LDEVID)
                        continue;
                scene.is_expired = true;
                expired = may(&scene);
                assert_int_equal(strspn(expired, valid), strlen(expired));
                assert_null(strpbrk(expired, "lq"));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_ldevid_opens_everything_but_the_grant_of_a_psk),
                cmocka_unit_test(an_idevid_enrols_and_has_nothing_to_renew),
                cmocka_unit_test(a_profile_with_psks_closes_est_to_every_credential),
                cmocka_unit_test(a_psk_session_reaches_est_only_where_the_profile_says_so),
                cmocka_unit_test(an_expired_certificate_may_only_renew),
                cmocka_unit_test(where_renewal_takes_evidence_an_expired_certificate_may_give_it),
                cmocka_unit_test(an_expired_certificate_of_a_profile_that_went_over_to_psks_leads_to_one),
                cmocka_unit_test(a_restricted_device_renews_and_one_that_has_lost_its_certificate_enrols),
                cmocka_unit_test(a_quarantined_device_has_me_and_rats),
                cmocka_unit_test(a_retiring_certificate_renews_as_on_conflict_says),
                cmocka_unit_test(a_spent_idevid_follows_on_factory_key),
                cmocka_unit_test(a_compromised_certificate_is_never_renewed),
                cmocka_unit_test(no_combination_opens_more_by_expiring_or_both_ways_at_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

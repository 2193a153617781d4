/* SPDX-License-Identifier: Apache-2.0 */

/* Handshakes with certificates: who a chain is, whether it may shake hands, and what a completed one means. */

#include "tests/unit/support.h"

#include <errno.h>

#include "gatewayd/cbor.h"
#include "gatewayd/devices/steps.h"
#include "store/authorities.h"
#include "tests/unit/pki_fixture.h"

static int refresh(struct fixture *f, struct identity *from) {
        const struct moment connected = f->turn.now;

        return identity_refresh(&f->turn, from, &connected);
}

/* A device with an IDevID that has come once. */
static void bootstrap(struct fixture *f, const char *id, enum fixture_profile profile, struct buffer *idevid,
                      struct identity *ret) {
        pki_add(f, id, profile);
        pki_idevid(0, id, idevid);
        assert_int_equal(pki_connect(f, idevid, ret), 0);
}

/* And then with a confirmed LDevID of generation 1. */
static void enrol(struct fixture *f, const char *id, enum fixture_profile profile, struct buffer *idevid,
                  struct buffer *ldevid, struct identity *ret) {
        struct authority authority;

        if (authority_get(f->store, 1, &authority) == -ENOENT)
                pki_authority(f, 1);
        bootstrap(f, id, profile, idevid, ret);
        pki_ldevid(f, ret, 1, 45 * FIXTURE_DAY, ldevid);
        assert_int_equal(pki_connect(f, ldevid, ret), 0);
        assert_int_equal(pki_connect(f, ldevid, ret), 0);
        fixture_commit(f);
}

static bool may(struct fixture *f, struct identity *from, enum resource resource) {
        struct lifecycle_view view;

        assert_int_equal(refresh(f, from), 0);
        view = lifecycle_view_of(from);
        return lifecycle_allows(&view, resource, CODE_GET, &f->turn.now, NULL) == 0;
}

/* ---- IDevIDs ---- */

static void an_idevid_of_a_registered_device_gets_in_and_is_remembered(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct certificate certificate;
        struct identity identity;
        struct fixture *f = *state;

        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &chain, &identity);
        assert_string_equal(identity.device.id, "pump-1");
        assert_int_equal(identity.credential.kind, CREDENTIAL_IDEVID);
        assert_string_equal(identity.credential.identity, "pump-1");
        assert_int_equal(identity.certificate.issuer, GENERATION_FOREIGN);
        assert_memory_equal(identity.anchor, pki_anchor(0)->digest, 32);
        assert_true(may(f, &identity, RESOURCE_EST_ENROL));
        assert_int_equal(certificate_idevid(f->store, "pump-1", &certificate), 0);
        assert_string_equal(certificate.fingerprint, identity.certificate.fingerprint);
        assert_true(certificate.not_after == PKI_NEVER);
}

static void the_question_of_a_handshake_changes_nothing(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct certificate certificate;
        struct fixture *f = *state;
        struct device device;
        char reason[160];

        pki_leaf(1,
                 &(struct pki_names){ .dns_name = "meter-1", .not_before = FIXTURE_START - 1, .not_after = PKI_NEVER },
                 &chain);
        fixture_commit(f);
        assert_int_equal(identity_certificate(&f->turn, buffer_bytes(&chain), reason), CERTIFICATE_ACCEPTED);
        assert_false(store_is_changed(f->store));
        assert_int_equal(device_get(f->store, TEXT("meter-1"), &device), -ENOENT);
        assert_int_equal(certificate_idevid(f->store, "meter-1", &certificate), -ENOENT);
}

static void automatic_enrolment_registers_at_the_completed_handshake(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_leaf(1,
                 &(struct pki_names){ .dns_name = "meter-1", .not_before = FIXTURE_START - 1, .not_after = PKI_NEVER },
                 &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        assert_string_equal(identity.device.id, "meter-1");
        assert_string_equal(identity.device.profile, "automatic");
        assert_int_equal(identity.device.standing, STANDING_REGISTERED);
        assert_int_equal(fixture_audited(f, "meter-1", EVENT_DEVICE_REGISTERED), 1);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        assert_int_equal(fixture_audited(f, "meter-1", EVENT_DEVICE_REGISTERED), 1);
}

static void a_listed_profile_takes_no_device_that_is_not_registered(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_idevid(0, "pump-9", &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REFUSED);
        assert_non_null(strstr(f->problem.detail, "pump-9 is not registered"));
}

static void an_idevid_must_lead_to_an_anchor_of_its_own_profile(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_add(f, "pump-1", FIXTURE_CERTIFIED);
        pki_idevid(1, "pump-1", &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_UNKNOWN_CA);
        /* Not even where another profile has that anchor and would enrol it. */
        pki_leaf(1,
                 &(struct pki_names){ .dns_name = "pump-1", .not_before = FIXTURE_START - 1, .not_after = PKI_NEVER },
                 &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_non_null(strstr(f->problem.detail, "pump-1 is of profile certified"));
}

static void a_chain_that_ends_nowhere_or_is_none_is_refused(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;
        X509 *leaf;

        pki_add(f, "pump-1", FIXTURE_CERTIFIED);
        pki_idevid(0, "pump-1", &chain);
        /* Without the CA between it and the anchor. */
        const unsigned char *at = chain.data;

        leaf = d2i_X509(NULL, &at, (long)chain.size);
        chain.size = (size_t)(at - chain.data);
        X509_free(leaf);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_UNKNOWN_CA);
        for (size_t size = 0; size < chain.size; size++) {
                const struct buffer cut = { .data = chain.data, .size = size };

                assert_int_equal(pki_connect(f, &cut, &identity), -EACCES);
                assert_int_equal(f->verdict, CERTIFICATE_BAD);
        }
}

static void a_removed_anchor_is_gone_at_once_from_handshakes_and_sessions(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &chain, &identity);
        assert_int_equal(refresh(f, &identity), 0);
        f->profiles[FIXTURE_CERTIFIED].anchors = pki_anchor(1);
        assert_int_equal(refresh(f, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_UNKNOWN_CA);
        f->profiles[FIXTURE_CERTIFIED].anchor_count = 0;
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
}

static void an_idevid_is_refused_only_when_it_has_certainly_expired(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_add(f, "pump-1", FIXTURE_CERTIFIED);
        pki_leaf(0,
                 &(struct pki_names){
                         .serial_number = "pump-1", .not_before = FIXTURE_START - 10, .not_after = FIXTURE_START + 10 },
                 &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        fixture_pass(f, 10);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        fixture_pass(f, 1);
        assert_int_equal(refresh(f, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_EXPIRED);
        f->turn.now.wall_trusted = false; /* a jump is being held */
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
}

static void a_clock_of_unknown_quality_rejects_nobody_for_coming_early(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_add(f, "pump-1", FIXTURE_CERTIFIED);
        pki_leaf(0,
                 &(struct pki_names){ .serial_number = "pump-1",
                                      .not_before = FIXTURE_START + 400 * FIXTURE_DAY,
                                      .not_after = PKI_NEVER },
                 &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_EXPIRED);
        assert_non_null(strstr(f->problem.detail, "not valid yet"));
        f->turn.now.quality = CLOCK_HELD;
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        f->turn.now.quality = CLOCK_UNKNOWN;
        f->turn.now.wall_trusted = false;
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
}

static void the_id_stands_where_the_profile_says(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct pki_names names = { .serial_number = "serial-7",
                                   .dns_name = "name-7",
                                   .not_before = FIXTURE_START - 10,
                                   .not_after = PKI_NEVER };
        struct fixture *f = *state;
        struct identity identity;

        pki_add(f, "serial-7", FIXTURE_CERTIFIED);
        pki_leaf(0, &names, &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        assert_string_equal(identity.device.id, "serial-7");
        pki_leaf(1, &names, &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), 0);
        assert_string_equal(identity.device.id, "name-7");
        names.dns_name = NULL;
        pki_leaf(1, &names, &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        names.serial_number = "no device id";
        pki_leaf(0, &names, &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
}

static void another_idevid_of_the_same_name_is_told_of_once_an_hour_and_opens_nothing(void **state) {
        _cleanup_(buffer_free) struct buffer first = { 0 }, other = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &first, &identity);
        pki_idevid(0, "pump-1", &other);
        fixture_pass(f, 60);
        for (int i = 0; i < 5; i++)
                assert_int_equal(pki_connect(f, &other, &identity), -EACCES);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_IDEVID_CHANGED), 1);
        fixture_pass(f, 3600);
        assert_int_equal(pki_connect(f, &other, &identity), -EACCES);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_IDEVID_CHANGED), 2);
        assert_int_equal(pki_connect(f, &first, &identity), 0);
}

static void a_reset_window_learns_another_idevid_and_ends_the_sessions_of_the_first(void **state) {
        _cleanup_(buffer_free) struct buffer first = { 0 }, other = { 0 };
        struct identity before, identity;
        struct certificate certificate;
        struct fixture *f = *state;

        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &first, &before);
        pki_idevid(0, "pump-1", &other);
        assert_int_equal(registry_reset(&f->turn, "pump-1", 3600, &f->problem), 0);
        assert_int_equal(pki_connect(f, &other, &identity), 0);
        assert_int_equal(certificate_idevid(f->store, "pump-1", &certificate), 0);
        assert_string_equal(certificate.fingerprint, identity.certificate.fingerprint);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_IDEVID_CHANGED), 1);
        assert_int_equal(refresh(f, &before), -EACCES);
        fixture_pass(f, 3600);
        assert_int_equal(pki_connect(f, &first, &before), -EACCES);
}

static void a_registered_fingerprint_must_be_the_idevids(void **state) {
        _cleanup_(buffer_free) struct buffer right = { 0 }, wrong = { 0 };
        struct registration registration = { .id = "pump-1", .profile = "certified", .has_idevid_fingerprint = true };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;
        struct fixture *f = *state;
        struct identity identity;

        pki_idevid(0, "pump-1", &right);
        pki_idevid(0, "pump-1", &wrong);
        pki_fingerprint(&right, fingerprint);
        assert_int_equal(hex_decode(bytes_of(fingerprint), registration.idevid_fingerprint, 32), 32);
        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), 0);
        assert_int_equal(pki_connect(f, &wrong, &identity), -EACCES);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_IDEVID_CHANGED), 1);
        assert_int_equal(pki_connect(f, &right, &identity), 0);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_true(certificate.serial_size == 16 && certificate.not_after == PKI_NEVER);
        assert_int_equal(pki_connect(f, &right, &identity), 0);
        /* The same certificate is nobody else's. */
        snprintf(registration.id, sizeof registration.id, "pump-2");
        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), -EEXIST);
}

static void a_device_with_a_factory_psk_does_not_come_with_an_idevid(void **state) {
        struct registration registration = { .id = "pump-1", .profile = "certified" };
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity;
        char warning[256];

        assert_int_equal(secret_set(&registration.factory_psk, TEXT("0123456789abcdef")), 0);
        assert_int_equal(registry_add(&f->turn, &registration, warning, &f->problem), 0);
        assert_non_null(strstr(warning, "est_over_psk"));
        pki_idevid(0, "pump-1", &chain);
        assert_int_equal(pki_connect(f, &chain, &identity), -EACCES);
        assert_non_null(strstr(f->problem.detail, "factory PSK"));
}

static void a_device_without_psk_needs_a_profile_with_anchors(void **state) {
        const struct registration registration = { .id = "pump-1", .profile = "plain" };
        struct fixture *f = *state;

        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), -EINVAL);
        assert_non_null(strstr(f->problem.detail, "idevid_anchors"));
        assert_false(store_is_changed(f->store));
}

/* ---- LDevIDs ---- */

static void an_ldevid_is_proven_by_its_first_handshake_and_confirmed_by_the_second(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct credential credential;
        struct fixture *f = *state;
        struct identity identity;

        pki_authority(f, 1);
        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &identity);
        pki_ldevid(f, &identity, 1, 45 * FIXTURE_DAY, &ldevid);
        pki_fingerprint(&ldevid, fingerprint);
        assert_int_equal(fixture_state(f, fingerprint), KEY_PRE_ACTIVE);
        assert_int_equal(pki_connect(f, &ldevid, &identity), 0);
        assert_int_equal(fixture_state(f, fingerprint), KEY_ACTIVE);
        assert_int_equal(fixture_state(f, "pump-1"), KEY_RETIRING);
        assert_int_equal(identity.device.standing, STANDING_OPERATIONAL);
        assert_true(may(f, &identity, RESOURCE_EST_RENEW));
        assert_int_equal(pki_connect(f, &ldevid, &identity), 0);
        assert_int_equal(credential_get(f->store, bytes_of(fingerprint), &credential), 0);
        assert_true(moment_is_set(&credential.confirmed));
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(fixture_state(f, "pump-1"), KEY_DEACTIVATED);
        /* The spent IDevID still shakes hands, and learns why it gets nothing. */
        assert_int_equal(pki_connect(f, &idevid, &identity), 0);
        assert_false(may(f, &identity, RESOURCE_EST_ENROL));
        assert_true(may(f, &identity, RESOURCE_CORE));
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_FACTORY_KEY_USED), 1);
}

static void a_predecessor_is_revoked_as_superseded_once_its_grace_is_over(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, first = { 0 }, second = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &first, &identity);
        pki_fingerprint(&first, fingerprint);
        pki_ldevid(f, &identity, 1, 45 * FIXTURE_DAY, &second);
        fixture_pass_ticking(f, 10 * FIXTURE_DAY);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.revoked, REVOKED_NOT); /* its successor is not proven */
        assert_int_equal(pki_connect(f, &second, &identity), 0);
        assert_int_equal(pki_connect(f, &first, &identity), 0); /* a conflict that shows */
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CREDENTIAL_CONFLICT), 0);
        fixture_pass(f, 1);
        assert_int_equal(pki_connect(f, &first, &identity), 0);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CREDENTIAL_CONFLICT), 1);
        assert_int_equal(pki_connect(f, &second, &identity), 0);
        fixture_pass_ticking(f, 8 * FIXTURE_DAY);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.revoked, REVOKED_SUPERSEDED);
        assert_int_equal(pki_connect(f, &first, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
}

static void a_certificate_that_nobody_used_is_revoked_when_another_one_is_proven(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, unused = { 0 }, used = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;
        struct fixture *f = *state;
        struct identity identity;

        pki_authority(f, 1);
        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &identity);
        pki_ldevid(f, &identity, 1, FIXTURE_DAY, &unused);
        pki_ldevid(f, &identity, 1, FIXTURE_DAY, &used);
        pki_fingerprint(&unused, fingerprint);
        assert_int_equal(pki_connect(f, &used, &identity), 0);
        assert_int_equal(fixture_state(f, fingerprint), KEY_DESTROYED);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.revoked, REVOKED_CESSATION);
        assert_int_equal(pki_connect(f, &unused, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
}

static void a_fifth_unproven_certificate_displaces_the_oldest(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, first = { 0 }, next = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        pki_authority(f, 1);
        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &identity);
        pki_ldevid(f, &identity, 1, FIXTURE_DAY, &first);
        for (int i = 0; i < 4; i++)
                pki_ldevid(f, &identity, 1, FIXTURE_DAY, &next);
        assert_int_equal(fixture_device(f, "pump-1").dropped_grants, 1);
        assert_int_equal(fixture_device(f, "pump-1").generation, 5);
        assert_int_equal(pki_connect(f, &first, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &next, &identity), 0);
}

static void an_expired_ldevid_gets_in_and_may_only_renew(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        struct fixture *f = *state;
        struct identity identity, session;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &session);
        fixture_pass_ticking(f, 45 * FIXTURE_DAY);
        assert_true(may(f, &session, RESOURCE_RATS));
        fixture_pass(f, 1);
        /* The session that was open learns it at its next request. */
        assert_true(may(f, &session, RESOURCE_EST_RENEW));
        assert_true(session.is_expired);
        assert_false(may(f, &session, RESOURCE_RATS));
        assert_int_equal(pki_connect(f, &ldevid, &identity), 0);
        assert_true(identity.is_expired);
        assert_true(may(f, &identity, RESOURCE_EST_RENEW));
        assert_true(may(f, &identity, RESOURCE_EST_CRTS));
        assert_false(may(f, &identity, RESOURCE_EST_ENROL));
        f->turn.now.wall_trusted = false;
        assert_true(may(f, &identity, RESOURCE_RATS));
}

static void revocation_of_the_device_ends_handshakes_and_sessions_at_once(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        pki_fingerprint(&ldevid, fingerprint);
        assert_int_equal(registry_revoke(&f->turn, "pump-1", "stolen", &f->problem), 1);
        assert_int_equal(fixture_effects(f, EFFECT_EVICT_DEVICE, "pump-1"), 1);
        assert_int_equal(refresh(f, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &ldevid, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
        assert_int_equal(pki_connect(f, &idevid, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.revoked, REVOKED_PRIVILEGE_WITHDRAWN);
}

static void a_removed_device_leaves_its_certificates_revoked_and_may_be_registered_anew(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 }, other = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        pki_fingerprint(&ldevid, fingerprint);
        assert_int_equal(registry_remove(&f->turn, "pump-1", &f->problem), 0);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.revoked, REVOKED_CESSATION);
        assert_int_equal(refresh(f, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &ldevid, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
        assert_int_equal(pki_connect(f, &idevid, &identity), -EACCES);
        pki_add(f, "pump-1", FIXTURE_CERTIFIED);
        assert_int_equal(pki_connect(f, &ldevid, &identity), -EACCES);
        pki_idevid(0, "pump-1", &other);
        assert_int_equal(pki_connect(f, &other, &identity), 0);
}

static void a_certificate_of_a_ca_generation_that_has_ended_may_only_renew(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        struct authority authority;
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        assert_int_equal(authority_get(f->store, 1, &authority), 0);
        authority.state = AUTHORITY_RETIRING;
        assert_int_equal(authority_update(f->store, &authority), 0);
        assert_true(may(f, &identity, RESOURCE_RATS));
        authority.state = AUTHORITY_ENDED;
        assert_int_equal(authority_update(f->store, &authority), 0);
        assert_false(may(f, &identity, RESOURCE_RATS));
        assert_int_equal(pki_connect(f, &ldevid, &identity), 0);
        assert_true(identity.is_expired);
        assert_true(may(f, &identity, RESOURCE_EST_RENEW));
        assert_false(may(f, &identity, RESOURCE_RATS));
}

static void a_compromised_certificate_is_revoked_and_leads_only_to_evidence(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED_ATTEST, &idevid, &ldevid, &identity);
        assert_int_equal(registry_rotate(&f->turn, "pump-1", true, 0, &f->problem), 0);
        assert_int_equal(pki_connect(f, &ldevid, &identity), 0);
        assert_int_equal(identity.certificate.revoked, REVOKED_KEY_COMPROMISE);
        assert_true(may(f, &identity, RESOURCE_RATS));
        assert_false(may(f, &identity, RESOURCE_EST_ENROL));
        assert_false(may(f, &identity, RESOURCE_EST_RENEW));
        fixture_attest(f, &identity);
        assert_true(may(f, &identity, RESOURCE_EST_ENROL));
        assert_false(may(f, &identity, RESOURCE_EST_RENEW));
}

static void a_compromised_certificate_of_a_device_that_cannot_attest_gets_nowhere(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        assert_int_equal(registry_rotate(&f->turn, "pump-1", true, 0, &f->problem), 0);
        assert_int_equal(refresh(f, &identity), -EACCES);
        assert_int_equal(pki_connect(f, &ldevid, &identity), -EACCES);
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
        assert_int_equal(fixture_device(f, "pump-1").standing, STANDING_NEEDS_VISIT);
        /* The visit: a window for its IDevID. */
        assert_int_equal(pki_connect(f, &idevid, &identity), 0);
        assert_false(may(f, &identity, RESOURCE_EST_ENROL));
        assert_int_equal(registry_reset(&f->turn, "pump-1", 3600, &f->problem), 0);
        assert_true(may(f, &identity, RESOURCE_EST_ENROL));
}

/* ---- PSKs and certificates ---- */

static void psk_identities_never_find_certificates(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct fixture *f = *state;
        struct identity identity;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        pki_fingerprint(&ldevid, fingerprint);
        assert_int_equal(fixture_connect(f, "pump-1", &identity), -ENOENT);
        assert_int_equal(fixture_connect(f, fingerprint, &identity), -ENOENT);
        assert_int_equal(identity_connected(&f->turn, bytes_of(fingerprint), true, false, &identity), -EACCES);
        assert_int_equal(identity_connected(&f->turn, TEXT("pump-1"), true, false, &identity), -EACCES);
}

static void a_session_does_not_outlive_the_sort_of_its_credential(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct registration registration = { .id = "pump-1", .profile = "certified" };
        struct fixture *f = *state;
        struct identity identity;

        bootstrap(f, "pump-1", FIXTURE_CERTIFIED, &chain, &identity);
        assert_int_equal(registry_remove(&f->turn, "pump-1", &f->problem), 0);
        assert_int_equal(secret_set(&registration.factory_psk, TEXT("0123456789abcdef")), 0);
        assert_int_equal(registry_add(&f->turn, &registration, NULL, &f->problem), 0);
        assert_int_equal(refresh(f, &identity), -EACCES);
}

static void a_proof_that_cannot_be_written_leaves_no_trace(void **state) {
        _cleanup_(buffer_free) struct buffer chain = { 0 };
        struct fixture *f = *state;
        struct identity identity = { 0 };
        struct device device;

        pki_leaf(1,
                 &(struct pki_names){ .dns_name = "meter-1", .not_before = FIXTURE_START - 1, .not_after = PKI_NEVER },
                 &chain);
        fixture_commit(f);
        f->profiles[FIXTURE_AUTOMATIC].idevid_enrolment = ENROLMENT_LISTED; /* reloaded since the question */
        assert_int_equal(identity_certificate_connected(&f->turn, buffer_bytes(&chain), false, &identity), -EACCES);
        assert_false(store_is_changed(f->store));
        assert_int_equal(f->turn.effect_count, 0);
        assert_int_equal(device_get(f->store, TEXT("meter-1"), &device), -ENOENT);
}

static void me_names_the_subject_key_and_asks_to_fetch_new_anchors(void **state) {
        _cleanup_(buffer_free) struct buffer idevid = { 0 }, ldevid = { 0 };
        struct fixture *f = *state;
        _cleanup_(cbor_itemp) cbor_item_t *item = NULL;
        struct identity identity;
        struct device device;
        struct reply reply;
        struct bytes key;

        enrol(f, "pump-1", FIXTURE_CERTIFIED, &idevid, &ldevid, &identity);
        assert_true(fixture_due(f, &identity) & DUE_ANCHORS);
        device = fixture_device(f, "pump-1");
        device.anchors = 1;
        assert_int_equal(schedule_device(&f->turn, &device), 0);
        assert_int_equal(device_update(f->store, &device), 0);
        assert_int_equal(fixture_due(f, &identity), 0);
        fixture_commit(f);
        pki_authority(f, 2);
        assert_int_equal(schedule_device(&f->turn, &device), 0);
        assert_int_equal(fixture_effects(f, EFFECT_NOTIFY_ME, "pump-1"), 1);
        assert_int_equal(fixture_due(f, &identity), DUE_ANCHORS);

        assert_int_equal(fixture_request(f, &identity, CODE_GET, "me", FORMAT_NONE, BYTES(NULL, 0), &reply),
                         CODE_CONTENT);
        assert_int_equal(cbor_read(buffer_bytes(&reply.payload), &item, NULL), 0);
        assert_true(cbor_value_bytes(cbor_map_int(item, 2), &key));
        assert_true(bytes_equal(key, BYTES(identity.certificate.ski, CERTIFICATE_SKI_BYTES)));
        buffer_free(&reply.payload);
}

static void a_device_with_psks_is_never_asked_to_fetch_anchors(void **state) {
        struct fixture *f = *state;
        struct identity identity;

        pki_authority(f, 1);
        fixture_add(f, "sensor-1", FIXTURE_PLAIN);
        assert_int_equal(fixture_connect(f, "sensor-1", &identity), 0);
        assert_false(fixture_due(f, &identity) & DUE_ANCHORS);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(an_idevid_of_a_registered_device_gets_in_and_is_remembered),
                TEST(the_question_of_a_handshake_changes_nothing),
                TEST(automatic_enrolment_registers_at_the_completed_handshake),
                TEST(a_listed_profile_takes_no_device_that_is_not_registered),
                TEST(an_idevid_must_lead_to_an_anchor_of_its_own_profile),
                TEST(a_chain_that_ends_nowhere_or_is_none_is_refused),
                TEST(a_removed_anchor_is_gone_at_once_from_handshakes_and_sessions),
                TEST(an_idevid_is_refused_only_when_it_has_certainly_expired),
                TEST(a_clock_of_unknown_quality_rejects_nobody_for_coming_early),
                TEST(the_id_stands_where_the_profile_says),
                TEST(another_idevid_of_the_same_name_is_told_of_once_an_hour_and_opens_nothing),
                TEST(a_reset_window_learns_another_idevid_and_ends_the_sessions_of_the_first),
                TEST(a_registered_fingerprint_must_be_the_idevids),
                TEST(a_device_with_a_factory_psk_does_not_come_with_an_idevid),
                TEST(a_device_without_psk_needs_a_profile_with_anchors),
                TEST(an_ldevid_is_proven_by_its_first_handshake_and_confirmed_by_the_second),
                TEST(a_predecessor_is_revoked_as_superseded_once_its_grace_is_over),
                TEST(a_certificate_that_nobody_used_is_revoked_when_another_one_is_proven),
                TEST(a_fifth_unproven_certificate_displaces_the_oldest),
                TEST(an_expired_ldevid_gets_in_and_may_only_renew),
                TEST(revocation_of_the_device_ends_handshakes_and_sessions_at_once),
                TEST(a_removed_device_leaves_its_certificates_revoked_and_may_be_registered_anew),
                TEST(a_certificate_of_a_ca_generation_that_has_ended_may_only_renew),
                TEST(a_compromised_certificate_is_revoked_and_leads_only_to_evidence),
                TEST(a_compromised_certificate_of_a_device_that_cannot_attest_gets_nowhere),
                TEST(psk_identities_never_find_certificates),
                TEST(a_session_does_not_outlive_the_sort_of_its_credential),
                TEST(a_proof_that_cannot_be_written_leaves_no_trace),
                TEST(me_names_the_subject_key_and_asks_to_fetch_new_anchors),
                TEST(a_device_with_psks_is_never_asked_to_fetch_anchors),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

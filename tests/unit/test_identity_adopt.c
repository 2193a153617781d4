/* SPDX-License-Identifier: Apache-2.0 */

/* After a restore: which certificates of our own CA are adopted although this store does not know them, and which
 * are not. */

#include "tests/unit/support.h"

#include <errno.h>

#include <sqlite3.h>

#include "gatewayd/devices/steps.h"
#include "store/authorities.h"
#include "store/internal.h"
#include "tests/unit/pki_fixture.h"

#define BACKUP  (FIXTURE_START + 5 * FIXTURE_DAY)
#define RESTORE (FIXTURE_START + 15 * FIXTURE_DAY)
#define BETWEEN (FIXTURE_START + 10 * FIXTURE_DAY)

struct scene {
        struct fixture *f;
        struct pki_ca ca; /* generation 1 of the gateway's own */
        struct buffer idevid, before, chain;
        struct identity identity;
};

static struct fixture *world(struct scene *scene) {
        return scene->f;
}

/* Signed by our CA: a certificate of `id`, valid for 45 days from `begin`. */
static void issue(struct scene *scene, const char *id, unix_sec begin, struct buffer *ret_chain) {
        const struct pki_names names = { .serial_number = id,
                                         .not_before = begin,
                                         .not_after = begin + 45 * FIXTURE_DAY };
        EVP_PKEY *key = EVP_EC_gen("P-256");
        X509 *leaf = pki_make(&scene->ca, key, &names);

        ret_chain->size = 0;
        pki_put(ret_chain, leaf);
        X509_free(leaf);
        EVP_PKEY_free(key);
}

static void make_ca(struct scene *scene) {
        const struct pki_names names = { .serial_number = "gatewayd CA",
                                         .is_ca = true,
                                         .not_before = FIXTURE_START - FIXTURE_DAY,
                                         .not_after = PKI_NEVER };
        _cleanup_(buffer_free) struct buffer der = { 0 };

        scene->ca.key = EVP_EC_gen("P-256");
        scene->ca.certificate = pki_make(NULL, scene->ca.key, &names);
        pki_put(&der, scene->ca.certificate);
        pki_authority(world(scene), 1);
        assert_int_equal(authority_put(world(scene)->store, 1, AUTHORITY_CERTIFICATE, buffer_bytes(&der)), 0);
}

/* The store is one that was restored from a backup. */
static void mark_restored(struct fixture *f) {
        char sql[256];

        fixture_commit(f);
        snprintf(sql, sizeof sql,
                 "UPDATE meta SET backup_of_wall = %lld, backup_of_powered = %lld, backup_of_quality = 2",
                 (long long)BACKUP, (long long)(5 * FIXTURE_DAY));
        assert_int_equal(sqlite3_exec(f->store->db, sql, NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(store_meta_set_restored(f->store, &f->turn.now), 0);
        fixture_commit(f);
}

/* pump-1 has a confirmed certificate of FIXTURE_START; ten days of the lost gateway are not known. */
static int scene_new(void **state) {
        struct scene *scene = xcalloc(1, sizeof *scene);
        void *fixture;

        assert_int_equal(fixture_setup(&fixture), 0);
        scene->f = fixture;
        make_ca(scene);
        pki_add(scene->f, "pump-1", FIXTURE_CERTIFIED);
        pki_idevid(0, "pump-1", &scene->idevid);
        assert_int_equal(pki_connect(scene->f, &scene->idevid, &scene->identity), 0);
        pki_ldevid(scene->f, &scene->identity, 1, 45 * FIXTURE_DAY, &scene->before);
        assert_int_equal(pki_connect(scene->f, &scene->before, &scene->identity), 0);
        assert_int_equal(pki_connect(scene->f, &scene->before, &scene->identity), 0);
        fixture_pass(scene->f, 15 * FIXTURE_DAY);
        mark_restored(scene->f);
        *state = scene;
        return 0;
}

static int scene_free(void **state) {
        struct scene *scene = *state;
        void *fixture = scene->f;

        fixture_teardown(&fixture);
        buffer_free(&scene->idevid);
        buffer_free(&scene->before);
        buffer_free(&scene->chain);
        X509_free(scene->ca.certificate);
        EVP_PKEY_free(scene->ca.key);
        free(scene);
        return 0;
}

static void expect_refused(struct scene *scene, const char *why) {
        struct fixture *f = scene->f;
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct certificate certificate;

        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), -EACCES);
        if (!strstr(f->problem.detail, why))
                fail_msg("\"%s\" does not say \"%s\"", f->problem.detail, why);
        pki_fingerprint(&scene->chain, fingerprint);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), -ENOENT);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CERTIFICATE_ADOPTED), 0);
}

/* ---- adopted ---- */

static void a_certificate_issued_after_the_backup_is_adopted_and_proven_by_its_handshake(void **state) {
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1], before[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct scene *scene = *state;
        struct fixture *f = scene->f;
        struct credential credential;
        struct certificate certificate;

        issue(scene, "pump-1", BETWEEN, &scene->chain);
        pki_fingerprint(&scene->chain, fingerprint);
        pki_fingerprint(&scene->before, before);
        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), 0);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CERTIFICATE_ADOPTED), 1);
        assert_int_equal(certificate_get(f->store, fingerprint, &certificate), 0);
        assert_int_equal(certificate.issuer, 1);
        assert_int_equal(credential_get(f->store, bytes_of(fingerprint), &credential), 0);
        assert_int_equal(credential.state, KEY_ACTIVE);
        assert_int_equal(credential.kind, CREDENTIAL_LDEVID);
        assert_string_equal(credential.predecessor, before);
        assert_int_equal(credential.generation, 2);
        assert_int_equal(fixture_device(f, "pump-1").generation, 2);
        assert_int_equal(fixture_state(f, before), KEY_RETIRING);
        /* From now on it is a row like any other. */
        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), 0);
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CERTIFICATE_ADOPTED), 1);
        assert_true(moment_is_set(&scene->identity.credential.confirmed));
}

static void the_question_of_its_handshake_changes_nothing(void **state) {
        struct scene *scene = *state;
        struct fixture *f = scene->f;

        issue(scene, "pump-1", BETWEEN, &scene->chain);
        assert_int_equal(identity_certificate(&f->turn, buffer_bytes(&scene->chain), f->problem.detail),
                         CERTIFICATE_ACCEPTED);
        assert_false(store_is_changed(f->store));
}

static void the_first_certificate_of_a_device_is_adopted_over_its_idevid(void **state) {
        char fingerprint[2 * CERTIFICATE_DIGEST_BYTES + 1];
        struct scene *scene = *state;
        struct fixture *f = scene->f;
        struct credential credential;

        pki_add(f, "pump-2", FIXTURE_CERTIFIED);
        issue(scene, "pump-2", BETWEEN, &scene->chain);
        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), 0);
        pki_fingerprint(&scene->chain, fingerprint);
        assert_int_equal(credential_get(f->store, bytes_of(fingerprint), &credential), 0);
        assert_string_equal(credential.predecessor, "pump-2");
        assert_int_equal(fixture_device(f, "pump-2").standing, STANDING_OPERATIONAL);
}

static void the_margin_of_issue_is_the_backdating_of_certificates(void **state) {
        struct scene *scene = *state;

        world(scene)->config.ca.backdate_sec = 3600;
        issue(scene, "pump-1", BACKUP - 3601, &scene->chain);
        expect_refused(scene, "before the backup");
        issue(scene, "pump-1", BACKUP - 3600, &scene->chain);
        assert_int_equal(pki_connect(world(scene), &scene->chain, &scene->identity), 0);
}

/* ---- not adopted ---- */

static void a_store_that_was_never_restored_adopts_nothing(void **state) {
        struct scene *scene = *state;

        assert_int_equal(sqlite3_exec(scene->f->store->db, "UPDATE meta SET backup_of_wall = 0, backup_of_powered = 0",
                                      NULL, NULL, NULL),
                         SQLITE_OK);
        issue(scene, "pump-1", BETWEEN, &scene->chain);
        expect_refused(scene, "");
}

static void what_the_gateway_that_was_replaced_issues_after_the_restore_is_refused(void **state) {
        struct scene *scene = *state;

        fixture_pass(scene->f, FIXTURE_DAY);
        issue(scene, "pump-1", RESTORE + 60, &scene->chain);
        expect_refused(scene, "not by this gateway");
}

static void once_a_device_has_come_with_a_newer_one_the_older_is_nobodys(void **state) {
        struct scene *scene = *state;
        struct fixture *f = scene->f;

        issue(scene, "pump-1", BETWEEN + FIXTURE_DAY, &scene->chain);
        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), 0);
        issue(scene, "pump-1", BETWEEN, &scene->chain);
        assert_int_equal(pki_connect(f, &scene->chain, &scene->identity), -EACCES);
        assert_non_null(strstr(f->problem.detail, "has a newer one"));
        assert_int_equal(fixture_audited(f, "pump-1", EVENT_CERTIFICATE_ADOPTED), 1);
}

static void a_device_that_was_compromised_revoked_or_never_registered_adopts_none(void **state) {
        struct scene *scene = *state;
        struct fixture *f = scene->f;
        struct device device = fixture_device(f, "pump-1");

        issue(scene, "pump-1", BETWEEN, &scene->chain);
        device.is_compromised = true;
        assert_int_equal(device_update(f->store, &device), 0);
        expect_refused(scene, "compromised");
        device.is_compromised = false;
        device.standing = STANDING_REVOKED;
        assert_int_equal(device_update(f->store, &device), 0);
        expect_refused(scene, "");
        assert_int_equal(f->verdict, CERTIFICATE_REVOKED);
        issue(scene, "pump-9", BETWEEN, &scene->chain);
        expect_refused(scene, "not registered");
}

static void a_profile_of_psks_adopts_none(void **state) {
        struct scene *scene = *state;

        fixture_add(scene->f, "sensor-1", FIXTURE_PLAIN);
        issue(scene, "sensor-1", BETWEEN, &scene->chain);
        expect_refused(scene, "grants PSKs");
}

static void somebody_elses_ca_is_not_ours(void **state) {
        struct scene *scene = *state;
        EVP_PKEY *kept = scene->ca.key;

        scene->ca.key = EVP_EC_gen("P-256"); /* the name is right, the signature is not */
        issue(scene, "pump-1", BETWEEN, &scene->chain);
        EVP_PKEY_free(scene->ca.key);
        scene->ca.key = kept;
        expect_refused(scene, "");
        assert_int_not_equal(scene->f->verdict, CERTIFICATE_ACCEPTED);
}

static void a_generation_that_has_ended_vouches_for_nothing(void **state) {
        struct scene *scene = *state;
        struct authority authority;

        issue(scene, "pump-1", BETWEEN, &scene->chain);
        assert_int_equal(authority_get(scene->f->store, 1, &authority), 0);
        authority.state = AUTHORITY_ENDED;
        assert_int_equal(authority_update(scene->f->store, &authority), 0);
        expect_refused(scene, "");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, scene_new, scene_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_certificate_issued_after_the_backup_is_adopted_and_proven_by_its_handshake),
                TEST(the_question_of_its_handshake_changes_nothing),
                TEST(the_first_certificate_of_a_device_is_adopted_over_its_idevid),
                TEST(the_margin_of_issue_is_the_backdating_of_certificates),
                TEST(a_store_that_was_never_restored_adopts_nothing),
                TEST(what_the_gateway_that_was_replaced_issues_after_the_restore_is_refused),
                TEST(once_a_device_has_come_with_a_newer_one_the_older_is_nobodys),
                TEST(a_device_that_was_compromised_revoked_or_never_registered_adopts_none),
                TEST(a_profile_of_psks_adopts_none),
                TEST(somebody_elses_ca_is_not_ours),
                TEST(a_generation_that_has_ended_vouches_for_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

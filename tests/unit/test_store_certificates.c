/* SPDX-License-Identifier: Apache-2.0 */

/* The store's rows of certificates: of devices, of the issuing CA's generations, of enrolments upstream;
 * what revoking and removing do to them; and a store that a gatewayd of schema 1 made or used. */

#include "store_support.h"

#include <openssl/sha.h>

#include "store/authorities.h"
#include "store/enrolments.h"
#include "store/internal.h"
#include "store/own_keys.h"

#define DAY INT64_C(86400)

static int memory_new(void **state) {
        *state = store_in_memory();
        return 0;
}

static int memory_free(void **state) {
        store_close(*state);
        return 0;
}

/* ---- certificates ---- */

static void fingerprint_of(unsigned number, char *to) {
        uint8_t digest[32] = { (uint8_t)(number >> 8), (uint8_t)number };

        bytes_to_hex(BYTES(digest, sizeof digest), to);
}

static struct certificate certificate_of(const char *device, uint32_t issuer, unsigned number) {
        struct certificate c = {
                .issuer = issuer,
                .serial = { 1, (uint8_t)(255 - number), (uint8_t)number },
                .serial_size = 3,
                .not_before = 1000,
                .not_after = 100 * DAY,
                .public_key = { 7, (uint8_t)(number >> 8), (uint8_t)number },
                .ski = { 8, (uint8_t)number },
                .csr = { 9, (uint8_t)(number >> 8), (uint8_t)number },
                .revoked = REVOKED_NOT,
        };

        fingerprint_of(number, c.fingerprint);
        snprintf(c.device, sizeof c.device, "%s", device);
        return c;
}

static void add_certificate(struct store *store, const struct certificate *certificate) {
        assert_int_equal(certificate_insert(store, certificate, TEXT("the DER")), 0);
}

static struct certificate make_certificate(struct store *store, const char *device, uint32_t issuer, unsigned number) {
        struct certificate c = certificate_of(device, issuer, number);

        add_certificate(store, &c);
        return c;
}

static void add_ldevid(struct store *store, const struct certificate *certificate) {
        struct credential credential = credential_of(certificate->device, certificate->fingerprint, 1);

        credential.kind = CREDENTIAL_LDEVID;
        assert_int_equal(credential_insert(store, &credential, NULL), 0);
}

static void assert_certificate(const struct certificate *found, const struct certificate *expected) {
        assert_string_equal(found->fingerprint, expected->fingerprint);
        assert_string_equal(found->device, expected->device);
        assert_int_equal(found->issuer, expected->issuer);
        assert_int_equal(found->serial_size, expected->serial_size);
        assert_memory_equal(found->serial, expected->serial, sizeof found->serial);
        assert_int_equal(found->not_before, expected->not_before);
        assert_int_equal(found->not_after, expected->not_after);
        assert_memory_equal(found->public_key, expected->public_key, sizeof found->public_key);
        assert_memory_equal(found->ski, expected->ski, sizeof found->ski);
        assert_memory_equal(found->csr, expected->csr, sizeof found->csr);
        assert_int_equal(found->revoked, expected->revoked);
        assert_int_equal(found->revoked_at.wall, expected->revoked_at.wall);
}

static void a_certificate_comes_back_as_it_was_stored(void **state) {
        struct certificate c = certificate_of("d", GENERATION_UPSTREAM, 1), found;
        _cleanup_(buffer_free) struct buffer der = { 0 };

        c.serial_size = CERTIFICATE_SERIAL_MAX;
        memset(c.serial, 0xff, sizeof c.serial);
        c.not_before = -5;
        c.not_after = INT64_MAX;
        add_certificate(*state, &c);
        assert_int_equal(certificate_get(*state, c.fingerprint, &found), 0);
        assert_certificate(&found, &c);
        buffer_append(&der, TEXT("before "));
        assert_int_equal(certificate_der(*state, c.fingerprint, &der), 0);
        assert_true(bytes_equal(buffer_bytes(&der), TEXT("before the DER")));
        assert_int_equal(certificate_insert(*state, &c, TEXT("another")), -EEXIST);
}

static void an_unknown_fingerprint_has_no_row(void **state) {
        struct buffer der = { 0 };
        struct certificate found;

        assert_int_equal(certificate_get(*state, "00", &found), -ENOENT);
        assert_int_equal(certificate_der(*state, "00", &der), -ENOENT);
        assert_int_equal(certificate_revoke(*state, "00", REVOKED_SUPERSEDED, &MOMENT_NONE), -ENOENT);
}

static void a_certificate_without_der_serial_device_or_whole_fingerprint_is_refused(void **state) {
        struct certificate good = certificate_of("d", 1, 1), c = good;

        assert_int_equal(certificate_insert(*state, &good, BYTES(NULL, 0)), -EINVAL);
        c.serial_size = 0;
        assert_int_equal(certificate_insert(*state, &c, TEXT("der")), -EINVAL);
        c.serial_size = CERTIFICATE_SERIAL_MAX + 1;
        assert_int_equal(certificate_insert(*state, &c, TEXT("der")), -EINVAL);
        c = good;
        c.device[0] = '\0';
        assert_int_equal(certificate_insert(*state, &c, TEXT("der")), -EINVAL);
        c = good;
        c.fingerprint[63] = '\0';
        assert_int_equal(certificate_insert(*state, &c, TEXT("der")), -EINVAL);
        assert_false(store_is_changed(*state));
}

static void the_newest_certificate_that_answered_a_csr_is_found(void **state) {
        struct certificate first = certificate_of("d", 1, 1), second = certificate_of("d", 1, 2), found;
        static const uint8_t none[CERTIFICATE_DIGEST_BYTES];

        memcpy(second.csr, first.csr, sizeof second.csr);
        add_certificate(*state, &first);
        add_certificate(*state, &second);
        make_certificate(*state, "e", 1, 3);
        assert_int_equal(certificate_by_csr(*state, "d", first.csr, &found), 0);
        assert_certificate(&found, &second);
        assert_int_equal(certificate_by_csr(*state, "e", first.csr, &found), -ENOENT);
        assert_int_equal(certificate_by_csr(*state, "d", none, &found), -ENOENT);
}

static void an_idevid_is_remembered_until_it_is_forgotten(void **state) {
        struct certificate idevid, found;

        make_certificate(*state, "d", 1, 1);
        assert_int_equal(certificate_idevid(*state, "d", &found), -ENOENT);
        idevid = make_certificate(*state, "d", GENERATION_FOREIGN, 2);
        make_certificate(*state, "d", GENERATION_FOREIGN, 3);
        assert_int_equal(certificate_idevid(*state, "d", &found), 0);
        assert_certificate(&found, &idevid); /* the first */
        assert_int_equal(certificate_forget_idevid(*state, "d"), 2);
        assert_int_equal(certificate_idevid(*state, "d", &found), -ENOENT);
        assert_int_equal(certificate_forget_idevid(*state, "d"), 0);
        fingerprint_of(1, found.fingerprint);
        assert_int_equal(certificate_get(*state, found.fingerprint, &found), 0); /* not its LDevID */
}

/* ---- whose key ---- */

static void a_key_in_a_certificate_belongs_to_its_device_even_when_revoked(void **state) {
        struct certificate c = make_certificate(*state, "d", 1, 1);
        char owner[DEVICE_ID_MAX + 1];
        struct moment now = at(9);

        assert_int_equal(certificate_key_owner(*state, c.public_key, "d", owner), -ENOENT);
        assert_int_equal(certificate_key_owner(*state, c.public_key, "e", owner), 0);
        assert_string_equal(owner, "d");
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_KEY_COMPROMISE, &now), 1);
        assert_int_equal(certificate_key_owner(*state, c.public_key, "e", owner), 0);
        c.public_key[31] ^= 1;
        assert_int_equal(certificate_key_owner(*state, c.public_key, "e", owner), -ENOENT);
}

static void an_attestation_key_belongs_to_its_device(void **state) {
        struct device device = device_of("d");
        char owner[DEVICE_ID_MAX + 1];
        uint8_t digest[32];

        memset(device.attestation_key, 0x30, 91);
        device.attestation_key_size = 91;
        SHA256(device.attestation_key, 91, digest);
        assert_int_equal(device_insert(*state, &device), 0);
        add_device(*state, "without");
        assert_int_equal(certificate_key_owner(*state, digest, "e", owner), 0);
        assert_string_equal(owner, "d");
        assert_int_equal(certificate_key_owner(*state, digest, "d", owner), -ENOENT);

        device.attestation_key_size = 0;
        assert_int_equal(device_update(*state, &device), 0);
        assert_int_equal(certificate_key_owner(*state, digest, "e", owner), -ENOENT);
}

static struct enrolment enrolment_of(const char *device, unsigned number) {
        struct enrolment e = {
                .csr = { 1, (uint8_t)number },
                .public_key = { 2, (uint8_t)number },
                .asked = at((int64_t)number),
        };

        snprintf(e.device, sizeof e.device, "%s", device);
        snprintf(e.predecessor, sizeof e.predecessor, "%s", device);
        return e;
}

static struct enrolment make_enrolment(struct store *store, const char *device, unsigned number) {
        struct enrolment e = enrolment_of(device, number);

        assert_int_equal(enrolment_insert(store, &e, TEXT("the CSR")), 0);
        return e;
}

static void a_key_that_waits_for_its_certificate_belongs_to_its_device(void **state) {
        struct enrolment e = make_enrolment(*state, "d", 1);
        char owner[DEVICE_ID_MAX + 1];

        assert_int_equal(certificate_key_owner(*state, e.public_key, "e", owner), 0);
        assert_string_equal(owner, "d");
        e.state = ENROLMENT_REFUSED;
        assert_int_equal(enrolment_update(*state, &e), 0);
        assert_int_equal(certificate_key_owner(*state, e.public_key, "e", owner), -ENOENT);
}

/* ---- revocation ---- */

static struct authority authority_of(uint32_t generation, enum authority_state authority_state) {
        struct authority a = {
                .generation = generation,
                .state = authority_state,
                .key_uri = "store:",
                .not_after = 1000 * DAY,
                .created = at(generation),
        };

        return a;
}

static void add_authority(struct store *store, uint32_t generation, enum authority_state authority_state) {
        struct authority a = authority_of(generation, authority_state);

        assert_int_equal(authority_insert(store, &a), 0);
}

static bool is_stale(struct store *store, uint32_t generation) {
        struct authority found;

        assert_int_equal(authority_get(store, generation, &found), 0);
        return found.crl_is_stale;
}

static void the_first_reason_and_moment_of_a_revocation_stay(void **state) {
        struct certificate c = make_certificate(*state, "d", 1, 1), found;
        struct moment first = at(10), second = at(20);

        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_NOT, &first), -EINVAL);
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_UNSPECIFIED, &first), 1);
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_KEY_COMPROMISE, &second), 0);
        assert_int_equal(certificate_get(*state, c.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_UNSPECIFIED);
        assert_int_equal(found.revoked_at.wall, first.wall);
        assert_int_equal(found.revoked_at.powered_sec, first.powered_sec);
        assert_int_equal(found.revoked_at.quality, first.quality);
}

static void a_revocation_makes_the_crl_of_its_generation_stale_and_no_other(void **state) {
        struct moment now = at(10);
        struct certificate c;

        add_authority(*state, 1, AUTHORITY_RETIRING);
        add_authority(*state, 2, AUTHORITY_ACTIVE);
        c = make_certificate(*state, "d", 1, 1);
        make_certificate(*state, "d", 2, 2);
        assert_false(is_stale(*state, 1));
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_SUPERSEDED, &now), 1);
        assert_true(is_stale(*state, 1));
        assert_false(is_stale(*state, 2));
        assert_int_equal(certificate_revoke_device(*state, "d", REVOKED_CESSATION, &now), 1);
        assert_true(is_stale(*state, 2));
}

static void a_devices_certificates_are_revoked_together(void **state) {
        struct certificate a = make_certificate(*state, "d", 1, 1), b = make_certificate(*state, "d", 0, 2),
                           idevid = make_certificate(*state, "d", GENERATION_FOREIGN, 3),
                           other = make_certificate(*state, "e", 1, 4), found;
        struct moment now = at(10);

        assert_int_equal(certificate_revoke(*state, b.fingerprint, REVOKED_SUPERSEDED, &now), 1);
        assert_int_equal(certificate_revoke_device(*state, "d", REVOKED_PRIVILEGE_WITHDRAWN, &now), 2);
        assert_int_equal(certificate_get(*state, a.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_PRIVILEGE_WITHDRAWN);
        assert_int_equal(certificate_get(*state, idevid.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_PRIVILEGE_WITHDRAWN);
        assert_int_equal(certificate_get(*state, b.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_SUPERSEDED);
        assert_int_equal(certificate_get(*state, other.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_NOT);
        assert_int_equal(certificate_revoke_device(*state, "d", REVOKED_PRIVILEGE_WITHDRAWN, &now), 0);
}

struct walk {
        uint8_t serials[8][2];
        size_t count, stop_at;
};

static int note_serial(void *userdata, const struct certificate *certificate) {
        struct walk *walk = userdata;

        assert_int_not_equal(certificate->revoked, REVOKED_NOT);
        memcpy(walk->serials[walk->count++], certificate->serial + 1, 2);
        return walk->count == walk->stop_at ? 42 : 0;
}

static void the_revoked_of_a_generation_are_walked_by_serial_until_they_run_out(void **state) {
        struct moment now = at(10);
        struct walk walk = { .count = 0 };

        for (unsigned i = 1; i <= 4; i++) { /* serials fall */
                struct certificate c = certificate_of("d", 1, i);

                c.not_after = (int64_t)i * DAY;
                add_certificate(*state, &c);
                assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_SUPERSEDED, &now), 1);
        }
        make_certificate(*state, "d", 1, 5);
        make_certificate(*state, "d", 2, 6);
        assert_int_equal(certificate_each_revoked(*state, 1, 2 * DAY, note_serial, &walk), 0);
        assert_int_equal(walk.count, 3);
        assert_int_equal(walk.serials[0][1], 4);
        assert_int_equal(walk.serials[1][1], 3);
        assert_int_equal(walk.serials[2][1], 2); /* good until its last second */
        walk = (struct walk){ .stop_at = 1 };
        assert_int_equal(certificate_each_revoked(*state, 1, 0, note_serial, &walk), 42);
        assert_int_equal(walk.count, 1);
}

/* ---- counting and trimming ---- */

static void a_certificate_counts_until_it_is_revoked_or_its_last_second_is_over(void **state) {
        struct certificate c = certificate_of("d", 1, 1);
        struct moment now = at(10);
        unix_sec last = -1;

        assert_int_equal(certificate_count(*state, 1, 0, &last), 0);
        assert_int_equal(last, -1);
        c.not_after = 5 * DAY + 100;
        add_certificate(*state, &c);
        c = certificate_of("d", 1, 2);
        c.not_after = 5 * DAY + 200;
        add_certificate(*state, &c);
        make_certificate(*state, "d", 2, 3);
        assert_int_equal(certificate_count(*state, 1, 4 * DAY, &last), 2);
        assert_int_equal(last, 5 * DAY + 200);
        assert_int_equal(certificate_count(*state, 1, 5 * DAY + 100, NULL), 2);
        assert_int_equal(certificate_count(*state, 1, 5 * DAY + 101, NULL), 1);
        assert_int_equal(certificate_count(*state, 1, 5 * DAY + 201, &last), 0);
        assert_int_equal(certificate_count(*state, 2, 5 * DAY + 201, NULL), 1);
        assert_int_equal(certificate_count(*state, 3, 0, NULL), 0);
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_SUPERSEDED, &now), 1);
        assert_int_equal(certificate_count(*state, 1, 0, &last), 1);
        assert_int_equal(last, 5 * DAY + 100);
}

static void certificates_without_end_and_neighbouring_generations_do_not_mix(void **state) {
        struct certificate c = certificate_of("d", GENERATION_UPSTREAM, 1);

        c.not_after = INT64_MAX;
        add_certificate(*state, &c);
        c = certificate_of("d", 1, 2);
        c.not_after = -7; /* before 1970 */
        add_certificate(*state, &c);
        c = certificate_of("d", GENERATION_FOREIGN, 3);
        c.not_after = INT64_MAX;
        add_certificate(*state, &c);
        assert_int_equal(certificate_count(*state, GENERATION_UPSTREAM, INT64_MAX, NULL), 1);
        assert_int_equal(certificate_count(*state, GENERATION_UPSTREAM, 0, NULL), 1);
        assert_int_equal(certificate_count(*state, 1, 0, NULL), 0);
        assert_int_equal(certificate_count(*state, 1, -7, NULL), 1);
        assert_int_equal(certificate_count(*state, 1, -6, NULL), 0);
        assert_int_equal(certificate_count(*state, GENERATION_FOREIGN, 0, NULL), 1);
}

/* A small generator of its own: the same run every time. */
static uint32_t next_random(uint32_t *seed, uint32_t below) {
        *seed = *seed * 1664525 + 1013904223;
        return (*seed >> 8) % below;
}

/* The count by walking, to compare with. */
static int64_t walked_count(struct store *store, uint32_t issuer, unix_sec now) {
        char sql[160];
        int64_t value;

        snprintf(sql, sizeof sql,
                 "SELECT count(*) FROM certificate WHERE issuer = %u AND revoked = -1 AND not_after >= %lld", issuer,
                 (long long)now);
        assert_int_equal(connection_number(store->db, sql, &value), 0);
        return value;
}

static void the_count_equals_a_walk_after_any_changes(void **state) {
        struct store *store = *state;
        struct moment now = at(1);
        uint32_t seed = 7;

        for (unsigned i = 0; i < 2000; i++) {
                struct certificate c = certificate_of("d", next_random(&seed, 3), i);
                unix_sec when = next_random(&seed, 12 * (uint32_t)DAY);

                c.not_after = next_random(&seed, 12 * (uint32_t)DAY);
                add_certificate(store, &c);
                fingerprint_of(next_random(&seed, i + 1), c.fingerprint);
                if (next_random(&seed, 3) == 0)
                        certificate_revoke(store, c.fingerprint, REVOKED_SUPERSEDED, &now);
                if (next_random(&seed, 20) == 0)
                        certificate_trim(store, next_random(&seed, 3 * (uint32_t)DAY), 5);
                for (uint32_t issuer = 0; issuer < 3; issuer++)
                        assert_int_equal(certificate_count(store, issuer, when, NULL),
                                         walked_count(store, issuer, when));
        }
}

static void what_ran_out_is_trimmed_once_its_credential_is_gone(void **state) {
        struct certificate over = certificate_of("d", 1, 1), idevid = certificate_of("d", GENERATION_FOREIGN, 2), found;

        over.not_after = idevid.not_after = DAY;
        add_certificate(*state, &over);
        add_ldevid(*state, &over);
        add_certificate(*state, &idevid);
        make_certificate(*state, "d", 1, 3);
        assert_int_equal(certificate_trim(*state, 2 * DAY, 9), 0);
        assert_int_equal(credential_remove(*state, over.fingerprint), 0);
        assert_int_equal(certificate_trim(*state, DAY, 9), 0); /* good until its last second */
        assert_int_equal(certificate_trim(*state, DAY + 1, 0), 0);
        assert_int_equal(certificate_trim(*state, DAY + 1, 9), 1);
        assert_int_equal(certificate_get(*state, over.fingerprint, &found), -ENOENT);
        assert_int_equal(certificate_get(*state, idevid.fingerprint, &found), 0);
}

static void a_credential_that_was_there_before_its_certificate_keeps_it(void **state) {
        struct certificate c = certificate_of("d", 1, 1);

        c.not_after = DAY;
        add_ldevid(*state, &c);
        add_certificate(*state, &c);
        assert_int_equal(certificate_trim(*state, 2 * DAY, 9), 0);
}

static void trimming_takes_no_more_than_asked_and_the_oldest_first(void **state) {
        struct certificate found;

        for (unsigned i = 0; i < 5; i++) {
                struct certificate c = certificate_of("d", 1, i);

                c.not_after = (int64_t)(5 - i) * DAY;
                add_certificate(*state, &c);
        }
        assert_int_equal(certificate_trim(*state, 9 * DAY, 2), 2);
        fingerprint_of(2, found.fingerprint);
        assert_int_equal(certificate_get(*state, found.fingerprint, &found), 0);
        fingerprint_of(3, found.fingerprint);
        assert_int_equal(certificate_get(*state, found.fingerprint, &found), -ENOENT);
        assert_int_equal(certificate_trim(*state, 9 * DAY, SIZE_MAX), 3);
}

static void a_compromised_keys_certificate_is_never_trimmed(void **state) {
        struct certificate c = certificate_of("d", 1, 1);
        struct moment now = at(1);

        c.not_after = DAY;
        add_certificate(*state, &c);
        assert_int_equal(certificate_revoke(*state, c.fingerprint, REVOKED_KEY_COMPROMISE, &now), 1);
        assert_int_equal(certificate_trim(*state, 9 * DAY, 9), 0);
        assert_int_equal(certificate_key_is_compromised(*state, c.public_key), 1);
}

/* ---- credentials of certificates ---- */

static void a_certificates_credential_has_no_secret_and_needs_none(void **state) {
        struct certificate c = make_certificate(*state, "d", 1, 1);
        struct credential credential = credential_of("d", c.fingerprint, 3), found;
        struct secret secret = secret_of("0123456789abcdef"), opened = { 0 };

        assert_int_equal(credential_insert(*state, &credential, NULL), -EINVAL);
        credential.kind = CREDENTIAL_LDEVID;
        assert_int_equal(credential_insert(*state, &credential, &secret), -EINVAL);
        assert_int_equal(credential_insert(*state, &credential, NULL), 0);
        assert_int_equal(credential_get(*state, bytes_of(c.fingerprint), &found), 0);
        assert_int_equal(found.kind, CREDENTIAL_LDEVID);
        assert_int_equal(found.generation, 3);
        assert_int_equal(credential_secret(*state, c.fingerprint, &opened), -ENOENT);
        assert_int_equal(credential_wipe(*state, c.fingerprint), 0);
        found.state = KEY_RETIRING;
        assert_int_equal(credential_update(*state, &found), 0);
}

static void a_new_data_key_has_nothing_to_do_for_certificates(void **state) {
        struct certificate c = make_certificate(*state, "d", 1, 1);
        struct moment now = at(1);

        add_ldevid(*state, &c);
        assert_int_equal(store_data_key_rotate(*state, &now), 0);
        assert_int_equal(store_reseal_some(*state, 9, NULL), 0);
}

/* ---- a device is removed ---- */

static void a_removed_device_leaves_revoked_certificates_and_nothing_else(void **state) {
        struct certificate c, idevid, other, found;
        struct clock clock = { .floor = 777, .powered_sec = 55, .boot_id = "b" };
        struct credential credential;
        struct enrolment e;

        add_authority(*state, 1, AUTHORITY_ACTIVE);
        add_device(*state, "d");
        add_device(*state, "e");
        c = make_certificate(*state, "d", 1, 1);
        add_ldevid(*state, &c);
        idevid = make_certificate(*state, "d", GENERATION_FOREIGN, 2);
        other = make_certificate(*state, "e", 1, 3);
        e = make_enrolment(*state, "d", 1);
        make_enrolment(*state, "e", 2);
        assert_int_equal(store_meta_set_clock(*state, &clock), 0);

        assert_int_equal(device_remove(*state, "d"), 0);
        assert_int_equal(credential_get(*state, bytes_of(c.fingerprint), &credential), -ENOENT);
        assert_int_equal(certificate_get(*state, c.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_CESSATION);
        assert_int_equal(found.revoked_at.wall, 777);
        assert_int_equal(found.revoked_at.powered_sec, 55);
        assert_int_equal(found.revoked_at.quality, CLOCK_UNKNOWN);
        assert_true(is_stale(*state, 1));
        assert_int_equal(certificate_count(*state, 1, 0, NULL), 1);
        assert_int_equal(certificate_get(*state, idevid.fingerprint, &found), -ENOENT);
        assert_int_equal(enrolment_get(*state, e.number, &e), -ENOENT);
        assert_int_equal(enrolment_count(*state, ENROLMENT_WAITING), 1);
        assert_int_equal(certificate_get(*state, other.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_NOT);
        assert_int_equal(certificate_trim(*state, 1000 * DAY, 9),
                         2); /* its credential went with it, as e's never was */
}

static void a_removal_that_is_rolled_back_revokes_nothing(void **state) {
        struct certificate c, found;

        add_device(*state, "d");
        c = make_certificate(*state, "d", 1, 1);
        commit(*state);
        assert_int_equal(store_savepoint(*state), 0);
        assert_int_equal(device_remove(*state, "d"), 0);
        assert_int_equal(store_savepoint_rollback(*state), 0);
        assert_int_equal(certificate_get(*state, c.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_NOT);
        assert_int_equal(certificate_count(*state, 1, 0, NULL), 1);
}

/* ---- generations of the CA ---- */

static void assert_moment(const struct moment *found, const struct moment *expected) {
        assert_int_equal(found->wall, expected->wall);
        assert_int_equal(found->powered_sec, expected->powered_sec);
        assert_int_equal(found->quality, expected->quality);
        assert_int_equal(found->wall_trusted, expected->wall_trusted);
}

static void assert_authority(const struct authority *found, const struct authority *expected) {
        assert_int_equal(found->generation, expected->generation);
        assert_int_equal(found->state, expected->state);
        assert_string_equal(found->key_uri, expected->key_uri);
        assert_int_equal(found->is_root, expected->is_root);
        assert_int_equal(found->not_before, expected->not_before);
        assert_int_equal(found->not_after, expected->not_after);
        assert_moment(&found->created, &expected->created);
        assert_moment(&found->announced, &expected->announced);
        assert_moment(&found->activated, &expected->activated);
        assert_moment(&found->superseded, &expected->superseded);
        assert_moment(&found->ended, &expected->ended);
        assert_int_equal(found->crl_number, expected->crl_number);
        assert_int_equal(found->crl_next_update, expected->crl_next_update);
        assert_int_equal(found->crl_is_stale, expected->crl_is_stale);
}

static void a_generation_comes_back_as_it_was_stored(void **state) {
        struct authority a = authority_of(3, AUTHORITY_ANNOUNCED), found;

        memset(a.key_uri, 'u', sizeof a.key_uri - 1);
        a.is_root = true;
        a.not_before = 4;
        a.not_after = INT64_MAX;
        a.announced = at(6);
        a.activated = at(7);
        a.superseded = at(8);
        a.ended = at(9);
        a.crl_number = UINT64_MAX;
        a.crl_next_update = 11;
        a.crl_is_stale = true;
        assert_int_equal(authority_insert(*state, &a), 0);
        assert_int_equal(authority_get(*state, 3, &found), 0);
        assert_authority(&found, &a);
        assert_int_equal(authority_insert(*state, &a), -EEXIST);

        a.state = AUTHORITY_ACTIVE;
        a.crl_is_stale = false;
        snprintf(a.key_uri, sizeof a.key_uri, "pkcs11:token=ca");
        assert_int_equal(authority_update(*state, &a), 0);
        assert_int_equal(authority_get(*state, 3, &found), 0);
        assert_string_equal(found.key_uri, "pkcs11:token=ca");
        assert_int_equal(found.state, AUTHORITY_ACTIVE);
        assert_false(found.crl_is_stale);
}

static void a_generation_that_is_not_there_is_neither_changed_nor_removed(void **state) {
        struct authority a = authority_of(1, AUTHORITY_ACTIVE), found;
        struct buffer part = { 0 };

        assert_int_equal(authority_update(*state, &a), -ENOENT);
        assert_int_equal(authority_get(*state, 1, &found), -ENOENT);
        assert_int_equal(authority_remove(*state, 1), -ENOENT);
        assert_int_equal(authority_put(*state, 1, AUTHORITY_CRL, TEXT("crl")), -ENOENT);
        assert_int_equal(authority_read(*state, 1, AUTHORITY_CRL, &part), -ENOENT);
        a.generation = 0;
        assert_int_equal(authority_insert(*state, &a), -EINVAL);
        a = authority_of(1, AUTHORITY_ACTIVE);
        a.key_uri[0] = '\0';
        assert_int_equal(authority_insert(*state, &a), -EINVAL);
}

static void generations_are_listed_newest_first_without_those_that_ended(void **state) {
        struct authority list[AUTHORITIES_MAX];

        assert_int_equal(authority_list(*state, list, ELEMENTS(list)), 0);
        add_authority(*state, 1, AUTHORITY_ENDED);
        add_authority(*state, 2, AUTHORITY_RETIRING);
        add_authority(*state, 3, AUTHORITY_ACTIVE);
        add_authority(*state, 4, AUTHORITY_REQUESTED);
        assert_int_equal(authority_list(*state, list, ELEMENTS(list)), 3);
        assert_int_equal(list[0].generation, 4);
        assert_int_equal(list[2].generation, 2);
        assert_int_equal(authority_list(*state, list, 1), 1);
        assert_int_equal(list[0].generation, 4);
}

static void a_removed_generations_number_is_not_given_again(void **state) {
        assert_int_equal(authority_latest(*state), 0);
        add_authority(*state, 1, AUTHORITY_ACTIVE);
        add_authority(*state, 2, AUTHORITY_REQUESTED);
        assert_int_equal(authority_latest(*state), 2);
        assert_int_equal(authority_remove(*state, 2), 0);
        assert_int_equal(authority_latest(*state), 2);
}

static void the_parts_of_a_generation_are_kept_apart_replaced_and_removed_with_it(void **state) {
        _cleanup_(buffer_free) struct buffer part = { 0 };

        add_authority(*state, 1, AUTHORITY_ACTIVE);
        add_authority(*state, 2, AUTHORITY_ANNOUNCED);
        assert_int_equal(authority_put(*state, 1, AUTHORITY_CERTIFICATE, TEXT("one")), 0);
        assert_int_equal(authority_put(*state, 2, AUTHORITY_CERTIFICATE, TEXT("two")), 0);
        assert_int_equal(authority_put(*state, 2, AUTHORITY_CROSS, TEXT("cross")), 0);
        assert_int_equal(authority_read(*state, 1, AUTHORITY_CROSS, &part), -ENOENT);
        assert_int_equal(authority_read(*state, 1, AUTHORITY_CERTIFICATE, &part), 0);
        assert_int_equal(authority_put(*state, 2, AUTHORITY_CERTIFICATE, TEXT("zwei")), 0);
        assert_int_equal(authority_read(*state, 2, AUTHORITY_CERTIFICATE, &part), 0);
        assert_true(bytes_equal(buffer_bytes(&part), TEXT("onezwei")));
        assert_int_equal(authority_put(*state, 2, AUTHORITY_CROSS, BYTES(NULL, 0)), 0);
        assert_int_equal(authority_read(*state, 2, AUTHORITY_CROSS, &part), -ENOENT);
        assert_int_equal(authority_remove(*state, 2), 0);
        assert_int_equal(authority_read(*state, 2, AUTHORITY_CERTIFICATE, &part), -ENOENT);
        assert_int_equal(authority_read(*state, 1, AUTHORITY_CERTIFICATE, &part), 0);
}

/* ---- enrolments upstream ---- */

static void assert_enrolment(const struct enrolment *found, const struct enrolment *expected) {
        assert_int_equal(found->number, expected->number);
        assert_string_equal(found->device, expected->device);
        assert_int_equal(found->is_renewal, expected->is_renewal);
        assert_memory_equal(found->csr, expected->csr, sizeof found->csr);
        assert_memory_equal(found->public_key, expected->public_key, sizeof found->public_key);
        assert_string_equal(found->predecessor, expected->predecessor);
        assert_int_equal(found->state, expected->state);
        assert_moment(&found->asked, &expected->asked);
        assert_moment(&found->answered, &expected->answered);
        assert_int_equal(found->retry_powered_sec, expected->retry_powered_sec);
        assert_int_equal(found->http_status, expected->http_status);
        assert_string_equal(found->reason, expected->reason);
        assert_string_equal(found->fingerprint, expected->fingerprint);
}

static void an_enrolment_comes_back_as_it_was_stored(void **state) {
        struct enrolment e = enrolment_of("d", 1), found;
        _cleanup_(buffer_free) struct buffer csr = { 0 };

        e.is_renewal = true;
        memset(e.predecessor, 'p', sizeof e.predecessor - 1);
        assert_int_equal(enrolment_insert(*state, &e, BYTES(NULL, 0)), -EINVAL);
        assert_int_equal(enrolment_insert(*state, &e, TEXT("csr")), 0);
        assert_int_equal(e.number, 1);
        assert_int_equal(enrolment_get(*state, 1, &found), 0);
        assert_enrolment(&found, &e);
        assert_int_equal(enrolment_csr(*state, 1, &csr), 0);
        assert_true(bytes_equal(buffer_bytes(&csr), TEXT("csr")));

        e.state = ENROLMENT_REFUSED;
        e.answered = at(5);
        e.retry_powered_sec = 6;
        e.http_status = 403;
        memset(e.reason, 'r', sizeof e.reason - 1);
        memset(e.fingerprint, 'f', sizeof e.fingerprint - 1);
        assert_int_equal(enrolment_update(*state, &e), 0);
        assert_int_equal(enrolment_get(*state, 1, &found), 0);
        assert_enrolment(&found, &e);
}

static void an_enrolment_that_is_not_there_is_not_changed(void **state) {
        struct enrolment e = enrolment_of("d", 1);
        struct buffer csr = { 0 };

        e.number = 5;
        assert_int_equal(enrolment_update(*state, &e), -ENOENT);
        assert_int_equal(enrolment_get(*state, 5, &e), -ENOENT);
        assert_int_equal(enrolment_csr(*state, 5, &csr), -ENOENT);
        assert_int_equal(enrolment_find(*state, "d", e.public_key, &e), -ENOENT);
}

static void a_removed_enrolments_number_is_not_given_again(void **state) {
        struct enrolment e = make_enrolment(*state, "d", 1);

        assert_int_equal(enrolment_remove_device(*state, "d"), 1);
        assert_int_equal(enrolment_remove_device(*state, "d"), 0);
        e = make_enrolment(*state, "e", 2);
        assert_int_equal(e.number, 2);
}

static void the_latest_enrolment_of_a_device_with_a_key_is_found(void **state) {
        struct enrolment first = make_enrolment(*state, "d", 1), again = enrolment_of("d", 2), found;

        memcpy(again.public_key, first.public_key, sizeof again.public_key);
        assert_int_equal(enrolment_insert(*state, &again, TEXT("csr")), 0);
        make_enrolment(*state, "d", 3);
        assert_int_equal(enrolment_find(*state, "d", first.public_key, &found), 0);
        assert_int_equal(found.number, again.number);
        assert_int_equal(enrolment_find(*state, "e", first.public_key, &found), -ENOENT);
}

static void waiting_enrolments_come_due_by_their_time_and_then_their_age(void **state) {
        static const int64_t retry[] = { 50, 0, 101, 0, 100 };
        struct enrolment e, due[8];

        for (unsigned i = 0; i < ELEMENTS(retry); i++) {
                e = enrolment_of("d", i);
                e.retry_powered_sec = retry[i];
                assert_int_equal(enrolment_insert(*state, &e, TEXT("csr")), 0);
        }
        assert_int_equal(enrolment_due(*state, 100, due, ELEMENTS(due)), 4);
        assert_int_equal(due[0].number, 2);
        assert_int_equal(due[1].number, 4);
        assert_int_equal(due[2].number, 1);
        assert_int_equal(due[3].number, 5);
        assert_int_equal(enrolment_due(*state, 100, due, 3), 3);
        e = due[0];
        e.state = ENROLMENT_ISSUED;
        assert_int_equal(enrolment_update(*state, &e), 0);
        assert_int_equal(enrolment_due(*state, 100, due, ELEMENTS(due)), 3);
        assert_int_equal(due[0].number, 4);
}

static void enrolments_are_counted_by_state(void **state) {
        struct enrolment e;

        assert_int_equal(enrolment_count(*state, ENROLMENT_WAITING), 0);
        make_enrolment(*state, "d", 1);
        e = make_enrolment(*state, "e", 2);
        assert_int_equal(enrolment_count(*state, ENROLMENT_WAITING), 2);
        e.state = ENROLMENT_ISSUED;
        assert_int_equal(enrolment_update(*state, &e), 0);
        assert_int_equal(enrolment_count(*state, ENROLMENT_WAITING), 1);
        assert_int_equal(enrolment_count(*state, ENROLMENT_ISSUED), 1);
        assert_int_equal(enrolment_remove_device(*state, "e"), 1);
        assert_int_equal(enrolment_count(*state, ENROLMENT_ISSUED), 0);
}

static void answered_enrolments_go_after_a_while_waiting_ones_never(void **state) {
        struct enrolment waiting = make_enrolment(*state, "d", 1), answered = make_enrolment(*state, "d", 2);
        struct moment now = at(1000);

        answered.state = ENROLMENT_ISSUED;
        answered.answered = at(100);
        assert_int_equal(enrolment_update(*state, &answered), 0);
        assert_int_equal(enrolment_trim(*state, &now, 900), 0);
        assert_int_equal(enrolment_trim(*state, &now, 899), 1);
        assert_int_equal(enrolment_get(*state, answered.number, &answered), -ENOENT);
        assert_int_equal(enrolment_get(*state, waiting.number, &waiting), 0);
}

/* ---- gatewayds of older schemas ---- */

/* A store as one of that schema made it, with a device, a credential and an attestation key in it. */
static void make_older(struct place *place, size_t schema) {
        struct store *store = xcalloc(1, sizeof *store);
        char sql[1024];

        store->lock_fd = store->event_fd = -1;
        store->path = xstrdup(place->path);
        assert_int_equal(seal_init(&store->seal, BYTES(sealing_key, sizeof sealing_key)), 0);
        assert_int_equal(connection_open_to_write(place->path, SQLITE_OPEN_CREATE, &store->db), 0);
        assert_int_equal(schema_apply(store->db, schema_migrations, schema), 0);
        snprintf(sql, sizeof sql, "PRAGMA application_id = %d", STORE_APPLICATION_ID);
        assert_int_equal(connection_run(store->db, sql), 0);
        assert_int_equal(meta_create(store), 0);
        assert_int_equal(store_data_key_rotate(store, &MOMENT_NONE), 0);
        commit(store);
        add_credential(store, "d", "kid", 1, "0123456789abcdef");
        commit(store);
        assert_int_equal(
                connection_run(store->db,
                               schema < 2
                                       ? "INSERT INTO device VALUES (1, 'd', 'sensor', 1, 1,2,6, 3,4,6, 5, x'010203',"
                                         " 2, 6,7,6, 8,9,6, 10,11,6, 12, 13, 4, 0, 0,0,0, 0, 0,0,0, 14, 15, 16)"
                                       : "INSERT INTO device VALUES (1, 'd', 'sensor', 1, 1,2,6, 3,4,6, 5, x'010203',"
                                         " 2, 6,7,6, 8,9,6, 10,11,6, 12, 13, 4, 0, 0,0,0, 0, 0,0,0, 14, 15, 16, 0,"
                                         " NULL)"),
                0);
        assert_int_equal(connection_run(store->db, "PRAGMA journal_mode = WAL"), 0);
        store_close(store);
}

static void is_migrated_and_keeps_everything(struct place *place) {
        struct secret secret = { 0 };
        char owner[DEVICE_ID_MAX + 1];
        struct device device;
        uint8_t digest[32];
        int64_t value;

        for (int round = 0; round < 2; round++) { /* the second finds it done */
                store_here(place, NULL, 0);
                assert_int_equal(connection_number(place->store->db, "PRAGMA user_version", &value), 0);
                assert_int_equal(value, STORE_SCHEMA_VERSION);
                assert_int_equal(connection_number(place->store->db, "SELECT oldest_writer FROM meta", &value), 0);
                assert_int_equal(value, STORE_OLDEST_WRITER);
                assert_int_equal(device_get(place->store, bytes_of("d"), &device), 0);
                assert_int_equal(device.standing, STANDING_OPERATIONAL);
                assert_int_equal(device.handshakes_without_fs, 16);
                assert_int_equal(device.anchors, 0);
                assert_int_equal(credential_secret(place->store, "kid", &secret), 0);
                assert_memory_equal(secret.data, "0123456789abcdef", 16);
                SHA256((const uint8_t *)"\1\2\3", 3, digest);
                assert_int_equal(certificate_key_owner(place->store, digest, "e", owner), 0);
                assert_string_equal(owner, "d");
                assert_int_equal(certificate_count(place->store, 1, 0, NULL), 0);
                assert_int_equal(commit(place->store), 0); /* turns begin anew */
                place->store = store_close(place->store);
        }
        secret_wipe(&secret);
}

static void a_store_of_the_first_schema_is_migrated_and_keeps_everything(void **state) {
        make_older(*state, 1);
        is_migrated_and_keeps_everything(*state);
}

static void a_store_of_the_second_schema_is_migrated_and_keeps_everything(void **state) {
        struct place *place = *state;
        struct store_meta meta;
        struct own_key key;

        make_older(place, 2);
        is_migrated_and_keeps_everything(place);
        store_here(place, NULL, 0);
        assert_int_equal(store_meta_get(place->store, &meta), 0);
        assert_false(moment_is_set(&meta.backed_up));
        assert_false(meta.is_restored_now);
        assert_int_equal(own_key_get(place->store, OWN_KEY_RECEIPT, &key), -ENOENT);
        assert_int_equal(store_rewrap_is_open(place->store), 0);
}

/* Devices that were revoked before there was a list of them are looked at once. */
static void what_the_second_schema_left_unrevoked_is_caught_up_with(void **state) {
        struct place *place = *state;
        int64_t value;

        make_older(place, 2);
        tamper(place,
               "UPDATE device SET standing = 4;"
               "INSERT INTO certificate VALUES (1, 'f', 'd', 1, x'01', 0, 9999999999, x'', x'', x'', -1, 0,0,0, 0,"
               " x'00')");
        store_here(place, NULL, 0);
        assert_int_equal(connection_number(place->store->db, "SELECT revoked FROM certificate", &value), 0);
        assert_int_equal(value, REVOKED_PRIVILEGE_WITHDRAWN);
        assert_int_equal(connection_number(place->store->db, "SELECT count(*) FROM revoked_lately", &value), 0);
        assert_int_equal(value, 0);
}

/* What the older one writes, in its own words. */
static void the_first_schemas_statements_work_on_this_store(void **state) {
        struct place *place = *state;
        struct certificate removed, revoked, kept, found;
        struct authority authority;
        struct credential credential;

        store_here(place, NULL, 0);
        add_authority(place->store, 1, AUTHORITY_ACTIVE);
        add_device(place->store, "removed");
        add_device(place->store, "revoked");
        add_device(place->store, "kept");
        removed = make_certificate(place->store, "removed", 1, 1);
        revoked = make_certificate(place->store, "revoked", 1, 2);
        kept = make_certificate(place->store, "kept", 1, 3);
        add_ldevid(place->store, &kept);
        make_enrolment(place->store, "removed", 1);
        commit(place->store);
        place->store = store_close(place->store);

        tamper(place,
               "INSERT INTO device (profile, standing, registered_wall, registered_powered, registered_quality,"
               " last_seen_wall, last_seen_powered, last_seen_quality, generation, attestation_key, tier,"
               " appraised_wall, appraised_powered, appraised_quality, affirmed_wall, affirmed_powered,"
               " affirmed_quality, evidence_last_wall, evidence_last_powered, evidence_last_quality,"
               " window_until_powered, window_until_wall, due, is_conflicted, conflicted_wall, conflicted_powered,"
               " conflicted_quality, is_compromised, compromised_wall, compromised_powered, compromised_quality,"
               " dropped_grants, handshakes, handshakes_without_fs, id) VALUES ('sensor',0, 0,0,0, 0,0,0, 0,x'aabb',0,"
               " 0,0,0, 0,0,0, 0,0,0, 0,0,0,0, 0,0,0, 0, 0,0,0, 0,0,0, 'new');"
               "DELETE FROM device WHERE id = 'removed';"
               "DELETE FROM credential WHERE device = 'removed';"
               "UPDATE device SET standing = 4 WHERE id = 'revoked';"
               "UPDATE device SET standing = 1, due = 5 WHERE id = 'kept'");

        store_here(place, NULL, 0);
        assert_int_equal(certificate_get(place->store, removed.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_CESSATION);
        assert_int_equal(certificate_get(place->store, revoked.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_PRIVILEGE_WITHDRAWN);
        assert_int_equal(certificate_get(place->store, kept.fingerprint, &found), 0);
        assert_int_equal(found.revoked, REVOKED_NOT);
        assert_int_equal(certificate_count(place->store, 1, 0, NULL), 1);
        assert_int_equal(enrolment_count(place->store, ENROLMENT_WAITING), 0);
        assert_int_equal(authority_get(place->store, 1, &authority), 0);
        assert_true(authority.crl_is_stale);
        assert_int_equal(credential_get(place->store, bytes_of(kept.fingerprint), &credential), 0);
        commit(place->store);
}

#define IN_MEMORY(test)   cmocka_unit_test_setup_teardown(test, memory_new, memory_free)
#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, place_new, place_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_MEMORY(a_certificate_comes_back_as_it_was_stored),
                IN_MEMORY(an_unknown_fingerprint_has_no_row),
                IN_MEMORY(a_certificate_without_der_serial_device_or_whole_fingerprint_is_refused),
                IN_MEMORY(the_newest_certificate_that_answered_a_csr_is_found),
                IN_MEMORY(an_idevid_is_remembered_until_it_is_forgotten),
                IN_MEMORY(a_key_in_a_certificate_belongs_to_its_device_even_when_revoked),
                IN_MEMORY(an_attestation_key_belongs_to_its_device),
                IN_MEMORY(a_key_that_waits_for_its_certificate_belongs_to_its_device),
                IN_MEMORY(the_first_reason_and_moment_of_a_revocation_stay),
                IN_MEMORY(a_revocation_makes_the_crl_of_its_generation_stale_and_no_other),
                IN_MEMORY(a_devices_certificates_are_revoked_together),
                IN_MEMORY(the_revoked_of_a_generation_are_walked_by_serial_until_they_run_out),
                IN_MEMORY(a_certificate_counts_until_it_is_revoked_or_its_last_second_is_over),
                IN_MEMORY(certificates_without_end_and_neighbouring_generations_do_not_mix),
                IN_MEMORY(the_count_equals_a_walk_after_any_changes),
                IN_MEMORY(what_ran_out_is_trimmed_once_its_credential_is_gone),
                IN_MEMORY(a_credential_that_was_there_before_its_certificate_keeps_it),
                IN_MEMORY(trimming_takes_no_more_than_asked_and_the_oldest_first),
                IN_MEMORY(a_compromised_keys_certificate_is_never_trimmed),
                IN_MEMORY(a_certificates_credential_has_no_secret_and_needs_none),
                IN_MEMORY(a_new_data_key_has_nothing_to_do_for_certificates),
                IN_MEMORY(a_removed_device_leaves_revoked_certificates_and_nothing_else),
                IN_MEMORY(a_removal_that_is_rolled_back_revokes_nothing),
                IN_MEMORY(a_generation_comes_back_as_it_was_stored),
                IN_MEMORY(a_generation_that_is_not_there_is_neither_changed_nor_removed),
                IN_MEMORY(generations_are_listed_newest_first_without_those_that_ended),
                IN_MEMORY(a_removed_generations_number_is_not_given_again),
                IN_MEMORY(the_parts_of_a_generation_are_kept_apart_replaced_and_removed_with_it),
                IN_MEMORY(an_enrolment_comes_back_as_it_was_stored),
                IN_MEMORY(an_enrolment_that_is_not_there_is_not_changed),
                IN_MEMORY(a_removed_enrolments_number_is_not_given_again),
                IN_MEMORY(the_latest_enrolment_of_a_device_with_a_key_is_found),
                IN_MEMORY(waiting_enrolments_come_due_by_their_time_and_then_their_age),
                IN_MEMORY(enrolments_are_counted_by_state),
                IN_MEMORY(answered_enrolments_go_after_a_while_waiting_ones_never),
                IN_A_FOLDER(a_store_of_the_first_schema_is_migrated_and_keeps_everything),
                IN_A_FOLDER(a_store_of_the_second_schema_is_migrated_and_keeps_everything),
                IN_A_FOLDER(what_the_second_schema_left_unrevoked_is_caught_up_with),
                IN_A_FOLDER(the_first_schemas_statements_work_on_this_store),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

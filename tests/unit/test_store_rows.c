/* SPDX-License-Identifier: Apache-2.0 */

/* The store's rows: devices and their schedule, credentials, challenges, evidence in custody. */

#include "store_support.h"

static int memory_new(void **state) {
        *state = store_in_memory();
        return 0;
}

static int memory_free(void **state) {
        store_close(*state);
        return 0;
}

/* A small generator of its own: the same run every time. */
static uint32_t next_random(uint32_t *seed, uint32_t below) {
        *seed = *seed * 1664525 + 1013904223;
        return (*seed >> 8) % below;
}

/* ---- devices ---- */

static void assert_moment(const struct moment *found, int64_t sec) {
        struct moment expected = at(sec);

        assert_int_equal(found->wall, expected.wall);
        assert_int_equal(found->powered_sec, expected.powered_sec);
        assert_int_equal(found->quality, expected.quality);
        assert_int_equal(found->wall_trusted, expected.wall_trusted);
}

static void a_device_comes_back_as_it_was_stored(void **state) {
        struct store *store = *state;
        struct device device = device_of("d"), found;

        device.standing = STANDING_QUARANTINED;
        device.last_seen = at(3);
        device.generation = 4000000000;
        memset(device.attestation_key, 0xa5, 91);
        device.attestation_key_size = 91;
        device.tier = TIER_WARNING;
        device.appraised = at(4);
        device.affirmed = at(5);
        device.evidence_last = at(6);
        device.window_until_powered = 7;
        device.window_until_wall = 8;
        device.due = DUE_ROTATE | DUE_ANCHORS;
        device.is_conflicted = true;
        device.conflicted = at(9);
        device.is_compromised = true;
        device.compromised = (struct moment){ 10, 11, CLOCK_UNKNOWN, false };
        device.dropped_grants = UINT64_MAX;
        device.handshakes = 12;
        device.handshakes_without_fs = 13;
        assert_int_equal(device_insert(store, &device), 0);
        assert_int_equal(device_get(store, bytes_of("d"), &found), 0);

        assert_string_equal(found.id, "d");
        assert_string_equal(found.profile, "sensor");
        assert_int_equal(found.standing, STANDING_QUARANTINED);
        assert_moment(&found.registered, 1);
        assert_moment(&found.last_seen, 3);
        assert_int_equal(found.generation, 4000000000);
        assert_int_equal(found.attestation_key_size, 91);
        assert_memory_equal(found.attestation_key, device.attestation_key, sizeof found.attestation_key);
        assert_int_equal(found.tier, TIER_WARNING);
        assert_moment(&found.appraised, 4);
        assert_moment(&found.affirmed, 5);
        assert_moment(&found.evidence_last, 6);
        assert_int_equal(found.window_until_powered, 7);
        assert_int_equal(found.window_until_wall, 8);
        assert_int_equal(found.due, DUE_ROTATE | DUE_ANCHORS);
        assert_true(found.is_conflicted);
        assert_moment(&found.conflicted, 9);
        assert_true(found.is_compromised);
        assert_int_equal(found.compromised.wall, 10);
        assert_int_equal(found.compromised.quality, CLOCK_UNKNOWN);
        assert_false(found.compromised.wall_trusted);
        assert_true(found.dropped_grants == UINT64_MAX);
        assert_int_equal(found.handshakes, 12);
        assert_int_equal(found.handshakes_without_fs, 13);
}

static void a_device_is_updated_as_a_whole(void **state) {
        struct store *store = *state;
        struct device device = device_of("d"), found;

        assert_int_equal(device_update(store, &device), -ENOENT);
        add_device(store, "d");
        snprintf(device.profile, sizeof device.profile, "actuator");
        device.standing = STANDING_REVOKED;
        device.handshakes_without_fs = 99;
        assert_int_equal(device_update(store, &device), 0);
        assert_int_equal(device_get(store, bytes_of("d"), &found), 0);
        assert_string_equal(found.profile, "actuator");
        assert_int_equal(found.standing, STANDING_REVOKED);
        assert_int_equal(found.handshakes_without_fs, 99);
}

static void a_second_device_of_one_id_is_refused_and_the_turn_goes_on(void **state) {
        struct store *store = *state;
        struct device device = device_of("d"), found;

        add_device(store, "d");
        snprintf(device.profile, sizeof device.profile, "other");
        assert_int_equal(device_insert(store, &device), -EEXIST);
        add_device(store, "e");
        commit(store);
        assert_int_equal(device_get(store, bytes_of("d"), &found), 0);
        assert_string_equal(found.profile, "sensor");
        assert_int_equal(device_get(store, bytes_of("e"), &found), 0);
}

static void a_device_without_id_or_with_an_oversized_key_is_refused(void **state) {
        struct device device = device_of("");

        assert_int_equal(device_insert(*state, &device), -EINVAL);
        device = device_of("d");
        device.attestation_key_size = ATTESTATION_KEY_MAX + 1;
        assert_int_equal(device_insert(*state, &device), -EINVAL);
        assert_int_equal(device_update(*state, &device), -EINVAL);
        assert_false(store_is_changed(*state));
}

static void whatever_bytes_are_asked_for_find_exactly_their_row(void **state) {
        struct store *store = *state;
        struct device device;
        struct credential credential;
        char many[300];

        memset(many, 'd', sizeof many);
        add_device(store, "d");
        add_credential(store, "d", "kid", 1, "0123456789abcdef");
        assert_int_equal(device_get(store, BYTES("d\0", 2), &device), -ENOENT);
        assert_int_equal(device_get(store, BYTES("", 0), &device), -ENOENT);
        assert_int_equal(device_get(store, BYTES(NULL, 0), &device), -ENOENT);
        assert_int_equal(device_get(store, BYTES("D", 1), &device), -ENOENT);
        assert_int_equal(device_get(store, BYTES("\xff\xfe", 2), &device), -ENOENT);
        assert_int_equal(device_get(store, BYTES(many, sizeof many), &device), -ENOENT);
        assert_int_equal(credential_get(store, BYTES("kid\0x", 5), &credential), -ENOENT);
        assert_int_equal(credential_get(store, BYTES("kid", 3), &credential), 0);
}

static void a_removed_device_takes_its_credentials_challenges_and_schedule_along(void **state) {
        struct store *store = *state;
        struct due_time due = { 1, 2 };
        struct challenge challenge = { .device = "d", .issued = at(1) }, found;
        struct custody custody = { .sequence = 1, .device = "d", .evidence = TEXT("e"), .receipt = TEXT("r") };
        struct credential credential;
        struct backlog backlog;
        uint8_t hash[32] = { 0 };
        uint64_t bad;

        add_device(store, "d");
        add_device(store, "e");
        add_credential(store, "d", "kid-d", 1, "0123456789abcdef");
        add_credential(store, "e", "kid-e", 1, "0123456789abcdef");
        assert_int_equal(challenge_insert(store, &challenge), 0);
        assert_int_equal(schedule_set(store, "d", &due), 0);
        assert_int_equal(custody_insert(store, &custody, hash), 0);
        add_audit(store, "d", 1, "stays");

        assert_int_equal(device_remove(store, "d"), 0);
        assert_int_equal(device_remove(store, "d"), -ENOENT);
        assert_int_equal(credential_get(store, bytes_of("kid-d"), &credential), -ENOENT);
        assert_int_equal(credential_get(store, bytes_of("kid-e"), &credential), 0);
        assert_int_equal(challenge_get(store, BYTES(challenge.nonce, NONCE_BYTES), &found), -ENOENT);
        assert_int_equal(schedule_get(store, "d", &due), -ENOENT);
        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.records, 1);
        assert_int_equal(audit_verify(store, &bad), 0);
}

struct walked {
        char ids[16][DEVICE_ID_MAX + 1];
        size_t count, stop_after;
};

static int walk(void *userdata, const struct device *device) {
        struct walked *walked = userdata;

        memcpy(walked->ids[walked->count++], device->id, sizeof device->id);
        return walked->count == walked->stop_after ? -EINTR : 0;
}

static void walking_goes_in_order_of_id_and_stops_where_told(void **state) {
        struct store *store = *state;
        struct walked walked = { 0 };

        add_device(store, "c");
        add_device(store, "a");
        add_device(store, "d");
        add_device(store, "b");
        assert_int_equal(device_each(store, NULL, SIZE_MAX, walk, &walked), 0);
        assert_int_equal(walked.count, 4);
        assert_string_equal(walked.ids[0], "a");
        assert_string_equal(walked.ids[3], "d");

        walked = (struct walked){ 0 };
        assert_int_equal(device_each(store, "a", 2, walk, &walked), 0);
        assert_int_equal(walked.count, 2);
        assert_string_equal(walked.ids[0], "b");

        walked = (struct walked){ .stop_after = 1 };
        assert_int_equal(device_each(store, NULL, 10, walk, &walked), -EINTR);
        assert_int_equal(walked.count, 1);
}

static void add_up(const struct device *device, struct device_counts *counts) {
        static const enum tier tiers[] = { TIER_NONE, TIER_AFFIRMING, TIER_WARNING, TIER_CONTRAINDICATED };

        counts->total++;
        counts->by_standing[device->standing]++;
        for (size_t i = 0; i < ELEMENTS(tiers); i++)
                counts->by_tier[i] += device->tier == tiers[i];
        counts->rotation_due += (device->due & DUE_ROTATE) != 0;
        counts->attestation_due += (device->due & DUE_ATTEST) != 0;
}

static void counts_follow_every_insert_update_remove_and_rollback(void **state) {
        static const enum tier tiers[] = { TIER_NONE, TIER_AFFIRMING, TIER_WARNING, TIER_CONTRAINDICATED };
        struct store *store = *state;
        struct device devices[20] = { 0 };
        uint32_t seed = 7;

        for (int step = 0; step < 2000; step++) {
                struct device *device = &devices[next_random(&seed, 20)];
                struct device_counts expected = { 0 }, found;
                char id[8];

                snprintf(id, sizeof id, "d%d", (int)(device - devices));
                if (next_random(&seed, 10) == 0) {
                        struct device stray = device_of("stray");

                        assert_int_equal(store_savepoint(store), 0);
                        assert_int_equal(device_insert(store, &stray), 0);
                        assert_int_equal(store_savepoint_rollback(store), 0);
                }
                if (device->id[0] == '\0' || next_random(&seed, 6) > 0) {
                        bool is_new = device->id[0] == '\0';

                        if (is_new)
                                *device = device_of(id);
                        device->standing = (enum standing)next_random(&seed, 6);
                        device->tier = tiers[next_random(&seed, 4)];
                        device->due = next_random(&seed, 8);
                        assert_int_equal(is_new ? device_insert(store, device) : device_update(store, device), 0);
                } else {
                        assert_int_equal(device_remove(store, id), 0);
                        *device = (struct device){ 0 };
                }
                for (size_t i = 0; i < ELEMENTS(devices); i++)
                        if (devices[i].id[0] != '\0')
                                add_up(&devices[i], &expected);
                assert_int_equal(device_count(store, &found), 0);
                assert_memory_equal(&found, &expected, sizeof found);
        }
}

/* ---- the schedule ---- */

static void nothing_scheduled_is_told(void **state) {
        struct due_time due;
        struct moment now = at(1);
        char ids[2][DEVICE_ID_MAX + 1];

        assert_int_equal(schedule_earliest(*state, &due), -ENOENT);
        assert_int_equal(schedule_get(*state, "d", &due), -ENOENT);
        assert_int_equal(schedule_due(*state, &now, 2, ids), 0);
        assert_int_equal(schedule_due(*state, &now, 0, ids), 0);
}

static void the_earliest_due_time_is_of_each_clock_by_itself(void **state) {
        struct store *store = *state;
        struct due_time due;

        assert_int_equal(schedule_set(store, "a", &(struct due_time){ 500, INT64_MAX }), 0);
        assert_int_equal(schedule_set(store, "b", &(struct due_time){ INT64_MAX, 30 }), 0);
        assert_int_equal(schedule_set(store, "c", &(struct due_time){ 900, 40 }), 0);
        assert_int_equal(schedule_earliest(store, &due), 0);
        assert_int_equal(due.wall, 500);
        assert_int_equal(due.powered_sec, 30);
        assert_int_equal(schedule_set(store, "a", &(struct due_time){ 1000, 1000 }), 0);
        assert_int_equal(schedule_earliest(store, &due), 0);
        assert_int_equal(due.wall, 900);
}

struct planned {
        char id[DEVICE_ID_MAX + 1];
        int64_t by;
        bool is_due;
};

static int longest_planned_first(const void *a, const void *b) {
        const struct planned *x = a, *y = b;

        if (x->by != y->by)
                return x->by > y->by ? -1 : 1;
        return strcmp(x->id, y->id);
}

static int64_t random_due(uint32_t *seed) {
        return next_random(seed, 4) == 0 ? INT64_MAX : (int64_t)next_random(seed, 1000);
}

static void what_is_due_comes_longest_due_first_by_whichever_clock(void **state) {
        struct store *store = *state;
        uint32_t seed = 3;

        for (int round = 0; round < 200; round++) {
                struct planned planned[30] = { 0 };
                struct moment now = { next_random(&seed, 1000), next_random(&seed, 1000), CLOCK_HELD, true };
                char found[30][DEVICE_ID_MAX + 1];
                size_t limit = 1 + next_random(&seed, 30), due = 0;
                ssize_t n;

                for (size_t i = 0; i < ELEMENTS(planned); i++) {
                        struct due_time time = { random_due(&seed), random_due(&seed) };
                        int64_t by_wall = now.wall - time.wall, by_powered = now.powered_sec - time.powered_sec;

                        snprintf(planned[i].id, sizeof planned[i].id, "d%zu", i);
                        planned[i].by = by_wall > by_powered ? by_wall : by_powered;
                        planned[i].is_due = planned[i].by >= 0;
                        due += planned[i].is_due;
                        assert_int_equal(schedule_set(store, planned[i].id, &time), 0);
                }
                qsort(planned, ELEMENTS(planned), sizeof planned[0], longest_planned_first);
                n = schedule_due(store, &now, limit, found);
                assert_int_equal(n, due < limit ? due : limit);
                for (ssize_t i = 0; i < n; i++)
                        assert_string_equal(found[i], planned[i].id);
        }
}

/* ---- credentials ---- */

static void a_credential_comes_back_as_it_was_stored_and_updated(void **state) {
        struct store *store = *state;
        struct credential credential = credential_of("d", "kid", 7), found;
        struct secret secret = secret_of("0123456789abcdef");

        credential.state = KEY_PRE_ACTIVE;
        snprintf(credential.predecessor, sizeof credential.predecessor, "before");
        credential.session = UINT64_MAX - 5;
        assert_int_equal(credential_insert(store, &credential, &secret), 0);
        assert_int_equal(credential_insert(store, &credential, &secret), -EEXIST);
        credential.state = KEY_RETIRING;
        credential.session = 0;
        credential.proven = at(3);
        credential.confirmed = at(4);
        credential.superseded = at(5);
        credential.ended = at(6);
        credential.last_used = at(7);
        credential.handshakes = 8;
        assert_int_equal(credential_update(store, &credential), 0);
        assert_int_equal(credential_get(store, bytes_of("kid"), &found), 0);

        assert_string_equal(found.identity, "kid");
        assert_string_equal(found.device, "d");
        assert_string_equal(found.predecessor, "before");
        assert_int_equal(found.kind, CREDENTIAL_PSK);
        assert_int_equal(found.state, KEY_RETIRING);
        assert_int_equal(found.generation, 7);
        assert_true(found.session == 0);
        assert_moment(&found.issued, 2);
        assert_moment(&found.proven, 3);
        assert_moment(&found.confirmed, 4);
        assert_moment(&found.superseded, 5);
        assert_moment(&found.ended, 6);
        assert_moment(&found.last_used, 7);
        assert_int_equal(found.handshakes, 8);
}

static void an_update_cannot_change_what_the_seal_is_bound_to(void **state) {
        struct store *store = *state;
        struct credential credential = credential_of("d", "kid", 1), changed;
        struct secret secret;

        add_credential(store, "d", "kid", 1, "0123456789abcdef");
        changed = credential;
        changed.generation = 2;
        assert_int_equal(credential_update(store, &changed), -EINVAL);
        changed = credential;
        changed.kind = CREDENTIAL_FACTORY;
        assert_int_equal(credential_update(store, &changed), -EINVAL);
        changed = credential;
        snprintf(changed.device, sizeof changed.device, "e");
        assert_int_equal(credential_update(store, &changed), -EINVAL);
        changed = credential;
        snprintf(changed.identity, sizeof changed.identity, "other");
        assert_int_equal(credential_update(store, &changed), -ENOENT);
        assert_int_equal(credential_secret(store, "kid", &secret), 0);
}

static void a_credential_without_identity_is_refused(void **state) {
        struct credential credential = credential_of("d", "", 1);
        struct secret secret = secret_of("0123456789abcdef");

        assert_int_equal(credential_insert(*state, &credential, &secret), -EINVAL);
}

static void a_devices_credentials_are_listed_newest_first_without_the_destroyed(void **state) {
        struct store *store = *state;
        struct credential credential, list[CREDENTIALS_MAX];

        add_credential(store, "d", "g1", 1, "0123456789abcdef");
        add_credential(store, "d", "g3", 3, "0123456789abcdef");
        add_credential(store, "d", "g2", 2, "0123456789abcdef");
        add_credential(store, "d", "g3b", 3, "0123456789abcdef");
        add_credential(store, "e", "e9", 9, "0123456789abcdef");
        credential = credential_of("d", "g2", 2);
        credential.state = KEY_DESTROYED;
        assert_int_equal(credential_update(store, &credential), 0);

        assert_int_equal(credential_list(store, "d", list, CREDENTIALS_MAX), 3);
        assert_string_equal(list[0].identity, "g3b"); /* of one generation: the later first */
        assert_string_equal(list[1].identity, "g3");
        assert_string_equal(list[2].identity, "g1");
        assert_int_equal(credential_list(store, "d", list, 1), 1);
        assert_int_equal(credential_list(store, "nobody", list, CREDENTIALS_MAX), 0);
}

static void a_removed_credential_is_gone(void **state) {
        struct credential credential;

        add_credential(*state, "d", "kid", 1, "0123456789abcdef");
        assert_int_equal(credential_remove(*state, "kid"), 0);
        assert_int_equal(credential_remove(*state, "kid"), -ENOENT);
        assert_int_equal(credential_get(*state, bytes_of("kid"), &credential), -ENOENT);
}

static void asking_sessions_of_all_credentials_are_forgotten_at_once(void **state) {
        struct store *store = *state;
        struct credential credential = credential_of("d", "kid", 1);

        add_credential(store, "d", "kid", 1, "0123456789abcdef");
        credential.session = 77;
        assert_int_equal(credential_update(store, &credential), 0);
        assert_int_equal(credential_forget_sessions(store), 0);
        assert_int_equal(credential_get(store, bytes_of("kid"), &credential), 0);
        assert_int_equal(credential.session, 0);
}

/* ---- challenges ---- */

static struct challenge challenge_of(const char *device, uint8_t number, int64_t sec) {
        struct challenge challenge = { .issued = at(sec), .lives_sec = 300 };

        memset(challenge.nonce, number, sizeof challenge.nonce);
        snprintf(challenge.device, sizeof challenge.device, "%s", device);
        return challenge;
}

static bool has_challenge(struct store *store, uint8_t number) {
        struct challenge wanted = challenge_of("", number, 0), found;

        return challenge_get(store, BYTES(wanted.nonce, NONCE_BYTES), &found) == 0;
}

static void a_challenge_comes_back_with_what_spent_it(void **state) {
        struct store *store = *state;
        struct challenge challenge = challenge_of("d", 1, 5), found;

        assert_int_equal(challenge_update(store, &challenge), -ENOENT);
        assert_int_equal(challenge_insert(store, &challenge), 0);
        assert_int_equal(challenge_insert(store, &challenge), -EEXIST);
        challenge.is_spent = true;
        memset(challenge.spent_digest, 9, sizeof challenge.spent_digest);
        challenge.sequence = 44;
        challenge.tier = TIER_WARNING;
        assert_int_equal(challenge_update(store, &challenge), 0);
        assert_int_equal(challenge_get(store, BYTES(challenge.nonce, NONCE_BYTES), &found), 0);
        assert_string_equal(found.device, "d");
        assert_moment(&found.issued, 5);
        assert_int_equal(found.lives_sec, 300);
        assert_true(found.is_spent);
        assert_memory_equal(found.spent_digest, challenge.spent_digest, 32);
        assert_int_equal(found.sequence, 44);
        assert_int_equal(found.tier, TIER_WARNING);
        assert_int_equal(challenge_get(store, BYTES(challenge.nonce, 31), &found), -ENOENT);
}

static void of_a_devices_unspent_challenges_the_oldest_go_beyond_the_bound(void **state) {
        struct store *store = *state;
        struct challenge challenge;

        for (uint8_t i = 1; i <= 5; i++) {
                challenge = challenge_of("d", i, i);
                challenge.is_spent = i == 1;
                assert_int_equal(challenge_insert(store, &challenge), 0);
        }
        challenge = challenge_of("e", 9, 0);
        assert_int_equal(challenge_insert(store, &challenge), 0);
        assert_int_equal(challenge_trim(store, "d", 8), 4);
        assert_int_equal(challenge_trim(store, "d", 2), 2);
        assert_true(has_challenge(store, 1)); /* spent: it answers a repeated request */
        assert_false(has_challenge(store, 2));
        assert_false(has_challenge(store, 3));
        assert_true(has_challenge(store, 4));
        assert_true(has_challenge(store, 5));
        assert_true(has_challenge(store, 9));
}

static void challenges_go_by_powered_age(void **state) {
        struct store *store = *state;
        struct moment now = at(1000);
        struct challenge challenge;

        for (uint8_t i = 1; i <= 4; i++) {
                challenge = challenge_of("d", i, i * 200);
                assert_int_equal(challenge_insert(store, &challenge), 0);
        }
        assert_int_equal(challenge_expire(store, &now, 500), 2);
        assert_false(has_challenge(store, 2));
        assert_true(has_challenge(store, 3));
}

/* ---- custody ---- */

static void take(struct store *store, uint64_t sequence, const char *evidence) {
        struct custody custody = {
                .sequence = sequence,
                .device = "d",
                .received = at((int64_t)sequence),
                .content_format = 263,
                .tier = TIER_AFFIRMING,
                .receipt = TEXT("receipt"),
                .evidence = bytes_of(evidence),
        };
        uint8_t hash[32];

        memset(custody.nonce, (int)sequence, sizeof custody.nonce);
        memset(hash, (int)sequence, sizeof hash);
        assert_int_equal(custody_insert(store, &custody, hash), 0);
}

struct record {
        uint64_t sequence;
        enum delivery delivery;
        size_t receipt_size, evidence_size;
        struct custody custody;
};

struct records {
        struct record list[16];
        size_t count, stop_after;
};

static int record_it(void *userdata, const struct custody *custody) {
        struct records *records = userdata;

        records->list[records->count++] = (struct record){ custody->sequence, custody->delivery, custody->receipt.size,
                                                           custody->evidence.size, *custody };
        return records->count == records->stop_after ? 7 : 0;
}

static void evidence_is_numbered_without_gaps_and_moves_the_receipt_chain(void **state) {
        struct store *store = *state;
        struct custody custody = { .sequence = 2, .device = "d" };
        struct store_meta meta;
        uint8_t hash[32] = { 0 }, second[32];

        assert_int_equal(custody_insert(store, &custody, hash), -EINVAL);
        custody.sequence = 0;
        assert_int_equal(custody_insert(store, &custody, hash), -EINVAL);
        take(store, 1, "one");
        take(store, 2, "two");
        custody.sequence = 1;
        assert_int_equal(custody_insert(store, &custody, hash), -EEXIST);
        assert_int_equal(store_meta_get(store, &meta), 0);
        assert_int_equal(meta.next_sequence, 3);
        memset(second, 2, sizeof second);
        assert_memory_equal(meta.last_receipt_hash, second, 32);
}

static void waiting_records_come_in_order_with_all_they_hold(void **state) {
        struct store *store = *state;
        struct records records = { 0 };

        take(store, 1, "one");
        take(store, 2, "number two");
        take(store, 3, "three");
        assert_int_equal(custody_delivered(store, 1), 0);
        assert_int_equal(custody_waiting(store, 0, 10, record_it, &records), 2);
        assert_int_equal(records.list[0].sequence, 2);
        assert_int_equal(records.list[0].receipt_size, 7);
        assert_int_equal(records.list[0].evidence_size, 10);
        assert_int_equal(records.list[0].delivery, DELIVERY_WAITING);
        assert_string_equal(records.list[0].custody.device, "d");
        assert_moment(&records.list[0].custody.received, 2);
        assert_int_equal(records.list[0].custody.content_format, 263);
        assert_int_equal(records.list[0].custody.nonce[31], 2);
        assert_int_equal(records.list[0].custody.tier, TIER_AFFIRMING);
        assert_int_equal(records.list[1].sequence, 3);

        records = (struct records){ 0 };
        assert_int_equal(custody_waiting(store, 2, 10, record_it, &records), 1);
        assert_int_equal(custody_waiting(store, UINT64_MAX, 10, record_it, &records), 0);
        records = (struct records){ .stop_after = 1 };
        assert_int_equal(custody_waiting(store, 0, 10, record_it, &records), 7);
}

static void a_delivered_record_leaves_its_row_and_is_delivered_once(void **state) {
        struct store *store = *state;
        struct records records = { 0 };
        struct backlog backlog;

        take(store, 1, "one");
        assert_int_equal(custody_delivered(store, 1), 0);
        assert_int_equal(custody_delivered(store, 1), 0); /* upstream may be told twice */
        assert_int_equal(custody_delivered(store, 2), -ENOENT);
        assert_int_equal(custody_delivered(store, 0), -ENOENT);
        assert_int_equal(custody_get(store, 1, record_it, &records), 0);
        assert_int_equal(records.list[0].delivery, DELIVERY_DELIVERED);
        assert_int_equal(records.list[0].evidence_size, 0);
        assert_int_equal(records.list[0].receipt_size, 0);
        assert_string_equal(records.list[0].custody.device, "d");
        assert_int_equal(custody_get(store, 2, record_it, &records), -ENOENT);
        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.delivered, 1);
}

static void a_parked_record_still_delivers_its_receipt_and_keeps_its_evidence_here(void **state) {
        struct store *store = *state;
        struct records records = { 0 };
        struct backlog backlog;

        take(store, 1, "refused upstream");
        assert_int_equal(custody_parked(store, 9, 400, "no"), -ENOENT);
        assert_int_equal(custody_parked(store, 1, 422, "no such profile"), 0);
        assert_int_equal(custody_waiting(store, 0, 10, record_it, &records), 1);
        assert_int_equal(records.list[0].delivery, DELIVERY_PARKED);
        assert_int_equal(records.list[0].receipt_size, 7);
        assert_int_equal(records.list[0].evidence_size, 0);

        assert_int_equal(custody_delivered(store, 1), 0);
        records = (struct records){ 0 };
        assert_int_equal(custody_waiting(store, 0, 10, record_it, &records), 0);
        assert_int_equal(custody_get(store, 1, record_it, &records), 0);
        assert_int_equal(records.list[0].delivery, DELIVERY_PARKED);
        assert_int_equal(records.list[0].evidence_size, 16);
        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.parked, 1);
        assert_int_equal(backlog.delivered, 0);
        assert_int_equal(backlog.records, 0);
        assert_int_equal(backlog.bytes, 0);
}

static void the_backlog_is_counted_as_it_is(void **state) {
        struct store *store = *state;
        struct backlog backlog;

        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.oldest_wall, 0);
        take(store, 1, "1");
        take(store, 2, "22");
        take(store, 3, "333");
        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.records, 3);
        assert_int_equal(backlog.bytes, 3 * 7 + 6);
        assert_int_equal(backlog.oldest_wall, at(1).wall);
        assert_int_equal(custody_delivered(store, 1), 0);
        assert_int_equal(custody_parked(store, 2, 400, ""), 0);
        assert_int_equal(custody_parked(store, 2, 400, ""), 0);
        assert_int_equal(custody_backlog(store, &backlog), 0);
        assert_int_equal(backlog.records, 2);
        assert_int_equal(backlog.bytes, 2 * 7 + 3);
        assert_int_equal(backlog.oldest_wall, at(2).wall);
        assert_int_equal(backlog.parked, 1);
}

static void rows_of_delivered_records_are_bounded(void **state) {
        struct store *store = *state;
        struct records records = { 0 };

        for (uint64_t i = 1; i <= 10300; i++) {
                take(store, i, "e");
                assert_int_equal(custody_delivered(store, i), 0);
        }
        assert_int_equal(custody_get(store, 300, record_it, &records), -ENOENT);
        assert_int_equal(custody_get(store, 302, record_it, &records), 0);
}

static void parked_evidence_is_bounded_oldest_first(void **state) {
        struct store *store = *state;
        struct records records = { 0 };
        char *evidence = xcalloc(1, 1 << 20);

        memset(evidence, 'e', (1 << 20) - 1);
        for (uint64_t i = 1; i <= 20; i++) {
                take(store, i, evidence);
                assert_int_equal(custody_parked(store, i, 413, "too large"), 0);
        }
        /* Waiting for their receipts all stay; after that the newest 16 MiB do. */
        assert_int_equal(custody_get(store, 1, record_it, &records), 0);
        for (uint64_t i = 1; i <= 20; i++)
                assert_int_equal(custody_delivered(store, i), 0);
        assert_int_equal(custody_get(store, 4, record_it, &records), -ENOENT);
        assert_int_equal(custody_get(store, 5, record_it, &records), 0);
        free(evidence);
}

#define IN_MEMORY(test) cmocka_unit_test_setup_teardown(test, memory_new, memory_free)

int main(void) {
        const struct CMUnitTest tests[] = {
                IN_MEMORY(a_device_comes_back_as_it_was_stored),
                IN_MEMORY(a_device_is_updated_as_a_whole),
                IN_MEMORY(a_second_device_of_one_id_is_refused_and_the_turn_goes_on),
                IN_MEMORY(a_device_without_id_or_with_an_oversized_key_is_refused),
                IN_MEMORY(whatever_bytes_are_asked_for_find_exactly_their_row),
                IN_MEMORY(a_removed_device_takes_its_credentials_challenges_and_schedule_along),
                IN_MEMORY(walking_goes_in_order_of_id_and_stops_where_told),
                IN_MEMORY(counts_follow_every_insert_update_remove_and_rollback),
                IN_MEMORY(nothing_scheduled_is_told),
                IN_MEMORY(the_earliest_due_time_is_of_each_clock_by_itself),
                IN_MEMORY(what_is_due_comes_longest_due_first_by_whichever_clock),
                IN_MEMORY(a_credential_comes_back_as_it_was_stored_and_updated),
                IN_MEMORY(an_update_cannot_change_what_the_seal_is_bound_to),
                IN_MEMORY(a_credential_without_identity_is_refused),
                IN_MEMORY(a_devices_credentials_are_listed_newest_first_without_the_destroyed),
                IN_MEMORY(a_removed_credential_is_gone),
                IN_MEMORY(asking_sessions_of_all_credentials_are_forgotten_at_once),
                IN_MEMORY(a_challenge_comes_back_with_what_spent_it),
                IN_MEMORY(of_a_devices_unspent_challenges_the_oldest_go_beyond_the_bound),
                IN_MEMORY(challenges_go_by_powered_age),
                IN_MEMORY(evidence_is_numbered_without_gaps_and_moves_the_receipt_chain),
                IN_MEMORY(waiting_records_come_in_order_with_all_they_hold),
                IN_MEMORY(a_delivered_record_leaves_its_row_and_is_delivered_once),
                IN_MEMORY(a_parked_record_still_delivers_its_receipt_and_keeps_its_evidence_here),
                IN_MEMORY(the_backlog_is_counted_as_it_is),
                IN_MEMORY(rows_of_delivered_records_are_bounded),
                IN_MEMORY(parked_evidence_is_bounded_oldest_first),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

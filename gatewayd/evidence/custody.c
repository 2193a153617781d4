/* SPDX-License-Identifier: Apache-2.0 */

/* Custody: for each accepted piece of evidence a receipt, signed by the gateway and chained to the one
 * before, stored with the evidence in one turn. The chain shows upstream that nothing was dropped,
 * reordered or dated back while the gateway was offline. */

#include <errno.h>

#include <openssl/ec.h>
#include <openssl/sha.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/evidence/evidence.h"
#include "gatewayd/format.h"
#include "gatewayd/keys/cose.h"

#define RECEIPT_KEY_NAME "receipt-key"

/* When a device is told to come again: the backlog drains while there is an uplink, and else not. */
#define FULL_RETRY_SEC 600
/* With the backlog half full, a device may give evidence this many times as often as its profile asks. */
#define OFTEN_FACTOR    4
#define OFTEN_FLOOR_SEC 60

/* ---- the custodian ---- */

static int key_load(struct turn *turn, EVP_PKEY **ret) {
        _cleanup_(buffer_free) struct buffer der = {};
        const unsigned char *at;
        int r;

        r = store_own_secret_get(turn->store, RECEIPT_KEY_NAME, &der);
        if (r < 0)
                return r;
        at = der.data;
        *ret = d2i_AutoPrivateKey(NULL, &at, (long)der.size);
        return *ret ? 0 : -EBADMSG;
}

static int key_keep(struct turn *turn, EVP_PKEY *key) {
        _cleanup_(buffer_free) struct buffer der = {};
        int size = i2d_PrivateKey(key, NULL);
        uint8_t *at;

        if (size <= 0)
                return -EIO;
        at = buffer_reserve(&der, (size_t)size);
        der.size = (size_t)i2d_PrivateKey(key, &at);
        return store_own_secret_put(turn->store, RECEIPT_KEY_NAME, buffer_bytes(&der));
}

static int key_make(struct turn *turn, EVP_PKEY **ret) {
        EVP_PKEY *key = EVP_EC_gen("P-256");
        int r = key ? key_keep(turn, key) : -EIO;

        if (r < 0) {
                EVP_PKEY_free(key);
                return r;
        }
        *ret = key;
        return 0;
}

/* The kid is the beginning of SHA-256 over the SubjectPublicKeyInfo: whoever pins the key can tell. */
static int key_id(EVP_PKEY *key, uint8_t *kid, size_t kid_size) {
        uint8_t digest[SHA256_DIGEST_LENGTH], *spki = NULL;
        int size = i2d_PUBKEY(key, &spki);

        if (size <= 0)
                return -EIO;
        SHA256(spki, (size_t)size, digest);
        OPENSSL_free(spki);
        memcpy(kid, digest, kid_size);
        return 0;
}

int custodian_open(struct turn *turn, const char *gateway_id, struct custodian *ret) {
        struct custodian custodian = { .gateway_id = gateway_id };
        int r;

        r = key_load(turn, &custodian.key);
        if (r == -ENOENT)
                r = key_make(turn, &custodian.key);
        if (r >= 0)
                r = key_id(custodian.key, custodian.kid, sizeof custodian.kid);
        if (r < 0) {
                custodian_close(&custodian);
                return r;
        }
        *ret = custodian;
        return 0;
}

void custodian_close(struct custodian *custodian) {
        EVP_PKEY_free(custodian->key);
        *custodian = (struct custodian){};
}

void custodian_kid_text(const struct custodian *custodian, char to[2 * RECEIPT_KID_BYTES + 1]) {
        bytes_to_hex(BYTES(custodian->kid, sizeof custodian->kid), to);
}

/* The store's key is the one that signs, whatever became of the turn that made it. */
static int custodian_follow(struct turn *turn, struct custodian *custodian) {
        char kid[2 * RECEIPT_KID_BYTES + 1];
        struct custodian fresh;
        struct own_key row;
        int r = own_key_get(turn->store, OWN_KEY_RECEIPT, &row);

        if (r < 0)
                return r == -ENOENT ? 0 : r; /* an older gatewayd's first: it had no other */
        custodian_kid_text(custodian, kid);
        if (strcmp(kid, row.id) == 0)
                return 0;
        r = custodian_open(turn, custodian->gateway_id, &fresh);
        if (r < 0)
                return r;
        custodian_close(custodian);
        *custodian = fresh;
        return 0;
}

/* ---- room ---- */

static int check_room(const struct turn *turn, const struct backlog *backlog, size_t size, struct problem *problem) {
        const struct config *config = turn->config;
        int r;

        if (backlog->records < (uint64_t)config->backlog_records &&
            backlog->bytes + size <= (uint64_t)config->backlog_bytes)
                return 0;
        r = problem_set(problem, CODE_UNAVAILABLE, ENOSPC, "backlog full",
                        "%llu pieces of evidence wait for the uplink; keep this one and come again",
                        (unsigned long long)backlog->records);
        if (problem)
                problem->max_age_sec = FULL_RETRY_SEC;
        return r;
}

static bool is_half_full(const struct turn *turn, const struct backlog *backlog) {
        return backlog->records >= (uint64_t)turn->config->backlog_records / 2 ||
               backlog->bytes >= (uint64_t)turn->config->backlog_bytes / 2;
}

int custody_admit(struct turn *turn, const struct device *device, const struct profile *profile, size_t size,
                  struct problem *problem) {
        int64_t interval = profile->attest_every_sec / OFTEN_FACTOR, age;
        struct backlog backlog;
        int r;

        r = custody_backlog(turn->store, &backlog);
        if (r < 0)
                return r;
        r = check_room(turn, &backlog, size, problem);
        if (r < 0 || !is_half_full(turn, &backlog) || !moment_is_set(&device->evidence_last))
                return r;
        if (interval < OFTEN_FLOOR_SEC)
                interval = OFTEN_FLOOR_SEC;
        age = moment_age(&turn->now, &device->evidence_last);
        if (age >= interval)
                return 0;
        r = problem_set(problem, CODE_TOO_MANY_REQUESTS, EBUSY, "too often",
                        "room for evidence is scarce while the uplink is away; come again in %lld seconds",
                        (long long)(interval - age));
        if (problem)
                problem->max_age_sec = interval - age;
        return r;
}

/* ---- receipts ---- */

/* The claims of draft-ietf-rats-ar4si that are judged here. */
static void put_vector(const struct appraisal *appraisal, struct buffer *to) {
        const struct {
                int claim;
                int8_t value;
        } vector[] = {
                { 0, appraisal->instance_identity },
                { 1, appraisal->configuration },
                { 2, appraisal->executables },
                { 4, appraisal->hardware },
        };
        size_t count = 0;

        for (size_t i = 0; i < ELEMENTS(vector); i++)
                count += vector[i].value != 0;
        cbor_put_map(to, count);
        for (size_t i = 0; i < ELEMENTS(vector); i++) {
                if (vector[i].value == 0)
                        continue;
                cbor_put_int(to, vector[i].claim);
                cbor_put_int(to, vector[i].value);
        }
}

static void put_appraisal(const struct appraisal *appraisal, struct buffer *to) {
        cbor_put_map(to, 3);
        cbor_put_int(to, 0);
        cbor_put_int(to, appraisal->tier);
        cbor_put_int(to, 1);
        if (appraisal->is_appraised)
                put_vector(appraisal, to);
        else
                cbor_put_null(to);
        cbor_put_int(to, 2);
        cbor_put_text(to, bytes_of(appraisal->reason));
}

static void put_claims(const struct custody *custody, const struct custodian *custodian, const struct store_meta *meta,
                       bool has_challenge, const struct appraisal *appraisal, struct buffer *to) {
        uint8_t digest[SHA256_DIGEST_LENGTH];

        SHA256(custody->evidence.data, custody->evidence.size, digest);
        cbor_put_map(to, 12);
        cbor_put_int(to, RECEIPT_GATEWAY);
        cbor_put_text(to, bytes_of(custodian->gateway_id));
        cbor_put_int(to, RECEIPT_INCARNATION);
        cbor_put_bytes(to, BYTES(meta->incarnation, sizeof meta->incarnation));
        cbor_put_int(to, RECEIPT_SEQUENCE);
        cbor_put_uint(to, custody->sequence);
        cbor_put_int(to, RECEIPT_DEVICE);
        cbor_put_text(to, bytes_of(custody->device));
        cbor_put_int(to, RECEIPT_RECEIVED);
        cbor_put_int(to, custody->received.wall);
        cbor_put_int(to, RECEIPT_QUALITY);
        cbor_put_int(to, custody->received.quality);
        cbor_put_int(to, RECEIPT_NONCE);
        cbor_put_bytes(to, BYTES(custody->nonce, has_challenge ? sizeof custody->nonce : 0));
        cbor_put_int(to, RECEIPT_FORMAT);
        cbor_put_int(to, custody->content_format);
        cbor_put_int(to, RECEIPT_DIGEST);
        cbor_put_bytes(to, BYTES(digest, sizeof digest));
        cbor_put_int(to, RECEIPT_APPRAISAL);
        put_appraisal(appraisal, to);
        cbor_put_int(to, RECEIPT_PREVIOUS);
        cbor_put_bytes(to, BYTES(meta->last_receipt_hash, sizeof meta->last_receipt_hash));
        cbor_put_int(to, RECEIPT_POWERED);
        cbor_put_int(to, custody->received.powered_sec);
}

static int insert_signed(struct turn *turn, const struct custodian *custodian, struct custody *custody,
                         const struct store_meta *meta, bool has_challenge, const struct appraisal *appraisal) {
        _cleanup_(buffer_free) struct buffer claims = {}, receipt = {};
        uint8_t hash[SHA256_DIGEST_LENGTH];
        int r;

        put_claims(custody, custodian, meta, has_challenge, appraisal, &claims);
        r = cose_sign1_make(custodian->key, BYTES(custodian->kid, sizeof custodian->kid), buffer_bytes(&claims),
                            &receipt);
        if (r < 0)
                return r;
        SHA256(receipt.data, receipt.size, hash);
        custody->receipt = buffer_bytes(&receipt);
        return custody_insert(turn->store, custody, hash);
}

int custody_record(struct turn *turn, struct custodian *custodian, const char *device, int32_t content_format,
                   const struct challenge *challenge, struct bytes evidence, const struct appraisal *appraisal,
                   uint64_t *ret_sequence, struct problem *problem) {
        struct custody custody = {
                .received = turn->now,
                .content_format = content_format,
                .tier = (uint8_t)appraisal->tier,
                .delivery = DELIVERY_WAITING,
                .evidence = evidence,
        };
        struct backlog backlog;
        struct store_meta meta;
        int r;

        r = custody_backlog(turn->store, &backlog);
        if (r < 0)
                return r;
        r = check_room(turn, &backlog, evidence.size, problem);
        if (r < 0)
                return r;
        r = store_meta_get(turn->store, &meta);
        if (r >= 0)
                r = custodian_follow(turn, custodian);
        if (r < 0)
                return r;

        custody.sequence = meta.next_sequence;
        snprintf(custody.device, sizeof custody.device, "%s", device);
        if (challenge)
                memcpy(custody.nonce, challenge->nonce, sizeof custody.nonce);
        r = insert_signed(turn, custodian, &custody, &meta, challenge != NULL, appraisal);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_RELAY, device, NULL);
        *ret_sequence = custody.sequence;
        return 0;
}

/* ---- succession ---- */

/* No device has an empty id: evidence that anybody sends cannot look like this. */
static int record_succession(struct turn *turn, const struct custodian *next, uint64_t *ret_sequence) {
        static const struct appraisal appraisal = { .reason = "the next receipt key" };
        _cleanup_(buffer_free) struct buffer evidence = {};
        struct custody custody = {
                .received = turn->now,
                .content_format = FORMAT_COSE_KEY,
                .tier = TIER_NONE,
                .delivery = DELIVERY_WAITING,
        };
        struct store_meta meta;
        int r = cose_key_public(next->key, BYTES(next->kid, sizeof next->kid), &evidence);

        if (r >= 0)
                r = store_meta_get(turn->store, &meta);
        if (r < 0)
                return r;
        custody.evidence = buffer_bytes(&evidence);
        custody.sequence = *ret_sequence = meta.next_sequence;
        return insert_signed(turn, turn->custodian, &custody, &meta, false, &appraisal);
}

int custody_succeed(struct turn *turn, struct own_key *row, uint64_t *ret_sequence) {
        struct custodian next = { .gateway_id = turn->custodian->gateway_id };
        int r = custodian_follow(turn, turn->custodian);

        if (r < 0)
                return r;
        next.key = EVP_EC_gen("P-256");
        r = next.key ? key_id(next.key, next.kid, sizeof next.kid) : -EIO;
        if (r >= 0)
                r = record_succession(turn, &next, ret_sequence);
        if (r >= 0)
                r = key_keep(turn, next.key);
        if (r >= 0) {
                row->generation++;
                row->made = turn->now;
                row->told = 0;
                custodian_kid_text(&next, row->id);
                r = own_key_put(turn->store, row);
        }
        custodian_close(&next);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_RELAY, NULL, NULL);
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The CA's private keys: sealed in the store as own secret "ca-key-N", or used where they are, in a token or
 * a TPM. Open keys stay in core's memory beside the certificate they belong to. A key that is away (a token
 * that was pulled out) stops nobody but those who want a signature, and is tried again. */

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/keys/key_uri.h"

/* A key that is away is tried again after so many powered-on seconds; devices come again a little later. */
#define AWAY_RETRY_SEC   15
#define AWAY_MAX_AGE_SEC 60

struct issuer *issuer_new(void) {
        struct issuer *issuer = xcalloc(1, sizeof *issuer);

        issuer->is_dirty = issuer->has_stale_crl = true;
        return issuer;
}

static void slot_clear(struct issuer_slot *slot) {
        EVP_PKEY_free(slot->signer.key);
        X509_free(slot->signer.certificate);
        buffer_free(&slot->der);
        *slot = (struct issuer_slot){ 0 };
}

struct issuer *issuer_free(struct issuer *issuer) {
        if (!issuer)
                return NULL;
        for (size_t i = 0; i < ELEMENTS(issuer->slots); i++)
                slot_clear(&issuer->slots[i]);
        free(issuer);
        return NULL;
}

void authority_touch(struct turn *turn) {
        if (turn->issuer)
                turn->issuer->is_dirty = true;
}

/* ---- keys as bytes ---- */

int key_write(EVP_PKEY *key, struct buffer *to) {
        PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
        int size = info ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : -1;
        uint8_t *at;

        if (size > 0) {
                at = buffer_reserve(to, (size_t)size);
                size = i2d_PKCS8_PRIV_KEY_INFO(info, &at);
        }
        PKCS8_PRIV_KEY_INFO_free(info); /* wipes */
        if (size <= 0)
                return -EIO;
        to->size += (size_t)size;
        return 0;
}

EVP_PKEY *key_read(struct bytes der) {
        const unsigned char *at = der.data;

        return der.size > 0 ? d2i_AutoPrivateKey(NULL, &at, (long)der.size) : NULL;
}

static void secret_name(uint32_t generation, char to[32]) {
        snprintf(to, 32, "ca-key-%u", generation);
}

bool key_is_sealed(const char *key_uri) {
        return !key_uri || !key_uri[0] || strcmp(key_uri, KEY_IN_STORE) == 0;
}

static int key_seal(struct turn *turn, uint32_t generation, EVP_PKEY *key, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        char name[32];
        int r = key_write(key, &der);

        if (r < 0)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "CA key",
                                   "this key cannot be taken out to be sealed");
        secret_name(generation, name);
        return store_own_secret_put(turn->store, name, buffer_bytes(&der));
}

static EVP_PKEY *key_make(const struct ca_config *config) {
        switch (config->key_type) {
        case CA_KEY_P384:
                return x509_key_new(X509_KEY_P384);
        case CA_KEY_ED25519:
                return x509_key_new(X509_KEY_ED25519);
        case CA_KEY_P256:
                break;
        }
        return x509_key_new(X509_KEY_P256);
}

/* A generation without a key of its own would replace nothing. */
static int check_unused(struct turn *turn, const char *key_uri, struct problem *problem) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        for (ssize_t i = 0; i < n; i++)
                if (strcmp(list[i].key_uri, key_uri) == 0)
                        return problem_set(problem, CODE_CONFLICT, EEXIST, "CA key",
                                           "generation %u has this key; the next one needs a key of its own",
                                           list[i].generation);
        return n < 0 ? (int)n : 0;
}

int authority_key_new(struct turn *turn, uint32_t generation, const char *key_uri, char *ret_uri, EVP_PKEY **ret,
                      struct problem *problem) {
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        bool is_sealed = key_is_sealed(key_uri) || key_uri_is_file(key_uri);
        int r = 0;

        if (key_is_sealed(key_uri)) {
                key = key_make(&turn->config->ca);
                if (!key)
                        return problem_set(problem, CODE_INTERNAL, EIO, "CA key", "no key could be made");
        } else {
                if (strlen(key_uri) >= KEY_URI_MAX)
                        return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "CA key",
                                           "a key's URI has at most %d characters", KEY_URI_MAX - 1);
                r = check_unused(turn, key_uri, problem);
                if (r >= 0)
                        r = key_uri_open(key_uri, &key, problem);
                if (r >= 0)
                        r = key_probe(key, NULL, problem);
                if (r < 0)
                        return r;
        }
        if (is_sealed)
                r = key_seal(turn, generation, key, problem);
        if (r < 0)
                return r;
        snprintf(ret_uri, KEY_URI_MAX, "%s", is_sealed ? KEY_IN_STORE : key_uri);
        *ret = key;
        key = NULL;
        return 0;
}

int authority_key_open(struct turn *turn, const struct authority *authority, EVP_PKEY **ret, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        char name[32];
        int r;

        if (!key_is_sealed(authority->key_uri))
                return key_uri_open(authority->key_uri, ret, problem) < 0 ? -EAGAIN : 0;
        secret_name(authority->generation, name);
        r = store_own_secret_get(turn->store, name, &der);
        if (r < 0 && r != -ENOENT && r != -EBADMSG)
                return r;
        *ret = r >= 0 ? key_read(buffer_bytes(&der)) : NULL;
        ERR_clear_error();
        if (*ret)
                return 0;
        return problem_set(problem, CODE_INTERNAL, EAGAIN, "CA key", "the sealed key of generation %u %s",
                           authority->generation, r < 0 ? "is not there or does not open" : "is no key");
}

int authority_key_wipe(struct turn *turn, const struct authority *authority) {
        char name[32];

        if (!key_is_sealed(authority->key_uri))
                return 0; /* not ours: it stays in its token */
        secret_name(authority->generation, name);
        return store_own_secret_put(turn->store, name, BYTES(NULL, 0));
}

/* ---- open keys ---- */

/* The generation's place; the oldest's, where all are taken. */
static struct issuer_slot *slot_of(struct issuer *issuer, uint32_t generation) {
        struct issuer_slot *slot = &issuer->slots[0];

        for (size_t i = 0; i < ELEMENTS(issuer->slots); i++) {
                if (issuer->slots[i].generation == generation)
                        return &issuer->slots[i];
                if (issuer->slots[i].generation < slot->generation)
                        slot = &issuer->slots[i];
        }
        slot_clear(slot);
        slot->generation = generation;
        return slot;
}

static int tell_away(const struct issuer_slot *slot, struct problem *problem) {
        problem_set(problem, CODE_UNAVAILABLE, EAGAIN, "CA key away", "the CA's key cannot be used now: %s",
                    slot->reason);
        if (problem)
                problem->max_age_sec = AWAY_MAX_AGE_SEC;
        return -EAGAIN;
}

static int slot_lose(struct turn *turn, struct issuer_slot *slot, const struct problem *why, struct problem *problem) {
        struct issuer_slot lost = {
                .generation = slot->generation,
                .is_away = true,
                .is_told = slot->is_away && slot->is_told,
                .retry_powered_sec = turn->now.powered_sec + AWAY_RETRY_SEC,
        };

        snprintf(lost.reason, sizeof lost.reason, "%.127s", why->detail[0] ? why->detail : why->title);
        slot_clear(slot);
        *slot = lost;
        turn->issuer->is_dirty = true; /* to tell, and to try again */
        return tell_away(slot, problem);
}

/* Fills the slot where it does not hold this certificate yet. */
static int slot_open(struct turn *turn, struct issuer_slot *slot, const struct authority *authority, struct buffer *der,
                     struct problem *problem) {
        _cleanup_(x509_freep) X509 *certificate = x509_read(buffer_bytes(der));
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        struct problem why = { 0 };
        bool was_told;
        int r;

        if (!certificate)
                return -EUCLEAN;
        r = authority_key_open(turn, authority, &key, &why);
        if (r < 0 && r != -EAGAIN)
                return r;
        if (r >= 0)
                r = key_probe(key, X509_get0_pubkey(certificate), &why);
        ERR_clear_error();
        if (r < 0)
                return slot_lose(turn, slot, &why, problem);
        was_told = slot->is_away && slot->is_told;
        slot_clear(slot);
        slot->generation = authority->generation;
        slot->signer = (struct x509_signer){ key, certificate };
        slot->is_told = was_told; /* that it is back is told too */
        slot->der = *der;
        *der = (struct buffer){ 0 };
        key = NULL;
        certificate = NULL;
        return 0;
}

int authority_signer(struct turn *turn, const struct authority *authority, struct x509_signer *ret,
                     struct problem *problem) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        struct issuer_slot *slot;
        int r;

        if (!turn->issuer)
                return problem_set(problem, CODE_UNAVAILABLE, EAGAIN, "no CA", "this gateway issues nothing");
        r = authority_read(turn->store, authority->generation, AUTHORITY_CERTIFICATE, &der);
        if (r < 0)
                return r == -ENOENT ? -EUCLEAN : r;
        slot = slot_of(turn->issuer, authority->generation);
        if (slot->is_away && turn->now.powered_sec < slot->retry_powered_sec)
                return tell_away(slot, problem);
        if (!slot->signer.key || !bytes_equal(buffer_bytes(&slot->der), buffer_bytes(&der))) {
                r = slot_open(turn, slot, authority, &der, problem);
                if (r < 0)
                        return r;
        }
        *ret = slot->signer;
        return 0;
}

int authority_signer_failed(struct turn *turn, const struct authority *authority, struct problem *problem) {
        struct issuer_slot *slot = slot_of(turn->issuer, authority->generation);
        struct problem why = { .detail = "it did not sign" };
        int r = slot->signer.key ? key_probe(slot->signer.key, NULL, &why) : -EAGAIN;

        ERR_clear_error();
        /* What was to be signed was at fault: nobody may take the key away from the others by that. */
        return r >= 0 ? -EIO : slot_lose(turn, slot, &why, problem);
}

void authority_signer_forget(struct turn *turn, uint32_t generation) {
        if (!turn->issuer)
                return;
        for (size_t i = 0; i < ELEMENTS(turn->issuer->slots); i++)
                if (turn->issuer->slots[i].generation == generation)
                        slot_clear(&turn->issuer->slots[i]);
}

int authority_keys_tell(struct turn *turn) {
        for (size_t i = 0; i < ELEMENTS(turn->issuer->slots); i++) {
                struct issuer_slot *slot = &turn->issuer->slots[i];
                int r = 0;

                if (slot->is_away && !slot->is_told)
                        r = turn_event(turn, EVENT_CA_KEY_UNAVAILABLE, NULL, NULL, "generation %u: %s",
                                       slot->generation, slot->reason);
                else if (!slot->is_away && slot->is_told)
                        r = turn_event(turn, EVENT_CA_READY, NULL, NULL, "the key of generation %u is back",
                                       slot->generation);
                if (r < 0)
                        return r;
                slot->is_told = slot->is_away;
        }
        return 0;
}

int issuer_open(struct issuer *issuer, struct turn *turn) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);

        turn->issuer = issuer;
        for (ssize_t i = 0; i < n; i++) {
                struct problem ignored = { 0 }; /* told below */
                struct x509_signer signer;
                int r;

                if (list[i].state == AUTHORITY_REQUESTED)
                        continue;
                r = authority_signer(turn, &list[i], &signer, &ignored);
                if (r < 0 && r != -EAGAIN)
                        return r;
        }
        return n < 0 ? (int)n : authority_keys_tell(turn);
}

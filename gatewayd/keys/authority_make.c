/* SPDX-License-Identifier: Apache-2.0 */

/* How a generation comes to be: a root made here, a root's successor, or a sub-CA whose certificate the owner's PKI
 * gives. Reading what the owner gave: authority_import.c. */

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/keys/authority_parts.h"

#define ONCE_MORE_EXISTS "a successor is there already: generation %u, %s"

static int exists(struct problem *problem, const struct authority *other) {
        return problem_set(problem, CODE_CONFLICT, EEXIST, "CA", ONCE_MORE_EXISTS, other->generation,
                           other->state == AUTHORITY_REQUESTED ? "whose certificate is awaited (gatewayctl ca import)"
                                                               : "announced");
}

/* The number of a generation to come, where there is room for one. */
static int64_t next_generation(struct turn *turn, struct problem *problem) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(turn->store, list, AUTHORITIES_MAX);
        int64_t latest;

        if (n < 0)
                return n;
        if (n == AUTHORITIES_MAX)
                return problem_set(problem, CODE_CONFLICT, EBUSY, "CA",
                                   "%d generations are in force; the oldest must end first", AUTHORITIES_MAX);
        latest = authority_latest(turn->store);
        return latest < 0 ? latest : latest + 1;
}

/* Every generation has a name of its own: some stacks find an issuer by its name alone. */
static void subject_of(const struct turn *turn, uint32_t generation, char to[CONFIG_TEXT_MAX + 80]) {
        const struct config *config = turn->config;
        char number[24] = "";

        if (generation > 1)
                snprintf(number, sizeof number, ",OU=G%u", generation);
        if (config->ca.subject[0])
                snprintf(to, CONFIG_TEXT_MAX + 80, "%s%s", config->ca.subject, number);
        else
                snprintf(to, CONFIG_TEXT_MAX + 80, "CN=gatewayd CA %s%s", config->gateway_id, number);
}

/* ---- how long it is announced, where an operator said so ---- */

int64_t authority_announce_sec(struct turn *turn, uint32_t generation) {
        _cleanup_(buffer_free) struct buffer text = { 0 };
        char name[32];

        snprintf(name, sizeof name, "ca-announce-%u", generation);
        if (store_own_secret_get(turn->store, name, &text) < 0 || text.size == 0)
                return -1;
        buffer_append(&text, BYTES("", 1));
        return strtoll((const char *)text.data, NULL, 10);
}

int authority_announce_put(struct turn *turn, uint32_t generation, int64_t announce_sec) {
        char name[32], text[24];

        if (announce_sec < 0 && authority_announce_sec(turn, generation) < 0)
                return 0;
        snprintf(name, sizeof name, "ca-announce-%u", generation);
        snprintf(text, sizeof text, "%lld", (long long)announce_sec);
        return store_own_secret_put(turn->store, name, bytes_of(text));
}

/* ---- into force ---- */

int authority_admit(struct turn *turn, struct authority *authority) {
        struct authority active;
        unix_sec ignored;
        bool is_first;
        char day[32];
        int r = authority_find(turn, AUTHORITY_ACTIVE, &active);

        if (r < 0 && r != -ENOENT)
                return r;
        is_first = r == -ENOENT;
        authority->state = is_first ? AUTHORITY_ACTIVE : AUTHORITY_ANNOUNCED;
        authority->announced = turn->now;
        if (is_first) {
                authority->activated = turn->now;
                authority->crl_is_stale = true;
                if (turn->issuer)
                        turn->issuer->has_stale_crl = true;
        }
        r = authority_update(turn->store, authority);
        if (r < 0)
                return r;
        authority_touch(turn);
        turn_effect(turn, EFFECT_RESCHEDULE, NULL, NULL);
        authority_day(authority->not_after, day);
        r = turn_event(turn, is_first ? EVENT_CA_READY : EVENT_CA_SUCCESSOR, NULL, NULL, "generation %u, %s, until %s",
                       authority->generation, authority->is_root ? "a root" : "under the owner's PKI", day);
        /* Devices can be answered with certificates from this turn on. */
        if (r >= 0 && is_first && turn->issuer)
                r = authority_server_renew(turn, &ignored);
        return r == -EAGAIN ? 0 : r;
}

/* ---- a root ---- */

static struct x509_validity root_validity(const struct turn *turn) {
        const struct ca_config *config = &turn->config->ca;

        return (struct x509_validity){
                .not_before = turn->now.wall - config->backdate_sec,
                .not_after = turn->now.wall + config->validity_sec,
        };
}

/* newWithOld (RFC 4210 §4.4): from the new key's birth to at most the old one's end. */
static int put_cross(struct turn *turn, const struct authority *old, const struct x509_signer *signer,
                     uint32_t generation, X509 *root, const struct x509_validity *validity, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(x509_freep) X509 *cross = NULL;
        struct x509_validity both = *validity;

        if (both.not_before < old->not_before)
                both.not_before = old->not_before;
        if (both.not_after > old->not_after)
                both.not_after = old->not_after;
        if (both.not_after <= both.not_before)
                return 0; /* the old one has run out: nobody could use it */
        cross = x509_cross_make(signer, root, &both, &der, problem);
        if (!cross)
                return authority_signer_failed(turn, old, problem);
        return authority_put(turn->store, generation, AUTHORITY_CROSS, buffer_bytes(&der));
}

/* `old`: the root that goes before, with its key where that can be used; NULL for the first. */
static int make_root(struct turn *turn, const struct authority *old, const struct x509_signer *old_signer,
                     const char *key_uri, int64_t announce_sec, struct problem *problem) {
        struct authority authority = { .state = AUTHORITY_REQUESTED, .is_root = true, .created = turn->now };
        struct x509_validity validity = root_validity(turn);
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        _cleanup_(x509_freep) X509 *root = NULL;
        char subject[CONFIG_TEXT_MAX + 80];
        int64_t generation;
        int r;

        generation = next_generation(turn, problem);
        if (generation < 0)
                return (int)generation;
        authority.generation = (uint32_t)generation;
        r = authority_key_new(turn, authority.generation, key_uri, authority.key_uri, &key, problem);
        if (r < 0)
                return r;
        subject_of(turn, authority.generation, subject);
        root = x509_root_make(key, subject, &validity, &der, problem);
        if (!root)
                return -EIO;
        authority.not_before = validity.not_before;
        authority.not_after = validity.not_after;
        r = authority_insert(turn->store, &authority);
        if (r >= 0)
                r = authority_put(turn->store, authority.generation, AUTHORITY_CERTIFICATE, buffer_bytes(&der));
        if (r >= 0 && old && old_signer)
                r = put_cross(turn, old, old_signer, authority.generation, root, &validity, problem);
        if (r >= 0)
                r = authority_announce_put(turn, authority.generation, announce_sec);
        /* A TPM's provider closes a handle for everybody: before the key, which the certificate has too, is opened
         * once more to sign. */
        X509_free(root);
        EVP_PKEY_free(key);
        root = NULL;
        key = NULL;
        return r < 0 ? r : authority_admit(turn, &authority);
}

int authority_init(struct turn *turn, const char *key_uri, struct problem *problem) {
        struct authority active;
        int r = authority_find(turn, AUTHORITY_ACTIVE, &active);

        if (r >= 0)
                return problem_set(problem, CODE_CONFLICT, EEXIST, "CA",
                                   "generation %u signs here already; gatewayctl ca roll makes its successor",
                                   active.generation);
        return r == -ENOENT ? make_root(turn, NULL, NULL, key_uri, -1, problem) : r;
}

/* ---- a successor ---- */

int authority_make_successor(struct turn *turn, const struct authority *active, const char *key_uri,
                             int64_t announce_sec, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        struct x509_signer signer;
        int64_t late_sec;
        int r;

        if (!active->is_root) {
                r = authority_request(turn, key_uri, &csr, problem);
                if (r >= 0)
                        r = authority_announce_put(turn, (uint32_t)authority_latest(turn->store), announce_sec);
                return r;
        }
        r = authority_signer(turn, active, &signer, problem);
        if (r < 0 && r != -EAGAIN)
                return r;
        /* Without the old key's word for it, devices that miss the announcement find no path. Only where waiting
         * for that key costs more, or an operator wants the successor at once. */
        late_sec = authority_late_sec(active, &turn->config->ca);
        if (r < 0 && announce_sec != 0 && turn->now.wall < active->not_after - late_sec)
                return r;
        return make_root(turn, active, r < 0 ? NULL : &signer, key_uri, announce_sec, problem);
}

int authority_roll(struct turn *turn, const char *key_uri, int64_t announce_sec, struct problem *problem) {
        struct authority active, other;
        int r = authority_find(turn, AUTHORITY_ACTIVE, &active);

        if (r == -ENOENT)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "CA",
                                   "there is no CA that could have a successor; gatewayctl ca init makes the first");
        if (r < 0)
                return r;
        r = authority_find(turn, AUTHORITY_REQUESTED, &other);
        if (r >= 0)
                return exists(problem, &other);
        if (r == -ENOENT)
                r = authority_find(turn, AUTHORITY_ANNOUNCED, &other);
        if (r == -ENOENT)
                return authority_make_successor(turn, &active, key_uri, announce_sec, problem);
        if (r < 0)
                return r;
        if (key_uri || announce_sec < 0)
                return exists(problem, &other);
        authority_touch(turn);
        return authority_announce_put(turn, other.generation, announce_sec);
}

/* ---- a sub-CA's request ---- */

static int make_request(struct turn *turn, const char *key_uri, struct buffer *ret, struct problem *problem) {
        struct authority authority = { .state = AUTHORITY_REQUESTED, .created = turn->now };
        _cleanup_(buffer_free) struct buffer der = { 0 };
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        char subject[CONFIG_TEXT_MAX + 80];
        int64_t generation;
        int r;

        generation = next_generation(turn, problem);
        if (generation < 0)
                return (int)generation;
        authority.generation = (uint32_t)generation;
        r = authority_key_new(turn, authority.generation, key_uri, authority.key_uri, &key, problem);
        if (r < 0)
                return r;
        subject_of(turn, authority.generation, subject);
        r = x509_request_make(key, subject, &der, problem);
        if (r >= 0)
                r = authority_insert(turn->store, &authority);
        if (r >= 0)
                r = authority_put(turn->store, authority.generation, AUTHORITY_CSR, buffer_bytes(&der));
        if (r >= 0)
                r = authority_announce_put(turn, authority.generation, -1);
        if (r < 0)
                return r;
        buffer_append(ret, buffer_bytes(&der));
        authority_touch(turn);
        return turn_event(turn, EVENT_CA_REQUEST, NULL, NULL, "generation %u: gatewayctl ca csr shows its request",
                          authority.generation);
}

int authority_request(struct turn *turn, const char *key_uri, struct buffer *ret, struct problem *problem) {
        struct authority other;
        int r = authority_find(turn, AUTHORITY_REQUESTED, &other);

        if (r >= 0) {
                bool is_same = !key_uri || strcmp(key_is_sealed(key_uri) ? KEY_IN_STORE : key_uri, other.key_uri) == 0;

                return is_same ? authority_read(turn->store, other.generation, AUTHORITY_CSR, ret)
                               : exists(problem, &other);
        }
        if (r == -ENOENT)
                r = authority_find(turn, AUTHORITY_ANNOUNCED, &other);
        if (r >= 0)
                return exists(problem, &other);
        return r == -ENOENT ? make_request(turn, key_uri, ret, problem) : r;
}

int authority_abandon(struct turn *turn, struct problem *problem) {
        struct authority waiting;
        int r = authority_find(turn, AUTHORITY_REQUESTED, &waiting);

        if (r == -ENOENT)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "CA", "no request waits for its certificate");
        if (r >= 0)
                r = authority_key_wipe(turn, &waiting);
        if (r >= 0)
                r = authority_remove(turn->store, waiting.generation);
        authority_touch(turn);
        return r;
}

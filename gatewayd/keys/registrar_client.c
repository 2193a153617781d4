/* SPDX-License-Identifier: Apache-2.0 */

/* The certificate that the gateway shows upstream, renewed at the owner's EST server (RFC 7030 §4.2.2) with a new key
 * each time. Key and certificate are own secrets of the store; the files of the configuration stay as they are, the way
 * back in. Nothing is ever given up: a gateway that comes home after years asks with what it has. */

#include <errno.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/keys/registrar_parts.h"
#include "store/own_keys.h"

#define CLIENT_KEY   "upstream-key"
#define CLIENT_CHAIN "upstream-chain"
#define CLIENT_NEXT  "upstream-key-next" /* the key whose request waits */

/* Asked for after two thirds of its life; late when a tenth is left. */
#define LATE_SHARE 10
/* While nothing is due, or a request waits. */
#define LOOK_SEC 3600

enum { TOLD_LATE = 1 };

bool registrar_is_for_client(const struct enrolment *enrolment) {
        return strcmp(enrolment->device, CLIENT_ENROLMENT) == 0;
}

int registrar_client_credentials(struct store *store, struct buffer *ret_key, struct buffer *ret_chain) {
        int r = store_own_secret_get(store, CLIENT_KEY, ret_key);

        return r < 0 ? r : store_own_secret_get(store, CLIENT_CHAIN, ret_chain);
}

/* ---- asking ---- */

/* The key whose request waits, or a new one. */
static int next_key(struct turn *turn, EVP_PKEY **ret) {
        _cleanup_(buffer_free) struct buffer der = { 0 };
        int r = store_own_secret_get(turn->store, CLIENT_NEXT, &der);

        if (r >= 0) {
                *ret = key_read(buffer_bytes(&der));
                return *ret ? 0 : -EBADMSG;
        }
        if (r != -ENOENT)
                return r;
        *ret = x509_key_new(X509_KEY_P256);
        if (!*ret)
                return -EIO;
        r = key_write(*ret, &der);
        return r < 0 ? r : store_own_secret_put(turn->store, CLIENT_NEXT, buffer_bytes(&der));
}

static int insert(struct turn *turn, EVP_PKEY *key, X509 *leaf, struct enrolment *enrolment) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        struct problem problem = { 0 };
        int r = x509_renewal_request_make(key, leaf, &csr, &problem);

        if (r >= 0 && EVP_Digest(csr.data, csr.size, enrolment->csr, NULL, EVP_sha256(), NULL) != 1)
                r = -EIO;
        if (r >= 0)
                r = enrolment_remove_device(turn->store, CLIENT_ENROLMENT);
        if (r >= 0)
                r = enrolment_insert(turn->store, enrolment, buffer_bytes(&csr));
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_ENROL, NULL, NULL);
        return turn_event(turn, EVENT_ENROLMENT_WAITING, NULL, NULL,
                          "enrolment %llu: the renewal of the certificate shown upstream",
                          (unsigned long long)enrolment->number);
}

static int ask(struct turn *turn, X509 *leaf) {
        _cleanup_(pkey_freep) EVP_PKEY *key = NULL;
        struct enrolment enrolment = { .device = CLIENT_ENROLMENT,
                                       .is_renewal = true,
                                       .state = ENROLMENT_WAITING,
                                       .asked = turn->now },
                         before;
        int r = next_key(turn, &key);

        if (r >= 0)
                r = x509_key_digest(key, enrolment.public_key);
        if (r < 0)
                return r;
        r = enrolment_find(turn->store, CLIENT_ENROLMENT, enrolment.public_key, &before);
        if (r >= 0 && (before.state == ENROLMENT_WAITING ||
                       moment_powered_age(&turn->now, &before.answered) < RETRY_AFTER_MAX_SEC))
                return 0; /* it waits, or was refused today */
        return r < 0 && r != -ENOENT ? r : insert(turn, key, leaf, &enrolment);
}

/* Once for each certificate. */
static int tell_late(struct turn *turn, const struct x509_validity *validity) {
        struct own_key row = { .kind = OWN_KEY_UPSTREAM, .generation = 1, .made = turn->now };
        int64_t left = validity->not_after - turn->now.wall;
        char day[32];
        int r = own_key_get(turn->store, OWN_KEY_UPSTREAM, &row);

        if (r < 0 && r != -ENOENT)
                return r;
        if (row.told & TOLD_LATE && row.not_after == validity->not_after)
                return 0;
        row.told |= TOLD_LATE;
        row.not_after = validity->not_after;
        r = own_key_put(turn->store, &row);
        authority_day(validity->not_after, day);
        return r < 0 ? r
                     : turn_event(turn, EVENT_UPSTREAM_CERTIFICATE_LATE, NULL, NULL, "%s on %s; %s",
                                  left > 0 ? "it runs out" : "it ran out", day,
                                  turn->config->north.est_renews_client ? "its renewal waits for the EST server"
                                                                        : "its file is the operator's to renew");
}

int registrar_ask_client(struct turn *turn, struct bytes leaf_der, unix_sec *ret_next) {
        _cleanup_(x509_freep) X509 *leaf = x509_read(leaf_der);
        const struct north_config *config = &turn->config->north;
        struct x509_validity validity;
        int64_t life;
        int r = leaf ? x509_validity_of(leaf, &validity) : -EBADMSG;

        *ret_next = turn->now.wall + LOOK_SEC;
        if (r < 0)
                return r;
        life = validity.not_after - validity.not_before;
        if (validity.not_after == NOT_AFTER_NEVER || turn->now.wall < validity.not_after - life / 3)
                return 0;
        if (turn->now.wall >= validity.not_after - life / LATE_SHARE)
                r = tell_late(turn, &validity);
        return r < 0 || !config->est_renews_client || !config->est_url[0] ? r : ask(turn, leaf);
}

/* ---- the answer ---- */

/* Its private key is the one that waited; the one of before is overwritten. */
static int install(struct turn *turn, X509 *certificate, STACK_OF(X509) * answer) {
        _cleanup_(buffer_free) struct buffer key = { 0 }, chain = { 0 };
        struct own_key row = { .kind = OWN_KEY_UPSTREAM };
        struct certificate facts;
        char day[32];
        int r;

        r = store_own_secret_get(turn->store, CLIENT_NEXT, &key);
        if (r >= 0)
                r = registrar_write_chain(turn, certificate, answer, &chain);
        if (r >= 0)
                r = store_own_secret_put(turn->store, CLIENT_KEY, buffer_bytes(&key));
        if (r >= 0)
                r = store_own_secret_put(turn->store, CLIENT_CHAIN, buffer_bytes(&chain));
        if (r >= 0)
                r = store_own_secret_remove(turn->store, CLIENT_NEXT);
        if (r >= 0)
                r = x509_describe(certificate, &facts);
        if (r >= 0)
                r = own_key_get(turn->store, OWN_KEY_UPSTREAM, &row);
        if (r < 0 && r != -ENOENT)
                return r;
        row.generation++;
        row.made = turn->now;
        row.not_after = facts.not_after;
        row.told = 0;
        memcpy(row.id, facts.fingerprint, sizeof row.id);
        r = own_key_put(turn->store, &row);
        if (r < 0)
                return r;
        turn_effect(turn, EFFECT_CLIENT, NULL, NULL);
        authority_day(facts.not_after, day);
        return turn_event(turn, EVENT_UPSTREAM_CERTIFICATE, NULL, NULL, "generation %u, until %s", row.generation, day);
}

int registrar_take_for_client(struct turn *turn, struct enrolment *enrolment, STACK_OF(X509) * certificates,
                              uint16_t http_status) {
        X509 *certificate = registrar_find_for_key(certificates, enrolment);
        struct x509_validity validity;
        const char *reason = NULL;
        int r;

        if (!certificate)
                reason = "no certificate in the answer is for the key asked for";
        else if (x509_validity_of(certificate, &validity) < 0)
                reason = "the certificate in the answer cannot be read";
        else if (turn->now.quality != CLOCK_UNKNOWN && validity.not_after <= turn->now.wall)
                reason = "the certificate in the answer has run out";
        if (reason)
                return registrar_settle(turn, enrolment, ENROLMENT_REFUSED, http_status, reason);
        r = install(turn, certificate, certificates);
        return r < 0 ? r : registrar_settle(turn, enrolment, ENROLMENT_ISSUED, http_status, "");
}

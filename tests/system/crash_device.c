/* SPDX-License-Identifier: Apache-2.0 */

/* The device's side: the two slots are tests/unit/fleet_model.c's, the air is core's links. */

#include "tests/system/crash_world.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/sha.h>
#include <openssl/x509.h>

#include "gatewayd/cbor.h"
#include "gatewayd/format.h"
#include "gatewayd/keys/cose.h"
#include "store/evidence.h"

#define WAKES_MAX 2000

static struct granted *grant_of(struct crash_device *d, const char *identity) {
        for (size_t i = 0; i < d->grant_count; i++)
                if (strcmp(d->grants[i].key.identity, identity) == 0)
                        return &d->grants[i];
        return NULL;
}

static struct granted *remember(struct world *w, const char *identity) {
        struct crash_device *d = &w->device;
        struct granted *grant = grant_of(d, identity);

        if (grant)
                return grant;
        if (d->grant_count == GRANTS_MAX)
                gateway_fail(&w->g, "the device asks for keys without end");
        grant = &d->grants[d->grant_count++];
        snprintf(grant->key.identity, sizeof grant->key.identity, "%s", identity);
        return grant;
}

/* ---- connecting ---- */

/* A key that is used for the first time ends its siblings, and in time its predecessors. */
static void used(struct crash_device *d, const struct model_key *key) {
        if (key->has_worked || strcmp(key->identity, d->model.id) == 0)
                return;
        for (size_t i = 0; i < d->grant_count; i++)
                if (strcmp(d->grants[i].key.identity, key->identity) != 0)
                        d->grants[i].may_be_over = true;
}

static enum model_outcome air_connect(void *userdata, struct model_device *model, const struct model_key *key) {
        struct world *w = userdata;
        struct crash_device *d = &w->device;
        struct granted *grant = grant_of(d, key->identity);
        bool has_chain = grant && grant->chain.size > 0;
        struct secret secret = { 0 };
        int r;

        (void)model;
        d->session = 0;
        r = has_chain ? gateway_certificate(&w->g, buffer_bytes(&grant->chain))
                      : gateway_psk(&w->g, key->identity, &secret);
        if (r <= 0)
                return r == 0 ? MODEL_REFUSED : MODEL_SILENT;
        if (!has_chain && !secret_equal(&secret, &key->key))
                gateway_fail(&w->g, "the key of %s is another one", key->identity);
        used(d, key);
        d->over = key;
        d->session = has_chain ? gateway_connected(&w->g, "", buffer_bytes(&grant->chain))
                               : gateway_connected(&w->g, key->identity, BYTES(NULL, 0));
        return d->session != 0 ? MODEL_CONNECTED : MODEL_SILENT;
}

/* The code, or -1. */
static int ask(struct world *w, uint8_t method, const char *path, int32_t format, int32_t accept, struct bytes body) {
        if (w->g.is_gone || gateway_request(&w->g, w->device.session, method, path, format, accept, body) < 0)
                return -1;
        return w->g.code;
}

static int air_me(void *userdata, struct model_device *model, uint32_t *ret_due) {
        struct world *w = userdata;
        int code = ask(w, CODE_GET, "me", FORMAT_NONE, FORMAT_NONE, BYTES(NULL, 0));
        int64_t due;

        (void)model;
        if (code != CODE_CONTENT)
                return code;
        if (!cbor_view_int(cbor_view_member(buffer_bytes(&w->g.payload), 6), &due))
                gateway_fail(&w->g, "/me cannot be read");
        *ret_due = (uint32_t)due;
        return code;
}

static int air_anchors(void *userdata, struct model_device *model) {
        (void)model;
        return ask(userdata, CODE_GET, "est/crts", FORMAT_NONE, FORMAT_PKCS7_CERTS, BYTES(NULL, 0));
}

/* ---- evidence ---- */

static void make_evidence(struct world *w, struct bytes nonce, struct buffer *to) {
        _cleanup_(buffer_free) struct buffer claims = { 0 };

        cbor_put_map(&claims, 3);
        cbor_put_int(&claims, 10);
        cbor_put_bytes(&claims, nonce);
        cbor_put_int(&claims, 270);
        cbor_put_text(&claims, TEXT("fw"));
        cbor_put_int(&claims, 271);
        cbor_put_array(&claims, 1);
        cbor_put_text(&claims, TEXT("1.2"));
        if (cose_sign1_make(w->device.attestation, bytes_of(w->device.model.id), buffer_bytes(&claims), to) < 0)
                gateway_fail(&w->g, "no evidence can be made");
}

static void answered(struct world *w, struct bytes evidence) {
        struct receipt *receipt = &w->answered[w->answered_count];
        int64_t sequence;

        if (!cbor_view_int(cbor_view_member(buffer_bytes(&w->g.payload), 0), &sequence))
                gateway_fail(&w->g, "the answer to evidence cannot be read");
        if (w->answered_count == RECEIPTS_MAX)
                gateway_fail(&w->g, "the device attests without end");
        receipt->sequence = (uint64_t)sequence;
        SHA256(evidence.data, evidence.size, receipt->evidence);
        for (size_t i = 0; i < w->answered_count; i++)
                if (w->answered[i].sequence == receipt->sequence &&
                    memcmp(w->answered[i].evidence, receipt->evidence, sizeof receipt->evidence) != 0)
                        gateway_fail(&w->g, "receipt %lu was given twice", (unsigned long)receipt->sequence);
        w->answered_count++;
}

/* A challenge and the evidence that answers it. 0 or -1. */
static int new_evidence(struct world *w) {
        uint8_t nonce[NONCE_BYTES];
        int code = ask(w, CODE_POST, "rats/nonce", FORMAT_NONE, FORMAT_OCTETS, BYTES(NULL, 0));

        if (code != CODE_CREATED || w->g.payload.size != sizeof nonce)
                return -1;
        memcpy(nonce, w->g.payload.data, sizeof nonce);
        make_evidence(w, BYTES(nonce, sizeof nonce), &w->device.evidence);
        return 0;
}

int device_attest(struct world *w) {
        struct buffer *evidence = &w->device.evidence;
        int code;

        if (evidence->size == 0 && new_evidence(w) < 0)
                return -1;
        code = ask(w, CODE_POST, "rats/evidence", FORMAT_EAT_CWT, FORMAT_NONE, buffer_bytes(evidence));
        if (code == CODE_CREATED)
                answered(w, buffer_bytes(evidence));
        else if (code >= 0)
                gateway_fail(&w->g, "evidence was answered %d.%02d", code >> 5, code & 31);
        if (code >= 0)
                buffer_free(evidence);
        return code;
}

static int air_attest(void *userdata, struct model_device *model) {
        (void)model;
        return device_attest(userdata);
}

/* ---- credentials ---- */

static int take_psk(struct world *w, struct model_key *ret) {
        struct bytes claims, cose_key, kid, key;
        struct granted *grant;
        char identity[DEVICE_ID_MAX + 1];
        uint64_t tag;
        int code = ask(w, CODE_POST, "cred", FORMAT_NONE, FORMAT_UCCS, BYTES(NULL, 0));

        if (code != CODE_CHANGED)
                return code;
        if (!cbor_view_tag(buffer_bytes(&w->g.payload), &tag, &claims))
                gateway_fail(&w->g, "a grant cannot be read");
        cose_key = cbor_view_member(cbor_view_member(claims, 8), 1);
        if (!cbor_view_bytes(cbor_view_member(cose_key, 2), &kid) ||
            !cbor_view_bytes(cbor_view_member(cose_key, -1), &key) || bytes_to_text(kid, identity, sizeof identity) < 0)
                gateway_fail(&w->g, "a grant cannot be read");
        grant = remember(w, identity);
        if (secret_set(&grant->key.key, key) < 0)
                gateway_fail(&w->g, "a key is too long");
        *ret = grant->key;
        return code;
}

/* The same CSR until it is answered: a device that lost the answer asks with what it has. */
static void make_csr(struct world *w) {
        struct crash_device *d = &w->device;
        X509_REQ *request;
        X509_NAME *name;
        uint8_t *der = NULL;
        int size;

        if (d->csr.size > 0)
                return;
        d->key = EVP_EC_gen("P-256");
        request = X509_REQ_new();
        name = X509_NAME_new();
        if (!d->key || !request || !name ||
            X509_NAME_add_entry_by_txt(name, "serialNumber", MBSTRING_ASC, (const uint8_t *)d->model.id, -1, -1, 0) !=
                    1 ||
            X509_REQ_set_version(request, 0) != 1 || X509_REQ_set_subject_name(request, name) != 1 ||
            X509_REQ_set_pubkey(request, d->key) != 1 || X509_REQ_sign(request, d->key, EVP_sha256()) <= 0)
                gateway_fail(&w->g, "no CSR can be made");
        size = i2d_X509_REQ(request, &der);
        buffer_append(&d->csr, BYTES(der, (size_t)size));
        OPENSSL_free(der);
        X509_NAME_free(name);
        X509_REQ_free(request);
}

static int take_certificate(struct world *w, struct model_key *ret) {
        struct crash_device *d = &w->device;
        bool is_first = strcmp(d->over->identity, d->model.id) == 0;
        char identity[2 * SHA256_DIGEST_LENGTH + 1];
        uint8_t digest[SHA256_DIGEST_LENGTH];
        struct granted *grant;
        int code;

        make_csr(w);
        code = ask(w, CODE_POST, is_first ? "est/sen" : "est/sren", FORMAT_PKCS10, FORMAT_PKIX_CERT,
                   buffer_bytes(&d->csr));
        if (code != CODE_CHANGED)
                return code;
        SHA256(w->g.payload.data, w->g.payload.size, digest);
        bytes_to_hex(BYTES(digest, sizeof digest), identity);
        grant = remember(w, identity);
        buffer_free(&grant->chain);
        buffer_append(&grant->chain, buffer_bytes(&w->g.payload));
        buffer_free(&d->csr);
        EVP_PKEY_free(d->key);
        d->key = NULL;
        *ret = grant->key;
        return code;
}

static int air_cred(void *userdata, struct model_device *model, struct model_key *ret) {
        struct world *w = userdata;
        int code = w->device.is_certified ? take_certificate(w, ret) : take_psk(w, ret);

        (void)model;
        if (code == CODE_CHANGED && w->device.forgets && !w->device.has_forgotten) {
                w->device.has_forgotten = true; /* it loses power before it has stored it */
                return -1;
        }
        return code;
}

static bool air_reboots(void *userdata) {
        (void)userdata;
        return false;
}

bool device_wake(struct world *w) {
        const struct model_air air = {
                .connect = air_connect,
                .me = air_me,
                .attest = air_attest,
                .anchors = air_anchors,
                .cred = air_cred,
                .reboots = air_reboots,
                .userdata = w,
        };

        return model_wake(&w->device.model, &air, gateway_now(&w->g));
}

int device_content(struct world *w) {
        for (unsigned i = 0; i < WAKES_MAX; i++) {
                if (device_wake(w))
                        return 0;
                if (w->g.is_gone)
                        return GONE;
                gateway_pause(&w->g); /* the tick may not have come yet */
        }
        gateway_fail(&w->g, "the device is locked out, or never gets what it needs (last answer %u.%02u)",
                     w->g.code >> 5, w->g.code & 31u);
}

int world_check_grants(struct world *w) {
        struct crash_device *d = &w->device;

        for (size_t i = 0; !w->is_ended && i < d->grant_count; i++) {
                struct granted *grant = &d->grants[i];
                struct secret secret = { 0 };
                int r;

                if (grant->may_be_over)
                        continue;
                r = grant->chain.size > 0 ? gateway_certificate(&w->g, buffer_bytes(&grant->chain))
                                          : gateway_psk(&w->g, grant->key.identity, &secret);
                if (r < 0)
                        return r;
                if (r == 0 || (grant->chain.size == 0 && !secret_equal(&secret, &grant->key.key)))
                        gateway_fail(&w->g, "%s was granted and is forgotten", grant->key.identity);
        }
        return 0;
}

struct world *world_free(struct world *w) {
        struct crash_device *d = &w->device;

        for (size_t i = 0; i < d->grant_count; i++)
                buffer_free(&d->grants[i].chain);
        buffer_free(&d->csr);
        buffer_free(&d->evidence);
        EVP_PKEY_free(d->key);
        EVP_PKEY_free(d->attestation);
        buffer_free(&w->g.payload);
        buffer_free(&w->g.output);
        free(w);
        return NULL;
}

/* ---- north ---- */

void world_record(void *userdata, const struct message_record *record) {
        _cleanup_(buffer_free) struct buffer body = { 0 };
        struct world *w = userdata;
        struct receipt *receipt = NULL;

        for (size_t i = 0; i < w->sent_count && !receipt; i++)
                if (w->sent[i].sequence == record->sequence)
                        receipt = &w->sent[i];
        if (!receipt) {
                uint8_t digest[32];

                if (w->sent_count == RECEIPTS_MAX)
                        gateway_fail(&w->g, "there are records without end");
                SHA256(record->evidence.data, record->evidence.size, digest);
                receipt = &w->sent[w->sent_count++];
                receipt->sequence = record->sequence;
                memcpy(receipt->evidence, digest, sizeof digest);
        }
        if (!w->is_uplink_up)
                return;
        message_write_delivered(&(struct message_delivered){ .sequence = record->sequence }, &body);
        (void)gateway_north(&w->g, FRAME_DELIVERED, &body); /* its end shows elsewhere */
        buffer_free(&body);
        body = (struct buffer){ 0 };
        message_write_result(&(struct message_result){ .sequence = record->sequence, .tier = 2 }, &body);
        (void)gateway_north(&w->g, FRAME_RESULT, &body);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* EST-coaps with the key made here (RFC 9148 §4.8), for devices without good randomness: key and certificate in
 * one multipart body. The key is not kept, so a lost reply costs a new one. */

#include "gatewayd/keys/est.h"

#include <errno.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "gatewayd/keys/multipart.h"

/* A kind of key, as the profile lists it, as it is made, and as a CSR shows it wants one. */
struct kind {
        enum device_key_type listed;
        enum x509_key_type made;
        const char *name; /* of the group, or of the algorithm where that is all */
};

/* In order of preference where the CSR has none. */
static const struct kind kinds[] = {
        { DEVICE_KEY_P256, X509_KEY_P256, "prime256v1" },
        { DEVICE_KEY_P384, X509_KEY_P384, "secp384r1" },
        { DEVICE_KEY_ED25519, X509_KEY_ED25519, "ED25519" },
};

static bool key_is(const EVP_PKEY *key, const char *name) {
        char group[32];

        return EVP_PKEY_is_a(key, name) ||
               (EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 && strcmp(group, name) == 0);
}

static int make_key(struct est_enrolment *e, struct problem *problem) {
        const struct profile *profile = e->request->from->profile;
        const struct kind *chosen = NULL;

        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                if (!(profile->key_types & 1u << kinds[i].listed))
                        continue;
                if (!chosen || (e->csr.key && key_is(e->csr.key, kinds[i].name)))
                        chosen = &kinds[i];
        }
        if (!chosen)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, "not allowed",
                                   "profile %s takes none of the keys that are made here (P-256, P-384, Ed25519)",
                                   profile->name);
        e->key = x509_key_new(chosen->made);
        return e->key ? 0 : -EIO;
}

/* Appends PKCS#8 (RFC 5958), unprotected: the session protects it. */
static int put_key(EVP_PKEY *key, struct buffer *to) {
        PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
        unsigned char *der = NULL;
        int size = info ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : -1;

        PKCS8_PRIV_KEY_INFO_free(info); /* wipes its copy of the key */
        if (size <= 0)
                return -EIO;
        buffer_append(to, BYTES(der, (size_t)size));
        OPENSSL_clear_free(der, (size_t)size);
        return 0;
}

static int put_answer(const struct est_enrolment *e, int32_t certificate_format, struct reply *reply) {
        _cleanup_(buffer_free) struct buffer key = { 0 }, certificate = { 0 };
        int r;

        r = put_key(e->key, &key);
        if (r < 0)
                return r;
        r = est_put_certificate(e, certificate_format, &certificate);
        if (r < 0)
                return r;
        multipart_write(
                (const struct multipart_part[]){
                        { FORMAT_PKCS8, true, buffer_bytes(&key) },
                        { (uint16_t)certificate_format, true, buffer_bytes(&certificate) },
                },
                2, &reply->payload);
        reply->code = CODE_CHANGED;
        reply->content_format = FORMAT_MULTIPART;
        return 0;
}

static int generate(struct turn *turn, const struct request *request, int32_t certificate_format, struct reply *reply,
                    struct problem *problem) {
        _cleanup_(est_enrolment_free) struct est_enrolment e = { .request = request, .is_keygen = true };
        static const int32_t formats[2] = { FORMAT_MULTIPART, FORMAT_NONE };
        struct problem refused = { 0 };
        int32_t format = FORMAT_NONE;
        int r;

        r = est_formats(request, formats, &format, problem);
        if (r < 0)
                return r;
        r = est_examine(turn, &e, &refused);
        if (r >= 0)
                r = make_key(&e, &refused);
        if (r < 0)
                return est_refuse(turn, &e, r, &refused, reply);
        r = est_issue(turn, &e, reply, problem);
        return r <= 0 ? r : put_answer(&e, certificate_format, reply);
}

int handle_est_skg(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        return generate(turn, request, FORMAT_PKCS7_CERTS, reply, problem);
}

int handle_est_skc(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        return generate(turn, request, FORMAT_PKIX_CERT, reply, problem);
}

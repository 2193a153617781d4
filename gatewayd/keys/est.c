/* SPDX-License-Identifier: Apache-2.0 */

/* What EST-coaps (RFC 9148) hands out to read: the CA certificates, the attributes that a CSR should have, and
 * beside EST the revocation lists. Enrolment is est_enrol.c's. */

#include <errno.h>

#include <openssl/asn1.h>
#include <openssl/objects.h>

#include "gatewayd/devices/devices.h"
#include "gatewayd/keys/authority.h"
#include "gatewayd/keys/registrar.h"

/* Until a device should look again by itself; what cannot wait is told by /me. */
#define ANCHORS_MAX_AGE_SEC    3600
#define ATTRIBUTES_MAX_AGE_SEC 86400

static void certificates_freep(STACK_OF(X509) * *certificates) {
        sk_X509_pop_free(*certificates, X509_free);
}

static void attribute_freep(X509_ATTRIBUTE **attribute) {
        X509_ATTRIBUTE_free(*attribute);
}

static int accept_only(const struct request *request, int32_t format, const char *what, struct problem *problem) {
        if (request->accept == FORMAT_NONE || request->accept == format)
                return 0;
        return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable", "%s (%d)", what, format);
}

/* ---- crts ---- */

static bool is_among(const STACK_OF(X509) * certificates, X509 *certificate) {
        for (int i = 0; i < sk_X509_num(certificates); i++)
                if (X509_cmp(sk_X509_value(certificates, i), certificate) == 0)
                        return true;
        return false;
}

/* Concatenated DER, each certificate once. */
static int add_certificates(STACK_OF(X509) * to, struct bytes der) {
        const unsigned char *at = der.data;

        while (at < der.data + der.size) {
                X509 *certificate = d2i_X509(NULL, &at, der.data + der.size - at);

                if (!certificate)
                        return -EBADMSG;
                if (is_among(to, certificate))
                        X509_free(certificate);
                else if (sk_X509_push(to, certificate) <= 0)
                        oom();
        }
        return 0;
}

/* The gateway's own in any case: its DTLS certificate hangs on them. */
static int collect_anchors(struct turn *turn, const struct profile *profile, STACK_OF(X509) * to,
                           uint32_t *ret_newest) {
        _cleanup_(buffer_free) struct buffer own = { 0 }, upstream = { 0 };
        int r;

        *ret_newest = 0;
        r = authority_anchors(turn, &own, ret_newest);
        if (r < 0 && r != -ENOENT)
                return r;
        r = add_certificates(to, buffer_bytes(&own));
        if (r < 0 || !profile || profile->ca != CA_UPSTREAM)
                return r;
        r = registrar_anchors(turn, &upstream);
        if (r == -ENOENT)
                return 0;
        return r < 0 ? r : add_certificates(to, buffer_bytes(&upstream));
}

/* It knows them now. A row is written only where that is news. Whoever comes with a replaced key may be somebody
 * else, from whom the device would not hear of them. */
static int mark_known(struct turn *turn, const struct identity *from, uint32_t newest) {
        bool is_current = from->credential.state == KEY_ACTIVE || from->credential.state == KEY_PRE_ACTIVE;
        struct device device = from->device;
        int r;

        if (newest == 0 || device.anchors == newest || !is_current)
                return 0;
        device.anchors = newest;
        r = device_update(turn->store, &device);
        return r < 0 ? r : schedule_device(turn, &device);
}

static int put_anchors(STACK_OF(X509) * certificates, int32_t accept, struct reply *reply, struct problem *problem) {
        if (accept != FORMAT_PKIX_CERT) {
                reply->content_format = FORMAT_PKCS7_CERTS;
                return x509_pkcs7_write(certificates, &reply->payload);
        }
        if (sk_X509_num(certificates) != 1)
                return problem_set(problem, CODE_NOT_ACCEPTABLE, EPROTONOSUPPORT, "not acceptable",
                                   "there are %d certificates, and 287 holds one; ask for 281 (certs-only)",
                                   sk_X509_num(certificates));
        reply->content_format = FORMAT_PKIX_CERT;
        return x509_write(sk_X509_value(certificates, 0), &reply->payload);
}

int handle_est_crts(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        _cleanup_(certificates_freep) STACK_OF(X509) *certificates = sk_X509_new_null();
        uint32_t newest;
        int r;

        if (!certificates)
                oom();
        if (request->accept != FORMAT_PKIX_CERT) {
                r = accept_only(request, FORMAT_PKCS7_CERTS, "CA certificates come as certs-only, or one alone as 287",
                                problem);
                if (r < 0)
                        return r;
        }
        r = collect_anchors(turn, request->from->profile, certificates, &newest);
        if (r < 0)
                return r;
        if (sk_X509_num(certificates) == 0)
                return problem_set(problem, CODE_NOT_FOUND, ENOENT, "not found", "this gateway has no CA yet");
        r = put_anchors(certificates, request->accept, reply, problem);
        if (r < 0)
                return r;
        reply->code = CODE_CONTENT;
        reply->max_age_sec = ANCHORS_MAX_AGE_SEC;
        return mark_known(turn, request->from, newest);
}

/* ---- att ---- */

/* Elements of CsrAttrs (RFC 7030 §4.5.2), DER one after the other: a bare OID, or an attribute with values. */
static void put_object(struct buffer *to, int nid) {
        const ASN1_OBJECT *object = OBJ_nid2obj(nid);
        int size = i2d_ASN1_OBJECT(object, NULL);
        unsigned char *at = buffer_reserve(to, (size_t)size);

        to->size += (size_t)i2d_ASN1_OBJECT(object, &at);
}

static void put_attribute(struct buffer *to, const X509_ATTRIBUTE *attribute) {
        int size = i2d_X509_ATTRIBUTE(attribute, NULL);
        unsigned char *at = buffer_reserve(to, (size_t)size);

        to->size += (size_t)i2d_X509_ATTRIBUTE(attribute, &at);
}

static X509_ATTRIBUTE *attribute_new(int nid) {
        X509_ATTRIBUTE *attribute = X509_ATTRIBUTE_new();

        if (!attribute || X509_ATTRIBUTE_set1_object(attribute, OBJ_nid2obj(nid)) != 1)
                oom();
        return attribute;
}

static void attribute_add(X509_ATTRIBUTE *attribute, int type, const void *value) {
        if (X509_ATTRIBUTE_set1_data(attribute, type, value, -1) != 1)
                oom();
}

static void put_curves(struct buffer *to, unsigned key_types) {
        _cleanup_(attribute_freep) X509_ATTRIBUTE *curves = attribute_new(NID_X9_62_id_ecPublicKey);

        if (key_types & 1u << DEVICE_KEY_P256)
                attribute_add(curves, V_ASN1_OBJECT, OBJ_nid2obj(NID_X9_62_prime256v1));
        if (key_types & 1u << DEVICE_KEY_P384)
                attribute_add(curves, V_ASN1_OBJECT, OBJ_nid2obj(NID_secp384r1));
        put_attribute(to, curves);
}

static void put_rsa(struct buffer *to, unsigned bits) {
        _cleanup_(attribute_freep) X509_ATTRIBUTE *rsa = attribute_new(NID_rsaEncryption);
        ASN1_INTEGER *least = ASN1_INTEGER_new();

        if (!least || ASN1_INTEGER_set(least, (long)bits) != 1)
                oom();
        attribute_add(rsa, V_ASN1_INTEGER, least);
        ASN1_INTEGER_free(least);
        put_attribute(to, rsa);
}

/* What the profile takes: signatures, keys, and tls-unique where it must be linked (RFC 7030 §3.5). */
static void put_elements(struct buffer *to, const struct profile *profile) {
        if (profile->tls_unique == TLS_UNIQUE_REQUIRED)
                put_object(to, NID_pkcs9_challengePassword);
        if (profile->key_types & (1u << DEVICE_KEY_P256 | 1u << DEVICE_KEY_P384))
                put_curves(to, profile->key_types);
        if (profile->key_types & 1u << DEVICE_KEY_P256)
                put_object(to, NID_ecdsa_with_SHA256);
        if (profile->key_types & 1u << DEVICE_KEY_P384)
                put_object(to, NID_ecdsa_with_SHA384);
        if (profile->key_types & 1u << DEVICE_KEY_ED25519)
                put_object(to, NID_ED25519);
        if (profile->key_types & 1u << DEVICE_KEY_RSA) {
                put_rsa(to, profile->rsa_bits);
                put_object(to, NID_sha256WithRSAEncryption);
        }
}

int handle_est_att(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        _cleanup_(buffer_free) struct buffer elements = { 0 };
        unsigned char *at;
        size_t size;
        int r;

        (void)turn;
        r = accept_only(request, FORMAT_CSRATTRS, "the attributes of a CSR come as csrattrs", problem);
        if (r < 0)
                return r;
        put_elements(&elements, request->from->profile);
        size = (size_t)ASN1_object_size(1, (int)elements.size, V_ASN1_SEQUENCE);
        at = buffer_reserve(&reply->payload, size);
        ASN1_put_object(&at, 1, (int)elements.size, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
        memcpy(at, elements.data, elements.size);
        reply->payload.size += size;
        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_CSRATTRS;
        reply->max_age_sec = ATTRIBUTES_MAX_AGE_SEC;
        return 0;
}

/* ---- crl ---- */

/* "g=N": which generation's; without: the one that signs now. */
static int read_generation(struct bytes query, uint32_t *ret, struct problem *problem) {
        uint64_t number = 0;

        *ret = 0;
        if (query.size == 0)
                return 0;
        if (query.size > 2 && query.size <= 12 && memcmp(query.data, "g=", 2) == 0) {
                for (size_t i = 2; i < query.size && number <= UINT32_MAX; i++) {
                        if (query.data[i] < '0' || query.data[i] > '9')
                                number = UINT64_MAX;
                        else
                                number = number * 10 + (uint64_t)(query.data[i] - '0');
                }
                if (number > 0 && number <= UINT32_MAX) {
                        *ret = (uint32_t)number;
                        return 0;
                }
        }
        return problem_set(problem, CODE_BAD_REQUEST, EINVAL, "bad query",
                           "the query may be g=N, the generation of the CA whose list is wanted, from 1");
}

int handle_crl(struct turn *turn, const struct request *request, struct reply *reply, struct problem *problem) {
        uint32_t generation;
        int r;

        r = accept_only(request, FORMAT_OCTETS, "a CRL comes as octet-stream", problem);
        if (r < 0)
                return r;
        r = read_generation(request->query, &generation, problem);
        if (r < 0)
                return r;
        r = authority_crl(turn, generation, &reply->payload);
        if (r == -ENOENT)
                return generation > 0 ? problem_set(problem, CODE_NOT_FOUND, ENOENT, "not found",
                                                    "there is no CRL of CA generation %u", generation)
                                      : problem_set(problem, CODE_NOT_FOUND, ENOENT, "not found",
                                                    "this gateway has no CRL yet");
        if (r < 0)
                return r;
        reply->code = CODE_CONTENT;
        reply->content_format = FORMAT_OCTETS;
        return 0;
}

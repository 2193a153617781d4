/* SPDX-License-Identifier: Apache-2.0 */

/* The public key of a CSR, looked at before OpenSSL makes one of it: kinds, curves and forms that are not
 * taken are never computed with. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>

/* Longer ones cost a signature check too much and buy nothing. */
#define RSA_BITS_MAX 8192

#define OID(text) TEXT(text)
static const struct kind {
        enum device_key_type type;
        const char *name;
        struct bytes algorithm; /* content of the OBJECT IDENTIFIER */
        struct bytes curve;     /* empty: it has none */
        size_t key_bytes;       /* in the BIT STRING, without the count of unused bits; 0: any */
} kinds[] = {
        { DEVICE_KEY_P256, "P-256", OID("\x2a\x86\x48\xce\x3d\x02\x01"), OID("\x2a\x86\x48\xce\x3d\x03\x01\x07"), 65 },
        { DEVICE_KEY_P384, "P-384", OID("\x2a\x86\x48\xce\x3d\x02\x01"), OID("\x2b\x81\x04\x00\x22"), 97 },
        { DEVICE_KEY_ED25519, "Ed25519", OID("\x2b\x65\x70"), OID(""), 32 },
        { DEVICE_KEY_RSA, "RSA", OID("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"), OID(""), 0 },
};

static int reject(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_BAD_REQUEST, EKEYREJECTED, "key not taken", "%s", what);
}

static int malformed(struct problem *problem) {
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad CSR",
                           "the public key is not a SubjectPublicKeyInfo");
}

/* The kinds that a profile takes, for messages. */
static void kinds_text(unsigned key_types, char *to, size_t to_size) {
        size_t used = 0;

        to[0] = 0;
        for (size_t i = 0; i < ELEMENTS(kinds) && used < to_size; i++)
                if (key_types & 1u << kinds[i].type)
                        used += (size_t)snprintf(to + used, to_size - used, "%s%s", used > 0 ? ", " : "",
                                                 kinds[i].name);
}

static void oid_text(struct der_item oid, char *to, size_t to_size) {
        const uint8_t *at = oid.whole.data;
        ASN1_OBJECT *object = d2i_ASN1_OBJECT(NULL, &at, (long)oid.whole.size);

        snprintf(to, to_size, "unknown");
        if (object)
                OBJ_obj2txt(to, (int)to_size, object, 0);
        ASN1_OBJECT_free(object);
        ERR_clear_error();
}

static int reject_kind(struct problem *problem, const struct profile *profile, const char *is) {
        char taken[64];

        kinds_text(profile->key_types, taken, sizeof taken);
        return problem_set(problem, CODE_BAD_REQUEST, EKEYREJECTED, "key not taken",
                           "the key is %s; this profile takes %s", is, taken);
}

struct parts {
        struct der_item algorithm, parameters; /* parameters: tag 0 where there are none */
        struct bytes key;                      /* without the count of unused bits */
};

static bool take_apart(struct bytes spki, struct parts *ret) {
        struct der_item outer, algorithm, bits;
        struct bytes rest;

        *ret = (struct parts){ 0 };
        if (!der_take(&spki, &outer) || outer.tag != DER_SEQUENCE)
                return false;
        rest = outer.content;
        if (!der_take(&rest, &algorithm) || algorithm.tag != DER_SEQUENCE || !der_take(&rest, &bits) || rest.size > 0 ||
            bits.tag != DER_BIT_STRING || bits.content.size < 1 || bits.content.data[0] != 0)
                return false;
        ret->key = BYTES(bits.content.data + 1, bits.content.size - 1);
        rest = algorithm.content;
        if (!der_take(&rest, &ret->algorithm) || ret->algorithm.tag != DER_OID)
                return false;
        return rest.size == 0 || (der_take(&rest, &ret->parameters) && rest.size == 0);
}

/* The kind by algorithm and curve; *ret NULL: none of ours. Explicit parameters are no kind at all
 * (RFC 5480 §2.1.1): whoever names a curve by numbers of his own may forge for it. */
static int find_kind(const struct parts *parts, const struct kind **ret, struct problem *problem) {
        bool is_ec = bytes_equal(parts->algorithm.content, kinds[0].algorithm);

        *ret = NULL;
        if (is_ec && parts->parameters.tag != DER_OID)
                return reject(problem,
                              parts->parameters.tag == DER_SEQUENCE
                                      ? "explicit elliptic curve parameters; the curve must be named (RFC 5480)"
                                      : "the elliptic curve is not named (RFC 5480)");
        for (size_t i = 0; i < ELEMENTS(kinds); i++)
                if (bytes_equal(parts->algorithm.content, kinds[i].algorithm) &&
                    (!is_ec || bytes_equal(parts->parameters.content, kinds[i].curve)))
                        *ret = &kinds[i];
        return 0;
}

int csr_key_look(struct bytes spki, const struct profile *profile, struct problem *problem) {
        const struct kind *kind;
        struct parts parts;
        char text[80];
        int r;

        if (!take_apart(spki, &parts))
                return malformed(problem);
        r = find_kind(&parts, &kind, problem);
        if (r < 0 || !profile)
                return r;
        if (!kind) {
                oid_text(parts.parameters.tag == DER_OID ? parts.parameters : parts.algorithm, text, sizeof text);
                return reject_kind(problem, profile, text);
        }
        if (!(profile->key_types & 1u << kind->type))
                return reject_kind(problem, profile, kind->name);
        if (kind->curve.size > 0 && parts.key.size > 0 && (parts.key.data[0] == 2 || parts.key.data[0] == 3))
                return reject(problem, "the public point is compressed; only uncompressed points are taken");
        if (kind->key_bytes > 0 && parts.key.size != kind->key_bytes)
                return reject(problem, "the public key has a wrong length");
        if (kind->curve.size > 0 && parts.key.data[0] != 4)
                return reject(problem, "the public point is not uncompressed (0x04)");
        return 0;
}

/* FIPS 186-5 §5.1, appendix A.1.1: an odd exponent above 2^16; bounded above for our own sake. */
static int check_rsa(EVP_PKEY *key, unsigned least_bits, struct problem *problem) {
        int bits = EVP_PKEY_get_bits(key);
        BIGNUM *exponent = NULL, *modulus = NULL;
        bool is_sound;

        if (bits < (int)least_bits || bits > RSA_BITS_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EKEYREJECTED, "key not taken",
                                   "the RSA key has %d bits; this profile takes %u to %d", bits, least_bits,
                                   RSA_BITS_MAX);
        is_sound = EVP_PKEY_get_bn_param(key, "e", &exponent) == 1 && EVP_PKEY_get_bn_param(key, "n", &modulus) == 1 &&
                   BN_is_odd(exponent) && BN_is_odd(modulus) && BN_num_bits(exponent) >= 17 &&
                   BN_num_bits(exponent) <= 33;
        BN_free(exponent);
        BN_free(modulus);
        return is_sound ? 0 : reject(problem, "the RSA exponent or modulus is weak; the exponent should be 65537");
}

int csr_key_check(EVP_PKEY *key, const struct profile *profile, struct problem *problem) {
        EVP_PKEY_CTX *context;
        bool is_valid;

        if (!key)
                return reject(problem, "the public key is not a point on its curve, or cannot be read");
        if (EVP_PKEY_is_a(key, "RSA"))
                return check_rsa(key, profile->rsa_bits, problem);
        context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
        if (!context)
                oom();
        /* Quick: on the curve. The full check multiplies by the order, which on curves of cofactor 1 tells nothing
         * more, and costs as much as all the rest of intake (NIST SP 800-56A §5.6.2.3.4). */
        is_valid = EVP_PKEY_public_check_quick(context) == 1;
        EVP_PKEY_CTX_free(context);
        ERR_clear_error();
        return is_valid ? 0 : reject(problem, "the public key is not a valid point on its curve");
}

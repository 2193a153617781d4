/* SPDX-License-Identifier: Apache-2.0 */

/* COSE_Sign1 and COSE_Key: RFC 9052, RFC 9053. What is verified are the bytes received: nothing is
 * encoded anew but the frame around them, Sig_structure. */

#include "gatewayd/keys/cose.h"

#include <errno.h>

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>

#include "gatewayd/cbor.h"

enum { TAG_SIGN1 = 18, TAG_CWT = 61 };
enum { HEADER_ALG = 1, HEADER_CRIT = 2, HEADER_KID = 4 };

/* The most labels in one header: comparing the two headers costs their product. */
#define HEADER_LABELS_MAX 32

/* One signature algorithm with the one kind of key that goes with it. RFC 9053 leaves ES256 open to
 * any curve; a key registered for one curve is taken with its own algorithm alone. */
struct algorithm {
        enum cose_algorithm id;
        const char *key_type; /* OpenSSL's name */
        const char *group;    /* OpenSSL's name of the curve; NULL where the key type says it all */
        const char *digest;   /* NULL: the algorithm brings its own */
        size_t signature_bytes;
};

static const struct algorithm algorithms[] = {
        { COSE_ES256, "EC", "prime256v1", "SHA256", 64 }, { COSE_ES384, "EC", "secp384r1", "SHA384", 96 },
        { COSE_ES512, "EC", "secp521r1", "SHA512", 132 }, { COSE_EDDSA, "ED25519", NULL, NULL, 64 },
        { COSE_EDDSA, "ED448", NULL, NULL, 114 },
};

static const struct algorithm *algorithm_of(EVP_PKEY *key) {
        char group[32] = "";

        for (size_t i = 0; i < ELEMENTS(algorithms); i++) {
                const struct algorithm *a = &algorithms[i];

                if (!EVP_PKEY_is_a(key, a->key_type))
                        continue;
                if (!a->group ||
                    (EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 && strcmp(group, a->group) == 0))
                        return a;
        }
        return NULL;
}

/* ---- taking apart ---- */

static int malformed(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad COSE_Sign1", "%s", what);
}

/* Untagged, 18, or 61 around 18 (RFC 8392 §6: the CWT tag prefixes a tagged COSE message). */
static int strip_tags(struct bytes message, struct bytes *ret, struct problem *problem) {
        bool is_cwt = false;
        uint64_t tag;

        if (cbor_view_tag(message, &tag, ret) && tag == TAG_CWT) {
                is_cwt = true;
                message = *ret;
        }
        if (cbor_view_tag(message, &tag, ret)) {
                if (tag != TAG_SIGN1)
                        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad COSE_Sign1",
                                           "tag %llu, allowed are 18 (COSE_Sign1) and 61 (CWT) around it",
                                           (unsigned long long)tag);
                return 0;
        }
        if (is_cwt)
                return malformed(problem, "the CWT tag 61 must stand before tag 18");
        *ret = message;
        return 0;
}

static size_t count_labels(struct bytes map) {
        struct cbor_cursor cursor;
        struct bytes label, value;
        size_t count = 0;

        if (!cbor_view_enter(map, &cursor))
                return 0;
        while (count <= HEADER_LABELS_MAX && cbor_view_next(&cursor, &label) && cbor_view_next(&cursor, &value))
                count++;
        return count;
}

/* RFC 9052 §3: a label may stand in one of the two headers only. */
static bool share_a_label(struct bytes one, struct bytes other) {
        struct cbor_cursor outer, inner;
        struct bytes label, value, candidate;
        int64_t a, b;
        struct bytes s, t;

        if (!cbor_view_enter(one, &outer))
                return false;
        while (cbor_view_next(&outer, &label) && cbor_view_next(&outer, &value)) {
                if (!cbor_view_enter(other, &inner))
                        return false;
                while (cbor_view_next(&inner, &candidate) && cbor_view_next(&inner, &value)) {
                        if (cbor_view_int(label, &a) && cbor_view_int(candidate, &b) && a == b)
                                return true;
                        if (cbor_view_text(label, &s) && cbor_view_text(candidate, &t) && bytes_equal(s, t))
                                return true;
                }
        }
        return false;
}

static int read_headers(struct bytes protected_map, struct bytes unprotected, struct cose_sign1 *ret,
                        struct problem *problem) {
        struct bytes kid = cbor_view_member(protected_map, HEADER_KID);

        if (!cbor_view_is_map(protected_map))
                return malformed(problem, "the protected header is not a map");
        if (!cbor_view_is_map(unprotected))
                return malformed(problem, "the unprotected header is not a map");
        if (count_labels(protected_map) > HEADER_LABELS_MAX || count_labels(unprotected) > HEADER_LABELS_MAX)
                return malformed(problem, "more than 32 labels in a header");
        if (share_a_label(protected_map, unprotected))
                return malformed(problem, "a label stands in both headers");
        if (cbor_view_member(protected_map, HEADER_CRIT).size > 0 ||
            cbor_view_member(unprotected, HEADER_CRIT).size > 0)
                return malformed(problem, "critical headers (crit) are not taken");
        if (!cbor_view_int(cbor_view_member(protected_map, HEADER_ALG), &ret->algorithm))
                return malformed(problem, "the protected header names no algorithm as an integer");
        if (kid.size == 0)
                kid = cbor_view_member(unprotected, HEADER_KID);
        if (kid.size > 0 && !cbor_view_bytes(kid, &ret->kid))
                return malformed(problem, "the kid is not a byte string");
        return 0;
}

int cose_sign1_parse(struct bytes message, struct cose_sign1 *ret, struct problem *problem) {
        struct bytes items[5] = {}, array;
        struct cose_sign1 found = {};
        struct cbor_cursor cursor;
        size_t count = 0;
        int r;

        r = cbor_check(message, problem);
        if (r < 0)
                return r;
        r = strip_tags(message, &array, problem);
        if (r < 0)
                return r;
        if (!cbor_view_is_array(array) || !cbor_view_enter(array, &cursor))
                return malformed(problem, "not an array");
        while (count < ELEMENTS(items) && cbor_view_next(&cursor, &items[count]))
                count++;
        if (count != 4)
                return malformed(problem, "not an array of four: protected, unprotected, payload, signature");
        if (cbor_view_is_null(items[2]))
                return malformed(problem, "the payload is detached");
        if (!cbor_view_bytes(items[0], &found.protected_header) || !cbor_view_bytes(items[2], &found.payload) ||
            !cbor_view_bytes(items[3], &found.signature))
                return malformed(problem, "protected header, payload and signature must be definite byte strings");
        if (found.protected_header.size == 0)
                return malformed(problem, "the protected header names no algorithm as an integer");
        r = cbor_check(found.protected_header, problem);
        if (r < 0)
                return r;
        r = read_headers(found.protected_header, items[1], &found, problem);
        if (r < 0)
                return r;
        *ret = found;
        return 0;
}

/* ---- signatures ---- */

/* RFC 9052 §4.4. */
static void put_sig_structure(struct bytes protected_header, struct bytes payload, struct buffer *to) {
        cbor_put_array(to, 4);
        cbor_put_text(to, TEXT("Signature1"));
        cbor_put_bytes(to, protected_header);
        cbor_put_bytes(to, (struct bytes){});
        cbor_put_bytes(to, payload);
}

static void ecdsa_sig_freep(ECDSA_SIG **signature) {
        ECDSA_SIG_free(*signature);
}

static void digest_freep(EVP_MD_CTX **context) {
        EVP_MD_CTX_free(*context);
}

/* COSE has r and s side by side (RFC 9053 §2.1), OpenSSL wants DER. */
static int signature_to_der(struct bytes raw, struct buffer *der) {
        _cleanup_(ecdsa_sig_freep) ECDSA_SIG *signature = ECDSA_SIG_new();
        int half = (int)(raw.size / 2), size;
        BIGNUM *r = BN_bin2bn(raw.data, half, NULL), *s = BN_bin2bn(raw.data + half, half, NULL);
        uint8_t *at;

        if (!signature || !r || !s || ECDSA_SIG_set0(signature, r, s) != 1)
                oom();
        size = i2d_ECDSA_SIG(signature, NULL);
        if (size <= 0)
                return -EKEYREJECTED;
        at = buffer_reserve(der, (size_t)size);
        der->size += (size_t)i2d_ECDSA_SIG(signature, &at);
        return 0;
}

static int signature_from_der(struct bytes der, size_t signature_bytes, struct buffer *to) {
        const unsigned char *at = der.data;
        _cleanup_(ecdsa_sig_freep) ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &at, (long)der.size);
        int half = (int)(signature_bytes / 2);
        uint8_t *raw;

        if (!signature)
                return -EIO;
        raw = buffer_reserve(to, signature_bytes);
        if (BN_bn2binpad(ECDSA_SIG_get0_r(signature), raw, half) != half ||
            BN_bn2binpad(ECDSA_SIG_get0_s(signature), raw + half, half) != half)
                return -EIO;
        to->size += signature_bytes;
        return 0;
}

static int check_signature(const struct algorithm *algorithm, EVP_PKEY *key, struct bytes signature,
                           struct bytes signed_bytes) {
        _cleanup_(digest_freep) EVP_MD_CTX *context = EVP_MD_CTX_new();

        if (!context)
                oom();
        if (EVP_DigestVerifyInit_ex(context, NULL, algorithm->digest, NULL, NULL, key, NULL) != 1)
                return -EPROTONOSUPPORT;
        if (EVP_DigestVerify(context, signature.data, signature.size, signed_bytes.data, signed_bytes.size) != 1)
                return -EKEYREJECTED;
        return 0;
}

int cose_sign1_verify(const struct cose_sign1 *sign1, EVP_PKEY *key, struct problem *problem) {
        const struct algorithm *algorithm = algorithm_of(key);
        _cleanup_(buffer_free) struct buffer signed_bytes = {}, der = {};
        struct bytes signature = sign1->signature;
        int r = 0;

        if (!algorithm || algorithm->id != sign1->algorithm)
                return problem_set(problem, CODE_FORBIDDEN, EPROTONOSUPPORT, "wrong algorithm",
                                   "COSE algorithm %lld does not go with the key", (long long)sign1->algorithm);
        if (signature.size != algorithm->signature_bytes)
                return problem_set(problem, CODE_FORBIDDEN, EKEYREJECTED, "bad signature",
                                   "%zu bytes long, %zu expected", signature.size, algorithm->signature_bytes);
        if (algorithm->digest) {
                r = signature_to_der(signature, &der);
                signature = buffer_bytes(&der);
        }
        put_sig_structure(sign1->protected_header, sign1->payload, &signed_bytes);
        if (r == 0)
                r = check_signature(algorithm, key, signature, buffer_bytes(&signed_bytes));
        if (r < 0)
                return problem_set(problem, CODE_FORBIDDEN, r, "bad signature",
                                   "it does not verify under the key expected");
        return 0;
}

static int make_signature(const struct algorithm *algorithm, EVP_PKEY *key, struct bytes signed_bytes,
                          struct buffer *to) {
        _cleanup_(digest_freep) EVP_MD_CTX *context = EVP_MD_CTX_new();
        _cleanup_(buffer_free) struct buffer made = {};
        size_t size = 0;

        if (!context)
                oom();
        if (EVP_DigestSignInit_ex(context, NULL, algorithm->digest, NULL, NULL, key, NULL) != 1 ||
            EVP_DigestSign(context, NULL, &size, signed_bytes.data, signed_bytes.size) != 1)
                return -EIO;
        buffer_reserve(&made, size);
        if (EVP_DigestSign(context, made.data, &size, signed_bytes.data, signed_bytes.size) != 1)
                return -EIO;
        made.size = size;
        if (algorithm->digest)
                return signature_from_der(buffer_bytes(&made), algorithm->signature_bytes, to);
        buffer_append(to, buffer_bytes(&made));
        return 0;
}

int cose_sign1_make(EVP_PKEY *key, struct bytes kid, struct bytes payload, struct buffer *to) {
        const struct algorithm *algorithm = algorithm_of(key);
        _cleanup_(buffer_free) struct buffer header = {}, signed_bytes = {}, signature = {};
        int r;

        if (!algorithm)
                return -EPROTONOSUPPORT;
        cbor_put_map(&header, 1);
        cbor_put_int(&header, HEADER_ALG);
        cbor_put_int(&header, algorithm->id);
        put_sig_structure(buffer_bytes(&header), payload, &signed_bytes);
        r = make_signature(algorithm, key, buffer_bytes(&signed_bytes), &signature);
        if (r < 0)
                return r;

        cbor_put_tag(to, TAG_SIGN1);
        cbor_put_array(to, 4);
        cbor_put_bytes(to, buffer_bytes(&header));
        cbor_put_map(to, kid.size > 0);
        if (kid.size > 0) {
                cbor_put_int(to, HEADER_KID);
                cbor_put_bytes(to, kid);
        }
        cbor_put_bytes(to, payload);
        cbor_put_bytes(to, buffer_bytes(&signature));
        return 0;
}

/* ---- keys ---- */

enum { KEY_TYPE = 1, KEY_ID = 2, KEY_K = -1, KEY_CURVE = -1, KEY_X = -2, KEY_Y = -3 };
enum { KEY_TYPE_EC2 = 2, KEY_TYPE_SYMMETRIC = 4, CURVE_P256 = 1 };

void cose_key_symmetric(struct bytes kid, struct bytes key, struct buffer *to) {
        cbor_put_map(to, 3);
        cbor_put_int(to, KEY_TYPE);
        cbor_put_int(to, KEY_TYPE_SYMMETRIC);
        cbor_put_int(to, KEY_ID);
        cbor_put_bytes(to, kid);
        cbor_put_int(to, KEY_K);
        cbor_put_bytes(to, key);
}

int cose_key_public(EVP_PKEY *key, struct bytes kid, struct buffer *to) {
        const struct algorithm *algorithm = algorithm_of(key);
        uint8_t point[65]; /* 04, x, y */
        size_t size = 0;

        if (!algorithm || algorithm->id != COSE_ES256)
                return -EPROTONOSUPPORT;
        /* A key read from a file may carry the compressed form; the encoded point never does then. */
        if (EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "uncompressed") != 1 ||
            EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point, sizeof point, &size) != 1 ||
            size != sizeof point)
                return -EPROTONOSUPPORT;
        cbor_put_map(to, kid.size > 0 ? 5 : 4);
        cbor_put_int(to, KEY_TYPE);
        cbor_put_int(to, KEY_TYPE_EC2);
        if (kid.size > 0) {
                cbor_put_int(to, KEY_ID);
                cbor_put_bytes(to, kid);
        }
        cbor_put_int(to, KEY_CURVE);
        cbor_put_int(to, CURVE_P256);
        cbor_put_int(to, KEY_X);
        cbor_put_bytes(to, BYTES(point + 1, 32));
        cbor_put_int(to, KEY_Y);
        cbor_put_bytes(to, BYTES(point + 33, 32));
        return 0;
}

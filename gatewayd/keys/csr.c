/* SPDX-License-Identifier: Apache-2.0 */

/* Intake of PKCS#10 requests (RFC 2986). The bytes are walked first, strictly and without allocating; only
 * what is a CSR of sane size and shape gets to OpenSSL. */

#include "gatewayd/keys/x509_parts.h"

#include <errno.h>

#include <openssl/err.h>
#include <openssl/sha.h>

#define ATTRIBUTES_MAX 16
#define NAME_PARTS_MAX 32

#define BAD_CSR "bad CSR"

static int malformed(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, BAD_CSR, "%s", what);
}

/* ---- the bytes ---- */

#define OID_EXTENSIONS    TEXT("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e")         /* 1.2.840.113549.1.9.14 */
#define OID_MS_EXTENSIONS TEXT("\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e")     /* 1.3.6.1.4.1.311.2.1.14 */
#define OID_CHALLENGE     TEXT("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07")         /* 1.2.840.113549.1.9.7 */
#define OID_DECRYPT_KEY   TEXT("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x25") /* …1.9.16.2.37 */
#define OID_ASYM_DECRYPT  TEXT("\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x36") /* …1.9.16.2.54 */
#define OID_ALT_NAME      TEXT("\x55\x1d\x11")                                 /* 2.5.29.17 */

/* What the walk finds. */
struct outline {
        struct bytes spki;
        struct bytes attributes;
        struct bytes challenge; /* content of the string, where it is one */
        bool has_challenge, wants_protected_key;
        size_t attribute_count, extension_count;
};

static size_t count_items(struct bytes content) {
        struct der_item item;
        size_t count = 0;

        while (der_take(&content, &item))
                count++;
        return count;
}

/* Whether an item of these begins with the same OBJECT IDENTIFIER as `first` does. */
static bool is_repeated(struct bytes rest, struct bytes oid) {
        struct der_item item, other;

        while (der_take(&rest, &item)) {
                struct bytes content = item.content;

                if (der_take(&content, &other) && bytes_equal(other.content, oid))
                        return true;
        }
        return false;
}

/* Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue } */
static int look_at_extension(struct der_item extension, struct bytes others, struct problem *problem) {
        struct bytes rest = extension.content;
        struct der_item oid, value;

        if (extension.tag != DER_SEQUENCE || !der_take(&rest, &oid) || oid.tag != DER_OID || !der_take(&rest, &value))
                return malformed(problem, "a requested extension is malformed");
        if (value.tag == DER_BOOLEAN && !der_take(&rest, &value))
                return malformed(problem, "a requested extension has no value");
        if (value.tag != DER_OCTET_STRING || rest.size > 0)
                return malformed(problem, "a requested extension is malformed");
        if (is_repeated(others, oid.content))
                return malformed(problem, "an extension is requested twice");
        if (bytes_equal(oid.content, OID_ALT_NAME) && !der_is_whole(value.content))
                return malformed(problem, "the subjectAltName is not DER");
        return 0;
}

static int look_at_extensions(struct der_item list, struct outline *outline, struct problem *problem) {
        struct bytes rest = list.content;
        struct der_item extension;
        int r = 0;

        if (list.tag != DER_SEQUENCE || outline->extension_count > 0)
                return malformed(problem, "the requested extensions must be one SEQUENCE");
        outline->extension_count = count_items(list.content);
        if (outline->extension_count > CSR_EXTENSIONS_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, BAD_CSR,
                                   "%zu extensions are requested; at most %d are taken", outline->extension_count,
                                   CSR_EXTENSIONS_MAX);
        while (r >= 0 && der_take(&rest, &extension))
                r = look_at_extension(extension, rest, problem);
        return r;
}

/* Attribute ::= SEQUENCE { type, values SET }; those that matter here have exactly one value. */
static int look_at_attribute(struct der_item attribute, struct bytes others, struct outline *outline,
                             struct problem *problem) {
        struct bytes rest = attribute.content;
        struct der_item oid, values, value;
        bool is_single;

        if (attribute.tag != DER_SEQUENCE || !der_take(&rest, &oid) || oid.tag != DER_OID ||
            !der_take(&rest, &values) || values.tag != DER_SET || rest.size > 0 || values.content.size == 0)
                return malformed(problem, "an attribute is malformed");
        if (is_repeated(others, oid.content))
                return malformed(problem, "an attribute stands twice");
        rest = values.content;
        is_single = der_take(&rest, &value) && rest.size == 0;
        if (bytes_equal(oid.content, OID_EXTENSIONS) || bytes_equal(oid.content, OID_MS_EXTENSIONS)) {
                if (!is_single)
                        return malformed(problem, "the requested extensions must be one SEQUENCE");
                return look_at_extensions(value, outline, problem);
        }
        if (bytes_equal(oid.content, OID_CHALLENGE)) {
                if (!is_single)
                        return malformed(problem, "the challengePassword must have one value");
                outline->has_challenge = true;
                if (value.tag == DER_UTF8_STRING || value.tag == DER_PRINTABLE_STRING || value.tag == DER_T61_STRING)
                        outline->challenge = value.content;
        }
        if (bytes_equal(oid.content, OID_DECRYPT_KEY) || bytes_equal(oid.content, OID_ASYM_DECRYPT))
                outline->wants_protected_key = true;
        return 0;
}

static int look_at_attributes(struct outline *outline, struct problem *problem) {
        struct bytes rest = outline->attributes;
        struct der_item attribute;
        int r = 0;

        outline->attribute_count = count_items(outline->attributes);
        if (outline->attribute_count > ATTRIBUTES_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, BAD_CSR, "%zu attributes; at most %d are taken",
                                   outline->attribute_count, ATTRIBUTES_MAX);
        while (r >= 0 && der_take(&rest, &attribute))
                r = look_at_attribute(attribute, rest, outline, problem);
        return r;
}

/* CertificationRequestInfo ::= SEQUENCE { version, subject, subjectPKInfo, attributes [0] } (RFC 2986 §4.1) */
static int look_at_info(struct bytes info, struct outline *outline, struct problem *problem) {
        struct der_item version, subject, spki, attributes = { 0 };

        if (!der_take(&info, &version) || version.tag != DER_INTEGER || !der_take(&info, &subject) ||
            subject.tag != DER_SEQUENCE || !der_take(&info, &spki) || spki.tag != DER_SEQUENCE)
                return malformed(problem, "not a PKCS#10 request (RFC 2986)");
        /* Some clients leave the empty set out, though it is not optional. */
        if (info.size > 0 && (!der_take(&info, &attributes) || attributes.tag != DER_CONTEXT_0 || info.size > 0))
                return malformed(problem, "the attributes are malformed");
        if (version.content.size != 1 || version.content.data[0] != 0)
                return malformed(problem, "the version of a PKCS#10 request is 0");
        if (count_items(subject.content) > NAME_PARTS_MAX)
                return malformed(problem, "the subject has more than 32 parts");
        outline->spki = spki.whole;
        outline->attributes = attributes.content;
        return look_at_attributes(outline, problem);
}

static int look(struct bytes der, struct outline *outline, struct problem *problem) {
        struct der_item request, info, algorithm, signature;
        struct bytes rest;

        if (der.size == 0)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, BAD_CSR, "the body is empty");
        if (der.size > CSR_MAX)
                return problem_set(problem, CODE_BAD_REQUEST, EINVAL, BAD_CSR, "%zu bytes; at most %d are taken",
                                   der.size, CSR_MAX);
        if (!der_is_whole(der))
                return malformed(problem, "not one whole DER structure: cut short, followed by something, or not DER");
        rest = der;
        if (!der_take(&rest, &request) || request.tag != DER_SEQUENCE)
                return malformed(problem, "not a PKCS#10 request (RFC 2986)");
        rest = request.content;
        if (!der_take(&rest, &info) || info.tag != DER_SEQUENCE || !der_take(&rest, &algorithm) ||
            algorithm.tag != DER_SEQUENCE || !der_take(&rest, &signature) || signature.tag != DER_BIT_STRING ||
            rest.size > 0)
                return malformed(problem, "not a PKCS#10 request (RFC 2986)");
        return look_at_info(info.content, outline, problem);
}

/* ---- the request ---- */

/* MD5 and SHA-1 can be forged; nothing else that a device of this decade signs with is missing. */
static int check_algorithm(const X509_REQ *request, struct problem *problem) {
        int nid = X509_REQ_get_signature_nid(request);

        switch (nid) {
        case NID_ecdsa_with_SHA256:
        case NID_ecdsa_with_SHA384:
        case NID_ecdsa_with_SHA512:
        case NID_sha256WithRSAEncryption:
        case NID_sha384WithRSAEncryption:
        case NID_sha512WithRSAEncryption:
        case NID_ED25519:
                return 0;
        default:
                return problem_set(problem, CODE_BAD_REQUEST, EKEYREJECTED, BAD_CSR,
                                   "the signature algorithm %s is not taken; allowed are ECDSA and RSA (PKCS #1 "
                                   "v1.5) with SHA-256, SHA-384 or SHA-512, and Ed25519",
                                   nid == NID_undef ? "(unknown)" : OBJ_nid2sn(nid));
        }
}

static int check_possession(struct csr *csr, const struct profile *profile, struct problem *problem) {
        int r = csr_key_check(csr->key, profile, problem);

        if (r >= 0)
                r = check_algorithm(csr->request, problem);
        if (r < 0)
                return r;
        if (X509_REQ_verify(csr->request, csr->key) == 1)
                return 0;
        ERR_clear_error();
        return problem_set(problem, CODE_BAD_REQUEST, EKEYREJECTED, BAD_CSR,
                           "the signature does not verify: whoever sent this has not shown that the key is theirs");
}

static void take_outline(const struct outline *outline, struct csr *csr) {
        ssize_t size = base64_decode(outline->challenge, false, csr->tls_unique_bytes, sizeof csr->tls_unique_bytes);

        csr->has_challenge = outline->has_challenge;
        csr->wants_protected_key = outline->wants_protected_key;
        if (size > 0)
                csr->tls_unique = BYTES(csr->tls_unique_bytes, (size_t)size);
        SHA256(outline->spki.data, outline->spki.size, csr->public_key);
}

static int read_request(struct bytes der, struct csr *csr, struct problem *problem) {
        const uint8_t *at = der.data;
        GENERAL_NAMES *names = NULL;

        csr->request = d2i_X509_REQ(NULL, &at, (long)der.size);
        ERR_clear_error();
        if (!csr->request || at != der.data + der.size)
                return malformed(problem, "not a PKCS#10 request (RFC 2986)");
        if (csr_names(csr, &names) < 0)
                return malformed(problem, "the subjectAltName cannot be read");
        GENERAL_NAMES_free(names);
        csr->key = X509_REQ_get0_pubkey(csr->request);
        ERR_clear_error();
        return 0;
}

int csr_read(struct bytes der, const struct profile *profile, bool is_keygen, struct csr *ret,
             struct problem *problem) {
        struct outline outline = { 0 };
        int r;

        *ret = (struct csr){ 0 };
        r = look(der, &outline, problem);
        if (r >= 0)
                r = csr_key_look(outline.spki, is_keygen ? NULL : profile, problem);
        if (r >= 0)
                r = read_request(der, ret, problem);
        if (r >= 0 && !is_keygen)
                r = check_possession(ret, profile, problem);
        /* Where the key is to be made here, the CSR's only says what kind is wanted. */
        if (r >= 0 && is_keygen &&
            (csr_key_look(outline.spki, profile, NULL) < 0 || csr_key_check(ret->key, profile, NULL) < 0))
                ret->key = NULL;
        if (r < 0) {
                csr_free(ret);
                return r;
        }
        take_outline(&outline, ret);
        SHA256(der.data, der.size, ret->digest);
        return 0;
}

void csr_free(struct csr *csr) {
        X509_REQ_free(csr->request);
        *csr = (struct csr){ 0 };
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Claims of an Entity Attestation Token: RFC 9711, the PSA token of RFC 9783, and the two older forms
 * of the PSA token that devices in the field still send (http://arm.com/psa/2.0.0 with the same claim
 * keys, PSA_IOT_PROFILE_1 with keys of its own). Parsing only: what claims are worth is said in
 * appraise_eat.c. */

#include <errno.h>

#include "gatewayd/cbor.h"
#include "gatewayd/evidence/evidence.h"

enum {
        CLAIM_NONCE = 10,
        CLAIM_UEID = 256,
        CLAIM_DBGSTAT = 263,
        CLAIM_PROFILE = 265,
        CLAIM_SWNAME = 270,
        CLAIM_SWVERSION = 271,
        CLAIM_MEASUREMENTS = 273,
        CLAIM_PSA_LIFECYCLE = 2395,
        CLAIM_PSA_COMPONENTS = 2399,
        CLAIM_LEGACY_PROFILE = -75000,
        CLAIM_LEGACY_LIFECYCLE = -75002,
        CLAIM_LEGACY_COMPONENTS = -75006,
        CLAIM_LEGACY_NONCE = -75008,
        CLAIM_LEGACY_INSTANCE = -75009,
};

/* Members of a PSA software component: RFC 9783 §4.4.1. */
enum { COMPONENT_TYPE = 1, COMPONENT_VALUE = 2, COMPONENT_VERSION = 4, COMPONENT_SIGNER = 5 };

/* CoAP content-formats of an EAT measurement, and members of a measured component. */
enum { FORMAT_MEASURED_COMPONENT = 295 };
enum { MEASURED_ID = 1, MEASURED_DIGEST = 2 };

static int bad_claim(struct problem *problem, const char *what) {
        return problem_set(problem, CODE_BAD_REQUEST, EBADMSG, "bad EAT", "%s", what);
}

/* A member that may be absent, but where it is there has the type wanted. */
static bool optional_text(struct bytes item, struct bytes *ret) {
        return item.size == 0 || cbor_view_text(item, ret);
}

static bool optional_bytes(struct bytes item, struct bytes *ret) {
        return item.size == 0 || cbor_view_bytes(item, ret);
}

static int add_nonce(struct bytes item, struct claims *claims, struct problem *problem) {
        struct bytes nonce;

        if (!cbor_view_bytes(item, &nonce) || nonce.size < 8 || nonce.size > 64)
                return bad_claim(problem, "eat_nonce (10) is not a byte string of 8 to 64 bytes");
        if (claims->nonce_count == ELEMENTS(claims->nonces))
                return bad_claim(problem, "more than 4 nonces");
        claims->nonces[claims->nonce_count++] = nonce;
        return 0;
}

static int take_nonces(struct bytes item, struct claims *claims, struct problem *problem) {
        struct cbor_cursor cursor;
        struct bytes nonce;
        int r = 0;

        if (!cbor_view_is_array(item))
                return add_nonce(item, claims, problem);
        if (!cbor_view_enter(item, &cursor))
                return bad_claim(problem, "eat_nonce (10) cannot be read");
        while (r >= 0 && cbor_view_next(&cursor, &nonce))
                r = add_nonce(nonce, claims, problem);
        return r;
}

static int take_ueid(struct bytes item, struct claims *claims, struct problem *problem) {
        if (!cbor_view_bytes(item, &claims->ueid) || claims->ueid.size < 7 || claims->ueid.size > 33)
                return bad_claim(problem, "ueid (256) is not a byte string of 7 to 33 bytes");
        return 0;
}

/* A URI, or an OID as a byte string. */
static int take_profile(struct bytes item, struct claims *claims, struct problem *problem) {
        if (!cbor_view_text(item, &claims->profile) && !cbor_view_bytes(item, &claims->profile))
                return bad_claim(problem, "eat_profile (265) is neither a URI nor an OID");
        claims->is_psa = bytes_equal(claims->profile, TEXT("tag:psacertified.org,2023:psa#tfm")) ||
                         bytes_equal(claims->profile, TEXT("tag:psacertified.org,2019:psa#legacy")) ||
                         bytes_equal(claims->profile, TEXT("http://arm.com/psa/2.0.0")) ||
                         bytes_equal(claims->profile, TEXT("PSA_IOT_PROFILE_1"));
        return 0;
}

/* [version, ? scheme]; some devices send the bare text. */
static int take_swversion(struct bytes item, struct claims *claims, struct problem *problem) {
        struct cbor_cursor cursor;
        struct bytes first;

        if (cbor_view_text(item, &claims->swversion))
                return 0;
        if (cbor_view_is_array(item) && cbor_view_enter(item, &cursor) && cbor_view_next(&cursor, &first) &&
            cbor_view_text(first, &claims->swversion))
                return 0;
        return bad_claim(problem, "swversion (271) is not [text, ? scheme]");
}

static int take_dbgstat(struct bytes item, struct claims *claims, struct problem *problem) {
        if (!cbor_view_int(item, &claims->dbgstat) || claims->dbgstat < 0 || claims->dbgstat > 4)
                return bad_claim(problem, "dbgstat (263) is not a number from 0 to 4");
        return 0;
}

static int take_lifecycle(struct bytes item, struct claims *claims, struct problem *problem) {
        if (!cbor_view_int(item, &claims->lifecycle) || claims->lifecycle < 0 || claims->lifecycle > UINT16_MAX)
                return bad_claim(problem, "the PSA security lifecycle is not a number of 16 bits");
        return 0;
}

static int too_many(struct problem *problem) {
        return bad_claim(problem, "more than 32 measurements");
}

static int take_components(struct bytes item, struct claims *claims, struct problem *problem) {
        struct cbor_cursor cursor;
        struct bytes c;

        if (!cbor_view_is_array(item) || !cbor_view_enter(item, &cursor))
                return bad_claim(problem, "the PSA software components are not an array");
        while (cbor_view_next(&cursor, &c)) {
                size_t n = claims->measurement_count;

                if (n == CLAIMS_MEASUREMENTS_MAX)
                        return too_many(problem);
                if (!cbor_view_is_map(c) ||
                    !optional_text(cbor_view_member(c, COMPONENT_TYPE), &claims->measurements[n].type) ||
                    !cbor_view_bytes(cbor_view_member(c, COMPONENT_VALUE), &claims->measurements[n].digest) ||
                    !optional_text(cbor_view_member(c, COMPONENT_VERSION), &claims->measurements[n].version) ||
                    !optional_bytes(cbor_view_member(c, COMPONENT_SIGNER), &claims->measurements[n].signer))
                        return bad_claim(problem, "a PSA software component is not {1: type, 2: measurement, "
                                                  "4: version, 5: signer}");
                claims->measurement_count++;
        }
        return 0;
}

/* A measured component: {1: [name, ? [version, ? scheme]], 2: [algorithm, digest]}. Only
 * digests can be compared; a raw value (key 5) is passed over. */
static int take_measured_component(struct bytes content, struct claims *claims, struct problem *problem) {
        struct bytes name = {}, version = {}, algorithm, digest, field;
        struct cbor_cursor cursor, inner;
        size_t n = claims->measurement_count;

        if (cbor_check(content, problem) < 0)
                return -EBADMSG;
        field = cbor_view_member(content, MEASURED_ID);
        if (!cbor_view_is_array(field) || !cbor_view_enter(field, &cursor) || !cbor_view_next(&cursor, &field) ||
            !cbor_view_text(field, &name))
                return bad_claim(problem, "a measured component has no [name, ? version] under key 1");
        if (cbor_view_next(&cursor, &field) &&
            (!cbor_view_is_array(field) || !cbor_view_enter(field, &inner) || !cbor_view_next(&inner, &version) ||
             !cbor_view_text(version, &version)))
                return bad_claim(problem, "the version of a measured component is not [text, ? scheme]");

        field = cbor_view_member(content, MEASURED_DIGEST);
        if (field.size == 0)
                return 0;
        if (!cbor_view_is_array(field) || !cbor_view_enter(field, &cursor) || !cbor_view_next(&cursor, &algorithm) ||
            !cbor_view_next(&cursor, &digest) || !cbor_view_bytes(digest, &digest))
                return bad_claim(problem, "the digest of a measured component is not [algorithm, bytes]");
        claims->measurements[n].type = name;
        claims->measurements[n].version = version;
        claims->measurements[n].digest = digest;
        claims->measurement_count++;
        return 0;
}

/* [content-format, bytes]. Formats that gatewayd does not read are upstream's to judge. */
static int take_measurement(struct bytes item, struct claims *claims, struct problem *problem) {
        struct bytes format, content, field;
        struct cbor_cursor cursor;
        int64_t number;

        if (!cbor_view_is_array(item) || !cbor_view_enter(item, &cursor) || !cbor_view_next(&cursor, &format) ||
            !cbor_view_next(&cursor, &field) || !cbor_view_int(format, &number) || !cbor_view_bytes(field, &content))
                return bad_claim(problem, "a measurement (273) is not [content-format, bytes]");
        if (claims->measurement_count == CLAIMS_MEASUREMENTS_MAX)
                return too_many(problem);
        if (number == FORMAT_MEASURED_COMPONENT)
                return take_measured_component(content, claims, problem);
        if (number == FORMAT_OCTETS)
                claims->measurements[claims->measurement_count++].digest = content;
        return 0;
}

static int take_measurements(struct bytes item, struct claims *claims, struct problem *problem) {
        struct cbor_cursor cursor;
        struct bytes one;
        int r = 0;

        if (!cbor_view_is_array(item) || !cbor_view_enter(item, &cursor))
                return bad_claim(problem, "measurements (273) is not an array");
        while (r >= 0 && cbor_view_next(&cursor, &one))
                r = take_measurement(one, claims, problem);
        return r;
}

static int take_claim(int64_t key, struct bytes item, struct claims *claims, struct problem *problem) {
        switch (key) {
        case CLAIM_NONCE:
        case CLAIM_LEGACY_NONCE:
                return take_nonces(item, claims, problem);
        case CLAIM_UEID:
        case CLAIM_LEGACY_INSTANCE:
                return take_ueid(item, claims, problem);
        case CLAIM_PROFILE:
        case CLAIM_LEGACY_PROFILE:
                return take_profile(item, claims, problem);
        case CLAIM_SWNAME:
                if (!cbor_view_text(item, &claims->swname))
                        return bad_claim(problem, "swname (270) is not text");
                return 0;
        case CLAIM_SWVERSION:
                return take_swversion(item, claims, problem);
        case CLAIM_DBGSTAT:
                return take_dbgstat(item, claims, problem);
        case CLAIM_PSA_LIFECYCLE:
        case CLAIM_LEGACY_LIFECYCLE:
                return take_lifecycle(item, claims, problem);
        case CLAIM_PSA_COMPONENTS:
        case CLAIM_LEGACY_COMPONENTS:
                return take_components(item, claims, problem);
        case CLAIM_MEASUREMENTS:
                return take_measurements(item, claims, problem);
        default:
                return 0;
        }
}

int eat_parse(struct bytes payload, struct claims *ret, struct problem *problem) {
        struct claims claims = { .lifecycle = -1, .dbgstat = -1 };
        struct cbor_cursor cursor;
        struct bytes name, value;
        int64_t key;
        int r;

        r = cbor_check(payload, problem);
        if (r < 0)
                return r;
        if (!cbor_view_is_map(payload) || !cbor_view_enter(payload, &cursor))
                return bad_claim(problem, "the claims are not a map");
        while (cbor_view_next(&cursor, &name) && cbor_view_next(&cursor, &value)) {
                if (!cbor_view_int(name, &key))
                        continue;
                r = take_claim(key, value, &claims, problem);
                if (r < 0)
                        return r;
        }
        *ret = claims;
        return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_PAYLOAD_H
#define DEVICE_PAYLOAD_H

/* What gatewayd's answers say and how evidence is written: docs/PROTOCOL.md. The parsers take bytes
 * from outside: they pass over claims they do not know, refuse what is malformed, said twice or has
 * bytes behind it, and change nothing then. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_IDENTITY_MAX 64 /* device id as PSK identity; a kid has 16, a fingerprint 64 */
#define DEVICE_KEY_MAX      64 /* a factory PSK; operational ones have 16 to 32; a P-256 private key 32 */
/* The largest certificate, DER: an LDevID has about 450 bytes. Of an IDevID, with the certificates that lead
 * from it to what the gateway knows. A device with PSKs alone needs 1. */
#ifndef DEVICE_CERTIFICATE_MAX
#define DEVICE_CERTIFICATE_MAX 896
#endif
#define DEVICE_NONCE_MAX 64 /* RFC 9711 §4.1: 8 to 64 */

/* A PSK and the identity to show with it; or, with certificate_size > 0, a certificate, its private key and
 * a name for logs (the certificate's fingerprint). identity_size 0: no key. */
struct device_key {
        uint8_t identity[DEVICE_IDENTITY_MAX];
        uint8_t identity_size;
        uint8_t key[DEVICE_KEY_MAX];
        uint8_t key_size;
        uint16_t certificate_size;
        uint8_t certificate[DEVICE_CERTIFICATE_MAX]; /* DER, this device's first; further ones concatenated */
};

/* Bits of /me's `due`. */
enum { DEVICE_DUE_ROTATE = 1, DEVICE_DUE_ATTEST = 2, DEVICE_DUE_ANCHORS = 4 };

/* Durations in seconds; DEVICE_UNKNOWN where /me does not name one. */
#define DEVICE_UNKNOWN INT64_MIN
struct device_me {
        int64_t state;
        int64_t rotate_in_sec;
        int64_t late_in_sec;
        int64_t attest_in_sec;
        uint32_t due;
};

struct device_nonce {
        uint8_t bytes[DEVICE_NONCE_MAX];
        uint8_t size;
        uint32_t lives_sec;
};

/* What a device says of itself. Pointers are borrowed. */
struct device_claims {
        const uint8_t *ueid; /* RFC 9711 §4.2.1: 7 to 33 bytes, the first is the type */
        size_t ueid_size;
        const char *software_name;
        const char *software_version;
        const uint8_t *measurement; /* SHA-256 of the software, 32 bytes */
};

/* Signs SHA-256 of the message with ES256; writes r and s, 32 bytes each. 0, or not. */
typedef int (*device_signer)(void *user, const uint8_t *message, size_t size, uint8_t signature[64]);

/* POST /cred, content-format 601: a UCCS (RFC 9781) with a symmetric COSE_Key. `device_id`: whom the
 * grant must name. */
bool device_parse_grant(const uint8_t *data, size_t size, const char *device_id, struct device_key *key);

bool device_parse_me(const uint8_t *data, size_t size, struct device_me *me);

/* POST /rats/nonce; `is_raw`: content-format 42, the bytes alone. */
bool device_parse_nonce(const uint8_t *data, size_t size, bool is_raw, struct device_nonce *nonce);

/* GET /time: seconds since 1970, quality 0 to 2. */
bool device_parse_time(const uint8_t *data, size_t size, int64_t *epoch_sec, int64_t *quality);

/* What any other answer that is a map tells: key 6, as in /me; 0: nothing, or no such answer. */
uint32_t device_parse_due(const uint8_t *data, size_t size);

/* An EAT (RFC 9711) as COSE_Sign1 (tag 18, ES256) whose kid is the device id. `buffer` is used for
 * the bytes to be signed as well. Returns the size, or 0: no room, or the signer failed. */
size_t device_build_evidence(const struct device_claims *claims, const char *device_id,
                             const struct device_nonce *nonce, device_signer sign, void *user, uint8_t *buffer,
                             size_t capacity);

#endif

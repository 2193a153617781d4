/* SPDX-License-Identifier: Apache-2.0 */

/* Payloads of a device: see device_payload.h. */

#include "device_payload.h"

#include "device_cbor.h"

#include <string.h>

enum {
        CLAIM_SUB = 2,
        CLAIM_CNF = 8,
        CNF_COSE_KEY = 1,
        COSE_KEY_KTY = 1,
        COSE_KEY_KID = 2,
        COSE_KEY_K = -1,
        KTY_SYMMETRIC = 4,
        TAG_UCCS = 601,

        CLAIM_NONCE = 10,
        CLAIM_UEID = 256,
        CLAIM_SOFTWARE_NAME = 270,
        CLAIM_SOFTWARE_VERSION = 271,
        CLAIM_MEASUREMENTS = 273,
        TAG_COSE_SIGN1 = 18,
        FORMAT_OCTETS = 42,

        KEY_MIN = 16,
        NONCE_MIN = 8
};

typedef bool (*member_reader)(struct device_cbor_reader *reader, int64_t key, void *into);

/* Walks a map. Integer keys go to `member`, which takes the value; others are passed over. A key of
 * 0 to 31 twice, or -1 twice, is refused: RFC 8949 §5.6. */
static bool walk(struct device_cbor_reader *reader, member_reader member, void *into) {
        struct device_cbor_item head, key;
        uint64_t i, seen = 0, bit;
        int64_t number;

        if (!device_cbor_expect(reader, DEVICE_CBOR_MAP, &head))
                return false;
        for (i = 0; i < head.value; i++) {
                struct device_cbor_reader before = *reader;

                if (!device_cbor_read(reader, &key))
                        return false;
                if (key.major > DEVICE_CBOR_NEGATIVE || key.value > INT32_MAX) {
                        *reader = before;
                        if (!device_cbor_skip(reader) || !device_cbor_skip(reader))
                                return false;
                        continue;
                }
                number = key.major == DEVICE_CBOR_UINT ? (int64_t)key.value : -1 - (int64_t)key.value;
                if (number >= -1 && number < 32) {
                        bit = (uint64_t)1 << (number + 1);
                        if (seen & bit)
                                return false;
                        seen |= bit;
                }
                if (!member(reader, number, into))
                        return false;
        }
        return true;
}

static bool parse_map(const uint8_t *data, size_t size, member_reader member, void *into) {
        struct device_cbor_reader reader = { data, data + size };

        return walk(&reader, member, into) && reader.at == reader.end;
}

/* ---- the grant ---- */

struct grant {
        struct device_key key;
        const char *device_id;
        bool names_device;
        bool is_symmetric;
};

static bool copy_string(const struct device_cbor_item *item, uint8_t *into, size_t capacity, uint8_t *size) {
        if (item->value > capacity)
                return false;
        memcpy(into, item->data, (size_t)item->value);
        *size = (uint8_t)item->value;
        return true;
}

static bool cose_key_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        struct grant *grant = into;
        struct device_cbor_item item;
        int64_t number;

        switch (key) {
        case COSE_KEY_KTY:
                if (!device_cbor_read_integer(reader, &number))
                        return false;
                grant->is_symmetric = number == KTY_SYMMETRIC;
                return true;
        case COSE_KEY_KID:
                return device_cbor_expect(reader, DEVICE_CBOR_BYTES, &item) &&
                       copy_string(&item, grant->key.identity, sizeof(grant->key.identity), &grant->key.identity_size);
        case COSE_KEY_K:
                return device_cbor_expect(reader, DEVICE_CBOR_BYTES, &item) &&
                       copy_string(&item, grant->key.key, sizeof(grant->key.key), &grant->key.key_size);
        default:
                return device_cbor_skip(reader);
        }
}

static bool confirmation_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        return key == CNF_COSE_KEY ? walk(reader, cose_key_member, into) : device_cbor_skip(reader);
}

static bool grant_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        struct grant *grant = into;
        struct device_cbor_item item;

        switch (key) {
        case CLAIM_SUB:
                if (!device_cbor_expect(reader, DEVICE_CBOR_TEXT, &item))
                        return false;
                grant->names_device = item.value == strlen(grant->device_id) &&
                                      memcmp(item.data, grant->device_id, (size_t)item.value) == 0;
                return true;
        case CLAIM_CNF:
                return walk(reader, confirmation_member, grant);
        default:
                return device_cbor_skip(reader);
        }
}

bool device_parse_grant(const uint8_t *data, size_t size, const char *device_id, struct device_key *key) {
        struct device_cbor_reader reader = { data, data + size };
        struct device_cbor_item tag;
        struct grant grant;

        memset(&grant, 0, sizeof(grant));
        grant.device_id = device_id;
        if (!device_cbor_expect(&reader, DEVICE_CBOR_TAG, &tag) || tag.value != TAG_UCCS)
                return false;
        if (!walk(&reader, grant_member, &grant) || reader.at != reader.end)
                return false;
        if (!grant.names_device || !grant.is_symmetric || grant.key.identity_size == 0 || grant.key.key_size < KEY_MIN)
                return false;
        *key = grant.key;
        return true;
}

/* ---- /me, /rats/nonce, /time ---- */

static bool me_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        struct device_me *me = into;
        struct device_cbor_reader before = *reader;
        struct device_cbor_item item;
        int64_t number;

        if (key < 1 || key > 6 || key == 2)
                return device_cbor_skip(reader);
        if (!device_cbor_read_integer(reader, &number)) {
                /* "Never" may be null, and a state may be text: nothing here needs them. */
                *reader = before;
                if (!device_cbor_read(reader, &item) || key == 6)
                        return false;
                *reader = before;
                return device_cbor_skip(reader);
        }
        if (key == 1)
                me->state = number;
        else if (key == 3)
                me->rotate_in_sec = number;
        else if (key == 4)
                me->late_in_sec = number;
        else if (key == 5)
                me->attest_in_sec = number;
        else if (number < 0 || number > UINT32_MAX)
                return false;
        else
                me->due = (uint32_t)number;
        return true;
}

bool device_parse_me(const uint8_t *data, size_t size, struct device_me *me) {
        struct device_me parsed = { DEVICE_UNKNOWN, DEVICE_UNKNOWN, DEVICE_UNKNOWN, DEVICE_UNKNOWN, 0 };

        if (!parse_map(data, size, me_member, &parsed))
                return false;
        *me = parsed;
        return true;
}

static bool nonce_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        struct device_nonce *nonce = into;
        struct device_cbor_item item;
        int64_t number;

        if (key == CLAIM_NONCE)
                return device_cbor_expect(reader, DEVICE_CBOR_BYTES, &item) &&
                       copy_string(&item, nonce->bytes, sizeof(nonce->bytes), &nonce->size);
        if (key == 1) {
                if (!device_cbor_read_integer(reader, &number) || number < 0)
                        return false;
                nonce->lives_sec = number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
                return true;
        }
        return device_cbor_skip(reader);
}

bool device_parse_nonce(const uint8_t *data, size_t size, bool is_raw, struct device_nonce *nonce) {
        struct device_nonce parsed;

        memset(&parsed, 0, sizeof(parsed));
        if (is_raw) {
                if (size > sizeof(parsed.bytes))
                        return false;
                if (size > 0)
                        memcpy(parsed.bytes, data, size);
                parsed.size = (uint8_t)size;
        } else if (!parse_map(data, size, nonce_member, &parsed)) {
                return false;
        }
        if (parsed.size < NONCE_MIN)
                return false;
        *nonce = parsed;
        return true;
}

struct time_reply {
        int64_t epoch_sec;
        int64_t quality;
};

static bool time_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        struct time_reply *reply = into;

        if (key == 1)
                return device_cbor_read_integer(reader, &reply->epoch_sec);
        if (key == 2)
                return device_cbor_read_integer(reader, &reply->quality);
        return device_cbor_skip(reader);
}

bool device_parse_time(const uint8_t *data, size_t size, int64_t *epoch_sec, int64_t *quality) {
        struct time_reply reply = { -1, 0 };

        if (!parse_map(data, size, time_member, &reply) || reply.epoch_sec < 0)
                return false;
        *epoch_sec = reply.epoch_sec;
        *quality = reply.quality;
        return true;
}

static bool due_member(struct device_cbor_reader *reader, int64_t key, void *into) {
        int64_t number;

        if (key != 6)
                return device_cbor_skip(reader);
        if (!device_cbor_read_integer(reader, &number) || number < 0 || number > UINT32_MAX)
                return false;
        *(uint32_t *)into = (uint32_t)number;
        return true;
}

uint32_t device_parse_due(const uint8_t *data, size_t size) {
        uint32_t due = 0;

        return parse_map(data, size, due_member, &due) ? due : 0;
}

/* ---- evidence ---- */

static const uint8_t es256[] = { 0xa1, 0x01, 0x26 }; /* {1: -7} */

static void write_text(struct device_cbor_writer *writer, const char *text) {
        device_cbor_write_string(writer, DEVICE_CBOR_TEXT, text, strlen(text));
}

static void write_bytes(struct device_cbor_writer *writer, const void *data, size_t size) {
        device_cbor_write_string(writer, DEVICE_CBOR_BYTES, data, size);
}

/* Keys ascend, as deterministic encoding wants. */
static void write_claims(struct device_cbor_writer *writer, const struct device_claims *claims,
                         const struct device_nonce *nonce) {
        device_cbor_write_head(writer, DEVICE_CBOR_MAP, 5);
        device_cbor_write_integer(writer, CLAIM_NONCE);
        write_bytes(writer, nonce->bytes, nonce->size);
        device_cbor_write_integer(writer, CLAIM_UEID);
        write_bytes(writer, claims->ueid, claims->ueid_size);
        device_cbor_write_integer(writer, CLAIM_SOFTWARE_NAME);
        write_text(writer, claims->software_name);
        device_cbor_write_integer(writer, CLAIM_SOFTWARE_VERSION);
        device_cbor_write_head(writer, DEVICE_CBOR_ARRAY, 1);
        write_text(writer, claims->software_version);
        device_cbor_write_integer(writer, CLAIM_MEASUREMENTS);
        device_cbor_write_head(writer, DEVICE_CBOR_ARRAY, 1);
        device_cbor_write_head(writer, DEVICE_CBOR_ARRAY, 2);
        device_cbor_write_integer(writer, FORMAT_OCTETS);
        write_bytes(writer, claims->measurement, 32);
}

/* The payload as a byte string: its head needs the size, which a dry run gives. */
static void write_payload(struct device_cbor_writer *writer, const struct device_claims *claims,
                          const struct device_nonce *nonce) {
        struct device_cbor_writer dry = *writer;
        size_t size;

        write_claims(&dry, claims, nonce);
        size = dry.size - writer->size;
        device_cbor_write_head(writer, DEVICE_CBOR_BYTES, size);
        write_claims(writer, claims, nonce);
        if (dry.overflow)
                writer->overflow = true;
}

size_t device_build_evidence(const struct device_claims *claims, const char *device_id,
                             const struct device_nonce *nonce, device_signer sign, void *user, uint8_t *buffer,
                             size_t capacity) {
        struct device_cbor_writer writer = { buffer, 0, capacity, false };
        uint8_t signature[64];

        /* Sig_structure: RFC 9052 §4.4. */
        device_cbor_write_head(&writer, DEVICE_CBOR_ARRAY, 4);
        write_text(&writer, "Signature1");
        write_bytes(&writer, es256, sizeof(es256));
        write_bytes(&writer, NULL, 0);
        write_payload(&writer, claims, nonce);
        if (writer.overflow || sign(user, buffer, writer.size, signature) != 0)
                return 0;

        writer.size = 0;
        device_cbor_write_head(&writer, DEVICE_CBOR_TAG, TAG_COSE_SIGN1);
        device_cbor_write_head(&writer, DEVICE_CBOR_ARRAY, 4);
        write_bytes(&writer, es256, sizeof(es256));
        device_cbor_write_head(&writer, DEVICE_CBOR_MAP, 1);
        device_cbor_write_integer(&writer, 4);
        write_bytes(&writer, device_id, strlen(device_id));
        write_payload(&writer, claims, nonce);
        write_bytes(&writer, signature, sizeof(signature));
        return writer.overflow ? 0 : writer.size;
}

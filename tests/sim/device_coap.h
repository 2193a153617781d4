/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_COAP_H
#define DEVICE_COAP_H

/* The CoAP client of a device (RFC 7252, 7641, 7959) inside one DTLS session: one request at a time,
 * one observation, everything in fixed buffers. It knows nothing of what the requests mean.
 *
 * Give it each decrypted datagram (device_coap_input()) and the time when its deadline has come
 * (device_coap_tick()); both say what became of the request under way. All times are milliseconds
 * of a clock that never runs backwards. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest body taken (grant < 100 bytes, /me about 50, a certificate about 500; /crts with two
 * generations of the CA about 2,000). */
#ifndef DEVICE_BODY_MAX
#define DEVICE_BODY_MAX 3200
#endif
/* The largest payload of one datagram: 16, 32, … 1024 (RFC 7959 §2.2). */
#ifndef DEVICE_BLOCK_MAX
#define DEVICE_BLOCK_MAX 512
#endif
/* Header, token, options of our requests: at most 60 bytes. */
#define DEVICE_DATAGRAM_MAX (DEVICE_BLOCK_MAX + 64)
/* Confirmable messages of the gateway remembered, so that a repeated one is acknowledged again. */
#define DEVICE_SEEN_MAX 4

/* RFC 7252 §4.8. */
#define DEVICE_ACK_TIMEOUT_MS 2000
#define DEVICE_MAX_RETRANSMIT 4
/* How long a separate response may take after its empty ACK (MAX_TRANSMIT_WAIT). */
#define DEVICE_SEPARATE_WAIT_MS    93000
#define DEVICE_MAX_AGE_DEFAULT_SEC 60
#define DEVICE_NEVER               UINT64_MAX

#define DEVICE_CODE(class, detail) ((uint8_t)((class) << 5 | (detail)))
#define DEVICE_GET                 DEVICE_CODE(0, 1)
#define DEVICE_POST                DEVICE_CODE(0, 2)

enum device_format {
        DEVICE_FORMAT_NONE = -1,
        DEVICE_FORMAT_OCTETS = 42,
        DEVICE_FORMAT_CBOR = 60,
        DEVICE_FORMAT_PROBLEM = 257,
        DEVICE_FORMAT_EAT_CWT = 263,
        DEVICE_FORMAT_PKCS7_CERTS = 281,
        DEVICE_FORMAT_PKCS10 = 286,
        DEVICE_FORMAT_PKIX_CERT = 287,
        DEVICE_FORMAT_UCCS = 601
};

struct device_bytes {
        const uint8_t *data;
        size_t size;
};

/* One block option: RFC 7959 §2.2. */
struct device_block {
        bool is_present;
        bool has_more;
        uint32_t number;
        uint8_t exponent; /* size is 2 ^ (exponent + 4) */
};

/* A parsed message; slices point into the datagram. */
struct device_message {
        uint8_t type; /* 0 CON, 1 NON, 2 ACK, 3 RST */
        uint8_t code;
        uint16_t id;
        uint8_t token[8];
        uint8_t token_size;
        bool has_observe;
        uint32_t observe;
        int32_t content_format; /* DEVICE_FORMAT_NONE */
        bool has_max_age;
        uint32_t max_age_sec;
        struct device_block block1, block2;
        struct device_bytes etag;
        struct device_bytes payload;
        bool has_unknown_critical;
};

/* False: not a CoAP message (RFC 7252 §3). */
bool device_message_parse(const uint8_t *data, size_t size, struct device_message *message);

/* What to ask. `path` has no leading slash ("rats/nonce"); path and body must stay in place until the
 * request has ended. */
struct device_request {
        uint8_t method;
        const char *path;
        struct device_bytes body;
        int32_t content_format;
        bool observes; /* GET with Observe 0: register, or register again */
};

/* What came back; `body` stays in place until the next request. */
struct device_reply {
        uint8_t code;
        int32_t content_format;
        uint32_t max_age_sec; /* 60 where the reply names none (RFC 7252 §5.10.5) */
        struct device_bytes body;
};

enum device_coap_result {
        DEVICE_COAP_NOTHING,  /* carry on */
        DEVICE_COAP_REPLY,    /* the request under way has ended: see `reply` */
        DEVICE_COAP_NOTIFIED, /* the observed resource changed: see `reply`; body size 0: read it */
        DEVICE_COAP_FAILED,   /* the request under way was rejected or its reply is unusable */
        DEVICE_COAP_SILENCE   /* the request under way got no answer at all */
};

struct device_coap {
        /* Set by the owner before device_coap_init(). */
        int (*send)(void *user, const uint8_t *datagram, size_t size);
        void (*random)(void *user, void *data, size_t size);
        void *user;
        uint32_t ack_timeout_ms; /* 0: DEVICE_ACK_TIMEOUT_MS */
        uint16_t block_bytes;    /* largest block to take and send; 0: DEVICE_BLOCK_MAX, and the
                                  * requests name no size (the gateway's default applies) */

        uint16_t message_id;
        uint32_t token;

        /* The request under way. */
        bool is_busy;
        bool is_acknowledged; /* an empty ACK came: the response comes separately */
        bool takes_blocks;    /* fetching the rest of a reply (Block2) */
        bool has_restarted;   /* the body has been sent anew once already */
        uint8_t exponent;     /* block size in use */
        uint8_t retransmits;
        uint16_t request_id;
        uint8_t request_token[4];
        struct device_request request;
        size_t sent; /* body bytes before the block being sent */
        uint32_t timeout_ms;
        uint64_t deadline;
        uint8_t datagram[DEVICE_DATAGRAM_MAX];
        size_t datagram_size;

        /* The reply as it comes in. */
        uint8_t body[DEVICE_BODY_MAX];
        size_t received;
        uint8_t etag[8];
        uint8_t etag_size;
        struct device_reply reply;

        /* The observation. */
        bool is_observing;
        uint8_t observe_token[4];
        uint32_t observe_sequence;
        uint64_t observed_at;

        uint16_t seen[DEVICE_SEEN_MAX];
        uint8_t seen_count;
        uint8_t seen_next;
};

/* Sets the state to that of a new session: nothing under way, nothing observed. */
void device_coap_init(struct device_coap *coap);
void device_coap_reset(struct device_coap *coap);

/* Sends a request; none may be under way. */
void device_coap_start(struct device_coap *coap, const struct device_request *request, uint64_t now);

enum device_coap_result device_coap_input(struct device_coap *coap, const uint8_t *datagram, size_t size, uint64_t now);
enum device_coap_result device_coap_tick(struct device_coap *coap, uint64_t now);

/* When device_coap_tick() wants to be called; DEVICE_NEVER. */
uint64_t device_coap_deadline(const struct device_coap *coap);

/* Stops wanting notifications: the next one is answered with RST, which tells the gateway
 * (RFC 7641 §3.6). */
void device_coap_forget_observation(struct device_coap *coap);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_H
#define DEVICE_H

/* What a device must do to live with gatewayd, as code to copy.
 *
 * Portable C99: no malloc, no library but <string.h>, everything in one `struct device` of fixed
 * size. You bring a DTLS 1.2 client (Mbed TLS, wolfSSL, tinydtls, OpenSSL), a UDP socket, a clock, a
 * random source and some flash, and connect them by the callbacks below.
 *
 *   device.c           what to ask, when, and what to do with the answer
 *   device_keys.c      with which key to connect, and when
 *   device_enrol.c     certificates: the anchors, the request for the next one, the answer
 *   device_attest.c    challenges and evidence
 *   device_payload.c   the grant, /me, nonce and evidence (CBOR, COSE)
 *   device_certificates.c   where certificates are in EST's answers (DER)
 *   device_coap.c, device_message.c, device_cbor.c   the protocols underneath
 *
 * A device holds either PSKs or certificates, all its life: `config.factory_key`, or `config.idevid`.
 * What is said of keys below holds for both: a certificate is a key with a name on it. Beside its own,
 * a device with certificates keeps the *anchors*: by them it knows the gateway, whose certificate must
 * lead to one of them and carry the name DEVICE_GATEWAY_NAME. A clock it needs for neither.
 *
 * How it runs: call device_init() once at power-up and device_tick() after it. From then on
 *
 *   - when your DTLS handshake completed, was refused, or the session ended, call
 *     device_connected(), device_refused(), device_lost();
 *   - give every decrypted datagram to device_input();
 *   - call device_tick() when the time that it returned last has come. Between two calls the device
 *     may sleep.
 *
 * Each of them may call your callbacks; your callbacks must not call back into the device, except
 * that `connect` and `send` may note something to report later. Nothing here blocks or waits.
 *
 * What it keeps in flash is `struct device_memory`: two slots for keys, and the anchors. It is handed
 * to your `store` callback as a whole whenever it changes (two to four times a rotation), and must be
 * written so that a power cut leaves either the old or the new one: two copies with a checksum will do.
 *
 * Sizes: a device with PSKs alone sets DEVICE_CERTIFICATE_MAX, DEVICE_ANCHORS_MAX and DEVICE_CSR_MAX to 1
 * and DEVICE_BODY_MAX to 512; it then needs about 3 KiB of RAM and 300 bytes of flash, one with
 * certificates about 14 and 6 KiB. */

#include "device_coap.h"
#include "device_payload.h"

/* The dNSName in the gateway's certificate, unless the site's configuration says otherwise (server_name). */
#define DEVICE_GATEWAY_NAME "gatewayd"
/* The anchors, DER, one behind the other: two generations of the CA, what links them, and a chain. */
#ifndef DEVICE_ANCHORS_MAX
#define DEVICE_ANCHORS_MAX 3072
#endif
/* A certificate request: about 250 bytes. */
#ifndef DEVICE_CSR_MAX
#define DEVICE_CSR_MAX 448
#endif
/* A piece of evidence: about 250 bytes. */
#ifndef DEVICE_EVIDENCE_MAX
#define DEVICE_EVIDENCE_MAX 1024
#endif

/* How long the newest key must have failed before the second slot is tried: PROTOCOL.md. */
#define DEVICE_FALL_BACK_SEC (24UL * 3600UL)
/* How often that time is written to flash while it runs, so that reboots do not start it anew. */
#define DEVICE_FAILING_STORE_SEC 3600UL
/* Pauses between attempts while the gateway is away: doubled each time, with jitter. */
#define DEVICE_BACKOFF_MIN_MS 2000UL
#define DEVICE_BACKOFF_MAX_MS 600000UL
/* Pauses after an answer that says no, or says again what was just done. */
#define DEVICE_RETRY_MIN_SEC 60UL
#define DEVICE_RETRY_MAX_SEC 3600UL
/* A handshake that your DTLS neither finishes nor gives up is given up here. */
#define DEVICE_HANDSHAKE_MAX_MS 120000UL
/* A new key that meets silence this often in a row makes room for one try with the old one. */
#define DEVICE_PENDING_TRIES 3

/* What must survive a power cut. Zeroed: a device fresh from the factory. */
struct device_memory {
        struct device_key slot[2];
        uint8_t has_newest;   /* slot[newest] has opened a session */
        uint8_t newest;       /* 0 or 1 */
        uint8_t has_pending;  /* slot[1 - newest] (slot[0] without a newest) is granted, not yet used */
        uint32_t failing_sec; /* powered-on time since the newest key began to fail */

        /* With certificates: the request under way, which is sent again unchanged until it is answered (the
         * gateway knows it by that), with its private key; and the anchors. csr_size 0: none. */
        uint8_t asked_key[DEVICE_KEY_MAX];
        uint8_t asked_key_size;
        uint8_t anchors_proven; /* a gateway has shown a certificate that leads to them */
        uint16_t csr_size;
        uint16_t anchors_size; /* 0: none but the factory's */
        uint8_t csr[DEVICE_CSR_MAX];
        uint8_t anchors[DEVICE_ANCHORS_MAX];
};

/* Which key a session is, or is being, made with. */
enum device_key_choice {
        DEVICE_KEY_FACTORY,
        DEVICE_KEY_NEWEST,
        DEVICE_KEY_PENDING, /* just granted: its first handshake proves it to the gateway */
        DEVICE_KEY_SECOND   /* the one before the newest: only after 24 h of failure */
};

/* Pointers are borrowed for the life of the device. */
struct device_config {
        const char *id; /* device id; also the PSK identity of the factory key */
        /* The factory key: a PSK of 16 to 64 bytes; with `idevid` its private key, as port.request makes
         * them (empty: your TLS stack has it in a secure element). */
        const uint8_t *factory_key;
        size_t factory_key_size;
        struct device_bytes idevid; /* DER, this device's first; empty: the device holds PSKs */
        /* The site's CA, put in at the factory or at installation. Without it the first gateway that answers
         * is trusted for one request, that for its anchors, which it must then live up to: whoever is in
         * the way at that moment stays in the way. Never again after the first certificate. */
        struct device_bytes anchors;
        struct device_claims claims; /* for evidence; needed where port.sign is given */
        uint8_t grant_key_bytes;     /* ask for keys of this size; 0: what the profile says */
        uint16_t block_bytes;        /* largest CoAP block, named in requests; 0: the gateway's default */
        bool observes;               /* stay connected and observe /me; false: sleep, poll by Max-Age */
        bool stays_connected;        /* keep the session while there is nothing to do */
        bool wants_time;             /* read /time once a day */
        /* 0: the standard values above. Shorter ones are for tests. */
        uint32_t ack_timeout_ms, backoff_min_ms, backoff_max_ms;
};

enum device_event_kind {
        DEVICE_EVENT_CONNECTED,         /* handshake completed, with `choice` */
        DEVICE_EVENT_REFUSED,           /* handshake refused, with `choice` */
        DEVICE_EVENT_NO_ANSWER,         /* handshake unanswered, with `choice` */
        DEVICE_EVENT_LOST,              /* an open session ended */
        DEVICE_EVENT_GRANTED,           /* a new key is stored, not yet used; `body`: the answer */
        DEVICE_EVENT_PROVEN,            /* the new key opened its first session: it is the newest now */
        DEVICE_EVENT_ME,                /* /me was read */
        DEVICE_EVENT_NOTIFIED,          /* /me came as a notification */
        DEVICE_EVENT_OBSERVING,         /* /me is observed from now on; not when an observation is confirmed */
        DEVICE_EVENT_EVIDENCE_SENT,     /* `body`: the evidence, about to be sent for the first time */
        DEVICE_EVENT_EVIDENCE_ACCEPTED, /* `body`: the gateway's appraisal */
        DEVICE_EVENT_TIME,              /* `body`: /time */
        DEVICE_EVENT_ANCHORS,           /* the anchors were fetched and stored; `body`: the answer */
        DEVICE_EVENT_ERROR,             /* the gateway answered with an error: `path`, `code`, `body` (RFC 9290) */
        DEVICE_EVENT_UNUSABLE,          /* a reply to `path` was malformed or impossible */
        DEVICE_EVENT_UNANSWERED,        /* a request to `path` stayed without answer */
        DEVICE_EVENT_NOT_STORED,        /* the store callback failed: the grant is not used */
        DEVICE_EVENT_LOCKED_OUT         /* no key that it may use opens a session: somebody must look at it */
};

struct device_event {
        enum device_event_kind kind;
        enum device_key_choice choice;
        const char *path;
        uint8_t code;
        struct device_bytes body; /* valid during the call */
};

struct device_port {
        void *user;
        /* Milliseconds since power-up; never backwards, asleep time included. */
        uint64_t (*now)(void *user);
        /* Good random bytes: tokens and jitter. */
        void (*random)(void *user, void *data, size_t size);
        /* Begin a DTLS handshake with this key; it stays in place until the next call. Answer later by
         * device_connected(), device_refused() or device_lost().
         *   A PSK: offer PSK suites alone; `anchors` is empty.
         *   A certificate: offer ECDHE-ECDSA suites alone, show it, and hold the gateway's own against
         * `anchors` (concatenated DER, each to be trusted by itself; pass over one that your stack cannot
         * read) and DEVICE_GATEWAY_NAME. Dates count only if you have a clock that you trust more than the
         * gateway's. Where `anchors` is empty take any certificate: nothing is asked but /est/crts. A
         * gateway that does not pass is device_lost(), never device_refused(). */
        void (*connect)(void *user, const struct device_key *key, struct device_bytes anchors);
        /* End the session (close_notify) or give up the handshake. */
        void (*disconnect)(void *user);
        /* Send one CoAP message on the session. Losing it is no error. */
        int (*send)(void *user, const uint8_t *datagram, size_t size);
        /* Keep this; return 0 only once a power cut can no longer undo it. */
        int (*store)(void *user, const struct device_memory *memory);
        /* ES256; NULL for a device that does not attest. */
        device_signer sign;
        /* With certificates, else NULL. Make a key pair (P-256) and a request (PKCS#10, RFC 2986) signed with
         * it that has the subject of `certificate`, which is what the request will be sent over: EST wants a
         * renewal to keep its name (RFC 7030 §4.2.2). Write the private key, or the name of the place where a
         * secure element keeps it, to key->key and key_size; return the size of the request's DER, or 0. */
        size_t (*request)(void *user, struct device_bytes certificate, struct device_key *key, uint8_t *csr,
                          size_t capacity);
        /* Is `certificate` (DER) for the key in key->key? Then write what logs shall call it to key->identity
         * and identity_size (not 0), and return 0. */
        int (*matches)(void *user, struct device_key *key, struct device_bytes certificate);
        /* What happened, for logs and displays; may be NULL. */
        void (*event)(void *user, const struct device_event *event);
};

/* Members are for device.c and the files beside it; read them through the functions below. */
struct device {
        struct device_config config;
        struct device_port port;
        struct device_memory memory;
        struct device_coap coap;

        uint8_t phase;      /* no session, connecting, online */
        uint8_t choice;     /* enum device_key_choice of the session or the next attempt */
        uint8_t task;       /* the request under way */
        bool was_observing; /* before it */
        struct device_key factory;

        uint64_t connect_at;    /* not before: back-off */
        uint64_t connect_until; /* the handshake under way is given up then */
        uint32_t backoff_ms;
        uint8_t pending_silences; /* attempts with the new key that met silence, in a row */
        bool prefers_old;         /* the new key was refused: the old one is next */
        bool tries_second;        /* the newest key failed for 24 h: the second slot is next */
        bool tried_dropped;       /* a first grant that never opened a session was tried once more */
        uint8_t refused_keys;     /* bit per enum device_key_choice, cleared by a success */
        bool is_locked_out;

        bool is_failing; /* the newest key is failing since `failing_from` */
        uint64_t failing_from;
        uint64_t failing_stored_at;

        /* What to do and when; DEVICE_NEVER: nothing. */
        uint64_t me_at, grant_at, attest_at, time_at, anchors_at;
        uint32_t me_pause_sec, grant_pause_sec, attest_pause_sec, anchors_pause_sec;
        bool grant_needs_evidence; /* /cred said no: ask again once evidence was taken */
        struct device_me me;
        bool has_me;

        /* Evidence kept until the gateway has it, and sent again unchanged if the reply was lost. */
        uint8_t evidence[DEVICE_EVIDENCE_MAX];
        size_t evidence_size;
        uint8_t request_body[8];
};

/* `memory`: what was stored last; NULL for none. Copies all three. */
void device_init(struct device *device, const struct device_config *config, const struct device_port *port,
                 const struct device_memory *memory);

/* Does what is due. Returns when to be called again, in milliseconds of port.now. Every other function
 * below may bring that time forward: ask again after each, or use what they return. */
uint64_t device_tick(struct device *device);

/* The handshake begun by `connect` completed: the gateway has shown that it knows the key. */
uint64_t device_connected(struct device *device);
/* The gateway answered the handshake with a fatal alert that concerns the key: unknown_psk_identity (115),
 * access_denied (49), decrypt_error (51), bad_record_mac (20); of a certificate also 42 and 44 to 46
 * (bad, revoked, expired, unknown) and unknown_ca (48). */
uint64_t device_refused(struct device *device);
/* The handshake got no answer, or any other alert (close_notify, internal_error, or handshake_failure,
 * which speaks of cipher suites), or the open session has ended. */
uint64_t device_lost(struct device *device);
/* A decrypted datagram of the open session. */
uint64_t device_input(struct device *device, const uint8_t *datagram, size_t size);

/* The local act (button, reflash) after which the factory key may be used again: forgets both slots, and
 * the anchors. */
uint64_t device_factory_reset(struct device *device);

/* Turns observing on or off while running. */
uint64_t device_observe(struct device *device, bool observes);

/* Has an operational key, has read /me within its Max-Age, and nothing is due or under way. */
bool device_is_settled(const struct device *device);
bool device_is_online(const struct device *device);
bool device_is_operational(const struct device *device);
bool device_is_locked_out(const struct device *device);
/* The key in use, or the one that the next attempt will use. */
const struct device_key *device_current_key(const struct device *device);
/* By what it knows the gateway; empty: by nothing yet. */
struct device_bytes device_anchors(const struct device *device);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the roles say to each other: the bodies of frames (link.h).
 *
 * Every message has one struct, one function that writes its body and one that reads it; slices in
 * a message that was read borrow from the frame. Readers return 0 or -EBADMSG. */

#include "gatewayd/bytes.h"
#include "gatewayd/link.h"
#include "gatewayd/secret.h"

enum frame_type {
        /* supervisor ⇄ any role */
        FRAME_SETUP = 1,   /* supervisor → role: descriptors and settings; struct message_setup */
        FRAME_READY,       /* role → supervisor: set up and locked in; empty */
        FRAME_PING,        /* supervisor → role; empty */
        FRAME_PONG,        /* role → supervisor; empty */
        FRAME_STOP,        /* supervisor → role: end in order; empty */
        FRAME_RELOAD,      /* supervisor → core: a new configuration, as one descriptor; empty */
        FRAME_RELOADED,    /* core → supervisor: u8 1 taken, 0 refused */
        FRAME_STATUS_LINE, /* core → supervisor: text for the service manager */
        FRAME_PEER,        /* supervisor → core: a new south or north; descriptors; struct message_setup */

        /* south → core, lookup link */
        FRAME_PSK = 16, /* struct message_psk */
        /* core → south, lookup link */
        FRAME_PSK_ANSWER,         /* struct message_psk_answer */
        FRAME_CERTIFICATE,        /* south → core: struct message_certificate */
        FRAME_CERTIFICATE_ANSWER, /* struct message_certificate_answer */

        /* south → core, exchange link */
        FRAME_CONNECTED = 32,   /* struct message_connected; never dropped */
        FRAME_CLOSED,           /* struct message_closed; never dropped */
        FRAME_REQUEST,          /* struct message_request; south answers 5.03 when refused */
        FRAME_HANDSHAKE_FAILED, /* struct message_handshake_failed; may drop */
        FRAME_SOUTH_STATISTICS, /* u32 count, then that many u64 (enum south_counter); may drop */
        /* core → south, exchange link */
        FRAME_REPLY = 48, /* struct message_reply; may drop, the device retransmits */
        FRAME_EVICT,      /* struct message_evict; never dropped */
        FRAME_NOTIFY,     /* struct message_reply with exchange 0 and the path; may drop */
        /* struct message_server_credentials; never dropped. Sent first to each new south, which is not ready
         * before; again whenever they change. */
        FRAME_SERVER_CREDENTIALS,

        /* core ⇄ north */
        FRAME_RECORD = 64, /* core → north: struct message_record */
        FRAME_DELIVERED,   /* north → core: struct message_delivered */
        FRAME_PARKED,      /* north → core: struct message_parked */
        FRAME_RESULT,      /* north → core: struct message_result */
        FRAME_UPLINK,      /* north → core: struct message_uplink */
        FRAME_NORTH_HELLO, /* core → north: struct message_north_hello, once, first */
        FRAME_TRY_NOW,     /* core → north: do not wait for the back-off; empty */
        FRAME_ENROL,       /* core → north: struct message_enrol */
        FRAME_ENROLLED,    /* north → core: struct message_enrolled */
        FRAME_ANCHORS,     /* north → core: the upstream EST server's /cacerts, certs-only CMS DER */
        /* core → north: a client certificate that gatewayd renewed; struct message_server_credentials */
        FRAME_CLIENT_CREDENTIALS,
        FRAME_CLIENT_CERTIFICATE, /* north → core: the one it shows upstream from now on, DER */
};

enum role {
        ROLE_SUPERVISOR,
        ROLE_CORE,
        ROLE_SOUTH,
        ROLE_NORTH,
};
#define ROLE_COUNT 4
const char *role_name(enum role role);

/* Descriptors by role, the configuration (config_load_descriptor()) always last. core: none more. south:
 * lookup, exchange, UDP socket. north: core link.
 * As FRAME_PEER to core: south's lookup and exchange ends, or north's end. */
struct message_setup {
        enum role role;      /* of the receiver; in FRAME_PEER: of the peer */
        uint32_t generation; /* counts starts of that role; the upper half of session handles */
};

/* A session handle: generation << 32 | number, never 0, never reused within a boot of the service. */
typedef uint64_t session_handle;

struct message_psk {
        uint32_t question;        /* echoed in the answer */
        struct bytes identity;    /* PSK identity as received, 1 to 128 bytes */
        struct bytes peer;        /* "192.0.2.1:40000" or "[2001:db8::1]:40000" */
        bool has_forward_secrecy; /* the cipher suite chosen has an (EC)DHE */
};

struct message_psk_answer {
        uint32_t question;
        bool is_found;
        struct secret key; /* empty when not found */
};

/* The most that a client's certificates may be together, DER. */
#define CERTIFICATES_MAX (16 * 1024)
#define TLS_UNIQUE_MAX   64

struct message_certificate {
        uint32_t question;  /* echoed in the answer */
        struct bytes chain; /* what the client sent: DER certificates, concatenated, the leaf first */
        struct bytes peer;
};

/* Which alert the client gets (RFC 5246 §7.2.2). */
enum certificate_verdict {
        CERTIFICATE_ACCEPTED,
        CERTIFICATE_REFUSED, /* access_denied */
        CERTIFICATE_UNKNOWN_CA,
        CERTIFICATE_EXPIRED,
        CERTIFICATE_REVOKED,
        CERTIFICATE_BAD, /* bad_certificate: cannot be read, must not be used like this */
};

struct message_certificate_answer {
        uint32_t question;
        enum certificate_verdict verdict;
};

struct message_server_credentials {
        struct bytes key;   /* PKCS#8 DER; empty with `chain`: there are none, PSK only */
        struct bytes chain; /* DER certificates, concatenated, the leaf first, without a root */
};

struct message_connected {
        session_handle session;
        struct bytes identity; /* of a PSK; empty in a certificate session */
        struct bytes chain;    /* as in message_certificate; empty in a PSK session */
        /* RFC 5929 §3: the client's Finished, 12 bytes; empty without extended master secret (RFC 7627), for it
         * then proves nothing. */
        struct bytes tls_unique;
        struct bytes peer;
        struct bytes suite; /* OpenSSL's name of the cipher suite */
        bool has_forward_secrecy;
        uint64_t begun_usec;    /* CLOCK_MONOTONIC when the ClientHello with the cookie came */
        uint64_t finished_usec; /* CLOCK_MONOTONIC when its Finished was verified */
};

enum close_reason {
        CLOSE_BY_PEER,  /* close_notify or a fatal alert on the session */
        CLOSE_REPLACED, /* a new session on the same address proved itself */
        CLOSE_IDLE,
        CLOSE_EVICTED,
        CLOSE_SHUTDOWN,
        CLOSE_ERROR,
};

struct message_closed {
        session_handle session;
        enum close_reason reason;
};

struct message_request {
        session_handle session;
        uint64_t exchange; /* south's number of this exchange, echoed in the reply */
        uint16_t message_id;
        struct bytes token;     /* 0 to 8 bytes */
        uint8_t method;         /* enum code, 1 to 7 */
        struct bytes path;      /* segments joined by '/', without the leading one: "rats/nonce" */
        struct bytes query;     /* Uri-Query options joined by '&' */
        int32_t content_format; /* FORMAT_NONE when absent */
        int32_t accept;         /* FORMAT_NONE when absent */
        int32_t observe;        /* -1 absent, 0 register, 1 deregister */
        struct bytes payload;
};

struct message_reply {
        session_handle session;
        uint64_t exchange; /* 0 in FRAME_NOTIFY */
        uint8_t code;
        int32_t content_format; /* FORMAT_NONE: no option */
        int64_t max_age_sec;    /* -1: no option */
        uint32_t size1;         /* 0: no option */
        uint16_t block_size;    /* 16 to 1024: used where the client names none */
        bool is_observed;       /* the registration is accepted: south adds an observer */
        struct bytes path;      /* in FRAME_NOTIFY: whose observers; else empty */
        struct bytes payload;
};

struct message_evict {
        session_handle session;
};

enum handshake_failure {
        FAILED_UNKNOWN_IDENTITY, /* core did not know the identity or refused it */
        FAILED_WRONG_KEY,        /* identity known, Finished never verified */
        FAILED_TIMEOUT,          /* half-open for too long before the identity came */
        FAILED_NO_SUITE,         /* no cipher suite in common */
        FAILED_NO_ANSWER,        /* core did not answer the lookup in time */
        FAILED_PROTOCOL,         /* anything else OpenSSL objected to */
        FAILED_NO_CERTIFICATE,   /* a certificate suite was chosen and the client has no certificate */
        FAILED_CERTIFICATE,      /* core refused its certificate */
};
const char *handshake_failure_name(enum handshake_failure failure);

struct message_handshake_failed {
        enum handshake_failure failure;
        struct bytes identity; /* empty when it never came */
        struct bytes peer;
        uint32_t count; /* how many of this kind from this peer address since the last frame */
};

/* What south counts; the order is the frame's. */
enum south_counter {
        SOUTH_SESSIONS,   /* established now */
        SOUTH_HALF_OPEN,  /* handshaking now */
        SOUTH_HANDSHAKES, /* completed */
        SOUTH_HANDSHAKES_FAILED,
        SOUTH_HELLOS, /* ClientHellos without a valid cookie: answered without state */
        SOUTH_DATAGRAMS_IN,
        SOUTH_DATAGRAMS_OUT,
        SOUTH_DATAGRAMS_DROPPED,
        SOUTH_REQUESTS,
        SOUTH_REQUESTS_REFUSED, /* answered 5.03 because core's link was full */
        SOUTH_REPLIES_LATE,     /* answered as separate responses */
        SOUTH_OBSERVERS,        /* now */
        SOUTH_NOTIFICATIONS,
        SOUTH_BLOCK_BODIES, /* bodies being reassembled now */
        SOUTH_COUNTERS,
};

/* One piece of evidence on its way upstream. */
struct message_record {
        uint64_t sequence;
        struct bytes device;
        int32_t content_format;
        struct bytes nonce;    /* the challenge */
        struct bytes receipt;  /* COSE_Sign1 */
        struct bytes evidence; /* empty where it was parked: the receipt goes alone */
};

struct message_delivered {
        uint64_t sequence; /* this record is stored upstream */
};

struct message_parked {
        uint64_t sequence;
        uint16_t http_status;
        struct bytes reason; /* text */
};

/* An appraisal from upstream. */
struct message_result {
        uint64_t sequence;
        uint8_t tier;         /* 0 none, 2 affirming, 32 warning, 96 contraindicated */
        struct bytes ear_jwt; /* verbatim, or empty (collector) */
};

struct message_uplink {
        bool is_up;
        struct bytes reason; /* why it is down, as text */
        uint64_t retry_sec;  /* until the next try */
};

struct message_north_hello {
        struct bytes gateway_id;
        struct bytes incarnation; /* 8 bytes */
};

/* One CSR for the upstream CA (RFC 7030 §4.2). */
struct message_enrol {
        uint64_t number; /* echoed in the answer */
        bool is_renewal; /* simplereenroll */
        struct bytes csr;
};

enum enrol_outcome {
        ENROL_ISSUED,
        ENROL_LATER,   /* 202 or 503: ask again after retry_sec */
        ENROL_REFUSED, /* upstream said no (4xx) */
        ENROL_FAILED,  /* no answer, or one that is none: try again */
};

struct message_enrolled {
        uint64_t number; /* 0: about the EST server itself, see north.h */
        enum enrol_outcome outcome;
        uint16_t http_status;      /* 0: no way to the server; 502 and 504 as a proxy would say them */
        uint64_t retry_sec;        /* 0: not said */
        struct bytes certificates; /* certs-only CMS, DER, with ENROL_ISSUED */
        struct bytes reason;       /* text */
};

void message_write_setup(const struct message_setup *m, struct buffer *to);
int message_read_setup(struct bytes body, struct message_setup *ret);
void message_write_psk(const struct message_psk *m, struct buffer *to);
int message_read_psk(struct bytes body, struct message_psk *ret);
void message_write_psk_answer(const struct message_psk_answer *m, struct buffer *to);
int message_read_psk_answer(struct bytes body, struct message_psk_answer *ret);
void message_write_connected(const struct message_connected *m, struct buffer *to);
int message_read_connected(struct bytes body, struct message_connected *ret);
void message_write_closed(const struct message_closed *m, struct buffer *to);
int message_read_closed(struct bytes body, struct message_closed *ret);
void message_write_request(const struct message_request *m, struct buffer *to);
int message_read_request(struct bytes body, struct message_request *ret);
void message_write_reply(const struct message_reply *m, struct buffer *to);
int message_read_reply(struct bytes body, struct message_reply *ret);
void message_write_evict(const struct message_evict *m, struct buffer *to);
int message_read_evict(struct bytes body, struct message_evict *ret);
void message_write_handshake_failed(const struct message_handshake_failed *m, struct buffer *to);
int message_read_handshake_failed(struct bytes body, struct message_handshake_failed *ret);
void message_write_record(const struct message_record *m, struct buffer *to);
int message_read_record(struct bytes body, struct message_record *ret);
void message_write_delivered(const struct message_delivered *m, struct buffer *to);
int message_read_delivered(struct bytes body, struct message_delivered *ret);
void message_write_parked(const struct message_parked *m, struct buffer *to);
int message_read_parked(struct bytes body, struct message_parked *ret);
void message_write_result(const struct message_result *m, struct buffer *to);
int message_read_result(struct bytes body, struct message_result *ret);
void message_write_uplink(const struct message_uplink *m, struct buffer *to);
int message_read_uplink(struct bytes body, struct message_uplink *ret);
void message_write_north_hello(const struct message_north_hello *m, struct buffer *to);
int message_read_north_hello(struct bytes body, struct message_north_hello *ret);
void message_write_certificate(const struct message_certificate *m, struct buffer *to);
int message_read_certificate(struct bytes body, struct message_certificate *ret);
void message_write_certificate_answer(const struct message_certificate_answer *m, struct buffer *to);
int message_read_certificate_answer(struct bytes body, struct message_certificate_answer *ret);
void message_write_server_credentials(const struct message_server_credentials *m, struct buffer *to);
int message_read_server_credentials(struct bytes body, struct message_server_credentials *ret);
void message_write_enrol(const struct message_enrol *m, struct buffer *to);
int message_read_enrol(struct bytes body, struct message_enrol *ret);
void message_write_enrolled(const struct message_enrolled *m, struct buffer *to);
int message_read_enrolled(struct bytes body, struct message_enrolled *ret);

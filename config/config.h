/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The configuration, read and validated. Everything here is plain data: no libconfig type leaves
 * this folder. Every key is explained in gatewayd.conf beside this file. */

#include "config/calendar.h"
#include "gatewayd/bytes.h"

#define PROFILE_NAME_MAX 64
#define CONFIG_TEXT_MAX  256

enum attestation_kind { ATTESTATION_NONE, ATTESTATION_EAT, ATTESTATION_PSA };
enum on_overdue { OVERDUE_KEEP, OVERDUE_RESTRICT, OVERDUE_QUARANTINE };
enum on_factory_key { FACTORY_ATTEST, FACTORY_WINDOW, FACTORY_REFUSE };
enum on_conflict { CONFLICT_ATTEST, CONFLICT_ALLOW, CONFLICT_QUARANTINE };
enum forward_secrecy { FORWARD_SECRECY_PREFER, FORWARD_SECRECY_REQUIRE };
enum level { LEVEL_LOW, LEVEL_MEDIUM, LEVEL_HIGH };
enum device_stack { STACK_ANY, STACK_MBEDTLS, STACK_TINYDTLS, STACK_WOLFSSL };
enum psk_format { PSK_TEXT, PSK_RAW };
enum sandbox_demand { SANDBOX_REQUIRED, SANDBOX_WEAK };
enum profile_credential { PROFILE_PSK, PROFILE_CERTIFICATE };
enum idevid_identity { IDEVID_SERIAL_NUMBER, IDEVID_SAN };
enum idevid_enrolment { ENROLMENT_LISTED, ENROLMENT_AUTOMATIC };
enum rekey { REKEY_OPTIONAL, REKEY_REQUIRED };
enum tls_unique_demand { TLS_UNIQUE_VERIFY, TLS_UNIQUE_OFF, TLS_UNIQUE_REQUIRED };
enum profile_ca { CA_LOCAL, CA_UPSTREAM };
enum upstream_offline { OFFLINE_WAIT, OFFLINE_LOCAL };
/* A set: 1 << enum device_key_type. */
enum device_key_type { DEVICE_KEY_P256, DEVICE_KEY_P384, DEVICE_KEY_ED25519, DEVICE_KEY_RSA };
enum ca_key_type { CA_KEY_P256, CA_KEY_P384, CA_KEY_ED25519 };
enum verifier_kind { VERIFIER_NONE, VERIFIER_COLLECTOR };

/* One acceptable state of a device's software: all members that are set must match the evidence. */
struct reference_value {
        char swname[64];    /* EAT 270; empty: any */
        char swversion[64]; /* EAT 271; empty: any */
        uint8_t digest[64]; /* SHA-256 32, SHA-384 48 or SHA-512 64 bytes: one measurement must equal it */
        size_t digest_size; /* 0: none demanded */
};

/* A certificate out of a file that the configuration names, as DER. */
struct anchor {
        uint8_t *der;
        size_t size;
        uint8_t digest[32]; /* SHA-256 of the DER */
};

struct profile {
        char name[PROFILE_NAME_MAX + 1];
        /* What operational credentials are: /cred grants PSKs, EST issues certificates; the other way is closed. */
        enum profile_credential credential;
        int64_t rotate_every_sec;
        double jitter;                /* 0 to 0.5: the share of the interval by which due times spread */
        struct calendar *rotate_at;   /* then due when it first elapses after the issue, or by rotate_every, whichever
                                         comes first; NULL: by rotate_every alone */
        struct calendar *maintenance; /* rotations are offered only in windows that begin then ... */
        int64_t maintenance_sec;      /* ... and last that long; NULL: at any time */
        int64_t grace_sec;            /* how long the predecessor lives after the successor is proven */
        int64_t max_age_sec;          /* of an operational key without rotation; then on_overdue */
        int64_t attest_every_sec;     /* 0 with ATTESTATION_NONE */
        enum attestation_kind attestation;
        enum on_overdue on_overdue;
        enum on_factory_key on_factory_key;
        enum on_conflict on_conflict;
        size_t psk_bytes;           /* 16 to 64; default 32 */
        enum psk_format psk_format; /* text: base64url characters (multiples of 4 only), else raw */
        bool text_grant;            /* may /cred answer "kid SP key LF" */
        enum forward_secrecy forward_secrecy;
        enum level sensitivity, criticality;
        enum device_stack stack;
        int64_t max_session_sec; /* default 24 h */
        uint16_t block_size;     /* default 512 */
        int64_t challenge_sec;   /* how long a nonce lives; default 5 min */
        struct reference_value *references;
        size_t reference_count;

        /* Certificates */
        struct anchor *anchors; /* "idevid_anchors": the manufacturer's CAs; 0: no IDevIDs */
        size_t anchor_count;
        enum idevid_identity idevid_identity;   /* where in the IDevID the device id stands */
        enum idevid_enrolment idevid_enrolment; /* "listed": registered before; "automatic": by the anchor alone */
        int64_t validity_sec;                   /* of an LDevID; default 90 d */
        double renew_at;    /* share of a certificate's life after which it is due; default 0.66. With
                                 PROFILE_CERTIFICATE rotate_every_sec = validity × renew_at */
        enum rekey rekey;   /* whether sren (and sen after the first) must bring a new key */
        unsigned key_types; /* of CSRs; default P-256, P-384, Ed25519 */
        unsigned rsa_bits;  /* least; default 2048 */
        bool server_keygen; /* skg and skc */
        bool est_over_psk;  /* LwM2M security mode 4 */
        enum tls_unique_demand tls_unique;
        enum profile_ca ca;
        enum upstream_offline upstream_offline;
};

/* The site's issuing CA; group `ca`. */
struct ca_config {
        char subject[CONFIG_TEXT_MAX]; /* default "CN=gatewayd CA <gateway id>" */
        enum ca_key_type key_type;     /* of keys made here; default P-256 */
        char providers[4][32];         /* OpenSSL providers to load besides default: "tpm2", … */
        size_t provider_count;
        char pkcs11_module[CONFIG_TEXT_MAX]; /* path of the token's module, for pkcs11: URIs */
        char paths[8][CONFIG_TEXT_MAX];      /* what providers and modules must reach behind the wall */
        size_t path_count;
        int64_t validity_sec;        /* of a root made here; default 10 y */
        double successor_at;         /* share of the CA's life after which a successor is made; default 0.5 */
        int64_t announce_sec;        /* how long it is announced before it signs; default 30 d */
        int64_t backdate_sec;        /* of notBefore; default 1 h */
        char server_name[64];        /* default "gatewayd" */
        int64_t server_validity_sec; /* default 30 d; renewed after two thirds */
        int64_t crl_validity_sec;    /* thisUpdate to nextUpdate; default 30 d; made anew at half of it */
};

struct north_config {
        enum verifier_kind verifier;
        char url[CONFIG_TEXT_MAX];     /* https://… of the collector */
        char ca_file[CONFIG_TEXT_MAX]; /* trust anchors for the upstream; empty: the system's */
        char client_certificate[CONFIG_TEXT_MAX];
        char client_key[CONFIG_TEXT_MAX];
        int64_t retry_min_sec, retry_max_sec; /* 1 s and 5 min */
        size_t batch_records;                 /* per POST; default 64 */
        int64_t timeout_sec;                  /* of one POST; default 30 */
        char est_url[CONFIG_TEXT_MAX]; /* "https://host/.well-known/est[/label]", the owner's EST server; empty: none */
        bool est_renews_ca;            /* the gateway's sub-CA is renewed there too */
        bool est_renews_client;        /* and the client certificate, which then lives in the store */
};

/* The gateway's own keys; group `keys`. */
struct keys_config {
        int64_t receipt_every_sec;  /* default 1 y */
        int64_t data_every_sec;     /* default 90 d */
        int64_t sealing_every_sec;  /* after that operators are reminded; 0: never; default 2 y */
        int64_t recovery_every_sec; /* the same of the recovery key; default 2 y */
        char backup_recipient[128]; /* "age1…"; empty: the store's recovery key */
};

struct config {
        char gateway_id[65]; /* default: from the machine id, application-specific */
        char listen[8][64];  /* "[::]:5684" … address:port texts; exactly one in use today */
        size_t listen_count;
        char store_path[CONFIG_TEXT_MAX];   /* default /var/lib/gatewayd/store.db */
        char control_path[CONFIG_TEXT_MAX]; /* default /run/gatewayd/control */
        enum sandbox_demand sandbox;
        unsigned max_sessions;   /* default 20000 */
        size_t max_body_bytes;   /* default 16 KiB, 1 to 64 KiB */
        int64_t backlog_records; /* evidence kept for upstream; default 1000000 */
        int64_t backlog_bytes;   /* default 1 GiB */
        int64_t audit_keep_sec;  /* default 5 years of powered-on time; 0 for ever */
        struct north_config north;
        struct ca_config ca;
        unsigned offers_per_second; /* devices that the schedule calls in a second at most; default 50 */
        struct keys_config keys;
        int64_t horizon_warn_sec;      /* an event when the offline horizon comes nearer; default 30 d */
        int64_t class_limit_sec[3][3]; /* longest rotate_every by [sensitivity][criticality] */
        struct profile *profiles;
        size_t profile_count;
};

/* A list of problems, each `file:line: what is wrong, what is allowed`. */
struct config_problems {
        char **lines;
        size_t count;
};
void config_problems_free(struct config_problems *problems);

/* Reads `path` and the drop-ins in the folder conf.d beside it (in order of name; a drop-in's
 * profile of the same name replaces single keys of it), applies defaults, validates all.
 * Returns 0 and the configuration, or -EINVAL/-ENOENT/… with at least one line in `problems`.
 * Warnings (factory keys a stack cannot hold and the like) go to `problems` with return 0 and
 * begin, after the place, with "warning:". */
int config_load(const char *path, struct config **ret, struct config_problems *problems);
/* The same, and *ret_fd is a sealed memory file (close-on-exec) with all the texts that were read. Whoever
 * gets that descriptor gets this configuration, whatever has become of the files since: a role that is
 * started again must not meet a file that was refused. */
int config_load_snapshot(const char *path, int *ret_fd, struct config **ret, struct config_problems *problems);
/* Reads the configuration out of such a descriptor; its offset is neither used nor moved. As config_load(),
 * or -EBADMSG where it is no snapshot. */
int config_load_descriptor(int fd, struct config **ret, struct config_problems *problems);
struct config *config_free(struct config *config);
void config_freep(struct config **config);

/* NULL when there is none of that name. */
const struct profile *config_profile(const struct config *config, const char *name);

/* Parses a time span as systemd writes them ("30d", "12h 30min", "90", "1month", "2weeks"; a bare
 * number is seconds). Returns 0, -EINVAL, -ERANGE. systemd.time(7). */
int timespan_parse(const char *text, int64_t *ret_sec);
/* Writes the shortest such text ("30d", "1h 30min"). `to` has room for 64 characters. */
void timespan_format(int64_t seconds, char *to);

/* Names as they stand in the configuration, for messages and gatewayctl. */
const char *attestation_kind_name(enum attestation_kind v);
const char *on_overdue_name(enum on_overdue v);
const char *on_factory_key_name(enum on_factory_key v);
const char *on_conflict_name(enum on_conflict v);
const char *profile_credential_name(enum profile_credential v);
const char *profile_ca_name(enum profile_ca v);
const char *level_name(enum level v);
const char *device_stack_name(enum device_stack v);

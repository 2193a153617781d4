/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* gateway-sim: a fleet of devices in one process, each the code of device.c behind a UDP socket and a
 * DTLS session of its own. This header is what its parts know of each other. */

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include "device.h"

#define SIM_ID_MAX           64
#define SIM_FACTORY_KEY_SIZE 32 /* printable, so that every form of an import file can hold it */
/* RFC 7925 §4.4's suite last: the shorter tag is for those who need it. */
#define SIM_CERTIFICATE_CIPHERS                                                                                        \
        "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8"

struct sim;

/* ---- options.c ---- */

enum psk_form { PSK_HEX, PSK_TEXT, PSK_BASE64 };

struct sim_options {
        const char *gateway; /* address:port */
        unsigned devices;
        const char *prefix; /* of device ids */
        const char *profile, *certificate_profile;
        const char *import_out;
        const char *manufacturer;
        enum psk_form psk_form;
        const char *state;
        const char *test_clock;
        const char *json_out; /* "-": standard output; NULL: none */
        const char *ciphers;
        const char *software_name, *software_version, *measurement; /* text; its SHA-256 is claimed */
        bool has_seed;
        uint64_t seed;
        double loss, lost_reply;      /* percent */
        unsigned certificate_percent; /* of the devices hold certificates */
        unsigned reboot_every_sec, run_for_sec, ramp_sec, key_bytes;
        unsigned ack_timeout_ms, backoff_min_ms, backoff_max_ms, handshake_timeout_ms;
        uint16_t block_bytes;
        bool observes, sleeps, attests, wants_time, until_settled, control, spreads_addresses, write_only;
        unsigned verbose;
};

/* Reads the command line; ends the process with a message where it is wrong. */
void options_parse(struct sim_options *options, int argc, char **argv);

/* ---- testclock.c: time, which a test may move ---- */

struct test_clock {
        int64_t *offsets; /* shared with gatewayd: seconds added to both clocks, and to the wall clock alone */
};

/* Maps the file, made if it is not there. NULL path: the clock runs by itself. 0 or -errno. */
int test_clock_open(struct test_clock *clock, const char *path);
void test_clock_advance(struct test_clock *clock, int64_t seconds);
void test_clock_set_wall(struct test_clock *clock, int64_t seconds);
int64_t test_clock_offset(const struct test_clock *clock);
/* What the devices live by. */
uint64_t test_clock_device_ms(const struct test_clock *clock);
/* What sockets and DTLS timers live by. */
uint64_t real_ms(void);

/* ---- dice.c: chance, repeatable ---- */

struct dice {
        uint64_t state;
};
/* Independent streams from one seed. */
void dice_seed(struct dice *dice, uint64_t seed, uint64_t stream);
uint64_t dice_roll(struct dice *dice);
void dice_fill(struct dice *dice, void *data, size_t size);
/* True in so many per cent of the calls. */
bool dice_happens(struct dice *dice, double percent);

/* ---- session.c: DTLS 1.2 over one connected UDP socket ---- */

struct session_owner {
        void *user;
        void (*connected)(void *user);
        void (*refused)(void *user);
        void (*lost)(void *user);
        void (*datagram)(void *user, const uint8_t *data, size_t size);
};

struct session {
        SSL *ssl;
        int socket;
        bool is_open;        /* handshake done */
        bool is_broken;      /* failed outside the loop: reported at the next timer */
        uint8_t alert;       /* the fatal alert received; 255: none */
        uint64_t generation; /* counts SSL objects: callbacks may end one and begin the next */
        uint64_t give_up_at; /* of a handshake */
        struct device_key key;
        const uint8_t *incoming; /* the datagram being read */
        size_t incoming_size;
        struct session_settings *settings;
        struct session_owner owner;
        struct dice dice; /* its own, so that one device's luck does not hang on another's */
};

struct session_settings {
        SSL_CTX *context;
        struct sockaddr_storage gateway;
        socklen_t gateway_size;
        double loss; /* per cent of datagrams, each way */
        uint64_t seed;
        unsigned handshake_timeout_ms, first_timeout_ms;
        bool spreads_addresses;
        uint64_t datagrams_lost;
};

/* 0 or -errno, with a message on standard error. */
int session_settings_init(struct session_settings *settings, const struct sim_options *options);
void session_settings_free(struct session_settings *settings);

/* Opens the socket; `number` picks the source address where addresses are spread. */
int session_open(struct session *session, struct session_settings *settings, const struct session_owner *owner,
                 unsigned number);
void session_close(struct session *session);
/* With a certificate and no anchors any gateway is taken. */
void session_connect(struct session *session, const struct device_key *key, struct device_bytes anchors);
/* `silently`: as a power cut does, without close_notify. */
void session_disconnect(struct session *session, bool silently);
int session_send(struct session *session, const uint8_t *data, size_t size);
void session_readable(struct session *session);
void session_timer(struct session *session);
uint64_t session_deadline(const struct session *session); /* real_ms(); DEVICE_NEVER */

/* ---- identity.c: what the factory gave a device ---- */

struct identity {
        char id[SIM_ID_MAX + 1];
        uint8_t factory_key[SIM_FACTORY_KEY_SIZE];
        uint8_t scalar[32]; /* private attestation key, P-256 */
        /* A device with certificates: its IDevID and that one's private key. idevid_size 0: it holds PSKs. */
        uint8_t idevid_key[32];
        uint16_t idevid_size;
        uint8_t idevid[DEVICE_CERTIFICATE_MAX];
};

struct attester {
        EVP_PKEY *key;
        uint8_t ueid[33]; /* 0x01 and SHA-256 of the public key */
};

/* With a seed, keys follow from it: good for tests, known to anybody who knows the seed. */
int identity_make(struct identity *identity, const struct sim_options *options, unsigned number);
int attester_open(struct attester *attester, const struct identity *identity);
void attester_close(struct attester *attester);
int attester_sign(const struct attester *attester, const uint8_t *message, size_t size, uint8_t signature[64]);
/* The registry file for `gatewayctl device import`: .json or CSV by its name. */
int identity_export(const struct sim *sim, const char *path);
/* The P-256 key pair of a private key; NULL without memory, or where it is none. */
EVP_PKEY *private_key(const uint8_t scalar[32]);

/* ---- manufacturer.c: who gives devices their IDevIDs ---- */

struct manufacturer {
        X509 *certificate;
        EVP_PKEY *key;
};

/* Reads the CA's certificate (PEM; its key in PATH.key), made if it is not there. */
int manufacturer_open(struct manufacturer *manufacturer, const char *path);
void manufacturer_close(struct manufacturer *manufacturer);
int manufacturer_equip(const struct manufacturer *manufacturer, struct identity *identity);

/* ---- certificates.c: for device.h's callbacks ---- */

size_t certificate_request(struct device_bytes certificate, struct device_key *key, uint8_t *csr, size_t capacity);
int certificate_matches(struct device_key *key, struct device_bytes certificate);
/* Prepares a session that shows this certificate. False: OpenSSL takes something of it not. */
bool certificate_use(SSL *ssl, const struct device_key *key, struct device_bytes anchors);
bool private_key_bytes(EVP_PKEY *key, uint8_t scalar[32]);

/* ---- books.c: what happened, counted ---- */

struct evidence_record {
        uint8_t nonce[32];
        uint8_t digest[32]; /* SHA-256 of the evidence */
        bool is_accepted;
        int64_t sequence; /* of the receipt; -1 unknown */
        int64_t tier;     /* -1 unknown */
};

struct books {
        uint64_t grants, rotations, provisions;
        uint64_t anchors_fetched;
        uint64_t handshakes, refused, unanswered;
        uint64_t evidence_sent, evidence_accepted;
        uint64_t me_reads, notifications, observations;
        uint64_t errors, unusable, requests_unanswered, sessions_lost;
        uint64_t reboots, lost_replies, factory_resets, second_slot_used, lock_outs;
        uint64_t ready_ms; /* from the start of the program to the first settled moment; 0 not yet */
        struct evidence_record *evidence;
        size_t evidence_count;
};

struct sim_device;
void books_take(struct sim_device *device, const struct device_event *event);
void books_write_json(const struct sim *sim, FILE *to, bool with_devices, bool with_evidence);
void books_write_table(const struct sim *sim, FILE *to);
void books_free(struct books *books);

/* ---- fleet.c: the devices ---- */

struct sim_device {
        struct device device;
        struct session session;
        struct identity identity;
        struct attester attester;
        struct books books;
        struct device_memory memory; /* its flash */
        struct device_key stolen;    /* a thief's copy; identity_size 0: none */
        uint8_t stolen_anchors[DEVICE_ANCHORS_MAX];
        size_t stolen_anchors_size;
        struct sim *sim;
        unsigned number;
        bool is_off;
        bool is_settled;
        bool has_been_provisioned; /* has had an operational key since its factory state */
        bool is_dead;              /* a power cut struck in the middle of a callback: reboot before anything else */
        uint64_t powered_at;       /* device time */
        uint64_t reboot_at;        /* device time, also when its power comes; DEVICE_NEVER */
        uint64_t wake_at;          /* device time: device_tick() */
        uint64_t due_real;         /* real_ms(): timers.c */
        unsigned heap_index;
        struct dice dice;
};

/* ---- timers.c ---- */

struct timers {
        struct sim_device **heap;
        unsigned count;
};
int timers_open(struct timers *timers, struct sim_device *devices, unsigned count);
void timers_close(struct timers *timers);
/* When this device wants to be looked at, real_ms(). */
void timers_set(struct timers *timers, struct sim_device *device, uint64_t due_real);
struct sim_device *timers_first(const struct timers *timers);

struct thief;

struct sim {
        struct sim_options options;
        struct session_settings session_settings;
        struct test_clock clock;
        struct dice dice;
        uint8_t measurement[32];
        struct manufacturer manufacturer;
        struct sim_device *devices;
        unsigned count;
        unsigned settled;
        int state; /* descriptor of the state file, or -1 */
        int epoll;
        uint64_t started_real;
        struct timers timers;
        bool looks_at_all;   /* at the next turn: the clock was moved */
        int64_t seen_offset; /* of the test clock */
        struct thief *thief;
        bool is_stopping;
};

/* 0 or -errno, with a message on standard error. */
int fleet_open(struct sim *sim);
void fleet_start(struct sim *sim);
void fleet_close(struct sim *sim);
/* Does what is due everywhere; returns milliseconds until there is more. */
int fleet_run_timers(struct sim *sim);
void fleet_readable(struct sim_device *device);
struct sim_device *fleet_find(struct sim *sim, const char *id);
void fleet_reboot(struct sim_device *device);
void fleet_power(struct sim_device *device, bool is_on);
void fleet_factory_reset(struct sim_device *device);
void fleet_observe(struct sim *sim, bool observes);
/* Looks at every timer at the next turn (the clock was moved, a device was changed). */
void fleet_look(struct sim *sim);

/* ---- state.c: flash that outlives the program ---- */

/* Reads what the file holds of the first `sim->count` devices, makes and appends the others. */
int state_open(struct sim *sim);
int state_store(const struct sim *sim, const struct sim_device *device);

/* ---- thief.c: somebody else with a stolen key, on a socket of their own ---- */

struct knock_result {
        const char *handshake; /* "completed", "refused", "no answer" */
        uint8_t alert;         /* 255: none */
        uint8_t me, cred;      /* CoAP codes; 0: not asked or no answer. With a certificate `cred` is /est/sren's */
};
typedef void (*knock_done)(void *user, const struct knock_result *result);
int thief_knock(struct sim *sim, const struct sim_device *device, knock_done done, void *user);
int thief_descriptor(const struct thief *thief);
void thief_readable(struct sim *sim);
uint64_t thief_deadline(const struct thief *thief);
/* Carries on; frees the thief once it is done. */
void thief_timer(struct sim *sim);

/* ---- control.c: commands on standard input ---- */

struct control;
int control_open(struct sim *sim, struct control **ret);
void control_readable(struct control *control);
/* Whether it wants to read the next command now. */
bool control_listens(const struct control *control);
/* Answers `settle` when it has come true or its time is over. */
void control_check(struct control *control);
uint64_t control_deadline(const struct control *control);
void control_close(struct control *control);

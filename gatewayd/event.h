/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Events: what happened, for those who watch journald. Each kind has a stable MESSAGE_ID and an
 * entry in the message catalog (systemd/gatewayd.catalog) that says what to do about it. */

#include "gatewayd/bytes.h"

/* X(constant, name, MESSAGE_ID, syslog priority). Names and ids never change once released. */
/* clang-format off */
#define EVENT_LIST(X) \
        X(STARTED,                "started",                  "5d0c7b2a9b6f4a51a0d7f3a2c1e40001", 6) \
        X(STOPPED,                "stopped",                  "5d0c7b2a9b6f4a51a0d7f3a2c1e40002", 6) \
        X(ROLE_STARTED,           "role-started",             "5d0c7b2a9b6f4a51a0d7f3a2c1e40003", 6) \
        X(ROLE_DIED,              "role-died",                "5d0c7b2a9b6f4a51a0d7f3a2c1e40004", 3) \
        X(ROLE_HUNG,              "role-hung",                "5d0c7b2a9b6f4a51a0d7f3a2c1e40005", 3) \
        X(CONFIG_RELOADED,        "config-reloaded",          "5d0c7b2a9b6f4a51a0d7f3a2c1e40006", 5) \
        X(CONFIG_REFUSED,         "config-refused",           "5d0c7b2a9b6f4a51a0d7f3a2c1e40007", 3) \
        X(SANDBOX_WEAK,           "sandbox-weak",             "5d0c7b2a9b6f4a51a0d7f3a2c1e40008", 4) \
        X(SANDBOX_VIOLATION,      "sandbox-violation",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40009", 2) \
        X(SEALING_KEY_FILE,       "sealing-key-file",         "5d0c7b2a9b6f4a51a0d7f3a2c1e4000a", 4) \
        X(STORE_REFUSED,          "store-refused",            "5d0c7b2a9b6f4a51a0d7f3a2c1e4000b", 2) \
        X(STORE_FAILED,           "store-failed",             "5d0c7b2a9b6f4a51a0d7f3a2c1e4000c", 2) \
        X(STORE_DEGRADED,         "store-degraded",           "5d0c7b2a9b6f4a51a0d7f3a2c1e4000d", 3) \
        X(STORE_RECOVERED,        "store-recovered",          "5d0c7b2a9b6f4a51a0d7f3a2c1e4000e", 5) \
        X(CLOCK_JUMPED,           "clock-jumped",             "5d0c7b2a9b6f4a51a0d7f3a2c1e4000f", 4) \
        X(CLOCK_BEHIND,           "clock-behind",             "5d0c7b2a9b6f4a51a0d7f3a2c1e40010", 4) \
        X(CLOCK_QUALITY,          "clock-quality",            "5d0c7b2a9b6f4a51a0d7f3a2c1e40011", 5) \
        X(DEVICE_REGISTERED,      "device-registered",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40012", 5) \
        X(DEVICE_REMOVED,         "device-removed",           "5d0c7b2a9b6f4a51a0d7f3a2c1e40013", 5) \
        X(DEVICE_CONNECTED,       "device-connected",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40014", 7) \
        X(DEVICE_STANDING,        "device-standing-changed",  "5d0c7b2a9b6f4a51a0d7f3a2c1e40015", 4) \
        X(DEVICE_RESET_WINDOW,    "device-reset-window",      "5d0c7b2a9b6f4a51a0d7f3a2c1e40016", 5) \
        X(CREDENTIAL_ISSUED,      "credential-issued",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40017", 6) \
        X(CREDENTIAL_ACTIVATED,   "credential-activated",     "5d0c7b2a9b6f4a51a0d7f3a2c1e40018", 5) \
        X(CREDENTIAL_CONFIRMED,   "credential-confirmed",     "5d0c7b2a9b6f4a51a0d7f3a2c1e40019", 6) \
        X(CREDENTIAL_DEACTIVATED, "credential-deactivated",   "5d0c7b2a9b6f4a51a0d7f3a2c1e4001a", 6) \
        X(CREDENTIAL_DESTROYED,   "credential-destroyed",     "5d0c7b2a9b6f4a51a0d7f3a2c1e4001b", 6) \
        X(CREDENTIAL_REVOKED,     "credential-revoked",       "5d0c7b2a9b6f4a51a0d7f3a2c1e4001c", 4) \
        X(CREDENTIAL_COMPROMISED, "credential-compromised",   "5d0c7b2a9b6f4a51a0d7f3a2c1e4001d", 2) \
        X(CREDENTIAL_CONFLICT,    "credential-conflict",      "5d0c7b2a9b6f4a51a0d7f3a2c1e4001e", 2) \
        X(FACTORY_KEY_USED,       "factory-key-used",         "5d0c7b2a9b6f4a51a0d7f3a2c1e4001f", 4) \
        X(ROTATION_DUE,           "rotation-due",             "5d0c7b2a9b6f4a51a0d7f3a2c1e40020", 6) \
        X(ROTATION_OVERDUE,       "rotation-overdue",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40021", 4) \
        X(HANDSHAKE_REFUSED,      "handshake-refused",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40022", 4) \
        X(REQUEST_REFUSED,        "request-refused",          "5d0c7b2a9b6f4a51a0d7f3a2c1e40023", 5) \
        X(EVIDENCE_ACCEPTED,      "evidence-accepted",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40024", 6) \
        X(EVIDENCE_REFUSED,       "evidence-refused",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40025", 4) \
        X(APPRAISAL_CHANGED,      "appraisal-changed",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40026", 4) \
        X(UPLINK_UP,              "uplink-up",                "5d0c7b2a9b6f4a51a0d7f3a2c1e40027", 5) \
        X(UPLINK_DOWN,            "uplink-down",              "5d0c7b2a9b6f4a51a0d7f3a2c1e40028", 4) \
        X(EVIDENCE_RELAYED,       "evidence-relayed",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40029", 6) \
        X(EVIDENCE_PARKED,        "evidence-parked",          "5d0c7b2a9b6f4a51a0d7f3a2c1e4002a", 3) \
        X(BACKLOG_FULL,           "backlog-full",             "5d0c7b2a9b6f4a51a0d7f3a2c1e4002b", 2) \
        X(EVENTS_COUNTED,         "events-counted",           "5d0c7b2a9b6f4a51a0d7f3a2c1e4002c", 5) \
        X(ATTESTATION_OVERDUE,    "attestation-overdue",      "5d0c7b2a9b6f4a51a0d7f3a2c1e4002d", 4) \
        X(RECOVERY_KEY_MADE,      "recovery-key-made",        "5d0c7b2a9b6f4a51a0d7f3a2c1e4002e", 4) \
        X(CA_READY,               "ca-ready",                 "5d0c7b2a9b6f4a51a0d7f3a2c1e4002f", 5) \
        X(CA_SUCCESSOR,           "ca-successor-announced",   "5d0c7b2a9b6f4a51a0d7f3a2c1e40030", 5) \
        X(CA_REQUEST,             "ca-request-waiting",       "5d0c7b2a9b6f4a51a0d7f3a2c1e40031", 4) \
        X(CA_SWITCHED,            "ca-switched",              "5d0c7b2a9b6f4a51a0d7f3a2c1e40032", 5) \
        X(CA_ENDED,               "ca-generation-ended",      "5d0c7b2a9b6f4a51a0d7f3a2c1e40033", 5) \
        X(CA_LATE,                "ca-ends-without-successor","5d0c7b2a9b6f4a51a0d7f3a2c1e40034", 2) \
        X(CA_KEY_UNAVAILABLE,     "ca-key-unavailable",       "5d0c7b2a9b6f4a51a0d7f3a2c1e40035", 3) \
        X(SERVER_CERTIFICATE,     "server-certificate",       "5d0c7b2a9b6f4a51a0d7f3a2c1e40036", 6) \
        X(ENROLMENT_REFUSED,      "enrolment-refused",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40037", 4) \
        X(ENROLMENT_WAITING,      "enrolment-waiting",        "5d0c7b2a9b6f4a51a0d7f3a2c1e40038", 6) \
        X(IDEVID_CHANGED,         "idevid-changed",           "5d0c7b2a9b6f4a51a0d7f3a2c1e40039", 2) \
        X(ROTATION_WARNING,         "rotation-overdue-soon",  "5d0c7b2a9b6f4a51a0d7f3a2c1e4003a", 4) \
        X(ROTATION_ORDERED,         "rotation-ordered",       "5d0c7b2a9b6f4a51a0d7f3a2c1e4003b", 5) \
        X(ROTATION_PAUSED,          "rotation-paused",        "5d0c7b2a9b6f4a51a0d7f3a2c1e4003c", 4) \
        X(ROTATION_RESUMED,         "rotation-resumed",       "5d0c7b2a9b6f4a51a0d7f3a2c1e4003d", 5) \
        X(GATEWAY_KEY_ROTATED,      "gateway-key-rotated",    "5d0c7b2a9b6f4a51a0d7f3a2c1e4003e", 5) \
        X(GATEWAY_KEY_DUE,          "gateway-key-due",        "5d0c7b2a9b6f4a51a0d7f3a2c1e4003f", 4) \
        X(UPSTREAM_CERTIFICATE,     "upstream-certificate",   "5d0c7b2a9b6f4a51a0d7f3a2c1e40040", 5) \
        X(UPSTREAM_CERTIFICATE_LATE,"upstream-certificate-late", "5d0c7b2a9b6f4a51a0d7f3a2c1e40041", 3) \
        X(BACKUP_MADE,              "backup-made",            "5d0c7b2a9b6f4a51a0d7f3a2c1e40042", 5) \
        X(BACKUP_FAILED,            "backup-failed",          "5d0c7b2a9b6f4a51a0d7f3a2c1e40043", 3) \
        X(BACKUP_OLD,               "backup-old",             "5d0c7b2a9b6f4a51a0d7f3a2c1e40044", 4) \
        X(STORE_RESTORED,           "store-restored",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40045", 4) \
        X(CERTIFICATE_ADOPTED,      "certificate-adopted",    "5d0c7b2a9b6f4a51a0d7f3a2c1e40046", 4) \
        X(HORIZON_NEAR,             "offline-horizon-near",   "5d0c7b2a9b6f4a51a0d7f3a2c1e40047", 4) \
        X(SECRET_DAMAGED,           "secret-damaged",         "5d0c7b2a9b6f4a51a0d7f3a2c1e40048", 3)
/* clang-format on */

#define EVENT_ENUM(constant, name, id, priority) EVENT_##constant,
enum event_kind { EVENT_LIST(EVENT_ENUM) EVENT_KINDS };
#undef EVENT_ENUM

/* One event. Texts are NULL or empty where they do not apply; never a secret among them. */
struct event {
        enum event_kind kind;
        char device[65];
        char profile[65];
        char kid[65];
        char peer[64];
        char reason[160];
        uint64_t count; /* how many this one stands for; 0 and 1 alike: one */
};

const char *event_name(enum event_kind kind);
const char *event_message_id(enum event_kind kind);
int event_priority(enum event_kind kind);
/* One English sentence, for MESSAGE= and the terminal. */
void event_message(const struct event *event, char *to, size_t to_size);

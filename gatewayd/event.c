/* SPDX-License-Identifier: Apache-2.0 */

/* What each event is called and the sentence that tells it. Where an event goes is journal.c's subject;
 * what to do about it stands in systemd/gatewayd.catalog. */

#include "gatewayd/event.h"

/* In a sentence, {device}, {profile}, {kid}, {peer}, {reason} and {count} stand for the event's texts.
 * What is between square brackets appears only where every text in it is there. */
static const struct {
        const char *name, *message_id;
        int priority;
        const char *sentence;
} kinds[EVENT_KINDS] = {
#define EVENT_ENTRY(constant, event_name, id, level)                                                                   \
        [EVENT_##constant] = {                                                                                         \
                .name = event_name, .message_id = id, .priority = level, .sentence = SENTENCE_##constant               \
        },
#define SENTENCE_STARTED              "gatewayd is up[: {reason}]."
#define SENTENCE_STOPPED              "gatewayd stopped[: {reason}]."
#define SENTENCE_ROLE_STARTED         "A role was started[: {reason}]."
#define SENTENCE_ROLE_DIED            "A role ended unexpectedly[: {reason}]; it is started anew."
#define SENTENCE_ROLE_HUNG            "A role stopped answering and is killed[: {reason}]."
#define SENTENCE_CONFIG_RELOADED      "The new configuration is in force[: {reason}]."
#define SENTENCE_CONFIG_REFUSED       "The new configuration is refused, the old one stays in force[: {reason}]."
#define SENTENCE_SANDBOX_WEAK         "Running without the full sandbox[: {reason}]."
#define SENTENCE_SANDBOX_VIOLATION    "A role tried a system call that it may not use[: {reason}]."
#define SENTENCE_SEALING_KEY_FILE     "The sealing key comes from a file, not from the service manager[: {reason}]."
#define SENTENCE_STORE_REFUSED        "The store cannot be used and is left untouched[: {reason}]."
#define SENTENCE_STORE_FAILED         "The store failed; core ends without answering what was not safe[: {reason}]."
#define SENTENCE_STORE_DEGRADED       "The store cannot write for now[: {reason}]."
#define SENTENCE_STORE_RECOVERED      "The store writes again[: {reason}]."
#define SENTENCE_CLOCK_JUMPED         "The clock jumped forward; calendar ages end nothing for now[: {reason}]."
#define SENTENCE_CLOCK_BEHIND         "The clock is behind the latest time recorded; the recorded time rules[: {reason}]."
#define SENTENCE_CLOCK_QUALITY        "The quality of the clock changed[: {reason}]."
#define SENTENCE_DEVICE_REGISTERED    "Device {device} is registered[ with profile {profile}][: {reason}]."
#define SENTENCE_DEVICE_REMOVED       "Device {device} is removed[: {reason}]."
#define SENTENCE_DEVICE_CONNECTED     "Device {device} connected[ from {peer}][ with key {kid}][: {reason}]."
#define SENTENCE_DEVICE_STANDING      "The standing of device {device} changed[: {reason}]."
#define SENTENCE_DEVICE_RESET_WINDOW  "The factory key of device {device} is taken for a while[: {reason}]."
#define SENTENCE_CREDENTIAL_ISSUED    "Device {device} got key {kid}, not yet proven[: {reason}]."
#define SENTENCE_CREDENTIAL_ACTIVATED "Device {device} proved key {kid}; it is active[: {reason}]."
#define SENTENCE_CREDENTIAL_CONFIRMED                                                                                  \
        "Device {device} came a second time with key {kid}; it is stored there[: {reason}]."
#define SENTENCE_CREDENTIAL_DEACTIVATED "Key {kid} of device {device} is deactivated[: {reason}]."
#define SENTENCE_CREDENTIAL_DESTROYED   "Key {kid} of device {device} is destroyed[: {reason}]."
#define SENTENCE_CREDENTIAL_REVOKED     "Key {kid} of device {device} is revoked[: {reason}]."
#define SENTENCE_CREDENTIAL_COMPROMISED "Key {kid} of device {device} counts as compromised[: {reason}]."
#define SENTENCE_CREDENTIAL_CONFLICT                                                                                   \
        "Device {device} came with key {kid}, whose successor was proven[, from {peer}][: {reason}]."
#define SENTENCE_FACTORY_KEY_USED  "Device {device} came with its factory key again[, from {peer}][: {reason}]."
#define SENTENCE_ROTATION_DUE      "Device {device} is due for a new key[, in place of {kid}][: {reason}]."
#define SENTENCE_ROTATION_OVERDUE  "Device {device} is past the largest age of its key[ {kid}][: {reason}]."
#define SENTENCE_HANDSHAKE_REFUSED "A handshake was refused[ from {peer}][: {reason}]."
#define SENTENCE_REQUEST_REFUSED   "A request of device {device} was refused[: {reason}]."
#define SENTENCE_EVIDENCE_ACCEPTED "Evidence of device {device} is stored[: {reason}]."
#define SENTENCE_EVIDENCE_REFUSED  "Evidence of device {device} was refused[: {reason}]."
#define SENTENCE_APPRAISAL_CHANGED "The appraisal of device {device} changed[: {reason}]."
#define SENTENCE_UPLINK_UP         "The upstream answers[: {reason}]."
#define SENTENCE_UPLINK_DOWN       "The upstream does not answer; evidence waits[: {reason}]."
#define SENTENCE_EVIDENCE_RELAYED  "Evidence is stored upstream[, device {device}][: {reason}]."
#define SENTENCE_EVIDENCE_PARKED                                                                                       \
        "The upstream refused evidence[ of device {device}]; its receipt goes alone[: {reason}]."
#define SENTENCE_BACKLOG_FULL         "The backlog is full; devices are asked to keep new evidence[: {reason}]."
#define SENTENCE_EVENTS_COUNTED       "Happened {count} more times[, device {device}][, from {peer}][: {reason}]."
#define SENTENCE_ATTESTATION_OVERDUE  "Device {device} owes evidence[: {reason}]."
#define SENTENCE_RECOVERY_KEY_MADE    "A recovery key for the store was made and handed out[: {reason}]."
#define SENTENCE_CA_READY             "The site's CA signs[: {reason}]."
#define SENTENCE_CA_SUCCESSOR         "The next CA is announced to the devices[: {reason}]."
#define SENTENCE_CA_REQUEST           "The CA's next certificate must come from the owner's PKI[: {reason}]."
#define SENTENCE_CA_SWITCHED          "The next CA signs from now on[: {reason}]."
#define SENTENCE_CA_ENDED             "A CA generation has ended[: {reason}]."
#define SENTENCE_CA_LATE              "The CA nears its end and has no successor[: {reason}]."
#define SENTENCE_CA_KEY_UNAVAILABLE   "The CA's key cannot be used now; nothing is issued[: {reason}]."
#define SENTENCE_SERVER_CERTIFICATE   "The gateway has a new certificate for its devices[: {reason}]."
#define SENTENCE_ENROLMENT_REFUSED    "Device {device} was refused a certificate[: {reason}]."
#define SENTENCE_ENROLMENT_WAITING    "A certificate for device {device} waits for the upstream CA[: {reason}]."
#define SENTENCE_IDEVID_CHANGED       "Device {device} came with another IDevID than before[: {reason}]."
#define SENTENCE_ROTATION_WARNING     "The key of device {device} nears its largest age[: {reason}]."
#define SENTENCE_ROTATION_ORDERED     "An operator ordered a rotation[ for profile {profile}][: {reason}]."
#define SENTENCE_ROTATION_PAUSED      "Rotations are paused[ for profile {profile}][: {reason}]."
#define SENTENCE_ROTATION_RESUMED     "Rotations go on[ for profile {profile}][: {reason}]."
#define SENTENCE_GATEWAY_KEY_ROTATED  "A key of the gateway's own has a successor[: {reason}]."
#define SENTENCE_GATEWAY_KEY_DUE      "A key of the gateway's own is due for its successor[: {reason}]."
#define SENTENCE_UPSTREAM_CERTIFICATE "The gateway has a new certificate for its upstream[: {reason}]."
#define SENTENCE_UPSTREAM_CERTIFICATE_LATE                                                                             \
        "The gateway's certificate for its upstream runs out or has; its renewal is tried on[: {reason}]."
#define SENTENCE_BACKUP_MADE         "A backup of the store was made[: {reason}]."
#define SENTENCE_BACKUP_FAILED       "A backup of the store could not be made[: {reason}]."
#define SENTENCE_BACKUP_OLD          "The last backup is older than the shortest rotation interval[: {reason}]."
#define SENTENCE_STORE_RESTORED      "The store was restored from a backup[: {reason}]."
#define SENTENCE_CERTIFICATE_ADOPTED "Device {device} came with a certificate issued after the backup[: {reason}]."
#define SENTENCE_HORIZON_NEAR        "The offline horizon is near[: {reason}]."
#define SENTENCE_SECRET_DAMAGED      "A sealed secret cannot be opened[, key {kid}][: {reason}]."
        EVENT_LIST(EVENT_ENTRY)
#undef EVENT_ENTRY
};

const char *event_name(enum event_kind kind) {
        return (unsigned)kind < EVENT_KINDS ? kinds[kind].name : "unknown";
}

const char *event_message_id(enum event_kind kind) {
        return (unsigned)kind < EVENT_KINDS ? kinds[kind].message_id : "";
}

int event_priority(enum event_kind kind) {
        return (unsigned)kind < EVENT_KINDS ? kinds[kind].priority : 4;
}

/* The text that a name between braces stands for; *length is that of the name. */
static const char *text_of(const struct event *event, const char *name, size_t length, const char *count) {
        const struct {
                const char *name, *text;
        } texts[] = {
                { "device", event->device }, { "profile", event->profile }, { "kid", event->kid },
                { "peer", event->peer },     { "reason", event->reason },   { "count", count },
        };

        for (size_t i = 0; i < ELEMENTS(texts); i++)
                if (strlen(texts[i].name) == length && memcmp(texts[i].name, name, length) == 0)
                        return texts[i].text;
        return "";
}

struct sentence {
        char *to;
        size_t size, used;
};

static void put(struct sentence *s, const char *text, size_t length) {
        for (size_t i = 0; i < length && s->used + 1 < s->size; i++)
                s->to[s->used++] = text[i];
        s->to[s->used] = '\0';
}

void event_message(const struct event *event, char *to, size_t to_size) {
        struct sentence s = { to, to_size, 0 };
        size_t bracket_start = 0;
        bool is_in_bracket = false, has_gap = false;
        char count[24];

        if (to_size == 0)
                return;
        to[0] = '\0';
        if ((unsigned)event->kind >= EVENT_KINDS)
                return;
        snprintf(count, sizeof count, "%llu", (unsigned long long)(event->count == 0 ? 1 : event->count));
        for (const char *p = kinds[event->kind].sentence; *p != '\0'; p++) {
                if (*p == '[') {
                        is_in_bracket = true;
                        has_gap = false;
                        bracket_start = s.used;
                } else if (*p == ']') {
                        if (has_gap)
                                s.used = bracket_start;
                        to[s.used] = '\0';
                        is_in_bracket = false;
                } else if (*p == '{') {
                        size_t length = strcspn(p + 1, "}");
                        const char *text = text_of(event, p + 1, length, count);

                        if (text[0] == '\0' && !is_in_bracket)
                                text = "(unknown)";
                        has_gap = has_gap || text[0] == '\0';
                        put(&s, text, strlen(text));
                        p += length + 1;
                } else {
                        put(&s, p, 1);
                }
        }
        if (event->kind != EVENT_EVENTS_COUNTED && event->count > 1) {
                put(&s, " (", 2);
                put(&s, count, strlen(count));
                put(&s, " times)", 7);
        }
}

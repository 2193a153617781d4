/* SPDX-License-Identifier: Apache-2.0 */

/* The behaviour of a device: see device.h. What to ask on an open session, when, and what follows from
 * the answer; device_keys.c says with which key the session is made. */

#include "device_parts.h"

#include <string.h>

static const char *const task_path[] = {
        "", "me", "cred", "rats/nonce", "rats/evidence", "time", ".well-known/est/crts"
};

static const char *path_of(const struct device *device, uint8_t task) {
        if (task == TASK_GRANT && device_holds_certificates(device))
                return device_enrol_path(device);
        return task_path[task];
}

static uint64_t earlier(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static uint64_t later(uint64_t a, uint64_t b) {
        return a > b ? a : b;
}

static uint64_t in_sec(uint64_t now, uint64_t seconds) {
        return now + seconds * 1000;
}

uint64_t device_roll(struct device *device, uint64_t low, uint64_t high) {
        uint32_t dice;

        device->port.random(device->port.user, &dice, sizeof(dice));
        return low + dice % (high - low + 1);
}

void device_report(struct device *device, enum device_event_kind kind, const struct device_reply *reply) {
        struct device_event event = {
                kind, (enum device_key_choice)device->choice, path_of(device, device->task), 0, { NULL, 0 }
        };

        if (!device->port.event)
                return;
        if (reply) {
                event.code = reply->code;
                event.body = reply->body;
        }
        device->port.event(device->port.user, &event);
}

/* ---- what to do next ---- */

static bool uses_operational_key(const struct device *device) {
        return device->choice == DEVICE_KEY_NEWEST || device->choice == DEVICE_KEY_SECOND;
}

static uint64_t work_at(const struct device *device) {
        uint64_t at = earlier(earlier(device->grant_at, device->attest_at), device->anchors_at);

        if (device_is_provisional(device))
                return device->anchors_at;
        if (device->memory.has_newest)
                at = earlier(at, earlier(device->me_at, device->time_at));
        return at;
}

static uint64_t session_wanted_at(const struct device *device) {
        if (device->memory.has_pending)
                return 0;
        if (device->memory.has_newest && (device->config.observes || device->config.stays_connected))
                return 0;
        return work_at(device);
}

static uint8_t next_task(const struct device *device, uint64_t now) {
        if (device_is_provisional(device))
                return device->anchors_at <= now ? TASK_ANCHORS : TASK_NONE;
        if (uses_operational_key(device) && device->me_at <= now)
                return TASK_ME;
        if (device->anchors_at <= now)
                return TASK_ANCHORS;
        if (device->attest_at <= now)
                return device->evidence_size > 0 ? TASK_EVIDENCE : TASK_NONCE;
        if (device->grant_at <= now)
                return TASK_GRANT;
        if (uses_operational_key(device) && device->time_at <= now)
                return TASK_TIME;
        return TASK_NONE;
}

/* ---- answers ---- */

/* Max-Age as a time to wait: at least a second, and at most the day that PROTOCOL.md promises, so that
 * one wrong number cannot silence a device for years. */
static uint32_t wait_sec(const struct device_reply *reply) {
        if (reply->max_age_sec < 1)
                return 1;
        return reply->max_age_sec < 86400 ? reply->max_age_sec : 86400;
}

void device_lengthen(uint32_t *pause_sec) {
        if (*pause_sec < DEVICE_RETRY_MIN_SEC)
                *pause_sec = DEVICE_RETRY_MIN_SEC;
        else if (*pause_sec > DEVICE_RETRY_MAX_SEC / 2)
                *pause_sec = DEVICE_RETRY_MAX_SEC;
        else
                *pause_sec *= 2;
}

/* When to ask again after an answer that helped nothing. 4.29 and 5.03 name the time themselves
 * (RFC 8516, RFC 7252 §5.9.3.4); up to an eighth is added, so that a fleet does not come back at once. */
static uint64_t ask_again_at(struct device *device, const struct device_reply *reply, uint32_t *pause_sec,
                             uint64_t now) {
        uint64_t wait_ms;

        if (reply && (reply->code == DEVICE_CODE(4, 29) || reply->code == DEVICE_CODE(5, 3))) {
                wait_ms = wait_sec(reply) * UINT64_C(1000);
        } else {
                device_lengthen(pause_sec);
                wait_ms = *pause_sec * UINT64_C(1000);
        }
        return now + wait_ms + device_roll(device, 0, earlier(wait_ms / 8, DEVICE_RETRY_MAX_SEC * 1000));
}

void device_postpone(struct device *device, uint8_t task, const struct device_reply *reply, uint64_t now) {
        uint32_t pause_sec = DEVICE_RETRY_MAX_SEC;

        if (task == TASK_ME)
                device->me_at = ask_again_at(device, reply, &device->me_pause_sec, now);
        else if (task == TASK_GRANT)
                device->grant_at = ask_again_at(device, reply, &device->grant_pause_sec, now);
        else if (task == TASK_NONCE || task == TASK_EVIDENCE)
                device->attest_at = ask_again_at(device, reply, &device->attest_pause_sec, now);
        else if (task == TASK_ANCHORS)
                device->anchors_at = ask_again_at(device, reply, &device->anchors_pause_sec, now);
        else if (task == TASK_TIME)
                device->time_at = ask_again_at(device, reply, &pause_sec, now);
}

/* {1: key-size}: sizes from 24 to 255 take two bytes. */
static void ask_key_size(struct device *device, struct device_request *request) {
        if (device->config.grant_key_bytes == 0)
                return;
        device->request_body[0] = 0xa1;
        device->request_body[1] = 0x01;
        request->body.size = 3;
        if (device->config.grant_key_bytes >= 24) {
                device->request_body[2] = 0x18;
                request->body.size = 4;
        }
        device->request_body[request->body.size - 1] = device->config.grant_key_bytes;
        request->body.data = device->request_body;
        request->content_format = DEVICE_FORMAT_CBOR;
}

/* False: it cannot be done now, and was put off. */
static bool begin_task(struct device *device, uint8_t task, uint64_t now) {
        struct device_request request = { DEVICE_POST, path_of(device, task), { NULL, 0 }, DEVICE_FORMAT_NONE, false };

        if (task == TASK_ME || task == TASK_TIME || task == TASK_ANCHORS)
                request.method = DEVICE_GET;
        if (task == TASK_ME)
                request.observes = device->config.observes;
        if (task == TASK_GRANT && device_holds_certificates(device)) {
                if (!device_ask_certificate(device, &request.body)) {
                        device_postpone(device, TASK_GRANT, NULL, now);
                        return false;
                }
                request.content_format = DEVICE_FORMAT_PKCS10;
        } else if (task == TASK_GRANT) {
                ask_key_size(device, &request);
        }
        if (task == TASK_EVIDENCE) {
                request.body.data = device->evidence;
                request.body.size = device->evidence_size;
                request.content_format = DEVICE_FORMAT_EAT_CWT;
        }
        device->task = task;
        device->was_observing = device->coap.is_observing;
        device_coap_start(&device->coap, &request, now);
        return true;
}

/* Goes on as far as it can without waiting; returns when there is more to do. */
static uint64_t carry_on(struct device *device) {
        uint64_t now = device->port.now(device->port.user);
        uint64_t at;
        uint8_t task;

        if (device->phase == PHASE_ONLINE && !device->coap.is_busy) {
                do
                        task = next_task(device, now);
                while (task != TASK_NONE && !begin_task(device, task, now));
                if (task == TASK_NONE && !device->config.observes && !device->config.stays_connected)
                        device_leave(device);
        }
        if (device->phase == PHASE_OFFLINE) {
                at = later(device->connect_at, session_wanted_at(device));
                if (at > now)
                        return at;
                device_connect(device, now);
        }
        if (device->phase == PHASE_CONNECTING)
                return device->connect_until;
        return device->coap.is_busy ? device_coap_deadline(&device->coap) : work_at(device);
}

static void act_on_due(struct device *device, uint64_t now) {
        if (device->me.due & DEVICE_DUE_ROTATE) {
                if (device->grant_at == DEVICE_NEVER && !device->grant_needs_evidence)
                        device->grant_at = in_sec(now, device->grant_pause_sec);
        } else if (device->choice == DEVICE_KEY_NEWEST) {
                device->grant_at = DEVICE_NEVER;
                device->grant_pause_sec = 0;
                device->grant_needs_evidence = false;
        }

        if (!(device->me.due & DEVICE_DUE_ANCHORS)) {
                device->anchors_pause_sec = 0;
        } else if (device->anchors_at == DEVICE_NEVER && device_holds_certificates(device)) {
                device->anchors_at = in_sec(now, device->anchors_pause_sec);
        }

        if (!device->port.sign)
                return;
        if (device->me.due & DEVICE_DUE_ATTEST) {
                if (device->attest_at == DEVICE_NEVER)
                        device->attest_at = in_sec(now, device->attest_pause_sec);
        } else if (device->evidence_size == 0 && !device->grant_needs_evidence) {
                device->attest_at = DEVICE_NEVER;
                device->attest_pause_sec = 0;
        }
}

static bool take_me(struct device *device, const struct device_reply *reply, uint64_t now) {
        if (reply->content_format != DEVICE_FORMAT_CBOR ||
            !device_parse_me(reply->body.data, reply->body.size, &device->me))
                return false;
        device->has_me = true;
        device->me_pause_sec = 0;
        device->me_at = in_sec(now, wait_sec(reply));
        act_on_due(device, now);
        return true;
}

/* The grant is in flash before it is used: whatever happens next, the key that works now is there. */
static bool take_grant(struct device *device, const struct device_reply *reply, uint64_t now) {
        const struct device_key *used = device_key_of(device, device->choice);
        struct device_key key;

        if (device_holds_certificates(device)) {
                if (!device_read_certificate(device, reply, &key)) {
                        device_forget_request(device);
                        return false;
                }
        } else if (reply->content_format != DEVICE_FORMAT_UCCS ||
                   !device_parse_grant(reply->body.data, reply->body.size, device->config.id, &key)) {
                return false;
        }
        if (key.identity_size == used->identity_size && memcmp(key.identity, used->identity, key.identity_size) == 0)
                return false;
        if (!device_keep_grant(device, &key)) {
                device_postpone(device, TASK_GRANT, NULL, now);
                return true;
        }
        device->grant_at = DEVICE_NEVER;
        device_lengthen(&device->grant_pause_sec); /* until /me no longer asks: never one after another at once */
        device_report(device, DEVICE_EVENT_GRANTED, reply);
        device_leave(device);
        device->connect_at = now;
        return true;
}

/* The first anchors of all are used at once, on a session that must live up to them. */
static bool take_anchors(struct device *device, const struct device_reply *reply, uint64_t now) {
        bool was_provisional = device_is_provisional(device), is_stored;

        if (!device_keep_anchors(device, reply, &is_stored))
                return false;
        device->anchors_at = DEVICE_NEVER;
        device_lengthen(&device->anchors_pause_sec); /* until /me no longer asks */
        if (!is_stored)
                device_postpone(device, TASK_ANCHORS, NULL, now);
        device_report(device, DEVICE_EVENT_ANCHORS, reply);
        device->me_at = now;
        if (was_provisional) {
                device_leave(device);
                device->connect_at = now;
        }
        return true;
}

/* A device that sleeps most of the time learns from any answer that it is wanted: /me says the rest. */
static void hear_due(struct device *device, uint8_t task, const struct device_reply *reply, uint64_t now) {
        if (task != TASK_TIME && task != TASK_NONCE && task != TASK_EVIDENCE)
                return;
        if (reply->content_format != DEVICE_FORMAT_CBOR || !uses_operational_key(device))
                return;
        if (device_parse_due(reply->body.data, reply->body.size) & ~device->me.due)
                device->me_at = now;
}

static bool take_success(struct device *device, uint8_t task, const struct device_reply *reply, uint64_t now) {
        int64_t epoch_sec, quality;

        switch (task) {
        case TASK_ME:
                if (!take_me(device, reply, now))
                        return false;
                device_report(device, DEVICE_EVENT_ME, reply);
                if (device->coap.is_observing && !device->was_observing)
                        device_report(device, DEVICE_EVENT_OBSERVING, reply);
                return true;
        case TASK_GRANT:
                return take_grant(device, reply, now);
        case TASK_NONCE:
                return device_take_nonce(device, reply);
        case TASK_EVIDENCE:
                device_evidence_taken(device, reply, now);
                return true;
        case TASK_ANCHORS:
                return take_anchors(device, reply, now);
        default:
                if (!device_parse_time(reply->body.data, reply->body.size, &epoch_sec, &quality))
                        return false;
                device->time_at = in_sec(now, 86400);
                device_report(device, DEVICE_EVENT_TIME, reply);
                return true;
        }
}

/* /cred said no. With a key that is suspect, fresh evidence may open it: PROTOCOL.md,
 * `on_factory_key`, `on_conflict`. */
static void grant_denied(struct device *device, uint64_t now) {
        device->grant_needs_evidence = true;
        device->grant_at = DEVICE_NEVER;
        device->attest_at = earlier(device->attest_at, in_sec(now, device->grant_pause_sec));
        device_lengthen(&device->grant_pause_sec);
}

static void take_error(struct device *device, uint8_t task, const struct device_reply *reply, uint64_t now) {
        device_report(device, DEVICE_EVENT_ERROR, reply);
        if (task == TASK_GRANT && reply->code >> 5 == 4 && reply->code != DEVICE_CODE(4, 29))
                device_forget_request(device); /* this one will not do: another key, another request */
        if (task == TASK_GRANT && reply->code == DEVICE_CODE(4, 3) && device->port.sign)
                grant_denied(device, now);
        else if (task == TASK_EVIDENCE && reply->code >> 5 == 4 && reply->code != DEVICE_CODE(4, 29))
                device_evidence_denied(device, reply, now);
        else
                device_postpone(device, task, reply, now);
        if (task == TASK_GRANT && reply->code == DEVICE_CODE(4, 3))
                (void)device_try_dropped_grant(device, now);
}

static void take_result(struct device *device, enum device_coap_result result, uint64_t now) {
        const struct device_reply *reply = &device->coap.reply;
        uint8_t task = device->task;

        switch (result) {
        case DEVICE_COAP_NOTHING:
                return;
        case DEVICE_COAP_NOTIFIED:
                if (reply->body.size > 0 && reply->code >> 5 == 2 && take_me(device, reply, now))
                        device_report(device, DEVICE_EVENT_NOTIFIED, reply);
                else
                        device->me_at = now;
                return;
        case DEVICE_COAP_SILENCE: /* the session is dead on the other side: make a new one */
                device_report(device, DEVICE_EVENT_UNANSWERED, NULL);
                device_leave(device);
                device_back_off(device, now);
                return;
        case DEVICE_COAP_FAILED:
                device_report(device, DEVICE_EVENT_UNUSABLE, NULL);
                device_postpone(device, task, NULL, now);
                break;
        case DEVICE_COAP_REPLY:
                device->backoff_ms = 0;
                if (reply->code >> 5 != 2) {
                        take_error(device, task, reply, now);
                } else if (!take_success(device, task, reply, now)) {
                        device_report(device, DEVICE_EVENT_UNUSABLE, reply);
                        device_postpone(device, task, NULL, now);
                } else {
                        hear_due(device, task, reply, now);
                }
                break;
        }
        device->task = TASK_NONE;
}

/* ---- the owner's side ---- */

void device_init(struct device *device, const struct device_config *config, const struct device_port *port,
                 const struct device_memory *memory) {
        uint64_t now;

        memset(device, 0, sizeof(*device));
        device->config = *config;
        device->port = *port;
        if (memory)
                device->memory = *memory;
        device->factory.identity_size = (uint8_t)earlier(strlen(config->id), DEVICE_IDENTITY_MAX);
        memcpy(device->factory.identity, config->id, device->factory.identity_size);
        device->factory.key_size = (uint8_t)earlier(config->factory_key_size, DEVICE_KEY_MAX);
        if (device->factory.key_size > 0)
                memcpy(device->factory.key, config->factory_key, device->factory.key_size);
        device->factory.certificate_size = (uint16_t)earlier(config->idevid.size, DEVICE_CERTIFICATE_MAX);
        if (device->factory.certificate_size > 0)
                memcpy(device->factory.certificate, config->idevid.data, device->factory.certificate_size);

        device->coap.send = port->send;
        device->coap.random = port->random;
        device->coap.user = port->user;
        device->coap.ack_timeout_ms = config->ack_timeout_ms;
        device->coap.block_bytes = config->block_bytes;
        device_coap_init(&device->coap);

        now = port->now(port->user);
        device->choice = device_choose_key(device);
        device->me_at = now;
        device->attest_at = DEVICE_NEVER;
        device->time_at = config->wants_time ? now : DEVICE_NEVER;
        device->grant_at = device->memory.has_newest ? DEVICE_NEVER : now;
        device->anchors_at = device_holds_certificates(device) && device->memory.anchors_size == 0 ? now : DEVICE_NEVER;
        /* A whole site that gets its power back should not knock in the same instant. */
        device->connect_at =
                now + device_roll(device, 0, config->backoff_min_ms ? config->backoff_min_ms : DEVICE_BACKOFF_MIN_MS);
}

uint64_t device_tick(struct device *device) {
        uint64_t now = device->port.now(device->port.user);

        if (device->phase == PHASE_CONNECTING && now >= device->connect_until) {
                device->port.disconnect(device->port.user);
                device_handshake_failed(device, false, now);
        }
        if (device->phase == PHASE_ONLINE)
                take_result(device, device_coap_tick(&device->coap, now), now);
        return carry_on(device);
}

uint64_t device_connected(struct device *device) {
        uint64_t now = device->port.now(device->port.user);

        if (device->phase != PHASE_CONNECTING)
                return carry_on(device);
        device->phase = PHASE_ONLINE;
        device_coap_reset(&device->coap);
        device_report(device, DEVICE_EVENT_CONNECTED, NULL);
        device_key_works(device, now);
        if (device->config.observes)
                device->me_at = now; /* observations end with their session */
        return carry_on(device);
}

uint64_t device_refused(struct device *device) {
        if (device->phase == PHASE_CONNECTING)
                device_handshake_failed(device, true, device->port.now(device->port.user));
        return carry_on(device);
}

uint64_t device_lost(struct device *device) {
        uint64_t now = device->port.now(device->port.user);

        if (device->phase == PHASE_CONNECTING) {
                device_handshake_failed(device, false, now);
        } else if (device->phase == PHASE_ONLINE) {
                device_report(device, DEVICE_EVENT_LOST, NULL);
                device_session_over(device);
                device_back_off(device, now);
        }
        return carry_on(device);
}

uint64_t device_input(struct device *device, const uint8_t *datagram, size_t size) {
        uint64_t now = device->port.now(device->port.user);

        if (device->phase == PHASE_ONLINE)
                take_result(device, device_coap_input(&device->coap, datagram, size, now), now);
        return carry_on(device);
}

uint64_t device_factory_reset(struct device *device) {
        struct device_config config = device->config;
        struct device_port port = device->port;

        if (device->phase != PHASE_OFFLINE)
                device_leave(device);
        device_init(device, &config, &port, NULL);
        (void)device_store(device); /* reported; the act can be repeated */
        return carry_on(device);
}

uint64_t device_observe(struct device *device, bool observes) {
        device->config.observes = observes;
        if (observes)
                device->me_at = device->port.now(device->port.user);
        else
                device_coap_forget_observation(&device->coap);
        return carry_on(device);
}

bool device_is_settled(const struct device *device) {
        uint64_t now = device->port.now(device->port.user);

        if (!device->memory.has_newest || device->memory.has_pending || !device->has_me)
                return false;
        if (device->phase == PHASE_CONNECTING || device->coap.is_busy)
                return false;
        if (device->config.observes && (device->phase != PHASE_ONLINE || !device->coap.is_observing))
                return false;
        return device->me_at > now && device->grant_at == DEVICE_NEVER && device->attest_at == DEVICE_NEVER &&
               device->anchors_at == DEVICE_NEVER && device->time_at > now;
}

bool device_is_online(const struct device *device) {
        return device->phase == PHASE_ONLINE;
}

bool device_is_operational(const struct device *device) {
        return device->memory.has_newest != 0;
}

bool device_is_locked_out(const struct device *device) {
        return device->is_locked_out;
}

const struct device_key *device_current_key(const struct device *device) {
        return device_key_of(device, device->phase == PHASE_OFFLINE ? device_choose_key(device) : device->choice);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The EST exchanges: what they look like on HTTPS and what their answers mean (est.h). */

#include "gatewayd/north/est.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "gatewayd/keys/x509.h"
#include "gatewayd/north/north.h"

#define USEC_PER_SEC     UINT64_C(1000000)
#define ANCHORS_EVERY    (UINT64_C(86400) * USEC_PER_SEC)
#define SETTLE_USEC      USEC_PER_SEC
#define BASE64_LINE      64 /* PEM's; older servers take nothing longer */
#define ENROLMENT_ACCEPT "Accept: application/pkcs7-mime"

struct slot {
        struct est_client *client;
        uint64_t number; /* 0: free */
        struct https_exchange *exchange;
        uint16_t held_status; /* refused; whom that concerns, /cacerts will tell. 0: no such case */
        char held_reason[160];
};

struct est_client {
        sd_event *event;
        struct https *https;
        struct est_sink sink;
        char *url;
        uint64_t retry_min_usec, retry_max_usec;

        struct slot slots[NORTH_ENROL_WINDOW];

        struct https_exchange *probe; /* for /cacerts */
        sd_event_source *timer;       /* of the next one */
        unsigned failures;            /* of it in a row */
        bool wants_new_connection;
};

static uint32_t chance(void) {
        uint32_t value = 0;

        if (getrandom(&value, sizeof value, GRND_NONBLOCK) != sizeof value)
                value = UINT32_MAX / 2;
        return value;
}

/* ---- base64 ---- */

static bool is_space(uint8_t c) {
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int est_decode(struct bytes body, struct buffer *ret) {
        _cleanup_(buffer_free) struct buffer text = { 0 }, der = { 0 };
        STACK_OF(X509) * certificates;
        ssize_t n;

        for (size_t i = 0; i < body.size; i++)
                if (!is_space(body.data[i]))
                        buffer_append(&text, BYTES(&body.data[i], 1));
        if (text.size == 0)
                return -EBADMSG;
        n = base64_decode(buffer_bytes(&text), false, buffer_reserve(&der, text.size), text.size);
        if (n <= 0)
                return -EBADMSG;
        der.size = (size_t)n;
        certificates = x509_pkcs7_read(buffer_bytes(&der));
        n = certificates ? sk_X509_num(certificates) : 0;
        sk_X509_pop_free(certificates, X509_free);
        if (n <= 0)
                return -EBADMSG;
        buffer_append(ret, buffer_bytes(&der));
        return 0;
}

static int encode_csr(struct bytes csr, struct buffer *ret) {
        size_t room = 4 * ((csr.size + 2) / 3) + 1;
        _cleanup_(freep) char *text = xcalloc(1, room);
        ssize_t n = base64_encode(csr, false, text, room);

        if (n < 0)
                return (int)n;
        for (size_t at = 0; at < (size_t)n; at += BASE64_LINE) {
                size_t left = (size_t)n - at;

                buffer_append(ret, BYTES(text + at, left < BASE64_LINE ? left : BASE64_LINE));
                buffer_append(ret, TEXT("\n"));
        }
        return 0;
}

/* ---- what an answer means ---- */

/* Retry-After without a word is core's to choose; what does not fit is a mistake, core cuts it. */
static uint64_t retry_sec(const struct https_answer *answer) {
        return answer->retry_after_sec > 0 ? (uint64_t)answer->retry_after_sec : 0;
}

static uint16_t status_of_failure(enum https_failure failure) {
        switch (failure) {
        case HTTPS_SILENCE:
                return 504;
        case HTTPS_TLS:
        case HTTPS_ODD:
                return 502;
        default:
                return 0;
        }
}

/* The certificates in a 200. 0, or -EBADMSG and why in `reason` (160 bytes). */
static int take_certificates(const struct https_answer *answer, struct buffer *ret, char *reason) {
        if (!https_is_of_type(answer->type, "application/pkcs7-mime")) {
                snprintf(reason, 160, "the answer is not application/pkcs7-mime but %.80s",
                         answer->type ? answer->type : "without a type");
                return -EBADMSG;
        }
        if (est_decode(answer->body, ret) < 0) {
                snprintf(reason, 160, "the answer is no certs-only message in base64");
                return -EBADMSG;
        }
        return 0;
}

static enum enrol_outcome outcome_of_status(uint16_t status) {
        switch (status) {
        case 202:
        case 408:
        case 425:
        case 429:
        case 503:
                return ENROL_LATER;
        case 401:
                return ENROL_FAILED;
        default:
                return status >= 400 && status < 500 ? ENROL_REFUSED : ENROL_FAILED;
        }
}

static void tell(struct est_client *client, const struct message_enrolled *answer) {
        client->sink.enrolled(client->sink.userdata, answer);
}

static void tell_text(struct est_client *client, uint64_t number, enum enrol_outcome outcome, uint16_t status,
                      uint64_t retry, const char *reason) {
        tell(client, &(struct message_enrolled){ .number = number,
                                                 .outcome = outcome,
                                                 .http_status = status,
                                                 .retry_sec = retry,
                                                 .reason = bytes_of(reason) });
}

/* ---- /cacerts ---- */

static void probe(struct est_client *client);

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        (void)source;
        (void)usec;
        probe(userdata);
        return 0;
}

/* The next question for /cacerts, somewhat by chance so that a thousand gateways do not come together. */
static void probe_after(struct est_client *client, uint64_t usec) {
        usec -= usec / 4 * (chance() >> 16) / UINT16_MAX;
        if (sd_event_source_set_time_relative(client->timer, usec) < 0 ||
            sd_event_source_set_enabled(client->timer, SD_EVENT_ONESHOT) < 0)
                sd_event_exit(client->event, -EIO); /* without its timer it would wait for ever */
}

static void probe_later(struct est_client *client) {
        uint64_t delay = client->retry_min_usec;

        for (unsigned i = 0; i < client->failures && delay < client->retry_max_usec; i++)
                delay *= 2;
        if (client->failures < UINT32_MAX)
                client->failures++;
        probe_after(client, delay < client->retry_max_usec ? delay : client->retry_max_usec);
}

static void slot_end(struct slot *slot) {
        https_give_up(slot->exchange);
        *slot = (struct slot){ .client = slot->client };
}

/* A refusal while everything is refused is about this gateway, otherwise about that CSR. */
static void tell_held(struct est_client *client, bool is_everything_refused) {
        for (size_t i = 0; i < ELEMENTS(client->slots); i++) {
                struct slot held = client->slots[i];

                if (held.held_status == 0)
                        continue;
                slot_end(&client->slots[i]);
                tell_text(client, held.number, is_everything_refused ? ENROL_FAILED : ENROL_REFUSED, held.held_status,
                          0, held.held_reason);
        }
}

static void on_anchors(void *userdata, const struct https_answer *answer) {
        _cleanup_(buffer_free) struct buffer pkcs7 = { 0 };
        struct est_client *client = userdata;
        char reason[160] = "no certificates in the answer";

        client->probe = NULL;
        if (answer->status == 200 && take_certificates(answer, &pkcs7, reason) >= 0) {
                client->failures = 0;
                client->wants_new_connection = false;
                probe_after(client, ANCHORS_EVERY);
                client->sink.anchors(client->sink.userdata, buffer_bytes(&pkcs7));
                tell_held(client, false);
                return;
        }
        client->wants_new_connection = answer->status == 0;
        probe_later(client);
        tell_text(client, 0, answer->status == 0 ? ENROL_FAILED : ENROL_REFUSED,
                  answer->status == 0 ? status_of_failure(answer->failure) : answer->status, retry_sec(answer),
                  answer->reason[0] ? answer->reason : reason);
        tell_held(client, answer->status == 401 || answer->status == 403);
}

static void probe(struct est_client *client) {
        static const char *const headers[] = { ENROLMENT_ACCEPT, NULL };
        _cleanup_(freep) char *url = NULL;
        struct https_request request = { .headers = headers, .wants_new_connection = client->wants_new_connection };
        int r;

        if (client->probe)
                return;
        (void)sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
        if (asprintf(&url, "%s/cacerts", client->url) < 0)
                oom();
        request.url = url;
        r = https_begin(client->https, &request, on_anchors, client, &client->probe);
        if (r < 0)
                on_anchors(client, &(struct https_answer){ .failure = HTTPS_NO_WAY, .reason = "out of memory" });
}

/* ---- enrolments ---- */

static void take_issued(struct est_client *client, uint64_t number, const struct https_answer *answer) {
        _cleanup_(buffer_free) struct buffer pkcs7 = { 0 };
        char reason[160];

        if (take_certificates(answer, &pkcs7, reason) < 0) {
                tell_text(client, number, ENROL_FAILED, answer->status, 0, reason);
                return;
        }
        tell(client, &(struct message_enrolled){ .number = number,
                                                 .outcome = ENROL_ISSUED,
                                                 .http_status = answer->status,
                                                 .certificates = buffer_bytes(&pkcs7) });
}

static void on_enrolled(void *userdata, const struct https_answer *answer) {
        struct slot *slot = userdata;
        struct est_client *client = slot->client;
        uint64_t number = slot->number;

        slot->exchange = NULL;
        if (answer->status == 403) {
                slot->held_status = 403;
                snprintf(slot->held_reason, sizeof slot->held_reason, "%s", answer->reason);
                probe(client);
                return;
        }
        slot_end(slot);
        client->wants_new_connection = answer->status == 0;
        if (answer->status == 200) {
                take_issued(client, number, answer);
                return;
        }
        if (answer->status == 0) {
                tell_text(client, number, ENROL_FAILED, status_of_failure(answer->failure), 0, answer->reason);
                if (client->failures == 0)
                        probe(client); /* is it the server, or this one? */
                return;
        }
        tell_text(client, number, outcome_of_status(answer->status), answer->status, retry_sec(answer),
                  answer->reason[0] ? answer->reason : "no certificate yet");
}

int est_client_enrol(struct est_client *client, const struct message_enrol *enrol) {
        static const char *const headers[] = {
                "Content-Type: application/pkcs10",
                "Content-Transfer-Encoding: base64", /* nothing to RFC 8951, needed by servers before it */
                ENROLMENT_ACCEPT,
                NULL,
        };
        _cleanup_(buffer_free) struct buffer body = { 0 };
        _cleanup_(freep) char *url = NULL;
        struct https_request request = {
                .headers = headers,
                .is_post = true,
                .wants_new_connection = client->wants_new_connection,
                .body = &body,
        };
        struct slot *slot = NULL;
        int r;

        for (size_t i = 0; i < ELEMENTS(client->slots); i++) {
                if (client->slots[i].number == enrol->number)
                        return -EALREADY;
                if (client->slots[i].number == 0)
                        slot = &client->slots[i];
        }
        if (!slot)
                return -ENOBUFS;
        if (asprintf(&url, "%s/%s", client->url, enrol->is_renewal ? "simplereenroll" : "simpleenroll") < 0)
                oom();
        request.url = url;
        r = encode_csr(enrol->csr, &body);
        if (r >= 0)
                r = https_begin(client->https, &request, on_enrolled, slot, &slot->exchange);
        if (r < 0)
                return r;
        slot->number = enrol->number;
        return 0;
}

/* ---- start and end ---- */

void est_client_start(struct est_client *client) {
        probe(client);
}

void est_client_network_changed(struct est_client *client) {
        client->wants_new_connection = true;
        if (client->failures == 0 || client->probe)
                return;
        client->failures = 1;
        probe_after(client, SETTLE_USEC);
}

void est_client_try_now(struct est_client *client) {
        client->wants_new_connection = true;
        probe(client);
}

int est_client_new(sd_event *event, struct https *https, const struct north_config *config, const struct est_sink *sink,
                   struct est_client **ret, struct problem *problem) {
        struct est_client *client;
        size_t size;
        int r;

        if (https_port(config->est_url) < 0)
                return problem_set(problem, CODE_INTERNAL, EINVAL, "upstream address",
                                   "north.est_url: \"%s\" is not a URL that begins with https:// and has no user in it",
                                   config->est_url);
        client = xcalloc(1, sizeof *client);
        client->event = sd_event_ref(event);
        client->https = https;
        client->sink = *sink;
        client->url = xstrdup(config->est_url);
        for (size = strlen(client->url); size > 0 && client->url[size - 1] == '/'; size--)
                client->url[size - 1] = 0;
        client->retry_min_usec = (uint64_t)(config->retry_min_sec > 0 ? config->retry_min_sec : 1) * USEC_PER_SEC;
        client->retry_max_usec = (uint64_t)(config->retry_max_sec > 0 ? config->retry_max_sec : 1) * USEC_PER_SEC;
        for (size_t i = 0; i < ELEMENTS(client->slots); i++)
                client->slots[i].client = client;
        r = sd_event_add_time_relative(event, &client->timer, CLOCK_MONOTONIC, 0, 1, on_timer, client);
        if (r >= 0)
                r = sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
        if (r < 0) {
                est_client_free(client);
                return problem_set(problem, CODE_INTERNAL, -r, "north", "no timer: %s", strerror(-r));
        }
        *ret = client;
        return 0;
}

struct est_client *est_client_free(struct est_client *client) {
        if (!client)
                return NULL;
        for (size_t i = 0; i < ELEMENTS(client->slots); i++)
                slot_end(&client->slots[i]);
        https_give_up(client->probe);
        sd_event_source_disable_unref(client->timer);
        free(client->url);
        sd_event_unref(client->event);
        free(client);
        return NULL;
}

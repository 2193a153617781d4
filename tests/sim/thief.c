/* SPDX-License-Identifier: Apache-2.0 */

/* Somebody who copied a device's key tries it from a socket of their own: does a handshake succeed,
 * and what do /me and /cred answer? */

#include "sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ASKS_NOTHING, ASKS_ME, ASKS_CRED };

struct thief {
        struct session session;
        struct device_coap coap;
        struct sim *sim;
        struct device_key key, next; /* what was stolen, and what is asked for with it */
        uint8_t csr[DEVICE_CSR_MAX];
        struct knock_result result;
        knock_done done;
        void *user;
        const char *id;
        uint8_t asks;
        bool is_bootstrap;
        bool is_finished;
};

static int thief_send(void *user, const uint8_t *datagram, size_t size) {
        struct thief *thief = user;

        return session_send(&thief->session, datagram, size);
}

static void thief_random(void *user, void *data, size_t size) {
        struct thief *thief = user;

        dice_fill(&thief->sim->dice, data, size);
}

static void ask(struct thief *thief, uint8_t what) {
        const struct device_bytes shown = { thief->key.certificate, thief->key.certificate_size };
        struct device_request request = {
                .method = what == ASKS_ME ? DEVICE_GET : DEVICE_POST,
                .path = what == ASKS_ME ? "me" : "cred",
                .content_format = DEVICE_FORMAT_NONE,
        };

        if (what == ASKS_CRED && thief->key.certificate_size > 0) {
                request.path = thief->is_bootstrap ? "est/sen" : "est/sren";
                request.content_format = DEVICE_FORMAT_PKCS10;
                request.body.data = thief->csr;
                request.body.size = certificate_request(shown, &thief->next, thief->csr, sizeof(thief->csr));
        }
        thief->asks = what;
        device_coap_start(&thief->coap, &request, real_ms());
}

static void finish(struct thief *thief, const char *handshake) {
        if (!thief->result.handshake) {
                thief->result.handshake = handshake;
                thief->result.alert = thief->session.alert;
        }
        thief->is_finished = true;
}

static void thief_connected(void *user) {
        struct thief *thief = user;

        thief->result.handshake = "completed";
        thief->result.alert = 255;
        ask(thief, ASKS_ME);
}

static void thief_refused(void *user) {
        finish(user, "refused");
}

static void thief_lost(void *user) {
        finish(user, "no answer");
}

static void proceed(struct thief *thief, enum device_coap_result result) {
        if (result == DEVICE_COAP_NOTHING || result == DEVICE_COAP_NOTIFIED)
                return;
        if (result == DEVICE_COAP_REPLY && thief->asks == ASKS_ME)
                thief->result.me = thief->coap.reply.code;
        else if (result == DEVICE_COAP_REPLY)
                thief->result.cred = thief->coap.reply.code;
        if (thief->asks == ASKS_ME)
                ask(thief, ASKS_CRED);
        else
                finish(thief, NULL);
}

static void thief_datagram(void *user, const uint8_t *data, size_t size) {
        struct thief *thief = user;

        proceed(thief, device_coap_input(&thief->coap, data, size, real_ms()));
}

int thief_knock(struct sim *sim, const struct sim_device *device, knock_done done, void *user) {
        const struct device_bytes anchors = { device->stolen_anchors, device->stolen_anchors_size };
        struct thief *thief;
        int r;

        if (sim->thief)
                return -EBUSY;
        thief = calloc(1, sizeof(*thief));
        if (!thief)
                return -ENOMEM;
        thief->sim = sim;
        thief->done = done;
        thief->user = user;
        thief->coap.send = thief_send;
        thief->coap.random = thief_random;
        thief->coap.user = thief;
        thief->key = device->stolen;
        thief->id = device->identity.id;
        thief->is_bootstrap = strncmp((const char *)thief->key.identity, thief->id, thief->key.identity_size) == 0;
        thief->coap.ack_timeout_ms = sim->options.ack_timeout_ms;
        device_coap_init(&thief->coap);
        r = session_open(&thief->session, &sim->session_settings,
                         &(struct session_owner){ thief, thief_connected, thief_refused, thief_lost, thief_datagram },
                         sim->count);
        if (r < 0) {
                session_close(&thief->session);
                free(thief);
                return r;
        }
        sim->thief = thief;
        session_connect(&thief->session, &thief->key, anchors);
        return 0;
}

int thief_descriptor(const struct thief *thief) {
        return thief->session.socket;
}

void thief_readable(struct sim *sim) {
        session_readable(&sim->thief->session);
}

uint64_t thief_deadline(const struct thief *thief) {
        uint64_t session = session_deadline(&thief->session), coap = device_coap_deadline(&thief->coap);

        if (thief->is_finished)
                return 0;
        return session < coap ? session : coap;
}

void thief_timer(struct sim *sim) {
        struct thief *thief = sim->thief;

        if (!thief->is_finished && session_deadline(&thief->session) <= real_ms())
                session_timer(&thief->session);
        if (!thief->is_finished)
                proceed(thief, device_coap_tick(&thief->coap, real_ms()));
        if (!thief->is_finished)
                return;
        sim->thief = NULL;
        thief->done(thief->user, &thief->result);
        session_disconnect(&thief->session, false);
        session_close(&thief->session);
        free(thief);
}

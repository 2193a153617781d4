/* SPDX-License-Identifier: Apache-2.0 */

/* What core is doing while it is killed. A step is begun anew after each crash, as a device or an operator would. */

#include "tests/system/crash_world.h"

#include <openssl/pem.h>
#include <stdlib.h>
#include <unistd.h>

#define LOOKS_MAX 5000

/* ---- operators ---- */

/* Done, or found done: what was asked before the crash may have come about. */
static int operate(struct world *w, const char *const words[]) {
        int r = gateway_ctl(&w->g, words);

        if (r == GONE)
                return GONE;
        if (r != 0 && r != 3)
                gateway_fail(&w->g, "gatewayctl %s %s: %d: %s", words[0], words[1] ? words[1] : "", r,
                             w->g.output.data);
        return 0;
}
#define OPERATE(w, ...) operate((w), (const char *const[]){ __VA_ARGS__, NULL })

static int is_said(struct world *w, const char *text) {
        return strstr((const char *)w->g.output.data, text) != NULL;
}

static int registered(struct world *w, const char *profile) {
        char key[320];
        int r = CTL(&w->g, "device", "show", "dev");

        if (r == GONE || r == 0)
                return r;
        snprintf(key, sizeof key, "%s/attestation.pem", w->g.folder);
        if (!w->device.attestation)
                return OPERATE(w, "device", "add", "dev", "--profile", profile, "--psk", "text:factory key of dev");
        return OPERATE(w, "device", "add", "dev", "--profile", profile, "--psk", "text:factory key of dev",
                       "--attestation-key", key);
}

static int register_plain(struct world *w) {
        return registered(w, "plain");
}

static int register_attesting(struct world *w) {
        return registered(w, "attesting");
}

static int register_certified(struct world *w) {
        return registered(w, "certified");
}

static int make_ca(struct world *w) {
        int r = CTL(&w->g, "ca", "show");

        if (r < 0 || (r == 0 && !is_said(w, "there is no CA")))
                return r;
        return OPERATE(w, "ca", "init");
}

static int roll_ca(struct world *w) {
        int r = CTL(&w->g, "ca", "show", "--json");
        const char *second;

        if (r < 0)
                return r;
        second = strstr((const char *)w->g.output.data, "\"generation\"");
        second = second ? strstr(second + 1, "\"generation\"") : NULL;
        return second ? 0 : OPERATE(w, "ca", "roll", "--within", "1d");
}

static int revoke_device(struct world *w) {
        w->is_ended = true;
        return OPERATE(w, "device", "revoke", "dev", "--reason", "stolen");
}

static int refused(struct world *w) {
        struct crash_device *d = &w->device;

        for (size_t i = 0; i < d->grant_count; i++) {
                bool has_chain = d->grants[i].chain.size > 0;
                int r = has_chain ? gateway_certificate(&w->g, buffer_bytes(&d->grants[i].chain))
                                  : gateway_psk(&w->g, d->grants[i].key.identity, NULL);

                if (r < 0)
                        return r;
                if (r != 0)
                        gateway_fail(&w->g, "the device was revoked and %s opens", d->grants[i].key.identity);
        }
        return 0;
}

static void all_may_be_over(struct world *w) {
        for (size_t i = 0; i < w->device.grant_count; i++)
                w->device.grants[i].may_be_over = true;
}

static int compromised(struct world *w) {
        all_may_be_over(w);
        return OPERATE(w, "rotate", "dev", "--compromised");
}

/* The technician opens the window and pushes the device's button. */
static int visit(struct world *w) {
        int r = OPERATE(w, "device", "reset", "dev", "--for", "1h");

        if (r < 0)
                return r;
        w->device.model.newest = w->device.model.second = (struct model_key){ 0 };
        return 0;
}

/* A new sealing key; once more, where core died over it. */
static int reseal(struct world *w) {
        return OPERATE(w, "sealing", "rotate");
}

static int make_recovery_key(struct world *w) {
        return OPERATE(w, "sealing", "recovery");
}

/* To the recovery key. What a dead core has left of the file is the operator's to remove. */
static int back_up(struct world *w) {
        char path[320];

        snprintf(path, sizeof path, "%s/backup.age", w->g.folder);
        (void)unlink(path);
        return OPERATE(w, "backup", path);
}

/* The tick has changed the receipt key and the data key, each told in the audit. */
static int own_keys_changed(struct world *w) {
        static const char event[] = "gateway-key-rotated";

        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                const char *found;
                int r = CTL(&w->g, "audit", "-n", "100", "--json");

                if (r == GONE)
                        return GONE;
                found = strstr((const char *)w->g.output.data, event);
                if (found && strstr(found + 1, event))
                        return 0;
                gateway_pause(&w->g);
        }
        gateway_fail(&w->g, "the gateway's own keys are never changed");
}

/* ---- time ---- */

/* Both clocks are moved to so long after the beginning, once. */
static int at(struct world *w, int64_t seconds) {
        if (w->g.clock[0] < seconds)
                __atomic_store_n(&w->g.clock[0], seconds, __ATOMIC_RELEASE);
        return 0;
}

static int after_a_month(struct world *w) {
        return at(w, 31 * DAY);
}

static int after_the_grace(struct world *w) {
        return at(w, 34 * DAY);
}

static int after_a_week(struct world *w) {
        return at(w, 8 * DAY);
}

static int after_a_day(struct world *w) {
        return at(w, 2 * DAY);
}

static int after_two_thirds(struct world *w) {
        return at(w, 62 * DAY);
}

static int after_the_certificate(struct world *w) {
        return at(w, 70 * DAY);
}

/* ---- the device ---- */

static int content(struct world *w) {
        return device_content(w);
}

static int note_key(struct world *w) {
        w->answered_before = w->answered_count;
        memcpy(w->before, w->device.model.newest.identity, sizeof w->before);
        return 0;
}

/* Awake until it has another key than at the beginning. */
static int rotated(struct world *w) {
        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                int r = device_content(w);

                if (r < 0 || strcmp(w->device.model.newest.identity, w->before) != 0)
                        return r;
                gateway_pause(&w->g);
        }
        gateway_fail(&w->g, "the device is never called for a new key");
}

static int predecessor_ended(struct world *w) {
        for (unsigned i = 0; i < LOOKS_MAX && !w->g.is_gone; i++) {
                int r = gateway_psk(&w->g, w->before, NULL);

                if (r <= 0)
                        return r;
                gateway_pause(&w->g);
        }
        if (w->g.is_gone)
                return GONE;
        gateway_fail(&w->g, "%s is never deactivated", w->before);
}

/* Until evidence was answered. What was sent and not answered is sent again, in a session of its own: the
 * first answer stands, and core need not have asked for more. */
static int attested(struct world *w) {
        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                int r = device_content(w);

                if (r == 0 && w->device.evidence.size > 0 && device_attest(w) < 0)
                        return GONE;
                if (r < 0 || w->answered_count > w->answered_before)
                        return r;
                gateway_pause(&w->g);
        }
        gateway_fail(&w->g, "the device is never asked for evidence");
}

/* Everything answered was sent upstream, and is acknowledged there. */
static int uplink(struct world *w) {
        if (!w->is_uplink_up) { /* what was sent before the uplink came is sent again to the next north alone */
                w->is_uplink_up = true;
                if (gateway_reconnect(&w->g) < 0)
                        return GONE;
        }
        for (unsigned i = 0; i < LOOKS_MAX && !w->g.is_gone; i++) {
                size_t missing = 0;

                for (size_t j = 0; j < w->answered_count; j++) {
                        bool is_sent = false;

                        for (size_t k = 0; k < w->sent_count; k++)
                                is_sent |= w->sent[k].sequence == w->answered[j].sequence;
                        missing += !is_sent;
                }
                if (missing == 0)
                        return gateway_settle(&w->g);
                gateway_pause(&w->g);
        }
        if (w->g.is_gone)
                return GONE;
        gateway_fail(&w->g, "a receipt never goes upstream");
}

const struct scenario scenarios[] = {
        { .name = "first-start", .steps = { register_plain } },
        { .name = "provision", .before = { register_plain }, .steps = { content, content } },
        { .name = "rotate",
          .before = { register_plain, content, content, note_key, after_a_month },
          .steps = { rotated, content, after_the_grace, predecessor_ended, content } },
        { .name = "rotate-lost",
          .forgets = true,
          .before = { register_plain, content, content, note_key, after_a_month },
          .steps = { rotated, content } },
        { .name = "evidence",
          .attests = true,
          .before = { register_attesting, content, content, note_key, after_a_week },
          .steps = { attested, uplink } },
        { .name = "enrol",
          .is_certified = true,
          .before = { make_ca, register_certified },
          .steps = { content, content } },
        { .name = "renew",
          .is_certified = true,
          .before = { make_ca, register_certified, content, content, note_key, after_two_thirds },
          .steps = { rotated, content } },
        { .name = "ca-init",
          .is_certified = true,
          .before = { register_certified },
          .steps = { make_ca, content, content } },
        { .name = "ca-roll",
          .is_certified = true,
          .before = { make_ca, register_certified, content, content, note_key },
          .steps = { roll_ca, content, after_a_day, content, after_the_certificate, rotated, content } },
        { .name = "revoke", .before = { register_plain, content, content }, .steps = { revoke_device, refused } },
        { .name = "revoke-certificate",
          .is_certified = true,
          .before = { make_ca, register_certified, content, content },
          .steps = { revoke_device, refused } },
        { .name = "compromise",
          .before = { register_plain, content, content },
          .steps = { compromised, visit, content, content } },
        { .name = "own-keys",
          .settings = "keys = { receipt_every = \"20d\"; data_every = \"20d\"; };",
          .attests = true,
          .before = { register_attesting, content, content, note_key, after_a_month },
          .steps = { own_keys_changed, rotated, attested, uplink } },
        { .name = "sealing",
          .before = { register_plain, content, content, note_key },
          .steps = { reseal, content, after_a_month, rotated, content } },
        { .name = "backup",
          .before = { register_plain, content, content, note_key, make_recovery_key, after_a_month },
          .steps = { back_up, rotated, back_up } },
};
const size_t scenario_count = ELEMENTS(scenarios);

/* SPDX-License-Identifier: Apache-2.0 */

/* Methods that show devices and the audit table. Secrets are not among what they read. */

#include <errno.h>

#include "gatewayd/devices/devices.h"
#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/operator/methods.h"
#include "store/audit.h"

/* A page of the registry: what one turn may cost. */
#define PAGE_MAX 500
/* Rows looked at for one page where a filter lets few through. */
#define LOOKED_AT_MAX  2000
#define AUDIT_PAGE_MAX 1000

static const char *tier_name(enum tier tier) {
        switch (tier) {
        case TIER_NONE:
                return "none";
        case TIER_AFFIRMING:
                return "affirming";
        case TIER_WARNING:
                return "warning";
        case TIER_CONTRAINDICATED:
                return "contraindicated";
        }
        return "unknown";
}

static const char *kind_name(enum credential_kind kind) {
        switch (kind) {
        case CREDENTIAL_FACTORY:
                return "factory";
        case CREDENTIAL_PSK:
                return "psk";
        case CREDENTIAL_IDEVID:
                return "idevid";
        case CREDENTIAL_LDEVID:
                return "certificate";
        }
        return "unknown";
}

static const char *quality_name(enum clock_quality quality) {
        static const char *const names[] = { "unknown", "held", "synchronized" };

        return (size_t)quality < ELEMENTS(names) ? names[quality] : "unknown";
}

/* ---- devices ---- */

static void answer_due_in(struct answer *answer, const char *key, int64_t seconds) {
        if (seconds != INT64_MAX) /* absent: never */
                answer_signed(answer, key, seconds);
}

static void answer_device(struct answer *answer, struct turn *turn, const struct device *device) {
        struct outlook outlook;
        int64_t window = device->window_until_powered - turn->now.powered_sec;

        answer_dict_open(answer);
        answer_text(answer, "id", device->id);
        answer_text(answer, "profile", device->profile);
        answer_text(answer, "state", standing_name(device->standing));
        answer_text(answer, "tier", tier_name(device->tier));
        answer_number(answer, "generation", device->generation);
        answer_moment(answer, "registered", &device->registered);
        answer_moment(answer, "last_seen", &device->last_seen);
        answer_bool(answer, "has_attestation_key", device->attestation_key_size > 0);
        answer_moment(answer, "appraised", &device->appraised);
        answer_moment(answer, "affirmed", &device->affirmed);
        answer_moment(answer, "evidence_last", &device->evidence_last);
        answer_bool(answer, "is_conflicted", device->is_conflicted);
        answer_bool(answer, "is_compromised", device->is_compromised);
        answer_number(answer, "reset_window", window > 0 ? (uint64_t)window : 0);
        answer_number(answer, "handshakes", device->handshakes);
        answer_number(answer, "handshakes_without_forward_secrecy", device->handshakes_without_fs);
        answer_number(answer, "dropped_grants", device->dropped_grants);
        if (schedule_outlook(turn, device, &outlook) >= 0) {
                answer_bool(answer, "rotation_due", outlook.due & DUE_ROTATE);
                answer_bool(answer, "attestation_due", outlook.due & DUE_ATTEST);
                answer_due_in(answer, "rotate_in", outlook.rotate_in_sec);
                answer_due_in(answer, "late_in", outlook.late_in_sec);
                answer_due_in(answer, "attest_in", outlook.attest_in_sec);
        }
        answer_dict_close(answer);
}

struct filter {
        const char *state, *profile, *tier;
};

static int read_filter(struct method_call *call, struct filter *ret) {
        int r = sd_bus_message_enter_container(call->request, SD_BUS_TYPE_ARRAY, "{ss}");

        *ret = (struct filter){ 0 };
        while (r >= 0) {
                const char *key, *value;

                r = sd_bus_message_read(call->request, "{ss}", &key, &value);
                if (r <= 0)
                        break;
                if (strcmp(key, "state") == 0)
                        ret->state = value;
                else if (strcmp(key, "profile") == 0)
                        ret->profile = value;
                else if (strcmp(key, "tier") == 0)
                        ret->tier = value;
                else
                        return problem_set(call->problem, CODE_BAD_REQUEST, EINVAL, "bad filter",
                                           "a filter is state, profile or tier");
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(call->request);
        if (r >= 0 && ret->state) {
                bool is_known = false;

                for (enum standing s = STANDING_REGISTERED; s <= STANDING_NEEDS_VISIT; s++)
                        is_known |= strcmp(ret->state, standing_name(s)) == 0;
                if (!is_known)
                        return problem_set(call->problem, CODE_BAD_REQUEST, EINVAL, "bad filter",
                                           "%s is no state; registered, operational, restricted, quarantined, revoked "
                                           "and needs-visit are",
                                           ret->state);
        }
        return r;
}

static bool is_let_through(const struct filter *filter, const struct device *device) {
        return (!filter->state || strcmp(filter->state, standing_name(device->standing)) == 0) &&
               (!filter->profile || strcmp(filter->profile, device->profile) == 0) &&
               (!filter->tier || strcmp(filter->tier, tier_name(device->tier)) == 0);
}

struct listing {
        struct method_call *call;
        struct filter filter;
        uint32_t limit, listed, looked_at;
        char last[DEVICE_ID_MAX + 1];
        bool is_more;
};

static int list_one(void *userdata, const struct device *device) {
        struct listing *listing = userdata;

        if (listing->listed == listing->limit || listing->looked_at == LOOKED_AT_MAX) {
                listing->is_more = true;
                return 1;
        }
        listing->looked_at++;
        memcpy(listing->last, device->id, sizeof listing->last);
        if (!is_let_through(&listing->filter, device))
                return 0;
        listing->listed++;
        answer_device(&listing->call->answer, listing->call->turn, device);
        return 0;
}

int method_list_devices(struct method_call *call) {
        struct listing listing = { .call = call };
        const char *after;
        int r;

        r = sd_bus_message_read(call->request, "su", &after, &listing.limit);
        if (r >= 0)
                r = read_filter(call, &listing.filter);
        if (r < 0)
                return r;
        if (listing.limit == 0 || listing.limit > PAGE_MAX)
                listing.limit = PAGE_MAX;
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        r = device_each(call->turn->store, after[0] ? after : NULL, LOOKED_AT_MAX + 1, list_one, &listing);
        if (r < 0)
                return r;
        answer_close(&call->answer);
        return sd_bus_message_append(call->answer.message, "s", listing.is_more ? listing.last : "");
}

/* What is in the certificate; nothing where none was shown yet. */
static int answer_certificate(struct answer *answer, struct store *store, const struct credential *credential) {
        struct certificate certificate;
        char serial[2 * CERTIFICATE_SERIAL_MAX + 1];
        int r;

        r = credential->kind == CREDENTIAL_IDEVID ? certificate_idevid(store, credential->device, &certificate)
                                                  : certificate_get(store, credential->identity, &certificate);
        if (r < 0)
                return r == -ENOENT ? 0 : r;
        bytes_to_hex(BYTES(certificate.serial, certificate.serial_size), serial);
        answer_text(answer, "sha256", certificate.fingerprint);
        answer_text(answer, "serial", serial);
        answer_signed(answer, "not_before", certificate.not_before);
        answer_signed(answer, "not_after", certificate.not_after);
        if (certificate.issuer != GENERATION_FOREIGN)
                answer_number(answer, "ca_generation", certificate.issuer);
        answer_bool(answer, "is_revoked", certificate.revoked != REVOKED_NOT);
        return 0;
}

static int answer_credential(struct answer *answer, struct store *store, const struct credential *credential) {
        int r = 0;

        answer_dict_open(answer);
        answer_text(answer, "identity", credential->identity);
        answer_text(answer, "kind", kind_name(credential->kind));
        answer_text(answer, "state", key_state_name(credential->state));
        answer_number(answer, "generation", credential->generation);
        answer_text(answer, "predecessor", credential->predecessor);
        answer_moment(answer, "issued", &credential->issued);
        answer_moment(answer, "proven", &credential->proven);
        answer_moment(answer, "confirmed", &credential->confirmed);
        answer_moment(answer, "superseded", &credential->superseded);
        answer_moment(answer, "ended", &credential->ended);
        answer_moment(answer, "last_used", &credential->last_used);
        answer_number(answer, "handshakes", credential->handshakes);
        if (credential_is_certificate(credential->kind))
                r = answer_certificate(answer, store, credential);
        answer_dict_close(answer);
        return r;
}

int method_show_device(struct method_call *call) {
        struct credential credentials[CREDENTIALS_MAX];
        struct device device;
        const char *id;
        ssize_t count;
        int r;

        r = sd_bus_message_read(call->request, "s", &id);
        if (r < 0)
                return r;
        r = device_get(call->turn->store, bytes_of(id), &device);
        if (r == -ENOENT)
                return problem_set(call->problem, CODE_NOT_FOUND, ENOENT, "no such device", "there is no device %.*s",
                                   DEVICE_ID_MAX, id);
        if (r < 0)
                return r;
        count = credential_list(call->turn->store, device.id, credentials, ELEMENTS(credentials));
        if (count < 0)
                return (int)count;
        answer_device(&call->answer, call->turn, &device);
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        for (ssize_t i = 0; i < count && r >= 0; i++)
                r = answer_credential(&call->answer, call->turn->store, &credentials[i]);
        answer_close(&call->answer);
        return r;
}

/* ---- audit ---- */

static int audit_one(void *userdata, const struct audit_row *row) {
        struct answer *answer = userdata;

        answer_dict_open(answer);
        answer_number(answer, "number", row->number);
        answer_signed(answer, "time", row->at.wall);
        answer_signed(answer, "powered", row->at.powered_sec);
        answer_text(answer, "clock", quality_name(row->at.quality));
        answer_text(answer, "event", event_name(row->kind));
        answer_text(answer, "device", row->device);
        answer_text(answer, "kid", row->kid);
        answer_text(answer, "reason", row->reason);
        answer_text(answer, "actor", row->actor);
        answer_dict_close(answer);
        return 0;
}

int method_audit(struct method_call *call) {
        const char *device;
        uint64_t after;
        uint32_t limit;
        int is_last, r;

        r = sd_bus_message_read(call->request, "stub", &device, &after, &limit, &is_last);
        if (r < 0)
                return r;
        if (limit == 0 || limit > AUDIT_PAGE_MAX)
                limit = AUDIT_PAGE_MAX;
        if (!device[0])
                device = NULL;
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        r = is_last ? audit_last(call->turn->store, device, limit, audit_one, &call->answer)
                    : audit_each(call->turn->store, device, after, limit, audit_one, &call->answer);
        if (r < 0)
                return r;
        answer_close(&call->answer);
        return 0;
}

int method_verify_audit(struct method_call *call) {
        uint64_t bad = 0;
        int r = audit_verify(call->turn->store, &bad);

        if (r < 0 && r != -EBADMSG)
                return r;
        return sd_bus_message_append(call->answer.message, "bt", r >= 0, bad);
}

/* The gateway's time, which all times here are by: it need not be the machine's (clock.h). */
int method_now(struct method_call *call) {
        const struct moment *now = &call->turn->now;

        return sd_bus_message_append(call->answer.message, "xxs", now->wall, now->powered_sec,
                                     quality_name(now->quality));
}

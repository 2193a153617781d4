/* SPDX-License-Identifier: Apache-2.0 */

/* May this identity use this resource now? PROTOCOL.md's table "Who is talking", as a pure function of
 * the device's row, the credential's row and the profile. */

#include "gatewayd/devices/lifecycle.h"

#include <errno.h>

/* Sets of resources, as the table's right column has them. */
#define MAY(resource) (1u << (resource))
#define MAY_BASICS    (MAY(RESOURCE_CORE) | MAY(RESOURCE_ME) | MAY(RESOURCE_RATS))
#define MAY_READ      (MAY_BASICS | MAY(RESOURCE_TIME) | MAY(RESOURCE_CRL))
#define MAY_EST       (MAY(RESOURCE_EST_CRTS) | MAY(RESOURCE_EST_ATT) | MAY(RESOURCE_EST_ENROL) | MAY(RESOURCE_EST_RENEW))
#define MAY_ALL       (MAY_READ | MAY(RESOURCE_CRED) | MAY_EST)
/* What a device with an overdue key needs to get its next one. */
#define MAY_RENEWAL (MAY_ALL & ~MAY(RESOURCE_EST_ENROL))
/* What leads to an operational credential; none of it without the terms of lifecycle_cred_terms(). */
#define MAY_GRANT (MAY(RESOURCE_CRED) | MAY_EST)
/* What an expired certificate opens. */
#define MAY_EXPIRED                                                                                                    \
        (MAY(RESOURCE_CORE) | MAY(RESOURCE_ME) | MAY(RESOURCE_TIME) | MAY(RESOURCE_EST_CRTS) | MAY(RESOURCE_EST_RENEW))

struct terms {
        unsigned may;
        const char *why_not; /* for what is not in `may` */
};

const char *standing_name(enum standing standing) {
        switch (standing) {
        case STANDING_REGISTERED:
                return "registered";
        case STANDING_OPERATIONAL:
                return "operational";
        case STANDING_RESTRICTED:
                return "restricted";
        case STANDING_QUARANTINED:
                return "quarantined";
        case STANDING_REVOKED:
                return "revoked";
        case STANDING_NEEDS_VISIT:
                return "needs-visit";
        }
        return "unknown";
}

const char *key_state_name(enum key_state state) {
        switch (state) {
        case KEY_PRE_ACTIVE:
                return "pre-active";
        case KEY_ACTIVE:
                return "active";
        case KEY_RETIRING:
                return "retiring";
        case KEY_DEACTIVATED:
                return "deactivated";
        case KEY_COMPROMISED:
                return "compromised";
        case KEY_DESTROYED:
                return "destroyed";
        }
        return "unknown";
}

bool lifecycle_window_is_open(const struct device *device, const struct moment *now) {
        if (device->window_until_powered == 0 || now->powered_sec >= device->window_until_powered)
                return false;
        /* Powered-on time stands still while the gateway is off; the technician's hour does not. */
        return !now->wall_trusted || device->window_until_wall == 0 || now->wall < device->window_until_wall;
}

bool lifecycle_can_attest(const struct device *device, const struct profile *profile) {
        return profile->attestation != ATTESTATION_NONE && device->attestation_key_size > 0;
}

static enum cred_terms closed(char *reason, const char *text) {
        if (reason)
                snprintf(reason, 160, "%s", text);
        return CRED_CLOSED;
}

/* Evidence decides, where the device can give any. */
static enum cred_terms attested(const struct lifecycle_view *view, char *reason, const char *text) {
        bool can_attest = lifecycle_can_attest(view->device, view->profile);

        if (reason)
                snprintf(reason, 160, "%s%s", text,
                         can_attest ? ": give evidence (/rats) in this session first"
                                    : ", and this device cannot attest: an operator must act");
        return can_attest ? CRED_ATTESTED : CRED_CLOSED;
}

/* A key whose successor was proven. */
static enum cred_terms retiring_terms(const struct lifecycle_view *view, char *reason) {
        switch (view->profile->on_conflict) {
        case CONFLICT_ALLOW:
                return CRED_OPEN;
        case CONFLICT_ATTEST:
                return attested(view, reason, "a newer key of this device is in use");
        case CONFLICT_QUARANTINE:
                break;
        }
        return closed(reason, "a newer key of this device is in use; an operator must release or reset the device");
}

/* The factory key of a device that has been operational. */
static enum cred_terms spent_factory_terms(const struct lifecycle_view *view, char *reason) {
        switch (view->profile->on_factory_key) {
        case FACTORY_ATTEST:
                return attested(view, reason, "the factory key was replaced");
        case FACTORY_WINDOW:
                return closed(reason, "the factory key was replaced; ask the operator for gatewayctl device reset");
        case FACTORY_REFUSE:
                break;
        }
        return closed(reason, "the factory key was replaced and the profile refuses it");
}

enum cred_terms lifecycle_cred_terms(const struct lifecycle_view *view, const struct moment *now, char *reason) {
        bool is_bootstrap = credential_is_bootstrap(view->credential->kind);

        if (is_bootstrap && view->profile->on_factory_key != FACTORY_REFUSE &&
            lifecycle_window_is_open(view->device, now))
                return CRED_OPEN;
        if (is_bootstrap && view->factory_spent)
                return spent_factory_terms(view, reason);
        switch (view->credential->state) {
        case KEY_PRE_ACTIVE:
        case KEY_ACTIVE:
                return CRED_OPEN;
        case KEY_RETIRING:
                return retiring_terms(view, reason);
        case KEY_COMPROMISED:
                return attested(view, reason, "this key is compromised");
        case KEY_DEACTIVATED:
        case KEY_DESTROYED:
                break;
        }
        return closed(reason, "this key has ended");
}

struct lifecycle_view lifecycle_view_of(const struct identity *from) {
        bool is_bootstrap = credential_is_bootstrap(from->credential.kind);

        return (struct lifecycle_view){
                .device = &from->device,
                .credential = &from->credential,
                .profile = from->profile,
                .factory_spent =
                        is_bootstrap && from->credential.state != KEY_ACTIVE && from->credential.state != KEY_RETIRING,
                .is_expired = from->is_expired,
        };
}

/* Which ways to an operational credential this session's kind of credential has in its profile. */
static unsigned grant_ways(const struct lifecycle_view *view) {
        const struct profile *profile = view->profile;
        /* A compromised certificate is revoked: it may lead to another one, but is not renewed itself. */
        bool is_renewable = view->credential->kind == CREDENTIAL_LDEVID && view->credential->state != KEY_COMPROMISED;

        if (profile->credential == PROFILE_PSK)
                return MAY(RESOURCE_CRED);
        if (!credential_is_certificate(view->credential->kind) && !profile->est_over_psk)
                return 0;
        return is_renewable ? MAY_EST : MAY_EST & ~MAY(RESOURCE_EST_RENEW);
}

/* Why the profile, or the kind of the session, closes a way that the key itself might open. NULL: it does not. */
static const char *way_closed(const struct lifecycle_view *view, enum resource resource) {
        const struct profile *profile = view->profile;

        if (!(MAY(resource) & MAY_GRANT) || grant_ways(view) & MAY(resource))
                return NULL;
        if (profile->credential == PROFILE_PSK)
                return "the profile of this device grants PSKs: POST /cred";
        if (resource == RESOURCE_CRED)
                return "the profile of this device issues certificates: enrol by EST (/est/sen)";
        if (!credential_is_certificate(view->credential->kind) && !profile->est_over_psk)
                return "the profile of this device takes EST in certificate sessions only";
        if (view->credential->state == KEY_COMPROMISED)
                return "a compromised certificate is never renewed: after evidence, enrol anew (/est/sen)";
        return "renewal (/est/sren) takes a session with the certificate that is to be renewed";
}

/* What the terms of a new credential open in this session. exchange.c asks for every request; the handlers
 * see to it that it is this session's evidence. */
static unsigned granted(const struct lifecycle_view *view, enum cred_terms terms) {
        if (terms == CRED_CLOSED)
                return 0;
        /* A device that has lost all it knew needs the anchors first: by them it sees to whom it gives evidence. */
        if (terms == CRED_ATTESTED && view->credential->session == 0)
                return grant_ways(view) & MAY(RESOURCE_EST_CRTS);
        return grant_ways(view);
}

/* An expired certificate may only renew; where that takes evidence, it may give it. */
static struct terms expired_terms(const struct lifecycle_view *view, struct terms terms, enum cred_terms cred) {
        /* Where the profile has changed to PSKs, the next one of those is the renewal. */
        unsigned may = MAY_EXPIRED | (grant_ways(view) & MAY(RESOURCE_CRED));

        if (cred == CRED_ATTESTED || view->device->standing == STANDING_QUARANTINED)
                may |= MAY(RESOURCE_RATS);
        if (view->credential->state == KEY_COMPROMISED && view->credential->session != 0)
                may |= MAY(RESOURCE_EST_ENROL);
        if (terms.may & ~may)
                terms.why_not = "this certificate has expired: it may only be renewed (/est/sren)";
        terms.may &= may;
        return terms;
}

/* What the key itself opens, before the device's standing narrows it. */
static struct terms key_terms(const struct lifecycle_view *view, const struct moment *now, char *reason) {
        const struct credential *credential = view->credential;
        enum cred_terms cred = lifecycle_cred_terms(view, now, reason);
        bool is_bootstrap = credential_is_bootstrap(credential->kind);
        struct terms terms = { MAY_READ, reason };

        if (!is_bootstrap && (credential->state == KEY_DEACTIVATED || credential->state == KEY_DESTROYED))
                return (struct terms){ 0, "this key has ended" };
        if (is_bootstrap && view->factory_spent && cred != CRED_OPEN)
                terms.may = view->profile->on_factory_key == FACTORY_ATTEST ? MAY_BASICS : MAY(RESOURCE_CORE);
        else if (credential->state == KEY_COMPROMISED)
                terms.may = MAY_BASICS;
        terms.may |= granted(view, cred);
        return view->is_expired ? expired_terms(view, terms, cred) : terms;
}

static struct terms standing_terms(const struct lifecycle_view *view, const struct moment *now) {
        bool is_bootstrap = credential_is_bootstrap(view->credential->kind);

        switch (view->device->standing) {
        case STANDING_REGISTERED:
        case STANDING_OPERATIONAL:
                return (struct terms){ MAY_ALL, NULL };
        case STANDING_RESTRICTED:
                /* The way back through a bootstrap or compromised credential is enrolment: it has nothing to renew. */
                if (view->credential->kind != CREDENTIAL_LDEVID || view->credential->state == KEY_COMPROMISED)
                        return (struct terms){ MAY_RENEWAL | MAY(RESOURCE_EST_ENROL),
                                               "this device is overdue: renewal only" };
                return (struct terms){ MAY_RENEWAL, "this device is overdue: renewal only" };
        case STANDING_QUARANTINED:
                return (struct terms){ MAY_BASICS, "this device is quarantined: /me and /rats only" };
        case STANDING_NEEDS_VISIT:
                if (is_bootstrap && lifecycle_window_is_open(view->device, now))
                        return (struct terms){ MAY_ALL, NULL };
                return (struct terms){ MAY_BASICS, "this device needs a visit: its keys are compromised" };
        case STANDING_REVOKED:
                break;
        }
        return (struct terms){ 0, "this device is revoked" };
}

int lifecycle_allows(const struct lifecycle_view *view, enum resource resource, uint8_t method,
                     const struct moment *now, struct problem *problem) {
        const char *closed_way;
        char reason[160] = "";
        struct terms terms;

        (void)method; /* no row of the table depends on it */
        if (!view->profile)
                return problem_set(problem, CODE_FORBIDDEN, EACCES, "not allowed",
                                   "the profile of this device is not in the gateway's configuration");
        terms = standing_terms(view, now);
        if (terms.may & MAY(resource)) {
                terms = key_terms(view, now, reason);
                closed_way = way_closed(view, resource);
                if (closed_way && !view->is_expired)
                        terms.why_not = closed_way;
        }
        if (terms.may & MAY(resource))
                return 0;
        return problem_set(problem, CODE_FORBIDDEN, EACCES, "not allowed", "%s", terms.why_not);
}

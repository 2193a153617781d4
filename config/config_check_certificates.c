/* SPDX-License-Identifier: Apache-2.0 */

/* What the values about certificates say together: a profile's, the issuing CA's, the registrar's. As in
 * config_check.c: what cannot work is an error, what will hurt a warning. */

#include "config/loader.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define DAY INT64_C(86400)

#define KEY_TYPE(type) (1U << DEVICE_KEY_##type)

static int64_t share_of(int64_t span, double share) {
        int64_t part = (int64_t)((double)span * share);

        return part < 1 ? 1 : part;
}

/* ---- defaults ---- */

void derive_certificates(struct loader *loader, size_t i) {
        struct profile *p = &loader->config->profiles[i];

        if (!profile_has(loader, i, "validity"))
                p->validity_sec = 90 * DAY;
        if (!profile_has(loader, i, "renew_at"))
                p->renew_at = 0.66;
        if (!profile_has(loader, i, "key_types") || p->key_types == 0)
                p->key_types = KEY_TYPE(P256) | KEY_TYPE(P384) | KEY_TYPE(ED25519);
        if (!profile_has(loader, i, "rsa_bits"))
                p->rsa_bits = 2048;
        if (p->credential == PROFILE_CERTIFICATE)
                p->rotate_every_sec = share_of(p->validity_sec, p->renew_at);
}

void derive_ca(struct loader *loader) {
        struct config *config = loader->config;
        size_t length = strlen(config->north.est_url);

        /* A common name has at most 64 characters (RFC 5280 appendix A.1). */
        if (config->ca.subject[0] == '\0')
                snprintf(config->ca.subject, sizeof config->ca.subject, "CN=gatewayd CA %.52s", config->gateway_id);
        while (length > 0 && config->north.est_url[length - 1] == '/')
                config->north.est_url[--length] = '\0';
}

/* ---- a profile ---- */

/* Keys that say nothing under this kind of credential. */
static void check_unused(struct loader *loader, size_t i) {
        static const char *const of_certificates[] = { "validity", "renew_at",        "rekey",        "key_types",
                                                       "rsa_bits", "server_keygen",   "est_over_psk", "tls_unique",
                                                       "ca",       "upstream_offline" };
        static const char *const of_psks[] = { "psk_bytes", "psk_format", "text_grant" };
        const struct profile *p = &loader->config->profiles[i];
        bool is_psk = p->credential == PROFILE_PSK;
        const char *const *keys = is_psk ? of_certificates : of_psks;
        size_t count = is_psk ? ELEMENTS(of_certificates) : ELEMENTS(of_psks);

        for (size_t k = 0; k < count; k++)
                if (profile_has(loader, i, keys[k]))
                        loader_warning(loader, profile_place(loader, i, keys[k]),
                                       "profile \"%s\": %s is not used while credential is \"%s\"", p->name, keys[k],
                                       profile_credential_name(p->credential));
}

static void check_idevids(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];

        if (!SOUND("idevid_anchors", "enrolment", "est_over_psk"))
                return;
        if (p->idevid_enrolment == ENROLMENT_AUTOMATIC && loader->profiles[i].anchor_count == 0)
                loader_problem(loader, profile_place(loader, i, "enrolment"),
                               "profile \"%s\": enrolment is \"automatic\" but there are no idevid_anchors: name the "
                               "file with the manufacturer's CA certificates",
                               p->name);
        else if (p->credential == PROFILE_CERTIFICATE && loader->profiles[i].anchor_count == 0 && !p->est_over_psk)
                loader_warning(loader, profile_place(loader, i, "credential"),
                               "profile \"%s\": without idevid_anchors and est_over_psk no device can enrol for its "
                               "first certificate",
                               p->name);
        if (loader->profiles[i].anchor_count == 0 && profile_has(loader, i, "idevid_identity"))
                loader_warning(loader, profile_place(loader, i, "idevid_identity"),
                               "profile \"%s\": idevid_identity is not used without idevid_anchors", p->name);
}

static void check_life(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];
        const struct ca_config *ca = &loader->config->ca;
        /* What the CA has left at the latest moment at which it signs. */
        int64_t least_left = ca->validity_sec - share_of(ca->validity_sec, ca->successor_at) - ca->announce_sec;
        char validity[64], other[64];

        timespan_format(p->validity_sec, validity);
        if (profile_has(loader, i, "rotate_every"))
                loader_problem(loader, profile_place(loader, i, "rotate_every"),
                               "profile \"%s\": rotate_every follows from validity x renew_at where credential is "
                               "\"certificate\"; leave it out",
                               p->name);
        if (SOUND("validity", "max_age") && p->max_age_sec < p->validity_sec) {
                timespan_format(p->max_age_sec, other);
                loader_problem(loader, profile_place(loader, i, "max_age"),
                               "profile \"%s\": max_age is %s; it must not be less than validity (%s): a certificate "
                               "that is still valid would be overdue",
                               p->name, other, validity);
        }
        if (p->ca == CA_LOCAL && SOUND("validity", "ca") && ca_is_sound(loader, "validity") &&
            ca_is_sound(loader, "successor_at") && ca_is_sound(loader, "announce") && least_left > 0 &&
            p->validity_sec > least_left) {
                timespan_format(least_left, other);
                loader_warning(loader, profile_place(loader, i, "validity"),
                               "profile \"%s\": validity is %s; the CA has %s left before its successor signs, and "
                               "no certificate outlives its CA: late ones will be shorter",
                               p->name, validity, other);
        }
}

static void check_keys(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];
        bool is_said = profile_has(loader, i, "key_types");

        if (!SOUND("key_types", "rsa_bits", "stack"))
                return;
        if (p->stack == STACK_TINYDTLS)
                loader_problem(loader, profile_place(loader, i, "credential"),
                               "profile \"%s\": tinydtls knows no X.509 certificates; allowed here is \"psk\"",
                               p->name);
        if (is_said && p->stack == STACK_MBEDTLS && (p->key_types & KEY_TYPE(ED25519)))
                loader_warning(loader, profile_place(loader, i, "key_types"), "profile \"%s\": Mbed TLS has no Ed25519",
                               p->name);
        if ((p->key_types & KEY_TYPE(RSA)) && p->stack == STACK_MBEDTLS)
                loader_warning(loader, profile_place(loader, i, "key_types"),
                               "profile \"%s\": RSA certificates and signatures are large; a small device on Mbed TLS "
                               "needs bigger buffers for its handshake than by default",
                               p->name);
        if (!(p->key_types & KEY_TYPE(RSA)) && profile_has(loader, i, "rsa_bits"))
                loader_warning(loader, profile_place(loader, i, "rsa_bits"),
                               "profile \"%s\": rsa_bits is not used while key_types does not hold \"RSA\"", p->name);
        if (loader->config->ca.key_type == CA_KEY_ED25519 && p->ca == CA_LOCAL &&
            (p->stack == STACK_MBEDTLS || p->stack == STACK_ANY))
                loader_warning(loader, ca_place(loader, "key_type"),
                               "key_type is \"Ed25519\": devices on Mbed TLS (profile \"%s\") cannot verify it",
                               p->name);
}

static void check_issuer(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];

        if (!SOUND("ca", "upstream_offline"))
                return;
        if (p->ca == CA_UPSTREAM && loader->config->north.est_url[0] == '\0' && north_is_sound(loader, "est_url"))
                loader_problem(loader, profile_place(loader, i, "ca"),
                               "profile \"%s\": ca is \"upstream\" but north names no est_url", p->name);
        if (p->ca == CA_LOCAL && profile_has(loader, i, "upstream_offline"))
                loader_warning(loader, profile_place(loader, i, "upstream_offline"),
                               "profile \"%s\": upstream_offline is not used while ca is \"local\"", p->name);
}

static void check_keygen(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];

        if (p->ca == CA_UPSTREAM && p->server_keygen && SOUND("ca", "server_keygen"))
                loader_warning(
                        loader, profile_place(loader, i, "server_keygen"),
                        "profile \"%s\": server_keygen is not used while ca is \"upstream\": the owner's CA signs "
                        "only keys of the devices' own making",
                        p->name);
}

void check_certificates(struct loader *loader, size_t i) {
        check_unused(loader, i);
        check_idevids(loader, i);
        if (loader->config->profiles[i].credential == PROFILE_PSK)
                return;
        check_life(loader, i);
        check_keys(loader, i);
        check_issuer(loader, i);
        check_keygen(loader, i);
}

/* ---- the issuing CA ---- */

/* Labels of letters, digits and hyphens (RFC 1123 §2.1). */
static bool is_dns_name(const char *name) {
        size_t label = 0;

        for (const char *p = name; *p != '\0'; p++) {
                if (*p == '.') {
                        if (label == 0 || p[-1] == '-')
                                return false;
                        label = 0;
                        continue;
                }
                if ((!isalnum((unsigned char)*p) && *p != '-') || (*p == '-' && label == 0) || ++label > 63)
                        return false;
        }
        return label > 0 && name[strlen(name) - 1] != '-';
}

static void check_lives(struct loader *loader) {
        const struct ca_config *ca = &loader->config->ca;
        int64_t left = ca->validity_sec - share_of(ca->validity_sec, ca->successor_at);
        char announce[64], other[64];

        if (!ca_is_sound(loader, "validity") || !ca_is_sound(loader, "successor_at") ||
            !ca_is_sound(loader, "announce") || !ca_is_sound(loader, "server_validity") ||
            !ca_is_sound(loader, "backdate"))
                return;
        timespan_format(ca->announce_sec, announce);
        timespan_format(left, other);
        if (ca->announce_sec > left)
                loader_warning(loader, ca_place(loader, "announce"),
                               "announce is %s; of a root's validity, successor_at leaves %s: the CA would end before "
                               "its successor signs, and the announcement is cut short",
                               announce, other);
        if (ca->server_validity_sec > left)
                loader_warning(loader, ca_place(loader, "server_validity"),
                               "server_validity is longer than what successor_at leaves of a root's validity (%s): it "
                               "will be shorter, for no certificate outlives its CA",
                               other);
        if (ca->backdate_sec >= ca->server_validity_sec)
                loader_warning(loader, ca_place(loader, "backdate"),
                               "backdate is not less than server_validity: the gateway's certificate is half used up "
                               "when it is made");
}

static void check_providers(struct loader *loader) {
        const struct ca_config *ca = &loader->config->ca;

        for (size_t i = 0; i < ca->provider_count; i++)
                for (const char *p = ca->providers[i]; *p != '\0'; p++)
                        if (!isalnum((unsigned char)*p) && *p != '-' && *p != '_') {
                                loader_problem(loader, ca_place(loader, "providers"),
                                               "provider \"%s\" is no name of an OpenSSL provider: letters, digits, - "
                                               "and _",
                                               ca->providers[i]);
                                break;
                        }
        check_file(loader, ca_place(loader, "pkcs11_module"), "pkcs11_module", ca->pkcs11_module, false);
        for (size_t i = 0; i < ca->path_count; i++)
                check_file(loader, ca_place(loader, "paths"), "paths", ca->paths[i], false);
}

void check_ca(struct loader *loader) {
        const struct ca_config *ca = &loader->config->ca;
        char problem[160];

        if (ca_is_sound(loader, "subject") && !subject_is_sound(ca->subject, problem))
                loader_problem(loader, ca_place(loader, "subject"), "subject is not understood: %s", problem);
        if (ca_is_sound(loader, "server_name") && ca->server_name[0] == '\0')
                loader_problem(loader, ca_place(loader, "server_name"),
                               "server_name is empty; it is the name that devices expect in the gateway's certificate");
        else if (!is_dns_name(ca->server_name))
                loader_warning(loader, ca_place(loader, "server_name"),
                               "server_name is \"%s\", which is no DNS name: devices that check the gateway's name "
                               "by RFC 9525 will refuse it",
                               ca->server_name);
        check_lives(loader);
        check_providers(loader);
}

/* ---- the registrar ---- */

void check_est(struct loader *loader) {
        const struct north_config *north = &loader->config->north;

        if (!north_is_sound(loader, "est_url"))
                return;
        if (north->est_url[0] == '\0') {
                if (north->est_renews_ca)
                        loader_problem(loader, north_place(loader, "est_renews_ca"),
                                       "est_renews_ca needs est_url, the owner's EST server");
                if (north->est_renews_client)
                        loader_problem(loader, north_place(loader, "est_renews_client"),
                                       "est_renews_client needs est_url, the owner's EST server");
                return;
        }
        if (!is_https_url(north->est_url) || strpbrk(north->est_url, "?#"))
                loader_problem(loader, north_place(loader, "est_url"),
                               "est_url must begin with https:// and name a host and a path, such as "
                               "\"https://est.example/.well-known/est\"");
        else if (!strstr(north->est_url, "/.well-known/est"))
                loader_warning(loader, north_place(loader, "est_url"),
                               "est_url has no /.well-known/est, where EST servers answer (RFC 7030 §3.2.2)");
        if (north->client_certificate[0] == '\0')
                loader_warning(loader, north_place(loader, "est_url"),
                               "no client_certificate: the EST server cannot tell that this gateway is a registrar "
                               "(id-kp-cmcRA, RFC 7030 §3.7)");
}

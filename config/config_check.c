/* SPDX-License-Identifier: Apache-2.0 */

/* What the values of a configuration say together: defaults that follow from other values, schedules
 * against their class, credentials against what the device's stack can hold, files that must be
 * there. A combination that cannot work is an error; one that works but will hurt is a warning. */

#include "config/loader.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOUR INT64_C(3600)
#define DAY  INT64_C(86400)
/* sockaddr_un's path with its NUL */
#define SOCKET_PATH_MAX 108

static bool is_set(struct place place) {
        return place.line != 0;
}

struct place profile_place(const struct loader *loader, size_t profile, const char *key) {
        struct place place = loader->profiles[profile].keys[key_index(&profile_keys, key)];

        return is_set(place) ? place : loader->profiles[profile].place;
}

bool profile_has(const struct loader *loader, size_t profile, const char *key) {
        struct place place = loader->profiles[profile].keys[key_index(&profile_keys, key)];

        return is_set(place) && !place.is_bad;
}

struct place top_place(const struct loader *loader, const char *key) {
        return loader->top[key_index(&top_keys, key)];
}

struct place north_place(const struct loader *loader, const char *key) {
        struct place place = loader->north[key_index(&north_keys, key)];

        return is_set(place) ? place : top_place(loader, "north");
}

struct place ca_place(const struct loader *loader, const char *key) {
        struct place place = loader->ca[key_index(&ca_keys, key)];

        return is_set(place) ? place : top_place(loader, "ca");
}

bool ca_is_sound(const struct loader *loader, const char *key) {
        return !loader->ca[key_index(&ca_keys, key)].is_bad;
}

/* The most that a stack holds as built by default: bytes of a PSK. */
static size_t stack_psk_max(enum device_stack stack) {
        switch (stack) {
        case STACK_TINYDTLS:
                return 16; /* DTLS_PSK_MAX_KEY_LEN */
        case STACK_MBEDTLS:
                return 32; /* MBEDTLS_PSK_MAX_LEN */
        case STACK_ANY:
        case STACK_WOLFSSL:
                break;
        }
        return 64;
}

bool profile_is_sound(const struct loader *loader, size_t profile, const char *const *keys) {
        for (; *keys; keys++)
                if (loader->profiles[profile].keys[key_index(&profile_keys, *keys)].is_bad)
                        return false;
        return true;
}

bool north_is_sound(const struct loader *loader, const char *key) {
        return !loader->north[key_index(&north_keys, key)].is_bad;
}

static void derive_profile(struct loader *loader, size_t i) {
        struct profile *p = &loader->config->profiles[i];
        bool attests = p->attestation != ATTESTATION_NONE;

        derive_certificates(loader, i);
        if (p->credential == PROFILE_PSK && !profile_has(loader, i, "rotate_every"))
                p->rotate_every_sec = 30 * DAY;
        derive_calendar(loader, i);
        if (!profile_has(loader, i, "jitter"))
                p->jitter = 0.1;
        if (!profile_has(loader, i, "grace"))
                p->grace_sec = p->rotate_every_sec < 14 * DAY ? p->rotate_every_sec / 2 : 7 * DAY;
        if (!profile_has(loader, i, "max_age"))
                p->max_age_sec = 3 * p->rotate_every_sec + p->grace_sec;
        if (!profile_has(loader, i, "max_age") && p->credential == PROFILE_CERTIFICATE &&
            p->max_age_sec < p->validity_sec + p->grace_sec)
                p->max_age_sec = p->validity_sec + p->grace_sec; /* with an early renew_at */
        if (!profile_has(loader, i, "on_overdue"))
                p->on_overdue = OVERDUE_RESTRICT;
        if (!profile_has(loader, i, "on_factory_key"))
                p->on_factory_key = attests ? FACTORY_ATTEST : FACTORY_WINDOW;
        if (!profile_has(loader, i, "on_conflict"))
                p->on_conflict = attests ? CONFLICT_ATTEST : CONFLICT_ALLOW;
        if (!profile_has(loader, i, "psk_bytes"))
                p->psk_bytes = p->stack == STACK_TINYDTLS ? 16 : 32;
        /* 16 characters of base64url hold 96 bits: too few, so short keys are raw unless asked. */
        if (!profile_has(loader, i, "psk_format"))
                p->psk_format = p->psk_bytes >= 24 && p->psk_bytes % 4 == 0 ? PSK_TEXT : PSK_RAW;
        if (!profile_has(loader, i, "sensitivity"))
                p->sensitivity = LEVEL_MEDIUM;
        if (!profile_has(loader, i, "criticality"))
                p->criticality = LEVEL_MEDIUM;
        if (!profile_has(loader, i, "max_session"))
                p->max_session_sec = DAY;
        if (!profile_has(loader, i, "block_size"))
                p->block_size = 512;
        if (!profile_has(loader, i, "challenge_lifetime"))
                p->challenge_sec = 300;
}

void loader_derive(struct loader *loader) {
        derive_ca(loader);
        for (size_t i = 0; i < loader->config->profile_count; i++)
                derive_profile(loader, i);
}

static void check_schedule(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];
        int64_t limit = loader->config->class_limit_sec[p->sensitivity][p->criticality];
        bool is_certificate = p->credential == PROFILE_CERTIFICATE;
        const char *interval = is_certificate ? "validity x renew_at" : "rotate_every";
        struct place place = profile_place(loader, i, is_certificate ? "validity" : "rotate_every");
        char rotate[64], grace[64], other[64];

        timespan_format(p->rotate_every_sec, rotate);
        timespan_format(p->grace_sec, grace);
        if (p->rotate_every_sec > limit &&
            SOUND("rotate_every", "validity", "renew_at", "sensitivity", "criticality") &&
            !loader->classes[p->sensitivity].is_bad) {
                timespan_format(limit, other);
                loader_problem(loader, place,
                               "profile \"%s\": %s is %s; its class (sensitivity %s, criticality %s) "
                               "allows at most %s (table classes)",
                               p->name, interval, rotate, level_name(p->sensitivity), level_name(p->criticality),
                               other);
        }
        if (!SOUND("rotate_every", "validity", "renew_at", "grace", "max_age"))
                return;
        if (p->rotate_every_sec + p->grace_sec >= p->max_age_sec) {
                timespan_format(p->max_age_sec, other);
                loader_problem(loader, profile_place(loader, i, "max_age"),
                               "profile \"%s\": max_age is %s; it must be more than %s + grace (%s + %s), "
                               "or a device that is on time would be overdue",
                               p->name, other, interval, rotate, grace);
        }
        if (p->rotate_every_sec < HOUR)
                loader_warning(loader, place,
                               "profile \"%s\": %s is %s, a schedule for tests: each rotation costs the "
                               "device a handshake and a write to its flash; 1h or more is advised",
                               p->name, interval, rotate);
        else if (p->grace_sec < HOUR)
                loader_warning(loader, profile_place(loader, i, "grace"),
                               "profile \"%s\": grace is %s; a device that lost its new key in a reboot has only "
                               "that long to come back with the old one; 1h or more is advised",
                               p->name, grace);
        if (p->grace_sec > p->rotate_every_sec)
                loader_warning(loader, profile_place(loader, i, "grace"),
                               "profile \"%s\": grace is %s, longer than %s (%s): predecessors of several "
                               "rotations stay valid side by side",
                               p->name, grace, interval, rotate);
}

static void check_attestation(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];

        if (!SOUND("attestation", "attest_every", "on_factory_key", "on_conflict", "challenge_lifetime"))
                return;
        if (p->attestation == ATTESTATION_NONE) {
                if (p->attest_every_sec > 0)
                        loader_problem(loader, profile_place(loader, i, "attest_every"),
                                       "profile \"%s\": attest_every without attestation; set attestation to "
                                       "\"eat\" or \"psa\", or leave attest_every out",
                                       p->name);
                if (p->on_factory_key == FACTORY_ATTEST)
                        loader_problem(loader, profile_place(loader, i, "on_factory_key"),
                                       "profile \"%s\": on_factory_key is \"attest\" but the profile does not "
                                       "attest; allowed here are \"window\" and \"refuse\"",
                                       p->name);
                if (p->on_conflict == CONFLICT_ATTEST)
                        loader_problem(loader, profile_place(loader, i, "on_conflict"),
                                       "profile \"%s\": on_conflict is \"attest\" but the profile does not attest; "
                                       "allowed here are \"allow\" and \"quarantine\"",
                                       p->name);
                if (p->reference_count > 0)
                        loader_warning(loader, profile_place(loader, i, "references"),
                                       "profile \"%s\": references are not used without attestation", p->name);
                return;
        }
        if (p->attest_every_sec == 0)
                loader_problem(loader, profile_place(loader, i, "attestation"),
                               "profile \"%s\": attestation is \"%s\" but attest_every is missing; set how often, "
                               "such as \"7d\"",
                               p->name, attestation_kind_name(p->attestation));
        else if (p->challenge_sec > p->attest_every_sec)
                loader_warning(loader, profile_place(loader, i, "challenge_lifetime"),
                               "profile \"%s\": a challenge lives longer than attest_every: evidence may be older "
                               "than the schedule says",
                               p->name);
        if (p->reference_count == 0)
                loader_warning(loader, profile_place(loader, i, "attestation"),
                               "profile \"%s\": no references: evidence proves which device speaks, but its "
                               "software is compared with nothing",
                               p->name);
}

static void check_psk(struct loader *loader, size_t i) {
        const struct profile *p = &loader->config->profiles[i];
        size_t most = stack_psk_max(p->stack);

        if (!SOUND("stack", "psk_bytes", "psk_format", "text_grant", "forward_secrecy"))
                return;
        if (p->psk_bytes > most)
                loader_problem(loader, profile_place(loader, i, "psk_bytes"),
                               "profile \"%s\": psk_bytes is %zu; stack \"%s\" holds at most %zu", p->name,
                               p->psk_bytes, device_stack_name(p->stack), most);
        else if (p->stack == STACK_ANY && p->psk_bytes > 32)
                loader_warning(loader, profile_place(loader, i, "psk_bytes"),
                               "profile \"%s\": psk_bytes is %zu; Mbed TLS holds 32 unless built for more. "
                               "Name the stack if it is another",
                               p->name, p->psk_bytes);
        if (p->psk_format == PSK_TEXT && p->psk_bytes % 4 != 0)
                loader_problem(loader, profile_place(loader, i, "psk_format"),
                               "profile \"%s\": psk_format is \"text\" and psk_bytes is %zu; text keys have a "
                               "multiple of 4 characters",
                               p->name, p->psk_bytes);
        else if (p->psk_format == PSK_TEXT && p->psk_bytes < 24)
                loader_warning(loader, profile_place(loader, i, "psk_format"),
                               "profile \"%s\": a text key of %zu characters holds %zu bits; use \"raw\" or at least "
                               "24 characters",
                               p->name, p->psk_bytes, p->psk_bytes * 6);
        if (p->text_grant && p->psk_format != PSK_TEXT)
                loader_problem(loader, profile_place(loader, i, "text_grant"),
                               "profile \"%s\": text_grant needs psk_format \"text\": raw bytes cannot stand in a "
                               "line of text",
                               p->name);
        if (p->forward_secrecy == FORWARD_SECRECY_REQUIRE && p->stack == STACK_TINYDTLS)
                loader_problem(loader, profile_place(loader, i, "forward_secrecy"),
                               "profile \"%s\": tinydtls has no cipher suite with a PSK and forward secrecy, so no "
                               "device could connect; allowed here is \"prefer\"",
                               p->name);
}

static void check_profiles(struct loader *loader) {
        if (loader->config->profile_count == 0 && loader->error_count == 0)
                loader_problem(loader, (struct place){ .file = 0 },
                               "no profile: a device needs one; add profiles = ( { name = \"sensor\"; } );");
        for (size_t i = 0; i < loader->config->profile_count; i++) {
                check_schedule(loader, i);
                check_calendar(loader, i);
                check_attestation(loader, i);
                if (loader->config->profiles[i].credential == PROFILE_PSK)
                        check_psk(loader, i);
                check_certificates(loader, i);
        }
}

/* A higher class with a longer limit is a slip of the pen. */
static void check_classes(struct loader *loader) {
        for (size_t s = 0; s < 3; s++)
                for (size_t c = 0; c < 3; c++) {
                        const int64_t(*limit)[3] = loader->config->class_limit_sec;

                        if ((c > 0 && limit[s][c] > limit[s][c - 1]) || (s > 0 && limit[s][c] > limit[s - 1][c]))
                                loader_warning(loader,
                                               is_set(loader->classes[s]) ? loader->classes[s]
                                                                          : top_place(loader, "classes"),
                                               "classes: sensitivity %s, criticality %s allows a longer interval than "
                                               "the class below it",
                                               level_name((enum level)s), level_name((enum level)c));
                }
}

/* "192.0.2.1:5684" or "[2001:db8::1]:5684". */
static bool is_address_and_port(const char *text) {
        const char *colon = strrchr(text, ':');
        struct in6_addr address;
        char host[64], *end;
        unsigned long port;
        size_t length;

        if (!colon || colon[1] < '0' || colon[1] > '9')
                return false;
        port = strtoul(colon + 1, &end, 10);
        if (*end != '\0' || port < 1 || port > 65535)
                return false;
        length = (size_t)(colon - text);
        if (length >= sizeof host || length == 0)
                return false;
        memcpy(host, text, length);
        host[length] = '\0';
        if (host[0] != '[')
                return inet_pton(AF_INET, host, &address) == 1;
        if (host[length - 1] != ']')
                return false;
        host[length - 1] = '\0';
        return inet_pton(AF_INET6, host + 1, &address) == 1;
}

static bool is_id(const char *text) {
        return *text != '\0' &&
               text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-")] == '\0';
}

static void check_top(struct loader *loader) {
        const struct config *config = loader->config;

        if (!is_id(config->gateway_id))
                loader_problem(loader, top_place(loader, "gateway_id"),
                               "gateway_id must be 1 to 64 of A-Z a-z 0-9 . _ : -%s",
                               is_set(top_place(loader, "gateway_id"))
                                       ? ""
                                       : "; it has no default here because the machine has no id (machine-id(5))");
        for (size_t i = 0; i < config->listen_count; i++)
                if (!is_address_and_port(config->listen[i]))
                        loader_problem(loader, top_place(loader, "listen"),
                                       "listen is \"%s\"; allowed is an address with a port, such as "
                                       "\"[::]:5684\" or \"192.0.2.1:5684\"",
                                       config->listen[i]);
        if (config->listen_count > 1)
                loader_problem(loader, top_place(loader, "listen"),
                               "listen names %zu addresses; one is taken (\"[::]:5684\" hears IPv4 too)",
                               config->listen_count);
        if (config->store_path[0] != '/')
                loader_problem(loader, top_place(loader, "store"), "store must be an absolute path");
        if (config->control_path[0] != '/' || strlen(config->control_path) >= SOCKET_PATH_MAX)
                loader_problem(loader, top_place(loader, "control"),
                               "control must be an absolute path of at most %d bytes", SOCKET_PATH_MAX - 1);
}

void check_file(struct loader *loader, struct place place, const char *key, const char *path, bool is_secret) {
        struct stat st;

        if (path[0] == '\0')
                return;
        if (path[0] != '/')
                loader_problem(loader, place, "%s must be an absolute path", key);
        else if (stat(path, &st) < 0)
                loader_warning(loader, place, "%s: %s: %s", key, path, strerror(errno));
        else if (access(path, R_OK) < 0)
                loader_warning(loader, place, "%s: %s cannot be read: %s", key, path, strerror(errno));
        else if (is_secret && (st.st_mode & 077) != 0)
                loader_warning(loader, place, "%s: %s may be used by others than its owner (mode %03o); use 0600", key,
                               path, (unsigned)st.st_mode & 0777U);
}

bool is_https_url(const char *url) {
        static const char scheme[] = "https://";

        return strncmp(url, scheme, sizeof scheme - 1) == 0 && url[sizeof scheme - 1] != '\0' &&
               strchr("/:?#", url[sizeof scheme - 1]) == NULL && strpbrk(url, " \"<>\\^`{|}") == NULL;
}

static void check_north(struct loader *loader) {
        const struct north_config *north = &loader->config->north;
        bool has_certificate = north->client_certificate[0] != '\0', has_key = north->client_key[0] != '\0';

        if (north->url[0] != '\0' && !is_https_url(north->url))
                loader_problem(loader, north_place(loader, "url"), "url must begin with https:// and name a host");
        if (north->retry_min_sec > north->retry_max_sec && north_is_sound(loader, "retry_min") &&
            north_is_sound(loader, "retry_max"))
                loader_problem(loader,
                               north_place(loader, is_set(loader->north[key_index(&north_keys, "retry_min")])
                                                           ? "retry_min"
                                                           : "retry_max"),
                               "retry_min is longer than retry_max");
        if (has_certificate != has_key && north_is_sound(loader, "client_certificate") &&
            north_is_sound(loader, "client_key"))
                loader_problem(loader, north_place(loader, has_key ? "client_key" : "client_certificate"),
                               "client_certificate and client_key go together; %s is missing",
                               has_key ? "client_certificate" : "client_key");
        check_file(loader, north_place(loader, "ca_file"), "ca_file", north->ca_file, false);
        check_file(loader, north_place(loader, "client_certificate"), "client_certificate", north->client_certificate,
                   false);
        check_file(loader, north_place(loader, "client_key"), "client_key", north->client_key, true);
        check_est(loader);
        if (north->verifier == VERIFIER_NONE) {
                if (north->url[0] != '\0')
                        loader_warning(loader, north_place(loader, "url"),
                                       "url is not used while verifier is \"none\"");
                return;
        }
        if (north->url[0] == '\0' && north_is_sound(loader, "url"))
                loader_problem(loader, north_place(loader, "verifier"),
                               "verifier \"collector\" needs a url, such as \"https://collector.example/evidence\"");
        if (!has_certificate && !has_key)
                loader_warning(loader, north_place(loader, "verifier"),
                               "no client_certificate: the collector cannot tell this gateway from another");
}

void loader_check(struct loader *loader) {
        check_top(loader);
        check_north(loader);
        check_ca(loader);
        check_classes(loader);
        check_profiles(loader);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The keys of the configuration: one table for each group, from which reading, messages and
 * did-you-mean all work. A new key is a line here, a member of its struct, and its explanation in
 * gatewayd.conf. */

#include "config/loader.h"

#include <inttypes.h>

#define DAY  INT64_C(86400)
#define YEAR INT64_C(31557600)
/* No schedule needs more; and sums of a few spans stay far from overflow. */
#define LONGEST (100 * YEAR)

static const char *const attestation_names[] = { "none", "eat", "psa", NULL };
static const char *const on_overdue_names[] = { "keep", "restrict", "quarantine", NULL };
static const char *const on_factory_key_names[] = { "attest", "window", "refuse", NULL };
static const char *const on_conflict_names[] = { "attest", "allow", "quarantine", NULL };
static const char *const forward_secrecy_names[] = { "prefer", "require", NULL };
static const char *const level_names[] = { "low", "medium", "high", NULL };
static const char *const stack_names[] = { "any", "mbedtls", "tinydtls", "wolfssl", NULL };
static const char *const psk_format_names[] = { "text", "raw", NULL };
static const char *const sandbox_names[] = { "required", "weak", NULL };
static const char *const verifier_names[] = { "none", "collector", NULL };
static const char *const credential_names[] = { "psk", "certificate", NULL };
static const char *const idevid_identity_names[] = { "serialNumber", "san", NULL };
static const char *const enrolment_names[] = { "listed", "automatic", NULL };
static const char *const rekey_names[] = { "optional", "required", NULL };
static const char *const tls_unique_names[] = { "verify", "off", "required", NULL };
static const char *const profile_ca_names[] = { "local", "upstream", NULL };
static const char *const upstream_offline_names[] = { "wait", "local", NULL };
static const char *const ca_key_type_names[] = { "P-256", "P-384", "Ed25519", NULL };
const char *const device_key_type_names[] = { "P-256", "P-384", "Ed25519", "RSA", NULL };

#define AT(type, member) offsetof(struct type, member), sizeof(((struct type *)NULL)->member)
#define TEXT_KEY(type, name, member)                                                                                   \
        { name, KEY_TEXT, AT(type, member), 0, 0, NULL }
#define SPAN_KEY(type, name, member, least, most)                                                                      \
        { name, KEY_SPAN, AT(type, member), least, most, NULL }
#define SIZE_KEY(type, name, member, least, most)                                                                      \
        { name, KEY_SIZE, AT(type, member), least, most, NULL }
#define COUNT_KEY(type, name, member, least, most)                                                                     \
        { name, KEY_COUNT, AT(type, member), least, most, NULL }
/* The bounds in hundredths. */
#define SHARE_KEY(type, name, member, least, most)                                                                     \
        { name, KEY_SHARE, AT(type, member), least, most, NULL }
#define FLAG_KEY(type, name, member)                                                                                   \
        { name, KEY_FLAG, AT(type, member), 0, 0, NULL }
#define CHOICE_KEY(type, name, member, names)                                                                          \
        { name, KEY_CHOICE, AT(type, member), 0, 0, names }
#define GROUP_KEY(name)                                                                                                \
        { name, KEY_GROUP, 0, 0, 0, 0, NULL }

static const struct key top_list[] = {
        TEXT_KEY(config, "gateway_id", gateway_id),
        GROUP_KEY("listen"),
        TEXT_KEY(config, "store", store_path),
        TEXT_KEY(config, "control", control_path),
        CHOICE_KEY(config, "sandbox", sandbox, sandbox_names),
        COUNT_KEY(config, "max_sessions", max_sessions, 1, 1000000),
        SIZE_KEY(config, "max_body", max_body_bytes, 1024, 64 * 1024),
        COUNT_KEY(config, "backlog_records", backlog_records, 1, INT64_C(1000000000)),
        SIZE_KEY(config, "backlog_size", backlog_bytes, 64 * 1024, INT64_C(1) << 50),
        SPAN_KEY(config, "audit_keep", audit_keep_sec, 0, LONGEST),
        COUNT_KEY(config, "offers_per_second", offers_per_second, 1, 10000),
        SPAN_KEY(config, "horizon_warn", horizon_warn_sec, 0, LONGEST),
        GROUP_KEY("north"),
        GROUP_KEY("ca"),
        GROUP_KEY("keys"),
        GROUP_KEY("classes"),
        GROUP_KEY("profiles"),
};

static const struct key profile_list[] = {
        GROUP_KEY("name"),
        CHOICE_KEY(profile, "credential", credential, credential_names),
        SPAN_KEY(profile, "rotate_every", rotate_every_sec, 1, LONGEST),
        SHARE_KEY(profile, "jitter", jitter, 0, 50),
        GROUP_KEY("rotate_at"),
        GROUP_KEY("maintenance"),
        SPAN_KEY(profile, "maintenance_for", maintenance_sec, 60, 7 * DAY),
        SPAN_KEY(profile, "grace", grace_sec, 0, LONGEST),
        SPAN_KEY(profile, "max_age", max_age_sec, 1, LONGEST),
        SPAN_KEY(profile, "attest_every", attest_every_sec, 1, LONGEST),
        CHOICE_KEY(profile, "attestation", attestation, attestation_names),
        CHOICE_KEY(profile, "on_overdue", on_overdue, on_overdue_names),
        CHOICE_KEY(profile, "on_factory_key", on_factory_key, on_factory_key_names),
        CHOICE_KEY(profile, "on_conflict", on_conflict, on_conflict_names),
        COUNT_KEY(profile, "psk_bytes", psk_bytes, 16, 64),
        CHOICE_KEY(profile, "psk_format", psk_format, psk_format_names),
        FLAG_KEY(profile, "text_grant", text_grant),
        CHOICE_KEY(profile, "forward_secrecy", forward_secrecy, forward_secrecy_names),
        CHOICE_KEY(profile, "sensitivity", sensitivity, level_names),
        CHOICE_KEY(profile, "criticality", criticality, level_names),
        CHOICE_KEY(profile, "stack", stack, stack_names),
        SPAN_KEY(profile, "max_session", max_session_sec, 1, LONGEST),
        COUNT_KEY(profile, "block_size", block_size, 16, 1024),
        SPAN_KEY(profile, "challenge_lifetime", challenge_sec, 1, DAY),
        GROUP_KEY("references"),
        GROUP_KEY("idevid_anchors"),
        CHOICE_KEY(profile, "idevid_identity", idevid_identity, idevid_identity_names),
        CHOICE_KEY(profile, "enrolment", idevid_enrolment, enrolment_names),
        SPAN_KEY(profile, "validity", validity_sec, 1, LONGEST),
        SHARE_KEY(profile, "renew_at", renew_at, 10, 90),
        CHOICE_KEY(profile, "rekey", rekey, rekey_names),
        GROUP_KEY("key_types"),
        COUNT_KEY(profile, "rsa_bits", rsa_bits, 2048, 4096),
        FLAG_KEY(profile, "server_keygen", server_keygen),
        FLAG_KEY(profile, "est_over_psk", est_over_psk),
        CHOICE_KEY(profile, "tls_unique", tls_unique, tls_unique_names),
        CHOICE_KEY(profile, "ca", ca, profile_ca_names),
        CHOICE_KEY(profile, "upstream_offline", upstream_offline, upstream_offline_names),
};

static const struct key north_list[] = {
        CHOICE_KEY(config, "verifier", north.verifier, verifier_names),
        TEXT_KEY(config, "url", north.url),
        TEXT_KEY(config, "ca_file", north.ca_file),
        TEXT_KEY(config, "client_certificate", north.client_certificate),
        TEXT_KEY(config, "client_key", north.client_key),
        SPAN_KEY(config, "retry_min", north.retry_min_sec, 1, DAY),
        SPAN_KEY(config, "retry_max", north.retry_max_sec, 1, DAY),
        COUNT_KEY(config, "batch", north.batch_records, 1, 4096),
        SPAN_KEY(config, "timeout", north.timeout_sec, 1, 3600),
        TEXT_KEY(config, "est_url", north.est_url),
        FLAG_KEY(config, "est_renews_ca", north.est_renews_ca),
        FLAG_KEY(config, "est_renews_client", north.est_renews_client),
};

static const struct key ca_list[] = {
        TEXT_KEY(config, "subject", ca.subject),
        CHOICE_KEY(config, "key_type", ca.key_type, ca_key_type_names),
        GROUP_KEY("providers"),
        TEXT_KEY(config, "pkcs11_module", ca.pkcs11_module),
        GROUP_KEY("paths"),
        SPAN_KEY(config, "validity", ca.validity_sec, 60, LONGEST),
        SHARE_KEY(config, "successor_at", ca.successor_at, 10, 90),
        SPAN_KEY(config, "announce", ca.announce_sec, 0, LONGEST),
        SPAN_KEY(config, "backdate", ca.backdate_sec, 0, 30 * DAY),
        TEXT_KEY(config, "server_name", ca.server_name),
        SPAN_KEY(config, "server_validity", ca.server_validity_sec, 60, LONGEST),
        SPAN_KEY(config, "crl_validity", ca.crl_validity_sec, 60, LONGEST),
};

static const struct key keys_list[] = {
        SPAN_KEY(config, "receipt_every", keys.receipt_every_sec, 3600, LONGEST),
        SPAN_KEY(config, "data_every", keys.data_every_sec, 3600, LONGEST),
        SPAN_KEY(config, "sealing_every", keys.sealing_every_sec, 0, LONGEST),
        SPAN_KEY(config, "recovery_every", keys.recovery_every_sec, 0, LONGEST),
        TEXT_KEY(config, "backup_recipient", keys.backup_recipient),
};

static const struct key reference_list[] = {
        TEXT_KEY(reference_value, "swname", swname),
        TEXT_KEY(reference_value, "swversion", swversion),
        GROUP_KEY("digest"),
};

const struct key_table top_keys = { "the configuration", top_list, ELEMENTS(top_list) };
const struct key_table profile_keys = { "a profile", profile_list, ELEMENTS(profile_list) };
const struct key_table north_keys = { "north", north_list, ELEMENTS(north_list) };
const struct key_table ca_keys = { "ca", ca_list, ELEMENTS(ca_list) };
const struct key_table keys_keys = { "keys", keys_list, ELEMENTS(keys_list) };
const struct key_table reference_keys = { "a reference value", reference_list, ELEMENTS(reference_list) };

_Static_assert(ELEMENTS(profile_list) <= KEYS_MAX && ELEMENTS(top_list) <= KEYS_MAX, "KEYS_MAX");

int key_index(const struct key_table *table, const char *name) {
        for (size_t i = 0; i < table->count; i++)
                if (strcmp(table->keys[i].name, name) == 0)
                        return (int)i;
        return -1;
}

/* Block sizes are the powers of two that a Block option can say (RFC 7959 §2.2). */
static bool is_block_size_key(const struct key *key) {
        return strcmp(key->name, "block_size") == 0;
}

bool key_allows(const struct key *key, int64_t value) {
        if (value < key->least || value > key->most)
                return false;
        return !is_block_size_key(key) || (value & (value - 1)) == 0;
}

void key_allowed_text(const struct key *key, char *to, size_t to_size) {
        char least[64], most[64];
        size_t used = 0;

        to[0] = '\0';
        switch (key->kind) {
        case KEY_SPAN:
                timespan_format(key->least, least);
                timespan_format(key->most, most);
                snprintf(to, to_size, "a time span such as \"30d\" or \"12h 30min\", %s to %s", least, most);
                break;
        case KEY_SIZE:
                snprintf(to, to_size, "bytes as a number or a text such as \"16K\", %" PRId64 " to %" PRId64,
                         key->least, key->most);
                break;
        case KEY_COUNT:
                if (is_block_size_key(key))
                        snprintf(to, to_size, "16, 32, 64, 128, 256, 512 or 1024");
                else
                        snprintf(to, to_size, "a whole number, %" PRId64 " to %" PRId64, key->least, key->most);
                break;
        case KEY_CHOICE:
                for (size_t i = 0; key->choices[i] && used < to_size; i++)
                        used += (size_t)snprintf(to + used, to_size - used, "%s\"%s\"",
                                                 i == 0 ? "" : (key->choices[i + 1] ? ", " : " or "), key->choices[i]);
                break;
        case KEY_SHARE:
                snprintf(to, to_size, "a number, %.1f to %.1f", (double)key->least / 100, (double)key->most / 100);
                break;
        case KEY_FLAG:
                snprintf(to, to_size, "true or false");
                break;
        case KEY_TEXT:
                snprintf(to, to_size, "a text of up to %zu printable characters in double quotes", key->size - 1);
                break;
        case KEY_GROUP:
                break;
        }
}

static const char *name_of(const char *const *names, size_t count, unsigned v) {
        return v < count ? names[v] : "unknown";
}

#define NAME_OF(names, v) name_of(names, ELEMENTS(names) - 1, (unsigned)(v))

const char *attestation_kind_name(enum attestation_kind v) {
        return NAME_OF(attestation_names, v);
}

const char *on_overdue_name(enum on_overdue v) {
        return NAME_OF(on_overdue_names, v);
}

const char *on_factory_key_name(enum on_factory_key v) {
        return NAME_OF(on_factory_key_names, v);
}

const char *on_conflict_name(enum on_conflict v) {
        return NAME_OF(on_conflict_names, v);
}

const char *profile_credential_name(enum profile_credential v) {
        return NAME_OF(credential_names, v);
}

const char *profile_ca_name(enum profile_ca v) {
        return NAME_OF(profile_ca_names, v);
}

const char *level_name(enum level v) {
        return NAME_OF(level_names, v);
}

const char *device_stack_name(enum device_stack v) {
        return NAME_OF(stack_names, v);
}

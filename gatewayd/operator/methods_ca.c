/* SPDX-License-Identifier: Apache-2.0 */

/* Methods about the issuing CA: making it, putting it under the owner's PKI, its successor, its CRLs. What they
 * do: keys/authority.h. No answer holds a private key. */

#include <errno.h>

#include <openssl/sha.h>

#include "gatewayd/keys/authority_parts.h"
#include "gatewayd/operator/methods.h"

/* A chain of eight certificates with room to spare. */
#define IMPORT_MAX (256 * 1024)

static int append_bytes(struct method_call *call, const struct buffer *bytes) {
        return sd_bus_message_append_array(call->answer.message, 'y', bytes->size > 0 ? bytes->data : (const void *)"",
                                           bytes->size);
}

static int answer_changed(struct method_call *call) {
        return sd_bus_message_append(call->answer.message, "b", (int)store_is_changed(call->turn->store));
}

/* An empty URI means none. */
static int read_key(struct method_call *call, const char **ret) {
        int r = sd_bus_message_read(call->request, "s", ret);

        if (r >= 0 && !(*ret)[0])
                *ret = NULL;
        return r;
}

int method_ca_init(struct method_call *call) {
        const char *key_uri;
        int r = read_key(call, &key_uri);

        if (r >= 0)
                r = authority_init(call->turn, key_uri, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_ca_csr(struct method_call *call) {
        _cleanup_(buffer_free) struct buffer csr = { 0 };
        const char *key_uri;
        int is_new, r = read_key(call, &key_uri);

        if (r >= 0)
                r = sd_bus_message_read(call->request, "b", &is_new);
        if (r >= 0 && is_new)
                r = authority_abandon(call->turn, call->problem);
        if (r == -ENOENT) {
                *call->problem = (struct problem){ 0 }; /* there was none to give up */
                r = 0;
        }
        if (r >= 0)
                r = authority_request(call->turn, key_uri, &csr, call->problem);
        return r < 0 ? r : append_bytes(call, &csr);
}

int method_ca_import(struct method_call *call) {
        char warning[AUTHORITY_WARNING_MAX];
        const void *data;
        size_t size;
        int r = sd_bus_message_read_array(call->request, 'y', &data, &size);

        if (r >= 0 && size > IMPORT_MAX)
                r = problem_set(call->problem, CODE_TOO_LARGE, EINVAL, "too large", "at most %d KiB of certificates",
                                IMPORT_MAX / 1024);
        if (r >= 0)
                r = authority_import(call->turn, BYTES(data, size), warning, call->problem);
        if (r >= 0)
                r = answer_changed(call);
        return r < 0 ? r : sd_bus_message_append(call->answer.message, "s", warning);
}

int method_ca_roll(struct method_call *call) {
        const char *key_uri;
        int64_t within;
        int r = sd_bus_message_read(call->request, "x", &within);

        if (r >= 0)
                r = read_key(call, &key_uri);
        if (r >= 0)
                r = authority_roll(call->turn, key_uri, within, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_ca_crl(struct method_call *call) {
        _cleanup_(buffer_free) struct buffer crl = { 0 };
        uint32_t generation;
        int r = sd_bus_message_read(call->request, "u", &generation);

        if (r >= 0)
                r = authority_crl(call->turn, generation, &crl);
        if (r == -ENOENT && generation == 0)
                return problem_set(call->problem, CODE_NOT_FOUND, ENOENT, "CRL", "there is no CA, or no CRL of it yet");
        if (r == -ENOENT)
                return problem_set(call->problem, CODE_NOT_FOUND, ENOENT, "CRL",
                                   "generation %u is not in force, or has no CRL yet", generation);
        return r < 0 ? r : append_bytes(call, &crl);
}

int method_ca_anchors(struct method_call *call) {
        _cleanup_(buffer_free) struct buffer anchors = { 0 };
        uint32_t newest;
        int r = authority_anchors(call->turn, &anchors, &newest);

        return r < 0 ? r : append_bytes(call, &anchors);
}

/* ---- showing ---- */

static const char *state_name(enum authority_state state) {
        static const char *const names[] = { "requested", "announced", "active", "retiring", "ended" };

        return (size_t)state < ELEMENTS(names) ? names[state] : "unknown";
}

static bool has_key(struct turn *turn, const struct authority *authority, char *reason, size_t reason_size) {
        struct problem problem = { 0 };
        struct x509_signer signer;
        int r;

        if (authority->state == AUTHORITY_REQUESTED) {
                _cleanup_(pkey_freep) EVP_PKEY *key = NULL;

                r = authority_key_open(turn, authority, &key, &problem);
        } else
                r = authority_signer(turn, authority, &signer, &problem);
        snprintf(reason, reason_size, "%s", problem.detail);
        return r >= 0;
}

static void show_certificate(struct method_call *call, const struct authority *authority) {
        _cleanup_(x509_freep) X509 *certificate = authority_certificate(call->turn, authority->generation);
        uint8_t digest[SHA256_DIGEST_LENGTH];
        char text[256];

        if (!certificate || X509_digest(certificate, EVP_sha256(), digest, NULL) != 1)
                return;
        x509_subject_text(certificate, text, sizeof text);
        answer_text(&call->answer, "subject", text);
        bytes_to_hex(BYTES(digest, sizeof digest), text);
        answer_text(&call->answer, "sha256", text);
        answer_signed(&call->answer, "not_before", authority->not_before);
        answer_signed(&call->answer, "not_after", authority->not_after);
}

static int show_generation(struct method_call *call, const struct authority *authority) {
        int64_t leaves = certificate_count(call->turn->store, authority->generation, call->turn->now.wall, NULL);
        struct answer *answer = &call->answer;
        char reason[256];

        if (leaves < 0)
                return (int)leaves;
        answer_dict_open(answer);
        answer_number(answer, "generation", authority->generation);
        answer_text(answer, "state", state_name(authority->state));
        answer_bool(answer, "is_root", authority->is_root);
        answer_text(answer, "key", authority->key_uri);
        answer_bool(answer, "is_key_available", has_key(call->turn, authority, reason, sizeof reason));
        if (reason[0])
                answer_text(answer, "key_reason", reason);
        show_certificate(call, authority);
        answer_moment(answer, "created", &authority->created);
        answer_moment(answer, "announced", &authority->announced);
        answer_moment(answer, "activated", &authority->activated);
        answer_moment(answer, "superseded", &authority->superseded);
        answer_number(answer, "leaves", (uint64_t)leaves);
        answer_number(answer, "crl_number", authority->crl_number);
        answer_signed(answer, "crl_next_update", authority->crl_next_update);
        answer_bool(answer, "is_crl_stale", authority->crl_is_stale);
        answer_dict_close(answer);
        return 0;
}

/* When the gateway's own leaf runs out; 0: there is none. */
static unix_sec server_not_after(struct turn *turn) {
        struct server_credentials credentials = { 0 };
        unix_sec not_after;

        if (authority_server_credentials(turn, &credentials) < 0)
                return 0;
        not_after = credentials.not_after;
        server_credentials_free(&credentials);
        return not_after;
}

int method_ca_show(struct method_call *call) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(call->turn->store, list, AUTHORITIES_MAX);
        unix_sec not_after = server_not_after(call->turn);
        int r = n < 0 ? (int)n : 0;

        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        for (ssize_t i = 0; i < n && r >= 0; i++)
                r = show_generation(call, &list[i]);
        answer_close(&call->answer);
        answer_dict_open(&call->answer);
        if (not_after != 0) {
                answer_text(&call->answer, "name", call->turn->config->ca.server_name);
                answer_signed(&call->answer, "not_after", not_after);
        }
        answer_dict_close(&call->answer);
        return r;
}

/* The other generations as they concern the active one. */
static void show_others(struct method_call *call, const struct authority *list, ssize_t count) {
        bool is_stale = false;

        for (ssize_t i = 0; i < count; i++) {
                if (list[i].state == AUTHORITY_ANNOUNCED || list[i].state == AUTHORITY_REQUESTED)
                        answer_text(&call->answer, "successor", state_name(list[i].state));
                is_stale |= list[i].crl_is_stale &&
                            (list[i].state == AUTHORITY_ACTIVE || list[i].state == AUTHORITY_RETIRING);
        }
        answer_bool(&call->answer, "is_crl_stale", is_stale);
}

int show_ca(struct method_call *call) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(call->turn->store, list, AUTHORITIES_MAX);
        unix_sec now = call->turn->now.wall;
        char reason[256];

        answer_section_open(&call->answer, "ca");
        for (ssize_t i = 0; i < n; i++) {
                if (list[i].state != AUTHORITY_ACTIVE)
                        continue;
                answer_number(&call->answer, "generation", list[i].generation);
                answer_bool(&call->answer, "is_root", list[i].is_root);
                answer_signed(&call->answer, "not_after", list[i].not_after);
                answer_signed(&call->answer, "ends_in", list[i].not_after - now);
                answer_bool(&call->answer, "is_late",
                            list[i].not_after - now <= authority_late_sec(&list[i], &call->turn->config->ca));
                answer_bool(&call->answer, "is_key_available", has_key(call->turn, &list[i], reason, sizeof reason));
                if (reason[0])
                        answer_text(&call->answer, "key_reason", reason);
                answer_signed(&call->answer, "server_ends_in", server_not_after(call->turn) - now);
        }
        show_others(call, list, n);
        answer_section_close(&call->answer);
        return n < 0 ? (int)n : 0;
}

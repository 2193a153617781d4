/* SPDX-License-Identifier: Apache-2.0 */

/* Methods that change something. Each is one change in one turn; what is refused changes nothing. Their
 * answer says whether there was anything to change. */

#include <errno.h>

#include <openssl/crypto.h>

#include "gatewayd/devices/devices.h"
#include "gatewayd/operator/methods.h"

#define COMPLAINTS_MAX 100
/* An import is one turn, and devices wait meanwhile: about 70 µs a device. */
#define IMPORT_MOST 20000

static int answer_changed(struct method_call *call) {
        return sd_bus_message_append(call->answer.message, "b", (int)store_is_changed(call->turn->store));
}

/* One id, and whether it can be one: the registry answers for the rest. */
static int read_id(struct method_call *call, const char **ret) {
        int r = sd_bus_message_read(call->request, "s", ret);

        if (r >= 0 && ((*ret)[0] == 0 || strlen(*ret) > DEVICE_ID_MAX))
                r = problem_set(call->problem, CODE_BAD_REQUEST, EINVAL, "bad device id",
                                "a device id is 1 to %d characters", DEVICE_ID_MAX);
        return r;
}

/* ---- registering ---- */

struct registering {
        struct method_call *call;
        uint32_t added;
        size_t complaints;
        struct config_problems warnings;
};

static void complain(struct registering *registering, const char *text) {
        struct buffer *to = registering->call->complaint;

        if (registering->complaints < COMPLAINTS_MAX)
                buffer_printf(to, "%s%s", to->size > 0 ? "\n" : "", text);
        else if (registering->complaints == COMPLAINTS_MAX)
                buffer_printf(to, "\nthere is more; mend these first");
        registering->complaints++;
}

static void keep_warning(struct registering *registering, const char *text) {
        struct config_problems *warnings = &registering->warnings;
        char **lines;

        if (!text[0] || warnings->count > COMPLAINTS_MAX)
                return;
        lines = xcalloc(warnings->count + 1, sizeof *lines);
        if (warnings->count > 0)
                memcpy(lines, warnings->lines, warnings->count * sizeof *lines);
        lines[warnings->count] = xstrdup(warnings->count == COMPLAINTS_MAX ? "there are more warnings" : text);
        warnings->count++;
        freep(&warnings->lines);
        warnings->lines = lines;
}

/* All of a file is one turn, and a large one takes seconds on a small gateway. */
#define PULSE_ROWS 100

/* Adds all of them, or names every one that cannot be added. */
static int add_all(struct registering *registering, const struct import *import) {
        const struct control_backend *backend = registering->call->backend;
        int first = 0;

        for (size_t i = 0; i < import->count; i++) {
                struct problem problem = { 0 };
                char warning[256] = "";
                int r;

                if (i % PULSE_ROWS == PULSE_ROWS - 1 && backend->pulse)
                        backend->pulse(backend->userdata);
                r = registry_add(registering->call->turn, &import->rows[i], warning, &problem);

                if (r >= 0) {
                        registering->added++;
                        keep_warning(registering, warning);
                        continue;
                }
                if (!problem.detail[0]) /* the store's, not the row's: every further row would say the same */
                        return problem_set(registering->call->problem, CODE_INTERNAL, -r, "store", "%s: %s",
                                           import->rows[i].id, strerror(-r));
                if (first == 0)
                        first = r;
                complain(registering, problem.detail);
        }
        return first;
}

static int answer_registered(struct registering *registering) {
        struct answer *answer = &registering->call->answer;
        int r = sd_bus_message_append(answer->message, "u", registering->added);

        answer_open(answer, SD_BUS_TYPE_ARRAY, "s");
        for (size_t i = 0; r >= 0 && i < registering->warnings.count; i++)
                r = sd_bus_message_append(answer->message, "s", registering->warnings.lines[i]);
        answer_close(answer);
        return r;
}

static int register_text(struct method_call *call, struct bytes text, bool is_json) {
        struct registering registering = { .call = call };
        struct config_problems problems = { 0 };
        struct import import = { 0 };
        int r;

        r = import_parse(text, is_json, &import, &problems);
        for (size_t i = 0; r < 0 && i < problems.count; i++)
                complain(&registering, problems.lines[i]);
        config_problems_free(&problems);
        if (r >= 0 && import.count > IMPORT_MOST)
                r = problem_set(call->problem, CODE_TOO_LARGE, EINVAL, "too many devices",
                                "%zu devices at once; at most %d: devices in the field wait meanwhile. Split the file",
                                import.count, IMPORT_MOST);
        if (r >= 0)
                r = add_all(&registering, &import);
        if (r >= 0)
                r = answer_registered(&registering);
        import_free(&import);
        config_problems_free(&registering.warnings);
        return r;
}

int method_import_devices(struct method_call *call) {
        size_t mark = turn_mark(call->turn);
        const char *text;
        int is_json, dry_run, r;

        r = sd_bus_message_read(call->request, "sbb", &text, &is_json, &dry_run);
        if (r < 0)
                return r;
        /* The message holds factory keys: its memory is wiped when it goes. */
        (void)sd_bus_message_sensitive(call->request);
        if (!dry_run)
                return register_text(call, bytes_of(text), is_json);
        r = store_savepoint(call->turn->store);
        if (r < 0)
                return r;
        r = register_text(call, bytes_of(text), is_json);
        turn_rewind(call->turn, mark);
        return store_savepoint_rollback(call->turn->store) < 0 ? -EIO : r;
}

/* As one element of an import file, so that both ways obey the same rules. */
static void put_member(struct buffer *to, const char *name, const char *value) {
        buffer_printf(to, "\"%s\":\"", name);
        for (; *value; value++) {
                if (*value == '"' || *value == '\\' || (uint8_t)*value < 0x20)
                        buffer_printf(to, "\\u%04x", (unsigned)*value);
                else
                        buffer_append(to, BYTES(value, 1));
        }
        buffer_printf(to, "\"");
}

int method_add_device(struct method_call *call) {
        const char *id, *profile, *psk, *attestation_key, *idevid;
        struct buffer text = { 0 };
        int r;

        r = sd_bus_message_read(call->request, "sssss", &id, &profile, &psk, &attestation_key, &idevid);
        if (r < 0)
                return r;
        (void)sd_bus_message_sensitive(call->request);
        buffer_printf(&text, "[{");
        put_member(&text, "id", id);
        buffer_printf(&text, ",");
        put_member(&text, "profile", profile);
        if (psk[0]) { /* else the device comes with an IDevID */
                buffer_printf(&text, ",");
                put_member(&text, "psk", psk);
        }
        if (idevid[0]) {
                buffer_printf(&text, ",");
                put_member(&text, "idevid", idevid);
        }
        if (attestation_key[0]) {
                buffer_printf(&text, ",");
                put_member(&text, "attestation_key", attestation_key);
        }
        buffer_printf(&text, "}]");
        r = register_text(call, buffer_bytes(&text), true);
        buffer_free(&text);
        return r;
}

/* ---- one device ---- */

int method_remove_device(struct method_call *call) {
        const char *id;
        int r = read_id(call, &id);

        if (r >= 0)
                r = registry_remove(call->turn, id, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_revoke_device(struct method_call *call) {
        const char *id, *reason;
        int r = read_id(call, &id);

        if (r >= 0)
                r = sd_bus_message_read(call->request, "s", &reason);
        if (r >= 0)
                r = registry_revoke(call->turn, id, reason, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_reset_device(struct method_call *call) {
        const char *id;
        int64_t seconds;
        int r = read_id(call, &id);

        if (r >= 0)
                r = sd_bus_message_read(call->request, "x", &seconds);
        if (r >= 0)
                r = registry_reset(call->turn, id, seconds, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_rotate_device(struct method_call *call) {
        const char *id;
        int is_compromised, r = read_id(call, &id);
        int64_t since;

        if (r >= 0)
                r = sd_bus_message_read(call->request, "bx", &is_compromised, &since);
        if (r >= 0 && (since < 0 || (since != 0 && !is_compromised)))
                r = problem_set(call->problem, CODE_BAD_REQUEST, EINVAL, "bad time",
                                "a time since when belongs to a compromise, and is not before 1970");
        if (r >= 0)
                r = registry_rotate(call->turn, id, is_compromised, since, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_release_device(struct method_call *call) {
        const char *id;
        int r = read_id(call, &id);

        if (r >= 0)
                r = registry_release(call->turn, id, call->problem);
        return r < 0 ? r : answer_changed(call);
}

/* ---- the uplink ---- */

int method_relay_now(struct method_call *call) {
        const struct north_config *north = &call->turn->config->north;
        bool has_upstream = north->verifier != VERIFIER_NONE || north->est_url[0];
        int r = has_upstream ? call->backend->relay_now(call->backend->userdata) : -ENOTCONN;

        if (r == -ENOTCONN)
                return problem_set(
                        call->problem, CODE_UNAVAILABLE, ENOTCONN, "no north", "there is no uplink to try: %s",
                        has_upstream ? "north is being restarted"
                                     : "the configuration says verifier = \"none\", and there is no est_url");
        return r < 0 ? r : sd_bus_message_append(call->answer.message, "b", 1);
}

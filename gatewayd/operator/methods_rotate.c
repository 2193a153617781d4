/* SPDX-License-Identifier: Apache-2.0 */

/* Rotate, PauseRotation, ResumeRotation: operators' orders about rotation, for one device, a profile or all. */

#include <errno.h>

#include "gatewayd/devices/orders.h"
#include "gatewayd/operator/methods.h"

static int answer_changed(struct method_call *call) {
        return sd_bus_message_append(call->answer.message, "b", (int)store_is_changed(call->turn->store));
}

static bool has_device(struct method_call *call, const char *name) {
        struct device device;

        return device_get(call->turn->store, bytes_of(name), &device) >= 0;
}

/* What `name` is: "device", "profile" or "all"; `kind` (empty: whichever it is) says what the caller takes it for. */
static const char *resolve(struct method_call *call, const char *name, const char *kind) {
        bool is_device = has_device(call, name), is_profile = config_profile(call->turn->config, name) != NULL;
        bool is_all = strcmp(name, "all") == 0;

        if (kind[0])
                return strcmp(kind, "device") == 0 ? "device" : "profile"; /* what is not there is told below */
        if (is_device + is_profile + is_all > 1) {
                (void)problem_set(call->problem, CODE_CONFLICT, EINVAL, "ambiguous",
                                  "%.64s is the name of a device and of more; say --device or --profile", name);
                return NULL;
        }
        if (is_all)
                return "all";
        if (is_profile)
                return "profile";
        if (is_device)
                return "device";
        (void)problem_set(call->problem, CODE_NOT_FOUND, ENOENT, "unknown",
                          "there is neither a device nor a profile %.64s", name);
        return NULL;
}

int method_rotate(struct method_call *call) {
        const char *name, *kind, *what;
        int64_t within;
        int r = sd_bus_message_read(call->request, "ssx", &name, &kind, &within);

        if (r < 0)
                return r;
        what = resolve(call, name, kind);
        if (!what)
                return -EINVAL;
        if (strcmp(what, "device") == 0)
                r = registry_rotate(call->turn, name, false, 0, call->problem); /* now is within any time */
        else
                r = orders_rotate(call->turn, strcmp(what, "all") == 0 ? "" : name, within, call->problem);
        if (r >= 0)
                r = answer_changed(call);
        return r < 0 ? r : sd_bus_message_append(call->answer.message, "s", what);
}

/* "all" or a profile. */
static const char *scope_of(struct method_call *call, const char *name) {
        return strcmp(name, "all") == 0 && !config_profile(call->turn->config, name) ? "" : name;
}

int method_pause_rotation(struct method_call *call) {
        const char *name;
        int64_t seconds;
        int r = sd_bus_message_read(call->request, "sx", &name, &seconds);

        if (r >= 0)
                r = orders_pause(call->turn, scope_of(call, name), seconds, call->problem);
        return r < 0 ? r : answer_changed(call);
}

int method_resume_rotation(struct method_call *call) {
        const char *name;
        int r = sd_bus_message_read(call->request, "s", &name);

        if (r >= 0)
                r = orders_resume(call->turn, scope_of(call, name), call->problem);
        return r < 0 ? r : answer_changed(call);
}

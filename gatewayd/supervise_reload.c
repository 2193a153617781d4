/* SPDX-License-Identifier: Apache-2.0 */

/* A new configuration, from SIGHUP to its being in force: the supervisor finds out whether the file is good,
 * core whether it can be taken. Until both say yes, the old one rules. */

#include <stdlib.h>
#include <unistd.h>

#include "gatewayd/supervise_parts.h"
#include "systemd/journal.h"
#include "systemd/service.h"

static bool has_other_ca(const struct ca_config *a, const struct ca_config *b) {
        if (strcmp(a->pkcs11_module, b->pkcs11_module) != 0 || a->provider_count != b->provider_count ||
            a->path_count != b->path_count)
                return true;
        for (size_t i = 0; i < a->provider_count; i++)
                if (strcmp(a->providers[i], b->providers[i]) != 0)
                        return true;
        for (size_t i = 0; i < a->path_count; i++)
                if (strcmp(a->paths[i], b->paths[i]) != 0)
                        return true;
        return false;
}

/* What a role that is started again would take and the others not, and what can only be reached before the
 * wall goes up: such a file is refused as a whole. */
static bool needs_all_anew(const struct config *a, const struct config *b) {
        return strcmp(a->store_path, b->store_path) != 0 || strcmp(a->control_path, b->control_path) != 0 ||
               a->sandbox != b->sandbox || has_other_ca(&a->ca, &b->ca);
}

/* What takes effect when its role is started the next time. */
static bool has_late_effect(const struct config *a, const struct config *b) {
        return strcmp(a->listen[0], b->listen[0]) != 0 || a->max_sessions != b->max_sessions ||
               a->max_body_bytes != b->max_body_bytes;
}

void reload_drop(struct supervisor *s) {
        s->offered = config_free(s->offered);
        if (s->offered_fd >= 0)
                close(s->offered_fd);
        s->offered_fd = -1;
        s->is_core_asked = false;
}

static void ask_core(struct supervisor *s) {
        s->is_core_asked = true;
        supervisor_send(&s->roles[ROLE_CORE], FRAME_RELOAD, BYTES(NULL, 0), &s->offered_fd, 1);
}

static void offer(struct supervisor *s) {
        if (needs_all_anew(s->config, s->offered)) {
                supervisor_tell(EVENT_CONFIG_REFUSED, 1,
                                "store, control, sandbox, or the CA's modules changed: restart the service for that");
                reload_drop(s);
                if (s->is_told_ready)
                        (void)service_ready("serving devices");
        } else if (s->roles[ROLE_CORE].is_ready)
                ask_core(s);
}

void reload_begin(struct supervisor *s) {
        struct config_problems problems = { 0 };

        if (s->is_stopping)
                return;
        s->is_reload_wanted = s->offered != NULL;
        if (s->offered)
                return; /* when core has answered about the one before */
        if (s->is_told_ready)
                (void)service_reloading();
        if (config_load_snapshot(s->config_path, &s->offered_fd, &s->offered, &problems) < 0) {
                for (size_t i = 0; i < problems.count; i++)
                        journal_line(3, "%s", problems.lines[i]);
                supervisor_tell(EVENT_CONFIG_REFUSED, 1, "%s", problems.count > 0 ? problems.lines[0] : s->config_path);
                if (s->is_told_ready)
                        (void)service_ready("serving devices");
        } else
                offer(s);
        config_problems_free(&problems);
}

void reload_core_ready(struct supervisor *s) {
        if (s->offered)
                ask_core(s);
}

static void take(struct supervisor *s) {
        if (has_late_effect(s->config, s->offered))
                journal_line(4, "listen, max_sessions or max_body changed: these take effect at the next restart");
        config_free(s->config);
        close(s->config_fd);
        s->config = s->offered;
        s->config_fd = s->offered_fd;
        s->offered = NULL;
        s->offered_fd = -1;
        /* North keeps nothing: a new one reads the new section, its client key and its anchors. */
        supervisor_send(&s->roles[ROLE_NORTH], FRAME_STOP, BYTES(NULL, 0), NULL, 0);
}

void reload_answered(struct supervisor *s, bool is_taken) {
        if (!s->offered)
                return;
        if (is_taken)
                take(s);
        reload_drop(s);
        if (s->is_told_ready)
                (void)service_ready("serving devices");
        if (s->is_reload_wanted)
                reload_begin(s);
}

void reload_core_ended(struct supervisor *s) {
        if (!s->offered || !s->is_core_asked)
                return;
        supervisor_tell(EVENT_CONFIG_REFUSED, 1, "core ended while it was asked to take it");
        reload_answered(s, false);
}

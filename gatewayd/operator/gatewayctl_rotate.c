/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl rotate, pause, resume: what operators order about rotation. */

#include <errno.h>
#include <stdlib.h>

#include "gatewayd/operator/gatewayctl_client.h"

static int end_order(struct client *client, struct value *answer, const char *subject, const char *done,
                     const char *unchanged) {
        bool is_changed = answer->count > 0 && answer->items[0].kind == VALUE_BOOL && answer->items[0].boolean;

        value_free(answer);
        if (client->is_json)
                fprintf(client->screen.to, "{\n  \"changed\": %s\n}\n", is_changed ? "true" : "false");
        else
                fprintf(client->screen.to, "%s: %s\n", subject, is_changed ? done : unchanged);
        return is_changed ? EXIT_DONE : EXIT_UNCHANGED;
}

static int compromise(struct client *client, const char *id, const char *since_text) {
        unix_sec since = 0, now;
        struct value answer;
        int r;

        if (since_text) {
                if (client_now(client, &now) < 0)
                        return EXIT_FAILED;
                r = read_time(since_text, now, &since);
                if (r != 0)
                        return r;
        }
        if (client_call(client, "RotateDevice", 1, &answer, "sbx", id, 1, since) < 0)
                return EXIT_FAILED;
        return end_order(client, &answer, id, "its keys prove nothing any more", "had no key to compromise");
}

static int rotate(struct client *client, const char *name, const char *kind, int64_t within) {
        struct value answer;
        bool is_device;

        if (client_call(client, "Rotate", 2, &answer, "ssx", name, kind, within) < 0)
                return EXIT_FAILED;
        is_device = answer.items[1].kind == VALUE_TEXT && strcmp(answer.items[1].text, "device") == 0;
        return end_order(client, &answer, name,
                         is_device ? "is due; it will rotate when it next asks"
                                   : "every key issued before this is due; devices are called at the configured pace",
                         "was due already");
}

int command_rotate(struct client *client, int count, char **arguments) {
        const char *name, *since = NULL, *within_text = NULL;
        bool is_compromised = false, is_now = false, is_device = false, is_profile = false;
        const struct command_option options[] = {
                { "--compromised", NULL, &is_compromised },
                { "--since", &since, NULL },
                { "--now", NULL, &is_now },
                { "--within", &within_text, NULL },
                { "--device", NULL, &is_device },
                { "--profile", NULL, &is_profile },
        };
        int64_t within = 0;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &name, 1, 1,
                               "a device, a profile, or all");

        if (r != 0)
                return r;
        if (since && !is_compromised)
                return usage_error("--since belongs to --compromised");
        if (is_now && within_text)
                return usage_error("--now or --within, not both");
        if (is_device && is_profile)
                return usage_error("--device or --profile, not both");
        if (is_compromised && (is_profile || within_text))
                return usage_error("--compromised is said of one device, and counts at once");
        if (is_compromised)
                return compromise(client, name, since);
        r = within_text ? read_span(within_text, &within) : 0;
        return r != 0 ? r : rotate(client, name, is_device ? "device" : is_profile ? "profile" : "", within);
}

int command_pause(struct client *client, int count, char **arguments) {
        const char *name = "all", *span_text = NULL;
        const struct command_option options[] = { { "--for", &span_text, NULL } };
        struct value answer;
        int64_t span;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &name, 0, 1, "a profile, or all");

        if (r != 0)
                return r;
        if (!span_text)
                return usage_error("for how long? --for 2d: a pause without an end would be forgotten");
        r = read_span(span_text, &span);
        if (r != 0)
                return r;
        if (client_call(client, "PauseRotation", 1, &answer, "sx", name, span) < 0)
                return EXIT_FAILED;
        return end_order(client, &answer, name, "no device is called meanwhile, and none punished for it",
                         "is paused already");
}

int command_resume(struct client *client, int count, char **arguments) {
        const char *name = "all";
        struct value answer;
        int r = take_arguments(count, arguments, NULL, 0, &name, 0, 1, "a profile, or all");

        if (r != 0)
                return r;
        if (client_call(client, "ResumeRotation", 1, &answer, "s", name) < 0)
                return EXIT_FAILED;
        return end_order(client, &answer, name, "devices are called again", "was not paused");
}

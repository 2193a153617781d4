/* SPDX-License-Identifier: Apache-2.0 */

/* The configuration as a whole, its defaults, its life. Which files it comes from is config_files.c's
 * subject, what a file says config_read.c's, whether it makes sense config_check.c's. */

#include "config/load_text.h"
#include "config/loader.h"

#include <errno.h>
#include <stdlib.h>
#include <systemd/sd-id128.h>

#define DAY  INT64_C(86400)
#define YEAR INT64_C(31557600)
/* Derives the gateway's id from the machine's, so that the latter stays unknown to others. */
#define GATEWAY_ID_APPLICATION SD_ID128_MAKE(6b, 1e, 5f, 0c, 83, 4d, 4b, 9a, 92, 6e, 0d, 5a, 71, c4, e8, 33)

static const int64_t class_limit_days[3][3] = {
        /* criticality: low, medium, high */
        { 730, 365, 180 }, /* sensitivity low */
        { 365, 180, 90 },  /* medium */
        { 180, 90, 30 },   /* high */
};

struct config *config_new(void) {
        struct config *config = xcalloc(1, sizeof *config);
        sd_id128_t id;

        /* No machine id: left empty, and loader_check() says so unless a file names one. */
        if (sd_id128_get_machine_app_specific(GATEWAY_ID_APPLICATION, &id) >= 0)
                sd_id128_to_string(id, config->gateway_id);
        strcpy(config->listen[0], "[::]:5684");
        config->listen_count = 1;
        strcpy(config->store_path, "/var/lib/gatewayd/store.db");
        strcpy(config->control_path, "/run/gatewayd/control");
        config->max_sessions = 20000;
        config->max_body_bytes = 16 * 1024;
        config->backlog_records = 1000000;
        config->backlog_bytes = INT64_C(1) << 30;
        config->audit_keep_sec = 5 * YEAR;
        config->offers_per_second = 50;
        config->horizon_warn_sec = 30 * DAY;
        config->keys.receipt_every_sec = YEAR;
        config->keys.data_every_sec = 90 * DAY;
        config->keys.sealing_every_sec = 2 * YEAR;
        config->keys.recovery_every_sec = 2 * YEAR;
        config->north.retry_min_sec = 1;
        config->north.retry_max_sec = 300;
        config->north.batch_records = 64;
        config->north.timeout_sec = 30;
        strcpy(config->ca.server_name, "gatewayd");
        config->ca.validity_sec = 10 * YEAR;
        config->ca.successor_at = 0.5;
        config->ca.announce_sec = 30 * DAY;
        config->ca.backdate_sec = 3600;
        config->ca.server_validity_sec = 30 * DAY;
        config->ca.crl_validity_sec = 30 * DAY;
        for (size_t s = 0; s < 3; s++)
                for (size_t c = 0; c < 3; c++)
                        config->class_limit_sec[s][c] = class_limit_days[s][c] * DAY;
        return config;
}

static void profile_free(struct profile *profile) {
        free(profile->references);
        for (size_t i = 0; i < profile->anchor_count; i++)
                free(profile->anchors[i].der);
        free(profile->anchors);
        calendar_free(profile->rotate_at);
        calendar_free(profile->maintenance);
}

struct config *config_free(struct config *config) {
        if (!config)
                return NULL;
        for (size_t i = 0; i < config->profile_count; i++)
                profile_free(&config->profiles[i]);
        free(config->profiles);
        free(config);
        return NULL;
}

void config_freep(struct config **config) {
        config_free(*config);
}

const struct profile *config_profile(const struct config *config, const char *name) {
        for (size_t i = 0; i < config->profile_count; i++)
                if (strcmp(config->profiles[i].name, name) == 0)
                        return &config->profiles[i];
        return NULL;
}

static void profile_sources_free(struct loader *loader) {
        for (size_t i = 0; i < loader->config->profile_count; i++) {
                for (size_t j = 0; j < loader->profiles[i].anchor_count; j++)
                        free(loader->profiles[i].anchors[j].path);
                free(loader->profiles[i].anchors);
        }
        free(loader->profiles);
}

int loader_finish(struct loader *loader, int error, struct config **ret, struct config_problems *problems) {
        if (error == 0 && !loader->is_torn) {
                loader_read_anchors(loader);
                loader_derive(loader);
                loader_check(loader);
        }
        if (error == 0 && loader->error_count > 0)
                error = -EINVAL;
        loader_report(loader, problems);
        profile_sources_free(loader);
        if (error < 0)
                config_free(loader->config);
        else
                *ret = loader->config;
        return error;
}

int config_load_text(const char *name, struct bytes text, struct config **ret, struct config_problems *problems) {
        _cleanup_(attachments_free) struct attachments attachments = { .count = 0 };
        struct loader loader = { .config = config_new(), .attachments = &attachments };

        loader_read(&loader, name, text);
        return loader_finish(&loader, 0, ret, problems);
}

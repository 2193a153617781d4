/* SPDX-License-Identifier: Apache-2.0 */

/* Backup, BackupKept, ListMissing: making backups, and what a restored gateway still waits for. */

#include <errno.h>
#include <fcntl.h>

#include "gatewayd/backup/due.h"
#include "gatewayd/backup/way_back.h"
#include "gatewayd/devices/steps.h"
#include "gatewayd/operator/methods.h"

#define PAGE_MAX 1000

static void on_backup(void *arg, int error, const char *reason, const struct backup_made *made) {
        struct call *later = arg;
        char text[192];
        int r = error;

        if (r == 0) {
                r = sd_bus_message_append(method_later_reply(later), "xstt", made->made.wall, made->recipient,
                                          made->bytes, made->plain_bytes);
                reason = strerror(-r);
        }
        snprintf(text, sizeof text, "no backup was made: %s", r < 0 ? reason : "");
        method_answer_later(later, r < 0 ? r : 0, text);
}

int method_backup(struct method_call *call) {
        const char *recipient;
        int fd, own, r;

        r = sd_bus_message_read(call->request, "hs", &fd, &recipient);
        if (r < 0)
                return r;
        if (!call->backend->backup)
                return problem_set(call->problem, CODE_INTERNAL, EOPNOTSUPP, "backup", "backups cannot be made here");
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message's goes with the message */
        if (own < 0)
                return -errno;
        r = call->backend->backup(call->backend->userdata, own, recipient, on_backup, call->later, call->problem);
        call->is_later = r >= 0;
        return r;
}

int method_backup_kept(struct method_call *call) {
        int64_t made;
        int r = sd_bus_message_read(call->request, "x", &made);

        if (r < 0)
                return r;
        if (!call->backend->backup_kept)
                return problem_set(call->problem, CODE_INTERNAL, EOPNOTSUPP, "backup", "backups cannot be made here");
        r = call->backend->backup_kept(call->backend->userdata, made, call->problem);
        return r < 0 ? r : sd_bus_message_append(call->answer.message, "b", true);
}

/* ---- missing ---- */

struct missing {
        struct method_call *call;
        const struct store_meta *meta;
        size_t seen; /* devices looked at */
        char last[DEVICE_ID_MAX + 1];
        uint64_t count;
};

/* Powered-on time goes on from the backup's: whoever was seen later was seen here. */
static bool is_missing(const struct device *device, const struct store_meta *meta) {
        return device->standing != STANDING_REVOKED && device->registered.powered_sec <= meta->backup_of.powered_sec &&
               (!moment_is_set(&device->last_seen) || device->last_seen.powered_sec < meta->restored.powered_sec);
}

static bool tip_is_ours(struct turn *turn, struct keyring *keyring) {
        const struct credential *tip = keyring_tip(keyring);
        struct certificate certificate;

        return tip && tip->kind == CREDENTIAL_LDEVID &&
               certificate_get(turn->store, tip->identity, &certificate) >= 0 &&
               certificate.issuer != GENERATION_UPSTREAM && certificate.issuer != GENERATION_FOREIGN;
}

static int show_missing(struct missing *missing, const struct device *device) {
        struct turn *turn = missing->call->turn;
        struct answer *answer = &missing->call->answer;
        const struct credential *bootstrap;
        struct way_back_view view = {
                .device = device,
                .profile = config_profile(turn->config, device->profile),
                .backup_of = missing->meta->backup_of,
                .restored = missing->meta->restored,
        };
        struct keyring keyring;
        struct way_back way;
        bool is_certificate;
        int r = keyring_load(turn, device->id, &keyring);

        if (r < 0)
                return r;
        view.credentials = keyring.list;
        view.count = keyring.count;
        view.is_tip_ours = tip_is_ours(turn, &keyring);
        way = way_back(&view);
        bootstrap = keyring_bootstrap(&keyring);
        is_certificate = bootstrap && bootstrap->kind == CREDENTIAL_IDEVID;
        answer_dict_open(answer);
        answer_text(answer, "id", device->id);
        answer_text(answer, "profile", device->profile);
        answer_moment(answer, "last_seen", &device->last_seen);
        answer_text(answer, "way", way_name(way.first));
        answer_text(answer, "comes_back_by", way_text(way.first, is_certificate));
        answer_text(answer, "otherwise", way.otherwise != way.first ? way_text(way.otherwise, is_certificate) : "");
        answer_number(answer, "rotations", way.rotations);
        answer_dict_close(answer);
        return 0;
}

static int look_at(void *userdata, const struct device *device) {
        struct missing *missing = userdata;

        missing->seen++;
        memcpy(missing->last, device->id, sizeof missing->last);
        if (!is_missing(device, missing->meta))
                return 0;
        missing->count++;
        return missing->call ? show_missing(missing, device) : 0;
}

int method_list_missing(struct method_call *call) {
        struct missing missing = { .call = call };
        struct answer *answer = &call->answer;
        struct store_meta meta;
        const char *after;
        uint32_t limit;
        int r;

        r = sd_bus_message_read(call->request, "su", &after, &limit);
        if (r >= 0)
                r = store_meta_get(call->turn->store, &meta);
        if (r < 0)
                return r;
        missing.meta = &meta;
        if (limit == 0 || limit > PAGE_MAX)
                limit = PAGE_MAX;
        answer_open(answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        if (moment_is_set(&meta.restored))
                r = device_each(call->turn->store, after, limit, look_at, &missing);
        answer_close(answer);
        if (r < 0)
                return r;
        /* A page that was not full was the last. */
        return sd_bus_message_append(call->answer.message, "sx", missing.seen == limit ? missing.last : "",
                                     meta.restored.wall);
}

/* ---- Status ---- */

/* How many are missing; more than so many looked at is counted by ListMissing alone. */
#define COUNT_MAX 20000

int show_backup(struct method_call *call, const struct store_meta *meta) {
        struct backup_age age = backup_age(meta, call->turn->config, &call->turn->now);
        struct missing missing = { .meta = meta };
        struct answer *answer = &call->answer;
        int r = 0;

        if (moment_is_set(&meta->restored))
                r = device_each(call->turn->store, NULL, COUNT_MAX, look_at, &missing);
        answer_section_open(answer, "backup");
        answer_moment(answer, "last", &meta->backed_up);
        answer_bool(answer, "is_old", age.is_old);
        answer_number(answer, "limit", (uint64_t)age.limit_sec);
        answer_text(answer, "text", age.text);
        if (moment_is_set(&meta->restored)) {
                answer_moment(answer, "restored", &meta->restored);
                answer_moment(answer, "backup_of", &meta->backup_of);
                answer_number(answer, "missing", missing.count);
        }
        answer_section_close(answer);
        return r < 0 ? r : 0;
}

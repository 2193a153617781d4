/* SPDX-License-Identifier: Apache-2.0 */

/* CountDeviceKeys and ListDeviceKeys: the keys of the fleet, a page of devices at a time. */

#include <errno.h>

#include "config/calendar.h"
#include "gatewayd/devices/devices.h"
#include "gatewayd/devices/lifecycle.h"
#include "gatewayd/operator/methods.h"
#include "store/orders.h"

/* Devices looked at in one turn. */
#define PAGE_MAX 500
#define STATES   (KEY_DESTROYED + 1)

/* What a page has of one profile. */
struct sums {
        uint64_t devices, keys[STATES], bootstrap, due, late;
        int64_t oldest; /* of the keys in use, in seconds */
        unix_sec oldest_issued;
};

struct walk {
        struct method_call *call;
        const char *profile; /* ListDeviceKeys: of these alone; NULL: all */
        struct sums *sums;   /* CountDeviceKeys: by profile of the configuration */
        uint32_t limit, seen;
        char last[DEVICE_ID_MAX + 1];
};

static const struct credential *newest_in_use(const struct credential *list, ssize_t count) {
        for (ssize_t i = 0; i < count; i++)
                if (credential_is_operational(list[i].kind) && list[i].state == KEY_ACTIVE)
                        return &list[i];
        return NULL;
}

static int look(struct walk *walk, const struct device *device, struct credential list[CREDENTIALS_MAX],
                ssize_t *ret_count, struct outlook *ret) {
        walk->seen++;
        memcpy(walk->last, device->id, sizeof walk->last);
        *ret_count = credential_list(walk->call->turn->store, device->id, list, CREDENTIALS_MAX);
        return *ret_count < 0 ? (int)*ret_count : schedule_outlook(walk->call->turn, device, ret);
}

/* ---- counting ---- */

static int count_one(void *userdata, const struct device *device) {
        const struct profile *profile;
        struct credential list[CREDENTIALS_MAX];
        const struct credential *newest;
        struct walk *walk = userdata;
        struct turn *turn = walk->call->turn;
        struct outlook outlook;
        struct sums *sums;
        ssize_t count;
        int r = look(walk, device, list, &count, &outlook);

        profile = config_profile(turn->config, device->profile);
        if (r < 0 || !profile)
                return r;
        sums = &walk->sums[profile - turn->config->profiles];
        sums->devices++;
        for (ssize_t i = 0; i < count; i++)
                if (credential_is_operational(list[i].kind))
                        sums->keys[list[i].state]++;
                else
                        sums->bootstrap++;
        if (device->standing == STANDING_REVOKED)
                return 0;
        sums->due += outlook.rotate_in_sec <= 0;
        sums->late += outlook.late_in_sec < 0;
        newest = newest_in_use(list, count);
        if (newest && moment_age(&turn->now, &newest->issued) >= sums->oldest) {
                sums->oldest = moment_age(&turn->now, &newest->issued);
                sums->oldest_issued = newest->issued.wall;
        }
        return 0;
}

/* By whichever clock says sooner that it is over; -1: it is not paused. */
static int64_t paused_for(struct turn *turn, const char *profile) {
        const char *const scopes[] = { profile, "" };
        const struct moment *now = &turn->now;
        struct rotation_order order;
        int64_t left = -1;

        for (size_t i = 0; i < ELEMENTS(scopes); i++)
                if (order_get(turn->store, scopes[i], &order) >= 0 && moment_is_set(&order.paused)) {
                        int64_t powered = order.pause_sec - (now->powered_sec - order.paused.powered_sec);
                        int64_t wall = order.pause_sec - (now->wall - order.paused.wall);
                        int64_t rest = wall < powered ? wall : powered;

                        left = rest > left ? rest : left;
                }
        return left;
}

static void put_policy(struct answer *answer, const struct profile *profile) {
        char text[256];

        answer_text(answer, "policy",
                    profile->credential == PROFILE_CERTIFICATE ? "validity, renew_at" : "rotate_every");
        answer_signed(answer, "every", profile->rotate_every_sec);
        if (profile->rotate_at) {
                calendar_format(profile->rotate_at, text);
                answer_text(answer, "rotate_at", text);
        }
        if (profile->maintenance) {
                calendar_format(profile->maintenance, text);
                answer_text(answer, "maintenance", text);
        }
}

static void put_sums(struct walk *walk, const struct profile *profile, const struct sums *sums) {
        static const char *const keys[STATES] = { "pre_active",  "active",      "retiring",
                                                  "deactivated", "compromised", "destroyed" };
        struct answer *answer = &walk->call->answer;
        int64_t paused = paused_for(walk->call->turn, profile->name);

        answer_dict_open(answer);
        answer_text(answer, "profile", profile->name);
        answer_text(answer, "kind", profile->credential == PROFILE_CERTIFICATE ? "certificate" : "psk");
        answer_number(answer, "devices", sums->devices);
        answer_number(answer, "bootstrap", sums->bootstrap);
        for (size_t i = 0; i < STATES; i++)
                answer_number(answer, keys[i], sums->keys[i]);
        answer_number(answer, "due", sums->due);
        answer_number(answer, "late", sums->late);
        if (sums->oldest_issued != 0)
                answer_signed(answer, "oldest", sums->oldest);
        if (paused >= 0)
                answer_signed(answer, "paused_for", paused);
        put_policy(answer, profile);
        answer_dict_close(answer);
}

static int walk_devices(struct walk *walk, const char *after, device_visitor visit) {
        int r;

        if (walk->limit == 0 || walk->limit > PAGE_MAX)
                walk->limit = PAGE_MAX;
        r = device_each(walk->call->turn->store, after[0] ? after : NULL, walk->limit, visit, walk);
        return r < 0 ? r : 0;
}

/* A page that was not full was the last. */
static int put_next(struct walk *walk) {
        return sd_bus_message_append(walk->call->answer.message, "s", walk->seen == walk->limit ? walk->last : "");
}

int method_count_device_keys(struct method_call *call) {
        const struct config *config = call->turn->config;
        _cleanup_(freep) struct sums *sums = xcalloc(config->profile_count + 1, sizeof *sums);
        struct walk walk = { .call = call, .sums = sums };
        const char *after;
        int r = sd_bus_message_read(call->request, "su", &after, &walk.limit);

        if (r >= 0)
                r = walk_devices(&walk, after, count_one);
        if (r < 0)
                return r;
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        for (size_t i = 0; i < config->profile_count; i++)
                put_sums(&walk, &config->profiles[i], &sums[i]);
        answer_close(&call->answer);
        return put_next(&walk);
}

/* ---- listing ---- */

static const char *next_step(const struct device *device, const struct credential *credential, bool is_newest,
                             const struct outlook *outlook) {
        switch (credential->state) {
        case KEY_PRE_ACTIVE:
                return "proven by the device's next handshake";
        case KEY_RETIRING:
                return "deactivated after its grace";
        case KEY_ACTIVE:
                break;
        case KEY_DEACTIVATED:
                return credential_is_bootstrap(credential->kind) ? "kept for a reset window" : "destroyed";
        case KEY_COMPROMISED:
        case KEY_DESTROYED:
                return "destroyed";
        }
        if (device->standing == STANDING_NEEDS_VISIT)
                return "somebody must go there";
        if (credential_is_bootstrap(credential->kind))
                return is_newest ? "the device asks for its first key" : "kept for a new beginning";
        if (!is_newest)
                return "";
        return outlook->late_in_sec < 0      ? "overdue: the device is awaited"
               : outlook->rotate_in_sec <= 0 ? "due: the device is called when it comes"
                                             : "rotated when it is due";
}

static void put_key(struct walk *walk, const struct device *device, const struct credential *credential, bool is_newest,
                    const struct outlook *outlook) {
        static const char *const kinds[] = { "factory", "psk", "idevid", "certificate" };
        struct answer *answer = &walk->call->answer;
        const struct moment *now = &walk->call->turn->now;

        answer_dict_open(answer);
        answer_text(answer, "device", device->id);
        answer_text(answer, "profile", device->profile);
        answer_text(answer, "kind", kinds[credential->kind]);
        answer_text(answer, "id", credential->identity);
        answer_text(answer, "state", key_state_name(credential->state));
        answer_number(answer, "generation", credential->generation);
        answer_moment(answer, "made", &credential->issued);
        answer_signed(answer, "age", moment_age(now, &credential->issued));
        if (is_newest && outlook->rotate_in_sec != INT64_MAX)
                answer_signed(answer, "due_in", outlook->rotate_in_sec);
        if (is_newest && outlook->late_in_sec != INT64_MAX)
                answer_signed(answer, "late_in", outlook->late_in_sec);
        answer_text(answer, "next", next_step(device, credential, is_newest, outlook));
        answer_dict_close(answer);
}

static int list_one(void *userdata, const struct device *device) {
        struct credential list[CREDENTIALS_MAX];
        struct walk *walk = userdata;
        const struct credential *newest;
        struct outlook outlook;
        ssize_t count;
        int r = look(walk, device, list, &count, &outlook);

        if (r < 0 || (walk->profile && strcmp(walk->profile, device->profile) != 0))
                return r;
        newest = newest_in_use(list, count);
        for (ssize_t i = 0; i < count; i++)
                put_key(walk, device, &list[i], &list[i] == newest || (!newest && i == 0), &outlook);
        return 0;
}

int method_list_device_keys(struct method_call *call) {
        struct walk walk = { .call = call };
        const char *profile, *after;
        int r = sd_bus_message_read(call->request, "ssu", &profile, &after, &walk.limit);

        if (r < 0)
                return r;
        if (profile[0] && !config_profile(call->turn->config, profile))
                return problem_set(call->problem, CODE_NOT_FOUND, ENOENT, "no such profile",
                                   "there is no profile %.64s", profile);
        walk.profile = profile[0] ? profile : NULL;
        answer_open(&call->answer, SD_BUS_TYPE_ARRAY, "a{sv}");
        r = walk_devices(&walk, after, list_one);
        if (r < 0)
                return r;
        answer_close(&call->answer);
        return put_next(&walk);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* gatewayctl keys: what keys there are, how old each is, and what is due of it when, under which rule. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "gatewayd/operator/gatewayctl_client.h"

/* ---- words ---- */

static const char *due_say(const struct value *row, char *to) {
        int64_t due_in = value_signed(row, "due_in", INT64_MAX);
        char span[SAY_MAX];

        if (due_in == INT64_MAX)
                snprintf(to, SAY_MAX, "-");
        else if (due_in <= 0)
                snprintf(to, SAY_MAX, "now");
        else
                snprintf(to, SAY_MAX, "in %.40s", span_say(due_in, span));
        return to;
}

static const char *age_say(const struct value *row, const char *key, char *to) {
        if (!value_member(row, key))
                return strcpy(to, "-");
        return span_say(value_signed(row, key, 0), to);
}

static enum colour due_colour(const struct value *row) {
        return value_signed(row, "late_in", INT64_MAX) < 0   ? COLOUR_BAD
               : value_signed(row, "due_in", INT64_MAX) <= 0 ? COLOUR_WARN
                                                             : COLOUR_NONE;
}

static enum colour state_colour(const char *state) {
        if (strcmp(state, "active") == 0)
                return COLOUR_GOOD;
        if (strcmp(state, "expired") == 0 || strcmp(state, "compromised") == 0)
                return COLOUR_BAD;
        if (strcmp(state, "none") == 0 || strcmp(state, "requested") == 0 || strcmp(state, "successor prepared") == 0)
                return COLOUR_WARN;
        return COLOUR_NONE;
}

/* ---- the gateway's own ---- */

static void add_own(struct table *table, const struct value *row) {
        const char *state = value_text(row, "state"), *next = value_text(row, "next");
        int64_t every = value_signed(row, "every", 0);
        uint64_t generation = value_number(row, "generation");
        char text[SAY_MAX];

        if (generation > 0)
                table_add(table, COLOUR_NONE, "%s %" PRIu64, value_text(row, "kind"), generation);
        else
                table_add(table, COLOUR_NONE, "%s", value_text(row, "kind"));
        table_add(table, state_colour(state), "%s", state);
        table_add(table, COLOUR_NONE, "%s", age_say(row, "age", text));
        table_add(table, due_colour(row), "%s", due_say(row, text));
        table_add(table, COLOUR_NONE, "%s", next[0] ? next : "-");
        table_add(table, COLOUR_NONE, "%s%s%s", value_text(row, "policy"), every > 0 ? " = " : "",
                  every > 0 ? span_say(every, text) : "");
}

static void show_own(const struct screen *screen, const struct value *rows) {
        static const struct column columns[] = {
                { "KIND", false, false }, { "STATE", false, false }, { "AGE", false, false },
                { "DUE", false, false },  { "NEXT", false, true },   { "POLICY", false, true },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };

        for (size_t i = 0; i < rows->count; i++)
                add_own(&table, &rows->items[i]);
        table_print(&table, screen);
        table_free(&table);
}

/* ---- the fleet, by profile ---- */

static void add_to(struct value *sum, const struct value *more, const char *name) {
        for (size_t i = 0; i < sum->count; i++)
                if (strcmp(sum->keys[i], name) == 0 && sum->items[i].kind == VALUE_NUMBER)
                        sum->items[i].number += value_number(more, name);
}

/* A page's row has no oldest key where it has no key: then that of the pages before stays. */
static void take_oldest(struct value *sum, struct value *more) {
        if (value_signed(more, "oldest", -1) <= value_signed(sum, "oldest", -1))
                return;
        for (size_t i = 0; i < sum->count; i++)
                if (strcmp(sum->keys[i], "oldest") == 0) {
                        sum->items[i].integer = value_signed(more, "oldest", 0);
                        return;
                }
        for (size_t i = 0; i < more->count; i++) {
                struct value *items;
                char **keys;

                if (strcmp(more->keys[i], "oldest") != 0)
                        continue;
                items = reallocarray(sum->items, sum->count + 1, sizeof *items);
                keys = items ? reallocarray(sum->keys, sum->count + 1, sizeof *keys) : NULL;
                if (!keys)
                        oom();
                sum->items = items;
                sum->keys = keys;
                items[sum->count] = more->items[i];
                keys[sum->count++] = xstrdup("oldest");
                more->items[i] = (struct value){ .kind = VALUE_BOOL };
                return;
        }
}

static void add_page(struct value *sums, struct value *page) {
        static const char *const counted[] = { "devices",     "bootstrap",   "pre_active", "active", "retiring",
                                               "deactivated", "compromised", "destroyed",  "due",    "late" };

        for (size_t i = 0; i < page->count; i++)
                for (size_t j = 0; j < sums->count; j++) {
                        if (strcmp(value_text(&sums->items[j], "profile"), value_text(&page->items[i], "profile")) != 0)
                                continue;
                        for (size_t k = 0; k < ELEMENTS(counted); k++)
                                add_to(&sums->items[j], &page->items[i], counted[k]);
                        take_oldest(&sums->items[j], &page->items[i]);
                }
}

/* One turn of the gateway for each page. `method` returns rows and where the next page begins. */
static int next_page(struct client *client, const char *method, const char *profile, char **after, struct value *ret) {
        struct value answer;
        int r = profile ? client_call(client, method, 2, &answer, "ssu", profile, *after, (uint32_t)0)
                        : client_call(client, method, 2, &answer, "su", *after, (uint32_t)0);

        if (r < 0)
                return r;
        freep(after);
        *after = xstrdup(answer.items[1].kind == VALUE_TEXT ? answer.items[1].text : "");
        *ret = (struct value){ .kind = VALUE_LIST };
        client_move_items(ret, &answer.items[0]);
        value_free(&answer);
        return 0;
}

static int count_fleet(struct client *client, struct value *ret) {
        _cleanup_(freep) char *after = xstrdup("");
        int r = next_page(client, "CountDeviceKeys", NULL, &after, ret);

        while (r >= 0 && after[0]) {
                struct value page;

                r = next_page(client, "CountDeviceKeys", NULL, &after, &page);
                if (r < 0) {
                        value_free(ret);
                        break;
                }
                add_page(ret, &page);
                value_free(&page);
        }
        return r;
}

static void add_number(struct table *table, const struct value *row, const char *key, enum colour where_some) {
        uint64_t number = value_number(row, key);
        char text[SAY_MAX];

        table_add(table, number > 0 ? where_some : COLOUR_NONE, "%s", count_say(number, text));
}

static void add_profile(struct table *table, const struct value *row) {
        const char *at = value_text(row, "rotate_at"), *window = value_text(row, "maintenance");
        int64_t paused = value_signed(row, "paused_for", -1);
        char text[SAY_MAX], rest[SAY_MAX + 16] = "";

        table_add(table, COLOUR_NONE, "%s", value_text(row, "profile"));
        table_add(table, COLOUR_NONE, "%s", value_text(row, "kind"));
        add_number(table, row, "devices", COLOUR_NONE);
        add_number(table, row, "pre_active", COLOUR_NONE);
        add_number(table, row, "active", COLOUR_GOOD);
        add_number(table, row, "retiring", COLOUR_NONE);
        add_number(table, row, "compromised", COLOUR_BAD);
        table_add(table, COLOUR_NONE, "%s", age_say(row, "oldest", text));
        add_number(table, row, "due", COLOUR_WARN);
        add_number(table, row, "late", COLOUR_BAD);
        if (paused >= 0)
                snprintf(rest, sizeof rest, "; paused for %s", span_say(paused, text));
        table_add(table, paused >= 0 ? COLOUR_WARN : COLOUR_NONE, "%s = %s%s%s%s%s%s", value_text(row, "policy"),
                  span_say(value_signed(row, "every", 0), text), at[0] ? ", at " : "", at, window[0] ? ", within " : "",
                  window, rest);
}

static void show_fleet(const struct screen *screen, const struct value *rows) {
        static const struct column columns[] = {
                { "PROFILE", false, false },    { "KIND", false, false },   { "DEVICES", true, false },
                { "PRE-ACTIVE", true, false },  { "ACTIVE", true, false },  { "RETIRING", true, false },
                { "COMPROMISED", true, false }, { "OLDEST", false, false }, { "DUE", true, false },
                { "OVERDUE", true, false },     { "POLICY", false, true },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };

        for (size_t i = 0; i < rows->count; i++)
                add_profile(&table, &rows->items[i]);
        fputc('\n', screen->to);
        table_print(&table, screen);
        table_free(&table);
}

/* ---- every key of the fleet ---- */

static void add_key(struct table *table, const struct value *row) {
        const char *state = value_text(row, "state");
        char text[SAY_MAX];

        table_add(table, COLOUR_NONE, "%s", value_text(row, "device"));
        table_add(table, COLOUR_NONE, "%s %" PRIu64, value_text(row, "kind"), value_number(row, "generation"));
        table_add(table, state_colour(state), "%s", state);
        table_add(table, COLOUR_NONE, "%s", age_say(row, "age", text));
        table_add(table, due_colour(row), "%s", due_say(row, text));
        table_add(table, COLOUR_NONE, "%s", value_text(row, "next"));
        table_add(table, COLOUR_NONE, "%s", value_text(row, "profile"));
}

static int show_devices(struct client *client, const char *profile) {
        static const struct column columns[] = {
                { "DEVICE", false, false }, { "KIND", false, false }, { "STATE", false, false },
                { "AGE", false, false },    { "DUE", false, false },  { "NEXT", false, true },
                { "POLICY", false, false },
        };
        struct table table = { .columns = columns, .column_count = ELEMENTS(columns) };
        _cleanup_(freep) char *after = xstrdup("");
        struct value all = { .kind = VALUE_LIST };
        int r;

        do {
                struct value page;

                r = next_page(client, "ListDeviceKeys", profile, &after, &page);
                if (r < 0)
                        break;
                client_move_items(&all, &page);
                value_free(&page);
        } while (after[0]);
        if (r >= 0 && client->is_json)
                value_print_json(&all, client->screen.to);
        else if (r >= 0) {
                for (size_t i = 0; i < all.count; i++)
                        add_key(&table, &all.items[i]);
                table_print(&table, &client->screen);
                table_free(&table);
        }
        value_free(&all);
        return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

int command_keys(struct client *client, int count, char **arguments) {
        bool is_devices = false;
        const struct command_option options[] = { { "--devices", NULL, &is_devices } };
        const char *profile = "";
        struct value answer, fleet;
        int r = take_arguments(count, arguments, options, ELEMENTS(options), &profile, 0, 1, "a profile");

        if (r != 0)
                return r;
        if (profile && profile[0] && !is_devices)
                return usage_error("a profile goes with --devices");
        if (is_devices)
                return show_devices(client, profile ? profile : "");
        if (client_call(client, "ListKeys", 1, &answer, "") < 0)
                return EXIT_FAILED;
        if (count_fleet(client, &fleet) < 0) {
                value_free(&answer);
                return EXIT_FAILED;
        }
        if (client->is_json) {
                char *keys[] = { (char *)"gateway", (char *)"profiles" };
                struct value items[] = { answer.items[0], fleet };
                struct value map = { .kind = VALUE_MAP, .items = items, .keys = keys, .count = 2 };

                value_print_json(&map, client->screen.to);
        } else {
                show_own(&client->screen, &answer.items[0]);
                show_fleet(&client->screen, &fleet);
        }
        value_free(&answer);
        value_free(&fleet);
        return EXIT_DONE;
}

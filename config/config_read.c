/* SPDX-License-Identifier: Apache-2.0 */

/* One file's text into `struct config`: its groups and lists. Every mistake is noted and passed over,
 * so that one run names them all.
 * What several values say together is judged later (config_check.c). */

#include "config/tree.h"

#include <errno.h>
#include <stdlib.h>

/* A setting whose value broke off at a syntax error; that error is reported already. */
static bool is_torn(const config_setting_t *setting) {
        return config_setting_type(setting) == CONFIG_TYPE_NONE;
}

static void unknown_key(const struct reading *reading, const config_setting_t *setting, const struct key_table *table) {
        const char *names[KEYS_MAX + 1] = { NULL }, *name = config_setting_name(setting);
        char what[64];

        for (size_t i = 0; i < table->count; i++)
                names[i] = table->keys[i].name;
        snprintf(what, sizeof what, "key of %s", table->what);
        loader_unknown(reading->loader, place_of(reading, setting), what, name ? name : "", names);
}

typedef void (*group_reader)(const struct reading *reading, config_setting_t *setting, size_t index);

/* Reads every member of a group: plain ones by the table, the others by `special`. `places` takes
 * note of where each was written. */
static void read_group(const struct reading *reading, config_setting_t *group, const struct key_table *table,
                       void *base, struct place *places, group_reader special, size_t index) {
        for (int i = 0; i < config_setting_length(group); i++) {
                config_setting_t *setting = config_setting_get_elem(group, (unsigned)i);
                const char *name = config_setting_name(setting);
                int k = name ? key_index(table, name) : -1;
                size_t errors;

                if (k < 0) {
                        unknown_key(reading, setting, table);
                        continue;
                }
                if (is_torn(setting))
                        continue;
                errors = reading->loader->error_count;
                if (table->keys[k].kind == KEY_GROUP)
                        special(reading, setting, index);
                else
                        read_value(reading, setting, &table->keys[k], base);
                places[k] = place_of(reading, setting);
                places[k].is_bad = reading->loader->error_count != errors;
        }
}

static void read_listen(const struct reading *reading, config_setting_t *setting) {
        struct config *config = reading->loader->config;
        bool is_one = config_setting_type(setting) == CONFIG_TYPE_STRING;
        int count = is_one ? 1 : config_setting_length(setting);

        config->listen_count = 0;
        if (!is_one && config_setting_type(setting) != CONFIG_TYPE_ARRAY &&
            config_setting_type(setting) != CONFIG_TYPE_LIST)
                count = 0;
        for (int i = 0; i < count; i++) {
                config_setting_t *element = is_one ? setting : config_setting_get_elem(setting, (unsigned)i);

                if (config->listen_count < ELEMENTS(config->listen) &&
                    read_text(element, sizeof config->listen[0], config->listen[config->listen_count]))
                        config->listen_count++;
                else
                        loader_problem(reading->loader, place_of(reading, element),
                                       "listen takes up to %zu texts such as \"[::]:5684\"", ELEMENTS(config->listen));
        }
        if (count == 0)
                loader_problem(reading->loader, place_of(reading, setting),
                               "listen names no address; allowed is a text such as \"[::]:5684\"");
}

static void no_special(const struct reading *reading, config_setting_t *setting, size_t index) {
        (void)reading, (void)setting, (void)index; /* a table without groups of its own */
}

static bool is_group(const struct reading *reading, const config_setting_t *setting, const char *what) {
        if (config_setting_is_group(setting))
                return true;
        loader_problem(reading->loader, place_of(reading, setting), "%s must be a group: { … }", what);
        return false;
}

static bool is_list(const config_setting_t *setting) {
        return config_setting_is_array(setting) || config_setting_is_list(setting);
}

/* One text, or a list of texts: how many, or -1 where it is neither. */
static int text_count(const config_setting_t *setting) {
        if (config_setting_type(setting) == CONFIG_TYPE_STRING)
                return 1;
        return is_list(setting) ? config_setting_length(setting) : -1;
}

static config_setting_t *text_at(config_setting_t *setting, int index) {
        return is_list(setting) ? config_setting_get_elem(setting, (unsigned)index) : setting;
}

/* Up to `max` texts of up to `size` bytes with their NUL into an array of them. Returns how many. */
static size_t read_texts(const struct reading *reading, config_setting_t *setting, const char *example, char *to,
                         size_t size, size_t max) {
        int count = text_count(setting);
        bool is_good = count >= 0 && (size_t)count <= max;

        for (int i = 0; is_good && i < count; i++)
                is_good = read_text(text_at(setting, i), size, to + (size_t)i * size) && to[(size_t)i * size] != '\0';
        if (is_good)
                return (size_t)count;
        loader_problem(reading->loader, place_of(reading, setting),
                       "%s takes up to %zu texts of up to %zu characters, such as %s", config_setting_name(setting),
                       max, size - 1, example);
        return 0;
}

static void read_ca_special(const struct reading *reading, config_setting_t *setting, size_t index) {
        struct ca_config *ca = &reading->loader->config->ca;

        (void)index; /* there is one group */
        if (strcmp(config_setting_name(setting), "providers") == 0)
                ca->provider_count = read_texts(reading, setting, "( \"tpm2\" )", ca->providers[0],
                                                sizeof ca->providers[0], ELEMENTS(ca->providers));
        else
                ca->path_count = read_texts(reading, setting, "( \"/dev/tpmrm0\" )", ca->paths[0], sizeof ca->paths[0],
                                            ELEMENTS(ca->paths));
}

/* One row of the table of classes: three spans, for low, medium and high criticality. */
static void read_class_row(const struct reading *reading, config_setting_t *row, size_t sensitivity) {
        const struct key *span = &profile_keys.keys[key_index(&profile_keys, "rotate_every")];
        int64_t limits[3];

        if (!is_list(row) || config_setting_length(row) != 3) {
                loader_problem(reading->loader, place_of(reading, row),
                               "a row of classes has three time spans: for low, medium and high criticality");
                return;
        }
        for (unsigned i = 0; i < 3; i++)
                if (!read_integer(config_setting_get_elem(row, i), span, &limits[i])) {
                        loader_problem(reading->loader, place_of(reading, config_setting_get_elem(row, i)),
                                       "classes: value %u of the row is no time span of at least 1s", i + 1);
                        return;
                }
        memcpy(reading->loader->config->class_limit_sec[sensitivity], limits, sizeof limits);
}

static void read_classes(const struct reading *reading, config_setting_t *setting) {
        static const char *const rows[] = { "low", "medium", "high", NULL };

        if (!is_group(reading, setting, "classes"))
                return;
        for (int i = 0; i < config_setting_length(setting); i++) {
                config_setting_t *row = config_setting_get_elem(setting, (unsigned)i);
                const char *name = config_setting_name(row);
                size_t s = 0, errors;

                if (is_torn(row))
                        continue;
                while (rows[s] && strcmp(rows[s], name ? name : "") != 0)
                        s++;
                if (!rows[s]) {
                        loader_unknown(reading->loader, place_of(reading, row), "row of classes", name ? name : "",
                                       rows);
                        continue;
                }
                errors = reading->loader->error_count;
                read_class_row(reading, row, s);
                reading->loader->classes[s] = place_of(reading, row);
                reading->loader->classes[s].is_bad = reading->loader->error_count != errors;
        }
}

/* "sha-256:hex", the form in which most tools print a digest. */
static bool read_digest(const config_setting_t *setting, struct reference_value *to) {
        static const struct {
                const char *prefix;
                size_t size;
        } kinds[] = { { "sha-256:", 32 }, { "sha-384:", 48 }, { "sha-512:", 64 } };
        const char *text = config_setting_get_string(setting);

        for (size_t i = 0; text && i < ELEMENTS(kinds); i++) {
                const char *digits = text + strlen(kinds[i].prefix);

                if (strncmp(text, kinds[i].prefix, strlen(kinds[i].prefix)) != 0)
                        continue;
                if (strlen(digits) != 2 * kinds[i].size ||
                    hex_decode(bytes_of(digits), to->digest, sizeof to->digest) != (ssize_t)kinds[i].size)
                        return false;
                to->digest_size = kinds[i].size;
                return true;
        }
        return false;
}

static void read_reference(const struct reading *reading, config_setting_t *group, struct reference_value *to) {
        struct place places[KEYS_MAX] = { 0 };
        config_setting_t *digest;

        if (!is_group(reading, group, "a reference value"))
                return;
        read_group(reading, group, &reference_keys, to, places, no_special, 0);
        digest = config_setting_get_member(group, "digest");
        if (digest && !is_torn(digest) && !read_digest(digest, to))
                loader_problem(reading->loader, place_of(reading, digest),
                               "digest must be \"sha-256:\", \"sha-384:\" or \"sha-512:\" and that many bits in hex");
        else if (to->swname[0] == '\0' && to->swversion[0] == '\0' && to->digest_size == 0)
                loader_problem(reading->loader, place_of(reading, group),
                               "a reference value that names nothing would affirm anything; "
                               "set swname, swversion or digest");
}

static void read_references(const struct reading *reading, config_setting_t *setting, struct profile *profile) {
        int count = config_setting_length(setting);

        if (!config_setting_is_list(setting)) {
                loader_problem(reading->loader, place_of(reading, setting),
                               "references must be a list of groups: ( { swname = \"…\"; }, … )");
                return;
        }
        free(profile->references);
        profile->references = count > 0 ? xcalloc((size_t)count, sizeof *profile->references) : NULL;
        profile->reference_count = (size_t)count;
        for (int i = 0; i < count; i++)
                read_reference(reading, config_setting_get_elem(setting, (unsigned)i), &profile->references[i]);
}

static void anchors_forget(struct profile_source *source) {
        for (size_t i = 0; i < source->anchor_count; i++)
                free(source->anchors[i].path);
        free(source->anchors);
        source->anchors = NULL;
        source->anchor_count = 0;
}

/* Which files; they are read once it is known that no drop-in says otherwise. */
static void read_anchor_names(const struct reading *reading, config_setting_t *setting, struct profile_source *source) {
        int count = text_count(setting);

        anchors_forget(source);
        if (count > 0)
                source->anchors = xcalloc((size_t)count, sizeof *source->anchors);
        for (int i = 0; i < count; i++) {
                config_setting_t *element = text_at(setting, i);
                char path[CONFIG_TEXT_MAX];

                if (!read_text(element, sizeof path, path) || path[0] == '\0') {
                        count = -1;
                        break;
                }
                source->anchors[source->anchor_count++] = (struct named_file){
                        .place = place_of(reading, element),
                        .path = xstrdup(path),
                };
        }
        if (count < 0)
                loader_problem(reading->loader, place_of(reading, setting),
                               "idevid_anchors takes the name of a file with certificates (PEM or DER), or a list of "
                               "such names: ( \"maker-root.pem\", \"maker-issuing.pem\" )");
}

static bool read_key_type(const struct reading *reading, const config_setting_t *setting, unsigned *types) {
        const char *name = config_setting_get_string(setting);

        if (!name)
                return false;
        for (unsigned t = 0; device_key_type_names[t]; t++)
                if (strcmp(device_key_type_names[t], name) == 0) {
                        *types |= 1U << t;
                        return true;
                }
        loader_unknown(reading->loader, place_of(reading, setting), "key type", name, device_key_type_names);
        return true; /* reported */
}

static void read_key_types(const struct reading *reading, config_setting_t *setting, struct profile *profile) {
        int count = text_count(setting);
        bool is_good = count > 0;

        profile->key_types = 0;
        for (int i = 0; is_good && i < count; i++)
                is_good = read_key_type(reading, text_at(setting, i), &profile->key_types);
        if (!is_good)
                loader_problem(reading->loader, place_of(reading, setting),
                               "key_types takes a list of what certificates may be asked for: at least one of "
                               "\"P-256\", \"P-384\", \"Ed25519\" and \"RSA\"");
}

static void read_calendar(const struct reading *reading, config_setting_t *setting, struct calendar **to,
                          struct place *place) {
        const char *name = config_setting_name(setting), *text = config_setting_get_string(setting);
        struct calendar *calendar = NULL;
        char why[128] = "it is no text in double quotes";

        if (text && text[0] == 0) /* takes back what another file said */
                why[0] = 0;
        else if (!text || calendar_parse(text, &calendar, why) < 0) {
                place->is_bad = true;
                loader_problem(reading->loader, place_of(reading, setting),
                               "%s takes a calendar expression such as \"Sun *-*-* 03:00\" (systemd.time(7)): %s", name,
                               why);
                return;
        }
        calendar_free(*to);
        *to = calendar;
}

static void read_profile_special(const struct reading *reading, config_setting_t *setting, size_t index) {
        const char *name = config_setting_name(setting);

        if (strcmp(name, "references") == 0)
                read_references(reading, setting, &reading->loader->config->profiles[index]);
        else if (strcmp(name, "idevid_anchors") == 0)
                read_anchor_names(reading, setting, &reading->loader->profiles[index]);
        else if (strcmp(name, "key_types") == 0)
                read_key_types(reading, setting, &reading->loader->config->profiles[index]);
        else if (strcmp(name, "rotate_at") == 0)
                read_calendar(reading, setting, &reading->loader->config->profiles[index].rotate_at,
                              &reading->loader->profiles[index].keys[key_index(&profile_keys, name)]);
        else if (strcmp(name, "maintenance") == 0)
                read_calendar(reading, setting, &reading->loader->config->profiles[index].maintenance,
                              &reading->loader->profiles[index].keys[key_index(&profile_keys, name)]);
        /* "name" was read to find the profile */
}

static bool is_profile_name(const char *name) {
        size_t length = strlen(name);

        return length >= 1 && length <= PROFILE_NAME_MAX &&
               strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

/* The profile of that name, made when there is none; -EEXIST when this very file has it already. */
static int profile_find(const struct reading *reading, const char *name, struct place place, size_t *ret) {
        struct loader *loader = reading->loader;
        struct config *config = loader->config;
        size_t n = config->profile_count;

        for (size_t i = 0; i < n; i++) {
                if (strcmp(config->profiles[i].name, name) != 0)
                        continue;
                *ret = i;
                if (loader->profiles[i].place.file == reading->file)
                        return -EEXIST;
                loader->profiles[i].place = place;
                return 0;
        }
        config->profiles = reallocarray(config->profiles, n + 1, sizeof *config->profiles);
        loader->profiles = reallocarray(loader->profiles, n + 1, sizeof *loader->profiles);
        if (!config->profiles || !loader->profiles)
                oom();
        loader->profiles[n] = (struct profile_source){ .place = place };
        config->profiles[n] = (struct profile){ 0 };
        memcpy(config->profiles[n].name, name, strlen(name));
        config->profile_count++;
        *ret = n;
        return 0;
}

static void read_profile(const struct reading *reading, config_setting_t *group) {
        struct loader *loader = reading->loader;
        config_setting_t *name_setting;
        char name_shown[SHOWN_MAX];
        const char *name;
        size_t index;

        if (!is_group(reading, group, "a profile"))
                return;
        name_setting = config_setting_get_member(group, "name");
        name = name_setting ? config_setting_get_string(name_setting) : NULL;
        if (!name || !is_profile_name(name)) {
                loader_problem(loader, place_of(reading, name_setting ? name_setting : group),
                               "a profile needs a name: a text of 1 to %d of A-Z a-z 0-9 . _ -", PROFILE_NAME_MAX);
                return;
        }
        if (profile_find(reading, name, place_of(reading, name_setting), &index) < 0) {
                loader_problem(loader, place_of(reading, name_setting),
                               "profile %s stands twice in this file, first at line %u", shown(name, name_shown),
                               loader->profiles[index].place.line);
                return;
        }
        read_group(reading, group, &profile_keys, &loader->config->profiles[index], loader->profiles[index].keys,
                   read_profile_special, index);
}

static void read_profiles(const struct reading *reading, config_setting_t *setting) {
        if (!config_setting_is_list(setting)) {
                loader_problem(reading->loader, place_of(reading, setting),
                               "profiles must be a list of groups: ( { name = \"…\"; }, … )");
                return;
        }
        for (int i = 0; i < config_setting_length(setting); i++)
                read_profile(reading, config_setting_get_elem(setting, (unsigned)i));
}

static void read_top_special(const struct reading *reading, config_setting_t *setting, size_t index) {
        struct loader *loader = reading->loader;
        const char *name = config_setting_name(setting);

        (void)index; /* there is one top */
        if (strcmp(name, "listen") == 0)
                read_listen(reading, setting);
        else if (strcmp(name, "classes") == 0)
                read_classes(reading, setting);
        else if (strcmp(name, "profiles") == 0)
                read_profiles(reading, setting);
        else if (strcmp(name, "ca") == 0) {
                if (is_group(reading, setting, "ca"))
                        read_group(reading, setting, &ca_keys, loader->config, loader->ca, read_ca_special, 0);
        } else if (strcmp(name, "keys") == 0) {
                if (is_group(reading, setting, "keys"))
                        read_group(reading, setting, &keys_keys, loader->config, loader->keys, no_special, 0);
        } else if (is_group(reading, setting, "north"))
                read_group(reading, setting, &north_keys, loader->config, loader->north, no_special, 0);
}

/* What libconfig would do with a text that it must not be given: cut it at a zero byte, or open
 * any file that @include names. Returns whether the text is fit. */
static bool text_is_fit(const struct reading *reading, struct bytes text) {
        struct place place = { .file = reading->file, .line = 1 };
        bool is_line_start = true;

        for (size_t i = 0; i < text.size; i++) {
                struct bytes rest = BYTES(text.data + i, text.size - i);

                if (text.data[i] == 0 || (rest.size >= 4 && memcmp(rest.data, "\\x00", 4) == 0)) {
                        loader_problem(reading->loader, place, "a zero byte; a configuration is text");
                        return false;
                }
                if (is_line_start && rest.size >= 8 && memcmp(rest.data, "@include", 8) == 0) {
                        loader_problem(reading->loader, place,
                                       "@include is not taken; put a file *.conf into the folder conf.d instead");
                        return false;
                }
                if (text.data[i] == '\n')
                        place.line++;
                is_line_start =
                        text.data[i] == '\n' || (is_line_start && (text.data[i] == ' ' || text.data[i] == '\t'));
        }
        return true;
}

static void syntax_problem(const struct reading *reading, const config_t *tree) {
        struct place place = { .file = reading->file, .line = (unsigned)config_error_line(tree) };
        const char *what = config_error_text(tree);

        if (what && strstr(what, "duplicate"))
                loader_problem(reading->loader, place, "the same key stands twice in one group");
        else
                loader_problem(reading->loader, place,
                               "%s; texts and time spans stand in double quotes, "
                               "groups in { }, lists in ( ), and a setting ends with ;",
                               what ? what : "syntax error");
}

void loader_read(struct loader *loader, const char *file, struct bytes text) {
        struct reading reading = { .loader = loader };
        struct buffer terminated = { 0 };
        config_t tree;

        if (loader->file_count == ELEMENTS(loader->files))
                return; /* the caller counts them */
        loader->files[loader->file_count] = file;
        reading.file = (unsigned)loader->file_count++;
        if (!text_is_fit(&reading, text))
                return;
        buffer_append(&terminated, text);
        buffer_append(&terminated, BYTES("", 1));
        config_init(&tree);
        if (!config_read_string(&tree, (const char *)terminated.data)) {
                syntax_problem(&reading, &tree);
                loader->is_torn = true;
        }
        /* After a syntax error the tree holds what stood before it: its mistakes are named too. */
        if (config_root_setting(&tree))
                read_group(&reading, config_root_setting(&tree), &top_keys, loader->config, loader->top,
                           read_top_special, 0);
        config_destroy(&tree);
        buffer_free(&terminated);
}

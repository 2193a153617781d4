/* SPDX-License-Identifier: Apache-2.0 */

/* The list of what is wrong with a configuration: collected at places, given out in the order in
 * which an editor would walk through them. */

#include "config/loader.h"

#include <stdarg.h>
#include <stdlib.h>

static _printf_(4, 0) void problem_add(struct loader *loader, struct place place, bool is_warning, const char *format,
                                       va_list arguments) {
        struct problem_entry *grown;
        char text[1024];

        if (!is_warning)
                loader->error_count++;
        if (loader->problem_count >= PROBLEMS_MAX)
                return;
        vsnprintf(text, sizeof text, format, arguments);
        grown = realloc(loader->problems, (loader->problem_count + 1) * sizeof *grown);
        if (!grown)
                oom();
        loader->problems = grown;
        grown[loader->problem_count++] = (struct problem_entry){
                .place = place,
                .is_warning = is_warning,
                .text = xstrdup(text),
        };
}

void loader_problem(struct loader *loader, struct place place, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        problem_add(loader, place, false, format, arguments);
        va_end(arguments);
}

void loader_warning(struct loader *loader, struct place place, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        problem_add(loader, place, true, format, arguments);
        va_end(arguments);
}

const char *shown(const char *text, char *to) {
        size_t used = 0;

        to[used++] = '"';
        for (; *text != '\0' && used < SHOWN_MAX - 5; text++)
                to[used++] = (unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f ? '?' : *text;
        if (*text != '\0')
                for (int i = 0; i < 3; i++)
                        to[used++] = '.';
        to[used++] = '"';
        to[used] = '\0';
        return to;
}

/* Levenshtein distance of two short words; long ones are simply far apart. */
static size_t distance(const char *a, const char *b) {
        size_t row[33], length_a = strnlen(a, 33), length_b = strnlen(b, 33);

        if (length_a > 32 || length_b > 32)
                return 33;
        for (size_t j = 0; j <= length_b; j++)
                row[j] = j;
        for (size_t i = 1; i <= length_a; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (size_t j = 1; j <= length_b; j++) {
                        size_t change = diagonal + (a[i - 1] != b[j - 1]);

                        diagonal = row[j];
                        if (row[j] + 1 < change)
                                change = row[j] + 1;
                        if (row[j - 1] + 1 < change)
                                change = row[j - 1] + 1;
                        row[j] = change;
                }
        }
        return row[length_b];
}

static const char *nearest(const char *word, const char *const *words) {
        size_t best = strlen(word) / 3 + 1;
        const char *found = NULL;

        for (size_t i = 0; words[i]; i++) {
                size_t d = distance(word, words[i]);

                if (d < best || (d == best && !found)) {
                        best = d;
                        found = words[i];
                }
        }
        return found;
}

void loader_unknown(struct loader *loader, struct place place, const char *what, const char *word,
                    const char *const *words) {
        const char *meant = nearest(word, words);
        char word_shown[SHOWN_MAX], list[800] = "";
        size_t used = 0;

        for (size_t i = 0; words[i] && used < sizeof list; i++)
                used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ", words[i]);
        if (meant)
                loader_problem(loader, place, "%s %s is unknown; did you mean \"%s\"?", what, shown(word, word_shown),
                               meant);
        else
                loader_problem(loader, place, "%s %s is unknown; allowed are %s", what, shown(word, word_shown), list);
}

static int compare_entries(const void *a, const void *b) {
        const struct problem_entry *left = a, *right = b;

        if (left->place.file != right->place.file)
                return left->place.file < right->place.file ? -1 : 1;
        if (left->place.line != right->place.line)
                return left->place.line < right->place.line ? -1 : 1;
        return strcmp(left->text, right->text);
}

void loader_report(struct loader *loader, struct config_problems *problems) {
        if (loader->problem_count > 0)
                qsort(loader->problems, loader->problem_count, sizeof *loader->problems, compare_entries);
        problems->lines = loader->problem_count > 0 ? xcalloc(loader->problem_count, sizeof(char *)) : NULL;
        problems->count = loader->problem_count;
        for (size_t i = 0; i < loader->problem_count; i++) {
                const struct problem_entry *entry = &loader->problems[i];
                struct buffer line = { 0 };

                buffer_printf(&line, "%s:", loader->files[entry->place.file]);
                if (entry->place.line > 0)
                        buffer_printf(&line, "%u:", entry->place.line);
                buffer_printf(&line, " %s%s", entry->is_warning ? "warning: " : "", entry->text);
                buffer_append(&line, BYTES("", 1));
                problems->lines[i] = xstrdup((const char *)line.data);
                buffer_free(&line);
                free(entry->text);
        }
        free(loader->problems);
        loader->problems = NULL;
        loader->problem_count = 0;
}

void config_problems_free(struct config_problems *problems) {
        for (size_t i = 0; i < problems->count; i++)
                free(problems->lines[i]);
        free(problems->lines);
        *problems = (struct config_problems){ 0 };
}

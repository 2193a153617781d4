/* SPDX-License-Identifier: Apache-2.0 */

/* The commands of diskfs; what each does is said in diskfs.c. */

#include "tests/system/diskfs.h"

#include <stdio.h>
#include <string.h>

static bool set_fault(const char *words) {
        char what[16];
        unsigned long long count = 0;
        struct fault *fault;
        int error;

        if (sscanf(words, "%15s %d %llu", what, &error, &count) < 2)
                return false;
        fault = strcmp(what, "write") == 0 ? &disk.write : strcmp(what, "sync") == 0 ? &disk.sync : NULL;
        if (!fault)
                return false;
        *fault = (struct fault){ .error = error, .count = count, .is_on = error != 0 };
        return true;
}

static bool set_switch(const char *word, bool *to) {
        *to = strcmp(word, "on") == 0;
        return *to || strcmp(word, "off") == 0;
}

static bool set_readonly(const char *word) {
        for (size_t i = 0; i < disk.now.count; i++)
                file_settle(disk.now.file[i], disk.now.file[i]->pending_count, true);
        names_sync();
        return set_switch(word, &disk.is_readonly);
}

bool command_obey(char *line) {
        char *words = strchr(line, ' ');
        unsigned long long number = 0, after = 0;

        if (words)
                *words++ = 0;
        else
                words = line + strlen(line);
        if (strcmp(line, "cut") == 0) {
                if (sscanf(words, "%llu %2999s %llu", &number, disk.cut_folder, &after) < 2)
                        return false;
                disk.seed = number;
                disk.until_cut = after + 1;
                return after > 0 || disk_operation();
        }
        if (strcmp(line, "delay") == 0)
                return sscanf(words, "%u", &disk.delay_ms) == 1;
        if (strcmp(line, "error") == 0)
                return set_fault(words);
        if (strcmp(line, "full") == 0) {
                disk.most_bytes = sscanf(words, "%llu", &number) == 1 ? (size_t)number : bytes_used();
                return true;
        }
        if (strcmp(line, "readonly") == 0)
                return set_readonly(words);
        if (strcmp(line, "lie") == 0)
                return set_switch(words, &disk.is_lying);
        return strcmp(line, "status") == 0;
}

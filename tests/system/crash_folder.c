/* SPDX-License-Identifier: Apache-2.0 */

/* Copies of a gateway's folder: each point of a crash begins with the same one. */

#include "tests/system/crash_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static void copy_file(int from_folder, int to_folder, const char *name) {
        int from = openat(from_folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), to;
        struct stat status;

        if (from < 0 || fstat(from, &status) < 0 || !S_ISREG(status.st_mode)) {
                if (from >= 0)
                        close(from);
                return; /* the control socket, the folder of CRLs */
        }
        to = openat(to_folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (to < 0 || sendfile(to, from, NULL, (size_t)status.st_size) != status.st_size) {
                perror(name);
                exit(EXIT_FAILURE);
        }
        close(from);
        close(to);
}

void folder_copy(const char *from, const char *to) {
        DIR *folder = opendir(from);
        int target;

        if (!folder || mkdir(to, 0700) < 0 || (target = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
                perror(to);
                exit(EXIT_FAILURE);
        }
        for (struct dirent *entry; (entry = readdir(folder));)
                if (entry->d_type == DT_REG && strcmp(entry->d_name, "log") != 0)
                        copy_file(dirfd(folder), target, entry->d_name);
        closedir(folder);
        close(target);
}

void folder_remove(const char *path) {
        char inside[700];
        DIR *folder = opendir(path);

        for (struct dirent *entry; folder && (entry = readdir(folder));) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
                if (entry->d_type == DT_DIR)
                        folder_remove(inside);
                else
                        (void)unlink(inside); /* shows in the rmdir() */
        }
        if (folder)
                closedir(folder);
        if (rmdir(path) < 0)
                perror(path);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Talking with the service manager: readiness, watchdog, kept descriptors, credentials. */

#include "systemd/service.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

int service_ready(const char *status) {
        return sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

int service_reloading(void) {
        struct timespec now;

        /* The time lets newer service managers tell this reload from an earlier one
         * (Type=notify-reload). */
        clock_gettime(CLOCK_MONOTONIC, &now);
        return sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
                          (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
}

int service_stopping(void) {
        return sd_notify(0, "STOPPING=1");
}

int service_status(const char *status) {
        return sd_notifyf(0, "STATUS=%s", status);
}

int service_watchdog(void) {
        return sd_notify(0, "WATCHDOG=1");
}

uint64_t service_watchdog_usec(void) {
        uint64_t usec;

        return sd_watchdog_enabled(0, &usec) > 0 ? usec / 2 : 0;
}

int service_descriptor_take(const char *name) {
        char **names = NULL;
        int count, found = -ENOENT;

        /* Taken out of the environment: the roles are not to find the numbers there, nor a second call
         * numbers that mean something else by then. */
        count = sd_listen_fds_with_names(1, &names);
        if (count < 0)
                return count;
        for (int i = 0; i < count; i++) {
                int fd = SD_LISTEN_FDS_START + i;

                if (found < 0 && strcmp(names[i], name) == 0)
                        found = fd; /* sd_listen_fds() made it close-on-exec */
                else
                        close(fd);
                free(names[i]);
        }
        free(names);
        return found;
}

int service_descriptor_store(const char *name, int fd) {
        char state[300];

        if ((size_t)snprintf(state, sizeof state, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name) >= sizeof state)
                return -ENAMETOOLONG;
        return sd_pid_notify_with_fds(0, 0, state, &fd, 1);
}

/* Waited for: until then the address is taken. */
int service_descriptor_forget(const char *name) {
        int r = sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);

        return r <= 0 ? r : sd_notify_barrier(0, 5 * UINT64_C(1000000));
}

ssize_t service_credential(const char *name, uint8_t *to, size_t to_size) {
        const char *folder = getenv("CREDENTIALS_DIRECTORY");
        char path[512];
        size_t used = 0;
        ssize_t n = 0;
        uint8_t more;
        int fd;

        if (!folder || folder[0] != '/')
                return -ENOENT;
        if (name[0] == '.' || strchr(name, '/'))
                return -EINVAL;
        if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
        if (fd < 0)
                return -errno;
        while (used < to_size && (n = read(fd, to + used, to_size - used)) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        break;
                used += (size_t)n;
        }
        if (n >= 0 && used == to_size)
                n = read(fd, &more, 1);
        if (n < 0)
                n = -errno;
        else
                n = n > 0 ? -EMSGSIZE : (ssize_t)used;
        close(fd);
        if (n < 0)
                explicit_bzero(to, to_size);
        return n;
}

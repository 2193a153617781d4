/* SPDX-License-Identifier: Apache-2.0 */

/* Core's part in the issuing CA: its keys are opened in the first turn, what is due is done in the tick's, CRLs
 * are made before the commit of the turn that revoked something, and written beside the control socket after its
 * barrier. What a CA is: keys/authority.h. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gatewayd/core.h"
#include "gatewayd/keys/authority.h"

int core_authority_open(struct core *core) {
        struct issuer *issuer = issuer_new();
        int r = issuer_open(issuer, &core->turn);

        core->turn.issuer = issuer;
        turn_effect(&core->turn, EFFECT_CRL, NULL, NULL); /* a reboot has emptied the folder */
        return r;
}

void core_authority_close(struct core *core) {
        core->turn.issuer = issuer_free(core->turn.issuer);
}

void core_authority_tick(struct core *core) {
        int r = authority_tick(&core->turn);

        if (r < 0)
                journal_line(3, "core: what is due of the CA could not be done: %s", strerror(-r));
}

int core_authority_before_commit(struct core *core) {
        int r = authority_crls_write(&core->turn);

        if (r >= 0 || store_error_passes(r))
                return r;
        /* The revocations stand without it; what is wrong with the store shows at the commit. */
        journal_line(3, "core: a CRL could not be made: %s", strerror(-r));
        return 0;
}

/* ---- the folder ---- */

static int folder_of(const struct core *core, char to[PATH_MAX]) {
        char runtime[PATH_MAX];

        path_folder(core->config->control_path, runtime, sizeof runtime);
        return snprintf(to, PATH_MAX, "%s/crl", runtime) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int core_authority_folder(const struct core *core, char to[PATH_MAX], struct problem *problem) {
        struct stat status;
        int r = folder_of(core, to);

        if (r < 0)
                return problem_set(problem, 0, -r, "CRLs", "the control socket's path is too long");
        if (mkdir(to, 0755) < 0 && errno != EEXIST)
                return problem_set(problem, 0, errno, "CRLs", "%s: %s", to, strerror(errno));
        if (lstat(to, &status) < 0 || !S_ISDIR(status.st_mode))
                return problem_set(problem, 0, ENOTDIR, "CRLs", "%s is no folder", to);
        /* Whatever the umask: what is in it is for everybody. */
        if (chmod(to, 0755) < 0)
                return problem_set(problem, 0, errno, "CRLs", "%s: %s", to, strerror(errno));
        return 0;
}

static int write_all(int fd, struct bytes bytes) {
        while (bytes.size > 0) {
                ssize_t n = write(fd, bytes.data, bytes.size);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0)
                        bytes = BYTES(bytes.data + n, bytes.size - (size_t)n);
        }
        return 0;
}

/* Renamed into place: whoever reads it finds the old or the new one whole. */
static int replace_file(int folder, uint32_t generation, struct bytes der) {
        char name[32], fresh[32];
        int fd, r;

        snprintf(name, sizeof name, "%u.crl", generation);
        snprintf(fresh, sizeof fresh, "%u.crl.new", generation);
        fd = openat(folder, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (fd < 0)
                return -errno;
        r = fchmod(fd, 0644) < 0 ? -errno : write_all(fd, der);
        close(fd);
        if (r >= 0 && renameat(folder, fresh, folder, name) < 0)
                r = -errno;
        if (r < 0)
                (void)unlinkat(folder, fresh, 0);
        return r;
}

/* The generation whose CRL a file holds; 0: none. */
static uint32_t generation_of(const char *name) {
        char *end;
        unsigned long number = strtoul(name, &end, 10);

        return end != name && strcmp(end, ".crl") == 0 && number < UINT32_MAX ? (uint32_t)number : 0;
}

/* Takes over `folder`. */
static void remove_ended(struct core *core, int folder) {
        DIR *list = fdopendir(folder);

        if (!list) {
                close(folder);
                return;
        }
        for (const struct dirent *entry = readdir(list); entry; entry = readdir(list)) {
                uint32_t generation = generation_of(entry->d_name);

                if (generation > 0 && !authority_is_in_force(&core->turn, generation))
                        (void)unlinkat(folder, entry->d_name, 0); /* left over, it does no harm */
        }
        closedir(list);
}

static int publish_all(struct core *core, int folder) {
        struct authority list[AUTHORITIES_MAX];
        ssize_t n = authority_list(core->store, list, AUTHORITIES_MAX);
        int first = 0;

        for (ssize_t i = 0; i < n; i++) {
                _cleanup_(buffer_free) struct buffer der = { 0 };
                int r = authority_crl(&core->turn, list[i].generation, &der);

                if (r >= 0)
                        r = replace_file(folder, list[i].generation, buffer_bytes(&der));
                if (r < 0 && r != -ENOENT && first == 0)
                        first = r;
        }
        return n < 0 ? (int)n : first;
}

void core_authority_publish(struct core *core) {
        bool is_turn_mine = !core->is_turn_open;
        char path[PATH_MAX];
        int folder, r = folder_of(core, path);

        folder = r < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (folder < 0) {
                journal_line(3, "core: the CRLs cannot be published in %s: %s", path, strerror(r < 0 ? -r : errno));
                return;
        }
        if (is_turn_mine)
                core_begin(core, "core");
        r = publish_all(core, folder);
        if (r < 0)
                journal_line(3, "core: a CRL could not be published in %s: %s", path, strerror(-r));
        remove_ended(core, folder);
        if (is_turn_mine)
                (void)core_end(core); /* changed nothing */
}

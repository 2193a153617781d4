/* SPDX-License-Identifier: Apache-2.0 */

/* The places of a sealing key: a file beside the store, or an encrypted credential of systemd, which systemd-creds
 * opens and closes. Nothing is written over: the new one lies beside, and takes the place by its name. */

#include "gatewayd/operator/gatewayctl_sealing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "gatewayd/crash_point.h"
#include "gatewayd/operator/gatewayctl_client.h"
#include "gatewayd/sealing.h"

#define CONTENT_MAX (64 * 1024)

static int failed(const char *path, int error) {
        complain("%s: %s", path, strerror(error));
        return -error;
}

/* Secrets are in it: it is wiped as a whole. */
static void content_wipe(struct buffer *content) {
        if (content->data)
                OPENSSL_cleanse(content->data, content->capacity);
        buffer_free(content);
}

/* To the end; the room is there before, so that no copy of a secret is left behind by its growing. */
static int read_all(int fd, struct buffer *to) {
        ssize_t n;

        (void)buffer_reserve(to, CONTENT_MAX);
        while ((n = read(fd, to->data + to->size, CONTENT_MAX - to->size)) > 0)
                to->size += (size_t)n;
        if (n < 0)
                return -errno;
        return to->size == CONTENT_MAX ? -EFBIG : 0;
}

static int write_all(int fd, struct bytes from) {
        while (from.size > 0) {
                ssize_t n = write(fd, from.data, from.size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                from = BYTES(from.data + n, from.size - (size_t)n);
        }
        return 0;
}

/* ---- systemd-creds ---- */

static _Noreturn void become(char *const arguments[], int in, int out) {
        if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
                _exit(127);
        execvp(arguments[0], arguments);
        _exit(127);
}

/* What it wants to say it says itself, on standard error. */
static int run_creds(char *const arguments[], struct bytes input, struct buffer *output) {
        int in[2] = { -1, -1 }, out[2] = { -1, -1 }, status = 0, r = 0;
        pid_t pid;

        if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
                return failed("pipe", errno);
        pid = fork();
        if (pid == 0)
                become(arguments, in[0], out[1]);
        close(in[0]);
        close(out[1]);
        if (pid < 0)
                r = failed("fork", errno);
        /* It reads all before it writes, and a credential is smaller than a pipe's room. */
        if (r == 0)
                r = write_all(in[1], input);
        close(in[1]);
        if (r == 0)
                r = read_all(out[0], output);
        close(out[0]);
        if (pid > 0 && waitpid(pid, &status, 0) != pid)
                r = r < 0 ? r : -errno;
        else if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
                r = failed(arguments[0], ENOENT);
        else if (r == 0 && status != 0) {
                complain("%s %s failed", arguments[0], arguments[1]);
                r = -EIO;
        }
        return r;
}

static int decrypt(struct bytes content, struct buffer *output) {
        char *arguments[] = { (char *)"systemd-creds",
                              (char *)"decrypt",
                              (char *)"--name=" SEALING_CREDENTIAL,
                              (char *)"-",
                              (char *)"-",
                              NULL };

        return run_creds(arguments, content, output);
}

static int encrypt(const struct sealing_place *place, struct bytes key, struct buffer *output) {
        char with_key[128];
        char *arguments[] = { (char *)"systemd-creds",
                              (char *)"encrypt",
                              (char *)"--name=" SEALING_CREDENTIAL,
                              (char *)"-",
                              (char *)"-",
                              NULL,
                              NULL };

        if (place->with_key) {
                if (snprintf(with_key, sizeof with_key, "--with-key=%s", place->with_key) >= (int)sizeof with_key)
                        return failed("--with-key", EINVAL);
                arguments[3] = with_key;
                arguments[4] = arguments[5] = (char *)"-";
        }
        return run_creds(arguments, key, output);
}

/* ---- reading ---- */

static int parse(const struct buffer *content, const char *path, struct secret *ret) {
        struct problem problem = { 0 };
        int r = sealing_key_read(buffer_bytes(content), ret, path, &problem);

        if (r < 0)
                complain("%s", problem.detail);
        return r;
}

int sealing_place_read(const struct sealing_place *place, const char *path, struct secret *ret) {
        _cleanup_(content_wipe) struct buffer content = { 0 }, key = { 0 };
        int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r;

        if (fd < 0)
                return errno == ENOENT ? -ENOENT : failed(path, errno);
        r = read_all(fd, &content);
        close(fd);
        if (r < 0)
                return failed(path, -r);
        if (!place->is_credential)
                return parse(&content, path, ret);
        r = decrypt(buffer_bytes(&content), &key);
        return r < 0 ? r : parse(&key, path, ret);
}

/* ---- writing ---- */

int sealing_place_new_path(const struct sealing_place *place, char *to) {
        return snprintf(to, PATH_MAX, "%s.new", place->path) < PATH_MAX ? 0 : failed(place->path, ENAMETOOLONG);
}

static int sync_folder(const char *path) {
        char folder[PATH_MAX];
        char *slash;
        int fd, r;

        snprintf(folder, sizeof folder, "%s", path);
        slash = strrchr(folder, '/');
        if (slash)
                slash[slash == folder] = 0;
        fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return failed(folder, errno);
        r = fsync(fd) < 0 ? failed(folder, errno) : 0;
        close(fd);
        return r;
}

/* Who could read the one before can read this one, and nobody else at any moment. */
static int write_file(const struct sealing_place *place, const char *path, struct bytes content) {
        struct stat before;
        int fd, r = 0;

        if (stat(place->path, &before) < 0)
                return failed(place->path, errno);
        if (unlink(path) < 0 && errno != ENOENT)
                return failed(path, errno);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return failed(path, errno);
        crash_point("sealing key: an empty file");
        if (fchown(fd, before.st_uid, before.st_gid) < 0 || fchmod(fd, before.st_mode & 0600) < 0)
                r = -errno;
        if (r == 0)
                r = write_all(fd, content);
        crash_point("sealing key: not synced");
        if (r == 0 && fsync(fd) < 0)
                r = -errno;
        close(fd);
        crash_point("sealing key: its folder not synced");
        if (r == 0)
                return sync_folder(path);
        (void)unlink(path);
        return failed(path, -r);
}

int sealing_place_write_new(const struct sealing_place *place, const struct secret *key) {
        _cleanup_(content_wipe) struct buffer content = { 0 };
        char path[PATH_MAX];
        int r = sealing_place_new_path(place, path);

        if (r < 0)
                return r;
        if (!place->is_credential)
                return write_file(place, path, secret_bytes(key));
        r = encrypt(place, secret_bytes(key), &content);
        return r < 0 ? r : write_file(place, path, buffer_bytes(&content));
}

int sealing_place_put_new(const struct sealing_place *place) {
        char path[PATH_MAX];
        int r = sealing_place_new_path(place, path);

        if (r < 0)
                return r;
        crash_point("sealing key: not in its place");
        if (rename(path, place->path) < 0)
                return failed(path, errno);
        crash_point("sealing key: its place not synced");
        return sync_folder(place->path);
}

void sealing_place_drop_new(const struct sealing_place *place) {
        char path[PATH_MAX];

        if (sealing_place_new_path(place, path) == 0)
                (void)unlink(path);
}

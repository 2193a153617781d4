/* SPDX-License-Identifier: Apache-2.0 */

/* Landlock: which files, TCP ports and processes a role still reaches. Everything the kernel's ABI
 * knows is restricted, and only what stands here is allowed again.
 *
 * The supervisor's domain is inherited by the roles. It is what any of them needs for its set-up: read
 * everything, write below the store's and the control socket's folder, execute gatewayd itself and the
 * loader it names, and nothing else. */

#include "gatewayd/sandbox_parts.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's interface up to ABI 7, in names of our own: Debian 12's <linux/landlock.h> ends at
 * ABI 2, and what runs may be newer than what was built. */
struct ruleset {
        uint64_t files;  /* ABI 1 */
        uint64_t net;    /* ABI 4 */
        uint64_t scoped; /* ABI 6 */
};

struct path_rule {
        uint64_t allowed;
        int32_t parent;
} __attribute__((packed));

struct port_rule {
        uint64_t allowed;
        uint64_t port;
};

enum { ASK_VERSION = 1 };
enum { RULE_PATH_BENEATH = 1, RULE_NET_PORT = 2 };
enum {
        FILE_EXECUTE = 1 << 0,
        FILE_WRITE = 1 << 1,
        FILE_READ = 1 << 2,
        FILE_READ_DIR = 1 << 3,
        FILE_REMOVE_DIR = 1 << 4,
        FILE_REMOVE = 1 << 5,
        FILE_MAKE_DIR = 1 << 7,
        FILE_MAKE_REGULAR = 1 << 8,
        FILE_MAKE_SOCKET = 1 << 9,
        FILE_REFER = 1 << 13,     /* ABI 2 */
        FILE_TRUNCATE = 1 << 14,  /* ABI 3 */
        FILE_IOCTL_DEV = 1 << 15, /* ABI 5 */
        FILE_ALL_ABI_1 = (1 << 13) - 1,
};
enum { NET_BIND_TCP = 1 << 0, NET_CONNECT_TCP = 1 << 1 };
enum { SCOPE_ABSTRACT_UNIX = 1 << 0, SCOPE_SIGNAL = 1 << 1 };

/* What a rule on something that is not a folder may hold. */
#define FILE_ON_FILES (FILE_EXECUTE | FILE_WRITE | FILE_READ | FILE_TRUNCATE | FILE_IOCTL_DEV)
#define FILE_CHANGE   (FILE_READ | FILE_READ_DIR | FILE_WRITE | FILE_TRUNCATE | FILE_REMOVE | FILE_MAKE_REGULAR)

enum presence { OPTIONAL, NEEDED };

struct wall {
        int fd;
        struct ruleset handled;
        struct problem *problem;
};

int landlock_abi(void) {
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, ASK_VERSION);

        return abi > 0 ? (int)abi : 0;
}

static struct ruleset handled_by(int abi, enum role role) {
        struct ruleset handled = { .files = FILE_ALL_ABI_1 };
        const char *notify = getenv("NOTIFY_SOCKET");

        if (abi >= 2)
                handled.files |= FILE_REFER;
        if (abi >= 3)
                handled.files |= FILE_TRUNCATE;
        if (abi >= 5)
                handled.files |= FILE_IOCTL_DEV;
        /* North connects, nobody listens on TCP; the supervisor's domain is north's too. */
        if (abi >= 4)
                handled.net = NET_BIND_TCP | (role == ROLE_SUPERVISOR ? 0 : NET_CONNECT_TCP);
        if (abi >= 6) {
                handled.scoped = SCOPE_SIGNAL;
                /* A service manager in a container may listen on an abstract socket. */
                if (role != ROLE_SUPERVISOR || !notify || notify[0] != '@')
                        handled.scoped |= SCOPE_ABSTRACT_UNIX;
        }
        return handled;
}

/* Allows `allowed` at and below `path`. Where that is optional, what does not exist needs no rule. */
static int allow_path(struct wall *wall, const char *path, uint64_t allowed, enum presence presence) {
        struct path_rule rule = { .allowed = allowed & wall->handled.files };
        struct stat status;
        int r = 0;

        rule.parent = open(path, O_PATH | O_CLOEXEC);
        if (rule.parent < 0 && presence == OPTIONAL && (errno == ENOENT || errno == ENOTDIR))
                return 0;
        if (rule.parent < 0 || fstat(rule.parent, &status) < 0)
                r = -errno;
        else if (!S_ISDIR(status.st_mode))
                rule.allowed &= FILE_ON_FILES;
        if (r == 0 && rule.allowed != 0 && syscall(SYS_landlock_add_rule, wall->fd, RULE_PATH_BENEATH, &rule, 0) < 0)
                r = -errno;
        if (rule.parent >= 0)
                close(rule.parent);
        if (r < 0)
                return problem_set(wall->problem, 0, -r, "sandbox", "Landlock rule for %s: %s", path, strerror(-r));
        return 0;
}

static int allow_port(struct wall *wall, uint16_t port) {
        struct port_rule rule = { .allowed = NET_CONNECT_TCP, .port = port };

        if (!(wall->handled.net & NET_CONNECT_TCP))
                return 0;
        if (syscall(SYS_landlock_add_rule, wall->fd, RULE_NET_PORT, &rule, 0) < 0)
                return problem_set(wall->problem, 0, errno, "sandbox", "Landlock rule for TCP port %u: %s", port,
                                   strerror(errno));
        return 0;
}

static int allow_paths(struct wall *wall, const char *const *paths, size_t count, uint64_t allowed) {
        int r = 0;

        for (size_t i = 0; i < count && r >= 0; i++)
                r = allow_path(wall, paths[i], allowed, OPTIONAL);
        return r;
}

/* The loader that the kernel starts for this executable (PT_INTERP): it must be executable too. */
static int find_loader(struct dl_phdr_info *info, size_t size, void *userdata) {
        const char **loader = userdata;

        (void)size;
        for (size_t i = 0; i < info->dlpi_phnum; i++)
                if (info->dlpi_phdr[i].p_type == PT_INTERP)
                        /* NOLINTNEXTLINE(performance-no-int-to-ptr): the ELF header has a number */
                        *loader = (const char *)(uintptr_t)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        return 1; /* the executable comes first; its libraries name no loader */
}

/* The rule is on its folder: an upgrade of libc replaces the file, and a role must still start. */
static int allow_loader(struct wall *wall) {
        _cleanup_(freep) char *path = NULL;
        const char *loader = NULL;
        char *end;

        dl_iterate_phdr(find_loader, &loader);
        if (!loader)
                return 0; /* linked statically */
        path = realpath(loader, NULL);
        end = path ? strrchr(path, '/') : NULL;
        if (!end)
                return problem_set(wall->problem, 0, ENOENT, "sandbox", "the loader %s is not there", loader);
        *end = 0;
        return allow_path(wall, path, FILE_EXECUTE, NEEDED);
}

/* A token's folder holds files that its module locks, writes and replaces; a TPM's device is written and read. */
static int allow_keys(struct wall *wall, const struct sandbox_paths *paths) {
        int r = 0;

        for (size_t i = 0; i < paths->key_count && r >= 0; i++)
                r = allow_path(wall, paths->keys[i], FILE_CHANGE | FILE_IOCTL_DEV, OPTIONAL);
        return r;
}

static int allow_supervisor(struct wall *wall, const struct sandbox_paths *paths) {
        int r;

        r = allow_path(wall, "/", FILE_READ | FILE_READ_DIR, NEEDED);
        if (r >= 0 && paths->store)
                r = allow_path(wall, paths->store, FILE_CHANGE, NEEDED);
        if (r >= 0 && paths->runtime)
                r = allow_path(wall, paths->runtime, FILE_CHANGE | FILE_MAKE_SOCKET | FILE_MAKE_DIR, NEEDED);
        if (r >= 0)
                r = allow_keys(wall, paths);
        if (r >= 0)
                r = allow_path(wall, "/dev/null", FILE_WRITE, OPTIONAL);
        if (r >= 0)
                r = allow_path(wall, "/proc/self/exe", FILE_EXECUTE, NEEDED);
        if (r >= 0)
                r = allow_loader(wall);
        return r;
}

static int allow_core(struct wall *wall, const struct sandbox_paths *paths) {
        int r = 0;

        if (paths->store)
                r = allow_path(wall, paths->store, FILE_CHANGE, NEEDED);
        /* For reload; the default gateway id comes from the machine id. */
        if (r >= 0 && paths->configuration)
                r = allow_path(wall, paths->configuration, FILE_READ | FILE_READ_DIR, NEEDED);
        if (r >= 0)
                r = allow_path(wall, "/etc/machine-id", FILE_READ, OPTIONAL);
        if (r >= 0 && paths->crl)
                r = allow_path(wall, paths->crl, FILE_CHANGE, NEEDED);
        if (r >= 0)
                r = allow_keys(wall, paths);
        return r;
}

/* Resolving names needs /etc/resolv.conf, hosts, nsswitch.conf, gai.conf. Network managers replace them
 * by rename, and a rule holds on to the file it was made for: so the rule is on the folder, and on the
 * one that resolv.conf points into. Modules of the name service are loaded at first use. */
static int allow_north(struct wall *wall, const struct sandbox_paths *paths) {
        static const char *const readable[] = {
                "/etc",
                "/usr/share/ca-certificates",
                "/usr/local/share/ca-certificates",
                "/lib",
                "/usr/lib",
                "/lib64",
                "/usr/lib64",
        };
        _cleanup_(freep) char *resolver = realpath("/etc/resolv.conf", NULL);
        char *end = resolver ? strrchr(resolver, '/') : NULL;
        int r;

        r = allow_paths(wall, readable, ELEMENTS(readable), FILE_READ);
        if (r >= 0 && end && end != resolver && strncmp(resolver, "/run/", 5) == 0) {
                *end = 0;
                r = allow_path(wall, resolver, FILE_READ, OPTIONAL);
        }
        if (r >= 0 && paths->upstream_port != 0)
                r = allow_port(wall, paths->upstream_port);
        if (r >= 0 && paths->est_port != 0)
                r = allow_port(wall, paths->est_port);
        if (r >= 0 && (paths->upstream_port != 0 || paths->est_port != 0))
                r = allow_port(wall, 53);
        return r;
}

static int allow_role(struct wall *wall, enum role role, const struct sandbox_paths *paths) {
#ifdef GATEWAYD_WIDE_SANDBOX
        /* A sanitizer's or coverage's runtime reads and writes files of its own at the end. */
        if (allow_path(wall, "/", UINT64_MAX, NEEDED) < 0)
                return -EPERM;
#endif
        switch (role) {
        case ROLE_SUPERVISOR:
                return allow_supervisor(wall, paths);
        case ROLE_CORE:
                return allow_core(wall, paths);
        case ROLE_NORTH:
                return allow_north(wall, paths);
        case ROLE_SOUTH:
                return 0; /* nothing at all */
        }
        return -EINVAL;
}

int landlock_enter(enum role role, const struct sandbox_paths *paths, int abi, struct problem *problem) {
        struct wall wall = { .handled = handled_by(abi, role), .problem = problem };
        int r;

        if (role == ROLE_NORTH && paths->upstream_port == 0 && paths->est_port == 0)
                wall.handled.net &= ~(uint64_t)NET_CONNECT_TCP;
        wall.fd = (int)syscall(SYS_landlock_create_ruleset, &wall.handled,
                               abi >= 6   ? sizeof wall.handled
                               : abi >= 4 ? offsetof(struct ruleset, scoped)
                                          : offsetof(struct ruleset, net),
                               0);
        if (wall.fd < 0)
                return problem_set(problem, 0, errno, "sandbox", "Landlock ruleset: %s", strerror(errno));
        r = allow_role(&wall, role, paths);
        if (r >= 0 && syscall(SYS_landlock_restrict_self, wall.fd, 0) < 0)
                r = problem_set(problem, 0, errno, "sandbox", "Landlock: %s", strerror(errno));
        close(wall.fd);
        return r;
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Which system calls a role still makes once it is set up. The lists were worked out from the libraries
 * in use and by tracing them; each group says what it is for. Loading them: sandbox_seccomp.c. */

#include "gatewayd/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>
#include <seccomp.h>

static void add(struct filter *filter, uint32_t action, const char *name, unsigned count,
                const struct scmp_arg_cmp *arguments) {
        int number = seccomp_syscall_resolve_name(name), r;

        /* Unknown to this libseccomp, or to this architecture. */
        if (number == __NR_SCMP_ERROR || filter->error < 0)
                return;
        r = seccomp_rule_add_array(filter->context, action, number, count, arguments);
        if (r < 0 && r != -EEXIST && r != -EDOM && r != -EACCES)
                filter->error = r;
}

#ifdef GATEWAYD_WIDE_SANDBOX

/* What a sanitizer's or coverage's runtime does at the end of a process is its own affair: here all is
 * allowed but what stands in the way of every role's main promise. */
void filter_fill(struct filter *filter, enum role role) {
        static const char *const programs[] = { "execve", "execveat" };

        if (role == ROLE_SUPERVISOR)
                return;
        for (size_t i = 0; i < ELEMENTS(programs); i++)
                add(filter, SCMP_ACT_TRAP, programs[i], 0, NULL);
        if (role == ROLE_NORTH)
                return;
        for (uint32_t family = AF_INET; family <= AF_INET6; family += AF_INET6 - AF_INET) {
                struct scmp_arg_cmp same = SCMP_A0_32(SCMP_CMP_EQ, family);

                add(filter, SCMP_ACT_TRAP, "socket", 1, &same);
        }
}

#else

/* Lists read better as paragraphs. */
/* clang-format off */

/* Descriptors that are open already, time, memory, threads' bookkeeping, the event loop. */
static const char *const basic_calls[] = {
        "read", "readv", "write", "writev", "close", "lseek", "_llseek", "fstat", "fstat64", "dup", "fcntl", "fcntl64",
        "brk", "munmap", "mremap", "madvise", "mlock", "mlock2", "munlock",
        "clock_gettime", "clock_gettime64", "clock_getres", "clock_getres_time64", "gettimeofday", "time",
        "clock_nanosleep", "clock_nanosleep_time64", "nanosleep",
        "futex", "futex_time64", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "getcpu",
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "restart_syscall",
        "exit", "exit_group", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid",
        "getuid32", "geteuid32", "getgid32", "getegid32", "uname", "sysinfo", "getrandom",
        "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
        "poll", "ppoll", "ppoll_time64", "select", "pselect6", "_newselect", "pselect6_time64",
        "timerfd_create", "timerfd_settime", "timerfd_settime64", "timerfd_gettime", "timerfd_gettime64",
        "eventfd2", "signalfd4", "pipe2",
        "arm_fadvise64_64", "cacheflush", "riscv_flush_icache",
        NULL,
};

/* Sockets that are open already. */
static const char *const message_calls[] = {
        "recv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "send", "sendto", "sendmsg", "sendmmsg",
        "getsockname", "getpeername", "getsockopt", "shutdown",
        NULL,
};

static const char *const file_read_calls[] = {
        "open", "openat", "access", "faccessat", "faccessat2", "stat", "stat64", "lstat", "lstat64", "newfstatat",
        "fstatat64", "statx", "readlink", "readlinkat", "getcwd", "getdents", "getdents64", "pread64", "preadv",
        "fadvise64", "fadvise64_64", "statfs", "statfs64", "fstatfs", "fstatfs64",
        NULL,
};

/* SQLite's: it writes in place, truncates, locks, and removes its journals. */
static const char *const file_write_calls[] = {
        "pwrite64", "pwritev", "fsync", "fdatasync", "ftruncate", "ftruncate64", "fallocate", "unlink", "unlinkat",
        "fchmod", "fchown", "fchown32", "flock", "rename", "renameat", "renameat2", "umask",
        NULL,
};

/* New connections, to addresses that the socket's family allows. */
static const char *const connect_calls[] = { "connect", "setsockopt", "socketpair", NULL };
static const char *const accept_calls[] = { "accept", "accept4", "setsockopt", "connect", "getgroups", "getgroups32",
                                            NULL };

/* Resolving names: a netlink socket is bound to ask for our own addresses. */
static const char *const resolver_calls[] = { "bind", "getgroups", "getgroups32", NULL };

/* The kernel's word on the clock's quality; changing it needs a capability that nobody here has. */
static const char *const clock_calls[] = { "adjtimex", "clock_adjtime", "clock_adjtime64", NULL };

/* Starting the roles, and what a role does before its own filter is in place. */
static const char *const setup_calls[] = {
        "execve", "execveat", "fork", "vfork", "wait4", "waitpid", "waitid", "kill", "pidfd_open", "pidfd_send_signal", "setsid",
        "setpgid", "getpgid", "getpgrp", "getsid", "dup2", "dup3", "pipe", "close_range", "chdir", "fchdir",
        "arch_prctl", "set_tid_address", "set_tls", "set_thread_area", "get_thread_area", "get_robust_list",
        "prctl", "seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
        "prlimit64", "setrlimit", "getrlimit", "ugetrlimit", "getrusage", "capget", "times", "alarm", "setitimer",
        "getitimer", "mprotect", "mmap", "mmap2", "membarrier", "get_mempolicy", "sched_getparam",
        "sched_getscheduler", "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min", "getpriority",
        "getresuid", "getresgid", "getresuid32", "getresgid32", "tgkill", "tkill", "rt_sigpending", "rt_sigsuspend",
        "rt_sigtimedwait", "rt_sigtimedwait_time64", "bind", "listen", "mkdir", "mkdirat", "rmdir", "chmod",
        "fchmodat", "fchownat", "chown", "chown32", "lchown", "link", "linkat", "symlink", "symlinkat", "truncate",
        "truncate64", "utimensat", "utimensat_time64", "sync_file_range", "copy_file_range", "sendfile", "sendfile64", "memfd_create", "ioctl", "inotify_init1",
        "inotify_add_watch", "inotify_rm_watch", "mlockall", "munlockall", "mincore", "msync", "getxattr",
        "fgetxattr", "lgetxattr", "name_to_handle_at", "sched_setaffinity", "eventfd", "epoll_create",
        "timer_create", "timer_settime", "timer_delete", "readahead",
        NULL,
};
/* clang-format on */

static void allow(struct filter *filter, const char *const *names) {
        for (; *names; names++)
                add(filter, SCMP_ACT_ALLOW, *names, 0, NULL);
}

static void allow_if(struct filter *filter, const char *name, struct scmp_arg_cmp argument) {
        add(filter, SCMP_ACT_ALLOW, name, 1, &argument);
}

static void allow_family(struct filter *filter, int family) {
        allow_if(filter, "socket", SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)family));
}

/* Memory that is never both written and executed. What a module of the name service needs to be loaded
 * is a mapping of a file, and Landlock says of which. */
static void allow_memory(struct filter *filter, bool may_load_code) {
        static const char *const calls[] = { "mmap", "mmap2" };

        for (size_t i = 0; i < ELEMENTS(calls); i++) {
                allow_if(filter, calls[i], SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
                if (may_load_code) {
                        struct scmp_arg_cmp file[] = {
                                SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC),
                                SCMP_A3_32(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, 0),
                        };

                        add(filter, SCMP_ACT_ALLOW, calls[i], ELEMENTS(file), file);
                }
        }
        allow_if(filter, "mprotect", SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/* abort() and raise() signal the own process; limits may be read; a thread may have a name. */
static void allow_own_affairs(struct filter *filter) {
        static const int options[] = { PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, 0x53564d41 /* PR_SET_VMA */ };

        allow_if(filter, "tgkill", SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)getpid()));
        allow_if(filter, "prlimit64", SCMP_A2(SCMP_CMP_EQ, 0));
        add(filter, SCMP_ACT_ALLOW, "getrlimit", 0, NULL);
        add(filter, SCMP_ACT_ALLOW, "ugetrlimit", 0, NULL);
        for (size_t i = 0; i < ELEMENTS(options); i++)
                allow_if(filter, "prctl", SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)options[i]));
        allow_if(filter, "ioctl", SCMP_A1_32(SCMP_CMP_EQ, FIONREAD));
        allow_if(filter, "ioctl", SCMP_A1_32(SCMP_CMP_EQ, FIONBIO));
        allow_if(filter, "ioctl", SCMP_A1_32(SCMP_CMP_EQ, TCGETS)); /* stdio asks whether it writes to a terminal */
        /* libc's fstat(). */
        allow_if(filter, "newfstatat", SCMP_A3_32(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
        allow_if(filter, "statx", SCMP_A2_32(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
}

/* Threads, not processes. libc tries clone3 first, whose arguments no filter can see; its signals are
 * blocked meanwhile, so the refusal must not be a trap. */
static void allow_threads(struct filter *filter) {
        allow_if(filter, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
}

static void allow_processes(struct filter *filter) {
        const uint64_t namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                    CLONE_NEWPID | CLONE_NEWNET;

        allow_if(filter, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, namespaces, 0));
}

static void fill_south(struct filter *filter) {
        allow_memory(filter, false);
        allow_own_affairs(filter);
}

static void fill_core(struct filter *filter) {
        allow_memory(filter, false);
        allow_own_affairs(filter);
        allow_threads(filter);
        allow(filter, file_read_calls);
        allow(filter, file_write_calls);
        allow(filter, accept_calls);
        allow(filter, clock_calls);
        allow_family(filter, AF_UNIX);
}

static void fill_north(struct filter *filter) {
        const struct scmp_arg_cmp route[] = {
                SCMP_A0_32(SCMP_CMP_EQ, AF_NETLINK),
                SCMP_A2_32(SCMP_CMP_EQ, NETLINK_ROUTE),
        };

        allow_memory(filter, true);
        allow_own_affairs(filter);
        allow_threads(filter);
        allow(filter, file_read_calls);
        allow(filter, connect_calls);
        allow(filter, resolver_calls);
        allow_family(filter, AF_UNIX);
        allow_family(filter, AF_INET);
        allow_family(filter, AF_INET6);
        add(filter, SCMP_ACT_ALLOW, "socket", ELEMENTS(route), route);
}

static void fill_supervisor(struct filter *filter) {
        static const int families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };

        allow(filter, setup_calls);
        allow(filter, file_read_calls);
        allow(filter, file_write_calls);
        allow(filter, connect_calls);
        allow(filter, accept_calls);
        allow(filter, clock_calls);
        allow_processes(filter);
        for (size_t i = 0; i < ELEMENTS(families); i++)
                allow_family(filter, families[i]);
}

void filter_fill(struct filter *filter, enum role role) {
        allow(filter, basic_calls);
        allow(filter, message_calls);
        switch (role) {
        case ROLE_SUPERVISOR:
                fill_supervisor(filter);
                return;
        case ROLE_CORE:
                fill_core(filter);
                break;
        case ROLE_SOUTH:
                fill_south(filter);
                break;
        case ROLE_NORTH:
                fill_north(filter);
                break;
        }
        add(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
}

#endif

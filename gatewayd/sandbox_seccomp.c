/* SPDX-License-Identifier: Apache-2.0 */

/* Seccomp: loads a role's list of system calls (sandbox_calls.c) and answers what is not on it.
 *
 * core, south and north: it traps, is counted, and fails with ENOSYS. The supervisor's filter outlives
 * exec while a signal handler does not, so there it fails with ENOSYS without a trap. */

#include "gatewayd/sandbox_parts.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <seccomp.h>

/* A signal handler has nobody to hand it its state: so this is the process's own, atomic, and written by
 * the handler alone. Numbers past the bitmap share its last bit. */
#define CALLS_MAX 1024
static atomic_uint refused[CALLS_MAX / 32];
static atomic_uint taken[CALLS_MAX / 32];
static atomic_uint_fast64_t refused_count;
static char refused_line[64] = "gatewayd: refused system call ";
static size_t refused_line_size;

static void answer_enosys(void *context) {
        ucontext_t *at = context;

#if defined(__x86_64__)
        at->uc_mcontext.gregs[REG_RAX] = -ENOSYS;
#elif defined(__aarch64__)
        at->uc_mcontext.regs[0] = (uint64_t)-ENOSYS;
#elif defined(__arm__)
        at->uc_mcontext.arm_r0 = (unsigned long)-ENOSYS;
#elif defined(__riscv)
        at->uc_mcontext.__gregs[REG_A0] = (unsigned long)-ENOSYS;
#else
        _Static_assert(sizeof(ucontext_t) == 0, "say here which register holds the result of a system call");
#endif
}

/* Async-signal-safe: one line for each system call number, by write(2) alone. */
static void say_refused(unsigned number) {
        char line[sizeof refused_line + 12];
        char digits[10];
        size_t size = refused_line_size, count = 0;

        memcpy(line, refused_line, size);
        do
                digits[count++] = (char)('0' + number % 10);
        while ((number /= 10) > 0);
        while (count > 0)
                line[size++] = digits[--count];
        line[size++] = '\n';
        (void)!write(STDERR_FILENO, line, size); /* there is nowhere to say that this failed */
}

static void on_sigsys(int signal, siginfo_t *info, void *context) {
        int saved_errno = errno;
        unsigned number = (unsigned)info->si_syscall;
        unsigned bit = number < CALLS_MAX ? number : CALLS_MAX - 1;

        (void)signal;
        if (info->si_code != 1 /* SYS_SECCOMP */)
                return;
        atomic_fetch_add(&refused_count, 1);
        if (!(atomic_fetch_or(&refused[bit / 32], 1u << bit % 32) & 1u << bit % 32))
                say_refused(number);
        answer_enosys(context);
        errno = saved_errno;
}

uint64_t sandbox_violations(void) {
        return atomic_load(&refused_count);
}

int sandbox_violation_take(char *name, size_t name_size) {
        for (unsigned word = 0; word < ELEMENTS(refused); word++) {
                unsigned fresh = atomic_load(&refused[word]) & ~atomic_load(&taken[word]);
                unsigned bit = (unsigned)__builtin_ctz(fresh | 1u << 31);
                char *known;

                if (fresh == 0)
                        continue;
                atomic_fetch_or(&taken[word], 1u << bit);
                known = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)(word * 32 + bit));
                if (known)
                        snprintf(name, name_size, "%s", known);
                else
                        snprintf(name, name_size, "number %u", word * 32 + bit);
                free(known);
                return 1;
        }
        return 0;
}

static int catch_refusals(enum role role) {
        struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_RESTART };
        sigset_t only;
        int size;

        size = snprintf(refused_line, sizeof refused_line, "gatewayd %s: sandbox refused system call ",
                        role_name(role));
        refused_line_size = (size_t)size;
        sigfillset(&action.sa_mask);
        sigdelset(&action.sa_mask, SIGSYS);
        sigemptyset(&only);
        sigaddset(&only, SIGSYS);
        if (sigaction(SIGSYS, &action, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &only, NULL) < 0)
                return -errno;
        return 0;
}

static uint32_t default_action(enum role role) {
#ifdef GATEWAYD_WIDE_SANDBOX
        (void)role;
        return SCMP_ACT_ALLOW;
#else
        return role == ROLE_SUPERVISOR ? SCMP_ACT_ERRNO(ENOSYS) : SCMP_ACT_TRAP;
#endif
}

int seccomp_enter(enum role role, struct problem *problem) {
        struct filter filter = { .context = seccomp_init(default_action(role)) };
        int r = filter.context ? 0 : -ENOMEM;

        if (r == 0)
                r = seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_TSYNC, 1);
        if (r == 0)
                r = seccomp_attr_set(filter.context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r == 0) {
                /* A tree instead of a chain: south makes a call for every few datagrams. Older
                 * libraries have the chain only. */
                (void)seccomp_attr_set(filter.context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
                filter_fill(&filter, role);
                r = filter.error;
        }
        if (r == 0 && role != ROLE_SUPERVISOR)
                r = catch_refusals(role);
        if (r == 0)
                r = seccomp_load(filter.context);
        if (filter.context)
                seccomp_release(filter.context);
        if (r < 0)
                return problem_set(problem, 0, -r, "sandbox", "seccomp filter of %s: %s", role_name(role),
                                   strerror(-r));
        return 0;
}

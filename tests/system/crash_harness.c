/* SPDX-License-Identifier: Apache-2.0 */

/* Kills core at every point (gatewayd/crash_point.h) of a scenario, one after another, each on a copy of the same
 * store; starts it again, lets device and operator do as they would, and looks at what must hold.
 *
 *   crash_harness BUILD FOLDER SCENARIO [--pairs N] [--only POINT] [--jobs N]
 *
 * BUILD has the test-clock build of gatewayd and gatewayctl; FOLDER is empty and best on a tmpfs. With --pairs core
 * is killed a second time while it recovers, at N points of that for each of the first. Prints
 * "SCENARIO: N points, all held" or what did not hold, and at which point. */

#include <openssl/pem.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/system/crash_world.h"

#define PROFILES                                                                                                       \
        "{ name = \"plain\"; rotate_every = \"30d\"; grace = \"1d\"; },"                                               \
        "{ name = \"attesting\"; rotate_every = \"30d\"; grace = \"1d\"; attestation = \"eat\"; attest_every = "       \
        "\"7d\";"                                                                                                      \
        "  references = ( { swname = \"fw\"; swversion = \"1.2\"; } ); },"                                             \
        "{ name = \"certified\"; credential = \"certificate\"; est_over_psk = true; validity = \"90d\"; }"

#define EXIT_PASSED 10 /* the run ended before the point: there are no more */
#define JOBS_MAX    16
#define PASSED_MAX  4 /* so many in a row end the enumeration: one run may have a tick more than another */

struct plan {
        const struct scenario *scenario;
        const char *build, *folder;
        struct world *base;
        int64_t pairs, only;
        unsigned jobs;
};

/* ---- one run ---- */

/* Core has ended: as it was to, or by itself? */
static void bury(struct world *w) {
        struct gateway *g = &w->g;

        if (g->points[1] == 0 || g->points[0] < g->points[1] || !WIFSIGNALED(g->status) ||
            WTERMSIG(g->status) != SIGKILL)
                gateway_fail(g, "core ended by itself (status %x)", (unsigned)g->status);
        w->crashes++;
        world_check_remains(w);
        g->points[0] = 0;
        g->points[1] = w->pairs;
        w->pairs = 0;
}

static void run_steps(struct world *w, const crash_step *steps) {
        bool is_up = false;

        while (!is_up || *steps) {
                if (!is_up) {
                        is_up = gateway_start(&w->g) == 0 && world_check_grants(w) == 0;
                } else if ((*steps)(w) == 0)
                        steps++;
                if (w->g.is_gone) {
                        bury(w);
                        is_up = false;
                }
        }
        while (gateway_stop(&w->g) < 0) {
                bury(w);
                while (gateway_start(&w->g) < 0)
                        bury(w);
        }
        world_check_store(w);
}

static _Noreturn void run_point(const struct plan *plan, int64_t point, int64_t second) {
        struct world *w = plan->base;
        char base[256];
        int status;

        memcpy(base, w->g.folder, sizeof base);
        snprintf(w->g.folder, sizeof w->g.folder, "%s/%lld-%lld", plan->folder, (long long)point, (long long)second);
        folder_copy(base, w->g.folder);
        gateway_prepare(&w->g, plan->scenario->settings, PROFILES);
        w->g.points[0] = 0;
        w->g.points[1] = point;
        w->pairs = second;
        w->device.forgets = plan->scenario->forgets;
        run_steps(w, plan->scenario->steps);
        folder_remove(w->g.folder);
        status = w->crashes > 0 ? EXIT_SUCCESS : EXIT_PASSED;
        (void)world_free(w);
        exit(status);
}

/* ---- all points ---- */

struct job {
        pid_t pid;
        int64_t point, second;
};

/* Waits for one. Returns its exit status. */
static int take_job(struct job *jobs, size_t *count, struct job *ret) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);

        for (size_t i = 0; i < *count; i++)
                if (jobs[i].pid == pid) {
                        *ret = jobs[i];
                        jobs[i] = jobs[--*count];
                        if (WIFSIGNALED(status))
                                printf("the run was ended by signal %d\n", WTERMSIG(status));
                        return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE;
                }
        return EXIT_FAILURE;
}

static struct job start_job(const struct plan *plan, int64_t point, int64_t second) {
        struct job job = { .point = point, .second = second };

        fflush(NULL);
        job.pid = fork();
        if (job.pid == 0)
                run_point(plan, point, second);
        return job;
}

static bool is_held(const struct plan *plan, const struct job *job, int status) {
        if (status == EXIT_SUCCESS || status == EXIT_PASSED)
                return true;
        printf("%s: point %lld%s%.0lld does not hold; see %s/%lld-%lld/log\n", plan->scenario->name,
               (long long)job->point, job->second ? ", then " : "", (long long)job->second, plan->folder,
               (long long)job->point, (long long)job->second);
        return false;
}

/* Returns how many points there are, or -1. */
static int64_t enumerate(const struct plan *plan) {
        struct job jobs[JOBS_MAX], done = { 0 };
        int64_t point = 1, second = 0, last = 0;
        unsigned passed = 0;
        bool has_failed = false;
        size_t count = 0;

        while (count > 0 || (passed < PASSED_MAX && !has_failed)) {
                while (count < plan->jobs && passed < PASSED_MAX && !has_failed) {
                        jobs[count++] = start_job(plan, point, second);
                        if (second++ == plan->pairs) {
                                point++;
                                second = 0;
                        }
                }
                int status = take_job(jobs, &count, &done);

                has_failed |= !is_held(plan, &done, status);
                if (status == EXIT_PASSED && done.second == 0)
                        passed++;
                else if (status == EXIT_SUCCESS && done.point > last)
                        last = done.point;
        }
        return has_failed ? -1 : last;
}

static struct world *make_base(struct plan *plan) {
        const struct scenario *scenario = plan->scenario;
        struct world *w = xcalloc(1, sizeof *w);
        char path[320];
        FILE *file;

        w->g.build = plan->build;
        w->g.record = world_record;
        w->g.userdata = w;
        snprintf(w->g.folder, sizeof w->g.folder, "%s/base", plan->folder);
        if (mkdir(w->g.folder, 0700) < 0) {
                perror(w->g.folder);
                exit(EXIT_FAILURE);
        }
        gateway_prepare(&w->g, scenario->settings, PROFILES);
        w->device.is_certified = scenario->is_certified;
        snprintf(w->device.model.id, sizeof w->device.model.id, "dev");
        snprintf(w->device.model.factory.identity, sizeof w->device.model.factory.identity, "dev");
        (void)secret_set(&w->device.model.factory.key, TEXT("factory key of dev")); /* short enough */
        w->device.model.failing_since = -1;
        if (scenario->attests) {
                snprintf(path, sizeof path, "%s/attestation.pem", w->g.folder);
                w->device.attestation = EVP_EC_gen("P-256");
                file = fopen(path, "we");
                if (!file || PEM_write_PUBKEY(file, w->device.attestation) != 1 || fclose(file) != 0)
                        gateway_fail(&w->g, "%s", path);
        }
        if (scenario->before[0])
                run_steps(w, scenario->before);
        return w;
}

static const struct scenario *scenario_named(const char *name) {
        for (size_t i = 0; i < scenario_count; i++)
                if (strcmp(scenarios[i].name, name) == 0)
                        return &scenarios[i];
        for (size_t i = 0; i < scenario_count; i++)
                printf("%s\n", scenarios[i].name);
        exit(2);
}

int main(int argc, char **argv) {
        struct plan plan = { .jobs = 2 };
        int64_t points;

        for (int i = 4; i + 1 < argc; i += 2) {
                if (strcmp(argv[i], "--pairs") == 0)
                        plan.pairs = atoll(argv[i + 1]);
                else if (strcmp(argv[i], "--only") == 0)
                        plan.only = atoll(argv[i + 1]);
                else if (strcmp(argv[i], "--jobs") == 0)
                        plan.jobs = (unsigned)atoi(argv[i + 1]);
        }
        if (plan.jobs < 1 || plan.jobs > JOBS_MAX)
                plan.jobs = 1;
        plan.scenario = scenario_named(argc > 3 ? argv[3] : "");
        plan.build = argv[1];
        plan.folder = argv[2];
        plan.base = make_base(&plan);
        if (plan.only > 0)
                run_point(&plan, plan.only, plan.pairs);
        points = enumerate(&plan);
        if (points >= 0) {
                printf("%s: %lld points, all held\n", plan.scenario->name, (long long)points);
                folder_remove(plan.base->g.folder);
        }
        (void)world_free(plan.base);
        return points >= 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

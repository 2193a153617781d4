/* SPDX-License-Identifier: Apache-2.0 */

/* Step mode for tests and the demo: a command a line on standard input, one line of JSON each in
 * answer. A command is read only after the one before it was answered. */

#include "sim.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SETTLE_TIMEOUT_SEC 60

struct control {
        struct sim *sim;
        char line[512];
        size_t size;
        bool is_settling, is_knocking, has_ended;
        bool is_skipping; /* the rest of a line that was too long */
        uint64_t settle_from, settle_until;
};

static void answer_ok(void) {
        puts("{\"ok\":true}");
}

/* Our own words and device ids: nothing in them needs escaping. */
static void answer_error(const char *what) {
        printf("{\"ok\":false,\"error\":\"%s\"}\n", what);
}

/* ---- commands ---- */

static void answer_settled(struct control *control, bool is_settled) {
        const struct sim *sim = control->sim;
        unsigned i, named = 0;

        control->is_settling = false;
        printf("{\"ok\":%s,\"settled\":%u,\"devices\":%u,\"ms\":%" PRIu64, is_settled ? "true" : "false", sim->settled,
               sim->count, real_ms() - control->settle_from);
        if (!is_settled) {
                fputs(",\"error\":\"not settled in time\",\"busy\":[", stdout);
                for (i = 0; i < sim->count && named < 20; i++)
                        if (!sim->devices[i].is_settled)
                                printf("%s\"%s\"", named++ ? "," : "", sim->devices[i].identity.id);
                fputc(']', stdout);
        }
        fputs("}\n", stdout);
}

static bool read_number(const char *text, int64_t *number) {
        char *end;

        errno = 0;
        *number = strtoll(text, &end, 10);
        return *text && !*end && errno == 0;
}

static void settle(struct control *control, const char *argument) {
        int64_t seconds = SETTLE_TIMEOUT_SEC;

        if (*argument && (!read_number(argument, &seconds) || seconds < 0)) {
                answer_error("settle [SECONDS]");
                return;
        }
        control->is_settling = true;
        control->settle_from = real_ms();
        control->settle_until = control->settle_from + (uint64_t)seconds * 1000;
        fleet_look(control->sim);
}

static void move_clock(struct control *control, const char *argument, bool wall_alone) {
        struct test_clock *clock = &control->sim->clock;
        int64_t seconds;

        if (!clock->offsets) {
                answer_error("there is no --test-clock");
                return;
        }
        if (!read_number(argument, &seconds) || (!wall_alone && seconds < 0)) {
                answer_error(wall_alone ? "wall SECONDS" : "advance SECONDS");
                return;
        }
        if (wall_alone)
                test_clock_set_wall(clock, seconds);
        else
                test_clock_advance(clock, seconds);
        fleet_look(control->sim);
        printf("{\"ok\":true,\"offset\":%" PRId64 "}\n", test_clock_offset(clock));
}

static void knocked(void *user, const struct knock_result *result) {
        struct control *control = user;

        printf("{\"ok\":true,\"handshake\":\"%s\"", result->handshake);
        if (result->alert != 255)
                printf(",\"alert\":%u", result->alert);
        if (result->me)
                printf(",\"me\":\"%u.%02u\"", result->me >> 5, result->me & 31U);
        if (result->cred)
                printf(",\"cred\":\"%u.%02u\"", result->cred >> 5, result->cred & 31U);
        fputs("}\n", stdout);
        control->is_knocking = false;
}

static void knock(struct control *control, struct sim_device *device) {
        if (device->stolen.identity_size == 0) {
                answer_error("nothing was stolen from it yet");
                return;
        }
        if (thief_knock(control->sim, device, knocked, control) < 0)
                answer_error("no socket for the thief");
        else
                control->is_knocking = true;
}

static void steal(struct sim_device *device) {
        struct device_bytes anchors = device_anchors(&device->device);
        unsigned i;

        device->stolen = *device_current_key(&device->device);
        device->stolen_anchors_size = anchors.size;
        if (anchors.size > 0)
                memcpy(device->stolen_anchors, anchors.data, anchors.size);
        fputs("{\"ok\":true,\"identity\":\"", stdout);
        for (i = 0; i < device->stolen.identity_size; i++)
                if (isalnum(device->stolen.identity[i]) || strchr("._:-", device->stolen.identity[i]))
                        fputc(device->stolen.identity[i], stdout);
        fputs("\"}\n", stdout);
}

static void command_on_device(struct control *control, const char *word, const char *argument) {
        struct sim *sim = control->sim;
        struct sim_device *device = fleet_find(sim, argument);

        if (!device) {
                answer_error("no such device");
        } else if (strcmp(word, "steal") == 0) {
                steal(device);
        } else if (strcmp(word, "knock") == 0) {
                knock(control, device);
        } else if (device->is_off && strcmp(word, "on") != 0) {
                answer_error("it is switched off");
        } else {
                if (strcmp(word, "reboot") == 0)
                        fleet_reboot(device);
                else if (strcmp(word, "forget") == 0)
                        fleet_factory_reset(device);
                else
                        fleet_power(device, strcmp(word, "on") == 0);
                fleet_look(sim);
                answer_ok();
        }
}

static bool is_one_of(const char *word, const char *const *words) {
        for (; *words; words++)
                if (strcmp(word, *words) == 0)
                        return true;
        return false;
}

static void execute(struct control *control, char *line) {
        static const char *const on_device[] = { "reboot", "steal", "knock", "forget", "off", "on", NULL };
        const char *word = strtok(line, " \t\r"), *argument = word ? strtok(NULL, " \t\r") : NULL;

        if (!word)
                return;
        if (!argument)
                argument = "";
        if (strcmp(word, "settle") == 0)
                settle(control, argument);
        else if (strcmp(word, "advance") == 0)
                move_clock(control, argument, false);
        else if (strcmp(word, "wall") == 0)
                move_clock(control, argument, true);
        else if (strcmp(word, "books") == 0)
                books_write_json(control->sim, stdout, strcmp(argument, "total") != 0,
                                 strcmp(argument, "evidence") == 0);
        else if (strcmp(word, "observe") == 0 && (strcmp(argument, "on") == 0 || strcmp(argument, "off") == 0)) {
                fleet_observe(control->sim, strcmp(argument, "on") == 0);
                answer_ok();
        } else if (is_one_of(word, on_device)) {
                command_on_device(control, word, argument);
        } else if (strcmp(word, "quit") == 0) {
                control->sim->is_stopping = true;
                answer_ok();
        } else {
                answer_error("commands: settle [SECONDS], advance SECONDS, wall SECONDS, books [total|evidence], "
                             "observe on|off, reboot ID, steal ID, knock ID, forget ID, off ID, on ID, quit");
        }
}

/* ---- lines ---- */

static void execute_lines(struct control *control) {
        char *end;

        while (!control->is_settling && !control->is_knocking && !control->sim->is_stopping &&
               (end = memchr(control->line, '\n', control->size))) {
                char line[sizeof(control->line)];
                size_t used = (size_t)(end - control->line) + 1;

                memcpy(line, control->line, used);
                line[used - 1] = 0;
                memmove(control->line, control->line + used, control->size - used);
                control->size -= used;
                if (!control->is_skipping)
                        execute(control, line);
                control->is_skipping = false;
                fflush(stdout);
        }
        if (control->has_ended && !control->is_settling && !control->is_knocking)
                control->sim->is_stopping = true;
}

void control_readable(struct control *control) {
        ssize_t size;

        if (control->size == sizeof(control->line)) { /* without an end: execute_lines() saw to that */
                if (!control->is_skipping)
                        answer_error("the line is too long");
                fflush(stdout);
                control->is_skipping = true;
                control->size = 0;
        }
        size = read(STDIN_FILENO, control->line + control->size, sizeof(control->line) - control->size);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (size <= 0)
                control->has_ended = true;
        else
                control->size += (size_t)size;
        execute_lines(control);
}

void control_check(struct control *control) {
        const struct sim *sim = control->sim;

        if (control->is_settling && sim->settled == sim->count)
                answer_settled(control, true);
        else if (control->is_settling && real_ms() >= control->settle_until)
                answer_settled(control, false);
        fflush(stdout);
        execute_lines(control);
}

uint64_t control_deadline(const struct control *control) {
        return control->is_settling ? control->settle_until : DEVICE_NEVER;
}

bool control_listens(const struct control *control) {
        return !control->has_ended && !control->is_settling && !control->is_knocking;
}

int control_open(struct sim *sim, struct control **ret) {
        struct control *control = calloc(1, sizeof(*control));

        if (!control)
                return -ENOMEM;
        control->sim = sim;
        *ret = control;
        return 0;
}

void control_close(struct control *control) {
        free(control);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* Events on their way out: to journald as fields that a program can filter, or, where standard error
 * does not lead to a journal, as one line each. What is repeated is counted: journal_throttle.c. */

#include "systemd/journal.h"

#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION /* a file and line of ours tell an operator nothing */
#include <systemd/sd-journal.h>

#define LINE_MAX_BYTES 1024
#define FIELDS_MAX     16

/* Set once by journal_open(), before there is anything to say: which role speaks, and to whom. */
static struct {
        char role[32];
        bool has_journal;
} journal = { "gatewayd", false };

/* Whether standard error is a stream to journald: so it is in a service, and so it is not where a person
 * or a test started the daemon and wants to see what it says. JOURNAL_STREAM would tell as well, but
 * not in a role whose environment was emptied. With LogNamespace= a name follows "journal". */
static bool stderr_is_journal(void) {
        static const char path[] = "/run/systemd/journal";
        struct sockaddr_un peer = { 0 };
        socklen_t size = sizeof peer;

        return getpeername(STDERR_FILENO, (struct sockaddr *)&peer, &size) == 0 && peer.sun_family == AF_UNIX &&
               strncmp(peer.sun_path, path, sizeof path - 1) == 0;
}

/* Whatever came from outside is shown as printable ASCII: no line of a log may be forged. */
static void make_printable(char *text) {
        for (; *text != '\0'; text++)
                if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
                        *text = '?';
}

struct fields {
        struct iovec vectors[FIELDS_MAX];
        char texts[FIELDS_MAX][LINE_MAX_BYTES];
        size_t count;
};

static _printf_(2, 3) void field(struct fields *fields, const char *format, ...) {
        char *text = fields->texts[fields->count];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, LINE_MAX_BYTES, format, arguments);
        va_end(arguments);
        make_printable(text);
        fields->vectors[fields->count] = (struct iovec){ text, strlen(text) };
        fields->count++;
}

static void fields_send(const struct fields *fields) {
        /* A journal that does not take it leaves nobody to tell. */
        (void)sd_journal_sendv(fields->vectors, (int)fields->count);
}

void journal_open(const char *role) {
        snprintf(journal.role, sizeof journal.role, "%s", role);
        journal.has_journal = stderr_is_journal();
        /* libsystemd opens its socket with the first message: now, before the sandbox closes. */
        if (journal.has_journal)
                journal_line(7, "%s speaks", role);
}

static void line_write(struct buffer *line) {
        ssize_t n;

        buffer_append(line, TEXT("\n"));
        n = write(STDERR_FILENO, line->data, line->size); /* in one piece: several roles share it */
        (void)n;                                          /* nobody left to tell */
        buffer_free(line);
}

static void line_put(struct buffer *line, const char *key, const char *value) {
        char text[LINE_MAX_BYTES];

        if (value[0] == '\0')
                return;
        snprintf(text, sizeof text, "%s", value);
        make_printable(text);
        for (char *p = text; *p != '\0'; p++)
                if (*p == '"')
                        *p = '\'';
        buffer_printf(line, strpbrk(text, " =") ? " %s=\"%s\"" : " %s=%s", key, text);
}

static void event_to_stderr(const struct event *event) {
        struct buffer line = { 0 };
        char count[24] = "";

        if (event->count > 1)
                snprintf(count, sizeof count, "%llu", (unsigned long long)event->count);
        buffer_printf(&line, "%s", event_name(event->kind));
        line_put(&line, "role", journal.role);
        line_put(&line, "device", event->device);
        line_put(&line, "profile", event->profile);
        line_put(&line, "kid", event->kid);
        line_put(&line, "peer", event->peer);
        line_put(&line, "reason", event->reason);
        line_put(&line, "count", count);
        line_write(&line);
}

static void text_field(struct fields *fields, const char *name, const char *text) {
        if (text[0] != '\0')
                field(fields, "%s=%s", name, text);
}

void journal_event(const struct event *event) {
        struct fields fields = { .count = 0 };
        char message[512];

        if (!journal.has_journal) {
                event_to_stderr(event);
                return;
        }
        event_message(event, message, sizeof message);
        field(&fields, "MESSAGE=%s", message);
        field(&fields, "MESSAGE_ID=%s", event_message_id(event->kind));
        field(&fields, "PRIORITY=%d", event_priority(event->kind));
        field(&fields, "SYSLOG_IDENTIFIER=gatewayd");
        field(&fields, "GATEWAYD_EVENT=%s", event_name(event->kind));
        field(&fields, "GATEWAYD_ROLE=%s", journal.role);
        text_field(&fields, "GATEWAYD_DEVICE", event->device);
        text_field(&fields, "GATEWAYD_PROFILE", event->profile);
        text_field(&fields, "GATEWAYD_KID", event->kid);
        text_field(&fields, "GATEWAYD_PEER", event->peer);
        text_field(&fields, "GATEWAYD_REASON", event->reason);
        field(&fields, "GATEWAYD_COUNT=%llu", (unsigned long long)(event->count == 0 ? 1 : event->count));
        fields_send(&fields);
}

void journal_line(int priority, const char *format, ...) {
        struct fields fields = { .count = 0 };
        char text[LINE_MAX_BYTES - 16];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        if (!journal.has_journal) {
                struct buffer line = { 0 };

                make_printable(text);
                buffer_printf(&line, "%s: %s", journal.role, text);
                line_write(&line);
                return;
        }
        field(&fields, "MESSAGE=%s", text);
        field(&fields, "PRIORITY=%d", priority);
        field(&fields, "SYSLOG_IDENTIFIER=gatewayd");
        field(&fields, "GATEWAYD_ROLE=%s", journal.role);
        fields_send(&fields);
}

/* SPDX-License-Identifier: Apache-2.0 */

/* The connection to gatewayd: D-Bus without a bus, over the control socket. */

#include "gatewayd/operator/gatewayctl_client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#define OBJECT    "/org/gatewayd"
#define INTERFACE "org.gatewayd.Manager1"
/* An import of a large fleet is one turn of core. */
#define TIMEOUT_USEC     (300 * UINT64_C(1000000))
#define DEVICES_PER_PAGE 500

void complain(const char *format, ...) {
        va_list arguments;

        fputs("gatewayctl: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
}

int usage_error(const char *format, ...) {
        va_list arguments;

        fputs("gatewayctl: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputs("\nTry `gatewayctl --help`.\n", stderr);
        return EXIT_USAGE;
}

/* ---- connecting ---- */

/* A path in a D-Bus address: what is not harmless is escaped (D-Bus specification, server addresses). */
static void put_address(const char *path, struct buffer *to) {
        buffer_printf(to, "unix:path=");
        for (; *path; path++) {
                bool is_harmless = (*path >= 'a' && *path <= 'z') || (*path >= 'A' && *path <= 'Z') ||
                                   (*path >= '0' && *path <= '9') || strchr("-_/.\\*", *path);

                if (is_harmless)
                        buffer_append(to, BYTES(path, 1));
                else
                        buffer_printf(to, "%%%02x", (unsigned)(uint8_t)*path);
        }
        buffer_append(to, BYTES("", 1));
}

static void explain(const struct client *client, int error) {
        switch (error) {
        case -ENOENT:
        case -ECONNREFUSED:
                complain("gatewayd is not running (nobody listens at %s)", client->path);
                break;
        case -EACCES:
        case -EPERM:
                complain("%s: permission denied; be root or in the group gatewayd", client->path);
                break;
        case -ECONNRESET:
        case -EPIPE:
        case -ENOTCONN:
                complain("gatewayd ended the connection; what was asked may or may not have been done");
                break;
        case -ETIMEDOUT:
                complain("gatewayd did not answer in time; what was asked may or may not have been done");
                break;
        default:
                complain("%s: %s", client->path, strerror(-error));
        }
}

static int open_connection(struct client *client) {
        struct buffer address = { 0 };
        int r;

        if (client->bus)
                return 0;
        put_address(client->path, &address);
        r = sd_bus_new(&client->bus);
        if (r >= 0)
                r = sd_bus_set_address(client->bus, (const char *)address.data);
        if (r >= 0)
                r = sd_bus_start(client->bus);
        buffer_free(&address);
        if (r < 0) {
                explain(client, r);
                client_close(client);
        }
        return r;
}

void client_close(struct client *client) {
        client->bus = sd_bus_close_unref(client->bus);
}

/* ---- calling ---- */

int client_message(struct client *client, const char *method, sd_bus_message **ret) {
        int r = open_connection(client);

        if (r < 0)
                return r;
        return sd_bus_message_new_method_call(client->bus, ret, NULL, OBJECT, INTERFACE, method);
}

static int read_all(sd_bus_message *reply, struct value *ret) {
        *ret = (struct value){ .kind = VALUE_LIST };
        for (;;) {
                struct value item;
                int r = value_read(reply, &item);

                if (r <= 0)
                        return r;
                ret->items = reallocarray(ret->items, ret->count + 1, sizeof item);
                if (!ret->items)
                        oom();
                ret->items[ret->count++] = item;
        }
}

/* Says what went wrong, or reads the reply. */
static int take_reply(struct client *client, int r, const sd_bus_error *error, sd_bus_message *reply, size_t expected,
                      struct value *ret) {
        if (r < 0 && error->name && strncmp(error->name, "org.gatewayd.", 13) == 0)
                complain("%s", error->message);
        else if (r < 0 && sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_METHOD))
                complain("this gatewayd does not know how to do that; it is of another version");
        else if (r < 0)
                explain(client, r);
        else {
                r = read_all(reply, ret);
                if (r >= 0 && ret->count != expected)
                        r = -EBADMSG;
                if (r < 0) {
                        complain("the answer cannot be read: %s", strerror(-r));
                        value_free(ret);
                }
        }
        return r < 0 ? r : 0;
}

int client_send(struct client *client, sd_bus_message *message, size_t expected, struct value *ret) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        int r;

        r = sd_bus_call(client->bus, message, TIMEOUT_USEC, &error, &reply);
        r = take_reply(client, r, &error, reply, expected, ret);
        sd_bus_message_unref(reply);
        sd_bus_message_unref(message);
        sd_bus_error_free(&error);
        return r;
}

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        sd_bus_message **ret = userdata;

        (void)error;
        *ret = sd_bus_message_ref(reply);
        return 1;
}

int client_send_then(struct client *client, sd_bus_message *message, void (*meanwhile)(void *arg), void *arg,
                     size_t expected, struct value *ret) {
        sd_bus_message *reply = NULL;
        const sd_bus_error *error;
        int r;

        r = sd_bus_call_async(client->bus, NULL, message, on_reply, &reply, UINT64_MAX);
        sd_bus_message_unref(message); /* with what it holds of `arg` */
        if (r >= 0)
                r = sd_bus_flush(client->bus);
        meanwhile(arg);
        while (r >= 0 && !reply) {
                r = sd_bus_process(client->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(client->bus, UINT64_MAX);
        }
        error = reply ? sd_bus_message_get_error(reply) : NULL;
        if (error)
                r = -sd_bus_error_get_errno(error);
        r = take_reply(client, r, error ? error : &SD_BUS_ERROR_NULL, reply, expected, ret);
        sd_bus_message_unref(reply);
        return r;
}

int client_call(struct client *client, const char *method, size_t expected, struct value *ret, const char *types, ...) {
        sd_bus_message *message = NULL;
        va_list arguments;
        int r;

        r = client_message(client, method, &message);
        if (r < 0)
                return r;
        va_start(arguments, types);
        r = sd_bus_message_appendv(message, types, arguments);
        va_end(arguments);
        if (r < 0) {
                complain("an argument cannot be sent: %s", r == -EINVAL ? "it is no UTF-8 text" : strerror(-r));
                sd_bus_message_unref(message);
                return r;
        }
        return client_send(client, message, expected, ret);
}

int client_now(struct client *client, unix_sec *ret) {
        struct value answer;
        int r = client_call(client, "Now", 3, &answer, "");

        if (r < 0)
                return r;
        *ret = answer.items[0].kind == VALUE_SIGNED ? answer.items[0].integer : 0;
        value_free(&answer);
        return 0;
}

/* ---- all devices ---- */

static int ask_page(struct client *client, const char *after, const struct device_filter *filter, struct value *ret) {
        const char *const texts[] = { filter->state, filter->profile, filter->tier };
        static const char *const keys[] = { "state", "profile", "tier" };
        sd_bus_message *message = NULL;
        int r;

        r = client_message(client, "ListDevices", &message);
        if (r < 0)
                return r;
        r = sd_bus_message_append(message, "su", after, DEVICES_PER_PAGE);
        if (r >= 0)
                r = sd_bus_message_open_container(message, SD_BUS_TYPE_ARRAY, "{ss}");
        for (size_t i = 0; r >= 0 && i < ELEMENTS(keys); i++)
                if (texts[i])
                        r = sd_bus_message_append(message, "{ss}", keys[i], texts[i]);
        if (r >= 0)
                r = sd_bus_message_close_container(message);
        if (r < 0) {
                complain("an argument cannot be sent: %s", strerror(-r));
                sd_bus_message_unref(message);
                return r;
        }
        return client_send(client, message, 2, ret);
}

void client_move_items(struct value *to, struct value *from) {
        if (from->count == 0)
                return;
        to->items = reallocarray(to->items, to->count + from->count, sizeof *to->items);
        if (!to->items)
                oom();
        memcpy(to->items + to->count, from->items, from->count * sizeof *to->items);
        to->count += from->count;
        from->count = 0;
}

int client_devices(struct client *client, const struct device_filter *filter, struct value *ret) {
        _cleanup_(freep) char *after = xstrdup("");

        *ret = (struct value){ .kind = VALUE_LIST };
        for (;;) {
                struct value page;
                int r = ask_page(client, after, filter, &page);

                if (r < 0) {
                        value_free(ret);
                        return r;
                }
                freep(&after);
                after = xstrdup(page.items[1].kind == VALUE_TEXT ? page.items[1].text : "");
                client_move_items(ret, &page.items[0]);
                value_free(&page);
                if (!after[0])
                        return 0;
        }
}

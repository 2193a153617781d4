/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the commands of gatewayctl share: the connection to gatewayd, how they print, how they end. */

#include "gatewayd/operator/gatewayctl_table.h"
#include "gatewayd/operator/gatewayctl_value.h"

#define CONTROL_PATH "/run/gatewayd/control"

/* Exit statuses, also in --help and the man page. */
enum {
        EXIT_DONE = 0,
        EXIT_FAILED = 1,
        EXIT_USAGE = 2,
        EXIT_UNCHANGED = 3,
};

struct client {
        const char *path;
        bool is_json;
        struct screen screen;
        sd_bus *bus; /* connected at the first call */
};

/* Calls a method and reads its values, of which there must be `expected`, into `ret` (a list). What goes
 * wrong is said on standard error. Returns 0 or -errno. `types` and what follows: as
 * sd_bus_message_append(). */
int client_call(struct client *client, const char *method, size_t expected, struct value *ret, const char *types, ...);
/* The same for a message that the caller fills. */
int client_message(struct client *client, const char *method, sd_bus_message **ret);
int client_send(struct client *client, sd_bus_message *message, size_t expected, struct value *ret);
/* The same, and while the call is under way `meanwhile` runs once, to its end. */
int client_send_then(struct client *client, sd_bus_message *message, void (*meanwhile)(void *arg), void *arg,
                     size_t expected, struct value *ret);
void client_close(struct client *client);
/* Moves the items of one list to the end of another. */
void client_move_items(struct value *to, struct value *from);

/* "gatewayctl: …" on standard error. Returns EXIT_USAGE with a hint to --help. */
int usage_error(const char *format, ...) _printf_(1, 2);
void complain(const char *format, ...) _printf_(1, 2);

/* The gateway's time, by which its times are told; it need not be this machine's. */
int client_now(struct client *client, unix_sec *ret);

/* All devices that the filter lets through (texts or NULL), over as many pages as it takes. */
struct device_filter {
        const char *state, *profile, *tier;
};
int client_devices(struct client *client, const struct device_filter *filter, struct value *ret);

/* The commands; `arguments` are those after the command's words. They return an exit status. */
typedef int (*command_run)(struct client *client, int count, char **arguments);
int command_status(struct client *client, int count, char **arguments);
int command_device_import(struct client *client, int count, char **arguments);
int command_device_add(struct client *client, int count, char **arguments);
int command_device_list(struct client *client, int count, char **arguments);
int command_device_show(struct client *client, int count, char **arguments);
int command_device_remove(struct client *client, int count, char **arguments);
int command_device_revoke(struct client *client, int count, char **arguments);
int command_device_reset(struct client *client, int count, char **arguments);
int command_device_release(struct client *client, int count, char **arguments);
int command_pause(struct client *client, int count, char **arguments);
int command_resume(struct client *client, int count, char **arguments);
int command_rotate(struct client *client, int count, char **arguments);
int command_audit(struct client *client, int count, char **arguments);
int command_relay_now(struct client *client, int count, char **arguments);
int command_keys(struct client *client, int count, char **arguments);
int command_sealing_rotate(struct client *client, int count, char **arguments);
int command_sealing_recovery(struct client *client, int count, char **arguments);
int command_ca_init(struct client *client, int count, char **arguments);
int command_ca_csr(struct client *client, int count, char **arguments);
int command_ca_import(struct client *client, int count, char **arguments);
int command_ca_roll(struct client *client, int count, char **arguments);
int command_ca_show(struct client *client, int count, char **arguments);
int command_ca_crl(struct client *client, int count, char **arguments);
int command_backup(struct client *client, int count, char **arguments);
int command_restore(struct client *client, int count, char **arguments);
int command_recover(struct client *client, int count, char **arguments);
int command_missing(struct client *client, int count, char **arguments);
int command_doctor(struct client *client, int count, char **arguments);

/* Options of a command, in any order among its operands: `--name` or `--name VALUE` or `--name=VALUE`. */
struct command_option {
        const char *name;   /* with its dashes */
        const char **value; /* where the value goes; NULL: a flag */
        bool *flag;
};
/* Takes the options out; operands go to `operands` (at least `least`, at most `most`). Returns 0 or
 * EXIT_USAGE after saying what is wrong. */
int take_arguments(int count, char **arguments, const struct command_option *options, size_t option_count,
                   const char **operands, size_t least, size_t most, const char *operand_names);
/* "90", "1h", "2d 3h" (systemd.time(7)). */
int read_span(const char *text, int64_t *ret_sec);
/* "@1767225600", "2026-01-01 12:00", "2026-01-01T12:00:00Z", "3d ago". */
int read_time(const char *text, unix_sec now, unix_sec *ret);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The supervisor: main process of the service. It holds the UDP socket's descriptor and talks to
 * systemd; it has no key, no store, and reads nothing from a network. It starts the roles, watches
 * their heartbeats, respawns them with back-off, and ends them in order. */

#include "config/config.h"

/* Takes over `config` and `config_fd`, a snapshot of it (config_load_snapshot()): every role that is started
 * gets the configuration in force, whatever has become of the file since.
 * Runs until told to stop. Returns the exit status of the service: 0 after an orderly stop,
 * ROLE_EXIT_REFUSED where a role will not run until a person has changed something. */
int supervise(const char *config_path, struct config *config, int config_fd);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the daemon says to its service manager and gets from it. Everything is a no-op, or says
 * "none", where there is no service manager. */

#include "gatewayd/bytes.h"

/* READY=1 with STATUS; RELOADING/READY pairs; STOPPING. Return 1 sent, 0 no manager, -errno. */
int service_ready(const char *status);
int service_reloading(void);
int service_stopping(void);
int service_status(const char *status);
int service_watchdog(void);
/* How often service_watchdog() is due: half of WATCHDOG_USEC; 0 when not asked for. */
uint64_t service_watchdog_usec(void);

/* The descriptor stored or passed under `name` (FDSTORE or a socket unit), or -ENOENT. It is set
 * close-on-exec. Others of unknown names are closed. */
int service_descriptor_take(const char *name);
/* Puts a descriptor into the store (FDSTORE=1, FDNAME, FDPOLL=0). */
int service_descriptor_store(const char *name, int fd);
/* Takes what is stored under `name` out of the store. 0 without a service manager. */
int service_descriptor_forget(const char *name);

/* Reads a credential ($CREDENTIALS_DIRECTORY/name) into `to`; returns its size, -ENOENT when there
 * is none, -EMSGSIZE, or another errno. */
ssize_t service_credential(const char *name, uint8_t *to, size_t to_size);

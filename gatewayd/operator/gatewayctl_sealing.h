/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within gatewayctl sealing: where a sealing key lies, and how another is put there. Everything here says on standard
 * error what went wrong. */

#include <limits.h>

#include "gatewayd/secret.h"

struct sealing_place {
        char path[PATH_MAX];
        bool is_credential;      /* encrypted by systemd-creds; else the key itself */
        bool is_read_by_systemd; /* when the service starts, and not again when core does */
        const char *with_key;    /* systemd-creds --with-key=; NULL: its default */
};

/* The key at `path` of that place's kind. 0, -ENOENT (in silence), or another errno. */
int sealing_place_read(const struct sealing_place *place, const char *path, struct secret *ret);
/* Writes it beside the place, as PATH.new, for the owner of what is there now; synced with its folder. */
int sealing_place_write_new(const struct sealing_place *place, const struct secret *key);
/* PATH.new takes the place; synced. */
int sealing_place_put_new(const struct sealing_place *place);
/* Takes an unfinished PATH.new away. */
void sealing_place_drop_new(const struct sealing_place *place);
/* "PATH.new"; room for PATH_MAX. -ENAMETOOLONG. */
int sealing_place_new_path(const struct sealing_place *place, char *to);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reading libconfig's tree: what config_read.c (groups) and config_values.c (plain values) share.
 * No other file of this folder knows libconfig. */

#include "config/loader.h"

#include <libconfig.h>

struct reading {
        struct loader *loader;
        unsigned file;
};

struct place place_of(const struct reading *reading, const config_setting_t *setting);
/* Reads one plain value into its member of `base`, or reports why not and changes nothing. */
void read_value(const struct reading *reading, const config_setting_t *setting, const struct key *key, void *base);
/* Numbers of all kinds: bare, as a time span, as a size. False when it is none that the key allows. */
bool read_integer(const config_setting_t *setting, const struct key *key, void *to);
/* A printable text that fits with its NUL. */
bool read_text(const config_setting_t *setting, size_t size, char *to);

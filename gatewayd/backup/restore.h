/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within backup/: what place.c (names and the order of renames) and restore.c (filling them) have in common. */

#include "gatewayd/backup/place.h"

#define RESTORE_KEY "restore.key"

int place_suffixed(const char *store_path, const char *suffix, char to[PATH_MAX]);
int place_folder_sync(const char *store_path);
int place_problem(struct problem *problem, const char *path, int error);
/* With the lock held. 1: a restored store took its place; `kept` names the one before, or is empty. */
int place_carry_on(const char *store_path, char kept[PATH_MAX], struct problem *problem);
int place_clean(const char *store_path);

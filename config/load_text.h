/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Reading a configuration from memory: for tests and fuzzing. */

#include "config/config.h"

/* As config_load(), for one text without drop-ins; `name` stands for the file in messages. */
int config_load_text(const char *name, struct bytes text, struct config **ret, struct config_problems *problems);

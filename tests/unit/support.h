/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* cmocka wants these before itself. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

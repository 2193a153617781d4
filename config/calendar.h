/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Calendar expressions as systemd writes them in OnCalendar= (systemd.time(7)): "Sun *-*-* 03:00",
 * "Mon..Fri *-*~03 22:30/2 Europe/Berlin", "weekly". Pure apart from the time zone database. */

#include "gatewayd/bytes.h"

struct calendar;

/* 0; -EINVAL with the reason in `why` (128 characters), also for one that never elapses again after 1970. */
int calendar_parse(const char *text, struct calendar **ret, char *why);
struct calendar *calendar_free(struct calendar *calendar);
/* The first time it elapses after `after` (strictly); INT64_MAX: never again (to the year 2200). Without a zone
 * in the expression: the machine's local time, as systemd does. A local time that a change to summer time leaves
 * out counts as the moment after the gap; one that comes twice counts once. */
unix_sec calendar_next(const struct calendar *calendar, unix_sec after);
/* The expression in its normal form ("Sun *-*-* 03:00:00"), as `systemd-analyze calendar` shows it; 256 characters. */
void calendar_format(const struct calendar *calendar, char *to);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Events to journald: MESSAGE, MESSAGE_ID, PRIORITY, and GATEWAYD_EVENT, _ROLE, _DEVICE, _PROFILE,
 * _KID, _PEER, _REASON, _COUNT. Where there is no journal (tests, containers) one line each to
 * standard error: the name, then key=value. */

#include "gatewayd/event.h"

/* Opens the way out; call before the sandbox closes. `role` is GATEWAYD_ROLE. */
void journal_open(const char *role);
void journal_event(const struct event *event);
/* A line of plain text that is no event (start-up errors, library messages). Priority as syslog. */
void journal_line(int priority, const char *format, ...) _printf_(2, 3);

/* Counts repetitions: an event of the same kind, device, peer (without its port) and reason within `window_usec` of the
 * last one written is counted, not written; the count goes out (EVENTS_COUNTED or with the next one)
 * when the window ends. Bounded: 1024 different ones are remembered, the oldest flushed. */
struct journal_throttle;
struct journal_throttle *journal_throttle_new(uint64_t window_usec);
struct journal_throttle *journal_throttle_free(struct journal_throttle *throttle);
/* `now_usec`: any monotonic clock. */
void journal_throttle_event(struct journal_throttle *throttle, const struct event *event, uint64_t now_usec);
void journal_throttle_flush(struct journal_throttle *throttle, uint64_t now_usec);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What operators order about rotation, for a profile or for all: asked for, paused, resumed; and what that means for
 * one device. All in the current turn. */

#include "gatewayd/devices/devices.h"

#define PAUSE_MAX_SEC (90 * INT64_C(86400))

/* Fills what of a view concerns orders: of the device's profile and of all, the ask that is due sooner, either
 * pause. */
int orders_view(struct turn *turn, const char *profile, double spread, struct rotation_view *view);

/* Devices whose key was issued before now are due within `within_sec`. `profile` empty: all. -ENOENT with the reason:
 * no such profile. */
int orders_rotate(struct turn *turn, const char *profile, int64_t within_sec, struct problem *problem);
/* No device is called, and none is punished for its key's age, for so long. 1; -ERANGE. */
int orders_pause(struct turn *turn, const char *profile, int64_t pause_sec, struct problem *problem);
/* 1; 0: nothing was paused. */
int orders_resume(struct turn *turn, const char *profile, struct problem *problem);
/* Whether anything is ordered: 1 or 0. A core that died may not have looked at all devices since. */
int orders_standing(struct turn *turn);
/* Ends pauses whose time is over; each tick. */
int orders_tick(struct turn *turn);

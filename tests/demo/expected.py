# SPDX-License-Identifier: Apache-2.0
"""How many rotations a year must bring, computed from each device's interval alone: a second implementation
of the schedule, which has nothing of gatewayd's but the rule."""

DAY = 86400
MASK = (1 << 64) - 1


def spread(device):
    """0 ≤ x < 1: FNV-1a over the id, its bits mixed (the finalizer of MurmurHash3)."""
    h = 0xcbf29ce484222325
    for byte in device.encode():
        h = ((h ^ byte) * 0x100000001b3) & MASK
    h = ((h ^ (h >> 33)) * 0xff51afd7ed558ccd) & MASK
    h = ((h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53) & MASK
    return ((h ^ (h >> 33)) >> 11) / (1 << 53)


def rotation_days(device, interval_days, jitter, days):
    """The days on which this device rotates, where time goes on a day at a time and it comes at once."""
    interval = interval_days * DAY * (1 - jitter * spread(device))
    found, last = [], 0
    for day in range(1, days + 1):
        if (day - last) * DAY >= interval:
            found.append(day)
            last = day
    return found


def closest_to_midnight(devices, interval_days, jitter):
    """By how many seconds an interval misses a whole number of days at the least: where it is close, the
    seconds that the demo itself takes would decide on which day a device comes."""
    left = [interval_days * DAY * (1 - jitter * spread(d)) % DAY for d in devices]
    return min(min(x, DAY - x) for x in left)

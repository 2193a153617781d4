#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Time at its worst. The daemon as it is shipped, under libfaketime: its calendar clock leaps by decades, past 2038 and
to 2060, back by years and to 1970, while devices come and go. And with the test clock: gateways without a battery that
boot in 1970 each time, synchronisation that comes and goes, a gateway that sleeps."""

import calendar
import os
import subprocess
import sys
import time
import unittest

import cbor2

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import BUILD, Gateway, wait_for  # noqa: E402

FAKETIME = "/usr/lib/%s/faketime/libfaketime.so.1"
DAY = 86400
YEAR = 365 * DAY
FACTORY = "factory-key-0123"
ROTATE = 1  # a bit of `due` in /me
PROFILES = """
        { name = "plain"; rotate_every = "30d"; grace = "1d"; max_age = "90d"; on_overdue = "restrict"; jitter = 0.0; }
"""


def guard():
    """preload/faketime_guard.c, built."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload", "faketime_guard.c")
    library = os.path.join(BUILD, "system", "faketime_guard.so")
    if not os.path.exists(library) or os.path.getmtime(library) < os.path.getmtime(source):
        made = "%s.%d" % (library, os.getpid())
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", source, "-o", made], check=True)
        os.rename(made, library)
    return library


def faketime():
    triplet = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True).stdout.strip()
    return FAKETIME % (triplet or "x86_64-linux-gnu")


class Faked(Gateway):
    """The shipped daemon, whose calendar clock is wherever `leap` says."""

    def __init__(self):
        super().__init__(PROFILES)
        self.stamp = os.path.join(self.folder, "faketime")  # in the one folder that core may read
        self.environment.update(LD_PRELOAD="%s %s" % (guard(), faketime()), FAKETIME_TIMESTAMP_FILE=self.stamp,
                                FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_RESET="1",
                                ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        self.leap(0)

    def leap(self, seconds):
        made = self.stamp + ".new"
        with open(made, "w") as f:
            f.write("%+d\n" % seconds)
        os.rename(made, self.stamp)

    def leap_to(self, year, month=1, day=1):
        self.leap(calendar.timegm((year, month, day, 0, 0, 0)) - int(time.time()))


class Device:
    """A device by coap-client: it keeps its newest key and the one before."""

    def __init__(self, gateway, name):
        self.gateway, self.name = gateway, name
        gateway.add_device(name)
        self.keys = [(name, FACTORY)]
        self.rotate()

    def ask(self, method, path, key=-1):
        return self.gateway.coap(method, path, *self.keys[key])

    def me(self, key=-1):
        code, body = self.ask("get", "me", key)
        assert code == "2.05", code
        return cbor2.loads(body)

    def rotate(self):
        code, body = self.ask("post", "cred")
        assert code == "2.04", code
        key = cbor2.loads(body).value[8][1]
        self.keys.append((key[2].decode(), key[-1].decode()))
        self.me()  # proven
        self.me()  # confirmed

    def is_called(self):
        return self.me()[6] & ROTATE


def clock(gateway):
    return gateway.ctl("--json", "status")[1]["clock"]


class Leaps(unittest.TestCase):
    """Under libfaketime, on the shipped daemon."""

    def test_the_calendar_of_the_daemon_really_leaps(self):
        with Faked() as g:
            g.leap_to(2050)
            wait_for(lambda: clock(g)["time"] >= calendar.timegm((2050, 1, 1, 0, 0, 0)), "the year 2050")
            g.wait_event("clock-jumped")
            self.assertFalse(clock(g)["is_trusted"])

    def test_forward_past_2038_to_2060_and_to_2110_each_leap_makes_due_and_locks_nobody_out(self):
        with Faked() as g:
            device = Device(g, "pump")
            for year in (2027, 2038, 2060, 2110):
                self.assertFalse(device.is_called())
                g.leap_to(year, 1, 20)
                wait_for(device.is_called, "the call in %d" % year)
                device.rotate()
            # No calendar age counts while the leap is held: nothing has ended, nobody is restricted.
            for key in range(1, len(device.keys)):
                self.assertEqual(device.ask("get", "me", key)[0], "2.05", key)
            self.assertEqual(g.events("rotation-overdue"), [])
            self.assertEqual(g.ctl("--json", "status")[1]["devices"]["operational"], 1)
            self.assertEqual(g.ctl("audit", "--verify")[0], 0)

    def test_backward_by_years_time_goes_on_from_the_latest_that_was_seen(self):
        with Faked() as g:
            device = Device(g, "pump")
            before = clock(g)["time"]
            for seconds in (-60, -DAY, -YEAR, -20 * YEAR):
                g.leap(seconds)
                g.ctl("status")
                self.assertGreaterEqual(clock(g)["time"], before)
                self.assertEqual(device.ask("get", "me")[0], "2.05")
            self.assertEqual(len(g.events("clock-behind", reason="days behind")), 1)
            device.rotate()
            self.assertEqual(g.ctl("audit", "--verify")[0], 0)

    def test_a_leap_there_and_back_leaves_what_it_made_due(self):
        with Faked() as g:
            device = Device(g, "pump")
            g.leap(31 * DAY)
            wait_for(device.is_called, "the call")
            g.leap(0)
            self.assertTrue(device.is_called())
            device.rotate()
            self.assertFalse(device.is_called())

    def test_after_a_boot_in_1970_the_recorded_time_rules(self):
        g = Faked()
        try:
            g.start()
            device = Device(g, "pump")
            g.leap(40 * DAY)
            wait_for(device.is_called, "the call")
            device.rotate()
            wait_for(lambda: clock(g)["time"] > time.time() + 39 * DAY, "a later time")
            g.stop()
            g.leap_to(1970, 1, 2)
            g.start()
            now = clock(g)
            self.assertGreater(now["time"], time.time() + 39 * DAY)
            self.assertEqual((now["quality"], now["is_trusted"]), ("unknown", False))
            self.assertFalse(device.is_called())
            device.rotate()
            self.assertEqual(device.ask("get", "me", key=-2)[0], "2.05")
            g.stop()
        finally:
            g.close()


class Boots(unittest.TestCase):
    """With the test clock: what no offset of the calendar can show."""

    def test_a_gateway_without_a_clock_rotates_by_powered_on_time_over_many_boots(self):
        g = Gateway(PROFILES, testclock=True)
        del g.environment["GATEWAYD_TEST_CLOCK_SYNCHRONIZED"]
        wall = -int(time.time()) + 3600  # each boot begins in 1970
        boottime = int(float(open("/proc/uptime").read().split()[0]))
        try:
            device, called_on = None, []
            for boot in range(12):
                g.environment["GATEWAYD_TEST_BOOT"] = "boot-%d %d" % (boot, boottime + boot * 8 * DAY)
                g.set_clock(both=boot * 8 * DAY, wall_alone=wall - boot * 8 * DAY)
                g.start()
                device = device or Device(g, "pump")
                g.set_clock(both=(boot + 1) * 8 * DAY - 60, wall_alone=wall - boot * 8 * DAY)  # a week of power
                wait_for(lambda: clock(g)["powered"] >= (boot + 1) * 8 * DAY - 60 - boot * 3600, "the week")
                if wait_for(lambda: (1 + device.is_called()), "an answer") > 1:
                    called_on.append(boot)
                    device.rotate()
                self.assertEqual(clock(g)["quality"], "unknown")
                g.stop()
            # 96 days of power in 12 boots: three rotations, none early, none left out.
            self.assertEqual(len(called_on), 3, called_on)
            self.assertGreaterEqual(called_on[0], 3)
        finally:
            g.close()

    def test_synchronisation_that_comes_and_goes_is_told_and_changes_no_key(self):
        with Gateway(PROFILES, testclock=True) as g:
            device = Device(g, "pump")
            self.assertEqual(clock(g)["quality"], "synchronized")
            for wall_alone, quality in ((5, "held"), (0, "synchronized"), (7, "held")):
                mark = g.mark()
                g.set_clock(wall_alone=wall_alone)
                g.wait_event("clock-quality", mark, reason=quality)
                self.assertEqual(clock(g)["quality"], quality)
                self.assertEqual(device.ask("get", "me")[0], "2.05")

    def test_what_fell_due_while_the_gateway_slept_is_called_when_it_wakes(self):
        """Suspend: CLOCK_BOOTTIME has moved on, CLOCK_MONOTONIC, on which timers run, has not."""
        with Gateway(PROFILES, testclock=True) as g:
            device = Device(g, "pump")
            self.assertFalse(device.is_called())
            g.set_clock(both=30 * DAY + 60)
            g.wait_event("rotation-due")
            self.assertTrue(device.is_called())
            device.rotate()
            g.set_clock(both=60 * DAY + 120)
            wait_for(device.is_called, "the next call")


if __name__ == "__main__":
    unittest.main()

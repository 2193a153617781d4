#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What operators order about rotation, on the real daemon with a simulated fleet and a clock that a test moves: profiles
rotated, paused, resumed; calendars and windows; warnings; steps of the clock over due points, and past 2038."""

import datetime
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import Gateway, wait_for  # noqa: E402
from test_fleet import DAY, PROFILES, fleet  # noqa: E402

WEEKLY = """
        { name = "sensor"; rotate_at = "Sun *-*-* 03:00 UTC"; grace = "1d"; max_age = "180d"; max_session = "30d"; }
"""
NIGHTLY = """
        { name = "sensor"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; max_session = "30d"; jitter = 0.0;
          maintenance = "Sat *-*-* 01:00 UTC"; maintenance_for = "4h"; }
"""
STRICT = """
        { name = "sensor"; rotate_every = "10d"; grace = "1d"; max_age = "60d"; max_session = "30d"; on_overdue = "restrict"; }
"""


def rotations(sim):
    return [device["rotations"] for device in sim.books()["fleet"]]


class Orders(unittest.TestCase):
    def test_a_profile_is_rotated_at_a_word(self):
        with Gateway(PROFILES, testclock=True) as g, fleet(g, 6) as sim:
            sim.settle()
            sim.advance(60)
            code, text = g.ctl("rotate", "sensor")
            self.assertEqual(code, 0, text)
            g.wait_event("rotation-ordered", reason="profile sensor")
            wait_for(lambda: rotations(sim) == [1] * 6, "everybody's next key")
            sim.settle()
            sim.advance(60)
            self.assertEqual(g.ctl("rotate", "all", "--now")[0], 0)
            wait_for(lambda: rotations(sim) == [2] * 6, "everybody's next key")
            self.assertEqual(sim.books()["locked_out"], 0)

    def test_within_a_span_they_come_one_after_the_other(self):
        with Gateway(PROFILES, testclock=True) as g, fleet(g, 8) as sim:
            sim.settle()
            sim.advance(60)
            g.ctl("rotate", "sensor", "--within", "8h")
            for _ in range(4):
                sim.advance(2 * 3600)
                sim.settle()
            wait_for(lambda: rotations(sim) == [1] * 8, "everybody's next key")

    def test_a_paused_fleet_keeps_its_keys_until_it_is_resumed(self):
        with Gateway(PROFILES, testclock=True) as g, fleet(g, 4) as sim:
            sim.settle()
            self.assertEqual(g.ctl("pause", "--for", "60d")[0], 0)
            g.wait_event("rotation-paused")
            for _ in range(40):
                sim.advance(DAY)
                sim.settle()
            self.assertEqual(rotations(sim), [0] * 4)
            self.assertEqual(g.ctl("resume")[0], 0)
            self.assertEqual(g.ctl("resume")[0], 3)
            wait_for(lambda: rotations(sim) == [1] * 4, "what fell due meanwhile")

    def test_what_cannot_be_meant_is_refused(self):
        with Gateway(PROFILES) as g:
            g.add_device("plain", "plain")
            for words, says in ((("rotate", "plain"), "--device or --profile"), (("rotate", "nobody"), "neither a device nor"),
                                (("pause", "nobody", "--for", "1d"), "no profile nobody"),
                                (("pause", "--for", "91d"), "90 days"), (("pause",), "for how long"),
                                (("rotate", "plain", "--now", "--within", "1h"), "not both"),
                                (("rotate", "plain", "--profile", "--compromised"), "one device")):
                code, text = g.ctl(*words, check=False)
                self.assertIn(code, (1, 2), words)
                self.assertIn(says, text, words)
            self.assertEqual(g.ctl("rotate", "plain", "--profile")[0], 0)
            self.assertIn(g.ctl("rotate", "plain", "--device")[0], (0, 3))


class Pace(unittest.TestCase):
    def test_of_many_that_fall_due_at_once_no_more_are_called_a_second_than_the_configuration_says(self):
        with Gateway(PROFILES, top="offers_per_second = 8;", testclock=True) as g, fleet(g, 80, sleep=True) as sim:
            sim.settle()
            elapsed = int.from_bytes(open(g.clock_path, "rb").read(8), "little", signed=True)
            g.set_clock(both=elapsed + 31 * DAY)
            begun = g.ctl("--json", "status")[1]["clock"]["powered"]
            wait_for(lambda: len(g.events("rotation-due")) >= 80, "the call of all")
            took = g.ctl("--json", "status")[1]["clock"]["powered"] - begun
            # The first second's worth was there already; the daemon's clock counts in whole seconds.
            self.assertGreaterEqual(took, 80 // 8 - 2)
            self.assertEqual(len({e["device"] for e in g.events("rotation-due")}), 80)


class Calendars(unittest.TestCase):
    def advance_to(self, sim, g, weekday, hour):
        """To that hour of the next such day (0: Monday), in steps of an hour around it and days else."""
        now = g.ctl("--json", "status")[1]["clock"]["time"]
        at = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
        days = (weekday - at.weekday()) % 7
        goal = at.replace(hour=hour, minute=0, second=30) + datetime.timedelta(days=days)
        if goal <= at:
            goal += datetime.timedelta(days=7)
        left = int((goal - at).total_seconds())
        while left > 0:
            step = min(left, DAY)
            sim.advance(step)
            sim.settle()
            left -= step

    def test_a_weekly_rotation_comes_on_its_day(self):
        with Gateway(WEEKLY, testclock=True) as g, fleet(g, 3) as sim:
            sim.settle()
            self.advance_to(sim, g, 6, 2)  # Sunday, an hour before
            self.assertEqual(rotations(sim), [0] * 3)
            sim.advance(3600)
            wait_for(lambda: rotations(sim) == [1] * 3, "the first Sunday")
            for week in (2, 3):
                self.advance_to(sim, g, 6, 3)
                wait_for(lambda: rotations(sim) == [week] * 3, "Sunday %d" % week)

    def test_devices_are_called_within_their_window(self):
        with Gateway(NIGHTLY, testclock=True) as g, fleet(g, 3) as sim:
            sim.settle()
            for _ in range(31):
                sim.advance(DAY)
                sim.settle()
            before = rotations(sim)
            self.advance_to(sim, g, 5, 0)  # Saturday, an hour before
            if rotations(sim) == before:
                sim.advance(3600)
                wait_for(lambda: all(a > b for a, b in zip(rotations(sim), before)), "the window")


class Time(unittest.TestCase):
    def test_before_a_device_is_restricted_it_is_said(self):
        with Gateway(STRICT, testclock=True) as g:
            with fleet(g, 1) as sim:
                sim.settle()
            elapsed = int.from_bytes(open(g.clock_path, "rb").read(8), "little", signed=True)
            for day, days in ((47, 13), (58, 2), (60 - 0.5, 1)):
                mark = g.mark()
                g.set_clock(both=elapsed + int(day * DAY))
                g.wait_event("rotation-overdue-soon", mark, reason="restricted in %d d" % days)
            self.assertEqual(g.events("device-standing-changed", reason="restricted"), [])
            g.set_clock(both=elapsed + 61 * DAY)
            g.wait_event("device-standing-changed", reason="restricted")

    def test_a_step_of_the_clock_jumps_over_no_due_point_not_even_2038(self):
        with Gateway(PROFILES, testclock=True) as g, fleet(g, 4) as sim:
            sim.settle()
            past_2038 = int(datetime.datetime(2038, 1, 20, tzinfo=datetime.timezone.utc).timestamp() - time.time())
            g.set_clock(both=0, wall_alone=past_2038)  # the wall clock alone leaps by years
            wait_for(lambda: all(r >= 1 for r in rotations(sim)), "everybody who was due")
            self.assertEqual(sim.books()["locked_out"], 0)
            standing = g.ctl("--json", "status")[1]["devices"]
            self.assertEqual(standing["operational"], 4)
            self.assertEqual(g.ctl("audit", "--verify")[0], 0)


if __name__ == "__main__":
    unittest.main()

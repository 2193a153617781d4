#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Calendar expressions beside systemd's own: `systemd-analyze calendar` is the second reader of hundreds of them, in UTC
and in zones with and without summer time."""

import datetime
import os
import random
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import BUILD

HELPER = os.path.join(BUILD, "system", "calendar_next")
BASE = 1790000000  # 2026-09-21: the changes of the clock in autumn and spring lie ahead
WRITTEN = """
minutely hourly daily weekly monthly quarterly semiannually yearly annually
""".split() + [
    "Sun *-*-* 03:00", "Sun 03:00", "Mon..Fri 22:30", "Mon,Wed,Fri 12:00", "Sat,Sun 08:05:40", "03:00", "*:0/15",
    "*-*-01 00:00", "*-*~01 23:30", "*-02-29", "2028-02-29 12:00", "*-02~03", "Mon *-05~07/1", "Fri *-*-13",
    "*-*-1..7 4:00:00", "*-*-01..07/2 4:00", "*-1,7-1", "2027..2030-06-01", "2026/2-*-01", "05:40", "23:59:59",
    "*-*-* 02:30", "*-*-* *:30:00/20", "Tue *-*-* 00/6:00", "12-25 18:00", "*-*-31", "Sun *-10-* 02:15", "Sun *-03-* 02:15",
    "monday 10:00", "Thu,Fri 2027-*-1,5 11:12:13", "*-*-* 10..12:00,30", "*-12~01 23:59:59", "*-*~05..07 12:00"]
REFUSED = ["", "Foo", "*-13-01", "*-*-32", "24:00", "12:60", "*-02-30", "5", "Mon..Foo", "Mon 12", "12:00 Mon",
           "*-*-* 12:00:00.5", "12:00 Europe/Berlin", "*-*-*-*", "1/0:00", "Fri..Mon", "*,3-01-01", "12:00 x", "@1790000000"]


def ours(lines, zone):
    out = subprocess.run([HELPER], input="".join("%d %s\n" % line for line in lines), capture_output=True, text=True,
                         check=True, env=dict(os.environ, TZ=zone))
    return [line.split("|") for line in out.stdout.splitlines()]


def systemds(expression, base, zone):
    """(normal form, elapses) as systemd has it, or None where it refuses."""
    r = subprocess.run(["systemd-analyze", "calendar", "--iterations=5", "--base-time=@%d" % base, expression],
                       capture_output=True, text=True, env=dict(os.environ, TZ=zone, LC_ALL="C.UTF-8"))
    if r.returncode != 0:
        return None
    form = re.search(r"Normalized form: (.*)", r.stdout)
    moments, in_utc = [], []
    for line in r.stdout.splitlines():
        found = re.match(r"\s*(Next elapse|Iteration #\d+|Iter\. #\d+|\(in UTC\)): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (\S+)", line)
        if found:
            (in_utc if "UTC" in found.group(1) else moments).append((found.group(2), found.group(3)))
    # Where the local zone is not UTC each elapse is said in UTC as well.
    said = in_utc if in_utc else moments
    seconds = [int(datetime.datetime.fromisoformat(t).replace(tzinfo=datetime.timezone.utc).timestamp()) for t, _ in said]
    return form.group(1) if form else expression, seconds


def generated(count):
    dice = random.Random(7)

    def part(least, most, width=2):
        kind = dice.randrange(6)
        a, b = sorted((dice.randint(least, most), dice.randint(least, most)))
        if kind <= 1:
            return "*"
        if kind == 2:
            return "%0*d" % (width, a)
        if kind == 3 and a < b:
            return "%0*d..%0*d" % (width, a, width, b)
        if kind == 4:
            return "%0*d/%d" % (width, a, dice.randint(2, 7))
        return ",".join("%0*d" % (width, v) for v in sorted({a, b}))

    for _ in range(count):
        days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        weekday = dice.choice(["", "", dice.choice(days) + " ", "%s,%s " % tuple(dice.sample(days, 2)), "Tue..Sat "])
        day, sign = part(1, 28), dice.choice("---~")
        if sign == "~" and "/" in day:  # which systemd counts only where it comes again before the month's end
            day = "%02d" % dice.randint(1, 28)
        date = "%s-%s%s%s" % (dice.choice(["*", "*", "2027..2033", "2028"]), part(1, 12), sign, day)
        time = "%s:%s:%s" % (part(0, 23), part(0, 59), dice.choice(["00", "30", part(0, 59)]))
        yield weekday + date + " " + time


@unittest.skipUnless(subprocess.run(["which", "systemd-analyze"], capture_output=True).returncode == 0,
                     "no systemd-analyze")
class Calendar(unittest.TestCase):
    def compare(self, expressions, zone, all_are_systemds=True):
        rng = random.Random(zone)
        lines = [(BASE + rng.randrange(0, 3 * 365 * 86400), e) for e in expressions]
        for (base, expression), mine in zip(lines, ours(lines, zone)):
            theirs = systemds(expression, base, zone)
            with self.subTest(zone=zone, expression=expression, base=base):
                if theirs is None:  # some repetitions that never come again before the field's end
                    self.assertFalse(all_are_systemds)
                    continue
                if not theirs[1]:  # never again, or never at all
                    self.assertTrue(mine[0] == "refused" or mine[1] == "-1", mine)
                    continue
                self.assertNotEqual(mine[0], "refused", mine)
                moments = [int(m) for m in mine[1:] if m != "-1"]
                self.assertEqual(moments[:len(theirs[1])], theirs[1])
                self.assertEqual(mine[0], theirs[0])

    def test_what_people_write_means_what_systemd_takes_it_for(self):
        self.compare(WRITTEN + [e + " UTC" for e in WRITTEN if ":" in e], "UTC")

    def test_in_zones_with_summer_time_too(self):
        for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe"):
            self.compare([e for e in WRITTEN if "02:" not in e], zone)

    def test_generated_expressions(self):
        self.compare(generated(150), "UTC", False)
        self.compare(generated(60), "Asia/Kolkata", False)

    def test_mistakes_are_refused_with_a_reason(self):
        for expression, answer in zip(REFUSED, ours([(BASE, e) for e in REFUSED], "UTC")):
            self.assertEqual(answer[0], "refused", expression)
            self.assertTrue(answer[1], expression)


if __name__ == "__main__":
    unittest.main()

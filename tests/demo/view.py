# SPDX-License-Identifier: Apache-2.0
"""What a person sees of the demo: a live frame on a terminal, plain lines elsewhere."""

import os
import shutil
import sys

RED, GREEN, YELLOW, DIM, BOLD = "31", "32", "33", "2", "1"


class View:
    EVENTS = 7

    def __init__(self, days):
        self.days = days
        self.live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colour = self.live and "NO_COLOR" not in os.environ
        self.events = []
        self.height = 0
        self.last_plain = -30

    def paint(self, text, *codes):
        return "\033[%sm%s\033[0m" % (";".join(codes), text) if self.colour else text

    def title(self, text):
        print(self.paint(text, BOLD))

    def step(self, text):
        print("  " + text, flush=True)

    def event(self, day, text, code=""):
        """Something that happens in the story."""
        line = "day %3d  %s" % (day, text)
        if self.live:
            self.events.append(self.paint(line, code) if code else line)
        else:
            print("  " + line, flush=True)

    def frame(self, day, facts, is_up):
        if not self.live:
            if day - self.last_plain >= 30 or day == self.days:
                self.last_plain = day
                print("  day %3d  %s" % (day, ", ".join("%s %s" % (k, v) for k, v in facts)), flush=True)
            return
        width = min(shutil.get_terminal_size().columns, 100)
        bar = width - 34
        done = bar * day // self.days
        lines = ["", "  day %3d of %d  %s%s  uplink %s" % (
            day, self.days, self.paint("█" * done, GREEN), self.paint("░" * (bar - done), DIM),
            self.paint("up", GREEN) if is_up else self.paint("down", YELLOW)), ""]
        for key, value in facts:
            lines.append("  %22s  %s" % (key, self.paint(str(value), BOLD)))
        lines.append("")
        shown = self.events[-self.EVENTS:]
        lines += ["  " + e for e in shown] + [""] * (self.EVENTS - len(shown))
        sys.stdout.write(("\033[%dA" % self.height if self.height else "") +
                         "".join("\033[2K" + line + "\n" for line in lines))
        sys.stdout.flush()
        self.height = len(lines)

    def verdict(self, rows):
        """rows: (what, figures, good). Returns whether all are good."""
        print()
        widest = max(len(what) for what, _, _ in rows)
        for what, figures, good in rows:
            mark = self.paint("✓", GREEN) if good else self.paint("✗", RED, BOLD)
            print("  %s %-*s  %s" % (mark, widest, what, figures))
        print()
        return all(good for _, _, good in rows)

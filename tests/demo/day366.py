# SPDX-License-Identifier: Apache-2.0
"""Day 366: the main job end to end. Fifty devices on monthly rotation and weekly attestation; the uplink is
cut; a year passes, a day at a time; core is killed in the middle of rotations, the clock is lost, a stolen
key comes knocking; on day 366 the uplink returns. Every count at the end was taken from two books that know
nothing of each other. Exit status 0: all of them agree."""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "system"), str(HERE.parent / "sim")]

DAY = 86400
INTERVAL_DAYS, JITTER = 30, 0.1
PROFILES = """
    { name = "sensor"; rotate_every = "30d"; jitter = 0.1; grace = "1d"; max_age = "180d";
      attestation = "eat"; attest_every = "7d"; max_session = "30d";
      references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); }
"""
NORTH = """verifier = "collector"; url = "%s"; ca_file = "%s/ca.pem"; client_certificate = "%s/client.pem";
    client_key = "%s/client.key"; retry_min = "1s"; retry_max = "2s";"""

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--build", default=str(HERE.parent.parent / "build"))
parser.add_argument("--devices", type=int, default=50)
parser.add_argument("--days", type=int, default=365, help="how long the uplink is away")
arguments = parser.parse_args()
os.environ["GATEWAYD_BUILD"] = os.path.abspath(arguments.build)

from expected import closest_to_midnight, rotation_days  # noqa: E402
from gateway import BUILD, Gateway, wait_for  # noqa: E402
from simulator import Simulator  # noqa: E402
from upstream import Upstream  # noqa: E402
from view import GREEN, RED, YELLOW, View  # noqa: E402


class Story:
    def __init__(self, devices, days):
        self.count, self.days = devices, days
        self.view = View(days)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-day366-"))
        self.upstream = self.gateway = self.sim = None
        self.core_kills = 0
        self.is_up = True
        self.day = 0
        self.said, self.seen = {}, 0  # events by name, and how many lines of the daemon were counted
        self.ids = ["sim-%04d" % (i + 1) for i in range(devices)]
        self.plan = {}  # day → how many devices rotate on it
        for device in self.ids:
            for day in rotation_days(device, INTERVAL_DAYS, JITTER, days):
                self.plan[day] = self.plan.get(day, 0) + 1

    # ---- the parts ----
    def set_up(self):
        registry, pki = self.folder / "registry.json", self.folder / "pki"
        registry.write_text("{}")
        self.upstream = Upstream(self.folder, "--attestation-keys", str(registry))
        self.upstream.start()  # chooses its port, which the gateway's configuration names
        self.gateway = Gateway(PROFILES, testclock=True, north=NORTH % (self.upstream.url, pki, pki, pki))
        self.sim = Simulator(os.path.join(BUILD, "gateway-sim"), gateway="127.0.0.1:%d" % self.gateway.port,
                             devices=self.count, seed=366, import_out=str(registry), ack_timeout=300,
                             backoff="50:1000", handshake_timeout=1500, test_clock=self.gateway.clock_path)
        self.sim.write_registry()
        self.upstream.stop()
        self.upstream.start()  # now it knows the devices' attestation keys
        self.gateway.start()
        self.gateway.ctl("device", "import", str(registry))
        self.sim.start()

    def tear_down(self):
        if self.sim:
            self.sim.close()
        if self.gateway:
            self.gateway.close()
        if self.upstream:
            self.upstream.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def status(self):
        return self.gateway.ctl("status", "--json")[1]

    # ---- days ----
    def count_events(self):
        """Counts what the daemon has said since the last look; its lines go on until it is started anew."""
        with self.gateway.changed:
            lines = self.gateway.lines[self.seen:]
            self.seen += len(lines)
        for line in lines:
            name = line.split(" ", 1)[0]
            self.said[name] = self.said.get(name, 0) + 1

    def facts(self):
        self.count_events()
        activated = self.said.get("credential-activated", 0)
        accepted = self.said.get("evidence-accepted", 0)
        return [("devices", self.count), ("rotations", max(activated - self.count, 0)),
                ("evidence receipted", accepted), ("waiting for the uplink", 0 if self.is_up else accepted - self.delivered),
                ("core killed and back", self.core_kills)]

    def show(self):
        self.view.frame(self.day, self.facts(), self.is_up)

    def tell(self, text, code=""):
        self.view.event(self.day, text, code)

    def next_day(self):
        self.day += 1
        self.sim.advance(DAY)

    def kill_core_while_rotating(self):
        """Kills core as soon as it has issued a key on this day, before the devices have all proven theirs."""
        mark = self.gateway.mark()
        pid = self.gateway.role_pid("core")

        def strike():
            try:
                self.gateway.wait_event("credential-issued", mark, seconds=10)
                os.kill(pid, signal.SIGKILL)
                struck.append(pid)
            except (AssertionError, ProcessLookupError):
                pass

        struck = []
        thread = threading.Thread(target=strike)
        thread.start()
        self.next_day()
        thread.join()
        if struck:
            self.core_kills += 1
            self.gateway.wait_event("role-started", mark, reason="core")
            self.tell("core killed with -9 in the middle of %d rotations; it comes back by itself" % self.plan[self.day],
                      YELLOW)

    def lose_the_clock(self):
        """A reboot without a battery: the wall clock says 1970, nothing synchronizes it."""
        self.tell("power cut; the clock comes back as 1970", YELLOW)
        self.gateway.process.kill()
        self.gateway.process.wait()
        self.count_events()
        self.seen = 0
        offset = self.sim.ask("advance", 0)["offset"]
        self.sim.ask("wall", -int(time.time() + offset) + 60)
        boottime = int(time.clock_gettime(time.CLOCK_BOOTTIME)) + offset
        self.gateway.environment["GATEWAYD_TEST_BOOT"] = "after-the-power-cut %d" % boottime
        self.gateway.start()

    def find_the_clock(self):
        self.sim.ask("wall", 0)
        self.tell("the time is known again")

    def pass_the_year(self):
        busy = [d for d in sorted(self.plan) if self.plan[d] >= 2]
        kills = {min(busy, key=lambda d: abs(d - self.days * share)) for share in (0.15, 0.4, 0.65, 0.9)} if busy else set()
        theft, knock = self.days // 4, self.days // 2
        lost, found = self.days // 3, self.days // 3 + 30
        self.knock = None
        while self.day < self.days:
            if self.day + 1 in kills:
                self.kill_core_while_rotating()
            else:
                self.next_day()
            self.sim.settle(60)
            if self.day == lost:
                self.lose_the_clock()
                self.sim.settle(60)
            if self.day == found:
                self.find_the_clock()
            if self.day == theft:
                self.stolen = self.sim.ask("steal", self.ids[7 % self.count])["identity"]
                self.tell("a thief copies the key of %s (%s…)" % (self.ids[7 % self.count], self.stolen[:4]), RED)
            if self.day == knock:
                self.knock = self.sim.ask("knock", self.ids[7 % self.count])
                self.tell("the stolen key comes knocking: handshake %s" % self.knock["handshake"],
                          GREEN if self.is_thief_refused() else RED)
            self.show()

    def is_thief_refused(self):
        """No handshake; or, while the stolen key's grace is running, no key for it."""
        return self.knock["handshake"] != "completed" or self.knock.get("cred") not in (None, "2.04")

    # ---- the end ----
    def verdict(self):
        self.sim.settle(60)
        wait_for(lambda: self.status()["backlog"]["records"] == 0, "the last evidence to arrive upstream")
        books, upstream = self.sim.books(), self.upstream.books()
        total, status = books["total"], self.status()
        rows = [row for d in self.ids for row in self.gateway.ctl("audit", "--device", d, "-n", "1000", "--json")[1]]
        activated = sum(r["event"] == "credential-activated" for r in rows)
        human = [r for r in rows if r["actor"].startswith("uid") and r["event"] != "device-registered"]
        chain = subprocess.run([self.gateway.gatewayctl, "--control", self.gateway.control, "audit", "--verify"],
                               capture_output=True).returncode
        expected = sum(self.plan.values())
        own = {d["id"]: d["evidence_accepted"] for d in books["fleet"]}
        theirs = {d: b["records"] for d, b in upstream["devices"].items()}
        operational = status["devices"]["operational"]
        clock_off = abs(status["clock"]["time"] - int(time.time() + self.sim.ask("advance", 0)["offset"]))
        return self.view.verdict([
            ("devices", "%d operational of %d" % (operational, self.count), operational == self.count),
            ("rotations", "%d by the devices' books, %d by the gateway's audit, %d computed from the intervals" % (
                total["rotations"], activated - self.count, expected),
             total["rotations"] == expected == activated - self.count),
            ("evidence", "%d sent and receipted, %d received upstream, %d verified there" % (
                total["evidence_accepted"], upstream["records"], upstream["evidence_verified"]),
             own == theirs and upstream["evidence_verified"] == upstream["records"] == total["evidence_accepted"]),
            ("receipt chain", "%s, %d receipts, %d out of order" % (
                "unbroken" if upstream["chain_unbroken"] else "BROKEN", upstream["records"], upstream["order_violations"]),
             upstream["chain_unbroken"] and upstream["order_violations"] == 0),
            ("audit chain", "verified, %d rows" % len(rows) if chain == 0 else "BROKEN", chain == 0),
            ("core killed with -9", "%d times, back by itself each time" % self.core_kills, self.core_kills > 0),
            ("clock lost", "once, to 1970; the gateway's time is %d s off at the end" % clock_off, clock_off < 300),
            ("thief", "refused" if self.is_thief_refused() else "got in: %s" % self.knock,
             self.is_thief_refused()),
            ("lock-outs", str(total["lock_outs"] + books["locked_out"]), total["lock_outs"] + books["locked_out"] == 0),
            ("human actions", str(len(human)), not human),
        ])

    def run(self):
        begun = time.monotonic()
        self.view.title("Day 366")
        if closest_to_midnight(self.ids, INTERVAL_DAYS, JITTER) < 300:
            print("these device ids fall due too close to a day's turn for an exact count", file=sys.stderr)
            return 2
        self.set_up()
        self.sim.settle(60)
        wait_for(lambda: self.status()["backlog"]["records"] == 0, "the first evidence to arrive upstream")
        self.delivered = self.upstream.books()["records"]
        self.view.step("%d devices came with their factory keys, got their own, proved them and attested" % self.count)
        self.upstream.stop()
        self.is_up = False
        self.tell("the uplink is cut", YELLOW)
        self.pass_the_year()
        self.day += 1
        self.upstream.start()
        self.is_up = True
        self.tell("the uplink returns; %d records are waiting" % self.status()["backlog"]["records"], GREEN)
        wait_for(lambda: self.status()["backlog"]["records"] == 0, "the backlog to drain", 60)
        self.tell("the backlog has drained", GREEN)
        self.view.days = max(self.view.days, self.day)
        self.show()
        good = self.verdict()
        print("  %s, in %d s" % ("all counts agree" if good else "NOT all counts agree", time.monotonic() - begun))
        return 0 if good else 1


story = Story(arguments.devices, arguments.days)
try:
    status = story.run()
except AssertionError as error:
    print(error, file=sys.stderr)
    if story.gateway:
        print(story.gateway.output()[-4000:], file=sys.stderr)
    status = 1
finally:
    story.tear_down()
sys.exit(status)

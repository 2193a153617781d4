# SPDX-License-Identifier: Apache-2.0
"""Day 366: the main job end to end. Fifty devices, half with PSKs and half with certificates, on monthly rotation
and weekly attestation; the uplink is cut; a year passes, a day at a time; core is killed in the middle of
rotations, the clock is lost, a stolen key comes knocking, the site's CA hands over to its successor, a device
is revoked; on day 366 the uplink returns. Every count at the end was taken from two books that know nothing
of each other. Exit status 0: all of them agree."""

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
# The successor of a CA that lives for 400 days is made after 200, and signs 30 days later. What the old one has
# signed until then lives for 60 days, and may be renewed for 30 more.
CA = 'ca = { validity = "400d"; successor_at = 0.5; announce = "30d"; };'
ANNOUNCED, SWITCHED, ENDED = 200, 230, 325
PROFILES = """
    { name = "sensor"; rotate_every = "30d"; jitter = 0.1; grace = "1d"; max_age = "180d";
      attestation = "eat"; attest_every = "7d"; max_session = "30d";
      references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); },
    { name = "sensor-x509"; credential = "certificate"; idevid_anchors = "%s";
      validity = "60d"; renew_at = 0.5; jitter = 0.1; grace = "1d"; max_age = "90d";
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

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402

from expected import closest_to_midnight, rotation_days  # noqa: E402
from gateway import BUILD, Gateway, wait_for  # noqa: E402
from simulator import Simulator  # noqa: E402
from upstream import Upstream  # noqa: E402
from view import GREEN, RED, YELLOW, View  # noqa: E402


CA_EVENTS = {
    "ca-successor-announced": "the site's CA has made its successor; devices are told of it before it signs",
    "ca-switched": "the successor signs from now on",
    "ca-generation-ended": "the last certificate of the first CA has gone, and so has its key",
}


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
        self.certified = self.ids[1::2]  # the others hold PSKs
        self.robbed, self.revoked = self.ids[6 % devices // 2 * 2], self.certified[5 % len(self.certified)]
        self.revocation_day = days * 5 // 6
        self.expected = {}  # device → how often it rotates
        self.plan = {}  # day → how many devices rotate on it
        for device in self.ids:
            rotates = rotation_days(device, INTERVAL_DAYS, JITTER, self.revocation_day if device == self.revoked else days)
            self.expected[device] = len(rotates)
            for day in rotates:
                self.plan[day] = self.plan.get(day, 0) + 1

    # ---- the parts ----
    def set_up(self):
        registry, pki, manufacturer = (self.folder / n for n in ("registry.json", "pki", "manufacturer.pem"))
        registry.write_text("{}")
        self.upstream = Upstream(self.folder, "--attestation-keys", str(registry))
        self.upstream.start()  # chooses its port, which the gateway's configuration names
        self.gateway = Gateway(PROFILES % manufacturer, top=CA, testclock=True, north=NORTH % (self.upstream.url, pki, pki, pki))
        self.sim = Simulator(os.path.join(BUILD, "gateway-sim"), gateway="127.0.0.1:%d" % self.gateway.port,
                             devices=self.count, seed=366, import_out=str(registry), ack_timeout=300,
                             backoff="50:1000", handshake_timeout=1500, test_clock=self.gateway.clock_path,
                             certificates=50, manufacturer=manufacturer)
        self.sim.write_registry()
        self.upstream.stop()
        self.upstream.start()  # now it knows the devices' attestation keys
        self.gateway.start()
        self.gateway.ctl("ca", "init")
        self.gateway.wait_event("server-certificate")
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
            if name == "credential-activated" and " profile=sensor-x509 " in line:
                self.said["certificate"] = self.said.get("certificate", 0) + 1
            if name in CA_EVENTS:
                self.tell(CA_EVENTS[name])

    def facts(self):
        self.count_events()
        certificates = self.said.get("certificate", 0)
        keys = self.said.get("credential-activated", 0) - certificates
        accepted = self.said.get("evidence-accepted", 0)
        return [("devices", self.count), ("keys rotated", max(keys - self.count + len(self.certified), 0)),
                ("certificates renewed", max(certificates - len(self.certified), 0)),
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

    def withdrawn(self):
        """How many certificates the CRL in force names as withdrawn, read by others than gatewayd."""
        active = next(g for g in self.gateway.ctl("ca", "show", "--json")[1]["generations"] if g["state"] == "active")
        path = pathlib.Path(self.gateway.folder, "crl", "%d.crl" % active["generation"])
        crl = x509.load_der_x509_crl(path.read_bytes())
        pem = self.gateway.ctl("ca", "show", "--pem")[1].encode()
        certificates = [x509.load_pem_x509_certificate(b"-----BEGIN" + p) for p in pem.split(b"-----BEGIN")[1:]]
        signer = next(c for c in certificates if c.fingerprint(hashes.SHA256()).hex() == active["sha256"])
        if not crl.is_signature_valid(signer.public_key()):
            raise AssertionError("the CRL is not signed by generation %d" % active["generation"])
        reason = x509.CRLReason(x509.ReasonFlags.privilege_withdrawn)
        return sum(extension.value == reason for entry in crl for extension in entry.extensions)

    def revoke(self):
        """Its session ends at once, and its certificate opens no other."""
        def book():
            return next(d for d in self.sim.books()["fleet"] if d["id"] == self.revoked)

        before = book()
        self.sim.ask("steal", self.revoked)
        began = time.monotonic()
        self.gateway.ctl("device", "revoke", self.revoked)
        wait_for(lambda: book()["sessions_lost"] > before["sessions_lost"], "the revoked device's session to end")
        self.revoked_within = time.monotonic() - began
        self.revoked_knock = self.sim.ask("knock", self.revoked)
        self.sim.ask("off", self.revoked)
        self.on_crl = wait_for(self.withdrawn, "a CRL that names it")
        self.tell("%s is revoked: its session ended within %d ms, its certificate is %s" % (
            self.revoked, 1000 * self.revoked_within + 1, self.revoked_knock["handshake"]), YELLOW)

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
                self.stolen = self.sim.ask("steal", self.robbed)["identity"]
                self.tell("a thief copies the key of %s (%s…)" % (self.robbed, self.stolen[:4]), RED)
            if self.day == self.revocation_day:
                self.revoke()
            if self.day == knock:
                self.knock = self.sim.ask("knock", self.robbed)
                self.tell("the stolen key comes knocking: handshake %s" % self.knock["handshake"],
                          GREEN if self.is_thief_refused() else RED)
            self.show()

    def is_thief_refused(self):
        """No handshake; or, while the stolen key's grace is running, no key for it."""
        return self.knock["handshake"] != "completed" or self.knock.get("cred") not in (None, "2.04")

    # ---- the end ----
    def rotations(self, books, rows, devices):
        """(by the devices' books, by the gateway's audit, computed)."""
        devices = set(devices)
        return (sum(d["rotations"] for d in books["fleet"] if d["id"] in devices),
                sum(r["event"] == "credential-activated" and r["device"] in devices for r in rows) - len(devices),
                sum(self.expected[d] for d in devices))

    def authority(self, books):
        """What became of the CA: (text, good)."""
        generations = {g["generation"]: g["state"] for g in self.gateway.ctl("ca", "show", "--json")[1]["generations"]}
        active = [n for n, state in generations.items() if state == "active"]
        fetched = sum(d["anchors_fetched"] for d in books["fleet"]) - len(self.certified)
        good = (active == [2 if self.days > SWITCHED else 1] and (1 in generations) == (self.days <= ENDED) and
                fetched == (len(self.certified) if self.days > ANNOUNCED else 0))
        return "generation %s signs%s; %d devices had learnt of it before" % (
            " and ".join(map(str, active)), "" if 1 in generations else ", the first is over", fetched), good

    def verdict(self):
        self.sim.settle(60)
        wait_for(lambda: self.status()["backlog"]["records"] == 0, "the last evidence to arrive upstream")
        books, upstream = self.sim.books(), self.upstream.books()
        total, status = books["total"], self.status()
        rows = [row for d in self.ids for row in self.gateway.ctl("audit", "--device", d, "-n", "1000", "--json")[1]]
        human = {r["device"] for r in rows if r["actor"].startswith("uid") and r["event"] != "device-registered"}
        keys = self.rotations(books, rows, set(self.ids) - set(self.certified))
        certificates = self.rotations(books, rows, self.certified)
        authority, authority_good = self.authority(books)
        locked_out = [d["id"] for d in books["fleet"] if d["locked_out"] and d["id"] != self.revoked]
        three = "%d by the devices' books, %d by the gateway's audit, %d computed from the intervals"
        chain = subprocess.run([self.gateway.gatewayctl, "--control", self.gateway.control, "audit", "--verify"],
                               capture_output=True).returncode
        own = {d["id"]: d["evidence_accepted"] for d in books["fleet"]}
        theirs = {d: b["records"] for d, b in upstream["devices"].items()}
        operational = status["devices"]["operational"]
        clock_off = abs(status["clock"]["time"] - int(time.time() + self.sim.ask("advance", 0)["offset"]))
        return self.view.verdict([
            ("devices", "%d operational of %d, one revoked" % (operational, self.count),
             operational == self.count - 1 and status["devices"]["revoked"] == 1),
            ("keys rotated", three % keys, keys[0] == keys[1] == keys[2]),
            ("certificates renewed", three % certificates, certificates[0] == certificates[1] == certificates[2]),
            ("the site's CA", authority, authority_good),
            ("revocation", "the session ended within %d ms, the certificate is %s, the CRL names %d of its certificates" % (
                1000 * self.revoked_within + 1, self.revoked_knock["handshake"], self.on_crl),
             self.revoked_within < 1 and self.revoked_knock["handshake"] == "refused"),
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
            ("lock-outs", str(len(locked_out)), not locked_out),
            ("human actions", "1, the revocation" if human == {self.revoked} else "at %s" % ", ".join(sorted(human)),
             human == {self.revoked}),
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
        self.view.step("%d devices came with what the factory gave them, %d a key and %d a certificate; each got its own "
                       "from this gateway, proved it and attested" % (
                           self.count, self.count - len(self.certified), len(self.certified)))
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

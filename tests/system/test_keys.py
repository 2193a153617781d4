#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway's own keys on the real daemon: what gatewayctl keys shows, data keys and receipt keys that change while a
fleet is served, and a sealing key that is changed by a program that is killed wherever it can be."""

import hashlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import BUILD, SLOW, Gateway, wait_for  # noqa: E402
from test_fleet import DAY, PROFILES, Simulator, fleet  # noqa: E402
from test_relay import NORTH  # noqa: E402
from upstream import Upstream  # noqa: E402

OWN = 'keys = { receipt_every = "60d"; data_every = "20d"; sealing_every = "100d"; };'


def own(gateway):
    """The gateway's own keys, by kind; of several generations the newest."""
    rows = {}
    for row in gateway.ctl("keys", "--json")[1]["gateway"]:
        rows.setdefault(row["kind"], row)
    return rows


def profiles(gateway):
    return {row["profile"]: row for row in gateway.ctl("keys", "--json")[1]["profiles"]}


class Keys(unittest.TestCase):
    def test_every_key_is_shown_with_its_age_its_due_time_and_its_rule(self):
        with Gateway(PROFILES, top=OWN, testclock=True) as g, fleet(g, 5) as sim:
            g.ctl("ca", "init")
            g.ctl("sealing", "recovery")
            sim.settle()
            sim.advance(5 * DAY)
            sim.settle()
            rows = own(g)
            self.assertEqual(set(rows), {"receipt", "data", "sealing", "recovery", "server", "ca", "cookie",
                                         "challenge"})
            for kind, every, due in (("receipt", 60, 55), ("data", 20, 15), ("sealing", 100, 95)):
                self.assertEqual((rows[kind]["every"], rows[kind]["generation"]), (every * DAY, 1), kind)
                self.assertAlmostEqual(rows[kind]["due_in"], due * DAY, delta=120)
                self.assertAlmostEqual(rows[kind]["age"], 5 * DAY, delta=120)
                self.assertEqual(rows[kind]["policy"], "keys.%s_every" % kind)
            self.assertEqual(len(rows["recovery"]["id"]), 64)
            self.assertNotIn("every", rows["challenge"])
            sensor = profiles(g)["sensor"]
            self.assertEqual((sensor["devices"], sensor["active"], sensor["due"], sensor["late"]), (5, 5, 0, 0))
            self.assertAlmostEqual(sensor["oldest"], 5 * DAY, delta=120)
            self.assertEqual(sensor["every"], 30 * DAY)
            g.ctl("pause", "sensor", "--for", "10d")
            self.assertGreater(profiles(g)["sensor"]["paused_for"], 9 * DAY)
            self.assertNotIn("paused_for", profiles(g)["plain"])
            for _ in range(3):
                sim.advance(9 * DAY)
                sim.settle()
            after = own(g)
            self.assertEqual(after["data"]["generation"], 2)
            self.assertGreater(after["receipt"]["age"], rows["receipt"]["age"])
            text = g.ctl("keys")[1]
            for word in ("KIND", "receipt 1", "keys.receipt_every = 60d", "needs no schedule", "rotate_every = 30d"):
                self.assertIn(word, text)

    def test_all_keys_of_the_fleet_come_page_by_page(self):
        with Gateway(PROFILES) as g:
            path = os.path.join(g.folder, "many.csv")
            with open(path, "w") as f:
                f.write("id,profile,psk\n")
                for i in range(1300):
                    f.write("d-%04d,%s,text:factory-key-%04d\n" % (i, "plain" if i % 13 else "sensor", i))
            code, text = g.ctl("device", "import", path, check=False)
            self.assertEqual(code, 0, text)
            listed = g.ctl("keys", "--devices", "--json")[1]
            self.assertEqual(sorted({row["device"] for row in listed}), ["d-%04d" % i for i in range(1300)])
            self.assertEqual(len(g.ctl("keys", "--devices", "sensor", "--json")[1]), 100)
            counted = profiles(g)
            self.assertEqual((counted["plain"]["devices"], counted["sensor"]["devices"]), (1200, 100))
            self.assertEqual(counted["plain"]["bootstrap"], 1200)
            code, text = g.ctl("keys", "--devices", "nobody", check=False)
            self.assertEqual(code, 1)
            self.assertIn("no profile nobody", text)
            self.assertEqual(g.ctl("keys", "plain", check=False)[0], 2)

    def test_data_keys_change_while_a_fleet_is_served_and_a_reminder_is_told_once(self):
        with Gateway(PROFILES, top=OWN, testclock=True) as g, fleet(g, 12) as sim:
            sim.settle()
            for _ in range(26):
                sim.advance(5 * DAY)
                sim.settle()
            wait_for(lambda: own(g)["data"]["state"] == "active", "all secrets under the newest data key")
            wait_for(lambda: own(g)["data"]["generation"] >= 6, "the sixth data key", 60)
            self.assertEqual(sim.books()["locked_out"], 0)
            self.assertEqual(len(g.events("gateway-key-due", reason="sealing key")), 1)
            self.assertIn("sealing rotate", g.events("gateway-key-due")[0]["reason"])
            g.stop()
            g.start()
            for _ in range(8):
                sim.advance(5 * DAY)
                sim.settle(60 * SLOW, check=False)
            self.assertEqual(sim.books()["locked_out"], 0)
            self.assertEqual(g.events("gateway-key-due"), [])


class Receipts(unittest.TestCase):
    def test_a_collector_follows_the_receipt_keys_through_the_chain_also_after_months_without_it(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-keys-"))
        self.addCleanup(shutil.rmtree, folder)
        registry = folder / "registry.json"
        registry.write_text("{}")
        up = Upstream(folder, "--attestation-keys", str(registry))
        up.start()
        self.addCleanup(up.stop)
        with Gateway(PROFILES, top=OWN, testclock=True, north=NORTH % (up.url, *[folder / "pki"] * 3)) as g:
            sim = Simulator(os.path.join(BUILD, "gateway-sim"), gateway="127.0.0.1:%d" % g.port, devices=4, seed=3,
                            import_out=str(registry), ack_timeout=200, backoff="50:1000", test_clock=g.clock_path)
            sim.write_registry()
            up.stop()
            up.start()
            g.ctl("device", "import", str(registry))
            with sim:
                sim.settle(60 * SLOW)
                for week in range(30):
                    if week == 3:
                        up.stop()
                    sim.advance(7 * DAY)
                    sim.settle(60 * SLOW)
                # The devices have settled; core may still be about to look at its own keys.
                wait_for(lambda: own(g)["receipt"]["generation"] == 4, "the fourth receipt key", 60)
                up.start()
                g.ctl("relay", "now", check=False)
                wait_for(lambda: g.ctl("status", "--json")[1]["backlog"]["records"] == 0, "everything upstream", 60)
        books = up.books()
        self.assertTrue(books["chain_unbroken"], books["chains"])
        self.assertEqual(books["refused"], 0, books["last_error"])
        self.assertEqual(len(books["receipt_keys"]["test-gateway"]), 4)
        self.assertEqual(books["devices"][""]["records"], 3)
        self.assertEqual(books["evidence_unverified"], 3)  # the announcements; all else is signed by its device


class Sealing(unittest.TestCase):
    """The test-clock build of gatewayctl names its steps, and ends before the chosen one."""

    def setUp(self):
        self.g = Gateway(testclock=True)
        self.g.gatewayctl = os.path.join(BUILD, "testclock", "gatewayctl")
        self.addCleanup(self.g.close)
        self.g.start()

    def key(self, name="sealing.key"):
        return pathlib.Path(self.g.store, name).read_bytes()

    def rotate_until(self, point):
        """Killed before that point; or its end, where it has fewer. Returns its exit status."""
        path = os.path.join(self.g.folder, "points")
        pathlib.Path(path).write_bytes(struct.pack("=qq", 0, point))
        environment = dict(os.environ, GATEWAYD_TEST_CRASH=path)
        return subprocess.run([self.g.gatewayctl, "--control", self.g.control, "sealing", "rotate"], env=environment,
                              capture_output=True, timeout=60 * SLOW).returncode

    def crash(self):
        """All of gatewayd at once, and its next start."""
        core = self.g.role_pid("core")
        self.g.process.kill()
        self.g.process.wait()
        if core:
            wait_for(lambda: not os.path.exists("/proc/%d" % core), "the end of core")
        self.g.start()

    def test_killed_at_any_step_it_leaves_a_key_that_opens_and_goes_on_when_it_is_run_again(self):
        g = self.g
        g.add_device("d-1", psk="factory-key-of-d-1")
        for with_crash in (True, False):
            point = 1
            while True:
                before = self.key()
                status = self.rotate_until(point)
                if status == 0:
                    break
                self.assertEqual(status, -signal.SIGKILL)
                if with_crash:
                    self.crash()
                g.ctl("sealing", "rotate")
                self.assertNotEqual(self.key(), before)
                self.assertFalse(os.path.exists(os.path.join(g.store, "sealing.key.new")))
                self.assertEqual(own(g)["sealing"]["state"], "active")
                point += 1
            self.assertGreaterEqual(point, 8)
            self.crash()
            self.assertEqual(g.ctl("device", "show", "d-1", "--json")[0], 0)

    def test_the_key_of_before_opens_nothing_any_more(self):
        g, before = self.g, self.key()
        self.assertEqual(g.ctl("sealing", "rotate")[0], 0)
        g.wait_event("gateway-key-rotated", reason="sealing key: generation 2")
        self.assertEqual(os.stat(os.path.join(g.store, "sealing.key")).st_mode & 0o777, 0o600)
        g.stop()
        now = self.key()
        pathlib.Path(g.store, "sealing.key").write_bytes(before)
        g.start(wait=False)
        g.wait_event("store-refused")
        self.assertEqual(g.process.wait(20 * SLOW), 78)
        pathlib.Path(g.store, "sealing.key").write_bytes(now)
        g.start()

    def test_a_given_key_is_taken_in_either_shape(self):
        g = self.g
        for shape in (bytes(range(32)), hashlib.sha256(b"x").hexdigest().encode() + b"\n"):
            path = os.path.join(g.folder, "given")
            pathlib.Path(path).write_bytes(shape)
            self.assertEqual(g.ctl("sealing", "rotate", "--key", path)[0], 0)
            self.assertEqual(self.key(), shape if len(shape) == 32 else bytes.fromhex(shape.decode()))
            self.assertEqual(g.ctl("sealing", "rotate", "--key", path)[0], 3)
            self.crash()

    def test_what_does_not_fit_changes_nothing(self):
        g, before = self.g, self.key()
        other = os.path.join(g.folder, "other")
        pathlib.Path(other).write_bytes(bytes(32))
        short = os.path.join(g.folder, "short")
        pathlib.Path(short).write_bytes(bytes(31))
        for words, says in ((("--key", short), "32 raw bytes"), (("--key", "/nothing"), "No such file"),
                            (("--file", other), "another key than the store"),
                            (("--file", "/nothing"), "there is nothing"),
                            (("--credential", other, "--file", other), "not in both"),
                            (("--file", other, "--with-key=host"), "goes with a credential"),
                            (("more",), "")):
            code, text = g.ctl("sealing", "rotate", *words, check=False)
            self.assertIn(code, (1, 2), words)
            self.assertIn(says, text)
        self.assertEqual(self.key(), before)
        self.assertEqual(sorted(p for p in os.listdir(g.store) if "sealing" in p), ["sealing.key"])
        self.crash()

    @unittest.skipUnless(os.geteuid() == 0, "another user is needed")
    def test_operators_who_are_not_root_cannot_change_it(self):
        g = self.g
        os.chmod(g.folder, 0o755)
        os.chmod(g.control, 0o666)
        for words in (["sealing", "rotate"], ["sealing", "rotate", "--file", "/dev/null"]):
            r = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", g.gatewayctl, "--control",
                                g.control, *words], capture_output=True, text=True, timeout=60 * SLOW)
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn("only root", r.stderr)


if __name__ == "__main__":
    unittest.main()

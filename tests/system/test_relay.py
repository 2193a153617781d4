#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The relay on the real daemon: a simulated fleet attests, gatewayd keeps and carries, and the collector
verifies every signature with a second implementation."""
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "sim"))
from gateway import BUILD, SLOW, Gateway, wait_for
from simulator import Simulator
from upstream import Upstream

DAY = 86400
PROFILES = """
        { name = "sensor"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; attestation = "eat";
          attest_every = "7d"; max_session = "30d";
          references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); }
"""
NORTH = """verifier = "collector"; url = "%s"; ca_file = "%s/ca.pem"; client_certificate = "%s/client.pem";
        client_key = "%s/client.key"; retry_min = "1s"; retry_max = "2s";"""


class Relay(unittest.TestCase):
    """One gateway, one collector, one fleet of eight: stopped in this order after each test."""

    DEVICES = 8

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-relay-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def begin(self, *faults, north=NORTH):
        registry = self.folder / "registry.json"
        pki = self.folder / "pki"
        self.up = Upstream(self.folder, "--attestation-keys", str(registry), *faults)
        registry.write_text("{}")
        # The collector's port is known once it listens, the gateway's before that; so the collector comes
        # first, and again once the fleet's keys are known.
        self.up.start()
        self.addCleanup(self.up.stop)
        self.gateway = Gateway(PROFILES, testclock=True, north=north % (self.up.url, pki, pki, pki))
        self.addCleanup(self.gateway.close)
        self.sim = Simulator(os.path.join(BUILD, "gateway-sim"), gateway="127.0.0.1:%d" % self.gateway.port,
                             devices=self.DEVICES, seed=11, import_out=str(registry), ack_timeout=200,
                             backoff="50:1000", test_clock=self.gateway.clock_path)
        self.sim.write_registry()
        self.up.stop()
        self.up.start()
        self.gateway.start()
        self.gateway.ctl("device", "import", str(registry))
        self.sim.start()
        self.addCleanup(self.sim.close)
        self.sim.settle(60 * SLOW)

    def weeks(self, count):
        for _ in range(count):
            self.sim.advance(7 * DAY)
            self.sim.settle(60 * SLOW)

    def settle_through_a_restart(self):
        """Each pause of a device is over at once when the clock moves."""
        for _ in range(60):
            if self.sim.settle(2 * SLOW, check=False)["ok"]:
                return
            self.sim.advance(60)
        self.sim.settle(60 * SLOW)

    def backlog(self):
        return self.gateway.ctl("status", "--json")[1]["backlog"]["records"]

    def accepted(self):
        """What the devices were told is safely stored, by their own books."""
        return self.sim.books("total")["total"]["evidence_accepted"]

    def arrived(self):
        """Waits until nothing is left, and returns the collector's books."""
        def is_all_there():
            # A device whose pause ends between two looks has more to say: until both books agree.
            self.sim.settle(60 * SLOW)
            sent = self.accepted()
            return self.backlog() == 0 and self.up.books()["records"] >= sent == self.accepted()

        wait_for(is_all_there, "an empty backlog", 60)
        return self.up.books()

    def check(self, books, parked=0):
        """The collector's books against the devices' own."""
        sent = self.accepted()
        self.assertEqual(books["records"], sent, books)
        self.assertEqual(books["evidence_verified"], sent - parked, books)
        self.assertEqual(books["receipts_alone"], parked, books)
        self.assertEqual(books["order_violations"], 0, books)
        self.assertTrue(books["chain_unbroken"], books["chains"])
        self.assertEqual([s for s, _, _ in self.up.sequences()], list(range(1, sent + 1)))
        own = {d["id"]: d["evidence_accepted"] for d in self.sim.books()["fleet"]}
        self.assertEqual({d: b["records"] for d, b in books["devices"].items()}, own)

    def test_evidence_arrives_while_the_uplink_is_up(self):
        self.begin()
        self.gateway.wait_event("uplink-up")
        self.weeks(3)
        self.check(self.arrived())
        self.gateway.wait_event("evidence-relayed")

    def test_offline_everything_is_kept_and_arrives_once_in_order(self):
        self.begin("--drop-after-store", "0.5", "--fail-rate", "0.3", "--seed", "3")
        before = self.arrived()["records"]
        self.up.stop()
        self.weeks(6)
        self.gateway.wait_event("uplink-down")
        self.assertEqual(self.backlog(), self.accepted() - before)
        self.assertGreaterEqual(self.backlog(), 4 * self.DEVICES)
        # Whoever dies meanwhile: what was answered is kept.
        for role in ("north", "core"):
            killed = self.gateway.role_pid(role)
            os.kill(killed, 9)
            wait_for(lambda: self.gateway.role_pid(role) not in (None, killed), "a new " + role)
            self.settle_through_a_restart()
        self.weeks(2)
        mark = self.gateway.mark()
        self.up.start()
        self.gateway.wait_event("uplink-up", since=mark)
        self.check(self.arrived())

    def test_north_killed_while_the_backlog_drains_loses_and_doubles_nothing(self):
        self.begin("--slow", "0.2")
        self.up.stop()
        self.weeks(5)
        self.up.start()
        for _ in range(3):
            killed = self.gateway.role_pid("north")
            before = self.up.books()["posts"]
            wait_for(lambda: self.up.books()["posts"] > before or self.backlog() == 0, "the next POST")
            os.kill(killed, 9)
            wait_for(lambda: self.gateway.role_pid("north") not in (None, killed), "a new north")
        self.check(self.arrived())

    def test_a_restarted_gateway_goes_on_where_it_was(self):
        self.begin()
        self.up.stop()
        self.weeks(2)
        self.gateway.stop()
        self.gateway.start()
        self.settle_through_a_restart()
        self.up.start()
        self.check(self.arrived())
        self.weeks(1)
        self.check(self.arrived())

    def test_a_refused_record_is_parked_with_an_event_and_its_receipt_arrives(self):
        self.begin("--status", "422-for-sequence 3", "--status", "400-for-sequence 12")
        self.weeks(4)
        books = self.arrived()
        self.check(books, parked=2)
        parked = self.gateway.events("evidence-parked")
        self.assertEqual(len(parked), 2)
        self.assertIn("422", parked[0]["reason"])
        self.assertEqual(self.gateway.ctl("status", "--json")[1]["north"]["parked"], 2)

    def test_a_receipt_refused_as_well_holds_up_nobody_and_is_tried_by_the_next_north(self):
        self.begin("--status", "409-for-receipt 3")
        self.weeks(1)
        wait_for(lambda: self.backlog() == 1, "all others to arrive", 60)
        self.up.faults(status=[])
        for _ in range(2):
            killed = self.gateway.role_pid("north")
            os.kill(killed, 9)
            wait_for(lambda: self.gateway.role_pid("north") not in (None, killed), "a new north")
            self.arrived()
            wait_for(lambda: self.gateway.ctl("status", "--json")[1]["north"]["in_flight"] == 0, "an empty window")
        books = self.up.books()
        self.assertEqual(books["receipts_alone"], 1)
        self.assertTrue(books["chain_unbroken"])

    def test_a_collector_that_refuses_the_gateway_costs_nothing(self):
        self.begin()
        self.arrived()
        self.up.faults(deny=403)
        self.weeks(4)
        self.gateway.wait_event("uplink-down", reason="HTTP 403")
        self.assertGreaterEqual(self.backlog(), 2 * self.DEVICES)
        self.up.faults(deny=0)
        self.check(self.arrived())
        self.assertEqual(self.gateway.events("evidence-parked"), [])

    def test_without_its_certificate_devices_are_served_and_a_reload_makes_good(self):
        self.begin()
        sent = self.arrived()["records"]
        certificate = self.folder / "pki" / "client.pem"
        certificate.rename(self.folder / "away.pem")
        self.gateway.stop()
        self.gateway.start()
        self.gateway.wait_event("uplink-down", reason="No such file")
        self.settle_through_a_restart()
        self.weeks(3)
        self.assertEqual(self.backlog(), self.accepted() - sent)
        self.assertGreaterEqual(self.backlog(), self.DEVICES)
        (self.folder / "away.pem").rename(certificate)
        mark = self.gateway.mark()
        self.gateway.process.send_signal(signal.SIGHUP)
        self.gateway.wait_event("uplink-up", since=mark)
        self.check(self.arrived())

    def test_without_a_verifier_evidence_waits_and_goes_once_there_is_one(self):
        self.begin()
        self.arrived()
        pki = self.folder / "pki"
        self.gateway.write_config(PROFILES)
        self.gateway.stop()
        self.gateway.start()
        self.settle_through_a_restart()
        before = self.up.books()["posts"]
        self.weeks(3)
        self.assertGreaterEqual(self.backlog(), self.DEVICES)
        self.assertEqual(self.up.books()["posts"], before)
        self.gateway.write_config(PROFILES, north=NORTH % (self.up.url, pki, pki, pki))
        self.gateway.stop()
        self.gateway.start()
        self.settle_through_a_restart()
        self.check(self.arrived())


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: somebody sets the clock a year ahead or a year back, and no device notices."""

import os
import tempfile
import time
import unittest

from coap import ACK, CON, GET, OBSERVE, POST, encode
from gateway import SLOW
from south_bed import Device, South, moved_clock
from test_south_handshake import begin

YEAR = str(365 * 86400)


class ClockJumps(unittest.TestCase):
    def setUp(self):
        self.clock = tempfile.NamedTemporaryFile("w", prefix="gatewayd-clock-")
        self.addCleanup(self.clock.close)
        self.set_clock("0")
        self.south = South(environment=moved_clock(TEST_CLOCK_OFFSET=self.clock.name))
        self.addCleanup(self.south.__exit__)

    def set_clock(self, offset):
        path = self.clock.name + ".new"
        with open(path, "w") as f:
            f.write(offset + "\n")
        os.rename(path, self.clock.name)

    def connect(self):
        device = Device(self.south).connect()
        self.addCleanup(device.close)
        return device

    def both_ways(self):
        for before, after in (("0", YEAR), (YEAR, "0"), ("0", "-" + YEAR)):
            self.set_clock(before)
            yield after

    def test_the_clock_of_the_test_really_jumps(self):
        self.set_clock(YEAR)
        self.south.command("clock")
        ahead = self.south.wait_for("clock", since=len(self.south.events) - 2)["seconds"]
        self.assertGreater(ahead - time.time(), 300 * 86400)

    def test_a_message_that_was_lost_is_sent_again_in_its_own_time(self):
        for offset in self.both_ways():
            device = self.connect()
            _, token = device.send(CON, GET, "slow/700")
            device.receive()
            first = device.receive()
            self.assertEqual((first.kind, first.token), (CON, token))
            start = time.monotonic()
            self.set_clock(offset)
            again = device.receive(8)
            self.assertIsNotNone(again)
            self.assertEqual(again.mid, first.mid)
            self.assertGreater(time.monotonic() - start, 1.5)
            device.write(encode(ACK, 0, again.mid))
            self.assertEqual(device.get("time").status, "2.05")

    def test_an_observer_and_a_body_on_its_way_outlive_the_jump(self):
        for offset in self.both_ways():
            device = self.connect()
            session = self.south.session_of(device)
            self.assertIsNotNone(device.request(GET, "me", [(OBSERVE, b"")]).option(OBSERVE))
            self.assertEqual(device.request(POST, "digest", [(27, b"\x0a")], bytes(64)).status, "2.31")
            self.set_clock(offset)
            self.assertEqual(device.get("time").status, "2.05")
            self.assertEqual(device.request(POST, "digest", [(27, b"\x12")], bytes(10)).status, "2.04")
            self.south.command("notify %d me still" % session)
            message = device.receive()
            self.assertEqual(message.payload, b"still")
            device.write(encode(ACK, 0, message.mid))
        self.assertEqual(self.south.seen("closed"), [])

    def test_a_request_that_waits_for_core_gets_its_answer(self):
        for offset in self.both_ways():
            device = self.connect()
            self.south.command("hold")
            _, token = device.send(CON, GET, "time")
            self.assertEqual(device.receive().code, 0)
            self.set_clock(offset)
            self.south.command("release")
            self.assertEqual(device.response(token).status, "2.05")

    def test_a_flight_of_a_handshake_is_sent_again_in_its_own_time(self):
        for offset in self.both_ways():
            device = begin(Device(self.south))
            while device.take(0.2):  # the rest of the flight
                pass
            seen = len(device.received)
            self.set_clock(offset)
            start = time.monotonic()
            self.assertTrue(device.take(5 * SLOW))
            self.assertEqual(device.received[seen][0], 22)
            self.assertLess(time.monotonic() - start, 3 * SLOW)
            # And not in a storm: the second after twice the time.
            while device.take(0.05):
                pass
            self.assertFalse(device.take(0.8))
            device.connect()
            device.close()


if __name__ == "__main__":
    unittest.main()

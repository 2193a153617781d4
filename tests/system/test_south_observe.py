#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: observers of one device's own resources, and nobody else's."""

import time
import unittest

from coap import ACK, CON, GET, MAX_AGE, OBSERVE, RST, encode, uint
from gateway import SLOW
from south_bed import Device, South, moved_clock

ETAG, BLOCK2 = 4, 23


class Observing(unittest.TestCase):
    def setUp(self):
        self.south = South()
        self.addCleanup(self.south.__exit__)
        self.device, self.session = self.connect()

    def connect(self):
        device = Device(self.south).connect()
        self.addCleanup(device.close)
        return device, self.south.session_of(device)

    def observe(self, device, path="me", token=b"ob", options=()):
        answer = device.request(GET, path, [(OBSERVE, b"")] + list(options), token=token)
        self.assertEqual(answer.status, "2.05")
        return answer

    def notify(self, text, session=None, path="me"):
        self.south.command("notify %d %s %s" % (session or self.session, path, text))

    def acknowledge(self, device, message):
        device.write(encode(ACK, 0, message.mid))

    def test_a_notification_is_confirmable_and_its_number_increases(self):
        last = self.observe(self.device).option(OBSERVE)
        for text in ("one", "two", "three"):
            self.notify(text)
            message = self.device.receive()
            self.assertEqual((message.kind, message.token, message.payload), (CON, b"ob", text.encode()))
            self.assertEqual(message.option(MAX_AGE), 60)
            self.assertGreater(message.option(OBSERVE), last)
            last = message.option(OBSERVE)
            self.acknowledge(self.device, message)
        self.assertEqual(self.south.statistics(notifications=3)["observers"], 1)

    def test_one_device_s_notification_wakes_no_other(self):
        other, _ = self.connect()
        self.observe(self.device)
        self.observe(other)
        self.observe(self.device, "other", b"x")
        self.notify("mine")
        message = self.device.receive()
        self.assertEqual(message.token, b"ob")
        self.acknowledge(self.device, message)
        self.assertIsNone(other.receive(0.3 / SLOW))
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_where_core_does_not_accept_it_nobody_observes(self):
        answer = self.device.request(GET, "time", [(OBSERVE, b"")])
        self.assertEqual((answer.status, answer.option(OBSERVE)), ("2.05", None))
        self.notify("x", path="time")
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_a_reset_ends_the_observation(self):
        self.observe(self.device)
        self.notify("one")
        message = self.device.receive()
        self.device.write(encode(RST, 0, message.mid))
        self.notify("two")
        self.assertIsNone(self.device.receive(0.3 / SLOW))
        self.assertEqual(self.device.get("time").status, "2.05")
        self.assertEqual(self.south.statistics(requests=2)["observers"], 0)

    def test_deregistering_ends_the_observation(self):
        self.observe(self.device)
        answer = self.device.request(GET, "me", [(OBSERVE, uint(1))], token=b"ob")
        self.assertEqual((answer.status, answer.option(OBSERVE)), ("2.05", None))
        self.notify("x")
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_registering_again_renews_and_does_not_double(self):
        first = self.observe(self.device).option(OBSERVE)
        again = self.observe(self.device).option(OBSERVE)
        self.assertGreater(again, first)
        self.notify("x")
        self.acknowledge(self.device, self.device.receive())
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_what_changes_while_a_notification_is_under_way_is_told_once_and_newest(self):
        self.observe(self.device)
        for text in ("one", "two", "three", "four"):
            self.notify(text)
        told = []
        while not told or told[-1] != b"four":
            message = self.device.receive()
            told.append(message.payload)
            self.acknowledge(self.device, message)
        self.assertEqual(told[0], b"one")
        self.assertLess(len(told), 4)
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_a_lost_notification_is_sent_again(self):
        self.observe(self.device)
        self.notify("one")
        first = self.device.receive()
        again = self.device.receive(6)
        self.assertEqual((again.mid, again.payload, again.option(OBSERVE)),
                         (first.mid, first.payload, first.option(OBSERVE)))
        self.acknowledge(self.device, again)

    def test_an_error_ends_the_observation(self):
        self.observe(self.device)
        self.notify("gone")
        message = self.device.receive()
        self.assertEqual((message.status, message.option(OBSERVE)), ("4.04", None))
        self.acknowledge(self.device, message)
        self.notify("back")
        self.assertIsNone(self.device.receive(0.3 / SLOW))

    def test_a_large_state_comes_as_its_first_block_and_the_rest_on_request(self):
        self.observe(self.device, options=[(BLOCK2, b"\x02")])
        self.notify("size/150")
        message = self.device.receive()
        self.acknowledge(self.device, message)
        self.assertEqual((message.option(BLOCK2), len(message.payload)), (8 | 2, 64))
        rest = self.device.get("me", [(BLOCK2, uint(1 << 4 | 2))])
        last = self.device.get("me", [(BLOCK2, uint(2 << 4 | 2))])
        self.assertEqual(rest.option(ETAG), message.option(ETAG))
        self.assertEqual(rest.option(OBSERVE), None)
        self.assertEqual(len(message.payload + rest.payload + last.payload), 150)
        self.assertEqual(len(self.south.seen("request")), 1)

    def test_a_session_has_at_most_four_observers(self):
        for i in range(4):
            self.assertIsNotNone(self.observe(self.device, token=b"t%d" % i).option(OBSERVE))
        self.assertIsNone(self.observe(self.device, token=b"t4").option(OBSERVE))
        self.assertEqual(self.south.statistics(observers=4)["observers"], 4)

    def test_observations_end_with_the_session(self):
        self.observe(self.device)
        source = self.device.source
        self.device.close(with_notify=False)
        again = Device(self.south, source=source).connect()
        self.south.wait_for("closed", session=self.session, reason="replaced")
        self.notify("x")
        self.notify("x", self.session + 1)
        self.assertIsNone(again.receive(0.3 / SLOW))
        again.close()
        self.assertEqual(self.south.statistics(handshakes=2)["observers"], 0)

    def test_a_handshake_or_a_request_meanwhile_does_not_end_an_observation(self):
        self.observe(self.device)
        for _ in range(20):
            self.assertEqual(self.device.get("time").status, "2.05")
        self.notify("still")
        message = self.device.receive()
        self.assertEqual(message.payload, b"still")
        self.acknowledge(self.device, message)


class Silence(unittest.TestCase):
    def test_silence_ends_the_observation_after_four_retransmissions(self):
        # Time runs twenty times as fast for south. Its timers sleep in real time, so another device
        # keeps it awake; one engine, so that the same libcoap looks at its clock each time.
        with South("engines=1", environment=moved_clock(TEST_CLOCK_RATE="20")) as south:
            silent, lively = Device(south).connect(), Device(south).connect()
            session = south.session_of(silent)
            self.assertIsNotNone(silent.request(GET, "me", [(OBSERVE, b"")]).option(OBSERVE))
            south.command("notify %d me x" % session)
            seen = []
            deadline = time.monotonic() + 20 * SLOW
            south.statistics(observers=1)
            while not any(e["event"] == "statistics" and e["observers"] == 0 and e["notifications"] == 1
                          for e in south.drain()):
                self.assertLess(time.monotonic(), deadline)
                self.assertEqual(lively.get("time").status, "2.05")
                message = silent.receive(0.02 / SLOW)
                if message:
                    seen.append((message.mid, message.payload))
            self.assertEqual(len(seen), 5)
            self.assertEqual(len(set(seen)), 1)
            # The session itself lives on.
            self.assertEqual(silent.get("time").status, "2.05")
            silent.close()
            lively.close()


if __name__ == "__main__":
    unittest.main()

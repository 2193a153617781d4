#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: established sessions, what may end them and what may not, and what they cost."""

import os
import random
import socket
import time
import unittest

from coap import CON, GET, POST
from gateway import SLOW
from south_bed import Closed, Device, South, records, small_quarantine
from test_south_handshake import FATAL, begin, first_hello


class Established(unittest.TestCase):
    def setUp(self):
        self.south = South("half_open_sec=20")
        self.addCleanup(self.south.__exit__)

    def assert_works(self, device):
        self.assertEqual(device.get("time").payload, b"01234567")

    def test_a_device_that_rebooted_on_its_old_port_is_back_at_once(self):
        first = Device(self.south).connect()
        self.assert_works(first)
        old = self.south.session_of(first)
        source = first.source
        first.close(with_notify=False)
        start = time.monotonic()
        with Device(self.south, source=source).connect() as again:
            self.assert_works(again)
            self.assertLess(time.monotonic() - start, 0.5 * SLOW)
            self.south.wait_for("closed", session=old, reason="replaced")
            self.assertEqual(self.south.statistics(handshakes=2)["sessions"], 1)

    def test_a_spoofed_hello_disturbs_nobody(self):
        with Device(self.south).connect() as device:
            hello = first_hello(self.south)
            old_hello = device.sent[1]  # with a cookie that is still good: a recording
            for _ in range(50):
                device.raw(hello[:27] + os.urandom(32) + hello[59:])
                device.raw(old_hello[:-8] + os.urandom(8))
            self.assert_works(device)
            device.raw(old_hello)
            self.assert_works(device)
            self.assertEqual(self.south.seen("closed"), [])
            self.assertEqual(len(self.south.seen("connected")), 1)

    def test_a_new_handshake_runs_beside_the_old_session_until_its_finished(self):
        with Device(self.south).connect() as old:
            beside = Device(self.south)
            beside.socket.close()
            beside.socket = old.socket  # the same address
            begin(beside)
            self.south.statistics(half_open=1, sessions=1)
            self.assert_works(old)
            self.assertEqual(self.south.seen("closed"), [])
            beside.connect()
            self.south.wait_for("closed", reason="replaced")
            self.assert_works(beside)
            beside.socket = socket.socket()
            beside.close(with_notify=False)

    def test_forged_alerts_garbage_and_replays_end_no_session(self):
        chance = random.Random(11)
        with Device(self.south).connect() as device:
            self.assert_works(device)
            recorded = [d for d in device.sent if d[0] == 23]
            for alert in (bytes([FATAL, 40]), bytes([1, 0])):
                device.raw(b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02" + alert)
                device.raw(b"\x15\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x02" + alert)
            for _ in range(500):
                shape = bytearray(chance.choice(device.sent))
                for _ in range(chance.randrange(1, 6)):
                    shape[chance.randrange(len(shape))] = chance.randrange(256)
                # A ClientHello that is really one would be a new device on this port.
                device.raw(bytes(shape[:chance.randrange(1, len(shape) + 1)]))
            device.raw(b"\x17\xfe\xfd\x00\x01" + os.urandom(6) + b"\xff\xff" + os.urandom(40))
            since = self.south.mark()
            for datagram in recorded * 5:
                device.raw(datagram)
            self.assert_works(device)
            self.south.wait_for("request", since)
            self.assertEqual(len(self.south.seen("request", since)), 1)
            self.assertEqual(self.south.seen("closed"), [])

    def test_an_evicted_session_is_told_and_dropped_at_once_and_no_reply_leaves_for_it(self):
        device = Device(self.south).connect()
        self.south.command("hold")
        device.send(CON, POST, "echo", payload=b"x")
        session = self.south.wait_for("request")["session"]
        seen = len(device.received)
        self.south.command("evict %d" % session)
        self.south.wait_for("closed", session=session, reason="evicted")
        self.south.command("release")
        with self.assertRaises(Closed) as closed:
            device.read()
        self.assertEqual(str(closed.exception), "close_notify")
        device.raw(next(d for d in device.sent if d[0] == 23))
        while device.take(0.2):
            pass
        # One alert came, and nothing else.
        self.assertEqual([records(d)[0][0] for d in device.received[seen:]], [21])
        self.assertEqual(self.south.statistics(datagrams_dropped=1)["sessions"], 0)
        device.close(with_notify=False)

    def test_a_session_that_core_does_not_know_is_not_evicted_by_chance(self):
        with Device(self.south).connect() as device:
            session = self.south.session_of(device)
            self.south.command("evict %d" % (session & 0xffffffff))  # of another generation
            self.south.command("evict %d" % (session + 1))
            self.assert_works(device)

    def test_handles_carry_the_generation_and_are_never_reused(self):
        seen = set()
        for _ in range(5):
            with Device(self.south).connect() as device:
                seen.add(self.south.session_of(device))
        self.assertEqual(len(seen), 5)
        self.assertEqual({s >> 32 for s in seen}, {7})

    def test_close_notify_ends_the_session(self):
        device = Device(self.south).connect()
        session = self.south.session_of(device)
        device.close()
        self.south.wait_for("closed", session=session, reason="by-peer")

    def test_when_core_is_gone_every_session_is_told(self):
        devices = [Device(self.south).connect() for _ in range(20)]
        self.assertEqual(self.south.stop(), 0)
        for device in devices:
            with self.assertRaises(Closed) as closed:
                device.read()
            self.assertEqual(str(closed.exception), "close_notify")
            device.close(with_notify=False)


class Settings(unittest.TestCase):
    def start(self, *settings, **more):
        south = South(*settings, **more)
        self.addCleanup(south.__exit__)
        return south

    def test_silence_ends_a_session_with_close_notify(self):
        south = self.start("idle_sec=1")
        device = Device(south).connect()
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:  # what is in use stays
            self.assertEqual(device.get("time").status, "2.05")
            device.take(0.1)
        self.assertEqual(south.seen("closed"), [])
        south.wait_for("closed", reason="idle")
        with self.assertRaises(Closed) as closed:
            device.read()
        self.assertEqual(str(closed.exception), "close_notify")
        device.close(with_notify=False)

    def test_one_session_too_many_costs_the_longest_idle_its_place(self):
        south = self.start("max_sessions=3")
        devices = [Device(south).connect() for _ in range(3)]
        self.assertEqual(devices[0].get("time").status, "2.05")  # so the second is the longest idle
        devices.append(Device(south).connect())
        south.wait_for("closed", session=south.session_of(devices[1]), reason="idle")
        for device in (devices[0], devices[2], devices[3]):
            self.assertEqual(device.get("time").status, "2.05")
            device.close()
        devices[1].close(with_notify=False)

    def test_ipv4_shows_as_ipv4_on_a_socket_of_both_families(self):
        south = self.start(address="::")
        for host, shown in (("127.0.0.1", "127.0.0.1:%d"), ("::1", "[::1]:%d")):
            with Device(south, host=host).connect() as device:
                south.wait_for("connected", peer=shown % device.source[1])
                self.assertEqual(device.get("time").status, "2.05")

    def test_a_session_whose_buffers_were_given_back_can_still_be_written_and_closed(self):
        south = self.start("idle_sec=7")
        devices = [Device(south).connect() for _ in range(3)]
        south.command("hold")
        devices[0].send(CON, GET, "slow/1")
        devices[0].take(2)  # the acknowledgement
        south.wait_for("request")
        south.mark()
        # libssl's buffers go after 5 s without use; the reply after that is the first thing written.
        south.wait_for("closed", session=south.session_of(devices[1]), reason="idle", seconds=12)
        south.command("evict %d" % south.session_of(devices[2]))
        south.command("release")
        for device in devices:
            device.close(with_notify=False)
        self.assertEqual(south.stop(), 0)


class Cost(unittest.TestCase):
    def test_many_short_sessions_leave_no_memory_behind(self):
        rounds, each = (20, 1000) if os.environ.get("TORTURE") else (6, 250)
        with South(environment=small_quarantine()) as south:
            south.command("quiet 1")

            def sessions(count):
                for _ in range(count):
                    device = Device(south).connect()
                    assert device.get("time").status == "2.05"
                    device.send(CON, GET, "me", options=[(6, b"")])
                    device.close(with_notify=True)
            sessions(each)
            settled = south.resident_kib()
            for _ in range(rounds):
                sessions(each)
            self.assertLess(south.resident_kib() - settled, 1024 * SLOW)
            self.assertEqual(south.statistics(handshakes=(rounds + 1) * each)["observers"], 0)

    def test_the_work_of_a_packet_does_not_grow_with_the_sessions(self):
        crowd = 3000 if os.environ.get("TORTURE") else 800
        with South("max_half_open_prefix=1000") as south:
            south.command("quiet 1")

            def cost(devices, count=1500):
                before = south.cpu_seconds()
                for i in range(count):
                    assert devices[i % len(devices)].get("time").status == "2.05"
                return south.cpu_seconds() - before
            few = [Device(south).connect() for _ in range(8)]
            cost(few, 200)
            alone = cost(few)
            many = [Device(south).connect() for _ in range(crowd)]
            for device in many:
                assert device.request(GET, "me", options=[(6, b"")]).option(6) is not None
            among_many = cost(few)
            for device in few + many:
                device.close(with_notify=False)
            self.assertLess(among_many, 2 * alone + 0.1)


if __name__ == "__main__":
    unittest.main()

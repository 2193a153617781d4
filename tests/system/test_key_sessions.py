#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sessions end with their key, on the real daemon with a clock that the test moves; those of compromised keys and
revoked devices: test_compromise.py."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from coap import GET, POST, Peer  # noqa: E402
from gateway import Gateway  # noqa: E402
from test_compromise import FACTORY, grant_of  # noqa: E402

HOUR, DAY = 3600, 86400
PROFILES = """
        { name = "plain"; rotate_every = "30d"; grace = "1d"; max_session = "24h"; },
        { name = "patient"; rotate_every = "30d"; grace = "1d"; max_session = "30d"; }
"""


class Sessions(unittest.TestCase):
    def setUp(self):
        self.g = Gateway(PROFILES, testclock=True).start()
        self.addCleanup(self.g.close)

    def open(self, key):
        peer = Peer(self.g, *key)
        self.addCleanup(peer.close)
        return peer

    def device(self, name, profile):
        """Its first key, proven and confirmed."""
        self.g.add_device(name, profile=profile, psk=FACTORY)
        key = grant_of(self.open((name, FACTORY)).request(POST, "cred"))
        for _ in range(2):
            self.assertEqual(self.open(key).request(GET, "time").status, "2.05")
        return key

    def test_no_session_outlives_max_session(self):
        plain, patient = self.open(self.device("sensor-1", "plain")), self.open(self.device("sensor-2", "patient"))
        self.g.set_clock(both=23 * HOUR)
        for session in (plain, patient):
            self.assertEqual(session.request(GET, "time").status, "2.05")
        self.g.set_clock(both=25 * HOUR)
        self.assertTrue(plain.wait_closed())
        self.assertEqual(patient.request(GET, "time").status, "2.05")

    def test_a_session_ends_when_its_key_is_deactivated(self):
        old = self.device("sensor-1", "patient")
        session = self.open(old)
        new = grant_of(session.request(POST, "cred"))
        for _ in range(2):
            self.assertEqual(self.open(new).request(GET, "time").status, "2.05")
        self.assertEqual(session.request(GET, "time").status, "2.05")  # its grace
        self.g.set_clock(both=2 * DAY)
        self.g.wait_event("credential-deactivated", kid=old[0])
        self.assertTrue(session.wait_closed())
        self.assertFalse(self.open(old).is_connected)
        self.assertTrue(self.open(new).is_connected)


if __name__ == "__main__":
    unittest.main()

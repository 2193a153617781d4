#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""After `gatewayctl rotate --compromised` a thief and the device, who hold the same key, race for the next one, on the
real daemon and with every datagram chosen here. The thief tries each move at each point of the device's way back: it
never gets a key that opens anything, and the device gets one by evidence under its attestation key."""

import itertools
import os
import sys
import tempfile
import threading
import unittest

import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from coap import CONTENT_FORMAT, GET, POST, Peer, uint  # noqa: E402
from gateway import SLOW, Gateway, wait_for  # noqa: E402
from test_attest import EAT, PROFILES, claims, sign1  # noqa: E402

FACTORY = "factory-key-0123"
TORTURE = os.environ.get("TORTURE") == "1"


def grant_of(message):
    """Identity and key of a grant (RFC 9781, RFC 8747)."""
    key = cbor2.loads(message.payload).value[8][1]
    return key[2].decode(), key[-1].decode()


class Site:
    """One device and one thief, who has copied the key that the device uses now."""

    def __init__(self, g, name, attestation_key, folder):
        self.g, self.name, self.attestation_key = g, name, attestation_key
        path = os.path.join(folder, name + ".pem")
        with open(path, "wb") as f:
            f.write(attestation_key.public_key().public_bytes(serialization.Encoding.PEM,
                                                              serialization.PublicFormat.SubjectPublicKeyInfo))
        g.add_device(name, profile="attesting", psk=FACTORY, attestation_key=path)
        with Peer(g, name, FACTORY) as peer:
            self.old = grant_of(peer.request(POST, "cred"))
        with Peer(g, *self.old) as peer:
            assert peer.request(GET, "me").status == "2.05"
        self.new, self.evidence, self.peers, self.loot = None, None, [], []

    def open(self, key):
        peer = Peer(self.g, *key)
        self.peers.append(peer)
        return peer

    def compromise(self):
        self.g.ctl("rotate", self.name, "--compromised")

    def close(self):
        for peer in self.peers:
            peer.close()

    # ---- the device's way back, a step each ----
    def device_connects(self):
        self.session = self.open(self.old)
        assert self.session.is_connected, self.session.result

    def device_attests(self):
        nonce = cbor2.loads(self.session.request(POST, "rats/nonce").payload)[10]
        self.evidence = sign1(self.attestation_key, claims(nonce))
        m = self.session.request(POST, "rats/evidence", [(CONTENT_FORMAT, uint(EAT))], self.evidence)
        assert (m.status, cbor2.loads(m.payload)[1]) == ("2.01", 2), m.status

    def device_asks(self):
        m = self.session.request(POST, "cred")
        if m.status == "4.03":  # somebody else's handshake came between: what PROTOCOL.md says, evidence again
            self.device_connects()
            self.device_attests()
            m = self.session.request(POST, "cred")
        assert m.status == "2.04", m.status
        self.new = grant_of(m)

    def device_proves(self):
        peer = self.open(self.new)
        assert peer.is_connected, peer.result
        assert peer.request(GET, "me").status == "2.05"
        self.kept = peer

    WAY_BACK = (device_connects, device_attests, device_asks, device_proves)

    # ---- what the thief can do with the old key ----
    def take(self, session):
        """Asks for the next key; what it gets is loot."""
        m = session.request(POST, "cred") if session.is_connected else None
        if m and m.status == "2.04":
            self.loot.append(grant_of(m))

    def thief_asks(self):
        self.take(self.open(self.old))

    def thief_asks_twice(self):
        session = self.open(self.old)
        self.take(session)
        self.take(session)

    def thief_signs_itself(self):
        session = self.open(self.old)
        nonce = session.request(POST, "rats/nonce")
        if nonce and nonce.status == "2.01":
            forged = sign1(ec.generate_private_key(ec.SECP256R1()), claims(cbor2.loads(nonce.payload)[10]))
            m = session.request(POST, "rats/evidence", [(CONTENT_FORMAT, uint(EAT))], forged)
            assert m.status == "4.03", m.status
        self.take(session)

    def thief_repeats_the_evidence(self):
        """Plain PSK suites: who has the key and recorded the traffic reads what the device sent."""
        session = self.open(self.old)
        if self.evidence and session.is_connected:
            session.request(POST, "rats/evidence", [(CONTENT_FORMAT, uint(EAT))], self.evidence)
        self.take(session)

    def thief_comes_by_the_factory_key(self):
        self.take(self.open((self.name, FACTORY)))

    MOVES = (thief_asks, thief_asks_twice, thief_signs_itself, thief_repeats_the_evidence,
             thief_comes_by_the_factory_key)


class Compromise(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="gatewayd-compromise-")
        cls.g = Gateway(profiles=PROFILES).start()
        cls.key = ec.generate_private_key(ec.SECP256R1())
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        try:
            cls.g.stop()
        finally:
            cls.g.close()
            cls.folder.cleanup()

    def site(self):
        type(self).count += 1
        site = Site(self.g, "sensor-%03d" % self.count, self.key, self.folder.name)
        self.addCleanup(site.close)
        return site

    def assert_won(self, site, loot=()):
        """The device has the key; what the thief carried off before opens nothing, and nothing was got since."""
        self.assertEqual(site.loot, [], "the thief got a key")
        for key in loot:
            self.assertFalse(site.open(key).is_connected)
        self.assertEqual(site.kept.request(GET, "me").status, "2.05")
        with Peer(self.g, *site.new) as again:
            self.assertEqual(again.request(GET, "me").status, "2.05")
        shown = self.g.ctl("device", "show", site.name, "--json")[1]
        self.assertEqual(shown["device"]["state"], "operational")
        self.assertEqual([c["identity"] for c in shown["credentials"] if c["state"] == "active"
                          and c["identity"] != site.name], [site.new[0]])
        site.close()

    def race(self, moves):
        """`moves`: (after how many of the device's steps, move)."""
        site = self.site()
        site.compromise()
        for number in range(len(Site.WAY_BACK) + 1):
            for at, move in moves:
                if at == number:
                    move(site)
            if number < len(Site.WAY_BACK):
                Site.WAY_BACK[number](site)
        self.assert_won(site)

    def test_whatever_the_thief_does_and_when_the_device_gets_the_next_key(self):
        for at, move in itertools.product(range(len(Site.WAY_BACK) + 1), Site.MOVES):
            with self.subTest(move=move.__name__, after=at):
                self.race([(at, move)])

    @unittest.skipUnless(TORTURE, "TORTURE=1")
    def test_two_moves_in_any_order(self):
        one = list(itertools.product(range(len(Site.WAY_BACK) + 1), Site.MOVES))
        for first, second in itertools.product(one, one):
            with self.subTest(first=(first[0], first[1].__name__), second=(second[0], second[1].__name__)):
                self.race([first, second])

    def test_what_the_thief_got_before_falls_with_the_key(self):
        site = self.site()
        with Peer(self.g, *site.old) as thief:
            unproven = grant_of(thief.request(POST, "cred"))
        site.compromise()
        for step in Site.WAY_BACK:
            self.assertFalse(site.open(unproven).is_connected)
            step(site)
        self.assert_won(site, [unproven])

    def test_a_thief_who_rotated_first_falls_with_its_whole_line(self):
        site = self.site()
        with Peer(self.g, *site.old) as thief:
            second = grant_of(thief.request(POST, "cred"))
        with Peer(self.g, *second) as thief:
            self.assertEqual(thief.request(GET, "me").status, "2.05")
            third = grant_of(thief.request(POST, "cred"))
        site.compromise()
        for step in (lambda site: None, *Site.WAY_BACK):
            step(site)
            for key in (second, third):
                site.take(site.open(key))
        self.assert_won(site, [second, third])

    def test_sessions_of_a_compromised_key_end_at_once(self):
        site = self.site()
        thief, device = site.open(site.old), site.open(site.old)
        self.assertEqual(thief.request(GET, "time").status, "2.05")
        self.assertEqual(device.request(GET, "time").status, "2.05")
        site.compromise()
        for session in (thief, device):
            self.assertTrue(session.wait_closed())
        for step in Site.WAY_BACK:
            step(site)
        self.assert_won(site)

    def test_sessions_of_a_revoked_device_end_at_once_and_none_begins(self):
        site = self.site()
        session = site.open(site.old)
        self.assertEqual(session.request(GET, "time").status, "2.05")
        self.g.ctl("device", "revoke", site.name)
        self.assertTrue(session.wait_closed())
        for key in (site.old, (site.name, FACTORY)):
            self.assertFalse(site.open(key).is_connected)

    def test_a_thief_that_never_stops_asking_gets_nothing_and_keeps_nobody_out(self):
        site = self.site()
        site.compromise()
        is_over, tries, statuses = threading.Event(), [0], set()

        def steal():
            while not is_over.is_set():
                with Peer(self.g, *site.old) as session:
                    for _ in range(5):
                        m = session.request(POST, "cred") if session.is_connected else None
                        statuses.add(m.status if m else None)
                        tries[0] += 1

        thief = threading.Thread(target=steal)
        thief.start()
        try:
            wait_for(lambda: tries[0] > 20, "the thief to begin")
            self.come_back(site)
            since = tries[0]
            wait_for(lambda: tries[0] > since + 10, "the thief to go on")
        finally:
            is_over.set()
            thief.join(60 * SLOW)
        self.assertNotIn("2.04", statuses)
        self.assert_won(site)

    def come_back(self, site):
        """Each of the thief's handshakes may end what the evidence had opened: the device gives it again."""
        site.device_connects()
        for _ in range(50):
            site.device_attests()
            m = site.session.request(POST, "cred")
            if m.status == "2.04":
                site.new = grant_of(m)
                return site.device_proves()
            self.assertEqual(m.status, "4.03")
        raise AssertionError("the device does not come back")


if __name__ == "__main__":
    unittest.main()

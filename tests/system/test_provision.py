# SPDX-License-Identifier: Apache-2.0
"""Provisioning on the real daemon: from the factory PSK to a proven operational key, and what attackers,
retransmissions and reboots on the way may not do."""

import os
import random
import re
import socket
import unittest

import cbor2

import coap
from coap import GET, POST, Peer
from gateway import Gateway, SLOW, free_port

FACTORY = "factory-key-0123"


def parse_grant(body):
    """UCCS (tag 601): returns (kid, key) as text."""
    tag = cbor2.loads(body)
    key = tag.value[8][1]
    return key[2].decode(), key[-1].decode()


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open("/proc/%d/status" % pid).read()).group(1))


def me(body):
    return cbor2.loads(body)


class Provision(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = Gateway().start()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.g.stop()
        finally:
            cls.g.close()

    def device(self, name, **more):
        self.g.add_device(name, psk=FACTORY, **more)
        return name

    def provisioned(self, name, **more):
        """A device that has proven its first operational key: (kid, key)."""
        self.device(name, **more)
        code, body = self.g.coap("post", "cred", name, FACTORY)
        self.assertEqual(code, "2.04")
        kid, key = parse_grant(body)
        self.assertEqual(self.g.coap("get", "time", kid, key)[0], "2.05")
        return kid, key

    def credentials(self, name):
        _, shown = self.g.ctl("device", "show", name, "--json")
        return {c["identity"]: c for c in shown["credentials"]}

    # ---- the main way ----
    def test_a_factory_key_becomes_a_proven_operational_key_by_coap_client(self):
        for client in ("openssl", "gnutls"):
            with self.subTest(client=client):
                name = self.device("hand-" + client)
                code, body = self.g.coap("post", "cred", name, FACTORY, client=client)
                self.assertEqual(code, "2.04")
                tag = cbor2.loads(body)
                self.assertEqual(tag.tag, 601)
                self.assertEqual(tag.value[2], name)
                self.assertLess(len(body), 100 + len(name))
                self.assertEqual(cbor2.dumps(tag, canonical=True), body)
                kid, key = parse_grant(body)
                self.assertRegex(kid, "^[a-z0-9]{16}$")
                self.assertRegex(key, "^[A-Za-z0-9_-]{32}$")
                self.assertEqual(self.credentials(name)[kid]["state"], "pre-active")
                mark = self.g.mark()
                code, body = self.g.coap("get", "me", kid, key, client=client)
                self.assertEqual(code, "2.05")
                self.assertEqual(me(body)[0], name)
                self.assertEqual(me(body)[2], kid.encode())
                self.g.wait_event("credential-activated", mark, device=name, kid=kid)
                self.assertEqual(self.credentials(name)[kid]["state"], "active")

    def test_a_grant_can_be_fetched_as_cose_key_and_as_text(self):
        name = self.device("formats", profile="texty")
        code, body = self.g.coap("post", "cred", name, FACTORY, accept=101)
        self.assertEqual(code, "2.04")
        self.assertEqual(cbor2.loads(body)[1], 4)
        code, body = self.g.coap("post", "cred", name, FACTORY, accept=0)
        self.assertEqual(code, "2.04")
        self.assertRegex(body.decode(), r"^[a-z0-9]{16} [A-Za-z0-9_-]{32}\n$")
        kid, key = body.decode().split()
        self.assertEqual(self.g.coap("get", "time", kid, key)[0], "2.05")
        plain = self.device("formats-plain")
        self.assertEqual(self.g.coap("post", "cred", plain, FACTORY, accept=0)[0], "4.06")

    def test_asking_again_in_one_session_gets_the_same_key(self):
        name = self.device("again")
        with Peer(self.g, name, FACTORY) as peer:
            first = peer.request(POST, "cred")
            second = peer.request(POST, "cred")
            self.assertEqual(first.status, "2.04")
            self.assertEqual(first.payload, second.payload)
        with Peer(self.g, name, FACTORY) as peer:
            self.assertNotEqual(first.payload, peer.request(POST, "cred").payload)

    def test_time_me_and_links_say_what_the_protocol_says(self):
        name = self.device("reader")
        code, body = self.g.coap("get", "time", name, FACTORY)
        self.assertEqual(code, "2.05")
        self.assertEqual(set(cbor2.loads(body)), {1, 2})
        code, body = self.g.coap("get", "me", name, FACTORY)
        self.assertEqual(code, "2.05")
        self.assertEqual(me(body)[0], name)
        code, body = self.g.coap("get", ".well-known/core", name, FACTORY)
        self.assertEqual(code, "2.05")
        for path in ("/cred", "/me", "/rats/nonce", "/rats/evidence", "/rats/result", "/time"):
            self.assertIn("<%s>" % path, body.decode())
        code, body = self.g.coap("get", ".well-known/core?rt=gatewayd.rats*", name, FACTORY)
        self.assertEqual(code, "2.05")
        self.assertNotIn("</cred>", body.decode())
        self.assertIn("</rats/nonce>", body.decode())

    def test_errors_are_problem_details(self):
        name = self.device("wrong")
        cf, accept = coap.CONTENT_FORMAT, coap.ACCEPT
        with Peer(self.g, name, FACTORY) as peer:
            for method, path, options, payload, code in (
                    (GET, "nowhere", [], b"", "4.04"),
                    (coap.PUT, "me", [], b"x", "4.05"),
                    (GET, "me", [(accept, coap.uint(50))], b"", "4.06"),
                    (POST, "cred", [(cf, coap.uint(60))], b"\xff\x00garbage", "4.00"),
                    (POST, "cred", [(cf, coap.uint(60))], cbor2.dumps({1: "long"}), "4.00"),
                    (POST, "cred", [(cf, coap.uint(50))], b"{}", "4.15")):
                with self.subTest(path=path, code=code):
                    answer = peer.request(method, path, options, payload)
                    self.assertEqual(answer.status, code)
                    self.assertEqual(answer.option(cf), 257)
                    problem = cbor2.loads(answer.payload)
                    self.assertTrue(problem[-1] and problem[-2])
                    self.assertEqual(problem[-4], answer.code)
        self.assertEqual(list(self.credentials(name)), [name])

    def test_observing_me_tells_of_a_rotation_and_wakes_no_other_device(self):
        kid, key = self.provisioned("watcher")
        kid2, key2 = self.provisioned("bystander")
        with Peer(self.g, kid, key) as peer, Peer(self.g, kid2, key2) as other:
            for p in (peer, other):
                answer = p.request(GET, "me", [(coap.OBSERVE, b"")])
                self.assertEqual(answer.status, "2.05")
                self.assertIsNotNone(answer.option(coap.OBSERVE))
                self.assertFalse(me(answer.payload)[6] & 1)
            self.g.ctl("rotate", "watcher")
            told = peer.receive()
            self.assertIsNotNone(told)
            self.assertEqual(told.kind, coap.CON)
            self.assertIsNotNone(told.option(coap.OBSERVE))
            self.assertTrue(me(told.payload)[6] & 1)
            peer.send(coap.encode(coap.ACK, 0, told.mid))
            # What the other one hears next is the answer to its own question: nothing came before it.
            other.mid += 1
            other.send(coap.encode(coap.CON, GET, other.mid, b"mine", coap.path_options("time")))
            heard = other.receive()
            self.assertEqual(heard.token, b"mine")

    # ---- what others may not do ----
    def test_a_retransmitted_post_acts_once(self):
        name = self.device("twice")
        with Peer(self.g, name, FACTORY) as peer:
            first = peer.request(POST, "cred", mid=77, token=b"t")
            again = peer.request(POST, "cred", mid=77, token=b"t")
            self.assertEqual(first.payload, again.payload)
        with Peer(self.g, name, FACTORY) as peer:
            peer.request(POST, "rats/nonce", mid=78, token=b"n")
            one = peer.request(POST, "rats/nonce", mid=78, token=b"n")
            two = peer.request(POST, "rats/nonce", mid=79, token=b"n")
            self.assertNotEqual(one.payload, two.payload)
        self.assertEqual(len(self.credentials(name)), 2)

    def test_proof_needs_a_verified_finished(self):
        name = self.device("unproven")
        _, body = self.g.coap("post", "cred", name, FACTORY)
        kid, key = parse_grant(body)
        # Who knows the identity alone comes as far as the Finished, which does not verify.
        mark = self.g.mark()
        self.assertFalse(Peer(self.g, kid, "x" * 32, seconds=3).is_connected)
        self.assertEqual(self.credentials(name)[kid]["state"], "pre-active")
        self.assertEqual(self.g.events("credential-activated", mark, device=name), [])
        self.assertEqual(self.g.coap("get", "time", kid, key)[0], "2.05")
        self.g.wait_event("credential-activated", mark, device=name)

    def test_whoever_else_asks_with_the_old_key_gets_a_key_that_dies(self):
        kid, key = self.provisioned("victim")
        with Peer(self.g, kid, key) as thief, Peer(self.g, kid, key) as device:
            stolen = parse_grant(thief.request(POST, "cred").payload)
            own = parse_grant(device.request(POST, "cred").payload)
            self.assertNotEqual(stolen[0], own[0])
            self.assertEqual(self.g.coap("get", "time", *own)[0], "2.05")
            self.assertFalse(Peer(self.g, *stolen, seconds=3).is_connected)
            self.assertNotIn(stolen[0], self.credentials("victim"))

    def test_a_revoked_key_can_neither_resume_nor_go_on(self):
        kid, key = self.provisioned("revoked")
        session = os.path.join(self.g.folder, "session.pem")
        with Peer(self.g, kid, key, session=session) as peer:
            self.assertEqual(peer.request(GET, "time").status, "2.05")
            self.g.ctl("device", "revoke", "revoked")
            self.assertTrue(peer.wait_closed())
        again = Peer(self.g, kid, key, session=session, seconds=3)
        self.assertFalse(again.is_connected)

    def test_no_session_is_ever_resumed(self):
        kid, key = self.provisioned("resumer")
        session = os.path.join(self.g.folder, "resume.pem")
        with Peer(self.g, kid, key, session=session) as peer:
            self.assertTrue(peer.is_connected)
        with Peer(self.g, kid, key, session=session) as peer:
            self.assertTrue(peer.result.endswith("new"))

    def test_a_rebooted_device_on_its_old_port_is_back_at_once(self):
        kid, key = self.provisioned("rebooter")
        kid2, key2 = self.provisioned("neighbour")
        port, port2 = free_port(), free_port()
        with Peer(self.g, kid2, key2, local=port2) as neighbour:
            first = Peer(self.g, kid, key, local=port)
            self.assertEqual(first.request(GET, "time").status, "2.05")
            first.close("x")
            with Peer(self.g, kid, key, local=port, seconds=3) as second:
                self.assertTrue(second.is_connected)
                self.assertEqual(second.request(GET, "time").status, "2.05")
            # Somebody on the neighbour's address (its port, another socket) says hello and nothing more.
            hello = client_hello()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", port2))
                for _ in range(20):
                    s.sendto(hello, ("127.0.0.1", self.g.port))
            self.assertEqual(neighbour.request(GET, "time").status, "2.05")

    def test_5000_hellos_without_a_cookie_cost_no_state_and_keep_nobody_out(self):
        name = self.device("newcomer")
        pid = self.g.role_pid("south")
        before = resident_kib(pid)
        sockets = []
        for i in range(50):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.setblocking(False)
            sockets.append(s)
            for _ in range(100):
                s.sendto(client_hello(), ("127.0.0.1", self.g.port))
        code, _ = self.g.coap("get", "time", name, FACTORY)
        self.assertEqual(code, "2.05")
        for s in sockets:
            s.close()
        if SLOW == 1:  # a sanitizer's allocator keeps what was freed
            self.assertLess(resident_kib(pid) - before, 2048)

    def test_a_claimed_size_of_4_gib_costs_nothing(self):
        name = self.device("claimer")
        pid = self.g.role_pid("south")
        before = resident_kib(pid)
        with Peer(self.g, name, FACTORY) as peer:
            answer = peer.request(POST, "rats/evidence", [
                (coap.CONTENT_FORMAT, coap.uint(263)), (coap.BLOCK1, bytes([0x0e])),
                (coap.SIZE1, b"\xff\xff\xff\xff")], b"x" * 1024)
            self.assertEqual(answer.status, "4.13")
            self.assertEqual(answer.option(coap.SIZE1), 16384)
        if SLOW == 1:
            self.assertLess(resident_kib(pid) - before, 1024)

    def test_a_block_without_its_predecessors_is_incomplete(self):
        name = self.device("blocks")
        with Peer(self.g, name, FACTORY) as peer:
            answer = peer.request(POST, "rats/evidence", [
                (coap.CONTENT_FORMAT, coap.uint(263)), (coap.BLOCK1, bytes([0x16]))], b"x" * 1024)
            self.assertEqual(answer.status, "4.08")

    def test_the_factory_key_after_a_reset_is_refused_with_a_reason_not_with_a_dead_handshake(self):
        kid, key = self.provisioned("resetter")
        self.assertEqual(self.g.coap("get", "time", kid, key)[0], "2.05")  # the second handshake confirms
        # Its grace is still running: the factory key is the predecessor and may still fetch a key.
        self.assertEqual(self.g.coap("get", "me", "resetter", FACTORY)[0], "2.05")

    def test_a_removed_device_is_unknown_at_once(self):
        kid, key = self.provisioned("leaver")
        with Peer(self.g, kid, key) as peer:
            self.assertEqual(peer.request(GET, "time").status, "2.05")
            self.g.ctl("device", "remove", "leaver")
            self.assertTrue(peer.wait_closed())
        self.assertFalse(Peer(self.g, kid, key, seconds=3).is_connected)
        self.assertFalse(Peer(self.g, "leaver", FACTORY, seconds=3).is_connected)


def client_hello():
    """A ClientHello without a cookie, with a random of its own."""
    body = b"\xfe\xfd" + random.randbytes(32) + b"\x00\x00" + b"\x00\x02\xc0\xa8" + b"\x01\x00"
    fragment = b"\x01" + len(body).to_bytes(3, "big") + b"\x00\x00" + b"\x00\x00\x00" + len(body).to_bytes(3, "big") + body
    return b"\x16\xfe\xfd" + b"\x00\x00" + bytes(6) + len(fragment).to_bytes(2, "big") + fragment


if __name__ == "__main__":
    unittest.main()

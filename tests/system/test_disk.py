# SPDX-License-Identifier: Apache-2.0
"""A disk in trouble under the real daemon: full, over quota, read-only, slow, failing. Known keys open sessions and
read, writes get 5.03 and leave nothing half done, and it ends where it began: in place when the disk is back, by the
next core where the disk has lost something."""

import errno
import os
import subprocess
import tempfile
import unittest

import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import diskfs
from coap import CONTENT_FORMAT, GET, MAX_AGE, POST, Peer, uint
from gateway import Gateway, wait_for
from test_attest import EAT, claims, sign1
from test_provision import parse_grant

FACTORY = "factory-key-0123"
# How a disk stops taking writes, and how it takes them again. Full to the last byte that the -wal might reuse.
TROUBLES = {
    "full": (lambda d: d.fail("write", errno.ENOSPC), lambda d: d.fail("write", 0)),
    "over quota": (lambda d: d.fail("write", errno.EDQUOT), lambda d: d.fail("write", 0)),
    "read-only": (lambda d: d.tell("readonly", "on"), lambda d: d.tell("readonly", "off")),
}


class OnDisk(unittest.TestCase):
    def setUp(self):
        if not diskfs.IS_THERE:
            self.skipTest(diskfs.WHY_NOT)
        self.disk = diskfs.Disk()
        self.addCleanup(self.disk.close)
        self.g = Gateway(store=self.disk.path)
        self.addCleanup(self.g.close)
        self.g.start()

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before and hasattr(self, "g"):
            print(self.g.output())
        return result

    def ask(self, who, method, path, options=(), payload=b"", seconds=10):
        """One request on a session of its own."""
        with Peer(self.g, *who) as peer:
            self.assertTrue(peer.is_connected, peer.result)
            answer = peer.request(method, path, options, payload, seconds=seconds)
        self.assertIsNotNone(answer, "no answer")
        return answer

    def granted(self, name, **more):
        self.g.add_device(name, psk=FACTORY, **more)
        return parse_grant(self.ask((name, FACTORY), POST, "cred").payload)

    def provisioned(self, name, **more):
        key = self.granted(name, **more)
        self.assertEqual(self.ask(key, GET, "time").status, "2.05")
        return key

    def credentials(self, name):
        return {c["identity"]: c["state"] for c in self.g.ctl("device", "show", name, "--json")[1]["credentials"]}

    def audit_is_whole(self):
        status, output = self.g.ctl("audit", "--verify")
        self.assertEqual(status, 0, output)

    def is_degraded(self):
        return self.g.ctl("status", "--json")[1]["store"]["is_degraded"]

    def refused_for_now(self, answer):
        self.assertEqual((answer.status, answer.option(MAX_AGE), answer.option(CONTENT_FORMAT)), ("5.03", 60, 257))
        self.assertIn("cannot store", cbor2.loads(answer.payload)[-2])

    def core(self):
        return self.g.role_pid("core")


class TakesNothing(OnDisk):
    """The disk is full, or may not be written."""

    def each(self, test):
        for number, (name, (begin, end)) in enumerate(TROUBLES.items()):
            with self.subTest(name):
                test(number, lambda: begin(self.disk), lambda: end(self.disk))

    def degrade(self, begin, key):
        """The write that meets the trouble first is refused, too."""
        mark = self.g.mark()
        begin()
        with Peer(self.g, *key) as peer:
            self.refused_for_now(peer.request(POST, "cred"))
        self.g.wait_event("store-degraded", mark)
        return mark

    def test_known_keys_open_sessions_and_read_and_all_else_is_refused_until_there_is_room(self):
        def one(number, begin, end):
            name = "reader-%d" % number
            key = self.provisioned(name)
            core, before = self.core(), self.credentials(name)
            mark = self.degrade(begin, key)
            self.assertTrue(self.is_degraded())
            self.assertIn("DEGRADED", self.g.ctl("status")[1])
            with Peer(self.g, *key) as peer:
                me = peer.request(GET, "me")
                self.assertEqual((me.status, cbor2.loads(me.payload)[0]), ("2.05", name))
                for path in ("time", ".well-known/core"):
                    self.assertEqual(peer.request(GET, path).status, "2.05")
                for path in ("cred", "rats/nonce"):
                    self.refused_for_now(peer.request(POST, path))
                self.assertEqual(peer.request(GET, "nowhere").status, "4.04")
                self.assertEqual(peer.request(GET, "me").status, "2.05")  # a refusal ends no session
                status, said = self.g.ctl("device", "add", "late-%d" % number, "--profile", "plain", "--psk",
                                          "text:" + FACTORY, check=False)
                self.assertNotEqual(status, 0)
                self.assertIn("nothing was changed", said)
                self.assertEqual(self.credentials(name), before)
                end()
                self.g.wait_event("store-recovered", mark)
                self.assertFalse(self.is_degraded())
                self.assertEqual(peer.request(POST, "cred").status, "2.04")  # the same session
            self.assertEqual(len(self.g.events("store-degraded", mark)), 1)
            self.assertEqual(self.core(), core)
            self.assertNotIn("late-%d" % number, self.g.ctl("device", "list")[1])
            self.audit_is_whole()
        self.each(one)

    def test_a_first_handshake_that_cannot_be_written_may_read_and_the_next_one_is_the_proof(self):
        def one(number, begin, end):
            name = "newcomer-%d" % number
            key, other = self.granted(name), self.provisioned("other-%d" % number)
            mark = self.degrade(begin, other)
            with Peer(self.g, *key) as peer:
                self.assertEqual(peer.request(GET, "me").status, "2.05")
                self.refused_for_now(peer.request(POST, "cred"))
                self.assertEqual(self.credentials(name), {name: "active", key[0]: "pre-active"})
                self.assertEqual(self.ask((name, FACTORY), GET, "me").status, "2.05")
                end()
                self.g.wait_event("store-recovered", mark)
                self.assertTrue(peer.wait_closed())
            self.assertEqual(self.g.events("credential-activated", mark), [])
            self.assertEqual(self.ask(key, GET, "time").status, "2.05")
            self.assertEqual(self.credentials(name)[key[0]], "active")
        self.each(one)

    def test_evidence_that_was_refused_is_taken_later_with_the_same_nonce(self):
        private = ec.generate_private_key(ec.SECP256R1())
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(private.public_key().public_bytes(serialization.Encoding.PEM,
                                                         serialization.PublicFormat.SubjectPublicKeyInfo))
            file.flush()
            def one(number, begin, end):
                name = "attester-%d" % number
                key = self.provisioned(name, profile="attesting", attestation_key=file.name)
                nonce = cbor2.loads(self.ask(key, POST, "rats/nonce").payload)[10]
                evidence = sign1(private, claims(nonce))
                options = [(CONTENT_FORMAT, uint(EAT))]
                mark = self.g.mark()
                begin()
                self.refused_for_now(self.ask(key, POST, "rats/evidence", options, evidence))
                self.g.wait_event("store-degraded", mark)
                self.refused_for_now(self.ask(key, POST, "rats/evidence", options, evidence))
                end()
                self.g.wait_event("store-recovered", mark)
                self.assertEqual(self.g.events("evidence-accepted", mark), [])
                answer = self.ask(key, POST, "rats/evidence", options, evidence)
                self.assertEqual(answer.status, "2.01")
                self.assertEqual(len(self.g.events("evidence-accepted", mark)), 1)
            self.each(one)

    def test_a_start_on_a_full_disk_serves_known_keys(self):
        key = self.provisioned("starter")
        with Peer(self.g, *key) as peer:  # so that the next core has something to clear, which it cannot
            self.assertEqual(peer.request(POST, "cred").status, "2.04")
            self.g.kill()
        self.disk.fail("write", errno.ENOSPC)
        self.g.start()
        self.g.wait_event("store-degraded")
        self.assertTrue(self.is_degraded())
        with Peer(self.g, *key) as peer:
            self.assertEqual(peer.request(GET, "me").status, "2.05")
            self.refused_for_now(peer.request(POST, "cred"))
            self.disk.fail("write", 0)
            self.g.wait_event("store-recovered")
            self.assertEqual(peer.request(POST, "cred").status, "2.04")
        self.assertEqual(self.g.events("role-died"), [])

    def test_a_start_on_a_read_only_disk_waits_for_it_and_needs_no_person(self):
        key = self.provisioned("waiter")
        self.g.stop()
        self.disk.tell("readonly", "on")
        self.g.start(wait=False)
        self.assertIn("Read-only", self.g.wait_event("store-degraded")["reason"])
        self.assertIsNone(self.g.process.poll())
        self.disk.tell("readonly", "off")
        self.g.wait_event("started", seconds=60)
        self.assertEqual(self.ask(key, POST, "cred").status, "2.04")

    def test_a_first_start_of_all_on_a_full_disk_waits_for_room(self):
        disk = diskfs.Disk()
        self.addCleanup(disk.close)
        disk.full(1)
        g = Gateway(store=disk.path)
        self.addCleanup(g.close)
        g.start(wait=False)
        g.wait_event("store-degraded")
        disk.full(0)
        g.wait_event("started", seconds=60)
        g.stop()


class Backups(OnDisk):
    def setUp(self):
        super().setUp()
        self.provisioned("pump")
        self.assertEqual(self.g.ctl("sealing", "recovery")[0], 0)
        self.target = os.path.join(self.g.folder, "kept", "backup.age")
        os.mkdir(os.path.dirname(self.target))

    def nothing_is_left(self):
        self.assertEqual(os.listdir(os.path.dirname(self.target)), [])
        wait_for(lambda: not [f for f in os.listdir(self.disk.path) if "backup" in f], "the copy to be removed")

    def test_one_that_meets_a_disk_in_trouble_leaves_nothing_and_the_next_one_is_whole(self):
        for name, (begin, end) in TROUBLES.items():
            with self.subTest(name):
                begin(self.disk)
                code, text = self.g.ctl("backup", self.target, check=False)
                self.assertEqual(code, 1, text)
                self.assertIn("the copy beside the store", text)
                self.nothing_is_left()
                end(self.disk)
                wait_for(lambda: self.g.ctl("backup", self.target, check=False)[0] == 0, "a backup")
                self.assertGreater(os.path.getsize(self.target), 4096)
                os.unlink(self.target)
                self.audit_is_whole()

    def test_a_full_medium_is_named_and_gatewayd_goes_on(self):
        medium = diskfs.Disk()
        self.addCleanup(medium.close)
        medium.fail("write", errno.ENOSPC)
        code, text = self.g.ctl("backup", os.path.join(medium.path, "backup.age"), check=False)
        self.assertEqual(code, 1, text)
        self.assertIn(os.strerror(errno.ENOSPC), text)
        self.assertEqual(os.listdir(medium.path), [])
        self.nothing_is_left()
        self.assertEqual(self.g.ctl("backup", self.target)[0], 0)


class Slow(OnDisk):
    """A sync takes half a second."""

    def test_nothing_is_answered_before_its_sync_and_what_needs_none_is_answered_without(self):
        key = self.provisioned("patient")
        with Peer(self.g, *key) as peer:
            self.assertEqual(peer.request(GET, "me").status, "2.05")
            wait_for(lambda: self.disk.tell("status")[1] == 0, "the end of the last sync")
            self.disk.tell("delay", 500)
            before = self.disk.tell("status")[0]
            for path in ("me", "time", ".well-known/core") * 3:
                self.assertEqual(peer.request(GET, path).status, "2.05")
            self.assertEqual(self.disk.tell("status")[:2], [before, 0])
            self.assertEqual(peer.request(POST, "cred").status, "2.04")
            self.assertGreater(self.disk.tell("status")[0], before)
        self.disk.tell("delay", 0)

    def test_heartbeats_hold_through_twenty_syncs(self):
        key = self.provisioned("busy")
        core, south = self.core(), self.g.role_pid("south")
        self.disk.tell("delay", 500)
        before = self.disk.tell("status")[0]
        mark = self.g.mark()
        with Peer(self.g, *key) as peer:
            while self.disk.tell("status")[0] < before + 20:  # ten seconds: longer than three heartbeats
                self.assertEqual(peer.request(POST, "rats/nonce", seconds=30).status, "2.01")
        self.assertEqual((self.core(), self.g.role_pid("south")), (core, south))
        for event in ("role-died", "store-degraded", "store-failed"):
            self.assertEqual(self.g.events(event, mark), [])
        self.disk.tell("delay", 0)


class Fails(OnDisk):
    """The disk has lost something: that core ends without a word, the next one starts from what is durable."""

    def fails(self, what):
        name = "victim"
        key = self.provisioned(name)
        wait_for(lambda: self.disk.tell("status")[1] == 0, "the end of the last sync")
        before = self.credentials(name)
        mark = self.g.mark()
        with Peer(self.g, *key) as peer:
            self.assertEqual(peer.request(GET, "me").status, "2.05")
            # The handshake's note is durable before /me is answered, so the request is what meets the failure.
            self.disk.fail(what, errno.EIO, 1)
            answer = peer.request(POST, "cred", seconds=5)
            self.assertIsNone(answer, answer and answer.status)
        self.g.wait_event("store-failed", mark, role="core")
        self.g.wait_event("role-died", mark)
        self.g.wait_event("role-started", mark, reason="south")
        self.assertEqual(set(self.credentials(name)), set(before))
        self.audit_is_whole()
        second = parse_grant(self.ask(key, POST, "cred").payload)
        self.assertEqual(self.ask(second, GET, "time").status, "2.05")

    def test_a_sync_that_failed_is_the_end_of_that_core_and_the_next_one_knows_only_what_is_durable(self):
        self.fails("sync")

    def test_a_write_that_failed_is_the_end_of_that_core_and_the_next_one_serves(self):
        self.fails("write")

    def test_a_disk_that_fails_for_a_while_is_waited_for(self):
        key = self.provisioned("outlasting")
        mark = self.g.mark()
        self.disk.fail("sync", errno.EIO)
        with Peer(self.g, *key) as peer:
            self.assertIsNone(peer.request(POST, "cred", seconds=5) if peer.is_connected else None)
        self.g.wait_event("role-died", mark)
        wait_for(lambda: len(self.g.events("role-died", mark, reason="core")) >= 3, "the third core")
        self.disk.fail("sync", 0)
        self.g.wait_event("role-started", mark, reason="south", seconds=60)
        self.assertEqual(self.ask(key, POST, "cred").status, "2.04")


class RealFileSystem(unittest.TestCase):
    """The kernel's own words for no room: a small tmpfs that somebody else fills."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gatewayd-tmpfs-")
        r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.folder], capture_output=True)
        if r.returncode != 0:
            os.rmdir(self.folder)
            self.skipTest("may not mount a tmpfs: %s" % r.stderr.decode().strip())
        self.addCleanup(os.rmdir, self.folder)
        self.addCleanup(subprocess.run, ["umount", "-l", self.folder], check=True)

    def fill(self):
        path = os.path.join(self.folder, "filler")
        with open(path, "wb", buffering=0) as f:
            for size in (4096, 1):
                try:
                    while True:
                        f.write(bytes(size))
                except OSError as e:
                    self.assertEqual(e.errno, errno.ENOSPC)
        return path

    def test_somebody_fills_the_file_system_and_makes_room_again(self):
        g = Gateway(store=self.folder)
        self.addCleanup(g.close)
        g.start()
        g.add_device("a", psk=FACTORY)
        with Peer(g, "a", FACTORY) as peer:
            key = parse_grant(peer.request(POST, "cred").payload)
        mark = g.mark()
        filler = self.fill()

        def is_refused():
            with Peer(g, *key) as peer:
                return peer.request(POST, "rats/nonce").status == "5.03"
        wait_for(is_refused, "the last page that the -wal had")
        g.wait_event("store-degraded", mark)
        with Peer(g, *key) as peer:
            self.assertEqual(peer.request(GET, "me").status, "2.05")
        os.unlink(filler)
        g.wait_event("store-recovered", mark)
        with Peer(g, *key) as peer:
            self.assertEqual(peer.request(POST, "cred").status, "2.04")
        self.assertEqual(g.events("role-died"), [])
        g.stop()


if __name__ == "__main__":
    unittest.main()

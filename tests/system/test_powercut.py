# SPDX-License-Identifier: Apache-2.0
"""The power goes under the whole daemon, at any moment between two writes or syncs, and the disk keeps any subset of
what was not synced, torn at sectors. The daemon is started again on what is left, and everything that was answered
must be there: grants, proofs, registrations, evidence with its receipt, an audit chain that verifies. Each round goes
on with the store that the one before has left."""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import unittest

import cbor2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import diskfs
import verify
from coap import CONTENT_FORMAT, GET, POST, Peer, uint
from gateway import Gateway, wait_for
from test_attest import EAT, claims, sign1
from test_provision import parse_grant

FACTORY = "factory-key-0123"
ROUNDS = 400 if os.environ.get("TORTURE") else 15
DEVICES = 3
# How many changes and syncs of the disk a round lasts at most: in the first turns, in some device's rotation, behind a
# checkpoint (about 2,000 until one is due).
MOMENTS = (40, 600, 5000)


class Device:
    """Rotates and attests for as long as it is answered, and remembers what it was told."""

    def __init__(self, name, private):
        self.name, self.private = name, private
        self.key = (name, FACTORY)
        self.proven = set()
        self.granted = None  # told, and not known to be proven
        self.evidence = []   # (sequence, evidence)
        self.peer = None
        self.is_dark = False

    def connect(self, gateway, key):
        self.peer = Peer(gateway, *key, seconds=3)
        if self.is_dark:
            self.peer.process.kill()
        return self.peer

    def go_dark(self):
        """Nobody answers any more: no need to wait."""
        self.is_dark = True
        if self.peer:
            self.peer.process.kill()

    def ask(self, peer, method, path, options=(), payload=b"", code=None):
        try:
            answer = peer.request(method, path, options, payload)
        except OSError:
            return None  # the peer has ended
        return answer.payload if answer is not None and answer.status == code else None

    def prove(self, gateway, key):
        """Whether the key opens a session in which something is answered: then its proof is durable."""
        with self.connect(gateway, key) as peer:
            if not peer.is_connected or self.ask(peer, GET, "time", code="2.05") is None:
                return False
        self.key, self.granted = key, None
        self.proven.add(key[0])
        return True

    def step(self, gateway):
        if self.granted and not self.prove(gateway, self.granted):
            return False
        with self.connect(gateway, self.key) as peer:
            if not peer.is_connected:
                return False
            nonce = self.ask(peer, POST, "rats/nonce", code="2.01")
            if nonce is None:
                return False
            evidence = sign1(self.private, claims(cbor2.loads(nonce)[10]))
            answer = self.ask(peer, POST, "rats/evidence", [(CONTENT_FORMAT, uint(EAT))], evidence, code="2.01")
            if answer is None:
                return False
            self.evidence.append((cbor2.loads(answer)[0], evidence))
            grant = self.ask(peer, POST, "cred", code="2.04")
            if grant is None:
                return False
            self.granted = parse_grant(grant)
        return True

    def run(self, gateway):
        while not self.is_dark and self.step(gateway):
            pass


class Lost(AssertionError):
    pass


class PowerCut(unittest.TestCase):
    def setUp(self):
        if not diskfs.IS_THERE:
            self.skipTest(diskfs.WHY_NOT)
        self.folder = tempfile.mkdtemp(prefix="gatewayd-powercut-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        private = ec.generate_private_key(ec.SECP256R1())
        self.public_file = os.path.join(self.folder, "attestation.pem")
        with open(self.public_file, "wb") as f:
            f.write(private.public_key().public_bytes(serialization.Encoding.PEM,
                                                      serialization.PublicFormat.SubjectPublicKeyInfo))
        self.private = private
        self.devices, self.registered = [], []

    def register(self, gateway, name):
        status, _ = gateway.ctl("device", "add", name, "--profile", "attesting", "--psk", "text:" + FACTORY,
                                "--attestation-key", self.public_file, check=False)
        if status == 0:
            self.registered.append(name)
        return status == 0

    def operate(self, gateway, number):
        """An operator who registers one device after another."""
        count = 0
        while self.register(gateway, "late-%d-%d" % (number, count)):
            count += 1

    def work(self, gateway, disk, number):
        """Until the power goes."""
        people = [threading.Thread(target=d.run, args=(gateway,)) for d in self.devices]
        people.append(threading.Thread(target=self.operate, args=(gateway, number)))
        for p in people:
            p.start()
        wait_for(disk.is_cut, "the power cut")
        gateway.kill()
        for d in self.devices:
            d.go_dark()
        for p in people:
            p.join()
        for d in self.devices:
            d.is_dark = False

    def needs(self, is_there, what):
        if not is_there:
            raise Lost(what)

    def look(self, gateway, image):
        """Everything that was answered is there; then all devices are settled for the next round."""
        rows = self.custody(image)
        shown = {d["id"] for d in gateway.ctl("device", "list", "--json")[1]}
        for name in self.registered:
            self.needs(name in shown, "the registration of %s" % name)
        for device in self.devices:
            keys = {c["identity"]: c["state"]
                    for c in gateway.ctl("device", "show", device.name, "--json")[1]["credentials"]}
            last = device.granted[0] if device.granted else None
            # A proof whose answer was cut off may have happened.
            holds = ("active", "retiring") if keys.get(last) == "active" else ("active",)
            self.needs(keys.get(device.key[0]) in holds, "the proof of %s, %s" % (device.key[0], keys))
            self.needs(not last or last in keys, "the grant %s, %s" % (last, keys))
            self.needs(device.prove(gateway, device.granted or device.key), "a session with the last key granted")
            for sequence, evidence in device.evidence:
                found = rows.get(sequence)
                self.needs(found and found[0] == device.name and found[2] == evidence, "evidence %d" % sequence)
                _, receipt = verify.read_receipt(found[1])
                self.needs(receipt[verify.R_SEQUENCE] == sequence and receipt[verify.R_DIGEST] ==
                           hashlib.sha256(evidence).digest(), "the receipt %d" % sequence)
        status, output = gateway.ctl("audit", "--verify")
        self.needs(status == 0, "the audit chain: " + output)

    def custody(self, image):
        """Read by somebody else: another SQLite, from a copy of what the cut has left."""
        copy = os.path.join(self.folder, "copy")
        shutil.rmtree(copy, True)
        shutil.copytree(image, copy)
        with sqlite3.connect(os.path.join(copy, "store.db")) as db:
            self.needs(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the store's integrity")
            rows = {r[0]: r[1:] for r in db.execute("SELECT sequence, device, receipt, evidence FROM custody")}
        db.close()
        return rows

    def first(self):
        """A store with devices, made on a disk of its own; returns its image."""
        image = os.path.join(self.folder, "image-0")
        os.mkdir(image)
        with Gateway(store=image) as gateway:
            for number in range(DEVICES):
                name = "device-%d" % number
                self.assertTrue(self.register(gateway, name))
                self.devices.append(Device(name, self.private))
        return image

    def round(self, image, number, seed, is_lying=False):
        """Starts on the image, works, cuts, starts on what is left and looks. Returns the image that left."""
        chance = random.Random(seed)
        left = os.path.join(self.folder, "image-%d" % number)
        os.mkdir(left)
        disk = diskfs.Disk(image)
        gateway = Gateway(store=disk.path)
        try:
            if is_lying:
                disk.tell("lie", "on")
            gateway.start()
            disk.cut(seed, left, 1 + chance.randrange(chance.choice(MOMENTS)))
            self.work(gateway, disk, number)
        finally:
            gateway.close()
            disk.close()
        # Where a second cut comes in the middle of the recovery, the third start sees what two have left.
        return self.recover(left, number, seed, chance)

    def recover(self, image, number, seed, chance):
        if chance.randrange(3) == 0:
            again = image + "-again"
            os.mkdir(again)
            disk = diskfs.Disk(image)
            gateway = Gateway(store=disk.path)
            try:
                disk.cut(seed + 1, again, 1 + chance.randrange(20))
                gateway.start(wait=False)
                wait_for(lambda: disk.is_cut() or gateway.events("started"), "the cut, or the start")
                if not disk.is_cut():
                    disk.cut(seed + 1, again)
                gateway.kill()
            finally:
                gateway.close()
                disk.close()
            image = again
        looked_at = os.path.join(self.folder, "start-%d" % number)
        shutil.copytree(image, looked_at)
        gateway = Gateway(store=looked_at)
        try:
            try:
                gateway.start()
            except AssertionError as e:
                raise Lost("the start: %s" % e) from e
            self.look(gateway, image)
            gateway.stop()
        except Lost as e:
            raise Lost("seed %d, round %d lost %s\n%s" % (seed, number, e, gateway.output())) from None
        finally:
            gateway.close()
        return looked_at

    def test_everything_that_was_answered_survives_every_cut(self):
        seed = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 31)))
        print("seed %d, SEED=… repeats it" % seed)
        image = self.first()
        answered = 0
        for number in range(1, ROUNDS + 1):
            image = self.round(image, number, seed + number)
            answered = sum(len(d.evidence) + len(d.proven) for d in self.devices) + len(self.registered)
        print("%d cuts, %d answers, none lost" % (ROUNDS, answered))
        self.assertGreater(answered, 4 * ROUNDS)

    def test_a_disk_that_lies_about_its_syncs_is_found_to_lose_something(self):
        lost = []
        image = self.first()
        for number in range(1, 9):
            try:
                self.round(image, number, 1000 + number, is_lying=True)
            except Lost as e:
                lost.append(e)
                break
        self.assertTrue(lost)


if __name__ == "__main__":
    unittest.main()

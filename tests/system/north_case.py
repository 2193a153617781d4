# SPDX-License-Identifier: Apache-2.0
"""What tests of north share: receipts as core makes them, and core itself, played over the harness."""
import collections
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

import verify
from upstream import Upstream

BUILD = pathlib.Path(os.environ.get("GATEWAYD_BUILD", "build")).resolve()
HARNESS = BUILD / "system" / "north_harness"
DEADLINE = 60
WINDOW = 256


class Gateway:
    """A store with its receipts, as core would have it: the source of records."""

    def __init__(self, name="gateway-1", incarnation=bytes(range(8))):
        self.name, self.incarnation = name, incarnation
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.device_keys = collections.defaultdict(lambda: ec.generate_private_key(ec.SECP256R1()))
        self.previous = verify.NO_PREVIOUS
        self.records = []  # (sequence, device, format, nonce, receipt, evidence)

    @staticmethod
    def sign(key, payload, kid=None):
        protected = cbor2.dumps({1: -7})
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return cbor2.dumps(cbor2.CBORTag(18, [protected, {4: kid} if kid else {}, payload,
                                              r.to_bytes(32, "big") + s.to_bytes(32, "big")]))

    def add(self, device, evidence=None, tier=2):
        sequence = len(self.records) + 1
        nonce = hashlib.sha256(b"nonce %d" % sequence).digest()
        if evidence is None:
            evidence = self.sign(self.device_keys[device], cbor2.dumps({10: nonce, 256: device.encode()}))
        payload = cbor2.dumps({
            verify.R_GATEWAY: self.name, verify.R_INCARNATION: self.incarnation,
            verify.R_SEQUENCE: sequence, verify.R_DEVICE: device, verify.R_RECEIVED: 1793000000 + sequence, verify.R_QUALITY: 2,
            verify.R_NONCE: nonce, verify.R_FORMAT: 263,
            verify.R_DIGEST: hashlib.sha256(evidence).digest(),
            verify.R_APPRAISAL: {0: tier, 1: {0: 2}, 2: "as registered"}, verify.R_POWERED: 60 * sequence,
            verify.R_PREVIOUS: self.previous}, canonical=True)
        receipt = self.sign(self.key, payload, verify.kid_of(self.key.public_key()))
        self.previous = hashlib.sha256(receipt).digest()
        self.records.append((sequence, device, 263, nonce, receipt, evidence))
        return sequence

    def fill(self, count, devices=7, **more):
        for i in range(count):
            self.add("sensor-%d" % (i % devices), **more)
        return self


class North:
    """North in a process, and the core on the other end: it sends waiting records in order, at most a
    window of them unacknowledged, and keeps what north says."""

    def __init__(self, upstream, gateway, **options):
        pki = upstream.pki
        self.gateway = gateway
        arguments = [options.get("url", upstream.url), options.get("ca", pki / "ca.pem"),
                     options.get("certificate", pki / "client.pem"), options.get("key", pki / "client.key"),
                     options.get("retry_min", 0), options.get("retry_max", 1), options.get("batch", 64),
                     options.get("timeout", 30)]
        arguments += ["none"] if options.get("idle") else []
        arguments += ["est=" + options["est"]] if options.get("est") else []
        environment = dict(os.environ, **options.get("environment", {}))
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*options.get("prefix", []), str(HARNESS), *map(str, arguments)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env=environment)
        self.lines = []
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.sent = 0  # how many of the gateway's records have been sent

    def _read(self):
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.strip())
                self.news.notify_all()
        with self.news:
            self.lines.append("end of output")
            self.news.notify_all()

    def kill(self):
        self.process.kill()
        self.close()

    def close(self):
        """Ends it in order, if it still runs; returns its exit status and what it wrote to standard error."""
        if self.errors.closed:
            return None, ""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.errors.seek(0)
        text = self.errors.read()
        self.errors.close()
        return status, text

    def say(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def hello(self):
        self.say("hello %s %s" % (self.gateway.name, self.gateway.incarnation.hex()))
        return self

    def record(self, index, without_evidence=False):
        sequence, device, kind, nonce, receipt, evidence = self.gateway.records[index]
        self.say("record %d %s %d %s %s %s" % (sequence, device, kind, nonce.hex(), receipt.hex(),
                                               "-" if without_evidence else evidence.hex()))

    def wait(self, what, deadline=DEADLINE):
        """Until `what`, a function of the lines or a pattern of one, holds; returns what it gave."""
        if isinstance(what, str):
            pattern = re.compile(what)
            what = lambda lines: next(filter(None, map(pattern.match, lines)), None)
        end = time.monotonic() + deadline
        with self.news:
            while True:
                got = what(self.lines)
                if got:
                    return got
                left = end - time.monotonic()
                if left <= 0 or (self.lines and self.lines[-1] == "end of output"):
                    raise AssertionError("not said in time; last: %s" % self.lines[-5:])
                self.news.wait(left)

    def numbers(self, verb):
        with self.news:
            return [int(line.split()[1]) for line in self.lines if line.startswith(verb + " ")]

    def deliver(self, skip=(), deadline=DEADLINE):
        """Sends all records but those delivered before, and waits until north has had its say on each.
        Returns what was delivered, in order."""
        todo = [i for i, r in enumerate(self.gateway.records) if r[0] not in skip]
        acknowledged = 0
        while acknowledged < len(todo):
            while self.sent < len(todo) and self.sent - acknowledged < WINDOW:
                self.record(todo[self.sent])
                self.sent += 1
            before = acknowledged
            self.wait(lambda lines: len([1 for l in lines if l.startswith("delivered ")]) > before, deadline)
            acknowledged = len(self.numbers("delivered"))
        return self.numbers("delivered")


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-north-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.gateway = Gateway()

    def collector(self, *flags):
        up = Upstream(self.folder, *flags)
        self.addCleanup(up.stop)
        return up.start()

    def north(self, up, **options):
        north = North(up, options.pop("gateway", self.gateway), **options)
        self.addCleanup(self.end, north, options.get("fails", False))
        return north

    def end(self, north, fails=False):
        """However a test leaves it: north ends in order, and no sanitizer has anything to say."""
        status, text = north.close()
        self.assertNotRegex(text, "Sanitizer|runtime error", text)
        if status is not None:
            self.assertEqual(status != 0, fails, text)

    def assert_all_arrived(self, up, count):
        books = up.books()
        self.assertEqual(books["records"], count, books)
        self.assertTrue(books["chain_unbroken"], books)
        self.assertEqual(books["order_violations"], 0, books)
        self.assertEqual([s for s, _, _ in up.sequences()], list(range(1, count + 1)))
        return books

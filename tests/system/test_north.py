#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""North against the collector of upstream.py: north itself, core played by the test over the harness."""
import collections
import hashlib
import json
import os
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import upstream as collector
from upstream import Upstream, make_pki

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
        self.previous = collector.NO_PREVIOUS
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
            collector.R_GATEWAY: self.name, collector.R_INCARNATION: self.incarnation,
            collector.R_SEQUENCE: sequence, collector.R_DEVICE: device, collector.R_RECEIVED: 1793000000 + sequence, collector.R_QUALITY: 2,
            collector.R_NONCE: nonce, collector.R_FORMAT: 263,
            collector.R_DIGEST: hashlib.sha256(evidence).digest(),
            collector.R_APPRAISAL: {0: tier, 1: {0: 2}, 2: "as registered"}, collector.R_POWERED: 60 * sequence,
            collector.R_PREVIOUS: self.previous}, canonical=True)
        receipt = self.sign(self.key, payload, collector.kid_of(self.key.public_key()))
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
        environment = dict(os.environ, **options.get("environment", {}))
        self.process = subprocess.Popen([*options.get("prefix", []), str(HARNESS), *map(str, arguments)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE if options.get("errors") else None,
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

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                if pipe:
                    pipe.close()
            except BrokenPipeError:
                pass

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
        self.addCleanup(north.kill)
        return north

    def assert_all_arrived(self, up, count):
        books = up.books()
        self.assertEqual(books["records"], count, books)
        self.assertTrue(books["chain_unbroken"], books)
        self.assertEqual(books["order_violations"], 0, books)
        self.assertEqual([s for s, _, _ in up.sequences()], list(range(1, count + 1)))
        return books


class Delivery(Case):
    def test_everything_arrives_once_in_order_and_every_signature_verifies(self):
        keys = self.folder / "keys.json"
        self.gateway.fill(1000)
        keys.write_text(json.dumps({d: k.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
            for d, k in self.gateway.device_keys.items()}))
        up = self.collector("--attestation-keys", str(keys))
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 1001)))
        books = self.assert_all_arrived(up, 1000)
        self.assertEqual(books["evidence_verified"], 1000)
        self.assertEqual(books["duplicates"], 0)
        self.assertLess(books["batches"], 200)

    def test_lost_replies_cost_a_replay_of_the_same_batch_and_no_double_record(self):
        up = self.collector("--drop-after-store", "--seed", "1")
        self.gateway.fill(400)
        north = self.north(up, batch=40).hello()
        self.assertEqual(north.deliver(), list(range(1, 401)))
        books = self.assert_all_arrived(up, 400)
        self.assertGreaterEqual(books["replays"], 8)
        # A batch that was answered with silence came again as it was, under its Idempotency-Key.
        self.assertEqual(books["batches"], 2 * books["replays"])

    def test_failures_by_the_dozen_lose_nothing_and_keep_the_order(self):
        up = self.collector("--fail-rate", "0.3", "--drop-after-store", "0.3", "--seed", "5")
        self.gateway.fill(300)
        north = self.north(up, batch=16, retry_max=0).hello()
        self.assertEqual(north.deliver(), list(range(1, 301)))
        books = self.assert_all_arrived(up, 300)
        self.assertGreater(books["faults"], 3)

    def test_a_collector_that_is_away_and_comes_back_gets_everything(self):
        up = self.collector()
        self.gateway.fill(100)
        up.stop()
        north = self.north(up).hello()
        down = north.wait(r"uplink down (\d+) (.*)")
        self.assertIn("connect", down[2].lower())
        for i in range(100):
            north.record(i)
        north.sent = 100
        up.start()
        north.wait(lambda lines: len([l for l in lines if l.startswith("delivered ")]) == 100)
        north.wait("uplink up")
        self.assert_all_arrived(up, 100)

    def test_a_north_killed_in_the_middle_leaves_the_rest_to_the_next(self):
        up = self.collector("--slow", "0.05")
        self.gateway.fill(300)
        delivered = set()
        for _ in range(6):
            north = self.north(up, batch=10).hello()
            todo = [i for i in range(300) if self.gateway.records[i][0] not in delivered]
            for i in todo[:WINDOW]:
                north.record(i)
            north.wait(lambda lines: len([l for l in lines if l.startswith("delivered ")]) >= 20)
            north.kill()
            delivered |= set(north.numbers("delivered"))
        up.faults(slow=0)
        north = self.north(up).hello()
        north.deliver(skip=delivered)
        self.assertEqual(sorted(delivered | set(north.numbers("delivered"))), list(range(1, 301)))
        self.assert_all_arrived(up, 300)

    def test_a_collector_restarted_with_its_books_counts_nothing_twice(self):
        up = self.collector()
        self.gateway.fill(50)
        north = self.north(up).hello()
        north.deliver()
        up.stop()
        up.start()
        again = self.north(up).hello()
        self.assertEqual(again.deliver(), list(range(1, 51)))
        books = self.assert_all_arrived(up, 50)
        self.assertEqual(books["duplicates"], 50)

    def test_a_restored_store_reuses_no_name(self):
        up = self.collector()
        self.gateway.fill(5)
        self.north(up).hello().deliver()
        restored = Gateway(incarnation=b"restored")
        restored.key = self.gateway.key
        restored.fill(5)
        self.north(up, gateway=restored).hello().deliver()
        books = up.books()
        self.assertEqual(books["records"], 10)
        self.assertTrue(books["chain_unbroken"])

    def test_batches_keep_to_their_size(self):
        up = self.collector()
        self.gateway.fill(60, evidence=os.urandom(60000))
        north = self.north(up, batch=64).hello()
        self.assertEqual(north.deliver(), list(range(1, 61)))
        books = self.assert_all_arrived(up, 60)
        self.assertGreaterEqual(books["batches"], 60 * 60 // 512)

    def test_a_gateway_id_of_any_characters_arrives_as_it_is(self):
        up = self.collector()
        gateway = Gateway(name="werk-7/halle:ä%0d%0aX").fill(1)
        self.north(up, gateway=gateway).hello().deliver()
        self.assertEqual(up.books()["chains"][0]["gateway"], "werk-7/halle:ä%0d%0aX")

    def test_a_record_sent_again_while_it_is_held_is_ignored(self):
        up = self.collector("--slow", "0.3")
        self.gateway.fill(3)
        north = self.north(up).hello()
        for i in (0, 1, 2, 0, 1, 2):
            north.record(i)
        north.wait("delivered 3")
        north.say("ping")
        north.wait("pong")
        self.assertEqual(north.numbers("delivered"), [1, 2, 3])


class Refusals(Case):
    def test_one_refused_record_is_parked_and_its_receipt_delivered_and_all_goes_on(self):
        up = self.collector("--status", "400-for-sequence 37")
        self.gateway.fill(100)
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 101)))
        self.assertEqual(north.numbers("parked"), [37])
        self.assertIn("parked 37 400 HTTP 400: refused as told: sequence 37", north.lines)
        books = self.assert_all_arrived(up, 100)
        self.assertEqual(books["receipts_alone"], 1)
        self.assertNotIn(False, [has for s, _, has in up.sequences() if s != 37])

    def test_many_refused_records_are_each_found(self):
        bad = [1, 2, 63, 64, 65, 128, 199, 200]
        up = self.collector(*sum((["--status", "422-for-sequence %d" % s] for s in bad), []))
        self.gateway.fill(200)
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 201)))
        self.assertEqual(north.numbers("parked"), bad)
        self.assertEqual(self.assert_all_arrived(up, 200)["receipts_alone"], len(bad))

    def test_a_receipt_refused_as_well_is_given_up_and_the_rest_goes_on(self):
        up = self.collector("--status", "409-for-receipt 3")
        self.gateway.fill(6)
        north = self.north(up).hello()
        for i in range(6):
            north.record(i)
        north.wait("delivered 6")
        self.assertEqual(north.numbers("delivered"), [1, 2, 4, 5, 6])
        self.assertEqual(north.numbers("parked"), [3, 3])
        # The next north gets it without evidence.
        up.faults(status=[])
        again = self.north(up).hello()
        again.record(2, without_evidence=True)
        again.wait("delivered 3")
        self.assertTrue(up.books()["chain_unbroken"])

    def test_a_collector_that_refuses_us_parks_nothing(self):
        up = self.collector("--deny", "403")
        self.gateway.fill(10)
        north = self.north(up).hello()
        for i in range(10):
            north.record(i)
        north.wait("uplink down .* HTTP 403")
        up.faults(deny=0)
        north.wait("delivered 10")
        # The same in the middle of a run.
        up.faults(deny=404)
        self.gateway.fill(10)
        for i in range(10, 20):
            north.record(i)
        north.wait("uplink down .* HTTP 404")
        up.faults(deny=0)
        north.wait("delivered 20")
        self.assertEqual(north.numbers("parked"), [])
        self.assert_all_arrived(up, 20)

    def test_too_large_a_batch_is_sent_in_smaller_ones(self):
        up = self.collector("--max-body", "20000")
        self.gateway.fill(100, evidence=os.urandom(2000))
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 101)))
        self.assertEqual(north.numbers("parked"), [])
        self.assert_all_arrived(up, 100)

    def test_retry_after_is_honoured(self):
        up = self.collector("--fail-first", "1", "--fail-status", "429", "--retry-after", "2")
        self.gateway.fill(1)
        start = time.monotonic()
        north = self.north(up).hello()
        north.wait("uplink down 2 HTTP 429")
        north.deliver()
        self.assertGreaterEqual(time.monotonic() - start, 2)

    def test_an_http_date_in_retry_after_is_honoured(self):
        up = self.collector()
        up.faults(fail_first=1, retry_after=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30)))
        north = self.north(up).hello()
        self.assertIn(int(north.wait(r"uplink down (\d+) HTTP 503")[1]), range(27, 31))

    def test_a_retry_after_of_a_week_is_cut_to_an_hour(self):
        up = self.collector("--fail-first", "1", "--retry-after", "604800")
        north = self.north(up).hello()
        north.wait("uplink down 3600 HTTP 503")

    def test_statuses_that_ask_for_patience_park_nothing(self):
        for status in (408, 425, 429, 500, 502, 504):
            with self.subTest(status=status), tempfile.TemporaryDirectory() as folder:
                with Upstream(folder) as up:
                    north = self.north(up, gateway=Gateway().fill(3)).hello()
                    north.wait("uplink up")
                    up.faults(fail_first=2, fail_status=status)
                    self.assertEqual(north.deliver(), [1, 2, 3])
                    self.assertEqual(north.numbers("parked"), [])
                    north.kill()


class Results(Case):
    def test_results_reach_core_before_the_record_is_delivered(self):
        up = self.collector("--results")
        self.gateway.add("a", tier=2)
        self.gateway.add("b", tier=96)
        north = self.north(up).hello()
        north.deliver()
        self.assertIn("result 1 2", north.lines)
        self.assertIn("result 2 96", north.lines)
        self.assertLess(north.lines.index("result 2 96"), north.lines.index("delivered 2"))

    def test_a_malformed_reply_counts_as_none_and_the_delivery_stands(self):
        for raw in ("ff", "a0", "81a20101", "81a2010102181f", "81a201000202", "81a2012002", "81a20101020280",
                    "9a7fffffff", "81a301010202010102", "81820102"):
            with self.subTest(raw=raw):
                folder = self.folder / raw
                folder.mkdir()
                with Upstream(folder, "--results-raw", raw) as up:
                    north = self.north(up, gateway=Gateway().fill(2)).hello()
                    self.assertEqual(north.deliver(), [1, 2])
                    self.assertFalse([l for l in north.lines if l.startswith("result")])
                    north.kill()


class Distrust(Case):
    """What north must not accept of an uplink."""

    def expect_down(self, up, pattern, **options):
        self.gateway.fill(1)
        north = self.north(up, **options).hello()
        north.record(0)
        reason = north.wait(r"uplink down \d+ (.*)")[1]
        self.assertRegex(reason, pattern)
        self.assertEqual(north.numbers("delivered"), [])
        return north

    def test_a_server_of_another_ca_is_refused(self):
        up = self.collector("--certificate", "other-server")
        self.expect_down(up, "(?i)certificate problem")
        self.assertEqual(up.books()["posts"], 0)

    def test_anchors_of_the_system_do_not_count_where_others_are_configured(self):
        anchors = self.folder / "anchors"
        anchors.mkdir()
        up = self.collector("--certificate", "other-server")
        shutil.copy(up.pki / "other-ca.pem", anchors / "ca.pem")
        shutil.copy(up.pki / "other-ca.pem", anchors / "ca-certificates.crt")
        subprocess.run(["openssl", "rehash", str(anchors)], check=True)
        script = 'mount --bind "$1" /etc/ssl/certs && shift && exec "$@"'
        prefix = ["unshare", "--mount", "/bin/sh", "-c", script, "sh", str(anchors)]
        self.expect_down(up, "(?i)certificate problem", prefix=prefix)
        # The same anchors do count where none are configured: the bind mount is in effect.
        north = self.north(up, prefix=prefix, ca="").hello()
        north.wait("uplink (up|down .*(?i:alert|unknown ca))")

    def test_a_server_under_another_name_is_refused(self):
        up = self.collector("--address", "127.0.0.2")
        self.expect_down(up, "(?i)subject", url="https://127.0.0.2:%d/" % up.port)
        self.assertEqual(up.books()["posts"], 0)

    def test_a_client_certificate_that_the_collector_does_not_know_parks_nothing(self):
        up = self.collector()
        north = self.expect_down(up, "(?i)alert|unknown ca|receiving|reset",
                                 certificate=up.pki / "other-client.pem", key=up.pki / "other-client.key")
        self.assertEqual(north.numbers("parked"), [])
        self.assertEqual(up.books()["posts"], 0)

    def test_tls_before_1_2_is_refused_and_1_2_is_taken(self):
        up = self.collector("--tls-max", "1.1")
        self.expect_down(up, "(?i)protocol|version")
        with tempfile.TemporaryDirectory() as folder, Upstream(folder, "--tls-max", "1.2") as newer:
            self.assertEqual(self.north(newer).hello().deliver(), [1])

    def test_redirects_are_not_followed(self):
        with tempfile.TemporaryDirectory() as folder, Upstream(folder, pki=self.folder / "pki") as there:
            up = self.collector("--redirect", there.url)
            self.expect_down(up, "HTTP 307: redirects are not followed")
            self.assertEqual(there.books()["posts"], 0)

    def test_a_reply_of_10_mib_is_refused_whether_or_not_it_says_so(self):
        for more in ([], ["--chunked"]):
            with self.subTest(more=more), tempfile.TemporaryDirectory() as folder:
                with Upstream(folder, "--huge-reply", str(10 << 20), *more) as up:
                    north = self.expect_down(up, "longer than 64 KiB")
                    self.assertLess(self.peak_kib(north), 120 * 1024)
                    north.kill()

    def test_header_fields_without_end_are_refused(self):
        up = self.collector("--huge-header", str(90 * 1000))
        self.expect_down(up, "longer than 64 KiB")

    @staticmethod
    def peak_kib(north):
        text = pathlib.Path("/proc/%d/status" % north.process.pid).read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) if "asan" not in os.environ.get("ASAN_OPTIONS", "") else 0

    def test_a_proxy_in_the_environment_is_not_used(self):
        up = self.collector()
        self.gateway.fill(1)
        proxy = "http://127.0.0.1:9"
        north = self.north(up, environment={"https_proxy": proxy, "HTTPS_PROXY": proxy, "ALL_PROXY": proxy}).hello()
        self.assertEqual(north.deliver(), [1])


class Files(Case):
    """What north reads at its start, and needs no more afterwards."""

    def refused(self, **options):
        up = Upstream(self.folder)
        up.port = 1
        north = self.north(up, **options)
        text = north.wait("refused (.*)")[1]
        north.wait("end of output")
        return text

    def test_only_https_will_do(self):
        for url in ("http://localhost/", "ftp://localhost/", "localhost", "", "https://", "file:///etc/passwd",
                    "https://user:secret@localhost/"):
            with self.subTest(url=url):
                self.assertIn("https://", self.refused(url=url))

    def test_files_that_cannot_serve_are_named(self):
        make_pki(self.folder / "pki")
        pki = self.folder / "pki"
        empty = self.folder / "empty"
        empty.write_bytes(b"")
        locked = self.folder / "locked.key"
        subprocess.run(["openssl", "pkcs8", "-topk8", "-in", str(pki / "client.key"), "-out", str(locked),
                        "-passout", "pass:x"], check=True, capture_output=True)
        large = self.folder / "large"
        large.write_bytes(b"-" * (5 << 20))
        for options, expected in (
                ({"ca": self.folder / "none"}, "none: No such file"),
                ({"ca": empty}, "empty: holds no certificate"),
                ({"ca": large}, "large: longer"),
                ({"ca": self.folder}, "Is a directory"),
                ({"certificate": pki / "client.key"}, "client.key: holds no certificate"),
                ({"certificate": ""}, "north.client_certificate"),
                ({"key": ""}, "north.client_key"),
                ({"key": pki / "client.pem"}, "client.pem: holds no private key"),
                ({"key": locked}, "encrypted"),
                ({"key": pki / "server.key"}, "is not the key of"),
                ({"key": large}, "large: longer")):
            with self.subTest(expected=expected):
                self.assertIn(expected, self.refused(**options))

    def test_no_file_is_needed_after_the_start(self):
        up = self.collector("--fail-first", "1")
        self.gateway.fill(3)
        north = self.north(up)
        north.wait("ready")
        hidden = self.folder / "hidden"
        (self.folder / "pki").rename(hidden)
        north.hello()
        self.assertEqual(north.deliver(), [1, 2, 3])


class Waiting(Case):
    def test_a_change_of_the_network_ends_the_wait(self):
        # A network namespace whose loopback is down until the test raises it: the back-off is a minute.
        inner = self.folder / "inner.sh"
        inner.write_text('#!/bin/sh\ncat %s >/dev/null\nexec "$@"\n' % (self.folder / "go"))
        inner.chmod(0o755)
        os.mkfifo(self.folder / "go")
        up = Upstream(self.folder)
        space = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.addCleanup(space.wait)
        self.addCleanup(space.kill)
        ns = "/proc/%d/ns/net" % space.pid
        end = time.monotonic() + DEADLINE
        while os.readlink(ns) == os.readlink("/proc/self/ns/net"):
            self.assertLess(time.monotonic(), end)
        enter = ["nsenter", "--net=" + ns]
        up.port = 4433
        self.gateway.fill(2)
        north = self.north(up, prefix=enter, retry_min=60, retry_max=300, url="https://127.0.0.1:4433/").hello()
        self.assertGreaterEqual(int(north.wait(r"uplink down (\d+)")[1]), 60)
        server = subprocess.Popen([*enter, "/bin/sh", "-c", "ip link set lo up && exec \"$@\"", "sh",
                                   "/usr/bin/python3", collector.__file__, "serve", "--pki", str(up.pki),
                                   "--port", "4433"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        # Raised before the collector listened, so the first try may still find nobody.
        server.stdout.readline()
        subprocess.run([*enter, "ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
        start = time.monotonic()
        self.assertEqual(north.deliver(), [1, 2])
        self.assertLess(time.monotonic() - start, 30)

    def test_a_collector_that_says_nothing_times_out(self):
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            up = Upstream(self.folder)
            up.port = deaf.getsockname()[1]
            north = self.north(up, timeout=1).hello()
            north.wait("uplink down .* Timeout was reached")

    def test_heartbeats_are_answered_while_a_post_hangs(self):
        up = self.collector("--slow", "5")
        north = self.north(up).hello()
        north.say("ping")
        north.wait("pong", 3)

    def test_a_stop_does_not_wait_for_a_post_under_way(self):
        up = self.collector("--slow", "20")
        self.gateway.fill(1)
        north = self.north(up).hello()
        north.record(0)
        north.say("ping")
        north.wait("pong")
        start = time.monotonic()
        north.say("stop")
        north.wait("stopped")
        self.assertLess(time.monotonic() - start, 1)
        north.process.stdin.close()
        self.assertEqual(north.process.wait(5), 0)

    def test_without_a_verifier_north_keeps_still_and_answers_heartbeats(self):
        up = self.collector()
        self.gateway.fill(2)
        north = self.north(up, idle=True, ca="", certificate="", key="", url="").hello()
        north.record(0)
        north.say("ping")
        north.wait("pong")
        self.assertEqual(up.books()["posts"], 0)
        self.assertEqual([l for l in north.lines if l not in ("ready", "pong")], [])


class Frames(Case):
    """North trusts core's link as little as any other."""

    def ends(self, *lines, hello=True):
        up = Upstream(self.folder)
        up.port = 1
        north = self.north(up)
        if hello:
            north.hello()
        north.say(*lines)
        return north.wait("exit (\\d+)")[1]

    def test_core_gone_is_the_end_in_order(self):
        self.assertEqual(self.ends("break"), "0")

    def test_a_malformed_frame_is_the_end(self):
        for raw in ("64 00", "64 -", "67 -", "3 00ff", "200 -", "69 -"):
            with self.subTest(raw=raw):
                self.assertEqual(self.ends("raw " + raw) if raw != "3 00ff" else "74", "74")

    def test_a_record_before_the_hello_is_the_end(self):
        self.gateway.fill(1)
        sequence, device, kind, nonce, receipt, evidence = self.gateway.records[0]
        line = "record 1 %s 263 %s %s %s" % (device, nonce.hex(), receipt.hex(), evidence.hex())
        self.assertEqual(self.ends(line, hello=False), "74")

    def test_a_core_that_keeps_to_no_window_is_the_end(self):
        self.assertEqual(self.ends(*["record %d a 263 - 00 00" % s for s in range(1, 400)]), "105")


if __name__ == "__main__":
    unittest.main()

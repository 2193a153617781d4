#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""North distrusts: what it must not accept of a collector, of its files and of its link, and how it waits."""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import upstream as collector
from north_case import BUILD, DEADLINE, Case
from upstream import Upstream, make_pki


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
        subprocess.run(["openssl", "rehash", str(anchors)], check=True, capture_output=True)
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
        north = self.expect_down(up, "(?i)alert unknown ca|(sending|receiving) data|connect",
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
                    if "sanitize" not in str(BUILD):
                        self.assertLess(self.peak_kib(north), 64 * 1024)
                    self.end(north)

    def test_header_fields_without_end_are_refused(self):
        up = self.collector("--huge-header", str(90 * 1000))
        self.expect_down(up, "longer than 64 KiB")

    @staticmethod
    def peak_kib(north):
        text = pathlib.Path("/proc/%d/status" % north.process.pid).read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1])

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
        self.gateway.fill(1)
        north = self.north(up, **options).hello()
        north.record(0)
        text = north.wait("uplink down 0 (.*)")[1]
        # It lives, takes what core sends, and answers its heartbeats.
        north.say("try", "ping")
        north.wait("pong")
        self.end(north)
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

    def test_an_operator_need_not_wait_not_even_where_the_collector_asked_for_it(self):
        up = self.collector("--fail-first", "1", "--retry-after", "3000")
        self.gateway.fill(1)
        north = self.north(up).hello()
        north.record(0)
        north.wait("uplink down 3000")
        north.say("try")
        north.wait("delivered 1", 20)

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

    def ends(self, *lines, hello=True, fails=True):
        up = Upstream(self.folder)
        up.port = 1
        north = self.north(up, fails=fails)
        if hello:
            north.hello()
        north.say(*lines)
        return north.wait("exit (\\d+)")[1]

    def test_core_gone_is_the_end_in_order(self):
        self.assertEqual(self.ends("break", fails=False), "0")

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
        self.assertEqual(self.ends(*["record %d a 263 - 00 00" % s for s in range(1, 600)]), "105")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: Debian's coap-client on OpenSSL and on GnuTLS, and what the process may do after its start."""

import hashlib
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

from certificates import Certificate
from gateway import BUILD, SLOW
from south_bed import CERTIFICATE_SUITES, KEY, Closed, Device, South

CLIENTS = ("coap-client-openssl", "coap-client-gnutls")
SUITES = ("ECDHE-PSK-CHACHA20-POLY1305", "PSK-AES128-GCM-SHA256", "PSK-AES128-CCM", "PSK-AES128-CCM8")


class Clients(unittest.TestCase):
    def setUp(self):
        self.south = South()
        self.addCleanup(self.south.__exit__)

    def command(self, client, path, *options):
        return [client, "-B", "5", "-u", "dev", "-k", KEY.decode(), *options,
                "coaps://127.0.0.1:%d/%s" % (self.south.port, path)]

    def run_client(self, client, path, *options):
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run(self.command(client, path, "-o", out.name, *options), timeout=20 * SLOW, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return out.read()

    def test_they_get_and_post_in_blocks_of_any_size(self):
        body = os.urandom(5000)
        want = ("5000 " + hashlib.sha256(body).hexdigest()).encode()
        with tempfile.NamedTemporaryFile() as source:
            source.write(body)
            source.flush()
            for client in CLIENTS:
                with self.subTest(client=client):
                    self.assertEqual(self.run_client(client, "time"), b"01234567")
                    self.assertEqual(self.run_client(client, "slow/900"), b"slow")
                    for size in ("16", "64", "1024"):
                        self.assertEqual(len(self.run_client(client, "size/3000", "-b", size)), 3000)
                        self.assertEqual(self.run_client(client, "digest", "-m", "post", "-f", source.name, "-b", size), want)

    def test_they_observe(self):
        for client in CLIENTS:
            with self.subTest(client=client):
                since = self.south.mark()
                process = subprocess.Popen(self.command(client, "me", "-s", "20"), stdout=subprocess.PIPE,
                                           stderr=subprocess.DEVNULL)
                session = self.south.wait_for("request", since, path="me")["session"]
                seen = b""
                for text in ("first-news", "second-news"):
                    self.south.command("notify %d me %s" % (session, text))
                    deadline = time.monotonic() + 10 * SLOW
                    while text.encode() not in seen:
                        self.assertLess(time.monotonic(), deadline, seen)
                        seen += os.read(process.stdout.fileno(), 1000)
                process.send_signal(signal.SIGINT)
                process.wait(10 * SLOW)
                process.stdout.close()

    def test_killed_and_started_again_on_its_port_a_client_is_back_at_once(self):
        port = Device(self.south)
        number = port.source[1]
        port.close()
        for client in CLIENTS:
            with self.subTest(client=client):
                since = self.south.mark()
                process = subprocess.Popen(self.command(client, "me", "-s", "30", "-p", str(number)),
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                old = self.south.wait_for("request", since)["session"]
                process.kill()
                process.wait()
                start = time.monotonic()
                self.assertEqual(self.run_client(client, "time", "-p", str(number)), b"01234567")
                self.assertLess(time.monotonic() - start, 1.0 * SLOW)
                self.south.wait_for("closed", since, session=old, reason="replaced")

    def test_the_program_exports_the_calls_that_libcoap_is_to_meet(self):
        for program in ("system/south_harness", "gatewayd"):
            path = os.path.join(BUILD, program)
            if not os.path.exists(path):
                continue
            symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
            for name in ("bind", "epoll_ctl", "recvmsg", "sendmsg", "clock_gettime", "gettimeofday"):
                self.assertRegex(symbols, r" [TW] %s\b" % name)


class Walls(unittest.TestCase):
    def test_after_its_start_south_opens_no_file_makes_no_socket_and_starts_nobody(self):
        if "sanitize" in BUILD or "coverage" in BUILD:
            self.skipTest("such a build opens files of its own")
        leaf, dev = Certificate("gatewayd"), Certificate("dev")
        with South("half_open_sec=1", "idle_sec=3", credentials=(leaf.pkcs8, [leaf.der])) as south, tempfile.NamedTemporaryFile() as trace:
            strace = subprocess.Popen(["strace", "-f", "-p", str(south.pid), "-o", trace.name], stderr=subprocess.PIPE, text=True)
            self.assertIn("attached", strace.stderr.readline())
            since = south.mark()
            for suite in SUITES:
                with Device(south, suites=suite + ":@SECLEVEL=0").connect() as device:
                    device.get("time")
                    device.get("slow/600")
                    device.get("size/3000")
                    device.request(2, "digest", [(27, b"\x0a")], bytes(64))
                    device.request(2, "digest", [(27, b"\x12")], bytes(10))
                    device.request(1, "me", [(6, b"")])
                    south.command("notify %d me x" % south.session_of(device))
                    device.receive()
                    device.raw(os.urandom(100))
            with Device(south, suites=CERTIFICATE_SUITES, certificate=dev.files()).connect() as device:
                device.get("time")
            south.credentials(dev.pkcs8, [dev.der])
            for wrong in (Device(south, identity=b"nobody"), Device(south, suites=CERTIFICATE_SUITES), Device(south, suites="PSK-AES256-CBC-SHA:@SECLEVEL=0")):
                self.assertRaises(Closed, wrong.connect)
                wrong.close()
            late = Device(south, key=b"wrong")
            self.assertRaises((Closed, AssertionError), late.connect, 0.5)
            late.close()
            idle = Device(south).connect()
            south.wait_for("closed", since, reason="idle", session=south.session_of(idle))
            idle.close(with_notify=False)
            south.wait_for("failed", since, failure="wrong key")
            south.stop()
            strace.wait(10 * SLOW)
            strace.stderr.close()
            calls = set(re.findall(r"^(?:\d+ +)?(?:<... )?(\w+)", open(trace.name).read(), re.M))
            # The harness itself waits for its core at the end.
            self.assertEqual(calls & {"open", "openat", "openat2", "socket", "socketpair", "connect", "bind", "accept4", "execve",
                                      "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "kill", "unlink", "pipe2"}, set())
            self.assertIn("recvmmsg", calls)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: certificates beside PSK on one port: what clients are shown and asked, how core's verdict reaches
them, and how clients without a certificate get in all the same."""

import random
import select
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from certificates import PEM, Certificate
from gateway import SLOW
from south_bed import CERTIFICATE_SUITES, KEY, Closed, Device, South, client_program, records
from test_south_handshake import begin

PSK_SUITES = "PSK-AES128-CCM8:PSK-AES128-GCM-SHA256"
BOTH = PSK_SUITES + ":" + CERTIFICATE_SUITES
MESSAGE_MAX = 1400
NO_CERTIFICATE = "a certificate suite was offered, but no certificate given"
# enum certificate_verdict → what OpenSSL's client calls the alert
ALERTS = {1: "tlsv1 alert access denied", 2: "tlsv1 alert unknown ca", 3: "sslv3 alert certificate expired",
          4: "sslv3 alert certificate revoked", 5: "sslv3 alert bad certificate"}


class Site:
    """The owner's root, the gateway's sub-CA under it, the gateway's leaf and one device."""

    def __init__(self):
        self.root = Certificate("root", is_ca=True)
        self.sub = Certificate("sub", self.root, is_ca=True)
        self.leaf = Certificate("gatewayd", self.sub)
        self.device = Certificate("dev1", self.sub)
        self.anchors = tempfile.NamedTemporaryFile(suffix=".pem")
        self.anchors.write(self.root.x509.public_bytes(PEM))
        self.anchors.flush()

    def credentials(self, leaf=None):
        leaf = leaf or self.leaf
        return leaf.pkcs8, [leaf.der, self.sub.der]


SITE = Site()


def handshake_messages(datagrams):
    """(type, length) of the server's messages before encryption, whole as they were before fragmentation."""
    return [(record[13], int.from_bytes(record[14:17], "big")) for datagram in datagrams
            for kind, epoch, record in records(datagram) if kind == 22 and epoch == 0]


class Bed(unittest.TestCase):
    def start(self, *settings, credentials=None, **more):
        south = South(*settings, credentials=credentials or SITE.credentials(), **more)
        self.addCleanup(south.__exit__)
        return south

    def device(self, south, certificate=SITE.device, suites=CERTIFICATE_SUITES, **more):
        device = Device(south, suites=suites, certificate=certificate.files() if certificate else None, **more)
        self.addCleanup(device.close)
        return device


class Shown(Bed):
    """What clients see, and what of them core sees."""

    def test_the_whole_chain_is_sent_without_the_root_and_a_client_with_the_root_alone_verifies_it(self):
        south = self.start()
        device = self.device(south).connect()
        self.assertEqual(device.server_chain(), [SITE.leaf.der, SITE.sub.der])
        certificate, key = SITE.device.files()
        r = subprocess.run(["openssl", "s_client", "-dtls1_2", "-connect", "127.0.0.1:%d" % south.port, "-cert", certificate,
                            "-key", key, "-CAfile", SITE.anchors.name, "-verify_return_error", "-showcerts"],
                           input="", capture_output=True, text=True, timeout=20 * SLOW)
        self.assertIn("Verify return code: 0 (ok)", r.stdout)
        self.assertIn("No client certificate CA names sent", r.stdout)
        self.assertEqual(r.stdout.count("BEGIN CERTIFICATE"), 2)

    def test_no_handshake_message_of_a_usual_chain_reaches_1400_bytes(self):
        device = self.device(self.start()).connect()
        messages = handshake_messages(device.received)
        self.assertIn(13, [kind for kind, _ in messages])  # CertificateRequest
        self.assertLess(max(size for _, size in messages), MESSAGE_MAX)
        self.assertLess(device.largest, MESSAGE_MAX)

    def test_coap_clients_on_openssl_and_gnutls_get_in_with_a_certificate(self):
        south = self.start()
        certificate, key = SITE.device.files()
        for client in ("coap-client-openssl", "coap-client-gnutls"):
            with self.subTest(client=client):
                since = south.mark()
                r = subprocess.run([client, "-B", "5", "-c", certificate, "-j", key, "-C", SITE.anchors.name,
                                    "coaps://127.0.0.1:%d/time" % south.port], capture_output=True, timeout=20 * SLOW)
                self.assertEqual(r.stdout.strip(), b"01234567", r.stderr)
                self.assertEqual(south.wait_for("connected", since)["chain"][:len(SITE.device.der.hex())],
                                 SITE.device.der.hex())

    def test_core_gets_the_whole_chain_as_it_was_sent_the_leaf_first_and_again_with_the_session(self):
        south = self.start()
        device = Device(south, suites=CERTIFICATE_SUITES, certificate=SITE.device.files(SITE.sub, SITE.root))
        self.addCleanup(device.close)
        device.connect()
        chain = (SITE.device.der + SITE.sub.der + SITE.root.der).hex()
        peer = "127.0.0.1:%d" % device.source[1]
        self.assertEqual(south.wait_for("certificate", peer=peer)["chain"], chain)
        connected = south.wait_for("connected", peer=peer)
        self.assertEqual((connected["chain"], connected["identity"], connected["forward_secrecy"]), (chain, "", 1))
        self.assertEqual(device.get("time").status, "2.05")

    def test_a_device_may_have_a_key_of_any_allowed_kind(self):
        south = self.start()
        for kind in ("P-256", "P-384", "Ed25519", "RSA"):
            with self.subTest(kind=kind):
                device = self.device(south, Certificate("dev-" + kind, SITE.sub, kind))
                self.assertEqual(device.connect().get("time").status, "2.05")

    def test_the_gateway_may_have_an_elliptic_key_of_either_curve(self):
        for kind in ("P-256", "P-384"):
            with self.subTest(kind=kind):
                leaf = Certificate("gatewayd", SITE.sub, kind)
                device = self.device(self.start(credentials=SITE.credentials(leaf)))
                self.assertEqual(device.connect().server_chain()[0], leaf.der)

    def test_tls_unique_is_what_the_client_computes(self):
        south = self.start()
        for device in (self.device(south), self.device(south, None, PSK_SUITES + ":@SECLEVEL=0")):
            device.connect()
            told = south.wait_for("connected", peer="127.0.0.1:%d" % device.source[1])["tls_unique"]
            self.assertEqual((len(told), told), (24, device.tls_unique.hex()))

    def test_without_extended_master_secret_there_is_no_tls_unique(self):
        south = self.start()
        device = self.device(south, options=1 << 12 | 1)  # SSL_OP_NO_EXTENDED_MASTER_SECRET
        device.connect()
        self.assertEqual(south.wait_for("connected")["tls_unique"], "")

    def test_without_credentials_there_is_psk_alone(self):
        south = South()
        self.addCleanup(south.__exit__)
        with self.assertRaises(Closed):
            self.device(south).connect()
        south.wait_for("failed", failure="no cipher suite in common")
        self.assertIn("PSK", self.device(south, suites=BOTH).connect().suite)

    def test_before_core_has_told_its_credentials_a_hello_waits_and_is_not_lost(self):
        placeholder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
        placeholder.close()
        device = None

        class Early(South):
            def credentials(early, key, chain):
                nonlocal device
                early.command("sync")
                early.port = port
                deadline = time.monotonic() + 10 * SLOW
                while not any(line.split()[1].endswith(":%04X" % port) for line in list(open("/proc/net/udp"))[1:]):
                    self.assertLess(time.monotonic(), deadline)
                device = self.device(early)
                device.step()
                self.assertFalse(device.take(0.1))
                super().credentials(key, chain)
        south = Early("--port", str(port), credentials=SITE.credentials())
        self.addCleanup(south.__exit__)
        self.assertTrue(device.take(5 * SLOW))
        self.assertEqual(device.connect().get("time").status, "2.05")
        self.assertEqual(len(device.sent), len(set(device.sent)))  # nothing had to be sent again


class Verdicts(Bed):
    def test_each_verdict_of_core_is_an_alert(self):
        south = self.start()
        for verdict, alert in ALERTS.items():
            with self.subTest(alert=alert):
                south.command("verdict %d" % verdict)
                with self.assertRaises(Closed) as refused:
                    self.device(south).connect()
                self.assertEqual(str(refused.exception), alert)
        self.assertEqual(south.seen("connected"), [])
        south.wait_for("failed", failure="certificate refused")
        south.command("verdict 0")
        self.assertEqual(self.device(south).connect().get("time").status, "2.05")

    def test_a_silent_core_costs_internal_error_and_no_session(self):
        south = self.start()
        south.command("silent 1")
        with self.assertRaises(Closed) as refused:
            self.device(south).connect()
        self.assertIn("internal error", str(refused.exception))
        south.wait_for("failed", failure="core did not answer in time")
        self.assertEqual(south.seen("connected"), [])

    def test_a_certificate_without_its_key_connects_nobody(self):
        south, changed = self.start(), []

        def damage(datagram):
            parts = []
            for kind, epoch, record in records(datagram):
                if kind == 22 and epoch == 0 and record[13] == 15:  # CertificateVerify
                    record = record[:-1] + bytes([record[-1] ^ 1])
                    changed.append(record)
                parts.append(record)
            return [b"".join(parts)]
        with self.assertRaises(Closed):
            self.device(south, on_send=damage).connect()
        self.assertTrue(changed)
        south.wait_for("certificate")
        south.wait_for("failed")
        self.assertEqual(south.seen("connected"), [])

    def test_a_session_offered_again_is_asked_for_its_certificate_again(self):
        import south_bed as bed
        south = self.start()
        first = self.device(south).connect()
        session = bed.SSL_get1_session(first.ssl)
        first.close()
        south.command("verdict 4")
        with self.assertRaises(Closed):
            self.device(south, resume=session).connect()
        self.assertEqual(len(south.seen("certificate")), 2)
        bed.SSL_SESSION_free(session)

    def test_more_than_16_kib_of_certificates_are_refused_before_core_sees_them(self):
        south = self.start("half_open_sec=1")
        large = [Certificate("large", SITE.sub, filler=3000) for _ in range(6)]
        device = Device(south, suites=CERTIFICATE_SUITES, certificate=SITE.device.files(*large))
        self.addCleanup(device.close)
        self.assertRaises((Closed, AssertionError), device.connect, 2)
        south.wait_for("failed")
        self.assertEqual(south.seen("certificate"), [])

    def test_an_evicted_session_ends_at_once(self):
        south = self.start()
        device = self.device(south).connect()
        south.command("evict %d" % south.session_of(device))
        with self.assertRaises(Closed):
            device.read()


class Choice(Bed):
    """Who offers both kinds of suites."""

    def refused(self, south, **more):
        with self.assertRaises(Closed):
            self.device(south, None, BOTH, **more).connect()

    def test_a_client_with_psk_suites_and_a_certificate_is_asked_for_its_certificate(self):
        south = self.start()
        self.assertIn("ECDSA", self.device(south, suites=BOTH).connect().suite)
        self.assertEqual(len(south.seen("certificate")), 1)
        self.assertEqual(south.seen("lookup"), [])

    def test_a_client_that_offers_psk_alone_is_not_asked(self):
        south = self.start()
        self.assertIn("PSK", self.device(south, suites=PSK_SUITES + ":@SECLEVEL=0").connect().suite)

    def test_who_offers_both_and_has_no_certificate_gets_in_with_its_key_at_the_second_try(self):
        south = self.start()
        self.refused(south)
        south.wait_for("failed", failure=NO_CERTIFICATE)
        second = self.device(south, None, BOTH).connect()
        self.assertIn("PSK", second.suite)
        self.assertEqual(second.get("time").status, "2.05")

    def test_a_mark_counts_for_one_address_and_only_against_those_who_offer_psk(self):
        south = self.start(address="0.0.0.0")
        south.address = "127.0.0.1"
        self.refused(south, source=("127.0.0.5", 0))
        south.wait_for("failed", failure=NO_CERTIFICATE)
        same = self.device(south, suites=BOTH, source=("127.0.0.5", 0)).connect()
        self.assertIn("PSK", same.suite)
        self.assertIn("ECDSA", self.device(south, source=("127.0.0.5", 0)).connect().suite)
        self.assertIn("ECDSA", self.device(south, suites=BOTH, source=("127.0.0.6", 0)).connect().suite)

    def test_a_client_without_psk_and_without_a_certificate_marks_nobody(self):
        south = self.start()
        with self.assertRaises(Closed):
            self.device(south, None).connect()
        south.wait_for("failed", failure=NO_CERTIFICATE)
        self.assertIn("ECDSA", self.device(south, suites=BOTH).connect().suite)

    def other_stack(self, program, south, *arguments):
        r = subprocess.run([program, str(south.port), *arguments], capture_output=True, text=True, timeout=30 * SLOW)
        return r.stdout.strip()

    def stacks(self):
        for name, libraries in (("mbedtls_client", ("-lmbedtls", "-lmbedx509", "-lmbedcrypto")),
                                ("wolfssl_client", ("-lwolfssl",))):
            program = client_program(name, *libraries)
            if program:
                yield name, program

    def test_mbedtls_and_wolfssl_clients_with_a_key_and_default_suites_get_in_at_the_second_try(self):
        for name, program in self.stacks():
            with self.subTest(client=name):
                south = self.start()
                tries = [self.other_stack(program, south, "psk", "dev", KEY.decode()) for _ in range(2)]
                self.assertIn("PSK", tries[1], tries)
                self.assertEqual(south.wait_for("connected")["identity"], "dev")

    def test_mbedtls_and_wolfssl_clients_with_a_certificate_and_default_suites_get_in_at_once(self):
        for name, program in self.stacks():
            with self.subTest(client=name):
                south = self.start()
                told = self.other_stack(program, south, "certificate", *SITE.device.files(), SITE.anchors.name)
                self.assertIn("connected", told)
                self.assertEqual(south.wait_for("connected")["chain"], SITE.device.der.hex())


class Replacement(Bed):
    """The gateway's certificate is replaced while it serves."""

    def until_shown(self, south, leaf):
        deadline = time.monotonic() + 10 * SLOW
        while True:
            with Device(south, suites=CERTIFICATE_SUITES, certificate=SITE.device.files()).connect() as device:
                if device.server_chain()[0] == leaf.der:
                    return
            self.assertLess(time.monotonic(), deadline)

    def test_sessions_and_handshakes_under_way_live_on(self):
        south = self.start()
        old = self.device(south).connect()
        running, listening = begin(self.device(south)), self.device(south)
        listening.step()
        self.assertTrue(listening.take(5 * SLOW))  # its cookie was made before
        leaf = Certificate("gatewayd", SITE.sub, "P-384")
        south.credentials(*SITE.credentials(leaf))
        self.until_shown(south, leaf)
        self.assertEqual(running.connect().server_chain()[0], SITE.leaf.der)
        self.assertEqual(listening.connect().server_chain()[0], leaf.der)
        for device in (old, running, listening):
            self.assertEqual(device.get("time").status, "2.05")
        self.assertEqual(south.seen("closed", session=south.session_of(old)), [])

    def test_under_load_no_handshake_is_missed(self):
        south = self.start()
        leaves = [Certificate("gatewayd", SITE.sub, kind) for kind in ("P-256", "P-384", "P-256")]
        files, shown, failures, stop = SITE.device.files(), [], [], threading.Event()

        def load():
            while not stop.is_set():
                try:
                    with Device(south, suites=CERTIFICATE_SUITES, certificate=files).connect() as device:
                        shown.append(device.server_chain()[0])
                except (Closed, AssertionError) as e:
                    failures.append(str(e))
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(30):
            south.credentials(*SITE.credentials(leaves[i % 3]))
            count, deadline = len(shown), time.monotonic() + 10 * SLOW
            while len(shown) < count + 4 and not failures and time.monotonic() < deadline:
                select.select([], [], [], 0.01)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertGreaterEqual(len(shown), 120)
        self.assertEqual(set(shown) - {SITE.leaf.der}, {leaf.der for leaf in leaves})

    def test_credentials_that_cannot_be_used_change_nothing(self):
        south = self.start()
        other = Certificate("gatewayd", SITE.sub)
        # OpenSSL 3.0's DTLS server offers no suite for such a key.
        edwards = Certificate("gatewayd", SITE.sub, "Ed25519")
        for key, chain in ((other.pkcs8, [SITE.leaf.der]), (edwards.pkcs8, [edwards.der]), (b"", [SITE.leaf.der]), (SITE.leaf.pkcs8, []),
                           (SITE.leaf.pkcs8 + b"x", [SITE.leaf.der]), (SITE.leaf.pkcs8, [SITE.leaf.der[:-1]])):
            south.credentials(key, chain)
        device = self.device(south).connect()
        self.assertEqual(device.server_chain()[0], SITE.leaf.der)

    def test_taken_away_they_leave_psk_and_the_sessions_there_are(self):
        south = self.start()
        old = self.device(south).connect()
        south.credentials(b"", [])
        deadline = time.monotonic() + 10 * SLOW
        while True:
            device = self.device(south, suites=BOTH).connect()
            if "PSK" in device.suite:
                break
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(old.get("time").status, "2.05")


class Links(Bed):
    """Bad and narrow links."""

    def test_with_a_fifth_of_all_datagrams_lost_40_devices_get_in(self):
        south, chance = self.start(), random.Random(11)

        def lossy(datagram):
            return [] if chance.random() < 0.2 else [datagram]
        waiting = {}
        for _ in range(40):
            # OpenSSL's client gives up after 12 times its patience: enough for south's slowest flights.
            device = self.device(south, on_send=lossy, on_receive=lossy, patience_usec=4000000)
            device.step()
            waiting[device.socket] = device
        deadline = time.monotonic() + 90 * SLOW
        while waiting:
            self.assertLess(time.monotonic(), deadline, "%d of 40 are missing" % len(waiting))
            ready = set(select.select(list(waiting), [], [], 0.02)[0])
            for each in list(waiting.values()):
                if each.socket in ready:
                    each.take(0)
                    each.step()
                elif each.timeout() == 0:
                    each.retransmit()
                if each.is_connected:
                    del waiting[each.socket]
        self.assertEqual(south.statistics(handshakes=40)["sessions"], 40)

    def test_at_a_small_mtu_the_chain_goes_in_fragments_of_it(self):
        for mtu in (300, 600):
            with self.subTest(mtu=mtu):
                device = self.device(self.start("mtu=%d" % mtu)).connect()
                self.assertLessEqual(device.largest, mtu)
                self.assertEqual(device.server_chain(), [SITE.leaf.der, SITE.sub.der])
                self.assertEqual(device.get("time").status, "2.05")

    def test_max_fragment_length_holds_for_certificates(self):
        south = self.start()
        for exponent in (1, 2, 3, 4):
            with self.subTest(bytes=256 << exponent):
                device = self.device(south, max_fragment=exponent).connect()
                self.assertLessEqual(max(len(record) for datagram in device.received
                                         for _, epoch, record in records(datagram) if epoch == 0),
                                     (256 << exponent) + 13)
                self.assertEqual(device.get("time").status, "2.05")


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""EST-coaps (RFC 9148) on the real daemon, with clients of others: coap-client on OpenSSL and GnuTLS, CSRs of openssl
req and of python3-cryptography, which also read all that comes back. And what hostile clients may not do."""

import base64
import os
import subprocess
import sys
import unittest

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, ExtensionOID, NameOID

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pki
from coap import ACK, BLOCK1, BLOCK2, CON, CONTENT_FORMAT, ACCEPT, encode, GET, path_options, Peer, POST, SIZE1, uint
from gateway import Gateway

SEN, SREN, CRTS = ".well-known/est/sen", ".well-known/est/sren", ".well-known/est/crts"

PROFILES = """
        { name = "meter"; credential = "certificate"; idevid_anchors = "maker.pem"; validity = "90d";
          server_keygen = true; },
        { name = "strict"; credential = "certificate"; idevid_anchors = "maker.pem"; validity = "90d";
          tls_unique = "required"; rekey = "required"; },
        { name = "mode4"; credential = "certificate"; est_over_psk = true; },
        { name = "plain"; rotate_every = "30d"; grace = "1d"; }
"""

LISTED = ('</est/crts>;rt="ace.est.crts";ct="281 287",</est/sen>;rt="ace.est.sen";ct="281 287",'
          '</est/sren>;rt="ace.est.sren";ct="281 287",</est/att>;rt="ace.est.att";ct=285,'
          '</est/skg>;rt="ace.est.skg";ct=62,</est/skc>;rt="ace.est.skc";ct=62')


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, **more).stdout


def openssl_csr(folder, label, *subject):
    """A key and a CSR by the openssl command: (path of the key, DER)."""
    key, out = os.path.join(folder, label + ".key"), os.path.join(folder, label + ".csr")
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
        "-outform", "DER", "-out", out, *subject)
    with open(out, "rb") as f:
        return key, f.read()


def blocks(body, exponent):
    """Block1 values and slices of a body."""
    size = 16 << exponent
    count = (len(body) + size - 1) // size
    return [(uint(n << 4 | (n + 1 < count) << 3 | exponent), body[n * size:(n + 1) * size]) for n in range(count)]


class Est(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = Gateway(profiles=PROFILES)
        cls.maker = pki.Authority("Maker Root")
        cls.maker.write(os.path.join(cls.g.folder, "maker.pem"))
        cls.g.start()
        cls.g.ctl("ca", "init")
        cls.g.wait_event("server-certificate")
        pem = cls.g.ctl("ca", "show", "--pem")[1]
        cls.ca = x509.load_pem_x509_certificate(pem.encode())
        cls.anchors = os.path.join(cls.g.folder, "site.pem")
        with open(cls.anchors, "wb") as f:
            f.write(pki.pem(cls.ca))

    @classmethod
    def tearDownClass(cls):
        try:
            cls.g.stop()
        finally:
            cls.g.close()

    # ---- devices ----
    def device(self, name, profile="meter"):
        """Registered, with its factory certificate."""
        self.g.ctl("device", "add", name, "--profile", profile, "--idevid", "any")
        return self.maker.idevid(self.g.folder, name)

    def ask(self, method, path, identity, **more):
        return self.g.coap_certificate(method, path, identity, self.anchors, **more)

    def enrolled(self, name, profile="meter"):
        """A device with a proven certificate."""
        identity, key = self.device(name, profile), pki.new_key()
        code, body = self.ask("post", SEN, identity, payload=pki.csr(key, name), form=286, accept=287)
        self.assertEqual(code, "2.04", body)
        operational = pki.Identity(self.g.folder, name, key, x509.load_der_x509_certificate(body))
        self.assertEqual(self.ask("get", "me", operational)[0], "2.05")
        return operational

    def peer(self, identity, **more):
        peer = Peer(self.g, "-", "-", certificate=identity.certificate_file, private_key=identity.key_file, **more)
        self.assertTrue(peer.is_connected, peer.result)
        return peer

    def credentials(self, name):
        shown = self.g.ctl("device", "show", name, "--json")[1]
        return [c for c in shown["credentials"] if c["kind"] not in ("idevid", "factory")]

    def audit(self, name):
        """What the audit has of refused enrolments of a device."""
        rows = self.g.ctl("audit", "--device", name, "--json")[1]
        rows = rows["rows"] if isinstance(rows, dict) else rows
        return [r["reason"] for r in rows if "enrolment-refused" in (r.get("event"), r.get("kind"), r.get("name"))]

    def refused(self, peer, path, csr, code):
        """POSTs a CSR that gets this code; returns the reason."""
        reply = peer.request(POST, path, [(CONTENT_FORMAT, uint(286))], csr)
        self.assertEqual(reply.status, code)
        problem = cbor2.loads(reply.payload)
        self.assertEqual(problem[-4], reply.code)
        return problem[-2]

    # ---- reading what came ----
    def check(self, certificate, name, public_key):
        self.ca.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes,
                                    ec.ECDSA(certificate.signature_hash_algorithm))
        self.assertEqual([a.value for a in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)], [name])
        spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(certificate.public_key().public_bytes(*spki), public_key.public_bytes(*spki))
        usage = certificate.extensions.get_extension_for_oid(ExtensionOID.KEY_USAGE)
        self.assertTrue(usage.critical and usage.value.digital_signature)
        self.assertIn(pki.CLIENT_AUTH,
                      certificate.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value)

    # ---- what a client sees ----
    def test_a_third_party_client_discovers_enrols_works_and_renews(self):
        for client in ("openssl", "gnutls"):
            with self.subTest(client=client):
                name = "whole-" + client
                factory = self.device(name)
                code, body = self.ask("get", ".well-known/core?rt=ace.est*", factory, client=client)
                self.assertEqual((code, body.decode()), ("2.05", LISTED))
                code, body = self.ask("get", CRTS, factory, client=client)
                self.assertEqual((code, pki.certificates(body)), ("2.05", [self.ca]))
                key, csr = openssl_csr(self.g.folder, name + "-1", "-subj", "/serialNumber=" + name)
                code, body = self.ask("post", SEN, factory, payload=csr, form=286, client=client)
                self.assertEqual(code, "2.04")
                path = os.path.join(self.g.folder, name + ".pem")
                with open(path, "wb") as f:  # OpenSSL is the reader
                    f.write(run("openssl", "pkcs7", "-inform", "DER", "-print_certs", input=body))
                run("openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", self.anchors, path)

                class operational:
                    key_file, certificate_file = key, path
                self.assertEqual(self.ask("get", "me", operational, client=client)[0], "2.05")
                self.assertEqual(self.ask("get", "me", operational, client=client)[0], "2.05")
                _, csr = openssl_csr(self.g.folder, name + "-2", "-subj", "/serialNumber=" + name)
                code, body = self.ask("post", SREN, operational, payload=csr, form=286, accept=287, client=client)
                self.assertEqual(code, "2.04")
                self.check(x509.load_der_x509_certificate(body), name, x509.load_der_x509_csr(csr).public_key())
                self.assertEqual({c["state"] for c in self.credentials(name)}, {"active", "pre-active"})

    def test_blocks_of_16_to_1024_carry_csr_and_certificate(self):
        name = "blocks"
        identity, key = self.device(name), pki.new_key()
        csr = pki.csr(key, name, extensions=[(x509.SubjectAlternativeName([x509.DNSName(name)]), False)])
        seen = set()
        for client in ("openssl", "gnutls"):
            for size in (16, 32, 64, 128, 256, 512, 1024):
                with self.subTest(client=client, size=size):
                    code, body = self.ask("post", SEN, identity, payload=csr, form=286, accept=287, client=client,
                                          more=["-b", str(size)], seconds=20)
                    self.assertEqual(code, "2.04")
                    seen.add(body)
                    code, body = self.ask("get", "est/crts", identity, client=client, more=["-b", str(size)], seconds=20)
                    self.assertEqual((code, pki.certificates(body)), ("2.05", [self.ca]))
        self.assertEqual(len(seen), 1)  # the identical CSR: the identical certificate
        self.check(x509.load_der_x509_certificate(seen.pop()), name, key.public_key())

    def test_both_roots_and_labels_and_both_formats(self):
        identity, key = self.device("roots"), pki.new_key()
        csr = pki.csr(key, "roots")
        for root in ("est/", ".well-known/est/", "est/meter/", ".well-known/est/meter/"):
            code, body = self.ask("post", root + "sen", identity, payload=csr, form=286, accept=281)
            self.assertEqual(code, "2.04")
            self.check(pki.certificates(body)[0], "roots", key.public_key())
            self.assertEqual(self.ask("get", root + "crts", identity, accept=287), ("2.05", pki.der(self.ca)))
            self.assertEqual(self.ask("get", root + "att", identity)[0], "2.05")
        with self.peer(identity) as peer:
            self.assertIn("meter", self.refused(peer, "est/strict/sen", csr, "4.04"))
        self.assertEqual(len(self.credentials("roots")), 1)

    def test_att_is_the_der_that_openssl_reads(self):
        code, body = self.ask("get", "est/att", self.device("att"))
        self.assertEqual(code, "2.05")
        text = run("openssl", "asn1parse", "-inform", "DER", input=body).decode()
        for word in ("id-ecPublicKey", "prime256v1", "secp384r1", "ecdsa-with-SHA256", "ED25519"):
            self.assertIn(word, text)
        self.assertNotIn("challengePassword", text)
        _, body = self.ask("get", "est/att", self.device("att-strict", "strict"))
        self.assertIn("challengePassword", run("openssl", "asn1parse", "-inform", "DER", input=body).decode())

    def test_keys_made_here_fit_their_certificates(self):
        identity = self.device("keygen")
        csr = pki.csr(pki.new_key(), "keygen")
        for path, form in (("est/skg", 281), ("est/skc", 287)):
            code, body = self.ask("post", path, identity, payload=csr, form=286, accept=62, more=["-b", "64"])
            self.assertEqual(code, "2.04")
            parts = cbor2.loads(body)
            self.assertEqual((parts[0], parts[2], len(parts)), (284, form, 4))
            self.assertEqual(cbor2.dumps(parts, canonical=True), body)
            key = serialization.load_der_private_key(parts[1], None)
            self.check(pki.certificates(parts[3])[0] if form == 281 else x509.load_der_x509_certificate(parts[3]),
                       "keygen", key.public_key())
        self.assertEqual(self.ask("post", "est/skg", self.device("keygen-no", "strict"), form=286,
                                  payload=pki.csr(pki.new_key(), "keygen-no"))[0], "4.03")

    def test_a_csr_that_asks_for_a_protected_key_gets_an_error(self):
        config = os.path.join(self.g.folder, "protected.cnf")
        with open(config, "w") as f:
            f.write("oid_section = oids\n[oids]\nDecryptKeyID = 1.2.840.113549.1.9.16.2.37\n"
                    "[req]\nprompt = no\ndistinguished_name = dn\nattributes = attributes\n"
                    "[dn]\nserialNumber = protected\n[attributes]\nSMIME-CAPS = caps\nDecryptKeyID = key-1\n")
        _, csr = openssl_csr(self.g.folder, "protected", "-config", config)
        with self.peer(self.device("protected")) as peer:
            for path in ("est/skg", "est/skc"):
                self.assertIn("280", self.refused(peer, path, csr, "4.00"))
        self.assertEqual(self.credentials("protected"), [])

    def test_tls_unique_links_the_csr_to_its_session(self):
        identity, key = self.device("linked", "strict"), pki.new_key()

        def csr(value):
            return pki.csr(key, "linked", attributes=[(AttributeOID.CHALLENGE_PASSWORD, value)])
        with self.peer(identity) as one, self.peer(identity) as other:
            formats = [(CONTENT_FORMAT, uint(286)), (ACCEPT, uint(287))]
            right = csr(base64.b64encode(one.tls_unique()))
            self.assertEqual(one.request(POST, SEN, formats, pki.csr(key, "linked")).status, "4.00")
            self.assertEqual(one.request(POST, SEN, formats, csr(b"not base64!")).status, "4.00")
            self.assertEqual(other.request(POST, SEN, formats, right).status, "4.00")
            reply = one.request(POST, SEN, formats, right)
            self.assertEqual(reply.status, "2.04")
        self.assertEqual(len(self.credentials("linked")), 1)
        self.assertEqual(len(self.audit("linked")), 2)  # a reason that has a row gets no second one

    def test_enrolment_over_a_psk_where_the_profile_says_so(self):
        self.g.ctl("device", "add", "mode-4", "--profile", "mode4", "--psk", "text:factory-key-0123")
        self.g.ctl("device", "add", "psk-1", "--profile", "plain", "--psk", "text:factory-key-0123")
        key = pki.new_key()
        for device, path, expected in (("psk-1", SEN, "4.03"), ("mode-4", SREN, "4.03"), ("mode-4", SEN, "2.04")):
            code, body = self.g.coap("post", path, device, "factory-key-0123", payload=pki.csr(key, device), form=286,
                                     accept=287)
            self.assertEqual(code, expected)
        self.check(x509.load_der_x509_certificate(body), "mode-4", key.public_key())

    def test_the_crl_is_read_by_others(self):
        device, other = self.enrolled("revoked"), self.enrolled("reader")
        self.g.ctl("device", "revoke", "revoked")
        for path in ("crl", "crl?g=1"):
            code, body = self.ask("get", path, other)
            self.assertEqual(code, "2.05")
            crl = x509.load_der_x509_crl(body)
            self.assertTrue(crl.is_signature_valid(self.ca.public_key()))
            self.assertIn(device.certificate.serial_number, {r.serial_number for r in crl})
        self.assertEqual(self.ask("get", "crl?g=9", other)[0], "4.04")
        self.assertEqual(self.ask("get", "crl?g=x", other)[0], "4.00")

    def test_keys_of_other_kinds(self):
        identity = self.device("kinds")
        for key, expected in ((ec.generate_private_key(ec.SECP384R1()), "2.04"),
                              (ed25519.Ed25519PrivateKey.generate(), "2.04"),
                              (rsa.generate_private_key(65537, 2048), "4.00"),
                              (ec.generate_private_key(ec.SECP256K1()), "4.00"),
                              (ec.generate_private_key(ec.SECP224R1()), "4.00")):
            code, body = self.ask("post", SEN, identity, payload=pki.csr(key, "kinds"), form=286, accept=287)
            self.assertEqual(code, expected, key)
            if code == "2.04":
                self.check(x509.load_der_x509_certificate(body), "kinds", key.public_key())

    # ---- what hostile clients may not do ----
    def test_the_name_or_key_of_another_device_gets_nothing_and_the_audit_says_who_tried(self):
        victim, identity = self.enrolled("victim"), self.device("thief")
        before = self.credentials("victim")
        san = [(x509.SubjectAlternativeName([x509.DNSName("victim")]), False)]
        with self.peer(identity) as peer:
            self.refused(peer, SEN, pki.csr(pki.new_key(), "victim"), "4.03")
            self.refused(peer, SEN, pki.csr(pki.new_key(), "thief", extensions=san), "4.03")
            self.assertNotIn("victim", self.refused(peer, SEN, pki.csr(victim.key, "thief"), "4.03"))
        self.assertEqual(self.credentials("thief"), [])
        self.assertEqual(self.credentials("victim"), before)
        reasons = self.audit("thief")
        self.assertEqual(len(reasons), 3)
        self.assertTrue(all("victim" in reason for reason in reasons), reasons)
        self.g.wait_event("enrolment-refused", device="thief")

    def test_a_csr_with_ten_thousand_extensions_is_refused(self):
        identity = self.device("many")
        many = [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.%d" % i), b"\x05\x00"), False)
                for i in range(10000)]
        csr = pki.csr(pki.new_key(), "many", extensions=many)
        code, _, text = self.ask("post", SEN, identity, payload=csr, form=286, more=["-b", "1024"], seconds=20, raw=True)
        self.assertEqual(code, "4.13")
        self.assertIn("Size1", text)
        csr = pki.csr(pki.new_key(), "many", extensions=many[:300])  # below the limit of bodies, above csr.h's
        self.assertEqual(self.ask("post", SEN, identity, payload=csr, form=286, more=["-b", "1024"])[0], "4.00")
        self.assertEqual(self.credentials("many"), [])
        self.assertEqual(self.ask("get", CRTS, identity)[0], "2.05")

    def test_truncated_der_is_refused_at_every_offset(self):
        identity = self.device("cut")
        csr = pki.csr(pki.new_key(), "cut")
        with self.peer(identity) as peer:
            for size in range(len(csr)):
                self.assertTrue(self.refused(peer, SEN, csr[:size], "4.00"))
            self.refused(peer, SEN, csr + b"\0", "4.00")
            self.assertEqual(self.credentials("cut"), [])
            self.assertEqual(peer.request(POST, SEN, [(CONTENT_FORMAT, uint(286))], csr).status, "2.04")
        self.assertIn(len(self.audit("cut")), range(1, 5))

    def test_formats_that_are_not_est(self):
        identity = self.device("formats")
        csr = pki.csr(pki.new_key(), "formats")
        for form, accept, expected in ((None, None, "4.15"), (60, None, "4.15"), (281, 62, "4.15"), (286, 60, "4.06"),
                                       (286, 62, "4.06")):
            code, _ = self.ask("post", SEN, identity, payload=csr, form=form, accept=accept)
            self.assertEqual(code, expected, (form, accept))
        self.assertEqual(self.ask("post", "est/skc", identity, payload=csr, form=286, accept=287)[0], "4.06")
        self.assertEqual(self.ask("get", CRTS, identity, accept=60)[0], "4.06")
        self.assertEqual(self.ask("get", SEN, identity)[0], "4.05")
        self.assertEqual(self.credentials("formats"), [])

    def send_block(self, peer, block, body, mid, token):
        options = path_options(SEN) + [(CONTENT_FORMAT, uint(286)), (ACCEPT, uint(287)), (BLOCK1, block)]
        peer.send(encode(CON, POST, mid, token, options, body))

    def answer(self, peer, mid, token):
        """What comes to one block; a separate response is acknowledged."""
        while True:
            m = peer.receive()
            self.assertIsNotNone(m)
            if m.code == 0 or m.token != token:
                continue
            if m.kind == CON:
                peer.send(encode(ACK, 0, m.mid))
            return m

    def test_interleaved_transfers_of_two_devices_do_not_mix(self):
        names = ("left", "right")
        keys = {n: pki.new_key() for n in names}
        peers = {n: self.peer(self.device(n)) for n in names}
        parts = {n: blocks(pki.csr(keys[n], n), 2) for n in names}
        last = {}
        for i in range(max(len(p) for p in parts.values())):
            for n in names:  # the same message ids and tokens on both
                if i < len(parts[n]):
                    self.send_block(peers[n], *parts[n][i], mid=500 + i, token=b"same")
            for n in names:
                if i < len(parts[n]):
                    last[n] = self.answer(peers[n], 500 + i, b"same")
        for n in names:
            self.assertEqual(last[n].status, "2.04")
            body, number, m = last[n].payload, 0, last[n]
            while m.option(BLOCK2) is not None and m.option(BLOCK2) & 8:
                number += 1
                m = peers[n].request(POST, SEN, [(CONTENT_FORMAT, uint(286)), (ACCEPT, uint(287)),
                                                 (BLOCK2, uint(number << 4 | m.option(BLOCK2) & 7))])
                self.assertEqual(m.status, "2.04")
                body += m.payload
            self.check(x509.load_der_x509_certificate(body), n, keys[n].public_key())
            self.assertEqual(len(self.credentials(n)), 1)  # asking for the rest enrolled nobody again
            peers[n].close()

    def test_a_client_that_vanishes_in_mid_transfer_leaves_nothing(self):
        identity, key = self.device("gone"), pki.new_key()
        csr = pki.csr(key, "gone")
        for _ in range(20):
            peer = self.peer(identity)
            for i, (block, body) in enumerate(blocks(csr, 2)[:-1]):
                self.send_block(peer, block, body, 700 + i, b"t")
                self.assertEqual(self.answer(peer, 700 + i, b"t").status, "2.31")
            peer.close("x")
        self.assertEqual(self.credentials("gone"), [])
        with self.peer(identity) as peer:  # the last block alone is not a CSR
            block, body = blocks(csr, 2)[-1]
            self.send_block(peer, block, body, 800, b"t")
            self.assertEqual(self.answer(peer, 800, b"t").status, "4.08")
        self.assertEqual(self.ask("post", SEN, identity, payload=csr, form=286)[0], "2.04")

    def test_a_body_over_the_limit_is_refused_with_the_limit(self):
        identity = self.device("large")
        with self.peer(identity) as peer:
            for i in range(17):
                self.send_block(peer, uint(i << 4 | 8 | 6), bytes(1024), 900 + i, b"t")
                m = self.answer(peer, 900 + i, b"t")
                if m.status != "2.31":
                    break
            self.assertEqual((m.status, m.option(SIZE1)), ("4.13", 16384))
            self.assertEqual(peer.request(GET, "me").status, "2.05")
        self.assertEqual(self.credentials("large"), [])

    def test_a_retransmitted_csr_gets_the_same_answer(self):
        identity, key = self.device("again"), pki.new_key()
        csr = pki.csr(key, "again")
        formats = [(CONTENT_FORMAT, uint(286)), (ACCEPT, uint(287)), (BLOCK2, uint(6))]
        with self.peer(identity) as peer:
            first = peer.request(POST, SEN, formats, csr, mid=7)
            self.assertEqual(first.status, "2.04")
            for mid in (7, 8):  # the same message, and the same CSR in another
                self.assertEqual(peer.request(POST, SEN, formats, csr, mid=mid).payload, first.payload)
        with self.peer(identity) as peer:
            self.assertEqual(peer.request(POST, SEN, formats, csr).payload, first.payload)
        self.assertEqual(len(self.credentials("again")), 1)


if __name__ == "__main__":
    unittest.main()

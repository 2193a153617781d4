#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates, CRLs, CSRs and certs-only messages that gatewayd makes are read by two other readers
(python3-cryptography, the OpenSSL command); CSRs and chains of theirs are read by gatewayd."""

import datetime
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BUILD = pathlib.Path(os.environ.get("GATEWAYD_BUILD", "build"))
HARNESS = BUILD / "system" / "x509_harness"
NOW = 1790000000
DER = serialization.Encoding.DER
SPKI = (DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def run(*command, check=True):
    return subprocess.run([str(word) for word in command], check=check, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT).stdout.decode()


def at(seconds):
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)


def name(**parts):
    return x509.Name([x509.NameAttribute(getattr(NameOID, key), value) for key, value in parts.items()])


class Formats(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-x509-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def ask(self, *words):
        return run(HARNESS, *words).strip()

    def pem(self, file):
        run("openssl", "x509", "-inform", "DER", "-in", self.folder / file, "-out", self.folder / (file + ".pem"))
        return self.folder / (file + ".pem")


class Made(Formats):
    def make(self, kind):
        self.ask("make", self.folder, kind)
        return lambda file: x509.load_der_x509_certificate((self.folder / file).read_bytes())

    def verify(self, certificate, key):
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes,
                       ec.ECDSA(certificate.signature_hash_algorithm))
        else:
            key.verify(certificate.signature, certificate.tbs_certificate_bytes)

    def test_python_reads_what_a_ca_of_each_kind_makes(self):
        for kind in ("p256", "p384", "ed25519"):
            load = self.make(kind)
            root = load("root.der")
            for file in ("root.der", "cross.der", "server.der", "device.der", "lasting.der"):
                certificate = load(file)
                self.verify(certificate, root.public_key())
                self.assertEqual(certificate.issuer, root.subject)
                self.assertEqual(certificate.version, x509.Version.v3)
                self.assertEqual((certificate.serial_number.bit_length() + 8) // 8, 16)
                ski = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                self.assertEqual(ski, x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()))
                aki = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
                self.assertEqual(aki.key_identifier, x509.SubjectKeyIdentifier.from_public_key(root.public_key()).digest)

    def test_names_times_and_usages_are_as_given(self):
        load = self.make("p256")
        root, device, lasting, server = load("root.der"), load("device.der"), load("lasting.der"), load("server.der")
        self.assertEqual(root.subject.rfc4514_string(), "O=Example\\, Inc.,CN=Plant 7 CA")
        self.assertEqual((root.not_valid_before, root.not_valid_after), (at(NOW), at(2600000000)))
        self.assertEqual([(a.oid, a.value) for a in device.subject], [(NameOID.SERIAL_NUMBER, "sensor_17")])
        self.assertEqual(device.not_valid_before, at(NOW - 3600))
        self.assertEqual(lasting.not_valid_after, datetime.datetime(9999, 12, 31, 23, 59, 59))
        usage = device.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical and usage.value.digital_signature)
        self.assertFalse(usage.value.key_cert_sign or usage.value.key_encipherment)
        self.assertEqual(list(device.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value),
                         [ExtendedKeyUsageOID.CLIENT_AUTH])
        self.assertEqual([u.dotted_string for u in server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value],
                         ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.28"])
        self.assertEqual(server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                         .get_values_for_type(x509.DNSName), ["gateway.example"])
        cross = load("cross.der").extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(cross.critical and cross.value.ca)
        self.assertEqual(cross.value.path_length, 0)

    def test_openssl_verifies_the_chain_the_crl_and_the_request(self):
        for kind in ("p256", "p384", "ed25519"):
            self.make(kind)
            root = self.pem("root.der")
            for file, purpose in (("device.der", "sslclient"), ("server.der", "sslserver")):
                self.assertIn("OK", run("openssl", "verify", "-x509_strict", "-no_check_time", "-purpose", purpose,
                                        "-CAfile", root, self.pem(file)))
            self.assertIn("verify OK", run("openssl", "crl", "-inform", "DER", "-in", self.folder / "crl.der", "-CAfile",
                                           root, "-noout"))
            crl = self.folder / "crl.pem"
            run("openssl", "crl", "-inform", "DER", "-in", self.folder / "crl.der", "-out", crl)
            self.assertIn("certificate revoked", run("openssl", "verify", "-crl_check", "-no_check_time", "-CAfile", root,
                                                     "-CRLfile", crl, self.pem("device.der"), check=False))
            self.assertIn("OK", run("openssl", "verify", "-crl_check", "-no_check_time", "-CAfile", root, "-CRLfile", crl,
                                    self.pem("server.der")))
            self.assertIn("verify OK", run("openssl", "req", "-inform", "DER", "-in", self.folder / "request.der",
                                           "-verify", "-noout"))

    def test_python_reads_the_crl_and_the_messages(self):
        load = self.make("p256")
        crl = x509.load_der_x509_crl((self.folder / "crl.der").read_bytes())
        self.assertTrue(crl.is_signature_valid(load("root.der").public_key()))
        self.assertEqual(len(crl), 4)
        self.assertEqual(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number, 7)
        entry = crl.get_revoked_certificate_by_serial_number(load("device.der").serial_number)
        self.assertEqual(entry.extensions.get_extension_for_class(x509.CRLReason).value.reason,
                         x509.ReasonFlags.key_compromise)
        self.assertEqual(entry.revocation_date, at(NOW + 5))
        self.assertEqual(len(crl[0].extensions), 0 if crl[0] != entry else 1)
        one = pkcs7.load_der_pkcs7_certificates((self.folder / "one.p7").read_bytes())
        two = pkcs7.load_der_pkcs7_certificates((self.folder / "two.p7").read_bytes())
        self.assertEqual(one, [load("device.der")])
        self.assertCountEqual([c.serial_number for c in two], [load("device.der").serial_number, load("root.der").serial_number])


class Csrs(Formats):
    def read(self, data):
        path = self.folder / "csr"
        path.write_bytes(data)
        return self.ask("csr", path)

    def request(self, key, subject, *names, challenge=None, digest=hashes.SHA256()):
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if challenge:
            builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, challenge)
        return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else digest).public_bytes(DER)

    def test_requests_of_python_are_read(self):
        for key in (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()),
                    ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
            data = self.request(key, name(SERIAL_NUMBER="sensor-1"), x509.DNSName("sensor-1"),
                                x509.UniformResourceIdentifier("urn:dev:ops:sensor-1"), challenge=b"AAECAwQFBgcICQoL")
            digest = hashlib.sha256(key.public_key().public_bytes(*SPKI)).hexdigest()
            self.assertEqual(self.read(data), "good 1 000102030405060708090a0b 0 %s own" % digest)

    def test_another_device_s_name_is_told(self):
        key = ec.generate_private_key(ec.SECP256R1())
        self.assertIn("sensor-2", self.read(self.request(key, name(COMMON_NAME="sensor-2"))))
        self.assertIn("DNS:sensor-2", self.read(self.request(key, name(COMMON_NAME="sensor-1"), x509.DNSName("sensor-2"))))

    def test_weak_requests_are_refused(self):
        self.assertIn("1024 bits", self.read(self.request(rsa.generate_private_key(65537, 1024), name())))
        key = ec.generate_private_key(ec.SECP256R1())
        self.assertIn("ecdsa-with-SHA1", self.read(self.request(key, name(), digest=hashes.SHA1())))
        self.assertIn("brainpool", self.read(self.request(ec.generate_private_key(ec.BrainpoolP256R1()), name())))
        many = [x509.DNSName("n%d" % i) for i in range(2000)]
        self.assertIn("at most 8192", self.read(self.request(key, name(), *many)))

    def test_requests_of_the_openssl_command_are_read(self):
        for kind in ("ec", "rsa", "ed25519"):
            options = {"ec": ["-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": [], "ed25519": []}[kind]
            run("openssl", "req", "-new", "-newkey", "rsa:2048" if kind == "rsa" else kind, *options, "-nodes", "-keyout",
                self.folder / "key", "-subj", "/O=Example/CN=sensor-1", "-addext", "subjectAltName=DNS:sensor-1",
                "-outform", "DER", "-out", self.folder / "request")
            self.assertTrue(self.read((self.folder / "request").read_bytes()).endswith(" own"))


class Chains(Formats):
    """Certificates of a factory's PKI, made by Python."""

    def certificate(self, subject, key, issuer=None, issuer_key=None, ca=None, extensions=(), digest=hashes.SHA256()):
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(at(NOW)).not_valid_after(datetime.datetime(9999, 12, 31, 23, 59, 59)))
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(issuer_key or key, digest)

    def setUp(self):
        super().setUp()
        self.key, self.sub_key, self.leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.root = self.certificate(name(COMMON_NAME="Factory root"), self.key, ca=True)
        self.sub = self.certificate(name(COMMON_NAME="Factory"), self.sub_key, self.root, self.key, ca=True)

    def leaf(self, *extensions, **options):
        return self.certificate(name(SERIAL_NUMBER="F-1"), self.leaf_key, options.pop("issuer", self.sub),
                                options.pop("issuer_key", self.sub_key), extensions=extensions, **options)

    def check(self, chain, anchors):
        for file, content in (("chain", chain), ("anchors", anchors)):
            (self.folder / file).write_bytes(b"".join(c.public_bytes(DER) for c in content))
        return self.ask("chain", self.folder / "chain", self.folder / "anchors")

    def usage(self, sign):
        return x509.KeyUsage(sign, False, not sign, False, False, False, False, False, False)

    def test_an_idevid_leads_to_root_or_sub_ca(self):
        leaf = self.leaf()
        self.assertEqual(self.check([leaf, self.sub], [self.root]), "good 3 0")
        self.assertEqual(self.check([leaf], [self.root, self.sub]), "good 2 1")
        self.assertIn("no trust anchor", self.check([leaf], [self.root]))
        self.assertEqual(self.check([leaf, self.root, self.sub], [self.root]), "good 3 0")

    def test_what_a_leaf_may_not_do_is_refused(self):
        self.assertIn("digitalSignature", self.check([self.leaf((self.usage(False), True))], [self.sub]))
        self.assertIn("clientAuth", self.check([self.leaf((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False))],
                                               [self.sub]))
        for allowed in (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE):
            self.assertEqual(self.check([self.leaf((self.usage(True), True), (x509.ExtendedKeyUsage([allowed]), False))],
                                        [self.sub]), "good 2 0")

    def test_an_unknown_critical_extension_is_refused(self):
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
        self.assertIn("critical", self.check([self.leaf((unknown, True))], [self.sub]))
        self.assertEqual(self.check([self.leaf((unknown, False))], [self.sub]), "good 2 0")

    def test_a_ca_that_is_none_is_refused(self):
        fake = self.certificate(name(COMMON_NAME="Fake"), self.sub_key, self.root, self.key, ca=False)
        self.assertIn("refused", self.check([self.leaf(issuer=fake), fake], [self.root]))
        plain = self.certificate(name(COMMON_NAME="Plain"), self.sub_key, self.root, self.key)
        self.assertIn("refused", self.check([self.leaf(issuer=plain), plain], [self.root]))

    def test_sha_1_in_the_path_is_refused(self):
        self.assertIn("too weak", self.check([self.leaf(digest=hashes.SHA1())], [self.sub]))

    def test_name_constraints_are_honoured(self):
        limits = x509.NameConstraints([x509.DNSName("plant.example")], None)
        limited = self.certificate(name(COMMON_NAME="Limited"), self.sub_key, self.root, self.key, ca=True,
                                   extensions=[(limits, True)])
        def named(text):
            return self.leaf((x509.SubjectAlternativeName([x509.DNSName(text)]), False), issuer=limited)
        self.assertEqual(self.check([named("a.plant.example"), limited], [self.root]), "good 3 0")
        self.assertIn("permitted subtree", self.check([named("a.office.example"), limited], [self.root]))


if __name__ == "__main__":
    unittest.main()

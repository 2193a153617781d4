#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A CA's key by URI: in a file, in a PKCS#11 token (SoftHSM) and in a TPM (swtpm, tpm2-openssl), before and
behind core's wall. What such a key signs is read by another implementation (python3-cryptography)."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

BUILD = pathlib.Path(os.environ.get("GATEWAYD_BUILD", "build"))
HARNESS = BUILD / "system" / "x509_harness"
MODULE = "/usr/lib/softhsm/libsofthsm2.so"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options).stdout


class Keys(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-key-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.environment = dict(os.environ)
        self.environment.pop("CREDENTIALS_DIRECTORY", None)

    def ask(self, *words):
        return run(HARNESS, *words, env=self.environment).decode().splitlines()

    def assert_signs(self, line):
        self.assertTrue(line.startswith("good "), line)
        root = x509.load_der_x509_certificate(bytes.fromhex(line[5:]))
        key = root.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(root.signature, root.tbs_certificate_bytes, ec.ECDSA(root.signature_hash_algorithm))
            # RFC 5758: no parameters beside the algorithm
            self.assertIn(bytes.fromhex("300a06082a8648ce3d0403"), bytes.fromhex(line[5:]))
        return root

    def assert_refused(self, line, number, *words):
        self.assertTrue(line.startswith("refused %d " % number), line)
        for word in words:
            self.assertIn(word, line)


class Files(Keys):
    def write(self, key, name, encoding, form, encryption=serialization.NoEncryption()):
        path = self.folder / name
        path.write_bytes(key.private_bytes(encoding, form, encryption))
        return path

    def test_pem_and_der_pkcs8_and_sec1_are_opened(self):
        pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
        pkcs8, sec1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
        p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
        for i, (key, encoding, form) in enumerate([
                (p256, pem, pkcs8), (p256, der, pkcs8), (p256, pem, sec1), (p256, der, sec1), (p384, pem, pkcs8),
                (ed25519.Ed25519PrivateKey.generate(), pem, pkcs8), (rsa.generate_private_key(65537, 2048), pem, pkcs8)]):
            path = self.write(key, "key%d" % i, encoding, form)
            root = self.assert_signs(self.ask("key", "file:%s" % path)[0])
            spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(root.public_key().public_bytes(*spki), key.public_key().public_bytes(*spki))
        self.assert_signs(self.ask("key", "file://%s" % path)[0])

    def test_what_is_no_key_a_ca_may_use_is_refused(self):
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        short = self.write(rsa.generate_private_key(65537, 1024), "short", pem, pkcs8)
        self.assert_refused(self.ask("key", "file:%s" % short)[0], 22, "RSA from 2048")
        locked = self.write(ec.generate_private_key(ec.SECP256R1()), "locked", pem, pkcs8,
                            serialization.BestAvailableEncryption(b"x"))
        self.assert_refused(self.ask("key", "file:%s" % locked)[0], 22, "passphrase")
        (self.folder / "text").write_text("no key\n")
        self.assert_refused(self.ask("key", "file:%s/text" % self.folder)[0], 22, "no private key")
        self.assert_refused(self.ask("key", "file:%s/none" % self.folder)[0], 2, "No such file")
        self.assert_refused(self.ask("key", "file:relative")[0], 22, "absolute")
        self.assert_refused(self.ask("key", "/no/scheme")[0], 22, "pkcs11:")
        self.assert_refused(self.ask("key", "handle:0x81000001")[0], 65, "ca.providers")
        self.assert_refused(self.ask("key", "pkcs11:object=x")[0], 65, "ca.pkcs11_module")


class Tokens(Keys):
    PIN = "1234"

    def setUp(self):
        super().setUp()
        (self.folder / "tokens").mkdir()
        configuration = self.folder / "softhsm2.conf"
        configuration.write_text("directories.tokendir = %s/tokens\n" % self.folder)
        self.environment.update(SOFTHSM2_CONF=str(configuration), MODULE=MODULE)
        run("softhsm2-util", "--init-token", "--free", "--label", "ca", "--pin", self.PIN, "--so-pin", "00000000",
            env=self.environment)
        for name, kind in (("p256", "EC:prime256v1"), ("p384", "EC:secp384r1"), ("rsa", "rsa:2048")):
            run("pkcs11-tool", "--module", MODULE, "--login", "--pin", self.PIN, "--token-label", "ca", "--keypairgen",
                "--key-type", kind, "--label", name, "--id", {"p256": "01", "p384": "02", "rsa": "03"}[name],
                env=self.environment)

    def uri(self, key="p256", pin=None, token="ca"):
        if pin is None:
            return "pkcs11:token=%s;object=%s;type=private" % (token, key)
        path = self.folder / "pin file"
        path.write_text(pin + "\n")
        return "pkcs11:token=%s;object=%s;type=private?pin-source=file:%s" % (token, key, str(path).replace(" ", "%20"))

    def test_a_key_in_a_token_signs(self):
        for key in ("p256", "p384", "rsa"):
            for line in self.ask("twice", self.uri(key, self.PIN)):
                self.assert_signs(line)

    def test_the_pin_may_be_a_credential(self):
        credentials = self.folder / "credentials"
        credentials.mkdir()
        (credentials / "gatewayd.ca-pin").write_text(self.PIN)
        self.environment["CREDENTIALS_DIRECTORY"] = str(credentials)
        self.assert_signs(self.ask("key", self.uri())[0])

    def test_a_wrong_pin_is_tried_once(self):
        first, second = self.ask("twice", self.uri(pin="9999"))
        self.assert_refused(first, 13, "PIN")
        self.assert_refused(second, 13, "not asked again")
        self.assertNotIn("9999", first + second)

    def test_an_absent_token_key_or_pin_is_told(self):
        self.assert_refused(self.ask("key", self.uri(pin=self.PIN, token="gone"))[0], 2)
        self.assert_refused(self.ask("key", self.uri("none", self.PIN))[0], 2)
        self.assert_refused(self.ask("key", self.uri())[0], 2, "gatewayd.ca-pin")

    def test_a_pin_in_the_uri_and_a_program_are_refused(self):
        self.assert_refused(self.ask("key", self.uri() + "?pin-value=1234")[0], 22, "does not belong into a URI")
        self.assert_refused(self.ask("key", self.uri() + "?pin-source=%7Ccat")[0], 22, "programs are not run")

    def test_a_module_that_is_not_there_is_told(self):
        self.environment["MODULE"] = "/nowhere.so"
        self.assert_refused(self.ask("key", self.uri(pin=self.PIN))[0], 65, "/nowhere.so")

    def test_it_signs_behind_the_wall_where_the_token_can_be_reached(self):
        self.environment["STORE"] = str(self.folder)
        lines = self.ask("key", self.uri(pin=self.PIN), "again")
        self.assertEqual(len(lines), 2, lines)  # no system call was refused
        for line in lines:
            self.assert_signs(line)


class Tpm(Keys):
    def setUp(self):
        super().setUp()
        state = self.folder / "state"
        state.mkdir()
        self.socket = self.folder / "tpm"
        tpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", "dir=%s" % state,
                                "--server", "type=unixio,path=%s" % self.socket,
                                "--ctrl", "type=unixio,path=%s.ctrl" % self.socket,
                                "--flags", "not-need-init,startup-clear"], stderr=subprocess.DEVNULL)
        self.addCleanup(tpm.wait)
        self.addCleanup(tpm.kill)
        deadline = time.monotonic() + 20
        while not self.socket.exists():
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(tpm.poll())
            time.sleep(0.01)
        where = "swtpm:path=%s" % self.socket
        self.environment.update(TPM2TOOLS_TCTI=where, TPM2OPENSSL_TCTI=where, PROVIDERS="tpm2")
        for kind, handle in (("ecc256:ecdsa", "0x81000001"), ("ecc384:ecdsa-sha384", "0x81000002")):
            self.make(kind, handle)

    def make(self, kind, handle):
        def tool(*words):
            run(*words, env=self.environment, cwd=self.folder)
        tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", "primary")
        tool("tpm2_create", "-Q", "-C", "primary", "-G", kind, "-u", "public", "-r", "private", "-a",
             "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign")
        tool("tpm2_flushcontext", "-t")
        tool("tpm2_load", "-Q", "-C", "primary", "-u", "public", "-r", "private", "-c", "key")
        tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key", handle)
        tool("tpm2_flushcontext", "-t")

    def test_a_key_in_a_tpm_signs(self):
        for line in self.ask("twice", "handle:0x81000001"):
            self.assert_signs(line)
        self.assertEqual(self.assert_signs(self.ask("key", "handle:0x81000002")[0]).signature_hash_algorithm.name,
                         "sha384")

    def test_a_file_s_key_signs_beside_a_tpm(self):
        path = self.folder / "key"
        path.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.assert_signs(self.ask("key", "file:%s" % path)[0])

    def test_an_absent_key_or_provider_is_told(self):
        self.assert_refused(self.ask("key", "handle:0x81000009")[0], 2)
        self.environment["PROVIDERS"] = "nothing"
        self.assert_refused(self.ask("key", "handle:0x81000001")[0], 65, "\"nothing\" cannot be loaded")

    def test_it_signs_behind_the_wall(self):
        (self.folder / "store").mkdir()
        self.environment["STORE"] = str(self.folder / "store")
        lines = self.ask("key", "handle:0x81000001", "again")
        self.assertEqual(len(lines), 2, lines)  # no system call was refused
        for line in lines:
            self.assert_signs(line)


if __name__ == "__main__":
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The issuing CA in the running daemon: gatewayctl ca, owners that sign with Python, keys in a PKCS#11 token and in a
TPM, what is published and what survives a restart. OpenSSL's command line is the second opinion."""

import datetime
import glob
import os
import shutil
import signal
import subprocess
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway import SLOW, Gateway, wait_for

SOFTHSM = next(iter(glob.glob("/usr/lib/*/softhsm/libsofthsm2.so") + ["/usr/lib/softhsm/libsofthsm2.so"]))


def run(*words, **options):
    r = subprocess.run(words, capture_output=True, timeout=60 * SLOW, **options)
    if r.returncode != 0:
        raise AssertionError("%s: %d\n%s%s" % (" ".join(words), r.returncode, r.stdout.decode(), r.stderr.decode()))
    return r.stdout


class Owner:
    """Somebody else's PKI: a root that answers requests."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Owner's root")])
        self.root = self._sign(self.name, self.key.public_key(), None, 3650)

    def _sign(self, subject, key, pathlen, days, constraints=None):
        now = datetime.datetime.utcnow()
        b = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key)
             .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
             .not_valid_after(now + datetime.timedelta(days=days))
             .add_extension(x509.BasicConstraints(True, pathlen), True)
             .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
             .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
             .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        if constraints:
            b = b.add_extension(constraints, True)
        return b.sign(self.key, hashes.SHA256())

    def answer(self, csr, days=365, pathlen=0, constraints=None):
        assert csr.is_signature_valid
        certificate = self._sign(csr.subject, csr.public_key(), pathlen, days, constraints)
        return pem(certificate) + pem(self.root)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class CaCase(unittest.TestCase):
    top = ""
    environment = {}

    def setUp(self):
        self.g = Gateway(testclock=True)
        self.g.environment.update(self.environment)
        self.g.write_config(top=self.top)
        self.addCleanup(self.g.close)

    def file(self, name, content):
        path = os.path.join(self.g.folder, name)
        with open(path, "wb") as f:
            f.write(content)
        return path

    def generations(self):
        return self.g.ctl("--json", "ca", "show")[1]["generations"]

    def pem_of(self, *words):
        code, out = self.g.ctl("ca", *words)
        self.assertEqual(code, 0)
        return out.encode()

    def handshake(self, anchors):
        """What openssl says of the server's certificate, trusting these anchors alone."""
        r = subprocess.run(["openssl", "s_client", "-dtls1_2", "-connect", "127.0.0.1:%d" % self.g.port, "-CAfile",
                            anchors, "-verify_hostname", "gatewayd"], input=b"", capture_output=True,
                           timeout=30 * SLOW)
        for line in r.stdout.decode().splitlines():
            if line.startswith("Verification"):
                return line
        return r.stdout.decode() + r.stderr.decode()

    def published(self, generation):
        return os.path.join(self.g.folder, "crl", "%d.crl" % generation)

    def check_crl(self, generation, anchors):
        path = self.published(generation)
        wait_for(lambda: os.path.exists(path), "the CRL of generation %d" % generation)
        out = subprocess.run(["openssl", "crl", "-inform", "DER", "-in", path, "-CAfile", anchors, "-noout"],
                             capture_output=True, timeout=30 * SLOW)
        self.assertIn(b"verify OK", out.stdout + out.stderr)


class Roots(CaCase):
    def test_a_closed_sites_ca_serves_at_once_and_survives_a_restart(self):
        self.g.start()
        self.assertEqual(self.g.ctl("ca", "show")[1], "there is no CA; gatewayctl ca init or ca csr makes one\n")
        code, out = self.g.ctl("ca", "crl", check=False)
        self.assertEqual(code, 1)
        self.assertIn("there is no CA", out)
        self.assertEqual(self.g.ctl("ca", "init")[0], 0)
        self.assertEqual(self.g.ctl("ca", "init", check=False)[0], 1)
        anchors = self.file("anchors.pem", self.pem_of("show", "--pem"))
        self.assertIn("OK", run("openssl", "verify", "-x509_strict", "-CAfile", anchors, anchors).decode())
        wait_for(lambda: self.handshake(anchors) == "Verification: OK", "the server's certificate")
        self.check_crl(1, anchors)
        self.assertEqual(os.stat(self.published(1)).st_mode & 0o777, 0o644)
        before = self.generations()
        self.g.stop()
        shutil.rmtree(os.path.join(self.g.folder, "crl"))
        self.g.start()
        self.assertEqual(self.generations(), before)
        self.check_crl(1, anchors)
        wait_for(lambda: self.handshake(anchors) == "Verification: OK", "the server's certificate")
        status = self.g.ctl("--json", "status")[1]["ca"]
        self.assertEqual((status["generation"], status["is_root"], status["is_key_available"]), (1, True, True))
        self.g.stop()

    def test_a_successor_is_announced_signs_and_old_trust_still_finds_a_path(self):
        self.g.start()
        self.g.ctl("ca", "init")
        old = self.file("old.pem", self.pem_of("show", "--pem"))
        self.assertEqual(self.g.ctl("ca", "roll", "--within", "10d")[0], 0)
        self.assertEqual([g["state"] for g in self.generations()], ["announced", "active"])
        both = self.file("both.pem", self.pem_of("show", "--pem"))
        mark = self.g.mark()
        self.g.set_clock(both=11 * 86400)
        self.g.wait_event("ca-switched", mark)
        self.g.wait_event("server-certificate", mark)
        self.assertEqual(self.generations()[0]["state"], "active")
        wait_for(lambda: "verify OK" in subprocess.run(
            ["openssl", "crl", "-inform", "DER", "-in", self.published(2), "-CAfile", both, "-noout"],
            capture_output=True, text=True, timeout=30 * SLOW).stderr, "the successor's CRL")
        # The machine's clock of openssl is eleven days behind the gateway's: the new leaf is younger than it thinks.
        leaf = self.server_certificate()
        self.assertIn("OU=G2", leaf.issuer.rfc4514_string())
        at = str(int(leaf.not_valid_before.replace(tzinfo=datetime.timezone.utc).timestamp()) + 7200)
        chain = self.file("chain.pem", b"".join(pem(c) for c in self.server_chain()))
        for anchors in (old, both):
            self.assertIn("OK", run("openssl", "verify", "-attime", at, "-CAfile", anchors, "-untrusted", chain,
                                    "-purpose", "sslserver", self.file("leaf.pem", pem(leaf))).decode())
        self.g.stop()

    def server_chain(self):
        out = subprocess.run(["openssl", "s_client", "-dtls1_2", "-connect", "127.0.0.1:%d" % self.g.port,
                              "-showcerts"], input=b"", capture_output=True, timeout=30 * SLOW).stdout
        blocks = out.split(b"-----BEGIN CERTIFICATE-----")[1:]
        ends = [b"-----BEGIN CERTIFICATE-----" + b.split(b"-----END CERTIFICATE-----")[0] +
                b"-----END CERTIFICATE-----\n" for b in blocks]
        return [x509.load_pem_x509_certificate(e) for e in ends]

    def server_certificate(self):
        return self.server_chain()[0]

    def test_a_key_file_is_sealed_and_no_private_key_lies_about(self):
        key = ec.generate_private_key(ec.SECP256R1())
        der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
        path = self.file("ca-key.pem", key.private_bytes(serialization.Encoding.PEM,
                                                         serialization.PrivateFormat.PKCS8,
                                                         serialization.NoEncryption()))
        scalar = key.private_numbers().private_value.to_bytes(32, "big")
        self.g.start()
        self.assertEqual(self.g.ctl("ca", "init", "--key", "file:" + path)[0], 0)
        os.unlink(path)
        root = x509.load_pem_x509_certificate(self.pem_of("show", "--pem"))
        self.assertEqual(root.public_key().public_numbers(), key.public_key().public_numbers())
        self.g.stop()
        for name in os.listdir(self.g.folder):
            where = os.path.join(self.g.folder, name)
            if os.path.isfile(where):
                with open(where, "rb") as f:
                    content = f.read()
                self.assertNotIn(scalar, content, name)
                self.assertNotIn(der, content, name)
        self.assertNotIn(scalar.hex(), self.g.output())

    def test_what_cannot_be_is_said_and_changes_nothing(self):
        self.g.start()
        for words, reason in ((("roll",), "ca init"), (("import", "/etc/hostname"), "no request waits"),
                              (("init", "--key", "file:/nonexistent"), ""), (("init", "--key", "handle:0x81"), ""),
                              (("crl", "--generation", "7"), "generation 7")):
            with self.subTest(words):
                code, out = self.g.ctl("ca", *words, check=False)
                self.assertEqual(code, 1, out)
                self.assertIn(reason, out)
        self.assertEqual(self.g.ctl("ca", "crl", "--generation", "x", check=False)[0], 2)
        self.assertEqual(self.generations(), [])
        self.g.stop()


class UnderAnOwner(CaCase):
    def test_the_owner_signs_and_the_chain_leads_to_his_root(self):
        owner = Owner()
        self.g.start()
        request = self.pem_of("csr")
        self.assertEqual(self.pem_of("csr"), request)
        csr = x509.load_pem_x509_csr(request)
        self.assertEqual(csr.extensions.get_extension_for_class(x509.BasicConstraints).value,
                         x509.BasicConstraints(True, 0))
        refused = self.file("refused.pem", owner.answer(csr, pathlen=2))
        code, out = self.g.ctl("ca", "import", refused, check=False)
        self.assertEqual(code, 1)
        self.assertIn("pathlen", out)
        self.assertEqual([g["state"] for g in self.generations()], ["requested"])
        answer = self.file("answer.pem", owner.answer(csr))
        self.assertEqual(self.g.ctl("ca", "import", answer)[0], 0)
        root = self.file("root.pem", pem(owner.root))
        wait_for(lambda: self.handshake(root) == "Verification: OK", "the server's certificate")
        self.check_crl(1, answer)
        self.g.stop()

    def test_critical_name_constraints_are_warned_of(self):
        owner = Owner()
        self.g.start()
        csr = x509.load_pem_x509_csr(self.pem_of("csr"))
        answer = owner.answer(csr, constraints=x509.NameConstraints([x509.DNSName("plant-7.example")], None))
        code, out = self.g.ctl("ca", "import", self.file("answer.pem", answer))
        self.assertEqual(code, 0)
        self.assertIn("Mbed TLS", out)
        self.g.stop()


class Token(CaCase):
    """SoftHSM stands for any PKCS#11 token."""

    def setUp(self):
        super().setUp()
        tokens = os.path.join(self.g.folder, "tokens")
        os.mkdir(tokens)
        conf = self.file("softhsm2.conf", ("directories.tokendir = %s\nobjectstore.backend = file\n" % tokens).encode())
        self.pin = self.file("pin", b"4711\n")
        self.tokens = tokens
        self.g.environment["SOFTHSM2_CONF"] = conf
        self.tool("softhsm2-util", "--init-token", "--free", "--label", "plant", "--so-pin", "0815", "--pin", "4711")
        self.tool("pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", "4711", "--token-label", "plant",
                  "--keypairgen", "--key-type", "EC:prime256v1", "--label", "ca", "--id", "01", "--usage-sign")
        self.uri = "pkcs11:token=plant;object=ca?pin-source=" + self.pin
        self.g.write_config(top='ca = { pkcs11_module = "%s"; paths = [ "%s", "%s", "%s" ]; };' %
                            (SOFTHSM, tokens, conf, self.pin))

    def tool(self, *words):
        return run(*words, env=self.g.environment)

    def test_a_key_in_a_token_signs_behind_the_wall_and_after_a_restart(self):
        self.g.start()
        self.assertEqual(self.g.ctl("ca", "init", "--key", self.uri)[0], 0)
        anchors = self.file("anchors.pem", self.pem_of("show", "--pem"))
        self.check_crl(1, anchors)
        wait_for(lambda: self.handshake(anchors) == "Verification: OK", "the server's certificate")
        self.assertNotIn("4711", self.g.output())
        code, out = self.g.ctl("ca", "roll", "--key", self.uri, check=False)
        self.assertEqual(code, 1)
        self.assertIn("a key of its own", out)
        self.g.stop()
        self.g.start()
        self.assertTrue(self.generations()[0]["is_key_available"])
        self.assertEqual(self.g.ctl("--json", "status")[1]["gateway"]["sandbox_violations"], 0)
        self.g.stop()

    def test_a_token_that_is_away_is_told_of_and_comes_back_by_itself(self):
        self.g.start()
        self.g.ctl("ca", "init", "--key", self.uri)
        self.g.stop()
        os.rename(self.tokens, self.tokens + ".away")
        os.mkdir(self.tokens)
        self.g.start()
        self.g.wait_event("ca-key-unavailable")
        self.assertFalse(self.generations()[0]["is_key_available"])
        self.g.stop()
        os.rmdir(self.tokens)
        os.rename(self.tokens + ".away", self.tokens)
        self.g.start()
        self.assertTrue(self.generations()[0]["is_key_available"])
        self.g.stop()


class Tpm(CaCase):
    """swtpm behind tpm2-openssl."""

    def setUp(self):
        super().setUp()
        state = os.path.join(self.g.folder, "tpm")
        os.mkdir(state)
        # On unix sockets: core may have no other.
        path = os.path.join(state, "socket")
        self.swtpm = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + state, "--server",
                                       "type=unixio,path=" + path, "--ctrl", "type=unixio,path=%s.ctrl" % path,
                                       "--flags", "not-need-init,startup-clear"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.end_swtpm)
        self.tcti = "swtpm:path=" + path
        wait_for(lambda: os.path.exists(path + ".ctrl"), "swtpm")
        tool = dict(os.environ, TPM2TOOLS_TCTI=self.tcti)
        context, key, pub = (os.path.join(self.g.folder, n) for n in ("primary", "key.priv", "key.pub"))
        run("tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", context, env=tool)
        run("tpm2_create", "-Q", "-C", context, "-g", "sha256", "-G", "ecc256:ecdsa-sha256", "-u", pub, "-r", key,
            "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign", env=tool)
        run("tpm2_flushcontext", "-Q", "-t", env=tool)
        run("tpm2_load", "-Q", "-C", context, "-u", pub, "-r", key, "-c", context + ".key", env=tool)
        run("tpm2_evictcontrol", "-Q", "-C", "o", "-c", context + ".key", "0x81000001", env=tool)
        run("tpm2_flushcontext", "-Q", "-t", env=tool)
        self.g.environment["TPM2OPENSSL_TCTI"] = self.tcti
        self.g.write_config(top='ca = { providers = [ "tpm2" ]; };')

    def end_swtpm(self):
        self.swtpm.send_signal(signal.SIGTERM)
        self.swtpm.wait(20)

    def test_a_key_in_a_tpm_signs_behind_the_wall_and_after_a_restart(self):
        self.g.start()
        self.assertEqual(self.g.ctl("ca", "init", "--key", "handle:0x81000001")[0], 0)
        anchors = self.file("anchors.pem", self.pem_of("show", "--pem"))
        self.check_crl(1, anchors)
        wait_for(lambda: self.handshake(anchors) == "Verification: OK", "the server's certificate")
        self.g.stop()
        self.g.start()
        self.assertTrue(self.generations()[0]["is_key_available"])
        self.assertEqual(self.g.ctl("--json", "status")[1]["gateway"]["sandbox_violations"], 0)
        self.g.stop()


if __name__ == "__main__":
    unittest.main()

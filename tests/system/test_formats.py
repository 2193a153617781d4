#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What gatewayd writes, a second implementation reads (python3-cbor2, python3-cryptography), and the other
way about: COSE_Sign1 with every algorithm, receipts and their chain, grants, problem details, EAT, CBOR."""

import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, utils

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import verify

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("GATEWAYD_BUILD", ROOT / "build"))
SEED = int(os.environ.get("SEED", "20"))

KEYS = {
    -7: ec.generate_private_key(ec.SECP256R1()),
    -35: ec.generate_private_key(ec.SECP384R1()),
    -36: ec.generate_private_key(ec.SECP521R1()),
    -8: ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
}
HASHES = {-7: hashes.SHA256, -35: hashes.SHA384, -36: hashes.SHA512}


def algorithm_of(name):
    return name if isinstance(name, int) else -8


def half_of(key):
    return (key.curve.key_size + 7) // 8


def sign(name, signed):
    key = KEYS[name]
    if name not in HASHES:
        return key.sign(signed)
    r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(HASHES[name]())))
    return r.to_bytes(half_of(key), "big") + s.to_bytes(half_of(key), "big")


def verifies(name, signature, signed):
    key = KEYS[name].public_key()
    try:
        if name not in HASHES:
            key.verify(signature, signed)
        else:
            half = half_of(key)
            assert len(signature) == 2 * half
            key.verify(utils.encode_dss_signature(int.from_bytes(signature[:half], "big"),
                                                  int.from_bytes(signature[half:], "big")),
                       signed, ec.ECDSA(HASHES[name]()))
        return True
    except InvalidSignature:
        return False


def sig_structure(protected, payload):
    return cbor2.dumps(["Signature1", protected, b"", payload])


def make_sign1(name, payload, protected=None, unprotected=None, tags=(18,)):
    header = protected if protected is not None else cbor2.dumps({1: algorithm_of(name)})
    message = [header, unprotected or {}, payload, sign(name, sig_structure(header, payload))]
    for tag in tags:
        message = cbor2.CBORTag(tag, message)
    return cbor2.dumps(message)


class Formats(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="gatewayd-formats-")
        for name, key in KEYS.items():
            private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption())
            public = key.public_key().public_bytes(serialization.Encoding.PEM,
                                                   serialization.PublicFormat.SubjectPublicKeyInfo)
            cls.path(name, "private").write_bytes(private)
            cls.path(name, "public").write_bytes(public)
        cls.helper = subprocess.Popen([str(BUILD / "system" / "formats")], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)

    @classmethod
    def tearDownClass(cls):
        cls.helper.stdin.close()
        cls.helper.stdout.close()
        cls.helper.wait(20)
        cls.folder.cleanup()

    @classmethod
    def path(cls, name, kind):
        return pathlib.Path(cls.folder.name) / ("%s.%s" % (name, kind))

    def ask(self, *words):
        self.helper.stdin.write(" ".join(w.hex() or "-" if isinstance(w, bytes) else str(w) for w in words) + "\n")
        self.helper.stdin.flush()
        return self.helper.stdout.readline().rstrip("\n")

    def ask_bytes(self, *words):
        return bytes.fromhex(self.ask(*words))


class Cose(Formats):
    PAYLOADS = (b"", b"payload", bytes(range(256)) * 20)

    def test_what_gatewayd_signs_with_each_algorithm_verifies_in_python(self):
        for name in KEYS:
            for payload in self.PAYLOADS:
                message = self.ask_bytes("sign", self.path(name, "private"), b"a kid", payload)
                tag = cbor2.loads(message)
                self.assertEqual(tag.tag, 18)
                protected, unprotected, inner, signature = tag.value
                self.assertEqual(cbor2.loads(protected), {1: algorithm_of(name)})
                self.assertEqual(unprotected, {4: b"a kid"})
                self.assertEqual(inner, payload)
                self.assertTrue(verifies(name, signature, sig_structure(protected, payload)))
                self.assertEqual(cbor2.dumps(tag, canonical=True), message)

    def test_what_python_signs_with_each_algorithm_verifies_in_gatewayd(self):
        for name in KEYS:
            for tags in ((), (18,), (18, 61)):
                for payload in self.PAYLOADS:
                    message = make_sign1(name, payload, tags=tags, unprotected={4: b"kid", 33: [b"x"]})
                    self.assertEqual(self.ask("verify", self.path(name, "public"), message),
                                     ("good %d %s" % (algorithm_of(name), payload.hex())))

    def test_a_header_that_is_not_in_its_shortest_form_verifies_over_the_bytes_received(self):
        for header in (bytes.fromhex("b8010126"), bytes.fromhex("bf0126ff"), bytes.fromhex("a1180126"),
                       cbor2.dumps({4: b"kid", 1: -7, "x": [1]})):
            message = make_sign1(-7, b"payload", protected=header)
            self.assertTrue(self.ask("verify", self.path(-7, "public"), message).startswith("good"), header.hex())

    def test_a_message_altered_after_signing_is_refused(self):
        random.seed(SEED)
        for name in KEYS:
            message = make_sign1(name, b"payload")
            for _ in range(100):
                altered = bytearray(message)
                altered[random.randrange(len(message))] ^= 1 << random.randrange(8)
                self.assertTrue(self.ask("verify", self.path(name, "public"), bytes(altered)).startswith("refused"))

    def test_an_algorithm_other_than_the_keys_is_refused_though_the_signature_is_good(self):
        for claimed in (-8, -35, -36, -37, 5, -65535):
            message = make_sign1(-7, b"payload", protected=cbor2.dumps({1: claimed}))
            self.assertIn("wrong algorithm", self.ask("verify", self.path(-7, "public"), message))

    def test_a_public_key_is_published_as_cose_key(self):
        key = cbor2.loads(self.ask_bytes("public", self.path(-7, "private")))
        numbers = KEYS[-7].public_key().public_numbers()
        self.assertEqual(key, {1: 2, 2: b"kid", -1: 1, -2: numbers.x.to_bytes(32, "big"),
                               -3: numbers.y.to_bytes(32, "big")})


class Receipts(Formats):
    COUNT = 40

    def receipts(self):
        self.helper.stdin.write("receipts %d\n" % self.COUNT)
        self.helper.stdin.flush()
        records = []
        while True:
            words = self.helper.stdout.readline().rstrip("\n").split(" ")
            if words[0] == "key":
                return records, cbor2.loads(bytes.fromhex(words[1]))
            records.append(tuple(bytes.fromhex(w) for w in words))

    def test_a_chain_of_receipts_verifies_link_by_link(self):
        records, key = self.receipts()
        public = ec.EllipticCurvePublicNumbers(int.from_bytes(key[-2], "big"), int.from_bytes(key[-3], "big"),
                                               ec.SECP256R1()).public_key()
        previous, incarnations = bytes(32), set()
        self.assertEqual(key[2], verify.kid_of(public))
        self.assertEqual(len(records), self.COUNT)
        for i, (receipt, evidence) in enumerate(records):
            sign1, claims = verify.read_receipt(receipt)
            sign1.verify(public)
            self.assertEqual(sign1.kid, key[2])
            self.assertEqual(claims[verify.R_SEQUENCE], i + 1)
            self.assertEqual(claims[verify.R_PREVIOUS], previous)
            self.assertEqual(claims[verify.R_DIGEST], hashlib.sha256(evidence).digest())
            self.assertEqual(claims[verify.R_GATEWAY], "gateway-1")
            self.assertEqual(claims[verify.R_DEVICE], "sensor-%d" % (2 - i % 2))
            self.assertEqual(claims[verify.R_RECEIVED], 1790000000 + i)
            self.assertEqual(claims[verify.R_POWERED], 1000 + i)
            self.assertEqual(claims[verify.R_QUALITY], i % 3)
            self.assertEqual(claims[verify.R_FORMAT], 263 if i % 4 else 273)
            self.assertEqual(claims[verify.R_NONCE], bytes([i]) * 32 if i % 4 else b"")
            vector = {0: 2, 2: 2 if i % 2 else 33}
            if i % 5 == 0:
                vector[4] = -2
            self.assertEqual(claims[verify.R_APPRAISAL], {0: 2 if i % 3 else 0, 1: vector if i % 3 else None,
                                                          2: "for a test"})
            incarnations.add(claims[verify.R_INCARNATION])
            previous = hashlib.sha256(receipt).digest()
        self.assertEqual(len(incarnations), 1)

    def test_another_store_is_another_incarnation_with_another_key(self):
        (one, key), (other, other_key) = self.receipts(), self.receipts()
        self.assertNotEqual(verify.read_receipt(one[0][0])[1][verify.R_INCARNATION],
                            verify.read_receipt(other[0][0])[1][verify.R_INCARNATION])
        self.assertNotEqual(key[-2], other_key[-2])


class Grants(Formats):
    KID, KEY = b"k7m2k7m2k7m2k7m2", b"w0RkA-_9w0RkA-_9w0RkA-_9w0RkA-_9"

    def test_a_grant_is_an_unprotected_cwt_claims_set_with_a_symmetric_key(self):
        data = self.ask_bytes("grant", 601, "sensor-17", self.KID, self.KEY)
        tag = cbor2.loads(data)
        self.assertEqual(tag.tag, 601)
        self.assertEqual(tag.value, {2: "sensor-17", 4: 1790086400, 6: 1790000000,
                                     8: {1: {1: 4, 2: self.KID, -1: self.KEY}}})
        self.assertEqual(cbor2.dumps(tag, canonical=True), data)
        self.assertLess(len(data), 100)

    def test_a_grant_as_cose_key_and_as_text_says_the_same(self):
        self.assertEqual(cbor2.loads(self.ask_bytes("grant", 101, "sensor-17", self.KID, self.KEY)),
                         {1: 4, 2: self.KID, -1: self.KEY})
        self.assertEqual(self.ask_bytes("grant", 0, "sensor-17", self.KID, self.KEY), self.KID + b" " + self.KEY + b"\n")


class Items(Formats):
    def item(self, depth, key=False):
        kinds = ["int", "text", "bytes"] + ([] if key else ["simple", "float"])
        if depth > 0 and not key:
            kinds += ["array", "map", "tag"]
        kind = random.choice(kinds)
        if kind == "int":
            return random.choice((1, -1)) * random.getrandbits(random.choice((3, 8, 16, 32, 63)))
        if kind == "text":
            return "".join(random.choice("a\u00fc\u6c34\U0001f512") for _ in range(random.randrange(30)))
        if kind == "bytes":
            return random.randbytes(random.randrange(300))
        if kind == "simple":
            return random.choice((True, False, None, cbor2.undefined))
        if kind == "float":
            return random.choice((0.0, 1.5, -1e300, float("inf"), float("nan")))
        if kind == "tag":
            return cbor2.CBORTag(random.choice((6, 17, 18, 61, 601, 2**33)), self.item(depth - 1))
        if kind == "array":
            return [self.item(depth - 1) for _ in range(random.randrange(6))]
        return {self.item(0, key=True): self.item(depth - 1) for _ in range(random.randrange(6))}

    def test_what_python_encodes_is_read_and_not_with_a_byte_more_or_less(self):
        random.seed(SEED)
        for i in range(600):
            data = cbor2.dumps(self.item(random.randrange(8)), canonical=i % 2 == 0)
            self.assertEqual(self.ask("check", data), "good", data.hex())
            self.assertIn("follow", self.ask("check", data + b"\x00"))
            self.assertTrue(self.ask("check", data[:-1]).startswith("refused 128 "), data.hex())

    def test_what_gatewayd_reads_python_reads_too(self):
        random.seed(SEED + 1)
        taken = 0
        for _ in range(3000):
            data = bytearray(cbor2.dumps(self.item(3)))
            for _ in range(random.randrange(1, 4)):
                data[random.randrange(len(data))] = random.getrandbits(8)
            if self.ask("check", bytes(data)) != "good":
                continue
            taken += 1
            try:
                verify.load_cbor(bytes(data), "item")
            except verify.Refused as refused:
                # A tag whose meaning cbor2 checks as well (a date that is none), which is not gatewayd's to do.
                if "behind" in str(refused) or "premature" in str(refused):
                    self.fail("%s: %s" % (data.hex(), refused))
        self.assertGreater(taken, 300)

    def test_a_problem_is_rfc_9290_problem_details(self):
        self.assertEqual(cbor2.loads(self.ask_bytes("problem", 131, "forbidden", "not-this-key")),
                         {-1: "forbidden", -2: "not-this-key", -4: 131})

    def test_an_eat_of_another_encoder_is_read(self):
        nonce, digest = bytes(range(32)), bytes(32)
        component = cbor2.dumps({1: ["boot", ["1.0", 16384]], 2: ["sha-256", digest]})
        claims = {273: [[42, digest], [295, component]], 10: [nonce, nonce[:8]], 271: ["1.2", 16384], 270: "fw", "x": {1: 2}}
        for canonical in (False, True):
            self.assertEqual(self.ask("claims", cbor2.dumps(claims, canonical=canonical)),
                             "%s,%s fw 1.2 =%s,boot=%s" % (nonce.hex(), nonce[:8].hex(), digest.hex(), digest.hex()))


if __name__ == "__main__":
    unittest.main()

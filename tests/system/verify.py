# SPDX-License-Identifier: Apache-2.0
"""The second implementation of what gatewayd signs: receipts and evidence as COSE_Sign1 (RFC 9052),
on python3-cbor2 and python3-cryptography. Written from gatewayd/evidence/evidence.h, which has the
claims of a receipt, not from the code behind it."""
import hashlib
import io

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

TIERS = (0, 2, 32, 96)
# The claims of a receipt, and within its appraisal.
(R_GATEWAY, R_INCARNATION, R_SEQUENCE, R_DEVICE, R_RECEIVED, R_QUALITY, R_NONCE, R_FORMAT, R_DIGEST,
 R_APPRAISAL, R_PREVIOUS, R_POWERED) = range(12)
A_TIER, A_VECTOR, A_REASON = range(3)
NO_PREVIOUS = bytes(32)
COSE_KEY_FORMAT = 101

# Content-Formats under which evidence is a COSE_Sign1 by the device itself.
SIGNED_FORMATS = (18, 61, 263, 10003, 10004)
EAT_NONCES = (10, -75008)
CURVE_HASH = {"secp256r1": (-7, hashes.SHA256()), "secp384r1": (-35, hashes.SHA384()),
              "secp521r1": (-36, hashes.SHA512())}


class Refused(Exception):
    """Something in a batch is wrong: what, and the HTTP status that says so."""

    def __init__(self, text, status=400):
        super().__init__(text)
        self.status = status


def kid_of(public_key):
    spki = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).digest()[:8]


# ---- P-256, as far as it takes to find the key that made a signature (SEC 1 §4.1.6) ------------------

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
B = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b
G = (0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296,
     0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5)


def _add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def _times(k, point):
    total = None
    while k:
        if k & 1:
            total = _add(total, point)
        point, k = _add(point, point), k >> 1
    return total


def recover_keys(signature, message):
    """The public keys under which this ES256 signature verifies; usually two."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    z = int.from_bytes(hashlib.sha256(message).digest(), "big")
    if not (0 < r < N and 0 < s < N):
        return []
    found = []
    for x in (r, r + N):
        y = pow(x * x * x - 3 * x + B, (P + 1) // 4, P)
        if x >= P or (y * y - (x * x * x - 3 * x + B)) % P:
            continue
        for point in ((x, y), (x, P - y)):
            inverse = pow(r, -1, N)
            q = _add(_times(s * inverse % N, point), _times(-z * inverse % N, G))
            if q:
                found.append(ec.EllipticCurvePublicNumbers(q[0], q[1], ec.SECP256R1()).public_key())
    return found


# ---- COSE_Key (RFC 9052 §7, RFC 9053 §7.1.1) ----------------------------------------------------------

def cose_key_of(public_key):
    """The COSE_Key by which a succession record announces this key."""
    numbers = public_key.public_numbers()
    return cbor2.dumps({1: 2, 2: kid_of(public_key), -1: 1, -2: numbers.x.to_bytes(32, "big"),
                        -3: numbers.y.to_bytes(32, "big")})


def read_cose_key(data):
    key = load_cbor(data, "the next receipt key")
    if not isinstance(key, dict) or key.get(1) != 2 or key.get(-1) != 1:
        raise Refused("the next receipt key is no P-256 COSE_Key")
    x, y = key.get(-2), key.get(-3)
    if not all(isinstance(n, bytes) and len(n) == 32 for n in (x, y)):
        raise Refused("the next receipt key has no point")
    try:
        public_key = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"),
                                                   ec.SECP256R1()).public_key()
    except ValueError as error:
        raise Refused("the next receipt key is not on the curve") from error
    if key.get(2) != kid_of(public_key):
        raise Refused("the next receipt key's kid is another key's")
    return public_key


# ---- COSE_Sign1 --------------------------------------------------------------------------------------

def load_cbor(data, what):
    """One item, nothing behind it."""
    stream = io.BytesIO(data)
    try:
        item = cbor2.CBORDecoder(stream).decode()
    except Exception as error:  # cbor2 lets several kinds out
        raise Refused("%s is not CBOR: %s" % (what, error)) from error
    if stream.read(1):
        raise Refused("%s: bytes behind the item" % what)
    return item


class Sign1:
    def __init__(self, data, what, tags=(18, 61)):
        item = load_cbor(data, what)
        while isinstance(item, cbor2.CBORTag) and item.tag in tags:
            item = item.value
        if not isinstance(item, list) or len(item) != 4 or not all(isinstance(item[i], bytes) for i in (0, 2, 3)):
            raise Refused("%s is not a COSE_Sign1" % what)
        self.what = what
        self.protected, self.unprotected, self.payload, self.signature = item
        headers = load_cbor(self.protected, what + ": protected header") if self.protected else {}
        self.algorithm = headers.get(1)
        self.kid = headers.get(4, self.unprotected.get(4))
        self.signed = cbor2.dumps(["Signature1", self.protected, b"", self.payload])

    def verify(self, key):
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                if self.algorithm != -8:
                    raise Refused("%s: algorithm %s with an Ed25519 key" % (self.what, self.algorithm))
                key.verify(self.signature, self.signed)
                return
            algorithm, digest = CURVE_HASH[key.curve.name]
            half = (key.curve.key_size + 7) // 8
            if self.algorithm != algorithm or len(self.signature) != 2 * half:
                raise Refused("%s: algorithm %s with a key on %s" % (self.what, self.algorithm, key.curve.name))
            der = utils.encode_dss_signature(int.from_bytes(self.signature[:half], "big"),
                                             int.from_bytes(self.signature[half:], "big"))
            key.verify(der, self.signed, ec.ECDSA(digest))
        except InvalidSignature:
            raise Refused("%s: the signature does not verify" % self.what) from None


def read_receipt(data):
    sign1 = Sign1(data, "receipt", tags=(18,))
    claims = load_cbor(sign1.payload, "receipt's payload")
    wanted = {R_GATEWAY: str, R_INCARNATION: bytes, R_SEQUENCE: int, R_DEVICE: str, R_RECEIVED: int, R_QUALITY: int,
              R_NONCE: bytes, R_FORMAT: int, R_DIGEST: bytes, R_APPRAISAL: dict, R_PREVIOUS: bytes, R_POWERED: int}
    if not isinstance(claims, dict) or set(claims) != set(wanted):
        raise Refused("a receipt's payload is a map of the claims 0 to 11")
    for key, kind in wanted.items():
        if not isinstance(claims[key], kind) or isinstance(claims[key], bool):
            raise Refused("a receipt's claim %d is %s" % (key, kind.__name__))
    for key, sizes in ((R_INCARNATION, (8,)), (R_NONCE, (0, 32)), (R_DIGEST, (32,)), (R_PREVIOUS, (32,))):
        if len(claims[key]) not in sizes:
            raise Refused("a receipt's claim %d has %d bytes" % (key, len(claims[key])))
    if claims[R_SEQUENCE] < 1 or claims[R_QUALITY] not in (0, 1, 2) or claims[R_APPRAISAL].get(A_TIER) not in TIERS:
        raise Refused("a receipt's sequence, clock quality or tier is none")
    if cbor2.dumps(claims, canonical=True) != sign1.payload:
        raise Refused("a receipt's payload is not deterministic CBOR")
    return sign1, claims


# ---- the keys that sign a chain ------------------------------------------------------------------------

class KeyLine:
    """The receipt keys of one gateway, each announced by the one before in a succession record: a receipt of no
    device (its id is empty, as no device's is) whose evidence is the next public key. Within an incarnation
    every receipt after it is signed by the next key, and by no other; a new incarnation (a backup was restored)
    begins with any of them."""

    def __init__(self, first=None):
        self.keys = [first] if first else []
        self.lines = {}  # incarnation -> [(after this sequence, key, or the digest that its COSE_Key has)]

    def copy(self):
        other = KeyLine()
        other.keys = list(self.keys)
        other.lines = {incarnation: list(line) for incarnation, line in self.lines.items()}
        return other

    def save(self):
        """For json."""
        form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return {"keys": [key.public_bytes(*form).decode() for key in self.keys],
                "lines": {incarnation.hex(): [[after, key.hex() if isinstance(key, bytes) else self.keys.index(key)]
                                              for after, key in line] for incarnation, line in self.lines.items()}}

    @classmethod
    def load(cls, saved):
        line = cls()
        line.keys = [serialization.load_pem_public_key(pem.encode()) for pem in saved["keys"]]
        for incarnation, entries in saved["lines"].items():
            line.lines[bytes.fromhex(incarnation)] = [
                (after, bytes.fromhex(key) if isinstance(key, str) else line.keys[key]) for after, key in entries]
        return line

    def _begin(self, sign1):
        for key in self.keys:
            if kid_of(key) == sign1.kid:
                return key
        if self.keys:
            return self.keys[-1]  # under which it will not verify
        fitting = [k for k in recover_keys(sign1.signature, sign1.signed) if kid_of(k) == sign1.kid]
        if not fitting:
            raise Refused("the first receipt's kid is not that of the key which signed it")
        self.keys.append(fitting[0])
        return fitting[0]

    @staticmethod
    def _by_digest(sign1, digest):
        """The record came without its evidence; the receipt has the digest of the key that must sign next."""
        for key in recover_keys(sign1.signature, sign1.signed):
            if hashlib.sha256(cose_key_of(key)).digest() == digest:
                return key
        raise Refused("the receipt is not signed by the key that was announced")

    def verify(self, sign1, claims, evidence):
        """Raises Refused, or takes note of what the receipt says about keys."""
        incarnation, sequence = claims[R_INCARNATION], claims[R_SEQUENCE]
        line = self.lines.setdefault(incarnation, [])
        if not line:
            line.append((0, self._begin(sign1)))
        at = max(i for i, (after, _) in enumerate(line) if i == 0 or after < sequence)
        after, key = line[at]
        if isinstance(key, bytes):
            key = self._by_digest(sign1, key)
            line[at] = (after, key)
            self.keys.append(key)
        sign1.verify(key)
        if sign1.kid != kid_of(key):
            raise Refused("the receipt's kid is not that of the key which signed it")
        if claims[R_DEVICE] == "" and claims[R_FORMAT] == COSE_KEY_FORMAT and sequence not in [a for a, _ in line]:
            if evidence is not None:
                self.keys.append(read_cose_key(evidence))
            line.append((sequence, self.keys[-1] if evidence is not None else claims[R_DIGEST]))
            line.sort(key=lambda entry: entry[0])

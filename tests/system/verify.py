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

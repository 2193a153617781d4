#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the seed corpora of the targets that read CBOR: cbor, cose, eat, evidence. The seeds are kept in
the repository; run this again after adding a kind."""

import hashlib
import os

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..", "vectors")
NONCE = b"n" * 32
DIGEST = b"\x01" * 32


def write(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


def vector(name):
    with open(os.path.join(VECTORS, name), "rb") as file:
        return file.read()


ITEMS = {
    "integers": [0, 23, 24, 255, 256, 65536, 2**32, 2**63 - 1, 2**63, -1, -25, -2**63],
    "strings": [b"", b"bytes", "", "text", "\u00fc\u6c34\U0001f512"],
    "simple": [True, False, None, 1.5, 1e300],
    "nested": [[[[[[[1]]]]]]],
    "grant": cbor2.CBORTag(601, {2: "sensor-17", 6: 1793000000, 4: 1814592000,
                                 8: {1: {1: 4, 2: b"k7m2k7m2k7m2k7m2", -1: b"w" * 32}}}),
    "me": {0: "sensor-17", 1: 1, 2: b"k7m2k7m2k7m2k7m2", 3: 86400, 4: 864000, 5: 3600, 6: 3},
    "problem": {-1: "not allowed", -2: "this key is compromised", -4: 131},
    "tags": cbor2.CBORTag(61, cbor2.CBORTag(18, [b"", {}, b"", b""])),
}
RAW = {
    "indefinite": bytes.fromhex("bf0a5f41014102ff187f7f6161ff209f0102ffff"),
    "long-heads": bytes.fromhex("ba000000021b000000000000000119000219000418051800"),
    "huge-claims": bytes.fromhex("9bffffffffffffffff"),
    "same-key": bytes.fromhex("a201000100"),
    "too-deep": bytes.fromhex("818181818181818181818100"),
    "sequence": bytes.fromhex("0001818002"),
}

CLAIMS = {
    "plain": {10: NONCE, 256: b"\x01" + b"u" * 6, 263: 1, 270: "fw", 271: ["1.2", 16384], 273: [[42, DIGEST]]},
    "several-nonces": {10: [NONCE, b"m" * 8], 265: "tag:example.com,2026:profile"},
    "measured": {273: [[295, cbor2.dumps({1: ["app", ["2.0", 16384]], 2: ["sha-256", DIGEST], 3: [b"signer"]})],
                       [295, cbor2.dumps({1: ["cfg"], 5: b"raw"})], [258, b"\xa0"]]},
    "legacy": {-75000: "PSA_IOT_PROFILE_1", -75001: 1, -75002: 0x3001, -75003: b"i" * 32, -75004: b"b" * 32,
               -75006: [{1: "BL", 2: DIGEST, 4: "1.0", 5: b"s" * 32}], -75008: NONCE, -75009: b"\x01" + b"u" * 32},
    "older": {10: NONCE, 256: b"\x01" + b"u" * 32, 265: "http://arm.com/psa/2.0.0", 2394: -1, 2395: 0x2000,
              2396: b"i" * 32, 2397: b"b" * 32, 2399: [{1: "APP", 2: DIGEST, 5: b"s" * 32}]},
    "debug": {263: 0, 270: "fw", 271: ["1.2"], 2395: 0x6000},
    "submodules": {266: {"wifi": {270: "w"}, "tee": b"\xd2\x84"}},
}


def sign1(payload, tag=18, header=None, unprotected=None):
    header = cbor2.dumps({1: -7} if header is None else header)
    key = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"seed").digest(), "big"), ec.SECP256R1())
    signed = cbor2.dumps(["Signature1", header, b"", payload])
    r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    message = [header, unprotected or {}, payload, signature]
    return cbor2.dumps(cbor2.CBORTag(tag, message) if tag else message)


def main():
    for name, item in ITEMS.items():
        write("cbor", name, cbor2.dumps(item))
    for name, data in RAW.items():
        write("cbor", name, data)
    for name, claims in CLAIMS.items():
        payload = cbor2.dumps(claims)
        write("eat", name, payload)
        write("evidence", "claims-" + name, payload)
        write("evidence", "signed-" + name, sign1(payload, unprotected={4: b"sensor-1"}))
    psa = cbor2.loads(vector("psa-sign1.cbor")).value[2]
    write("eat", "psa", psa)
    for target in ("cose", "evidence"):
        write(target, "psa-sign1", vector("psa-sign1.cbor"))
        write(target, "psa-mac0", vector("psa-mac0.cbor"))
    write("cose", "untagged", sign1(b"payload", tag=None))
    write("cose", "cwt", b"\xd8\x3d" + sign1(b"payload"))
    write("cose", "kid-protected", sign1(b"", header={1: -7, 4: b"kid"}))
    write("cose", "es512", sign1(b"x", header={1: -36}))
    write("cose", "eddsa", sign1(b"x", header={1: -8}))
    write("cose", "crit", sign1(b"x", header={1: -7, 2: [10], 10: 1}))
    write("cose", "both-headers", sign1(b"x", unprotected={1: -7}))
    write("evidence", "nothing", b"")


if __name__ == "__main__":
    main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector of tests and of the demo: the other end of north, written apart from gatewayd.

It takes batches over HTTPS from whoever has a client certificate of its CA, verifies everything that a
receipt promises with a second implementation (python3-cbor2, python3-cryptography), keeps books, and can
misbehave in the ways in which uplinks do.

    upstream.py pki FOLDER                       ca, server, client, and a CA that nobody trusts
    upstream.py serve --pki FOLDER --state FILE  prints "ready PORT BOOKS-PORT" once it listens

Books: GET http://127.0.0.1:BOOKS-PORT/books. Faults, also while it runs: POST …/faults with a JSON object
of the flags below, by their long names with underscores. Stopped and started with the same state file it
knows what it knew.

What it takes stands in gatewayd/north/batch.h (batches) and gatewayd/evidence/evidence.h (receipts).
"""
import argparse
import datetime
import hashlib
import http.client
import http.server
import ipaddress
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CBOR = "application/cbor"
ITEM_RECEIPT, ITEM_EVIDENCE = 1, 2
RESULT_SEQUENCE, RESULT_TIER = 1, 2
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


# ---- keys and certificates -------------------------------------------------------------------------

def _write_key(path, key):
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text)


def _certificate(name, key, issuer_name, issuer_key, extensions, days=(-3650, 36500)):
    # Valid for a century: a gateway in a test may believe in any date.
    now = datetime.datetime(2024, 1, 1)
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer_name).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(max(now + datetime.timedelta(days=days[0]), datetime.datetime(1970, 1, 1)))
               .not_valid_after(now + datetime.timedelta(days=days[1])))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make_pki(folder, client="gateway-1"):
    """ca.pem; server.pem and .key for localhost, 127.0.0.1 and ::1; client.pem and .key; and of a second
    CA, other-ca.pem, other-client.pem and .key."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in ("", "other-"):
        ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name(prefix + "upstream test CA")
        ca = _certificate(ca_name, ca_key, ca_name, ca_key, [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)])
        leaves = [("client", client, [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])])]
        leaves.append(("server", "localhost", [
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.SubjectAlternativeName([
                x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1"))])]))
        (folder / (prefix + "ca.pem")).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        for file, text, extensions in leaves:
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = _certificate(_name(text), key, ca_name, ca_key, [(e, False) for e in extensions])
            (folder / (prefix + file + ".pem")).write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
            _write_key(folder / (prefix + file + ".key"), key)
    return folder


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
    import io
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


# ---- books -------------------------------------------------------------------------------------------

class Books:
    """What was received, and whether it is all in order. One line of JSON in the state file for each
    stored record and for each batch answered; read again at the start."""

    COUNTERS = ("posts", "probes", "batches", "records", "duplicates", "replays", "receipts_alone", "refused",
                "evidence_verified", "evidence_unverified", "order_violations", "faults")

    def __init__(self, state=None, receipt_key=None, attestation_keys=None):
        self.lock = threading.RLock()
        self.pinned_from_file = receipt_key
        self.attestation_keys = attestation_keys or {}
        self.counters = dict.fromkeys(self.COUNTERS, 0)
        self.stored = {}   # (gateway, incarnation) -> {sequence: entry}
        self.answered = {}  # Idempotency-Key -> (digest of the body, status)
        self.pinned = {}   # gateway -> key
        self.highest = {}  # (gateway, incarnation, device) -> sequence
        self.last_error = ""
        self.file = None
        if state:
            if os.path.exists(state):
                with open(state, encoding="utf-8") as lines:
                    for line in lines:
                        self._replay(json.loads(line))
            self.file = open(state, "a", encoding="utf-8")

    def _replay(self, line):
        kind = line.pop("kind")
        if kind == "record":
            self._enter(line)
        elif kind == "batch":
            self.answered[line["key"]] = (line["digest"], line["status"])
        elif kind == "pin":
            self.pinned[line["gateway"]] = serialization.load_pem_public_key(line["key"].encode())

    def _note(self, kind, line):
        if self.file:
            self.file.write(json.dumps(dict(line, kind=kind)) + "\n")

    def _sync(self):
        if self.file:
            self.file.flush()

    def _enter(self, entry):
        name = (entry["gateway"], entry["incarnation"])
        self.stored.setdefault(name, {})[entry["sequence"]] = entry
        self.counters["records"] += 1
        if not entry["has_evidence"]:
            self.counters["receipts_alone"] += 1
        if entry["evidence_verified"]:
            self.counters["evidence_verified"] += 1
        elif entry["has_evidence"]:
            self.counters["evidence_unverified"] += 1
        device = name + (entry["device"],)
        if entry["sequence"] < self.highest.get(device, 0):
            self.counters["order_violations"] += 1
        self.highest[device] = max(entry["sequence"], self.highest.get(device, 0))

    def _receipt_key(self, gateway, sign1):
        if self.pinned_from_file:
            return self.pinned_from_file
        if gateway not in self.pinned:
            fitting = [k for k in recover_keys(sign1.signature, sign1.signed) if kid_of(k) == sign1.kid]
            if not fitting:
                raise Refused("the first receipt's kid is not that of the key which signed it")
            self.pinned[gateway] = fitting[0]
            pem = fitting[0].public_bytes(serialization.Encoding.PEM,
                                          serialization.PublicFormat.SubjectPublicKeyInfo).decode()
            self._note("pin", {"gateway": gateway, "key": pem})
        return self.pinned[gateway]

    def _verify_evidence(self, claims, evidence):
        """True: signed by the device over the receipt's nonce. False: nothing to verify it with."""
        key = self.attestation_keys.get(claims[R_DEVICE])
        if key is None or not claims[R_NONCE] or claims[R_FORMAT] not in SIGNED_FORMATS:
            return False
        token = Sign1(evidence, "evidence")
        token.verify(key)
        eat = load_cbor(token.payload, "evidence's payload")
        nonces = [eat[k] for k in EAT_NONCES if k in eat]
        if claims[R_NONCE] not in sum(([n] if isinstance(n, bytes) else list(n) for n in nonces), []):
            raise Refused("the evidence does not hold the nonce of its receipt")
        return True

    def _check_item(self, gateway, incarnation, item):
        if not isinstance(item, dict) or not isinstance(item.get(ITEM_RECEIPT), bytes):
            raise Refused("a record is a map with a receipt")
        receipt, evidence = item[ITEM_RECEIPT], item.get(ITEM_EVIDENCE)
        sign1, claims = read_receipt(receipt)
        if claims[R_GATEWAY] != gateway or claims[R_INCARNATION].hex() != incarnation:
            raise Refused("the receipt is of another gateway or incarnation")
        sign1.verify(self._receipt_key(gateway, sign1))
        verified = False
        if evidence is not None:
            if hashlib.sha256(evidence).digest() != claims[R_DIGEST]:
                raise Refused("the evidence is not the one of its receipt")
            verified = self._verify_evidence(claims, evidence)
        return {"gateway": gateway, "incarnation": incarnation, "sequence": claims[R_SEQUENCE],
                "device": claims[R_DEVICE], "received": claims[R_RECEIVED], "quality": claims[R_QUALITY],
                "powered": claims[R_POWERED], "format": claims[R_FORMAT],
                "tier": claims[R_APPRAISAL][A_TIER],
                "hash": hashlib.sha256(receipt).hexdigest(), "previous": claims[R_PREVIOUS].hex(),
                "has_evidence": evidence is not None, "evidence_verified": verified}

    def take(self, gateway, incarnation, key, body, refuse=lambda entry: None):
        """One batch, all or nothing. Returns (entries, how many are new). `refuse` raises for entries
        that a fault is to refuse."""
        with self.lock:
            self.counters["posts"] += 1
            digest = hashlib.sha256(body).hexdigest()
            batch = load_cbor(body, "batch")
            if not isinstance(batch, list):
                raise Refused("a batch is an array")
            if not batch:
                self.counters["probes"] += 1
                return [], 0
            self.counters["batches"] += 1
            if not key:
                raise Refused("a batch has an Idempotency-Key")
            if key in self.answered:
                if self.answered[key][0] != digest:
                    raise Refused("this Idempotency-Key was used for another batch", 422)
                self.counters["replays"] += 1
            entries = [self._check_item(gateway, incarnation, item) for item in batch]
            if [e["sequence"] for e in entries] != sorted({e["sequence"] for e in entries}):
                raise Refused("a batch is in order of sequence")
            for entry in entries:
                refuse(entry)
            known = self.stored.get((gateway, incarnation), {})
            for entry in entries:
                old = known.get(entry["sequence"])
                if old and old["hash"] != entry["hash"]:
                    raise Refused("another receipt is stored under this name", 409)
            new = 0
            for entry in entries:
                if entry["sequence"] in known:
                    self.counters["duplicates"] += 1
                    continue
                new += 1
                self._enter(entry)
                known = self.stored[(gateway, incarnation)]
                self._note("record", entry)
            self.answered[key] = (digest, 200)
            self._note("batch", {"key": key, "digest": digest, "status": 200})
            self._sync()
            return entries, new

    def chain(self, name):
        """What is wrong with one store's receipts: sequences missing, and links that do not fit."""
        known = self.stored[name]
        last = max(known)
        gaps = [s for s in range(1, last + 1) if s not in known]
        broken, powered, powered_back = [], -1, 0
        for sequence, entry in sorted(known.items()):
            powered_back += entry["powered"] < powered
            powered = entry["powered"]
            before = NO_PREVIOUS.hex() if sequence == 1 else known.get(sequence - 1, {}).get("hash")
            if before is not None and entry["previous"] != before:
                broken.append(sequence)
        return {"gateway": name[0], "incarnation": name[1], "last": last, "records": len(known),
                "gaps": gaps[:100], "broken": broken[:100], "powered_back": powered_back,
                "unbroken": not gaps and not broken}

    def report(self):
        with self.lock:
            devices = {}
            for store in self.stored.values():
                for entry in store.values():
                    device = devices.setdefault(entry["device"], {"records": 0, "with_evidence": 0, "verified": 0})
                    device["records"] += 1
                    device["with_evidence"] += entry["has_evidence"]
                    device["verified"] += entry["evidence_verified"]
            chains = [self.chain(name) for name in self.stored]
            return dict(self.counters, chains=chains, devices=devices, last_error=self.last_error,
                        chain_unbroken=bool(chains) and all(c["unbroken"] for c in chains))

    def sequences(self):
        """In the order in which they were first stored."""
        with self.lock:
            return [[e["sequence"], e["device"], e["has_evidence"]] for s in self.stored.values() for e in s.values()]


# ---- faults ------------------------------------------------------------------------------------------

class Faults:
    """Ways to misbehave. Zero, None and empty mean none of it."""

    DEFAULTS = {
        "fail_rate": 0.0,        # share of POSTs answered 503, nothing stored
        "fail_first": 0,         # that many of the next POSTs are answered `fail_status`
        "fail_status": 503,
        "retry_after": "",       # Retry-After of those
        "status": [],            # "400-for-sequence 7": with evidence only; "400-for-receipt 7": in any case
        "deny": 0,               # this status to everything, even to the empty batch
        "drop_after_store": 0.0, # share of POSTs with news that are stored, then cut off without a reply
        "slow": 0.0,             # seconds before each reply
        "redirect": "",          # 307 to there
        "huge_reply": 0,         # bytes of body with each reply
        "huge_header": 0,        # bytes of header fields with each reply
        "chunked": False,        # the huge reply does not say how long it is
        "results": False,        # tiers in the reply
        "results_raw": "",       # hex of a body in their place
        "max_body": 0,           # larger ones are answered 413
    }

    def __init__(self, seed=None):
        self.__dict__.update(self.DEFAULTS)
        self.random = random.Random(seed)

    def set(self, changes):
        for name, value in changes.items():
            if name not in self.DEFAULTS:
                raise ValueError("no such fault: %s" % name)
            setattr(self, name, value)

    def happens(self, rate):
        return rate > 0 and self.random.random() < rate

    def refuse(self, entry):
        for rule in self.status:
            status, sequence = rule.replace("-for-", " ").split()[0], rule.split()[-1]
            if entry["sequence"] == int(sequence) and (entry["has_evidence"] or "-for-receipt" in rule):
                raise Refused("refused as told: sequence %s" % sequence, int(status))


# ---- servers -----------------------------------------------------------------------------------------

class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def setup(self):
        # The handshake belongs to this connection's thread: a peer that says nothing blocks nobody.
        self.request.settimeout(30)
        self.request.do_handshake()
        super().setup()

    def log_message(self, *arguments):
        pass

    def reply(self, status, body=b"", content_type="text/plain", headers=()):
        faults = self.server.faults
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        for i in range(0, faults.huge_header, 1000):
            self.send_header("X-Filler-%d" % i, "h" * 1000)
        if faults.huge_reply:
            content_type, body = CBOR, b"\x80" * faults.huge_reply
        if body:
            self.send_header("Content-Type", content_type)
        if faults.chunked:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if faults.chunked:
            self.close_connection = True

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def fault_status(self, body):
        """The status that is to be answered before anything is looked at, or None."""
        faults = self.server.faults
        if faults.redirect:
            return 307
        if faults.deny:
            return faults.deny
        if faults.max_body and len(body) > faults.max_body:
            return 413
        if faults.fail_first > 0:
            faults.fail_first -= 1
            return faults.fail_status
        return 503 if faults.happens(faults.fail_rate) else None

    def results(self, entries):
        faults = self.server.faults
        if faults.results_raw:
            return bytes.fromhex(faults.results_raw)
        if not faults.results:
            return b""
        return cbor2.dumps([{RESULT_SEQUENCE: e["sequence"], RESULT_TIER: e["tier"]} for e in entries])

    def do_POST(self):
        faults, books = self.server.faults, self.server.books
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if faults.slow:
            time.sleep(faults.slow)
        with books.lock:
            status = self.fault_status(body)
            if status:
                books.counters["faults"] += 1
        if status:
            headers = [("Retry-After", faults.retry_after)] if faults.retry_after else []
            headers += [("Location", faults.redirect)] if faults.redirect else []
            self.reply(status, b"as told", headers=headers)
            return
        try:
            if self.headers.get("Content-Type") != CBOR:
                raise Refused("the body is %s" % CBOR, 415)
            gateway = urllib.parse.unquote(self.headers.get("Gatewayd-Id", ""))
            incarnation = self.headers.get("Gatewayd-Incarnation", "")
            if not gateway or len(incarnation) != 16:
                raise Refused("Gatewayd-Id and Gatewayd-Incarnation say whose records these are")
            entries, new = books.take(gateway, incarnation, self.headers.get("Idempotency-Key"), body, faults.refuse)
        except Refused as refusal:
            with books.lock:
                books.counters["refused"] += 1
                books.last_error = str(refusal)
            self.reply(refusal.status, str(refusal).encode())
            return
        with books.lock:
            drop = new > 0 and faults.happens(faults.drop_after_store)
        if drop:
            self.cut()
            return
        self.reply(200, self.results(entries), CBOR)

    def do_GET(self):
        self.reply(405)


class BooksHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def reply(self, status, value):
        body = json.dumps(value, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/books":
            self.reply(200, self.server.books.report())
        elif self.path == "/sequences":
            self.reply(200, self.server.books.sequences())
        else:
            self.reply(404, {"error": "/books or /sequences"})

    def do_POST(self):
        try:
            self.server.faults.set(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            self.reply(200, {})
        except ValueError as error:
            self.reply(400, {"error": str(error)})


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # refused handshakes and connections cut by a test are no news


class Server6(Server):
    address_family = socket.AF_INET6


def load_attestation_keys(path):
    """{"device id": "PEM", …}, or a list of objects with "id" (or "device") and "attestation_key"."""
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    if isinstance(value, list):
        value = {e.get("id", e.get("device")): e["attestation_key"] for e in value if e.get("attestation_key")}
    return {device: serialization.load_pem_public_key(pem.encode()) for device, pem in value.items()}


def serve(arguments):
    pki = pathlib.Path(arguments.pki)
    receipt_key = None
    if arguments.receipt_key:
        receipt_key = serialization.load_pem_public_key(pathlib.Path(arguments.receipt_key).read_bytes())
    keys = load_attestation_keys(arguments.attestation_keys) if arguments.attestation_keys else None
    books = Books(arguments.state, receipt_key, keys)
    faults = Faults(arguments.seed)
    faults.set({name: getattr(arguments, name) for name in Faults.DEFAULTS})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / (arguments.certificate + ".pem"), pki / (arguments.certificate + ".key"))
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    if arguments.tls_max == "1.1":
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    elif arguments.tls_max == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    collector = (Server6 if ":" in arguments.address else Server)((arguments.address, arguments.port), Collector)
    collector.socket = context.wrap_socket(collector.socket, server_side=True, do_handshake_on_connect=False)
    collector.books, collector.faults = books, faults
    desk = Server(("127.0.0.1", arguments.books_port), BooksHandler)
    desk.books, desk.faults = books, faults
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    print("ready %d %d" % (collector.server_address[1], desk.server_address[1]), flush=True)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    with books.lock:
        os._exit(0)


# ---- for tests and the demo --------------------------------------------------------------------------

class Upstream:
    """A collector in a process of its own, on the same ports after each start."""

    def __init__(self, folder, *flags, pki=None):
        self.folder = pathlib.Path(folder)
        self.pki = pathlib.Path(pki) if pki else self.folder / "pki"
        if not (self.pki / "ca.pem").exists():
            make_pki(self.pki)
        self.flags = list(flags)
        self.port = self.books_port = 0
        self.process = None

    def start(self, *flags):
        command = ["/usr/bin/python3", os.path.abspath(__file__), "serve", "--pki", str(self.pki),
                   "--state", str(self.folder / "books.jsonl"), "--port", str(self.port),
                   "--books-port", str(self.books_port), *self.flags, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline().split()
        if len(line) != 3 or line[0] != "ready":
            self.stop()
            raise RuntimeError("the collector did not start: %s" % " ".join(command))
        self.port, self.books_port = int(line[1]), int(line[2])
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *unused):
        self.stop()

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.books_port, timeout=30)
        connection.request(method, path, body)
        answer = connection.getresponse()
        value = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            raise RuntimeError("%s: %s" % (path, value))
        return value

    def books(self):
        return self._ask("GET", "/books")

    def sequences(self):
        return self._ask("GET", "/sequences")

    def faults(self, **changes):
        self._ask("POST", "/faults", json.dumps(changes))

    @property
    def url(self):
        return "https://localhost:%d/batches" % self.port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pki = commands.add_parser("pki")
    pki.add_argument("folder")
    pki.add_argument("--client", default="gateway-1", help="common name of the client certificate")
    run = commands.add_parser("serve")
    run.add_argument("--pki", required=True)
    run.add_argument("--certificate", default="server", help="which certificate of the folder to show")
    run.add_argument("--address", default="127.0.0.1")
    run.add_argument("--port", type=int, default=0)
    run.add_argument("--books-port", type=int, default=0)
    run.add_argument("--state")
    run.add_argument("--receipt-key", help="PEM; without it each gateway's first receipt pins its key")
    run.add_argument("--attestation-keys", help="JSON: device id to PEM; evidence of these devices is verified")
    run.add_argument("--seed", type=int)
    run.add_argument("--tls-max", choices=("1.1", "1.2", "1.3"), default="1.3")
    for name, default in Faults.DEFAULTS.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            run.add_argument(flag, action="store_true")
        elif isinstance(default, list):
            run.add_argument(flag, action="append", default=[], metavar="'400-for-sequence N'")
        elif name == "drop_after_store":
            run.add_argument(flag, type=float, nargs="?", const=1.0, default=default)
        else:
            run.add_argument(flag, type=type(default), default=default)
    arguments = parser.parse_args()
    if arguments.command == "pki":
        make_pki(arguments.folder, arguments.client)
    else:
        serve(arguments)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What a collector has received, and whether it is all in order: kept across restarts in a state file."""
import hashlib
import json
import os
import threading

from cryptography.hazmat.primitives import serialization

import verify
from verify import Refused

# The members of a record in a batch (gatewayd/north/batch.h).
ITEM_RECEIPT, ITEM_EVIDENCE = 1, 2


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
        self.keys = {}     # gateway -> verify.KeyLine
        self.highest = {}  # (gateway, incarnation, device) -> sequence
        self.last_error = ""
        self.file = None
        if state:
            if os.path.exists(state):
                with open(state, encoding="utf-8") as lines:
                    for line in lines:
                        self._replay(json.loads(line))
            self.file = open(state, "a", encoding="utf-8")

    def close(self):
        if self.file:
            self.file.close()

    def _replay(self, line):
        kind = line.pop("kind")
        if kind == "record":
            self._enter(line)
        elif kind == "batch":
            self.answered[line["key"]] = (line["digest"], line["status"])
        elif kind == "pin":
            self.keys[line["gateway"]] = verify.KeyLine(serialization.load_pem_public_key(line["key"].encode()))
        elif kind == "keys":
            self.keys[line["gateway"]] = verify.KeyLine.load(line["line"])

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

    def _keys_of(self, gateway):
        return self.keys[gateway].copy() if gateway in self.keys else verify.KeyLine(self.pinned_from_file)

    def _keep_keys(self, gateway, keys):
        """What an accepted batch has told of receipt keys."""
        line = keys.save()
        if gateway not in self.keys or self.keys[gateway].save() != line:
            self.keys[gateway] = keys
            self._note("keys", {"gateway": gateway, "line": line})

    def _verify_evidence(self, claims, evidence):
        """True: signed by the device over the receipt's nonce. False: nothing to verify it with."""
        key = self.attestation_keys.get(claims[verify.R_DEVICE])
        if key is None or not claims[verify.R_NONCE] or claims[verify.R_FORMAT] not in verify.SIGNED_FORMATS:
            return False
        token = verify.Sign1(evidence, "evidence")
        token.verify(key)
        eat = verify.load_cbor(token.payload, "evidence's payload")
        nonces = [eat[k] for k in verify.EAT_NONCES if k in eat]
        if claims[verify.R_NONCE] not in sum(([n] if isinstance(n, bytes) else list(n) for n in nonces), []):
            raise Refused("the evidence does not hold the nonce of its receipt")
        return True

    def _check_item(self, gateway, incarnation, item, keys):
        if not isinstance(item, dict) or not isinstance(item.get(ITEM_RECEIPT), bytes):
            raise Refused("a record is a map with a receipt")
        receipt, evidence = item[ITEM_RECEIPT], item.get(ITEM_EVIDENCE)
        sign1, claims = verify.read_receipt(receipt)
        if claims[verify.R_GATEWAY] != gateway or claims[verify.R_INCARNATION].hex() != incarnation:
            raise Refused("the receipt is of another gateway or incarnation")
        if evidence is not None and hashlib.sha256(evidence).digest() != claims[verify.R_DIGEST]:
            raise Refused("the evidence is not the one of its receipt")
        keys.verify(sign1, claims, evidence)
        verified = False
        if evidence is not None:
            verified = self._verify_evidence(claims, evidence)
        return {"gateway": gateway, "incarnation": incarnation, "sequence": claims[verify.R_SEQUENCE],
                "device": claims[verify.R_DEVICE], "received": claims[verify.R_RECEIVED], "quality": claims[verify.R_QUALITY],
                "powered": claims[verify.R_POWERED], "format": claims[verify.R_FORMAT],
                "tier": claims[verify.R_APPRAISAL][verify.A_TIER],
                "hash": hashlib.sha256(receipt).hexdigest(), "previous": claims[verify.R_PREVIOUS].hex(),
                "has_evidence": evidence is not None, "evidence_verified": verified}

    def take(self, gateway, incarnation, key, body, refuse=lambda entry: None):
        """One batch, all or nothing. Returns (entries, how many are new). `refuse` raises for entries
        that a fault is to refuse."""
        with self.lock:
            self.counters["posts"] += 1
            digest = hashlib.sha256(body).hexdigest()
            batch = verify.load_cbor(body, "batch")
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
            keys = self._keys_of(gateway)
            entries = [self._check_item(gateway, incarnation, item, keys) for item in batch]
            if [e["sequence"] for e in entries] != sorted({e["sequence"] for e in entries}):
                raise Refused("a batch is in order of sequence")
            for entry in entries:
                refuse(entry)
            known = self.stored.get((gateway, incarnation), {})
            for entry in entries:
                old = known.get(entry["sequence"])
                if old and old["hash"] != entry["hash"]:
                    raise Refused("another receipt is stored under this name", 409)
            self._keep_keys(gateway, keys)
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
            before = verify.NO_PREVIOUS.hex() if sequence == 1 else known.get(sequence - 1, {}).get("hash")
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
            kids = {gateway: [verify.kid_of(key).hex() for key in line.keys] for gateway, line in self.keys.items()}
            return dict(self.counters, chains=chains, receipt_keys=kids, devices=devices, last_error=self.last_error,
                        chain_unbroken=bool(chains) and all(c["unbroken"] for c in chains))

    def sequences(self):
        """In the order in which they were first stored."""
        with self.lock:
            return [[e["sequence"], e["device"], e["has_evidence"]] for s in self.stored.values() for e in s.values()]

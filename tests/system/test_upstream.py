#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector of the tests notices what it is there to notice: each kind of forged, missing, reordered or
altered record, so that books in order mean something."""
import hashlib
import os
import pathlib
import sys
import tempfile
import unittest

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import verify
from books import ITEM_EVIDENCE, ITEM_RECEIPT, Books
from north_case import Gateway


class Verification(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway().fill(6, devices=2)
        self.books = Books()

    def items(self, *sequences):
        return [{ITEM_RECEIPT: r[4], ITEM_EVIDENCE: r[5]} for r in (self.gateway.records[s - 1] for s in sequences)]

    def give(self, items, books=None, gateway=None, incarnation=None, key=None):
        body = cbor2.dumps(items)
        return (books or self.books).take(gateway or self.gateway.name,
                                          (incarnation or self.gateway.incarnation).hex(),
                                          key or hashlib.sha256(body).hexdigest(), body)

    def refused(self, items, text, status=400, **more):
        with self.assertRaises(verify.Refused) as caught:
            self.give(items, **more)
        self.assertIn(text, str(caught.exception))
        self.assertEqual(caught.exception.status, status)
        self.assertEqual(self.books.report()["records"], 0)

    def resign(self, sequence, key=None, **claims):
        """A record whose receipt has other claims, signed anew."""
        receipt = verify.Sign1(self.gateway.records[sequence - 1][4], "receipt")
        payload = cbor2.loads(receipt.payload)
        payload.update({getattr(verify, name): value for name, value in claims.items()})
        key = key or self.gateway.key
        return {ITEM_RECEIPT: Gateway.sign(key, cbor2.dumps(payload, canonical=True), verify.kid_of(key.public_key())),
                ITEM_EVIDENCE: self.gateway.records[sequence - 1][5]}

    def test_what_is_in_order_is_found_in_order(self):
        self.give(self.items(1, 2, 3))
        self.give(self.items(4, 5, 6))
        report = self.books.report()
        self.assertEqual((report["records"], report["duplicates"], report["order_violations"]), (6, 0, 0))
        self.assertTrue(report["chain_unbroken"])

    def test_a_missing_record_is_a_gap(self):
        self.give(self.items(1, 2, 4))
        report = self.books.report()
        self.assertFalse(report["chain_unbroken"])
        self.assertEqual(report["chains"][0]["gaps"], [3])
        self.give(self.items(3))
        self.assertTrue(self.books.report()["chain_unbroken"])

    def test_a_missing_first_record_is_a_gap(self):
        self.give(self.items(2, 3))
        self.assertFalse(self.books.report()["chain_unbroken"])

    def test_a_link_to_another_receipt_breaks_the_chain(self):
        self.give(self.items(1) + [self.resign(2, R_PREVIOUS=bytes(32))] + self.items(3))
        # The second does not fit the first, nor the third the second that was resigned.
        self.assertEqual(self.books.report()["chains"][0]["broken"], [2, 3])

    def test_a_later_record_of_a_device_before_an_earlier_one_is_noticed(self):
        self.give(self.items(1, 2, 5))
        self.give(self.items(3, 4, 6))
        self.assertEqual(self.books.report()["order_violations"], 1)

    def test_what_comes_twice_is_counted_once(self):
        self.give(self.items(1, 2))
        self.give(self.items(1, 2, 3))
        self.give(self.items(1, 2, 3))
        report = self.books.report()
        self.assertEqual((report["records"], report["duplicates"], report["replays"]), (3, 5, 1))

    def test_a_batch_out_of_order_is_refused(self):
        self.refused(self.items(2, 1), "order of sequence")
        self.refused(self.items(1, 1), "order of sequence")

    def test_a_changed_bit_anywhere_in_a_receipt_is_refused(self):
        receipt = self.gateway.records[0][4]
        for place in range(len(receipt)):
            changed = bytearray(receipt)
            changed[place] ^= 1 << (place % 8)
            with self.assertRaises(verify.Refused):
                self.give([{ITEM_RECEIPT: bytes(changed), ITEM_EVIDENCE: self.gateway.records[0][5]}])
        self.assertEqual(self.books.report()["records"], 0)

    def test_a_signature_by_another_key_is_refused_once_the_key_is_pinned(self):
        other = ec.generate_private_key(ec.SECP256R1())
        books = Books(receipt_key=self.gateway.key.public_key())
        with self.assertRaisesRegex(verify.Refused, "does not verify"):
            self.give([self.resign(1, key=other)], books=books)
        self.give(self.items(1))
        with self.assertRaisesRegex(verify.Refused, "does not verify"):
            self.give([self.resign(2, key=other)])

    def succession(self, sequence, following, device="", whole=True):
        """Record `sequence` in the form by which a gateway announces its next receipt key."""
        announced = verify.cose_key_of(following.public_key())
        item = self.resign(sequence, R_DEVICE=device, R_FORMAT=verify.COSE_KEY_FORMAT, R_NONCE=b"",
                           R_DIGEST=hashlib.sha256(announced).digest())
        item[ITEM_EVIDENCE] = announced
        if not whole:
            del item[ITEM_EVIDENCE]
        return item

    def test_the_next_receipt_key_is_learnt_from_the_one_before_and_signs_from_then_on(self):
        for whole in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                following, books = ec.generate_private_key(ec.SECP256R1()), Books(os.path.join(folder, "state"))
                self.give(self.items(1) + [self.succession(2, following, whole=whole)], books=books)
                books.close()
                books = Books(os.path.join(folder, "state"))
                with self.assertRaisesRegex(verify.Refused, "does not verify|not signed by the key"):
                    self.give(self.items(3), books=books)
                self.give([self.resign(3, key=following)], books=books)
                self.give(self.items(1), books=books)  # sent again, still under the key of then
                with self.assertRaisesRegex(verify.Refused, "does not verify"):
                    self.give([self.resign(1, key=following)], books=books)
                with self.assertRaisesRegex(verify.Refused, "does not verify"):
                    self.give(self.items(4), books=books)
                self.assertEqual(len(books.report()["receipt_keys"][self.gateway.name]), 2)
                books.close()

    def test_a_device_cannot_announce_a_receipt_key(self):
        following = ec.generate_private_key(ec.SECP256R1())
        self.give([self.succession(1, following, device="sensor-0")])
        with self.assertRaisesRegex(verify.Refused, "does not verify"):
            self.give([self.resign(2, key=following)])
        self.give(self.items(2))

    def test_a_restored_gateway_begins_with_any_receipt_key_of_its_line(self):
        following = ec.generate_private_key(ec.SECP256R1())
        self.give([self.succession(1, following), self.resign(2, key=following)])
        for start, key in ((b"restored", None), (b"restor-2", following)):
            self.give([self.resign(1, key=key, R_INCARNATION=start)], incarnation=start)
        with self.assertRaisesRegex(verify.Refused, "does not verify"):
            self.give([self.resign(1, key=ec.generate_private_key(ec.SECP256R1()), R_INCARNATION=b"restor-3")],
                      incarnation=b"restor-3")

    def test_a_kid_of_another_key_cannot_be_pinned(self):
        receipt = cbor2.loads(self.resign(1)[ITEM_RECEIPT])
        receipt.value[1] = {4: bytes(8)}
        self.refused([{ITEM_RECEIPT: cbor2.dumps(receipt)}], "kid")

    def test_other_evidence_than_the_receipts_is_refused(self):
        self.refused([{ITEM_RECEIPT: self.gateway.records[0][4], ITEM_EVIDENCE: b"else"}], "not the one")

    def test_evidence_is_verified_where_the_devices_key_is_known(self):
        keys = {d: k.public_key() for d, k in self.gateway.device_keys.items()}
        self.give(self.items(1, 2), books=Books(attestation_keys=keys))
        wrong = dict(keys, **{"sensor-0": ec.generate_private_key(ec.SECP256R1()).public_key()})
        with self.assertRaisesRegex(verify.Refused, "evidence: the signature"):
            self.give(self.items(1), books=Books(attestation_keys=wrong))
        with self.assertRaisesRegex(verify.Refused, "nonce"):
            self.give([self.resign(1, R_NONCE=bytes(32))], books=Books(attestation_keys=keys))

    def test_records_of_others_are_refused(self):
        self.refused(self.items(1), "another gateway", gateway="gateway-2")
        self.refused(self.items(1), "another gateway", incarnation=b"restored")

    def test_another_receipt_under_a_stored_name_is_refused(self):
        self.give(self.items(1))
        with self.assertRaises(verify.Refused) as caught:
            self.give([self.resign(1, R_RECEIVED=7)])
        self.assertEqual(caught.exception.status, 409)

    def test_an_idempotency_key_is_good_for_one_batch(self):
        self.give(self.items(1), key="k")
        with self.assertRaises(verify.Refused) as caught:
            self.give(self.items(2), key="k")
        self.assertEqual(caught.exception.status, 422)

    def test_a_receipt_with_claims_missing_or_of_another_kind_is_refused(self):
        for claims in ({"R_SEQUENCE": 0}, {"R_SEQUENCE": "1"}, {"R_QUALITY": 3}, {"R_APPRAISAL": {0: 1}},
                       {"R_PREVIOUS": b""}, {"R_NONCE": b"short"}, {"R_DEVICE": b"sensor-0"}):
            with self.subTest(claims=claims):
                self.refused([self.resign(1, **claims)], "a receipt's")

    def test_the_state_file_brings_everything_back(self):
        with tempfile.TemporaryDirectory() as folder:
            state = os.path.join(folder, "books.jsonl")
            before = Books(state)
            self.give(self.items(1, 2, 3), books=before)
            before.close()
            again = Books(state)
            self.addCleanup(again.close)
            self.assertEqual(again.report()["records"], 3)
            other = ec.generate_private_key(ec.SECP256R1())
            with self.assertRaisesRegex(verify.Refused, "does not verify"):
                self.give([self.resign(4, key=other)], books=again)
            self.give(self.items(1, 2, 3), books=again)
            self.assertEqual((again.report()["duplicates"], again.report()["replays"]), (3, 1))


if __name__ == "__main__":
    unittest.main()

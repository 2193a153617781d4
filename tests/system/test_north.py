#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""North delivers: against the collector of upstream.py, everything once and in order, whatever happens."""
import json
import os
import pathlib
import sys
import tempfile
import time
import unittest

from cryptography.hazmat.primitives import serialization

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from north_case import WINDOW, Case, Gateway
from upstream import Upstream


class Delivery(Case):
    def test_everything_arrives_once_in_order_and_every_signature_verifies(self):
        keys = self.folder / "keys.json"
        self.gateway.fill(1000)
        keys.write_text(json.dumps({d: k.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
            for d, k in self.gateway.device_keys.items()}))
        up = self.collector("--attestation-keys", str(keys))
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 1001)))
        books = self.assert_all_arrived(up, 1000)
        self.assertEqual(books["evidence_verified"], 1000)
        self.assertEqual(books["duplicates"], 0)
        self.assertLess(books["batches"], 200)

    def test_lost_replies_cost_a_replay_of_the_same_batch_and_no_double_record(self):
        up = self.collector("--drop-after-store", "--seed", "1")
        self.gateway.fill(400)
        north = self.north(up, batch=40).hello()
        self.assertEqual(north.deliver(), list(range(1, 401)))
        books = self.assert_all_arrived(up, 400)
        self.assertGreaterEqual(books["replays"], 8)
        # A batch that was answered with silence came again as it was, under its Idempotency-Key.
        self.assertEqual(books["batches"], 2 * books["replays"])

    def test_failures_by_the_dozen_lose_nothing_and_keep_the_order(self):
        up = self.collector("--fail-rate", "0.3", "--drop-after-store", "0.3", "--seed", "5")
        self.gateway.fill(300)
        north = self.north(up, batch=16, retry_max=0).hello()
        self.assertEqual(north.deliver(), list(range(1, 301)))
        books = self.assert_all_arrived(up, 300)
        self.assertGreater(books["faults"], 3)

    def test_a_collector_that_is_away_and_comes_back_gets_everything(self):
        up = self.collector()
        self.gateway.fill(100)
        up.stop()
        north = self.north(up).hello()
        down = north.wait(r"uplink down (\d+) (.*)")
        self.assertIn("connect", down[2].lower())
        for i in range(100):
            north.record(i)
        north.sent = 100
        up.start()
        north.wait(lambda lines: len([l for l in lines if l.startswith("delivered ")]) == 100)
        north.wait("uplink up")
        self.assert_all_arrived(up, 100)

    def test_a_north_killed_in_the_middle_leaves_the_rest_to_the_next(self):
        up = self.collector("--slow", "0.05")
        self.gateway.fill(300)
        delivered = set()
        for _ in range(6):
            north = self.north(up, batch=10).hello()
            todo = [i for i in range(300) if self.gateway.records[i][0] not in delivered]
            for i in todo[:WINDOW]:
                north.record(i)
            north.wait(lambda lines: len([l for l in lines if l.startswith("delivered ")]) >= 20)
            north.kill()
            delivered |= set(north.numbers("delivered"))
        up.faults(slow=0)
        north = self.north(up).hello()
        north.deliver(skip=delivered)
        self.assertEqual(sorted(delivered | set(north.numbers("delivered"))), list(range(1, 301)))
        self.assert_all_arrived(up, 300)

    def test_a_collector_restarted_with_its_books_counts_nothing_twice(self):
        up = self.collector()
        self.gateway.fill(50)
        north = self.north(up).hello()
        north.deliver()
        up.stop()
        up.start()
        again = self.north(up).hello()
        self.assertEqual(again.deliver(), list(range(1, 51)))
        books = self.assert_all_arrived(up, 50)
        self.assertEqual(books["duplicates"], 50)

    def test_a_restored_store_reuses_no_name(self):
        up = self.collector()
        self.gateway.fill(5)
        self.north(up).hello().deliver()
        restored = Gateway(incarnation=b"restored")
        restored.key = self.gateway.key
        restored.fill(5)
        self.north(up, gateway=restored).hello().deliver()
        books = up.books()
        self.assertEqual(books["records"], 10)
        self.assertTrue(books["chain_unbroken"])

    def test_batches_keep_to_their_size(self):
        up = self.collector()
        self.gateway.fill(60, evidence=os.urandom(60000))
        north = self.north(up, batch=64).hello()
        self.assertEqual(north.deliver(), list(range(1, 61)))
        books = self.assert_all_arrived(up, 60)
        self.assertGreaterEqual(books["batches"], 60 * 60 // 512)

    def test_a_gateway_id_of_any_characters_arrives_as_it_is(self):
        up = self.collector()
        gateway = Gateway(name="werk-7/halle:ä%0d%0aX").fill(1)
        self.north(up, gateway=gateway).hello().deliver()
        self.assertEqual(up.books()["chains"][0]["gateway"], "werk-7/halle:ä%0d%0aX")

    def test_a_record_sent_again_while_it_is_held_is_ignored(self):
        up = self.collector("--slow", "0.3")
        self.gateway.fill(3)
        north = self.north(up).hello()
        for i in (0, 1, 2, 0, 1, 2):
            north.record(i)
        north.wait("delivered 3")
        north.say("ping")
        north.wait("pong")
        self.assertEqual(north.numbers("delivered"), [1, 2, 3])


class Refusals(Case):
    def test_one_refused_record_is_parked_and_its_receipt_delivered_and_all_goes_on(self):
        up = self.collector("--status", "400-for-sequence 37")
        self.gateway.fill(100)
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 101)))
        self.assertEqual(north.numbers("parked"), [37])
        self.assertIn("parked 37 400 HTTP 400: refused as told: sequence 37", north.lines)
        books = self.assert_all_arrived(up, 100)
        self.assertEqual(books["receipts_alone"], 1)
        self.assertNotIn(False, [has for s, _, has in up.sequences() if s != 37])

    def test_many_refused_records_are_each_found(self):
        bad = [1, 2, 63, 64, 65, 128, 199, 200]
        up = self.collector(*sum((["--status", "422-for-sequence %d" % s] for s in bad), []))
        self.gateway.fill(200)
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 201)))
        self.assertEqual(north.numbers("parked"), bad)
        self.assertEqual(self.assert_all_arrived(up, 200)["receipts_alone"], len(bad))

    def test_a_receipt_refused_as_well_is_given_up_and_the_rest_goes_on(self):
        up = self.collector("--status", "409-for-receipt 3")
        self.gateway.fill(6)
        north = self.north(up).hello()
        for i in range(6):
            north.record(i)
        north.wait("delivered 6")
        self.assertEqual(north.numbers("delivered"), [1, 2, 4, 5, 6])
        self.assertEqual(north.numbers("parked"), [3, 3])
        # The next north gets it without evidence.
        up.faults(status=[])
        again = self.north(up).hello()
        again.record(2, without_evidence=True)
        again.wait("delivered 3")
        self.assertTrue(up.books()["chain_unbroken"])

    def test_a_collector_that_refuses_us_parks_nothing(self):
        up = self.collector("--deny", "403")
        self.gateway.fill(10)
        north = self.north(up).hello()
        for i in range(10):
            north.record(i)
        north.wait("uplink down .* HTTP 403")
        up.faults(deny=0)
        north.wait("delivered 10")
        # The same in the middle of a run.
        up.faults(deny=404)
        self.gateway.fill(10)
        for i in range(10, 20):
            north.record(i)
        north.wait("uplink down .* HTTP 404")
        up.faults(deny=0)
        north.wait("delivered 20")
        self.assertEqual(north.numbers("parked"), [])
        self.assert_all_arrived(up, 20)

    def test_too_large_a_batch_is_sent_in_smaller_ones(self):
        up = self.collector("--max-body", "20000")
        self.gateway.fill(100, evidence=os.urandom(2000))
        north = self.north(up).hello()
        self.assertEqual(north.deliver(), list(range(1, 101)))
        self.assertEqual(north.numbers("parked"), [])
        self.assert_all_arrived(up, 100)

    def test_retry_after_is_honoured(self):
        up = self.collector("--fail-first", "1", "--fail-status", "429", "--retry-after", "2")
        self.gateway.fill(1)
        start = time.monotonic()
        north = self.north(up).hello()
        north.wait("uplink down 2 HTTP 429")
        north.deliver()
        self.assertGreaterEqual(time.monotonic() - start, 2)

    def test_an_http_date_in_retry_after_is_honoured(self):
        up = self.collector()
        up.faults(fail_first=1, retry_after=time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30)))
        north = self.north(up).hello()
        self.assertIn(int(north.wait(r"uplink down (\d+) HTTP 503")[1]), range(27, 31))

    def test_a_retry_after_of_a_week_is_cut_to_an_hour(self):
        up = self.collector("--fail-first", "1", "--retry-after", "604800")
        north = self.north(up).hello()
        north.wait("uplink down 3600 HTTP 503")

    def test_statuses_that_ask_for_patience_park_nothing(self):
        for status in (408, 425, 429, 500, 502, 504):
            with self.subTest(status=status), tempfile.TemporaryDirectory() as folder:
                with Upstream(folder) as up:
                    north = self.north(up, gateway=Gateway().fill(3)).hello()
                    north.wait("uplink up")
                    up.faults(fail_first=2, fail_status=status)
                    self.assertEqual(north.deliver(), [1, 2, 3])
                    self.assertEqual(north.numbers("parked"), [])
                    self.end(north)


class Results(Case):
    def test_results_reach_core_before_the_record_is_delivered(self):
        up = self.collector("--results")
        self.gateway.add("a", tier=2)
        self.gateway.add("b", tier=96)
        north = self.north(up).hello()
        north.deliver()
        self.assertIn("result 1 2", north.lines)
        self.assertIn("result 2 96", north.lines)
        self.assertLess(north.lines.index("result 2 96"), north.lines.index("delivered 2"))

    def test_a_malformed_reply_counts_as_none_and_the_delivery_stands(self):
        for raw in ("ff", "a0", "81a20101", "81a2010102181f", "81a201000202", "81a2012002", "81a20101020280",
                    "9a7fffffff", "81a301010202010102", "81820102"):
            with self.subTest(raw=raw):
                folder = self.folder / raw
                folder.mkdir()
                with Upstream(folder, "--results-raw", raw) as up:
                    north = self.north(up, gateway=Gateway().fill(2)).hello()
                    self.assertEqual(north.deliver(), [1, 2])
                    self.assertFalse([l for l in north.lines if l.startswith("result")])
                    self.end(north)


if __name__ == "__main__":
    unittest.main()

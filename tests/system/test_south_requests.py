#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""South: requests and answers, blocks both ways, retransmissions, and what is refused here already."""

import hashlib
import os
import time
import unittest

import cbor2

from coap import ACK, CON, CONTENT_FORMAT, GET, MAX_AGE, NON, POST, RST, SIZE1, encode, path_options, uint
from gateway import SLOW
from south_bed import Device, South

FETCH, PATCH, IPATCH = 5, 6, 7
ETAG, BLOCK2, BLOCK1, SIZE2, NO_RESPONSE, REQUEST_TAG = 4, 23, 27, 28, 258, 292
PROBLEM = 257


def block(number, more, size):
    return uint(number << 4 | more << 3 | size.bit_length() - 5)


def digest(body):
    return ("%d %s" % (len(body), hashlib.sha256(body).hexdigest())).encode()


class Requests(unittest.TestCase):
    settings = ()

    def setUp(self):
        self.south = South(*self.settings)
        self.addCleanup(self.south.__exit__)
        self.device = Device(self.south).connect()
        self.addCleanup(self.device.close)

    def assert_problem(self, answer, status, *words):
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.option(CONTENT_FORMAT), PROBLEM)
        problem = cbor2.loads(answer.payload)
        for word in words:
            self.assertIn(word, problem[-1] + " " + problem[-2])
        return problem

    def requests(self):
        return len(self.south.seen("request"))


class Plain(Requests):
    def test_everything_that_a_request_says_reaches_core(self):
        options = [(11, b"a"), (11, b"b/c"), (15, b"x=1"), (15, b"y&z"), (12, uint(60)), (17, uint(257)), (6, b"")]
        self.device.send(CON, FETCH, "", options, b"body", token=b"\1\2\3\4\5\6\7\x08", mid=77)
        event = self.south.wait_for("request")
        self.assertEqual(event["path"], "a/b%2Fc")
        self.assertEqual(event["query"], "x=1&y%26z")
        self.assertEqual((event["content_format"], event["accept"], event["observe"]), (60, 257, 0))
        self.assertEqual((event["method"], event["message_id"], event["token"]), (FETCH, 77, "0102030405060708"))
        self.assertEqual((event["size"], event["sha256"]), (4, hashlib.sha256(b"body").hexdigest()))

    def test_every_method_and_every_path_is_core_s_to_decide(self):
        for method in (GET, POST, 3, 4, FETCH, PATCH, IPATCH):
            self.assertEqual(self.device.request(method, "no/such/path").status, "4.04")
        self.assertEqual(self.device.get(".well-known/core").payload, b"</me>;obs")
        self.assertEqual(self.device.get("").status, "4.04")
        self.assertEqual(self.requests(), 9)

    def test_a_quick_answer_comes_on_the_acknowledgement(self):
        answer = self.device.get("time", mid=4711)
        self.assertEqual((answer.kind, answer.mid), (ACK, 4711))

    def test_a_late_answer_comes_by_itself_after_an_acknowledgement_and_until_acknowledged(self):
        mid, token = self.device.send(CON, GET, "slow/900")
        first = self.device.receive()
        self.assertEqual((first.kind, first.code, first.mid, first.token), (ACK, 0, mid, b""))
        answer = self.device.receive()
        self.assertEqual((answer.kind, answer.status, answer.token), (CON, "2.05", token))
        again = self.device.receive(8)  # we did not acknowledge
        self.assertEqual((again.kind, again.mid, again.token), (CON, answer.mid, token))
        self.device.write(encode(ACK, 0, again.mid))
        self.assertEqual(self.south.statistics(replies_late=1)["requests"], 1)

    def test_a_request_sent_again_while_it_waits_is_told_to_core_once(self):
        mid, token = self.device.send(CON, POST, "slow/900", payload=b"x")
        for _ in range(5):
            self.device.send(CON, POST, "slow/900", payload=b"x", mid=mid, token=token)
        acknowledged = self.device.receive()
        self.assertEqual((acknowledged.kind, acknowledged.code), (ACK, 0))
        self.device.send(CON, POST, "slow/900", payload=b"x", mid=mid, token=token)
        again = self.device.receive()
        self.assertEqual((again.kind, again.code, again.mid), (ACK, 0, mid))
        self.assertEqual(self.device.response(token).status, "2.05")
        self.assertEqual(self.requests(), 1)

    def test_a_request_sent_again_after_its_answer_reaches_core_with_the_same_numbers(self):
        self.device.request(POST, "echo", payload=b"x", mid=9, token=b"t")
        self.device.request(POST, "echo", payload=b"x", mid=9, token=b"t")
        a, b = self.south.seen("request")
        self.assertEqual((a["session"], a["message_id"], a["token"]), (b["session"], b["message_id"], b["token"]))

    def test_a_non_confirmable_request_gets_a_non_confirmable_answer_quick_or_late(self):
        for path in ("time", "slow/800"):
            self.device.send(NON, GET, path)
            answer = self.device.receive()
            self.assertEqual((answer.kind, answer.status), (NON, "2.05"))

    def test_no_response_silences_what_the_client_does_not_want(self):
        mid, _ = self.device.send(CON, GET, "time", [(NO_RESPONSE, uint(2))])
        answer = self.device.receive()
        self.assertEqual((answer.kind, answer.code, answer.mid), (ACK, 0, mid))
        self.device.send(NON, GET, "time", [(NO_RESPONSE, uint(2))])
        self.assertIsNone(self.device.receive(0.3 / SLOW))
        self.assertEqual(self.device.get("nothing", [(NO_RESPONSE, uint(2))]).status, "4.04")

    def test_an_answer_that_core_never_gives_becomes_5_03(self):
        _, token = self.device.send(CON, GET, "never")
        acknowledged = self.device.receive()
        self.assertEqual(acknowledged.code, 0)
        answer = self.device.response(token, 30)
        self.assert_problem(answer, "5.03", "no answer")
        self.assertEqual(answer.option(MAX_AGE), 5)

    def test_a_ping_gets_a_reset(self):
        answer = None
        while not answer:  # libcoap answers none in the first quarter of a second of its life
            self.device.write(encode(CON, 0, 5))
            answer = self.device.receive(0.3)
        self.assertEqual((answer.kind, answer.code, answer.mid), (RST, 0, 5))

    def test_what_coap_itself_refuses_is_problem_details_too(self):
        for options, status in (([(9, b"oscore")], "4.02"), ([(1, b"etag")], "4.02"), ([(5, b"")], "4.02"),
                                ([(35, b"coap://elsewhere/")], "5.05"), ([(65001, b"")], "4.02")):
            self.assert_problem(self.device.get("time", options), status)
        self.assert_problem(self.device.request(8, "time"), "4.05")
        self.assertEqual(self.device.get("time", [(65000, b"elective")]).status, "2.05")
        self.assertEqual(self.requests(), 1)

    def test_malformed_messages_change_nothing(self):
        good = encode(CON, GET, 1, b"t", path_options("time"))
        for shape in (b"", b"\x40", b"\x40\1\0", b"\0" + good[1:], b"\xc0" + good[1:], good[:5] + b"\xff",
                      b"\x49" + good[1:] + b"x" * 9, good + b"\xff", good + b"\xf0", good[:5] + b"\xdf",
                      encode(CON, 0xe1, 2), encode(CON, 0xe5, 3), encode(ACK, 69, 4, b"t"), os.urandom(1400)):
            if shape:
                self.device.write(shape)
        self.assertEqual(self.device.get("time").status, "2.05")
        self.assertEqual(self.requests(), 1)
        self.assertEqual(self.south.seen("closed"), [])

    def test_a_full_link_to_core_is_answered_5_03(self):
        self.south.command("deaf 1")
        devices = [Device(self.south).connect() for _ in range(40)]
        payload = bytes(1000)
        refused = None
        deadline = time.monotonic() + 60 * SLOW
        at = 0
        while not refused:
            self.assertLess(time.monotonic(), deadline)
            device = devices[at % len(devices)]
            at += 1
            # Each body fills the link with 16 KiB; the last block waits for an answer that cannot come.
            tag = uint(at + 1)
            for n in range(16):
                device.send(NON, POST, "echo", [(BLOCK1, block(n, n < 15, 1024)), (REQUEST_TAG, tag)], payload + b"x" * 24)
            while refused is None and device.take(0):
                pass
            message = device.receive(0.01)
            while message:
                if message.status in ("5.03", "4.29"):
                    refused = message
                message = device.receive(0)
            if refused is not None and refused.status == "4.29":
                refused = None
                devices.remove(device)
                device.close(with_notify=False)
                devices.append(Device(self.south).connect())
        self.assert_problem(refused, "5.03", "busy")
        self.assertGreater(refused.option(MAX_AGE), 0)
        for device in devices:
            device.close(with_notify=False)

    def test_one_device_cannot_have_more_than_8_requests_wait(self):
        self.south.command("hold")
        for _ in range(8):
            self.device.send(NON, GET, "time")
        answer = self.device.get("time")
        self.assert_problem(answer, "4.29", "8")
        self.assertGreater(answer.option(MAX_AGE), 0)
        self.south.command("release")
        for _ in range(8):
            self.assertEqual(self.device.receive().status, "2.05")
        self.assertEqual(self.device.get("time").status, "2.05")


class Block1(Requests):
    settings = ("max_body_bytes=16384", "max_bodies=4")

    def put(self, body, size, first=0, device=None, **more):
        """Sends a body in blocks; returns the last answer."""
        device = device or self.device
        count = (len(body) + size - 1) // size
        answer = None
        for n in range(first, count):
            answer = device.request(POST, "digest", [(BLOCK1, block(n, n + 1 < count, size))] + more.get("options", []),
                                    body[n * size:(n + 1) * size])
            if answer.status != "2.31":
                break
            self.assertEqual(answer.option(BLOCK1), n << 4 | 8 | size.bit_length() - 5)
        return answer

    def test_bodies_of_blocks_of_each_size_arrive_whole(self):
        for size in (16, 32, 64, 128, 256, 512, 1024):
            body = os.urandom(5 * size + 7)
            answer = self.put(body, size)
            self.assertEqual((answer.status, answer.payload), ("2.04", digest(body)))
            self.assertEqual(answer.option(BLOCK1), 5 << 4 | size.bit_length() - 5)
        self.assertEqual(self.requests(), 7)

    def test_a_body_may_be_as_long_as_the_limit_and_not_a_byte_longer(self):
        body = os.urandom(16384)
        self.assertEqual(self.put(body, 1024).payload, digest(body))
        answer = self.put(body + b"x", 1024)
        self.assert_problem(answer, "4.13", "16384")
        self.assertEqual(answer.option(SIZE1), 16384)
        self.assertEqual(self.requests(), 1)

    def test_a_claim_of_4_gib_costs_nothing(self):
        before = self.south.resident_kib()
        for _ in range(100):
            answer = self.device.request(POST, "digest", [(BLOCK1, block(0, 1, 1024)), (SIZE1, b"\xff" * 4)], bytes(1024))
            self.assert_problem(answer, "4.13")
            self.assertEqual(answer.option(SIZE1), 16384)
        answer = self.device.request(POST, "digest", [(BLOCK1, b"\xff\xff\xfe")], bytes(1024))  # at 1 GiB
        self.assertEqual(answer.status, "4.13")
        self.assertLess(self.south.resident_kib() - before, 256 * SLOW)
        self.assertEqual(self.requests(), 0)

    def test_a_later_block_without_the_ones_before_is_4_08(self):
        for more in (0, 1):
            self.assert_problem(self.device.request(POST, "digest", [(BLOCK1, block(3, more, 64))], bytes(64)), "4.08")
        self.assertEqual(self.requests(), 0)

    def test_a_gap_is_4_08_and_the_body_can_be_begun_anew(self):
        body = os.urandom(256)
        self.assertEqual(self.device.request(POST, "digest", [(BLOCK1, block(0, 1, 64))], body[:64]).status, "2.31")
        self.assert_problem(self.device.request(POST, "digest", [(BLOCK1, block(2, 1, 64))], body[128:192]), "4.08")
        self.assertEqual(self.put(body, 64).payload, digest(body))

    def test_blocks_sent_again_do_not_spoil_the_body(self):
        body = os.urandom(200)
        for n in (0, 0, 1, 0, 1, 2, 2, 1):
            answer = self.device.request(POST, "digest", [(BLOCK1, block(n, 1, 64))], body[n * 64:(n + 1) * 64])
            self.assertEqual(answer.status, "2.31")
        last = [(BLOCK1, block(3, 0, 64))]
        for _ in range(3):  # its answer was lost
            answer = self.device.request(POST, "digest", last, body[192:], mid=99, token=b"last")
            self.assertEqual((answer.status, answer.payload), ("2.04", digest(body)))
        told = self.south.seen("request")
        self.assertEqual({(e["message_id"], e["token"], e["sha256"]) for e in told},
                         {(99, b"last".hex(), hashlib.sha256(body).hexdigest())})

    def test_the_block_size_may_shrink_on_the_way(self):
        body = os.urandom(300)
        self.device.request(POST, "digest", [(BLOCK1, block(0, 1, 128))], body[:128])
        self.assertEqual(self.device.request(POST, "digest", [(BLOCK1, block(2, 1, 64))], body[128:192]).status, "2.31")
        self.assertEqual(self.device.request(POST, "digest", [(BLOCK1, block(3, 1, 64))], body[192:256]).status, "2.31")
        answer = self.device.request(POST, "digest", [(BLOCK1, block(4, 0, 64))], body[256:])
        self.assertEqual(answer.payload, digest(body))

    def test_a_payload_that_does_not_fit_its_block_is_4_00(self):
        for option, size in ((block(0, 1, 64), 63), (block(0, 1, 64), 65), (block(0, 0, 64), 65), (b"\x0f", 16)):
            self.assert_problem(self.device.request(POST, "digest", [(BLOCK1, option)], bytes(size)), "4.00", "Block1")

    def test_a_content_format_that_changes_between_blocks_is_4_08(self):
        self.device.request(POST, "digest", [(12, uint(60)), (BLOCK1, block(0, 1, 64))], bytes(64))
        answer = self.device.request(POST, "digest", [(12, uint(42)), (BLOCK1, block(1, 0, 64))], bytes(4))
        self.assert_problem(answer, "4.08")

    def test_bodies_with_different_request_tags_do_not_mix(self):
        a, b = os.urandom(100), os.urandom(100)
        for n in (0, 1):
            for body, tag in ((a, b"a"), (b, b"b")):
                answer = self.device.request(POST, "digest", [(BLOCK1, block(n, 1 - n, 64)), (REQUEST_TAG, tag)],
                                             body[n * 64:(n + 1) * 64])
                if n:
                    self.assertEqual(answer.payload, digest(body))

    def test_bodies_on_their_way_are_bounded_in_all(self):
        devices = [Device(self.south).connect() for _ in range(5)]
        answers = [d.request(POST, "digest", [(BLOCK1, block(0, 1, 64))], bytes(64)) for d in devices]
        self.assertEqual([a.status for a in answers], ["2.31"] * 4 + ["5.03"])
        self.assert_problem(answers[4], "5.03", "4")
        self.assertEqual(self.south.statistics(bodies=4)["bodies"], 4)
        for device in devices:
            session = self.south.session_of(device)
            device.close()
            self.south.wait_for("closed", session=session)
        self.assertEqual(self.put(bytes(128), 64).status, "2.04")

    def test_a_finished_body_gives_its_place_to_a_new_one(self):
        devices = [Device(self.south).connect() for _ in range(6)]
        for device in devices:
            self.assertEqual(self.put(bytes(128), 64, device=device).status, "2.04")
        for device in devices:
            device.close()


class Block2(Requests):
    def fetch(self, path, size, method=GET, options=(), want=None):
        """Fetches an answer in blocks; returns the body and the answers."""
        body, answers, n = b"", [], 0
        while True:
            wanted = [(BLOCK2, block(n, 0, size))] if n or want else []
            answer = self.device.request(method, path, wanted + list(options))
            self.assertEqual(answer.status, "2.05" if method == GET else answer.status)
            answers.append(answer)
            body += answer.payload
            option = answer.option(BLOCK2)
            if option is None or not option & 8:
                return body, answers
            self.assertEqual(option >> 4, n)
            size = 16 << (option & 7)
            n += 1

    def test_answers_in_blocks_of_each_size_are_whole(self):
        for size in (16, 32, 64, 128, 256, 512, 1024):
            length = 3 * size + 5
            body, answers = self.fetch("size/%d" % length, size, want=True)
            self.assertEqual(len(body), length)
            self.assertEqual([body[i:i + 8] for i in range(0, length - 7, 16)],
                             [b"%07d:" % (i // 16) for i in range(0, length - 7, 16)])
            self.assertEqual(len(answers), 4)
            self.assertEqual(len({v for a in answers for o, v in a.options if o == ETAG}), 1)
            self.assertEqual(answers[0].option(SIZE2), length)
        self.assertEqual(self.requests(), 7)

    def test_where_the_client_names_no_size_the_reply_s_or_512_holds(self):
        _, answers = self.fetch("size/1000", 512)
        self.assertEqual(len(answers[0].payload), 512)
        self.south.command("block 128")
        _, answers = self.fetch("size/1001", 128)
        self.assertEqual(len(answers[0].payload), 128)
        # A client that asks for more gets no more than it asks for.
        self.assertEqual(len(self.device.get("size/1002", [(BLOCK2, block(0, 0, 64))]).payload), 64)

    def test_a_short_answer_is_not_cut(self):
        answer = self.device.get("size/100")
        self.assertEqual((len(answer.payload), answer.option(BLOCK2)), (100, None))
        answer = self.device.get("size/100", [(BLOCK2, block(0, 0, 128))])
        self.assertEqual((len(answer.payload), answer.option(BLOCK2)), (100, 3))

    def test_two_answers_in_blocks_at_once_do_not_mix(self):
        first = self.device.get("size/300", [(BLOCK2, block(0, 0, 128))])
        other = self.device.get("size/301", [(BLOCK2, block(0, 0, 128))])
        a = self.device.get("size/300", [(BLOCK2, block(2, 0, 128))])
        b = self.device.get("size/301", [(BLOCK2, block(2, 0, 128))])
        self.assertEqual((len(a.payload), len(b.payload)), (300 - 256, 301 - 256))
        self.assertEqual(a.option(ETAG), first.option(ETAG))
        self.assertEqual(b.option(ETAG), other.option(ETAG))

    def test_the_rest_of_a_post_s_answer_is_fetched_without_posting_again(self):
        body = os.urandom(1500)
        n, count = 0, 2
        for n in range(count):
            answer = self.device.request(POST, "echo", [(BLOCK1, block(n, n + 1 < count, 1024)), (BLOCK2, block(0, 0, 512))],
                                         body[n * 1024:(n + 1) * 1024])
        self.assertEqual((answer.status, answer.option(BLOCK1), answer.option(BLOCK2)), ("2.04", 1 << 4 | 6, 8 | 5))
        whole = answer.payload
        for n in (1, 2):
            answer = self.device.request(POST, "echo", [(BLOCK2, block(n, 0, 512))])
            self.assertEqual(answer.status, "2.04")
            whole += answer.payload
        self.assertEqual(whole, body)
        self.assertEqual(self.requests(), 1)

    def test_a_later_block_of_a_post_s_answer_that_is_not_kept_is_4_08(self):
        self.assert_problem(self.device.request(POST, "echo", [(BLOCK2, block(1, 0, 512))]), "4.08")
        self.assertEqual(self.requests(), 0)

    def test_a_later_block_of_a_get_that_is_not_kept_is_asked_of_core(self):
        answer = self.device.get("size/1000", [(BLOCK2, block(1, 0, 512))])
        self.assertEqual((answer.status, len(answer.payload)), ("2.05", 488))

    def test_a_block_beyond_the_end_and_a_reserved_size_are_4_00(self):
        self.device.get("size/1000", [(BLOCK2, block(0, 0, 512))])
        self.assert_problem(self.device.get("size/1000", [(BLOCK2, block(9, 0, 512))]), "4.00", "Block2")
        self.assert_problem(self.device.get("size/100", [(BLOCK2, block(9, 0, 512))]), "4.00", "Block2")
        self.assert_problem(self.device.get("size/100", [(BLOCK2, b"\x07")]), "4.00", "Block2")

    def test_the_block_size_may_shrink_on_the_way(self):
        first = self.device.get("size/1000", [(BLOCK2, block(0, 0, 256))])
        later = self.device.get("size/1000", [(BLOCK2, block(4, 0, 64))])
        self.assertEqual((first.payload + later.payload)[256:264], b"%07d:" % 16)
        self.assertEqual(len(later.payload), 64)

    def test_blocks_of_another_session_are_never_served(self):
        self.device.request(POST, "echo", [(BLOCK2, block(0, 0, 16))], b"secret of one device, and of nobody else")
        with Device(self.south).connect() as other:
            answer = other.request(POST, "echo", [(BLOCK2, block(1, 0, 16))])
            self.assertEqual(answer.status, "4.08")


if __name__ == "__main__":
    unittest.main()

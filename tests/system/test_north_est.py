#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""North as the client of an EST server: what goes up, and what its answers mean to core."""
import base64
import hashlib
import pathlib
import subprocess
import sys
import types
import unittest

from cryptography import x509

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import pki
from est_server import CMC_RA, EstServer, PKCS7, certs_only, http_date, lines_of
from north_case import Case
from upstream import Upstream


class EstCase(Case):
    def setUp(self):
        super().setUp()
        self.est = EstServer(self.folder / "est").start()
        self.addCleanup(self.est.stop)

    def client(self, identity=None, collector=None, **options):
        identity = identity or self.est.client
        options = {"ca": self.est.ca_file, "certificate": identity.certificate_file, "key": identity.key_file,
                   "est": self.est.url, "idle": collector is None, **options}
        up = collector or types.SimpleNamespace(pki=self.folder, url="https://localhost:1/none")
        return self.north(up, **options)

    def enrol(self, north, number, verb="enrol", device=None):
        key = pki.new_key()
        der = pki.csr(key, serial=device or "device-%d" % number)
        north.say("%s %d %s" % (verb, number, der.hex()))
        return key, der

    def outcome(self, north, number):
        """(outcome, HTTP status, retry, certificates, reason) of an enrolment."""
        got = north.wait(r"enrolled %d (\w+) (\d+) (\d+) (\S+) ?(.*)" % number)
        return got[1], int(got[2]), int(got[3]), got[4], got[5]


class Enrolling(EstCase):
    def test_the_server_is_a_fair_one_curl_and_openssl_enrol_with_it(self):
        key = pki.new_key()
        (self.folder / "r.b64").write_bytes(base64.encodebytes(pki.csr(key, serial="by-curl")))
        curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", self.est.ca_file, "--cert",
                self.est.client.certificate_file, "--key", self.est.client.key_file]
        answer = subprocess.run([*curl, "--header", "Content-Type: application/pkcs10", "--data-binary",
                                 "@" + str(self.folder / "r.b64"), self.est.url + "/simpleenroll"],
                                check=True, capture_output=True).stdout
        text = subprocess.run(["openssl", "pkcs7", "-inform", "DER", "-print_certs"], check=True, capture_output=True,
                              input=base64.b64decode(answer)).stdout
        certificate = x509.load_pem_x509_certificate(text[text.index(b"-----BEGIN"):])
        self.assertEqual(certificate.public_key().public_numbers(), key.public_key().public_numbers())
        anchors = subprocess.run([*curl, self.est.url + "/cacerts"], check=True, capture_output=True).stdout
        self.assertEqual(len(pki.certificates(base64.b64decode(anchors))), 2)
        # And not with whoever comes: neither without a certificate nor without being an RA.
        self.assertNotEqual(subprocess.run(["curl", "--silent", "--cacert", self.est.ca_file,
                                            self.est.url + "/cacerts"]).returncode, 0)

    def test_a_csr_goes_up_whole_and_the_certificate_comes_back(self):
        north = self.client().hello()
        key, der = self.enrol(north, 1)
        outcome, status, _, cms, reason = self.outcome(north, 1)
        self.assertEqual((outcome, status, reason), ("issued", 200, ""))
        certificate, = pki.certificates(bytes.fromhex(cms))
        self.assertEqual(certificate.public_key().public_numbers(), key.public_key().public_numbers())
        self.assertEqual(self.est.asked(), [der])

    def test_a_renewal_goes_to_simplereenroll(self):
        north = self.client().hello()
        _, der = self.enrol(north, 5, "renew")
        self.assertEqual(self.outcome(north, 5)[0], "issued")
        self.assertEqual((self.est.asked("simplereenroll"), self.est.asked()), ([der], []))

    def test_a_label_and_a_slash_at_the_end_of_the_url_are_kept_in_order(self):
        self.est.label = "/plant-7"
        north = self.client(est=self.est.url + "/").hello()
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[0], "issued")
        self.assertIn("/.well-known/est/plant-7/simpleenroll", [path for path, _, _ in self.est.requests])

    def test_the_anchors_come_at_the_start(self):
        north = self.client().hello()
        got = pki.certificates(bytes.fromhex(north.wait(r"anchors (\w+)")[1]))
        self.assertEqual([pki.der(c) for c in got],
                         [pki.der(self.est.issuing.certificate), pki.der(self.est.root.certificate)])

    def test_four_go_up_together_and_a_fifth_is_not_taken_before_one_is_answered(self):
        self.est.always = ("slow",)
        north = self.client(fails=True).hello()
        north.wait("anchors")
        for i in range(1, 5):
            self.enrol(north, i)
        self.enrol(north, 4)  # a number that north holds already: ignored
        north.say("ping")
        north.wait("pong")
        self.enrol(north, 5)
        north.wait("exit 105")  # ENOBUFS: core must not send more

    def test_it_carries_records_too_with_the_same_certificate(self):
        """One north, both servers, on different ports."""
        up = self.collector()
        ca = self.folder / "both.pem"
        ca.write_bytes((up.pki / "ca.pem").read_bytes() + pathlib.Path(self.est.ca_file).read_bytes())
        (up.pki / "ca.pem").write_bytes(ca.read_bytes())
        up.stop()
        up.start()
        # Its own CA for clients, so that the collector takes the gateway's certificate of the other PKI.
        self.gateway.fill(5)
        north = self.client(collector=up, ca=ca).hello()
        self.enrol(north, 1)
        self.assertEqual(north.deliver(), [1, 2, 3, 4, 5])
        self.assertEqual(self.outcome(north, 1)[0], "issued")
        north.wait("uplink up")

    def test_base64_in_any_layout_is_taken(self):
        north = self.client().hello()
        for number, layout in enumerate((lambda d: base64.b64encode(d), lambda d: lines_of(d, 76, "\n"),
                                         lambda d: lines_of(d, 1, " \t\r\n"), lambda d: b"\n\n" + lines_of(d, 64)), 1):
            chain = certs_only([self.est.issuing.certificate])
            self.est.script.append(("body", layout(chain)))
            self.enrol(north, number)
            self.assertEqual(self.outcome(north, number)[0::3], ("issued", chain.hex()), number)


class Refusing(EstCase):
    def test_202_and_503_are_later_whenever_they_say(self):
        north = self.client().hello()
        self.est.script += [("later", 120), ("later", http_date(300)), ("later", None), ("later", 7, 503),
                            ("later", "soon"), ("later", 9, 429), ("later", 10 ** 12)]
        wanted = [(202, range(120, 121)), (202, range(290, 301)), (202, range(1)), (503, range(7, 8)),
                  (202, range(1)), (429, range(9, 10)), (202, range(10 ** 12, 10 ** 12 + 1))]
        for number, (status, retry) in enumerate(wanted, 1):
            self.enrol(north, number)
            got = self.outcome(north, number)
            self.assertEqual(got[:2], ("later", status))
            self.assertIn(got[2], retry, number)

    def test_a_date_counts_by_the_servers_clock_whatever_ours_says(self):
        self.est.clock_ahead = 20 * 365 * 86400
        self.est.script.append(("later", http_date(self.est.clock_ahead + 300)))
        north = self.client().hello()
        self.enrol(north, 1)
        self.assertIn(self.outcome(north, 1)[2], range(290, 301))

    def test_4xx_is_a_refusal_of_that_csr_with_the_servers_own_words(self):
        north = self.client().hello()
        for number, status in enumerate((400, 404, 413, 422), 1):
            self.est.script.append(("status", status, "no such thing"))
            self.enrol(north, number)
            self.assertEqual(self.outcome(north, number),
                             ("refused", status, 0, "-", "HTTP %d: no such thing" % status))

    def test_401_is_about_this_gateway(self):
        north = self.client().hello()
        self.est.script.append(("status", 401, "who are you"))
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("failed", 401))

    def test_403_is_about_the_csr_where_the_anchors_are_given_and_about_us_where_they_are_not(self):
        north = self.client().hello()
        north.wait("anchors")
        self.est.script.append(("status", 403, "not this one"))
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1), ("refused", 403, 0, "-", "HTTP 403: not this one"))
        self.est.always = self.est.anchors_always = ("status", 403, "not you")
        self.enrol(north, 2)
        self.assertEqual(self.outcome(north, 2), ("failed", 403, 0, "-", "HTTP 403: not you"))
        north.wait("enrolled 0 refused 403 ")

    def test_a_client_certificate_that_is_no_ras_is_refused_and_said(self):
        north = self.client(identity=self.est.plain_client).hello()
        self.assertNotIn(CMC_RA, self.est.plain_client.certificate.extensions.get_extension_for_class(
            x509.ExtendedKeyUsage).value)
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("refused", 403))

    def test_what_is_no_certificate_is_a_failure(self):
        chain = certs_only([self.est.issuing.certificate])
        empty = lines_of(bytes.fromhex("302306092a864886f70d010702a0163014020101310030" "0b06092a864886f70d010701a1003100"))
        odd = [("body", b"not base64!"), ("body", lines_of(b"no CMS")), ("body", chain), ("body", b""),
               ("body", lines_of(chain + b"\0")), ("body", lines_of(chain)[:-9]), ("body", empty),
               ("body", lines_of(chain), "text/html"), ("body", lines_of(chain), "application/pkcs7-mimes"),
               ("status", 204), ("status", 500, "oops"), ("status", 302), ("body", b"A" * 70000)]
        north = self.client().hello()
        for number, what in enumerate(odd, 1):
            with self.subTest(what=str(what)[:60]):
                self.est.script.append(what)
                self.enrol(north, number)
                got = self.outcome(north, number)
                self.assertEqual(got[0], "failed", got)
                self.assertNotEqual(got[4], "")
        self.enrol(north, 99)
        self.assertEqual(self.outcome(north, 99)[0], "issued")

    def test_anchors_that_cannot_be_read_are_said_and_asked_for_again(self):
        self.est.anchor_script += [("body", b"junk"), ("status", 404, "none")]
        north = self.client().hello()
        north.wait("enrolled 0 refused 200 .*base64")
        north.wait("enrolled 0 refused 404 ")
        north.wait("anchors")


class TheWay(EstCase):
    def test_a_server_that_is_away_is_said_and_watched_until_it_is_back(self):
        self.est.stop()
        north = self.client().hello()
        north.wait("enrolled 0 failed 0 0 - .*onnect")
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("failed", 0))
        self.est.start()
        north.wait("anchors")
        self.enrol(north, 2)
        self.assertEqual(self.outcome(north, 2)[0], "issued")

    def test_one_that_hangs_up_or_says_nothing_is_no_answer(self):
        self.est.script += [("hang up",)] * 2  # on a connection kept open libcurl tries once more, on a new one
        north = self.client(timeout=2).hello()
        north.wait("anchors")
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("failed", 0))
        self.est.script += [("slow",)]
        self.enrol(north, 2)
        self.assertEqual(self.outcome(north, 2)[:2], ("failed", 504))

    def test_a_server_that_is_not_the_owners_gets_nothing(self):
        other = EstServer(self.folder / "other").start()
        self.addCleanup(other.stop)
        north = self.client(est=other.url).hello()
        north.wait("enrolled 0 failed 502 .*certificate")
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("failed", 502))
        self.assertEqual(other.requests, [])

    def test_a_client_certificate_that_is_not_known_there_is_said(self):
        other = EstServer(self.folder / "other")
        north = self.client(identity=other.client).hello()
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[0], "failed")
        north.wait("enrolled 0 failed ")

    def test_files_that_cannot_serve_are_said_and_nothing_goes_up(self):
        north = self.client(key=self.est.server_identity.key_file).hello()
        north.wait("enrolled 0 failed 0 0 - .*is not the key of")
        self.enrol(north, 1)
        self.assertEqual(self.outcome(north, 1)[:2], ("failed", 0))
        self.assertEqual(self.est.requests, [])

    def test_a_url_that_is_not_https_is_said(self):
        north = self.client(est="http://localhost/.well-known/est").hello()
        north.wait("enrolled 0 failed 0 0 - north.est_url: ")

    def test_without_an_est_server_an_enrolment_comes_back(self):
        up = self.collector()
        north = self.north(up).hello()
        north.say("enrol 1 3000")
        self.assertEqual(self.outcome(north, 1)[::4], ("failed", "no EST server is configured"))

    def test_try_now_asks_at_once(self):
        self.est.stop()
        north = self.client(retry_min=3600, retry_max=3600).hello()
        north.wait("enrolled 0 failed 0 ")
        self.est.start()
        north.say("try")
        north.wait("anchors")

    def test_stopping_gives_up_what_is_under_way(self):
        self.est.always = ("slow",)
        north = self.client().hello()
        north.wait("anchors")
        self.enrol(north, 1)
        north.say("stop")
        north.wait("stopped")
        north.say("enrol 2 3000", "try", "ping")
        north.wait("pong")
        self.assertFalse([line for line in north.lines if line.startswith("enrolled ")])

    def test_malformed_frames_end_it(self):
        for lines in (["enrol 1 3000"], ["hello", "enrol 0 3000"], ["hello", "enrol 1 -"], ["hello", "raw 71 00"]):
            with self.subTest(lines=lines):
                north = self.client(fails=True)
                for line in lines:
                    north.hello() if line == "hello" else north.say(line)
                north.wait("exit 74")


if __name__ == "__main__":
    unittest.main()

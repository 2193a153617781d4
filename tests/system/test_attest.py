# SPDX-License-Identifier: Apache-2.0
"""Attestation on the real daemon, by coap-client and evidence that Python makes: challenge, EAT in COSE_Sign1,
what is refused, what a verdict does, and what survives a crash."""

import os
import pathlib
import signal
import tempfile
import unittest

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from coap import ACCEPT, CONTENT_FORMAT, GET, MAX_AGE, POST, Peer, uint
from gateway import Gateway, wait_for

FACTORY = "factory-key-0123"
EAT, CMW, NONCE_RAW = 263, 273, 42
VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"
PSA_PROFILE = "tag:psacertified.org,2023:psa#tfm"

PROFILES = """
        { name = "attesting"; rotate_every = "30d"; grace = "1d"; attestation = "eat"; attest_every = "7d";
          references = ( { swname = "sensor-fw"; swversion = "1.0"; } ); },
        { name = "psa"; rotate_every = "30d"; grace = "1d"; attestation = "psa"; attest_every = "7d";
          references = ( { swname = "PRoT";
                           digest = "sha-256:0303030303030303030303030303030303030303030303030303030303030303"; } ); },
        { name = "hasty"; rotate_every = "30d"; grace = "1d"; attestation = "eat"; attest_every = "7d";
          challenge_lifetime = "30s"; }
"""


def sign1(key, claims):
    header, payload = cbor2.dumps({1: -7}), cbor2.dumps(claims)
    der = key.sign(cbor2.dumps(["Signature1", header, b"", payload]), ec.ECDSA(hashes.SHA256()))
    r, s = utils.decode_dss_signature(der)
    return cbor2.dumps(cbor2.CBORTag(18, [header, {}, payload, r.to_bytes(32, "big") + s.to_bytes(32, "big")]))


def claims(nonce, version="1.0", **more):
    return {10: nonce, 256: b"\x01" + bytes(16), 263: 1, 270: "sensor-fw", 271: [version], **more.get("also", {})}


class Attest(unittest.TestCase):
    testclock = False

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="gatewayd-attest-")
        cls.g = Gateway(profiles=PROFILES, testclock=cls.testclock).start()
        cls.key = ec.generate_private_key(ec.SECP256R1())
        cls.count = 0

    @classmethod
    def tearDownClass(cls):
        try:
            cls.g.stop()
        finally:
            cls.g.close()
            cls.folder.cleanup()

    def device(self, profile="attesting", key=None):
        """Registers a device with an attestation key; it speaks over its factory key."""
        type(self).count += 1
        name = "sensor-%d" % self.count
        path = os.path.join(self.folder.name, name + ".pem")
        with open(path, "wb") as f:
            f.write((key or self.key).public_key().public_bytes(serialization.Encoding.PEM,
                                                                serialization.PublicFormat.SubjectPublicKeyInfo))
        self.g.add_device(name, profile=profile, psk=FACTORY, attestation_key=path)
        return name

    def ask(self, device, method, path, payload=b"", form=None, accept=None):
        """One request on a session of its own: (code, body, Max-Age); no answer: (None, b"", None)."""
        options = [(CONTENT_FORMAT, uint(form))] if form is not None else []
        options += [(ACCEPT, uint(accept))] if accept is not None else []
        with Peer(self.g, device, FACTORY) as peer:
            m = peer.request(method, path, options, payload) if peer.is_connected else None
        return (m.status, m.payload, m.option(MAX_AGE)) if m else (None, b"", None)

    def nonce(self, device):
        code, body, _ = self.ask(device, POST, "rats/nonce", accept=NONCE_RAW)
        self.assertEqual((code, len(body)), ("2.01", 32))
        return body

    def post(self, device, evidence, form=EAT):
        code, body, _ = self.ask(device, POST, "rats/evidence", evidence, form)
        return code, cbor2.loads(body) if code else None

    def refused(self, code, device, evidence, form=EAT):
        got, problem = self.post(device, evidence, form)
        self.assertEqual(got, code)
        self.assertTrue(problem[-1] and problem[-2])
        major, minor = code.split(".")
        self.assertEqual(problem[-4], int(major) * 32 + int(minor))
        return problem

    def standing(self, device):
        shown = self.g.ctl("device", "show", device, "--json")[1]["device"]
        return shown["state"], shown["tier"], shown["evidence_last"]


class Evidence(Attest):
    def test_a_challenge_says_how_long_it_lives_and_what_is_taken(self):
        device = self.device()
        code, body, _ = self.ask(device, POST, "rats/nonce")
        answer = cbor2.loads(body)
        self.assertEqual(code, "2.01")
        self.assertEqual((answer[1], answer[2][0], len(answer[10])), (300, EAT, 32))

    def test_evidence_that_matches_is_affirming_and_its_result_can_be_read(self):
        device = self.device()
        code, _, max_age = self.ask(device, GET, "rats/result")
        self.assertEqual((code, max_age), ("5.03", 60))
        code, answer = self.post(device, sign1(self.key, claims(self.nonce(device))))
        self.assertEqual((code, answer[1]), ("2.01", 2))
        event = self.g.wait_event("evidence-accepted", device=device)
        self.assertIn("receipt %d, affirming" % answer[0], event["reason"])
        code, body, _ = self.ask(device, GET, "rats/result")
        self.assertEqual((code, cbor2.loads(body)[1]), ("2.05", 2))
        self.assertEqual(self.standing(device)[1], "affirming")

    def test_stock_clients_of_both_tls_libraries_attest(self):
        for client in ("openssl", "gnutls"):
            device = self.device()
            code, nonce = self.g.coap("post", "rats/nonce", device, FACTORY, accept=NONCE_RAW, client=client)
            self.assertEqual((code, len(nonce)), ("2.01", 32))
            code, answer = self.g.coap("post", "rats/evidence", device, FACTORY, payload=sign1(self.key, claims(nonce)),
                                       form=EAT, client=client)
            self.assertEqual((code, cbor2.loads(answer)[1]), ("2.01", 2))

    def test_a_nonce_is_good_for_one_piece_of_evidence_and_a_replay_gets_the_first_answer(self):
        device = self.device()
        nonce = self.nonce(device)
        evidence = sign1(self.key, claims(nonce))
        first = self.post(device, evidence)
        self.assertEqual(first[0], "2.01")
        self.assertEqual(self.post(device, evidence), first)
        self.refused("4.09", device, sign1(self.key, claims(nonce)))
        self.refused("4.22", device, sign1(self.key, claims(bytes(32))))

    def test_what_was_answered_is_answered_the_same_after_core_was_killed(self):
        device = self.device()
        evidence = sign1(self.key, claims(self.nonce(device)))
        open_nonce = self.nonce(device)
        first = self.post(device, evidence)
        mark, pid = self.g.mark(), self.g.role_pid("core")
        os.kill(pid, signal.SIGKILL)
        self.g.wait_event("role-started", since=mark, reason="core")
        self.assertEqual(wait_for(lambda: self.answer_of_new_core(device, evidence), "an answer of the new core"), first)
        # The challenge that was open is open still, and the receipts go on where they were.
        code, answer = self.post(device, sign1(self.key, claims(open_nonce)))
        self.assertEqual((code, answer[0]), ("2.01", first[1][0] + 1))

    def answer_of_new_core(self, device, evidence):
        code, answer = self.post(device, evidence)
        return (code, answer) if code else None

    def test_another_devices_challenge_and_another_key_are_forbidden(self):
        one, other = self.device(), self.device()
        nonce = self.nonce(one)
        self.refused("4.03", other, sign1(self.key, claims(nonce)))
        mark = self.g.mark()
        self.refused("4.03", one, sign1(ec.generate_private_key(ec.SECP256R1()), claims(nonce)))
        self.g.wait_event("evidence-refused", since=mark, device=one)
        self.assertEqual(self.post(one, sign1(self.key, claims(nonce)))[0], "2.01")

    def test_contraindicated_evidence_closes_cred_until_affirming_evidence_comes(self):
        device = self.device()
        self.assertEqual(self.post(device, sign1(self.key, claims(self.nonce(device), "6.6")))[1][1], 96)
        self.assertEqual(self.standing(device)[:2], ("quarantined", "contraindicated"))
        self.assertEqual(self.ask(device, POST, "cred")[0], "4.03")
        self.assertEqual(self.post(device, sign1(self.key, claims(self.nonce(device))))[1][1], 2)
        self.assertEqual(self.ask(device, POST, "cred")[0], "2.04")

    def test_a_psa_token_under_the_published_key_is_affirming(self):
        key = serialization.load_pem_private_key((VECTORS / "psa-tfm-es-iak.pem").read_bytes(), None)
        device = self.device("psa", key)
        token = cbor2.loads(cbor2.loads((VECTORS / "psa-sign1.cbor").read_bytes()).value[2])
        self.assertEqual(token[265], PSA_PROFILE)
        token[10] = self.nonce(device)
        code, answer = self.post(device, sign1(key, token), form=10003)
        self.assertEqual((code, answer[1]), ("2.01", 2))
        # The token as published answers a challenge that was never given here.
        self.refused("4.22", device, (VECTORS / "psa-sign1.cbor").read_bytes(), 10003)

    def test_evidence_of_many_blocks_is_taken_whole(self):
        device = self.device()
        evidence = sign1(self.key, claims(self.nonce(device), also={-70000: bytes(6000)}))
        code, answer = self.g.coap("post", "rats/evidence", device, FACTORY, payload=evidence, form=EAT, more=("-b", "64"))
        self.assertEqual((code, cbor2.loads(answer)[1]), ("2.01", 2))

    def test_malformed_evidence_gets_problem_details_and_changes_nothing(self):
        device = self.device()
        nonce = self.nonce(device)
        before = self.standing(device)
        for evidence in (b"\xff", b"hello", cbor2.dumps({}), b"\xd2\x84" + b"\x40" * 4, b"\x9b" + b"\xff" * 8,
                         sign1(self.key, claims(nonce))[:-1], sign1(self.key, claims(nonce)) + b"\0",
                         sign1(self.key, claims("text")), sign1(self.key, [nonce])):
            self.refused("4.00", device, evidence)
        self.refused("4.00", device, b"", CMW)
        self.assertEqual(self.standing(device), before)
        self.assertEqual(self.post(device, sign1(self.key, claims(nonce)))[0], "2.01")

    def test_other_evidence_of_a_known_device_is_kept_but_not_appraised(self):
        device = self.device()
        code, answer = self.post(device, cbor2.dumps(["application/x", b"quote", 4]), CMW)
        self.assertEqual((code, answer[1]), ("2.01", 0))
        self.assertIn("not appraised here", answer[2])
        self.assertEqual(self.ask(device, GET, "rats/result")[0], "5.03")
        self.assertEqual(self.refused("4.29", device, cbor2.dumps(["application/x", b"another", 4]), CMW)[-1], "too often")


class Expiry(Attest):
    testclock = True

    def test_a_challenge_expires(self):
        device = self.device("hasty")
        nonce = self.nonce(device)
        self.g.set_clock(both=31)
        self.refused("4.22", device, sign1(self.key, claims(nonce)))
        code, answer = self.post(device, sign1(self.key, claims(self.nonce(device))))
        self.assertEqual((code, answer[1]), ("2.01", 32))
        self.assertIn("no reference values", answer[2])


if __name__ == "__main__":
    unittest.main(warnings="ignore")

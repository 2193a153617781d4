#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway as registrar (RFC 9148 §5): coap-client with a factory certificate below, the owner's EST server above, the
real daemon between them; uplinks that are cut, owners that refuse, and the gateway's own CA renewed there."""

import datetime
import os
import sys
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import serialization

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pki
from est_server import EstServer, certs_only, fingerprint, lines_of
from gateway import Gateway, wait_for

SEN, SREN, CRTS = ".well-known/est/sen", ".well-known/est/sren", ".well-known/est/crts"
END = "-----END CERTIFICATE-----\n"
PROFILES = """
        { name = "waits"; credential = "certificate"; idevid_anchors = "maker.pem"; ca = "upstream";
          upstream_offline = "wait"; },
        { name = "local"; credential = "certificate"; idevid_anchors = "maker.pem"; ca = "upstream";
          upstream_offline = "local"; }
"""


class Registrar(unittest.TestCase):
    north = ""

    def setUp(self):
        self.g = Gateway(profiles=PROFILES)
        self.addCleanup(self.g.close)
        self.est = EstServer(os.path.join(self.g.folder, "est")).start()
        self.addCleanup(self.est.stop)
        self.maker = pki.Authority("Maker Root")
        self.maker.write(os.path.join(self.g.folder, "maker.pem"))
        self.g.write_config(PROFILES, north='verifier = "none"; retry_max = "1s"; %s %s' % (self.est.config, self.north))

    def start(self):
        self.g.start()
        self.addCleanup(self.stop)
        self.g.ctl("ca", "init")
        self.g.wait_event("server-certificate")
        self.trust()
        return self.g

    def stop(self):
        if self.g.process:
            self.g.stop()

    def trust(self):
        self.anchors = os.path.join(self.g.folder, "site.pem")
        with open(self.anchors, "w") as f:
            f.write(self.g.ctl("ca", "show", "--pem")[1])

    def device(self, name, profile="waits"):
        self.g.ctl("device", "add", name, "--profile", profile, "--idevid", "any")
        return self.maker.idevid(self.g.folder, name)

    def ask(self, identity, csr, path=SEN):
        """The code, and the certificate, or all that coap-client has to say of the refusal."""
        code, body, text = self.g.coap_certificate("post", path, identity, self.anchors, payload=csr, form=286, accept=287,
                                                   raw=True)
        return code, body if code == "2.04" else text

    def ask_until(self, identity, csr, code, path=SEN):
        """The identical request, as RFC 9148 §4.7 has it, until that answer."""
        def look():
            got = self.ask(identity, csr, path)
            self.assertIn(got[0], ("5.03", code), got)
            return got if got[0] == code else None
        return wait_for(look, "%s to %s" % (code, path), 40)[1]

    def operational(self, name, key, certificate):
        return pki.Identity(self.g.folder, name, key, x509.load_der_x509_certificate(certificate))

    def enrol(self, name, profile="waits"):
        factory, key = self.device(name, profile), pki.new_key()
        certificate = self.ask_until(factory, pki.csr(key, serial=name), "2.04")
        return self.operational(name, key, certificate)

    def from_owner(self, certificate):
        self.est.issuing.key.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes,
                                                 pki.ec.ECDSA(certificate.signature_hash_algorithm))


class Enrolment(Registrar):
    def test_the_owners_certificate_reaches_the_device_works_and_is_renewed_there(self):
        self.start()
        name, factory, key = "meter-1", self.device("meter-1"), pki.new_key()
        csr = pki.csr(key, serial=name)
        self.assertEqual(self.ask(factory, csr)[0], "5.03")
        certificate = self.ask_until(factory, csr, "2.04")
        self.assertEqual(self.est.asked(), [csr])
        operational = self.operational(name, key, certificate)
        self.from_owner(operational.certificate)
        # Asked again it is the same, and nobody asked the owner again.
        self.assertEqual(self.ask(factory, csr), ("2.04", certificate))
        self.assertEqual(self.est.asked(), [csr])
        self.assertEqual(self.g.coap_certificate("get", "me", operational, self.anchors)[0], "2.05")
        self.g.wait_event("credential-activated", device=name)
        # Renewal with a new key.
        key = pki.new_key()
        csr = pki.csr(key, serial=name)
        renewed = self.ask_until(operational, csr, "2.04", SREN)
        self.assertEqual(self.est.asked("simplereenroll"), [csr])
        operational = self.operational(name, key, renewed)
        self.from_owner(operational.certificate)
        self.assertEqual(self.g.coap_certificate("get", "me", operational, self.anchors)[0], "2.05")
        # The owner's anchors are among those that devices fetch.
        code, body = self.g.coap_certificate("get", CRTS, operational, self.anchors)
        self.assertEqual(code, "2.05")
        self.assertIn(pki.der(self.est.root.certificate), [pki.der(c) for c in pki.certificates(body)])

    def test_max_age_says_when_to_come_again(self):
        self.est.always = ("later", 500)
        self.start()
        identity, csr = self.device("patient"), pki.csr(pki.new_key(), serial="patient")
        self.ask(identity, csr)
        wait_for(self.est.asked, "the CSR at the owner's")

        def age():
            text = self.g.coap_certificate("post", SEN, identity, self.anchors, payload=csr, form=286, raw=True)[2]
            found = [int(w.split(":")[1].rstrip(",] ")) for w in text.split(" ") if w.startswith("Max-Age:")]
            return found[-1] if found and found[-1] > 300 else None
        self.assertIn(wait_for(age, "a Max-Age after the owner's Retry-After"), range(490, 640))
        self.assertEqual(len(self.est.asked()), 1)

    def test_a_202_is_asked_again_after_its_time_with_the_same_csr(self):
        self.est.script += [("later", 1), ("later", 1, 503)]
        self.start()
        identity, csr = self.device("slow"), pki.csr(pki.new_key(), serial="slow")
        self.ask_until(identity, csr, "2.04")
        self.assertEqual(self.est.asked(), [csr] * 3)

    def test_refusals_come_down_as_rfc_8075_maps_them_and_are_remembered(self):
        self.start()
        for status, code in ((400, "4.00"), (403, "4.03"), (404, "4.04"), (413, "4.13")):
            with self.subTest(status=status):
                name = "no-%d" % status
                self.est.script.append(("status", status, "the owner's own reason"))
                identity, csr = self.device(name), pki.csr(pki.new_key(), serial=name)
                self.assertIn("owner's own reason", self.ask_until(identity, csr, code))
                self.g.wait_event("enrolment-refused", device=name, reason="HTTP %d" % status)
                asked = len(self.est.asked())
                self.assertEqual(self.ask(identity, csr)[0], code)
                self.assertEqual(len(self.est.asked()), asked)

    def test_trouble_with_the_owners_server_is_5_02_and_an_event(self):
        self.start()
        for label, what in (("who", ("status", 401, "who are you")), ("junk", ("body", b"junk")),
                            ("key", ("another key",)), ("name", ("another name",)), ("old", ("run out",))):
            with self.subTest(what=what):
                self.est.script.append(what)
                name = "odd-" + label
                identity, csr = self.device(name), pki.csr(pki.new_key(), serial=name)
                self.ask_until(identity, csr, "5.02")
        self.g.wait_event("enrolment-waiting", reason="HTTP 401")

    def test_another_devices_name_goes_nowhere(self):
        self.start()
        code, _ = self.ask(self.device("thief"), pki.csr(pki.new_key(), serial="meter-9"))
        self.assertEqual(code, "4.03")
        self.assertEqual(self.est.asked(), [])

    def test_many_devices_at_once_all_get_theirs(self):
        self.start()
        wanted = {}
        for i in range(12):
            name = "crowd-%d" % i
            wanted[name] = (self.device(name), pki.csr(pki.new_key(), serial=name))
            self.ask(*wanted[name])
        for name, (identity, csr) in wanted.items():
            certificate = x509.load_der_x509_certificate(self.ask_until(identity, csr, "2.04"))
            self.assertEqual(certificate.subject, pki.name(serial=name))
        self.assertEqual(len(self.est.asked()), 12)


class Uplink(Registrar):
    def test_what_waits_survives_a_cut_uplink_and_restarts_of_everything(self):
        self.est.stop()
        self.start()
        self.g.wait_event("uplink-down", reason="the EST server")
        identity, csr = self.device("lonely"), pki.csr(pki.new_key(), serial="lonely")
        self.assertEqual(self.ask(identity, csr)[0], "5.03")
        self.assertEqual(self.g.ctl("status", "--json")[1]["north"]["enrolments_waiting"], 1)
        self.assertRegex(self.g.ctl("status")[1], "registrar  EST server .*, 1 enrolment waiting")
        self.g.stop()
        self.g.start()
        self.g.wait_event("uplink-down", reason="the EST server")
        self.assertEqual(self.ask(identity, csr)[0], "5.03")
        os.kill(self.g.role_pid("north"), 9)
        self.est.start()
        self.g.wait_event("uplink-up", reason="the EST server")
        self.ask_until(identity, csr, "2.04")
        self.assertEqual(self.est.asked(), [csr])
        self.assertEqual(self.g.ctl("status", "--json")[1]["north"]["enrolments_waiting"], 0)

    def test_a_north_killed_in_the_middle_of_it_leaves_it_to_the_next(self):
        self.est.script = [("slow",)]
        self.start()
        identity, csr = self.device("twice"), pki.csr(pki.new_key(), serial="twice")
        self.ask(identity, csr)
        wait_for(self.est.asked, "the CSR at the owner's")
        os.kill(self.g.role_pid("north"), 9)
        self.ask_until(identity, csr, "2.04")
        self.assertEqual(self.est.asked(), [csr, csr])

    def test_a_profile_that_may_is_served_by_this_gateway_while_the_uplink_is_cut(self):
        self.est.stop()
        self.start()
        self.g.wait_event("uplink-down", reason="the EST server")
        identity, key = self.device("here", "local"), pki.new_key()
        csr = pki.csr(key, serial="here")
        code, certificate = self.ask(identity, csr)
        self.assertEqual(code, "2.04")
        with open(self.anchors, "rb") as f:
            site = x509.load_pem_x509_certificate(f.read())
        local = self.operational("here", key, certificate)
        self.assertEqual(local.certificate.issuer, site.subject)
        # Back on line the next one is the owner's.
        self.est.start()
        self.g.wait_event("uplink-up", reason="the EST server")
        self.assertEqual(self.ask(identity, csr), ("2.04", certificate))
        self.assertEqual(self.g.coap_certificate("get", "me", local, self.anchors)[0], "2.05")
        key = pki.new_key()
        renewed = self.ask_until(local, pki.csr(key, serial="here"), "2.04", SREN)
        self.from_owner(x509.load_der_x509_certificate(renewed))


class OwnAuthority(Registrar):
    north = "est_renews_ca = true;"

    def test_the_gateways_own_ca_is_certified_by_the_owners(self):
        self.g.start()
        self.addCleanup(self.stop)
        self.g.ctl("ca", "csr")
        self.g.wait_event("ca-ready", seconds=60)
        self.trust()
        asked = wait_for(lambda: self.est.asked() + self.est.asked("simplereenroll"), "the CA's CSR at the owner's")
        with open(self.anchors) as f:
            chain = [x509.load_pem_x509_certificate((part + END).encode()) for part in f.read().split(END)[:-1]]
        request = x509.load_der_x509_csr(asked[0])
        spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.assertEqual(chain[0].public_key().public_bytes(*spki), request.public_key().public_bytes(*spki))
        self.from_owner(chain[0])
        self.assertTrue(chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca)


class ClientCertificate(Registrar):
    """The certificate that the gateway shows upstream, renewed there (RFC 7030 section 4.2.2)."""
    north = "est_renews_client = true;"

    def prepare(self, not_before_days, not_after_days):
        day = datetime.timedelta(days=1)
        return self.est.make_client(pki.now() + not_before_days * day, pki.now() + not_after_days * day)

    def renewed(self):
        self.g.wait_event("upstream-certificate", seconds=40)
        certificate = self.est.issued[-1]
        wait_for(lambda: self.g.ctl("--json", "status")[1]["horizon"].get("upstream-certificate_in", 0) > 300 * 86400,
                 "north to show it")
        return fingerprint(certificate)

    def test_a_third_before_its_end_it_is_renewed_with_a_new_key_and_kept_over_restarts(self):
        old = self.prepare(-60, 10)
        self.start()
        new = self.renewed()
        request = x509.load_der_x509_csr(self.est.asked("simplereenroll")[0])
        self.assertEqual(request.subject, old.certificate.subject)
        self.assertEqual(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
                         old.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        self.assertNotEqual(request.public_key().public_numbers(), old.certificate.public_key().public_numbers())
        self.enrol("meter-1")
        self.assertEqual(self.est.shown[-1], new)
        self.g.stop()
        self.g.start()
        self.trust()
        self.enrol("meter-2")
        self.assertEqual(self.est.shown[-1], new)
        self.assertEqual(len(self.est.asked("simplereenroll")), 1)

    def test_with_most_of_its_life_left_it_stays(self):
        self.prepare(-1, 300)
        self.start()
        self.enrol("meter-1")
        self.assertEqual(self.est.asked("simplereenroll"), [])

    def test_one_that_ran_out_while_the_uplink_was_gone_is_renewed_when_it_is_back(self):
        self.prepare(-60, -1)
        self.est.stop()
        self.start()
        self.g.wait_event("upstream-certificate-late", reason="ran out")
        horizon = self.g.ctl("--json", "status")[1]["horizon"]
        self.assertEqual(horizon["first"], "upstream-certificate")
        self.assertEqual(self.g.events("upstream-certificate"), [])
        self.est.takes_expired = True
        self.est.start()
        self.renewed()

    def test_an_owner_who_refuses_one_that_ran_out_is_asked_on_until_he_does_not(self):
        self.prepare(-60, -1)
        self.start()
        self.g.wait_event("uplink-down")
        self.assertEqual(self.g.events("upstream-certificate"), [])
        self.est.stop()
        self.est.takes_expired = True
        self.est.start()
        self.renewed()
        self.enrol("meter-1")

    def test_a_key_that_is_not_the_one_asked_for_is_refused_and_asked_again_later(self):
        self.prepare(-60, 10)
        self.est.script = [("body", lines_of(certs_only([self.est.issuing.certificate])))]
        self.start()
        self.g.wait_event("enrolment-refused", reason="no certificate in the answer")
        self.enrol("meter-1")
        self.assertEqual(self.est.shown[-1], fingerprint(self.est.client.certificate))


if __name__ == "__main__":
    unittest.main()

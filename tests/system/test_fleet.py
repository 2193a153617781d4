# SPDX-License-Identifier: Apache-2.0
"""Devices as users meet them, against the real daemon: the simulated fleet (OpenSSL) and a device on
Mbed TLS with its default suites and limits, both the code of tests/sim/device.c."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sim"))
from gateway import BUILD, SLOW, Gateway, wait_for  # noqa: E402
import pki  # noqa: E402
from simulator import Simulator  # noqa: E402

DAY = 86400
SIM = os.path.join(BUILD, "gateway-sim")
MBEDTLS = os.path.join(BUILD, "system", "mbedtls_device")
PROFILES = """
        { name = "sensor"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; attestation = "eat";
          attest_every = "7d"; max_session = "30d";
          references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); },
        { name = "plain"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; max_session = "30d"; }
"""


# The manufacturer, validity, renew_at, max_age.
CERTIFICATES = """
        { name = "sensor-x509"; credential = "certificate"; idevid_anchors = "%s"; validity = "%s"; renew_at = %s;
          grace = "1d"; max_age = "%s"; attestation = "eat"; attest_every = "7d"; max_session = "30d";
          references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); }
"""


def make_ca(gateway):
    gateway.ctl("ca", "init")
    gateway.wait_event("server-certificate")


def fleet(gateway, devices, **options):
    """A fleet that the gateway knows already."""
    settings = dict(gateway="127.0.0.1:%d" % gateway.port, devices=devices, seed=7,
                    import_out=gateway.folder + "/registry.csv", ack_timeout=200, backoff="50:1000",
                    test_clock=gateway.clock_path if os.path.exists(gateway.clock_path) else None)
    settings.update(options)
    simulator = Simulator(SIM, **settings)
    simulator.write_registry()
    gateway.ctl("device", "import", settings["import_out"])
    return simulator


class Fleet(unittest.TestCase):
    def test_a_fleet_gets_keys_attests_and_rotates_by_itself(self):
        with Gateway(PROFILES, testclock=True) as gateway, fleet(gateway, 10) as sim:
            sim.settle()
            for _ in range(65):
                sim.advance(DAY)
                sim.settle()
            books = sim.books("evidence")
            self.assertEqual(books["locked_out"], 0)
            for device in books["fleet"]:
                self.assertEqual(device["provisions"], 1)
                self.assertIn(device["rotations"], (2, 3))  # early by up to the jitter
                self.assertGreaterEqual(device["evidence_accepted"], 9)
                self.assertEqual(device["evidence_accepted"], device["evidence_sent"])
                sequences = [e["sequence"] for e in device["evidence"]]
                self.assertEqual(sequences, sorted(set(sequences)))
                self.assertEqual({e["tier"] for e in device["evidence"]}, {2})
            self.assertEqual(len(gateway.events("evidence-accepted")), books["total"]["evidence_accepted"])
            self.assertEqual(len(gateway.events("credential-activated")), books["total"]["grants"])

    def test_lost_replies_and_reboots_lock_nobody_out(self):
        with Gateway(PROFILES, testclock=True) as gateway, \
                fleet(gateway, 10, lost_reply=50, reboot_every=5 * DAY) as sim:
            sim.settle()
            for _ in range(65):
                sim.advance(DAY)
                sim.settle()
            total = sim.books("total")["total"]
            self.assertGreater(total["lost_replies"], 5)
            self.assertGreater(total["reboots"], 50)
            self.assertEqual(total["lock_outs"], 0)
            self.assertGreaterEqual(total["rotations"], 20)
            self.assertEqual(total["refused"], 0)

    def test_a_fifth_of_the_datagrams_lost_delays_and_breaks_nothing(self):
        with Gateway(PROFILES) as gateway, fleet(gateway, 5, loss=20, ack_timeout=100) as sim:
            sim.settle(100 * SLOW)
            total = sim.books("total")["total"]
            self.assertEqual(total["provisions"], 5)
            self.assertEqual(total["evidence_accepted"], 5)
            self.assertGreater(sim.books("total")["datagrams_lost"], 5)

    def test_core_killed_in_the_middle_of_rotations_loses_no_device(self):
        with Gateway(PROFILES, testclock=True) as gateway, fleet(gateway, 20) as sim:
            sim.settle()
            for _ in range(3):
                sim.advance(29 * DAY)
                killed = gateway.role_pid("core")
                wait_for(lambda: sim.books("total")["settled"] < 20, "rotations to begin")
                os.kill(killed, 9)
                wait_for(lambda: gateway.role_pid("core") not in (None, killed), "a new core")
                for _ in range(60):  # each pause of a device is over at once when the clock moves
                    if sim.settle(2, check=False)["ok"]:
                        break
                    sim.advance(60)
                sim.settle()
            books = sim.books("total")
            self.assertEqual(books["locked_out"], 0)
            self.assertGreaterEqual(books["total"]["rotations"], 40)

    def test_a_thief_with_an_old_key_gets_nowhere(self):
        with Gateway(PROFILES, testclock=True) as gateway, fleet(gateway, 2) as sim:
            sim.settle()
            stolen = sim.ask("steal", "sim-0001")["identity"]
            for _ in range(40):
                sim.advance(DAY)
                sim.settle()
            sim.ask("reboot", "sim-0001")  # its second handshake: only now the old key is not needed any more
            sim.settle()
            sim.advance(2 * DAY)
            sim.settle()
            gateway.wait_event("credential-deactivated", kid=stolen)
            knock = sim.ask("knock", "sim-0001")
            self.assertEqual(knock["handshake"], "refused")
            self.assertEqual(knock["alert"], 115)
            # The factory key is no way round: the handshake completes, the answer is no.
            sim.ask("forget", "sim-0002")
            sim.ask("steal", "sim-0002")
            knock = sim.ask("knock", "sim-0002")
            self.assertEqual(knock["handshake"], "completed")
            self.assertEqual(knock["cred"], "4.03")

    def test_a_device_that_lost_its_keys_comes_back_by_attesting(self):
        with Gateway(PROFILES, testclock=True) as gateway, fleet(gateway, 2) as sim:
            sim.settle()
            for _ in range(3):
                sim.advance(DAY)
                sim.settle()
            sim.ask("forget", "sim-0001")
            sim.settle()
            first = sim.books()["fleet"][0]
            self.assertEqual(first["key"], "operational")
            self.assertEqual(first["provisions"], 2)

    def test_a_restarted_simulator_goes_on_with_its_keys(self):
        with Gateway(PROFILES) as gateway:
            state = gateway.folder + "/state"
            with fleet(gateway, 3, state=state) as sim:
                sim.settle()
                before = [d["identity"] for d in sim.books()["fleet"]]
            with Simulator(SIM, gateway="127.0.0.1:%d" % gateway.port, devices=3, state=state) as sim:
                sim.settle()
                self.assertEqual([d["identity"] for d in sim.books()["fleet"]], before)
                self.assertEqual(sim.books()["total"]["grants"], 0)

    def test_observing_can_be_turned_off_and_on(self):
        with Gateway(PROFILES, testclock=True) as gateway, fleet(gateway, 2) as sim:
            sim.settle()
            sim.ask("observe", "off")
            sim.settle()
            before = sim.books("total")["total"]["notifications"]
            gateway.ctl("rotate", "sim-0001")
            sim.advance(DAY)  # polled, by Max-Age
            sim.settle()
            sim.ask("observe", "on")
            sim.settle()
            gateway.ctl("rotate", "sim-0002")
            wait_for(lambda: sim.books()["fleet"][1]["rotations"] == 1, "a rotation by notification")
            self.assertEqual(sim.books()["fleet"][0]["rotations"], 1)
            self.assertGreater(sim.books("total")["total"]["notifications"], before)

    def test_registry_files_of_every_form_are_imported(self):
        with Gateway(PROFILES) as gateway:
            for number, (form, suffix) in enumerate((f, s) for f in ("hex", "text", "base64") for s in ("csv", "json")):
                with fleet(gateway, 2, psk_form=form, prefix="%s-%s-" % (form, suffix), seed=number,
                           import_out="%s/%s.%s" % (gateway.folder, form, suffix)) as sim:
                    sim.settle()

    def test_the_program_alone_tells_how_it_went(self):
        with Gateway(PROFILES) as gateway:
            fleet(gateway, 4)
            run = subprocess.run([SIM, "--gateway", "127.0.0.1:%d" % gateway.port, "--devices", "4", "--seed", "7",
                                  "--until-settled", "--run-for", "60", "--json", gateway.folder + "/books"],
                                 capture_output=True, text=True, timeout=120)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn("4 devices: 4 ready, 4 settled now, 0 locked out", run.stdout)
            with open(gateway.folder + "/books") as f:
                self.assertEqual(json.load(f)["total"]["provisions"], 4)
            for words in (["--devices", "none"], ["--loss", "101"], ["--gateway", "nowhere"], ["--cipher", "ROT13"],
                          ["--block-bytes", "100"], ["--no-such-option"], ["spare"], ["--write-only"]):
                run = subprocess.run([SIM, *words], capture_output=True, text=True, timeout=60)
                self.assertEqual(run.returncode, 2, words)
                self.assertTrue(run.stderr, words)

    def test_bad_commands_are_told_and_change_nothing(self):
        with Gateway(PROFILES) as gateway, fleet(gateway, 1) as sim:
            sim.settle()
            for words in (["dance"], ["advance", "1"], ["settle", "soon"], ["reboot"], ["knock", "sim-0001"],
                          ["steal", "sim-9999"], ["observe", "maybe"], ["on", "x" * 600]):
                self.assertFalse(sim.ask(*words, check=False)["ok"], words)
            sim.settle()


class CertificateFleet(unittest.TestCase):
    """Half of the devices hold certificates, from a manufacturer that the simulator plays."""

    def gateway(self, top="", **more):
        folder = tempfile.mkdtemp(prefix="gatewayd-maker-")
        self.addCleanup(shutil.rmtree, folder)
        self.manufacturer = folder + "/manufacturer.pem"
        Simulator(SIM, certificates=100, manufacturer=self.manufacturer, import_out=folder + "/none").write_registry()
        profile = CERTIFICATES % (self.manufacturer, "60d", 0.5, "180d")
        return Gateway(PROFILES.rstrip() + "," + profile, top=top, testclock=True, **more)

    def fleet(self, gateway, devices, **options):
        make_ca(gateway)
        return fleet(gateway, devices, **{"certificates": 50, "manufacturer": self.manufacturer, **options})

    def test_idevids_are_what_ieee_802_1ar_wants(self):
        gateway = self.gateway()
        try:
            state = gateway.folder + "/state"
            Simulator(SIM, devices=2, state=state, certificates=100, manufacturer=self.manufacturer,
                      import_out=gateway.folder + "/registry.csv").write_registry()
            authority = x509.load_pem_x509_certificate(open(self.manufacturer, "rb").read())
            data, at, found = open(state, "rb").read(), 0, []
            while (at := data.find(b"\x30\x82", at)) >= 0:
                try:
                    size = 4 + int.from_bytes(data[at + 2:at + 4], "big")
                    found.append(x509.load_der_x509_certificate(data[at:at + size]))
                except ValueError:
                    pass
                at += 2
            self.assertEqual(len(found), 2)
            for number, certificate in enumerate(found):
                authority.public_key().verify(certificate.signature, certificate.tbs_certificate_bytes,
                                              ec.ECDSA(certificate.signature_hash_algorithm))
                serial = certificate.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)[0].value
                self.assertEqual(serial, "sim-%04d" % (number + 1))
                self.assertEqual(certificate.not_valid_after.year, 9999)
                self.assertTrue(certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature)
        finally:
            gateway.close()

    def test_a_fleet_enrols_renews_and_follows_its_ca_over_a_year(self):
        with self.gateway('ca = { validity = "400d"; successor_at = 0.5; announce = "30d"; };') as gateway, \
                self.fleet(gateway, 6) as sim:
            sim.settle()
            for _ in range(250):
                sim.advance(DAY)
                sim.settle()
            books = sim.books()
            self.assertEqual(books["locked_out"], 0)
            self.assertEqual(books["total"]["errors"], 0)
            for device in books["fleet"]:
                self.assertEqual(device["provisions"], 1)
                self.assertIn(device["rotations"], (8, 9))
                # At first, and when the successor was announced.
                self.assertEqual(device["anchors_fetched"], 2 if device["holds"] == "certificate" else 0)
            gateway.wait_event("ca-switched")
            activated = gateway.events("credential-activated", profile="sensor-x509")
            self.assertEqual(len(activated), 3 + sum(d["rotations"] for d in books["fleet"] if d["holds"] == "certificate"))

    def test_lost_certificates_and_reboots_lock_nobody_out(self):
        with self.gateway() as gateway, self.fleet(gateway, 8, lost_reply=50, reboot_every=5 * DAY) as sim:
            sim.settle()
            for _ in range(65):
                sim.advance(DAY)
                sim.settle()
            total = sim.books("total")["total"]
            self.assertGreater(total["lost_replies"], 3)
            self.assertEqual((total["lock_outs"], total["refused"]), (0, 0))
            self.assertGreaterEqual(total["rotations"], 16)

    def test_a_fifth_of_the_datagrams_lost_keeps_nobody_from_enrolling(self):
        with self.gateway() as gateway, self.fleet(gateway, 4, certificates=100, loss=20, ack_timeout=100) as sim:
            sim.settle(100 * SLOW)
            total = sim.books("total")["total"]
            self.assertEqual((total["provisions"], total["evidence_accepted"]), (4, 4))

    def test_core_killed_in_the_middle_of_renewals_loses_no_device(self):
        with self.gateway() as gateway, self.fleet(gateway, 12, certificates=100) as sim:
            sim.settle()
            sim.advance(29 * DAY)
            killed = gateway.role_pid("core")
            wait_for(lambda: sim.books("total")["settled"] < 12, "renewals to begin")
            os.kill(killed, 9)
            wait_for(lambda: gateway.role_pid("core") not in (None, killed), "a new core")
            for _ in range(60):
                if sim.settle(2, check=False)["ok"]:
                    break
                sim.advance(60)
            sim.settle()
            for _ in range(3):  # for those whose share of the jitter was small
                sim.advance(DAY)
                sim.settle()
            books = sim.books("total")
            self.assertEqual((books["locked_out"], books["total"]["rotations"]), (0, 12))

    def test_a_revoked_device_loses_its_session_at_once_and_gets_no_other(self):
        with self.gateway() as gateway, self.fleet(gateway, 2) as sim:
            sim.settle()
            sim.ask("steal", "sim-0002")
            gateway.ctl("device", "revoke", "sim-0002")
            wait_for(lambda: sim.books()["fleet"][1]["sessions_lost"], "its session to end", seconds=1)
            knock = sim.ask("knock", "sim-0002")
            self.assertEqual(knock["handshake"], "refused")
            self.assertIn(knock["alert"], (44, 49))
            self.assertTrue(sim.books()["fleet"][0]["settled"])

    def test_a_device_that_lost_its_certificate_comes_back_by_attesting(self):
        with self.gateway() as gateway, self.fleet(gateway, 2) as sim:
            sim.settle()
            for _ in range(3):
                sim.advance(DAY)
                sim.settle()
            sim.ask("forget", "sim-0002")
            sim.settle()
            device = sim.books()["fleet"][1]
            self.assertEqual((device["key"], device["provisions"]), ("operational", 2))

    def test_a_restarted_simulator_goes_on_with_its_certificates(self):
        with self.gateway() as gateway:
            state = gateway.folder + "/state"
            with self.fleet(gateway, 2, certificates=100, state=state) as sim:
                sim.settle()
                before = [d["identity"] for d in sim.books()["fleet"]]
            with Simulator(SIM, gateway="127.0.0.1:%d" % gateway.port, devices=2, certificates=100, state=state,
                           manufacturer=self.manufacturer) as sim:
                sim.settle()
                self.assertEqual([d["identity"] for d in sim.books()["fleet"]], before)
                self.assertEqual(sim.books()["total"]["grants"], 0)


class MbedTlsDevice(unittest.TestCase):
    FACTORY = ["--psk", "text:factory-key-0123"]

    def command(self, gateway, command, device="meter-1", *more, ok=True, seconds=60):
        run = subprocess.run([MBEDTLS, "--gateway", "127.0.0.1:%d" % gateway.port, "--id", device, *self.FACTORY,
                              "--state", "%s/%s" % (gateway.folder, device), "--timeout",
                              str(seconds), "--test-clock", gateway.clock_path, *more, command],
                             capture_output=True, text=True, timeout=(seconds + 60) * SLOW)
        self.assertIn(run.returncode, (0, 1), run.stderr)
        answer = json.loads(run.stdout)
        if ok:
            self.assertTrue(answer["ok"], (run.stdout, run.stderr, gateway.output()))
        return answer

    def attestation_key(self, gateway):
        key = gateway.folder + "/attest.pem"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
        subprocess.run(["openssl", "ec", "-in", key, "-pubout", "-out", key + ".pub"], check=True,
                       stderr=subprocess.DEVNULL)
        return key


class MbedTls(MbedTlsDevice):
    def test_a_device_on_mbed_tls_provisions_rotates_and_observes(self):
        with Gateway(PROFILES, testclock=True) as gateway:
            gateway.add_device("meter-1")
            first = self.command(gateway, "provision")
            self.assertIn("PSK", first["suite"])
            self.assertEqual((first["grants"], first["proven"], first["refused"]), (1, 1, 0))
            again = self.command(gateway, "me")
            self.assertEqual(again["identity"], first["identity"])
            # Notified while it waits on an open session.
            done = []
            waiting = threading.Thread(target=lambda: done.append(self.command(gateway, "rotate", "meter-1",
                                                                              "--observe")))
            mark = gateway.mark()
            waiting.start()
            wait_for(lambda: gateway.ctl("status", "--json")[1]["south"]["observers"], "its observation")
            gateway.ctl("rotate", "meter-1")
            gateway.wait_event("credential-activated", mark, device="meter-1")
            waiting.join(60 * SLOW)
            self.assertEqual(done[0]["rotations"], 1)
            self.assertNotEqual(done[0]["identity"], first["identity"])

    def test_a_device_on_mbed_tls_attests_in_blocks_of_64_bytes(self):
        with Gateway(PROFILES, testclock=True) as gateway:
            key = self.attestation_key(gateway)
            gateway.add_device("meter-1", "sensor", attestation_key=key + ".pub")
            self.command(gateway, "provision", "meter-1", "--attest-key", key, "--block-bytes", "64")
            gateway.set_clock(both=8 * DAY)
            answer = self.command(gateway, "attest", "meter-1", "--attest-key", key, "--block-bytes", "64")
            self.assertEqual(answer["evidence_accepted"], 1)
            self.assertEqual(answer["unusable"], 0)
            self.assertIn("affirming", gateway.events("evidence-accepted")[-1]["reason"])

    def test_a_device_on_mbed_tls_that_lost_its_flash_recovers_with_its_factory_key(self):
        with Gateway(PROFILES, testclock=True) as gateway:
            gateway.add_device("meter-1")
            first = self.command(gateway, "provision")
            os.remove(gateway.folder + "/meter-1")
            again = self.command(gateway, "recover")
            self.assertNotEqual(again["identity"], first["identity"])
            self.assertEqual(again["locked_out"], False)

    def test_a_device_finds_a_gateway_restored_from_an_older_backup_after_a_day(self):
        gateway = Gateway(PROFILES, testclock=True)
        try:
            gateway.start()
            gateway.add_device("meter-1")
            first = self.command(gateway, "provision")
            self.command(gateway, "me")
            gateway.stop()
            kept = [n for n in os.listdir(gateway.folder) if n.startswith("store.db")]
            for name in kept:
                shutil.copy(os.path.join(gateway.folder, name), os.path.join(gateway.folder, "backup-" + name))
            gateway.start()
            gateway.ctl("rotate", "meter-1")
            second = self.command(gateway, "rotate")
            self.assertNotEqual(second["identity"], first["identity"])
            gateway.stop()
            for name in os.listdir(gateway.folder):
                if name.startswith("store.db") and "key" not in name:
                    os.remove(os.path.join(gateway.folder, name))
            for name in kept:
                shutil.copy(os.path.join(gateway.folder, "backup-" + name), os.path.join(gateway.folder, name))
            gateway.start()

            refused = self.command(gateway, "recover", ok=False, seconds=3)
            self.assertFalse(refused["ok"])
            self.assertEqual(refused["identity"], second["identity"])
            # A day goes by while it keeps trying.
            over = threading.Event()

            def pass_time():
                hours = 0
                while not over.wait(0.1):
                    hours += 1
                    gateway.set_clock(both=hours * 900)

            clock = threading.Thread(target=pass_time)
            clock.start()
            try:
                back = self.command(gateway, "recover", seconds=60)
            finally:
                over.set()
                clock.join()
            self.assertGreater(back["refused"], 5)
            self.assertEqual(back["grants"], 1)
            self.assertNotIn(back["identity"], (first["identity"], second["identity"]))
            gateway.stop()
        finally:
            gateway.close()


class MbedTlsCertificates(MbedTlsDevice):
    """The same with certificates: Mbed TLS 2.28 with its default suites and limits."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="gatewayd-mbedtls-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.maker = pki.Authority("Maker")
        cls.maker.write(cls.folder + "/maker.pem")
        identity = cls.maker.idevid(cls.folder, "meter-1")
        cls.FACTORY = ["--idevid", identity.certificate_file, "--idevid-key", identity.key_file]

    def gateway(self, testclock=True, top=""):
        gateway = Gateway(CERTIFICATES % (self.folder + "/maker.pem", "60d", 0.5, "180d"), top=top, testclock=testclock)
        self.addCleanup(gateway.close)
        gateway.start()
        make_ca(gateway)
        gateway.ctl("device", "add", "meter-1", "--profile", "sensor-x509", "--idevid", "any", "--attestation-key",
                    self.attestation_key(gateway) + ".pub")
        return gateway

    def attested(self, gateway, command, *more, **options):
        return self.command(gateway, command, "meter-1", "--attest-key", gateway.folder + "/attest.pem", *more, **options)

    def test_a_device_enrols_renews_and_observes(self):
        gateway = self.gateway()
        first = self.attested(gateway, "provision")
        self.assertIn("ECDHE-ECDSA", first["suite"])
        self.assertEqual((first["grants"], first["proven"], first["refused"], first["anchors"]), (1, 1, 0, 1))
        self.assertEqual(gateway.events("credential-activated")[-1]["kid"], first["identity"])
        done = []
        waiting = threading.Thread(target=lambda: done.append(self.attested(gateway, "rotate", "--observe")))
        mark = gateway.mark()
        waiting.start()
        wait_for(lambda: gateway.ctl("status", "--json")[1]["south"]["observers"], "its observation")
        gateway.ctl("rotate", "meter-1")
        gateway.wait_event("credential-activated", mark, device="meter-1")
        waiting.join(60 * SLOW)
        self.assertEqual((done[0]["rotations"], done[0]["errors"], done[0]["unusable"]), (1, 0, 0))
        self.assertNotEqual(done[0]["identity"], first["identity"])
        gateway.stop()

    def test_a_device_enrols_and_attests_in_blocks_of_64_bytes(self):
        gateway = self.gateway()
        first = self.attested(gateway, "provision", "--block-bytes", "64")
        self.assertEqual((first["grants"], first["unusable"], first["errors"]), (1, 0, 0))
        gateway.set_clock(both=8 * DAY)
        answer = self.attested(gateway, "attest", "--block-bytes", "64")
        self.assertEqual(answer["evidence_accepted"], 1)
        gateway.stop()

    def test_a_device_that_lost_its_flash_recovers_with_its_idevid(self):
        gateway = self.gateway()
        first = self.attested(gateway, "provision")
        os.remove(gateway.folder + "/meter-1")
        gateway.ctl("device", "reset", "meter-1", "--for", "1h")
        again = self.attested(gateway, "recover")
        self.assertNotEqual(again["identity"], first["identity"])
        gateway.stop()

    def test_a_device_that_slept_through_the_announcement_gets_in_by_the_cross_certificate(self):
        gateway = self.gateway()
        self.attested(gateway, "provision")
        gateway.ctl("ca", "roll", "--within", "0")
        gateway.wait_event("ca-switched")
        again = self.attested(gateway, "me")  # it trusts the old root alone
        self.assertEqual((again["handshakes"], again["unanswered"]), (1, 0))
        self.assertTrue(again["due"] & 4 or again["anchors"] == 1)
        gateway.ctl("rotate", "meter-1")
        renewed = self.attested(gateway, "rotate")
        self.assertEqual((renewed["rotations"], renewed["unusable"]), (1, 0))
        gateway.stop()

    def test_a_gateway_of_another_site_is_not_trusted(self):
        gateway = self.gateway()
        self.attested(gateway, "provision")
        other = self.gateway()
        shutil.copy(gateway.folder + "/meter-1", other.folder + "/meter-1")
        gateway.stop()
        met = self.attested(other, "me", ok=False, seconds=4)
        self.assertFalse(met["ok"])
        self.assertEqual((met["handshakes"], met["refused"]), (0, 0))
        self.assertGreater(met["unanswered"], 0)
        other.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)

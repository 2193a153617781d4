# SPDX-License-Identifier: Apache-2.0
"""Backup and replacement on the real daemon: a fleet goes on on another gateway where the backup ended, whoever
rotated meanwhile comes back by its second slot or by adoption, and what is no good backup changes nothing. The age
command is the other implementation of the format."""

import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sim"))
from gateway import BUILD, SLOW, Gateway, wait_for  # noqa: E402
from simulator import Simulator  # noqa: E402
from upstream import Upstream  # noqa: E402

DAY = 86400
SIM = os.path.join(BUILD, "gateway-sim")
NORTH = ('verifier = "collector"; url = "%s"; ca_file = "%s/ca.pem"; client_certificate = "%s/client.pem"; '
         'client_key = "%s/client.key"; retry_min = "1s"; retry_max = "1s";')
PROFILES = """
        { name = "sensor"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; attestation = "eat";
          attest_every = "7d"; max_session = "30d";
          references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); },
        { name = "plain"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; max_session = "30d"; },
        { name = "sensor-x509"; credential = "certificate"; idevid_anchors = "%s"; validity = "60d"; renew_at = 0.5;
          grace = "1d"; max_age = "180d"; attestation = "eat"; attest_every = "7d"; max_session = "30d";
          references = ( { swname = "sensor-firmware"; swversion = "1.0.0"; } ); }
"""
PLAIN = '{ name = "plain"; rotate_every = "30d"; grace = "1d"; max_age = "180d"; }'


def run(*words, check=True):
    r = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60 * SLOW)
    if check and r.returncode != 0:
        raise AssertionError("%s: %d\n%s%s" % (words, r.returncode, r.stdout, r.stderr))
    return r


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatewayd-backup-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.backup = self.folder / "gw.age"
        self.key = self.folder / "recovery.key"

    def gateway(self, profiles=PLAIN, **options):
        gateway = Gateway(profiles, **options)
        self.addCleanup(gateway.close)
        return gateway

    def add_many(self, gateway, count):
        table = self.folder / "many.csv"
        rows = ("many-%05d,plain,hex:%s\n" % (i, os.urandom(16).hex()) for i in range(count))
        table.write_text("id,profile,psk\n" + "".join(rows))
        gateway.ctl("device", "import", str(table))
        table.unlink()

    def replacement(self, gateway, **options):
        """Another gateway, in another folder and without a sealing key as yet, where the lost one was."""
        new = self.gateway(port=gateway.port, **options)
        if "GATEWAYD_TEST_CLOCK" in gateway.environment:
            new.clock_path = gateway.clock_path
            new.environment["GATEWAYD_TEST_CLOCK"] = gateway.clock_path
        return new

    def make_key(self, gateway):
        self.key.write_text(gateway.ctl("--json", "sealing", "recovery")[1]["recovery_key"] + "\n")

    def restore(self, gateway, *more, backup=None, key=None, check=True):
        return run(gateway.gatewayctl, "restore", backup or self.backup, "--key", key or self.key, "--store",
                   gateway.folder + "/store.db", *more, check=check)


class Replacement(Case):
    def test_a_fleet_goes_on_on_another_gateway_where_the_backup_ended(self):
        registry, maker = self.folder / "registry.json", self.folder / "maker.pem"
        settings = dict(devices=12, seed=21, certificates=50, manufacturer=maker, import_out=registry,
                        ack_timeout=200, backoff="50:1000")
        Simulator(SIM, **settings).write_registry()
        up = Upstream(self.folder, "--attestation-keys", str(registry)).start()
        self.addCleanup(up.stop)
        north = NORTH % (up.url, up.pki, up.pki, up.pki)
        options = dict(profiles=PROFILES % maker, testclock=True, north=north)
        old = self.gateway(**options)
        new = self.replacement(old, **options)
        sim = Simulator(SIM, gateway="127.0.0.1:%d" % old.port, test_clock=old.clock_path, **settings)
        old.start()
        old.ctl("ca", "init")
        old.ctl("device", "import", str(registry))
        self.make_key(old)
        incarnation = old.ctl("--json", "status")[1]["gateway"]["incarnation"]
        self.addCleanup(sim.close)
        sim.start()
        sim.settle()
        for _ in range(26):
            sim.advance(DAY)
            sim.settle()

        # While the fleet rotates and evidence comes in.
        made = []
        backup = threading.Thread(target=lambda: made.append(old.ctl("backup", str(self.backup))))
        sim.advance(DAY)
        backup.start()
        sim.settle()
        backup.join()
        self.assertEqual(made[0][0], 0)
        at_backup = {d["id"]: d["rotations"] for d in sim.books()["fleet"]}
        # Some devices rotate after the backup, and some do not any more.
        days = 0
        while not self.has_both_kinds(sim, at_backup):
            sim.advance(DAY // 4)
            sim.settle()
            days += 0.25
            self.assertLess(days, 6)
        rotated = {d["id"] for d in sim.books()["fleet"] if d["rotations"] > at_backup[d["id"]]}
        certified = {d["id"] for d in sim.books()["fleet"] if self.is_certified(old, d["id"])}
        records = wait_for(lambda: self.all_delivered(old, up), "all evidence to be delivered")
        old.stop()

        self.restore(new)
        since = new.mark()
        new.start()
        new.wait_event("store-restored", since)
        self.assertNotIn("take the recovery key", new.output())  # restore.key goes by itself
        status = new.ctl("--json", "status")[1]
        self.assertNotEqual(status["gateway"]["incarnation"], incarnation)
        missing = {d["id"]: d for d in new.ctl("--json", "missing")[1]}
        for device in rotated:
            if device in missing:
                self.assertEqual(missing[device]["way"], "certificate" if device in certified else "second-slot",
                                 missing[device])
        # With an unchanged key, or a certificate, it comes at once; the others do not yet.
        waiting = rotated - certified
        wait_for(lambda: {d["id"] for d in new.ctl("--json", "missing")[1]} == waiting, "the fleet to come back", 60)
        self.assertEqual(new.ctl("--json", "status")[1]["backup"]["missing"], len(waiting))
        self.assertIn("%d devices have not come since" % len(waiting), new.ctl("status")[1])
        self.assertIn("gatewayctl missing", new.ctl("doctor", check=False)[1])
        adopted = {e["device"] for e in new.events("certificate-adopted", since)}
        self.assertTrue(adopted)
        self.assertLessEqual(adopted, rotated & certified)
        self.assertEqual(sim.settle(2, check=False)["ok"], False)
        # A day after their newest key began to fail they come with the one before.
        for _ in range(27):
            sim.advance(3600)
            sim.settle(1, check=False)
        sim.settle(60)
        self.assertEqual(new.ctl("--json", "missing")[1], [])
        # And the fleet lives on.
        for _ in range(35):
            sim.advance(DAY)
            sim.settle()
        books = sim.books("total")
        self.assertEqual(books["locked_out"], 0)
        self.assertEqual(books["total"]["lock_outs"], 0)
        self.assertFalse(new.events("credential-conflict", since))
        # No receipt of the new store has the name of an old one, and the upstream takes both.
        wait_for(lambda: self.all_delivered(new, up) > records, "evidence to be delivered by the new gateway")
        found = up.books()
        self.assertEqual((found["order_violations"], found["refused"], found["evidence_unverified"]), (0, 0, 0))
        lines = [json.loads(line) for line in open(self.folder / "books.jsonl", encoding="utf-8")]
        names = [(r["incarnation"], r["sequence"]) for r in lines if r["kind"] == "record"]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual({name[0] for name in names}, {incarnation, status["gateway"]["incarnation"]})
        # The same numbers twice: without the incarnation they would be the same receipts.
        self.assertLess(len({name[1] for name in names}), len(names))
        sim.close()
        new.stop()

    def has_both_kinds(self, sim, before):
        books = {d["id"]: d["rotations"] > before[d["id"]] for d in sim.books()["fleet"]}
        psk = list(books.values())
        return any(psk) and not all(psk) and len({books[d] for d in books}) == 2 and sum(psk) >= 5

    def is_certified(self, gateway, device):
        return device in {d["id"] for d in gateway.ctl("--json", "device", "list", "--profile", "sensor-x509")[1]}

    def all_delivered(self, gateway, up):
        return gateway.ctl("--json", "status")[1]["backlog"]["records"] == 0 and up.books()["records"]


class Format(Case):
    def start(self):
        gateway = self.gateway()
        gateway.start()
        gateway.add_device("d1")
        return gateway

    def test_age_opens_what_gatewayctl_wrote_and_the_other_way_round(self):
        gateway = self.start()
        identity = self.folder / "identity"
        run("age-keygen", "-o", identity)
        recipient = run("age-keygen", "-y", identity).stdout.strip()
        gateway.ctl("backup", str(self.backup), "--recipient", recipient)
        self.assertEqual(os.stat(self.backup).st_mode & 0o777, 0o600)
        plain = self.folder / "plain.db"
        run("age", "-d", "-i", identity, "-o", plain, self.backup)
        with sqlite3.connect("file:%s?mode=ro" % plain, uri=True) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchone(), ("ok",))
            self.assertEqual(db.execute("SELECT id FROM device").fetchall(), [("d1",)])
        gateway.stop()
        again = self.folder / "again.age"
        run("age", "-r", recipient, "-o", again, plain)
        new = self.replacement(gateway)
        self.restore(new, backup=again, key=identity)
        new.start()
        self.assertEqual(new.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
        new.stop()

    def test_the_recipient_is_the_one_asked_for_or_configured_or_the_recovery_key(self):
        identity = self.folder / "identity"
        run("age-keygen", "-o", identity)
        recipient = run("age-keygen", "-y", identity).stdout.strip()
        gateway = self.start()
        code, said = gateway.ctl("backup", str(self.backup), check=False)
        self.assertEqual(code, 1)
        self.assertIn("gatewayctl sealing recovery", said)
        wrong = recipient[:-1] + ("q" if recipient[-1] != "q" else "p")  # its checksum
        code, said = gateway.ctl("backup", str(self.backup), "--recipient", wrong, check=False)
        self.assertEqual(code, 1)
        self.assertIn("is no age recipient", said)
        self.assertEqual(os.listdir(self.folder), ["identity"])
        self.make_key(gateway)
        self.assertNotIn(recipient, gateway.ctl("backup", str(self.backup))[1])
        gateway.stop()
        gateway.write_config(PLAIN, top='keys = { backup_recipient = "%s"; };' % recipient)
        gateway.start()
        self.assertIn(recipient, gateway.ctl("backup", str(self.backup))[1])
        self.assertIn(recipient, gateway.wait_event("backup-made")["reason"])
        gateway.stop()

    def test_what_is_no_good_backup_changes_nothing(self):
        gateway = self.start()
        self.make_key(gateway)
        gateway.ctl("backup", str(self.backup))
        r = self.restore(gateway, "--force", check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("gatewayd is running", r.stderr)
        gateway.stop()
        r = self.restore(gateway, check=False)
        self.assertIn("--force", r.stderr)
        before = sorted(os.listdir(gateway.folder))
        other = self.folder / "other.key"
        other.write_text("01" * 32)
        bad = self.folder / "bad.age"
        bad.write_bytes(self.backup.read_bytes()[:-100])
        for backup, key, why in ((self.backup, other, "another key"), (bad, self.key, "cut off"),
                                 (self.key, self.key, "age format"), (self.backup, bad, "holds no key"),
                                 (self.folder / "none", self.key, "No such file")):
            r = self.restore(gateway, "--force", backup=backup, key=key, check=False)
            self.assertEqual(r.returncode, 1)
            self.assertIn(why, r.stderr)
        self.assertEqual(sorted(os.listdir(gateway.folder)), before)
        gateway.start()
        self.assertEqual(gateway.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
        gateway.stop()


class Running(Case):
    def test_a_reader_that_goes_away_leaves_nothing_and_harms_nothing(self):
        gateway = self.gateway()
        gateway.start()
        gateway.add_device("d1")
        self.make_key(gateway)
        self.add_many(gateway, 5000)  # more than a pipe takes at once
        since = gateway.mark()
        # The file may not grow beyond that: gatewayctl dies with SIGXFSZ in the middle.
        r = run("prlimit", "--fsize=65536", gateway.gatewayctl, "--control", gateway.control, "backup", self.backup,
                check=False)
        self.assertNotEqual(r.returncode, 0)
        gateway.wait_event("backup-failed", since, reason="has gone")
        self.assertFalse(os.path.exists(gateway.folder + "/backup.tmp"))
        self.assertFalse(self.backup.exists())
        self.assertEqual(gateway.ctl("--json", "status")[1]["backup"]["last"], 0)
        gateway.ctl("backup", str(self.backup))
        self.assertFalse(os.path.exists(str(self.backup) + ".part"))
        self.assertFalse(os.path.exists(gateway.folder + "/backup.tmp"))
        self.assertEqual(gateway.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
        self.assertGreater(gateway.ctl("--json", "status")[1]["backup"]["last"], 0)
        self.assertEqual(gateway.ctl("--json", "status")[1]["gateway"]["sandbox_violations"], 0)
        gateway.stop()

    def test_what_a_killed_core_left_of_a_backup_is_removed_at_the_start(self):
        gateway = self.gateway()
        gateway.start()
        gateway.stop()
        pathlib.Path(gateway.folder, "backup.tmp").write_bytes(b"half a copy")
        gateway.start()
        self.assertFalse(os.path.exists(gateway.folder + "/backup.tmp"))
        gateway.stop()

    def test_one_backup_at_a_time_and_others_are_served_meanwhile(self):
        gateway = self.gateway()
        gateway.start()
        gateway.add_device("d1")
        self.make_key(gateway)
        self.add_many(gateway, 5000)
        # A reader that takes nothing, for the file is a FIFO: the pipe is full, and core does not wait for it.
        fifo = str(self.backup) + ".part"
        os.mkfifo(fifo)
        holder = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, holder)
        slow = subprocess.Popen([gateway.gatewayctl, "--control", gateway.control, "backup", str(self.backup)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: slow.poll() is None and (slow.kill(), slow.wait()))
        wait_for(lambda: os.path.exists(gateway.folder + "/backup.tmp"), "the backup to begin")
        code, said = gateway.ctl("backup", str(self.folder / "second.age"), check=False)
        self.assertEqual(code, 1)
        self.assertIn("already", said)
        self.assertEqual(gateway.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
        gateway.add_device("d2")
        since = gateway.mark()
        slow.kill()
        slow.wait()
        gateway.wait_event("backup-failed", since)
        os.unlink(fifo)
        gateway.ctl("backup", str(self.backup))
        gateway.stop()
        new = self.replacement(gateway)
        self.restore(new)
        new.start()
        self.assertEqual(new.ctl("--json", "status")[1]["devices"]["total"], 5002)
        new.stop()

    def test_an_old_backup_is_told_of_once_until_the_next(self):
        gateway = self.gateway(testclock=True)
        gateway.start()
        self.make_key(gateway)
        gateway.ctl("backup", str(self.backup))
        self.assertFalse(gateway.ctl("--json", "status")[1]["backup"]["is_old"])
        gateway.set_clock(both=31 * DAY)
        gateway.wait_event("backup-old")
        gateway.set_clock(both=32 * DAY)
        gateway.ctl("device", "list")
        self.assertTrue(gateway.ctl("--json", "status")[1]["backup"]["is_old"])
        self.assertIn("a profile rotates every 30 days", gateway.ctl("status")[1])
        self.assertIn("gatewayctl backup FILE", gateway.ctl("doctor", check=False)[1])
        self.assertEqual(len(gateway.events("backup-old")), 1)
        gateway.ctl("backup", str(self.backup))
        self.assertFalse(gateway.ctl("--json", "status")[1]["backup"]["is_old"])
        since = gateway.mark()
        gateway.set_clock(both=64 * DAY)
        gateway.wait_event("backup-old", since)
        gateway.stop()


class Recovery(Case):
    def test_a_store_whose_sealing_key_is_lost_opens_with_the_recovery_key(self):
        gateway = self.gateway()
        gateway.start()
        gateway.add_device("d1")
        self.make_key(gateway)
        gateway.stop()
        os.unlink(gateway.folder + "/sealing.key")
        gateway.start(wait=False)
        wait_for(lambda: "bring the key back" in gateway.output(), "the refusal")
        gateway.stop(expect=None)
        recover = (gateway.gatewayctl, "recover", "--store", gateway.folder + "/store.db", "--key")
        other = self.folder / "other.key"
        other.write_text("01" * 32)
        r = run(*recover, other, check=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("nothing was changed", r.stderr)
        self.assertFalse(os.path.exists(gateway.folder + "/restore.key"))
        run(*recover, self.key)
        self.assertEqual(os.stat(gateway.folder + "/restore.key").st_mode & 0o777, 0o600)
        gateway.start()
        self.assertFalse(os.path.exists(gateway.folder + "/restore.key"))
        self.assertEqual(gateway.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
        gateway.stop()
        gateway.start()  # by the new sealing key alone
        gateway.stop()


if __name__ == "__main__":
    unittest.main(verbosity=2)

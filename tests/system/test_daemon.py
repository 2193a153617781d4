# SPDX-License-Identifier: Apache-2.0
"""Four roles, one executable: starts, ends, deaths, hangs, reloads, and what stops a start."""

import contextlib
import hashlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import unittest

from gateway import Gateway, SLOW, wait_for

ROLES = ("core", "south", "north")


def digest(folder):
    return {n: hashlib.sha256(open(os.path.join(folder, n), "rb").read()).hexdigest()
            for n in sorted(os.listdir(folder)) if n.startswith("store")}


class Daemon(unittest.TestCase):
    def test_all_roles_run_as_children_of_one_supervisor(self):
        with Gateway() as g:
            pids = [g.role_pid(r) for r in ROLES]
            self.assertNotIn(None, pids)
            self.assertEqual(len(set(pids)), 3)

    def test_an_orderly_stop_takes_less_than_a_second_and_loses_nothing(self):
        with Gateway() as g:
            g.add_device("d1", psk="factory-key-0123")
            code, _ = g.coap("post", "cred", "d1", "factory-key-0123")
            self.assertEqual(code, "2.04")
            mark = g.mark()
            g.stop()
            # After 0.8 s the supervisor kills what has not ended, and says so.
            self.assertNotIn("did not end in time", g.output())
            self.assertEqual(g.events("role-died", mark), [])
            self.assertEqual(len(g.events("stopped", mark, reason="in order")), 1)
            g.start()
            _, shown = g.ctl("device", "show", "d1", "--json")
            self.assertIn("pre-active", str(shown))

    def test_a_killed_role_comes_back_by_itself(self):
        with Gateway() as g:
            g.add_device("d1")
            for role in ROLES:
                mark, pid = g.mark(), g.role_pid(role)
                os.kill(pid, signal.SIGKILL)
                g.wait_event("role-died", mark, reason=role)
                g.wait_event("role-started", mark, reason=role)
                wait_for(lambda: g.role_pid(role) not in (None, pid), role + " to be back")
                wait_for(lambda: None not in [g.role_pid(r) for r in ROLES], "those that start anew with it")
            code, _ = g.coap("get", "time", "d1", "factory-key-0123")
            self.assertEqual(code, "2.05")

    def test_when_core_ends_south_and_north_start_anew(self):
        with Gateway() as g:
            south, north = g.role_pid("south"), g.role_pid("north")
            mark = g.mark()
            os.kill(g.role_pid("core"), signal.SIGKILL)
            for role in ROLES:
                g.wait_event("role-started", mark, reason=role)
            self.assertNotEqual(south, g.role_pid("south"))
            self.assertNotEqual(north, g.role_pid("north"))

    def test_a_role_that_hangs_is_killed_and_replaced(self):
        with Gateway() as g:
            mark = g.mark()
            os.kill(g.role_pid("south"), signal.SIGSTOP)
            g.wait_event("role-hung", mark, reason="south", seconds=40)
            g.wait_event("role-started", mark, reason="south", seconds=40)

    def test_roles_do_not_outlive_their_supervisor(self):
        g = Gateway().start()
        try:
            pids = [g.role_pid(r) for r in ROLES]
            g.process.kill()
            g.process.wait()
            for pid in pids:
                wait_for(lambda: not os.path.exists("/proc/%d" % pid), "role %d to end" % pid)
        finally:
            g.close()

    def test_a_bad_file_changes_nothing_on_reload_and_is_logged(self):
        with Gateway() as g:
            g.add_device("d1")
            good = open(g.config_path).read()
            with open(g.config_path, "w") as f:
                f.write(good.replace('rotate_every = "30d"', 'rotate_every = "soon"'))
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            refused = g.wait_event("config-refused", mark)
            self.assertIn("gatewayd.conf", refused["reason"])
            self.assertEqual(g.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
            with open(g.config_path, "w") as f:
                f.write(good.replace('grace = "1d"', 'grace = "2d"'))
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            g.wait_event("config-reloaded", mark)

    def test_a_role_started_after_a_refused_reload_gets_the_configuration_in_force(self):
        with Gateway() as g:
            g.add_device("d1")
            with open(g.config_path, "w") as f:
                f.write("rubbish")
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            g.wait_event("config-refused", mark)
            os.kill(g.role_pid("core"), signal.SIGKILL)
            for role in ROLES:
                g.wait_event("role-started", mark, reason=role)
            self.assertEqual(g.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")

    def test_a_reload_never_moves_the_store_under_the_roles(self):
        with Gateway() as g:
            g.add_device("d1")
            text = open(g.config_path).read()
            with open(g.config_path, "w") as f:
                f.write(text.replace("/store.db", "/other.db"))
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            g.wait_event("config-refused", mark, reason="restart the service")
            os.kill(g.role_pid("core"), signal.SIGKILL)
            for role in ROLES:
                g.wait_event("role-started", mark, reason=role)
            self.assertEqual(g.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
            self.assertFalse(os.path.exists(os.path.join(g.folder, "other.db")))

    def test_a_reload_that_takes_away_a_profile_in_use_is_refused(self):
        with Gateway() as g:
            g.add_device("d1", profile="texty")
            g.write_config(profiles='{ name = "plain"; rotate_every = "30d"; }')
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            g.wait_event("config-refused", mark, reason="profile")

    def test_a_file_over_which_core_ends_is_refused_and_the_old_one_rules(self):
        g = Gateway()
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as notified:
            g.environment["NOTIFY_SOCKET"] = os.path.join(g.folder, "notify")
            notified.bind(g.environment["NOTIFY_SOCKET"])
            notified.settimeout(20 * SLOW)
            with g:
                g.add_device("d1")
                g.write_config(profiles='{ name = "plain"; rotate_every = "20d"; }')
                mark = g.mark()
                core = g.role_pid("core")
                os.kill(core, signal.SIGSTOP)  # it is asked and cannot answer
                g.process.send_signal(signal.SIGHUP)
                while b"RELOADING=1" not in notified.recv(4096):
                    pass
                os.kill(core, signal.SIGKILL)
                g.wait_event("config-refused", mark, reason="core ended")
                for role in ROLES:
                    g.wait_event("role-started", mark, reason=role)
                self.assertEqual(g.coap("get", "me", "d1", "factory-key-0123")[0], "2.05")
                self.assertEqual(g.events("config-reloaded", mark), [])

    def test_the_store_names_the_boot_that_its_time_was_counted_in(self):
        with Gateway() as g:
            g.stop()
            with contextlib.closing(sqlite3.connect(os.path.join(g.folder, "store.db"))) as store:
                told = store.execute("SELECT clock_boot_id FROM meta").fetchone()[0]
        with open("/proc/sys/kernel/random/boot_id") as f:
            self.assertEqual(told, f.read().strip())

    def test_a_corrupt_store_stops_the_start_and_is_left_untouched(self):
        g = Gateway().start()
        try:
            g.add_device("d1")
            g.stop()
            path = os.path.join(g.folder, "store.db")
            with open(path, "r+b") as f:
                f.seek(4096)
                f.write(b"garbage" * 500)
            before = digest(g.folder)
            g.start(wait=False)
            self.assertEqual(g.process.wait(20 * SLOW), 78)
            wait_for(lambda: g.events("store-refused"), "the event")
            self.assertEqual(before, digest(g.folder))
        finally:
            g.close()

    def test_a_store_sealed_with_another_key_stops_the_start_and_is_left_untouched(self):
        g = Gateway().start()
        try:
            g.add_device("d1")
            g.stop()
            before = digest(g.folder)
            with open(os.path.join(g.folder, "sealing.key"), "wb") as f:
                f.write(os.urandom(32))
            g.start(wait=False)
            self.assertEqual(g.process.wait(20 * SLOW), 78)
            wait_for(lambda: g.events("store-refused"), "the event")
            self.assertEqual(before, digest(g.folder))
        finally:
            g.close()

    def test_a_lost_sealing_key_is_never_replaced_by_a_new_one(self):
        g = Gateway().start()
        try:
            g.stop()
            os.unlink(os.path.join(g.folder, "sealing.key"))
            g.start(wait=False)
            self.assertEqual(g.process.wait(20 * SLOW), 78)
            self.assertFalse(os.path.exists(os.path.join(g.folder, "sealing.key")))
        finally:
            g.close()

    def with_operational_key(self, g):
        """Registers d1 and lets it have an operational key; (its kid, its key)."""
        g.add_device("d1")
        code, grant = g.coap("post", "cred", "d1", "factory-key-0123")
        self.assertEqual(code, "2.04")
        kid, key = re.search(rb"[a-z0-9]{16}", grant).group().decode(), grant[-32:].decode()
        self.assertEqual(g.coap("get", "time", kid, key)[0], "2.05")
        return kid, key

    def put_recovery_key(self, g, text):
        """Loses the sealing key and brings this recovery key instead; returns the two paths."""
        sealing, recovery = os.path.join(g.folder, "sealing.key"), os.path.join(g.folder, "recovery.key")
        if os.path.exists(sealing):
            os.unlink(sealing)
        with open(os.open(recovery, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(text + "\n")
        return sealing, recovery

    def test_the_recovery_key_opens_a_store_whose_sealing_key_is_lost(self):
        g = Gateway().start()
        try:
            kid, key = self.with_operational_key(g)
            recovery_key = g.ctl("--json", "sealing", "recovery")[1]["recovery_key"]
            g.stop()
            sealing, recovery = self.put_recovery_key(g, recovery_key)
            g.start()
            wait_for(lambda: "take the recovery key off this gateway" in g.output(), "the word to remove it")
            self.assertEqual(g.coap("get", "time", kid, key)[0], "2.05")
            g.stop()
            self.assertEqual(os.stat(sealing).st_mode & 0o777, 0o600)
            os.unlink(recovery)
            g.start()
            self.assertEqual(g.coap("get", "time", kid, key)[0], "2.05")
            self.assertNotIn("recovery key", g.output())
            g.stop()
        finally:
            g.close()

    def test_a_wrong_recovery_key_stops_the_start_and_leaves_the_store_untouched(self):
        g = Gateway().start()
        try:
            kid, key = self.with_operational_key(g)
            recovery_key = g.ctl("--json", "sealing", "recovery")[1]["recovery_key"]
            g.stop()
            before = digest(g.folder)
            for wrong, told in ((os.urandom(32).hex(), "recovery key"), ("no key at all", "64 hex digits")):
                with self.subTest(told):
                    sealing, _ = self.put_recovery_key(g, wrong)
                    g.start(wait=False)
                    self.assertEqual(g.process.wait(20 * SLOW), 78)
                    wait_for(lambda: g.events("store-refused", reason=told), "the event")
                    self.assertEqual(before, digest(g.folder))
                    self.assertFalse(os.path.exists(sealing))
            self.put_recovery_key(g, recovery_key)
            g.start()
            self.assertEqual(g.coap("get", "time", kid, key)[0], "2.05")
            g.stop()
        finally:
            g.close()

    def test_a_sealing_key_that_others_may_read_is_refused(self):
        g = Gateway().start()
        try:
            g.stop()
            os.chmod(os.path.join(g.folder, "sealing.key"), 0o644)
            g.start(wait=False)
            self.assertEqual(g.process.wait(20 * SLOW), 78)
        finally:
            g.close()

    def test_check_names_mistakes_by_file_and_line(self):
        g = Gateway()
        try:
            with open(g.config_path, "a") as f:
                f.write('max_sesions = 5;\n')
            r = subprocess.run([g.program, "--check", g.config_path], capture_output=True, text=True)
            self.assertEqual(r.returncode, 78)
            self.assertRegex(r.stderr, r"gatewayd\.conf:\d+: .*max_sesions")
        finally:
            g.close()

    def test_a_second_daemon_on_the_same_store_does_not_start(self):
        with Gateway() as g:
            other = Gateway()
            try:
                with open(other.config_path) as f:
                    text = f.read()
                with open(other.config_path, "w") as f:
                    f.write(text.replace(other.folder + "/store.db", g.folder + "/store.db"))
                other.start(wait=False)
                wait_for(lambda: other.events("role-died"), "the second core to end")
                self.assertEqual(other.events("started"), [])
                self.assertEqual(g.events("role-died"), [])
            finally:
                other.close()


if __name__ == "__main__":
    unittest.main()

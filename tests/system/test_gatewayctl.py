# SPDX-License-Identifier: Apache-2.0
"""gatewayctl against the running daemon: what operators see, what scripts can rely on."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import threading
import unittest

from gateway import BUILD, ROOT, SLOW, Gateway, wait_for

PSK = "hex:000102030405060708090a0b0c0d0e0f"
PROGRAM = os.path.join(BUILD, "gatewayctl")


def run(*words, text=None, environment=None):
    """gatewayctl without a gateway; (exit status, standard output, standard error)."""
    r = subprocess.run([PROGRAM, *words], capture_output=True, text=True, input=text, timeout=60 * SLOW,
                       env=dict(os.environ, **(environment or {})))
    return r.returncode, r.stdout, r.stderr


def on_terminal(*words, columns=80, environment=None):
    """Standard output of gatewayctl as a terminal of so many columns sees it."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen([PROGRAM, *words], stdout=slave, stderr=slave, stdin=subprocess.DEVNULL,
                               env=dict(clean, TERM="xterm", **(environment or {})))
    os.close(slave)
    data = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError:
            break
        if not more:
            break
        data += more
    os.close(master)
    process.wait(60)
    return data.decode().replace("\r\n", "\n")


class CommandLine(unittest.TestCase):
    def test_what_makes_no_sense_is_exit_status_2(self):
        for words in ((), ("dance",), ("device",), ("device", "dance"), ("device", "show"), ("device", "show", "a", "b"),
                      ("device", "add", "a"), ("device", "reset", "a"), ("device", "reset", "a", "--for", "soon"),
                      ("rotate", "a", "--since", "3d ago"), ("audit", "-n", "none"), ("audit", "-n", "0"),
                      ("device", "list", "--colour"), ("status", "now"), ("device", "import", "fleet.txt"),
                      ("relay",), ("device", "list", "--state")):
            with self.subTest(words):
                code, out, err = run("--control", "/nonexistent", *words)
                self.assertEqual((code, out), (2, ""))
                self.assertIn("--help", err)

    def test_without_a_gateway_it_says_so(self):
        code, out, err = run("--control", "/nonexistent/control", "status")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("gatewayd is not running", err)

    def test_help_names_every_command_and_every_exit_status(self):
        code, out, _ = run("--help")
        self.assertEqual(code, 0)
        for word in ("status", "doctor", "device import", "rotate", "audit", "relay now", "sealing recovery", "0 done",
                     "1 failed", "2 usage", "3 nothing was changed"):
            self.assertIn(word, out)
        self.assertEqual(run("--version")[0], 0)

    def test_the_manual_and_the_completion_know_every_command_and_option(self):
        _, out, _ = run("--help")
        commands = [m.split() for m in re.findall(r"^  ((?:device |relay |sealing |ca )?[a-z]+)(?= )", out, re.M)]
        self.assertGreater(len(commands), 10)
        options = set(re.findall(r"--[a-z-]+", out)) - {"--help"}
        with open(os.path.join(ROOT, "docs/man/gatewayctl.1")) as f:
            manual = f.read().replace("\\-", "-")
        with open(os.path.join(ROOT, "gatewayd/operator/gatewayctl.bash")) as f:
            completion = f.read()
        for words in commands:
            self.assertIn(" ".join(words), manual)
            self.assertIn(words[-1], completion)
        for option in options:
            self.assertIn(option, manual)
            self.assertIn(option, completion)

    def test_the_completion_completes(self):
        script = """. gatewayd/operator/gatewayctl.bash
            COMP_WORDS=(gatewayctl device re); COMP_CWORD=2; _gatewayctl; echo "${COMPREPLY[*]}"
            COMP_WORDS=(gatewayctl --json rotate --c); COMP_CWORD=3; _gatewayctl; echo "${COMPREPLY[*]}" """
        r = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=20,
                           env=dict(os.environ, PATH=BUILD + ":" + os.environ["PATH"]))
        self.assertEqual(r.stdout, "remove revoke reset release\n--compromised\n")


class Devices(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = Gateway().start()

    @classmethod
    def tearDownClass(cls):
        try:
            cls.g.stop()
        finally:
            cls.g.close()

    def ctl(self, *words, check=False):
        return self.g.ctl(*words, check=check)

    def test_exit_statuses_tell_changed_unchanged_and_failed_apart(self):
        self.assertEqual(self.ctl("device", "add", "e1", "--profile", "plain", "--psk", PSK)[0], 0)
        self.assertEqual(self.ctl("device", "add", "e1", "--profile", "plain", "--psk", PSK)[0], 1)
        self.assertEqual(self.ctl("device", "release", "e1")[0], 3)
        self.assertEqual(self.ctl("device", "revoke", "e1", "--reason", "stolen")[0], 0)
        self.assertEqual(self.ctl("device", "revoke", "e1")[0], 3)
        self.assertEqual(self.ctl("device", "remove", "e1")[0], 0)
        self.assertEqual(self.ctl("device", "remove", "e1")[0], 1)
        self.assertEqual(self.ctl("device", "show", "e1")[0], 1)
        code, told = self.ctl("--json", "device", "add", "e2", "--profile", "plain", "--psk", PSK)
        self.assertEqual((code, told), (0, {"added": 1, "warnings": []}))
        code, told = self.ctl("--json", "device", "release", "e2")
        self.assertEqual((code, told), (3, {"changed": False}))

    def test_mistakes_are_named_and_change_nothing(self):
        for words, said in ((("--profile", "nowhere", "--psk", PSK), "nowhere"),
                            (("--profile", "plain", "--psk", "0011"), "hex:, base64: or text:"),
                            (("--profile", "plain", "--psk", "hex:00"), "16 to 64"),
                            (("--profile", "plain", "--psk", "@/nonexistent"), "No such file"),
                            (("--profile", "plain", "--psk", PSK, "--attestation-key", "/dev/null"), None)):
            with self.subTest(words):
                code, told = self.ctl("device", "add", "m1", *words)
                if said:
                    self.assertEqual(code, 1)
                    self.assertIn(said, told)
                else:
                    self.ctl("device", "remove", "m1")
        self.assertEqual(self.ctl("device", "show", "m1")[0], 1)
        code, told = self.ctl("device", "add", "bad id!", "--profile", "plain", "--psk", PSK)
        self.assertEqual(code, 1)
        self.assertIn("A-Z", told)

    def test_an_import_is_whole_or_not_at_all(self):
        path = os.path.join(self.g.folder, "fleet.csv")
        with open(path, "w") as f:
            f.write("id,profile,psk\ni1,plain,%s\ni2,plain,hex:12\ni3,nowhere,%s\n" % (PSK, PSK))
        code, told = self.ctl("device", "import", path)
        self.assertEqual(code, 1)
        self.assertIn("line 3", told)
        self.assertEqual(self.ctl("device", "show", "i1")[0], 1)
        with open(path, "w") as f:
            f.write("id,profile,psk\ni1,plain,%s\ni3,nowhere,%s\ni4,elsewhere,%s\n" % (PSK, PSK, PSK))
        code, told = self.ctl("device", "import", path)
        self.assertEqual(code, 1)
        self.assertIn("nowhere", told)
        self.assertIn("elsewhere", told)
        self.assertEqual(self.ctl("device", "show", "i1")[0], 1)
        with open(path, "w") as f:
            f.write("id,profile,psk\ni1,plain,%s\ni2,plain,%s\n" % (PSK, PSK))
        self.assertEqual(self.ctl("device", "import", path, "--dry-run"), (3, "2 devices would be added\n"))
        self.assertEqual(self.ctl("device", "show", "i1")[0], 1)
        self.assertEqual(self.ctl("device", "import", path), (0, "2 devices added\n"))
        self.assertEqual(self.ctl("device", "show", "i2")[0], 0)

    def test_an_import_takes_json_and_attestation_keys(self):
        key = os.path.join(self.g.folder, "key.pem")
        public = subprocess.run("openssl ecparam -name prime256v1 -genkey -noout -out %s && openssl ec -in %s -pubout"
                                % (key, key), shell=True, capture_output=True, text=True, check=True).stdout
        path = os.path.join(self.g.folder, "fleet.json")
        with open(path, "w") as f:
            json.dump([{"id": "j1", "profile": "attesting", "psk": PSK, "attestation_key": public}], f)
        self.assertEqual(self.ctl("device", "import", path)[0], 0)
        _, shown = self.ctl("--json", "device", "show", "j1")
        self.assertTrue(shown["device"]["has_attestation_key"])
        pem = os.path.join(self.g.folder, "public.pem")
        with open(pem, "w") as f:
            f.write(public)
        self.assertEqual(self.ctl("device", "add", "j2", "--profile", "attesting", "--psk", PSK, "--attestation-key", pem)[0], 0)
        _, shown = self.ctl("--json", "device", "show", "j2")
        self.assertTrue(shown["device"]["has_attestation_key"])
        # A private key is no attestation key, and is not kept.
        code, told = self.ctl("device", "add", "j3", "--profile", "attesting", "--psk", PSK, "--attestation-key", key)
        self.assertEqual(code, 1)
        self.assertIn("attestation_key", told)

    def test_more_devices_than_one_turn_should_hold_are_refused(self):
        path = os.path.join(self.g.folder, "huge.csv")
        with open(path, "w") as f:
            f.write("id,profile,psk\n" + "".join("h%d,plain,%s\n" % (i, PSK) for i in range(20001)))
        code, told = self.ctl("device", "import", path)
        self.assertEqual(code, 1)
        self.assertIn("Split the file", told)

    def test_a_key_may_come_from_a_file_or_from_standard_input(self):
        path = os.path.join(self.g.folder, "psk")
        with open(path, "w") as f:
            f.write("text:factory-key-of-k1\n")
        self.assertEqual(self.ctl("device", "add", "k1", "--profile", "plain", "--psk", "@" + path)[0], 0)
        code, _, err = run("--control", self.g.control, "device", "add", "k2", "--profile", "plain", "--psk", "-",
                           text="text:factory-key-of-k2\n")
        self.assertEqual(code, 0, err)
        for device in ("k1", "k2"):
            self.assertEqual(self.g.coap("get", "time", device, "factory-key-of-" + device)[0], "2.05")

    def test_secrets_are_not_shown(self):
        self.ctl("device", "add", "s1", "--profile", "plain", "--psk", "text:a secret of sixteen")
        for words in (("device", "show", "s1"), ("--json", "device", "show", "s1"), ("audit",), ("--json", "status")):
            code, told = self.ctl(*words)
            self.assertEqual(code, 0)
            self.assertNotIn("a secret of", str(told))
            self.assertNotIn(b"a secret of".hex(), str(told))
        self.assertNotIn("a secret of", self.g.output())

    def test_the_list_is_filtered_and_stable(self):
        self.ctl("device", "add", "f1", "--profile", "texty", "--psk", PSK)
        self.ctl("device", "add", "f2", "--profile", "texty", "--psk", PSK)
        self.ctl("device", "revoke", "f2")
        _, all_of_them = self.ctl("--json", "device", "list")
        self.assertEqual([d["id"] for d in all_of_them], sorted(d["id"] for d in all_of_them))
        _, some = self.ctl("--json", "device", "list", "--profile", "texty", "--state", "revoked")
        self.assertEqual([d["id"] for d in some], ["f2"])
        code, told = self.ctl("device", "list", "--state", "asleep")
        self.assertEqual(code, 1)
        self.assertIn("quarantined", told)
        _, none = self.ctl("--json", "device", "list", "--tier", "contraindicated")
        self.assertEqual(none, [])

    def test_a_pipe_gets_whole_lines_without_colours(self):
        long = "p" + "x" * 60
        self.ctl("device", "add", long, "--profile", "plain", "--psk", PSK)
        _, told = self.ctl("device", "list")
        self.assertIn(long, told)
        self.assertNotIn("\033", told)

    def test_a_terminal_gets_colours_and_lines_that_fit(self):
        long = "t" + "y" * 60
        self.ctl("device", "add", long, "--profile", "plain", "--psk", PSK)
        shown = on_terminal("--control", self.g.control, "device", "list", columns=100)
        self.assertIn("\033[", shown)
        self.assertNotIn(long, shown)
        self.assertIn("…", shown)
        for line in shown.splitlines():
            self.assertLessEqual(len(re.sub(r"\033\[[0-9;]*m", "", line)), 100)
        plain = on_terminal("--control", self.g.control, "device", "list", columns=100, environment={"NO_COLOR": "1"})
        self.assertNotIn("\033", plain)

    def test_status_counts_what_happened(self):
        _, before = self.ctl("--json", "status")
        self.ctl("device", "add", "c1", "--profile", "plain", "--psk", "text:factory-key-0123")
        self.g.coap("get", "time", "c1", "factory-key-0123")
        # South tells its counters now and then.
        after = wait_for(lambda: (lambda s: s if s["south"]["handshakes"] > before["south"]["handshakes"] else None)(
            self.ctl("--json", "status")[1]), "south's counters")
        self.assertEqual(after["devices"]["total"], before["devices"]["total"] + 1)
        self.assertEqual(after["gateway"]["id"], "test-gateway")
        self.assertEqual(after["gateway"]["sandbox_violations"], 0)
        self.assertGreater(after["store"]["commits"], before["store"]["commits"])
        _, text = self.ctl("status")
        for word in ("gateway", "devices", "uplink", "backlog", "horizon", "store"):
            self.assertRegex(text, r"(?m)^ +%s  " % word)

    def test_every_step_is_in_the_audit_table_with_who_took_it(self):
        self.ctl("device", "add", "a1", "--profile", "plain", "--psk", PSK)
        self.ctl("device", "revoke", "a1", "--reason", "lost in the field")
        _, rows = self.ctl("--json", "audit", "--device", "a1", "-n", "10")
        self.assertEqual([r["event"] for r in rows][:2], ["device-registered", "device-standing-changed"])
        self.assertEqual({r["actor"] for r in rows}, {"uid %d" % os.getuid()})
        self.assertIn("lost in the field", str(rows))
        self.assertEqual(self.ctl("audit", "--verify"), (0, "the chain is whole\n"))
        _, rows = self.ctl("--json", "audit", "-n", "3")
        self.assertEqual(len(rows), 3)
        self.assertEqual([r["number"] for r in rows], list(range(rows[0]["number"], rows[0]["number"] + 3)))

    def test_a_reset_window_shows(self):
        self.ctl("device", "add", "w1", "--profile", "plain", "--psk", PSK)
        self.assertEqual(self.ctl("device", "reset", "w1", "--for", "1h")[0], 0)
        _, shown = self.ctl("--json", "device", "show", "w1")
        self.assertTrue(3590 <= shown["device"]["reset_window"] <= 3600)
        code, told = self.ctl("device", "reset", "w1", "--for", "8d")
        self.assertEqual(code, 1)
        self.assertIn("7 days", told)

    def test_many_operators_at_once_are_all_answered(self):
        results = []

        def ask(i):
            results.append(self.ctl("device", "add", "many%d" % i, "--profile", "plain", "--psk", PSK)[0])
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(results, [0] * 20)

    def test_relay_now_without_an_uplink_is_refused(self):
        code, told = self.ctl("relay", "now")
        self.assertEqual(code, 1)
        self.assertIn("verifier", told)


class Sealing(unittest.TestCase):
    def test_the_recovery_key_is_shown_once_and_said_what_it_is(self):
        with Gateway() as g:
            told = json.loads(g.ctl("--json", "doctor", check=False)[1])
            self.assertEqual([f["severity"] for f in told if "no recovery key" in f["what"]], ["notice"])
            self.assertFalse(g.ctl("--json", "status")[1]["gateway"]["has_recovery_key"])
            code, out, err = run("--control", g.control, "sealing", "recovery")
            self.assertEqual(code, 0)
            self.assertRegex(out, r"^[0-9a-f]{64}\n$")
            self.assertIn("shown this once", err)
            self.assertIn("away from the gateway", err)
            self.assertTrue(g.ctl("--json", "status")[1]["gateway"]["has_recovery_key"])
            self.assertNotIn("no recovery key", g.ctl("doctor", check=False)[1])
            again = g.ctl("--json", "sealing", "recovery")[1]["recovery_key"]
            self.assertNotEqual(again, out.strip())
            rows = [r for r in g.ctl("--json", "audit")[1] if r["event"] == "recovery-key-made"]
            self.assertEqual([(r["actor"], r["reason"]) for r in rows],
                             [("uid %d" % os.geteuid(), "the first of this store"),
                              ("uid %d" % os.geteuid(), "the one before is void")])
            for text in (g.output(), g.ctl("audit")[1], g.ctl("--json", "status")[1]):
                self.assertNotIn(again, str(text))
                self.assertNotIn(out.strip(), str(text))
            for name in os.listdir(g.folder):
                if name.startswith("store"):
                    with open(os.path.join(g.folder, name), "rb") as f:
                        data = f.read()
                    self.assertNotIn(bytes.fromhex(again), data)
                    self.assertNotIn(again.encode(), data)


class Doctor(unittest.TestCase):
    def test_a_doctor_names_what_deserves_attention_and_what_to_do(self):
        with Gateway() as g:
            g.add_device("d1")
            g.add_device("d2")
            code, grant = g.coap("post", "cred", "d1", "factory-key-0123")
            self.assertEqual(code, "2.04")
            code, told = g.ctl("--json", "doctor", check=False)
            self.assertEqual(code, 1)
            told = json.loads(told)
            text = "\n".join(f["what"] for f in told)
            self.assertIn("1 device still with their factory key: d1", text)
            self.assertIn("1 device that never connected: d2", text)
            self.assertTrue(all(f["remedy"] for f in told))
            kid = re.search(rb"[a-z0-9]{16}", grant).group().decode()
            key = grant[-32:].decode()
            for _ in range(2):
                g.coap("get", "time", kid, key)
            g.ctl("rotate", "d1", "--compromised")
            code, told = g.ctl("doctor", check=False)
            self.assertEqual(code, 1)
            self.assertRegex(told, r"(?s)critical  1 device with compromised keys and no other way.*d1.*somebody must go there")

    def test_suites_without_forward_secrecy_are_counted(self):
        with Gateway() as g:
            g.add_device("old")
            r = subprocess.run(["openssl", "s_client", "-dtls1_2", "-connect", "127.0.0.1:%d" % g.port, "-psk_identity",
                                "old", "-psk", b"factory-key-0123".hex(), "-cipher", "PSK-AES128-CCM8:@SECLEVEL=0"],
                               input="Q\n", capture_output=True, text=True, timeout=60)
            self.assertIn("PSK-AES128-CCM8", r.stdout)
            wait_for(lambda: "without forward secrecy: old" in g.ctl("doctor", check=False)[1], "the doctor to see it")


BUS_CONFIG = """<busconfig>
  <type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy>
</busconfig>"""


@unittest.skipUnless(shutil.which("dbus-daemon") and shutil.which("busctl"), "dbus-daemon or busctl is not installed")
class SystemBus(unittest.TestCase):
    """A bus of our own in place of the system's, whose policy lets everybody through."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="gatewayd-bus-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        os.chmod(self.folder, 0o755)
        self.address = "unix:path=%s/bus" % self.folder
        with open(self.folder + "/bus.conf", "w") as f:
            f.write(BUS_CONFIG % (self.folder + "/bus"))
        self.bus = subprocess.Popen(["dbus-daemon", "--config-file=%s/bus.conf" % self.folder, "--nofork", "--nopidfile"])
        self.addCleanup(self.end_bus)
        wait_for(lambda: os.path.exists(self.folder + "/bus"), "the bus")

    def end_bus(self):
        if self.bus.poll() is None:
            self.bus.kill()
        self.bus.wait()

    def call(self, *words, prefix=()):
        r = subprocess.run([*prefix, "busctl", "--address=" + self.address, "call", "org.gatewayd", "/org/gatewayd",
                            "org.gatewayd.Manager1", *words], capture_output=True, text=True, timeout=60)
        return r.returncode, r.stdout + r.stderr

    def test_busctl_reaches_gatewayd_and_only_root_is_heard(self):
        g = Gateway()
        g.environment["DBUS_SYSTEM_BUS_ADDRESS"] = self.address
        with g:
            wait_for(lambda: self.call("Now")[0] == 0, "gatewayd's name on the bus")
            self.assertEqual(self.call("AddDevice", "sssss", "b1", "plain", PSK, "", "")[0], 0)
            _, rows = g.ctl("--json", "audit", "--device", "b1")
            self.assertEqual(rows[0]["actor"], "uid %d" % os.getuid())
            nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
            code, told = self.call("RemoveDevice", "s", "b1", prefix=nobody)
            self.assertNotEqual(code, 0)
            self.assertIn("only root", told)
            self.assertEqual(g.ctl("device", "show", "b1")[0], 0)
            # The bus is a convenience: its end is not gatewayd's.
            core = g.role_pid("core")
            self.end_bus()
            self.assertEqual(g.ctl("status")[0], 0)
            self.assertEqual(g.role_pid("core"), core)

    def test_the_shipped_policy_lets_root_alone_through(self):
        with open(os.path.join(ROOT, "systemd/org.gatewayd.conf")) as policy:
            rules = policy.read()
        default = rules[rules.index('<policy context="default">'):]
        self.assertIn('<deny send_destination="org.gatewayd"/>', default)
        self.assertRegex(rules, r'(?s)<policy user="root">\s*<allow send_destination="org.gatewayd"/>')


class StatusLine(unittest.TestCase):
    def lines_of(self, address, environment):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind(address)
            s.settimeout(0.2)
            g = Gateway()
            g.environment["NOTIFY_SOCKET"] = environment
            with g:
                def look():
                    try:
                        return re.search(r"STATUS=(0 devices .*)", s.recv(4096).decode())
                    except socket.timeout:
                        return None
                return wait_for(look, "the status line", 30).group(1)

    def test_the_service_manager_is_told_how_the_gateway_is(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("0 sessions", self.lines_of(folder + "/notify", folder + "/notify"))

    def test_also_one_that_listens_on_an_abstract_socket(self):
        name = "gatewayd-test-%d" % os.getpid()
        self.assertIn("0 sessions", self.lines_of("\0" + name, "@" + name))


class Crashes(unittest.TestCase):
    def test_what_was_reported_done_survives_the_death_of_core(self):
        with Gateway() as g:
            for i in range(5):
                g.add_device("x%d" % i)
                mark = g.mark()
                os.kill(g.role_pid("core"), signal.SIGKILL)
                g.wait_event("role-started", mark, reason="core")
                wait_for(lambda: g.ctl("status", check=False)[0] == 0, "core to answer again")
            _, devices = g.ctl("--json", "device", "list")
            self.assertEqual([d["id"] for d in devices], ["x%d" % i for i in range(5)])
            self.assertEqual(g.ctl("audit", "--verify")[0], 0)

    def test_a_changed_audit_row_is_found(self):
        g = Gateway().start()
        self.addCleanup(g.close)
        for i in range(3):
            g.add_device("x%d" % i)
        g.stop()
        with sqlite3.connect(os.path.join(g.folder, "store.db")) as store:
            changed = store.execute("UPDATE audit SET reason = 'nothing' WHERE device = 'x1'").rowcount
            store.commit()
        store.close()
        self.assertEqual(changed, 1)
        g.start()
        code, told = g.ctl("audit", "--verify", check=False)
        self.assertEqual(code, 1)
        self.assertIn("row 2", told)
        g.stop()

    def test_the_socket_is_for_owner_and_group(self):
        with Gateway() as g:
            self.assertEqual(stat.S_IMODE(os.stat(g.control).st_mode), 0o660)
            nobody = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", PROGRAM,
                                     "--control", g.control, "status"], capture_output=True, text=True)
            self.assertEqual(nobody.returncode, 1)
            self.assertIn("ermission denied", nobody.stderr)


if __name__ == "__main__":
    unittest.main()

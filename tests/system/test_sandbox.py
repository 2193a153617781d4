# SPDX-License-Identifier: Apache-2.0
"""The walls as they stand around the running daemon, seen from outside. What is tried from inside is in
tests/unit/test_sandbox.c."""

import os
import re
import shutil
import signal
import subprocess
import unittest

from gateway import BUILD, Gateway, wait_for

ROLES = ("core", "south", "north")

def status(pid):
    with open("/proc/%d/status" % pid) as lines:
        return dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)


def open_files(pid):
    folder = "/proc/%d/fd" % pid
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except FileNotFoundError:
            pass
    return found


def mapped_files(pid):
    with open("/proc/%d/maps" % pid) as lines:
        return {line.split(None, 5)[5].strip() for line in lines if len(line.split(None, 5)) == 6}


def memory_holds(pid, secrets):
    """Which of the secrets stand anywhere in the memory of a process."""
    found = set()
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r\S*", line)
            if not match or "[v" in line:
                continue
            start, end = (int(x, 16) for x in match.groups())
            if end - start > 1 << 32:
                continue  # a sanitizer's shadow: never touched
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except OSError:
                continue
            found.update(s for s in secrets if s in data)
    return found


class Walls(unittest.TestCase):
    def processes(self, gateway):
        return {"supervisor": gateway.process.pid, **{role: gateway.role_pid(role) for role in ROLES}}

    def test_every_process_has_no_new_privileges_a_filter_and_no_core_dump(self):
        with Gateway() as g:
            for role, pid in self.processes(g).items():
                with self.subTest(role):
                    state = status(pid)
                    self.assertEqual(state["NoNewPrivs"], "1")
                    self.assertEqual(state["Seccomp"], "2")
                    # The supervisor's filter and the role's own.
                    self.assertEqual(state.get("Seccomp_filters", "2"), "1" if role == "supervisor" else "2")
                    with open("/proc/%d/limits" % pid) as f:
                        limits = f.read()
                    self.assertRegex(limits, r"Max core file size +0 +0 ")

    def test_only_core_has_the_store_open_or_mapped(self):
        with Gateway() as g:
            g.add_device("d1")
            g.coap("post", "cred", "d1", "factory-key-0123")
            for role, pid in self.processes(g).items():
                with self.subTest(role):
                    files = [f for f in open_files(pid) if f.startswith(g.folder)]
                    maps = [f for f in mapped_files(pid) if f.startswith(g.folder)]
                    if role == "core":
                        self.assertTrue(any(f.endswith("store.db") for f in files), files)
                        self.assertTrue(any(f.endswith("-shm") for f in maps), maps)
                    else:
                        self.assertEqual(files + maps, [])

    def test_no_other_process_than_core_ever_maps_a_sealing_key(self):
        with Gateway() as g:
            g.add_device("d1")
            code, _ = g.coap("post", "cred", "d1", "factory-key-0123")
            self.assertEqual(code, "2.04")
            with open(os.path.join(g.folder, "sealing.key"), "rb") as f:
                text = f.read()
            text = text.strip() if len(text) > 32 else text
            key = bytes.fromhex(text.decode()) if len(text) == 64 else text
            self.assertEqual(len(key), 32)
            for role, pid in self.processes(g).items():
                with self.subTest(role):
                    # It stands in core's memory: so the search would find it elsewhere too.
                    self.assertEqual(memory_holds(pid, {key, text}) != set(), role == "core")

    def test_a_factory_key_leaves_core_only_for_its_own_handshake(self):
        with Gateway() as g:
            g.add_device("quiet", psk="a key that nobody has used yet")
            g.add_device("d1", psk="factory-key-0123")
            g.coap("get", "time", "d1", "factory-key-0123")
            for role in ("south", "north"):
                with self.subTest(role):
                    self.assertEqual(memory_holds(g.role_pid(role), {b"a key that nobody has used yet"}), set())

    def test_core_and_supervisor_have_no_ip_socket_but_the_one_that_waits_for_devices(self):
        with Gateway() as g:
            g.add_device("d1")
            g.coap("get", "time", "d1", "factory-key-0123")
            inet = set()
            for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
                with open("/proc/net/" + table) as lines:
                    inet.update((table, "socket:[%s]" % line.split()[9]) for line in lines.readlines()[1:])
            for role, pid in self.processes(g).items():
                mine = {t for t, inode in inet if inode in open_files(pid)}
                with self.subTest(role):
                    self.assertEqual(mine, {"udp"} if role in ("supervisor", "south") else set())

    def test_the_whole_job_runs_without_one_refused_system_call(self):
        g = Gateway()
        self.addCleanup(g.close)
        pair = [os.path.join(g.folder, name) for name in ("key.pem", "certificate.pem")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-subj", "/CN=gateway", "-keyout", pair[0], "-out", pair[1]], check=True, capture_output=True)
        g.write_config(north='verifier = "collector"; url = "https://localhost:1/evidence"; ca_file = "%s"; '
                             'client_key = "%s"; client_certificate = "%s";' % (pair[1], pair[0], pair[1]))
        with g:
            g.add_device("d1")
            code, grant = g.coap("post", "cred", "d1", "factory-key-0123")
            self.assertEqual(code, "2.04")
            kid = re.search(rb"[a-z0-9]{16}", grant).group().decode()
            key = grant[-32:].decode()
            for path in ("me", "time", ".well-known/core", "nothing/there", "rats/result"):
                g.coap("get", path, kid, key)
            g.coap("post", "rats/nonce", kid, key)
            g.coap("get", "me", "d1", "a wrong key of d1")
            for words in (("status",), ("doctor",), ("device", "list"), ("device", "show", "d1"), ("audit",),
                          ("audit", "--verify"), ("rotate", "d1"), ("device", "remove", "d1")):
                g.ctl(*words, check=False)
            mark = g.mark()
            g.process.send_signal(signal.SIGHUP)
            g.wait_event("config-reloaded", mark)
            g.wait_event("uplink-down")
            g.stop()
            self.assertNotIn("sandbox refused", g.output())
            self.assertEqual(g.events("sandbox-violation"), [])


    def test_a_role_comes_back_after_an_upgrade_has_replaced_the_program(self):
        g = Gateway()
        self.addCleanup(g.close)
        program = os.path.join(g.folder, "gatewayd")
        shutil.copy(g.program, program)
        g.program = program
        with g:
            os.unlink(program)
            with open(program, "w") as f:
                f.write("another version\n")
            for role in ("core", "south", "north"):
                pid, mark = wait_for(lambda: g.role_pid(role), role), g.mark()
                os.kill(pid, signal.SIGKILL)
                g.wait_event("role-started", mark, reason=role)
            wait_for(lambda: g.ctl("status", check=False)[0] == 0, "core to answer")


class WithoutLandlock(unittest.TestCase):
    def gateway(self, top):
        g = Gateway(top=top)
        script = os.path.join(g.folder, "run")
        with open(script, "w") as f:
            f.write("#!/bin/sh\nexec %s %s \"$@\"\n" % (os.path.join(BUILD, "system", "hide_landlock"), g.program))
        os.chmod(script, 0o700)
        g.program = script
        self.addCleanup(g.close)
        return g

    def test_the_start_is_refused_with_the_way_out(self):
        g = self.gateway("")
        g.start(wait=False)
        self.assertNotEqual(g.process.wait(60), 0)
        wait_for(lambda: "no Landlock" in g.output(), "the reason")
        self.assertIn('sandbox = "weak"', g.output())
        g.process = None

    def test_a_weak_sandbox_starts_and_says_so(self):
        g = self.gateway('sandbox = "weak";')
        g.start()
        g.wait_event("sandbox-weak", role="core")
        _, shown = g.ctl("status", "--json")
        self.assertEqual(shown["gateway"]["sandbox"], "weak")
        code, told = g.ctl("doctor", check=False)
        self.assertEqual(code, 1)
        self.assertIn("without Landlock", told)
        self.assertEqual(status(g.role_pid("core"))["Seccomp"], "2")
        g.stop()


if __name__ == "__main__":
    unittest.main()

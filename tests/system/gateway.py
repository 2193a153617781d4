# SPDX-License-Identifier: Apache-2.0
"""A real gatewayd for a test: a folder of its own, a free port, the daemon's own output, gatewayctl and
coap-client beside it. Nothing here waits by sleeping: it waits for a condition, with a deadline."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("GATEWAYD_BUILD", os.path.join(ROOT, "build"))
SLOW = 5 if "sanitize" in BUILD or "coverage" in BUILD else 1

PROFILES = """
        { name = "plain"; rotate_every = "30d"; grace = "1d"; on_overdue = "restrict"; },
        { name = "attesting"; rotate_every = "30d"; grace = "1d"; attestation = "eat"; attest_every = "7d";
          references = ( { swname = "sensor-fw"; swversion = "1.0"; } ); },
        { name = "texty"; rotate_every = "30d"; grace = "1d"; text_grant = true; }
"""


def wait_for(condition, what, seconds=20):
    """Calls `condition` until it gives something true, and returns that."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("waited %d s in vain for %s" % (seconds * SLOW, what))
        time.sleep(0.01)  # between two looks; what ends the wait is the condition


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_running(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Gateway:
    def __init__(self, profiles=PROFILES, top="", north='verifier = "none";', testclock=False, port=None,
                 store=None):
        self.folder = tempfile.mkdtemp(prefix="gatewayd-test-")
        self.store = store or self.folder  # the folder that the store lies in
        self.port = port or free_port()
        self.program = os.path.join(BUILD, "testclock" if testclock else "", "gatewayd")
        self.gatewayctl = os.path.join(BUILD, "gatewayctl")
        self.config_path = os.path.join(self.folder, "gatewayd.conf")
        self.control = os.path.join(self.folder, "control")
        self.clock_path = os.path.join(self.folder, "clock")
        self.environment = dict(os.environ)
        if testclock:
            with open(self.clock_path, "wb") as f:
                f.write(bytes(16))
            self.environment.update(GATEWAYD_TEST_CLOCK=self.clock_path, GATEWAYD_TEST_CLOCK_SYNCHRONIZED="1")
        self.write_config(profiles, top, north)
        self.process = None
        self.lines = []
        self.changed = threading.Condition()

    def write_config(self, profiles=PROFILES, top="", north='verifier = "none";'):
        with open(self.config_path, "w") as f:
            f.write("""
gateway_id = "test-gateway";
listen = "127.0.0.1:%d";
store = "%s/store.db";
control = "%s";
%s
north = { %s };
profiles = ( %s );
""" % (self.port, self.store, self.control, top, north, profiles))

    # ---- the daemon ----
    def start(self, wait=True):
        self.process = subprocess.Popen([self.program, "--config", self.config_path], env=self.environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = []
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        if wait:
            self.wait_event("started")
        return self

    def _read(self, pipe):
        for raw in pipe:
            with self.changed:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()
        pipe.close()

    def stop(self, expect=0):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20 * SLOW)
        if expect is not None and code != expect:
            raise AssertionError("gatewayd ended with %s\n%s" % (code, self.output()))
        self.process = None
        return code

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.output())
        try:
            if self.process and kind is None:
                self.stop()
        finally:
            self.close()

    def kill(self):
        """As a power cut ends it: the supervisor and all roles, without a word."""
        pids = [pid for pid in (self.role_pid(role) for role in ("core", "south", "north")) if pid]
        for pid in [self.process.pid] + pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it followed the one before
        self.process.wait()
        self.process = None
        wait_for(lambda: not any(is_running(pid) for pid in pids), "the end of all roles")

    def output(self):
        with self.changed:
            return "\n".join(self.lines)

    def role_pid(self, role):
        """The pid of a running role, or None."""
        try:
            children = open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)).read().split()
        except FileNotFoundError:
            return None
        for pid in children:
            try:
                arguments = open("/proc/%s/cmdline" % pid, "rb").read().split(b"\0")
            except FileNotFoundError:
                continue
            if b"--role" in arguments and arguments[arguments.index(b"--role") + 1] == role.encode():
                return int(pid)
        return None

    # ---- what it says ----
    def mark(self):
        with self.changed:
            return len(self.lines)

    def events(self, name, since=0, **fields):
        """Events of this name, as dictionaries, whose fields equal or (for reason) contain what is given."""
        found = []
        with self.changed:
            lines = self.lines[since:]
        for line in lines:
            words = line.split(" ", 1)
            if words[0] != name:
                continue
            event = dict(word.split("=", 1) for word in shlex.split(words[1] if len(words) > 1 else "") if "=" in word)
            if all(v in event.get(k, "") if k == "reason" else event.get(k) == v for k, v in fields.items()):
                found.append(event)
        return found

    def wait_event(self, name, since=0, seconds=20, **fields):
        deadline = time.monotonic() + seconds * SLOW
        while True:
            found = self.events(name, since, **fields)
            if found:
                return found[0]
            with self.changed:
                if self.process.poll() is not None and not self.changed.wait(0.3):
                    raise AssertionError("gatewayd ended with %s:\n%s" % (self.process.poll(), "\n".join(self.lines)))
                if time.monotonic() > deadline:
                    raise AssertionError("no event %s %s:\n%s" % (name, fields, "\n".join(self.lines)))
                self.changed.wait(0.05)

    # ---- time, in the test-clock build ----
    def set_clock(self, both=0, wall_alone=0):
        import mmap
        import struct
        with open(self.clock_path, "r+b") as f, mmap.mmap(f.fileno(), 16) as m:
            m[0:16] = struct.pack("=qq", both, wall_alone)

    # ---- operators ----
    def ctl(self, *words, check=True):
        """gatewayctl; returns (exit status, standard output). With --json among the words the output is parsed."""
        r = subprocess.run([self.gatewayctl, "--control", self.control, *words], capture_output=True, text=True,
                           timeout=60 * SLOW)
        if check and r.returncode not in (0, 3):
            raise AssertionError("gatewayctl %s: %d\n%s%s\n%s" % (" ".join(words), r.returncode, r.stdout, r.stderr,
                                                                  self.output()))
        if "--json" in words and r.returncode in (0, 3):
            return r.returncode, json.loads(r.stdout)
        return r.returncode, r.stdout + r.stderr

    def add_device(self, device, profile="plain", psk="factory-key-0123", attestation_key=None):
        words = ["device", "add", device, "--profile", profile, "--psk", "text:" + psk]
        if attestation_key:
            words += ["--attestation-key", attestation_key]
        self.ctl(*words)

    # ---- devices ----
    def coap(self, method, path, user, key, payload=None, form=None, accept=None, client="openssl", seconds=10,
             more=(), raw=False):
        """coap-client with a pre-shared key; returns (code as "2.05", payload bytes). No answer: (None, b"")."""
        return self.coap_client(["-u", user, "-k", key], method, path, payload, form, accept, client, seconds, more, raw)

    def coap_certificate(self, method, path, identity, anchors, payload=None, form=None, accept=None,
                         client="openssl", seconds=10, more=(), raw=False):
        """The same with a certificate: `identity` has the paths of its PEM files (pki.Identity), `anchors` is that of
        what the client trusts."""
        return self.coap_client(["-c", identity.certificate_file, "-j", identity.key_file, "-R", anchors], method, path,
                                payload, form, accept, client, seconds, more, raw)

    def coap_client(self, credentials, method, path, payload, form, accept, client, seconds, more, raw):
        out = tempfile.NamedTemporaryFile(dir=self.folder, delete=False)
        out.close()
        command = ["coap-client-" + client, "-m", method, *credentials, "-o", out.name, "-v", "6",
                   "-B", str(seconds * SLOW)]
        if payload is not None:
            source = tempfile.NamedTemporaryFile(dir=self.folder, delete=False)
            source.write(payload)
            source.close()
            command += ["-f", source.name]
        if form is not None:
            command += ["-t", str(form)]
        if accept is not None:
            command += ["-A", str(accept)]
        command += [*more, "coaps://127.0.0.1:%d/%s" % (self.port, path)]
        r = subprocess.run(command, capture_output=True, timeout=(seconds + 20) * SLOW)
        text = (r.stdout + r.stderr).decode("utf-8", "replace")
        body = open(out.name, "rb").read()
        codes = [c for c in re.findall(r"v:1 t:(?:ACK|CON|NON) c:(\d\.\d\d)", text) if c != "0.00" and c[0] != "0"]
        code = codes[-1] if codes else None
        if raw:
            return code, body, text
        return code, body

# SPDX-License-Identifier: Apache-2.0
"""gateway-sim in step mode: one method per command, for tests and the demo."""

import json
import subprocess


class Simulator:
    """A fleet that does what it is told: `Simulator(program, gateway="127.0.0.1:5684", devices=50)`; further
    options of gateway-sim as keywords (`lost_reply=10`, `poll=True`)."""

    def __init__(self, program, log=None, **options):
        self.words = [program, "--control"]
        for name, value in options.items():
            if value is None or value is False:
                continue
            self.words.append("--" + name.replace("_", "-"))
            if value is not True:
                self.words.append(str(value))
        self.log = log
        self.process = None

    def write_registry(self):
        """Writes the file of --import-out (and --state) and ends."""
        subprocess.run([w for w in self.words if w != "--control"] + ["--write-only"], check=True)

    def start(self):
        self.process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True)
        return self

    def ask(self, *words, check=True):
        """One command, its answer as a dictionary."""
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("gateway-sim ended: %s" % self.process.wait())
        answer = json.loads(line)
        if check and not answer["ok"]:
            raise AssertionError("gateway-sim: %s: %s" % (" ".join(str(w) for w in words), line.strip()))
        return answer

    def settle(self, seconds=60, check=True):
        return self.ask("settle", seconds, check=check)

    def advance(self, seconds):
        return self.ask("advance", seconds)

    def books(self, what=""):
        return self.ask("books", what)

    def close(self):
        if self.process and self.process.poll() is None:
            try:
                self.process.stdin.write("quit\n")
                self.process.stdin.flush()
                self.process.communicate(timeout=30)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        self.close()

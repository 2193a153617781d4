# SPDX-License-Identifier: Apache-2.0
"""A disk for a test, by build/system/diskfs: what it can do is said in diskfs.c."""

import errno
import os
import subprocess
import tempfile

from gateway import BUILD, SLOW

PROGRAM = os.path.join(BUILD, "system", "diskfs")
IS_THERE = os.path.exists(PROGRAM) and os.access("/dev/fuse", os.R_OK | os.W_OK)
WHY_NOT = "no /dev/fuse here: a file system of our own cannot be mounted"


class Disk:
    """Mounted at `path`; begins with the files of `image`, a folder, durable."""

    def __init__(self, image=None):
        self.path = tempfile.mkdtemp(prefix="gatewayd-disk-")
        self.process = subprocess.Popen([PROGRAM, self.path] + ([image] if image else []), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        if line != "ready":
            raise AssertionError("diskfs does not mount: %r" % line)

    def tell(self, *words):
        """A command; returns the counts (syncs, syncs under way, writes, bytes, whether the power has gone)."""
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer or answer[0] != "ok":
            raise AssertionError("diskfs %s: %s" % (words, answer))
        return [int(n) for n in answer[1:]]

    def cut(self, seed, folder, after=0):
        self.tell("cut", seed, folder, after)

    def is_cut(self):
        return self.tell("status")[4] == 1

    def full(self, size=None):
        self.tell("full", *([] if size is None else [size]))

    def fail(self, what, error=errno.EIO, count=0):
        """`what`: "write" or "sync"; the next `count` of them, or all."""
        self.tell("error", what, error, count)

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10 * SLOW)
            except subprocess.TimeoutExpired:
                # Somebody is still in there: the name goes, the rest when they have gone.
                subprocess.run(["fusermount3", "-uz", self.path], check=False)
                self.process.wait(10 * SLOW)
        self.process.stdout.close()
        os.rmdir(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

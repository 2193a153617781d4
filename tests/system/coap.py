# SPDX-License-Identifier: Apache-2.0
"""CoAP messages by hand (RFC 7252), for tests that choose every datagram, over a DTLS session made by
build/system/dtls_peer."""

import os
import queue
import subprocess
import threading

from gateway import BUILD, SLOW

GET, POST, PUT, DELETE = 1, 2, 3, 4
CON, NON, ACK, RST = 0, 1, 2, 3
OBSERVE, URI_PATH, CONTENT_FORMAT, MAX_AGE, URI_QUERY, ACCEPT, BLOCK2, BLOCK1, SIZE1 = 6, 11, 12, 14, 15, 17, 23, 27, 60


def uint(value):
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def encode(kind, code, mid, token=b"", options=(), payload=b""):
    out = bytes([0x40 | kind << 4 | len(token), code]) + mid.to_bytes(2, "big") + token
    last = 0
    for number, value in sorted(options, key=lambda o: o[0]):
        delta, size = number - last, len(value)
        last = number

        def nibble(n):
            return (n, b"") if n < 13 else (13, bytes([n - 13])) if n < 269 else (14, (n - 269).to_bytes(2, "big"))
        (d, dx), (s, sx) = nibble(delta), nibble(size)
        out += bytes([d << 4 | s]) + dx + sx + value
    return out + (b"\xff" + payload if payload else b"")


class Message:
    def __init__(self, data):
        self.kind, size = data[0] >> 4 & 3, data[0] & 15
        self.code, self.mid, self.token = data[1], int.from_bytes(data[2:4], "big"), data[4:4 + size]
        self.options, at, number = [], 4 + size, 0
        while at < len(data) and data[at] != 0xff:
            d, s = data[at] >> 4, data[at] & 15
            at += 1
            values = []
            for n in (d, s):
                if n == 13:
                    values.append(13 + data[at])
                    at += 1
                elif n == 14:
                    values.append(269 + int.from_bytes(data[at:at + 2], "big"))
                    at += 2
                else:
                    values.append(n)
            number += values[0]
            self.options.append((number, data[at:at + values[1]]))
            at += values[1]
        self.payload = data[at + 1:] if at < len(data) else b""

    def option(self, number):
        found = [int.from_bytes(v, "big") for n, v in self.options if n == number]
        return found[0] if found else None

    @property
    def status(self):
        return "%d.%02d" % (self.code >> 5, self.code & 31)


def path_options(path):
    return [(URI_PATH, p.encode()) for p in path.split("/") if p]


class Peer:
    """A DTLS session. `result` is "connected SUITE new" or "failed REASON"."""

    def __init__(self, gateway, identity, key, **options):
        words = ["%s=%s" % (k, v) for k, v in options.items()]
        self.process = subprocess.Popen([os.path.join(BUILD, "system", "dtls_peer"), str(gateway.port), identity, key,
                                         *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.mid = 100
        threading.Thread(target=self._read, daemon=True).start()
        self.result = self.lines.get(timeout=30 * SLOW)

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("ended")

    @property
    def is_connected(self):
        return self.result.startswith("connected")

    def send(self, data):
        self.process.stdin.write("s %s\n" % data.hex())
        self.process.stdin.flush()

    def tls_unique(self):
        """Of the session (RFC 5929 §3); only while nothing else is expected."""
        self.process.stdin.write("u\n")
        self.process.stdin.flush()
        line = self.lines.get(timeout=10 * SLOW)
        assert line.startswith("u "), line
        return bytes.fromhex(line[2:])

    def receive(self, seconds=10):
        """The next message, or None when the session was closed or nothing came."""
        try:
            line = self.lines.get(timeout=seconds * SLOW)
        except queue.Empty:
            return None
        return Message(bytes.fromhex(line[2:])) if line.startswith("r ") else None

    def request(self, method, path, options=(), payload=b"", mid=None, token=None, seconds=10, kind=CON):
        """Sends a request and returns its response; a separate response is acknowledged."""
        if mid is None:
            self.mid += 1
            mid = self.mid
        token = mid.to_bytes(2, "big") if token is None else token
        self.send(encode(kind, method, mid, token, path_options(path) + list(options), payload))
        while True:
            m = self.receive(seconds)
            if m is None:
                return None
            if m.code == 0 or m.token != token:
                continue
            if m.kind == CON:
                self.send(encode(ACK, 0, m.mid))
            return m

    def wait_closed(self, seconds=10):
        while True:
            line = self.lines.get(timeout=seconds * SLOW)
            if line in ("closed", "ended"):
                return True

    def close(self, word="c"):
        """"c": close_notify; "x": without a word."""
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass
        self.process.wait(10 * SLOW)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

# SPDX-License-Identifier: Apache-2.0
"""For the tests of south: the real south with a scripted core behind it (south_harness.c), and DTLS
clients on OpenSSL whose every datagram passes through the test's hands, to be lost, kept, sent twice or
changed. Nothing waits by sleeping: it waits for a datagram or a line, with a deadline."""

import ctypes
import json
import os
import queue
import select
import socket
import subprocess
import threading
import time

from coap import ACK, CON, GET, Message, encode, path_options
from gateway import BUILD, SLOW

ssl = ctypes.CDLL("libssl.so.3")
crypto = ctypes.CDLL("libcrypto.so.3")
P, I, L, S = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p
PSK_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_uint, P, S, P, ctypes.c_uint, P, ctypes.c_uint)


def _declare(library, name, result, *arguments):
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


DTLS_client_method = _declare(ssl, "DTLS_client_method", P)
SSL_CTX_new = _declare(ssl, "SSL_CTX_new", P, P)
SSL_CTX_free = _declare(ssl, "SSL_CTX_free", None, P)
SSL_CTX_set_cipher_list = _declare(ssl, "SSL_CTX_set_cipher_list", I, P, S)
SSL_CTX_set_psk_client_callback = _declare(ssl, "SSL_CTX_set_psk_client_callback", None, P, PSK_CALLBACK)
SSL_CTX_set_options = _declare(ssl, "SSL_CTX_set_options", ctypes.c_uint64, P, ctypes.c_uint64)
SSL_CTX_set_tlsext_max_fragment_length = _declare(ssl, "SSL_CTX_set_tlsext_max_fragment_length", I, P, ctypes.c_uint8)
SSL_new = _declare(ssl, "SSL_new", P, P)
SSL_free = _declare(ssl, "SSL_free", None, P)
SSL_set_bio = _declare(ssl, "SSL_set_bio", None, P, P, P)
SSL_set_connect_state = _declare(ssl, "SSL_set_connect_state", None, P)
SSL_do_handshake = _declare(ssl, "SSL_do_handshake", I, P)
SSL_read = _declare(ssl, "SSL_read", I, P, P, I)
SSL_write = _declare(ssl, "SSL_write", I, P, P, I)
SSL_shutdown = _declare(ssl, "SSL_shutdown", I, P)
SSL_get_error = _declare(ssl, "SSL_get_error", I, P, I)
SSL_get_shutdown = _declare(ssl, "SSL_get_shutdown", I, P)
SSL_ctrl = _declare(ssl, "SSL_ctrl", L, P, I, L, P)
SSL_get_current_cipher = _declare(ssl, "SSL_get_current_cipher", P, P)
SSL_CIPHER_get_name = _declare(ssl, "SSL_CIPHER_get_name", S, P)
SSL_get1_session = _declare(ssl, "SSL_get1_session", P, P)
SSL_set_session = _declare(ssl, "SSL_set_session", I, P, P)
SSL_session_reused = _declare(ssl, "SSL_session_reused", I, P)
SSL_SESSION_has_ticket = _declare(ssl, "SSL_SESSION_has_ticket", I, P)
SSL_SESSION_get_id = _declare(ssl, "SSL_SESSION_get_id", P, P, ctypes.POINTER(ctypes.c_uint))
SSL_SESSION_free = _declare(ssl, "SSL_SESSION_free", None, P)
TIMER_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_uint, P, ctypes.c_uint)
DTLS_set_timer_cb = _declare(ssl, "DTLS_set_timer_cb", None, P, TIMER_CALLBACK)
SSL_renegotiate = _declare(ssl, "SSL_renegotiate", I, P)
SSL_CTX_use_certificate_chain_file = _declare(ssl, "SSL_CTX_use_certificate_chain_file", I, P, S)
SSL_CTX_use_PrivateKey_file = _declare(ssl, "SSL_CTX_use_PrivateKey_file", I, P, S, I)
SSL_get_finished = _declare(ssl, "SSL_get_finished", ctypes.c_size_t, P, P, ctypes.c_size_t)
SSL_get_peer_cert_chain = _declare(ssl, "SSL_get_peer_cert_chain", P, P)
SSL_CTX_ctrl = _declare(ssl, "SSL_CTX_ctrl", L, P, I, L, P)
OPENSSL_sk_num = _declare(crypto, "OPENSSL_sk_num", I, P)
OPENSSL_sk_value = _declare(crypto, "OPENSSL_sk_value", P, P, I)
i2d_X509 = _declare(crypto, "i2d_X509", I, P, P)
BIO_s_mem = _declare(crypto, "BIO_s_mem", P)
BIO_new = _declare(crypto, "BIO_new", P, P)
BIO_read = _declare(crypto, "BIO_read", I, P, P, I)
BIO_write = _declare(crypto, "BIO_write", I, P, P, I)
BIO_ctrl = _declare(crypto, "BIO_ctrl", L, P, I, L, P)
ERR_clear_error = _declare(crypto, "ERR_clear_error", None)
ERR_get_error = _declare(crypto, "ERR_get_error", ctypes.c_ulong)
ERR_reason_error_string = _declare(crypto, "ERR_reason_error_string", S, ctypes.c_ulong)

SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN = 2, 6
SSL_CTRL_SET_MTU, DTLS_CTRL_GET_TIMEOUT, DTLS_CTRL_HANDLE_TIMEOUT = 17, 73, 74
BIO_C_SET_BUF_MEM_EOF_RETURN = 130
SSL_OP_NO_QUERY_MTU, SSL_OP_NO_TICKET = 1 << 12, 1 << 14

DEFAULT_SUITES = "PSK-AES128-CCM8:PSK-AES128-GCM-SHA256:@SECLEVEL=0"
CERTIFICATE_SUITES = "ECDHE-ECDSA-AES128-CCM8:ECDHE-ECDSA-AES128-GCM-SHA256:@SECLEVEL=0"
KEY = b"0123456789abcdef"


def moved_clock(**variables):
    """An environment in which preload/clock.c moves the clocks."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload", "clock.c")
    library = os.path.join(BUILD, "system", "clock.so")
    if not os.path.exists(library) or os.path.getmtime(library) < os.path.getmtime(source):
        made = "%s.%d" % (library, os.getpid())
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", source, "-o", made], check=True)
        os.rename(made, library)
    return dict({"LD_PRELOAD": library,
                 "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}, **variables)


def small_quarantine():
    """An environment in which AddressSanitizer gives freed memory back, for tests that measure it."""
    return {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=0:thread_local_quarantine_size_kb=0"}


def client_program(name, *libraries):
    """Builds clients/NAME.c, which stands on another TLS library. None where that is not installed."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients", name + ".c")
    program = os.path.join(BUILD, "system", name)
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        made = "%s.%d" % (program, os.getpid())
        if subprocess.run([os.environ.get("CC", "cc"), "-O2", source, *libraries, "-o", made],
                          stderr=subprocess.DEVNULL).returncode != 0:
            return None
        os.rename(made, program)
    return program


class Closed(Exception):
    """The session has ended; the text says how."""


def records(data):
    """The records of a datagram or of several: (content type, epoch, bytes)."""
    found, at = [], 0
    while at + 13 <= len(data):
        size = 13 + int.from_bytes(data[at + 11:at + 13], "big")
        found.append((data[at], int.from_bytes(data[at + 3:at + 5], "big"), data[at:at + size]))
        at += size
    return found


def handshake_type(datagram):
    return datagram[13] if len(datagram) > 13 and datagram[0] == 22 and datagram[3:5] == b"\0\0" else None


class Device:
    """A DTLS client. `on_send` and `on_receive` see each datagram and return the list of those that are to
    go on instead."""

    def __init__(self, south, identity=b"dev", key=KEY, suites=DEFAULT_SUITES, source=None, host=None, on_send=None,
                 on_receive=None, resume=None, max_fragment=0, options=SSL_OP_NO_QUERY_MTU, patience_usec=0, certificate=None):
        self.south, self.identity, self.key = south, identity, key
        self.on_send = on_send or (lambda datagram: [datagram])
        self.on_receive = on_receive or (lambda datagram: [datagram])
        host = host or south.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        if source and source[1]:  # else the kernel gives one port to two of them
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(source or (("::1" if family == socket.AF_INET6 else "127.0.0.1"), 0))
        self.socket.setblocking(False)
        self.to = (host, south.port)
        self.sent, self.received = [], []  # datagrams on the wire
        self.largest = 0
        self.is_connected = False
        self.mid = int.from_bytes(os.urandom(2), "big")
        self._callback = PSK_CALLBACK(self._give_key)
        self.context = SSL_CTX_new(DTLS_client_method())
        SSL_CTX_set_options(self.context, options)
        assert SSL_CTX_set_cipher_list(self.context, suites.encode()) == 1
        SSL_CTX_set_psk_client_callback(self.context, self._callback)
        if certificate:  # paths of the chain and the key, PEM
            assert SSL_CTX_use_certificate_chain_file(self.context, certificate[0].encode()) == 1
            assert SSL_CTX_use_PrivateKey_file(self.context, certificate[1].encode(), 1) == 1
        if max_fragment:
            assert SSL_CTX_set_tlsext_max_fragment_length(self.context, max_fragment) == 1
        self.ssl = SSL_new(self.context)
        self.rbio, self.wbio = BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem())
        for bio in (self.rbio, self.wbio):
            BIO_ctrl(bio, BIO_C_SET_BUF_MEM_EOF_RETURN, -1, None)
        SSL_set_bio(self.ssl, self.rbio, self.wbio)
        SSL_set_connect_state(self.ssl)
        SSL_ctrl(self.ssl, SSL_CTRL_SET_MTU, 1200, None)
        if patience_usec:  # never waits longer than this before it sends its flight again
            self._timer = TIMER_CALLBACK(lambda _ssl, usec: min(2 * usec or patience_usec, patience_usec))
            DTLS_set_timer_cb(self.ssl, self._timer)
        if resume:
            assert SSL_set_session(self.ssl, resume) == 1

    def _give_key(self, _ssl, _hint, identity, identity_size, key, key_size):
        if len(self.identity) + 1 > identity_size or len(self.key) > key_size:
            return 0
        ctypes.memmove(identity, self.identity + b"\0", len(self.identity) + 1)
        ctypes.memmove(key, self.key, len(self.key))
        return len(self.key)

    @property
    def source(self):
        return self.socket.getsockname()[:2]

    @property
    def suite(self):
        return SSL_CIPHER_get_name(SSL_get_current_cipher(self.ssl)).decode()

    @property
    def tls_unique(self):
        buffer = ctypes.create_string_buffer(64)
        size = SSL_get_finished(self.ssl, buffer, len(buffer))
        return buffer.raw[:size]

    def server_chain(self):
        """What the server has sent: DER, the leaf first."""
        chain, found = SSL_get_peer_cert_chain(self.ssl), []
        for i in range(max(0, OPENSSL_sk_num(chain))):
            certificate = OPENSSL_sk_value(chain, i)
            buffer = ctypes.create_string_buffer(i2d_X509(certificate, None))
            i2d_X509(certificate, ctypes.byref(ctypes.c_void_p(ctypes.addressof(buffer))))
            found.append(buffer.raw)
        return found

    # -- datagrams

    def raw(self, datagram):
        """Sends bytes of the test's own from this device's address."""
        self.sent.append(datagram)
        self.socket.sendto(datagram, self.to)

    def flush(self):
        buffer = ctypes.create_string_buffer(65536)
        size = BIO_read(self.wbio, buffer, len(buffer))
        if size <= 0:
            return
        datagram = b""
        for _, _, record in records(buffer.raw[:size]):
            if datagram and len(datagram) + len(record) > 1200:
                self._send(datagram)
                datagram = b""
            datagram += record
        self._send(datagram)

    def _send(self, datagram):
        for passed in self.on_send(datagram):
            self.raw(passed)

    def take(self, seconds):
        """Feeds one datagram to OpenSSL. False when none came."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        datagram = self.socket.recv(65536)
        self.received.append(datagram)
        self.largest = max(self.largest, len(datagram))
        for passed in self.on_receive(datagram):
            self.feed(passed)
        return True

    def feed(self, datagram):
        BIO_write(self.rbio, datagram, len(datagram))

    # -- the handshake

    def step(self):
        """Goes on with the handshake. True once it is complete."""
        if self.is_connected:
            return True
        ERR_clear_error()
        r = SSL_do_handshake(self.ssl)
        error = SSL_get_error(self.ssl, r)
        self.flush()
        if r == 1:
            self.is_connected = True
            return True
        if error != SSL_ERROR_WANT_READ:
            raise Closed((ERR_reason_error_string(ERR_get_error()) or b"error %d" % error).decode())
        return False

    def timeout(self):
        """Seconds until OpenSSL wants to send its flight again, or None."""
        left = (ctypes.c_long * 2)()
        if SSL_ctrl(self.ssl, DTLS_CTRL_GET_TIMEOUT, 0, left) != 1:
            return None
        return left[0] + left[1] / 1e6

    def retransmit(self):
        ERR_clear_error()
        SSL_ctrl(self.ssl, DTLS_CTRL_HANDLE_TIMEOUT, 0, None)
        self.flush()

    def connect(self, seconds=15):
        deadline = time.monotonic() + seconds * SLOW
        while not self.step():
            left = self.timeout()
            wait = min(0.5 if left is None else left, deadline - time.monotonic())
            if wait < 0:
                raise AssertionError("no handshake within %d s" % seconds)
            if not self.take(wait) and self.timeout() == 0:
                self.retransmit()
        return self

    # -- datagrams of CoAP

    def write(self, data):
        ERR_clear_error()
        r = SSL_write(self.ssl, data, len(data))
        self.flush()
        if r <= 0:
            raise Closed("write")

    def read(self, seconds=10):
        """One decrypted datagram, or None. Raises Closed when south has ended the session."""
        buffer = ctypes.create_string_buffer(65536)
        deadline = time.monotonic() + seconds * SLOW
        while True:
            ERR_clear_error()
            r = SSL_read(self.ssl, buffer, len(buffer))
            if r > 0:
                return buffer.raw[:r]
            error = SSL_get_error(self.ssl, r)
            self.flush()
            if error == SSL_ERROR_ZERO_RETURN:
                raise Closed("close_notify")
            if error != SSL_ERROR_WANT_READ:
                raise Closed((ERR_reason_error_string(ERR_get_error()) or b"?").decode())
            left = deadline - time.monotonic()
            if left <= 0 or not self.take(left):
                return None

    def receive(self, seconds=10):
        data = self.read(seconds)
        return Message(data) if data is not None else None

    def send(self, kind, code, path="", options=(), payload=b"", mid=None, token=None):
        """Sends a message; returns its message id and token."""
        if mid is None:
            self.mid = mid = (self.mid + 1) & 0xffff
        token = mid.to_bytes(2, "big") if token is None else token
        self.write(encode(kind, code, mid, token, path_options(path) + list(options), payload))
        return mid, token

    def request(self, code, path, options=(), payload=b"", kind=CON, seconds=10, mid=None, token=None):
        """Sends a request and returns its response; acknowledges a separate one."""
        mid, token = self.send(kind, code, path, options, payload, mid, token)
        return self.response(token, seconds)

    def response(self, token, seconds=10):
        while True:
            message = self.receive(seconds)
            if message is None:
                return None
            if message.code == 0 or message.token != token:
                continue
            if message.kind == CON:
                self.write(encode(ACK, 0, message.mid))
            return message

    def get(self, path, options=(), **more):
        return self.request(GET, path, options, **more)

    def close(self, with_notify=True):
        if self.ssl and with_notify and self.is_connected:
            ERR_clear_error()
            SSL_shutdown(self.ssl)
            self.flush()
        if self.ssl:
            SSL_free(self.ssl)
            SSL_CTX_free(self.context)
            self.ssl = None
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class South:
    """The harness: commands go in by command(), events come out by wait_for()."""

    def __init__(self, *settings, address="127.0.0.1", environment=None, program="south_harness", credentials=None):
        self.address = address
        self.process = subprocess.Popen([os.path.join(BUILD, "system", program), "--bind", address,
                                         *(["--wait"] if credentials else []), *settings],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=dict(os.environ, **(environment or {})))
        self.events, self.lines = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        if credentials:
            self.credentials(*credentials)
        ready = self.wait_for("ready")
        self.port, self.pid = ready["port"], ready["pid"]
        self.command("key dev " + KEY.hex())

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _next(self, deadline):
        line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
        if line is None:
            raise AssertionError("south has ended")
        self.events.append(json.loads(line))
        return self.events[-1]

    def mark(self):
        """What came before is not looked at by wait_for(since=mark)."""
        self.drain()
        return len(self.events)

    def drain(self):
        while True:
            try:
                self._next(time.monotonic())
            except queue.Empty:
                return self.events

    def wait_for(self, kind, since=0, seconds=10, **members):
        """The first event of this kind with these members, from `since` on."""
        deadline = time.monotonic() + seconds * SLOW
        at = since
        while True:
            while at < len(self.events):
                event = self.events[at]
                at += 1
                if event["event"] == kind and all(event.get(k) == v for k, v in members.items()):
                    return event
            try:
                self._next(deadline)
            except queue.Empty:
                raise AssertionError("no %s %s within %s s" % (kind, members, seconds)) from None

    def statistics(self, since=0, seconds=10, **least):
        """Waits until each of these counters has reached the value given."""
        deadline = time.monotonic() + seconds * SLOW
        at = since
        while True:
            while at < len(self.events):
                event = self.events[at]
                at += 1
                if event["event"] == "statistics" and all(event[k] >= v for k, v in least.items()):
                    return event
            self._next(deadline)

    def seen(self, kind, since=0, **members):
        """All that came until now; what core was told before this call has been printed."""
        self.command("sync")
        return [e for e in self.drain()[since:]
                if e["event"] == kind and all(e.get(k) == v for k, v in members.items())]

    def command(self, text):
        since = self.mark()
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        self.wait_for("done", since)

    def credentials(self, key, chain):
        """What the server shows from now on: PKCS#8 and the DER of the leaf and its intermediates."""
        self.command("credentials %s %s" % (key.hex() or "-", b"".join(chain).hex() or "-"))

    def session_of(self, device):
        """The handle of a device's session, by its source port."""
        return self.wait_for("connected", peer="%s:%d" % device.source)["session"]

    def resident_kib(self):
        with open("/proc/%d/status" % self.pid) as status:
            return int(next(line.split()[1] for line in status if line.startswith("VmRSS")))

    def cpu_seconds(self):
        with open("/proc/%d/stat" % self.pid) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        if self.process.stdin:
            self.process.stdin.close()
        code = self.process.wait(20 * SLOW)
        self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

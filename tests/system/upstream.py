#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The collector of tests and of the demo: the other end of north, written apart from gatewayd.

It takes batches over HTTPS from whoever has a client certificate of its CA, verifies everything that a
receipt promises with a second implementation (python3-cbor2, python3-cryptography), keeps books, and can
misbehave in the ways in which uplinks do.

    upstream.py pki FOLDER                       ca, server, client, and a CA that nobody trusts
    upstream.py serve --pki FOLDER --state FILE  prints "ready PORT BOOKS-PORT" once it listens

Books: GET http://127.0.0.1:BOOKS-PORT/books. Faults, also while it runs: POST …/faults with a JSON object
of the flags below, by their long names with underscores. Stopped and started with the same state file it
knows what it knew.

What it takes stands in gatewayd/north/batch.h (batches) and gatewayd/evidence/evidence.h (receipts).
"""
import argparse
import datetime
import http.client
import http.server
import ipaddress
import json
import os
import pathlib
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import warnings

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from books import Books
from verify import Refused

CBOR = "application/cbor"
RESULT_SEQUENCE, RESULT_TIER = 1, 2

# ---- keys and certificates -------------------------------------------------------------------------

def _write_key(path, key):
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(text)


def _certificate(name, key, issuer_name, issuer_key, extensions, days=(-3650, 36500)):
    # Valid for a century: a gateway in a test may believe in any date.
    now = datetime.datetime(2024, 1, 1)
    builder = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer_name).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(max(now + datetime.timedelta(days=days[0]), datetime.datetime(1970, 1, 1)))
               .not_valid_after(now + datetime.timedelta(days=days[1])))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make_pki(folder, client="gateway-1"):
    """ca.pem; server.pem and .key for localhost, 127.0.0.1 and ::1; client.pem and .key; and of a second
    CA, other-ca.pem, other-client.pem and .key."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in ("", "other-"):
        ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name(prefix + "upstream test CA")
        ca = _certificate(ca_name, ca_key, ca_name, ca_key, [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)])
        leaves = [("client", client, [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])])]
        leaves.append(("server", "localhost", [
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            x509.SubjectAlternativeName([
                x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("::1"))])]))
        (folder / (prefix + "ca.pem")).write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        for file, text, extensions in leaves:
            key = ec.generate_private_key(ec.SECP256R1())
            leaf = _certificate(_name(text), key, ca_name, ca_key, [(e, False) for e in extensions])
            (folder / (prefix + file + ".pem")).write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
            _write_key(folder / (prefix + file + ".key"), key)
    return folder


# ---- faults ------------------------------------------------------------------------------------------

class Faults:
    """Ways to misbehave. Zero, None and empty mean none of it."""

    DEFAULTS = {
        "fail_rate": 0.0,        # share of POSTs answered 503, nothing stored
        "fail_first": 0,         # that many of the next POSTs are answered `fail_status`
        "fail_status": 503,
        "retry_after": "",       # Retry-After of those
        "status": [],            # "400-for-sequence 7": with evidence only; "400-for-receipt 7": in any case
        "deny": 0,               # this status to everything, even to the empty batch
        "drop_after_store": 0.0, # share of POSTs with news that are stored, then cut off without a reply
        "slow": 0.0,             # seconds before each reply
        "redirect": "",          # 307 to there
        "huge_reply": 0,         # bytes of body with each reply
        "huge_header": 0,        # bytes of header fields with each reply
        "chunked": False,        # the huge reply does not say how long it is
        "results": False,        # tiers in the reply
        "results_raw": "",       # hex of a body in their place
        "max_body": 0,           # larger ones are answered 413
    }

    def __init__(self, seed=None):
        self.__dict__.update(self.DEFAULTS)
        self.random = random.Random(seed)

    def set(self, changes):
        for name, value in changes.items():
            if name not in self.DEFAULTS:
                raise ValueError("no such fault: %s" % name)
            setattr(self, name, value)

    def happens(self, rate):
        return rate > 0 and self.random.random() < rate

    def refuse(self, entry):
        for rule in self.status:
            status, sequence = rule.replace("-for-", " ").split()[0], rule.split()[-1]
            if entry["sequence"] == int(sequence) and (entry["has_evidence"] or "-for-receipt" in rule):
                raise Refused("refused as told: sequence %s" % sequence, int(status))


# ---- servers -----------------------------------------------------------------------------------------

class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def setup(self):
        # The handshake belongs to this connection's thread: a peer that says nothing blocks nobody.
        self.request.settimeout(30)
        self.request.do_handshake()
        super().setup()

    def log_message(self, *arguments):
        pass

    def reply(self, status, body=b"", content_type="text/plain", headers=()):
        faults = self.server.faults
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        for i in range(0, faults.huge_header, 1000):
            self.send_header("X-Filler-%d" % i, "h" * 1000)
        if faults.huge_reply:
            content_type, body = CBOR, b"\x80" * faults.huge_reply
        if body:
            self.send_header("Content-Type", content_type)
        if faults.chunked:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if faults.chunked:
            self.close_connection = True

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def fault_status(self, body):
        """The status that is to be answered before anything is looked at, or None."""
        faults = self.server.faults
        if faults.redirect:
            return 307
        if faults.deny:
            return faults.deny
        if faults.max_body and len(body) > faults.max_body:
            return 413
        if faults.fail_first > 0:
            faults.fail_first -= 1
            return faults.fail_status
        return 503 if faults.happens(faults.fail_rate) else None

    def results(self, entries):
        faults = self.server.faults
        if faults.results_raw:
            return bytes.fromhex(faults.results_raw)
        if not faults.results:
            return b""
        return cbor2.dumps([{RESULT_SEQUENCE: e["sequence"], RESULT_TIER: e["tier"]} for e in entries])

    def do_POST(self):
        faults, books = self.server.faults, self.server.books
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if faults.slow:
            time.sleep(faults.slow)
        with books.lock:
            status = self.fault_status(body)
            if status:
                books.counters["faults"] += 1
        if status:
            headers = [("Retry-After", faults.retry_after)] if faults.retry_after else []
            headers += [("Location", faults.redirect)] if faults.redirect else []
            self.reply(status, b"as told", headers=headers)
            return
        try:
            if self.headers.get("Content-Type") != CBOR:
                raise Refused("the body is %s" % CBOR, 415)
            gateway = urllib.parse.unquote(self.headers.get("Gatewayd-Id", ""))
            incarnation = self.headers.get("Gatewayd-Incarnation", "")
            if not gateway or len(incarnation) != 16:
                raise Refused("Gatewayd-Id and Gatewayd-Incarnation say whose records these are")
            entries, new = books.take(gateway, incarnation, self.headers.get("Idempotency-Key"), body, faults.refuse)
        except Refused as refusal:
            with books.lock:
                books.counters["refused"] += 1
                books.last_error = str(refusal)
            self.reply(refusal.status, str(refusal).encode())
            return
        with books.lock:
            drop = new > 0 and faults.happens(faults.drop_after_store)
        if drop:
            self.cut()
            return
        self.reply(200, self.results(entries), CBOR)

    def do_GET(self):
        self.reply(405)


class BooksHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def reply(self, status, value):
        body = json.dumps(value, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/books":
            self.reply(200, self.server.books.report())
        elif self.path == "/sequences":
            self.reply(200, self.server.books.sequences())
        else:
            self.reply(404, {"error": "/books or /sequences"})

    def do_POST(self):
        try:
            self.server.faults.set(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            self.reply(200, {})
        except ValueError as error:
            self.reply(400, {"error": str(error)})


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # refused handshakes and connections cut by a test are no news


class Server6(Server):
    address_family = socket.AF_INET6


def load_attestation_keys(path):
    """{"device id": "PEM", …}, or a list of objects with "id" (or "device") and "attestation_key"."""
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    if isinstance(value, list):
        value = {e.get("id", e.get("device")): e["attestation_key"] for e in value if e.get("attestation_key")}
    return {device: serialization.load_pem_public_key(pem.encode()) for device, pem in value.items()}


def serve(arguments):
    pki = pathlib.Path(arguments.pki)
    receipt_key = None
    if arguments.receipt_key:
        receipt_key = serialization.load_pem_public_key(pathlib.Path(arguments.receipt_key).read_bytes())
    keys = load_attestation_keys(arguments.attestation_keys) if arguments.attestation_keys else None
    books = Books(arguments.state, receipt_key, keys)
    faults = Faults(arguments.seed)
    faults.set({name: getattr(arguments, name) for name in Faults.DEFAULTS})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / (arguments.certificate + ".pem"), pki / (arguments.certificate + ".key"))
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    if arguments.tls_max == "1.1":
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is outdated is the point
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    elif arguments.tls_max == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    collector = (Server6 if ":" in arguments.address else Server)((arguments.address, arguments.port), Collector)
    collector.socket = context.wrap_socket(collector.socket, server_side=True, do_handshake_on_connect=False)
    collector.books, collector.faults = books, faults
    desk = Server(("127.0.0.1", arguments.books_port), BooksHandler)
    desk.books, desk.faults = books, faults
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    print("ready %d %d" % (collector.server_address[1], desk.server_address[1]), flush=True)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    with books.lock:
        os._exit(0)


# ---- for tests and the demo --------------------------------------------------------------------------

class Upstream:
    """A collector in a process of its own, on the same ports after each start."""

    def __init__(self, folder, *flags, pki=None):
        self.folder = pathlib.Path(folder)
        self.pki = pathlib.Path(pki) if pki else self.folder / "pki"
        if not (self.pki / "ca.pem").exists():
            make_pki(self.pki)
        self.flags = list(flags)
        self.port = self.books_port = 0
        self.process = None

    def start(self, *flags):
        command = ["/usr/bin/python3", os.path.abspath(__file__), "serve", "--pki", str(self.pki),
                   "--state", str(self.folder / "books.jsonl"), "--port", str(self.port),
                   "--books-port", str(self.books_port), *self.flags, *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline().split()
        if len(line) != 3 or line[0] != "ready":
            self.stop()
            raise RuntimeError("the collector did not start: %s" % " ".join(command))
        self.port, self.books_port = int(line[1]), int(line[2])
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *unused):
        self.stop()

    def _ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.books_port, timeout=30)
        connection.request(method, path, body)
        answer = connection.getresponse()
        value = json.loads(answer.read())
        connection.close()
        if answer.status != 200:
            raise RuntimeError("%s: %s" % (path, value))
        return value

    def books(self):
        return self._ask("GET", "/books")

    def sequences(self):
        return self._ask("GET", "/sequences")

    def faults(self, **changes):
        self._ask("POST", "/faults", json.dumps(changes))

    @property
    def url(self):
        return "https://localhost:%d/batches" % self.port


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pki = commands.add_parser("pki")
    pki.add_argument("folder")
    pki.add_argument("--client", default="gateway-1", help="common name of the client certificate")
    run = commands.add_parser("serve")
    run.add_argument("--pki", required=True)
    run.add_argument("--certificate", default="server", help="which certificate of the folder to show")
    run.add_argument("--address", default="127.0.0.1")
    run.add_argument("--port", type=int, default=0)
    run.add_argument("--books-port", type=int, default=0)
    run.add_argument("--state")
    run.add_argument("--receipt-key", help="PEM; without it each gateway's first receipt pins its key")
    run.add_argument("--attestation-keys", help="JSON: device id to PEM; evidence of these devices is verified")
    run.add_argument("--seed", type=int)
    run.add_argument("--tls-max", choices=("1.1", "1.2", "1.3"), default="1.3")
    for name, default in Faults.DEFAULTS.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            run.add_argument(flag, action="store_true")
        elif isinstance(default, list):
            run.add_argument(flag, action="append", default=[], metavar="'400-for-sequence N'")
        elif name == "drop_after_store":
            run.add_argument(flag, type=float, nargs="?", const=1.0, default=default)
        else:
            run.add_argument(flag, type=type(default), default=default)
    arguments = parser.parse_args()
    if arguments.command == "pki":
        make_pki(arguments.folder, arguments.client)
    else:
        serve(arguments)


if __name__ == "__main__":
    sys.exit(main())

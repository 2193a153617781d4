#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An owner's EST server (RFC 7030, RFC 8951) for tests: simpleenroll, simplereenroll and cacerts over HTTPS, for
registration authorities only (a client certificate with id-kp-cmcRA). It misbehaves where it is told to.

    est_server.py FOLDER [--port N]     makes a PKI there and serves until it is ended"""

import argparse
import base64
import binascii
import datetime
import email.utils
import hashlib
import http.server
import ipaddress
import os
import pathlib
import signal
import ssl
import sys
import threading
import time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID

import pki

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
PKCS7 = "application/pkcs7-mime; smime-type=certs-only"
ROOT = "/.well-known/est"


def certs_only(certificates):
    return pkcs7.serialize_certificates(certificates, Encoding.DER)


def lines_of(der, width=64, end="\r\n"):
    text = base64.b64encode(der).decode()
    return "".join(text[i:i + width] + end for i in range(0, len(text), width)).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        self.request.settimeout(60)
        self.request.do_handshake()
        super().setup()

    def log_message(self, *arguments):
        pass

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.server.est.clock_ahead)

    def reply(self, status, body=b"", content_type="text/plain", headers=()):
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        if body:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def certificates(self, certificates):
        self.reply(200, lines_of(certs_only(certificates)), PKCS7, [("Content-Transfer-Encoding", "base64")])

    def misbehave(self, what):
        """True where the answer has been given, or never will be."""
        kind, *more = what
        if kind == "later":
            when = more[0]
            self.reply(more[1] if len(more) > 1 else 202, headers=[("Retry-After", str(when))] if when else [])
        elif kind == "status":
            self.reply(more[0], more[1].encode() if len(more) > 1 else b"", headers=more[2] if len(more) > 2 else ())
        elif kind == "body":
            self.reply(200, more[0], more[1] if len(more) > 1 else PKCS7)
        elif kind == "slow":
            self.server.est.released.wait(60)
            return False
        elif kind == "hang up":
            self.close_connection = True
            self.connection.close()
        else:
            return False
        return True

    def is_registration_authority(self):
        certificate = x509.load_der_x509_certificate(self.connection.getpeercert(binary_form=True))
        try:
            return CMC_RA in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return False

    def do_GET(self):
        est = self.server.est
        est.note(self.path, None, self.headers)
        what = est.next_of(est.anchor_script)
        if self.path != ROOT + est.label + "/cacerts":
            self.reply(404, b"there is nothing here")
        elif not self.misbehave(what):
            self.certificates([est.issuing.certificate, est.root.certificate])

    def do_POST(self):
        est = self.server.est
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path not in (ROOT + est.label + "/simpleenroll", ROOT + est.label + "/simplereenroll"):
            self.reply(404, b"there is nothing here")
            return
        try:
            if self.headers.get("Content-Type") != "application/pkcs10":
                raise ValueError("the body is application/pkcs10")
            der = base64.b64decode(b"".join(text.split()), validate=True)
            request = x509.load_der_x509_csr(der)
            if not request.is_signature_valid:
                raise ValueError("the CSR's signature is wrong")
        except (ValueError, binascii.Error, InvalidSignature) as error:
            est.note(self.path, None, self.headers)
            self.reply(400, str(error).encode())
            return
        est.note(self.path, der, self.headers)
        est.shown.append(fingerprint(x509.load_der_x509_certificate(self.connection.getpeercert(binary_form=True))))
        what = est.next_of(est.script)
        if self.misbehave(what):
            return
        peer = x509.load_der_x509_certificate(self.connection.getpeercert(binary_form=True))
        if self.path.endswith("/simplereenroll") and request.subject == peer.subject:
            self.certificates([est.renew_client(request)])  # of the gateway itself
            return
        if not self.is_registration_authority():
            self.reply(403, b"enrols for others without being an RA")
            return
        self.certificates(est.issue(request, what))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass  # refused handshakes and connections cut by a test are no news


class EstServer:
    """The server, in threads of this process; on the same port after each start.

    script           what becomes of the next enrolments, one each; `always` after them. ("issue",),
                     ("later", Retry-After or None[, status]), ("status", code[, text[, headers]]), ("slow",) (until
                     released is set), ("hang up",), ("body", bytes[, type]), ("another key",),
                     ("another name",), ("run out",)
    anchor_script    the same for /cacerts
    requests         (path, CSR or None, header fields)"""

    def __init__(self, folder, label=""):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.label = label
        self.root = pki.Authority("Owner root")
        self.issuing = pki.Authority("Owner issuing CA", self.root, 1)
        self.tls = pki.Authority("Owner TLS CA")
        self.ca_file = str(self.folder / "est-ca.pem")
        self.tls.write(self.ca_file)
        self.make_leaves()
        self.port = 0
        self.clock_ahead = 0  # seconds by which the server's Date is ahead
        self.server = None
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.script, self.anchor_script, self.always, self.anchors_always = [], [], ("issue",), ("issue",)
        self.requests, self.issued = [], []
        self.shown = []  # the fingerprints of the client certificates that CSRs came with
        self.takes_expired = False  # client certificates that have run out

    def make_leaves(self):
        self.server_identity = self.leaf("server", ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName([
            x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]))
        self.client = self.leaf("gateway-ra", ExtendedKeyUsageOID.CLIENT_AUTH, also=CMC_RA)
        self.plain_client = self.leaf("no-ra", ExtendedKeyUsageOID.CLIENT_AUTH)

    def make_client(self, not_before, not_after):
        """Another client certificate for the gateway, in the same files."""
        self.client = self.leaf("gateway-ra", ExtendedKeyUsageOID.CLIENT_AUTH, x509.SubjectAlternativeName([
            x509.DNSName("gateway.example")]), CMC_RA, not_before, not_after)
        return self.client

    def renew_client(self, request):
        names = [(e.value, e.critical) for e in request.extensions if isinstance(e.value, x509.SubjectAlternativeName)]
        certificate = self.tls.sign(request.subject, request.public_key(), not_after=pki.now() + pki.YEAR, extensions=[
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA]), False), *names])
        with self.lock:
            self.issued.append(certificate)
        return certificate

    def leaf(self, label, usage, names=None, also=None, not_before=None, not_after=None):
        key = pki.new_key()
        extensions = [(x509.ExtendedKeyUsage([usage] + ([also] if also else [])), False)]
        if names:
            extensions.append((names, False))
        certificate = self.tls.sign(pki.name(common=label), key.public_key(), not_before=not_before,
                                    not_after=not_after or pki.now() + pki.YEAR, extensions=extensions)
        return pki.Identity(str(self.folder), "est-" + label, key, certificate)

    @property
    def url(self):
        return "https://localhost:%d%s%s" % (self.port, ROOT, self.label)

    @property
    def config(self):
        """Keys of gatewayd's group north."""
        return ('est_url = "%s"; ca_file = "%s"; client_certificate = "%s"; client_key = "%s";'
                % (self.url, self.ca_file, self.client.certificate_file, self.client.key_file))

    def start(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_identity.certificate_file, self.server_identity.key_file)
        context.load_verify_locations(self.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
        if self.takes_expired:
            context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        self.server.est = self
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self):
        """Nothing listens any more, and connections kept open are of no use: the handler is told to end them."""
        if self.server:
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
            self.server = None
            self.released = threading.Event()

    def __enter__(self):
        return self if self.server else self.start()

    def __exit__(self, *unused):
        self.stop()

    def next_of(self, script):
        with self.lock:
            if script:
                return script.pop(0)
            return self.always if script is self.script else self.anchors_always

    def note(self, path, der, headers):
        with self.lock:
            self.requests.append((path, der, dict(headers)))

    def asked(self, kind="simpleenroll"):
        """The CSRs that came to that path, in order."""
        with self.lock:
            return [der for path, der, _ in self.requests if path.endswith("/" + kind)]

    def issue(self, request, what=("issue",)):
        key = pki.new_key().public_key() if what[0] == "another key" else request.public_key()
        subject = pki.name(serial="somebody-else") if what[0] == "another name" else request.subject
        before, after = pki.now() - datetime.timedelta(hours=1), pki.now() + pki.YEAR
        if what[0] == "run out":
            before, after = pki.now() - pki.YEAR, pki.now() - datetime.timedelta(days=30)
        try:
            wants_ca = request.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except x509.ExtensionNotFound:
            wants_ca = False
        if wants_ca:
            certificate = self.issuing.sub_authority(request)
        else:
            extensions = [(x509.KeyUsage(True, False, False, False, False, False, False, False, False), True),
                          (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                          (x509.SubjectKeyIdentifier.from_public_key(key), False)]
            extensions += [(e.value, e.critical) for e in request.extensions
                           if isinstance(e.value, x509.SubjectAlternativeName)]
            certificate = self.issuing.sign(subject, key, before, after, extensions)
        with self.lock:
            self.issued.append(certificate)
        return [certificate]


def http_date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def fingerprint(certificate):
    return hashlib.sha256(pki.der(certificate)).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    server = EstServer(arguments.folder)
    server.port = arguments.port
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server.start()
    print("ready %s" % server.url, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

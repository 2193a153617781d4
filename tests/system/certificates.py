# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates for tests, made by Python's cryptography."""

import datetime
import os
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM


def new_key(kind="P-256"):
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "RSA":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key({"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}[kind]())


class Certificate:
    """A certificate and its key. Without `issuer` it signs itself."""

    def __init__(self, name, issuer=None, kind="P-256", is_ca=False, filler=0):
        self.key, self.issuer = new_key(kind), issuer
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).public_key(self.key.public_key())
                   .issuer_name(issuer.x509.subject if issuer else subject)
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                   .not_valid_after(now + datetime.timedelta(days=30))
                   .add_extension(x509.BasicConstraints(is_ca, None), critical=True))
        if not is_ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("gatewayd")]), critical=False)
        if filler:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), bytes(filler))
            builder = builder.add_extension(extension, critical=False)
        digest = None if isinstance(signer.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        self.x509 = builder.sign(signer.key, digest)
        self._folder = None

    @property
    def der(self):
        return self.x509.public_bytes(DER)

    @property
    def pkcs8(self):
        return self.key.private_bytes(DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def files(self, *chain):
        """Paths of the certificate with its chain and of the key, PEM."""
        self._folder = self._folder or tempfile.TemporaryDirectory()
        paths = [os.path.join(self._folder.name, name) for name in ("certificate.pem", "key.pem")]
        with open(paths[0], "wb") as out:
            out.write(b"".join(each.x509.public_bytes(PEM) for each in (self, *chain)))
        with open(paths[1], "wb") as out:
            out.write(self.key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL
                                             if not isinstance(self.key, ed25519.Ed25519PrivateKey)
                                             else serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return paths

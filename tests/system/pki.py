# SPDX-License-Identifier: Apache-2.0
"""Certificates for tests: a manufacturer, its IDevIDs, keys and CSRs of devices. Made with python3-cryptography, which
is the second implementation beside gatewayd's own."""

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59)
YEAR = datetime.timedelta(days=365)


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def name(serial=None, common=None):
    parts = []
    if common:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common))
    if serial:
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    return x509.Name(parts)


def hash_for(key):
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def pem(thing):
    if hasattr(thing, "private_bytes"):
        return thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                   serialization.NoEncryption())
    return thing.public_bytes(serialization.Encoding.PEM)


def der(thing):
    return thing.public_bytes(serialization.Encoding.DER)


class Identity:
    """A key and its certificate, as PEM files in a folder."""

    def __init__(self, folder, label, key, certificate, chain=()):
        self.key, self.certificate = key, certificate
        self.key_file = os.path.join(folder, label + ".key")
        self.certificate_file = os.path.join(folder, label + ".pem")
        with open(self.key_file, "wb") as f:
            f.write(pem(key))
        with open(self.certificate_file, "wb") as f:
            f.write(b"".join(pem(c) for c in (certificate, *chain)))


class Authority:
    """A CA. `issuer` None: self-signed."""

    def __init__(self, common, issuer=None, path_length=None, constraints=None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = issuer or self
        builder = (x509.CertificateBuilder().subject_name(name(common=common))
                   .issuer_name(issuer.certificate.subject if issuer else name(common=common))
                   .public_key(self.key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now() - YEAR).not_valid_after(now() + 20 * YEAR)
                   .add_extension(x509.BasicConstraints(True, path_length), True)
                   .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False))
        if constraints:
            builder = builder.add_extension(constraints, True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def write(self, path):
        with open(path, "wb") as f:
            f.write(pem(self.certificate))
        return path

    def sign(self, subject, public_key, not_before=None, not_after=NEVER, extensions=(), serial=None):
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.certificate.subject)
                   .public_key(public_key).serial_number(serial or x509.random_serial_number())
                   .not_valid_before(not_before or now() - YEAR).not_valid_after(not_after)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def idevid(self, folder, device, key=None, chain=(), **more):
        """An IDevID as IEEE 802.1AR has it: the device's name is the subject's serialNumber, no end in sight."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        usage = (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True)
        certificate = self.sign(name(serial=device), key.public_key(), extensions=[usage], **more)
        return Identity(folder, "idevid-" + device, key, certificate, chain)

    def sub_authority(self, request, path_length=0, constraints=None, not_after=None):
        """The owner's answer to the gateway's CSR for a sub-CA."""
        extensions = [(x509.BasicConstraints(True, path_length), True),
                      (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True),
                      (x509.SubjectKeyIdentifier.from_public_key(request.public_key()), False)]
        if constraints:
            extensions.append((constraints, True))
        return self.sign(request.subject, request.public_key(), now() - datetime.timedelta(days=1),
                         not_after or now() + 5 * YEAR, extensions)


def csr(key, serial=None, common=None, extensions=(), attributes=()):
    """A PKCS#10 request, DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(serial, common))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    for oid, value in attributes:
        builder = builder.add_attribute(oid, value)
    return builder.sign(key, hash_for(key)).public_bytes(serialization.Encoding.DER)


def certificates(body):
    """What a certs-only message (content-format 281) holds."""
    return pkcs7.load_der_pkcs7_certificates(body)


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates under a real systemd with the uplink cut (a bed has no network but loopback): enrolment, renewal, the CA's
rollover and revocation, each driven with coap-client and read back from journald."""

import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_systemd
from test_systemd import drop_in, in_bed, INSIDE, run, Service, systemctl, tearDownModule  # noqa: F401
from gateway import wait_for

setUpModule = test_systemd.setUpModule

SEN, SREN, CRTS = '.well-known/est/sen', '.well-known/est/sren', '.well-known/est/crts'


class Site(Service):
    """The service with a CA of its own, a manufacturer, and devices with certificates."""

    def __init__(self, before=None, key=None):
        import pki
        super().__init__()
        if before:
            before()
        self.pki, self.maker, self.anchors = pki, pki.Authority('Maker Root'), '/tmp/site.pem'
        self.maker.write('/etc/gatewayd/maker.pem')
        pathlib.Path('/etc/gatewayd/conf.d/meters.conf').write_text(
            'profiles = ( { name = "meter"; credential = "certificate"; idevid_anchors = "maker.pem";\n'
            '               validity = "90d"; max_age = "1y"; grace = "1s"; } );\n')
        systemctl('start', 'gatewayd')
        self.ctl('ca', 'init', *(['--key', key] if key else []))
        self.wait_event('ca-ready')
        self.wait_event('server-certificate')
        self.trust([self.certificate_of(1)])

    def certificate_of(self, generation):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        shown = self.ctl('--json', 'ca', 'show')[1]['generations']
        wanted = next(g['sha256'] for g in shown if g['generation'] == generation)
        pem = self.ctl('ca', 'show', '--pem')[1].encode()
        end = b'-----END CERTIFICATE-----\n'
        found = [x509.load_pem_x509_certificate(part + end) for part in pem.split(end) if part]
        return next(c for c in found if c.fingerprint(hashes.SHA256()).hex() == wanted)

    def trust(self, certificates):
        pathlib.Path(self.anchors).write_bytes(b''.join(self.pki.pem(c) for c in certificates))

    def ask(self, method, path, identity, **more):
        return self.coap_certificate(method, path, identity, self.anchors, **more)

    def enrol_certificate(self, identity, device, path=SEN):
        """A certificate for a new key over `identity`; not yet used."""
        key = self.pki.new_key()
        code, body = self.ask('post', path, identity, payload=self.pki.csr(key, device), form=286)
        if code != '2.04':
            raise AssertionError('%s: %s %r' % (path, code, body))
        certificate = self.pki.certificates(body)[0]
        return self.pki.Identity('/tmp', 'ldevid-%x' % certificate.serial_number, key, certificate)

    def prove(self, identity, times=2):
        for _ in range(times):
            code, body = self.ask('get', 'me', identity)
            if code != '2.05':
                raise AssertionError('/me: %s %r' % (code, body))
        return body

    def operational(self, device):
        self.ctl('device', 'add', device, '--profile', 'meter', '--idevid', 'any')
        identity = self.enrol_certificate(self.maker.idevid('/tmp', device), device)
        self.prove(identity)
        return identity


def crl(generation):
    """The published CRL, once OpenSSL has checked its signature."""
    from cryptography import x509
    path = pathlib.Path('/run/gatewayd/crl/%d.crl' % generation)
    run('openssl', 'crl', '-inform', 'DER', '-in', str(path), '-CAfile', '/tmp/site.pem', '-noout')
    return {entry.serial_number for entry in x509.load_der_x509_crl(path.read_bytes())}


def token_make():
    """A PKCS#11 token for the CA's key, with the commands of docs/OPERATIONS.md."""
    run('sh', '-e', '-c', """
install -d -m 700 -o gatewayd -g gatewayd /var/lib/gatewayd-token
printf 'directories.tokendir = /var/lib/gatewayd-token\nobjectstore.backend = file\n' > /etc/gatewayd/softhsm2.conf
export SOFTHSM2_CONF=/etc/gatewayd/softhsm2.conf
runuser -u gatewayd -- softhsm2-util --init-token --free --label plant --so-pin 87654321 --pin 123456
runuser -u gatewayd -- pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin 123456 --token-label plant \
    --keypairgen --key-type EC:prime256v1 --label ca
mkdir -p /etc/credstore.encrypted
printf 123456 | systemd-creds encrypt --name=gatewayd.ca-pin - /etc/credstore.encrypted/gatewayd.ca-pin
""")
    drop_in('[Service]\nEnvironment=SOFTHSM2_CONF=/etc/gatewayd/softhsm2.conf\n'
            'ReadWritePaths=/var/lib/gatewayd-token\nLoadCredentialEncrypted=gatewayd.ca-pin\n')
    pathlib.Path('/etc/gatewayd/conf.d/ca.conf').write_text(
        'ca = { pkcs11_module = "/usr/lib/softhsm/libsofthsm2.so";\n'
        '       paths = ( "/var/lib/gatewayd-token", "/etc/gatewayd/softhsm2.conf" ); };\n')


class Certificates(unittest.TestCase):
    def setUp(self):
        if INSIDE:
            self.service = Site(before=token_make if 'token' in self._testMethodName else None,
                                key='pkcs11:token=plant;object=ca' if 'token' in self._testMethodName else None)

    @in_bed
    def test_a_device_enrols_with_its_idevid_and_works_across_a_restart(self):
        identity = self.service.operational('meter-1')
        event = self.service.wait_event('credential-activated', device='meter-1')
        self.assertEqual(event['GATEWAYD_KID'], self.service.ctl('--json', 'device', 'show', 'meter-1')[1]
                         ['credentials'][0]['identity'])
        run('openssl', 'verify', '-CAfile', self.service.anchors, '-purpose', 'sslclient', identity.certificate_file)
        self.assertEqual(self.service.ask('get', 'me', identity, client='gnutls')[0], '2.05')
        systemctl('restart', 'gatewayd')
        self.service.prove(identity)

    @in_bed
    def test_the_cas_key_may_be_in_a_token_as_the_operators_page_says(self):
        identity = self.service.operational('meter-1')
        run('openssl', 'verify', '-CAfile', self.service.anchors, identity.certificate_file)
        systemctl('restart', 'gatewayd')
        self.service.operational('meter-2')
        self.assertEqual(self.service.events('sandbox-violation'), [])
        self.assertEqual(self.service.events('ca-key-unavailable'), [])

    @in_bed
    def test_a_certificate_is_renewed_and_its_predecessor_revoked_only_after_the_successor_was_proven(self):
        first = self.service.operational('meter-1')
        self.service.ctl('rotate', 'meter-1')
        import cbor2
        self.assertEqual(cbor2.loads(self.service.prove(first, 1))[6] & 1, 1)
        second = self.service.enrol_certificate(first, 'meter-1', SREN)
        self.assertNotIn(first.certificate.serial_number, crl(1))
        self.service.prove(first, 1)  # nothing is over yet
        self.service.prove(second)
        self.service.wait_event('credential-deactivated', device='meter-1')
        wait_for(lambda: first.certificate.serial_number in crl(1), 'the predecessor on the CRL')
        self.assertEqual(self.service.ask('get', 'me', first, seconds=2)[0], None)
        self.service.prove(second, 1)

    @in_bed
    def test_the_ca_rolls_over_and_devices_of_both_generations_work(self):
        old = self.service.operational('meter-1')
        self.service.ctl('ca', 'roll', '--within', '0')
        self.service.wait_event('ca-switched')
        # The device still trusts the old root alone, and gets in: the new one is certified by it.
        self.assertEqual(self.service.ask('get', 'me', old)[0], '2.05')
        code, body = self.service.ask('get', CRTS, old)
        self.assertEqual(code, '2.05')
        self.assertIn(self.service.certificate_of(2), self.service.pki.certificates(body))
        new = self.service.enrol_certificate(old, 'meter-1', SREN)
        self.service.trust([self.service.certificate_of(2)])
        self.assertEqual(new.certificate.issuer, self.service.certificate_of(2).subject)
        run('openssl', 'verify', '-CAfile', self.service.anchors, new.certificate_file)
        self.service.prove(new)
        states = {g['generation']: g['state'] for g in self.service.ctl('--json', 'ca', 'show')[1]['generations']}
        self.assertEqual(states, {1: 'retiring', 2: 'active'})  # the CRL of the older one is still needed

    @in_bed
    def test_a_revoked_device_is_out_within_a_second_and_on_the_crl(self):
        identity = self.service.operational('meter-1')
        other = self.service.operational('meter-2')
        observer = subprocess.Popen(['coap-client-openssl', '-m', 'get', '-s', '60', '-c', identity.certificate_file, '-j',
                                     identity.key_file, '-R', self.service.anchors, '-B', '60', '-v', '7',
                                     'coaps://127.0.0.1:5684/me'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while b'2.05' not in observer.stdout.readline():
            pass
        since = self.service.mark()
        self.service.ctl('device', 'revoke', 'meter-1')
        for line in observer.stdout:  # the end of its session
            if b'DTLS' in line and (b'lert' in line or b'closed' in line.lower()):
                break
        observer.kill()
        observer.wait()
        observer.stdout.close()
        self.service.wait_event('device-standing-changed', since, device='meter-1')
        self.assertIn(identity.certificate.serial_number, crl(1))
        self.assertEqual(self.service.ask('get', 'me', identity, seconds=2)[0], None)
        self.assertEqual(self.service.ask('get', 'me', self.service.maker.idevid('/tmp', 'meter-1'), seconds=2)[0], None)
        code, body = self.service.ask('get', 'crl', other)
        self.assertEqual((code, body), ('2.05', pathlib.Path('/run/gatewayd/crl/1.crl').read_bytes()))


if __name__ == '__main__':
    unittest.main()

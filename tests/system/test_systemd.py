#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gatewayd as an operator has it: installed by `make install`, run by a real systemd, driven with
coap-client, its events read back from journald. Each test runs in a bed of its own (bed.py): on the host
this file boots one for each test and runs that test's body inside."""

import contextlib
import fcntl
import functools
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bed
from gateway import BUILD, Gateway, ROOT, SLOW, wait_for

INSIDE = os.environ.get('GATEWAYD_BED') == '1'
HERE = pathlib.Path(__file__).resolve().parent
CREDENTIAL = '/etc/credstore.encrypted/gatewayd.sealing-key'
KEY = 'factory-key-0123'
TREE = None
MEASURED = []


def setUpModule():
    global TREE
    if INSIDE:
        return
    reason = bed.unavailable()
    if reason:
        raise unittest.SkipTest('no systemd bed here: ' + reason)
    TREE = tempfile.mkdtemp(prefix='gatewayd-tree-')
    unittest.addModuleCleanup(shutil.rmtree, TREE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(('MAKE', 'MFLAGS'))}
    with open(BUILD + '/install.lock', 'w') as lock:  # two programs may install at once, and make has things to build
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = subprocess.run(['make', '-C', ROOT, 'install', 'BUILD=' + BUILD, 'DESTDIR=' + TREE],
                                   capture_output=True, text=True, env=environment)
    if installed.returncode:
        raise AssertionError('make install failed:\n' + installed.stdout + installed.stderr)
    os.makedirs(TREE + '/bed/build/system')
    for file in [*HERE.glob('*.py'), *HERE.glob('*.sh')]:
        shutil.copy(file, TREE + '/bed')
    shutil.copy(os.path.join(ROOT, 'gatewayd', 'event.h'), TREE + '/bed')
    shutil.copy(os.path.join(BUILD, 'system', 'dtls_peer'), TREE + '/bed/build/system')


def tearDownModule():
    for line in MEASURED:
        print(line)


def in_bed(test):
    """On the host: boots a bed that runs this one test inside, and takes over its outcome."""
    @functools.wraps(test)
    def wrapper(self):
        if INSIDE:
            try:
                return test(self)
            except BaseException:
                print(self.service.output())  # what a failed test leaves to read
                raise
        script = ('#!/bin/sh\nexec env GATEWAYD_BED=1 GATEWAYD_BUILD=/bed/%s /usr/bin/python3 -W ignore /bed/%s -v '
                  '%s 2>&1\n' % ('build' if SLOW == 1 else 'build-sanitize',
                                 os.path.basename(test.__code__.co_filename), test.__qualname__))
        try:
            result = bed.run(script, tree=TREE, timeout=90 * SLOW)
        except bed.Unavailable as reason:
            self.skipTest('no systemd bed here: %s' % reason)
        if result.status:
            self.fail('inside the bed:\n' + result.output)
        MEASURED.extend(line for line in result.output.splitlines() if line.startswith('measured: '))
    return wrapper


def run(*words, check=True, **more):
    r = subprocess.run(words, capture_output=True, text=True, timeout=60 * SLOW, **more)
    if check and r.returncode:
        raise AssertionError('%s: %d\n%s%s' % (' '.join(words), r.returncode, r.stdout, r.stderr))
    return r.stdout


def systemctl(*words, check=True):
    return run('systemctl', *words, check=check).strip()


def show(what):
    return systemctl('show', '-P', what, 'gatewayd')


def main_pid():
    return int(show('MainPID'))


def drop_in(text):
    path = pathlib.Path('/etc/systemd/system/gatewayd.service.d')
    path.mkdir(parents=True, exist_ok=True)
    (path / 'test.conf').write_text(text)
    systemctl('daemon-reload')


def credential_make():
    """A sealing key for this machine, as gatewayd(8) says it is made."""
    key = subprocess.run(['head', '-c', '32', '/dev/urandom'], capture_output=True, check=True).stdout
    os.makedirs(os.path.dirname(CREDENTIAL), mode=0o700, exist_ok=True)
    pathlib.Path(CREDENTIAL).unlink(missing_ok=True)
    subprocess.run(['systemd-creds', 'encrypt', '--name=gatewayd.sealing-key', '-', CREDENTIAL], input=key,
                   capture_output=True, check=True)
    return key


def folder_digest(folder):
    """Names and contents of what lies in a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir() if p.is_file()}


class Service(Gateway):
    """The installed service, with what Gateway knows of gatewayctl and coap-client."""

    def __init__(self):
        self.folder, self.port = '/tmp', 5684
        self.gatewayctl, self.control = '/usr/bin/gatewayctl', '/run/gatewayd/control'
        run('systemd-sysusers')
        run('systemd-tmpfiles', '--create', 'gatewayd.conf')
        run('journalctl', '--update-catalog')
        pathlib.Path('/etc/gatewayd/conf.d/test.conf').write_text(
            'profiles = ( { name = "plain"; rotate_every = "30d"; grace = "1d"; } );\n')
        if SLOW > 1:  # a sanitizer's needs: address space, and a look at its own memory
            drop_in('[Service]\nMemoryMax=infinity\nEnvironment=ASAN_OPTIONS=detect_leaks=0\n')
        systemctl('daemon-reload')

    def output(self):
        return run('journalctl', '--no-pager', '-o', 'short-monotonic', check=False)

    def mark(self):
        """A time: what is said from now on. (--after-cursor passes over an entry too many where the cursor's
        own does not match.)"""
        run('journalctl', '--sync')
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    def events(self, name, since=0, **fields):
        """Events in the journal by GATEWAYD_EVENT; `fields` without the prefix."""
        found = [json.loads(line) for line in run('journalctl', '-o', 'json', '--no-pager',
                 '_SYSTEMD_UNIT=gatewayd.service', 'GATEWAYD_EVENT=' + name).splitlines()]
        return [e for e in found if int(e['__MONOTONIC_TIMESTAMP']) > since and
                all(v in e.get('GATEWAYD_' + k.upper(), '') for k, v in fields.items())]

    def wait_event(self, name, since=0, seconds=20, **fields):
        return wait_for(lambda: self.events(name, since, **fields), 'event %s %s' % (name, fields), seconds)[0]

    def role_pid(self, role):
        for pid in pathlib.Path('/sys/fs/cgroup/system.slice/gatewayd.service/cgroup.procs').read_text().split():
            with contextlib.suppress(FileNotFoundError):
                words = pathlib.Path('/proc', pid, 'cmdline').read_bytes().split(b'\0')
                if b'--role' in words and words[words.index(b'--role') + 1] == role.encode():
                    return int(pid)
        return None

    def udp_inode(self):
        """Which socket it is that the supervisor keeps."""
        for link in glob.glob('/proc/%d/fd/*' % main_pid()):
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(link)
                if name.startswith('socket:[') and re.search(r' %s ' % name[8:-1], open('/proc/net/udp6').read()):
                    return name
        return None

    def enrol(self, device='sensor-1'):
        """Registers a device and lets it fetch and prove a key; returns (kid, key)."""
        self.ctl('device', 'add', device, '--profile', 'plain', '--psk', 'text:' + KEY)
        code, grant = self.coap('post', 'cred', device, KEY)
        if code != '2.04':
            raise AssertionError('no grant: %s' % code)
        kid, key = grant_read(grant)
        code, _ = self.coap('get', 'me', kid, key)
        if code != '2.05':
            raise AssertionError('the new key does not open /me: %s' % code)
        return kid, key


def grant_read(grant):
    """(kid, key) out of tag 601 {8: {1: {2: kid, -1: key}}}."""
    import cbor2
    claims = cbor2.loads(grant)
    if claims.tag != 601:
        raise AssertionError('no UCCS')
    cose_key = claims.value[8][1]
    return cose_key[2].decode(), cose_key[-1].decode()


class Systemd(unittest.TestCase):
    def setUp(self):
        if INSIDE:
            self.service = Service()

    # ---- start, stop ----
    @in_bed
    def test_the_service_counts_as_started_once_all_roles_answer(self):
        systemctl('start', 'gatewayd')
        self.assertEqual(show('ActiveState'), 'active')
        for role in ('core', 'south', 'north'):
            self.assertTrue(self.service.events('role-started', reason=role), role)
            self.assertIsNotNone(self.service.role_pid(role))
        self.assertTrue(self.service.events('started'))
        self.assertNotEqual(show('StatusText'), '')
        state = os.stat('/var/lib/gatewayd')
        self.assertEqual(state.st_mode & 0o777, 0o700)
        self.assertEqual(pathlib.Path('/var/lib/gatewayd').owner(), 'gatewayd')
        self.assertTrue(os.path.exists('/var/lib/gatewayd/store.db'))
        self.assertTrue(os.path.exists('/run/gatewayd/control'))
        self.assertEqual(self.service.ctl('status')[0], 0)

    @in_bed
    def test_every_role_runs_without_privileges_and_behind_a_filter(self):
        systemctl('start', 'gatewayd')
        for pid in [main_pid(), *(self.service.role_pid(r) for r in ('core', 'south', 'north'))]:
            status = dict(line.split(':\t', 1) for line in
                          pathlib.Path('/proc/%d/status' % pid).read_text().splitlines() if ':\t' in line)
            self.assertNotIn('0', status['Uid'].split())
            self.assertEqual(int(status['CapEff'], 16), 0)
            self.assertEqual(int(status['CapBnd'], 16), 0)
            self.assertEqual(status['NoNewPrivs'], '1')
            self.assertEqual(status['Seccomp'], '2')
            self.assertIn('Max core file size        0                    0',
                          pathlib.Path('/proc/%d/limits' % pid).read_text())

    @in_bed
    def test_systemd_analyze_rates_the_exposure_at_most_1_5(self):
        text = run('systemd-analyze', 'security', 'gatewayd.service', check=False)
        self.assertLessEqual(float(re.search(r'exposure level for gatewayd.service: ([0-9.]+)', text).group(1)), 1.5)
        self.assertEqual(run('systemd-analyze', 'verify', '--man=no', 'gatewayd.service'), '')

    @in_bed
    def test_an_orderly_stop_is_quick_and_loses_nothing(self):
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol()
        begun = time.monotonic()
        systemctl('stop', 'gatewayd')
        self.assertLess(time.monotonic() - begun, 1.5 * SLOW)  # a second for gatewayd, the rest is systemctl's
        self.assertEqual(show('Result'), 'success')
        self.assertTrue(self.service.events('stopped'))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:  # stop, unlike restart, closes the socket
            s.connect(('::1', 5684))
            s.send(b'anybody?')
            s.settimeout(5)
            self.assertRaises(ConnectionRefusedError, s.recv, 1)
        systemctl('start', 'gatewayd')
        self.assertEqual(self.service.coap('get', 'me', kid, key)[0], '2.05')

    # ---- devices, events ----
    @in_bed
    def test_a_device_provisions_with_coap_client_and_the_journal_tells_it(self):
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol('sensor-17')
        for name, identity in (('device-registered', '12'), ('credential-issued', '17'), ('credential-activated', '18')):
            event = self.service.wait_event(name, device='sensor-17')
            self.assertEqual(event['MESSAGE_ID'], '5d0c7b2a9b6f4a51a0d7f3a2c1e400' + identity)
            self.assertEqual(event['SYSLOG_IDENTIFIER'], 'gatewayd')
            self.assertEqual(event['GATEWAYD_ROLE'], 'core')
            self.assertIn('sensor-17', event['MESSAGE'])
        self.assertEqual(self.service.events('credential-activated')[0]['GATEWAYD_KID'], kid)
        # GnuTLS's client, too.
        self.assertEqual(self.service.coap('get', 'me', kid, key, client='gnutls')[0], '2.05')
        journal = run('journalctl', '-o', 'export', '--no-pager')
        self.assertIn(kid, journal)
        self.assertNotIn(key, journal)
        self.assertNotIn(KEY, journal)

    @in_bed
    def test_journalctl_x_explains_every_event(self):
        systemctl('start', 'gatewayd')
        listed = run('journalctl', '--list-catalog')
        ids = re.findall(r'"([0-9a-f]{32})"', pathlib.Path('/bed/event.h').read_text())
        self.assertGreaterEqual(len(ids), 45)
        for identity in ids:
            self.assertIn(identity, listed)
        told = run('journalctl', '-x', '--no-pager', 'GATEWAYD_EVENT=started')
        self.assertIn('Subject: gatewayd is up', told)
        self.assertIn('Defined-By: gatewayd', told)

    @in_bed
    def test_handshakes_refused_from_one_address_are_counted_not_repeated(self):
        systemctl('start', 'gatewayd')
        for _ in range(20):
            self.service.coap('get', 'me', 'nobody', 'no-such-key-0123', seconds=1)
        event = self.service.wait_event('handshake-refused')
        self.assertIn('127.0.0.1', event['GATEWAYD_PEER'])
        self.assertEqual(len(self.service.events('handshake-refused')), 1)

    # ---- roles that die ----
    @in_bed
    def test_each_role_killed_with_signal_9_comes_back_by_itself(self):
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol()
        supervisor = main_pid()
        for role in ('south', 'north', 'core'):
            since, pid = self.service.mark(), self.service.role_pid(role)
            os.kill(pid, signal.SIGKILL)
            died = self.service.wait_event('role-died', since, reason=role)
            self.assertIn('signal 9', died['GATEWAYD_REASON'])
            self.service.wait_event('role-started', since, reason=role)
            if role == 'core':  # south and north start anew with it
                self.service.wait_event('role-started', since, reason='south')
                self.service.wait_event('role-started', since, reason='north')
            self.assertNotEqual(self.service.role_pid(role), pid)
            self.assertEqual(self.service.coap('get', 'me', kid, key)[0], '2.05')
        self.assertEqual(main_pid(), supervisor)
        self.assertEqual(show('NRestarts'), '0')

    @in_bed
    def test_a_supervisor_killed_with_signal_9_is_restarted_with_its_socket(self):
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol()
        since, supervisor, inode = self.service.mark(), main_pid(), self.service.udp_inode()
        roles = [self.service.role_pid(r) for r in ('core', 'south', 'north')]
        self.assertIsNotNone(inode)
        os.kill(supervisor, signal.SIGKILL)
        self.service.wait_event('started', since)
        for pid in [supervisor, *roles]:
            self.assertFalse(os.path.exists('/proc/%d' % pid))
        self.assertEqual(show('NRestarts'), '1')
        self.assertEqual(self.service.udp_inode(), inode)
        self.assertEqual(self.service.coap('get', 'me', kid, key)[0], '2.05')

    @in_bed
    def test_a_hung_supervisor_is_replaced_when_the_watchdog_expires(self):
        drop_in('[Service]\nWatchdogSec=2s\n')
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol()
        since, supervisor = self.service.mark(), main_pid()
        os.kill(supervisor, signal.SIGSTOP)
        self.service.wait_event('started', since, seconds=30)
        self.assertNotEqual(main_pid(), supervisor)
        self.assertIn('Watchdog timeout', run('journalctl', '--no-pager', '_PID=1'))
        self.assertEqual(self.service.coap('get', 'me', kid, key)[0], '2.05')

    @in_bed
    def test_the_watchdog_is_content_with_a_service_that_works(self):
        drop_in('[Service]\nWatchdogSec=1s\n')
        systemctl('start', 'gatewayd')
        supervisor, before = main_pid(), show('WatchdogTimestampMonotonic')
        wait_for(lambda: int(show('WatchdogTimestampMonotonic')) > int(before) + 3000000, 'six rounds of the watchdog')
        self.assertEqual(main_pid(), supervisor)
        self.assertEqual(show('NRestarts'), '0')

    # ---- restart under load ----
    @in_bed
    def test_a_restart_under_load_keeps_the_udp_socket_and_fails_no_request(self):
        systemctl('start', 'gatewayd')
        devices = [self.service.enrol('sensor-%d' % i) for i in range(4)]
        inode, stop, outcomes, goodbyes, refused = self.service.udp_inode(), threading.Event(), [], [], []

        def ask(kid, key):
            while not stop.is_set():
                begun = time.monotonic()
                code, _ = self.service.coap('get', 'me', kid, key, seconds=5)
                if code is None:
                    # The orderly end said goodbye to this session; a device connects again at once.
                    goodbyes.append((begun, time.monotonic()))
                    code, _ = self.service.coap('get', 'me', kid, key, seconds=5)
                outcomes.append((begun, time.monotonic(), code))

        def knock():
            # A closed port answers with ICMP at once; a kept socket never does.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.connect(('127.0.0.1', 5684))
                while not stop.is_set():
                    try:
                        s.send(b'no DTLS')
                    except ConnectionRefusedError:
                        refused.append(time.monotonic())
                    time.sleep(0.002)  # the rate of the load

        threads = [threading.Thread(target=ask, args=d) for d in devices] + [threading.Thread(target=knock)]
        for t in threads:
            t.start()
        try:
            wait_for(lambda: len(outcomes) >= 8, 'the load')
            restarts = []
            for _ in range(3):
                begun = time.monotonic()
                systemctl('restart', 'gatewayd')
                restarts.append((begun, time.monotonic()))
                count = len(outcomes)
                wait_for(lambda: len(outcomes) >= count + 8, 'requests after the restart')
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertEqual(refused, [])
        self.assertEqual(self.service.udp_inode(), inode)
        self.assertEqual([o for o in outcomes if o[2] != '2.05'], [])

        def meets_restart(o):
            return any(o[0] < end and o[1] > begin for begin, end in restarts)
        across = [o for o in outcomes if meets_restart(o)]
        self.assertEqual([g for g in goodbyes if not meets_restart(g)], [])
        self.assertTrue(across, 'no request met a restart')
        print('\nmeasured: %d requests, %d of them across %d restarts of %s ms; longest %d ms' % (
            len(outcomes), len(across), len(restarts), [round((e - b) * 1000) for b, e in restarts],
            max(o[1] - o[0] for o in outcomes) * 1000))

    # ---- the sealing key ----
    @in_bed
    def test_the_store_is_sealed_with_the_credential_of_the_service_manager(self):
        key = credential_make()
        systemctl('start', 'gatewayd')
        kid, psk = self.service.enrol()
        self.assertEqual(self.service.events('sealing-key-file'), [])
        self.assertFalse(os.path.exists('/var/lib/gatewayd/sealing.key'))
        for file in pathlib.Path('/var/lib/gatewayd').iterdir():
            text = file.read_bytes()
            for secret in (key, psk.encode(), KEY.encode()):
                self.assertNotIn(secret, text, file)
        systemctl('restart', 'gatewayd')
        self.assertEqual(self.service.coap('get', 'me', kid, psk)[0], '2.05')

    @in_bed
    def test_another_credential_stops_the_start_and_leaves_the_store_untouched(self):
        credential_make()
        systemctl('start', 'gatewayd')
        kid, psk = self.service.enrol()
        systemctl('stop', 'gatewayd')
        shutil.copy(CREDENTIAL, '/tmp/right')
        before = folder_digest('/var/lib/gatewayd')
        credential_make()
        systemctl('start', 'gatewayd', check=False)
        self.service.wait_event('store-refused')
        wait_for(lambda: show('ActiveState') == 'failed', 'the failed state')
        self.assertEqual(show('ExecMainStatus'), '78')
        self.assertEqual(show('NRestarts'), '0')  # a person is needed: trying again would not help
        self.assertEqual(folder_digest('/var/lib/gatewayd'), before)
        shutil.copy('/tmp/right', CREDENTIAL)
        systemctl('start', 'gatewayd')
        self.assertEqual(self.service.coap('get', 'me', kid, psk)[0], '2.05')

    @in_bed
    def test_a_credential_of_another_machine_stops_the_start(self):
        credential_make()
        text = pathlib.Path('/var/lib/systemd/credential.secret')
        data = bytearray(text.read_bytes())
        data[-1] ^= 1
        text.chmod(0o600)
        text.write_bytes(data)
        self.assertNotEqual(subprocess.run(['systemctl', 'start', '--no-block', 'gatewayd']).returncode, 1)
        wait_for(lambda: 'step CREDENTIALS' in run('journalctl', '--no-pager', '-u', 'gatewayd'), 'the refusal')
        systemctl('stop', 'gatewayd')
        self.assertFalse(os.path.exists('/var/lib/gatewayd/store.db'))

    @in_bed
    def test_without_a_credential_the_key_is_a_file_and_every_start_says_so(self):
        systemctl('start', 'gatewayd')
        self.service.wait_event('sealing-key-file')
        key = os.stat('/var/lib/gatewayd/sealing.key')
        self.assertEqual(key.st_mode & 0o777, 0o600)
        since = self.service.mark()
        systemctl('restart', 'gatewayd')
        self.service.wait_event('sealing-key-file', since)

    @in_bed
    def test_a_new_sealing_credential_is_in_force_from_the_next_start_and_the_old_one_opens_until_then(self):
        key = credential_make()
        systemctl('start', 'gatewayd')
        kid, psk = self.service.enrol()
        self.assertEqual(self.service.ctl('sealing', 'rotate')[0], 0)
        new = subprocess.run(['systemd-creds', 'decrypt', '--name=gatewayd.sealing-key', CREDENTIAL, '-'],
                             capture_output=True, check=True).stdout
        self.assertEqual(len(new), 32)
        self.assertNotEqual(new, key)
        self.assertEqual(os.stat(CREDENTIAL).st_mode & 0o077, 0)
        self.assertFalse(os.path.exists(CREDENTIAL + '.new'))
        code, text = self.service.ctl('sealing', 'rotate')
        self.assertEqual(code, 3)
        self.assertIn('systemctl restart gatewayd', text)

        def sealing():
            return [k for k in self.service.ctl('keys', '--json')[1]['gateway'] if k['kind'] == 'sealing'][0]

        # A core that dies meanwhile is started with the credential that the service was started with.
        core = self.service.role_pid('core')
        os.kill(core, signal.SIGKILL)
        wait_for(lambda: self.service.role_pid('core') not in (None, core), 'another core')
        wait_for(lambda: self.service.coap('get', 'me', kid, psk)[0] == '2.05', 'the device is served')
        self.assertEqual((sealing()['state'], sealing()['generation']), ('successor prepared', 1))
        systemctl('restart', 'gatewayd')
        self.service.wait_event('gateway-key-rotated', reason='sealing key: generation 2')
        self.assertEqual((sealing()['state'], sealing()['generation']), ('active', 2))
        self.assertEqual(self.service.coap('get', 'me', kid, psk)[0], '2.05')
        for with_key in ('host', 'nothing-known'):
            code, text = self.service.ctl('sealing', 'rotate', '--with-key', with_key, check=False)
            self.assertEqual(code, 0 if with_key == 'host' else 3, text)
        systemctl('restart', 'gatewayd')
        self.assertEqual((sealing()['state'], sealing()['generation']), ('active', 3))
        code, text = self.service.ctl('sealing', 'rotate', '--with-key', 'nothing-known', check=False)
        self.assertEqual(code, 1)
        systemctl('restart', 'gatewayd')
        self.assertEqual((sealing()['state'], sealing()['generation']), ('active', 3))

    # ---- the configuration ----
    @in_bed
    def test_reload_takes_a_good_file_and_refuses_a_bad_one(self):
        systemctl('start', 'gatewayd')
        supervisor, extra = main_pid(), pathlib.Path('/etc/gatewayd/conf.d/more.conf')
        extra.write_text('profiles = ( { name = "valve"; rotate_every = "20d"; } );')
        systemctl('reload', 'gatewayd')
        self.service.wait_event('config-reloaded')
        self.service.ctl('device', 'add', 'valve-1', '--profile', 'valve', '--psk', 'text:' + KEY)
        extra.write_text('profiles = ( { name = "valve"; rotate_evry = "20d"; } );')
        systemctl('reload', 'gatewayd', check=False)
        refused = self.service.wait_event('config-refused')
        self.assertIn('more.conf:1', refused['GATEWAYD_REASON'])
        self.assertEqual(main_pid(), supervisor)
        wait_for(lambda: show('ActiveState') == 'active', 'the end of the reload')
        self.service.ctl('device', 'add', 'valve-2', '--profile', 'valve', '--psk', 'text:' + KEY)

    @in_bed
    def test_a_refused_file_does_not_keep_a_killed_role_from_coming_back(self):
        systemctl('start', 'gatewayd')
        kid, key = self.service.enrol()
        supervisor = main_pid()
        pathlib.Path('/etc/gatewayd/conf.d/more.conf').write_text('stoer = "/x";\n')
        systemctl('reload', 'gatewayd')
        self.service.wait_event('config-refused')
        for role in ('north', 'south', 'core'):
            since = self.service.mark()
            os.kill(self.service.role_pid(role), signal.SIGKILL)
            self.service.wait_event('role-started', since, reason=role)
            if role == 'core':
                self.service.wait_event('role-started', since, reason='south')
            self.assertEqual(self.service.coap('get', 'me', kid, key)[0], '2.05')
        self.assertEqual(main_pid(), supervisor)

    @in_bed
    def test_a_bad_file_stops_the_start_with_every_mistake_in_the_journal(self):
        pathlib.Path('/etc/gatewayd/conf.d/more.conf').write_text('max_sessions = 0;\nstoer = "/x";\n')
        systemctl('start', 'gatewayd', check=False)
        wait_for(lambda: show('ActiveState') == 'failed', 'the failed state')
        self.assertEqual(show('ExecMainStatus'), '78')
        self.assertEqual(show('NRestarts'), '0')
        journal = run('journalctl', '--no-pager', '-u', 'gatewayd')
        self.assertIn('more.conf:1: max_sessions is 0; allowed is a whole number, 1 to 1000000', journal)
        self.assertIn('more.conf:2: key of the configuration "stoer" is unknown; did you mean "store"?', journal)
        checked = subprocess.run(['gatewayd', '--check', '/etc/gatewayd/gatewayd.conf'], capture_output=True, text=True)
        self.assertEqual(checked.returncode, 78)
        self.assertIn('more.conf:2: key of the configuration', checked.stderr)

    # ---- operators ----
    @in_bed
    def test_root_and_the_group_reach_the_control_socket_and_others_do_not(self):
        systemctl('start', 'gatewayd')
        run('useradd', '-r', 'stranger')
        run('useradd', '-r', '-G', 'gatewayd', 'operator-1')
        self.assertEqual(self.service.ctl('status')[0], 0)
        for user, may in (('operator-1', True), ('stranger', False)):
            r = subprocess.run(['setpriv', '--reuid', user, '--regid', user, '--init-groups', 'gatewayctl', 'status'],
                               capture_output=True, text=True)
            self.assertEqual(r.returncode == 0, may, (user, r.stdout, r.stderr))

    @in_bed
    def test_root_reaches_gatewayd_over_the_system_bus_and_others_do_not(self):
        systemctl('start', 'gatewayd')  # dbus is started with it, so it knows the user gatewayd
        run('useradd', '-r', 'stranger')
        wait_for(lambda: 'org.gatewayd' in run('busctl', 'list', '--no-pager'), 'the name on the bus')
        call = ['busctl', 'call', 'org.gatewayd', '/org/gatewayd', 'org.gatewayd.Manager1', 'Status']
        self.assertTrue(run(*call))
        r = subprocess.run(['setpriv', '--reuid', 'stranger', '--clear-groups', *call], capture_output=True, text=True)
        self.assertNotEqual(r.returncode, 0)
        self.assertIn('denied', (r.stdout + r.stderr).lower())


if __name__ == '__main__':
    unittest.main()

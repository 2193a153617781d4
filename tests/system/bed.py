#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real systemd for a test, without booting a machine.

Boots systemd as PID 1 of new namespaces over an overlay of this file system, with journald, the system
bus, working sandbox directives and an empty network (loopback only), runs a script in it, and removes
every trace. It takes little more than a second; several may run at once.

    tests/system/bed.py [--timeout SECONDS] [--tree FOLDER] SCRIPT [FILE[:PLACE] ...]

The script's output appears as it is written, and its exit status is ours. Files are put beside the
script in /bed, or at PLACE; a tree (`make install DESTDIR=tree`) is laid over /. Inside, /run/bed is a
folder that outlives the bed: from Python it is Bed.results. Where the host does not allow such a thing
the reason is printed and the exit status is 77.

From a test: `bed.unavailable()` is the reason to skip, or None; `bed.run(script, ...)` does it all.
"""
import argparse
import contextlib
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77

# Oneshot, so that its end is the script's end; either way the whole bed goes at once.
UNIT = """\
[Unit]
Description=The script of a test
DefaultDependencies=no
Wants=systemd-journald.socket systemd-journald.service systemd-journald-dev-log.socket dbus.socket
After=systemd-journald.socket systemd-journald.service dbus.socket
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
ExecStart=/bed/start
StandardInput=null
StandardOutput=file:/run/bed/output
StandardError=inherit
TimeoutStartSec=infinity
"""

START = """\
#!/bin/sh
umount -l /run/host-root
ip link set lo up
cd /bed
/bed/script
echo $? > /run/bed/status
"""


def cgroup2():
    """Where the cgroup2 hierarchy is mounted, or None."""
    for line in pathlib.Path('/proc/mounts').read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == 'cgroup2' and os.access(place, os.W_OK):
            return pathlib.Path(place)
    return None


def unavailable():
    """Why there can be no bed here, or None. What only trying shows is found by run()."""
    if os.geteuid() != 0:
        return 'needs root'
    for program in ('/lib/systemd/systemd', '/usr/bin/unshare', '/usr/sbin/pivot_root', '/usr/bin/dbus-daemon'):
        if not os.access(program, os.X_OK):
            return f'needs {program}'
    if cgroup2() is None:
        return 'needs a writable cgroup2 hierarchy'
    return None


class Unavailable(Exception):
    """The host does not allow a bed; the text says what it refused."""


class Result:
    """What a script left: its exit status, its output, and the files of its /run/bed."""

    def __init__(self, status, output, files, seconds):
        self.status, self.output, self.files, self.seconds = status, output, files, seconds


def own_prefix():
    """Names say whose they are, so that what a killed run left can be told from what runs."""
    return 'gatewayd-bed-%d-' % os.getpid()


def remove_group(place):
    for folder, _, _ in os.walk(place, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def remove_leftovers():
    """What beds left whose runner was killed before it could clean up."""
    for place in [*cgroup2().glob('gatewayd-bed-*'), *pathlib.Path(tempfile.gettempdir()).glob('gatewayd-bed-*')]:
        owner = place.name.split('-')[2]
        if owner.isdigit() and not os.path.exists('/proc/' + owner):
            if place.parent == cgroup2():
                remove_group(place)
            else:
                shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def scratch_cgroup():
    place = pathlib.Path(tempfile.mkdtemp(prefix=own_prefix(), dir=cgroup2()))
    try:
        yield place
    finally:
        # Its processes are dead or dying; a group goes only once the last has been reaped.
        deadline = time.monotonic() + 10
        while True:
            remove_group(place)
            if not place.exists() or time.monotonic() > deadline:
                break
            select.select([], [], [], 0.02)


def follow(pipe, echo, into):
    """Collects what comes through the FIFO until its last writer and we have closed it."""
    while chunk := os.read(pipe, 65536):
        into.append(chunk)
        if echo:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def prepare(folder, script, files, tree):
    layer = folder / 'layer'
    (layer / 'bed').mkdir(parents=True)
    (folder / 'results').mkdir()
    if tree:
        shutil.copytree(tree, layer, symlinks=True, dirs_exist_ok=True)
    # A folder's mode in the upper layer is the mode of the whole: as on any system.
    for path in [layer, *layer.rglob('*')]:
        if path.is_dir() and not path.is_symlink() and path.stat().st_mode & 0o777 == 0o700:
            path.chmod(0o755)
    for source, place in files.items():
        to = layer / place.lstrip('/')
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, to)
    start, text = layer / 'bed/start', layer / 'bed/script'
    start.write_text(START)
    text.write_text(script)
    start.chmod(0o755)
    text.chmod(0o755)
    unit = layer / 'etc/systemd/system/bed.service'
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(UNIT)
    os.mkfifo(folder / 'results/output')


def run(script, files=None, tree=None, timeout=60, echo=False):
    """Runs a script (its text, beginning with #!) in a bed of its own.

    files   {path here: absolute path there}
    tree    a folder to lay over /
    Returns a Result; `files` of it is what the script left in /run/bed, as {name: bytes}.
    Raises Unavailable, or TimeoutError with the output so far.
    """
    reason = unavailable()
    if reason:
        raise Unavailable(reason)
    remove_leftovers()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=own_prefix()) as name, scratch_cgroup() as cgroup:
        folder = pathlib.Path(name)
        prepare(folder, script, files or {}, tree)
        fifo, chunks = folder / 'results/output', []
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(fifo, os.O_WRONLY)  # held, so that the reader meets no end before ours
        os.set_blocking(reader, True)
        thread = threading.Thread(target=follow, args=(reader, echo, chunks))
        thread.start()
        process = subprocess.Popen(
            ['unshare', '--pid', '--uts', '--ipc', '--net', '--fork', '--kill-child',
             str(HERE / 'bed_inside.sh'), str(folder), str(cgroup)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        late = False
        try:
            _, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            late = True
            process.kill()  # --kill-child: PID 1 of the bed dies with it, and with that all of it
            _, errors = process.communicate()
        finally:
            os.close(writer)
            thread.join()
            os.close(reader)
        output = b''.join(chunks).decode(errors='replace')
        left = {p.name: p.read_bytes() for p in (folder / 'results').iterdir() if p.is_file()}
        seconds = time.monotonic() - begun
    if 'skip' in left:
        raise Unavailable(left['skip'].decode().strip())
    if late:
        raise TimeoutError(f'not done after {timeout} s; output so far:\n{output}')
    if 'status' not in left:
        if process.returncode and not output:
            raise Unavailable('systemd does not come up: ' + errors.decode(errors='replace').strip()[-400:])
        raise RuntimeError(f'the bed ended before its script; output so far:\n{output}')
    return Result(int(left['status']), output, left, seconds)


def main():
    parser = argparse.ArgumentParser(description='Run a script under a real systemd, in namespaces.')
    parser.add_argument('--timeout', type=float, default=60)
    parser.add_argument('--tree', help='a folder to lay over /')
    parser.add_argument('script')
    parser.add_argument('files', nargs='*', metavar='FILE[:PLACE]')
    arguments = parser.parse_args()
    files = {}
    for file in arguments.files:
        source, _, place = file.partition(':')
        files[source] = place or '/bed/' + os.path.basename(source)
    try:
        result = run(pathlib.Path(arguments.script).read_text(), files, arguments.tree, arguments.timeout, echo=True)
    except Unavailable as reason:
        print(f'skipped: no systemd bed here: {reason}')
        return SKIPPED
    except (TimeoutError, RuntimeError) as problem:
        print(f'failed: {problem}', file=sys.stderr)
        return 1
    return result.status


if __name__ == '__main__':
    sys.exit(main())

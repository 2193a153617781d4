# SPDX-License-Identifier: Apache-2.0
"""What a large fleet costs before it does anything: from exec to READY=1 with 10,000 and with 1,000,000 devices (goal:
under a second), and how often an idle daemon wakes up (goal: less than once a second, all roles together)."""

import argparse
import os
import pathlib
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
READY_GOAL, WAKE_GOAL, WATCHED_SEC = 1.0, 1.0, 60

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--build", default=str(HERE.parent.parent / "build"))
arguments = parser.parse_args()
os.environ["GATEWAYD_BUILD"] = os.path.abspath(arguments.build)

from gateway import BUILD, Gateway, wait_for  # noqa: E402

PROFILE = '{ name = "bench"; rotate_every = "30d"; grace = "7d"; max_age = "90d"; }'


def made(devices):
    """A gateway whose store holds so many devices, not started."""
    gateway = Gateway(PROFILE)
    key = os.path.join(gateway.folder, "sealing.key")
    with open(key, "wb") as f:
        f.write(os.urandom(32))
    os.chmod(key, 0o600)
    subprocess.run([os.path.join(BUILD, "bench", "bench_schedule"), "fill", os.path.join(gateway.folder, "store.db"),
                    str(devices), key], check=True)
    return gateway


def start(gateway):
    """Seconds to READY=1, as the service manager sees it."""
    path = os.path.join(gateway.folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(60)
        gateway.environment["NOTIFY_SOCKET"] = path
        begin = time.monotonic()
        gateway.start(wait=False)
        while b"READY=1" not in notify.recv(4096):
            pass
        took = time.monotonic() - begin
    gateway.wait_event("started")
    return took


def pids(gateway):
    return [gateway.process.pid] + [gateway.role_pid(role) for role in ("core", "south", "north")]


def wakes(gateway):
    """How often the roles' threads went to sleep and were woken."""
    total = 0
    for pid in filter(None, pids(gateway)):
        for thread in os.listdir("/proc/%d/task" % pid):
            status = open("/proc/%d/task/%s/status" % (pid, thread)).read()
            total += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return total


def main():
    print("start-up and idleness:")
    good = True
    for devices in (10000, 1000000):
        gateway = made(devices)
        try:
            took = start(gateway)
            wait_for(lambda: gateway.role_pid("north") or gateway.role_pid("south"), "the roles")
            goal = devices == 1000000
            print("%9d devices: %.2f s to READY=1%s" % (devices, took, " (goal: under %.0f s)" % READY_GOAL if goal else ""))
            good &= not goal or took < READY_GOAL
            if devices == 10000:
                time.sleep(15)  # the start's own work is over
                before = wakes(gateway)
                time.sleep(WATCHED_SEC)
                rate = (wakes(gateway) - before) / WATCHED_SEC
                print("%9d devices, idle for %d s: %.2f wake-ups a second (goal: under %.0f)"
                      % (devices, WATCHED_SEC, rate, WAKE_GOAL))
                good &= rate < WAKE_GOAL
            gateway.stop()
        finally:
            gateway.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

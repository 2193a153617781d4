# SPDX-License-Identifier: Apache-2.0
"""How long `/me` takes while 50,000 devices are due at once, as after a long outage (goal: 99 of 100 answers within
50 ms), beside the same without the storm, in one run on one machine. Those that the gateway calls first are real: they
hold observations, come, and rotate; the others are rows that nobody answers for."""

import argparse
import os
import pathlib
import sqlite3
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
sys.path.insert(0, str(HERE.parent / "sim"))
GOAL_MS, DAY = 50.0, 86400

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--build", default=str(HERE.parent.parent / "build"))
parser.add_argument("--devices", type=int, default=50000)
parser.add_argument("--real", type=int, default=1000)
parser.add_argument("--seconds", type=int, default=20)
parser.add_argument("--offers", type=int, default=50)
arguments = parser.parse_args()
os.environ["GATEWAYD_BUILD"] = os.path.abspath(arguments.build)

from coap import GET, POST, Peer  # noqa: E402
from gateway import BUILD, Gateway  # noqa: E402
from simulator import Simulator  # noqa: E402
from test_compromise import grant_of  # noqa: E402

FACTORY = "factory-key-0123"
PROFILE = '{ name = "bench"; rotate_every = "30d"; grace = "7d"; max_age = "90d"; max_session = "30d"; }'
POLLERS, PAUSE_SEC = 20, 0.2


class Poller(threading.Thread):
    """Asks for /me on one session, and keeps how long each answer took."""

    def __init__(self, gateway, key, until):
        super().__init__()
        self.peer, self.until, self.took = Peer(gateway, *key), until, []
        if not self.peer.is_connected:
            raise SystemExit("bench_storm: a device that shall ask is refused: " + self.peer.result)

    def run(self):
        while time.monotonic() < self.until[0]:
            begin = time.monotonic()
            answer = self.peer.request(GET, "me")
            if not answer or answer.status != "2.05":
                raise SystemExit("bench_storm: /me is not answered")
            self.took.append(time.monotonic() - begin)
            time.sleep(PAUSE_SEC)
        self.peer.close()


def provision(gateway, name):
    gateway.add_device(name, profile="bench", psk=FACTORY)
    with Peer(gateway, name, FACTORY) as peer:
        key = grant_of(peer.request(POST, "cred"))
    for _ in range(2):
        with Peer(gateway, *key) as peer:
            peer.request(GET, "me")
    return key


def measure(gateway, keys, what, begun):
    """Milliseconds: the middle, and what 99 of 100 stay within. And how many devices were called a second, since the
    gateway began."""
    until = [float("inf")]
    pollers = [Poller(gateway, key, until) for key in keys]
    rotated = len(gateway.events("credential-activated"))
    until[0] = time.monotonic() + arguments.seconds
    for poller in pollers:
        poller.start()
    for poller in pollers:
        poller.join()
    called = len(gateway.events("rotation-due")) / (time.monotonic() - begun)
    rotated = (len(gateway.events("credential-activated")) - rotated) / arguments.seconds
    took = sorted(t * 1e3 for poller in pollers for t in poller.took)
    middle, most = took[len(took) // 2], took[int(len(took) * 0.99)]
    print("%9s: %5d answers, p50 %5.1f ms, p99 %5.1f ms; %4.1f devices called a second, %4.1f rotated"
          % (what, len(took), middle, most, called, rotated), flush=True)
    return most, called


def powered_since_1970(gateway):
    """As bench_schedule's rows have it."""
    gateway.start()
    gateway.stop()
    with sqlite3.connect(os.path.join(gateway.folder, "store.db")) as db:
        db.execute("UPDATE meta SET clock_floor = ?1, clock_powered = ?1", (int(time.time()),))
    db.close()


def make_due(gateway):
    """The real devices longest, so that they are called first; then rows up to the number wanted."""
    store = os.path.join(gateway.folder, "store.db")
    with sqlite3.connect(store) as db:
        for column in ("issued", "proven", "confirmed"):
            db.execute("UPDATE credential SET %s_wall = %s_wall - ?1, %s_powered = %s_powered - ?1"
                       " WHERE device LIKE 'sim-%%' AND state = 1 AND %s_powered > 0" % ((column,) * 5), (45 * DAY,))
        changed = db.execute("UPDATE schedule SET wall = wall - ?1, powered = powered - ?1 WHERE device LIKE 'sim-%'",
                             (45 * DAY,)).rowcount
    db.close()
    if changed != arguments.real:
        raise SystemExit("bench_storm: %d real devices instead of %d" % (changed, arguments.real))
    rest = str(arguments.devices - arguments.real)
    subprocess.run([os.path.join(BUILD, "bench", "bench_schedule"), "fill", store, rest,
                    os.path.join(gateway.folder, "sealing.key"), rest], check=True)


def main():
    print("%d devices due at once, %d of them real:" % (arguments.devices, arguments.real), flush=True)
    gateway = Gateway(PROFILE, top="offers_per_second = %d;" % arguments.offers)
    sealing_key = os.path.join(gateway.folder, "sealing.key")
    with open(sealing_key, "wb") as f:
        f.write(os.urandom(32))
    os.chmod(sealing_key, 0o600)
    registry = gateway.folder + "/registry.csv"
    sim = Simulator(os.path.join(BUILD, "gateway-sim"), gateway="127.0.0.1:%d" % gateway.port, devices=arguments.real,
                    seed=7, import_out=registry, profile="bench", backoff="50:2000", spread_addresses=True, ramp=arguments.seconds,
                    state=os.path.join(gateway.folder, "fleet.state"))
    try:
        powered_since_1970(gateway)
        gateway.start()
        keys = [provision(gateway, "asks-%02d" % i) for i in range(POLLERS)]
        quiet, _ = measure(gateway, keys, "quiet", time.monotonic())
        sim.write_registry()
        gateway.ctl("device", "import", registry)
        sim.start()
        sim.settle(120)
        sim.close()
        gateway.stop()
        make_due(gateway)
        gateway.start()
        begun = time.monotonic()
        sim.start()
        storm, called = measure(gateway, keys, "storm", begun)
        print("%9s x%.1f of the quiet gateway's; goal: under %.0f ms" % ("", storm / quiet, GOAL_MS))
        sim.close()
        gateway.stop()
    finally:
        sim.close()
        gateway.close()
    return 0 if storm < GOAL_MS and called <= arguments.offers * 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())

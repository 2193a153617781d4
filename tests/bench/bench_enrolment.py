# SPDX-License-Identifier: Apache-2.0
"""Durable enrolments a second through the whole path, beside what the machine can do at all: signatures
(`openssl speed`) and handshakes with certificates (Debian's coap-server-openssl), in one run, so that the ratios
mean something where the figures do not. The goal: an enrolment costs no more than 1.5 times the handshake
that carries it."""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
GOAL = 1.5

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--build", default=str(HERE.parent.parent / "build"))
parser.add_argument("--devices", type=int, default=1500)
parser.add_argument("--concurrent", type=int, default=64)
arguments = parser.parse_args()
os.environ["GATEWAYD_BUILD"] = os.path.abspath(arguments.build)

from gateway import BUILD, Gateway, free_port, wait_for  # noqa: E402

PROFILE = """
    { name = "bench"; credential = "certificate"; idevid_anchors = "%s/manufacturer.pem"; validity = "90d"; }
"""


def cpu_seconds(pid):
    fields = open("/proc/%d/stat" % pid).read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    def __init__(self, folder):
        self.program, self.folder = os.path.join(BUILD, "bench", "enrol_load"), folder
        subprocess.run([self.program, "prepare", folder, str(arguments.devices)], check=True)

    def run(self, port, what, pids):
        """(figures of the load, CPU seconds that the server's processes took for one)."""
        before = [cpu_seconds(p) for p in pids]
        out = subprocess.run([self.program, "run", self.folder, str(port), what, str(arguments.concurrent)],
                             check=True, capture_output=True, text=True).stdout
        figures = json.loads(out)
        if figures["done"] < arguments.devices * 0.99:
            raise SystemExit("bench_enrolment: only %(done)d of %%d devices came through, %(failed)d failed, "
                             "last code %(last_code)s" % figures % arguments.devices)
        spent = [(cpu_seconds(p) - b) / figures["done"] for p, b in zip(pids, before)]
        return figures, spent


def signatures():
    text = subprocess.run(["openssl", "speed", "-seconds", "1", "ecdsap256"], capture_output=True, text=True).stdout
    sign, verify = re.search(r"nistp256\)\s+\S+\s+\S+\s+([\d.]+)\s+([\d.]+)", text).groups()
    return float(sign), float(verify)


def stock(load, folder):
    """Handshakes a second of coap-server-openssl, which asks for certificates and checks them."""
    import pki
    identity = pki.Authority("bench").idevid(folder, "server")  # nobody asks who it is
    port = free_port()
    server = subprocess.Popen(["coap-server-openssl", "-A", "127.0.0.1", "-p", str(port - 1), "-v", "0",
                               "-c", identity.certificate_file, "-j", identity.key_file,
                               "-C", os.path.join(folder, "manufacturer.pem")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: "%04X" % port in open("/proc/net/udp").read(), "coap-server-openssl")
        return load.run(port, "handshake", [server.pid])
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def ours(load, folder):
    gateway = Gateway(PROFILE % folder)
    try:
        gateway.start()
        gateway.ctl("ca", "init")
        gateway.wait_event("server-certificate")
        gateway.ctl("device", "import", os.path.join(folder, "registry.csv"))
        pids = [gateway.role_pid("south"), gateway.role_pid("core")]
        first = load.run(gateway.port, "handshake", pids)
        again = load.run(gateway.port, "handshake", pids)
        enrolled = load.run(gateway.port, "enrol", pids)
        issued = len(gateway.events("credential-issued"))
        return first, again, enrolled, issued
    finally:
        gateway.close()


def line(name, result):
    figures, spent = result
    print("  %-34s %7.0f/s   CPU of the server %.2f ms (%s)" % (
        name, figures["per_second"], 1000 * sum(spent), " + ".join("%.2f" % (1000 * s) for s in spent)), flush=True)


def main():
    folder = tempfile.mkdtemp(prefix="gatewayd-bench-")
    try:
        load = Load(folder)
        print("enrolment, %d devices with IDevIDs (P-256), %d at once; south + core:" % (
            arguments.devices, arguments.concurrent), flush=True)
        sign, verify = signatures()
        print("  %-34s %7.0f/s   verifications %.0f/s" % ("openssl speed ecdsap256, signatures", sign, verify), flush=True)
        theirs = stock(load, folder)
        line("handshakes, coap-server-openssl", theirs)
        first, again, enrolled, issued = ours(load, folder)
        line("handshakes, a device's first", first)
        line("handshakes", again)
        line("handshake and durable enrolment", enrolled)
        handshake, both = again[0], enrolled[0]
        cost = again[0]["per_second"] / enrolled[0]["per_second"] - 1
        cpu = sum(enrolled[1]) / sum(again[1]) - 1
        print("  handshakes x%.2f of coap-server-openssl; an enrolment costs x%.2f of its handshake in time, x%.2f in "
              "CPU: the goal of x%.1f is %s" % (handshake["per_second"] / theirs[0]["per_second"], cost, cpu, GOAL,
                                                "met" if cost <= GOAL else "MISSED"))
        if issued < both["done"]:
            raise SystemExit("bench_enrolment: %d certificates for %d enrolments" % (issued, both["done"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()

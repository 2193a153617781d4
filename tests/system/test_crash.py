#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Core is killed at every change of the store and every frame of each scenario, one after another; started again, the
device tries again as PROTOCOL.md says, and nothing that was granted or answered may be lost. crash_harness.c plays
the supervisor, south and north of the real core; what it looks at: crash_check.c."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from gateway import BUILD, SLOW

HARNESS = os.path.join(BUILD, "system", "crash_harness")
TORTURE = bool(os.environ.get("TORTURE"))
# Of the recovery, at how many points core is killed a second time.
PAIRS = "40" if TORTURE else "0"


def run(scenario, *words, environment=None):
    """Exit status, output, and the folder is gone."""
    # Two thousand stores are made and thrown away: on a disk they would cost minutes.
    folder = tempfile.mkdtemp(prefix="gatewayd-crash-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        r = subprocess.run([HARNESS, os.path.join(BUILD, "testclock"), folder, scenario, "--pairs", PAIRS, *words],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           env=dict(os.environ, **(environment or {})), timeout=(7200 if TORTURE else 120) * SLOW)
        return r.returncode, r.stdout.decode("utf-8", "replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class CrashPoints(unittest.TestCase):
    def held(self, scenario, least):
        """All points held, and there were as many as such a scenario cannot do without."""
        status, output = run(scenario)
        self.assertEqual(status, 0, output)
        points = int(re.search(r": (\d+) points, all held", output).group(1))
        self.assertGreaterEqual(points, least, output)

    def test_the_first_start_and_a_registration(self):
        self.held("first-start", 20)

    def test_provisioning_over_the_factory_key(self):
        self.held("provision", 40)

    def test_rotation_from_the_call_to_the_end_of_the_predecessor(self):
        self.held("rotate", 80)

    def test_rotation_when_the_device_too_loses_power(self):
        self.held("rotate-lost", 60)

    def test_evidence_from_the_challenge_to_the_acknowledgement_upstream(self):
        self.held("evidence", 40)

    def test_the_first_certificate(self):
        self.held("enrol", 40)

    def test_the_renewal_of_a_certificate(self):
        self.held("renew", 40)

    def test_a_new_issuing_ca(self):
        self.held("ca-init", 50)

    def test_the_issuing_cas_succession(self):
        self.held("ca-roll", 80)

    def test_revocation_of_a_device_with_a_psk(self):
        self.held("revoke", 20)

    def test_revocation_of_a_device_with_a_certificate(self):
        self.held("revoke-certificate", 20)

    def test_a_compromise_and_the_way_back(self):
        self.held("compromise", 50)

    def test_a_backup_while_a_device_rotates(self):
        self.held("backup", 50)

    def test_new_receipt_and_data_keys(self):
        self.held("own-keys", 50)

    def test_a_new_sealing_key(self):
        self.held("sealing", 50)

    def test_an_answer_that_left_before_its_commit_would_be_found(self):
        status, output = run("provision", environment={"GATEWAYD_TEST_EARLY": "1"})
        self.assertEqual(status, 1, output)
        self.assertIn("was granted and is", output)


if __name__ == "__main__":
    unittest.main()

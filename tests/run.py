# SPDX-License-Identifier: Apache-2.0
"""Runs the tests that a build has: unit (cmocka), fuzz (libFuzzer, a bounded while each), system (Python
unittest against real parts). Shows what failed with its output, and ends with "N passed, N failed"."""

import argparse
import concurrent.futures
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PYTHON = "/usr/bin/python3"


# A network of its own: a port that one program found free is not taken by another meanwhile.
ALONE = ["unshare", "--net", "/bin/sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@functools.cache
def can_be_alone():
    return subprocess.run([*ALONE, "true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


class Outcome:
    def __init__(self, name, passed, failed, skipped, seconds, output):
        self.name, self.passed, self.failed, self.skipped = name, passed, failed, skipped
        self.seconds, self.output = seconds, output


def run(command, timeout, environment):
    """Runs in a process group of its own, so that a test that hangs takes its children along."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   cwd=ROOT, env=environment, start_new_session=True)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            code = "no end after %d s" % timeout
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    return code, text, time.monotonic() - start


def count(text, ok, bad, skip):
    return (len(re.findall(ok, text, re.M)), re.findall(bad, text, re.M), re.findall(skip, text, re.M))


def judge(name, code, text, seconds, passed, failed, skipped):
    """A program that ended badly without naming a failed test is a failure of its own."""
    if code != 0 and not failed:
        failed = ["%s (%s)" % (name, code)]
    return Outcome(name, passed, failed, skipped, seconds, text)


def unit(path, timeout, environment):
    name = "unit/" + os.path.basename(path)
    code, text, seconds = run([path], timeout, environment)
    passed, failed, skipped = count(text, r"^\[ +OK +\] ", r"^\[ +FAILED +\] (\w+)$", r"^\[ +SKIPPED +\] ([a-z_]\w*)$")
    return judge(name, code, text, seconds, passed, sorted(set(failed)), sorted(set(skipped)))


def system(path, timeout, environment):
    name = "system/" + os.path.basename(path)
    command = [PYTHON, "-W", "ignore", path, "-v"] if path.endswith(".py") else ["/bin/bash", path]
    code, text, seconds = run([*ALONE, *command] if can_be_alone() else command, timeout, environment)
    if not path.endswith(".py"):
        return judge(name, code, text, seconds, int(code == 0), [], [])
    passed, failed, skipped = count(text, r"\.\.\. ok$", r"^(?:FAIL|ERROR): (.+)$",
                                    r"^(.*)\.\.\. skipped.*$")
    if code == 0 and passed == 0 and not skipped:
        failed = [name + " (ran no test)"]
    return judge(name, code, text, seconds, passed, failed, skipped)


def fuzz(path, seconds_each, environment):
    name = "fuzz/" + os.path.basename(path)
    seeds = os.path.join(HERE, "fuzz", "corpus", os.path.basename(path))
    with tempfile.TemporaryDirectory(prefix="gatewayd-fuzz-") as folder:
        corpus = os.path.join(folder, "corpus")
        os.mkdir(corpus)
        command = [path, "-max_total_time=%d" % seconds_each, "-timeout=10", "-rss_limit_mb=2048",
                   "-print_final_stats=1", "-artifact_prefix=%s/" % folder, corpus]
        if os.path.isdir(seeds):
            command.append(seeds)
        code, text, seconds = run(command, seconds_each + 120, environment)
        kept = []
        for artifact in os.listdir(folder):
            if artifact != "corpus":
                target = os.path.join(tempfile.gettempdir(), "%s-%s" % (os.path.basename(path), artifact))
                shutil.copy(os.path.join(folder, artifact), target)
                kept.append(target)
    if kept:
        text += "\ninput kept as " + ", ".join(kept)
    return judge(name, code, text, seconds, int(code == 0), [], [])


def show(outcome):
    mark = "FAILED" if outcome.failed else "ok"
    print("%-44s %4d passed %5.1f s  %s" % (outcome.name, outcome.passed, outcome.seconds, mark))
    for skipped in outcome.skipped:
        print("    skipped: %s" % skipped.strip())
    if outcome.failed:
        print("    failed: " + ", ".join(outcome.failed))
        print("\n".join("    | " + line for line in outcome.output.splitlines()[-80:]))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--fuzz-seconds", type=int, default=10)
    parser.add_argument("--only", default="", help="kinds or parts of names, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    build = os.path.abspath(arguments.build)
    environment = dict(os.environ, GATEWAYD_BUILD=build, PYTHONDONTWRITEBYTECODE="1")
    environment.setdefault("ASAN_OPTIONS", "detect_stack_use_after_return=0:abort_on_error=0")
    environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    slow = 10 if os.environ.get("TORTURE") else 4 if "sanitize" in build or "coverage" in build else 1
    wanted = [w for w in arguments.only.split(",") if w]

    def chosen(name):
        return not wanted or any(w in name for w in wanted)

    def listed(folder, pattern):
        names = os.listdir(os.path.join(HERE, folder)) if os.path.isdir(os.path.join(HERE, folder)) else []
        return sorted(m.group(1) for m in (re.fullmatch(pattern, n) for n in names) if m)

    small, large = [], []
    for name in listed("unit", r"(test_\w+)\.c"):
        if chosen("unit/" + name):
            small.append((unit, os.path.join(build, "unit", name), 300 * slow))
    for name in listed("fuzz", r"fuzz_(\w+)\.c"):
        path = os.path.join(build, "fuzz", name)
        if chosen("fuzz/" + name) and (os.path.exists(path) or "coverage" not in build):
            small.append((fuzz, path, arguments.fuzz_seconds))
    for name in listed("system", r"(test_\w+\.(?:py|sh))"):
        if chosen("system/" + name):
            large.append((system, os.path.join(HERE, "system", name), 420 * slow))

    outcomes = []
    for programs, jobs in ((small, arguments.jobs), (large, arguments.jobs if can_be_alone() else 1)):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for future in concurrent.futures.as_completed([pool.submit(f, p, t, environment) for f, p, t in programs]):
                outcomes.append(future.result())
                show(outcomes[-1])

    failed = [f for o in outcomes for f in o.failed]
    skipped = sum(len(o.skipped) for o in outcomes)
    if failed:
        print("failed: " + ", ".join(failed))
    print("%d passed, %d failed%s" % (sum(o.passed for o in outcomes), len(failed),
                                      ", %d skipped" % skipped if skipped else ""))
    return 1 if failed or not outcomes else 0


sys.exit(main())

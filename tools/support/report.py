#!/usr/bin/python3
"""Adds up what the test runners wrote: report.py RESULTS_DIR prints what failed and was skipped, and as
its last line "N passed, N failed, N skipped". Exit status 1 when anything failed or nothing passed.

    *.meson.json      Meson's log, one object a line; a Criterion binary's tests count one by one when it
                      wrote HASH.criterion.xml, any other test counts as one
    *.junit.xml       pytest's
    *.part            "NAME passed|failed" of parts that are no test runner (format, builds, leftovers)
"""

import hashlib
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
SKIP_EXIT = 77


class Sum:
    def __init__(self):
        self.counts = {PASSED: 0, FAILED: 0, SKIPPED: 0}
        self.notes = []

    def add(self, result, n=1, note=None):
        self.counts[result] += n
        if n and note and result != PASSED:
            self.notes.append(f"{result}: {note}")


def command_hash(command):
    """As run-one-test computes it, of what follows the wrapper."""
    text = "".join(f"{word}\n" for word in command)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


CASE = re.compile(r'<testcase name="([^"]*)"[^>]*? status="([A-Z]+)"')
SUITE = re.compile(r'<testsuite name="([^"]*)"')


def skip_reason(log, where):
    """Criterion tells the reason of a skip in its log only."""
    found = re.search(rf"\[SKIP\] {re.escape(where)}:?\s*(.*)", log)
    return found.group(1) if found else "no reason given"


def add_criterion(total, path, name, log):
    """Counts each test and returns how many failed; None when the report is unfinished (a killed runner).
    Read by pattern: Criterion 2.4.1 does not escape the messages in it."""
    text = path.read_text(errors="replace")
    if "</testsuites>" not in text:
        return None
    failed = 0
    for part in re.split(r"(?=<testsuite )", text)[1:]:
        suite = SUITE.match(part).group(1)
        for case, status in CASE.findall(part):
            where = f"{suite}::{case}"
            if status == "SKIPPED":
                total.add(SKIPPED, note=f"{name}: {where}: {skip_reason(log, where)}")
            elif status == "PASSED":
                total.add(PASSED)
            else:
                total.add(FAILED, note=f"{name}: {where}: {status.lower()}, see the log above")
                failed += 1
    return failed


def last_line(text):
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def add_meson_test(total, entry, directory, part):
    name = f"{part}: {entry['name']}"
    path = directory / f"{command_hash(entry['command'])}.criterion.xml"
    log = (entry.get("stdout") or "") + (entry.get("stderr") or "")
    failed = add_criterion(total, path, name, log) if path.exists() else None
    result = entry["result"]
    if result in ("SKIP", "EXPECTEDFAIL"):
        total.add(SKIPPED, note=f"{name}: {last_line(log)}")
    elif result != "OK":
        if not failed:
            total.add(FAILED, note=f"{name}: {result}, exit {entry.get('returncode')}: {last_line(log)}")
    elif failed is None:
        total.add(PASSED)


def strip_wrapper(command):
    for i, word in enumerate(command):
        if word.endswith("/run-one-test"):
            return command[i + 1 :]
    return command


def add_meson(total, path, directory):
    part = path.name.removesuffix(".meson.json")
    for line in path.read_text(errors="replace").splitlines():
        entry = json.loads(line)
        entry["command"] = strip_wrapper(entry["command"])
        add_meson_test(total, entry, directory, part)


def add_junit(total, path):
    part = path.name.removesuffix(".junit.xml")
    for case in xml.parse(path).getroot().iter("testcase"):
        where = f"{part}: {case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        bad = [e for e in case if e.tag in ("failure", "error")]
        if bad:
            total.add(FAILED, note=f"{where} {(bad[0].get('message') or '')[:300]}")
        elif skipped is not None:
            total.add(SKIPPED, note=f"{where}: {skipped.get('message')}")
        else:
            total.add(PASSED)


def add_part(total, path):
    name, _, result = path.read_text().strip().rpartition(" ")
    total.add(PASSED if result == PASSED else FAILED, note=name)


def main(directory):
    total = Sum()
    for path in sorted(directory.glob("*.meson.json")):
        add_meson(total, path, directory / f"{path.name.removesuffix('.meson.json')}.criterion")
    for path in sorted(directory.glob("*.junit.xml")):
        add_junit(total, path)
    for path in sorted(directory.glob("*.part")):
        add_part(total, path)
    for note in total.notes:
        print(re.sub(r"[\x00-\x1f\x7f]+", " ", note))
    print(", ".join(f"{n} {result}" for result, n in total.counts.items()))
    return 1 if total.counts[FAILED] or not total.counts[PASSED] else 0


sys.exit(main(pathlib.Path(sys.argv[1])))

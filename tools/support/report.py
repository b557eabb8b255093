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


def add_criterion(total, path, name):
    """True when at least one failure was counted. An unfinished report (a killed runner) is no report."""
    try:
        root = xml.parse(path).getroot()
    except xml.ParseError:
        return None
    failed = 0
    for suite in root.iter("testsuite"):
        for case in suite.iter("testcase"):
            where = f"{name}: {suite.get('name')}::{case.get('name')}"
            if case.find("skipped") is not None:
                total.add(SKIPPED, note=where)
            elif case.find("failure") is not None or case.find("error") is not None:
                text = next((e.text or "" for e in case if e.tag in ("failure", "error")), "")
                total.add(FAILED, note=f"{where} {' '.join(text.split())[:300]}")
                failed += 1
            else:
                total.add(PASSED)
    return failed


def last_line(text):
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def add_meson_test(total, entry, directory, part):
    name = f"{part}: {entry['name']}"
    path = directory / f"{command_hash(entry['command'])}.criterion.xml"
    failed = add_criterion(total, path, name) if path.exists() else None
    result = entry["result"]
    if result in ("SKIP", "EXPECTEDFAIL"):
        total.add(SKIPPED, note=f"{name}: {last_line(entry.get('stdout'))}")
    elif result != "OK":
        if not failed:
            total.add(FAILED, note=f"{name}: {result}, exit {entry.get('returncode')}: {last_line(entry.get('stdout'))}")
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

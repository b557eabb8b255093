#!/usr/bin/python3
"""Adds up what the test runners wrote: report.py RESULTS_DIR prints what failed and was skipped, and as
its last line "N passed, N failed, N skipped". Exit status 1 when anything failed or nothing passed.

    *.meson.json      Meson's log, one object a line; a Criterion binary's tests count one by one (it must run with
                      CRITERION_VERBOSITY_LEVEL=1), any other test counts as one
    *.junit.xml       pytest's
    *.part            "NAME passed|failed" of parts that are no test runner (format, builds, leftovers)
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Sum:
    def __init__(self):
        self.counts = {PASSED: 0, FAILED: 0, SKIPPED: 0}
        self.notes = []

    def add(self, result, n=1, note=None):
        self.counts[result] += n
        if n and note and result != PASSED:
            self.notes.append(f"{result}: {note}")


CASE = re.compile(r"\[(PASS|FAIL|SKIP)\] ([\w-]+::[\w-]+):?[ \t]*(.*)")
SYNTHESIS = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
RESULT = {"PASS": PASSED, "FAIL": FAILED, "SKIP": SKIPPED}


def add_criterion(total, log, name):
    """Counts each test of a Criterion binary by its verbose log and returns how many failed; None when this is no
    such log or its end is missing (a killed runner). Its XML and JSON are no use: they leak under LeakSanitizer
    and do not escape messages."""
    end = SYNTHESIS.search(log)
    if not end:
        return None
    tested, passing = int(end.group(1)), int(end.group(2))
    seen = {PASSED: 0, FAILED: 0, SKIPPED: 0}
    for status, test, text in CASE.findall(log):
        result = RESULT[status]
        seen[result] += 1
        total.add(result, note=f"{name}: {test}: {text}")
    total.add(PASSED, passing - seen[PASSED])  # where a test's own output cut the line
    total.add(FAILED, tested - passing - seen[FAILED], note=name)
    return tested - passing


def last_line(text):
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def add_meson_test(total, entry, part):
    name = f"{part}: {entry['name']}"
    log = (entry.get("stdout") or "") + (entry.get("stderr") or "")
    result = entry["result"]
    if result in ("SKIP", "EXPECTEDFAIL"):
        total.add(SKIPPED, note=f"{name}: {last_line(log)}")
        return
    failed = add_criterion(total, log, name)
    if result != "OK" and not failed:
        total.add(FAILED, note=f"{name}: {result}, exit {entry.get('returncode')}: {last_line(log)}")
    elif result == "OK" and failed is None:
        total.add(PASSED)


def add_meson(total, path):
    part = path.name.removesuffix(".meson.json")
    for line in path.read_text(errors="replace").splitlines():
        add_meson_test(total, json.loads(line), part)


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
        add_meson(total, path)
    for path in sorted(directory.glob("*.junit.xml")):
        add_junit(total, path)
    for path in sorted(directory.glob("*.part")):
        add_part(total, path)
    for note in total.notes:
        print(re.sub(r"[\x00-\x1f\x7f]+", " ", note))
    print(", ".join(f"{n} {result}" for result, n in total.counts.items()))
    return 1 if total.counts[FAILED] or not total.counts[PASSED] else 0


sys.exit(main(pathlib.Path(sys.argv[1])))

#!/usr/bin/python3
"""Checks the models with spin: every base run passes exhaustively, every mutation fails as it must.

run.py [-j N] [MODEL...]     exit 0: all as expected; 1: not; 77: spin or a C compiler is missing
RF_EXHAUSTIVE=1 adds the runs that take minutes.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def d(**options):
    return ["-D%s=%d" % kv for kv in options.items()]


# What each run of ring.pml lets happen.
CUT = d(CUTS=1, KILLS=0, CRASHES=0, TICKETS=3)
DEATH = d(CUTS=0, KILLS=1, CRASHES=1, TICKETS=4, ERRORS=1)
TWO_HELD = d(CUTS=0, KILLS=0, CRASHES=1, TICKETS=5, HOLD=2)
CUTS_AND_DEATH = d(CUTS=2, KILLS=1, CRASHES=1, TICKETS=3, WORKERS=1)
ALL_AT_ONCE = d(CUTS=2, KILLS=1, CRASHES=0, TICKETS=2)
MOVE = d(KILLS=1, TICKETS=4)
MOVES = d(KILLS=2, TICKETS=4)
# Not only no wrong step, but no going round in circles (under weak fairness).
LIVE = ["live"]

BASES = [
    ("ring", "a cut, two workers", CUT),
    ("ring", "deaths, early errors", DEATH),
    ("ring", "two batches held, trainer crash", TWO_HELD),
    ("ring", "two cuts, deaths, one worker", CUTS_AND_DEATH),
    ("ring", "three slots, a death", d(DEPTH=3, ARENA=5, CUTS=0, KILLS=1, CRASHES=0, TICKETS=4)),
    ("ring", "progress: deaths", LIVE + d(CUTS=0, KILLS=1, CRASHES=1, TICKETS=2)),
    ("ring", "progress: a cut, deaths, one worker", LIVE + d(CUTS=1, KILLS=1, CRASHES=0, TICKETS=3, WORKERS=1)),
    ("move", "a hung read", MOVE),
    ("sleep", "P6", []),
    ("bell", "P7", []),
]

# About ten minutes.
LONG = [
    ("ring", "a cut, two workers, four tickets", d(CUTS=1, KILLS=0, CRASHES=0, TICKETS=4)),
    ("ring", "three slots, two cuts, a death, one worker",
     d(DEPTH=3, ARENA=5, CUTS=2, KILLS=1, CRASHES=0, TICKETS=5, WORKERS=1)),
    ("ring", "a cut, a death, two workers", d(CUTS=1, KILLS=1, CRASHES=0, TICKETS=3)),
    ("ring", "two cuts, a death, two workers", ALL_AT_ONCE),
    ("move", "two hung reads, back to the first arena", MOVES),
    ("ring", "progress: two cuts, deaths, one worker", LIVE + d(CUTS=2, KILLS=1, CRASHES=0, TICKETS=3, WORKERS=1)),
]

ASSERT = "assertion violated"
STUCK = "invalid end state"

MUTATIONS = [
    ("ring", "NO_DRAIN", DEATH, ASSERT),
    ("ring", "CLAIM_IGNORES_WRITERS", DEATH, ASSERT),
    ("ring", "MASK_BEFORE_CLAIM", DEATH, ASSERT),
    ("ring", "EDGE_IGNORES_WRITERS", DEATH, ASSERT),
    ("ring", "RELEASE_OUT_OF_ORDER", TWO_HELD, ASSERT),
    ("ring", "RECYCLE_UNPUBLISHED", CUT, ASSERT),
    ("ring", "CONTENT_BEFORE_CLAIM", CUT, ASSERT),
    ("ring", "NO_RECHECK", CUT, ASSERT),
    ("ring", "SHORT_IN_CUT", CUT, ASSERT),
    ("ring", "SHORT_ALWAYS", CUT, ASSERT),
    ("ring", "NO_HOLD", CUT, ASSERT),
    ("ring", "NO_FREEZE", CUT, ASSERT),
    ("ring", "NO_WIPE", CUT, ASSERT),
    ("ring", "PLACE_STORE", CUT, ASSERT),
    ("ring", "CUT_BACK", CUTS_AND_DEATH, ASSERT),
    ("ring", "ONE_PLACE_WORD", ALL_AT_ONCE, ASSERT),
    ("ring", "NO_HELP", DEATH, STUCK),
    ("move", "NO_WAIT", d(KILLS=1, TICKETS=5), ASSERT),
    ("move", "NO_MOVE", d(KILLS=1, TICKETS=5), ASSERT),
    ("move", "PLACE_LATER", d(KILLS=1, TICKETS=5), ASSERT),
    ("move", "ARENA_AT_ONCE", d(KILLS=2, TICKETS=3), ASSERT),
    ("move", "ARENA_WITH_BATCHES", d(KILLS=2, TICKETS=3), ASSERT),
    ("move", "ARENA_WITH_READS", d(KILLS=2, TICKETS=3), ASSERT),
    ("sleep", "TRAINER_FENCE", [], STUCK),
    ("sleep", "WORKER_FENCE", [], STUCK),
    ("sleep", "NO_COMPARE", [], STUCK),
    ("bell", "TRAINER_FENCE", [], STUCK),
    ("bell", "WORKER_FENCE", [], STUCK),
    ("bell", "NO_LOOK", [], STUCK),
    ("bell", "VALUE_AFTER_LOOK", [], STUCK),
    ("bell", "WAKE_BEFORE_VALUE", [], STUCK),
    ("bell", "CLEAR_AFTER_VALUE", [], STUCK),
]


def sh(args, cwd):
    return subprocess.run(args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def check(model, options, optimize="-O2"):
    """Runs one model exhaustively: (text of the first error or None, states, what went wrong or None)."""
    live = options[:1] == LIVE
    how = ["-DNP", "-DNFAIR=3"] if live else ["-DSAFETY"]
    if live:
        options = options[1:]
    with tempfile.TemporaryDirectory(prefix="rf-model-") as where:
        made = sh(["spin", "-a"] + options + [os.path.join(HERE, model + ".pml")], where)
        if made.returncode or not os.path.exists(os.path.join(where, "pan.c")):
            return None, 0, "spin: " + made.stdout
        made = sh([os.environ.get("CC", "cc"), optimize, "-w", "-DCOLLAPSE", "-DMEMLIM=12000", "-o", "pan", "pan.c"] + how, where)
        if made.returncode:
            return None, 0, "cc: " + made.stdout
        out = sh(["./pan", "-m1000000", "-w23"] + (["-l", "-f"] if live else []), where).stdout
    states = re.search(r"^\s*(\d+) states, stored", out, re.M)
    errors = re.search(r"errors: (\d+)", out)
    if not states or not errors or "max search depth too small" in out or "out of memory" in out:
        return None, 0, "pan: " + out
    first = re.search(r"^pan:\d+: (.*)$", out, re.M)
    if (int(errors.group(1)) > 0) != bool(first):
        return None, 0, "pan: " + out
    return (first.group(1) if first else None), int(states.group(1)), None


def base(run):
    model, what, options = run
    start = time.monotonic()
    error, states, wrong = check(model, options)
    verdict = wrong or error
    print("%-4s %-5s %-44s %9d states %6.1f s%s" % ("FAIL" if verdict else "ok", model, what, states,
                                                    time.monotonic() - start, "\n" + verdict if verdict else ""), flush=True)
    return not verdict


def mutation(run):
    model, name, options, expected = run
    error, states, wrong = check(model, options + ["-DMUT_" + name], "-O1")  # it ends at the first error: compiling counts
    good = not wrong and error is not None and expected in error
    print("%-4s %-5s without its rule, MUT_%-24s %s" % ("ok" if good else "FAIL", model, name,
                                                        wrong or error or "PASSED: %d states" % states), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-j", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("models", nargs="*", help="ring, move, sleep, bell; default all")
    args = parser.parse_args()
    for tool in ("spin", os.environ.get("CC", "cc").split()[0]):
        if not shutil.which(tool):
            print("skipped: %s is not installed" % tool)
            return 77
    bases = BASES + (LONG if os.environ.get("RF_EXHAUSTIVE") else [])
    jobs = [(base, b) for b in bases] + [(mutation, m) for m in MUTATIONS]
    jobs = [(fn, run) for fn, run in jobs if not args.models or run[0] in args.models]
    with concurrent.futures.ThreadPoolExecutor(args.j) as pool:
        results = list(pool.map(lambda job: job[0](job[1]), jobs))
    print("%d of %d as expected" % (sum(results), len(results)))
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

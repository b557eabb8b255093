#!/usr/bin/python3
"""Reads of which 1 % come 100 times later than the others: samples/s beside the same run without late ones.

    bench/late_bench.py [--build DIR] [--mb N] [--rounds N] [--prefetch BATCHES] [--hedge-ms MS] [--dir DIR]

Records of 110 KB in one file behind the file system of tests/fuse (needs root and a build with tests), one
worker, batches of 32, full shuffle. What a read takes is measured first, with one at a time; a late one takes 100 times as long,
the first time it is asked for. Rounds of three runs, one after the other: no late reads; late ones; late ones with --hedge-ms.
Every run's ids are compared with `ringfeed order`.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/cli"))
RECORD, BATCH = 110 << 10, 32


def latency(path, records):
    """Seconds of one read of a record through the file system, once the file is in memory: median of 200."""
    path.read_bytes()
    fd = os.open(path, os.O_RDONLY)
    took = []
    for _ in range(200):
        at = random.randrange(records) * RECORD
        began = time.monotonic()
        os.pread(fd, RECORD, at)
        took.append(time.monotonic() - began)
    os.close(fd)
    return statistics.median(took)


def run(command, path, ids, *how):
    name = f"late-{os.getpid()}"
    order = ("--format", "raw", "--record-bytes", str(RECORD), "--batch", str(BATCH), "--shuffle", "full")
    serve = subprocess.Popen([command, "serve", path, "--name", name, "--workers", "1", "--engine", "uring", "--direct", "off",
                              "--pin", "off", *order, *how], stdout=subprocess.PIPE, text=True)
    if not serve.stdout.readline().startswith("ready"):
        sys.exit("late_bench.py: serve did not start")
    out = subprocess.run([command, "attach", name, "--rank", "0", "--json", "--ids", ids], stdout=subprocess.PIPE, text=True,
                         check=True, timeout=600).stdout
    serve.wait(timeout=60)
    wanted = subprocess.run([command, "order", path, *order], stdout=subprocess.PIPE, text=True, check=True).stdout
    if pathlib.Path(ids).read_text() != wanted:
        sys.exit("late_bench.py: the order is not that of `ringfeed order`")
    os.unlink(ids)
    return json.loads(out)["samples_per_s"]


def main():
    from faulty import Faulty

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/bench")
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefetch", default="16")
    parser.add_argument("--hedge-ms", type=int, default=0, help="default: four times what a read takes, at least 1")
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    os.environ["RINGFEED_BUILD"] = args.build
    command = os.path.join(args.build, "tools/ringfeed")
    records = (args.mb << 20) // RECORD
    folder = pathlib.Path(args.dir, f"late-{args.mb}")
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if not data.exists() or data.stat().st_size != records * RECORD:
        with open(data, "wb") as f:
            for _ in range(records):
                f.write(os.urandom(RECORD))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        place = pathlib.Path(place)
        rates = {"none": [], "late": [], "hedged": []}
        plain = Faulty(folder, place / "plain", [])
        if not plain.mounted():
            sys.exit("late_bench.py: the file system cannot be mounted: " + plain.process.communicate()[1].decode())
        one = latency(plain.path / "data", records)
        late_ms = max(1, round(100 * one * 1000))
        hedge = str(args.hedge_ms or max(1, round(4 * one * 1000)))
        chosen = random.Random(1).sample(range(records), records // 100)
        rules = [f"data {i * RECORD} {i * RECORD + 1} late 1 {late_ms}" for i in chosen]
        print(f"a read takes {one * 1e3:.3f} ms, a late one {late_ms} ms; {len(chosen)} of {records} are late; --hedge-ms {hedge}, "
              f"--prefetch {args.prefetch}", flush=True)
        how = ("--prefetch", args.prefetch)
        try:
            for i in range(args.rounds):
                rates["none"].append(run(command, plain.path / "data", place / "ids", *how))
                for what, more in (("late", ()), ("hedged", ("--hedge-ms", hedge))):
                    bad = Faulty(folder, place / f"{what}{i}", rules)
                    try:
                        bad.mounted() or sys.exit("late_bench.py: the file system cannot be mounted")
                        rates[what].append(run(command, bad.path / "data", place / "ids", *how, *more))
                        if bad.spoilt() < len(chosen):
                            sys.exit(f"late_bench.py: {bad.spoilt()} reads came late, not {len(chosen)}")
                    finally:
                        bad.end()
        finally:
            plain.end()
    for what, found in rates.items():
        print(f"{what:6}  {statistics.median(found):8.0f} samples/s [{min(found):.0f}..{max(found):.0f}]")
    for what in ("late", "hedged"):
        ratios = [a / b for a, b in zip(rates[what], rates["none"])]
        print(f"{what} / none  {statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]")


if __name__ == "__main__":
    main()

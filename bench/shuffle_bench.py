#!/usr/bin/python3
"""What a shuffle costs on the device: samples/s in the order of the files, of a block shuffle and of a full one.

    bench/shuffle_bench.py [--build DIR] [--mb N] [--dir DIR] [--rounds N] [--epochs N] [--record-bytes N]

Records of 2 KiB, O_DIRECT, one worker, batches of 256. Each round serves the same file in the three orders, one after the
other (of the full shuffle a part of an epoch only), to `ringfeed attach`, which counts from its first batch to its
last. Printed are medians, and the median of each round's ratios.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import ratio

BATCH = 256
FULL_BATCHES = 400


def run(command, path, record, shuffle, epochs):
    name = f"shuffle-{os.getpid()}"
    serve = subprocess.Popen(
        [command, "serve", path, "--format", "raw", "--record-bytes", str(record), "--name", name, "--shuffle", shuffle, "--batch",
         str(BATCH), "--workers", "1", "--engine", "uring", "--direct", "on", "--pin", "off", "--epochs", str(epochs)],
        stdout=subprocess.PIPE, text=True)
    try:
        if not serve.stdout.readline().startswith("ready"):
            sys.exit("shuffle_bench.py: serve did not start")
        limit = ("--limit", str(FULL_BATCHES)) if shuffle == "full" else ()
        out = subprocess.run([command, "attach", name, "--rank", "0", "--json", *limit], stdout=subprocess.PIPE, text=True,
                             check=True, timeout=600).stdout
        return json.loads(out)["samples_per_s"]
    finally:
        serve.terminate()
        serve.wait(timeout=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--record-bytes", type=int, default=2048)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    folder = os.path.join(args.dir, f"2KB-{args.mb}")
    ratio.make(folder, 2048, 0, args.mb << 20)
    (path,) = ratio.shards(folder)
    rates = {shuffle: [] for shuffle in ("none", "block", "full")}
    for _ in range(args.rounds):
        for shuffle in rates:
            rates[shuffle].append(run(os.path.join(args.build, "tools/ringfeed"), path, args.record_bytes, shuffle, args.epochs))
    for shuffle, found in rates.items():
        print(f"{shuffle:5}  {statistics.median(found):9.0f} samples/s [{min(found):.0f}..{max(found):.0f}]")
    for other in ("none", "full"):
        ratios = [a / b for a, b in zip(rates["block"], rates[other])]
        print(f"block / {other:4}  {statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]")


if __name__ == "__main__":
    main()

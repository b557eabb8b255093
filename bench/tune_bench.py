#!/usr/bin/python3
"""tune_bench.py RINGFEED FILE: what tuning reaches, against the best fixed setting of workers and reads in flight.

FILE holds at least 1 GiB, a whole number of 112,640 bytes; it is read as records of 2 KiB and of 110 KB, with O_DIRECT and out of the page cache. Each
setting runs for --seconds after --ramp in turns with the others, --rounds times; the tuned one (no option) among them. In each round
the tuned one is compared with the setting that was best in the other rounds: the best of many noisy medians would be too
high. Medians over the rounds, and the range."""

import argparse
import json
import statistics
import subprocess

CELLS = {
    "2 KiB direct": (2048, 256, "on", "cold"),
    "110 KB direct": (112640, 32, "on", "cold"),
    "2 KiB cached": (2048, 256, "auto", "warm"),
    "110 KB cached": (112640, 32, "auto", "warm"),
}


def rate(args, cell, setting):
    record, batch, direct, cache = CELLS[cell]
    options = [] if setting is None else ["--workers", str(setting[0]), "--queue-depth", str(setting[1])]
    done = subprocess.run([args.ringfeed, "bench", args.file, "--format", "raw", "--record-bytes", str(record), "--batch",
                           str(batch), "--shuffle", "full", "--direct", direct, "--cache", cache, "--runtime",
                           str(args.seconds), "--ramp-time", str(args.ramp), "--limit", "off", "--bare", "off", "--json",
                           *options], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)["results"][0]["samples_per_s"]["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ringfeed")
    parser.add_argument("file")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--ramp", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--depths", default="8,32,64,128")
    parser.add_argument("--cells", default=",".join(CELLS))
    args = parser.parse_args()
    grid = [(int(w), int(d)) for w in args.workers.split(",") for d in args.depths.split(",")]
    for cell in args.cells.split(","):
        rates = {setting: [] for setting in [None, *grid]}
        for _ in range(args.rounds):
            for setting, seen in rates.items():
                seen.append(rate(args, cell, setting))
        tuned, ratios, bests = rates.pop(None), [], []
        for i in range(args.rounds):
            others = {setting: statistics.median(seen[:i] + seen[i + 1:] or seen) for setting, seen in rates.items()}
            bests.append(max(others, key=others.get))
            ratios.append(tuned[i] / rates[bests[-1]][i])
        best = max(rates, key=lambda setting: statistics.median(rates[setting]))
        print(f"{cell}: {statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}] of the best fixed; tuned "
              f"{statistics.median(tuned):.0f} samples/s, {best[0]} workers with {best[1]} reads in flight "
              f"{statistics.median(rates[best]):.0f}", flush=True)


if __name__ == "__main__":
    main()

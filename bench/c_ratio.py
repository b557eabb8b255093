#!/usr/bin/python3
"""Rate and CPU time of `ringfeed serve` + one `attach` a rank beside a hand-written C program, data in the page cache.

    bench/c_ratio.py [--build DIR] [--pairs N] [--epochs E] [--mb N] [--dir DIR] [--shapes 2KB,110KB,2.8MB] [--ranks R]
                     [--engine E] [--workers W] [--crowd N]

The C program (bench/c_program.c) has two threads, one a rank, which copy from mapped files into two buffers each. The two
alternate within one run; each line gives medians and the range of the ratio. CPU time is that of all processes: parent,
workers, trainers. With --crowd N it is not the C program that is compared, but N workers and N ranks with one of each: many
more processes than cores must not collapse. The first epoch fills page tables, on both sides; few epochs show that.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import ratio


class Bench:
    def __init__(self, build, engine):
        self.command, self.program = (os.path.join(build, p) for p in ("tools/ringfeed", "bench/c_program"))
        self.engine = engine

    def loader(self, folder, batch, epochs, ranks, workers):
        """Samples/s and CPU seconds a GB."""
        name, before = f"c-ratio-{os.getpid()}", os.times()
        serve = subprocess.Popen([self.command, "serve", *ratio.dataset(folder), "--name", name, "--batch", str(batch), "--shuffle",
                                  "full", "--direct", "off", "--engine", self.engine, "--ranks", str(ranks), "--epochs", str(epochs),
                                  *(["--workers", str(workers)] if workers else [])], stdout=subprocess.PIPE, text=True)
        try:
            if not serve.stdout.readline().startswith("ready"):
                sys.exit("c_ratio.py: serve did not start")
            trainers = [subprocess.Popen([self.command, "attach", name, "--rank", str(r), "--json"], stdout=subprocess.PIPE, text=True)
                        for r in range(ranks)]
            ends = [json.loads(t.communicate(timeout=600)[0].splitlines()[-1]) for t in trainers]
            serve.wait(timeout=60)
        finally:
            serve.kill()
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return sum(e["samples"] for e in ends) / max(e["seconds"] for e in ends), cpu / (sum(e["bytes"] for e in ends) / 1e9)

    def c_program(self, folder, batch, epochs):
        out = subprocess.run([self.program, "--threads", "2", "--epochs", str(epochs), "--batch", str(batch), *ratio.dataset(folder)],
                             stdout=subprocess.PIPE, text=True, timeout=600, check=True).stdout
        end = json.loads(out)
        return end["samples_per_s"], end["cpu_seconds"] / (end["bytes"] / 1e9)


def tell(what, ours, name, theirs):
    ratios = [a[0] / b[0] for a, b in zip(ours, theirs)]
    median = statistics.median
    print(f"{what} ratio {median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]  "
          f"ringfeed {median(a[0] for a in ours):.0f} samples/s {median(a[1] for a in ours):.2f} CPU-s/GB  "
          f"{name} {median(b[0] for b in theirs):.0f} samples/s {median(b[1] for b in theirs):.2f} CPU-s/GB  "
          f"({len(ratios)} pairs)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    parser.add_argument("--shapes", default=",".join(ratio.SHAPES))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--crowd", type=int, default=0)
    args = parser.parse_args()
    bench = Bench(args.build, args.engine)
    for shape in args.shapes.split(","):
        mean, deviation, batch = ratio.SHAPES[shape]
        folder = os.path.join(args.dir, f"{shape}-{args.mb}")
        ratio.make(folder, mean, deviation, args.mb << 20)
        ratio.warm(folder)
        ours, theirs = [], []
        for _ in range(args.pairs):
            if args.crowd:
                ours.append(bench.loader(folder, batch, args.epochs, args.crowd, args.crowd))
                theirs.append(bench.loader(folder, batch, args.epochs, 1, 1))
            else:
                ours.append(bench.loader(folder, batch, args.epochs, args.ranks, args.workers))
                theirs.append(bench.c_program(folder, batch, args.epochs))
        if args.crowd:
            tell(f"{shape:6} {args.crowd} x {args.crowd} to 1 x 1", ours, "1 x 1", theirs)
        else:
            tell(f"{shape:6} {args.ranks} ranks to C", ours, "C", theirs)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""How well --strategy adaptive evens out ranks of different speed.

    bench/adaptive_bench.py [--build DIR] [--runs N] [--batches N] [--dir DIR]

Four ranks, each a process whose step takes 4 ms. Three cases, in turn, each on a run of its own with one epoch:

  slowed     rank 3 becomes ten times slower after a quarter of its batches, for the rest of the epoch
  recovers   the same, but for a fifth of the epoch only
  at rest    all alike

Time of the epoch (first `next` to last release) by the ideal split's time: the steps that were really taken, at the
rates that the ranks really had, dealt so that all would end together, known from the first instant. The goal is 1.15.
`apart` is how far apart the ranks end, as a share of the epoch. At rest the number of moves must be 0.
"""
import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

from trainer import Trainer

RANKS, STEP, SLOWER, RECORD, BATCH = 4, 0.004, 10, 1024, 4


def train(build, name, rank, slow_from, slow_until, start, pipe):
    """(first, end, steps) on the monotonic clock: steps are (begin, seconds)."""
    trainer, steps, n = Trainer(build, name, rank), [], 0
    pipe.send("attached")
    start.wait()
    first = time.monotonic()
    while trainer.next():
        begin = time.monotonic()
        slow = slow_from is not None and n >= slow_from and begin - first < slow_until
        time.sleep(STEP * (SLOWER if slow else 1))
        trainer.release()
        steps.append((begin, time.monotonic() - begin, slow))
        n += 1
    end = steps[-1][0] + steps[-1][1] if steps else first
    pipe.send((first, end, steps))
    trainer.detach()


def ideal(begin, ranks, slow_until):
    """Seconds after `begin` at which all work is done when nobody ever waits: rates as measured, work taken together."""
    work = sum(len(steps) for _, _, steps in ranks)
    changes, rates = [], []
    for _, _, steps in ranks:
        fast = statistics.median(s for _, s, slow in steps if not slow)
        slow = [s for _, s, was_slow in steps if was_slow]
        since = next((b - begin for b, _, was_slow in steps if was_slow), None)
        rates.append((1 / fast, 1 / statistics.median(slow) if slow else None, since))
        if since is not None:
            changes += [since, slow_until]
    at = done = 0
    for until in [*sorted(changes), float("inf")]:
        rate = sum(slow if since is not None and since <= at < slow_until else fast for fast, slow, since in rates)
        if done + rate * (until - at) >= work:
            return at + (work - done) / rate
        done += rate * (until - at)
        at = until
    return at


def run(args, data, slow_from, slow_until):
    name, command = f"adaptive-{os.getpid()}", os.path.join(args.build, "tools/ringfeed")
    serve = subprocess.Popen([command, "serve", data, "--format", "raw", "--record-bytes", str(RECORD), "--name", name,
                              "--batch", str(BATCH), "--world-size", str(RANKS), "--strategy", "adaptive", "--workers", "2"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if not serve.stdout.readline().startswith("ready"):
            sys.exit("adaptive_bench.py: serve did not start")
        start, pipes, trainers = multiprocessing.Event(), [], []
        for rank in range(RANKS):
            ours, theirs = multiprocessing.Pipe()
            slow = slow_from if rank == RANKS - 1 else None
            one = multiprocessing.Process(target=train, args=(args.build, name, rank, slow, slow_until, start, theirs), daemon=True)
            one.start()
            ours.recv()
            pipes.append(ours)
            trainers.append(one)
        start.set()
        ranks = [p.recv() for p in pipes]
        for one in trainers:
            one.join(20)
        serve.wait(20)
    finally:
        serve.kill()
    moves = serve.stderr.read().count(" go to rank ")
    begin = min(first for first, _, _ in ranks)
    ends = [end - begin for _, end, _ in ranks]
    if sum(len(steps) for _, _, steps in ranks) != RANKS * args.batches:
        sys.exit("adaptive_bench.py: batches are missing")
    return max(ends) / ideal(begin, ranks, slow_until), (max(ends) - min(ends)) / max(ends), moves, max(ends)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    data = os.path.join(args.dir, f"records-{args.batches}.bin")
    if not os.path.exists(data):
        with open(data, "wb") as f:
            f.write(os.urandom(RECORD * BATCH * RANKS * args.batches))
    whole = args.batches * STEP
    cases = {"slowed": (args.batches // 4, float("inf")), "recovers": (args.batches // 4, whole * 0.45), "at rest": (None, 0)}
    results = {case: [] for case in cases}
    for _ in range(args.runs):
        for case, (slow_from, slow_until) in cases.items():
            results[case].append(run(args, data, slow_from, slow_until))
    for case, got in results.items():
        times, apart, moves, seconds = zip(*got)
        print(f"{case:8} epoch / ideal {statistics.median(times):.3f} [{min(times):.3f}..{max(times):.3f}]  "
              f"apart {statistics.median(apart):.3f}  moves {statistics.median(moves):.0f} [{min(moves)}..{max(moves)}]  "
              f"epoch {statistics.median(seconds):.1f} s  ({len(got)} runs)", flush=True)


if __name__ == "__main__":
    main()

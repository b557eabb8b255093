#!/usr/bin/python3
"""Utilisation of emulated accelerators that ask for 95 % of what can be had, and with a worker killed every second.

    bench/au_bench.py [--build DIR] [--bytes N] [--runs N] [--runtime S] [--accelerators N] [--prefetch N] [--dir DIR]

The shapes of unet3d, resnet50 and cosmoflow (unet3d with samples of a twentieth), data made by `bench datagen`. The ceiling
is what the trainers take with no step between batches, measured before each run; then the step is as long as 95 % of the ceiling
allows. AU is compute time over run time, as `bench run` counts it; beside it the part of its time that the rank which waited
longest spent in next, since the emulation itself (a timed wait and a barrier a step) takes about a tenth of a millisecond
of each step on two cores.
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import threading
import time

SHAPES = (("unet3d", "0.05"), ("resnet50", "1"), ("cosmoflow", "1"))


class Killer:
    """Kills one worker a second of the servers below a process."""

    def __init__(self, pid):
        self.pid, self.kills, self.over = pid, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def workers(self):
        found, pids = [], [self.pid]
        while pids:
            pid = pids.pop()
            try:
                children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                pids += [int(c) for c in children]
                found += [int(c) for c in children if pathlib.Path(f"/proc/{c}/comm").read_text().startswith("ringfeed-worke")]
            except OSError:
                continue
        return found

    def run(self):
        while not self.over.wait(1):
            workers = self.workers()
            if workers:
                os.kill(workers[self.kills % len(workers)], signal.SIGKILL)
                self.kills += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def bench(args, workload, step_ms, kill=False):
    command = [os.path.join(args.build, "tools/ringfeed"), "bench", "run", args.dir, "--workload", workload, "--step-ms", f"{step_ms:.6f}",
               "--accelerators", str(args.accelerators), "--runtime", str(args.runtime), "--cache", "as-is", "--bare", "off", "--max-restarts", "10000", "--json"]
    if args.prefetch:
        command += ["--prefetch", str(args.prefetch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    kills = 0
    if kill:
        with Killer(process.pid) as killer:
            out = process.communicate(timeout=600)[0]
        kills = killer.kills
    else:
        out = process.communicate(timeout=600)[0]
    if process.returncode:
        raise SystemExit(f"au_bench.py: bench failed: {' '.join(command)}")
    return json.loads(out), kills


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--bytes", default="1G")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--runtime", type=float, default=5)
    parser.add_argument("--accelerators", type=int, default=2)
    parser.add_argument("--prefetch", type=int, default=0, help="batches; 0: as serve does by itself, 4 at first and up to 64")
    parser.add_argument("--workload", default="")
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    for workload, scale in SHAPES:
        if args.workload and workload != args.workload:
            continue
        if not os.path.exists(os.path.join(args.dir, workload)):
            subprocess.run([os.path.join(args.build, "tools/ringfeed"), "bench", "datagen", args.dir, "--workload", workload, "--bytes",
                            args.bytes, "--scale", scale], check=True, stdout=subprocess.DEVNULL)
        ceilings, busy, waited, struck, kills, steps = [], [], [], [], 0, []
        for _ in range(args.runs):
            free = bench(args, workload, 0.001)[0]
            ceiling = free["delivery"]["samples_per_s"]["median"]
            step = free["batch"] * args.accelerators / (0.95 * ceiling) * 1000
            ceilings.append(ceiling)
            steps.append(step)
            result = bench(args, workload, step)[0]
            busy.append(result["utilisation"]["median"])
            waited.append(result["waited"])
            result, n = bench(args, workload, step, kill=True)
            struck.append(result["utilisation"]["median"])
            kills += n
        print(f"{workload:9}  ceiling {statistics.median(ceilings):8.0f} samples/s, step {statistics.median(steps):7.2f} ms: AU "
              f"{statistics.median(busy):.1f} % [{min(busy):.1f}..{max(busy):.1f}], waited {statistics.median(waited):.2f} %, with {kills} workers killed "
              f"{statistics.median(struck):.1f} % [{min(struck):.1f}..{max(struck):.1f}]", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""What the death of a worker costs its trainer.

    bench/restart_bench.py [--build DIR] [--kills N] [--dir DIR]

One rank, one worker, a ring of two batches, and a trainer that takes batches as fast as they come, so that it waits for
the worker all the time: nothing is ahead that could hide a restart. The worker is killed at random instants. Of each kill:

  noticed   from SIGKILL until the parent has reaped the worker (its record says DRAINING)
  drain     from then until its io_uring is empty: reads that were in flight
  running   from SIGKILL until the next worker runs
  stall     the longest wait of the trainer that the kill can have caused, minus a usual wait and minus the drain

Records are read from the segment every 50 us or so, which is how exact the first three are.
"""
import argparse
import json
import mmap
import multiprocessing
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import time

from trainer import Trainer

RUNNING, DRAINING, WORKERS = 1, 2, 2  # rfi_worker_state, and the id of the workers' region
RECORD = 8192


class Workers:
    """The first worker's record, read from the control object (lib/segment/header.h, lib/run/run_shared.h)."""

    def __init__(self, name):
        with open(f"/dev/shm/ringfeed.{name}", "rb") as f:
            self.map = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        first = 8 + 8 + 4 + 4 + 8 + 16 + 16 + 8 + 8 + 72  # of the region table
        self.at = struct.unpack_from("<IIQQQ", self.map, first + 32 * WORKERS)[3]

    def look(self):
        """State, pid, incarnation."""
        return struct.unpack_from("<IiQ", self.map, self.at)


def train(build, name, stop, pipe):
    """Waits of more than 100 us as (asked, came), and the median wait of all."""
    trainer, waits, sample = Trainer(build, name, 0), [], []
    pipe.send("attached")
    while not stop.is_set():
        for _ in range(64):
            asked, came = trainer.next()
            trainer.release()
            if came - asked > 1e-4:
                waits.append((asked, came))
        sample.append(came - asked)
    pipe.send((waits, statistics.median(sample)))
    trainer.detach()


def one_kill(workers, rnd):
    """Times of a kill: sent, noticed, drained, running."""
    _, pid, incarnation = workers.look()
    time.sleep(0.02 + rnd.random() * 0.02)
    sent = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    noticed = drained = None
    while True:
        state, _, now = workers.look()
        at = time.monotonic()
        if noticed is None and (state != RUNNING or now != incarnation):
            noticed = at
        if noticed and drained is None and (state != DRAINING or now != incarnation):
            drained = at
        if state == RUNNING and now != incarnation:
            return sent, noticed, drained, at
        if at > sent + 10:
            sys.exit("restart_bench.py: no worker was started within 10 s")
        time.sleep(2e-5)


def quantiles(what, seconds):
    ms = sorted(1000 * s for s in seconds)
    p99 = ms[min(len(ms) - 1, int(0.99 * len(ms)))]
    print(f"{what:8} p50 {statistics.median(ms):7.2f} ms  p99 {p99:7.2f} ms  max {ms[-1]:7.2f} ms", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    data = os.path.join(args.dir, "records-64MB.bin")
    if not os.path.exists(data):
        with open(data, "wb") as f:
            f.write(os.urandom(64 << 20))
    name, command = f"restart-{os.getpid()}", os.path.join(args.build, "tools/ringfeed")
    serve = subprocess.Popen([command, "serve", data, "--format", "raw", "--record-bytes", str(RECORD), "--name", name,
                              "--batch", "16", "--shuffle", "full", "--workers", "1", "--prefetch", "2", "--epochs", "0"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if not serve.stdout.readline().startswith("ready"):
            sys.exit("restart_bench.py: serve did not start")
        workers, rnd, stop = Workers(name), random.Random(1), multiprocessing.Event()
        ours, theirs = multiprocessing.Pipe()
        trainer = multiprocessing.Process(target=train, args=(args.build, name, stop, theirs), daemon=True)
        trainer.start()
        ours.recv()
        time.sleep(0.5)
        kills = [one_kill(workers, rnd) for _ in range(args.kills)]
        time.sleep(0.2)
        restarts = json.loads(subprocess.check_output([command, "stat", name, "--json"]))["restarts"]
        stop.set()
        waits, usual = ours.recv()
        trainer.join(20)
    finally:
        serve.terminate()
        serve.wait(20)
    if restarts != args.kills:
        sys.exit(f"restart_bench.py: {args.kills} kills and {restarts} restarts")
    stalls = []
    for sent, noticed, drained, running in kills:
        caused = [came - asked for asked, came in waits if came > sent and asked < running]
        stalls.append(max(0, max(caused, default=0) - usual - (drained - noticed)))
    print(f"{args.kills} kills; a usual wait is {usual * 1e6:.0f} us")
    quantiles("noticed", [k[1] - k[0] for k in kills])
    quantiles("drain", [k[2] - k[1] for k in kills])
    quantiles("running", [k[3] - k[0] for k in kills])
    quantiles("stall", stalls)


if __name__ == "__main__":
    main()

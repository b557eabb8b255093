#!/usr/bin/python3
"""Python's part of a batch: microseconds of next(), the batch before it released, when the batch is ready.

    bench/python_next.py [--build DIR] [--rounds N]

2 KiB x 256. The ring is filled first, so nothing is waited for; what is timed is `for batch in loader` without a body, then with
batch.data, batch.ids and batch.torch(), in turns. Beside it: an int a batch from a process through multiprocessing.Queue, so only
its hand-over: filled first as well, and while the process produces. Median, least and largest of the rounds."""
import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import time

RECORD, BATCH, DEPTH, TIMED = 2048, 256, 64, 56

BODIES = {
    "next": lambda batch: None,
    "next, batch.data": lambda batch: batch.data,
    "next, batch.data, batch.ids": lambda batch: (batch.data, batch.ids),
    "next, batch.torch()": lambda batch: batch.torch(),
}


def timed(iterator, body):
    """Seconds of TIMED batches; a body costs a call of Python more."""
    clock = time.perf_counter
    few = itertools.islice(iterator, TIMED)
    if body is BODIES["next"]:
        began = clock()
        for batch in few:
            pass
        return clock() - began
    began = clock()
    for batch in few:
        body(batch)
    return clock() - began


def fill(loader):
    until = time.monotonic() + 20
    while loader._trainer.prefetch(DEPTH) < DEPTH - 2:
        if time.monotonic() > until:
            sys.exit("python_next.py: the ring does not fill")
        time.sleep(0.002)


def produce(queue, n):
    for k in range(n):
        queue.put(k)


def queue_round(context):
    queue = context.Queue(DEPTH)
    process = context.Process(target=produce, args=(queue, DEPTH))
    process.start()
    while queue.qsize() < DEPTH:
        time.sleep(0.002)
    time.sleep(0.02)  # its feeder thread is through
    began = time.perf_counter()
    for _ in range(TIMED):
        queue.get()
    took = time.perf_counter() - began
    for _ in range(DEPTH - TIMED):
        queue.get()
    process.join()
    return took


def running_round(context, n=2000):
    """Seconds of TIMED hand-overs, of n that follow each other."""
    queue = context.Queue(DEPTH)
    process = context.Process(target=produce, args=(queue, n + 1))
    process.start()
    queue.get()
    began = time.perf_counter()
    for _ in range(n):
        queue.get()
    took = time.perf_counter() - began
    process.join()
    return took / n * TIMED


def line(what, seconds):
    values = [s / TIMED * 1e6 for s in seconds]
    print(f"{what:32} {statistics.median(values):7.2f} us  [{min(values):.2f} .. {max(values):.2f}]")


QUEUES = {"Queue.get(), filled": queue_round, "Queue.get(), while it is filled": running_round}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    os.environ.setdefault("RINGFEED", os.path.join(os.path.abspath(args.build), "tools", "ringfeed"))
    sys.path.insert(0, os.path.join(args.build, "lib", "python"))
    import numpy
    import ringfeed

    data = numpy.zeros((BATCH * DEPTH * 2, RECORD), "u1")
    context = multiprocessing.get_context("fork")
    results = {name: [] for name in [*BODIES, *QUEUES]}
    with ringfeed.Loader(data, BATCH, shuffle=True, prefetch=DEPTH, ring_bytes=DEPTH * BATCH * RECORD * 2) as loader:
        for _ in range(args.rounds):
            for name, body in BODIES.items():
                try:
                    iterator = iter(loader)
                    fill(loader)
                    results[name].append(timed(iterator, body))
                except ImportError:
                    continue  # no torch here
            for name, measure in QUEUES.items():
                results[name].append(measure(context))
    for name, seconds in results.items():
        if seconds:
            line(name, seconds)


if __name__ == "__main__":
    main()

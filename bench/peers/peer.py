"""What the scripts here share: the job of `ringfeed bench --compare`, the start, the clock, and the result's line.

A peer is called as  PEER.py FOLDER --rank R --batch B --threads T [--seconds S] [--step-us N].  In FOLDER:
files.txt, a path a line; samples.bin, of each sample file, 0 (32 bits each), offset and bytes (64 bits each);
order-R.bin, the sample numbers that rank R reads, in order, 64 bits each. It says "ready", waits for a line, runs,
and prints one line of JSON. Exit status 77: what it measures is not installed, or cannot read such data."""
import argparse
import json
import os
import resource
import sys
import time

MISSING = 77


def unusable(why):
    """Ends the peer: there is nothing to measure, and this is why."""
    print(why, file=sys.stderr)
    sys.exit(MISSING)


class Job:
    def __init__(self):
        import numpy

        parser = argparse.ArgumentParser()
        parser.add_argument("folder")
        parser.add_argument("--rank", type=int, required=True)
        parser.add_argument("--batch", type=int, required=True)
        parser.add_argument("--threads", type=int, required=True)
        parser.add_argument("--seconds", type=float, default=0)
        parser.add_argument("--step-us", type=float, default=0)
        args = parser.parse_args()
        self.rank, self.batch, self.threads = args.rank, args.batch, args.threads
        self.seconds, self.step_s = args.seconds, args.step_us * 1e-6
        with open(os.path.join(args.folder, "files.txt"), encoding="utf-8", errors="surrogateescape") as f:
            self.files = f.read().split("\n")[:-1]
        kind = numpy.dtype([("file", "<u4"), ("zero", "<u4"), ("offset", "<u8"), ("bytes", "<u8")])
        self.samples = numpy.fromfile(os.path.join(args.folder, "samples.bin"), kind)
        self.order = numpy.fromfile(os.path.join(args.folder, f"order-{self.rank}.bin"), "<u8").astype("i8")
        sizes = self.samples["bytes"]
        self.fixed = int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 0

    def wait(self):
        print("ready", flush=True)
        if not sys.stdin.readline():
            sys.exit(1)

    def run(self, batches, ahead, version):
        """Goes through `batches`, a generator of (samples, bytes), and reports. The first `ahead` of them were begun
        before there was anybody to take them: they count for the CPU time only."""
        began = last = time.monotonic()
        cpu = cpu_seconds()
        taken = samples = total = counted_samples = counted_bytes = 0
        for n, size in batches:
            samples, total, taken = samples + n, total + size, taken + 1
            if taken > ahead:
                counted_samples, counted_bytes, last = counted_samples + n, counted_bytes + size, time.monotonic()
            else:
                began = last = time.monotonic()
            if self.step_s:
                time.sleep(self.step_s)
            if self.seconds and time.monotonic() - began > self.seconds and taken > ahead:
                break
        batches.close()  # its processes end here, and their time is known then
        print(json.dumps({"samples": counted_samples, "bytes": int(counted_bytes), "seconds": last - began,
                          "cpu_seconds": cpu_seconds() - cpu, "cpu_bytes": int(total), "version": version}), flush=True)


def cpu_seconds():
    """Of this process and of the children that have ended."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

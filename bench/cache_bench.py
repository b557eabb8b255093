#!/usr/bin/python3
"""Bytes that the device reads in an epoch with --cache-bytes, beside the page cache's in the same memory cgroup.

    bench/cache_bench.py [--build DIR] [--mb N] [--dir DIR] [--epochs N]

For c = 1/4, 1/2, 3/4 of the dataset (samples of 110 KB in tar shards, full shuffle): a control group with room for c of the
dataset and what the server itself takes. In it `serve --cache-bytes` with O_DIRECT, then `serve` through the page
cache. Counted are the read_bytes that the kernel keeps for the workers (/proc/PID/io), over all epochs but the first
two, divided by the dataset's bytes: 1 - c is the least that any policy can reach with a random order. Needs root and
a memory cgroup (version 1 or 2).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import ratio

SERVER_BYTES = 150 << 20  # rings of 64 MiB, the spare's header, tables, staging, processes


def make_group():
    for base, limit in ((pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (pathlib.Path("/sys/fs/cgroup"), "memory.max")):
        group = base / f"ringfeed-bench-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():
            return group, limit
        group.rmdir()
    sys.exit("cache_bench.py: no memory cgroup can be made here")


def read_bytes(pid):
    total = 0
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for line in pathlib.Path(f"/proc/{child}/io").read_text().splitlines():
            if line.startswith("read_bytes:"):
                total += int(line.split()[1])
    return total


def forget(folder):
    for shard in ratio.shards(folder):
        fd = os.open(shard, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def run(command, group, folder, batches, epochs, *how):
    """Device bytes of each epoch, and samples/s over all but the first."""
    forget(folder)
    name = f"cache-{os.getpid()}"
    serve = subprocess.Popen(
        ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec \"$@\"", "sh", command, "serve", *ratio.shards(folder), "--format", "tar",
         "--name", name, "--batch", "32", "--shuffle", "full", "--workers", "1", "--epochs", str(epochs), "--pin", "off",
         "--prefetch", "4", *how], stdout=subprocess.PIPE, text=True)
    if not serve.stdout.readline().startswith("ready"):
        sys.exit("cache_bench.py: serve did not start")
    counts, rates = [], []
    for epoch in range(epochs - 1):
        before = read_bytes(serve.pid)
        out = subprocess.run([command, "attach", name, "--rank", "0", "--json", "--limit", str(batches)], stdout=subprocess.PIPE,
                             text=True, check=True, timeout=600).stdout
        counts.append(read_bytes(serve.pid) - before)
        rates.append(json.loads(out)["samples_per_s"])
    subprocess.run([command, "attach", name, "--rank", "0"], stdout=subprocess.DEVNULL, check=True, timeout=600)
    serve.wait(timeout=60)
    return counts, rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    args = parser.parse_args()
    command = os.path.join(args.build, "tools/ringfeed")
    mean, deviation, _ = ratio.SHAPES["110KB"]
    folder = os.path.join(args.dir, f"110KB-{args.mb}")
    ratio.make(folder, mean, deviation, args.mb << 20)
    info = json.loads(subprocess.run([command, "inspect", *ratio.shards(folder), "--format", "tar", "--json"],
                                     stdout=subprocess.PIPE, text=True, check=True).stdout)
    size, batches = info["bytes"], -(-info["samples"] // 32)
    group, limit = make_group()
    try:
        for quarters in (1, 2, 3):
            (group / limit).write_text(str(size * quarters // 4 + SERVER_BYTES))
            for label, how in (("--cache-bytes", ("--direct", "on", "--cache-bytes", str(size * quarters // 4))),
                               ("page cache", ("--direct", "off"))):
                counts, rates = run(command, group, folder, batches, args.epochs, *how)
                part = [n / size for n in counts[2:]]
                print(f"c = {quarters}/4  {label:13}  device bytes an epoch / dataset {statistics.median(part):.3f} "
                      f"[{min(part):.3f}..{max(part):.3f}]  (1-c = {1 - quarters / 4:.2f})  {statistics.median(rates[2:]):.0f} samples/s",
                      flush=True)
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), 9)
        group.rmdir()


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Delivered bytes/s of `ringfeed serve` + one `attach`, divided by a bare io_uring loop over the same reads.

    bench/ratio.py [--build DIR] [--pairs N] [--mb N] [--dir DIR] [--shapes 2KB,110KB,2.8MB] [--engine E] [--default-ring]

For samples of 2 KiB (raw records), 110 KB and 2.8 MB (tar shards), page cache and O_DIRECT, one rank, one worker against one loop, the same order,
queue depth, piece size and memory. The two alternate within one run; each line gives the median and the range of the
ratio over the pairs, and the median rates. Both have 64 MiB: batches come in order, so a slow read holds back what
lies behind it, and memory decides how far the loop can run ahead; --default-ring gives the server its default of 4
batches against the loop's 64 MiB. The pages of memory count with
O_DIRECT: both sides have theirs from lib/segment/pages.c, huge ones on any tmpfs. The data is made once, by Python's tarfile, in --dir (kept for the next time).
"""
import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile

MEMORY = 64 << 20  # of the ring and of the loop; 0 with --default-ring: the ring as serve makes it by itself
SHAPES = {"2KB": (2048, 0, 256), "110KB": (112640, 20000, 32), "2.8MB": (2828486, 71311, 4)}


def make(folder, mean, deviation, total):
    """Four tar shards of variable-size members, about `total` bytes."""
    done = os.path.join(folder, "done")
    if os.path.exists(done):
        return
    os.makedirs(folder, exist_ok=True)
    rnd = random.Random(mean)
    blob = os.urandom(16 << 20)
    if not deviation:
        with open(os.path.join(folder, "records"), "wb") as f:
            for _ in range(total // len(blob)):
                f.write(blob)
    number = 0
    for shard in range(4 if deviation else 0):
        with tarfile.open(os.path.join(folder, f"{shard}.tar"), "w") as tar:
            written = 0
            while written < total // 4:
                size = max(1, int(rnd.gauss(mean, deviation)))
                at = rnd.randrange(0, len(blob) - size)
                member = tarfile.TarInfo(f"{number:08d}.bin")
                member.size = size
                tar.addfile(member, io.BytesIO(blob[at:at + size]))
                written += size
                number += 1
    open(done, "w").close()


def shards(folder):
    records = os.path.join(folder, "records")
    return [records] if os.path.exists(records) else [os.path.join(folder, f"{shard}.tar") for shard in range(4)]


def dataset(folder):
    files = shards(folder)
    return [*files, *(["--format", "tar"] if len(files) > 1 else ["--format", "raw", "--record-bytes", "2048"])]


def deliver(command, folder, batch, direct, name, engine):
    serve = subprocess.Popen([command, "serve", *dataset(folder), "--name", name, "--batch", str(batch),
                              "--shuffle", "full", "--workers", "1", "--direct", direct, "--engine", engine, "--pin", "off",
                              *(["--prefetch", "16", "--ring-bytes", str(MEMORY)] if MEMORY else [])],
                             stdout=subprocess.PIPE, text=True)
    try:
        if not serve.stdout.readline().startswith("ready"):
            sys.exit("ratio.py: serve did not start")
        out = subprocess.run([command, "attach", name, "--rank", "0", "--json"], stdout=subprocess.PIPE, text=True,
                             timeout=300, check=True).stdout
        serve.wait(timeout=60)
    finally:
        serve.kill()
    return json.loads(out)


def bare(loop, folder, batch, direct):
    words = [loop, "--batch", str(batch), "--shuffle", "full", "--depth", "32"]
    words += ["--buffer-bytes", str(MEMORY or 64 << 20)]
    words += ["--direct", "--fixed-buffers"] if direct == "on" else []
    return json.loads(subprocess.run([*words, *dataset(folder)], stdout=subprocess.PIPE, text=True, timeout=300,
                                     check=True).stdout)


def warm(folder):
    for shard in shards(folder):
        with open(shard, "rb") as f:
            while f.read(8 << 20):
                pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--default-ring", action="store_true")
    args = parser.parse_args()
    global MEMORY
    MEMORY = 0 if args.default_ring else MEMORY
    command, loop = (os.path.join(args.build, p) for p in ("tools/ringfeed", "bench/bare_loop"))
    for shape in args.shapes.split(","):
        mean, deviation, batch = SHAPES[shape]
        folder = os.path.join(args.dir, f"{shape}-{args.mb}")
        make(folder, mean, deviation, args.mb << 20)
        for direct in ("off", "on"):
            ratios, ours, theirs = [], [], []
            for pair in range(args.pairs + 1):
                if direct == "off":
                    warm(folder)
                a = deliver(command, folder, batch, direct, f"ratio-{os.getpid()}", args.engine)
                b = bare(loop, folder, batch, direct)
                if pair == 0:
                    continue  # both warm up once
                ours.append(a["bytes_per_s"])
                theirs.append(b["bytes_per_s"])
                ratios.append(a["bytes_per_s"] / b["bytes_per_s"])
            print(f"{shape:6} {'O_DIRECT' if direct == 'on' else 'cached':8} ratio {statistics.median(ratios):.2f} "
                  f"[{min(ratios):.2f}..{max(ratios):.2f}]  ringfeed {statistics.median(ours) / 1e6:.0f} MB/s  "
                  f"bare {statistics.median(theirs) / 1e6:.0f} MB/s  ({len(ratios)} pairs)", flush=True)


if __name__ == "__main__":
    main()

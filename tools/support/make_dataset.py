"""Writes the quickstart's dataset: WebDataset-like tar shards of pictures (so to say), class numbers and JSON,
with the standard library's tarfile, so that ringfeed's own code had no hand in it.

    make_dataset.py DIRECTORY [MEGABYTES]
"""

import io
import json
import pathlib
import random
import shutil
import sys
import tarfile

SHARDS = 6
MEAN_BYTES = 100_000
POOL_BYTES = 1 << 23
COMPLETE = ".complete.json"


def sample_sizes(rng, total):
    """Sizes like those of pictures: most near the mean, a few many times as large."""
    sizes, left = [], total
    while left > 0:
        size = min(int(rng.lognormvariate(0, 0.8) * MEAN_BYTES * 0.73) + 200, 20 * MEAN_BYTES)
        sizes.append(size)
        left -= size
    return sizes


def write_member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_shard(path, first, sizes, rng, pool):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, size in enumerate(sizes, first):
            at = rng.randrange(POOL_BYTES)
            head = f"sample {number:09d} ".encode()  # no two samples are equal
            body = (pool[at : at + size] + pool)[: size - len(head)] if size <= POOL_BYTES else pool[: size - len(head)]
            label = rng.randrange(100)
            write_member(tar, f"{number:08d}.jpg", head + body)
            write_member(tar, f"{number:08d}.cls", str(label).encode())
            write_member(tar, f"{number:08d}.json", json.dumps({"number": number, "label": label}).encode())


def make(directory, megabytes):
    """Makes the dataset, unless a complete one of this size stands there. Returns its path."""
    wanted = {"version": 1, "megabytes": megabytes}
    shards = directory / "shards"
    complete = directory / COMPLETE
    if complete.exists() and json.loads(complete.read_text()) == wanted:
        return shards
    print(f"making a dataset of {megabytes} MB, once, in {directory}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    shards.mkdir(parents=True)
    rng = random.Random(megabytes)
    pool = rng.randbytes(POOL_BYTES)
    sizes = sample_sizes(rng, megabytes * 1_000_000)
    per_shard = -(-len(sizes) // SHARDS)
    for shard in range(SHARDS):
        first = shard * per_shard
        write_shard(shards / f"shard-{shard:04d}.tar", first, sizes[first : first + per_shard], rng, pool)
    complete.write_text(json.dumps(wanted))
    return shards


if __name__ == "__main__":
    print(make(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300))

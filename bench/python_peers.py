#!/usr/bin/python3
"""Samples/s of ringfeed.Loader beside PyTorch's DataLoader and beside a NumPy gather in the trainer, in one process, in turns.

    bench/python_peers.py [--build DIR] [--pairs N] [--seconds S] [--mb N] [--dir DIR] [--shapes 2KB,110KB,2.8MB]

Records of 2 KiB (raw, 256 a batch), of 110 KB (tar, 32) and of 2.8 MB (tar, 4), in the page cache, shuffled. Two workers each,
those of the DataLoader persistent; it reads the same extents by pread (bench/peers/torch_loader.py) and collates 2 KiB records by
default. Samples of varying size it cannot collate: they come as a list of tensors, and in a second row joined to one tensor
with their sizes, which is the best that can be done for it. `gather` copies the same samples from mapped files into one reused
array (bench/peers/gather_loader.py): without a step of the trainer, and with one that sleeps 1 ms a batch.

Each turn takes S seconds of an epoch, behind the batches that were read ahead. The rows have the median rates and the median
and range of the pairs' ratios. Then the gap at an epoch's end, from asking for what comes after the last batch to having the next
epoch's first, with a step of 2 ms: everybody has had time to read ahead. The data is made once, in --dir, as bench/ratio.py
makes it."""
import argparse
import os
import statistics
import sys
import time
import types

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "peers")]
import ratio  # noqa: E402

AHEAD = 4  # batches that both read ahead: prefetch_factor 2, two workers; ringfeed's default


def job_of(rf, folder, batch, seed=0):
    """What bench/peers call a job: files, where each sample lies, an order."""
    import numpy

    files = ratio.shards(folder)
    kind = numpy.dtype([("file", "<u4"), ("zero", "<u4"), ("offset", "<u8"), ("bytes", "<u8")])
    if len(files) == 1:
        samples = numpy.zeros(os.path.getsize(files[0]) // 2048, kind)
        samples["offset"] = numpy.arange(len(samples), dtype="u8") * 2048
        samples["bytes"] = 2048
        options = {"format": "raw", "record_bytes": 2048}
    else:
        options = {"format": "tar"}
        dataset = rf.Dataset(files, **options)
        facts = [dataset.sample(i) for i in range(len(dataset))]
        number = {os.path.realpath(f): k for k, f in enumerate(files)}
        samples = numpy.array([(number[os.path.realpath(s["file"])], 0, s["offset"], s["bytes"]) for s in facts], kind)
    order = numpy.random.default_rng(seed).permutation(len(samples))
    fixed = 2048 if len(files) == 1 else 0
    return types.SimpleNamespace(files=files, samples=samples, order=order, fixed=fixed, batch=batch, options=options)


def joined(batch):
    import torch

    return torch.cat(batch), torch.tensor([len(s) for s in batch])


def rate(epoch, seconds, step_s):
    """Samples/s, `epoch()` being an iterator of sample counts. What was read ahead of an epoch's beginning does not count."""
    samples = counted = 0
    clock = time.perf_counter
    while counted < seconds:
        began = last = None
        for k, n in enumerate(epoch()):
            last = clock()
            if k == AHEAD:
                began = last
            elif k > AHEAD:
                samples += n
                if counted + last - began > seconds:
                    break
            if step_s:
                time.sleep(step_s)
        counted += last - began
    return samples / counted


def row(what, ours, theirs):
    ratios = [a / b for a, b in zip(ours, theirs)]
    print(f"  {what:34} {statistics.median(ours):12,.0f}/s {statistics.median(theirs):12,.0f}/s   "
          f"{statistics.median(ratios):6.2f}  [{min(ratios):.2f} .. {max(ratios):.2f}]", flush=True)


def torch_loader(job, collate, persistent=True):
    from torch.utils.data import DataLoader, SubsetRandomSampler
    from torch_loader import Samples

    return DataLoader(Samples(job), job.batch, sampler=SubsetRandomSampler(job.order.tolist()), num_workers=2,
                      persistent_workers=persistent, collate_fn=collate)


def measure_shape(rf, shape, folder, batch, pairs, seconds):
    from gather_loader import copied, gathered, records
    from torch_loader import as_list

    job = job_of(rf, folder, batch)
    array = records(job)
    print(f"{shape}, {len(job.samples)} samples, {batch} a batch:            ringfeed           other    ratio", flush=True)
    with rf.Loader(job.files, batch, shuffle=True, num_workers=2, **job.options) as loader:
        peers = {"torch DataLoader": torch_loader(job, None)} if job.fixed else {
            "torch DataLoader, list": torch_loader(job, as_list), "torch DataLoader, joined": torch_loader(job, joined)}
        turns = {name: (lambda p=p: (min(batch, len(job.samples)) for _ in p), 0) for name, p in peers.items()}
        gather = lambda: (n for n, _ in (copied(job) if array is None else gathered(job, array)))
        turns |= {"NumPy gather": (gather, 0), "NumPy gather, steps of 1 ms": (gather, 0.001)}
        results = {name: ([], []) for name in turns}
        for pair in range(pairs + 1):
            for name, (epoch, step) in turns.items():
                a = rate(lambda: (len(b) for b in loader), seconds, step)
                b = rate(epoch, seconds, step)
                if pair:  # everybody warms up once
                    results[name][0].append(a)
                    results[name][1].append(b)
        for name, (ours, theirs) in results.items():
            row(name, ours, theirs)


def gaps(batches_of, epochs, step_s):
    found, last = [], None
    for _ in range(epochs):
        for k, _ in enumerate(batches_of):
            if k == 0 and last:
                found.append(time.perf_counter() - last)
            time.sleep(step_s)
            last = time.perf_counter()
    return found


def measure_gap(rf, folder, epochs):
    job = job_of(rf, folder, 256)
    job.order = job.order[:256 * 20]
    print("epoch's end, ms:", flush=True)
    with rf.Loader(job.files, 256, shuffle=True, num_workers=2, subset=f"0:{256 * 20}", **job.options) as loader:
        for name, batches in (("ringfeed", loader), ("torch DataLoader, persistent", torch_loader(job, None)),
                              ("torch DataLoader, respawned", torch_loader(job, None, False))):
            found = [g * 1000 for g in gaps(batches, epochs, 0.002)]
            print(f"  {name:34} {statistics.median(found):10.3f}  [{min(found):.3f} .. {max(found):.3f}]", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--mb", type=int, default=1024)
    parser.add_argument("--dir", default="/var/tmp/ringfeed-bench")
    parser.add_argument("--shapes", default=",".join(ratio.SHAPES))
    args = parser.parse_args()
    os.environ.setdefault("RINGFEED", os.path.join(os.path.abspath(args.build), "tools", "ringfeed"))
    sys.path.insert(0, os.path.join(args.build, "lib", "python"))
    import ringfeed as rf
    import torch

    torch.set_num_threads(1)
    for shape in args.shapes.split(","):
        mean, deviation, batch = ratio.SHAPES[shape]
        folder = os.path.join(args.dir, f"{shape}-{args.mb}")
        ratio.make(folder, mean, deviation, args.mb << 20)
        ratio.warm(folder)
        measure_shape(rf, shape, folder, batch, args.pairs, args.seconds)
    folder = os.path.join(args.dir, f"2KB-{args.mb}")
    ratio.make(folder, *ratio.SHAPES["2KB"][:2], args.mb << 20)
    measure_gap(rf, folder, 12)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""webdataset over the tar files of a job, in its own order (shards and a shuffle buffer), by PyTorch's DataLoader."""
from peer import Job, unusable

try:
    import torch
    import webdataset
    from torch.utils.data import DataLoader
except ImportError as why:
    unusable(f"webdataset: {why}")


def total(sample):
    return sum(len(v) for v in sample.values() if isinstance(v, bytes))


def as_list(batch):
    return batch


def main():
    job = Job()
    if not all(f.endswith(".tar") for f in job.files):
        unusable("webdataset: it reads tar files only")
    shards = job.files[job.rank:] + job.files[:job.rank]
    data = webdataset.WebDataset(shards, shardshuffle=len(shards), handler=webdataset.reraise_exception,
                                 empty_check=False).shuffle(1000)
    loader = DataLoader(data, batch_size=job.batch, num_workers=min(job.threads, len(shards)), collate_fn=as_list)
    job.wait()
    limit = -(-len(job.order) // job.batch)  # of the epoch of all shards, this rank's share
    batches = ((len(b), sum(map(total, b))) for b, _ in zip(loader, range(limit)))
    job.run(batches, job.threads * loader.prefetch_factor,
            f"{webdataset.__version__}, torch {torch.__version__}, {min(job.threads, len(shards))} workers")


if __name__ == "__main__":
    main()

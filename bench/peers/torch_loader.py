#!/usr/bin/python3
"""PyTorch's DataLoader with worker processes and its default collation, over the samples of a job (peer.py)."""
import os

from peer import Job, unusable

try:
    import torch
    from torch.utils.data import DataLoader, Dataset
except ImportError as why:
    unusable(f"torch: {why}. Debian: apt install python3-torch")


class Samples(Dataset):
    """Each sample is read by pread into a tensor of its own, as a dataset class usually does it."""

    def __init__(self, job):
        self.job, self.files = job, {}

    def __len__(self):
        return len(self.job.samples)

    def __getitem__(self, i):
        number, _, offset, size = self.job.samples[i]
        if number not in self.files:
            self.files[number] = os.open(self.job.files[number], os.O_RDONLY)
        data = bytearray(int(size))
        if os.preadv(self.files[number], [data], int(offset)) != size:
            raise OSError(f"sample {i} is not whole")
        return torch.frombuffer(data, dtype=torch.uint8) if size else torch.empty(0, dtype=torch.uint8)


def as_list(batch):
    return batch


def measured(batch):
    return len(batch), sum(s.numel() for s in batch)


def main():
    job = Job()
    torch.set_num_threads(1)
    loader = DataLoader(Samples(job), batch_size=job.batch, sampler=job.order.tolist(), num_workers=job.threads,
                        collate_fn=None if job.fixed else as_list)  # the default cannot stack unequal samples
    job.wait()
    batches = ((len(b), b.numel()) if job.fixed else measured(b) for b in loader)
    job.run(batches, job.threads * loader.prefetch_factor, f"{torch.__version__}, {job.threads} workers")


if __name__ == "__main__":
    main()

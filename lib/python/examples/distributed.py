"""Data-parallel training that survives being killed: torchrun --nproc-per-node 4 distributed.py IMAGES CHECKPOINT

Every rank makes the same Loader: the first of a machine starts it, the others attach. The checkpoint holds the model,
the optimizer and loader.state_dict(), which is the same on all ranks, so one rank writes it. Started again with the same
command line it goes on behind the last checkpoint: the losses are those of a run that nobody killed."""

import os
import sys

import ringfeed
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

EPOCHS, EVERY = 3, 5  # batches from one checkpoint to the next


def save(path, **state):
    torch.save(state, f"{path}.new")
    os.replace(f"{path}.new", path)


def main(images, checkpoint):
    torch.distributed.init_process_group("gloo")  # "nccl" with GPUs
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with ringfeed.Loader(images, batch_size=16, shuffle=True, drop_last=True) as loader:
        if os.path.exists(checkpoint):
            state = torch.load(checkpoint)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            loader.load_state_dict(state["loader"])
        while loader.epoch < EPOCHS:
            for batch in loader:
                data, labels = batch.torch()
                loss = torch.nn.functional.cross_entropy(model(data.float() / 255), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                torch.distributed.all_reduce(loss := loss.detach())
                if rank == 0:
                    print(batch.epoch, batch.step, float(loss).hex(), flush=True)
                    if batch.step % EVERY == EVERY - 1:
                        save(checkpoint, model=model.state_dict(), optimizer=optimizer.state_dict(), loader=loader.state_dict())


if __name__ == "__main__":
    main(*sys.argv[1:])

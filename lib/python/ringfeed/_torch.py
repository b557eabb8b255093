"""What needs torch."""

import contextlib

import torch.utils.data


class _Iterable(torch.utils.data.IterableDataset):
    def __init__(self, loader):
        self._loader = loader

    def __len__(self):
        return len(self._loader)

    def __iter__(self):
        if torch.utils.data.get_worker_info() is not None:
            raise RuntimeError("a ringfeed loader has workers of its own: use DataLoader(…, num_workers=0, batch_size=None)")
        return iter(self._loader)


def iterable(loader):
    return _Iterable(loader)


def is_async(device):
    """Whether copies to it go on after the call."""
    return device.type == "cuda"


@contextlib.contextmanager
def copies(batch, device):
    """Copies to `device` that are begun in here are done before the batch's memory is used again, also when one fails."""
    device = torch.device(device)
    try:
        yield lambda tensor: tensor.to(device, non_blocking=is_async(device))
    finally:
        if is_async(device):
            batch.release_after(_event(device))


def _event(device):
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event

"""What needs torch."""

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

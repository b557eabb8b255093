"""ringfeed: one shared-memory data loader for all GPUs of a server.

    import ringfeed

    with ringfeed.Loader("train/", batch_size=256, shuffle=True) as loader:
        for epoch in range(10):
            for batch in loader:
                step(batch.torch())

ringfeed moves bytes: what is in a batch is what is in the files. Decode where the batch is used, or in collate_fn."""

from ._batch import Batch, CopiedBatch, Ragged
from ._core import RingfeedError, RingfeedNotFound, RingfeedTimeout, RingfeedValueError, version
from ._dataset import Dataset
from ._loader import Attached, Loader, attach

__version__ = version()
__all__ = [
    "Attached", "Batch", "CopiedBatch", "Dataset", "Loader", "Ragged", "RingfeedError", "RingfeedNotFound", "RingfeedTimeout",
    "RingfeedValueError", "attach",
]  # fmt: skip

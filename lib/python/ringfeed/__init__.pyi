from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Protocol

import numpy
from numpy.typing import ArrayLike, NDArray

from ._core import RingfeedError as RingfeedError
from ._core import RingfeedNotFound as RingfeedNotFound
from ._core import RingfeedTimeout as RingfeedTimeout
from ._core import RingfeedValueError as RingfeedValueError

__version__: str

_Path = str | bytes | PathLike[str]
_State = dict[str, Any]

class _Generator(Protocol):
    def initial_seed(self) -> int: ...

class Ragged(Sequence[memoryview | None]):
    """Samples of different sizes: a memoryview each; None where a sample lacks the field."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: Any) -> Any: ...

class _AnyBatch:
    epoch: int
    step: int
    last: bool
    skipped: int
    resident: bool
    released: bool
    @property
    def data(self) -> NDArray[Any] | Ragged | list[bytes]: ...
    @property
    def fields(self) -> dict[str, NDArray[Any] | Ragged]: ...
    @property
    def labels(self) -> NDArray[numpy.int64] | None: ...
    @property
    def ids(self) -> NDArray[numpy.uint64]: ...
    @property
    def flags(self) -> NDArray[numpy.uint8]: ...
    @property
    def offsets(self) -> NDArray[numpy.uint64]: ...
    @property
    def lengths(self) -> NDArray[numpy.uint64]: ...
    @property
    def buffer(self) -> NDArray[numpy.uint8]: ...
    def samples(self) -> list[Any]: ...
    def torch(self, dtype: Any = None) -> Any: ...
    def to(self, device: Any, dtype: Any = None) -> Any: ...
    def copy(self) -> CopiedBatch: ...
    def release(self) -> None: ...
    def release_after(self, event: Any) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __dlpack__(self, stream: None = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class Batch(_AnyBatch):
    """A batch in the ring, and views of its memory."""

    def __enter__(self) -> Batch: ...
    def __exit__(self, *exception: object) -> None: ...

class CopiedBatch(_AnyBatch):
    """A batch in memory of the user's own."""

class _Reader:
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def dataset_info(self) -> dict[str, Any]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def state_dict(self) -> _State: ...
    def load_state_dict(self, state: _State) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def report(self, samples: int, seconds: float) -> None: ...
    def iterable(self) -> Any: ...
    def close(self) -> None: ...

class Loader(_Reader):
    """This rank's batches of a dataset, by a loader that is started where it is not running yet."""

    def __init__(
        self,
        dataset: _Path | Sequence[_Path] | ArrayLike | Dataset,
        batch_size: int = 1,
        shuffle: bool | str = False,
        *,
        sampler: Iterable[int] | None = None,
        batch_sampler: None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: _Generator | None = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        seed: int | None = None,
        name: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        first_rank: int | None = None,
        ranks: int | None = None,
        strategy: str = "round-robin",
        tail: str | None = None,
        labels: _Path | ArrayLike | None = None,
        copy: bool = False,
        **serve: Any,
    ) -> None: ...

class Attached(_Reader):
    """A rank of a loader that somebody else has started."""

def attach(
    name: str,
    rank: int | None = None,
    *,
    timeout: float = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    copy: bool = False,
    start_timeout: float = 30,
    pin_memory: bool = False,
    pin_memory_device: str = "",
) -> Attached: ...

class Dataset:
    """A map-style view of a dataset."""

    def __init__(
        self,
        dataset: _Path | Sequence[_Path] | ArrayLike,
        *,
        format: str | None = None,
        record_bytes: int | None = None,
        header_bytes: int | None = None,
        labels: _Path | ArrayLike | None = None,
        label_field: str | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Any: ...
    def read(self, index: int, field: str | None = None) -> bytes: ...
    def sample(self, index: int) -> dict[str, Any]: ...
    @property
    def info(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

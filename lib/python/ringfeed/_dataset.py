"""A map-style view of a dataset: len() and [i], read by this process with plain pread."""

import operator

from . import _core
from ._source import Source


class Dataset:
    """`dataset[i]` is what a loader delivers of sample i: an array where the format knows dtype and shape, bytes otherwise, a
    dict of bytes by field where a sample has several; with labels a pair (sample, label)."""

    def __init__(self, dataset, *, format=None, record_bytes=None, header_bytes=None, labels=None, label_field=None):
        self._arguments = (dataset, dict(format=format, record_bytes=record_bytes, header_bytes=header_bytes,
                                         labels=labels, label_field=label_field))  # fmt: skip
        self._open()

    def _open(self):
        dataset, options = self._arguments
        self._source = Source(dataset, options["labels"])
        options = {**options, **self._source.options}
        self._core = _core.Dataset(options)
        self._info = self._core.info()
        self._labelled = self._info["classes"] > 0

    @property
    def arguments(self):
        """What it was made of, for a Loader of the same."""
        dataset, options = self._arguments
        return dataset, {name: value for name, value in options.items() if value is not None or name == "labels"}

    # Handles do not travel to other processes: there the dataset is opened again.
    def __getstate__(self):
        return self._arguments

    def __setstate__(self, arguments):
        self._arguments = arguments
        self._open()

    def __len__(self):
        return len(self._core)

    def __getitem__(self, index):
        index = operator.index(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index}: the dataset has {len(self)}")
        if len(self._info["fields"]) > 1:
            fields = [name for name, _, _ in self._core.sample(index)["fields"]]
            value = {name: self._core.read(index, name) for name in fields}
        elif self._info["dtype"] and self._info["fixed_bytes"]:
            import numpy

            value = numpy.frombuffer(self._core.read(index, None, True), self._info["dtype"]).reshape(self._info["shape"])
        else:
            value = self._core.read(index)
        return (value, self._core.sample(index)["label"]) if self._labelled else value

    def read(self, index, field=None):
        """The bytes of one field, or of all joined."""
        return self._core.read(index, field)

    def sample(self, index):
        """Where sample `index` lies: file, offset, bytes, label, key, fields."""
        return self._core.sample(index)

    @property
    def info(self):
        """What `ringfeed inspect` says."""
        return dict(self._info)

    def close(self):
        self._core.close()
        self._source.close()

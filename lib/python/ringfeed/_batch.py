"""Batches: what Python sees of a place in the ring.

An array's chain of bases ends in a core View, which holds the batch's place. A batch keeps the arrays it has made; the views
do not hold the batch, so nothing is circular and the place is given back when the last of all of them goes."""

import collections.abc
import functools

from . import _core

_ABSENT = (1 << 64) - 1


def _numpy():
    import numpy

    return numpy


class Layout:
    """How the samples of a run look."""

    def __init__(self, facts, dtype=None):
        self.fields = facts["fields"] or ("data",)
        self.dtype = dtype or facts["dtype"] or "|u1"
        self.shape = facts["shape"] if facts["dtype"] else (facts["fixed_bytes"],)

    @functools.cached_property
    def torch_knows(self):
        """Whether torch has the samples' type."""
        dtype = _numpy().dtype(self.dtype)
        return dtype.isnative and dtype.name in _torch_names()


class Ragged(collections.abc.Sequence):
    """Samples of different sizes: a memoryview each, made when asked for; None where a sample lacks the field."""

    __slots__ = ("_memory", "_offsets", "_lengths")

    def __init__(self, memory, offsets, lengths):
        self._memory = memory
        self._offsets = offsets
        self._lengths = lengths

    def __len__(self):
        return len(self._offsets)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        offset = int(self._offsets[i])
        return None if offset == _ABSENT else self._memory[offset : offset + int(self._lengths[i])]

    def __repr__(self):
        return f"<{len(self)} samples of different sizes>"


class _Arrays:
    """What a batch offers, made of `_view(offset, bytes, writable)`, `_samples(writable)` and `_array(name)`."""

    __slots__ = ()

    def _keep(self, name, make):
        try:
            kept = self._kept
        except AttributeError:
            kept = self._kept = {}
        if name not in kept:
            kept[name] = make()
        return kept[name]

    def _numbers(self, name, dtype, shape=None):
        def make():
            view = self._array(name)
            return None if view is None else _numpy().ndarray(shape or (len(self),), dtype, view)

        return self._keep(name, make)

    def _check(self):
        if self.released:
            self._view(0, 0)  # says so

    @property
    def ids(self):
        """Indices of the samples in the dataset."""
        self._check()
        return self._numbers("ids", "u8")

    @property
    def labels(self):
        """Labels as int64, or None when the dataset has none."""
        self._check()
        return self._numbers("labels", "i8")

    @property
    def flags(self):
        """1: fills a padded batch; 2: stands in for a sample that could not be read."""
        self._check()
        return self._numbers("flags", "u1")

    @property
    def offsets(self):
        """Where each sample begins in `buffer`."""
        self._check()
        return self._numbers("offsets", "u8")

    @property
    def lengths(self):
        """Bytes of each sample."""
        self._check()
        return self._numbers("lengths", "u8")

    @property
    def buffer(self):
        """All memory of the batch as bytes, what lies between the samples included."""
        self._check()
        return self._keep("buffer", lambda: _numpy().ndarray((self._extent(),), "u1", self._view(0, self._extent(), False)))

    def _extent(self):
        ends = self.offsets + self.lengths
        return int(ends.max()) if len(ends) else 0

    def _dense(self, writable):
        layout = self._layout
        return _numpy().ndarray((len(self), *layout.shape), layout.dtype, self._samples(writable))

    @property
    def data(self):
        """Equal samples: one array [samples, …]. Otherwise a list of memoryviews. Samples of several fields: their bytes,
        joined, which is a copy; `fields` is none."""
        self._check()
        if self._n_fields > 1:
            return self._keep("data", self._joined)
        if self._fixed_bytes:
            return self._keep("data", lambda: self._dense(False))
        return self._keep("data", lambda: Ragged(self._memory(), self.offsets, self.lengths))

    def _memory(self):
        return memoryview(self._view(0, self._extent(), False))

    def _joined(self):
        columns = list(self.fields.values())
        return [b"".join(f for f in row if f is not None) for row in zip(*columns)]

    @property
    def fields(self):
        """By name, as `data`. A sample's place is None where it lacks the field."""
        self._check()
        return self._keep("fields", self._make_fields)

    def _make_fields(self):
        names = self._layout.fields
        if self._n_fields <= 1:
            return {names[0]: self.data}
        shape = (len(self), len(names))
        offsets = self._numbers("field_offsets", "u8", shape)
        lengths = self._numbers("field_lengths", "u8", shape)
        memory = self._memory()
        return {name: Ragged(memory, offsets[:, i], lengths[:, i]) for i, name in enumerate(names)}

    def samples(self):
        """A list, as collate_fn gets it: the sample, or (sample, label); a dict where a sample has several fields."""
        if self._n_fields > 1:
            fields = self.fields
            values = [
                {name: value for name, value in zip(fields, row) if value is not None} for row in zip(*fields.values())
            ]
        else:
            values = list(self.data)
        return values if self.labels is None else list(zip(values, self.labels.tolist()))

    def __iter__(self):
        if self._n_fields > 1 or self.labels is None:
            raise TypeError(
                "only a batch with labels and one field unpacks, as (data, labels). Use batch.data, batch.fields or "
                "batch.samples()"
            )
        return iter((self.data, self.labels))

    # ---- torch ----

    def torch(self, dtype=None):
        """The data as a tensor of the ring's memory; with labels a pair (data, labels). `dtype` converts, which copies. Samples
        of different sizes are a list of tensors of bytes, those of several fields a dict of them."""
        self._check()
        if self._n_fields > 1:
            data = {name: [None if s is None else _bytes_tensor(s) for s in column] for name, column in self.fields.items()}
        elif self._fixed_bytes:
            data = self._tensor(dtype)
        else:
            data = [self._sample_tensor(i) for i in range(len(self))]
        return data if self.labels is None else (data, self._label_tensor())

    def to(self, device, dtype=None):
        """As torch(), on `device`. Copies to a GPU are only begun: they go on beside the program when the loader was made with
        pin_memory=True, and the batch's place is not given back before they are done. `dtype` converts there."""
        self._check()
        from . import _torch

        with _torch.copies(self, device) as move:
            data = self._moved(move, dtype)
            return data if self.labels is None else (data, move(self._label_tensor()))

    def _moved(self, move, dtype):
        if self._n_fields <= 1 and self._fixed_bytes:
            late = dtype is not None and self._layout.torch_knows
            data = move(self._tensor(None if late else dtype))
            return data.to(dtype) if late else data
        if self.resident:  # no extent of its own
            columns = {name: [None if s is None else move(_bytes_tensor(s)) for s in column] for name, column in self.fields.items()}
        else:
            columns = self._split(move(_bytes_tensor(memoryview(self._view(0, self._extent(), True)))))
        return columns if self._n_fields > 1 else columns[self._layout.fields[0]]

    def _split(self, whole):
        """Fields as pieces of one tensor that has the batch's bytes."""
        names = self._layout.fields
        if self._n_fields > 1:
            shape = (len(self), len(names))
            offsets, lengths = self._numbers("field_offsets", "u8", shape), self._numbers("field_lengths", "u8", shape)
        else:
            offsets, lengths = self.offsets[:, None], self.lengths[:, None]
        return {
            name: [None if o == _ABSENT else whole[o : o + n] for o, n in zip(offsets[:, i].tolist(), lengths[:, i].tolist())]
            for i, name in enumerate(names)
        }

    def _label_tensor(self):
        import torch

        return torch.from_numpy(self.labels.copy())

    def _tensor(self, dtype):
        import torch

        layout = self._layout
        if dtype is None:
            array = self._dense(not self.resident)
            if self._layout.torch_knows:
                return torch.from_numpy(array.copy() if self.resident else array)
            raise TypeError(
                f"torch has no {array.dtype.name if array.dtype.isnative else 'big-endian ' + array.dtype.name}: say what it is "
                f"to become, as in batch.torch(dtype=torch.int64), or use batch.data ({layout.dtype})"
            )
        wanted = str(dtype).removeprefix("torch.")
        if wanted not in _torch_names():
            raise TypeError(f"dtype={dtype}: NumPy has no such type. Convert the tensor instead: batch.torch().to({dtype})")
        return torch.from_numpy(self.data.astype(wanted))

    def _sample_tensor(self, i):
        n = int(self.lengths[i])
        return _bytes_tensor(memoryview(self._view(int(self.offsets[i]), n, not self.resident)))

    def __dlpack__(self, stream=None):
        self._check()
        if self._n_fields > 1 or not self._fixed_bytes:
            raise BufferError("samples of different sizes or several fields are no one tensor: use batch.data or batch.fields")
        if stream is not None:
            raise BufferError("the batch is in host memory: there is no stream")
        return self._dense(True).__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)  # kDLCPU

    def copy(self):
        """The same in memory of its own, which lasts."""
        self._check()
        return CopiedBatch(self)

    def __repr__(self):
        state = ", released" if self.released else ""
        return f"<ringfeed batch {self.step} of epoch {self.epoch}, {len(self)} samples{state}>"


def _torch_names():
    return ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128")


def _bytes_tensor(memory):
    import torch

    if not len(memory):
        return torch.empty(0, dtype=torch.uint8)
    if memory.readonly:  # torch has no read-only tensors
        return torch.frombuffer(bytearray(memory), dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8)


class Batch(_Arrays, _core.Batch):
    """A batch in the ring. Its arrays are views, and read-only; tensors are views that may be written until the batch is
    released. It is released when it and the last of them are gone, or by release()."""

    __slots__ = ("_kept",)

    @property
    def _layout(self):
        return self._trainer.layout

    def _forget(self):
        """The arrays that this object keeps. The core calls it before it moves the batch out of the ring."""
        try:
            self._kept.clear()
        except AttributeError:
            pass

    def release(self):
        """Gives the place back now. BufferError while arrays or tensors of it are alive elsewhere."""
        self._forget()
        super().release()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        raise TypeError("a batch in the ring does not travel to another process: send batch.copy()")


class CopiedBatch(_Arrays):
    """A batch in memory of the user's own. Everything can be written, and release() does nothing."""

    __slots__ = ("epoch", "step", "last", "skipped", "_kept", "_layout", "_fixed_bytes", "_n_fields", "_bytes", "_copied", "_n")

    resident = False
    released = False

    def __init__(self, batch):
        numpy = _numpy()
        for name in ("epoch", "step", "last", "skipped", "_layout", "_fixed_bytes", "_n_fields"):
            setattr(self, name, getattr(batch, name))
        self._n = len(batch)
        self._copied = {}
        for name in ("ids", "labels", "flags", "lengths", "field_offsets", "field_lengths"):
            view = batch._array(name)
            self._copied[name] = None if view is None else bytearray(view)
        lengths = numpy.frombuffer(self._copied["lengths"], "u8")
        offsets = numpy.zeros(self._n, "u8")
        numpy.cumsum(lengths[:-1], out=offsets[1:])
        self._copied["offsets"] = bytearray(offsets)
        old = numpy.frombuffer(batch._array("offsets"), "u8")
        self._bytes = bytearray(int(lengths.sum()))
        for at, n, to in zip(old.tolist(), lengths.tolist(), offsets.tolist()):
            self._bytes[to : to + n] = batch._view(at, n)
        if self._copied["field_offsets"] is not None:
            fields = numpy.frombuffer(self._copied["field_offsets"], "u8").reshape(self._n, -1)
            moved = fields + (offsets - old)[:, None]
            numpy.copyto(fields, moved, where=fields != _ABSENT)

    def __len__(self):
        return self._n

    def _view(self, offset, bytes, writable=False):
        return memoryview(self._bytes)[offset : offset + bytes]

    def _samples(self, writable):
        return self._bytes

    def _array(self, name):
        return self._copied[name]

    def _memory(self):
        return memoryview(self._bytes)

    def release(self):
        pass

    def release_after(self, event):
        pass

    def copy(self):
        return CopiedBatch(self)

    def __array__(self, dtype=None):
        return _numpy().asarray(self.data, dtype)

"""What a loader reads: paths, or an array in memory."""

import os
import zlib

_SAMPLED = 1 << 20


def _is_array(dataset):
    return not isinstance(dataset, (str, bytes, os.PathLike)) and hasattr(dataset, "__array__") and hasattr(dataset, "shape")


class Source:
    """`options`: what the server is told. An array is copied once into memory that has no name: the server opens it through
    this process (/proc/PID/fd/N). So it is gone when both are, however they end, and nothing has to be removed."""

    def __init__(self, dataset, labels=None, copy=True):
        self.options = {}
        self.identity = None  # what state_dict calls the dataset; None: the server's fingerprint
        self.samples = self.dtype = None  # of an array
        self._files = []
        self._sequence = None
        if _is_array(dataset):
            self._take_array(dataset, labels, copy)
            return
        paths = [dataset] if isinstance(dataset, (str, bytes, os.PathLike)) else dataset
        paths = list(paths) if isinstance(paths, (list, tuple, set)) else []
        if not paths or not all(isinstance(p, (str, bytes, os.PathLike)) for p in paths):
            raise TypeError(
                f"dataset: one path, a list of paths, a NumPy array or a ringfeed.Dataset is needed, not {type(dataset).__name__}. "
                "ringfeed reads files; Python objects stay with DataLoader"
            )
        self.options["paths"] = paths
        if labels is not None:
            self.options["labels"] = labels

    def _take_array(self, dataset, labels, copy):
        import numpy

        array = numpy.asarray(dataset)
        if array.ndim < 1 or array.dtype.hasobject:
            raise ValueError(f"dataset: an array of numbers with samples along its first axis is needed, not {array.dtype} {array.shape}")
        self.identity = f"array {array.dtype.str} {array.shape} {_checksum(numpy, array):08x}"
        self.samples, self.dtype = len(array), array.dtype
        self.options["format"] = "npy"
        self.options["paths"] = [self._share("array", array, copy)]
        if labels is None:
            return
        if isinstance(labels, (str, bytes, os.PathLike)):
            self.options["labels"] = labels
            return
        values = numpy.asarray(labels)
        if values.shape != (len(array),) or values.dtype.kind not in "iu":
            raise ValueError(f"labels: {len(array)} whole numbers are needed, not {values.dtype} {values.shape}")
        self.options["labels"] = self._share("labels", values.astype("<i8"), copy)

    def _share(self, what, array, copy):
        import numpy

        if not copy:
            return "/dev/null"
        fd = os.memfd_create(f"ringfeed-{what}", os.MFD_CLOEXEC)
        self._files.append(fd)
        with os.fdopen(os.dup(fd), "wb") as file:
            numpy.lib.format.write_array(file, numpy.ascontiguousarray(array), allow_pickle=False)
        return f"/proc/{os.getpid()}/fd/{fd}"

    def sequence(self, indices):
        """Where the server finds this list of indices; the one before is gone."""
        if self._sequence is not None:
            self._files.remove(self._sequence)
            os.close(self._sequence)
        self._sequence = os.memfd_create("ringfeed-sequence", os.MFD_CLOEXEC)
        self._files.append(self._sequence)
        with os.fdopen(os.dup(self._sequence), "w") as file:
            file.writelines(f"{int(i)}\n" for i in indices)
        return f"/proc/{os.getpid()}/fd/{self._sequence}"

    def close(self):
        for fd in self._files:
            os.close(fd)
        self._files = []


def _checksum(numpy, array):
    """Of the first and the last MiB: enough to tell two datasets apart that look alike."""
    rows = max(1, _SAMPLED // max(1, array.nbytes // max(1, len(array))))
    value = 0
    for part in (array[:rows], array[max(0, len(array) - rows):]):
        value = zlib.crc32(numpy.ascontiguousarray(part).tobytes(), value)
    return value

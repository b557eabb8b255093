"""A trainer in Python for the benches that measure waits: the library through ctypes, one process a rank."""
import ctypes
import os
import time


class Batch(ctypes.Structure):
    """The head of rf_batch, and room for the rest."""

    _fields_ = [("ticket", ctypes.c_uint64), ("epoch", ctypes.c_uint64), ("batch", ctypes.c_uint64), ("rest", ctypes.c_uint64 * 29)]


class Trainer:
    def __init__(self, build, name, rank):
        self.rf = ctypes.CDLL(os.path.join(build, "lib/libringfeed.so"))
        self.rf.rf_last_error.restype = self.rf.rf_trainer_error.restype = ctypes.c_char_p
        self.rf.rf_next.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        self.rf.rf_release.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.rf.rf_detach.argtypes = self.rf.rf_trainer_error.argtypes = [ctypes.c_void_p]
        self.handle, self.batch = ctypes.c_void_p(), Batch()
        if self.rf.rf_attach(name.encode(), rank, None, ctypes.byref(self.handle)) < 0:
            raise RuntimeError(self.rf.rf_last_error().decode())

    def next(self):
        """When it was asked and when the batch was there, on the monotonic clock; None at the end."""
        asked = time.monotonic()
        rc = self.rf.rf_next(self.handle, -1, ctypes.byref(self.batch))
        came = time.monotonic()
        if rc < 0:
            raise RuntimeError(self.rf.rf_trainer_error(self.handle).decode())
        return None if rc else (asked, came)

    def release(self):
        self.rf.rf_release(self.handle, ctypes.byref(self.batch))

    def detach(self):
        self.rf.rf_detach(self.handle)

"""A loader's hold on the outside world: the server it may have started, its rank, the memory of an array. Apart from the
Loader, so that a finalizer can let go of it when the Loader is gone."""

import os
import pathlib
import sys
import time
import warnings

from . import _core
from ._batch import Batch, Layout

_LEAVE_SECONDS = 30


def command():
    """The command that was installed with this package; None: the library looks for it."""
    if os.environ.get("RINGFEED"):
        return None
    for parent in list(pathlib.Path(__file__).resolve().parents)[1:6]:
        path = parent / "bin" / "ringfeed"
        if os.access(path, os.X_OK):
            return os.fspath(path)
    return None


class Run:
    def __init__(self, source=None, nameless=False):
        self.nameless = nameless  # the user has no name for it, so nothing can go on from what it leaves when it is killed
        self.name = None
        self.pid = os.getpid()
        self.source = source
        self.own = source is not None  # not somebody else's server
        self.server = None
        self.trainer = None
        self.facts = None
        self.pin = None

    def start(self, options, timeout_ms):
        self.name = options["name"]
        self.server = _core.Server({"command": command(), **options}, timeout_ms)

    def attach(self, name, rank, timeout_ms, wait_ms):
        self.trainer = _core.Trainer(name, rank, timeout_ms, True, Batch)
        self.trainer.timeout_ms = wait_ms
        self.facts = self.trainer.facts()
        self.trainer.layout = Layout(self.facts["dataset"], self.source and self.source.dtype)
        if self.pin is not None:
            self.trainer.pin(self.pin, rank - self.facts["first_rank"])

    def check_process(self):
        if os.getpid() != self.pid:
            raise RuntimeError(
                f"this loader belongs to process {self.pid}, and this is a forked child ({os.getpid()}). Make the loader in the "
                "process that uses it"
            )

    def _others(self):
        """Ranks here that somebody else still reads, or has not come for yet."""
        try:
            ranks = _core.stat(self.facts["name"])["ranks"]
            return [r["rank"] for r in ranks if r["pid"] not in (0, self.pid) or not r["attached"]]
        except _core.RingfeedError:
            return []

    def leave(self):
        """Batches that are still held stay as they are. Nobody attaches to a rank of a loader's own run again, so it can be given
        up at once; to one of somebody else's server only when they are gone."""
        if self.trainer is not None:
            self.trainer.close(self.own)
        self.trainer = None

    def stop(self, wait):
        """The server goes last: other ranks may not be through yet."""
        if self.server is None:
            return
        until = time.monotonic() + _LEAVE_SECONDS
        while wait and self.facts and self.server.alive() and (others := self._others()):
            if time.monotonic() > until:
                warnings.warn(
                    f"ringfeed: ranks {others} of run '{self.facts['name']}' were waited for {_LEAVE_SECONDS} s: they have not come, "
                    "or not left. The loader ends now. A loader for one rank alone needs rank=0, world_size=1",
                    stacklevel=3,
                )
                break
            time.sleep(0.02)
        status = self.server.stop()
        self.server = None
        if status >= 128 and self.nameless:
            _core.remove_dead(self.name)

    def close(self, wait=True):
        if os.getpid() != self.pid:
            return
        self.leave()
        self.stop(wait and not hasattr(sys, "last_type"))  # an exception that nobody caught ends this process
        if self.source is not None:
            self.source.close()
            self.source = None

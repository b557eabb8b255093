"""A loader whose epochs have the order that a sampler draws."""

import weakref
import zlib

from . import _core, _state
from ._loader import Loader
from ._run import Run


class SampledLoader(Loader):
    """`sampler` is drawn once an epoch, by iter() on the first local rank, and dealt to all ranks. An epoch's list is a file of
    one server, so each epoch has a server of its own: the first batch of an epoch waits for its start."""

    def _start(self, source, sampler):
        if self._order["shuffle"] != "none":
            raise ValueError("sampler and shuffle: both say in which order. Give one")
        if self._order["subset"] or self._order["split"]:
            raise ValueError("sampler and subset or split: both say which samples. Give one")
        if "resume" in self._options or "checkpoint" in self._options:
            raise ValueError("sampler and checkpoint or resume: a sampler's epochs are runs of their own. Use state_dict()")
        if self._launch.world_size > 1 and hasattr(sampler, "num_replicas"):
            raise ValueError(
                "sampler: a DistributedSampler has one rank's part, and ringfeed deals the whole epoch to the ranks itself. Leave "
                "it out: shuffle=True does the same"
            )
        self._sampler = sampler
        self._asked = None
        self._here = True
        self._known = None
        self._loaded = None  # the state that the next iter() goes on from
        self._run = Run(source, self._nameless)
        self._closer = weakref.finalize(self, self._run.close)

    def _position(self):
        return (0, 0) if self._run.trainer is None else self._trainer.position

    def __len__(self):
        n, ranks, batch = len(self._sampler), self._launch.world_size, self._options["batch"]
        least, rest = divmod(n, ranks)
        if self._order["tail"] == "drop":
            return least // batch
        mine = n if self._order["tail"] == "pad" else None
        most = least + (rest > 0) if mine is not None else least + (self._launch.rank < rest)
        return -(-most // batch)

    def __iter__(self):
        self._run.check_process()
        if not self._closer.alive:
            raise ValueError("this loader was closed. Make another one")
        state, self._loaded = self._loaded, None
        epoch, step = self._position()
        if self._asked is not None and (state is None or state["epoch"] != self._asked):
            epoch, state = self._asked, None
        elif state is None and step:
            epoch += 1
        if state is None:
            state = {"order": self._order, "before": [], "epoch": epoch, "step": 0}
        self._restart(state)
        if state.get("sequence") is not None and state["sequence"] != self._digest():
            raise ValueError(
                f"sampler: it does not draw the list of epoch {state['epoch']} that the state was taken in, so the rest of it cannot "
                "be known. Seed it by the epoch, or load a state of an epoch's end"
            )
        if _state.same_world(state, self._order) and not state["before"]:
            self._seek(state["epoch"], state["step"])
        self._asked = None
        self._here = True
        return super().__iter__()

    def _prepare(self, state):
        """Draws, when no rank here needs the list before any more. Other ranks only attach to what is told here."""
        told = {"subset_sequence": True, "start_epoch": state["epoch"], "subset": "/dev/null"}
        if self._launch.owns:
            told["subset"] = self._run.source.sequence(self._sampler)
        self._options = {**self._options, **told}

    def _digest(self):
        """Of the epoch's list, on all ranks alike: the run says where it is."""
        with open(_core.Checkpoint.take(self.name).order()["subset"], "rb") as file:
            return zlib.crc32(file.read())

    def _identity(self):
        if self._run.facts is not None:
            return super()._identity()
        if self._dataset_name:
            return (self._dataset_name, self._run.source.samples)
        if self._known is None:  # nothing runs yet: looked at here, once
            info = _core.Dataset(self._options).info()
            self._known = (info["fingerprint"], info["samples"])
        return self._known

    def state_dict(self):
        """As of every loader, with a checksum of the list in the middle of an epoch: the sampler must draw it again."""
        if self._loaded is not None and self._asked in (None, self._loaded["epoch"]):
            return dict(self._loaded)
        epoch, step = self._position()
        if self._asked is not None and self._asked != epoch:
            epoch, step = self._asked, 0
        state = _state.write(self._identity(), self._order, self._before, epoch, step)
        state["sequence"] = self._digest() if step or state["before"] else None
        return state

    def load_state_dict(self, state):
        self._check_state(state)
        self._loaded = state
        self._asked = None

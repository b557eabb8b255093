"""Loader: a rank's batches, epoch after epoch."""

import os
import weakref

from . import _core, _launch, _options, _state
from ._dataset import Dataset
from ._run import Run
from ._source import Source

_START_MS = 60000


class _Reader:
    """What an own loader and an attached one have in common."""

    _collate = None
    _copy = False
    _unknown_epoch = None  # an epoch whose first part was dealt before we came

    def _begin(self, run, epoch, step):
        if getattr(self, "_run", None) is not run:
            self._run = run
            self._closer = weakref.finalize(self, run.close)
        self._asked = None  # by set_epoch
        self._here = True  # the next iter() goes on where the ring stands
        run.trainer.place(epoch, step)

    @property
    def _trainer(self):
        self._run.check_process()
        if self._run.trainer is None:
            raise ValueError("this loader was closed. Make another one")
        return self._run.trainer

    def __len__(self):
        """Batches of this rank in a whole epoch."""
        return self._facts["len"]

    def __iter__(self):
        """The batches of one epoch: the next one, that of set_epoch(), or the rest of the one a state was taken in. What was
        left of an epoch when its loop was left is dropped."""
        epoch, step = self._trainer.position
        restart = not self._here
        if self._asked is not None:
            restart = restart or self._asked != epoch
            epoch = self._asked
        elif restart and step:
            epoch += 1
        batches = self._trainer.begin(epoch, restart, self)
        self._asked = None
        self._here = False
        if self._collate is None and not self._copy:
            return batches
        return map(self._finish, batches)

    def _finish(self, batch):
        if self._collate is None:
            return batch.copy()
        try:
            return self._collate((batch.copy() if self._copy else batch).samples())
        except StopIteration as error:  # it would end the epoch, and nobody would know
            raise RuntimeError("collate_fn raised StopIteration") from error

    def set_epoch(self, epoch):
        """The next iter() is of this epoch. Right after load_state_dict() of a state in the middle of it: of its rest."""
        if epoch < 0:
            raise ValueError(f"epoch {epoch}: epochs count from 0")
        self._asked = int(epoch)

    def stats(self):
        """One reading of the running loader, as `ringfeed stat --json`."""
        return _core.stat(self.name)

    @property
    def epoch(self):
        """The epoch of the batch that comes next."""
        return self._trainer.position[0]

    @property
    def name(self):
        return self._facts["name"]

    @property
    def rank(self):
        return self._facts["rank"]

    @property
    def world_size(self):
        return self._facts["world_size"]

    @property
    def fields(self):
        return self._facts["dataset"]["fields"]

    @property
    def dataset_info(self):
        return dict(self._facts["dataset"])

    @property
    def _facts(self):
        if self._run.facts is None:
            raise ValueError("this loader was closed. Make another one")
        return self._run.facts

    def report(self, samples, seconds):
        """The trainer's own throughput, which counts for its rank's health."""
        self._trainer.report_health(samples, seconds)

    def iterable(self):
        """An IterableDataset of the batches, for code that insists on a DataLoader:
        DataLoader(loader.iterable(), batch_size=None, num_workers=0)."""
        from ._torch import iterable

        return iterable(self)

    # ---- state ----

    def _identity(self):
        dataset = self._facts["dataset"]
        return (self._dataset_name or dataset["fingerprint"], dataset["samples"])

    def state_dict(self):
        """Where this rank stands, as the batches that were returned: the same on every rank that has had as many."""
        if self._order["strategy"] == "adaptive":
            raise NotImplementedError(
                "the ranks of an adaptive run exchange batches, so a number of batches does not say where they stand. Use "
                "checkpoint= and resume="
            )
        epoch, step = self._trainer.position
        if self._asked is not None and self._asked != epoch:
            epoch, step = self._asked, 0
        if self._unknown_epoch is not None and epoch <= self._unknown_epoch:
            raise NotImplementedError(
                f"epoch {epoch} of this run was begun with another world size, which only its own checkpoint describes: use "
                "checkpoint= or `ringfeed checkpoint`, or wait for the next epoch"
            )
        return _state.write(self._identity(), self._order, self._before, epoch, step)

    def load_state_dict(self, state):
        """Goes to where `state` was taken. Every rank must do it. The world may have another size."""
        self._check_state(state)
        if _state.same_world(state, self._order) and not state["before"] and not self._before:
            self._seek(state["epoch"], state["step"])
        else:
            self._restart(state)
        self._asked = None
        self._here = True

    def _check_state(self, state):
        _state.check(state, self._identity(), self._order)

    def _seek(self, epoch, step):
        self._trainer.seek(epoch, min(step, len(self)), len(self))

    # ---- end ----

    def close(self):
        """Ends the loader, with the server if this rank has started it: then once the other ranks here have left. Arrays that are
        still alive stay valid."""
        self._closer()

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if kind is not None and self._closer.detach():
            self._run.close(wait=False)
        self.close()

    def __getstate__(self):
        raise TypeError("a loader does not travel to another process: make it there, or ringfeed.attach(name, rank)")


class Loader(_Reader):
    """Starts `ringfeed serve` over `dataset` and iterates over this rank's batches; on all but the first rank of a machine it
    attaches to what that rank has started.

    `dataset`: a path or several (files, a directory, a glob, an index), or a NumPy array, with `labels`.
    `batch_size shuffle sampler num_workers collate_fn pin_memory drop_last timeout generator prefetch_factor …` as of torch's
    DataLoader; num_workers=0 means chosen. `shuffle` may also be 'block'. Other keyword arguments are options of
    `ringfeed serve`."""

    def __new__(cls, *arguments, sampler=None, **options):
        if cls is Loader and sampler is not None:
            from ._sampled import SampledLoader as cls
        return super().__new__(cls)

    def __init__(self, dataset, batch_size=1, shuffle=False, *, sampler=None, batch_sampler=None, num_workers=0,
                 collate_fn=None, pin_memory=False, drop_last=False, timeout=0, worker_init_fn=None,
                 multiprocessing_context=None, generator=None, prefetch_factor=None, persistent_workers=False,
                 pin_memory_device="", seed=None, name=None, rank=None, world_size=None, first_rank=None, ranks=None,
                 strategy="round-robin", tail=None, labels=None, copy=False, **serve):  # fmt: skip
        if batch_sampler is not None:
            raise ValueError("batch_sampler: ringfeed forms batches itself. Give batch_size= and, for an order of your own, sampler=")
        _options.warn_meaningless(dict(worker_init_fn=worker_init_fn, multiprocessing_context=multiprocessing_context,
                                       persistent_workers=persistent_workers), 2)  # fmt: skip
        if isinstance(dataset, Dataset):
            dataset, given = dataset.arguments
            labels = given.pop("labels") if labels is None else labels
            serve = {**given, **serve}
        launch = _launch.find(rank, world_size, first_rank, ranks)
        options = _options.serve_options(serve)
        _options.prefetch_of(prefetch_factor, num_workers, options)
        options.update(
            batch=_options.batch_of(batch_size), shuffle=_options.shuffle_of(shuffle), strategy=strategy,
            seed=_options.seed_of(seed, generator), tail=_options.tail_of(drop_last, tail, launch.world_size),
            workers=num_workers, world_size=launch.world_size, first_rank=launch.first_rank, ranks=launch.ranks, epochs=0,
        )  # fmt: skip
        self._launch = launch
        self._tail_is_free = tail is None and not drop_last
        self._collate = collate_fn
        self._copy = copy
        self._pin = _options.pin_of(pin_memory, pin_memory_device)
        self._wait_ms = _options.timeout_ms_of(timeout)
        self._nameless = name is None
        self._base_name = name or _launch.name_for(launch)
        self._starts = 0
        self._before = []
        source = Source(dataset, labels, launch.owns)
        self._options = {**options, **source.options}
        self._order = _core.order_options(self._options)
        self._dataset_name = source.identity
        self._start(source, sampler)

    def _start(self, source, sampler):
        self._open(Run(source, self._nameless), self._options)

    def _open(self, run, options):
        """The server's name has the number of the start, which is the same on all ranks."""
        name = self._base_name if self._starts == 0 else f"{self._base_name}-{self._starts}"
        try:
            if self._launch.owns:
                run.start({**options, "name": name}, _START_MS)
            run.pin = self._pin
            run.attach(name, self._launch.rank, _START_MS, self._wait_ms)
            self._check_run(run.facts)
            position = (run.facts["start_epoch"], 0)
            if options.get("resume"):
                point = _core.Checkpoint.take(name)
                position = point.rank(self._launch.rank)
                self._unknown_epoch = position[0] if point.stages > 1 else None
        except BaseException:
            run.close(wait=False)
            raise
        self._begin(run, *position)

    def _check_run(self, facts):
        """Ranks that make different loaders must not read each other's."""
        for what in ("world_size", "first_rank", "ranks", "batch"):
            if facts[what] != self._options[what]:
                raise ValueError(
                    f"run '{facts['name']}' has {what} {facts[what]}, and this rank asked for {self._options[what]}. All ranks must "
                    "make the same loaders in the same order"
                )

    def _check_state(self, state):
        """Where the caller left the tail open it depends on the world: then that of the state goes on."""
        tail = state["order"].get("tail") if isinstance(state, dict) and isinstance(state.get("order"), dict) else None
        if self._tail_is_free and tail in ("pad", "uneven") and not _state.same_world(state, self._order):
            self._options = {**self._options, "tail": tail}
            self._order = {**self._order, "tail": tail}
        super()._check_state(state)

    def _prepare(self, state):
        """Between two servers."""

    def _restart(self, state):
        """The server begins anew: another world, which gets what was left, or another epoch's sequence."""
        worlds = _state.stages(state)
        old = self._run
        source, old.source = old.source, None
        self._closer.detach()
        old.leave()
        old.stop(wait=True)
        self._run = Run(source, self._nameless)
        self._closer = weakref.finalize(self, self._run.close)
        self._starts += 1
        self._before = []
        self._prepare(state)
        path = None
        options = {name: value for name, value in self._options.items() if name != "resume"}
        try:
            if worlds and self._launch.owns:
                path = _state.resume_file(options, _core.order_options(options), worlds)
                options = {**options, "resume": [path]}
            self._open(self._run, options)
        finally:
            if path:
                os.unlink(path)
        self._unknown_epoch = None
        if worlds and _state.same_world(state, self._order):
            self._before = state["before"]
            self._trainer.place(state["epoch"], state["step"])
        elif worlds:
            self._before = worlds
            self._trainer.place(state["epoch"], 0)
        else:
            self._seek(state["epoch"], 0)


class Attached(_Reader):
    """A rank of a loader that somebody else has started; see attach()."""

    _before = ()
    _dataset_name = None

    def __init__(self, name, rank, timeout, collate_fn, copy, start_timeout, pin):
        self._collate = collate_fn
        self._copy = copy
        run = Run()
        run.pin = pin
        run.attach(name, rank, start_timeout, _options.timeout_ms_of(timeout))
        point = _core.Checkpoint.take(name)
        self._order = point.order()
        self._begin(run, *point.rank(rank))
        self._unknown_epoch = self._trainer.position[0] if point.stages > 1 else None

    def _restart(self, state):
        raise ValueError(
            f"state_dict: of a world of {state['order']['world_size']} ranks, and this run has {self.world_size}. Only its server "
            "can be resumed with another world: start it with --resume"
        )


def attach(name, rank=None, *, timeout=0, collate_fn=None, copy=False, start_timeout=30, pin_memory=False,
           pin_memory_device=""):
    """A rank of the running loader `name`. `rank`: by default that of the launcher, else 0."""
    launch = _launch.find(rank) if rank is None else None
    return Attached(name, launch.rank if launch else rank, timeout, collate_fn, copy, int(start_timeout * 1000),
                    _options.pin_of(pin_memory, pin_memory_device))

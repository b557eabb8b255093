"""state_dict: a few numbers that every rank writes alike, and the way back from them.

A state says: of this dataset and order, in a world of so many ranks, everybody has been given `step` batches of `epoch`.
`before` has the same of earlier worlds whose unfinished epoch is still being read."""

import os
import tempfile

from . import _core

VERSION = 1
_KEYS = {"ringfeed", "dataset", "samples", "order", "before", "epoch", "step"}
_WORLD = ("world_size", "ranges")  # what of an order may be different in the next world


def _same(what, theirs, ours):
    if theirs != ours:
        raise ValueError(f"state_dict: {what} is {theirs!r} in the state and {ours!r} in this loader. Make the loader with the same")


def write(facts, order, before, epoch, step):
    """`facts` names the dataset: (identity, samples)."""
    return {
        "ringfeed": VERSION,
        "dataset": facts[0],
        "samples": facts[1],
        "order": dict(order),
        "before": [dict(b) for b in before if b["epoch"] >= epoch],
        "epoch": epoch,
        "step": step,
    }


def check(state, facts, order):
    """ValueError names what does not fit, with both values."""
    if not isinstance(state, dict) or not _KEYS <= state.keys():
        raise ValueError("state_dict: not of a ringfeed.Loader")
    _same("the version", state["ringfeed"], VERSION)
    _same("the dataset", state["dataset"], facts[0])
    _same("the number of samples", state["samples"], facts[1])
    for name, value in state["order"].items():
        if name not in _WORLD:
            _same(name, value, order.get(name))


def same_world(state, order):
    return all(state["order"].get(name) == order.get(name) for name in _WORLD)


def stages(state):
    """The worlds that a loader with another one has to know, oldest first. None when the state begins an epoch."""
    if state["step"] == 0 and not state["before"]:
        return []
    world = {name: state["order"].get(name) for name in _WORLD}
    return [*state["before"], {**world, "epoch": state["epoch"], "step": state["step"]}]


def resume_file(options, order, worlds):
    """A checkpoint of a run that has been through these worlds, in a temporary file, which the caller removes."""
    dataset = _core.Dataset(options)
    point = None
    for world in worlds:
        there = {**order, **{name: world.get(name) for name in _WORLD}}
        point = _core.Checkpoint.make(dataset, there, point, world["epoch"], world["step"])
    fd, path = tempfile.mkstemp(prefix="ringfeed-", suffix=".json")
    os.close(fd)
    point.save(path)
    return path

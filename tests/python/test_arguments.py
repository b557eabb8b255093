"""Arguments of torch's DataLoader: they work, or one warning, or an error."""

import inspect
import warnings

import numpy
import pytest
import ringfeed as rf
from ringfeed import _options as options

DATA = numpy.arange(40).reshape(20, 2)


def test_every_argument_of_a_dataloader_is_known():
    data = pytest.importorskip("torch.utils.data")
    theirs = set(inspect.signature(data.DataLoader.__init__).parameters) - {"self"}
    assert theirs <= set(inspect.signature(rf.Loader.__init__).parameters)


def test_meaningless_arguments_give_one_warning():
    with pytest.warns(UserWarning) as caught:
        rf.Loader(DATA, 4, worker_init_fn=print, multiprocessing_context="fork", persistent_workers=True).close()
    (one,) = caught
    assert one.filename == __file__
    for word in ("worker_init_fn", "multiprocessing_context", "persistent_workers"):
        assert word in str(one.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rf.Loader(DATA, 4, worker_init_fn=None, persistent_workers=False, num_workers=2, timeout=5, prefetch_factor=3).close()


@pytest.mark.parametrize(
    "arguments,says",
    [
        ({"batch_sampler": [[1]]}, "batch_sampler"),
        ({"batch_size": None}, "batch_size=None"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"shuffle": 3}, "shuffle=3"),
        ({"shuffle": "no"}, "shuffle='no'"),
        ({"drop_last": True, "tail": "pad"}, "contradict"),
        ({"prefetch_factor": 2, "prefetch": 3}, "prefetch"),
        ({"prefetch_factor": 0}, "prefetch_factor=0"),
        ({"timeout": -1}, "timeout=-1"),
        ({"strategy": "nope"}, "strategy='nope'"),
        ({"on_dead_rank": "x"}, "on_dead_rank='x'"),
        ({"seed": -1}, "seed=-1"),
        ({"rank": 3, "world_size": 2}, "rank=3"),
        ({"world_size": 2}, "rank"),
    ],
)
def test_contradictions_and_nonsense(arguments, says):
    with pytest.raises(ValueError, match=says):
        rf.Loader(DATA, **arguments)


OPTIONS = dict(
    block_samples=4, window_blocks=2, repeat_order=True, hash_seed=3, prefetch=3, ring_bytes=1 << 20, queue_depth=8, engine="pread", direct="off",
    pin="off", numa="off", heartbeat_ms=500, max_restarts=3, checkpoint_every=10, hedge_ms=5, on_error="skip", spares=0, replication=1,
    slow_ratio=0.4, cache_bytes=1 << 20, cpu_budget=90, format="npy", subset="0:10", on_dead_rank="wait", mirrors=[],
)  # fmt: skip


def test_every_option_of_serve_is_passed_on(tmp_path):
    """They stand in the server's own arguments, in the command's words."""
    with rf.Loader(DATA, 2, shuffle="block", checkpoint=tmp_path / "c.json", **OPTIONS) as loader:
        with open(f"/proc/{loader._run.server.pid}/cmdline", "rb") as file:
            told = file.read().decode().split("\0")
        assert sum(len(b) for b in loader) == 10
    for name, value in OPTIONS.items():
        if name not in ("on_dead_rank", "mirrors"):
            flag = "--" + name.replace("_", "-")
            assert (flag if value is True else f"{flag}={value}") in [t.rstrip("0") if "slow" in t else t for t in told], (flag, told)
    assert f"--checkpoint={tmp_path / 'c.json'}" in told and "--shuffle=block" in told
    assert set(OPTIONS) | {"checkpoint", "resume"} <= options.SERVE


def test_unknown_arguments():
    with pytest.raises(TypeError, match="no argument 'batchsize'"):
        rf.Loader(DATA, batchsize=3)


def test_generator_is_the_seed():
    torch = pytest.importorskip("torch")
    with rf.Loader(DATA, 5, shuffle=True, generator=torch.Generator().manual_seed(7)) as one:
        with rf.Loader(DATA, 5, shuffle=True, seed=7) as other:
            assert [b.ids.tolist() for b in one] == [b.ids.tolist() for b in other]
    with pytest.raises(ValueError, match="seed and generator"):
        rf.Loader(DATA, seed=1, generator=torch.Generator())


def test_prefetch_factor_and_workers():
    with rf.Loader(DATA, 2, num_workers=2, prefetch_factor=3) as loader:
        assert loader.stats()["ranks"][0]["depth"] == 6 and len(loader.stats()["workers"]) == 2


def test_errors_have_the_librarys_text_and_errno():
    with pytest.raises(rf.RingfeedValueError, match="--ranges") as error:
        rf.Loader(DATA, 2, strategy="range", ranges="0:50")
    assert isinstance(error.value, OSError) and isinstance(error.value, RuntimeError) and error.value.errno == 22

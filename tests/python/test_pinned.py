"""Pinned memory and copies that go on after their call: against a driver that counts (fake_cuda.c), since no GPU is needed to
get either wrong."""

import ctypes
import gc
import itertools
import os
import pathlib
import subprocess
import sys
import warnings

import numpy
import pytest
import ringfeed as rf

from conftest import HERE, cli

DATA = numpy.arange(4000, dtype="<i4").reshape(1000, 4)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", path, HERE / "fake_cuda.c"], check=True)
    return path


@pytest.fixture
def cuda(library):
    """Loaded under its soname: whoever asks for libcuda.so.1 from now on gets it."""
    fake = ctypes.CDLL(os.fspath(library), mode=ctypes.RTLD_GLOBAL)
    fake.fake_wrong.restype = ctypes.c_char_p
    fake.fake_is_pinned.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    before = fake.fake_total_registered()
    fake.registered = lambda: fake.fake_total_registered() - before
    yield fake
    fake.fake_fail(b"", 0)
    gc.collect()
    assert fake.fake_wrong() == b""
    assert fake.fake_regions() == 0
    assert [fake.fake_contexts(d) for d in range(3)] == [0, 0, 0]


def pinned(cuda, array):
    return bool(cuda.fake_is_pinned(array.ctypes.data, array.nbytes))


@pytest.mark.parametrize("options,laid_out_for", [({"prefetch": 4}, 1), ({}, 16)])
def test_the_arena_is_registered_once(cuda, options, laid_out_for):
    """What of it is in use: not what a ring may grow to."""
    with rf.Loader(DATA, 10, pin_memory=True, **options) as loader:
        for _ in range(3):
            for batch in loader:
                assert pinned(cuda, batch.data)
        assert cuda.registered() == 1
        ((_, bytes, device),) = loader._trainer.pinned
        assert bytes * laid_out_for == loader._facts["arena_bytes"] and device == 0
    with rf.Loader(DATA, 10) as loader:
        assert not pinned(cuda, next(iter(loader)).data)


def test_ragged_samples_and_attached_loaders(cuda, make, ringfeed, run_name):
    made = make.tar(40)
    ringfeed.serve(made, run_name, "--batch", 8, "--epochs", 1)
    with rf.attach(run_name, pin_memory=True) as loader:
        for batch in loader:
            assert pinned(cuda, batch.buffer)
            del batch
    assert cuda.registered() == 1


def test_it_stays_registered_while_an_array_lives(cuda):
    loader = rf.Loader(DATA, 10, pin_memory=True)
    data = next(iter(loader)).data
    loader.close()
    assert pinned(cuda, data)
    del data
    assert cuda.fake_regions() == 0


def test_no_context_is_made_on_a_device_that_is_not_used(cuda):
    cuda.fake_program_uses(2, 1)
    try:
        with rf.Loader(DATA, 10, pin_memory=True) as loader:
            next(iter(loader))
            assert [cuda.fake_contexts(d) for d in range(3)] == [0, 0, 1]
    finally:
        cuda.fake_program_uses(2, 0)
    with rf.Loader(DATA, 10, pin_memory=True, pin_memory_device="cuda:1") as loader:
        next(iter(loader))
        assert [cuda.fake_contexts(d) for d in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(
    "call,says",
    [("cuMemHostRegister_v2", "CUDA_ERROR_OUT_OF_MEMORY"), ("cuInit", "cuInit failed"), ("cuDevicePrimaryCtxRetain", "Retain"),
     ("cuCtxPushCurrent_v2", "Push")],
)  # fmt: skip
def test_failures_are_one_warning(cuda, call, says):
    cuda.fake_fail(call.encode(), 2)
    with rf.Loader(DATA, 10, pin_memory=True) as loader:
        with pytest.warns(RuntimeWarning, match=says) as caught:
            assert [b.data[0, 0] for b in loader] == list(range(0, 4000, 40))
        assert len(caught) == 1
        assert sum(len(b) for b in loader) == 1000


def test_a_warning_that_is_an_error_loses_no_batch(cuda):
    cuda.fake_fail(b"cuInit", 2)
    with rf.Loader(DATA, 10, pin_memory=True) as loader, warnings.catch_warnings():
        warnings.simplefilter("error")
        it = iter(loader)
        with pytest.raises(RuntimeWarning):
            next(it)
        assert loader.state_dict()["step"] == 0
        assert [b.step for b in it] == list(range(100))


def test_devices_that_are_not_there(cuda):
    with rf.Loader(DATA, 10, pin_memory=True, pin_memory_device="cuda:7") as loader:
        with pytest.warns(RuntimeWarning, match="no CUDA device 7: the driver sees 3"):
            next(iter(loader))
    with pytest.raises(ValueError, match="pin_memory_device='xpu'"):
        rf.Loader(DATA, 10, pin_memory=True, pin_memory_device="xpu")


ABSENT = """
    import sys, warnings, numpy, ringfeed as rf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rf.Loader(numpy.zeros((100, 4)), 10, pin_memory=True) as loader:
            assert sum(len(b) for _ in range(3) for b in loader) == 100 * 3
    for one in caught:
        print(one.message)
"""


def test_without_a_driver_everything_works(script):
    if pathlib.Path("/usr/lib/x86_64-linux-gnu/libcuda.so.1").exists():
        pytest.skip("there is a CUDA driver here")
    (line,) = script.run(ABSENT).stdout.splitlines()
    assert "pin_memory=True" in line and "libcuda.so.1" in line


def test_a_driver_that_is_too_old(script, tmp_path):
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", tmp_path / "libcuda.so.1", "/dev/null"], check=True)
    (line,) = script.run(ABSENT, env={"LD_LIBRARY_PATH": str(tmp_path)}).stdout.splitlines()
    assert "has no cuInit" in line


def test_exit_with_pinned_memory(script, library):
    """Whoever goes first at the end of the program."""
    code = """
        import os, sys, numpy, ringfeed as rf
        loader = rf.Loader(numpy.zeros((100, 4)), 10, pin_memory=True)
        it = iter(loader)
        batch = next(it)
        data = batch.data
        if os.fork() == 0:
            del data, batch, it, loader
            sys.exit(0)
        assert os.wait()[1] == 0
        assert len(next(it)) == 10 and not data.any()
    """
    script.run(code, env={"LD_LIBRARY_PATH": str(library.parent)})


# ---- copies ----


class Event:
    """As torch.cuda.Event."""

    def __init__(self):
        self.done = False
        self.asked = self.waited = 0

    def query(self):
        self.asked += 1
        return self.done

    def synchronize(self):
        self.waited += 1
        self.done = True


@pytest.fixture
def loader():
    with rf.Loader(DATA, 10, prefetch=4, num_workers=1) as one:
        yield one


def held(loader):
    return loader._trainer.held


def test_a_batch_is_held_until_its_copy_is_done(loader):
    it, event = iter(loader), Event()
    batch = next(it)
    batch.release_after(event)
    del batch
    assert held(loader) == 1
    batch = next(it)
    assert held(loader) == 2 and event.asked >= 1
    event.done = True
    batch = next(it)
    assert held(loader) == 1 and event.waited == 0
    for k in range(3, 100):
        assert next(it).step == k


def test_release_while_a_copy_is_under_way(loader):
    it, events = iter(loader), [Event(), Event()]
    batch = next(it)
    for event in events:
        batch.release_after(event)
    view = batch.data[:1]
    with pytest.raises(BufferError, match="1 arrays"):
        batch.release()
    del view
    batch.release()
    assert batch.released and held(loader) == 1
    with pytest.raises(ValueError, match="was released"):
        batch.data
    with pytest.raises(ValueError, match="was released"):
        batch.release_after(Event())
    events[1].done = True
    next(it)
    assert held(loader) == 1
    events[0].done = True
    next(it)
    assert held(loader) == 0


def test_a_full_ring_waits_for_the_oldest_copy_and_never_moves_it(loader):
    it, events, at = iter(loader), [], {}
    for k in range(100):
        batch = next(it)
        assert batch.step == k
        at[k] = batch.data.ctypes.data
        events.append(Event())
        batch.release_after(events[-1])
        for old in range(max(0, k - 3), k):  # what a device may still read is what it was
            if not events[old].done:
                memory = (ctypes.c_int * 40).from_address(at[old])
                assert list(memory) == DATA[old * 10 : old * 10 + 10].ravel().tolist()
    assert [e.waited for e in events[:90]] == [1] * 90 and not events[99].done
    loader.close()
    assert events[99].done


def test_no_warning_about_batches_that_copies_hold(loader):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in loader:
            batch.release_after(Event())


def test_close_waits_for_copies(loader):
    event = Event()
    next(iter(loader)).release_after(event)
    loader.close()
    assert event.waited == 1


def test_a_forked_child_leaves_events_alone(loader):
    it, event = iter(loader), Event()
    next(it).release_after(event)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with pytest.raises((rf.RingfeedError, RuntimeError)):
                next(it)
            loader.close()
            status = event.asked + event.waited
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    event.done = True
    batch = next(it)
    assert batch.step == 1 and held(loader) == 1


def test_an_event_that_fails(loader):
    class Broken(Event):
        def query(self):
            raise RuntimeError("the device is lost")

    it = iter(loader)
    next(it).release_after(Broken())
    with pytest.raises(RuntimeError, match="device is lost"):
        next(it)
    assert next(it).step == 1
    with pytest.raises(TypeError, match="query"):
        next(it).release_after(None)


def test_an_event_that_comes_back_in(loader):
    """Its methods are Python: they may close the loader under the one who asks."""

    class Closing(Event):
        def query(self):
            loader.close()
            return True

    it = iter(loader)
    next(it).release_after(Closing())
    with pytest.raises(ValueError, match="closed"):
        next(it)


def test_to(monkeypatch, make):
    """The bytes of to(), and that its event is recorded after its copies, also when one of them fails."""
    torch = pytest.importorskip("torch")
    from ringfeed import _torch

    events = []
    monkeypatch.setattr(_torch, "is_async", lambda device: True)
    monkeypatch.setattr(_torch, "_event", lambda device: events.append(Event()) or events[-1])
    idx, tar, web = make.idx(20, shape=(3,)), make.tar(20), make.webdataset(20)
    with rf.Loader(idx.path, 5, shuffle=True) as loader:
        for batch in loader:
            data, labels = batch.to("cpu", dtype=torch.float32)
            assert data.dtype == torch.float32 and labels.tolist() == [idx.samples[i].label for i in batch.ids]
            assert data.numpy().astype("u1").tobytes() == b"".join(idx.samples[i].data for i in batch.ids)
        assert len(events) == 4
        for event in events:
            event.done = True
        it = iter(loader)
        batch = next(it)
        with pytest.raises((RuntimeError, AssertionError)):
            batch.to("cuda:99" if torch.cuda.is_available() else "cuda")
        assert len(events) == 5
        batch.release()
        assert batch.released and held(loader) == 1
    assert events[-1].done
    for options in ({}, {"cache_bytes": 1 << 20}):
        with rf.Loader(tar.path, 5, **options) as loader:
            for batch in itertools.chain(loader, loader, loader):
                got = [bytes(t.numpy()) for t in batch.to("cpu")]
                assert got == [tar.samples[i].data for i in batch.ids]
        with rf.Loader(web.path, 5, **options) as loader:
            for batch in itertools.chain(loader, loader):
                fields, labels = batch.to("cpu")
                for name, column in fields.items():
                    assert [bytes(t.numpy()) for t in column] == [web.samples[i].fields[name] for i in batch.ids]
    copy = rf.Loader(idx.path, 5, copy=True)
    assert next(iter(copy)).to("cpu")[0].shape == (5, 3)
    copy.close()


def test_a_ring_that_moves_is_registered_again(cuda, ringfeed, run_name, tmp_path):
    """A device hangs, the ring goes on in another arena: that one is registered too, and both go before they are unmapped."""
    sys.path.insert(0, os.fspath(HERE.parent / "cli"))
    mine = sys.modules["conftest"]
    sys.modules["conftest"] = cli
    try:
        import test_hang as hang
    finally:
        sys.modules["conftest"] = mine
        sys.path.pop(0)
    source = tmp_path / "source"
    source.mkdir()
    (source / "records.bin").write_bytes(os.urandom(40 * hang.RECORD))
    fs = hang.HangFs(tmp_path, source, "records.bin", 16 * hang.RECORD, 1)
    try:
        ringfeed.serve(fs.path / "records.bin", run_name, *hang.ARGS, "--batch", 4, "--workers", 1, "--direct", "off",
                       "--engine", "uring", "--heartbeat-ms", hang.HEARTBEAT_MS)
        with rf.attach(run_name, pin_memory=True) as loader:
            written = numpy.fromfile(source / "records.bin", "u1").reshape(-1, hang.RECORD)
            for batch in loader:
                assert pinned(cuda, batch.data)
                assert numpy.array_equal(batch.data, written[batch.ids.astype(int)])
            assert fs.hanging() and cuda.registered() == 2
    finally:
        fs.end()
        ringfeed.end()

"""Views of the ring: who owns what, and for how long."""

import gc
import pickle
import warnings

import numpy
import pytest
import ringfeed as rf


@pytest.fixture
def loader(make):
    made = make.npy(64, shape=(4,), dtype="<f4")
    with rf.Loader(made.path, 8, prefetch=4) as one:
        one.written = numpy.load(made.path)
        yield one


def held(loader):
    return loader._trainer.held


def test_nothing_is_copied(loader):
    batch = next(iter(loader))
    assert batch.data is batch.data
    assert not batch.data.flags.owndata and not batch.data.flags.writeable
    with pytest.raises(ValueError):
        batch.data.flags.writeable = True
    with pytest.raises(ValueError):
        batch.data[0] = 0
    # The batch's memory is the ring's: a second look from outside sees what a tensor writes.
    tensor = batch.torch()
    tensor[0, 0] = 12345
    assert batch.data[0, 0] == 12345
    view = memoryview(batch)
    assert view.shape == (8, 4) and view.format == "f" and view.readonly and view[0, 0] == 12345


def test_released_when_the_last_view_is_gone(loader):
    it = iter(loader)
    batch = next(it)
    array, ids = batch.data[2:5], batch.ids
    tensor = batch.torch()
    assert held(loader) == 1
    del batch
    assert held(loader) == 1
    numpy.testing.assert_array_equal(array, loader.written[2:5])
    del array, ids
    assert held(loader) == 1
    del tensor
    assert held(loader) == 0


def test_no_garbage_collector_is_needed(loader):
    gc.disable()
    try:
        for batch in loader:
            _ = batch.data, batch.labels, batch.ids, batch.fields, batch.buffer
            assert held(loader) <= 2
    finally:
        gc.enable()


def test_release(loader):
    batch = next(iter(loader))
    assert batch.data.sum() == loader.written[:8].sum()
    batch.release()
    assert batch.released and held(loader) == 0 and len(batch) == 8 and batch.step == 0
    batch.release()
    for access in ("data", "ids", "labels", "fields", "flags", "offsets", "lengths", "buffer"):
        with pytest.raises(ValueError, match="was released"):
            getattr(batch, access)
    for call in (batch.torch, batch.copy, batch.samples, batch.__dlpack__, lambda: list(batch), lambda: memoryview(batch)):
        with pytest.raises(ValueError, match="was released"):
            call()


@pytest.mark.parametrize(
    "take",
    [
        lambda b: b.data, lambda b: b.data[3], lambda b: b.ids, lambda b: b.torch(), lambda b: memoryview(b),
        lambda b: numpy.asarray(b), lambda b: numpy.from_dlpack(b), lambda b: b.buffer, lambda b: b.fields["data"],
    ],
)  # fmt: skip
def test_release_is_refused_while_a_view_lives(loader, take):
    batch = next(iter(loader))
    view = take(batch)
    with pytest.raises(BufferError, match="still alive"):
        batch.release()
    assert held(loader) == 1
    del view
    batch.release()
    assert held(loader) == 0


def test_release_of_ragged(make):
    made = make.tar(20)
    with rf.Loader(made.path, 5) as loader:
        batch = next(iter(loader))
        sample = batch.data[1]
        del batch.data[0:1][0]
        with pytest.raises(BufferError):
            batch.release()
        assert bytes(sample) == made.samples[1].data
        del sample
        batch.release()


def test_with(loader):
    it = iter(loader)
    with next(it) as batch:
        assert batch.data.shape == (8, 4)
    assert batch.released


def test_dlpack(loader):
    torch = pytest.importorskip("torch")
    batch = next(iter(loader))
    assert batch.__dlpack_device__() == (1, 0)
    tensor = torch.from_dlpack(batch)
    assert tensor.data_ptr() == batch.data.ctypes.data
    assert numpy.array_equal(tensor.numpy(), loader.written[:8])
    del batch
    assert held(loader) == 1
    del tensor
    assert held(loader) == 0


def test_buffer_protocol_of_bytes(make):
    made = make.raw(10, record_bytes=6)
    with rf.Loader(made.path, 10, record_bytes=6, format="raw") as loader:
        batch = next(iter(loader))
        view = memoryview(batch)
        assert view.shape == (10, 6) and view.tobytes() == b"".join(s.data for s in made.samples)
        assert bytes(batch) == view.tobytes()


@pytest.mark.parametrize("dtype,ok", [("<f4", True), ("<i8", True), ("|u1", True), ("<f2", True), ("<u2", False), (">i4", False), ("<u8", False)])
def test_torch_dtypes(make, dtype, ok):
    torch = pytest.importorskip("torch")
    made = make.npy(6, dtype=dtype)
    written = numpy.load(made.path)
    with rf.Loader(made.path, 6) as loader:
        batch = next(iter(loader))
        assert batch.data.dtype == numpy.dtype(dtype)
        assert numpy.array_equal(batch.torch(dtype=torch.int64).numpy(), written.astype("i8"))
        if ok:
            tensor = batch.torch()
            assert tensor.data_ptr() == batch.data.ctypes.data and numpy.array_equal(tensor.numpy(), written)
        else:
            with pytest.raises(TypeError, match="dtype="):
                batch.torch()


def test_torch_of_ragged_and_labels(make):
    torch = pytest.importorskip("torch")
    made = make.tar(8, sizes=(0, 40))
    with rf.Loader(made.path, 8) as loader:
        assert [t.numpy().tobytes() for t in next(iter(loader)).torch()] == [s.data for s in made.samples]
    idx = make.idx(8, shape=(2,))
    with rf.Loader(idx.path, 8) as loader:
        data, labels = next(iter(loader)).torch()
        assert labels.dtype == torch.int64 and labels.tolist() == [s.label for s in idx.samples]
        assert data.dtype == torch.uint8


def test_resident_samples_are_copied_for_torch(make):
    pytest.importorskip("torch")
    made = make.tar(20, sizes=(10, 50))
    with rf.Loader(made.path, 5, cache_bytes=1 << 20) as loader:
        for _ in range(3):
            for batch in loader:
                assert [bytes(d) for d in batch.data] == [made.samples[i].data for i in batch.ids]
                for tensor in batch.torch():
                    tensor.zero_()
        assert batch.resident
        with pytest.raises(BufferError, match="cache"):
            batch._view(0, 1, True)


def test_copy_lasts(make):
    for made, options in ((make.npy(16), {}), (make.tar(16), {}), (make.webdataset(16), {}), (make.idx(16), {})):
        with rf.Loader(made.path, 4, **options) as loader:
            copies = [b.copy() for b in loader]
        assert [i for c in copies for i in c.ids.tolist()] == list(range(16))
        for c in copies:
            if isinstance(c.data, numpy.ndarray):
                c.data[:] = c.data  # may be written
                got = [d.tobytes() for d in c.data]
            elif len(c.fields) > 1:
                got = [b"".join(bytes(c.fields[n][k]) for n in made.samples[0].fields) for k in range(len(c))]
            else:
                got = [bytes(d) for d in c.data]
            assert got == [made.samples[i].data for i in c.ids]
            assert (c.labels is None) == (made.samples[0].label is None)
            assert c.copy().ids.tolist() == c.ids.tolist()
            c.release()
    with rf.Loader(made.path, 4, copy=True) as loader:
        assert [type(b).__name__ for b in loader] == ["CopiedBatch"] * 4 and held(loader) == 0


def hold_all(loader):
    """Its arrays, and the line that holds them."""
    kept = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for batch in loader:  # the line that is meant
                kept.append(batch.data)
        except rf.RingfeedError as error:
            kept.append(error)
    (one,) = [w for w in caught if issubclass(w.category, RuntimeWarning)]
    source = open(__file__).read().splitlines()
    assert one.filename == __file__ and "the line that is meant" in source[one.lineno - 1]
    return kept, one.lineno


def test_holding_many_arrays_is_warned_of_with_the_line(loader):
    kept, _ = hold_all(loader)
    assert numpy.array_equal(numpy.concatenate(kept), loader.written)


def test_where_ranks_exchange_batches_held_arrays_stop_the_ring(make):
    made = make.npy(64)
    with rf.Loader(made.path, 8, strategy="adaptive", prefetch=4) as loader:
        kept, line = hold_all(loader)
        error = kept.pop()
        assert error.errno == 35 and "copy()" in str(error) and f"test_batch.py:{line}" in str(error)
        assert len(kept) == 4
        kept.clear()
        assert next(loader._trainer.begin(0, False, loader)).step == 4  # it goes on, once there is room


@pytest.mark.parametrize("kind", ["npy", "tar", "webdataset", "idx"])
def test_batches_that_are_held_move_out_of_the_way(make, kind):
    """As a DataLoader's can be: list(loader), or a variable of an earlier loop."""
    made = getattr(make, kind)(60)
    with rf.Loader(made.path, 5, shuffle=True, prefetch=3) as loader:
        with pytest.warns(RuntimeWarning, match="are held"):
            batches = list(loader)
        again = [b.copy() for b in loader]  # what the ring holds now is others' bytes
        assert sorted(i for b in batches for i in b.ids.tolist()) == list(range(60))
        for b in batches:
            assert len(b) == 5 and not b.resident
            for k, (i, sample) in enumerate(zip(b.ids, b.samples())):
                value = sample[0] if made.samples[0].label is not None else sample
                expected = made.samples[i]
                if isinstance(value, dict):
                    assert {name: bytes(v) for name, v in value.items()} == expected.fields
                else:
                    assert bytes(value) == expected.data
                assert b.labels is None or b.labels[k] == expected.label
        assert len(again) == 12
        for b in batches:
            del sample, value
            b.release()
            sample = value = None
            with pytest.raises(ValueError, match="was released"):
                b.ids


def test_arrays_of_a_moved_batch(loader):
    old = next(iter(loader))
    assert old.data[0, 0] == loader.written[0, 0]
    assert sum(len(b) for b in loader) == 64
    assert numpy.array_equal(old.data, loader.written[:8])
    old.torch()[:] = 1
    assert (old.data == 1).all()


def test_unpacking_needs_labels_and_one_field(loader, make):
    with pytest.raises(TypeError, match="labels"):
        data, labels = next(iter(loader))
    web = make.webdataset(4)
    with rf.Loader(web.path, 4) as other:
        with pytest.raises(TypeError, match="fields"):
            data, labels = next(iter(other))


def test_arrays_outlive_the_loader(make):
    made = make.npy(16)
    loader = rf.Loader(made.path, 8)
    array = next(iter(loader)).data
    loader.close()
    assert array.tobytes() == b"".join(s.data for s in made.samples[:8])
    with pytest.raises(ValueError, match="closed"):
        iter(loader)


def test_a_loader_without_a_name_lives_as_long_as_its_iterator(make):
    made = make.npy(16)
    assert sum(len(b) for b in rf.Loader(made.path, 4)) == 16


def test_does_not_travel(loader):
    with pytest.raises(TypeError, match="attach"):
        pickle.dumps(loader)
    dataset = rf.Dataset(numpy.arange(6).reshape(3, 2))
    assert numpy.array_equal(pickle.loads(pickle.dumps(dataset))[2], [4, 5])

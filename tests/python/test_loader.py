"""Which batches come, in which order, with which bytes: against `ringfeed order` and against what was written."""

import hashlib
import json

import numpy
import pytest
import ringfeed as rf


def batches_of(loader):
    return [b.ids.tolist() for b in loader]


ORDERS = [
    ({}, ()),
    ({"shuffle": True}, ("--shuffle", "full")),
    ({"shuffle": True, "seed": 7}, ("--shuffle", "full", "--seed", 7)),
    ({"shuffle": "block", "block_samples": 8, "window_blocks": 3}, ("--shuffle", "block", "--block-samples", 8, "--window-blocks", 3)),
    ({"drop_last": True}, ("--tail", "drop")),
    ({"tail": "pad"}, ("--tail", "pad")),
    ({"strategy": "contiguous"}, ("--strategy", "contiguous")),
    ({"strategy": "hash", "hash_seed": 3, "hash_partitions": 64}, ("--strategy", "hash", "--hash-seed", 3, "--hash-partitions", 64)),
    ({"subset": "10:70"}, ("--subset", "10:70")),
    ({"split": "train:0.8,val:0.2", "use": "val"}, ("--split", "train:0.8,val:0.2", "--use", "val")),
    ({"shuffle": True, "repeat_order": True}, ("--shuffle", "full", "--repeat-order")),
]  # fmt: skip


@pytest.mark.parametrize("arguments,options", ORDERS, ids=[str(o[0]) for o in ORDERS])
def test_two_epochs_are_those_of_order(make, order, arguments, options):
    made = make.npy(101)
    expected = order(made, "--batch", 8, *options, epochs=2)
    with rf.Loader(made.path, 8, **arguments) as loader:
        assert len(loader) == len(expected[0])
        for epoch in range(2):
            assert batches_of(loader) == expected[epoch]


def test_arrays_have_the_format_dtype_and_shape(make):
    made = make.npy(20, shape=(4, 3), dtype="<i2")
    written = numpy.load(made.path)
    with rf.Loader(made.path, 6) as loader:
        got = [(b.data.copy(), b.step) for b in loader]
    assert numpy.array_equal(numpy.concatenate([d for d, _ in got]), written)
    assert got[0][0].dtype == "<i2" and got[0][0].shape == (6, 4, 3) and got[3][0].shape == (2, 4, 3)
    assert [s for _, s in got] == [0, 1, 2, 3]


def test_raw_records_are_bytes(make):
    made = make.raw(30, record_bytes=24, header_bytes=5)
    with rf.Loader(made.path, 7, format="raw", record_bytes=24, header_bytes=5) as loader:
        for batch in loader:
            assert batch.data.dtype == numpy.uint8 and batch.data.shape == (len(batch), 24)
            assert [row.tobytes() for row in batch.data] == [made.samples[i].data for i in batch.ids]


def test_labels_unpack(make):
    made = make.idx(50, shape=(5, 4))
    with rf.Loader(made.path, 16, shuffle=True) as loader:
        for batch in loader:
            data, labels = batch
            assert data.shape == (len(batch), 5, 4) and labels.dtype == numpy.int64
            assert labels.tolist() == [made.samples[i].label for i in batch.ids]
            assert [d.tobytes() for d in data] == [made.samples[i].data for i in batch.ids]


@pytest.mark.parametrize("kind", ["tar", "files"])
def test_ragged_samples_are_memoryviews(make, kind):
    made = getattr(make, kind)(40)
    with rf.Loader(made.path, 9, shuffle=True) as loader:
        seen = []
        for batch in loader:
            assert isinstance(batch.data[0], memoryview)
            assert [bytes(d) for d in batch.data] == [made.samples[i].data for i in batch.ids]
            assert batch.lengths.tolist() == [len(made.samples[i].data) for i in batch.ids]
            flat = batch.buffer
            assert all(
                flat[o : o + n].tobytes() == made.samples[i].data for o, n, i in zip(batch.offsets.tolist(), batch.lengths.tolist(), batch.ids)
            )
            seen += batch.ids.tolist()
            del flat
    assert sorted(seen) == list(range(40))


def test_fields_by_name(make):
    made = make.webdataset(30)
    with rf.Loader(made.path, 8, shuffle=True) as loader:
        assert set(loader.fields) == {"jpg", "cls", "json"}
        for batch in loader:
            for name in ("jpg", "cls", "json"):
                assert [bytes(v) for v in batch.fields[name]] == [made.samples[i].fields[name] for i in batch.ids]
            assert batch.labels.tolist() == [made.samples[i].label for i in batch.ids]
            assert [set(s) for s, _ in batch.samples()] == [{"jpg", "cls", "json"}] * len(batch)


def test_collate_gets_a_list_of_samples(make):
    made = make.idx(10, shape=(2, 2))
    with rf.Loader(made.path, 4, collate_fn=lambda samples: samples) as loader:
        got = [s for batch in loader for s in batch]
    assert [(d.tobytes(), label) for d, label in got] == [(s.data, s.label) for s in made.samples]
    tar = make.tar(10)
    with rf.Loader(tar.path, 4, collate_fn=lambda samples: [bytes(s) for s in samples]) as loader:
        assert sum(loader, []) == [s.data for s in tar.samples]


def test_leaving_a_loop_early_drops_the_rest(make, order):
    made = make.npy(100)
    expected = order(made, "--batch", 10, "--shuffle", "full", epochs=4)
    with rf.Loader(made.path, 10, shuffle=True) as loader:
        assert [b.ids.tolist() for _, b in zip(range(3), loader)] == expected[0][:3]
        assert next(iter(loader)).ids.tolist() == expected[1][0]
        assert batches_of(loader) == expected[2]
        assert batches_of(loader) == expected[3]


def test_an_older_iterator_is_over_when_a_new_one_begins(make):
    made = make.npy(20)
    with rf.Loader(made.path, 5) as loader:
        first = iter(loader)
        assert next(first).step == 0
        second = iter(loader)
        with pytest.raises(RuntimeError, match="later iter"):
            next(first)
        assert sum(1 for _ in second) == 4
        assert next(second, None) is None


def test_set_epoch(make, order):
    made = make.npy(40)
    expected = order(made, "--batch", 8, "--shuffle", "full", epochs=6)
    with rf.Loader(made.path, 8, shuffle=True) as loader:
        for epoch in (3, 0, 5, 5):
            loader.set_epoch(epoch)
            assert batches_of(loader) == expected[epoch]
        loader.set_epoch(1)
        next(iter(loader))
        loader.set_epoch(1)
        assert batches_of(loader) == expected[1]
        assert batches_of(loader) == expected[2]


def test_nothing_to_deliver(make):
    made = make.npy(3)
    with rf.Loader(made.path, 8, drop_last=True) as loader:
        assert len(loader) == 0
        assert list(loader) == [] and list(loader) == []


def test_an_array_is_a_dataset(order, make):
    array = numpy.random.default_rng(1).normal(size=(77, 3, 2))
    labels = numpy.arange(77) % 5
    with rf.Loader(array, 10, shuffle=True, labels=labels) as loader:
        ids = []
        for data, y in loader:
            ids.append(len(y))
        assert sum(ids) == 77
        del data, y
        for batch in loader:
            assert numpy.array_equal(batch.data, array[batch.ids.astype(int)])
            assert numpy.array_equal(batch.labels, labels[batch.ids.astype(int)])
        fortran = numpy.asfortranarray(array[:, ::-1])
    with rf.Loader(fortran, 77) as loader:
        assert numpy.array_equal(next(iter(loader)).data, fortran)


@pytest.mark.parametrize("dtype", ["?", "<u2", ">f4", "<c8", "<M8[s]", "<U4", "S5", [("a", "<i4"), ("b", "<f8", 2)]])
def test_arrays_of_any_dtype(dtype):
    array = numpy.zeros((6, 2), dtype)
    array[1] = numpy.ones(2, dtype) if not isinstance(dtype, list) else (3, 4.5)
    with rf.Loader(array, 4) as loader:
        for batch in loader:
            assert batch.data.dtype == array.dtype
            assert batch.data.tobytes() == array[batch.ids.astype(int)].tobytes() == memoryview(batch).tobytes()


@pytest.mark.parametrize("bad", [numpy.array(3), numpy.array([object()]), 7, [], [3]])
def test_what_is_no_dataset(bad):
    with pytest.raises((TypeError, ValueError), match="dataset"):
        rf.Loader(bad)


def test_labels_must_fit():
    with pytest.raises(ValueError, match="5 whole numbers"):
        rf.Loader(numpy.zeros((5, 2)), labels=numpy.zeros(4, int))


def test_a_missing_dataset_is_named(tmp_path):
    with pytest.raises(rf.RingfeedError, match="not-there"):
        rf.Loader(tmp_path / "not-there")


def test_attach_to_a_running_server(make, ringfeed, run_name, order):
    made = make.npy(60)
    ringfeed.serve(made, run_name, "--batch", 8, "--ranks", 2, "--shuffle", "full", "--epochs", 2)
    loaders = [rf.attach(run_name, r) for r in range(2)]
    for rank, loader in enumerate(loaders):
        expected = order(made, "--batch", 8, "--world-size", 2, "--shuffle", "full", rank=rank, epochs=2)
        assert len(loader) == len(expected[0])
        assert [batches_of(loader), batches_of(loader), batches_of(loader)] == [expected[0], expected[1], []]
        loader.close()
    with pytest.raises(rf.RingfeedNotFound, match="no-such-run"):
        rf.attach("no-such-run", start_timeout=0.05)


def test_a_second_trainer_of_a_rank_is_refused(make):
    made = make.npy(20)
    with rf.Loader(made.path, 4, name=None) as loader:
        with pytest.raises(rf.RingfeedError, match="rank 0"):
            rf.attach(loader.name)


def test_stats(make):
    made = make.npy(64)
    with rf.Loader(made.path, 8) as loader:
        assert sum(len(b) for b in loader) == 64
        stats = loader.stats()
    assert stats["dataset"]["samples"] == 64 and stats["ranks"][0]["samples"] == 64 and stats["state"] == "ready"


def test_dataset_view(make):
    made = make.npy(12)
    written = numpy.load(made.path)
    dataset = rf.Dataset(made.path)
    assert len(dataset) == 12
    assert numpy.array_equal(dataset[3], written[3]) and numpy.array_equal(dataset[-1], written[-1])
    with pytest.raises(IndexError):
        dataset[12]
    assert numpy.array_equal(numpy.stack(list(dataset)), written)
    web = make.webdataset(5)
    view = rf.Dataset(web.path)
    assert [(dict(s), label) for s, label in view] == [(s.fields, s.label) for s in web.samples]
    idx = make.idx(6)
    assert [(d.tobytes(), label) for d, label in rf.Dataset(idx.path)] == [(s.data, s.label) for s in idx.samples]


def test_a_loader_of_a_dataset(make):
    made = make.raw(20, record_bytes=8)
    labels = numpy.arange(20) * 2
    dataset = rf.Dataset(made.path, format="raw", record_bytes=8, labels=None)
    with rf.Loader(dataset, 5) as loader:
        assert b"".join(b.data.tobytes() for b in loader) == b"".join(s.data for s in made.samples)
    with rf.Loader(rf.Dataset(numpy.arange(20), labels=labels), 5) as loader:
        assert [y for _, ys in loader for y in ys.tolist()] == labels.tolist()


def test_torch_dataloader_around_it(make):
    data = pytest.importorskip("torch.utils.data")
    made = make.npy(30)
    with rf.Loader(made.path, 8) as loader:
        around = data.DataLoader(loader.iterable(), batch_size=None, num_workers=0)
        assert len(around) == 4
        assert [b.ids.tolist() for b in around] == [list(range(k, min(k + 8, 30))) for k in range(0, 30, 8)]
        assert data.DataLoader(rf.Dataset(made.path), batch_size=30, num_workers=0).__iter__().__next__().numpy().tobytes() == (
            b"".join(s.data for s in made.samples)
        )


def truth_of(shared_data, formats):
    """What others' decoders say of the collection's files."""
    for line in (shared_data / "truth.jsonl").read_text().splitlines():
        one = json.loads(line)
        path = shared_data / one["path"]
        if one["format"] in formats and one["expect"] == "ok" and one.get("concat_sha256") and path.exists():
            yield one, path


def test_collection_of_other_writers_files(shared_data):
    """Every sample of every file through the ring: one hash over all of them, as told."""
    seen = set()
    for one, path in truth_of(shared_data, {"npy", "idx", "tar", "webdataset"}):
        if one["samples"] > 20000 or one["format"] in seen and one["samples"] > 2000:
            continue
        try:
            dataset = rf.Dataset(path, format=one["format"])
        except rf.RingfeedError:
            continue  # a kind that every verb refuses, as the command's tests say
        seen.add(one["format"])
        whole = hashlib.sha256()
        with rf.Loader(path, 64, format=one["format"]) as loader:
            for batch in loader:
                for sample in batch.data:
                    whole.update(sample if isinstance(sample, bytes) else sample.tobytes())
        assert len(dataset) == one["samples"] and whole.hexdigest() == one["concat_sha256"], path
        dataset.close()
    assert len(seen) >= 3, seen


def test_mnist_of_the_collection(shared_data):
    images = shared_data / "idx" / "Kowaine__JPG-PNG-to-MNIST-NN-Format" / "train-images-idx3-ubyte"
    if not images.exists():
        pytest.skip("not in the collection")
    raw = numpy.fromfile(images, "u1")
    n, height, width = raw[4:16].view(">u4")
    plain = raw[16:].reshape(n, height, width)
    labels = numpy.fromfile(str(images).replace("images-idx3", "labels-idx1"), "u1")[8:]
    with rf.Loader(images, 32, shuffle=True) as loader:
        for data, y in loader:
            pass
        del data, y
        for batch in loader:
            at = batch.ids.astype(int)
            assert numpy.array_equal(batch.data, plain[at]) and numpy.array_equal(batch.labels, labels[at])

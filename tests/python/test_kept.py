"""Arrays and tensors that outlive the ring's patience: x, y = next(iter(loader)), and everybody goes on."""

import threading

import numpy
import pytest
import ringfeed as rf

pytestmark = pytest.mark.filterwarnings("ignore:.*are held")


def ids_of(loader):
    return sorted(i for batch in loader for i in batch.ids.tolist())


@pytest.mark.parametrize("kind", ["npy", "tar", "idx"])
def test_one_old_batch_keeps_its_bytes(make, kind):
    made = getattr(make, kind)(60)
    with rf.Loader(made.path, 5, shuffle=True, prefetch=3) as loader:
        old = next(iter(loader))
        ids, data = old.ids, old.data
        for _ in range(3):
            assert ids_of(loader) == list(range(60))
        for i, sample in zip(ids, data):
            assert bytes(sample) == made.samples[i].data
        if made.samples[0].label is not None:
            assert old.labels.tolist() == [made.samples[i].label for i in ids]


def test_leaving_a_loop_early_with_its_variables_alive(make):
    made = make.idx(60)
    with rf.Loader(made.path, 5, shuffle=True, prefetch=2) as loader:
        for data, labels in loader:
            break
        kept, kept_labels = data.copy(), labels.copy()
        seen = []
        for other, theirs in loader:
            seen += theirs.tolist()
        assert sorted(seen) == sorted(s.label for s in made.samples)
        del other, theirs
        assert ids_of(loader) == list(range(60))
        assert numpy.array_equal(data, kept) and numpy.array_equal(labels, kept_labels)


def test_every_array_of_an_epoch(make):
    """A list of arrays: the ring is left again and again, in the middle of an epoch, and the order is that of an epoch."""
    made = make.npy(200)
    with rf.Loader(made.path, 4, shuffle=True, seed=3, prefetch=3) as loader:
        wanted = [b.ids.tolist() for b in loader]
    with rf.Loader(made.path, 4, shuffle=True, seed=3, prefetch=3) as loader:
        arrays = [(b.ids, b.data) for b in loader]
        assert [ids.tolist() for ids, _ in arrays] == wanted
        for ids, data in arrays:
            for i, sample in zip(ids, data):
                assert bytes(sample) == made.samples[i].data
        state = loader.state_dict()
        assert (state["epoch"], state["step"]) == (1, 0)


def test_tensors_stay_writable_and_private(make):
    torch = pytest.importorskip("torch")
    made = make.npy(60)
    with rf.Loader(made.path, 5, prefetch=3) as loader:
        tensor = next(iter(loader)).torch()
        tensor.zero_()
        for _ in range(2):
            for batch in loader:
                for i, sample in zip(batch.ids, batch.data):
                    assert bytes(sample) == made.samples[i].data
                del sample
        assert not torch.count_nonzero(tensor)
        tensor += 1
        assert torch.count_nonzero(tensor) == tensor.numel()


def test_who_reads_meanwhile_sees_the_same_bytes(make):
    made = make.npy(60)
    with rf.Loader(made.path, 5, prefetch=3) as loader:
        data = next(iter(loader)).data
        wanted, over, wrong = data.copy(), threading.Event(), []

        def read():
            while not over.is_set():
                if not numpy.array_equal(data, wanted):
                    wrong.append(1)

        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(5):
            extra = next(iter(loader)).data
            assert ids_of(loader) == list(range(60))
        over.set()
        thread.join()
        assert not wrong and len(extra) == 5


def test_what_was_kept_is_given_back(make):
    made = make.npy(60)

    def mappings():
        with open("/proc/self/maps") as maps:
            return len(maps.readlines())

    with rf.Loader(made.path, 5, prefetch=3) as loader:
        counts = []
        for cycle in range(20):
            data = next(iter(loader)).data
            assert ids_of(loader) == list(range(60))
            del data
            counts.append(mappings())
        assert counts[-1] <= counts[4] + 2, counts


def test_a_run_of_one_epoch_ends_as_it_should(make, ringfeed, run_name):
    """attach() to a server that ends with its epoch: the ring is left up to its last batch."""
    made = make.npy(30)
    serve = ringfeed.serve(made.path, run_name, "--batch", 3, "--prefetch", 3)
    arrays, seen = [], []
    with rf.attach(run_name, 0) as loader:
        for batch in loader:
            seen += batch.ids.tolist()
            if len(arrays) < 5:
                arrays.append((batch.ids, batch.data))
        del batch
    assert serve.wait() == 0
    assert seen == list(range(30))
    for ids, data in arrays:
        for i, sample in zip(ids, data):
            assert bytes(sample) == made.samples[i].data

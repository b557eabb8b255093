"""sampler=: its list, drawn once an epoch, is the epoch's order."""

import json

import numpy
import pytest
import ringfeed as rf

DATA = numpy.arange(60).reshape(30, 2)


class Recorded:
    """A sampler with repeats that remembers what it drew. Lists depend on how often it was asked, from `seed` on."""

    def __init__(self, n=20, seed=0):
        self.n, self.asked, self.drawn = n, seed, []

    def __len__(self):
        return self.n

    def __iter__(self):
        self.drawn.append(numpy.random.default_rng(self.asked).integers(0, 30, self.n).tolist())
        self.asked += 1
        return iter(self.drawn[-1])


def ids(loader):
    return [i for b in loader for i in b.ids.tolist()]


def test_the_order_is_the_samplers(tmp_path):
    sampler = Recorded()
    with rf.Loader(DATA, 6, sampler=sampler) as loader:
        assert isinstance(loader, rf.Loader) and len(loader) == 4 and sampler.drawn == []
        for epoch in range(3):
            got = []
            for batch in loader:
                assert batch.epoch == epoch and numpy.array_equal(batch.data, DATA[batch.ids.astype(int)])
                got += batch.ids.tolist()
            assert len(sampler.drawn) == epoch + 1 and got == sampler.drawn[epoch]


def test_torch_samplers():
    data = pytest.importorskip("torch.utils.data")
    import torch

    weights = data.WeightedRandomSampler([1.0] * 5 + [0.0] * 25, 50, generator=torch.Generator().manual_seed(3))
    with rf.Loader(DATA, 8, sampler=weights, drop_last=True) as loader:
        got = ids(loader)
    assert len(got) == 48 and set(got) <= set(range(5))
    subset = data.SubsetRandomSampler([4, 9, 2])
    with rf.Loader(DATA, 8, sampler=subset) as loader:
        assert sorted(ids(loader)) == [2, 4, 9]


def test_early_break_and_state():
    sampler = Recorded()
    with rf.Loader(DATA, 6, sampler=sampler) as loader:
        assert loader.state_dict()["epoch"] == 0
        for batch in loader:
            break
        del batch
        assert ids(loader) == sampler.drawn[1]
        for step, batch in enumerate(loader):
            if step == 1:
                break
        state = json.loads(json.dumps(loader.state_dict()))
        assert (state["epoch"], state["step"]) == (2, 2)
    again = Recorded(seed=2)
    with rf.Loader(DATA, 6, sampler=again) as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        loader.set_epoch(2)
        assert ids(loader) == sampler.drawn[2][12:]
        assert ids(loader) == again.drawn[1]
    with rf.Loader(DATA, 6, sampler=Recorded(seed=9)) as loader:
        loader.load_state_dict(state)
        with pytest.raises(ValueError, match="does not draw"):
            iter(loader)


def test_refused():
    class Distributed:
        num_replicas = 2

    with pytest.raises(ValueError, match="sampler and shuffle"):
        rf.Loader(DATA, 6, sampler=[1], shuffle=True)
    with pytest.raises(ValueError, match="checkpoint or resume"):
        rf.Loader(DATA, 6, sampler=[1], resume="x.json")
    with pytest.raises(ValueError, match="DistributedSampler"):
        rf.Loader(DATA, 6, sampler=Distributed(), rank=0, world_size=2, name="x")
    with rf.Loader(DATA, 6, sampler=[1, 30]) as loader:
        with pytest.raises(ValueError, match="30 is out of bounds"):
            iter(loader)


RANKS = """
    import json, sys, numpy, ringfeed as rf
    world = int(sys.argv[1]); state = json.loads(sys.argv[2])
    lists = [[(7 * i * (e + 3)) % 30 for i in range(26)] for e in range(4)]
    class Sampler:
        def __iter__(self):
            return iter(lists[loader.epoch_asked])
        def __len__(self):
            return 26
    with rf.Loader(numpy.arange(60).reshape(30, 2), 3, sampler=Sampler()) as loader:
        out = []
        if state:
            loader.load_state_dict(state)
        for epoch in range(state["epoch"] if state else 0, 3):
            loader.epoch_asked = epoch
            got = []
            for batch in loader:
                got.append([batch.ids.tolist(), batch.flags.tolist()])
                if not state and epoch == 1 and batch.step == 1:
                    break
            out.append(got)
            if not state and epoch == 1:
                break
        print(json.dumps([out, loader.state_dict(), lists, len(loader)]))
"""


@pytest.mark.parametrize("worlds", [(2, 2), (2, 3)])
def test_ranks_share_the_list(script, worlds):
    first = [json.loads(t) for t in script.ranks(RANKS, worlds[0], "null", world=worlds[0])]
    lists = first[0][2]
    for rank, (epochs, state, _, length) in enumerate(first):
        assert state == first[0][1] and state["step"] == 2
        assert length == len(epochs[0])
        assert [i for ids, flags in epochs[0] for i, f in zip(ids, flags) if not f] == lists[0][rank::2]
    second = [json.loads(t) for t in script.ranks(RANKS, worlds[1], json.dumps(first[0][1]), world=worlds[1])]
    seen = [i for one in first for ids, flags in one[0][1] for i, f in zip(ids, flags) if not f]
    rest = [i for one in second for ids, flags in one[0][0] for i, f in zip(ids, flags) if not f]
    assert sorted(seen + rest) == sorted(lists[1])
    for rank, one in enumerate(second):
        assert [i for ids, flags in one[0][1] for i, f in zip(ids, flags) if not f] == lists[2][rank :: worlds[1]]

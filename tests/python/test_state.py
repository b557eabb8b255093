"""state_dict and load_state_dict: torch's Stateful protocol, with the behaviours of torchdata's StatefulDataLoader."""

import json

import numpy
import pytest
import ringfeed as rf


@pytest.fixture
def data():
    return numpy.arange(100, dtype="<i4").reshape(50, 2)


def loader_of(data, **arguments):
    return rf.Loader(data, 8, shuffle=True, seed=5, **arguments)


def rest(loader):
    return [b.ids.tolist() for b in loader]


@pytest.fixture
def expected(data, order, tmp_path):
    """By `ringfeed order`, of the same array in a file."""
    numpy.save(tmp_path / "same.npy", data)
    return order(tmp_path / "same.npy", "--batch", 8, "--shuffle", "full", "--seed", 5, epochs=6)


def through_json(state):
    return json.loads(json.dumps(state))


def after(loader, epochs, batches):
    """A loader that has been through whole epochs and some batches of the next; its iterator lives."""
    for _ in range(epochs):
        rest(loader)
    it = iter(loader)
    for _ in range(batches):
        next(it)
    return it


@pytest.mark.parametrize("epochs,batches", [(0, 0), (0, 1), (0, 3), (0, 6), (1, 0), (2, 4), (3, 6)])
def test_a_new_loader_goes_on_where_the_old_one_stood(data, expected, epochs, batches):
    with loader_of(data) as old:
        it = after(old, epochs, batches)
        state = through_json(old.state_dict())
        assert (state["epoch"], state["step"]) == (epochs, batches)
        left = [b.ids.tolist() for b in it]
    assert left == expected[epochs][batches:]
    with loader_of(data) as new:
        new.load_state_dict(state)
        assert new.state_dict() == state
        assert rest(new) == left
        assert rest(new) == expected[epochs + 1]
        assert rest(new) == expected[epochs + 2]


def test_before_and_after_iter(data, expected):
    with loader_of(data) as loader:
        before = loader.state_dict()
        it = iter(loader)
        assert loader.state_dict() == before and (before["epoch"], before["step"]) == (0, 0)
        assert rest(it) == expected[0]


def test_the_exact_end(data, expected):
    """Seven batches: with the last one returned the epoch is not over yet; after StopIteration it is."""
    with loader_of(data) as loader:
        it = after(loader, 0, len(loader))
        at_last = through_json(loader.state_dict())
        assert next(it, None) is None
        over = through_json(loader.state_dict())
    assert (at_last["epoch"], at_last["step"]) == (0, 7) and (over["epoch"], over["step"]) == (1, 0)
    with loader_of(data) as loader:
        loader.load_state_dict(at_last)
        assert loader.state_dict() == at_last
        assert rest(loader) == [] and rest(loader) == expected[1]
    with loader_of(data) as loader:
        loader.load_state_dict(over)
        assert rest(loader) == expected[1]


def test_loading_into_a_loader_that_has_run(data, expected):
    with loader_of(data) as loader:
        it = after(loader, 1, 2)
        state = loader.state_dict()
        rest(loader)
        rest(loader)
        loader.load_state_dict(state)
        with pytest.raises(RuntimeError, match="load_state_dict"):
            next(it)
        assert rest(loader) == expected[1][2:]
        assert rest(loader) == expected[2]
        loader.load_state_dict(state)
        loader.load_state_dict(state)
        assert rest(loader) == expected[1][2:]


def test_early_break_then_state(data, expected):
    with loader_of(data) as loader:
        for step, _ in enumerate(loader):
            if step == 1:
                break
        state = loader.state_dict()
        assert (state["epoch"], state["step"]) == (0, 2)
        assert rest(loader) == expected[1]
    with loader_of(data) as loader:
        loader.load_state_dict(state)
        assert rest(loader) == expected[0][2:]


def test_set_epoch_of_the_same_epoch_goes_on_in_it(data, expected):
    with loader_of(data) as loader:
        after(loader, 1, 3)
        state = loader.state_dict()
    with loader_of(data) as loader:
        loader.load_state_dict(state)
        for epoch in range(1, 4):
            loader.set_epoch(epoch)
            assert rest(loader) == (expected[1][3:] if epoch == 1 else expected[epoch])
        loader.load_state_dict(state)
        loader.set_epoch(4)
        assert loader.state_dict()["epoch"] == 4
        assert rest(loader) == expected[4]


def test_many_resumes_one_batch_each(data, expected):
    state, got = None, []
    for _ in range(9):
        with loader_of(data) as loader:
            if state:
                loader.load_state_dict(through_json(state))
            got += [b.ids.tolist() for _, b in zip(range(1), loader)]
            state = loader.state_dict()
    assert got == expected[0] + expected[1][:1]  # the eighth finds the epoch at its end


def test_small_and_plain(data):
    with loader_of(data) as loader:
        assert len(json.dumps(loader.state_dict())) < 1000


def test_another_dataset_or_order_is_refused(data):
    with loader_of(data) as loader:
        state = loader.state_dict()
    with loader_of(data + 1) as other:
        with pytest.raises(ValueError, match="dataset") as error:
            other.load_state_dict(state)
        assert state["dataset"] in str(error.value) and other.state_dict()["dataset"] in str(error.value)
    with rf.Loader(data, 8, shuffle=True, seed=6) as other:
        with pytest.raises(ValueError, match="seed is 5 in the state and 6"):
            other.load_state_dict(state)
    with rf.Loader(data, 4, shuffle=True, seed=5) as other:
        with pytest.raises(ValueError, match="batch is 8 in the state and 4"):
            other.load_state_dict(state)
        for wrong in ({}, None, {"epoch": 1}, {**state, "ringfeed": 99}):
            with pytest.raises(ValueError, match="state_dict"):
                other.load_state_dict(wrong)


def test_state_of_an_attached_loader(make, ringfeed, run_name, order):
    made = make.npy(40)
    expected = order(made, "--batch", 8, "--shuffle", "full", epochs=3)
    ringfeed.serve(made, run_name, "--batch", 8, "--shuffle", "full", "--epochs", 3)
    first = rf.attach(run_name)
    assert [b.ids.tolist() for _, b in zip(range(2), first)] == expected[0][:2]
    state = first.state_dict()
    first.close()
    with rf.attach(run_name) as again:  # released were two, or one and one dropped
        again.load_state_dict(state)
        assert rest(again) == expected[0][2:]
        assert rest(again) == expected[1]
        again.load_state_dict(state)
        assert rest(again) == expected[0][2:]
    with rf.Loader(made.path, 8, shuffle=True) as own:
        own.load_state_dict(state)
        assert rest(own) == expected[0][2:]




def test_checkpoints_of_the_server(make, order, ringfeed, tmp_path):
    """checkpoint= and resume= of `ringfeed serve`: they count what was released."""
    made = make.npy(60)
    file = tmp_path / "run.json"
    expected = order(made, "--batch", 8, "--shuffle", "full", epochs=3)
    with rf.Loader(made.path, 8, shuffle=True, checkpoint=file, checkpoint_every=1) as loader:
        for _, batch in zip(range(3), loader):
            batch.release()
    with rf.Loader(made.path, 8, shuffle=True, resume=file) as loader:
        state = loader.state_dict()
        assert (state["epoch"], state["step"]) == (0, 3)
        assert rest(loader) == expected[0][3:]
        assert rest(loader) == expected[1]
        alone = rf.Loader(made.path, 8, shuffle=True, rank=0, world_size=2, ranks=1)
        with alone:
            other = {**alone.state_dict(), "epoch": 2}
        other["order"]["tail"] = "uneven"
        loader.load_state_dict(other)  # begins anew, and not from the file
        assert rest(loader) == expected[2]
    with rf.Loader(made.path, 8, shuffle=True) as loader:
        loader.load_state_dict(state)
        assert rest(loader) == expected[0][3:]


def test_a_state_of_what_another_world_began(make, ringfeed, new_name, tmp_path):
    """Only the server's checkpoint knows where its ranks stood; from the next epoch on a state is complete again."""
    made = make.npy(60)
    file, name, other = tmp_path / "run.json", new_name(), new_name()
    flags = ("--batch", 4, "--shuffle", "full", "--tail", "uneven", "--epochs", 3)
    server = ringfeed.serve(made, name, "--ranks", 2, *flags)
    ringfeed.ok("attach", name, "--rank", 1, "--limit", 2)
    ringfeed.ok("checkpoint", name, "-o", file)
    server.send(15)
    server.wait()
    ringfeed.serve(made, other, "--ranks", 1, *flags, "--resume", file)
    with rf.attach(other) as attached, rf.Loader(made.path, 4, shuffle=True, resume=file) as own:
        for loader in (attached, own):
            with pytest.raises(NotImplementedError, match="another world size"):
                loader.state_dict()
            assert len(rest(loader)) == 13
            assert (loader.state_dict()["epoch"], loader.state_dict()["before"]) == (1, [])

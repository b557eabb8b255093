"""Nothing to deliver is no error: every verb ends with status 0, serve says why once, trainers get the
end of data at once."""

import numpy
import pytest

from delivery import Trainer


@pytest.fixture
def empty(tmp_path):
    path = tmp_path / "empty.npy"
    numpy.save(path, numpy.zeros((0, 4), dtype="<i8"))
    return path


def test_verbs_of_an_empty_dataset(ringfeed, empty, tmp_path):
    index = tmp_path / "empty.rfi"
    ringfeed.ok("index", empty, "-o", index)
    for path in (empty, index):
        facts = ringfeed.json("inspect", path)
        assert (facts["samples"], facts["bytes"], facts["min_bytes"], facts["max_bytes"]) == (0, 0, 0, 0)
        assert ringfeed.ok("samples", path) == ""
        for options in ((), ("--shuffle", "full"), ("--shuffle", "block"), ("--tail", "pad"), ("--strategy", "hash")):
            assert ringfeed.ok("order", path, "--world-size", 3, "--batch", 4, *options) == ""
        assert [r["batches"] for r in ringfeed.json("plan", path, "--world-size", 3)["ranks"]] == [0, 0, 0]
        assert ringfeed.json("verify", "--dataset", path, "/dev/null")["good"]
        ringfeed.fails("cat", path, "-i", 0, says="0 samples")


@pytest.mark.parametrize(
    "n, options, says",
    [
        (0, (), "the dataset is empty"),
        (0, ("--epochs", 0), "the dataset is empty"),
        (9, ("--subset", "4:4"), "leave nothing of 9 samples"),
        (9, ("--batch", 10, "--tail", "drop"), "leave nothing of 9 samples"),
        (9, ("--world-size", 3, "--ranks", 2, "--strategy", "range", "--ranges", "0:0,9:9,0:9"), "leave nothing of 9"),
    ],
)
def test_serve_says_once_that_there_is_nothing(ringfeed, run_name, tmp_path, n, options, says):
    path = tmp_path / "array.npy"
    numpy.save(path, numpy.zeros((n, 4), dtype="<i8"))
    serve = ringfeed.serve(path, run_name, *(options or ("--ranks", 2)))
    ranks = [r["rank"] for r in ringfeed.json("stat", run_name)["ranks"]]
    trainers = [Trainer(ringfeed, run_name, rank, "--check") for rank in ranks]
    assert all(t.ok()["samples"] == 0 for t in trainers)
    assert serve.wait() == 0
    assert len(serve.stderr.splitlines()) == 1 and says in serve.stderr


def test_a_rank_without_batches_beside_one_with_some_is_not_remarked(ringfeed, run_name, make):
    made = make.raw(n=1)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--ranks", 2)
    assert [Trainer(ringfeed, run_name, rank).ok()["samples"] for rank in (0, 1)] == [1, 0]
    assert serve.wait() == 0 and serve.stderr == ""

"""Going on from places where little is left, nothing is left, or much has happened: the ends of runs, ranks without
a sample, many changes of the world, files of several servers that do not belong together."""

import json
import signal

import pytest

from delivery import Trainer, deliver, key, order_lines


def kill(serve):
    serve.send(signal.SIGKILL)
    serve.wait()


@pytest.mark.parametrize("mode", [("--strategy", "adaptive"), ("--on-dead-rank", "redistribute")])
def test_a_finished_run_whose_ranks_exchange_batches_is_finished(ringfeed, new_name, make, tmp_path, mode):
    made = make.raw(n=48)
    order = ("--world-size", 2, "--batch", 4, "--epochs", 2, *mode, *made.args)
    file = tmp_path / "done.json"
    deliver(ringfeed, made.path, new_name(), [0, 1], *order, "--checkpoint", file)
    name = new_name()
    serve = ringfeed.serve(made.path, name, *order, "--resume", file)
    run = [Trainer(ringfeed, name, r) for r in range(2)]
    assert [t.ok()["batches"] for t in run] == [0, 0] and serve.wait() == 0
    lines, _ = deliver(ringfeed, made.path, new_name(), [0, 1], *order, "--epochs", 3, "--resume", file)
    assert [line.split()[0] for line in lines] == ["2"] * 48


def test_the_world_may_change_in_every_epoch_for_ever(ringfeed, new_name, make, tmp_path):
    """What earlier stages left is over with its epoch, so the chain of stages does not grow."""
    made = make.raw(n=24)
    order = ("--batch", 2, "--shuffle", "full", "--epochs", 0, *made.args)
    file, counts = tmp_path / "run.json", {}
    for life in range(20):
        world = 1 + life % 2
        resume = ("--resume", file) if life else ()
        name = new_name()
        serve = ringfeed.serve(made.path, name, *order, "--world-size", world, "--checkpoint", file, *resume)
        run = [Trainer(ringfeed, name, r, "--limit", 12 // world) for r in range(world)] # an epoch further, and off its start
        if life == 0:
            run[0].ok()
            run = [Trainer(ringfeed, name, 0, "--limit", 5, ids=run[0].ids)]
        for t in run:
            t.ok()
        serve.send(signal.SIGTERM)
        assert serve.wait() == 0, serve.stderr
        assert len(json.loads(file.read_text())["stages"]) <= 2
        for line in {line for t in run for line in t.lines()}:
            epoch, *_, index, _ = line.split()
            counts.setdefault(int(epoch), []).append(int(index))
    last = max(counts)
    assert last >= 18
    assert all(sorted(counts[e]) == list(range(24)) for e in range(last))


def test_ranks_without_a_sample_do_not_hold_a_resize_up(ringfeed, new_name, make, tmp_path):
    made = make.raw(n=3)
    order = ("--batch", 1, "--strategy", "contiguous", "--epochs", 14, *made.args)
    file, name = tmp_path / "run.json", new_name()
    serve = ringfeed.serve(made.path, name, *order, "--world-size", 5, "--checkpoint", file)
    first = [Trainer(ringfeed, name, r, "--limit", 12) for r in range(3)]
    for t in first:
        t.ok()
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
    lines, _ = deliver(ringfeed, made.path, new_name(), [0, 1], *order, "--world-size", 2, "--resume", file)
    plain = order_lines(ringfeed, made.path, *order, "--world-size", 2)
    assert lines == [line for line in plain if int(line.split()[0]) >= 12]


def stopped_at(ringfeed, made, name, file, limit, *args):
    serve = ringfeed.serve(made.path, name, *args, *made.args, "--checkpoint", file)
    first = int(args[args.index("--first-rank") + 1])
    Trainer(ringfeed, name, first, "--limit", limit).ok()
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


@pytest.mark.parametrize("changed, words", [(("--seed", 6), ["--seed", "5", "6"]), (("--batch", 3), ["--batch", "2", "3"])])
def test_files_of_servers_with_different_orders_are_refused(ringfeed, new_name, make, tmp_path, changed, words):
    made = make.raw(n=60)
    order = ("--world-size", 2, "--batch", 2, "--shuffle", "full", "--seed", 5)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    stopped_at(ringfeed, made, new_name(), files[0], 3, *order, "--first-rank", 0, "--ranks", 1)
    stopped_at(ringfeed, made, new_name(), files[1], 3, *order, *changed, "--first-rank", 1, "--ranks", 1)
    both = ("--resume", files[0], "--resume", files[1])
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, *made.args, *both, says=words)


def test_files_of_servers_that_go_on_from_different_places_are_refused(ringfeed, new_name, make, tmp_path):
    """Both have a stage behind them, and not the same."""
    made = make.raw(n=60)
    order = ("--batch", 2, "--shuffle", "full", "--seed", 5)
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for rank, limit in enumerate([7, 9]):
        start = tmp_path / f"start-{rank}.json"
        stopped_at(ringfeed, made, new_name(), start, limit, *order, "--world-size", 1, "--first-rank", 0)
        stopped_at(ringfeed, made, new_name(), files[rank], 1, *order, "--world-size", 2, "--first-rank", rank, "--ranks", 1,
                   "--resume", start)
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, "--world-size", 2, *made.args, "--resume", files[0],
                   "--resume", files[1], says=["batch 7", "batch 9"])

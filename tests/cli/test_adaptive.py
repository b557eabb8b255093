"""Batches that move between ranks: every sample exactly once at any instant, and `order` with the log is what came."""

import collections
import json
import os
import signal
import time

import pytest

from delivery import Trainer, key, order_lines

from test_kill import until


def counts_of(lines):
    return collections.Counter((int(l.split()[0]), int(l.split()[4])) for l in lines)


def moves_in(file):
    return [move for stage in json.loads(file.read_text())["stages"] for move in stage["moves"]]


def run_adaptive(ringfeed, made, name, tmp_path, steps, *extra, epochs=1, base="round-robin"):
    """One trainer a step time; the lines, the log's file and serve's stderr."""
    file = tmp_path / "log.json"
    order = ("--world-size", len(steps), "--batch", 4, "--shuffle", "full", "--seed", 3, "--epochs", epochs,
             "--strategy", "adaptive", "--base", base, *made.args)
    serve = ringfeed.serve(made.path, name, *order, "--workers", 1, "--checkpoint", file, *extra)
    run = [Trainer(ringfeed, name, rank, "--step-ms", ms) for rank, ms in enumerate(steps)]
    for t in run:
        t.ok()
    assert serve.wait() == 0
    return order, [line for t in run for line in t.lines()], file, [len(t.lines()) for t in run]


@pytest.mark.parametrize("base", ["round-robin", "contiguous", "hash", "range"])
def test_a_slow_rank_gives_away_its_tail(ringfeed, run_name, make, tmp_path, base):
    made = make.raw(n=1600)
    extra = ("--ranges", "0:400,400:800,800:1200,1200:1600") if base == "range" else ()
    order, lines, file, per_rank = run_adaptive(
        ringfeed, made, run_name, tmp_path, (4, 4, 60, 4), *extra, epochs=2, base=base)
    order += extra
    moves = moves_in(file)
    given = collections.Counter()
    for m in moves:
        given[m["donor"]] += m["count"]
    assert given[2] > 0.8 * sum(given.values()) > 0  # the others only as far as the machine held them up
    assert set(counts_of(lines).values()) == {1} and len(lines) == 2 * 1600
    assert per_rank[2] < min(per_rank[0], per_rank[1], per_rank[3]) / 2
    assert sorted(lines, key=key) == order_lines(ringfeed, made.path, *order, "--log", file)


def test_at_rest_nothing_moves(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=1200)
    order, lines, file, _ = run_adaptive(ringfeed, made, run_name, tmp_path, (10, 10, 10), epochs=1)
    assert moves_in(file) == []
    assert sorted(lines, key=key) == order_lines(ringfeed, made.path, *order)


def test_rebalance_off_is_the_base(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=400)
    order, lines, file, _ = run_adaptive(ringfeed, made, run_name, tmp_path, (1, 20), "--rebalance", "off")
    assert moves_in(file) == []
    plain = [a for a in order if a not in ("--strategy", "adaptive", "--base", "round-robin")]
    assert sorted(lines, key=key) == order_lines(ringfeed, made.path, *plain)


def test_a_rank_that_recovers_gets_work_back(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=6000)
    file = tmp_path / "log.json"
    order = ("--world-size", 3, "--batch", 4, "--strategy", "adaptive", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file)
    fast = [Trainer(ringfeed, run_name, rank, "--step-ms", 5) for rank in (0, 1)]
    slow = Trainer(ringfeed, run_name, 2, "--step-ms", 80, "--limit", 20)
    slow.ok()
    assert ringfeed.json("stat", run_name)["rebalances"] > 0
    again = Trainer(ringfeed, run_name, 2, "--step-ms", 5, ids=slow.ids)
    for t in [*fast, again]:
        t.ok()
    assert serve.wait() == 0
    moves = moves_in(file)
    assert any(m["recipient"] == 2 for m in moves), moves
    lines = [line for t in [*fast, slow] for line in t.lines()]
    assert set(counts_of(lines).values()) == {1} and len(lines) == 6000
    assert sorted(lines, key=key) == order_lines(ringfeed, made.path, *order, "--log", file)


def test_why_nothing_moved_is_said(ringfeed, run_name, make):
    made = make.raw(n=4000)
    ringfeed.serve(made.path, run_name, "--world-size", 2, "--batch", 4, "--strategy", "adaptive", *made.args)
    assert ringfeed.json("stat", run_name)["balance"] in ("off", "measuring", "between epochs")
    Trainer(ringfeed, run_name, 0, "--step-ms", 10, "--limit", 200)
    Trainer(ringfeed, run_name, 1, "--step-ms", 10, "--limit", 200)
    until(lambda: ringfeed.json("stat", run_name)["balance"] == "even")


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_resumed_keeps_its_moves(ringfeed, run_name, make, tmp_path, seed):
    """Three lives are killed after a move; the fourth ends well."""
    made = make.raw(n=6000)
    file = tmp_path / "log.json"
    order = ("--world-size", 3, "--batch", 4, "--shuffle", "full", "--seed", seed, "--epochs", 2, "--strategy", "adaptive",
             *made.args)
    ids = [tmp_path / f"ids-{r}" for r in range(3)]

    def moved():
        done = ringfeed("stat", run_name, "--json")
        return done.returncode == 0 and json.loads(done.stdout)["rebalances"] > 0

    for life in range(4):
        serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file, "--checkpoint-every", 100, "--resume", "auto")
        steps = (1, 1, 1) if life == 3 else (4, 50, 4)
        run = [Trainer(ringfeed, run_name, r, "--step-ms", ms, ids=ids[r]) for r, ms in enumerate(steps)]
        if life < 3:
            until(moved)
            time.sleep(0.05 * seed)
            for one in [serve, *(t.run for t in run)]:
                one.send(signal.SIGKILL)
            for one in [serve, *(t.run for t in run)]:
                one.wait()
    for t in run:
        t.ok()
    assert serve.wait() == 0
    lines = [line for path in ids for line in dict.fromkeys(path.read_text().splitlines())]
    assert set(counts_of(lines).values()) == {1} and len(lines) == 2 * 6000


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_dead_ranks_batches_go_to_the_living(ringfeed, run_name, make, tmp_path, epochs):
    made = make.raw(n=900)
    file = tmp_path / "log.json"
    order = ("--world-size", 3, "--batch", 4, "--shuffle", "full", "--epochs", epochs, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--on-dead-rank", "redistribute", "--checkpoint", file)
    living = [Trainer(ringfeed, run_name, rank, "--step-ms", 4) for rank in (0, 2)]
    victim = Trainer(ringfeed, run_name, 1, "--step-ms", 4)
    until(lambda: len(victim.lines()) >= 40)
    victim.run.send(signal.SIGKILL)
    victim.run.wait()
    for t in living:
        t.ok()
    assert serve.wait() == 0 and "go to the 2 other ranks" in serve.stderr
    # What the victim had written and not released comes again at the living; the log says where it stopped.
    lines = [line for t in living for line in t.lines()]
    promised = order_lines(ringfeed, made.path, *order, "--log", file)
    assert sorted(lines, key=key) == [line for line in promised if line.split()[1] != "1"]
    kept = [line for line in promised if line.split()[1] == "1"]
    assert kept == victim.lines()[: len(kept)] and len(victim.lines()) - len(kept) in (0, 4)
    assert set(counts_of(lines + kept).values()) == {1} and len(lines + kept) == epochs * 900


def test_a_given_up_rank_is_not_attached_again(ringfeed, run_name, make):
    made = make.raw(n=400)
    order = ("--world-size", 2, "--batch", 4, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--on-dead-rank", "redistribute")
    victim = Trainer(ringfeed, run_name, 1, "--step-ms", 5)
    until(lambda: victim.lines())
    victim.run.send(signal.SIGKILL)
    victim.run.wait()
    until(lambda: "go to the 1 other" in serve.stderr)
    ringfeed.fails("attach", run_name, "--rank", 1, says=["given up", "rank 1"])
    last = Trainer(ringfeed, run_name, 0, "--step-ms", 2)
    until(lambda: last.lines())
    last.run.send(signal.SIGKILL)  # the last rank is waited for
    last.run.wait()
    until(lambda: "no other rank is left" in serve.stderr)
    Trainer(ringfeed, run_name, 0, ids=last.ids).ok()
    assert serve.wait() == 0


def test_a_goodbye_is_no_death(ringfeed, run_name, make):
    made = make.raw(n=200)
    order = ("--world-size", 2, "--batch", 4, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--on-dead-rank", "redistribute")
    first = Trainer(ringfeed, run_name, 1, "--limit", 5)
    first.ok()
    rest = [Trainer(ringfeed, run_name, 0), Trainer(ringfeed, run_name, 1, ids=first.ids)]
    for t in rest:
        t.ok()
    assert serve.wait() == 0 and "trainer of rank" not in serve.stderr
    lines = sorted((line for t in rest for line in t.lines()), key=key)
    assert lines == order_lines(ringfeed, made.path, *order)


def test_who_is_waited_for_at_the_end_of_an_epoch(ringfeed, run_name, make):
    made = make.raw(n=80)
    ringfeed.serve(made.path, run_name, "--world-size", 2, "--batch", 4, "--epochs", 2, "--on-dead-rank", "redistribute",
                   *made.args)
    done = ringfeed("attach", run_name, "--rank", 0, "--timeout-ms", 300)
    assert done.returncode == 1 and "waits for rank 1" in done.stderr and "300 ms" in done.stderr


def test_a_rank_behind_its_last_epoch_stays_there_when_resumed(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=80)
    file = tmp_path / "log.json"
    order = ("--world-size", 2, "--batch", 4, "--epochs", 2, "--strategy", "adaptive", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file)
    first = Trainer(ringfeed, run_name, 0)
    second = Trainer(ringfeed, run_name, 1, "--limit", 17)
    second.ok()
    first.ok()
    serve.send(signal.SIGKILL)
    serve.wait()
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file, "--resume", "auto")
    for t in (Trainer(ringfeed, run_name, 0, ids=first.ids), Trainer(ringfeed, run_name, 1, ids=second.ids)):
        t.ok()
    assert serve.wait() == 0
    lines = first.lines() + second.lines()
    assert set(counts_of(lines).values()) == {1} and len(lines) == 2 * 80 and {l.split()[0] for l in lines} == {"0", "1"}

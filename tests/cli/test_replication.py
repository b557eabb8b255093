"""--replication K: a primary and standbys for every rank."""

import os
import shutil
import signal

import pytest

from conftest import wait_gone
from delivery import NO_LEAKS, Trainer, order_lines
from test_kill import until


@pytest.fixture(autouse=True)
def two_cores():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two copies need two cores; there is one here")


def test_what_cannot_be_is_refused_and_the_rest_is_shown(ringfeed, run_name, make):
    made = make.raw(n=50)
    for verb in (("plan", made.path), ("serve", made.path, "--name", run_name)):
        ringfeed.fails(*verb, *made.args, "--workers", 2, "--replication", 3, status=2, says="replication 3 needs 3 workers")
    ranks = ringfeed.json("plan", made.path, *made.args, "--ranks", 2, "--workers", 2, "--replication", 2)["ranks"]
    assert [(r["primary"], r["standbys"]) for r in ranks] in ([(0, "1"), (1, "0")], [(1, "0"), (0, "1")])
    assert "primary" not in ringfeed.json("plan", made.path, *made.args, "--workers", 2)["ranks"][0]


def test_only_primary_and_standbys_read_and_one_takes_over_at_once(ringfeed, run_name, make):
    """The primary is killed and never started again: its claimed batches and all later ones are the standby's."""
    made = make.files(n=300, sizes=(0, 30000))
    order = ("--batch", 3, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--epochs", 0, "--workers", 3, "--replication", 2,
                           "--max-restarts", 0, env=NO_LEAKS)
    stat = ringfeed.json("stat", run_name)
    primary, standby = stat["ranks"][0]["primary"], int(stat["ranks"][0]["standbys"])
    (other,) = {0, 1, 2} - {primary, standby}
    trainer = Trainer(ringfeed, run_name, 0, "--step-ms", 5)
    until(lambda: len(trainer.lines()) > 30)
    pid = ringfeed.json("stat", run_name)["workers"][primary]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid, 10)
    until(lambda: ringfeed.json("stat", run_name)["workers"][primary]["status"] == "failed")
    before = ringfeed.json("stat", run_name)["workers"]
    until(lambda: ringfeed.json("stat", run_name)["workers"][standby]["samples"] > before[standby]["samples"])
    assert ringfeed.json("stat", run_name)["workers"][other]["samples"] == 0
    # With the standby gone as well, whoever is left reads.
    os.kill(before[standby]["pid"], signal.SIGKILL)
    until(lambda: ringfeed.json("stat", run_name)["workers"][other]["samples"] > 30)
    trainer.run.send(signal.SIGKILL)
    trainer.run.wait()
    assert "any worker reads for it now" in serve.stderr
    lines = trainer.lines()
    assert lines == order_lines(ringfeed, made.path, *order, "--epochs", 1 + int(lines[-1].split()[0]))[: len(lines)]
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


def test_a_whole_run_with_standbys_while_primaries_die(ringfeed, run_name, make):
    made = make.files(n=300, sizes=(0, 20000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2, "--replication", 2)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 40) for rank in range(2)]
    for _ in range(3):
        workers = ringfeed.json("stat", run_name)["workers"]
        victim = workers[0]["pid"] or workers[1]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_gone(victim, 10)
        until(lambda: victim not in [w["pid"] for w in ringfeed.json("stat", run_name)["workers"]])
    for t in run:
        t.ok()
    assert serve.wait() == 0
    assert sorted(line for t in run for line in t.lines()) == sorted(order_lines(ringfeed, made.path, *order))


def test_more_copies_asked_for_than_named_is_refused(ringfeed, run_name, make, tmp_path):
    made = make.files(n=5)
    copy = tmp_path / "copy"
    shutil.copytree(made.path, copy)
    ringfeed.fails("serve", made.path, "--name", run_name, "--workers", 3, "--replication", 3, "--mirror", copy, status=2,
                   says=["--replication 3", "there are 2"])

"""Deaths and stops: of the parent, of trainers, of workers; signals at random instants. The storm of worker kills
is tests/multi/storm.py."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from conftest import shm_objects, wait_gone
from delivery import NO_LEAKS, Trainer, deliver, order_lines, verify_ok

SLACK = 1.5  # seconds: the budgets are 50 and 100 ms; the machine may be busy


def workers_of(serve):
    try:
        return [int(p) for p in pathlib.Path(f"/proc/{serve.pid}/task/{serve.pid}/children").read_text().split()]
    except FileNotFoundError:  # it has ended
        return []


def until(condition, seconds=30):
    """Waits for a condition that another process brings about; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition did not come"
        os.sched_yield()


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_killed_worker_is_replaced_and_nothing_is_lost(ringfeed, run_name, make):
    made = make.files(n=200, sizes=(0, 40000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2)
    first = workers_of(serve)
    assert len(first) == 2
    for i in range(5):
        victim = workers_of(serve)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len([w for w in workers_of(serve) if w != victim]) == 2)
        stat = ringfeed.json("stat", run_name)
        assert stat["restarts"] == i + 1 and sum(w["incarnation"] for w in stat["workers"]) == 2 + i + 1
    run = [Trainer(ringfeed, run_name, rank) for rank in range(2)]
    for t in run:
        t.ok()
    assert serve.wait() == 0
    assert serve.stderr.count("was killed by signal 9; its batches are read again") == 5
    lines = [line for t in run for line in t.lines()]
    wanted = order_lines(ringfeed, made.path, *order)
    assert sorted(lines) == sorted(wanted)


def test_max_restarts_ends_the_run_with_a_message(ringfeed, run_name, make):
    """No trainer, so no batch after the first ones: deaths in a row without a published batch."""
    made = make.raw(n=50)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--workers", 1, "--max-restarts", 3, env=NO_LEAKS)
    trainer = Trainer(ringfeed, run_name, 0, "--limit", 1)
    trainer.ok()
    until(lambda: (rank := ringfeed.json("stat", run_name)["ranks"][0])["ready"] == rank["depth"])
    seen = set()

    def killed_or_over():
        for pid in set(workers_of(serve)) - seen:
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid, 10)
        return serve.process.poll() is not None

    until(killed_or_over)
    assert serve.wait() == 1
    assert "--max-restarts 3" in serve.stderr and len(seen) == 4
    assert not [name for name in shm_objects() if run_name in name]


def test_a_stopped_worker_is_named_and_goes_on(ringfeed, run_name, make, tmp_path):
    """The trainer's patience is shorter than the heartbeat's limit: the time-out says who is waited for."""
    made = make.raw(n=60)
    order = ("--batch", 2, "--shuffle", "full", "--epochs", 2, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 1, "--heartbeat-ms", 3600000)
    (worker,) = workers_of(serve)
    os.kill(worker, signal.SIGSTOP)
    ids = tmp_path / "ids"
    done = ringfeed("attach", run_name, "--rank", 0, "--ids", ids, "--check", "--timeout-ms", 300)
    assert done.returncode == 1
    assert "within 300 ms" in done.stderr and run_name in done.stderr
    os.kill(worker, signal.SIGCONT)
    ringfeed.ok("attach", run_name, "--rank", 0, "--ids", ids, "--check")
    assert serve.wait() == 0 and "killed" not in serve.stderr
    assert ids.read_text().splitlines() == order_lines(ringfeed, made.path, *order)


def test_a_stopped_worker_is_fenced_and_the_run_goes_on_by_itself(ringfeed, run_name, make):
    made = make.files(n=400, sizes=(0, 40000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", "--epochs", 4, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2, "--heartbeat-ms", 200)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 10) for rank in range(2)]
    stopped = 0
    while stopped < 3:
        victim = workers_of(serve)[-1]
        os.kill(victim, signal.SIGSTOP)
        stopped += 1
        began = time.monotonic()
        wait_gone(victim, 10)
        assert 0.15 < time.monotonic() - began < 5, "not within the limit"
        until(lambda: len([w for w in workers_of(serve) if w != victim]) == 2 or serve.process.poll() is not None)
    for t in run:
        t.ok()
    assert serve.wait() == 0
    assert serve.stderr.count("stopped, in an endless loop") == 3, serve.stderr
    lines = [line for t in run for line in t.lines()]
    assert sorted(lines) == sorted(order_lines(ringfeed, made.path, *order))


def test_workers_of_a_crowded_machine_are_left_alone(ringfeed, run_name, make):
    """More runnable processes than CPUs, and the workers come last: silent for want of a CPU, but they do not hang."""
    made = make.raw(n=600, record_bytes=512)
    order = ("--ranks", 2, "--batch", 8, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2, "--heartbeat-ms", 60)
    until(lambda: [w["status"] for w in ringfeed.json("stat", run_name)["workers"]] == ["idle", "idle"])
    started = len(serve.stderr)
    cpu = min(os.sched_getaffinity(0))
    hogs = [subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile True: pass"])
            for _ in range(12)]
    try:
        for pid in workers_of(serve):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setaffinity(pid, [cpu])
        until(lambda: max(w["heartbeat_ms"] for w in ringfeed.json("stat", run_name)["workers"]) > 80)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    for t in [Trainer(ringfeed, run_name, rank) for rank in range(2)]:
        t.ok()
    assert serve.wait() == 0 and "hangs" not in serve.stderr[started:], serve.stderr


def test_a_waiting_trainer_is_told_when_no_worker_is_left(ringfeed, run_name, make):
    made = make.raw(n=50)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--workers", 1, "--max-restarts", 0, "--epochs", 0, env=NO_LEAKS)
    (worker,) = workers_of(serve)
    os.kill(worker, signal.SIGSTOP)
    trainer = Trainer(ringfeed, run_name, 0)
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["pid"])
    os.kill(worker, signal.SIGKILL)
    assert trainer.run.wait() == 1 and serve.wait() == 1
    assert "every worker died" in trainer.run.stderr and "none is left" in trainer.run.stderr


def test_the_rest_carry_the_load_when_a_worker_is_given_up(ringfeed, run_name, make):
    made = make.files(n=300, sizes=(0, 20000))
    order = ("--ranks", 2, "--batch", 3, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2, "--max-restarts", 0, env=NO_LEAKS)
    os.kill(workers_of(serve)[0], signal.SIGKILL)
    until(lambda: "failed" in [w["status"] for w in ringfeed.json("stat", run_name)["workers"]])
    run = [Trainer(ringfeed, run_name, rank) for rank in range(2)]
    for t in run:
        t.ok()
    assert serve.wait() == 0 and "is not started again" in serve.stderr
    assert sorted(line for t in run for line in t.lines()) == sorted(order_lines(ringfeed, made.path, *order))


def test_a_killed_trainer_is_followed_at_the_first_unreleased_batch(ringfeed, run_name, make, tmp_path):
    made = make.files(n=300, sizes=(0, 3000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", "--epochs", 2, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2)
    ids = [tmp_path / "ids-0", tmp_path / "ids-1"]
    rng, kills = random.Random(5), 0
    for rank in (0, 1):
        for _ in range(12):
            trainer = Trainer(ringfeed, run_name, rank, "--step-ms", 1, ids=ids[rank])
            before = ids[rank].stat().st_size if ids[rank].exists() else 0
            until(lambda: ids[rank].exists() and ids[rank].stat().st_size > before or trainer.run.process.poll() is not None)
            time.sleep(rng.random() * 0.01)
            trainer.run.send(signal.SIGKILL)
            kills += trainer.run.wait() == -signal.SIGKILL
        Trainer(ringfeed, run_name, rank, ids=ids[rank]).ok()
    assert serve.wait() == 0 and kills >= 20
    wanted = order_lines(ringfeed, made.path, *order)
    for rank in (0, 1):
        lines = ids[rank].read_text().splitlines()
        assert list(dict.fromkeys(lines)) == [w for w in wanted if int(w.split()[1]) == rank]
    verify_ok(ringfeed, made.path, ids, *order)


def test_a_rank_that_a_killed_trainer_held_is_free_at_once(ringfeed, run_name, make):
    """Also when the next one asks while the parent is being told of the death."""
    made = make.raw(n=2000)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--epochs", 0)
    for _ in range(40):
        trainer = Trainer(ringfeed, run_name, 0)
        until(lambda: trainer.lines())
        trainer.run.send(signal.SIGKILL)
        trainer.run.wait()
        summary = ringfeed.json("attach", run_name, "--rank", 0, "--limit", 1)
        assert summary["batches"] == 1
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


def test_the_parents_death_is_told_to_trainers_and_workers(ringfeed, run_name, make):
    made = make.raw(n=1000)
    order = ("--ranks", 3, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--epochs", 0, "--workers", 3)
    workers = workers_of(serve)
    assert len(workers) == 3
    # Stopped in its first instant, before it could ask to die with its parent, a worker would stay stopped.
    until(lambda: all(pathlib.Path(f"/proc/{pid}/comm").read_text() == "ringfeed-worker\n" for pid in workers))
    for pid in workers:  # so that rank 0 has to wait for a batch
        os.kill(pid, signal.SIGSTOP)
    run = [Trainer(ringfeed, run_name, 0), Trainer(ringfeed, run_name, 1, "--step-ms", 1), Trainer(ringfeed, run_name, 2)]
    until(lambda: all(r["status"] != "unknown" for r in ringfeed.json("stat", run_name)["ranks"]))
    started = time.monotonic()
    serve.send(signal.SIGKILL)
    for pid in workers:
        wait_gone(pid, 10)
    assert time.monotonic() - started < SLACK and not any(alive(pid) for pid in workers)
    for t in run:
        assert t.run.wait(10) == 1
        assert f"the server of run '{run_name}' (process {serve.pid}) died" in t.run.stderr
    assert time.monotonic() - started < SLACK
    serve.wait()
    (entry,) = [r for r in ringfeed.json("ls")["runs"] if r["name"] == run_name]
    assert entry["owner"] == "dead" and entry["pid"] == serve.pid
    assert ringfeed.json("stat", run_name)["state"] == "dead"
    ringfeed.fails("attach", run_name, "--rank", 0, "--timeout-ms", 100, says=[run_name, "is dead", "gc"])
    lines, _ = deliver(ringfeed, made.path, run_name, range(3), *order)  # the name at once
    assert lines == order_lines(ringfeed, made.path, *order)


def test_gc_removes_the_dead_and_spares_the_living(ringfeed, new_name, make):
    made = make.raw(n=100)
    living, dead = new_name(), new_name()
    serves = {name: ringfeed.serve(made.path, name, *made.args) for name in (living, dead)}
    serves[dead].send(signal.SIGKILL)
    serves[dead].wait()
    removed = ringfeed.json("gc")["removed"]
    assert dead in [r["name"] for r in removed] and living not in [r["name"] for r in removed]
    assert [r["bytes"] > 0 for r in removed if r["name"] == dead] == [True]
    names = {r["name"]: r["owner"] for r in ringfeed.json("ls")["runs"]}
    assert names.get(living) == "alive" and dead not in names
    ringfeed.ok("attach", living, "--rank", 0)
    assert serves[living].wait() == 0


def test_a_dead_run_whose_trainer_still_reads_can_be_replaced(ringfeed, run_name, make):
    """Batches taken stay valid in the old mapping: old pages are never reused."""
    made = make.raw(n=100, record_bytes=4096)
    order = ("--batch", 4, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order)
    slow = Trainer(ringfeed, run_name, 0, "--step-ms", 400, "--limit", 2)
    until(lambda: sum(ringfeed.json("stat", run_name)["ranks"][0][word] for word in ("prefetch_hits", "prefetch_misses")))
    serve.send(signal.SIGKILL)
    serve.wait()
    lines, _ = deliver(ringfeed, made.path, run_name, [0], *order, "--shuffle", "full")
    assert len(lines) == 100
    assert slow.run.wait() == 1 and "died" in slow.run.stderr and "check:" not in slow.run.stderr


def catches(pid, number):
    """Whether the process handles or blocks the signal: before that, any signal is the loader's and libc's."""
    masks = {"SigCgt": 0, "SigBlk": 0}
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            word, _, value = line.partition(":")
            if word in masks:
                masks[word] = int(value, 16)
    except OSError:
        return True
    return any(mask >> (number - 1) & 1 for mask in masks.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_instant_ends_serve_cleanly(ringfeed, new_name, make, number):
    """From the first instant at which the command can know of it: while scanning, making the segment, starting
    workers, serving."""
    made = make.files(n=300, sizes=(0, 2000))
    rng = random.Random(int(number))
    for i in range(30):
        name = new_name()
        serve = ringfeed.start("serve", made.path, "--name", name, "--ranks", 2, "--epochs", 0, "--workers", 2)
        until(lambda: catches(serve.pid, number))
        trainer = Trainer(ringfeed, name, 0) if i % 3 == 0 else None
        time.sleep(rng.random() * 0.03)
        serve.send(number)
        if i % 2:
            serve.send(number)
        assert serve.wait(20) == 0, serve.stderr
        assert not [o for o in shm_objects() if name in o]
        if trainer:
            trainer.run.send(signal.SIGTERM)
            assert trainer.run.wait(20) in (1, -signal.SIGTERM)


def test_a_second_signal_does_not_wait_for_a_stuck_worker(ringfeed, new_name, make):
    """Without the second signal the end takes 2.5 s at least. On a crowded machine one try may be slow: one that is not
    is proof enough, since a serve that waits is quick in none."""
    made = make.raw(n=100)
    took = []
    while len(took) < 8 and not (took and min(took) < 2.4):
        name = new_name()
        serve = ringfeed.serve(made.path, name, *made.args, "--workers", 1)
        (worker,) = workers_of(serve)
        os.kill(worker, signal.SIGSTOP)
        started = time.monotonic()
        serve.send(signal.SIGTERM)
        until(lambda: serve.process.poll() is not None or "stopping" in ringfeed("stat", name, "--json").stdout)  # noqa: B023
        serve.send(signal.SIGINT)
        assert serve.wait(60) == 0
        took.append(time.monotonic() - started)
        assert not alive(worker)
    assert min(took) < 2.4, took


def test_a_clean_stop_is_told_to_trainers(ringfeed, run_name, make):
    made = make.raw(n=100)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--epochs", 0)
    trainer = Trainer(ringfeed, run_name, 0, "--step-ms", 1)
    until(lambda: trainer.lines())
    serve.send(signal.SIGINT)
    assert serve.wait(20) == 0
    assert trainer.run.wait(20) == 1
    assert "was stopped" in trainer.run.stderr and str(serve.pid) in trainer.run.stderr
    summary = json.loads(trainer.run.stdout)
    assert summary["samples"] == len(trainer.lines()) and summary["check_errors"] == 0


def test_deaths_leave_nothing_behind_in_the_parent(ringfeed, run_name, make):
    """Descriptors, memory, processes and objects are the same after 40 deaths of workers and 12 of trainers."""
    made = make.files(n=60, sizes=(0, 20000))
    serve = ringfeed.serve(made.path, run_name, "--ranks", 2, "--batch", 1, "--epochs", 0, "--workers", 2)
    busy = Trainer(ringfeed, run_name, 1, "--step-ms", 1)  # so that workers publish and are started again at once

    def restarted(n):
        return lambda: ringfeed.json("stat", run_name)["restarts"] == n and len(workers_of(serve)) == 2

    def resources():
        fds = sorted(os.readlink(f"/proc/{serve.pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{serve.pid}/fd"))
        rollup = pathlib.Path(f"/proc/{serve.pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_Dirty"))
        return fds, private, len(workers_of(serve)), [name for name in shm_objects() if run_name in name]

    def hit(n_workers, n_trainers, so_far):
        for i in range(n_workers):
            os.kill(workers_of(serve)[i % 2], signal.SIGKILL)
            until(restarted(so_far + i + 1))
        for _ in range(n_trainers):
            trainer = Trainer(ringfeed, run_name, 0)
            until(lambda: trainer.lines())
            trainer.run.send(signal.SIGKILL)
            trainer.run.wait()
        until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["pid"] == 0)

    until(lambda: busy.lines())
    hit(5, 2, 0)  # what is allocated once is there now
    before = resources()
    hit(40, 12, 5)
    until(lambda: resources()[0] == before[0], 10)
    after = resources()
    assert after[2:] == before[2:]
    assert after[1] <= before[1] + 1024, f"{before[1]} kB private before, {after[1]} after"
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0

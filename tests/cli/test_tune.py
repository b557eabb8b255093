"""Tuning while reading: what options pin, what `stat` shows, the CPU budget, and that nothing of it touches the order."""

import os
import pathlib
import random
import signal
import time

import pytest

from delivery import NO_LEAKS, Trainer, kill_children, order_lines, trainers
from test_kill import until, workers_of

TICKS = os.sysconf("SC_CLK_TCK")
CORES = len(os.sched_getaffinity(0))


def cpu_seconds(serve):
    """Of the server and its workers, those included that were reaped: the kernel's own account."""
    total = 0
    for pid in [serve.pid] + workers_of(serve):
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(f) for f in fields[11 : 15 if pid == serve.pid else 13])
    return total / TICKS


def test_options_pin_and_stat_tells(ringfeed, run_name, make):
    made = make.raw(n=64)
    pinned = ringfeed.serve(made.path, run_name, *made.args, "--workers", 3, "--queue-depth", 5, "--cpu-budget", 40)
    stat = until(lambda: (lambda s: s["active_workers"] and s)(ringfeed.json("stat", run_name)))
    assert stat["active_workers"] == 3 and stat["cpu_budget"] == 40 and stat["cpu_cores"] >= 0
    assert [w["queue_depth"] for w in stat["workers"]] == [5] * 3
    assert all(w["resting"] in (True, False) and w["latency_us_p50"] >= 0 for w in stat["workers"])
    ringfeed.ok("attach", run_name, "--rank", 0)
    assert pinned.wait() == 0
    chosen = ringfeed.serve(made.path, run_name, *made.args)
    stat = until(lambda: (lambda s: s["active_workers"] and s)(ringfeed.json("stat", run_name)))
    assert stat["cpu_budget"] == 100 and 1 <= stat["active_workers"] <= len(stat["workers"])
    assert {w["queue_depth"] for w in stat["workers"]} == {64}
    ringfeed.ok("attach", run_name, "--rank", 0)
    assert chosen.wait() == 0


def test_what_a_ring_may_grow_to(ringfeed, make):
    made = make.raw(n=4096, record_bytes=2048)
    big = make.raw(n=40, record_bytes=3 << 20)

    def plan(made, *args):
        p = ringfeed.json("plan", made.path, *made.args, *args)
        return p["reading"]["prefetch"], p["reading"]["prefetch_most"], p["memory"]

    first, most, memory = plan(made, "--batch", 16, "--ranks", 2)
    assert (first, most, memory["arena_bytes"], memory["arena_bytes_most"]) == (4, 64, 131072, 2 << 20)
    assert memory["spare_bytes"] >= 2 * (memory["arena_bytes_most"] - memory["arena_bytes"])
    for pinned in (("--prefetch", 4), ("--ring-bytes", 131072), ("--shuffle", "block")):
        first, most, memory = plan(made, "--batch", 16, *pinned)
        assert first == most and memory["arena_bytes"] == memory["arena_bytes_most"]
    all_memory = sum(n["memory_bytes"] for n in ringfeed.json("plan", made.path, *made.args)["nodes"])
    first, most, memory = plan(big, "--batch", 4, "--ranks", 4)
    assert first == 4 and 4 * memory["arena_bytes_most"] <= max(192 << 20, all_memory // 256)
    first, most, memory = plan(big, "--batch", 8, "--ranks", 4)  # 64 MiB are less than four batches: up to those a larger part
    may = 4 * 2 * memory["arena_bytes"] <= max(192 << 20, all_memory // 16)
    assert memory["arena_bytes"] == 64 << 20 and memory["arena_bytes_most"] == (1 + may) * memory["arena_bytes"]
    descriptions = [plan(made, "--batch", batch)[1] * batch * 24 for batch in (1, 64, 4096)]  # what a sample takes at least
    assert max(descriptions) <= max(1 << 20, memory["arena_bytes_most"])


@pytest.mark.parametrize("value", ["0", "101", "-1", "half"])
def test_a_budget_that_means_nothing_is_refused(ringfeed, run_name, make, value):
    made = make.raw(n=8)
    run = ringfeed("serve", made.path, "--name", run_name, *made.args, "--cpu-budget", value)
    assert run.returncode == 2 and "--cpu-budget" in run.stderr


@pytest.mark.parametrize("engine", [("auto", "off"), ("uring", "on"), ("pread", "off")])
def test_the_order_is_exact_while_everything_changes_and_workers_die(ringfeed, run_name, make, engine):
    """Who is active and how many reads may be in flight change at random every few milliseconds (in builds with fail points;
    in others only the deaths happen)."""
    made = make.files(n=240, sizes=(0, 40000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", "--epochs", 6, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 4, "--engine", engine[0], "--direct", engine[1],
                           "--heartbeat-ms", 5000, env={"RINGFEED_TUNE_STORM": "1", **NO_LEAKS})
    run = trainers(ringfeed, run_name, range(2), "--step-ms", 2)
    if ringfeed(env={"RINGFEED_FAIL_POINTS": "list"}).returncode == 0:  # this build can be made to change
        until(lambda: any(w["resting"] for w in ringfeed.json("stat", run_name)["workers"]))
        assert len({ringfeed.json("stat", run_name)["workers"][0]["queue_depth"] for _ in range(5)}) > 1
    kills = kill_children(serve, run, random.Random(5), 0.2, lambda: 0.03, most=40)
    for t in run:
        t.ok()
    assert serve.wait() == 0 and kills > 0
    lines = [line for t in run for line in t.lines()]
    assert sorted(lines) == sorted(order_lines(ringfeed, made.path, *order))


def test_the_budget_holds_and_costs_no_sample(ringfeed, run_name, make):
    """One worker alone would use a whole core here."""
    made = make.raw(n=4096)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--batch", 4, "--epochs", 0, "--workers", 2,
                           "--cpu-budget", 10)
    trainer = Trainer(ringfeed, run_name, 0)
    until(lambda: trainer.lines())
    before, began = cpu_seconds(serve), time.monotonic()
    time.sleep(2)  # the length of the run that is measured
    used, passed = cpu_seconds(serve) - before, time.monotonic() - began
    stat = ringfeed.json("stat", run_name)
    allowed = 0.10 * CORES * passed
    assert used <= 1.5 * allowed + 0.1, f"{used:.2f} s in {passed:.2f} s, {allowed:.2f} are allowed"
    assert used > allowed / 4, "nothing held it back: the test shows nothing"
    assert stat["restarts"] == stat["fenced"] == 0
    assert {w["status"] for w in stat["workers"]} <= {"active", "idle", "slow"}  # slow: a machine that is busy otherwise
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
    trainer.run.wait(30)
    lines = trainer.lines()
    epochs = 1 + len(lines) // 4096
    assert lines == order_lines(ringfeed, made.path, *made.args, "--batch", 4, "--epochs", epochs)[: len(lines)]

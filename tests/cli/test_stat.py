"""`stat`, `ls` and `gc`: every field that is promised, with values that are known beforehand."""

import os
import signal

import pytest

from delivery import Trainer
from test_kill import until, workers_of

TOP = set("name state dataset world_size first_rank epoch restarts rebalances errors substituted ranks workers".split())
DATASET = set("format files samples bytes fingerprint".split())
RANK = set(
    "rank status pid epoch batch samples bytes samples_per_s bytes_per_s prefetch_hits prefetch_misses wait_us_p50 "
    "wait_us_p99 depth ready local_samples remote_samples checkpoints node".split()
)
WORKER = set(
    "worker pid status incarnation node cpu heartbeat_ms samples bytes samples_per_s reads utilization "
    "avg_load_time_us".split()
)
WORDS = {"active", "idle", "slow", "failed", "unknown"}


def check_shape(stat):
    assert TOP <= set(stat) and DATASET <= set(stat["dataset"])
    for rank in stat["ranks"]:
        assert RANK <= set(rank) and rank["status"] in WORDS and 0 <= rank["ready"] <= rank["depth"]
    for worker in stat["workers"]:
        assert WORKER <= set(worker) and worker["status"] in WORDS and 0 <= worker["utilization"] <= 1


@pytest.mark.parametrize("engine", [("uring", "off"), ("uring", "on"), ("pread", "off")])
def test_counts_are_those_of_the_run(ringfeed, run_name, make, engine):
    made = make.webdataset(n=120, shards=2)
    inspected = ringfeed.json("inspect", made.path)
    serve = ringfeed.serve(made.path, run_name, "--ranks", 3, "--batch", 4, "--epochs", 2, "--workers", 2, "--engine",
                           engine[0], "--direct", engine[1])
    fresh = ringfeed.json("stat", run_name)
    check_shape(fresh)
    assert fresh["state"] == "ready" and fresh["pid"] == serve.pid
    assert [r["status"] for r in fresh["ranks"]] == ["unknown"] * 3 and [r["pid"] for r in fresh["ranks"]] == [0] * 3
    assert {w["pid"] for w in fresh["workers"]} == set(workers_of(serve))
    # Two ranks to the end, one for 5 of its 20 batches: the run goes on and can be looked at.
    done = [Trainer(ringfeed, run_name, 0), Trainer(ringfeed, run_name, 1), Trainer(ringfeed, run_name, 2, "--limit", 5)]
    summaries = [t.ok() for t in done]
    stat = ringfeed.json("stat", run_name)
    check_shape(stat)
    assert (stat["name"], stat["world_size"], stat["first_rank"]) == (run_name, 3, 0)
    assert {k: stat["dataset"][k] for k in DATASET} == {k: inspected[k] for k in DATASET}
    assert stat["restarts"] == stat["rebalances"] == stat["errors"] == stat["substituted"] == 0
    sizes = [len(s.data) for s in made.samples]
    for rank, (now, summary, t) in enumerate(zip(stat["ranks"], summaries, done)):
        ids = [int(line.split()[4]) for line in t.lines()]
        assert now["rank"] == rank and now["samples"] == len(ids) == summary["samples"]
        assert now["bytes"] == sum(sizes[i] for i in ids) == summary["bytes"]
        assert now["prefetch_hits"] + now["prefetch_misses"] == len(ids)
        assert summary["prefetch_hit_rate"] == pytest.approx(now["prefetch_hits"] / len(ids), abs=1e-3)
        assert now["wait_us_p50"] <= now["wait_us_p99"]
        assert now["depth"] == 4 and now["pid"] == 0 and now["checkpoints"] == 0
        assert now["node"] >= 0
    assert [(r["epoch"], r["batch"]) for r in stat["ranks"]] == [(2, 0), (2, 0), (0, 5)] and stat["epoch"] == 0
    # Published: everything of two ranks, and of the third what was taken and what lies ready.
    ready = until(lambda: (lambda s: s["ranks"][2]["ready"] == 4 and s)(ringfeed.json("stat", run_name)))
    published = [r["local_samples"] + r["remote_samples"] for r in ready["ranks"]]
    assert published == [80, 80, 5 * 4 + 4 * 4]
    assert sum(w["samples"] for w in ready["workers"]) == sum(published)
    assert sum(w["bytes"] for w in ready["workers"]) > 0 and sum(w["reads"] for w in ready["workers"]) > 0
    for w in ready["workers"]:
        assert w["incarnation"] == 1 and w["node"] >= 0
        assert (w["avg_load_time_us"] > 0) == (w["samples"] > 0)
    ringfeed.ok("attach", run_name, "--rank", 2)
    assert serve.wait() == 0


def test_status_words_follow_what_happens(ringfeed, run_name, make):
    made = make.raw(n=300)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--epochs", 0, "--workers", 2, "--heartbeat-ms", 200,
                           "--pin", "off")

    def ranks_and_workers():
        stat = ringfeed.json("stat", run_name)
        check_shape(stat)
        return stat["ranks"][0], stat["workers"]

    until(lambda: [w["status"] for w in ranks_and_workers()[1]] == ["idle", "idle"])
    assert [w["cpu"] for w in ranks_and_workers()[1]] == [-1, -1]
    trainer = Trainer(ringfeed, run_name, 0, "--step-ms", 1)
    until(lambda: ranks_and_workers()[0]["status"] == "active")
    assert ranks_and_workers()[0]["pid"] == trainer.run.pid
    until(lambda: any(w["status"] == "active" for w in ranks_and_workers()[1]))
    until(lambda: ranks_and_workers()[0]["samples_per_s"] > 0 and ranks_and_workers()[0]["bytes_per_s"] > 0)
    until(lambda: any(w["samples_per_s"] > 0 for w in ranks_and_workers()[1]))
    trainer.run.send(signal.SIGSTOP)
    until(lambda: ranks_and_workers()[0]["status"] == "idle")
    trainer.run.send(signal.SIGKILL)
    trainer.run.wait()
    until(lambda: ranks_and_workers()[0]["status"] == "failed")
    victim = workers_of(serve)[0]
    os.kill(victim, signal.SIGSTOP)
    # Slow, then fenced; too short to be sure to see it, but history has it.
    until(lambda: "slow" in [h["status"] for h in ringfeed.json("stat", run_name, "--history")["history"]
                             if h["party"] == "worker"])
    until(lambda: sum(w["incarnation"] for w in ranks_and_workers()[1]) == 3)  # fenced at the limit
    assert ringfeed.json("stat", run_name)["restarts"] == 1
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


def test_the_history_tells_what_became_of_ranks_and_workers(ringfeed, run_name, make):
    made = make.raw(n=300)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--epochs", 0, "--workers", 2)
    trainer = Trainer(ringfeed, run_name, 0, "--step-ms", 1)
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["status"] == "active")
    trainer.run.send(signal.SIGKILL)
    trainer.run.wait()
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["status"] == "failed")
    assert "history" not in ringfeed.json("stat", run_name)
    history = ringfeed.json("stat", run_name, "--history")["history"]
    assert {(h["party"], h["number"]) for h in history} == {("rank", 0), ("worker", 0), ("worker", 1)}
    statuses = [h["status"] for h in history if h["party"] == "rank"]
    assert statuses.index("active") < statuses.index("failed") and statuses[-1] == "failed"
    ages = [h["seconds_ago"] for h in history if h["party"] == "rank"]
    assert ages == sorted(ages, reverse=True)
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


def test_errors_are_counted_by_rank_and_run(ringfeed, run_name, make):
    made = make.files(n=40, sizes=(10, 20))
    serve = ringfeed.serve(made.path, run_name, "--batch", 1, "--prefetch", 2)
    (made.path / "00030.dat").unlink()
    assert ringfeed("attach", run_name, "--rank", 0).returncode == 1
    assert ringfeed.json("stat", run_name)["errors"] == 1
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


def test_text_shows_the_same_numbers(ringfeed, run_name, make):
    made = make.raw(n=64)
    ringfeed.serve(made.path, run_name, *made.args, "--batch", 8)
    ringfeed.ok("attach", run_name, "--rank", 0, "--limit", 3)
    text = ringfeed.ok("stat", run_name)
    assert run_name in text and "24" in text.split() and "ready" in text


def test_ls_tells_who_lives(ringfeed, new_name, make):
    made = make.raw(n=10)
    names = [new_name() for _ in range(3)]
    serves = [ringfeed.serve(made.path, name, *made.args) for name in names]
    serves[1].send(signal.SIGKILL)
    serves[1].wait()
    runs = {r["name"]: r for r in ringfeed.json("ls")["runs"]}
    assert [runs[name]["owner"] for name in names] == ["alive", "dead", "alive"]
    for name, serve in zip(names, serves):
        assert runs[name]["pid"] == serve.pid and runs[name]["ready"] and runs[name]["uid"] == os.geteuid()
        assert runs[name]["control_bytes"] + runs[name]["data_bytes"] == ringfeed.json("stat", name)["segment_bytes"]
    assert names[1] in [r["name"] for r in ringfeed.json("gc")["removed"]]
    assert names[1] not in [r["name"] for r in ringfeed.json("ls")["runs"]]
    ringfeed.fails("stat", names[1], says=["no run named", names[1]])


def test_a_rank_that_detached_is_idle_and_one_whose_trainer_was_killed_has_failed(ringfeed, run_name, make):
    made = make.webdataset(n=120, shards=1)
    ringfeed.serve(made.path, run_name, "--ranks", 2, "--batch", 4, "--workers", 1)
    Trainer(ringfeed, run_name, 0, "--limit", 3).ok()
    victim = Trainer(ringfeed, run_name, 1, "--step-ms", 200)
    until(lambda: ringfeed.json("stat", run_name)["ranks"][1]["pid"])
    os.kill(victim.run.pid, signal.SIGKILL)
    victim.run.wait()

    def words():
        return [r["status"] for r in ringfeed.json("stat", run_name)["ranks"]]

    until(lambda: words() == ["idle", "failed"])

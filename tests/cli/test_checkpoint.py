"""Checkpoints and going on from them: what all lives of a run released together is the unbroken run's order, byte
for byte (attach --check) and line for line."""

import collections
import itertools
import json
import os
import pathlib
import random
import signal
import time

import pytest

from delivery import Trainer, deliver, key, order_lines

STORM = bool(os.environ.get("RF_STORM"))
RESUMES = 200 if STORM else 40


def released_lines(path):
    """What the file's trainers released: `attach` writes lines just before it releases, so what was written by one
    that was killed may come again."""
    return path.read_text().splitlines() if path.exists() else []


def without_repeats(lines):
    """Lines in order of first arrival; an identical batch that comes again was taken and not released."""
    return list(dict.fromkeys(lines))


def kill(serve):
    serve.send(signal.SIGKILL)
    serve.wait()


class Lives:
    """One training over several lives of its server, with one file of ids a rank."""

    def __init__(self, ringfeed, made, name, tmp_path, order, world):
        self.ringfeed, self.made, self.name, self.order, self.world = ringfeed, made, name, order, world
        self.checkpoint = tmp_path / "run.json"
        self.ids = [tmp_path / f"ids-{rank}" for rank in range(world)]

    def serve(self, *args):
        return self.ringfeed.serve(
            self.made.path, self.name, *self.order, "--world-size", self.world, "--checkpoint", self.checkpoint, *args
        )

    def trainers(self, *args):
        return [Trainer(self.ringfeed, self.name, r, *args, ids=self.ids[r]) for r in range(self.world)]

    def lines(self):
        return [line for path in self.ids for line in released_lines(path)]

    def wanted(self):
        return order_lines(self.ringfeed, self.made.path, *self.order, "--world-size", self.world)


@pytest.mark.parametrize("seed", range(RESUMES // 8))
def test_killed_at_random_instants_and_resumed_is_the_unbroken_run(ringfeed, run_name, make, tmp_path, seed):
    """Everything killed eight times a test: the parent first or the trainers first, workers die with it."""
    rng = random.Random(seed)
    made = make.files(n=150, sizes=(0, 3000)) if seed % 2 else make.raw(n=300)
    shuffle = rng.choice(["none", "full", "block"])
    order = ("--batch", 3, "--shuffle", shuffle, "--seed", seed, "--epochs", 3, *made.args)
    lives = Lives(ringfeed, made, run_name, tmp_path, order, world=1 + seed % 3)
    for life in range(8):
        serve = lives.serve("--resume", "auto", "--checkpoint-every", 20, "--workers", 1 + life % 3)
        running = lives.trainers("--step-ms", 1)
        before = len(lives.lines())
        for _ in range(2000):
            if len(lives.lines()) > before + rng.randrange(60) or serve.process.poll() is not None:
                break
            time.sleep(0.001)
        victims = [t.run for t in running] + [serve]
        rng.shuffle(victims)
        for v in victims:
            v.send(signal.SIGKILL)
        for v in victims:
            v.wait()
        assert len(without_repeats(lives.lines())) <= len(lives.wanted())
    serve = lives.serve("--resume", "auto", "--workers", 2)
    for t in lives.trainers():
        t.ok()
    assert serve.wait() == 0
    for rank, path in enumerate(lives.ids):
        mine = [line for line in lives.wanted() if line.split()[1] == str(rank)]
        assert without_repeats(released_lines(path)) == mine


@pytest.mark.parametrize("before, after", itertools.permutations([1, 2, 3, 5, 8], 2))
def test_another_world_size_delivers_the_rest_exactly_once(ringfeed, new_name, make, tmp_path, before, after):
    made = make.raw(n=101)
    order = ("--batch", 4, "--shuffle", "full", "--seed", 9, "--epochs", 3, *made.args)
    name = new_name()
    first = Lives(ringfeed, made, name, tmp_path, order, before)
    serve = first.serve()
    for rank in range(before):  # each somewhere in epoch 0 or 1
        length = -(-len(range(rank, 101, before)) // 4)
        Trainer(ringfeed, name, rank, "--limit", 1 + (length + rank) % (length + 2), ids=first.ids[rank]).ok()
    kill(serve)
    saved = tmp_path / "saved.json"
    ringfeed.ok("checkpoint", name, "-o", saved)  # of the dead run
    second_dir = tmp_path / "second"
    second_dir.mkdir()
    second = Lives(ringfeed, made, name, second_dir, order, after)
    promised = ringfeed.ok("order", made.path, *order, "--world-size", after, "--resume", saved).splitlines()
    serve = second.serve("--resume", saved, "--workers", 2)
    for t in second.trainers():
        t.ok()
    assert serve.wait() == 0
    assert sorted(second.lines(), key=key) == promised
    counts = collections.defaultdict(collections.Counter)
    for line in first.lines() + second.lines():
        epoch, *_, index, flag = line.split()
        assert flag == "-"
        counts[epoch][int(index)] += 1
    assert {e: dict(c) for e, c in counts.items()} == {str(e): {i: 1 for i in range(101)} for e in range(3)}
    # later epochs are as if nothing had happened
    plain = order_lines(ringfeed, made.path, *order, "--world-size", after)
    begun = {e for e in counts if any(line.split()[0] == e for line in first.lines())}
    for line in second.lines():
        if line.split()[0] not in begun:
            assert line in plain


def test_a_chain_of_world_sizes_within_one_epoch(ringfeed, new_name, make, tmp_path):
    made = make.raw(n=500)
    order = ("--batch", 3, "--shuffle", "full", "--seed", 4, "--epochs", 2, *made.args)
    seen = collections.Counter()
    resume = ()
    for life, world in enumerate((4, 3, 7, 1, 2)):
        directory = tmp_path / str(life)
        directory.mkdir()
        name = new_name()
        lives = Lives(ringfeed, made, name, directory, order, world)
        serve = lives.serve(*resume)
        last = life == 4
        for t in lives.trainers(*(() if last else ("--limit", 5))):
            t.ok()
        if last:
            assert serve.wait() == 0
        else:
            serve.send(signal.SIGTERM)  # a clean stop writes the checkpoint
            assert serve.wait() == 0
        resume = ("--resume", lives.checkpoint)
        seen.update(tuple(line.split()[i] for i in (0, 4)) for line in lives.lines())
    assert set(seen) == {(str(e), str(i)) for e in range(2) for i in range(500)} and set(seen.values()) == {1}


@pytest.mark.parametrize("tail", ["drop", "pad", "uneven"])
@pytest.mark.parametrize("strategy", ["round-robin", "contiguous", "hash", "stratified"])
def test_strategies_and_tails_resume_exactly(ringfeed, run_name, make, tmp_path, strategy, tail):
    made = make.idx(n=97, shape=(5,))
    order = ("--batch", 4, "--shuffle", "full", "--strategy", strategy, "--tail", tail, "--epochs", 2, *made.args)
    lives = Lives(ringfeed, made, run_name, tmp_path, order, 3)
    serve = lives.serve()
    for rank, limit in enumerate((2, 9, 5)):
        Trainer(ringfeed, run_name, rank, "--limit", limit, ids=lives.ids[rank]).ok()
    kill(serve)
    serve = lives.serve("--resume", "auto")
    for t in lives.trainers():
        t.ok()
    assert serve.wait() == 0
    assert sorted(lives.lines(), key=key) == lives.wanted()


def test_several_servers_files_are_one_state(ringfeed, new_name, make, tmp_path):
    """Two servers of two ranks each, resumed as one of three ranks."""
    made = make.raw(n=200)
    order = ("--batch", 3, "--shuffle", "full", "--epochs", 2, *made.args)
    files, lines = [], []
    for server in range(2):
        name, file = new_name(), tmp_path / f"server-{server}.json"
        serve = ringfeed.serve(made.path, name, *order, "--world-size", 4, "--ranks", 2, "--first-rank", 2 * server,
                               "--checkpoint", file)
        for rank in (2 * server, 2 * server + 1):
            t = Trainer(ringfeed, name, rank, "--limit", 3 + rank)
            t.ok()
            lines += t.lines()
        serve.send(signal.SIGTERM)
        assert serve.wait() == 0
        files.append(file)
    world = ("--world-size", 3)
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, *world, "--resume", files[0], says="rank 2")
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, *world, "--resume", files[0], "--resume", files[0],
                   says="rank 0 is in two")
    more, _ = deliver(ringfeed, made.path, new_name(), range(3), *order, *world, "--resume", files[0], "--resume", files[1])
    counts = collections.Counter((line.split()[0], line.split()[4]) for line in lines + more)
    assert set(counts.values()) == {1} and len(counts) == 400


@pytest.fixture
def saved(ringfeed, run_name, make, tmp_path):
    """A dataset, its order options, and the text of two checkpoints of it at (0, 3) and (0, 5)."""
    made = make.raw(n=60)
    order = ("--batch", 2, "--shuffle", "full", "--seed", 5, *made.args)
    file = tmp_path / "state.json"
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file, "--checkpoint-every", 2)
    Trainer(ringfeed, run_name, 0, "--limit", 3).ok()
    ringfeed.ok("checkpoint", run_name, "-o", file)
    Trainer(ringfeed, run_name, 0, "--limit", 2).ok()
    ringfeed.ok("checkpoint", run_name, "-o", file)
    serve.send(signal.SIGKILL)
    serve.wait()
    ringfeed.ok("gc")
    return made, order, file


def test_what_stands_in_a_checkpoint(ringfeed, saved):
    made, order, file = saved
    state = json.loads(file.read_text())
    assert state["ringfeed_checkpoint"] == 1 and state["samples"] == 60 and len(state["checksum"]) == 16
    (stage,) = state["stages"]
    assert stage["ranks"] == [{"rank": 0, "epoch": 0, "batch": 5}]
    assert stage["seed"] == 5 and stage["shuffle"] == "full" and stage["batch"] == 2 and stage["world_size"] == 1
    assert state["fingerprint"] == ringfeed.json("inspect", made.path, *made.args)["fingerprint"]
    assert abs(state["time_s"] - time.time()) < 60
    before = json.loads(pathlib.Path(f"{file}.prev").read_text())
    assert before["stages"][0]["ranks"][0]["batch"] in (3, 5)
    assert file.stat().st_size < 2000


def test_a_cut_or_flipped_checkpoint_is_refused(ringfeed, saved, tmp_path):
    """Some of the cuts and flips; tests/unit/checkpoint does every one of them."""
    made, order, file = saved
    whole = file.read_bytes()
    bad = tmp_path / "bad.json"
    for at in range(0, len(whole), 1 if STORM else 97):
        bad.write_bytes(whole[:at])
        ringfeed.fails("order", made.path, *order, "--resume", bad, says=str(bad))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        bad.write_bytes(flipped)
        ringfeed.fails("order", made.path, *order, "--resume", bad, says=str(bad))
    bad.write_bytes(whole + b"\n")
    ringfeed.fails("order", made.path, *order, "--resume", bad, says=str(bad))
    bad.write_bytes(whole)
    left = ringfeed.ok("order", made.path, *order, "--resume", bad).splitlines()
    assert left == order_lines(ringfeed, made.path, *order)[10:]


def test_auto_takes_the_one_before_a_damaged_file(ringfeed, saved, new_name):
    made, order, file = saved
    previous = pathlib.Path(f"{file}.prev")
    at = json.loads(previous.read_text())["stages"][0]["ranks"][0]["batch"]
    file.write_bytes(file.read_bytes()[:-30])
    name = new_name()
    serve = ringfeed.serve(made.path, name, *order, "--checkpoint", file, "--resume", "auto")
    t = Trainer(ringfeed, name, 0)
    t.ok()
    assert serve.wait() == 0 and "damaged" in serve.stderr
    assert t.lines() == order_lines(ringfeed, made.path, *order)[2 * at :]


def test_auto_with_both_files_damaged_is_refused(ringfeed, saved, new_name):
    made, order, file = saved
    for path in (file, pathlib.Path(f"{file}.prev")):
        path.write_bytes(path.read_bytes()[:-30])
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, "--checkpoint", file, "--resume", "auto",
                   says=[str(file), "damaged"])


def test_auto_with_nothing_there_starts_at_the_beginning_and_says_so(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=20)
    order = ("--batch", 2, *made.args)
    file = tmp_path / "none.json"
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file, "--resume", "auto")
    t = Trainer(ringfeed, run_name, 0)
    t.ok()
    assert serve.wait() == 0 and "starting at the beginning" in serve.stderr
    assert t.lines() == order_lines(ringfeed, made.path, *order)
    assert json.loads(file.read_text())["stages"][0]["ranks"] == [{"rank": 0, "epoch": 1, "batch": 0}]


def test_auto_keeps_two_trainings_with_one_name_apart(ringfeed, run_name, make, tmp_path):
    """A dead run that has the name by chance is not where the file's training goes on."""
    made = make.raw(n=60)
    order = ("--batch", 2, *made.args)
    file = tmp_path / "mine.json"
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file)
    Trainer(ringfeed, run_name, 0, "--limit", 4).ok()
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
    other = ringfeed.serve(made.path, run_name, *order)
    Trainer(ringfeed, run_name, 0, "--limit", 9).ok()
    kill(other)
    serve = ringfeed.serve(made.path, run_name, *order, "--checkpoint", file, "--resume", "auto")
    t = Trainer(ringfeed, run_name, 0)
    t.ok()
    assert serve.wait() == 0 and "another training" in serve.stderr
    assert t.lines() == order_lines(ringfeed, made.path, *order)[8:]


@pytest.mark.parametrize(
    "changed, words",
    [
        (("--batch", 3), ["--batch", "2", "3"]),
        (("--seed", 6), ["--seed", "5", "6"]),
        (("--shuffle", "none"), ["--shuffle", "full", "none"]),
        (("--tail", "drop"), ["--tail", "uneven", "drop"]),
        (("--strategy", "contiguous"), ["--strategy", "round-robin", "contiguous"]),
        (("--strategy", "hash", "--hash-seed", 3), ["--strategy", "round-robin", "hash"]),
        (("--subset", "0:50"), ["--subset", "none", "0:50"]),
        (("--block-samples", 5), ["--block-samples", "0", "5"]),
    ],
)
def test_a_mismatch_is_refused_with_both_values(ringfeed, saved, new_name, changed, words):
    made, order, file = saved
    ringfeed.fails("serve", made.path, "--name", new_name(), *order, *changed, "--resume", file, status=2, says=words)


def test_another_dataset_is_refused(ringfeed, saved, new_name, make):
    _, order, file = saved
    other = make.raw(n=61, seed=8)
    ringfeed.fails("serve", other.path, "--name", new_name(), *order, "--resume", file, status=2, says="fingerprint")


def test_resumed_behind_the_end_says_so(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=10)
    order = ("--batch", 2, *made.args)
    file = tmp_path / "done.json"
    deliver(ringfeed, made.path, run_name, [0], *order, "--checkpoint", file)
    serve = ringfeed.serve(made.path, run_name, *order, "--resume", file)
    assert "nothing is left" in serve.stderr
    t = Trainer(ringfeed, run_name, 0)
    assert t.ok()["batches"] == 0 and serve.wait() == 0
    lines, _ = deliver(ringfeed, made.path, run_name, [0], *order, "--resume", file, "--epochs", 3)
    assert lines == order_lines(ringfeed, made.path, *order, "--epochs", 3)[10:]


def test_checkpoints_are_counted_and_their_interval_kept(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=400)
    file = tmp_path / "often.json"
    serve = ringfeed.serve(made.path, run_name, "--batch", 2, *made.args, "--checkpoint", file, "--checkpoint-every", 10)
    Trainer(ringfeed, run_name, 0, "--step-ms", 5, "--limit", 100).ok()
    count = ringfeed.json("stat", run_name)["ranks"][0]["checkpoints"]
    assert 2 <= count <= 20  # writes that are due together are one
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
    assert json.loads(file.read_text())["stages"][0]["ranks"][0]["batch"] == 100


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=40)
    order = ("--batch", 2, *made.args)
    lines, _ = deliver(ringfeed, made.path, run_name, [0], *order, "--checkpoint", tmp_path / "no" / "such" / "file",
                       "--checkpoint-every", 4)
    assert lines == order_lines(ringfeed, made.path, *order)


def test_wrong_use(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=10)
    serve = ("serve", made.path, "--name", run_name, *made.args)
    ringfeed.fails(*serve, "--checkpoint-every", 5, status=2, says="--checkpoint FILE")
    ringfeed.fails(*serve, "--resume", tmp_path / "nothing.json", says="nothing.json")
    ringfeed.fails(*serve, "--resume", "auto", "--resume", tmp_path / "x", says="both auto and a file")
    ringfeed.fails("checkpoint", run_name, says=run_name)
    ringfeed.fails("checkpoint", status=2, says="one NAME")
    ringfeed.fails("order", made.path, *made.args, "--resume", made.path, says="checksum")


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_decisions_about_unreadable_samples_are_kept(ringfeed, run_name, make, tmp_path, policy):
    """What was left out or replaced before a kill stays so after it, also when the file is whole again, and `order`
    knows it from the checkpoint."""
    made = make.files(n=80, sizes=(100, 900))
    order = ("--batch", 4, "--shuffle", "full", "--seed", 2, "--epochs", 2, *made.args)
    lives = Lives(ringfeed, made, run_name, tmp_path, order, 1)
    serve = lives.serve("--on-error", policy)
    plain = lives.wanted()
    lost = {int(line.split()[4]) for line in plain[40:80:9]}  # of batches behind the ring
    whole = {i: (made.path / f"{i:05d}.dat").read_bytes() for i in lost}
    for i in lost:
        os.truncate(made.path / f"{i:05d}.dat", 10)
    done = ringfeed("attach", run_name, "--rank", 0, "--ids", lives.ids[0], "--limit", 22, "--json")
    assert done.returncode == 0, done.stderr
    kill(serve)
    saved = tmp_path / "saved.json"
    ringfeed.ok("checkpoint", run_name, "-o", saved)
    for i, data in whole.items():
        (made.path / f"{i:05d}.dat").write_bytes(data)
    serve = lives.serve("--on-error", policy, "--resume", "auto")
    Trainer(ringfeed, run_name, 0, ids=lives.ids[0]).ok()
    assert serve.wait() == 0
    lines = lives.lines()
    promised = ringfeed.ok("order", made.path, *order, "--world-size", 1, "--log", saved).splitlines()
    assert lines == promised and lines != plain
    faults = json.loads(saved.read_text())["stages"][0]["faults"]
    assert {f["sample"] for f in faults if f["epoch"] == 0} == lost
    first = [line for line in lines if line.startswith("0 ")]
    assert lost.isdisjoint(int(line.split()[4]) for line in first)
    assert sum(line.endswith(" s") for line in first) == (len(lost) if policy == "replace" else 0)
    assert len(first) == 80 - (len(lost) if policy == "skip" else 0)


def test_a_death_before_the_new_run_is_ready_sets_nothing_back(ringfeed, run_name, make, tmp_path):
    """The dead run's object goes when its name is taken: what it knew is in the file by then."""
    made = make.raw(n=90)
    order = ("--batch", 3, "--shuffle", "full", "--epochs", 2, *made.args)
    lives = Lives(ringfeed, made, run_name, tmp_path, order, 1)
    serve = lives.serve("--checkpoint-every", 1000)
    (first,) = lives.trainers("--limit", 17)
    first.ok()
    kill(serve)
    again = lives.serve("--resume", "auto")
    kill(again)
    with open(f"/dev/shm/ringfeed.{run_name}", "r+b") as control:
        control.seek(8)  # as if it had been killed just before
        assert int.from_bytes(control.read(8), "little") == 0x3159444145524652
        control.seek(8)
        control.write(bytes(8))
    serve = lives.serve("--resume", "auto")
    for t in lives.trainers():
        t.ok()
    assert serve.wait() == 0 and released_lines(lives.ids[0]) == lives.wanted()

#!/usr/bin/python3
"""lives.py [--kills N] [--variant NAME]... [--seed S]: one training over many lives. Server, workers and trainers are
killed at random instants and, in a build with fail points, at every named place of the code; each life goes on with
`--resume auto`. What was released in all lives together must be what `order` says, byte by byte: nothing lost,
nothing twice but a batch that a killed trainer had taken and not released. The command is $RINGFEED. RF_STORM=1
means 10,000 kills."""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from conftest import TOKEN, Maker, Ringfeed, find_command, marked_processes, shm_objects, wait_gone  # noqa: E402
from delivery import Trainer, key, order_lines  # noqa: E402

RANKS = 3
ROUND_SECONDS = int(os.environ.get("RF_STORM_ROUND_SECONDS", 300))
# One pass in how many. A pass is a batch or a read for most of them, a start or a file for the others.
WORKER = {"claim": 60, "describe": 60, "writers": 60, "in-flight": 150, "submit": 60, "complete": 150, "publish": 60, "published": 60}
TRAINER = {"take": 120, "release": 120, "released": 120, "attach": 6, "detach": 2}
PARENT = {"drain": 25, "reclaim": 25, "spawn": 40, "checkpoint-write": 12, "checkpoint-rename": 12}
MOVES = {"rebalance": 4, "gate": 4}
VARIANTS = {
    "uring": ("--engine", "uring", "--direct", "off"),
    "direct": ("--engine", "uring", "--direct", "on"),
    "pread": ("--engine", "pread", "--direct", "off"),
    "adaptive": ("--engine", "uring", "--strategy", "adaptive"),
}


def has_fail_points():
    return b"RINGFEED_FAIL_POINTS" in find_command().read_bytes()


def environment(points, log):
    return {"RINGFEED_FAIL_POINTS": ",".join(f"{name}:{odds}" for name, odds in points.items()), "RINGFEED_FAIL_LOG": str(log)}


def first_seen(lines):
    return list(dict.fromkeys(lines))


class Lives:
    def __init__(self, ringfeed, variant, kills, rng, directory):
        self.ringfeed, self.variant, self.budget, self.rng, self.directory = ringfeed, variant, kills, rng, directory
        self.log = directory / f"points-{variant}"
        self.random_kills = collections.Counter()
        self.rounds = self.lives = 0

    def struck(self):
        return collections.Counter(self.log.read_text().split()) if self.log.exists() else collections.Counter()

    def kills(self):
        return sum(self.struck().values()) + sum(self.random_kills.values())

    def serve(self, storm):
        points = {**WORKER, **PARENT, **(MOVES if self.variant == "adaptive" else {})} if storm else {}
        self.lives += 1
        return self.ringfeed.start(
            "serve", self.made.path, "--name", self.name, *self.order, *VARIANTS[self.variant], "--workers", 2,
            "--max-restarts", 1000000, "--checkpoint", self.file, "--checkpoint-every", 30, "--resume", "auto",
            env=environment(points, self.log))

    def trainer(self, rank, storm):
        slow = ("--step-ms", self.rng.choice([1, 1, 12])) if self.variant == "adaptive" else ()
        return Trainer(self.ringfeed, self.name, rank, "--timeout-ms", 30000, *slow, ids=self.ids[rank],
                       env=environment(TRAINER if storm else {}, self.log))

    def hit(self, serve, trainers):
        """One kill at a random instant."""
        kind = self.rng.choices(["server", "trainer", "worker"], [2, 3, 5])[0]
        if kind == "server":
            pid = serve.pid
        elif kind == "trainer":
            pid = self.rng.choice(list(trainers.values())).run.pid
        else:
            try:
                children = pathlib.Path(f"/proc/{serve.pid}/task/{serve.pid}/children").read_text().split()
            except OSError:
                return
            pid = int(self.rng.choice(children)) if children else 0
        if not pid:
            return
        try:
            os.kill(pid, signal.SIGKILL)
            self.random_kills[kind] += 1
        except ProcessLookupError:
            pass

    def judge_end(self, what, started, may_lack_server):
        """A process may end well, by a kill, or (a trainer) because its server was killed."""
        status = started.process.returncode
        if status in (0, -signal.SIGKILL):
            return
        words = ("died", "is dead", "has ended", "no run named", "no server answers", "was stopped", "is over", "not ready")
        assert may_lack_server and status == 1 and any(w in started.stderr for w in words), (
            f"{what} ended with {status}: {started.stderr[-2000:]}")

    def round(self, made):
        self.made, self.name = made, f"{TOKEN}-{self.variant}-{self.rounds}"
        self.file = self.directory / f"{self.name}.json"
        self.ids = [self.directory / f"{self.name}-ids-{r}" for r in range(RANKS)]
        self.order = ("--world-size", RANKS, "--batch", self.rng.choice([1, 3]), "--shuffle", "full", "--seed",
                      self.rng.randrange(1000), "--epochs", 3, *made.args)
        self.rounds += 1
        until = time.monotonic() + ROUND_SECONDS
        serve, trainers, done = None, {}, set()
        while True:
            storm = self.kills() < self.budget
            if serve is None or serve.process.poll() is not None:
                if serve is not None:
                    self.judge_end("serve", serve, False)
                    if serve.process.returncode == 0:  # every rank has released its last batch
                        break
                serve, done = self.serve(storm), set()
            for rank in range(RANKS):
                t = trainers.get(rank)
                if t is not None and t.run.process.poll() is None:
                    continue
                if t is not None:
                    self.judge_end(f"trainer {rank}", t.run, True)
                    if t.run.process.returncode == 0 and t.life == self.lives:
                        done.add(rank)
                if rank not in done:
                    trainers[rank] = self.trainer(rank, storm)
                    trainers[rank].life = self.lives
            if storm and self.rng.random() < 0.15:
                self.hit(serve, trainers)
            time.sleep(self.rng.random() ** 2 * 0.01)
            if time.monotonic() > until:
                raise AssertionError(f"{self.name} hangs: {serve.stderr[-2000:]}\n{self.ringfeed('stat', self.name).stdout}")
        for rank, t in trainers.items():
            wait_gone(t.run.pid, 1)
            if t.run.process.poll() is None:  # started behind the end: it would wait for the name
                t.run.send(signal.SIGKILL)
            t.run.wait()
            self.judge_end(f"trainer {rank}", t.run, True)
        self.judge(made)

    def judge(self, made):
        lines = [first_seen(path.read_text().splitlines()) if path.exists() else [] for path in self.ids]
        if self.variant == "adaptive":
            # A batch that was written and not released may have moved since: then its samples come again elsewhere.
            seen = collections.Counter((line.split()[0], line.split()[4]) for rank in lines for line in rank)
            missing = [(e, i) for e in range(3) for i in range(len(made.samples)) if not seen[(str(e), str(i))]]
            assert not missing, f"{len(missing)} samples never came: {missing[:10]}"
            return
        strategy = [a for a in VARIANTS[self.variant] if a in ("--strategy", "adaptive")]
        wanted = order_lines(self.ringfeed, made.path, *self.order, *strategy)
        for rank in range(RANKS):
            assert lines[rank] == [w for w in wanted if int(w.split()[1]) == rank], f"{self.name} rank {rank}"
        self.ringfeed.ok("verify", "--dataset", made.path, *self.order, *self.ids)

    def run(self, made):
        started = time.monotonic()
        while self.kills() < self.budget or self.rounds == 0:
            self.round(made)
            self.ringfeed.started.clear()
        print(json.dumps({
            "variant": self.variant, "kills": self.kills(), "at_points": dict(self.struck()),
            "at_random": dict(self.random_kills), "lives": self.lives, "rounds": self.rounds,
            "seconds": round(time.monotonic() - started, 1),
        }), flush=True)
        return self.struck()


def leftovers():
    for pid, _ in marked_processes():
        wait_gone(pid, 10)
    return marked_processes() + shm_objects()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10000 if os.environ.get("RF_STORM") else 240)
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    variants = args.variant or list(VARIANTS)
    rng = random.Random(args.seed)
    struck = collections.Counter()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ringfeed-lives-") as name:
        directory = pathlib.Path(name)
        ringfeed = Ringfeed(find_command(), directory)
        try:
            made = Maker(directory).files(n=240, sizes=(0, 30000))
            for variant in variants:
                struck += Lives(ringfeed, variant, -(-args.kills // len(variants)), rng, directory).run(made)
        finally:
            ringfeed.end()
    left = leftovers()
    assert not left, f"left behind: {left}"
    if has_fail_points() and args.kills >= 1000:
        never = {*WORKER, *TRAINER, *PARENT, *MOVES} - set(struck)
        assert not never, f"these fail points never struck: {never}"


main()

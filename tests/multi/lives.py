#!/usr/bin/python3
"""lives.py [--kills N] [--variant NAME]... [--seed S]: one training over many lives of its server. Workers, trainers and
parents are killed at random instants and, where the command has fail points (-Dfail_points=true), at every one of
them. The server is started again with `--resume auto`, trainers come back, and at the end what was released is the
unbroken run's order, line for line and byte for byte. The command is $RINGFEED. RF_STORM=1 means 5,000 kills;
with RF_STORM_KILLS=N they are N, and not every fail point has to be met.

A trainer writes a batch's lines just before it releases it: so of what a trainer wrote that was killed, or that its
server was killed under, the last batch is not certain to be released, and may come again. Nothing else may."""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

import storm
from storm import TOKEN, Maker, Ringfeed, Trainer, children, files_of_all_sizes, find_command, inquest, key, marked_processes, order_lines, shm_objects, wait_gone

WORKER_POINTS = ("claim", "describe", "writers", "submit-entry", "submit-enter", "complete", "publish-before", "publish-after")
COPY_POINTS = ("copy",)  # of the mapped engine alone
TRAINER_POINTS = ("attach", "take", "release-before", "release-after", "detach")
PARENT_POINTS = ("spawn", "drain", "reclaim", "checkpoint-temp", "checkpoint-prev", "checkpoint-new")
GATED_POINTS = ("cut", "rebalance")
WORKERS = 3
TRAINING_SECONDS = int(os.environ.get("RF_STORM_ROUND_SECONDS", 180))
KILLS = int(os.environ.get("RF_STORM_KILLS") or (5000 if os.environ.get("RF_STORM") else 120))
SERVER_IS_GONE = re.compile(r"died\. Start it again|is dead|has ended|no server answers|is over: every rank|no run named")


class Variant:
    """What differs: options of serve, epochs, what trainers do for each batch, its share of the kills."""

    def __init__(self, *args, ranks=2, epochs=6, steps=(0, 0), share=1.0, gated=False, must=()):
        self.args, self.ranks, self.epochs, self.steps, self.share, self.gated = args, ranks, epochs, steps, share, gated
        self.parent_points = PARENT_POINTS + GATED_POINTS if gated else PARENT_POINTS
        self.must = must  # points that somebody has to die at


VARIANTS = {
    "uring": Variant("--engine", "uring", "--direct", "off", share=0.5, must=WORKER_POINTS + TRAINER_POINTS + PARENT_POINTS),
    "direct": Variant("--engine", "uring", "--direct", "on", "--prefetch", 3, "--cache-bytes", "6M", share=0.3),
    "mapped": Variant("--engine", "mapped", "--direct", "off", share=0.1, must=COPY_POINTS),
    "adaptive": Variant("--engine", "pread", "--strategy", "adaptive", ranks=3, epochs=2, steps=(2, 2, 40), share=0.2, gated=True,
                        must=GATED_POINTS),
}


def fail_points(ringfeed):
    """Names of the command's fail points; none in a build without them."""
    done = ringfeed(env={"RINGFEED_FAIL_POINTS": "list"})
    return done.stdout.split() if done.returncode == 0 else []


class Rank:
    """One rank's trainers, one after the other, with one file of ids."""

    def __init__(self, number, ids):
        self.number, self.ids = number, ids
        self.trainer = None
        self.limited = self.through = False
        self.life = 0
        self.starts = []  # (bytes in the file, life) when each trainer began
        self.certain = []  # whether each trainer's last batch was released for certain

    def incarnations(self):
        """[(life, certain, lines)] of every trainer."""
        data = self.ids.read_bytes() if self.ids.exists() else b""
        ends = [at for at, _ in self.starts[1:]] + [len(data)]
        return [(life, sure, data[at:end].decode().splitlines())
                for (at, life), end, sure in zip(self.starts, ends, self.certain)]


class Training:
    def __init__(self, storm_, made, number, ids_directory):
        self.storm, self.variant, self.rng, self.ringfeed = storm_, storm_.variant, storm_.rng, storm_.ringfeed
        self.made = made
        self.name = f"{TOKEN}-{storm_.name}-{number}"
        self.checkpoint = ids_directory / f"{self.name}.json"
        self.order = ["--world-size", self.variant.ranks, "--batch", self.rng.choice([1, 2, 5]) if not self.variant.gated else 1,
                      "--shuffle", "full", "--seed", self.rng.randrange(1000), "--epochs", self.variant.epochs, *made.args]
        self.ranks = [Rank(r, ids_directory / f"ids-{self.name}-{r}") for r in range(self.variant.ranks)]
        self.life, self.serve = 0, None
        self.story = []  # how each life began, for the inquest

    # ---- starting ----

    def start_serve(self):
        self.life += 1
        env = {"RINGFEED_FAIL_LOG": str(self.storm.log)}
        env["RINGFEED_FAIL_POINTS"] = ",".join(self.storm.worker_spec() + self.storm.parent_spec())
        self.serve = self.ringfeed.start(
            "serve", self.made.path, "--name", self.name, *self.order, *self.variant.args, "--workers", WORKERS, "--resume", "auto",
            "--checkpoint", self.checkpoint, "--checkpoint-every", self.rng.randrange(5, 60), "--max-restarts", 1000000, env=env)
        self.story.append(self.serve)
        for rank in self.ranks:
            rank.through = False

    def start_trainer(self, rank):
        env = {"RINGFEED_FAIL_LOG": str(self.storm.log)}
        rank.limited = self.rng.random() < 0.2
        env["RINGFEED_FAIL_POINTS"] = self.storm.trainer_spec(rank.limited)
        args = ["--step-ms", self.variant.steps[rank.number]]
        if rank.limited:
            args += ["--limit", self.rng.randrange(1, 40)]
        size = rank.ids.stat().st_size if rank.ids.exists() else 0
        rank.starts.append((size, self.life))
        rank.life = self.life
        rank.trainer = Trainer(self.ringfeed, self.name, rank.number, *args, ids=rank.ids, env=env)

    # ---- watching ----

    def serve_is_gone(self):
        wait_gone(self.serve.pid, 5)
        return self.serve.process.poll() is not None

    def trainer_ended(self, rank, status):
        run = rank.trainer.run
        rank.certain.append(status == 0)
        rank.trainer = None
        if status == -signal.SIGKILL:
            return
        if status == 0:
            summary = json.loads(run.stdout)
            assert summary["check_errors"] == 0
            # A server that came after this trainer's waits for the rank again, be it only to say that it is over.
            rank.through = rank.life == self.life and not (rank.limited and summary["batches"])
            return
        assert not run.stdout.strip() or json.loads(run.stdout)["check_errors"] == 0, run.stderr
        assert status == 1 and SERVER_IS_GONE.search(run.stderr), f"{self.name} rank {rank.number}: exit {status}\n{run.stderr}"
        assert rank.life != self.life or self.serve_is_gone(), f"the server lives, says its trainer not: {run.stderr}"

    def look_at_trainers(self, again):
        for rank in self.ranks:
            status = rank.trainer and rank.trainer.run.process.poll()
            if rank.trainer and status is not None:
                self.trainer_ended(rank, status)
            if again and rank.trainer is None and not rank.through:
                self.start_trainer(rank)

    def hit(self):
        """A random kill, by one who knows nothing."""
        what = self.rng.random()
        victim = None
        if what < 0.02:
            victim = self.serve.pid
        elif what < 0.06:
            running = [r.trainer.run.pid for r in self.ranks if r.trainer]
            victim = self.rng.choice(running) if running else None
        elif what < (0.2 if self.storm.points else 0.6):
            workers = children(self.serve.pid)
            victim = self.rng.choice(workers) if workers else None
        if victim:
            self.storm.kill(victim)

    def live(self):
        """Lives until one comes to its regular end."""
        until = time.monotonic() + TRAINING_SECONDS
        self.start_serve()
        while True:
            if time.monotonic() > until:
                inquest(self.ringfeed, self.name, f"{self.name} hangs in life {self.life} after {self.storm.kills()} kills\n"
                        + self.serve.stderr[-2000:],
                        [self.serve.pid, *children(self.serve.pid), *(r.trainer.run.pid for r in self.ranks if r.trainer)])
            status = self.serve.process.poll()
            if status == 0:
                return
            if status is not None:
                assert status == -signal.SIGKILL, f"{self.name}: serve ended with {status}\n{self.serve.stderr[-3000:]}"
                objects = shm_objects()
                assert len(objects) <= 2, f"in /dev/shm: {objects}"
                running = marked_processes()
                assert len(running) <= len(self.ranks) + WORKERS, f"processes: {running}"
                self.start_serve()
            self.look_at_trainers(again=True)
            time.sleep(self.rng.random() ** 3 * 0.02)
            if self.storm.hurting():
                self.hit()

    def end(self):
        for rank in self.ranks:
            if not rank.trainer:
                continue
            run = rank.trainer.run
            wait_gone(run.pid, 2)
            if run.process.poll() is None and f"ringfeed.{self.name}" not in pathlib.Path(f"/proc/{run.pid}/maps").read_text():
                run.send(signal.SIGKILL)  # too late for this run, it waits for the next one
            self.trainer_ended(rank, run.wait())

    # ---- judging ----

    def told(self, life):
        """What the servers around this life said."""
        logged = self.storm.log.read_text() if self.storm.log.exists() else ""
        return "\n".join(
            f"life {n + 1}, pid {s.pid}, died at {re.findall(f'(.*) {s.pid}$', logged, re.MULTILINE)}: {s.stdout}{s.stderr[:600]}"
            for n, s in enumerate(self.story) if life - 4 < n + 1 < life + 2)

    def check_sequence(self, rank, wanted):
        """Each trainer goes on where the one before it stopped, or at that one's last batch."""
        first_of_batch = {}
        for i, line in enumerate(wanted):
            first_of_batch.setdefault(key(line)[:3], i)
        at, sure = 0, True
        for life, certain, lines in rank.incarnations():
            if lines:
                allowed = {at}
                if not sure and at:
                    allowed.add(first_of_batch[key(wanted[at - 1])[:3]])
                begins = [s for s in allowed if wanted[s : s + len(lines)] == lines]
                assert begins, (
                    f"{self.name} rank {rank.number} life {life} of {self.life}: after {wanted[max(0, at - 3):at]} "
                    f"({'released' if sure else 'perhaps released'}) came {lines[:3]}\n"
                    + self.told(life) + "\n".join(f"trainer of life {n}: {c} {b[:1]} to {b[-1:]}" for n, c, b in rank.incarnations()))
                at, sure = begins[0] + len(lines), certain
        assert at == len(wanted), f"{self.name} rank {rank.number}: {at} of {len(wanted)} lines"

    def judge_plain(self):
        wanted = order_lines(self.ringfeed, self.made.path, *self.order)
        for rank in self.ranks:
            self.check_sequence(rank, [w for w in wanted if int(w.split()[1]) == rank.number])
        self.ringfeed.ok("verify", "--dataset", self.made.path, *self.order, *(r.ids for r in self.ranks))

    def judge_gated(self):
        """What was not certain to be released may have moved to another rank and come there. All else: once."""
        sure, unsure = collections.Counter(), collections.Counter()
        delivered, perhaps = [], set()
        for rank in self.ranks:
            mine = {}
            for _, certain, lines in rank.incarnations():
                last = key(lines[-1])[:3] if lines else None
                for line in lines:
                    mine[line] = certain or key(line)[:3] != last
            # taken back to where it stood, so what came after is later in the sequence
            delivered.append(list(mine))
            for line, certain in mine.items():
                word = line.split()
                (sure if certain else unsure)[word[0], word[4]] += 1
                if not certain:
                    perhaps.add(line)
        samples = {(str(e), str(i)) for e in range(self.variant.epochs) for i in range(len(self.made.samples))}
        came = set(sure) | set(unsure)
        assert came == samples, f"{self.name}: lost {sorted(samples - came)[:5]}, too much {sorted(came - samples)[:5]}"
        twice = [s for s, n in sure.items() if n > 1]
        assert not twice, f"{self.name}: released twice: {twice[:5]}"
        self.compare_with_log(delivered, perhaps)

    def compare_with_log(self, delivered, perhaps):
        """The log has the last epoch's moves, unless it was over before the last life."""
        last = str(self.variant.epochs - 1)
        if not any(line.split()[0] == last for r in self.ranks for life, _, lines in r.incarnations() if life == self.life
                   for line in lines):
            return
        promised = ["--strategy", "adaptive", "--log", self.checkpoint]
        promised = [w for w in order_lines(self.ringfeed, self.made.path, *self.order, *promised) if w.split()[0] == last]
        for rank, lines in zip(self.ranks, delivered):
            mine = [w for w in promised if int(w.split()[1]) == rank.number]
            came = [line for line in lines if line.split()[0] == last and (line in mine or line not in perhaps)]
            assert came == mine, f"{self.name} rank {rank.number}: not what the log says"
        self.storm.compared += 1

    def judge(self):
        (self.judge_gated if self.variant.gated else self.judge_plain)()
        assert not shm_objects(), shm_objects()
        left = [p for p in self.checkpoint.parent.glob(f"{self.name}.json*")]
        for path in [*left, *(r.ids for r in self.ranks if r.ids.exists())]:
            path.unlink()
        self.ringfeed.started.clear()


class Lives:
    def __init__(self, ringfeed, name, kills, rng, log, points):
        self.ringfeed, self.name, self.variant, self.wanted, self.rng = ringfeed, name, VARIANTS[name], kills, rng
        self.log, self.points = log, points
        self.random_kills = collections.Counter()
        self.before = len(self.logged())
        self.compared = self.trainings = 0

    def logged(self):
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def kills(self):
        return sum(self.random_kills.values()) + len(self.logged()) - self.before

    def missing(self):
        """Points that somebody should have died at in this variant, and nobody has."""
        if not self.points or os.environ.get("RF_STORM_KILLS"):
            return set()
        return set(self.variant.must) - set(self.logged()[self.before :])

    def unfinished(self):
        """Until there were enough kills and somebody has died wherever somebody has to."""
        assert self.trainings < self.wanted + 100, f"{self.name}: nobody ever died at {self.missing()}"
        return self.kills() < self.wanted or self.missing()

    def hurting(self):
        """With enough kills there is peace in every other training: a parent comes to some of its points only when others
        die, and to some only when nobody does."""
        return self.kills() < self.wanted or bool(self.missing() and self.trainings % 2)

    def choices(self, of):
        """The points of these to die at: those that nobody died at first."""
        missing = self.missing()
        return [p for p in of if p in missing] or (of if self.points and self.hurting() else [])

    def kill(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
            self.random_kills["killed"] += 1
        except ProcessLookupError:
            pass

    def worker_spec(self):
        missing = self.missing()
        often = {p: 40 if p in missing else 100 for p in WORKER_POINTS + COPY_POINTS if p in missing or (self.points and self.hurting())}
        return [f"{p}:1/{n}" for p, n in often.items()]

    def parent_spec(self):
        """One point a life, at one of its first passes."""
        choices = self.choices(self.variant.parent_points)
        if not choices:
            return []
        point = self.rng.choice(choices)
        most = {"spawn": 8, "drain": 5, "rebalance": 1, "cut": 3}.get(point, 3)
        return [f"{point}:{self.rng.randint(1, most)}"]

    def trainer_spec(self, limited):
        choices = self.choices(TRAINER_POINTS)
        if not choices:
            return ""
        point = self.rng.choice(choices)
        if point in ("attach", "detach"):
            return f"{point}:1" if self.rng.random() < 0.5 or limited else "take:1/40"
        return f"{point}:1/{self.rng.choice([5, 40])}"

    def run(self, made, directory):
        started, lives = time.monotonic(), 0
        while self.unfinished():
            training = Training(self, made, self.trainings, directory)
            training.live()
            training.end()
            training.judge()
            self.trainings += 1
            lives += training.life
        at_points = collections.Counter(self.logged()[self.before :])
        print(json.dumps({
            "variant": self.name, "kills": self.kills(), "at_random": sum(self.random_kills.values()), "trainings": self.trainings,
            "lives": lives, "compared_with_log": self.compared, "seconds": round(time.monotonic() - started, 1), "points": at_points,
        }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    rng = random.Random(args.seed)
    if not storm.private_shm():
        print("no /dev/shm of our own: a `ringfeed gc` of somebody else would disturb this test", flush=True)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ringfeed-lives-") as directory:
        directory = pathlib.Path(directory)
        ringfeed = Ringfeed(find_command(), directory)
        try:
            points = fail_points(ringfeed)
            if points:
                known = set(WORKER_POINTS + COPY_POINTS + TRAINER_POINTS + PARENT_POINTS + GATED_POINTS)
                assert set(points) == known, f"fail points that nobody dies at: {set(points) ^ known}"
            else:
                print("SKIPPED kills at fail points: this build has none (meson -Dfail_points=true)", flush=True)
            made = files_of_all_sizes(Maker(directory), rng)
            for name in args.variant or VARIANTS:
                Lives(ringfeed, name, round(args.kills * VARIANTS[name].share), rng, directory / "fail.log", points).run(made, directory)
        finally:
            ringfeed.end()
    left = storm.leftovers()
    assert not left, f"left behind: {left}"


if __name__ == "__main__":
    main()

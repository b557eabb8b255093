#!/usr/bin/python3
"""storm.py [--kills N] [--variant NAME]... [--seed S]: workers are killed at random instants, some are stopped for
a while, and now and then a trainer is killed and comes back; what is delivered must be what `order` says, byte by
byte. The command is $RINGFEED. RF_STORM=1 means 5,000 kills, RF_STORM_KILLS=N means N.

Half of the kills wait for an instant with reads in flight (io_uring's fdinfo shows it), because that is where a
worker's death is dangerous: under O_DIRECT the device goes on writing into the ring after it."""

import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from conftest import LIBC, TOKEN, Made, Maker, Ringfeed, Sample, clean_environment, find_command, marked_processes, shm_objects, wait_gone  # noqa: E402
from delivery import Trainer, in_flight, key, order_lines, ring_info  # noqa: E402
from test_kill import until as wait_until  # noqa: E402

RANKS = 2
KILLS = int(os.environ.get("RF_STORM_KILLS") or (5000 if os.environ.get("RF_STORM") else 380))  # lives.py has the rest
ROUND_SECONDS = int(os.environ.get("RF_STORM_ROUND_SECONDS", 180))
SANITIZED = "ASAN_OPTIONS" in os.environ
VARIANTS = {
    "uring": ("--engine", "uring", "--direct", "off"),
    "direct": ("--engine", "uring", "--direct", "on", "--queue-depth", 64),
    "direct-tight": ("--engine", "uring", "--direct", "on", "--queue-depth", 8, "--prefetch", 2),
    "pread": ("--engine", "pread", "--direct", "off"),
    "mapped": ("--engine", "mapped", "--direct", "off"),
    "direct-sweep": ("--engine", "uring", "--direct", "on"),
}
SHUFFLES = {"direct-sweep": ("block", "--block-samples", 20, "--window-blocks", 3)}  # of small samples: whole blocks are read


def files_of_all_sizes(maker, rng, n=96):
    # Random bytes may begin like a compressed file, which is refused unless the format is given.
    made = Made(maker.files(n=0).path, [], ("--format", "files"))
    for i in range(n):
        size = rng.choice([rng.randrange(0, 3000), rng.randrange(100000), rng.randrange(1500000), 512 * rng.randrange(900)])
        made.samples.append(Sample({"data": rng.randbytes(size)}))
        (made.path / f"{i:04d}.dat").write_bytes(made.samples[-1].data)
    return made


def private_shm():
    """A /dev/shm of our own where that can be had: `ringfeed gc` of somebody else would take our dead runs away, from
    which a training goes on. Without it, nobody may call gc meanwhile."""
    shm = os.stat("/dev/shm")
    if LIBC.unshare(0x00020000) != 0:  # CLONE_NEWNS
        return False
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "ringfeed-storm", "/dev/shm"], check=True)
    return os.stat("/dev/shm").st_dev != shm.st_dev


def forget_cache(made):
    """Buffered reads of the next round come from the device again, at least in part."""
    for path in made.path.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def children(pid):
    try:
        return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def inquest(ringfeed, name, head, pids):
    """A hang is worth every word that can still be had."""
    words = [head, ringfeed("stat", name).stdout]
    for pid in pids:
        proc = pathlib.Path(f"/proc/{pid}")
        if proc.exists():
            state = [line for line in (proc / "status").read_text().splitlines() if line.startswith(("Name", "State"))]
            words.append(f"{pid} {state} {(proc / 'syscall').read_text()}")
    raise AssertionError("\n".join(words))


def ended(started, seconds):
    wait_gone(started.pid, seconds)
    return started.process.poll() is not None


class Footprint:
    """What the parent and its workers hold: it must not grow, however many of them die."""

    # Descriptors that come and go: a connection not granted yet, a file being read. Memory: what an allocator keeps.
    MORE_FDS, MORE_KIB = 4, 2048

    def __init__(self, pid, workers):
        self.pid, self.workers = pid, workers
        self.fds = self.first = self.last = None
        self.most_fds = self.looks = 0

    def kib(self):
        """Private memory of all of them; None while one is missing."""
        pids, sum_kib = children(self.pid), 0
        if len(pids) != self.workers:
            return None
        for pid in [self.pid, *pids]:
            try:
                text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                return None
            found = re.search(r"^Pss_Anon:\s+(\d+)", text, re.MULTILINE)
            if not found:
                return None
            sum_kib += int(found[1])
        return sum_kib if children(self.pid) == pids else None

    def look(self, memory=False):
        try:
            n = len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return
        self.most_fds = max(self.most_fds, n)
        self.looks += 1
        if self.fds is None:
            self.fds = n
        if memory:
            kib = self.kib()
            self.first = self.first or kib
            self.last = kib or self.last

    def judge(self):
        if not self.looks:  # over before the first kill
            return
        assert self.most_fds <= self.fds + self.MORE_FDS, f"descriptors of the parent: {self.fds}, later {self.most_fds}"
        if self.first and not SANITIZED:  # a sanitizer keeps what was freed
            assert self.last <= self.first + self.MORE_KIB, f"KiB of parent and workers: {self.first}, later {self.last}"


class Storm:
    def __init__(self, ringfeed, variant, kills, rng):
        self.ringfeed, self.variant, self.wanted, self.rng = ringfeed, variant, kills, rng
        self.kills = self.kills_in_flight = self.stops = self.trainer_kills = self.rounds = self.looks = 0
        self.stopped = None
        self.finished = []

    def wait_for_reads(self, pid):
        info = ring_info(pid)
        until = time.monotonic() + 0.02
        while info and time.monotonic() < until:
            if in_flight(info):
                return True
        return False

    def hit_worker(self, serve):
        """One kill, or one stop, of a worker that lives."""
        workers = children(serve.pid)
        if not workers:
            return
        pid = self.rng.choice(workers)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            busy = self.rng.random() < 0.5 and self.wait_for_reads(pid)
            if pid not in children(serve.pid):
                return
            if self.rng.random() < 0.08:
                signal.pidfd_send_signal(fd, signal.SIGSTOP)
                self.resume()
                self.stopped, fd = fd, -1
                self.stops += 1
                return
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            self.kills += 1
            self.kills_in_flight += busy
        except ProcessLookupError:
            pass
        finally:
            if fd >= 0:
                os.close(fd)

    def resume(self):
        """The worker that was stopped last goes on."""
        if self.stopped is None:
            return
        try:
            signal.pidfd_send_signal(self.stopped, signal.SIGCONT)
        except ProcessLookupError:
            pass
        os.close(self.stopped)
        self.stopped = None

    def attached(self, name, trainer):
        """Waits until its descriptors are there, so that they count from the beginning."""
        for _ in range(500):
            if trainer.run.process.poll() is not None or trainer.lines():
                return
            time.sleep(0.01)
        raise AssertionError(f"{name}: rank {trainer.rank} has no batch after 5 s: {trainer.run.stderr}")

    def hit_trainer(self, serve, trainers, name, wanted):
        """A trainer dies and another takes its rank, writing on in the same file."""
        i = self.rng.randrange(len(trainers))
        old = trainers[i]
        if old.run.process.poll() is not None:
            return
        old.run.send(signal.SIGKILL)
        if old.run.wait() != -signal.SIGKILL:
            return
        self.trainer_kills += 1
        # Killed behind its last release: then the run may be over, and there is nothing to attach to.
        if len(set(old.lines())) == sum(int(w.split()[1]) == old.rank for w in wanted) and ended(serve, 2):
            self.finished.append(old)
            trainers.remove(old)
        else:
            trainers[i] = Trainer(self.ringfeed, name, old.rank, ids=old.ids)

    def round(self, made):
        name = f"{TOKEN}-{self.variant}-{self.rounds}"
        self.rounds += 1
        order = ["--world-size", RANKS, "--batch", self.rng.choice([1, 2, 5]), "--seed", self.rng.randrange(1000),
                 "--epochs", 40 if self.variant in SHUFFLES else 4, "--shuffle", *SHUFFLES.get(self.variant, ("full",)), *made.args]
        forget_cache(made)
        serve = self.ringfeed.serve(made.path, name, *order, *VARIANTS[self.variant], "--workers", 3,
                                    "--max-restarts", 1000000)
        trainers = [Trainer(self.ringfeed, name, rank) for rank in range(RANKS)]
        wanted = order_lines(self.ringfeed, made.path, *order)
        self.finished = []
        footprint = Footprint(serve.pid, 3)
        for t in trainers:
            self.attached(name, t)
        until = time.monotonic() + ROUND_SECONDS
        while any(t.run.process.poll() is None for t in trainers):
            if time.monotonic() > until:
                inquest(self.ringfeed, name, f"{name} hangs after {self.kills} kills, {self.stops} stops\n{serve.stderr[-2000:]}",
                        [serve.pid, *children(serve.pid), *(t.run.pid for t in trainers)])
            time.sleep(self.rng.random() ** 3 * 0.02)
            self.resume()
            footprint.look(memory=self.rng.random() < 0.1)
            if self.rng.random() < 0.02:
                self.hit_trainer(serve, trainers, name, wanted)
            elif self.kills < self.wanted:
                self.hit_worker(serve)
        self.resume()
        footprint.judge()
        self.looks += footprint.looks
        wait_until(lambda: len(shm_objects()) in (0, 2), seconds=2)  # at its end one goes after the other
        self.judge(serve, trainers, wanted, made, order)

    def judge(self, serve, trainers, wanted, made, order):
        for t in trainers:
            t.ok()
        status = serve.wait()
        assert status == 0, f"serve ended with {status}\n{serve.stderr[-3000:]}"
        trainers = trainers + self.finished
        for t in trainers:
            lines = t.lines()
            assert sorted(set(lines), key=key) == [w for w in wanted if int(w.split()[1]) == t.rank]
            assert all(key(a) < key(b) or b in lines[: i + 1] for i, (a, b) in enumerate(zip(lines, lines[1:])))
        self.ringfeed.ok("verify", "--dataset", made.path, *order, *(t.ids for t in trainers))
        for t in trainers:
            t.ids.unlink()
        self.ringfeed.started.clear()

    def run(self, made):
        started = time.monotonic()
        while self.kills < self.wanted:
            self.round(made)
        print(json.dumps({
            "variant": self.variant, "kills": self.kills, "with_reads_in_flight": self.kills_in_flight,
            "stops": self.stops, "trainers_killed": self.trainer_kills, "rounds": self.rounds,
            "seconds": round(time.monotonic() - started, 1),
        }), flush=True)
        assert self.looks >= self.kills, "hardly a look at what the parent holds"
        if "direct" in self.variant and self.kills >= 50:  # of fewer it says little
            assert self.kills_in_flight * (20 if SANITIZED else 10) >= self.kills, "hardly a kill met a read in flight"


def leftovers():
    for pid, _ in marked_processes():
        wait_gone(pid, 10)
    return marked_processes() + shm_objects()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--variant", action="append", choices=VARIANTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    # LeakSanitizer looks at a process from a child of it, which must not be killed for a worker.
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    variants = args.variant or list(VARIANTS)
    rng = random.Random(args.seed)
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ringfeed-storm-") as directory:
        ringfeed = Ringfeed(find_command(), pathlib.Path(directory))
        try:
            maker = Maker(pathlib.Path(directory))
            all_sizes = files_of_all_sizes(maker, rng)
            small = maker.tar(n=480, sizes=(0, 20000), shards=3)
            for variant in variants:
                Storm(ringfeed, variant, -(-args.kills // len(variants)), rng).run(small if variant in SHUFFLES else all_sizes)
        finally:
            ringfeed.end()
    left = leftovers()
    assert not left, f"left behind: {left}"


if __name__ == "__main__":
    main()

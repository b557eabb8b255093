"""Reads that do not end: through a file system of the tests' own (tests/fuse/hangfs.c), in which chosen reads wait for
a gate and all others answer."""

import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from conftest import clean_environment, die_with_parent, find_command
from delivery import Trainer, in_flight, order_lines, ring_info
from test_kill import until, workers_of

HEARTBEAT_MS = 300
RECORD = 32 << 10
N = 240


def helper(name):
    build = pathlib.Path(os.environ.get("RINGFEED_BUILD", find_command().parents[1]))
    path = build / "tests" / "fuse" / name
    if not path.exists():
        pytest.skip(f"{path} was not built (libfuse3-dev is missing)")
    return path


class HangFs:
    """The directory `source` once more, at `path`; the first `count` reads of byte `offset` of file `name` hang."""

    def __init__(self, directory, source, name, offset, count):
        self.path = directory / "mount"
        self.path.mkdir()
        self.gate = directory / "gate"
        os.mkfifo(self.gate)
        self.log = open(directory / "hangfs.err", "wb")
        command = helper("hangfs")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            pytest.skip("/dev/fuse is not accessible here")
        self.process = subprocess.Popen(
            [str(command), str(source), str(self.path), name, str(offset), str(count), str(self.gate)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=os.environ, preexec_fn=die_with_parent,
        )
        until(lambda: os.path.ismount(self.path) or self.process.poll() is not None, 10)
        if self.process.poll() is not None:
            pytest.skip(f"FUSE cannot be had here: {(directory / 'hangfs.err').read_text().strip()}")

    def hanging(self):
        """How many reads hang, or have hung."""
        return len(list(self.gate.parent.glob("gate.*")))

    def let_go(self):
        """Opens the gate for the reads that wait at it now. False: there is none."""
        try:
            os.close(os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK))
            return True
        except OSError:
            return False

    def end(self):
        while self.let_go():
            os.sched_yield()
        self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self.process.poll() is None and time.monotonic() < deadline:
            self.let_go()
            os.sched_yield()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        subprocess.run(["umount", "-l", str(self.path)], stderr=subprocess.DEVNULL, check=False)
        self.log.close()


@pytest.fixture
def hangfs(ringfeed, tmp_path, nothing_left):
    made = []

    def mount(source, name, offset, count=1):
        made.append(HangFs(tmp_path, source, name, offset, count))
        return made[-1]

    yield mount
    for fs in made:
        fs.end()
    ringfeed.end()  # a worker that was stuck in a read is gone only now


@pytest.fixture
def records(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "records.bin").write_bytes(random.Random(3).randbytes(N * RECORD))
    return source / "records.bin"


ARGS = ("--format", "raw", "--record-bytes", RECORD)


class Hold:
    """tests/fuse/hold.c: holds batches until told, compares bytes with the source."""

    def __init__(self, ringfeed, name, rank, source, n, limit=0):
        self.process = subprocess.Popen(
            [str(helper("hold")), name, str(rank), str(source), str(RECORD), str(n), str(limit)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
            preexec_fn=die_with_parent,
        )
        assert self.process.stdout.readline() == "held\n", self.process.stderr.read()

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def lines(self):
        """Of the batches, in the order taken: 'epoch batch id...'."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        lines = out.splitlines()
        assert lines[-1] == "end"
        return lines[:-1]


def batches_of(ringfeed, dataset, rank, *order):
    batches = {}
    for line in order_lines(ringfeed, dataset, *order):
        epoch, of, batch, _, index, _ = line.split()
        if int(of) == rank:
            batches.setdefault((int(epoch), int(batch)), []).append(index)
    return [f"{epoch} {batch} {' '.join(ids)}" for (epoch, batch), ids in sorted(batches.items())]


def sample_of(ringfeed, dataset, rank, batch, *order):
    """Index of a sample in the middle of a batch of epoch 0."""
    for line in order_lines(ringfeed, dataset, *order):
        words = line.split()
        if words[:4] == ["0", str(rank), str(batch), "2"]:
            return int(words[4])
    raise AssertionError("no such batch")


@pytest.mark.parametrize("engine", ["uring", "pread"])
def test_a_read_that_never_ends_is_bridged(ringfeed, run_name, records, hangfs, engine):
    """The read of a later batch hangs. The trainer holds batches before it meanwhile; the ring goes on in a fresh arena,
    and when the read ends, arena and queue come back."""
    order = ("--ranks", 2, "--batch", 4, "--shuffle", "full", "--seed", 5, *ARGS)
    stuck = sample_of(ringfeed, records, 0, 3, *order)
    fs = hangfs(records.parent, records.name, stuck * RECORD + 100)
    dataset = fs.path / records.name
    began = time.monotonic()
    serve = ringfeed.serve(dataset, run_name, *order, "--epochs", 0, "--workers", 2, "--prefetch", 6, "--engine", engine,
                           "--direct", "off", "--heartbeat-ms", HEARTBEAT_MS)
    run = [Hold(ringfeed, run_name, rank, records, 2, limit=40) for rank in range(2)]
    stat = until(lambda: (lambda s: s if s["moved"] else None)(ringfeed.json("stat", run_name)))
    assert time.monotonic() - began < 20 * HEARTBEAT_MS / 1000
    assert fs.hanging() == 1 and stat["fenced"] >= 1 and stat["retired_queues"] == 1 and stat["spare_queues"] == 0
    for t in run:
        t.go_on()
    for rank, t in enumerate(run):  # 30 batches are an epoch
        assert t.lines() == batches_of(ringfeed, records, rank, *order, "--epochs", 2)[:40]
    stat = ringfeed.json("stat", run_name)
    assert stat["retired_queues"] == 1 and stat["spare_arenas"] == 2 - stat["moved"]
    assert fs.let_go()  # the old read ends, in the old arena
    until(lambda: spares(ringfeed.json("stat", run_name)) == (1, 2, 0))
    for rank in range(2):  # in the old arena's place others read again: nothing is lost by that either
        ringfeed.ok("attach", run_name, "--rank", rank, "--check", "--limit", 20)
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0, serve.stderr
    assert "is retired" in serve.stderr and "it is a spare again" in serve.stderr, serve.stderr


def spares(stat):
    return stat["spare_queues"], stat["spare_arenas"], stat["retired_queues"]


def test_reads_that_hang_one_after_the_other_use_up_and_give_back_the_spares(ringfeed, run_name, records, hangfs):
    """The read of one place hangs for three workers in a row; the fourth gets through."""
    order = ("--ranks", 2, "--batch", 4, "--shuffle", "full", *ARGS)
    stuck = sample_of(ringfeed, records, 1, 5, *order)
    fs = hangfs(records.parent, records.name, stuck * RECORD, count=3)
    serve = ringfeed.serve(fs.path / records.name, run_name, *order, "--workers", 3, "--spares", 3, "--direct", "off",
                           "--engine", "pread", "--heartbeat-ms", 100, "--epochs", 2)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 1) for rank in range(2)]
    for t in run:
        t.ok()
    assert serve.wait() == 0, serve.stderr
    assert serve.stderr.count("is retired") == 3 and fs.hanging() == 3, serve.stderr
    for rank, t in enumerate(run):
        wanted = [line for line in order_lines(ringfeed, records, *order, "--epochs", 2) if line.split()[1] == str(rank)]
        assert t.lines() == wanted


def test_without_a_spare_the_trainer_is_told_and_can_go_on_later(ringfeed, run_name, records, hangfs):
    order = ("--batch", 4, "--shuffle", "full", *ARGS)
    stuck = sample_of(ringfeed, records, 0, 2, *order)
    fs = hangfs(records.parent, records.name, stuck * RECORD)
    serve = ringfeed.serve(fs.path / records.name, run_name, *order, "--workers", 1, "--spares", 0, "--direct", "off",
                           "--heartbeat-ms", HEARTBEAT_MS)
    first = Trainer(ringfeed, run_name, 0)
    assert first.run.wait(20) == 1
    for word in ("rank 0 cannot go on", records.name, f"at offset {stuck * RECORD}", "no spare io_uring", "--spares"):
        assert word in first.run.stderr, first.run.stderr
    assert len(first.lines()) == 2 * 4
    assert "rank 0 cannot go on" in serve.stderr and serve.process.poll() is None
    assert spares(ringfeed.json("stat", run_name)) == (0, 0, 0)
    assert fs.let_go()
    until(lambda: workers_of(serve))  # a new worker: the read has ended and the parent knows
    second = Trainer(ringfeed, run_name, 0, ids=first.ids)
    second.ok()
    assert serve.wait() == 0
    assert first.lines() == order_lines(ringfeed, records, *order)


def test_a_device_that_answers_nobody_is_slow_and_no_worker_dies_for_it(ringfeed, run_name, records, hangfs):
    """The parent's own read of the place does not end either."""
    order = ("--batch", 4, "--shuffle", "full", *ARGS)
    stuck = sample_of(ringfeed, records, 0, 2, *order)
    fs = hangfs(records.parent, records.name, stuck * RECORD + 100, count=1000)
    serve = ringfeed.serve(fs.path / records.name, run_name, *order, "--workers", 1, "--direct", "off", "--engine", "uring",
                           "--heartbeat-ms", 100)
    (worker,) = workers_of(serve)
    until(lambda: fs.hanging() >= 2 and "the device is slow or hangs" in serve.stderr)
    done = ringfeed("attach", run_name, "--rank", 0, "--timeout-ms", 1000, "--ids", fs.gate.parent / "ids")
    assert done.returncode == 1
    for word in (f"process {worker}", records.name, f"offset {stuck * RECORD}", "within 1000 ms"):
        assert word in done.stderr, done.stderr
    stat = ringfeed.json("stat", run_name)
    assert stat["fenced"] == 0 and stat["workers"][0]["pid"] == worker
    rest = Trainer(ringfeed, run_name, 0, ids=fs.gate.parent / "ids")
    until(lambda: fs.let_go() and False or rest.run.process.poll() is not None)
    rest.ok()
    assert serve.wait() == 0 and serve.stderr.count("is slow or hangs") == 1
    assert rest.lines() == order_lines(ringfeed, records, *order)


@pytest.fixture
def throttle(records, run_name):
    """A blkio group for the device under `records`: throttle(bytes a second), None: no limit; its path."""
    group = pathlib.Path("/sys/fs/cgroup/blkio") / f"ringfeed-{run_name}"
    device = os.stat(records).st_dev
    limit = group / "blkio.throttle.read_bps_device"
    try:
        group.mkdir()
        limit.write_text(f"{os.major(device)}:{os.minor(device)} 1000000")
    except OSError as e:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"reads of this device cannot be throttled here (cgroup v1 blkio): {e}")

    def set_limit(rate):
        limit.write_text(f"{os.major(device)}:{os.minor(device)} {rate or 0}")

    set_limit.group = group
    yield set_limit
    set_limit(None)
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_direct_reads_of_a_dead_worker_that_take_long_are_left_behind(ringfeed, run_name, records, throttle):
    """O_DIRECT reads of a killed worker land in shared memory for as long as the device takes: longer than the limit
    here. The ring goes on in another arena meanwhile."""
    order = ("--batch", 4, "--shuffle", "full", *ARGS)
    serve = ringfeed.serve(records, run_name, *order, "--workers", 1, "--prefetch", 16, "--direct", "on", "--engine", "uring",
                           "--heartbeat-ms", 200)
    if not ringfeed.json("stat", run_name)["engine"].endswith("+direct"):
        serve.end()
        pytest.skip("O_DIRECT cannot be had in the temporary directory")
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["ready"] == 16)
    (throttle.group / "cgroup.procs").write_text(str(serve.pid))
    (worker,) = workers_of(serve)
    (throttle.group / "cgroup.procs").write_text(str(worker))
    trainer = Trainer(ringfeed, run_name, 0)
    until(lambda: len(trainer.lines()) >= 16 * 4)
    until(lambda: in_flight(ring_info(worker)) > 4)
    os.kill(worker, signal.SIGKILL)
    until(lambda: "goes on in arena" in serve.stderr)  # said, whether or not the run is over by then
    throttle(None)
    trainer.ok()
    assert serve.wait() == 0 and "is retired" in serve.stderr
    assert trainer.lines() == order_lines(ringfeed, records, *order)

#!/usr/bin/python3
"""late_writes.py HOLDER: workers are killed with at least 32 O_DIRECT reads in flight on a throttled device. Their reads
go on landing for a while after them; no batch that a trainer holds may change, and every byte of every batch is right.

The victim alone is throttled: the next worker reads at the device's own speed, so that a region that was given on too
early is filled, delivered and filled again while the dead one's reads are still on their way. That this would show is
proved in the same run by a control in which the parent skips the drain (RINGFEED_TEST_NO_DRAIN, only in builds with
-Dfail_points=true): no corruption there, and the test is void. RF_STORM=1 means 1,000 kills instead of 20."""

import json
import mmap
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

import storm
from storm import TOKEN, Ringfeed, children, find_command, wait_gone
from delivery import in_flight, ring_info

KILLS = 1000 if os.environ.get("RF_STORM") else 20
CONTROL_KILLS = 6
RECORD, BATCH, DEPTH, LEAST, MORE = 65536, 8, 8, 32, 38
BYTES_A_SECOND = 12 << 20
HOLD_MS, HELD = 12, 2
WAIT = 30
SKIP = 77
# lib/segment/header.h and lib/run/run_shared.h, read by hand: the count must not come from the code under test.
REGIONS_AT, REGION, INFLIGHT, ENTRY, STAGED_AT = 152, "<IIQQQ", 4, 64, 40


class Throttle:
    """A group of processes whose reads from one device are slow."""

    def __init__(self, path, name, rate):
        self.number = self.whole_disk(path)
        self.group = self.make(name, rate)

    @staticmethod
    def whole_disk(path):
        device = os.stat(path).st_dev
        link = pathlib.Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        if not link.exists():
            raise OSError(f"{path} is on no block device")
        disk = link.resolve().parent if (link / "partition").exists() else link
        return (disk / "dev").read_text().strip()

    def make(self, name, rate):
        v1, v2 = pathlib.Path("/sys/fs/cgroup/blkio"), pathlib.Path("/sys/fs/cgroup")
        old = (v1 / "blkio.throttle.read_bps_device").exists()
        if not old and "io" not in (v2 / "cgroup.controllers").read_text().split():
            raise OSError("neither cgroup v1 blkio nor cgroup v2 io is here")
        if not old:
            (v2 / "cgroup.subtree_control").write_text("+io")
        group = (v1 if old else v2) / name
        group.mkdir()
        try:
            if old:
                (group / "blkio.throttle.read_bps_device").write_text(f"{self.number} {rate}")
            else:
                (group / "io.max").write_text(f"{self.number} rbps={rate}")
        except OSError:
            group.rmdir()
            raise
        return group

    def take(self, pid):
        (self.group / "cgroup.procs").write_text(str(pid))

    def end(self):
        for pid in (self.group / "cgroup.procs").read_text().split():
            wait_gone(int(pid), WAIT)
        self.group.rmdir()


class Table:
    """The in-flight table of a run, out of its control object."""

    def __init__(self, name):
        with open(f"/dev/shm/ringfeed.{name}", "rb") as f:
            self.map = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        number, element, self.entries, self.at, _ = struct.unpack_from(
            REGION, self.map, REGIONS_AT + INFLIGHT * struct.calcsize(REGION))
        assert (number, element) == (INFLIGHT, ENTRY), f"the in-flight table lies elsewhere now: {number}, {element}"

    def in_place(self):
        """Reads in flight that land in the arena, not in staging."""
        n = 0
        for i in range(self.entries):
            at = self.at + i * ENTRY
            n += self.map[at] != 0 and self.map[at + STAGED_AT] == 0
        return n


def until(condition, what):
    end = time.monotonic() + WAIT
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {WAIT} s: {what}"
        time.sleep(0.0005)
    return value


class Run:
    """One server with one worker, and a trainer that looks twice."""

    def __init__(self, ringfeed, holder, file, throttle, name, env=None):
        self.ringfeed, self.throttle, self.name = ringfeed, throttle, name
        self.serve = ringfeed.serve(
            file, name, "--format", "raw", "--record-bytes", RECORD, "--batch", BATCH, "--shuffle", "full", "--epochs", 0,
            "--prefetch", DEPTH, "--workers", 1, "--engine", "uring", "--direct", "on", "--queue-depth", DEPTH * BATCH,
            "--heartbeat-ms", 60000, "--max-restarts", 1000000, env=env)
        self.table = Table(name)
        self.trainer = subprocess.Popen([holder, "take", name, "0", str(RECORD), str(HOLD_MS), str(HELD)], text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=storm.clean_environment())
        self.kills, self.least, self.restarts_ms = 0, 1 << 30, []

    def released(self):
        return self.ringfeed.json("stat", self.name)["ranks"][0]["samples"] // BATCH

    def kill_one(self):
        (worker,) = until(lambda: children(self.serve.pid), "a worker")
        before = self.released()
        self.throttle.take(worker)
        info = until(lambda: ring_info(worker), "the worker's io_uring")
        until(lambda: min(in_flight(info), self.table.in_place()) >= MORE, f"{MORE} reads in flight")
        os.kill(worker, signal.SIGKILL)
        killed = time.monotonic()
        left = self.table.in_place()  # the dead one takes none off any more: so many were in flight when it died
        until(lambda: (now := children(self.serve.pid)) and now != [worker], "another worker")
        self.restarts_ms.append((time.monotonic() - killed) * 1000)
        # Twice round the ring: every region that was being written is used again.
        until(lambda: self.released() >= before + 2 * DEPTH, "the ring to go round")
        if left >= LEAST:
            self.kills += 1
            self.least = min(self.least, left)

    def end(self):
        """(batches, wrong when taken, wrong later)"""
        self.serve.send(signal.SIGTERM)
        assert self.serve.wait() == 0, self.serve.stderr[-2000:]
        out, err = self.trainer.communicate(timeout=WAIT)
        assert "was stopped" in err, f"holder: {out}{err}"
        return [int(n) for n in re.fullmatch(r"batches (\d+) wrong-at-take (\d+) wrong-later (\d+)\n", out).groups()]


def run(ringfeed, holder, file, throttle, label, kills, env=None):
    started = time.monotonic()
    one = Run(ringfeed, holder, file, throttle, f"{TOKEN}-{label}", env)
    while one.kills < kills:
        assert len(one.restarts_ms) < 3 * kills, f"of {len(one.restarts_ms)} kills, {one.kills} met {LEAST} reads in flight"
        one.kill_one()
    batches, at_take, later = one.end()
    restarts = sorted(one.restarts_ms)
    print(json.dumps({
        "run": label, "kills": len(one.restarts_ms), "counted": kills, "least_in_flight": one.least, "batches": batches, "wrong_at_take": at_take,
        "wrong_later": later, "restart_ms_median": round(restarts[len(restarts) // 2], 1),
        "restart_ms_max": round(restarts[-1], 1), "seconds": round(time.monotonic() - started, 1),
    }), flush=True)
    return at_take + later, restarts[len(restarts) // 2]


def takes_direct(file):
    try:
        fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        return os.preadv(fd, [mmap.mmap(-1, 4096)], 0) == 4096
    except OSError:
        return False
    finally:
        os.close(fd)


def skip(why):
    print(f"SKIPPED: {why}")
    sys.exit(SKIP)


def main():
    os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    holder = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="ringfeed-late-") as directory:
        ringfeed = Ringfeed(find_command(), pathlib.Path(directory))
        if ringfeed(env={"RINGFEED_FAIL_POINTS": "list"}).returncode != 0:
            skip("no control without the drain: this build has no fail points (meson -Dfail_points=true)")
        try:
            throttle = Throttle(directory, f"ringfeed-{TOKEN}", BYTES_A_SECOND)
        except OSError as e:
            skip(f"reads of this device cannot be throttled here: {e}")
        file = pathlib.Path(directory) / "records.bin"
        subprocess.run([holder, "make", file, "512", str(RECORD)], check=True)
        try:
            if not takes_direct(file):
                skip("O_DIRECT cannot be had in the temporary directory")
            wrong, drain_ms = run(ringfeed, holder, file, throttle, "drained", KILLS)
            assert wrong == 0, f"{wrong} batches were overwritten by reads of dead workers"
            assert drain_ms > 10, "void: the reads of the dead ended at once, the device was not slow"
            wrong, _ = run(ringfeed, holder, file, throttle, "control", CONTROL_KILLS, {"RINGFEED_TEST_NO_DRAIN": "1"})
            assert wrong > 0, "void: without the drain nothing was overwritten either, so this run proves nothing"
        finally:
            ringfeed.end()
            throttle.end()
    left = storm.leftovers()
    assert not left, f"left behind: {left}"


if __name__ == "__main__":
    main()

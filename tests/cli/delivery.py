"""What tests of whole runs share: serve, one trainer a rank, and what came of it, compared with `order`."""

import json
import os
import pathlib
import re
import signal
import time

WAIT = 120
# LeakSanitizer looks at an ending process from a child of it, which must not be killed for a worker.
NO_LEAKS = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


def key(line):
    return tuple(int(word) for word in line.split()[:4])


def kill_children(serve, trainers, rng, chance, pause, most=None):
    """Kills each of the server's workers with this chance, every pause() seconds, while a trainer lives, `most` at
    most (a slow build must come to publish in between); returns how many."""
    kills = 0
    while any(t.run.process.poll() is None for t in trainers):
        try:
            children = pathlib.Path(f"/proc/{serve.pid}/task/{serve.pid}/children").read_text().split()
        except OSError:  # it has ended
            children = []
        for pid in children:
            if (most is None or kills < most) and rng.random() < chance:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass
        time.sleep(pause())
    return kills


def order_lines(ringfeed, dataset, *args, env=None):
    return ringfeed.ok("order", dataset, *args, env=env).splitlines()


class Trainer:
    """`ringfeed attach` in the background, with its ids in a file."""

    def __init__(self, ringfeed, name, rank, *args, ids=None, env=None):
        self.rank = rank
        self.ids = ids or ringfeed.directory / f"ids-{name}-{rank}-{len(ringfeed.started)}"
        self.run = ringfeed.start("attach", name, "--rank", rank, "--ids", self.ids, "--check", "--json", *args, env=env)

    def lines(self):
        return self.ids.read_text().splitlines() if self.ids.exists() else []

    def ok(self, timeout=WAIT):
        """The summary of a trainer that must come to a good end."""
        status = self.run.wait(timeout)
        assert status == 0, f"rank {self.rank}: exit {status}\n{self.run.stdout}{self.run.stderr}"
        summary = json.loads(self.run.stdout)
        assert summary["check_errors"] == 0 and summary["rank"] == self.rank
        return summary


def trainers(ringfeed, name, ranks, *args):
    return [Trainer(ringfeed, name, rank, *args) for rank in ranks]


def deliver(ringfeed, dataset, name, ranks, *args, attach=(), env=None):
    """A whole run to its regular end: the lines of all ranks, sorted, and the summaries."""
    serve = ringfeed.serve(dataset, name, *args, env=env)
    run = trainers(ringfeed, name, ranks, *attach)
    summaries = [t.ok() for t in run]
    status = serve.wait(WAIT)
    assert status == 0, f"serve: exit {status}\n{serve.stderr}"
    lines = sorted((line for t in run for line in t.lines()), key=key)
    assert sum(s["samples"] for s in summaries) == len(lines)
    return lines, summaries


def verify_ok(ringfeed, dataset, files, *order):
    ringfeed.ok("verify", "--dataset", dataset, *order, *files)


def least_ring(ringfeed, dataset, name, *args):
    """The smallest --ring-bytes that serve takes: it says so itself when asked for one byte."""
    text = ringfeed.fails("serve", dataset, "--name", name, *args, "--ring-bytes", 1, status=2)
    return int(re.search(r"at least --ring-bytes (\d+)", text).group(1))


def ring_info(pid):
    """Path of the worker's io_uring in /proc, or None: pread has none, and the dead have no files."""
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:[io_uring]":
                return pathlib.Path(f"/proc/{pid}/fdinfo/{fd}")
    except OSError:
        pass
    return None


def in_flight(info):
    """Reads that the kernel has taken and not completed."""
    try:
        words = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        return (int(words["SqHead"], 0) - int(words["CqTail"], 0)) & 0xFFFFFFFF
    except (OSError, KeyError, ValueError):
        return 0

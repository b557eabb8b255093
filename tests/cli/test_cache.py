"""--cache-bytes: a part of the dataset stays in shared memory over the epochs."""

import json
import os
import random
import subprocess

import pytest

from conftest import clean_environment
from delivery import NO_LEAKS, Trainer, kill_children, order_lines
from test_bad import MOUNTS
from test_kill import until

EPOCHS = 4


def served(ringfeed, run_name, made, *args, ranks=2, epochs=EPOCHS, env=None):
    """The stat just before the end of a run, after its lines were compared with `order`. `attach --check` compares every
    byte with the file."""
    order = ("--ranks", ranks, "--batch", 7, "--shuffle", "full", "--seed", 3, "--epochs", epochs, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, *args, env=env)
    lines = order_lines(ringfeed, made.path, *order)
    mine = [line for line in lines if line.split()[1] == "0"]
    batches = len({tuple(line.split()[:3]) for line in mine})
    others = [Trainer(ringfeed, run_name, rank) for rank in range(1, ranks)]
    for t in others:
        t.ok()
    first = Trainer(ringfeed, run_name, 0, "--limit", batches - 1)
    first.ok()
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["ready"] >= 1)
    stat = ringfeed.json("stat", run_name)
    rest = Trainer(ringfeed, run_name, 0, ids=first.ids)
    rest.ok()
    assert serve.wait() == 0, serve.stderr
    came = [line for t in (first, *others) for line in t.lines()]
    assert sorted(came) == sorted(lines)
    assert first.lines() == mine
    return stat, serve


def hits(stat):
    return sum(w["cache_hits"] for w in stat["workers"])


@pytest.mark.parametrize("how", [("--engine", "pread"), ("--engine", "uring", "--direct", "off"),
                                 ("--engine", "uring", "--direct", "on")], ids=lambda h: h[1] + h[-1])
@pytest.mark.parametrize("kind", ["files", "raw", "tar"])
@pytest.mark.parametrize("part", [0.3, 1.0])
def test_every_byte_whatever_is_kept(ringfeed, run_name, make, how, kind, part):
    made = {"files": lambda: make.files(n=150, sizes=(0, 30000)), "raw": lambda: make.raw(n=400, record_bytes=1536),
            "tar": lambda: make.tar(n=120)}[kind]()
    payload = sum(len(s.data) for s in made.samples)
    room = payload * 2 if part == 1 else int(payload * part)
    stat, _ = served(ringfeed, run_name, made, *how, "--workers", 2, "--cache-bytes", room)
    n = len(made.samples)
    empty = sum(len(s.data) == 0 for s in made.samples)
    kept = stat["cached_samples"]
    assert 0 < kept <= n and stat["cached_bytes"] <= room
    if part == 1:
        assert kept == n - empty
    else:
        assert abs(stat["cached_bytes"] / payload - part) < 0.12
    # Two epochs may overlap in the rings, so a sample can be read a second time before it is kept.
    assert kept * (EPOCHS - 2) <= hits(stat) <= kept * (EPOCHS - 1)


def test_what_is_kept_is_not_read_again(ringfeed, run_name, make):
    """The whole dataset is kept, and its files are overwritten in between: later epochs have the old bytes."""
    made = make.raw(n=300, record_bytes=4096)
    order = ("--batch", 10, "--shuffle", "full", "--epochs", 3, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 1, "--cache-bytes", "4M", "--direct", "off")
    first = Trainer(ringfeed, run_name, 0, "--limit", 30)  # all of epoch 0; what is prefetched of epoch 1 is kept as well
    first.ok()
    until(lambda: ringfeed.json("stat", run_name)["cached_samples"] == 300)
    reads = sum(w["reads"] for w in ringfeed.json("stat", run_name)["workers"])
    whole = made.path.read_bytes()
    with open(made.path, "r+b") as f:
        f.write(bytes(len(whole)))
    ringfeed.ok("attach", run_name, "--rank", 0, "--limit", 29)
    assert sum(w["reads"] for w in ringfeed.json("stat", run_name)["workers"]) == reads
    made.path.write_bytes(whole)
    last = Trainer(ringfeed, run_name, 0)
    last.ok()  # the batches in the ring were filled while the file held zeros
    assert serve.wait() == 0


def test_kept_or_not_the_order_is_the_same_while_workers_die(ringfeed, run_name, make):
    made = make.files(n=200, sizes=(0, 40000))
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", "--epochs", 6, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--workers", 2, "--cache-bytes", "2M", "--max-restarts", 1000,
                           env=NO_LEAKS)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 1) for rank in range(2)]
    kills = kill_children(serve, run, random.Random(5), 0.3, lambda: 0.01, most=40)
    for t in run:
        t.ok()
    assert serve.wait() == 0 and kills > 10
    assert sorted(line for t in run for line in t.lines()) == sorted(order_lines(ringfeed, made.path, *order))


def test_no_room_is_an_error_before_anything_starts(ringfeed, run_name, tmp_path):
    """A sparse file that is larger than /dev/shm."""
    disk = os.statvfs("/dev/shm")
    total = 2 * disk.f_blocks * disk.f_frsize
    path = tmp_path / "sparse.bin"
    path.touch()
    os.truncate(path, total - total % 4096)
    args = ("--format", "raw", "--record-bytes", 4096)
    ringfeed.fails("serve", path, "--name", run_name, *args, "--cache-bytes", total, says="--cache-bytes")
    plan = ringfeed.json("plan", path, *args, "--cache-bytes", "1M")
    assert plan["memory"]["cache_samples"] == 256 and plan["memory"]["cache_bytes"] == 2 << 20


def test_less_than_a_sample_is_said(ringfeed, run_name, make):
    made = make.raw(n=10, record_bytes=4096)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--cache-bytes", 100)
    Trainer(ringfeed, run_name, 0).ok()
    assert serve.wait() == 0 and "less than one sample" in serve.stderr


@pytest.mark.skipif(not MOUNTS, reason="no mount namespace of its own can be made here")
def test_a_full_dev_shm_ends_the_growth_and_nothing_else(ringfeed, run_name, make):
    """Somebody fills /dev/shm after the start. What is kept stays, the rest is read as ever, and it is said once."""
    made = make.raw(n=4096, record_bytes=4096)
    script = """mount -t tmpfs -o size=60m tmpfs /dev/shm || exit 99
        "$0" serve "$1" --name "$2" --format raw --record-bytes 4096 --prefetch 2 --epochs 2 --shuffle full --cache-bytes 16M \\
            --workers 2 >&2 & serve=$!
        "$0" attach "$2" --rank 0 --limit 1 >&2 || exit 98
        dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 2>/dev/null
        "$0" attach "$2" --rank 0 --check --json && wait $serve"""
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, str(ringfeed.path), str(made.path), run_name], capture_output=True,
                          text=True, timeout=120, env=clean_environment(), check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["check_errors"] == 0 and summary["samples"] == 2 * 4096 - 1
    assert done.stderr.count("the resident cache stays as it is") == 1, done.stderr

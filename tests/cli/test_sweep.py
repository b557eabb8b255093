"""Block shuffle reads whole blocks: few reads, each byte about once, and the same batches as ever."""

import random
import re

import pytest

from delivery import NO_LEAKS, Trainer, kill_children, order_lines
from faulty import faulty  # noqa: F401
from test_kill import until

RECORD = 2048
N = 8192  # 16 MiB: 16 blocks of 1 MiB, 4 windows


def block_order(ranks=1, epochs=1, batch=64, block=512, window=4):
    return ("--ranks", ranks, "--batch", batch, "--shuffle", "block", "--block-samples", block, "--window-blocks", window,
            "--epochs", epochs, "--seed", 5)


def reads(stat):
    return sum(w["reads"] for w in stat["workers"])


@pytest.mark.parametrize("how", [("--direct", "on", "--engine", "uring"), ("--direct", "off", "--engine", "uring"),
                                 ("--engine", "pread")], ids=lambda h: "-".join(h[1::2]))
def test_blocks_are_read_in_large_pieces(ringfeed, run_name, make, how):
    made = make.raw(n=N, record_bytes=RECORD)
    order = (*block_order(), *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, *how, "--workers", 2)
    trainer = Trainer(ringfeed, run_name, 0, "--limit", N // 64 - 1)
    trainer.ok()
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["ready"] >= 1)
    made_reads = reads(ringfeed.json("stat", run_name))
    last = Trainer(ringfeed, run_name, 0, ids=trainer.ids)
    last.ok()
    assert serve.wait() == 0
    assert trainer.lines() == order_lines(ringfeed, made.path, *order)
    least = N * RECORD / (512 << 10)
    # Windows end inside batches, so that their edges are read twice.
    assert least <= made_reads < 2 * least, made_reads


def huge_staging(pid):
    """KiB in huge pages of what the process shares without a name."""
    held, nameless = 0, False
    for line in open(f"/proc/{pid}/smaps"):
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            nameless = "/dev/zero" in line
        elif nameless and line.startswith("ShmemPmdMapped:"):
            held += int(line.split()[1])
    return held


def test_staging_of_direct_sweeps_is_in_huge_pages(ringfeed, run_name, make):
    made = make.raw(n=N, record_bytes=RECORD)
    serve = ringfeed.serve(made.path, run_name, *block_order(window=8), *made.args, "--direct", "on", "--engine", "uring", "--workers", 1,
                           "--spares", 0, "--queue-depth", 8)
    if ringfeed.json("stat", run_name)["ranks"][0]["huge_bytes"] == 0:
        pytest.skip("this kernel gives no huge pages to shared memory")
    assert huge_staging(serve.pid) >= 8 * 512


def test_every_size_and_small_rings(ringfeed, run_name, make):
    """Records that are no multiple of a block of the device, files of all sizes, rings that hold no window."""
    for kind, made in (("odd", make.raw(n=3000, record_bytes=1001, header_bytes=17)), ("files", make.files(n=300, sizes=(0, 9000))),
                       ("tar", make.tar(n=400, sizes=(0, 5000), shards=2))):
        for extra in ((), ("--prefetch", 2), ("--prefetch", 9)):
            name = f"{run_name}-{kind}{len(extra) and extra[1]}"
            order = (*block_order(ranks=2, epochs=2, batch=7, block=50, window=3), *made.args)
            serve = ringfeed.serve(made.path, name, *order, *extra, "--workers", 3, "--direct", "on")
            run = [Trainer(ringfeed, name, rank) for rank in range(2)]
            for t in run:
                t.ok()
            assert serve.wait() == 0
            wanted = order_lines(ringfeed, made.path, *order)
            for rank, t in enumerate(run):
                assert t.lines() == [line for line in wanted if line.split()[1] == str(rank)], (kind, extra)


@pytest.mark.parametrize("how", [("--direct", "on"), ("--direct", "off", "--cache-bytes", "5M")], ids=["direct", "cached"])
def test_nothing_is_lost_while_sweeping_workers_die(ringfeed, run_name, make, how):
    made = make.raw(n=N, record_bytes=RECORD)
    order = (*block_order(ranks=2, epochs=6), *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, *how, "--workers", 2, "--max-restarts", 1000, env=NO_LEAKS)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 1) for rank in range(2)]
    rng = random.Random(9)
    kills = kill_children(serve, run, rng, 0.2, lambda: 0.004 + rng.random() * 0.02, most=40)
    for t in run:
        t.ok()
    assert serve.wait() == 0 and kills > 5
    wanted = order_lines(ringfeed, made.path, *order)
    for rank, t in enumerate(run):
        assert t.lines() == [line for line in wanted if line.split()[1] == str(rank)]


def test_pieces_that_fail_are_read_sample_by_sample(ringfeed, run_name, make, faulty):  # noqa: F811
    """Each file fails once: what a piece held is read again in the usual way. One fails for ever: its samples are
    skipped, and no others."""
    made = make.files(n=240, sizes=(200, 3000))
    names = sorted(p.name for p in made.path.iterdir())
    bad = faulty(made.path, [f"{n} 0 0 eio 1 0" for n in names[::3]] + [f"{names[100]} 0 0 eio 0 0"])
    order = (*block_order(batch=6, block=30, window=4, epochs=2), *made.args)
    serve = ringfeed.serve(bad.path, run_name, *order, "--on-error", "skip", "--workers", 1, "--engine", "uring")
    trainer = Trainer(ringfeed, run_name, 0)
    trainer.ok()
    assert serve.wait() == 0
    ids = [int(line.split()[4]) for line in trainer.lines()]
    assert sorted(ids) == sorted(2 * [i for i in range(240) if i != 100])

"""Engines as a user meets them: what `auto` picks and says, the mapped engine on files that change, cold pages, deaths."""
import os
import random
import signal
import subprocess

import pytest

from test_faults import indexed
from test_kill import until
from delivery import NO_LEAKS, Trainer, kill_children, order_lines

RECORD = 4096


@pytest.fixture
def cached(make):
    """Records that were just written: they are in the page cache."""
    return make.raw(n=3000, record_bytes=RECORD)


def is_cold(path):
    """Puts the file out of the page cache; False where that cannot be done (a tmpfs)."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    out = subprocess.run(["/usr/bin/fincore", "--bytes", "--noheadings", "--output", "RES", path], stdout=subprocess.PIPE,
                         text=True, check=True)
    return int(out.stdout.split()[0]) == 0


def deliver(ringfeed, name, made, *args):
    """Every byte checked; what stat said of the engine after the first batches, and the lines."""
    order = ("--batch", 16, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, name, *order, *args)
    engine = ringfeed.json("stat", name)["engine"]
    trainer = Trainer(ringfeed, name, 0)
    trainer.ok()
    assert serve.wait() == 0
    assert trainer.lines() == order_lines(ringfeed, made.path, *order)
    return engine, serve


@pytest.mark.parametrize("args,engine", [
    ((), "mapped"), (("--direct", "off"), "mapped"), (("--engine", "mapped"), "mapped"), (("--engine", "uring"), "uring"),
    (("--engine", "pread"), "pread"), (("--engine", "uring", "--direct", "off"), "uring"),
])
def test_data_in_memory_is_copied_unless_an_option_says_how_to_read(ringfeed, run_name, cached, args, engine):
    chosen, serve = deliver(ringfeed, run_name, cached, *args)
    assert chosen == engine and serve.stderr == ""


def test_data_on_the_device_is_queued_and_copied_once_it_is_in_memory(ringfeed, run_name, make):
    made = make.raw(n=20000, record_bytes=RECORD)
    if not is_cold(made.path):
        pytest.skip("no file system here whose page cache can be emptied")
    order = ("--batch", 16, "--shuffle", "full", "--epochs", 0, "--workers", 1, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order)
    assert ringfeed.json("stat", run_name)["engine"] == "uring"
    trainer = ringfeed.start("attach", run_name, "--rank", 0, "--check")
    until(lambda: ringfeed.json("stat", run_name)["engine"] == "mapped")
    until(lambda: "reading with mapped instead of uring" in serve.stderr)
    assert serve.stderr.count("reading with") == 1 and "% of the reads found their data in memory" in serve.stderr
    assert trainer.process.poll() is None
    trainer.process.send_signal(signal.SIGINT)
    trainer.wait()
    serve.process.send_signal(signal.SIGTERM)
    assert serve.wait() == 0


def test_the_mapped_engine_delivers_cold_data_too(ringfeed, run_name, make):
    made = make.raw(n=2000, record_bytes=RECORD)
    if not is_cold(made.path):
        pytest.skip("no file system here whose page cache can be emptied")
    for direct in ("off", "on"):
        is_cold(made.path)
        deliver(ringfeed, run_name + direct, made, "--engine", "mapped", "--direct", direct, "--workers", 2)


@pytest.mark.parametrize("keep", [0, 1500 * RECORD + 1000])
def test_a_file_cut_under_the_mapping_is_an_error_of_its_batch(ringfeed, run_name, cached, keep):
    """No signal, no dead worker: the file and the place are told."""
    order = ("--batch", 16, "--prefetch", 2, "--workers", 1, *cached.args)  # in file order, so the cut is ahead
    serve = ringfeed.serve(cached.path, run_name, *order, "--engine", "mapped")
    first = Trainer(ringfeed, run_name, 0, "--limit", 20)
    first.ok()
    os.truncate(cached.path, keep)
    rest = Trainer(ringfeed, run_name, 0, ids=first.ids)
    assert rest.run.wait() == 1
    said = rest.run.stderr
    assert cached.path.name in said and "the file ends before the index says so" in said and "index the dataset again" in said
    assert f"at offset {max(keep, 0)}" in said or keep == 0
    stat = ringfeed.json("stat", run_name)
    assert stat["restarts"] == 0 and stat["workers"][0]["incarnation"] == 1
    serve.process.send_signal(signal.SIGTERM)
    assert serve.wait() == 0


def test_a_cut_file_goes_to_the_mirror(ringfeed, run_name, cached, tmp_path):
    """The index has checksums, so that every byte is compared though the file that `attach --check` reads is cut."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / cached.path.name).write_bytes(cached.path.read_bytes())
    index, order = indexed(ringfeed, cached.path, tmp_path, "--checksum", *cached.args), ("--batch", 16)
    wanted = order_lines(ringfeed, index, *order)
    serve = ringfeed.serve(index, run_name, *order, "--prefetch", 2, "--workers", 1, "--engine", "mapped",
                           "--mirror", mirror)
    first = Trainer(ringfeed, run_name, 0, "--limit", 20)
    first.ok()
    os.truncate(cached.path, 2000 * RECORD)
    rest = ringfeed.start("attach", run_name, "--rank", 0, "--ids", first.ids)
    assert rest.wait() == 0 and serve.wait() == 0
    assert first.lines() == wanted and serve.stderr.count("the file ends there") == 1


def test_workers_killed_while_they_copy(ringfeed, run_name, make):
    made = make.raw(n=4000, record_bytes=20000)
    order = ("--batch", 8, "--shuffle", "full", "--ranks", 2, "--epochs", 2, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--engine", "mapped", "--workers", 2, "--max-restarts", 1000,
                           env=NO_LEAKS)
    trainers = [Trainer(ringfeed, run_name, r) for r in range(2)]
    kills = kill_children(serve, trainers, random.Random(3), 0.7, lambda: 0.01)
    for t in trainers:
        t.ok()
    assert serve.wait() == 0 and kills >= 3
    assert sorted(line for t in trainers for line in t.lines()) == sorted(order_lines(ringfeed, made.path, *order))

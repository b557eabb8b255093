"""Reads that fail: EIO, short, zero-filled, flipped, late, cut. With another copy of the data right bytes come, with
checksums wrong ones are found, and what no copy gives is an error, left out or replaced, always alike."""

import json
import os
import random
import shutil
import signal
import time

import pytest

from delivery import NO_LEAKS, Trainer, deliver, kill_children, order_lines, trainers
from faulty import decisions, expected, faulty, split  # noqa: F401 (faulty is a fixture)
from test_kill import until

ENGINES = ("uring", "pread")
STORM_EPOCHS = 40 if os.environ.get("RF_STORM") == "1" else 5
ONCE = {"eio": "eio 1 0", "short": "short 1 0", "zero": "zero 1 0", "flip": "flip 1 0", "eof": "eof 1 0", "late": "late 1 20"}


@pytest.fixture(autouse=True)
def nobody_fell(ringfeed):
    """A worker that ends by itself is replaced and its batches come all the same: that must not hide it."""
    yield
    for one in ringfeed.started:
        for word in ("ended with status", "Sanitizer", "runtime error", "Assertion"):
            assert word not in one.stderr, one.stderr[-3000:]


@pytest.fixture
def run(ringfeed, new_name):
    """A whole run with stat read before its end: lines, stat, messages of serve."""

    def go(dataset, *args, ranks=1):
        name = new_name()
        batches = batches_of(ringfeed, dataset, ranks, args)
        serve = ringfeed.serve(dataset, name, "--ranks", ranks, *args)
        run = trainers(ringfeed, name, range(1, ranks))
        for t in run:
            t.ok()
        first = Trainer(ringfeed, name, 0, "--limit", max(1, batches - 1))
        first.ok()
        stat = last_stat(ringfeed, name)
        rest = Trainer(ringfeed, name, 0)
        rest.ok()
        assert serve.wait() == 0, serve.stderr
        lines = [line for t in [first, rest, *run] for line in t.lines()]
        return sorted(lines, key=lambda l: tuple(map(int, l.split()[:4]))), stat, serve.stderr

    return go


def last_stat(ringfeed, name):
    """Of a run of which everything but rank 0's last batch is delivered, and that one is ready, with the end behind it."""
    deadline = time.monotonic() + 30
    while True:
        stat = ringfeed.json("stat", name)
        if stat["ranks"][0]["ready"] >= 2:
            return stat
        assert time.monotonic() < deadline, stat
        time.sleep(0.01)


OWN_OPTIONS = ("--mirror", "--engine", "--workers", "--on-error", "--hedge-ms", "--direct", "--queue-depth", "--prefetch",
               "--heartbeat-ms", "--max-restarts")


def order_args(args):
    """The options of serve that `order` knows too."""
    args, kept = list(args), []
    while args:
        one = args.pop(0)
        if one in OWN_OPTIONS:
            args.pop(0)
        else:
            kept.append(one)
    return kept


def batches_of(ringfeed, dataset, ranks, args):
    lines = order_lines(ringfeed, dataset, "--ranks", ranks, *order_args(args))
    return len({tuple(l.split()[:3]) for l in lines if l.split()[1] == "0"})


def indexed(ringfeed, dataset, tmp_path, *args):
    index = tmp_path / f"{random.randrange(1 << 40)}.rfi"
    done = ringfeed("index", dataset, "-o", index, *args)
    if "built without CRC32C" in done.stderr:
        pytest.skip("this build has no CRC32C (ISA-L was not found)")
    assert done.returncode == 0, done.stderr
    return index


# ---- every read of an epoch fails once ----


@pytest.mark.parametrize("kind", ONCE)
@pytest.mark.parametrize("shape,engine", [("files", "uring"), ("files", "pread"), ("raw", "uring")])
def test_every_read_fails_once_and_a_mirror_has_the_bytes(ringfeed, run, make, faulty, tmp_path, shape, kind, engine):  # noqa: F811
    made = make.files(n=60, sizes=(0, 9000)) if shape == "files" else make.raw(n=120, record_bytes=700)
    folder = made.path if made.path.is_dir() else made.path.parent
    bad = faulty(folder, [f"* 0 0 {ONCE[kind]}"])
    seen = bad.path if made.path.is_dir() else bad.path / made.path.name
    index = indexed(ringfeed, seen, tmp_path, "--checksum", *made.args)
    order = ("--batch", 4, "--shuffle", "full", "--epochs", 2)
    lines, stat, said = run(index, *order, "--mirror", folder, "--engine", engine, "--workers", 2, ranks=2)
    assert lines == order_lines(ringfeed, index, "--ranks", 2, *order)
    assert bad.spoilt() >= 20
    assert stat["errors"] == stat["skipped"] == stat["substituted"] == 0
    if kind in ("eio", "zero", "flip", "eof"):
        assert stat["repaired"] >= 20 and f"{bad.path}" in said
    if kind in ("zero", "flip"):
        assert stat["wrong_copies"] >= 20 and "does not match its checksum" in said


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ONCE)
def test_every_read_fails_once_and_there_is_no_other_copy(ringfeed, new_name, make, faulty, tmp_path, kind, engine):  # noqa: F811
    """Right bytes or the typed error with file, offset and sample; the next batch follows."""
    made = make.files(n=40, sizes=(1, 5000))
    bad = faulty(made.path, [f"* 0 0 {ONCE[kind]}"])
    index = indexed(ringfeed, bad.path, tmp_path, "--checksum")
    name = new_name()
    serve = ringfeed.serve(index, name, "--batch", 4, "--engine", engine, "--workers", 1, "--epochs", 2)
    lines, errors = [], []
    while True:
        trainer = Trainer(ringfeed, name, 0)
        status = trainer.run.wait()
        lines += trainer.lines()
        if status == 0:
            break
        assert "check:" not in trainer.run.stderr
        errors.append(trainer.run.stderr)
        assert len(errors) <= 20
    assert serve.wait() == 0
    wanted = order_lines(ringfeed, index, "--batch", 4, "--epochs", 2)
    assert len(lines) + 4 * len(errors) == len(wanted) and set(lines) <= set(wanted)
    if kind in ("short", "late"):
        assert not errors and bad.spoilt() >= 40
        return
    assert errors
    why = {"eio": "Input/output error", "eof": "the file ends before", "zero": "checksum", "flip": "checksum"}[kind]
    for text in errors:
        assert why in text and f"{bad.path}/" in text and "sample " in text and "offset " in text


@pytest.mark.parametrize("kind", ["eio", "short", "zero"])
def test_the_page_cache_between_us_and_the_fault_hides_nothing(ringfeed, run, make, faulty, tmp_path, kind):  # noqa: F811
    """Through the cache a short answer of the file system becomes zeros, or the end of the file for a while."""
    made = make.files(n=40, sizes=(5000, 60000))
    bad = faulty(made.path, [f"* 0 0 {ONCE[kind]}"], "cached")
    index = indexed(ringfeed, bad.path, tmp_path, "--checksum")  # an open by a worker empties the cache again
    order = ("--batch", 4, "--shuffle", "full")
    lines, stat, _ = run(index, *order, "--mirror", made.path)
    assert lines == order_lines(ringfeed, made.path, *order)
    assert bad.spoilt() >= 20 and stat["errors"] == 0
    assert stat["repaired"] >= (20 if kind == "zero" else 0)  # the others may heal when they are asked for again


# ---- samples that no copy gives ----


def spoil_some(made, rng, n=12):
    """Rules for some files that can never be read, in all the ways, and the numbers of their samples."""
    bad = sorted(rng.sample([i for i, s in enumerate(made.samples) if len(s.data) > 100], n))
    names = sorted(p.name for p in made.path.iterdir())
    kinds = ["eio", "zero", "flip", "eof"]
    return [f"{names[i]} 0 0 {kinds[k % 4]} 0 0" for k, i in enumerate(bad)], set(bad)


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_what_cannot_be_read_is_decided_alike_by_everyone(ringfeed, run, make, faulty, tmp_path, policy):  # noqa: F811
    made = make.files(n=80, sizes=(0, 6000))
    rules, lost = spoil_some(made, random.Random(3))
    bad = faulty(made.path, rules)
    index = indexed(ringfeed, bad.path, tmp_path, "--checksum")
    order = ("--batch", 5, "--shuffle", "full", "--epochs", 2, "--tail", "pad")
    wanted, log = expected(order_lines(ringfeed, index, "--ranks", 3, *order), policy, lost, lambda i: len(made.samples[i].data))
    for engine, workers in (("uring", 1), ("uring", 3), ("pread", 2), ("uring", 2)):
        lines, stat, _ = run(index, *order, "--on-error", policy, "--engine", engine, "--workers", workers, ranks=3)
        assert lines == wanted, (engine, workers)
        assert decisions(stat) == log
        assert (stat["skipped"], stat["substituted"]) == ((len(log), 0) if policy == "skip" else (0, len(log)))
        assert all(f["file"].startswith(str(bad.path)) and f["error"] for f in stat["faults"])


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_fixed_size_samples_stay_one_tensor(ringfeed, run, make, faulty, tmp_path, policy):  # noqa: F811
    """Neighbours share reads: only the record that cannot be read goes."""
    made = make.raw(n=200, record_bytes=4096)
    lost = {0, 7, 8, 9, 50, 77, 199}
    bad = faulty(made.path.parent, [f"{made.path.name} {4096 * i + 10} {4096 * i + 20} eio 0 0" for i in sorted(lost)])
    index = indexed(ringfeed, bad.path / made.path.name, tmp_path, *made.args)
    for shuffle in ("none", "full"):
        order = ("--batch", 16, "--shuffle", shuffle)
        wanted, log = expected(order_lines(ringfeed, index, "--ranks", 2, *order), policy, lost, lambda i: 4096)
        for engine in ENGINES:
            lines, stat, _ = run(index, *order, "--on-error", policy, "--engine", engine, ranks=2)
            assert lines == wanted and decisions(stat) == log


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_fields_and_labels_follow_the_substitute(ringfeed, run, make, faulty, tmp_path, policy):  # noqa: F811
    """In a shard neighbours are one read, gaps included; --check compares every field with its sample's."""
    made = make.webdataset(n=60, sizes=(600, 3000))
    where = ringfeed.json_lines("samples", made.path)
    extents = [(s["offset"], s["extent_bytes"]) for s in where]
    lost = {5, 6, 20, 41, 59}
    rules = [f"shard-0000.tar {extents[i][0]} {extents[i][0] + 500} eio 0 0" for i in sorted(lost)]
    seen = faulty(made.path, rules).path
    for order in (("--batch", 8), ("--batch", 7, "--shuffle", "full")):
        wanted, log = expected(order_lines(ringfeed, seen, *order), policy, lost, lambda i: extents[i][1])
        lines, stat, _ = run(seen, *order, "--on-error", policy, "--engine", "uring")
        assert lines == wanted and decisions(stat) == log


def test_a_batch_of_which_nothing_is_left_is_empty(ringfeed, run, make, faulty, tmp_path):  # noqa: F811
    made = make.files(n=20, sizes=(10, 500))
    names = sorted(p.name for p in made.path.iterdir())
    bad = faulty(made.path, [f"{names[i]} 0 0 eio 0 0" for i in (4, 5, 6, 7, 9)])
    lines, stat, _ = run(bad.path, "--batch", 4, "--on-error", "skip")
    wanted, log = expected(order_lines(ringfeed, bad.path, "--batch", 4), "skip", {4, 5, 6, 7, 9}, None)
    assert lines == wanted and decisions(stat) == log and stat["skipped"] == 5
    assert not any(line.split()[2] == "1" for line in lines)


def test_a_substitute_that_no_sample_can_be_is_an_error(ringfeed, new_name, make, faulty, tmp_path):  # noqa: F811
    made = make.files(n=12, sizes=(100, 100))
    names = sorted(p.name for p in made.path.iterdir())
    (made.path / names[3]).write_bytes(b"x" * 10)  # the smallest of all: nothing fits its place
    bad = faulty(made.path, [f"{names[3]} 0 0 eio 0 0"])
    name = new_name()
    serve = ringfeed.serve(bad.path, name, "--batch", 4, "--on-error", "replace")
    trainer = Trainer(ringfeed, name, 0)
    assert trainer.run.wait() == 1
    assert "sample 3," in trainer.run.stderr and names[3] in trainer.run.stderr and "Input/output error" in trainer.run.stderr
    Trainer(ringfeed, name, 0).ok()
    assert serve.wait() == 0


def test_a_full_error_log_is_said_and_raises(ringfeed, new_name, make, faulty, tmp_path):  # noqa: F811
    made = make.raw(n=1300, record_bytes=512)
    bad = faulty(made.path.parent, ["* 0 0 eio 0 0"])
    name = new_name()
    seen = bad.path / made.path.name
    serve = ringfeed.serve(seen, name, *made.args, "--batch", 100, "--on-error", "skip", "--workers", 1)
    empty = Trainer(ringfeed, name, 0)
    assert empty.run.wait() == 1 and "cannot read batch " in empty.run.stderr
    assert empty.lines() == []
    stat = ringfeed.json("stat", name)
    assert stat["skipped"] == 1024
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0
    assert serve.stderr.count("is full (1024 decisions)") == 1


# ---- deaths between a decision and its publication ----


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_decisions_outlive_the_workers_that_made_them(ringfeed, run_name, make, faulty, tmp_path, policy):  # noqa: F811
    """Reads fail once, so that whoever reads a batch again after a death would decide otherwise; they come late, so
    that deaths meet batches half decided. The log as it stands at the end must explain every line."""
    made = make.files(n=240, sizes=(200, 6000))
    rng = random.Random(11)
    names = [name for name, s in zip(sorted(p.name for p in made.path.iterdir()), made.samples) if len(s.data) > 1500]
    rules = [f"{name} 0 0 eio 1 0" for name in rng.sample(names, 80)] + ["* 0 0 late 0 2"]
    bad = faulty(made.path, rules)
    order = ("--batch", 6, "--ranks", 2, "--shuffle", "full", "--epochs", STORM_EPOCHS)
    serve = ringfeed.serve(bad.path, run_name, *order, "--on-error", policy, "--workers", 2, "--max-restarts", 1000,
                           "--engine", "uring", env=NO_LEAKS)
    run = [Trainer(ringfeed, run_name, 0, "--step-ms", 10, "--limit", 20 * STORM_EPOCHS - 1),
           Trainer(ringfeed, run_name, 1, "--step-ms", 10)]
    kills = kill_children(serve, run, rng, 0.5, lambda: 0.01 + rng.random() * 0.03)
    for t in run:
        t.ok()
    stat = last_stat(ringfeed, run_name)
    last = Trainer(ringfeed, run_name, 0)
    last.ok()
    assert serve.wait() == 0 and kills >= 10
    log = {}
    for f in stat["faults"]:
        key = (f["epoch"], f["rank"], f["batch"], f["slot"])
        assert key not in log, "decided twice"
        log[key] = f["substitute"]
    assert len(log) >= 20
    wanted = []
    for (epoch, rank, batch), samples in split(order_lines(ringfeed, bad.path, *order)).items():
        kept = []
        for slot, (index, flag) in enumerate(samples):
            if (epoch, rank, batch, slot) not in log:
                kept.append((index, flag))
            elif log[epoch, rank, batch, slot] is not None:
                kept.append((log[epoch, rank, batch, slot], "s"))
        wanted += [f"{epoch} {rank} {batch} {slot} {index} {flag}" for slot, (index, flag) in enumerate(kept)]
    assert sorted(line for t in [*run, last] for line in t.lines()) == sorted(wanted)


def test_deaths_with_second_reads_and_mirrors_under_way(ringfeed, run_name, make, faulty, tmp_path):  # noqa: F811
    made = make.files(n=240, sizes=(0, 90000))
    names = sorted(p.name for p in made.path.iterdir())
    rng = random.Random(4)
    rules = [f"{n} 0 0 eio 2 0" for n in rng.sample(names, 60)] + [f"{n} 0 0 stale 3 25" for n in rng.sample(names, 60)]
    bad = faulty(made.path, rules)
    index = indexed(ringfeed, bad.path, tmp_path, "--checksum")
    order = ("--batch", 6, "--ranks", 2, "--shuffle", "full", "--epochs", STORM_EPOCHS)
    serve = ringfeed.serve(index, run_name, *order, "--mirror", made.path, "--hedge-ms", 5, "--workers", 2, "--prefetch", 2,
                           "--max-restarts", 1000, env=NO_LEAKS)
    run = [Trainer(ringfeed, run_name, rank, "--step-ms", 4) for rank in (0, 1)]
    kills = kill_children(serve, run, rng, 0.3, lambda: 0.02 + rng.random() * 0.05)
    for t in run:
        t.ok()
    assert serve.wait() == 0 and kills >= 5
    assert sorted(line for t in run for line in t.lines()) == sorted(order_lines(ringfeed, made.path, *order))


def test_verify_counts_what_was_replaced(ringfeed, new_name, make, faulty, tmp_path):  # noqa: F811
    made = make.files(n=30, sizes=(100, 900))
    names = sorted(p.name for p in made.path.iterdir())
    bad = faulty(made.path, [f"{names[i]} 0 0 eio 0 0" for i in (3, 17, 18)])
    name, order = new_name(), ("--batch", 4, "--shuffle", "full", "--epochs", 2)
    serve = ringfeed.serve(bad.path, name, *order, "--on-error", "replace")
    trainer = Trainer(ringfeed, name, 0)
    trainer.ok()
    assert serve.wait() == 0
    lines = trainer.lines()
    said = ringfeed.json("verify", "--dataset", made.path, *order, trainer.ids)
    assert said["good"] and said["substituted"] == said["replaced"] == 6 and said["missing"] == said["wrong"] == 0
    said = ringfeed.json("verify", "--dataset", made.path, trainer.ids)
    assert said["good"] and said["substituted"] == said["replaced"] == 6
    cut = tmp_path / "cut"  # a sample that is missing besides those replaced is still found
    gone = next(i for i, line in enumerate(lines) if line.endswith("-") and line.split()[2] == "7")
    cut.write_text("".join(f"{line}\n" for line in lines[:gone] + lines[gone + 1:]))
    for args in (order, ()):
        done = ringfeed("verify", "--dataset", made.path, *args, cut, "--json")
        assert done.returncode == 1 and not json.loads(done.stdout)["good"]
    forged = tmp_path / "forged"  # and so is a sample that the order did not ask for
    forged.write_text("".join(f"{line}\n" for line in lines).replace("0 0 1 2 ", "0 0 1 2 1", 1))
    assert ringfeed("verify", "--dataset", made.path, *order, forged).returncode == 1


# ---- on disk: O_DIRECT, checksums, mirrors ----


def flip(path, at):
    """Changes one byte and keeps size and time, as a failing disk does."""
    st = os.stat(path)
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


RECORDS = {"fixed": 5000, "fixed-aligned": 8192}


@pytest.mark.parametrize("direct", ["on", "off"])
@pytest.mark.parametrize("shape", ["small", "large", "fixed", "fixed-aligned"])
def test_flipped_bytes_are_found_and_come_from_the_mirror(ringfeed, run, new_name, make, tmp_path, shape, direct):
    if shape in RECORDS:
        made = make.raw(n=90, record_bytes=RECORDS[shape])
        folder = made.path.parent
    else:
        made = make.files(n=40, sizes=(1, 3000) if shape == "small" else (100000, 400000))
        folder = made.path
    names = sorted(p.name for p in folder.iterdir())
    index = indexed(ringfeed, made.path, tmp_path, "--checksum", *made.args)
    mirror = tmp_path / "mirror"
    shutil.copytree(folder, mirror)
    rng, lost = random.Random(5), {}
    for i in (0, 3, 4, 5, 31):
        at = rng.randrange(len(made.samples[i].data))
        lost[i] = (made.samples[i].data[at], made.samples[i].data[at] ^ 0x10)
        flip(folder / names[0 if shape in RECORDS else i], at + (RECORDS[shape] * i if shape in RECORDS else 0))
    order = ("--batch", 8, "--shuffle", "block")
    wanted = order_lines(ringfeed, index, *order)

    # The check compares with the dataset's own files: it must find just the bytes that were flipped there.
    name = new_name()
    serve = ringfeed.serve(index, name, *order, "--direct", direct, "--mirror", mirror, "--workers", 1)
    most = Trainer(ringfeed, name, 0, "--limit", len(split(wanted)) - 1)
    most.run.wait()
    stat = last_stat(ringfeed, name)
    rest = Trainer(ringfeed, name, 0)
    rest.run.wait()
    assert serve.wait() == 0
    assert most.lines() + rest.lines() == wanted
    assert stat["repaired"] == stat["wrong_copies"] == len(lost)
    assert serve.stderr.count("does not match its checksum") == (1 if shape in RECORDS else len(lost))
    said = most.run.stderr + rest.run.stderr
    assert said.count("check:") == len(lost)
    for i, (right, wrong) in lost.items():
        (line,) = [l for l in said.splitlines() if f"check: sample {i} differs" in l]
        assert line.endswith(f"got 0x{right:02x}, the file has 0x{wrong:02x}")

    for policy in ("replace", "skip"):
        after, log = expected(wanted, policy, set(lost), lambda i: len(made.samples[i].data))
        lines, stat, _ = run(index, *order, "--direct", direct, "--on-error", policy)
        assert lines == after and decisions(stat) == log and stat["wrong_copies"] >= len(lost)


def test_checksums_are_told_and_change_no_fingerprint(ringfeed, make, tmp_path):
    made = make.webdataset(n=30)
    plain = indexed(ringfeed, made.path, tmp_path, *made.args)
    summed = indexed(ringfeed, made.path, tmp_path, "--checksum", *made.args)
    again = indexed(ringfeed, plain, tmp_path, "--checksum")
    facts = [ringfeed.json("inspect", path) for path in (made.path, plain, summed, again)]
    assert [f["checksums"] for f in facts] == [False, False, True, True]
    assert len({f["fingerprint"] for f in facts}) == 1
    assert summed.read_bytes() == again.read_bytes()
    assert ringfeed.ok("samples", plain) == ringfeed.ok("samples", summed)


def test_a_damaged_index_with_checksums_is_refused(ringfeed, make, tmp_path):
    made = make.raw(n=200, record_bytes=100)
    plain = indexed(ringfeed, made.path, tmp_path, *made.args)
    index = indexed(ringfeed, made.path, tmp_path, "--checksum", *made.args)
    good = index.read_bytes()
    assert len(good) - len(plain.read_bytes()) == 832  # 4 bytes a sample, to the next 64
    broken = tmp_path / "broken.rfi"
    rng = random.Random(2)
    for at in [len(good) - 832 + rng.randrange(800) for _ in range(10)] + [len(good) - 832, len(good) - 33]:
        data = bytearray(good)
        data[at] ^= 1 << rng.randrange(8)
        broken.write_bytes(data)
        ringfeed.fails("inspect", broken, says=["broken.rfi", "checksum does not match"])
    for size in (len(good) - 1, len(good) - 832, len(good) - 400, 5000, 100):
        broken.write_bytes(good[:size])
        ringfeed.fails("inspect", broken, says=["broken.rfi", "truncated"])


def test_checksums_need_readable_files(ringfeed, make, tmp_path):
    made = make.raw(n=20)
    index = indexed(ringfeed, made.path, tmp_path, *made.args)
    made.path.write_bytes(b"")
    ringfeed.fails("index", index, "--checksum", "-o", tmp_path / "x.rfi", says=[made.path.name])


def test_a_wrong_mirror_is_refused_with_file_and_offset(ringfeed, run_name, make, tmp_path):
    made = make.files(n=20, sizes=(5000, 20000))
    names = sorted(p.name for p in made.path.iterdir())
    plain, summed = indexed(ringfeed, made.path, tmp_path), indexed(ringfeed, made.path, tmp_path, "--checksum")

    def refused(folder, *says, status=1):
        for index in (plain, summed):
            ringfeed.fails("serve", index, "--name", run_name, "--mirror", folder, status=status, says=["--mirror", *says])

    def copy(name):
        shutil.copytree(made.path, tmp_path / name)
        return tmp_path / name

    refused(tmp_path / "nowhere", "nowhere")
    refused(made.path / names[0], "not a folder")
    one = copy("missing")
    (one / names[7]).unlink()
    refused(one, f"missing/{names[7]}", "No such file")
    one = copy("short")
    os.truncate(one / names[4], 100)
    refused(one, f"short/{names[4]}", "100 bytes")
    one = copy("other")
    flip(one / names[9], 17)
    refused(one, f"other/{names[9]}", "offset")
    one = copy("kind")
    (one / names[2]).unlink()
    (one / names[2]).mkdir()
    refused(one, f"kind/{names[2]}")
    refused(made.path, "own file", status=2)
    good = copy("good")
    ringfeed.fails("serve", plain, "--name", run_name, "--mirror", good, "--mirror", good, status=2, says=["twice", "good"])
    ringfeed.serve(plain, run_name, "--mirror", good, "--mirror", copy("better"))
    Trainer(ringfeed, run_name, 0).ok()


def test_the_second_mirror_helps_when_the_first_is_wrong_too(ringfeed, new_name, make, tmp_path):
    made = make.files(n=24, sizes=(1000, 9000))
    names = sorted(p.name for p in made.path.iterdir())
    index = indexed(ringfeed, made.path, tmp_path, "--checksum")
    mirrors = [tmp_path / "m1", tmp_path / "m2"]
    for m in mirrors:
        shutil.copytree(made.path, m)
    name = new_name()
    serve = ringfeed.serve(index, name, "--batch", 4, "--prefetch", 2, *(w for m in mirrors for w in ("--mirror", m)))
    lost = (12, 15, 20)  # beyond what is read before a trainer comes
    for i in lost:
        flip(made.path / names[i], 5)
        flip(mirrors[0] / names[i], 5)
    ringfeed.json("attach", name, "--rank", 0, "--limit", 5)
    stat = last_stat(ringfeed, name)
    assert stat["repaired"] == 3 and stat["wrong_copies"] == 6
    ringfeed.json("attach", name, "--rank", 0)
    assert serve.wait() == 0
    assert all(serve.stderr.count(f"{m}/{names[i]}: wrong bytes") == 1 for i in lost for m in (made.path, mirrors[0]))


@pytest.mark.parametrize("policy", ["raise", "skip", "replace", "mirror"])
def test_a_file_cut_while_it_is_served(ringfeed, new_name, make, tmp_path, policy):
    made = make.raw(n=400, record_bytes=1000)
    mirror = tmp_path / "mirror"
    shutil.copytree(made.path.parent, mirror)
    name = new_name()
    options = ("--mirror", mirror) if policy == "mirror" else ("--on-error", policy)
    serve = ringfeed.serve(made.path, name, *made.args, "--batch", 10, "--prefetch", 2, "--workers", 1, *options)
    kept = 350  # far behind what is prefetched
    until(lambda: ringfeed.json("stat", name)["ranks"][0]["ready"] == 2)  # the worker has opened the whole file
    os.truncate(made.path, kept * 1000 + 500)
    first = ringfeed.json("attach", name, "--rank", 0, "--limit", 35)
    assert first["samples"] == 350
    if policy == "raise":
        text = ringfeed.fails("attach", name, "--rank", 0, says=["batch 35", "sample 350", made.path.name])
        assert "the file ends before" in text or "shorter than" in text
        serve.send(signal.SIGTERM)
    else:
        # the truth is gone from the file: counts, and for the mirror the repaired ones
        rest = ringfeed.json("attach", name, "--rank", 0, "--limit", 4)
        stat = last_stat(ringfeed, name)
        if policy == "mirror":
            assert rest["samples"] == 40 and stat["repaired"] == 50
        elif policy == "skip":
            assert rest["samples"] == 0 and stat["skipped"] == 50
        else:
            assert rest["samples"] == 40 and stat["substituted"] == 50
            # the next that can be read: the epoch's first, once round
            assert {f["substitute"] for f in stat["faults"]} == {0}
        ringfeed.json("attach", name, "--rank", 0)
    assert serve.wait() == 0


# ---- late reads ----


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_late_read_is_asked_for_again_and_the_first_to_come_counts(ringfeed, new_name, make, faulty, tmp_path, mirrored):  # noqa: F811
    """The late ones come long after their batches were published, released and their places used again."""
    made = make.files(n=120, sizes=(0, 200000))
    names = sorted(p.name for p in made.path.iterdir())
    late = [i for i in random.Random(1).sample(range(40), 10) if len(made.samples[i].data)]
    bad = faulty(made.path, [f"{names[i]} 0 0 late 1 10000" for i in late])
    name, order = new_name(), ("--batch", 4, "--epochs", 2)
    options = ("--mirror", made.path) if mirrored else ()
    started = time.monotonic()
    serve = ringfeed.serve(bad.path, name, *order, "--hedge-ms", 30, "--engine", "uring", "--workers", 2, *options)
    trainer = Trainer(ringfeed, name, 0, "--limit", 59)
    trainer.ok()
    assert time.monotonic() - started < 9.5, "somebody waited for a late read"
    stat = last_stat(ringfeed, name)
    assert sum(w["hedges_won"] for w in stat["workers"]) >= len(late)
    assert sum(w["hedges"] for w in stat["workers"]) >= sum(w["hedges_won"] for w in stat["workers"])
    rest = Trainer(ringfeed, name, 0)
    rest.ok()
    assert serve.wait() == 0
    assert trainer.lines() + rest.lines() == order_lines(ringfeed, bad.path, *order)
    assert bad.spoilt() >= len(late)


def test_late_bytes_change_nothing_that_was_delivered(ringfeed, new_name, make, faulty, tmp_path):  # noqa: F811
    """The late reads bring zeros, while a small ring goes round many times: nobody may see them."""
    made = make.raw(n=600, record_bytes=30000)
    rules = [f"{made.path.name} {30000 * i + 1000} {30000 * i + 2000} stale 1 300" for i in range(3, 150, 10)]
    bad = faulty(made.path.parent, rules)
    name, order = new_name(), (*made.args, "--batch", 3, "--epochs", 3)
    index = indexed(ringfeed, bad.path / made.path.name, tmp_path, "--checksum", *made.args)
    order = order[len(made.args):]
    serve = ringfeed.serve(index, name, *order, "--hedge-ms", 20, "--prefetch", 2, "--engine", "uring",
                           "--mirror", made.path.parent)
    trainer = Trainer(ringfeed, name, 0)
    trainer.ok()
    assert serve.wait() == 0
    assert bad.spoilt() == 15
    order = (*made.args, *order)
    assert trainer.lines() == order_lines(ringfeed, made.path, *order)


def test_a_hedge_that_fails_and_a_first_read_that_fails(ringfeed, run, make, faulty, tmp_path):  # noqa: F811
    """Whichever of the two fails, the other one counts; when both do, the policy decides."""
    made = make.files(n=60, sizes=(100, 3000))
    names = sorted(p.name for p in made.path.iterdir())
    slow = faulty(made.path, [f"{n} 0 0 late 0 120" for n in names[:10]] + [f"{n} 0 0 late 1 120" for n in names[10:20]])
    broken = faulty(made.path, [f"{n} 0 0 eio 0 0" for n in names[:10]])
    order = ("--batch", 5, "--shuffle", "full")
    lines, stat, _ = run(slow.path, *order, "--hedge-ms", 20, "--mirror", broken.path, "--engine", "uring")
    assert lines == order_lines(ringfeed, made.path, *order)
    assert sum(w["hedges"] for w in stat["workers"]) >= 15 and stat["errors"] == 0
    assert 5 <= sum(w["hedges_won"] for w in stat["workers"]) < sum(w["hedges"] for w in stat["workers"])


@pytest.mark.parametrize("direct", ["on", "off"])
def test_hedging_delivers_the_same_bytes(ringfeed, make, new_name, direct):
    """All reads through staging, of every shape; a hedge of a millisecond makes some of them race."""
    for made in (make.files(n=30, sizes=(0, 3000000)), make.raw(n=100, record_bytes=100000), make.raw(n=500, record_bytes=512)):
        order = (*made.args, "--batch", 7, "--shuffle", "full")
        lines, _ = deliver(ringfeed, made.path, new_name(), [0], *order, "--hedge-ms", 1, "--direct", direct)
        assert lines == order_lines(ringfeed, made.path, *order)


def test_hedging_says_where_it_cannot_help(ringfeed, run_name, make):
    made = make.raw(n=20)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--hedge-ms", 5, "--engine", "pread")
    Trainer(ringfeed, run_name, 0).ok()
    assert serve.wait() == 0 and serve.stderr.count("--hedge-ms does nothing here") == 1

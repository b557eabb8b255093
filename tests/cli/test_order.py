"""order and verify: what each rank will get, against lists written out by hand here, and an audit that
must find whatever is done to them."""

import itertools
import json
import random
import subprocess

import pytest

from conftest import clean_environment

TAILS = ("uneven", "drop", "pad")


def lines(text):
    return [tuple(int(w) for w in line.split()[:5]) + (line.split()[5],) for line in text.splitlines()]


def members(strategy, n, world, ranges=None):
    """Sequence of every rank, unshuffled."""
    if strategy == "round-robin":
        return [list(range(r, n, world)) for r in range(world)]
    if strategy == "range":
        return [list(range(lo, hi)) for lo, hi in ranges]
    out, lo = [], 0
    for r in range(world):
        hi = lo + n // world + (r < n % world)
        out.append(list(range(lo, hi)))
        lo = hi
    return out


def batches(ranks, tail, size, epoch_order):
    """Lines (rank, batch, slot, index, flag) of one epoch by the tail rule."""
    counts = [len(r) for r in ranks]
    out = []
    for rank, ids in enumerate(ranks):
        if tail == "drop":
            length = min(counts) // size * size
        elif tail == "pad":
            length = -(-max(counts) // size) * size
        else:
            length = len(ids)
        source = ids or epoch_order
        for p in range(length):
            index = ids[p] if p < len(ids) else source[p % len(source)]
            out.append((rank, p // size, p % size, index, "-" if p < len(ids) else "p"))
    return out


@pytest.mark.parametrize("strategy,tail", itertools.product(("round-robin", "contiguous", "range"), TAILS))
def test_unshuffled_order_is_the_plain_list(ringfeed, strategy, tail):
    for n, world, size in itertools.product((0, 1, 5, 23, 64), (1, 3, 8), (1, 4)):
        cuts = sorted(random.Random(n * world).choices(range(n + 1), k=world - 1))
        ranges = list(zip([0, *cuts], [*cuts, n]))
        args = ["--samples", n, "--world-size", world, "--batch", size, "--strategy", strategy, "--tail", tail]
        if strategy == "range":
            args += ["--ranges", ",".join(f"{lo}:{hi}" for lo, hi in ranges)]
        ranks = members(strategy, n, world, ranges)
        order = list(range(n)) if strategy == "round-robin" else list(itertools.chain(*ranks))
        want = [(0, *line) for line in batches(ranks, tail, size, order)]
        assert lines(ringfeed.ok("order", *args)) == want, args


def sequence_file(tmp_path, indices):
    path = tmp_path / "sequence.txt"
    path.write_text("".join(f"{i}\n" for i in indices))
    return path


def test_subset_sequence_is_delivered_as_it_stands(ringfeed, make, run_name, tmp_path):
    """In its order, with repeats; also where one batch has the largest sample alone, again and again."""
    made = make.tar(20, sizes=(10, 60000))
    largest = max(range(20), key=lambda i: len(made.samples[i].data))
    indices = [7, 3, 3, 19, 0, 7] + [largest] * 24 + [5]
    path = sequence_file(tmp_path, indices)
    flags = ("--subset", path, "--subset-sequence", "--batch", 8, "--ranks", 1)
    lines = [line.split() for line in ringfeed.ok("order", made, *flags).splitlines()]
    assert [int(line[4]) for line in lines] == indices
    ringfeed.serve(made, run_name, *flags, "--prefetch", 2)
    assert json.loads(ringfeed.ok("attach", run_name, "--rank", 0, "--check", "--json").splitlines()[-1])["check_errors"] == 0
    for rank in range(2):
        lines = ringfeed.ok("order", made, *flags[:3], "--batch", 8, "--world-size", 2, "--ranks", 1, "--first-rank", rank).splitlines()
        assert [int(line.split()[4]) for line in lines if int(line.split()[1]) == rank] == indices[rank::2]


@pytest.mark.parametrize("extra", [("--split", "a:0.5,b:0.5", "--use", "a"), ("--strategy", "hash"), ("--subset", "0:5")])
def test_subset_sequence_refuses_what_it_cannot_be(ringfeed, make, tmp_path, extra):
    made = make.npy(20)
    ringfeed.fails("order", made, "--subset", sequence_file(tmp_path, [3, 1]), "--subset-sequence", *extra, status=2,
                   says="--subset-sequence")  # fmt: skip


@pytest.mark.parametrize("shuffle", (("full",), ("block", "--block-samples", 7, "--window-blocks", 3)))
@pytest.mark.parametrize("strategy", ("round-robin", "contiguous", "hash"))
def test_shuffled_order_is_exactly_once(ringfeed, strategy, shuffle):
    for n, world in ((0, 2), (1, 3), (101, 4), (1000, 7)):
        args = ["--samples", n, "--world-size", world, "--batch", 8, "--strategy", strategy, "--shuffle", *shuffle]
        got = lines(ringfeed.ok("order", *args, "--seed", 5, "--epochs", 2, "--start-epoch", 3))
        assert [line[:4] for line in got] == sorted(line[:4] for line in got)
        for epoch in (3, 4):
            assert sorted(line[4] for line in got if line[0] == epoch) == list(range(n))
        if n > 100:
            one, two = ([line[1:] for line in got if line[0] == e] for e in (3, 4))
            assert one != two
            assert lines(ringfeed.ok("order", *args, "--seed", 5, "--epoch", 4)) == [(4, *line) for line in two]
            assert lines(ringfeed.ok("order", *args, "--seed", 6, "--epoch", 3)) != [(3, *line) for line in one]


def test_servers_together_are_the_whole(ringfeed):
    args = ["order", "--samples", 500, "--shuffle", "full", "--batch", 3, "--tail", "pad"]
    whole = ringfeed.ok(*args, "--world-size", 8)
    parts = [ringfeed.ok(*args, "--world-size", 8, "--ranks", 2, "--first-rank", f) for f in (0, 2, 4, 6)]
    assert "".join(parts) == whole
    torchrun = {"WORLD_SIZE": "8", "RANK": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
    assert ringfeed.ok(*args, env=torchrun) == parts[1]


def test_json_says_the_same(ringfeed):
    args = ["order", "--samples", 20, "--ranks", 3, "--batch", 4, "--tail", "pad", "--shuffle", "full"]
    rows = ringfeed.json_lines(*args)
    keys = ("epoch", "rank", "batch", "slot", "index", "flag")
    assert [tuple(row[k] for k in keys) for row in rows] == lines(ringfeed.ok(*args))


def test_large_virtual_orders_stream(ringfeed):
    n = 10**10
    for strategy in ("round-robin", "contiguous"):
        got = lines(
            ringfeed.ok(
                "order", "--samples", n, "--subset", f"{n - 5}:{n}", "--strategy", strategy, "--shuffle", "full", "--ranks", 2
            )
        )
        assert sorted(line[4] for line in got) == list(range(n - 5, n))
    # The first lines come at once, whatever would follow, and it ends when its reader goes away.
    command = [ringfeed.path, "order", "--samples", str(n), "--shuffle", "full", "--epochs", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as endless:
        first = [endless.stdout.readline() for _ in range(10)]
        endless.stdout.close()
        assert endless.wait(20) != 0
    assert [line.split()[2] for line in first] == [str(i).encode() for i in range(10)]


def test_stratified_on_a_real_dataset(ringfeed, make):
    data = make.webdataset(n=103, classes=7, shards=3)
    got = lines(ringfeed.ok("order", data, "--strategy", "stratified", "--ranks", 4, "--shuffle", "full"))
    assert sorted(line[4] for line in got) == list(range(103))
    for rank in range(4):
        mine = [line[4] for line in got if line[1] == rank]
        assert len(mine) in (103 // 4, 103 // 4 + 1)
        for label in range(7):
            total = sum(s.label == label for s in data.samples)
            assert sum(data.samples[i].label == label for i in mine) in (total // 4, -(-total // 4))


def test_hash_by_key_and_label(ringfeed, make):
    data = make.webdataset(n=60, classes=5)
    got = lines(ringfeed.ok("order", data, "--strategy", "hash", "--hash-key", "label", "--ranks", 3))
    assert sorted(line[4] for line in got) == list(range(60))
    for label in range(5):
        assert len({line[1] for line in got if data.samples[line[4]].label == label}) <= 1
    got = lines(ringfeed.ok("order", data, "--strategy", "hash", "--hash-key", "key", "--ranks", 3))
    assert sorted(line[4] for line in got) == list(range(60))


def test_subset_file_and_splits(ringfeed, tmp_path):
    listed = tmp_path / "list"
    listed.write_text("9\n3\n5\n")
    assert [line[4] for line in lines(ringfeed.ok("order", "--samples", 10, "--subset", listed))] == [3, 5, 9]
    split = ["--samples", 100, "--split", "train:0.8,val:0.2"]
    train, val = ({line[4] for line in lines(ringfeed.ok("order", *split, "--use", u))} for u in ("train", "val"))
    assert len(train) == 80 and len(val) == 20 and train | val == set(range(100))


@pytest.mark.parametrize(
    "args,says",
    [
        (["--samples", 10, "--batch", 0], "--batch"),
        (["--samples", 10, "--world-size", 0], "--world-size"),
        (["--samples", 10, "--world-size", 10**7], "--world-size"),
        (["--samples", 10, "--world-size", 2, "--ranks", 3], "world size"),
        (["--samples", -1], "--samples"),
        (["--samples", 10, "--shuffle", "fast"], "--shuffle"),
        (["--samples", 10, "--strategy", "stratified"], "labels"),
        (["--samples", 10, "--strategy", "range"], "--ranges"),
        (["--samples", 10, "--strategy", "range", "--ranges", "0:6,5:10", "--ranks", 2], "overlaps"),
        (["--samples", 10, "--strategy", "range", "--ranges", "0:5,6:10", "--ranks", 2], "5:6"),
        (["--samples", 10, "--strategy", "range", "--ranges", "0:5,5:11", "--ranks", 2], "5:11"),
        (["--samples", 10, "--strategy", "range", "--ranges", "0:5,9:5", "--ranks", 2], "9:5"),
        (["--samples", 10, "--strategy", "range", "--ranges", "0:10", "--ranks", 2], "1 range"),
        (["--samples", 10, "--strategy", "hash", "--hash-partitions", 2, "--ranks", 3], "--hash-partitions"),
        (["--samples", 10, "--strategy", "hash", "--hash-key", "key"], "keys"),
        (["--samples", 10, "--subset", "5:11"], "5:11"),
        (["--samples", 10, "--split", "a:0.5", "--use", "a"], "0.5"),
        (["--samples", 10, "--epoch", 1, "--epochs", 2], "--epoch"),
        (["--samples", 10, "--epoch", 1, "--start-epoch", 2], "--start-epoch"),
        (["--samples", 2**32 + 1, "--strategy", "hash"], "4294967295"),
        ([], "DATASET"),
    ],
)
def test_wrong_usage_is_named(ringfeed, args, says):
    ringfeed.fails("order", *args, status=2, says=says)


def test_files_that_cannot_be_read(ringfeed, tmp_path):
    ringfeed.fails("order", tmp_path / "nothing", status=1, says="nothing")
    ringfeed.fails("order", "--samples", 5, "--subset", tmp_path / "gone", status=1, says="gone")
    ringfeed.fails("verify", tmp_path / "gone", status=1, says="gone")


# ---- verify ----

ORDER = ("--ranks", "3", "--batch", "4", "--shuffle", "full", "--seed", "7")


@pytest.fixture
def delivered(ringfeed, tmp_path):
    """Ids of 50 samples in two epochs, one file a rank, as attach --ids writes them."""

    def write(*more):
        text = ringfeed.ok("order", "--samples", 50, *ORDER, "--epochs", 2, *more)
        paths = []
        for rank in range(3):
            path = tmp_path / f"ids-{rank}"
            path.write_text("".join(l + "\n" for l in text.splitlines() if l.split()[1] == str(rank)))
            paths.append(path)
        return paths

    return write


@pytest.mark.parametrize("tail", TAILS)
def test_verify_accepts_what_order_promises(ringfeed, delivered, tail):
    paths = delivered("--tail", tail)
    facts = ringfeed.json("verify", "--samples", 50, *ORDER, "--tail", tail, "--epochs", 2, *paths)
    assert facts["good"] and facts["order_compared"] and facts["epochs"] == 2
    assert facts["lines"] == facts["samples"] + facts["padding"] == sum(len(p.read_text().splitlines()) for p in paths)
    plain = ringfeed("verify", "--samples", 50, *paths, "--json")
    assert plain.returncode == (1 if tail == "drop" else 0)  # drop leaves samples out, and nobody said so
    assert json.loads(plain.stdout)["missing"] == (2 * 50 - facts["samples"])


def edit(path, number, change):
    rows = path.read_text().splitlines(keepends=True)
    rows[number : number + 1] = change(rows[number])
    path.write_text("".join(rows))


def verdict(ringfeed, *args):
    done = ringfeed("verify", "--json", *args)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("ringfeed: verify: not every sample"), done.stderr
    return json.loads(done.stdout)


def test_verify_finds_missing_and_double(ringfeed, delivered):
    paths = delivered()
    gone = paths[1].read_text().splitlines()[3].split()[4]
    edit(paths[1], 3, lambda row: [])
    for order in ((), ORDER):
        facts = verdict(ringfeed, "--samples", 50, *order, *paths)
        assert facts["missing"] == 1 and facts["double"] == 0 and not facts["good"]
        assert any(gone in f["what"].split() for f in facts["findings"] if f["kind"] == "missing")
    paths = delivered()
    again = paths[0].read_text().splitlines()[0].split()[4]
    edit(paths[1], 3, lambda row: [" ".join([*row.split()[:4], again, "-\n"])])
    for order in ((), ORDER):
        facts = verdict(ringfeed, "--samples", 50, *order, *paths)
        assert facts["missing"] == 1 and facts["double"] == 1
        assert facts["wrong"] == (1 if order else 0)


def test_verify_counts_identical_repeats(ringfeed, delivered):
    paths = delivered()
    rows = paths[2].read_text().splitlines(keepends=True)
    paths[2].write_text("".join(rows[:8] + rows[4:]))
    for order in ((), ORDER):
        facts = ringfeed.json("verify", "--samples", 50, *order, *paths)
        assert facts["redelivered_batches"] == 1 and facts["good"] and facts["samples"] == 100
    paths[2].write_text("".join(rows[:8] + rows[4:7] + ["0 2 1 3 49 -\n"] + rows[8:]))
    assert verdict(ringfeed, "--samples", 50, *paths)["changed"] == 1


def test_verify_knows_the_order(ringfeed, delivered):
    paths = delivered()
    first = paths[0].read_text().splitlines(keepends=True)
    paths[0].write_text("".join([first[1], first[0], *first[2:]]))  # slot 1 before slot 0
    assert verdict(ringfeed, "--samples", 50, *ORDER, *paths)["broken"] > 0
    paths = delivered()
    facts = verdict(ringfeed, "--samples", 50, "--ranks", 3, "--batch", 4, "--shuffle", "full", "--seed", 8, *paths)
    assert facts["wrong"] > 50 and facts["missing"] == 0
    ringfeed.ok("verify", "--samples", 50, *ORDER, "--world-size", 3, "--ranks", 1, "--first-rank", 1, paths[1], "--json")
    facts = verdict(ringfeed, "--samples", 50, *ORDER, "--epochs", 3, *paths)
    assert facts["missing"] == 50


def test_verify_without_a_number_of_samples(ringfeed, delivered):
    paths = delivered()
    done = ringfeed("verify", *paths, "--json")
    assert done.returncode == 0 and "cannot be known" in done.stderr
    assert json.loads(done.stdout)["missing"] is None
    edit(paths[0], 3, lambda row: [" ".join([*row.split()[:4], paths[0].read_text().split()[4], "-\n"])])
    done = ringfeed("verify", *paths)
    assert done.returncode == 1 and "missing unknown, 1 double" in done.stderr and "0 missing" not in done.stderr
    ringfeed.fails("verify", *ORDER, *paths, status=2, says="--samples")


def test_verify_reads_standard_input(ringfeed, delivered):
    text = "".join(p.read_text() for p in delivered())
    assert ringfeed("verify", "--samples", 50, stdin=text).returncode == 0
    assert ringfeed("verify", "--samples", 50, "-", stdin=text).returncode == 0
    assert ringfeed("verify", "--samples", 0, stdin="").returncode == 0
    assert ringfeed("verify", "--samples", 1, stdin="").returncode == 1


@pytest.mark.parametrize("row", ["0 0 0 0 x -", "0 0 0 0 1", "0 0 0 0 1 - -", "", "\x00" * 300, "9" * 100000, "0 0 0 0 1 -\r"])
def test_verify_names_a_malformed_line(ringfeed, tmp_path, row):
    path = tmp_path / "ids"
    path.write_text("0 0 0 0 0 -\n" + row + "\n")
    ringfeed.fails("verify", "--samples", 50, path, status=1, says=(path, "line 2"))


def test_verify_names_a_line_cut_off(ringfeed, tmp_path):
    path = tmp_path / "ids"
    path.write_text("0 0 0 0 0 -\n0 0 1 0 1")
    ringfeed.fails("verify", path, status=1, says="line 2")


def test_verify_a_dataset(ringfeed, make, tmp_path):
    data = make.tar(n=40)
    path = tmp_path / "ids"
    args = ("--ranks", 2, "--shuffle", "block", "--batch", 3)
    path.write_text(ringfeed.ok("order", data, *args))
    assert ringfeed.json("verify", "--dataset", data, *args, path)["good"]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert verdict(ringfeed, "--dataset", data, path)["missing"] == 1


@pytest.mark.parametrize("shuffle", ["none", "full", "block"])
def test_repeat_order_is_epoch_0_every_time(ringfeed, shuffle):
    order = ("--samples", 200, "--world-size", 3, "--batch", 4, "--shuffle", shuffle, "--block-samples", 5, "--epochs", 3)
    epochs = {}
    for line in ringfeed.ok("order", *order, "--repeat-order").splitlines():
        epoch, rest = line.split(" ", 1)
        epochs.setdefault(epoch, []).append(rest)
    plain = [line.split(" ", 1)[1] for line in ringfeed.ok("order", *order).splitlines() if line.startswith("0 ")]
    assert len(epochs) == 3 and all(lines == plain for lines in epochs.values())
    if shuffle != "none":
        assert [line.split(" ", 1)[1] for line in ringfeed.ok("order", *order).splitlines() if line.startswith("1 ")] != plain

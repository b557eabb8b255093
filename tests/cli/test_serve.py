"""What serve delivers is what order says: over all strategies, shuffles and tails, formats, engines, worker
counts, odd sizes and tight rings. Bytes are compared by `attach --check` with plain pread, and here with what
was written."""

import itertools
import random
import time

import pytest

from conftest import Made, Maker, Sample
from delivery import deliver, key, least_ring, order_lines, verify_ok

STRATEGIES = ["round-robin", "contiguous", "hash", "range", "stratified"]
SHUFFLES = ["none", "full", "block"]
TAILS = ["uneven", "drop", "pad"]
SHAPES = [(0, 2, 3), (1, 3, 2), (7, 8, 2), (30, 1, 7), (64, 4, 8), (97, 3, 5)]


class Kinds:
    """One dataset a (format, N), made once for the module."""

    LABELED = ["idx", "webdataset", "npy-labels", "imagefolder"]
    ALL = ["raw", "idx", "files", "webdataset", "npy", "npy-labels", "tar", "imagefolder"]

    def __init__(self, directory):
        self.maker = Maker(directory)
        self.made = {}

    def get(self, kind, n):
        if (kind, n) not in self.made:
            self.made[kind, n] = getattr(self, kind.replace("-", "_"))(n)
        return self.made[kind, n]

    def raw(self, n):
        return self.maker.raw(n=n, record_bytes=61, header_bytes=13)

    def npy(self, n):
        return self.maker.npy(n=n)

    def npy_labels(self, n):
        made = self.maker.npy(n=n)
        rng = random.Random(n)
        labels = [rng.randrange(5) for _ in made.samples]
        path = made.path.parent / "labels.txt"
        path.write_text("".join(f"{label}\n" for label in labels))
        return Made(made.path, made.samples, ("--labels", path))

    def idx(self, n):
        return self.maker.idx(n=n, shape=(5, 7))

    def files(self, n):
        return self.maker.files(n=n, sizes=(0, 5))  # many of no byte at all

    def tar(self, n):
        return self.maker.tar(n=n, shards=3, sizes=(0, 700))

    def webdataset(self, n):
        return self.maker.webdataset(n=n, shards=2, sizes=(0, 700))

    def imagefolder(self, n):
        """Classes of different sizes, n files in all."""
        directory = self.maker.place("images")
        samples = []
        for i in range(n):
            label = min(2, (i * i) % 4)
            (directory / f"class{label}").mkdir(parents=True, exist_ok=True)
            data = b"\xff\xd8\xff" + random.Random(i).randbytes(i * 7 % 300)
            (directory / f"class{label}" / f"{i:05d}.jpg").write_bytes(data)
            samples.append((f"class{label}/{i:05d}", Sample({"data": data}, label=label)))
        return Made(directory, [s for _, s in sorted(samples, key=lambda pair: pair[0])])


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    return Kinds(tmp_path_factory.mktemp("kinds"))


# Formats that can hold so few samples: a directory without a file is an error, and class folders of one image
# are no class folders.
FEW = {0: ["raw", "idx", "npy"], 1: ["raw", "idx", "files", "npy", "npy-labels", "webdataset"]}
FEW_LABELED = {0: FEW[0], 1: ["idx", "webdataset", "npy-labels"]}


def range_text(n, world):
    """Uneven ranges, one of them empty where there are several."""
    cuts = sorted(random.Random(n * world).choices(range(n + 1), k=world - 1))
    if world > 2:
        cuts[1] = cuts[0]
    return ",".join(f"{a}:{b}" for a, b in zip([0, *cuts], [*cuts, n]))


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_order_is_what_serve_delivers(ringfeed, new_name, kinds, strategy, shuffle, tail):
    turn = itertools.cycle(range(97))
    start = STRATEGIES.index(strategy) * 9 + SHUFFLES.index(shuffle) * 3 + TAILS.index(tail)
    for i, (n, world, batch) in enumerate(SHAPES):
        labeled = strategy == "stratified"
        able = (FEW_LABELED if labeled else FEW).get(n, Kinds.LABELED if labeled else Kinds.ALL)
        if not able:
            continue
        made = kinds.get(able[(start + i) % len(able)], n)
        order = ["--world-size", world, "--batch", batch, "--strategy", strategy, "--shuffle", shuffle, "--tail", tail,
                 "--seed", start, "--epochs", 2, "--start-epoch", next(turn), *made.args]
        if strategy == "range":
            order += ["--ranges", range_text(n, world)]
        if shuffle == "block":
            order += ["--block-samples", 3, "--window-blocks", 2]
        lines, summaries = deliver(ringfeed, made.path, new_name(), range(world), *order, "--workers", 1 + i % 3)
        assert lines == order_lines(ringfeed, made.path, *order), (n, world, batch, made)
        bytes_of = [len(s.data) for s in made.samples]
        assert sum(s["bytes"] for s in summaries) == sum(bytes_of[int(line.split()[4])] for line in lines)
        if tail == "uneven":
            assert sorted(int(line.split()[4]) for line in lines) == sorted([*range(n), *range(n)])
        else:
            assert len({s["batches"] for s in summaries}) == 1


@pytest.mark.parametrize("kind", Kinds.ALL)
def test_verify_accepts_what_came_and_only_that(ringfeed, run_name, kinds, tmp_path, kind):
    made = kinds.get(kind, 64)
    order = ["--world-size", 3, "--batch", 4, "--shuffle", "full", "--epochs", 2, *made.args]
    lines, _ = deliver(ringfeed, made.path, run_name, range(3), *order)
    whole, short, twice = tmp_path / "whole", tmp_path / "short", tmp_path / "twice"
    whole.write_text("\n".join(lines) + "\n")
    short.write_text("\n".join(lines[:-1]) + "\n")
    words = lines[1].split()
    twice.write_text("\n".join([lines[0], " ".join([*words[:4], lines[0].split()[4], words[5]]), *lines[2:]]) + "\n")
    verify_ok(ringfeed, made.path, [whole], *order)
    for wrong in (short, twice):
        assert ringfeed("verify", "--dataset", made.path, *order, wrong).returncode == 1


ODD = [0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 8193, 12288, 131071, 131072, 131073, 1048575, 1048576,
       1048577, 3000001]
HUGE = [4194303, 4194304, 4194305, 5000001]


def odd_files(directory):
    made = Maker(directory).files(n=0)
    rng = random.Random(7)
    sizes = ODD + HUGE + [rng.randrange(20000) for _ in range(40)]
    rng.shuffle(sizes)
    for i, size in enumerate(sizes):
        data = rng.randbytes(size)
        (made.path / f"{i:05d}.dat").write_bytes(data)
        made.samples.append(Sample({"data": data}))
    return made


def odd_tar(directory):
    """Extents at multiples of 512, neighbours adjacent in the file."""
    maker, rng = Maker(directory), random.Random(8)
    sizes = ODD + [rng.randrange(9000) for _ in range(60)]
    rng.shuffle(sizes)
    samples = [Sample({"data": rng.randbytes(size)}, key=f"{i:06d}") for i, size in enumerate(sizes)]
    import tarfile

    members = [[(f"{s.key}.bin", s.data)] for s in samples]
    return Made(maker._shards(members, 2, tarfile.PAX_FORMAT), samples)


ODD_SETS = {
    "files": (odd_files, 6),
    "tar": (odd_tar, 7),
    "records of 1000 after 13": (lambda d: Maker(d).raw(n=701, record_bytes=1000, header_bytes=13), 16),
    "records of 8192": (lambda d: Maker(d).raw(n=130, record_bytes=8192), 5),
    "records of 4096 after 512": (lambda d: Maker(d).raw(n=130, record_bytes=4096, header_bytes=512), 9),
    "records of 12800": (lambda d: Maker(d).raw(n=80, record_bytes=12800), 3),
    "records of 200001": (lambda d: Maker(d).raw(n=23, record_bytes=200001), 2),
    "one record of 6 MB": (lambda d: Maker(d).raw(n=3, record_bytes=6000000), 1),
}


@pytest.fixture(scope="module")
def odd_sets(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = ODD_SETS[name][0](tmp_path_factory.mktemp("odd"))
        return made[name], ODD_SETS[name][1]

    return get


@pytest.mark.parametrize("name, shuffle", [*((name, "full") for name in ODD_SETS), ("files", "none"), ("tar", "none")])
def test_engines_workers_and_rings_change_nothing(ringfeed, new_name, odd_sets, name, shuffle):
    """Every engine, buffered and direct, 1 to 8 workers; the ring as small as serve takes it, and ample."""
    made, batch = odd_sets(name)
    order = ["--world-size", 2, "--batch", batch, "--shuffle", shuffle, "--epochs", 2, *made.args]
    wanted = order_lines(ringfeed, made.path, *order)
    least = least_ring(ringfeed, made.path, new_name(), *order)
    cases = zip(
        itertools.product(["uring", "pread"], ["on", "off"]),
        [(1, 8), (3, 4), (2, 5), (6, 7)],
        [("--ring-bytes", least, "--prefetch", 2), (), ("--queue-depth", 1), ("--ring-bytes", least, "--prefetch", 16)],
    )
    for (engine, direct), workers, ring in cases:
        for n in workers:
            lines, summaries = deliver(ringfeed, made.path, new_name(), range(2), *order, "--engine", engine,
                                       "--direct", direct, "--workers", n, *ring)
            assert lines == wanted, (engine, direct, n, ring)


def test_every_byte_is_where_it_was_written(ringfeed, kinds):
    """`--check` trusts the dataset's table; here the table itself is held against what was written."""
    for kind in Kinds.ALL:
        made = kinds.get(kind, 64)
        for i in (0, 1, 31, 63):
            got = ringfeed("cat", made.path, "-i", i, *made.args, text=False)
            assert got.returncode == 0 and got.stdout == made.samples[i].data, (kind, i)


def test_a_second_life_of_a_name_is_a_run_of_its_own(ringfeed, run_name, make):
    made = make.raw(n=40)
    order = ("--batch", 3, *made.args)
    first, _ = deliver(ringfeed, made.path, run_name, [0], *order)
    second, _ = deliver(ringfeed, made.path, run_name, [0], *order, "--shuffle", "full")
    assert first != second and sorted(int(line.split()[4]) for line in second) == list(range(40))


def test_limit_and_attach_again_go_on_at_the_first_unreleased_batch(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=100)
    order = ("--batch", 7, "--shuffle", "full", "--epochs", 2, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order)
    ids = tmp_path / "ids"
    for limit in (1, 4, 10):
        summary = ringfeed.json("attach", run_name, "--rank", 0, "--ids", ids, "--check", "--limit", limit)
        assert summary["batches"] == limit
    ringfeed.ok("attach", run_name, "--rank", 0, "--ids", ids, "--check")
    assert serve.wait() == 0
    assert ids.read_text().splitlines() == order_lines(ringfeed, made.path, *order)


def test_endless_epochs_run_on(ringfeed, run_name, make, tmp_path):
    made = make.raw(n=10)
    order = ("--batch", 3, "--shuffle", "full", *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--epochs", 0)
    ids = tmp_path / "ids"
    ringfeed.ok("attach", run_name, "--rank", 0, "--ids", ids, "--limit", 400)
    serve.send(15)
    assert serve.wait() == 0
    assert ids.read_text().splitlines() == order_lines(ringfeed, made.path, *order, "--epochs", 100)


def test_hungry_trainers_are_served_alike(ringfeed, run_name, make):
    """More ranks than workers, and each takes its batches at once: none is done long before the others."""
    made, limit = make.raw(n=4096, record_bytes=512), 6000
    serve = ringfeed.serve(made.path, run_name, *made.args, "--batch", 4, "--ranks", 4, "--workers", 1, "--epochs", 0)
    hungry = [ringfeed.start("attach", run_name, "--rank", r, "--limit", limit, "--json") for r in range(4)]
    while all(t.process.poll() is None for t in hungry):
        time.sleep(0.002)
    batches = [r["samples"] / 4 for r in ringfeed.json("stat", run_name)["ranks"]]
    print(batches)
    assert min(batches) >= limit / 2
    assert [t.wait() for t in hungry] == [0] * 4
    serve.send(15)
    assert serve.wait() == 0


def test_an_empty_dataset_ends_at_once_for_every_trainer(ringfeed, new_name, kinds):
    made = kinds.get("raw", 0)
    for _ in range(5):
        lines, summaries = deliver(ringfeed, made.path, new_name(), range(4), "--ranks", 4, *made.args)
        assert lines == [] and all(s["batches"] == 0 for s in summaries)


def test_an_index_file_serves_like_its_dataset(ringfeed, new_name, kinds, tmp_path):
    made = kinds.get("webdataset", 97)
    ringfeed.ok("index", made.path, "-o", tmp_path / "x.rfi")
    order = ("--ranks", 2, "--batch", 5, "--shuffle", "full")
    from_index, _ = deliver(ringfeed, tmp_path / "x.rfi", new_name(), range(2), *order)
    assert from_index == order_lines(ringfeed, made.path, *order) and from_index == sorted(from_index, key=key)


def test_subsets_and_splits_are_served_as_ordered(ringfeed, new_name, kinds, tmp_path):
    made = kinds.get("files", 97)
    chosen = tmp_path / "chosen"
    chosen.write_text("".join(f"{i}\n" for i in (90, 3, 7, 8, 9, 55, 0)))
    for part in (("--subset", "10:60"), ("--subset", chosen), ("--split", "train:0.8,val:0.2", "--use", "val")):
        order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", *part)
        lines, _ = deliver(ringfeed, made.path, new_name(), range(2), *order)
        assert lines and lines == order_lines(ringfeed, made.path, *order)

"""The bench verb: what it counts against the dataset and `ringfeed order`, its arithmetic, the data sets that it makes,
what it refuses, and that nothing is left of it. No rate is compared with anything: machines differ."""

import hashlib
import json
import os
import pathlib
import pwd
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

import numpy
import pytest

from conftest import REPO, clean_environment, die_with_parent, find_command
from test_dataset import masked

QUICK = ("--bare", "off", "--limit", "off", "--cache", "as-is")
PEERS = REPO / "bench" / "peers"


@pytest.fixture
def temporary(tmp_path):
    """Where the command puts its own files: it must be empty again."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def bench(ringfeed, run_name, temporary):
    """One document of a bench, under this session's name."""

    def call(*args, env=None):
        names = () if args[0] in ("datasize", "datagen") else ("--name", run_name)
        out = ringfeed.ok("bench", *args, *names, "--json", env={"TMPDIR": str(temporary), **(env or {})})
        assert out.count("\n") == 1
        return json.loads(out)

    return call


def figure(spread):
    assert spread["min"] <= spread["median"] <= spread["max"]
    return spread["median"]


# ---- throughput -------------------------------------------------------------------------------------


def test_counts_are_the_dataset_s(ringfeed, bench, make):
    made = make.raw(n=1003, record_bytes=4096)
    order = ("--world-size", 2, "--batch", 8, "--shuffle", "full", "--epochs", 2)
    document = bench(made, *made.args, *order, *QUICK, "--runs", 2)
    lines = [line.split() for line in ringfeed.ok("order", made, *made.args, *order).splitlines()]
    (result,) = document["results"]
    assert document["dataset"]["samples"] == 1003 and document["order"]["epochs"] == 2
    assert (result["runs"], result["samples"], result["bytes"]) == (2, 2006, 2006 * 4096)
    assert result["batches"] == len({(e, r, b) for e, r, b, *_ in lines})
    for rank in result["ranks"]:
        assert rank["samples"] == sum(int(r) == rank["rank"] for _, r, *_ in lines)
    assert result["window_samples"] < 2006  # the first ring does not count
    long_enough = result["window_seconds"] >= 0.1
    assert (result["samples_per_s"] is not None) == long_enough or result["samples_per_s"]["max"] > 0
    assert any("too short" in note for note in result["notes"])  # of the 99.99th percentile at least


def test_a_run_by_time_and_its_arithmetic(bench, make):
    made = make.raw(n=500, record_bytes=1000)
    document = bench(made, *made.args, "--batch", 4, *QUICK, "--runtime", 0.4, "--ramp-time", 0.1, "--touch")
    (result,) = document["results"]
    assert document["machine"]["cores"] >= 1 and document["machine"]["kernel"] == os.uname().release
    assert result["window_seconds"] >= 0.35
    rate = figure(result["samples_per_s"])
    assert abs(rate * result["window_seconds"] - result["window_samples"]) <= 1 + 1e-3 * result["window_samples"]
    assert abs(figure(result["gb_per_s"]) - rate * 1e-6) < 1e-4
    assert result["samples"] > 500 and result["trainers"].startswith("read every byte")
    assert 0 < figure(result["cpu_s_per_gb"]) and 0 < figure(result["trainers_cpu_s_per_gb"])
    waits = [result[f"wait_us_{q}"] for q in ("p50", "p99", "p99_9", "p99_99", "max")]
    known = [w for w in waits if w is not None]
    assert known == sorted(known) and waits[0] is not None and waits[-1] is not None
    memory = result["pss_bytes"]
    assert memory["all"] == memory["parent"] + memory["workers"] + memory["trainers"]
    assert memory["anonymous"] + memory["shared"] + memory["file"] <= memory["all"]
    assert memory["shared"] > 0


def test_beside_a_bare_loop_and_the_limits(bench, make):
    made = make.tar(n=200, sizes=(1000, 60000), shards=2)
    document = bench(made, *made.args, "--batch", 4, "--cache", "warm", "--runtime", 0.3, "--workers", 2)
    (result,) = document["results"]
    assert result["cached_before"] == 1 and result["workers"] == 2
    assert figure(result["bare_loop"]["ratio"]) > 0
    limit = result["limit"]
    terms = {t["term"]: t for t in limit["terms"]}
    assert set(terms) == {"device bandwidth", "device IOPS", "CPU", "memory passes"}
    bounds = {name: t["limit_gb_per_s"] for name, t in terms.items() if t["limit_gb_per_s"] is not None}
    assert [name for name, t in terms.items() if t["binds"]] == [min(bounds, key=bounds.get)]
    assert limit["gb_per_s"] == min(bounds.values())
    assert abs(terms["CPU"]["limit_gb_per_s"] * terms["CPU"]["measured"] / limit["cores"] - 1) < 0.01
    assert abs(terms["memory passes"]["limit_gb_per_s"] * limit["memory_passes"] / terms["memory passes"]["measured"] - 1) < 0.01


def has_device(folder):
    return os.path.exists(f"/sys/dev/block/{os.major(os.stat(folder).st_dev)}:{os.minor(os.stat(folder).st_dev)}/stat")


def test_direct_reads_come_from_the_device(bench, make, tmp_path):
    made = make.raw(n=256, record_bytes=65536)
    args = ("--batch", 4, *QUICK, "--direct", "on", "--epochs", 2)
    (result,) = bench(made, *made.args, *args)["results"]
    if not result["direct"] or not has_device(tmp_path):
        pytest.skip("no O_DIRECT on a block device here")
    if result["workers_io_bytes_per_byte"] is None:
        assert result["window_seconds"] < 0.1
        return
    assert 0.9 < figure(result["workers_io_bytes_per_byte"]) < 1.2
    assert figure(result["device_bytes_per_byte"]) > 0.9


@pytest.fixture
def of_nobody():
    """A folder of user nobody's, whom a root's test becomes."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/var/tmp", prefix="ringfeed-nobody-"))
    yield folder
    shutil.rmtree(folder)


def test_cold_without_root_is_by_advice(of_nobody, run_name):
    nobody = pwd.getpwnam("nobody")
    (of_nobody / "data").write_bytes(os.urandom(1 << 20) * 8)
    for path in (of_nobody / "data", of_nobody):
        os.chown(path, nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else None

    def become():
        die_with_parent()
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)

    command = [find_command(), "bench", of_nobody / "data", "--format", "raw", "--record-bytes", 32768, "--batch", 4, "--bare",
               "off", "--limit", "off", "--cache", "cold", "--json", "--name", run_name, "--direct", "off"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, preexec_fn=become,
                          check=False, cwd="/", env=clean_environment({"TMPDIR": str(of_nobody)}))
    if done.returncode == 126 or "Permission denied" in done.stderr:
        pytest.skip(f"user nobody cannot run it: {done.stderr}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["made_cold_by"] == "advice by file" and result["samples"] == 256
    if has_device(of_nobody):
        assert result["cached_before"] == 0


def test_sweeps_are_all_combinations_in_order(bench, make):
    made = make.raw(n=40, record_bytes=10000)
    document = bench(made, *made.args, *QUICK, "--sweep", "queue-depth=1,4", "--sweep", "block=4k,9999")
    assert [(r["queue_depth"], r["block"], r["samples"]) for r in document["results"]] == [
        (1, 4096, 400000 // 4096), (1, 9999, 400000 // 9999), (4, 4096, 400000 // 4096), (4, 9999, 400000 // 9999)]
    assert [(r["queue_depth"], r["block"]) for r in document["summary"]] == [(1, 4096), (1, 9999), (4, 4096), (4, 9999)]


def test_what_the_resident_cache_gave(bench, make):
    made = make.tar(n=100, sizes=(1000, 2000))
    args = ("--batch", 4, *QUICK, "--runtime", 0.3)
    for cache, expected in (("0", 0), ("10M", 1)):
        (result,) = bench(made, *args, "--cache-bytes", cache, "--ramp-time", 0.2)["results"]
        assert abs(figure(result["from_resident_cache"]) - expected) < 0.2


def test_uneven_ranks_and_none(bench, make):
    made = make.raw(n=1, record_bytes=5000)
    (result,) = bench(made, *made.args, "--world-size", 3, *QUICK)["results"]
    assert [r["samples"] for r in result["ranks"]] == [1, 0, 0]
    made.path.write_bytes(b"")
    (result,) = bench(made, *made.args, "--cache", "warm")["results"]
    assert result["samples"] == 0 and result["samples_per_s"] is None


def test_adaptive_epochs_end(bench, make):
    made = make.raw(n=600, record_bytes=100)
    (result,) = bench(made, *made.args, "--world-size", 2, "--strategy", "adaptive", "--epochs", 2, *QUICK)["results"]
    assert result["samples"] == 1200


def test_text_says_the_same(ringfeed, make, run_name):
    made = make.raw(n=100)
    text = ringfeed.ok("bench", made, *made.args, *QUICK, "--name", run_name)
    lines = [line.split() for line in text.splitlines()]
    assert ["samples", "100"] in lines and ["cache", "as-is"] in lines and "too short" in text


# ---- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, says",
    [
        (("--workload", "unet3d", "--accelerator", "v100"), ["unet3d on v100", "a100, h100, b200", "--step-ms"]),
        (("--workload", "bert", "--accelerator", "h100"), ["bert has: v100"]),
        (("--workload", "llm-tokens", "--accelerator", "h100"), ["llm-tokens has: none"]),
        (("--workload", "resnet50"), ["resnet50 has: a100, h100"]),
        (("--workload", "gpt5",), ["is none of unet3d, resnet50"]),
        (("--workload", "bert", "--step-ms", 1, "--batch", 3), ["Leave them out"]),
        (("--workload", "bert", "--step-ms", 1, "one", "two"), ["two: one folder is enough"]),
        (("--accelerators", 2), ["--workload"]),
        (("--step-ms", 2), ["--compare"]),
        (("--epochs", 0), ["--runtime"]),
        (("--sweep", "depth=1"), ["queue-depth="]),
        (("--sweep", "batch=1,x"), ["'x' is not a whole number"]),
        (("--sweep", "batch=0"), ["'0' is not from 1"]),
        (("--sweep", "batch=1", "--sweep", "batch=2"), ["swept already"]),
        (("--compare", "torch,none"), ["none: no such loader", "c-mmap"]),
        (("--compare", "torch", "--cache", "both"), ["one state"]),
        (("--name", "a/b"), ["--name"]),
        ((), ["DATASET"]),
    ],
)
def test_wrong_usage(ringfeed, args, says):
    ringfeed.fails("bench", *args, status=2, says=says)


def test_no_data_is_said_with_the_command_that_makes_it(ringfeed, tmp_path):
    args = ("--workload", "unet3d", "--step-ms", 1)
    ringfeed.fails("bench", "run", tmp_path / "none", *args, says=["no data", "bench datagen", "--workload unet3d"])


# ---- workloads --------------------------------------------------------------------------------------


def test_datasize(bench, tmp_path):
    size = bench("datasize", tmp_path, "--workload", "resnet50", "--accelerators", 3, "--host-memory", "64G")
    samples = max(500 * 400 * 3, -(-5 * (64 << 30) // 114660))
    files = -(-samples // 1251)
    assert (size["files"], size["samples"]) == (files, files * 1251)
    assert size["bytes"] == files * 1251 * 114660 and size["steps_an_epoch"] == files * 1251 // 1200
    assert size["fits"] == (size["bytes"] <= size["free_bytes"])


def read_tfrecords(data):
    """Payloads, each checksum compared; by the format's description alone."""
    at, payloads = 0, []
    while at < len(data):
        (n,) = struct.unpack_from("<Q", data, at)
        payload = data[at + 12 : at + 12 + n]
        assert masked(data[at : at + 8]) == data[at + 8 : at + 12] and masked(payload) == data[at + 12 + n : at + 16 + n]
        payloads.append(payload)
        at += 16 + n
    return payloads


def contents(folder):
    return [p.read_bytes() for p in sorted((folder / "data").iterdir())]


def test_datagen_is_a_function_of_its_seed(bench, tmp_path):
    args = ("--workload", "unet3d", "--scale", 0.0001, "--bytes", "300k")
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        made = bench("datagen", tmp_path / folder, *args, "--seed", seed)
        files = contents(tmp_path / folder / "unet3d")
        assert made["samples"] == len(files) == 300 * 1024 // 14660 and made["bytes"] == sum(map(len, files))
    a, b, c = (contents(tmp_path / f / "unet3d") for f in "abc")
    assert a == b and a != c and len({hashlib.sha256(x).digest() for x in a + c}) == len(a + c)


def test_datagen_goes_on_and_destroys_nothing(ringfeed, bench, tmp_path):
    args = ("datagen", tmp_path, "--workload", "retinanet", "--scale", 0.01, "--bytes", "200k")
    bench(*args)
    folder = tmp_path / "retinanet" / "data"
    first = contents(folder.parent)
    assert all(x[:2] == b"\xff\xd8" and x[6:10] == b"JFIF" and x[-2:] == b"\xff\xd9" for x in first)
    paths = sorted(folder.iterdir())
    kept = paths[0].stat().st_ino
    paths[1].unlink()
    paths[2].write_bytes(b"cut")
    bench(*args)
    assert contents(folder.parent) == first and paths[0].stat().st_ino == kept
    ringfeed.fails("bench", *args, "--seed", 5, says=["Remove it", "seed 0"])
    assert contents(folder.parent) == first


def test_tfrecord_data_is_what_others_read(ringfeed, bench, tmp_path):
    bench("datagen", tmp_path, "--workload", "cosmoflow", "--scale", 0.0005, "--bytes", "20k")
    files = contents(tmp_path / "cosmoflow")
    payloads = sum(map(read_tfrecords, files), [])
    assert len(payloads) == len(files) == 14
    folder = tmp_path / "cosmoflow" / "data"
    assert ringfeed.json("inspect", folder)["format"] == "tfrecord"
    assert [ringfeed.ok("cat", folder, "-i", i, text=False) for i in (0, 13)] == [payloads[0], payloads[13]]


@pytest.fixture
def cosmoflow(bench, tmp_path):
    bench("datagen", tmp_path, "--workload", "cosmoflow", "--scale", 0.0005, "--bytes", "60k")
    return tmp_path, 61440 // 1414


def test_steps_are_whole_and_together(bench, cosmoflow):
    folder, samples = cosmoflow
    run = bench("run", folder, "--workload", "cosmoflow", "--step-ms", 4, "--accelerators", 2, "--epochs", 2)
    assert run["steps"] == samples // 2 * 2 and run["accelerators"] == 2
    assert run["delivery"]["samples"] == samples // 2 * 2 * 2
    assert [r["samples"] for r in run["delivery"]["ranks"]] == [samples // 2 * 2] * 2
    assert 20 < figure(run["utilisation"]) < 100.5
    assert run["passed"] is None and run["pass_mark"] is None and run["step_time"] == "own"
    assert run["batches_are"].startswith("delivered in memory, and held")
    assert any("0.0005 of their published bytes" in note for note in run["delivery"]["notes"])


def test_utilisation_falls_with_the_step(bench, cosmoflow):
    folder, _ = cosmoflow
    run = bench("run", folder, "--workload", "cosmoflow", "--step-ms", 0.001, "--epochs", 4, "--drop-bytes")
    assert figure(run["utilisation"]) < 50
    assert "dropped before the step" in run["batches_are"]


def test_published_times_have_a_mark(bench, cosmoflow):
    folder, _ = cosmoflow
    args = ("--workload", "cosmoflow", "--accelerator", "a100")
    run = bench(folder, *args)
    assert (run["step_ms"], run["pass_mark"], run["step_time"]) == (5.51, 70, "published")
    assert run["passed"] == (run["utilisation"]["min"] >= 70)
    short = bench(folder, *args, "--accelerators", 6)
    assert short["steps"] == 7 and short["utilisation"] is None and short["passed"] is None
    assert any("too short" in note for note in short["delivery"]["notes"])


def test_find_max(bench, cosmoflow):
    folder, _ = cosmoflow
    args = ("--workload", "cosmoflow", "--find-max", "--runtime", 0.3)
    found = bench(folder, *args, "--step-ms", 20, "--accelerators", 3)
    tried = [t["accelerators"] for t in found["tries"]]
    assert tried[0] == 1 and found["most_accelerators"] == max(
        [t["accelerators"] for t in found["tries"] if t["utilisation"]["min"] >= 90], default=0)
    assert bench(folder, *args, "--step-ms", 0.001)["most_accelerators"] == 0


def test_more_accelerators_than_a_step_has_samples(ringfeed, cosmoflow, run_name):
    ringfeed.fails("bench", cosmoflow[0], "--workload", "cosmoflow", "--step-ms", 1, "--accelerators", 100, "--name", run_name,
                   says=["no step of 100 accelerators", "more data"])


# ---- other loaders ----------------------------------------------------------------------------------


def job(folder, sizes, order, files):
    """What a peer is given, written by hand: samples one behind the other in `files` of equal numbers."""
    per_file = len(sizes) // len(files)
    kind = numpy.dtype([("file", "<u4"), ("zero", "<u4"), ("offset", "<u8"), ("bytes", "<u8")])
    samples = numpy.zeros(len(sizes), kind)
    for f in range(len(files)):
        part = slice(f * per_file, (f + 1) * per_file)
        samples["file"][part] = f
        samples["bytes"][part] = sizes[part]
        samples["offset"][part] = numpy.cumsum([0, *sizes[part]])[:-1]
    samples.tofile(folder / "samples.bin")
    numpy.array(order, "<u8").tofile(folder / "order-0.bin")
    (folder / "files.txt").write_text("".join(f"{f}\n" for f in files))


@pytest.mark.parametrize(
    "peer, equal", [("c-mmap", True), ("c-mmap", False), ("c-pread", False), ("gather", True), ("gather", False), ("torch", True)])
def test_peers_read_what_they_are_told(tmp_path, peer, equal):
    sizes = [700] * 60 if equal else [1 + 37 * i % 900 for i in range(60)]
    files = [tmp_path / "one"] if equal else [tmp_path / "one", tmp_path / "two"]
    for f, path in enumerate(files):
        path.write_bytes(os.urandom(sum(sizes[f * 30 : (f + 1) * 30]) if not equal else sum(sizes)))
    order = [(7 * i) % 60 for i in range(60)]
    job(tmp_path, sizes, order, files)
    loader = find_command().parents[1] / "bench" / "peers" / "c_loader"
    command = [loader, peer[2:]] if peer.startswith("c-") else [sys.executable, PEERS / f"{peer}_loader.py"]
    command += [tmp_path, "--rank", 0, "--batch", 7, "--threads", 2]
    done = subprocess.run([str(c) for c in command], input="go\n", capture_output=True, text=True, timeout=60, check=False,
                          env=clean_environment({"PYTHONDONTWRITEBYTECODE": "1"}))
    if done.returncode == 77:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    ready, answer = done.stdout.splitlines()
    answer = json.loads(answer)
    assert ready == "ready" and answer["cpu_bytes"] == sum(sizes)
    ahead = {"gather": 7, "torch": 28}.get(peer, 0)  # read before anybody asked for them
    assert answer["samples"] == 60 - ahead and answer["bytes"] == sum(sizes) - sum(sizes[i] for i in order[:ahead])


def test_compare_has_a_row_for_each(bench, make):
    made = make.raw(n=300, record_bytes=2000)
    document = bench(made, *made.args, "--batch", 8, "--compare", "c-mmap,torch,c-pread", "--runtime", 0.3, "--runs", 2,
                     "--world-size", 2, env={"RINGFEED_PYTHON": "/nonexistent/python"})
    rows = {row["loader"]: row for row in document["loaders"]}
    assert list(rows) == ["ringfeed", "c-mmap", "torch", "c-pread"] and document["pairs"] == 2
    assert figure(rows["ringfeed"]["samples_ratio"]) == 1
    for name in ("c-mmap", "c-pread"):
        assert figure(rows[name]["samples_ratio"]) > 0 and figure(rows[name]["cpu_ratio"]) > 0
        assert rows[name]["version"] == "1 threads"
    assert rows["torch"]["version"] == "not measured" and rows["torch"]["samples_per_s"] is None
    assert [n for n in document["notes"] if n.startswith("torch: ")] == ["torch: /nonexistent/python: No such file or directory"]


# ---- an end before the end --------------------------------------------------------------------------


def wait_for_child(one, word):
    """Until the bench has a child whose command line holds `word` as a word of its own, or as the name of a program."""
    for _ in range(3000):
        for pid in pathlib.Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split():
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if word in [words[0].split("/")[-1], *words[1:2]]:
                return
        try:
            one.process.wait(0.01)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ended without a {word}: {one.stderr}")
    raise AssertionError(f"no {word}")


@pytest.mark.parametrize(
    "number, word, args",
    [
        (signal.SIGINT, "serve", ("--runtime", 60)),
        (signal.SIGTERM, "serve", ("--runtime", 60, "--world-size", 3, "--ramp-time", 60)),
        (signal.SIGINT, "bench", ("--runtime", 0.7)),  # the bare loop: the bench itself, forked
        (signal.SIGINT, "c_loader", ("--runtime", 0.7, "--step-ms", 50, "--compare", "c-pread", "--runs", 1)),
    ],
    ids=["run", "ramp", "loop", "peer"],
)
def test_interrupted(ringfeed, make, run_name, temporary, number, word, args):
    made = make.raw(n=2000, record_bytes=512)
    one = ringfeed.start("bench", made, *made.args, "--batch", 100, *args, "--name", run_name, env={"TMPDIR": str(temporary)})
    wait_for_child(one, word)
    one.send(number)
    assert one.wait() == 1
    assert one.stdout == "" and one.stderr == "ringfeed: interrupted\n"

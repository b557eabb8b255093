"""The examples of the README, as they stand, on data made here."""

import io
import os
import re
import signal
import struct
import tarfile
import textwrap

import numpy
import pytest

from conftest import HERE, PACKAGE, cli

EXAMPLES = HERE.parent.parent / "lib" / "python" / "examples"
ENVIRONMENT = {"PYTHONPATH": str(PACKAGE), "RINGFEED": os.environ["RINGFEED"], "OMP_NUM_THREADS": "1"}


@pytest.fixture
def example(nothing_left, tmp_path):
    started = []

    def start(*words):
        one = cli.Started(["/usr/bin/python3", *words], cli.clean_environment(ENVIRONMENT), tmp_path, f"example-{len(started)}")
        started.append(one)
        return one

    def run(name, *args):
        one = start(EXAMPLES / name, *args)
        assert one.wait() == 0, one.stderr
        assert one.stderr == ""
        return one.stdout

    run.start = start
    yield run
    for one in started:
        one.end()


def write_mnist(directory, n):
    """Digits of a kind: a bright block whose place is the class."""
    random = numpy.random.default_rng(5)
    labels = random.integers(0, 10, n).astype("u1")
    images = random.integers(0, 60, (n, 28, 28)).astype("u1")
    for image, label in zip(images, labels):
        row, column = 4 + 12 * (label // 5), 2 + 5 * (label % 5)
        image[row : row + 6, column : column + 4] = 255
    (directory / "train-images-idx3-ubyte").write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + images.tobytes())
    (directory / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, n) + labels.tobytes())


def test_mnist(example, tmp_path):
    pytest.importorskip("torch")
    write_mnist(tmp_path, 2000)
    accuracy = [float(a) for a in re.findall(r"accuracy (\S+)", example("mnist.py", tmp_path))]
    assert len(accuracy) == 3 and accuracy[-1] > 0.95 > accuracy[0]


def test_webdataset(example, tmp_path):
    image = pytest.importorskip("PIL.Image")
    random = numpy.random.default_rng(6)
    total = 0
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for k in range(50):
                data = io.BytesIO()
                color = tuple(random.integers(0, 256, 3).tolist())
                image.new("RGB", (80 + k, 60), color).save(data, "JPEG")
                decoded = image.open(io.BytesIO(data.getvalue())).convert("RGB").resize((64, 64))
                total += int(numpy.asarray(decoded).sum()) + k % 7
                for name, content in ((f"{shard}-{k:03d}.jpg", data.getvalue()), (f"{shard}-{k:03d}.cls", str(k % 7).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    lines = example("webdataset.py", tmp_path / "0.tar", tmp_path / "1.tar").splitlines()
    assert lines == [f"{name}: 100 images, sum {total}" for name in ("in_one_thread", "in_a_pool")]


def test_tokens(example, tmp_path):
    pytest.importorskip("torch")
    random = numpy.random.default_rng(7)
    steps = numpy.cumsum(random.integers(1, 3, 33 * 800)) % 50  # half of it can be known
    steps.astype("<u2").tofile(tmp_path / "tokens")
    loss = [float(a) for a in re.findall(r"loss (\S+)", example("tokens.py", tmp_path / "tokens", "50"))]
    assert len(loss) == 2 and loss[1] < loss[0] < numpy.log(50) and 0.69 < loss[1] < 1.5


def losses(text):
    return {tuple(map(int, line.split()[:2])): line.split()[2] for line in text.splitlines()}


# torch 1.13 with Python 3.11 fails over its own default for these; a rank that is not there does no harm.
NO_REDIRECTION = ("--redirects", "9:1", "--tee", "9:1")

# distributed.py twice, in processes that import torch once: to the end, then until its first rank kills the whole job, itself
# last, once it has said the loss of a certain batch.
TWO_LIVES = """
    import os, pathlib, signal, sys
    sys.path.insert(0, {examples!r})
    import distributed, torch.distributed

    def say(*words, **how):
        print(*words, **how)
        if words[:2] == (1, 7):
            job = os.getppid()
            ranks = [int(p) for t in pathlib.Path(f"/proc/{{job}}/task").iterdir() for p in (t / "children").read_text().split()]
            for pid in [job, *(r for r in ranks if r != os.getpid()), os.getpid()]:
                os.kill(pid, signal.SIGKILL)

    images, whole, broken = sys.argv[1:]
    distributed.main(images, whole)
    torch.distributed.init_process_group = lambda *words: None  # it is there
    if torch.distributed.get_rank() == 0:
        print("killed:", flush=True)
    distributed.print = say
    distributed.main(images, broken)
"""


def test_distributed_training_that_is_killed(example, tmp_path):
    """Four ranks. The losses of the second life, and those before the kill, are bit by bit those of a life without one."""
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    write_mnist(tmp_path, 4 * 16 * 12)
    lives = tmp_path / "lives.py"
    lives.write_text(textwrap.dedent(TWO_LIVES.format(examples=os.fspath(EXAMPLES))))

    def train(program, *checkpoints):
        one = example.start("-m", "torch.distributed.run", *NO_REDIRECTION, "--standalone", "--nproc_per_node", "4", program,
                            tmp_path / "train-images-idx3-ubyte", *(tmp_path / c for c in checkpoints))  # fmt: skip
        return one.wait(), one.stdout, one.stderr

    status, said, errors = train(lives, "whole", "broken")
    assert status == -signal.SIGKILL, errors
    expected, before = map(losses, said.split("killed:\n"))
    assert sorted(expected) == [(e, s) for e in range(3) for s in range(12)]
    assert len(set(expected.values())) > 30 and max(before) == (1, 7)
    status, said, errors = train(EXAMPLES / "distributed.py", "broken")
    assert status == 0, errors
    after = losses(said)
    assert min(after) == (1, 5) and max(after) == (2, 11)
    for life in (before, after):
        assert {k: v for k, v in expected.items() if k in life} == life


def test_the_readme_shows_them_as_they_stand():
    readme = (EXAMPLES.parents[2] / "README.md").read_text()
    shown = re.findall(r"```python\n# lib/python/examples/(\S+)\n(.*?)```", readme, re.DOTALL)
    assert len(shown) == 2
    for name, text in shown:
        assert text in (EXAMPLES / name).read_text()
    assert all(f"`{path.name}`" in readme for path in EXAMPLES.glob("*.py"))

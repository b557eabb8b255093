"""What every test of the command shares: a runner with a deadline on everything it starts, names of
runs that no other session uses, small datasets written by other people's code (tarfile, numpy), and a
check after each test that nothing was left behind.

The command is $RINGFEED, else the newest build under build/. Run with Debian's Python:

    /usr/bin/python3 -m pytest tests/cli
"""

import ctypes
import dataclasses
import io
import itertools
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import tarfile
import uuid

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
TOKEN = uuid.uuid4().hex[:12]
TIMEOUT = 60
LEAVE_TIMEOUT = 20
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
LAUNCHER_PREFIXES = ("SLURM_", "OMPI_", "PMI_", "MPI_")
LAUNCHER_NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")


def pytest_addoption(parser):
    parser.addoption("--every", type=int, default=1, metavar="N", help="of each test's parameters, only every Nth")


def pytest_collection_modifyitems(config, items):
    """--every N thins out large grids for slow builds; a test without parameters always runs."""
    seen, kept, dropped = {}, [], []
    for item in items:
        key = (item.path, getattr(item, "originalname", item.name))
        seen[key] = seen.get(key, -1) + 1
        (dropped if seen[key] % config.getoption("--every") else kept).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def find_command():
    """Path of the command under test; fails, never skips: a missing command is a failed build."""
    given = os.environ.get("RINGFEED")
    if given:
        return pathlib.Path(given).resolve(strict=True)
    built = [p for p in REPO.glob("build/*/tools/ringfeed")] + [p for p in REPO.glob("build/tools/ringfeed")]
    if not built:
        raise FileNotFoundError("no ringfeed command: set RINGFEED or build one under build/ (tools/test unit)")
    return max(built, key=lambda p: p.stat().st_mtime)


def clean_environment(extra=None):
    """The caller's environment without any launcher's variables, marked as this session's."""
    env = {
        k: v
        for k, v in os.environ.items()
        if k not in LAUNCHER_NAMES and not k.startswith(LAUNCHER_PREFIXES)
    }
    env["RINGFEED_TEST_TOKEN"] = TOKEN
    env.update(extra or {})
    return env


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Started:
    """A command in the background. Its output goes to files, so that it never blocks on a pipe."""

    def __init__(self, argv, env, directory, label):
        self.out_path = directory / f"{label}.out"
        self.err_path = directory / f"{label}.err"
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.process = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env,
                preexec_fn=die_with_parent,
            )
        self.pid = self.process.pid

    @property
    def stdout(self):
        return self.out_path.read_text(errors="replace")

    @property
    def stderr(self):
        return self.err_path.read_text(errors="replace")

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=TIMEOUT):
        """Exit status, or an assertion with what was said so far."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {timeout} s: {self.process.args}\n{self.stdout[-2000:]}\n{self.stderr[-2000:]}"
            ) from None

    def wait_for(self, text, timeout=TIMEOUT):
        """Waits until stdout holds `text`."""
        for _ in range(timeout * 50):
            if text in self.stdout:
                return self
            try:
                self.process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            if text in self.stdout:
                return self
            raise AssertionError(f"ended with {self.process.returncode} before {text!r}:\n{self.stdout}{self.stderr}")
        raise AssertionError(f"no {text!r} within {timeout} s:\n{self.stdout[-2000:]}{self.stderr[-2000:]}")

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)


class Ringfeed:
    """Calls the command: ringfeed("inspect", path). Check status with .ok(...) and .fails(...)."""

    def __init__(self, path, directory):
        self.path = path
        self.directory = directory
        self.started = []

    def __call__(self, *args, env=None, timeout=TIMEOUT, stdin=None, text=True, cwd=None):
        return subprocess.run(
            [str(self.path), *(str(a) for a in args)],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=text,
            errors="replace" if text else None, env=clean_environment(env), timeout=timeout, cwd=cwd,
            preexec_fn=die_with_parent, check=False,
        )

    def ok(self, *args, **options):
        """Standard output of a call that must succeed."""
        done = self(*args, **options)
        assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stderr}"
        return done.stdout

    def json(self, *args, **options):
        return json.loads(self.ok(*args, "--json", **options))

    def json_lines(self, *args, **options):
        return [json.loads(line) for line in self.ok(*args, "--json", **options).splitlines()]

    def fails(self, *args, status=1, says=(), **options):
        """Standard error of a call that must fail with this status and one message that names `says`."""
        done = self(*args, **options)
        stderr = done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace")
        assert done.returncode == status, f"{args}: exit {done.returncode}, not {status}\n{stderr}"
        lines = stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("ringfeed: "), f"{args}: not one message:\n{stderr}"
        for word in [says] if isinstance(says, str) else says:
            assert str(word) in stderr, f"{args}: {word!r} is not in: {stderr}"
        return stderr

    def start(self, *args, env=None):
        label = f"started-{len(self.started)}"
        one = Started([self.path, *args], clean_environment(env), self.directory, label)
        self.started.append(one)
        return one

    def serve(self, dataset, name, *args, env=None, timeout=TIMEOUT):
        """Starts serve and waits until it is ready."""
        one = self.start("serve", dataset, "--name", name, *args, env=env)
        return one.wait_for(f"ready {name}", timeout)

    def end(self):
        for one in reversed(self.started):
            one.end()


def shm_objects():
    return sorted(p.name for p in pathlib.Path("/dev/shm").glob(f"ringfeed.{TOKEN}*"))


def marked_processes():
    """Processes that carry this session's mark in their environment, but for this one."""
    mark = f"RINGFEED_TEST_TOKEN={TOKEN}".encode()
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")))
        except OSError:
            continue
    return found


def wait_gone(pid, seconds):
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([fd], [], [], seconds)
    finally:
        os.close(fd)


@pytest.fixture(autouse=True)
def nothing_left():
    """Fails a test that leaves processes or shared memory behind, and removes them for the next one."""
    yield
    for pid, _ in marked_processes():
        wait_gone(pid, LEAVE_TIMEOUT)
    processes = marked_processes()
    for pid, _ in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        wait_gone(pid, LEAVE_TIMEOUT)
    objects = shm_objects()
    for name in objects:
        os.unlink(f"/dev/shm/{name}")
    assert not processes, f"processes left behind: {processes}"
    assert not objects, f"left in /dev/shm: {objects}"


@pytest.fixture
def ringfeed(nothing_left, tmp_path):
    command = Ringfeed(find_command(), tmp_path)
    yield command
    command.end()


COUNTER = itertools.count()


@pytest.fixture
def run_name():
    """A fresh name for a run; nothing_left looks for it in /dev/shm."""
    return f"{TOKEN}-{next(COUNTER)}"


@pytest.fixture
def new_name():
    """As run_name, for tests that need several."""
    return lambda: f"{TOKEN}-{next(COUNTER)}"


@dataclasses.dataclass
class Sample:
    fields: dict  # name -> bytes, in file order
    label: int = None
    key: str = None

    @property
    def data(self):
        return b"".join(self.fields.values())


@dataclasses.dataclass
class Made:
    path: pathlib.Path
    samples: list  # in dataset order
    args: tuple = ()  # what the command needs besides the path

    def __str__(self):
        return str(self.path)

    def __fspath__(self):
        return str(self.path)


class Maker:
    """Writes small datasets. Contents depend on the seed alone."""

    def __init__(self, directory):
        self.directory = directory
        self.numbers = itertools.count()

    def place(self, name):
        path = self.directory / f"data-{next(self.numbers)}" / name
        path.parent.mkdir()
        return path

    def raw(self, n=100, record_bytes=64, header_bytes=0, seed=0):
        rng = random.Random(seed)
        records = [rng.randbytes(record_bytes) for _ in range(n)]
        path = self.place("records.bin")
        path.write_bytes(rng.randbytes(header_bytes) + b"".join(records))
        args = ("--format", "raw", "--record-bytes", record_bytes, "--header-bytes", header_bytes)
        return Made(path, [Sample({"data": r}) for r in records], args)

    def npy(self, n=100, shape=(4, 3), dtype="<f4", seed=0):
        import numpy

        values = numpy.random.default_rng(seed).integers(0, 100, (n, *shape)).astype(dtype)
        path = self.place("array.npy")
        numpy.save(path, values)
        return Made(path, [Sample({"data": v.tobytes()}) for v in values])

    def idx(self, n=100, shape=(28, 28), seed=0, classes=10):
        """Images and their labels under MNIST's names."""
        rng = random.Random(seed)
        size = 1
        for d in shape:
            size *= d
        images = [rng.randbytes(size) for _ in range(n)]
        labels = [rng.randrange(classes) for _ in range(n)]
        path = self.place(f"train-images-idx{1 + len(shape)}-ubyte")
        head = bytes([0, 0, 8, 1 + len(shape)]) + b"".join(d.to_bytes(4, "big") for d in (n, *shape))
        path.write_bytes(head + b"".join(images))
        (path.parent / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + n.to_bytes(4, "big") + bytes(labels))
        return Made(path, [Sample({"data": i}, label=l) for i, l in zip(images, labels)])

    def tar(self, n=50, sizes=(0, 3000), seed=0, shards=1, tar_format=tarfile.USTAR_FORMAT):
        """One member a sample; no two neighbours share a key."""
        rng = random.Random(seed)
        samples = [Sample({"data": rng.randbytes(rng.randint(*sizes))}, key=f"{i:06d}") for i in range(n)]
        members = [[(f"{s.key}.bin", s.data)] for s in samples]
        return Made(self._shards(members, shards, tar_format), samples)

    def webdataset(self, n=50, sizes=(10, 3000), seed=0, shards=1, classes=7, tar_format=tarfile.USTAR_FORMAT):
        """A picture, its class and a little JSON each."""
        rng = random.Random(seed)
        samples = []
        for i in range(n):
            label = rng.randrange(classes)
            fields = {
                "jpg": rng.randbytes(rng.randint(*sizes)),
                "cls": str(label).encode(),
                "json": json.dumps({"number": i}).encode(),
            }
            samples.append(Sample(fields, label=label, key=f"{i:06d}"))
        members = [[(f"{s.key}.{ext}", data) for ext, data in s.fields.items()] for s in samples]
        return Made(self._shards(members, shards, tar_format), samples)

    def _shards(self, members, shards, tar_format):
        directory = self.place("shards")
        directory.mkdir()
        per_shard = -(-len(members) // shards) if members else 1
        for shard in range(shards):
            with tarfile.open(directory / f"shard-{shard:04d}.tar", "w", format=tar_format) as tar:
                for name, data in itertools.chain(*members[shard * per_shard : (shard + 1) * per_shard]):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return directory

    def files(self, n=30, sizes=(0, 2000), seed=0):
        rng = random.Random(seed)
        directory = self.place("files")
        directory.mkdir()
        samples = []
        for i in range(n):
            data = rng.randbytes(rng.randint(*sizes))
            (directory / f"{i:05d}.dat").write_bytes(data)
            samples.append(Sample({"data": data}))
        return Made(directory, samples)

    def imagefolder(self, classes=("ant", "bee", "cat"), per_class=10, sizes=(10, 2000), seed=0):
        rng = random.Random(seed)
        directory = self.place("images")
        samples = []
        for label, name in enumerate(sorted(classes)):
            (directory / name).mkdir(parents=True)
            for i in range(per_class):
                data = b"\xff\xd8\xff" + rng.randbytes(rng.randint(*sizes))
                (directory / name / f"{i:04d}.jpg").write_bytes(data)
                samples.append(Sample({"data": data}, label=label))
        return Made(directory, samples)


@pytest.fixture
def make(tmp_path):
    return Maker(tmp_path)


@pytest.fixture
def shared_data():
    """The collection of other writers' files, where there is one."""
    path = pathlib.Path(os.environ.get("RINGFEED_SHARED_DATA", REPO.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"{path} is not here (RINGFEED_SHARED_DATA names it)")
    return path

"""Fixtures of the binding's tests. Data, the command and the check that nothing is left come from tests/cli."""

import gc
import hashlib
import importlib.util
import os
import pathlib
import sys
import textwrap

import pytest

HERE = pathlib.Path(__file__).resolve().parent


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE.parent / "cli" / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cli = _load("cli_conftest")
os.environ.setdefault("RINGFEED", str(cli.find_command()))
os.environ["RINGFEED_TEST_TOKEN"] = cli.TOKEN
for name in [n for n in os.environ if n in cli.LAUNCHER_NAMES or n.startswith(cli.LAUNCHER_PREFIXES)]:
    del os.environ[name]
PACKAGE = pathlib.Path(os.environ["RINGFEED"]).resolve().parent.parent / "lib" / "python"
sys.path.insert(0, str(PACKAGE))

make, ringfeed, run_name, new_name, shared_data = cli.make, cli.ringfeed, cli.run_name, cli.new_name, cli.shared_data


def segments():
    """Of the loaders of this process and its scripts, and of this session's names."""
    pids = [os.getpid(), *Script.pids]
    names = (f"ringfeed.{cli.TOKEN}", *(f"ringfeed.py-{pid}-" for pid in pids), *(f"ringfeed.{name}-" for name in Script.jobs))
    return {p.name for p in pathlib.Path("/dev/shm").iterdir() if p.name.startswith(names)}


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves a process or a segment, and no loader open."""
    before = segments()
    yield
    gc.collect()
    for pid, _ in cli.marked_processes():
        cli.wait_gone(pid, cli.LEAVE_TIMEOUT)
    processes, left = cli.marked_processes(), segments() - before
    for pid, _ in processes:
        os.kill(pid, 9)
    for name in left:
        os.unlink(f"/dev/shm/{name}")
    assert not processes, f"processes left behind: {processes}"
    assert not left, f"left in /dev/shm: {left}"


class Script:
    """Python code in a process of its own, with ringfeed importable."""

    pids, jobs = [], set()

    def __init__(self, directory):
        self.directory = directory
        self.started = []

    def start(self, code, *args, env=None):
        path = self.directory / f"script-{len(self.started)}.py"
        path.write_text(textwrap.dedent(code))
        environment = cli.clean_environment({"PYTHONPATH": str(PACKAGE), "RINGFEED": os.environ["RINGFEED"], **(env or {})})
        one = cli.Started(["/usr/bin/python3", path, *args], environment, self.directory, f"script-{len(self.started)}")
        self.started.append(one)
        self.pids.append(one.pid)
        return one

    def run(self, code, *args, env=None, status=0):
        one = self.start(code, *args, env=env)
        got = one.wait()
        assert got == status, f"exit {got}\n{one.stdout}{one.stderr}"
        return one

    def ranks(self, code, *args, world=4, local=None, env=None, status=0):
        """As torchrun starts them, `local` on a machine. Their standard outputs, by rank."""
        port = str(40000 + os.getpid() % 20000)
        local = local or world
        for first in range(0, world, local):
            identity = f"{os.getuid()}/torchrun/{cli.TOKEN}/127.0.0.1/{port}//{first}"
            self.jobs.add("py-" + hashlib.sha256(identity.encode()).hexdigest()[:24])
        running = [
            self.start(code, *args, env={
                "RANK": str(r), "LOCAL_RANK": str(r % local), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(local),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": cli.TOKEN, **(env or {}),
            })
            for r in range(world)
        ]  # fmt: skip
        for one in running:
            got = one.wait()
            assert got == status, f"exit {got}\n{one.stdout}{one.stderr}"
        return [one.stdout for one in running]

    def end(self):
        for one in self.started:
            one.end()


@pytest.fixture
def script(nothing_left, tmp_path):
    scripts = Script(tmp_path)
    yield scripts
    scripts.end()


@pytest.fixture
def order(ringfeed):
    """What a rank is to get: {epoch: [[index, …] a batch]}, by `ringfeed order`."""

    def ask(dataset, *args, rank=0, epochs=1):
        got = {e: [] for e in range(epochs)}
        for line in ringfeed.ok("order", dataset, "--epochs", epochs, *args).splitlines():
            epoch, of, batch, _, index, _ = line.split()
            if int(of) == rank:
                batches = got[int(epoch)]
                if int(batch) == len(batches):
                    batches.append([])
                batches[-1].append(int(index))
        return got

    return ask



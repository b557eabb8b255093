"""What is wrong gets one clear error, status 1 or 2, and leaves nothing behind; nothing of it may crash or hang."""

import contextlib
import ctypes
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import LIBC, TOKEN, clean_environment, find_command, shm_objects
from delivery import Trainer, deliver, order_lines
from test_kill import until, workers_of

ROOT = os.geteuid() == 0
MOUNTS = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
NOBODY = 65534


def serve_fails(ringfeed, dataset, name, *args, status=1, says=(), **options):
    text = ringfeed.fails("serve", dataset, "--name", name, *args, status=status, says=says, **options)
    assert not [o for o in shm_objects() if name in o], text
    return text


# ---- names, ranks, numbers ----


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "a.b", "x" * 65, "é", "a\nb"])
def test_a_bad_name_is_refused(ringfeed, make, name):
    made = make.raw(n=3)
    args = ("--name=" + name, made.path, *made.args)
    ringfeed.fails("serve", *args, status=2, says="name")
    for verb in ("stat", "attach"):
        rest = ("--rank", 0, "--timeout-ms", 50) if verb == "attach" else ()
        done = ringfeed(verb, *rest, "--", name)
        assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_taken_name_is_refused_and_its_owner_undisturbed(ringfeed, run_name, make):
    made = make.raw(n=50)
    serve = ringfeed.serve(made.path, run_name, *made.args)
    before = shm_objects()
    ringfeed.fails("serve", made.path, "--name", run_name, *made.args, says=[run_name, "is taken", "ringfeed ls"])
    assert shm_objects() == before
    ringfeed.ok("attach", run_name, "--rank", 0, "--check")
    assert serve.wait() == 0


def test_of_many_servers_of_one_name_exactly_one_wins(ringfeed, run_name, make):
    made = make.raw(n=5)
    for _ in range(6):
        serves = [ringfeed.start("serve", made.path, "--name", run_name, *made.args) for _ in range(4)]
        until(lambda: sum(s.process.poll() is not None for s in serves) >= 3)
        lost = [s for s in serves if s.process.poll() is not None]
        assert len(lost) == 3 and all(s.wait() == 1 and "is taken" in s.stderr for s in lost)
        (won,) = [s for s in serves if s not in lost]
        won.wait_for("ready")
        ringfeed.ok("attach", run_name, "--rank", 0, "--check")
        assert won.wait() == 0


def test_two_trainers_on_one_rank(ringfeed, run_name, make):
    made = make.raw(n=500)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--ranks", 2)
    first = Trainer(ringfeed, run_name, 0, "--step-ms", 1)
    until(lambda: first.lines())
    started = time.monotonic()
    ringfeed.fails("attach", run_name, "--rank", 0, says=[f"process {first.run.pid}", "already has a trainer"])
    assert time.monotonic() - started < 5  # at once, not after --timeout-ms
    other = Trainer(ringfeed, run_name, 1)
    first.ok()
    other.ok()
    assert serve.wait() == 0


def test_a_name_that_nobody_serves(ringfeed, run_name):
    started = time.monotonic()
    ringfeed.fails("attach", run_name, "--rank", 0, "--timeout-ms", 300, says=[run_name, "no run named"])
    assert 0.3 <= time.monotonic() - started < 10
    ringfeed.fails("stat", run_name, says="no run named")


def test_attach_waits_for_a_run_that_comes_later(ringfeed, run_name, make):
    made = make.raw(n=20)
    trainer = Trainer(ringfeed, run_name, 0)
    serve = ringfeed.serve(made.path, run_name, *made.args)
    assert trainer.ok()["samples"] == 20 and serve.wait() == 0


U64 = 2**64 - 1
ABSURD = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, U64, U64 + 1, -1, "", "x", "1e9", "0x10", " 1", "1 ", "9" * 400]
NUMBERS = [
    "--workers", "--prefetch", "--prefetch-samples", "--ring-bytes", "--queue-depth", "--heartbeat-ms", "--max-restarts",
    "--timeout-ms", "--parent-pid", "--world-size", "--ranks", "--first-rank", "--batch", "--seed", "--epochs",
    "--start-epoch", "--hash-partitions", "--hash-seed", "--block-samples", "--window-blocks", "--record-bytes",
    "--header-bytes", "--classes", "--epoch", "--samples",
]


@pytest.mark.parametrize("option", NUMBERS)
def test_absurd_numbers_are_served_or_refused_in_one_line(ringfeed, new_name, make, option):
    """Neither a crash nor a hang, and nothing is left: status 1 or 2 with one message, or a run that works."""
    made = make.raw(n=24)
    args = [] if option in ("--record-bytes", "--header-bytes") else list(made.args)
    extra = ["--format", "raw", "--record-bytes", 64] if option == "--header-bytes" else []
    if option == "--record-bytes":
        extra = ["--format", "raw"]
    shuffles = {"--block-samples": ["--shuffle", "block"], "--window-blocks": ["--shuffle", "block"],
                "--hash-partitions": ["--strategy", "hash"], "--hash-seed": ["--strategy", "hash"]}
    for value in ABSURD:
        if option == "--ring-bytes" and value in (2**31, 2**32 - 1, 2**32):
            continue  # not absurd: gigabytes that a large machine has
        name = new_name()
        serve = ringfeed.start("serve", made.path, "--name", name, *args, *extra, *shuffles.get(option, []),
                               f"{option}={value}")
        until(lambda: f"ready {name}" in serve.stdout or serve.process.poll() is not None, 60)
        if serve.process.poll() is None:
            stat = ringfeed.json("stat", name)
            assert stat["state"] == "ready"
            ringfeed("attach", name, "--rank", stat["first_rank"], "--limit", 2, "--check", timeout=60)
            serve.send(signal.SIGTERM)
            assert serve.wait() == 0, (option, value, serve.stderr)
        else:
            status = serve.wait()
            messages = serve.stderr.splitlines()
            assert status in (1, 2), (option, value, status, serve.stderr)
            assert len(messages) == 1 and messages[0].startswith("ringfeed: "), (option, value, serve.stderr)
        assert not [o for o in shm_objects() if name in o], (option, value)


@pytest.mark.parametrize("option", ["--rank", "--limit", "--step-ms", "--timeout-ms"])
def test_absurd_numbers_of_attach(ringfeed, run_name, make, option):
    made = make.raw(n=200)
    ringfeed.serve(made.path, run_name, *made.args, "--epochs", 0)
    for value in ABSURD:
        args = {"--rank": 0, "--limit": 1, "--timeout-ms": 1000}
        args[option] = value
        if option == "--step-ms" and value in (2**31, 2**32 - 1, 2**32, 2**63, U64):
            args["--limit"] = 1
        done = ringfeed("attach", run_name, *(f"{k}={v}" for k, v in args.items()), timeout=20) if not (
            option == "--limit" and str(value).isdigit() and int(value) != 1 and int(value) <= U64) else None
        if done:
            assert done.returncode in (0, 1, 2), (option, value, done.stderr)
            assert done.returncode == 0 or done.stderr.startswith("ringfeed: "), (option, value, done.stderr)


@pytest.mark.parametrize(
    "args, status, says",
    [
        (("--batch", 0), 2, "--batch 0"),
        (("--batch", 10, "--ring-bytes", 1024), 2, "--ring-bytes"),
        (("--ranks", 3, "--world-size", 2), 2, "--ranks"),
        (("--strategy", "range", "--ranges", "0:10,20:24", "--ranks", 2), 2, "10:20"),
        (("--strategy", "range", "--ranges", "0:15,10:24", "--ranks", 2), 2, "10"),
        (("--strategy", "range", "--ranges", "0:24", "--ranks", 2), 2, "ranges"),
        (("--strategy", "stratified",), 2, "labels"),
        (("--strategy", "hash", "--hash-key", "key"), 2, "keys"),
        (("--split", "a:0.5,b:0.5", "--use", "c"), 2, "c"),
        (("--subset", "20:30"), 2, "20:30"),
        (("--engine", "carrier-pigeon"), 2, "carrier-pigeon"),
        (("--labels", "/does/not/exist"), 1, "/does/not/exist"),
    ],
)
def test_wrong_options_are_named(ringfeed, run_name, make, args, status, says):
    made = make.raw(n=24)
    done = ringfeed("serve", made.path, "--name", run_name, *made.args, *args)
    assert done.returncode in (1, 2) and says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not shm_objects()


def test_a_batch_larger_than_the_ring_says_what_is_needed(ringfeed, run_name, make):
    made = make.files(n=9, sizes=(100000, 100000))
    text = serve_fails(ringfeed, made.path, run_name, "--batch", 5, "--ring-bytes", "700k", status=2)
    need = int(re.search(r"at least --ring-bytes (\d+)", text).group(1))
    assert need >= 2 * 5 * 100000
    serve_fails(ringfeed, made.path, run_name, "--batch", 5, "--ring-bytes", need - 1, status=2)
    lines, _ = deliver(ringfeed, made.path, run_name, [0], "--batch", 5, "--ring-bytes", need)
    assert len(lines) == 9


# ---- paths and files ----


def test_a_path_with_nothing_there(ringfeed, run_name, tmp_path):
    (tmp_path / "empty").mkdir()
    serve_fails(ringfeed, tmp_path / "missing", run_name, says="missing")
    serve_fails(ringfeed, tmp_path / "empty", run_name, says="empty")
    serve_fails(ringfeed, tmp_path / "*.nothing", run_name, says="nothing")
    ringfeed.fails("serve", "--name", run_name, status=2, says="DATASET")


def test_an_index_whose_dataset_changed(ringfeed, run_name, make, tmp_path):
    made = make.files(n=20, sizes=(10, 20))
    index = tmp_path / "d.rfi"
    ringfeed.ok("index", made.path, "-o", index)
    victim = made.path / "00007.dat"
    keep = victim.read_bytes()
    stamp = victim.stat().st_mtime_ns
    victim.write_bytes(keep + b"more")
    serve_fails(ringfeed, index, run_name, says="00007.dat")
    victim.write_bytes(keep)
    os.utime(victim, ns=(stamp, stamp + 1000000007))
    serve_fails(ringfeed, index, run_name, says="00007.dat")
    victim.unlink()
    serve_fails(ringfeed, index, run_name, says="00007.dat")


@pytest.mark.parametrize("engine", ["uring", "pread"])
@pytest.mark.parametrize("harm", ["missing", "truncated", "empty", "grown", "directory", "fifo"])
def test_a_file_that_changes_mid_run(ringfeed, run_name, make, harm, engine):
    made = make.files(n=60, sizes=(5000, 6000))
    serve = ringfeed.serve(made.path, run_name, "--batch", 2, "--prefetch", 2, "--workers", 2, "--engine", engine)
    victim = made.path / "00051.dat"
    keep = victim.read_bytes()
    if harm == "truncated":
        os.truncate(victim, 100)
    elif harm == "empty":
        os.truncate(victim, 0)
    elif harm == "grown":
        victim.write_bytes(keep + b"tail")
    else:
        victim.unlink()
        if harm == "directory":
            victim.mkdir()
        elif harm == "fifo":
            os.mkfifo(victim)
    trainer = Trainer(ringfeed, run_name, 0, "--timeout-ms", 5000)
    if harm == "grown":
        trainer.ok()
        assert serve.wait() == 0
        return
    assert trainer.run.wait() == 1
    errors = trainer.run.stderr.splitlines()
    assert len(errors) == 1 and "00051.dat" in errors[0] and "sample 51" in errors[0], trainer.run.stderr
    assert len(trainer.lines()) == 50
    rest = Trainer(ringfeed, run_name, 0)  # the failed batch counts as delivered; the next trainer goes on behind it
    assert rest.ok()["samples"] == 8
    assert serve.wait() == 0 and "killed" not in serve.stderr


@pytest.mark.skipif(not ROOT, reason="only root can become another user to be denied")
def test_unreadable_files_are_named(ringfeed, run_name, new_name, public):
    data = public / "data"
    data.mkdir(mode=0o755)
    for i in range(20):
        (data / f"{i:02d}.dat").write_bytes(bytes([i]) * 100)
        (data / f"{i:02d}.dat").chmod(0o644)
    (data / "13.dat").chmod(0)
    done = as_nobody(["serve", data, "--name", run_name])
    if done.returncode == 0:
        pytest.fail("a file that cannot be read was served")
    assert done.returncode == 1 and "13.dat" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    data.chmod(0)
    done = as_nobody(["inspect", data])
    assert done.returncode == 1 and "data" in done.stderr


# ---- other users, limits, forbidden io_uring ----


@pytest.fixture
def public():
    """A directory that other users reach; pytest's own is root's alone."""
    directory = pathlib.Path(f"/tmp/ringfeed-public-{TOKEN}")
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def command_for_all():
    """The command where nobody may execute it."""
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(f"/tmp/ringfeed-command-{TOKEN}")
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        stack.callback(shutil.rmtree, directory)
        copy = directory / "ringfeed"
        shutil.copy(find_command(), copy)
        copy.chmod(0o755)
        yield copy


def as_nobody(args, timeout=60):
    with command_for_all() as command:
        return subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", str(command), *map(str, args)],
            capture_output=True, text=True, timeout=timeout, env=clean_environment(), check=False, stdin=subprocess.DEVNULL,
        )


PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
IO_URING_SETUP = 425


def forbid_io_uring():
    """As container runtimes do: io_uring_setup is EPERM."""

    class Filter(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]

    lines = (Filter * 4)(Filter(0x20, 0, 0, 0), Filter(0x15, 0, 1, IO_URING_SETUP), Filter(0x06, 0, 0, 0x00050001),
                         Filter(0x06, 0, 0, 0x7FFF0000))
    assert LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(Program(4, lines))) == 0


def limited(ringfeed, wrapper, *args):
    """The command behind a wrapper that changes the process and then executes it."""
    return wrapped_start(ringfeed, wrapper, [ringfeed.path, *args])


def wrapped_start(ringfeed, wrapper, argv):
    command, ringfeed.path = ringfeed.path, wrapper[0]
    try:
        return ringfeed.start(*wrapper[1:], *argv)
    finally:
        ringfeed.path = command


SECCOMP_WRAPPER = ["/usr/bin/python3", "-c", (
    "import os, sys; sys.path.insert(0, sys.argv[1]); import test_bad; test_bad.forbid_io_uring();"
    "os.execv(sys.argv[2], sys.argv[2:])"
), str(pathlib.Path(__file__).parent)]


def run_limited(ringfeed, name, made, wrapper, *args):
    """Serves behind the wrapper, delivers all, returns what serve said and the engine it used."""
    order = ("--ranks", 2, "--batch", 3, "--shuffle", "full", *made.args)
    serve = limited(ringfeed, wrapper, "serve", made.path, "--name", name, *order, *args).wait_for("ready")
    engine = ringfeed.json("stat", name)["engine"]
    run = [Trainer(ringfeed, name, rank) for rank in range(2)]
    for t in run:
        t.ok()
    assert serve.wait() == 0
    lines = sorted(line for t in run for line in t.lines())
    assert lines == sorted(order_lines(ringfeed, made.path, *order))
    return serve.stderr.splitlines(), engine


def test_forbidden_io_uring_falls_back_to_pread_and_says_so_once(ringfeed, new_name, make):
    made = make.files(n=60, sizes=(0, 9000))
    notes, engine = run_limited(ringfeed, new_name(), made, SECCOMP_WRAPPER, "--workers", 3)
    assert engine == "mapped+pread" and len(notes) == 1 and "io_uring" in notes[0] and "pread" in notes[0], notes
    refused = limited(ringfeed, SECCOMP_WRAPPER, "serve", made.path, "--name", new_name(), "--engine", "uring")
    assert refused.wait() == 1 and "--engine pread" in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_three_thousand_files_with_few_descriptors(ringfeed, new_name, make):
    made = make.files(n=3000, sizes=(0, 60))
    for limit in (64, 100, 256):
        wrapper = ["/usr/bin/prlimit", f"--nofile={limit}:{limit}"]
        for engine in ("uring", "pread"):
            notes, _ = run_limited(ringfeed, new_name(), made, wrapper, "--workers", 3, "--engine", engine)
            assert notes == []


@pytest.mark.skipif(not ROOT, reason="root's memlock is unlimited, so another user is needed, whom only root can become")
def test_nobody_can_serve_and_attach_with_any_memlock(ringfeed, new_name, public):
    data = public / "data"
    data.mkdir(mode=0o755)
    for i in range(200):
        (data / f"{i:03d}.dat").write_bytes(bytes([i]) * (i * 13))
    data.chmod(0o755)
    for kib in (0, 4, 16, 64, 8192):
        with command_for_all() as command:
            become = ["/usr/bin/prlimit", f"--memlock={kib * 1024}:{kib * 1024}", "setpriv", f"--reuid={NOBODY}",
                      f"--regid={NOBODY}", "--clear-groups", str(command)]
            name = new_name()
            ids = public / f"ids-{kib}"
            serve = wrapped_start(ringfeed, become, ["serve", data, "--name", name, "--workers", 6, "--batch", 4])
            serve.wait_for("ready")
            engine = ringfeed.json("stat", name)["engine"]
            uids = {os.stat(f"/dev/shm/{o}").st_uid for o in shm_objects() if name in o}
            modes = {os.stat(f"/dev/shm/{o}").st_mode & 0o777 for o in shm_objects() if name in o}
            assert uids == {NOBODY} and modes == {0o600}
            public.chmod(0o777)
            trainer = wrapped_start(ringfeed, become, ["attach", name, "--rank", 0, "--check", "--ids", ids])
            assert trainer.wait() == 0, trainer.stderr
            assert serve.wait() == 0, serve.stderr
            assert len(ids.read_text().splitlines()) == 200
            notes = serve.stderr.splitlines()
            assert len(notes) == (engine == "mapped+pread"), (kib, notes)
            if kib == 8192:
                assert engine == "mapped"


@pytest.mark.skipif(not ROOT, reason="needs a second user")
def test_another_users_run_is_refused(ringfeed, run_name, make):
    made = make.raw(n=10)
    serve = ringfeed.serve(made.path, run_name, *made.args)
    for args in (["attach", run_name, "--rank", 0, "--timeout-ms", 100], ["stat", run_name]):
        done = as_nobody(args)
        assert done.returncode == 1 and "another user" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    listed = as_nobody(["ls", "--json"])
    assert listed.returncode == 0 and run_name in listed.stdout and '"unknown"' in listed.stdout
    assert as_nobody(["gc"]).returncode == 0
    ringfeed.ok("attach", run_name, "--rank", 0)
    assert serve.wait() == 0


# ---- /dev/shm and memory ----


@pytest.mark.skipif(not MOUNTS, reason="no mount namespace of its own can be made here")
@pytest.mark.parametrize("size", ["4k", "64k", "1m", "3m", "0"])
def test_dev_shm_too_small(ringfeed, run_name, make, size):
    made = make.raw(n=100, record_bytes=50000)
    option = "size=" + size if size != "0" else "nr_blocks=1"
    script = f"mount -t tmpfs -o {option} tmpfs /dev/shm && \"$@\"; rc=$?; ls -A /dev/shm >&3; exit $rc"
    with open(ringfeed.directory / "left", "w+") as left:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f"exec 3>{left.name}; {script}", "sh", str(ringfeed.path), "serve", str(made.path),
             "--name", run_name, *map(str, made.args), "--batch", "20"],
            capture_output=True, text=True, timeout=60, env=clean_environment(), check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 1 and "/dev/shm" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert left.read() == ""
    if size in ("1m", "3m"):
        assert re.search(r"\d{7,} bytes are needed", done.stderr), done.stderr


def memory_group():
    for base in (pathlib.Path("/sys/fs/cgroup/memory"), pathlib.Path("/sys/fs/cgroup")):
        limit = "memory.limit_in_bytes" if base.name == "memory" else "memory.max"
        group = base / f"ringfeed-{TOKEN}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists() and os.access(group / limit, os.W_OK):
            return group, limit
        group.rmdir()
    return None, None


def test_a_memory_group_too_small_is_an_error_and_no_kill(ringfeed, run_name, make):
    group, limit = memory_group()
    if not group:
        pytest.skip("no memory cgroup can be made here")
    try:
        (group / limit).write_text(str(40 << 20))
        made = make.raw(n=100, record_bytes=500000)
        done = subprocess.run(
            ["sh", "-c", f"echo $$ > {group}/cgroup.procs && exec \"$@\"", "sh", str(ringfeed.path), "serve", str(made.path),
             "--name", run_name, *map(str, made.args), "--batch", "20", "--prefetch", "8", "--ring-bytes", "80m"],
            capture_output=True, text=True, timeout=60, env=clean_environment(), check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 1 and "control group" in done.stderr and len(done.stderr.splitlines()) == 1, done
        assert not shm_objects()
    finally:
        until(lambda: (group / "cgroup.procs").read_text() == "")
        group.rmdir()


def test_a_closed_or_full_stdout_is_no_crash(ringfeed, run_name, make):
    """serve's ready line has nowhere to go: an error, or a run that can be stopped."""
    made = make.raw(n=5)
    for redirect in (">&-", "> /dev/full"):
        done = subprocess.Popen(
            ["sh", "-c", f"exec \"$@\" {redirect}", "sh", str(ringfeed.path), "serve", str(made.path), "--name", run_name,
             *map(str, made.args)], stderr=subprocess.PIPE, text=True, env=clean_environment(), stdin=subprocess.DEVNULL)
        try:
            ringfeed("attach", run_name, "--rank", 0, "--timeout-ms", 3000)
            assert done.wait(30) in (0, 1)
        finally:
            done.kill()
            done.communicate()
        assert not [o for o in shm_objects() if run_name in o]


# ---- objects in /dev/shm that are not what they should be ----


@contextlib.contextmanager
def odd_object(name, kind):
    path = pathlib.Path(f"/dev/shm/ringfeed.{name}")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "dangling":
        path.symlink_to("/does/not/exist")
    elif kind == "socket":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.close()
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    else:
        path.write_bytes({"empty": b"", "text": b"hello\n" * 2000, "byte": b"x"}[kind])
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink", "dangling", "socket", "device", "empty", "text", "byte"])
@pytest.mark.parametrize("suffix", ["", ".data"])
def test_something_else_under_a_runs_name(ringfeed, run_name, make, kind, suffix):
    if kind == "device" and not ROOT:
        pytest.skip("only root makes devices")
    made = make.raw(n=5)
    with odd_object(run_name + suffix, kind) as path:
        ringfeed.ok("ls", timeout=40)
        ringfeed.ok("gc", timeout=40)
        assert path.is_symlink() or path.exists(), "gc removed what is not ours"
        for args in (("stat", run_name), ("attach", run_name, "--rank", 0, "--timeout-ms", 50)):
            done = ringfeed(*args, timeout=40)
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, (args, done.stderr)
        if not suffix and kind != "empty":
            done = ringfeed("serve", made.path, "--name", run_name, *made.args, timeout=40)
            assert done.returncode == 1 and run_name in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
            assert path.is_symlink() or path.exists()
        if kind == "empty" and not suffix:  # what a serve leaves that died in its first instant
            stop_at_once(ringfeed, made, run_name)
    if suffix:
        stop_at_once(ringfeed, made, run_name)


def stop_at_once(ringfeed, made, name):
    serve = ringfeed.serve(made.path, name, *made.args)
    serve.send(signal.SIGTERM)
    assert serve.wait() == 0


class Impostor:
    """A copy of a run's objects under another name, with somebody who answers its trainers: an attach then goes
    as far as the segment lets it."""

    def __init__(self, source, name):
        self.name = name
        self.paths = [pathlib.Path(f"/dev/shm/ringfeed.{name}{suffix}") for suffix in ("", ".data")]
        self.sources = [pathlib.Path(f"/dev/shm/ringfeed.{source}{suffix}").read_bytes() for suffix in ("", ".data")]
        nonce = self.nonce_offset(source)
        (number,) = struct.unpack_from("<Q", self.sources[0], nonce)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.bind(f"\0ringfeed.{name}.{number:016x}".encode())
        self.sock.listen(16)
        threading.Thread(target=self.answer, daemon=True).start()

    def nonce_offset(self, source):
        """Where the nonce lies: found through the name of the listening socket, not through our headers."""
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
            _, _, nonce = line.partition(f"@ringfeed.{source}.")
            if nonce:
                at = self.sources[0].find(struct.pack("<Q", int(nonce, 16)))
                assert at >= 0
                return at
        raise AssertionError("no socket of the run")

    def answer(self):
        peers = []
        while True:
            try:
                peer, _ = self.sock.accept()
                _, _, _, sequence = struct.unpack_from("<IIII", peer.recv(4096))
                # Incarnation 0, as in the copied record: nobody had attached.
                peer.send(struct.pack("<iIIIQ488s", 0, 0, sequence, 0, 0, b""))
                peers = [*peers[-4:], peer]
            except (OSError, struct.error):
                return

    def write(self, control, data=None):
        self.paths[0].write_bytes(control)
        self.paths[1].write_bytes(self.sources[1] if data is None else data)

    def close(self):
        self.sock.close()
        for path in self.paths:
            path.unlink(missing_ok=True)


@pytest.fixture
def impostor(ringfeed, new_name, make):
    made = make.webdataset(n=40, shards=2)
    name = new_name()
    ringfeed.serve(made.path, name, "--ranks", 2, "--batch", 4, "--workers", 2)
    until(lambda: all(r["ready"] == 4 for r in ringfeed.json("stat", name)["ranks"]))
    copy = Impostor(name, new_name())
    yield copy
    copy.close()


def survives(ringfeed, name, what):
    """Every verb ends by itself, in words, with 0 or 1."""
    calls = [("stat", name, "--json"), ("attach", name, "--rank", 0, "--check", "--timeout-ms", 150, "--limit", 4),
             ("ls", "--json")]
    for args in calls:
        done = ringfeed(*args, timeout=20)
        assert done.returncode in (0, 1), (what, args, done.returncode, done.stderr[-3000:])
        assert all(line.startswith("ringfeed: ") for line in done.stderr.splitlines()), (what, args, done.stderr)
        assert done.returncode == 0 or done.stderr, (what, args)


def test_an_impostor_that_is_intact_is_read_to_its_end(ringfeed, impostor):
    """Shows that the attacks below reach the batches and do not end at the door."""
    impostor.write(impostor.sources[0])
    done = ringfeed("attach", impostor.name, "--rank", 0, "--check", "--timeout-ms", 5000, "--limit", 4)
    assert done.returncode == 0 and "check_errors" in done.stdout, done.stderr
    assert ringfeed.json("stat", impostor.name)["state"] == "ready"


ROUNDS = 2000 if os.environ.get("RF_EXHAUSTIVE") else 120


def test_garbled_segments(ringfeed, impostor):
    """Bytes are flipped where the object is not zero, few or many at a time; numbers are made extreme."""
    rng = random.Random(int(os.environ.get("RF_SEED", 11)))
    control = impostor.sources[0]
    used = [i for i in range(0, len(control), 8) if any(control[i : i + 8])]
    for turn in range(ROUNDS):
        garbled = bytearray(control)
        changes = []
        for _ in range(rng.choice([1, 1, 1, 2, 8, 100])):
            at = rng.choice(used) if rng.random() < 0.8 else 8 * rng.randrange(len(control) // 8)
            if rng.random() < 0.5:
                garbled[at + rng.randrange(8)] ^= 1 << rng.randrange(8)
            else:
                number = rng.choice([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, U64, U64 - 511, U64 - 4095, 1 << 40, rng.randrange(U64)])
                struct.pack_into("<Q", garbled, at, number)
            changes.append((hex(at), garbled[at : at + 8].hex()))
        impostor.write(bytes(garbled))
        survives(ringfeed, impostor.name, (turn, changes[:5]))


def test_extreme_words_in_the_first_pages(ringfeed, impostor):
    """The header and the configuration, word by word: everything that addresses memory is there."""
    control = impostor.sources[0]
    words = [i for i in range(0, 3 * 4096, 4) if any(control[i : i + 4])]
    step = 1 if os.environ.get("RF_EXHAUSTIVE") else 3
    for at in words[:: step]:
        for number in (0xFFFFFFFF, 0x80000000) if step == 1 else (0xFFFFFFFF,):
            garbled = bytearray(control)
            struct.pack_into("<I", garbled, at, number)
            impostor.write(bytes(garbled))
            survives(ringfeed, impostor.name, (hex(at), number))


def test_truncated_segments(ringfeed, impostor):
    control, data = impostor.sources
    rng = random.Random(3)
    lengths = [0, 1, 7, 8, 100, 4095, 4096, 4097, 8192, len(control) - 1, len(control) - 4096]
    lengths += [rng.randrange(len(control)) for _ in range(10)] + [4096 * rng.randrange(len(control) // 4096) for _ in range(10)]
    for n in lengths:
        impostor.write(control[:n])
        survives(ringfeed, impostor.name, ("control cut at", n))
    for n in (0, 1, 4095, 4096, len(data) // 2, len(data) - 1):
        impostor.write(control, data[:n])
        survives(ringfeed, impostor.name, ("data cut at", n))
    impostor.write(control, bytes(len(data)))
    survives(ringfeed, impostor.name, "data of zeros")
    impostor.write(control + bytes(4096))
    survives(ringfeed, impostor.name, "control too long")


def test_gc_of_a_dead_copy_with_garbage_removes_it(ringfeed, impostor):
    """A copy has no owner's lock: it is dead, whatever it says, and it is ours by its first word."""
    garbled = bytearray(impostor.sources[0])
    garbled[64:] = random.Random(1).randbytes(len(garbled) - 64)
    impostor.write(bytes(garbled))
    removed = [r["name"] for r in ringfeed.json("gc")["removed"]]
    assert impostor.name in removed and not impostor.paths[0].exists()


def test_strangers_on_the_socket_do_no_harm(ringfeed, run_name, make):
    """Garbage, silence and floods on the run's own socket; a trainer gets its batches all the same."""
    made = make.raw(n=300)
    serve = ringfeed.serve(made.path, run_name, *made.args, "--ranks", 2)
    (address,) = {
        "\0" + line.rpartition("@")[2]
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines() if f"@ringfeed.{run_name}." in line
    }
    rng = random.Random(2)
    silent = []
    for turn in range(200):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(address.encode())
        if turn % 3 == 0:
            sock.send(rng.randbytes(rng.choice([1, 39, 40, 41, 48, 500, 4000])))
        elif turn % 3 == 1 and len(silent) < 20:
            silent.append(sock)
            continue
        sock.close()
    first = Trainer(ringfeed, run_name, 0)
    first.ok()
    for sock in silent:
        sock.close()
    Trainer(ringfeed, run_name, 1).ok()
    assert serve.wait() == 0 and serve.stderr == ""

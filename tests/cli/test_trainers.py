"""Identity and death of trainers, and the death of the parent as a trainer sees it. Most trainers here are Python
processes that call the library, because they hold batches, fork, execute and lie, which `attach` does not."""

import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import clean_environment, die_with_parent, find_command, shm_objects, wait_gone
from delivery import Trainer, deliver, order_lines
from test_kill import alive, until, workers_of

SLACK = 20  # times the budget: the machine may be busy; what was measured is printed

# A trainer that does what it is told on stdin, a word a line, and answers with a line. `Batch` is the head of rf_batch.
TRAINER = textwrap.dedent(
    """
    import ctypes, os, sys, time

    class Batch(ctypes.Structure):
        _fields_ = [("ticket", ctypes.c_uint64), ("epoch", ctypes.c_uint64), ("batch", ctypes.c_uint64),
                    ("n_samples", ctypes.c_uint32), ("n_fields", ctypes.c_uint32), ("fixed_bytes", ctypes.c_uint64),
                    ("data", ctypes.c_void_p), ("data_bytes", ctypes.c_uint64), ("offsets", ctypes.POINTER(ctypes.c_uint64)),
                    ("lengths", ctypes.POINTER(ctypes.c_uint64)), ("ids", ctypes.POINTER(ctypes.c_uint64)),
                    ("rest", ctypes.c_uint64 * 9)]

    rf = ctypes.CDLL(sys.argv[1], use_errno=True)
    rf.rf_last_error.restype = rf.rf_trainer_error.restype = ctypes.c_char_p
    rf.rf_attach.argtypes = [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]
    rf.rf_next.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    rf.rf_release.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    rf.rf_trainer_error.argtypes = rf.rf_detach.argtypes = [ctypes.c_void_p]
    t = ctypes.c_void_p()
    held = {}

    def say(*words):
        print(*words, flush=True)

    def fail(rc, text):
        say("error", rc, text.decode(errors="replace"))

    def attach():
        rc = rf.rf_attach(sys.argv[2].encode(), int(sys.argv[3]), None, ctypes.byref(t))
        say("attached", os.getpid()) if rc == 0 else fail(rc, rf.rf_last_error())

    def content(b):
        return ctypes.string_at(b.data + b.offsets[0], b.lengths[0]).hex()

    attach()
    for line in sys.stdin:
        word, *args = line.split()
        if word == "next":
            b = Batch()
            rc = rf.rf_next(t, int(args[0]) if args else 20000, ctypes.byref(b))
            at = time.monotonic()
            if rc == 0:
                held[b.batch] = b
                say("batch", b.epoch, b.batch, b.ids[0], content(b), at)
            elif rc == 1:
                say("end")
            else:
                say("error", rc, at, rf.rf_trainer_error(t).decode(errors="replace"))
        elif word == "look":
            say("content", content(held[int(args[0])]))
        elif word == "release":
            rc = rf.rf_release(t, ctypes.byref(held.pop(int(args[0]))))
            say("released") if rc == 0 else fail(rc, rf.rf_trainer_error(t))
        elif word == "fork":
            pid = os.fork()
            if pid == 0:
                while True:
                    time.sleep(1)
            say("forked", pid)
        elif word == "exec":
            say("executing")
            os.execv("/bin/sleep", ["sleep", "60"])
        elif word == "detach":
            rf.rf_detach(t)
            say("detached")
    """
)


def library():
    found = find_command().parents[1] / "lib" / "libringfeed.so"
    return found if found.exists() else next(find_command().parents[1].rglob("libringfeed.so*"))


class Puppet:
    """A process that runs TRAINER. Its answers are awaited with a deadline."""

    def __init__(self, name, rank, command=(), env=None, expect="attached"):
        self.process = subprocess.Popen(
            [*command, sys.executable, "-c", TRAINER, str(library()), name, str(rank)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=clean_environment(env), preexec_fn=die_with_parent,
        )
        self.first = self.answer()
        assert self.first[0] == expect, self.first
        self.pid = int(self.first[1]) if expect == "attached" else self.process.pid

    def answer(self):
        import select

        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready, "no answer within 60 s"
        return self.process.stdout.readline().split()

    def send(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()

    def ask(self, *words):
        self.send(*words)
        return self.answer()

    def next(self):
        """Number of the batch and its first bytes."""
        word, epoch, batch, first, content, _ = self.ask("next")
        assert word == "batch"
        return int(batch), content

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def puppet():
    if "asan" in str(find_command()) or "tsan" in str(find_command()):
        pytest.skip("the library of a sanitizer build cannot be loaded into Python")
    made = []

    def make(*args, **options):
        made.append(Puppet(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.end()


def refused(puppet_of, name, pid):
    """A second trainer is turned away, with the first one's number."""
    late = puppet_of(name, 0, expect="error")
    assert "already" in late.first and str(pid) in late.first, late.first
    late.end()


def test_releases_out_of_order_count_when_those_before_them_do(ringfeed, run_name, make, puppet):
    """Killed with several batches held: its follower begins at the first batch whose release does not count."""
    made = make.raw(n=200)
    order = ("--batch", 2, *made.args)
    serve = ringfeed.serve(made.path, run_name, *order, "--prefetch", 8)
    trainer, at = puppet(run_name, 0), 0
    for held, released, follows in [(6, [0, 1, 3, 5], 2), (4, [3, 2, 1], 0), (5, [4, 3, 2, 1, 0], 5), (3, [], 0), (8, [6, 0], 1)]:
        assert [trainer.next()[0] for _ in range(held)] == list(range(at, at + held))
        for k in released:
            assert trainer.ask("release", at + k) == ["released"]
        trainer.kill()
        trainer, at = puppet(run_name, 0), at + follows
        stat = ringfeed.json("stat", run_name)["ranks"][0]
        assert stat["batch"] == at and stat["pid"] == trainer.pid
    trainer.kill()
    ids = ringfeed.directory / "rest"
    Trainer(ringfeed, run_name, 0, ids=ids).ok()
    assert serve.wait() == 0
    assert ids.read_text().splitlines() == order_lines(ringfeed, made.path, *order)[2 * at:]


def test_a_forked_child_cannot_keep_the_lease(ringfeed, run_name, make, puppet):
    """It has the connection and every page, and lives on; the rank is free all the same, and stays its follower's."""
    made = make.raw(n=100)
    serve = ringfeed.serve(made.path, run_name, "--batch", 2, *made.args)
    trainer = puppet(run_name, 0)
    trainer.next()
    child = int(trainer.ask("fork")[1])
    try:
        refused(puppet, run_name, trainer.pid)
        trainer.kill()
        assert alive(child)
        follower = puppet(run_name, 0)
        assert follower.next()[0] == 0 and alive(child)
        refused(puppet, run_name, follower.pid)
    finally:
        os.kill(child, signal.SIGKILL)
    wait_gone(child, 10)
    assert follower.next()[0] == 1, "the child's death is not the follower's"
    refused(puppet, run_name, follower.pid)
    follower.end()
    Trainer(ringfeed, run_name, 0).ok()
    assert serve.wait() == 0


def test_exec_ends_the_lease(ringfeed, run_name, make, puppet):
    made = make.raw(n=100)
    serve = ringfeed.serve(made.path, run_name, "--batch", 2, *made.args)
    trainer = puppet(run_name, 0)
    trainer.next()
    assert trainer.ask("exec") == ["executing"]
    until(lambda: ringfeed.json("stat", run_name)["ranks"][0]["pid"] == 0)
    assert alive(trainer.pid) and pathlib.Path(f"/proc/{trainer.pid}/comm").read_text() == "sleep\n"
    Trainer(ringfeed, run_name, 0).ok()
    assert serve.wait() == 0


def test_a_stopped_trainer_keeps_its_rank(ringfeed, run_name, make, puppet):
    """Stopped is not dead: nobody else gets the rank, and it goes on where it was."""
    made = make.raw(n=100)
    ringfeed.serve(made.path, run_name, "--batch", 2, *made.args, "--heartbeat-ms", 100)
    trainer = puppet(run_name, 0)
    assert trainer.next()[0] == 0
    os.kill(trainer.pid, signal.SIGSTOP)
    time.sleep(1)  # ten times the heartbeat: a limit that must not be one for trainers
    refused(puppet, run_name, trainer.pid)
    os.kill(trainer.pid, signal.SIGCONT)
    assert trainer.next()[0] == 1
    assert ringfeed.json("stat", run_name)["ranks"][0]["pid"] == trainer.pid
    os.kill(trainer.pid, signal.SIGSTOP)
    trainer.kill()  # and killed while stopped it is dead at once
    assert puppet(run_name, 0).next()[0] == 0


REUSE = textwrap.dedent(
    """
    import ctypes, os, signal, subprocess, sys
    command, library, data, name, trainer, *order = sys.argv[1:]
    os.environ["RINGFEED_TEST_TOKEN"]
    serve = subprocess.Popen([command, "serve", data, "--name", name, "--batch", "2", *order], stdout=subprocess.PIPE, text=True)
    assert serve.stdout.readline().startswith("ready")

    def start(pid=None):
        # The kernel gives the number after this one to the next process.
        if pid:
            open("/proc/sys/kernel/ns_last_pid", "w").write(str(pid - 1))
        one = subprocess.Popen([sys.executable, "-c", trainer, library, name, "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if pid:
            assert one.pid == pid, (one.pid, pid)
        return one

    def ask(one, *words):
        one.stdin.write(" ".join(words) + chr(10))
        one.stdin.flush()
        return one.stdout.readline().split()

    first = start(500)
    assert first.stdout.readline().split() == ["attached", "500"]
    assert ask(first, "next")[2] == "0"
    child = int(ask(first, "fork")[1])  # keeps the connection open
    first.kill()
    first.wait()
    # Another process with its number, which never heard of the run: the rank is free all the same.
    open("/proc/sys/kernel/ns_last_pid", "w").write("499")
    stranger = subprocess.Popen(["sleep", "60"])
    assert stranger.pid == 500, stranger.pid
    second = start()
    assert second.stdout.readline().split()[0] == "attached"
    assert ask(second, "next")[2] == "0"
    # The stranger's death is not the follower's.
    stranger.kill()
    stranger.wait()
    assert ask(second, "next")[2] == "1"
    third = start()
    assert "already" in third.stdout.readline()
    third.kill()
    third.wait()
    # A trainer with the number of the dead one is a new trainer.
    second.kill()
    second.wait()
    fourth = start(500)
    assert fourth.stdout.readline().split() == ["attached", "500"]
    assert ask(fourth, "next")[2] == "0"
    os.kill(child, signal.SIGKILL)
    assert ask(fourth, "next")[2] == "1"
    import json
    stat = json.loads(subprocess.check_output([command, "stat", name, "--json"]))
    assert stat["ranks"][0]["pid"] == 500, stat["ranks"]
    fourth.kill()
    fourth.wait()
    serve.terminate()
    assert serve.wait() == 0
    print("passed")
    """
)


def test_a_reused_number_is_never_taken_for_the_old_trainer(ringfeed, run_name, make, puppet):
    """In a pid namespace of its own, where the next number can be chosen."""
    wrap = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespace can be made here (root, or CAP_SYS_ADMIN, is needed)")
    tries = "open('/proc/sys/kernel/ns_last_pid', 'w').write('300')"
    if subprocess.run([*wrap, sys.executable, "-c", tries], capture_output=True, check=False).returncode:
        pytest.skip("/proc/sys/kernel/ns_last_pid cannot be written here")
    made = make.raw(n=100)
    done = subprocess.run(
        [*wrap, sys.executable, "-c", REUSE, ringfeed.path, library(), made.path, run_name, TRAINER, *map(str, made.args)],
        env=clean_environment(), capture_output=True, text=True, timeout=100, check=False, preexec_fn=die_with_parent,
    )
    assert done.returncode == 0 and done.stdout == "passed\n", done.stdout + done.stderr


def cpu_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_dead_rank_waits_with_a_full_ring_and_costs_nothing(ringfeed, run_name, make, puppet):
    made = make.raw(n=2000)
    serve = ringfeed.serve(made.path, run_name, "--batch", 2, "--prefetch", 6, *made.args, "--workers", 2)
    trainer = puppet(run_name, 0)
    for _ in range(20):
        trainer.ask("release", trainer.next()[0])
    held = trainer.next()
    trainer.kill()
    rank = lambda: ringfeed.json("stat", run_name)["ranks"][0]
    until(lambda: rank()["status"] == "failed" and rank()["ready"] == 5)  # and the one that was taken
    processes = [serve.pid, *workers_of(serve)]
    before = [cpu_ticks(p) for p in processes]
    time.sleep(2)
    burnt = [after - b for after, b in zip([cpu_ticks(p) for p in processes], before)]
    assert sum(burnt) <= 0.1 * 2 * os.sysconf("SC_CLK_TCK"), f"ticks in 2 s: {burnt}"
    until(lambda: [w["status"] for w in ringfeed.json("stat", run_name)["workers"]] == ["idle", "idle"])  # rates are smoothed
    assert rank()["ready"] == 5
    assert puppet(run_name, 0).next() == held


def test_the_parents_death_as_a_trainer_sees_it(ringfeed, new_name, make, puppet):
    """A waiting `next` returns within 100 ms; held batches stay; ready ones are not handed out; no worker lives on."""
    made = make.raw(n=400)
    records = [s.data.hex() for s in made.samples]
    rounds, waits, workers = 10, [], []
    for i in range(rounds):
        name = new_name()
        serve = ringfeed.serve(made.path, name, "--world-size", 2, "--batch", 1, "--prefetch", 8, *made.args, "--workers", 2)
        waiting, ready = puppet(name, 0), puppet(name, 1)
        pids = workers_of(serve)
        held = [ready.next() for _ in range(3)]
        until(lambda: ringfeed.json("stat", name)["ranks"][1]["ready"] >= 5)
        # As above: a worker is stopped only once it has asked to die with its parent.
        until(lambda: all(pathlib.Path(f"/proc/{pid}/comm").read_text() == "ringfeed-worker\n" for pid in pids))
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(8):  # what is ready comes; then it waits
            waiting.ask("release", waiting.next()[0])
        waiting.send("next")
        until(lambda: "futex" in pathlib.Path(f"/proc/{waiting.pid}/wchan").read_text() or i > 0)
        watched = [os.pidfd_open(pid) for pid in pids]
        began = time.monotonic()
        serve.send(signal.SIGKILL)
        for fd in watched:
            wait_ready(fd, 10)
            os.close(fd)
        workers.append(time.monotonic() - began)
        word, code, at, *text = waiting.answer()
        assert (word, code) == ("error", "-32") and "died." in text
        waits.append(float(at) - began)
        word, code, _, *text = ready.ask("next")
        assert (word, code) == ("error", "-32") and "died." in text, "a merely ready batch was handed out"
        for number, content in reversed(held):  # any order
            assert ready.ask("look", number) == ["content", content] and content == records[2 * number + 1]
            assert ready.ask("release", number) == ["released"]
        assert ready.ask("next")[0] == "error"
        serve.wait()
        if i == 0:  # the name at once, while the old trainers still have their pages
            lines, _ = deliver(ringfeed, made.path, name, [0, 1], "--world-size", 2, "--batch", 4, *made.args)
            assert len(lines) == 400 and ready.ask("detach") == ["detached"]
        for one in (waiting, ready):
            one.end()
    ringfeed.ok("gc")
    for what, seconds in ("waiting next", waits), ("workers gone", workers):
        ordered = sorted(1000 * s for s in seconds)
        print(f"{what}: p50 {statistics.median(ordered):.1f} ms, max {ordered[-1]:.1f} ms of {rounds}")
    assert max(waits) < 0.1 * SLACK and max(workers) < 0.05 * SLACK


def wait_ready(fd, seconds):
    import select

    assert select.select([fd], [], [], seconds)[0], "did not end"


HEADER, REGIONS_AT, REGION = 4096, 4096, struct.Struct("<IIQQQ")


def regions(image):
    """(offset, bytes) of every region of a control object: see lib/segment/header.h."""
    n = struct.unpack_from("<I", image, 20)[0]
    start = 8 + 8 + 4 + 4 + 8 + 16 + 16 + 8 + 8 + 72
    return [REGION.unpack_from(image, start + i * REGION.size)[3:] for i in range(n)]


def test_a_damaged_segment_is_an_error_and_never_a_crash(ringfeed, run_name, make, tmp_path):
    """What a dead server left is looked at by `checkpoint`, `stat` and `--resume auto`. Here anybody has been at it."""
    made = make.raw(n=60)
    serve = ringfeed.serve(made.path, run_name, "--world-size", 2, "--batch", 2, "--strategy", "adaptive", *made.args)
    Trainer(ringfeed, run_name, 0, "--limit", 3).ok()
    serve.send(signal.SIGKILL)
    serve.wait()
    (path,) = [pathlib.Path("/dev/shm") / o for o in shm_objects() if run_name in o and not o.endswith(".data")]
    image = path.read_bytes()
    places = [r for r in regions(image) if r[1]]
    assert len(places) >= 14 and all(HEADER <= at <= len(image) for at, _ in places)
    for at, value in (4, 2**31), (0, 1), (8, 3):  # first rank, world size, ranks: ranks outside the world
        damaged = bytearray(image)
        struct.pack_into("<I", damaged, places[0][0] + at, value)
        path.write_bytes(bytes(damaged))
        ringfeed.fails("checkpoint", run_name, "-o", tmp_path / "c.json", says="damaged")
    rng, answers = random.Random(1), set()
    values = [0, 1, 2, 0x7F, 0xFF, 0x80]
    for i in range(600 if os.environ.get("RF_EXHAUSTIVE") else 30):
        damaged = bytearray(image)
        for _ in range(rng.choice([1, 1, 3])):
            at, n = places[i % len(places)] if rng.random() < 0.9 else (0, 512)
            at += 8 * rng.randrange((min(n, 512) + 7) // 8)
            damaged[at : at + 8] = bytes(rng.choice(values) for _ in range(8)) if i % 2 else struct.pack("<Q", rng.choice([0, 2**32 - 1, 2**63, 2**64 - 1]))
        path.write_bytes(bytes(damaged[: len(image)]))
        for verb in (("checkpoint", run_name, "-o", tmp_path / "c.json"), ("stat", run_name, "--json")):
            done = ringfeed(*verb)
            assert done.returncode in (0, 1), f"round {i}: {verb[0]}: {done.returncode}\n{done.stderr}"
            assert done.returncode == 0 or done.stderr.startswith("ringfeed: ")
            answers.add(done.returncode)
    assert answers == {0, 1}
    path.write_bytes(image)
    ringfeed.ok("checkpoint", run_name, "-o", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["stages"][0]["ranks"][0]["batch"] == 3
    ringfeed.ok("gc")

"""However a trainer or a loader ends: no process and no segment is left, nothing hangs, and what is held stays valid.

`nothing_left` looks after each test; the tests themselves only make the ends."""

import ast
import collections.abc
import gc
import inspect
import os
import pathlib
import signal
import subprocess
import threading
import time

import numpy
import pytest
import ringfeed as rf

DATA = numpy.arange(4000, dtype="<i4").reshape(1000, 4)

BEGIN = """
    import os, signal, sys, time, threading, numpy, ringfeed as rf
    loader = rf.Loader(numpy.arange(4000, dtype="<i4").reshape(1000, 4), 10)
    it = iter(loader)
    batch = next(it)
    data = batch.data
"""

ENDS = {
    "end": ("", 0),
    "close": ("loader.close()", 0),
    "exit": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('so')", 1),
    "exception inside with": ("\n    with loader:\n        raise ValueError('so')", 1),
    "os._exit": ("os._exit(4)", 4),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", -2),
    "abort": ("os.abort()", -6),
    "only the iterator is left": ("del loader, batch, data", 0),
    "in a thread": ("del data, batch; t = threading.Thread(target=lambda: [len(b) for b in it]); t.start(); t.join()", 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends(script, end):
    code, status = ENDS[end]
    one = script.start(BEGIN + "    " + code + "\n")
    assert one.wait() == status, one.stderr
    assert ("Traceback" in one.stderr) == (end.startswith("exception") or end == "SIGINT"), one.stderr


def test_a_loader_that_nobody_has_any_more_is_gone():
    loader = rf.Loader(DATA, 10)
    pid = loader._run.server.pid
    fd = os.pidfd_open(pid)
    del loader
    gc.collect()
    assert not os.path.exists(f"/proc/{pid}")
    os.close(fd)


def test_a_loader_that_keeps_its_iterator_is_gone_too():
    loader = rf.Loader(DATA, 10)
    loader.kept = iter(loader)
    pid = loader._run.server.pid
    del loader
    gc.collect()
    assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_a_dead_loader_raises(how):
    with rf.Loader(DATA, 10, timeout=30) as loader:
        it = iter(loader)
        batch = next(it)
        kept = batch.data
        os.kill(loader._run.server.pid, getattr(signal, f"SIG{how}"))
        with pytest.raises(rf.RingfeedError) as error:
            for batch in it:
                time.sleep(0.001)
        assert error.value.errno == 32 and not isinstance(error.value, TimeoutError)
        assert numpy.array_equal(kept, DATA[:10])
        with pytest.raises(rf.RingfeedError):
            loader.set_epoch(3)
            iter(loader)


def test_a_wait_is_over_in_time():
    """A stopped loader is neither dead nor of use."""
    with rf.Loader(DATA, 10, timeout=0.2, prefetch=2, num_workers=1) as loader:
        it = iter(loader)
        family = [loader._run.server.pid, *[w["pid"] for w in loader.stats()["workers"]]]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="within 200 ms") as error:
                for _ in it:
                    pass
            assert isinstance(error.value, rf.RingfeedError)
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        assert len(next(it)) == 10


WAIT = """
    import os, signal, sys, time, threading, numpy, ringfeed as rf
    loader = rf.Loader(numpy.zeros((100, 4)), 10, timeout=60, prefetch=2, num_workers=1)
    pids = [loader._run.server.pid, *[w["pid"] for w in loader.stats()["workers"]]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    ticks = []
    def tick():
        while not done:
            ticks.append(1)
            time.sleep(0.01)
    done = False
    thread = threading.Thread(target=tick)
    thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    signal.signal(signal.SIGALRM, lambda *_: (print("alarm", flush=True), os.kill(os.getpid(), signal.SIGINT)))
    try:
        for _ in loader:
            pass
    except KeyboardInterrupt:
        print("interrupted", len(ticks) > 5, flush=True)
    finally:
        done = True
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    print(sum(1 for _ in loader) == 10)
"""


def test_interrupt_acts_at_once_and_other_threads_run(script):
    began = time.monotonic()
    assert script.run(WAIT).stdout.split() == ["alarm", "interrupted", "True", "True"]
    assert time.monotonic() - began < 30  # the time-out is 60 s


def test_interrupt_of_the_whole_terminal_leaves_the_loader(script):
    """^C goes to the foreground group; a trainer that handles it may go on."""
    script.run("""
        import os, signal, numpy, ringfeed as rf
        os.setpgid(0, 0)
        loader = rf.Loader(numpy.zeros((100, 4)), 10)
        try:
            os.killpg(0, signal.SIGINT)
            import time; time.sleep(5)
        except KeyboardInterrupt:
            pass
        assert sum(len(b) for _ in range(3) for b in loader) == 300
    """)


def test_interrupt_of_a_start(script, tmp_path):
    """A server that does not get ready: here a program that only sleeps."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    began = time.monotonic()
    script.run("""
        import signal, numpy, ringfeed as rf
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            rf.Loader(numpy.zeros((100, 4)), 10)
        except KeyboardInterrupt:
            print("so")
    """, env={"RINGFEED": str(slow)})
    assert time.monotonic() - began < 30


def test_fork():
    """The child gets an error, and whatever it does harms nothing of its parent."""
    loader = rf.Loader(DATA, 10)
    it = iter(loader)
    batch = next(it)
    data = batch.data
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for use in (lambda: next(it), lambda: iter(loader), loader.state_dict):
                try:
                    use()
                except (rf.RingfeedError, RuntimeError) as error:
                    assert "forked child" in str(error), error
                else:
                    raise AssertionError("no error")
            assert numpy.array_equal(data, DATA[:10])
            loader.close()
            del loader, it, batch, data
            gc.collect()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert numpy.array_equal(data, DATA[:10]) and not batch.released
    del data, batch
    assert sum(len(b) for b in it) == 990
    assert sum(len(b) for b in loader) == 1000
    loader.close()


def test_fork_that_ends_as_python_does(script):
    script.run("""
        import os, sys, numpy, ringfeed as rf
        loader = rf.Loader(numpy.zeros((100, 4)), 10)
        if os.fork() == 0:
            sys.exit(0)
        os.wait()
        assert sum(len(b) for b in loader) == 100
    """)


def test_spawned_children_have_loaders_of_their_own(script):
    script.run("""
        import multiprocessing, numpy, ringfeed as rf
        def child(queue):
            with rf.Loader(numpy.ones((50, 2)), 5) as loader:
                queue.put(sum(float(b.data.sum()) for b in loader))
        if __name__ == "__main__":
            mine = rf.Loader(numpy.ones((50, 2)), 5)
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            children = [context.Process(target=child, args=(queue,)) for _ in range(2)]
            [c.start() for c in children]
            assert [queue.get(timeout=50) for _ in children] == [100.0, 100.0]
            [c.join() for c in children]
            assert sum(len(b) for b in mine) == 50
    """)


def test_arrays_that_another_thread_lets_go_of_while_the_ring_is_left():
    with rf.Loader(DATA, 10, prefetch=2, num_workers=1, timeout=20) as loader:
        it = iter(loader)
        held = [next(it).data, next(it).data]
        timer = threading.Timer(0.002, held.clear)
        timer.start()
        assert len(next(it)) == 10
        timer.join()
        assert sum(len(batch) for batch in it) == 970


def test_a_batch_that_goes_while_another_thread_waits():
    """It is given back by the one who waits, and counts."""
    with rf.Loader(DATA, 10, prefetch=4, num_workers=1, timeout=30) as loader:
        it = iter(loader)
        held = [next(it)]
        family = [loader._run.server.pid, *[w["pid"] for w in loader.stats()["workers"]]]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)

        def wake():
            while not loader._trainer.waiting:
                time.sleep(0.01)
            held.clear()
            for pid in family:
                os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=wake)
        thread.start()
        assert sum(len(b) for b in it) == 990
        thread.join()
        assert loader._trainer.held == 0
        assert loader.stats()["ranks"][0]["samples"] == 1000


def test_memory_is_flat_over_many_epochs():
    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    with rf.Loader(DATA, 50, shuffle=True) as loader:
        for epoch in range(100):
            for batch in loader:
                _ = batch.data, batch.ids, batch.fields
            if epoch == 20:
                before = resident()
                objects = len(gc.get_objects())
        assert resident() - before < 2 << 20
        assert len(gc.get_objects()) - objects < 200
        assert loader._trainer.held <= 1


def test_no_descriptor_is_left():
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    rf.Loader(DATA, 10).close()
    before = descriptors()
    for _ in range(3):
        with rf.Loader(DATA, 10, labels=numpy.zeros(1000, int)) as loader:
            next(iter(loader))
        with pytest.raises(rf.RingfeedError):
            rf.Loader(DATA, 10, ring_bytes=1)
    gc.collect()
    assert descriptors() == before


def stub_of(name):
    """Classes with their members, and functions, of a type stub."""
    stub = ast.parse((pathlib.Path(rf.__file__).parent / name).read_text())
    classes = {}
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            members = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
            members |= {f.target.id for f in node.body if isinstance(f, ast.AnnAssign)}
            for base in node.bases:
                members |= classes.get(getattr(base, "id", None), set())
            classes[node.name] = members
    return stub, classes, {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}


def test_the_stub_of_the_core_knows_everything():
    from ringfeed import _core

    _, classes, functions = stub_of("_core.pyi")
    assert {n for n in dir(_core) if not n.startswith("__")} == set(classes) | functions
    for name, members in classes.items():
        for member in members - {"__init__"}:
            assert hasattr(getattr(_core, name), member), (name, member)


def test_the_stub_of_the_package_knows_everything():
    stub, classes, functions = stub_of("__init__.pyi")
    imported = {a.asname for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
    assert set(rf.__all__) == {n for n in set(classes) | functions | imported if not n.startswith("_")}
    for name in rf.__all__:
        public = {n for n in dir(getattr(rf, name)) if not n.startswith("_")} - set(dir(OSError)) - set(dir(collections.abc.Sequence))
        assert name not in classes or public - {"arguments"} <= classes[name], name
    (loader,) = [f for n in stub.body if getattr(n, "name", "") == "Loader" for f in n.body if isinstance(f, ast.FunctionDef)]
    told = [a.arg for a in loader.args.args + loader.args.kwonlyargs]
    assert told == [n for n in inspect.signature(rf.Loader.__init__).parameters if n != "serve"]


def test_the_extension_needs_only_the_stable_abi():
    """What it takes from Python is in the list that Python's own headers have for 3.11."""
    from ringfeed import _core

    assert _core.__file__.endswith(".abi3.so")
    names = subprocess.run(["nm", "-D", "--undefined-only", _core.__file__], check=True, capture_output=True, text=True).stdout
    used = {n for n in names.split() if n.startswith(("Py", "_Py"))}
    private = {n for n in used if n.startswith("_Py")}
    assert used and private <= {
        "_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct", "_Py_Dealloc",
        "_PyArg_ParseTuple_SizeT", "_Py_BuildValue_SizeT", "_PyObject_CallFunction_SizeT", "_PyObject_CallMethod_SizeT",
    }  # fmt: skip

"""What tools/quickstart runs once the command is built:

    quickstart.py RINGFEED WORK_DIRECTORY [DATASET… [OPTIONS]]

index, serve in the background, four attach that check every byte, live progress from stat, then verify, and a
comparison of what came with what `ringfeed order` says, line by line. Standard library only. Ends with nothing
left running and nothing in /dev/shm, on Ctrl-C too."""

import ctypes
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import make_dataset

RANKS, WORKERS, BATCH, EPOCHS = 4, 3, 32, 2
DATASET_MB = 300
READY_SECONDS, END_SECONDS, STAT_SECONDS = 60, 30, 0.1
PLAIN_SECONDS, PLAIN_SECONDS_MOST = 0.1, 10.0  # without a terminal: less and less often
BAR_CELLS = 30
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """A step that did not go as it must; the text is for the user."""


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Session:
    """Every process started here, so that all of them can be ended."""

    def __init__(self, command, directory):
        self.command = command
        self.directory = directory
        self.processes = []

    def start(self, *args, stdout=None):
        # A session of its own: Ctrl-C comes to us alone, and we end them in order.
        process = subprocess.Popen(
            [self.command, *args], stdin=subprocess.DEVNULL, stdout=stdout, start_new_session=True,
            preexec_fn=die_with_parent, text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *args, quiet=False):
        """Standard output of a verb that must succeed."""
        stderr = subprocess.PIPE if quiet else None
        done = subprocess.run([self.command, *args], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False)
        if done.returncode != 0 and not quiet:
            raise Failed(f"ringfeed {args[0]} ended with {done.returncode}")
        return done.stdout if done.returncode == 0 else None

    def end(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(server, name):
    """Reads serve's stdout until it says that it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    text = b""
    fd = server.stdout.fileno()
    while f"ready {name}\n".encode() not in text:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise Failed(f"serve was not ready within {READY_SECONDS} s")
        more = os.read(fd, 4096)
        if not more:
            raise Failed(f"serve ended with {server.wait()} before it was ready")
        text += more


class Progress:
    """One line a rank: redrawn in place on a terminal, else written now and then."""

    def __init__(self, samples):
        self.expected = max(1, samples * EPOCHS // RANKS)
        self.terminal = sys.stdout.isatty()
        self.drawn = 0
        self.started = self.next = time.monotonic()
        self.interval = PLAIN_SECONDS

    def line(self, rank, tail):
        part = min(1.0, rank["samples"] / self.expected)
        cells = int(part * BAR_CELLS)
        seconds = max(time.monotonic() - self.started, 1e-9)
        return (
            f"rank {rank['rank']} [{'#' * cells}{'.' * (BAR_CELLS - cells)}] {part:4.0%}  {rank['samples']:>8} samples"
            f"  {rank['samples'] / seconds:>7.0f}/s  {rank['bytes'] / seconds / 1e9:6.3f} GB/s  {tail}"
        )

    def draw(self, lines):
        if self.terminal and self.drawn:
            sys.stdout.write(f"\033[{self.drawn}A")
        for line in lines:
            sys.stdout.write(("\r\033[K" if self.terminal else "") + line + "\n")
        self.drawn = len(lines)
        sys.stdout.flush()

    def show(self, stat):
        if not self.terminal and time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.interval
        self.interval = min(PLAIN_SECONDS_MOST, self.interval * 2)
        self.draw([self.line(r, f"epoch {r['epoch']}, {r['ready']} of {r['depth']} batches ready") for r in stat["ranks"]])

    def finish(self, summaries):
        self.draw([self.line(r, "done") for r in summaries])


def watch(session, name, trainers, progress):
    """Shows progress until every trainer has ended."""
    waiting = list(trainers)
    while waiting:
        text = session.run("stat", name, "--json", quiet=True)
        if text:
            progress.show(json.loads(text))
        try:
            waiting[0].wait(STAT_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        waiting = [t for t in waiting if t.poll() is None]


def summary_of(path):
    """The last line of attach's output."""
    lines = path.read_text().splitlines()
    if not lines:
        raise Failed("attach printed no summary")
    return json.loads(lines[-1])


def same_order(session, index, options, ids):
    """Compares what each rank got with what `order` says; None, or where they differ first."""
    files = [open(path, encoding="ascii") for path in ids]
    order = session.start("order", index, *options, stdout=subprocess.PIPE)
    try:
        for expected in order.stdout:
            rank = int(expected.split()[1])
            got = files[rank].readline()
            if got != expected:
                return f"rank {rank}: expected {expected.strip()!r}, got {got.strip()!r}"
        if order.wait() != 0:
            raise Failed(f"ringfeed order ended with {order.returncode}")
        for rank, file in enumerate(files):
            more = file.readline()
            if more:
                return f"rank {rank}: got {more.strip()!r} after its end"
        return None
    finally:
        order.stdout.close()
        for file in files:
            file.close()


def milliseconds(us):
    return f"{us / 1000:.2f}"


def print_table(rows):
    header = ["rank", "batches", "samples", "MB", "samples/s", "GB/s", "wait ms p50", "p99", "max", "prefetched", "bad bytes"]
    cells = [header] + [
        [
            str(r["rank"]), str(r["batches"]), str(r["samples"]), f"{r['bytes'] / 1e6:.1f}", f"{r['samples_per_s']:.0f}",
            f"{r['bytes_per_s'] / 1e9:.3f}", milliseconds(r["wait_us_p50"]), milliseconds(r["wait_us_p99"]),
            milliseconds(r["wait_us_max"]), f"{r['prefetch_hit_rate']:.1%}", str(r["check_errors"]),
        ]
        for r in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths)))


def yes(good):
    return "yes" if good else "NO"


def report(rows, difference, verified):
    seconds = max(r["seconds"] for r in rows) or 1e-9
    samples, size = sum(r["samples"] for r in rows), sum(r["bytes"] for r in rows)
    good_bytes = all(r["check_errors"] == 0 for r in rows)
    print()
    print_table(rows)
    print(f"\n{samples} samples, {size / 1e6:.1f} MB in {seconds:.2f} s, every byte compared with the source on the way:")
    print(f"{samples / seconds:.0f} samples/s, {size / seconds / 1e9:.3f} GB/s")
    print(f"every byte equal to the source: {yes(good_bytes)}")
    print(f"order as 'ringfeed order' says: {yes(difference is None)}{'' if difference is None else ' (' + difference + ')'}")
    print(f"every sample exactly once: {yes(verified)}")
    return 0 if good_bytes and verified and difference is None else 1


def order_options(batch):
    return ["--world-size", str(RANKS), "--shuffle", "full", "--batch", str(batch), "--epochs", str(EPOCHS)]


def order_that_fits(session, index):
    """Order options with the largest batch for which /dev/shm has room: a container's has 64 MB unless told."""
    batch = BATCH
    while True:
        memory = json.loads(session.run("plan", index, *order_options(batch), "--json"))["memory"]
        need, free = memory["total_bytes"], memory["shm_free_bytes"]
        if batch == BATCH:
            most = need
        if batch == 1 or free is None or need <= free:  # when one is too large, serve says so
            break
        batch //= 2
    if batch < BATCH:
        print(f"batch {batch}, as batch {BATCH} needs {most / 1e6:.0f} MB of /dev/shm and {free / 1e6:.0f} MB are free")
    return order_options(batch)


def serve_and_check(session, dataset):
    temporary = session.directory
    index, name = str(temporary / "dataset.rfi"), f"quickstart-{os.getpid()}"
    facts = json.loads(session.run("index", *dataset, "-o", index, "--json"))
    print(f"dataset: {facts['format']}, {facts['files']} files, {facts['samples']} samples, {facts['bytes'] / 1e6:.1f} MB")
    print(f"serving it to {RANKS} ranks with {WORKERS} workers, full shuffle, {EPOCHS} epochs")
    order = order_that_fits(session, index)
    server = session.start("serve", index, "--name", name, "--workers", str(WORKERS), *order, stdout=subprocess.PIPE)
    wait_ready(server, name)
    ids = [temporary / f"rank-{rank}.ids" for rank in range(RANKS)]
    outputs = [temporary / f"rank-{rank}.json" for rank in range(RANKS)]
    trainers = []
    for rank in range(RANKS):
        ids[rank].touch()
        with open(outputs[rank], "w", encoding="ascii") as out:
            trainers.append(
                session.start("attach", name, "--rank", str(rank), "--check", "--ids", str(ids[rank]), "--json", stdout=out)
            )
    progress = Progress(facts["samples"])
    watch(session, name, trainers, progress)
    bad = [rank for rank, t in enumerate(trainers) if t.returncode != 0]
    if bad:
        raise Failed(f"attach of ranks {bad} failed")
    if server.wait(END_SECONDS) != 0:
        raise Failed(f"serve ended with {server.returncode}")
    summaries = [summary_of(path) for path in outputs]
    progress.finish(summaries)
    difference = same_order(session, index, order, ids)
    verify = session.start("verify", "--dataset", index, *order, *map(str, ids), stdout=subprocess.PIPE)
    verify.communicate()
    return report(summaries, difference, verify.returncode == 0)


def on_signal(number, frame):
    raise KeyboardInterrupt


def main():
    command, work, dataset = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    sys.stdout.reconfigure(line_buffering=True)  # in order with what the command says on stderr
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix="ringfeed-quickstart-"))
    session = Session(command, temporary)
    try:
        if not dataset:
            dataset = [str(make_dataset.make(work, DATASET_MB))]
        return serve_and_check(session, dataset)
    except Failed as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nquickstart: interrupted", file=sys.stderr)
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        session.end()
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

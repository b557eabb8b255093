#!/usr/bin/python3
"""Memory of a trainer over many epochs, and of all processes of a run with eight ranks and ten million samples.

    bench/python_memory.py [--build DIR] [--epochs N] [--samples N] [--ranks N]

First: resident bytes of a trainer (RSS) and of the server's processes (PSS) after 10, then after every further 10 of N epochs, all
arrays of every batch being made. Then: N samples of 512 bytes in a sparse raw file, shuffled, ranks attached by a Python process each
that reads 200 batches of 256; the proportional share (PSS) of every process, and what the interpreters alone have."""
import argparse
import os
import subprocess
import sys
import tempfile
import time

RECORD, BATCH, READ = 512, 256, 200

TRAINER = f"""
import sys
import numpy
print("bare", flush=True)
sys.stdin.readline()
import ringfeed
with ringfeed.attach(sys.argv[1], int(sys.argv[2])) as loader:
    for step, batch in zip(range({READ}), loader):
        batch.data.sum(), batch.ids
    print("read", flush=True)
    sys.stdin.readline()
"""


def kib(pid, what):
    with open(f"/proc/{pid}/{'smaps_rollup' if what == 'Pss' else 'status'}") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(f"{what}:"))


def family(pid):
    children = [int(p) for t in os.listdir(f"/proc/{pid}/task") for p in open(f"/proc/{pid}/task/{t}/children").read().split()]
    return [pid, *(p for c in children for p in family(c))]


def mib(kib_):
    return f"{kib_ / 1024:.1f} MiB"


def over_epochs(rf, epochs):
    import numpy

    data = numpy.zeros((20000, 2048), "u1")
    with rf.Loader(data, BATCH, shuffle=True, labels=numpy.zeros(20000, int)) as loader:
        server = family(loader._run.server.pid)
        for epoch in range(1, epochs + 1):
            for batch in loader:
                _ = batch.data, batch.labels, batch.ids, batch.fields
            if epoch % 10 == 0:
                print(f"after {epoch:4} epochs: trainer {mib(kib(os.getpid(), 'VmRSS'))}, server {mib(sum(kib(p, 'Pss') for p in server))}",
                      flush=True)


def many_ranks(command, samples, ranks):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = os.path.join(directory, "records")
        with open(path, "wb") as f:
            f.truncate(samples * RECORD)
        name = f"memory-{os.getpid()}"
        began = time.perf_counter()
        serve = subprocess.Popen([command, "serve", path, "--format", "raw", "--record-bytes", str(RECORD), "--name", name, "--batch",
                                  str(BATCH), "--ranks", str(ranks), "--shuffle", "full", "--epochs", "0"], stdout=subprocess.PIPE,
                                 text=True)
        trainers = []
        try:
            if not serve.stdout.readline().startswith("ready"):
                sys.exit("python_memory.py: serve did not start")
            took = time.perf_counter() - began
            trainers = [subprocess.Popen([sys.executable, "-c", TRAINER, name, str(r)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True) for r in range(ranks)]
            for t in trainers:
                assert t.stdout.readline() == "bare\n"
            bare = sum(kib(t.pid, "Pss") for t in trainers)
            for t in trainers:
                t.stdin.write("\n")
                t.stdin.flush()
            for t in trainers:
                assert t.stdout.readline() == "read\n"
            server = sum(kib(p, "Pss") for p in family(serve.pid))
            after = sum(kib(t.pid, "Pss") for t in trainers)
            print(f"{samples:,} samples, {ranks} ranks: ready after {took:.2f} s; PSS of all processes {mib(server + after)}: server {mib(server)}, "
                  f"trainers {mib(after)}, of which Python and NumPy alone {mib(bare)}; one trainer {mib(after / ranks)}", flush=True)
            for t in trainers:
                t.communicate("\n", timeout=60)
        finally:
            for t in trainers:
                t.kill()
                t.wait()
            serve.terminate()
            serve.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--ranks", type=int, default=8)
    args = parser.parse_args()
    command = os.path.join(os.path.abspath(args.build), "tools", "ringfeed")
    os.environ.setdefault("RINGFEED", command)
    os.environ["PYTHONPATH"] = os.path.join(os.path.abspath(args.build), "lib", "python")
    sys.path.insert(0, os.environ["PYTHONPATH"])
    import ringfeed as rf

    over_epochs(rf, args.epochs)
    many_ranks(command, args.samples, args.ranks)


if __name__ == "__main__":
    main()

"""Datasets behind the faulty file system of tests/fuse, and what the error policy must make of an order: computed
here from the lines of `ringfeed order` and the set of unreadable samples, by nothing of ringfeed's own."""

import ctypes
import ctypes.util
import os
import pathlib
import signal
import subprocess
import time

import pytest

from conftest import find_command

LIBC = ctypes.CDLL(None, use_errno=True)


def build_directory():
    return pathlib.Path(os.environ.get("RINGFEED_BUILD", find_command().parents[1]))


class Faulty:
    """A folder seen through faultfs: `rules` spoil what ringfeed's workers read of it."""

    def __init__(self, folder, place, rules, *args):
        self.path = place / "mnt"
        self.path.mkdir(parents=True)
        file = place / "rules"
        file.write_text("".join(f"{rule}\n" for rule in rules))
        self.process = subprocess.Popen(
            [build_directory() / "tests/fuse/faultfs", folder, self.path, file, *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            preexec_fn=lambda: LIBC.prctl(1, signal.SIGKILL),
        )

    def mounted(self):
        for _ in range(1000):
            if os.path.ismount(self.path):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return False

    def spoilt(self):
        return int((self.path / ".faults").read_text().split()[-1])

    def end(self):
        LIBC.umount2(str(self.path).encode(), 2)  # MNT_DETACH
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def faulty(tmp_path):
    """faulty(folder, rules): the mount, or a skip with the reason."""
    if not (build_directory() / "tests/fuse/faultfs").exists():
        pytest.skip("faultfs is not built: libfuse3-dev was not found")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened here")
    mounts = []

    def mount(folder, rules, *args):
        one = Faulty(folder, tmp_path / f"fuse-{len(mounts)}", rules, *args)
        mounts.append(one)
        if not one.mounted():
            said = one.process.stderr.read().decode(errors="replace") if one.process.poll() is not None else "no answer"
            pytest.skip(f"a FUSE file system cannot be mounted here: {said.strip()}")
        return one

    yield mount
    for one in mounts:
        one.end()


def split(lines):
    """{(epoch, rank, batch): [(index, flag)]} of lines of ids."""
    batches = {}
    for line in lines:
        epoch, rank, batch, _, index, flag = line.split()
        batches.setdefault((int(epoch), int(rank), int(batch)), []).append((int(index), flag))
    return batches


def expected(lines, policy, bad, size):
    """Lines of the order as `policy` changes them when the samples in `bad` cannot be read, and the decisions."""
    out, decisions = [], []
    sequences = {}
    for line in lines:
        epoch, rank, batch, slot, index, flag = line.split()
        sequences.setdefault((epoch, rank), []).append((batch, slot, int(index), flag))
    for (epoch, rank), sequence in sequences.items():
        slots = {}
        for at, (batch, slot, index, flag) in enumerate(sequence):
            slots.setdefault(batch, 0)
            if index in bad:
                substitute = None
                if policy == "replace":
                    following = sequence[at + 1:] + sequence[:at]
                    substitute = next(i for _, _, i, _ in following if i != index and i not in bad and size(i) <= size(index))
                decisions.append((int(epoch), int(rank), int(batch), int(slot), index, substitute))
                if substitute is None:
                    continue
                index, flag = substitute, "s"
            out.append(f"{epoch} {rank} {batch} {slots[batch]} {index} {flag}")
            slots[batch] += 1
    return out, sorted(decisions)


def decisions(stat):
    """The error log as `stat` lists it, in the form of expected()."""
    return sorted(
        (f["epoch"], f["rank"], f["batch"], f["slot"], f["sample"], f["substitute"]) for f in stat["faults"]
    )
